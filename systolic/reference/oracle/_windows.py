"""Windows sliding over NCHW images, one kernel offset at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]

NO_PADS: Pads = ((0, 0), (0, 0))


def output_size(
    image: tuple[int, ...], kernel: Pair, stride: Pair, dilation: Pair, pads: Pads, ceil_mode: bool = False
) -> tuple[Pair, Pads]:
    """Output pixels (oh, ow), and how far the last windows reach beyond the padded image.

    ``floor((in + p0 + p1 - e) / stride) + 1`` with ``e = (k - 1) * dilation + 1``; rounded up by
    `ceil_mode`, less a last window that would start in the padding at the end (ONNX MaxPool).
    """
    sizes, beyond = [], []
    for axis in (0, 1):
        before, after = pads[axis]
        extent = (kernel[axis] - 1) * dilation[axis] + 1
        padded = image[axis] + before + after
        if extent > padded:
            raise ValueError(
                f"a kernel spanning {extent} pixels does not fit {padded} padded ones (axis {axis})"
            )
        # The starts of the windows, counted rather than divided.
        starts = list(range(0, padded - extent + 1, stride[axis]))
        following = starts[-1] + stride[axis]
        if ceil_mode and starts[-1] + extent < padded and following < image[axis] + before:
            starts.append(following)
        sizes.append(len(starts))
        beyond.append((0, max(starts[-1] + extent - padded, 0)))
    return (sizes[0], sizes[1]), (beyond[0], beyond[1])


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
    """Surround images with `value`."""
    return np.pad(images, ((0, 0), (0, 0), *pads), constant_values=value)
