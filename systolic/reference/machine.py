"""The slow, obvious timing of a machine's program: one step per instruction, in Python integers.

Nothing here is clever, and nothing is shared with what it checks: instructions are recognized by the names of
their classes. Every interlock is found by a look at every earlier instruction.

Five units work side by side, each in program order: host in, host out, weight fetch, matrix, vector. Where
the rules leave a choice:

- An instruction's range of rows ends with its highest row, also if its pattern skips rows in between.
- A pattern alone says which rows an `Activate` or a `Vector` writes; `rows_written` counts without one.
- A `Vector` is busy for `rows`, however many inputs it has.
- A `Sync` does not wait for weights in flight, since `ReadWeights` completes at its dispatch.
- A `HostCall` waits for its host rows and then completes at once. It has no unit: two calls on different rows
  do not wait for each other.
- What has no unit is busy until it completes. It starts at its dispatch, a `HostCall` when its rows are free.
- A stream's width factor is that of the configuration last set before its multiply, and a drain that a
  single-buffered array waits for has the factor of its own stream.
- Only a multiply with new weights waits for that drain.
- The transfer of a tile ends with its last byte; `weight_latency` does not hold back the next one.
- The FIFO waits for tiles in the order of the program; a tile that no multiply takes is not timed.
- A multiply waits for UB rows in a RAW stall if any of their last writers is an `Activate` or a `Vector`.
- Whether addresses are in a memory, and what follows a `Halt`, is not checked.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

HOST_UNIT = {"ReadHost": "host in", "WriteHost": "host out"}
VECTOR_UNIT = ("Activate", "Vector")
MULTIPLIES = ("MatrixMultiply", "Convolve")

Rows = tuple[str, range]
"""A memory and a range of its rows."""


class ProgramTimes(NamedTuple):
    """When everything in a program happens, in cycles. The lists have an entry per instruction.

    Attributes
    ----------
    dispatch, start : list of int
        The start of a multiply is its swap.
    busy_end : list of int
        When the unit is free for its next instruction; for multiplies the end of the stream.
    complete : list of int
        When what the instruction writes can be read.
    shift_start : list of int or None
        When the first weight of a multiply's tile enters the array; None without new weights.
    swap : list of int or None
        None but for multiplies.
    fetches : list of (int, int)
        Of each tile that a multiply takes, in order: when its transfer starts and when it arrives.
    causes : dict of str to int
        Cycles by cause: active, weight_stall, weight_shift, raw_stall, input_stall, accumulator_stall and
        other_stall.
    cycles : int
        When the last instruction completes: the sum of the causes.
    """

    dispatch: list[int]
    start: list[int]
    busy_end: list[int]
    complete: list[int]
    shift_start: list[int | None]
    swap: list[int | None]
    fetches: list[tuple[int, int]]
    causes: dict[str, int]
    cycles: int


class _Done(NamedTuple):
    """An instruction whose times are known."""

    kind: str
    reads: list[Rows]
    writes: list[Rows]
    dispatch: int
    start: int
    busy_end: int
    complete: int
    shift_start: int | None = None


def _counted(memory: str, first: int, count: int) -> Rows:
    return memory, range(first, first + count)


def _placed(memory: str, first: int, pattern: Sequence[tuple[int, int]]) -> Rows:
    """Return the rows from the lowest to the highest that a pattern at an address visits."""
    visited = [
        first + sum(index * stride for index, (_, stride) in zip(indices, pattern, strict=True))
        for indices in itertools.product(*(range(count) for count, _ in pattern))
    ]
    return memory, range(min(visited), max(visited) + 1)


def _reads(item: Any, kind: str) -> list[Rows]:
    if kind == "ReadHost":
        return [_counted("host", item.host, item.rows)]
    if kind in ("WriteHost", "MatrixMultiply"):
        return [_counted("ub", item.ub, item.rows)]
    if kind == "Convolve":
        return [_placed("ub", item.ub, item.pattern)]
    if kind == "Activate":
        return [_counted("acc", item.acc, item.rows)]
    if kind == "Vector":
        return [_counted("ub", first, item.rows) for first in item.inputs]
    if kind == "HostCall":
        return [_counted("host", first, count) for first, count in item.reads]
    return []


def _writes(item: Any, kind: str, rows_written: Callable[[Any], int]) -> list[Rows]:
    if kind == "ReadHost":
        return [_counted("ub", item.ub, item.rows)]
    if kind == "WriteHost":
        return [_counted("host", item.host, item.rows)]
    if kind in MULTIPLIES:
        return [_counted("acc", item.acc, _streamed(item, kind))]
    if kind in VECTOR_UNIT and item.pattern is not None:
        return [_placed("ub", item.ub, item.pattern)]
    if kind in VECTOR_UNIT:
        return [_counted("ub", item.ub, rows_written(item))]
    if kind == "HostCall":
        return [_counted("host", first, count) for first, count in item.writes]
    return []


def _streamed(item: Any, kind: str) -> int:
    """Return the number of rows that a multiply streams."""
    if kind == "Convolve":
        return math.prod(count for count, _ in item.pattern)
    return item.rows


def _touch(some: list[Rows], others: list[Rows]) -> bool:
    """Return whether two lists of rows have a row in common."""
    return any(
        memory == other and max(rows.start, others_rows.start) < min(rows.stop, others_rows.stop)
        for memory, rows in some
        for other, others_rows in others
    )


def _last(times: list[int], otherwise: int = 0) -> int:
    return max(times, default=otherwise)


def time_program(
    instructions: Sequence[Any],
    *,
    rows: int,
    cols: int,
    double_buffered: bool,
    tile_bytes: int,
    row_bytes: int,
    weight_bytes_per_cycle: Fraction,
    weight_latency: int,
    fifo_tiles: int,
    lanes: int | None,
    activation_latency: int,
    host_bytes_per_cycle: Fraction,
    host_latency: int,
    issue_cycles: int,
    width_factors: Sequence[int],
    rows_written: Callable[[Any], int],
) -> ProgramTimes:
    """Time a program.

    Parameters
    ----------
    instructions : sequence of Instruction
    rows, cols : int
        Size of the array.
    double_buffered : bool
        Whether a tile can be shifted in while another one is in use.
    tile_bytes, row_bytes : int
        Bytes of a weight tile, and of a row of the unified buffer and of host memory.
    weight_bytes_per_cycle, host_bytes_per_cycle : Fraction
    weight_latency, activation_latency, host_latency : int
        Cycles between the end of a unit's work and its completion.
    fifo_tiles : int
    lanes : int or None
        Columns that the vector unit does per cycle; None for all.
    issue_cycles : int
        Cycles from one dispatch to the next.
    width_factors : sequence of int, (3,)
        Cycles per streamed row with no, one and two operands of 16 bits.
    rows_written : callable
        The number of rows that an Activate or a Vector without a pattern writes.

    Returns
    -------
    ProgramTimes

    Raises
    ------
    ValueError
        If a multiply has no weights to take or to keep: the message names the instruction's number.

    Examples
    --------
    >>> from fractions import Fraction
    >>> from systolic.isa import MatrixMultiply, ReadWeights
    >>> from systolic.reference.machine import time_program
    >>> times = time_program(
    ...     [ReadWeights(tile=0), MatrixMultiply(ub=0, acc=0, rows=5)],
    ...     rows=2, cols=3, double_buffered=True, tile_bytes=6, row_bytes=3, lanes=None,
    ...     weight_bytes_per_cycle=Fraction(1), weight_latency=0, fifo_tiles=4, activation_latency=0,
    ...     host_bytes_per_cycle=Fraction(1), host_latency=0, issue_cycles=1, width_factors=(1, 1, 1),
    ...     rows_written=lambda instruction: instruction.rows,
    ... )
    >>> times.fetches, times.shift_start, times.swap, times.cycles
    ([(0, 6)], [None, 6], [None, 8], 17)
    """
    tile_transfer = math.ceil(tile_bytes / Fraction(weight_bytes_per_cycle))
    row_cycles = math.ceil(Fraction(cols, cols if lanes is None else lanes))
    causes = {
        "active": 0,
        "weight_stall": 0,
        "weight_shift": 0,
        "raw_stall": 0,
        "input_stall": 0,
        "accumulator_stall": 0,
        "other_stall": 0,
    }
    done: list[_Done] = []
    asked: list[int] = []  # of each tile: the dispatch of its ReadWeights
    fetches: list[tuple[int, int]] = []  # of each tile taken: start and arrival
    shift_ends: list[int] = []  # of each tile taken
    width_factor = width_factors[0]
    next_dispatch = 0

    for number, item in enumerate(instructions):
        kind = type(item).__name__
        d = next_dispatch
        next_dispatch = d + issue_cycles

        reads, writes = _reads(item, kind), _writes(item, kind, rows_written)
        # What the rows allow: a read waits for writers, a write for writers and readers.
        writers_of_reads = [before for before in done if _touch(before.writes, reads)]
        writers_of_writes = [before for before in done if _touch(before.writes, writes)]
        readers_of_writes = [before for before in done if _touch(before.reads, writes)]
        rows_free = max(
            _last([before.complete for before in writers_of_reads]),
            _last([before.complete for before in writers_of_writes]),
            _last([before.busy_end for before in readers_of_writes]),
        )

        if kind in HOST_UNIT:
            unit_free = _last([before.busy_end for before in done if before.kind == kind])
            start = max(d, unit_free, rows_free)
            busy_end = start + math.ceil(item.rows * row_bytes / Fraction(host_bytes_per_cycle))
            done.append(_Done(kind, reads, writes, d, start, busy_end, busy_end + host_latency))

        elif kind in VECTOR_UNIT:
            unit_free = _last([before.busy_end for before in done if before.kind in VECTOR_UNIT])
            start = max(d, unit_free, rows_free)
            busy_end = start + item.rows * row_cycles
            done.append(_Done(kind, reads, writes, d, start, busy_end, busy_end + activation_latency))

        elif kind in MULTIPLIES:
            multiplies = [before for before in done if before.kind in MULTIPLIES]
            with_new = [before for before in multiplies if before.shift_start is not None]
            previous_end = multiplies[-1].busy_end if multiplies else 0
            previous_drain = previous_end + rows + cols - 2 if multiplies else 0
            waits_for_drain = item.new_weights and not double_buffered

            # Of its writes only earlier reads count; earlier multiplies are ordered by the pipeline.
            input_complete = _last([before.complete for before in writers_of_reads])
            accumulators_free = _last([before.busy_end - rows for before in readers_of_writes])

            shift_start = None
            shift_end = 0
            if item.new_weights:
                tile = len(fetches)
                if tile >= len(asked):
                    raise ValueError(
                        f"instruction {number}: {kind} takes tile {tile} of the program, but earlier "
                        f"instructions read only {len(asked)}; put a ReadWeights before it"
                    )
                fetch = asked[tile]
                if tile >= 1:
                    fetch = max(fetch, fetches[tile - 1][0] + tile_transfer)
                if tile >= fifo_tiles:
                    fetch = max(fetch, shift_ends[tile - fifo_tiles])
                arrival = fetch + tile_transfer + weight_latency
                shift_start = max(d, arrival)
                if with_new:
                    shift_start = max(shift_start, with_new[-1].start)
                if waits_for_drain:
                    shift_start = max(shift_start, previous_drain)
                shift_end = shift_start + rows
                fetches.append((fetch, arrival))
                shift_ends.append(shift_end)
            elif not with_new:
                raise ValueError(
                    f"instruction {number}: {kind} keeps the weights, but no earlier multiply has new "
                    "weights; set new_weights=True"
                )

            swap = max(d, shift_end, previous_end, input_complete, accumulators_free)
            stream = _streamed(item, kind) * width_factor
            done.append(
                _Done(
                    kind,
                    reads,
                    writes,
                    dispatch=d,
                    start=swap,
                    busy_end=swap + stream,
                    complete=swap + stream + rows + cols - 1,
                    shift_start=shift_start,
                )
            )

            last_writers = [before for before in writers_of_reads if before.complete == input_complete]
            by_vector_unit = any(before.kind in VECTOR_UNIT for before in last_writers)
            intervals = [
                ("raw_stall" if by_vector_unit else "input_stall", input_complete),
                ("accumulator_stall", accumulators_free),
                ("other_stall", max(d, previous_drain) if waits_for_drain else d),
            ]
            if shift_start is not None:
                intervals += [("weight_stall", shift_start), ("weight_shift", swap)]
            now = previous_end
            for cause, end in intervals:
                causes[cause] += max(0, end - now)
                now = max(now, end)
            causes["active"] += stream

        elif kind == "HostCall":
            start = max(d, rows_free)
            done.append(_Done(kind, reads, writes, d, start, start, start))

        elif kind == "Sync":
            complete = max(d, _last([before.complete for before in done]))
            next_dispatch = max(d + issue_cycles, complete)
            done.append(_Done(kind, reads, writes, d, d, complete, complete))

        elif kind in ("ReadWeights", "SetConfiguration", "Nop", "Halt"):
            if kind == "ReadWeights":
                asked += [d] * item.count
            if kind == "SetConfiguration":
                wide = [operand for operand in (item.activation, item.weight) if operand.endswith("16")]
                width_factor = width_factors[len(wide)]
            done.append(_Done(kind, reads, writes, d, d, d, d))

        else:
            raise TypeError(f"instruction {number}: {kind} is no instruction of the machine")

    cycles = _last([each.complete for each in done])
    causes["other_stall"] += cycles - _last([each.busy_end for each in done if each.kind in MULTIPLIES])
    return ProgramTimes(
        dispatch=[each.dispatch for each in done],
        start=[each.start for each in done],
        busy_end=[each.busy_end for each in done],
        complete=[each.complete for each in done],
        shift_start=[each.shift_start for each in done],
        swap=[each.start if each.kind in MULTIPLIES else None for each in done],
        fetches=fetches,
        causes=causes,
        cycles=cycles,
    )
