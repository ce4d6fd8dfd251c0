"""Pooling over any number of axes: maxima of any numbers, means of floats."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from systolic import _check
from systolic.layers.base import HostLayer, Shape
from systolic.layers.geometry import PADDING_NAMES, Pair, along, taps
from systolic.layers.host._inputs import axes_field, expect_dtype, lowest, pad_pairs, take
from systolic.layers.host._parts import by_parts
from systolic.layers.host.arithmetic import FLOATS
from systolic.layers.host.pool import largest_along


class _Windows(HostLayer):
    """Base of the pools: a window over the axes after batch and channels."""

    kernel: Sequence[int]
    stride: Sequence[int] | None
    padding: Sequence[Pair] | str | None
    dilation: Sequence[int] | None
    ceil_mode: bool

    def __post_init__(self) -> None:
        for name in ("kernel", "stride", "dilation"):
            axes_field(self, name, minimum=1)
        if self.kernel is None:
            raise TypeError("kernel must be a sequence of integers, one per axis of the window, not None")
        rank = len(self.kernel)
        if not rank:
            raise ValueError("kernel must have at least one size, one per axis of the window")
        padding: Any = self.padding
        if isinstance(padding, str):
            _check.choice(padding, "padding", PADDING_NAMES)
        else:
            padding = pad_pairs(padding, rank)
            pixels = [_check.integer(size, "padding", minimum=0) for pads in padding for size in pads]
            if len(padding) != rank or any(len(pads) != 2 for pads in padding):
                raise ValueError(f"padding must hold (before, after) for each of {rank} axes, not {padding}")
            if any(max(pads) >= size for pads, size in zip(padding, self.kernel, strict=True)):
                # As in pools of codes: a window wholly in the padding would have no element.
                raise ValueError(f"padding must be smaller than the kernel {self.kernel}, not {padding}")
            padding = tuple(zip(pixels[::2], pixels[1::2], strict=True))
        object.__setattr__(self, "padding", padding)
        for name in ("stride", "dilation"):
            sizes = getattr(self, name) or (1,) * rank
            if len(sizes) != rank:
                raise ValueError(
                    f"{name} must have {rank} sizes as the kernel has, not {_check.shape(sizes)}"
                )
            object.__setattr__(self, name, sizes)
        object.__setattr__(self, "ceil_mode", _check.flag(self.ceil_mode, "ceil_mode"))

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return batch, channels and the number of windows along each axis."""
        (shape,) = take(self, shapes)
        return (*shape[:2], *(outputs for _, outputs in self._windows(shape)))

    def _windows(self, shape: Shape) -> list[tuple[Pair, int]]:
        """Return the padding and the number of windows along each axis."""
        rank = len(self.kernel)
        if len(shape) != rank + 2 or 0 in shape[2:]:
            raise ValueError(
                f"{self.kind} with a window of {rank} axes takes (batch, channels, ...) of {rank + 2} axes, "
                f"those of the window not empty, not {_check.shape(shape)}"
            )
        padding: Any = self.padding
        return [
            along(
                f"axis {axis + 2}",
                shape[axis + 2],
                self.kernel[axis],
                (self.stride or ())[axis],
                (self.dilation or ())[axis],
                padding if isinstance(padding, str) else padding[axis],
                ceil_mode=self.ceil_mode,
                pool=True,
            )
            for axis in range(rank)
        ]

    def _taps(self, shape: Shape, *, cropped: bool = False) -> list[dict[int, tuple[slice, slice]]]:
        """Return :func:`~systolic.layers.geometry.taps` along each axis.

        With `cropped`, omit elements that the padding crops at the end; only `ceil_mode` windows reach them.
        """
        strides, dilations = self.stride or (), self.dilation or ()
        found = []
        for axis, ((before, after), outputs) in enumerate(self._windows(shape)):
            size = shape[axis + 2] + (min(after, 0) if cropped else 0)
            found.append(taps(size, self.kernel[axis], strides[axis], dilations[axis], before, outputs))
        return found


@dataclass(frozen=True, eq=False, repr=False)
class MaxPool(_Windows):
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
    >>> from systolic import MaxPool
    >>> MaxPool((2,), stride=(2,)).apply(np.int8([[[3, 1, 4, 1, 5, 9]]]))
    array([[[3, 4, 9]]], dtype=int8)
    """

    kernel: Sequence[int]
    stride: Sequence[int] | None = field(default=None, kw_only=True)
    padding: Sequence[Pair] | str | None = field(default=None, kw_only=True)
    dilation: Sequence[int] | None = field(default=None, kw_only=True)
    ceil_mode: bool = field(default=False, kw_only=True)

    def output_dtype(self, *dtypes: str) -> str:
        """Return the input's type."""
        (dtype,) = take(self, dtypes)
        return expect_dtype(self, dtype, (*FLOATS, "int8", "uint8"))

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the maxima of x, an ndarray (batch, channels, ...)."""
        (x,) = take(self, inputs)
        self.output_dtype(x.dtype.name)
        # A maximum over a window is one along each of its axes, one after the other.
        places, windows = self._taps(x.shape), self._windows(x.shape)

        def largest(part: np.ndarray) -> np.ndarray:
            for axis, (_, outputs) in enumerate(windows):
                part = largest_along(part, axis + 2, outputs, places[axis])
            return part

        return by_parts(largest, self.output_shape(x.shape), x.dtype, x, range(2, x.ndim))


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
    >>> from systolic import MaxPoolIndices
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
        self.output_dtype(x.dtype.name)
        size = x.shape[2:]
        places = np.arange(math.prod(size)).reshape(size, order="C" if self.order == "row" else "F")
        planes = np.arange(math.prod(x.shape[:2])).reshape(*x.shape[:2], *[1] * len(size)) * math.prod(size)
        shape, _ = self.output_shape(x.shape)
        # Padding has no place, and is never larger.
        best = np.full(shape, lowest(x.dtype), x.dtype)
        where = np.full(shape, -1, np.int64)
        for parts in itertools.product(*(found.values() for found in self._taps(x.shape))):
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
    kernel : sequence of int
        The window's size along each axis behind batch and channels.
    stride, dilation : sequence of int or None
        Step of the window, and between its elements; None means 1.
    padding : sequence of (before, after), "same", "same_lower", "valid", or None
        Zeros around the input, fewer than the kernel's; None: no padding.
    ceil_mode : bool
        Whether a last, incomplete window counts.
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
    >>> from systolic import AveragePool
    >>> AveragePool((2,), stride=(2,)).apply(np.float32([[[1, 5, 3, 4]]]))
    array([[[3. , 3.5]]], dtype=float32)
    """

    kernel: Sequence[int]
    stride: Sequence[int] | None = field(default=None, kw_only=True)
    padding: Sequence[Pair] | str | None = field(default=None, kw_only=True)
    dilation: Sequence[int] | None = field(default=None, kw_only=True)
    ceil_mode: bool = field(default=False, kw_only=True)
    count_include_pad: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        include = _check.flag(self.count_include_pad, "count_include_pad")
        object.__setattr__(self, "count_include_pad", include)

    def output_dtype(self, *dtypes: str) -> str:
        """Return the input's type."""
        (dtype,) = take(self, dtypes)
        return expect_dtype(self, dtype, FLOATS)

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the means of x, an ndarray (batch, channels, ...)."""
        (x,) = take(self, inputs)
        self.output_dtype(x.dtype.name)
        counts = np.ones((), np.float64)
        for axis, ((before, after), outputs) in enumerate(self._windows(x.shape)):
            size, step, dilation = x.shape[axis + 2], (self.stride or ())[axis], (self.dilation or ())[axis]
            starts = np.arange(outputs) * step - before
            low, high = (-before, size + after) if self.count_include_pad else (0, min(size, size + after))
            # Kernel elements of each window before the first that counts, and up to the last that counts.
            first, last = (-((starts - end) // dilation) for end in (low, high))
            inside = np.clip(last, 0, self.kernel[axis]) - np.clip(first, 0, self.kernel[axis])
            counts = np.multiply.outer(counts, inside)
        shape, places = self.output_shape(x.shape), self._taps(x.shape, cropped=True)

        def means(part: np.ndarray) -> np.ndarray:
            sums = np.zeros((*part.shape[:2], *shape[2:]), np.float64)
            for parts in itertools.product(*(found.values() for found in places)):
                outs, elements = zip(*parts, strict=True)
                sums[(slice(None), slice(None), *outs)] += part[(slice(None), slice(None), *elements)]
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
    >>> from systolic import GlobalAveragePool
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
        dtype, shape = self.output_dtype(x.dtype.name), self.output_shape(x.shape)
        with np.errstate(all="ignore"):
            axes, count = tuple(range(2, x.ndim)), math.prod(x.shape[2:])
            return by_parts(
                lambda part: part.sum(axis=axes, keepdims=True, dtype=np.float64) / count,
                shape, dtype, x, axes,
            )  # fmt: skip
