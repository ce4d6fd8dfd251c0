"""The output-stationary array: the worked example, folds at any time, blocks and stretches of the kernel."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.strategies import BLOCK, around, codes, examples, product, raises, seeds, sign_mixes, sums
from systolic import ArrayConfig, MachineConfig, MemoryConfig, State, SystolicArray, matmul, ports
from systolic.benchmark.timing import instruction_sets, using
from systolic.reference import OutputStationaryArray

X = np.array([[1, 2, 3], [4, -5, 6]], dtype=np.int8)
W = np.array([[7, -8, 9], [10, 11, -12], [-13, 14, 15]], dtype=np.int8)
CONFIG = ArrayConfig(2, 3, dataflow="output_stationary")

ZERO = [[0, 0, 0], [0, 0, 0]]
# After the edges of cycles 0, 2, 4, 5 and 7: worked out by hand from the rules.
BY_HAND: dict[int, dict[str, list[list[int]]]] = {
    0: {"activation": [[1, 0, 0], [0, 0, 0]], "weight": [[7, 0, 0], [0, 0, 0]], "acc": [[7, 0, 0], [0, 0, 0]],
        "swap": [[1, 0, 0], [0, 0, 0]]},
    2: {"activation": [[3, 2, 1], [-5, 4, 0]], "weight": [[-13, 11, 9], [10, -8, 0]],
        "acc": [[-12, 14, 9], [-22, -32, 0]], "swap": [[0, 0, 1], [0, 1, 0]]},
    4: {"activation": [[0, 0, 3], [0, 6, -5]], "weight": [[0, 0, 15], [0, 14, -12]],
        "acc": [[0, 0, 30], [0, -3, 96]], "out": [[0, 56, 0], [-100, 0, 0]], "out_pass": [[-12, 0, 0], [0, 0, 0]],
        "swap": [[0, 1, 0], [1, 0, 0]], "drain": [[1, 0, 0], [0, 0, 0]]},
    5: {"activation": [[0, 0, 0], [0, 0, 6]], "weight": [[0, 0, 0], [0, 0, 15]], "acc": [[0, 0, 0], [0, 0, 186]],
        "out": [[0, 0, 30], [-12, -3, 0]], "out_pass": [[-12, 56, 0], [-100, 0, 0]], "swap": [[0, 0, 1], [0, 1, 0]],
        "drain": [[0, 1, 0], [1, 0, 0]]},
    7: {"out": [[0, 0, 0], [-12, 56, 30]], "out_pass": [[-12, 56, 30], [-100, -3, 186]],
        "drain": [[0, 0, 0], [0, 0, 1]]},
}  # fmt: skip


def check_by_hand(cycle: int, registers: Any) -> None:
    if cycle in BY_HAND:
        assert {name: v.astype(int).tolist() for name, v in registers.items()} == {
            name: BY_HAND[cycle].get(name, ZERO) for name in CONFIG.register_dtypes
        }


def test_worked_example() -> None:
    array = SystolicArray(CONFIG, trace=True).fold(x=X, w=W).run()
    for cycle in range(8):
        check_by_hand(cycle, {name: array.trace[name][cycle] for name in array.registers})
    assert array.cycle == 8
    assert array.outputs[0].tolist() == [[-12, 56, 30], [-100, -3, 186]] == product(X, W).tolist()


def test_worked_example_on_the_reference() -> None:
    pes = OutputStationaryArray(2, 3)
    for cycle, values in enumerate(ports(X, W, array=CONFIG)):
        if cycle < 8:
            pes.step(**{name: value.tolist() for name, value in values.ports.items()})
            check_by_hand(cycle, pes.registers())
    y, cycles = OutputStationaryArray(2, 3).fold(X, W)
    assert (y.tolist(), cycles) == ([[-12, 56, 30], [-100, -3, 186]], 8)


@examples(20)
@given(st.tuples(*[st.integers(1, 6)] * 5), seeds)
def test_fold_of_the_reference(sizes: tuple[int, ...], seed: int) -> None:
    rows, cols, k, m, n = sizes
    m, n = min(m, rows), min(n, cols)
    rng = np.random.default_rng(seed)
    x, w = codes(rng, (m, k), "int8"), codes(rng, (k, n), "uint8")
    y, cycles = OutputStationaryArray(rows, cols).fold(x.tolist(), w.tolist())
    np.testing.assert_array_equal(y, product(x, w))
    assert cycles == 2 * rows + cols + k - 2


def test_swap_and_drain_on_one_edge() -> None:
    array = SystolicArray(ArrayConfig(1, 1, dataflow="output_stationary"))
    array.step(activation=2, weight=5).step(swap=1, activation=1, weight=1)
    array.step(swap=1, drain=1, activation=3, weight=3, out=77)
    # The chain takes the old out, the swap the sum; what arrives from above is dropped.
    assert {n: v.item() for n, v in array.registers.items()} == {
        "activation": 3, "weight": 3, "acc": 9, "out": 1, "out_pass": 10, "swap": True, "drain": True,
    }  # fmt: skip


def test_sums_wrap() -> None:
    config = ArrayConfig(1, 1, dataflow="output_stationary", activation_dtype="uint8", weight_dtype="uint8")
    array = SystolicArray(config)
    array.restore(array.state().replace(acc=np.array([[2**31 - 1]], np.int32))).step(activation=255, weight=255)
    assert array.registers.acc.item() == 2**31 - 1 + 255 * 255 - 2**32


# Queues


def test_folds_follow_each_other() -> None:
    config = ArrayConfig(3, 2, dataflow="output_stationary")
    array = SystolicArray(config)
    take = lambda row, sums: None  # noqa: E731

    def queue(k: int, **options: Any) -> tuple[int, int]:
        return array.queue_fold(np.ones((k, 2), np.int8), np.ones((k, 3), np.int8), take, **options)

    assert queue(2) == (0, 2)  # nothing drains yet: it may be shorter than the array has rows
    assert queue(1) == (2, 5)  # the sums of the first fold drain for 3 cycles
    assert queue(7) == (5, 12)
    assert queue(4, not_before=(13, 0)) == (15, 19)  # a late one waits until the sums of the third have drained
    assert queue(2, not_before=(0, 30)) == (19, 30)
    assert array.run().cycle == 30 + 2 * 3 + 2 - 2


def test_single_buffered_folds_run_one_after_the_other() -> None:
    array = SystolicArray(ArrayConfig(3, 2, dataflow="output_stationary", double_buffered=False), trace=True)
    for k in (2, 5):
        array.fold(x=np.ones((3, k), np.int8), w=np.ones((k, 2), np.int8))
    one = 2 * 3 + 2 + 2 - 2
    assert array.run().cycle == one + 2 * 3 + 2 + 5 - 2
    assert np.flatnonzero(array.trace["swap"][:, 0, 0]).tolist() == [0, 2, one, one + 5]
    assert np.flatnonzero(array.trace["drain"][:, 0, 0]).tolist() == [3, 4, one + 6, one + 7]
    assert [y.tolist() for y in array.outputs] == [[[2, 2]] * 3, [[5, 5]] * 3]


@pytest.mark.slow
@examples(40)
@given(st.tuples(st.integers(1, 9), st.integers(1, 20)), st.integers(1, 4), seeds)
def test_any_point_can_be_saved_and_continued(size: tuple[int, int], count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    config = ArrayConfig(*size, dataflow="output_stationary", double_buffered=bool(rng.integers(2)))
    array, expected = SystolicArray(config), []
    for _ in range(count):
        m, n, k = rng.integers(1, size[0] + 1), rng.integers(1, size[1] + 1), rng.integers(1, 30)
        x, w = codes(rng, (m, k), "int8"), codes(rng, (k, n), "int8")
        array.fold(x=x, w=w, not_before=(int(rng.integers(0, 40)), int(rng.integers(0, 60))))
        expected.append(product(x, w))
        array.run(int(rng.integers(0, 40)))
        state = pickle.loads(pickle.dumps(array.state()))
        other = SystolicArray(config).restore(state)
        assert other.run().state() == SystolicArray(config).restore(array.state()).run().state()
    for y, right in zip(array.run().outputs, expected, strict=True):
        assert y.shape == (len(right), config.cols) and not y.flags.writeable
        np.testing.assert_array_equal(y[:, : right.shape[1]], right)


# The kernel: strips of 16 columns, groups of 8 rows, blocks of 256 cycles, stretches of control


def drawn_control(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Bits as folds set them, skewed or not, with some more or less; or at random."""
    style = rng.random()
    if style < 0.3:
        return rng.random(shape) < rng.choice([0, 0.003, 0.05, 0.5, 1])
    line = np.zeros(shape[0] + shape[1], dtype=bool)
    at = 0
    while at < len(line):
        run = int(rng.choice([1, 2, 7, 16, 40, 300]))
        line[at : at + run] = rng.random() < 0.5
        at += run
    late = np.arange(shape[1]) if style < 0.8 else rng.integers(0, shape[1], shape[1])
    bits = line[np.arange(shape[0])[:, None] + shape[1] - 1 - late]
    return bits ^ (rng.random(shape) < 0.002) if style < 0.5 else bits


@pytest.mark.slow
@pytest.mark.parametrize("isa", instruction_sets(True))
def test_kernels_equal_the_plain_one(isa: str) -> None:
    """Long runs and wide arrays; the plain kernel equals the reference in ``test_clock.py``."""

    @examples(25)
    @given(around(16, 20), around(32, 70), around(BLOCK, 2 * BLOCK + 70), sign_mixes, st.integers(1, 2), seeds)
    def equal(rows: int, cols: int, cycles: int, types: tuple[str, str], threads: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        config = ArrayConfig(
            rows, cols, activation_dtype=types[0], weight_dtype=types[1], dataflow="output_stationary"
        )

        def drawn(shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
            if dtype.kind == "b":
                return drawn_control(rng, shape)
            return sums(rng, shape) if dtype == np.int32 else codes(rng, shape, dtype.name)

        state = State(**{name: drawn((rows, cols), dtype) for name, dtype in config.register_dtypes.items()})
        sizes = {"west": rows, "north": cols}
        driven: dict[str, Any] = {
            port.name: drawn((cycles, sizes[port.side]), config.port_dtypes[port.name])
            for port in config.dataflow_record.ports
        }
        array, plain = (SystolicArray(config).restore(state) for _ in range(2))
        left = array.clock(threads=threads, **driven)
        with using("reference"):
            np.testing.assert_array_equal(left, plain.clock(**driven))
        assert array.state() == plain.state()

    with using(isa):
        equal()


@pytest.mark.slow
@pytest.mark.parametrize("isa", instruction_sets(True))
@pytest.mark.parametrize(("rows", "cols", "k"), [(32, 48, 40), (16, 16, 700), (24, 33, 7), (7, 100, 300)])
def test_folds_on_every_instruction_set(isa: str, rows: int, cols: int, k: int) -> None:
    rng = np.random.default_rng(rows + k)
    x, w = codes(rng, (3 * rows - 1, k), "int8"), codes(rng, (k, 2 * cols + 1), "uint8")
    config = ArrayConfig(rows, cols, dataflow="output_stationary")
    with using(isa):
        result = matmul(x, w, array=config)
    np.testing.assert_array_equal(result.acc, product(x, w))
    assert result.cycles == k + 8 * max(k, rows) + 2 * rows + cols - 2


# What is refused


def test_queues_of_moving_weights_are_refused() -> None:
    array = SystolicArray(CONFIG)
    for name, arguments in {"shift": (W[:2],), "swap": (), "stream": (X,)}.items():
        with raises(
            ValueError,
            f"{name}() queues work for weights that stay, but this array is output_stationary; fold(x=x, w=w) "
            "queues all that it does for a product",
        ):
            getattr(array, name)(*arguments)
    assert array.state() == SystolicArray(CONFIG).state()


@pytest.mark.parametrize(
    ("w", "x", "message"),
    [
        (np.ones((3, 4), np.int8), X, "w is (3, 4): n is larger than the array's 3 columns; systolic.matmul cuts a larger product into folds"),
        (W, np.ones((3, 3), np.int8), "x is (3, 3): m is larger than the array's 2 rows; systolic.matmul cuts a larger product into folds"),
        (W, X[:, :2], "x and w must share k, but x is (2, 2) and w is (3, 3)"),
    ],
)  # fmt: skip
def test_fold_rejects(w: np.ndarray, x: np.ndarray, message: str) -> None:
    array = SystolicArray(CONFIG)
    with raises(ValueError, message):
        array.fold(x=x, w=w)
    assert array.state() == SystolicArray(CONFIG).state()


def test_input_stationary_folds_are_limited_on_the_other_sides() -> None:
    array = SystolicArray(ArrayConfig(2, 3, dataflow="input_stationary"))
    message = "x is (4, 2), larger than the array's 3 x 2; systolic.matmul cuts a larger product into folds"
    with raises(ValueError, message):
        array.fold(x=np.ones((4, 2), np.int8), w=np.ones((2, 9), np.int8))
    assert array.fold(x=np.ones((3, 2), np.int8), w=np.ones((2, 9), np.int8)).run().outputs[0].shape == (9, 3)


def test_input_stationary_verbs_take_the_exchanged_operands() -> None:
    # x (m, k) stays, transposed: k takes rows, m columns. w (k, n) streams, transposed: n has no limit.
    config = ArrayConfig(2, 4, dataflow="input_stationary", activation_dtype="uint8")
    x, w = np.arange(8, dtype=np.uint8).reshape(4, 2), np.arange(-9, 9, dtype=np.int8).reshape(2, 9)
    array = SystolicArray(config).shift(x.T).swap().stream(w.T).run()
    np.testing.assert_array_equal(array.outputs[0], product(x, w).T)
    assert array.state() == SystolicArray(config).fold(x=x, w=w).run().state()
    before, cut = array.state(), "systolic.matmul cuts a larger product into folds"
    for tile in (np.ones((2, 5), np.uint8), np.ones((3, 4), np.uint8), np.ones((4, 2), np.uint8)):
        with raises(ValueError, f"w is {tile.shape}, larger than the array's 2 x 4; {cut}"):
            array.shift(tile)
    for rows in (np.ones((9, 3), np.int8), np.ones((3, 4), np.int8)):
        with raises(ValueError, f"x is {rows.shape}: k is larger than the array's 2 rows; {cut}"):
            array.stream(rows)
    for call, value, message in (
        (array.shift, np.ones((0, 4), np.uint8), "w must hold at least one value, but is (0, 4)"),
        (array.shift, np.ones(4, np.uint8), "w must have 2 axes (k, m), not 1 (4,)"),
        (array.stream, np.ones((0, 2), np.int8), "x must have at least one row, but is (0, 2)"),
        (array.stream, np.ones(2, np.int8), "x must have 2 axes (n, k), not 1 (2,)"),
    ):
        with raises(ValueError, message):
            call(value)
    with raises(TypeError, "w must hold uint8, as the array's config says, not int8; make the array with "
                "ArrayConfig(activation_dtype='int8')"):  # fmt: skip
        array.shift(x.T.view(np.int8))
    with raises(TypeError, "x must hold int8, as the array's config says, not uint8; make the array with "
                "ArrayConfig(weight_dtype='uint8')"):  # fmt: skip
        array.stream(w.T.view(np.uint8))
    assert array.state() == before


def test_a_state_of_another_dataflow_is_refused() -> None:
    with raises(
        TypeError,
        "the registers of a output_stationary array are activation, weight, acc, out, out_pass, swap, drain, not "
        "activation, next_weight, psum, shift, swap, weight, weight_pass",
    ):
        SystolicArray(CONFIG).restore(SystolicArray(ArrayConfig(2, 3)).state())


def test_machines_with_memories_are_weight_stationary() -> None:
    memory = MemoryConfig(
        weight_bytes=2**20, weight_bytes_per_second=10**9, unified_buffer_rows=64, host_rows=64,
        host_bytes_per_second=10**9,
    )  # fmt: skip
    assert MachineConfig(ArrayConfig(2, 2), memory=memory).memory == memory
    for dataflow in ("output_stationary", "input_stationary"):
        with raises(
            ValueError,
            f"a machine with memories is weight stationary, but its array is {dataflow}; leave memory out for the "
            "ideal machine",
        ):
            MachineConfig(ArrayConfig(2, 2, dataflow=dataflow), memory=memory)
    with raises(
        ValueError,
        "dataflow must be one of 'weight_stationary', 'output_stationary', 'input_stationary', not 'row_stationary'",
    ):
        ArrayConfig(2, 2, dataflow="row_stationary")
