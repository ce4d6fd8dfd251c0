"""Wavefront mode of the formats whose sums depend on their width or on the order of additions.

Within a k tile the array adds from +0 along k; the accumulators then add the tiles in order. One chain of
additions for each sum gives the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from systolic import _core, _gemm
from systolic.config import ArrayConfig
from systolic.formats import Format
from systolic.gemm import Progress
from systolic.lowered import Lowered, Patches
from systolic.machine import operands
from systolic.tiling import sizes_of

# Work between two looks at progress and Ctrl-C, in MACs.
_PIECE_WORK = 1 << 27


def in_order(lowered: Lowered, config: ArrayConfig, report: Progress | None = None) -> np.ndarray:
    """Return the accumulators of lowered work, added up as the array of `config` does.

    Parameters
    ----------
    lowered : Lowered
    config : ArrayConfig
        With the types of the operands.
    report : callable, optional
        Gets (done, total) sums as work goes on.

    Returns
    -------
    ndarray of ``config.format.sum``
    """
    # Sums that depend on the order of additions have no other layout; others are the same in all.
    lowered = lowered._replace(gemm=replace(lowered.gemm, taps=1, pack=1))
    gemm = lowered.gemm
    acc = operands.result_array(lowered, config.format.sum)
    step = sizes_of(gemm, config).k_step
    done = 0
    if gemm.macs:
        for group, first, stop in _pieces(lowered):
            w = operands.tile(lowered.w, group, 0, gemm.k, 0, gemm.n)
            x = operands.rows(lowered.x, group, first, stop, 0, gemm.k)
            operands.store(lowered, acc, group, first, 0, product(x, w, config.format, step))
            done += (stop - first) * gemm.n
            if report is not None:
                report(done, gemm.sums)
    elif report is not None:
        report(gemm.sums, gemm.sums)
    return acc


def _pieces(lowered: Lowered) -> Iterator[tuple[int, int, int]]:
    """Yield (group, first row, last row + 1) of parts of the product."""
    gemm = lowered.gemm
    rows = max(1, _PIECE_WORK // (gemm.k * gemm.n))
    if isinstance(lowered.x, Patches):  # the patches of a part exist as a whole
        rows = max(1, min(rows, _PATCH_VALUES // gemm.k))
    for group in range(gemm.groups):
        for first in range(0, gemm.m, rows):
            yield group, first, min(first + rows, gemm.m)


_PATCH_VALUES = 1 << 20


def product(x: np.ndarray, w: np.ndarray, numbers: Format, step: int) -> np.ndarray:
    """Return x @ w, cut along k every `step` values.

    Parameters
    ----------
    x : ndarray, (m, k)
    w : ndarray, (k, n)
        As registers hold them.
    numbers : Format
    step : int
        Rows of w in a tile.

    Returns
    -------
    ndarray of ``numbers.sum``, (m, n)
    """
    if numbers.kernel == "8-bit integers":
        acc = np.empty((len(x), w.shape[1]), np.int32)
        _gemm.multiply(np.ascontiguousarray(x), np.ascontiguousarray(w), acc)
        numbers.narrow(acc)
        return acc
    wide = np.float32 if numbers.is_float else np.int32
    x, w = x.astype(wide, order="C"), w.astype(wide, order="C")
    if not numbers.ordered:
        step = x.shape[1]
    low, high = numbers.sum_limits
    total, part = (np.empty((len(x), w.shape[1]), numbers.sum) for _ in range(2))
    for start in range(0, x.shape[1], step):
        sums = part if start else total
        _gemm.multiply_numbers(
            x[:, start : start + step], w[start : start + step], sums,
            arithmetic=_core.ARITHMETICS[numbers.sum, numbers.overflow], low=low, high=high,
        )  # fmt: skip
        if start:
            numbers.accumulate(total, part)
    numbers.narrow(total)
    return total
