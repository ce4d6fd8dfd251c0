"""The reference timing of programs: three published counts, every interlock by hand, laws on random programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given

from support.programs import LIMITS, Case, programs, rows_written
from support.strategies import raises
from systolic import isa
from systolic.isa import (
    Activate,
    Convolve,
    Halt,
    HostCall,
    MatrixMultiply,
    Nop,
    ReadHost,
    ReadWeights,
    SetConfiguration,
    Sync,
    Vector,
    WriteHost,
)
from systolic.reference.machine import ProgramTimes, time_program

# A tile takes 6 cycles, a row 3 on the host link and 1 in the vector unit; a shift takes 2, and the last sum
# leaves the array 4 cycles after the end of the stream.
SMALL = {
    "rows": 2,
    "cols": 3,
    "double_buffered": True,
    "tile_bytes": 6,
    "row_bytes": 3,
    "weight_bytes_per_cycle": Fraction(1),
    "weight_latency": 0,
    "fifo_tiles": 4,
    "lanes": None,
    "activation_latency": 0,
    "host_bytes_per_cycle": Fraction(1),
    "host_latency": 0,
    "issue_cycles": 1,
    "width_factors": (1, 2, 4),
}
FAST_WEIGHTS = {"weight_bytes_per_cycle": Fraction(6)}
TPU = SMALL | {
    "rows": 256,
    "cols": 256,
    "tile_bytes": 65536,
    "row_bytes": 256,
    "weight_bytes_per_cycle": Fraction(48),
    "host_bytes_per_cycle": Fraction(22),
}


def timed(instructions: Sequence[Any], machine: dict[str, Any] = SMALL, **changes: Any) -> ProgramTimes:
    return time_program(instructions, **(machine | changes), rows_written=rows_written)


def multiply(ub: int, acc: int, rows: int, **flags: bool) -> MatrixMultiply:
    return MatrixMultiply(ub, acc, rows, **flags)


def keep(ub: int, acc: int, rows: int) -> MatrixMultiply:
    return MatrixMultiply(ub, acc, rows, new_weights=False)


# The counts that another open simulator (Mini-TPU) prints.
PUBLISHED = [
    (
        2352,
        [ReadWeights(0), ReadHost(0, 0, 16), multiply(0, 0, 16), Activate(0, 16, 16), WriteHost(16, 0, 16)],
    ),
    (
        5084,
        [
            ReadWeights(0, 3),
            ReadHost(0, 0, 16),
            *(each for i in (0, 16, 32) for each in (multiply(i, 0, 16), Activate(0, i + 16, 16))),
            WriteHost(48, 0, 16),
        ],
    ),
    (
        2310,
        [ReadWeights(0), ReadHost(0, 0, 36), multiply(0, 0, 36), Activate(0, 64, 36, 2), WriteHost(64, 0, 9)],
    ),
]


@pytest.mark.parametrize("cycles, instructions", PUBLISHED)
def test_published_cycles(cycles: int, instructions: list) -> None:
    assert timed(instructions, TPU).cycles == cycles


def test_an_empty_program_takes_no_cycles() -> None:
    assert timed([]) == ProgramTimes([], [], [], [], [], [], [], dict.fromkeys(timed([]).causes, 0), 0)


def test_every_time_of_a_read_after_write_through_the_vector_unit() -> None:
    times = timed(
        [ReadWeights(0, 2), ReadHost(0, 0, 2), multiply(0, 0, 2), Activate(0, 8, 2), multiply(8, 4, 1)]
    )
    assert times == ProgramTimes(
        dispatch=[0, 1, 2, 3, 4],
        start=[0, 1, 8, 14, 16],
        busy_end=[0, 7, 10, 16, 17],
        complete=[0, 7, 14, 16, 21],
        shift_start=[None, None, 6, None, 12],
        swap=[None, None, 8, None, 16],
        fetches=[(0, 6), (6, 12)],
        causes={
            "active": 3,
            "weight_stall": 0,
            "weight_shift": 1,  # input until 7, swap at 8
            "raw_stall": 6,  # from 10 to 16
            "input_stall": 7,
            "accumulator_stall": 0,
            "other_stall": 4,
        },
        cycles=21,
    )


# What is expected of a program: a field, or a cause of stall.
BY_HAND = {
    # A multiply from 8 to 10 reads rows 0 and 1; the first ReadHost is done at 7.
    "a write to UB waits for a multiply's stream": (
        [ReadWeights(0), ReadHost(0, 0, 2), multiply(0, 0, 2), ReadHost(8, 1, 1), ReadHost(8, 2, 1)],
        {},
        {"start": [0, 1, 8, 10, 13]},
    ),
    "a write to other rows of UB waits for its unit alone": (
        [ReadWeights(0), ReadHost(0, 0, 2), multiply(0, 0, 2), ReadHost(8, 2, 1)],
        {},
        {"start": [0, 1, 8, 7]},
    ),
    "a write waits for a write to complete": (
        [Activate(0, 0, 2), ReadHost(0, 1, 1)],
        {"activation_latency": 5},
        {"busy_end": [2, 10], "complete": [7, 10], "start": [0, 7]},
    ),
    "a write waits for a reader to have read, not to complete": (
        [Vector((0,), 8, 4, 0), ReadHost(0, 3, 1)],
        {"activation_latency": 5},
        {"complete": [9, 7], "start": [0, 4]},
    ),
    "a write to host rows waits for a transfer's reads": (
        [ReadHost(0, 0, 4), WriteHost(50, 3, 1)],
        {"host_latency": 10},
        {"complete": [22, 25], "start": [0, 12]},
    ),
    "host rows and UB rows are waited for alike, latency included": (
        [ReadHost(0, 0, 1), WriteHost(0, 5, 1), ReadHost(5, 9, 1)],
        {"host_latency": 10},
        {"start": [0, 13, 26], "busy_end": [3, 16, 29], "complete": [13, 26, 39]},
    ),
    "rows that meet only at their ends do not wait": (
        [Vector((8,), 16, 8, 0), Vector((0,), 40, 1, 0), ReadHost(0, 7, 1), WriteHost(15, 1, 1)],
        {},
        {"start": [0, 8, 2, 3]},
    ),
    "the same row numbers of two memories do not wait": (
        [Activate(0, 32, 8), ReadHost(0, 0, 8), WriteHost(8, 8, 8)],
        {},
        {"start": [0, 1, 2]},
    ),
    # Of a pattern: rows 8, 9, 4, 5. The multiply streams from 8 to 12.
    "a convolution holds the rows between its lowest and its highest": (
        [
            ReadWeights(0),
            Convolve(8, 0, ((2, -4), (2, 1))),
            ReadHost(0, 3, 1),
            ReadHost(0, 10, 1),
            ReadHost(0, 6, 1),
        ],
        {},
        {"start": [0, 8, 2, 5, 12]},
    ),
    "a convolution holds its highest row": (
        [ReadWeights(0), Convolve(8, 0, ((2, -4), (2, 1))), ReadHost(0, 9, 1)],
        {},
        {"start": [0, 8, 12]},
    ),
    "a written pattern, too": (
        [
            Activate(0, 8, 4, 0, ((2, -4), (2, 1))),
            ReadHost(0, 10, 1),
            WriteHost(6, 0, 1),
            WriteHost(3, 1, 1),
        ],
        {},
        {"start": [0, 1, 4, 7]},
    ),
    "a written pattern holds its highest row": (
        [Activate(0, 8, 4, 0, ((2, -4), (2, 1))), WriteHost(9, 0, 1)],
        {},
        {"start": [0, 4]},
    ),
    "pooling writes fewer rows than it reads": (
        [Activate(0, 0, 8, 2), WriteHost(2, 0, 1), ReadHost(9, 1, 1)],
        {},
        {"busy_end": [8, 4, 11], "start": [0, 1, 8]},
    ),
    "Activate and Vector share a unit, in place or not": (
        [Activate(0, 0, 4), Vector((20,), 30, 2, 0), Vector((0, 30), 0, 2, 0)],
        {},
        {"start": [0, 4, 6], "busy_end": [4, 6, 8]},
    ),
    "a Vector holds the rows of each of its inputs": (
        [Vector((0, 20), 40, 4, 0), ReadHost(0, 23, 1), ReadHost(0, 3, 1)],
        {},
        {"start": [0, 4, 7]},
    ),
    "a Vector holds the rows of its first input, too": (
        [Vector((0, 20), 40, 4, 0), ReadHost(0, 3, 1)],
        {},
        {"start": [0, 4]},
    ),
    "a vector unit of 2 lanes takes 2 cycles for 3 columns": (
        [Activate(0, 0, 4), Vector((20, 30), 40, 1, 0)],
        {"lanes": 2},
        {"busy_end": [8, 10]},
    ),
    "more lanes than columns take 1": ([Activate(0, 0, 4)], {"lanes": 4}, {"busy_end": [4]}),
    "a transfer is rounded up once": (
        [ReadHost(0, 0, 2), WriteHost(2, 2, 7)],
        {"host_bytes_per_cycle": Fraction(7, 3)},
        {"busy_end": [3, 10]},  # 18/7 and 9
    ),
    "every tile's transfer is rounded up": (
        [ReadWeights(0, 2), multiply(0, 0, 1), multiply(0, 0, 1)],
        {"weight_bytes_per_cycle": Fraction(4)},
        {"fetches": [(0, 2), (2, 4)]},
    ),
    # The Activate reads rows 0 to 3 from 14 to 26; sums arrive 2 cycles after their row at the earliest.
    "an accumulator stall ends `rows` cycles before the reads do": (
        [ReadWeights(0, 2), multiply(0, 0, 2), Activate(0, 8, 4), multiply(20, 3, 2)],
        {"lanes": 1},
        {
            "swap": [None, 8, None, 24],
            "shift_start": [None, 6, None, 12],
            "accumulator_stall": 14,
            "other_stall": 1 + 4,
            "weight_stall": 5,
            "weight_shift": 2,
            "cycles": 30,
        },
    ),
    "other accumulators do not wait": (
        [ReadWeights(0, 2), multiply(0, 0, 2), Activate(0, 8, 4), multiply(20, 4, 2)],
        {"lanes": 1},
        {"swap": [None, 8, None, 14], "weight_stall": 5 + 2, "weight_shift": 2 + 2},
    ),
    "the last of several reads counts": (
        [ReadWeights(0), Activate(0, 8, 8), Activate(1, 16, 4), Activate(16, 24, 9), multiply(20, 0, 4)],
        {"lanes": 1},
        {"start": [0, 1, 25, 37, 35]},
    ),
    "multiplies to the same accumulators follow each other": (
        [ReadWeights(0, 2), multiply(0, 0, 5), multiply(0, 0, 5, accumulate=True), Activate(4, 40, 1)],
        FAST_WEIGHTS,
        {"swap": [None, 3, 8, None], "shift_start": [None, 1, 3, None], "complete": [0, 12, 17, 18]},
    ),
    # Streams of 5 rows; a tile leaves the FIFO at the end of its shift.
    "a FIFO of two tiles": (
        [ReadWeights(0, 4), *[multiply(0, 0, 5)] * 4],
        {"fifo_tiles": 2, **FAST_WEIGHTS},
        {
            "fetches": [(0, 1), (1, 2), (3, 4), (5, 6)],
            "shift_start": [None, 1, 3, 8, 13],
            "swap": [None, 3, 8, 13, 18],
        },
    ),
    "a FIFO of one tile with slow weights": (
        [ReadWeights(0, 3), *[multiply(0, 0, 1)] * 3],
        {"fifo_tiles": 1},
        {
            "fetches": [(0, 6), (8, 14), (16, 22)],
            "swap": [None, 8, 16, 24],
            "weight_stall": 5 + 5 + 5,
            "weight_shift": 2 + 2 + 2,
            "other_stall": 1 + 4,
        },
    ),
    "a FIFO that is large enough": (
        [ReadWeights(0, 4), *[multiply(0, 0, 5)] * 4],
        FAST_WEIGHTS,
        {"fetches": [(0, 1), (1, 2), (2, 3), (3, 4)]},
    ),
    "a tile is counted over the program and asked for by its own instruction": (
        [ReadWeights(7), Nop(), ReadWeights(3, 2), *[multiply(0, 0, 1)] * 2],
        {"issue_cycles": 10},
        {"fetches": [(0, 6), (20, 26)], "swap": [None, None, None, 32, 42]},
    ),
    "weight latency does not hold back the next transfer": (
        [ReadWeights(0, 2), multiply(0, 0, 1), multiply(0, 0, 1)],
        {"weight_latency": 10},
        {"fetches": [(0, 16), (6, 22)], "swap": [None, 18, 24]},
    ),
    "a shift waits for the swap before it, not for the stream": (
        [ReadWeights(0, 3), *[multiply(0, 0, 1)] * 3],
        FAST_WEIGHTS,
        {"shift_start": [None, 1, 3, 5], "swap": [None, 3, 5, 7]},
    ),
    # The kept weights stream from 8 to 10; the last shift would be possible from 3 on.
    "a multiply that keeps the weights does not hold back the next tile": (
        [ReadWeights(0, 2), multiply(0, 0, 5), keep(0, 5, 2), multiply(0, 0, 1)],
        FAST_WEIGHTS,
        {"shift_start": [None, 1, None, 3], "swap": [None, 3, 8, 10], "cycles": 15, "weight_shift": 2},
    ),
    "a single-buffered array drains before it shifts": (
        [ReadWeights(0, 2), multiply(0, 0, 5), keep(0, 5, 2), multiply(0, 0, 1)],
        {"double_buffered": False, **FAST_WEIGHTS},
        {
            "shift_start": [None, 1, None, 13],
            "swap": [None, 3, 8, 15],
            "weight_shift": 2 + 2,
            "other_stall": 1 + 3 + 4,
            "cycles": 20,
        },
    ),
    # Two 8-bit operands again in the last multiply. Shifts at 7 and 13.
    "16-bit operands take 2 or 4 cycles a row": (
        [
            SetConfiguration("int16", "int8"),
            ReadWeights(0, 2),
            multiply(0, 0, 3),
            SetConfiguration("uint16", "int16"),
            multiply(0, 0, 3),
            SetConfiguration("uint8", "int8"),
            keep(0, 0, 3),
        ],
        {},
        {
            "swap": [None, None, 9, None, 15, None, 27],
            "busy_end": [0, 1, 15, 3, 27, 5, 30],
            "complete": [0, 1, 19, 3, 31, 5, 34],
            "active": 21,
        },
    ),
    "a single-buffered array drains a wide stream": (
        [
            SetConfiguration("int8", "uint16"),
            ReadWeights(0, 2),
            multiply(0, 0, 3),
            SetConfiguration(),
            multiply(0, 0, 3),
        ],
        {"double_buffered": False},
        {"shift_start": [None, None, 7, None, 18], "swap": [None, None, 9, None, 20]},
    ),
    "before any configuration both operands have 8 bits": (
        [ReadWeights(0), multiply(0, 0, 3)],
        {"width_factors": (5, 1, 1)},
        {"busy_end": [0, 8 + 15]},
    ),
    "a Sync holds back dispatch until everything is complete": (
        [ReadHost(0, 0, 2), Sync(), Nop(), Nop()],
        {"host_latency": 4},
        {"dispatch": [0, 1, 10, 11], "complete": [10, 10, 10, 11]},
    ),
    "a Sync takes its turn in dispatch": (
        [Nop(), Sync(), Sync(), Halt()],
        {"issue_cycles": 3},
        {"dispatch": [0, 3, 6, 9], "complete": [0, 3, 6, 9], "cycles": 9, "other_stall": 9},
    ),
    "a Sync does not wait for weights in flight": (
        [ReadWeights(0), Sync(), multiply(0, 0, 1)],
        {},
        {"dispatch": [0, 1, 2], "complete": [0, 1, 13]},
    ),
    "a HostCall waits for its rows and takes no cycles": (
        [
            WriteHost(0, 0, 2),
            HostCall(0, ((1, 1),), ((10, 2),)),
            ReadHost(11, 0, 1),
            HostCall(0, ((5, 1),), ()),
        ],
        {"host_latency": 4},
        {"start": [0, 10, 10, 3], "complete": [10, 10, 17, 3]},
    ),
    "a HostCall writes when its rows have been read": (
        [ReadHost(0, 8, 2), HostCall(0, (), ((1, 1),)), HostCall(0, ((1, 1),), ((2, 1),))],
        {"host_latency": 4},
        {"complete": [10, 6, 6]},
    ),
    "late dispatch is another stall": (
        [ReadWeights(0), multiply(0, 0, 2), keep(0, 0, 1)],
        {"issue_cycles": 10},
        {"swap": [None, 12, 20], "other_stall": 10 + 6 + 4, "weight_shift": 2, "weight_stall": 0},
    ),
    # Both writers complete at 4; the tile arrives at 8.
    "of writers that complete at once the vector unit counts": (
        [Vector((20,), 0, 1, 0), ReadHost(0, 1, 1), ReadWeights(0), multiply(0, 0, 2)],
        {"activation_latency": 3},
        {"raw_stall": 4, "input_stall": 0, "weight_stall": 4, "weight_shift": 2},
    ),
    "the last writer decides what a stall is": (
        [Vector((20,), 0, 1, 0), ReadHost(0, 1, 1), ReadWeights(0), multiply(0, 0, 2)],
        {"activation_latency": 3, "host_latency": 1},
        {"raw_stall": 0, "input_stall": 5, "weight_stall": 3, "weight_shift": 2},
    ),
    # Until 14 the input, until 20 - 2 the accumulators, until 25 the dispatch, until 28 the weights.
    "a stall has its causes in order": (
        [Activate(0, 40, 20), ReadHost(0, 0, 3), Nop(), Nop(), ReadWeights(0), multiply(0, 0, 1)],
        {"issue_cycles": 5, "weight_latency": 2},
        {
            "input_stall": 14,
            "accumulator_stall": 4,
            "other_stall": 7 + 4,
            "weight_stall": 3,
            "weight_shift": 2,
            "swap": [None, None, None, None, None, 30],
        },
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name: str) -> None:
    instructions, changes, expected = BY_HAND[name]
    times = timed(instructions, **changes)
    found = times._asdict() | times.causes
    assert {field: found[field] for field in expected} == expected
    assert sum(times.causes.values()) == times.cycles


def test_a_multiply_needs_its_tile_before_it() -> None:
    late = [ReadWeights(0), multiply(0, 0, 1), Convolve(0, 0, ((2, 1),)), ReadWeights(0)]
    message = "instruction 2: Convolve takes tile 1 of the program, but earlier instructions read only 1; "
    with raises(ValueError, message + "put a ReadWeights before it"):
        timed(late)


def test_a_multiply_cannot_keep_the_weights_of_none() -> None:
    message = "instruction 1: MatrixMultiply keeps the weights, but no earlier multiply has new weights; "
    with raises(ValueError, message + "set new_weights=True"):
        timed([ReadWeights(0), keep(0, 0, 1), multiply(0, 0, 1)])


def test_an_unknown_instruction() -> None:
    with raises(TypeError, "instruction 1: int is no instruction of the machine"):
        timed([Nop(), 3])


MULTIPLIES = (MatrixMultiply, Convolve)
VECTOR_UNIT = (Activate, Vector)


def rows_of(instruction: Any, write: bool, memories: str = "ub acc host") -> set[tuple[str, int]]:
    """The rows that an instruction reads or writes, as the instruction room lists them."""
    written = rows_written(instruction) if isinstance(instruction, VECTOR_UNIT) else None
    return {
        (memory, row)
        for memory, writes, first, rows, _ in isa.row_ranges(instruction, written)
        if writes == write and memory in memories.split()
        for row in range(first, first + rows)
    }


def pairs(case: Case) -> Iterator[tuple[int, int]]:
    count = len(case.instructions)
    return ((before, after) for after in range(count) for before in range(after))


@given(programs())
@pytest.mark.slow
def test_random_programs_stay_in_their_memories(case: Case) -> None:
    assert case.program.instructions == case.instructions
    for each in case.instructions:
        for write in (False, True):
            assert all(0 <= row < LIMITS[memory] for memory, row in rows_of(each, write))
        assert not isinstance(each, ReadWeights) or each.tile + each.count <= LIMITS["tiles"]


@given(programs())
@pytest.mark.slow
def test_every_wait_is_long_enough_and_no_longer(case: Case) -> None:
    times = timed(case.instructions, case.machine)
    possible = [{d} for d in times.dispatch]
    for before, after in pairs(case):
        first, second = case.instructions[before], case.instructions[after]
        both = isinstance(first, MULTIPLIES) and isinstance(second, MULTIPLIES)
        if rows_of(first, True) & rows_of(second, False):
            assert times.start[after] >= times.complete[before]
            possible[after].add(times.complete[before])
        if rows_of(first, True) & rows_of(second, True) and not both:
            assert times.start[after] >= times.complete[before]
            possible[after].add(times.complete[before])
        if rows_of(first, False) & rows_of(second, True):
            early = case.machine["rows"] if isinstance(second, MULTIPLIES) else 0
            assert times.start[after] >= times.busy_end[before] - early
            possible[after].add(times.busy_end[before] - early)
        for unit in ((ReadHost,), (WriteHost,), VECTOR_UNIT, MULTIPLIES):
            if isinstance(first, unit) and isinstance(second, unit):
                assert times.start[after] >= times.busy_end[before]
                possible[after].add(times.busy_end[before])
    for number, shift in enumerate(times.shift_start):
        if shift is not None:
            assert times.start[number] >= shift + case.machine["rows"]
            possible[number].add(shift + case.machine["rows"])
    assert all(start in each for start, each in zip(times.start, possible, strict=True))


@given(programs())
@pytest.mark.slow
def test_weights_are_in_the_fifo_until_they_are_shifted(case: Case) -> None:
    times = timed(case.instructions, case.machine)
    shifts = [shift for shift in times.shift_start if shift is not None]
    assert len(shifts) == len(times.fetches)
    ends = [shift + case.machine["rows"] for shift in shifts]
    for tile, (start, arrival) in enumerate(times.fetches):
        assert shifts[tile] >= arrival > start
        assert sum(end > start for end in ends[:tile]) < case.machine["fifo_tiles"]


def painted(case: Case, times: ProgramTimes) -> dict[str, int]:
    """The causes again, cycle by cycle."""
    causes = dict.fromkeys(times.causes, 0)
    multiplies = [i for i, each in enumerate(case.instructions) if isinstance(each, MULTIPLIES)]
    end = drained = 0
    for number in multiplies:
        reads, writes = (rows_of(case.instructions[number], write) for write in (False, True))
        earlier = range(number)
        writers = [i for i in earlier if rows_of(case.instructions[i], True, "ub") & reads]
        last = max((times.complete[i] for i in writers), default=0)
        raw = any(
            times.complete[i] == last and isinstance(case.instructions[i], VECTOR_UNIT) for i in writers
        )
        readers = [i for i in earlier if rows_of(case.instructions[i], False, "acc") & writes]
        free = max((times.busy_end[i] for i in readers), default=0) - case.machine["rows"]
        ready = times.dispatch[number]
        if times.shift_start[number] is not None and not case.machine["double_buffered"]:
            ready = max(ready, drained)
        for cycle in range(end, times.start[number]):
            if cycle < last:
                causes["raw_stall" if raw else "input_stall"] += 1
            elif cycle < free:
                causes["accumulator_stall"] += 1
            elif cycle < ready:
                causes["other_stall"] += 1
            elif cycle < times.shift_start[number]:
                causes["weight_stall"] += 1
            else:
                causes["weight_shift"] += 1
        causes["active"] += times.busy_end[number] - times.start[number]
        end = times.busy_end[number]
        drained = end + case.machine["rows"] + case.machine["cols"] - 2
    causes["other_stall"] += times.cycles - end
    return causes


@given(programs())
@pytest.mark.slow
def test_every_cycle_has_one_cause(case: Case) -> None:
    times = timed(case.instructions, case.machine)
    assert times.causes == painted(case, times)
    assert sum(times.causes.values()) == times.cycles == max(times.complete, default=0)


@given(programs())
@pytest.mark.slow
def test_nothing_is_faster_on_a_slower_machine(case: Case) -> None:
    cycles = timed(case.instructions, case.machine).cycles
    assert timed(case.instructions, case.machine, double_buffered=True).cycles <= cycles
    assert timed(case.instructions, case.machine, fifo_tiles=12).cycles <= cycles
    assert timed(case.instructions, case.machine, lanes=None, activation_latency=0).cycles <= cycles
    assert timed(case.instructions, case.machine, host_bytes_per_cycle=Fraction(10**6)).cycles <= cycles
