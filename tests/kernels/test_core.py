"""The compiled array against the PE-by-PE reference, from any state and with any port values.

Every test runs with the plain reference kernel and with each instruction set that the machine has; the last
ones hold these against each other.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.strategies import (
    BLOCK,
    LANES,
    ROW_GROUP,
    SIGN_MIXES,
    codes,
    examples,
    seeds,
    sign_mixes,
    sizes,
    sums,
    wrap32,
)
from systolic import _core, _kernels
from systolic.reference import ReferenceArray

pytestmark = pytest.mark.usefixtures("array_kernel")

DOWN = ("weight", "next_weight", "weight_pass")
RIGHT = ("activation", "shift", "swap")
REGISTERS = (*DOWN, "activation", "psum", "shift", "swap")
DENSITIES = (0.0, 0.04, 0.5, 1.0, "bursts", "once", "busy")

State = dict[str, np.ndarray]


class PortValues(NamedTuple):
    """West ports (cycles, rows), north ports (cycles, cols)."""

    activation: np.ndarray
    shift: np.ndarray
    swap: np.ndarray
    weight: np.ndarray
    psum: np.ndarray

    def cut(self, start: int, stop: int) -> PortValues:
        return PortValues(*(values[start:stop] for values in self))


# Drawing states and ports


def bits(rng: np.random.Generator, rows: int, length: int, density: float | str) -> np.ndarray:
    """Control bits, (rows, length): so many of them set; or otherwise:

    "bursts": runs of equal bits; "once": one run, from anywhere to anywhere; "busy": about as many
    runs as make the kernel go cycle by cycle (more than 24 in a block); "mixed": each row its own.
    """
    if density == "mixed":
        return np.concatenate(
            [bits(rng, 1, length, DENSITIES[rng.integers(len(DENSITIES))]) for _ in range(rows)]
        )
    if density == "once":
        edges = np.sort(rng.integers(0, length + 1, (2, rows, 1)), axis=0)
        return (edges[0] <= np.arange(length)) & (np.arange(length) < edges[1])
    if density in ("bursts", "busy"):
        some = [0.02, 0.1, 0.3] if density == "bursts" else [24 / BLOCK, 25 / BLOCK, 0.9]
        flips = rng.random((rows, length)) < rng.choice(some)
        return (np.cumsum(flips, axis=1) + rng.integers(0, 2, (rows, 1))) % 2 == 1
    return rng.random((rows, length)) < density


def draw_state(rng: np.random.Generator, rows: int, cols: int, types: tuple[str, str], densities) -> State:
    size = (rows, cols)
    return {name: codes(rng, size, types[1]) for name in DOWN} | {
        "activation": codes(rng, size, types[0]),
        "psum": sums(rng, size),
        "shift": bits(rng, rows, cols, densities[0]),
        "swap": bits(rng, rows, cols, densities[1]),
    }


def draw_ports(rng: np.random.Generator, cycles: int, rows: int, cols: int, types, densities) -> PortValues:
    return PortValues(
        codes(rng, (cycles, rows), types[0]),
        bits(rng, rows, cycles, densities[0]).T,
        bits(rng, rows, cycles, densities[1]).T,
        codes(rng, (cycles, cols), types[1]),
        sums(rng, (cycles, cols)),
    )


# Three ways to clock them


def arranged(values: np.ndarray, how: str) -> np.ndarray:
    """The same values, otherwise in memory: as the machine lays ports out, and in other ways.

    "skewed": column i is one line later than column i - 1, as inputs and outputs of an array are.
    """
    lines, columns = values.shape
    if how == "skewed":
        buffer = np.full((lines + columns - 1, columns), 0x5A, values.dtype)
        size = values.itemsize
        strides = (columns * size, (1 - columns) * size)
        view = np.ndarray(values.shape, values.dtype, buffer, (columns - 1) * columns * size, strides)
    elif how == "columns":
        view = np.full((columns, lines), 0x5A, values.dtype).T
    elif how == "backwards with gaps":
        view = np.full((2 * lines, 3 * columns), 0x5A, values.dtype)[::-2, ::-3]
    else:
        view = np.full(values.shape, 0x5A, values.dtype)
    view[...] = values
    return view


ARRANGEMENTS = ("rows", "skewed", "columns", "backwards with gaps")


def kernel(
    state: State,
    ports: PortValues,
    arrangement: str = "rows",
    threads: int = 1,
) -> tuple[State, np.ndarray]:
    """Clock a copy of the state in the kernel; also what stood at the bottom after each edge."""
    after = {name: np.ascontiguousarray(values).copy() for name, values in state.items()}
    cycles, cols = ports.weight.shape
    bottom = arranged(np.full((cycles, cols), 0x5A5A5A5A, dtype=np.int32), arrangement)

    def raw(values: np.ndarray) -> np.ndarray:
        return values.view(np.uint8)

    _core.run(
        *(raw(after[name]) for name in (*DOWN, "activation")),
        after["psum"],
        raw(after["shift"]),
        raw(after["swap"]),
        *(arranged(raw(np.ascontiguousarray(values)), arrangement) for values in ports[:4]),
        arranged(ports.psum, arrangement),
        bottom,
        activation_signed=state["activation"].dtype == np.int8,
        weight_signed=state["weight"].dtype == np.int8,
        threads=threads,
    )
    if arrangement == "skewed" and cycles:
        # What lies between the lines of the view was not written.
        around = bottom.base.copy()
        offset = (cols - 1) * cols * around.itemsize
        np.ndarray(bottom.shape, bottom.dtype, around, offset, bottom.strides)[...] = 0x5A
        assert (around == 0x5A).all()
    return after, bottom


def reference(state: State, ports: PortValues) -> tuple[State, np.ndarray]:
    """Clock it PE by PE."""
    rows, cols = state["psum"].shape
    pes = ReferenceArray(rows, cols, {name: values.tolist() for name, values in state.items()})
    bottom = []
    for t in range(len(ports.psum)):
        pes.step(**{name: values[t].tolist() for name, values in ports._asdict().items()})
        bottom.append(pes.psum[-1])
    after = {name: values.astype(state[name].dtype) for name, values in pes.registers().items()}
    return after, np.array(bottom, dtype=np.int32).reshape(-1, cols)


def stepping(state: State, ports: PortValues) -> tuple[State, np.ndarray]:
    """Clock whole registers at a time in numpy: a second, faster derivation of the same rules."""
    s = {n: v.astype(np.int64 if v.dtype != bool else bool) for n, v in state.items()}

    def from_left(values: np.ndarray, port: np.ndarray) -> np.ndarray:
        return np.concatenate([port[:, np.newaxis].astype(values.dtype), values[:, :-1]], axis=1)

    def from_above(values: np.ndarray, port: np.ndarray) -> np.ndarray:
        return np.concatenate([port[np.newaxis].astype(values.dtype), values[:-1]])

    bottom = []
    for activation, shift, swap, weight, psum in zip(*ports, strict=True):
        a, h, p = (from_left(s[n], v) for n, v in zip(RIGHT, (activation, shift, swap), strict=True))
        arriving = from_above(s["weight_pass"], weight)
        used = np.where(p, s["next_weight"], s["weight"])
        s = {
            "weight": used,
            "next_weight": np.where(h, arriving, s["next_weight"]),
            "weight_pass": np.where(h, s["next_weight"], s["weight_pass"]),
            "activation": a,
            "psum": wrap32(from_above(s["psum"], psum) + used * a).astype(np.int64),
            "shift": h,
            "swap": p,
        }
        bottom.append(s["psum"][-1])
    cols = state["psum"].shape[1]
    after = {name: values.astype(state[name].dtype) for name, values in s.items()}
    return after, np.array(bottom, dtype=np.int32).reshape(-1, cols)


def check_same(one: tuple[State, np.ndarray], other: tuple[State, np.ndarray]) -> None:
    for name in REGISTERS:
        np.testing.assert_array_equal(one[0][name], other[0][name], err_msg=name)
    np.testing.assert_array_equal(one[1], other[1], err_msg="bottom")


densities = st.tuples(*[st.sampled_from(["mixed", *DENSITIES])] * 2)


# The kernel groups rows by 8 and pairs them.
ROW_EDGES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 24)


@st.composite
def cases(draw: st.DrawFn, max_rows: int = 18, max_cols: int = 37, max_cycles: int = 40):
    """A state and ports: any size, any types, control bits from none to all."""
    rows = draw(sizes(max_rows, ROW_EDGES))
    cols = draw(sizes(max_cols))
    cycles = draw(sizes(max_cycles, (1, 2, 7, 8, 9, 16, 17, 40, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 7)))
    types, in_state, at_ports = draw(sign_mixes), draw(densities), draw(densities)
    rng = np.random.default_rng(draw(seeds))
    return draw_state(rng, rows, cols, types, in_state), draw_ports(rng, cycles, rows, cols, types, at_ports)


def case(seed: int, rows: int, cols: int, cycles: int, types=("int8", "int8"), density="mixed"):
    rng = np.random.default_rng(seed)
    pair = (density, density)
    return draw_state(rng, rows, cols, types, pair), draw_ports(rng, cycles, rows, cols, types, pair)


# The contract


@pytest.mark.slow
@examples(60)
@given(cases(), st.sampled_from(ARRANGEMENTS))
def test_any_state_with_any_ports_equals_the_reference(case, arrangement: str) -> None:
    check_same(kernel(*case, arrangement=arrangement), reference(*case))


@cache
def checked_case(seed: int, rows: int, cols: int, cycles: int, density: float | str):
    """A case and what the reference says about it: the same for each instruction set."""
    one = case(seed, rows, cols, cycles, SIGN_MIXES[seed % 4], density)
    return one, reference(*one)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "cols", "cycles"),
    [
        (1, 1, 255),
        (1, 1, 257),
        (9, 19, 600),
        (4, 16, 256),
        (16, 17, 257),
        (2, 33, 512),
        (17, 5, 515),
        (8, 2, 259),
    ],
)
@pytest.mark.parametrize("density", ["mixed", "bursts", "busy", 0.04])
def test_long_runs_equal_the_reference(rows: int, cols: int, cycles: int, density) -> None:
    # The kernel works in blocks of 256 cycles: state crosses from one to the next.
    one, expected = checked_case(rows + cycles, rows, cols, cycles, density)
    check_same(kernel(*one), expected)


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "cols"), [(5, 20), (1, 1), (2, 300), (18, 33)])
@pytest.mark.parametrize("cycles", [6 * BLOCK, 6 * BLOCK + 1, 13 * BLOCK + 9])
@pytest.mark.parametrize("density", ["bursts", 0.0])
@pytest.mark.exhaustive
def test_very_long_runs_equal_numpy_stepping(rows: int, cols: int, cycles: int, density) -> None:
    # Streams of several blocks lie one before the other, and begin anew after some.
    one, expected = stepped_case(rows + cycles, rows, cols, cycles, density)
    for threads in (1, 2):
        check_same(kernel(*one, threads=threads), expected)


@pytest.mark.slow
@pytest.mark.parametrize("cycles", [1, 7, 8, 63, 64, 65, 130])
@pytest.mark.exhaustive
def test_64_by_64_equals_the_reference(cycles: int) -> None:
    one, expected = checked_case(cycles, 64, 64, cycles, "mixed")
    for arrangement in ("rows", "skewed"):
        check_same(kernel(*one, arrangement=arrangement), expected)


@pytest.mark.slow
@examples(25)
@given(cases(max_rows=40, max_cols=70, max_cycles=700), st.sampled_from(ARRANGEMENTS))
def test_larger_and_longer_equals_numpy_stepping(case, arrangement: str) -> None:
    check_same(kernel(*case, arrangement=arrangement), stepping(*case))


@pytest.mark.slow
def test_each_kind_of_row_beside_each_other() -> None:
    """Rows without control, with few and with many changes, in every order, in a group and across groups."""
    kinds = [0.0, "once", "busy"]
    orders = [[kinds[(i // 3**digit) % 3] for digit in range(4)] for i in range(81)]
    for number in range(0, 81, 9):
        rows = [kind for order in orders[number : number + 9] for kind in order]
        rng = np.random.default_rng(number)
        cycles, cols, types = 300, 2 * LANES + 3, SIGN_MIXES[number % 4]
        state = draw_state(rng, len(rows), cols, types, (0.0, 0.0))
        ports = draw_ports(rng, cycles, len(rows), cols, types, (0.0, 0.0))
        shift = np.concatenate([bits(rng, 1, cycles, kind) for kind in rows]).T
        swap = np.concatenate([bits(rng, 1, cycles, kind) for kind in rows]).T
        ports = ports._replace(shift=shift, swap=swap)
        check_same(kernel(state, ports), stepping(state, ports))


@pytest.mark.slow
@pytest.mark.parametrize("start", [0, 1, 15, 16, 17, 254, 255, 256, 257, 299])
def test_a_shift_may_begin_and_end_anywhere(start: int) -> None:
    # Rows beside each other shift at other times, so that what one passes on is read by the next or not.
    for stop in (1, 16, 18, 255, 256, 258, 300):
        state, ports = case(start + stop, ROW_GROUP + 3, LANES + 5, 300, density=0.0)
        shift, swap = np.zeros((300, ROW_GROUP + 3), dtype=bool), np.zeros((300, ROW_GROUP + 3), dtype=bool)
        for r in range(ROW_GROUP + 3):
            shift[max(start + (r % 3) * (r % 4 - 1), 0) : stop + r % 2, r] = True
            swap[(stop + r) % 300, r] = True
        ports = ports._replace(shift=shift, swap=swap)
        check_same(kernel(state, ports), stepping(state, ports))


@pytest.mark.slow
@examples(40)
@given(
    sizes(3 * ROW_GROUP + 1, ROW_EDGES),
    sizes(2 * LANES + 5),
    sizes(300, (8, 15, 16, 17, 31, 32, 33, BLOCK - 1, BLOCK, BLOCK + 1, 300)),
    st.integers(-40, 300),
    st.sampled_from([1, 1, 1, 0, 2, -1]),
    st.sampled_from([None, "one row late", "one row without", "one row twice"]),
    st.sampled_from([0.0, 1.0, "once", "bursts"]),
    sign_mixes,
    seeds,
)
def test_one_swap_runs_through_the_rows(
    rows, cols, cycles, start, step, exception, shifts, types, seed
) -> None:
    """As in a fold, one row later each; or almost so."""
    rng = np.random.default_rng(seed)
    state, ports = (
        draw_state(rng, rows, cols, types, (shifts, 0.0)),
        draw_ports(rng, cycles, rows, cols, types, (shifts, 0.0)),
    )
    # Bits that have entered before the first cycle stand in the registers.
    bits_in_time = np.zeros((cycles + cols, rows), dtype=bool)
    odd = rng.integers(rows)
    for r in range(rows):
        at = start + step * r + (exception == "one row late" and r == odd)
        if 0 <= at + cols < cycles + cols and not (exception == "one row without" and r == odd):
            bits_in_time[at + cols, r] = True
        if exception == "one row twice" and r == odd:
            bits_in_time[rng.integers(cycles + cols), r] = True
    state["swap"] = bits_in_time[:cols][::-1].T.copy()
    ports = ports._replace(swap=bits_in_time[cols:])
    check_same(kernel(state, ports), stepping(state, ports))


@examples(20)
@given(cases(max_cols=70, max_cycles=700), st.data())
def test_run_a_then_run_b_equals_run_a_plus_b(case, data: st.DataObject) -> None:
    state, ports = case
    cycles = len(ports.psum)
    at = data.draw(st.sampled_from([0, 1, cycles - 1, cycles, min(cycles, 256)]) | st.integers(0, cycles))
    middle, first = kernel(state, ports.cut(0, at))
    end, second = kernel(middle, ports.cut(at, cycles))
    check_same(kernel(state, ports), (end, np.concatenate([first, second])))


@examples(20)
@given(cases(max_rows=40, max_cols=90, max_cycles=700), st.integers(2, 5), st.sampled_from(ARRANGEMENTS))
def test_threads_share_rows_and_columns(case, threads: int, arrangement: str) -> None:
    check_same(kernel(*case, arrangement=arrangement, threads=threads), kernel(*case))


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "cols", "cycles"), [(64, 64, 20), (1, 1, 300), (33, 17, 40), (5, 64, 30)])
@pytest.mark.parametrize("density", ["mixed", "bursts"])
def test_numpy_stepping_equals_the_reference(rows: int, cols: int, cycles: int, density: str) -> None:
    one, expected = checked_case(rows + cycles, rows, cols, cycles, density)
    check_same(stepping(*one), expected)


@cache
def stepped_case(seed: int, rows: int, cols: int, cycles: int, density: float | str):
    one = case(seed, rows, cols, cycles, SIGN_MIXES[seed % 4], density)
    return one, stepping(*one)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "rows", "cols", "cycles", "density"),
    [
        # A block of cycles and the beginning of the next.
        (0, 256, 256, 300, "mixed"),
        (1, 256, 256, 300, "bursts"),
        (2, 256, 256, 290, "once"),
        (3, 256, 256, 260, "busy"),
        (4, 253, 251, 270, "bursts"),
    ],
)
@pytest.mark.exhaustive
def test_full_size_equals_numpy_stepping(seed: int, rows: int, cols: int, cycles: int, density: str) -> None:
    one, expected = stepped_case(seed, rows, cols, cycles, density)
    for threads in (1, 2):
        check_same(kernel(*one, arrangement="skewed", threads=threads), expected)


def test_no_cycles_change_nothing() -> None:
    state, ports = case(0, 3, 18, 0)
    after, bottom = kernel(state, ports)
    check_same((after, bottom), (state, np.zeros((0, 18), dtype=np.int32)))


def test_the_build_says_what_it_is() -> None:
    assert _core.lanes == LANES
    assert _kernels.instruction_set in ("reference", *_kernels.instruction_sets)


@pytest.mark.slow
@examples(60)
@given(
    cases(max_rows=70, max_cols=70, max_cycles=900),
    st.sampled_from(ARRANGEMENTS),
    st.sampled_from(ARRANGEMENTS),
    st.integers(1, 3),
)
def test_every_kernel_equals_the_reference_kernel(case, arrangement: str, other: str, threads: int) -> None:
    before = _kernels._tables()[0]
    _kernels._use("reference")
    expected = kernel(*case, arrangement=other)
    _kernels._use(before)
    check_same(kernel(*case, arrangement=arrangement, threads=threads), expected)


# Products, one by one


@pytest.mark.parametrize("types", SIGN_MIXES)
def test_every_pair_of_codes_in_one_pe(types: tuple[str, str]) -> None:
    # A weight is shifted in on one edge, swapped in with the first of 256 activations on the next;
    # the following weight is shifted in behind the last of them.
    a, w = (np.arange(256, dtype=np.uint8).view(t) for t in types)
    cycles = 1 + 256 * 256
    activation = np.zeros((cycles, 1), dtype=types[0])
    activation[1:, 0] = np.tile(a, 256)
    weight = np.zeros((cycles, 1), dtype=types[1])
    weight[:-1:256, 0] = w
    shift, swap = np.zeros((cycles, 1), dtype=bool), np.zeros((cycles, 1), dtype=bool)
    shift[:-1:256] = True
    swap[1::256] = True
    state = {name: np.zeros((1, 1), dtype=types[1]) for name in DOWN} | {
        "activation": np.zeros((1, 1), dtype=types[0]),
        "psum": np.zeros((1, 1), dtype=np.int32),
        "shift": np.zeros((1, 1), dtype=bool),
        "swap": np.zeros((1, 1), dtype=bool),
    }
    north = np.zeros((cycles, 1), dtype=np.int32)
    _, bottom = kernel(state, PortValues(activation, shift, swap, weight, north))
    expected = np.multiply.outer(w.astype(np.int64), a.astype(np.int64))
    np.testing.assert_array_equal(bottom[1:, 0].reshape(256, 256), expected)


@pytest.mark.slow
@pytest.mark.parametrize("types", SIGN_MIXES)
@pytest.mark.parametrize("row", range(ROW_GROUP + 1))
def test_every_pair_of_codes_in_each_row_and_lane(types: tuple[str, str], row: int) -> None:
    # Column c of one row holds code c; each code streams past. Other rows hold zero weights, but
    # see activations. Nine rows: eight that the kernel clocks together, and one more.
    a, w = (np.arange(256, dtype=np.uint8).view(t) for t in types)
    rows = ROW_GROUP + 1
    state, ports = case(row, rows, 256, 256 + 256 + rows - 1, types, 0.0)
    for name in DOWN:
        state[name][:] = 0
    state["weight"][row] = w
    ports.activation[:256, row] = a
    ports.psum[:] = 0
    state["psum"][:] = 0
    _, bottom = kernel(state, ports)
    start = rows - 1 - row
    streams = [bottom[start + c : start + c + 256, c] for c in range(256)]
    np.testing.assert_array_equal(streams, np.multiply.outer(w.astype(np.int64), a.astype(np.int64)))


@pytest.mark.parametrize(("rows", "cycles"), [(1, 1), (3, 3), (8, 9), (8, 300), (11, 17)])
@pytest.mark.parametrize(
    ("a", "w", "start"),
    [(-128, -128, 2**31 - 1), (127, -128, -(2**31)), (127, 127, 2**31 - 127 * 127), (-1, 1, -(2**31))],
)
def test_psums_wrap_in_both_directions(rows: int, cycles: int, a: int, w: int, start: int) -> None:
    state, ports = case(0, rows, 17, cycles, density=0.0)
    state["weight"][:], state["activation"][:], state["psum"][:] = w, a, start
    ports.activation[:], ports.psum[:] = a, start
    after, _ = kernel(state, ports)
    # Row r's psum has passed r + 1 PEs from the north port, or fewer since the beginning.
    passed = np.minimum(np.arange(rows) + 1, cycles)
    expected = [(start + int(n) * a * w + 2**31) % 2**32 - 2**31 for n in passed]
    assert expected[0] != start + a * w, "the case does not wrap"
    np.testing.assert_array_equal(after["psum"], np.repeat(np.array(expected)[:, np.newaxis], 17, axis=1))
