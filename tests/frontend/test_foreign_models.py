"""Models that ONNX Runtime loads though the standard would have them otherwise, or large: the same results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

import systolic
from support import onnx_models as om
from systolic import load_onnx
from systolic.frontend import from_onnx
from systolic.frontend.check import sort_nodes

F = np.float32
X = F([[1, -2, 3], [-4, 5, -6]])


def same(folder: Path, graph: Any, feeds: dict[str, np.ndarray], tolerance: float = 0.0) -> systolic.Model:
    """Assert that outputs are ONNX Runtime's; return the model."""
    path = om.save(graph, folder)
    model = load_onnx(path)
    run = systolic.run(model, feeds, mode="wavefront")
    for ours, theirs in zip(run.outputs.values(), om.onnxruntime_outputs(path, feeds), strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
    return model


def floating(nodes: list[Any], inputs: Any, outputs: list[str], constants: Any = None, **options: Any) -> Any:
    graph = om.model(nodes, inputs, outputs, constants, **options)
    del graph.graph.output[:]
    graph.graph.output.extend(helper.make_tensor_value_info(name, 1, None) for name in outputs)
    return graph


# Nodes out of order


def test_nodes_out_of_order(tmp_path: Path) -> None:
    nodes = [om.node("Relu", ["c"], "y"), om.node("Neg", ["x"], "c")]
    model = same(tmp_path, floating(nodes, {"x": ("float32", ("n", 3))}, ["y"]), {"x": X})
    assert [node.output for node in model.nodes] == ["c", "y"]


def test_nodes_out_of_order_in_and_behind_subgraphs(tmp_path: Path) -> None:
    def branch(name: str, op: str) -> Any:
        nodes = [om.node(op, [f"{name}1"], f"{name}2"), om.node("Neg", ["later"], f"{name}1")]
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(f"{name}2", 1, None)])

    choice = om.node("If", ["b"], "y", then_branch=branch("t", "Relu"), else_branch=branch("e", "Abs"))
    inputs = {"x": ("float32", (2, 3)), "b": ("bool", ())}
    # ONNX Runtime does not take a subgraph that is out of order.
    path = om.save(floating([choice, om.node("Mul", ["x", "x"], "later")], inputs, ["y"]), tmp_path)
    model = load_onnx(path)
    for b, want in ((True, np.maximum(-(X * X), 0)), (False, X * X)):
        result = systolic.run(model, {"x": X, "b": np.array(b)}).outputs["y"]
        np.testing.assert_array_equal(result, want)


@given(st.data())
def test_sorting(data: st.DataObject) -> None:
    """Nodes of any graph without circles, in any order, come into one; those in order stay."""
    count = data.draw(st.integers(0, 8))
    nodes = []
    for place in range(count):
        reads = data.draw(st.lists(st.integers(-1, place - 1), max_size=3)) if place else [-1]
        nodes.append(
            om.node("Sum", [f"t{r}" if r >= 0 else "x" for r in reads], f"t{place}", name=str(place))
        )
    order = data.draw(st.permutations(range(count)))
    graph = helper.make_graph([nodes[place] for place in order], "g", [], [])
    sort_nodes(graph)
    written = {"x"}
    for node in graph.node:
        assert written.issuperset(node.input)
        written |= set(node.output)
    assert sorted(node.name for node in graph.node) == sorted(map(str, range(count)))
    if all(written_before(nodes, order)):
        assert [int(node.name) for node in graph.node] == order
    again = graph.SerializeToString()
    sort_nodes(graph)
    assert graph.SerializeToString() == again


def written_before(nodes: list[Any], order: list[int]) -> list[bool]:
    known = {"x"}
    result = []
    for place in order:
        result.append(known.issuperset(nodes[place].input))
        known |= set(nodes[place].output)
    return result


# Sizes and versions


@pytest.mark.parametrize("size", (-1, -2))
def test_a_size_below_zero_is_any(tmp_path: Path, size: int) -> None:
    graph = floating([om.node("Relu", ["x"], "y")], {"x": ("float32", (size, 3))}, ["y"])
    model = same(tmp_path, graph, {"x": X})
    assert model.inputs["x"].shape == (None, 3)


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("version", [3, 4, 8, om.IR_VERSION])
def test_initializers_among_the_inputs_or_not(tmp_path: Path, version: int, listed: bool) -> None:
    w = F([1, 2, 3])
    graph = floating(
        [om.node("Add", ["x", "w"], "y")], {"x": ("float32", ("n", 3))}, ["y"], {"w": w}, opset=17
    )
    graph.ir_version = version
    if listed:
        graph.graph.input.append(om.value("w", "float32", (3,)))
    model = same(tmp_path, graph, {"x": X})
    assert list(model.inputs) == ["x"] and list(model.constants) == ["w"]


# Constants beyond what loading may make of them


def weights_as_int8(columns: int) -> Any:
    rng = np.random.default_rng(0)
    constants = {"w": rng.integers(-9, 9, (64, columns)).astype(np.int8), "s": F(0.125)}
    nodes = [
        om.node("Cast", ["w"], "wf", to=1), om.node("Mul", ["wf", "s"], "wd"), om.node("MatMul", ["x", "wd"], "y"),
    ]  # fmt: skip
    return floating(nodes, {"x": ("float32", ("n", 64))}, ["y"], constants)


def test_large_constants_are_made_when_they_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = {"x": np.random.default_rng(1).integers(-9, 9, (2, 64)).astype(F)}
    graph = weights_as_int8(100)
    folded = same(tmp_path, graph, x)
    assert [node.layer.kind for node in folded.nodes] == ["FloatMatMul"]
    monkeypatch.setattr(from_onnx, "_ROOM", 0)
    kept = same(tmp_path, graph, x)
    # Four bytes for each of the weights' may be made: once.
    assert [node.layer.kind for node in kept.nodes] == ["Mul", "FloatMatMul"]
    monkeypatch.setattr(from_onnx, "_GROWTH", 1)
    kept = same(tmp_path, graph, x)
    assert [node.layer.kind for node in kept.nodes] == ["Cast", "Mul", "FloatMatMul"]
    assert {name: array.dtype.name for name, array in kept.constants.items()} == {"w": "int8", "s": "float32"}


# Data in other files


def outside(folder: Path, graph: Any) -> Path:
    path = folder / "model.onnx"
    onnx.save(graph, path, save_as_external_data=True, location="model.data", size_threshold=0)
    return path


@pytest.mark.parametrize("dtype", systolic.model.DTYPES)
def test_external_data_of_every_type(tmp_path: Path, dtype: str) -> None:
    w = np.arange(6).reshape(2, 3).astype(dtype)
    nodes = [om.node("Identity", ["w"], "y"), om.node("Relu", ["x"], "z")]
    graph = om.typed(om.model(nodes, {"x": ("float32", (1,))}, ["y", "z"], {"w": w, "none": w[:0]}))
    model = load_onnx(outside(tmp_path, graph))
    result = systolic.run(model, F([1])).outputs["y"]
    assert result.dtype == w.dtype
    np.testing.assert_array_equal(result, w)


def test_the_standards_checker_does_not_see_external_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes at most 2 GiB."""
    w = np.random.default_rng(0).normal(size=(64, 64)).astype(F)
    nodes = [om.node("MatMul", ["x", "w"], "t"), om.node("Constant", [], "c", value=onnx.numpy_helper.from_array(w)),
             om.node("Add", ["t", "c"], "y")]  # fmt: skip
    path = outside(tmp_path, floating(nodes, {"x": ("float32", (64, 64))}, ["y"], {"w": w}))
    seen = []
    checked = onnx.checker.check_model
    monkeypatch.setattr(
        onnx.checker, "check_model", lambda model: (seen.append(model.ByteSize()), checked(model))
    )
    model = load_onnx(path)
    assert seen and max(seen) < w.nbytes * 1.1, "the attribute's alone, which is put into the node"
    np.testing.assert_array_equal(model.constants["w"], w)
    np.testing.assert_array_equal(model.constants["c"], w)


@pytest.mark.parametrize("embedded", [0, 2**30])
def test_node_by_node_with_external_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embedded: int
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    version = tuple(map(int, runtime.__version__.split(".")[:2]))
    if not embedded and version < (1, 21):
        pytest.skip("ONNX Runtime does not look elsewhere for data")
    monkeypatch.setattr("systolic.verifier.runtime._EMBEDDED_BYTES", embedded)
    (tmp_path / "models").mkdir()
    rng = np.random.default_rng(0)
    constants = {
        "s": F(0.05), "z": np.int8(0), "w": rng.integers(-99, 99, (64, 32)).astype(np.int8), "ws": F(0.01),
        "b": rng.normal(size=(32,)).astype(F),
    }  # fmt: skip
    nodes = [
        om.node("DequantizeLinear", ["x", "s", "z"], "xf"), om.node("DequantizeLinear", ["w", "ws", "z"], "wf"),
        om.node("MatMul", ["xf", "wf"], "t"), om.node("QuantizeLinear", ["t", "s", "z"], "q"),
        om.node("DequantizeLinear", ["q", "s", "z"], "d"), om.node("Add", ["d", "b"], "y"),
    ]  # fmt: skip
    path = outside(tmp_path / "models", floating(nodes, {"x": ("int8", ("n", 64))}, ["y"], constants))
    monkeypatch.chdir(tmp_path)
    for given_path in (path, Path("models/model.onnx")):
        assert systolic.verify(given_path, against="onnxruntime", node_by_node=True).passed


@pytest.mark.parametrize("length", [None, "many", "3"])
def test_external_data_are_counted_by_their_sizes(length: str | None) -> None:
    from systolic.verifier.runtime import _external_bytes

    outside = onnx.TensorProto(name="w", dims=[2**20, 2**10], data_type=onnx.TensorProto.FLOAT16)
    outside.data_location = onnx.TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="w.bin")
    if length is not None:
        outside.external_data.add(key="length", value=length)
    graph = onnx.GraphProto(initializer=[outside, onnx.numpy_helper.from_array(F(1), "s")])
    assert _external_bytes(graph) == 2**31


def test_a_file_of_2_gib_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(ValueError, match="large.onnx has 2,147,483,648 bytes, and an ONNX file has at most"):
        load_onnx(path)


def test_external_data_beyond_the_memory_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = onnx.TensorProto(name="w", data_type=3, dims=[2**20, 2**20])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="large")
    with (tmp_path / "large").open("wb") as file:
        try:
            file.truncate(2**40)
        except OSError:
            pytest.skip("files are not that large here")
    graph = floating([om.node("Relu", ["x"], "y")], {"x": ("float32", (1,))}, ["y"])
    graph.graph.initializer.append(tensor)
    monkeypatch.setattr("systolic._memory.available_bytes", lambda: 2**34)
    with pytest.raises(MemoryError, match="model.onnx: its external data takes 1,099,511,627,776 bytes"):
        load_onnx(om.save(graph, tmp_path))
