"""Cycle mode: every register of every PE at every edge, as the port queues are filled and sums drained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np

from systolic.array import SystolicArray
from systolic.array.workspace import workspace
from systolic.config import ArrayConfig
from systolic.dataflows import Dataflow
from systolic.gemm import Progress
from systolic.lowered import Lowered
from systolic.machine import operands
from systolic.machine.accumulators import Accumulators
from systolic.machine.epilogue import apply_epilogue
from systolic.machine.execution import Execution, planned
from systolic.machine.one_fold import is_small, run_one_fold
from systolic.tiling import Fold, Schedule, schedule, sizes_of
from systolic.trace import Probe

# How far ahead of the clock folds are queued, in PE-cycles and in cycles.
_AHEAD_PE_CYCLES = 1 << 27
_AHEAD_CYCLES = 1 << 14

Store = Callable[[int, int, int, np.ndarray], None]
"""Called as store(group, m_start, n_start, sums) with sums that have left the accumulators, int32 (m, n)."""


def run_cycles(
    lowered: Lowered,
    config: ArrayConfig,
    *,
    workers: int = 1,
    report: Progress | None = None,
    probes: Sequence[Probe] = (),
    drained: Store | None = None,
) -> Execution:
    """Run lowered work on the array edge by edge, and count the edges.

    Parameters
    ----------
    lowered : Lowered
    config : ArrayConfig
        Sizes; operand types come from the operands.
    workers : int
        Threads.
    report : callable, optional
        Gets (done, total) cycles as work goes on.
    probes : sequence of Probe
        Of the array.
    drained : callable, optional
        Gets sums as they leave the accumulators: see :data:`Store`.
    """
    started = perf_counter()
    config, stats = planned(lowered.gemm, config, lowered.x.dtype, lowered.w.dtype)
    acc = operands.result_array(lowered, config.format.sum)
    store: Store = partial(operands.store, lowered, acc)
    if drained is not None:
        store = partial(_each_in_turn, (drained, store))
    cycles = stats.cycles
    if cycles == 0:  # there is nothing to add: sums are zeros from the start
        for probe in probes:
            probe.attach(config)
    elif report is None and drained is None and not probes and is_small(lowered.gemm, config, cycles):
        run_one_fold(lowered, config, cycles, store)
    else:
        plan = schedule(lowered.gemm, config)
        half = sizes_of(lowered.gemm, config).chunk
        # Memory that is new to the process costs a third of a fold's time.
        with workspace() as memory:
            accumulators = Accumulators(half, config.cols, memory, config.format)
            cycles = _run_folds(lowered, config, plan, workers, report, probes, accumulators, store)
    seconds = perf_counter() - started
    if cycles != stats.cycles:
        stats = replace(stats, cycles=cycles, pe_cycles=config.rows * config.cols * cycles)
    return Execution(apply_epilogue(lowered, acc), stats, seconds, config)


def _each_in_turn(stores: tuple[Store, ...], *sums: Any) -> None:
    for store in stores:
        store(*sums)


def _run_folds(
    lowered: Lowered, config: ArrayConfig, plan: Schedule, workers: int,
    report: Progress | None, probes: Sequence[Probe], accumulators: Accumulators, store: Store,
) -> int:  # fmt: skip
    """Clock all folds from reset, each when the schedule says, and return the edges that this took."""
    array, dataflow = SystolicArray(config, probe=probes), config.dataflow_record
    for probe in probes:
        probe.reserve(0, plan.cycles)
    ahead = max(1, min(_AHEAD_CYCLES, _AHEAD_PE_CYCLES // (config.rows * config.cols)))
    queued = 0
    while queued < len(plan.folds) or array.cycle < plan.cycles:
        due = plan.cycles
        while queued < len(plan.folds):
            fold = plan.folds[queued]
            if fold.shift_cycle > array.cycle + ahead:
                due = fold.shift_cycle
                break
            _queue(array, dataflow, lowered, fold, plan.half(queued), accumulators, store)
            queued += 1
        while array.cycle < due:
            array.run(min(ahead, due - array.cycle), threads=workers)
            if report is not None:
                report(array.cycle, plan.cycles)
    return array.run(threads=workers).cycle


def _queue(
    array: SystolicArray, dataflow: Dataflow, lowered: Lowered, fold: Fold, half: int,
    accumulators: Accumulators, store: Store,
) -> None:  # fmt: skip
    first, last = fold.k_start == 0, fold.k_stop == lowered.gemm.k * lowered.gemm.pack
    # Where x and w change places, columns of the product leave as rows; held sums leave last row first.
    held = dataflow.held
    rows, cols = (fold.n, fold.m) if dataflow.exchanged else (fold.m, fold.n)

    def collect(row: int, sums: np.ndarray) -> None:
        accumulators.write(half, row, sums, first=first)
        if last and (row == 0 if held else row + len(sums) == rows):
            finished = dataflow.oriented(accumulators.drain(half, rows, cols))
            store(fold.group, fold.m_start, fold.n_start, finished)

    times = fold.shift_cycle, fold.swap_cycle
    array.queue_fold(*operands.fold_operands(dataflow, lowered, fold), collect, not_before=times)
