"""Pooling over any number of axes: maxima of any numbers, means of floats."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import numpy as np

from systolic import _check, _host
from systolic.layers.base import HostLayer, Shape
from systolic.layers.geometry import PADDING_NAMES, Pair, Window, window
from systolic.layers.host._inputs import axes_field, expect_dtype, lowest, pad_pairs, take
from systolic.layers.host._parts import by_parts
from systolic.layers.host.arithmetic import FLOATS
from systolic.layers.record import OperatorRecord
from systolic.threads import thread_count

Taps = dict[int, tuple[slice, slice]]


class Pool(HostLayer):
    """Base of the pools: a window over the axes between batch and channels, or behind both."""

    kernel: Any
    stride: Any
    padding: Any
    dilation: Any = None
    ceil_mode: bool

    _names: ClassVar[tuple[str, ...] | None] = None
    """What errors call the axes of the window, if not by their number."""

    def __post_init__(self) -> None:
        held = {f.name for f in fields(self)}  # type: ignore[arg-type]
        self._put_window(held & {"stride", "dilation"})
        pairs = ((0, 0),) * len(self.kernel) if isinstance(self.padding, str) else self.padding
        if any(max(pads) >= size for pads, size in zip(pairs, self.kernel, strict=True)):
            # ONNX Runtime refuses it too: windows wholly in the padding would have no element.
            raise ValueError(
                f"padding must be smaller than the kernel {self.kernel}, not {self.padding}; pad the "
                f"{'image' if self._names else 'input'} itself where windows wholly outside it are meant"
            )
        for name in held & {"ceil_mode", "count_include_pad", "channels_last"}:
            object.__setattr__(self, name, _check.flag(getattr(self, name), name))

    def _put_window(self, steps: Collection[str]) -> None:
        """Put the kernel, the steps of these names and the padding into their stored form."""
        for name in ("kernel", *steps):
            axes_field(self, name, minimum=1)
        if self.kernel is None:
            raise TypeError("kernel must be a sequence of integers, one per axis of the window, not None")
        rank = len(self.kernel)
        if not rank:
            raise ValueError("kernel must have at least one size, one per axis of the window")
        for name in steps:
            sizes = getattr(self, name) or (1,) * rank
            if len(sizes) != rank:
                raise ValueError(
                    f"{name} must hold {rank} integers, one per axis of the kernel, not {_check.shape(sizes)}"
                )
            object.__setattr__(self, name, sizes)
        if isinstance(self.padding, str):
            _check.choice(self.padding, "padding", PADDING_NAMES)
            return
        pairs = pad_pairs(self.padding, rank)
        if [len(pads) for pads in pairs] != [2] * rank:
            raise ValueError(f"padding must hold {rank} pairs (before, after), not {pairs}")
        pairs = tuple(tuple(_check.integer(n, "padding", minimum=0) for n in pads) for pads in pairs)
        object.__setattr__(self, "padding", pairs)

    @property
    def _first(self) -> int:
        """The first axis of the window."""
        return 2

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the input's shape with the number of windows along each axis."""
        (shape,) = take(self, shapes)
        return self._outputs(shape, self._window(shape))

    def _outputs(self, shape: Shape, win: Window) -> Shape:
        return (*shape[: self._first], *win.out, *shape[self._first + len(win.out) :])

    def _window(self, shape: Shape) -> Window:
        """Return the window over an input of this shape."""
        image = self._image(shape)
        names = self._names or [f"axis {self._first + axis}" for axis in range(len(image))]
        return window(
            image, self.kernel, self.stride, self.dilation, self.padding, names, ceil_mode=self.ceil_mode,
            pool=True,
        )  # fmt: skip

    def _image(self, shape: Shape) -> Shape:
        """Return the sizes along the window's axes."""
        rank = len(self.kernel)
        image = shape[self._first : self._first + rank]
        if len(shape) != rank + 2 or 0 in image:
            axes = "(batch, channels, ...)" if self._first == 2 else "(batch, ..., channels)"
            raise ValueError(
                f"{self.kind} over {rank} spatial axes takes {axes} of {rank + 2} axes, those of the window "
                f"not empty, not {_check.shape(shape)}"
            )
        return image


def add_up(real: np.ndarray, sums: np.ndarray, first: int, places: Iterable[Taps]) -> np.ndarray:
    """Add the elements of each window to its sum, in window order; `first` is the first axis."""
    around = (slice(None),) * first
    # A padding element would add 0, which changes no sum.
    for parts in itertools.product(*(found.values() for found in places)):
        outs, elements = zip(*parts, strict=True)
        sums[(*around, *outs)] += real[(*around, *elements)]
    return sums


def largest_along(x: np.ndarray, axis: int, outputs: int, places: Taps) -> np.ndarray:
    """Return the maxima of all windows along one axis, as a new array; NaN propagates."""
    out = np.full((*x.shape[:axis], outputs, *x.shape[axis + 1 :]), lowest(x.dtype), x.dtype)
    before = (slice(None),) * axis
    for outs, elements in places.values():
        part = out[(*before, outs)]
        np.maximum(part, x[(*before, elements)], out=part)
    return out


class Maxima(Pool):
    """Base of the pools that take maxima."""

    _types: ClassVar[tuple[str, ...]] = (*FLOATS, "int8", "uint8")

    def output_dtype(self, *dtypes: str) -> str:
        """Return the input's type."""
        (dtype,) = take(self, dtypes)
        return expect_dtype(self, dtype, self._types)

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the maxima of x, an ndarray (batch, channels, ...) or (batch, ..., channels)."""
        (x,) = take(self, inputs)
        self.output_dtype(x.dtype)
        win = self._window(x.shape)
        shape, rank = self._outputs(x.shape, win), len(win.out)
        if self._names and self._first == 2 and x.dtype.char in "bB" and x.flags.c_contiguous:
            out = np.empty(shape, x.dtype)
            _host.max_pool(x, out, win.kernel, win.stride, win.dilation, win.before, threads=thread_count())
            return out
        places = [win.taps(axis) for axis in range(rank)]

        def largest(part: np.ndarray) -> np.ndarray:
            # A maximum over a window is one along each of its axes, one after the other.
            for axis in range(rank):
                part = largest_along(part, self._first + axis, win.out[axis], places[axis])
            return part

        axes = range(self._first, self._first + rank)
        # Use larger parts for channels that are innermost: they are better not split.
        return by_parts(largest, shape, x.dtype, x, axes, moved=self._first == 1)


@dataclass(frozen=True, eq=False, repr=False)
class _Windows(Pool):
    """Fields of the pools over any number of axes."""

    kernel: Sequence[int]
    stride: Sequence[int] | None = field(default=None, kw_only=True)
    padding: Sequence[Pair] | str | None = field(default=None, kw_only=True)
    dilation: Sequence[int] | None = field(default=None, kw_only=True)
    ceil_mode: bool = field(default=False, kw_only=True)


@dataclass(frozen=True, eq=False, repr=False)
class MaxPool(Maxima, _Windows):
    """The maximum of each window, over any number of axes; for images see :class:`MaxPool2d`.

    Parameters
    ----------
    kernel : sequence of int
        The window's size along each axis behind batch and channels.
    stride, dilation : sequence of int or None
        Step of the window, and between its elements; None means 1.
    padding : sequence of (before, after), "same", "same_lower", "valid", or None
        Elements around the input, fewer than the kernel's; no number is smaller. None: no padding.
    ceil_mode : bool
        Whether a last, incomplete window counts.

    Notes
    -----
    ONNX operator MaxPool on float32, float64, float16, int8 or uint8. NaN spreads.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import MaxPool
    >>> MaxPool((2,), stride=(2,)).apply(np.int8([[[3, 1, 4, 1, 5, 9]]]))
    array([[[3, 4, 9]]], dtype=int8)
    """


@dataclass(frozen=True, eq=False, repr=False)
class MaxPoolIndices(MaxPool):
    """The maximum of each window, and its index: ONNX operator MaxPool with its second output.

    Parameters
    ----------
    kernel, stride, padding, dilation, ceil_mode
        As for :class:`MaxPool`.
    order : {"row", "column"}
        How elements are counted, through batch, channels and the window's axes: those with the last
        axis fastest, or with the first.

    Notes
    -----
    Of equal numbers the first counts; NaN counts as none.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import MaxPoolIndices
    >>> MaxPoolIndices((2,), stride=(2,)).apply(np.int8([[[3, 1, 4, 1, 5, 9]]]))
    (array([[[3, 4, 9]]], dtype=int8), array([[[0, 2, 5]]]))
    """

    outputs: ClassVar[int] = 2

    order: str = field(default="row", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check.choice(self.order, "order", ("row", "column"))

    def output_shape(self, *shapes: Shape) -> tuple[Shape, Shape]:  # type: ignore[override]
        """Return batch, channels and the number of windows along each axis, twice."""
        shape = super().output_shape(*shapes)
        return shape, shape

    def output_dtype(self, *dtypes: str) -> tuple[str, str]:  # type: ignore[override]
        """Return the input's type, and "int64"."""
        return super().output_dtype(*dtypes), "int64"

    def apply(self, *inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[override]
        """Return the maxima of x, an ndarray (batch, channels, ...), and their places in it."""
        (x,) = take(self, inputs)
        self.output_dtype(x.dtype)
        size = x.shape[2:]
        places = np.arange(math.prod(size)).reshape(size, order="C" if self.order == "row" else "F")
        planes = np.arange(math.prod(x.shape[:2])).reshape(*x.shape[:2], *[1] * len(size)) * math.prod(size)
        shape, _ = self.output_shape(x.shape)
        # Padding has no place, and is never larger.
        best = np.full(shape, lowest(x.dtype), x.dtype)
        where = np.full(shape, -1, np.int64)
        win = self._window(x.shape)
        for parts in itertools.product(*(win.taps(axis).values() for axis in range(len(size)))):
            outs, elements = ((slice(None), slice(None), *each) for each in zip(*parts, strict=True))
            number, place = x[elements], places[elements[2:]]
            better = (number > best[outs]) | (where[outs] < 0)
            np.copyto(best[outs], number, where=better)
            np.copyto(where[outs], place, where=better)
        return best, where + planes


@dataclass(frozen=True, eq=False, repr=False)
class AveragePool(_Windows):
    """The mean of each window of floats, over any number of axes.

    Parameters
    ----------
    kernel, stride, padding, dilation, ceil_mode
        As for :class:`MaxPool`; padding is zeros.
    count_include_pad : bool
        Whether the padding counts; what lies beyond it, where only `ceil_mode` reaches, never does.

    Notes
    -----
    ONNX operator AveragePool on float32, float64 or float16; :class:`AveragePool2d` is for codes. Summed
    in float64 and rounded once; ONNX Runtime sums in float32, which differs by a few units in the last
    place of the sum of magnitudes.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import AveragePool
    >>> AveragePool((2,), stride=(2,)).apply(np.float32([[[1, 5, 3, 4]]]))
    array([[[3. , 3.5]]], dtype=float32)
    """

    count_include_pad: bool = field(default=False, kw_only=True)

    def output_dtype(self, *dtypes: str) -> str:
        """Return the input's type."""
        (dtype,) = take(self, dtypes)
        return expect_dtype(self, dtype, FLOATS)

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the means of x, an ndarray (batch, channels, ...)."""
        (x,) = take(self, inputs)
        self.output_dtype(x.dtype)
        win, counts, places = self._window(x.shape), np.ones(()), []
        shape = self._outputs(x.shape, win)
        # Elements that "same" crops at the end are reached by windows of `ceil_mode` alone.
        ends = [size + after for size, (_, after) in zip(win.image, win.pads, strict=True)]
        inner = win._replace(image=tuple(map(min, win.image, ends)))
        for axis, (end, (before, _)) in enumerate(zip(ends, win.pads, strict=True)):
            counted = (-before, end) if self.count_include_pad else (0, inner.image[axis])
            counts = np.multiply.outer(counts, win.inside(axis, *counted))
            places.append(inner.taps(axis))

        def means(part: np.ndarray) -> np.ndarray:
            sums = add_up(part, np.zeros((*part.shape[:2], *shape[2:]), np.float64), 2, places)
            return np.divide(sums, counts, out=sums)

        with np.errstate(all="ignore"):
            return by_parts(means, shape, x.dtype, x, range(2, x.ndim))


@dataclass(frozen=True, eq=False, repr=False)
class GlobalAveragePool(HostLayer):
    """The mean of each channel's whole image: ONNX operator GlobalAveragePool on floats.

    Notes
    -----
    Summed in float64 and rounded once; ONNX Runtime sums in float32, which differs by a few units in
    the last place of the sum of magnitudes.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import GlobalAveragePool
    >>> GlobalAveragePool().apply(np.float32([[[[1, 2], [3, 6]]]]))
    array([[[[3.]]]], dtype=float32)
    """

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return (batch, channels, 1, ...)."""
        (shape,) = take(self, shapes)
        if len(shape) < 2 or 0 in shape[2:]:
            raise ValueError(
                "GlobalAveragePool takes (batch, channels, ...) with at least one element per channel, "
                f"not {_check.shape(shape)}"
            )
        return (*shape[:2], *[1] * (len(shape) - 2))

    def output_dtype(self, *dtypes: str) -> str:
        """Return the input's type."""
        (dtype,) = take(self, dtypes)
        return expect_dtype(self, dtype, FLOATS)

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the means of x, an ndarray (batch, channels, ...)."""
        (x,) = take(self, inputs)
        dtype, shape = self.output_dtype(x.dtype), self.output_shape(x.shape)
        with np.errstate(all="ignore"):
            axes, count = tuple(range(2, x.ndim)), math.prod(x.shape[2:])
            return by_parts(
                lambda part: part.sum(axis=axes, keepdims=True, dtype=np.float64) / count,
                shape, dtype, x, axes,
            )  # fmt: skip


OPERATORS = (
    OperatorRecord(
        name="GlobalAveragePool", help="Mean of each channel's image.", layers=(GlobalAveragePool,), reads=1
    ),
)
