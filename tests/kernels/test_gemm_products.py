"""The compiled products of matrices, on every instruction set here: exact, and modulo 2^32.

Instructions that saturate (VPMADDUBSW beyond 2^15, VPDPBUSDS beyond 2^31), blocks that do not come out
even and operands that lie otherwise in memory are where such kernels fail.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from support.strategies import (
    SIGN_MIXES,
    codes,
    examples,
    limits,
    product,
    raises,
    seeds,
    sign_mixes,
    sizes,
    wrap32,
)
from systolic import _gemm

pytestmark = pytest.mark.usefixtures("isa")

# Multiples of these are what the instruction sets take at once: rows, columns, values along K.
EDGES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 16, 17, 31, 32, 33, 63, 64, 65)


def multiply(x: np.ndarray, w: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Multiply (M, K) by (K, N), or stacks of them."""
    out = np.full((*x.shape[:-1], w.shape[-1]), -1, dtype=np.int32) if out is None else out
    _gemm.multiply(x, w, out)
    return out


def product_by_float(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The exact product: float64 holds sums of fewer than 2^37 products of codes."""
    return wrap32((x.astype(np.float64) @ w.astype(np.float64)).astype(np.int64))


@examples(80)
@given(*[sizes(70, EDGES, least=0)] * 3, sign_mixes, seeds)
@example(0, 5, 5, ("int8", "int8"), 0)
@example(5, 0, 9, ("int8", "uint8"), 0)
@example(5, 5, 0, ("uint8", "int8"), 0)
def test_any_size(m: int, k: int, n: int, types: tuple[str, str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, w = codes(rng, (m, k), types[0]), codes(rng, (k, n), types[1])
    np.testing.assert_array_equal(multiply(x, w), product(x, w))


@pytest.mark.slow
@pytest.mark.parametrize("types", SIGN_MIXES)
@pytest.mark.parametrize(
    ("m", "k", "n"),
    [
        # Tails after whole blocks of rows (192, 264), of K (512, 1024, 2048) and panels (8, 16, 32).
        (193, 513, 9),
        (265, 515, 33),
        (529, 66, 17),
        (7, 1025, 65),
        (13, 2049, 33),
        (14, 4099, 40),
        (1, 6145, 31),
        # Rows a multiple of 1024 apart, which fall into the same lines of the cache.
        (25, 1024, 70),
        (40, 2048, 33),
    ],
)
def test_tails_of_blocks(m: int, k: int, n: int, types: tuple[str, str]) -> None:
    rng = np.random.default_rng(m + k)
    x, w = codes(rng, (m, k), types[0]), codes(rng, (k, n), types[1])
    np.testing.assert_array_equal(multiply(x, w), product_by_float(x, w))


@pytest.mark.parametrize("m", range(1, 30))
def test_each_number_of_rows(m: int) -> None:
    # Few rows go without packing.
    rng = np.random.default_rng(m)
    x, w = codes(rng, (m, 71), "uint8"), codes(rng, (71, 97), "uint8")
    np.testing.assert_array_equal(multiply(x, w), product(x, w))


@pytest.mark.parametrize("types", SIGN_MIXES)
@pytest.mark.parametrize("rows", [1, 40])
def test_every_pair_of_codes(types: tuple[str, str], rows: int) -> None:
    a, w = (np.arange(*np.add(limits(t), (0, 1))).astype(t) for t in types)
    expected = np.multiply.outer(a.astype(np.int32), w.astype(np.int32))
    if rows == 1:
        for code, line in zip(a, expected, strict=True):
            np.testing.assert_array_equal(multiply(np.array([[code]]), w[np.newaxis])[0], line)
    else:
        np.testing.assert_array_equal(multiply(a[:, np.newaxis], w[np.newaxis]), expected)


@pytest.mark.parametrize(
    ("a", "w"), [(255, 127), (255, -128), (255, 255), (-128, -128), (-128, 127), (127, 255), (-128, 255)]
)
@pytest.mark.parametrize("m", [1, 30])
def test_sums_beyond_16_bits_do_not_saturate(a: int, w: int, m: int) -> None:
    for k in (1, 2, 3, 4, 5, 64, 130):
        for x_type, w_type in SIGN_MIXES:
            if limits(x_type)[0] <= a <= limits(x_type)[1] and limits(w_type)[0] <= w <= limits(w_type)[1]:
                x, y = np.full((m, k), a, dtype=x_type), np.full((k, 35), w, dtype=w_type)
                assert (multiply(x, y) == k * a * w).all()


@pytest.mark.parametrize(("a", "w"), [(255, 255), (-128, 127), (255, -128), (-128, -128), (255, 127), (-128, 255)])
@pytest.mark.parametrize("k", [33026, 70000, 140001, 200_000])
def test_sums_beyond_32_bits_wrap(a: int, w: int, k: int) -> None:
    x = np.full((5, k), a, dtype="uint8" if a > 127 else "int8")
    y = np.full((k, 9), w, dtype="uint8" if w > 127 else "int8")
    total = (k * a * w + 2**31) % 2**32 - 2**31
    assert (abs(k * a * w) > 2**31) == (total != k * a * w)
    assert (multiply(x, y) == total).all()


@pytest.mark.slow
@pytest.mark.parametrize("types", SIGN_MIXES)
@pytest.mark.parametrize("m", [2, 30])
def test_long_sums_of_extremes_in_changing_order(types: tuple[str, str], m: int) -> None:
    # Sums run beyond 2^31 and, some of them, back again: one that stopped there would be lost.
    k = 200_000
    low_x, high_x = limits(types[0])
    low_w, high_w = limits(types[1])
    rows = np.full((2, k), high_x, dtype=types[0])
    rows[1, k // 2 :] = low_x
    columns = np.full((k, 3), high_w, dtype=types[1])
    columns[:, 1] = low_w
    columns[::3, 2] = low_w
    expected = product(rows, columns)
    got = multiply(np.tile(rows, (m // 2, 1)), np.tile(columns, (1, 11)))
    np.testing.assert_array_equal(got, np.tile(expected, (m // 2, 11)))


# How operands lie


@pytest.mark.slow
@examples(40)
@given(
    *[sizes(40, EDGES[1:])] * 3,
    st.integers(1, 4),
    sign_mixes,
    st.tuples(*[st.sampled_from(["whole", "gaps", "backwards", "transposed groups", "one for all"])] * 3),
    seeds,
)
def test_any_strides(m: int, k: int, n: int, groups: int, types, hows, seed: int) -> None:
    rng = np.random.default_rng(seed)

    def laid(values: np.ndarray, how: str) -> np.ndarray:
        g, rows, cols = values.shape
        if how == "gaps":
            wide = np.full((g + 1, 2 * rows, cols + 3), 0x5A, values.dtype)
            view = wide[1:, ::2, 1 : cols + 1]
        elif how == "backwards":
            view = np.full(values.shape, 0x5A, values.dtype)[::-1, ::-1]
        elif how == "transposed groups":
            view = np.full((rows, g, cols), 0x5A, values.dtype).transpose(1, 0, 2)
        elif how == "one for all":
            return np.broadcast_to(values[:1], values.shape)
        else:
            view = np.full(values.shape, 0x5A, values.dtype)
        view[...] = values
        return view

    x, w = laid(codes(rng, (groups, m, k), types[0]), hows[0]), laid(codes(rng, (groups, k, n), types[1]), hows[1])
    x.flags.writeable = w.flags.writeable = False
    out = laid(np.zeros((groups, m, n), np.int32), "gaps" if hows[2] == "one for all" else hows[2])
    multiply(x, w, out)
    np.testing.assert_array_equal(out, np.stack([product(a, b) for a, b in zip(x, w, strict=True)]))
    if hows[2] == "gaps":
        # What lies between was not written.
        around = out.base.copy()
        around[1:, ::2, 1 : n + 1] = 0x5A
        assert (around == 0x5A).all()


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5), (2, 3, 4, 0), (2, 3, 0, 5), (0, 0, 0, 0)])
def test_empty_products(shape: tuple[int, int, int, int]) -> None:
    groups, m, k, n = shape
    out = multiply(np.ones((groups, m, k), np.int8), np.ones((groups, k, n), np.int8))
    assert out.shape == (groups, m, n) and not out.any()


@pytest.mark.parametrize(
    ("a", "b", "acc"),
    [
        ((2, 3, 4), (2, 5, 8), (2, 3, 8)),
        ((2, 3, 4), (2, 4, 9), (2, 3, 8)),
        ((2, 3, 4), (2, 4, 8), (2, 2, 8)),
        ((2, 3, 4), (1, 4, 8), (2, 3, 8)),
        ((2, 3, 4), (2, 4, 8), (1, 3, 8)),
        ((2, 0, 4), (2, 4, 8), (2, 3, 8)),
    ],
)
def test_shapes_that_do_not_fit(a, b, acc) -> None:
    x, w, out = np.zeros(a, np.int8), np.zeros(b, np.int8), np.full(acc, 7, np.int32)
    with raises(ValueError, f"shapes {a} and {b} do not make {acc}"):
        multiply(x, w, out)
    assert (out == 7).all()


@pytest.mark.slow
@pytest.mark.parametrize("threads", [2, 3, 5])
@pytest.mark.parametrize(
    "shape",
    # Blocks of 264 rows, of whole panels of columns; groups by the piece, groups one by one; less than threads.
    [(1100, 33, 300), (700, 17, 9), (40, 70, 1500), (3, 50, 4096), (1, 1, 1), (300, 8, 200, 2), (9, 20, 31, 64)],
)
def test_threads_share_sums(shape: tuple[int, ...], threads: int) -> None:
    rng = np.random.default_rng(threads)
    m, k, n, *groups = shape
    for types in SIGN_MIXES:
        x, w = codes(rng, (*groups, m, k), types[0]), codes(rng, (*groups, k, n), types[1])
        out = np.full((*groups, m, n), -1, np.int32)
        _gemm.multiply(x, w, out, threads=threads)
        np.testing.assert_array_equal(out, product_by_float(x, w))


def test_rows_with_gaps_inside_are_refused() -> None:
    x, w, out = np.zeros((2, 8), np.int8), np.zeros((4, 6), np.int8), np.zeros((2, 6), np.int32)
    for operands in (
        (x[:, ::2], w, out),
        (x[:, :4], w[:, ::-1], out),
        (x[:, :4], np.asfortranarray(w), out),
        (x[:, :4], w[:, :3], out[:, ::2]),
    ):
        with raises(ValueError, "rows of a, b and acc must be contiguous"):
            multiply(*operands)


def test_sums_not_a_whole_number_of_sums_apart_are_refused() -> None:
    records = np.zeros((3, 2), dtype=[("sums", "<i4", 2), ("odd", "u1")])
    out = records["sums"]
    assert out.strides[1] % 4
    with pytest.raises(ValueError):
        multiply(np.zeros((3, 2, 1), np.int8), np.zeros((3, 1, 2), np.int8), out)
    assert not records["odd"].any()


def test_other_types_are_refused() -> None:
    x, out = np.zeros((1, 2, 2), np.uint8), np.zeros((1, 2, 2), np.int32)
    for operands in ((x.astype(np.int16), x, out), (x, x, out.astype(np.int64)), (x, x, out.astype(np.uint32))):
        with pytest.raises(ValueError):
            _gemm.multiply(*operands)
    out.flags.writeable = False
    with pytest.raises(ValueError):
        _gemm.multiply(x, x, out)
