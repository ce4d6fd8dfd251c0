"""Operators of com.microsoft that transformers are exported with."""

from __future__ import annotations

import numpy as np

from systolic.layers.base import Shape
from systolic.layers.host import _special
from systolic.layers.host._parts import elementwise
from systolic.layers.host.op import define
from systolic.layers.record import MICROSOFT


def _bias_shape(x: Shape, bias: Shape) -> Shape:
    if bias != x[-1:]:
        raise ValueError(
            f"BiasGelu takes a bias {x[-1:]}, one number per element of x's last axis, not {bias}"
        )
    return x


def _bias_gelu(x: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return elementwise(lambda part: _special.in_double(_special.gelu, part), x.dtype, x + bias)


OPERATORS = (
    define(
        name="BiasGelu",
        domain=MICROSOFT,
        help="Gelu of the sum of x and a bias along the last axis.",
        inputs=("x", "bias"),
        kernel=_bias_gelu,
        shape=_bias_shape,
    ),
)
