"""Programs that cannot run with data are refused before anything runs: instruction, address and limit are named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from support.strategies import raises
from systolic import ArrayConfig, MachineConfig, MemoryConfig
from systolic.isa import Activate, Convolve, Function, HostTensor, MatrixMultiply, Program, Vector
from systolic.machine import run_program

MEMORY = MemoryConfig(
    weight_bytes=24, weight_bytes_per_second=10**9, unified_buffer_rows=8, host_rows=8, host_bytes_per_second=10**9
)  # fmt: skip
MACHINE = MachineConfig(ArrayConfig(2, 3, accumulator_rows=4), clock_mhz=700, memory=MEMORY)
W = np.int8([[[7, -8, 9], [10, 11, -12]]])
WINDOW = {
    "batch": 1, "stored": (2, 2), "corner": (0, 0), "size": (2, 2), "kernel": (2, 2), "stride": (1, 1),
    "dilation": (1, 1), "before": (0, 0), "out": (1, 1), "dtype": "int8",
}  # fmt: skip


def of_kind(kind: str, *, pool: int = 1, parts: int = 1, outputs: int | None = None, arrays: Any = None, **attributes: Any) -> Function:
    return Function("f", kind=kind, pool=pool, parts=parts, outputs=outputs, attributes=attributes, arrays=arrays or {})


SCALE = np.ones(3, np.float32)
ACTIVATE = "activate u#0, a#0, 2, f#1"
ON_ACTIVATE = "instruction 0, 'activate u#0, a#0, 2, f#1': "
VECTOR = Vector((0,), 4, 4, 1)
ON_VECTOR = "instruction 0, 'vector u#4, inputs (u#0), 4, f#1': "

PROGRAMS: dict[str, tuple[Any, list[Function], str]] = {
    "unified buffer": (
        "nop\nread_host u#6, 3", [],
        "instruction 1, 'read_host u#6, h#0, 3': ub 6 to 8 is beyond the unified buffer, which has 8 rows",
    ),
    "host memory": (
        "write_host u#0, h#7, 2", [],
        "instruction 0, 'write_host u#0, h#7, 2': host 7 to 8 is beyond host memory, which has 8 rows",
    ),
    "accumulators": (
        "read_weights w#0, 1\nmatmul a#3, u#0, 2", [],
        "instruction 1, 'matmul a#3, u#0, 2': acc 3 to 4 is beyond the accumulators, which has 4 rows",
    ),
    "a pattern below 0": (
        [Convolve(1, 0, ((3, -1),))], [],
        "instruction 0, 'convolve a#0, u#1, 3*-1': it needs weight tile 1, but the ReadWeights before it load 0; put one before it",
    ),
    "weight memory": (
        "read_weights w#3, 2", [],
        "instruction 0, 'read_weights w#3, 2': tile 3 to 4 is beyond weight memory, which has 4 tiles",
    ),
    "weight image": (
        "read_weights w#0, 2", [],
        "instruction 0, 'read_weights w#0, 2': tile 0 to 1 is beyond the weight image, which has 1 tile",
    ),
    "no tile": (
        "matmul a#0, u#0, 2", [],
        "instruction 0, 'matmul a#0, u#0, 2': it needs weight tile 1, but the ReadWeights before it load 0; put one before it",
    ),
    "activations of 16 bits": (
        "set_configuration int16 x int8", [],
        "instruction 0, 'set_configuration int16 x int8': activations of int16 are timed, but not computed; use int8 or uint8, or only time the program: time_program",
    ),
    "weights of 16 bits": (
        "set_configuration int8 x uint16", [],
        "instruction 0, 'set_configuration int8 x uint16': weights of uint16 are timed, but not computed; use int8 or uint8, or only time the program: time_program",
    ),
    "a vector's function on sums": (
        ACTIVATE, [of_kind("pair", arrays={"table": np.zeros(65536, np.uint8)})],
        ON_ACTIVATE + "activate computes functions of kind 'identity' or 'epilogue', but 'f' is of kind 'pair'",
    ),
    "an activation's function on rows": (
        [VECTOR], [of_kind("epilogue", arrays={"scale": SCALE})],
        ON_VECTOR + "vector computes functions of kind 'identity', 'lanes', 'pair', 'max_pool' or 'sum_pool', but 'f' is of kind 'epilogue'",
    ),
    "no host function": (
        "host_call f#1, reads (h#0:1), writes (h#1:1)", [Function("f")],
        "instruction 0, 'host_call f#1, reads (h#0:1), writes (h#1:1)': host_call computes functions of kind 'host', but 'f' is of kind 'identity'",
    ),
    "nothing to call": (
        "host_call f#1, reads (h#0:1), writes (h#1:1)", [of_kind("host")],
        "instruction 0, 'host_call f#1, reads (h#0:1), writes (h#1:1)': nothing computes the host function 'f'; pass calls={1: ...}",
    ),
    "a constant of another length": (
        ACTIVATE, [of_kind("epilogue", arrays={"scale": SCALE, "constant": np.zeros(4, np.int32)})],
        ON_ACTIVATE + "the array 'constant' of the function 'f' must be int32 (3,), not int32 (4,)",
    ),
    "no scale": (ACTIVATE, [of_kind("epilogue")], ON_ACTIVATE + "the function 'f' gives int8: only int32 has no scale, and has none"),
    "int32 in one row": (
        ACTIVATE, [of_kind("epilogue", dtype="int32")],
        ON_ACTIVATE + "3 results of int32 take 12 bytes, which are 4 rows of 3, but the function 'f' has parts=1",
    ),
    "a table of sums": (
        ACTIVATE, [of_kind("epilogue", dtype="int32", parts=4, arrays={"table": np.zeros(256, np.uint8)})],
        ON_ACTIVATE + "the function 'f' has a table or a clamp, but gives int32, no codes",
    ),
    "a bias of codes": (
        ACTIVATE, [of_kind("epilogue", arrays={"scale": SCALE, "float_bias": SCALE})],
        ON_ACTIVATE + "the function 'f' has late_scale or float_bias, but gives int8",
    ),
    "a pool of reals": (
        ACTIVATE, [of_kind("epilogue", dtype="float32", parts=4, pool=2, arrays={"scale": SCALE})],
        ON_ACTIVATE + "the function 'f' pools float32; pool=2 needs integer results",
    ),
    "an unknown attribute": (
        ACTIVATE, [of_kind("epilogue", arrays={"scale": SCALE}, round="up")],
        ON_ACTIVATE + "the function 'f' has the attributes round, which mean nothing",
    ),
    "an unknown array": (
        ACTIVATE, [of_kind("epilogue", arrays={"scale": SCALE, "scales": SCALE})],
        ON_ACTIVATE + "the function 'f' has an array 'scales', which means nothing",
    ),
    "an unknown rounding": (
        ACTIVATE, [of_kind("epilogue", arrays={"scale": SCALE}, rounding="up")],
        ON_ACTIVATE + "rounding of the function 'f' must be one of 'half_even', 'tflite', 'tflite_single', 'shift', 'gemmini', not 'up'",
    ),
    "a zero point that is no code": (
        ACTIVATE, [of_kind("epilogue", arrays={"scale": SCALE}, zero_point=200)],
        ON_ACTIVATE + "zero_point of the function 'f' must be a code of int8, not 200",
    ),
    "a clamp that is no code": (
        ACTIVATE, [of_kind("epilogue", arrays={"scale": SCALE}, clamp=[0, 200])],
        ON_ACTIVATE + "clamp of the function 'f' must be an integer of at most 127, not 200",
    ),
    "a pattern of other rows": (
        [Activate(0, 0, 2, 0, ((3, 1),))], [],
        "instruction 0, 'activate u#0, a#0, 2, 3*1': the function 'identity' gives 2 rows, but its pattern has 3",
    ),
    "other outputs": (ACTIVATE, [Function("f", outputs=3)], ON_ACTIVATE + "the function 'f' gives 2 rows, but has outputs=3"),
    "two inputs for one": (
        [Vector((0, 1), 4, 4, 1)], [of_kind("max_pool", outputs=1, **WINDOW)],
        "instruction 0, 'vector u#4, inputs (u#0 u#1), 4, f#1': the function 'f' takes 1 inputs, not 2",
    ),
    "images of other rows": (
        [Vector((0,), 4, 3, 1)], [of_kind("max_pool", outputs=1, **WINDOW)],
        "instruction 0, 'vector u#4, inputs (u#0), 3, f#1': the function 'f' reads images of 4 rows in all, not 3",
    ),
    "an image beyond its border": (
        [VECTOR], [of_kind("max_pool", outputs=1, **{**WINDOW, "corner": (1, 0)})],
        ON_VECTOR + "images of (2, 2) at (1, 0) of the function 'f' do not fit into (2, 2)",
    ),
    "windows without a size": (
        [VECTOR], [of_kind("max_pool", outputs=1, **{k: v for k, v in WINDOW.items() if k != "size"})],
        ON_VECTOR + "the function 'f' does not describe windows: Window.__init__() missing 1 required keyword-only argument: 'size'",
    ),
    "a table of too few sums": (
        [VECTOR], [of_kind("sum_pool", outputs=1, arrays={"table": np.zeros((5, 1020), np.uint8)}, **WINDOW)],
        ON_VECTOR + "the table of the function 'f' must have at least 5 x 1021 entries for windows of 4, not (5, 1020)",
    ),
    "lanes of another machine": (
        [VECTOR], [of_kind("lanes", arrays={"source": np.zeros(4, np.int16), "lane": np.zeros(4, np.int32), "tables": np.zeros((1, 256), np.uint8)})],
        ON_VECTOR + "the array 'source' of the function 'f' must be int16 (3,), not int16 (4,)",
    ),
    "a source that is no input": (
        [VECTOR], [of_kind("lanes", arrays={"source": np.ones(3, np.int16), "lane": np.zeros(3, np.int32), "tables": np.zeros((1, 256), np.uint8)})],
        ON_VECTOR + "sources of the function 'f' must be -1 to 0",
    ),
    "a lane behind the row": (
        [VECTOR], [of_kind("lanes", arrays={"source": np.zeros(3, np.int16), "lane": np.full(3, 3, np.int32), "tables": np.zeros((1, 256), np.uint8)})],
        ON_VECTOR + "lanes of the function 'f' must be 0 to 2",
    ),
    "no table of pairs": ([Vector((0, 0), 4, 4, 1)], [of_kind("pair")],
        "instruction 0, 'vector u#4, inputs (u#0 u#0), 4, f#1': the function 'f' of kind 'pair' lacks its array 'table'"),
    "a pool of pairs": (
        [Vector((0, 0), 4, 4, 1)], [of_kind("pair", pool=2)],
        "instruction 0, 'vector u#4, inputs (u#0 u#0), 4, f#1': a vector function of kind 'pair' has no pool and no parts, but 'f' has",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mode", ["cycle", "wavefront"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_are_refused_before_they_run(name: str, mode: str) -> None:
    instructions, functions, message = PROGRAMS[name]
    ran: list[int] = []
    with raises(ValueError, message):
        run_program(
            Program(instructions, [Function(), *functions], W), MACHINE, mode=mode,
            memory_hook=lambda number, memories: ran.append(number),
        )  # fmt: skip
    assert not ran


def test_no_rows_and_no_bandwidth() -> None:
    with raises(ValueError, "MatrixMultiply: rows must be a positive integer, not 0"):
        MatrixMultiply(0, 0, 0)
    with raises(ValueError, "weight_bytes_per_second must be above zero, not 0"):
        replace(MEMORY, weight_bytes_per_second=0)
    with raises(ValueError, "host_bytes_per_second must be above zero, not 0"):
        replace(MEMORY, host_bytes_per_second=0)


def test_weights_and_rows_of_another_machine() -> None:
    with raises(
        ValueError,
        "the weight tiles of the program are (2, 3), but the machine's array is 3 x 2; compile the program for this machine",
    ):
        run_program(Program("nop", weights=W), replace(MACHINE, array=ArrayConfig(3, 2)))
    with raises(
        ValueError,
        "instruction 0, 'read_weights w#0, 1': the program has no weight image; pass weights=, (tiles, rows, cols)",
    ):
        run_program(Program("read_weights w#0, 1"), MACHINE)
    with raises(
        ValueError,
        "instruction 1, 'matmul a#0, u#0, 1': it reads 2 activations from each row of the unified buffer, which has 1 bytes; give the machine row_bytes=2 or more",
    ):
        narrow = replace(MACHINE, memory=replace(MEMORY, row_bytes=1))
        run_program(Program("read_weights w#0, 1\nmatmul a#0, u#0, 1", weights=W), narrow)
    with raises(
        ValueError,
        "instruction 0, 'activate u#0, a#0, 1': 3 results of int8 take 3 bytes, which are 2 rows of 2, but the function 'identity' has parts=1",
    ):
        run_program(Program("activate u#0, a#0, 1"), replace(MACHINE, memory=replace(MEMORY, row_bytes=2)))


TENSORS: dict[str, tuple[HostTensor, Any, str]] = {
    "shape": (HostTensor(0, (2, 3), "int8"), np.zeros((3, 2), np.int8), "input 'x' must be int8 (2, 3), not int8 (3, 2)"),
    "type": (HostTensor(0, (2, 3), "int8"), np.zeros((2, 3), np.uint8), "input 'x' must be int8 (2, 3), not uint8 (2, 3)"),
    "rows": (
        HostTensor(5, (4, 3), "int8"), np.zeros((4, 3), np.int8),
        "input 'x' takes the rows 5 to 8, beyond host memory, which has 8 rows",
    ),
    "blocks": (
        HostTensor(0, (1, 4), "int8", width=4), np.zeros((1, 4), np.int8),
        "input 'x' lies in blocks of 4 channels, but the machine's rows have 3 bytes; compile the program for this machine",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TENSORS)
def test_inputs_that_do_not_fit(name: str) -> None:
    tensor, array, message = TENSORS[name]
    with raises(ValueError, message):
        run_program(Program("nop", inputs={"x": tensor}), MACHINE, {"x": array})


def test_arguments_are_checked() -> None:
    program, x = Program("nop", inputs={"x": HostTensor(0, (1,), "int8")}), np.zeros(1, np.int8)
    run_program(program, MACHINE, {"x": x})
    with raises(ValueError, "the program takes the inputs 'x', not 'y'"):
        run_program(program, MACHINE, {"y": x})
    with raises(ValueError, "the program takes the inputs 'x', not none"):
        run_program(program, MACHINE)
    with raises(TypeError, "inputs must map names to arrays, not list [1]"):
        run_program(program, MACHINE, [1])  # type: ignore[arg-type]
    with raises(TypeError, "program must be a Program, not str 'nop'"):
        run_program("nop", MACHINE)  # type: ignore[arg-type]
    with raises(ValueError, "mode must be one of 'cycle', 'wavefront', not 'fast'"):
        run_program(Program("nop"), MACHINE, mode="fast")
    with raises(ValueError, "threads must be a positive integer, not 0"):
        run_program(Program("nop"), MACHINE, threads=0)
    with raises(ValueError, "host must be rows of 3 bytes, uint8 (rows, 3), not int8 (1, 3)"):
        run_program(Program("nop"), MACHINE, host=np.zeros((1, 3), np.int8))
    with raises(ValueError, "host has 9 rows, but host memory only 8"):
        run_program(Program("nop"), MACHINE, host=np.zeros((9, 3), np.uint8))
    with raises(TypeError, "calls must map numbers of functions to callables, not list []"):
        run_program(Program("nop"), MACHINE, calls=[])  # type: ignore[arg-type]
    with raises(TypeError, "calls[1] must be callable, not int 2"):
        run_program(Program("nop"), MACHINE, calls={1: 2})  # type: ignore[dict-item]


@pytest.mark.parametrize("mode", ["cycle", "wavefront"])
def test_what_host_functions_return_is_checked(mode: str) -> None:
    program = Program("host_call f#1, reads (h#0:1), writes (h#1:2)", [Function(), of_kind("host")])
    text = "instruction 0, 'host_call f#1, reads (h#0:1), writes (h#1:2)': the host function must return "
    for returned, error, message in (
        (None, TypeError, "a list of arrays, not NoneType None"),
        ([np.zeros((1, 3), np.uint8)], ValueError, "arrays of uint8 (2, 3), not uint8 (1, 3)"),
        ([np.zeros((2, 3), np.int8)], ValueError, "arrays of uint8 (2, 3), not int8 (2, 3)"),
        ([], ValueError, "arrays of uint8 (2, 3), not none"),
    ):
        with raises(error, text + message):
            run_program(program, MACHINE, mode=mode, calls={1: lambda rows, returned=returned: returned})
