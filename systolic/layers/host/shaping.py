"""Layers that permute, add or remove axes, and those that compute with shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from systolic import _check
from systolic.layers.base import HostLayer, Shape, UnknownShape
from systolic.layers.host._inputs import (
    axes_field,
    expect_dtype,
    integer_list,
    normal_axes,
    take,
)
from systolic.layers.host._kinds import Axes, Movement, ShapedByValues
from systolic.layers.host._parts import copied
from systolic.layers.record import OperatorRecord

# Beyond any tensor; it keeps a hostile shape from asking for all memory.
_MOST_ELEMENTS = 1 << 34


def room_for(layer: HostLayer, shape: Sequence[int]) -> Shape:
    """Return a shape that values ask for; ValueError if it is negative or larger than memory."""
    if min(shape, default=0) < 0 or math.prod(shape) > _MOST_ELEMENTS:
        raise ValueError(
            f"{layer.kind} is asked for a tensor {_check.shape(shape)}; sizes must not be negative, and at "
            f"most {_MOST_ELEMENTS:,} elements are supported"
        )
    return tuple(shape)


@dataclass(frozen=True, eq=False, repr=False)
class Transpose(Movement):
    """Permute the axes: ONNX operator Transpose.

    Parameters
    ----------
    perm : sequence of int or None
        Output axis i is input axis perm[i]; None reverses them.

    Examples
    --------
    >>> from systolic.layers import Transpose
    >>> Transpose((0, 2, 3, 1)).output_shape((8, 3, 32, 64))
    (8, 32, 64, 3)
    """

    perm: Sequence[int] | None = None

    def __post_init__(self) -> None:
        axes_field(self, "perm", minimum=0)
        if self.perm is not None and sorted(self.perm) != list(range(len(self.perm))):
            raise ValueError(f"perm must hold each axis once, not {_check.shape(self.perm)}")

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the sizes in the other order."""
        (shape,) = take(self, shapes)
        if self.perm is None:
            return tuple(reversed(shape))
        if len(self.perm) != len(shape):
            raise ValueError(
                f"Transpose by {_check.shape(self.perm)} takes {len(self.perm)} axes, "
                f"not {_check.shape(shape)}"
            )
        return tuple(shape[axis] for axis in self.perm)

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return a copy in the other order."""
        (x,) = take(self, inputs)
        self.output_shape(x.shape)
        return copied(np.transpose(x, self.perm))


@dataclass(frozen=True, eq=False, repr=False)
class Squeeze(Axes):
    """Remove axes of size 1: ONNX operator Squeeze.

    Reads x and, where `axes` is None, optionally the axes.

    Parameters
    ----------
    axes : sequence of int or None
        Axes to remove; None: those that it reads, or all of size 1 if it reads none.

    Examples
    --------
    >>> from systolic.layers import Squeeze
    >>> Squeeze((-1, -2)).output_shape((1, 10, 1, 1))
    (1, 10)
    """

    axes: Sequence[int] | None = None

    _none_read: ClassVar[None] = None

    def _shape(self, shape: Shape, given: Sequence[int] | None) -> Shape:
        if given is None:
            return tuple(size for size in shape if size != 1)
        axes = normal_axes(self, given, len(shape))
        if any(shape[axis] != 1 for axis in axes):
            raise ValueError(
                f"Squeeze takes away axes of size 1, but of an input {_check.shape(shape)} it is asked for "
                f"the axes {_check.shape(axes)}"
            )
        return tuple(size for axis, size in enumerate(shape) if axis not in axes)


@dataclass(frozen=True, eq=False, repr=False)
class Unsqueeze(Axes):
    """Insert axes of size 1: ONNX operator Unsqueeze.

    Reads x and, where `axes` is None, the axes.

    Parameters
    ----------
    axes : sequence of int or None
        Where the output has them; negative ones count from its end. None is those that it reads.

    Examples
    --------
    >>> from systolic.layers import Unsqueeze
    >>> Unsqueeze((0, -1)).output_shape((3, 4))
    (1, 3, 4, 1)
    """

    axes: Sequence[int] | None = None

    def _shape(self, shape: Shape, given: Sequence[int] | None) -> Shape:
        if given is None:
            raise TypeError("Unsqueeze needs axes, in its field or as its second input")
        axes = normal_axes(self, given, len(shape) + len(given))
        rest = iter(shape)
        return tuple(1 if axis in axes else next(rest) for axis in range(len(shape) + len(axes)))


@dataclass(frozen=True, eq=False, repr=False)
class ShapeOf(HostLayer):
    """Return the input's shape as an int64 tensor: ONNX operator Shape.

    Parameters
    ----------
    start, end : int, int or None
        Of which axes, as in a Python slice.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import ShapeOf
    >>> ShapeOf(1).apply(np.zeros((2, 3, 4)))
    array([3, 4])
    """

    start: int = 0
    end: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", _check.integer(self.start, "start"))
        if self.end is not None:
            object.__setattr__(self, "end", _check.integer(self.end, "end"))

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the number of sizes."""
        (shape,) = take(self, shapes)
        return (len(tuple(shape)[self.start : self.end]),)

    def output_dtype(self, *dtypes: str) -> str:
        """Return "int64"."""
        take(self, dtypes)
        return "int64"

    def value_of(self, *shapes: Shape) -> np.ndarray:
        """Return the sizes, which need no data."""
        (shape,) = take(self, shapes)
        return np.array(tuple(shape)[self.start : self.end], np.int64)

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the sizes."""
        (x,) = take(self, inputs)
        return self.value_of(x.shape)


@dataclass(frozen=True, eq=False, repr=False)
class Fill(ShapedByValues):
    """Fill a tensor with one number: reads the shape. ONNX operator ConstantOfShape.

    Parameters
    ----------
    value : ndarray
        One element, of the output's type.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import Fill
    >>> Fill(np.int8([7])).apply(np.array([2, 2]))
    array([[7, 7],
           [7, 7]], dtype=int8)
    """

    value: np.ndarray

    def __post_init__(self) -> None:
        value = np.array(_check.as_array(self.value, "value")).reshape(-1)
        if value.size != 1:
            raise ValueError(f"value must hold one element, not {value.size}")
        value.flags.writeable = False
        object.__setattr__(self, "value", value)

    def output_shape_from(self, values: Sequence[np.ndarray | None], *shapes: Shape) -> Shape:
        """Return the shape asked for."""
        (target,) = take(self, values)
        if target is None:
            raise UnknownShape
        return room_for(self, integer_list(self, target, "a shape"))

    def output_dtype(self, *dtypes: str) -> str:
        """Return the value's type."""
        (dtype,) = take(self, dtypes)
        expect_dtype(self, dtype, ("int64", "int32"), " for the shape")
        return self.value.dtype.name

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the tensor."""
        (target,) = take(self, inputs)
        self.output_dtype(target.dtype.name)
        return np.full(self.output_shape_from((target,), target.shape), self.value[0])


OPERATORS = (
    OperatorRecord(
        name="Shape",
        help="The input's shape.",
        layers=(ShapeOf,),
        attributes={"start": 0, "end": None},
        terse=("start",),
        reads=1,
        history={15: "start and end"},
    ),
    OperatorRecord(
        name="Transpose", help="Permute axes.", layers=(Transpose,), attributes={"perm": None}, reads=1
    ),
)
