"""The compiled times of programs equal the reference's, on random programs and machines."""

from __future__ import annotations

from dataclasses import fields, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from support.programs import Case, programs, rows_written
from support.strategies import examples, raises
from support.timelines import machine_of
from systolic import ArrayConfig, MachineConfig, MemoryConfig, isa
from systolic.isa import Function, Program
from systolic.machine import Timeline, time_program
from systolic.machine.timeline import CAUSES
from systolic.reference import machine as reference

MEMORY = MemoryConfig(
    weight_bytes=2**33, weight_bytes_per_second=48 * 700_000_000, unified_buffer_rows=98_304,
    host_rows=2**20, host_bytes_per_second=22 * 700_000_000,
)  # fmt: skip
MACHINE = MachineConfig(ArrayConfig(256, 256), clock_mhz=700, memory=MEMORY)

ONE = (
    "read_weights w#0, 1\nread_host u#0, 16\nmatmul a#0, u#0, 16\nactivate u#16, a#0, 16\nwrite_host u#16, 16"
)
THREE = (
    "read_weights w#0, 3\nread_host u#0, 16\n"
    + "\n".join(f"matmul a#0, u#{16 * i}, 16\nactivate u#{16 * i + 16}, a#0, 16" for i in range(3))
    + "\nwrite_host u#48, 16"
)
POOLED = "read_weights w#0, 1\nread_host u#0, 36\nmatmul a#0, u#0, 36\nactivate u#36, a#0, 36, f#1\nwrite_host u#36, 9"


@pytest.mark.parametrize(("text", "cycles"), [(ONE, 2352), (THREE, 5084), (POOLED, 2310)])
def test_programs_of_mini_tpu(text: str, cycles: int) -> None:
    """The counts that Mini-TPU, another open simulator, prints for these programs."""
    timeline = time_program(Program(text, functions=[Function(), Function("pool", pool=4)]), MACHINE)
    assert timeline.cycles == cycles == sum(timeline.causes.values())


@examples(6)
@given(programs())
def test_times_equal_the_reference(case: Case) -> None:
    ours = time_program(case.program, machine_of(case.machine))
    theirs = reference.time_program(case.instructions, **case.machine, rows_written=rows_written)
    assert ours.dispatch.tolist() == theirs.dispatch
    assert ours.start.tolist() == theirs.start
    assert ours.end.tolist() == theirs.busy_end
    assert ours.complete.tolist() == theirs.complete
    multiplies = [number for number, swap in enumerate(theirs.swap) if swap is not None]
    assert ours.multiplies.tolist() == multiplies
    assert ours.swap.tolist() == [theirs.swap[number] for number in multiplies]
    shifts = [theirs.shift_start[number] for number in multiplies]
    assert ours.shift_start.tolist() == [-1 if shift is None else shift for shift in shifts]
    used = len(theirs.fetches)
    fetched = list(zip(ours.fetch_start.tolist(), ours.fetch_arrival.tolist(), strict=True))
    assert fetched[:used] == theirs.fetches
    assert ours.causes == theirs.causes
    assert ours.cycles == theirs.cycles == sum(ours.causes.values())
    assert tuple(ours.causes) == CAUSES


FIELDS: dict[str, Any] = {
    "weight_bytes_per_second": 24 * 700_000_000,
    "weight_latency_cycles": 100,
    "fifo_tiles": 1,
    "row_bytes": 512,
    "lanes": 64,
    "activation_latency_cycles": 50,
    "host_bytes_per_second": 7,
    "host_latency_cycles": 10,
    "issue_cycles": 1000,
    "width_factors": (1, 2, 4),
    "weight_bytes": 65_536,
    "unified_buffer_rows": 20,
    "host_rows": 20,
}
WIDE = f"set_configuration int16 x int8\n{THREE}"


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_of_the_memories_changes_something(name: str) -> None:
    changed = replace(MACHINE, memory=replace(MEMORY, **{name: FIELDS[name]}))
    if name in ("weight_bytes", "unified_buffer_rows", "host_rows"):
        with pytest.raises(ValueError, match="is beyond"):
            time_program(Program(WIDE), changed)
    else:
        assert time_program(Program(WIDE), changed).cycles > time_program(Program(WIDE), MACHINE).cycles


def test_no_field_of_the_memories_is_left_out() -> None:
    assert set(FIELDS) == {f.name for f in fields(MemoryConfig)}


OVERLAPPED = "read_weights w#0, 2\nmatmul a#0, u#0, 2000\nmatmul a#2000, u#0, 2000"


@pytest.mark.parametrize(
    ("name", "value"), [("rows", 128), ("cols", 128), ("double_buffered", False), ("accumulator_rows", 8)]
)
def test_fields_of_the_array_change_something(name: str, value: Any) -> None:
    changed = replace(MACHINE, array=replace(MACHINE.array, **{name: value}))
    if name == "accumulator_rows":
        with pytest.raises(ValueError, match="is beyond the accumulators, which has 8 rows"):
            time_program(Program(OVERLAPPED), changed)
        return
    cycles, before = time_program(Program(OVERLAPPED), changed).cycles, time_program(Program(OVERLAPPED), MACHINE).cycles
    # Smaller arrays have smaller tiles; a single buffer waits for the drain.
    assert cycles > before if name == "double_buffered" else cycles < before


def test_a_faster_clock_leaves_fewer_bytes_for_a_cycle() -> None:
    faster = replace(MACHINE, clock_mhz=2 * MACHINE.clock_mhz)
    now, then = time_program(Program(THREE), MACHINE).cycles, time_program(Program(THREE), faster).cycles
    assert now < then < 2 * now
    assert faster.seconds(then) < MACHINE.seconds(now)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("matmul a#0, u#0, 1",
         "instruction 0, 'matmul a#0, u#0, 1': it needs weight tile 1, but the ReadWeights before it load 0; put one before it"),
        ("matmul a#0, u#0, 1, same_weights",
         "instruction 0, 'matmul a#0, u#0, 1, same_weights': no multiply before it has loaded weights; leave out same_weights"),
        ("read_weights w#131071, 2",
         "instruction 0, 'read_weights w#131071, 2': tile 131071 to 131072 is beyond weight memory, which has 131,072 tiles"),
        ("nop\nread_host u#98303, 2",
         "instruction 1, 'read_host u#98303, h#0, 2': ub 98303 to 98304 is beyond the unified buffer, which has 98,304 rows"),
        ("read_host u#0, h#1048576, 1",
         "instruction 0, 'read_host u#0, h#1048576, 1': host 1048576 to 1048576 is beyond host memory, which has 1,048,576 rows"),
        ("read_weights w#0, 1\nconvolve a#0, u#1, 3*-1",
         "instruction 1, 'convolve a#0, u#1, 3*-1': ub -1 to 1 is beyond the unified buffer, which has 98,304 rows"),
        ("activate u#0, a#4095, 2",
         "instruction 0, 'activate u#0, a#4095, 2': acc 4095 to 4096 is beyond the accumulators, which has 4,096 rows"),
    ],
)  # fmt: skip
def test_addresses_and_tiles_are_checked(text: str, message: str) -> None:
    with raises(ValueError, message):
        time_program(Program(text), MACHINE)


def test_the_first_wrong_instruction_is_named() -> None:
    wrong = ["read_weights w#131071, 2", "read_host u#98303, 2", "matmul a#0, u#0, 1, same_weights"]
    for first in range(3):
        text = "nop\n" + "\n".join(wrong[first:] + wrong[:first])
        with pytest.raises(ValueError, match="^instruction 1, "):
            time_program(Program(text), MACHINE)


def changed(field: str, value: Any) -> MachineConfig:
    """The machine with another value of a field, its own or its memories'."""
    if field == "clock_mhz":
        return replace(MACHINE, clock_mhz=value)
    return replace(MACHINE, memory=replace(MEMORY, **{field: value}))


def test_weight_tiles_of_another_array() -> None:
    program = Program("nop", weights=np.zeros((1, 2, 3), np.int8))
    with raises(
        ValueError,
        "the weight tiles of the program are (2, 3), but the machine's array is 256 x 256; compile the program for this machine",
    ):
        time_program(program, MACHINE)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("weight_bytes_per_second", Fraction(1, 10**12)), ("host_bytes_per_second", Fraction(1, 10**12)),
        ("weight_latency_cycles", 2**62), ("host_latency_cycles", 2**62), ("activation_latency_cycles", 2**62),
        ("issue_cycles", 2**62), ("width_factors", (2**62, 1, 1)), ("clock_mhz", 1e300),
    ],
)  # fmt: skip
def test_more_cycles_than_are_counted(field: str, value: Any) -> None:
    """They would wrap."""
    with pytest.raises(ValueError, match=r"^the program could take more than 2\*\*62 cycles on this machine"):
        time_program(Program(ONE), changed(field, value))


@pytest.mark.parametrize("field", ["fifo_tiles", "unified_buffer_rows", "host_rows", "weight_bytes", "lanes"])
def test_sizes_beyond_64_bits(field: str) -> None:
    few, many = (time_program(Program(ONE), changed(field, 2**bits)) for bits in (32, 80))
    assert few.cycles == many.cycles


def test_machines_without_memories_are_refused() -> None:
    with raises(
        ValueError, "a program needs a machine with memories: MachineConfig(..., memory=MemoryConfig(...))"
    ):
        time_program(Program("nop"), MachineConfig())
    with raises(TypeError, "machine must be a MachineConfig with memories, not ArrayConfig"):
        time_program(Program("nop"), ArrayConfig())  # type: ignore[arg-type]


def test_timelines_are_shown() -> None:
    timeline = time_program(Program(ONE), MACHINE)
    assert repr(timeline) == "<Timeline: 5 instructions, 2,352 cycles, 0.68% active>"
    assert timeline.table().to_dicts()[2] == {
        "instruction": 2, "text": "matmul a#0, u#0, 16", "dispatch_cycle": 2, "start_cycle": 1622,
        "end_cycle": 1638, "complete_cycle": 2149,
    }  # fmt: skip
    assert "2,149" in timeline._repr_html_()
    assert repr(time_program(Program(()), MACHINE)) == "<Timeline: 0 instructions, 0 cycles, 0.0% active>"


def test_segments_do_not_depend_on_how_many_rows_there_are() -> None:
    """The same program on rows a thousand times as many: only transfers, streams and the array's size change."""
    small, large = (Program([isa.ReadHost(0, 0, n), isa.WriteHost(0, n, n)] * 3) for n in (1, 1000))
    machine = replace(MACHINE, memory=replace(MEMORY, row_bytes=22))
    a, b = time_program(small, machine), time_program(large, machine)
    assert isinstance(a, Timeline)
    np.testing.assert_array_equal(b.end - b.start, 1000 * (a.end - a.start))
