"""Reads the operands of lowered work piece by piece, and puts its sums into their places."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from systolic import _gemm
from systolic.dataflows import Dataflow
from systolic.formats import stored
from systolic.lowered import Lowered, Operand, Pair, Patches
from systolic.lowered import taps as taps_inside
from systolic.tiling import Fold

Layout = tuple[int, int]
"""Taps of k and groups that share tiles: see :class:`~systolic.Gemm`."""

PLAIN = (1, 1)

# Patches that are made at once, in values.
_PIECE_VALUES = 1 << 22


def layout_of(lowered: Lowered) -> Layout:
    """Return the layout of a product."""
    return lowered.gemm.taps, lowered.gemm.pack


def rows(
    x: Operand, group: int, m_start: int, m_stop: int, k_start: int, k_stop: int, layout: Layout = PLAIN
) -> np.ndarray:
    """Return x[m_start:m_stop, k_start:k_stop] of a group, or of groups that share tiles."""
    if not isinstance(x, Patches):
        return stored(matrix_of(x, group)[m_start:m_stop, k_start:k_stop])
    images = x.images[..., np.newaxis].view(np.uint8)
    padding = np.array([x.pad_value]).astype(x.dtype).view(np.uint8)
    part = group, m_start, m_stop, k_start, k_stop, layout
    parts = [
        _patches(x._replace(images=images[..., byte], pad_value=int(padding[byte])), *part)
        for byte in range(len(padding))
    ]
    together = parts[0] if len(parts) == 1 else np.stack(parts, axis=-1).reshape(m_stop - m_start, -1)
    return stored(together.view(x.dtype))


def _patches(
    x: Patches, group: int, m_start: int, m_stop: int, k_start: int, k_stop: int, layout: Layout
) -> np.ndarray:
    """Return rows of patches of bytes."""
    taps, pack = layout
    channels = x.images.shape[1] // x.groups * pack
    matrix = np.empty((m_stop - m_start, k_stop - k_start), dtype=x.dtype)
    if taps == 1:
        first = group * channels * x.kernel[0] * x.kernel[1]
        _fill(x, matrix, x.kernel, x.before, first + k_start, m_start)
        return matrix
    # Each tap is a kernel of one pixel.
    for tap in range(k_start // channels, -(-k_stop // channels)):
        start, stop = max(k_start, tap * channels), min(k_stop, (tap + 1) * channels)
        place = divmod(tap, x.kernel[1])
        top, left = (pad - at * gap for pad, at, gap in zip(x.before, place, x.dilation, strict=True))
        part = matrix[:, start - k_start : stop - k_start]
        _fill(x, part, (1, 1), (top, left), group * channels + start - tap * channels, m_start)
    return matrix


def _fill(x: Patches, matrix: np.ndarray, kernel: Pair, before: Pair, k_start: int, m_start: int) -> None:
    _gemm.im2col(
        x.images, matrix, kernel, x.stride, x.dilation, before, x.out, x.pad_value, k_start, m_start
    )


def as_stored(lowered: Lowered) -> Lowered:
    """Return lowered work with operands as registers hold them."""
    x = lowered.x
    x = x._replace(images=stored(x.images)) if isinstance(x, Patches) else stored(x)
    return lowered._replace(x=x, w=stored(lowered.w))


def tile(
    w: np.ndarray, group: int, k_start: int, k_stop: int, n_start: int, n_stop: int, layout: Layout = PLAIN
) -> np.ndarray:
    """Return w[k_start:k_stop, n_start:n_stop] of a group, or of groups that share tiles."""
    if layout == PLAIN:
        return stored(matrix_of(w, group)[k_start:k_stop, n_start:n_stop])
    (taps, pack), (_, k, n) = layout, w.shape
    # Of each row and column: its tap, its group among those that share the tile, its place there.
    tap, rest = np.divmod(np.arange(k_start, k_stop)[:, None], k // taps * pack)
    of_row, channel = np.divmod(rest, k // taps)
    of_column, column = np.divmod(np.arange(n_start, n_stop), n)
    values = stored(w[group * pack + of_row, channel * taps + tap, column])
    return np.where(of_row == of_column, values, values.dtype.type(0))


def matrix_of(values: np.ndarray, group: int) -> np.ndarray:
    """Return the matrix of a group: of a stack, or the only one."""
    return values if values.ndim == 2 else values[np.unravel_index(group, values.shape[:-2])]


def fold_operands(dataflow: Dataflow, lowered: Lowered, fold: Fold) -> tuple[np.ndarray, Lines]:
    """Return the tile that enters from the north in a fold, and the lines that stream from the west."""
    x, f, layout = lowered.x, fold, layout_of(lowered)
    weights = tile(lowered.w, f.group, f.k_start, f.k_stop, f.n_start, f.n_stop, layout)
    if dataflow.exchanged:
        stays = rows(x, f.group, f.m_start, f.m_stop, f.k_start, f.k_stop, layout).T
        return stays, Lines((f.n, f.k), lambda start, stop: weights.T[start:stop])
    k, m = f.k_start, f.m_start
    if dataflow.held:
        return weights, Lines(
            (f.k, f.m), lambda start, stop: rows(x, f.group, m, f.m_stop, k + start, k + stop, layout).T
        )
    return weights, Lines(
        (f.m, f.k), lambda start, stop: rows(x, f.group, m + start, m + stop, k, f.k_stop, layout)
    )


@dataclass(frozen=True)
class Lines:
    """The lines that one fold streams, lowered when they are read."""

    shape: tuple[int, int]
    read: Callable[[int, int], np.ndarray]

    def __getitem__(self, some: slice) -> np.ndarray:
        return self.read(some.start, some.stop)


def zero_macs(lowered: Lowered) -> int:
    """Return how many MACs of a product have an operand that is zero.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.lowered import lower_matmul
    >>> from systolic.machine.operands import zero_macs
    >>> zero_macs(lower_matmul(np.int8([[1, 0], [2, 3]]), np.int8([[4, 0, 5], [6, 7, 0]])))
    6
    """
    gemm, layout, nonzero = lowered.gemm, layout_of(lowered), 0
    k, n = gemm.k * gemm.pack, gemm.n * gemm.pack
    step = max(1, _PIECE_VALUES // max(k, 1))
    for group in range(gemm.groups // gemm.pack):
        weights = (tile(lowered.w, group, 0, k, 0, n, layout) != 0).sum(axis=1)
        for start in range(0, gemm.m, step):
            some = rows(lowered.x, group, start, min(start + step, gemm.m), 0, k, layout)
            nonzero += int((some != 0).sum(axis=0) @ weights)
    return gemm.macs - nonzero


def row_sums(x: Operand, dtype: Any = np.int32) -> np.ndarray:
    """Return the sum of each row of x, int32 or int64: (..., M, 1), or an image with a channel per group."""
    if not isinstance(x, Patches):
        return _once(x).sum(axis=-1, keepdims=True, dtype=dtype)
    # Sum over each group's channels, minus the padding value; then over the taps inside the image.
    batch, channels, height, width = x.images.shape
    pixels = x.images.reshape(batch, x.groups, channels // x.groups, height, width)
    padding = np.dtype(dtype).type(x.pad_value * (channels // x.groups))
    above = pixels.sum(axis=2, dtype=dtype) - padding
    total = np.full((batch, x.groups, *x.out), x.kernel[0] * x.kernel[1] * padding, dtype=dtype)
    lines, columns = (
        taps_inside(size, *along).values()
        for size, *along in zip((height, width), x.kernel, x.stride, x.dilation, x.before, x.out, strict=True)
    )
    for (to_rows, from_rows), (to_cols, from_cols) in product(lines, columns):
        total[:, :, to_rows, to_cols] += above[:, :, from_rows, from_cols]
    return total.transpose(0, 2, 3, 1) if x.channels_last else total


def column_sums(lowered: Lowered, dtype: Any = np.int32) -> np.ndarray:
    """Return the sum of each column of w, int32 or int64: one for each channel, or (..., 1, N) for stacks."""
    w = stored(lowered.w)
    if isinstance(lowered.x, Patches) or w.ndim == 2:
        return w.sum(axis=-2, dtype=dtype).reshape(-1)
    return _once(w).sum(axis=-2, keepdims=True, dtype=dtype)


def _once(values: np.ndarray) -> np.ndarray:
    """Drop the repeated matrices of a broadcast stack."""
    repeated = [size > 1 and not stride for size, stride in zip(values.shape, values.strides, strict=True)]
    return values[tuple(slice(0, 1) if again else slice(None) for again in repeated[:-2])]


def result_array(lowered: Lowered, dtype: Any = np.int32) -> np.ndarray:
    """Allocate the accumulators, or the output in their layout; zeros if K is 0."""
    gemm, x, w, _ = lowered
    make = np.empty if gemm.k else np.zeros
    if not isinstance(x, Patches):
        return make(x.shape[:-1] + w.shape[-1:], dtype)
    batch, channels = x.images.shape[0], gemm.groups * gemm.n
    return make((batch, *x.out, channels) if x.channels_last else (batch, channels, *x.out), dtype)


def store(
    lowered: Lowered, acc: np.ndarray, group: int, m_start: int, n_start: int, sums: np.ndarray
) -> None:
    """Put finished sums of a group, whose first is (m_start, n_start), into the accumulators' array."""
    x, (m, n) = lowered.x, sums.shape
    if not isinstance(x, Patches):
        matrix_of(acc, group)[m_start : m_start + m, n_start : n_start + n] = sums
        return
    # (batch, pixels, channels), whichever way the channels lie.
    pixels, channels = x.out[0] * x.out[1], lowered.gemm.groups * lowered.gemm.n
    if x.channels_last:
        view = acc.reshape(-1, pixels, channels)
    else:
        view = acc.reshape(-1, channels, pixels).transpose(0, 2, 1)
    channel = group * lowered.gemm.pack * lowered.gemm.n + n_start
    done = 0
    for some, within in _per_image(m_start, m_start + m, pixels):
        target = view[some, within, channel : channel + n]
        count = target.shape[0] * target.shape[1]
        target[...] = sums[done : done + count].reshape(target.shape)
        done += count


def _per_image(start: int, stop: int, size: int) -> Iterator[tuple[slice, slice]]:
    """Cut start..stop, counted over images of `size`, into blocks (images, within the image).

    At most three blocks: the end of an image, whole images, the beginning of one.
    """
    image, within = divmod(start, size)
    if within or stop < (image + 1) * size:
        end = min(stop, (image + 1) * size)
        yield slice(image, image + 1), slice(within, within + end - start)
        start = end
    whole = stop // size
    if start < whole * size:
        yield slice(start // size, whole), slice(0, size)
        start = whole * size
    if start < stop:
        yield slice(whole, whole + 1), slice(0, stop - start)
