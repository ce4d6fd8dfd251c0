"""Machines that random programs run on, and how full their memories are, derived row by row and cycle by cycle."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from support.programs import LIMITS
from systolic import ArrayConfig, MachineConfig, MemoryConfig
from systolic.isa import Activate, ReadWeights, Vector, row_ranges
from systolic.machine import Timeline


def machine_of(values: dict[str, Any]) -> MachineConfig:
    """The configuration that the reference's arguments are, with a clock of 1 MHz."""
    rows, cols = values["rows"], values["cols"]
    tile = Fraction(values["tile_bytes"], rows * cols)
    memory = MemoryConfig(
        weight_bytes=rows * cols * LIMITS["tiles"],
        weight_bytes_per_second=values["weight_bytes_per_cycle"] / tile * 1_000_000,
        weight_latency_cycles=values["weight_latency"],
        fifo_tiles=values["fifo_tiles"],
        unified_buffer_rows=LIMITS["ub"],
        row_bytes=values["row_bytes"],
        lanes=values["lanes"],
        activation_latency_cycles=values["activation_latency"],
        host_rows=LIMITS["host"],
        host_bytes_per_second=values["host_bytes_per_cycle"] * 1_000_000,
        host_latency_cycles=values["host_latency"],
        issue_cycles=values["issue_cycles"],
        width_factors=values["width_factors"],
    )
    array = ArrayConfig(rows, cols, double_buffered=values["double_buffered"], accumulator_rows=LIMITS["acc"])
    return MachineConfig(array, clock_mhz=1, memory=memory)


def naive_rows(timeline: Timeline, memory: str) -> list[int]:
    """How many rows of a memory are in use in each cycle.

    For each row alone: its accesses in order, the values between its writes, and the cycles of each value.
    """
    accesses: dict[int, list[tuple[str, int, int]]] = {row: [] for row in range(LIMITS[memory])}
    for number, item in enumerate(timeline.program):
        written = None
        if isinstance(item, Activate | Vector):
            written = timeline.program.function_of(item).rows_written(item.rows)
        for of, is_write, first, count, _ in row_ranges(item, written):
            if of != memory:
                continue
            for row in range(first, first + count):
                start, end, complete = (
                    int(times[number]) for times in (timeline.start, timeline.end, timeline.complete)
                )
                if not is_write:
                    accesses[row].append(("read", start, end))
                elif memory == "acc":
                    kind = "add" if getattr(item, "accumulate", False) else "write"
                    accesses[row].append((kind, start + timeline.machine.array.rows, complete))
                else:
                    accesses[row].append(("write", start, complete))
    used = [0] * timeline.cycles
    for events in accesses.values():
        busy: set[int] = set()
        value: list[int] | None = None  # since when, until when
        for kind, start, end in events:
            if kind == "write" or (kind == "add" and value is None):
                if value is not None:
                    busy |= set(range(value[0], min(value[1], start)))
                value = [start, end]
            elif value is not None:
                value[1] = max(value[1], end)
        if value is not None:
            busy |= set(range(*value))
        for cycle in busy:
            used[cycle] += 1
    return used


def naive_fifo(timeline: Timeline) -> list[int]:
    """How many tiles the FIFO holds in each cycle."""
    shifts = [int(cycle) + timeline.machine.array.rows for cycle in timeline.shift_start if cycle >= 0]
    asked = sum(item.count for item in timeline.program if isinstance(item, ReadWeights))
    used = [0] * timeline.cycles
    for tile in range(asked):
        since = int(timeline.fetch_start[tile])
        if since >= 0:
            until = shifts[tile] if tile < len(shifts) else timeline.cycles
            for cycle in range(since, min(until, timeline.cycles)):
                used[cycle] += 1
    return used
