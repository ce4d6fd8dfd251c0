"""Make a later state from one: lay out the ports, run the kernel, call probes, collect psums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from systolic.array.queues import copy
from systolic.array.skew import Ports, port_window, skewed
from systolic.array.state import Registers, State
from systolic.array.workspace import workspace
from systolic.config import ArrayConfig
from systolic.dataflows import clock_counting
from systolic.trace.probe import Probe, changed

Assignment = tuple[Any, str, Any]
"""An object, the name of an attribute, and its new value."""


def advanced(
    config: ArrayConfig,
    old: State,
    cycles: int,
    threads: int,
    ports: Ports | None,
    bottom: np.ndarray | None,
    probes: Sequence[Probe],
    counting: Sequence[Probe] = (),
) -> tuple[State, list[Assignment], Exception | None]:
    """Clock a state; call probes after the last edge.

    Parameters
    ----------
    config : ArrayConfig
    old : State
        Not changed.
    cycles, threads : int
    ports : dict of str to ndarray, optional
        Port values; None: those that are queued.
    bottom : ndarray, (cycles, cols), optional
        Receives the leaving register of the bottom row after each edge.
    probes : sequence of Probe
        Those to be called.
    counting : sequence of Probe
        Those that are given the toggles of these edges.

    Returns
    -------
    state : State
    assignments : list of (object, str, object)
        Attributes of probes that change together with the state.
    error : Exception or None
        The first error of a probe.
    """
    queues = old.queues
    assert queues is not None  # State.idle and State.checked fill it in
    cols, sum_dtype = config.cols, config.format.sum
    dataflow = config.dataflow_record
    with workspace() as memory:
        if ports is None:
            ports = port_window(queues, config, old.cycle, cycles, memory)
        arrays: dict[str, Any] = {name: getattr(old, name).copy() for name in config.register_dtypes}
        # A psum leaves column c's bottom PE c cycles late: written through a skewed view, what
        # belongs to one row of x is one row of `below`. Outputs are views of it.
        keep = any(stream.sink is None for stream in queues.streams)
        shape = (cycles + cols - 1, cols)
        below = np.empty(shape, sum_dtype) if keep else memory.empty("below", shape, sum_dtype)
        copy(below[: cols - 1], queues.below)
        below[max(cycles, cols - 1) :] = 0  # not yet due
        leaving = skewed(below, cycles, cols)
        toggles = None
        if counting:
            toggles = clock_counting(dataflow, arrays, ports, leaving, threads, config.format)
        else:
            dataflow.kernels[config.format.kernel](arrays, ports, leaving, threads, config.format)
        for values in arrays.values():
            values.flags.writeable = False
        assignments, error = _at_stop(probes, old.cycle + cycles, arrays)
        if toggles is not None:
            for probe in counting:
                assignments += changed(probe.toggled(old.cycle + cycles, toggles), probe, {}, "toggled")
        if probes:  # the accumulators take what the registers hold now
            leaving[-1] = arrays[dataflow.leaves][-1]
        if bottom is not None:
            bottom[:] = leaving
        queues = queues.collected(config, old.cycle, below, cycles)
    return State(**arrays, cycle=old.cycle + cycles, queues=queues), assignments, error


def _at_stop(
    probes: Sequence[Probe], cycle: int, registers: dict[str, np.ndarray]
) -> tuple[list[Assignment], Exception | None]:
    """Call probes, which may change `registers`; return their assignments and the first error."""
    assignments: list[Assignment] = []
    first: Exception | None = None
    for probe in probes:
        try:
            change = probe.at_stop(cycle, Registers(registers))
            assignments += changed(change, probe, registers)
        except Exception as error:
            first = first or error
    return assignments, first
