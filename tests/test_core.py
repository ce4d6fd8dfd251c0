"""The compiled kernel against the PE-by-PE reference, from any state and with any port values."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import (
    DTYPES,
    LANES,
    SIGN_MIXES,
    codes,
    examples,
    product,
    seeds,
    sign_mixes,
    sizes,
    sums,
    wrap32,
)

from systolic import _core
from systolic.reference import ReferenceArray

DOWN = ("weight", "next_weight", "weight_pass")
RIGHT = ("activation", "shift", "swap")
REGISTERS = (*DOWN, "activation", "psum", "shift", "swap")
DENSITIES = (0.0, 0.04, 0.5, 1.0, "bursts")

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
    """Control bits, (rows, length); "bursts": runs of equal bits; "mixed": each row its own density."""
    if density == "mixed":
        return np.concatenate(
            [bits(rng, 1, length, DENSITIES[rng.integers(len(DENSITIES))]) for _ in range(rows)]
        )
    if density == "bursts":
        flips = rng.random((rows, length)) < rng.choice([0.02, 0.1, 0.3])
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


def kernel(
    state: State, ports: PortValues, first_col: int = 0, last_col: int | None = None
) -> tuple[State, np.ndarray]:
    """Clock a copy of the state in the kernel; also what stood at the bottom after each edge."""
    after = {name: np.ascontiguousarray(values).copy() for name, values in state.items()}
    cycles, cols = ports.weight.shape
    bottom = np.full((cycles, cols), 0x5A5A5A5A, dtype=np.int32)

    def raw(values: np.ndarray) -> np.ndarray:
        return values.view(np.uint8)

    _core.run(
        *(raw(after[name]) for name in (*DOWN, "activation")),
        after["psum"],
        raw(after["shift"]),
        raw(after["swap"]),
        *(raw(np.ascontiguousarray(values)) for values in ports[:4]),
        ports.psum,
        bottom,
        activation_signed=state["activation"].dtype == np.int8,
        weight_signed=state["weight"].dtype == np.int8,
        first_col=first_col,
        last_col=cols if last_col is None else last_col,
    )
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


@st.composite
def cases(draw: st.DrawFn, max_rows: int = 9, max_cols: int = 37, max_cycles: int = 40):
    """A state and ports: any size, any types, control bits from none to all."""
    rows = draw(sizes(max_rows, (1, 2, 3, 4, 5, 7, 8, 9)))
    cols = draw(sizes(max_cols))
    cycles = draw(sizes(max_cycles, (1, 2, 3, 4, 5, 16, 17, 40)))
    types, in_state, at_ports = draw(sign_mixes), draw(densities), draw(densities)
    rng = np.random.default_rng(draw(seeds))
    return draw_state(rng, rows, cols, types, in_state), draw_ports(rng, cycles, rows, cols, types, at_ports)


def case(seed: int, rows: int, cols: int, cycles: int, types=("int8", "int8"), density="mixed"):
    rng = np.random.default_rng(seed)
    pair = (density, density)
    return draw_state(rng, rows, cols, types, pair), draw_ports(rng, cycles, rows, cols, types, pair)


# The contract


@examples(150)
@given(cases())
def test_any_state_with_any_ports_equals_the_reference(case) -> None:
    check_same(kernel(*case), reference(*case))


@pytest.mark.parametrize(
    ("rows", "cols", "cycles"),
    [
        (1, 1, 255),
        (1, 1, 257),
        (5, 19, 600),
        (4, 16, 256),
        (3, 17, 257),
        (2, 33, 512),
        (6, 5, 515),
        (8, 2, 259),
    ],
)
@pytest.mark.parametrize("density", ["mixed", "bursts", 0.04])
def test_long_runs_equal_the_reference(rows: int, cols: int, cycles: int, density) -> None:
    # The kernel works in blocks of 256 cycles: state crosses from one to the next.
    mix = SIGN_MIXES[(rows + cycles) % 4]
    one = case(cycles, rows, cols, cycles, mix, density)
    check_same(kernel(*one), reference(*one))


@examples(40)
@given(cases(max_cols=70, max_cycles=700), st.data())
def test_run_a_then_run_b_equals_run_a_plus_b(case, data: st.DataObject) -> None:
    state, ports = case
    cycles = len(ports.psum)
    at = data.draw(st.sampled_from([0, 1, cycles - 1, cycles, min(cycles, 256)]) | st.integers(0, cycles))
    middle, first = kernel(state, ports.cut(0, at))
    end, second = kernel(middle, ports.cut(at, cycles))
    check_same(kernel(state, ports), (end, np.concatenate([first, second])))


@examples(40)
@given(cases(max_cols=90), st.data())
def test_column_ranges_make_up_the_whole(case, data: st.DataObject) -> None:
    state, ports = case
    cols = state["psum"].shape[1]
    first = data.draw(st.integers(0, (cols - 1) // LANES)) * LANES
    last = data.draw(st.sampled_from([first, cols]) | st.integers(first, cols))
    whole, whole_bottom = kernel(state, ports)
    part, bottom = kernel(state, ports, first, last)
    inside, outside = np.s_[:, first:last], np.ones(cols, dtype=bool)
    outside[first:last] = False
    for name in (*DOWN, "psum"):
        np.testing.assert_array_equal(part[name][inside], whole[name][inside], err_msg=name)
        np.testing.assert_array_equal(part[name][:, outside], state[name][:, outside], err_msg=name)
    for name in RIGHT:
        np.testing.assert_array_equal(part[name], whole[name], err_msg=name)
    np.testing.assert_array_equal(bottom[inside], whole_bottom[inside])
    assert (bottom[:, outside] == 0x5A5A5A5A).all()


@examples(15)
@given(cases(max_rows=32, max_cols=32, max_cycles=12))
def test_numpy_stepping_equals_the_reference(case) -> None:
    check_same(stepping(*case), reference(*case))


@pytest.mark.parametrize("types", SIGN_MIXES)
def test_full_size_equals_numpy_stepping(types: tuple[str, str]) -> None:
    # 300 cycles: a block and the beginning of the next.
    one = case(SIGN_MIXES.index(types), 256, 256, 300, types)
    check_same(kernel(*one), stepping(*one))


def test_full_size_with_odd_edges_equals_numpy_stepping() -> None:
    one = case(9, 253, 251, 270, density="bursts")
    check_same(kernel(*one), stepping(*one))


def test_no_cycles_change_nothing() -> None:
    state, ports = case(0, 3, 18, 0)
    after, bottom = kernel(state, ports)
    check_same((after, bottom), (state, np.zeros((0, 18), dtype=np.int32)))


@pytest.mark.parametrize(("first", "last"), [(1, 20), (8, 16), (0, 21), (16, 15), (-16, 4)])
def test_column_ranges_are_checked(first: int, last: int) -> None:
    state, ports = case(0, 2, 20, 3)
    with pytest.raises(
        ValueError, match=rf"^columns {first}\.\.{last} do not start on a strip of 16 within 20$"
    ):
        kernel(state, ports, first, last)


def test_the_build_says_what_it_is() -> None:
    assert _core.lanes == LANES
    assert _core.instruction_set in ("sse2", "portable")


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


@pytest.mark.parametrize("types", SIGN_MIXES)
@pytest.mark.parametrize("row", range(5))
def test_every_pair_of_codes_in_each_row_and_lane(types: tuple[str, str], row: int) -> None:
    # Column c of one row holds code c; each code streams past. Other rows hold zero weights, but
    # see activations. Five rows: four that the kernel clocks together, and one more.
    a, w = (np.arange(256, dtype=np.uint8).view(t) for t in types)
    cycles = 256 + 256 + 4
    state, ports = case(row, 5, 256, cycles, types, 0.0)
    for name in DOWN:
        state[name][:] = 0
    state["weight"][row] = w
    ports.activation[:256, row] = a
    ports.psum[:] = 0
    state["psum"][:] = 0
    _, bottom = kernel(state, ports)
    for c in range(256):
        start = c + 4 - row
        np.testing.assert_array_equal(bottom[start : start + 256, c], a.astype(np.int64) * int(w[c]))


@pytest.mark.parametrize(("rows", "cycles"), [(1, 1), (3, 3), (4, 9), (6, 9)])
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


# Exact products


def multiply(x: np.ndarray, w: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    packed = _core.pack(w.view(np.uint8), weight_signed=w.dtype == np.int8)
    out = np.full((x.shape[0], w.shape[1]), -1, dtype=np.int32) if out is None else out
    _core.multiply(x.view(np.uint8), packed, out, activation_signed=x.dtype == np.int8)
    return out


# The kernel takes 4 rows, 8 columns and pairs of k at a time.
BLOCK_EDGES = (0, 1, 2, 3, 4, 5, 7, 8, 9, 16, 17)


@examples(150)
@given(*[sizes(40, BLOCK_EDGES, least=0)] * 3, sign_mixes, seeds)
@example(0, 5, 5, ("int8", "int8"), 0)
@example(5, 0, 9, ("int8", "uint8"), 0)
@example(5, 5, 0, ("uint8", "int8"), 0)
def test_multiply_is_exact(m: int, k: int, n: int, types: tuple[str, str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, w = codes(rng, (m, k), types[0]), codes(rng, (k, n), types[1])
    np.testing.assert_array_equal(multiply(x, w), product(x, w))


@pytest.mark.parametrize(("a", "w"), [(255, 255), (-128, 127), (255, -128), (-128, -128)])
@pytest.mark.parametrize("k", [33025, 70000, 140001])
def test_multiply_wraps(a: int, w: int, k: int) -> None:
    x = np.full((5, k), a, dtype="uint8" if a > 127 else "int8")
    y = np.full((k, 9), w, dtype="uint8" if w > 127 else "int8")
    total = (k * a * w + 2**31) % 2**32 - 2**31
    assert (abs(k * a * w) >= 2**31) == (total != k * a * w)
    assert (multiply(x, y) == total).all()


def test_multiply_takes_any_strides() -> None:
    rng = np.random.default_rng(0)
    x, w = codes(rng, (22, 30), "int8")[::2, ::-3], codes(rng, (11, 40), "uint8").T[::-4, ::2]
    x.flags.writeable = w.flags.writeable = False
    out = np.zeros((11, 24), dtype=np.int32)
    multiply(x, w, out[:, ::4])
    np.testing.assert_array_equal(out[:, ::4], product(x, w))
    assert not np.delete(out, np.s_[::4], axis=1).any()


@pytest.mark.parametrize(
    "shapes", [((3, 4), (6, 8), (3, 8)), ((3, 4), (4, 9), (3, 8)), ((3, 4), (4, 8), (2, 8))]
)
def test_multiply_checks_that_shapes_fit(shapes) -> None:
    x, w, out = (np.zeros(shape, dtype=t) for shape, t in zip(shapes, ("int8", "int8", "int32"), strict=True))
    with pytest.raises(ValueError, match="^x, packed w and acc do not fit together$"):
        multiply(x, w, out)


@pytest.mark.parametrize("dtype", DTYPES)
def test_pack_lays_out_pairs_and_pads_with_zeros(dtype: str) -> None:
    w = codes(np.random.default_rng(1), (5, 11), dtype)
    packed = _core.pack(w.view(np.uint8), weight_signed=dtype == "int8")
    assert packed.shape == (2, 3, 8, 2)
    padded = np.zeros((6, 16), dtype=np.int16)
    padded[:5, :11] = w
    np.testing.assert_array_equal(packed, padded.reshape(3, 2, 2, 8).transpose(2, 0, 3, 1))
