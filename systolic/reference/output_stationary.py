"""The output-stationary array PE by PE, in Python numbers: slow, and shared with nothing it checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from systolic.reference.numbers import INT32, Numbers

REGISTERS = ("activation", "weight", "acc", "out", "out_pass", "swap", "drain")

Grid = list[list[Any]]


class OutputStationaryArray:
    """A `rows` x `cols` output-stationary array of PEs, each register a Python number.

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
    activation, weight, acc, out, out_pass, swap, drain : list of list of int or float
        The registers, indexed [row][col].
    cycle : int
        Clock edges done.

    Examples
    --------
    >>> from systolic.reference import OutputStationaryArray
    >>> pe = OutputStationaryArray(1, 1, {"acc": [[100]]})
    >>> pe.step(activation=[5], weight=[3])
    >>> pe.acc
    [[115]]
    >>> pe.step(activation=[2], weight=[2], swap=[1])
    >>> pe.acc, pe.out
    ([[4]], [[115]])
    """

    def __init__(
        self,
        rows: int,
        cols: int,
        registers: Mapping[str, Sequence] | None = None,
        numbers: Numbers = INT32,
    ) -> None:
        self.rows, self.cols, self.cycle, self.numbers = rows, cols, 0, numbers
        given = registers or {}
        self.activation = self._grid(given, "activation")
        self.weight = self._grid(given, "weight")
        self.acc = self._grid(given, "acc")
        self.out = self._grid(given, "out")
        self.out_pass = self._grid(given, "out_pass")
        self.swap = self._grid(given, "swap")
        self.drain = self._grid(given, "drain")

    def _grid(self, registers: Mapping[str, Sequence], name: str) -> Grid:
        if name not in registers:
            return [[0] * self.cols for _ in range(self.rows)]
        return [[self.numbers.number(value) for value in row] for row in registers[name]]

    def step(
        self,
        *,
        activation: Sequence[int] | None = None,
        swap: Sequence[int] | None = None,
        drain: Sequence[int] | None = None,
        weight: Sequence[int] | None = None,
        out: Sequence[int] | None = None,
    ) -> None:
        """Do one clock edge with these port values; an absent port carries 0.

        Parameters
        ----------
        activation, swap, drain : sequence of int, (rows,)
            West ports.
        weight, out : sequence of int, (cols,)
            North ports.
        """
        west, north = [0] * self.rows, [0] * self.cols
        activation, swap, drain = (west if port is None else port for port in (activation, swap, drain))
        weight, out = (north if port is None else port for port in (weight, out))
        after: dict[str, Grid] = {name: [[0] * self.cols for _ in west] for name in REGISTERS}
        for r in range(self.rows):
            for c in range(self.cols):
                # 1. What arrives: from the left, and from above.
                arriving_activation = self.activation[r][c - 1] if c else self.numbers.number(activation[r])
                arriving_swap = self.swap[r][c - 1] if c else int(swap[r])
                arriving_drain = self.drain[r][c - 1] if c else int(drain[r])
                arriving_weight = self.weight[r - 1][c] if r else self.numbers.number(weight[c])
                arriving_out = self.out_pass[r - 1][c] if r else self.numbers.number(out[c])
                # 2. The delay of the drain chain.
                after["out_pass"][r][c] = self.out[r][c] if arriving_drain else self.out_pass[r][c]
                # 3. A swap takes the sum out and begins another; else the chain moves on.
                if arriving_swap:
                    after["out"][r][c] = self.acc[r][c]
                    begun = 0
                else:
                    after["out"][r][c] = arriving_out if arriving_drain else self.out[r][c]
                    begun = self.acc[r][c]
                # 4. The sum.
                after["acc"][r][c] = self.numbers.add(begun, arriving_activation, arriving_weight)
                # 5. What travels on.
                after["activation"][r][c] = arriving_activation
                after["weight"][r][c] = arriving_weight
                after["swap"][r][c] = arriving_swap
                after["drain"][r][c] = arriving_drain
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
        x : array_like of int, (m, k), m <= rows
        w : array_like of int, (k, n), n <= cols

        Returns
        -------
        y : ndarray of int64 or float64, (m, n)
            The sums read at the bottom row, each on the cycle it stands there.
        cycles : int
            Edges from reset to the last sum.
        """
        m, k, n = len(x), len(w), len(w[0])
        ((begins, ends),) = self.fold_times([(m, k)], self.rows, self.cols)
        feed = self.feed([(begins, ends, m, lambda: (x, w))], self.rows, self.cols)
        y: np.ndarray = np.zeros((m, n), dtype=self.numbers.held)
        last = ends + self.rows - 1 + self.rows - 1 + self.cols - 1
        for t in range(last + 1):
            self.step(**feed.at(t))
            for c in range(n):
                # The bottom row's own sum comes first.
                row = self.rows - 1 - (t - ends - (self.rows - 1) - c)
                if 0 <= row < m:
                    y[row, c] = self.out[self.rows - 1][c]
        return y, last + 1

    @staticmethod
    def fold_times(
        sizes: Iterable[tuple[int, int]], rows: int, cols: int, *, double_buffered: bool = True
    ) -> Iterator[tuple[int, int]]:
        """Yield when folds of so many (rows of x, columns of x) begin and end: the recurrence.

        Yields
        ------
        begins, ends : int
            The cycles at which the swap with a fold's first operands, and the swap that ends it, arrive at
            PE (0, 0).
        """
        begins, drained = 0, 0
        for _, k in sizes:
            # Sums of the previous fold still pass down the chain: rows beats from the swap that ended it.
            ends = max(begins + k, drained)
            yield begins, ends
            if double_buffered:
                begins, drained = ends, ends + rows
            else:
                begins, drained = ends + 2 * rows + cols - 2, 0

    @staticmethod
    def sums_due(ends: int, row: int, rows: int) -> int:
        """Return after the edge of which cycle row `row`'s sum of a fold stands at the bottom of column 0."""
        return ends + (rows - 1 - row) + rows - 1

    @staticmethod
    def feed(folds: Iterable[TimedFold], rows: int, cols: int) -> OutputFeed:
        """Return the port values of folds (begins, ends, m, operands), cycle by cycle."""
        return OutputFeed(folds, rows, cols)

    @classmethod
    def expected_cycles(cls, m: int, k: int, n: int, groups: int, array: Any, parts: int = 1) -> int:
        """Return the cycles of equal products on an array, fold by fold; k is never cut, not into parts."""
        if 0 in (m, k, n):
            return 0
        folds = groups * -(-n // array.cols) * -(-m // array.rows)
        sizes = ((array.rows, k) for _ in range(folds))
        *_, (_, ends) = cls.fold_times(sizes, array.rows, array.cols, double_buffered=array.double_buffered)
        return ends + 2 * array.rows + array.cols - 2


Operands = Callable[[], tuple[Any, Any]]
TimedFold = tuple[int, int, int, Operands]


class OutputFeed:
    """The port values of folds, cycle by cycle, as the clock convention has them.

    Parameters
    ----------
    folds : iterable of (begins, ends, m, operands)
        When a fold begins and ends, its rows of x, and a function that returns x, (m, k), and w, (k, n).
    rows, cols : int
        Size of the array.
    """

    def __init__(self, folds: Iterable[TimedFold], rows: int, cols: int) -> None:
        self.rows, self.cols = rows, cols
        # Local time -> operands and the column of x, row of w, that stream; local times of control bits.
        self._streams: dict[int, tuple[Operands, int]] = {}
        self._swaps: set[int] = set()
        self._drains: set[int] = set()
        for begins, ends, _, operands in folds:
            self._streams |= {begins + i: (operands, i) for i in range(len(operands()[1]))}
            self._swaps |= {begins, ends}
            self._drains |= {ends + beat for beat in range(1, rows)}

    def at(self, t: int) -> dict[str, list[int]]:
        """Return the port values of cycle t."""
        values: dict[str, list[int]] = {"activation": [], "swap": [], "drain": [], "weight": []}
        for r in range(self.rows):
            # Row r's ports run r cycles late.
            value = 0
            if t - r in self._streams:
                operands, i = self._streams[t - r]
                x = operands()[0]
                value = x[r][i] if r < len(x) else 0
            values["activation"].append(value)
            values["swap"].append(int(t - r in self._swaps))
            values["drain"].append(int(t - r in self._drains))
        for c in range(self.cols):
            # Column c's weights run c cycles late.
            value = 0
            if t - c in self._streams:
                operands, i = self._streams[t - c]
                line = operands()[1][i]
                value = line[c] if c < len(line) else 0
            values["weight"].append(value)
        return values
