"""Finds where a wrong sum went wrong: the first register that differs, by (cycle, row, col).

The wrong output's column is replayed in cycle mode beside the reference. The reference steps that
column alone, PE by PE, its ports fed from the operands by the clock convention as it is written;
the array is clocked as the machine clocks it, in one call from reset to the cycle looked at, since
an error may need many cycles in one call to show. Folds that follow are queued too: their weights
move while this fold's rows stream.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import cache, partial
from typing import Any

import numpy as np

from systolic.array import SystolicArray
from systolic.config import ArrayConfig
from systolic.dataflows import Register
from systolic.formats import as_numbers, differ
from systolic.lowered import Lowered
from systolic.machine import operands as read
from systolic.machine import run_cycles
from systolic.reference import Numbers, Operands
from systolic.tiling import Fold, Folds


def causes(config: ArrayConfig) -> list[str]:
    """Return the registers in the order they are blamed if several of one PE differ: inputs first."""

    def stage(register: Register) -> int:
        return 2 if register.holds == "sum" else register.moves != "right"

    return [register.name for register in sorted(config.dataflow_record.registers, key=stage)]


def arithmetic(config: ArrayConfig) -> Numbers:
    """Return the reference's arithmetic of an array."""
    numbers = config.format
    return Numbers(numbers.is_float, numbers.psum_bits, numbers.saturates)


def locate(
    lowered: Lowered, operands: Operands, index: tuple[int, ...], config: ArrayConfig, mode: str
) -> dict[str, Any]:
    """Return stage, fold and, for an error in the array, register, PE and cycle of a wrong sum.

    They are fields of :class:`~systolic.verifier.Mismatch`. `index` is that of the sum in the result; the
    operands are those of the lowered product, derived independently.
    """
    group, m, n = operands.place(index)
    config = config.for_operands(lowered.x.dtype, lowered.w.dtype)
    numbers = arithmetic(config)
    folds, layout = Folds(lowered.gemm, config), read.layout_of(lowered)
    here = [
        i for i, f in enumerate(folds)
        if f.group == group and f.m_start <= m < f.m_stop and f.n_start <= n < f.n_stop
    ]  # fmt: skip
    psums = []
    for i in here:
        fold = folds[i]
        ks = np.arange(fold.k_start, fold.k_stop)
        row = operands.rows(group, np.array([m]), ks)
        fed = read.rows(lowered.x, group, m, m + 1, fold.k_start, fold.k_stop, layout)
        if differ(as_numbers(fed), as_numbers(row)).any():
            return {"stage": "im2col", "fold": fold}
        column = operands.weights(group, ks, np.array([n]))
        tile = read.tile(lowered.w, group, fold.k_start, fold.k_stop, n, n + 1, layout)
        if differ(as_numbers(tile), as_numbers(column)).any():
            return {"stage": "weights", "fold": fold}
        psums.append(numbers.product(row.tolist(), column.tolist(), len(ks)).item())
    if mode == "cycle":
        found = _locate_in_array(lowered, operands, folds, here, psums, config, (m, n))
        if found is not None:
            return found
    else:
        # Its products write into the result by themselves: nothing lies between.
        return {"stage": "wavefront product", "fold": folds[here[0]]}
    # Every fold's psum is right: the sum goes wrong on its way, or when it is put into the result.
    drained: list[float] = []

    def watch(its_group: int, m_start: int, n_start: int, sums: np.ndarray) -> None:
        if its_group == group and 0 <= m - m_start < sums.shape[0] and 0 <= n - n_start < sums.shape[1]:
            drained.append(sums[m - m_start, n - n_start].item())

    run_cycles(lowered, config, drained=watch)
    total = psums[0]
    for psum in psums[1:]:
        total = numbers.accumulate(total, psum)
    if len(drained) == 1 and _same(drained[0], total):
        return {"stage": "store", "fold": folds[here[-1]]}
    return {"stage": "accumulators", "fold": folds[here[0]]}


def _same(a: float, b: float) -> bool:
    return a == b or (a != a and b != b)


def _locate_in_array(
    lowered: Lowered,
    operands: Operands,
    folds: Folds,
    here: list[int],
    psums: list[float],
    config: ArrayConfig,
    place: tuple[int, int],
) -> dict[str, Any] | None:
    line, col = _on_array(config, folds[here[0]], *place)
    whole = _Replay(lowered, operands, folds, 0, here[-1], config, col)
    sums = whole.sums(here, line)
    wrong = [i for i, got, expected in zip(here, sums, psums, strict=True) if not _same(got, expected)]
    if not wrong:
        return None
    number = wrong[0]
    # The fold before and this one may show it; else it takes the whole sequence.
    near = _Replay(lowered, operands, folds, max(number - 1, 0), number, config, whole.col)
    replay = whole if _same(near.sums([number], line)[0], psums[here.index(number)]) else near
    found = replay.first_difference(number, line)
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


def _on_array(config: ArrayConfig, fold: Fold, m: int, n: int) -> tuple[int, int]:
    """Return the row of a fold's sums, and the column of the array, that hold a sum of the product."""
    row, col = m - fold.m_start, n - fold.n_start
    return (col, row) if config.dataflow_record.exchanged else (row, col)


class _Replay:
    """Folds `first` to `last` from reset, and those that are on the array with them."""

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
        sizes = config.rows, config.cols
        end = folds[last].swap_cycle + max(self._rows_of(folds[last]), config.rows) + sum(sizes)
        stop = last + 1
        while stop < len(folds) and folds[stop].shift_cycle < end:
            stop += 1
        self.folds = folds[first:stop]
        reference: Any = config.dataflow_record.reference
        lengths = [(self._rows_of(f), f.k) for f in self.folds]
        self.times = list(reference.fold_times(lengths, *sizes, double_buffered=config.double_buffered))
        self._reference = reference(config.rows, 1, numbers=arithmetic(config))
        self._history: list[dict[str, np.ndarray]] = []
        timed = [
            (*time, self._rows_of(fold), cache(partial(self._fed, i)))
            for i, (time, fold) in enumerate(zip(self.times, self.folds, strict=True))
        ]
        self._feed = reference.feed(timed, config.rows, 1)

    def _rows_of(self, fold: Fold) -> int:
        # How many rows of sums a fold has.
        return fold.n if self.config.dataflow_record.exchanged else fold.m

    def sums(self, numbers: list[int], line: int) -> list[float]:
        """Return the sums that leave the column in these folds in row `line`."""
        got: dict[int, float] = {}

        def sink(number: int) -> Any:
            def take(row: int, psums: np.ndarray) -> None:
                if 0 <= line - row < len(psums):
                    got[number] = psums[line - row, self.col].item()

            return take

        array = self._array({number: sink(number) for number in numbers})
        last = numbers[-1] - self.first
        due = max(self._due(last, 0), self._due(last, self._rows_of(self.folds[last]) - 1))
        array.run(due + 1 + self.config.cols - self.col)
        return [got[number] for number in numbers]

    def _due(self, fold: int, line: int) -> int:
        # The cycle after whose edge the sum of row `line` stands at the bottom of the column.
        reference: Any = self.config.dataflow_record.reference
        due: int = reference.sums_due(self.times[fold][1], line, self.config.rows)
        return due + self.col

    def first_difference(self, number: int, line: int) -> tuple[int, int, str, float, float] | None:
        """Return (cycle, row, register, got, expected) of the first difference up to the edge after
        which the sum of row `line` stands at the bottom, if the registers differ then."""
        cycle = self._due(number - self.first, line)
        # A replay begins with its first fold, and from there on takes as long as the whole sequence.
        offset = self.folds[number - self.first].swap_cycle - self.times[number - self.first][1]
        while len(self._history) <= cycle:
            self._step_reference()
        if self._difference(cycle) is None:
            return None
        first = bisect_left(range(cycle), True, key=lambda cycle: self._difference(cycle) is not None)
        difference = self._difference(first)
        assert difference is not None
        return (first + offset, *difference)

    def _array(self, sinks: dict[int, Any]) -> SystolicArray:
        array = SystolicArray(self.config)
        for i, fold in enumerate(self.folds):
            sink = sinks.get(self.first + i, lambda row, psums: None)
            fed = read.fold_operands(self.config.dataflow_record, self.lowered, fold)
            array.queue_fold(*fed, sink, not_before=self.times[i])
        return array

    def _difference(self, cycle: int) -> tuple[int, str, float, float] | None:
        registers = self._array({}).run(cycle + 1).registers
        found = []
        for name, values in registers.items():
            got = as_numbers(values[:, self.col])
            expected = self._history[cycle][name]
            for row in np.flatnonzero(differ(got, expected)).tolist():
                found.append((row, name, got[row].item(), expected[row].item()))
        order = causes(self.config)
        return min(found, key=lambda f: (f[0], order.index(f[1]))) if found else None

    def _fed(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        # The rows of x that a fold streams, and its weights in the column: of w and x if they change places.
        f = self.folds[number]
        ks, ms, ns = (np.arange(*ends) for ends in (
            (f.k_start, f.k_stop), (f.m_start, f.m_stop), (f.n_start, f.n_stop)
        ))  # fmt: skip
        # A column beyond a short tile gets nothing.
        here = slice(self.col, self.col + 1)
        if self.config.dataflow_record.exchanged:
            return self.operands.weights(f.group, ks, ns).T, self.operands.rows(f.group, ms[here], ks).T
        return self.operands.rows(f.group, ms, ks), self.operands.weights(f.group, ks, ns[here])

    def _step_reference(self) -> None:
        # Column c sees on cycle t what column 0 saw on cycle t - c.
        self._reference.step(**self._feed.at(len(self._history) - self.col))
        self._history.append({name: values[:, 0] for name, values in self._reference.registers().items()})
