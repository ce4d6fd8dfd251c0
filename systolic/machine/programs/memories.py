"""The memories of a machine that runs a program: bytes, and the rows that an instruction names."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from systolic.isa import Pattern

HostFunction = Callable[[list[np.ndarray]], Sequence[np.ndarray]]
"""Called with the rows of each range that a ``HostCall`` reads, uint8 (rows, row_bytes); returns those that
it writes."""


@dataclass
class Memories:
    """What the memories hold; rows up to the highest one that a program touches.

    Attributes
    ----------
    ub, host : ndarray of uint8, (rows, row_bytes)
    acc : ndarray of int32, (rows, cols)
    weights : ndarray of uint8, (tiles, rows, cols)
    calls : mapping of int to callable
        What the host computes, by the number of the function.
    """

    ub: np.ndarray
    host: np.ndarray
    acc: np.ndarray
    weights: np.ndarray
    calls: Mapping[int, HostFunction]

    def of(self, name: str) -> np.ndarray:
        """Return "ub", "acc" or "host"."""
        memory: np.ndarray = getattr(self, name)
        return memory


class Place:
    """Rows of a memory in the order in which an instruction visits them.

    Parameters
    ----------
    first, count : int
        The address, and the number of rows.
    pattern : Pattern, optional
        None for rows that follow each other.

    Examples
    --------
    >>> import numpy as np
    >>> memory = np.arange(20, dtype=np.uint8).reshape(10, 2)
    >>> Place(1, 4, ((2, 5), (2, 1))).gather(memory).tolist()
    [[2, 3], [4, 5], [12, 13], [14, 15]]
    """

    def __init__(self, first: int, count: int, pattern: Pattern | None = None) -> None:
        self.first, self.count = first, count
        self.axes = _merged(((count, 1),) if pattern is None else pattern)

    @property
    def is_matrix(self) -> bool:
        """Whether the rows lie at equal distances, so that :meth:`view` is a matrix."""
        return len(self.axes) == 1

    def view(self, memory: np.ndarray, columns: slice = slice(None)) -> np.ndarray:
        """Return these rows as a view, (*counts of the pattern, columns): an axis for each pair."""
        if len(self.axes) == 1 and self.axes[0][1] > 0:
            count, stride = self.axes[0]
            return memory[self.first : self.first + (count - 1) * stride + 1 : stride, columns]
        start, stop, _ = columns.indices(memory.shape[1])
        step = memory.strides[0]
        return np.ndarray(
            (*(count for count, _ in self.axes), stop - start),
            memory.dtype,
            memory,
            self.first * step + start * memory.itemsize,
            (*(stride * step for _, stride in self.axes), memory.itemsize),
        )

    def gather(self, memory: np.ndarray, columns: slice = slice(None)) -> np.ndarray:
        """Return these rows as a matrix: a view if they lie at equal distances, else a copy."""
        view = self.view(memory, columns)
        return view if view.ndim == 2 else view.reshape(self.count, view.shape[-1])

    def scatter(self, memory: np.ndarray, values: np.ndarray) -> None:
        """Write values, (count, at most a row), and zeros behind them; the last visit of a row wins."""
        width = values.shape[1]
        if self.distinct:
            view = self.view(memory)
            view[..., :width] = values.reshape(*view.shape[:-1], width)
            if width < memory.shape[1]:
                view[..., width:] = 0
        else:
            rows, last = self._last_visits
            memory[rows, :width] = values[last]
            memory[rows, width:] = 0

    @cached_property
    def distinct(self) -> bool:
        """Whether no row is visited twice."""
        reach = 0
        for count, stride in sorted(self.axes, key=lambda axis: abs(axis[1])):
            if count > 1 and abs(stride) <= reach:
                return len(np.unique(self.index)) == self.count
            reach += (count - 1) * abs(stride)
        return True

    @cached_property
    def index(self) -> np.ndarray:
        """The rows, (count,)."""
        index = np.full(1, self.first)
        for count, stride in self.axes:
            index = (index[:, np.newaxis] + np.arange(count) * stride).reshape(-1)
        return index

    @cached_property
    def _last_visits(self) -> tuple[np.ndarray, np.ndarray]:
        # numpy does not say which of several values for an element it keeps.
        rows, from_behind = np.unique(self.index[::-1], return_index=True)
        return rows, self.count - 1 - from_behind


def _merged(pattern: Pattern) -> Pattern:
    """Return a pattern that visits the same rows in the same order with as few axes as can be."""
    axes: list[tuple[int, int]] = []
    for count, stride in pattern:
        if count == 1:
            continue
        if axes and axes[-1][1] == count * stride:
            axes[-1] = (axes[-1][0] * count, stride)
        else:
            axes.append((count, stride))
    assert math.prod(count for count, _ in axes) == math.prod(count for count, _ in pattern)
    return tuple(axes) or ((1, 1),)
