"""Process arrays block by block, so that memory use does not grow with the tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from systolic import _check, _hints

# Elements worked on at a time: float32 temporaries of 512 KiB stay in a core's L2 cache.
BLOCK = 1 << 17


def map_blocks(
    function: Callable[..., None],
    source: np.ndarray,
    out: np.ndarray,
    channels: tuple[np.ndarray, ...],
    axis: int | None,
    name: str,
    work_dtype: type[np.generic] = np.float32,
    block_size: int = 0,
) -> None:
    """Call function(source block, *channel values, work array, out block) on all blocks.

    The arrays are seen as (outer, channels, inner); `channels` are 0-d or (C,) arrays, (C,) exactly
    if `axis` is given. With `block_size` they have the source's axes, and one value along `axis` for
    so many elements. The work array has the block's shape and `work_dtype`.
    """
    shape, count = source.shape, 1
    view = (1, 1, source.size)
    if axis is not None or block_size:
        if axis is None or not -len(shape) <= axis < len(shape):
            raise ValueError(f"axis must be an axis of {name} {_check.shape(shape)}, not {axis}")
        axis %= len(shape)
        view = (math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))
        count = -(-shape[axis] // block_size) if block_size else channels[0].size
        if not block_size and shape[axis] != count:
            raise ValueError(
                f"{name} must have {count} channels along axis {axis}, one per scale, "
                f"not {shape[axis]} {_check.shape(shape)}{_hints.other_axis(shape, count)}"
            )
        expected = (*shape[:axis], count, *shape[axis + 1 :])
        for value in channels if block_size else ():
            if value.shape != expected:
                raise ValueError(
                    f"blocks of {block_size} along axis {axis} of {name} {_check.shape(shape)} need scales "
                    f"{_check.shape(expected)}, not {_check.shape(value.shape)}"
                )
    if not source.size:
        return
    # A fresh result is contiguous, so this is a view of it.
    flat_source, flat_out = np.ascontiguousarray(source).reshape(view), out.reshape(view)
    if not block_size:
        columns = [value.reshape(-1, 1) for value in channels]
        buffer = np.empty(min(BLOCK, source.size), work_dtype)
        for outer, channel, inner in _blocks(*view):
            part = flat_source[outer, channel, inner]
            work = buffer[: part.size].reshape(part.shape)
            function(part, *(column[channel] for column in columns), work, flat_out[outer, channel, inner])
        return
    blocks = [value.reshape(view[0], count, view[2]) for value in channels]
    for number in range(count):
        inside = slice(number * block_size, (number + 1) * block_size)
        for o, c, i in _blocks(view[0], min(block_size, view[1] - inside.start), view[2]):
            part = flat_source[:, inside][o, c, i]
            values = (block[o, number : number + 1, i] for block in blocks)
            function(part, *values, np.empty(part.shape, work_dtype), flat_out[:, inside][o, c, i])


def _blocks(outer: int, channels: int, inner: int) -> Iterator[tuple[slice, slice, slice]]:
    """Cut (outer, channels, inner) into blocks of at most BLOCK elements, long axes innermost."""
    inner_step = min(inner, BLOCK)
    channel_step = min(channels, BLOCK // inner_step)
    outer_step = min(outer, BLOCK // (inner_step * channel_step))
    for o in range(0, outer, outer_step):
        for c in range(0, channels, channel_step):
            for i in range(0, inner, inner_step):
                yield slice(o, o + outer_step), slice(c, c + channel_step), slice(i, i + inner_step)
