"""The numpy oracle against ONNX Runtime, operator by operator."""

from __future__ import annotations

import functools
import platform

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from support.oracle_cases import (
    DTYPES,
    NEAR_TIE,
    NEAR_TIE_SHAPES,
    convolutions,
    cpu_flags,
    draw_codes,
    draw_scales,
    dtypes,
    exact_u8s8,
    fine_cases,
    fixed,
    many,
    oracle,
    oracle_add,
    oracle_conv,
    oracle_matmul,
    oracle_pool,
    pairs,
    poolings,
    same,
    scales,
    seeds,
    zero_points,
)
from systolic.reference.oracle import matmul


@pytest.fixture(scope="module")
def ort():
    """Return run(op, inputs, constants=(), **attributes): one operator in ONNX Runtime."""
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    helper = onnx.helper

    def run(op, inputs, constants=(), domain="", **attributes):
        names = ["" if value is None else f"i{index}" for index, value in enumerate(inputs)]
        arrays = {n: np.asarray(v) for n, v in zip(names, inputs, strict=True) if n}
        fixed_names = [names[index] for index in constants if names[index]]
        graph = helper.make_graph(
            [helper.make_node(op, names, ["y"], domain=domain, **attributes)],
            "one",
            [
                helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
                for n, a in arrays.items()
                if n not in fixed_names
            ],
            [onnx.ValueInfoProto(name="y")],
            [onnx.numpy_helper.from_array(arrays[n], n) for n in fixed_names],
        )
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        session = runtime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return session.run(None, {n: a for n, a in arrays.items() if n not in fixed_names})[0]

    return run


def onnx_geometry(geometry):
    """Our names of a window as ONNX's attributes."""
    names = {"stride": "strides", "dilation": "dilations", "kernel": "kernel_shape", "groups": "group"}
    attributes = {names[name]: value for name, value in geometry.items() if name != "padding"}
    (top, bottom), (left, right) = geometry["padding"]
    return attributes | {"pads": [top, left, bottom, right]}


matrices = st.tuples(st.integers(1, 5), st.integers(1, 40), st.integers(1, 20))


def draw_product(pair, shape, seed):
    (m, k, n), rng = shape, np.random.default_rng(seed)
    bits = 7 if pair == ("uint8", "int8") and not exact_u8s8() else 8
    return draw_codes(rng, pair[0], (m, k)), draw_codes(rng, pair[1], (k, n), bits=bits), rng


@pytest.mark.slow
@many
@given(pairs, matrices, scales, scales, scales, st.booleans(), st.booleans(), seeds, st.data())
def test_ort_qlinear_matmul(ort, pair, shape, sa, sb, sy, per_column, constant, seed, data):
    a, b, rng = draw_product(pair, shape, seed)
    za, zy = (data.draw(zero_points(pair[0])) for _ in range(2))
    zb = data.draw(zero_points(pair[1]))
    if per_column:
        sb = draw_scales(rng, sb, shape[2])
        zb = draw_codes(rng, pair[1], (shape[2],))
    arguments = (a, sa, za, b, sb, zb, sy, zy)
    theirs = ort("QLinearMatMul", arguments, (3, 4, 5) if constant else ())
    same(oracle_matmul(*arguments), theirs)


@pytest.mark.slow
@many
@given(pairs, matrices, scales, scales, scales, st.booleans(), st.booleans(), st.booleans(), seeds, st.data())
def test_ort_qgemm(ort, pair, shape, sa, sb, sy, per_column, with_bias, real, seed, data):
    a, b, rng = draw_product(pair, shape, seed)
    za, zy = (data.draw(zero_points(pair[0])) for _ in range(2))
    zb = data.draw(zero_points(pair[1]))
    if per_column:
        sb = draw_scales(rng, sb, shape[2])
        zb = np.full(shape[2], zb)
    bias = draw_bias(rng, shape[2]) if with_bias else None
    if real:
        sy = zy = None
    theirs = ort("QGemm", (a, sa, za, b, sb, zb, bias, sy, zy), (3, 4, 5, 6), "com.microsoft", alpha=1.0)
    same(oracle_matmul(a, sa, za, b, sb, zb, sy, zy, bias), theirs)


def draw_bias(rng, count):
    """Biases of the size of a sum, and a few that make it wrap."""
    bias = rng.integers(-50000, 50000, count)
    return np.where(rng.random(count) < 0.1, rng.choice([-(2**31), 2**31 - 1], count), bias).astype(np.int32)


@pytest.mark.slow
@many
@given(convolutions(pairs), scales, scales, scales, st.booleans(), st.booleans(), st.data())
def test_ort_qlinear_conv(ort, case, sx, sw, sy, per_channel, with_bias, data):
    x_dtype, w_dtype = case.x.dtype.name, case.w.dtype.name
    zx, zy = (data.draw(zero_points(x_dtype)) for _ in range(2))
    zw = data.draw(zero_points(w_dtype))
    oc = case.w.shape[0]
    if per_channel:
        sw = draw_scales(case.rng, sw, oc)
        zw = draw_codes(case.rng, w_dtype, (oc,))
    bias = draw_bias(case.rng, oc) if with_bias else None
    arguments = (case.x, sx, zx, case.w, sw, zw, sy, zy, bias)
    theirs = ort("QLinearConv", arguments, (3, 4, 5, 8), **onnx_geometry(case.geometry))
    same(oracle_conv(*arguments, **case.geometry), theirs)


@fixed
@given(dtypes, dtypes, matrices, st.booleans(), seeds, st.data())
def test_ort_matmul_integer(ort, a_dtype, b_dtype, shape, per_column, seed, data):
    a, b, rng = draw_product((a_dtype, b_dtype), shape, seed)
    za, zb = data.draw(zero_points(a_dtype)), data.draw(zero_points(b_dtype))
    if per_column:
        zb = draw_codes(rng, b_dtype, (shape[2],))
    same(oracle("MatMulInteger", a, b, za, zb), ort("MatMulInteger", (a, b, za, zb)))


@pytest.mark.slow
@fixed
@given(convolutions(), st.data())
def test_ort_conv_integer(ort, case, data):
    zx, zw = data.draw(zero_points(case.x.dtype.name)), data.draw(zero_points(case.w.dtype.name))
    theirs = ort("ConvInteger", (case.x, case.w, zx, zw), (1,), **onnx_geometry(case.geometry))
    same(oracle("ConvInteger", case.x, case.w, zx, zw, **case.geometry), theirs)


def test_ort_products_wrap(ort):
    ones = np.full((1, 70000), 255, np.uint8)
    same(matmul(ones, ones.T), ort("MatMulInteger", (ones, ones.T)))
    long = np.full((1, 200_000), -128, np.int8)
    same(matmul(long, long.T), ort("MatMulInteger", (long, long.T)))


shapes = st.sampled_from(
    [
        ((33,), (33,)), ((2, 3, 17), (2, 3, 17)), ((4, 5), (5,)), ((5,), (4, 5)), ((4, 1), (1, 5)),
        ((1, 5), (4, 1)), ((4, 1), (4, 5)), ((1,), (7,)), ((7,), (1,)), ((2, 3, 4, 1), (1, 3, 1, 1)),
        ((1, 3, 1, 1), (2, 3, 4, 1)), ((1, 3, 1, 1), (2, 3, 4, 5)), ((2, 1, 3), (2, 4, 3)), ((), (3,)),
        ((3,), ()), ((), ()), ((1,), (1,)), ((3, 1), (1,)), ((1,), (3, 1)),
    ]
)  # fmt: skip


@pytest.fixture(scope="module")
def ort_add(ort):
    """Return ONNX Runtime's QLinearAdd where it is the fused one."""
    if platform.machine().lower() not in ("x86_64", "amd64") or "avx2" not in cpu_flags():
        pytest.skip("ONNX Runtime adds in another order, or in fixed point, without AVX2")
    return functools.partial(ort, "QLinearAdd", domain="com.microsoft")


@pytest.mark.parametrize(("a_shape", "b_shape", "expected"), NEAR_TIE_SHAPES)
def test_ort_qlinear_add_swaps(ort_add, a_shape, b_shape, expected):
    (a, *a_params), (b, *b_params), y_params = NEAR_TIE
    a, b = np.full(a_shape, a, np.int8), np.full(b_shape, b, np.int8)
    theirs = ort_add((a, *a_params, b, *b_params, *y_params))
    same(theirs, np.full(np.broadcast_shapes(a_shape, b_shape), expected, np.int8))


@pytest.mark.parametrize(("op", "arguments", "window", "expected"), fine_cases())
def test_ort_fine_roundings(request, ort, op, arguments, window, expected):
    run = (
        request.getfixturevalue("ort_add")
        if op == "QLinearAdd"
        else functools.partial(ort, op, domain="com.microsoft")
    )
    arguments = [np.float32(v) if isinstance(v, float) else v for v in arguments]
    attributes = {"kernel_shape": window["kernel"]} if window else {}
    same(run(arguments, **attributes), expected.astype(np.int8))


@fixed
@given(dtypes, scales, scales, scales, st.data())
def test_ort_qlinear_add_of_all_codes(ort_add, dtype, sa, sb, sy, data):
    # Close to the end the sum only saturates: a large y_scale keeps all pairs in play.
    sy = np.float32(max(sy, (sa + sb) / 2))
    za, zb, zy = (data.draw(zero_points(dtype)) for _ in range(3))
    codes = np.arange(np.iinfo(dtype).min, np.iinfo(dtype).max + 1).astype(dtype)
    a, b = (np.ascontiguousarray(side) for side in np.meshgrid(codes, codes))
    arguments = (a, sa, za, b, sb, zb, sy, zy)
    same(oracle_add(*arguments), ort_add(arguments))


@pytest.mark.slow
@many
@given(dtypes, shapes, scales, scales, scales, seeds, st.data())
def test_ort_qlinear_add(ort_add, dtype, shape, sa, sb, sy, seed, data):
    rng = np.random.default_rng(seed)
    za, zb, zy = (data.draw(zero_points(dtype)) for _ in range(3))
    a, b = draw_codes(rng, dtype, shape[0]), draw_codes(rng, dtype, shape[1])
    arguments = (a, sa, za, b, sb, zb, sy, zy)
    same(oracle_add(*arguments), ort_add(arguments))


def global_pool_fits(case, sx, sy):
    """Whether ONNX Runtime takes these scales; it refuses a multiplier of 256 and above."""
    return sx / (sy * np.float32(case.x[0, 0].size)) < 256


@pytest.mark.slow
@many
@given(poolings(), scales, scales, st.booleans(), st.data())
def test_ort_global_average_pool(ort, case, sx, sy, channels_last, data):
    zx, zy = (data.draw(zero_points(case.x.dtype.name)) for _ in range(2))
    x, layout = (case.x.transpose(0, 2, 3, 1), "NHWC") if channels_last else (case.x, "NCHW")
    assume(global_pool_fits(case, sx, sy))
    theirs = ort(
        "QLinearGlobalAveragePool", (x, sx, zx, sy, zy), domain="com.microsoft", channels_last=channels_last
    )
    same(oracle_pool("QLinearGlobalAveragePool", x, sx, zx, sy, zy, layout=layout), theirs)


@pytest.mark.slow
@many
@given(poolings(), scales, scales, st.booleans(), st.booleans(), st.data())
def test_ort_average_pool(ort, case, sx, sy, include_pad, channels_last, data):
    zx, zy = (data.draw(zero_points(case.x.dtype.name)) for _ in range(2))
    x, layout = (case.x.transpose(0, 2, 3, 1), "NHWC") if channels_last else (case.x, "NCHW")
    assume(global_pool_fits(case, sx, sy))
    theirs = ort(
        "QLinearAveragePool",
        (x, sx, zx, sy, zy),
        domain="com.microsoft",
        channels_last=channels_last,
        count_include_pad=include_pad,
        ceil_mode=case.ceil_mode,
        **onnx_geometry(case.geometry),
    )
    ours = oracle_pool(
        "QLinearAveragePool",
        x,
        sx,
        zx,
        sy,
        zy,
        count_include_pad=include_pad,
        ceil_mode=case.ceil_mode,
        layout=layout,
        **case.geometry,
    )
    same(ours, theirs)


@pytest.mark.slow
@many
@given(poolings(st.integers(1, 2)))
def test_ort_max_pool(ort, case):
    geometry = case.geometry | {"dilation": case.dilation}
    theirs = ort("MaxPool", (case.x,), ceil_mode=case.ceil_mode, **onnx_geometry(geometry))
    same(oracle("MaxPool", case.x, ceil_mode=case.ceil_mode, **geometry), theirs)


@fixed
@given(dtypes, st.booleans(), scales, seeds, st.data())
def test_ort_quantize_linear(ort, dtype, per_axis, scale, seed, data):
    rng = np.random.default_rng(seed)
    zero = data.draw(zero_points(dtype))
    # Half steps are ties; the last values are the odd ones out.
    x = rng.integers(-600, 600, (3, 40)).astype(np.float32) / 2 * scale
    x += np.where(rng.random(x.shape) < 0.5, rng.normal(size=x.shape), 0).astype(np.float32) * scale
    x[:, :5] = [np.inf, -np.inf, np.nan, 1e9, -3e38]
    if per_axis:
        scale, zero = draw_scales(rng, scale, 3), draw_codes(rng, dtype, (3,))
    theirs = ort("QuantizeLinear", (x, scale, zero), axis=0)
    same(oracle("QuantizeLinear", x, scale, zero, dtype=dtype), theirs)


@fixed
@given(st.sampled_from([*DTYPES, "int32"]), st.booleans(), scales, seeds, st.data())
def test_ort_dequantize_linear(ort, dtype, per_axis, scale, seed, data):
    rng = np.random.default_rng(seed)
    limits = np.iinfo(dtype)
    q = rng.integers(limits.min, limits.max, (3, 40), endpoint=True).astype(dtype)
    zero = data.draw(zero_points(dtype)) if dtype != "int32" else np.int32(0)
    if per_axis:
        scale, zero = draw_scales(rng, scale, 3), np.full(3, zero)
    same(oracle("DequantizeLinear", q, scale, zero, dtype=None), ort("DequantizeLinear", (q, scale, zero), axis=0))
