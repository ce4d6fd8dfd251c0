"""``run``, ``estimate`` and ``compile`` on machines with memories: results, rows of layers, what is kept."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import systolic
from support.compiled import machine
from support.zoo import zoo, zoo_inputs
from systolic import Model, Node, Program, QuantParams, Stats, Trace
from systolic.engine import program_runs
from systolic.layers import Dense, Relu
from systolic.model.archive import decode_layer

MACHINE = machine(8, 8, 2048)
MODES = ("cycle", "wavefront")
Q = QuantParams(0.5)


def small() -> Model:
    dense = Dense(np.eye(4, dtype=np.int8), x=Q, w=Q, y=Q)
    return Model([dense, Relu()], inputs={"x": ((None, 4), "int8")})


@pytest.mark.parametrize("mode", MODES)
def test_a_run_has_its_program_and_timeline(mode: str) -> None:
    run = systolic.run(zoo(), zoo_inputs(), machine=MACHINE, mode=mode)
    assert isinstance(run.program, Program) and run.timeline is not None
    assert run.stats.cycles == run.timeline.cycles == sum(layer.stats.cycles for layer in run.layers)
    causes = ("active_cycles", "weight_stall_cycles", "weight_shift_cycles", "non_matrix_cycles")
    assert sum(getattr(run.stats, cause) for cause in causes) == run.stats.cycles
    ideal = systolic.run(zoo(), zoo_inputs(), machine=MACHINE.array, mode="wavefront")
    assert ideal.timeline is None is ideal.program
    assert [layer.name for layer in run.layers] == [layer.name for layer in ideal.layers]
    for ours, theirs in zip(run.layers, ideal.layers, strict=True):
        assert (ours.layer, ours.shape, ours.dtype, ours.gemm, ours.products) == (
            theirs.layer, theirs.shape, theirs.dtype, theirs.gemm, theirs.products,
        )  # fmt: skip
        assert (ours.read_bytes, ours.written_bytes) == (theirs.read_bytes, theirs.written_bytes)
        assert ours.array_cycles == theirs.stats.cycles
        assert (ours.limit == "-") == (ours.stats.cycles == 0)
        assert ours.stats.macs in (0, theirs.stats.macs)
    assert run.stats.macs == ideal.stats.macs
    assert "limit" in run.to_dict()["layers"][0] and "limit" not in ideal.to_dict()["layers"][0]


def test_estimates_equal_runs() -> None:
    run = systolic.run(zoo(), zoo_inputs(2), machine=MACHINE, mode="wavefront")
    assert systolic.estimate(zoo(), machine=MACHINE, batch=2) == run.stats
    assert systolic.estimate(run.program, machine=MACHINE) == run.stats
    assert systolic.estimate(zoo(), machine=MACHINE.array, batch=2).active_cycles == 0


def test_paths_of_models_and_programs(tmp_path: Path) -> None:
    model, x = zoo(), zoo_inputs(1)
    program = systolic.compile(model, machine=MACHINE)
    model.save(tmp_path / "model.zip")
    program.save(tmp_path / "program.zip")
    for name in ("model.zip", "program.zip"):
        for path in (tmp_path / name, str(tmp_path / name)):
            found = systolic.run(path, x, machine=MACHINE, mode="wavefront")
            assert found.program == program
            assert systolic.estimate(path, machine=MACHINE) == found.stats
    assert systolic.compile(tmp_path / "model.zip", machine=MACHINE) == program
    (tmp_path / "text.zip").write_text("no archive")
    with pytest.raises(ValueError, match="text.zip is not a systolic model"):
        systolic.run(tmp_path / "text.zip", x)
    with pytest.raises(FileNotFoundError):
        systolic.run("nowhere.onnx", x)


def test_an_onnx_file_runs_by_its_path() -> None:
    pytest.importorskip("onnx")
    example = systolic.load_example()
    path = Path(systolic.__file__).parent / "data" / "digits.onnx"
    found = systolic.run(path, example.images[:2], mode="wavefront")
    expected = systolic.run(example.model, example.images[:2], mode="wavefront")
    assert np.array_equal(found.outputs["logits"], expected.outputs["logits"])


def test_a_program_runs_from_its_file(tmp_path: Path) -> None:
    program = systolic.compile(zoo(), machine=MACHINE, batch=2)
    program.save(tmp_path / "zoo.program")
    loaded = Program.load(tmp_path / "zoo.program")
    assert loaded == program
    run = systolic.run(loaded, zoo_inputs(2), machine=MACHINE, mode="wavefront")
    wanted = systolic.run(zoo(), zoo_inputs(2), machine=MACHINE.array, mode="wavefront").outputs
    for name, value in wanted.items():
        np.testing.assert_array_equal(run.outputs[name], value)
    names = [section.name for section in program.sections]
    assert [layer.name for layer in run.layers] == list(dict.fromkeys(names))
    assert all(layer.gemm is None and layer.array_cycles is None for layer in run.layers)


def test_host_layers_of_a_program_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    systolic.compile(zoo(), machine=MACHINE, batch=2).save(tmp_path / "zoo.program")
    program, decoded = Program.load(tmp_path / "zoo.program"), []

    def decode(description: Any, arrays: Any) -> Any:
        decoded.append(description)
        return decode_layer(description, arrays)

    monkeypatch.setattr("systolic.engine.host_calls.decode_layer", decode)
    counts = []
    for mode in (*MODES, "wavefront"):
        systolic.run(program, zoo_inputs(2), machine=MACHINE, mode=mode)
        counts.append(len(decoded))
    described = [f for f in program.functions if f.attributes.get("layer") is not None]
    assert counts[0] == counts[1] == counts[2] and 0 < counts[0] <= len(described)


def test_one_input_may_be_an_array() -> None:
    x = np.arange(8, dtype=np.int8).reshape(2, 4) - 4
    program = systolic.compile(small(), machine=MACHINE, batch=2)
    wanted = systolic.run(small(), x, machine=MACHINE.array).outputs["t1"]
    for work in (program, small()):
        np.testing.assert_array_equal(systolic.run(work, x, machine=MACHINE).outputs["t1"], wanted)


def test_traces_and_observers_follow_layers() -> None:
    """On the machine's array, where operands are always on time."""
    x, seen = np.ones((2, 4), np.int8), []
    run = systolic.run(small(), x, machine=MACHINE, observe=lambda node, read, y: seen.append(node.name))
    assert seen == ["t0", "t1"] and run.timeline is None
    assert run.stats == systolic.run(small(), x, machine=MACHINE.array).stats
    traced = systolic.run(small(), x, machine=MACHINE, trace=Trace())
    assert traced.trace is not None and traced.timeline is None


def test_progress_counts_to_the_programs_cycles() -> None:
    reports: list[tuple[int, int]] = []
    run = systolic.run(
        small(), np.ones((3, 4), np.int8), machine=MACHINE, progress=lambda *each: reports.append(each)
    )
    assert reports[-1] == (run.stats.cycles, run.stats.cycles)
    assert reports == sorted(reports)


def test_compiled_models_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    compiled = program_runs.compile
    monkeypatch.setattr(program_runs, "compile", lambda *a, **k: calls.append(k) or compiled(*a, **k))
    model, x = small(), np.ones((2, 4), np.int8)
    first = systolic.run(model, x, machine=MACHINE).program
    assert systolic.run(model, x, machine=MACHINE).program is first and len(calls) == 1
    assert systolic.run(model, x[:1], machine=MACHINE).program is not first and len(calls) == 2
    assert systolic.run(model, x, machine=machine(8, 8, 2047)).program is not first and len(calls) == 3
    model.nodes = model.nodes[:1]
    model.outputs = ("t0",)
    changed = systolic.run(model, x, machine=MACHINE)
    assert list(changed.outputs) == ["t0"] and len(calls) == 4
    for batch in range(3, 9):
        systolic.run(model, np.ones((batch, 4), np.int8), machine=MACHINE)
    assert len(program_runs._compiled) == program_runs._KEPT
    there = weakref.ref(model)
    del model
    gc.collect()
    assert there() is None


def test_layers_of_no_elements_run_on_the_host() -> None:
    model = Model(
        [Node(Dense(np.ones((4, 3), np.int8), x=Q, w=Q, y=Q), ("x",), "y"), Node(Relu(), ("y",), "z")],
        inputs={"x": ((None, 4), "int8")},
    )
    run = systolic.run(model, np.zeros((0, 4), np.int8), machine=MACHINE)
    assert run.outputs["z"].shape == (0, 3)
    # Two calls of the host, one cycle apart.
    assert run.stats == Stats(cycles=1, pe_cycles=64, non_matrix_cycles=1, other_stall_cycles=1)


def test_outputs_that_are_inputs_and_constants() -> None:
    model = Model(
        [Node(Relu(), ("x",), "y")], inputs={"x": ((2, 3), "int8")}, outputs=["x", "c", "y", "c"],
        constants={"c": np.arange(5.0)},
    )  # fmt: skip
    x = np.int8([[1, -2, 3], [-4, 5, -6]])
    outputs = systolic.run(model, x, machine=MACHINE).outputs
    np.testing.assert_array_equal(outputs["x"], x)
    np.testing.assert_array_equal(outputs["y"], np.maximum(x, 0))
    np.testing.assert_array_equal(outputs["c"], np.arange(5.0))
