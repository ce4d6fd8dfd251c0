"""A product on the array: its tiles, the rows it streams, and where its results go."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from systolic.isa import Function, Pattern
from systolic.lowered import Epilogue, Lowered, Patches
from systolic.machine import operands


class Axis(NamedTuple):
    """An axis of the rows of a product: how many, and the steps between rows read and rows written."""

    size: int
    read: int
    write: int


class Chunk(NamedTuple):
    """Rows that are streamed at once: offsets into the images that are read and written, and axes."""

    read: int
    write: int
    axes: tuple[Axis, ...]

    @property
    def rows(self) -> int:
        """How many."""
        return math.prod(axis.size for axis in self.axes)

    @property
    def reads(self) -> Pattern:
        """The pattern of rows read."""
        return tuple((axis.size, axis.read) for axis in self.axes)

    @property
    def writes(self) -> Pattern | None:
        """The pattern of rows written; None if they follow each other."""
        axes = collapsed(tuple(axis._replace(read=axis.write) for axis in self.axes))
        if len(axes) == 1 and axes[0].write == 1:
            return None
        return tuple((axis.size, axis.write) for axis in axes)


def collapsed(axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """Join axes whose rows follow each other, and leave out those of one row.

    Examples
    --------
    >>> collapsed((Axis(2, 12, 12), Axis(3, 4, 4), Axis(4, 1, 1)))
    (Axis(size=24, read=1, write=1),)
    """
    found: list[Axis] = []
    for axis in reversed(axes):
        if axis.size == 1:
            continue
        if found:
            inner = found[-1]
            if axis.read == inner.size * inner.read and axis.write == inner.size * inner.write:
                found[-1] = Axis(axis.size * inner.size, inner.read, inner.write)
                continue
        found.append(axis)
    return tuple(reversed(found)) or (Axis(1, 1, 1),)


def chunks(axes: tuple[Axis, ...], most: int) -> list[Chunk]:
    """Cut the rows of a product into chunks of at most `most` rows, of about equal size.

    Examples
    --------
    >>> [(chunk.read, chunk.rows) for chunk in chunks((Axis(10, 1, 1),), 4)]
    [(0, 4), (4, 3), (7, 3)]
    """
    inner = 1
    for place in reversed(range(len(axes))):
        axis = axes[place]
        if inner * axis.size > most:
            break
        inner *= axis.size
    else:
        return [Chunk(0, 0, axes)]
    parts = -(-axis.size // (most // inner))
    sizes = [axis.size // parts + (part < axis.size % parts) for part in range(parts)]
    found = []
    for outer in np.ndindex(*(each.size for each in axes[:place])):
        read = sum(i * each.read for i, each in zip(outer, axes, strict=False))
        write = sum(i * each.write for i, each in zip(outer, axes, strict=False))
        done = 0
        for size in sizes:
            own = collapsed((Axis(size, axis.read, axis.write), *axes[place + 1 :]))
            found.append(Chunk(read + done * axis.read, write + done * axis.write, own))
            done += size
    return found


@dataclass(frozen=True)
class Window:
    """How a convolution reads an image; a product of matrices reads images of one pixel."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    before: tuple[int, int]
    out: tuple[int, int]
    size: tuple[int, int]

    @property
    def sides(self) -> tuple[int, int, int, int]:
        """The border it needs above, to the left, below and to the right."""
        behind = [
            max((out - 1) * step + (kernel - 1) * dilation - before - (size - 1), 0)
            for kernel, step, dilation, before, out, size in zip(
                self.kernel, self.stride, self.dilation, self.before, self.out, self.size, strict=True
            )
        ]
        return max(self.before[0], 0), max(self.before[1], 0), behind[0], behind[1]

    def offset(self, tap: tuple[int, int], stored: tuple[int, int], sides: tuple[int, int, int, int]) -> int:
        """Return the row that a tap reads for the first output."""
        line, column = (
            tap[axis] * self.dilation[axis] - self.before[axis] + sides[axis] for axis in (0, 1)
        )
        return line * stored[1] + column

    @property
    def plain(self) -> bool:
        """Whether each output reads its own pixel alone."""
        return self.kernel == self.stride == (1, 1) and self.before == (0, 0) and self.out == self.size


POINT = Window((1, 1), (1, 1), (1, 1), (0, 0), (1, 1), (1, 1))


def window_of(patches: Patches) -> Window:
    """Return the window of a lowered convolution."""
    size = patches.images.shape[2], patches.images.shape[3]
    return Window(patches.kernel, patches.stride, patches.dilation, patches.before, patches.out, size)


class Weights:
    """The weights of a product, as the tiles that the array holds.

    Parameters
    ----------
    w : ndarray of int8 or uint8, (groups, K, N)
    taps : int
        Of the kernel; K runs over (channels, taps).
    step : int
        Channels in a block of the input.
    columns : int
        Channels in a block of the output.
    """

    def __init__(self, w: np.ndarray, taps: int, step: int, columns: int) -> None:
        groups, k, n = w.shape
        self.w = w.reshape(groups, k // taps, taps, n)
        self.groups, self.channels, self.taps, self.n = groups, k // taps, taps, n
        self.step, self.columns = step, columns

    @property
    def blocks(self) -> int:
        """Blocks of output channels."""
        return -(-self.groups * self.n // self.columns)

    def tiles(self, block: int) -> list[tuple[int, int]]:
        """Return (tap, block of input channels) of the tiles of an output block that hold weights."""
        first = block * self.columns
        last = min(first + self.columns, self.groups * self.n) - 1
        low, high = first // self.n * self.channels, (last // self.n + 1) * self.channels - 1
        blocks = range(low // self.step, high // self.step + 1)
        return [(tap, each) for tap in range(self.taps) for each in blocks]

    def block_bytes(self, block: int) -> int:
        """Return the bytes of an output block's weights, without padding and structural zeros."""
        columns = min(self.columns, self.groups * self.n - block * self.columns)
        return self.channels * self.taps * columns

    def fill(self, out: np.ndarray, block: int, tap: int, source: int) -> None:
        """Put a tile's weights into zeros, (rows, cols)."""
        low, high = source * self.step, min((source + 1) * self.step, self.groups * self.channels)
        first = block * self.columns
        last = min(first + self.columns, self.groups * self.n)
        # Where a group's rows and columns meet: blocks on the diagonal.
        for group in range(max(low // self.channels, first // self.n), self.groups):
            k_low, k_high = max(low, group * self.channels), min(high, (group + 1) * self.channels)
            n_low, n_high = max(first, group * self.n), min(last, (group + 1) * self.n)
            if k_low >= high or n_low >= last:
                break
            if k_low < k_high and n_low < n_high:
                k, n = group * self.channels, group * self.n
                out[k_low - low : k_high - low, n_low - first : n_high - first] = self.w[
                    group, k_low - k : k_high - k, tap, n_low - n : n_high - n
                ]


def column_terms(lowered: Lowered) -> dict[str, np.ndarray] | None:
    """Return the terms of an epilogue as one value for each channel; None if it has others."""
    e = lowered.epilogue
    channels = lowered.gemm.groups * lowered.gemm.n
    if e.w_zero is not None and np.any(e.w_zero):
        return None
    terms = {"scale": e.scale, "late_scale": e.late_scale, "float_bias": e.float_bias}
    if any(each is not None and each.ndim > 1 for each in (e.constant, e.x_zero, *terms.values())):
        return None
    constant = np.zeros(channels, np.int32)
    with np.errstate(over="ignore"):
        if e.constant is not None:
            constant = constant + e.constant
        if e.x_zero is not None and np.any(e.x_zero):
            if e.x_zero.ndim:
                return None
            constant = constant - operands.column_sums(lowered) * e.x_zero
    found = {"constant": constant.astype(np.int32, copy=False), **terms}
    return {
        name: np.broadcast_to(values, (channels,)) for name, values in found.items() if values is not None
    }


def epilogue_functions(
    name: str, e: Epilogue, terms: dict[str, np.ndarray], columns: int, cols: int, parts: int
) -> Iterator[Function]:
    """Yield the function of each block of output channels."""
    attributes: dict[str, Any] = {
        "dtype": e.dtype, "zero_point": int(e.zero_point), "rounding": e.rounding,
        "clamp": None if e.clamp is None else [int(bound) for bound in e.clamp],
    }  # fmt: skip
    channels = len(terms["constant"])
    for number, first in enumerate(range(0, channels, columns)):
        arrays = {}
        for key, values in terms.items():
            part = values[first : first + columns]
            arrays[key] = held = np.full(cols, part[-1], part.dtype)
            held[: len(part)] = part
        if e.table is not None:
            arrays["table"] = e.table
        yield Function(
            f"{name} {number}", kind="epilogue", parts=parts, attributes=attributes, arrays=arrays
        )
