"""Probes: assertions, counters and faults, each against the reference given the same."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import systolic
from support.interrupts import every_interrupt
from support.strategies import raises
from systolic import ArrayConfig, Change, Gemm, Probe, SystolicArray, Trace, conv2d, folds, matmul, ports
from systolic.reference import ReferenceArray

X = np.array([[1, 2], [3, 4], [-5, 6]], dtype=np.int8)
W = np.array([[7, -8, 9], [10, 11, -12]], dtype=np.int8)
CONFIG = ArrayConfig(2, 3)


class Bound(Probe):
    """An assertion: no psum beyond a bound."""

    def __init__(self, bound: int) -> None:
        self.bound = bound

    def at_stop(self, cycle: int, registers: Any) -> None:
        assert abs(registers.psum.astype(np.int64)).max() <= self.bound, f"psum overflow at cycle {cycle}"


class Toggles(Probe):
    """A counter: bits that flip in each register."""

    def attach(self, config: ArrayConfig) -> None:
        size = config.rows, config.cols
        self.flips = dict.fromkeys(config.register_dtypes, 0)
        self.before = {name: np.zeros(size, dtype) for name, dtype in config.register_dtypes.items()}

    def at_stop(self, cycle: int, registers: Any) -> Change:
        flips = {n: self.flips[n] + toggled(registers[n], self.before[n]) for n in registers}
        return Change(probe={"flips": flips, "before": dict(registers)})


class Fault(Probe):
    """A fault: one bit of one register of one PE flips at one cycle."""

    def __init__(self, cycle: int, register: str, row: int, col: int, bit: int, layer: str | None = None) -> None:
        self.cycle, self.place, self.register, self.bit = cycle, (row, col), register, bit
        self.layer = layer

    def next_stop(self, now: int, stop: int) -> int | None:
        return self.cycle if now < self.cycle else None

    def at_stop(self, cycle: int, registers: Any) -> Change:
        assert cycle == self.cycle
        return Change(registers={self.register: flipped(registers[self.register], self.place, self.bit)})


def flipped(values: np.ndarray, place: tuple[int, int], bit: int) -> np.ndarray:
    """Return register values with one bit of one PE the other way."""
    changed = values.copy()
    word = changed.view(f"u{values.itemsize}")
    word[place] ^= word.dtype.type(1 << bit)
    return changed


def flip(array: ReferenceArray, fault: Fault, config: ArrayConfig) -> None:
    """Do to the reference what a fault does to the array."""
    values = array.registers()[fault.register].astype(config.register_dtypes[fault.register])
    setattr(array, fault.register, flipped(values, fault.place, fault.bit).astype(int).tolist())


def toggled(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.unpackbits((a ^ b).view(np.uint8)).sum())


def reference_run(
    x: np.ndarray, w: np.ndarray, config: ArrayConfig, fault: Fault | None = None
) -> tuple[np.ndarray, dict[str, int]]:
    """A product on the reference, its ports fed by ``ports``: sums, and bits that flipped."""
    dtypes = config.register_dtypes
    array = ReferenceArray(config.rows, config.cols)
    half = config.chunk_rows or len(x)
    acc = np.zeros((2, half, config.cols), np.int64)
    y = np.zeros((len(x), w.shape[1]), np.int64)
    flips = dict.fromkeys(dtypes, 0)
    before = {name: values.astype(dtypes[name]) for name, values in array.registers().items()}
    below = np.zeros(config.cols, np.int64)
    cycles = systolic.estimate(Gemm(*x.shape, w.shape[1]), machine=config).cycles
    for values in ports(x, w, array=config):
        for c in np.flatnonzero(values.write):
            place = values.half[c], values.row[c], c
            acc[place] = below[c] + (0 if values.first[c] else acc[place])
            # One n tile, and a chunk: the row is that of y.
            y[values.row[c], c] = acc[place]
        array.step(**{name: each.tolist() for name, each in values.ports.items()})
        if fault is not None and array.cycle == fault.cycle:
            flip(array, fault, config)
        below = array.registers()["psum"][-1]
        after = {name: each.astype(dtypes[name]) for name, each in array.registers().items()}
        if values.cycle < cycles:  # the last port values are those of an accumulator write
            flips = {name: flips[name] + toggled(after[name], before[name]) for name in flips}
        before = after
    return (y + 2**31) % 2**32 - 2**31, flips


def small_product() -> tuple[np.ndarray, np.ndarray, ArrayConfig]:
    rng = np.random.default_rng(3)
    config = ArrayConfig(4, 5)
    return rng.integers(-128, 128, (9, 10), np.int8), rng.integers(-128, 128, (10, 5), np.int8), config


def test_an_assertion_stops_after_the_edge_that_fails() -> None:
    trace = Trace(registers="psum")
    array = SystolicArray(CONFIG, trace=trace, probe=Bound(60)).fold(x=X, w=W)
    with pytest.raises(AssertionError, match="^psum overflow at cycle 5"):
        array.run()
    # The array stands where it failed, the trace has that edge.
    assert array.cycle == 5 and trace.cycles.tolist() == [0, 1, 2, 3, 4]
    assert array.registers.psum[1, 0] == 61


def test_toggles_equal_those_of_the_reference() -> None:
    x, w, config = small_product()
    toggles = Toggles()
    array = SystolicArray(config, probe=toggles)
    for fold in folds(Gemm(*x.shape, w.shape[1]), array=config):
        array.fold(x=x[:, fold.k_start : fold.k_stop], w=w[fold.k_start : fold.k_stop])
    array.run()
    _, expected = reference_run(x, w, config)
    assert toggles.flips == expected and expected["psum"] > 1000


@pytest.mark.slow
@pytest.mark.parametrize("at", range(1, 9))
@pytest.mark.parametrize("how", ["run", "clock", "step"])
def test_a_fault_at_any_cycle(at: int, how: str) -> None:
    for register, row, col, bit in [("psum", 1, 1, 30), ("psum", 0, 2, 3), ("weight", 1, 0, 7), ("swap", 0, 0, 0)]:
        fault = Fault(at, register, row, col, bit)
        trace = Trace()
        array = SystolicArray(CONFIG, trace=trace, probe=fault)
        cycles = list(ports(X, W, array=CONFIG))[:-1]
        if how == "run":
            array.fold(x=X, w=W).run()
        elif how == "clock":
            driven = {name: np.stack([v.ports[name] for v in cycles]) for name in cycles[0].ports}
            bottom = array.clock(**driven)
        else:
            for values in cycles:
                array.step(**values.ports)
        reference = ReferenceArray(2, 3)
        for t, values in enumerate(cycles):
            reference.step(**{name: each.tolist() for name, each in values.ports.items()})
            if reference.cycle == at:
                flip(reference, fault, CONFIG)
            for name, expected in reference.registers().items():
                np.testing.assert_array_equal(trace[name][t], expected, err_msg=f"{name} {t} {register}")
            if how == "clock":
                np.testing.assert_array_equal(bottom[t], reference.psum[-1])
            for m, n in np.ndindex(3, 3):
                # The sum (m, n) stands at the bottom after the edge of cycle 2 + m + rows - 1 + n.
                if how == "run" and t == 2 + m + 1 + n:
                    assert array.outputs[0][m, n] == reference.psum[1][n]


def test_between_stops_the_array_runs_on() -> None:
    class Two(Probe):
        def __init__(self) -> None:
            self.seen: list[int] = []

        def next_stop(self, now: int, stop: int) -> int | None:
            return next((t for t in (3, 900) if now < t), None)

        def at_stop(self, cycle: int, registers: Any) -> None:
            self.seen.append(cycle)

    two, chunks = Two(), []
    SystolicArray(CONFIG, probe=two).run(1000, progress=lambda done, total: chunks.append(done))
    assert two.seen == [3, 900] and chunks == [3, 900, 1000]


def test_probes_are_called_in_order_and_see_what_the_ones_before_changed() -> None:
    before, after = Trace(registers="psum"), Trace(registers="psum")
    fault = Fault(4, "psum", 0, 0, 4)
    array = SystolicArray(CONFIG, probe=(before, fault), trace=after).fold(x=X, w=W).run()
    assert array.trace is after
    assert (before["psum"][3, 0, 0], after["psum"][3, 0, 0]) == (21, 21 ^ 16)
    assert len(before) == len(after) == 8


def test_a_probe_may_keep_what_it_saw() -> None:
    class Keep(Probe):
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def at_stop(self, cycle: int, registers: Any) -> Change:
            with pytest.raises(ValueError, match="read-only"):
                registers.psum[0, 0] = 1
            self.seen.append(registers)
            return Change(registers={"psum": registers.psum + 1})

    keep = Keep()
    array = SystolicArray(CONFIG, probe=keep).run(3)
    assert [int(seen.psum[0, 0]) for seen in keep.seen] == [0, 0, 0]
    # Row 0 gets 0 from above and 1 more each time; row 1 what row 0 had.
    assert array.registers.psum.tolist() == [[1, 1, 1], [2, 2, 2]]


# Through matmul, conv2d and run


def test_matmul_under_an_assertion() -> None:
    x, w, config = small_product()
    largest = int(np.abs(matmul(x, w, array=config, trace=(trace := Trace())).trace["psum"]).max())
    matmul(x, w, array=config, probe=Bound(largest))
    again = Trace(registers="psum")
    with pytest.raises(AssertionError, match="^psum overflow at cycle"):
        matmul(x, w, array=config, probe=Bound(largest - 1), trace=again)
    # The trace ends with the edge that fails.
    first = int(np.flatnonzero(np.abs(trace["psum"]).max(axis=(1, 2)) == largest)[0])
    assert again.cycles.tolist() == list(range(first + 1))


def test_matmul_toggles_equal_the_reference() -> None:
    x, w, config = small_product()
    toggles = Toggles()
    result = matmul(x, w, array=config, probe=toggles)
    acc, expected = reference_run(x, w, config)
    np.testing.assert_array_equal(result.acc, acc)
    assert toggles.flips == expected


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_matmul_under_faults_equals_the_reference_under_them(threads: int) -> None:
    x, w, config = small_product()
    rng = np.random.default_rng(7)
    clean = matmul(x, w, array=config)
    changed = 0
    for _ in range(30):
        register = str(rng.choice(["psum", "weight", "next_weight", "activation", "swap", "shift"]))
        width = 8 * config.register_dtypes[register].itemsize if register not in ("swap", "shift") else 1
        fault = Fault(
            int(rng.integers(1, clean.cycles)), register, int(rng.integers(4)), int(rng.integers(5)),
            int(rng.integers(width)),
        )  # fmt: skip
        result = matmul(x, w, array=config, probe=fault, threads=threads)
        np.testing.assert_array_equal(result.acc, reference_run(x, w, config, fault)[0], err_msg=repr(vars(fault)))
        assert result.cycles == clean.cycles
        changed += not np.array_equal(result.acc, clean.acc)
    assert changed > 10


def test_conv2d_under_a_fault() -> None:
    x, w = np.ones((1, 1, 3, 3), np.int8), np.full((1, 1, 2, 2), 3, np.int8)
    fault = Fault(9, "psum", 3, 0, 8)
    clean = conv2d(x, w, array=ArrayConfig(4, 4))
    acc = conv2d(x, w, array=ArrayConfig(4, 4), probe=fault).acc
    assert sorted((acc - clean.acc).ravel().tolist()) == [0, 0, 0, 256]


def test_run_probes_the_layer_named() -> None:
    example = systolic.load_example()
    machine, images = ArrayConfig(16, 16), example.images[:1]
    clean = systolic.run(example.model, images, machine=machine)
    (head,) = [layer for layer in clean.layers if layer.name == "logits_quant"]
    toggles = Toggles()
    toggles.layer = "logits_quant"
    seen: dict[str, list[np.ndarray]] = {}

    def observe(node: Any, inputs: list[np.ndarray], output: Any) -> None:
        seen[node.name] = inputs

    trace = Trace(layer="logits_quant")
    # The bottom psum of column 3, as it leaves after the last k tile.
    place = {"register": "psum", "row": 15, "col": 3, "bit": 24, "layer": "logits_quant"}
    at = head.stats.cycles - (16 - 1 - 3)
    fault = Fault(at, **place)
    probes = (fault, toggles)
    run = systolic.run(example.model, images, machine=machine, probe=probes, trace=trace, observe=observe)
    assert run.trace is trace and len(trace) == head.stats.cycles and run.stats == clean.stats
    assert toggles.flips["psum"] and not np.array_equal(run.outputs["logits"], clean.outputs["logits"])
    # The same fault in the same product.
    (node,) = [node for node in example.model.nodes if node.name == "logits_quant"]
    layer, (inputs,) = node.layer, seen["logits_quant"]
    config = ArrayConfig(16, 16, activation_dtype=inputs.dtype, weight_dtype=layer.weight.dtype)
    acc, flips = reference_run(inputs, layer.weight, config, fault)
    np.testing.assert_array_equal(
        matmul(inputs, layer.weight, array=machine, probe=Fault(at, **place)).acc, acc
    )
    assert toggles.flips == flips
    with raises(
        ValueError,
        "no layer 'nowhere' runs on the array; those that do are "
        + ", ".join(layer.name for layer in clean.layers if layer.gemm is not None),
    ):
        systolic.run(example.model, images, probe=Fault(1, "psum", 0, 0, 0, layer="nowhere"))


def test_run_names_the_layer_of_an_assertion() -> None:
    example = systolic.load_example()
    with pytest.raises(AssertionError, match=r"^node 'stem_quant' \(QLinearConv\): psum overflow at cycle"):
        systolic.run(example.model, example.images[:1], machine=ArrayConfig(16, 16), probe=Bound(5))


def test_wavefront_mode_refuses_probes() -> None:
    message = "a probe needs mode='cycle': wavefront mode has no registers to look at"
    with raises(ValueError, message):
        matmul(X, W, mode="wavefront", probe=Toggles())
    with raises(ValueError, message):
        conv2d(np.ones((1, 1, 3, 3), np.int8), np.ones((1, 1, 2, 2), np.int8), mode="wavefront", probe=[Toggles()])
    example = systolic.load_example()
    with raises(ValueError, message):
        systolic.run(example.model, example.images[:1], mode="wavefront", probe=Toggles())


# Errors


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (7, TypeError, "probe must be a Probe or several of them, not int 7; derive a class from systolic.Probe and override at_stop(cycle, registers)"),
        ([Bound(1), "x"], TypeError, "probe must be a Probe or several of them, not str 'x'; derive a class from systolic.Probe and override at_stop(cycle, registers)"),
        (Toggles, TypeError, "probe must be a Probe, not its class: pass Toggles()"),
        ([Toggles], TypeError, "probe must be a Probe, not its class: pass Toggles()"),
    ],
)  # fmt: skip
def test_what_is_no_probe(value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        SystolicArray(CONFIG, probe=value)
    assert str(caught.value).startswith(message)


def test_a_probe_is_named_once() -> None:
    trace = Trace()
    with raises(ValueError, "probe must name each probe once"):
        SystolicArray(CONFIG, probe=[trace], trace=trace)


class Returns(Probe):
    def __init__(self, stop: Any, change: Any) -> None:
        self.stop, self.change = stop, change

    def next_stop(self, now: int, stop: int) -> Any:
        return self.stop

    def at_stop(self, cycle: int, registers: Any) -> Any:
        return self.change


@pytest.mark.parametrize(
    ("stop", "change", "error", "message"),
    [
        (0, None, ValueError, "Returns.next_stop(0, 4) must return a cycle after 0, or None, not 0"),
        ("end", None, TypeError, "what Returns.next_stop returns must be an integer, not str 'end'"),
        (1, {"psum": 1}, TypeError, "Returns.at_stop must return a Change or None, not dict {'psum': 1}"),
        (1, Change(registers={"acc": 1}), ValueError, "Returns.at_stop: register must be one of 'weight', 'next_weight', 'weight_pass', 'activation', 'psum', 'shift', 'swap', not 'acc'"),
        (1, Change(registers={"psum": 1}), ValueError, "Returns.at_stop: psum must be (2, 3), not ()"),
        (1, Change(registers={"weight": [[128] * 3] * 2}), ValueError, "Returns.at_stop: weight must fit int8 (-128..127), but holds 128"),
        (1, Change(registers={"psum": [[0.5] * 3] * 2}), TypeError, "Returns.at_stop: psum must hold integers, not float64"),
    ],
)  # fmt: skip
def test_bad_answers(stop: Any, change: Any, error: type[Exception], message: str) -> None:
    array = SystolicArray(CONFIG, probe=Returns(stop, change))
    with raises(error, message):
        array.run(4)


@pytest.mark.parametrize("given", [5, None, [1], {1: 2}])
@pytest.mark.parametrize("field", ["registers", "probe"])
def test_changes_map_names_to_values(field: str, given: Any) -> None:
    with pytest.raises(TypeError, match=f"Change: {field} must map names to values, not "):
        Change(**{field: given})


class Rigid(Probe):
    """Has an attribute that cannot be assigned."""

    name = property(lambda self: "rigid")

    def at_stop(self, cycle: int, registers: Any) -> Change:
        return Change(registers={"psum": registers.psum + 1}, probe={"name": "other"})


def test_what_cannot_be_assigned_changes_nothing() -> None:
    trace = Trace()
    array = SystolicArray(CONFIG, probe=Rigid(), trace=trace)
    with raises(ValueError, "Rigid.at_stop: 'name' is no plain attribute of the probe; change one that is"):
        array.run(4)
    assert array.cycle == len(trace) == 1 and not array.registers.psum.any()


class Rewound(Returns):
    def rewound(self, cycle: int) -> Any:
        return self.change


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (5, TypeError, "Rewound.rewound must return a Change or None, not int 5"),
        (Change(registers={"psum": 1}), ValueError, "Rewound.rewound may change the probe, but no registers"),
    ],
)
def test_bad_answers_to_a_rewind(change: Any, error: type[Exception], message: str) -> None:
    array = SystolicArray(CONFIG, probe=Rewound(None, change)).run(2)
    with raises(error, message):
        array.reset()
    assert array.cycle == 2


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint8, np.uint32, np.int64])
def test_stops_may_be_numpy_integers(dtype: Any) -> None:
    class EachEdge(Probe):
        def next_stop(self, now: int, stop: int) -> Any:
            return dtype(now + 1)

        def at_stop(self, cycle: int, registers: Any) -> None:
            assert type(cycle) is int

    array = SystolicArray(CONFIG, probe=EachEdge()).fold(x=X, w=W).run()
    assert type(array.cycle) is int
    np.testing.assert_array_equal(array.outputs[0], X.astype(np.int32) @ W)


def test_registers_seen_by_a_probe_cannot_be_written() -> None:
    class Writes(Probe):
        def at_stop(self, cycle: int, registers: Any) -> None:
            registers.psum.setflags(write=True)

    with pytest.raises(ValueError, match="WRITEABLE"):
        SystolicArray(CONFIG, probe=Writes()).run(1)


def test_an_empty_product_attaches_its_probes() -> None:
    trace = Trace()
    matmul(X, W, array=CONFIG, trace=trace)
    assert len(matmul(X[:0], W, array=CONFIG, trace=trace).trace) == 0
    with pytest.raises(ValueError, match="lies outside the array"):
        matmul(X[:0], W, array=CONFIG, trace=Trace(pes=[(50, 50)]))


def test_a_model_without_products_has_nothing_to_probe() -> None:
    model = systolic.Model([systolic.layers.Flatten()], inputs={"x": ((2, 3), "int8")})
    with raises(ValueError, "no layer of the model runs on the array: nothing can be traced or probed"):
        systolic.run(model, np.ones((2, 3), np.int8), trace=True)


def test_at_stop_must_be_overridden() -> None:
    with raises(NotImplementedError, "Probe must override at_stop(cycle, registers)"):
        SystolicArray(CONFIG, probe=Probe()).run(1)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_interrupts_leave_array_and_probes_together() -> None:
    def made() -> tuple[SystolicArray, Toggles, Trace]:
        toggles, trace = Toggles(), Trace(registers="psum")
        array = SystolicArray(CONFIG, probe=(Fault(4, "psum", 0, 0, 0), toggles), trace=trace)
        return array.fold(x=X, w=W).run(2), toggles, trace

    history = []
    for stop in range(9):
        toggles = Toggles()
        SystolicArray(CONFIG, probe=(Fault(4, "psum", 0, 0, 0), toggles)).fold(x=X, w=W).run(stop)
        history.append(toggles.flips)
    array, toggles, trace = made()
    cycles = set()

    def run() -> None:
        array.run(1)

    for _ in every_interrupt(run, "systolic", 3):
        assert toggles.flips == history[array.cycle] and len(trace) == array.cycle
        cycles.add(array.cycle)
        array.run(until=6)
        assert toggles.flips == history[6]
        array, toggles, trace = made()
    assert cycles == {2, 3}


def test_probes_copy_and_pickle_with_their_array() -> None:
    toggles = Toggles()
    array = SystolicArray(CONFIG, probe=toggles).fold(x=X, w=W).run(3)
    for other in (copy.deepcopy(array), pickle.loads(pickle.dumps(array))):
        other.run()
        (copied,) = other._probes
        assert copied is not toggles and sum(copied.flips.values()) > sum(toggles.flips.values())
