"""Temporary memory of runs, kept from call to call.

Pages that are new to a process cost more to touch than many cycles cost to clock: a fold of 2048 rows on
256 x 256 spent a quarter of its time on them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

# Keep at most so many workspaces, of at most so many bytes each.
_MOST_KEPT = 2
_KEPT_BYTES = 1 << 25

_kept: list[Workspace] = []


class Workspace:
    """Named arrays; asking for a name again gives the same memory with its old values."""

    def __init__(self) -> None:
        self._memory: dict[str, np.ndarray] = {}
        # Of placed arrays: their shape, type and the places that are not zero.
        self._placed: dict[str, tuple[tuple[int, int], np.dtype, list[tuple[int, int, int]]]] = {}

    def empty(self, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return an array of this shape, with any values."""
        dtype = np.dtype(dtype)
        size = dtype.itemsize
        for extent in shape:
            size *= extent
        memory = self._memory.get(name)
        if memory is None or memory.size < size:
            memory = self._memory[name] = np.empty(size, dtype=np.uint8)
        return np.ndarray(shape, dtype, memory)

    def zeros(self, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return an array of this shape, filled with zeros."""
        array = self.empty(name, shape, dtype)
        array.fill(0)
        return array

    def place(
        self, name: str, shape: tuple[int, int], dtype: Any, matrices: list[tuple[int, np.ndarray]]
    ) -> np.ndarray:
        """Return an array with these matrices at their lines, from column 0 on, and zeros everywhere else.

        For the shape of the previous call, zero only the places that it used; no other code may write to it.
        """
        places = [(line, line + len(matrix), matrix.shape[1]) for line, matrix in matrices]
        # First of all: an interrupt may come anywhere, and new memory holds unknown values.
        before = self._placed.pop(name, None)
        array, dtype = self.empty(name, shape, dtype), np.dtype(dtype)
        if before is None or before[:2] != (shape, dtype):
            array.fill(0)
        elif before[2] != places:
            for first, last, _ in before[2]:
                array[first:last] = 0
        for (first, last, width), (_, matrix) in zip(places, matrices, strict=True):
            array[first:last, :width] = matrix
        self._placed[name] = (shape, dtype, places)
        return array

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(memory.size for memory in self._memory.values())


@contextmanager
def workspace() -> Iterator[Workspace]:
    """Lend a workspace for exclusive use; do not keep its arrays."""
    # pop and append are atomic: any thread, and any handler that interrupts this one, gets its own.
    try:
        mine = _kept.pop()
    except IndexError:
        mine = Workspace()
    try:
        yield mine
    finally:
        if len(_kept) < _MOST_KEPT and mine.nbytes <= _KEPT_BYTES:
            _kept.append(mine)
