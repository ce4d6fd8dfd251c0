"""Finds where a wrong sum went wrong: the first register that differs, by (cycle, row, col).

The wrong output's column is replayed in cycle mode beside the reference. The reference steps that
column alone, PE by PE, its ports fed from the operands by the clock convention as it is written;
the array is clocked as the machine clocks it, in one call from reset to the cycle looked at, since
an error may need many cycles in one call to show.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from systolic.array import SystolicArray
from systolic.config import REGISTERS, ArrayConfig
from systolic.gemm import Product
from systolic.machine.control import _TileRows
from systolic.reference.pe import ReferenceArray
from systolic.tiling import Fold, Folds
from systolic.verifier.operands import Operands

# Longer sequences are replayed from one fold before the wrong sum's first.
_WHOLE_SEQUENCE_CYCLES = 20_000


def locate(
    product: Product, operands: Operands, index: tuple[int, ...], config: ArrayConfig, mode: str
) -> dict[str, Any]:
    """Return stage, fold and, for an error in the array, register, PE and cycle of a wrong sum.

    Parameters
    ----------
    product : Product
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
    folds = Folds(product.gemm, config)
    here = [
        i for i, f in enumerate(folds)
        if f.group == group and f.m_start <= m < f.m_stop and f.n_start <= n < f.n_stop
    ]  # fmt: skip
    for i in here:
        fold = folds[i]
        ks = np.arange(fold.k_start, fold.k_stop)
        fed = product.rows(group, m, m + 1, fold.k_start, fold.k_stop)
        if not np.array_equal(fed, operands.rows(group, np.array([m]), ks)):
            return {"stage": "im2col", "fold": fold}
        tile = product.tile(group, fold.k_start, fold.k_stop, n, n + 1)
        if not np.array_equal(tile, operands.weights(group, ks, np.array([n]))):
            return {"stage": "weights", "fold": fold}
    last = folds[here[-1]]
    first = 0 if last.swap_cycle <= _WHOLE_SEQUENCE_CYCLES else max(here[0] - 1, 0)
    config = replace(config, activation_dtype=product.activation_dtype, weight_dtype=product.weight_dtype)
    replay = _Replay(product, operands, folds[first : here[-1] + 1], config, n - last.n_start)
    for fold, swap in zip(replay.folds, replay.swaps, strict=True):
        if fold in [folds[i] for i in here]:
            found = replay.first_difference(swap + (m - fold.m_start) + config.rows - 1 + replay.col)
            if found is not None:
                cycle, row, register, got, expected = found
                return {
                    "stage": "array",
                    "fold": fold,
                    "register": register,
                    "pe": (row, replay.col),
                    "cycle": cycle + folds[first].shift_cycle,
                    "register_got": got,
                    "register_expected": expected,
                }
    return {"stage": "accumulators" if mode == "cycle" else "wavefront product", "fold": folds[here[0]]}


@dataclass(frozen=True)
class _Beat:
    # What stands at PE (0, 0)'s ports at one local time.
    fold: int
    row: int


class _Replay:
    def __init__(
        self, product: Product, operands: Operands, folds: tuple[Fold, ...], config: ArrayConfig, col: int
    ) -> None:
        self.product, self.operands, self.folds, self.config, self.col = product, operands, folds, config, col
        # The times, from the recurrence as it is written.
        self.shifts, self.swaps = [0], [config.rows]
        for before in folds[:-1]:
            end = self.swaps[-1] + before.m
            shift = self.swaps[-1] if config.double_buffered else end + config.rows + config.cols - 2
            self.shifts.append(shift)
            self.swaps.append(max(shift + config.rows, end))
        self.x = [
            operands.rows(f.group, np.arange(f.m_start, f.m_stop), np.arange(f.k_start, f.k_stop))
            for f in folds
        ]
        self.w = [
            operands.weights(
                f.group, np.arange(f.k_start, f.k_stop), np.array([min(f.n_start + col, f.n_stop - 1)])
            )
            for f in folds
        ]
        self._reference = ReferenceArray(config.rows, 1)
        self._history: list[dict[str, np.ndarray]] = []
        # Local time -> (fold, beat) for shifts and rows.
        self._shift_beats = {
            s + b: _Beat(i, b) for i, s in enumerate(self.shifts) for b in range(config.rows)
        }
        self._row_beats = {s + b: _Beat(i, b) for i, s in enumerate(self.swaps) for b in range(folds[i].m)}

    def first_difference(self, cycle: int) -> tuple[int, int, str, int, int] | None:
        """Return (cycle, row, register, got, expected) of the first difference up to a cycle's
        edge, if the registers differ after it."""
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
        return (different, *difference)

    def _difference(self, cycle: int) -> tuple[int, str, int, int] | None:
        array = SystolicArray(self.config)
        for fold in self.folds:
            tile = self.product.tile(fold.group, fold.k_start, fold.k_stop, fold.n_start, fold.n_stop)
            array._queue_fold(tile, _TileRows(self.product, fold), lambda row, psums: None)
        registers = array.run(cycle + 1).registers
        found = []
        for name in REGISTERS:
            got = registers[name][:, self.col].astype(np.int64)
            expected = self._history[cycle][name]
            for row in np.flatnonzero(got != expected):
                found.append((int(row), name, int(got[row]), int(expected[row])))
        return min(found, key=lambda f: f[0]) if found else None

    def _step_reference(self) -> None:
        t, rows, col = len(self._history), self.config.rows, self.col
        activation, shift, swap = [], [], []
        for r in range(rows):
            # PE (r, col) does on cycle t what PE (0, 0) did at t - r - col.
            local = t - r - col
            beat = self._row_beats.get(local)
            x = self.x[beat.fold] if beat else None
            activation.append(int(x[beat.row, r]) if beat and x is not None and r < x.shape[1] else 0)
            shift.append(int(local in self._shift_beats))
            swap.append(int(beat is not None and beat.row == 0))
        weight = 0
        down = self._shift_beats.get(t - col)
        if down is not None:
            w = self.w[down.fold]
            row = rows - 1 - down.row  # the tile enters bottom row first
            fold = self.folds[down.fold]
            if row < len(w) and col < fold.n:
                weight = int(w[row, 0])
        self._reference.step(activation=activation, shift=shift, swap=swap, weight=[weight])
        self._history.append({name: values[:, 0] for name, values in self._reference.registers().items()})
