"""The geometry of windows: strides, dilations, padding and output sizes of convolutions and pools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from systolic import _check
from systolic.lowered import taps as taps

PADDING_NAMES = ("same", "same_lower", "valid")
LAYOUTS = ("NCHW", "NHWC")

# Beyond any image; it keeps a slip in a padding from asking for all memory.
MOST_PIXELS = 1 << 20

AXES = {1: ("width",), 2: ("height", "width"), 3: ("depth", "height", "width")}
"""What the axes of a window are called, by their number."""

Pair = tuple[int, int]
Sizes = tuple[int, ...]
Pads = tuple[Pair, ...]


def axis_names(rank: int) -> Sequence[str]:
    """Return what errors call the axes of a window."""
    return AXES.get(rank) or [f"axis {2 + axis}" for axis in range(rank)]


def sizes(value: Any, name: str, rank: int | None = None) -> Any:
    """Return an int or `rank` ints, each at least 1, as a tuple.

    Without `rank` a tuple may have any length, and an int stays one: it holds for all axes of any input.
    """
    listed = _check.is_listed(value)
    if rank is None and not listed:
        return _check.integer(value, name, minimum=1)
    rank = len(value) if rank is None else rank
    each = value if listed else (value,) * rank
    if len(each) != rank:
        what = "a pair (height, width)" if rank == 2 else f"{rank} of them"
        raise ValueError(f"{name} must be an integer or {what}, not {value!r}")
    return tuple(_check.integer(size, name, minimum=1) for size in each)


def paddings(value: Any, rank: int | None = None) -> Any:
    """Return a padding argument as a name or as (before, after) for each axis; `rank` as in :func:`sizes`."""
    if isinstance(value, str):
        return _check.choice(value, "padding", PADDING_NAMES)
    listed = _check.is_listed(value)
    if rank is None and not listed:
        return _check.integer(value, "padding", minimum=0)
    rank = len(value) if rank is None else rank
    each = value if listed else (value,) * rank
    if len(each) != rank or any(_check.is_listed(pads) and len(pads) != 2 for pads in each):
        what = "(height, width), ((top, bottom), (left, right))"
        if rank != 2:
            what = f"{rank} of them or of (before, after)"
        raise ValueError(f"padding must be an int, {what}, 'same', 'same_lower' or 'valid', not {value!r}")
    pairs = [tuple(pads) if _check.is_listed(pads) else (pads, pads) for pads in each]
    return tuple(
        (_check.integer(before, "padding", minimum=0), _check.integer(after, "padding", minimum=0))
        for before, after in pairs
    )


def put_window(layer: Any, rank: int | None) -> None:
    """Put a layer's stride, padding and, if it has one, dilation into their stored form; None is the default.

    `rank` is the number of axes, None if the inputs decide it: see :func:`sizes`.
    """
    for name in ("stride", "dilation"):
        if hasattr(layer, name):
            value = getattr(layer, name)
            object.__setattr__(layer, name, sizes(1 if value is None else value, name, rank))
    padding = paddings(0 if layer.padding is None else layer.padding, rank)
    object.__setattr__(layer, "padding", padding)


class Window(NamedTuple):
    """A kernel sliding along one or more axes, with its padding resolved for one size of the image.

    Attributes
    ----------
    kernel, stride, dilation : tuple of int
        By axis, such as height and width.
    pads : tuple of (before, after)
        Padding in pixels; a negative number crops the image.
    image : tuple of int
        Its sizes before padding.
    out : tuple of int
        Windows along each axis.
    """

    # Pairs for images, which mypy could not tell from other tuples.
    kernel: Any
    stride: Any
    dilation: Any
    pads: Any
    image: Any
    out: Any

    @property
    def before(self) -> Any:
        """Padding before each axis."""
        return tuple(before for before, _ in self.pads)

    @property
    def plane(self) -> Window:
        """The same along the last two axes; a line is an image of height 1."""
        return Window(
            *((one, *values)[-2:] for one, values in zip((1, 1, 1, (0, 0), 1, 1), self, strict=True))
        )

    def inside(self, axis: int, low: int, high: int) -> np.ndarray:
        """Return how many elements of each window along an axis lie in low .. high - 1."""
        starts = np.arange(self.out[axis]) * self.stride[axis] - self.pads[axis][0]
        first = np.maximum(-((starts - low) // self.dilation[axis]), 0)
        last = np.minimum(-((starts - high) // self.dilation[axis]), self.kernel[axis])
        return np.asarray(np.maximum(last - first, 0))

    def taps(self, axis: int, lines: slice | None = None) -> dict[int, tuple[slice, slice]]:
        """Return :func:`taps` along an axis, for all outputs or for those of `lines`, counted from 0."""
        step, first, count = self.stride[axis], 0, self.out[axis]
        if lines is not None:
            first, count = lines.start, lines.stop - lines.start
        return taps(
            self.image[axis], self.kernel[axis], step, self.dilation[axis],
            self.pads[axis][0] - first * step, count,
        )  # fmt: skip


def window(
    image: Sizes,
    kernel: Sizes,
    stride: Sizes,
    dilation: Sizes | None = None,
    padding: str | Pads = "valid",
    *,
    ceil_mode: bool = False,
    pool: bool = False,
) -> Window:
    """Resolve the padding and the output size, axis by axis, as ONNX Runtime does.

    The effective kernel is ``e = (k - 1) * dilation + 1`` and the output
    ``floor((in + p0 + p1 - e) / stride) + 1``; ``"same"`` (ONNX SAME_UPPER) and ``"same_lower"`` pad by
    ``p = (ceil(in / stride) - 1) * stride + e - in``, which gives ``ceil(in / stride)`` outputs. An odd
    element goes to the end or to the beginning. Where the stride exceeds the kernel, p may be negative:
    the image is cropped, at the beginning by ``(p + 1) / 2`` rounded towards 0 (``(p + 2) / 2`` for
    ``"same_lower"``), at the end by the rest. For a `pool` these are ``p / 2`` and ``(p + 1) / 2``, and p
    is that of a kernel without dilation. With `ceil_mode` the division rounds up, without a last window
    that would start in the padding at the end.

    Raises
    ------
    ValueError
        If no window fits: the kernel is larger than the padded image (with `ceil_mode`, by a stride or more).
    """
    dilation = dilation or (1,) * len(image)
    each = (padding,) * len(image) if isinstance(padding, str) else padding
    found = [
        along(*axis, ceil_mode=ceil_mode, pool=pool)
        for axis in zip(axis_names(len(image)), image, kernel, stride, dilation, each, strict=True)
    ]
    pads, out = zip(*found, strict=True)
    return Window(kernel, stride, dilation, pads, image, out)


def along(
    name: str,
    size: int,
    kernel: int,
    step: int,
    dilation: int,
    padding: str | Pair,
    *,
    ceil_mode: bool = False,
    pool: bool = False,
) -> tuple[Pair, int]:
    """Return the padding before and after one axis and the outputs along it, as :func:`window` does.

    `name` is what errors call the axis.
    """
    if max(step, dilation) > MOST_PIXELS:
        what, value = ("stride", step) if step > MOST_PIXELS else ("dilation", dilation)
        raise ValueError(f"{what} along the {name} must be at most {MOST_PIXELS:,}, not {value:,}")
    extent = (kernel - 1) * dilation + 1
    if isinstance(padding, str):
        before = after = 0
        if padding != "valid":
            total = (-(-size // step) - 1) * step + (kernel if pool else extent) - size
            doubled = total + (padding == "same_lower") + (total < 0 and not pool)
            before = doubled // 2 if doubled >= 0 else -(-doubled // 2)
            after = total - before
    else:
        before, after = padding
    if size + before + after > MOST_PIXELS:
        raise ValueError(
            f"padding makes the {name} {size + before + after:,} pixels; "
            f"at most {MOST_PIXELS:,} are supported"
        )
    room = size + before + after - extent
    count = (-(-room // step) if ceil_mode else room // step) + 1
    if ceil_mode and (count - 1) * step >= size + before:
        count -= 1
    if count < 1 and room >= 0:
        raise ValueError(
            f"the only window along the {name} would start in the padding at its end; use more padding "
            "at its beginning"
        )
    if count < 1:
        raise ValueError(
            f"the kernel spans {extent} pixels of the {name}, more than the "
            f"padded image's {size + before + after}; use a smaller kernel or more padding"
        )
    return (before, after), count
