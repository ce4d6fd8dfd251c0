"""Layers that give the same elements another shape, and those that compute with shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from systolic import _check
from systolic.layers.base import HostLayer, Shape, checked, integers
from systolic.layers.host._inputs import ANY, Listed, normal_axes
from systolic.layers.host._parts import copied
from systolic.layers.record import REQUIRED, OperatorRecord

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
class Identity(HostLayer):
    """Return the input: ONNX operator Identity.

    Examples
    --------
    >>> from systolic.layers import Identity
    >>> Identity().output_shape((2, 3))
    (2, 3)
    """

    def _kernel(self, shape: Shape, x: np.ndarray) -> np.ndarray:
        return copied(x)


@dataclass(frozen=True, eq=False, repr=False)
class Flatten(HostLayer):
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

    def _shape(self, shape: Shape) -> Shape:
        if not -len(shape) <= self.axis <= len(shape):
            raise ValueError(
                f"Flatten's axis must be in {-len(shape)}..{len(shape)} for an input {_check.shape(shape)}, "
                f"not {self.axis}"
            )
        axis = self.axis + len(shape) if self.axis < 0 else self.axis
        return math.prod(shape[:axis]), math.prod(shape[axis:])

    def _kernel(self, shape: Shape, x: np.ndarray) -> np.ndarray:
        return copied(x).reshape(shape)


@dataclass(frozen=True, eq=False, repr=False)
class Reshape(Listed):
    """Reshape a tensor; its elements keep their order.

    Reads x and, where `shape` is None, the shape.

    Parameters
    ----------
    shape : sequence of int or None
        Sizes; 0 copies the input's size at that place (unless `allowzero`), and one -1 is
        inferred from the rest. None is those that it reads.
    allowzero : bool
        Whether 0 means a size of 0.

    Notes
    -----
    ONNX operator Reshape. An inferred size is computed without the copied ones, so that ``(0, -1)``
    also flattens an empty batch, where ONNX Runtime gives up.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import Reshape
    >>> Reshape((0, 4, -1)).output_shape((8, 16, 7, 7))
    (8, 4, 196)
    >>> Reshape().apply(np.arange(6), np.array([-1, 2])).shape
    (3, 2)
    """

    lists: ClassVar[tuple[str, ...]] = ("", "a shape")

    _field: ClassVar[str] = "shape"

    shape: Sequence[int] | None = checked(lambda value, name: integers(value, name, -1), None)
    allowzero: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shape is not None:
            self._expect_one_inferred(self.shape)

    def _expect_one_inferred(self, sizes: Sequence[int]) -> None:
        if sizes.count(-1) > 1:
            raise ValueError(f"shape must hold at most one -1, not {_check.shape(sizes)}")
        if self.allowzero and -1 in sizes and 0 in sizes:
            raise ValueError(f"shape must not hold both -1 and 0 with allowzero, not {_check.shape(sizes)}")

    def _sized(self, shape: Shape, given: Sequence[int] | None) -> Shape:
        if given is None:
            raise TypeError("Reshape needs a shape, in its field or as its second input")
        if given is not self.shape:
            for place, size in enumerate(given):
                _check.integer(size, f"shape[{place}]", minimum=-1)
            self._expect_one_inferred(given)
        copied = () if self.allowzero else tuple(i for i, size in enumerate(given) if size == 0)
        if copied and copied[-1] >= len(shape):
            raise ValueError(
                f"Reshape to {_check.shape(given)} copies the size of axis {copied[-1]}, which an input "
                f"{_check.shape(shape)} does not have"
            )
        # Copied sizes cancel out, so they may be 0 beside a -1.
        elements = math.prod(size for i, size in enumerate(shape) if i not in copied)
        known = math.prod(size for i, size in enumerate(given) if i not in copied and size != -1)
        sizes = [shape[i] if i in copied else size for i, size in enumerate(given)]
        if -1 in sizes:
            fits = elements % known == 0
            sizes[sizes.index(-1)] = elements // known
        else:
            fits = math.prod(sizes) == math.prod(shape)
        if not fits:
            raise ValueError(
                f"Reshape to {_check.shape(given)} needs another number of elements than an input "
                f"{_check.shape(shape)} has ({math.prod(shape)})"
            )
        return tuple(sizes)


def _permutation(value: Any, name: str) -> tuple[int, ...] | None:
    if value is None:
        return None
    perm = integers(value, name, 0)
    if sorted(perm) != list(range(len(perm))):
        raise ValueError(f"{name} must hold each axis once, not {_check.shape(perm)}")
    return perm


@dataclass(frozen=True, eq=False, repr=False)
class Transpose(HostLayer):
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

    perm: Sequence[int] | None = checked(_permutation, None)

    def _shape(self, shape: Shape) -> Shape:
        if self.perm is None:
            return shape[::-1]
        if len(self.perm) != len(shape):
            raise ValueError(
                f"Transpose by {_check.shape(self.perm)} takes {len(self.perm)} axes, "
                f"not {_check.shape(shape)}"
            )
        return tuple(shape[axis] for axis in self.perm)

    def _kernel(self, shape: Shape, x: np.ndarray) -> np.ndarray:
        return copied(np.transpose(x, self.perm))


@dataclass(frozen=True, eq=False, repr=False)
class Squeeze(Listed):
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

    def _sized(self, shape: Shape, given: Sequence[int] | None) -> Shape:
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
class Unsqueeze(Listed):
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

    def _sized(self, shape: Shape, given: Sequence[int] | None) -> Shape:
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

    def _shape(self, shape: Shape) -> Shape:
        return (len(shape[self.start : self.end]),)

    def _dtype(self, dtype: str) -> str:
        return "int64"

    def value_of(self, *shapes: Shape) -> np.ndarray:
        """Return the sizes, which need no data."""
        (shape,) = self._counted(shapes)
        return np.array(tuple(shape)[self.start : self.end], np.int64)

    def _kernel(self, shape: Shape, x: np.ndarray) -> np.ndarray:
        return self.value_of(x.shape)


def _element(value: Any, name: str) -> np.ndarray:
    element = np.array(_check.as_array(value, name)).reshape(-1)
    if element.size != 1:
        raise ValueError(f"{name} must hold one element, not {element.size}")
    element.flags.writeable = False
    return element


@dataclass(frozen=True, eq=False, repr=False)
class Fill(HostLayer):
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

    lists: ClassVar[tuple[str, ...]] = ("a shape",)

    value: np.ndarray = field(metadata={"check": _element})

    def _shape(self, target: Shape) -> Shape:
        return room_for(self, target)

    def _dtype(self, dtype: str) -> str:
        return self.value.dtype.name

    def _kernel(self, shape: Shape, target: Shape) -> np.ndarray:
        return np.full(shape, self.value[0])


# What a Fill of constant shape may make while a model is read.
_MOST_FILLED = 1 << 28


def _read_fill(op: Any) -> Any:
    from onnx import numpy_helper

    op.only("value")
    value = op.attributes.get("value")
    value = np.zeros(1, np.float32) if value is None else numpy_helper.to_array(value)
    if value.dtype.name not in ANY:
        raise op.refuse(f"a value of {value.dtype}; supported are {', '.join(ANY)}")
    target = op.value(0)
    if target is not None and math.prod(target.tolist()) > _MOST_FILLED:
        raise op.refuse(f"a constant of the shape {target.tolist()}")
    return Fill(value), op.inputs


def _read_constant(op: Any) -> Any:
    from onnx import numpy_helper

    held = [name for name in op.attributes if name.startswith(("value", "sparse"))]
    if len(held) != 1:
        raise ValueError(f"a Constant must have one value, not {len(held)}")
    value = op.attributes[held[0]]
    if held[0] == "value":
        return numpy_helper.to_array(value)
    if held[0] in ("value_int", "value_ints"):
        return np.array(value, np.int64)
    if held[0] in ("value_float", "value_floats"):
        return np.array(value, np.float32)
    raise op.refuse(f"a Constant must hold a tensor or numbers, not {held[0]}")


OPERATORS = (
    OperatorRecord(
        Flatten, "Reshape to a matrix: the axes before one, and the rest.", attributes={"axis": 1}
    ),
    OperatorRecord(Identity, "The input."),
    OperatorRecord(
        Reshape,
        "The elements in another shape.",
        inputs=("x", "shape"),
        attributes={"allowzero": False},
        became_inputs={"shape": (5, 1)},
        terse=("allowzero",),
        since=5,
        history={14: "allowzero"},
    ),
    OperatorRecord(
        ShapeOf,
        "The input's shape.",
        name="Shape",
        attributes={"start": 0, "end": None},
        terse=("start",),
        history={15: "start and end"},
    ),
    OperatorRecord(Transpose, "Permute axes.", attributes={"perm": None}),
    OperatorRecord(
        Squeeze,
        "Remove axes of size 1.",
        inputs=("x", "axes?"),
        attributes={"axes": None},
        became_inputs={"axes": (13, 1)},
    ),
    OperatorRecord(
        Unsqueeze,
        "Insert axes of size 1.",
        inputs=("x", "axes"),
        attributes={"axes": REQUIRED},
        became_inputs={"axes": (13, 1)},
    ),
    OperatorRecord(
        Fill,
        "A tensor of a shape, filled with one number.",
        name="ConstantOfShape",
        inputs=("shape",),
        attributes={"value": None},
        since=9,
        read=_read_fill,
    ),
    OperatorRecord(
        None, "A tensor that the file holds; no layer.", name="Constant", inputs=(), read=_read_constant
    ),
)
