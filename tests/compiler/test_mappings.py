"""Mappings of programs: for all convolutions, for some of them, and the fastest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import systolic
from support.compiled import machine
from support.strategies import raises
from systolic.compiler import Programs
from systolic.isa import Convolve
from systolic.machine import time_program

EXAMPLE = systolic.load_example()
CONVOLUTIONS = [node.name for node in EXAMPLE.model.nodes if node.layer.kind == "QLinearConv"]
DIGITS = machine(16, 16)


def cycles(mapping: object) -> int:
    return time_program(systolic.compile(EXAMPLE.model, machine=DIGITS, mapping=mapping), DIGITS).stats.cycles


def test_a_mapping_for_each_layer() -> None:
    for name in ("taps", "im2col"):
        of_all = systolic.compile(EXAMPLE.model, machine=DIGITS, mapping=name)
        assert systolic.compile(EXAMPLE.model, machine=DIGITS, mapping=dict.fromkeys(CONVOLUTIONS, name)) == of_all
    program = systolic.compile(EXAMPLE.model, machine=DIGITS, mapping={"down_quant": "im2col"})
    calls = {call.name for call in program.functions if call.kind == "host" and call.attributes["call"] == "patches"}
    assert {"down_quant"} <= calls != set(CONVOLUTIONS)


def test_packed_is_by_im2col_where_there_are_groups() -> None:
    packed = systolic.compile(EXAMPLE.model, machine=DIGITS, mapping="pack")
    assert packed == systolic.compile(EXAMPLE.model, machine=DIGITS, mapping={"depthwise_quant": "im2col"})
    assert packed != systolic.compile(EXAMPLE.model, machine=DIGITS)
    assert any(isinstance(item, Convolve) for item in packed)


def test_the_fastest_program() -> None:
    each = [cycles(name) for name in (None, "taps", "im2col")]
    assert cycles("best") == min(each) < max(each)
    others = dict.fromkeys(CONVOLUTIONS[1:], "im2col")
    assert cycles({**others, CONVOLUTIONS[0]: "best"}) == min(
        cycles(names) for names in (others, *({**others, CONVOLUTIONS[0]: name} for name in ("taps", "im2col")))
    )
    programs = Programs(EXAMPLE.model, mapping="best")
    assert programs.of(DIGITS) == systolic.compile(EXAMPLE.model, machine=DIGITS, mapping="best", weights=False)
    slow = replace(DIGITS, memory=replace(DIGITS.memory, host_bytes_per_second=10**6))
    assert programs.of(slow) == systolic.compile(EXAMPLE.model, machine=slow, mapping="best", weights=False)


@pytest.mark.parametrize("mapping", ["pack", "best", {"down_quant": "taps", "depthwise_quant": "pack"}])
def test_runs(mapping: object) -> None:
    x = EXAMPLE.images[:2]
    expected = systolic.run(EXAMPLE.model, x, machine=DIGITS.array, mode="wavefront").outputs["logits"]
    for mode in ("cycle", "wavefront"):
        run = systolic.run(EXAMPLE.model, x, machine=DIGITS, mode=mode, mapping=mapping)
        np.testing.assert_array_equal(run.outputs["logits"], expected)
        assert run.stats == systolic.estimate(EXAMPLE.model, machine=DIGITS, batch=2, mapping=mapping)
    with raises(ValueError, "the mappings of a program were chosen when it was compiled; run its Model"):
        systolic.run(run.program, x, machine=DIGITS, mapping=mapping)
    with raises(ValueError, "the mappings of a program were chosen when it was compiled; pass its Model"):
        systolic.estimate(run.program, machine=DIGITS, mapping=mapping)


def test_a_machine_for_which_nothing_fits() -> None:
    small = machine(16, 16, host_rows=1)
    with pytest.raises(ValueError, match="rows of host memory"):
        systolic.compile(EXAMPLE.model, machine=small, mapping="best")
