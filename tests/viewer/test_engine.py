"""The registers that the page computes in JavaScript, against cycle mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.browser import clocked, same
from systolic import ArrayConfig, Change, Probe, SystolicArray, Trace, matmul
from systolic.dataflows import DATAFLOWS
from systolic.formats import OPERANDS
from systolic.trace import Streams

FORMATS: list[dict[str, Any]] = [
    {},
    {"activation_dtype": "uint8", "weight_dtype": "int8"},
    {"activation_dtype": "int4", "weight_dtype": "uint8", "psum_bits": 20},
    {"activation_dtype": "int16", "weight_dtype": "uint16"},
    {"activation_dtype": "int16", "weight_dtype": "int16", "overflow": "saturate"},
    {"psum_bits": 17, "overflow": "saturate"},
    {"activation_dtype": "bfloat16", "weight_dtype": "bfloat16"},
    {"activation_dtype": "float16", "weight_dtype": "float16"},
    {"activation_dtype": "float8_e5m2", "weight_dtype": "float8_e4m3fn"},
]


def drawn(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return random operands; floats of all sizes."""
    operand = OPERANDS[name]
    if operand.kind == "integer":
        low, high = operand.limits
        return rng.integers(low, high, shape, endpoint=True).astype(operand.dtype)
    with np.errstate(all="ignore"):
        return (rng.normal(size=shape) * 2.0 ** rng.integers(-20, 20, shape)).astype(operand.dtype)


def array_of(rng: np.random.Generator, **options: Any) -> SystolicArray:
    """Return an array of random size with folds queued."""
    rows, cols = rng.integers(1, 7, 2).tolist()
    config = ArrayConfig(rows, cols, **options)
    array = SystolicArray(config)
    for _ in range(rng.integers(1, 4)):
        # m, k and n that fit any dataflow
        m, k, n = rng.integers(1, min(rows, cols) + 1, 3).tolist()
        w, x = drawn(rng, config.weight_dtype, (k, n)), drawn(rng, config.activation_dtype, (m, k))
        array.fold(x=x, w=w, not_before=(int(rng.integers(0, 30)), 0))
    return array


def check(array: SystolicArray, cycles: list[int], seen: list[Any]) -> None:
    """Compare registers at cycles with those of the array, which has not passed them."""
    for cycle, registers in sorted(zip(cycles, seen, strict=True), key=lambda pair: pair[0]):
        array.run(until=cycle)
        for name, values in array.registers.items():
            assert same(registers[name], values), (array.config, cycle, name)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_registers_at_random_cycles_are_those_of_cycle_mode(dataflow: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    arrays = [array_of(rng, dataflow=dataflow, **options) for options in FORMATS for _ in range(4)]
    for array in arrays[::3]:  # begin in the middle
        array.run(int(rng.integers(0, 9)))
    cases = []
    for array in arrays:
        described = array.view().description
        first = described["first_cycle"]
        # Forwards and back.
        cycles = rng.integers(first, first + described["cycles"] + 1, 12).tolist()
        cases.append({"description": described, "cycles": cycles, "journeys": []})
    for array, case, result in zip(arrays, cases, clocked(cases, tmp_path), strict=True):
        check(array, case["cycles"], result["seen"])


BUGS = [
    ("c ? activation[i - 1]", "c > 1 ? activation[i - 1]"),
    ("if (swaps) weight[i] = next[i];", "if (shifts) weight[i] = next[i];"),
    ("psum[i] = add(above, a, weight[i]);", "psum[i] = add(above, a, next[i]);"),
    ("(s + Math.imul(a, b)) | 0, (s, t)", "Math.min(s + Math.imul(a, b), 2 ** 31 - 1), (s, t)"),
    ("best = at;\n", "best = at + 1;\n"),
]


def bug_case() -> tuple[SystolicArray, dict[str, Any]]:
    """Return an array that uses what the bugs break, and what to ask of it."""
    rng = np.random.default_rng(0)
    x, w = np.full((200, 4), -128, np.int8), rng.integers(-128, 128, (4, 3), dtype=np.int8)
    array = SystolicArray(ArrayConfig(4, 3))
    operands = {name: np.full((4, 3), 100, np.int8) for name in ("weight", "activation")}
    array.restore(array.state().replace(psum=np.full((4, 3), 2**31 - 9, np.int32), **operands))
    array.fold(x=x, w=w).fold(x=x, w=np.int8(w + 1))
    cycles = [1, 90, 40, 3, 7, 9, 60]
    return array, {"description": array.view().description, "cycles": cycles, "journeys": []}


def test_without_a_bug_there_is_no_difference(tmp_path: Path) -> None:
    array, case = bug_case()
    check(array, case["cycles"], clocked([case], tmp_path)[0]["seen"])


@pytest.mark.parametrize("bug", BUGS, ids=range(len(BUGS)))
def test_a_planted_bug_is_seen(bug: tuple[str, str], tmp_path: Path) -> None:
    array, case = bug_case()
    try:
        [result] = clocked([case], tmp_path, bug)
    except AssertionError:
        return  # it did not run at all
    with pytest.raises(AssertionError):
        check(array, case["cycles"], result["seen"])


def ports_of(rng: np.random.Generator, config: ArrayConfig, edges: int) -> dict[str, np.ndarray]:
    """Return any values on every port."""
    holds = {register.name: register.holds for register in config.dataflow_record.registers}
    operands = {"activation": config.activation_dtype, "weight": config.weight_dtype}
    found = {}
    for port in config.dataflow_record.ports:
        shape = edges, config.rows if port.side == "west" else config.cols
        kind = holds[port.feeds]
        if kind == "control":
            found[port.name] = rng.integers(0, 2, shape).astype(bool)
        elif kind == "sum":
            low, high = (-50, 50) if config.format.is_float else config.format.sum_limits
            found[port.name] = rng.integers(low, high, shape, endpoint=True).astype(config.format.sum)
        else:
            found[port.name] = drawn(rng, operands[kind], shape)
    return found


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_a_trace_of_any_ports_is_shown(dataflow: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    traces, cases = [], []
    cycles = list(range(9, 0, -1))
    for options in FORMATS:
        config = ArrayConfig(3, 4, dataflow=dataflow, **options)
        trace = Trace()
        SystolicArray(config, trace=trace).clock(**ports_of(rng, config, 9))
        traces.append(trace)
        cases.append({"description": trace.view().description, "cycles": cycles, "journeys": []})
    for trace, result in zip(traces, clocked(cases, tmp_path), strict=True):
        for cycle, registers in zip(cycles, result["seen"], strict=True):
            for name in trace.registers:
                assert same(registers[name], trace[name][cycle - 1]), (trace.array, cycle, name)


def test_a_register_that_a_probe_changed_is_shown_as_it_was(tmp_path: Path) -> None:
    class Flip(Probe):
        def next_stop(self, now: int, stop: int) -> int | None:
            return 5 if now < 5 else None

        def at_stop(self, cycle: int, registers: Any) -> Change:
            psum = registers.psum.copy()
            psum[1, 2] ^= 1 << 12
            return Change(registers={"psum": psum})

    rng = np.random.default_rng(2)
    x, w = rng.integers(-9, 9, (4, 3), dtype=np.int8), rng.integers(-9, 9, (3, 4), dtype=np.int8)
    trace = Trace()
    result = matmul(x, w, array=ArrayConfig(3, 4), probe=[Flip()], trace=trace)
    view = trace.view(folds=result.folds)
    assert [(at, change[0][:2]) for at, change in view.description["changes"].items()] == [("4", ["psum", 6])]
    cycles = list(range(1, result.cycles + 1))
    [seen] = clocked([{"description": view.description, "cycles": cycles, "journeys": []}], tmp_path)
    for cycle in cycles:
        for name in trace.registers:
            assert same(seen["seen"][cycle - 1][name], trace[name][cycle - 1])


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_outputs_of_a_product_of_several_tiles_are_those_of_matmul(dataflow: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    expected, cases = [], []
    for options in (FORMATS[0], FORMATS[5], FORMATS[6]):
        config = ArrayConfig(3, 4, dataflow=dataflow, accumulator_rows=8, **options)
        x, w = drawn(rng, config.activation_dtype, (9, 7)), drawn(rng, config.weight_dtype, (7, 10))
        streams = Streams()
        result = matmul(x, w, array=config, probe=streams)
        expected.append(result.acc)
        described = streams.view(folds=result.folds).description
        cases.append({"description": described, "cycles": [], "journeys": []})
    for acc, seen in zip(expected, clocked(cases, tmp_path), strict=True):
        assert same(seen["outputs"][0], acc)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_a_followed_value_keeps_its_value_on_its_way(dataflow: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    config = ArrayConfig(4, 3, dataflow=dataflow)
    array = SystolicArray(config)
    for _ in range(2):
        array.fold(x=rng.integers(-128, 128, (3, 3), dtype=np.int8), w=rng.integers(-128, 128, (3, 3), dtype=np.int8))
    names = [r.name for r in config.dataflow_record.registers if r.role not in ("control", "sum")]
    journeys = [[int(rng.integers(6, 13)), name, int(rng.integers(3)), int(rng.integers(3))] for name in names * 4]
    described = array.view().description
    [seen] = clocked([{"description": described, "cycles": [], "journeys": journeys}], tmp_path)
    history = {array.cycle: array.registers}
    while array.cycle < described["cycles"]:
        array.run(1)
        history[array.cycle] = array.registers
    long = 0
    for (cycle, name, row, col), walk in zip(journeys, seen["walks"], strict=True):
        here = history[cycle][name][row, col]
        places = [(place["cycle"], place["register"], place["row"], place["col"]) for place in walk]
        assert (cycle, name, row, col) in places or here == 0
        # A sum is complete in `out` and `out_pass`; before, it grows.
        settled = [place for place in places if place[1] not in ("psum", "acc")]
        assert all(history[at][register][r, c] == here for at, register, r, c in settled)
        long += len(places) > 2
    assert long > len(journeys) // 3


def test_a_followed_sum_moves_down_one_row_a_cycle(tmp_path: Path) -> None:
    array = SystolicArray(ArrayConfig(4, 3)).fold(x=np.ones((5, 4), np.int8), w=np.ones((4, 3), np.int8))
    case = {"description": array.view().description, "cycles": [], "journeys": [[8, "psum", 2, 1]]}
    [seen] = clocked([case], tmp_path)
    assert seen["walks"][0] == [
        {"cycle": 6 + row, "register": "psum", "row": row, "col": 1} for row in range(4)
    ]
