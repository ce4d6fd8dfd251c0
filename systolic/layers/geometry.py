"""The geometry of windows: strides, dilations, padding and output sizes of convolutions and pools."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from systolic import _check

PADDING_NAMES = ("same", "same_lower", "valid")
LAYOUTS = ("NCHW", "NHWC")

# Beyond any image; it keeps a slip in a padding from asking for all memory.
_MOST_PIXELS = 1 << 20

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]


def pair(value: Any, name: str, *, minimum: int = 1) -> Pair:
    """Return an int or a pair (height, width) of ints as a pair."""
    if _check.is_listed(value):
        if len(value) != 2:
            raise ValueError(f"{name} must be an integer or a pair (height, width), not {value!r}")
        first, second = value
    else:
        first = second = value
    return _check.integer(first, name, minimum=minimum), _check.integer(second, name, minimum=minimum)


def padding_spec(value: Any) -> str | Pads:
    """Return a padding argument as a name or as ((top, bottom), (left, right))."""
    if isinstance(value, str):
        return _check.choice(value, "padding", PADDING_NAMES)
    try:
        if _check.is_listed(value) and len(value) == 2 and all(map(_check.is_listed, value)):
            return pair(value[0], "padding", minimum=0), pair(value[1], "padding", minimum=0)
        height, width = pair(value, "padding", minimum=0)
        return (height, height), (width, width)
    except ValueError as error:
        if "pair" not in str(error):
            raise
        raise ValueError(
            "padding must be an int, (height, width), ((top, bottom), (left, right)), "
            f"'same', 'same_lower' or 'valid', not {value!r}"
        ) from None


@dataclass(frozen=True)
class Window:
    """A kernel sliding over an image, with its padding resolved for one image size.

    Attributes
    ----------
    kernel, stride, dilation : (int, int)
        Height and width.
    pads : ((top, bottom), (left, right))
        Padding in pixels; a negative number crops the image.
    image : (int, int)
        ih, iw before padding.
    out : (int, int)
        oh, ow.
    """

    kernel: Pair
    stride: Pair
    dilation: Pair
    pads: Pads
    image: Pair
    out: Pair

    @property
    def before(self) -> Pair:
        """Padding above and to the left."""
        return self.pads[0][0], self.pads[1][0]

    def taps(self, axis: int) -> dict[int, tuple[slice, slice]]:
        """Return :func:`taps` along height (0) or width (1)."""
        return taps(
            self.image[axis], self.kernel[axis], self.stride[axis], self.dilation[axis],
            self.before[axis], self.out[axis],
        )  # fmt: skip


def window(
    image: Pair,
    kernel: Pair,
    stride: Pair = (1, 1),
    dilation: Pair = (1, 1),
    padding: str | Pads = ((0, 0), (0, 0)),
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
    (top, oh), (left, ow) = [
        along(
            ("height", "width")[axis],
            image[axis],
            kernel[axis],
            stride[axis],
            dilation[axis],
            padding if isinstance(padding, str) else padding[axis],
            ceil_mode=ceil_mode,
            pool=pool,
        )
        for axis in (0, 1)
    ]
    return Window(kernel, stride, dilation, (top, left), image, (oh, ow))


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
    if max(step, dilation) > _MOST_PIXELS:
        what, value = ("stride", step) if step > _MOST_PIXELS else ("dilation", dilation)
        raise ValueError(f"{what} along the {name} must be at most {_MOST_PIXELS:,}, not {value:,}")
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
    if size + before + after > _MOST_PIXELS:
        raise ValueError(
            f"padding makes the {name} {size + before + after:,} pixels; "
            f"at most {_MOST_PIXELS:,} are supported"
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


def taps(
    size: int, kernel: int, step: int, dilation: int, before: int, outputs: int
) -> dict[int, tuple[slice, slice]]:
    """Return, by tap of the kernel along an axis, the outputs that see it inside the image, and its elements.

    No slice includes padding, so that windows are summed or compared without a padded copy. Taps that are
    in the padding for every output are omitted.

    Examples
    --------
    >>> taps(4, 2, 3, 1, 1, 2)
    {0: (slice(1, 2, None), slice(2, 3, 3)), 1: (slice(0, 2, None), slice(0, 4, 3))}
    """
    found = {}
    for tap in range(max(before - (outputs - 1) * step, 0) // dilation, kernel):
        start = tap * dilation - before
        if start >= size:
            break
        first = max(-(start // step), 0)
        stop = min((size - 1 - start) // step + 1, outputs)
        if first < stop:
            at = start + first * step
            found[tap] = slice(first, stop), slice(at, at + (stop - 1 - first) * step + 1, step)
    return found
