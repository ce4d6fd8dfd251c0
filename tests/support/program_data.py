"""Random valid programs with functions of every kind, the bytes they work on, and who executes them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from support import programs as timed
from support.programs import LIMITS, counts, firsts, patterns
from support.strategies import codes, seeds
from support.timelines import machine_of
from systolic import MachineConfig, QuantParams, isa
from systolic.isa import Function
from systolic.layers import QLinearAdd, QLinearMul
from systolic.machine import ProgramRun, run_program
from systolic.reference import machine as reference_times
from systolic.reference import program_data as reference

TYPES = st.sampled_from(("int8", "uint8"))
ROUNDINGS = ("half_even", "tflite", "tflite_single", "shift", "gemmini")


class DataCase(NamedTuple):
    """A program, its machine and what its memories hold at first.

    Attributes
    ----------
    program : Program
    machine : MachineConfig
    host : ndarray of uint8, (rows, row_bytes)
    values : dict
        The machine as ``reference.machine.time_program`` takes it.
    """

    program: isa.Program
    machine: MachineConfig
    host: np.ndarray
    values: dict[str, Any]

    @property
    def row_bytes(self) -> int:
        return self.host.shape[1]

    @property
    def host_calls(self) -> list[isa.HostCall]:
        return [item for item in self.program if isinstance(item, isa.HostCall)]


def host_function(
    rows: list[np.ndarray], writes: tuple[isa.instructions.Range, ...], size: int
) -> list[np.ndarray]:
    """Some function of all bytes that are read, different in each byte that is written."""
    total = sum(int((each * np.arange(1, each.size + 1).reshape(each.shape)).sum()) for each in rows)
    return [
        ((total + 31 * number + 7 * np.arange(count * size)) % 256).astype(np.uint8).reshape(count, size)
        for number, (_, count) in enumerate(writes)
    ]


def _scale(rng: np.random.Generator, cols: int, rounding: str) -> np.ndarray:
    if rounding == "shift":
        return 2.0 ** rng.integers(-9, 2, cols)
    scale = np.exp2(rng.uniform(-12, 1, cols))
    return scale.astype(np.float32) if rng.integers(2) else scale


def epilogues(rng: np.random.Generator, cols: int, size: int) -> list[Function]:
    """Functions of sums: every rounding and type, with and without each part."""
    found = []
    for rounding in ROUNDINGS:
        dtype = ("int8", "uint8")[rng.integers(2)]
        low, high = (-128, 127) if dtype == "int8" else (0, 255)
        zero = int(rng.integers(low, high + 1))
        arrays: dict[str, Any] = {"scale": _scale(rng, cols, rounding)}
        attributes: dict[str, Any] = {"dtype": dtype, "zero_point": zero, "rounding": rounding}
        if rng.integers(4):
            arrays["constant"] = rng.integers(-(2**31), 2**31, cols).astype(np.int32) // 2 ** int(rng.integers(0, 20))
        if rng.integers(2):
            attributes["clamp"] = sorted(int(each) for each in rng.integers(low, high + 1, 2))
        if rng.integers(2):
            arrays["table"] = codes(rng, 256, dtype)
        pool = int(rng.choice([1, 1, 2, 3]))
        found.append(Function(rounding, kind="epilogue", pool=pool, attributes=attributes, arrays=arrays))
    parts = -(-4 * cols // size)
    constant = {"constant": rng.integers(-(2**31), 2**31, cols).astype(np.int32)}
    found.append(Function("sums", kind="epilogue", parts=parts, attributes={"dtype": "int32"}, arrays=constant))
    found.append(
        Function("largest sums", kind="epilogue", parts=parts, pool=2, attributes={"dtype": "int32"})
    )
    reals = {name: rng.normal(size=cols).astype(np.float32) for name in ("scale", "late_scale", "float_bias")}
    found.append(
        Function("reals", kind="epilogue", parts=parts, attributes={"dtype": "float32"}, arrays={**constant, **reals})
    )
    return found


def quantized_pair(rng: np.random.Generator) -> Function:
    """A quantized sum or product, as its table and by its name; a table that has another name, at times."""
    operator, dtype = ("add", "mul")[rng.integers(2)], ("int8", "uint8")[rng.integers(2)]
    low = -128 if dtype == "int8" else 0
    scales = np.exp2(rng.uniform(-4, 2, 3)).astype(np.float32)
    zeros = [int(zero) for zero in rng.integers(low, low + 256, 3)]
    params = [QuantParams(float(scale), zero, dtype) for scale, zero in zip(scales, zeros, strict=True)]
    layer = QLinearAdd(*params) if operator == "add" else QLinearMul(*params)
    all_codes = np.arange(256, dtype=np.uint8).view(dtype)
    table = layer.apply(np.repeat(all_codes, 256), np.tile(all_codes, 256)).view(np.uint8)
    if not rng.integers(4):
        operator = {"add": "mul", "mul": "add"}[operator]
    attributes = {"operator": operator, "dtype": dtype, "scales": scales.tolist(), "zero_points": zeros}
    return Function(operator, kind="pair", arrays={"table": table}, attributes=attributes)


def lanes(rng: np.random.Generator, inputs: int, size: int) -> Function:
    """Bytes from any lane of any input, or none, through tables."""
    arrays = {
        "source": rng.integers(-1, inputs, size).astype(np.int16),
        "lane": rng.integers(0, size, size).astype(np.int32),
        "tables": rng.integers(0, 256, (inputs, 256)).astype(np.uint8),
    }
    if rng.integers(2):
        arrays["lane"] = np.arange(size, dtype=np.int32)
        arrays["source"] = np.sort(arrays["source"])
    return Function(f"lanes of {inputs}", kind="lanes", arrays=arrays)


def window(rng: np.random.Generator, kind: str) -> Function:
    """Windows over small images: cut borders, padding, holes; some windows see nothing."""

    def pair(low: int, high: int) -> list[int]:
        return [int(each) for each in rng.integers(low, high + 1, 2)]

    size, corner = pair(1, 4), pair(0, 1)
    stored = [a + b + int(rng.integers(2)) for a, b in zip(size, corner, strict=True)]
    kernel, out, batch = pair(1, 3), pair(1, 3), int(rng.integers(1, 3)) if math.prod(stored) <= 32 else 1
    of = {
        "batch": batch, "stored": stored, "corner": corner, "size": size, "kernel": kernel, "stride": pair(1, 2),
        "dilation": pair(1, 2), "before": pair(-1, 2), "out": out, "dtype": ("int8", "uint8")[rng.integers(2)],
    }  # fmt: skip
    taps = math.prod(kernel)
    table = rng.integers(0, 256, (taps + 1, 255 * taps + 1)).astype(np.uint8)
    arrays = {"table": table} if kind == "sum_pool" else {}
    return Function(kind, kind=kind, outputs=batch * math.prod(out), attributes=of, arrays=arrays)


class _Table(NamedTuple):
    functions: tuple[Function, ...]
    of_activate: tuple[int, ...]
    of_vector: tuple[int, ...]


def _table(rng: np.random.Generator, cols: int, size: int) -> _Table:
    plain = [Function(), Function("pool of 2", pool=2), Function("pool of 4", pool=4)]
    sums = epilogues(rng, cols, size)
    vectors = [
        lanes(rng, 1, size), lanes(rng, 2, size), lanes(rng, 3, size),
        Function("pair", kind="pair", arrays={"table": rng.integers(0, 256, 65536).astype(np.uint8)}),
        quantized_pair(rng),
        window(rng, "max_pool"), window(rng, "max_pool"), window(rng, "sum_pool"), window(rng, "sum_pool"),
    ]  # fmt: skip
    of_activate = tuple(range(len(plain) + len(sums)))
    of_vector = (*range(len(plain)), *range(len(of_activate), len(of_activate) + len(vectors)))
    return _Table((*plain, *sums, *vectors), of_activate, of_vector)


@st.composite
def _target(draw: Callable, function: Function, rows: int) -> tuple[int, isa.Pattern | None]:
    """Address and pattern of what an instruction that reads so many rows writes."""
    written = function.rows_written(rows)
    if draw(st.booleans()):
        ub, pattern = draw(patterns(written))
        missing = written // isa.pattern_rows(pattern)
        # As many rows as there are: the first axis again and again.
        if isa.pattern_rows(pattern) * missing == written and len(pattern) < isa.instructions.MOST_AXES:
            return ub, ((missing, 0), *pattern)
    return draw(firsts(LIMITS["ub"], written)), None


@st.composite
def _activate(draw: Callable, table: _Table) -> isa.Instruction:
    number = draw(st.sampled_from(table.of_activate))
    function = table.functions[number]
    most = min(LIMITS["acc"], LIMITS["ub"] // function.parts * function.pool)
    rows = draw(counts(most))
    ub, pattern = draw(_target(function, rows))
    return isa.Activate(draw(firsts(LIMITS["acc"], rows)), ub, rows, number, pattern)


@st.composite
def _vector(draw: Callable, table: _Table) -> isa.Instruction:
    number = draw(st.sampled_from(table.of_vector))
    function = table.functions[number]
    of = function.attributes
    rows = of["batch"] * math.prod(of["stored"]) if "stored" in of else draw(counts(LIMITS["ub"]))
    inputs = {"lanes": len(function.arrays.get("tables", ())), "pair": 2}.get(function.kind, 1)
    ub, pattern = draw(_target(function, rows))
    firsts_of = draw(st.lists(firsts(LIMITS["ub"], rows), min_size=inputs, max_size=inputs))
    return isa.Vector(tuple(firsts_of), ub, rows, number, pattern)


@st.composite
def data_programs(draw: Callable, most: int = 20) -> DataCase:
    """A valid program of at most so many instructions, a machine and data."""
    values = draw(timed.machines())
    cols = values["cols"]
    size = max(values["rows"], cols, values["row_bytes"] % 24)
    values["row_bytes"] = size
    rng = np.random.default_rng(draw(seeds))
    table = _table(rng, cols, size)
    timing = draw(timed.programs(most))
    functions, instructions = list(table.functions), list[isa.Instruction]()
    if draw(st.integers(0, 3)):  # else most rows hold zeros
        instructions.append(isa.ReadHost(0, 0, LIMITS["ub"]))
    for item in timing.instructions:
        match item:
            case isa.Activate():
                item = draw(_activate(table))
            case isa.Vector():
                item = draw(_vector(table))
            case isa.HostCall():
                functions.append(Function("host", kind="host"))
                item = replace(item, function=len(functions) - 1)
            case isa.SetConfiguration():
                item = isa.SetConfiguration(draw(TYPES), draw(TYPES))
        instructions.append(item)
    values["tile_bytes"] = values["rows"] * cols
    weights = codes(rng, (LIMITS["tiles"], values["rows"], cols), "int8")
    for tile in weights[:: int(rng.integers(1, 4))]:  # tiles with empty rows and columns
        k, n = (int(rng.integers(0, extent + 1)) for extent in tile.shape)
        tile[k:], tile[:, n:] = 0, 0
    host = rng.integers(0, 256, (LIMITS["host"], size)).astype(np.uint8)
    program = isa.Program(instructions, functions, weights)
    machine = machine_of(values)
    array = replace(machine.array, activation_dtype=draw(TYPES), weight_dtype=draw(TYPES))
    return DataCase(program, replace(machine, array=array), host, values)


def run(case: DataCase, mode: str, **options: Any) -> ProgramRun:
    """Run a case on the machine."""
    calls = {
        item.function: partial(host_function, writes=item.writes, size=case.row_bytes) for item in case.host_calls
    }
    return run_program(case.program, case.machine, host=case.host, mode=mode, calls=calls, **options)


def expected(case: DataCase) -> reference.Images:
    """What the reference leaves in the memories."""
    array = case.machine.array
    weights = case.program.weights
    assert weights is not None
    return reference.run_program(
        case.program.instructions, case.program.functions, [tile.tobytes() for tile in weights],
        [row.tobytes() for row in case.host], rows=array.rows, cols=array.cols,
        row_bytes=case.row_bytes, ub_rows=LIMITS["ub"], acc_rows=LIMITS["acc"],
        host_rows=LIMITS["host"], activation=array.activation_dtype, weight=array.weight_dtype,
        calls={item.function: partial(_reference_call, item, case.row_bytes) for item in case.host_calls},
    )  # fmt: skip


def _reference_call(item: isa.HostCall, size: int, rows: list[list[bytes]]) -> list[list[bytes]]:
    arrays = [np.frombuffer(b"".join(each), np.uint8).reshape(-1, size) for each in rows]
    return [[row.tobytes() for row in each] for each in host_function(arrays, item.writes, size)]


def expected_times(case: DataCase) -> reference_times.ProgramTimes:
    """When the reference says that everything happens."""
    program = case.program
    return reference_times.time_program(
        program.instructions, **case.values,
        rows_written=lambda item: program.functions[item.function].rows_written(item.rows),
    )  # fmt: skip


def check(case: DataCase, what: str = "all") -> None:
    """Assert that both modes leave every byte that the reference leaves, and take its times.

    `what` is "bytes", "times" or "all".
    """
    images, times = expected(case), expected_times(case)
    for mode in ("cycle", "wavefront"):
        ours = run(case, mode)
        for name in ("ub", "host", "acc") if what != "times" else ():
            found = getattr(ours, name)
            wanted = np.array([list(row) for row in getattr(images, name)], found.dtype)
            np.testing.assert_array_equal(found, wanted[: len(found)], err_msg=f"{mode}: {name}")
            assert not wanted[len(found) :].any()
        if what != "bytes":
            assert ours.timeline.start.tolist() == times.start
            assert ours.timeline.complete.tolist() == times.complete
            assert (ours.timeline.cycles, ours.timeline.causes) == (times.cycles, times.causes)
