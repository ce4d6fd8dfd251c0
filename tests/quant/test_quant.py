"""Quantization parameters, and float <-> codes <-> sums, against ONNX Runtime and exact values."""

from __future__ import annotations

import copy
import json
import pickle
import re
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from systolic.quant import QuantParams, as_params, blocks, dequantize, multiplier, quantize, requantize

FEW = settings(deadline=None, derandomize=True, max_examples=30)

scales = st.one_of(
    st.sampled_from([1.0, 0.5, 0.25, 2.0, 0.1, 0.02, 1e-45, 3.4028235e38]),
    st.floats(min_value=2.0**-149, max_value=3.4028234663852886e38, width=32),
)


@st.composite
def params(draw: st.DrawFn, channels: int | None = None, axis: int = 0) -> QuantParams:
    """Any 8-bit parameters, per tensor or with so many channels."""
    dtype = draw(st.sampled_from(["int8", "uint8"]))
    low, high = (-128, 127) if dtype == "int8" else (0, 255)
    zero = st.one_of(st.sampled_from([low, high, 3]), st.integers(low, high))
    if channels is None:
        return QuantParams(draw(scales), draw(zero), dtype)
    several = st.lists(st.tuples(scales, zero), min_size=channels, max_size=channels)
    drawn = draw(several)
    return QuantParams([s for s, _ in drawn], [z for _, z in drawn], dtype, axis)


def raises(error: type[Exception], message: str):
    return pytest.raises(error, match=f"^{re.escape(message)}$")


def ort_run(op: str, inputs: list[np.ndarray], **attributes):
    """Run one node; the first input is fed, the others are constants."""
    onnx = pytest.importorskip("onnx")
    ort = pytest.importorskip("onnxruntime")
    names = [f"i{n}" for n in range(len(inputs))]
    helper = onnx.helper
    kind = helper.np_dtype_to_tensor_dtype(inputs[0].dtype)
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"], **attributes)],
        "one",
        [helper.make_tensor_value_info(names[0], kind, inputs[0].shape)],
        [onnx.ValueInfoProto(name="y")],
        [onnx.numpy_helper.from_array(np.asarray(v), n) for n, v in zip(names[1:], inputs[1:], strict=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {names[0]: inputs[0]})[0]


def same(actual: np.ndarray, expected: np.ndarray) -> None:
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(actual, expected)


# QuantParams


def test_params_are_normalized():
    p = QuantParams(np.float64(0.1), np.uint8(128), np.dtype("uint8"))
    assert (type(p.scale), type(p.zero_point), p.dtype, p.axis) == (float, int, "uint8", None)
    assert p.scale == float(np.float32(0.1)) != 0.1
    assert p == QuantParams(np.array(0.1), np.array(128), "uint8")
    assert (p.qmin, p.qmax, p.per_channel) == (0, 255, False)
    same(p.scales, np.array(0.1, np.float32))
    same(p.zero_points, np.array(128, np.uint8))


def test_params_per_channel():
    p = QuantParams(np.float32([0.1, 0.2]), 3, axis=np.int64(1))
    assert p.scale == (float(np.float32(0.1)), float(np.float32(0.2)))
    assert (p.zero_point, p.axis, type(p.axis), p.per_channel) == (3, 1, int, True)
    same(p.scales, np.float32([0.1, 0.2]))
    same(p.zero_points, np.int8([3, 3]))
    same(QuantParams(0.5, [1, 2, 3], axis=0).scales, np.float32([0.5] * 3))
    assert (p.qmin, p.qmax) == (-128, 127)
    assert QuantParams(1, dtype="int32").qmax == 2**31 - 1


def test_params_arrays_are_read_only() -> None:
    params = QuantParams([0.5, 0.25], [1, 2], axis=0)
    for array in (params.scales, params.zero_points):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 7
    assert (params.scale, params.zero_point) == ((0.5, 0.25), (1, 2))


@FEW
@given(st.one_of(params(), params(channels=1), params(channels=4, axis=-1)))
@example(QuantParams(0.1))
@example(QuantParams(0.1, dtype="int32"))
def test_params_round_trip(p: QuantParams):
    assert eval(repr(p)) == p
    assert hash(pickle.loads(pickle.dumps(p))) == hash(p)
    assert pickle.loads(pickle.dumps(p)) == p == copy.deepcopy(p)
    described = json.loads(json.dumps(p.to_dict()))
    assert described == p.to_dict()
    assert QuantParams.from_dict(described) == p


def test_params_differ():
    distinct = [
        QuantParams(1.0),
        QuantParams(2.0),
        QuantParams(1.0, 1),
        QuantParams(1.0, 0, "uint8"),
        QuantParams([1.0], axis=0),
        QuantParams([1.0], axis=1),
    ]
    assert len(set(distinct)) == len(distinct)


def test_params_repr():
    assert repr(QuantParams(0.1)) == "QuantParams(scale=0.1)"
    assert repr(QuantParams([0.1, 1], [3, 4], "uint8", 1)) == (
        "QuantParams(scale=(0.1, 1.0), zero_point=(3, 4), dtype='uint8', axis=1)"
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((float("nan"),), ValueError, "scale must be finite and above zero, not nan"),
        ((float("inf"),), ValueError, "scale must be finite and above zero, not inf"),
        ((0,), ValueError, "scale must be finite and above zero, not 0.0"),
        ((-0.5,), ValueError, "scale must be finite and above zero, not -0.5"),
        ((10**400,), ValueError, "scale must be finite and above zero, not inf"),
        ((1e-50,), ValueError, "scale must be above zero in float32, but 1e-50 underflows (smallest: 1e-45)"),
        (
            (1e39,),
            ValueError,
            "scale must be finite in float32, but 1e+39 overflows (largest: 3.4028235e+38)",
        ),
        (([1.0, 0.0], 0, "int8", 0), ValueError, "scale[1] must be finite and above zero, not 0.0"),
        (("0.5",), TypeError, "scale must be a number, not str '0.5'"),
        ((True,), TypeError, "scale must be a number, not bool True"),
        ((1j,), TypeError, "scale must be a number, not complex 1j"),
        (([],), ValueError, "scale must be a number or one number per channel, not an empty sequence"),
        ((np.ones((2, 2)),), ValueError, "scale must be a number or have one axis (C,), not (2, 2)"),
        ((1.0, 128), ValueError, "zero_point must fit int8 (-128..127), not 128"),
        ((1.0, -1, "uint8"), ValueError, "zero_point must fit uint8 (0..255), not -1"),
        ((1.0, [0, 300], "uint8", 0), ValueError, "zero_point[1] must fit uint8 (0..255), not 300"),
        ((1.0, 0.0), TypeError, "zero_point must be an integer, not float 0.0"),
        ((1.0, False), TypeError, "zero_point must be an integer, not False"),
        ((1.0, 1, "int32"), ValueError, "zero_point must be 0 for int32, not 1; a bias has no zero point"),
        ((1.0, 0, "int16"), ValueError, "dtype must be one of 'int8', 'uint8', 'int32', not 'int16'"),
        ((1.0, 0, np.int64), ValueError, "dtype must be one of 'int8', 'uint8', 'int32', not 'int64'"),
        ((1.0, 0, "code"), TypeError, "dtype must be one of 'int8', 'uint8', 'int32', not 'code'"),
        ((1.0, 0, None), TypeError, "dtype must be one of 'int8', 'uint8', 'int32', not None"),
        (
            ([1.0, 2.0],),
            ValueError,
            "axis must be given for a scale of 2 channels: the axis along which they run "
            "(for one scale for the whole tensor, pass a number)",
        ),
        (
            (1.0, 0, "int8", 1),
            ValueError,
            "axis must be None for one scale and one zero point, not 1; "
            "pass a sequence with one scale per channel, or leave the axis out",
        ),
        (([1.0], 0, "int8", 0.0), TypeError, "axis must be an integer, not float 0.0"),
        (
            ([1.0, 2.0], [0, 0, 0], "int8", 0),
            ValueError,
            "scale and zero_point must have one length, not 2 and 3",
        ),
    ],
)
def test_params_refuse(arguments, error, message):
    with raises(error, message):
        QuantParams(*arguments)


def test_from_dict_refuses():
    fields = "its fields are scale, zero_point, dtype, axis"
    with raises(ValueError, f"QuantParams has no field 'offset', 'zero'; {fields}"):
        QuantParams.from_dict({"scale": 1.0, "zero": 3, "offset": 2})
    with raises(ValueError, f"QuantParams needs the field 'scale'; {fields}"):
        QuantParams.from_dict({})
    with raises(TypeError, "QuantParams.from_dict takes a dict, not list"):
        QuantParams.from_dict([1.0])


def test_as_params():
    p = QuantParams([1.0], axis=0)
    assert as_params(p, "w") is p
    with raises(ValueError, "x must have one scale and one zero point, not one per channel"):
        as_params(p, "x", per_tensor=True)
    with raises(TypeError, "x must be a QuantParams, not float 0.5"):
        as_params(0.5, "x")
    with raises(TypeError, "x must be a QuantParams of int8 or uint8, not int32"):
        as_params(QuantParams(1.0, dtype="int32"), "x")


# quantize, dequantize

TIES = np.float32([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 126.5, 127.5])


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (QuantParams(1.0), [-2, -2, 0, 0, 2, 2, 126, 127]),
        (QuantParams(1.0, 3), [1, 1, 3, 3, 5, 5, 127, 127]),
        (QuantParams(1.0, 128, "uint8"), [126, 126, 128, 128, 130, 130, 254, 255]),
        (QuantParams(1.0, dtype="int32"), [-2, -2, 0, 0, 2, 2, 126, 128]),
    ],
)
def test_quantize_ties(p, expected):
    same(quantize(TIES, p), np.array(expected, p.dtype))


def test_quantize_beyond_the_range():
    x = np.float32([np.inf, 1e9, -np.inf, np.nan, 1e38])
    same(quantize(x, QuantParams(1.0)), np.int8([127, 127, -128, -128, 127]))
    # 1e38 / 1e-3 overflows float32.
    same(quantize(x, QuantParams(1e-3, 7, "uint8")), np.uint8([255, 255, 0, 0, 255]))
    same(
        quantize(x, QuantParams(1e-3, dtype="int32")),
        np.int32([2**31 - 1, 2**31 - 1, -(2**31), -(2**31), 2**31 - 1]),
    )


def test_quantize_divides():
    # The quotients are ties; products with the reciprocal lie above them and would round up.
    for x, scale, code in ((45.5, 7, 6), (84.5, 13, 6), (37.5, 15, 2)):
        assert np.rint(np.float32(x) * (np.float32(1) / np.float32(scale))) == code + 1
        assert quantize([x], QuantParams(scale)).tolist() == [code]


def test_quantize_takes_other_floats():
    # In float64 this is above the tie; float32 rounds it onto the tie.
    x = 0.5 + 2.0**-40
    assert quantize(np.float64([x]), QuantParams(1.0)).tolist() == [0]
    assert quantize(np.float16([1.5, 1e4]), QuantParams(1.0)).tolist() == [2, 127]
    assert quantize(np.float64([1e300, -1e300]), QuantParams(1.0)).tolist() == [127, -128]
    same(quantize(2.5, QuantParams(1.0)), np.array(2, np.int8))


def test_dequantize_int32():
    same(dequantize(np.int32([16777217]), QuantParams(0.1, dtype="int32")), np.float32([1677721.6]))


def test_dequantize_overflows_quietly():
    same(dequantize(np.int8([127, -128]), QuantParams(3e38)), np.float32([np.inf, -np.inf]))


values = st.one_of(
    st.floats(width=32),
    st.sampled_from([0.0, -0.0, 0.5, 1.5, -2.5, 126.5, 127.5, np.inf, -np.inf, np.nan, 3e38, 1e-45]),
)


@FEW
@given(p=params(), x=st.lists(values, max_size=40), steps=st.lists(st.integers(-600, 600), max_size=40))
def test_quantize_equals_onnx_runtime(p, x, steps):
    # Half steps of the scale make ties; ONNX Runtime has vector and scalar paths.
    with np.errstate(over="ignore"):
        halves = np.float32(steps) * np.float32(0.5) * np.float32(p.scale)
    data = np.concatenate([np.float32(x), halves, halves])
    same(quantize(data, p), ort_run("QuantizeLinear", [data, p.scales, p.zero_points]))


@FEW
@given(p=params(), data=st.data())
def test_dequantize_equals_onnx_runtime(p, data):
    codes = np.array(data.draw(st.lists(st.integers(p.qmin, p.qmax), max_size=70)), p.dtype)
    same(dequantize(codes, p), ort_run("DequantizeLinear", [codes, p.scales, p.zero_points]))


@pytest.mark.slow
@FEW
@given(data=st.data(), seed=st.integers(0, 2**32 - 1), axis=st.integers(-3, 2))
def test_per_channel_equals_onnx_runtime(data, seed, axis):
    shape = [2, 3, 4]
    p = data.draw(params(channels=shape[axis], axis=axis))
    rng = np.random.default_rng(seed)
    along = [1, 1, 1]
    along[axis] = -1
    with np.errstate(over="ignore"):
        x = (rng.integers(-400, 400, shape) * np.float32(0.5)).astype(np.float32) * p.scales.reshape(along)
    codes = quantize(x, p)
    same(codes, ort_run("QuantizeLinear", [x, p.scales, p.zero_points], axis=axis))
    real = ort_run("DequantizeLinear", [codes, p.scales, p.zero_points], axis=axis)
    same(dequantize(codes, p), real)


@FEW
@given(st.data())
def test_quantize_inverts_dequantize(data):
    # 8-bit codes survive the way to float32 and back, unless the real numbers leave float32.
    p = data.draw(params())
    if 2.0**-126 <= p.scale < 1e36:
        codes = np.arange(p.qmin, p.qmax + 1).astype(p.dtype)
        same(quantize(dequantize(codes, p), p), codes)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: quantize(np.int64([1, 2]), QuantParams(1.0)),
            TypeError,
            "x must hold floats, not int64; convert real numbers with .astype(np.float32)",
        ),
        (lambda: quantize(np.ones(3), 0.5), TypeError, "params must be a QuantParams, not float 0.5"),
        (
            lambda: quantize(np.ones((2, 3)), QuantParams([1.0, 1.0], axis=1)),
            ValueError,
            "x must have 2 channels along axis 1, one per scale, not 3 (2, 3); they fit axis=0",
        ),
        (
            lambda: quantize(np.ones((2, 3)), QuantParams([1.0, 1.0], axis=-3)),
            ValueError,
            "axis must be an axis of x (2, 3), not -3",
        ),
        (
            lambda: dequantize(np.uint8([1]), QuantParams(1.0)),
            TypeError,
            "q must hold int8, as params say, not uint8",
        ),
        (
            lambda: dequantize(np.int8([1]), QuantParams([1.0, 1.0], axis=0)),
            ValueError,
            "q must have 2 channels along axis 0, one per scale, not 1 (1,)",
        ),
    ],
)
def test_quantize_refuses(call, error, message):
    with raises(error, message):
        call()


# requantize, multiplier


@pytest.mark.parametrize(
    ("acc", "m", "zero_point", "dtype", "expected"),
    [
        (range(-5, 6), 0.5, 0, "int8", [-2, -2, -2, -1, 0, 0, 0, 1, 2, 2, 2]),
        (range(-5, 6), 0.5, 3, "int8", [1, 1, 1, 2, 3, 3, 3, 4, 5, 5, 5]),
        (range(-5, 6), 0.5, 3, "uint8", [1, 1, 1, 2, 3, 3, 3, 4, 5, 5, 5]),
        ([-5, -3, -1, 1, 3], 0.5, 127, "int8", [125, 125, 127, 127, 127]),
        ([1, 5, 9], 0.25, 0, "int8", [0, 1, 2]),
        ([10922], float.fromhex("0x1.f207c8p-9"), 0, "int8", [42]),
        # 33554433 becomes 33554432.0, whose product is the tie 0.5; exactly it is above.
        ([33554433], 2.0**-26, 0, "int8", [0]),
        ([2**31 - 1, -(2**31)], 3e38, 0, "int8", [127, -128]),
        ([2**31 - 1, -(2**31), 0], 1.0, 200, "uint8", [255, 0, 200]),
        ([5, -5], 0.0, 7, "int8", [7, 7]),
    ],
)
def test_requantize_values(acc, m, zero_point, dtype, expected):
    result = requantize(np.array(acc, np.int32), m, zero_point, dtype=dtype)
    same(result, np.array(expected, dtype))


@pytest.mark.parametrize(
    ("acc", "x", "w", "y", "expected"),
    [(1521, 0.02, 0.12902696, 0.05, 79), (4350, 0.02, 0.016954023, 0.05, 30)],
)
def test_multiplier_order(acc, x, w, y, expected):
    m = multiplier(QuantParams(x), QuantParams(w), QuantParams(y))
    assert m.dtype == np.float32 and m.shape == ()
    assert requantize(np.int32([acc]), m, 0, dtype="int8").tolist() == [expected]
    per_channel = multiplier(QuantParams(x), QuantParams([1.0, w], axis=0), QuantParams(y))
    assert requantize(np.int32([[0, acc]]), per_channel, 0, dtype="int8").tolist() == [[0, expected]]


@FEW
@given(
    seed=st.integers(0, 2**32 - 1),
    k=st.sampled_from([1, 2, 33]),
    scale=st.sampled_from(
        [(1.0, 1.0, 2.0), (0.5, 0.5, 1.0), (0.02, 0.13, 0.05), (0.0039, 0.011, 1.7), (1, 1, 255)]
    ),
    zero_point=st.sampled_from([0, 1, 128, 255]),
    per_channel=st.booleans(),
)
def test_requantize_equals_onnx_runtime(seed, k, scale, zero_point, per_channel):
    rng = np.random.default_rng(seed)
    # u8 x u8 is exact on every processor; zero points make sums of both signs.
    a, b = rng.integers(0, 256, (6, k), dtype=np.uint8), rng.integers(0, 256, (k, 5), dtype=np.uint8)
    x, y = QuantParams(scale[0], 120, "uint8"), QuantParams(scale[2], zero_point, "uint8")
    w = QuantParams(scale[1], 131, "uint8")
    if per_channel:
        w = QuantParams(scale[1] * rng.choice([0.25, 0.3, 0.5, 1.0], 5), [131] * 5, "uint8", 1)
    acc = ((a.astype(np.int64) - 120) @ (b.astype(np.int64) - 131)).astype(np.int32)
    ours = requantize(acc, multiplier(x, w, y), zero_point, dtype="uint8")
    inputs = [a, x.scales, x.zero_points, b, w.scales, w.zero_points, y.scales, y.zero_points]
    same(ours, ort_run("QLinearMatMul", inputs))


@FEW
@given(
    shape=st.lists(st.integers(0, 6), min_size=1, max_size=4),
    axis=st.integers(-4, 3),
    block=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
    per_channel=st.booleans(),
)
@example(shape=[5, 3], axis=-1, block=7, seed=0, per_channel=True)
@example(shape=[0, 3], axis=-1, block=7, seed=0, per_channel=True)
@example(shape=[2, 3, 50], axis=1, block=7, seed=0, per_channel=True)
def test_requantize_blocks(shape, axis, block, seed, per_channel):
    # Cutting into blocks changes nothing; the formula element by element says what is right.
    axis %= len(shape)
    rng = np.random.default_rng(seed)
    acc = rng.integers(-1000, 1000, shape, dtype=np.int32)
    m = rng.choice([0.5, 0.25, 0.1, 0.01], shape[axis] if per_channel else ()).astype(np.float32)
    expected = np.zeros(shape, np.int8)
    for index in np.ndindex(*shape):
        factor = m[index[axis]] if per_channel else m[()]
        v = np.clip(np.float32(acc[index]) * factor, np.float32(-131), np.float32(124))
        expected[index] = round(float(v)) + 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK", block)
        same(requantize(acc, m, 3, dtype="int8", axis=axis), expected)
        for other in (acc[::-1].copy()[::-1], np.asfortranarray(acc)):
            same(requantize(other, m, 3, dtype="int8", axis=axis - len(shape)), expected)


def test_requantize_is_lean():
    acc = np.zeros((1 << 15, 64), np.int32)
    tracemalloc.start()
    try:
        result = requantize(acc, np.full(64, 0.5, np.float32), 0, dtype="int8")
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < result.nbytes + acc.nbytes // 8


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "message"),
    [
        (
            (np.int64([1]), 0.5, 0),
            {},
            TypeError,
            "acc must hold int32, not int64; sums wrap to int32 before they are scaled",
        ),
        ((np.int32([1]), 0.5, 128), {}, ValueError, "zero_point must fit int8 (-128..127), not 128"),
        ((np.int32([1]), 0.5, 0.0), {}, TypeError, "zero_point must be an integer, not float 0.0"),
        (
            (np.int32([1]), -0.5, 0),
            {},
            ValueError,
            "scale must be finite in float32 and not negative, not -0.5",
        ),
        (
            (np.int32([1]), [np.nan], 0),
            {},
            ValueError,
            "scale must be finite in float32 and not negative, not nan",
        ),
        ((np.int32([1]), "1", 0), {}, TypeError, "scale must hold float32, not <U1"),
        (
            (np.int32([1]), [[0.5]], 0),
            {},
            ValueError,
            "scale must be a number or have one axis (C,), not (1, 1)",
        ),
        (
            (np.zeros((2, 3), np.int32), [0.5, 0.5], 0),
            {},
            ValueError,
            "acc must have 2 channels along axis 1, one per scale, not 3 (2, 3); they fit axis=0",
        ),
        (
            (np.zeros((2, 3), np.int32), [0.5, 0.5], 0),
            {"axis": 2},
            ValueError,
            "axis must be an axis of acc (2, 3), not 2",
        ),
        (
            (np.zeros((2, 3), np.int32), [0.5, 0.5], 0),
            {"axis": 1.5},
            TypeError,
            "axis must be an integer, not float 1.5",
        ),
        (
            (np.ma.masked_array(np.int32([1]), mask=True), 0.5, 0),
            {},
            TypeError,
            "acc must be a plain array, but is a masked one; fill it: acc.filled(0)",
        ),
        (
            (np.int32([1]), 0.5, 0),
            {"rounding": "floor"},
            ValueError,
            "rounding must be one of 'half_even', 'tflite', 'tflite_single', 'shift', 'gemmini', not 'floor'",
        ),
        (
            (np.int32([1]), 0.5, 0),
            {"dtype": "int32"},
            ValueError,
            "dtype must be one of 'int8', 'uint8', not 'int32'",
        ),
    ],
)
def test_requantize_refuses(arguments, keywords, error, message):
    with raises(error, message):
        requantize(*arguments, **{"dtype": "int8", **keywords})


def test_an_infinite_multiplier():
    """As in ONNX Runtime: 0 times infinity is NaN, which the lower bound replaces."""
    acc = np.int32([-1, 0, 1])
    assert requantize(acc, 1e39, 5, dtype="int8").tolist() == [-128, -128, 127]
    with raises(ValueError, "scale must be finite in float32 and not negative, not inf"):
        requantize(acc, 1e39, 5, dtype="int8", rounding="gemmini")


def test_multiplier_refuses():
    one = QuantParams(1.0)
    with raises(ValueError, "y must have one scale and one zero point, not one per channel"):
        multiplier(one, one, QuantParams([1.0], axis=0))
    with raises(
        ValueError,
        "x.scale * w.scale / y.scale must be finite in float32, but x.scale=1.0, w.scale up to 1.0 and "
        "y.scale=1.401298464324817e-45 overflow; check the scales",
    ):
        multiplier(one, one, QuantParams(1e-45), "gemmini")
    assert multiplier(one, one, QuantParams(1e-45)) == np.inf
    assert multiplier(QuantParams(1e-30), QuantParams(1e-30), one) == 0
