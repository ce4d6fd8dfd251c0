"""The compiled operators beside the array, on every instruction set here, against their formulas."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from systolic import QuantParams, _gemm, _host, _kernels, quant
from systolic.layers import MaxPool, QLinearAdd

DTYPES = ("int8", "uint8")
CHUNK = 1 << 15  # elements that a thread takes at a time
F = np.float32
INT32 = np.iinfo(np.int32)
seeds = st.integers(0, 2**32 - 1)
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


def tables() -> list[str]:
    """One instruction set for each table of loops that this machine runs."""
    found: dict[str, str] = {}
    for isa in _kernels.instruction_sets:
        _kernels._use(isa)
        found[_kernels._tables()[2]] = isa
    _kernels._use()
    return list(found.values())


@pytest.fixture(autouse=True, params=tables(), scope="module")
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    _kernels._use(request.param)
    yield request.param
    _kernels._use()


def bounds(dtype: str) -> tuple[int, int]:
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)


def some_codes(rng: np.random.Generator, dtype: str, *shape: int) -> np.ndarray:
    low, high = bounds(dtype)
    return rng.integers(low, high + 1, shape, dtype=dtype)


def some_sums(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Sums of every magnitude, and the ones where something happens."""
    sums = rng.integers(INT32.min, INT32.max, shape, dtype=np.int32, endpoint=True)
    sums >>= rng.integers(0, 32, shape, dtype=np.int32)
    special = [0, 1, -1, INT32.min, INT32.max, 2**24 + 1, -(2**24) - 1, 2**25 + 3, 10922, 33554433]
    return np.where(rng.random(shape) < 0.2, rng.choice(special, shape), sums).astype(np.int32)


def to_codes(v: np.ndarray, zero: int, dtype: str) -> np.ndarray:
    """sat(rne(v) + zero), the zero point after rounding."""
    low, high = bounds(dtype)
    return np.clip(np.rint(v.astype(np.float64)) + zero, low, high).astype(dtype)


# ---------------------------------------------------------------------- sums


@pytest.mark.slow
@given(
    seed=seeds,
    dtype=st.sampled_from(DTYPES),
    outer=st.integers(0, 3),
    groups=st.integers(1, 3),
    per_group=st.integers(0, 40),
    inner=st.sampled_from([0, 1, 2, 31, 65, 200]),
    with_constant=st.booleans(),
    with_rows=st.booleans(),
    gaps=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    last=st.booleans(),
)
def test_requantize_and_scale_sums(
    seed, dtype, outer, groups, per_group, inner, with_constant, with_rows, gaps, last
):
    rng = np.random.default_rng(seed)
    inner = 1 if last else inner
    channels = groups * per_group
    zero = int(rng.choice([*bounds(dtype), 3, rng.integers(*bounds(dtype))]))
    wide = some_sums(rng, outer, channels + gaps[0], inner + (0 if last else gaps[1]))
    acc = wide[:, :channels, :inner]
    scale = F(2.0) ** rng.integers(-32, 3, channels).astype(F) * rng.choice(
        [F(1), F(1.1), F(0)], channels, p=[0.5, 0.4, 0.1]
    )
    options = {}
    total = acc.astype(np.int64)
    if with_constant:
        options["constant"] = some_sums(rng, channels)
        total = total + options["constant"][:, None]
    if with_rows:
        options["row_sums"] = some_sums(rng, outer, groups, inner)
        options["weight_zero"] = rng.integers(-128, 256, channels, dtype=np.int32)
        total = (
            total
            - np.repeat(options["row_sums"], per_group, axis=1).astype(np.int64)
            * options["weight_zero"][:, None]
        )
    v = total.astype(np.int32).astype(F) * scale[:, None]

    codes = np.full((outer, channels + gaps[1], inner), 77, dtype)
    reals = np.full((outer, channels + gaps[1], inner), F(77))
    out, real_out = codes[:, :channels], reals[:, :channels]
    if last:
        acc, out, real_out = acc[..., 0], out[..., 0], real_out[..., 0]
        if with_rows:
            options["row_sums"] = options["row_sums"][..., 0]
    _host.requantize(acc, out, scale, zero, **options)
    _host.scale_sums(acc, real_out, scale, **options)
    np.testing.assert_array_equal(codes[:, :channels], to_codes(v, zero, dtype))
    np.testing.assert_array_equal(reals[:, :channels].view(np.int32), v.view(np.int32))
    assert (codes[:, channels:] == 77).all() and (reals[:, channels:] == 77).all()


@pytest.mark.parametrize("lanes", [1, 100])
@pytest.mark.parametrize(
    ("acc", "scale", "zero", "dtype", "expected"),
    [
        (range(-5, 6), 0.5, 0, "int8", [-2, -2, -2, -1, 0, 0, 0, 1, 2, 2, 2]),
        (range(-5, 6), 0.5, 3, "int8", [1, 1, 1, 2, 3, 3, 3, 4, 5, 5, 5]),
        ([-5, -3, -1, 1, 3], 0.5, 127, "int8", [125, 125, 127, 127, 127]),
        ([1, 5, 9], 0.25, 0, "int8", [0, 1, 2]),
        ([10922], float.fromhex("0x1.f207c8p-9"), 0, "int8", [42]),
        ([INT32.min, INT32.max], 1.0, 0, "int8", [-128, 127]),
        ([INT32.min, INT32.max], 1.0, 255, "uint8", [0, 255]),
        ([INT32.min, -1, 0, 1, INT32.max], 3.4028235e38, 7, "uint8", [0, 0, 7, 255, 255]),
        ([INT32.max], 0.0, -3, "int8", [-3]),
    ],
)
def test_requantize_values(lanes, acc, scale, zero, dtype, expected):
    sums = np.repeat(np.array(acc, np.int32), lanes).reshape(1, 1, -1)
    out = np.empty(sums.shape, dtype)
    _host.requantize(sums, out, np.array([scale], F), zero)
    np.testing.assert_array_equal(out.ravel(), np.repeat(expected, lanes))


def test_constant_wraps_and_large_sums_round():
    out = np.empty((1, 2), F)
    _host.scale_sums(np.int32([[16129, 2**24]]), out, F([1, 1]), constant=np.int32([INT32.max, 1]))
    assert out.tolist() == [[-2147467520.0, 16777216.0]]


def test_requantize_equals_the_numpy_twin():
    rng = np.random.default_rng(0)
    acc, scale = some_sums(rng, 3, 5, 123), rng.random(5, dtype=F) / 1000
    for dtype in DTYPES:
        out = np.empty(acc.shape, dtype)
        _host.requantize(acc, out, scale, 17)
        np.testing.assert_array_equal(out, quant.requantize(acc, scale, 17, dtype=dtype, axis=1))


# --------------------------------------------------------------- real numbers


@pytest.mark.parametrize("lanes", [1, 50])
@pytest.mark.parametrize(
    ("x", "zero", "dtype", "expected"),
    [
        ([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 126.5, 127.5], 0, "int8", [-2, -2, 0, 0, 2, 2, 126, 127]),
        ([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 126.5, 127.5], 3, "int8", [1, 1, 3, 3, 5, 5, 127, 127]),
        (
            [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 126.5, 127.5],
            128,
            "uint8",
            [126, 126, 128, 128, 130, 130, 254, 255],
        ),
        ([np.inf, 1e9, -np.inf, -1e38, np.nan, -0.0], 0, "int8", [127, 127, -128, -128, -128, 0]),
        ([np.inf, 1e9, -np.inf, -1e38, np.nan, -0.0], 255, "uint8", [255, 255, 0, 0, 0, 255]),
    ],
)
def test_quantize_values(lanes, x, zero, dtype, expected):
    out = np.empty(len(x) * lanes, dtype)
    _host.quantize(np.repeat(F(x), lanes), out, 1.0, zero)
    np.testing.assert_array_equal(out, np.repeat(expected, lanes))


@given(
    bits=st.binary(max_size=280),
    scale=st.sampled_from([1.0, 0.1, 3.7, 1e-45, 3.4028235e38]),
    dtype=st.sampled_from(DTYPES),
    zero=st.integers(0, 127),
)
def test_quantize_any_bits(bits, scale, dtype, zero):
    with np.errstate(over="ignore"):
        near = (np.arange(64, dtype=F) - F(31.5)) * F(scale)
    x = np.concatenate([np.frombuffer(bits[: len(bits) // 4 * 4], F), near])
    params, out = QuantParams(scale, zero, dtype), np.empty(x.shape, dtype)
    _host.quantize(x, out, scale, zero)
    np.testing.assert_array_equal(out, quant.quantize(x, params))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1.0, 0.1, 1e-45, 3.4028235e38])
def test_dequantize_all_codes(dtype, scale):
    low, high = bounds(dtype)
    q = np.arange(low, high + 1).astype(dtype)
    for zero in (low, 3, high):
        out = np.empty(q.shape, F)
        _host.dequantize(q, out, scale, zero)
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(out, (q.astype(np.int32) - zero).astype(F) * F(scale))


# ------------------------------------------------------------ codes and codes


def every_pair(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    low, high = bounds(dtype)
    codes = np.arange(low, high + 1).astype(dtype)
    return np.repeat(codes, 256), np.tile(codes, 256)


def fma(x: Any, y: Any, z: Any) -> float:
    """x * y + z, rounded once to float32 (normal numbers only)."""
    exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
    near = F(float(exact))
    around = [np.nextafter(near, F(-np.inf)), near, np.nextafter(near, F(np.inf))]
    # The nearest; of two, the one whose last bit is even.
    return float(min(around, key=lambda v: (abs(Fraction(float(v)) - exact), int(v.view(np.int32)) & 1)))


def added(a: int, b: int, scales: tuple, zeros: tuple, dtype: str) -> int:
    """QLinearAdd as ONNX Runtime computes it, on exact numbers."""
    (sa, sb, sy), (za, zb, zy) = map(F, scales), zeros
    ra, rb = sa / sy, sb / sy
    c0 = F(zy) - F(fma(ra, za, rb * F(zb)))
    total = fma(a, ra, fma(b, rb, c0))
    return int(np.clip(np.rint(total), *bounds(dtype)))


# A multiple of 2^-54 that, times A, is 2^-23 * (1 + r * 2^-31): beside 2.5, float64 loses the last term,
# and what is left lies halfway between two float32 numbers.
HALFWAY = [
    (a, (2**31 + r) // a) for a, r in itertools.product(range(129, 256), (1, 2, 3)) if (2**31 + r) % a == 0
]

ADD_PARAMETERS = [
    ((0.5, 0.5, 1.0), (0, 0, 0)),
    ((0.5, 0.5, 1.0), (0, 0, 1)),
    ((0.02534690499305725, 0.035809919238090515, 0.0365859717130661), (-106, -120, -105)),
    ((0.1, 0.2, 0.3), (3, 5, 7)),
    ((256.0, 0.00390625, 1.0), (1, 2, 3)),
    ((255.99, 0.0039062502, 1.0), (127, 127, 127)),
    ((300.0, 1e-6, 1.1), (1, 100, 3)),  # outside the range where float64 sums are exact
    ((1e-30, 1e30, 1.0), (1, 100, 3)),
    ((1e-45, 1e-45, 1e-38), (1, 100, 3)),
    # Sums that may or may not reach 2^31, which is the smallest code: by either term, by both, by c0.
    *(((2.0**k, 2.0**j, 1.0), (0, 0, 0)) for k, j in itertools.product((20, 22, 23, 24), (1, 22, 23, 24))),
    ((2.0**22, 2.0**22, 1.0), (-128, -128, 127)),
    ((2.0**24, 1.0, 1.0), (-128, 0, 0)),
    ((3e38, 3e38, 1.0), (1, 100, 3)),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("scales", "zeros"), ADD_PARAMETERS)
def test_add_all_pairs_equals_the_numpy_twin(dtype, scales, zeros):
    zeros = tuple(z + 128 for z in zeros) if dtype == "uint8" else zeros
    a, b = every_pair(dtype)
    out = np.empty(a.shape, dtype)
    _host.add(a, b, out, scales, zeros)
    layer = QLinearAdd(*(QuantParams(s, z, dtype) for s, z in zip(scales, zeros, strict=True)))
    # Shapes that broadcast are added in numpy.
    expected = layer.apply(a.reshape(256, 256), b[:256])
    np.testing.assert_array_equal(out, expected.reshape(-1))


@pytest.mark.slow
@given(
    seed=seeds, dtype=st.sampled_from(DTYPES), scales=st.tuples(*[st.floats(2.0**-20, 16.0, width=32)] * 3)
)
def test_add_equals_exact_arithmetic(seed, dtype, scales):
    rng = np.random.default_rng(seed)
    zeros = tuple(some_codes(rng, dtype, 3).tolist())
    a, b = some_codes(rng, dtype, 20), some_codes(rng, dtype, 20)
    out = np.empty(20, dtype)
    _host.add(a, b, out, scales, zeros)
    assert out.tolist() == [
        added(x, y, scales, zeros, dtype) for x, y in zip(a.tolist(), b.tolist(), strict=True)
    ]


def test_add_rounds_once():
    assert HALFWAY
    for code, mantissa in HALFWAY:
        scales = (mantissa * 2.0**-54, 2.5, 1.0)
        out = np.empty(100, np.uint8)
        _host.add(np.full(100, code, np.uint8), np.full(100, 1, np.uint8), out, scales, (0, 0, 0))
        # 2.5 and a little more than half a float32 step: 2.5000002, not the tie 2.5.
        assert set(out.tolist()) == {3} == {added(code, 1, scales, (0, 0, 0), "uint8")}


def test_add_zero_point_is_rounded_with_the_sum():
    a, b, out = np.arange(6, dtype=np.int8), np.zeros(6, np.int8), np.empty(6, np.int8)
    _host.add(a, b, out, (0.5, 0.5, 1.0), (0, 0, 0))
    assert out.tolist() == [0, 0, 1, 2, 2, 2]
    _host.add(a, b, out, (0.5, 0.5, 1.0), (0, 0, 1))
    assert out.tolist() == [1, 2, 2, 2, 3, 4]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("scales", "zeros"),
    [
        ((0.5, 1.0, 1.0), (0, 0, 0)),
        ((0.5, 1.0, 1.0), (0, 0, 1)),
        ((0.02534690499305725, 0.035809919238090515, 0.0365859717130661), (-106, -120, -105)),
        ((0.1, 0.2, 0.3), (127, -128, 7)),
        ((3e38, 3e38, 1.0), (3, 2, 1)),  # an infinite multiplier: 0 * inf is NaN, the smallest code
        ((1e-30, 1e-30, 1.0), (3, 2, 1)),
        *(((2.0**k, 1.0, 1.0), (3, 2, 1)) for k in (13, 14, 15, 16, 17)),  # around 2^31 / 255^2
    ],
)
def test_mul_all_pairs(dtype, scales, zeros):
    za, zb, zy = zeros = tuple(z + 128 for z in zeros) if dtype == "uint8" else zeros
    a, b = every_pair(dtype)
    out = np.empty(a.shape, dtype)
    _host.mul(a, b, out, scales, zeros)
    sa, sb, sy = map(F, scales)
    with np.errstate(all="ignore"):
        product = ((a.astype(np.int32) - za) * (b.astype(np.int32) - zb)).astype(F)
        v = product * (sa * sb / sy) + F(zy)
    low, high = bounds(dtype)
    v = np.where(v < 2.0**31, np.rint(v), F(low))  # NaN and what int32 cannot hold: the smallest code
    np.testing.assert_array_equal(out, np.clip(v, F(low), F(high)).astype(dtype))


def test_mul_rounds_the_product_before_the_zero_point():
    # -127 * 86 * scale is -41.49999985, which float32 rounds to -41.5; with 42 a tie, which goes to 0.
    out = np.empty(100, np.int8)
    scales = (float.fromhex("0x1.f207c8p-9"), 1.0, 1.0)
    _host.mul(np.full(100, -127, np.int8), np.full(100, 86, np.int8), out, scales, (0, 0, 42))
    assert set(out.tolist()) == {0}


# ------------------------------------------------------------------- images


@given(
    seed=seeds,
    dtype=st.sampled_from(DTYPES),
    rows=st.integers(0, 4),
    cols=st.integers(0, 200),
    gap=st.integers(0, 3),
)
@pytest.mark.slow
def test_sum_rows(seed, dtype, rows, cols, gap):
    x = some_codes(np.random.default_rng(seed), dtype, rows, cols + gap)[:, :cols]
    out = np.full(rows, 77, np.int32)
    _host.sum_rows(x, out)
    np.testing.assert_array_equal(out, x.sum(axis=1, dtype=np.int64))


@pytest.mark.parametrize("dtype", DTYPES)
def test_sum_rows_at_the_bounds(dtype):
    for code in bounds(dtype):
        out = np.empty(1, np.int32)
        _host.sum_rows(np.full((1, 100_000), code, dtype), out)
        assert out.tolist() == [code * 100_000]


@st.composite
def windows(draw: st.DrawFn) -> tuple:
    """An image, a window and an output size: paddings beyond the image too, as many outputs as wished."""
    rng = np.random.default_rng(draw(seeds))
    dtype = draw(st.sampled_from(DTYPES))
    image = [
        draw(st.integers(1, 3)),
        draw(st.integers(1, 4)),
        draw(st.integers(1, 9)),
        draw(st.integers(1, 70)),
    ]
    kernel, stride, dilation = draw(pairs), draw(pairs), draw(pairs)
    pad = draw(st.tuples(st.integers(0, 5), st.integers(0, 5)))
    out = (draw(st.integers(1, 8)), draw(st.one_of(st.integers(1, 80), st.just(image[3]))))
    if draw(st.booleans()):
        # The common window: one step, outputs as wide as the image.
        stride, out = (1, 1), (out[0], image[3])
    x = some_codes(rng, dtype, *image)
    if draw(st.booleans()):
        x = some_codes(rng, dtype, *(size + 1 for size in image))[1:, :-1, 1:, :-1]
    return x, kernel, stride, dilation, pad, out


def matrix(x, kernel, stride, dilation, pad, out, value) -> np.ndarray:
    """The whole im2col matrix, entry by entry."""
    batch, channels, ih, iw = x.shape
    (kh, kw), (oh, ow) = kernel, out
    lines = np.arange(oh)[:, None] * stride[0] + np.arange(kh) * dilation[0] - pad[0]
    pixels = np.arange(ow)[:, None] * stride[1] + np.arange(kw) * dilation[1] - pad[1]
    inside = ((lines >= 0) & (lines < ih))[:, None, :, None] & ((pixels >= 0) & (pixels < iw))[
        None, :, None, :
    ]
    picked = x[
        :, :, np.clip(lines, 0, ih - 1)[:, None, :, None], np.clip(pixels, 0, iw - 1)[None, :, None, :]
    ]
    patches = np.where(inside, picked, np.array(value, x.dtype))  # (batch, channels, oh, ow, kh, kw)
    return patches.transpose(0, 2, 3, 1, 4, 5).reshape(batch * oh * ow, channels * kh * kw)


@pytest.mark.slow
@given(window=windows(), data=st.data())
def test_im2col_both_ways(window, data):
    x, kernel, stride, dilation, pad, out_size = window
    value = data.draw(st.sampled_from([*bounds(x.dtype.name), 3]))
    whole = matrix(*window, value)
    m, k = whole.shape
    m_start, k_start = data.draw(st.integers(0, m)), data.draw(st.integers(0, k))
    m_stop, k_stop = data.draw(st.integers(m_start, m)), data.draw(st.integers(k_start, k))
    if data.draw(st.booleans()):
        m_start, m_stop, k_start, k_stop = 0, m, 0, k
    part = whole[m_start:m_stop, k_start:k_stop]
    # Channels last as well: the same images, otherwise in memory.
    for images in (x, np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)):
        for function, expected in ((_gemm.im2col, part), (_gemm.im2col_transposed, part.T)):
            wide = np.full((expected.shape[0], expected.shape[1] + 3), 77, x.dtype)
            function(images, wide[:, :-3], kernel, stride, dilation, pad, out_size, value, k_start, m_start)
            np.testing.assert_array_equal(wide[:, :-3], expected)
            assert (wide[:, -3:] == 77).all()


@pytest.mark.slow
@given(window=windows())
def test_max_pool(window):
    x, kernel, stride, dilation, pad, out_size = window
    low = bounds(x.dtype.name)[0]
    batch, channels = x.shape[:2]
    out = np.full((batch, channels, *out_size), 77, x.dtype)
    _host.max_pool(x, out, kernel, stride, dilation, pad)
    patches = matrix(*window, low).reshape(batch, *out_size, channels, -1)
    np.testing.assert_array_equal(out, patches.max(axis=4).transpose(0, 3, 1, 2))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_max_pool_equals_the_layer_in_numpy(dtype, ceil_mode):
    x = some_codes(np.random.default_rng(0), dtype, 2, 3, 29, 112)
    # In the other layout the layer takes numpy's maxima.
    layer = MaxPool((3, 3), stride=2, padding=1, ceil_mode=ceil_mode, channels_last=True)
    expected = layer.apply(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    out = np.empty(expected.shape, dtype)
    _host.max_pool(x, out, (3, 3), (2, 2), (1, 1), (1, 1))
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
def test_threads_share_elements(dtype, count):
    rng = np.random.default_rng(count)
    a, b = some_codes(rng, dtype, count), some_codes(rng, dtype, count)
    x = rng.normal(0, 50, count).astype(np.float32)
    scales, zeros = [0.5, 0.25, 0.3], [3, 4, 5]
    for threads in (2, 3):
        for function, arguments, result in (
            (_host.add, (scales, zeros), dtype),
            (_host.mul, (scales, zeros), dtype),
        ):
            one, other = np.empty(count, result), np.empty(count, result)
            function(a, b, one, *arguments)
            function(a, b, other, *arguments, threads=threads)
            np.testing.assert_array_equal(one, other)
        for function, source, result in ((_host.quantize, x, dtype), (_host.dequantize, a, np.float32)):
            one, other = np.empty(count, result), np.empty(count, result)
            function(source, one, 0.7, 3)
            function(source, other, 0.7, 3, threads=threads)
            np.testing.assert_array_equal(one, other)


def test_threads_share_images():
    x = some_codes(np.random.default_rng(0), "int8", 3, 25, 119, 123)
    one, other = np.empty((3, 25, 60, 62), np.int8), np.empty((3, 25, 60, 62), np.int8)
    _host.max_pool(x, one, (3, 3), (2, 2), (1, 1), (1, 1))
    for _ in range(5):  # some of it by another thread, sooner or later
        other[...] = 0
        _host.max_pool(x, other, (3, 3), (2, 2), (1, 1), (1, 1), threads=3)
        np.testing.assert_array_equal(one, other)


def test_empty_images():
    for shape in [(0, 2, 3, 3), (1, 0, 3, 3)]:
        x = np.empty(shape, np.int8)
        out = np.empty((*shape[:2], 2, 2), np.int8)
        _host.max_pool(x, out, (2, 2), (1, 1), (1, 1), (0, 0))
        columns = np.empty((shape[1] * 4, shape[0] * 4), np.int8)
        _gemm.im2col_transposed(x, columns, (2, 2), (1, 1), (1, 1), (0, 0), (2, 2), 0, 0, 0)
    blank = np.empty((1, 2, 2, 2), np.int8)
    _host.max_pool(np.empty((1, 2, 0, 5), np.int8), blank, (2, 2), (1, 1), (1, 1), (0, 0))
    assert (blank == -128).all()
    columns = np.empty((8, 4), np.int8)
    _gemm.im2col_transposed(
        np.empty((1, 2, 5, 0), np.int8), columns, (2, 2), (1, 1), (1, 1), (0, 0), (2, 2), 9, 0, 0
    )
    assert (columns == 9).all()


# ------------------------------------------------------------- what is refused


CODES, SUMS, ONE = np.zeros((2, 3, 4), np.int8), np.zeros((2, 3, 4), np.int32), np.ones(3, F)
IMAGE, POOLED = np.zeros((1, 1, 4, 4), np.int8), np.zeros((1, 1, 2, 2), np.int8)
WINDOW = ((2, 2), (2, 2), (1, 1), (0, 0))


@pytest.mark.parametrize(
    "call",
    {
        "shape of codes": lambda: _host.requantize(SUMS, CODES[:1], ONE, 0),
        "type of codes": lambda: _host.requantize(SUMS, CODES.astype(np.int16), ONE, 0),
        "type of sums": lambda: _host.requantize(SUMS.astype(np.int64), CODES, ONE, 0),
        "scales": lambda: _host.requantize(SUMS, CODES, ONE[:2], 0),
        "zero point": lambda: _host.requantize(SUMS, CODES, ONE, 128),
        "constant": lambda: _host.requantize(SUMS, CODES, ONE, 0, constant=np.zeros(2, np.int32)),
        "row sums alone": lambda: _host.requantize(
            SUMS, CODES, ONE, 0, row_sums=np.zeros((2, 1, 4), np.int32)
        ),
        "groups": lambda: _host.requantize(
            SUMS, CODES, ONE, 0, row_sums=np.zeros((2, 2, 4), np.int32), weight_zero=np.zeros(3, np.int32)
        ),
        "no groups": lambda: _host.requantize(
            SUMS, CODES, ONE, 0, row_sums=np.zeros((2, 0, 4), np.int32), weight_zero=np.zeros(3, np.int32)
        ),
        "runs of sums": lambda: _host.requantize(np.zeros((2, 3, 8), np.int32)[..., ::2], CODES, ONE, 0),
        "runs of codes": lambda: _host.requantize(SUMS, np.zeros((2, 3, 8), np.int8)[..., ::2], ONE, 0),
        "runs of reals": lambda: _host.scale_sums(SUMS, np.zeros((2, 3, 8), F)[..., ::2], ONE),
        "one axis": lambda: _host.requantize(SUMS[0, 0], CODES[0, 0], ONE, 0),
        "quantize": lambda: _host.quantize(np.zeros(3, F), np.zeros(2, np.int8), 1.0, 0),
        "quantize gaps": lambda: _host.quantize(np.zeros(6, F)[::2], np.zeros(3, np.int8), 1.0, 0),
        "dequantize": lambda: _host.dequantize(np.zeros(3, np.int8), np.zeros(2, F), 1.0, 0),
        "add": lambda: _host.add(CODES, CODES, CODES[:1], (1, 1, 1), (0, 0, 0)),
        "add b": lambda: _host.add(CODES, CODES[:1], CODES, (1, 1, 1), (0, 0, 0)),
        "add types": lambda: _host.add(CODES, CODES.view(np.uint8), CODES, (1, 1, 1), (0, 0, 0)),
        "add scales": lambda: _host.add(CODES, CODES, CODES.copy(), (1, 1), (0, 0, 0)),
        "mul": lambda: _host.mul(CODES[:1], CODES, CODES, (1, 1, 1), (0, 0, 0)),
        "sum_rows": lambda: _host.sum_rows(CODES[0], np.zeros(2, np.int32)),
        "sum_rows gaps": lambda: _host.sum_rows(CODES[0, :, ::2], np.zeros(3, np.int32)),
        "pool batch": lambda: _host.max_pool(IMAGE, np.zeros((2, 1, 2, 2), np.int8), *WINDOW),
        "pool gaps": lambda: _host.max_pool(IMAGE[..., ::2], POOLED, *WINDOW),
        "pool type": lambda: _host.max_pool(IMAGE.view(np.uint8), POOLED, *WINDOW),
        "stride 0": lambda: _host.max_pool(IMAGE, POOLED, (2, 2), (0, 2), (1, 1), (0, 0)),
        "stride huge": lambda: _host.max_pool(IMAGE, POOLED, (2, 2), (2**30, 2), (1, 1), (0, 0)),
        "pad far below 0": lambda: _host.max_pool(IMAGE, POOLED, (2, 2), (1, 2), (1, 1), (0, -(2**30))),
        "one number": lambda: _host.max_pool(IMAGE, POOLED, (2,), (1, 2), (1, 1), (0, 0)),  # type: ignore[arg-type]
        "k beyond": lambda: _gemm.im2col_transposed(
            IMAGE, np.zeros((4, 4), np.int8), *WINDOW, (2, 2), 0, 1, 0
        ),
        "m beyond": lambda: _gemm.im2col(IMAGE, np.zeros((4, 4), np.int8), *WINDOW, (2, 2), 0, 0, 1),
        "k negative": lambda: _gemm.im2col(IMAGE, np.zeros((1, 1), np.int8), *WINDOW, (2, 2), 0, -1, 0),
        "pad value": lambda: _gemm.im2col(IMAGE, np.zeros((4, 4), np.int8), *WINDOW, (2, 2), 128, 0, 0),
        "columns with gaps": lambda: _gemm.im2col(
            IMAGE, np.zeros((4, 8), np.int8)[:, ::2], *WINDOW, (2, 2), 0, 0, 0
        ),
    }.items(),
    ids=lambda item: item[0],
)
def test_what_would_reach_outside_is_refused(call):
    with pytest.raises(ValueError):
        call[1]()
