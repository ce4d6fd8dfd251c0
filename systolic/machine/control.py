"""Runs a product on the array: keeps the port queues filled, clocks, drains the accumulators."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from systolic.array import SystolicArray
from systolic.config import ArrayConfig
from systolic.gemm import Product, Progress
from systolic.machine.accumulators import Accumulators
from systolic.machine.one_fold import is_small, run_one_fold
from systolic.tiling import Fold, Folds, estimate_gemm
from systolic.trace.recording import Trace

MODES = ("cycle", "wavefront")

# How far ahead of the clock folds are queued, in PE-cycles and in cycles.
_AHEAD_PE_CYCLES = 1 << 27
_AHEAD_CYCLES = 1 << 14


def run_product(
    product: Product,
    config: ArrayConfig,
    *,
    mode: str,
    workers: int,
    report: Progress | None = None,
    trace: Trace | None = None,
) -> int:
    """Compute a product's sums, store them through `product.store`, and return its cycles.

    Parameters
    ----------
    product : Product
    config : ArrayConfig
        Sizes; operand types come from the product.
    mode : {"cycle", "wavefront"}
        Step every register through every cycle and count the edges; or compute in local time,
        where the array is a plain product, with the cycles in closed form.
    workers : int
        Threads.
    report : callable, optional
        Gets (done, total) cycles or rows as work goes on.
    trace : Trace, optional
        Records the array; only in cycle mode.
    """
    cycles = estimate_gemm(product.gemm, config).cycles
    if mode == "wavefront":
        run_wavefront(product, workers, report)
        return cycles
    if cycles == 0:
        return 0  # nothing to add: sums are zeros from the start
    if report is None and trace is None and is_small(product, config, cycles):
        return run_one_fold(product, config, cycles)
    return _run_cycles(product, config, workers, report, trace)


@dataclass(frozen=True)
class TileRows:
    """The rows of x that one fold streams, lowered when they are read."""

    product: Product
    fold: Fold

    @property
    def shape(self) -> tuple[int, int]:
        return self.fold.m, self.fold.k

    def __getitem__(self, rows: slice) -> np.ndarray:
        f = self.fold
        return self.product.rows(f.group, f.m_start + rows.start, f.m_start + rows.stop, f.k_start, f.k_stop)


def _run_cycles(
    product: Product, config: ArrayConfig, workers: int, report: Progress | None, trace: Trace | None
) -> int:
    gemm = product.gemm
    typed = replace(config, activation_dtype=product.activation_dtype, weight_dtype=product.weight_dtype)
    array = SystolicArray(typed, trace=trace)
    folds = Folds(gemm, config)
    accumulators = Accumulators(config.chunk_rows or gemm.m, config.cols)
    total = estimate_gemm(gemm, config).cycles
    if trace is not None:
        trace.reserve(0, total)
    ahead = max(1, min(_AHEAD_CYCLES, _AHEAD_PE_CYCLES // (config.rows * config.cols)))
    k_tiles = -(-gemm.k // config.rows)
    queued = 0
    while array.cycle < total:
        due = total
        while queued < len(folds):
            fold = folds[queued]
            if fold.shift_cycle > array.cycle + ahead:
                due = fold.shift_cycle
                break
            _queue(array, product, fold, queued // k_tiles % 2, accumulators)
            queued += 1
        while array.cycle < due:
            array.run(min(ahead, due - array.cycle), threads=workers)
            if report is not None:
                report(array.cycle, total)
    return array.cycle


def _queue(array: SystolicArray, product: Product, fold: Fold, half: int, accumulators: Accumulators) -> None:
    first, last = fold.k_start == 0, fold.k_stop == product.gemm.k

    def collect(row: int, psums: np.ndarray) -> None:
        accumulators.write(half, row, psums, first=first)
        if last and row + len(psums) == fold.m:
            product.store(fold.group, fold.m_start, fold.n_start, accumulators.drain(half, fold.m, fold.n))

    tile = product.tile(fold.group, fold.k_start, fold.k_stop, fold.n_start, fold.n_stop)
    due = array._queue_fold(tile, TileRows(product, fold), collect)
    if due != (fold.shift_cycle, fold.swap_cycle):
        # Two derivations of the same times: the array's rules and the closed form.
        raise RuntimeError(f"{fold} was queued at shift {due[0]}, swap {due[1]}; please report this")


# Work between two looks at progress and Ctrl-C, as `Product.work` counts it: a tenth of a second or less.
_PIECE_WORK = 1 << 32

# Below this much work, other threads cost more than they save.
_WORTH_A_THREAD = 1 << 21


def run_wavefront(product: Product, workers: int, report: Progress | None) -> None:
    """Compute a product's sums as plain products: :func:`run_product` where cycles are known."""
    work = product.work
    if work <= _PIECE_WORK:
        if work:
            product.compute(workers if work >= _WORTH_A_THREAD else 1)
        if report is not None:
            report(product.gemm.sums, product.gemm.sums)
        return
    done = 0
    for piece in product.pieces(-(-work // _PIECE_WORK)):
        piece.compute(workers)
        if report is not None:
            done += piece.size
            report(done, product.gemm.sums)
