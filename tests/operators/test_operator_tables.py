"""Every operator on codes runs here, and equals ONNX Runtime.

`ROWS` has one case per row, and names the tests that try the row at length, against ONNX Runtime, a
formula or an oracle. A row without either fails.
"""

from __future__ import annotations

import ast
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import systolic
from support import onnx_models as om
from support.onnx_models import F, single
from support.oracle_cases import cpu_flags
from systolic.frontend import operators
from systolic.layers.table import OPERATORS

MS = "com.microsoft"
PRODUCTS, CODES = "test_array_operators.py", "test_quantized_operators.py"
X86 = platform.machine().lower() in ("x86_64", "amd64")
FUSED = X86 and "avx2" in cpu_flags() and "fma" in cpu_flags()

RNG = np.random.default_rng(11)
REALS = RNG.normal(size=(2, 3, 4)).astype(F)
A, B = (RNG.integers(0, 256, shape, dtype=np.uint8) for shape in ((2, 3, 4), (4, 5)))
IMAGE, KERNEL = (RNG.integers(0, 256, shape, dtype=np.uint8) for shape in ((1, 2, 6, 6), (3, 2, 3, 3)))
LAST = np.ascontiguousarray(IMAGE.transpose(0, 2, 3, 1))
P, Q, R = (F(0.02), np.uint8(3)), (F(0.05), np.uint8(128)), (F(0.5), np.uint8(77))
W, G = RNG.integers(0, 128, (1, 4, 16), dtype=np.uint8), (F([0.02]), np.uint8([63]))

ROWS: dict[tuple[str, str], tuple[Callable[..., Any], tuple[str, ...]]] = {
    ("", "ConvInteger"): (
        lambda op: single(op, [IMAGE, KERNEL, P[1], Q[1]]),
        (f"{PRODUCTS}::test_equals_onnxruntime", f"{PRODUCTS}::test_conv_integer_per_channel"),
    ),
    ("", "DynamicQuantizeLinear"): (
        lambda op: three(single(op, [REALS])),
        (f"{PRODUCTS}::test_equals_onnxruntime", f"{PRODUCTS}::test_dynamic_quantize_edges"),
    ),
    ("", "MatMulInteger"): (
        lambda op: single(op, [A, B, P[1], Q[1]]),
        (f"{PRODUCTS}::test_equals_onnxruntime", f"{PRODUCTS}::test_matmul_integer_per_row_and_column"),
    ),
    ("", "QLinearConv"): (
        lambda op: single(op, [IMAGE, *P, KERNEL, *Q, *R]),
        (f"{PRODUCTS}::test_equals_onnxruntime", "test_computed_parameters.py::test_scales_may_be_anything"),
    ),
    ("", "QLinearMatMul"): (
        lambda op: single(op, [A, *P, B, *Q, *R]),
        (f"{PRODUCTS}::test_equals_onnxruntime", "test_computed_parameters.py::test_scales_may_be_anything"),
    ),
    (MS, "DynamicQuantizeLSTM"): (
        lambda op: single(op, [REALS[:, :1], W, W, *[None] * 5, *G, *G], hidden_size=4),
        ("test_recurrent.py::test_equals_onnxruntime",),
    ),
    (MS, "DynamicQuantizeMatMul"): (
        lambda op: single(op, [REALS, B, *Q]), (f"{PRODUCTS}::test_equals_onnxruntime",)
    ),
    (MS, "QAttention"): (
        lambda op: present(single(op, [A, W[0, :, :12], REALS.reshape(-1)[:12], P[0], Q[0]], num_heads=2)),
        ("test_transformer.py::test_equals_onnxruntime",),
    ),
    (MS, "MatMulIntegerToFloat"): (
        lambda op: single(op, [A, B, P[0], Q[0], P[1], Q[1]]),
        (f"{PRODUCTS}::test_equals_onnxruntime", f"{PRODUCTS}::test_int8_by_uint8_to_float"),
    ),
    (MS, "QGemm"): (
        lambda op: single(op, [A[0], *P, B, *Q, None, *R], alpha=2.5), (f"{PRODUCTS}::test_equals_onnxruntime",)
    ),
    (MS, "QLinearConv"): (
        lambda op: single(op, [LAST, *P, KERNEL, *Q, *R], channels_last=1),
        (f"{PRODUCTS}::test_equals_onnxruntime",),
    ),
    ("", "DequantizeLinear"): (
        lambda op: single(op, [A, *P]), (f"{CODES}::test_dequantize_linear", f"{CODES}::test_opsets")
    ),
    ("", "QuantizeLinear"): (
        lambda op: single(op, [REALS, *P]), (f"{CODES}::test_quantize_linear", f"{CODES}::test_opsets")
    ),
    (MS, "DequantizeLinear"): (lambda op: single(op, [A, *P]), (f"{CODES}::test_microsoft_domain",)),
    (MS, "QuantizeLinear"): (lambda op: single(op, [REALS, *P]), (f"{CODES}::test_microsoft_domain",)),
    (MS, "QLinearAdd"): (lambda op: single(op, [A, *P, A[:, ::-1], *Q, *R], (0, 3)), (f"{CODES}::test_add",)),
    (MS, "QLinearAveragePool"): (
        lambda op: single(op, [IMAGE, *P, *Q], kernel_shape=[2, 3]),
        (f"{CODES}::test_average_pool",),
    ),
    (MS, "QLinearConcat"): (
        lambda op: single(op, [*R, A, *P, A, *Q], (2, 5), axis=1), (f"{CODES}::test_concat",)
    ),
    (MS, "QLinearGlobalAveragePool"): (
        lambda op: single(op, [IMAGE // np.uint8([[[[1]], [[3]]]]), *P, *Q]), (f"{CODES}::test_global_average_pool",)
    ),
    (MS, "QLinearLeakyRelu"): (
        lambda op: single(op, [A, *Q, *P], alpha=0.3), (f"{CODES}::test_leaky_relu_of_every_code",)
    ),
    (MS, "QLinearMul"): (
        lambda op: single(op, [A, *P, A[:, ::-1], *Q, *R], (0, 3)),
        (f"{CODES}::test_mul", f"{CODES}::test_mul_from_the_formula"),
    ),
    (MS, "QLinearSigmoid"): (lambda op: single(op, [A, *Q, *P]), (f"{CODES}::test_sigmoid_of_every_code",)),
    (MS, "QLinearSoftmax"): (
        lambda op: softmax(single(op, [A, *Q, F(1 / 256), np.uint8(0)], axis=-1)),
        (f"{CODES}::test_softmax", f"{CODES}::test_softmax_axes"),
    ),
    (MS, "QLinearWhere"): (
        lambda op: single(op, [A > 100, A, *P, A[:, ::-1], *Q, *R], (0, 1, 4)), (f"{CODES}::test_where",)
    ),
}  # fmt: skip

# ONNX Runtime multiplies these in another order, or without fused steps, elsewhere.
ELSEWHERE = {"QLinearAdd": FUSED, "QLinearSigmoid": FUSED, "QLinearMul": X86, "QLinearSoftmax": X86}


def softmax(case: om.Case) -> om.Case:
    """QLinearSoftmax has an attribute called as the operator set is."""
    case[0].graph.node[0].attribute.append(onnx.helper.make_attribute("opset", 13))
    return case


def present(case: om.Case) -> om.Case:
    """QAttention: keys and values are of integers alone, the output is not."""
    case[0].graph.node[0].output[:] = ["unused", "y"]
    return case


def three(case: om.Case) -> om.Case:
    """DynamicQuantizeLinear has three outputs."""
    case[0].graph.node[0].output.extend(["scale", "zero"])
    return case


@pytest.mark.slow
def test_every_row_has_a_case_and_tests() -> None:
    on_codes = {
        key
        for key, record in OPERATORS.items()
        if record.params or record.runs_on == "array" or record.name.endswith("uantizeLinear")
    }
    assert set(ROWS) == on_codes
    for row, (_, tests) in ROWS.items():
        assert tests, row
        for test in tests:
            file, _, name = test.partition("::")
            tree = ast.parse((Path(__file__).parent / file).read_text(encoding="utf-8"))
            assert name in {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}, test


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "".join(row))
def test_row_equals_onnxruntime(
    row: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    if not ELSEWHERE.get(row[1], True):
        pytest.skip("ONNX Runtime has other kernels here")
    domain, name = row
    converted = []

    def spy(op: operators.Operator) -> operators.Converted:
        converted.append(op.key)
        return converter(op)

    converter = operators.OPERATORS[row]
    monkeypatch.setitem(operators.OPERATORS, row, spy)
    make, _ = ROWS[row]
    graph, feeds = make(f"{domain}.{name}" if domain else name)
    path = om.save(om.typed(graph), tmp_path)
    run = systolic.run(systolic.load_onnx(path), feeds, mode="wavefront")
    assert converted == [row]
    theirs = om.onnxruntime_outputs(path, feeds)
    assert len(theirs) == len(run.outputs)
    for output, expected in zip(run.outputs.values(), theirs, strict=True):
        assert (output.dtype, output.shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(output, expected)
        assert expected.size == 1 or len(np.unique(expected)) > 1  # codes, not one saturated end
