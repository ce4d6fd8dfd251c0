"""The base of layers that are given a list of integers, as a field or as a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from systolic.layers.base import HostLayer, Shape
from systolic.layers.host._parts import copied


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
