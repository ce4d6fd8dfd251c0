"""Quantize and dequantize, and the QLinear products."""

from __future__ import annotations

from typing import Any

import numpy as np

from systolic.reference.oracle._arguments import output_type, per_axis, scalar
from systolic.reference.oracle._products import conv_integer, matmul_integer, wrap_int32
from systolic.reference.oracle._windows import NO_PADS, Pads, Pair


def quantize_linear(x: Any, scale: Any, zero_point: Any, dtype: Any, axis: int | None = None) -> np.ndarray:
    """ONNX QuantizeLinear: ``sat(rne(f32(x / s)) + z)``.

    Parameters
    ----------
    x : array of float32
        Infinities saturate by their sign, NaN gives the smallest code (as in ONNX Runtime; ONNX
        leaves it open).
    scale : float32, one or one per index of `axis`
    zero_point : int, one or one per index of `axis`
    dtype : integer type of at most 32 bits
    axis : int, optional
        The axis of a vector `scale` and `zero_point`.

    Returns
    -------
    ndarray of dtype, shaped as x
    """
    x = np.asarray(x, dtype=np.float32)
    limits = np.iinfo(np.dtype(dtype))
    s = per_axis(np.asarray(scale, dtype=np.float32), axis, x.ndim)
    with np.errstate(over="ignore"):  # a quotient beyond float32 is an infinity, which saturates
        steps = np.rint(x / s).astype(np.float64)
    # Whatever the sum rounds away in float64 lies far outside every type and is clamped.
    codes = np.clip(steps + per_axis(zero_point, axis, x.ndim), limits.min, limits.max)
    return np.asarray(np.where(np.isnan(codes), limits.min, codes), dtype=dtype)


def dequantize_linear(q: Any, scale: Any, zero_point: Any = 0, axis: int | None = None) -> np.ndarray:
    """ONNX DequantizeLinear: ``f32(f32(q - z) * s)``.

    Parameters
    ----------
    q : array of an integer type of at most 32 bits
    scale : float32, one or one per index of `axis`
    zero_point : int, one or one per index of `axis`
        0 for int32.
    axis : int, optional
        The axis of a vector `scale` and `zero_point`.

    Returns
    -------
    ndarray of float32, shaped as q
    """
    q = np.asarray(q)
    s = per_axis(np.asarray(scale, dtype=np.float32), axis, q.ndim)
    steps = q.astype(np.int64) - per_axis(zero_point, axis, q.ndim)
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(steps.astype(np.float32) * s)


def requantize(acc: Any, multiplier: Any, zero_point: Any, dtype: Any) -> np.ndarray:
    """Bring int32 sums to 8 bits as ONNX Runtime's MlasRequantizeOutput does.

    ``v = f32(f32(acc) * m)``, ``v = min(max(v, qmin - z), qmax - z)``, ``rne(v) + z``: the zero
    point is added after rounding. 0 times an infinite m, NaN, becomes ``qmin - z``.

    Parameters
    ----------
    acc : array of int32
    multiplier : float32, broadcastable to acc
        ``f32(f32(x_scale * w_scale) / y_scale)``.
    zero_point : int
    dtype : integer type
        Of the result.

    Returns
    -------
    ndarray of dtype, shaped as acc

    Raises
    ------
    TypeError
        If `acc` is not int32.
    """
    acc = np.asarray(acc)
    if acc.dtype != np.int32:
        raise TypeError(f"acc must hold int32, not {acc.dtype}; wrap the sums with wrap_int32")
    limits = np.iinfo(np.dtype(dtype))
    zero = scalar(zero_point, "zero_point")
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        scaled = acc.astype(np.float32) * np.asarray(multiplier, dtype=np.float32)
    low, high = np.float32(limits.min - zero), np.float32(limits.max - zero)
    # NaN, possible with scales computed at run time, becomes the lowest code, as by x86's min and max.
    bounded = np.where(np.isnan(scaled), low, np.clip(scaled, low, high))
    return np.asarray(np.rint(bounded).astype(np.int64) + zero, dtype=dtype)


def qlinear_matmul(
    a: Any,
    a_scale: Any,
    a_zero_point: Any,
    b: Any,
    b_scale: Any,
    b_zero_point: Any,
    y_scale: Any,
    y_zero_point: Any,
    bias: Any = None,
) -> np.ndarray:
    """ONNX QLinearMatMul, and com.microsoft QGemm with ``alpha = 1``.

    :func:`matmul_integer`, plus `bias` modulo 2^32, then :func:`requantize` by
    ``f32(f32(a_scale * b_scale) / y_scale)``. Without `y_scale`: ``f32(f32(acc) * f32(a_scale *
    b_scale))``.

    Parameters
    ----------
    a : array of int8 or uint8, (..., M, K)
    b : array of int8 or uint8, (..., K, N)
    a_scale, a_zero_point : one value
    b_scale, b_zero_point : one value or one per column (N,)
    y_scale : float32 or None
    y_zero_point : numpy scalar or array of int8 or uint8, or None
        Its type is the result's type, as in ONNX.
    bias : array of int32, broadcastable to (..., M, N), optional

    Returns
    -------
    ndarray of y_zero_point's type, or of float32, (..., M, N)
    """
    acc = matmul_integer(a, b, scalar(a_zero_point, "a_zero_point"), b_zero_point)
    scale = per_axis(np.asarray(b_scale, dtype=np.float32), -1, acc.ndim)
    return _finish(acc, bias, a_scale, scale, y_scale, y_zero_point)


def qlinear_conv(
    x: Any,
    x_scale: Any,
    x_zero_point: Any,
    w: Any,
    w_scale: Any,
    w_zero_point: Any,
    y_scale: Any,
    y_zero_point: Any,
    bias: Any = None,
    *,
    stride: Pair = (1, 1),
    pads: Pads = NO_PADS,
    dilation: Pair = (1, 1),
    groups: int = 1,
    layout: str = "NCHW",
) -> np.ndarray:
    """ONNX QLinearConv on images.

    :func:`conv_integer`, plus `bias` modulo 2^32, then :func:`requantize` by
    ``f32(f32(x_scale * w_scale[o]) / y_scale)``; float32 without `y_scale`, as in
    :func:`qlinear_matmul`.

    Parameters
    ----------
    x, w, stride, pads, dilation, groups, layout
        As for :func:`conv2d`.
    x_scale, x_zero_point : one value
    w_scale, w_zero_point : one value or one per output channel (oc,)
    y_scale, y_zero_point
        As for :func:`qlinear_matmul`.
    bias : array of int32, (oc,), optional

    Returns
    -------
    ndarray of y_zero_point's type, or of float32, shaped as by :func:`conv2d`
    """
    acc = conv_integer(
        x, w, x_zero_point, w_zero_point,
        stride=stride, pads=pads, dilation=dilation, groups=groups, layout=layout,
    )  # fmt: skip
    channel = 1 if layout == "NCHW" else 3
    scale = per_axis(np.asarray(w_scale, dtype=np.float32), channel, 4)
    bias = None if bias is None else per_axis(bias, channel, 4)
    return _finish(acc, bias, x_scale, scale, y_scale, y_zero_point)


def _finish(
    acc: np.ndarray, bias: Any, x_scale: Any, w_scale: np.ndarray, y_scale: Any, y_zero_point: Any
) -> np.ndarray:
    """Add the bias modulo 2^32 and scale: to codes, or to float32 without `y_scale`."""
    if bias is not None:
        acc = wrap_int32(acc.astype(np.int64) + np.asarray(bias, dtype=np.int64))
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        scale = np.float32(scalar(x_scale, "x_scale")) * w_scale
        if y_scale is None:
            return np.asarray(acc.astype(np.float32) * scale)
        multiplier = scale / np.float32(scalar(y_scale, "y_scale"))
    return requantize(acc, multiplier, y_zero_point, output_type(y_zero_point))
