"""The numpy oracle against stored values, Python integers, scipy and exact fractions."""

from __future__ import annotations

import functools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import signal

from support.oracle_cases import (
    DTYPES,
    NEAR_TIE,
    NEAR_TIE_SHAPES,
    convolutions,
    draw_codes,
    dtypes,
    fine,
    fine_cases,
    fixed,
    many,
    oracle,
    oracle_add,
    oracle_conv,
    oracle_matmul,
    oracle_pool,
    poolings,
    same,
    scales,
    seeds,
    sums,
    zero_points,
)
from systolic import QuantParams, layers, reference
from systolic.reference.oracle import matmul
from systolic.reference.oracle._numbers import fma, half_even, wrap_int32


def wrapped(value: int) -> int:
    return (value + 2**31) % 2**32 - 2**31


# Stored values


@pytest.mark.parametrize(
    ("acc", "multiplier", "zero_point", "expected"),
    [
        (range(-5, 6), 0.5, np.int8(0), [-2, -2, -2, -1, 0, 0, 0, 1, 2, 2, 2]),
        (range(-5, 6), 0.5, np.int8(3), [1, 1, 1, 2, 3, 3, 3, 4, 5, 5, 5]),
        (range(-5, 6), 0.5, np.uint8(128), [126, 126, 126, 127, 128, 128, 128, 129, 130, 130, 130]),
        ([-5, -3, -1, 1, 3], 0.5, np.int8(127), [125, 125, 127, 127, 127]),
        ([1, 5, 9], 0.25, np.int8(0), [0, 1, 2]),
        ([10922], float.fromhex("0x1.f207c8p-9"), np.int8(0), [42]),
        # 33554433 becomes 33554432.0 before it is scaled: 0.5 is a tie, a little more is not.
        ([33554433, 33554434, 33554436], 2.0**-26, np.int8(0), [0, 0, 1]),
        ([-(2**31), 2**31 - 1], 1.0, np.int8(-7), [-128, 127]),
        ([-(2**31), 2**31 - 1], 1.0, np.uint8(200), [0, 255]),
    ],
)
def test_requantize_values(acc, multiplier, zero_point, expected):
    got = half_even(np.float32(acc) * np.float32(multiplier), zero_point, zero_point.dtype)
    same(got, np.array(expected, zero_point.dtype))


@pytest.mark.parametrize(
    ("acc", "x_scale", "w_scale", "y_scale", "expected"),
    [((39, 39), 0.02, 0.12902696, 0.05, 79), ((58, 75), 0.02, 0.016954023, 0.05, 30)],
)
def test_multiplier_is_rounded_in_this_order(acc, x_scale, w_scale, y_scale, expected):
    a, b = np.int8([[acc[0]]]), np.int8([[acc[1]]])
    got = oracle_matmul(a, x_scale, 0, b, w_scale, 0, y_scale, np.int8(0))
    same(got, np.int8([[expected]]))
    images, kernels = a.reshape(1, 1, 1, 1), b.reshape(1, 1, 1, 1)
    got = oracle_conv(images, x_scale, 0, kernels, w_scale, 0, y_scale, np.int8(0))
    same(got, np.int8([[[[expected]]]]))


def test_matmul_wraps():
    ones = np.full((1, 70000), 255, np.uint8)
    same(matmul(ones, ones.T), np.int32([[256_782_704]]))
    same(oracle("MatMulInteger", ones, ones.T, 0, 0), np.int32([[256_782_704]]))
    flat = ones.reshape(1, 70, 1, 1000)
    same(sums(flat, flat), np.int32([[[[256_782_704]]]]))


def test_matmul_of_a_long_contraction():
    x = np.full((2, 200_001), -128, np.int8)
    x[1] = 127
    w = np.full((200_001, 1), -128, np.int8)
    expected = [[wrapped(200_001 * 128 * 128)], [wrapped(-200_001 * 127 * 128)]]
    same(matmul(x, w), np.array(expected, np.int32))


def test_bias_wraps():
    a, bias = np.int8([[127]]), np.int32([2**31 - 1])
    real = oracle_matmul(a, 1.0, 0, a, 1.0, 0, None, None, bias)
    same(real, np.float32([[-2147467520.0]]))
    same(oracle_matmul(a, 1.0, 0, a, 1.0, 0, 1.0, np.int8(0), bias), np.int8([[-128]]))
    image = a.reshape(1, 1, 1, 1)
    same(oracle_conv(image, 1.0, 0, image, 1.0, 0, None, None, bias), real.reshape(1, 1, 1, 1))


@pytest.mark.parametrize(
    ("zero_point", "expected"),
    [
        (np.int8(0), [-2, -2, 0, 0, 2, 2, 126, 127]),
        (np.int8(3), [1, 1, 3, 3, 5, 5, 127, 127]),
        (np.uint8(128), [126, 126, 128, 128, 130, 130, 254, 255]),
    ],
)
def test_quantize_values(zero_point, expected):
    x = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 126.5, 127.5]
    same(oracle("QuantizeLinear", x, 1.0, zero_point, dtype=zero_point.dtype), np.array(expected, zero_point.dtype))


def test_quantize_extremes():
    x = np.float32([np.inf, 1e9, -np.inf, np.nan, 3e38])
    same(oracle("QuantizeLinear", x, 1.0, 0, dtype="int8"), np.int8([127, 127, -128, -128, 127]))
    same(oracle("QuantizeLinear", x, 1e-30, 7, dtype="uint8"), np.uint8([255, 255, 0, 0, 255]))
    same(oracle("QuantizeLinear", x, 1.0, 0, dtype="int32")[:3], np.int32([2**31 - 1, 10**9, -(2**31)]))


def test_dequantize_rounds_int32_first():
    same(oracle("DequantizeLinear", np.int32([16777217]), 0.1, dtype="float32"), np.float32([1677721.6]))


def test_scales_per_axis():
    q = np.int8([[[1, 2]], [[3, 4]]])
    real = oracle("DequantizeLinear", q, [0.5, 2.0], [1, 3], axis=0, dtype="float32")
    same(real, np.float32([[[0, 0.5]], [[0, 2]]]))
    same(oracle("QuantizeLinear", real, [0.5, 2.0], [1, 3], dtype="int8"), q)
    real = oracle("DequantizeLinear", q, [0.5, 2.0], [1, 3], axis=-1, dtype="float32")
    same(real, np.float32([[[0, -2]], [[1, 2]]]))


@pytest.mark.parametrize(("zero_point", "expected"), [(0, [0, 0, 1, 2, 2, 2]), (1, [1, 2, 2, 2, 3, 4])])
@pytest.mark.parametrize("dtype", DTYPES)
def test_add_rounds_after_the_zero_point(dtype, zero_point, expected):
    zero = np.dtype(dtype).type(zero_point)
    a, b = np.arange(6, dtype=dtype), np.zeros(6, dtype)
    same(oracle_add(a, 0.5, 0, b, 0.5, 0, 1.0, zero), np.array(expected, dtype))


@pytest.mark.parametrize(("a_shape", "b_shape", "expected"), NEAR_TIE_SHAPES)
def test_add_is_fused_and_swaps(a_shape, b_shape, expected):
    (a, *a_params), (b, *b_params), y_params = NEAR_TIE
    a, b = np.full(a_shape, a, np.int8), np.full(b_shape, b, np.int8)
    got = oracle_add(a, *a_params, b, *b_params, *y_params)
    same(got, np.full(np.broadcast_shapes(a_shape, b_shape), expected, np.int8))


@pytest.mark.parametrize(("zero_point", "expected"), [(0, [0, 2, 2, 2]), (1, [1, 3, 3, 3])])
@pytest.mark.parametrize("dtype", DTYPES)
def test_global_average_pool_rounds_before_the_zero_point(dtype, zero_point, expected):
    x = np.array([[0, 1], [1, 2], [2, 3], [1, 4]], dtype).reshape(1, 4, 1, 2)
    zero = np.dtype(dtype).type(zero_point)
    expected = np.array(expected, dtype).reshape(1, 4, 1, 1)
    same(oracle_pool("QLinearGlobalAveragePool", x, 1.0, 0, 1.0, zero), expected)
    same(oracle_pool("QLinearAveragePool", x, 1.0, 0, 1.0, zero, kernel=(1, 2)), expected)


@pytest.mark.parametrize(("zero_point", "expected"), [(0, [0, 2, 2, 2]), (1, [2, 2, 4, 4])])
@pytest.mark.parametrize("dtype", DTYPES)
def test_average_pool_rounds_after_the_zero_point(dtype, zero_point, expected):
    x = np.array([0, 1, 1, 2, 2, 3, 1, 4], dtype).reshape(1, 1, 1, 8)
    zero = np.dtype(dtype).type(zero_point)
    got = oracle_pool("QLinearAveragePool", x, 1.0, 0, 1.0, zero, kernel=(1, 2), stride=(1, 2))
    same(got, np.array(expected, dtype).reshape(1, 1, 1, 4))


def test_relu():
    same(oracle("Relu", np.int8([-128, -4, -3, -2, 127]), zero_point=-3), np.int8([-3, -3, -3, -2, 127]))
    same(oracle("Relu", np.uint8([0, 127, 128, 255]), zero_point=128), np.uint8([128, 128, 128, 255]))
    same(oracle("Relu", np.float32([-1.5, 0, 2.5]), zero_point=0), np.float32([0, 0, 2.5]))


@pytest.mark.parametrize(("op", "arguments", "window", "expected"), fine_cases())
def test_fine_roundings(op, arguments, window, expected):
    same(fine(op, arguments, window), expected.astype(np.int8))


def test_quantize_divides():
    # -5.451 * f32(1 / 0.046) would give -118.
    same(oracle("QuantizeLinear", [-5.451], 0.046, 0, dtype="int8"), np.int8([-119]))


def test_zero_points_per_row_and_column():
    a, b = np.uint8([[1, 2], [3, 4]]), np.int8([[5, 6], [7, 8]])
    # [[1-1, 2-1], [3-4, 4-4]] x [[5-5, 6-9], [7-5, 8-9]]
    same(oracle("MatMulInteger", a, b, [1, 4], [5, 9]), np.int32([[2, -1], [0, 3]]))


def test_bias_is_added_and_may_be_per_channel():
    a, b = np.int8([[2, 3]]), np.int8([[1, 0], [0, 1]])
    same(
        oracle_matmul(a, 0.5, 0, b, [1, 2], 0, None, None, np.int32([10, -20])),
        np.float32([[6, -17]]),
    )
    got = oracle_conv(a.reshape(1, 2, 1, 1), 0.5, 0, b.reshape(2, 2, 1, 1), [1, 2], 0, 1.0, np.int8(1), np.int32([10, -20])
    )
    same(got, np.int8([[[[7]], [[-16]]]]))


@pytest.mark.parametrize(
    ("pads", "expected"),
    [
        (((0, 0), (0, 0)), [2, 4, 5]),  # a last window over one pixel
        (((0, 0), (0, 1)), [2, 4, 5]),
        (((0, 0), (1, 0)), [1, 3, 5]),
        (((0, 0), (1, 1)), [1, 3, 5]),  # none that would start in the padding at the end
    ],
)
def test_ceil_mode(pads, expected):
    x = np.int8([1, 2, 3, 4, 5]).reshape(1, 1, 1, 5)
    got = oracle("MaxPool", x, kernel=(1, 2), stride=(1, 2), padding=pads, ceil_mode=True)
    same(got.ravel(), np.int8(expected))


def test_max_pool_padding_is_the_minimum():
    x = np.int8([-128, -127, -5]).reshape(1, 1, 1, 3)
    got = oracle("MaxPool", x, kernel=(1, 2), padding=((0, 0), (1, 1)))
    same(got, np.int8([-128, -127, -5, -5]).reshape(1, 1, 1, 4))


def test_what_no_oracle_takes():
    q = np.zeros((2, 3), np.int8)
    with pytest.raises(TypeError, match="^x must hold int8 or uint8, not int32$"):
        matmul(q.astype(np.int32), q)
    with pytest.raises(ValueError, match="^a kernel spanning 3 elements does not fit 2 padded ones$"):
        oracle("MaxPool", q[None, None], kernel=(3, 3))


# Other derivations


@fixed
@given(dtypes, dtypes, st.integers(0, 4), st.integers(0, 1100), st.integers(0, 4), seeds)
@example("int8", "int8", 1, 1024, 1, 0)
@example("uint8", "uint8", 1, 259, 1, 0)
@example("uint8", "int8", 2, 515, 2, 0)
@example("int8", "uint8", 1, 1, 1, 0)
@example("int8", "int8", 3, 0, 2, 0)
@example("int8", "int8", 0, 5, 2, 0)
def test_matmul_is_the_python_integer_product(x_dtype, w_dtype, m, k, n, seed):
    rng = np.random.default_rng(seed)
    x, w = draw_codes(rng, x_dtype, (m, k)), draw_codes(rng, w_dtype, (k, n))
    expected = [
        [wrapped(sum(int(a) * int(b) for a, b in zip(row, w[:, j], strict=True))) for j in range(n)]
        for row in x
    ]
    same(matmul(x, w), np.array(expected, np.int32).reshape(m, n))


@pytest.mark.parametrize("x_dtype", DTYPES)
@pytest.mark.parametrize("w_dtype", DTYPES)
def test_matmul_at_the_limit_of_float32(x_dtype, w_dtype):
    # The largest products, then one that is odd: a block that is too long loses it.
    x_end, w_end = (np.iinfo(d).min or np.iinfo(d).max for d in (x_dtype, w_dtype))
    k = 3 * (2**24 // abs(x_end * w_end)) + 1
    x, w = np.full((1, k), x_end, x_dtype), np.full((k, 1), w_end, w_dtype)
    for odd in (0, k // 2, k - 1):
        x[:], w[:] = x_end, w_end
        x[0, odd] = w[odd, 0] = 1
        same(matmul(x, w), np.array([[wrapped((k - 1) * x_end * w_end + 1)]], np.int32))


def test_matmul_stacks():
    rng = np.random.default_rng(0)
    x, w = draw_codes(rng, "int8", (2, 1, 3, 4)), draw_codes(rng, "uint8", (5, 4, 2))
    same(matmul(x, w), x.astype(np.int32) @ w.astype(np.int32))


@fixed
@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5))
@example([2**31, -(2**31) - 1, 2**32, 2**63 - 1, -(2**63)])
def test_wrap_is_modulo(values):
    expected = np.array([wrapped(v) for v in values], np.int32)
    same(wrap_int32(np.array(values, np.int64)), expected)


def naive_convolution(x, w, pad_value, stride, padding, dilation, groups):
    """Every output pixel by itself, in Python integers."""
    batch, _ic, ih, iw = x.shape
    oc, group_ic, kh, kw = w.shape
    oh = (ih + sum(padding[0]) - (kh - 1) * dilation[0] - 1) // stride[0] + 1
    ow = (iw + sum(padding[1]) - (kw - 1) * dilation[1] - 1) // stride[1] + 1
    out = np.zeros((batch, oc, oh, ow), np.int32)
    for b, o, r, c in np.ndindex(out.shape):
        first = o // (oc // groups) * group_ic
        total = 0
        for i, y, z in np.ndindex(group_ic, kh, kw):
            row, col = (
                r * stride[0] + y * dilation[0] - padding[0][0],
                c * stride[1] + z * dilation[1] - padding[1][0],
            )
            inside = 0 <= row < ih and 0 <= col < iw
            code = int(x[b, first + i, row, col]) if inside else pad_value
            total += code * int(w[o, i, y, z])
        out[b, o, r, c] = wrapped(total)
    return out


@fixed
@given(convolutions(), st.integers(0, 127))
def test_conv2d_is_the_naive_loop(case, pad_value):
    if case.x[0].size * case.w.size > 4000:  # keep the slow loop short
        case.x, case.w = case.x[:1], case.w
    expected = naive_convolution(case.x, case.w, pad_value, **case.geometry)
    same(sums(case.x, case.w, pad_value=pad_value, **case.geometry), expected)
    nhwc = sums(
        case.x.transpose(0, 2, 3, 1), case.w, pad_value=pad_value, layout="NHWC", **case.geometry
    )
    same(nhwc, np.ascontiguousarray(expected.transpose(0, 2, 3, 1)))


@fixed
@given(convolutions(), st.integers(0, 127))
def test_conv2d_is_scipys_correlation(case, pad_value):
    (sh, sw), (dh, dw) = case.geometry["stride"], case.geometry["dilation"]
    groups = case.geometry["groups"]
    oc, group_ic, kh, kw = case.w.shape
    spread = np.zeros((oc, group_ic, (kh - 1) * dh + 1, (kw - 1) * dw + 1), np.int64)
    spread[:, :, ::dh, ::dw] = case.w
    padded = np.pad(
        case.x.astype(np.int64), ((0, 0), (0, 0), *case.geometry["padding"]), constant_values=pad_value
    )
    expected = []
    for image in padded:
        for o in range(oc):
            first = o // (oc // groups) * group_ic
            block = image[first : first + group_ic]
            expected.append(signal.correlate(block, spread[o], "valid", "direct")[0, ::sh, ::sw])
    ours = sums(case.x, case.w, pad_value=pad_value, **case.geometry)
    same(ours, np.reshape(expected, ours.shape).astype(np.int32))


@pytest.mark.parametrize("dtype", DTYPES)
def test_conv2d_beyond_float32(dtype):
    # 16 channels of 9 x 9 products of the largest codes, one odd: above 2^24.
    end = np.iinfo(dtype).min or np.iinfo(dtype).max
    x, w = np.full((1, 16, 9, 9), end, dtype), np.full((2, 16, 9, 9), end, dtype)
    x[0, 3, 4, 5] = w[1, 3, 4, 5] = 1
    full = 16 * 81 * end * end
    expected = np.array([full - end * end + end, full - end * end + 1], np.int32).reshape(1, 2, 1, 1)
    same(sums(x, w), expected)


@fixed
@given(convolutions(), st.data())
def test_conv_integer_expands(case, data):
    zx = data.draw(zero_points(case.x.dtype.name))
    zw = draw_codes(case.rng, case.w.dtype.name, (case.w.shape[0],))
    ours = oracle("ConvInteger", case.x, case.w, zx, zw, **case.geometry)
    # sum (x - zx)(w - zw) = sum x*w - zw * sum x - zx * sum w + n*zx*zw, padded with the code zx
    raw = functools.partial(sums, case.x, pad_value=int(zx), **case.geometry)
    ones = np.ones_like(case.w)
    column = (1, -1, 1, 1)
    z = zw.astype(np.int64).reshape(column)
    sums_w = case.w.sum(axis=(1, 2, 3), dtype=np.int64).reshape(column)
    expanded = raw(case.w).astype(np.int64) - z * raw(ones) - int(zx) * sums_w + case.w[0].size * int(zx) * z
    same(ours, expanded.astype(np.int32))


def test_empty_shapes():
    empty = np.zeros((0, 3, 5, 5), np.int8)
    weights = np.ones((4, 3, 2, 2), np.int8)
    same(sums(empty, weights), np.zeros((0, 4, 4, 4), np.int32))
    same(sums(empty.reshape(2, 0, 5, 5), weights[:, :0]), np.zeros((2, 4, 4, 4), np.int32))
    same(oracle("MaxPool", empty, kernel=(2, 2)), np.zeros((0, 3, 4, 4), np.int8))
    got = oracle_matmul(np.zeros((2, 0), np.int8), 1, 5, np.zeros((0, 3), np.int8), 1, 5, 1, np.int8(9)
    )
    same(got, np.full((2, 3), 9, np.int8))


def rounded_to_float32(value: Fraction) -> np.float32:
    """The float32 nearest to a rational number, of two equally near ones the even one."""
    guess = np.float32(float(value))
    near = [np.nextafter(guess, np.float32(-np.inf)), guess, np.nextafter(guess, np.float32(np.inf))]
    return min(near, key=lambda f: (abs(Fraction(float(f)) - value), int(f.view(np.int32)) & 1))


floats = st.floats(2.0**-12, 2.0**12, width=32) | st.sampled_from([1.0, 1.5, 255.0, float(1 + 2.0**-23)])


@many
@given(floats, st.integers(-128, 255), floats, st.sampled_from([-1, 1]), st.integers(-60, 0))
# 1 + 2^-24 is half way between float32 neighbours; what the double sum drops decides.
@example(1.0, 1, 2.0**-24 * (1 + 2.0**-23), 1, 0)
@example(1.0 + 2.0**-23, 3, 2.0**-23 * 1.5, -1, -36)
@example(1.0 + 2.0**-23, 1, 1.0, 1, -24)
@example(1.0 + 3 * 2.0**-23, 3, 1.0, -1, -25)
def test_fma_rounds_once(a, b, c, sign, exponent):
    addend = np.float32(sign * c * 2.0**exponent)
    exact = Fraction(a) * b + Fraction(float(addend))
    same(np.asarray(fma(np.float32(a), np.float32(b), addend)), np.asarray(rounded_to_float32(exact)))


def test_fma_breaks_ties_by_what_the_double_sum_drops():
    tie = np.float32(1 + 2.0**-12)  # its square is 1 + 2^-11 + 2^-24: half way between two float32
    below, above = np.float32(1 + 2.0**-11), np.float32(1 + 2.0**-11 + 2.0**-23)
    tiny = np.float32([-(2.0**-80), 0, 2.0**-80])
    same(fma(tie, tie, tiny), np.array([below, below, above]))
    same(fma(-tie, tie, tiny), np.array([-above, -below, -below]))


@pytest.mark.slow
@fixed
@given(dtypes, st.data(), scales, scales, scales, seeds)
def test_add_is_within_a_rounding_of_the_real_sum(dtype, data, sa, sb, sy, seed):
    rng = np.random.default_rng(seed)
    za, zb, zy = (data.draw(zero_points(dtype)) for _ in range(3))
    a, b = draw_codes(rng, dtype, (5, 7)), draw_codes(rng, dtype, (7,))
    real = (a.astype(float) - float(za)) * float(sa) + (b.astype(float) - float(zb)) * float(sb)
    limits = np.iinfo(dtype)
    bounded = np.clip(real / float(sy) + float(zy), limits.min, limits.max)
    got = oracle_add(a, sa, za, b, sb, zb, sy, zy)
    assert got.dtype == dtype
    # float32 holds sums up to 2^21 codes to within a quarter, and the rounding adds a half.
    np.testing.assert_allclose(got, bounded, atol=0.75)


def test_average_pool_counts():
    x = np.uint8([8, 8, 8]).reshape(1, 1, 1, 3)
    pool = functools.partial(
        oracle_pool, "QLinearAveragePool", x, 1.0, 0, 1.0, np.uint8(0), kernel=(1, 2), stride=(1, 2)
    )
    same(pool(ceil_mode=True).ravel(), np.uint8([8, 8]))
    same(pool(ceil_mode=True, count_include_pad=True).ravel(), np.uint8([8, 4]))
    same(pool(padding=((0, 0), (1, 0))).ravel(), np.uint8([8, 8]))
    same(pool(padding=((0, 0), (1, 0)), count_include_pad=True).ravel(), np.uint8([4, 8]))


@pytest.mark.slow
@fixed
@given(poolings())
def test_layouts_of_pools_agree(case):
    nhwc = np.ascontiguousarray(case.x.transpose(0, 2, 3, 1))
    zero = case.x.dtype.type(3)
    for pool in (
        functools.partial(oracle, "MaxPool", **case.geometry),
        lambda x, layout: oracle_pool("QLinearGlobalAveragePool", x, 0.3, 1, 0.1, zero, layout=layout),
        lambda x, layout: oracle_pool("QLinearAveragePool", x, 0.3, 1, 0.1, zero, layout=layout, **case.geometry),
    ):
        same(pool(nhwc, layout="NHWC").transpose(0, 3, 1, 2), pool(case.x, layout="NCHW"))


@pytest.mark.parametrize("rounding", ["half_even", "tflite", "tflite_single", "shift"])
@pytest.mark.parametrize("shapes", [((2,), (2, 5)), ((3, 2), (2,)), ((2,), (2,))])
def test_products_of_vectors_in_every_rounding(rounding, shapes):
    half = QuantParams(0.5)
    layer = layers.QLinearMatMul(x=half, w=half, y=half, rounding=rounding)
    x, w = (np.arange(np.prod(shape), dtype=np.int8).reshape(shape) for shape in shapes)
    found = reference.expected_output(layer, [x, w])
    expected = reference.expected_output(layer, [x.reshape(-1, 2), w.reshape(2, -1)])
    assert found.shape == np.matmul(x, w).shape
    np.testing.assert_array_equal(found.ravel(), expected.ravel())
