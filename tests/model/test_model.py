"""``Model``: building, tracing, saving and loading."""

from __future__ import annotations

import copy
import json
import os
import pickle
import re
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import systolic
from support.layer_examples import EXAMPLES
from support.strategies import codes, raises
from support.toy_layers import TOYS, Halves, Join, Measure, Nonzero, Resized
from support.zoo import ONE, U8, dense, zoo, zoo_inputs
from systolic import ArrayConfig, Gemm, Model, Node, QuantParams, TensorSpec, _renamed, estimate, layers, run
from systolic.layers import Binary, Conv2d, Dense, QLinearAdd, Relu
from systolic.model import LAYERS

SPEC = {"x": ((None, 4), "int8")}
ARRAY = ArrayConfig(256, 256)


def test_the_zoo_is_complete() -> None:
    held = [node.layer for node in zoo().nodes] + EXAMPLES
    assert {type(layer).__name__ for layer in held} == set(LAYERS)
    assert set(LAYERS) <= set(layers.__all__)


# Nodes by name


def test_nodes_by_name() -> None:
    model = zoo()
    assert list(model) == list(model.nodes)
    assert all(model[node.name] is node and node.name in model and node in model for node in model)
    two = Model([Node(Relu(), ("x",), "a", "Conv1"), Node(Relu(), ("a",), "b", "same"), Node(Relu(), ("b",), "c", "same")],
                inputs=SPEC)  # fmt: skip
    assert "conv9" not in two and Node(Relu(), ("x",), "z") not in two
    with pytest.raises(KeyError, match="model 'model' has no node 'conv'; did you mean 'Conv1'?"):
        two["conv"]
    with pytest.raises(KeyError, match="model 'model' has 2 nodes 'same'; take them from .nodes"):
        two["same"]


# Building


def test_layers_are_named_and_chained() -> None:
    model = Model([dense(4, 5), Relu(), Node(Relu(), ("t0",), "other"), Relu()], inputs=SPEC)
    assert [(n.inputs, n.output, n.name) for n in model.nodes] == [
        (("x",), "t0", "t0"),
        (("t0",), "t1", "t1"),
        (("t0",), "other", "other"),
        (("other",), "t3", "t3"),
    ]
    assert model.outputs == ("t3",)
    assert model.inputs == {"x": TensorSpec((None, 4), "int8")}
    assert repr(model) == "<Model 'model': 4 layers, x (?, 4) int8 -> t3>"


def test_names_of_nodes() -> None:
    assert Node(Relu(), ("a",), "b").name == "b"
    assert Node(Relu(), ("a",), "b", "activation").name == "activation"
    assert Node(Relu(), ["a"], "b").inputs == ("a",)  # type: ignore[arg-type]


def test_a_model_without_layers_gives_its_input() -> None:
    model = Model([], inputs=SPEC)
    x = codes(np.random.default_rng(0), (2, 4), "int8")
    result = run(model, x)
    np.testing.assert_array_equal(result.outputs["x"], x)
    assert result.stats == systolic.Stats()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: Model([Relu()], inputs={}),
            ValueError,
            'inputs must name at least one tensor, such as {"x": ((None, 4), "int8")}',
        ),
        (
            lambda: Model([Relu()], inputs="x"),
            ValueError,
            'inputs must name at least one tensor, such as {"x": ((None, 4), "int8")}',
        ),
        (
            lambda: Model([Node(Relu(), ("z",), "y")], inputs=SPEC),
            ValueError,
            "'y' reads 'z', which nothing before it writes",
        ),
        (
            lambda: Model([Node(Relu(), ("y",), "y")], inputs=SPEC),
            ValueError,
            "'y' reads 'y', which nothing before it writes",
        ),
        (
            lambda: Model([Node(Relu(), ("x",), "y"), Node(Relu(), ("x",), "y", "again")], inputs=SPEC),
            ValueError,
            "'again' writes 'y', which is there already",
        ),
        (
            lambda: Model([Node(Relu(), ("x",), "x")], inputs=SPEC),
            ValueError,
            "'x' writes 'x', which is there already",
        ),
        (
            lambda: Model([Relu()], inputs=SPEC, outputs=["z"]),
            ValueError,
            "output 'z' is not a tensor of the model",
        ),
        (
            lambda: Model([Relu()], inputs=SPEC, constants={"x": np.zeros(3)}),
            ValueError,
            "inputs and constants must have different names",
        ),
        (lambda: Model(["relu"], inputs=SPEC), TypeError, "a node holds a Layer, not str"),
        (lambda: Node(Relu, ("x",), "y"), TypeError, "a node holds a Layer, not type"),
        (lambda: Node(Relu(), ("x", "z"), "y"), ValueError, "Relu reads 1 tensors, but 'y' names 2: x, z"),
        (
            lambda: Node(QLinearAdd(a=ONE, b=ONE, y=ONE), (), "y"),
            ValueError,
            "QLinearAdd reads 2 tensors, but 'y' names 0: none",
        ),
        (
            lambda: TensorSpec((None, 4), "int4"),
            ValueError,
            "dtype must be one of 'float32', 'float64', 'float16', 'bool', 'int8', 'uint8', 'int16', 'uint16', "
            "'int32', 'uint32', 'int64', 'uint64', not 'int4'",
        ),
        (
            lambda: TensorSpec((4, "width"), "int8"),
            TypeError,
            "size 1 of the input must be an integer, not str 'width'",
        ),
        (
            lambda: Model([Relu()], inputs=SPEC, constants={"c": np.zeros(2, "complex64")}),
            TypeError,
            "constant 'c' must hold one of float32, float64, float16, bool, int8, uint8, int16, uint16, int32, "
            "uint32, int64, uint64, not complex64",
        ),
        (
            lambda: Node(Relu(), ("x",), ("y", "z")),
            ValueError,
            "Relu writes 1 tensors, but 'y' names 2: y, z",
        ),
        (lambda: Node(Relu(), ("x",), ""), ValueError, "Relu '' names no output"),
        (
            lambda: Node(Halves(), ("x",), "y", "split"),
            ValueError,
            "Halves writes 2 tensors, but 'split' names 1: y",
        ),
        (lambda: Node(Halves(), ("x",), ("", "")), ValueError, "Halves '' names no output"),
        (
            lambda: Node(Join(), (), "y"),
            ValueError,
            "Join reads at least 1 tensors, but 'y' names 0: none",
        ),
        (
            lambda: Model([Node(Halves(), ("x",), ("a", "a"))], inputs=SPEC),
            ValueError,
            "'a' writes 'a', which is there already",
        ),
        (
            lambda: TensorSpec((-1, 4), "int8"),
            ValueError,
            "size 0 of the input must be a non-negative integer, not -1",
        ),
    ],
)
def test_models_reject_what_does_not_fit(make, error: type[Exception], message: str) -> None:
    with raises(error, message):
        make()


def test_one_name_is_not_a_sequence_of_letters() -> None:
    assert Model([Relu()], inputs=SPEC, outputs="t0").outputs == ("t0",)
    assert Node(Relu(), "data", "y").inputs == ("data",)  # type: ignore[arg-type]


# Tracing


def test_trace() -> None:
    model = zoo()
    shapes = model.infer_shapes({"image": (2, 1, 9, 8), "second": (2,)})
    result = {}
    run(
        model,
        zoo_inputs(),
        mode="wavefront",
        observe=lambda n, i, o: result.update({n.output: (o.shape, o.dtype.name)}),
    )
    assert {name: shapes[name] for name in result} == result and len(result) == len(model.nodes)
    assert shapes["image"] == ((2, 1, 9, 8), "float32") and shapes["offset"] == ((8, 1, 1), "uint8")
    assert model.input_shapes(5) == {"image": (5, 1, 9, 8), "second": (2,)}


def test_trace_names_the_node() -> None:
    model = Model(
        [Relu(), Node(dense(4, 3), ("t0",), "y", "first"), Node(dense(4, 3), ("y",), "z")], inputs=SPEC
    )
    with raises(ValueError, "node 'z': QLinearMatMul takes inputs (..., 4), as its weight has 4 rows, not (1, 3); w.T fits"):
        model.infer_shapes({"x": (1, 4)})
    model = Model([Node(dense(4, 3, x=U8), ("x",), "y", "first")], inputs=SPEC)
    with raises(TypeError, "node 'first': QLinearMatMul takes uint8, as its x says, not int8"):
        model.infer_shapes({"x": (1, 4)})


def test_trace_names_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the message itself does not, as those about windows."""
    weight = np.ones((1, 1, 5, 5), np.int8)
    conv = Conv2d(weight, x=QuantParams(0.5), w=QuantParams(0.5), y=QuantParams(0.5))
    model = Model([Node(conv, "x", "y", "wide")], inputs={"x": ((1, 1, 3, 9), "int8")})
    with pytest.raises(ValueError, match=r"^node 'wide' \(QLinearConv\): the kernel spans 5 pixels of the height"):
        model.infer_shapes({"x": (1, 1, 3, 9)})

    def large(self: Relu, *shapes: tuple[int, ...]) -> tuple[int, ...]:
        raise MemoryError("9 GiB")

    monkeypatch.setattr(Relu, "output_shape", large)
    with pytest.raises(MemoryError, match=r"^node 't0' \(Relu\): 9 GiB"):
        Model([Relu()], inputs=SPEC).infer_shapes({"x": (1, 4)})


def halves_model() -> Model:
    """Several outputs, one of them unused, and any number of inputs."""
    nodes = [
        Node(Halves(), "x", ("left", "right"), "split"),
        Node(Halves(), "left", ("", "second")),
        Node(Join(), ("second", "right", "left"), "joined"),
    ]
    return Model(nodes, inputs={"x": ((None, 8), "int8")}, outputs=["joined", "right"])


def test_nodes_with_several_outputs() -> None:
    split, second, joined = halves_model().nodes
    assert (split.output, split.outputs, split.name) == ("left", ("left", "right"), "split")
    assert (second.output, second.outputs, second.name) == ("second", ("", "second"), "second")
    assert second.named((1, 2)) == {"second": 2} and joined.named(3) == {"joined": 3}
    with pytest.raises(ValueError):
        split.named((1,))


def test_layers_with_several_outputs_run() -> None:
    model = halves_model()
    x = codes(np.random.default_rng(0), (3, 8), "int8")
    seen = {}
    result = run(model, x, observe=lambda n, i, o: seen.update(n.named(o)))
    np.testing.assert_array_equal(result.outputs["joined"], np.hstack([x[:, 2:4], x[:, 4:], x[:, :4]]))
    np.testing.assert_array_equal(result.outputs["right"], x[:, 4:])
    known = model.infer_shapes(model.input_shapes(3))
    assert {name: known[name] for name in seen} == {n: (a.shape, a.dtype.name) for n, a in seen.items()}
    assert set(seen) == {"left", "right", "second", "joined"}
    assert [row.shape for row in result.layers] == [(3, 4), (3, 2), (3, 10)]
    assert "1x4, 1x4" in str(model.table())


def test_layers_with_several_outputs_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for toy in TOYS:
        monkeypatch.setitem(LAYERS, toy.__name__, toy)
    model = halves_model()
    model.save(tmp_path / "m")
    assert Model.load(tmp_path / "m") == model
    assert pickle.loads(pickle.dumps(model)) == model


def test_files_of_version_1_are_read(tmp_path: Path) -> None:
    def older(content) -> None:
        content["version"] = 1
        for node in content["nodes"]:
            (node["output"],) = node.pop("outputs")

    rewritten(tmp_path / "m", older)
    assert Model.load(tmp_path / "m") == zoo()


@pytest.mark.parametrize("old", ["Bounded", "Relu"])  # "Relu": a name that a later layer has too
def test_layers_with_an_old_name_and_fields_are_read(tmp_path: Path, old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = "Clip", lambda bounds: {"low": bounds[0], "high": bounds[1]}
    monkeypatch.setitem(_renamed.LAYERS, old, entry)

    def older(content) -> None:
        content["version"] = 2
        last = content["nodes"][-1]
        content["nodes"] = [last | {"layer": old, "inputs": ["x"], "fields": {"bounds": [-1.0, 2.0]}}]
        content.update(inputs={"x": {"shape": [3], "dtype": "float32"}}, outputs=last["outputs"], constants={})

    rewritten(tmp_path / "m", older)
    assert Model.load(tmp_path / "m").nodes[0].layer == layers.Clip(-1.0, 2.0)


def test_old_names_are_those_of_older_files_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_renamed.LAYERS, "Relu", ("Identity", lambda: {}))
    model = Model([Relu()], inputs=SPEC)
    model.save(tmp_path / "m")
    assert Model.load(tmp_path / "m") == model


@pytest.mark.parametrize("layer", [*(node.layer for node in zoo().nodes), *EXAMPLES], ids=repr)
def test_examples_of_layers_come_back(tmp_path: Path, layer) -> None:
    count = 1 if layer.inputs is None else layer.inputs
    outputs = tuple(f"y{i}" for i in range(layer.outputs or 1))
    names = [f"x{i}" for i in range(count)]
    model = Model([Node(layer, names, outputs)], inputs=dict.fromkeys(names, ((1,), "int8")))
    model.save(tmp_path / "m")
    assert Model.load(tmp_path / "m") == model
    assert copy.deepcopy(model) == model


# Sizes known only at run time


def test_symbolic_sizes_are_bound_at_run_time() -> None:
    model = Model([Relu(), Node(dense(4, 3), ("t0",), "y")], inputs={"x": ((None, None, 4), "int8")})
    assert repr(model) == "<Model 'model': 2 layers, x (?, ?, 4) int8 -> y>"
    for shape in ((2, 3, 4), (1, 0, 4)):
        assert run(model, np.ones(shape, np.int8)).outputs["y"].shape == (*shape[:2], 3)
        assert estimate(model, machine=ARRAY, shapes={"x": shape}) == estimate(Gemm(shape[0] * shape[1], 4, 3))
    assert model.input_shapes(shapes={"x": [5, 6, 4]}) == {"x": (5, 6, 4)}
    assert "?" in str(model.table()) and "6 x 4 x 3" in str(model.table(shapes={"x": (2, 3, 4)}))
    with raises(ValueError, "input 'x' must have shape (?, ?, 4) (? is any size), not (2, 3, 5)"):
        run(model, np.ones((2, 3, 5), np.int8))
    with raises(
        ValueError,
        "input 'x' has the shape (?, ?, 4); sizes beyond the batch must be given, by an input array or as "
        "shapes={'x': (...)}",
    ):
        estimate(model)
    with raises(ValueError, "input 'x' must have shape (?, ?, 4) (? is any size), not (2, 4); x[None] fits, a batch of one"):
        model.input_shapes(shapes={"x": (2, 4)})
    with raises(ValueError, "shapes are for the inputs 'x', not 'z'"):
        model.input_shapes(shapes={"z": (2, 4)})


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"shapes": 5}, TypeError, "shapes must map inputs to shapes, {'x': (1, 4)}, not int 5"),
        ({"shapes": "x"}, TypeError, "shapes must map inputs to shapes, {'x': (1, 4)}, not str 'x'"),
        ({"shapes": {"x": 5}}, TypeError, "the shape of 'x' must be a tuple of sizes, not int 5"),
        ({"shapes": {"x": "24"}}, TypeError, "the shape of 'x' must be a tuple of sizes, not str '24'"),
        ({"shapes": {"x": (2.5, 4)}}, TypeError, "a size of 'x' must be an integer, not float 2.5"),
        ({"shapes": {"x": (-2, 4)}}, ValueError, "a size of 'x' must be a non-negative integer, not -2"),
        (
            {"shapes": {"x": (2**41, 4)}},
            ValueError,
            "a size of 'x' must be an integer of at most 1099511627776, not 2199023255552",
        ),
        ({"batch": -1}, ValueError, "batch must be a non-negative integer, not -1"),
        (
            {"batch": 2**70},
            ValueError,
            "batch must be an integer of at most 1099511627776, not 1180591620717411303424",
        ),
        ({"batch": True}, TypeError, "batch must be an integer, not True"),
    ],
)
@pytest.mark.parametrize(
    "call", [Model.input_shapes, Model.summary, Model.table, partial(estimate, machine=ARRAY)]
)
def test_shapes_that_are_no_shapes(call, given, error: type[Exception], message: str) -> None:
    model = Model([Relu()], inputs={"x": ((None, 4), "int8")})
    with raises(error, message):
        call(model, **given)
    most = {"batch": 2**40} if "batch" in given else {"shapes": {"x": (2**40, 4)}}
    call(model, **most)


def test_shapes_that_depend_on_values() -> None:
    nodes = [
        Node(Relu(), "x", "h"),
        Node(Nonzero(), "h", "found", "finder"),
        Node(dense(4, 3), "found", "y", "the product"),
        Node(dense(4, 2), "x", "z"),
    ]
    model = Model(nodes, inputs=SPEC, outputs=["y", "z"])
    known = model.infer_shapes({"x": (5, 4)})
    assert (
        known["h"] == ((5, 4), "int8") and known["found"] == (None, "int8") and known["y"] == (None, "int8")
    )
    assert known["z"] == ((5, 2), "int8")
    with raises(
        ValueError,
        "cannot estimate node 'the product' without data: the output shape of 'finder' (Nonzero) "
        "depends on runtime values; use run()",
    ):
        estimate(model, machine=ARRAY, batch=5)
    x = np.int8([[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1], [-1, -1, -1, -1]])
    seen: list[tuple[int, int]] = []
    result = run(model, x, machine=ARRAY, progress=lambda done, total: seen.append((done, total)))
    assert [row.gemm for row in result.layers] == [None, None, Gemm(2, 4, 3), Gemm(4, 4, 2)]
    assert all(done <= total for done, total in seen) and seen[-1] == (result.stats.cycles,) * 2
    assert "?" in str(model.table())
    # What reaches no product does not keep the cost from being known.
    ends = Model([*nodes[:2], nodes[3]], inputs=SPEC, outputs=["found", "z"])
    assert estimate(ends, machine=ARRAY, batch=5) == estimate(Gemm(5, 4, 2))


def test_values_that_follow_from_shapes_are_followed() -> None:
    nodes = [
        Node(Measure(), "x", "sizes"),
        Node(Relu(), "sizes", "same"),
        Node(Join(), ("same", "four"), "wanted"),
        Node(Resized(), ("x", "wanted"), "h"),
        Node(dense(4, 3), "h", "y"),
    ]
    inputs = {"x": ((None, 2, 2), "int8")}
    model = Model(nodes, inputs=inputs, constants={"four": np.int32([1])})
    shape = (6, 2, 2)
    upto = Model(nodes[:4], inputs=inputs, constants=model.constants)
    assert upto.infer_shapes({"x": shape})["h"] == ((6, 2, 2, 1), "int8")
    fits = Model([*nodes[:2], Node(Resized(), ("x", "same"), "h")], inputs=inputs)
    assert fits.infer_shapes({"x": shape})["h"] == (shape, "int8")
    with raises(
        ValueError, "node 'y': QLinearMatMul takes inputs (..., 4), as its weight has 4 rows, not (6, 2, 2, 1)"
    ):
        run(model, np.ones(shape, np.int8))
    unknown = Model([Node(Resized(), ("x", "wanted"), "h")], inputs={**inputs, "wanted": ((3,), "int32")})
    assert unknown.infer_shapes({"x": shape, "wanted": (3,)})["h"] == (None, "int8")
    sizes = np.int32([2, 3, 4])
    assert run(unknown, {"x": np.ones(shape, np.int8), "wanted": sizes}, machine=ARRAY).outputs["h"].shape == (2, 3, 4)


def test_trace_says_which_shape_is_missing() -> None:
    with pytest.raises(ValueError, match="'x'"):
        Model([Relu()], inputs=SPEC).infer_shapes({})


def test_the_old_name_of_shape_inference_warns() -> None:
    model = Model([Relu()], inputs=SPEC)
    with pytest.warns(DeprecationWarning, match=r"Model\.trace is now Model\.infer_shapes"):
        known = model.trace({"x": (1, 4)})
    assert known == model.infer_shapes({"x": (1, 4)})


def test_table() -> None:
    text = str(zoo().table(batch=3))
    assert "zoo, Ж" in text and "addition" in text and "60 x 9 x 4" in text and "3x2x3" in text
    assert "<table" in zoo()._repr_html_()


# Saving and loading


def same_results(one: Model, other: Model) -> None:
    a, b = (run(model, zoo_inputs(), mode="wavefront").outputs for model in (one, other))
    assert list(a) == list(b)
    for name, value in a.items():
        assert value.dtype == b[name].dtype
        np.testing.assert_array_equal(value, b[name])


def test_every_kind_of_layer_comes_back(tmp_path: Path) -> None:
    model = zoo()
    model.save(tmp_path / "zoo.model")
    loaded = Model.load(tmp_path / "zoo.model")
    assert loaded == model and loaded is not model
    assert (
        loaded.name == "zoo, Ж"
        and loaded.outputs == model.outputs
        and list(loaded.inputs) == list(model.inputs)
    )
    assert [n.name for n in loaded.nodes] == [n.name for n in model.nodes]
    for a, b in zip(loaded.nodes, model.nodes, strict=True):
        assert type(a.layer) is type(b.layer) and repr(a.layer) == repr(b.layer) and a == b
    same_results(loaded, model)
    loaded.save(str(tmp_path / "again.model"))
    assert (tmp_path / "again.model").read_bytes() == (tmp_path / "zoo.model").read_bytes()


def test_models_pickle_and_copy() -> None:
    for other in (pickle.loads(pickle.dumps(zoo())), copy.deepcopy(zoo())):
        assert other == zoo()
        same_results(other, zoo())


def test_equality_sees_every_part() -> None:
    def model(**changes) -> Model:
        options = {
            "inputs": SPEC,
            "constants": {"c": np.zeros(2, np.int8)},
            "name": "m",
            "outputs": ["t0", "x"],
        }
        return Model([Relu()], **(options | changes))

    assert model() == model()
    for changes in (
        {"inputs": {"x": ((1, 4), "int8")}},
        {"constants": {"c": np.ones(2, np.int8)}},
        {"name": "n"},
        {"constants": {"c": np.zeros(2, np.uint8)}},
        {"constants": {"d": np.zeros(2, np.int8)}},
        {"constants": {}},
        {"outputs": ["x", "t0"]},
    ):
        assert model(**changes) != model(), changes
    assert model() != Model(
        [Relu(1)], inputs=SPEC, constants={"c": np.zeros(2, np.int8)}, name="m", outputs=["t0", "x"]
    )
    assert model() != "model"


def test_equal_models_make_equal_files(tmp_path: Path) -> None:
    for name in "ab":
        zoo().save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_equal_models_make_equal_files_whatever_the_memory_order(tmp_path: Path) -> None:
    grid = np.arange(6, dtype=np.int8).reshape(2, 3)
    models = [Model([Relu()], inputs=SPEC, constants={"c": c}) for c in (grid, np.asfortranarray(grid))]
    for name, model in zip("ab", models, strict=True):
        model.save(tmp_path / name)
    assert models[0] == models[1]
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_constants_do_not_follow_the_callers_array() -> None:
    constant = np.zeros(3, np.int8)
    model = Model([Relu()], inputs=SPEC, constants={"c": constant})
    constant[0] = 5
    assert not model.constants["c"].any()


def test_constants_with_nan_compare_equal(tmp_path: Path) -> None:
    model = Model([Relu()], inputs=SPEC, constants={"c": np.array([np.nan], np.float32)})
    model.save(tmp_path / "m")
    assert Model.load(tmp_path / "m") == model


def test_saving_follows_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        zoo().save(tmp_path / "m")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(old)
    if os.name == "posix":
        assert (tmp_path / "m").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("exists", [True, False])
def test_a_failing_save_leaves_things_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, exists: bool
) -> None:
    target = tmp_path / "m"
    if exists:
        Model([Relu()], inputs=SPEC).save(target)
    before = target.read_bytes() if exists else None
    calls = 0

    def failing(*arguments, **options) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise error

    monkeypatch.setattr(np.lib.format, "write_array", failing)
    with pytest.raises(type(error)):
        zoo().save(target)
    assert calls == 3
    assert os.listdir(tmp_path) == (["m"] if exists else [])
    assert not exists or target.read_bytes() == before


def test_saving_where_it_cannot_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        zoo().save(tmp_path / "no" / "m")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    with pytest.raises(OSError):
        zoo().save(tmp_path / "folder")
    assert os.listdir(tmp_path) == ["folder"]


NOT_A_MODEL = "is not a systolic model, or is damaged"


def rewritten(path: Path, change) -> None:
    """Save the zoo with its model.json changed."""
    zoo().save(path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    content = json.loads(entries["model.json"])
    content = change(content) or content
    entries["model.json"] = json.dumps(content).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Model.load(tmp_path / "m")


@pytest.mark.parametrize("data", [b"", b"hello, world\n" * 100, b"PK\x03\x04", b"\x00" * 1000])
def test_other_files_are_rejected(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"m {NOT_A_MODEL}.*load_onnx reads ONNX"):
        Model.load(path)


def test_other_zips_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "m"
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(3))
    with pytest.raises(ValueError, match=NOT_A_MODEL):
        Model.load(path)


@pytest.mark.parametrize("version", [4, 99])
def test_later_versions_are_rejected(tmp_path: Path, version: int) -> None:
    path = tmp_path / "m"
    rewritten(path, lambda content: content.update(version=version, nodes="unheard of"))
    with raises(
        ValueError, f"{path} is of version {version}; this systolic reads up to 3: install a newer one"
    ):
        Model.load(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(format="other"),
        lambda c: c.pop("format"),
        lambda c: c.pop("version"),
        lambda c: c.update(version="1"),
        lambda c: c.pop("nodes"),
        lambda c: c["nodes"][0].update(layer="Unheard"),
        lambda c: c["nodes"][0].update(layer=["Relu"]),
        lambda c: c["nodes"][0]["fields"].update(extra=1),
        lambda c: c["nodes"][1]["fields"].update(weight={"array": "99.npy"}),
        lambda c: c["nodes"][1]["fields"].update(weight=3),
        lambda c: c["nodes"][1]["fields"].update(x={"quant": {}}),
        lambda c: c["nodes"][1]["fields"].update(x={"quant": 1}),
        lambda c: c["nodes"][1].update(inputs=["nowhere"]),
        lambda c: c["nodes"][1].update(inputs=None),
        lambda c: c.update(nodes=5),
        lambda c: c.update(outputs=["nowhere"]),
        lambda c: c.update(outputs=3),
        lambda c: c.update(inputs={}),
        lambda c: c["inputs"]["image"].update(dtype="float8"),
        lambda c: c["nodes"][1].update(outputs=["a", "b"]),
        lambda c: c["inputs"]["image"].update(shape=None),
        lambda c: c.update(constants={"offset": {"array": "model.json"}}),
        lambda c: [c],
        lambda c: "text",
    ],
)
def test_damaged_contents_are_rejected(tmp_path: Path, change) -> None:
    path = tmp_path / "m"
    rewritten(path, change)
    with pytest.raises(ValueError):
        Model.load(path)


def test_pickled_arrays_are_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "m"
    zoo().save(path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with (tmp_path / "pickled.npy").open("wb") as file:
        np.save(file, np.array([print], dtype=object), allow_pickle=True)
    entries["0.npy"] = (tmp_path / "pickled.npy").read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    with pytest.raises(ValueError):
        Model.load(path)


def entries_of(path: Path) -> dict[str, bytes]:
    zoo().save(path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


HEADER = "{'descr': '|i1', 'fortran_order': False, 'shape': %s}"


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (npy(HEADER % "(4,)", bytes(3)), "is of shape (4,), 4 bytes, but holds 3"),
        (npy(HEADER % "(4,)", bytes(5)), "is of shape (4,), 4 bytes, but holds 5"),
        (npy(HEADER % "(1 << 40,)"), "ValueError"),
        (npy(HEADER % f"({2**40},)"), "1,099,511,627,776 bytes, but holds 0"),
        (npy(HEADER % "(-1, -3)", bytes(3)), "but holds 3"),
        (npy(HEADER % f"({2**70}, 0)"), "OverflowError"),
        (npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", bytes(8)), "ValueError"),
        (npy("{'descr': '|V0', 'fortran_order': False, 'shape': (1,)}"), "Error"),
        (npy("{'descr': '|i1', 'fortran_order': False, 'shape': (1,)", bytes(1)), "Error"),
        (npy("[" * 500), "Error"),
        (npy("'" * 3), "Error"),
        (npy("a b c"), "Error"),
        (b"\x93NUMPY\x03\x00" + npy(HEADER % "(4,)", bytes(4))[8:], "Error"),
        (b"\x93NUMPY", "Error"),
        (b"", "Error"),
    ],
)
def test_damaged_arrays_are_rejected(tmp_path: Path, array: bytes, words: str) -> None:
    entries = entries_of(tmp_path / "m")
    entries["0.npy"] = array
    with zipfile.ZipFile(tmp_path / "m", "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    with pytest.raises(
        ValueError, match=f"m {NOT_A_MODEL}.*{re.escape(words)}.*load_onnx reads ONNX"
    ) as caught:
        Model.load(tmp_path / "m")
    assert type(caught.value) is ValueError


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_other_compression_is_rejected(tmp_path: Path, method: int) -> None:
    entries = entries_of(tmp_path / "m")
    with zipfile.ZipFile(tmp_path / "m", "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    with pytest.raises(
        ValueError, match=f"{NOT_A_MODEL}.*compressed by method {method}, which Model.save does not"
    ):
        Model.load(tmp_path / "m")


def test_an_array_is_not_used_twice(tmp_path: Path) -> None:
    """A small file would fill the memory with copies of one entry."""
    rewritten(tmp_path / "m", lambda c: c.update(constants={f"c{i}": {"array": "0.npy"} for i in range(9)}))
    with pytest.raises(ValueError, match=f"{NOT_A_MODEL}.*its entry '0.npy' is used twice"):
        Model.load(tmp_path / "m")


@pytest.mark.slow
def test_entries_on_top_of_each_other_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "m"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.npy", bytes(2**26))
        only = archive.getinfo("0.npy")
        for number in range(1, 500):
            copy = zipfile.ZipInfo(f"{number}.npy")
            for field in ("header_offset", "compress_size", "file_size", "CRC", "compress_type"):
                setattr(copy, field, getattr(only, field))
            archive.filelist.append(copy)
    assert path.stat().st_size < 103_000
    with pytest.raises(ValueError, match=f"{NOT_A_MODEL}.*its entries overlap: they are longer than its"):
        Model.load(path)


@pytest.mark.slow
def test_more_than_the_memory_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "m", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.json", bytes(2**27))
    monkeypatch.setattr("systolic._memory.available_bytes", lambda: 2**26)
    with pytest.raises(MemoryError, match="m: what it holds takes 134,217,728 bytes"):
        Model.load(tmp_path / "m")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"format": NaN}', "1" * 5000, '{"format": "systolic.Model"', ""]
)
def test_damaged_json_is_rejected(tmp_path: Path, text: str) -> None:
    with zipfile.ZipFile(tmp_path / "m", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.json", text)
    with pytest.raises(ValueError, match=NOT_A_MODEL):
        Model.load(tmp_path / "m")


def test_folders_and_pipes_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder; Model.load reads what Model.save wrote"):
        Model.load(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ValueError, match="pipe is not a plain file; Model.load reads"):
            Model.load(tmp_path / "pipe")


def load_or_value_error(path: Path, data: bytes) -> str | None:
    """Load a file of these bytes; what else than a model or a ValueError came, if anything."""
    path.write_bytes(data)
    try:
        model = Model.load(path)
    except ValueError as error:
        return None if type(error) is ValueError and str(path) in str(error) else repr(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None if model == zoo() else "another model"


def test_truncated_files_are_rejected(tmp_path: Path) -> None:
    zoo().save(tmp_path / "whole")
    data = (tmp_path / "whole").read_bytes()
    for length in range(0, len(data), 37):
        assert load_or_value_error(tmp_path / "m", data[:length]) is None, length
        with pytest.raises(ValueError):
            Model.load(tmp_path / "m")


@pytest.mark.slow
@pytest.mark.exhaustive
def test_flipped_bits_are_rejected_or_harmless(tmp_path: Path) -> None:
    zoo().save(tmp_path / "whole")
    data = (tmp_path / "whole").read_bytes()
    rng = np.random.default_rng(0)
    wrong = {}
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 1 << int(rng.integers(8))
        result = load_or_value_error(tmp_path / "m", bytes(damaged))
        if result is not None:
            wrong[at] = result
    assert not wrong, sorted(set(wrong.values()))


def test_shapes_are_worked_out_again_for_what_was_put_in_place_of_other() -> None:
    q = QuantParams(0.5)

    def dense(n: int) -> systolic.layers.QLinearMatMul:
        return Dense(np.ones((4, n), dtype=np.int8), x=q, w=q, y=q)

    model = Model([Node(dense(3), "x", "y"), Node(Binary("Add"), ("c", "c"), "d")], inputs={"x": ((None, 4), "int8")},
                  constants={"c": np.zeros(2, np.int32)}, outputs=["y", "d"])  # fmt: skip
    for batch in (1, 2, 1):
        known = model.infer_shapes({"x": (batch, 4)})
        assert (known["y"], known["d"]) == (((batch, 3), "int8"), ((2,), "int32"))
        known.clear()  # the caller's own
    known = model.infer_shapes({"x": (1, 4)})
    model.constants["c"].flags.writeable = True  # then its values, too, may change
    assert model.infer_shapes({"x": (1, 4)}) == known
    other = Model([Node(dense(5), "x", "y")], inputs={"x": ((None, 4), "int8")})
    model.nodes = (*other.nodes, model.nodes[1])
    model.constants["c"] = np.zeros((6, 7), np.int32)
    known = model.infer_shapes({"x": (1, 4)})
    assert (known["y"], known["d"]) == (((1, 5), "int8"), ((6, 7), "int32"))


def test_constants_may_change_places() -> None:
    model = Model([Node(Binary("Add"), ("a", "a"), "y")], inputs={"x": ((1,), "int32")},
                  constants={"a": np.zeros(2, np.int32), "b": np.zeros(3, np.int32)})  # fmt: skip
    assert model.infer_shapes({"x": (1,)})["y"] == ((2,), "int32")
    model.constants = {"b": model.constants["a"], "a": model.constants["b"]}
    assert model.infer_shapes({"x": (1,)})["y"] == ((3,), "int32")
