"""Pools over images, as loops over kernel offsets."""

from __future__ import annotations

from typing import Any

import numpy as np

from systolic.reference.oracle._arguments import as_codes, from_nchw, output_type, saturate, scalar, to_nchw
from systolic.reference.oracle._products import wrap_int32
from systolic.reference.oracle._scaled import dequantize_linear, requantize
from systolic.reference.oracle._windows import NO_PADS, Pads, Pair, output_size, pad, taps


def qlinear_global_average_pool(
    x: Any, x_scale: Any, x_zero_point: Any, y_scale: Any, y_zero_point: Any, layout: str = "NCHW"
) -> np.ndarray:
    """com.microsoft QLinearGlobalAveragePool over images.

    With n pixels per image: ``acc = sum(q) - n*zx``, ``m = f32(sx / f32(sy * n))``,
    ``y = sat(rne(f32(f32(acc) * m)) + zy)``: the zero point is added after rounding.

    Parameters
    ----------
    x : array of int8 or uint8, (batch, ic, ih, iw) or, for NHWC, (batch, ih, iw, ic)
    x_scale, x_zero_point, y_scale : one value each
    y_zero_point : numpy scalar or array of int8 or uint8
        Its type is the result's type.
    layout : {"NCHW", "NHWC"}

    Returns
    -------
    ndarray of y_zero_point's type, (batch, ic, 1, 1) or (batch, 1, 1, ic)

    Raises
    ------
    ValueError
        If an image has no pixels.
    """
    images = to_nchw(as_codes(x, "x"), layout)
    pixels = images.shape[2] * images.shape[3]
    if pixels == 0:
        raise ValueError(f"x must have at least one pixel, not the shape {images.shape} (NCHW)")
    centred = images.astype(np.int64) - scalar(x_zero_point, "x_zero_point")
    acc = wrap_int32(centred.sum(axis=(2, 3), keepdims=True))
    with np.errstate(over="ignore", under="ignore"):
        divisor = np.float32(scalar(y_scale, "y_scale")) * np.float32(pixels)
        multiplier = np.float32(scalar(x_scale, "x_scale")) / divisor
    return from_nchw(requantize(acc, multiplier, y_zero_point, output_type(y_zero_point)), layout)


def qlinear_average_pool(
    x: Any,
    x_scale: Any,
    x_zero_point: Any,
    y_scale: Any,
    y_zero_point: Any,
    *,
    kernel: Pair,
    stride: Pair = (1, 1),
    pads: Pads = NO_PADS,
    count_include_pad: bool = False,
    ceil_mode: bool = False,
    layout: str = "NCHW",
) -> np.ndarray:
    """com.microsoft QLinearAveragePool on images.

    ``v`` is the float32 sum, in the window's order, of ``f32(sx * (q - zx))``; then
    ``v = f32(v / count)`` and ``y = sat(rne(f32(f32(v / sy) + zy)))``: the zero point is added
    before rounding. `count` leaves out what lies outside the image; with `count_include_pad` it is
    the kernel's size, also for a last window that `ceil_mode` lets reach beyond the padding (where
    ONNX AveragePool would count the padding alone). A kernel equal to the whole unpadded image
    follows :func:`qlinear_global_average_pool` instead.

    Parameters
    ----------
    x : array of int8 or uint8, (batch, ic, ih, iw) or, for NHWC, (batch, ih, iw, ic)
    x_scale, x_zero_point, y_scale : one value each
    y_zero_point : numpy scalar or array of int8 or uint8
        Its type is the result's type.
    kernel, stride : (int, int)
    pads : ((top, bottom), (left, right))
    count_include_pad, ceil_mode : bool
        As in ONNX AveragePool.
    layout : {"NCHW", "NHWC"}

    Returns
    -------
    ndarray of y_zero_point's type, (batch, ic, oh, ow) or (batch, oh, ow, ic)
    """
    images = to_nchw(as_codes(x, "x"), layout)
    image = images.shape[2:]
    if tuple(kernel) == image and not np.any(pads):
        return qlinear_global_average_pool(x, x_scale, x_zero_point, y_scale, y_zero_point, layout)
    dtype = output_type(y_zero_point)
    out, pads = output_size(image, kernel, stride, (1, 1), pads, ceil_mode)

    values = dequantize_linear(images, x_scale, x_zero_point)
    values = pad(values, pads, 0)
    members = np.ones((1, 1, *image), dtype=np.float32)
    members = pad(members, pads, int(count_include_pad))
    total = np.zeros((*images.shape[:2], *out), dtype=np.float32)
    count = np.zeros((1, 1, *out), dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # sums beyond float32 are infinite or NaN
        for _, _, tap in taps(values, kernel, stride, (1, 1), out):
            total += tap
    for _, _, tap in taps(members, kernel, stride, (1, 1), out):
        count += tap
    sy, zy = np.float32(scalar(y_scale, "y_scale")), np.float32(scalar(y_zero_point, "y_zero_point"))
    with np.errstate(all="ignore"):
        steps = np.rint(total / count / sy + zy)
    return from_nchw(saturate(steps, dtype), layout)


def max_pool(
    x: Any,
    *,
    kernel: Pair,
    stride: Pair = (1, 1),
    pads: Pads = NO_PADS,
    dilation: Pair = (1, 1),
    ceil_mode: bool = False,
    layout: str = "NCHW",
) -> np.ndarray:
    """ONNX MaxPool on codes: the largest code in each window; padding is the type's minimum.

    Parameters
    ----------
    x : array of int8 or uint8, (batch, ic, ih, iw) or, for NHWC, (batch, ih, iw, ic)
    kernel, stride, dilation : (int, int)
    pads : ((top, bottom), (left, right))
    ceil_mode : bool
        Round the output size up instead of down.
    layout : {"NCHW", "NHWC"}

    Returns
    -------
    ndarray of x's type, (batch, ic, oh, ow) or (batch, oh, ow, ic)
    """
    images = to_nchw(as_codes(x, "x"), layout)
    lowest = np.iinfo(images.dtype).min
    out, pads = output_size(images.shape[2:], kernel, stride, dilation, pads, ceil_mode)
    padded = pad(images, pads, lowest)
    largest = np.full((*images.shape[:2], *out), lowest, dtype=images.dtype)
    for _, _, tap in taps(padded, kernel, stride, dilation, out):
        np.maximum(largest, tap, out=largest)
    return from_nchw(largest, layout)
