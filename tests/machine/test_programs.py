"""Programs with data: cycle mode and wavefront mode leave the same bytes, and known programs the right ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from support.program_data import DataCase, data_programs, expected, expected_times, run
from support.strategies import examples
from systolic import ArrayConfig, MachineConfig, MemoryConfig
from systolic.isa import Function, HostTensor, Program
from systolic.machine import run_program

MEMORY = MemoryConfig(
    weight_bytes=2**20, weight_bytes_per_second=10**9, unified_buffer_rows=64, host_rows=64,
    host_bytes_per_second=10**9,
)  # fmt: skip
SMALL = MachineConfig(ArrayConfig(2, 3), clock_mhz=700, memory=MEMORY)
MODES = ("cycle", "wavefront")
X = np.int8([[1, 2], [3, 4], [-5, 6]])
W = np.int8([[[7, -8, 9], [10, 11, -12]]])


@pytest.mark.parametrize("mode", MODES)
def test_the_worked_example(mode: str) -> None:
    """The product of docs/microarchitecture.md, as a program."""
    program = Program(
        "read_weights w#0, 1\nread_host u#0, 3\nmatmul a#0, u#0, 3\nactivate u#3, a#0, 3\nwrite_host u#3, h#8, 3",
        weights=W,
        inputs={"x": HostTensor(0, (3, 2), "int8", width=2)},
        outputs={"y": HostTensor(8, (3, 3), "int8", width=3)},
    )
    run = run_program(program, SMALL, {"x": X}, mode=mode)
    np.testing.assert_array_equal(run.acc, X.astype(np.int32) @ W[0])
    np.testing.assert_array_equal(run.outputs["y"], np.clip(run.acc, -128, 127).astype(np.int8))
    assert run.outputs["y"].dtype == np.int8


@pytest.mark.parametrize("mode", MODES)
def test_host_calls_get_and_return_rows(mode: str) -> None:
    program = Program(
        "read_host u#0, 1\nwrite_host u#0, h#4, 1\nhost_call f#1, reads (h#4:1), writes (h#5:2)\nread_host u#1, h#5, 2",
        functions=[Function(), Function("twice", kind="host")],
    )
    host = np.uint8([[1, 2, 3]])
    run = run_program(program, SMALL, host=host, mode=mode, calls={1: lambda rows: [np.repeat(rows[0], 2, 0)]})
    assert run.ub.tolist() == [[1, 2, 3]] * 3


@examples(8)
@given(data_programs())
def test_memories_equal_the_reference(case: DataCase) -> None:
    """Every byte that the slow executor leaves, from both modes, and every time."""
    theirs = expected(case)
    times = expected_times(case)
    for mode in MODES:
        ours = run(case, mode)
        for name in ("ub", "host", "acc"):
            wanted = np.array([list(row) for row in getattr(theirs, name)], getattr(ours, name).dtype)
            found = getattr(ours, name)
            np.testing.assert_array_equal(found, wanted[: len(found)], err_msg=f"{mode}: {name}")
            assert not wanted[len(found) :].any()
        assert (ours.timeline.start.tolist(), ours.timeline.complete.tolist()) == (times.start, times.complete)
        assert (ours.timeline.cycles, ours.timeline.causes) == (times.cycles, times.causes)
