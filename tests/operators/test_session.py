"""Nodes in ONNX Runtime sessions: who computes a node, interrupts, threads, forks, copies."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import systolic
from support import onnx_models as om
from support.onnx_models import F
from systolic import UnsupportedOperator, _isolated, load_onnx
from systolic.layers import OnnxNode
from systolic.layers.host import session

pytest.importorskip("onnxruntime")

X = F([[1, -2, 3], [0.5, 5, -6]])


def layer(op: str, arguments: list[Any], *, opset: int = om.OPSET, **attributes: Any) -> OnnxNode:
    """One node that reads float32 tensors or int64 tensors."""
    names = [f"i{i}" for i in range(len(arguments))]
    proto = onnx.helper.make_node(op, names, ["y"], **attributes)
    types = [np.asarray(a).dtype.name for a in arguments]
    bytes_ = np.frombuffer(proto.SerializeToString(), np.uint8)
    return OnnxNode(op, bytes_, names, types, ("float32",), (("", opset),))


def endless() -> OnnxNode:
    """A Loop whose condition stays true."""
    inner = [om.node("Identity", ["go"], "go out"), om.node("Add", ["s", "s"], "s out")]
    body = onnx.helper.make_graph(
        inner,
        "body",
        [om.value("i", "int64", ()), om.value("go", "bool", ()), om.value("s", "float32", (2, 3))],
        [om.value("go out", "bool", ()), om.value("s out", "float32", (2, 3))],
    )
    proto = onnx.helper.make_node("Loop", ["count", "", "x"], ["y"], body=body)
    bytes_ = np.frombuffer(proto.SerializeToString(), np.uint8)
    return OnnxNode("Loop", bytes_, ("count", "x"), ("int64", "float32"), ("float32",), (("", 17),))


@pytest.fixture
def without_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_onnxruntime", lambda: None)
    # The helper process has it still.
    monkeypatch.setattr(_isolated._child, "inside", True)


def test_onnxruntime_computes_what_it_has() -> None:
    node = layer("LRN", [X], size=3)
    assert node.delegate == "ONNX Runtime"
    x = np.random.default_rng(0).normal(size=(1, 5, 2, 2)).astype(F)
    square = np.pad(x.astype(float) ** 2, ((0, 0), (1, 1), (0, 0), (0, 0)))
    total = square[:, :-2] + square[:, 1:-1] + square[:, 2:]
    (y,) = layer("LRN", [X], size=3, alpha=1.0).apply(x)
    np.testing.assert_allclose(y, x / (1 + total / 3) ** 0.75, rtol=1e-6)


def test_our_own_layers_name_no_delegate() -> None:
    assert systolic.layers.Relu().delegate is None


def test_the_evaluator_is_used_without_onnxruntime(without_runtime: None) -> None:
    node = layer("CumSum", [X, np.array(1)])
    assert node.delegate == "onnx"
    np.testing.assert_array_equal(node.apply(X, np.array(1))[0], np.cumsum(X, axis=1))
    with pytest.raises(ValueError, match="CumSum, by onnx's reference evaluator: AxisError"):
        node.apply(X, np.array(5))


def test_what_the_evaluator_computes_wrong_is_refused_at_load(tmp_path: Path, without_runtime: None) -> None:
    graph, _ = om.single("LRN", [X.reshape(1, 2, 3)], size=3)
    with pytest.raises(UnsupportedOperator, match="'the_node' .LRN.: ONNX Runtime is not installed, and onnx's"):
        load_onnx(om.save(graph, tmp_path))


def test_operators_of_onnxruntime_need_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, feeds = om.single("com.microsoft.QuickGelu", [X])
    path = om.save(om.typed(graph), tmp_path)
    model = load_onnx(path)
    assert model.nodes[0].layer.delegate == "ONNX Runtime"
    np.testing.assert_array_equal(systolic.run(model, feeds).outputs["y"], om.onnxruntime_outputs(path, feeds)[0])
    assert model.infer_shapes({"i0": (2, 3)})["y"] == ((2, 3), "float32")
    session.operators.cache_clear()
    monkeypatch.setattr(session, "_onnxruntime", lambda: None)
    with pytest.raises(UnsupportedOperator, match="is a com.microsoft.QuickGelu"):
        load_onnx(path)
    session.operators.cache_clear()


def test_what_onnxruntime_refuses_is_refused() -> None:
    proto = onnx.helper.make_node("LRN", ["x"], ["y"])
    node = OnnxNode("LRN", np.frombuffer(proto.SerializeToString(), np.uint8), ("x",), ("float32",), ("float32",), (("", 21),))
    with pytest.raises(ValueError, match="ONNX Runtime .* does not take LRN: .*size"):
        node.apply(X)


def test_a_missing_kernel_is_not_another_error() -> None:
    """Without a kernel for these types it is the evaluator's turn."""
    assert layer("CumSum", [X.astype(np.uint64), np.array(1)]).delegate == "onnx"
    assert layer("CumSum", [X, np.array(1)]).delegate == "ONNX Runtime"


def test_copies_and_pickles_after_a_run() -> None:
    node = layer("CumSum", [X, np.array(1)])
    want = node.apply(X, np.array(1))[0]
    for again in (copy.copy(node), copy.deepcopy(node), pickle.loads(pickle.dumps(node))):
        assert again == node
        np.testing.assert_array_equal(again.apply(X, np.array(1))[0], want)


def test_results_are_new_arrays() -> None:
    node = layer("Dropout", [X])
    (y,) = node.apply(X)
    assert not np.shares_memory(y, X) and y.flags.writeable
    y += 1
    np.testing.assert_array_equal(node.apply(X)[0], X)


def test_from_many_threads() -> None:
    node = layer("CumSum", [X, np.array(1)])
    with ThreadPoolExecutor(8) as pool:
        for start, (y,) in pool.map(lambda i: (i, node.apply(X + F(i), np.array(1))), range(400)):
            np.testing.assert_array_equal(y, np.cumsum(X + F(start), axis=1))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a signal timer")
def test_an_interrupt_ends_an_endless_node() -> None:
    node = endless()
    node.apply(np.array(2), X)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    try:
        for _ in range(3):
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            started = time.perf_counter()
            with pytest.raises(KeyboardInterrupt):
                node.apply(np.array(2**62), X)
            assert time.perf_counter() - started < 2
    finally:
        signal.signal(signal.SIGALRM, before)
    np.testing.assert_array_equal(node.apply(np.array(3), X)[0], 8 * X)
    # The calls that nobody waits for end as well, and so do their threads.
    deadline = time.perf_counter() + 10
    while sum(t.name == "systolic ONNX Runtime" for t in threading.enumerate()) > 1:
        assert time.perf_counter() < deadline
        time.sleep(0.01)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_a_fork() -> None:
    node = layer("CumSum", [X, np.array(1)])
    want = node.apply(X, np.array(1))[0]
    child = os.fork()
    if not child:
        os._exit(0 if np.array_equal(node.apply(X, np.array(1))[0], want) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("opset", (10, 11, 12, 13))
def test_batch_normalization_trains_only_if_asked(tmp_path: Path, opset: int) -> None:
    """Before opset 14 the further outputs ask for it."""
    statistics = [F([1, 2]), F([0, 1]), F([1, -1]), F([4, 9])]
    x = np.arange(12, dtype=F).reshape(2, 2, 3)
    graph, feeds = om.single("BatchNormalization", [x, *statistics], opset=opset)
    model = load_onnx(om.save(graph, tmp_path))
    assert model.nodes[0].layer == systolic.layers.BatchNormalization()
    s, b, m, v = (a[:, None] for a in statistics)
    np.testing.assert_allclose(
        systolic.run(model, feeds).outputs["y"], (x - m) / np.sqrt(v + 1e-5) * s + b, rtol=1e-5
    )


def test_constants_of_a_branch_are_not_computed_beforehand(tmp_path: Path) -> None:
    """ONNX Runtime would multiply them when the session is made: seconds, for a branch that is not taken."""
    size = onnx.numpy_helper.from_array(np.int64([3000, 3000]), "size")
    nodes = [om.node("ConstantOfShape", ["size"], "p0")]
    nodes += [om.node("MatMul", [f"p{i}"] * 2, f"p{i + 1}") for i in range(6)]
    nodes.append(om.node("Add", ["x", "p6"], "o then"))
    then = onnx.helper.make_graph(nodes, "then", [], [om.value("o then", "float32", None)], [size])
    other = onnx.helper.make_graph([om.node("Neg", ["x"], "o else")], "else", [], [om.value("o else", "float32", None)])
    node = om.node("If", ["c"], "y", then_branch=then, else_branch=other)
    graph = om.model([node], {"c": ("bool", ()), "x": ("float32", (1, 3))}, ["y"], opset=17)
    graph.graph.output[0].CopyFrom(om.value("y", "float32", None))
    model = load_onnx(om.save(graph, tmp_path))
    outputs = systolic.run(model, {"c": np.array(False), "x": np.ones((1, 3), F)}).outputs
    np.testing.assert_array_equal(outputs["y"], -np.ones((1, 3), F))


def test_parameters_are_what_a_node_holds_not_the_node() -> None:
    assert layer("Selu", [X]).held == (0, 0)
    weights = onnx.numpy_helper.from_array(np.ones((2, 3), F), "w")
    node = om.node("Add", ["x", "w"], "o")
    body = onnx.helper.make_graph([node], "b", [], [om.value("o", "float32", None)], [weights])
    proto = onnx.helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    data = np.frombuffer(proto.SerializeToString(), np.uint8)
    held = OnnxNode("If", data, ("c", "x"), ("bool", "float32"), ("float32",), (("", 17),)).held
    assert held == (12, 48)
    strange = onnx.helper.make_node("Constant", [], ["y"], value=onnx.TensorProto(data_type=99, dims=[2]))
    data = np.frombuffer(strange.SerializeToString(), np.uint8)
    assert OnnxNode("Constant", data, ("c",), ("bool",), ("float32",), (("", 17),)).held == (0, 0)
    damaged = np.full(9, 255, np.uint8)
    assert OnnxNode("If", damaged, ("c",), ("bool",), ("float32",), (("", 17),)).held == (0, 0)
