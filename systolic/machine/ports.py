"""What stands on every port of the array and its accumulators, cycle by cycle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from systolic import _check
from systolic.array.schedule import port_window, skewed
from systolic.array.state import QueuedStream, QueuedTile, Queues
from systolic.array.workspace import Workspace
from systolic.config import ArrayConfig, as_array_config
from systolic.gemm import Gemm
from systolic.tiling import Folds, estimate_gemm

# Cycles filled at a time.
_WINDOW = 256


class PortValues(NamedTuple):
    """The ports on one cycle: the values that this edge consumes.

    Attributes
    ----------
    cycle : int
        Counted from 0.
    activation : ndarray of the activation type, (rows,)
    shift, swap : ndarray of bool, (rows,)
    weight : ndarray of the weight type, (cols,)
    psum : ndarray of int32, (cols,)
    write : ndarray of bool, (cols,)
        Whether the accumulators below a column take the psum that stood at its bottom before
        this edge.
    half, row : ndarray of int32, (cols,)
        Where they put it; 0 where nothing is written.
    first : ndarray of bool, (cols,)
        Whether it overwrites what stands there: a chunk's first k tile; else it is added.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import ArrayConfig, ports
    >>> first = next(ports(np.int8([[1]]), np.int8([[7]]), array=ArrayConfig(1, 1)))
    >>> first.cycle, first.weight, first.shift
    (0, array([7], dtype=int8), array([ True]))
    """

    cycle: int
    activation: np.ndarray
    shift: np.ndarray
    swap: np.ndarray
    weight: np.ndarray
    psum: np.ndarray
    write: np.ndarray
    half: np.ndarray
    row: np.ndarray
    first: np.ndarray


def ports(x: Any, w: Any, *, array: ArrayConfig | None = None) -> Iterator[PortValues]:
    """Return what a product puts on the ports, for vectors, RTL comparison and scoreboards.

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
    x, w = _check.matrices(x, w)
    gemm = Gemm(x.shape[0], x.shape[1], w.shape[1])
    config = ArrayConfig() if array is None else as_array_config(array)
    config = replace(config, activation_dtype=x.dtype.name, weight_dtype=w.dtype.name)
    return _ports(x, w, gemm, config)


def _ports(x: np.ndarray, w: np.ndarray, gemm: Gemm, config: ArrayConfig) -> Iterator[PortValues]:
    rows, cols = config.rows, config.cols
    folds = Folds(gemm, config)
    if not len(folds):
        return
    total = estimate_gemm(gemm, config).cycles + 1
    k_tiles = -(-gemm.k // rows)
    # A psum of local time tau is written at column c on the edge of cycle tau + rows + c.
    reach = rows + max(rows, cols)
    passed = 0  # folds that have left all ports
    memory = Workspace()
    for start in range(0, total, _WINDOW):
        cycles = min(_WINDOW, total - start)
        oldest = start - rows - (cols - 1)
        below = np.zeros((4, cycles + cols - 1, cols), dtype=np.int32)
        queues = Queues.empty(cols)
        for i in range(passed, len(folds)):
            fold = folds[i]
            if fold.shift_cycle >= start + cycles:
                break
            if fold.swap_cycle + fold.m + reach < start:
                passed = i + 1
                continue
            tile = w[fold.k_start : fold.k_stop, fold.n_start : fold.n_stop]
            stream = x[fold.m_start : fold.m_stop, fold.k_start : fold.k_stop]
            queues = replace(
                queues,
                tiles=(*queues.tiles, QueuedTile(fold.shift_cycle, tile)),
                streams=(*queues.streams, QueuedStream(fold.swap_cycle, stream, True)),
            )
            first = max(fold.swap_cycle, oldest)
            last = min(fold.swap_cycle + fold.m, oldest + len(below[0]))
            if first < last:
                window = below[:, first - oldest : last - oldest, : fold.n]
                window[0] = 1
                window[1] = i // k_tiles % 2
                window[2] = np.arange(first - fold.swap_cycle, last - fold.swap_cycle)[:, None]
                window[3] = fold.k_start == 0
        values = port_window(queues, config, start, cycles, memory)
        write, half, row, overwrite = (skewed(field, cycles, cols) for field in below)
        for t in range(cycles):
            activation, shift, swap, weight, psum = (port[t].copy() for port in values)
            yield PortValues(
                start + t,
                activation,
                shift,
                swap,
                weight,
                psum,
                write[t].astype(bool),
                half[t].copy(),
                row[t].copy(),
                overwrite[t].astype(bool),
            )
