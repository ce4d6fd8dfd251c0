"""Finds where a wrong sum went wrong: the first register that differs, by (cycle, row, col).

The wrong output's column is replayed in cycle mode beside the reference. The reference steps that
column alone, PE by PE, its ports fed from the operands by the clock convention as it is written;
the array is clocked as the machine clocks it, in one call from reset to the cycle looked at, since
an error may need many cycles in one call to show. Folds that follow are queued too: their weights
move while this fold's rows stream.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from systolic.array import SystolicArray
from systolic.config import REGISTERS, ArrayConfig
from systolic.gemm import operand_name
from systolic.lowered import Lowered
from systolic.machine import operands as read
from systolic.machine import run_cycles
from systolic.reference.pe import ReferenceArray, wrap32
from systolic.tiling import Folds
from systolic.verifier.operands import Operands

# Where several registers of one PE differ, what arrives is blamed before what is made of it.
CAUSES = ("activation", "shift", "swap", "weight", "next_weight", "weight_pass", "psum")


def locate(
    lowered: Lowered, operands: Operands, index: tuple[int, ...], config: ArrayConfig, mode: str
) -> dict[str, Any]:
    """Return stage, fold and, for an error in the array, register, PE and cycle of a wrong sum.

    Parameters
    ----------
    lowered : Lowered
        The product as it was lowered.
    operands : Operands
        The same operands, derived independently.
    index : tuple of int
        Of the wrong sum, in the result.
    config : ArrayConfig
    mode : {"cycle", "wavefront"}
        In which the sum was wrong.

    Returns
    -------
    dict
        Fields of :class:`~systolic.verifier.Mismatch`.
    """
    group, m, n = operands.place(index)
    folds = Folds(lowered.gemm, config)
    here = [
        i for i, f in enumerate(folds)
        if f.group == group and f.m_start <= m < f.m_stop and f.n_start <= n < f.n_stop
    ]  # fmt: skip
    psums = []
    for i in here:
        fold = folds[i]
        ks = np.arange(fold.k_start, fold.k_stop)
        row = operands.rows(group, np.array([m]), ks)
        fed = read.rows(lowered.x, group, m, m + 1, fold.k_start, fold.k_stop)
        if not np.array_equal(fed, row):
            return {"stage": "im2col", "fold": fold}
        column = operands.weights(group, ks, np.array([n]))
        tile = read.tile(lowered.w, group, fold.k_start, fold.k_stop, n, n + 1)
        if not np.array_equal(tile, column):
            return {"stage": "weights", "fold": fold}
        psums.append(wrap32(int((row.astype(np.int64) @ column.astype(np.int64)).item())))
    config = replace(config, activation_dtype=operand_name(lowered.x), weight_dtype=operand_name(lowered.w))
    if mode == "cycle":
        found = _locate_in_array(lowered, operands, folds, here, psums, config, (m, n))
        if found is not None:
            return found
    else:
        # Its products write into the result by themselves: nothing lies between.
        return {"stage": "wavefront product", "fold": folds[here[0]]}
    # Every fold's psum is right: the sum goes wrong on its way, or when it is put into the result.
    drained: list[int] = []

    def watch(its_group: int, m_start: int, n_start: int, sums: np.ndarray) -> None:
        if its_group == group and 0 <= m - m_start < sums.shape[0] and 0 <= n - n_start < sums.shape[1]:
            drained.append(int(sums[m - m_start, n - n_start]))

    run_cycles(lowered, config, drained=watch)
    if drained == [wrap32(sum(psums))]:
        return {"stage": "store", "fold": folds[here[-1]]}
    return {"stage": "accumulators", "fold": folds[here[0]]}


def _locate_in_array(
    lowered: Lowered,
    operands: Operands,
    folds: Folds,
    here: list[int],
    psums: list[int],
    config: ArrayConfig,
    place: tuple[int, int],
) -> dict[str, Any] | None:
    m, n = place
    whole = _Replay(lowered, operands, folds, 0, here[-1], config, n - folds[here[0]].n_start)
    sums = whole.sums(here, m)
    wrong = [i for i, got, expected in zip(here, sums, psums, strict=True) if got != expected]
    if not wrong:
        return None
    number = wrong[0]
    # The fold before and this one may show it; else it takes the whole sequence.
    near = _Replay(lowered, operands, folds, max(number - 1, 0), number, config, whole.col)
    replay = near if near.sums([number], m) != [psums[here.index(number)]] else whole
    found = replay.first_difference(number, m)
    if found is None:
        return {"stage": "array", "fold": folds[number]}
    cycle, row, register, got, expected = found
    return {
        "stage": "array",
        "fold": folds[number],
        "register": register,
        "pe": (row, replay.col),
        "cycle": cycle,
        "register_got": got,
        "register_expected": expected,
    }


@dataclass(frozen=True)
class _Beat:
    # What stands at PE (0, 0)'s ports at one local time.
    fold: int
    row: int


class _Replay:
    """Folds `first` to `last` from reset, and what follows them on the array at once."""

    def __init__(
        self,
        lowered: Lowered,
        operands: Operands,
        folds: Folds,
        first: int,
        last: int,
        config: ArrayConfig,
        col: int,
    ) -> None:
        self.lowered, self.operands, self.config, self.first, self.col = lowered, operands, config, first, col
        end = folds[last].swap_cycle + folds[last].m + config.rows + config.cols
        stop = last + 1
        while stop < len(folds) and folds[stop].shift_cycle < end:
            stop += 1
        self.folds = folds[first:stop]
        # The times, from the recurrence as it is written.
        self.shifts, self.swaps = [0], [config.rows]
        for before in self.folds[:-1]:
            over = self.swaps[-1] + before.m
            shift = self.swaps[-1] if config.double_buffered else over + config.rows + config.cols - 2
            self.shifts.append(shift)
            self.swaps.append(max(shift + config.rows, over))
        # Replayed later folds begin with their own shift, which may have ended long before the swap.
        self.offset = self.folds[0].swap_cycle - config.rows
        self._reference = ReferenceArray(config.rows, 1)
        self._history: list[dict[str, np.ndarray]] = []
        # Local time -> (fold, beat) for shifts and rows.
        self._shift_beats = {
            s + b: _Beat(i, b) for i, s in enumerate(self.shifts) for b in range(config.rows)
        }
        self._row_beats = {
            s + b: _Beat(i, b) for i, s in enumerate(self.swaps) for b in range(self.folds[i].m)
        }
        self._operands: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def sums(self, numbers: list[int], m: int) -> list[int]:
        """Return the psums that leave the column in these folds for row m of x."""
        got: dict[int, int] = {}

        def sink(number: int) -> Any:
            def take(row: int, psums: np.ndarray) -> None:
                wanted = m - self.folds[number - self.first].m_start - row
                if 0 <= wanted < len(psums):
                    got[number] = int(psums[wanted, self.col])

            return take

        array = self._array({number: sink(number) for number in numbers})
        last = numbers[-1] - self.first
        array.run(self._due(last, self.folds[last].m_stop - 1) + 1 + self.config.cols - self.col)
        return [got[number] for number in numbers]

    def _due(self, fold: int, m: int) -> int:
        # The cycle after whose edge the psum of row m of x stands at the bottom of the column.
        return self.swaps[fold] + (m - self.folds[fold].m_start) + self.config.rows - 1 + self.col

    def first_difference(self, number: int, m: int) -> tuple[int, int, str, int, int] | None:
        """Return (cycle, row, register, got, expected) of the first difference up to the edge after
        which the psum of row m of x stands at the bottom, if the registers differ then."""
        cycle = self._due(number - self.first, m)
        while len(self._history) <= cycle:
            self._step_reference()
        if self._difference(cycle) is None:
            return None
        equal, different = -1, cycle
        while different - equal > 1:
            middle = (equal + different) // 2
            if self._difference(middle) is None:
                equal = middle
            else:
                different = middle
        difference = self._difference(different)
        assert difference is not None
        return (different + self.offset, *difference)

    def _array(self, sinks: dict[int, Any]) -> SystolicArray:
        array = SystolicArray(self.config)
        for i, fold in enumerate(self.folds):
            tile = read.tile(self.lowered.w, fold.group, fold.k_start, fold.k_stop, fold.n_start, fold.n_stop)
            array._queue_fold(
                tile, read.TileRows(self.lowered.x, fold), sinks.get(self.first + i, lambda row, psums: None)
            )
        return array

    def _difference(self, cycle: int) -> tuple[int, str, int, int] | None:
        registers = self._array({}).run(cycle + 1).registers
        found = []
        for name in REGISTERS:
            got = registers[name][:, self.col].astype(np.int64)
            expected = self._history[cycle][name]
            for row in np.flatnonzero(got != expected):
                found.append((int(row), name, int(got[row]), int(expected[row])))
        return min(found, key=lambda f: (f[0], CAUSES.index(f[1]))) if found else None

    def _fed(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        # The rows of x that a fold streams, and its weights in the column.
        if number not in self._operands:
            f = self.folds[number]
            ks = np.arange(f.k_start, f.k_stop)
            x = self.operands.rows(f.group, np.arange(f.m_start, f.m_stop), ks)
            w = self.operands.weights(f.group, ks, np.array([min(f.n_start + self.col, f.n_stop - 1)]))
            self._operands[number] = x, w
        return self._operands[number]

    def _step_reference(self) -> None:
        t, rows, col = len(self._history), self.config.rows, self.col
        activation, shift, swap = [], [], []
        for r in range(rows):
            # PE (r, col) does on cycle t what PE (0, 0) did at t - r - col.
            local = t - r - col
            beat = self._row_beats.get(local)
            x = self._fed(beat.fold)[0] if beat else None
            activation.append(int(x[beat.row, r]) if beat and x is not None and r < x.shape[1] else 0)
            shift.append(int(local in self._shift_beats))
            swap.append(int(beat is not None and beat.row == 0))
        weight = 0
        down = self._shift_beats.get(t - col)
        if down is not None:
            w = self._fed(down.fold)[1]
            row = rows - 1 - down.row  # the tile enters bottom row first
            if row < len(w) and col < self.folds[down.fold].n:
                weight = int(w[row, 0])
        self._reference.step(activation=activation, shift=shift, swap=swap, weight=[weight])
        self._history.append({name: values[:, 0] for name, values in self._reference.registers().items()})
