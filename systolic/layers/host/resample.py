"""Pad and resize tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from systolic import _check
from systolic.layers.base import HostLayer, Shape, UnknownShape, expect_dtype, integer_list, one_of
from systolic.layers.host import _parts
from systolic.layers.host._inputs import normal_axes
from systolic.layers.host._parts import copied, copy_to, taken
from systolic.layers.host.shaping import room_for
from systolic.layers.record import DELEGATE, OperatorRecord

PAD_MODES = ("constant", "reflect", "edge", "wrap")
COORDINATES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil", "simple")
POLICIES = ("stretch", "not_larger", "not_smaller")


@dataclass(frozen=True, eq=False, repr=False)
class Pad(HostLayer):
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
    some: ClassVar[tuple[int, int]] = 2, 4
    lists: ClassVar[tuple[str, ...]] = ("", "pads", "", "axes")

    mode: str = one_of(PAD_MODES, "constant")

    def _shape(
        self, shape: Shape, pads: Sequence[int], value: Shape = (), axes: Sequence[int] | None = None
    ) -> Shape:
        margins = self._margins(shape, pads, axes)
        return room_for(
            self, [size + before + after for size, (before, after) in zip(shape, margins, strict=True)]
        )

    def _dtype(self, dtype: str, pads: str, value: str | None = None, axes: str | None = None) -> str:
        if value is not None:
            expect_dtype(self, value, (dtype,), " as its value, x's type")
        return dtype

    def _kernel(
        self,
        shape: Shape,
        x: np.ndarray,
        pads: Sequence[int],
        value: np.ndarray | None = None,
        axes: Sequence[int] | None = None,
    ) -> np.ndarray:
        margins = self._margins(x.shape, pads, axes)
        # What is cut away goes first: it is no source of what is added.
        cut = tuple(
            slice(max(-before, 0), size - max(-after, 0))
            for size, (before, after) in zip(x.shape, margins, strict=True)
        )
        x = x[cut]
        widths = [(max(before, 0), max(after, 0)) for before, after in margins]
        if self.mode == "constant":
            filler = x.dtype.type(0) if value is None or not value.size else value.reshape(-1)[0]
            out = copied(np.broadcast_to(filler, shape))
            copy_to(out[tuple(slice(w[0], w[0] + size) for w, size in zip(widths, x.shape, strict=True))], x)
            return out
        if math.prod(shape) <= _parts.MOVED:
            return np.pad(x, widths, mode=self.mode)  # type: ignore[call-overload]
        for axis, width in enumerate(widths):
            places = np.pad(np.arange(x.shape[axis]), width, mode=self.mode)  # type: ignore[call-overload]
            x = taken(x, places, axis)
        return x

    def _margins(
        self, shape: Shape, counts: Sequence[int], axes: Sequence[int] | None
    ) -> list[tuple[int, int]]:
        normal = normal_axes(self, range(len(shape)) if axes is None else axes, len(shape))
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
class Resize(HostLayer):
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

    by: str = one_of(("scales", "sizes"), "scales")
    coordinates: str = one_of(COORDINATES, "half_pixel", kw_only=True)
    rounding: str = one_of(ROUNDINGS, "round_prefer_floor", kw_only=True)
    axes: Sequence[int] | None = field(default=None, kw_only=True)
    policy: str = one_of(POLICIES, "stretch", kw_only=True)

    def _shape_from(self, values: Sequence[np.ndarray | None], shapes: Sequence[Shape]) -> Shape:
        """Return the sizes asked for, or the input's times the scales, rounded down."""
        if values[1] is None:
            raise UnknownShape
        return self._plan(shapes[0], values[1])[0]

    def _dtype(self, dtype: str, target: str) -> str:
        expect_dtype(self, target, ("float32",) if self.by == "scales" else ("int64",), f" for {self.by}")
        return dtype

    def _kernel(self, shape: Shape, x: np.ndarray, target: np.ndarray) -> np.ndarray:
        scales = self._plan(x.shape, target)[1]
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


def _read_pad(op: Any) -> Any:
    op.only("mode", "pads", "value")
    layer = Pad(op.attribute("mode", "constant"))
    dtype = op.dtypes[op.inputs[0]]
    if op.opset < 11:
        pads = op.add_constant("/pads", np.array(op.integers("pads", ()), np.int64))
        value = op.add_constant("/value", np.array(op.attribute("value", 0.0), dtype))
        return layer, (op.inputs[0], pads, value)
    inputs = list(op.inputs)
    if op.has(3) and not op.has(2):
        inputs[2] = op.add_constant("/value", np.zeros((), dtype))
    return layer, tuple(filter(None, inputs))


def _write_pad(out: Any, node: Any, layer: Pad) -> None:
    out.since(node, 19 if layer.mode == "wrap" else 11)
    out.node(node, "Pad", node.inputs, mode=layer.mode)


def _read_resize(op: Any) -> Any:
    op.only(
        "antialias", "axes", "coordinate_transformation_mode", "cubic_coeff_a", "exclude_outside",
        "extrapolation_value", "keep_aspect_ratio_policy", "mode", "nearest_mode",
    )  # fmt: skip
    coordinates = op.attribute("coordinate_transformation_mode", "half_pixel")
    rounding = op.attribute("nearest_mode", "round_prefer_floor")
    if op.opset < 11:
        coordinates, rounding = "asymmetric", "simple"
    nearest = op.attribute("mode", "nearest") == "nearest" and not op.attribute("antialias", 0)
    if not nearest or coordinates not in COORDINATES or rounding not in ROUNDINGS:
        return DELEGATE
    place = 1 if op.opset < 11 else 2
    sizes = op.has(3)
    if not sizes and not op.has(place):
        raise ValueError("it has neither scales nor sizes")
    layer = Resize(
        "sizes" if sizes else "scales",
        coordinates=coordinates,
        rounding=rounding,
        axes=op.listed("axes"),
        policy=op.attribute("keep_aspect_ratio_policy", "stretch"),
    )
    return layer, (op.inputs[0], op.inputs[3 if sizes else place])


def _write_resize(out: Any, node: Any, layer: Resize) -> None:
    x, by = node.inputs
    if layer.rounding == "simple":
        if layer.coordinates != "asymmetric" or layer.by != "scales" or layer.axes is not None:
            raise out.refuse(node, "rounding 'simple' is that of operator set 10, asymmetric and by scales")
        out.until(node, 10)
        out.node(node, "Resize", (x, by), mode="nearest")
        return
    out.since(node, 19 if layer.coordinates == "half_pixel_symmetric" else 11)
    policy = layer.policy if layer.policy != "stretch" else None
    # Until 13 the region of interest may not be left out.
    region = "" if out.opset >= 13 else out.constant(node, "roi", np.zeros(0, np.float32))
    read: tuple[str, ...] = (x, region, by)
    if layer.by == "sizes":
        scales = "" if out.opset >= 13 else out.constant(node, "scales", np.zeros(0, np.float32))
        read = (x, region, scales, by)
    out.node(
        node, "Resize", read,
        mode="nearest", coordinate_transformation_mode=layer.coordinates, nearest_mode=layer.rounding,
        axes=layer.axes, keep_aspect_ratio_policy=policy,
    )  # fmt: skip


OPERATORS = (
    OperatorRecord(
        Pad,
        "Add elements before and behind axes, or cut some away.",
        inputs=("x", "pads", "value?", "axes?"),
        attributes={"mode": "constant"},
        since=2,
        history={11: "pads and value are inputs", 18: "axes", 19: "mode wrap"},
        read=_read_pad,
        write=_write_pad,
    ),
    OperatorRecord(
        Resize,
        "Resize to the nearest elements.",
        inputs=("x", "roi?", "scales?", "sizes?"),
        attributes={
            "coordinate_transformation_mode": "half_pixel",
            "nearest_mode": "round_prefer_floor",
            "axes": None,
            "keep_aspect_ratio_policy": "stretch",
        },
        fields={
            "coordinate_transformation_mode": "coordinates",
            "nearest_mode": "rounding",
            "keep_aspect_ratio_policy": "policy",
        },
        since=10,
        history={11: "coordinates and sizes", 18: "axes and policies", 19: "half_pixel_symmetric"},
        read=_read_resize,
        write=_write_resize,
    ),
)
