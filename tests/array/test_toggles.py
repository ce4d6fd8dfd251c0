"""Toggles counted in the kernels: every register, from any state with any ports, against a count in numpy."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.strategies import (
    BLOCK,
    LANES,
    ROW_GROUP,
    codes,
    examples,
    raises,
    seeds,
    sign_mixes,
    sizes,
    sums,
)
from systolic import ArrayConfig, Change, Probe, State, SystolicArray, matmul
from systolic.benchmark.timing import instruction_sets, using
from systolic.dataflows import DATAFLOWS
from systolic.energy import Toggles

CONTROL = (0.0, 0.02, 0.5, 1.0, "runs", "once")


def control(rng: np.random.Generator, size: tuple[int, int], how: float | str) -> np.ndarray:
    """Bits by line: so many of them set, runs of equal ones, or one run that all columns share."""
    if how == "runs":
        flips = rng.random(size) < rng.choice([0.03, 0.1, 0.6])
        return (np.cumsum(flips, axis=0) + rng.integers(0, 2, size[1])) % 2 == 1
    if how == "once":
        # As in folds: one line later in each column.
        first, stop = np.sort(rng.integers(-size[1], size[0] + 1, 2))
        at = np.arange(size[0])[:, np.newaxis] - np.arange(size[1])
        return (first <= at) & (at < stop)
    return rng.random(size) < how


def case(
    rng: np.random.Generator, config: ArrayConfig, cycles: int, hows: tuple[Any, Any]
) -> tuple[State, dict[str, np.ndarray]]:
    def drawn(size: tuple[int, int], dtype: np.dtype, how: float | str) -> np.ndarray:
        if dtype.kind == "b":
            return control(rng, size, how)
        return sums(rng, size) if dtype == np.int32 else codes(rng, size, dtype.name)

    size, sides = (config.rows, config.cols), {"west": config.rows, "north": config.cols}
    state = {name: drawn(size, dtype, hows[0]) for name, dtype in config.register_dtypes.items()}
    ports = {
        port.name: drawn((cycles, sides[port.side]), config.port_dtypes[port.name], hows[number % 2])
        for number, port in enumerate(config.dataflow_record.ports)
    }
    return State(**state), ports


def counted(before: Any, recorded: dict[str, np.ndarray]) -> dict[str, int]:
    """Toggles in numpy: of the registers before, then after each edge, (cycles, rows, cols)."""
    found = {}
    for name, after in recorded.items():
        values = np.concatenate([before[name][np.newaxis], after])
        unsigned = values.view(f"u{values.itemsize}")
        changed = np.ascontiguousarray(unsigned[1:] ^ unsigned[:-1])
        found[name] = int(np.unpackbits(changed.view(np.uint8)).sum())
    return found


def stepped(config: ArrayConfig, state: State, ports: dict[str, np.ndarray]) -> dict[str, int]:
    array = SystolicArray(config, trace=True).restore(state)
    array.clock(**ports)
    assert array.trace is not None
    return counted(state.registers, {name: array.trace[name] for name in state.registers})


@st.composite
def cases(draw: st.DrawFn, max_rows: int = 20, max_cols: int = 40):
    dataflow = draw(st.sampled_from(sorted(DATAFLOWS)))
    types = draw(sign_mixes)
    config = ArrayConfig(
        draw(sizes(max_rows, (1, 2, 7, ROW_GROUP, ROW_GROUP + 1, 2 * ROW_GROUP))),
        draw(sizes(max_cols, (1, LANES - 1, LANES, LANES + 1))),
        activation_dtype=types[0], weight_dtype=types[1], dataflow=dataflow,
    )  # fmt: skip
    cycles = draw(sizes(60, (1, 2, 7, 8, 9, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 5)))
    hows = draw(st.sampled_from(CONTROL)), draw(st.sampled_from(CONTROL))
    return (config, *case(np.random.default_rng(draw(seeds)), config, cycles, hows))


@pytest.mark.parametrize("isa", instruction_sets(True))
def test_any_state_with_any_ports_equals_numpy(isa: str) -> None:
    @examples(40)
    @given(cases(), st.integers(1, 2))
    def equal(case: Any, threads: int) -> None:
        config, state, ports = case
        toggles = Toggles()
        array = SystolicArray(config, probe=toggles).restore(state)
        leaving = array.clock(threads=threads, **ports)
        assert toggles.counts == stepped(config, state, ports)
        # What is counted does not change what is computed.
        plain = SystolicArray(config).restore(state)
        np.testing.assert_array_equal(plain.clock(**ports), leaving)
        assert plain.state() == array.state()

    with using(isa):
        equal()


@pytest.mark.slow
@pytest.mark.parametrize("dataflow", sorted(DATAFLOWS))
@pytest.mark.parametrize("isa", instruction_sets(True))
def test_larger_arrays_in_long_runs(isa: str, dataflow: str) -> None:
    rng = np.random.default_rng(0)
    with using(isa):
        for how in CONTROL:
            config = ArrayConfig(int(rng.integers(20, 70)), int(rng.integers(33, 90)), dataflow=dataflow)
            state, ports = case(rng, config, 3 * BLOCK + 9, (how, rng.choice(np.array(CONTROL, object))))
            toggles = Toggles()
            SystolicArray(config, probe=toggles).restore(state).clock(threads=2, **ports)
            assert toggles.counts == stepped(config, state, ports)


@pytest.mark.parametrize("dataflow", sorted(DATAFLOWS))
@pytest.mark.parametrize("isa", instruction_sets(True))
def test_folds(isa: str, dataflow: str) -> None:
    # Rows without control, shifts in all lanes, one wave of a swap: the paths that folds take.
    rng = np.random.default_rng(1)
    x, w = codes(rng, (270, 20), "int8"), codes(rng, (20, 25), "uint8")
    config = ArrayConfig(18, 19, dataflow=dataflow, accumulator_rows=None)
    with using(isa):
        toggles = Toggles()
        result = matmul(x, w, array=config, probe=[toggles], trace=True)
    zero = {name: np.zeros((18, 19), result.trace[name].dtype) for name in toggles.counts}
    assert toggles.counts == counted(zero, {name: result.trace[name] for name in zero})
    assert result.toggles == toggles.counts


@pytest.mark.parametrize(
    "options",
    [
        {"activation_dtype": "int4", "weight_dtype": "int8"},
        {"activation_dtype": "uint8", "weight_dtype": "uint4", "psum_bits": 19},
        {"psum_bits": 16, "overflow": "saturate"},
        {"activation_dtype": "int16", "psum_bits": 64},
        {"activation_dtype": "float16", "weight_dtype": "float16"},
    ],
)
@pytest.mark.parametrize("dataflow", sorted(DATAFLOWS))
def test_formats_that_no_kernel_counts(dataflow: str, options: dict[str, Any]) -> None:
    config = ArrayConfig(3, 4, dataflow=dataflow, **options)
    rng, toggles = np.random.default_rng(2), Toggles()
    array = SystolicArray(config, trace=True, probe=toggles)
    limits, ports = config.register_limits, {}
    for port in config.dataflow_record.ports:
        dtype, size = config.port_dtypes[port.name], (9, 3 if port.side == "west" else 4)
        low, high = limits.get(port.feeds, (0, 2) if dtype.kind == "b" else (-99, 100))
        values = rng.integers(max(low, 0) if dtype.kind in "bu" else low, high, size)
        ports[port.name] = values if dtype.kind != "f" else rng.standard_normal(size).astype(dtype)
    for t in range(9):
        array.step(**{name: values[t] for name, values in ports.items()})
    numbers = config.format
    bits = {
        "activation": numbers.activation_bits, "weight": numbers.weight_bits, "sum": numbers.psum_bits, "control": 1,
    }  # fmt: skip
    for register in config.dataflow_record.registers:
        values = array.trace[register.name]
        values = np.concatenate([np.zeros_like(values[:1]), values]).view(f"u{values.itemsize}")
        mask = 2 ** bits[register.holds] - 1
        wanted = sum(
            (int(a) & mask ^ int(b) & mask).bit_count()
            for one, other in pairwise(values)
            for a, b in zip(one.flat, other.flat, strict=True)
        )
        assert toggles.counts[register.name] == wanted, register.name


def test_counts_add_up_and_start_over() -> None:
    rng, config, toggles = np.random.default_rng(3), ArrayConfig(5, 6), Toggles()
    state, ports = case(rng, config, 40, ("runs", 0.5))
    array = SystolicArray(config, probe=toggles).restore(state)
    array.clock(**{name: values[:13] for name, values in ports.items()})
    first = toggles.counts
    array.clock(**{name: values[13:] for name, values in ports.items()})
    assert toggles.counts == stepped(config, state, ports) != first
    assert array.reset() and set(toggles.counts.values()) == {0}
    # Another array of the dataflow goes on, one of another dataflow starts over.
    SystolicArray(config, probe=toggles).step(activation=1)
    SystolicArray(config, probe=toggles).step(activation=1)
    assert toggles.counts["activation"] == 2 * 5
    SystolicArray(ArrayConfig(2, 2, dataflow="output_stationary"), probe=toggles).step(activation=3)
    assert toggles.counts == {
        "activation": 4, "weight": 0, "acc": 0, "out": 0, "out_pass": 0, "swap": 0, "drain": 0,
    }  # fmt: skip


def test_what_a_probe_changes_is_no_toggle() -> None:
    class Set(Probe):
        def next_stop(self, now: int, stop: int) -> int | None:
            return 1 if now < 1 else None

        def at_stop(self, cycle: int, registers: Any) -> Change:
            return Change(registers={"psum": registers.psum * 0 + 7})

    toggles = Toggles()
    SystolicArray(ArrayConfig(1, 1), probe=[toggles, Set()]).run(2)
    assert toggles.counts["psum"] == 3  # from 7, which it was set to, back to 0


def test_a_probe_takes_toggles_with_the_edges() -> None:
    class Counter(Probe):
        counts_toggles = True

        def attach(self, config: ArrayConfig) -> None:
            self.seen: list[tuple[int, int]] = []

        def next_stop(self, now: int, stop: int) -> int | None:
            return now + 2

        def at_stop(self, cycle: int, registers: Any) -> None:
            pass

        def toggled(self, cycle: int, toggles: Any) -> Change:
            return Change(probe={"seen": [*self.seen, (cycle, toggles["activation"])]})

    probe = Counter()
    SystolicArray(ArrayConfig(1, 2), probe=probe).clock(activation=[[3], [0], [0], [0], [1]])
    assert probe.seen == [(2, 2 + 2 + 2), (4, 2), (5, 1)]

    class Wrong(Counter):
        def toggled(self, cycle: int, toggles: Any) -> Change:
            return Change(registers={"psum": [[0, 0]]})

    with raises(ValueError, "Wrong.toggled: register must be one of , not 'psum'"):
        SystolicArray(ArrayConfig(1, 2), probe=Wrong()).run(1)


def test_layer_is_a_name() -> None:
    assert repr(Toggles("conv")) == "Toggles('conv')" and repr(Toggles()) == "Toggles()"
    with raises(TypeError, "layer must be the name of a node, or None, not int 3"):
        Toggles(3)  # type: ignore[arg-type]
