"""Windows sliding over NCHW images, one kernel offset at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]

NO_PADS: Pads = ((0, 0), (0, 0))


def auto_pads(padding: str, size: int, extent: int, stride: int, *, pool: bool = False) -> Pair:
    """Padding before and after an axis for ONNX's auto_pad, as ONNX Runtime resolves it.

    `extent` is the size of the kernel with its dilation, for a pool without. ``"same"`` (SAME_UPPER) and
    ``"same_lower"`` make the last window end with the padding. If strides leave the end of the axis unread,
    they remove elements instead: half of them at the beginning, rounded towards 0; convolutions add one
    before halving.
    """
    if padding == "valid":
        return 0, 0
    starts = range(0, size, stride)
    missing = (starts[-1] if starts else -stride) + extent - size
    if missing >= 0:
        half = missing // 2 if padding == "same" else -(-missing // 2)
    else:
        half = math.trunc((missing + {"same": 0, "same_lower": 1}[padding] + (not pool)) / 2)
    return half, missing - half


def output_size(
    image: tuple[int, ...], kernel: Pair, stride: Pair, dilation: Pair, pads: Pads, ceil_mode: bool = False
) -> tuple[Pair, Pads]:
    """Output pixels (oh, ow), and the padding as far as the last windows reach.

    ``floor((in + p0 + p1 - e) / stride) + 1`` with ``e = (k - 1) * dilation + 1``; rounded up by
    `ceil_mode`, less a last window that would start in the padding at the end (ONNX MaxPool).
    """
    sizes, reach = [], []
    for axis in (0, 1):
        before, after = pads[axis]
        extent = (kernel[axis] - 1) * dilation[axis] + 1
        padded = image[axis] + before + after
        # The starts of the windows, counted rather than divided; with `ceil_mode` a first window that lacks
        # less than a stride counts, too.
        starts = list(range(0, padded - extent + 1, stride[axis]))
        if ceil_mode and 0 < extent - padded < stride[axis]:
            starts = [0]
        if not starts:
            raise ValueError(
                f"a kernel spanning {extent} pixels does not fit {padded} padded ones (axis {axis})"
            )
        following = starts[-1] + stride[axis]
        if ceil_mode and starts[-1] + extent < padded and following < image[axis] + before:
            starts.append(following)
        sizes.append(len(starts))
        reach.append((before, after + max(starts[-1] + extent - padded, 0)))
    return (sizes[0], sizes[1]), (reach[0], reach[1])


def taps(
    padded: np.ndarray, kernel: Pair, stride: Pair, dilation: Pair, out: Pair
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield (i, j, view) per kernel offset in order: what that offset sees at each output pixel."""
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            top, left = i * dilation[0], j * dilation[1]
            bottom, right = top + (out[0] - 1) * stride[0] + 1, left + (out[1] - 1) * stride[1] + 1
            yield i, j, padded[:, :, top : bottom : stride[0], left : right : stride[1]]


def pad(images: np.ndarray, pads: Pads, value: int) -> np.ndarray:
    """Surround images with `value`; a negative number removes lines."""
    (top, bottom), (left, right) = pads
    images = images[:, :, max(-top, 0) : images.shape[2] - max(-bottom, 0)]
    images = images[:, :, :, max(-left, 0) : images.shape[3] - max(-right, 0)]
    margins = [(max(before, 0), max(after, 0)) for before, after in pads]
    return np.pad(images, ((0, 0), (0, 0), *margins), constant_values=value)
