"""Quantized operators beside the array, from ONNX nodes: every bit against ONNX Runtime, and what is refused."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import systolic
from support import onnx_models as om
from support.onnx_models import Case, F
from support.oracle_cases import cpu_flags, draw_codes, same
from support.strategies import examples, seeds
from systolic import QuantParams, UnsupportedOperator, load_onnx
from systolic.layers import (
    DequantizeLinear,
    HostLayer,
    QLinearAveragePool,
    QLinearConcat,
    QLinearGlobalAveragePool,
    QLinearLeakyRelu,
    QLinearMul,
    QLinearSigmoid,
    QLinearSoftmax,
    QLinearWhere,
    QuantizeLinear,
)
from systolic.layers.host import qlinear_table
from systolic.reference import expected_output

EIGHT_BITS = ("int8", "uint8")
NARROW = (*EIGHT_BITS, "int16", "uint16")
MS = "com.microsoft."
INT8, UINT8, INT16, UINT16, FLOAT, FLOAT16 = 3, 2, 5, 4, 1, 10

X86 = platform.machine().lower() in ("x86_64", "amd64")
x86 = pytest.mark.skipif(not X86, reason="ONNX Runtime multiplies in another order elsewhere")
fma3 = pytest.mark.skipif(
    not (X86 and "avx2" in cpu_flags() and "fma" in cpu_flags()),
    reason="ONNX Runtime has no fused steps here",
)

# Before release 1.32 ONNX Runtime's conversions overflow where ours saturate, and its softmax multiplies
# and divides in float32.
OVERFLOWS = tuple(map(int, version("onnxruntime").split(".")[:2])) < (1, 32)
float64_softmax = pytest.mark.skipif(OVERFLOWS or not X86, reason="another arithmetic in ONNX Runtime")

types = st.sampled_from(EIGHT_BITS)
# Quotients of these are ties; the last ones are decimals as quantizers write them.
# 1.3e36 is that of a transformer's mask: float32 overflows behind it.
scales = st.one_of(
    st.sampled_from([1.0, 0.5, 0.25, 2.0, 1 / 256, 1 / 255, 0.02, 0.0359]),
    st.floats(2.0**-12, 4.0, width=32),
    st.sampled_from([1.3344406e36, 3e38, 1e20, 1e9, 1e-9, 1e-20, 1e-38, 1e-45]),
).map(F)


def zero_points(dtype: str) -> st.SearchStrategy[np.ndarray]:
    limits = np.iinfo(dtype)
    ends = st.sampled_from([limits.min, limits.max, 0, 1])
    return st.one_of(ends, st.integers(limits.min, limits.max)).map(lambda zero: np.array(zero, dtype))


@st.composite
def several(draw: st.DrawFn, count: int) -> tuple[str, list[Any]]:
    """A type and so many pairs of a scale and a zero point of it, in one list."""
    dtype = draw(types)
    return dtype, [draw(part) for _ in range(count) for part in (scales, zero_points(dtype))]


def times(scale: F, factor: float) -> F:
    """A scale that is still one."""
    with np.errstate(over="ignore", under="ignore"):
        product = F(scale * F(factor))
    assume(0 < product < np.inf)
    return product


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def ours_and_theirs(folder: Path, case: Case) -> tuple[np.ndarray, np.ndarray]:
    graph, feeds = case
    path = om.save(om.typed(graph), folder)
    (theirs,) = om.onnxruntime_outputs(path, feeds)
    run = systolic.run(load_onnx(path), feeds, mode="wavefront")
    return run.outputs["y"], theirs


def check(folder: Path, case: Case) -> np.ndarray:
    """Assert that the output equals ONNX Runtime's, and return it."""
    ours, theirs = ours_and_theirs(folder, case)
    same(ours, theirs)
    _check_expectation(folder / "model.onnx", case[1], theirs)
    return ours


def _check_expectation(path: Path, feeds: dict[str, np.ndarray], theirs: np.ndarray) -> None:
    """Assert that the verifier's own derivation of a single layer gives the same."""
    model = load_onnx(path)
    if len(model.nodes) == 1 and isinstance(model.nodes[0].layer, HostLayer):
        (node,) = model.nodes
        inputs = [feeds[name] if name in feeds else model.constants[name] for name in node.inputs]
        same(expected_output(node.layer, inputs), theirs)


def layers_of(case: Case, folder: Path) -> list[str]:
    return [type(node.layer).__name__ for node in load_onnx(om.save(case[0], folder)).nodes]


# QuantizeLinear, DequantizeLinear


def reals(rng: np.random.Generator, shape: tuple[int, ...], scale: Any, dtype: str = "float32") -> np.ndarray:
    """Half steps, which are ties, steps with noise, and what is no number."""
    steps = rng.integers(-700, 700, shape) / 2 + rng.choice([0, 0.1, 200], shape)
    with np.errstate(over="ignore"):
        x = (steps * np.asarray(scale, np.float64)).astype(dtype)
    special = np.array([np.inf, -np.inf, np.nan, 6e4, -6e4, -0.0], dtype)
    return np.where(rng.random(shape) < 0.1, rng.choice(special, shape), x)


SHAPE = (2, 7, 3)


@st.composite
def granularity(draw: st.DrawFn) -> tuple[tuple[int, ...], dict[str, int]]:
    """The shape of the scales of a tensor of SHAPE, and the attributes that say so."""
    kind = draw(st.sampled_from(["tensor", "one", "axis", "blocks"]))
    if kind in ("tensor", "one"):
        return ((), {}) if kind == "tensor" else ((1,), {"axis": draw(st.sampled_from([0, 2, -1]))})
    axis = draw(st.integers(-3, 2))
    if kind == "axis":
        return (SHAPE[axis],), {"axis": axis}
    size = draw(st.integers(1, SHAPE[axis] + 1))
    shape = list(SHAPE)
    shape[axis] = -(-SHAPE[axis] // size)
    return tuple(shape), {"axis": axis, "block_size": size}


def spread(scale: np.ndarray, attributes: dict[str, int]) -> np.ndarray:
    """Scales broadcast over a tensor of SHAPE."""
    if scale.size == 1 and "block_size" not in attributes:
        return scale.reshape(())
    axis = attributes["axis"] % 3
    if "block_size" in attributes:
        each = np.repeat(scale, attributes["block_size"], axis)
        return each[tuple(slice(size) for size in SHAPE)]
    return scale.reshape([-1 if i == axis else 1 for i in range(3)])


@pytest.mark.slow
@examples(60)
@given(
    granularity(),
    st.sampled_from(NARROW),
    st.sampled_from(["float32", "float16"]),
    st.booleans(),
    st.booleans(),
    seeds,
)
def test_quantize_linear(
    folder: Path, parts: Any, dtype: str, real: str, given_zero: bool, computed: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    shape, attributes = parts
    scale = (rng.choice([0.5, 0.1, 0.0359, 2.0], shape)).astype(real)
    limits = np.iinfo(dtype)
    zero = rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True) if given_zero else None
    if zero is None and dtype != "uint8":
        attributes = {**attributes, "output_dtype": {"int8": INT8, "int16": INT16, "uint16": UINT16}[dtype]}
    x = reals(rng, SHAPE, spread(scale, attributes), real)
    if OVERFLOWS and (real == "float16" or "block_size" in attributes):
        x = np.clip(np.nan_to_num(x), -6e4, 6e4).astype(real)
    moving = (0, 1, 2) if given_zero else (0, 1)
    case = om.single("QuantizeLinear", [x, scale, zero], moving if computed else (0,), **attributes)
    assert check(folder, case).dtype == dtype


@pytest.mark.slow
@pytest.mark.skipif(OVERFLOWS, reason="another arithmetic in ONNX Runtime")
@examples(60)
@given(
    granularity(), st.sampled_from(NARROW), st.tuples(*[st.sampled_from(["float16", "float32"])] * 2),
    st.sampled_from([None, FLOAT, FLOAT16]), st.booleans(), seeds,
)  # fmt: skip
def test_quantize_linear_in_a_precision(
    folder: Path, parts: Any, dtype: str, reals_: Any, precision: int | None, computed: bool, seed: int
) -> None:
    """From opset 23 on x is divided in the type of the scale, unless `precision` says another."""
    rng, (shape, attributes), (real, of_scale) = np.random.default_rng(seed), parts, reals_
    scale = rng.choice([0.5, 0.1, 0.0359, 2.0, 1e-3], shape).astype(of_scale)
    zero = rng.integers(0, 99, shape).astype(dtype)
    x = reals(rng, SHAPE, spread(scale, attributes), real)
    attributes = attributes if precision is None else {**attributes, "precision": precision}
    moving = (0, 1) if computed and shape in ((), (1,)) else (0,)
    check(folder, om.single("QuantizeLinear", [x, scale, zero], moving, opset=23, **attributes))


@pytest.mark.parametrize(("opset", "code"), ((21, 17), (23, 18)))
def test_quotients_of_float16(folder: Path, opset: int, code: int) -> None:
    """127.75 / 7.3 is 17.499 in float32; in float16 it is 17.5, a tie that goes to 18."""
    x, scale = np.float16([127.75]), np.float16(7.3)
    assert check(folder, om.single("QuantizeLinear", [x, scale], opset=opset)).tolist() == [code]


@pytest.mark.slow
@examples(60)
@given(
    granularity(), st.sampled_from([*NARROW, "int32"]), st.sampled_from(["float32", "float16"]), st.booleans(),
    st.booleans(), seeds,
)  # fmt: skip
def test_dequantize_linear(
    folder: Path, parts: Any, dtype: str, real: str, given_zero: bool, computed: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    shape, attributes = parts
    scale = (rng.choice([0.5, 0.1, 0.0359, 2.0], shape)).astype(real)
    limits = np.iinfo(dtype)
    q, zero = (rng.integers(limits.min, limits.max, s, dtype=dtype, endpoint=True) for s in (SHAPE, shape))
    arguments = [q, scale, zero if given_zero else None]
    moving = (0, 1, 2) if given_zero else (0, 1)
    check(folder, om.single("DequantizeLinear", arguments, moving if computed else (0,), **attributes))


@pytest.mark.slow
@pytest.mark.parametrize("real", ("float32", "float16"))
@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("scale", (0.0, -0.5, np.inf, np.nan, 6e-8))
def test_computed_scales_may_be_anything(folder: Path, scale: float, dtype: str, real: str) -> None:
    if OVERFLOWS and real == "float16":
        pytest.skip("ONNX Runtime before 1.32 lets float16 quotients overflow int32")
    x = np.array([-3, -0.5, 0, 0.25, 1, 7, 6e4, np.inf, -np.inf, np.nan], real)
    zero = np.array(np.iinfo(dtype).max // 2, dtype)
    moving = (0, 1, 2)
    check(folder, om.single("QuantizeLinear", [x, np.array(scale, real), zero], moving))
    check(
        folder,
        om.single("DequantizeLinear", [np.arange(9).astype(dtype), np.array(scale, real), zero], moving),
    )


@pytest.mark.parametrize("opset", (10, 13, 19, 21, 23, 24, 25))
@pytest.mark.parametrize("dtype", EIGHT_BITS)
def test_opsets(folder: Path, opset: int, dtype: str) -> None:
    x, scale, zero = reals(np.random.default_rng(opset), (4, 5), 0.1), F(0.1), np.array(7, dtype)
    more: dict[str, Any] = {"saturate": 1} if opset >= 19 else {}
    if opset >= 21:
        more |= {"output_dtype": {"int8": INT8, "uint8": UINT8}[dtype]}
    if opset >= 23:
        more |= {"precision": FLOAT}
    case = om.single("QuantizeLinear", [x, scale, zero], opset=opset, **more)
    check(folder, case)
    assert layers_of(case, folder) == ["QuantizeLinear"]
    q = np.arange(20).astype(dtype).reshape(4, 5)
    case = om.single("DequantizeLinear", [q, scale, zero], opset=opset)
    check(folder, case)
    assert layers_of(case, folder) == ["DequantizeLinear"]
    if opset >= 13:
        per_axis = [q, np.arange(1, 6).astype(F), np.arange(5).astype(dtype)]
        check(folder, om.single("DequantizeLinear", per_axis, opset=opset, axis=-1))


@pytest.mark.parametrize(("scale", "to"), [("float32", FLOAT16), ("float16", FLOAT), ("float16", FLOAT16)])
def test_output_type_of_dequantize_linear(folder: Path, scale: str, to: int) -> None:
    q = np.arange(-128, 128).astype(np.int8)
    case = om.single("DequantizeLinear", [q, np.array(0.1, scale), np.int8(3)], opset=23, output_dtype=to)
    assert check(folder, case).dtype == {FLOAT: "float32", FLOAT16: "float16"}[to]


@pytest.mark.parametrize("dtype", NARROW)
def test_microsoft_domain(folder: Path, dtype: str) -> None:
    rng = np.random.default_rng(5)
    scale, zero = F([0.1, 0.2, 0.3]), np.array([1, 2, 3], dtype)
    check(folder, om.single(MS + "QuantizeLinear", [reals(rng, (2, 3), 0.1), scale, zero], axis=1))
    check(
        folder,
        om.single(MS + "DequantizeLinear", [np.arange(6).astype(dtype).reshape(2, 3), scale, zero], axis=1),
    )
    check(folder, om.single(MS + "DequantizeLinear", [np.arange(6).astype(dtype), scale[0], zero[0]]))


def test_int32_zero_points_wrap(folder: Path) -> None:
    q = np.int32([-(2**31), -1, 0, 5, 2**31 - 1])
    for zero in (7, -(2**31), 2**31 - 1):
        check(folder, om.single("DequantizeLinear", [q, F(0.1), np.int32(zero)]))


def test_empty_and_scalar(folder: Path) -> None:
    for shape in ((), (0,), (3, 0, 2), (1,)):
        x = np.full(shape, 1.5, F)
        check(folder, om.single("QuantizeLinear", [x, F(1), np.int16(3)]))
        check(folder, om.single("DequantizeLinear", [x.astype(np.int16), F(0.5), np.int16(3)]))
    blocked = QuantizeLinear(dtype="int8", axis=0, block_size=2)
    assert blocked.apply(np.zeros((0, 3), F), np.zeros((0, 3), F)).shape == (0, 3)
    # Longer than what is worked on at a time, short last block.
    x, scale = np.arange(3 * 70_000, dtype=F).reshape(3, 70_000), np.ones((3, 2), F)
    scale[:, 1] = 2
    result = QuantizeLinear(dtype="uint16", block_size=40_000).apply(x, scale)
    expected = np.concatenate([x[:, :40_000], x[:, 40_000:] / 2], 1)
    np.testing.assert_array_equal(result, np.minimum(np.rint(expected), 65535))


# Two tensors and more

SHAPES = [((2, 3, 4), (2, 3, 4)), ((2, 3, 4), (4,)), ((3, 1), (2, 3, 5)), ((), (3, 2)), ((2, 1), (1, 1)), ((), ()), ((0, 3), (1,)), ((17, 20), (20,))]  # fmt: skip


@pytest.mark.slow
@fma3
@examples(40)
@given(several(3), st.sampled_from(SHAPES), st.booleans(), seeds)
def test_add(folder: Path, drawn: Any, shapes: Any, constant: bool, seed: int) -> None:
    (dtype, (sa, za, sb, zb, sy, zy)), rng = drawn, np.random.default_rng(seed)
    a, b = (draw_codes(rng, dtype, shape) for shape in shapes)
    moving = (0,) if constant else (0, 3)
    check(folder, om.single(MS + "QLinearAdd", [a, sa, za, b, sb, zb, sy, zy], moving))


@pytest.mark.slow
@x86
@examples(40)
@given(several(3), st.sampled_from(SHAPES), st.booleans(), seeds)
def test_mul(folder: Path, drawn: Any, shapes: Any, constant: bool, seed: int) -> None:
    (dtype, (sa, za, sb, zb, sy, zy)), rng = drawn, np.random.default_rng(seed)
    a, b = (draw_codes(rng, dtype, shape) for shape in shapes)
    moving = (0,) if constant else (0, 3)
    check(folder, om.single(MS + "QLinearMul", [a, sa, za, b, sb, zb, sy, zy], moving))


@x86
def test_scales_of_a_mask(folder: Path) -> None:
    """-3.4e38 and 0, as codes of one scale, times 0 and 1; what reaches 2^31 codes is the smallest code."""
    a, b = np.uint8([[0, 1, 0, 255]]), np.uint8([0])
    one, wide, zero = F(1), F(1.3344406e36), np.uint8(0)
    y = check(folder, om.single(MS + "QLinearMul", [a, one, zero, b, wide, np.uint8(255), one, zero], (0, 3)))
    assert y.tolist() == [[0, 0, 0, 0]]
    seven = np.uint8(7)
    y = check(folder, om.single(MS + "QLinearMul", [a, one, zero, a, wide, zero, one, seven], (0, 3)))
    assert y.tolist() == [[7, 0, 7, 0]]


@pytest.mark.slow
@x86
@pytest.mark.parametrize("moving", ((0,), (0, 3)))
@pytest.mark.parametrize("op", ("QLinearMatMul", "QLinearConv", MS + "QGemm"))
@examples(20)
@given(several(3), st.booleans(), seeds)
def test_products_of_any_scales(
    folder: Path, op: str, moving: tuple[int, ...], drawn: Any, to_float: bool, seed: int
) -> None:
    """0 times an infinite multiplier is the smallest code."""
    (dtype, (sx, zx, sw, zw, sy, zy)), rng = drawn, np.random.default_rng(seed)
    shapes = ((1, 3, 4, 4), (4, 3, 2, 2)) if op == "QLinearConv" else ((3, 7), (7, 4))
    x, w = (draw_codes(rng, dtype, shape) for shape in shapes)
    arguments = [x, sx, zx, w, sw, zw, sy, zy]
    if op == MS + "QGemm":
        arguments[6:] = [] if to_float else [rng.integers(-999, 999, 4).astype(np.int32), sy, zy]
    ours, theirs = ours_and_theirs(folder, om.single(op, arguments, moving))
    np.testing.assert_array_equal(ours, theirs)


@x86
@pytest.mark.parametrize("dtype", EIGHT_BITS)
def test_mul_of_every_pair_of_codes(folder: Path, dtype: str) -> None:
    """A table is looked up from 65536 elements on; the same numbers come out below."""
    codes = np.arange(256).astype(np.uint8).view(dtype)
    zero = np.array(3, dtype)
    for sy in (F(0.5), F(12.3)):
        arguments = [codes[:, None], F(0.5), zero, codes, F(0.25), zero, sy, zero]
        y = check(folder, om.single(MS + "QLinearMul", arguments, (0, 3)))
        layer = QLinearMul(*(QuantParams(float(s), 3, dtype) for s in (F(0.5), F(0.25), sy)))
        np.testing.assert_array_equal(layer.apply(codes[:9, None], codes), y[:9])


@x86
def test_mul_from_the_formula() -> None:
    """Ties: the zero point is added before rounding."""
    half, one = QuantParams(0.5), QuantParams(1.0)
    a, b = np.int8([0, 1, 2, 3, 4, 5]), np.int8([1])
    assert QLinearMul(half, one, one).apply(a, b).tolist() == [0, 0, 1, 2, 2, 2]
    assert QLinearMul(half, one, QuantParams(1.0, 1)).apply(a, b).tolist() == [1, 2, 2, 2, 3, 4]
    assert QLinearMul(one, one, QuantParams(1e-5)).apply(np.int8([127, -127]), np.int8([127])).tolist() == [
        127,
        -128,
    ]


@pytest.mark.slow
@examples(30)
@given(several(4), st.integers(-2, 1), st.booleans(), st.booleans(), seeds)
def test_concat(folder: Path, drawn: Any, axis: int, alike: bool, constant: bool, seed: int) -> None:
    (dtype, parameters), rng = drawn, np.random.default_rng(seed)
    if alike:
        parameters[2:4] = parameters[:2]
    arguments = parameters[:2]
    for index in range(3):
        shape = [2, 3]
        shape[axis] = index + 1
        arguments += [draw_codes(rng, dtype, tuple(shape)), *parameters[2 * index + 2 : 2 * index + 4]]
    check(folder, om.single(MS + "QLinearConcat", arguments, (2,) if constant else (2, 5, 8), axis=axis))


def test_concat_copies_what_has_the_output_parameters(folder: Path) -> None:
    """Through float32 these codes would overflow."""
    huge, codes = F(3e38), np.int8([-128, -1, 0, 5, 127])
    arguments = [huge, np.int8(2), codes, huge, np.int8(2), codes, F(1), np.int8(0)]
    assert (
        check(folder, om.single(MS + "QLinearConcat", arguments, (2, 5), axis=0)).tolist()[:5]
        == codes.tolist()
    )


WHERE_SHAPES = [((4, 3),) * 3, ((4, 1), (3,), ()), ((1,), (2, 3), (2, 1)), ((), (), ()), ((2, 1, 3), (5, 1), (1,)), ((0,), (1,), (1,))]  # fmt: skip


@pytest.mark.slow
@examples(30)
@given(several(3), st.sampled_from(WHERE_SHAPES), st.sampled_from([None, 0, 2]), seeds)
def test_where(folder: Path, drawn: Any, shapes: Any, copied: int | None, seed: int) -> None:
    (dtype, parameters), rng = drawn, np.random.default_rng(seed)
    if copied is not None:
        parameters[4:] = parameters[copied : copied + 2]
    condition = rng.random(shapes[0]) < 0.5
    a, b = (draw_codes(rng, dtype, shape) for shape in shapes[1:])
    arguments = [condition, a, *parameters[:2], b, *parameters[2:]]
    check(folder, om.single(MS + "QLinearWhere", arguments, (0, 1, 4)))


# Tables


@pytest.mark.slow
@fma3
@examples(60)
@given(several(2), st.sampled_from([0.001, 0.05, 1.0, 300.0]))
def test_sigmoid_of_every_code(folder: Path, drawn: Any, factor: float) -> None:
    dtype, (sx, zx, sy, zy) = drawn
    codes = np.arange(256).astype(np.uint8).view(dtype)
    check(folder, om.single(MS + "QLinearSigmoid", [codes, times(sx, factor), zx, sy, zy]))


@fma3
@examples(20)
@given(st.sampled_from([0.01, 0.3, 1.0, 6.0, 30.0]), seeds)
def test_logistic_has_the_bits_of_float_sigmoid(folder: Path, scale: float, seed: int) -> None:
    """Not the codes alone: ONNX Runtime's float Sigmoid is the function its table is made with."""
    x = (np.random.default_rng(seed).normal(size=4099) * scale).astype(F)
    x[:6] = [0, -0.0, 18, -18, 1e30, -1e30]
    graph, feeds = om.single("Sigmoid", [x])
    (theirs,) = om.onnxruntime_outputs(om.save(om.typed(graph), folder), feeds)
    assert qlinear_table.logistic(x).tobytes() == theirs.tobytes()


@pytest.mark.slow
@examples(40)
@given(several(2), st.sampled_from([0.01, 0.1, 0.5, 1.0, 1.7, 0.0, -0.25]))
def test_leaky_relu_of_every_code(folder: Path, drawn: Any, alpha: float) -> None:
    dtype, (sx, zx, sy, zy) = drawn
    codes = np.arange(256).astype(np.uint8).view(dtype).reshape(2, 128)
    check(folder, om.single(MS + "QLinearLeakyRelu", [codes, sx, zx, sy, zy], alpha=alpha))


def test_leaky_relu_defaults(folder: Path) -> None:
    codes = np.arange(256).astype(np.uint8).view(np.int8)
    check(folder, om.single(MS + "QLinearLeakyRelu", [codes, F(0.5), np.int8(3), F(0.02), np.int8(-7)]))
    assert QLinearLeakyRelu(QuantParams(1.0), QuantParams(1.0)).alpha == float(F(0.01))


def softmax(x: np.ndarray, sx: Any, zx: Any, sy: Any, zy: Any, **attributes: int) -> Case:
    """One node; its attribute opset is not make_model's."""
    names = ["x", "sx", "zx", "sy", "zy"]
    node = om.node(MS + "QLinearSoftmax", names, "y", **attributes)
    constants = dict(zip(names[1:], (sx, zx, sy, zy), strict=True))
    return om.model([node], {"x": (x.dtype.name, x.shape)}, ["y"], constants), {"x": x}


softmax_scales = st.one_of(
    st.sampled_from([1 / 255, 1 / 256, 0.0039, 0.01, 2.0**-16, 1.0, 1.5, 1e-30, 1e-40]),
    st.integers(1, 300).map(lambda steps: 1 / steps),
).map(F)


@pytest.mark.slow
@float64_softmax
@examples(100)
@given(
    several(2), st.sampled_from([1, 2, 3, 10, 100, 1000]) | st.integers(1, 300), softmax_scales,
    st.sampled_from([1e-3, 0.05, 1.0, 1e-30, 1e30]), seeds,
)  # fmt: skip
@pytest.mark.exhaustive
def test_softmax(folder: Path, drawn: Any, count: int, sy: F, factor: float, seed: int) -> None:
    """Thirty rows of any length, with few different codes or many."""
    (dtype, (sx, zx, _, zy)), rng = drawn, np.random.default_rng(seed)
    x = draw_codes(rng, dtype, (30, count))
    x[::2] = np.where(rng.random((15, count)) < 0.7, x[::2, :1], x[::2])
    check(folder, softmax(x, times(sx, factor), zx, sy, zy, axis=-1, opset=13))


@pytest.mark.slow
@float64_softmax
@pytest.mark.parametrize("dtype", EIGHT_BITS)
@pytest.mark.parametrize("count", (1, 2, 255))
def test_softmax_of_every_whole_reciprocal(folder: Path, count: int, dtype: str) -> None:
    """1 / k and its neighbors in float32: whether the floor is k or k - 1."""
    zero = np.array(np.iinfo(dtype).min, dtype)
    x = np.full((1, count), 3, dtype)
    for steps in (1, 2, 3, 41, 127, 128, 254, 255, 256, 257):
        for sy in (F(1 / steps), np.nextafter(F(1 / steps), F(0)), np.nextafter(F(1 / steps), F(2))):
            check(folder, softmax(x, F(0.3), zero, sy, zero, opset=13))


def test_softmax_of_one_element_and_of_common_scales() -> None:
    """1 / 255 is what quantizers write; in float32 it is above 1 / 255, and its reciprocal below 255."""
    x, y = QuantParams(0.5, 0, "uint8"), QuantParams(1 / 255, 0, "uint8")
    assert QLinearSoftmax(x, y).apply(np.uint8([[3], [200]])).tolist() == [[254], [254]]
    row = np.uint8([[0, 255, 0, 0, 0, 255, 0, 0, 255, 255]])
    assert QLinearSoftmax(x, y).apply(row).tolist() == [[0, 64, 0, 0, 0, 64, 0, 0, 64, 64]]
    one = QLinearSoftmax(QuantParams(0.5), QuantParams(1 / 256, -128))
    assert one.apply(np.int8([[-128]])).tolist() == [[127]]


@pytest.mark.slow
@float64_softmax
@pytest.mark.parametrize("scale", (1.0, 0.1, 0.0359))
@pytest.mark.parametrize("count", (2, 6, 10, 34, 100))
def test_softmax_of_equal_numbers(folder: Path, count: int, scale: float) -> None:
    """Ties, which the last bits of the table and of the sum decide."""
    q = np.full((2, count), 127, np.int8)
    for whole in range(3):
        # The reciprocal's floor is an odd number of halves for each element.
        reciprocal = count * whole + count // 2
        check(folder, softmax(q, F(scale), np.int8(0), F(1 / (reciprocal + 0.25)), np.int8(-128), opset=13))


@float64_softmax
@pytest.mark.parametrize("opset", (11, 13))
@pytest.mark.parametrize("axis", (None, 0, 1, 2, -1, -2))
@pytest.mark.parametrize("dtype", EIGHT_BITS)
def test_softmax_axes(folder: Path, dtype: str, axis: int | None, opset: int) -> None:
    x = draw_codes(np.random.default_rng(3), dtype, (2, 3, 5))
    attributes = {"opset": opset} | ({} if axis is None else {"axis": axis})
    zero = np.array(np.iinfo(dtype).min, dtype)
    check(folder, softmax(x, F(0.07), zero, F(1 / 256), zero, **attributes))


def test_softmax_in_pieces() -> None:
    """More rows than are worked on at a time; each row is what it is alone."""
    layer = QLinearSoftmax(QuantParams(0.1), QuantParams(1 / 256, -128))
    q = draw_codes(np.random.default_rng(0), "int8", (5, 60_000))
    whole = layer.apply(q)
    np.testing.assert_array_equal(whole, np.concatenate([layer.apply(row[None]) for row in q]))
    assert layer.apply(np.zeros((3, 0), np.int8)).shape == (3, 0)


# Pools over any number of axes


@st.composite
def pools(draw: st.DrawFn) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Spatial sizes of 1 to 3 axes and the attributes of a window that fits."""
    rank = draw(st.integers(1, 3))
    kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
    sizes = tuple(draw(st.integers(k, 6)) for k in kernel)
    attributes: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": [draw(st.integers(1, 3)) for _ in kernel],
    }
    padding = draw(st.sampled_from(["pads", "pads", "none", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if padding == "pads":
        attributes["pads"] = [draw(st.integers(0, k - 1)) for k in kernel * 2]
    elif padding != "none":
        attributes["auto_pad"] = padding
        # Beyond, ONNX Runtime crops the image; that is refused.
        attributes["strides"] = [
            min(step, k + 1) for step, k in zip(attributes["strides"], kernel, strict=True)
        ]
    if padding in ("pads", "none"):
        attributes["ceil_mode"] = draw(st.integers(0, 1))
    return sizes, attributes


def images(rng: np.random.Generator, dtype: str, sizes: Sequence[int], last: int) -> np.ndarray:
    return draw_codes(rng, dtype, (2, *sizes, 3) if last else (2, 3, *sizes))


@pytest.mark.slow
@examples(60)
@given(several(2), pools(), st.integers(0, 1), st.integers(0, 1), seeds)
def test_average_pool(folder: Path, drawn: Any, pool: Any, last: int, include: int, seed: int) -> None:
    (dtype, parameters), (sizes, attributes) = drawn, pool
    # ONNX Runtime refuses the mean of a whole image where x.scale / y.scale is not in 2^-32 .. 256.
    whole = tuple(attributes["kernel_shape"]) == tuple(sizes)
    assume(not whole or 2.0**-24 < float(parameters[0]) / float(parameters[2]) < 255)
    x = images(np.random.default_rng(seed), dtype, sizes, last)
    case = om.single(
        MS + "QLinearAveragePool",
        [x, *parameters],
        channels_last=last,
        count_include_pad=include,
        **attributes,
    )
    check(folder, case)
    assert layers_of(case, folder) == ["QLinearAveragePool"]


@pytest.mark.parametrize("sizes", ((5,), (3, 4), (2, 3, 4), (2, 1, 2, 3)))
@pytest.mark.parametrize("last", (0, 1))
@pytest.mark.parametrize("dtype", EIGHT_BITS)
def test_global_average_pool(folder: Path, dtype: str, last: int, sizes: tuple[int, ...]) -> None:
    x = images(np.random.default_rng(len(sizes)), dtype, sizes, last)
    arguments = [x, F(0.166), np.array(3, dtype), F(0.14), np.array(7, dtype)]
    check(folder, om.single(MS + "QLinearGlobalAveragePool", arguments, channels_last=last))


@pytest.mark.parametrize("dtype", EIGHT_BITS)
@pytest.mark.parametrize("sizes", ((7,), (5, 6), (4, 5, 3)))
def test_max_pool_of_codes(folder: Path, sizes: tuple[int, ...], dtype: str) -> None:
    rank = len(sizes)
    x = images(np.random.default_rng(rank), dtype, sizes, 0)
    window = {
        "kernel_shape": [2] * rank,
        "strides": [2] * rank,
        "pads": [1, *[0] * (2 * rank - 1)],
        "ceil_mode": 1,
    }
    check(folder, om.single("MaxPool", [x], **window))
    check(folder, om.single("MaxPool", [x], kernel_shape=[2] * rank, dilations=[2] * rank))


# What is refused

X, S, Z = np.zeros((2, 4), F), F(1), np.int8(0)
Q8 = np.zeros((2, 4), np.int8)
REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "output_dtype": (("QuantizeLinear", [X, S], {"output_dtype": 22}), UnsupportedOperator, "output_dtype 22"),
    "two output types": (("QuantizeLinear", [X, S, Z], {"output_dtype": 5}), ValueError, "output_dtype int16, but"),
    "precision": (("QuantizeLinear", [X, S, Z], {"precision": 16, "opset": 23}), UnsupportedOperator, "precision 16"),
    "scale of 0": (("QuantizeLinear", [X, F(0), Z], {}), ValueError, "above zero"),
    "16-bit, scale of 0": (("QuantizeLinear", [X, F(0), np.int16(0)], {}), ValueError, "above zero"),
    "NaN": (("DequantizeLinear", [Q8, F(np.nan), Z], {}), ValueError, "finite"),
    "blocks": (("QuantizeLinear", [X, np.ones((2, 3), F)], {"block_size": 2}), ValueError, "takes a scale (2, 2)"),
    "axis": (("DequantizeLinear", [Q8, np.ones(4, F)], {"axis": 2}), ValueError, "axis 2"),
    "Mul of two types": ((MS + "QLinearMul", [Q8, S, Z, Q8, S, np.uint8(0), S, Z], {}), TypeError, "one dtype"),
    "Concat without axis": ((MS + "QLinearConcat", [S, Z, Q8, S, Z], {}), ValueError, "axis"),
    "Softmax without opset": ((MS + "QLinearSoftmax", [Q8, S, Z, S, Z], {}), ValueError, "opset"),
    "computed parameters": (
        (MS + "QLinearSigmoid", [Q8, S, Z, S, Z], {"moving": (0, 1)}), UnsupportedOperator, "must be a constant"
    ),
    **{
        f"{len(pads)} pads, {name}": ((op, inputs, {"kernel_shape": [2] * 3, "pads": pads}), UnsupportedOperator, "; supported are 6, none")
        for name, op, inputs in (
            ("codes", MS + "QLinearAveragePool", [np.zeros((1,) * 5, np.int8), S, Z, S, Z]),
            ("means", "AveragePool", [np.zeros((1,) * 5, F)]),
            ("maxima", "MaxPool", [np.zeros((1,) * 5, np.int8)]),
        )
        for pads in ([0, 0], [0, 0, 0, 0, -1, 0])
    },
    "four axes": (
        (MS + "QLinearAveragePool", [np.zeros((1,) * 6, np.int8), S, Z, S, Z], {"kernel_shape": [1] * 4}),
        UnsupportedOperator, "a window of 4 dimensions",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path: Path, name: str) -> None:
    (op, arguments, options), error, message = REFUSED[name]
    moving = options.pop("moving", (0,)) if "moving" in options else (0,)
    graph, _ = om.single(op, arguments, moving, **options)
    with pytest.raises(error, match=f": node 'the_node' .*{message.replace('(', '[(]').replace(')', '[)]')}"):
        load_onnx(om.save(graph, tmp_path))


P, U = QuantParams(0.5), QuantParams(0.5, 3, "uint8")
PER_CHANNEL = QuantParams([1.0, 2.0], axis=0)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: QLinearMul(P, P, U), TypeError, "a, b and y must have one dtype, not int8, int8 and uint8"),
        (lambda: QLinearSigmoid(PER_CHANNEL, P), ValueError, "x must have one scale and one zero point"),
        (lambda: QLinearLeakyRelu(P, P, alpha="1"), TypeError, "alpha must be a number, not str"),  # type: ignore[arg-type]
        (lambda: QLinearConcat((), P, axis=0), TypeError, "x must be a tuple of QuantParams"),
        (lambda: QLinearConcat((P, U), P, axis=0), TypeError, "x\\[0\\], x\\[1\\] and y must have one dtype"),
        (lambda: QLinearConcat((P,), P, axis=0).apply(Q8, Q8), TypeError, "takes 1 inputs, one per x, not 2"),
        (lambda: QLinearConcat((P,), P, axis=2).output_shape((2, 4)), ValueError, "has axis 2, but an input"),
        (
            lambda: QLinearConcat((P, P), P, axis=0).output_shape((2, 4), (2, 3)),
            ValueError,
            "equal but for axis 0, not \\(2, 4\\) and \\(2, 3\\)",
        ),
        (lambda: QLinearWhere(P, P, P).apply(Q8, Q8, Q8), TypeError, "takes bool, not int8, as a condition"),
        (lambda: QLinearMul(P, P, P).output_shape((2,), (3,)), ValueError, "broadcast together"),
        (lambda: QLinearSoftmax(P, P, axis=2).apply(Q8), ValueError, "has axis 2, but an input \\(2, 4\\)"),
        (lambda: QLinearAveragePool((2,), P, P, padding=((2, 0),)), ValueError, "smaller than the kernel"),
        (lambda: QLinearAveragePool((2,), P, P, padding=1.0), TypeError, "padding must be an integer, not float 1.0"),  # type: ignore[arg-type]
        (lambda: QLinearAveragePool((2,), P, P, padding=((1,),)), ValueError, "1 of them or of \\(before, after\\)"),  # type: ignore[arg-type]
        (lambda: QLinearAveragePool((2, 2), P, P, stride=(1,)), ValueError, "stride must be an integer or a pair"),
        (lambda: QLinearAveragePool((2,), P, P).output_shape((1, 2)), ValueError, "1 spatial axes"),
        (
            lambda: QLinearAveragePool((9,), P, P).output_shape((1, 2, 4)),
            ValueError,
            "spans 9 pixels of the width",
        ),
        (lambda: QLinearGlobalAveragePool(P, P).output_shape((1, 2)), ValueError, "at least one element"),
        (lambda: QuantizeLinear(dtype="int32"), ValueError, "dtype must be one of"),
        (lambda: QuantizeLinear(dtype="int8").apply(X), TypeError, "takes 2 inputs or 3, not 1"),
        (
            lambda: QuantizeLinear(dtype="int8").apply(X, S, np.uint8(0)),
            TypeError,
            "takes int8, not uint8, as a zero point",
        ),
        (
            lambda: QuantizeLinear(dtype="int8").apply(X, np.ones(4, F), Z),
            ValueError,
            "zero point of the scale's shape",
        ),
        (lambda: QuantizeLinear(dtype="int8", axis=3).apply(X, np.ones(4, F)), ValueError, "has an axis 3"),
        (lambda: DequantizeLinear().apply(X, S), TypeError, "takes int8 or uint8 or int16"),
        (lambda: DequantizeLinear(block_size=3).apply(Q8, S), ValueError, "takes a scale \\(2, 2\\)"),
        (lambda: DequantizeLinear(dtype="float64"), ValueError, "dtype must be one of"),
    ],
)
def test_layers_refuse(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
