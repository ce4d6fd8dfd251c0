"""A product that is a single small fold, clocked from an idle array in one call, without queues.

For products of a few PEs the queues of :class:`~systolic.SystolicArray`, its states between two runs
and the accumulators cost far more than the clock edges: an 8 x 8 x 8 product on 8 x 8 takes 12 times as
long with them, one of 32 on 32 x 32 eight times, of 64 on 64 x 64 three times (AMD EPYC, AVX-512 VNNI;
``pytest bench/bench_engine.py -k one_small_fold`` measures it). The edges are the same, each register on
each of them; ``tests/machine/test_machine.py`` holds this path against the other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from systolic import _core
from systolic.config import ArrayConfig
from systolic.dataflows import WEIGHT_STATIONARY
from systolic.formats import operand_name
from systolic.gemm import Gemm
from systolic.lowered import Lowered
from systolic.machine import operands

# Above this many PE-cycles the saving is negligible.
_SMALL_PE_CYCLES = 1 << 20


def is_small(gemm: Gemm, config: ArrayConfig, cycles: int) -> bool:
    """Whether a product is one weight-stationary fold, of few enough cycles."""
    return (
        config.dataflow_record is WEIGHT_STATIONARY
        and config.format.is_plain
        and gemm.groups == gemm.taps == 1
        and gemm.k <= config.rows
        and gemm.n <= config.cols
        and (config.chunk_rows is None or gemm.m <= config.chunk_rows)
        and config.rows * config.cols * cycles <= _SMALL_PE_CYCLES
    )


def run_one_fold(lowered: Lowered, config: ArrayConfig, cycles: int, store: Callable[..., None]) -> None:
    """Clock a single fold from reset through `cycles` edges and store its sums: ``store(0, 0, 0, sums)``."""
    gemm, rows, cols = lowered.gemm, config.rows, config.cols
    m, k, n = gemm.m, gemm.k, gemm.n
    # Local time tau, what PE (0, 0) sees on cycle tau, stands at index tau + lead: see
    # array/skew.py. The tile enters on 0..rows-1, bottom row first; x follows its swap.
    north = cycles + cols - 1
    activation = np.zeros((cycles + rows - 1, rows), dtype=np.uint8)
    activation[2 * rows - 1 : 2 * rows - 1 + m, :k] = operands.rows(lowered.x, 0, 0, m, 0, k).view(np.uint8)
    weight = np.zeros((north, cols), dtype=np.uint8)
    first = cols - 1 + rows - k
    weight[first : first + k, :n] = operands.tile(lowered.w, 0, 0, k, 0, n)[::-1].view(np.uint8)
    below = np.empty((north, cols), dtype=np.int32)
    registers = np.zeros((6, rows, cols), dtype=np.uint8)
    psum = np.zeros((rows, cols), dtype=np.int32)
    shift, swap, no_psum = _control(rows, cols, cycles)
    _core.run(
        registers[0], registers[1], registers[2], registers[3], psum, registers[4], registers[5],
        np.ndarray((cycles, rows), np.uint8, activation, (rows - 1) * rows, (rows, 1 - rows)),
        shift, swap,
        np.ndarray((cycles, cols), np.uint8, weight, (cols - 1) * cols, (cols, 1 - cols)),
        no_psum,
        np.ndarray((cycles, cols), np.int32, below, 4 * (cols - 1) * cols, (4 * cols, 4 * (1 - cols))),
        activation_signed=operand_name(lowered.x) == "int8",
        weight_signed=operand_name(lowered.w) == "int8",
    )  # fmt: skip
    # The sum (i, c) leaves column c's bottom PE on edge rows + i + rows - 1 + c.
    start = cols - 1 + 2 * rows - 1
    store(0, 0, 0, below[start : start + m, :n])


@lru_cache(maxsize=64)
def _control(rows: int, cols: int, cycles: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the ports that do not depend on operands: shift and swap (cycles, rows), psum (cycles, cols)."""
    control = np.zeros((2, cycles + rows - 1), dtype=np.uint8)
    control[0, rows - 1 : 2 * rows - 1] = 1
    control[1, 2 * rows - 1] = 1
    shift, swap = (np.ndarray((cycles, rows), np.uint8, line, rows - 1, (1, -1)) for line in control)
    return shift, swap, np.ndarray((cycles, cols), np.int32, np.zeros(1, np.int32), 0, (0, 0))
