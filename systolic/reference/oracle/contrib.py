"""Operators of com.microsoft that are given by a record: functions of what they read and of attributes.

An input that is left out is None; attributes have ONNX's defaults.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from systolic.reference.oracle._numbers import widened
from systolic.reference.oracle.elementwise import REAL_FUNCTIONS


def op(layer: Any, *inputs: np.ndarray) -> Any:
    """Return the output of an operator by its name."""
    spread: list[Any] = list(inputs)
    for place in sorted(layer.absent):
        spread.insert(place, None)
    return OPS[layer.operation](*spread, **dict(layer.attributes))


def _bias_gelu(x: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return np.asarray(REAL_FUNCTIONS["Gelu"](widened(x + bias))).astype(x.dtype)


OPS: dict[str, Callable[..., Any]] = {"BiasGelu": _bias_gelu}
"""Oracles of the layer ``Op`` by operation."""
