"""The values on every port of the array and its accumulators, cycle by cycle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from systolic import _check
from systolic.array.queues import Queues, queued_fold
from systolic.array.skew import port_window, skewed
from systolic.array.workspace import Workspace
from systolic.config import ArrayConfig, as_array_config
from systolic.formats import OPERANDS
from systolic.lowered import Lowered, lower_matmul
from systolic.machine import operands
from systolic.tiling import schedule

# Cycles filled at a time.
_WINDOW = 256


class PortValues(NamedTuple):
    """The ports on one cycle: the values that this edge consumes.

    Attributes
    ----------
    cycle : int
        Counted from 0.
    ports : mapping of str to ndarray, (rows,) or (cols,)
        By the names of the dataflow's ports, which are attributes too: `activation`, `shift`, `swap`,
        `weight` and `psum` if weight stationary; `activation`, `swap`, `drain`, `weight` and `out` if output
        stationary. ``array.step(**values.ports)`` drives them.
    write : ndarray of bool, (cols,)
        Whether the accumulators below a column take the sum that was at its bottom before
        this edge.
    half, row : ndarray of int32, (cols,)
        Where they put it; 0 where nothing is written. Input stationary, rows are columns of the product.
        Output stationary, each half takes one fold's sums.
    first : ndarray of bool, (cols,)
        Whether it replaces the sum there: a chunk's first k tile, or any if output stationary; else it is
        added.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import ArrayConfig, ports
    >>> first = next(ports(np.int8([[1]]), np.int8([[7]]), array=ArrayConfig(1, 1)))
    >>> first.cycle, first.weight, first.shift
    (0, array([7], dtype=int8), array([ True]))
    """

    cycle: int
    ports: Mapping[str, np.ndarray]
    write: np.ndarray
    half: np.ndarray
    row: np.ndarray
    first: np.ndarray

    def __getattr__(self, name: str) -> np.ndarray:
        try:
            return self.ports[name]
        except KeyError:
            raise AttributeError(f"no port {name!r}; the ports are {', '.join(self.ports)}") from None


def ports(x: Any, w: Any, *, array: ArrayConfig | None = None) -> Iterator[PortValues]:
    """Return the port values of a product, for vectors, RTL comparison and scoreboards.

    Parameters
    ----------
    x : array_like of int8 or uint8, (M, K)
    w : array_like of int8 or uint8, (K, N)
    array : ArrayConfig, optional
        Sizes; default 256 x 256.

    Yields
    ------
    PortValues
        One for each cycle from reset, and one more for the last accumulator write, whose edge
        follows the last counted one.

    Raises
    ------
    TypeError, ValueError
        As :func:`systolic.matmul`; on the call, before the first cycle.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import ArrayConfig, ports
    >>> x, w = np.int8([[1, 2], [3, 4], [-5, 6]]), np.int8([[7, -8, 9], [10, 11, -12]])
    >>> for values in ports(x, w, array=ArrayConfig(2, 3)):
    ...     print(values.cycle, values.activation, values.weight, values.write.astype(int))
    0 [0 0] [10  0  0] [0 0 0]
    1 [0 0] [ 7 11  0] [0 0 0]
    2 [1 0] [  0  -8 -12] [0 0 0]
    3 [3 2] [0 0 9] [0 0 0]
    4 [-5  4] [0 0 0] [1 0 0]
    5 [0 6] [0 0 0] [1 1 0]
    6 [0 0] [0 0 0] [1 1 1]
    7 [0 0] [0 0 0] [0 1 1]
    8 [0 0] [0 0 0] [0 0 1]
    """
    x, w = _check.matrices(x, w, tuple(OPERANDS))
    config = (ArrayConfig() if array is None else as_array_config(array)).for_operands(x.dtype, w.dtype)
    return _each_cycle(lower_matmul(x, w), config)


def _each_cycle(lowered: Lowered, config: ArrayConfig) -> Iterator[PortValues]:
    for window in port_windows(lowered, config):
        for t in range(len(window.write)):
            yield PortValues(
                window.cycle + t,
                {name: values[t].copy() for name, values in window.ports.items()},
                window.write[t].astype(bool),
                window.half[t].copy(),
                window.row[t].copy(),
                window.first[t].astype(bool),
            )


def port_windows(lowered: Lowered, config: ArrayConfig) -> Iterator[PortValues]:
    """Return the port values of lowered work, many cycles at a time: each field has a line for each cycle.

    Parameters
    ----------
    lowered : Lowered
    config : ArrayConfig
        With the operands' types.

    Yields
    ------
    PortValues
        Arrays are valid until the next one is asked for; `write` and `first` hold 0 and 1.
    """
    plan = schedule(lowered.gemm, config)
    rows, cols, folds = config.rows, config.cols, plan.folds
    if not plan.cycles:
        return
    dataflow = config.dataflow_record
    # A sum of local time tau is written at column c on the edge of cycle tau + rows + c.
    reach = rows + max(rows, cols)
    passed = 0  # folds that have left all ports
    memory = Workspace()
    for start in range(0, plan.cycles + 1, _WINDOW):
        cycles = min(_WINDOW, plan.cycles + 1 - start)
        oldest = start - rows - (cols - 1)
        below = np.zeros((4, cycles + cols - 1, cols), dtype=np.int32)
        tiles, streams = [], []
        for i in range(passed, len(folds)):
            fold = folds[i]
            if fold.shift_cycle >= start + cycles:
                break
            tile, stream = queued_fold(
                config,
                *operands.fold_operands(dataflow, lowered, fold),
                fold.shift_cycle,
                fold.swap_cycle,
            )
            if stream.stop + reach < start:
                passed = i + 1
                continue
            tiles.append(tile)
            streams.append(stream)
            first, last = max(stream.leaves, oldest), min(stream.stop, oldest + len(below[0]))
            if first < last:
                row = dataflow.row_of(np.arange(first - stream.leaves, last - stream.leaves), rows)
                window = below[:, first - oldest : last - oldest, : tile.w.shape[1]]
                window += (row < (fold.n if dataflow.exchanged else fold.m))[:, None]
                window[1] *= plan.half(i)
                window[2] *= row[:, None]
                window[3] *= fold.k_start == 0
        queues = replace(Queues.empty(cols, config.format.sum), tiles=tuple(tiles), streams=tuple(streams))
        values = port_window(queues, config, start, cycles, memory)
        yield PortValues(start, values, *(skewed(field, cycles, cols) for field in below))
