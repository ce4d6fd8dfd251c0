"""Products in every number format: cycle mode, wavefront mode, numpy and exact fractions give the same bits."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.number_formats import (
    EVERY_FORMAT,
    assert_same,
    drawn_operand,
    fields,
    finite_operand,
    format_cases,
    formats,
    name_of,
    reference_of,
    type_of,
)  # fmt: skip
from support.strategies import examples, seeds
from systolic import ArrayConfig, Gemm, conv2d, estimate, matmul
from systolic.dataflows import DATAFLOWS
from systolic.engine.products import MODES
from systolic.formats import FORMATS, Format, format_of
from systolic.lowered import lower_matmul
from systolic.machine import in_order as in_order_room
from systolic.machine import run_wavefront
from systolic.reference import Numbers
from systolic.tiling import sizes_of


def in_order(x: np.ndarray, w: np.ndarray, step: int) -> np.ndarray:
    """The oracle of floats in numpy: sequential, float32, one rounding for each addition."""
    x, w = x.astype(np.float32), w.astype(np.float32)
    total = np.zeros((len(x), w.shape[1]), np.float32)
    for start in range(0, w.shape[0], step):
        part = np.zeros_like(total)
        for k in range(start, min(start + step, w.shape[0])):
            part = part + x[:, k, None] * w[k]  # the products of these formats are exact
        total = total + part if start else part
    return total + np.float32(0)


def check_product(x: np.ndarray, w: np.ndarray, config: ArrayConfig) -> None:
    """Both modes of a product equal the reference, and count what the closed form says."""
    gemm = Gemm(x.shape[0], x.shape[1], w.shape[1])
    typed = config.for_operands(x.dtype, w.dtype)
    step = sizes_of(gemm, typed).k_step
    expected = np.zeros((gemm.m, gemm.n))
    if gemm.k:
        expected = reference_of(typed.format).product(x.astype(float).tolist(), w.astype(float).tolist(), step)
    for mode in MODES:
        result = matmul(x, w, array=config, mode=mode)
        assert result.acc.dtype == typed.format.sum
        assert_same(result.acc, expected)
        assert result.stats == estimate(gemm, machine=typed)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("numbers", format_cases())
def test_products_in_each_format(numbers: Format, dataflow: str) -> None:
    rng = np.random.default_rng(3)
    config = ArrayConfig(3, 4, dataflow=dataflow, accumulator_rows=4, **fields(numbers))
    shapes = (numbers.activation, (5, 8)), (numbers.weight, (8, 5))
    check_product(*(drawn_operand(rng, *each) for each in shapes), config)
    check_product(*(finite_operand(rng, *each) for each in shapes), config)


@pytest.mark.slow
@examples(150)
@given(
    formats(), st.sampled_from(list(DATAFLOWS)), st.booleans(), st.integers(0, 9), st.integers(0, 12),
    st.integers(0, 20), st.integers(1, 5), st.integers(1, 18), seeds,
)  # fmt: skip
def test_products_of_any_shape(
    numbers: Format, dataflow: str, double: bool, m: int, k: int, n: int, rows: int, cols: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    config = ArrayConfig(
        rows, cols, dataflow=dataflow, double_buffered=double, accumulator_rows=[None, 2, 6][seed % 3], **fields(numbers)
    )
    draw = finite_operand if seed % 2 else drawn_operand
    check_product(draw(rng, numbers.activation, (m, k)), draw(rng, numbers.weight, (k, n)), config)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("numbers", [f for f in FORMATS.values() if f.is_float], ids=name_of)
def test_floats_are_added_in_order(numbers: Format, dataflow: str) -> None:
    rng = np.random.default_rng(5)
    scale = 2.0 ** rng.integers(-4, 5, 150)  # so wide that sums are rounded
    x = (rng.standard_normal((33, 150)) * scale).astype(type_of(numbers.activation))
    w = (rng.standard_normal((150, 40)) * scale[:, None]).astype(type_of(numbers.weight))
    expected = in_order(x, w, 150 if dataflow == "output_stationary" else 32)
    for mode in MODES:
        assert_same(matmul(x, w, array=ArrayConfig(32, 32, dataflow=dataflow), mode=mode).acc, expected)
    backwards = in_order(x[:, ::-1], w[::-1], 150)
    assert (expected != backwards).any(), "the order of additions must matter"


def test_sums_of_floats_beyond_their_range() -> None:
    """Infinity, cancellation and a sum that the order of additions decides."""
    one = np.ones((3, 1), ml_dtypes.bfloat16)
    large = ml_dtypes.finfo(ml_dtypes.bfloat16).max
    x = np.array([[large, large, -large]]).astype(ml_dtypes.bfloat16)
    for mode in MODES:
        in_one_tile = matmul(x, one, array=ArrayConfig(4, 1), mode=mode)
        assert in_one_tile.acc.tolist() == [[np.inf]]
        tiles = matmul(x[:, [0, 2, 1]], one, array=ArrayConfig(1, 1), mode=mode)
        assert tiles.acc.tolist() == [[float(large)]]
        tiny = matmul(np.array([[1e-30, 2]]).astype(ml_dtypes.bfloat16), np.array([[-1e-30], [0]]).astype(ml_dtypes.bfloat16),
                      array=ArrayConfig(1, 1), mode=mode)  # fmt: skip
        assert_same(tiny.acc, np.zeros((1, 1), np.float32))


@pytest.mark.parametrize("numbers", EVERY_FORMAT[::3], ids=name_of)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_convolutions(numbers: Format, layout: str) -> None:
    rng = np.random.default_rng(11)
    x = finite_operand(rng, numbers.activation, (2, 4, 5, 6))
    w = finite_operand(rng, numbers.weight, (6, 2, 3, 2))
    zero = 0 if numbers.is_float else 3
    config = ArrayConfig(5, 4, accumulator_rows=14, **fields(numbers))
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (2, 1)), constant_values=np.array(zero).astype(x.dtype))
    patches = np.stack([
        padded[:, :, i : i + 3, j : j + 3 : 2] for i in range(0, 5, 2) for j in range(0, 7)
    ], axis=1)  # fmt: skip
    groups = patches.reshape(2, 21, 2, 12).transpose(2, 0, 1, 3).reshape(2, 42, 12)
    expected = np.stack([
        reference_of(numbers).product(
            groups[g].astype(float).tolist(), w[3 * g : 3 * g + 3].reshape(3, 12).T.astype(float).tolist(), 5
        )
        for g in range(2)
    ])  # fmt: skip
    expected = expected.reshape(2, 2, 3, 7, 3).transpose(1, 0, 4, 2, 3).reshape(2, 6, 3, 7)
    if layout == "NHWC":
        x, expected = x.transpose(0, 2, 3, 1), expected.transpose(0, 2, 3, 1)
    for mode in MODES:
        got = conv2d(x, w, stride=(2, 1), dilation=(1, 2), padding=((1, 1), (2, 1)), groups=2, layout=layout,
                     x_zero_point=zero, array=config, mode=mode)  # fmt: skip
        assert_same(got.acc, expected)


@pytest.mark.parametrize("numbers", EVERY_FORMAT[::5], ids=name_of)
def test_pieces_and_threads_change_nothing(numbers: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(12)
    config = ArrayConfig(6, 5, **fields(numbers))
    x, w = drawn_operand(rng, numbers.activation, (2, 40, 30)), drawn_operand(rng, numbers.weight, (2, 30, 50))
    images, kernels = drawn_operand(rng, numbers.activation, (2, 4, 9, 8)), drawn_operand(rng, numbers.weight, (6, 2, 3, 2))

    def results(threads: int) -> list[np.ndarray]:
        turned = (values.swapaxes(1, 2).copy().swapaxes(1, 2) for values in (x, w))
        pairs = (x, w), tuple(turned), (x, w[0])
        sums = [run_wavefront(lower_matmul(*pair), config, workers=threads).output for pair in pairs]
        for layout, each in (("NCHW", images), ("NHWC", images.transpose(0, 2, 3, 1))):
            result = conv2d(each, kernels, groups=2, padding=1, layout=layout, array=config, mode="wavefront", threads=threads)
            sums.append(result.acc)
        return sums

    expected = results(1)
    monkeypatch.setattr(in_order_room, "_PIECE_WORK", 5000)
    monkeypatch.setattr(in_order_room, "_WORTH_A_THREAD", 0)
    for threads in (1, 2, 3):
        for got, whole in zip(results(threads), expected, strict=True):
            assert_same(got, whole)


@pytest.mark.parametrize("n", [1, 300])
def test_progress_is_reported(n: int) -> None:
    x = np.ones((300, 2000), np.float16)
    told: list[tuple[int, int]] = []
    matmul(x, x[:n].T, array=ArrayConfig(8, 8), mode="wavefront", progress=lambda *done: told.append(done))
    assert told[-1] == (300 * n, 300 * n)
    assert told == sorted(told)


def test_operands_that_lie_at_odd_addresses() -> None:
    def moved(values: np.ndarray) -> np.ndarray:
        room = np.zeros(values.nbytes + 1, np.uint8)[1:].view(values.dtype).reshape(values.shape)
        room[...] = values
        assert not room.flags.aligned
        return room

    rng = np.random.default_rng(13)
    x, w = (finite_operand(rng, "bfloat16", shape) for shape in ((5, 7), (7, 3)))
    image, kernel = (finite_operand(rng, "bfloat16", shape) for shape in ((1, 2, 5, 5), (3, 2, 2, 2)))
    for mode in MODES:
        assert_same(matmul(moved(x), moved(w), mode=mode).acc, matmul(x, w, mode=mode).acc)
        assert_same(conv2d(moved(image), moved(kernel), mode=mode).acc, conv2d(image, kernel, mode=mode).acc)


def test_bytes_are_counted_packed() -> None:
    int4 = np.ones((3, 5), ml_dtypes.int4)
    stats = matmul(np.ones((1, 3), np.int8), int4, array=ArrayConfig(4, 4, psum_bits=20)).stats
    assert (stats.weight_bytes, stats.activation_bytes, stats.output_bytes) == (8, 6, 15)
    half = np.ones((3, 5), np.float16)
    stats = matmul(half, half.T, array=ArrayConfig(8, 8)).stats
    assert (stats.weight_bytes, stats.activation_bytes, stats.output_bytes) == (30, 30, 36)


def test_accumulators_add_as_the_format_says() -> None:
    rng = np.random.default_rng(0)
    for numbers in EVERY_FORMAT:
        if numbers.is_float:
            continue
        low, high = numbers.sum_limits
        a, b = (rng.choice(np.array([low, low + 1, -1, 0, 1, high]), 50).astype(numbers.sum) for _ in range(2))
        expected = [reference_of(numbers).accumulate(int(s), int(t)) for s, t in zip(a, b, strict=True)]
        numbers.accumulate(a, b)
        assert a.tolist() == expected


def test_float32_agrees_with_numpy() -> None:
    """The reference's rounding, of fractions, is numpy's of one operation."""
    rng = np.random.default_rng(1)
    numbers = Numbers(floats=True)
    values = (rng.standard_normal(500) * 2.0 ** rng.integers(-149, 128, 500)).astype(np.float32)
    with np.errstate(all="ignore"):
        sums, products = values[:-1] + values[1:], values[:-1] * values[1:]
    for a, b, total, product in zip(values[:-1], values[1:], sums, products, strict=True):
        assert_same(np.float64(numbers.add(float(a), float(b), 1.0)), total + np.float32(0))
        assert_same(np.float64(numbers.add(0.0, float(a), float(b))), product + np.float32(0))


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"])
def test_encodings_have_a_second_opinion(name: str) -> None:
    """gfloat decodes every code to the same number, and rounds to the same code."""
    gfloat = pytest.importorskip("gfloat")
    formats: Any = pytest.importorskip("gfloat.formats")
    info = {
        "bfloat16": "format_info_bfloat16", "float16": "format_info_binary16",
        "float8_e4m3fn": "format_info_ocp_e4m3", "float8_e5m2": "format_info_ocp_e5m2",
    }  # fmt: skip
    known, bits = getattr(formats, info[name]), 8 * type_of(name).itemsize
    codes = np.arange(2**bits, dtype=f"uint{bits}")[:: 1 if bits == 8 else 7]
    with np.errstate(invalid="ignore"):  # signaling NaN
        values = codes.view(type_of(name)).astype(np.float64)
    assert_same(values, np.array([gfloat.decode_float(known, int(code)).fval for code in codes]))
    between = np.linspace(0.9, 1.1, 41) * np.exp2(np.arange(-9, 8))[:, None]
    for value in between.ravel():
        assert float(np.float64(value).astype(type_of(name))) == gfloat.round_float(known, value)


def test_what_a_format_says() -> None:
    assert format_of("int8", "int4").text == "int8 x int4, sums of 32 bits that wrap"
    assert format_of("float8_e5m2", "float8_e4m3fn").text == "float8_e5m2 x float8_e4m3fn, float32 sums"
