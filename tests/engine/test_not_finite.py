"""NaN and infinities in float inputs are reported, and those that arise in outputs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import systolic
from systolic import MachineConfig, Model, QuantParams, presets
from systolic.cli import main
from systolic.engine import NotFiniteWarning
from systolic.engine.finite import input_lines, output_lines
from systolic.layers import DynamicQuantize, QuantizeLinear, Relu
from systolic.model import Node

EXAMPLE = systolic.load_example()
IDEAL = MachineConfig(presets.TPU_V1.array)


def images() -> np.ndarray:
    x = EXAMPLE.images[:2].copy()
    x[0, 0, 0, :3] = np.nan, np.inf, np.nan
    return x


@pytest.mark.parametrize("machine", [IDEAL, presets.TPU_V1], ids=["layers", "program"])
def test_one_warning_says_how_many_and_what_becomes_of_them(machine: MachineConfig) -> None:
    with pytest.warns(NotFiniteWarning) as caught:
        run = systolic.run(EXAMPLE.model, images(), machine=machine, mode="wavefront")
    (warning,) = [each for each in caught if each.category is NotFiniteWarning]
    node = EXAMPLE.model.nodes[0]
    assert str(warning.message) == (
        f"input 'pixels' holds 2 NaN and 1 infinity among 128 values; node {node.name!r} (QuantizeLinear) makes the "
        "smallest code of NaN, as ONNX Runtime does (ONNX leaves it undefined) and saturates infinities"
    )
    assert Path(warning.filename).name == Path(__file__).name
    assert run.not_finite == [] and run.to_dict()["not_finite"] == []
    # What the message says.
    spec = EXAMPLE.model.nodes[0].layer.y
    lowest, highest = np.iinfo(spec.dtype).min, np.iinfo(spec.dtype).max
    same = images()
    same[np.isnan(same)] = (lowest - int(spec.zero_point)) * spec.scale
    same[np.isinf(same)] = (highest - int(spec.zero_point)) * spec.scale
    expected = systolic.run(EXAMPLE.model, same, machine=machine, mode="wavefront").outputs["logits"]
    assert np.array_equal(run.outputs["logits"], expected)


def test_finite_numbers_and_integers_are_silent(recwarn: pytest.WarningsRecorder) -> None:
    run = systolic.run(EXAMPLE.model, EXAMPLE.images[:1], machine=IDEAL, mode="wavefront")
    assert not [each for each in recwarn if each.category is NotFiniteWarning]
    assert run.not_finite == []
    assert input_lines({"x": np.int8([1])}, []) == output_lines({"x": np.array([True])}) == []


def test_infinities_that_no_node_quantizes_are_silent_and_nan_is_not() -> None:
    reads = [Node(Relu(), "mask", "y", name="relu")]
    mask = np.float32([0, -np.inf])
    assert input_lines({"mask": mask}, reads) == []
    assert input_lines({"mask": np.float32([0, np.nan])}, reads) == [
        "input 'mask' holds 1 NaN among 2 values; node 'relu' (Relu) reads it as it is"
    ]
    quantizes = [Node(DynamicQuantize(), "mask", (f"y{i}", "", ""), name=f"q{i}") for i in range(4)]
    (line,) = input_lines({"mask": mask}, quantizes)
    assert "node 'q0' (DynamicQuantize) takes an infinite range" in line and line.endswith("1 more nodes read it")
    assert input_lines({"mask": mask}, None) == ["input 'mask' holds 1 infinity among 2 values"]


def test_extension_types_and_float16() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for dtype in (np.float16, np.float64, ml_dtypes.bfloat16):
        assert output_lines({"y": np.array([np.nan, 1, -np.inf], dtype)}) == [
            "output 'y' holds 1 NaN and 1 infinity among 3 values"
        ]


def test_nan_in_an_output_is_a_line_of_run_report_and_verdict(tmp_path: Path) -> None:
    model = Model([Node(Relu(), "x", "y", name="relu")], inputs={"x": ((None, 2), "float32")})
    x = np.float32([[np.nan, 1]])
    line = "output 'y' holds 1 NaN among 2 values"
    with pytest.warns(NotFiniteWarning, match="node 'relu' .Relu. reads it as it is"):
        run = systolic.run(model, x, machine=IDEAL)
    assert run.not_finite == [line] and run.to_dict()["not_finite"] == [line]
    assert "not finite" in run.report().html() and "1 NaN among 2 values" in run.report().html()
    report = systolic.verify(model, x, machine=IDEAL)
    assert report.passed and [note for note in report.notes if "NaN" in note] == [
        "input 'x' holds 1 NaN among 2 values; node 'relu' (Relu) reads it as it is", line,
    ]  # fmt: skip
    assert f"note: {line}" in str(report)


def test_the_shell_reports_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layer = QuantizeLinear(QuantParams(0.5, 3))
    model = Model([Node(layer, "x", "y", name="q")], inputs={"x": ((None, 2), "float32")})
    model.save(tmp_path / "m.npz")
    np.save(tmp_path / "x.npy", np.float32([[np.nan, 1]]))
    arguments = [str(tmp_path / "m.npz"), "--input", str(tmp_path / "x.npy")]
    for command in (["run", *arguments, "--ideal"], ["verify", *arguments]):
        assert main(command) == 0
        said, errors = capsys.readouterr()
        (line,) = [line for line in said.splitlines() if "NaN" in line]
        assert line.startswith("note") and "makes the smallest code of NaN" in line
        assert "Warning" not in errors
    assert main(["run", *arguments, "--ideal", "--json"]) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert sum("NaN" in note for note in notes) == 1


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "dynamic"])
def test_onnx_runtime_makes_the_same_codes_of_them(dtype: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    kind = TensorProto.UINT8 if dtype == "dynamic" else getattr(TensorProto, dtype.upper())
    if dtype == "dynamic":
        node, held = helper.make_node("DynamicQuantizeLinear", ["x"], ["y", "s", "z"]), []
    else:
        node = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"])
        held = [numpy_helper.from_array(np.float32(0.5), "s"), numpy_helper.from_array(np.dtype(dtype).type(3), "z")]
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 7])],
        [helper.make_tensor_value_info("y", kind, [3, 7])], held,
    )  # fmt: skip
    path = tmp_path / "q.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=9), path)
    x = np.linspace(-9, 9, 21, dtype=np.float32).reshape(3, 7)
    x[0, :2] = x[2, 5:] = np.nan
    if dtype != "dynamic":
        x[1, 1:3] = np.inf, -np.inf
    (theirs,) = runtime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    with pytest.warns(NotFiniteWarning, match="as ONNX Runtime does"):
        ours = systolic.run(path, x, machine=IDEAL, mode="wavefront").outputs["y"]
    if dtype == "dynamic":
        assert not ours[np.isnan(x)].any()
    else:
        assert (ours[np.isnan(x)] == np.iinfo(dtype).min).all()
    assert np.array_equal(ours, theirs)
