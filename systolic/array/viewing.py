"""What is queued in an array, as a view or an animation."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from systolic.array.advance import advanced
from systolic.array.queues import Queues
from systolic.array.state import State
from systolic.config import ArrayConfig
from systolic.trace.streams import arrived, stacked, view_of
from systolic.viewer import Stay, View

# A page or an animation has no use for more.
_MOST_CYCLES = 1 << 16


def view_of_queues(config: ArrayConfig, state: State, cycles: int | None, title: str) -> View:
    """Return so many edges from a state on as a view; all that is queued if `cycles` is None."""
    edges = _edges(config, state, cycles, "view")
    lines = [arrived(config, registers) for _, registers in _clocked(config, state, edges)]
    notes = [] if edges else ["Nothing is queued, so nothing moves: call view() before run()."]
    return view_of(
        config, state.cycle, state.registers, stacked(lines),
        # One edge more: the accumulators take the last sums.
        stays=_stays(config, _queues(state)), more=min(edges, 1), title=title, notes=notes,
    )  # fmt: skip


def animate_queues(
    config: ArrayConfig, state: State, cycles: int | None, path: str | os.PathLike[str], register: str | None,
    frames_per_second: float,
) -> None:  # fmt: skip
    """Write so many edges from a state on as an animation; all that is queued if `cycles` is None."""
    from systolic._show.animation import write_animation

    edges = _edges(config, state, cycles, "animate")

    def frames() -> Iterator[tuple[int, Mapping[str, np.ndarray]]]:
        yield state.cycle, state.registers
        yield from _clocked(config, state, edges)

    write_animation(
        path, frames, edges + 1, parts=config.dataflow_record.registers, register=register,
        frames_per_second=frames_per_second,
    )  # fmt: skip


def _clocked(config: ArrayConfig, state: State, edges: int) -> Iterator[tuple[int, Mapping[str, np.ndarray]]]:
    """Return the cycle and the registers after each edge; sums go nowhere."""
    queues = _queues(state)
    streams = tuple(replace(stream, sink=_ignore, done=()) for stream in queues.streams)
    state = state.with_queues(replace(queues, streams=streams))
    for _ in range(edges):
        state, _, _ = advanced(config, state, 1, 1, None, None, ())
        yield state.cycle, state.registers


def _queues(state: State) -> Queues:
    assert state.queues is not None  # State.idle and State.checked fill it in
    return state.queues


def _edges(config: ArrayConfig, state: State, cycles: int | None, caller: str) -> int:
    edges = _queues(state).drained_at(config, state.cycle) - state.cycle if cycles is None else cycles
    if edges > _MOST_CYCLES:
        raise ValueError(
            f"{caller} shows at most {_MOST_CYCLES:,} cycles, not {edges:,}: pass fewer, such as "
            f"{caller}(cycles=1000)"
        )
    return edges


def _ignore(row: int, sums: np.ndarray) -> None:
    pass


def _stays(config: ArrayConfig, queues: Queues) -> list[Stay]:
    """Return what is queued as folds, each with an output of its own."""
    dataflow = config.dataflow_record
    stays: list[Stay] = []
    for stream in queues.streams:
        lines, other = stream.x.shape
        # The last that is there when the stream begins, or begins with it.
        tiles = [t for t in queues.tiles if (t.start if dataflow.held else t.stop) <= stream.start]
        tile = tiles[-1] if tiles else None
        width = config.cols if tile is None else tile.w.shape[1]
        m, k, n = (other, lines, width) if dataflow.held else (lines, other, width)
        if dataflow.exchanged:
            m, n = n, m
        shift = tile.start if tile is not None and stream.swap else None
        stays.append(
            Stay(shift, stream.start, lines, stream.leaves, (0, m), (0, k), (0, n), output=len(stays))
        )
    return stays
