"""Codes and real numbers: scales and zero points, rounding, saturation, exact float steps."""

from __future__ import annotations

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
