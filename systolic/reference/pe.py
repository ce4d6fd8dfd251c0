"""The slow, obvious array that defines the fast one: PE by PE, in Python numbers.

Nothing here is clever, and nothing here is shared with the kernel, the port scheduling or the
tiling that it checks.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from systolic.reference.numbers import INT32, Numbers

REGISTERS = ("weight", "next_weight", "weight_pass", "activation", "psum", "shift", "swap")

Grid = list[list[Any]]


class ReferenceArray:
    """A `rows` x `cols` weight-stationary array of PEs, each register a Python number.

    Parameters
    ----------
    rows, cols : int
        Size of the array.
    registers : mapping of str to array_like, (rows, cols), optional
        Values of the seven registers to start from; 0 where absent.
    numbers : Numbers, optional
        How products are added; default int32 sums that wrap.

    Attributes
    ----------
    weight, next_weight, weight_pass, activation, psum, shift, swap : list of list of int or float
        The registers, indexed [row][col].
    cycle : int
        Clock edges done.

    Examples
    --------
    >>> from systolic.reference import ReferenceArray
    >>> pe = ReferenceArray(1, 1, {"weight": [[3]]})
    >>> pe.step(activation=[5], psum=[100])
    >>> pe.psum
    [[115]]
    """

    def __init__(
        self,
        rows: int,
        cols: int,
        registers: Mapping[str, Sequence] | None = None,
        numbers: Numbers = INT32,
    ) -> None:
        self.rows, self.cols, self.cycle, self.numbers = rows, cols, 0, numbers
        self.weight = self._grid(registers, "weight")
        self.next_weight = self._grid(registers, "next_weight")
        self.weight_pass = self._grid(registers, "weight_pass")
        self.activation = self._grid(registers, "activation")
        self.psum = self._grid(registers, "psum")
        self.shift = self._grid(registers, "shift")
        self.swap = self._grid(registers, "swap")

    def _grid(self, registers: Mapping[str, Sequence] | None, name: str) -> Grid:
        if registers is None or name not in registers:
            return [[0] * self.cols for _ in range(self.rows)]
        return [[self.numbers.number(value) for value in row] for row in registers[name]]

    def step(
        self,
        *,
        activation: Sequence[int] | None = None,
        shift: Sequence[int] | None = None,
        swap: Sequence[int] | None = None,
        weight: Sequence[int] | None = None,
        psum: Sequence[int] | None = None,
    ) -> None:
        """Do one clock edge with these port values; an absent port carries 0.

        Parameters
        ----------
        activation, shift, swap : sequence of int, (rows,)
            West ports.
        weight, psum : sequence of int, (cols,)
            North ports.
        """
        west, north = [0] * self.rows, [0] * self.cols
        activation, shift, swap = (west if port is None else port for port in (activation, shift, swap))
        weight, psum = (north if port is None else port for port in (weight, psum))
        after: dict[str, Grid] = {name: [[0] * self.cols for _ in west] for name in REGISTERS}
        for r in range(self.rows):
            for c in range(self.cols):
                # 1. What arrives: from the left, and from above.
                arriving_activation = self.activation[r][c - 1] if c else self.numbers.number(activation[r])
                arriving_shift = self.shift[r][c - 1] if c else int(shift[r])
                arriving_swap = self.swap[r][c - 1] if c else int(swap[r])
                arriving_weight = self.weight_pass[r - 1][c] if r else self.numbers.number(weight[c])
                arriving_psum = self.psum[r - 1][c] if r else self.numbers.number(psum[c])
                # 2. The weight in use.
                used = self.next_weight[r][c] if arriving_swap else self.weight[r][c]
                after["weight"][r][c] = used
                # 3. The shift chain.
                if arriving_shift:
                    after["weight_pass"][r][c] = self.next_weight[r][c]
                    after["next_weight"][r][c] = arriving_weight
                else:
                    after["weight_pass"][r][c] = self.weight_pass[r][c]
                    after["next_weight"][r][c] = self.next_weight[r][c]
                # 4. The sum.
                after["psum"][r][c] = self.numbers.add(arriving_psum, used, arriving_activation)
                # 5. What travels on.
                after["activation"][r][c] = arriving_activation
                after["shift"][r][c] = arriving_shift
                after["swap"][r][c] = arriving_swap
        for name, grid in after.items():
            setattr(self, name, grid)
        self.cycle += 1

    def registers(self) -> dict[str, np.ndarray]:
        """Return the registers as arrays of int64, or of float64 if operands are floats, (rows, cols)."""
        return {
            name: np.array(getattr(self, name), dtype=self.numbers.held).reshape(self.rows, self.cols)
            for name in REGISTERS
        }

    def fold(self, x: Sequence[Sequence[int]], w: Sequence[Sequence[int]]) -> tuple[np.ndarray, int]:
        """Run one fold from reset, ports fed as the clock convention says.

        Parameters
        ----------
        x : array_like of int, (m, k), k <= rows
        w : array_like of int, (k, n), n <= cols

        Returns
        -------
        y : ndarray of int64 or float64, (m, n)
            The sums read at the bottom row, each on the cycle it stands there.
        cycles : int
            Edges from reset to the last sum.
        """
        m, n = len(x), len(w[0])
        ((shift, swap),) = fold_times([m], self.rows, self.cols)
        feed = self.feed([(shift, swap, m, lambda: (x, w))], self.rows, self.cols)
        y: np.ndarray = np.zeros((m, n), dtype=self.numbers.held)
        last = swap + m - 1 + self.rows - 1 + self.cols - 1
        for t in range(last + 1):
            self.step(**feed.at(t))
            for c in range(n):
                index = t - swap - (self.rows - 1) - c
                if 0 <= index < m:
                    y[index, c] = self.psum[self.rows - 1][c]
        return y, last + 1

    # The same of any dataflow.

    @staticmethod
    def fold_times(
        sizes: Iterable[tuple[int, int]], rows: int, cols: int, *, double_buffered: bool = True
    ) -> Iterator[tuple[int, int]]:
        """Yield when folds of so many (rows of x, columns of x) are shifted in and swapped."""
        return fold_times((m for m, _ in sizes), rows, cols, double_buffered=double_buffered)

    @staticmethod
    def sums_due(swap: int, row: int, rows: int) -> int:
        """Return after the edge of which cycle row `row`'s sum of a fold stands at the bottom of column 0."""
        return swap + row + rows - 1

    @staticmethod
    def feed(folds: Iterable[TimedFold], rows: int, cols: int) -> Feed:
        """Return the port values of folds (shift, swap, m, operands), cycle by cycle."""
        return Feed(folds, rows, cols)

    @staticmethod
    def expected_cycles(m: int, k: int, n: int, groups: int, array: Any, parts: int = 1) -> int:
        """Return the cycles of equal products on an array, fold by fold; k has parts, each cut by itself."""
        if 0 in (m, k, n):
            return 0
        chunk = m if array.accumulator_rows is None else array.accumulator_rows // 2
        rows, cols = array.rows, array.cols
        tiles = range(groups * -(-n // cols)), range(0, m, chunk), range(parts * -(-k // parts // rows))
        ms = (min(chunk, m - start) for _, start, _ in itertools.product(*tiles))
        *_, (_, swap) = fold_times(ms, rows, cols, double_buffered=array.double_buffered)
        return swap + (m - tiles[1][-1]) + rows + cols - 2


def fold_times(
    ms: Iterable[int], rows: int, cols: int, *, double_buffered: bool = True
) -> Iterator[tuple[int, int]]:
    """Yield when the folds of so many rows of x each are shifted in and swapped: the recurrence.

    Yields
    ------
    shift, swap : int
        The cycles at which the fold's first shift beat and its swap arrive at PE (0, 0).
    """
    shift = end = 0
    for m in ms:
        swap = max(shift + rows, end)
        yield shift, swap
        end = swap + m
        shift = swap if double_buffered else end + rows + cols - 2


Operands = Callable[[], tuple[Any, Any]]
TimedFold = tuple[int, int, int, Operands]


class Feed:
    """The port values of folds, cycle by cycle, as the clock convention has them.

    Parameters
    ----------
    folds : iterable of (shift, swap, m, operands)
        When a fold is shifted in and swapped, its rows of x, and a function that returns x, (m, k),
        and w, (k, n); called when a value is needed.
    rows, cols : int
        Size of the array.
    """

    def __init__(self, folds: Iterable[TimedFold], rows: int, cols: int) -> None:
        self.rows, self.cols = rows, cols
        # Local time -> operands, and the row of w that is shifted in or the row of x that streams.
        self._shifts: dict[int, tuple[Operands, int]] = {}
        self._streams: dict[int, tuple[Operands, int]] = {}
        for shift, swap, m, operands in folds:
            # The tile enters bottom row first.
            self._shifts |= {shift + beat: (operands, rows - 1 - beat) for beat in range(rows)}
            self._streams |= {swap + i: (operands, i) for i in range(m)}

    def at(self, t: int) -> dict[str, list[int]]:
        """Return the port values of cycle t."""
        values: dict[str, list[int]] = {"activation": [], "shift": [], "swap": [], "weight": []}
        for r in range(self.rows):
            # Row r's ports run r cycles late.
            line: Sequence[int] = ()
            if t - r in self._streams:
                operands, i = self._streams[t - r]
                line = operands()[0][i]
            values["activation"].append(line[r] if r < len(line) else 0)
            values["shift"].append(int(t - r in self._shifts))
            values["swap"].append(int(t - r in self._streams and i == 0))
        for c in range(self.cols):
            # Column c's weights run c cycles late.
            line = ()
            if t - c in self._shifts:
                operands, row = self._shifts[t - c]
                w = operands()[1]
                line = w[row] if row < len(w) else ()
            values["weight"].append(line[c] if c < len(line) else 0)
        return values
