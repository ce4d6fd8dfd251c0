"""QDQ graphs made integer: which groups become which operator, of what, and what stays as written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import systolic
from support import onnx_models as om
from support.onnx_models import F
from support.qdq_models import CASES, IMAGE, KERNEL, S8, U8, W8, Net, Y
from systolic.frontend.operators import Graph, Operator
from systolic.frontend.qdq import to_integers
from systolic.frontend.read import read


def rewritten(folder: Path, fill: Callable[[Net], list[str]], opset: int = om.OPSET) -> Graph:
    net = Net(opset)
    outputs = fill(net)
    model = om.model(net.nodes, net.inputs, outputs, net.constants, opset=opset)
    graph = read(om.save(model, folder))
    to_integers(graph)
    known = {*graph.inputs, *graph.constants}
    for op in graph.operators:
        assert all(tensor in known for tensor in op.inputs if tensor), (
            f"{op.label} reads what is written later"
        )
        assert known.isdisjoint(op.outputs)
        known |= {*op.outputs}
    assert known.issuperset(graph.outputs) and graph.outputs == tuple(outputs)
    return graph


def only(graph: Graph, op_type: str) -> Operator:
    (found,) = [op for op in graph.operators if op.op_type == op_type]
    return found


def values(op: Operator, *places: int) -> list[Any]:
    return [op.constants[op.inputs[place]].tolist() for place in places]


@pytest.mark.parametrize("case", CASES)
def test_groups(tmp_path: Path, case: str) -> None:
    fill, expected = CASES[case]
    graph = rewritten(tmp_path, fill)
    assert sorted(op.op_type for op in graph.operators) == sorted(expected.split())
    contrib = {"MatMulIntegerToFloat", "QGemm"}
    for op in graph.operators:
        qlinear = op.op_type.startswith("QLinear") and op.op_type not in ("QLinearConv", "QLinearMatMul")
        assert op.domain == ("com.microsoft" if qlinear or op.op_type in contrib else "")


def test_a_conv_takes_everything_along(tmp_path: Path) -> None:
    def fill(n: Net) -> list[str]:
        x, w = n.codes(IMAGE, U8), n.weight(KERNEL, W8, axis=0)
        return [n.q(n.op("Conv", x, w, n.const(F([1, -1, 3e6, 1e9])), strides=[2, 2], pads=[1, 1, 0, 0]), U8)]

    op = only(graph := rewritten(tmp_path, fill), "QLinearConv")
    assert op.attributes == {"strides": [2, 2], "pads": [1, 1, 0, 0]} and op.outputs == graph.outputs
    assert op.inputs[0] in graph.inputs and graph.constants[op.inputs[3]].shape == KERNEL
    assert values(op, 1, 2, 6, 7) == [F(0.05), 131, F(0.05), 131]
    scale = F(0.05) * graph.constants[op.inputs[4]]
    steps = np.rint(F([1, -1, 3e6, 1e9]) / scale)
    # What int32 cannot hold becomes its smallest number.
    assert values(op, 8) == [[int(step) if step < 2**31 else -(2**31) for step in steps]]


def test_a_gemm_keeps_alpha_and_turns_its_first_matrix(tmp_path: Path) -> None:
    def fill(n: Net) -> list[str]:
        return [
            n.op("Gemm", n.codes((6, 2)), n.weight((4, 6), axis=0), alpha=0.25, beta=3.0, transA=1, transB=1)
        ]

    graph = rewritten(tmp_path, fill)
    turn, op = graph.operators
    assert (turn.op_type, turn.attributes) == ("Transpose", {"perm": [1, 0]}) and turn.inputs[
        0
    ] in graph.inputs
    assert op.inputs[0] == turn.outputs[0] and op.attributes == {"alpha": 0.25, "transB": 1}
    assert len(op.inputs) == 6 and op.outputs == graph.outputs


def test_matmul_to_float_has_scales_before_zero_points(tmp_path: Path) -> None:
    op = only(rewritten(tmp_path, CASES["matmul to float"][0]), "MatMulIntegerToFloat")
    (scale, zero) = values(op, 2, 4)
    assert (scale, zero) == (F(0.05), 3)
    assert [op.constants[op.inputs[place]].shape for place in (1, 3, 5)] == [(6, 4), (4,), (4,)]


def test_concat_says_its_output_first(tmp_path: Path) -> None:
    def fill(n: Net) -> list[str]:
        return [
            n.q(
                n.op(
                    "Concat", n.codes((1, 2), (0.5, 1, "int8")), n.codes((1, 3), (0.25, 2, "int8")), axis=-1
                ),
                Y,
            )
        ]

    op = only(rewritten(tmp_path, fill), "QLinearConcat")
    assert values(op, 0, 1, 3, 4, 6, 7) == [F(0.1), 3, 0.5, 1, 0.25, 2] and op.attributes == {"axis": -1}


@pytest.mark.parametrize(("opset", "since"), [(10, 1), (11, 11), (12, 11), (13, 13), (21, 13)])
def test_softmax_says_its_version(tmp_path: Path, opset: int, since: int) -> None:
    op = only(rewritten(tmp_path, CASES["softmax"][0], opset), "QLinearSoftmax")
    assert op.attributes == {"opset": since}


def test_max_pool_of_codes_came_with_opset_12(tmp_path: Path) -> None:
    assert len(rewritten(tmp_path, CASES["max pool"][0], 12).operators) == 1
    assert len(rewritten(tmp_path, CASES["max pool"][0], 11).operators) == 3


@pytest.mark.parametrize("weight", ([-1, 0, 3], [1, 2, 3], [-1, -2, -3], [0, 0, 0]))
def test_float_weights_become_int8(tmp_path: Path, weight: list[float]) -> None:
    def fill(n: Net) -> list[str]:
        return [n.q(n.op("Gemm", n.codes((2, 3)), n.const(F(weight).reshape(3, 1))), Y)]

    op = only(rewritten(tmp_path, fill), "QGemm")
    low, high = min(0, *weight), max(0, *weight)
    scale = F(high - low) / F(255) if high > low else F(1)
    (codes, ours, zero) = values(op, 3, 4, 5)
    assert ours == scale and op.constants[op.inputs[3]].dtype == np.int8
    np.testing.assert_allclose((np.ravel(codes) - zero) * float(scale), weight, atol=scale / 2)
    assert {-128, 127} & {zero, *np.ravel(codes)}


def test_a_bias_with_a_zero_point_stays_as_written(tmp_path: Path) -> None:
    def fill(n: Net, zero: int) -> list[str]:
        tensor = n.op("Conv", n.codes(IMAGE), n.weight(KERNEL), n.bias(4, 0.05 * 0.02, zero))
        return [n.q(tensor, Y)]

    assert len(rewritten(tmp_path, lambda n: fill(n, 0)).operators) == 1
    assert len(rewritten(tmp_path, lambda n: fill(n, 5)).operators) == 5


def test_a_gemm_without_zero_points_keeps_its_bias(tmp_path: Path) -> None:
    """30000 * 0.0007 / 0.3 = 70; read with x.scale * w.scale it would be 200."""
    net = Net(17)
    x = net.op("DequantizeLinear", net.input("uint8", (1, 2)), net.const(F(0.1)))
    w = net.dq(net.const(np.int8([[1], [1]])), W8)
    bias = net.op("DequantizeLinear", net.const(np.int32([30000])), net.const(F(0.0007)))
    y = net.q(net.op("Gemm", x, w, bias), (0.3, 0, "uint8"))
    path = om.save(om.model(net.nodes, net.inputs, [y], net.constants, opset=17), tmp_path)
    run = systolic.run(systolic.load_onnx(path), {net.nodes[0].input[0]: np.uint8([[0, 0]])}, mode="wavefront")
    assert run.outputs[y].tolist() == [[70]]


@pytest.mark.parametrize("x_scale", (0, np.inf, np.nan, 3e38))
@pytest.mark.parametrize("w_scale", (0, np.inf, np.nan, 3e38))
@pytest.mark.parametrize("float_bias", (False, True))
def test_scales_that_are_none_are_refused(
    tmp_path: Path, x_scale: float, w_scale: float, float_bias: bool
) -> None:
    # Warnings would be errors here, of another class.
    net = Net()
    x, w = net.codes(IMAGE, (x_scale, 0, "int8")), net.weight(KERNEL, (w_scale, 0, "int8"))
    bias = net.const(np.ones(4, F)) if float_bias else net.bias(4, 0.05 * 0.02)
    outputs = [net.q(net.op("Conv", x, w, bias), Y)]
    path = om.save(om.model(net.nodes, net.inputs, outputs, net.constants), tmp_path)
    if x_scale == w_scale == 3e38:
        # Both are scales. Their product is infinite, and 0 times it is the smallest code, as in ONNX Runtime.
        run = systolic.run(systolic.load_onnx(path), np.zeros(IMAGE, np.int8), mode="wavefront")
        if float_bias:
            assert set(run.outputs[outputs[0]].ravel().tolist()) == {-128}
        return
    with pytest.raises(ValueError, match="scale"):
        systolic.load_onnx(path)


def test_a_clip_of_old_opsets_has_attributes(tmp_path: Path) -> None:
    def fill(n: Net, most: float) -> list[str]:
        tensor = n.op("Conv", n.codes(IMAGE), n.weight(KERNEL))
        return [n.q(n.op("Clip", tensor, min=-20.0, max=most), Y)]

    assert [op.op_type for op in rewritten(tmp_path, lambda n: fill(n, 12.4), 10).operators] == [
        "QLinearConv"
    ]
    assert len(rewritten(tmp_path, lambda n: fill(n, 12.0), 10).operators) == 5


@pytest.mark.parametrize("opset", (10, 17))
def test_a_relu_in_front_of_a_clip_is_part_of_it(tmp_path: Path, opset: int) -> None:
    """Clip(-1, 200) behind a Relu is Clip(0, 200), which uint8 codes imply without a zero point."""

    def fill(n: Net) -> list[str]:
        x = n.op("DequantizeLinear", n.input("uint8", (2, 3)), n.const(F(0.5)))
        tensor, bounds = n.op("Relu", n.op("LeakyRelu", x)), (F(-1), F(200))
        if opset == 10:
            tensor = n.op("Clip", tensor, min=float(bounds[0]), max=float(bounds[1]))
        else:
            tensor = n.op("Clip", tensor, *map(n.const, bounds))
        return [n.op("QuantizeLinear", tensor, n.const(F(0.5)))]

    assert [op.op_type for op in rewritten(tmp_path, fill, opset).operators] == ["QLinearLeakyRelu"]


def test_computed_parameters_stay_as_written(tmp_path: Path) -> None:
    def fill(n: Net) -> list[str]:
        scale = n.input("float32", ())
        x = n.op("DequantizeLinear", n.input("int8", IMAGE), scale, n.const(np.int8(0)))
        return [n.q(n.op("Conv", x, n.weight(KERNEL)), Y)]

    assert sorted(op.op_type for op in rewritten(tmp_path, fill).operators) == [
        "Conv", "DequantizeLinear", "DequantizeLinear", "QuantizeLinear",
    ]  # fmt: skip


def test_scales_per_row_and_per_channel_of_activations_stay_as_written(tmp_path: Path) -> None:
    def rows(n: Net) -> list[str]:
        return [n.q(n.op("MatMul", n.codes((2, 4)), n.weight((4, 4), axis=0)), Y)]

    def channels(n: Net) -> list[str]:
        scale, zero = n.const(F([0.1, 0.2, 0.3])), n.const(np.zeros(3, np.int8))
        return [
            n.q(
                n.op("Conv", n.op("DequantizeLinear", n.input("int8", IMAGE), scale, zero), n.weight(KERNEL)),
                Y,
            )
        ]

    def in_channels(n: Net) -> list[str]:
        return [n.q(n.op("Conv", n.codes(IMAGE), n.weight((3, 3, 3, 3), axis=1)), Y)]

    for fill in (rows, channels, in_channels):
        assert len(rewritten(tmp_path, fill).operators) == 4


def test_what_makes_new_numbers_is_no_move(tmp_path: Path) -> None:
    def fill(n: Net) -> list[str]:
        scales = n.const(np.zeros(0, F)), n.const(F([1, 1, 2, 2]))
        return [n.q(n.op("Resize", n.codes(IMAGE), *scales, mode="linear"))]

    assert len(rewritten(tmp_path, fill).operators) == 3


@pytest.mark.parametrize("weight", ([np.inf, 1, 2], [np.nan, 1, 2]))
def test_weights_that_are_not_finite_stay_as_written(tmp_path: Path, weight: list[float]) -> None:
    def fill(n: Net) -> list[str]:
        return [n.q(n.op("Gemm", n.codes((2, 3)), n.const(F(weight).reshape(3, 1))), Y)]

    assert len(rewritten(tmp_path, fill).operators) == 3


@pytest.mark.parametrize("dtype", ("int16", "uint16"))
def test_16_bits_are_moved_and_no_more(tmp_path: Path, dtype: str) -> None:
    params = (0.05, 3, dtype)

    def moved(n: Net) -> list[str]:
        return [n.q(n.reshape(n.codes((2, 3), params), -1), params)]

    def added(n: Net) -> list[str]:
        return [n.q(n.op("Add", n.codes((2, 3), params), n.codes((2, 3), params)), params)]

    assert [op.op_type for op in rewritten(tmp_path, moved).operators] == ["Reshape"]
    assert len(rewritten(tmp_path, added).operators) == 4


@pytest.mark.parametrize("zero", ([], [0]))
def test_int32_is_carried_past_nothing(tmp_path: Path, zero: list[int]) -> None:
    """No QuantizeLinear makes int32."""

    def fill(n: Net) -> list[str]:
        x = n.op("DequantizeLinear", n.input("int32", (2, 3)), n.const(F(0.1)), *map(n.const, np.int32(zero)))
        return [n.op("Neg", n.reshape(x, 6))]

    assert [op.op_type for op in rewritten(tmp_path, fill).operators] == ["DequantizeLinear", "Reshape", "Neg"]


def test_a_subgraph_keeps_what_it_reads(tmp_path: Path) -> None:
    net = Net()
    identity = net.op("Identity", net.codes((2, 3)))
    branches = {
        f"{name}_branch": onnx.helper.make_graph(
            [om.node(op, [identity], f"{name}.y")], name, [], [om.value(f"{name}.y", "float32", (2, 3))]
        )
        for name, op in (("then", "Neg"), ("else", "Exp"))
    }
    y = net.op("If", net.input("bool", ()), **branches)
    graph = read(om.save(om.model(net.nodes, net.inputs, [y], net.constants), tmp_path))
    to_integers(graph)
    assert [op.op_type for op in graph.operators] == ["DequantizeLinear", "Identity", "If"]


def test_graphs_without_codes_are_left_alone(tmp_path: Path) -> None:
    net = Net()
    y = net.op("Identity", net.op("Relu", net.input("float32", (2, 3))))
    graph = read(om.save(om.model(net.nodes, net.inputs, [y], net.constants), tmp_path))
    before = list(graph.operators)
    to_integers(graph)
    assert graph.operators == before


def test_either_meaning(tmp_path: Path) -> None:
    net = Net()
    # 64 * 1 * 0.5 = 32 and 1 * 0.5: a tie, which the integer operator rounds after adding its zero point.
    x = net.codes((3, 4), (0.25, 0, "int8"))
    y = net.q(net.op("Add", x, net.codes((3, 4), (0.75, 1, "int8"))), S8)
    path = om.save(net.untyped((y, "int8", (3, 4))), tmp_path)
    assert [type(node.layer).__name__ for node in systolic.load_onnx(path).nodes] == ["QLinearAdd"]
    written = systolic.load_onnx(path, qdq="float")
    assert [type(node.layer).__name__ for node in written.nodes] == [
        "DequantizeLinear",
        "DequantizeLinear",
        "Binary",
        "QuantizeLinear",
    ]
    a, b = np.arange(-60, 60, 10, dtype=np.int8).reshape(3, 4), np.full((3, 4), 7, np.int8)
    real = F(a) * F(0.25) + (F(b) - 1) * F(0.75)
    expected = np.clip(np.rint(real / F(0.05)) + 3, -128, 127)
    outputs = systolic.run(written, dict(zip(written.inputs, (a, b), strict=True))).outputs
    np.testing.assert_array_equal(outputs[y], expected)
    with pytest.raises(ValueError, match="^qdq must be one of 'integer', 'float', not 'both'$"):
        systolic.load_onnx(path, qdq="both")
