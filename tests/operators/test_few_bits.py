"""Weights of 4 and 8 bits: constants of int4 and uint4, MatMulNBits, and the fused float products."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import systolic
from support.strategies import raises
from systolic import UnsupportedOperator, load_onnx, run, save_onnx, verify
from systolic.layers import DequantizedMatMul, DequantizeLinear, FloatMatMul, MatMulNBits, OnnxNode
from systolic.layers.host import session
from systolic.presets import TPU_V1

ort = pytest.importorskip("onnxruntime")
F = np.float32
MICROSOFT = "com.microsoft"
KINDS = {"int4": (TensorProto.INT4, -8, 8), "uint4": (TensorProto.UINT4, 0, 16)}


def narrow(rng: np.random.Generator, name: str, dtype: str, shape: tuple[int, ...]) -> Any:
    kind, low, high = KINDS[dtype]
    return helper.make_tensor(name, kind, shape, rng.integers(low, high, shape).ravel().tolist())


def saved(folder: Path, nodes: list[Any], constants: dict[str, Any], x: np.ndarray, batch: Any = None) -> Path:
    tensors = [
        value if isinstance(value, onnx.TensorProto) else numpy_helper.from_array(np.asarray(value), name)
        for name, value in constants.items()
    ]
    graph = helper.make_graph(
        nodes, "few bits",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *x.shape[1:]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], tensors,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(MICROSOFT, 1)]
    path = folder / "m.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())
    return path


def runtime(path: Path, x: np.ndarray, level: str = "ENABLE_ALL") -> np.ndarray:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_{level}")
    (y,) = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    return np.asarray(y)


def comes_back(path: Path) -> None:
    model = load_onnx(path)
    save_onnx(model, path.with_suffix(".again"))
    assert load_onnx(path.with_suffix(".again")) == model


@pytest.mark.parametrize(("dtype", "zeros"), [*itertools.product(KINDS, (False, True))])
@pytest.mark.parametrize("scales", [(), (5,), (3, 5)], ids=["tensor", "axis", "blocks"])
def test_dequantized_weights(tmp_path: Path, dtype: str, zeros: bool, scales: tuple[int, ...]) -> None:
    rng = np.random.default_rng(len(scales))
    constants = {"w": narrow(rng, "w", dtype, (10, 5)), "s": np.abs(rng.normal(size=scales)).astype(F)}
    if zeros:
        constants["z"] = narrow(rng, "z", dtype, scales)
    axis = {"axis": 0, "block_size": 4} if len(scales) > 1 else {"axis": 1}
    nodes = [
        helper.make_node("DequantizeLinear", list(constants), ["d"], **axis),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    x = rng.normal(size=(3, 10)).astype(F)
    path = saved(tmp_path, nodes, constants, x)
    expected = runtime(path, x, "DISABLE_ALL")  # optimized, ONNX Runtime quantizes x as well
    np.testing.assert_array_equal(run(load_onnx(path), x).outputs["y"], expected)
    exact = run(load_onnx(path, float_products="exact"), x).outputs["y"]
    np.testing.assert_allclose(exact, expected, rtol=1e-4, atol=1e-5)
    assert verify(path, x, against="onnxruntime").passed
    comes_back(path)


def test_a_constant_node_and_computed_scales(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Constant", [], ["w"], value=narrow(rng, "", "int4", (4, 5))),
        helper.make_node("ReduceMax", ["x"], ["s"], keepdims=0),
        helper.make_node("DequantizeLinear", ["w", "s"], ["y"]),
    ]
    x = np.abs(rng.normal(size=(3, 10))).astype(F)
    path = saved(tmp_path, nodes, {}, x)
    for qdq in ("integer", "float"):
        model = load_onnx(path, qdq=qdq)
        assert isinstance(model.nodes[-1].layer, DequantizeLinear)
        np.testing.assert_array_equal(run(model, x).outputs["y"], runtime(path, x))


def test_four_bits_stay_out_of_integer_groups(tmp_path: Path) -> None:
    """ONNX Runtime has no integer product of int4 weights on its CPU provider; here it gives real numbers."""
    rng = np.random.default_rng(1)
    constants = {"w": narrow(rng, "w", "int4", (4, 5)), "s": F(0.25), "z": np.int8(3)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["a"]),
        helper.make_node("DequantizeLinear", ["w", "s"], ["b"]),
        helper.make_node("MatMul", ["a", "b"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["d", "s", "z"], ["y"]),
    ]
    x = rng.normal(size=(3, 4)).astype(F)
    path = saved(tmp_path, nodes, constants, x)
    model = load_onnx(path)
    assert any(isinstance(node.layer, DequantizedMatMul) for node in model.nodes)
    np.testing.assert_array_equal(run(model, x, machine=TPU_V1.array).outputs["y"], runtime(path, x))


def test_quantizing_to_four_bits_is_refused(tmp_path: Path) -> None:
    x = np.ones((1, 4), F)
    zero = helper.make_tensor("z", TensorProto.INT4, (), [0])
    for read, more in (["x", "s", "z"], {}), (["x", "s"], {"output_dtype": TensorProto.INT4}):
        nodes = [
            helper.make_node("QuantizeLinear", read, ["q"], **more),
            helper.make_node("DequantizeLinear", ["q", "s"], ["y"]),
        ]
        path = saved(tmp_path, nodes, {"s": F(1), "z": zero}, x)
        with pytest.raises(UnsupportedOperator, match="QuantizeLinear.*int4.*; supported are int8, uint8"):
            load_onnx(path)


def nbits(rng: np.random.Generator, k: int, n: int, bits: int, block: int, zeros: str, bias: bool) -> Any:
    blocks = -(-k // block)
    arrays: dict[str, Any] = {
        "w": rng.integers(0, 256, (n, blocks, block * bits // 8)).astype(np.uint8),
        "s": rng.normal(size=(n, blocks)).astype(F),
    }
    if zeros == "packed":
        arrays["z"] = rng.integers(0, 256, (n, -(-blocks * bits // 8))).astype(np.uint8)
    elif zeros:
        arrays["z"] = rng.normal(8, 1, (n, blocks)).astype(F)
    if bias:
        arrays["b"] = rng.normal(size=n).astype(F)
    names = ["x", "w", "s", *(["z"] if zeros else [""]), "", *(["b"] if bias else [])]
    node = helper.make_node(
        "MatMulNBits", names, ["y"], domain=MICROSOFT, K=k, N=n, bits=bits, block_size=block
    )
    return node, arrays


@pytest.mark.parametrize(("bits", "zeros", "bias"), [*itertools.product((4, 8), ("", "packed", "float"), (False, True))])
def test_weights_in_blocks(
    tmp_path: Path, bits: int, zeros: str, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(bits)
    node, constants = nbits(rng, 100, 7, bits, 16, zeros, bias)
    for rows in (1, 9):
        x = rng.normal(size=(rows, 100)).astype(F)
        path = saved(tmp_path, [node], constants, x)
        model = load_onnx(path)
        assert isinstance(model.nodes[0].layer, MatMulNBits)
        exact = run(load_onnx(path, float_products="exact"), x).outputs["y"]
        if (bits, zeros) == (8, "float"):  # which ONNX Runtime does not take
            np.testing.assert_array_equal(run(model, x).outputs["y"], exact)
            continue
        expected = runtime(path, x)
        np.testing.assert_array_equal(run(model, x).outputs["y"], expected)
        assert verify(path, x, against="onnxruntime").passed
        np.testing.assert_allclose(exact, expected, rtol=1e-4, atol=1e-3)
        with monkeypatch.context() as patch:
            patch.setattr(session, "installed", lambda: False)
            np.testing.assert_array_equal(run(load_onnx(path), x).outputs["y"], exact)
    comes_back(path)


def test_other_accuracies_are_delegated(tmp_path: Path) -> None:
    """By accuracy_level 4 ONNX Runtime quantizes x as well."""
    rng = np.random.default_rng(0)
    node, constants = nbits(rng, 64, 8, 4, 32, "", False)
    node.attribute.append(helper.make_attribute("accuracy_level", 4))
    x = rng.normal(size=(3, 64)).astype(F)
    path = saved(tmp_path, [node], constants, x)
    model = load_onnx(path)
    assert isinstance(model.nodes[0].layer, OnnxNode)
    np.testing.assert_allclose(run(model, x).outputs["y"], runtime(path, x), rtol=0.1, atol=1)


@pytest.mark.parametrize(
    ("op", "attributes", "shapes"),
    [
        ("FusedMatMul", {"transB": 1, "alpha": 0.5}, ((2, 3, 4), (2, 5, 4))),
        ("FusedMatMul", {"transA": 1}, ((4, 3), (4, 5))),
        ("FusedMatMul", {"transBatchA": 1, "alpha": 2.0}, ((3, 2, 4), (2, 4, 5))),
        ("FusedMatMul", {"transBatchA": 1, "transBatchB": 1, "transA": 1}, ((4, 2, 3), (4, 2, 5))),
        ("FusedGemm", {"activation": "Relu", "transB": 1, "beta": 0.5}, ((3, 4), (5, 4), (5,))),
    ],
)
def test_fused_products(tmp_path: Path, op: str, attributes: dict[str, Any], shapes: Any) -> None:
    rng = np.random.default_rng(0)
    x, *constants = (rng.normal(size=shape).astype(F) for shape in shapes)
    names = [f"c{i}" for i in range(len(constants))]
    node = helper.make_node(op, ["x", *names], ["y"], domain=MICROSOFT, **attributes)
    path = saved(tmp_path, [node], dict(zip(names, constants, strict=True)), x, len(x))
    model = load_onnx(path)
    assert isinstance(model.nodes[-1].layer, FloatMatMul)
    np.testing.assert_allclose(run(model, x).outputs["y"], runtime(path, x), rtol=1e-6, atol=1e-6)
    exact = run(load_onnx(path, float_products="exact"), x).outputs["y"]
    np.testing.assert_allclose(exact, runtime(path, x), rtol=1e-5, atol=1e-5)
    assert verify(path, x, against="onnxruntime").passed
    comes_back(path)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: MatMulNBits(4, 4, bits=2), ValueError, "bits must be an integer of at least 4, not 2"),
        (lambda: MatMulNBits(4, 4, bits=5), ValueError, "bits must be 4 or 8, not 5"),
        (lambda: MatMulNBits(4, 4, block_size=24), ValueError, "block_size must be a power of two, not 24"),
        (
            lambda: MatMulNBits(20, 4).output_shape((2, 4), (4, 1, 16), (4,)),
            ValueError,
            "MatMulNBits takes x (..., 20), not (2, 4)",
        ),
        (
            lambda: MatMulNBits(20, 4).output_shape((2, 20), (4, 1, 8), (4,)),
            ValueError,
            "MatMulNBits takes weights (4, 1, 16), not (4, 1, 8)",
        ),
        (
            lambda: FloatMatMul(bias=np.ones(3)),
            ValueError,
            "FloatMatMul takes no bias without a weight; it reads one as its third input",
        ),
        (
            lambda: systolic.layers.QLinearMatMul(alpha=2.0, x=P, w=P, y=P),
            ValueError,
            "QLinearMatMul takes no alpha beside what is held; give x the product as its scale",
        ),
        (
            lambda: systolic.layers.QuantizeLinear(P, axis=2),
            ValueError,
            "QuantizeLinear takes no axis, block_size and dtype beside y, which says them",
        ),
    ],
)
def test_errors(make: Any, error: type[Exception], message: str) -> None:
    with raises(error, message):
        make()


P = systolic.QuantParams(0.5)
