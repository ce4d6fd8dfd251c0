"""Lowered work: what an epilogue says, by its formula in Python numbers, and that both modes do it."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.strategies import codes, dtypes, examples, limits, seeds, sign_mixes, sums, wrap32
from systolic import ArrayConfig, Gemm, QuantParams, requantize
from systolic.layers import Conv2d, Dense, MatMulInteger, QLinearConv
from systolic.layers.conv import lower_conv2d
from systolic.lowered import RAW, Epilogue, Lowered, Patches, lower_matmul, matmul_gemm
from systolic.machine import run_cycles, run_wavefront

ARRAY = ArrayConfig(5, 6, accumulator_rows=14)
F = np.float32
ONE = QuantParams(1.0)


def both(lowered: Lowered) -> np.ndarray:
    """The output, the same in both modes."""
    y = run_cycles(lowered, ARRAY).output
    other = run_wavefront(lowered, ARRAY).output
    assert y.dtype == other.dtype
    np.testing.assert_array_equal(y, other)
    return y


@st.composite
def terms(draw: st.DrawFn):
    """A product of matrices or of a stack, or a convolution, and integer terms of an epilogue for it."""
    rng = np.random.default_rng(draw(seeds))
    kind = draw(st.sampled_from(["matrix", "stack", "NCHW", "NHWC"]))
    types = draw(sign_mixes)
    if kind in ("matrix", "stack"):
        m, k, n = rng.integers(1, 9, 3).tolist()
        stack = [] if kind == "matrix" else [2, 3]
        x, w = codes(rng, (*stack, m, k), types[0]), codes(rng, (*stack, k, n), types[1])
        lowered, channels = lower_matmul(x, w), n
        per_matrix, per_row = (*stack, 1, n), (*stack, m, 1)
    else:
        groups, icg, ocg = rng.integers(1, 4, 3).tolist()
        shape = (2, groups * icg, 5, 4) if kind == "NCHW" else (2, 5, 4, groups * icg)
        lowered = lower_conv2d(
            codes(rng, shape, types[0]), codes(rng, (groups * ocg, icg, 2, 3), types[1]), stride=(2, 1),
            padding=1, dilation=1, groups=groups, layout=kind, pad_value=1,
        )  # fmt: skip
        channels, per_matrix, per_row = groups * ocg, (groups * ocg,), ()

    def some(shape: Any, low: int = -128, high: int = 255) -> np.ndarray:
        return rng.integers(low, high, shape).astype(np.int32)

    return rng, lowered, {
        "constant": draw(st.sampled_from([None, sums(rng, ()), sums(rng, (channels,)), sums(rng, per_matrix)])),
        "x_zero": draw(st.sampled_from([None, some(()), some(per_row)])),
        "w_zero": draw(st.sampled_from([None, some(()), some((channels,)), some(per_matrix)])),
    }  # fmt: skip


def spread(values: np.ndarray | None, lowered: Lowered) -> np.ndarray | int:
    """An epilogue's term, to broadcast against the accumulators."""
    if values is None:
        return 0
    wide = values.astype(np.int64) if values.dtype.kind == "i" else values
    return wide[:, None, None] if values.ndim == 1 and lowered.channel_axis == 1 else wide


def totals(lowered: Lowered, given: dict[str, Any]) -> np.ndarray:
    """The formula of the epilogue's docstring: row and column sums are products with ones."""
    x_ones = (
        lowered.x._replace(images=np.ones_like(lowered.x.images), pad_value=1)
        if isinstance(lowered.x, Patches)
        else np.ones_like(lowered.x)
    )
    raw = lowered._replace(epilogue=RAW)
    acc, rows, columns = (
        run_wavefront(raw._replace(**change), ARRAY).output.astype(np.int64)
        for change in ({}, {"w": np.ones_like(lowered.w)}, {"x": x_ones})
    )
    constant, zx, zw = (spread(given[name], lowered) for name in ("constant", "x_zero", "w_zero"))
    return wrap32(acc + constant - rows * zw - columns * zx + lowered.gemm.k * np.int64(1) * zx * zw)


@examples(60)
@given(terms())
def test_integers(case: Any) -> None:
    _, lowered, given = case
    np.testing.assert_array_equal(both(lowered._replace(epilogue=Epilogue(**given))), totals(lowered, given))


@pytest.mark.slow
@examples(60)
@given(terms(), dtypes, st.sampled_from(["half_even", "tflite", "tflite_single", "gemmini"]))
def test_codes(case: Any, dtype: str, rounding: str) -> None:
    rng, lowered, given = case
    channels = lowered.gemm.groups * lowered.gemm.n if isinstance(lowered.x, Patches) else lowered.gemm.n
    scale = rng.choice([0.5, 0.25, 0.1, 1e-3, 3e-8], rng.choice([0, channels]) or ()).astype(F)
    zero = int(rng.integers(*limits(dtype)))
    y = both(
        lowered._replace(
            epilogue=Epilogue(**given, scale=scale, zero_point=zero, dtype=dtype, rounding=rounding)
        )
    )
    expected = requantize(
        totals(lowered, given), scale, zero, dtype=dtype, rounding=rounding, axis=lowered.channel_axis
    )
    np.testing.assert_array_equal(y, expected)


@pytest.mark.slow
@examples(40)
@given(terms())
def test_real_numbers(case: Any) -> None:
    rng, lowered, given = case
    channels = lowered.gemm.groups * lowered.gemm.n if isinstance(lowered.x, Patches) else lowered.gemm.n
    scale, late = (rng.choice(F([0.1, -3, 0, np.nan, np.inf, 1e38]), channels) for _ in range(2))
    bias = rng.choice(F([0.1, np.nan, -np.inf]), channels)
    epilogue = Epilogue(**given, scale=scale, late_scale=late, float_bias=bias, dtype="float32")
    with np.errstate(all="ignore"):
        expected = totals(lowered, given).astype(F) * spread(scale, lowered)
        expected = (expected * spread(late, lowered)).astype(F) + spread(bias, lowered)
    np.testing.assert_array_equal(both(lowered._replace(epilogue=epilogue)), expected)


def test_scales_of_each_matrix() -> None:
    rng = np.random.default_rng(0)
    x, w = codes(rng, (2, 3, 4, 5), "int8"), codes(rng, (2, 3, 5, 6), "uint8")
    scale = rng.random((2, 1, 1, 6)).astype(F)
    acc = wrap32(x.astype(np.int64) @ w.astype(np.int64))
    y = both(lower_matmul(x, w, Epilogue(scale=scale, dtype="float32")))
    np.testing.assert_array_equal(y, acc.astype(F) * scale)
    y = both(lower_matmul(x, w, Epilogue(scale=scale, dtype="int8", zero_point=3)))
    expected = np.clip(np.rint(acc.astype(F) * scale), -131, 124) + 3
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf, -1.0, 0.0])
def test_scales_that_are_no_scales(dtype: str, scale: float) -> None:
    """As in ONNX Runtime: NaN becomes the lowest code; a fused convolution does as a product does."""
    x, w = np.int8([[1], [0], [-1]]), np.int8([[100]])
    low, high = limits(dtype)
    epilogue = Epilogue(scale=np.full(1, scale, F), dtype=dtype, zero_point=low + 7)
    y = both(lower_matmul(x, w, epilogue))
    image = both(lower_conv2d(
        x.reshape(1, 1, 3, 1), w.reshape(1, 1, 1, 1), stride=1, padding=0, dilation=1, groups=1, layout="NCHW",
        pad_value=0,
    )._replace(epilogue=epilogue))  # fmt: skip
    np.testing.assert_array_equal(image.ravel(), y.ravel())
    end = {1: high, 0: low + 7, -1: low}
    with np.errstate(invalid="ignore"):
        products = F([100, 0, -100]) * F(scale)
    expected = [low if np.isnan(v) else end[int(np.sign(v))] for v in products]
    if scale == -1.0:
        expected[0], expected[2] = low, low + 107
    assert y.ravel().tolist() == expected


# What follows the scale


@pytest.mark.parametrize("kind", ["dense", "convolution"])
def test_clamp_and_table(kind: str) -> None:
    rng = np.random.default_rng(1)
    one, y = QuantParams(1.0), QuantParams(100.0, 5)
    if kind == "dense":
        lowered = Dense(codes(rng, (6, 7), "int8"), x=one, w=one, y=y).lower(codes(rng, (9, 6), "int8"))
    else:
        layer = Conv2d(codes(rng, (7, 6, 3, 3), "int8"), x=one, w=one, y=y)
        lowered = layer.lower(codes(rng, (2, 6, 5, 5), "int8"))
    plain = both(lowered)
    assert plain.min() < -20 and plain.max() > 30
    limited = both(lowered._replace(epilogue=lowered.epilogue._replace(clamp=(-20, 30))))
    np.testing.assert_array_equal(limited, np.clip(plain, -20, 30))
    table = rng.permutation(256).astype(np.uint8).view(np.int8)
    mapped = both(lowered._replace(epilogue=lowered.epilogue._replace(table=table)))
    assert mapped.shape == plain.shape
    assert mapped.ravel().tolist() == [table[code % 256] for code in plain.ravel().tolist()]
    some = both(lowered._replace(epilogue=lowered.epilogue._replace(clamp=(-20, 30), table=table)))
    np.testing.assert_array_equal(some.ravel(), [table[code % 256] for code in limited.ravel().tolist()])


def test_table_of_unsigned_codes() -> None:
    epilogue = Epilogue(scale=np.ones(1, F), dtype="uint8", table=np.arange(255, -1, -1, dtype=np.uint8))
    assert both(lower_matmul(np.uint8([[0], [1], [255]]), np.int8([[1]]), epilogue)).ravel().tolist() == [
        255,
        254,
        0,
    ]


# As data


def test_what_layers_lower_to() -> None:
    one = QuantParams(1.0)
    rng = np.random.default_rng(2)
    weight = codes(rng, (6, 3), "int8")
    x = codes(rng, (2, 4, 6), "int8")
    dense = Dense(
        weight, x=QuantParams(0.5, 3), w=QuantParams(0.25, -2), y=one, bias=np.int32([1, 2, 3])
    ).lower(x)
    assert dense.gemm == Gemm(8, 6, 3) and dense.epilogue.shape == (2, 4, 3)
    expected = np.int32([1, 2, 3]) - 3 * weight.sum(axis=0, dtype=np.int32) + 6 * 3 * -2
    np.testing.assert_array_equal(dense.epilogue.constant, expected)
    assert dense.epilogue.x_zero is None and dense.epilogue.w_zero.tolist() == [-2] * 3  # type: ignore[union-attr]
    np.testing.assert_array_equal(dense.epilogue.scale, F([0.125] * 3))
    volume = QLinearConv(codes(rng, (4, 2, 2, 2, 2), "int8"), x=one, w=one, y=None).lower(
        codes(rng, (1, 2, 5, 3, 3), "int8")
    )
    assert isinstance(volume.x, Patches) and volume.x.images.shape == (4, 4, 3, 3)
    assert (volume.epilogue.planes, volume.epilogue.shape) == (4, (1, 4, 4, 2, 2))
    vector = MatMulInteger().lower(weight[0], weight.T, np.int8(0), np.int8([0, 1, 0, 0, 0, 2]))
    assert vector.epilogue.shape == (6,) and vector.epilogue.x_zero is None
    assert vector.epilogue.w_zero.tolist() == [0, 1, 0, 0, 0, 2]  # type: ignore[union-attr]


def test_lowered_work_is_a_value() -> None:
    layer = Conv2d(
        np.ones((2, 3, 2, 2), np.int8), x=QuantParams(1.0, 4), w=QuantParams(1.0), y=QuantParams(2.0)
    )
    lowered = layer.lower(np.ones((1, 3, 4, 4), np.int8))
    expected = both(lowered)
    for same in (copy.deepcopy(lowered), pickle.loads(pickle.dumps(lowered))):
        assert same == lowered == layer.lower(np.ones((1, 3, 4, 4), np.int8))
        np.testing.assert_array_equal(both(same), expected)
    assert lowered != layer.lower(np.zeros((1, 3, 4, 4), np.int8)) and lowered != lowered._replace(
        epilogue=RAW
    )
    with pytest.raises(AttributeError):
        lowered.gemm = None  # type: ignore[misc, assignment]
    raw = pickle.loads(pickle.dumps(lowered._replace(epilogue=RAW)))
    assert both(raw).dtype == np.int32


def test_unequal_is_the_opposite_of_equal() -> None:
    constant = np.arange(3, dtype=np.int32)
    for a, b in (
        (Epilogue(constant=constant), Epilogue(constant=constant.copy())),
        (Epilogue(scale=np.float32(np.nan)), Epilogue(scale=np.float32(np.nan))),
        (Epilogue(constant=constant), Epilogue(constant=constant.astype(np.int64))),
    ):
        assert (a == b) is not (a != b)
    layer = Dense(np.eye(3, dtype=np.int8), x=ONE, w=ONE, y=ONE)
    x = np.ones((2, 3), np.int8)
    assert layer.lower(x) == layer.lower(x.copy()) != layer.lower(x + x)


def test_layers_hand_out_read_only_arrays() -> None:
    e = Dense(np.eye(3, dtype=np.int8), x=ONE, w=QuantParams(1.0, 3), y=ONE).lower(np.ones((2, 3), np.int8)).epilogue
    for values in (e.constant, e.scale, e.w_zero):
        assert values is not None and not values.flags.writeable


def test_operands_must_fit() -> None:
    with pytest.raises(ValueError, match=r"x and w must share K, but x is \(4, 3\) and w is \(7, 2\)"):
        lower_matmul(np.ones((4, 3), np.int8), np.ones((7, 2), np.int8))
    bad = Epilogue(scale=np.float32([1, 1]), late_scale=np.float32([1, 1]), dtype="int8")
    images = lower_conv2d(
        np.ones((1, 1, 3, 3), np.int8), np.ones((2, 1, 1, 1), np.int8),
        stride=1, padding=0, dilation=1, groups=1, layout="NCHW", pad_value=0,
    )  # fmt: skip
    for lowered in (lower_matmul(np.ones((4, 3), np.int8), np.ones((3, 2), np.int8)), images):
        for door in (run_cycles, run_wavefront):
            with pytest.raises(ValueError, match="late_scale and float_bias are for dtype 'float32', not 'int8'"):
                door(lowered._replace(epilogue=bad), ARRAY)


def test_sizes_without_operands() -> None:
    assert matmul_gemm((2, 1, 4, 3), (7, 3, 5)) == Gemm(4, 3, 5, groups=14)
