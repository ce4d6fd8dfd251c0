"""Real numbers to codes and back, as ONNX's QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

from typing import Any

import numpy as np

from systolic.quant.blocks import map_blocks
from systolic.quant.params import DTYPES, QuantParams, as_params


def quantize(x: Any, params: QuantParams) -> np.ndarray:
    """Return the codes of real numbers: ``sat(rne(f32(x / scale)) + zero_point)``.

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
    x = np.asarray(x)
    if x.dtype.kind != "f":
        raise TypeError(f"x must hold floats, not {x.dtype}; convert real numbers with .astype(np.float32)")
    scales, zeros = params.scales, params.zero_points.astype(np.int64)
    out = np.empty(x.shape, params.dtype)

    def block(
        source: np.ndarray, scale: np.ndarray, zero: np.ndarray, work: np.ndarray, target: np.ndarray
    ) -> None:
        np.copyto(work, source, casting="same_kind")
        np.divide(work, scale, out=work)
        np.rint(work, out=work)
        # int32 bounds are no float32 numbers; 8-bit ones are, and their sums with a zero point.
        codes = work.astype(np.float64) if params.dtype == "int32" else work
        # fmax, not maximum: NaN loses against the lower bound.
        np.fmax(codes, (params.qmin - zero).astype(codes.dtype), out=codes)
        np.fmin(codes, (params.qmax - zero).astype(codes.dtype), out=codes)
        np.add(codes, zero.astype(codes.dtype), out=codes)
        np.copyto(target, codes, casting="unsafe")

    with np.errstate(all="ignore"):
        map_blocks(block, x, out, (scales, zeros), params.axis, "x")
    return out


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
    q = np.asarray(q)
    if q.dtype != params.dtype:
        raise TypeError(f"q must hold {params.dtype}, as params say, not {q.dtype}")
    out = np.empty(q.shape, np.float32)

    def block(
        source: np.ndarray, scale: np.ndarray, zero: np.ndarray, work: np.ndarray, target: np.ndarray
    ) -> None:
        # 8-bit codes and their differences are exact in float32; int32 has zero point 0.
        np.copyto(target, source, casting="same_kind")
        np.subtract(target, zero, out=target)
        np.multiply(target, scale, out=target)

    with np.errstate(all="ignore"):
        map_blocks(block, q, out, (params.scales, params.zero_points.astype(np.float32)), params.axis, "q")
    return out
