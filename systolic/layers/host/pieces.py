"""Concatenate, split, slice, gather and expand tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from systolic import _check
from systolic.layers.base import HostLayer, Shape, checked, expect_list, integers
from systolic.layers.host import _parts
from systolic.layers.host._inputs import broadcast, normal_axes, normal_axis, same_type
from systolic.layers.host._parts import copied, copy_to, taken
from systolic.layers.host.shaping import room_for
from systolic.layers.record import DELEGATE, REQUIRED, OperatorRecord


def joined(layer: HostLayer, axis: int, fit: str, first: Shape, *rest: Shape) -> Shape:
    """Return the shape of tensors concatenated along an axis; ValueError, with `fit`, if they do not fit."""
    for shape in rest:
        if len(shape) != len(first) or any(
            a != b for i, (a, b) in enumerate(zip(first, shape, strict=True)) if i != axis
        ):
            raise ValueError(f"{layer.kind} {fit}, not {_check.shape(first)} and {_check.shape(shape)}")
    return (*first[:axis], sum(shape[axis] for shape in (first, *rest)), *first[axis + 1 :])


@dataclass(frozen=True, eq=False, repr=False)
class Concat(HostLayer):
    """Concatenate tensors along an axis: ONNX operator Concat.

    Parameters
    ----------
    axis : int

    Examples
    --------
    >>> from systolic.layers import Concat
    >>> Concat(1).output_shape((2, 3, 4), (2, 5, 4))
    (2, 8, 4)
    """

    inputs: ClassVar[None] = None

    axis: int

    def _shape(self, *shapes: Shape) -> Shape:
        axis = normal_axis(self, self.axis, len(shapes[0]))
        fit = f"along axis {axis} takes shapes that are equal along the others"
        return joined(self, axis, fit, *shapes)

    def _dtype(self, *dtypes: str) -> str:
        return same_type("Concat", *dtypes)

    def _kernel(self, shape: Shape, *inputs: np.ndarray) -> np.ndarray:
        if math.prod(shape) <= _parts.MOVED:
            return np.concatenate(inputs, axis=self.axis)
        out = np.empty(shape, inputs[0].dtype)
        around = (slice(None),) * (self.axis % out.ndim)
        start = 0
        for x in inputs:
            stop = start + x.shape[self.axis]
            copy_to(out[(*around, slice(start, stop))], x)
            start = stop
        return out


def _sizes(value: Any, name: str) -> tuple[int, ...]:
    sizes = integers(value, name, 0)
    if not sizes:
        raise ValueError(f"{name} must hold at least one")
    return sizes


@dataclass(frozen=True, eq=False, repr=False)
class Split(HostLayer):
    """Split a tensor along an axis: ONNX operator Split.

    Parameters
    ----------
    sizes : sequence of int
        Of the pieces along the axis.
    axis : int

    Examples
    --------
    >>> from systolic.layers import Split
    >>> Split((2, 1), -1).output_shape((4, 3))
    ((4, 2), (4, 1))
    """

    outputs: ClassVar[None] = None

    sizes: Sequence[int] = checked(_sizes)
    axis: int = 0

    def _shape(self, shape: Shape) -> tuple[Shape, ...]:
        axis = normal_axis(self, self.axis, len(shape))
        if sum(self.sizes) != shape[axis]:
            raise ValueError(
                f"Split along axis {axis} into {_check.shape(self.sizes)} takes {sum(self.sizes)} elements "
                f"along it, not {_check.shape(shape)}"
            )
        return tuple((*shape[:axis], size, *shape[axis + 1 :]) for size in self.sizes)

    def _dtype(self, dtype: str) -> tuple[str, ...]:
        return (dtype,) * len(self.sizes)

    def _kernel(self, shapes: tuple[Shape, ...], x: np.ndarray) -> tuple[np.ndarray, ...]:
        ends = np.cumsum(self.sizes)[:-1]
        return tuple(copied(piece) for piece in np.split(x, ends, axis=self.axis))


_EVERYTHING = (2**31 - 1, 2**63 - 1)


@dataclass(frozen=True, eq=False, repr=False)
class Slice(HostLayer):
    """Slice a tensor: every step-th element from a start up to an end, along some axes.

    Reads x and lists of integers: starts, ends and, optionally, axes (all from the first on) and
    steps (1). Negative starts and ends count from the end; what lies outside is cut to x.

    Notes
    -----
    ONNX operator Slice. As ONNX Runtime has it, an end of 2^31 - 1 or 2^63 - 1 means all that is left, going
    back as well, where the standard would cut it to the last element.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import Slice
    >>> Slice().apply(np.arange(8), np.array([-2]), np.array([0]), np.array([0]), np.array([-2]))
    array([6, 4, 2])
    """

    inputs: ClassVar[None] = None
    some: ClassVar[tuple[int, int]] = 3, 5
    lists: ClassVar[tuple[str, ...]] = ("", "starts", "ends", "axes", "steps")

    def _shape(self, shape: Shape, *lists: Sequence[int]) -> Shape:
        pieces = self._pieces(shape, *lists)
        return tuple(len(range(*s.indices(size))) for s, size in zip(pieces, shape, strict=True))

    def _kernel(self, shape: Shape, x: np.ndarray, *lists: Sequence[int]) -> np.ndarray:
        return copied(x[self._pieces(x.shape, *lists)])

    def _pieces(
        self, shape: Shape, starts: Sequence[int], ends: Sequence[int], *rest: Sequence[int]
    ) -> tuple[slice, ...]:
        axes = normal_axes(self, rest[0] if rest else range(len(starts)), len(shape))
        steps = rest[1] if len(rest) > 1 else (1,) * len(starts)
        if not len(starts) == len(ends) == len(axes) == len(steps):
            raise ValueError(
                "Slice takes one start, end, axis and step each, not "
                f"{len(starts)}, {len(ends)}, {len(axes)} and {len(steps)}"
            )
        pieces = [slice(None)] * len(shape)
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
            if not step:
                raise ValueError(f"Slice takes steps other than 0, but that of axis {axis} is 0")
            # What counts from the end and still lies before the first element: a start is cut to that
            # one, an end means "through that one", which Python's slices, going back, spell None.
            start, end = (place + shape[axis] if place < 0 else place for place in (start, end))
            before = step < 0 and (end < 0 or end in _EVERYTHING)
            pieces[axis] = slice(max(start, 0), None if before else max(end, 0), step)
        return tuple(pieces)


@dataclass(frozen=True, eq=False, repr=False)
class Gather(HostLayer):
    """Gather elements along an axis by index: reads x and indices of int32 or int64.

    Parameters
    ----------
    axis : int
        It is replaced by the axes of the indices.

    Notes
    -----
    ONNX operator Gather; negative indices count from the end.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import Gather
    >>> Gather(1).apply(np.int8([[1, 2, 3], [4, 5, 6]]), np.array([-1, 0]))
    array([[3, 1],
           [6, 4]], dtype=int8)
    """

    inputs: ClassVar[int] = 2

    axis: int = 0

    def _shape(self, shape: Shape, indices: Shape) -> Shape:
        axis = normal_axis(self, self.axis, len(shape))
        return (*shape[:axis], *indices, *shape[axis + 1 :])

    def _dtype(self, dtype: str, indices: str) -> str:
        expect_list(self, indices, "indices")
        return dtype

    def _kernel(self, shape: Shape, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
        size = x.shape[self.axis]
        if indices.size and not (-size <= int(indices.min()) and int(indices.max()) < size):
            worst = int(indices.min()) if int(indices.min()) < -size else int(indices.max())
            raise ValueError(
                f"Gather takes indices in {-size}..{size - 1} along axis {self.axis}, not {worst}"
            )
        return taken(x, indices, self.axis % x.ndim)


@dataclass(frozen=True, eq=False, repr=False)
class Expand(HostLayer):
    """Broadcast x to a shape: reads x and the shape. ONNX operator Expand.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import Expand
    >>> Expand().apply(np.int8([[1], [2]]), np.array([3]))
    array([[1, 1, 1],
           [2, 2, 2]], dtype=int8)
    """

    inputs: ClassVar[int] = 2
    lists: ClassVar[tuple[str, ...]] = ("", "a shape")

    def _shape(self, shape: Shape, target: Shape) -> Shape:
        return room_for(self, broadcast(self, (shape, room_for(self, target))))

    def _kernel(self, shape: Shape, x: np.ndarray, target: Shape) -> np.ndarray:
        return copied(np.broadcast_to(x, shape))


def _read_split(op: Any) -> Any:
    op.only("axis", "num_outputs", "split")
    axis = op.attribute("axis", 0)
    if op.computed(1):
        return DELEGATE
    sizes = op.listed("split", 1)
    if sizes is None:
        shape = op.shape(0)
        size = shape[axis] if shape is not None and -len(shape) <= axis < len(shape) else None
        if size is None:
            return DELEGATE
        count = len(op.outputs)
        step = -(-size // count)
        sizes = tuple(max(min(step, size - step * place), 0) for place in range(count))
    if len(sizes) != len(op.outputs):
        raise ValueError(f"{len(op.outputs)} outputs but {len(sizes)} sizes")
    return Split(sizes, axis), op.inputs[:1]


def _read_slice(op: Any) -> Any:
    op.only()
    for index, what in ((1, "starts"), (2, "ends")):
        if not op.has(index):
            raise ValueError(f"the {what} are missing")
    inputs = list(op.inputs)
    if op.has(4) and not op.has(3):
        # Steps but no axes, which are the first ones then; a layer's inputs have no gaps.
        count = op.shape(1)
        if count is None or count[0] is None:
            return DELEGATE
        inputs[3] = op.add_constant("/axes", np.arange(count[0], dtype=np.int64))
    return Slice(), tuple(filter(None, inputs))


OPERATORS = (
    OperatorRecord(
        Concat, "Concatenate tensors along an axis.", inputs=("x...",), attributes={"axis": REQUIRED}
    ),
    OperatorRecord(Expand, "Broadcast to a shape.", inputs=("x", "shape"), since=8),
    OperatorRecord(
        Gather, "Take slices along an axis by index.", inputs=("x", "indices"), attributes={"axis": 0}
    ),
    OperatorRecord(
        Slice,
        "Every step-th element from a start to an end, along axes.",
        inputs=("x", "starts", "ends", "axes?", "steps?"),
        since=10,
        read=_read_slice,
    ),
    OperatorRecord(
        Split,
        "Split along an axis.",
        inputs=("x", "split?"),
        outputs=("y...",),
        attributes={"axis": 0},
        fields={"split": "sizes"},
        since=2,
        history={18: "num_outputs"},
        became_inputs={"split": (13, 1)},
        read=_read_split,
    ),
)
