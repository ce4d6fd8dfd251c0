"""``Timeline``: when each instruction of a program runs on a machine with memories, and what it waits for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from systolic import _check, _timeline
from systolic._show.columns import columns
from systolic._show.table import Table, percent
from systolic.config import MachineConfig, MemoryConfig
from systolic.isa import Program, ReadWeights
from systolic.isa.text import line_of
from systolic.machine.lanes import Lane, Occupancy, row_occupancies, steps, unit_lanes
from systolic.machine.layer_times import (
    LayerTime,
    layer_times,
    layers_table,
    plot_layer_cycles,
    time_stats,
    total_counts,
)
from systolic.machine.spans import CAUSES as CAUSES
from systolic.machine.spans import Spans, spans_of
from systolic.machine.trace_file import write_trace
from systolic.machine.work import Work
from systolic.machine.work import row_bytes as row_bytes
from systolic.machine.work import transfer_cycles as transfer_cycles
from systolic.stats import Stats
from systolic.viewer import View, describe_timeline


@dataclass(frozen=True, eq=False, repr=False)
class Timeline:
    """Times of a program's instructions, in cycles of the array's clock.

    Attributes
    ----------
    program : Program
    machine : MachineConfig
    cycles : int
        The last completion.
    dispatch, start, end, complete : ndarray of int64, (instructions,)
        `end` is when an instruction leaves its unit: a transfer, stream or vector operation is over.
    multiplies : ndarray of int64, (number of multiplies,)
        The numbers of the instructions that multiply; the next attributes have one element for each.
    shift_start, swap : ndarray of int64
        -1 for a multiply without new weights, which has no shift.
    fetch_start, fetch_arrival : ndarray of int64, (tiles,)
        Of each tile in the order of the program; -1 if it is never fetched, since no multiply makes room.
    spans : Spans
        What the array did or waited for from when until when; the spans follow each other without a gap.

    Notes
    -----
    Five units work in parallel, each in program order: host in, host out, weight fetch, matrix, vector. A
    read waits until earlier writers of its rows have completed; a write waits for those and until earlier
    readers have read. Multiplies order their accumulators by themselves. The memories, units and latencies
    are those of :class:`~systolic.MemoryConfig`.
    """

    program: Program
    machine: MachineConfig
    cycles: int
    dispatch: np.ndarray
    start: np.ndarray
    end: np.ndarray
    complete: np.ndarray
    multiplies: np.ndarray
    shift_start: np.ndarray
    swap: np.ndarray
    fetch_start: np.ndarray
    fetch_arrival: np.ndarray
    spans: Spans

    def __eq__(self, other: object) -> bool:
        # All else follows from these two.
        if not isinstance(other, Timeline):
            return NotImplemented
        return self.machine == other.machine and self.program == other.program

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def causes(self) -> dict[str, int]:
        """Cycles by what the array did or waited for: the keys are `CAUSES`, the sum is `cycles`."""
        return self.spans.totals()

    @property
    def stats(self) -> Stats:
        """The counts of the whole program, cycles by cause: the sum of those of :meth:`layers`."""
        counts = total_counts(self.program, self.machine)
        return counts + time_stats(self.cycles, self.causes, self.machine.array)

    def layers(self) -> tuple[LayerTime, ...]:
        """Return the time and counts of each layer of the program; the cycles add up to the total.

        A section's cycles are those by which it completes after all before it: what overlaps with an
        earlier one costs it nothing. Its cycles by cause are what the array did in that time. Sections of
        one name and kind are one layer, whose batch is cut. A program without sections counts as one
        layer, and instructions between two sections belong to the second.

        Notes
        -----
        `macs` and `weight_bytes` are those that the section states. Where it states none they follow from the
        weight image: a tile counts up to its last row and column that are not zero; without an image it
        counts whole. `activation_bytes`, `output_bytes` and `partial_sums` count rows whole: those streamed
        into the array, `rows` operands each, those that an Activate reads, and those that leave the array,
        `cols` sums each. Memories are read and written by whole rows and tiles;
        a tile that no multiply makes room for is not fetched.

        Examples
        --------
        >>> from systolic import presets
        >>> from systolic.isa import Program, Section
        >>> from systolic.machine import time_program
        >>> program = Program(
        ...     "read_weights w#0, 1 \\n read_host u#0, 8 \\n matmul a#0, u#0, 8 \\n activate u#8, a#0, 8",
        ...     sections=[Section("dense", "Dense", 0, 4, macs=8 * 200 * 100)],
        ... )
        >>> machine = presets.TPU_V1
        >>> (layer,) = time_program(program, machine).layers()
        >>> layer.name, layer.limit, layer.stats.macs
        ('dense', 'weight memory', 160000)
        """
        return self._layers

    @cached_property
    def _layers(self) -> tuple[LayerTime, ...]:
        return layer_times(self.program, self.machine, self.complete, self.spans)

    def layers_table(self) -> Table:
        """Return a row per layer: cycles, what the array did in them, and what limits the layer."""
        return layers_table(self.layers(), self.machine)

    @cached_property
    def units(self) -> tuple[Lane, ...]:
        """What each unit does, in the order of time: instructions, tile fetches, weight shifts."""
        rows = self.machine.array.rows
        fetched = self.fetch_start >= 0
        asked = [number for number, item in enumerate(self.program) if isinstance(item, ReadWeights)]
        counts = [self.program[number].count for number in asked]  # type: ignore[attr-defined]
        number = np.repeat(np.array(asked, np.int64), np.array(counts, np.int64))[fetched]
        arrival = self.fetch_arrival[fetched]
        latency = _memory_of(self.machine).weight_latency_cycles
        fetches = Lane("", number, self.fetch_start[fetched], arrival - latency, arrival)
        new = self.shift_start >= 0
        times = np.stack((self.start, self.end, self.complete))
        return unit_lanes(
            self.program, times, fetches, (self.multiplies[new], self.shift_start[new]), rows
        )

    def lanes(self) -> Table:
        """Return a row per event of each unit: its instruction, start, end and completion."""
        heads = columns("unit", "instruction", "text", "start_cycle", "end_cycle", "complete_cycle")
        rows = []
        for lane in self.units:
            for number, *times in zip(*(values.tolist() for values in lane[1:]), strict=True):
                rows.append((lane.unit, number, line_of(self.program[number]), *times))
        return Table(heads, rows, title=repr(self)[1:-1])

    def occupancy(self) -> dict[str, Occupancy]:
        """Return how full the memories are over time: ``"ub"``, ``"acc"`` and ``"fifo"``.

        A row is in use from the start of the instruction that writes it until its last reader has read
        it, or, if nothing reads it before it is written again, until the write completes. In the
        accumulators it is in use from its first sum on, `rows` cycles after the swap, and adding to it
        keeps it. Rows of a pattern count from the lowest to the highest. A tile takes its place in the
        FIFO when its transfer starts, and leaves it when its shift ends.
        """
        memory, array = _memory_of(self.machine), self.machine.array
        times = np.stack((self.start, self.end, self.complete))
        limits = {"ub": memory.unified_buffer_rows, "acc": array.accumulator_rows}
        found = row_occupancies(self.program, times, array.rows, limits, self.cycles)
        since = self.fetch_start[self.fetch_start >= 0]
        until = np.full(len(since), self.cycles)
        shifts = self.shift_start[self.shift_start >= 0] + array.rows
        until[: len(shifts)] = shifts
        fifo = steps("weight FIFO", "tiles", since, until, 1, memory.fifo_tiles, self.cycles)
        return {**found, "fifo": fifo}

    def save_trace(self, path: str | os.PathLike[str]) -> None:
        """Write the timeline as trace events (JSON) for https://ui.perfetto.dev or chrome://tracing.

        One microsecond in the viewer is a cycle. There is a lane per unit, one of what the array did or
        waited for, and a counter per memory. :func:`systolic.machine.read_trace` reads and checks the file.

        Raises
        ------
        FileNotFoundError
            If the folder is missing.
        """
        texts = [line_of(item) for item in self.program]
        write_trace(path, self.units, texts, self.spans, self.causes, self.occupancy(), self.cycles)

    def plot(self, *, first: int = 0, last: int | None = None) -> Any:
        """Draw units, causes of stalls and the memories' use over time; returns a matplotlib Figure.

        Parameters
        ----------
        first, last : int, optional
            Cycles to draw; default all.

        Raises
        ------
        ValueError
            If there is nothing to draw.
        ImportError
            If matplotlib is not installed.
        """
        from systolic._show.timelines import plot_units

        first = _check.integer(first, "first")
        last = None if last is None else _check.integer(last, "last")
        bars = {lane.unit: (lane.start, lane.end) for lane in self.units if lane.unit != "matrix"}
        causes = {cause: (self.spans.start[here], self.spans.end[here]) for code, cause in enumerate(CAUSES)
                  for here in [self.spans.cause == code]}  # fmt: skip
        curves = {o.memory: (o.cycle, o.used, o.limit, o.unit) for o in self.occupancy().values()}
        return plot_units(
            bars, causes, curves, cycles=self.cycles, first=first, last=last, title=repr(self)[1:-1]
        )

    def plot_layers(self, *, top: int | None = None) -> Any:
        """Draw the cycles of each layer by cause as stacked bars; returns a matplotlib Figure.

        Parameters
        ----------
        top : int, optional
            Only so many layers: those with the most cycles, in their order.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        layers = [(layer.name, layer.causes) for layer in self.layers()]
        return plot_layer_cycles(layers, top, f"Cycles by cause, {self.cycles:,} in all")

    def view(self, *, title: str = "") -> View:
        """Return the timeline as an interactive page or notebook widget: a lane for each unit.

        Raises
        ------
        ValueError
            If the page would be larger than 5 MB; :meth:`save_trace` takes timelines of any size.

        Examples
        --------
        >>> from systolic import presets
        >>> from systolic.isa import Program
        >>> from systolic.machine import time_program
        >>> program = Program("read_weights w#0, 1 \\n read_host u#0, 8 \\n matmul a#0, u#0, 8")
        >>> time_program(program, presets.TPU_V1).view()
        <View of Program: cycles 0 to 2125>
        """
        described = describe_timeline(
            cycles=self.cycles,
            texts=[line_of(item) for item in self.program],
            lanes={lane.unit: lane[1:] for lane in self.units},
            causes=CAUSES,
            spans=self.spans[:3],
            totals=list(self.causes.values()),
            memories=[(o.memory, o.unit, o.cycle, o.used, o.limit) for o in self.occupancy().values()],
            title=title or "Program",
            about=repr(self)[1:-1],
        )
        return View(described)

    def table(self) -> Table:
        """Return a row per instruction: its text and times."""
        rows = [
            (number, line_of(instruction), *(int(times[number]) for times in self._times))
            for number, instruction in enumerate(self.program)
        ]
        times = (f"{name}_cycle" for name in ("dispatch", "start", "end", "complete"))
        heads = columns("instruction", "text", *times)
        return Table(heads, rows, title=repr(self)[1:-1])

    @property
    def _times(self) -> tuple[np.ndarray, ...]:
        return self.dispatch, self.start, self.end, self.complete

    def to_frame(self) -> Any:
        """Return :meth:`table` as a pandas frame; needs ``pip install "systolic[pandas]"``."""
        return self.table().to_frame()

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def __repr__(self) -> str:
        active = percent(self.causes["active"] / self.cycles) if self.cycles else "0.0%"
        plural = "" if len(self.program) == 1 else "s"
        return (
            f"<Timeline: {len(self.program):,} instruction{plural}, {self.cycles:,} cycles, {active} active>"
        )


def time_program(program: Program, machine: MachineConfig) -> Timeline:
    """Return when each instruction runs, without computing any data.

    Parameters
    ----------
    program : Program
    machine : MachineConfig
        With a :class:`~systolic.MemoryConfig`.

    Raises
    ------
    ValueError
        If the machine has no memories, an address lies beyond one, or a multiply has no tile: the message
        names the instruction, the address and the limit. If weight tiles are of another array, or the program
        could take more than 2**62 cycles.

    Examples
    --------
    >>> from systolic import ArrayConfig, MachineConfig, MemoryConfig
    >>> from systolic.isa import Program
    >>> from systolic.machine.timeline import time_program
    >>> memory = MemoryConfig(
    ...     weight_bytes=2**33, weight_bytes_per_second=48 * 700_000_000, unified_buffer_rows=98_304,
    ...     host_rows=2**20, host_bytes_per_second=22 * 700_000_000,
    ... )
    >>> machine = MachineConfig(ArrayConfig(256, 256), clock_mhz=700, memory=memory)
    >>> program = Program('''
    ...     read_weights w#0, 1
    ...     read_host u#0, 16
    ...     matmul a#0, u#0, 16
    ...     activate u#16, a#0, 16
    ...     write_host u#16, 16
    ... ''')
    >>> time_program(program, machine)
    <Timeline: 5 instructions, 2,352 cycles, 0.68% active>
    """
    memory = _memory_of(machine)
    array = machine.array
    work = Work(program, machine, memory)
    arrays = work.arrays
    times = np.zeros((4, len(program)), np.int64)
    numbers = np.zeros((7, len(work.multiplies)), np.int64)
    fetches = np.full((3, len(work.dispatchers)), -1, np.int64)
    cycles = _timeline.run(
        arrays.opcode, work.busy, arrays.new_weights, work.dispatchers, arrays.first_range,
        arrays.memory, arrays.is_write, arrays.low, arrays.high,
        np.zeros((3, 3, max(arrays.segments, 1)), np.int64), array.rows, array.cols, array.double_buffered,
        work.tile_transfer, memory.weight_latency_cycles, min(memory.fifo_tiles, len(work.dispatchers) + 1),
        memory.host_latency_cycles, memory.activation_latency_cycles, memory.issue_cycles,
        times, numbers, fetches,
    )  # fmt: skip
    multiplies = work.multiplies
    spans = spans_of(numbers, work.busy[multiplies], cycles)
    for kept in (times, numbers, fetches):  # programs keep timelines from run to run
        kept.flags.writeable = False
    dispatch, start, end, complete = times
    return Timeline(
        program, machine, cycles, dispatch, start, end, complete, multiplies, numbers[4], numbers[5],
        fetches[0], fetches[1], spans,
    )  # fmt: skip


def _memory_of(machine: Any) -> MemoryConfig:
    if not isinstance(machine, MachineConfig):
        raise TypeError(f"machine must be a MachineConfig with memories, not {type(machine).__name__}")
    if machine.memory is None:
        raise ValueError(
            "a program needs a machine with memories: MachineConfig(..., memory=MemoryConfig(...))"
        )
    return machine.memory
