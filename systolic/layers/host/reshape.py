"""Layers that give the same elements another shape, fixed or computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from systolic import _check
from systolic.layers.base import Shape, UnknownShape
from systolic.layers.host._inputs import integer_list, take
from systolic.layers.host._kinds import Elementwise, Movement, ShapedByValues
from systolic.layers.host._parts import copied
from systolic.layers.record import OperatorRecord


@dataclass(frozen=True, eq=False, repr=False)
class Identity(Elementwise, Movement):
    """Return the input: ONNX operator Identity.

    Examples
    --------
    >>> from systolic.layers.host import Identity
    >>> Identity().output_shape((2, 3))
    (2, 3)
    """

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return a copy."""
        (x,) = take(self, inputs)
        return copied(x)


@dataclass(frozen=True, eq=False, repr=False)
class Flatten(Movement):
    """Flatten to two axes: those before `axis` become the first, the others the second.

    Parameters
    ----------
    axis : int
        Between -r and r for an input of r axes; negative ones count from the end.

    Notes
    -----
    ONNX operator Flatten. Any type of tensor.

    Examples
    --------
    >>> from systolic.layers import Flatten
    >>> Flatten().output_shape((8, 16, 7, 7))
    (8, 784)
    """

    axis: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "axis", _check.integer(self.axis, "axis"))

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the two sizes; ValueError if the input has no such axis."""
        (shape,) = take(self, shapes)
        if not -len(shape) <= self.axis <= len(shape):
            raise ValueError(
                f"Flatten's axis must be in {-len(shape)}..{len(shape)} for an input {_check.shape(shape)}, "
                f"not {self.axis}"
            )
        axis = self.axis + len(shape) if self.axis < 0 else self.axis
        return math.prod(shape[:axis]), math.prod(shape[axis:])

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return a copy of x with two axes."""
        (x,) = take(self, inputs)
        return copied(x).reshape(self.output_shape(x.shape))


@dataclass(frozen=True, eq=False, repr=False)
class Reshape(Movement):
    """Reshape a tensor; its elements keep their order.

    Parameters
    ----------
    shape : sequence of int
        Sizes; 0 copies the input's size at that place (unless `allowzero`), and one -1 is
        inferred from the rest.
    allowzero : bool
        Whether 0 means a size of 0.

    Notes
    -----
    ONNX operator Reshape. An inferred size is computed without the copied ones, so that ``(0, -1)``
    also flattens an empty batch, where ONNX Runtime gives up.

    Examples
    --------
    >>> from systolic.layers import Reshape
    >>> Reshape((0, 4, -1)).output_shape((8, 16, 7, 7))
    (8, 4, 196)
    """

    shape: Sequence[int]
    allowzero: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if not _check.is_listed(self.shape, arrays=True):
            raise TypeError(f"shape must be a sequence of integers, not {_check.kind(self.shape)}")
        sizes = tuple(_check.integer(size, f"shape[{i}]", minimum=-1) for i, size in enumerate(self.shape))
        object.__setattr__(self, "shape", sizes)
        object.__setattr__(self, "allowzero", _check.flag(self.allowzero, "allowzero"))
        if sizes.count(-1) > 1:
            raise ValueError(f"shape must hold at most one -1, not {_check.shape(sizes)}")
        if self.allowzero and -1 in sizes and 0 in sizes:
            raise ValueError(f"shape must not hold both -1 and 0 with allowzero, not {_check.shape(sizes)}")

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape with copied and inferred sizes; ValueError if the elements do not fit."""
        (shape,) = take(self, shapes)
        copied = () if self.allowzero else tuple(i for i, size in enumerate(self.shape) if size == 0)
        if copied and copied[-1] >= len(shape):
            raise ValueError(
                f"Reshape to {_check.shape(self.shape)} copies the size of axis {copied[-1]}, which an input "
                f"{_check.shape(shape)} does not have"
            )
        # Copied sizes cancel out, so they may be 0 beside a -1.
        elements = math.prod(size for i, size in enumerate(shape) if i not in copied)
        known = math.prod(size for i, size in enumerate(self.shape) if i not in copied and size != -1)
        sizes = [shape[i] if i in copied else size for i, size in enumerate(self.shape)]
        if -1 in sizes:
            fits = elements % known == 0
            sizes[sizes.index(-1)] = elements // known
        else:
            fits = math.prod(sizes) == math.prod(shape)
        if not fits:
            raise ValueError(
                f"Reshape to {_check.shape(self.shape)} needs another number of elements than an input "
                f"{_check.shape(shape)} has ({math.prod(shape)})"
            )
        return tuple(sizes)

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return a copy of x with the other shape."""
        (x,) = take(self, inputs)
        return copied(x).reshape(self.output_shape(x.shape))


@dataclass(frozen=True, eq=False, repr=False)
class ReshapeTo(ShapedByValues, Movement):
    """Reshape to a shape read as a tensor: reads x and a shape as that of :class:`Reshape`.

    Parameters
    ----------
    allowzero : bool
        Whether 0 means a size of 0, instead of copying the input's.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import ReshapeTo
    >>> ReshapeTo().apply(np.arange(6), np.array([-1, 2])).shape
    (3, 2)
    """

    inputs: ClassVar[int] = 2
    _lists: ClassVar[tuple[str, ...]] = ("a shape",)

    allowzero: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "allowzero", _check.flag(self.allowzero, "allowzero"))

    def output_shape_from(self, values: Sequence[np.ndarray | None], *shapes: Shape) -> Shape:
        """Return the shape with copied and inferred sizes; ValueError if the elements do not fit."""
        _, target = take(self, values)
        if target is None:
            raise UnknownShape
        return Reshape(integer_list(self, target, "a shape"), allowzero=self.allowzero).output_shape(
            shapes[0]
        )

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return a copy of x with the other shape."""
        x, target = take(self, inputs)
        self.output_dtype(x.dtype.name, target.dtype.name)
        return copied(x).reshape(self.output_shape_from((x, target), x.shape, target.shape))


OPERATORS = (
    OperatorRecord(
        name="Flatten",
        help="Reshape to a matrix: the axes before one, and the rest.",
        layers=(Flatten,),
        attributes={"axis": 1},
        reads=1,
    ),
    OperatorRecord(name="Identity", help="The input.", layers=(Identity,), reads=1),
    OperatorRecord(
        name="Reshape",
        help="The elements in another shape.",
        layers=(ReshapeTo,),
        inputs=("x", "shape"),
        attributes={"allowzero": False},
        terse=("allowzero",),
        since=5,
        history={14: "allowzero"},
    ),
)
