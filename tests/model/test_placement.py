"""Why no MAC runs on the array, node by node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import systolic
from systolic import Model, Node, QuantParams, layers
from systolic.layers import Dense, FloatMatMul, Relu
from systolic.model.placement import OffArray, off_array, off_array_lines

F = np.float32


def unplaced(model: Model) -> tuple[OffArray, ...]:
    return off_array(model.nodes, model.infer_shapes(dict.fromkeys(model.inputs)))


OR_LOAD_IT = "quantize the model first (docs/quantize.md), or load it with compute='bfloat16'"


def reasons(model: Model) -> list[tuple[str, str]]:
    return [(node.node, node.reason) for node in unplaced(model)]


def test_floats_and_wide_codes() -> None:
    wide = QuantParams(0.5, dtype="int8")
    nodes = [
        Node(layers.FloatMatMul(), ("x", "w"), "real", "real"),
        Node(layers.DequantizeLinear(wide), "q", "narrow"),
        Node(layers.FloatMatMul(), ("narrow", "w"), "of codes", "of 8 bits"),
        Node(layers.DequantizeLinear(), ("q16", "scale"), "far", "dequantizes"),
        Node(layers.Reshape((-1, 2)), "far", "shaped"),
        Node(layers.FloatMatMul(), ("shaped", "w"), "y", "of 16 bits"),
        Node(Relu(), "y", "z"),
    ]
    inputs: Any = {"x": ((1, 2), "float32"), "q": ((1, 2), "int8"), "q16": ((2,), "uint16")}
    model = Model(nodes, inputs=inputs, constants={"w": np.ones((2, 3), F), "scale": F(0.5)})
    assert reasons(model) == [
        ("real", f"its operands are float32: {OR_LOAD_IT}"),
        ("of 8 bits", f"its operands are float32: {OR_LOAD_IT}"),
        ("of 16 bits", "its operands are uint16 codes: the array takes them beside constant weights of 4 or 8 bits"),
    ]
    assert off_array_lines(unplaced(model)) == [
        f"no MAC runs on the array: 2 FloatMatMul ('real', 'of 8 bits'): its operands are float32: {OR_LOAD_IT}",
        "  1 FloatMatMul ('of 16 bits'): its operands are uint16 codes: the array takes them beside constant "
        "weights of 4 or 8 bits",
    ]


def test_nothing_multiplies() -> None:
    model = Model([Relu()], inputs={"x": ((1, 2), "int8")})
    assert unplaced(model) == ()
    assert off_array_lines(()) == ["no MAC runs on the array: no node multiplies matrices"]


def test_an_empty_product() -> None:
    q = QuantParams(0.5)
    model = Model([Dense(np.ones((2, 3), np.int8), x=q, w=q, y=q)], inputs={"x": ((None, 2), "int8")})
    report = systolic.verify(model, np.zeros((0, 2), np.int8))
    assert report.off_array is not None
    assert str(report).startswith("no MAC runs on the array: 1 QLinearMatMul ('t0'): its product is empty")
    # What has no elements proves nothing.
    assert not report.passed and "nothing was checked" in str(report)
    assert model.summary(batch=0).off_array is not None and model.summary().off_array is None
    assert systolic.verify(model, np.zeros((1, 2), np.int8)).off_array is None


def test_few_lines_for_many_reasons() -> None:
    many = [OffArray(f"n{i}", "LSTM", f"reason {i}") for i in range(9)]
    lines = off_array_lines(many)
    assert len(lines) == 4 and lines[-1] == "  and 6 more reasons (--json lists every node)"
    same = [OffArray(f"n{i}", f"Kind{i % 5}", "reason") for i in range(99)]
    (line,) = off_array_lines(same)
    assert "and others ('n0', 'n1', ...): reason" in line


def test_operators_and_subgraphs_left_to_others(tmp_path: Path) -> None:
    om = pytest.importorskip("support.onnx_models")
    h = om.onnx.helper

    def branch(name: str, operator: Any) -> Any:
        out = h.make_tensor_value_info(operator.output[0], om.onnx.TensorProto.FLOAT, None)
        return h.make_graph([operator], name, [], [out])

    then, other = branch("t", om.node("MatMul", ["x", "x"], "a")), branch("e", om.node("Neg", ["x"], "b"))
    nodes = [
        om.node("Einsum", ["x", "x"], "e", name="einsum", equation="ij,jk->ik"),
        om.node("CumSum", ["x", "axis"], "s", name="sums"),
        om.node("If", ["c"], "y", name="branches", then_branch=then, else_branch=other),
    ]
    graph = om.model(
        nodes, {"x": ("float32", (2, 2)), "c": ("bool", ())}, ["e", "s", "y"], {"axis": np.array(0)}
    )
    model = systolic.load_onnx(om.save(om.typed(graph), tmp_path))
    found = unplaced(model)
    assert [node.node for node in found] == ["einsum", "branches"]
    assert all(node.reason.startswith("computed by ") for node in found)


def test_it_is_in_reports() -> None:
    model = Model([FloatMatMul(np.ones((2, 3), F))], inputs={"x": ((1, 2), "float32")})
    summary = model.summary()
    assert [node["node"] for node in summary.to_dict()["off_array"]] == ["t0"]
    assert "no MAC runs on the array: 1 FloatMatMul" in summary.html()
    assert str(summary).startswith("no MAC runs on the array: 1 FloatMatMul ('t0')")
    report = systolic.verify(model)
    assert [node["node"] for node in report.to_dict()["off_array"]] == ["t0"]
    assert "no MAC runs on the array" in report._repr_html_()


def test_products_in_a_list_of_subgraphs() -> None:
    onnx = pytest.importorskip("onnx")
    from systolic.model.placement import _multiplies

    body = onnx.helper.make_graph([onnx.helper.make_node("MatMul", ["x", "x"], ["y"])], "b", [], [])
    loop = onnx.helper.make_node("Loop", ["n"], ["y"], bodies=[body])
    layer = layers.OnnxNode(
        "Loop", np.frombuffer(loop.SerializeToString(), np.uint8), ("n",), ("int64",), ("float32",), (("", 21),)
    )
    assert _multiplies(layer)
