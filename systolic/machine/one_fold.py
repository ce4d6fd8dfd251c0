"""A product that is a single small fold, clocked from an idle array in one call, without queues.

For products of a few PEs the queues of :class:`~systolic.SystolicArray`, its states between two runs
and the accumulators cost far more than the clock edges. The edges are the same, each register on each
of them; ``tests/test_machine.py`` holds this path against the other.
"""

from __future__ import annotations

import numpy as np

from systolic import _core
from systolic.config import ArrayConfig
from systolic.gemm import Product

# Beyond this many PE-cycles, what is saved here does not count.
_SMALL_PE_CYCLES = 1 << 20


def is_small(product: Product, config: ArrayConfig, cycles: int) -> bool:
    """Whether a product is one fold, of few enough cycles."""
    gemm = product.gemm
    return (
        gemm.groups == 1
        and gemm.k <= config.rows
        and gemm.n <= config.cols
        and (config.chunk_rows is None or gemm.m <= config.chunk_rows)
        and config.rows * config.cols * cycles <= _SMALL_PE_CYCLES
    )


def run_one_fold(product: Product, config: ArrayConfig, cycles: int) -> int:
    """Clock a single fold from reset through `cycles` edges, store its sums and return the edges."""
    gemm, rows, cols = product.gemm, config.rows, config.cols
    m, k, n = gemm.m, gemm.k, gemm.n
    # Local time tau, what PE (0, 0) sees on cycle tau, stands at index tau + lead: see
    # array/schedule.py. The tile enters on 0..rows-1, bottom row first; x follows its swap.
    west, north = cycles + rows - 1, cycles + cols - 1
    activation = np.zeros((west, rows), dtype=np.uint8)
    activation[2 * rows - 1 : 2 * rows - 1 + m, :k] = product.rows(0, 0, m, 0, k).view(np.uint8)
    weight = np.zeros((north, cols), dtype=np.uint8)
    first = cols - 1 + rows - k
    weight[first : first + k, :n] = product.tile(0, 0, k, 0, n)[::-1].view(np.uint8)
    control = np.zeros((2, west), dtype=np.uint8)
    control[0, rows - 1 : 2 * rows - 1] = 1
    control[1, 2 * rows - 1] = 1
    below = np.empty((north, cols), dtype=np.int32)
    registers = np.zeros((6, rows, cols), dtype=np.uint8)
    psum = np.zeros((rows, cols), dtype=np.int32)
    west_shape, north_shape = (cycles, rows), (cycles, cols)
    _core.run(
        registers[0], registers[1], registers[2], registers[3], psum, registers[4], registers[5],
        np.ndarray(west_shape, np.uint8, activation, (rows - 1) * rows, (rows, 1 - rows)),
        np.ndarray(west_shape, np.uint8, control, rows - 1, (1, -1)),
        np.ndarray(west_shape, np.uint8, control, west + rows - 1, (1, -1)),
        np.ndarray(north_shape, np.uint8, weight, (cols - 1) * cols, (cols, 1 - cols)),
        np.ndarray(north_shape, np.int32, _ZERO, 0, (0, 0)),
        np.ndarray(north_shape, np.int32, below, 4 * (cols - 1) * cols, (4 * cols, 4 * (1 - cols))),
        activation_signed=product.activation_dtype == "int8",
        weight_signed=product.weight_dtype == "int8",
    )  # fmt: skip
    # The sum (i, c) leaves column c's bottom PE on edge rows + i + rows - 1 + c.
    start = cols - 1 + 2 * rows - 1
    product.store(0, 0, 0, below[start : start + m, :n])
    return cycles


_ZERO = np.zeros(1, dtype=np.int32)
