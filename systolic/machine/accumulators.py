"""The memory below the array, which adds the psums of successive k tiles."""

from __future__ import annotations

import numpy as np

from systolic.array.workspace import Workspace
from systolic.formats import Format, format_of


class Accumulators:
    """Two halves of rows of `cols` sums, one filling while the other drains.

    Parameters
    ----------
    rows : int
        Rows of one half.
    cols : int
        Columns of the array.
    memory : Workspace, optional
        Where the rows are kept, with any values until they are written; lent for the time of use.
    numbers : Format, optional
        Of the sums, and of how they are added; default those of 8-bit integers.

    Notes
    -----
    A psum is written on the edge after it was put out at the bottom of the array; sums are added as the
    format says. Draining costs no array cycle. Rows are allocated when they are first written, so that
    unlimited accumulators hold only what is used.
    """

    def __init__(
        self, rows: int, cols: int, memory: Workspace | None = None, numbers: Format | None = None
    ) -> None:
        self.rows, self.cols = rows, cols
        self._memory = Workspace() if memory is None else memory
        self._numbers = format_of("int8", "int8") if numbers is None else numbers
        self._halves = [np.empty((0, cols), dtype=self._numbers.sum) for _ in range(2)]

    def write(self, half: int, row: int, psums: np.ndarray, *, first: bool) -> None:
        """Put psums, (m, cols), into rows row..row + m - 1: replace the sums there if these are the
        `first` k tile's, else add to them."""
        stop = row + len(psums)
        if stop > self.rows:
            raise IndexError(f"row {stop - 1} of a half of {self.rows} accumulator rows")
        if stop > len(self._halves[half]):
            size = min(max(stop, 2 * len(self._halves[half])), self.rows)
            grown = self._memory.empty(f"half {half}", (size, self.cols), self._halves[half].dtype)
            grown[: len(self._halves[half])] = self._halves[half]
            self._halves[half] = grown
        if first:
            self._halves[half][row:stop] = psums
        else:
            self._numbers.accumulate(self._halves[half][row:stop], psums)

    def drain(self, half: int, m: int, n: int) -> np.ndarray:
        """Return the sums in the first m rows and n columns, (m, n); a view."""
        return self._halves[half][:m, :n]
