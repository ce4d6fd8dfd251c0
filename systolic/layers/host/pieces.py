"""Concatenate, split, slice, gather and expand tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from systolic import _check
from systolic.layers.base import HostLayer, Shape, UnknownShape
from systolic.layers.host import _parts
from systolic.layers.host._inputs import (
    axes_field,
    broadcast,
    integer_list,
    normal_axes,
    normal_axis,
    take,
    take_some,
)
from systolic.layers.host._kinds import Movement, ShapedByValues
from systolic.layers.host._parts import copied, copy_to, taken
from systolic.layers.host.shaping import room_for
from systolic.layers.record import REQUIRED, OperatorRecord


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

    def __post_init__(self) -> None:
        object.__setattr__(self, "axis", _check.integer(self.axis, "axis"))

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape with the sizes along the axis added up."""
        first, *rest = take(self, shapes)
        axis = normal_axis(self, self.axis, len(first))
        for shape in rest:
            if len(shape) != len(first) or any(
                a != b for i, (a, b) in enumerate(zip(first, shape, strict=True)) if i != axis
            ):
                raise ValueError(
                    f"Concat along axis {axis} takes shapes that are equal along the others, not "
                    f"{_check.shape(first)} and {_check.shape(shape)}"
                )
        return (*first[:axis], sum(shape[axis] for shape in shapes), *first[axis + 1 :])

    def output_dtype(self, *dtypes: str) -> str:
        """Return the inputs' common type."""
        names = [np.dtype(dtype).name for dtype in take(self, dtypes)]
        if len(set(names)) > 1:
            raise TypeError(f"Concat takes tensors of one type, not {' and '.join(dict.fromkeys(names))}")
        return names[0]

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return one array."""
        shape = self.output_shape(*(x.shape for x in inputs))
        dtype = self.output_dtype(*(x.dtype.name for x in inputs))
        if math.prod(shape) <= _parts.MOVED:
            return np.concatenate(inputs, axis=self.axis)
        out = np.empty(shape, dtype)
        around = (slice(None),) * (self.axis % out.ndim)
        start = 0
        for x in inputs:
            stop = start + x.shape[self.axis]
            copy_to(out[(*around, slice(start, stop))], x)
            start = stop
        return out


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

    sizes: Sequence[int]
    axis: int = 0

    def __post_init__(self) -> None:
        axes_field(self, "sizes", minimum=0)
        if not self.sizes:
            raise ValueError("sizes must hold at least one")
        object.__setattr__(self, "axis", _check.integer(self.axis, "axis"))

    def output_shape(self, *shapes: Shape) -> tuple[Shape, ...]:
        """Return the pieces' shapes."""
        (shape,) = take(self, shapes)
        axis = normal_axis(self, self.axis, len(shape))
        if sum(self.sizes) != shape[axis]:
            raise ValueError(
                f"Split along axis {axis} into {_check.shape(self.sizes)} takes {sum(self.sizes)} elements "
                f"along it, not {_check.shape(shape)}"
            )
        return tuple((*shape[:axis], size, *shape[axis + 1 :]) for size in self.sizes)

    def output_dtype(self, *dtypes: str) -> tuple[str, ...]:
        """Return the input's type, once per piece."""
        (dtype,) = take(self, dtypes)
        return (np.dtype(dtype).name,) * len(self.sizes)

    def apply(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return copies of the pieces."""
        (x,) = take(self, inputs)
        self.output_shape(x.shape)
        ends = np.cumsum(self.sizes)[:-1]
        return tuple(copied(piece) for piece in np.split(x, ends, axis=self.axis))


_EVERYTHING = (2**31 - 1, 2**63 - 1)


@dataclass(frozen=True, eq=False, repr=False)
class Slice(ShapedByValues, Movement):
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
    _lists: ClassVar[tuple[str, ...]] = ("starts", "ends", "axes", "steps")

    def _take(self, values: Sequence[Any]) -> Sequence[Any]:
        return take_some(self, values, 3, 5)

    def output_shape_from(self, values: Sequence[np.ndarray | None], *shapes: Shape) -> Shape:
        """Return the sizes of what is taken."""
        lists = [value for value in self._take(values)[1:] if value is not None]
        if len(lists) < len(values) - 1:
            raise UnknownShape
        pieces = self._pieces(shapes[0], *lists)
        return tuple(len(range(*s.indices(size))) for s, size in zip(pieces, shapes[0], strict=True))

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return a copy of what is taken."""
        x, *lists = self._take(inputs)
        self.output_dtype(*(array.dtype.name for array in inputs))
        return copied(x[self._pieces(x.shape, *lists)])

    def _pieces(self, shape: Shape, *lists: np.ndarray) -> tuple[slice, ...]:
        starts, ends, *rest = (integer_list(self, v, n) for v, n in zip(lists, self._lists, strict=False))
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
class Gather(Movement):
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
    _lists: ClassVar[tuple[str, ...]] = ("indices",)

    axis: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "axis", _check.integer(self.axis, "axis"))

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return x's shape with the indices' in the place of the axis."""
        shape, indices = take(self, shapes)
        axis = normal_axis(self, self.axis, len(shape))
        return (*shape[:axis], *indices, *shape[axis + 1 :])

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the elements; ValueError if there is no such index."""
        x, indices = take(self, inputs)
        self.output_shape(x.shape, indices.shape)
        self.output_dtype(x.dtype.name, indices.dtype.name)
        size = x.shape[self.axis]
        if indices.size and not (-size <= int(indices.min()) and int(indices.max()) < size):
            worst = int(indices.min()) if int(indices.min()) < -size else int(indices.max())
            raise ValueError(
                f"Gather takes indices in {-size}..{size - 1} along axis {self.axis}, not {worst}"
            )
        return taken(x, indices, self.axis % x.ndim)


@dataclass(frozen=True, eq=False, repr=False)
class Expand(ShapedByValues, Movement):
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
    _lists: ClassVar[tuple[str, ...]] = ("a shape",)

    def output_shape_from(self, values: Sequence[np.ndarray | None], *shapes: Shape) -> Shape:
        """Return what x's shape and the one asked for broadcast to."""
        _, target = take(self, values)
        if target is None:
            raise UnknownShape
        return room_for(
            self, broadcast(self, (shapes[0], room_for(self, integer_list(self, target, "a shape"))))
        )

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the copies."""
        x, target = take(self, inputs)
        self.output_dtype(x.dtype.name, target.dtype.name)
        return copied(np.broadcast_to(x, self.output_shape_from((x, target), x.shape, target.shape)))


OPERATORS = (
    OperatorRecord(
        name="Concat",
        help="Concatenate tensors along an axis.",
        layers=(Concat,),
        inputs=("x...",),
        attributes={"axis": REQUIRED},
    ),
    OperatorRecord(
        name="Expand",
        help="Broadcast to a shape.",
        layers=(Expand,),
        inputs=("x", "shape"),
        reads=2,
        since=8,
    ),
    OperatorRecord(
        name="Gather",
        help="Take slices along an axis by index.",
        layers=(Gather,),
        inputs=("x", "indices"),
        attributes={"axis": 0},
        reads=2,
    ),
)
