"""Pad and resize tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from systolic import _check
from systolic.layers.base import Shape, UnknownShape
from systolic.layers.host import _parts
from systolic.layers.host._inputs import (
    axes_field,
    expect_dtype,
    expect_lists,
    integer_list,
    normal_axes,
    take,
    take_some,
)
from systolic.layers.host._kinds import ShapedByValues
from systolic.layers.host._parts import copied, copy_to, taken
from systolic.layers.host.shaping import room_for

PAD_MODES = ("constant", "reflect", "edge", "wrap")
COORDINATES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil", "simple")
POLICIES = ("stretch", "not_larger", "not_smaller")


@dataclass(frozen=True, eq=False, repr=False)
class Pad(ShapedByValues):
    """Pad a tensor; negative counts crop it.

    Reads x, pads (int64: how many before each axis, then how many behind each) and, optionally, the
    value of what is added (one element, 0) and the axes that the pads are of (all).

    Parameters
    ----------
    mode : {"constant", "reflect", "edge", "wrap"}
        What is added: the value, the tensor mirrored at its outermost elements, those elements, or
        the tensor again.

    Notes
    -----
    ONNX operator Pad.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import Pad
    >>> Pad("reflect").apply(np.int8([1, 2, 3]), np.array([2, 1]))
    array([3, 2, 1, 2, 3, 2], dtype=int8)
    """

    inputs: ClassVar[None] = None

    mode: str = "constant"

    def __post_init__(self) -> None:
        _check.choice(self.mode, "mode", PAD_MODES)

    def _take(self, values: Sequence[Any]) -> Sequence[Any]:
        return take_some(self, values, 2, 4)

    def output_shape_from(self, values: Sequence[np.ndarray | None], *shapes: Shape) -> Shape:
        """Return the sizes with what is added."""
        pads, axes = self._take(values)[1], values[3] if len(values) > 3 else None
        if pads is None or (len(values) > 3 and axes is None):
            raise UnknownShape
        margins = self._margins(shapes[0], pads, axes)
        return room_for(
            self, [size + before + after for size, (before, after) in zip(shapes[0], margins, strict=True)]
        )

    def output_dtype(self, *dtypes: str) -> str:
        """Return x's type."""
        first, pads, *rest = self._take(dtypes)
        name = np.dtype(first).name
        expect_lists(self, (pads, *rest[1:]), ("pads", "axes"))
        if rest:
            expect_dtype(self, rest[0], (name,), " as its value, x's type")
        return name

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the padded tensor."""
        x, pads, *rest = self._take(inputs)
        self.output_dtype(*(array.dtype.name for array in inputs))
        self.output_shape_from(inputs, *(array.shape for array in inputs))
        margins = self._margins(x.shape, pads, rest[1] if len(rest) > 1 else None)
        # What is cut away goes first: it is no source of what is added.
        cut = tuple(
            slice(max(-before, 0), size - max(-after, 0))
            for size, (before, after) in zip(x.shape, margins, strict=True)
        )
        x = x[cut]
        widths = [(max(before, 0), max(after, 0)) for before, after in margins]
        if self.mode == "constant":
            value = rest[0].reshape(-1)[0] if rest and rest[0].size else x.dtype.type(0)
            sizes = [size + before + after for size, (before, after) in zip(x.shape, widths, strict=True)]
            out = copied(np.broadcast_to(value, sizes))
            copy_to(out[tuple(slice(w[0], w[0] + size) for w, size in zip(widths, x.shape, strict=True))], x)
            return out
        if math.prod(size + sum(width) for size, width in zip(x.shape, widths, strict=True)) <= _parts.MOVED:
            return np.pad(x, widths, mode=self.mode)  # type: ignore[call-overload]
        for axis, width in enumerate(widths):
            places = np.pad(np.arange(x.shape[axis]), width, mode=self.mode)  # type: ignore[call-overload]
            x = taken(x, places, axis)
        return x

    def _margins(self, shape: Shape, pads: np.ndarray, axes: np.ndarray | None) -> list[tuple[int, int]]:
        counts = integer_list(self, pads, "pads")
        which = range(len(shape)) if axes is None else integer_list(self, axes, "axes")
        normal = normal_axes(self, which, len(shape))
        if len(counts) != 2 * len(normal):
            raise ValueError(
                f"Pad takes {2 * len(normal)} pads for {len(normal)} axes, before and behind each, "
                f"not {len(counts)}"
            )
        margins = [(0, 0)] * len(shape)
        for place, axis in enumerate(normal):
            before, after = counts[place], counts[place + len(normal)]
            margins[axis] = before, after
            left = shape[axis] + min(before, 0) + min(after, 0)
            if left < 0 or (self.mode != "constant" and max(before, after) > 0 and not left):
                raise ValueError(
                    f"Pad by {before} and {after} ({self.mode}) needs more elements than axis {axis} of "
                    f"{_check.shape(shape)} has"
                )
        return margins


@dataclass(frozen=True, eq=False, repr=False)
class Resize(ShapedByValues):
    """Resize a tensor by nearest neighbor.

    Reads x and either scales (float32) or sizes (int64), one for each of `axes`.

    Parameters
    ----------
    by : {"scales", "sizes"}
    coordinates : str
        Where output element i lies on the input, of sizes n and m with scale s = m / n:
        "half_pixel" (i + 0.5) / s - 0.5; "half_pixel_symmetric" the same about the middle, where
        m is not n s; "pytorch_half_pixel" the same, 0 where m is 1; "align_corners"
        i (n - 1) / (m - 1); "asymmetric" i / s.
    rounding : {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil", "simple"}
        Which input element is nearest; "simple" is "ceil" along axes that shrink and "floor" elsewhere.
    axes : sequence of int or None
        None is all.
    policy : {"stretch", "not_larger", "not_smaller"}
        What sizes mean: those, or the largest or smallest common scale that stays within or reaches
        them. Axes that count from the end then keep their sizes, as in ONNX Runtime.

    Notes
    -----
    ONNX operator Resize with ``mode="nearest"``; coordinates are computed in float32, as ONNX
    Runtime computes them.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import Resize
    >>> Resize().apply(np.int8([1, 2, 3]), np.float32([2]))
    array([1, 1, 2, 2, 3, 3], dtype=int8)
    """

    inputs: ClassVar[int] = 2

    by: str = "scales"
    coordinates: str = field(default="half_pixel", kw_only=True)
    rounding: str = field(default="round_prefer_floor", kw_only=True)
    axes: Sequence[int] | None = field(default=None, kw_only=True)
    policy: str = field(default="stretch", kw_only=True)

    def __post_init__(self) -> None:
        _check.choice(self.by, "by", ("scales", "sizes"))
        _check.choice(self.coordinates, "coordinates", COORDINATES)
        _check.choice(self.rounding, "rounding", ROUNDINGS)
        _check.choice(self.policy, "policy", POLICIES)
        axes_field(self, "axes")

    def output_shape_from(self, values: Sequence[np.ndarray | None], *shapes: Shape) -> Shape:
        """Return the sizes asked for, or the input's times the scales, rounded down."""
        _, target = take(self, values)
        if target is None:
            raise UnknownShape
        return self._plan(shapes[0], target)[0]

    def output_dtype(self, *dtypes: str) -> str:
        """Return x's type."""
        first, second = take(self, dtypes)
        expect_dtype(self, second, ("float32",) if self.by == "scales" else ("int64",), f" for {self.by}")
        return np.dtype(first).name

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the nearest elements."""
        x, target = take(self, inputs)
        self.output_dtype(x.dtype.name, target.dtype.name)
        shape, scales = self._plan(x.shape, target)
        if shape == x.shape:
            return copied(x)  # whatever the scales, as ONNX Runtime does
        for axis, (size, scale) in enumerate(zip(shape, scales, strict=True)):
            if size != x.shape[axis] or scale != 1:
                x = taken(x, self._nearest(x.shape[axis], size, scale), axis)
        return copied(x)

    def _plan(self, shape: Shape, target: np.ndarray) -> tuple[Shape, list[np.float32]]:
        """Return the output's sizes and the scales."""
        axes = normal_axes(self, range(len(shape)) if self.axes is None else self.axes, len(shape))
        if target.shape != (len(axes),):
            raise ValueError(
                f"Resize takes {len(axes)} {self.by}, one per axis, not {_check.shape(target.shape)}"
            )
        sizes, scales = list(shape), [np.float32(1)] * len(shape)
        if self.by == "scales":
            if not (np.isfinite(target).all() and (target > 0).all()):
                raise ValueError(f"Resize takes finite scales above 0, not {target.tolist()}")
            for axis, scale in zip(axes, target, strict=True):
                # The product is exact in float64, so that rounding down cannot slip.
                sizes[axis], scales[axis] = math.floor(float(scale) * shape[axis]), np.float32(scale)
            return room_for(self, sizes), scales
        wanted = room_for(self, integer_list(self, target, "sizes"))
        if any(not shape[axis] and size for axis, size in zip(axes, wanted, strict=True)):
            raise ValueError(
                f"Resize cannot make {_check.shape(wanted)} of nothing, an input {_check.shape(shape)}"
            )
        if self.policy != "stretch" and self.axes is not None:
            # ONNX Runtime's policies ignore axes that count from the end.
            kept = [i for i, axis in enumerate(self.axes) if axis >= 0]
            axes, wanted = tuple(axes[i] for i in kept), tuple(wanted[i] for i in kept)
        ratios = [np.float32(s) / np.float32(shape[axis] or 1) for axis, s in zip(axes, wanted, strict=True)]
        if self.policy != "stretch" and ratios:
            common = min(ratios) if self.policy == "not_larger" else max(ratios)
            ratios = [common] * len(axes)
            wanted = tuple(math.floor(float(common * np.float32(shape[axis])) + 0.5) for axis in axes)
        for axis, size, ratio in zip(axes, wanted, ratios, strict=True):
            sizes[axis], scales[axis] = size, ratio
        return room_for(self, sizes), scales

    def _nearest(self, size: int, out: int, scale: np.float32) -> np.ndarray:
        """Return the input's index for each element along an axis."""
        one, half = np.float32(1), np.float32(0.5)
        i = np.arange(out, dtype=np.float32)
        if self.coordinates == "asymmetric":
            place = i / scale
        elif self.coordinates == "align_corners":
            place = i * np.float32(size - 1) / np.float32(out - 1) if out > 1 else np.zeros_like(i)
        elif self.coordinates == "pytorch_half_pixel" and out == 1:
            place = np.zeros_like(i)
        else:
            place = (i + half) / scale - half
            if self.coordinates == "half_pixel_symmetric":
                offset = np.float32(size) / 2 * (one - np.float32(out) / (scale * np.float32(size)))
                # ONNX Runtime's constants are doubles here.
                place = (offset + (i + 0.5).astype(np.float64) / scale - 0.5).astype(np.float32)
        rounding = self.rounding
        if rounding == "simple":
            rounding = "ceil" if scale < 1 else "floor"
        if rounding == "floor":
            index = np.floor(place)
        elif rounding == "ceil":
            index = np.ceil(place)
        else:
            # Compare with a half: adding one would round up a number just below it.
            low = np.floor(place)
            above = place - low
            index = low + (above > half if rounding == "round_prefer_floor" else above >= half)
        return np.clip(index, 0, size - 1).astype(np.intp)
