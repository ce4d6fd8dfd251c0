"""Random inputs of a model: what its readers take, of the sizes asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import systolic
from systolic import Model, Node, layers
from systolic.layers import Cast, Relu
from systolic.verifier.inputs import random_inputs

F = np.float32


def drawn(nodes: list[Node], constants: dict[str, Any] | None = None, **inputs: Any) -> dict[str, np.ndarray]:
    """Draw inputs and run the model on them: it must take them."""
    model = Model(nodes, inputs=inputs, constants=constants)
    for seed in range(3):
        found = random_inputs(model, seed)
        systolic.run(model, found, mode="wavefront")
    return found


@pytest.mark.parametrize("dtype", ("int64", "int32"))
def test_indices_are_within_range(dtype: str) -> None:
    table = {"table": np.zeros((7, 3), F), "narrow": np.zeros((2, 4, 5), F)}
    ids = drawn(
        [
            Node(layers.Unsqueeze((0,)), "ids", "wide"),
            Node(layers.Reshape((-1,)), "wide", "flat"),
            Node(layers.Gather(0), ("table", "flat"), "y"),
            Node(layers.Gather(1), ("narrow", "ids"), "z"),
        ],
        table,
        ids=((40,), dtype),
    )["ids"]
    # The tightest of its readers: axis 1 of `narrow`.
    assert set(ids.tolist()) == {0, 1, 2, 3}
    through = drawn(
        [Node(Cast("int32"), "ids", "narrow_ids"), Node(layers.Gather(0), ("table", "narrow_ids"), "y")],
        table,
        ids=((40,), "int64"),
    )["ids"]
    assert set(through.tolist()) == set(range(7))


def test_masks_are_zeros_and_ones() -> None:
    nodes = [
        Node(Cast("float32"), "m", "real"),
        Node(layers.Binary("Sub"), ("one", "real"), "left"),
        Node(layers.Binary("Mul"), ("left", "far"), "y"),
    ]
    mask = drawn(nodes, {"one": F(1), "far": F(-1e4)}, m=((3, 20), "int64"))["m"]
    assert set(mask.ravel().tolist()) == {0, 1}
    mask = drawn([Node(Cast("bool"), "m", "y")], m=((3, 20), "int32"))["m"]
    assert set(mask.ravel().tolist()) == {0, 1}
    named = drawn([Node(Relu(), "pad_mask", "y")], pad_mask=((3, 20), "float32"))["pad_mask"]
    assert set(named.ravel().tolist()) == {0.0, 1.0} and (named[:, 0] == 1).all()
    told = drawn([Node(layers.Unary("Not"), "m", "y")], m=((3, 20), "bool"))["m"]
    assert told.dtype == bool and told.any() and not told.all()


def test_sizes_fit() -> None:
    same = drawn([Node(layers.Reshape(), ("x", "s"), "y")], x=((2, 6), "int8"), s=((2,), "int64"))
    assert same["s"].tolist() == [2, 6]
    flat = drawn([Node(layers.Reshape(), ("x", "s"), "y")], x=((2, 6), "int8"), s=((1,), "int64"))
    assert flat["s"].tolist() == [-1]
    drawn([Node(layers.Expand(), ("x", "s"), "y")], x=((2, 6), "int8"), s=((3,), "int64"))
    drawn([Node(layers.Fill(np.int8([1])), "s", "y")], s=((2,), "int64"))
    lists: dict[str, Any] = dict.fromkeys(("start", "end", "axes", "steps"), ((2,), "int64"))
    drawn([Node(layers.Slice(), ("x", *lists), "y")], x=((3, 6), "int8"), **lists)
    drawn([Node(layers.Pad(), ("x", "p"), "y")], x=((3, 6), "int8"), p=((4,), "int64"))
    drawn([Node(layers.Resize("sizes"), ("x", "s"), "y")], x=((3, 6), "int8"), s=((2,), "int64"))
    drawn([Node(layers.Resize(), ("x", "s"), "y")], x=((3, 6), "int8"), s=((2,), "float32"))


def test_a_rate_is_one_of_those_it_is_compared_with() -> None:
    nodes = [Node(layers.Binary("Equal"), ("rate", "known"), "y")]
    rate = drawn(nodes, {"known": np.int64([8000, 16000])}, rate=((2,), "int64"))["rate"]
    assert set(rate.tolist()) <= {8000, 16000}


def test_tokens_that_are_compared_with_padding_are_indices_all_the_same() -> None:
    nodes = [
        Node(layers.Binary("Equal"), ("ids", "padding"), "padded"),
        Node(layers.Gather(0), ("table", "ids"), "y"),
    ]
    ids = drawn(nodes, {"padding": np.int64(1), "table": np.zeros((7, 3), F)}, ids=((60,), "int64"))["ids"]
    assert set(ids.tolist()) == set(range(7))
    mask = drawn(nodes[:1], {"padding": np.int64(0)}, ids=((60,), "int64"))["ids"]
    assert set(mask.tolist()) == {0, 1}


def test_codes_take_all_values_and_wide_integers_few() -> None:
    codes = drawn([Node(Relu(), "x", "y")], x=((3000,), "uint8"))["x"]
    assert codes.min() == 0 and codes.max() == 255
    wide = drawn([Node(layers.Binary("Mul"), ("x", "x"), "y")], x=((3000,), "int64"))["x"]
    assert wide.min() >= -100 and wide.max() <= 100 and wide.min() < 0
    real = drawn([Node(layers.Unary("Abs"), "x", "y")], x=((3000,), "float16"))["x"]
    assert real.dtype == np.float16 and 0.9 < real.std() < 1.1


def test_shapes_and_batch() -> None:
    inputs: Any = {"x": ((None, None, 3), "float32"), "y": ((None, 4), "int8")}
    model = Model([Node(Relu(), "x", "a"), Node(Relu(), "y", "b")], inputs=inputs, outputs=["a", "b"])
    found = random_inputs(model, 0, 5, {"x": (1, 7, 3)})
    assert found["x"].shape == (1, 7, 3) and found["y"].shape == (5, 4)
    with pytest.raises(ValueError, match=r"as shapes=\{'x': \(...\)\}, or in the shell by --shape x=..."):
        random_inputs(model, 0)
    report = systolic.verify(model, batch=1, shapes={"x": (1, 7, 3)}, mode="wavefront")
    assert report.passed
    with pytest.raises(ValueError, match="batch and shapes are of random inputs"):
        systolic.verify(model, found, batch=1)
    with pytest.raises(ValueError, match="batch says how a model is run"):
        systolic.verify(cases=1, batch=1)


# Operators of the standard, by what each asks of each of its inputs


def test_operators_left_to_others(tmp_path: Path) -> None:
    om = pytest.importorskip("support.onnx_models")
    node = om.node
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(F)

    x: Any = ("float32", (2, 5))
    cases: list[tuple[Any, dict[str, Any], dict[str, Any]]] = [
        (node("GatherElements", ["t", "i"], "y", axis=1), {"i": ("int64", (2, 9))}, {"t": normal(2, 3)}),
        (node("GatherND", ["t", "i"], "y"), {"i": ("int64", (4, 2))}, {"t": normal(3, 2)}),
        (
            node("GatherND", ["t", "i"], "y", batch_dims=1),
            {"i": ("int64", (3, 1))},
            {"t": normal(3, 2)},
        ),
        (
            node("ScatterND", ["t", "i", "u"], "y"),
            {"i": ("int64", (4, 1))},
            {"t": normal(3, 2), "u": normal(4, 2)},
        ),
        (
            node("ScatterElements", ["t", "i", "u"], "y"),
            {"i": ("int64", (1, 2))},
            {"t": normal(3, 2), "u": normal(1, 2)},
        ),
        (
            node("OneHot", ["i", "d", "v"], "y"),
            {"i": ("int64", (9,)), "d": ("int64", ())},
            {"v": F([0, 1])},
        ),
        (node("Tile", ["x", "r"], "y"), {"x": x, "r": ("int64", (2,))}, {}),
        (node("TopK", ["x", "k"], ["y", "z"]), {"x": x, "k": ("int64", (1,))}, {}),
        (
            node("Range", ["a", "b", "c"], "y"),
            {"a": ("int64", ()), "b": ("int64", ()), "c": ("int64", ())},
            {},
        ),
        (node("CumSum", ["x", "a"], "y"), {"x": x, "a": ("int64", ())}, {}),
        (
            node("LSTM", ["x", "w", "r", "", "l"], "y", hidden_size=2),
            {"x": ("float32", (6, 9, 3)), "l": ("int32", (9,))},
            {"w": normal(1, 8, 3), "r": normal(1, 8, 2)},
        ),
    ]
    for number, (operator, inputs, constants) in enumerate(cases):
        graph = om.model([operator], inputs, [name for name in operator.output if name], constants)
        path = om.save(om.typed(graph), tmp_path, f"{number}.onnx")
        model = systolic.load_onnx(path)
        for seed in range(3):
            found = random_inputs(model, seed)
            systolic.run(model, found, mode="wavefront")
        if operator.op_type == "LSTM":
            assert set(found["l"].tolist()) <= set(range(1, 7)) and len(set(found["l"].tolist())) > 1


def test_inputs_larger_than_memory_are_refused_by_name() -> None:
    model = Model([Relu()], inputs={"x": ((None, 4), "float32")})
    with pytest.raises(MemoryError, match=r"input 'x', of random numbers, \(1099511627776, 4\) float64 takes"):
        random_inputs(model, 0, shapes={"x": (2**40, 4)})
