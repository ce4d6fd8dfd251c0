"""The shell's command: what it prints, how it ends, what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import systolic
from systolic import ArrayConfig, Gemm, Model, QuantParams, cli, engine, presets
from systolic.accelerators import Check, Validation
from systolic.cli import array_commands
from systolic.cli.parser import EXAMPLES, build_parser
from systolic.dataflows import DATAFLOWS
from systolic.example import DATA
from systolic.layers import Conv2d, Dense, QLinearAdd, Relu
from systolic.machine import time_program
from systolic.reference import oracle

Capture = pytest.CaptureFixture[str]
COMMANDS = ("run", "verify", "summary", "quantize", "compile", "gemm", "vectors", "rtl", "validate", "sweep", "bench", "info")
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals, pipes and permissions as POSIX has them")


def output(capsys: Capture, *arguments: str, status: int = 0) -> str:
    """Run a command in this process and return what it printed."""
    assert cli.main(arguments) == status, capsys.readouterr().err
    return capsys.readouterr().out


def as_json(capsys: Capture, *arguments: str, status: int = 0) -> dict[str, Any]:
    """Run a command with --json and return what it printed, of which no number is NaN."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    values = json.loads(output(capsys, *arguments, "--json", status=status), parse_constant=refuse)
    assert values["schema"] == 1 and next(iter(values)) == "schema"
    return values


def refused(capsys: Capture, *arguments: str) -> str:
    """Run a command that fails with status 2 and return its one message."""
    try:
        status = cli.main(arguments)
    except SystemExit as end:  # argparse's own
        status = end.code  # type: ignore[assignment]
    captured = capsys.readouterr()
    assert status == 2 and captured.out == "" and "Traceback" not in captured.err
    last = captured.err.strip().splitlines()[-1]
    assert last.startswith(f"systolic {arguments[0]}: " if arguments else "systolic: ")
    return last


def shell(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run ``python -m systolic`` in a process of its own, with buffered output as pipes have it."""
    return subprocess.run(command(*arguments), env=variables(**environment), capture_output=True, timeout=60)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "systolic", *arguments]


def variables(**changes: str) -> dict[str, str]:
    root = str(Path(systolic.__file__).parents[1])
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONUNBUFFERED", "PYTHONIOENCODING")
    }
    return {**kept, "PYTHONPATH": root, **changes}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small model: int8 (?, 2, 6, 6) to int8 (?, 3, 4, 4)."""
    q = QuantParams(0.5)
    weight = np.random.default_rng(0).integers(-9, 9, (3, 2, 3, 3), dtype=np.int8)
    made = Model(
        [Conv2d(weight, x=q, w=q, y=QuantParams(4.0)), Relu()], inputs={"x": ((None, 2, 6, 6), "int8")}
    )
    made.save(tmp_path / "small.zip")
    return tmp_path / "small.zip"


@pytest.fixture
def x(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", np.random.default_rng(1).integers(-99, 99, (2, 2, 6, 6), dtype=np.int8))
    return tmp_path / "x.npy"


# run


def test_run_the_example(capsys: Capture) -> None:
    text = output(capsys, "run", "--mode", "wavefront", "--quiet")
    for words in (
        "256 x 256 array at 700 MHz, wavefront mode",
        "depthwise_quant",
        "23040 x 9 x 1 x 16",
        "utilization",
    ):
        assert words in text
    assert "accuracy     98.9% of 360 test images" in text
    assert "every layer's output equals numpy's, bit for bit (14 layers)" in text
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError:
        return
    assert f"outputs equal ONNX Runtime's, bit for bit (version {onnxruntime.__version__})" in text


def test_run_the_example_as_json(capsys: Capture) -> None:
    values = as_json(capsys, "run", "--mode", "wavefront", "--quiet")
    example = systolic.load_example()
    run = systolic.run(example.model, example.images, mode="wavefront")
    known = run.to_dict()
    for name in ("machine", "mode", "stats", "utilization", "seconds", "outputs"):
        assert values[name] == known[name], name
    for ours, theirs in zip(values["layers"], known["layers"], strict=True):
        assert ours.keys() == theirs.keys()
        measured = {"wall_seconds": 0, "array_wall_seconds": 0}
        assert {**ours, **measured} == {**theirs, **measured}
    assert values["model"] == "digits" and values["accuracy"] >= 0.975 and values["mismatches"] == []
    assert values["verdict"]["numpy"] == {"layers": 14, "passed": True}


def test_run_in_cycle_mode(model: Path, x: Path, capsys: Capture) -> None:
    """The default mode is cycle mode; progress goes to standard error."""
    values = as_json(capsys, "run", str(model), "--input", str(x), "--array", "4x5")
    assert values["mode"] == "cycle" and values["machine"]["array"]["rows"] == 4
    assert values["machine"] == systolic.MachineConfig(ArrayConfig(4, 5)).to_dict()
    assert cli.main(["run", str(model), "--input", str(x), "--array", "4x5"]) == 0
    assert "100.0%" in capsys.readouterr().err
    assert cli.main(["run", str(model), "--input", str(x), "--array", "4x5", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_run_without_input_says_so(model: Path, capsys: Capture) -> None:
    text = output(capsys, "run", str(model), "--array", "8x8", "--quiet", "--seed", "5")
    assert "ran on random numbers, seed 5" in text and "accuracy" not in text and "onnxruntime" not in text
    assert as_json(capsys, "run", str(model), "--array", "8x8", "--quiet")["accuracy"] is None


def test_run_without_check(model: Path, capsys: Capture) -> None:
    assert as_json(capsys, "run", str(model), "--array", "8x8", "--quiet", "--no-check")["verdict"] == {}


def test_run_an_onnx_model(capsys: Capture, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    np.save(tmp_path / "x.npy", systolic.load_example().images[:2])
    arguments = [
        "run",
        str(DATA / "digits.onnx"),
        "--input",
        str(tmp_path / "x.npy"),
        "--preset",
        "tpu-v1",
        "--quiet",
    ]
    values = as_json(capsys, *arguments, "--threads", "1")
    assert (
        values["verdict"]["onnxruntime"]["passed"] is True and values["machine"] == presets.TPU_V1.to_dict()
    )


@pytest.mark.parametrize("order", ("<f4", ">f4"))
def test_run_takes_any_byte_order_and_layout(order: str, capsys: Capture, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    np.save(tmp_path / "x.npy", np.asfortranarray(systolic.load_example().images[:2].astype(order)))
    arguments = [
        "run",
        str(DATA / "digits.onnx"),
        "--input",
        str(tmp_path / "x.npy"),
        "--mode",
        "wavefront",
        "--quiet",
    ]
    assert as_json(capsys, *arguments)["verdict"]["onnxruntime"]["passed"] is True


def test_a_failed_check_is_status_1(model: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    original = Relu.apply
    monkeypatch.setattr(Relu, "apply", lambda self, *inputs: original(self, *inputs) ^ 1)
    values = as_json(capsys, "run", str(model), "--array", "8x8", "--quiet", status=1)
    assert values["verdict"]["numpy"]["passed"] is False
    assert [mismatch["stage"] for mismatch in values["mismatches"]] == ["host"]
    text = output(capsys, "run", str(model), "--array", "8x8", "--quiet", status=1)
    assert "FAILED against numpy" in text and "layer 't1' (Relu): host" in text
    assert "FAILED" in output(capsys, "verify", str(model), "--array", "8x8", "--quiet", status=1)


# --output


def test_output(model: Path, x: Path, capsys: Capture, tmp_path: Path) -> None:
    target = tmp_path / "y.npz"
    output(capsys, "run", str(model), "--input", str(x), "--array", "8x8", "--quiet", "--output", str(target))
    expected = systolic.run(Model.load(model), np.load(x), mode="wavefront").outputs
    with np.load(target) as written:
        assert written.files == list(expected) == ["t1"]
        np.testing.assert_array_equal(written["t1"], expected["t1"])
    if os.name == "posix":
        other = tmp_path / "other"
        other.touch()
        assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(other.stat().st_mode)
    # An output's name may be anything, and an old file is replaced.
    relu = [systolic.Node(Relu(), ("x",), "file"), systolic.Node(Relu(), ("x",), "allow_pickle")]
    Model(relu, inputs={"x": ((1,), "int8")}, outputs=["file", "allow_pickle"]).save(tmp_path / "m.zip")
    output(capsys, "run", str(tmp_path / "m.zip"), "--array", "8x8", "--quiet", "--output", str(target))
    with np.load(target) as written:
        assert written.files == ["file", "allow_pickle"]


def test_output_is_whole_or_absent(
    model: Path, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError("the disk is full")

    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(np.lib.format, "write_array", fail)
    monkeypatch.setattr(np, "savez", fail)
    message = refused(
        capsys, "run", str(model), "--array", "8x8", "--quiet", "--output", str(tmp_path / "y.npz")
    )
    assert "the disk is full" in message and sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("options", [["--array", "8x8"], [], ["--no-check"], ["--array", "8x8", "--no-check"]])
def test_output_all(model: Path, x: Path, capsys: Capture, tmp_path: Path, options: list[str]) -> None:
    target = tmp_path / "y.npz"
    run = ("run", str(model), "--input", str(x), "--quiet", "--json", *options)
    written = json.loads(output(capsys, *run, "--output", str(target), "--output-all"))
    plain = json.loads(output(capsys, *run))
    assert written["stats"] == plain["stats"] and written["verdict"] == plain["verdict"]
    expected = systolic.run(Model.load(model), np.load(x), mode="wavefront", keep=True).tensors
    with np.load(target) as found:
        assert found.files == list(expected) == ["t0", "t1"]
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value)
    assert "give --output Y.npz too" in refused(capsys, *run, "--output-all")


def test_output_is_checked_before_anything_runs(
    model: Path, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "run", lambda *arguments, **options: pytest.fail("ran"))
    run = ("run", str(model), "--quiet", "--output")
    assert "no folder" in refused(capsys, *run, str(tmp_path / "nowhere" / "y.npz"))
    assert "is a folder" in refused(capsys, *run, str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    for option, name in (("--output", "y.npz"), ("--report", "r.html")):
        message = refused(capsys, "run", str(model), "--quiet", option, str(tmp_path / name))
        assert f"{option}: no permission to write {name}" in message


# verify, gemm, bench, info


@pytest.mark.slow
def test_verify(capsys: Capture) -> None:
    assert output(capsys, "verify", "--cases", "4", "--quiet").startswith(
        "passed: 4 cases against reference in "
    )
    values = as_json(capsys, "verify", "--cases", "8", "--seed", "3", "--quiet")
    known = systolic.verify(cases=8, seed=3).to_dict()
    assert {**values, "wall_seconds": 0} == {"schema": 1, **known, "wall_seconds": 0}
    assert as_json(capsys, "verify", "--case", "6", "--quiet")["checked"]["conv2d"] == 1


def test_verify_a_model(model: Path, x: Path, capsys: Capture) -> None:
    values = as_json(capsys, "verify", str(model), "--input", str(x), "--array", "8x8", "--quiet")
    assert values["passed"] and values["checked"] == {"layer": 2}


def test_verify_against_onnxruntime(capsys: Capture, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    np.save(tmp_path / "x.npy", systolic.load_example().images[:2])
    arguments = [
        "verify",
        str(DATA / "digits.onnx"),
        "--input",
        str(tmp_path / "x.npy"),
        "--against",
        "onnxruntime",
    ]
    values = as_json(capsys, *arguments, "--mode", "wavefront", "--quiet")
    assert values["passed"] and values["checked"] == {"layer": 14, "output": 1}
    assert "onnx" in refused(
        capsys, "verify", str(DATA / "digits.zip"), "--against", "onnxruntime", "--quiet"
    )


def test_verify_node_by_node(model: Path, x: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["verify", str(model), "--input", str(x), "--array", "8x8", "--quiet", "--node-by-node"]
    values = as_json(capsys, *arguments)
    assert [(node["tensor"], node["verdict"]) for node in values["nodes"]] == [
        ("t0", "equal"),
        ("t1", "equal"),
    ]
    text = output(capsys, *arguments)
    assert "Tensors against reference" in text and "2 equal" in text
    original = Relu.apply
    monkeypatch.setattr(Relu, "apply", lambda self, *inputs: original(self, *inputs) ^ 1)
    (_, wrong) = as_json(capsys, *arguments, status=1)["nodes"]
    assert wrong["verdict"] == "differs" and wrong["difference"]["max_abs"] == 1
    assert "differs" in output(capsys, *arguments, status=1)


def test_verify_node_by_node_against_onnxruntime(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    arguments = ["verify", str(DATA / "digits.onnx"), "--against", "onnxruntime", "--node-by-node"]
    arguments += ["--mode", "wavefront", "--quiet"]
    values = as_json(capsys, *arguments, "--tolerance", "0")
    assert values["passed"] and {node["verdict"] for node in values["nodes"]} == {"equal"}
    assert len(values["nodes"]) == 14
    original = QLinearAdd.apply
    monkeypatch.setattr(QLinearAdd, "apply", lambda self, *inputs: original(self, *inputs) ^ 1)
    text = output(capsys, *arguments, status=1)
    assert "node 'residual_quant' (QLinearAdd), tensor" in text and "what it reads is equal" in text
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert 'pip install "systolic[onnx]"' in refused(capsys, *arguments)


# summary and reports


def test_summary(model: Path, capsys: Capture, tmp_path: Path) -> None:
    values = as_json(capsys, "summary", str(model), "--array", "8x8", "--batch", "3")
    loaded = Model.load(model)
    known = loaded.summary(batch=3).to_dict()
    assert values["nodes"][0]["macs"] == known["nodes"][0]["macs"] == 3 * 16 * 18 * 3
    run = systolic.run(loaded, np.zeros((3, 2, 6, 6), np.int8), machine=ArrayConfig(8, 8), mode="wavefront")
    assert values["totals"]["cycles"] == run.stats.cycles
    text = output(capsys, "summary", str(model), "--array", "8x8", "--batch", "3")
    assert f"{run.stats.cycles:,}" in text and "on a 8 x 8 array" in text
    for suffix in ("html", "csv", "json"):
        output(capsys, "summary", str(model), "--report", str(tmp_path / f"s.{suffix}"))
        assert "t0" in (tmp_path / f"s.{suffix}").read_text()


def test_summary_of_open_sizes(capsys: Capture, tmp_path: Path) -> None:
    Model([Relu()], inputs={"x": ((None, None), "int8")}).save(tmp_path / "open.zip")
    values = as_json(capsys, "summary", str(tmp_path / "open.zip"))
    assert values["totals"]["complete"] is False and values["nodes"][0]["writes"] == "?"
    assert "?" in output(capsys, "summary", str(tmp_path / "open.zip"))
    values = as_json(capsys, "summary", str(tmp_path / "open.zip"), "--shape", "x=2x7")
    assert values["totals"]["complete"] is True and values["nodes"][0]["writes"] == "2x7"
    assert "shapes are for the inputs 'x', not 'y'" in refused(
        capsys, "summary", str(tmp_path / "open.zip"), "--shape", "y=2x7"
    )


def test_sizes_of_random_inputs(capsys: Capture, tmp_path: Path) -> None:
    """--shape with commas or as before, and --batch, for run and verify; the line shows it again."""
    Model([Relu()], inputs={"x": ((None, None), "int8")}).save(tmp_path / "open.zip")
    path = str(tmp_path / "open.zip")
    common = ("--array", "8x8", "--quiet")
    for shape in ("x=2,7", "x=2x7"):
        assert as_json(capsys, "run", path, "--shape", shape, *common)["outputs"] == {"t0": [2, 7]}
        assert as_json(capsys, "verify", path, "--shape", shape, *common)["passed"]
        assert as_json(capsys, "summary", path, "--shape", shape)["nodes"][0]["writes"] == "2x7"
    for command in ("run", "verify"):
        assert "in the shell by --shape x=..." in refused(capsys, command, path, *common)
        message = refused(capsys, command, path, "--shape", "x=2,7", "--input", "x.npy", *common)
        assert "--shape would have no effect: it is of the random input, and --input is given" in message
    assert "--batch would have no effect: it goes with a MODEL" in refused(capsys, "run", "--batch", "3", "--quiet")
    assert "random cases draw their own arrays" in refused(capsys, "verify", "--batch", "3", "--quiet")
    Model([Relu()], inputs={"x": ((None, 3), "int8")}).save(tmp_path / "batch.zip")
    values = as_json(capsys, "run", str(tmp_path / "batch.zip"), "--batch", "5", *common)
    assert values["outputs"] == {"t0": [5, 3]}


def test_float_models_on_the_array(capsys: Capture, tmp_path: Path) -> None:
    product = systolic.layers.FloatMatMul(runtime_constants=())
    weight = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    inputs: Any = {"x": ((None, 4), "float32")}
    model = Model([systolic.Node(product, ("x", "w"), "y")], inputs=inputs, constants={"w": weight})
    path = str(tmp_path / "m.onnx")
    systolic.save_onnx(model, path)
    text = output(capsys, "run", path, "--compute", "bfloat16", "--quiet", "--array", "8x8")
    assert "ArrayMatMul" in text and "largest difference" in text
    assert "every layer's output equals numpy's, bit for bit (1 layer)" in text
    assert "outputs depend on products in bfloat16: not compared bit for bit with its float32" in text
    found = json.loads(output(capsys, "run", path, "--compute", "float16", "--quiet", "--json"))
    assert found["verdict"]["onnxruntime"]["in_formats"] == {"y": "float16"}
    assert any("cannot compile node 'y' (ArrayMatMul)" in note for note in found["notes"])
    assert "passed" in output(capsys, "verify", path, "--compute", "float8_e5m2", "--quiet", "--array", "8x8")
    assert "ArrayMatMul" in output(capsys, "summary", path, "--compute", "bfloat16")


def test_what_does_not_run_on_the_array_is_said_first(capsys: Capture, tmp_path: Path) -> None:
    weight = np.ones((4, 3), np.float32)
    inputs: Any = {"x": ((None, 4), "float32")}
    nodes = [systolic.Node(systolic.layers.FloatMatMul(weight), "x", "y", f"dense{i}") for i in range(1)]
    Model(nodes, inputs=inputs).save(tmp_path / "float.zip")
    path = str(tmp_path / "float.zip")
    told = "no MAC runs on the array: 1 FloatMatMul ('dense0'): its operands are float32: quantize the model first (docs/quantize.md)"
    for command in (("run", "--quiet"), ("verify", "--quiet"), ("summary",)):
        assert output(capsys, command[0], path, *command[1:]).splitlines()[0] == told
        (node,) = as_json(capsys, command[0], path, *command[1:])["off_array"]
        macs = {"run": 24, "verify": None, "summary": 12}[command[0]]
        assert node == {
            "macs": macs, "node": "dense0", "layer": "FloatMatMul", "reason": "its operands are float32: quantize the model first (docs/quantize.md)",
        }  # fmt: skip
    output(capsys, "summary", path, "--report", str(tmp_path / "s.html"))
    assert "no MAC runs on the array" in (tmp_path / "s.html").read_text()
    # A program has the host multiply two tensors.
    two = Model([systolic.Node(systolic.layers.MatMulInteger(), ("x", "w"), "y", "both")], inputs={
        "x": ((2, 3), "int8"), "w": ((3, 4), "int8"),
    })  # fmt: skip
    two.save(tmp_path / "two.zip")
    ran = output(capsys, "run", str(tmp_path / "two.zip"), "--quiet")
    assert ran.splitlines()[0] == (
        "no MAC runs on the array: 1 MatMulInteger ('both'): on a machine with memories the host computes it "
        "(docs/compiler.md); --ideal runs it on the array"
    )
    assert "no MAC" not in output(capsys, "run", str(tmp_path / "two.zip"), "--quiet", "--ideal")
    # Nothing of it where all MACs run there.
    values = as_json(capsys, "run", "--mode", "wavefront", "--quiet", "--no-check")
    assert values["off_array"] is None and values["reasons"] == []
    assert values["host_macs"] == 0 and values["array_share"] == 1


def test_the_share_of_macs_on_the_array(capsys: Capture, tmp_path: Path) -> None:
    q = QuantParams(0.5)
    nodes = [
        systolic.Node(Dense(np.ones((4, 3), np.int8), x=q, w=q, y=q), "x", "y", "dense"),
        systolic.Node(systolic.layers.DequantizeLinear(q), "y", "f", "dequantize"),
        systolic.Node(systolic.layers.FloatMatMul(np.ones((3, 50), np.float32)), "f", "z", "head"),
    ]
    Model(nodes, inputs={"x": ((None, 4), "int8")}).save(tmp_path / "m.zip")
    path = str(tmp_path / "m.zip")
    told = "warning: less than half: 7.4% of the MACs run on the array; off it: 1 FloatMatMul ('head'): its operands"
    for command in ("run", "--quiet"), ("run", "--quiet", "--ideal"), ("summary",):
        text = output(capsys, command[0], path, *command[1:])
        assert text.startswith(told) and "not on the array" in text and "host MACs" in text
        values = as_json(capsys, command[0], path, *command[1:])
        assert values["reasons"][0].startswith(told)
    assert values["totals"]["array_share"] == 12 / 162
    values = as_json(capsys, "run", path, "--quiet", "--batch", "3", "--report", str(tmp_path / "r.html"))
    assert values["host_macs"] == 3 * 150 and values["array_share"] == 12 / 162
    assert values["layers"][2]["off_array"]["macs"] == 450 and "off_array" not in values["layers"][0]
    page = (tmp_path / "r.html").read_text()
    assert told.split("(")[0] in page and "36 on the array, 450 on the host: 7.4% on the array" in page


def test_a_summary_fits_the_terminal(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(DATA / "digits.zip")
    whole = output(capsys, "summary", path)
    assert max(map(len, whole.splitlines())) > 140 and "logits_quant" in whole
    top = output(capsys, "summary", path, "--top", "3").splitlines()
    assert [line.split()[1] for line in top[3:6]] == ["depthwise_quant", "down_quant", "block1_quant"]
    assert top[-1] == "11 of 14 nodes are not shown: --all shows every one" and "502,400" in top[-2]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    for columns, lines in ((80, 24), (60, 15), (120, 50)):
        monkeypatch.setattr(
            "shutil.get_terminal_size",
            lambda fallback=None, columns=columns, lines=lines: os.terminal_size((columns, lines)),
        )
        text = output(capsys, "summary", path).splitlines()
        assert max(map(len, text)) <= columns and len(text) < lines
        # Those on the array first, the most cycles first.
        assert text[3].split()[0] == "depthwise_quant"
        assert output(capsys, "summary", path, "--all") == whole
        assert len(output(capsys, "summary", path, "--top", "2").splitlines()) == 8
    with pytest.raises(SystemExit):
        cli.main(["summary", path, "--all", "--top", "3"])


def test_summary_of_bad_models(capsys: Capture, tmp_path: Path) -> None:
    assert "missing.onnx" in refused(capsys, "summary", str(tmp_path / "missing.onnx"))
    (tmp_path / "text.zip").write_text("no model")
    assert "text.zip is not a systolic model" in refused(capsys, "summary", str(tmp_path / "text.zip"))


@pytest.mark.parametrize("suffix", (".html", ".csv", ".json"))
def test_run_report(suffix: str, model: Path, capsys: Capture, tmp_path: Path) -> None:
    target = tmp_path / f"cost{suffix}"
    output(capsys, "run", str(model), "--array", "8x8", "--quiet", "--report", str(target))
    text = target.read_text(encoding="utf-8")
    assert "t0" in text and "t1" in text
    if suffix == ".json":
        assert [node["on"] for node in json.loads(text)["nodes"]] == ["array", "host"]


def test_report_is_checked_before_anything_runs(
    model: Path, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "run", lambda *arguments, **options: pytest.fail("ran"))
    run = ("run", str(model), "--quiet", "--report")
    assert "must end in .html, .csv, .json, not" in refused(capsys, *run, str(tmp_path / "cost.pdf"))
    assert "no folder" in refused(capsys, *run, str(tmp_path / "nowhere" / "cost.csv"))
    (tmp_path / "folder.csv").mkdir()
    assert "is a folder" in refused(capsys, *run, str(tmp_path / "folder.csv"))


@pytest.mark.parametrize("sizes", ((5, 9, 3), (1, 1, 1), (30, 20, 40), (0, 3, 4), (3, 0, 4), (3, 4, 0)))
@pytest.mark.parametrize("mode", ("cycle", "wavefront"))
def test_gemm(sizes: tuple[int, int, int], mode: str, capsys: Capture) -> None:
    array = ArrayConfig(8, 7)
    values = as_json(capsys, "gemm", *map(str, sizes), "--array", "8x7", "--mode", mode, "--quiet")
    stats = systolic.estimate(Gemm(*sizes), machine=array)
    assert (
        values["gemm"] == Gemm(*sizes).to_dict()
        and values["stats"] == stats.to_dict()
        and values["passed"] is True
    )
    assert values["machine"]["array"] == array.to_dict() and values["mode"] == mode
    assert values["seconds"] == stats.cycles / 700e6 and values["utilization"] == stats.utilization
    text = output(capsys, "gemm", *map(str, sizes), "--array", "8x7", "--mode", mode, "--quiet")
    assert f"{stats.cycles:,}" in text and "sums equal numpy's, cycles the closed form" in text


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_gemm_on_each_dataflow(dataflow: str, capsys: Capture) -> None:
    given = ("gemm", "9", "20", "11", "--dataflow", dataflow, "--quiet")
    for mode in ("cycle", "wavefront"):
        values = as_json(capsys, *given, "--array", "8x7", "--mode", mode)
        array = ArrayConfig(8, 7, dataflow=dataflow)
        assert values["machine"]["array"] == array.to_dict() and values["passed"] is True
        assert values["stats"] == systolic.estimate(Gemm(9, 20, 11), machine=array).to_dict()
    assert dataflow.replace("_", " ") in output(capsys, *given, "--array", "8x7")
    # A preset's memories are left out.
    machine = as_json(capsys, *given, "--estimate")["machine"]
    assert machine["array"]["dataflow"] == dataflow
    assert dataflow == "weight_stationary" or "memory" not in machine


def test_gemm_on_all_dataflows(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    given = ("gemm", "9", "20", "11", "--dataflow", "all", "--array", "8x7", "--quiet")
    found = systolic.compare(Gemm(9, 20, 11), machine=systolic.MachineConfig(ArrayConfig(8, 7), clock_mhz=700))
    for mode in ("cycle", "wavefront"):
        values = as_json(capsys, *given, "--mode", mode)
        assert values == {"schema": 1, "gemm": Gemm(9, 20, 11).to_dict(), "mode": mode, **found.to_dict(), "passed": True}
    text = output(capsys, *given)
    assert str(found) in text and "verdict: sums equal numpy's, cycles the closed form" in text
    monkeypatch.setattr(engine, "matmul", lambda *arguments, **options: pytest.fail("ran"))
    values = as_json(capsys, *given, "--estimate")
    assert values["passed"] is None and values["mode"] == "estimate" and values["fastest"] == found.fastest
    # A preset's memories are left out.
    assert "memory" not in as_json(capsys, *given[:6], "--estimate")["machine"]
    assert "'all'" in refused(capsys, "run", "--dataflow", "all")


@pytest.mark.parametrize("dataflow", [*DATAFLOWS, "all"])
@pytest.mark.parametrize("mode", ("cycle", "wavefront"))
def test_gemm_in_the_format_of_a_preset(dataflow: str, mode: str, capsys: Capture) -> None:
    pytest.importorskip("ml_dtypes")
    given = ("gemm", "5", "140", "3", "--preset", "tpu-v3", "--dataflow", dataflow, "--mode", mode, "--quiet")
    values = as_json(capsys, *given)
    assert values["passed"] is True and values["machine"]["array"]["activation_dtype"] == "bfloat16"
    assert "sums equal numpy's" in output(capsys, *given)


@pytest.mark.parametrize(
    "fields",
    [
        {"weight_dtype": "int4"},
        {"activation_dtype": "uint16", "psum_bits": 64},
        {"psum_bits": 18, "overflow": "saturate"},
        {"activation_dtype": "float8_e5m2", "weight_dtype": "float8_e4m3fn"},
        {"activation_dtype": "uint8", "weight_dtype": "int8"},
    ],
)
def test_gemm_in_other_formats(fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    pytest.importorskip("ml_dtypes")
    machine = systolic.MachineConfig(ArrayConfig(8, 7, **fields))
    monkeypatch.setattr("systolic.cli.array_commands.machines_of", lambda options: [machine])
    values = as_json(capsys, "gemm", "5", "19", "9", "--quiet")
    assert values["passed"] is True and values["machine"] == machine.to_dict()
    assert machine.array.format.text in output(capsys, "gemm", "5", "19", "9", "--quiet")


def test_gemm_that_differs_on_one_dataflow(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    multiply = engine.matmul

    def wrong(*arguments: Any, **options: Any) -> Any:
        result = multiply(*arguments, **options)
        if options["array"].dataflow == "output_stationary":
            result.acc[0, 0] += 1
        return result

    monkeypatch.setattr(engine, "matmul", wrong)
    given = ("gemm", "5", "9", "3", "--array", "8x8", "--dataflow", "all", "--quiet")
    assert as_json(capsys, *given, status=1)["passed"] is False
    assert "verdict: FAILED" in output(capsys, *given, status=1)


def test_dataflow_of_a_machine_with_memories(tmp_path: Path, capsys: Capture) -> None:
    memory = systolic.MemoryConfig(
        weight_bytes=2**20, weight_bytes_per_second=10**9, unified_buffer_rows=64, host_rows=64,
        host_bytes_per_second=10**9,
    )  # fmt: skip
    machine = systolic.MachineConfig(ArrayConfig(8, 8), memory=memory)
    (tmp_path / "machine.json").write_text(json.dumps(machine.to_dict()))
    given = ("run", "--machine", str(tmp_path / "machine.json"), "--quiet")
    message = refused(capsys, *given, "--dataflow", "output_stationary")
    assert "a machine with memories is weight stationary, but its array is output_stationary" in message


@pytest.mark.slow
def test_models_on_another_dataflow(capsys: Capture) -> None:
    given = "--array", "64x64", "--mode", "wavefront", "--quiet"
    reports = [as_json(capsys, "run", *given, "--dataflow", name) for name in DATAFLOWS]
    assert len({report["stats"]["cycles"] for report in reports}) == 3
    # --dataflow alone names a machine, too.
    network = str(DATA / "digits.onnx")
    report = as_json(capsys, "verify", network, "--mode", "wavefront", "--quiet", "--dataflow", "output_stationary")
    assert report["passed"]


def test_vectors_on_another_dataflow(tmp_path: Path, capsys: Capture) -> None:
    x, w = np.ones((3, 4), np.int8), np.ones((4, 2), np.int8)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "w.npy", w)
    files = str(tmp_path / "x.npy"), str(tmp_path / "w.npy"), "--out", str(tmp_path / "out")
    given = ("vectors", *files, "--rows", "2", "--cols", "2", "--dataflow", "output_stationary")
    manifest = as_json(capsys, *given)["manifest"]
    assert {"west_drain.mem", "north_out.mem", "bottom_out.mem"} <= set(manifest["files"])
    assert manifest["cycles"] == 4 + 4 + 2 * 2 + 2 - 2


def test_gemm_that_differs(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(oracle, "matmul", lambda x, w: np.zeros((5, 3), np.int32))
    assert "FAILED" in output(capsys, "gemm", "5", "9", "3", "--array", "8x8", "--quiet", status=1)
    assert as_json(capsys, "gemm", "5", "9", "3", "--array", "8x8", "--quiet", status=1)["passed"] is False


def test_gemm_estimate_runs_nothing(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(engine, "matmul", lambda *arguments, **options: pytest.fail("ran"))
    values = as_json(capsys, "gemm", "1000000", "1000000", "1000000", "--estimate")
    assert values["passed"] is None and values["mode"] == "estimate"
    assert values["stats"]["macs"] == 10**18
    assert "nothing run" in output(capsys, "gemm", "3", "4", "5", "--estimate")


@pytest.mark.parametrize("name", ("run", "summary", "gemm"))
def test_clock_and_buffers(name: str, capsys: Capture) -> None:
    machine = systolic.MachineConfig(
        ArrayConfig(8, 8, double_buffered=False, accumulator_rows=32), clock_mhz=1400.5
    )
    options = ("--array", "8x8", "--single-buffered", "--accumulators", "32", "--clock", "1400.5", "--quiet")
    example = systolic.load_example()
    if name == "run":
        values = as_json(capsys, "run", "--mode", "wavefront", "--no-check", *options)
        expected = systolic.run(example.model, example.images, machine=machine, mode="wavefront")
        assert values["stats"]["cycles"] == expected.stats.cycles
        assert values["seconds"] == expected.seconds
    elif name == "summary":
        values = as_json(capsys, "summary", str(DATA / "digits.zip"), *options[:-1])
        expected_totals = systolic.summary(example.model, machine=machine).totals
        assert values["totals"]["cycles"] == expected_totals["cycles"]
        assert values["totals"]["seconds"] == expected_totals["seconds"]
    else:
        values = as_json(capsys, "gemm", "50", "20", "9", *options)
        assert values["stats"]["cycles"] == engine.estimate(Gemm(50, 20, 9), machine=machine).cycles
    assert values["machine"] == machine.to_dict()
    plain = as_json(capsys, "gemm", "50", "20", "9", "--array", "8x8", "--estimate")["stats"]["cycles"]
    assert name != "gemm" or values["stats"]["cycles"] > plain


def test_clock_and_buffers_of_a_preset(capsys: Capture) -> None:
    array = presets.get("tpu-v1").array
    path = str(DATA / "digits.zip")
    values = as_json(capsys, "compile", path, "--clock", "350", "--accumulators", "128", "--single-buffered")
    changed = replace(
        presets.get("tpu-v1"), clock_mhz=350, array=replace(array, accumulator_rows=128, double_buffered=False)
    )
    program = engine.compile(systolic.load_example().model, machine=changed, batch=1)
    assert values["stats"]["cycles"] == time_program(program, changed).cycles
    assert "passed" in output(capsys, "verify", path, "--accumulators", "64", "--single-buffered", "--quiet")


def test_accumulators_where_sums_stay(capsys: Capture) -> None:
    few = ("gemm", "3", "4", "5", "--accumulators", "8", "--dataflow")
    assert "sums stay in the PEs" in refused(capsys, *few, "output_stationary")


def test_a_program_is_read_already(capsys: Capture, tmp_path: Path) -> None:
    program = str(tmp_path / "program.zip")
    output(capsys, "compile", str(DATA / "digits.zip"), "--output", program, "--quiet")
    for option in (("--qdq", "float"), ("--compute", "bfloat16")):
        assert "give it to systolic compile" in refused(capsys, "run", program, "--quiet", *option)


def test_an_estimate_takes_no_option_of_a_run(capsys: Capture) -> None:
    estimate = ("gemm", "3", "4", "5", "--estimate")
    for option in (("--mode", "cycle"), ("--threads", "2"), ("--seed", "0")):
        message = refused(capsys, *estimate, *option)
        assert message == (
            f"systolic gemm: {option[0]} would have no effect: it is of a run: leave it out, or --estimate"
        )
    assert as_json(capsys, "gemm", "3", "4", "5", "--mode", "wavefront", "--quiet")["mode"] == "wavefront"
    assert as_json(capsys, "gemm", "3", "4", "5", "--array", "4x4", "--quiet")["mode"] == "cycle"


def test_bench(capsys: Capture) -> None:
    values = as_json(capsys, "bench", "--array", "4x4", "--m", "5", "--rounds", "1")
    assert [m["unit"] for m in values["measurements"]] == ["PE-cycles/s"] * 3 + ["MAC/s"] * 2
    assert values["info"]["systolic"] == systolic.__version__
    text = output(capsys, "bench", "--array", "4x4", "--m", "5", "--rounds", "1")
    assert "numpy stepping" in text and "ratio" in text


def test_info(capsys: Capture) -> None:
    assert as_json(capsys, "info")["kernel"] == systolic._kernels.instruction_set
    assert output(capsys, "info").startswith(f"systolic {systolic.__version__}\n")


# Bad usage


@pytest.mark.parametrize(
    "arguments, words",
    (
        (["gemm", "1", "2", "3", "--array", "3y4"], "must be ROWSxCOLS, such as 256x256, not '3y4'"),
        (["gemm", "1", "2", "3", "--array", "3x"], "must be ROWSxCOLS, such as 256x256, not '3x'"),
        (["gemm", "1", "2", "3", "--array", "3x4x5"], "must be ROWSxCOLS"),
        (["gemm", "1", "2", "3", "--array", "0x5"], "rows must be a positive integer, not 0"),
        (["gemm", "1", "2", "3", "--array", "5x-1"], "cols must be a positive integer, not -1"),
        (
            ["gemm", "1", "2", "3", "--array", "99999x5"],
            "rows must be an integer of at most ",
        ),
        (["gemm", "1", "2", "3", "--preset", "tpu-v9"], "'tpu-v1'"),
        (["gemm", "1", "2", "3", "--preset", "tpu-v1", "--array", "3x4"], "not allowed with"),
        (["gemm", "1", "2", "3", "--mode", "fast"], "'cycle', 'wavefront'"),
        (["gemm", "-1", "2", "3"], "argument M: must be at least 0, not -1"),
        (["gemm", "1", "2.5", "3"], "argument K: must be an integer, not '2.5'"),
        (["gemm", "1", "2"], "N"),
        (["gemm", "1", "2", "3", "--threads", "0"], "argument --threads: must be at least 1, not 0"),
        (["verify", "--cases", "0"], "argument --cases: must be at least 1, not 0"),
        (["verify", "--cases", "many"], "must be an integer, not 'many'"),
        (["verify", "--seed", "-1"], "must be at least 0, not -1"),
        (["verify", "--against", "torch"], "'reference'"),
        (["verify", "--against", "onnxruntime"], "pass the path of an .onnx file"),
        (["verify", "--input", "x.npy"], "random cases draw their own arrays"),
        (["verify", "m.zip", "--case", "0"], "systolic verify: --case would have no effect: it is of random cases"),
        (["run", "--input", "x.npy"], "--input would have no effect: it goes with a MODEL"),
        (["run", "--qdq", "float"], "--qdq would have no effect: it goes with a MODEL"),
        (["verify", "m.zip", "--tolerance", "1"], "must be a number from 0 to below 1, not '1'"),
        (["verify", "m.zip", "--tolerance", "nan"], "must be a number from 0 to below 1, not 'nan'"),
        (["verify", "--node-by-node"], "--node-by-node would have no effect: random cases draw"),
        (["verify", "--tolerance", "0.1"], "--tolerance would have no effect: random cases draw"),
        (["summary"], "MODEL"),
        (["summary", "m.zip", "--batch", "-1"], "argument --batch: must be at least 0, not -1"),
        (["summary", "m.zip", "--shape", "1x2"], "must be NAME=SIZES, such as image=1x3x224x224, not '1x2'"),
        (["summary", "m.zip", "--shape", "x=1xb"], "must be NAME=SIZES"),
        (["gemm", "1", "2", "3", "--clock", "0"], "must be a positive number of MHz, such as 700, not '0'"),
        (["gemm", "1", "2", "3", "--clock", "inf"], "must be a positive number of MHz"),
        (["run", "--accumulators", "1"], "argument --accumulators: must be at least 2, not 1"),
        (["bench", "--rounds", "0"], "must be at least 1, not 0"),
        (["info", "more"], "unrecognized arguments: more"),
    ),
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_usage(arguments: list[str], words: str, capsys: Capture) -> None:
    try:
        status: Any = cli.main(arguments)
    except SystemExit as end:
        status = end.code
    captured = capsys.readouterr()
    assert status == 2 and captured.out == "" and words in captured.err, captured.err


def test_no_such_command(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["fly"])
    assert end.value.code == 2 and "usage: systolic" in capsys.readouterr().err


def test_no_command_lists_them(capsys: Capture) -> None:
    assert cli.main([]) == 2
    text = capsys.readouterr().err
    assert all(name in text for name in ("run", "verify", "gemm", "vectors", "bench", "info"))


@pytest.mark.parametrize("options", (["--mode", "wavefront"], ["--array", "3x3"], ["--threads", "2"]))
def test_verify_without_a_model_refuses_what_goes_with_one(options: list[str], capsys: Capture) -> None:
    assert cli.main(["verify", "--cases", "3", *options]) == 2
    assert "random cases draw their own arrays and are checked in every mode" in capsys.readouterr().err


def test_sizes_beyond_memory(capsys: Capture) -> None:
    assert cli.main(["gemm", *["1000000000000"] * 3, "--estimate", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stats"]["macs"] == 10**36
    assert cli.main(["gemm", "100000000", "100000000", "1", "--quiet"]) == 2
    assert "--estimate needs none" in capsys.readouterr().err


def test_bad_models(model: Path, capsys: Capture, tmp_path: Path) -> None:
    for name in ("run", "verify"):
        assert "missing.zip" in refused(capsys, name, str(tmp_path / "missing.zip"), "--quiet")
        assert refused(capsys, name, str(tmp_path), "--quiet")
        (tmp_path / "text.zip").write_text("no model")
        assert "text.zip is not a systolic model" in refused(
            capsys, name, str(tmp_path / "text.zip"), "--quiet"
        )
        whole = model.read_bytes()
        for length in (0, 1, len(whole) // 3, len(whole) - 30):
            (tmp_path / "cut.zip").write_bytes(whole[:length])
            assert "cut.zip" in refused(capsys, name, str(tmp_path / "cut.zip"), "--quiet")


@pytest.mark.slow
def test_damaged_models(model: Path, capsys: Capture, tmp_path: Path) -> None:
    whole = model.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 3):
            data[place] = rng.integers(256)
        (tmp_path / "damaged.zip").write_bytes(data)
        status = cli.main(["verify", str(tmp_path / "damaged.zip"), "--array", "8x8", "--quiet"])
        assert status in (0, 2)
        capsys.readouterr()


def test_bad_onnx_models(capsys: Capture, tmp_path: Path) -> None:
    om = pytest.importorskip("support.onnx_models")
    (tmp_path / "text.onnx").write_text("no model")
    assert "text.onnx is not an ONNX model" in refused(capsys, "run", str(tmp_path / "text.onnx"))
    nodes = [om.node("made.up.Fly", ["x"], "y", name="the flight")]
    graph = om.model(nodes, {"x": ("float32", (1, 4))}, ["y"])
    assert "'the flight' is a made.up.Fly" in refused(capsys, "run", str(om.save(graph, tmp_path)))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_unreadable_model(model: Path, capsys: Capture) -> None:
    model.chmod(0)
    assert "ermission" in refused(capsys, "run", str(model))


def test_bad_inputs(model: Path, x: Path, capsys: Capture, tmp_path: Path) -> None:
    def message(path: Path) -> str:
        return refused(capsys, "run", str(model), "--input", str(path), "--array", "8x8", "--quiet")

    def array(values: Any, name: str = "bad.npy", **options: Any) -> Path:
        np.save(tmp_path / name, values, **options)
        return tmp_path / name

    assert "missing.npy" in message(tmp_path / "missing.npy")
    assert str(tmp_path) in message(tmp_path)
    assert "must have shape (?, 2, 6, 6) (? is any batch), not (2, 6, 6)" in message(
        array(np.zeros((2, 6, 6), np.int8))
    )
    assert "must hold int8, not float64; convert with .astype('int8')" in message(
        array(np.zeros((1, 2, 6, 6)))
    )
    not_numbers = f"{tmp_path / 'bad.npy'} is not an .npy or .npz file of numbers"
    pickled = message(array(np.array([{1: 2}], dtype=object), allow_pickle=True))
    assert not_numbers in pickled and "allow_pickle" not in pickled and "unsafe" not in pickled
    for content in (
        b"",
        b"text",
        b"\x93NUMPY",
        b"\x80\x04.",
        b"PK\x03\x04",
        x.read_bytes()[:-3],
        x.read_bytes()[:70],
    ):
        (tmp_path / "bad.npy").write_bytes(content)
        assert not_numbers in message(tmp_path / "bad.npy"), content
    np.savez(tmp_path / "bad.npz", y=np.zeros((1, 2, 6, 6), np.int8))
    assert "inputs are 'x', not 'y'" in message(tmp_path / "bad.npz")
    whole = (tmp_path / "bad.npz").read_bytes()
    for length in (10, 150, len(whole) - 10):
        (tmp_path / "bad.npz").write_bytes(whole[:length])
        assert "bad.npz is not an .npy or .npz file of numbers" in message(tmp_path / "bad.npz")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes among files")
def test_pipes_do_not_block(model: Path, x: Path, capsys: Capture, tmp_path: Path) -> None:
    for name in ("pipe.onnx", "pipe.zip", "pipe.npy"):
        os.mkfifo(tmp_path / name)
    for arguments in (
        ["run", str(tmp_path / "pipe.onnx")],
        ["verify", str(tmp_path / "pipe.onnx")],
        ["run", str(tmp_path / "pipe.zip")],
        ["summary", str(tmp_path / "pipe.zip")],
        ["run", str(model), "--input", str(tmp_path / "pipe.npy")],
    ):
        assert "is not a plain file" in refused(capsys, *arguments)


@pytest.mark.slow
def test_damaged_inputs(model: Path, x: Path, capsys: Capture, tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", x=np.load(x))
    rng = np.random.default_rng(0)
    for path in (x, tmp_path / "x.npz"):
        whole = path.read_bytes()
        for _ in range(80):
            data = bytearray(whole)
            for place in rng.integers(0, min(len(data), 140), 3):
                data[place] = rng.integers(256)
            path.write_bytes(data)
            arguments = [
                "run",
                str(model),
                "--input",
                str(path),
                "--array",
                "8x8",
                "--mode",
                "wavefront",
                "--quiet",
            ]
            assert cli.main(arguments) in (0, 2)
            capsys.readouterr()


def test_inputs_by_name(capsys: Capture, tmp_path: Path) -> None:
    add = systolic.Node(systolic.layers.Binary("Add"), ("a", "b"), "sum")
    Model([add], inputs={"a": ((2,), "int8"), "b": ((2,), "int8")}).save(tmp_path / "add.zip")
    np.savez(tmp_path / "ab.npz", b=np.int8([3, 4]), a=np.int8([1, 2]))
    arguments = ["run", str(tmp_path / "add.zip"), "--input", str(tmp_path / "ab.npz"), "--quiet"]
    output(capsys, *arguments, "--output", str(tmp_path / "y.npz"))
    assert np.load(tmp_path / "y.npz")["sum"].tolist() == [4, 6]
    np.save(tmp_path / "a.npy", np.int8([1, 2]))
    assert "2 inputs ('a', 'b')" in refused(
        capsys, "run", str(tmp_path / "add.zip"), "--input", str(tmp_path / "a.npy")
    )


# validate


@pytest.mark.slow
def test_validate(capsys: Capture) -> None:
    values = as_json(capsys, "validate", "tpu-v1")
    assert values["preset"] == "tpu-v1" and values["passed"] is True
    assert all(check["passed"] for check in values["checks"]) and len(values["checks"]) == 19
    shown = output(capsys, "validate", "tpu-v1")
    assert "Table 3: MLP0, % of cycles" in shown and shown.endswith("every wanted figure is met\n")


def test_validate_says_what_is_missed(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    met, missed = Check("peak", "TeraOps/s", 92.0, 91.8, 0.5), Check("stall", "% of cycles", 50.0, 54.0, 3.0)
    found = Validation(presets.TPU_V1, (met, missed), {}, {}, {})
    monkeypatch.setitem(array_commands.VALIDATIONS, "tpu-v1", lambda: found)
    assert output(capsys, "validate", "tpu-v1", status=1).endswith("missed: stall\n")
    values = as_json(capsys, "validate", "tpu-v1", status=1)
    assert values["passed"] is False
    assert [check["name"] for check in values["checks"] if not check["passed"]] == ["stall"]


def test_validate_refuses(capsys: Capture) -> None:
    assert "invalid choice: 'tpu-v2'" in refused(capsys, "validate", "tpu-v2")
    assert "required: PRESET" in refused(capsys, "validate")


# As a process


@pytest.mark.slow
def test_python_m() -> None:
    done = shell("gemm", "3", "4", "5", "--json", "--quiet")
    assert done.returncode == 0 and done.stderr == b""
    assert json.loads(done.stdout)["passed"] is True
    done = shell("gemm", "3", "4", "5", "--array", "3y4")
    assert done.returncode == 2 and b"3y4" in done.stderr and done.stdout == b""


@pytest.mark.slow
@pytest.mark.parametrize("started", ("script", "-m systolic", "-msystolic"))
@pytest.mark.parametrize("arguments", ([], ["info"], ["info", "--json"]), ids=" ".join)
def test_a_wrong_instruction_set(started: str, arguments: list[str], tmp_path: Path) -> None:
    """One line, as of other bad usage; from Python it is an ImportError: see test_import.py."""
    # As installers write it.
    (tmp_path / "systolic").write_text("import sys\nfrom systolic.cli import main\nsys.exit(main())\n")
    first = [str(tmp_path / "systolic")] if started == "script" else started.split()
    done = subprocess.run(
        [sys.executable, *first, *arguments],
        env=variables(SYSTOLIC_ISA="nonsense"), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("systolic: SYSTOLIC_ISA=nonsense names no instruction set")


def test_version() -> None:
    assert shell("--version").stdout.decode().strip() == f"systolic {systolic.__version__}"


@pytest.mark.parametrize(
    "arguments, words",
    (
        (["rnu"], "did you mean 'run'?"),
        (["zzz"], "invalid choice: 'zzz'"),
        (["run", "--arry", "8x8"], "systolic run: error: unrecognized arguments: --arry; did you mean '--array'?"),
        (["run", "--quiett"], "did you mean '--quiet'?"),
        (["gemm", "1", "2", "3", "--sed=4"], "did you mean '--seed'?"),
        (["gemm", "1", "2", "3", "--preset", "TPUv1"], "did you mean 'tpu-v1'?"),
        (["gemm", "1", "2", "3", "--mode", "wave"], "did you mean 'wavefront'?"),
        (["--versoin"], "did you mean '--version'?"),
    ),
)  # fmt: skip
def test_what_was_probably_meant(arguments: list[str], words: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    err = capsys.readouterr().err
    assert end.value.code == 2 and words in err
    assert ("did you mean" in err) == ("did you mean" in words)


def test_every_command_has_an_example() -> None:
    parser = build_parser()
    (commands,) = (action.choices for action in parser._actions if action.dest == "command")
    assert commands is not None and [*commands] == [*EXAMPLES]
    for name, line in EXAMPLES.items():
        program, *arguments = line.split()
        assert program == "systolic" and arguments[0] == name
        assert parser.parse_args(arguments).command == name
        assert parser.parse_args([*arguments, "--quiet", "--json"]).quiet


@pytest.mark.parametrize("name", ("", *COMMANDS))
def test_help(name: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"] if name else ["--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0 and f"usage: systolic {name}".strip() in text
    if name:
        assert "--json" in text
    else:
        assert all(f"\n    {command} " in text for command in COMMANDS)
        assert (
            "Exit status: 0 all right, 1 a check failed, 2 bad usage or input, 130 interrupted."
            in " ".join(text.split())
        )


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ("ascii", "cp1252", "utf-8"))
@pytest.mark.exhaustive
def test_any_encoding(encoding: str, model: Path) -> None:
    for arguments in (
        ["run", str(model), "--array", "8x8"],
        ["run", str(model), "--array", "8x8", "--json"],
        ["run", "--help"],
    ):
        done = shell(*arguments, PYTHONIOENCODING=encoding)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr.decode(encoding)
        assert done.stdout.decode(encoding)


@pytest.mark.slow
@POSIX
@pytest.mark.parametrize("arguments", (["info"], ["gemm", "3", "4", "5", "--quiet", "--json"], ["--help"]))
@pytest.mark.exhaustive
def test_reader_that_has_gone(arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            command(*arguments), env=variables(), stdout=writing, stderr=subprocess.PIPE, timeout=60
        )
    finally:
        os.close(writing)
    assert done.stderr == b"" and done.returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
def test_full_disk() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command("info"), env=variables(), stdout=full, stderr=subprocess.PIPE, timeout=60
        )
    assert done.returncode == 2
    assert done.stderr.startswith(b"systolic info: ") and b"Exception ignored" not in done.stderr


@pytest.mark.slow
@POSIX
def test_closed_output() -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *command("info")], env=variables(), timeout=60
    )
    assert done.returncode == 0


@pytest.mark.slow
@POSIX
@pytest.mark.parametrize(
    "arguments",
    (
        ["gemm", "4000000", "64", "64"],
        ["gemm", "60000", "4096", "4096", "--mode", "wavefront"],
        ["verify", "--cases", "1000000"],
        ["bench", "--rounds", "1000000"],
        ["run", "dense.zip", "--input", "x.npy", "--output", "y.npz", "--ideal"],
    ),
    ids=("cycle mode", "wavefront mode", "verify", "bench", "run"),
)
@pytest.mark.exhaustive
def test_interrupt(arguments: list[str], tmp_path: Path) -> None:
    """Ctrl-C: status 130 soon, no traceback, no file left."""
    q = QuantParams(0.5)
    if "dense.zip" in arguments:
        layer = Dense(np.ones((64, 64), np.int8), x=q, w=q, y=q)
        Model([layer], inputs={"x": ((None, 64), "int8")}).save(tmp_path / "dense.zip")
        np.save(tmp_path / "x.npy", np.ones((4_000_000, 64), np.int8))
    before = sorted(tmp_path.iterdir())
    with subprocess.Popen(
        command(*arguments),
        env=variables(TMPDIR=str(tmp_path)),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            time.sleep(2.5)  # it has begun to compute, and would for a long time
            assert process.poll() is None, process.stderr and process.stderr.read()
            process.send_signal(signal.SIGINT)
            out, errors = process.communicate(timeout=5)
        finally:
            process.kill()
    assert process.returncode == 130
    assert errors.decode().splitlines()[-1] == "interrupted"
    assert b"Traceback" not in errors and out == b""
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("command", ("run", "verify", "summary"))
def test_a_shape_is_given_once(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(DATA / "digits.onnx")
    pytest.importorskip("onnx")
    assert cli.main([command, path, "--shape", "pixels=2,1,8,8", "--shape", "pixels=3,1,8,8"]) == 2
    assert "--shape is given twice for the input 'pixels'" in capsys.readouterr().err
