"""Exact sums of products: matrix products and convolutions, modulo 2^32."""

from __future__ import annotations

from typing import Any

import numpy as np

from systolic.reference.oracle._arguments import as_codes, from_nchw, per_axis, scalar, to_nchw
from systolic.reference.oracle._windows import NO_PADS, Pads, Pair, output_size, pad, taps

# A float32 holds every integer up to 2^24: a sum whose terms' magnitudes add up to no more is
# exact in any order, with or without fused multiply-adds. The same is true of 2^53 in float64.
_FLOAT32_EXACT = 1 << 24


def wrap_int32(values: Any) -> np.ndarray:
    """Return int64 sums modulo 2^32 as int32 of the same shape (the low 32 bits)."""
    low = np.bitwise_and(np.asarray(values, dtype=np.int64), 0xFFFFFFFF)
    return np.asarray(low, dtype=np.uint32).view(np.int32)


def matmul(x: Any, w: Any) -> np.ndarray:
    """Exact product of matrices of codes.

    ``acc[m, n] = sum over k of x[m, k] * w[k, n]``, wrapped modulo 2^32.

    Parameters
    ----------
    x : array of int8 or uint8, (..., M, K)
    w : array of int8 or uint8, (..., K, N)
        The types may differ; leading axes broadcast as in :func:`numpy.matmul`.

    Returns
    -------
    ndarray of int32, (..., M, N)
        Zeros if K is 0.

    Raises
    ------
    TypeError
        If an operand is not int8 or uint8.
    ValueError
        If an operand has fewer than 2 axes or the two K differ.
    """
    return _product(as_codes(x, "x"), as_codes(w, "w"))


def matmul_integer(a: Any, b: Any, a_zero_point: Any = 0, b_zero_point: Any = 0) -> np.ndarray:
    """ONNX MatMulInteger: ``sum over k of (a - za)[m, k] * (b - zb)[k, n]``, wrapped modulo 2^32.

    Parameters
    ----------
    a : array of int8 or uint8, (..., M, K)
    b : array of int8 or uint8, (..., K, N)
    a_zero_point : int or array
        One, or one per row (M,).
    b_zero_point : int or array
        One, or one per column (N,).

    Returns
    -------
    ndarray of int32, (..., M, N)
    """
    za = np.asarray(a_zero_point)
    if za.size > 1:
        za = za[..., np.newaxis]
    return _product(_centred(as_codes(a, "a"), za), _centred(as_codes(b, "b"), b_zero_point))


def conv2d(
    x: Any,
    w: Any,
    *,
    stride: Pair = (1, 1),
    pads: Pads = NO_PADS,
    dilation: Pair = (1, 1),
    groups: int = 1,
    layout: str = "NCHW",
    pad_value: int = 0,
) -> np.ndarray:
    """Exact sums of a convolution over raw codes (ONNX Conv's correlation).

    ``acc[b, o, y, x] = sum over c, i, j of
    in[b, group(o) + c, y*sh + i*dh - top, x*sw + j*dw - left] * w[o, c, i, j]``,
    wrapped modulo 2^32, where `in` is `pad_value` outside the image.

    Parameters
    ----------
    x : array of int8 or uint8, (batch, ic, ih, iw) or, for NHWC, (batch, ih, iw, ic)
    w : array of int8 or uint8, (oc, ic // groups, kh, kw)
    stride, dilation : (int, int)
        Height and width.
    pads : ((top, bottom), (left, right))
        Pixels.
    groups : int
        Consecutive blocks of channels; ``ic`` for a depthwise convolution.
    layout : {"NCHW", "NHWC"}
        Of x and of the result.
    pad_value : int
        Code of the padding, within the type of x.

    Returns
    -------
    ndarray of int32, (batch, oc, oh, ow) or (batch, oh, ow, oc)

    Raises
    ------
    TypeError
        If an operand is not int8 or uint8.
    ValueError
        If the shapes do not fit each other or `pad_value` does not fit x.
    """
    codes = as_codes(x, "x")
    limits = np.iinfo(codes.dtype)
    if not limits.min <= pad_value <= limits.max:
        raise ValueError(f"pad_value must fit {codes.dtype} ({limits.min}..{limits.max}), not {pad_value}")
    sums = _convolve(to_nchw(codes, layout), as_codes(w, "w"), pad_value, stride, pads, dilation, groups)
    return from_nchw(sums, layout)


def conv_integer(
    x: Any,
    w: Any,
    x_zero_point: Any = 0,
    w_zero_point: Any = 0,
    *,
    stride: Pair = (1, 1),
    pads: Pads = NO_PADS,
    dilation: Pair = (1, 1),
    groups: int = 1,
    layout: str = "NCHW",
) -> np.ndarray:
    """ONNX ConvInteger: the convolution of ``x - zx`` with ``w - zw``; padding adds exactly 0.

    Parameters are those of :func:`conv2d`; `x_zero_point` is one int, `w_zero_point` one or one
    per output channel (oc,).

    Returns
    -------
    ndarray of int32, shaped as by :func:`conv2d`
    """
    zw = per_axis(w_zero_point, 0, 4)
    images = _centred(to_nchw(as_codes(x, "x"), layout), scalar(x_zero_point, "x_zero_point"))
    return from_nchw(
        _convolve(images, _centred(as_codes(w, "w"), zw), 0, stride, pads, dilation, groups), layout
    )


def _product(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Product of small integers modulo 2^32, by float32 blocks of k that are exact."""
    if x.ndim < 2 or w.ndim < 2:
        raise ValueError(
            f"operands must be matrices (M, K) and (K, N), not of shapes {x.shape} and {w.shape}"
        )
    k = x.shape[-1]
    if w.shape[-2] != k:
        raise ValueError(f"x of shape {x.shape} has K = {k}, but w of shape {w.shape} has K = {w.shape[-2]}")
    block = max(_FLOAT32_EXACT // max(_reach(x) * _reach(w), 1), 1)
    batch = np.broadcast_shapes(x.shape[:-2], w.shape[:-2])
    acc = np.zeros((*batch, x.shape[-2], w.shape[-1]), dtype=np.int32)
    for start in range(0, k, block):
        stop = start + block
        part = x[..., start:stop].astype(np.float32) @ w[..., start:stop, :].astype(np.float32)
        acc += part.astype(np.int32)  # numpy's int32 addition wraps
    return acc


def _convolve(
    x: np.ndarray, w: np.ndarray, pad_value: int, stride: Pair, pads: Pads, dilation: Pair, groups: int
) -> np.ndarray:
    """NCHW convolution of small integers modulo 2^32: for each kernel offset a product over channels."""
    if w.ndim != 4:
        raise ValueError(f"w must have 4 axes (oc, ic // groups, kh, kw), not the shape {w.shape}")
    batch, ic = x.shape[:2]
    oc, group_ic, kh, kw = w.shape
    if groups < 1 or group_ic * groups != ic or oc % groups:
        raise ValueError(
            f"x with {ic} channels and w of shape {w.shape} do not fit {groups} groups: "
            "ic must be groups * w.shape[1], and groups must divide oc"
        )
    out, _ = output_size(x.shape[2:], (kh, kw), stride, dilation, pads)
    largest_sum = max(_reach(x), abs(pad_value)) * _reach(w) * group_ic * kh * kw
    real = np.float32 if largest_sum <= _FLOAT32_EXACT else np.float64
    images = pad(x, pads, pad_value).astype(real)
    # Kernel offsets outermost, in memory too: numpy hands only contiguous matrices to BLAS.
    kernels = (
        w.reshape(groups, oc // groups, group_ic, kh, kw).transpose(3, 4, 0, 1, 2).astype(real, order="C")
    )
    sums = np.zeros((batch, groups, oc // groups, out[0] * out[1]), dtype=real)
    for i, j, tap in taps(images, (kh, kw), stride, dilation, out):
        sums += kernels[i, j] @ tap.reshape(batch, groups, group_ic, out[0] * out[1])
    return wrap_int32(sums.astype(np.int64)).reshape(batch, oc, *out)


def _centred(codes: np.ndarray, zero_point: Any) -> np.ndarray:
    """Codes less their zero point, which takes nine bits and a sign."""
    return codes.astype(np.int16) - np.asarray(zero_point).astype(np.int16)


def _reach(values: np.ndarray) -> int:
    """The largest magnitude in an integer array, 0 if it is empty."""
    return max(abs(int(values.min())), abs(int(values.max()))) if values.size else 0
