"""Quantize and dequantize as ONNX's QuantizeLinear and DequantizeLinear do."""

from __future__ import annotations

from typing import Any

import numpy as np

from systolic import _check
from systolic.quant.blocks import map_blocks
from systolic.quant.params import DTYPES, QuantParams, as_params
from systolic.quant.roundings import to_codes


def quantize(x: Any, params: QuantParams) -> np.ndarray:
    """Quantize real numbers: ``sat(rne(f32(x / scale)) + zero_point)``.

    A float32 division (not a product with the reciprocal), rounded to the nearest integer, ties
    to even, then the zero point, then saturation. Infinities saturate, NaN becomes the smallest
    code.

    Parameters
    ----------
    x : array_like of float
        Any shape. float64 and float16 are first rounded to float32.
    params : QuantParams
        Scale, zero point and type of the codes.

    Returns
    -------
    ndarray of params.dtype, the shape of x

    Raises
    ------
    TypeError
        If `x` does not hold floats.
    ValueError
        If `params` is per channel and `x` has not that many channels.

    Notes
    -----
    ONNX operator QuantizeLinear. NaN is undefined there; ONNX Runtime gives the smallest code.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import QuantParams, quantize
    >>> quantize(np.float32([-2.5, -0.5, 0.5, 1.5, 127.5, np.inf, np.nan]), QuantParams(1.0, 3))
    array([   1,    3,    3,    5,  127,  127, -128], dtype=int8)
    """
    as_params(params, "params", dtypes=DTYPES)
    x = _reals(x)
    if x.dtype == np.float16:
        x = x.astype(np.float32)
    return quantize_linear(x, params.scales, params.zero_points, axis=params.axis)


def dequantize(q: Any, params: QuantParams) -> np.ndarray:
    """Return the real numbers of codes: ``f32(f32(q - zero_point) * scale)``.

    Parameters
    ----------
    q : ndarray of params.dtype
        Codes, any shape.
    params : QuantParams
        Scale, zero point and type of the codes.

    Returns
    -------
    ndarray of float32, the shape of q

    Raises
    ------
    TypeError
        If `q` is not of `params.dtype`.
    ValueError
        If `params` is per channel and `q` has not that many channels.

    Notes
    -----
    ONNX operator DequantizeLinear. The difference is exact; int32 codes are rounded to float32.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import QuantParams, dequantize
    >>> dequantize(np.int8([-128, 3, 127]), QuantParams(0.5, 3))
    array([-65.5,   0. ,  62. ], dtype=float32)
    """
    as_params(params, "params", dtypes=DTYPES)
    q = _check.as_array(q, "q")
    if q.dtype != params.dtype:
        raise TypeError(f"q must hold {params.dtype}, as params say, not {q.dtype}")
    return dequantize_linear(q, params.scales, params.zero_points, axis=params.axis)


def quantize_linear(
    x: Any, scale: np.ndarray, zero_point: np.ndarray, *, axis: int | None = None, block_size: int = 0
) -> np.ndarray:
    """Return the codes of real numbers for any scales, as ONNX's QuantizeLinear does.

    Unlike :class:`QuantParams`, scales may be 0, negative, infinite or NaN, as arrays computed at
    run time can be; the arithmetic is then what float32 makes of them.

    Parameters
    ----------
    x : array_like of float32, float64 or float16
        Any shape. float64 is first rounded to float32.
    scale : ndarray of float32 or float16
        0-d; with `axis` (C,), one per channel; with `block_size` of x's axes, one along `axis` for
        each block.
    zero_point : ndarray of int8, uint8, int16, uint16 or int32, the shape of scale
        Its type is the codes'.
    axis : int or None
        The axis of the channels or blocks.
    block_size : int
        Consecutive elements along `axis` that share a scale; the last block may be short. 0: none.

    Returns
    -------
    ndarray of zero_point's type, the shape of x

    Raises
    ------
    TypeError
        If `x` does not hold floats.
    ValueError
        If the shapes of `x` and `scale` do not fit.

    Notes
    -----
    float16 is divided in float32 too. ONNX Runtime before release 1.32 lets what exceeds int32 overflow,
    there and with blocks along another axis than the last; here, as from then on, it saturates.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.quant import quantize_linear
    >>> quantize_linear(np.float32([1, 2, 3, 500]), np.float32(0.5), np.int16(7))
    array([   9,   11,   13, 1007], dtype=int16)
    """
    x, zero_point = _reals(x), np.asarray(zero_point)
    out = np.empty(x.shape, zero_point.dtype)

    def block(
        source: np.ndarray, scale: np.ndarray, zero: np.ndarray, work: np.ndarray, target: np.ndarray
    ) -> None:
        np.copyto(work, source, casting="same_kind")
        np.divide(work, scale, out=work)
        to_codes(work, zero, target)

    channels = np.asarray(scale).astype(np.float32), zero_point.astype(np.int64)
    with np.errstate(all="ignore"):
        map_blocks(block, x, out, channels, axis, "x", block_size=block_size)
    return out


def dequantize_linear(
    q: np.ndarray,
    scale: np.ndarray,
    zero_point: np.ndarray,
    *,
    axis: int | None = None,
    block_size: int = 0,
    dtype: str = "float32",
) -> np.ndarray:
    """Return the real numbers of codes for any scales, as ONNX's DequantizeLinear does.

    Parameters
    ----------
    q : ndarray of int8, uint8, int16, uint16 or int32
        Codes, any shape.
    scale, zero_point, axis, block_size
        As for :func:`quantize_linear`.
    dtype : {"float32", "float16"}
        Type of the result, to which the float32 products are rounded.

    Returns
    -------
    ndarray of dtype, the shape of q

    Raises
    ------
    ValueError
        If the shapes of `q` and `scale` do not fit.

    Notes
    -----
    The difference of int32 codes wraps, as ONNX Runtime's does; others are exact.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.quant import dequantize_linear
    >>> dequantize_linear(np.uint16([0, 65535]), np.float32(0.5), np.uint16(65535))
    array([-32767.5,      0. ], dtype=float32)
    """
    wide = q.dtype.itemsize == 4
    out = np.empty(q.shape, dtype)

    def block(
        source: np.ndarray, scale: np.ndarray, zero: np.ndarray, work: np.ndarray, target: np.ndarray
    ) -> None:
        if wide:
            np.copyto(work, np.subtract(source, zero, dtype=np.int32), casting="same_kind")
        else:
            # Narrower codes and their differences are exact in float32.
            np.copyto(work, source, casting="same_kind")
            np.subtract(work, zero, out=work)
        np.multiply(work, scale, out=work)
        np.copyto(target, work, casting="same_kind")

    zeros = np.asarray(zero_point).astype(np.int32 if wide else np.float32)
    with np.errstate(all="ignore"):
        channels = np.asarray(scale).astype(np.float32), zeros
        map_blocks(block, q, out, channels, axis, "q", block_size=block_size)
    return out


def _reals(x: Any) -> np.ndarray:
    x = _check.as_array(x, "x")
    if x.dtype.kind != "f":
        raise TypeError(f"x must hold floats, not {x.dtype}; convert real numbers with .astype(np.float32)")
    return x
