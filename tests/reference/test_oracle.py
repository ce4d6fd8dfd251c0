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
    fine_cases,
    fixed,
    many,
    poolings,
    same,
    scales,
    seeds,
    zero_points,
)
from systolic.reference import oracle
from systolic.reference.oracle._elementwise import _fma


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
    got = oracle.requantize(np.array(acc, np.int32), multiplier, zero_point, zero_point.dtype)
    same(got, np.array(expected, zero_point.dtype))


@pytest.mark.parametrize(
    ("acc", "x_scale", "w_scale", "y_scale", "expected"),
    [((39, 39), 0.02, 0.12902696, 0.05, 79), ((58, 75), 0.02, 0.016954023, 0.05, 30)],
)
def test_multiplier_is_rounded_in_this_order(acc, x_scale, w_scale, y_scale, expected):
    a, b = np.int8([[acc[0]]]), np.int8([[acc[1]]])
    got = oracle.qlinear_matmul(a, x_scale, 0, b, w_scale, 0, y_scale, np.int8(0))
    same(got, np.int8([[expected]]))
    images, kernels = a.reshape(1, 1, 1, 1), b.reshape(1, 1, 1, 1)
    got = oracle.qlinear_conv(images, x_scale, 0, kernels, w_scale, 0, y_scale, np.int8(0))
    same(got, np.int8([[[[expected]]]]))


def test_matmul_wraps():
    ones = np.full((1, 70000), 255, np.uint8)
    same(oracle.matmul(ones, ones.T), np.int32([[256_782_704]]))
    same(oracle.matmul_integer(ones, ones.T, 0, 0), np.int32([[256_782_704]]))
    flat = ones.reshape(1, 70, 1, 1000)
    same(oracle.conv2d(flat, flat), np.int32([[[[256_782_704]]]]))


def test_matmul_of_a_long_contraction():
    x = np.full((2, 200_001), -128, np.int8)
    x[1] = 127
    w = np.full((200_001, 1), -128, np.int8)
    expected = [[wrapped(200_001 * 128 * 128)], [wrapped(-200_001 * 127 * 128)]]
    same(oracle.matmul(x, w), np.array(expected, np.int32))


def test_bias_wraps():
    a, bias = np.int8([[127]]), np.int32([2**31 - 1])
    real = oracle.qlinear_matmul(a, 1.0, 0, a, 1.0, 0, None, None, bias)
    same(real, np.float32([[-2147467520.0]]))
    same(oracle.qlinear_matmul(a, 1.0, 0, a, 1.0, 0, 1.0, np.int8(0), bias), np.int8([[-128]]))
    image = a.reshape(1, 1, 1, 1)
    same(oracle.qlinear_conv(image, 1.0, 0, image, 1.0, 0, None, None, bias), real.reshape(1, 1, 1, 1))


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
    same(oracle.quantize_linear(x, 1.0, zero_point, zero_point.dtype), np.array(expected, zero_point.dtype))


def test_quantize_extremes():
    x = np.float32([np.inf, 1e9, -np.inf, np.nan, 3e38])
    same(oracle.quantize_linear(x, 1.0, 0, "int8"), np.int8([127, 127, -128, -128, 127]))
    same(oracle.quantize_linear(x, 1e-30, 7, "uint8"), np.uint8([255, 255, 0, 0, 255]))
    same(oracle.quantize_linear(x, 1.0, 0, "int32")[:3], np.int32([2**31 - 1, 10**9, -(2**31)]))


def test_dequantize_rounds_int32_first():
    same(oracle.dequantize_linear(np.int32([16777217]), 0.1), np.float32([1677721.6]))


def test_scales_per_axis():
    q = np.int8([[[1, 2]], [[3, 4]]])
    real = oracle.dequantize_linear(q, [0.5, 2.0], [1, 3], axis=0)
    same(real, np.float32([[[0, 0.5]], [[0, 2]]]))
    same(oracle.quantize_linear(real, [0.5, 2.0], [1, 3], "int8", axis=0), q)
    same(oracle.dequantize_linear(q, [0.5, 2.0], [1, 3], axis=-1), np.float32([[[0, -2]], [[1, 2]]]))


@pytest.mark.parametrize(("zero_point", "expected"), [(0, [0, 0, 1, 2, 2, 2]), (1, [1, 2, 2, 2, 3, 4])])
@pytest.mark.parametrize("dtype", DTYPES)
def test_add_rounds_after_the_zero_point(dtype, zero_point, expected):
    zero = np.dtype(dtype).type(zero_point)
    a, b = np.arange(6, dtype=dtype), np.zeros(6, dtype)
    same(oracle.qlinear_add(a, 0.5, 0, b, 0.5, 0, 1.0, zero), np.array(expected, dtype))


@pytest.mark.parametrize(("a_shape", "b_shape", "expected"), NEAR_TIE_SHAPES)
def test_add_is_fused_and_swaps(a_shape, b_shape, expected):
    (a, *a_params), (b, *b_params), y_params = NEAR_TIE
    a, b = np.full(a_shape, a, np.int8), np.full(b_shape, b, np.int8)
    got = oracle.qlinear_add(a, *a_params, b, *b_params, *y_params)
    same(got, np.full(np.broadcast_shapes(a_shape, b_shape), expected, np.int8))


@pytest.mark.parametrize(("zero_point", "expected"), [(0, [0, 2, 2, 2]), (1, [1, 3, 3, 3])])
@pytest.mark.parametrize("dtype", DTYPES)
def test_global_average_pool_rounds_before_the_zero_point(dtype, zero_point, expected):
    x = np.array([[0, 1], [1, 2], [2, 3], [1, 4]], dtype).reshape(1, 4, 1, 2)
    zero = np.dtype(dtype).type(zero_point)
    expected = np.array(expected, dtype).reshape(1, 4, 1, 1)
    same(oracle.qlinear_global_average_pool(x, 1.0, 0, 1.0, zero), expected)
    same(oracle.qlinear_average_pool(x, 1.0, 0, 1.0, zero, kernel=(1, 2)), expected)


@pytest.mark.parametrize(("zero_point", "expected"), [(0, [0, 2, 2, 2]), (1, [2, 2, 4, 4])])
@pytest.mark.parametrize("dtype", DTYPES)
def test_average_pool_rounds_after_the_zero_point(dtype, zero_point, expected):
    x = np.array([0, 1, 1, 2, 2, 3, 1, 4], dtype).reshape(1, 1, 1, 8)
    zero = np.dtype(dtype).type(zero_point)
    got = oracle.qlinear_average_pool(x, 1.0, 0, 1.0, zero, kernel=(1, 2), stride=(1, 2))
    same(got, np.array(expected, dtype).reshape(1, 1, 1, 4))


def test_relu():
    same(oracle.relu(np.int8([-128, -4, -3, -2, 127]), -3), np.int8([-3, -3, -3, -2, 127]))
    same(oracle.relu(np.uint8([0, 127, 128, 255]), 128), np.uint8([128, 128, 128, 255]))
    same(oracle.relu(np.float32([-1.5, 0, 2.5])), np.float32([0, 0, 2.5]))


@pytest.mark.parametrize(("op", "function", "arguments", "window", "expected"), fine_cases())
def test_fine_roundings(op, function, arguments, window, expected):
    same(function(*arguments, **window), expected.astype(np.int8))


def test_quantize_divides():
    # -5.451 * f32(1 / 0.046) would give -118.
    same(oracle.quantize_linear([-5.451], 0.046, 0, "int8"), np.int8([-119]))


def test_zero_points_per_row_and_column():
    a, b = np.uint8([[1, 2], [3, 4]]), np.int8([[5, 6], [7, 8]])
    # [[1-1, 2-1], [3-4, 4-4]] x [[5-5, 6-9], [7-5, 8-9]]
    same(oracle.matmul_integer(a, b, [1, 4], [5, 9]), np.int32([[2, -1], [0, 3]]))


def test_bias_is_added_and_may_be_per_channel():
    a, b = np.int8([[2, 3]]), np.int8([[1, 0], [0, 1]])
    same(
        oracle.qlinear_matmul(a, 0.5, 0, b, [1, 2], 0, None, None, np.int32([10, -20])),
        np.float32([[6, -17]]),
    )
    got = oracle.qlinear_conv(
        a.reshape(1, 2, 1, 1), 0.5, 0, b.reshape(2, 2, 1, 1), [1, 2], 0, 1.0, np.int8(1), np.int32([10, -20])
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
    got = oracle.max_pool(x, kernel=(1, 2), stride=(1, 2), pads=pads, ceil_mode=True)
    same(got.ravel(), np.int8(expected))


def test_max_pool_padding_is_the_minimum():
    x = np.int8([-128, -127, -5]).reshape(1, 1, 1, 3)
    got = oracle.max_pool(x, kernel=(1, 2), pads=((0, 0), (1, 1)))
    same(got, np.int8([-128, -127, -5, -5]).reshape(1, 1, 1, 4))


# Refusals


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda q: oracle.matmul(q.astype(np.int32), q), TypeError, "^x must hold int8 or uint8, not int32$"),
        (lambda q: oracle.matmul(q, q), ValueError, r"^x of shape \(2, 3\) has K = 3, but w .* has K = 2$"),
        (lambda q: oracle.matmul(q[0], q), ValueError, "^operands must be matrices"),
        (lambda q: oracle.conv2d(q, q), ValueError, "^x must have 4 axes"),
        (lambda q: oracle.conv2d(q[None, None], q), ValueError, "^w must have 4 axes"),
        (lambda q: oracle.conv2d(q[None, None], q[None, None], layout="CHWN"), ValueError, "^layout must be"),
        (lambda q: oracle.conv2d(q[None, None], q[None, None], groups=2), ValueError, "do not fit 2 groups"),
        (lambda q: oracle.conv2d(q[None, None], q[None, None], pad_value=128), ValueError, "^pad_value must"),
        (lambda q: oracle.max_pool(q[None, None], kernel=(3, 3)), ValueError, "^a kernel spanning 3 pixels"),
        (lambda q: oracle.requantize(q, 1.0, 0, "int8"), TypeError, "^acc must hold int32, not int8"),
        (lambda q: oracle.qlinear_add(q, 1, 0, q, 1, 0, 1, 0), TypeError, "^y_zero_point must be int8"),
        (lambda q: oracle.quantize_linear(q, [1, 1], 0, "int8"), ValueError, "^expected one value, or a vec"),
        (lambda q: oracle.qlinear_add(q, [1, 1], 0, q, 1, 0, 1, q[0, 0]), ValueError, "^a_scale must be one"),
        (lambda q: oracle.relu(q, 128), ValueError, "^zero_point must fit int8"),
        (
            lambda q: oracle.qlinear_global_average_pool(q[None, None, :0], 1, 0, 1, q[0, 0]),
            ValueError,
            "^x must have at least one pixel",
        ),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call(np.zeros((2, 3), np.int8))


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
    same(oracle.matmul(x, w), np.array(expected, np.int32).reshape(m, n))


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
        same(oracle.matmul(x, w), np.array([[wrapped((k - 1) * x_end * w_end + 1)]], np.int32))


def test_matmul_stacks():
    rng = np.random.default_rng(0)
    x, w = draw_codes(rng, "int8", (2, 1, 3, 4)), draw_codes(rng, "uint8", (5, 4, 2))
    same(oracle.matmul(x, w), x.astype(np.int32) @ w.astype(np.int32))


@fixed
@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5))
@example([2**31, -(2**31) - 1, 2**32, 2**63 - 1, -(2**63)])
def test_wrap_is_modulo(values):
    expected = np.array([wrapped(v) for v in values], np.int32)
    same(oracle.wrap_int32(np.array(values, np.int64)), expected)


def naive_convolution(x, w, pad_value, stride, pads, dilation, groups):
    """Every output pixel by itself, in Python integers."""
    batch, _ic, ih, iw = x.shape
    oc, group_ic, kh, kw = w.shape
    oh = (ih + sum(pads[0]) - (kh - 1) * dilation[0] - 1) // stride[0] + 1
    ow = (iw + sum(pads[1]) - (kw - 1) * dilation[1] - 1) // stride[1] + 1
    out = np.zeros((batch, oc, oh, ow), np.int32)
    for b, o, r, c in np.ndindex(out.shape):
        first = o // (oc // groups) * group_ic
        total = 0
        for i, y, z in np.ndindex(group_ic, kh, kw):
            row, col = (
                r * stride[0] + y * dilation[0] - pads[0][0],
                c * stride[1] + z * dilation[1] - pads[1][0],
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
    same(oracle.conv2d(case.x, case.w, pad_value=pad_value, **case.geometry), expected)
    nhwc = oracle.conv2d(
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
        case.x.astype(np.int64), ((0, 0), (0, 0), *case.geometry["pads"]), constant_values=pad_value
    )
    expected = []
    for image in padded:
        for o in range(oc):
            first = o // (oc // groups) * group_ic
            block = image[first : first + group_ic]
            expected.append(signal.correlate(block, spread[o], "valid", "direct")[0, ::sh, ::sw])
    ours = oracle.conv2d(case.x, case.w, pad_value=pad_value, **case.geometry)
    same(ours, np.reshape(expected, ours.shape).astype(np.int32))


@pytest.mark.parametrize("dtype", DTYPES)
def test_conv2d_beyond_float32(dtype):
    # 16 channels of 9 x 9 products of the largest codes, one odd: above 2^24.
    end = np.iinfo(dtype).min or np.iinfo(dtype).max
    x, w = np.full((1, 16, 9, 9), end, dtype), np.full((2, 16, 9, 9), end, dtype)
    x[0, 3, 4, 5] = w[1, 3, 4, 5] = 1
    full = 16 * 81 * end * end
    expected = np.array([full - end * end + end, full - end * end + 1], np.int32).reshape(1, 2, 1, 1)
    same(oracle.conv2d(x, w), expected)


@fixed
@given(convolutions(), st.data())
def test_conv_integer_expands(case, data):
    zx = data.draw(zero_points(case.x.dtype.name))
    zw = draw_codes(case.rng, case.w.dtype.name, (case.w.shape[0],))
    ours = oracle.conv_integer(case.x, case.w, zx, zw, **case.geometry)
    # sum (x - zx)(w - zw) = sum x*w - zw * sum x - zx * sum w + n*zx*zw, padded with the code zx
    raw = functools.partial(oracle.conv2d, case.x, pad_value=int(zx), **case.geometry)
    ones = np.ones_like(case.w)
    column = (1, -1, 1, 1)
    z = zw.astype(np.int64).reshape(column)
    sums_w = case.w.sum(axis=(1, 2, 3), dtype=np.int64).reshape(column)
    expanded = raw(case.w).astype(np.int64) - z * raw(ones) - int(zx) * sums_w + case.w[0].size * int(zx) * z
    same(ours, expanded.astype(np.int32))


def test_empty_shapes():
    empty = np.zeros((0, 3, 5, 5), np.int8)
    weights = np.ones((4, 3, 2, 2), np.int8)
    same(oracle.conv2d(empty, weights), np.zeros((0, 4, 4, 4), np.int32))
    same(oracle.conv2d(empty.reshape(2, 0, 5, 5), weights[:, :0]), np.zeros((2, 4, 4, 4), np.int32))
    same(oracle.max_pool(empty, kernel=(2, 2)), np.zeros((0, 3, 4, 4), np.int8))
    got = oracle.qlinear_matmul(
        np.zeros((2, 0), np.int8), 1, 5, np.zeros((0, 3), np.int8), 1, 5, 1, np.int8(9)
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
    same(np.asarray(_fma(np.float32(a), np.float32(b), addend)), np.asarray(rounded_to_float32(exact)))


def test_fma_breaks_ties_by_what_the_double_sum_drops():
    tie = np.float32(1 + 2.0**-12)  # its square is 1 + 2^-11 + 2^-24: half way between two float32
    below, above = np.float32(1 + 2.0**-11), np.float32(1 + 2.0**-11 + 2.0**-23)
    tiny = np.float32([-(2.0**-80), 0, 2.0**-80])
    same(_fma(tie, tie, tiny), np.array([below, below, above]))
    same(_fma(-tie, tie, tiny), np.array([-above, -below, -below]))


@fixed
@given(dtypes, st.data(), scales, scales, scales, seeds)
def test_add_is_within_a_rounding_of_the_real_sum(dtype, data, sa, sb, sy, seed):
    rng = np.random.default_rng(seed)
    za, zb, zy = (data.draw(zero_points(dtype)) for _ in range(3))
    a, b = draw_codes(rng, dtype, (5, 7)), draw_codes(rng, dtype, (7,))
    real = (a.astype(float) - float(za)) * float(sa) + (b.astype(float) - float(zb)) * float(sb)
    limits = np.iinfo(dtype)
    bounded = np.clip(real / float(sy) + float(zy), limits.min, limits.max)
    got = oracle.qlinear_add(a, sa, za, b, sb, zb, sy, zy)
    assert got.dtype == dtype
    # float32 holds sums up to 2^21 codes to within a quarter, and the rounding adds a half.
    np.testing.assert_allclose(got, bounded, atol=0.75)


def test_average_pool_counts():
    x = np.uint8([8, 8, 8]).reshape(1, 1, 1, 3)
    pool = functools.partial(
        oracle.qlinear_average_pool, x, 1.0, 0, 1.0, np.uint8(0), kernel=(1, 2), stride=(1, 2)
    )
    same(pool(ceil_mode=True).ravel(), np.uint8([8, 8]))
    same(pool(ceil_mode=True, count_include_pad=True).ravel(), np.uint8([8, 4]))
    same(pool(pads=((0, 0), (1, 0))).ravel(), np.uint8([8, 8]))
    same(pool(pads=((0, 0), (1, 0)), count_include_pad=True).ravel(), np.uint8([4, 8]))


@fixed
@given(poolings())
def test_layouts_of_pools_agree(case):
    nhwc = np.ascontiguousarray(case.x.transpose(0, 2, 3, 1))
    zero = case.x.dtype.type(3)
    for pool in (
        functools.partial(oracle.max_pool, **case.geometry),
        lambda x, layout: oracle.qlinear_global_average_pool(x, 0.3, 1, 0.1, zero, layout),
        lambda x, layout: oracle.qlinear_average_pool(x, 0.3, 1, 0.1, zero, layout=layout, **case.geometry),
    ):
        same(pool(nhwc, layout="NHWC").transpose(0, 3, 1, 2), pool(case.x, layout="NCHW"))
