"""Steps of wavefront mode, made once per program: products as large as can be, and only of what is not 0.

Consecutive multiplies that add up in the same accumulators are one product over all their rows of weights:
sums wrap, so that their order changes no bit. Rows and columns at the edges of a tile that hold only zeros
are left out. How many columns of each accumulator row can differ from zero is known beforehand, so that
neither a product nor an ``Activate`` touches the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from systolic import _gemm
from systolic.array.workspace import Workspace
from systolic.machine.programs.memories import Memories, Place
from systolic.machine.programs.steps import Activation, Fetch, Multiply, Step, Steps

# MACs between two looks for Ctrl-C: a tenth of a second or less.
_PIECE_WORK = 1 << 32

# Below this many MACs, other threads cost more than they save.
_WORTH_A_THREAD = 1 << 21

# Most bytes of rows that are gathered for one product.
_MOST_GATHERED = 1 << 23


class Part(NamedTuple):
    """Rows of the unified buffer that meet some rows of a product's weights."""

    shape: tuple[int, ...]
    """An axis for each pair of their pattern, and one for their bytes."""
    offset: int
    strides: tuple[int, ...]
    at: slice
    """Rows of the weights."""

    @classmethod
    def of(cls, place: Place, columns: slice, at: int, row_bytes: int) -> Part:
        """Return the part that some bytes of some rows are; its weights begin at a row."""
        width = columns.stop - columns.start
        return cls(
            (*(count for count, _ in place.axes), width),
            place.first * row_bytes + columns.start,
            (*(stride * row_bytes for _, stride in place.axes), 1),
            slice(at, at + width),
        )

    def view(self, ub: np.ndarray) -> np.ndarray:
        """Return the bytes in the unified buffer."""
        return np.ndarray(self.shape, np.uint8, ub, self.offset, self.strides)


@dataclass(frozen=True, eq=False)
class Product:
    """Multiplies that add up in the same accumulators, as one product.

    Attributes
    ----------
    number : int
        The last of their instructions.
    parts : tuple of Part
    weights : ndarray, (k, n)
        Without the zeros at the edges of tiles.
    activation : dtype
    acc, count : int
        Rows of the accumulators.
    accumulate : bool
        Whether sums are added to what these held before.
    clear : int
        Columns from n up to this one may hold other sums, which become 0.
    """

    number: int
    parts: tuple[Part, ...]
    weights: np.ndarray
    activation: np.dtype
    acc: int
    count: int
    accumulate: bool
    clear: int

    def run(self, memories: Memories, threads: int, memory: Workspace) -> None:
        """Compute the sums."""
        k, n = self.weights.shape
        sums = memories.acc[self.acc : self.acc + self.count]
        if n < self.clear:
            sums[:, n : self.clear] = 0
        if not n:
            return
        sums = sums[:, :n]
        rows = self._rows(memories.ub, memory).view(self.activation)
        if self.count * k * n < _WORTH_A_THREAD:
            threads = 1
        length = max(1, _PIECE_WORK // (k * n))
        for first in range(0, self.count, length):
            some = slice(first, first + length)
            out = memory.empty("sums", sums[some].shape, np.int32) if self.accumulate else sums[some]
            _gemm.multiply(rows[some], self.weights, out, threads=threads)
            if self.accumulate:
                sums[some] += out

    def _rows(self, ub: np.ndarray, memory: Workspace) -> np.ndarray:
        """Return what meets the weights, (count, k): a view of the buffer, or gathered."""
        if len(self.parts) == 1 and len(self.parts[0].shape) == 2:
            return self.parts[0].view(ub)
        gathered = memory.empty("rows", (self.count, len(self.weights)), np.uint8)
        for part in self.parts:
            gathered[:, part.at].reshape(part.shape)[...] = part.view(ub)
        return gathered


def fused(steps: Steps) -> list[Step | Product]:
    """Return a program's steps with multiplies as products."""
    return _Fusion(steps).found


class _Group:
    """Multiplies that become one product."""

    def __init__(self, first: Multiply) -> None:
        self.multiplies = [first]
        self.gathered = 0


class _Fusion:
    def __init__(self, steps: Steps) -> None:
        weights = steps.program.weights
        assert weights is not None or not any(isinstance(step, Multiply) for step in steps.steps)
        self._image, self._row_bytes = weights, steps.row_bytes
        self._tiles: list[int] = []
        self._extents: dict[int, tuple[slice, int]] = {}
        # Of each accumulator row: columns from here on hold zeros.
        self._width = np.zeros(steps.rows["acc"], np.int64)
        # Open groups of the multiplies that follow each other now, by their accumulators.
        self._open: dict[tuple[int, int], _Group] = {}
        self.found: list[Step | Product] = []
        for step in steps.steps:
            if isinstance(step, Fetch):
                self._tiles += range(step.tile, step.tile + step.count)
            elif isinstance(step, Multiply):
                self._add(step)
            else:
                self._close()
                if isinstance(step, Activation):
                    step = step.within(int(self._width[step.acc : step.acc + step.rows].max()))
                self.found.append(step)
        self._close()

    def _add(self, step: Multiply) -> None:
        """Add a multiply to the group of its accumulators, or let it begin one."""
        key = step.acc, step.count
        group = self._open.get(key)
        k = self._extent(step)[0]
        size = step.count * (k.stop - k.start)
        if group is not None:
            first = group.multiplies[0]
            same = (first.activation, first.weight) == (step.activation, step.weight)
            if step.accumulate and same and group.gathered + size <= _MOST_GATHERED:
                group.multiplies.append(step)
                group.gathered += size
                return
            self._close()
        elif any(acc < step.acc + step.count and step.acc < acc + count for acc, count in self._open):
            self._close()
        group = self._open[key] = _Group(step)
        group.gathered = size

    def _extent(self, step: Multiply) -> tuple[slice, int]:
        """Return a tile's rows from the first to the last that is not zero, and columns up to the last."""
        tile = self._tiles[step.order]
        if tile not in self._extents:
            assert self._image is not None
            filled = self._image[tile] != 0
            rows, columns = np.flatnonzero(filled.any(axis=1)), np.flatnonzero(filled.any(axis=0))
            inside = slice(int(rows[0]), int(rows[-1]) + 1) if len(rows) else slice(0, 0)
            self._extents[tile] = inside, int(columns[-1]) + 1 if len(columns) else 0
        return self._extents[tile]

    def _close(self) -> None:
        """Make products of the open groups."""
        for group in self._open.values():
            self.found.append(self._product(group.multiplies))
        self._open.clear()

    def _product(self, multiplies: Sequence[Multiply]) -> Product:
        assert self._image is not None
        first = multiplies[0]
        n = max(self._extent(step)[1] for step in multiplies)
        parts, blocks, at = [], [], 0
        for step in multiplies:
            rows, _ = self._extent(step)
            if rows.stop > rows.start:
                parts.append(Part.of(step.rows, rows, at, self._row_bytes))
                blocks.append(self._image[self._tiles[step.order], rows, :n])
                at += rows.stop - rows.start
        weights = np.concatenate(blocks) if len(blocks) > 1 else (blocks or [self._image[0, :0, :0]])[0]
        width = self._width[first.acc : first.acc + first.count]
        clear = 0 if first.accumulate else int(width.max())
        if first.accumulate:
            np.maximum(width, n, out=width)
        else:
            width[:] = n
        return Product(
            multiplies[-1].number, tuple(parts), np.ascontiguousarray(weights).view(first.weight),
            first.activation, first.acc, first.count, first.accumulate, clear,
        )  # fmt: skip
