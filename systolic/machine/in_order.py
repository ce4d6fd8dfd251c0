"""Wavefront mode of the formats whose sums depend on their width or on the order of additions.

Within a k tile the array adds from +0 along k; the accumulators then add the tiles in order. One chain of
additions for each sum gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from systolic import _core, _gemm
from systolic.config import ArrayConfig
from systolic.gemm import Progress
from systolic.lowered import Lowered, Patches
from systolic.machine import operands
from systolic.tiling import sizes_of

# Work between two looks at progress and Ctrl-C, in MACs: hundredths of a second; in plain C one or two.
_PIECE_WORK = 1 << 29

# Below this much work, other threads cost more than they save.
_WORTH_A_THREAD = 1 << 20

Piece = tuple[np.ndarray, Callable[..., None]]
"""Where the sums of a part of the work go, and what computes them."""


def in_order(
    lowered: Lowered, config: ArrayConfig, *, workers: int = 1, report: Progress | None = None
) -> np.ndarray:
    """Return the accumulators of lowered work, added up as the array of `config` does.

    Parameters
    ----------
    lowered : Lowered
    config : ArrayConfig
        With the types of the operands.
    workers : int
        Threads.
    report : callable, optional
        Gets (done, total) sums as work goes on.

    Returns
    -------
    ndarray of ``config.format.sum``
    """
    # Sums that depend on the order of additions have no other layout; others are the same in all.
    lowered = operands.as_stored(lowered._replace(gemm=replace(lowered.gemm, taps=1, pack=1)))
    gemm, numbers = lowered.gemm, config.format
    acc = operands.result_array(lowered, numbers.sum)
    low, high = numbers.sum_limits
    options = {
        "step": sizes_of(gemm, config).k_step if numbers.ordered else gemm.k,
        "arithmetic": _core.ARITHMETICS[numbers.sum, numbers.overflow],
        "low": low, "high": high,
    }  # fmt: skip
    done = 0
    if gemm.macs:
        parts = _convolutions(lowered, acc) if isinstance(lowered.x, Patches) else _products(lowered, acc)
        for sums, compute in parts:
            compute(sums, threads=workers if sums.size * gemm.k >= _WORTH_A_THREAD else 1, **options)
            done += sums.size
            if report is not None:
                report(done, gemm.sums)
    elif report is not None:
        report(gemm.sums, gemm.sums)
    numbers.narrow(acc)
    return acc


def _products(lowered: Lowered, acc: np.ndarray) -> Iterator[Piece]:
    """Cut products of matrices into rows and columns, about as many of both."""
    gemm, x, w = lowered.gemm, lowered.x, lowered.w
    assert isinstance(x, np.ndarray)
    rows, cols = gemm.m, gemm.n
    while rows * cols > max(_PIECE_WORK // gemm.k, 1):
        rows, cols = (-(-rows // 2), cols) if rows >= cols else (rows, -(-cols // 2))
    for group in range(gemm.groups):
        a, b, sums = (operands.matrix_of(values, group) for values in (x, w, acc))
        a, b = _with_lines(a), _with_lines(b)
        for row in range(0, gemm.m, rows):
            for col in range(0, gemm.n, cols):
                part = sums[row : row + rows, col : col + cols]
                yield part, partial(_multiply, a[row : row + rows], b[:, col : col + cols])


def _multiply(a: np.ndarray, b: np.ndarray, sums: np.ndarray, **options: Any) -> None:
    _gemm.multiply_in_order(a, b, sums, **options)


def _with_lines(values: np.ndarray) -> np.ndarray:
    """Return a matrix that is contiguous along an axis."""
    return values if values.itemsize in values.strides and values.flags.aligned else values.copy("C")


def _convolutions(lowered: Lowered, acc: np.ndarray) -> Iterator[Piece]:
    """Cut convolutions into groups and pixels, whose sums lie as in the result."""
    gemm, x = lowered.gemm, lowered.x
    assert isinstance(x, Patches)
    x = x._replace(images=np.require(x.images, requirements=["ALIGNED"]))
    batch, pixels, channels = len(x.images), x.out[0] * x.out[1], gemm.groups * gemm.n
    most = max(1, _PIECE_WORK // (gemm.k * gemm.n))
    for group in range(gemm.groups):
        within = slice(group * gemm.n, (group + 1) * gemm.n)
        convolve = partial(_convolve, x, _with_lines(lowered.w[group]), group)
        if x.channels_last:
            sums = acc.reshape(batch * pixels, channels)
            for first in range(0, gemm.m, most):
                yield sums[first : first + most, within], partial(convolve, first)
            continue
        planes = acc.reshape(batch, channels, pixels)
        for image in range(batch):
            for first in range(0, pixels, most):
                yield planes[image, within, first : first + most], partial(convolve, image * pixels + first)


def _convolve(
    x: Patches, filters: np.ndarray, group: int, first: int, sums: np.ndarray, **options: Any
) -> None:
    _gemm.convolve_in_order(
        x.images, filters, sums, x.kernel, x.stride, x.dilation, x.before, x.out, x.pad_value,
        group=group, first=first, channels_last=x.channels_last, **options,
    )  # fmt: skip
