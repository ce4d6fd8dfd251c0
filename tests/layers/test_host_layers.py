"""Layers beside the array: values, shapes and types, against ONNX Runtime."""

from __future__ import annotations

import copy
import pickle
import platform
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from systolic.layers import (
    Binary,
    DequantizeLinear,
    Flatten,
    MaxPool,
    QLinearAdd,
    QLinearAveragePool,
    QLinearGlobalAveragePool,
    QuantizeLinear,
    Relu,
    Reshape,
)
from systolic.layers.host import qlinear as host_qlinear
from systolic.layers.host._functions import fma
from systolic.quant import QuantParams, dequantize, quantize

FEW = settings(deadline=None, derandomize=True, max_examples=30)
SOME = settings(deadline=None, derandomize=True, max_examples=60)

EIGHT_BITS = ("int8", "uint8")
ONE, HALF, TENTH = QuantParams(1.0), QuantParams(0.5), QuantParams(0.1, 3)
TENTH_U8 = QuantParams(0.1, 131, "uint8")

# Quotients of these are ties again and again, or decimals as quantizers write them; none reaches
# 256, where ONNX Runtime refuses to pool.
scales = st.sampled_from([1.0, 0.5, 0.25, 2.0, 3.0, 0.1, 0.02, 0.0359, 0.015625])
seeds = st.integers(0, 2**32 - 1)


@st.composite
def several_params(draw: st.DrawFn, count: int) -> list[QuantParams]:
    """So many per-tensor parameters of one 8-bit type."""
    dtype = draw(st.sampled_from(EIGHT_BITS))
    low, high = limits(dtype)
    zero = st.one_of(st.sampled_from([low, high, 0, 1]), st.integers(low, high))
    return [QuantParams(draw(scales), draw(zero), dtype) for _ in range(count)]


def limits(dtype: str) -> tuple[int, int]:
    return (-128, 127) if dtype == "int8" else (0, 255)


def codes(seed: int, shape, dtype: str) -> np.ndarray:
    """Random codes, a third of them at the ends of the range."""
    rng = np.random.default_rng(seed)
    low, high = limits(dtype)
    data = rng.integers(low, high + 1, shape)
    return np.where(rng.random(shape) < 1 / 3, rng.choice([low, high], shape), data).astype(dtype)


def raises(error: type[Exception], message: str):
    return pytest.raises(error, match=f"^{re.escape(message)}$")


def ort_run(op: str, inputs: list[np.ndarray], *, fed=(0,), domain: str = "", **attributes) -> np.ndarray:
    """Run one node; the inputs at `fed` are fed, the others are constants."""
    onnx = pytest.importorskip("onnx")
    ort = pytest.importorskip("onnxruntime")
    names = [f"i{n}" for n in range(len(inputs))]
    helper = onnx.helper
    kind = helper.np_dtype_to_tensor_dtype
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"], domain=domain, **attributes)],
        "one",
        [helper.make_tensor_value_info(names[n], kind(inputs[n].dtype), inputs[n].shape) for n in fed],
        [onnx.ValueInfoProto(name="y")],
        [onnx.numpy_helper.from_array(v, names[n]) for n, v in enumerate(inputs) if n not in fed],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {names[n]: inputs[n] for n in fed})[0]


def same(actual: np.ndarray, expected: np.ndarray) -> None:
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(actual, expected)


def run(layer, *inputs: np.ndarray) -> np.ndarray:
    """Apply a layer; its shape and type rules must announce what comes out, in memory of its own."""
    kept = [x.copy() for x in inputs]
    result = layer.apply(*inputs)
    assert result.shape == layer.output_shape(*(x.shape for x in inputs))
    assert result.dtype.name == layer.output_dtype(*(x.dtype.name for x in inputs))
    assert not any(np.shares_memory(result, x) for x in inputs)
    for before, after in zip(kept, inputs, strict=True):
        np.testing.assert_array_equal(before, after)
    return result


# Every layer: a value that describes itself

LAYERS = [
    QuantizeLinear(TENTH),
    QuantizeLinear(QuantParams([1.0, 0.1], [3, 4], axis=1)),
    DequantizeLinear(QuantParams(0.1, dtype="int32")),
    Binary("Add"),
    QLinearAdd(TENTH, HALF, ONE),
    Relu(),
    Relu(-3),
    MaxPool((2, 2)),
    MaxPool((3, 2), stride=1, padding=((0, 1), (1, 0)), dilation=(1, 2), ceil_mode=True, channels_last=True),
    QLinearAveragePool((3, 3), TENTH, ONE),
    QLinearAveragePool(
        (3, 2), TENTH_U8, TENTH_U8, stride=2, padding="same", count_include_pad=True, channels_last=True
    ),
    QLinearGlobalAveragePool(TENTH, HALF),
    QLinearGlobalAveragePool(TENTH, HALF, channels_last=True),
    Flatten(),
    Flatten(-1),
    Reshape((0, -1)),
    Reshape((2, 0), allowzero=True),
]


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_layer_is_a_value(layer):
    assert eval(repr(layer)) == layer
    assert pickle.loads(pickle.dumps(layer)) == layer
    assert copy.deepcopy(layer) == layer
    assert sum(other == layer for other in LAYERS) == 1
    with pytest.raises(AttributeError):
        layer.inputs = 3


def test_fields_are_stored_in_one_form():
    pool = MaxPool(np.int64([3, 3]), padding=1, dilation=[2, 1])
    assert (pool.kernel, pool.stride, pool.padding, pool.dilation) == (
        (3, 3),
        (1, 1),
        ((1, 1), (1, 1)),
        (2, 1),
    )
    average = QLinearAveragePool([2, 2], ONE, ONE, stride=(1, 2), padding=(1, 0))
    assert (average.stride, average.padding) == ((1, 2), ((1, 1), (0, 0)))
    assert Reshape(np.array([2, -1])).shape == (2, -1)
    assert type(Relu(np.int8(3)).zero_point) is int


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (layer, f"{type(layer).__name__} takes {'2 inputs' if layer.inputs == 2 else 'one input'}, not 3")
        for layer in LAYERS
    ],
    ids=repr,
)
def test_number_of_inputs(layer, message):
    x = np.zeros((1, 2, 3, 3), np.int8)
    for call in (
        lambda: layer.apply(x, x, x),
        lambda: layer.output_shape(x.shape, x.shape, x.shape),
        lambda: layer.output_dtype("int8", "int8", "int8"),
    ):
        with raises(TypeError, message):
            call()


@pytest.mark.parametrize("layer", [layer for layer in LAYERS if not isinstance(layer, Reshape)], ids=repr)
def test_empty_batch(layer):
    dtype = "int8" if isinstance(layer, Relu) else "float32"
    for name in ("a", "x"):
        dtype = getattr(getattr(layer, name, None), "dtype", dtype)
    x = np.zeros((0, 2, 4, 4), dtype)
    assert run(layer, *[x] * (layer.inputs or 1)).size == 0


# QuantizeLinear, DequantizeLinear


@FEW
@given(p=several_params(1), seed=seeds)
def test_quantize_and_dequantize_layers(p, seed):
    (p,) = p
    x = (np.random.default_rng(seed).integers(-300, 300, (2, 3)) * np.float32(0.5 * p.scale)).astype(
        np.float32
    )
    same(run(QuantizeLinear(p), x), quantize(x, p))
    same(run(QuantizeLinear(p), x), ort_run("QuantizeLinear", [x, p.scales, p.zero_points]))
    q = codes(seed, (2, 3), p.dtype)
    same(run(DequantizeLinear(p), q), dequantize(q, p))


def test_quantize_layers_refuse():
    per_channel = QuantParams([1.0, 2.0], axis=1)
    with raises(TypeError, "QuantizeLinear takes float32 or float64 or float16, not int8"):
        QuantizeLinear(ONE).apply(np.zeros(3, np.int8))
    with raises(TypeError, "DequantizeLinear takes int8, not uint8, as its parameters say"):
        DequantizeLinear(ONE).output_dtype("uint8")
    for layer in (QuantizeLinear(per_channel), DequantizeLinear(per_channel)):
        name = type(layer).__name__
        with raises(ValueError, f"{name} takes 2 channels along axis 1, one per scale, not (2, 3); they fit axis=0"):
            layer.output_shape((2, 3))
        with raises(ValueError, f"{name} takes 2 channels along axis 1, one per scale, not (2,); they fit axis=0"):
            layer.output_shape((2,))
    with raises(TypeError, "y must be a QuantParams of int8 or uint8, not int32"):
        QuantizeLinear(QuantParams(1.0, dtype="int32"))
    with raises(TypeError, "x must be a QuantParams, not float 0.5"):
        DequantizeLinear(0.5)


# Add


@pytest.mark.parametrize(("zero_point", "expected"), [(0, [0, 0, 1, 2, 2, 2]), (1, [1, 2, 2, 2, 3, 4])])
def test_add_ties(zero_point, expected):
    layer = QLinearAdd(HALF, HALF, QuantParams(1.0, zero_point))
    same(run(layer, np.arange(6, dtype=np.int8), np.zeros(6, np.int8)), np.int8(expected))


NEAR_TIE = [
    QuantParams(0.02534690499305725, -106),
    QuantParams(0.035809919238090515, -120),
    QuantParams(0.0365859717130661, -105),
]


def test_add_is_fused():
    a, b, y = NEAR_TIE
    same(run(QLinearAdd(a, b, y), np.int8([-114]), np.int8([-122])), np.int8([-112]))
    apart = dequantize(np.int8([-114]), a) + dequantize(np.int8([-122]), b)
    assert quantize(apart, y).tolist() == [-113]


# ARM adds with a 22-bit fixed-point multiplier.
x86 = pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="QLinearAdd of x86")


def ort_add(a: np.ndarray, b: np.ndarray, layer: QLinearAdd) -> np.ndarray:
    inputs = [a, layer.a.scales, layer.a.zero_points, b, layer.b.scales, layer.b.zero_points]
    inputs += [layer.y.scales, layer.y.zero_points]
    return ort_run("QLinearAdd", inputs, fed=(0, 3), domain="com.microsoft")


@pytest.mark.slow
@x86
@SOME
@given(
    p=several_params(3),
    shapes=hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=5),
    seed=seeds,
)
def test_add_equals_onnx_runtime(p, shapes, seed):
    first, second = shapes.input_shapes
    a, b = codes(seed, first, p[0].dtype), codes(seed + 1, second, p[0].dtype)
    same(run(QLinearAdd(*p), a, b), ort_add(a, b, QLinearAdd(*p)))


@x86
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((300, 256), (300, 256)),
        ((300, 1), (300, 256)),
        ((300, 256), (300, 1)),
        ((1, 256), (300, 256)),
        ((), (300, 256)),
        ((2, 3, 1, 1), (2, 3, 110, 110)),
        ((300, 1, 256), (1, 3, 1)),
    ],
)
@pytest.mark.parametrize("dtype", EIGHT_BITS)
def test_add_by_table_equals_onnx_runtime(first, second, dtype):
    zeros = (-106, -120, -105) if dtype == "int8" else (22, 8, 23)
    p = (0.02534690499305725, 0.035809919238090515, 0.0365859717130661)
    layer = QLinearAdd(*(QuantParams(s, z, dtype) for s, z in zip(p, zeros, strict=True)))
    a, b = codes(1, first, dtype), codes(2, second, dtype)
    result = run(layer, a, b)
    assert result.size >= host_qlinear._TABLE_FROM
    same(result, ort_add(a, b, layer))


@x86
@pytest.mark.parametrize(
    ("first", "second", "swapped"),
    [
        ((2,), (2,), False),
        ((2,), (1,), False),
        ((2, 2), (1, 2), False),
        ((1, 2), (2, 2), False),
        ((2, 1), (2, 1), False),
        ((3, 4, 1), (4, 1), False),
        ((1,), (2,), True),
        ((2, 1), (1, 2), True),
        ((2, 2, 1), (2, 1, 2), True),
        ((3, 1, 1), (1, 4, 1), True),
        ((1,), (1,), True),
        ((1, 1), (), True),
    ],
)
def test_add_roles(first, second, swapped):
    # Codes a rounding error away from a tie: -113, but -112 where A and B swap roles.
    layer = QLinearAdd(*NEAR_TIE)
    a, b = np.full(first, -114, np.int8), np.full(second, -122, np.int8)
    result = run(layer, a, b)
    assert set(result.ravel().tolist()) == {-112 if swapped else -113}
    same(result, ort_add(a, b, layer))


@x86
@pytest.mark.parametrize(
    "p",
    [
        [QuantParams(0.031, -124), QuantParams(0.07, 80), QuantParams(0.26, 105)],
        [QuantParams(0.224, 111), QuantParams(0.111, 80), QuantParams(0.268, -128)],
        [QuantParams(0.103, 29), QuantParams(0.305, -30), QuantParams(0.184, 127)],
        NEAR_TIE,
    ],
)
def test_add_of_all_codes_equals_onnx_runtime(p):
    # Chosen so that another order of the roundings changes some of the codes.
    a, b = (np.ascontiguousarray(codes) for codes in np.mgrid[-128:128, -128:128].astype(np.int8))
    same(run(QLinearAdd(*p), a, b), ort_add(a, b, QLinearAdd(*p)))


@FEW
@given(p=several_params(3), seed=seeds)
def test_add_table_equals_formula(p, seed):
    a, b = codes(seed, (3, 1, 5), p[0].dtype)[..., ::-1], codes(seed + 1, (4, 5), p[0].dtype).T.copy().T
    expected = run(QLinearAdd(*p), a, b)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host_qlinear, "_TABLE_FROM", 7)
        same(run(QLinearAdd(*p), a, b), expected)


def nearest_float32(value: Fraction) -> np.float32:
    guess = np.float32(float(value))
    near = [np.nextafter(guess, np.float32(-np.inf)), guess, np.nextafter(guess, np.float32(np.inf))]
    # The nearest; of two equally near the one whose last bit is 0.
    return min(near, key=lambda f: (abs(Fraction(float(f)) - value), int(f.view(np.int32)) & 1))


@settings(FEW, max_examples=200)
@given(
    scale=st.floats(2.0**-60, 2.0**60, width=32),
    code=st.integers(-128, 255),
    term=st.floats(-(2.0**70), 2.0**70, width=32),
)
# The product is the tie 1 + 2^-24; float64 forgets the term that decides.
@example(scale=172961 * 2.0**-24, code=97, term=2.0**-60)
@example(scale=172961 * 2.0**-24, code=97, term=-(2.0**-60))
@example(scale=172961 * 2.0**-24, code=-97, term=2.0**-60)
@example(scale=172961 * 2.0**-24, code=-97, term=-(2.0**-60))
@example(scale=172961 * 2.0**-24, code=97, term=0.0)
@example(scale=1.0, code=1, term=-1.0)
@example(scale=2.0**-149, code=3, term=2.0**-149)
def test_fma_rounds_once(scale, code, term):
    result = fma(np.float32(scale), np.int16([code]), np.float32([term]))
    expected = nearest_float32(Fraction(scale) * code + Fraction(term))
    assert result.dtype == np.float32 and result.tolist() == [float(expected)]


@pytest.mark.slow
@settings(FEW, max_examples=200)
@given(
    a=st.floats(-(2.0**30), 2.0**30, width=32),
    b=st.floats(-(2.0**30), 2.0**30, width=32),
    term=st.floats(-(2.0**70), 2.0**70, width=32),
)
# (1 + 2^-12)^2 is the tie 1 + 2^-11 + 2^-24; float64 forgets the term that decides.
@example(a=1 + 2.0**-12, b=1 + 2.0**-12, term=2.0**-70)
@example(a=1 + 2.0**-12, b=1 + 2.0**-12, term=-(2.0**-70))
@example(a=-1 - 2.0**-12, b=1 + 2.0**-12, term=-(2.0**-70))
@example(a=1 + 2.0**-12, b=1 + 2.0**-12, term=0.0)
def test_fma_of_floats_rounds_once(a, b, term):
    result = fma(np.float32([a]), np.float32([b]), np.float32(term))
    expected = nearest_float32(Fraction(a) * Fraction(b) + Fraction(term))
    assert result.dtype == np.float32 and result.tolist() == [float(expected)]


@pytest.mark.parametrize("dtype", ["float32", "int32", "int8", "uint8"])
def test_add_plain(dtype):
    if dtype == "float32":
        a, b = np.float32([[1.5], [3e38]]), np.float32([0.25, 3e38, np.nan])
    else:
        info = np.iinfo(dtype)
        a, b = np.array([[info.max], [5]], dtype), np.array([1, info.max, info.min], dtype)
    same(run(Binary("Add"), a, b), ort_run("Add", [a, b], fed=(0, 1)))


def test_add_plain_scalars_wrap():
    same(run(Binary("Add"), np.array(127, np.int8), np.array(1, np.int8)), np.array(-128, np.int8))


def test_add_is_the_smallest_code_where_int32_overflows():
    layer = QLinearAdd(QuantParams(1e8), ONE, ONE)
    same(run(layer, np.int8([100, -100, 1]), np.int8([0, 0, 0])), np.int8([-128, -128, 127]))
    # An infinite quotient of scales: 0 times it is NaN.
    layer = QLinearAdd(QuantParams(3e38), ONE, QuantParams(1e-30))
    same(run(layer, np.int8([1, 0, -1]), np.int8([0, 0, 0])), np.int8([-128, -128, -128]))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: QLinearAdd(ONE, None, ONE), TypeError, "b must be a QuantParams, not NoneType None"),
        (
            lambda: QLinearAdd(ONE, ONE, TENTH_U8),
            TypeError,
            "a, b and y must have one dtype, not int8, int8 and uint8",
        ),
        (
            lambda: QLinearAdd(ONE, QuantParams([1.0], axis=0), ONE),
            ValueError,
            "b must have one scale and one zero point, not one per channel",
        ),
        (
            lambda: Binary("Add").output_shape((2, 3), (2,)),
            ValueError,
            "Add takes shapes that broadcast together, not (2, 3) and (2,); "
            "from the last axis backwards sizes must be equal or 1",
        ),
        (
            lambda: QLinearAdd(ONE, ONE, ONE).output_dtype("int8", "uint8"),
            TypeError,
            "QLinearAdd takes int8, not uint8, as its parameters say",
        ),
        (
            lambda: Binary("Add").output_dtype("int8", "int32"),
            TypeError,
            "Add takes two tensors of one type, not int8 and int32",
        ),
        (
            lambda: Binary("Add").output_dtype("int8", "int16"),
            TypeError,
            "Add takes two tensors of one type, not int8 and int16",
        ),
    ],
)
def test_add_refuses(call, error, message):
    with raises(error, message):
        call()


# Relu


@FEW
@given(p=several_params(1), seed=seeds)
def test_relu_on_codes(p, seed):
    (p,) = p
    q = codes(seed, (3, 5), p.dtype)
    same(run(Relu(p.zero_point), q), quantize(np.maximum(dequantize(q, p), 0), p))


@pytest.mark.parametrize("dtype", ["int8", "int32", "float32"])
def test_relu_equals_onnx_runtime(dtype):
    x = np.array([-5, -1, 0, 1, 100], dtype)
    if dtype == "float32":
        x = np.append(x, np.float32([np.nan, np.inf, -np.inf, -1e-45]))
    same(run(Relu(), x), ort_run("Relu", [x]))


def test_relu_refuses():
    with raises(ValueError, "zero_point must be an integer of at most 255, not 256"):
        Relu(256)
    with raises(TypeError, "zero_point must be an integer, not float 0.5"):
        Relu(0.5)
    with raises(ValueError, "the zero point of int8 must be in -128..127, not 200"):
        Relu(200).apply(np.zeros(3, np.int8))
    with raises(ValueError, "the zero point of float32 must be in 0..0, not 3"):
        Relu(3).apply(np.zeros(3, np.float32))
    with pytest.raises(TypeError, match=r"^Relu takes float32 or .* or uint64, not bool$"):
        Relu().apply(np.zeros(3, bool))


# Pooling


@st.composite
def windows(draw: st.DrawFn, dilated: bool = False) -> tuple[tuple[int, ...], dict, dict]:
    """An image's (batch, ic, ih, iw), and a window over it in our words and in ONNX's."""
    shape = tuple(draw(st.integers(1, high)) for high in (2, 3, 7, 7))
    kernel = tuple(draw(st.integers(1, 4)) for _ in range(2))
    stride = tuple(draw(st.integers(1, 3)) for _ in range(2))
    padding = draw(
        st.one_of(
            st.sampled_from(["same", "same_lower", "valid"]),
            st.tuples(*(st.tuples(st.integers(0, k - 1), st.integers(0, k - 1)) for k in kernel)),
        )
    )
    if padding in ("same", "same_lower"):
        # ONNX Runtime's pools pad negatively where windows leave gaps; ONNX has no such padding.
        stride = tuple(min(s, k) for s, k in zip(stride, kernel, strict=True))
    ceil_mode = draw(st.booleans()) and not isinstance(padding, str)
    ours = {"kernel": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    theirs = {"kernel_shape": kernel, "strides": stride, "ceil_mode": int(ceil_mode)}
    # ONNX Runtime forgets the dilation where it computes "same" padding; ONNX does not.
    if dilated and padding not in ("same", "same_lower"):
        ours["dilation"] = theirs["dilations"] = tuple(draw(st.integers(1, 2)) for _ in range(2))
    if isinstance(padding, str):
        names = {"same": "SAME_UPPER", "same_lower": "SAME_LOWER", "valid": "VALID"}
        theirs["auto_pad"] = names[padding]
    else:
        theirs["pads"] = [padding[0][0], padding[1][0], padding[0][1], padding[1][1]]
    return shape, ours, theirs


def fits(layer, shape: tuple[int, ...]) -> bool:
    try:
        layer.output_shape(shape)
    except ValueError as error:
        assert "kernel spans" in str(error)
        return False
    return True


def nhwc(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


@pytest.mark.slow
@SOME
@given(window=windows(dilated=True), dtype=st.sampled_from([*EIGHT_BITS, "float32"]), seed=seeds)
def test_max_pool_equals_onnx_runtime(window, dtype, seed):
    shape, ours, theirs = window
    layer = MaxPool(**ours)
    assume(fits(layer, shape))
    x = codes(seed, shape, "int8").astype(dtype) if dtype == "float32" else codes(seed, shape, dtype)
    expected = ort_run("MaxPool", [x], **theirs)
    if dtype == "float32":
        # A window wholly in the padding: minus infinity here, the lowest finite number there.
        expected[expected == np.finfo(np.float32).min] = -np.inf
    same(run(layer, x), expected)
    same(run(MaxPool(**ours, channels_last=True), nhwc(x)), nhwc(expected))


def test_max_pool_same_padding_with_dilation():
    # ONNX Runtime pads as if the kernel of 2 had no dilation: one pixel, at the end.
    x = np.int8([4, 1, 2, 3]).reshape(1, 1, 4, 1)
    layer = MaxPool((2, 1), dilation=(2, 1), padding="same")
    same(run(layer, x).ravel(), np.int8([4, 3, 2]))


def test_pools_count_an_incomplete_first_window_with_ceil_mode():
    x = np.int8([3, 5]).reshape(1, 1, 1, 2)
    for size, kernel, stride in ((2, 3, 2), (2, 5, 4)):
        same(run(MaxPool((1, kernel), stride=stride, ceil_mode=True), x).ravel(), np.int8([5]))
        same(run(QLinearAveragePool((1, kernel), ONE, ONE, stride=stride, ceil_mode=True), x).ravel(), np.int8([4]))
        with pytest.raises(ValueError, match=f"spans {kernel} pixels of the width, more than the padded image's {size}"):
            run(MaxPool((1, kernel), stride=stride), x)


@pytest.mark.parametrize("padding", ["same", "same_lower"])
def test_pools_same_padding_with_gaps(padding):
    x = np.int8([1, 2, 3, 4]).reshape(1, 1, 1, 4)
    for layer in (
        MaxPool((1, 1), stride=(1, 3), padding=padding),
        QLinearAveragePool((1, 1), ONE, ONE, stride=(1, 3), padding=padding),
    ):
        same(run(layer, x).ravel(), np.int8([1, 4]))


def test_max_pool_float_specials():
    x = np.float32([[1, np.nan], [-np.inf, -np.inf]]).reshape(1, 1, 2, 2)
    same(run(MaxPool((1, 2)), x), np.float32([np.nan, -np.inf]).reshape(1, 1, 2, 1))


def test_max_pool_padding_is_the_minimum():
    x = np.full((1, 1, 2, 2), -128, np.int8)
    same(run(MaxPool((2, 2), stride=2, padding=1), x), x)


@pytest.mark.parametrize(("zero_point", "expected"), [(0, [0, 2, 2, 2]), (1, [2, 2, 4, 4])])
def test_average_pool_ties(zero_point, expected):
    x = np.int8([0, 1, 1, 2, 2, 3, 1, 4]).reshape(1, 1, 1, 8)
    layer = QLinearAveragePool((1, 2), ONE, QuantParams(1.0, zero_point), stride=(1, 2))
    same(run(layer, x).ravel(), np.int8(expected))


@pytest.mark.parametrize(("zero_point", "expected"), [(0, [0, 2, 2, 2]), (1, [1, 3, 3, 3])])
def test_global_average_pool_ties(zero_point, expected):
    x = np.int8([[0, 1], [1, 2], [2, 3], [1, 4]]).reshape(1, 4, 1, 2)
    y = QuantParams(1.0, zero_point)
    same(run(QLinearGlobalAveragePool(ONE, y), x).ravel(), np.int8(expected))
    # A window that is the whole image follows the same rule: the zero point comes after rounding.
    same(run(QLinearAveragePool((1, 2), ONE, y), x).ravel(), np.int8(expected))
    same(run(QLinearAveragePool((1, 2), ONE, y, padding="same", stride=2), x).ravel(), np.int8(expected))
    # With padding it does not, whatever the padding holds.
    padded = run(QLinearAveragePool((1, 2), ONE, y, stride=2, padding=((0, 0), (1, 0))), x).ravel()
    apart = QLinearAveragePool((1, 1), ONE, y)
    same(padded, run(apart, np.ascontiguousarray(x[..., :1])).ravel())


def pooling_inputs(x: np.ndarray, p: list[QuantParams]) -> list[np.ndarray]:
    return [x, p[0].scales, p[0].zero_points, p[1].scales, p[1].zero_points]


@pytest.mark.slow
@SOME
@given(window=windows(), p=several_params(2), include=st.booleans(), seed=seeds)
def test_average_pool_equals_onnx_runtime(window, p, include, seed):
    shape, ours, theirs = window
    layer = QLinearAveragePool(x=p[0], y=p[1], count_include_pad=include, **ours)
    assume(fits(layer, shape))
    x = codes(seed, shape, p[0].dtype)
    theirs |= {"count_include_pad": int(include), "domain": "com.microsoft"}
    expected = ort_run("QLinearAveragePool", pooling_inputs(x, p), **theirs)
    same(run(layer, x), expected)
    channels_last = QLinearAveragePool(x=p[0], y=p[1], count_include_pad=include, channels_last=True, **ours)
    same(run(channels_last, nhwc(x)), nhwc(expected))
    theirs["channels_last"] = 1
    same(run(channels_last, nhwc(x)), ort_run("QLinearAveragePool", pooling_inputs(nhwc(x), p), **theirs))


@pytest.mark.slow
@FEW
@given(
    p=several_params(2),
    shape=st.tuples(st.integers(1, 2), st.integers(1, 40), st.integers(1, 8), st.integers(1, 8)),
    seed=seeds,
)
def test_global_average_pool_equals_onnx_runtime(p, shape, seed):
    x = codes(seed, shape, p[0].dtype)
    expected = ort_run("QLinearGlobalAveragePool", pooling_inputs(x, p), domain="com.microsoft")
    same(run(QLinearGlobalAveragePool(*p), x), expected)
    last = QLinearGlobalAveragePool(*p, channels_last=True)
    same(run(last, nhwc(x)), nhwc(expected))
    attributes = {"domain": "com.microsoft", "channels_last": 1}
    same(run(last, nhwc(x)), ort_run("QLinearGlobalAveragePool", pooling_inputs(nhwc(x), p), **attributes))


def test_average_pool_sums_in_window_order():
    # Columns first or from the bottom upwards: 42.
    p = [QuantParams(0.153, 2), QuantParams(0.13, 50)]
    x = np.int8([[-52, -4, -118, 0], [-122, 74, 78, 0], [64, -36, 69, 0]]).reshape(1, 1, 3, 4)
    result = run(QLinearAveragePool((3, 3), *p, stride=3), x)
    assert result.ravel().tolist() == [41]
    attributes = {"kernel_shape": [3, 3], "strides": [3, 3], "domain": "com.microsoft"}
    same(result, ort_run("QLinearAveragePool", pooling_inputs(x, p), **attributes))


def test_global_average_pool_rounds_in_this_order():
    # (x.scale / y.scale) / n gives -110.
    p = [QuantParams(0.286), QuantParams(0.328)]
    x = np.int8([-128] * 10 + [-114]).reshape(1, 1, 1, 11)
    result = run(QLinearGlobalAveragePool(*p), x)
    assert result.ravel().tolist() == [-111]
    same(result, ort_run("QLinearGlobalAveragePool", pooling_inputs(x, p), domain="com.microsoft"))


def test_pools_of_any_scales_are_quiet():
    x = np.full((1, 1, 2, 2), 100, np.int8)
    huge, tiny = QuantParams(1e30), QuantParams(1e-30)
    assert run(QLinearAveragePool((1, 1), QuantParams(1e4), ONE), x).ravel().tolist() == [127] * 4
    # Means of 2^31 codes and more are the smallest code; so are those of windows whose sums are infinite.
    assert run(QLinearAveragePool((1, 1), huge, tiny), x).ravel().tolist() == [-128] * 4
    assert run(QLinearAveragePool((1, 2), QuantParams(3e38), ONE, stride=2, padding=((0, 0), (1, 0))), x).max() == -128
    assert run(QLinearAveragePool((1, 1), huge, tiny), -x).ravel().tolist() == [-128] * 4
    assert run(QLinearGlobalAveragePool(tiny, huge), x).ravel().tolist() == [0]


def test_pools_take_any_memory_layout():
    x = codes(0, (2, 3, 6, 6), "int8")
    for layer in (
        MaxPool((3, 3), stride=2),
        QLinearAveragePool((3, 3), TENTH, HALF, stride=3, padding=1),
        QLinearGlobalAveragePool(TENTH, HALF),
    ):
        same(run(layer, x.transpose(0, 1, 3, 2)), run(layer, x.transpose(0, 1, 3, 2).copy()))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: MaxPool((2, 2), padding=2),
            ValueError,
            "padding must be smaller than the kernel (2, 2), not ((2, 2), (2, 2)); "
            "pad the input itself where windows wholly outside it are meant",
        ),
        (lambda: MaxPool((2, 0)), ValueError, "kernel[1] must be a positive integer, not 0"),
        (lambda: MaxPool(2), TypeError, "kernel must be a sequence of integers, not int 2"),
        (
            lambda: MaxPool((2, 2), stride=(2, 2, 2)),
            ValueError,
            "stride must be an integer or a pair (height, width), not (2, 2, 2)",
        ),
        (lambda: MaxPool((2, 2), stride=0), ValueError, "stride must be a positive integer, not 0"),
        (lambda: MaxPool((2, 2), dilation=1.0), TypeError, "dilation must be an integer, not float 1.0"),
        (lambda: MaxPool((2, 2), ceil_mode=1), TypeError, "ceil_mode must be True or False, not int 1"),
        (
            lambda: MaxPool((2, 2), indices="rows"),
            ValueError,
            "indices must be one of 'row', 'column', not 'rows'",
        ),
        (
            lambda: MaxPool((2, 2), indices="row", channels_last=True),
            ValueError,
            "indices are of inputs whose channels are the second axis",
        ),
        (
            lambda: MaxPool((2, 2)).apply(np.zeros((1, 1, 4, 4), np.int32)),
            TypeError,
            "MaxPool takes float32 or float64 or float16 or int8 or uint8, not int32",
        ),
        (
            lambda: MaxPool((2, 2)).apply(np.zeros((1, 4, 4), np.int8)),
            ValueError,
            "MaxPool over 2 spatial axes takes (batch, channels, ...) of 4 axes, those of the window not empty, "
            "not (1, 4, 4)",
        ),
        (
            lambda: MaxPool((2, 2), channels_last=True).output_shape((1, 0, 4, 2)),
            ValueError,
            "MaxPool over 2 spatial axes takes (batch, ..., channels) of 4 axes, those of the window not empty, "
            "not (1, 0, 4, 2)",
        ),
        (
            lambda: MaxPool((3, 3)).output_shape((1, 1, 3, 2)),
            ValueError,
            "the kernel spans 3 pixels of the width, more than the padded image's 2; "
            "use a smaller kernel or more padding",
        ),
        (
            lambda: QLinearAveragePool((2, 2), ONE, TENTH_U8),
            TypeError,
            "x and y must have one dtype, not int8 and uint8",
        ),
        (
            lambda: QLinearAveragePool((2, 2), ONE, ONE, count_include_pad=1),
            TypeError,
            "count_include_pad must be True or False, not int 1",
        ),
        (
            lambda: QLinearAveragePool((2, 2), ONE, ONE).apply(np.zeros((1, 1, 4, 4), np.uint8)),
            TypeError,
            "QLinearAveragePool takes int8, not uint8, as its parameters say",
        ),
        (
            lambda: QLinearGlobalAveragePool(ONE, QuantParams([1.0], axis=0)),
            ValueError,
            "y must have one scale and one zero point, not one per channel",
        ),
        (
            lambda: QLinearGlobalAveragePool(ONE, ONE, channels_last=1),
            TypeError,
            "channels_last must be True or False, not int 1",
        ),
        (
            lambda: QLinearGlobalAveragePool(ONE, ONE).output_shape((1, 2, 3, 0)),
            ValueError,
            "QLinearGlobalAveragePool takes batch, channels and spatial axes of at least one element, "
            "not (1, 2, 3, 0)",
        ),
    ],
)
def test_pools_refuse(call, error, message):
    with raises(error, message):
        call()


# Flatten, Reshape


@FEW
@given(shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4), data=st.data())
def test_flatten_equals_onnx_runtime(shape, data):
    axis = data.draw(st.integers(-len(shape), len(shape)))
    x = codes(0, shape, "int8")
    same(run(Flatten(axis), x), ort_run("Flatten", [x], axis=axis))


@pytest.mark.parametrize(
    ("shape", "target", "allowzero"),
    [
        ((2, 3, 4), (6, 4), False),
        ((2, 3, 4), (0, -1), False),
        ((2, 3, 4), (-1,), False),
        ((2, 3, 4), (4, 0, 2), False),
        ((2, 3, 4), (0, 0, 2, 2), False),
        ((1, 1), (), False),
        ((), (1, -1), False),
        ((0, 4), (0, 4), False),
        ((0, 4), (0, 0, 5), False),
        ((0, 4), (2, -1), False),
        ((0, 4), (3, 0), True),
    ],
)
def test_reshape_equals_onnx_runtime(shape, target, allowzero):
    x = codes(0, shape, "uint8")
    expected = ort_run("Reshape", [x, np.array(target, np.int64)], allowzero=int(allowzero))
    same(run(Reshape(target, allowzero=allowzero), x), expected)


def test_reshape_flattens_an_empty_batch():
    assert run(Reshape((0, -1)), np.zeros((0, 4, 5), np.int8)).shape == (0, 20)


def test_shape_layers_read_in_c_order():
    packed = codes(0, (3, 4, 2), "int8")
    for x in (packed.T, packed.transpose(2, 0, 1)):
        same(run(Flatten(), x), x.copy(order="C").reshape(2, 12))
        same(run(Reshape((-1,)), x), x.copy(order="C").reshape(-1))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Flatten(1.0), TypeError, "axis must be an integer, not float 1.0"),
        (
            lambda: Flatten(3).output_shape((2, 3)),
            ValueError,
            "Flatten's axis must be in -2..2 for an input (2, 3), not 3",
        ),
        (lambda: Reshape(4), TypeError, "shape must be a sequence of integers, not int 4"),
        (lambda: Reshape("23"), TypeError, "shape must be a sequence of integers, not str '23'"),
        (lambda: Reshape((2, 3.0)), TypeError, "shape[1] must be an integer, not float 3.0"),
        (lambda: Reshape((2, -2)), ValueError, "shape[1] must be an integer of at least -1, not -2"),
        (lambda: Reshape((-1, -1)), ValueError, "shape must hold at most one -1, not (-1, -1)"),
        (
            lambda: Reshape((0, -1), allowzero=True),
            ValueError,
            "shape must not hold both -1 and 0 with allowzero, not (0, -1)",
        ),
        (lambda: Reshape((0,), allowzero=1), TypeError, "allowzero must be True or False, not int 1"),
        (
            lambda: Reshape((2, 0, 0)).output_shape((2, 3)),
            ValueError,
            "Reshape to (2, 0, 0) copies the size of axis 2, which an input (2, 3) does not have",
        ),
        (
            lambda: Reshape((4, 2)).output_shape((2, 3)),
            ValueError,
            "Reshape to (4, 2) needs another number of elements than an input (2, 3) has (6)",
        ),
        (
            lambda: Reshape((4, -1)).output_shape((2, 3)),
            ValueError,
            "Reshape to (4, -1) needs another number of elements than an input (2, 3) has (6)",
        ),
        (
            lambda: Reshape((0, 2, -1)).output_shape((0, 5)),
            ValueError,
            "Reshape to (0, 2, -1) needs another number of elements than an input (0, 5) has (0)",
        ),
    ],
)
def test_shape_layers_refuse(call, error, message):
    with raises(error, message):
        call()


def test_large_tensors_are_quantized_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    from systolic.layers.host import quantize

    x = np.random.default_rng(0).normal(size=(7, 11)).astype(np.float32)
    params = QuantParams(0.1, 3)
    codes = QuantizeLinear(params).apply(x)
    numbers = DequantizeLinear(params).apply(codes)
    monkeypatch.setattr(quantize, "MOVED", 10)
    np.testing.assert_array_equal(QuantizeLinear(params).apply(x), codes, strict=True)
    np.testing.assert_array_equal(DequantizeLinear(params).apply(codes), numbers, strict=True)
