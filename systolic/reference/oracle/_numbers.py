"""Codes and real numbers: scales and zero points, rounding, saturation, exact float steps.

The integer roundings of int32 sums are computed in Python's integers, one distinct sum after another: no step
can overflow or round unseen. Formulas and sources are in ``systolic/quant/roundings.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

F32 = np.float32
Wide = np.longdouble

# Above this number of elements use double precision, which is twenty times as fast.
_MANY = 1 << 16


def widened(x: np.ndarray) -> np.ndarray:
    """Return numbers as long double, or as float64 if they are many or the platform has nothing wider."""
    return x.astype(Wide if x.size <= _MANY else np.float64)


def one(value: Any) -> np.ndarray:
    """Return one value, whatever its shape, as a 0-d array."""
    return np.asarray(value).reshape(())


def params(p: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the scales and zero points of quantization parameters: one value, or one per channel."""
    return np.asarray(p.scale, F32), np.asarray(p.zero_point, np.int64)


def spread(values: Any, shape: tuple[int, ...], axis: int | None, block: int = 0) -> np.ndarray:
    """Return one value, or one per index or block of an axis, such that it broadcasts to a shape.

    What has several axes broadcasts as it is, unless they hold blocks.
    """
    values = np.asarray(values)
    if block and axis is not None and values.ndim:
        return np.take(values, np.arange(shape[axis]) // block, axis)
    if values.size == 1:
        return values.reshape(())
    if values.ndim > 1:
        return values
    along = [1] * len(shape)
    along[-1 if axis is None else axis] = values.size
    return values.reshape(along)


def wrap_int32(values: Any) -> np.ndarray:
    """Return int64 sums modulo 2^32 as int32 of the same shape (the low 32 bits)."""
    low = np.bitwise_and(np.asarray(values, dtype=np.int64), 0xFFFFFFFF)
    return np.asarray(low, dtype=np.uint32).view(np.int32)


def half_even(values: Any, zero_point: Any, dtype: Any, *, zero_first: bool = False) -> np.ndarray:
    """Round to the nearest whole number, ties to even, add the zero point and saturate.

    NaN becomes the smallest code. With `zero_first` the zero point is added before rounding, in float32, and
    the conversion is by way of int32 as on x86: what int32 cannot hold becomes the smallest code too.
    """
    limits = np.iinfo(dtype)
    if zero_first:
        values = values + np.asarray(zero_point, F32)
        lost = ~((values >= -(2.0**31)) & (values < 2.0**31))
        codes = np.rint(values)
    else:
        # What this sum rounds away in float64 lies far outside every type.
        codes = np.rint(values).astype(np.float64) + zero_point
        lost = np.isnan(codes)
    return np.where(lost, limits.min, np.clip(codes, limits.min, limits.max)).astype(dtype)


def to_codes(x: np.ndarray, p: Any) -> np.ndarray:
    """Quantize by parameters per tensor: ``sat(rne(f32(x / s)) + z)``."""
    scale, zero = params(p)
    return half_even(x / scale, zero, p.dtype)


def to_reals(q: np.ndarray, p: Any) -> np.ndarray:
    """Dequantize by parameters per tensor: ``f32(f32(q - z) * s)``."""
    scale, zero = params(p)
    return np.asarray((q.astype(np.int64) - zero).astype(F32) * scale)


def fma(a: Any, b: Any, c: Any) -> np.ndarray:
    """Fused multiply-add of float32 arrays: a*b + c rounded to float32 once.

    The product of two float32 is exact in float64, and the error of adding c to it is a float64
    too, found without error by Knuth's TwoSum. Let s be the float64 sum and e its error. The
    points half way between two neighbouring float32 are float64 numbers, and rounding is
    monotonic, so s lies on the same side of such a point as s + e unless it stands on it. Only
    then does rounding s go wrong, and there the sign of e decides.
    """
    product = np.multiply(a, b, dtype=np.float64)
    addend = np.asarray(c, dtype=np.float64)
    total = product + addend
    taken = total - product
    error = (product - (total - taken)) + (addend - taken)

    nearest = total.astype(F32)
    beyond = np.where(total > nearest, F32(np.inf), F32(-np.inf))
    other = np.nextafter(nearest, beyond)
    half_way = (total != nearest) & (total - nearest == other - total)
    exact = np.where(error > 0, np.maximum(nearest, other), np.minimum(nearest, other))
    return np.where(half_way & (error != 0), exact, nearest)


# Requantization of int32 sums to codes, by float32 or by integers


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
