"""From queued tiles and streams to the values on the ports, cycle by cycle.

Everything queued stands in *local time*: what PE (0, 0) sees on cycle tau, PE (r, c) sees on
cycle tau + r + c. So row r's west port is fed r cycles late and column c's north port c cycles
late. A window of local time is filled once; the skew is a view of it with slanted strides.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from systolic.array.state import Queues
from systolic.array.workspace import Workspace
from systolic.config import ArrayConfig


class Ports(NamedTuple):
    """Port values of some cycles: the west ports (cycles, rows), the north ports (cycles, cols)."""

    activation: np.ndarray
    shift: np.ndarray
    swap: np.ndarray
    weight: np.ndarray
    psum: np.ndarray


def skewed(local: np.ndarray, cycles: int, ports: int) -> np.ndarray:
    """Return the view in which port p runs p cycles late.

    Parameters
    ----------
    local : ndarray, (cycles + ports - 1, ports) or (cycles + ports - 1,)
        Local-time values, the first ``ports - 1`` of them before the first cycle; with one
        axis, the same for every port.

    Returns
    -------
    ndarray, (cycles, ports)
        Element [t, p] is local[t + ports - 1 - p, p].
    """
    time_stride = local.strides[0]
    port_stride = local.strides[1] if local.ndim == 2 else 0
    # as_strided does the same in ten times as long.
    strides = (time_stride, port_stride - time_stride)
    return np.ndarray((cycles, ports), local.dtype, local, (ports - 1) * time_stride, strides)


def port_window(queues: Queues, config: ArrayConfig, now: int, cycles: int, memory: Workspace) -> Ports:
    """Return what stands on the ports on cycles now .. now + cycles - 1, in arrays of `memory`."""
    rows, cols = config.rows, config.cols
    west_start, north_start = now - (rows - 1), now - (cols - 1)
    stop = now + cycles
    shift = memory.zeros("shift", (stop - west_start,), bool)
    swap = memory.zeros("swap", (stop - west_start,), bool)
    beats: list[tuple[int, np.ndarray]] = []
    for tile in queues.tiles:
        tile_stop = tile.start + rows
        first, last = max(tile.start, west_start), min(tile_stop, stop)
        if first < last:
            shift[first - west_start : last - west_start] = True
        # The tile enters bottom row first: its row i stands at local time tile_stop - 1 - i.
        first, last = max(tile_stop - tile.w.shape[0], north_start), min(tile_stop, stop)
        if first < last:
            beats.append((first - north_start, tile.w[tile_stop - last : tile_stop - first][::-1]))
    lines: list[tuple[int, np.ndarray]] = []
    for stream in queues.streams:
        first, last = max(stream.start, west_start), min(stream.stop, stop)
        if first < last:
            lines.append((first - west_start, stream.x[first - stream.start : last - stream.start]))
            if stream.swap and first == stream.start:
                swap[first - west_start] = True
    activation = memory.laid("activation", (stop - west_start, rows), config.activation_dtype, lines)
    weight = memory.laid("weight", (stop - north_start, cols), config.weight_dtype, beats)
    return Ports(
        skewed(activation, cycles, rows),
        skewed(shift, cycles, rows),
        skewed(swap, cycles, rows),
        skewed(weight, cycles, cols),
        np.ndarray((cycles, cols), np.int32, _ZERO, 0, (0, 0)),
    )


_ZERO = np.zeros(1, dtype=np.int32)
