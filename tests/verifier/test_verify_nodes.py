"""Node by node: which tensor differs first, by how much, in how many elements, and what is at fault."""

from __future__ import annotations

import copy
import html
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import systolic
from systolic import ArrayConfig, Model, Node, QuantParams, VerificationError, cli, verify
from systolic.example import DATA
from systolic.layers import Binary, QLinearAdd, QuantizeLinear, Relu
from systolic.lowered import Lowered
from systolic.reference.oracle import ORACLES
from systolic.verifier import runtime
from systolic.verifier.difference import FLOAT_TOLERANCE, difference

F = np.float32
DIGITS = DATA / "digits.onnx"


def spoil(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, change: Any) -> None:
    """Let a method's result go through `change`."""
    original = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda self, *args, **kw: change(original(self, *args, **kw)))


# How tensors differ


@pytest.mark.parametrize(
    "dtype", ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool")
)
def test_integers_differ_by_codes(dtype: str) -> None:
    if dtype == "bool":
        low, high = 0, 1
    else:
        low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    got, expected = np.array([[low, 1], [high, low]], dtype), np.array([[high, 1], [high, high]], dtype)
    found = difference(got, expected)
    assert found is not None and found.max_abs == high - low and (found.count, found.size) == (2, 4)
    assert (found.index, found.got, found.expected) == ((0, 0), low, high)
    assert found.relative is None is found.max_ulp and not found.within(0.99)
    assert difference(got, got.copy()) is None


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(("float16", "float32", "float64")), st.data())
def test_ulps_are_steps_of_nextafter(dtype: str, data: st.DataObject) -> None:
    width = 8 * np.dtype(dtype).itemsize
    start = data.draw(st.floats(width=width, allow_nan=False, allow_infinity=False))
    steps = data.draw(st.integers(1, 40))
    there = np.asarray([start], dtype)
    with np.errstate(over="ignore"):
        for _ in range(steps):
            there = np.nextafter(there, there.dtype.type(np.inf))
    found = difference(there, np.asarray([start], dtype))
    if start == there[0]:
        assert found is None
    else:
        assert found is not None and found.max_ulp is not None
        # Past the largest finite number there is no further step.
        assert found.max_ulp == steps or np.isinf(there[0])


def test_both_zeros_are_equal_and_next_to_the_smallest_numbers() -> None:
    assert difference(F([0.0]), F([-0.0])) is None
    tiny = np.nextafter(F(0), F(1))
    assert difference(F([tiny]), F([-tiny])).max_ulp == 2  # type: ignore[union-attr]


def test_floats_differ_in_part_of_the_largest() -> None:
    found = difference(F([1.0, 2.0, -8.0]), F([1.0, 2.25, -8.0]))
    assert found is not None and (found.max_abs, found.relative, found.count) == (0.25, 0.25 / 8, 1)
    assert found.within(0.04) and not found.within(0.03)
    assert str(found) == "by up to 0.25, 0.031 of the largest value and 1,048,576 ulp, in 1 of 3 elements"


@pytest.mark.parametrize(
    "got, expected",
    (
        ([np.nan, 1.0], [0.0, 1.0]),
        ([0.0, 1.0], [np.nan, 1.0]),
        ([np.inf, 1.0], [3e38, 1.0]),
        ([np.inf, 1.0], [-np.inf, 1.0]),
        ([1.0, 1e-30], [1.0, np.inf]),
        ([1e-30], [0.0]),
        ([np.nan], [np.inf]),
    ),
)
def test_no_tolerance_excuses_nan_infinity_or_something_for_nothing(got: Any, expected: Any) -> None:
    found = difference(F(got), F(expected))
    assert found is not None and not found.within(0.999) and found.count == 1


def test_nan_and_infinity_where_they_belong_are_equal() -> None:
    special = F([np.nan, np.inf, -np.inf, 1.0])
    assert difference(special, special.copy()) is None
    found = difference(F([np.nan, np.inf, 1.0]), F([np.nan, np.inf, 1.0 + 2**-23]))
    assert found is not None and found.max_ulp == 1 and found.within(1e-6)


# Against the oracles


def test_every_tensor_of_a_model() -> None:
    example = systolic.load_example()
    report = verify(example.model, example.images[:1], mode="wavefront", node_by_node=True)
    assert report.passed and report.within == 0
    assert [node.tensor for node in report.nodes] == [node.output for node in example.model.nodes]
    assert {node.verdict for node in report.nodes} == {"equal"}
    assert (report.nodes[1].layer, report.nodes[1].shape) == ("QLinearConv", (1, 16, 8, 8))
    assert "14 equal" in str(report.nodes_table())
    assert verify(example.model, example.images[:1], mode="wavefront").nodes == ()


def test_each_wrong_node_is_told_by_the_oracles(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are asked about each node's own inputs, so that one wrong node does not spoil the next."""
    spoil(monkeypatch, QLinearAdd, "apply", lambda y: y ^ np.int8(1))
    example = systolic.load_example()
    report = verify(example.model, example.images[:1], mode="wavefront", node_by_node=True)
    (wrong,) = [node for node in report.nodes if node.verdict != "equal"]
    assert (wrong.layer, wrong.verdict) == ("QLinearAdd", "differs") and not report.passed
    assert wrong.difference is not None and wrong.difference.count == wrong.difference.size == 512
    assert wrong.difference.max_abs == 1
    (mismatch,) = report.mismatches
    assert mismatch.stage == "host"


def test_what_has_no_oracle_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(ORACLES, "Relu")
    model = Model([Relu()], inputs={"x": ((3,), "int8")})
    report = verify(model, np.int8([1, -2, 3]), node_by_node=True)
    assert [node.verdict for node in report.nodes] == ["not compared"]
    assert not report.passed and "nothing was checked" in str(report)
    assert "1 not compared" in str(report.nodes_table())


def test_another_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, Relu, "apply", lambda y: y[:2])
    model = Model([Relu()], inputs={"x": ((3,), "int8")})
    (node,) = verify(model, np.int8([1, -2, 3]), node_by_node=True).nodes
    assert (node.verdict, node.note) == ("differs", "got int8 (2,), expected int8 (3,)")


def test_floats_have_no_tolerance_against_the_oracles(monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, Relu, "apply", lambda y: np.nextafter(y, F(9)))
    model = Model([Relu()], inputs={"x": ((3,), "float32")})
    report = verify(model, F([1, 2, 3]), node_by_node=True)
    (node,) = report.nodes
    assert not report.passed and node.verdict == "differs" and node.difference is not None
    assert node.difference.max_ulp == 1


# Against ONNX Runtime


@pytest.fixture
def om() -> Any:
    pytest.importorskip("onnxruntime")
    return pytest.importorskip("support.onnx_models")


def float_model(om: Any, folder: Path) -> Path:
    """Float Add, QuantizeLinear at ties, then what carries codes on."""
    nodes = [
        om.node("Add", ["a", "b"], "sum", name="adds"),
        om.node("QuantizeLinear", ["sum", "scale", "zero"], "codes", name="quantizes"),
        om.node("Relu", ["codes"], "positive", name="cuts"),
        om.node("Flatten", ["positive"], "y", name="flattens"),
    ]
    values = {"scale": F(1.0), "zero": np.int8(0)}
    inputs = {"a": ("float32", ("n", 4)), "b": ("float32", ("n", 4))}
    return om.save(om.typed(om.model(nodes, inputs, ["y", "sum"], values)), folder)


FEEDS = {"a": F([[1, 2, 3, -4]]), "b": F([[0.5, 0.25, 0.5, 1]])}


def test_all_equal(om: Any, tmp_path: Path) -> None:
    report = verify(float_model(om, tmp_path), FEEDS, against="onnxruntime", node_by_node=True, tolerance=0)
    assert report.passed and [node.verdict for node in report.nodes] == ["equal"] * 4
    assert "every bit and every cycle equal" in str(report)
    assert report.checked["output"] == 2


def test_floats_within(om: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, Binary, "apply", lambda y: np.nextafter(y, F(9)))
    path = float_model(om, tmp_path)
    feeds = {**FEEDS, "b": F([[0.25, 0.25, 0.25, 1]])}  # no ties
    monkeypatch.delitem(ORACLES, "Binary")
    report = verify(path, feeds, against="onnxruntime", node_by_node=True)
    assert report.passed and 0 < report.within < 1e-6
    assert [node.verdict for node in report.nodes] == ["float, within", "equal", "equal", "equal"]
    found = report.nodes[0].difference
    assert found is not None and found.max_ulp == 1 and found.relative == report.within and found.count == 4
    assert "integers and cycles equal, floats within" in str(report)
    assert f"output 'sum' is float, within the tolerance of {FLOAT_TOLERANCE:g}" in " ".join(report.notes)
    # Which node, how far, and why.
    (begins,) = [note for note in report.notes if note.startswith("the first float tensor")]
    assert f"'sum' of node 'adds' (Add), {found}: ONNX fixes neither" in begins
    # Every bit, if it is asked for.
    report = verify(path, feeds, against="onnxruntime", node_by_node=True, tolerance=0)
    first, *others = report.mismatches
    assert first.case == "node 'adds' (Add), tensor 'sum'" and "what it reads is equal" in first.note
    assert [mismatch.case for mismatch in others] == ["output 'sum'"]
    assert "--node-by-node --tolerance 0" in first.reproduce


def test_an_integer_that_differs_for_a_float_before_it(
    om: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, Binary, "apply", lambda y: np.nextafter(y, F(9)))
    monkeypatch.delitem(ORACLES, "Binary")
    # Of the sums 1.5, 2.25, 3.5 and -3 only 2.5 would be rounded down: 2 + 0.5.
    feeds = {"a": F([[2, 2, 3, -4]]), "b": F([[0.5, 0.25, 0.5, 1]])}
    report = verify(float_model(om, tmp_path), feeds, against="onnxruntime", node_by_node=True)
    assert report.passed and not report.mismatches
    rounding = report.rounding
    assert rounding is not None and (rounding.node, rounding.layer) == ("quantizes", "QuantizeLinear")
    assert (rounding.count, rounding.size, rounding.max_abs, rounding.outputs["y"]) == (1, 4, 1, 1)
    assert (rounding.nodes_equal, rounding.nodes_within) == (2, 1)
    assert "passed, not equal: 5 layers and outputs against onnxruntime in " in str(report)
    assert (
        "2 nodes equal; at node 'quantizes' (QuantizeLinear), 1 of 4 values differ by one because of a float "
        "rounding before it; outputs therefore differ by at most 1" in str(report)
    )
    assert [node.verdict for node in report.nodes] == [
        "float, within", "rounding", "equal on equal inputs", "equal on equal inputs",
    ]  # fmt: skip
    assert html.escape(str(rounding)) in report._repr_html_()
    assert report.to_dict()["rounding"] == rounding.to_dict()
    # No more of it without the tensors: outputs that differ are followed all the same.
    assert verify(float_model(om, tmp_path), feeds, against="onnxruntime").rounding == rounding
    # Every bit, if it is asked for.
    report = verify(float_model(om, tmp_path), feeds, against="onnxruntime", tolerance=0)
    assert not report.passed and report.rounding is None and "node 'adds'" in report.mismatches[0].case


def test_a_node_that_is_wrong_on_any_inputs(om: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, Binary, "apply", lambda y: np.nextafter(y, F(9)))
    spoil(monkeypatch, QuantizeLinear, "apply", lambda y: y + np.int8(3))
    monkeypatch.delitem(ORACLES, "Binary")
    monkeypatch.delitem(ORACLES, "QuantizeLinear")
    feeds = {**FEEDS, "a": F([[2, 2, 3, -4]])}  # a tie goes up there, and all go 3 further
    report = verify(float_model(om, tmp_path), feeds, against="onnxruntime", node_by_node=True)
    assert "on the other side's inputs it differs too" in report.mismatches[0].note
    # On ONNX Runtime's sums, where the tie goes down as it does there.
    assert report.nodes[1].difference is not None and report.nodes[1].difference.max_abs == 3


@pytest.mark.parametrize("step, passed", ((0, True), (1, False)))
def test_a_quantizer_behind_a_fused_float_may_differ_by_one(
    step: int, passed: bool, om: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where ONNX Runtime has no such float tensor, ours goes on; by more than one it is no rounding."""

    def fewer(*arguments: Any) -> dict[str, np.ndarray]:
        found = runtime.runtime_tensors(*arguments)
        del found["sum"]
        return found

    monkeypatch.setattr("systolic.verifier.check.runtime_tensors", fewer)
    monkeypatch.delitem(ORACLES, "Binary")
    monkeypatch.delitem(ORACLES, "QuantizeLinear")
    spoil(monkeypatch, Binary, "apply", lambda y: np.nextafter(y, F(9)))
    spoil(monkeypatch, QuantizeLinear, "apply", lambda y: y + np.int8(step))
    feeds = {"a": F([[2, 2, 3, -4]]), "b": F([[0.5, 0.25, 0.5, 1]])}
    report = verify(float_model(om, tmp_path), feeds, against="onnxruntime", node_by_node=True)
    assert report.passed is passed
    assert [node.verdict for node in report.nodes][:2] == [
        "not compared",
        "rounding" if passed else "differs",
    ]
    if passed:
        assert report.rounding is not None and report.rounding.node == "quantizes"
        assert (report.rounding.count, report.rounding.nodes_equal) == (1, 2)


def rounding_model(om: Any, before: str) -> Any:
    """A float operator, whose last two columns are 2.5 and -0.5, then integers: two products and a sum."""
    rng = np.random.default_rng(2)
    values: dict[str, Any] = {
        "one": F(1), "zero": np.int8(0), "small": F(2**-5), "half": F(0.5), "axis": np.array([2]),
        "w": rng.integers(-9, 10, (6, 6), dtype=np.int8), "v": rng.integers(-9, 10, (6, 3), dtype=np.int8),
        "gain": F([1, 2, 1, 3, 0, 0]), "offset": F([0, 0.25, 0, 0, 2.5, -0.5]),
    }  # fmt: skip
    nodes = {
        "LayerNormalization": [om.node("LayerNormalization", ["x", "gain", "offset"], "real", name="norm")],
        "ReduceMean": [
            om.node("Unsqueeze", ["x", "axis"], "apart"),
            om.node("ReduceMean", ["apart", "axis"], "means", name="mean", keepdims=0),
            om.node("Mul", ["means", "gain"], "scaled"),
            om.node("Add", ["scaled", "offset"], "real"),
        ],
        "Sigmoid": [
            om.node("Mul", ["x", "gain"], "scaled"),
            om.node("Sigmoid", ["scaled"], "steep", name="sigmoid"),
            om.node("Mul", ["steep", "gain"], "weighed"),
            om.node("Add", ["weighed", "offset"], "real"),
        ],
    }[before]
    nodes += [
        om.node("QuantizeLinear", ["real", "one", "zero"], "q0", name="quantizes"),
        om.node("DequantizeLinear", ["q0", "one", "zero"], "d0"),
        om.node("DequantizeLinear", ["w", "small", "zero"], "dw"),
        om.node("MatMul", ["d0", "dw"], "m0", name="first"),
        om.node("QuantizeLinear", ["m0", "half", "zero"], "q1"),
        om.node("DequantizeLinear", ["q1", "half", "zero"], "d1"),
        om.node("DequantizeLinear", ["v", "small", "zero"], "dv"),
        om.node("MatMul", ["d1", "dv"], "m1", name="second"),
        om.node("QuantizeLinear", ["m1", "half", "zero"], "q2"),
        om.node("DequantizeLinear", ["q2", "half", "zero"], "y", name="last"),
    ]
    return om.typed(om.model(nodes, {"x": ("float32", ("n", 6))}, ["y"], values))


# The operator whose floats are rounded otherwise: up, by one step.
FLOATS = {
    "LayerNormalization": ("LayerNormalization", lambda y: (np.nextafter(y[0], F(9)), *y[1:])),
    "ReduceMean": ("Binary", lambda y: np.nextafter(y, F(9))),
    "Sigmoid": ("Binary", lambda y: np.nextafter(y, F(9))),
}


@pytest.mark.parametrize("before", FLOATS)
def test_one_rounding_is_not_found_again_in_what_follows(
    before: str, om: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, change = FLOATS[before]
    spoil(monkeypatch, getattr(systolic.layers, name), "apply", change)
    monkeypatch.delitem(ORACLES, name)
    path = om.save(rounding_model(om, before), tmp_path)
    x = np.random.default_rng(0).normal(size=(8, 6)).astype(F)
    report = verify(path, x, against="onnxruntime", node_by_node=True, mode="wavefront")
    assert report.passed and report.rounding is not None, str(report)
    found = report.rounding
    assert (found.node, found.tensor, found.size, found.max_abs) == ("quantizes", "q0", 48, 1)
    assert 8 <= found.count <= 16 and found.outputs["y"] > 0 and found.nodes_equal >= 3
    verdicts = {node.tensor: node.verdict for node in report.nodes}
    assert verdicts["q0"] == "rounding" and verdicts["q1"] == verdicts["y"] == "equal on equal inputs"
    sentence = (
        f"{found.nodes_equal} nodes equal; at node 'quantizes' (QuantizeLinear), {found.count} of 48 values differ by "
        f"one because of a float rounding before it; outputs therefore differ by at most {found.outputs['y']:.3g}"
    )
    assert sentence in str(report)
    # run says the same, and that it is no failure.
    np.save(tmp_path / "x.npy", x)
    arguments = ["run", str(path), "--input", str(tmp_path / "x.npy"), "--mode", "wavefront", "--quiet"]
    assert cli.main(arguments) == 0
    assert sentence in capsys.readouterr().out
    assert cli.main([*arguments, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["verdict"]["onnxruntime"]["rounding"] == found.to_dict() and values["mismatches"] == []


def off_by_one(lowered: Lowered) -> Lowered:
    """Let the last bit of int8 codes change."""
    table = np.arange(256, dtype=np.uint8).view(np.int8) ^ np.int8(1)
    return lowered._replace(epilogue=lowered.epilogue._replace(table=table))


@pytest.mark.parametrize("command", ("verify", "run"))
def test_a_mutant_behind_the_rounding_is_named(
    command: str, om: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An integer node that is wrong on equal inputs fails, though the tensors before it differ already."""
    name, change = FLOATS["LayerNormalization"]
    spoil(monkeypatch, getattr(systolic.layers, name), "apply", change)
    product = next(
        node.layer for node in systolic.load_onnx(om.save(rounding_model(om, name), tmp_path)).nodes
        if node.output == "q2"
    )  # fmt: skip
    original = type(product).lower  # type: ignore[attr-defined]

    def lower(self: Any, *inputs: np.ndarray) -> Lowered:
        lowered = original(self, *inputs)
        return off_by_one(lowered) if lowered.gemm.n == 3 else lowered

    monkeypatch.setattr(type(product), "lower", lower)
    for kind in (name, type(product).__name__):  # numpy would find it first
        monkeypatch.delitem(ORACLES, kind)
    path, x = tmp_path / "model.onnx", np.random.default_rng(0).normal(size=(8, 6)).astype(F)
    if command == "run":
        np.save(tmp_path / "x.npy", x)
        arguments = ["run", str(path), "--input", str(tmp_path / "x.npy"), "--mode", "wavefront", "--quiet"]
        assert cli.main(arguments) == 1
        text = capsys.readouterr().out
        assert "FAILED against ONNX Runtime" in text and "node 'second'" in text
        return
    report = verify(path, x, against="onnxruntime", node_by_node=True, mode="wavefront")
    assert not report.passed and report.rounding is None
    first, output = report.mismatches
    assert (
        first.case.startswith("node 'second'") and "on the other side's inputs it differs too" in first.note
    )
    assert first.count == 24 and output.case == "output 'y'"
    verdicts = {node.tensor: node.verdict for node in report.nodes}
    assert (verdicts["q0"], verdicts["q1"], verdicts["q2"]) == (
        "rounding",
        "equal on equal inputs",
        "differs",
    )


@pytest.mark.parametrize("wrong", ("stem_quant", "block2_quant", "logits_quant"))
def test_the_first_of_many(wrong: str, monkeypatch: pytest.MonkeyPatch, om: Any) -> None:
    model = systolic.load_onnx(DIGITS)
    layer = next(node.layer for node in model.nodes if node.name == wrong)
    original = type(layer).lower  # type: ignore[attr-defined]

    def lower(self: Any, *inputs: np.ndarray) -> Lowered:
        lowered = original(self, *inputs)
        if self.bias is not None and np.array_equal(self.bias, layer.bias):  # type: ignore[attr-defined]
            return off_by_one(lowered)
        return lowered

    monkeypatch.setattr(type(layer), "lower", lower)
    x = systolic.load_example().images[:1]
    report = verify(DIGITS, x, against="onnxruntime", node_by_node=True, mode="wavefront")
    verdicts = [node.verdict for node in report.nodes]
    place = next(i for i, node in enumerate(model.nodes) if node.name == wrong)
    assert verdicts[: place + 1] == ["equal"] * place + ["differs"]
    named = [mismatch for mismatch in report.mismatches if mismatch.stage == "node"]
    assert [mismatch.case.split("'")[1] for mismatch in named] == [wrong]
    assert "by up to 1 in " in named[0].note and "what it reads is equal" in named[0].note


def test_reports_of_nodes_are_values(om: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, Binary, "apply", lambda y: y * F(np.nan))
    report = verify(float_model(om, tmp_path), FEEDS, against="onnxruntime", node_by_node=True)
    values = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert values["nodes"][0]["difference"]["max_abs"] == "nan" and values["nodes"][0]["shape"] == [1, 4]
    assert values["nodes"][0]["difference"]["relative"] == "inf"
    assert len(pickle.loads(pickle.dumps(report)).nodes) == 4 and copy.deepcopy(report).nodes
    with pytest.raises(VerificationError, match="node 'adds'"):
        verify(float_model(om, tmp_path), FEEDS, against="onnxruntime", node_by_node=True, raises=True)


# What ONNX Runtime computes for us


def delegated_model(om: Any, *outputs: str) -> Any:
    """An operator left to others between two of ours."""
    nodes = [
        om.node("Neg", ["x"], "minus", name="ours"),
        om.node("CumSum", ["minus", "axis"], "sums", name="theirs"),
        om.node("Abs", ["sums"], "y", name="ours too"),
        om.node("CumSum", ["x", "axis"], "z", name="theirs alone"),
    ]
    return om.typed(om.model(nodes, {"x": ("float32", ("n", 4))}, outputs, {"axis": np.array(1)}))


def test_what_onnxruntime_computes_is_not_counted_as_equal_to_it(
    om: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(systolic.layers.OnnxNode, "delegate", "ONNX Runtime")
    path = om.save(delegated_model(om, "y", "z"), tmp_path)
    report = verify(path, against="onnxruntime", node_by_node=True)
    assert report.passed and report.checked == {"layer": 2, "output": 1}
    assert [node.verdict for node in report.nodes] == [
        "equal", "delegated, not checked", "equal", "delegated, not checked",
    ]  # fmt: skip
    assert [(node.node, node.delegate) for node in report.not_checked] == [
        ("theirs", "ONNX Runtime"), ("theirs alone", "ONNX Runtime"),
    ]  # fmt: skip
    assert "delegated to ONNX Runtime, not checked: CumSum x 2" in str(report).splitlines()[1]
    assert cli.main(["run", str(path), "--quiet"]) == 0
    text = capsys.readouterr().out
    assert "(2 layers); delegated to ONNX Runtime, not checked: CumSum x 2" in text
    assert "bit for bit, but for those delegated to it, not checked: z (version" in text
    # Nothing of ours in it: nothing was checked.
    path = om.save(delegated_model(om, "z"), tmp_path)
    model = systolic.load_onnx(path)
    only = om.save(
        om.typed(
            om.model(
                [om.node("CumSum", ["x", "axis"], "z", name="alone")], {"x": ("float32", ("n", 4))}, ["z"],
                {"axis": np.array(1)},
            )
        ),
        tmp_path,
        "only.onnx",
    )  # fmt: skip
    assert model.outputs == ("z",)
    report = verify(only, against="onnxruntime", node_by_node=True)
    assert not report.passed and not report.mismatches and report.cases == 0
    assert cli.main(["verify", str(only), "--against", "onnxruntime", "--quiet"]) == 1
    assert "nothing was checked" in capsys.readouterr().out
    assert cli.main(["run", str(only), "--quiet"]) == 0
    text = capsys.readouterr().out
    assert "numpy        nothing was checked (0 layers)" in text
    assert "nothing was checked: no output has elements that this package computed" in text
    assert cli.main(["run", str(only), "--quiet", "--json"]) == 0
    verdict = json.loads(capsys.readouterr().out)["verdict"]
    assert verdict["numpy"]["passed"] is None is verdict["onnxruntime"]["passed"]


def test_what_another_evaluator_computes_is_compared_with_onnxruntime(
    om: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systolic.layers.OnnxNode, "delegate", "onnx")
    path = om.save(delegated_model(om, "y", "z"), tmp_path)
    report = verify(path, against="onnxruntime", node_by_node=True)
    assert {node.verdict for node in report.nodes} == {"equal"} and report.not_checked == ()
    report = verify(path)
    assert [node.node for node in report.not_checked] == ["theirs", "theirs alone"]
    assert "delegated to onnx, not checked: CumSum x 2" in str(report)


def test_outputs_differ_though_nodes_cannot_be_compared(
    om: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fault(*arguments: Any) -> Any:
        raise OSError("no space")

    path = float_model(om, tmp_path)
    spoil(monkeypatch, Relu, "apply", lambda y: y ^ np.int8(1))
    monkeypatch.delitem(ORACLES, "Relu")
    monkeypatch.setattr("systolic.verifier.check.runtime_tensors", fault)
    told = "nodes were not compared with ONNX Runtime's: OSError: no space"
    report = verify(path, FEEDS, against="onnxruntime")
    assert [mismatch.case for mismatch in report.mismatches] == ["output 'y'"] and told in report.notes
    assert cli.main(["run", str(path), "--quiet"]) == 1
    text = capsys.readouterr().out
    assert told in text and "FAILED against ONNX Runtime" in text


def test_a_mistake_of_one_mode_is_no_rounding(
    om: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes are run again by wavefronts, which may be right where the run was not."""
    calls = []

    def once(y: np.ndarray) -> np.ndarray:
        calls.append(1)
        return y ^ np.int8(1) if len(calls) == 1 else y

    spoil(monkeypatch, Relu, "apply", once)
    monkeypatch.delitem(ORACLES, "Relu")
    report = verify(float_model(om, tmp_path), FEEDS, against="onnxruntime")
    assert not report.passed and report.rounding is None
    assert "a second run gave other outputs" in str(report)


def test_a_fault_in_the_comparison_hides_nothing(
    om: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fault(*arguments: Any, **options: Any) -> Any:
        raise ZeroDivisionError("in the comparison")

    path = float_model(om, tmp_path)
    monkeypatch.setattr("systolic.verifier.nodes.difference", fault)
    monkeypatch.setattr("systolic.verifier.nodes.mismatch_of_kind", fault)
    report = verify(path, FEEDS, against="onnxruntime", node_by_node=True)
    assert {node.verdict for node in report.nodes} == {"not compared"} and report.passed
    assert "the check failed: ZeroDivisionError: in the comparison" in str(report)
    monkeypatch.setattr("systolic.cli.model_commands.compare_outputs", fault)
    assert cli.main(["run", str(path), "--quiet"]) == 0
    text = capsys.readouterr().out
    assert "outputs were not compared: ZeroDivisionError: in the comparison" in text and "quantizes" in text


# ONNX Runtime's own tensors


def qdq_model(om: Any, *outputs: str) -> Any:
    """Two convolutions in QDQ form; 7-bit weights, right on any CPU; sums that are exact in float32."""
    rng = np.random.default_rng(3)
    values: dict[str, Any] = {"scale": F(2**-4), "small": F(2**-7), "zero": np.int8(3), "none": np.int8(0)}
    nodes = [om.node("QuantizeLinear", ["x", "scale", "zero"], "q0")]
    for i in range(2):
        values[f"w{i}"] = rng.integers(-64, 65, (4, 4, 3, 3), dtype=np.int8)
        nodes += [
            om.node("DequantizeLinear", [f"q{i}", "scale", "zero"], f"d{i}"),
            om.node("DequantizeLinear", [f"w{i}", "small", "none"], f"dw{i}"),
            om.node("Conv", [f"d{i}", f"dw{i}"], f"c{i}", pads=[1, 1, 1, 1]),
            om.node("QuantizeLinear", [f"c{i}", "scale", "zero"], f"q{i + 1}"),
        ]
    nodes.append(om.node("DequantizeLinear", ["q2", "scale", "zero"], "y"))
    return om.typed(om.model(nodes, {"x": ("float32", (1, 4, 6, 6))}, outputs or ["y"], values))


def test_fused_tensors_mean_what_the_fused_graph_means(om: Any, tmp_path: Path) -> None:
    feeds = {"x": np.random.default_rng(0).normal(size=(1, 4, 6, 6)).astype(F)}
    names = [f"{kind}{i}" for kind in ("q", "d", "dw", "c") for i in range(2)] + ["q2", "y", "no such tensor"]
    path = om.save(qdq_model(om), tmp_path)
    found = runtime.runtime_tensors(path, feeds, names)
    # What the fused convolutions swallow is not there, and was not asked for.
    assert {"q0", "q1", "q2", "y"} <= set(found) and not set(found) & {"c0", "c1", "d0", "dw0", "dw1"}
    # The same as of the graph cut off there, whose fused result is its output.
    for name in ("q0", "q1", "q2"):
        cut = om.save(qdq_model(om, name), tmp_path, "cut.onnx")
        expected = runtime.runtime_outputs(cut, feeds)[name]
        assert found[name].dtype == np.int8 and found[name].shape == (1, 4, 6, 6)
        np.testing.assert_array_equal(found[name], expected)
    np.testing.assert_array_equal(found["y"], runtime.runtime_outputs(path, feeds)["y"])
    assert {entry.name for entry in tmp_path.iterdir()} == {"model.onnx", "cut.onnx"}


def test_asking_for_what_a_fusion_swallows_would_change_it(om: Any, tmp_path: Path) -> None:
    """Why it is not done: with the convolution's float result an output, nothing is fused there."""
    feeds = {"x": np.random.default_rng(0).normal(size=(1, 4, 6, 6)).astype(F)}
    fused = runtime.runtime_tensors(om.save(qdq_model(om), tmp_path), feeds, ["c0"])
    exposed = runtime.runtime_tensors(om.save(qdq_model(om, "y", "c0"), tmp_path), feeds, ["c0"])
    assert "c0" not in fused and exposed["c0"].dtype == F


def qdq_sum(om: Any) -> Any:
    """Codes of two inputs added in QDQ form; scales that make every step exact in float32."""
    values = {"scale": F(2**-4), "wide": F(2**-3), "zero": np.int8(3)}
    nodes = [
        om.node("QuantizeLinear", ["a", "scale", "zero"], "qa"),
        om.node("QuantizeLinear", ["b", "scale", "zero"], "qb"),
        om.node("DequantizeLinear", ["qa", "scale", "zero"], "da"),
        om.node("DequantizeLinear", ["qb", "scale", "zero"], "db"),
        om.node("Add", ["da", "db"], "sum"),
        om.node("QuantizeLinear", ["sum", "wide", "zero"], "q"),
        om.node("DequantizeLinear", ["q", "wide", "zero"], "y"),
    ]
    return om.typed(om.model(nodes, {"a": ("float32", (2, 9)), "b": ("float32", (2, 9))}, ["y"], values))


def test_both_meanings_of_a_qdq_graph(om: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """ONNX Runtime is asked for the meaning that the model was read with."""
    path = om.save(qdq_sum(om), tmp_path)
    options: Any = {"against": "onnxruntime", "node_by_node": True}
    integer = verify(path, **options)
    assert integer.passed and {node.verdict for node in integer.nodes} == {"equal"}
    assert [node.tensor for node in integer.nodes] == ["qa", "qb", "q", "y"]
    real = verify(path, **options, qdq="float")
    assert real.passed and {node.verdict for node in real.nodes} == {"equal"}
    assert [node.tensor for node in real.nodes] == ["qa", "qb", "da", "db", "sum", "q", "y"]
    for command in (["run"], ["verify", "--against", "onnxruntime", "--node-by-node"], ["summary"]):
        arguments = [str(path), "--qdq", "float", "--json"] + ["--quiet"] * (command != ["summary"])
        assert cli.main([*command, *arguments]) == 0
        values = json.loads(capsys.readouterr().out)
        assert len(values.get("nodes", values.get("layers"))) == 7


def test_the_meaning_is_in_what_shows_it_again(
    om: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, QuantizeLinear, "apply", lambda y: y ^ np.int8(1))
    path = om.save(qdq_sum(om), tmp_path)
    mismatches = verify(path, against="onnxruntime", node_by_node=True, qdq="float").mismatches
    assert mismatches and all("--qdq float" in mismatch.reproduce for mismatch in mismatches)
    assert "--qdq" not in verify(path, against="onnxruntime").mismatches[0].reproduce


def test_what_onnxruntime_does_not_have_is_not_compared(
    om: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fewer(*arguments: Any) -> dict[str, np.ndarray]:
        found = runtime.runtime_tensors(*arguments)
        del found["codes"]
        return found

    monkeypatch.setattr("systolic.verifier.check.runtime_tensors", fewer)
    path = float_model(om, tmp_path)
    report = verify(path, FEEDS, against="onnxruntime", node_by_node=True)
    assert [node.verdict for node in report.nodes] == ["equal", "not compared", "equal", "equal"]
    assert report.passed and "as ONNX Runtime fuses their nodes with others: 1" in " ".join(report.notes)
    spoil(monkeypatch, Relu, "apply", lambda y: y ^ np.int8(1))
    first = verify(path, FEEDS, against="onnxruntime", node_by_node=True).mismatches[1]
    assert first.case.startswith("node 'cuts'") and "what it reads was not all compared" in first.note


def test_warning_without_vnni(om: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def notes(x: str, w: str) -> str:
        rng = np.random.default_rng(0)
        graph, feeds = om.matmul(rng, x, w, per_column=False)
        path = om.save(om.typed(graph), tmp_path, f"{x}{w}.onnx")
        report = verify(path, feeds, against="onnxruntime", machine=ArrayConfig(8, 8), node_by_node=True)
        return " ".join(report.notes)

    monkeypatch.setattr(runtime, "has_vnni", lambda: False)
    assert "this CPU has no VNNI" in notes("uint8", "int8") and "node 'the_node'" in notes("uint8", "int8")
    assert notes("uint8", "uint8") == notes("int8", "int8") == ""
    monkeypatch.setattr(runtime, "has_vnni", lambda: True)
    assert notes("uint8", "int8") == ""


@pytest.mark.parametrize(
    "machine, flags, expected",
    (
        ("x86_64", "flags : avx2 avx512_vnni", True),
        ("AMD64", "flags : avx2 avx_vnni", True),
        ("x86_64", "flags : avx2", False),
        ("aarch64", "Features : asimd", True),
        ("AMD64", None, True),  # nobody to ask
    ),
)
def test_has_vnni(machine: str, flags: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_text(self: Path) -> str:
        if flags is None:
            raise FileNotFoundError(self)
        return flags

    monkeypatch.setattr(runtime.platform, "machine", lambda: machine)
    monkeypatch.setattr(runtime.Path, "read_text", read_text)
    assert runtime.has_vnni() is expected


# Bad arguments


def test_bad_arguments() -> None:
    model = Model([Node(Relu(), "x", "y")], inputs={"x": ((3,), "int8")})
    with pytest.raises(TypeError, match="node_by_node must be True or False, not int 1"):
        verify(model, node_by_node=1)  # type: ignore[arg-type]
    for tolerance in (-1e-9, 1, float("nan"), True, "0.1", np.complex64(0)):
        with pytest.raises(ValueError, match="tolerance must be a number from 0"):
            verify(model, tolerance=tolerance)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="qdq must be one of 'integer', 'float', not 'real'"):
        verify(model, qdq="real")
    for options in ({"node_by_node": True}, {"tolerance": 0.1}):
        with pytest.raises(ValueError, match="without a model, random cases draw their own arrays"):
            verify(cases=1, **options)  # type: ignore[arg-type]


def test_onnxruntime_is_missed_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    monkeypatch.setattr(systolic.engine, "run", lambda *arguments, **options: pytest.fail("ran"))
    with pytest.raises(ImportError, match=r'pip install "systolic\[onnx\]"'):
        verify(DIGITS, systolic.load_example().images[:1], against="onnxruntime", node_by_node=True)


def test_a_file_that_onnxruntime_refuses(om: Any, tmp_path: Path) -> None:
    s, u = np.int8, np.uint8
    arguments = [np.zeros((2, 3), s), F(1), s(0), np.ones((3, 4), u), F(1), u(3), F(1), s(0)]
    path = om.save(om.single("QLinearMatMul", arguments)[0], tmp_path)
    with pytest.raises(ValueError, match=r"ONNX Runtime .* cannot run .*model\.onnx"):
        verify(path, against="onnxruntime", node_by_node=True)


def test_quantized_parameters_are_not_touched() -> None:
    """A verification leaves the model as it was."""
    example = systolic.load_example()
    before = copy.deepcopy(example.model)
    verify(example.model, example.images[:1], mode="wavefront", node_by_node=True)
    assert example.model == before and QuantParams(0.5) == QuantParams(0.5)


def test_tensors_without_elements_prove_nothing(tmp_path: Path, om: Any) -> None:
    graph = om.model([om.node("Relu", ["x"], "y")], {"x": ("float32", ("n", 4))}, ["y"])
    path = om.save(om.typed(graph), tmp_path)
    for against in ("reference", "onnxruntime"):
        report = systolic.verify(path, against=against, batch=0)
        assert not report.passed and "nothing was checked" in str(report)


def test_outputs_that_are_constants_are_our_own(tmp_path: Path, om: Any) -> None:
    nodes = [om.node("DequantizeLinear", ["k", "s"], "y"), om.node("Relu", ["x"], "z")]
    graph = om.model(nodes, {"x": ("float32", (2,))}, ["y", "z"], {"k": np.int8([1, 2]), "s": np.float32(0.5)})
    report = systolic.verify(om.save(om.typed(graph), tmp_path), against="onnxruntime")
    assert report.passed and report.checked["output"] == 2
