"""Bases of host layers by what they do to shapes and types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from systolic.layers.base import HostLayer, Shape, UnknownShape
from systolic.layers.host._inputs import expect_lists, take


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

    lists: ClassVar[tuple[str, ...]] = ()
    """What the inputs after x hold, lists of integers."""

    def output_dtype(self, *dtypes: str) -> str:
        """Return x's type."""
        dtype, *lists = self._take(dtypes)
        expect_lists(self, lists, self.lists)
        return np.dtype(dtype).name


class ShapedByValues(_Reader):
    """A layer whose output's shape depends on the inputs' values."""

    def output_shape(self, *shapes: Shape) -> Shape:
        """Raise UnknownShape: the inputs' values decide."""
        self._take(shapes)
        raise UnknownShape
