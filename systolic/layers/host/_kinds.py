"""Bases of host layers by what they do to shapes and types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from systolic.layers.base import HostLayer, Shape, UnknownShape
from systolic.layers.host._inputs import axes_field, expect_lists, integer_list, take, take_some
from systolic.layers.host._parts import copied


class Elementwise(HostLayer):
    """A function of each element: the output has the input's shape."""

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the input's shape."""
        (shape,) = take(self, shapes)
        return tuple(shape)


class _Reader(HostLayer):
    def _take(self, values: Sequence[Any]) -> Sequence[Any]:
        """Return `values` if they are as many as the layer reads."""
        return take(self, values)


class Movement(_Reader):
    """A layer that moves elements: the output has x's type."""

    _lists: ClassVar[tuple[str, ...]] = ()
    """What the inputs after x hold, lists of integers."""

    def output_dtype(self, *dtypes: str) -> str:
        """Return x's type."""
        dtype, *lists = self._take(dtypes)
        expect_lists(self, lists, self._lists)
        return np.dtype(dtype).name


class ShapedByValues(_Reader):
    """A layer whose output's shape depends on the inputs' values."""

    def output_shape(self, *shapes: Shape) -> Shape:
        """Raise UnknownShape: the inputs' values decide."""
        self._take(shapes)
        raise UnknownShape


class Listed(Movement):
    """A layer that shapes by a list of integers: a field, or the second input if that is None."""

    inputs: ClassVar[None] = None

    _field: ClassVar[str]

    _none_read: ClassVar[tuple[int, ...] | None] = ()
    """The list that an empty one means, if it is read."""

    @property
    def _held(self) -> Sequence[int] | None:
        return getattr(self, self._field)

    def _take(self, values: Sequence[Any]) -> Sequence[Any]:
        return take_some(self, values, 1, 2 if self._held is None else 1)

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the output's sizes; UnknownShape if the list is read."""
        if len(self._take(shapes)) == 2:
            raise UnknownShape
        return self._shape(shapes[0], self._held)

    def output_shape_from(self, values: Sequence[np.ndarray | None], *shapes: Shape) -> Shape:
        """Return the output's sizes."""
        return self._shape(shapes[0], self._given(values))

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return a copy with other sizes."""
        x, *_ = self._take(inputs)
        return copied(x).reshape(self._shape(x.shape, self._given(inputs)))

    def _given(self, values: Sequence[np.ndarray | None]) -> Sequence[int] | None:
        """Return the list that the layer has or reads; UnknownShape if it reads an unknown one."""
        if len(self._take(values)) == 1:
            return self._held
        if values[1] is None:
            raise UnknownShape
        expect_lists(self, (values[1].dtype.name,), self._lists)
        return integer_list(self, values[1], self._lists[0]) or self._none_read

    def _shape(self, shape: Shape, given: Sequence[int] | None) -> Shape:
        raise TypeError(f"{type(self).__name__} does not define _shape")


class Axes(Listed):
    """A layer that works on axes: those in the field `axes`, or read if it is None."""

    _field: ClassVar[str] = "axes"
    _lists: ClassVar[tuple[str, ...]] = ("axes",)

    axes: Sequence[int] | None

    def __post_init__(self) -> None:
        axes_field(self, "axes")
