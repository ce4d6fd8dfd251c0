"""The machine: accumulators, and both modes that run lowered work."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.naive_tiling import naive_cycles, naive_folds
from support.strategies import around, codes, examples, problems, product, seeds, sign_mixes, wrap32
from systolic import ArrayConfig, Gemm
from systolic.layers.conv import lower_conv2d
from systolic.lowered import Lowered, lower_matmul
from systolic.machine import Execution, cycle, operands, run_cycles, run_wavefront, wavefront
from systolic.machine.accumulators import Accumulators

MODES = ("cycle", "wavefront")


def run(lowered: Lowered, array: ArrayConfig, mode: str, **options) -> Execution:
    return (run_cycles if mode == "cycle" else run_wavefront)(lowered, array, **options)


def grouped(gemm: Gemm, types: tuple[str, str], seed: int) -> Lowered:
    """Products of stacked matrices, x (groups, m, k) and w (groups, k, n)."""
    rng = np.random.default_rng(seed)
    x = codes(rng, (gemm.groups, gemm.m, gemm.k), types[0])
    return Lowered(gemm, x, codes(rng, (gemm.groups, gemm.k, gemm.n), types[1]))


def expected(lowered: Lowered) -> np.ndarray:
    pairs = zip(lowered.x, lowered.w, strict=True)  # type: ignore[arg-type]
    return np.stack([product(x, w) for x, w in pairs])


class Stored:
    """What left the accumulators: how often each sum did, and in which order."""

    def __init__(self, gemm: Gemm) -> None:
        self.times = np.zeros((gemm.groups, gemm.m, gemm.n), dtype=int)
        self.order: list[tuple[int, int, int]] = []

    def __call__(self, group: int, m_start: int, n_start: int, sums: np.ndarray) -> None:
        m, n = sums.shape
        self.times[group, m_start : m_start + m, n_start : n_start + n] += 1
        self.order.append((group, n_start, m_start))


# Accumulators


def test_accumulators_write_over_and_add() -> None:
    acc = Accumulators(4, 3)
    acc.write(0, 0, np.full((4, 3), 7, np.int32), first=True)
    acc.write(0, 1, np.full((2, 3), 5, np.int32), first=False)
    np.testing.assert_array_equal(acc.drain(0, 4, 3)[:, 0], [7, 12, 12, 7])
    acc.write(0, 0, np.full((3, 3), 1, np.int32), first=True)
    np.testing.assert_array_equal(acc.drain(0, 4, 2), [[1, 1], [1, 1], [1, 1], [7, 7]])


def test_accumulator_halves_are_apart() -> None:
    acc = Accumulators(2, 1)
    acc.write(0, 0, np.full((2, 1), 3, np.int32), first=True)
    acc.write(1, 0, np.full((2, 1), 4, np.int32), first=True)
    acc.write(0, 0, np.full((2, 1), 10, np.int32), first=False)
    assert acc.drain(0, 2, 1).tolist() == [[13], [13]]
    assert acc.drain(1, 2, 1).tolist() == [[4], [4]]


@pytest.mark.parametrize("sign", [1, -1])
def test_accumulators_wrap(sign: int) -> None:
    acc = Accumulators(1, 1)
    acc.write(0, 0, np.array([[sign * (2**31 - 1)]], np.int32), first=True)
    acc.write(0, 0, np.array([[sign * 10]], np.int32), first=False)
    assert acc.drain(0, 1, 1).item() == sign * (2**31 + 9 - 2**32)


def test_accumulators_have_an_end() -> None:
    acc = Accumulators(4, 2)
    with pytest.raises(IndexError, match="^row 4 of a half of 4 accumulator rows$"):
        acc.write(0, 3, np.zeros((2, 2), np.int32), first=True)


def test_accumulators_grow_and_keep_what_they_hold() -> None:
    acc = Accumulators(1000, 2)
    for row in range(0, 1000, 40):
        acc.write(1, row, np.full((40, 2), row, np.int32), first=True)
    np.testing.assert_array_equal(acc.drain(1, 1000, 2)[:, 1], np.arange(1000) // 40 * 40)


# Products


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
@examples(60)
@given(problems(), st.sampled_from([1, 2, 3]), sign_mixes, seeds)
def test_cycle_equals_wavefront_equals_numpy(workers: int, problem, groups: int, types, seed: int) -> None:
    array, m, k, n = problem
    gemm = Gemm(m, k, n, groups=groups)
    work = grouped(gemm, types, seed)
    for mode in MODES:
        done = run(work, array, mode, workers=workers)
        assert done.stats.cycles == naive_cycles(gemm, array), mode
        np.testing.assert_array_equal(done.output, expected(work), err_msg=mode)
    stored = Stored(gemm)
    done = run_cycles(work, array, workers=workers, drained=stored)
    assert done.stats.cycles == naive_cycles(gemm, array)
    np.testing.assert_array_equal(done.output, expected(work))
    assert (stored.times == 1).all()


@pytest.mark.parametrize("mode", MODES)
def test_wide_products_on_a_large_array(mode: str) -> None:
    work = grouped(Gemm(150, 300, 290), ("uint8", "int8"), 3)
    done = run(work, ArrayConfig(), mode, workers=2)
    assert done.stats.cycles == naive_cycles(work.gemm, ArrayConfig())
    np.testing.assert_array_equal(done.output, expected(work))


@pytest.mark.parametrize("mode", MODES)
def test_sums_wrap_over_k_tiles(mode: str) -> None:
    k = 40_000
    x, w = np.full((2, k), 255, np.uint8), np.full((k, 2), 255, np.uint8)
    acc = run(lower_matmul(x, w), ArrayConfig(64, 2), mode).output
    assert (acc == wrap32(np.array(k * 255 * 255))).all() and acc[0, 0] < 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sizes", [(0, 3, 3), (3, 0, 3), (3, 3, 0)])
def test_empty_products_run_nothing(mode: str, sizes: tuple[int, int, int]) -> None:
    done = run(grouped(Gemm(*sizes), ("int8", "int8"), 0), ArrayConfig(2, 2), mode)
    assert done.stats.cycles == 0
    assert done.output.shape == (1, sizes[0], sizes[2]) and not done.output.any()


@pytest.mark.slow
@examples(40)
@given(problems(), st.sampled_from([1, 2, 3]), seeds, st.sampled_from([1, 2, 3, 7, 20, 1000]))
def test_results_do_not_depend_on_how_far_ahead_folds_are_queued(
    problem, groups: int, seed: int, ahead: int
) -> None:
    # Nor on how many cycles are clocked at once: with few, a fold's psums come in many pieces,
    # with many, those of several folds in one. Nor on the short cut of a single small fold.
    array, m, k, n = problem
    work = grouped(Gemm(m, k, n, groups=groups), ("int8", "uint8"), seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cycle, "_AHEAD_CYCLES", ahead)
        patch.setattr(cycle, "is_small", lambda *arguments: False)
        done = run_cycles(work, array)
    assert done.stats.cycles == naive_cycles(work.gemm, array)
    np.testing.assert_array_equal(done.output, expected(work))


def check_pieces(lowered: Lowered, parts: int, threads: int) -> np.ndarray:
    """Assert that each sum is computed by one piece; return the sums."""
    acc, untouched = operands.result_array(lowered), -0x5A5A5A5A
    sums, times = np.zeros(acc.shape, np.int32), np.zeros(acc.shape, int)
    for piece in wavefront.pieces(lowered, acc, None, parts):
        acc[...] = untouched
        piece.compute(threads)
        touched = acc != untouched
        assert np.count_nonzero(touched) == piece.size
        sums[touched], times = acc[touched], times + touched
    assert (times == 1).all()
    np.testing.assert_array_equal(run_wavefront(lowered, ArrayConfig(), workers=threads).output, sums)
    return sums


@examples(40)
@given(
    around(64, 200),
    around(4, 20),
    around(64, 200),
    st.booleans(),
    sign_mixes,
    st.integers(1, 9),
    st.integers(1, 3),
    seeds,
)
def test_pieces_of_a_dense_product_make_up_the_whole(
    m, k, n, transposed, types, parts, threads, seed
) -> None:
    rng = np.random.default_rng(seed)
    x, w = codes(rng, (m, k), types[0]), codes(rng, (k, n), types[1])
    if transposed:
        x, w = np.asfortranarray(x), np.asfortranarray(w)
    np.testing.assert_array_equal(check_pieces(lower_matmul(x, w), parts, threads), product(x, w))


@examples(30)
@given(st.integers(1, 4), around(64, 90), around(4, 9), around(64, 90), st.integers(1, 9), st.integers(1, 3), seeds)
def test_pieces_of_a_batched_product_make_up_the_whole(groups, m, k, n, parts, threads, seed) -> None:
    rng = np.random.default_rng(seed)
    x, w = codes(rng, (groups, m, k), "int8"), codes(rng, (groups, k, n), "uint8")
    work = lower_matmul(x, w)
    np.testing.assert_array_equal(check_pieces(work, parts, threads).reshape(groups, m, n), expected(Lowered(work.gemm, x, w)))


@examples(40)
@given(
    st.integers(1, 2),
    st.integers(1, 6),
    st.integers(1, 3),
    st.integers(1, 30),
    st.sampled_from(["NCHW", "NHWC"]),
    st.integers(1, 9),
    st.integers(1, 3),
    sign_mixes,
    seeds,
)
def test_pieces_of_a_convolution_make_up_the_whole(
    batch, groups, channels, kernels, layout, parts, threads, types, seed
) -> None:
    rng = np.random.default_rng(seed)
    ih, iw, (kh, kw) = *rng.integers(3, 18, 2), rng.integers(1, 4, 2)
    stride, pads = tuple(rng.integers(1, 3, 2).tolist()), rng.integers(0, 2, (2, 2))
    x, w = (
        codes(rng, (batch, groups * channels, ih, iw), types[0]),
        codes(rng, (groups * kernels, channels, kh, kw), types[1]),
    )
    value = int(rng.choice([0, x.flat[0]]))
    inputs = x if layout == "NCHW" else np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    work = lower_conv2d(
        inputs, w, stride=stride, padding=pads.tolist(), dilation=1, groups=groups, layout=layout,
        pad_value=value,
    )  # fmt: skip
    gemm, acc = work.gemm, operands.result_array(work)
    for g in range(groups):
        x_of_group = operands.rows(work.x, g, 0, gemm.m, 0, gemm.k)
        sums = product(x_of_group, operands.tile(work.w, g, 0, gemm.k, 0, gemm.n))
        operands.store(work, acc, g, 0, 0, sums)
    np.testing.assert_array_equal(check_pieces(work, parts, threads), acc)


@examples(40)
@given(problems(), st.sampled_from([1, 2, 3]), seeds)
def test_halves_alternate_and_every_row_is_written_once_per_k_tile(problem, groups: int, seed: int) -> None:
    array, m, k, n = problem
    array = replace(array, dataflow="weight_stationary")
    gemm = Gemm(m, k, n, groups=groups)
    written: list[tuple[int, int, int, bool]] = []
    drained: list[int] = []

    class Spy(Accumulators):
        def write(self, half: int, row: int, psums: np.ndarray, *, first: bool) -> None:
            assert psums.shape[1] == array.cols
            written.extend((half, row + i, len(drained), first) for i in range(len(psums)))
            super().write(half, row, psums, first=first)

        def drain(self, half: int, m: int, n: int) -> np.ndarray:
            drained.append(half)
            return super().drain(half, m, n)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cycle, "Accumulators", Spy)
        patch.setattr(cycle, "is_small", lambda *arguments: False)
        run_cycles(grouped(gemm, ("int8", "int8"), seed), array)
    # What the order of folds says: half = number of the (n tile, chunk) pair modulo 2; a chunk's
    # sums are complete, and drained, before the next chunk's are written.
    due = []
    pair = -1
    for fold in naive_folds(gemm, array):
        pair += fold["k_start"] == 0
        due += [
            (pair % 2, row, pair, fold["k_start"] == 0) for row in range(fold["m_stop"] - fold["m_start"])
        ]
    assert written == due
    assert drained == [i % 2 for i in range(pair + 1)]


def test_finished_sums_are_stored_in_order_of_the_folds() -> None:
    array = ArrayConfig(2, 3, accumulator_rows=4)
    work = grouped(Gemm(5, 4, 7, groups=2), ("int8", "int8"), 0)
    stored = Stored(work.gemm)
    run_cycles(work, array, drained=stored)
    assert stored.order == [(g, n, m) for g in range(2) for n in (0, 3, 6) for m in (0, 2, 4)]


@pytest.mark.parametrize("mode", MODES)
def test_report_counts_up_to_the_end(mode: str) -> None:
    calls: list[tuple[int, int]] = []
    work = grouped(Gemm(50, 9, 9, groups=3), ("int8", "int8"), 0)
    run(work, ArrayConfig(4, 4), mode, workers=2, report=lambda *call: calls.append(call))
    done, totals = [d for d, _ in calls], {t for _, t in calls}
    assert done == sorted(done) and len(totals) == 1 and done[-1] == totals.pop()


def test_an_error_in_a_piece_stops_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    multiply = wavefront._gemm.multiply

    def failing(x: np.ndarray, w: np.ndarray, acc: np.ndarray, *, threads: int) -> None:
        calls.append(len(calls))
        if len(calls) == 4:
            raise KeyboardInterrupt
        multiply(x, w, acc, threads=threads)

    monkeypatch.setattr(wavefront._gemm, "multiply", failing)
    monkeypatch.setattr(wavefront, "_PIECE_WORK", 1 << 11)
    with pytest.raises(KeyboardInterrupt):
        run_wavefront(grouped(Gemm(8, 8, 8, groups=50), ("int8", "int8"), 0), ArrayConfig(4, 4), workers=2)
    assert calls == [0, 1, 2, 3]


def test_small_kernels_are_as_much_work_as_their_patches() -> None:
    """A depthwise convolution has few MACs for what it takes."""
    x, w = np.zeros((1, 256, 112, 112), np.int8), np.zeros((256, 1, 3, 3), np.int8)
    deep = lower_conv2d(x, w, stride=1, padding=1, dilation=1, groups=256, layout="NCHW", pad_value=0)
    calls: list[tuple[int, int]] = []
    assert deep.gemm.macs < 1 << 25
    run_wavefront(deep, ArrayConfig(), report=lambda *call: calls.append(call))
    assert len(calls) > 3 and calls[-1] == (deep.gemm.sums, deep.gemm.sums)


def test_long_products_are_cut_so_that_an_interrupt_comes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wavefront, "_PIECE_WORK", 1 << 15)
    rng = np.random.default_rng(0)
    x, w = codes(rng, (300, 64), "int8"), codes(rng, (64, 200), "int8")
    calls: list[int] = []
    report = lambda done, total: calls.append(done)  # noqa: E731
    acc = run_wavefront(lower_matmul(x, w), ArrayConfig(4, 4), report=report).output
    assert len(calls) > 3 and calls[-1] == 300 * 200
    np.testing.assert_array_equal(acc, product(x, w))
