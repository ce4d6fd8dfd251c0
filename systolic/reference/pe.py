"""The slow, obvious twin of the array: PE by PE, in Python integers, as the rules are written.

Nothing here is clever, and nothing here is shared with the kernel, the port scheduling or the
tiling that it checks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

REGISTERS = ("weight", "next_weight", "weight_pass", "activation", "psum", "shift", "swap")

Grid = list[list[int]]


def wrap32(value: int) -> int:
    """Return `value` modulo 2^32 as a signed 32-bit integer."""
    return (value + 2**31) % 2**32 - 2**31


class ReferenceArray:
    """A `rows` x `cols` weight-stationary array of PEs, each register a Python integer.

    Parameters
    ----------
    rows, cols : int
        Size of the array.
    registers : mapping of str to array_like, (rows, cols), optional
        Values of the seven registers to start from; 0 where absent.

    Attributes
    ----------
    weight, next_weight, weight_pass, activation, psum, shift, swap : list of list of int
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

    def __init__(self, rows: int, cols: int, registers: Mapping[str, Sequence] | None = None) -> None:
        self.rows, self.cols, self.cycle = rows, cols, 0
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
        return [[int(value) for value in row] for row in registers[name]]

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
        west = [0] * self.rows
        north = [0] * self.cols
        activation, shift, swap = activation or west, shift or west, swap or west
        weight, psum = weight or north, psum or north
        after: dict[str, Grid] = {name: [[0] * self.cols for _ in west] for name in REGISTERS}
        for r in range(self.rows):
            for c in range(self.cols):
                # 1. What arrives: from the left, and from above.
                arriving_activation = self.activation[r][c - 1] if c else int(activation[r])
                arriving_shift = self.shift[r][c - 1] if c else int(shift[r])
                arriving_swap = self.swap[r][c - 1] if c else int(swap[r])
                arriving_weight = self.weight_pass[r - 1][c] if r else int(weight[c])
                arriving_psum = self.psum[r - 1][c] if r else int(psum[c])
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
                after["psum"][r][c] = wrap32(arriving_psum + used * arriving_activation)
                # 5. What travels on.
                after["activation"][r][c] = arriving_activation
                after["shift"][r][c] = arriving_shift
                after["swap"][r][c] = arriving_swap
        for name, grid in after.items():
            setattr(self, name, grid)
        self.cycle += 1

    def registers(self) -> dict[str, np.ndarray]:
        """Return the registers as int64 arrays, (rows, cols)."""
        return {
            name: np.array(getattr(self, name), dtype=np.int64).reshape(self.rows, self.cols)
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
        y : ndarray of int64, (m, n)
            The sums read at the bottom row, each on the cycle it stands there.
        cycles : int
            Edges from reset to the last sum.
        """
        x = [[int(v) for v in row] for row in x]
        w = [[int(v) for v in row] for row in w]
        m, k, n = len(x), len(w), len(w[0])
        rows, cols = self.rows, self.cols
        swap_at = rows
        y = np.zeros((m, n), dtype=np.int64)
        last = swap_at + m - 1 + rows - 1 + cols - 1
        for t in range(last + 1):
            ports: dict[str, list[int]] = {"activation": [], "shift": [], "swap": [], "weight": []}
            for r in range(rows):
                # Row r's ports run r cycles late.
                index = t - r - swap_at
                ports["activation"].append(x[index][r] if 0 <= index < m and r < k else 0)
                ports["shift"].append(int(0 <= t - r < rows))
                ports["swap"].append(int(index == 0))
            for c in range(cols):
                # Column c's weights run c cycles late; the tile enters bottom row first.
                row = rows - 1 - (t - c)
                ports["weight"].append(w[row][c] if 0 <= row < k and c < n else 0)
            self.step(**ports)
            for c in range(n):
                index = t - swap_at - (rows - 1) - c
                if 0 <= index < m:
                    y[index, c] = self.psum[rows - 1][c]
        return y, last + 1
