"""The named roundings: how an int32 sum times a multiplier becomes an 8-bit code.

They differ in what they keep of the multiplier, in where they round and in what a tie becomes::

    m = 0.25, zero point 0, sums     -10  -6  -5  -2  -1   1   2   5   6  10
    half_even, gemmini                -2  -2  -1   0   0   0   0   1   2   2
    tflite                            -3  -2  -1  -1   0   1   1   2   2   3
    tflite_single, shift              -2  -1  -1   0   0   0   1   1   2   3

Notation: ``rne`` rounds to the nearest integer, ties to even; ``>>`` is the arithmetic shift, which
rounds down; ``sat`` clamps to the type of the codes; ``i32`` keeps the low 32 bits, signed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from systolic import _check

Columns = tuple[np.ndarray, ...]

# What a left shift of the fixed-point multiplier and of "shift" may be: 1 << 31 is no int32.
_MAX_EXPONENT = 30
_MIN_EXPONENT = -31


class Rounding(NamedTuple):
    """One rounding: how its multipliers are held, and the function for a block of sums."""

    multiplier_dtype: type[np.generic]
    """float32, or float64 where the runtime turns a double into integers."""
    columns: Callable[[np.ndarray], Columns]
    """Finite multipliers of that type, not negative, to the arrays that `block` takes; or ValueError."""
    block: Callable[..., None]
    """``block(acc, *columns, zero_point, work, out)``: all of one shape, columns broadcast to it."""
    work_dtype: type[np.generic]
    """Type of the work array."""


def fixed_point(scale: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Return multipliers as ``q * 2**(exponent - 31)``, the integers a TFLite kernel works with.

    ``scale = fraction * 2**exponent`` with a fraction from 0.5 up to 1, then
    ``q = floor(fraction * 2**31 + 0.5)``; a q of 2^31 becomes 2^30 with the next exponent. Multipliers
    below about 2^-32 (an exponent below -31) become 0, as in TFLite.

    Parameters
    ----------
    scale : float64 or array_like of float64
        Finite, not negative, below 2^30.

    Returns
    -------
    q : ndarray of int64
        0, or from 2^30 up to 2^31 - 1.
    exponent : ndarray of int64
        -31 to 30: left shifts above 0.

    Raises
    ------
    ValueError
        If a multiplier is NaN, negative or too large.

    Notes
    -----
    ``QuantizeMultiplier`` in tensorflow/lite/kernels/internal/quantization_util.cc.

    Examples
    --------
    >>> from systolic.quant import fixed_point
    >>> q, exponent = fixed_point([0.5, 0.1, 3.0])
    >>> q.tolist(), exponent.tolist()
    ([1073741824, 1717986918, 1610612736], [0, -3, 2])
    """
    scale = _check.as_array(scale, "scale").astype(np.float64)
    if not (np.isfinite(scale) & (scale >= 0)).all():
        wrong = scale[~(np.isfinite(scale) & (scale >= 0))][0]
        raise ValueError(f"scale must be finite and not negative, not {float(wrong)}")
    fraction, exponent = np.frexp(scale)
    # Exact: 53 significant bits below 2^31 reach down to 2^-22. A sum of 2^31 or more may be rounded,
    # but not below 2^31.
    q = np.floor(np.ldexp(fraction, 31) + 0.5).astype(np.int64)
    exponent = exponent.astype(np.int64)
    carried = q == 1 << 31
    q, exponent = np.where(carried, 1 << 30, q), np.where(carried, exponent + 1, exponent)
    if (exponent > _MAX_EXPONENT).any():
        raise ValueError(
            f"scale must be below 2**{_MAX_EXPONENT} for a fixed-point multiplier, not {float(scale.max())}; "
            "check the scales"
        )
    lost = exponent < _MIN_EXPONENT
    return np.where(lost, 0, q), np.where(lost, 0, exponent)


def to_codes(values: np.ndarray, zero_point: Any, out: np.ndarray, *, zero_first: bool = False) -> np.ndarray:
    """Round floats, ties to even, saturate them to the codes of `out`, and return that.

    The zero point is added after rounding, ``sat(rne(v) + zero_point)``, and NaN becomes the smallest code:
    ONNX's QuantizeLinear and ONNX Runtime's requantization. With `zero_first` it is added before, in the
    values' type, ``sat(i32(rne(v + zero_point)))``: ONNX Runtime's QLinearAdd and the like on x86, where
    the conversion to int32 makes NaN and 2^31 or more the smallest code, too.

    Parameters
    ----------
    values : ndarray of float32 or float64
        Overwritten.
    zero_point : int or ndarray of int
        Broadcasts to the values.
    out : ndarray of an integer type, the shape of values
    zero_first : bool

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.quant import to_codes
    >>> values = np.float32([0.5, 1.5, 3e9])
    >>> to_codes(values.copy(), 1, np.empty(3, np.int8))
    array([  1,   3, 127], dtype=int8)
    >>> to_codes(values.copy(), 1, np.empty(3, np.int8), zero_first=True)
    array([   2,    2, -128], dtype=int8)
    """
    limits = np.iinfo(out.dtype)
    values, zero = np.asarray(values), np.asarray(zero_point, np.int64)
    with np.errstate(invalid="ignore"):
        if zero_first:
            np.add(values, zero.astype(values.dtype), out=values)
            np.copyto(values, limits.min, where=~(values < 2.0**31))
            zero = np.zeros((), np.int64)
        np.rint(values, out=values)
        if out.dtype.itemsize == 4:  # its bounds are no float32 numbers; those of narrower types are
            values = values.astype(np.float64)
        # fmax, not maximum: NaN loses against the lower bound.
        np.fmax(values, (limits.min - zero).astype(values.dtype), out=values)
        np.fmin(values, (limits.max - zero).astype(values.dtype), out=values)
        np.add(values, zero.astype(values.dtype), out=values)
        np.copyto(out, values, casting="unsafe")
    return out


def half_even(acc: np.ndarray, scale: np.ndarray, zero_point: int, work: np.ndarray, out: np.ndarray) -> None:
    """Round as ONNX Runtime does: a float32 product, ties to even, the zero point after rounding.

    ::

        v = f32(f32(acc) * m)                           # int32 -> float32 rounds above 2^24
        v = min(max(v, qmin - zero_point), qmax - zero_point)   # NaN becomes the lower bound
        y = int(rne(v)) + zero_point

    Notes
    -----
    ``MlasRequantizeOutput`` in ONNX Runtime's MLAS (onnxruntime/core/mlas/lib/quantize.cpp). qnnpack
    and XNNPACK do the same, and so LiteRT's default kernels, which are XNNPACK's: on x86 with one
    difference, that products of about -2^31 and below wrap to the largest code where the zero
    point is negative.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import requantize
    >>> requantize(np.int32([-5, -3, -1, 1, 3, 5]), 0.5, 3, dtype="int8", rounding="half_even")
    array([1, 1, 3, 3, 5, 5], dtype=int8)
    """
    np.copyto(work, acc, casting="same_kind")
    np.multiply(work, scale, out=work)
    to_codes(work, zero_point, out)


def gemmini(acc: np.ndarray, scale: np.ndarray, zero_point: int, work: np.ndarray, out: np.ndarray) -> None:
    """Round as Gemmini's accumulator does when it is read: a float32 product, ties to even, then clamps.

    ::

        v = f32(f32(acc) * m)
        v = sat32(rne(v))                               # rounded first, saturated to int32
        y = sat(v + zero_point)                         # then clipped to 8 bits

    Gemmini stores int8 and has no zero point: `zero_point` 0 with int8 is what the hardware does.
    Its clamps come after rounding, in ``half_even`` the clamp comes first; both have whole
    numbers as bounds, so the codes are the same. What differs is how a zero point can reach the
    hardware: only in the bias, as ``rne(zero_point / m)``, and so before rounding. That takes
    other ties: 1 * 0.5 with zero point 3 is ``rne(3.5) = 4`` there, ``rne(0.5) + 3 = 3`` here.

    Notes
    -----
    ``acc_scale_args`` of ``defaultConfig`` in ucb-bar/gemmini, src/main/scala/gemmini/Configs.scala
    (INToRecFN, MulAddRecFN, RecFNToIN, all round_near_even, with saturation), ``clippedToWidthOf``
    in AccumulatorScale.scala, and ``ACC_SCALE`` in the generated gemmini_params.h. Gemmini's ONNX
    Runtime (ucb-bar/onnxruntime-riscv) refuses zero points other than 0.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import requantize
    >>> requantize(np.int32([-5, -3, -1, 1, 3, 5]), 0.5, 0, dtype="int8", rounding="gemmini")
    array([-2, -2,  0,  0,  2,  2], dtype=int8)
    >>> requantize(np.int32([1]) + round(3 / 0.5), 0.5, 0, dtype="int8", rounding="gemmini")
    array([4], dtype=int8)
    """
    # One clamp for two: the codes' bounds lie within int32, and what overflowed to infinity saturates too.
    half_even(acc, scale, zero_point, work, out)


def tflite(
    acc: np.ndarray, q: np.ndarray, exponent: np.ndarray, zero_point: int, work: np.ndarray, out: np.ndarray
) -> None:
    """Round as gemmlowp and TFLite's reference convolution do: twice, in integers.

    With q and e of :func:`fixed_point`::

        x = i32(acc << max(e, 0))
        h = (x * q + 2^30) >> 31                        # ties up
        r = max(-e, 0)
        v = h / 2^r to the nearest, ties away from zero
        y = sat(i32(v + zero_point))

    The first step is gemmlowp's SaturatingRoundingDoublingHighMul, which writes it as
    ``trunc((x*q + (2^30 if x*q >= 0 else 1 - 2^30)) / 2^31)``, the same number, and saturates for
    ``x = q = -2^31`` only, but q is not negative. The second is RoundingDivideByPOT. Rounding
    twice turns 1 * 0.25 into 1.

    In C the shift and the last sum overflow without a defined result. They wrap in LiteRT, and so
    here. It takes a multiplier of at least 1 and sums of 2^30 or more (less for larger ones), or a
    multiplier within 2^-23 of 1 and sums near 2^31.

    Notes
    -----
    google/gemmlowp fixedpoint/fixedpoint.h; ``MultiplyByQuantizedMultiplier`` in
    tensorflow/lite/kernels/internal/common.cc. Compared with the reference convolution of LiteRT 2.3:
    tests/quant/test_roundings_litert.py.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import requantize
    >>> requantize(np.int32([-6, -5, -2, -1, 1, 2, 5, 6]), 0.25, 0, dtype="int8", rounding="tflite")
    array([-2, -1, -1,  0,  1,  1,  2,  2], dtype=int8)
    """
    # |acc << 30| <= 2^61 fits int64; |x * q| <= 2^31 * (2^31 - 1) < 2^62, and 2^30 more; |h| <= 2^31.
    np.left_shift(acc, np.maximum(exponent, 0), out=work)
    _wrap(work)
    np.multiply(work, q, out=work)
    np.add(work, 1 << 30, out=work)
    np.right_shift(work, 31, out=work)
    # h + 2^(r-1) rounds ties up; for a negative h one less rounds them down. r = 0 adds nothing.
    shift = np.maximum(-exponent, 0)
    half = np.left_shift(1, shift) >> 1
    np.add(work, np.where(work < 0, half - (shift > 0), half), out=work)
    np.right_shift(work, shift, out=work)
    _store_wrapped(work, zero_point, out)


def tflite_single(
    acc: np.ndarray, q: np.ndarray, exponent: np.ndarray, zero_point: int, work: np.ndarray, out: np.ndarray
) -> None:
    """Round as TFLite built with TFLITE_SINGLE_ROUNDING does: once, in integers, ties up.

    With q and e of :func:`fixed_point`::

        t = 31 - e
        v = (acc * q + 2^(t-1)) >> t
        y = sat(i32(v + zero_point))

    Results beyond int32, possible for multipliers of at least 1 alone, keep their low 32 bits.

    Notes
    -----
    ``MultiplyByQuantizedMultiplier`` under ``#if TFLITE_SINGLE_ROUNDING`` in
    tensorflow/lite/kernels/internal/common.cc: from the source, no such build was run.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import requantize
    >>> requantize(np.int32([-6, -5, -2, -1, 1, 2, 5, 6]), 0.25, 0, dtype="int8", rounding="tflite_single")
    array([-1, -1,  0,  0,  0,  1,  1,  2], dtype=int8)
    """
    # t is 1 to 62: |acc * q| <= 2^31 * (2^31 - 1) < 2^62 and 2^(t-1) <= 2^61, together below 2^63.
    total = 31 - exponent
    np.copyto(work, acc)
    np.multiply(work, q, out=work)
    np.add(work, np.left_shift(1, total - 1), out=work)
    np.right_shift(work, total, out=work)
    _store_wrapped(work, zero_point, out)


def shift(acc: np.ndarray, exponent: np.ndarray, zero_point: int, work: np.ndarray, out: np.ndarray) -> None:
    """Shift by a power of two, ``m = 2^-r``, ties up: the cheapest circuit, an adder and a shifter.

    ::

        v = (acc + 2^(r-1)) >> r                        # r > 0
        v = acc << -r                                   # r <= 0: exact
        y = sat(v + zero_point)

    Nothing wraps: the sums are wider than 32 bits. Multipliers are 2^-31 to 2^30 exactly.

    Notes
    -----
    Rounding mode rnu (round to nearest, up) of the RISC-V "V" extension 1.0, section 3.8, as its
    vssra and vnclip use it; ``NN_ROUND`` and ``out_shift`` in CMSIS-NN's q7 kernels are the same.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import requantize
    >>> requantize(np.int32([-5, -3, -1, 1, 3, 5]), 0.5, 0, dtype="int8", rounding="shift")
    array([-2, -1,  0,  1,  2,  3], dtype=int8)
    """
    # |acc << 30| <= 2^61; the sum of |acc| <= 2^31 and 2^30 is far from 2^63.
    right = np.maximum(-exponent, 0)
    np.left_shift(acc, np.maximum(exponent, 0), out=work)
    np.add(work, np.left_shift(1, right) >> 1, out=work)
    np.right_shift(work, right, out=work)
    low, high = _bounds(out, zero_point)
    np.clip(work, low, high, out=work)
    np.add(work, zero_point, out=work)
    np.copyto(out, work, casting="unsafe")


def _bounds(out: np.ndarray, zero_point: int) -> tuple[int, int]:
    """Return the least and largest code before the zero point is added."""
    limits = np.iinfo(out.dtype)
    return int(limits.min) - zero_point, int(limits.max) - zero_point


def _wrap(work: np.ndarray) -> None:
    """Keep the low 32 bits, signed, of an int64 array."""
    np.copyto(work, work.astype(np.int32))


def _store_wrapped(work: np.ndarray, zero_point: int, out: np.ndarray) -> None:
    """Write ``sat(i32(work + zero_point))``; wrapping once is wrapping before the sum and after."""
    np.add(work, zero_point, out=work)
    _wrap(work)
    limits = np.iinfo(out.dtype)
    np.clip(work, limits.min, limits.max, out=work)
    np.copyto(out, work, casting="unsafe")


def _as_they_are(scale: np.ndarray) -> Columns:
    return (scale,)


def _exponents(scale: np.ndarray) -> Columns:
    fraction, exponent = np.frexp(scale)
    # A power of two is 0.5 * 2^(its exponent + 1); 0 has the fraction 0.
    exponent = exponent.astype(np.int64) - 1
    fits = (fraction == 0.5) & (exponent >= _MIN_EXPONENT) & (exponent <= _MAX_EXPONENT)
    if not fits.all():
        raise ValueError(
            f"scale must be a power of two from 2**{_MIN_EXPONENT} to 2**{_MAX_EXPONENT} for rounding "
            f"'shift', not {float(scale[~fits][0])}; choose scales that make it one, or another rounding"
        )
    return (exponent,)


ROUNDINGS: dict[str, Rounding] = {
    "half_even": Rounding(np.float32, _as_they_are, half_even, np.float32),
    "tflite": Rounding(np.float64, fixed_point, tflite, np.int64),
    "tflite_single": Rounding(np.float64, fixed_point, tflite_single, np.int64),
    "shift": Rounding(np.float64, _exponents, shift, np.int64),
    "gemmini": Rounding(np.float32, _as_they_are, gemmini, np.float32),
}
"""Each rounding by its name."""
