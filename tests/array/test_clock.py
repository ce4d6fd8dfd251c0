"""``SystolicArray.clock``: many edges with any port values from any state; folds told when to start."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.strategies import array_configs, codes, examples, product, raises, seeds, sums
from systolic import ArrayConfig, Gemm, State, SystolicArray, Trace
from systolic.array import systolic_array as module
from systolic.benchmark.timing import instruction_sets, using
from systolic.reference import ReferenceArray
from systolic.tiling import schedule


def drawn(rng: np.random.Generator, size: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "b":
        return rng.random(size) < rng.choice([0, 0.1, 0.5, 1])
    return sums(rng, size) if dtype == np.int32 else codes(rng, size, dtype.name)


def drawn_state(rng: np.random.Generator, config: ArrayConfig) -> State:
    size = config.rows, config.cols
    return State(**{name: drawn(rng, size, dtype) for name, dtype in config.register_dtypes.items()})


def drawn_ports(rng: np.random.Generator, config: ArrayConfig, cycles: int) -> dict[str, np.ndarray]:
    sizes = {"west": config.rows, "north": config.cols}
    return {
        port.name: drawn(rng, (cycles, sizes[port.side]), config.port_dtypes[port.name])
        for port in config.dataflow_record.ports
    }


def check(array: SystolicArray, reference: ReferenceArray) -> None:
    for name, expected in reference.registers().items():
        np.testing.assert_array_equal(array.registers[name], expected, err_msg=f"{name} at {array.cycle}")


@pytest.mark.parametrize("isa", instruction_sets(True))
def test_clock_equals_single_steps_of_the_reference(isa: str) -> None:
    @examples(40)
    @given(array_configs(), st.integers(1, 40), st.integers(1, 5), seeds)
    def equal(config: ArrayConfig, cycles: int, given: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        state, ports = drawn_state(rng, config), drawn_ports(rng, config, cycles)
        ports = {name: ports[name] for name in rng.permutation(list(ports))[:given]}
        array = SystolicArray(config).restore(state)
        reference = config.dataflow_record.reference(config.rows, config.cols, state.registers)
        bottom = []
        for t in range(cycles):
            reference.step(**{name: values[t].tolist() for name, values in ports.items()})
            bottom.append(getattr(reference, config.dataflow_record.leaves)[-1])
        leaving = array.clock(**ports)
        assert leaving.dtype == np.int32 and leaving.shape == (cycles, config.cols)
        np.testing.assert_array_equal(leaving, bottom)
        check(array, reference)
        assert array.cycle == cycles

    with using(isa):
        equal()


@pytest.mark.slow
@examples(25)
@given(array_configs(), st.integers(2, 60), seeds)
def test_however_it_is_cut(config: ArrayConfig, cycles: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    state, ports = drawn_state(rng, config), drawn_ports(rng, config, cycles)
    cut = int(rng.integers(0, cycles + 1))
    whole, halves, steps = (SystolicArray(config, trace=True).restore(state) for _ in range(3))
    leaving = whole.clock(**ports)
    first = halves.clock(**{name: values[:cut] for name, values in ports.items()})
    rest = halves.clock(threads=2, **{name: values[cut:] for name, values in ports.items()})
    for t in range(cycles):
        steps.step(**{name: values[t] for name, values in ports.items()})
        np.testing.assert_array_equal(steps.registers[config.dataflow_record.leaves][-1], leaving[t])
    np.testing.assert_array_equal(np.concatenate([first, rest]), leaving)
    assert whole.state() == halves.state() == steps.state()
    assert whole.trace.to_text() == halves.trace.to_text() == steps.trace.to_text()


def test_any_layout_and_integer_type_is_taken() -> None:
    config = ArrayConfig(3, 4)
    rng = np.random.default_rng(0)
    ports = drawn_ports(rng, config, 9)
    expected = SystolicArray(config).clock(**ports)
    lists: dict[str, Any] = {name: values.tolist() for name, values in ports.items()}
    np.testing.assert_array_equal(SystolicArray(config).clock(**lists), expected)
    big = {name: values.astype(values.dtype.newbyteorder(">")) for name, values in ports.items()}
    np.testing.assert_array_equal(SystolicArray(config).clock(**big), expected)
    strided = {name: np.repeat(np.asfortranarray(v), 2, axis=1)[:, ::2] for name, v in ports.items()}
    np.testing.assert_array_equal(SystolicArray(config).clock(**strided), expected)
    packed = np.zeros((9, 4), dtype=[("pad", "u1"), ("value", "i4"), ("more", "u1")])
    packed["value"] = ports["psum"]
    assert not packed["value"].flags.aligned
    ports["psum"] = packed["value"]
    np.testing.assert_array_equal(SystolicArray(config).clock(**ports), expected)


def test_psums_of_streams_still_in_flight_are_collected() -> None:
    x, w = np.int8([[1, 2], [3, 4], [-5, 6]]), np.int8([[7, -8, 9], [10, 11, -12]])
    array = SystolicArray(ArrayConfig(2, 3)).fold(x=x, w=w)
    with raises(
        ValueError,
        "clock() drives the ports by hand, but queued values stand on them until cycle 6; "
        "call run() first, or reset()",
    ):
        array.clock(activation=np.zeros((2, 2), np.int8))
    array.run(6)
    assert array.clock(activation=[[1, 0], [0, 0]]).tolist() == [[0, 106, -21], [7, 0, -117]]
    np.testing.assert_array_equal(array.outputs[0], product(x, w))


@pytest.mark.parametrize(
    ("ports", "error", "message"),
    [
        ({}, ValueError, "clock() takes the values of at least one port, a line for each edge; run(cycles) clocks idle ports"),
        ({"activation": 1}, ValueError, "activation must have shape (cycles, 2), a line for each edge, not ()"),
        ({"activation": [1, 2]}, ValueError, "activation must have shape (cycles, 2), a line for each edge, not (2,)"),
        ({"psum": [[1, 2]]}, ValueError, "psum must have shape (cycles, 3), a line for each edge, not (1, 2)"),
        (
            {"activation": [[1, 2]], "weight": [[1, 2, 3]] * 2},
            ValueError,
            "the ports must have one number of cycles, but have activation 1, weight 2",
        ),
        ({"activation": [[128, 0]]}, ValueError, "activation must fit int8 (-128..127), but holds 128"),
        ({"swap": [[0, 2]]}, ValueError, "swap must fit bool (0..1), but holds 2"),
        ({"psum": [[0.5, 1, 2]]}, TypeError, "psum must hold integers, not float64"),
        (
            {"acc": [[1, 2]]},
            TypeError,
            "clock() has no port 'acc'; the ports are activation, shift, swap, weight, psum",
        ),
        ({"shift": [[0, 0]], "threads": 0}, ValueError, "threads must be a positive integer, not 0"),
    ],
)
def test_clock_rejects(ports: dict[str, Any], error: type[Exception], message: str) -> None:
    array = SystolicArray(ArrayConfig(2, 3))
    with raises(error, message):
        array.clock(**ports)
    assert array.cycle == 0


def test_step_names_the_ports() -> None:
    with raises(TypeError, "step() has no port 'acc'; the ports are activation, shift, swap, weight, psum"):
        SystolicArray(ArrayConfig(2, 3)).step(acc=1)


def test_no_edges() -> None:
    array = SystolicArray(ArrayConfig(2, 3))
    assert array.clock(activation=np.zeros((0, 2), np.int8)).shape == (0, 3) and array.cycle == 0


def test_an_interrupt_between_chunks_leaves_whole_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BURST_CYCLES", 3)
    config = ArrayConfig(2, 3)
    ports = drawn_ports(np.random.default_rng(0), config, 10)
    whole = SystolicArray(config, trace=True)
    whole.clock(**ports)
    kernels, calls = config.dataflow_record.kernels, []
    clock = kernels[config.format.kernel]

    def interrupted(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        clock(*arguments)

    array = SystolicArray(config)
    with monkeypatch.context() as patch:
        patch.setitem(kernels, config.format.kernel, interrupted)
        with pytest.raises(KeyboardInterrupt):
            array.clock(**ports)
    assert array.cycle == 6
    for name, values in array.registers.items():
        np.testing.assert_array_equal(values, whole.trace[name][5])
    array.clock(**{name: values[6:] for name, values in ports.items()})
    assert array.state() == whole.state()


# Not before


@pytest.mark.slow
@examples(60)
@given(array_configs(), st.integers(1, 5), seeds)
@pytest.mark.exhaustive
def test_delayed_folds_equal_the_reference_fed_alike(config: ArrayConfig, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, cols, dataflow = config.rows, config.cols, config.dataflow_record
    any_size = 2 * rows + 3
    most = {
        "weight_stationary": (any_size, rows, cols),
        "output_stationary": (rows, any_size, cols),
        "input_stationary": (cols, rows, any_size),
    }[config.dataflow]
    # Any operands, and times drawn so that some delay the array and others do not.
    folds, shift, swap = [], 0, 0
    for _ in range(count):
        m, k, n = (int(rng.integers(1, size + 1)) for size in most)
        x, w = codes(rng, (m, k), config.activation_dtype), codes(rng, (k, n), config.weight_dtype)
        shift, swap = (int(t + rng.choice([0, 0, rng.integers(0, 4 * rows + 5)])) for t in (shift, swap))
        folds.append((x, w, shift, swap))
    array = SystolicArray(config, trace=True)
    timed = []
    done: list[list[tuple[int, np.ndarray]]] = [[] for _ in folds]
    for (x, w, shift, swap), rows_out in zip(folds, done, strict=True):

        def sink(row: int, psums: np.ndarray, rows_out: list[tuple[int, np.ndarray]] = rows_out) -> None:
            rows_out.append((row, psums.copy()))

        before, fed = array.state(), dataflow.operands(x, w)
        at = array.queue_fold(*fed, sink, not_before=(shift, swap))
        array.restore(before).fold(x=x, w=w, not_before=(shift, swap))
        same = array.state().queues
        assert (same.tiles[-1].start, same.swap_at) == at
        array.restore(before).queue_fold(*fed, sink, not_before=(shift, swap))
        assert at[0] >= shift and at[1] >= max(swap, at[0] + (len(w) if dataflow.held else rows))
        timed.append((*at, x, w))
    # A burst may end anywhere.
    while array.state().queues.streams:
        array.run(int(rng.integers(1, 4 * rows + 5)))
    got_by = [np.concatenate([sums for _, sums in sorted(got, key=lambda item: item[0])]) for got in done]
    for (x, w, _, _), got in zip(folds, got_by, strict=True):
        y = product(x, w)
        y = y.T if dataflow.exchanged else y
        np.testing.assert_array_equal(got[:, : y.shape[1]], y)
    feed = []
    for shift, swap, x, w in timed:
        x, w = (w.T, x.T) if dataflow.exchanged else (x, w)
        feed.append((shift, swap, len(x), lambda x=x, w=w: (x, w)))
    last = max(swap + (rows if dataflow.held else m) for _, swap, m, _ in feed) + rows + cols - 2
    assert SystolicArray(config).restore(array.state()).run().cycle == max(last, array.cycle)
    reference, fed = dataflow.reference(rows, cols), dataflow.reference.feed(feed, rows, cols)
    for t in range(last):
        reference.step(**fed.at(t))
        for name, values in reference.registers().items():
            np.testing.assert_array_equal(array.trace[name][t], values, err_msg=f"{name} after {t}")


def test_the_array_obeys_a_schedule_and_its_own_rules() -> None:
    x, w = np.int8([[1, 2]] * 3), np.int8([[3], [4]])
    array = SystolicArray(ArrayConfig(2, 1))
    take = lambda row, psums: None  # noqa: E731
    assert array.queue_fold(w, x, take) == (0, 2)
    assert array.queue_fold(w, x, take, not_before=(1, 3)) == (2, 5)  # too early: as early as it can
    assert array.queue_fold(w, x, take, not_before=(9, 9)) == (9, 11)
    assert array.queue_fold(w, x, take, not_before=(0, 30)) == (11, 30)
    plan = schedule(Gemm(9, 6, 3), ArrayConfig(2, 1, accumulator_rows=8))
    array.reset()
    for fold in plan.folds:
        tile, rows = np.ones((fold.k, fold.n), np.int8), np.ones((fold.m, fold.k), np.int8)
        told = fold.shift_cycle, fold.swap_cycle
        assert array.queue_fold(tile, rows, take, not_before=told) == told
    assert array.run().cycle == plan.cycles


def test_shift_swap_and_stream_wait() -> None:
    x, w = np.int8([[1, 2], [3, 4]]), np.int8([[5], [6]])
    array = SystolicArray(ArrayConfig(2, 1), trace=Trace(registers=("shift", "swap", "activation"), pes=[(0, 0)]))
    array.shift(w, not_before=3).swap(not_before=9).stream(x, not_before=7)
    array.stream(x[:1], not_before=14).run()
    trace = array.trace
    assert np.flatnonzero(trace["shift"][:, 0]).tolist() == [3, 4]
    assert np.flatnonzero(trace["swap"][:, 0]).tolist() == [9]
    assert np.flatnonzero(trace["activation"][:, 0]).tolist() == [9, 10, 14]
    assert [y.tolist() for y in array.outputs] == [[[17], [39]], [[17]]]
    # A stream that waits takes its swap with it.
    array.reset().shift(w).swap(not_before=1).stream(x, not_before=8).run()
    assert np.flatnonzero(array.trace["swap"][:, 0]).tolist() == [8]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda a, w, x: a.shift(w, not_before=-1), ValueError, "not_before must be a non-negative integer, not -1"),
        (lambda a, w, x: a.stream(x, not_before=1.5), TypeError, "not_before must be an integer, not float 1.5"),
        (lambda a, w, x: a.shift(w).swap(not_before=None), TypeError, "not_before must be an integer, not NoneType None"),
        (lambda a, w, x: a.fold(x=x, w=w, not_before=3), TypeError, "not_before must be the cycles (shift, swap), not int 3"),
        (
            lambda a, w, x: a.fold(x=x, w=w, not_before=(0, -2)),
            ValueError,
            "not_before: swap must be a non-negative integer, not -2",
        ),
    ],
)
def test_times_are_checked(call: Any, error: type[Exception], message: str) -> None:
    array = SystolicArray(ArrayConfig(2, 1))
    with raises(error, message):
        call(array, np.int8([[5], [6]]), np.int8([[1, 2]]))
    assert not array.state().queues.streams
