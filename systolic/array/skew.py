"""From queued tiles and streams to port values, cycle by cycle.

Everything queued is in *local time*: what PE (0, 0) sees on cycle tau, PE (r, c) sees on
cycle tau + r + c. So row r's west port is fed r cycles late and column c's north port c cycles
late. A window of local time is filled once; the skew is a view of it with slanted strides.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from systolic.array.queues import Queues
from systolic.array.workspace import Workspace
from systolic.config import ArrayConfig

Ports = dict[str, np.ndarray]
"""Port values of some cycles, by port: west ports (cycles, rows), north ports (cycles, cols)."""


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


def idle_ports(config: ArrayConfig, cycles: int) -> Ports:
    """Return zeros for all ports."""
    sizes = {"west": config.rows, "north": config.cols}
    return {
        port.name: np.ndarray((cycles, sizes[port.side]), config.port_dtypes[port.name], _ZERO, 0, (0, 0))
        for port in config.dataflow_record.ports
    }


def port_window(queues: Queues, config: ArrayConfig, now: int, cycles: int, memory: Workspace) -> Ports:
    """Return the port values of cycles now .. now + cycles - 1, in arrays of `memory`."""
    dataflow = config.dataflow_record
    beats: dict[str, list[tuple[int, Any]]] = {port.name: [] for port in dataflow.ports}
    for tile in queues.tiles:
        for name, start, values in dataflow.shift_beats(tile.start, tile.w, config.rows):
            beats[name].append((start, values))
    for stream in queues.streams:
        for name, start, values in dataflow.stream_beats(
            stream.start, stream.leaves, stream.x, stream.swap, config.rows
        ):
            beats[name].append((start, values))
    ports = idle_ports(config, cycles)
    for port in dataflow.ports:
        name = port.name
        if not beats[name]:
            continue
        size, dtype = ports[name].shape[1], ports[name].dtype
        # The last of the ports lags by size - 1 cycles: the window begins that much earlier.
        first, stop = now - (size - 1), now + cycles
        inside = []
        for start, values in beats[name]:
            end = start + (values if isinstance(values, int) else values.shape[0])
            if max(start, first) < min(end, stop):
                inside.append((max(start, first), min(end, stop), start, values))
        if dtype.kind == "b":
            local = memory.zeros(name, (stop - first,), bool)
            for begin, end, _, _ in inside:
                local[begin - first : end - first] = True
        else:
            lines = [(begin - first, v[begin - start : end - start]) for begin, end, start, v in inside]
            local = memory.place(name, (stop - first, size), dtype, lines)
        ports[name] = skewed(local, cycles, size)
    return ports


_ZERO = np.zeros(8, dtype=np.uint8)
