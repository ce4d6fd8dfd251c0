"""Nodes left to ONNX Runtime or onnx's reference evaluator, subgraphs, functions; and sizes of one name."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import systolic
from support import onnx_models as om
from support.onnx_models import F
from systolic import Model, Node, TensorSpec, UnsupportedOperator, load_onnx
from systolic.layers import OnnxNode
from systolic.layers.base import UnknownShape
from systolic.layers.host.evaluator import parse


def i64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def loaded(folder: Path, graph: Any) -> Model:
    return load_onnx(om.save(graph, folder))


def compared(folder: Path, graph: Any, feeds: dict[str, np.ndarray], tolerance: float = 0.0) -> Model:
    """The model of a graph, whose outputs are ONNX Runtime's."""
    path = om.save(om.typed(graph), folder)
    model = load_onnx(path)
    run = systolic.run(model, feeds)
    for ours, theirs in zip(run.outputs.values(), om.onnxruntime_outputs(path, feeds), strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
    return model


# Single operators

X = np.float32([[1, -2, 3], [0.5, 5, -6]])
ANY: dict[str, Callable[[], om.Case]] = {
    "CumSum": lambda: om.single("CumSum", [X, np.array(1)]),
    "Elu": lambda: om.single("Elu", [X], alpha=0.5),
    "TopK": lambda: two_outputs(om.single("TopK", [X, i64(2)])),
    "Tile": lambda: om.single("Tile", [X, i64(2, 1)]),
    "NonZero": lambda: om.single("NonZero", [X]),
    "Conv": lambda: om.single("Conv", [np.ones((1, 1, 2, 2, 2, 3), F), np.ones((1, 1, 1, 1, 1, 2), F)]),
    "Dropout": lambda: om.single("Dropout", [X]),
    "Resize linear": lambda: om.single("Resize", [X, None, F([1, 2])], mode="linear"),
    "ReduceMean of integers": lambda: om.single("ReduceMean", [np.int32([[1, 2], [4, 4]]), i64(1)]),
    "HardSwish": lambda: om.single("HardSwish", [X]),
    # Written out in other operators by the standard: by the types of what it reads, by its defaults.
    "GroupNormalization": lambda: om.single(
        "GroupNormalization", [X.reshape(1, 2, 3), F([1, 2]), F([0, 1])], num_groups=1
    ),
    "MeanVarianceNormalization": lambda: om.single("MeanVarianceNormalization", [X.reshape(1, 2, 3, 1)]),
}


def two_outputs(case: om.Case) -> om.Case:
    case[0].graph.node[0].output.append("z")
    case[0].graph.output.append(om.value("z", "int8", ()))
    return case


@pytest.mark.parametrize("case", ANY)
def test_operators_without_a_layer(tmp_path: Path, case: str) -> None:
    graph, feeds = ANY[case]()
    model = compared(tmp_path, graph, feeds, 1e-6)
    (node,) = model.nodes
    assert isinstance(node.layer, OnnxNode) and node.layer.kind == graph.graph.node[0].op_type
    run = systolic.run(model, feeds)
    assert run.layers[0].layer == node.layer.kind and run.layers[0].gemm is None
    assert node.layer.kind in str(model.table())


def test_unused_outputs_are_left_out(tmp_path: Path) -> None:
    node = om.node("Unique", ["x"], ["y", "", "", "counts"])
    model = loaded(tmp_path, om.model([node], {"x": ("int64", (4,))}, ["y", "counts"]))
    assert model.nodes[0].outputs == ("y", "counts")
    outputs = systolic.run(model, i64(3, 1, 3, 3)).outputs
    assert outputs["y"].tolist() == [1, 3] and outputs["counts"].tolist() == [1, 3]


def test_shapes_are_inferred_where_they_can_be(tmp_path: Path) -> None:
    def shape(op: str, *arguments: Any) -> Any:
        graph, _ = om.single(op, [X, *arguments])
        return loaded(tmp_path, graph).infer_shapes({"i0": (2, 3)})["y"]

    assert shape("Tile", i64(2, 1)) == ((4, 3), "float32")
    assert shape("NonZero") == (None, "int64")


def test_what_does_not_fit_is_refused_before_the_run(tmp_path: Path) -> None:
    graph, _ = om.single("DepthToSpace", [X], blocksize=2)
    with pytest.raises(ValueError, match="node 'the_node' .DepthToSpace.: DepthToSpace does not take"):
        loaded(tmp_path, graph)


def test_data_that_do_not_fit_name_the_node(tmp_path: Path) -> None:
    graph, feeds = om.single("CumSum", [X, np.array(5)], (0, 1))
    model = loaded(tmp_path, graph)
    with pytest.raises(ValueError, match="CumSum, by ONNX Runtime: .*axis 5 is not in valid range"):
        systolic.run(model, feeds)


def test_saved_and_loaded(tmp_path: Path) -> None:
    graph, feeds = two_outputs(om.single("TopK", [X, i64(2)]))
    model = loaded(tmp_path, graph)
    model.save(tmp_path / "model.zip")
    again = Model.load(tmp_path / "model.zip")
    assert again == model
    for a, b in zip(
        systolic.run(again, feeds).outputs.values(), systolic.run(model, feeds).outputs.values(), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_the_array_and_the_evaluator_in_one_model(tmp_path: Path) -> None:
    """A quantized product between two operators of which one runs foreign."""
    nodes = [
        om.node("Elu", ["x"], "e"),
        om.node("QuantizeLinear", ["e", "s", "z"], "q"),
        om.node("QLinearMatMul", ["q", "s", "z", "w", "s", "z", "s", "z"], "p"),
        om.node("DequantizeLinear", ["p", "s", "z"], "y"),
    ]
    values = {"s": F(0.125), "z": np.int8(3), "w": np.int8([[1, 2], [3, -4], [50, 6]])}
    model = compared(tmp_path, om.model(nodes, {"x": ("float32", ("n", 3))}, ["y"], values), {"x": X})
    kinds = [layer.layer for layer in systolic.run(model, X).layers]
    assert kinds[0] == "Elu" and systolic.run(model, X).stats.cycles > 0


# Subgraphs


def branches() -> Any:
    """An If whose branches use tensors from around it."""
    then = onnx.helper.make_graph(
        [om.node("Add", ["x", "c"], "inner"), om.node("Relu", ["inner"], "out")],
        "then",
        [],
        [om.value("out", "float32", None)],
    )
    otherwise = onnx.helper.make_graph(
        [om.node("Sub", ["twice", "c"], "out 2")], "else", [], [om.value("out 2", "float32", None)]
    )
    nodes = [
        om.node("Greater", ["a", "b"], "which"),
        om.node("Add", ["x", "x"], "twice"),
        om.node("If", ["which"], "y", name="choice", then_branch=then, else_branch=otherwise),
    ]
    inputs = {"a": ("float32", ()), "b": ("float32", ()), "x": ("float32", ("n", 3))}
    return om.model(nodes, inputs, ["y"], {"c": F([1, 2, 3])}, opset=17)


@pytest.mark.parametrize("a", (0.0, 2.0))
def test_if_reads_what_its_branches_use(tmp_path: Path, a: float) -> None:
    model = compared(tmp_path, branches(), {"a": np.array(a, F), "b": np.array(1, F), "x": X})
    (choice,) = [node for node in model.nodes if node.name == "choice"]
    assert choice.layer.kind == "If" and set(choice.inputs) == {"which", "x", "c", "twice"}


def test_loop(tmp_path: Path) -> None:
    body = onnx.helper.make_graph(
        [om.node("Add", ["sum", "step"], "sum out"), om.node("Identity", ["go"], "go out"), om.node("Identity", ["sum out"], "scan")],
        "body",
        [om.value("i", "int64", ()), om.value("go", "bool", ()), om.value("sum", "float32", (3,))],
        [om.value("go out", "bool", ()), om.value("sum out", "float32", (3,)), om.value("scan", "float32", (3,))],
    )  # fmt: skip
    node = om.node("Loop", ["count", "", "start"], ["last", "all"], body=body)
    inputs = {"count": ("int64", ()), "start": ("float32", (3,)), "step": ("float32", (3,))}
    feeds = {"count": np.array(4), "start": F([0, 1, 2]), "step": F([1, 0.5, -1])}
    model = compared(tmp_path, om.model([node], inputs, ["last", "all"], opset=17), feeds)
    # How many turns it takes, only a run tells.
    assert model.infer_shapes({name: x.shape for name, x in feeds.items()})["all"] == (None, "float32")


@pytest.mark.parametrize("shape", ((), (3,), (2, 3)))
@pytest.mark.parametrize("count", (0, 1, 3))
def test_loops_collect_tensors_of_any_rank(tmp_path: Path, shape: tuple[int, ...], count: int) -> None:
    """Without a condition, and one that ends the loop early."""
    body = onnx.helper.make_graph(
        [
            om.node("Cast", ["i"], "real i", to=1),
            om.node("Add", ["x", "real i"], "next"),
            om.node("Identity", ["next"], "kept"),
            om.node("Less", ["i", "last"], "go out"),
        ],
        "body",
        [om.value("i", "int64", ()), om.value("go", "bool", ()), om.value("x", "float32", shape)],
        [om.value("go out", "bool", ()), om.value("next", "float32", shape), om.value("kept", "float32", shape)],
    )  # fmt: skip
    node = om.node("Loop", ["count", "", "start"], ["end", "all"], body=body)
    inputs = {"count": ("int64", ()), "start": ("float32", shape)}
    graph = om.model([node], inputs, ["end", "all"], {"last": np.array(1)}, opset=17)
    compared(tmp_path, graph, {"count": np.array(count), "start": np.full(shape, 0.5, F)})


def test_scans(tmp_path: Path) -> None:
    def scan(**attributes: Any) -> Any:
        body = onnx.helper.make_graph(
            [om.node("Add", ["sum", "x"], "sum out"), om.node("Mul", ["sum out", "c"], "y")],
            "body",
            [om.value("sum", "float32", (3,)), om.value("x", "float32", (3,))],
            [om.value("sum out", "float32", (3,)), om.value("y", "float32", (3,))],
        )
        node = om.node(
            "Scan", ["start", "xs"], ["end", "all"], name="s", num_scan_inputs=1, body=body, **attributes
        )
        inputs = {"start": ("float32", (3,)), "xs": ("float32", (2, 3))}
        return om.model([node], inputs, ["end", "all"], {"c": F([2])}, opset=17)

    feeds = {"start": F([1, 2, 3]), "xs": X}
    compared(tmp_path, scan(), feeds)
    compared(tmp_path, scan(scan_input_directions=[1]), feeds)


def test_an_unknown_operator_in_a_subgraph_is_refused(tmp_path: Path) -> None:
    graph = branches()
    graph.graph.node[2].attribute[0].g.node[0].op_type = "Foo"
    graph.graph.node[2].attribute[0].g.node[0].domain = "some.where"
    graph.opset_import.append(onnx.helper.make_opsetid("some.where", 1))
    with pytest.raises(
        UnsupportedOperator, match="'choice' .If.: its subgraph holds the operator some.where.Foo, which neither"
    ):
        loaded(tmp_path, graph)


# Functions of the model


def with_function(body: list[Any], name: str = "Twice") -> Any:
    graph = om.model([om.node(f"mine.{name}", ["x"], "y")], {"x": ("float32", (2, 3))}, ["y"])
    opsets = [onnx.helper.make_opsetid("", om.OPSET), onnx.helper.make_opsetid("mine", 1)]
    graph.functions.append(onnx.helper.make_function("mine", name, ["a"], ["b"], body, opsets))
    return graph


def test_functions_are_written_out(tmp_path: Path) -> None:
    graph = with_function([om.node("Add", ["a", "a"], "t"), om.node("Relu", ["t"], "b")])
    model = compared(tmp_path, graph, {"x": X})
    assert [node.layer.kind for node in model.nodes] == ["Add", "Relu"]


def test_functions_that_call_themselves_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="calls the function Twice, which calls itself"):
        loaded(tmp_path, with_function([om.node("mine.Twice", ["a"], "b")]))


def doubling(levels: int, overload: str = "") -> Any:
    """A model whose functions call each other twice per level."""
    graph = with_function([om.node("Relu", ["a"], "b")], "f0")
    opsets = [onnx.helper.make_opsetid("", om.OPSET), onnx.helper.make_opsetid("mine", 1)]
    for level in range(1, levels):
        body = [om.node(f"mine.f{level - 1}", ["a"], "t"), om.node(f"mine.f{level - 1}", ["t"], "b")]
        graph.functions.append(onnx.helper.make_function("mine", f"f{level}", ["a"], ["b"], body, opsets))
    graph.graph.node[0].op_type = f"f{levels - 1}"
    for function in graph.functions:
        function.overload = overload
        for node in function.node:
            node.overload = overload if node.domain else ""
    graph.graph.node[0].overload = overload
    return graph


@pytest.mark.parametrize("levels", [15, 18, 40])
@pytest.mark.parametrize("overload", ["", "other"])
def test_functions_that_grow_beyond_bounds_are_refused(tmp_path: Path, levels: int, overload: str) -> None:
    graph = doubling(levels, overload)
    if overload:
        # Another function of the name, which is not called.
        last = onnx.FunctionProto.FromString(graph.functions[0].SerializeToString())
        last.name, last.overload = f"f{levels - 1}", ""
        graph.functions.append(last)
    assert graph.ByteSize() < 8000
    started = time.monotonic()
    with pytest.raises(
        ValueError, match="written out are more than [12][0-9],[0-9]{3} nodes, the most for a file"
    ):
        loaded(tmp_path, graph)
    assert time.monotonic() - started < 1


def test_functions_are_written_out_up_to_the_bound(tmp_path: Path) -> None:
    assert len(loaded(tmp_path, doubling(10)).nodes) == 2**9


def test_functions_that_multiply_bytes_are_refused(tmp_path: Path) -> None:
    large = onnx.numpy_helper.from_array(np.zeros(2**18, F))
    graph = doubling(12)
    graph.functions[0].node.insert(0, om.node("Constant", [], "c", value=large))
    with pytest.raises(ValueError, match="written out are more than [0-9,]+ bytes"):
        loaded(tmp_path, graph)
    # By an attribute of the one call.
    graph = doubling(12)
    for function in graph.functions:
        function.attribute.append("value")
        for node in function.node:
            if node.domain:
                node.attribute.add(name="value", ref_attr_name="value", type=onnx.AttributeProto.TENSOR)
    constant = om.node("Constant", [], "c")
    constant.attribute.add(name="value", ref_attr_name="value", type=onnx.AttributeProto.TENSOR)
    graph.functions[0].node.insert(0, constant)
    graph.graph.node[0].attribute.append(onnx.helper.make_attribute("value", large))
    with pytest.raises(ValueError, match="written out are more than [0-9,]+ bytes"):
        loaded(tmp_path, graph)


def test_functions_too_deep_are_refused(tmp_path: Path) -> None:
    opsets = [onnx.helper.make_opsetid("", om.OPSET), onnx.helper.make_opsetid("mine", 1)]
    chain = with_function([om.node("Relu", ["a"], "b")], "f0")
    for level in range(1, 200):
        body = [om.node(f"mine.f{level - 1}", ["a"], "b")]
        chain.functions.append(onnx.helper.make_function("mine", f"f{level}", ["a"], ["b"], body, opsets))
    chain.graph.node[0].op_type = "f199"
    with pytest.raises(ValueError, match="more than 100 deep"):
        loaded(tmp_path, chain)


# What is refused


def refused(folder: Path, graph: Any, *words: str) -> None:
    with pytest.raises(UnsupportedOperator) as caught:
        loaded(folder, graph)
    for word in words:
        assert word in str(caught.value), f"{word!r} is not in {str(caught.value)!r}"


def test_sequences_are_refused(tmp_path: Path) -> None:
    nodes = [om.node("SequenceConstruct", ["x"], "s", name="many"), om.node("SequenceLength", ["s"], "y")]
    refused(
        tmp_path, om.model(nodes, {"x": ("float32", (2,))}, ["y"]), "'many'", "'s' is no tensor", "sequences"
    )


def test_types_beyond_numpy_are_refused(tmp_path: Path) -> None:
    nodes = [om.node("CastLike", ["x", "like"], "b", name="halve"), om.node("CastLike", ["b", "x"], "y")]
    graph = om.model(nodes, {"x": ("float32", (2,))}, ["y"])
    graph.graph.initializer.append(onnx.helper.make_tensor("like", onnx.TensorProto.BFLOAT16, (1,), [1.0]))
    refused(tmp_path, graph, "'halve' (CastLike)", "bfloat16", "supported are float32")


def test_random_numbers_are_refused(tmp_path: Path) -> None:
    nodes = [om.node("RandomNormal", [], "r", shape=[2]), om.node("Add", ["x", "r"], "y")]
    refused(tmp_path, om.model(nodes, {"x": ("float32", (2,))}, ["y"]), "RandomNormal", "store them instead")


def test_operators_that_nobody_knows_are_refused(tmp_path: Path) -> None:
    nodes = [
        om.node("Sine", ["x"], "a"),
        om.node("com.microsoft.Nothing", ["a"], "b", name="n"),
        om.node("x.y.Foo", ["b"], "y"),
    ]
    graph = om.model(nodes, {"x": ("float32", (2,))}, ["y"])
    words = [
        "node 'a' is a Sine",
        "operator set 21 has none",
        "'n' is a com.microsoft.Nothing",
        "supported are QGemm",
    ]
    with pytest.raises(ValueError):
        loaded(tmp_path, graph)
    del graph.graph.node[0]
    graph.graph.node[0].input[0] = "x"
    refused(
        tmp_path,
        graph,
        *words[2:3],
        "of com.microsoft, supported are",
        "nothing is known of the domain x.y",
        "make_function",
    )


def test_sparse_initializers_are_refused(tmp_path: Path) -> None:
    graph = om.model([om.node("Add", ["x", "s"], "y")], {"x": ("float32", (4,))}, ["y"])
    values = onnx.helper.make_tensor("s", onnx.TensorProto.FLOAT, (1,), [1.0])
    places = onnx.helper.make_tensor("s places", onnx.TensorProto.INT64, (1,), [2])
    graph.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, places, (4,)))
    refused(tmp_path, graph, "sparse initializer 's'")


def test_initializers_among_the_inputs_are_constants(tmp_path: Path) -> None:
    """As files before IR version 4 had them."""
    graph = om.model(
        [om.node("Add", ["x", "c"], "y")],
        {"c": ("float32", (3,)), "x": ("float32", (2, 3))},
        ["y"],
        {"c": F([1, 2, 3])},
    )
    graph.ir_version = 3
    model = compared(tmp_path, graph, {"x": X})
    assert list(model.inputs) == ["x"]


# The layer by itself


def cumsum(**changes: Any) -> OnnxNode:
    proto = onnx.helper.make_node("CumSum", ["x", "axis"], ["y"])
    fields = {
        "operator": "CumSum",
        "node": np.frombuffer(proto.SerializeToString(), np.uint8),
        "reads": ("x", "axis"),
        "read_dtypes": ("float32", "int64"),
        "write_dtypes": ("float32",),
        "opsets": (("", 21),),
    }
    return OnnxNode(**(fields | changes))


def test_a_layer_made_by_hand() -> None:
    model = Model(
        [Node(cumsum(), ("x", "axis"), ("y",))],
        inputs={"x": ((None, 3), "float32")},
        constants={"axis": np.array(1)},
    )
    np.testing.assert_array_equal(systolic.run(model, X).outputs["y"], np.cumsum(X, axis=1))
    assert cumsum().output_shape((2, 3), ()) == ((2, 3),)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"node": np.zeros(3)}, TypeError, "bytes as uint8"),
        ({"operator": ""}, TypeError, "a name"),
        ({"reads": "x"}, TypeError, "a sequence of str"),
        ({"reads": ("x",)}, ValueError, "equally many"),
        ({"write_dtypes": ()}, ValueError, "at least one type"),
    ],
)
def test_bad_layers(changes: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        cumsum(**changes)


def test_bad_bytes_and_inputs() -> None:
    with pytest.raises(ValueError, match="no node of an ONNX model"):
        cumsum(node=np.full(9, 255, np.uint8)).apply(X, np.array(0))
    with pytest.raises(TypeError, match="takes float32 and int64, not float64 and int64"):
        cumsum().apply(X.astype(np.float64), np.array(0))
    with pytest.raises(TypeError, match="takes 2 inputs, not 1"):
        cumsum().apply(X)
    proto = onnx.helper.make_node("Foo", ["x", "axis"], ["y"])
    with pytest.raises(ValueError, match="onnx cannot evaluate Foo|Foo.*is not used"):
        cumsum(node=np.frombuffer(proto.SerializeToString(), np.uint8)).apply(X, np.array(0))


def test_external_files_are_not_read(tmp_path: Path) -> None:
    """A node's tensor that names a file would make the evaluator open it."""
    tensor = onnx.TensorProto(name="t", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    inner = onnx.helper.make_graph([onnx.helper.make_node("Constant", [], ["c"], value=tensor)], "g", [], [])
    node = onnx.helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    with pytest.raises(ValueError, match="external file"):
        parse(node.SerializeToString())


def test_shapes_that_onnx_cannot_tell_are_unknown() -> None:
    proto = onnx.helper.make_node("NonZero", ["x"], ["y"])
    layer = OnnxNode(
        "NonZero",
        np.frombuffer(proto.SerializeToString(), np.uint8),
        ("x",),
        ("float32",),
        ("int64",),
        (("", 21),),
    )
    with pytest.raises(UnknownShape):
        layer.output_shape((2, 3))


@pytest.mark.slow
def test_without_onnx_the_error_names_the_extra() -> None:
    code = """
import sys
sys.modules["onnx"] = None
import numpy as np, systolic
layer = systolic.layers.OnnxNode("A", np.zeros(1, np.uint8), ("x",), ("int8",), ("int8",), (("", 21),))
try:
    layer.apply(np.int8([1]))
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "systolic[onnx]"' in done.stdout


# Sizes of one name


def joined() -> Any:
    inputs = {"a": ("float32", ("n", "length")), "b": ("float32", ("n", 2, "length"))}
    nodes = [om.node("Unsqueeze", ["a", "one"], "c"), om.node("Concat", ["c", "b"], "y", axis=1)]
    return om.model(nodes, inputs, ["y"], {"one": i64(1)})


def test_sizes_of_one_name_must_be_equal(tmp_path: Path) -> None:
    model = loaded(tmp_path, joined())
    assert model.inputs["b"] == TensorSpec((None, 2, None), "float32", ("n", None, "length"))
    run = systolic.run(model, {"a": np.ones((4, 5), F), "b": np.ones((4, 2, 5), F)})
    assert run.outputs["y"].shape == (4, 3, 5)
    words = r"input 'a' axis 1 and input 'b' axis 2 must be of one size, 'length', not 5 and 6"
    with pytest.raises(ValueError, match=words):
        systolic.run(model, {"a": np.ones((4, 5), F), "b": np.ones((4, 2, 6), F)})


def test_sizes_of_one_name_are_bound_together(tmp_path: Path) -> None:
    model = loaded(tmp_path, joined())
    assert model.input_shapes(shapes={"a": (4, 5)}) == {"a": (4, 5), "b": (4, 2, 5)}
    assert model.input_shapes(shapes={"b": (4, 2, 5)}) == {"a": (4, 5), "b": (4, 2, 5)}
    with pytest.raises(ValueError, match="'n', not 4 and 3"):
        model.input_shapes(shapes={"a": (4, 5), "b": (3, 2, 5)})
    with pytest.raises(ValueError, match="sizes beyond the batch must be given"):
        model.input_shapes(3)
    model.save(tmp_path / "model.zip")
    assert Model.load(tmp_path / "model.zip") == model


def test_one_input_with_a_size_twice() -> None:
    spec = TensorSpec((None, None, 3), "int8", ("n", "n", None))
    model = Model([systolic.layers.Relu()], inputs={"x": spec})
    assert systolic.run(model, np.zeros((2, 2, 3), np.int8)).outputs["t0"].shape == (2, 2, 3)
    with pytest.raises(
        ValueError, match="input 'x' axis 0 and input 'x' axis 1 must be of one size, 'n', not 2 and 4"
    ):
        systolic.run(model, np.zeros((2, 4, 3), np.int8))


def test_names_of_sizes() -> None:
    assert TensorSpec((None, 2), "int8", (None, None)) == TensorSpec((None, 2), "int8")
    with pytest.raises(ValueError, match="one per axis"):
        TensorSpec((None, 2), "int8", ("n",))
    with pytest.raises(ValueError, match="sizes that are None, not str 'n' for 2"):
        TensorSpec((None, 2), "int8", (None, "n"))


def test_placeholders_are_no_names(tmp_path: Path) -> None:
    graph = om.model(
        [om.node("Add", ["a", "b"], "y")], {"a": ("int8", ("?", 2)), "b": ("int8", ("?", 1))}, ["y"]
    )
    model = loaded(tmp_path, graph)
    assert model.inputs["a"].symbols == ()
    assert systolic.run(model, {"a": np.int8([[1, 2]] * 2), "b": np.int8([[3]])}).outputs["y"].shape == (2, 2)
