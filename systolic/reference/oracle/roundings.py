"""Requantization of int32 sums to codes, by float32 or by integers.

The integer roundings are computed in Python's integers, one distinct sum after another: no step can overflow
or round unseen. Formulas and sources are in ``systolic/quant/roundings.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from systolic.reference.oracle._numbers import F32, half_even, spread, wrap_int32


def scaled(
    acc: np.ndarray,
    x_scale: Any,
    w_scale: Any,
    y: tuple[Any, Any, Any] | None,
    *,
    bias: Any = None,
    axis: int = -1,
    rounding: str = "half_even",
) -> np.ndarray:
    """Add a bias to int32 sums modulo 2^32 and scale them: to codes, or to float32 without `y`.

    With ``m = f32(f32(x_scale * w_scale) / y_scale)``: ``sat(rne(f32(f32(acc) * m)) + z)``, as ONNX Runtime's
    MlasRequantizeOutput does. `y` is scale, zero point and type; `axis` is that of channels.
    """
    if bias is not None:
        acc = wrap_int32(acc + spread(np.asarray(bias, np.int64), acc.shape, axis))
    factor = F32(x_scale) * spread(np.asarray(w_scale, F32), acc.shape, axis)
    if y is None:
        return np.asarray(acc.astype(F32) * factor)
    scale, zero, dtype = y
    if rounding in ("half_even", "gemmini"):
        # Gemmini's clamp comes after rounding: with whole numbers as bounds that is the same.
        return half_even(acc.astype(F32) * (factor / F32(scale)), zero, dtype)
    # In double precision: the product of two float32 is exact, the quotient is rounded once.
    scales = [float(x_scale) * float(each) / float(scale) for each in np.ravel(w_scale)]
    sums_of = np.atleast_1d(acc)  # a product of vectors is one number, and that of a vector has no rows
    out, limits = np.empty(sums_of.shape, dtype), np.iinfo(dtype)
    channels, targets = np.moveaxis(sums_of, axis, 0), np.moveaxis(out, axis, 0)
    for number, channel in enumerate(channels):
        m = Fraction(scales[number if len(scales) > 1 else 0])
        sums, where = np.unique(channel, return_inverse=True)
        codes = [rounded_code(rounding, int(each), m, int(zero), limits.min, limits.max) for each in sums]
        targets[number, ...] = np.array(codes, dtype)[where].reshape(channel.shape)
    return out.reshape(acc.shape)


def rounded_code(rounding: str, acc: int, m: Fraction, zero_point: int, low: int, high: int) -> int:
    """Return the code of a sum by an integer rounding, for the multiplier m."""
    value = INTEGER_ROUNDINGS[rounding](acc, m) + zero_point
    return min(max(value if rounding == "shift" else _i32(value), low), high)


def _i32(value: int) -> int:
    return (value + 2**31) % 2**32 - 2**31


def normalized(m: Fraction) -> tuple[int, int]:
    """Return q and e with m = q * 2^(e - 31), q of 31 bits, as TFLite's QuantizeMultiplier finds them.

    They are 0 for what is below 2^-32.
    """
    if m == 0:
        return 0, 0
    e = 0
    while m >= 1:
        m, e = m / 2, e + 1
    while m < Fraction(1, 2):
        m, e = m * 2, e - 1
    q = math.floor(m * 2**31 + Fraction(1, 2))
    if q == 2**31:
        q, e = q // 2, e + 1
    return (q, e) if e >= -31 else (0, 0)


def _tflite(acc: int, m: Fraction) -> int:
    q, e = normalized(m)
    product = _i32(acc << max(e, 0)) * q
    high = math.trunc(Fraction(product + (2**30 if product >= 0 else 1 - 2**30), 2**31))
    exact = Fraction(high, 2 ** max(-e, 0))
    return math.floor(abs(exact) + Fraction(1, 2)) * (1 if exact >= 0 else -1)  # ties away from zero


def _tflite_single(acc: int, m: Fraction) -> int:
    q, e = normalized(m)
    return _i32(math.floor(Fraction(acc * q, 2 ** (31 - e)) + Fraction(1, 2)))


def _shift(acc: int, m: Fraction) -> int:
    return math.floor(acc * m + Fraction(1, 2))


INTEGER_ROUNDINGS: dict[str, Callable[[int, Fraction], int]] = {
    "tflite": _tflite,
    "tflite_single": _tflite_single,
    "shift": _shift,
}
