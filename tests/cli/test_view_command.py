"""``systolic view``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from systolic import presets
from systolic.cli import main
from systolic.engine import compile
from systolic.example import DATA
from systolic.frontend import load_onnx

DIGITS = str(DATA / "digits.onnx")
NEEDS_ONNX = pytest.importorskip("onnx")


def described(path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8")
    _, _, rest = text.partition('id="description">')
    return json.loads(rest.partition("</script>")[0])


@pytest.mark.parametrize(
    ("arguments", "title", "cycles"),
    [
        ([], "12 x 8 x 8 on 8 x 8", 35),
        (["3", "2", "4", "--array", "2x3"], "3 x 2 x 4 on 2 x 3", 12),
        (["3", "2", "4", "--array", "2x3", "--dataflow", "output_stationary"], "3 x 2 x 4 on 2 x 3", 14),
        (["30", "8", "8", "--cycles", "5:25"], "30 x 8 x 8 on 8 x 8", 21),
        ([DIGITS, "--layer", "logits_quant", "--array", "8x8", "--cycles", "0:99"], "logits_quant of digits.onnx", 100),
        ([DIGITS], "digits.onnx", None),
    ],
)
def test_pages(
    arguments: list[str], title: str, cycles: int | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    assert main(["view", *arguments, "--quiet", "-o", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    page = described(out)
    assert printed["title"] == page["title"] == title and printed["bytes"] == out.stat().st_size
    assert page["kind"] == ("timeline" if cycles is None else "array")
    assert cycles is None or page["cycles"] == cycles


def test_a_program_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = compile(load_onnx(DIGITS), machine=presets.TPU_V1, batch=1)
    path, out = tmp_path / "program.zip", tmp_path / "page.html"
    program.save(path)
    assert main(["view", str(path), "-o", str(out)]) == 0
    assert "program.zip" in capsys.readouterr().out
    assert described(out)["texts"][0].startswith("read_")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["1", "2"], "view takes a MODEL, or the sizes M K N of a product, not 1 2"),
        (["1", "0", "2"], "1 x 0 x 2 takes no cycle: there is nothing to see"),
        (["1", "1", "2", "--layer", "a"], "--layer would have no effect: it is of a model; the product M K N has random operands"),
        (["1", "1", "2", "--batch", "4"], "--batch would have no effect: it is of a model"),
        ([DIGITS, "--input", "x.npy"], "--input would have no effect: a model's timeline does not depend on numbers; it goes with --layer"),
        ([DIGITS, "--layer", "logits_quant", "--input", "x.npy", "--batch", "2"], "--batch would have no effect: it is of the random input, and --input is given"),
        (["3", "2", "4", "--cycles", "5000:5001"], "--cycles begins at 5,000, but the product takes"),
        ([DIGITS, "--array", "8x8"], "--layer NAME shows a layer on the array: stem_quant"),
        ([DIGITS, "--layer", "nix"], "no layer 'nix' runs on the array"),
        ([DIGITS, "--cycles", "0:5"], "--cycles would have no effect: a model's timeline is shown whole; it goes with --layer"),
        (["3", "2", "4", "-o", "none/page.html"], "there is no folder none"),
    ],
)
def test_mistakes(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["view", *arguments, "--quiet"]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["5", "5:5", "a:b", "9:3"])
def test_cycles_that_are_none(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["view", "--cycles", value])
    assert "must be START:STOP, such as 0:500" in capsys.readouterr().err
