"""``systolic completion``: the scripts, run by their shells."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from systolic import cli, presets
from systolic.cli.completion_command import SHELLS
from systolic.cli.parser import build_parser
from systolic.cli.parsing import long_name
from systolic.dataflows import DATAFLOWS

pytest.importorskip("shtab")

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def script(capsys: Capture, tmp_path: Path) -> Path:
    assert cli.main(["completion", "bash"]) == 0
    (tmp_path / "systolic.bash").write_text(capsys.readouterr().out)
    return tmp_path / "systolic.bash"


def completed(script: Path, *lines: str) -> list[set[str]]:
    """Return what bash offers for the last word of each line."""
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    ask = """
source "$1"; shift
complete -p systolic >&2
for line in "$@"; do
    COMP_WORDS=($line); [[ $line == *' ' ]] && COMP_WORDS+=('')
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
    _shtab_systolic systolic "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
    echo "${COMPREPLY[*]}"
done
"""
    done = subprocess.run(
        ["bash", "-c", ask, "bash", str(script), *lines], cwd=script.parent, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and "complete" in done.stderr, done.stderr
    return [set(line.split()) for line in done.stdout.splitlines()]


def test_bash_completes_commands_options_choices_and_files(script: Path) -> None:
    folder = script.parent
    (folder / "model.onnx").touch()
    (folder / "models").mkdir()
    parser = build_parser()
    options = {name: {long_name(a) for a in each._actions} - {None} for name, each in parser.commands.items()}
    commands = list(options)
    found = completed(
        script,
        "systolic ", "systolic su", *(f"systolic {name} --" for name in commands), "systolic run --preset ",
        "systolic gemm 1 2 3 --dataflow ", "systolic run --mode w", "systolic run mod", "systolic run --input mod",
        "systolic run model.onnx --report mod", "systolic validate ", "systolic run --machine sys",
    )  # fmt: skip
    assert set(commands) <= found[0] and found[1] == {"summary"}
    for name, offered in zip(commands, found[2 : 2 + len(commands)], strict=True):
        assert options[name] == offered, name
    preset, flow, mode, model, data, report, machine, file = found[2 + len(commands) :]
    assert preset == set(presets.names()) and flow == {*DATAFLOWS, "all"} and mode == {"wavefront"}
    for files in (model, data, report):
        assert {word.rstrip("/") for word in files} == {"model.onnx", "models"}
    assert machine == {"tpu-v1"} and file == {"systolic.bash"}


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_takes_the_script(shell: str, capsys: Capture, tmp_path: Path) -> None:
    assert cli.main(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert cli.main(["completion", shell, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"schema": 1, "shell": shell, "script": text.removesuffix("\n")}
    if (program := shutil.which(shell)) is None:
        pytest.skip(f"needs {shell}")
    (tmp_path / "script").write_text(text)
    done = subprocess.run([program, "-n", tmp_path / "script"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == ""


def test_fish_completes(capsys: Capture, tmp_path: Path) -> None:
    if (program := shutil.which("fish")) is None:
        pytest.skip("needs fish")
    assert cli.main(["completion", "fish"]) == 0
    (tmp_path / "systolic.fish").write_text(capsys.readouterr().out)

    def offered(line: str) -> set[str]:
        ask = f"source systolic.fish; complete -C '{line}'"
        done = subprocess.run(
            [program, "--no-config", "-c", ask], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return {word.split("\t")[0] for word in done.stdout.splitlines()}

    assert set(build_parser().commands) <= offered("systolic ")
    assert set(presets.names()) <= offered("systolic run --preset ")
    assert {"--mode", "--machine"} <= offered("systolic run --m")
    assert "systolic.fish" in offered("systolic run --input sys")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setitem(__import__("sys").modules, "shtab", None)
    assert cli.main(["completion", "bash"]) == 2
    assert 'pip install "systolic[completion]"' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["completion", "fsh"])
    assert "did you mean 'fish'?" in capsys.readouterr().err


def test_every_name_of_a_file_is_marked() -> None:
    """What is marked is completed, and checked before work if it is written."""
    for name, command in build_parser().commands.items():
        for action in command._actions:
            metavar = str(action.metavar or "")
            is_file = any(word in metavar for word in (".", "FILE", "DIR", "MODEL")) and "=" not in metavar
            marked = getattr(action, "reads", False) or getattr(action, "writes", None) is not None
            assert is_file == marked, (name, action)
