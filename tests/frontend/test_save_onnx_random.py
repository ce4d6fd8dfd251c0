"""Random models written as ONNX: read back equal, valid, and computed alike by ONNX Runtime."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import systolic
from support import onnx_models as om
from support.onnx_models import F
from support.oracle_cases import cpu_flags
from support.qdq_models import CASES, Net, session, types
from support.qdq_networks import networks
from support.random_models import random_model
from support.real_networks import NETWORKS
from support.strategies import examples, raises, seeds
from systolic import Model, Node, QuantParams, UnsupportedOperator, layers, load_onnx, save_onnx
from systolic.layers.host.evaluator import OnnxNode

pytest.importorskip("onnxruntime")

ARRAY = systolic.ArrayConfig(256, 256)
ROUNDED = {
    "AveragePool", "FloatConv", "FloatConvTranspose", "FloatMatMul", "GlobalAveragePool", "LayerNormalization",
    "MatMulIntegerToFloat", "QLinearSigmoid", "QLinearSoftmax", "Reduce", "Softmax", "Unary",
}  # fmt: skip
"""Layers whose floats each library rounds its own way."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("saved") / "model.onnx"


def saved(model: Model, path: Path) -> Any:
    """Save a model, assert all that holds for every file, and return its ModelProto."""
    save_onnx(model, path)
    first = path.read_bytes()
    save_onnx(model, path)
    assert path.read_bytes() == first
    assert load_onnx(path) == model
    proto = onnx.load(path)
    names = [node.name for node in proto.graph.node]
    assert all(names) and len(set(names)) == len(names)
    # The checker wants the number of axes of each output, which a run may have to tell; and its shape
    # inference counts a last window in the padding, which nobody computes.
    ranked = all(output.type.tensor_type.HasField("shape") for output in proto.graph.output)
    if ranked and not any(getattr(node.layer, "ceil_mode", False) for node in model.nodes):
        onnx.checker.check_model(proto, full_check=True)
    return proto


def integer(made: Counter[str]) -> Counter[str]:
    return Counter({op: n for op, n in made.items() if op.startswith(("QLinear", "QGemm", "MatMulInteger"))})


def check_runtime(model: Model, feeds: dict[str, np.ndarray], path: Path) -> None:
    """Compare with ONNX Runtime: no more integer operators than the file has, and its results."""
    optimized = path.with_suffix(".optimized.onnx")
    try:
        session(path, optimized=optimized, level="EXTENDED")
    except Exception as error:
        if "NOT_IMPLEMENTED" in str(error):
            return  # it has no kernel for the type
        raise
    assert not integer(types(onnx.load(optimized).graph.node)) - integer(types(onnx.load(path).graph.node))
    if ROUNDED & {type(node.layer).__name__ for node in model.nodes}:
        return
    ours = systolic.run(model, feeds, machine=ARRAY, mode="wavefront").outputs
    for level in ("ALL", "NONE"):
        for (name, array), theirs in zip(
            ours.items(), session(path, level=level).run(None, feeds), strict=True
        ):
            assert (array.dtype, array.shape) == (theirs.dtype, theirs.shape)
            np.testing.assert_array_equal(array, theirs, err_msg=name)


REFUSED = (
    "its operator is of operator set", "and a file has one", "its subgraphs have a tensor", "it is a QGemm",
)  # fmt: skip
"""What random models are refused for."""


@pytest.mark.slow
@pytest.mark.skipif("avx2" not in cpu_flags(), reason="ONNX Runtime adds in another order without AVX2")
@examples(300)
@given(seeds)
@pytest.mark.exhaustive
def test_random_models(path: Path, seed: int) -> None:
    model, feeds = random_model(seed)
    try:
        saved(model, path)
    except UnsupportedOperator as error:
        assert str(error).startswith("node ") and any(reason in str(error) for reason in REFUSED)
        return
    check_runtime(model, feeds, path)


# Models that come from files


def renamed(model: Any, nodes: str, tensors: str) -> Any:
    """Give a file's nodes equal or no names, and its tensors names like those that are made up."""
    if tensors:
        known = dict.fromkeys(
            name for node in model.graph.node for name in (*node.input, *node.output) if name
        )
        stems = ("t.x_scale", "t.numbers", "x/low", "x/1", "t0", "a b", "t.guard", "t.zero")
        new = {name: f"{stems[at % 8]}{at // 8 or ''}" for at, name in enumerate(known)}
        for node in model.graph.node:
            node.input[:] = [new.get(name, name) for name in node.input]
            node.output[:] = [new.get(name, name) for name in node.output]
        for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
            value.name = new.get(value.name, value.name)
    for node in model.graph.node:
        node.name = {"none": "", "equal": "n", "own": node.name}[nodes]
    return model


@pytest.mark.slow
@pytest.mark.parametrize("qdq", ("integer", "float"))
@pytest.mark.parametrize("case", CASES)
@pytest.mark.exhaustive
def test_groups(path: Path, case: str, qdq: str) -> None:
    net = Net()
    om.save(net.model(*CASES[case][0](net)), path.parent, "source.onnx")
    model = load_onnx(path.parent / "source.onnx", qdq=qdq)
    saved(model, path)
    optimized = path.with_suffix(".optimized.onnx")
    session(path, optimized=optimized, level="EXTENDED")
    assert not integer(types(onnx.load(optimized).graph.node)) - integer(types(onnx.load(path).graph.node))


@pytest.mark.slow
@examples(60)
@given(
    networks(), st.sampled_from(["integer", "float"]), st.sampled_from(["own", "none", "equal"]), st.booleans()
)
@pytest.mark.exhaustive
def test_random_networks(path: Path, source: Any, qdq: str, nodes: str, tensors: bool) -> None:
    om.save(renamed(source, nodes, tensors), path.parent, "source.onnx")
    model = load_onnx(path.parent / "source.onnx", qdq=qdq)
    saved(model, path)
    optimized = path.with_suffix(".optimized.onnx")
    session(path, optimized=optimized, level="EXTENDED")
    assert not integer(types(onnx.load(optimized).graph.node)) - integer(types(onnx.load(path).graph.node))


@pytest.mark.slow
@pytest.mark.parametrize("qdq", ("integer", "float"))
@pytest.mark.parametrize("name", NETWORKS)
def test_real_networks(path: Path, name: str, qdq: str) -> None:
    source, feeds = NETWORKS[name]()
    om.save(source, path.parent, "source.onnx")
    saved(load_onnx(path.parent / "source.onnx", qdq=qdq), path)
    level = "ALL" if qdq == "integer" else "NONE"
    expected = session(path.parent / "source.onnx", level=level).run(None, feeds)
    for theirs, ours in zip(expected, session(path, level=level).run(None, feeds), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def written_out() -> Any:
    """One node that becomes several layers of one name, and names that those take."""
    nodes = [
        om.node("Clip", ["x", "lowest", "highest"], "y", name="n"),
        om.node("Max", ["x", "lowest", "y"], "z", name="n"),
        om.node("CumSum", ["z", "axis"], "s", name="n"),
        om.node("CumSum", ["s", "axis"], "end"),
        om.node("Neg", ["end"], "last", name="end"),
    ]
    inputs = {"x": ("float32", (2, 3)), "lowest": ("float32", ()), "highest": ("float32", ())}
    model = om.model(nodes, inputs, ["last", "y"], {"axis": np.int64(1)})
    for output in model.graph.output:
        output.CopyFrom(om.value(output.name, "float32", (2, 3)))
    return model


def test_nodes_of_one_name(path: Path) -> None:
    om.save(written_out(), path.parent, "source.onnx")
    model = load_onnx(path.parent / "source.onnx")
    assert [node.name for node in model.nodes] == ["n", "n", "n", "n", "n", "end", "end"]
    proto = saved(model, path)
    assert [node.name for node in proto.graph.node] == ["n", "n2", "n3", "n4", "n5", "end2", "end"]
    feeds = {"x": F([[1, 2, 3], [4, 5, 6]]), "lowest": np.array(2, F), "highest": np.array(5, F)}
    check_runtime(model, feeds, path)


# What becomes of single kinds of models


CODES = QuantParams(0.25, 3)
ONES: dict[str, Any] = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}


def float_convolution(factor: float) -> Model:
    """A convolution of floats between codes, whose bias has a scale of its own."""
    q, bias = QuantParams(0.5), QuantParams(0.25 * factor, 0, "int32")
    nodes = [
        Node(layers.DequantizeLinear(q), ("x",), "a"),
        Node(layers.DequantizeLinear(q), ("w",), "b"),
        Node(layers.DequantizeLinear(bias), ("c",), "d"),
        Node(layers.FloatConv(**ONES), ("a", "b", "d"), "f"),
        Node(layers.QuantizeLinear(q), ("f",), "y"),
    ]
    constants = {"w": np.int8(np.arange(-4, 4).reshape(2, 1, 2, 2)), "c": np.int32([100, -7])}
    return Model(nodes, inputs={"x": ((1, 1, 4, 4), "int8")}, constants=constants)


@pytest.mark.parametrize("factor", (1.0, 1.25))
def test_floats_stay_floats(path: Path, factor: float) -> None:
    model = float_convolution(factor)
    proto = saved(model, path)
    assert [node.op_type for node in proto.graph.node].count("Max") == 3
    assert load_onnx(path, qdq="float") == model
    feeds = {"x": om.codes(np.random.default_rng(0), (1, 1, 4, 4))}
    (ours,) = systolic.run(model, feeds, machine=ARRAY, mode="wavefront").outputs.values()
    for level in ("ALL", "NONE"):
        np.testing.assert_array_equal(session(path, level=level).run(None, feeds)[0], ours)


def test_a_moved_output_is_not_quantized(path: Path) -> None:
    """ONNX Runtime would return x as codes of y."""
    nodes = [
        Node(layers.Unary("Neg"), ("a",), "x"),
        Node(layers.Transpose((1, 0)), ("x",), "t"),
        Node(layers.QuantizeLinear(CODES), ("t",), "y"),
    ]
    model = Model(nodes, inputs={"a": ((2, 2), "float32")}, outputs=["x", "y"])
    saved(model, path)
    check_runtime(model, {"a": F([[0.1, 100], [-200, 0.3]])}, path)


@pytest.mark.parametrize("dtype", ("float16", "float64", "int64"))
def test_a_relu_of_other_types(path: Path, dtype: str) -> None:
    """It is a Clip, whose bound is of the type."""
    source = om.model([om.node("Relu", ["x"], "y")], {"x": (dtype, (2,))}, ["y"])
    source.graph.output[0].CopyFrom(om.value("y", dtype, (2,)))
    om.save(source, path.parent, "source.onnx")
    saved(load_onnx(path.parent / "source.onnx"), path)


@pytest.mark.parametrize("bounds", ((None, 1.0), (-1.0, None), (None, None)))
def test_a_clip_without_a_bound(path: Path, bounds: Any) -> None:
    """Infinity stays: what ONNX leaves out is the largest number in ONNX Runtime."""
    model = Model([Node(layers.Clip(*bounds), ("x",), "y")], inputs={"x": ((4,), "float32")})
    saved(model, path)
    check_runtime(model, {"x": F([-np.inf, -2, 2, np.inf])}, path)


def test_tensors_stay_tensors(path: Path) -> None:
    """Constants that a layer could hold, that a node could be folded to, and that nobody reads."""
    nodes = [
        Node(layers.Reshape(), ("x", "sizes"), "a"),
        Node(layers.QLinearMatMul(x=CODES, w=CODES, y=CODES), ("a", "w"), "b"),
        Node(layers.Identity(), ("w",), "c"),
        Node(layers.QLinearAdd(CODES, CODES, CODES), ("b", "c"), "d"),
        Node(layers.DequantizeLinear(axis=0), ("d", "scale", "zero"), "y"),
    ]
    constants = {
        "sizes": np.int64([2, 2]), "w": np.int8([[1, 2], [3, 4]]), "scale": F(0.5), "zero": np.int8(3),
        "unread": np.float64([1, 2]),
    }  # fmt: skip
    model = Model(nodes, inputs={"x": ((4,), "int8")}, outputs=["y", "c", "sizes"], constants=constants, name="")
    saved(model, path)
    check_runtime(model, {"x": np.int8([1, 2, 3, 4])}, path)


def test_outputs_left_out(path: Path) -> None:
    nodes = [
        Node(layers.DynamicQuantize(), ("x",), ("", "scale", "")),
        Node(layers.Split((1, 1, 1), 1), ("x",), ("", "middle", "")),
        Node(layers.MaxPool((1, 1), **ONES, indices="row"), ("image",), ("pooled", "")),
        Node(layers.LayerNormalization(-1, 0.5), ("x", "one", "one"), ("normal", "", "")),
    ]
    model = Model(
        nodes,
        inputs={"x": ((2, 3), "float32"), "image": ((1, 1, 1, 3), "float32")},
        outputs=["scale", "middle", "pooled", "normal"],
        constants={"one": np.ones(3, F)},
    )
    proto = saved(model, path)
    assert [len(node.output) for node in proto.graph.node] == [3, 3, 2, 1]
    feeds = {"x": F([[1, 2, 3], [4, 5, 6]]), "image": F([[[[1, 2, 3]]]])}
    theirs = session(path).run(None, feeds)
    for mine, their in zip(systolic.run(model, feeds, machine=ARRAY, mode="wavefront").outputs.values(), theirs, strict=True):
        np.testing.assert_allclose(mine, their, rtol=1e-5)


def test_symbols_of_any_name(path: Path) -> None:
    spec = systolic.TensorSpec((None, None, 3), "int8", symbols=("batch size", "None", None))
    saved(Model([systolic.layers.Identity()], inputs={"x": spec}), path)


def test_notes_hold_for_the_nodes_they_were_made_for(path: Path) -> None:
    """Whoever changes a node gets the file that it then is."""
    model = float_convolution(1.0)
    proto = saved(model, path)
    proto.graph.node[-1].name = "changed"
    kept = [node for node in proto.graph.node if node.op_type != "Max"]
    for node in kept:
        if node.op_type == "DequantizeLinear":
            node.output[0] = node.output[0].removesuffix(".numbers")
    changed = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del proto.graph.node[:]
    proto.graph.node.extend(changed)
    om.save(proto, path.parent, path.name)
    assert [type(node.layer).__name__ for node in load_onnx(path).nodes] == ["QLinearConv"]
    # Other weights are no other nodes.
    proto = saved(model, path)
    weight = next(tensor for tensor in proto.graph.initializer if tensor.name == "w")
    weight.CopyFrom(onnx.numpy_helper.from_array(np.ones((2, 1, 2, 2), np.int8), "w"))
    om.save(proto, path.parent, path.name)
    loaded = load_onnx(path)
    assert loaded.nodes == model.nodes and loaded.constants["w"].min() == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda content: "{",
        lambda content: "[" * 100_000,
        lambda content: "[]",
        lambda content: json.dumps({**content, "digest": "0"}),
        lambda content: json.dumps({**content, "constants": "w"}),
        lambda content: json.dumps({**content, "names": {"y": 1}}),
        lambda content: json.dumps({**content, "names": {"y": "\ud800"}}),
        lambda content: json.dumps({**content, "unused": None}),
    ],
)
def test_broken_notes_say_nothing(path: Path, change: Any) -> None:
    proto = saved(Model([Node(layers.Identity(), ("w",), "y")], inputs={"x": ((1,), "int8")},
                        constants={"w": np.int8([1])}), path)  # fmt: skip
    (entry,) = [entry for entry in proto.metadata_props if entry.key == "systolic"]
    entry.value = change(json.loads(entry.value))
    om.save(proto, path.parent, path.name)
    assert not load_onnx(path).nodes


def test_notes_of_what_is_not_there(path: Path) -> None:
    """Names that the graph lacks, and tensors in use that are called unused, change nothing."""
    model = Model([Node(layers.Identity(), ("x",), "y"), Node(layers.Relu(), ("y",), "z")],
                  inputs={"x": ((1,), "int8")})  # fmt: skip
    proto = saved(model, path)
    (entry,) = [entry for entry in proto.metadata_props if entry.key == "systolic"]
    content = {"constants": ["x", "n"], "unused": ["y", "z", "m"], "names": {"o": "p"}}
    entry.value = json.dumps({**json.loads(entry.value), **content})
    om.save(proto, path.parent, path.name)
    assert load_onnx(path) == model


@pytest.mark.parametrize("outputs", (["y"], ["x", "y"], ["t", "y"]))
def test_an_own_maximum_stays(path: Path, outputs: list[str]) -> None:
    """A Max that no guard is: of two tensors, or of one that is an output."""
    nodes = [Node(layers.DequantizeLinear(CODES), ("c",), "x"), Node(layers.Binary("Max"), ("x", "x"), "t"),
             Node(layers.QuantizeLinear(CODES), ("t",), "y")]  # fmt: skip
    saved(Model(nodes, inputs={"c": ((2,), "int8")}, outputs=outputs), path)


def test_a_name_that_a_subgraph_has_too(path: Path) -> None:
    body = onnx.helper.make_graph(
        [onnx.helper.make_node("Neg", ["x"], ["inner"])], "body", [],
        [onnx.helper.make_tensor_value_info("inner", onnx.TensorProto.FLOAT, [2])],
    )  # fmt: skip
    proto = onnx.helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    data = np.frombuffer(proto.SerializeToString(), np.uint8)
    layer = OnnxNode("If", data, ("c", "x"), ("bool", "float32"), ("float32",), (("", 17),))
    nodes = [Node(layer, ("c", "x"), "y"), Node(layers.Relu(), ("y",), "inner")]
    model = Model(nodes, inputs={"c": ((), "bool"), "x": ((2,), "float32")})
    path.unlink(missing_ok=True)
    with raises(
        UnsupportedOperator,
        "node 'y' (OnnxNode): its subgraphs have a tensor 'inner' of their own, and so has the model; rename that",
    ):
        save_onnx(model, path)
    assert not path.exists()


def test_names_within_a_subgraph_are_taken(path: Path) -> None:
    """A parameter of the Quantize would have the name of the subgraph's tensor."""
    inner = "q.y_scale"
    body = onnx.helper.make_graph(
        [onnx.helper.make_node("Neg", ["x"], [inner])], "body", [],
        [onnx.helper.make_tensor_value_info(inner, onnx.TensorProto.FLOAT, [2])],
    )  # fmt: skip
    proto = onnx.helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    data = np.frombuffer(proto.SerializeToString(), np.uint8)
    layer = OnnxNode("If", data, ("c", "x"), ("bool", "float32"), ("float32",), (("", 17),))
    nodes = [Node(layer, ("c", "x"), "y"), Node(layers.QuantizeLinear(CODES), ("y",), "q")]
    model = Model(nodes, inputs={"c": ((), "bool"), "x": ((2,), "float32")})
    saved(model, path)
    check_runtime(model, {"c": np.array(True), "x": F([1, -2])}, path)


def identity(output: str = "y", name: str = "", **options: Any) -> Model:
    options.setdefault("inputs", {"x": ((2,), "int8")})
    return Model([Node(layers.Identity(), (next(iter(options["inputs"])),), output, name)], **options)


SURROGATE = "the name '\\ud800' holds a lone surrogate, which no file can; rename it"
NO_FORM: dict[str, tuple[Model, str]] = {
    "an input without a name": (
        identity(inputs={"": ((2,), "int8")}),
        "load_onnx would not read the file: an input has no name; use Model.save",
    ),
    "an output twice": (
        identity(outputs=["y", "y"]), "load_onnx would not read the file: it has two outputs 'y'; use Model.save"
    ),
    "a symbol without a name": (
        identity(inputs={"x": systolic.TensorSpec((None, None), "int8", ("", "n"))}, name="m"),
        "load_onnx would read the inputs as {'x': TensorSpec(shape=(None, None), dtype='int8', symbols=(None, 'n'))}, "
        "not {'x': TensorSpec(shape=(None, None), dtype='int8', symbols=('', 'n'))}; use Model.save",
    ),
    "a surrogate in a tensor's name": (identity("\ud800"), f"node '\\ud800': {SURROGATE}"),
    "a surrogate in a node's name": (identity(name="\ud800"), f"node '\\ud800': {SURROGATE}"),
    "no axes": (
        Model([Node(layers.Reduce("ReduceMax", ()), ("x",), "y")], inputs={"x": ((2,), "float32")}),
        "node 'y' (Reduce): ONNX's ReduceMax without axes is over all; put an Identity in its place",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NO_FORM)
def test_what_has_no_form(tmp_path: Path, case: str) -> None:
    model, message = NO_FORM[case]
    with raises(UnsupportedOperator, message):
        save_onnx(model, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


OTHERS: dict[str, tuple[Any, Any, tuple[int, ...], str]] = {
    "a channel of its own": (
        layers.QuantizeLinear(QuantParams([0.5], [3], axis=0)), layers.QuantizeLinear(QuantParams(0.5, 3)), (1, 2), "float32"
    ),
    "one zero point": (
        layers.QuantizeLinear(QuantParams([0.5, 1], 3, axis=0)), layers.QuantizeLinear(QuantParams([0.5, 1], [3, 3], axis=0)),
        (2, 2), "float32",
    ),
    "a window's integers": (
        layers.MaxPool((2, 2, 2)), layers.MaxPool((2, 2, 2), stride=(1,) * 3, padding=((0, 0),) * 3, dilation=(1,) * 3),
        (1, 1, 2, 2, 2), "int8",
    ),
    "bounds": (layers.Clip(0, 0.1), layers.Clip(0.0, float(F(0.1))), (2,), "float32"),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_two_layers_of_one_operator(path: Path, case: str) -> None:
    layer, other, shape, dtype = OTHERS[case]
    inputs = {"x": (shape, dtype)}
    save_onnx(Model([Node(layer, ("x",), "y")], inputs=inputs), path)
    assert load_onnx(path).nodes[0].layer == other
    saved(load_onnx(path), path)


def test_a_constant_of_the_other_byte_order(path: Path) -> None:
    model = Model([Node(layers.Identity(), ("c",), "y")], inputs={"x": ((2,), "int8")},
                  constants={"c": np.array([1, 2], ">i4")})  # fmt: skip
    save_onnx(model, path)
    assert load_onnx(path).constants["c"].tolist() == [1, 2]


def test_delegated_nodes_without_a_name_come_back(tmp_path: Path) -> None:
    """Between DequantizeLinear and QuantizeLinear, whose output is written by another node then."""
    nodes = [
        om.node("DequantizeLinear", ["x", "s", "z"], "d"),
        om.node("Tile", ["d", "r"], "t"),
        om.node("QuantizeLinear", ["t", "s", "z"], "y"),
    ]
    constants = {"s": np.float32(0.1), "z": np.uint8(3), "r": np.int64([2])}
    model = load_onnx(om.save(om.model(nodes, {"x": ("uint8", (2,))}, ["y"], constants), tmp_path))
    systolic.save_onnx(model, tmp_path / "again.onnx")
    assert load_onnx(tmp_path / "again.onnx") == model
