"""What host layers share: checks of inputs with one message style, and lists given as a field or tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from systolic import _check
from systolic.layers.base import HostLayer, Layer, Shape, expect_dtype
from systolic.layers.host._parts import copied

FLOATS = ("float32", "float64", "float16")
INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
NUMBERS = (*FLOATS, *INTEGERS)
ANY = (*NUMBERS, "bool")


def broadcast(layer: Layer, shapes: Sequence[Shape]) -> Shape:
    """Return the shape that all broadcast to; ValueError if they do not."""
    try:
        return np.broadcast_shapes(*map(tuple, shapes))
    except ValueError:
        raise ValueError(
            f"{layer.kind} takes shapes that broadcast together, not "
            f"{' and '.join(map(_check.shape, shapes))}; from the last axis backwards sizes must be equal "
            "or 1"
        ) from None


def same_type(name: str, *dtypes: str) -> str:
    """Return the type that several tensors have; TypeError if they differ."""
    if len(set(dtypes)) > 1:
        count = "two tensors" if len(dtypes) == 2 else "tensors"
        raise TypeError(f"{name} takes {count} of one type, not {' and '.join(dict.fromkeys(dtypes))}")
    return dtypes[0]


def spreads(b: Shape, a: Shape, *, alone: bool = False) -> bool:
    """Whether `b` is broadcast along the innermost axis that is not 1 in both; `alone` if there is none."""
    rank = max(len(a), len(b))
    for size_a, size_b in zip(((1,) * rank + a)[::-1], ((1,) * rank + b)[::-1], strict=False):
        if size_a != 1 or size_b != 1:
            return size_b == 1
    return alone


def normal_axis(layer: Layer, axis: int, rank: int, name: str = "axis") -> int:
    """Return an axis counted from the front; ValueError if an input of `rank` axes has none such."""
    if not -rank <= axis < rank:
        raise ValueError(
            f"{type(layer).__name__} takes {name} in {-rank}..{rank - 1} for an input of {rank} axes, "
            f"not {axis}"
        )
    return axis % rank


def normal_axes(layer: Layer, axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Return axes counted from the front, in the order given; ValueError if one is there twice."""
    found = tuple(normal_axis(layer, axis, rank) for axis in axes)
    if len(set(found)) < len(found):
        raise ValueError(f"{type(layer).__name__} takes each axis once, not {_check.shape(axes)}")
    return found


def one_type(layer: Layer, dtypes: Sequence[str], known: Sequence[str]) -> str:
    """Return the type that all inputs have; TypeError if they differ or it is not one of those known."""
    name = expect_dtype(layer, dtypes[0], known)
    for dtype in dtypes[1:]:
        expect_dtype(layer, dtype, (name,), ", the first input's type")
    return name


def lowest(dtype: np.dtype) -> float | int:
    """Return the smallest number of a type, minus infinity of floats: the maximum of no numbers."""
    return -np.inf if dtype.kind == "f" else int(np.iinfo(dtype).min)


class Listed(HostLayer):
    """A layer that shapes by a list of integers: a field, or the second input if that is None."""

    inputs: ClassVar[None] = None
    lists: ClassVar[tuple[str, ...]] = ("", "axes")

    _field: ClassVar[str] = "axes"

    _none_read: ClassVar[tuple[int, ...] | None] = ()
    """The list that an empty one means, if it is read."""

    @property
    def some(self) -> tuple[int, int]:  # type: ignore[override]
        """The least and the largest number of inputs."""
        return 1, 2 if getattr(self, self._field) is None else 1

    def _list(self, *read: Sequence[int]) -> Sequence[int] | None:
        """Return the list that the layer has or reads."""
        return (read[0] or self._none_read) if read else getattr(self, self._field)

    def _shape(self, shape: Shape, *read: Sequence[int]) -> Shape:
        return self._sized(shape, self._list(*read))

    def _kernel(self, shape: Shape, x: np.ndarray, *read: Sequence[int]) -> np.ndarray:
        return copied(x).reshape(shape)

    def _sized(self, shape: Shape, given: Sequence[int] | None) -> Shape:
        """Return the output's sizes."""
        raise TypeError(f"{type(self).__name__} does not define _sized")
