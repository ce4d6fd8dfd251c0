"""A random product for the test bench: its folds, the memories of its operands, its sums in the end."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from systolic.config import ArrayConfig
from systolic.formats import OPERANDS
from systolic.lowered import lower_matmul
from systolic.machine import operands, run_wavefront
from systolic.tiling import schedule

# Rows of x that a bench streams through a tile at most, where the accumulators would take more.
_MOST_LINES = 40


class Memories(NamedTuple):
    """What the test bench reads, a matrix for each file.

    Attributes
    ----------
    x, w : ndarray of uint8, (words, rows) and (words, cols)
        Operands as bytes. What stands in a word beyond the fold's sizes is no zero, and does not matter.
    folds : ndarray of uint16, (folds, 6)
        m, k, n, address of x, address of w, and half (bit 1) and first (bit 0): highest element first.
    sums : ndarray of int32, (rows of accumulators, cols)
        What the accumulators hold in the end.
    written : ndarray of bool, (rows of accumulators, cols)
        Which of them were written.
    """

    x: np.ndarray
    w: np.ndarray
    folds: np.ndarray
    sums: np.ndarray
    written: np.ndarray


def random_product(config: ArrayConfig, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return operands of a product of several folds, with short tiles, that fills both halves."""
    dataflow, half = config.dataflow_record, config.chunk_rows
    assert half is not None
    lines = half + (half + 1) // 2 if half <= _MOST_LINES else _MOST_LINES
    if dataflow.held:
        m, k, n = 2 * config.rows + 1, config.rows + 5, config.cols + 1
    else:
        m, k, n = lines, 2 * config.rows + 1, config.cols + 1
    if dataflow.exchanged:
        m, n = n, m
    rng = np.random.default_rng(seed)
    x, w = (
        rng.integers(*OPERANDS[name].limits, shape, name, endpoint=True)
        for name, shape in ((config.activation_dtype, (m, k)), (config.weight_dtype, (k, n)))
    )
    return x, w


def memories(x: np.ndarray, w: np.ndarray, config: ArrayConfig) -> Memories:
    """Return what the test bench of an array reads for a product."""
    dataflow, lowered = config.dataflow_record, lower_matmul(x, w)
    plan, acc = schedule(lowered.gemm, config), run_wavefront(lowered, config).output
    half_rows = config.rows if dataflow.held else config.chunk_rows
    assert half_rows is not None
    height = 2 * half_rows if dataflow.held else config.accumulator_rows
    assert height is not None
    sums, written = np.zeros((height, config.cols), np.int32), np.zeros((height, config.cols), bool)
    x_words, w_words, folds = [], [], []
    for i, fold in enumerate(plan.folds):
        tile, lines = operands.fold_operands(dataflow, lowered, fold)
        x_words.append(_padded(lines[0 : lines.shape[0]], config.rows))
        w_words.append(_padded(tile, config.cols))
        m, n = (fold.n, fold.m) if dataflow.exchanged else (fold.m, fold.n)
        places = sum(map(len, x_words[:-1])), sum(map(len, w_words[:-1]))
        first = fold.k_start == 0
        folds.append((m, fold.k, n, *places, plan.half(i) << 1 | first))
        if fold.k_stop == lowered.gemm.k:
            done = acc[fold.m_start : fold.m_stop, fold.n_start : fold.n_stop]
            top = plan.half(i) * half_rows
            sums[top : top + m, :n] = dataflow.oriented(done)
            written[top : top + m, :n] = True
    return Memories(
        np.concatenate(x_words), np.concatenate(w_words), np.array(folds, np.uint16)[:, ::-1], sums, written
    )


def _padded(values: np.ndarray, size: int) -> np.ndarray:
    words = np.full((len(values), size), 0xA5, np.uint8)
    words[:, : values.shape[1]] = values.view(np.uint8)
    return words
