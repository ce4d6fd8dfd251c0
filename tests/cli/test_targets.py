"""What commands write: checked before they compute, written under the name that was given, whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from systolic import Model, QuantParams, cli, engine
from systolic.cli.parser import build_parser
from systolic.layers import Dense, FloatMatMul
from systolic.presets import TPU_V1

Capture = pytest.CaptureFixture[str]

# Each option that names what is written: a command that writes it, and names that it takes.
WRITERS: dict[tuple[str, str], tuple[str, list[str]]] = {
    ("run", "--output"): ("run m.zip --array 8x8 --output {}", ["y", "y.npz", "y.tar.gz", "ü ber"]),
    ("run", "--report"): ("run m.zip --array 8x8 --report {}", ["r.html", "R.CSV", "a.b.json"]),
    ("summary", "--report"): ("summary m.zip --report {}", ["r.html", "r 2.csv"]),
    ("compile", "--output"): ("compile m.zip -o {}", ["p", "p.zip", "p.bin"]),
    ("compile", "--trace"): ("compile m.zip --trace {}", ["t", "t.json"]),
    ("quantize", "--out"): ("quantize f.zip --calibration d.npy --out {}", ["q.zip", "Q.ONNX"]),
    ("view", "--output"): ("view 3 2 4 -o {}", ["page", "page.html"]),
    ("vectors", "--out"): ("vectors a.npy b.npy --rows 4 --cols 4 --out {}", ["folder", "folder.d"]),
    ("rtl", "--out"): ("rtl --rows 2 --cols 2 --out {}", ["folder", "folder.d"]),
    ("sweep", "--out"): ("sweep s.json --out {}", ["rows.csv", "rows.b.csv"]),
}


FOLDERS = [("vectors", "--out"), ("rtl", "--out")]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    q = QuantParams(0.5)
    Model([Dense(np.ones((3, 2), np.int8), x=q, w=q, y=q)], inputs={"x": ((None, 3), "int8")}).save("m.zip")
    Model([FloatMatMul(np.eye(3, 2, dtype=np.float32))], inputs={"x": ((None, 3), "float32")}).save("f.zip")
    np.save("d.npy", np.ones((9, 3), np.float32))
    np.save("a.npy", np.ones((3, 4), np.int8))
    np.save("b.npy", np.ones((4, 2), np.int8))
    layers = [{"name": "fc", "m": 9, "k": 20, "n": 11}]
    Path("s.json").write_text(json.dumps({"models": [{"name": "fc", "layers": layers}], "grid": {"side": [4, 8]}}))
    return tmp_path


def words(line: str, name: str) -> list[str]:
    return [word.format(name) for word in line.split()]


def refused(arguments: list[str], capsys: Capture) -> str:
    assert cli.main([*arguments, "--quiet"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "Traceback" not in captured.err
    return captured.err.strip()


def test_every_option_that_writes_is_here() -> None:
    commands = build_parser().commands
    written = {
        (name, action.option_strings[-1])
        for name, command in commands.items() for action in command._actions if getattr(action, "writes", None)
    }  # fmt: skip
    assert written == set(WRITERS)


@pytest.mark.parametrize("option", WRITERS, ids=" ".join)
def test_the_name_is_the_one_that_was_given(option: tuple[str, str], here: Path, capsys: Capture) -> None:
    if "Q.ONNX" in WRITERS[option][1]:
        pytest.importorskip("onnx")
    line, names = WRITERS[option]
    for name in names:
        before = set(here.iterdir())
        assert cli.main([*words(line, name), "--quiet"]) == 0, capsys.readouterr().err
        assert set(here.iterdir()) - before == {here / name}
        if name == "p.bin":
            assert cli.main(["run", name, "--quiet"]) == 0


@pytest.mark.parametrize("option", WRITERS, ids=" ".join)
def test_places_are_checked_before_work(
    option: tuple[str, str], here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    line, names = WRITERS[option]
    suffix = Path(names[0]).suffix
    (here / f"taken{suffix}").mkdir()
    # Reading the model would be work, too.
    for name in ("run", "compile", "summary", "matmul"):
        monkeypatch.setattr(engine, name, lambda *arguments, **options: pytest.fail("began"))
    for module in ("model_commands", "program_commands", "quantize_command", "view_command"):
        monkeypatch.setattr(f"systolic.cli.{module}.load_model", lambda *arguments: pytest.fail("read the model"))
    monkeypatch.setattr("systolic.cli.sweep_command.read_sweep", lambda *arguments: pytest.fail("read the sweep"))
    before = sorted(here.rglob("*"))
    start = f"systolic {option[0]}: {option[1]}: "
    for name, reason in (
        (f"none/x{suffix}", f"there is no folder none to write x{suffix} to"),
        (f"taken{suffix}", "exists" if option in FOLDERS else "is a folder"),
        (f"{'x' * 300}{suffix}", "File name too long"),
    ):
        message = refused(words(line, name), capsys)
        assert message.startswith(start) and reason in message and Path(name).name[:50] in message
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    message = refused(words(line, f"new{suffix}"), capsys)
    assert message == f"{start}no permission to write new{suffix} to the folder ."
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("option", [each for each in WRITERS if each != ("sweep", "--out")], ids=" ".join)
def test_nothing_is_left_half_written(
    option: tuple[str, str], here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """The last step of each writer is a rename: an error before it leaves the folder as it was."""
    line, names = WRITERS[option]

    def full(*arguments: Any) -> None:
        raise OSError("No space left on device")

    before = sorted(here.rglob("*"))
    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(os, "rename", full)
    assert "No space left on device" in refused(words(line, names[0]), capsys)
    assert sorted(here.rglob("*")) == before


def test_a_file_has_one_use(here: Path, capsys: Capture) -> None:
    engine.compile(Model.load("m.zip"), machine=TPU_V1, batch=1).save("p.zip")
    for line, message in (
        ("compile m.zip -o same --trace ./same", "--trace ./same is also the file of --output; name another file"),
        ("compile m.zip -o m.zip", "--output m.zip is also the file of MODEL; name another file"),
        ("run m.zip --output m.zip", "--output m.zip is also the file of MODEL; name another file"),
        ("run p.zip --output r.csv --report r.csv", "--report r.csv is also the file of --output"),
        ("view m.zip -o m.zip", "--output m.zip is also the file of MODEL | M K N; name another file"),
    ):
        assert message in refused(line.split(), capsys)


def test_rows_are_appended(here: Path, capsys: Capture) -> None:
    assert cli.main(["sweep", "s.json", "--out", "rows.csv", "--quiet"]) == 0
    text = Path("rows.csv").read_text()
    assert cli.main(["sweep", "s.json", "--out", "rows.csv", "--quiet"]) == 0
    assert Path("rows.csv").read_text() == text
    capsys.readouterr()
    Path("rows.csv").write_text("name,value\n")
    assert "rows.csv is no file of a sweep" in refused(["sweep", "s.json", "--out", "rows.csv"], capsys)
    assert Path("rows.csv").read_text() == "name,value\n"
    assert "must be the name of a .csv or .parquet file" in refused(["sweep", "s.json", "--out", "rows.txt"], capsys)
