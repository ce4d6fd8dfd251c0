"""Layers that give the same elements another shape, fixed or computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from systolic import _check
from systolic.layers.base import HostLayer, Shape, checked, integers
from systolic.layers.host._inputs import Listed
from systolic.layers.host._parts import copied
from systolic.layers.record import OperatorRecord


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
)
