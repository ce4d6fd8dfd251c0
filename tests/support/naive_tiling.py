"""Folds, cycles and counts of a product by loops, and the sizes of ResNet-50's products."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from systolic import ArrayConfig, Gemm
from systolic.reference import OutputStationaryArray, ReferenceArray
from systolic.stats import Stats


def naive_folds(gemm: Gemm, array: ArrayConfig) -> list[dict[str, int]]:
    """The folds in the order design says, with the reference's times, one after the other."""
    # Groups that share tiles have all their rows and columns side by side.
    sizes = gemm.m, gemm.k * gemm.pack, gemm.n * gemm.pack
    if array.dataflow == "input_stationary":
        # The weight-stationary folds of the transposed product.
        swapped = _folds(*sizes[::-1], gemm, replace(array, dataflow="weight_stationary"))
        result = [{_EXCHANGED.get(name, name): value for name, value in fold.items()} for fold in swapped]
    else:
        result = _folds(*sizes, gemm, array)
    for fold in result:
        k, n = (np.arange(fold[f"{axis}_start"], fold[f"{axis}_stop"]) for axis in "kn")
        of_row = k % (sizes[1] // gemm.taps) // (gemm.k // gemm.taps)
        fold["zeros"] = int((of_row[:, None] != n // gemm.n).sum())
    return result


def _folds(m_size: int, k_size: int, n_size: int, gemm: Gemm, array: ArrayConfig) -> list[dict[str, int]]:
    result: list[dict[str, int]] = []
    if 0 in (m_size, k_size, n_size):
        return result
    held = array.dataflow == "output_stationary"
    chunk = m_size if array.accumulator_rows is None else array.accumulator_rows // 2
    m_step, k_step = (array.rows, k_size) if held else (chunk, array.rows)
    part = k_size if held else k_size // gemm.taps
    for group in range(gemm.groups // gemm.pack):
        for n in range(0, n_size, array.cols):
            for m in range(0, m_size, m_step):
                for tap in range(0, k_size, part):
                    for k in range(tap, tap + part, k_step):
                        result.append({
                            "group": group,
                            "n_start": n, "n_stop": min(n + array.cols, n_size),
                            "m_start": m, "m_stop": min(m + m_step, m_size),
                            "k_start": k, "k_stop": min(k + k_step, tap + part),
                        })  # fmt: skip
    reference: Any = OutputStationaryArray if held else ReferenceArray
    lengths = [(fold["m_stop"] - fold["m_start"], fold["k_stop"] - fold["k_start"]) for fold in result]
    times = reference.fold_times(lengths, array.rows, array.cols, double_buffered=array.double_buffered)
    for fold, (shift, swap) in zip(result, times, strict=True):
        fold |= {"shift_cycle": shift, "swap_cycle": swap}
    return result


_EXCHANGED = {"m_start": "n_start", "m_stop": "n_stop", "n_start": "m_start", "n_stop": "m_stop"}


def naive_cycles(gemm: Gemm, array: ArrayConfig) -> int:
    folds = naive_folds(gemm, array)
    if not folds:
        return 0
    last = folds[-1]
    axis = {"weight_stationary": "m", "input_stationary": "n"}.get(array.dataflow)
    lines = array.rows if axis is None else last[f"{axis}_stop"] - last[f"{axis}_start"]
    return last["swap_cycle"] + lines + array.rows + array.cols - 2


def naive_stats(gemm: Gemm, array: ArrayConfig) -> Stats:
    """Every count, fold by fold."""
    folds = naive_folds(gemm, array)
    cycles = naive_cycles(gemm, array)
    sizes = [(*(f[f"{a}_stop"] - f[f"{a}_start"] for a in "mkn"), f["zeros"]) for f in folds]
    outputs = gemm.groups * gemm.m * gemm.n
    # Of each fold's sums: written as they leave the array; read for the next k tile, which the accumulators add, or
    # as the last one's are drained.
    each = [m * n for m, _, n, _ in sizes]
    again = [count for count, fold in zip(each, folds, strict=True) if fold["k_start"]]
    drained = [count for count, fold in zip(each, folds, strict=True) if fold["k_stop"] == gemm.k * gemm.pack]
    return Stats(
        cycles=cycles,
        macs=sum(m * (k * n - zeros) for m, k, n, zeros in sizes),
        pe_cycles=cycles * array.rows * array.cols,
        folds=len(folds),
        weight_bytes=sum(k * n - zeros for _, k, n, zeros in sizes),
        activation_bytes=sum(m * k for m, k, _, _ in sizes),
        output_bytes=4 * outputs,
        partial_sums=sum(each),
        accumulator_bytes=4 * (sum(each) + sum(again) + sum(drained)),
        unified_buffer_bytes=sum(m * k for m, k, _, _ in sizes) + outputs,
        weight_fifo_bytes=2 * sum(k * n - zeros for _, k, n, zeros in sizes),
    )


# ResNet-50 v1.5, batch 1: count, (M, K, N).
RESNET_50 = [
    (1, (12544, 147, 64)),
    (1, (3136, 64, 64)),
    (3, (3136, 576, 64)),
    (4, (3136, 64, 256)),
    (2, (3136, 256, 64)),
    (1, (3136, 256, 128)),
    (4, (784, 1152, 128)),
    (4, (784, 128, 512)),
    (1, (784, 256, 512)),
    (3, (784, 512, 128)),
    (1, (784, 512, 256)),
    (6, (196, 2304, 256)),
    (6, (196, 256, 1024)),
    (1, (196, 512, 1024)),
    (5, (196, 1024, 256)),
    (1, (196, 1024, 512)),
    (3, (49, 4608, 512)),
    (3, (49, 512, 2048)),
    (1, (49, 1024, 2048)),
    (2, (49, 2048, 512)),
    (1, (1, 2048, 1000)),
]
