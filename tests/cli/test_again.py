"""The command that reproduces a mismatch: parsed again, it asks for the same."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import systolic
from systolic import ArrayConfig, MachineConfig, Model, QuantParams, cli, presets
from systolic.cli.options import machine_of
from systolic.cli.parser import build_parser
from systolic.cli.parsing import command_again, long_name
from systolic.dataflows import DATAFLOWS
from systolic.layers import Conv2d, Relu

PARSER = build_parser()
SHOWN = ("config", "json", "quiet", "output", "output_all", "report")
WORDS = st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1, max_size=8)
VALUES: dict[str, st.SearchStrategy[str]] = {
    "array": st.sampled_from(["8x8", "3x7", "4x4,16x2"]),
    "preset": st.sampled_from(presets.names()),
    "shape": st.sampled_from(["x=1,2,6,6", "a b=3", "-x=2"]),
    "clock": st.sampled_from(["700", "940.5"]),
    "tolerance": st.sampled_from(["0", "0.25"]),
    **dict.fromkeys(("input", "output", "report"), WORDS.map(lambda text: f"f{text}")),
    **dict.fromkeys(("batch", "seed", "cases", "case", "threads", "accumulators"), st.integers(2, 99).map(str)),
}


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    command = draw(st.sampled_from(["run", "verify"]))
    words = [command]
    taken: set[str] = set()
    for action in draw(st.permutations(PARSER.commands[command]._actions))[:8]:
        option = long_name(action)
        rival = action.dest in ("array", "preset") and taken & {"array", "preset"}
        if rival or option in (None, "--help", "--config", "--machine"):
            continue
        taken.add(action.dest)
        if action.nargs == 0:
            words.append(option)
            continue
        values = VALUES[action.dest] if action.dest in VALUES else st.sampled_from(action.choices)
        words.append(f"{option}={draw(values)}")
        if action.dest == "shape":
            words.append(f"{option}={draw(values)}")
    return words + (["--", draw(WORDS)] if draw(st.booleans()) else [])


@given(command_lines())
def test_the_command_again_has_the_same_options(words: list[str]) -> None:
    options = PARSER.parse_args(words)
    program, *again = shlex.split(command_again(options))
    found = PARSER.parse_args(again)
    assert program == "systolic"
    for name, value in vars(options).items():
        if name in SHOWN:
            assert name not in found.given
        elif name not in ("given", "call", "parser"):
            assert getattr(found, name) == value, name
    assert found.given == {name: given for name, given in options.given.items() if name not in SHOWN}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    q, rng = QuantParams(0.5), np.random.default_rng(0)
    conv = Conv2d(rng.integers(-9, 9, (3, 2, 3, 3), dtype=np.int8), x=q, w=q, y=QuantParams(4.0))
    Model([conv, Relu()], inputs={"x": ((None, 2, 6, 6), "int8")}).save(tmp_path / "small model.zip")
    np.save(tmp_path / "x.npy", rng.integers(-99, 99, (2, 2, 6, 6), dtype=np.int8))
    return tmp_path / "small model.zip"


def mismatch(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert cli.main([*arguments, "--quiet", "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)["mismatches"]
    return found


@pytest.mark.parametrize("command", ["run", "verify"])
@pytest.mark.parametrize(
    "given",
    [
        "--input x.npy --array 8x8", "--batch 3 --seed 7 --array 8x4 --dataflow output_stationary", "",
        "--shape x=1,2,6,6 --preset tpu-v1 --single-buffered --accumulators 16 --mode wavefront",
        "--machine machine.yaml", "--config options.toml",
    ],
)  # fmt: skip
def test_the_line_of_a_mismatch_reproduces_it(
    command: str, given: str, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(model.parent)
    if "yaml" in given:
        pytest.importorskip("yaml")
    Path("machine.yaml").write_text("array: {rows: 8, cols: 8, psum_bits: 20}\nclock_mhz: 100\n")
    Path("options.toml").write_text('array = "8x8"\nseed = 3\n')
    original = Relu.apply
    monkeypatch.setattr(Relu, "apply", lambda self, *inputs: original(self, *inputs) ^ 1)
    found = mismatch([command, model.name, *given.split()], capsys)
    program, *words = shlex.split(found["reproduce"])
    assert program == "systolic" and words[:2] == [command, model.name] and "--quiet" not in words
    assert mismatch(words, capsys) == found


@given(
    st.sampled_from(["verify"]),
    st.one_of(
        st.sampled_from(presets.names()).map(presets.get),
        st.builds(
            lambda rows, cols, **fields: MachineConfig(ArrayConfig(rows, cols, **fields)),
            st.integers(1, 9), st.integers(1, 9), double_buffered=st.booleans(),
            accumulator_rows=st.sampled_from([4096, 2, 64]), dataflow=st.sampled_from([*DATAFLOWS]),
        ),
    ),
)  # fmt: skip
def test_the_line_of_a_call_in_python_names_the_array(command: str, machine: MachineConfig) -> None:
    from systolic.verifier.check import _machine_words

    words, left = _machine_words(machine)
    array = machine.array
    found = machine_of(PARSER.parse_args([command, "m.zip", *words])).array
    if array.dataflow_record.held:  # has no accumulators
        found = replace(found, accumulator_rows=array.accumulator_rows)
    assert found == array and left == ""


def test_the_line_of_a_call_in_python(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Relu.apply
    monkeypatch.setattr(Relu, "apply", lambda self, *inputs: original(self, *inputs) ^ 1)

    def line(**options: Any) -> str:
        (found,) = systolic.verify(model, mode="wavefront", **options).mismatches
        return found.reproduce

    name = shlex.quote(str(model))
    assert line(machine=ArrayConfig(8, 4, dataflow="input_stationary"), seed=3) == (
        f"systolic verify {name} --seed 3 --array 8x4 --dataflow input_stationary --mode wavefront"
    )
    x = np.load(model.parent / "x.npy")
    assert line(x=x, machine=ArrayConfig(8, psum_bits=24)) == (
        f"systolic verify {name} --input X.npy --array 8x8 --mode wavefront  # and with psum_bits=24"
    )
    assert line(reproduce="make check") == "make check"
