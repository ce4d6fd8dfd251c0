"""``explain``: each change is that of the program on a machine with twice the parameter."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given

from support.programs import Case, programs, rows_written
from support.strategies import examples, raises
from support.timelines import machine_of
from systolic import ArrayConfig, MemoryConfig, presets
from systolic.analysis import explain
from systolic.isa import Program
from systolic.reference import machine as reference

TPU = presets.TPU_V1

# The names that the reference gives the parameters.
NAMES = {
    "weight_bytes_per_second": "weight_bytes_per_cycle", "weight_latency_cycles": "weight_latency",
    "fifo_tiles": "fifo_tiles", "host_bytes_per_second": "host_bytes_per_cycle",
    "host_latency_cycles": "host_latency", "lanes": "lanes", "activation_latency_cycles": "activation_latency",
    "issue_cycles": "issue_cycles", "width_factors": "width_factors",
}  # fmt: skip


@examples(4)
@given(programs())
def test_changes_are_those_of_the_reference(case: Case) -> None:
    found = explain(case.program, machine_of(case.machine))
    before = reference.time_program(case.instructions, **case.machine, rows_written=rows_written).cycles
    assert found.timeline.cycles == before
    assert {effect.parameter for effect in found.effects} == {*NAMES, "clock_mhz"}
    for effect in found.effects:
        values: dict[str, Any] = dict(case.machine)
        faster = 1
        if effect.parameter == "clock_mhz":
            faster = 2
            values["weight_bytes_per_cycle"] /= 2
            values["host_bytes_per_cycle"] /= 2
        else:
            name = NAMES[effect.parameter]
            value = values[name]
            if name == "lanes" and value is None:
                value = values["cols"]
            values[name] = tuple(2 * v for v in value) if isinstance(value, tuple) else 2 * value
        after = reference.time_program(case.instructions, **values, rows_written=rows_written).cycles
        assert effect.cycles == after, effect
        assert effect.change == pytest.approx(after / faster / before - 1 if before else 0)
    changes = [effect.change for effect in found.effects]
    assert changes == sorted(changes)


def test_every_parameter_is_doubled_or_a_size() -> None:
    sizes = {"weight_bytes", "unified_buffer_rows", "host_rows", "row_bytes"}
    assert {f.name for f in fields(MemoryConfig)} == {*NAMES, *sizes}


WEIGHTS = "\n".join(["read_weights w#0, 8", *["matmul a#0, u#0, 8"] * 8])
STREAMS = "\n".join(["read_weights w#0, 1", "matmul a#0, u#0, 2000", *["matmul a#0, u#0, 2000, same_weights"] * 9])
INPUTS = "read_weights w#0, 1\nread_host u#0, 2000\nmatmul a#0, u#0, 10"
VECTORS = "read_weights w#0, 1\nmatmul a#0, u#0, 10\nactivate u#0, a#0, 4000\nmatmul a#0, u#0, 10, same_weights"
TURNS = "read_weights w#0, 1\nmatmul a#0, u#0, 9\nactivate u#9000, a#0, 4000\nmatmul a#0, u#0, 9, same_weights"
ISSUES = "read_weights w#0, 1\n" + "nop\n" * 500 + "matmul a#0, u#0, 9"


@pytest.mark.parametrize(
    ("text", "limit", "best"),
    [
        (WEIGHTS, "weight memory", "weight_bytes_per_second"),
        (STREAMS, "array", "clock_mhz"),
        (INPUTS, "host link", "host_bytes_per_second"),
        (VECTORS, "data dependence", "clock_mhz"),
        (TURNS, "accumulators", "clock_mhz"),
        (ISSUES, "dispatch and drain", "clock_mhz"),
    ],
)
def test_the_limit_that_binds(text: str, limit: str, best: str) -> None:
    found = explain(Program(text), TPU)
    assert found.limit == limit and found.effects[0].parameter == best
    if best == "weight_bytes_per_second":
        assert found.effects[0].change < -0.4


def test_the_limit_of_shifts() -> None:
    fast = replace(TPU, memory=replace(TPU.memory, weight_bytes_per_second=10**15))
    assert explain(Program(WEIGHTS), fast).limit == "weight shift"


def test_explanations_are_shown() -> None:
    found = explain(Program(WEIGHTS), TPU)
    text = str(found)
    assert "limited by: weight memory" in text and "weight_bytes_per_second    34,000,000,000" in text
    assert repr(found).startswith("<Explanation: ") and "twice the weight_bytes_per_second saves " in repr(found)
    assert "<table" in found._repr_html_()
    values = json.loads(json.dumps(found.to_dict()))
    assert values["limit"] == "weight memory" and len(values["effects"]) == len(NAMES) + 1
    assert sum(values["causes"].values()) == values["cycles"]
    row = next(row for row in found.table().to_dicts() if row["parameter"] == "clock_mhz")
    assert row["seconds"] == pytest.approx(TPU.seconds(row["cycles"]) / 2)


def test_bandwidths_that_are_fractions_are_shown() -> None:
    memory = replace(presets.TPU_V1.memory, host_bytes_per_second=Fraction(100, 3), lanes=None)
    found = explain(Program("read_host u#0, 1"), replace(TPU, memory=memory))
    assert "100/3" in str(found)
    effects = {effect["parameter"]: effect for effect in json.loads(json.dumps(found.to_dict()))["effects"]}
    assert effects["host_bytes_per_second"]["doubled"] == "200/3"
    assert (effects["lanes"]["value"], effects["lanes"]["doubled"]) == (256, 512)


def test_programs_without_cycles() -> None:
    found = explain(Program(()), TPU)
    assert found.limit == "-" and "no cycles" in str(found) and "saves" not in repr(found)


def test_wrong_arguments() -> None:
    with raises(TypeError, "program must be a Program, not str 'nop'; systolic.compile makes one"):
        explain("nop", TPU)  # type: ignore[arg-type]
    with raises(TypeError, "machine must be a MachineConfig with memories, not ArrayConfig"):
        explain(Program("nop"), ArrayConfig())  # type: ignore[arg-type]
