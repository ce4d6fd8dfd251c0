"""Functions of one number, of two, and of codes that share them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from systolic.reference.oracle._numbers import Wide, widened
from systolic.reference.oracle.shapes import expanded


def rectified(x: np.ndarray, zero_point: int = 0) -> np.ndarray:
    """Return ``max(q, zero_point)``: the real value is 0 at the zero point."""
    return np.maximum(x, np.asarray(zero_point, dtype=x.dtype))


def relu(layer: Any, x: np.ndarray) -> np.ndarray:
    """Rectify codes or real numbers."""
    return rectified(x, layer.zero_point)


def clip(layer: Any, x: np.ndarray) -> np.ndarray:
    """ONNX Clip: NaN stays."""
    for bound, within in ((layer.low, np.greater_equal), (layer.high, np.less_equal)):
        if bound is not None:
            limit = np.array(bound).astype(x.dtype)
            x = np.where(within(x, limit) | (x != x), x, limit)
    return x


def where(layer: Any, condition: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """ONNX Where."""
    shape = np.broadcast_shapes(condition.shape, a.shape, b.shape)
    y, chosen = expanded(b, shape).copy(), expanded(condition, shape)
    y[chosen] = expanded(a, shape)[chosen]
    return y


def cast(layer: Any, x: np.ndarray) -> np.ndarray:
    """ONNX Cast: integers wrap; floats out of an integer type's range are as the processor has them."""
    target = np.dtype(layer.dtype)
    if target.kind == "b":
        return np.asarray(x != 0)
    if target.kind in "iu" and x.dtype.kind == "f":
        return np.trunc(x).astype(target)
    if target.kind in "iu" and x.dtype.kind in "iu":
        bits = x.astype(np.uint64) & np.uint64(2 ** (8 * target.itemsize) - 1)
        return bits.astype(f"u{target.itemsize}").view(target)
    return x.astype(target)


# Functions of one number


def _erf(x: Any) -> np.ndarray:
    values = [math.erf(value) for value in x.astype(np.float64).ravel().tolist()]
    return np.array(values, np.float64).reshape(x.shape)


def _floor(x: Any) -> Any:
    whole = np.trunc(x)
    return whole - (whole > x)


REAL_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "Erf": _erf,
    "Exp": np.exp,
    "Gelu": lambda x: x / 2 * (1 + _erf(x / np.sqrt(Wide(2)))),
    "GeluTanh": lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / Wide(math.pi)) * (x + Wide(0.044715) * x**3))),
    "Log": np.log,
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Tanh": np.tanh,
}
"""Functions that no standard rounds, by their ONNX names."""

_EXACT_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "Abs": lambda x: np.where(x < 0, 0 - x, x),
    "Ceil": lambda x: -_floor(-x),
    "Floor": _floor,
    "Neg": lambda x: 0 - x,
    "Not": lambda x: x == 0,
    "Reciprocal": lambda x: x.dtype.type(1) / x,
    "Round": np.round,
    "Sqrt": lambda x: x if not x.size else np.sqrt(x.astype(np.float64)),
}


def unary(layer: Any, x: np.ndarray) -> np.ndarray:
    """Return a function of every number by its ONNX name, rounded to x's type."""
    if layer.operation in REAL_FUNCTIONS:
        return np.asarray(REAL_FUNCTIONS[layer.operation](widened(x))).astype(x.dtype)
    return np.asarray(_EXACT_FUNCTIONS[layer.operation](x)).astype(x.dtype)


# Functions of two numbers


def _with_nan(chosen: Any, a: Any, b: Any) -> Any:
    return np.where(a != a, a, np.where(b != b, b, chosen))


_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "And": lambda a, b: a & b,
    "Or": lambda a, b: a | b,
    "Xor": lambda a, b: a ^ b,
    "Equal": lambda a, b: a == b,
    "Greater": lambda a, b: a > b,
    "GreaterOrEqual": lambda a, b: a >= b,
    "Less": lambda a, b: a < b,
    "LessOrEqual": lambda a, b: a <= b,
    "Max": lambda a, b: _with_nan(np.where(a > b, a, b), a, b),
    "Min": lambda a, b: _with_nan(np.where(a < b, a, b), a, b),
}


def _wide(x: np.ndarray) -> np.ndarray:
    """Return numbers in a type in which one operation is exact or harmlessly rounded twice."""
    if x.dtype.kind == "f":
        return x.astype(np.float64)
    return x if x.dtype.kind == "b" or x.dtype.itemsize == 8 else x.astype(np.int64)


def innermost_is_one(a: tuple[int, ...], b: tuple[int, ...]) -> bool | None:
    """Whether a has extent 1 on the innermost axis on which not both have; None if there is no such axis."""
    axes = max(len(a), len(b))
    padded = zip((1,) * (axes - len(a)) + a, (1,) * (axes - len(b)) + b, strict=True)
    found = [left == 1 for left, right in padded if (left, right) != (1, 1)]
    return found[-1] if found else None


def binary(layer: Any, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a function of two numbers by its ONNX name, in the first one's type; bool for comparisons.

    Integers wrap, and are divided towards 0. Of floats only Pow is not rounded as IEEE 754 says.
    """
    operation, dtype = layer.operation, a.dtype
    if operation == "Pow":
        if dtype.kind == "f":
            return np.power(widened(a), widened(b)).astype(dtype)
        # In float64, also for integers, as in ONNX Runtime; except squares and cubes by one exponent.
        power = np.power(a.astype(np.float64), b.astype(np.float64)).astype(dtype)
        if innermost_is_one(b.shape, a.shape):
            power = np.where(b == 2, a * a, np.where(b == 3, a * a * a, power))
        return np.asarray(power)
    if operation == "Div" and dtype.kind == "f":
        return np.asarray(_wide(a) / _wide(b)).astype(dtype)
    if operation == "Div":
        wide = np.uint64 if dtype.kind == "u" else np.int64
        a, b = a.astype(wide), b.astype(wide)
        return np.asarray((a - np.fmod(a, b)) // b).astype(dtype)
    result = np.asarray(_ARITHMETIC[operation](_wide(a), _wide(b)))
    return result if result.dtype == bool else result.astype(dtype)
