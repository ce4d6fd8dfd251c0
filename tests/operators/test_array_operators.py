"""Operators whose products run on the array: against ONNX Runtime, formulas and the oracles, in both modes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import systolic
from support import onnx_models as om
from support.array_runs import ARRAY, check, run, run_one
from support.onnx_models import Case, F, single
from support.oracle_cases import DTYPES, PAIRS, draw_codes, draw_scales, exact_u8s8, fixed, seeds
from support.strategies import raises, wrap32
from systolic import (
    Gemm,
    Model,
    QuantParams,
    UnsupportedOperator,
    load_onnx,
    requantize,
)
from systolic.config import as_machine_config
from systolic.engine.products import MODES, execute
from systolic.layers import (
    Conv2d,
    ConvInteger,
    Dense,
    DynamicQuantize,
    MatMulInteger,
    MatMulIntegerToFloat,
    QLinearConv,
    QLinearMatMul,
)
from systolic.lowered import lower_matmul, matmul_gemm
from systolic.machine import operands as room
from systolic.quant import multiplier
from systolic.verifier.check import ModelCheck

few = settings(fixed, max_examples=40)
def ours(folder: Path, case: Case) -> list[np.ndarray]:
    """What we make of a model that ONNX Runtime may refuse; outputs' types are given by the model."""
    graph, feeds = case
    return list(run(load_onnx(om.save(graph, folder)), feeds).values())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


# Drawing


def choose(rng: np.random.Generator, *options: Any) -> Any:
    return options[rng.integers(len(options))]


def weights(rng: np.random.Generator, x: str, w: str, shape: tuple[int, ...]) -> np.ndarray:
    """Codes of w; of 7 bits where ONNX Runtime's own sums may saturate on this processor."""
    return draw_codes(rng, w, shape, bits=8 if x == w or exact_u8s8() else 7)


def scalar(rng: np.random.Generator, dtype: str) -> np.ndarray:
    return draw_codes(rng, dtype, ())


def stacks(rng: np.random.Generator, *, weight: bool = True) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Leading axes of two operands that broadcast."""
    pairs = [((), ()), ((3,), ()), ((2, 3), ()), ((3,), (1,)), ((3,), (3,)), ((1,), (3,)), ((), (3,))]
    pairs += [((2, 3), (3,)), ((2, 1), (1, 3)), ((2, 3), (2, 3))]
    return pairs[rng.integers(len(pairs))]


def operands(rng: np.random.Generator, x: str, w: str) -> tuple[np.ndarray, np.ndarray, tuple[int, ...], int]:
    """Two stacks of matrices, and the second's leading axes and columns."""
    (m, k, n), (left, right) = rng.integers(1, 10, 3).tolist(), stacks(rng)
    return draw_codes(rng, x, (*left, m, k)), weights(rng, x, w, (*right, k, n)), right, n


def moving(rng: np.random.Generator, arguments: list[Any], always: tuple[int, ...] = (0,)) -> list[int]:
    """Which arguments are fed: some always, any other as often as not."""
    return [i for i, a in enumerate(arguments) if a is not None and (i in always or rng.random() < 0.5)]


def matmul_integer(rng: np.random.Generator) -> Case:
    x, w = choose(rng, *DTYPES), choose(rng, *DTYPES)
    a, b, stack, n = operands(rng, x, w)
    zero = choose(rng, None, scalar(rng, x), draw_codes(rng, x, (1,)))
    columns = draw_codes(rng, w, (*stack, 1, n) if stack else (n,))
    arguments = [a, b, zero, choose(rng, None, scalar(rng, w), columns)]
    return single("MatMulInteger", arguments, moving(rng, arguments))


def matmul_to_float(rng: np.random.Generator, dynamic: bool = False) -> Case:
    x, w = ("uint8", choose(rng, *DTYPES)) if dynamic else choose(rng, *PAIRS)
    a, b, stack, n = operands(rng, x, w)
    each = draw_scales(rng, F(0.02), n)
    scales = choose(rng, F(0.02), each, np.broadcast_to(each, (*stack, 1, n)))
    # Where a scale per column lies beside a stack, ONNX Runtime would scale the bias too.
    biased = scales.ndim != 1 or not stack
    bias = choose(rng, None, (rng.normal(size=n) * 30).astype(F)) if biased else None
    zeros = choose(rng, None, scalar(rng, w), draw_codes(rng, w, (*stack, 1, n)))
    if dynamic:
        real = (rng.normal(size=a.shape) * 3).astype(F)
        return single(
            "com.microsoft.DynamicQuantizeMatMul", [real, b, scales, zeros, bias], choose(rng, (0,), (0, 1))
        )
    arguments = [a, b, F(0.03), scales, choose(rng, None, scalar(rng, x)), zeros, bias]
    return single("com.microsoft.MatMulIntegerToFloat", arguments, moving(rng, arguments))


def dynamic_quantize(rng: np.random.Generator) -> Case:
    shape = choose(rng, (), (1,), (5,), (3, 4), (2, 3, 4), (0,), (2, 0))
    x = (rng.normal(size=shape) * 10.0 ** rng.integers(-4, 5) + rng.normal() * 2).astype(F)
    graph, feeds = single("DynamicQuantizeLinear", [choose(rng, x, np.abs(x), -np.abs(x), np.zeros_like(x))])
    return three_outputs(graph), feeds


def three_outputs(graph: Any) -> Any:
    graph.graph.node[0].output.extend(["scale", "zero"])
    graph.graph.output.extend([om.value("scale", "float32", ()), om.value("zero", "uint8", ())])
    return graph


def qlinear_matmul(rng: np.random.Generator) -> Case:
    x, w = choose(rng, *PAIRS)
    a, b, stack, n = operands(rng, x, w)
    kinds: list[tuple[Any, Any]] = [(F(0.02), scalar(rng, w)), (F([0.02]), draw_codes(rng, w, (1,)))]
    if not stack:
        kinds.append((draw_scales(rng, F(0.02), n), draw_codes(rng, w, (n,))))
        kinds.append((draw_scales(rng, F(0.02), n)[np.newaxis], draw_codes(rng, w, (1, n))))
    else:
        each = np.broadcast_to(draw_scales(rng, F(0.02), n), (*stack, 1, n))
        kinds.append(
            (each * rng.integers(1, 5, (*stack, 1, 1)).astype(F), draw_codes(rng, w, (*stack, 1, n)))
        )
    scales, zeros = kinds[rng.integers(len(kinds))]
    arguments = [a, F(0.03), scalar(rng, x), b, scales, zeros, F(0.5), scalar(rng, x)]
    return single("QLinearMatMul", arguments, choose(rng, (0,), (0, 3), moving(rng, arguments)))


def qgemm(rng: np.random.Generator) -> Case:
    x, w = choose(rng, *PAIRS)
    m, k, n = rng.integers(1, 10, 3).tolist()
    m = choose(rng, m, m, m, 0)
    first, second = rng.integers(2, size=2).tolist()
    a = draw_codes(rng, x, (k, m) if first else (m, k))
    b = weights(rng, x, w, (n, k) if second else (k, n))
    scales, zeros = choose(
        rng, (F(0.02), scalar(rng, w)), (draw_scales(rng, F(0.02), n), draw_codes(rng, w, (n,)))
    )
    shape = choose(rng, None, (), (1,), (n,), (1, n), (m, 1), (m, n))
    bias = None if shape is None else rng.integers(-3000, 3000, shape, dtype=np.int32)
    y = choose(rng, (None, None), (F(0.5), scalar(rng, x)))
    fed = [0, *([3] if rng.random() < 0.5 else []), *([6] if bias is not None and rng.random() < 0.3 else [])]
    arguments = [a, F(0.03), scalar(rng, x), b, scales, zeros, bias, *y]
    fed = choose(rng, fed, moving(rng, arguments))
    alpha = choose(rng, 1.0, 0.3, 2.5)
    return single("com.microsoft.QGemm", arguments, fed, transA=first, transB=second, alpha=alpha)


def convolution(rng: np.random.Generator, x: str, w: str) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Operands over 1 to 3 axes, the kernel fitting the padded input, and attributes."""
    rank, groups = choose(rng, 1, 1, 2, 3, 3), choose(rng, 1, 1, 2, 3)
    kernel, strides = rng.integers(1, 4, rank), rng.integers(1, 4, rank)
    dilations, pads = rng.integers(1, 3, rank), rng.integers(0, 3, 2 * rank)
    attributes: dict[str, Any] = {"group": groups, "strides": strides.tolist()}
    auto = choose(rng, "", "", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")
    if auto.startswith("SAME"):  # ONNX Runtime takes no dilation here
        dilations[:] = 1
    if auto not in ("", "NOTSET"):
        pads[:] = 0
    extent = (kernel - 1) * dilations + 1
    sizes = np.maximum(1, extent - pads[:rank] - pads[rank:]) + rng.integers(0, 4, rank)
    attributes |= {"dilations": dilations.tolist()} if dilations.max() > 1 else {}
    attributes |= {"auto_pad": auto} if auto else {}
    attributes |= {"pads": pads.tolist()} if pads.any() else {}
    attributes |= {"kernel_shape": kernel.tolist()} if rng.random() < 0.5 else {}
    ic, oc = rng.integers(1, 4, 2).tolist()
    images = draw_codes(rng, x, (choose(rng, 1, 1, 2), ic * groups, *sizes.tolist()))
    return images, weights(rng, x, w, (oc * groups, ic, *kernel.tolist())), attributes


def qlinear_conv(rng: np.random.Generator, channels_last: bool = False) -> Case:
    x, w = choose(rng, *PAIRS)
    images, kernels, attributes = convolution(rng, x, w)
    oc = len(kernels)
    scales, zeros = choose(
        rng, (F(0.02), scalar(rng, w)), (draw_scales(rng, F(0.02), oc), draw_codes(rng, w, (oc,)))
    )
    bias = choose(rng, None, rng.integers(-3000, 3000, oc, dtype=np.int32))
    if channels_last:
        images = np.ascontiguousarray(np.moveaxis(images, 1, -1))
        attributes["channels_last"] = 1
    arguments = [images, F(0.03), scalar(rng, x), kernels, scales, zeros, F(0.5), scalar(rng, x), bias]
    fed = choose(rng, [0], moving(rng, arguments))
    return single(
        "com.microsoft.QLinearConv" if channels_last else "QLinearConv", arguments, fed, **attributes
    )


def conv_integer(rng: np.random.Generator) -> Case:
    x, w = choose(rng, *DTYPES), choose(rng, *DTYPES)
    images, kernels, attributes = convolution(rng, x, w)
    arguments = [images, kernels, choose(rng, None, scalar(rng, x)), choose(rng, None, scalar(rng, w))]
    return single("ConvInteger", arguments, moving(rng, arguments), **attributes)


MAKERS = {
    "ConvInteger": conv_integer,
    "DynamicQuantizeLinear": dynamic_quantize,
    "DynamicQuantizeMatMul": lambda rng: matmul_to_float(rng, dynamic=True),
    "MatMulInteger": matmul_integer,
    "MatMulIntegerToFloat": matmul_to_float,
    "QGemm": qgemm,
    "QLinearConv": qlinear_conv,
    "QLinearConv NHWC": lambda rng: qlinear_conv(rng, channels_last=True),
    "QLinearMatMul": qlinear_matmul,
}


@pytest.mark.slow
@pytest.mark.parametrize("operator", MAKERS)
@few
@given(seed=seeds)
def test_equals_onnxruntime(folder: Path, operator: str, seed: int) -> None:
    pytest.importorskip("onnxruntime")
    check(folder, MAKERS[operator](np.random.default_rng(seed)))


# What ONNX Runtime does not take, against formulas


def exact(x: np.ndarray, w: np.ndarray, zx: Any = 0, zw: Any = 0) -> np.ndarray:
    return wrap32((x.astype(np.int64) - zx) @ (w.astype(np.int64) - zw))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("left", "right", "rows", "columns"),
    [
        ((4, 3), (3, 5), (4,), (5,)),
        ((4, 3), (3, 5), (4, 1), (1, 5)),
        ((2, 4, 3), (3, 5), (2, 4, 1), (5,)),
        ((2, 4, 3), (2, 3, 5), (4,), (2, 1, 5)),
        ((2, 4, 3), (2, 3, 5), (2, 1, 1), (5,)),
        ((6, 1, 4, 3), (2, 3, 5), (1, 1, 4, 1), (1, 1, 5)),
        ((3,), (3, 5), (1,), (5,)),
        ((2, 4, 3), (3,), (4,), (1,)),
        ((3,), (3,), (), ()),
        ((3,), (2, 3, 5), (), (2, 1, 5)),
    ],
)
@pytest.mark.parametrize("fed", [(0,), (0, 1, 2, 3)])
def test_matmul_integer_per_row_and_column(
    folder: Path, left: Any, right: Any, rows: Any, columns: Any, fed: Any
) -> None:
    rng = np.random.default_rng(7)
    x, w = draw_codes(rng, "int8", left), draw_codes(rng, "uint8", right)
    zx, zw = draw_codes(rng, "int8", rows), draw_codes(rng, "uint8", columns)
    (y,) = ours(folder, single("MatMulInteger", [x, w, zx, zw], fed))
    at_rows = zx.astype(np.int64)
    if zx.ndim == 1 and zx.size > 1:
        at_rows = at_rows[:, np.newaxis]
    at_columns = zw.astype(np.int64)
    if len(left) == 1 and zw.ndim == 3:  # a vector has no axis of rows for it to lie beside
        expected = np.stack([exact(x, w[i], at_rows, at_columns[i]) for i in range(len(w))])
    else:
        expected = exact(x, w, at_rows, at_columns)
    assert y.dtype == np.int32 and y.shape == expected.shape
    np.testing.assert_array_equal(y, expected)


def test_second_zero_point_alone(folder: Path) -> None:
    x, w = np.uint8([[1, 2]]), np.int8([[3], [4]])
    (y,) = ours(folder, single("MatMulInteger", [x, w, None, np.int8(1)], (0,)))
    np.testing.assert_array_equal(y, [[1 * 2 + 2 * 3]])


@pytest.mark.parametrize("layout", ["NCW", "NCHW", "NCDHW"])
def test_conv_integer_per_channel(folder: Path, layout: str) -> None:
    rng, rank = np.random.default_rng(3), len(layout) - 2
    x, w = draw_codes(rng, "int8", (2, 2, *[4] * rank)), draw_codes(rng, "uint8", (3, 2, *[2] * rank))
    zx, zw = np.int8(-100), np.uint8([0, 200, 7])
    (y,) = ours(folder, single("ConvInteger", [x, w, zx, zw], pads=[1] * 2 * rank))
    padded = np.pad(x.astype(np.int64) - zx, ((0, 0), (0, 0), *[(1, 1)] * rank))
    kernel = w.astype(np.int64) - zw.reshape(-1, *[1] * (rank + 1)).astype(np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2,) * rank, tuple(range(2, 2 + rank)))
    axes = list(range(2 + rank, 2 + 2 * rank))
    expected = np.moveaxis(np.tensordot(windows, kernel, ([1, *axes], [1, *range(2, 2 + rank)])), -1, 1)
    np.testing.assert_array_equal(y, expected)


def test_int8_by_uint8_to_float(folder: Path) -> None:
    rng = np.random.default_rng(5)
    x, w = draw_codes(rng, "int8", (4, 9)), draw_codes(rng, "uint8", (9, 3))
    zx, zw, bias = np.int8(-5), np.uint8([1, 200, 0]), F([0.1, -2, 3])
    scales = F([0.01, 0.02, 0.7])
    (y,) = ours(folder, single("com.microsoft.MatMulIntegerToFloat", [x, w, F(0.3), scales, zx, zw, bias]))
    np.testing.assert_array_equal(
        y, exact(x, w, int(zx), zw.astype(int)).astype(F) * (F(0.3) * scales) + bias
    )


def test_scale_that_multiplies_later() -> None:
    # The sum 3: f32(3 * f32(0.1 * 0.9)) and f32(f32(3 * 0.1) * 0.9) differ in the last bit.
    zero, rest = np.uint8(0), (np.uint8([[[3]]]), np.ones((1, 1, 2), np.uint8), F(0.1))
    (late,) = run_one(MatMulIntegerToFloat(), *rest, F([0.9, 0.9]), zero, zero)
    (at_once,) = run_one(MatMulIntegerToFloat(), *rest, F([[[0.9, 0.9]]]), zero, zero)
    np.testing.assert_array_equal(late, np.full((1, 1, 2), F(F(3) * F(0.1)) * F(0.9)))
    np.testing.assert_array_equal(at_once, np.full((1, 1, 2), F(3) * F(F(0.1) * F(0.9))))
    assert (late != at_once).all()


# Edges


def test_sums_wrap(folder: Path) -> None:
    x, w = np.full((1, 70000), 255, np.uint8), np.full((70000, 1), 255, np.uint8)
    (y,) = run_one(MatMulInteger(), x, w)
    assert y.item() == 256_782_704
    (y,) = run_one(MatMulInteger(), x, w, np.uint8(255), np.uint8(0))
    assert y.item() == 0


@pytest.mark.parametrize(
    ("left", "right", "shape"),
    [
        ((0, 3), (3, 4), (0, 4)),
        ((2, 0), (0, 4), (2, 4)),
        ((2, 3), (3, 0), (2, 0)),
        ((0, 2, 3), (0, 3, 4), (0, 2, 4)),
        ((0, 2, 3), (3, 4), (0, 2, 4)),
        ((5, 2, 3), (0, 1, 3, 4), (0, 5, 2, 4)),
        ((5, 0, 3), (5, 3, 4), (5, 0, 4)),
        ((0,), (0,), ()),
    ],
)
def test_empty_products(left: Any, right: Any, shape: Any) -> None:
    zeros = np.zeros(left, np.int8), np.zeros(right, np.int8), np.int8(3), np.int8(-2)
    (y,) = run_one(MatMulInteger(), *zeros)
    assert y.shape == shape and not y.any()


@pytest.mark.parametrize(
    ("x", "codes", "scale", "zero_point"),
    [
        ([0, 0, 0], [0, 0, 0], 1.0, 0),
        ([], [], 1.0, 0),
        ([1, 1, 1], [255, 255, 255], F(1) / F(255), 0),
        ([-1, -1], [0, 0], F(1) / F(255), 255),
        ([3, np.nan, 1], [255, 0, 85], F(3) / F(255), 0),
        ([np.inf, 1], [0, 0], np.inf, 0),
        ([-np.inf, 1], [0, 255], np.inf, 255),
        ([3e38, -3e38], [0, 0], np.inf, 0),
        ([1e-45, 0], [255, 0], 0.0, 255),
        ([1e-40, -1e-40], [254, 0], F(2e-40) / F(255), 127),
        ([2, 4, -1.5], [163, 255, 0], F(5.5) / F(255), 70),
    ],
)
def test_dynamic_quantize_edges(x: Any, codes: Any, scale: float, zero_point: int) -> None:
    # Numbers of ONNX Runtime 1.31 on x86-64.
    found = run_one(DynamicQuantize(), F(x))
    assert [array.dtype.name for array in found] == ["uint8", "float32", "uint8"]
    np.testing.assert_array_equal(found[0], codes)
    assert found[1] == F(scale) and found[2] == zero_point
    assert found[1].shape == found[2].shape == ()


def test_dynamic_quantization_meets_products(folder: Path) -> None:
    """The scale and zero point that a product reads are found at run time; any batch."""
    pytest.importorskip("onnxruntime")
    rng = np.random.default_rng(1)
    nodes = [
        om.node("DynamicQuantizeLinear", ["x"], ["codes", "scale", "zero"]),
        om.node("ConvInteger", ["codes", "kernel", "zero"], "image", pads=[1, 1, 1, 1]),
        om.node("Flatten", ["codes"], "flat"),
        om.node("MatMulInteger", ["flat", "matrix", "zero", "columns"], "sums"),
    ]
    constants = {
        "kernel": weights(rng, "uint8", "int8", (3, 2, 3, 3)),
        "matrix": weights(rng, "uint8", "int8", (50, 4)),
        "columns": draw_codes(rng, "int8", (4,)),
    }
    x = rng.normal(size=(3, 2, 5, 5)).astype(F)
    graph = om.model(nodes, {"x": ("float32", ("N", 2, 5, 5))}, ["image", "sums", "scale", "zero"], constants)
    model = check(folder, (graph, {"x": x}))
    kinds = [type(node.layer) for node in model.nodes]
    assert kinds[0] is DynamicQuantize and ConvInteger in kinds and MatMulInteger in kinds


def test_attention_of_codes(folder: Path) -> None:
    """Both operands of the products are computed; heads are groups."""
    pytest.importorskip("onnxruntime")
    rng = np.random.default_rng(2)
    parameters = ["s", "z"]
    nodes = [
        om.node("QLinearMatMul", ["q", *parameters, "k", *parameters, "wide", "z"], "scores"),
        om.node("QLinearMatMul", ["scores", "wide", "z", "v", *parameters, "wide", "z"], "y"),
    ]
    feeds = {
        "q": draw_codes(rng, "int8", (2, 3, 5, 4)),
        "k": draw_codes(rng, "int8", (2, 3, 4, 5)),
        "v": draw_codes(rng, "int8", (2, 3, 5, 4)),
    }
    inputs = {name: ("int8", array.shape) for name, array in feeds.items()}
    constants = {"s": F(0.02), "z": np.int8(-3), "wide": F(0.07)}
    model = check(folder, (om.model(nodes, inputs, ["y"], constants), feeds))
    gemms = [node.layer.products((2, 3, 5, 4), (2, 3, 4, 5)) for node in model.nodes[:1]]
    assert gemms == [Gemm(5, 4, 5, groups=6)]


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        (lambda r: om.matmul(r, "int8", "int8", per_column=True), QLinearMatMul),
        (lambda r: om.gemm(r, "int8", "int8", bias=(1, 9)), QLinearMatMul),
        (lambda r: om.conv(r), QLinearConv),
        (lambda r: om.conv(r, ic=6, oc=6, group=6), QLinearConv),
    ],
)
def test_constant_matrices_and_kernels_stay_in_the_layer(folder: Path, case: Any, kind: type) -> None:
    graph, _ = case(np.random.default_rng(0))
    (node,) = load_onnx(om.save(graph, folder)).nodes
    assert type(node.layer) is kind


# Products


@pytest.mark.parametrize(
    ("x", "w", "gemm"),
    [
        ((4, 3), (3, 5), Gemm(4, 3, 5)),
        ((2, 7, 4, 3), (3, 5), Gemm(56, 3, 5)),
        ((2, 7, 4, 3), (1, 1, 3, 5), Gemm(56, 3, 5)),
        ((4, 3), (7, 3, 5), Gemm(4, 3, 5, groups=7)),
        ((2, 1, 4, 3), (7, 3, 5), Gemm(4, 3, 5, groups=14)),
        ((0, 4, 3), (3, 5), Gemm(0, 3, 5)),
        ((0, 4, 3), (0, 3, 5), Gemm(0, 3, 5)),
        ((1, 4, 3), (1, 3, 5), Gemm(4, 3, 5)),
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_batched_product(x: Any, w: Any, gemm: Gemm, mode: str) -> None:
    rng = np.random.default_rng(4)
    left, right = draw_codes(rng, "int8", x), draw_codes(rng, "uint8", w)
    lowered = lower_matmul(left, right)
    assert lowered.gemm == matmul_gemm(x, w) == gemm
    done = execute(lowered, ARRAY, mode)
    assert done.stats == systolic.estimate(gemm, machine=ARRAY)
    sums = exact(left, right)
    np.testing.assert_array_equal(done.output.reshape(sums.shape), sums)
    ones = np.ones_like(left), np.ones_like(right)
    for found, expected in (
        (room.row_sums(lowered.x), exact(left, ones[1])), (room.column_sums(lowered), exact(ones[0], right))
    ):  # fmt: skip
        np.testing.assert_array_equal(np.broadcast_to(found, done.output.shape).reshape(sums.shape), expected)


# Roundings

X, W, Y = QuantParams(0.5, 3), QuantParams(0.25, -2), QuantParams(1.0, 7)  # a multiplier of 1/8: many ties


@pytest.mark.slow
@pytest.mark.parametrize("rounding", ["tflite", "tflite_single", "shift", "gemmini"])
@pytest.mark.parametrize("kind", ["dense", "1", "2", "3", "depthwise", "matmul"])
def test_layers_round_by_name(rounding: str, kind: str) -> None:
    rng = np.random.default_rng(6)
    options: Any = {"x": X, "w": W, "y": Y, "rounding": rounding}
    rank = int(kind) if kind.isdigit() else 2
    x = draw_codes(rng, "int8", (60, 6))
    weight = rng.integers(-3, 0, (6, 6)).astype(np.int8)  # -1, 0, 1 less the zero point
    bias = rng.integers(-200, 200, 6, dtype=np.int32)
    if kind == "depthwise":
        weight = np.where(np.eye(6, dtype=bool), weight, np.int8(-2))
    if kind == "matmul":
        (found,) = run_one(QLinearMatMul(x=X, w=W, y=Y, rounding=rounding), x, weight, bias)
    elif kind == "dense":
        (found,) = run_one(Dense(weight, bias=bias, **options), x)
    else:  # kernels of one element: a product over channels
        kernel = weight.diagonal()[:, np.newaxis] if kind == "depthwise" else weight.T
        groups = 6 // kernel.shape[1]
        layer = QLinearConv(kernel.reshape(*kernel.shape, *[1] * rank), bias=bias, groups=groups, **options)
        (image,) = run_one(layer, x.T.reshape(1, 6, *[60, 1, 1][:rank]))
        found = image.reshape(6, 60).T
    sums = exact(x, weight, 3, -2) + bias
    zero = int(Y.zero_points)
    expected = requantize(sums, multiplier(X, W, Y, rounding), zero, dtype="int8", rounding=rounding)
    np.testing.assert_array_equal(found, expected)
    other = requantize(sums, multiplier(X, W, Y), zero, dtype="int8")
    assert (expected != other).any() == (rounding != "gemmini")


def test_rounding_per_channel() -> None:
    w = QuantParams([0.25, 0.4, 0.1], [0, 1, -1], axis=1)
    layer = Dense(np.int8([[1, 2, 3], [4, 5, 6]]), x=X, w=w, y=Y, rounding="tflite")
    x = draw_codes(np.random.default_rng(0), "int8", (50, 2))
    run_one(layer, x)  # compared with integers there


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Dense(np.int8([[1]]), x=X, w=W, y=Y, rounding="half_up"),
            "rounding must be one of 'half_even', 'tflite', 'tflite_single', 'shift', 'gemmini', "
            "not 'half_up'",
        ),
        (
            lambda: Dense(np.int8([[1]]), x=X, w=W, y=None, rounding="tflite"),
            "QLinearMatMul: rounding 'tflite' is for codes, but without y the output is float32",
        ),
        (
            lambda: Conv2d(np.ones((1, 1, 1, 1), np.int8), x=X, w=W, y=QuantParams(0.3), rounding="shift"),
            "scale must be a power of two from 2**-31 to 2**30 for rounding 'shift', not "
            f"{0.125 / float(F(0.3))}; choose scales that make it one, or another rounding",
        ),
    ],
)
def test_roundings_refused(make: Any, message: str) -> None:
    with raises(ValueError, message):
        make()


# Layers by hand


def test_conv_layouts_agree() -> None:
    rng = np.random.default_rng(8)
    for rank in (1, 3):
        x, weight = draw_codes(rng, "int8", (2, 4, *[5] * rank)), draw_codes(rng, "int8", (6, 2, *[3] * rank))
        w = QuantParams(0.5, rng.integers(-9, 9, 6).tolist(), axis=0)
        options: Any = {"x": X, "w": w, "y": QuantParams(9.0), "groups": 2, "stride": 2, "padding": "same"}
        (first,) = run_one(QLinearConv(weight, **options), x)
        (last,) = run_one(QLinearConv(weight, channels_last=True, **options), np.moveaxis(x, 1, -1))
        np.testing.assert_array_equal(np.moveaxis(last, -1, 1), first)


def test_conv_over_a_flat_axis_is_conv2d() -> None:
    rng = np.random.default_rng(9)
    x, weight = draw_codes(rng, "uint8", (2, 3, 6, 5)), draw_codes(rng, "int8", (4, 3, 3, 2))
    options: Any = {"x": QuantParams(0.5, 9, "uint8"), "w": W, "y": None}
    (flat,) = run_one(Conv2d(weight, padding=((1, 0), (0, 2)), stride=(2, 1), **options), x)
    volume = QLinearConv(
        weight[:, :, np.newaxis], padding=(0, (1, 0), (0, 2)), stride=(1, 2, 1), dilation=1, **options
    )
    (deep,) = run_one(volume, x[:, :, np.newaxis])
    np.testing.assert_array_equal(deep[:, :, 0], flat)
    turned = QLinearConv(
        weight[:, :, :, np.newaxis], padding=((1, 0), 0, (0, 2)), stride=(2, 1, 1), **options
    )  # fmt: skip
    (deep,) = run_one(turned, x[:, :, :, np.newaxis])
    np.testing.assert_array_equal(deep[:, :, :, 0], flat)


def test_transposed_operands() -> None:
    rng = np.random.default_rng(10)
    x, w = draw_codes(rng, "int8", (2, 4, 3)), draw_codes(rng, "int8", (2, 3, 5))
    (plain,) = run_one(QLinearMatMul(x=X, w=W, y=None), x, w)
    both = QLinearMatMul(x=X, w=W, y=None, transpose_x=True, transpose_w=True)
    (turned,) = run_one(both, x.swapaxes(1, 2).copy(), w.swapaxes(1, 2).copy())
    np.testing.assert_array_equal(turned, plain)
    assert both.products((2, 3, 4), (2, 5, 3)) == Gemm(4, 3, 5, groups=2)


def test_a_wrong_expectation_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """What checks these layers against the oracles does compare: a spoilt sum is found and placed."""
    store = room.store

    def spoil(lowered: Any, acc: np.ndarray, group: int, m: int, n: int, sums: np.ndarray) -> None:
        store(lowered, acc, group, m, n, sums + (group == 2))

    monkeypatch.setattr(room, "store", spoil)
    rng = np.random.default_rng(11)
    model = Model(
        [systolic.Node(MatMulInteger(), ("x", "w"), "y")],
        inputs={"x": ((3, 2, 2), "int8"), "w": ((3, 2, 2), "int8")},
    )
    feeds = {"x": draw_codes(rng, "int8", (3, 2, 2)), "w": draw_codes(rng, "int8", (3, 2, 2))}
    found = ModelCheck(as_machine_config(ARRAY), "cycle")
    systolic.run(model, feeds, machine=ARRAY, observe=found)
    assert [(m.stage, m.index) for m in found.mismatches] == [("store", (2, 0, 0))]
    assert not systolic.verify(model, feeds, machine=ARRAY).passed


# Errors

Q = (F(1), np.uint8(0))


@pytest.mark.parametrize(
    ("case", "error", "message"),
    [
        (
            lambda: single("MatMulInteger", [np.zeros((2, 3), np.uint8), np.zeros((4, 5), np.int8)]),
            ValueError,
            "MatMulInteger: operands (2, 3) and (4, 5) do not fit: x has 3 columns, w 4 rows",
        ),
        (
            lambda: single("MatMulInteger", [np.zeros((2, 1, 3), np.uint8), np.zeros((4, 3, 5), np.int8)]),
            ValueError,
            "MatMulInteger: the stacks of operands (2, 1, 3) and (4, 3, 5) do not broadcast",
        ),
        (
            lambda: single(
                "MatMulInteger", [np.zeros((2, 3), np.uint8), np.zeros((3, 5), np.int8), np.uint8([1, 2, 3])]
            ),
            ValueError,
            "MatMulInteger: x_zero_point must be one number, or one per row of an operand (2, 3) "
            "((M,) or (..., M, 1)), not (3,)",
        ),
        (
            lambda: single(
                "MatMulInteger",
                [np.zeros((2, 3), np.uint8), np.zeros((3, 5), np.int8), None, np.zeros((3, 1), np.int8)],
            ),
            ValueError,
            "MatMulInteger: w_zero_point must be one number, or one per column of an operand (3, 5) "
            "((N,) or (..., 1, N)), not (3, 1)",
        ),
        (
            lambda: single(
                "MatMulInteger", [np.zeros((2, 3), np.uint8), np.zeros((3, 5), np.int8), np.int8(0)]
            ),
            TypeError,
            "MatMulInteger: x_zero_point must hold uint8, as its operand does, not int8",
        ),
        (
            lambda: single("ConvInteger", [np.zeros((1, 3, 4), np.uint8), np.zeros((4, 2, 3), np.uint8)]),
            ValueError,
            "x has 3 channels, but w (4, 2, 3) takes 2 in each of 1 groups, 2 in all; "
            "w is (oc, ic // groups, ...)",
        ),
        (
            lambda: single("ConvInteger", [np.zeros((1, 2, 2), np.uint8), np.zeros((4, 2, 3), np.uint8)]),
            ValueError,
            "the kernel spans 3 pixels of the width, more than the padded image's 2; "
            "use a smaller kernel or more padding",
        ),
        (
            lambda: single(
                "ConvInteger", [np.zeros((1, 1, 1, 3, 3), np.uint8), np.zeros((1, 1, 2, 3, 3), np.uint8)]
            ),
            ValueError,
            "the kernel spans 2 pixels of the depth, more than the padded image's 1; "
            "use a smaller kernel or more padding",
        ),
        (
            lambda: single(
                "ConvInteger", [np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1, 2), np.uint8)], strides=[0]
            ),
            ValueError,
            "stride must be a positive integer, not 0",
        ),
        (
            lambda: single(
                "ConvInteger", [np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1, 2), np.uint8)], strides=[1, 1]
            ),
            ValueError,
            "strides must hold 1 numbers, one per spatial axis, not [1, 1]",
        ),
        (
            lambda: single(
                "ConvInteger", [np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1, 2), np.uint8)], group=0
            ),
            ValueError,
            "groups must be a positive integer, not 0",
        ),
        (
            lambda: single(
                "ConvInteger", [np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1, 2), np.uint8)], pads=[1, -1]
            ),
            UnsupportedOperator,
            "pads [1, -1]; supported are 2, none negative, first those before each axis",
        ),
        (
            lambda: single(
                "com.microsoft.MatMulIntegerToFloat",
                [
                    *(np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2, 2), np.uint8), F(1), F([1, 2])),
                    *(None, None, F([1, 2])),
                ],
            ),
            ValueError,
            "MatMulIntegerToFloat takes no bias beside a w_scale (2,) of (2, 2, 2): ONNX Runtime would scale "
            "the bias too; give w_scale w's shape with 1 for K, or add the bias later",
        ),
        (
            lambda: single(
                "com.microsoft.MatMulIntegerToFloat",
                [np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8), F([1, 2]), F(1)],
            ),
            ValueError,
            "MatMulIntegerToFloat: x_scale must be one number, not (2,)",
        ),
        (
            lambda: single(
                "QLinearMatMul",
                [np.zeros((2, 3), np.uint8), F([1, 2]), Q[1], np.zeros((3, 5), np.uint8), *Q, *Q],
                (0, 1),
            ),
            ValueError,
            "QLinearMatMul: x_scale must be one number, not (2,)",
        ),
        (
            lambda: single(
                "com.microsoft.QGemm",
                [np.zeros((2, 3), np.uint8), *Q, np.zeros((3, 5), np.uint8), *Q],
                alpha=-1.0,
            ),
            UnsupportedOperator,
            "alpha -1.0; supported are numbers above 0",
        ),
        (
            lambda: single(
                "QLinearConv",
                [np.zeros((1, 1, 3), np.uint8), *Q, np.zeros((1, 1, 2), np.uint8), *Q, *Q],
                (0, 3),
                kernel_shape=[3],
            ),
            ValueError,
            "kernel_shape (3,) but a weight (1, 1, 2)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(folder: Path, case: Any, error: Any, message: str) -> None:
    graph, _ = case()
    with pytest.raises(error) as caught:
        load_onnx(om.save(graph, folder))
    assert message in str(caught.value) and "the_node" in str(caught.value)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: MatMulInteger().output_shape((2, 3)),
            TypeError,
            "MatMulInteger takes 2 to 4 inputs (x, w, x_zero_point, w_zero_point), not 1",
        ),
        (
            lambda: MatMulInteger().output_dtype("float32", "int8"),
            TypeError,
            "MatMulInteger: x must hold int8 or uint8, not float32",
        ),
        (
            lambda: MatMulInteger().output_shape((), (3, 2)),
            ValueError,
            "MatMulInteger takes matrices or stacks of them, not ()",
        ),
        (
            lambda: QLinearMatMul(x=X, w=W, y=Y).output_dtype("int8", "uint8"),
            TypeError,
            "QLinearMatMul takes int8 as w, as its w says, not uint8",
        ),
        (
            lambda: QLinearMatMul(x=X, w=W, y=Y).output_dtype("int8", "int8", "float32"),
            TypeError,
            "QLinearMatMul takes a bias of int32, not float32",
        ),
        (
            lambda: QLinearMatMul(x=X, w=W, y=Y).output_shape((2, 3), (3, 4), (5,)),
            ValueError,
            "QLinearMatMul: a bias (5,) does not broadcast to the output (2, 4)",
        ),
        (
            lambda: QLinearMatMul(x=X, w=W, y=Y).output_shape((2, 3), (3, 4), (2, 2, 4)),
            ValueError,
            "QLinearMatMul: a bias (2, 2, 4) does not broadcast to the output (2, 4)",
        ),
        (
            lambda: QLinearMatMul(x=X, w=QuantParams([1.0, 2.0], axis=1), y=Y).output_shape((2, 3), (3, 4)),
            ValueError,
            "QLinearMatMul: w has 2 scales, one per column, but the shape (3, 4)",
        ),
        (
            lambda: QLinearMatMul(x=X, w=W, y=Y, transpose_w=True).output_shape((2, 3), (3,)),
            ValueError,
            "QLinearMatMul: w must have 2 axes or more to be transposed, not (3,)",
        ),
        (lambda: QLinearMatMul(x=X, w=W, y=Y, transpose_x=1), TypeError, "transpose_x must be True or False, not int 1"),
        (lambda: QLinearMatMul(x=X, w=3, y=Y), TypeError, "QLinearMatMul: w must be QuantParams, not int"),
        (
            lambda: QLinearConv(np.ones((1, 1), np.int8), x=X, w=W, y=Y),
            ValueError,
            "QLinearConv: weight must be (oc, ic // groups, ...) with 3 to 5 axes, not (1, 1)",
        ),
        (
            lambda: QLinearConv(np.ones((3, 1, 1, 1, 1), np.int8), x=X, w=W, y=Y, groups=2),
            ValueError,
            "QLinearConv: weight has 3 output channels, which 2 groups do not divide",
        ),
        (
            lambda: QLinearConv(np.ones((3, 1, 1, 1, 1), np.int8), x=X, w=W, y=Y, stride=(1, 1)),
            ValueError,
            "stride must be an integer or 3 of them, not (1, 1)",
        ),
        (
            lambda: QLinearConv(np.ones((3, 1, 1), np.int8), x=X, w=W, y=Y, padding=(1, 1)),
            ValueError,
            "padding must be an int, 1 of them or of (before, after), 'same', 'same_lower' or 'valid', "
            "not (1, 1)",
        ),
        (
            lambda: QLinearConv(np.ones((3, 1, 1), np.int8), x=X, w=W, y=Y, channels_last="NWC"),  # type: ignore[arg-type]
            TypeError,
            "channels_last must be True or False, not str 'NWC'",
        ),
        (
            lambda: QLinearConv(x=X),
            ValueError,
            "QLinearConv: without a weight x is an input, and must be None",
        ),
        (
            lambda: QLinearConv(rounding="tflite"),
            ValueError,
            "QLinearConv: without a weight it rounds half_even, not 'tflite'",
        ),
        (
            lambda: QLinearConv(np.ones((3, 1, 1), np.int8), x=X, w=W, y=Y).output_shape((1, 1, 2, 2)),
            ValueError,
            "QLinearConv takes tensors (batch, ic, iw), not (1, 1, 2, 2)",
        ),
        (
            lambda: QLinearConv(np.ones((3, 1, 1), np.int8), x=X, w=W, y=Y).output_dtype("uint8"),
            TypeError,
            "QLinearConv takes int8, as its x says, not uint8",
        ),
        (
            lambda: ConvInteger().output_shape((), ()),
            ValueError,
            "ConvInteger takes x with 3 to 5 axes (batch, ic, ...), not ()",
        ),
        (
            lambda: ConvInteger().output_shape((1, 1), (1, 1)),
            ValueError,
            "ConvInteger takes x with 3 to 5 axes (batch, ic, ...), not (1, 1)",
        ),
        (
            lambda: ConvInteger().output_shape((1, 1, 3), (1, 1, 3, 3)),
            ValueError,
            "ConvInteger takes w (oc, ic // groups, ...) with 3 axes as x has, not (1, 1, 3, 3)",
        ),
        (
            lambda: ConvInteger().output_shape((1, 1, 3), (4, 1, 3), (2,)),
            ValueError,
            "ConvInteger: x_zero_point must be one number, not (2,)",
        ),
        (
            lambda: ConvInteger().output_shape((1, 1, 3), (4, 1, 3), (), (3,)),
            ValueError,
            "ConvInteger: w_zero_point must be one number or (4,), not (3,)",
        ),
        (
            lambda: ConvInteger(padding="full"),
            ValueError,
            "padding must be one of 'same', 'same_lower', 'valid', not 'full'",
        ),
        (
            lambda: DynamicQuantize().output_dtype("int8"),
            TypeError,
            "DynamicQuantize takes float32, not int8",
        ),
    ],
)
def test_layers_refuse(call: Any, error: Any, message: str) -> None:
    with raises(error, message):
        call()


def test_kernel_shape_is_compared_with_weights(folder: Path) -> None:
    graph, _ = single(
        "ConvInteger", [np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1, 2), np.uint8)], kernel_shape=[3]
    )
    with pytest.raises(ValueError, match=r"the_node.*kernel_shape \(3,\) but a weight \(1, 1, 2\)"):
        load_onnx(om.save(graph, folder))
    nodes = [om.node("ConvInteger", ["x", "w"], "y", name="the_node", kernel_shape=[2])]
    inputs = {"x": ("uint8", (1, 1, 3)), "w": ("uint8", (1, 1, "k"))}
    with pytest.raises(UnsupportedOperator, match="the_node.*kernel_shape beside weights whose shape is not"):
        load_onnx(om.save(om.model(nodes, inputs, ["y"]), folder))


@pytest.mark.parametrize(
    ("auto", "size", "stride", "first"),
    [("SAME_UPPER", 4, 4, 20), ("SAME_UPPER", 3, 3, 10), ("SAME_LOWER", 4, 4, 10), ("SAME_LOWER", 5, 5, 20)],
)
def test_same_crops_where_strides_exceed_kernels(folder: Path, auto: str, size: int, stride: int, first: int) -> None:
    x = np.arange(10, 10 * size + 1, 10, dtype=np.uint8).reshape(1, 1, size)
    one, zero, w = F(1), np.uint8(0), np.uint8([[[1]]])
    case = om.single("QLinearConv", [x, one, zero, w, one, zero, one, zero], auto_pad=auto, strides=[stride])
    graph, feeds = case
    model = systolic.load_onnx(om.save(om.typed(graph), folder))
    for mode in ("cycle", "wavefront"):
        run = systolic.run(model, feeds, mode=mode)
        assert run.outputs["y"].tolist() == [[[first]]]
        assert run.stats == systolic.estimate(model, machine=run.machine)
    check(folder, case)
    again = systolic.load_onnx(_saved(model, folder))
    assert systolic.run(again, feeds).outputs["y"].tolist() == [[[first]]]


def _saved(model: Any, folder: Path) -> Path:
    path = folder / "again.onnx"
    systolic.save_onnx(model, path)
    return path
