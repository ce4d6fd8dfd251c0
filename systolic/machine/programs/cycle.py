"""Programs in cycle mode: the array is clocked, and the memories are used when the clock gets there."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from systolic.array import SystolicArray
from systolic.array.queues import Sink
from systolic.array.state import State
from systolic.config import ArrayConfig
from systolic.machine.programs.memories import Memories
from systolic.machine.programs.progress import ClockProgress
from systolic.machine.programs.steps import Fetch, Multiply, Steps, Task
from systolic.machine.programs.wavefront import Hook
from systolic.machine.timeline import Timeline


class Event(NamedTuple):
    """The begin or the end of an instruction, in the order in which they happen."""

    cycle: int
    number: int
    """Of the instruction: of two events of a cycle, the earlier instruction's comes first."""
    is_end: bool
    step: Multiply | Fetch | Task


def run_by_clock(
    steps: Steps,
    memories: Memories,
    timeline: Timeline,
    threads: int,
    progress: ClockProgress,
    hook: Hook | None,
) -> float:
    """Run a program by the clock, and return the seconds that the array took.

    An instruction reads its rows when it starts, a multiply each row when it enters the array; results are
    written when the instruction completes. So a missing interlock gives other bytes.

    Parameters
    ----------
    steps : Steps
    memories : Memories
        Changed in place.
    timeline : Timeline
        When everything happens.
    threads : int
    progress : ClockProgress
    hook : callable, optional
        Called before each instruction.

    Raises
    ------
    RuntimeError
        If the array's clock does not agree with the timeline: a bug of this package.
    """
    unit = _MatrixUnit(steps, memories, timeline, threads)
    tiles: list[np.ndarray] = []
    results: dict[int, Any] = {}
    for cycle, number, is_end, step in events(steps, timeline):
        unit.run_to(cycle, progress)
        if not is_end and hook is not None:
            hook(number, memories)
        if isinstance(step, Multiply):
            if not is_end:
                unit.queue(step, tiles[step.order])
        elif isinstance(step, Fetch):
            if not is_end:
                tiles += [tile.copy() for tile in memories.weights[step.tile : step.tile + step.count]]
        elif is_end:
            step.write(memories, results.pop(number))
        else:
            results[number] = step.read(memories)
    unit.check_drained(timeline.cycles)
    return unit.seconds


def events(steps: Steps, timeline: Timeline) -> list[Event]:
    """Return the begins and ends of all instructions that move or compute data."""
    start, complete = timeline.start.tolist(), timeline.complete.tolist()
    shifts = dict(zip(timeline.multiplies.tolist(), timeline.shift_start.tolist(), strict=True))
    found = []
    # A stream without new weights may begin after the next tile's shift did: they are queued in their order.
    queued = timeline.cycles
    for step in reversed(steps.steps):
        number = step.number
        first = start[number]
        if isinstance(step, Multiply):
            first = queued = min(queued, shifts[number] if step.new_weights else first)
        found += [Event(first, number, False, step), Event(complete[number], number, True, step)]
    return sorted(found, key=lambda event: event[:3])


class _MatrixUnit:
    """The array in the machine: streams in flight, and the accumulators below."""

    def __init__(self, steps: Steps, memories: Memories, timeline: Timeline, threads: int) -> None:
        self._config, self._memories, self._threads = steps.machine.array, memories, threads
        assert steps.machine.memory is not None
        self._factor = steps.machine.memory.width_factors[0]
        multiplies = timeline.multiplies.tolist()
        times = zip(timeline.shift_start.tolist(), timeline.swap.tolist(), strict=True)
        self._times = dict(zip(multiplies, times, strict=True))
        self._now = 0
        self._arrays: list[_Clocked] = []  # the last one takes tiles; others drain
        self.seconds = 0.0

    def run_to(self, cycle: int, progress: ClockProgress) -> None:
        """Clock up to a cycle."""
        started = perf_counter()
        for array in self._arrays:
            array.run_to(cycle, self._threads, progress)
        if len(self._arrays) > 1:
            self._arrays = [a for a in self._arrays[:-1] if a.drained > cycle] + self._arrays[-1:]
        progress.up_to(cycle)
        self._now = cycle
        self.seconds += perf_counter() - started

    def queue(self, step: Multiply, tile: np.ndarray) -> None:
        """Queue a multiply: its tile to shift in, if it has one, and its rows."""
        config = replace(
            self._config, activation_dtype=step.activation.name, weight_dtype=step.weight.name
        )
        tile = tile.view(step.weight)
        if not self._arrays or self._arrays[-1].config != config:
            self._arrays.append(_Clocked(config, self._now, None if step.new_weights else tile))
        array = self._arrays[-1]
        rows = _Rows(step, self._memories, self._factor, config.rows)
        sink = _sink(step, self._memories, self._factor)
        shift, swap = self._times[step.number]
        found = array.queue(tile if step.new_weights else None, rows, sink, (shift, swap))
        if found != (shift, swap):
            raise RuntimeError(
                f"internal error: instruction {step.number} shifts and swaps at cycles {found} in the array, "
                f"but at {(shift, swap)} in the timeline; please report it"
            )

    def check_drained(self, cycles: int) -> None:
        """Raise RuntimeError if something is still in flight at the end."""
        last = max((array.drained for array in self._arrays), default=0)
        if last > cycles:
            raise RuntimeError(
                f"internal error: the array drains at cycle {last}, but the timeline ends at {cycles}; "
                "please report it"
            )


class _Clocked:
    """An array that starts at a cycle, and is clocked only while it changes.

    Parameters
    ----------
    config : ArrayConfig
    cycle : int
    tile : ndarray, optional
        What its PEs hold at first.
    """

    def __init__(self, config: ArrayConfig, cycle: int, tile: np.ndarray | None) -> None:
        state = State.idle(config).replace(cycle=cycle, queues=None)
        if tile is not None:
            state = state.replace(weight=tile)
        self.config, self.drained = config, cycle
        self._array = SystolicArray(config).restore(state)

    def queue(
        self, tile: np.ndarray | None, rows: _Rows, sink: Sink, not_before: tuple[int, int]
    ) -> tuple[int, int]:
        """Queue rows, behind a tile if there is one; return when the tile shifts and when the rows stream."""
        if tile is None:
            times = not_before[0], self._array.queue_stream(rows, sink, not_before=not_before[1])
        else:
            times = self._array.queue_fold(tile, rows, sink, not_before=not_before)
        queues = self._array.state().queues
        assert queues is not None
        self.drained = queues.drained_at(self.config, self._array.cycle)
        return times

    def run_to(self, cycle: int, threads: int, progress: ClockProgress) -> None:
        """Clock up to a cycle."""
        array, first = self._array, self._array.cycle
        # One edge more than the last beat takes, and registers behind it hold zeros again.
        busy = min(cycle, self.drained + 1)
        if busy > first:
            array.run(until=busy, threads=threads, progress=lambda done, _: progress.up_to(first + done))
        if cycle > array.cycle:
            # Nothing is in flight and the ports are idle: no register changes, only the clock moves on.
            array.restore(array.state().replace(cycle=cycle, queues=None))


class _Rows:
    """The rows that a multiply streams, each read when it enters the array, and kept for the skewed ports."""

    def __init__(self, step: Multiply, memories: Memories, factor: int, width: int) -> None:
        self._index, self._ub, self._factor = step.rows.index, memories.ub, factor
        self._rows = np.zeros((step.count * factor, width), step.activation)
        self._read = 0

    @property
    def shape(self) -> tuple[int, int]:
        rows, width = self._rows.shape
        return rows, width

    def __getitem__(self, some: slice) -> np.ndarray:
        if some.stop > self._read:
            # With operands that take several cycles for a row, the row enters in the first of them.
            first, last = -(-self._read // self._factor), -(-some.stop // self._factor)
            rows = self._ub[self._index[first:last], : self._rows.shape[1]]
            self._rows[first * self._factor : some.stop : self._factor] = rows.view(self._rows.dtype)
            self._read = some.stop
        return self._rows[some]


def _sink(step: Multiply, memories: Memories, factor: int) -> Sink:
    def collect(row: int, psums: np.ndarray) -> None:
        skipped = -row % factor
        sums = psums[skipped::factor]
        first = step.acc + (row + skipped) // factor
        if step.accumulate:
            memories.acc[first : first + len(sums)] += sums
        else:
            memories.acc[first : first + len(sums)] = sums

    return collect
