"""Convolutions over 1 and 3 axes as convolutions over 2.

A line is an image of height 1. A volume is a batch of images, one per output plane, whose channels
are (channel, tap of the kernel along the depth): so K runs over (ic, kd, kh, kw), first index
outermost, and M over (batch, od, oh, ow), as for images. This holds each plane of the volume as
often as filters take it, kd / stride times; height and width are still lowered piece by piece.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from systolic import _check, _hints
from systolic._memory import require_array
from systolic.gemm import Gemm
from systolic.layers.base import Shape
from systolic.layers.conv import lower_images
from systolic.layers.geometry import PADDING_NAMES, Pair, Window, along, taps
from systolic.lowered import RAW, Epilogue, Lowered

AXES = {1: ("width",), 2: ("height", "width"), 3: ("depth", "height", "width")}
"""What the axes of a window are called, by their number."""

Sizes = tuple[int, ...]
AxisPads = tuple[Pair, ...]


def sizes(value: Any, name: str, rank: int) -> Sizes:
    """Return an int or `rank` ints as a tuple of ints of at least 1."""
    if _check.is_listed(value):
        if len(value) != rank:
            raise ValueError(f"{name} must be an integer or {rank} of them, not {value!r}")
        each: Sequence[Any] = value
    else:
        each = (value,) * rank
    return tuple(_check.integer(size, name, minimum=1) for size in each)


def paddings(value: Any, rank: int) -> str | AxisPads:
    """Return a padding argument as a name or as (before, after) for each axis."""
    if isinstance(value, str):
        return _check.choice(value, "padding", PADDING_NAMES)
    each = value if _check.is_listed(value) else (value,) * rank
    if len(each) != rank or any(_check.is_listed(pads) and len(pads) != 2 for pads in each):
        raise ValueError(
            f"padding must be an int, {rank} of them or of (before, after), 'same', 'same_lower' or 'valid', "
            f"not {value!r}"
        )
    pairs = [tuple(pads) if _check.is_listed(pads) else (pads, pads) for pads in each]
    return tuple(
        (_check.integer(before, "padding", minimum=0), _check.integer(after, "padding", minimum=0))
        for before, after in pairs
    )


def put_window(layer: Any) -> None:
    """Put stride, dilation, padding and groups of a layer for any number of axes into their stored form.

    An int holds for all axes; a tuple says how many there are.
    """

    def put(name: str, value: Any) -> None:
        object.__setattr__(layer, name, value)

    put("groups", _check.integer(layer.groups, "groups", minimum=1))
    for name in ("stride", "dilation"):
        value = getattr(layer, name)
        if isinstance(value, tuple | list):
            put(name, sizes(value, name, len(value)))
        else:
            put(name, _check.integer(value, name, minimum=1))
    padding = layer.padding
    if isinstance(padding, tuple | list):
        put("padding", paddings(padding, len(padding)))
    elif isinstance(padding, str):
        paddings(padding, 1)
    else:
        put("padding", _check.integer(padding, "padding", minimum=0))


@dataclass(frozen=True)
class Span:
    """A kernel sliding along 1, 2 or 3 axes, its padding resolved; as :class:`Window`, by axis."""

    image: Sizes
    kernel: Sizes
    stride: Sizes
    dilation: Sizes
    pads: AxisPads
    out: Sizes

    @property
    def window(self) -> Window:
        """The same along the last two axes: what is convolved after :func:`images`."""
        line = len(self.image) == 1

        def last(values: Sizes, alone: int) -> Pair:
            return (alone, values[0]) if line else (values[-2], values[-1])

        return Window(
            kernel=last(self.kernel, 1),
            stride=last(self.stride, 1),
            dilation=last(self.dilation, 1),
            pads=((0, 0), self.pads[0]) if line else (self.pads[-2], self.pads[-1]),
            image=last(self.image, 1),
            out=last(self.out, 1),
        )


def span(x: Shape, w: Shape, stride: Sizes, dilation: Sizes, padding: str | AxisPads, groups: int) -> Span:
    """Return the span of filters w (oc, ic // groups, ...) over x (batch, ic, ...).

    Raises
    ------
    ValueError
        If the channels do not fit, or the kernel is larger than the padded image.
    """
    if x[1] != w[1] * groups:
        raise ValueError(
            f"x has {x[1]} channels, but w {_check.shape(w)} takes {w[1]} in each of {groups} groups, "
            f"{w[1] * groups} in all; w is (oc, ic // groups, ...){_hints.other_images(x, w, groups)}"
        )
    if w[0] % groups:
        raise ValueError(f"w has {w[0]} output channels, which {groups} groups do not divide")
    image, kernel = x[2:], w[2:]
    if min(kernel) < 1:
        raise ValueError(f"w must have a kernel of at least 1 along each axis, not {_check.shape(kernel)}")
    found = [
        along(
            name,
            image[axis],
            kernel[axis],
            stride[axis],
            dilation[axis],
            padding if isinstance(padding, str) else padding[axis],
        )
        for axis, name in enumerate(AXES[len(image)])
    ]
    pads, out = tuple(pads for pads, _ in found), tuple(count for _, count in found)
    return Span(image, kernel, stride, dilation, pads, out)


def images(x: np.ndarray, span: Span, pad_value: int) -> np.ndarray:
    """Return x (batch, ic, ...) as images (batch, ic, ih, iw); volumes as (batch * od, ic * kd, ih, iw)."""
    if x.ndim == 3:
        return x[:, :, np.newaxis, :]
    if x.ndim == 4:
        return x
    batch, ic, depth, height, width = x.shape
    out, kernel = span.out[0], span.kernel[0]
    places = np.arange(out)[:, np.newaxis] * span.stride[0] + np.arange(kernel) * span.dilation[0]
    places -= span.pads[0][0]
    shape = (batch, out, ic, kernel, height, width)
    require_array(shape, x.dtype, "Conv3d: the planes of each output plane,")
    taken = np.full(shape, pad_value, dtype=x.dtype)
    for plane, tap in np.argwhere((places >= 0) & (places < depth)):
        taken[:, plane, :, tap] = x[:, :, places[plane, tap]]
    return taken.reshape(batch * out, ic * kernel, height, width)


def tap_places(span: Span, lines: slice) -> list[dict[int, tuple[slice, slice]]]:
    """Return :func:`~systolic.layers.geometry.taps` along each axis.

    Along the first axis only for the outputs `lines`, counted from 0.
    """
    found = []
    for axis, kernel in enumerate(span.kernel):
        first, count = (lines.start, lines.stop - lines.start) if axis == 0 else (0, span.out[axis])
        step, dilation = span.stride[axis], span.dilation[axis]
        before = span.pads[axis][0] - first * step
        found.append(taps(span.image[axis], kernel, step, dilation, before, count))
    return found


def lower_span(
    x: np.ndarray, w: np.ndarray, span: Span, pad_value: int, channels_last: bool = False,
    epilogue: Epilogue = RAW,
) -> Lowered:  # fmt: skip
    """Lower the convolution of x (batch, ic, ...) with filters as matrices (groups, K, N)."""
    batch, channels = x.shape[0], w.shape[0] * w.shape[2]
    shape = (batch, *span.out, channels) if channels_last else (batch, channels, *span.out)
    planes = span.out[0] if len(span.out) == 3 and not channels_last else 1
    epilogue = epilogue._replace(shape=shape, planes=planes)
    return lower_images(images(x, span, pad_value), w, span.window, pad_value, channels_last, epilogue)


def span_gemm(x: Shape, w: Shape, span: Span, groups: int) -> Gemm:
    """Return the sizes of the product, one per group."""
    return Gemm(x[0] * math.prod(span.out), math.prod(w[1:]), w[0] // groups, groups=groups)
