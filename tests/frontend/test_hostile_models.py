"""Small files and layers on which native code of the onnx package crashes or never returns: errors here."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import systolic
from support import onnx_models as om
from systolic import load_onnx
from systolic.cli import main
from systolic.layers import OnnxNode
from systolic.layers.host.evaluator import infer

F = np.float32


def i64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def ends(folder: Path, model: Any, words: str) -> None:
    """Assert that loading ends soon, in an error that says so."""
    path = om.save(model, folder)
    # The helper process starts with the first call of the session.
    started = time.monotonic()
    with pytest.raises(ValueError, match=words):
        load_onnx(path)
    assert time.monotonic() - started < 20


X = np.ones((2, 3), F)


def hostile(op: str, arguments: list[Any], moving: tuple[int, ...] = (0,), **attributes: Any) -> Any:
    return om.single(op, arguments, moving, **attributes)[0]


# Shape inference of these crashes, or never returns, or did so in some version of onnx.
NATIVE = {
    "GatherND batch_dims": lambda: hostile("GatherND", [X, i64(0).reshape(1, 1)], batch_dims=-7),
    "Einsum equation": lambda: hostile("Einsum", [X], equation="i-"),
    "LayerNormalization axis": lambda: om.model(
        [om.node("LayerNormalization", ["x", "s"], ["y", "mean"], name="the_node", axis=-9)],
        {"x": ("float32", (2, 3))}, ["y", "mean"], {"s": np.ones(3, F)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NATIVE)
def test_attributes_are_checked_before_native_code_sees_them(tmp_path: Path, case: str) -> None:
    op, attribute = case.split()
    ends(tmp_path, NATIVE[case](), rf"node 'the_node' \({op}\): .*\b{attribute} ")


@pytest.mark.slow
@pytest.mark.parametrize("case", NATIVE)
def test_native_code_cannot_take_this_process_with_it(case: str) -> None:
    graph = NATIVE[case]().graph
    (proto,) = graph.node
    shapes: dict[str, Any] = {"x": (2, 3), "i0": (2, 3), "i1": (1, 1), "s": (3,)}
    types = {name: "int64" if name == "i1" else "float32" for name in proto.input}
    with pytest.raises(ValueError, match=f"^{proto.op_type} does not take what reaches it: "):
        infer(proto, types, {name: shapes[name] for name in proto.input}, {}, {"": 21})


def of_constants(op: str, constants: dict[str, Any], domain: str = "", **attributes: Any) -> Any:
    """A model of a node that reads constants alone, beside one that reads the input."""
    name = f"{domain}.{op}" if domain else op
    nodes = [om.node(name, [*constants], "y", name="the_node", **attributes), om.node("Relu", ["x"], "z")]
    model = om.model(nodes, {"x": ("float32", (1,))}, ["y", "z"], constants)
    if domain:
        model.opset_import[1].version = 5 if op == "TreeEnsemble" else 3
    return model


def trees(true: list[int], modes: str = "BB") -> Any:
    return of_constants(
        "TreeEnsembleRegressor", {"c": np.ones((1, 1), F)}, "ai.onnx.ml", n_targets=1,
        nodes_falsenodeids=true, nodes_truenodeids=true, nodes_featureids=[0, 0],
        nodes_modes=["BRANCH_LEQ" if mode == "B" else "LEAF" for mode in modes], nodes_nodeids=[0, 1],
        nodes_treeids=[0, 0], nodes_values=[2.0, 2.0], target_ids=[0], target_nodeids=[1],
        target_treeids=[0], target_weights=[1.0],
    )  # fmt: skip


def ensemble(true: list[int], leaf: int) -> Any:
    one = onnx.numpy_helper.from_array(np.ones(1, F))
    modes = onnx.numpy_helper.from_array(np.zeros(1, np.uint8))
    return of_constants(
        "TreeEnsemble", {"c": np.ones((1, 1), F)}, "ai.onnx.ml", n_targets=1, nodes_featureids=[0],
        nodes_splits=one, nodes_modes=modes, nodes_truenodeids=true, nodes_trueleafs=[leaf],
        nodes_falsenodeids=[0], nodes_falseleafs=[1], tree_roots=[0], leaf_targetids=[0], leaf_weights=one,
    )  # fmt: skip


RANGES: dict[str, tuple[Any, str]] = {
    "max_skip_count": (
        of_constants(
            "TfIdfVectorizer", {"c": i64(1, 2, 3)}, mode="TF", min_gram_length=1, max_gram_length=2,
            max_skip_count=2**62, ngram_counts=[0, 1], ngram_indexes=[0, 1], pool_int64s=[1, 2, 3],
        ),
        "max_skip_count must be in 0..1048576, not",
    ),
    "sampling_ratio": (
        of_constants(
            "RoiAlign", {"c": np.ones((1, 1, 2, 2), F), "rois": np.ones((1, 4), F), "at": i64(0)},
            sampling_ratio=2**30,
        ),
        "sampling_ratio must be in 0..1024, not",
    ),
    "a node below itself": (trees([1, 0]), "node 1 of tree 0 leads back to node 0 of tree 0: a cycle"),
    "a node above itself": (trees([0, 0]), "node 0 of tree 0 leads back to node 0 of tree 0: a cycle"),
    "no such node": (trees([1, 7]), "node 1 of tree 0 leads to node 7 of tree 0, which is not there"),
    "lists of two lengths": (trees([1]), "must have one length, not 2, 2, 2, 1, 1"),
    "an ensemble's node above itself": (ensemble([0], 0), "node 0 leads back to node 0: a cycle"),
    "an ensemble without the node": (ensemble([3], 0), "node 0 leads to node 3, which is not there"),
    "letters": (hostile("Einsum", [X], equation="i1->i"), "equation must be letters"),
    "dots": (hostile("Einsum", [X], equation="....i->i"), "equation must be letters"),
    "terms": (hostile("Einsum", [X], equation="ij,jk->ik"), "is of 2 inputs, but there are 1"),
    "letters for axes": (hostile("Einsum", [X], equation="i->i"), "does not fit input 0, which has rank 2"),
    "letters beside dots": (hostile("Einsum", [X], equation="ijk...->i"), "does not fit input 0"),
    "letters from nowhere": (hostile("Einsum", [X], equation="ij->k"), "letters of its inputs in its output"),
    "a letter twice": (hostile("Einsum", [X], equation="ij->ii"), "in its output, each once"),
    "scale": (hostile("RandomNormalLike", [X], scale=-1.0), "scale must be above zero, not -1.0"),
    "no scale": (hostile("RandomNormalLike", [X], scale=0.0), "scale must be above zero, not 0.0"),
    "high": (
        hostile("RandomUniformLike", [X], low=2.0), "high must not be below low, which are 1.0 and 2.0"
    ),
    "axis": (hostile("CumSum", [X, np.array(1)]), ""),
    "axis below": (hostile("Hardmax", [X], axis=-3), "axis must be in -2..1 for an input of rank 2, not -3"),
    "axis above": (hostile("LogSoftmax", [X], axis=2), "axis must be in -2..1 for an input of rank 2, not 2"),
    "last axis": (hostile("LogSoftmax", [X], axis=-2), ""),
    "axis of a scalar": (hostile("LpNormalization", [np.float32(1)], axis=5), "axis must be in -1..0"),
    "axes": (om.single("ReduceL2", [X], axes=[0, 4], opset=13)[0], "axes must be in -2..1"),
    "batch_axis": (
        hostile("ReverseSequence", [X, i64(1, 1)], batch_axis=-9, time_axis=0), "batch_axis must be in 0..1"
    ),
    "time_axis": (
        hostile("ReverseSequence", [X, i64(1, 1)], batch_axis=0, time_axis=2**62), "time_axis must be in 0..1"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", RANGES)
def test_attributes_against_what_is_read(tmp_path: Path, case: str) -> None:
    model, words = RANGES[case]
    (last,) = (n for n in model.graph.node if n.name == "the_node")
    if words:
        ends(tmp_path, model, rf"node 'the_node' \({last.op_type}\): .*{words}")
    else:
        assert load_onnx(om.save(model, tmp_path)).nodes


def test_attributes_within_a_subgraph(tmp_path: Path) -> None:
    def branch(name: str, **attributes: Any) -> Any:
        nodes = [om.node("RandomNormalLike", ["x"], name, name="drawn", **attributes)]
        return helper.make_graph(nodes, name, [], [om.value(name, "float32", (2, 3))])

    choice = om.node(
        "If", ["b"], "y", name="the_node", then_branch=branch("t"), else_branch=branch("e", scale=0.0)
    )
    model = om.model([choice], {"x": ("float32", (2, 3)), "b": ("bool", ())}, ["y"])
    words = r"its subgraph's node 'drawn' \(RandomNormalLike\): scale must be above zero, not 0.0"
    ends(tmp_path, model, rf"node 'the_node' \(If\): {words}")


def test_an_einsum_of_every_kind_is_taken(tmp_path: Path) -> None:
    square = np.arange(9, dtype=F).reshape(3, 3)
    for equation, arguments in (
        ("ii->i", [square]),
        ("ij,jk->ik", [square, square]),
        (" ij , jk ->ik", [square, square]),
        ("...i,i...", [square, square]),
        ("ij", [square]),
        ("ij->", [square]),
        ("...ij,...jk->...ik", [square, square]),
    ):
        graph, feeds = om.single("Einsum", arguments, equation=equation)
        result = systolic.run(load_onnx(om.save(graph, tmp_path)), feeds).outputs["y"]
        np.testing.assert_array_equal(result, np.einsum(equation.replace(" ", ""), *arguments))


@pytest.mark.parametrize("scanned", [2**40, 0, -1, 2])
def test_scans_of_other_inputs_than_there_are(tmp_path: Path, scanned: int) -> None:
    body = helper.make_graph(
        [om.node("Identity", ["a"], "b")],
        "body",
        [om.value("a", "float32", ())],
        [om.value("b", "float32", ())],
    )
    scan = om.node("Scan", ["x"], "y", name="the_node", body=body, num_scan_inputs=scanned)
    model = om.model([scan], {"x": ("float32", (3,))}, ["y"])
    ends(tmp_path, model, r"node 'the_node' \(Scan\): num_scan_inputs must be in 1..1 for 1 inputs, not")
    model.graph.node[0].input.append("x")
    for attribute in model.graph.node[0].attribute:
        if attribute.name == "num_scan_inputs":
            attribute.i = 1
    ends(tmp_path, model, "its body must have an input for each of its 2, not 1")


HEAVY = {
    "LpPool": lambda: of_constants(
        "LpPool", {"c": np.ones((1, 1, 1, 1), F)}, kernel_shape=[20_000, 20_000], pads=[19_999] * 4,
        strides=[39_999] * 2,
    ),
    "RoiAlign": lambda: of_constants(
        "RoiAlign", {"c": np.ones((1, 1, 2, 2), F), "rois": np.ones((1, 4), F), "at": i64(0)},
        sampling_ratio=1024, output_height=100, output_width=100,
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("op", HEAVY)
def test_work_on_constants_is_bounded(tmp_path: Path, op: str) -> None:
    """Whether it can be done in time depends on who does it."""
    path = om.save(HEAVY[op](), tmp_path)
    started = time.monotonic()
    try:
        load_onnx(path)
    except ValueError as error:
        words = rf"node 'the_node' \({op}\): {op}, on constants, .*(did not finish within|needs more memory)"
        assert re.search(words, str(error)), error
    assert time.monotonic() - started < 20


@pytest.mark.slow
def test_a_layer_on_constants_without_end() -> None:
    body = helper.make_graph(
        [om.node("Identity", ["go"], "on")], "body",
        [om.value("turn", "int64", ()), om.value("go", "bool", ())], [om.value("on", "bool", ())],
    )  # fmt: skip
    body.node.append(om.node("Identity", ["turn"], "kept"))
    body.output.append(om.value("kept", "int64", ()))
    loop = node(om.node("Loop", ["count", ""], "y", body=body))
    layer = OnnxNode("Loop", loop, ("count",), ("int64",), ("int64",), (("", 21),))
    assert layer.evaluate_constants(np.array(3))[0].tolist() == [0, 1, 2]
    with pytest.raises(
        ValueError, match="^Loop, on constants, .*(did not finish within 1.5 s|needs more memory)"
    ):
        layer.evaluate_constants(np.array(2**62))


def node(proto: Any) -> np.ndarray:
    return np.frombuffer(proto.SerializeToString(), np.uint8)


@pytest.mark.slow
def test_a_layer_whose_tensors_do_not_fit_its_node() -> None:
    eye = node(helper.make_node("EyeLike", ["x"], ["y"], dtype=1))
    layer = OnnxNode("EyeLike", eye, ("z",), ("float32",), ("float32",), (("", 21),))
    for use in (lambda: layer.output_shape((1, 2)), lambda: layer.apply(X)):
        with pytest.raises(
            ValueError, match=r"reads must name all inputs of the node \(EyeLike\); 'x' missing"
        ):
            use()
    top = node(helper.make_node("TopK", ["x", "k"], ["values", "at"]))
    layer = OnnxNode("TopK", top, ("x", "k"), ("float32", "int64"), ("float32",), (("", 21),))
    with pytest.raises(
        ValueError, match="a type for each output of the node .TopK. in use, 'values', 'at', not"
    ):
        layer.output_shape((2, 3), (1,))


def test_damage_that_one_process_does_not_survive_is_no_matter_to_the_next_file(tmp_path: Path) -> None:
    ends(tmp_path, NATIVE["GatherND batch_dims"](), "GatherND")
    model = load_onnx(om.save(hostile("CumSum", [X, np.array(1)]), tmp_path))
    assert systolic.run(model, X).outputs["y"].tolist() == np.cumsum(X, 1).tolist()


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose", "Gemm"])
def test_a_quantized_weight_without_axes(tmp_path: Path, op: str) -> None:
    """With a bias that is to be quantized by the weight's scales."""
    nodes = [
        om.node("DequantizeLinear", ["x", "s", "z"], "xf"),
        om.node("DequantizeLinear", ["w", "ws", "wz"], "wf", axis=0),
        om.node(op, ["xf", "wf", "b"], "t", name="the_node"),
        om.node("QuantizeLinear", ["t", "s", "z"], "y"),
    ]
    for scales in (np.float32([0.5, 0.25]), np.float32(0.5)):
        constants = {
            "s": np.float32(0.5), "z": np.int8(0), "w": np.int8(3), "ws": scales,
            "wz": np.zeros(scales.shape, np.int8), "b": np.float32([1, 2]),
        }  # fmt: skip
        ends(tmp_path, om.model(nodes, {"x": ("int8", (1, 1, 4, 4))}, ["y"], constants), r"node '.*' \(")


# What crashes when it runs: attributes that fit no shape that is known before, and values.


def of_open_rank(op: str, reads: list[str], feeds: dict[str, np.ndarray], **attributes: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """A node that reads x behind a Reshape to computed sizes."""
    nodes = [om.node("Reshape", ["x", "sizes"], "open"), om.node(op, ["open", *reads], "y", name="the_node", **attributes)]
    feeds = {**feeds, "sizes": np.array(feeds["x"].shape, np.int64)}
    return om.model(nodes, {n: (a.dtype.name, a.shape) for n, a in feeds.items()}, ["y"], opset=17), feeds


def in_a_branch(op: str, reads: list[str], feeds: dict[str, np.ndarray], **attributes: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """A node in both branches of an If."""
    kind = feeds["x"].dtype.name

    def branch(name: str) -> Any:
        inner = om.node(op, ["x", *reads], f"{name} y", **attributes)
        return helper.make_graph([inner], name, [], [om.value(f"{name} y", kind, None)])

    node = om.node("If", ["c"], "y", name="the_node", then_branch=branch("then"), else_branch=branch("else"))
    feeds = {**feeds, "c": np.array(True)}
    model = om.model([node], {n: (a.dtype.name, a.shape) for n, a in feeds.items()}, ["y"], opset=17)
    model.graph.output[0].CopyFrom(om.value("y", kind, None))
    return model, feeds


CRASHES: dict[str, tuple[list[str], dict[str, np.ndarray], dict[str, Any]]] = {
    "GatherND": (["i"], {"x": X, "i": i64(0).reshape(1, 1)}, {"batch_dims": -7}),
    "ReverseSequence": (["n"], {"x": np.array(1, F), "n": i64(1)}, {}),
    "DFT": ([], {"x": X.reshape(2, 3, 1)}, {"axis": 9}),
}


@pytest.mark.slow
@pytest.mark.parametrize("wrapped", (of_open_rank, in_a_branch))
@pytest.mark.parametrize("op", CRASHES)
@pytest.mark.exhaustive
def test_a_kernel_that_crashes_is_an_error(tmp_path: Path, op: str, wrapped: Any) -> None:
    reads, feeds, attributes = CRASHES[op]
    model, feeds = wrapped(op, reads, feeds, **attributes)
    model.graph.output[0].CopyFrom(om.value("y", "float32", None))
    with pytest.raises(ValueError, match="node 'the_node'"):
        systolic.run(load_onnx(om.save(model, tmp_path)), feeds)


@pytest.mark.slow
def test_a_division_that_crashes_is_an_error_on_any_run(tmp_path: Path) -> None:
    """It depends on values, not on shapes: the first run says nothing."""
    feeds = {"x": np.int32([4, 6]), "d": np.int32([2, 3])}
    graph, feeds = in_a_branch("Div", ["d"], feeds)
    model = load_onnx(om.save(graph, tmp_path))
    assert systolic.run(model, feeds).outputs["y"].tolist() == [2, 2]
    with pytest.raises(ValueError, match=r"node 'the_node' \(If\): If crashed"):
        systolic.run(model, feeds | {"x": np.int32([-(2**31), 1]), "d": np.int32([-1, 1])})


@pytest.mark.parametrize("op", ("Sum", "Mean", "Min", "Max", "Concat"))
def test_inputs_that_are_left_out_are_named(tmp_path: Path, op: str) -> None:
    attributes = {"axis": 0} if op == "Concat" else {}
    node = om.node(op, ["x", ""], "y", name="the_node", **attributes)
    model = om.model([node], {"x": ("float32", (2, 3))}, ["y"])
    with pytest.raises(ValueError, match=rf"node 'the_node' \({op}\): input 1 \(\w+\) is missing"):
        load_onnx(om.save(model, tmp_path))


@pytest.mark.slow
def test_a_check_that_crashes_leaves_the_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """ONNX Runtime ends the process on a QLinearSigmoid without a zero point of y."""
    node = om.node("com.microsoft.QLinearSigmoid", ["x", "s", "z", "s"], "y")
    constants = {"s": F(0.1), "z": np.uint8(3)}
    model = om.model([node], {"x": ("uint8", (2, 3))}, ["y"], constants)
    model.graph.output[0].CopyFrom(om.value("y", "uint8", (2, 3)))
    path = om.save(model, tmp_path)
    assert main(["run", str(path), "--mode", "wavefront", "--quiet"]) == 0
    text = capsys.readouterr().out
    assert "QLinearSigmoid" in text and "outputs were not compared: ONNX Runtime" in text
    assert "numpy        every layer's output equals numpy's" in text
