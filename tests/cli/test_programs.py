"""The shell's commands about programs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from systolic import ArrayConfig, MachineConfig, MemoryConfig, Model, QuantParams, cli, engine, presets
from systolic.cli.program_commands import random_tensors, same_outputs
from systolic.engine import networks, program_runs
from systolic.frontend import is_program
from systolic.isa import HostTensor, Program
from systolic.layers import Conv2d, Relu
from systolic.machine import read_trace, time_program

Capture = pytest.CaptureFixture[str]

MEMORY = MemoryConfig(
    weight_bytes=2**20, weight_bytes_per_second=700_000_000, unified_buffer_rows=4096, host_rows=8192,
    host_bytes_per_second=350_000_000,
)  # fmt: skip
MACHINE = MachineConfig(ArrayConfig(8, 8, accumulator_rows=64), clock_mhz=700, memory=MEMORY)


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
def machine(tmp_path: Path) -> Path:
    (tmp_path / "machine.json").write_text(json.dumps(MACHINE.to_dict()))
    return tmp_path / "machine.json"


def output(capsys: Capture, *arguments: Any, status: int = 0) -> str:
    assert cli.main([str(argument) for argument in arguments]) == status, capsys.readouterr().err
    return capsys.readouterr().out


def refused(capsys: Capture, *arguments: Any) -> str:
    """Run a command that fails with status 2 and return what it says."""
    try:
        status = cli.main([str(argument) for argument in arguments])
    except SystemExit as end:
        status = end.code  # type: ignore[assignment]
    captured = capsys.readouterr()
    assert status == 2 and captured.out == "" and "Traceback" not in captured.err
    return captured.err


def test_compile(model: Path, machine: Path, capsys: Capture, tmp_path: Path) -> None:
    target = tmp_path / "program.zip"
    text = output(capsys, "compile", model, "--machine", machine, "-o", target, "--batch", 3)
    program = Program.load(target)
    assert program == engine.compile(Model.load(model), machine=MACHINE, batch=3)
    timeline = time_program(program, MACHINE)
    assert f"{len(program)}: " in text and f"{timeline.cycles:,} (" in text and "8 x 8 array at 700 MHz" in text
    assert "limited by" in text and f"{target}: the program" in text
    # Causes without a cycle have no column.
    for cause, count in timeline.causes.items():
        assert (cause.replace("_", " ") in text) == (count > 0)


def test_compile_as_json(model: Path, machine: Path, capsys: Capture, tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    values = json.loads(
        output(capsys, "compile", model, "--machine", machine, "--explain", "--trace", trace, "--json")
    )
    assert next(iter(values)) == "schema" and values["output"] is None
    program = engine.compile(Model.load(model), machine=MACHINE)
    timeline = time_program(program, MACHINE)
    assert values["machine"] == MACHINE.to_dict()
    assert values["instructions"] == len(program) == sum(values["by_kind"].values())
    assert values["stats"] == timeline.stats.to_dict()
    assert [layer["name"] for layer in values["layers"]] == [layer.name for layer in timeline.layers()]
    assert sum(layer["stats"]["cycles"] for layer in values["layers"]) == timeline.cycles
    assert values["peak"]["ub"] == timeline.occupancy()["ub"].peak
    assert values["inputs"] == {"x": [1, 2, 6, 6]}
    assert values["explain"]["cycles"] == timeline.cycles and len(values["explain"]["effects"]) > 5
    assert read_trace(trace).causes == timeline.causes


def test_compile_options(model: Path, machine: Path, capsys: Capture) -> None:
    for options, given in (
        (["--mapping", "im2col"], {"mapping": "im2col"}),
        (["--reuse", "20", "--batch", "4"], {"reuse": 20, "batch": 4}),
        (["--reuse"], {"reuse": True}),
        (["--shape", "x=2,2,6,6"], {"shapes": {"x": (2, 2, 6, 6)}}),
    ):
        values = json.loads(output(capsys, "compile", model, "--machine", machine, *options, "--json"))
        program = engine.compile(Model.load(model), machine=MACHINE, **given)  # type: ignore[arg-type]
        assert values["stats"] == time_program(program, MACHINE).stats.to_dict(), options


def test_compile_refuses(model: Path, machine: Path, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets, "TPU_V1", replace(presets.TPU_V1, memory=None))
    compile = ("compile", model, "--machine")
    assert "there is no folder" in refused(capsys, *compile, machine, "-o", tmp_path / "none" / "p.zip")
    assert "there is no folder" in refused(capsys, *compile, machine, "--trace", tmp_path / "none" / "t.json")
    assert "invalid choice: 'rows'" in refused(capsys, *compile, machine, "--mapping", "rows")
    assert "not allowed with argument" in refused(capsys, *compile, machine, "--preset", "tpu-v1")
    assert "No such file" in refused(capsys, *compile, tmp_path / "none.json")
    assert "a machine is a file of YAML, JSON or TOML" in refused(capsys, *compile, tmp_path)
    for text, words in (("{", "bad.json cannot be read: "), ("[]", "takes a dict"), ('{"clock": 5}', "bad.json: MachineConfig has no field 'clock'; did you mean 'clock_mhz'?")):
        (tmp_path / "bad.json").write_text(text)
        assert words in refused(capsys, *compile, tmp_path / "bad.json")
    small = replace(MACHINE, memory=replace(MEMORY, unified_buffer_rows=2))
    (tmp_path / "small.json").write_text(json.dumps(small.to_dict()))
    before = sorted(tmp_path.iterdir())
    assert "rows" in refused(capsys, *compile, tmp_path / "small.json", "-o", tmp_path / "p.zip")
    ideal = replace(MACHINE, memory=None)
    (tmp_path / "small.json").write_text(json.dumps(ideal.to_dict()))
    assert "a program needs a machine with memories" in refused(capsys, *compile, tmp_path / "small.json")
    assert sorted(tmp_path.iterdir()) == before


@pytest.fixture
def program(model: Path, tmp_path: Path) -> Path:
    engine.compile(Model.load(model), machine=MACHINE, batch=2).save(tmp_path / "program.zip")
    return tmp_path / "program.zip"


@pytest.fixture
def x(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", np.random.default_rng(1).integers(-99, 99, (2, 2, 6, 6), dtype=np.int8))
    return tmp_path / "x.npy"


def test_run_a_model_on_a_machine_with_memories(
    model: Path, machine: Path, x: Path, capsys: Capture, tmp_path: Path
) -> None:
    run = ("run", model, "--input", x, "--machine", machine, "--quiet")
    text = output(capsys, *run, "--output", tmp_path / "y.npz", "--report", tmp_path / "r.csv")
    expected = engine.run(Model.load(model), np.load(x), machine=MACHINE)
    for words in ("array cycles", "limited by", f"{expected.stats.cycles:,}", expected.layers[0].limit):
        assert words in text
    assert "program      outputs equal those of its layers one by one, bit for bit" in text
    assert "numpy        every layer's output equals numpy's" in text
    with np.load(tmp_path / "y.npz") as written:
        np.testing.assert_array_equal(written["t1"], expected.outputs["t1"])
    assert (tmp_path / "r.csv").read_text() == expected.report().to_csv()
    ideal = output(capsys, *run, "--ideal")
    assert "array cycles" not in ideal and "limited by" not in ideal and "program" not in ideal
    cycles = engine.run(Model.load(model), np.load(x), machine=MACHINE.array, mode="wavefront").stats.cycles
    assert f"{cycles:,}" in ideal and cycles < expected.stats.cycles


def test_run_a_model_on_a_machine_with_memories_as_json(
    model: Path, machine: Path, x: Path, capsys: Capture
) -> None:
    run = ("run", model, "--input", x, "--machine", machine, "--quiet", "--json", "--mode", "wavefront")
    values = json.loads(output(capsys, *run))
    expected = engine.run(Model.load(model), np.load(x), machine=MACHINE, mode="wavefront")
    assert values["stats"] == expected.stats.to_dict() and sum(values["causes"].values()) == expected.stats.cycles
    layer = values["layers"][0]
    assert layer["array_cycles"] == expected.layers[0].array_cycles and layer["limit"] == expected.layers[0].limit
    assert values["verdict"]["program"] == {"passed": True} and values["verdict"]["numpy"]["passed"]
    assert json.loads(output(capsys, *run, "--no-check"))["verdict"] == {}


def test_a_program_that_differs_is_status_1(
    model: Path, machine: Path, x: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tile of the compiled program is wrong."""
    compiled = program_runs.compiled

    def wrong(*arguments: Any) -> Program:
        program = compiled(*arguments)
        weights = np.array(program.weights)
        weights[0, 0, 0] ^= 64
        return replace(program, weights=weights)

    monkeypatch.setattr(networks, "compiled", wrong)
    run = ("run", model, "--input", x, "--machine", machine, "--quiet", "--mode", "wavefront")
    text = output(capsys, *run, status=1)
    assert "program      FAILED: outputs differ from those of its layers" in text
    assert json.loads(output(capsys, *run, "--json", status=1))["verdict"]["program"] == {"passed": False}


def test_run_a_program(program: Path, machine: Path, model: Path, x: Path, capsys: Capture, tmp_path: Path) -> None:
    run = ("run", program, "--input", x, "--machine", machine, "--quiet")
    text = output(capsys, *run, "--output", tmp_path / "y.npz", "--report", tmp_path / "r.html")
    expected = engine.run(Model.load(model), np.load(x), machine=MACHINE)
    with np.load(tmp_path / "y.npz") as written:
        np.testing.assert_array_equal(written["t1"], expected.outputs["t1"])
    assert f"{expected.stats.cycles:,}" in text and "limited by" in text and "outputs were not checked" in text
    # It does not know its model.
    assert "array cycles" not in text and "product" not in text
    assert "<html" in (tmp_path / "r.html").read_text()
    values = json.loads(output(capsys, "run", program, "--machine", machine, "--quiet", "--json", "--seed", "3"))
    assert values["stats"] == expected.stats.to_dict() and "random numbers, seed 3" in values["notes"][1]


def test_random_tensors_have_their_types() -> None:
    tensors = {name: HostTensor(0, (50, 3), name) for name in ("int8", "uint8", "int64", "float32", "bool")}
    drawn = random_tensors(Program("halt", inputs=tensors), 0)
    assert {name: value.dtype.name for name, value in drawn.items()} == {name: name for name in tensors}
    assert drawn["int8"].min() < -90 and drawn["int8"].max() > 90 and drawn["uint8"].max() > 200
    assert 0 < len(np.unique(drawn["bool"])) <= 2 and np.abs(drawn["float32"]).max() <= 1
    again = random_tensors(Program("halt", inputs=tensors), 0)
    assert all(np.array_equal(drawn[name], again[name]) for name in tensors)


def test_outputs_are_the_same_bit_for_bit() -> None:
    nan = np.float32([np.nan, 1])
    assert same_outputs({"y": nan}, {"y": nan.copy()}) and same_outputs({}, {})
    for other in ({"y": nan.astype(float)}, {"z": nan}, {"y": nan[:1]}, {"y": np.float32([np.nan, 2])}, {}):
        assert not same_outputs({"y": nan}, other)


def test_run_refuses(program: Path, machine: Path, model: Path, capsys: Capture, tmp_path: Path) -> None:
    run = ("run", program, "--quiet", "--machine", machine)
    assert "a program needs the memories that it was compiled for" in refused(capsys, *run, "--ideal")
    assert "a program has no tensors" in refused(capsys, *run, "--output", tmp_path / "y.npz", "--output-all")
    assert "--batch would have no effect: it is of a model, and MODEL is a program" in refused(capsys, *run, "--batch", "3")
    np.save(tmp_path / "wrong.npy", np.zeros((3, 2, 6, 6), np.int8))
    assert "(2, 2, 6, 6)" in refused(capsys, *run, "--input", tmp_path / "wrong.npy")
    damaged = program.read_bytes()
    (tmp_path / "damaged.zip").write_bytes(damaged[:200] + b"!" + damaged[201:])
    assert "damaged" in refused(capsys, "run", tmp_path / "damaged.zip", "--quiet", "--machine", machine)
    assert "no folder" in refused(capsys, *run, "--output", tmp_path / "none" / "y.npz")
    assert "must end in" in refused(capsys, *run, "--report", tmp_path / "r.txt")
    assert not is_program(str(model)) and not is_program(str(tmp_path)) and not is_program(str(tmp_path / "none"))
