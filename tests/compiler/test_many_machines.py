"""``Programs``: of many machines in any order the programs, and times, that ``compile`` gives each alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import systolic
from support.compiled import check_times, machine
from support.random_models import random_model
from support.strategies import examples, seeds
from systolic import MachineConfig, Model, Program, Stats
from systolic.compiler import Programs, RuntimeShape
from systolic.machine import time_program

CHOICES: dict[str, list[Any]] = {
    "rows": [4, 8], "cols": [6, 8], "ub": [50, 100, 200, 4096], "accumulator_rows": [2, 16, 4096, None],
    "double_buffered": [True, False], "weight_bytes_per_second": [10**7, 10**9, 10**12],
    "weight_latency_cycles": [0, 90], "host_latency_cycles": [0, 5], "fifo_tiles": [1, 4], "lanes": [None, 3],
    "activation_latency_cycles": [0, 40], "issue_cycles": [1, 7], "host_rows": [30, 2**16],
    "weight_bytes": [600, 2**22], "row_bytes": [None, 8, 20], "host_bytes_per_second": [10**8, 10**10],
}  # fmt: skip


@st.composite
def machines(draw: st.DrawFn) -> list[MachineConfig]:
    """A few machines that differ in a few fields."""
    axes = draw(st.lists(st.sampled_from(sorted(CHOICES)), min_size=1, max_size=3, unique=True))
    base = {name: values[-1] for name, values in CHOICES.items()}
    found = []
    for _ in range(draw(st.integers(2, 6))):
        found.append(machine(**base | {name: draw(st.sampled_from(CHOICES[name])) for name in axes}))
    return [replace(each, clock_mhz=draw(st.sampled_from([300, 700]))) for each in found]


def alone(model: Model, on: MachineConfig) -> Program | str:
    try:
        return systolic.compile(model, machine=on, batch=2, weights=False)
    except RuntimeShape:
        assume(False)
        raise
    except ValueError as error:
        return str(error)


def compared(programs: Programs, model: Model, on: MachineConfig) -> None:
    wanted = alone(model, on)
    if isinstance(wanted, str):
        with pytest.raises(ValueError) as caught:
            programs.of(on)
        assert str(caught.value) == wanted
        return
    found = programs.of(on)
    for name in ("instructions", "sections", "symbols", "inputs", "outputs"):
        assert getattr(found, name) == getattr(wanted, name)
    assert [each.to_dict() for each in found.functions] == [each.to_dict() for each in wanted.functions]
    timeline = time_program(found, on)
    assert timeline.stats == time_program(wanted, on).stats
    assert timeline.stats == sum((layer.stats for layer in timeline.layers()), Stats())
    if len(found) <= 150:
        check_times(timeline, found, on)


@pytest.mark.slow
@examples(40)
@given(seeds, machines(), st.booleans())
def test_any_order_of_machines(seed: int, some: list[MachineConfig], taps: bool) -> None:
    model, _ = random_model(seed)
    try:
        model.input_shapes(2)
    except ValueError:
        assume(False)
    programs = Programs(model, batch=2)
    for on in (*some, *some[::-1]):
        compared(programs, model, on)


@pytest.mark.parametrize("name", ["ub", "fifo_tiles", "weight_bytes_per_second", "double_buffered", "row_bytes"])
def test_the_example_on_machines_that_differ_in_one_field(name: str) -> None:
    model = systolic.load_example().model
    base = {name: values[-1] for name, values in CHOICES.items()} | {"accumulator_rows": 16}
    some = [machine(**base | {name: value}) for value in CHOICES[name]]
    for order in (some, some[::-1]):
        programs = Programs(model, batch=2)
        for on in (*order, *order):
            compared(programs, model, on)


def test_the_cheaper_order_of_tiles_is_asked_for_each_machine() -> None:
    """Two machines of one size whose programs differ, since one loads weights slowly."""
    programs = Programs(systolic.load_example().model, batch=2)
    slow, fast = (machine(8, 8, accumulator_rows=64, weight_bytes_per_second=rate) for rate in (10**9, 10**12))
    assert programs.of(slow).instructions != programs.of(fast).instructions
    assert programs.of(slow) is programs.of(slow) and programs.of(fast) is programs.of(fast)


def test_what_is_shared() -> None:
    programs = Programs(systolic.load_example().model)
    one = programs.of(machine(16, 16))
    for same in ({"issue_cycles": 9}, {"host_bytes_per_second": 10**6}, {"ub": 8192}, {"host_latency_cycles": 50}):
        assert programs.of(machine(16, 16, **same)) is one
    for other in ({"rows": 8}, {"accumulator_rows": 64}, {"fifo_tiles": 1}):
        assert programs.of(machine(**{"rows": 16, "cols": 16} | other)) is not one
    assert programs.of(machine(16, 16)) is one


def test_what_is_kept_has_a_bound() -> None:
    programs = Programs(systolic.load_example().model)
    one = programs.of(machine(16, 16))
    for rows in range(100, 180):
        programs.of(machine(16, 16, accumulator_rows=rows))
    assert programs.of(machine(16, 16)) is not one
    assert sum(map(len, programs._made.values())) <= 32


def test_errors_are_those_of_compile() -> None:
    model = systolic.load_example().model
    programs = Programs(model)
    for _ in range(2):
        with pytest.raises(ValueError, match="rows of the unified buffer at once"):
            programs.of(machine(16, 16, 1))
    with pytest.raises(ValueError, match="a program needs a machine with memories"):
        programs.of(MachineConfig())
    with pytest.raises(TypeError, match="model must be a Model, not str"):
        Programs("model")  # type: ignore[arg-type]
