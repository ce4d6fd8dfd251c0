"""``SystolicArray``: the worked example, queue rules and times, ports by hand, states, errors."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.number_formats import OPERAND_NAMES, ROUND
from support.strategies import array_configs, codes, dtypes, examples, product, raises, seeds
from systolic import ArrayConfig, MachineConfig, State, SystolicArray
from systolic.array import systolic_array as module
from systolic.array.workspace import Workspace
from systolic.dataflows import DATAFLOWS
from systolic.reference import ReferenceArray

REGISTERS = tuple(ArrayConfig().register_dtypes)

X = np.array([[1, 2], [3, 4], [-5, 6]], dtype=np.int8)
W = np.array([[7, -8, 9], [10, 11, -12]], dtype=np.int8)
Y = [[27, 14, -15], [61, 20, -21], [25, 106, -117]]

# After each edge: next_weight | weight_pass | weight | activation | psum | shift | swap, rows apart by /.
WORKED = """
10 0 0 / 0 0 0       | 0 0 0 / 0 0 0     | 0 0 0 / 0 0 0       | 0 0 0 / 0 0 0  | 0 0 0 / 0 0 0         | 1 0 0 / 0 0 0 | 0 0 0 / 0 0 0
7 11 0 / 0 0 0       | 10 0 0 / 0 0 0    | 0 0 0 / 0 0 0       | 0 0 0 / 0 0 0  | 0 0 0 / 0 0 0         | 1 1 0 / 1 0 0 | 0 0 0 / 0 0 0
7 -8 -12 / 10 0 0    | 10 11 0 / 0 0 0   | 7 0 0 / 0 0 0       | 1 0 0 / 0 0 0  | 7 0 0 / 0 0 0         | 0 1 1 / 1 1 0 | 1 0 0 / 0 0 0
7 -8 9 / 10 11 0     | 10 11 -12 / 0 0 0 | 7 -8 0 / 10 0 0     | 3 1 0 / 2 0 0  | 21 -8 0 / 27 0 0      | 0 0 1 / 0 1 1 | 0 1 0 / 1 0 0
7 -8 9 / 10 11 -12   | 10 11 -12 / 0 0 0 | 7 -8 9 / 10 11 0    | -5 3 1 / 4 2 0 | -35 -24 9 / 61 14 0   | 0 0 0 / 0 0 1 | 0 0 1 / 0 1 0
7 -8 9 / 10 11 -12   | 10 11 -12 / 0 0 0 | 7 -8 9 / 10 11 -12  | 0 -5 3 / 6 4 2 | 0 40 27 / 25 20 -15   | 0 0 0 / 0 0 0 | 0 0 0 / 0 0 1
7 -8 9 / 10 11 -12   | 10 11 -12 / 0 0 0 | 7 -8 9 / 10 11 -12  | 0 0 -5 / 0 6 4 | 0 0 -45 / 0 106 -21   | 0 0 0 / 0 0 0 | 0 0 0 / 0 0 0
7 -8 9 / 10 11 -12   | 10 11 -12 / 0 0 0 | 7 -8 9 / 10 11 -12  | 0 0 0 / 0 0 6  | 0 0 0 / 0 0 -117      | 0 0 0 / 0 0 0 | 0 0 0 / 0 0 0
"""
ORDER = ("next_weight", "weight_pass", "weight", "activation", "psum", "shift", "swap")


def worked() -> list[dict[str, list[list[int]]]]:
    """The table: a dict of registers for each of the eight edges."""
    edges = []
    for line in WORKED.strip().splitlines():
        grids = [[[int(v) for v in row.split()] for row in cell.split("/")] for cell in line.split("|")]
        edges.append(dict(zip(ORDER, grids, strict=True)))
    assert len(edges) == 8
    return edges


def small() -> SystolicArray:
    return SystolicArray(ArrayConfig(2, 3))


def check_registers(array: SystolicArray, expected) -> None:
    assert set(expected) == set(array.registers)
    for name in expected:
        np.testing.assert_array_equal(
            array.registers[name], expected[name], err_msg=f"{name} at {array.cycle}"
        )


# The worked example


def test_worked_example_edge_by_edge() -> None:
    array = small().fold(x=X, w=W)
    check_registers(array, {name: np.zeros((2, 3)) for name in REGISTERS})
    for edge, expected in enumerate(worked()):
        assert array.cycle == edge
        array.run(1)
        check_registers(array, expected)
    assert len(array.outputs) == 1
    np.testing.assert_array_equal(array.outputs[0], Y)


def test_worked_example_on_the_reference() -> None:
    pes = ReferenceArray(2, 3)
    np.testing.assert_array_equal(pes.fold(X.tolist(), W.tolist())[0], Y)
    assert pes.cycle == 8
    # The state after the last edge of the table.
    for name, grid in worked()[-1].items():
        np.testing.assert_array_equal(getattr(pes, name), grid, err_msg=name)


def test_worked_example_runs_until_drained() -> None:
    array = small().fold(x=X, w=W).run()
    assert array.cycle == 8
    np.testing.assert_array_equal(array.outputs[0], Y)
    assert array.outputs[0].dtype == np.int32
    assert array.run().cycle == 8


def test_worked_example_with_ports_by_hand() -> None:
    array = small()
    for edge, expected in enumerate(worked()):
        west = range(2)
        array.step(
            activation=[X[edge - 2 - r, r] if 0 <= edge - 2 - r < 3 else 0 for r in west],
            shift=[0 <= edge - r < 2 for r in west],
            swap=[edge - r == 2 for r in west],
            weight=[W[1 - (edge - c), c] if 0 <= edge - c < 2 else 0 for c in range(3)],
        )
        check_registers(array, expected)
    assert array.outputs == []


# An independent model of the queues


class Script:
    """The queue rules and the clock convention, written down again: what is due when, in lists.

    A shift is due at max(now, last queued swap, end of the last shift); a swap goes with the next
    streamed row, at max(now, end of its shift, end of the last stream).
    """

    def __init__(self, config: ArrayConfig) -> None:
        self.config, self.now = config, 0
        self.shifts: list[tuple[int, np.ndarray]] = []
        self.streams: list[tuple[int, np.ndarray, bool]] = []
        self.swap_at = self.shift_stop = self.stream_stop = 0
        self.loaded = self.waiting = False
        self.next_tile = self.tile = np.zeros((config.rows, config.cols), dtype=np.int64)
        self.outputs: list[np.ndarray] = []

    def shift(self, w: np.ndarray) -> None:
        start = max(self.now, self.swap_at, self.shift_stop)
        if not self.config.double_buffered:
            start = max(start, self.drained())
        self.shifts.append((start, w))
        self.shift_stop = start + self.config.rows
        self.loaded = True
        self.next_tile = np.zeros_like(self.next_tile)
        self.next_tile[: w.shape[0], : w.shape[1]] = w

    def swap(self) -> None:
        self.waiting, self.loaded, self.tile = True, False, self.next_tile

    def stream(self, x: np.ndarray) -> None:
        start = max(self.now, self.stream_stop)
        if self.waiting:
            start = self.swap_at = max(start, self.shift_stop)
        self.streams.append((start, x, self.waiting))
        self.stream_stop, self.waiting = start + len(x), False
        self.outputs.append(product(x, self.tile[: x.shape[1]]))

    def drained(self) -> int:
        stops = [start + self.config.rows for start, _ in self.shifts]
        stops += [start + len(x) for start, x, _ in self.streams]
        return max([self.now, *(stop + self.config.rows + self.config.cols - 2 for stop in stops)])

    def ports(self, t: int) -> dict[str, list[int]]:
        """Port values of cycle t, skewed."""
        rows, cols = self.config.rows, self.config.cols
        values = {"activation": [0] * rows, "shift": [0] * rows, "swap": [0] * rows, "weight": [0] * cols}
        for start, w in self.shifts:
            for r in range(rows):
                values["shift"][r] |= start <= t - r < start + rows
            for c in range(w.shape[1]):
                row = rows - 1 - (t - c - start)
                if 0 <= row < w.shape[0]:
                    values["weight"][c] = int(w[row, c])
        for start, x, swap in self.streams:
            for r in range(rows):
                if 0 <= t - r - start < len(x) and r < x.shape[1]:
                    values["activation"][r] = int(x[t - r - start, r])
                values["swap"][r] |= swap and t - r == start
        return values


Operation = tuple


@st.composite
def operations(draw: st.DrawFn, config: ArrayConfig) -> list[Operation]:
    """Queueing calls in any legal order, with runs in between; the last is a stream of the last tile."""
    rng = np.random.default_rng(draw(seeds))
    result: list[Operation] = []
    loaded = waiting = False

    def w() -> np.ndarray:
        size = rng.integers(1, config.rows + 1), rng.integers(1, config.cols + 1)
        return codes(rng, size, config.weight_dtype)

    def x() -> np.ndarray:
        size = rng.integers(1, 2 * config.rows + 3), rng.integers(1, config.rows + 1)
        return codes(rng, size, config.activation_dtype)

    for kind in draw(
        st.lists(st.sampled_from(["fold", "shift", "swap", "stream", "run"]), min_size=1, max_size=8)
    ):
        if kind == "fold" and not waiting:
            tile = w()
            result.append(
                ("fold", tile, codes(rng, (int(rng.integers(1, 9)), len(tile)), config.activation_dtype))
            )
            loaded = False
        elif kind == "shift" and not waiting:
            result.append(("shift", w()))
            loaded = True
        elif kind == "swap" and loaded:
            result.append(("swap",))
            loaded, waiting = False, True
        elif kind == "stream":
            result.append(("stream", x()))
            waiting = False
        elif kind == "run":
            # Up to about two folds' time: also idle.
            result.append(("run", int(rng.integers(0, 2 * (2 * config.rows + config.cols) + 9))))
    if loaded:
        result.append(("swap",))
    return [*result, ("stream", x())]


@st.composite
def scripts(draw: st.DrawFn) -> tuple[ArrayConfig, list[Operation]]:
    config = draw(array_configs(dataflows=["weight_stationary"]))
    return config, draw(operations(config))


def play(array: SystolicArray, operations: list[Operation]) -> None:
    for kind, *arguments in operations:
        if kind == "fold":
            w, x = arguments
            array.fold(x=x, w=w)
        else:
            getattr(array, kind)(*arguments)


def model(config: ArrayConfig, operations: list[Operation]) -> Script:
    script = Script(config)
    for kind, *arguments in operations:
        if kind == "run":
            script.now += arguments[0]
        elif kind == "fold":
            script.shift(arguments[0])
            script.swap()
            script.stream(arguments[1])
        else:
            getattr(script, kind)(*arguments)
    return script


@pytest.mark.slow
@examples(60)
@given(scripts())
def test_queues_by_hand_and_reference_agree(case) -> None:
    config, operations = case
    script = model(config, operations)
    queued = SystolicArray(config)
    play(queued, operations)
    last = max(start + len(x) for start, x, _ in script.streams) + config.rows + config.cols - 2
    stop = max(last, script.now)
    queued.run(stop - queued.cycle)
    by_hand, pes = SystolicArray(config), ReferenceArray(config.rows, config.cols)
    bottom = []
    for t in range(stop):
        ports = script.ports(t)
        by_hand.step(**ports)
        bottom.append(by_hand.registers.psum[-1])
        if config.rows * config.cols * stop < 20_000:  # the reference is slow
            pes.step(**ports)
    check_registers(queued, by_hand.registers)
    if pes.cycle:
        check_registers(queued, pes.registers())
    assert queued.cycle == by_hand.cycle == stop
    assert len(queued.outputs) == len(script.outputs)
    for y, expected, (start, x, _) in zip(queued.outputs, script.outputs, script.streams, strict=True):
        np.testing.assert_array_equal(y, expected)
        # Output (m, n) of rows streamed from s on stands at the bottom after edge s + m + rows - 1 + n.
        for m in range(len(x)):
            for n in range(config.cols):
                assert bottom[start + m + config.rows - 1 + n][n] == y[m, n]


@examples(40)
@given(scripts())
def test_run_drains_exactly(case) -> None:
    config, operations = case
    operations = [op for op in operations if op[0] != "run"]
    array = SystolicArray(config)
    play(array, operations)
    script = model(config, operations)
    assert array.run().cycle == script.drained()
    assert len(array.outputs) == len(script.streams)


def test_run_drains_the_same_after_a_partial_run() -> None:
    config = ArrayConfig(3, 3)
    w = np.ones((3, 3), dtype=np.int8)
    assert SystolicArray(config).shift(w).run().cycle == 7
    for cycles in range(8):
        assert SystolicArray(config).shift(w).run(cycles).run().cycle == 7


# Times


def test_next_shift_begins_on_the_edge_of_the_swap() -> None:
    array = SystolicArray(ArrayConfig(3, 2))
    array.fold(x=np.ones((1, 3), np.int8), w=np.ones((3, 2), np.int8))
    array.fold(x=np.ones((5, 3), np.int8), w=np.full((3, 2), 2, np.int8))
    array.fold(x=np.ones((1, 3), np.int8), w=np.full((3, 2), 3, np.int8))
    shifts, swaps = [], []
    while array.cycle < 30:
        array.run(1)
        # What stands in PE (0, 0) after an edge arrived on it.
        if array.registers.shift[0, 0]:
            shifts.append(array.cycle - 1)
        if array.registers.swap[0, 0]:
            swaps.append(array.cycle - 1)
    # swap_1 = max(3 + 3, 3 + 1) = 6: the shift takes longer; swap_2 = max(6 + 3, 6 + 5) = 11: the stream.
    assert swaps == [3, 6, 11]
    assert shifts == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert [y.tolist() for y in array.outputs] == [[[3, 3]], [[6, 6]] * 5, [[9, 9]]]


def test_single_buffered_folds_run_one_after_the_other() -> None:
    array = SystolicArray(ArrayConfig(3, 2, double_buffered=False))
    for m in (1, 5):
        array.fold(x=np.ones((m, 3), np.int8), w=np.ones((3, 2), np.int8))
    shifts = []
    while len(array.outputs) < 2:
        array.run(1)
        if array.registers.shift[0, 0]:
            shifts.append(array.cycle - 1)
    one = 2 * 3 + 2 + 1 - 2
    assert shifts == [0, 1, 2, one, one + 1, one + 2]
    assert array.cycle == one + 2 * 3 + 2 + 5 - 2


def test_queueing_while_running_and_after_a_gap() -> None:
    array = small().fold(x=X, w=W).run(5)
    array.stream(X[:1])
    # Local times 0..4 hold the fold: the row goes on the next one, cycle 5.
    assert array.run().cycle == 5 + 1 + 2 + 3 - 2
    array.run(10).fold(x=X, w=-W)
    start = array.cycle
    assert array.run().cycle == start + 8
    assert [y.tolist() for y in array.outputs] == [Y, Y[:1], (-np.array(Y)).tolist()]


def test_a_stream_without_swap_uses_the_weights_in_place() -> None:
    array = small().fold(x=X[:1], w=W).shift(-W).stream(X[1:]).swap().stream(X[:1]).run()
    assert [y.tolist() for y in array.outputs] == [Y[:1], Y[1:], [[-27, -14, 15]]]


def test_swap_takes_the_tile_shifted_in_last() -> None:
    array = small().shift(W).shift(-W).swap().stream(X).run()
    np.testing.assert_array_equal(array.outputs[0], -np.array(Y))
    assert array.cycle == 2 + 2 + 3 + 2 + 3 - 2


def test_short_operands_are_padded_with_zeros() -> None:
    array = SystolicArray(ArrayConfig(4, 5)).fold(x=X, w=W).run()
    assert array.outputs[0].shape == (3, 5)
    np.testing.assert_array_equal(array.outputs[0][:, :3], Y)
    assert not array.outputs[0][:, 3:].any()
    # It pays for the whole array in both axes.
    assert array.cycle == 2 * 4 + 5 + 3 - 2
    expected = np.zeros((4, 5))
    expected[:2, :3] = W
    np.testing.assert_array_equal(array.registers.weight, expected)


# States


@pytest.mark.slow
@examples(40)
@given(scripts(), st.data())
def test_any_point_can_be_saved_and_continued(case, data: st.DataObject) -> None:
    config, operations = case
    whole = SystolicArray(config)
    play(whole, operations)
    drain = SystolicArray(config)
    play(drain, operations)
    operations = [*operations, ("run", drain.run().cycle - whole.cycle)]
    whole.run(operations[-1][1])
    # The other way clocks one edge at a time, so that the cut may fall anywhere.
    edges = [one for op in operations for one in ([("run", 1)] * op[1] if op[0] == "run" else [op])]
    cut = data.draw(st.integers(0, len(edges)))
    array = SystolicArray(config)
    play(array, edges[:cut])
    state = pickle.loads(pickle.dumps(array.state()))
    copies = [
        SystolicArray(config).restore(state),
        SystolicArray(config).restore(array.state()),
        pickle.loads(pickle.dumps(array)),
        copy.deepcopy(array),
        copy.copy(array),
    ]
    for other in copies:
        assert other.cycle == array.cycle
        play(other, edges[cut:])
        assert other.cycle == whole.cycle
        check_registers(other, whole.registers)
        assert [y.tolist() for y in other.outputs] == [y.tolist() for y in whole.outputs]
    # The one they were taken from stands where it stood.
    check_registers(array, state.registers)
    assert array.cycle == state.cycle


def test_each_edge_of_the_example_can_be_saved_and_continued() -> None:
    for edge in range(9):
        array = small().fold(x=X, w=W).run(edge)
        for other in (
            small().restore(pickle.loads(pickle.dumps(array.state()))),
            pickle.loads(pickle.dumps(array)),
            copy.deepcopy(array),
        ):
            other.run()
            assert other.cycle == 8
            np.testing.assert_array_equal(other.outputs[0], Y)
            check_registers(other, worked()[-1])


def test_restore_takes_registers_alone() -> None:
    rng = np.random.default_rng(0)
    values = {n: codes(rng, (2, 3), "int8") for n in ("weight", "next_weight", "weight_pass", "activation")}
    values |= {"psum": rng.integers(-(2**31), 2**31, (2, 3)).astype(np.int32)}
    values |= {n: rng.random((2, 3)) < 0.5 for n in ("shift", "swap")}
    array = small().restore(State(**values, cycle=7))
    pes = ReferenceArray(2, 3, {name: value.tolist() for name, value in values.items()})
    for _ in range(6):
        check_registers(array, pes.registers())
        array.run(1)
        pes.step()
    assert array.cycle == 13
    start = array.cycle
    array.fold(x=X, w=W).run()
    assert array.cycle == start + 8
    np.testing.assert_array_equal(array.outputs[0], Y)


def test_restore_copies() -> None:
    values = {n: getattr(small().state(), n).copy() for n in REGISTERS}
    array = small().restore(State(**values))
    values["psum"][:] = 5
    assert not array.registers.psum.any()


def test_restored_state_does_not_follow_the_array() -> None:
    array = small().fold(x=X, w=W).run(4)
    state = array.state()
    before = copy.deepcopy(state)
    array.run()
    array.reset()
    assert state == before
    array.restore(state).run()
    np.testing.assert_array_equal(array.outputs[0], Y)


def test_writing_into_a_state_does_not_change_the_array() -> None:
    array = small()
    registers, state = array.registers, array.state()
    try:
        state.psum[0, 0] = 1
    except ValueError:
        return  # read-only is as good
    assert not array.registers.psum.any() and not registers.psum.any()


def test_states_with_other_queues_differ() -> None:
    assert small().state() != small().fold(x=X, w=W).state()


def test_states_compare() -> None:
    assert small().state() == small().state()
    assert small().run(1).state() != small().state()
    assert small().step(psum=1).state() != small().run(1).state()
    assert small().state() != "state"
    assert repr(small().run(3).state()) == "State(rows=2, cols=3, cycle=3)"


def test_restore_rejects_what_does_not_fit() -> None:
    array = small().fold(x=X, w=W).run(3)
    before = copy.deepcopy(array.state())
    with raises(TypeError, "restore takes a State, as state() returns it, not dict"):
        array.restore({})  # type: ignore[arg-type]
    with raises(ValueError, "register weight must be (2, 3), the array's size, not (3, 2)"):
        array.restore(SystolicArray(ArrayConfig(3, 2)).state())
    with raises(TypeError, "register weight must be int8, not uint8"):
        array.restore(SystolicArray(ArrayConfig(2, 3, weight_dtype="uint8")).state())
    values = {n: getattr(before, n) for n in REGISTERS}
    with raises(ValueError, "cycle must be a non-negative integer, not -1"):
        array.restore(State(**values, cycle=-1))
    with raises(TypeError, "register psum must be int32, not int64"):
        array.restore(State(**(values | {"psum": before.psum.astype(np.int64)})))
    check_registers(array, before.registers)
    np.testing.assert_array_equal(array.run().outputs[0], Y)


OTHER_QUEUES = (
    "the queues of this state belong to an array of another size, dataflow or types; restore it into an array "
    "of the configuration that it comes from, or drop the queues with replace(queues=None)"
)


def test_restore_rejects_queues_of_another_array_or_cycle() -> None:
    array, queued = small(), small().fold(x=X, w=W)
    for other in (ArrayConfig(4, 4), ArrayConfig(2, 3, activation_dtype="uint8")):
        x = X.view(other.activation_dtype)
        queues = SystolicArray(other).fold(x=x, w=W).state().queues
        with raises(ValueError, OTHER_QUEUES):
            array.restore(array.state().replace(queues=queues))
    for state, cycle in ((queued.state(), 9), (queued.run(6).state(), 7)):
        with raises(
            ValueError,
            f"the queues of this state belong to another cycle than {cycle}, or to another number of rows: a "
            "stream is in flight; leave them as they were, or drop the queues with replace(queues=None)",
        ):
            array.restore(state.replace(cycle=cycle))
    assert array.state() == small().state()


def in_flight(dataflow: str, rows: int) -> list[Any]:
    """The queues of an array at every cycle at which something is queued or in flight."""
    array = SystolicArray(ArrayConfig(rows, 3, dataflow=dataflow))
    x = np.ones((2, 2), np.int8)
    if dataflow == "output_stationary":
        array.fold(x=x, w=W).fold(x=x, w=W)
    else:
        array.shift(x).shift(x).swap().stream(np.ones((9, 2), np.int8)).fold(x=x, w=x)
    states = [array.state()]
    while array.state().queues.drained_at(array.config, array.cycle) > array.cycle:
        states.append(array.run(1).state())
    return states[:-1]


@pytest.mark.parametrize("mine", DATAFLOWS)
@pytest.mark.parametrize("theirs", DATAFLOWS)
@pytest.mark.parametrize("rows", [2, 3, 4])
def test_restore_rejects_queues_of_another_dataflow_or_of_other_rows(
    mine: str, theirs: str, rows: int
) -> None:
    array = SystolicArray(ArrayConfig(3, 3, dataflow=mine))
    idle = array.state()
    # Input stationary is the weight-stationary hardware.
    alike = DATAFLOWS[mine].held == DATAFLOWS[theirs].held
    for state in in_flight(theirs, rows):
        other = idle.replace(queues=state.queues, cycle=state.cycle)
        if alike and rows == 3:
            array.restore(other).reset()
            continue
        if alike and not state.queues.tiles and not any(stream.done for stream in state.queues.streams):
            continue  # a stream whose tile has passed and whose sums are all to come: of any number of rows
        with pytest.raises(ValueError, match=r"^the queues of this state belong to "):
            array.restore(other)
        assert array.state() == idle


def test_restore_rejects_a_swap_that_waits_where_sums_stay() -> None:
    queues = small().shift(W).swap().state().queues
    assert queues is not None
    array = SystolicArray(ArrayConfig(2, 3, dataflow="output_stationary"))
    for waiting in (queues, dataclasses.replace(queues, tiles=())):
        with raises(ValueError, OTHER_QUEUES):
            array.restore(array.state().replace(queues=waiting))


def test_states_take_registers_alone() -> None:
    with raises(TypeError, "a State takes the registers of an array by name; array.state() returns one"):
        State()
    with pytest.raises(TypeError, match="a state has no 'foo'; it has weight, next_weight"):
        small().state().replace(foo=1)
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to 'psum'"):
        del small().state().psum


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_copies_are_read_only_and_equal(copied: Any) -> None:
    array = small().fold(x=X, w=W).run(3)
    assert copied(array.registers) == array.registers != small().registers
    assert copied(array.state()) == array.state()
    for values in (copied(array.registers), copied(array.state()), copied(array).state()):
        with pytest.raises(ValueError, match="read-only"):
            values.psum[0, 0] = 99


def test_restore_rejects_queues_of_another_kind() -> None:
    values = {n: getattr(small().state(), n) for n in REGISTERS}
    with pytest.raises(TypeError, match="queues"):
        small().restore(State(**values, queues=5))  # type: ignore[arg-type]


# Registers


def test_registers_are_a_mapping_with_attributes() -> None:
    registers = small().fold(x=X, w=W).run(4).registers
    assert tuple(registers) == REGISTERS and len(registers) == 7
    assert set(ORDER) == set(registers)
    for name, value in registers.items():
        assert getattr(registers, name) is registers[name] is value
        assert value.shape == (2, 3)
    types = {name: value.dtype.name for name, value in registers.items()}
    assert types == {
        "weight": "int8",
        "next_weight": "int8",
        "weight_pass": "int8",
        "activation": "int8",
        "psum": "int32",
        "shift": "bool",
        "swap": "bool",
    }
    with pytest.raises(KeyError, match="no register 'acc'; the registers are weight, next_weight"):
        registers["acc"]
    assert "psum            21     -8      0" in repr(registers)


def test_registers_have_the_operands_types() -> None:
    registers = SystolicArray(ArrayConfig(1, 1, activation_dtype="uint8", weight_dtype="int8")).registers
    assert registers.activation.dtype == np.uint8 and registers.weight.dtype == np.int8
    registers = SystolicArray(ArrayConfig(1, 1, activation_dtype="int8", weight_dtype="uint8")).registers
    assert registers.activation.dtype == np.int8
    assert {registers[n].dtype.name for n in ("weight", "next_weight", "weight_pass")} == {"uint8"}


def test_registers_are_read_only_and_stay_as_read() -> None:
    array = small().fold(x=X, w=W).run(4)
    registers = array.registers
    copies = {name: value.copy() for name, value in registers.items()}
    for value in registers.values():
        with pytest.raises(ValueError, match="read-only"):
            value[0, 0] = 1
    array.run()
    array.step(activation=1, shift=1, swap=1, weight=1, psum=1)
    array.reset()
    for name, value in copies.items():
        np.testing.assert_array_equal(registers[name], value)


def test_reset() -> None:
    array = small().fold(x=X, w=W).run(5)
    array.shift(W).swap()
    assert array.reset() is array
    assert array.cycle == 0 and array.outputs == []
    check_registers(array, {name: np.zeros((2, 3)) for name in REGISTERS})
    assert array.run().cycle == 0, "queues are empty"
    array.fold(x=X, w=W).run()
    assert array.cycle == 8
    np.testing.assert_array_equal(array.outputs[0], Y)


# Ports by hand


def test_step_scalars_stand_on_every_port() -> None:
    array = small().step(activation=3, shift=True, swap=1, weight=-2, psum=-(2**31))
    expected = ReferenceArray(2, 3)
    expected.step(activation=[3] * 2, shift=[1] * 2, swap=[1] * 2, weight=[-2] * 3, psum=[-(2**31)] * 3)
    check_registers(array, expected.registers())


def test_step_rules_hold_for_shift_and_swap_on_one_edge() -> None:
    array = SystolicArray(ArrayConfig(1, 1))
    array.step(shift=1, weight=5)
    array.step(shift=1, swap=1, weight=7, activation=2)
    # Both the swap and the chain take the old next_weight.
    assert {n: v.item() for n, v in array.registers.items()} == {
        "weight": 5,
        "next_weight": 7,
        "weight_pass": 5,
        "activation": 2,
        "psum": 10,
        "shift": True,
        "swap": True,
    }


@examples(30)
@given(array_configs(), seeds)
def test_step_with_any_ports_equals_the_reference(config: ArrayConfig, seed: int) -> None:
    rng = np.random.default_rng(seed)
    dataflow = config.dataflow_record
    array, pes = SystolicArray(config), dataflow.reference(config.rows, config.cols)
    for _ in range(12):
        ports = {}
        for port in dataflow.ports:
            size, dtype = config.rows if port.side == "west" else config.cols, config.port_dtypes[port.name]
            low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
            ports[port.name] = rng.integers(low, high, size, endpoint=True).tolist()
        array.step(**ports)
        pes.step(**ports)
    check_registers(array, pes.registers())


def test_step_may_follow_once_queued_values_have_passed_the_ports() -> None:
    # The fold's last value passes row 1's port on cycle 5; its psums still travel. The value 1
    # follows the wave in row 0 and does not touch what belongs to the stream.
    array = small().fold(x=X, w=W)
    for edge in range(6):
        with raises(
            ValueError,
            "step() drives the ports by hand, but queued values stand on them until cycle 6; "
            "call run() first, or reset()",
        ):
            array.step()
        assert array.cycle == edge
        array.run(1)
    array.step(activation=[1, 0]).step()
    assert array.cycle == 8
    np.testing.assert_array_equal(array.outputs[0], Y)
    assert array.registers.activation[0].tolist() == [0, 1, 0]


def test_psums_may_be_driven_once_no_stream_needs_their_ports() -> None:
    # Column 2's psum port carries the stream's last 0 on cycle 2 + 2.
    array = SystolicArray(ArrayConfig(1, 3)).fold(x=np.int8([[1]]), w=np.int8([[1, 1, 1]])).run(3)
    with raises(
        ValueError,
        "step() drives the ports by hand, but queued values stand on them until cycle 4; "
        "call run() first, or reset()",
    ):
        array.step(psum=100)
    array.step().step(psum=100).run()
    np.testing.assert_array_equal(array.outputs[0], [[1, 1, 1]])


@pytest.mark.parametrize(
    ("ports", "error", "message"),
    [
        ({"activation": [1, 2, 3]}, ValueError, "activation must be a scalar or have shape (2,), not (3,)"),
        ({"shift": [1]}, ValueError, "shift must be a scalar or have shape (2,), not (1,)"),
        ({"weight": [1, 2]}, ValueError, "weight must be a scalar or have shape (3,), not (2,)"),
        ({"psum": [[1, 2, 3]]}, ValueError, "psum must be a scalar or have shape (3,), not (1, 3)"),
        ({"activation": 128}, ValueError, "activation must fit int8 (-128..127), but holds 128"),
        ({"weight": [0, -129, 0]}, ValueError, "weight must fit int8 (-128..127), but holds -129"),
        ({"psum": 2**31}, ValueError, "psum must fit int32 (-2147483648..2147483647), but holds 2147483648"),
        ({"shift": 2}, ValueError, "shift must fit bool (0..1), but holds 2"),
        ({"swap": [0, -1]}, ValueError, "swap must fit bool (0..1), but holds -1"),
        ({"activation": 1.0}, TypeError, "activation must hold integers, not float64"),
        ({"psum": [0.5, 1, 2]}, TypeError, "psum must hold integers, not float64"),
    ],
)
def test_step_rejects_port_values(ports, error: type[Exception], message: str) -> None:
    array = small()
    with raises(error, message):
        array.step(**ports)
    assert array.cycle == 0


# Operands


@pytest.mark.parametrize(
    "make", [np.asfortranarray, lambda a: np.repeat(a, 3, axis=1)[:, ::3], lambda a: a[::-1][::-1]]
)
def test_any_layout_is_taken(make) -> None:
    x, w = make(X), make(W)
    x.flags.writeable = w.flags.writeable = False
    np.testing.assert_array_equal(small().fold(x=x, w=w).run().outputs[0], Y)


def test_operands_are_copied_when_queued() -> None:
    x, w = X.copy(), W.copy()
    array = small().fold(x=x, w=w)
    x[:], w[:] = 0, 0
    np.testing.assert_array_equal(array.run().outputs[0], Y)


@examples(40)
@given(dtypes, dtypes, seeds)
def test_every_sign_mix_is_exact(a: str, b: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    array = SystolicArray(ArrayConfig(5, 18, activation_dtype=a, weight_dtype=b))
    x, w = codes(rng, (7, 5), a), codes(rng, (5, 18), b)
    np.testing.assert_array_equal(array.fold(x=x, w=w).run().outputs[0], product(x, w))


@pytest.mark.parametrize(
    ("w", "x", "error", "message"),
    [
        (
            W.astype(np.int16),
            X,
            TypeError,
            "w must hold int8, as the array's config says, not int16; make the array with "
            "ArrayConfig(weight_dtype='int16')",
        ),
        (
            W,
            X.astype(float),
            TypeError,
            f"x must hold {OPERAND_NAMES}, not float64; {ROUND}",
        ),
        (
            W.astype(np.uint8),
            X,
            TypeError,
            "w must hold int8, as the array's config says, not uint8; make the array with "
            "ArrayConfig(weight_dtype='uint8')",
        ),
        (
            W,
            X.view(np.uint8),
            TypeError,
            "x must hold int8, as the array's config says, not uint8; make the array with "
            "ArrayConfig(activation_dtype='uint8')",
        ),
        (W[0], X, ValueError, "w must have 2 axes (k, n), not 1 (3,)"),
        (W, X[np.newaxis], ValueError, "x must have 2 axes (m, k), not 3 (1, 3, 2)"),
        (
            np.zeros((3, 3), np.int8),
            X,
            ValueError,
            "w is (3, 3), larger than the array's 2 x 3; systolic.matmul cuts a larger product into folds",
        ),
        (
            np.zeros((2, 4), np.int8),
            X,
            ValueError,
            "w is (2, 4), larger than the array's 2 x 3; systolic.matmul cuts a larger product into folds",
        ),
        (
            W,
            np.zeros((1, 3), np.int8),
            ValueError,
            "x is (1, 3): k is larger than the array's 2 rows; systolic.matmul cuts "
            "a larger product into folds",
        ),
        (W, X[:, :1], ValueError, "x and w must share k, but x is (3, 1) and w is (2, 3)"),
        (W[:, :0], X, ValueError, "w must hold at least one value, but is (2, 0)"),
        (W[:0], X[:, :0], ValueError, "w must hold at least one value, but is (0, 3)"),
        (W, X[:0], ValueError, "x must have at least one row, but is (0, 2)"),
    ],
)
def test_fold_rejects_operands_and_queues_nothing(w, x, error: type[Exception], message: str) -> None:
    array = small()
    with raises(error, message):
        array.fold(x=x, w=w)
    assert array.run().cycle == 0


def test_order_of_queueing_is_checked() -> None:
    array = small()
    with raises(ValueError, "no weights were shifted in since the last swap: call shift(w) first"):
        array.swap()
    array.shift(W).swap()
    with raises(ValueError, "no weights were shifted in since the last swap: call shift(w) first"):
        array.swap()
    waits = "a swap waits for its first row of x: call stream(x) before the next shift(w)"
    with raises(ValueError, waits):
        array.shift(W)
    with raises(ValueError, waits):
        array.fold(x=X, w=W)
    np.testing.assert_array_equal(array.stream(X).run().outputs[0], Y)
    assert array.cycle == 8


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"cycles": -1}, ValueError, "cycles must be a non-negative integer, not -1"),
        ({"cycles": 1.5}, TypeError, "cycles must be an integer, not float 1.5"),
        ({"cycles": True}, TypeError, "cycles must be an integer, not True"),
        ({"threads": 0}, ValueError, "threads must be a positive integer, not 0"),
        ({"threads": "2"}, TypeError, "threads must be an integer, not str '2'"),
        (
            {"progress": 1},
            TypeError,
            "progress must be True, False, None or a function (done, total), not int 1",
        ),
    ],
)
def test_run_rejects_arguments(options, error: type[Exception], message: str) -> None:
    array = small().fold(x=X, w=W)
    with raises(error, message):
        array.run(**options)
    assert array.cycle == 0


def test_config_argument() -> None:
    assert SystolicArray().config == ArrayConfig()
    assert SystolicArray(MachineConfig(ArrayConfig(2, 3))).config == ArrayConfig(2, 3)
    with raises(TypeError, "config must be an ArrayConfig, not tuple; try ArrayConfig(rows=256, cols=256)"):
        SystolicArray((2, 3))  # type: ignore[arg-type]


# Threads, progress, interrupts


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_threads_do_not_change_results(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    monkeypatch.setattr(module, "_WORTH_A_THREAD", 0)
    rng = np.random.default_rng(5)
    config = ArrayConfig(9, 71, activation_dtype="uint8")
    x, w = [codes(rng, (13, 9), "uint8") for _ in range(3)], [codes(rng, (9, 71), "int8") for _ in range(3)]
    array, pes = SystolicArray(config), Script(config)
    for tile, rows in zip(w, x, strict=True):
        array.fold(x=rows, w=tile)
        pes.shift(tile)
        pes.swap()
        pes.stream(rows)
    array.run(25, threads=threads)
    reference = ReferenceArray(9, 71)
    for t in range(25):
        reference.step(**pes.ports(t))
    check_registers(array, reference.registers())
    array.run(threads=threads)
    for y, expected in zip(array.outputs, pes.outputs, strict=True):
        np.testing.assert_array_equal(y, expected)


def test_progress_counts_up_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BURST_PE_CYCLES", 6 * 3)
    calls: list[tuple[int, int]] = []
    small().fold(x=X, w=W).run(progress=lambda done, total: calls.append((done, total)))
    assert calls == [(3, 8), (6, 8), (8, 8)]


@pytest.mark.parametrize("at", [1, 2, 3])
def test_an_interrupt_leaves_a_state_that_can_be_run_on(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    monkeypatch.setattr(module, "_BURST_PE_CYCLES", 6 * 2)
    calls = 0

    def interrupt(done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        if calls == at:
            raise KeyboardInterrupt

    array = small().fold(x=X, w=W)
    with pytest.raises(KeyboardInterrupt):
        array.run(progress=interrupt)
    assert array.cycle == 2 * at
    check_registers(array, worked()[2 * at - 1])
    assert array.run().cycle == 8
    np.testing.assert_array_equal(array.outputs[0], Y)


def test_states_are_equal_however_the_run_was_cut() -> None:
    rng = np.random.default_rng(0)
    x, w = codes(rng, (90, 30), "int8"), codes(rng, (30, 40), "int8")

    def after(*cycles: int) -> State:
        array = SystolicArray(ArrayConfig(32, 40)).fold(x=x, w=w)
        for count in cycles:
            array.run(count)
        return array.state()

    # Some psums have left, others not.
    whole = after(160)
    assert after(100, 60) == after(80, 40, 40) == whole
    assert after(159) != whole


def test_outputs_do_not_keep_more_than_they_are() -> None:
    array = SystolicArray(ArrayConfig(8, 64))
    x, w = np.ones((1, 8), np.int8), np.ones((8, 64), np.int8)
    for _ in range(5):
        array.fold(x=x, w=w).run()
    array.fold(x=np.ones((50, 8), np.int8), w=w).run(until=lambda array: len(array.outputs) == 6)
    for output in array.outputs:
        held = output if output.base is None else output.base
        assert held.nbytes <= 3 * output.nbytes
    array.fold(x=np.ones((300, 8), np.int8), w=w).run(until=lambda array: array.cycle == 700)
    (stream,) = array.state().queues.streams
    assert len(stream.done) > 20 and all(rows.base is None for rows in stream.done)


def test_what_is_not_yet_due_below_the_array_is_zero() -> None:
    # The memory may hold anything: two states that are reached alike are equal.
    rng = np.random.default_rng(0)
    x, w = codes(rng, (90, 30), "int8"), codes(rng, (30, 40), "int8")
    for cycles in (3, 45, 70, 100, 128):
        states = []
        for junk in (1, 2):
            held = [np.full(size, junk, np.int32) for size in (2000, 6000, 10_000)]
            del held
            array = SystolicArray(ArrayConfig(32, 40)).fold(x=x, w=w)
            states.append(array.run(cycles).state())
        below = states[0].queues.below
        rows, cols = np.indices(below.shape)
        assert not below[rows + cols > 38].any()
        assert states[0] == states[1]


@pytest.mark.parametrize("wanted", ["activation", "weight"])
def test_an_interrupt_while_ports_are_laid_out_leaves_nothing_behind(
    wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New memory holds anything: what was said of the old one must be gone."""
    rng = np.random.default_rng(0)
    config, w = ArrayConfig(8, 8), codes(rng, (3, 3), "int8")
    short, long = codes(rng, (20, 3), "int8"), codes(rng, (900, 3), "int8")
    empty = Workspace.empty

    def interrupted(self: Workspace, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        array = empty(self, name, shape, dtype)
        if name == wanted and len(array) > 900:
            array.fill(99)
            raise KeyboardInterrupt
        return array

    expected = SystolicArray(config).fold(x=short, w=w).run().state()
    with monkeypatch.context() as patch:
        patch.setattr(Workspace, "empty", interrupted)
        with pytest.raises(KeyboardInterrupt):
            SystolicArray(config).fold(x=long, w=w).run()
    assert SystolicArray(config).fold(x=short, w=w).run().state() == expected


def test_an_error_inside_a_clock_leaves_the_old_state(monkeypatch: pytest.MonkeyPatch) -> None:
    array = small().fold(x=X, w=W).run(3)
    kernels = array.config.dataflow_record.kernels
    advance = kernels[array.config.format.kernel]

    def interrupted(*arguments) -> None:
        advance(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(kernels, array.config.format.kernel, interrupted)
        with pytest.raises(KeyboardInterrupt):
            array.run()
    assert array.cycle == 3
    check_registers(array, worked()[2])
    np.testing.assert_array_equal(array.run().outputs[0], Y)


# Looking at it


def test_repr_and_html() -> None:
    array = small().fold(x=X, w=W).run(3)
    assert repr(array) == "<SystolicArray 2 x 3 after the edge of cycle 2: 1 stream in flight, 0 finished>"
    html = array._repr_html_()
    assert "SystolicArray" in html and "2 x 3 PEs" in html and "cycle 8" in html
    assert "3: after the edge of cycle 2" in html
    assert repr(small()) == "<SystolicArray 2 x 3 before the first edge: 0 streams in flight, 0 finished>"


def test_outputs_is_a_new_list() -> None:
    array = small().fold(x=X, w=W).run()
    array.outputs.clear()
    assert len(array.outputs) == 1


def test_chunks_are_short_where_ports_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    from systolic.array import systolic_array

    monkeypatch.setattr(systolic_array, "_BURST_PORT_CYCLES", 64)
    chunks: list[int] = []
    clock = SystolicArray._clock
    monkeypatch.setattr(SystolicArray, "_clock", lambda self, cycles, *rest: chunks.append(cycles) or clock(self, cycles, *rest))
    SystolicArray(ArrayConfig(rows=2, cols=6)).run(cycles=20)
    assert chunks == [8, 8, 4]


# The order of a fold's operands


def test_a_fold_without_names_is_deprecated_and_takes_w_first() -> None:
    expected = small().fold(x=X, w=W).state()
    for call in (lambda a: a.fold(W, X), lambda a: a.fold(W, x=X)):
        with pytest.warns(DeprecationWarning, match=r"fold\(w, x\) is deprecated: write fold\(x=x, w=w\)") as caught:
            assert call(small()).state() == expected
        assert caught[0].filename == __file__
    with pytest.warns(DeprecationWarning):
        assert small().fold(W, X, not_before=(3, 9)).state() == small().fold(x=X, w=W, not_before=(3, 9)).state()


def test_a_fold_takes_both_operands_once() -> None:
    array = small()
    before = array.state()
    for call in (array.fold, lambda: array.fold(x=X), lambda: array.fold(w=W)):
        with raises(TypeError, "fold takes both x and w: write fold(x=x, w=w)"):
            call()
    for call in (lambda: array.fold(W, X, X), lambda: array.fold(W, w=W), lambda: array.fold(W, X, x=X)):
        with pytest.warns(DeprecationWarning), raises(TypeError, "fold takes x and w once each: write fold(x=x, w=w)"):
            call()
    assert array.state() == before
