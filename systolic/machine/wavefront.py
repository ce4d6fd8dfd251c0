"""Wavefront mode: local time, where the array is a plain product; cycles in closed form, no registers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from systolic import _gemm
from systolic.config import ArrayConfig
from systolic.gemm import Progress
from systolic.lowered import Lowered, Patches
from systolic.machine.epilogue import after_scale, apply_epilogue, fused
from systolic.machine.execution import Execution, planned
from systolic.machine.in_order import in_order
from systolic.machine.operands import as_stored, result_array

# Work between two looks at progress and Ctrl-C, in MACs: a tenth of a second or less.
_PIECE_WORK = 1 << 32

# Below this much work, other threads cost more than they save.
_WORTH_A_THREAD = 1 << 21

# MACs that cost as much as moving one value of a patch or one output.
_VALUE_MACS = 512


def run_wavefront(
    lowered: Lowered, config: ArrayConfig, *, workers: int = 1, report: Progress | None = None
) -> Execution:
    """Run lowered work as plain products: the outputs and cycles of cycle mode.

    8-bit integers may be added up in any order along K: sums wrap, so that no bit depends on it. For other
    formats see ``systolic.machine.in_order``.

    Parameters
    ----------
    lowered : Lowered
    config : ArrayConfig
        Sizes; operand types come from the operands.
    workers : int
        Threads.
    report : callable, optional
        Gets (done, total) sums as work goes on.
    """
    started = perf_counter()
    gemm, x = lowered.gemm, lowered.x
    config, stats = planned(gemm, config, x.dtype, lowered.w.dtype)
    numbers = config.format
    if numbers.kernel != "8-bit integers":
        sums = in_order(lowered, config, workers=workers, report=report)
        seconds = perf_counter() - started
        return Execution(apply_epilogue(lowered, sums), stats, seconds, config)
    if not numbers.is_plain:
        lowered = as_stored(lowered)
    codes = None
    work = stats.macs
    if isinstance(lowered.x, Patches):
        if work:
            # Patches, sums and codes are made piece by piece, in cache.
            codes = fused(lowered) if numbers.psum_bits == 32 else None
        work += _VALUE_MACS * gemm.groups * gemm.m * (gemm.k + gemm.n)
    acc: Any = result_array(lowered) if codes is None else None
    if work <= _PIECE_WORK:
        if work:
            _compute(lowered, acc, codes, workers if work >= _WORTH_A_THREAD else 1)
        if report is not None:
            report(gemm.sums, gemm.sums)
    else:
        done = 0
        for piece in pieces(lowered, acc, codes, -(-work // _PIECE_WORK)):
            piece.compute(workers)
            if report is not None:
                done += piece.size
                report(done, gemm.sums)
    if acc is not None:
        numbers.narrow(acc)
    seconds = perf_counter() - started
    output = apply_epilogue(lowered, acc) if codes is None else after_scale(lowered.epilogue, codes["codes"])
    return Execution(output, stats, seconds, config)


def _compute(lowered: Lowered, acc: np.ndarray | None, codes: dict[str, Any] | None, threads: int) -> None:
    """Compute all sums, or codes."""
    x, w = lowered.x, lowered.w
    if acc is not None and w.ndim == 2:
        _gemm.multiply(np.ascontiguousarray(x), np.ascontiguousarray(w), acc, threads=threads)
    elif isinstance(x, Patches):
        whole = (0, x.images.shape[0]), (0, x.out[0] * x.out[1])
        _convolve(x, _filters(x, w), acc, codes, *whole, threads)
    else:
        for piece in pieces(lowered, acc, codes, 1):
            piece.compute(threads)


class Piece(NamedTuple):
    """Part of the work."""

    size: int
    """How many sums."""
    compute: Callable[[int], None]
    """Computes them, in so many threads."""


def pieces(
    lowered: Lowered, acc: np.ndarray | None, codes: dict[str, Any] | None, parts: int
) -> Iterator[Piece]:
    """Cut work into about so many parts, for progress and Ctrl-C.

    Parameters
    ----------
    lowered : Lowered
    acc : ndarray of int32, or None
        The accumulators.
    codes : dict, or None
        Instead of them, what :func:`~systolic.machine.epilogue.fused` returned.
    parts : int
    """
    x, w = lowered.x, lowered.w
    if isinstance(x, Patches):
        return _convolutions(x, w, acc, codes, parts)
    assert acc is not None
    x, w, acc = (values.reshape(-1, *values.shape[-2:]) for values in (x, w, acc))
    return _products(x, w, acc, parts)


def _convolutions(
    x: Patches, w: np.ndarray, acc: np.ndarray | None, codes: dict[str, Any] | None, parts: int
) -> Iterator[Piece]:
    """Cut a convolution into some of the images or some of an image's pixels."""
    channels, filters = w.shape[0] * w.shape[2], _filters(x, w)
    images = list(_cut(x.images.shape[0], parts, 1))
    for some in images:
        for part in _cut(x.out[0] * x.out[1], -(-parts // len(images)), 64):
            size = (some.stop - some.start) * (part.stop - part.start) * channels
            places = (some.start, some.stop), (part.start, part.stop)
            yield Piece(size, partial(_convolve, x, filters, acc, codes, *places))


def _filters(x: Patches, w: np.ndarray) -> np.ndarray:
    """Return filters for the compiled convolution: (groups, n, k), or (groups, k, n) with channels last."""
    return np.ascontiguousarray(w if x.channels_last else w.swapaxes(1, 2))


def _convolve(
    x: Patches, filters: np.ndarray, acc: np.ndarray | None, codes: dict[str, Any] | None,
    images: tuple[int, int], pixels: tuple[int, int], threads: int,
) -> None:  # fmt: skip
    _gemm.convolve(
        x.images, filters, acc, x.kernel, x.stride, x.dilation, x.before, x.out, x.pad_value,
        images=images, pixels=pixels, channels_last=x.channels_last, threads=threads, **(codes or {}),
    )  # fmt: skip


def _products(x: np.ndarray, w: np.ndarray, acc: np.ndarray, parts: int) -> Iterator[Piece]:
    """Cut products of stacked matrices (groups, M, K) and (groups, K, N) into parts.

    Each is some of the groups, or all rows with some columns, or some rows with all columns.
    """
    (groups, m, _), n = x.shape, w.shape[2]
    x, w = np.ascontiguousarray(x), np.ascontiguousarray(w)
    whole = slice(None)
    inside = -(-parts // groups)
    if n >= m:
        within = [(whole, columns) for columns in _cut(n, inside, 64)]
    else:
        within = [(some, whole) for some in _cut(m, inside, 48)]
    for some_groups in _cut(groups, parts, 1):
        for some, columns in within:
            sums = acc[some_groups, some, columns]
            operands = x[some_groups, some], w[some_groups, :, columns], sums
            yield Piece(sums.size, partial(_multiply, operands))


def _multiply(operands: tuple[np.ndarray, ...], threads: int) -> None:
    _gemm.multiply(*operands, threads=threads)


def _cut(size: int, parts: int, step: int) -> Iterator[slice]:
    """Cut 0..size into at most `parts` slices of about equal size, each but the last a multiple of `step`."""
    length = -(-size // (parts * step)) * step or step
    for start in range(0, size, length):
        yield slice(start, min(start + length, size))
