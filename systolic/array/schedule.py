"""From queued tiles and streams to the values on the ports, cycle by cycle.

Everything queued stands in *local time*: what PE (0, 0) sees on cycle tau, PE (r, c) sees on
cycle tau + r + c. So row r's west port is fed r cycles late and column c's north port c cycles
late. A window of local time is filled once; the skew is a view of it with slanted strides.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

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
    return as_strided(
        local[ports - 1 :],
        shape=(cycles, ports),
        strides=(time_stride, port_stride - time_stride),
        writeable=True,
    )


def port_window(queues: Queues, config: ArrayConfig, now: int, cycles: int, memory: Workspace) -> Ports:
    """Return what stands on the ports on cycles now .. now + cycles - 1, in arrays of `memory`."""
    rows, cols = config.rows, config.cols
    west_start, north_start = now - (rows - 1), now - (cols - 1)
    stop = now + cycles
    activation = memory.zeros("activation", (stop - west_start, rows), config.activation_dtype)
    shift = memory.zeros("shift", (stop - west_start,), bool)
    swap = memory.zeros("swap", (stop - west_start,), bool)
    weight = memory.zeros("weight", (stop - north_start, cols), config.weight_dtype)
    for tile in queues.tiles:
        tile_stop = tile.start + rows
        first, last = max(tile.start, west_start), min(tile_stop, stop)
        if first < last:
            shift[first - west_start : last - west_start] = True
        # The tile enters bottom row first: its row i stands at local time tile_stop - 1 - i.
        depth, width = tile.w.shape
        first, last = max(tile_stop - depth, north_start), min(tile_stop, stop)
        if first < last:
            beats = tile.w[tile_stop - last : tile_stop - first][::-1]
            weight[first - north_start : last - north_start, :width] = beats
    for stream in queues.streams:
        first, last = max(stream.start, west_start), min(stream.stop, stop)
        if first < last:
            k = stream.x.shape[1]
            activation[first - west_start : last - west_start, :k] = stream.x[
                first - stream.start : last - stream.start
            ]
            if stream.swap and first == stream.start:
                swap[first - west_start] = True
    return Ports(
        skewed(activation, cycles, rows),
        skewed(shift, cycles, rows),
        skewed(swap, cycles, rows),
        skewed(weight, cycles, cols),
        np.broadcast_to(np.int32(0), (cycles, cols)),
    )
