"""Programs with data: cycle mode and wavefront mode leave the same bytes, and known programs the right ones."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from support.interrupts import every_interrupt
from support.program_data import DataCase, check, data_programs
from support.strategies import examples
from systolic import ArrayConfig, MachineConfig, MemoryConfig, SystolicArray
from systolic.isa import Function, HostTensor, Program
from systolic.machine import run_program
from systolic.machine.programs import Memories
from systolic.machine.programs.memories import Place

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
def test_memories_and_times_equal_the_reference(case: DataCase) -> None:
    check(case)


@pytest.mark.parametrize("mode", MODES)
def test_types_change_under_the_weights(mode: str) -> None:
    """Weights stay in the array when the next multiply has other types, and their bytes are read as these."""
    program = Program(
        "read_weights w#0, 1\nread_host u#0, 3\nmatmul a#0, u#0, 3\nset_configuration uint8 x int8\n"
        "matmul a#3, u#0, 3, same_weights\nset_configuration uint8 x uint8\nmatmul a#6, u#0, 3, same_weights",
        weights=W,
    )
    host = np.zeros((3, 3), np.uint8)
    host[:, :2] = X.view(np.uint8)
    signed, unsigned = (values.astype(np.int32) for values in (X, X.view(np.uint8)))
    run = run_program(program, SMALL, host=host, mode=mode)
    np.testing.assert_array_equal(run.acc[:3], signed @ W[0])
    np.testing.assert_array_equal(run.acc[3:6], unsigned @ W[0])
    np.testing.assert_array_equal(run.acc[6:], unsigned @ W[0].view(np.uint8).astype(np.int32))


LAYERS = Program(
    "read_host u#0, 4\nread_weights w#0, 1\nmatmul a#0, u#0, 4\nmatmul a#4, u#0, 4, same_weights\nsync\n"
    "read_weights w#1, 1\nmatmul a#8, u#0, 4\nmatmul a#0, u#1, 2, same_weights, accumulate\n"
    "activate u#4, a#0, 12\nwrite_host u#4, h#4, 12",
    weights=np.concatenate((W, W + 1)),
)  # fmt: skip
ROWS = np.uint8([[1, 2, 0], [3, 4, 0], [5, 1, 0], [2, 2, 0]])

Change = Callable[[Memories], None]
CHANGES: dict[str, tuple[Change, set[int]]] = {
    # u#1 feeds row 1 of the third multiply, and row 0 of the fourth.
    "a row of the unified buffer": (lambda memories: memories.ub[1].fill(9), {9, 0}),
    "a row that is read no more": (lambda memories: memories.ub[3].fill(9), {11}),
    "a weight tile": (lambda memories: memories.weights[1].fill(5), {0, 1, 8, 9, 10, 11}),
    "a tile that was read": (lambda memories: memories.weights[0].fill(5), set()),
    "a row of the accumulators": (lambda memories: memories.acc[6].fill(1), {6}),
    "a row that is added to": (lambda memories: memories.acc[1].fill(1), {1}),
    "a row that is replaced": (lambda memories: memories.acc[8].fill(1), set()),
    "a row of host memory that was read": (lambda memories: memories.host[0].fill(1), set()),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CHANGES)
def test_exactly_what_depends_on_a_change_changes(name: str, mode: str) -> None:
    """Overwrite one row or tile between two instructions, behind a sync."""
    change, rows = CHANGES[name]

    def hook(number: int, memories: Memories) -> None:
        if number == 5:
            change(memories)

    before = run_program(LAYERS, SMALL, host=ROWS, mode=mode).host[4:]
    after = run_program(LAYERS, SMALL, host=ROWS, mode=mode, memory_hook=hook).host[4:]
    assert set(np.flatnonzero((before != after).any(axis=1))) == rows
    np.testing.assert_array_equal(LAYERS.weights, np.concatenate((W, W + 1)))


@pytest.mark.parametrize("mode", MODES)
def test_progress_is_in_cycles_and_an_interrupt_comes_out(mode: str) -> None:
    seen: list[tuple[int, int]] = []
    run = run_program(LAYERS, SMALL, host=ROWS, mode=mode, report=lambda *cycles: seen.append(cycles))
    done = [cycles for cycles, _ in seen]
    assert len(seen) > 5 and done == sorted(set(done)) and done[-1] == run.timeline.cycles
    assert {total for _, total in seen} == {run.timeline.cycles}

    def interrupt(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_program(LAYERS, SMALL, host=ROWS, mode=mode, report=interrupt)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_program_runs_after_any_interrupt(mode: str) -> None:
    """Interrupts between any two bytecodes, also of what the program keeps: the next run is whole."""
    wanted = run_program(LAYERS, SMALL, host=ROWS, mode=mode).host
    programs = [replace(LAYERS)]

    def run() -> None:
        run_program(programs[-1], SMALL, host=ROWS, mode=mode)

    for at in every_interrupt(run, "/machine/", 61):
        if at % 4 == 0:
            np.testing.assert_array_equal(run_program(programs[-1], SMALL, host=ROWS, mode=mode).host, wanted)
            programs.append(replace(LAYERS))
    assert len(programs) > 5


def test_an_array_with_nothing_in_flight_is_not_clocked_and_would_not_change() -> None:
    """One edge after the last beat has left the last PE, no register changes any more."""
    array = SystolicArray(SMALL.array).fold(x=X, w=W[0]).run().run(1)
    before = array.registers
    after = array.run(50).registers
    assert array.cycle == 59
    for name in before:
        np.testing.assert_array_equal(after[name], before[name])


def test_rows_that_follow_each_other_are_one_axis() -> None:
    assert Place(5, 24, ((2, 12), (3, 4), (4, 1))).axes == ((24, 1),)
    assert Place(5, 6, ((1, 7), (3, 4), (2, 1))).axes == ((3, 4), (2, 1))
    assert not Place(0, 4, ((2, 1), (2, 1))).distinct and Place(0, 4, ((2, 1), (2, 2))).distinct


def test_pieces_of_a_long_product(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_program(LAYERS, SMALL, host=ROWS, mode="wavefront")
    monkeypatch.setattr("systolic.machine.programs.fused._PIECE_WORK", 13)
    np.testing.assert_array_equal(run_program(LAYERS, SMALL, host=ROWS, mode="wavefront").host, whole.host)


@pytest.mark.parametrize("most", [1, 20, 10**6])
def test_sums_of_several_products(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """However many rows are gathered at a time, and with other accumulators between."""
    monkeypatch.setattr("systolic.machine.programs.fused._MOST_GATHERED", most)
    rng = np.random.default_rng(0)
    tiles = rng.integers(-128, 128, (6, 2, 3), dtype=np.int8)
    text = "read_host u#0, 12\nread_weights w#0, 6\n" + "\n".join(
        f"matmul a#{4 * (tile % 2)}, u#{tile}, 4" + (", accumulate" if tile > 1 else "") for tile in range(6)
    )
    host = rng.integers(0, 256, (12, 3)).astype(np.uint8)
    run = run_program(Program(text, weights=tiles), SMALL, host=host, mode="wavefront")
    x = host[:, :2].view(np.int8).astype(np.int32)
    wanted = [sum(x[tile : tile + 4] @ tiles[tile] for tile in range(first, 6, 2)) for first in range(2)]
    np.testing.assert_array_equal(run.acc, np.concatenate(wanted))


def test_a_program_keeps_what_machines_make_of_it_to_itself() -> None:
    program = Program(LAYERS.instructions, weights=LAYERS.weights)
    first, second = (run_program(program, SMALL, host=ROWS, mode="wavefront") for _ in range(2))
    assert first.timeline is second.timeline and not first.timeline.start.flags.writeable
    first.host[:] = 0
    assert second.host[4:].any()
    code = pickle.dumps(program)
    assert len(code) < 2000 and pickle.loads(code) == program == LAYERS
    for rows in range(1, 4):  # machines of which only the last few are kept
        machine = replace(SMALL, memory=replace(MEMORY, fifo_tiles=rows))
        assert run_program(program, machine, host=ROWS, mode="wavefront").timeline.machine == machine


def test_results_are_shown() -> None:
    assert repr(run_program(LAYERS, SMALL, host=ROWS)) == "<ProgramRun: 0 outputs, 76 cycles>"
