"""Why no MAC runs on the array, node by node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import systolic
from systolic import Model, Node, QuantParams, layers
from systolic.layers import Dense, FloatMatMul, Relu
from systolic.model.placement import (
    OffArray,
    array_share,
    off_array,
    off_array_lines,
    placements,
    share_lines,
)

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


def test_macs_of_every_kind_of_host_product() -> None:
    x = np.zeros
    nodes = [
        Node(layers.FloatMatMul(transpose_a=True), ("a", "b"), "matmul"),
        Node(layers.FloatMatMul(x((5, 7), F)), "a", "held"),
        Node(layers.FloatConv(groups=2), ("image", "filters"), "conv"),
        Node(layers.FloatConvTranspose(), ("image", "swapped"), "transposed"),
        Node(layers.FloatMatMul(), ("unknown", "b"), "open"),
        Node(Relu(), "a", "relu"),
    ]
    inputs: Any = {
        "a": ((4, 5), "float32"), "b": ((4, 6), "float32"), "image": ((2, 4, 9, 9), "float32"),
        "unknown": ((None, 4), "float32"),
    }  # fmt: skip
    weights = {"filters": x((6, 2, 3, 3), F), "swapped": x((4, 3, 2, 2), F)}
    model = Model(nodes, inputs=inputs, constants=weights)
    shapes = {name: spec.shape for name, spec in model.inputs.items()} | {"unknown": None}
    found = placements(model.nodes, model.infer_shapes(shapes))
    assert [None if place is None else place.macs for place in found] == [
        5 * 4 * 6, 4 * 5 * 7, 2 * 6 * 7 * 7 * 2 * 3 * 3, 2 * 4 * 9 * 9 * 3 * 2 * 2, None, None,
    ]  # fmt: skip
    assert found[4] is not None and found[5] is None


def test_the_share_and_its_warning() -> None:
    half, unknown = OffArray("n", "Conv", "float", 100), OffArray("l", "LSTM", "runtime")
    assert array_share(100, [half]) == 0.5 and array_share(0, []) is None and array_share(1, []) == 1.0
    assert array_share(100, [half, unknown]) is None
    assert share_lines(100, []) == []
    assert share_lines(100, [half]) == ["50.0% of the MACs run on the array; off it: 1 Conv ('n'): float"]
    assert share_lines(99, [half])[0].startswith("warning: less than half: 49.7% of the MACs run")
    assert share_lines(300, [half, unknown])[0].startswith("at most 75.0% of the MACs run on the array; off it")
    model = Model([FloatMatMul(np.ones((2, 3), F))], inputs={"x": ((None, 2), "float32")})
    (row,) = model.summary(batch=5).rows
    assert row["host_macs"] == 30 and row["off_array"].startswith("its operands are float32")
    assert model.summary(batch=5).totals["array_share"] == 0


def test_products_of_a_program_that_the_host_computes() -> None:
    q = QuantParams(0.5)
    nodes = [
        Node(Dense(np.ones((4, 3), np.int8), x=q, w=q, y=q), "x", "y", "dense"),
        Node(layers.MatMulInteger(), ("y", "w"), "z", "both"),
    ]
    inputs: Any = {"x": ((2, 4), "int8"), "w": ((3, 5), "int8")}
    model = Model(nodes, inputs=inputs)
    given = {"x": np.ones((2, 4), np.int8), "w": np.ones((3, 5), np.int8)}
    run = systolic.run(model, given, mode="wavefront")
    assert run.timeline is not None and run.report().totals["host_macs"] == 30
    assert run.report().rows[1]["off_array"].startswith("on a machine with memories the host computes it")
    ideal = systolic.run(model, given, mode="wavefront", machine=systolic.ArrayConfig(8, 8))
    assert ideal.report().totals["array_share"] == 1 and ideal.reasons == []
