"""Host operators: those left to ONNX Runtime beside the alternatives, and our own beside it.

The alternatives are onnx's reference evaluator, and one session of a chain of nodes instead of one each.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from systolic import layers  # noqa: E402
from systolic.layers import OnnxNode  # noqa: E402
from systolic.layers.host import evaluator, session  # noqa: E402

OPSET = 17
LENGTH, INPUTS, HIDDEN = 80, 256, 128


def real(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def layer_of(node, types):
    data = np.frombuffer(node.SerializeToString(), np.uint8)
    return OnnxNode(node.op_type, data, tuple(node.input), types, ("float32",), (("", OPSET),))


NODES = {
    "CumSum of 6 numbers": ("CumSum", {"x": real(2, 3), "axis": np.array(1)}, {}),
    "CumSum of 1 M numbers": ("CumSum", {"x": real(1024, 1024), "axis": np.array(1)}, {}),
    "bidirectional LSTM, 80 x 256 -> 128": (
        "LSTM",
        {
            "x": real(LENGTH, 1, INPUTS),
            "w": real(2, 4 * HIDDEN, INPUTS),
            "r": real(2, 4 * HIDDEN, HIDDEN),
            "b": real(2, 8 * HIDDEN),
        },
        {"hidden_size": HIDDEN, "direction": "bidirectional"},
    ),
}


@pytest.mark.parametrize("name", NODES)
def test_node(measure, name):
    """One node by its session, beside onnx's reference evaluator."""
    operator, given, attributes = NODES[name]
    proto = onnx.helper.make_node(operator, list(given), ["y"], **attributes)
    layer = layer_of(proto, tuple(x.dtype.name for x in given.values()))
    assert layer.delegate == "ONNX Runtime"
    run = evaluator.evaluator(proto.SerializeToString(), layer.reads, layer.read_dtypes, layer.opsets)
    measure(
        name, lambda: layer.apply(*given.values()), 1, "calls/s",
        ("onnx.reference", lambda: run.run(None, given), 1), rounds=5,
    )  # fmt: skip


def test_chain(measure):
    """Ten small nodes: a session each, beside one session of all ten."""
    count, x = 10, real(64, 64)
    names = [f"t{i}" for i in range(count + 1)]
    nodes = [onnx.helper.make_node("Selu", [a], [b]) for a, b in itertools.pairwise(names)]
    layers = [layer_of(node, ("float32",)) for node in nodes]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(nodes, "g", [value("t0", 1, None)], [value(names[-1], 1, None)])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=8)
    whole = session.create(model.SerializeToString(), "the chain")

    def each():
        y = x
        for layer in layers:
            (y,) = layer.apply(y)
        return y

    np.testing.assert_array_equal(each(), session.run(whole, {"t0": x}, names[-1:])[0])
    measure(
        "ten nodes of 64 x 64", each, count, "nodes/s",
        ("one session", lambda: session.run(whole, {"t0": x}, names[-1:]), count),
    )  # fmt: skip


IMAGE, TOKENS = real(1, 64, 56, 56), real(128, 768)
OWN = {
    "3 x 3 convolution, 64 channels": (
        layers.FloatConv(padding=1), "Conv", (IMAGE, real(64, 64, 3, 3)), {"pads": [1, 1, 1, 1]},
    ),
    "product 128 x 768 x 768": (layers.FloatMatMul(), "MatMul", (TOKENS, real(768, 768)), {}),
    "LayerNormalization, 128 x 768": (
        layers.LayerNormalization(), "LayerNormalization", (TOKENS, real(768), real(768)), {},
    ),
    "Softmax, 12 x 128 x 128": (layers.Softmax(), "Softmax", (real(12, 128, 128),), {}),
    "Erf, 128 x 768": (layers.Unary("Erf"), "Erf", (TOKENS,), {}),
    "MaxPool, 64 channels of 56 x 56": (
        layers.MaxPool((3, 3), stride=(2, 2)), "MaxPool", (IMAGE,),
        {"kernel_shape": [3, 3], "strides": [2, 2]},
    ),
    "Add, 64 channels of 56 x 56": (layers.Binary("Add"), "Add", (IMAGE, IMAGE), {}),
    "Transpose, 128 x 12 x 64": (
        layers.Transpose((1, 0, 2)), "Transpose", (real(128, 12, 64),), {"perm": [1, 0, 2]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OWN)
def test_own_layer(measure, name):
    """A float layer in numpy, which needs no extra, beside ONNX Runtime on one thread."""
    layer, operator, given, attributes = OWN[name]
    node = onnx.helper.make_node(operator, [f"x{i}" for i in range(len(given))], ["y"], **attributes)
    other = layer_of(node, ("float32",) * len(given))
    measure(
        name, lambda: layer.apply(*given), 1, "calls/s",
        ("ONNX Runtime", lambda: other.apply(*given), 1), rounds=5,
    )  # fmt: skip


@pytest.mark.parametrize("shape", [(1, 64, 64), (128, 768, 768), (1, 2048, 1000)])
def test_delegated_product(measure, shape):
    """A product by constant weights in ONNX Runtime, beside the exact one of the same layer."""
    m, k, n = shape
    x, w = real(m, k), real(k, n)
    w.flags.writeable = False
    delegated, exact = layers.FloatMatMul(runtime_constants=(1,)), layers.FloatMatMul()
    np.testing.assert_allclose(delegated.apply(x, w), exact.apply(x, w), rtol=0, atol=1e-3)
    measure(
        f"product {m} x {k} x {n} in ONNX Runtime", lambda: delegated.apply(x, w), 1, "calls/s",
        ("exact", lambda: exact.apply(x, w), 1), rounds=5,
    )  # fmt: skip
