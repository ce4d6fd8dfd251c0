"""Layers on the array: lower, run, against the oracle; what they say of themselves."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.strategies import codes, dtypes, examples, limits, raises, seeds, sums
from systolic import ArrayConfig, Gemm, QuantParams
from systolic.layers import Conv2d, Dense, DepthwiseConv2d, QLinearConv, QLinearMatMul
from systolic.layers.geometry import paddings, sizes, taps, window
from systolic.machine import run_cycles, run_wavefront
from systolic.reference import expected_output
from systolic.reference.oracle._windows import auto_pads

ONE = QuantParams(1.0)
# Quotients that often end in a tie, and decimals as quantizers write them.
scales = st.sampled_from([1.0, 0.5, 0.25, 0.1, 0.02, 0.0359, 2.0, 3.0])
MODES = ("cycle", "wavefront")


@st.composite
def params(draw: st.DrawFn, channels: int | None = None, axis: int = 0) -> QuantParams:
    """Any scale and zero point, per tensor or with so many channels."""
    dtype = draw(dtypes)
    low, high = limits(dtype)
    zero = st.sampled_from([0, low, high, 3]) | st.integers(low, high)
    if channels is None:
        return QuantParams(draw(scales), draw(zero), dtype)
    several = draw(st.lists(st.tuples(scales, zero), min_size=channels, max_size=channels))
    zeros: int | list[int] = [z for _, z in several]
    if draw(st.booleans()):
        zeros = draw(zero)  # per-channel scales with one zero point
    return QuantParams([s for s, _ in several], zeros, dtype, axis)


@st.composite
def outputs(draw: st.DrawFn) -> QuantParams | None:
    """Of the output; scales that spread sums over the codes, or None for float32."""
    if draw(st.sampled_from([True, True, True, False])):
        given = draw(params())
        return QuantParams(
            given.scale * draw(st.sampled_from([1.0, 64.0, 4096.0])), given.zero_point, given.dtype
        )
    return None


def biases(rng: np.random.Generator, channels: int, kind: str) -> np.ndarray | None:
    if kind == "none":
        return None
    return (
        sums(rng, channels) if kind == "wrapping" else rng.integers(-9999, 10000, channels).astype(np.int32)
    )


bias_kinds = st.sampled_from(["none", "some", "wrapping"])


def on_array(layer, x: np.ndarray, mode: str) -> np.ndarray:
    work = layer.lower(x)
    assert work.gemm == layer.products(x.shape)
    run = run_cycles if mode == "cycle" else run_wavefront
    y = run(work, ArrayConfig(5, 6, accumulator_rows=14)).output
    assert y.shape == layer.output_shape(x.shape) and y.dtype.name == layer.output_dtype(x.dtype.name)
    return y


def check(actual: np.ndarray, expected: np.ndarray) -> None:
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(actual, expected)


# Values


@st.composite
def dense_cases(draw: st.DrawFn):
    k, n = draw(st.sampled_from([1, 5, 6, 12])), draw(st.sampled_from([1, 2, 6, 7]))
    w = draw(params() | params(channels=n, axis=1))
    rng = np.random.default_rng(draw(seeds))
    layer = Dense(
        codes(rng, (k, n), w.dtype),
        x=draw(params()),
        w=w,
        y=draw(outputs()),
        bias=biases(rng, n, draw(bias_kinds)),
    )
    leading = draw(st.sampled_from([(), (1,), (4,), (0,), (17,), (2, 3), (2, 0, 3)]))
    return layer, codes(rng, (*leading, k), layer.x.dtype)


@pytest.mark.slow
@examples(150)
@given(dense_cases(), st.sampled_from(MODES))
@pytest.mark.exhaustive
def test_dense_equals_the_oracle(case: tuple[QLinearMatMul, np.ndarray], mode: str) -> None:
    layer, x = case
    check(on_array(layer, x, mode), expected_output(layer, [x]))


@st.composite
def conv_cases(draw: st.DrawFn):
    depthwise = draw(st.sampled_from([False, False, True]))
    groups = draw(st.sampled_from([1, 2, 3]))
    icg = 1 if depthwise else draw(st.sampled_from([1, 2, 3]))
    ocg = draw(st.sampled_from([1, 2, 4]))
    kernel, stride = (
        draw(st.tuples(*[st.sampled_from([1, 2, 3])] * 2)),
        draw(st.sampled_from([(1, 1), (2, 1), (3, 2)])),
    )
    dilation = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 3)]))
    pads = draw(st.sampled_from([((0, 0), (0, 0)), ((1, 1), (1, 1)), ((0, 2), (1, 0))]))
    layout = draw(st.sampled_from(["NCHW", "NHWC"]))
    w = draw(params() | params(channels=groups * ocg, axis=0))
    rng = np.random.default_rng(draw(seeds))
    options = {
        "x": draw(params()),
        "w": w,
        "y": draw(outputs()),
        "bias": biases(rng, groups * ocg, draw(bias_kinds)),
        "stride": stride,
        "padding": pads,
        "dilation": dilation,
        "layout": layout,
    }
    weight = codes(rng, (groups * ocg, icg, *kernel), w.dtype)
    layer = (
        DepthwiseConv2d(weight, multiplier=ocg, **options)
        if depthwise
        else Conv2d(weight, groups=groups, **options)
    )
    image = [(k - 1) * d + 1 + draw(st.integers(0, 4)) for k, d in zip(kernel, dilation, strict=True)]
    batch, channels = draw(st.sampled_from([1, 2, 0])), groups * icg
    size = (batch, channels, *image) if layout == "NCHW" else (batch, *image, channels)
    return layer, codes(rng, size, layer.x.dtype)


@pytest.mark.slow
@examples(200)
@given(conv_cases(), st.sampled_from(MODES))
def test_conv2d_equals_the_oracle(case: tuple[QLinearConv, np.ndarray], mode: str) -> None:
    layer, x = case
    check(on_array(layer, x, mode), expected_output(layer, [x]))


@pytest.mark.parametrize("padding", ["same", "same_lower", "valid"])
def test_conv2d_named_padding_equals_pads(padding: str) -> None:
    rng = np.random.default_rng(0)
    weight, x = codes(rng, (4, 2, 3, 2), "int8"), codes(rng, (1, 2, 8, 7), "uint8")
    p = {"x": QuantParams(0.1, 77, "uint8"), "w": ONE, "y": QuantParams(30.0, 2), "stride": 2}
    pads = {"same": ((0, 1), (0, 1)), "same_lower": ((1, 0), (1, 0)), "valid": ((0, 0), (0, 0))}[padding]
    by_name = Conv2d(weight, padding=padding, **p)
    by_pads = Conv2d(weight, padding=pads, **p)
    if padding != "valid":
        assert by_name.output_shape(x.shape) == (1, 4, 4, 4)
    check(on_array(by_name, x, "wavefront"), on_array(by_pads, x, "cycle"))


@pytest.mark.parametrize("mode", MODES)
def test_sums_and_bias_wrap_before_they_are_scaled(mode: str) -> None:
    layer = Dense(np.full((3, 1), 127, np.int8), x=ONE, w=ONE, y=None, bias=np.array([2**31 - 1], np.int32))
    wrapped = 2**31 - 1 + 3 * 127 * 127 - 2**32
    check(on_array(layer, np.full((1, 3), 127, np.int8), mode), np.full((1, 1), wrapped, np.float32))


def test_finish_does_not_write_into_the_layer() -> None:
    rng = np.random.default_rng(0)
    layer = Dense(
        codes(rng, (4, 3), "int8"),
        x=QuantParams(1.0, 5),
        w=QuantParams(1.0, -3),
        y=QuantParams(99.0),
        bias=sums(rng, 3),
    )
    before, x = copy.deepcopy(layer), codes(rng, (2, 4), "int8")
    first = on_array(layer, x, "cycle")
    check(on_array(layer, x, "wavefront"), first)
    assert layer == before


# Shapes and types


def test_dense_shapes() -> None:
    layer = Dense(np.zeros((4, 3), np.int8), x=ONE, w=ONE, y=QuantParams(1.0, 0, "uint8"))
    assert layer.output_shape((4,)) == (3,) and layer.output_shape((2, 5, 4)) == (2, 5, 3)
    assert layer.products((4,)) == Gemm(1, 4, 3) and layer.products((2, 5, 4)) == Gemm(10, 4, 3)
    assert layer.output_dtype("int8") == "uint8"
    assert Dense(np.zeros((4, 3), np.int8), x=ONE, w=ONE, y=None).output_dtype("int8") == "float32"
    for shape in ((3,), (4, 3), ()):
        text = {(): "()", (3,): "(3,); w.T fits", (4, 3): "(4, 3); w.T fits"}[shape]
        with raises(ValueError, f"QLinearMatMul takes inputs (..., 4), as its weight has 4 rows, not {text}"):
            layer.output_shape(shape)
    with raises(TypeError, "QLinearMatMul takes int8, as its x says, not uint8"):
        layer.output_dtype("uint8")
    with raises(TypeError, "QLinearMatMul takes int8, as its x says, not uint8"):
        layer.lower(np.zeros((1, 4), np.uint8))
    with raises(ValueError, "QLinearMatMul takes inputs (..., 4), as its weight has 4 rows, not (1, 5)"):
        layer.lower(np.zeros((1, 5), np.int8))


def test_conv_shapes() -> None:
    layer = Conv2d(np.zeros((6, 2, 3, 3), np.int8), x=ONE, w=ONE, y=ONE, groups=2, stride=2, padding=1)
    assert layer.output_shape((5, 4, 7, 9)) == (5, 6, 4, 5)
    assert layer.products((5, 4, 7, 9)) == Gemm(100, 18, 3, groups=2)
    nhwc = Conv2d(
        np.zeros((6, 2, 3, 3), np.int8), x=ONE, w=ONE, y=ONE, groups=2, stride=2, padding=1, layout="NHWC"
    )
    assert nhwc.output_shape((5, 7, 9, 4)) == (5, 4, 5, 6)
    with raises(ValueError, "QLinearConv takes images (batch, ic, ih, iw), not (4, 7, 9)"):
        layer.output_shape((4, 7, 9))
    with raises(ValueError, "QLinearConv takes images (batch, ih, iw, ic), not (7, 9, 4)"):
        nhwc.output_shape((7, 9, 4))
    with raises(
        ValueError,
        "x has 5 channels, but w (6, 2, 3, 3) takes 2 in each of 2 groups, 4 in all; "
        "w is (oc, ic // groups, kh, kw)",
    ):
        layer.products((1, 5, 7, 9))
    with raises(TypeError, "QLinearConv takes int8, as its x says, not uint8"):
        layer.lower(np.zeros((1, 4, 7, 9), np.uint8))


def test_depthwise_takes_groups_from_its_weight() -> None:
    weight = np.zeros((6, 1, 3, 3), np.int8)
    layer = DepthwiseConv2d(weight, x=ONE, w=ONE, y=ONE, multiplier=2)
    assert layer.groups == 3 and layer.products((2, 3, 5, 5)) == Gemm(18, 9, 2, groups=3)
    assert DepthwiseConv2d(weight, x=ONE, w=ONE, y=ONE).groups == 6
    assert DepthwiseConv2d(weight, x=ONE, w=ONE, y=ONE, groups=6) == DepthwiseConv2d(
        weight, x=ONE, w=ONE, y=ONE
    )
    assert layer == Conv2d(weight, x=ONE, w=ONE, y=ONE, groups=3)


def test_window_sizes() -> None:
    with_ceil = window((5, 5), (2, 2), (2, 2), ceil_mode=True)
    assert with_ceil.out == (3, 3) and window((5, 5), (2, 2), (2, 2)).out == (2, 2)
    # The last window would start in the padding at the end: ONNX leaves it out.
    assert window((4, 4), (1, 1), (3, 3), padding=((0, 2), (0, 2)), ceil_mode=True).out == (2, 2)
    assert window((6, 5), (1, 3), (4, 2), padding="same").pads == ((0, -1), (1, 1))
    # Rounded up, a kernel larger by less than a stride has a window; without a pixel before the end it has none.
    assert window((2, 2), (3, 3), (2, 2), ceil_mode=True).out == (1, 1)
    for image, kernel, pads, words in (
        ((2, 2), (4, 4), (0, 0), "the kernel spans 4 pixels of the height"),
        ((0, 2), (2, 2), (0, 1), "the kernel spans 2 pixels of the height"),
        ((0, 2), (2, 2), (0, 2), "the only window along the height would start in the padding at its end"),
    ):
        with pytest.raises(ValueError, match=words):
            window(image, kernel, (2, 2), padding=(pads, (0, 0)), ceil_mode=True)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "upper", "lower"),
    [
        (4, 1, 2, (0, 0), (0, 0)),
        (3, 1, 3, (0, -1), (0, 0)),
        (4, 1, 4, (-1, -1), (0, -1)),
        (5, 1, 5, (-1, -2), (-1, -1)),
        (5, 2, 5, (-1, -1), (0, -1)),
        (6, 1, 6, (-2, -2), (-1, -2)),
        (4, 3, 2, (0, 0), (1, 1)),
    ],
)
def test_same_crops_where_strides_exceed_kernels(
    size: int, kernel: int, stride: int, upper: tuple[int, int], lower: tuple[int, int]
) -> None:
    # What stands before an axis, of a convolution and of a pool: as ONNX Runtime 1.32 gave them.
    for name, (conv, pool) in (("same", upper), ("same_lower", lower)):
        for before, is_pool in ((conv, False), (pool, True)):
            args = (size, size), (kernel, kernel), (stride, stride), (1, 1)
            view = window(*args, padding=name, pool=is_pool)
            assert view.before == (before, before) and view.out == (-(-size // stride),) * 2
            assert view.pads[0] == auto_pads(name, size, kernel, stride, pool=is_pool)


def test_same_of_pools_ignores_the_dilation() -> None:
    view = window((8, 8), (3, 2), (1, 2), (3, 1), padding="same", pool=True)
    assert view.pads == ((1, 1), (0, 0)) and view.out == (4, 4)
    assert window((8, 8), (3, 2), (1, 2), (3, 1), padding="same").out == (8, 4)


@given(st.integers(1, 9), st.integers(1, 5), st.integers(1, 5), st.integers(1, 3), st.integers(-4, 6), st.integers(1, 6))
def test_taps(size: int, kernel: int, step: int, dilation: int, before: int, outputs: int) -> None:
    seen = {}
    for outs, elements in taps(size, kernel, step, dilation, before, outputs).values():
        pairs = list(zip(range(outputs)[outs], range(size)[elements], strict=True))
        assert pairs and not set(pairs) & set(seen)
        seen |= dict.fromkeys(pairs)
    wanted = [(o, o * step + k * dilation - before) for k in range(kernel) for o in range(outputs)]
    assert list(seen) == [(o, at) for o, at in wanted if 0 <= at < size]
    assert sizes([2, 3], "stride", 2) == (2, 3) and sizes(2, "stride", 2) == (2, 2)
    assert paddings([[1, 2], (3, 4)], 2) == ((1, 2), (3, 4)) and paddings(2, 2) == ((2, 2), (2, 2))


# Construction


W = np.zeros((4, 3), np.int8)
K = np.zeros((4, 2, 3, 3), np.int8)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: Dense(W[0], x=ONE, w=ONE, y=ONE),
            ValueError,
            "QLinearMatMul: weight must have 2 axes (K, N), not 1 (3,)",
        ),
        (
            lambda: Dense(W.astype(float), x=ONE, w=ONE, y=ONE),
            TypeError,
            "QLinearMatMul: weight must hold int8 or uint8, not "
            "float64; quantize it first (systolic.quantize), or convert with .astype if the values fit",
        ),
        (
            lambda: Dense(W.view(np.uint8), x=ONE, w=ONE, y=ONE),
            TypeError,
            "QLinearMatMul: weight holds uint8, but w says int8",
        ),
        (lambda: Dense(W, x=0.5, w=ONE, y=ONE), TypeError, "QLinearMatMul: x must be QuantParams, not float"),
        (lambda: Dense(W, x=ONE, w=None, y=ONE), TypeError, "QLinearMatMul: w must be QuantParams, not NoneType"),
        (
            lambda: Dense(W, x=ONE, w=ONE, y=QuantParams(1.0, dtype="int32")),
            TypeError,
            "QLinearMatMul: y must be int8 or uint8, not int32",
        ),
        (
            lambda: Dense(W, x=QuantParams([1.0, 2.0], axis=0), w=ONE, y=ONE),
            ValueError,
            "QLinearMatMul: x must have one scale and zero point, not one per channel",
        ),
        (
            lambda: Dense(W, x=ONE, w=QuantParams([1.0] * 4, axis=0), y=ONE),
            ValueError,
            "QLinearMatMul: w must be quantized along axis 1, its output channels, not 0",
        ),
        (
            lambda: Dense(W, x=ONE, w=QuantParams([1.0] * 4, axis=1), y=ONE),
            ValueError,
            "QLinearMatMul: w has 4 scales for 3 output channels",
        ),
        (
            lambda: Dense(W, x=ONE, w=ONE, y=ONE, bias=np.zeros(4, np.int32)),
            ValueError,
            "QLinearMatMul: bias must have one value per output channel, (3,), not (4,)",
        ),
        (
            lambda: Dense(W, x=ONE, w=ONE, y=ONE, bias=np.zeros(3)),
            TypeError,
            "QLinearMatMul: bias must hold integers, not float64",
        ),
        (
            lambda: Dense(W, x=ONE, w=ONE, y=ONE, bias=[0, 0, 2**31]),
            ValueError,
            "QLinearMatMul: bias must fit int32 (-2147483648..2147483647), but holds 2147483648",
        ),
        (
            lambda: Conv2d(K[0], x=ONE, w=ONE, y=ONE),
            ValueError,
            "Conv2d: weight must have 4 axes (oc, ic // groups, kh, kw), not 3 (2, 3, 3)",
        ),
        (
            lambda: Conv2d(K, x=ONE, w=QuantParams([1.0] * 2, axis=1), y=ONE),
            ValueError,
            "QLinearConv: w must be quantized along axis 0, its output channels, not 1",
        ),
        (
            lambda: Conv2d(K, x=ONE, w=QuantParams([1.0] * 3, axis=0), y=ONE),
            ValueError,
            "QLinearConv: w has 3 scales for 4 output channels",
        ),
        (
            lambda: Conv2d(K, x=ONE, w=ONE, y=ONE, groups=3),
            ValueError,
            "QLinearConv: weight has 4 output channels, which 3 groups do not divide",
        ),
        (
            lambda: Conv2d(K, x=ONE, w=ONE, y=ONE, stride=0),
            ValueError,
            "stride must be a positive integer, not 0",
        ),
        (
            lambda: Conv2d(K, x=ONE, w=ONE, y=ONE, stride=2**70).output_shape((1, 2, 5, 5)),
            ValueError,
            "stride along the height must be at most 1,048,576, not 1,180,591,620,717,411,303,424",
        ),
        (
            # The only tap of its kernel is nowhere dilated, but C would still be told so.
            lambda: Conv2d(K[..., :1, :1], x=ONE, w=ONE, y=ONE, dilation=2**62).output_shape((1, 2, 5, 5)),
            ValueError,
            "dilation along the height must be at most 1,048,576, not 4,611,686,018,427,387,904",
        ),
        (
            lambda: Conv2d(K, x=ONE, w=ONE, y=ONE, padding="full"),
            ValueError,
            "padding must be one of 'same', 'same_lower', 'valid', not 'full'",
        ),
        (
            lambda: Conv2d(K, x=ONE, w=ONE, y=ONE, layout="HWC"),
            ValueError,
            "layout must be one of 'NCHW', 'NHWC', not 'HWC'",
        ),
        (
            lambda: DepthwiseConv2d(K, x=ONE, w=ONE, y=ONE),
            ValueError,
            "DepthwiseConv2d: weight must be (ic * multiplier, 1, kh, kw), "
            "not (4, 2, 3, 3) with multiplier 1",
        ),
        (
            lambda: DepthwiseConv2d(K[:, :1], x=ONE, w=ONE, y=ONE, multiplier=3),
            ValueError,
            "DepthwiseConv2d: weight must be (ic * multiplier, 1, kh, kw), "
            "not (4, 1, 3, 3) with multiplier 3",
        ),
        (
            lambda: DepthwiseConv2d(K[:, :1], x=ONE, w=ONE, y=ONE, groups=2),
            ValueError,
            "DepthwiseConv2d: groups must be left out or 4",
        ),
    ],
)
def test_layers_reject_arguments(make, error: type[Exception], message: str) -> None:
    with raises(error, message):
        make()


def layers() -> list:
    w = QuantParams([0.5, 0.25, 0.1], [0, 1, 2], axis=1)
    bias = np.array([1, 2, 3], np.int32)
    return [
        Dense(W, x=ONE, w=ONE, y=None),
        Dense(W, x=ONE, w=w, y=ONE, bias=bias),
        Conv2d(K, x=ONE, w=ONE, y=ONE),
        Conv2d(K, x=ONE, w=ONE, y=ONE, stride=2, padding="same", dilation=(1, 2), groups=2, layout="NHWC"),
        DepthwiseConv2d(K[:, :1], x=ONE, w=ONE, y=ONE, multiplier=2, padding=((1, 0), (0, 2))),
    ]


@pytest.mark.parametrize("number", range(5))
def test_layers_compare_and_copy(number: int) -> None:
    layer = layers()[number]
    assert layer == layers()[number]
    for other in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        assert other == layer and type(other) is type(layer)
        x = np.ones({2: (2, 4), 4: (2, 2, 5, 5)}[layer.weight.ndim], np.int8)
        if number == 3:
            x = np.ones((2, 5, 5, 4), np.int8)
        check(on_array(other, x, "cycle"), on_array(layer, x, "wavefront"))
    assert [layer == other for other in layers()].count(True) == 1
    assert layer != "layer"
    with pytest.raises(TypeError, match="unhashable"):
        hash(layer)


def test_layers_show_themselves() -> None:
    assert repr(layers()[1]) == (
        "QLinearMatMul(weight=<int8 (4, 3)>, x=QuantParams(scale=1.0), w=QuantParams(scale=(0.5, 0.25, 0.1), "
        "zero_point=(0, 1, 2), axis=1), y=QuantParams(scale=1.0), bias=<int32 (3,)>)"
    )
    assert repr(layers()[2]) == (
        "QLinearConv(weight=<int8 (4, 2, 3, 3)>, x=QuantParams(scale=1.0), w=QuantParams(scale=1.0), "
        "y=QuantParams(scale=1.0))"
    )
    assert repr(layers()[3]).endswith(
        "stride=(2, 2), padding='same', dilation=(1, 2), groups=2, channels_last=True)"
    )


def test_equality_looks_at_values_and_types() -> None:
    one = Dense(W, x=ONE, w=ONE, y=None, bias=[1, 2, 3])
    assert one == Dense(W.copy(), x=ONE, w=ONE, y=None, bias=np.array([1, 2, 3], np.int64))
    assert one != Dense(W, x=ONE, w=ONE, y=None, bias=[1, 2, 4]) != Dense(W, x=ONE, w=ONE, y=None)
    assert one != Dense(np.ones_like(W), x=ONE, w=ONE, y=None, bias=[1, 2, 3])
    assert one != Dense(W, x=ONE, w=ONE, y=ONE, bias=[1, 2, 3])


def test_weights_are_copied_and_read_only() -> None:
    weight = np.ones((4, 3), np.int8)
    layer = Dense(weight, x=ONE, w=ONE, y=ONE, bias=np.zeros(3, np.int32))
    weight[:] = 7
    assert (layer.weight == 1).all()
    for array in (layer.weight, layer.bias):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 3


def test_copies_are_read_only_too() -> None:
    layer = layers()[1]
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert not other.weight.flags.writeable and not other.bias.flags.writeable
