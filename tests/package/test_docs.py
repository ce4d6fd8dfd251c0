"""The pages and pictures in docs/ are true: examples run, drawings equal what their scripts draw."""

from __future__ import annotations

import doctest
import importlib
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from systolic import ArrayConfig, Gemm, Trace, cli, folds, matmul, ports

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGE = DOCS / "microarchitecture.md"
TEXT = PAGE.read_text(encoding="utf-8")
PICTURES = {"array.svg": "draw_array.py", "dataflows.svg": "draw_dataflows.py", "timeline.svg": "draw_timeline.py"}
SHOWN = {"dataflows.svg": "dataflows.md"}

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.S | re.M)


def parsed() -> doctest.DocTest:
    return doctest.DocTestParser().get_doctest(TEXT, {}, PAGE.name, str(PAGE), 0)


def test_examples_run():
    test, report = parsed(), []
    assert len(test.examples) > 60
    runner = doctest.DocTestRunner()
    runner.run(test, out=report.append)
    assert not runner.failures, "\n" + "".join(report)


PAGES = sorted([*DOCS.glob("*.md"), *DOCS.glob("*/*.md")])
WITH_EXAMPLES = [page for page in PAGES if ">>> " in page.read_text(encoding="utf-8")]


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda page: page.name)
def test_examples_of_every_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # some write files
    failed, tried = doctest.testfile(str(page), module_relative=False)
    assert tried and not failed


def test_every_python_block_is_an_example():
    for language, block in FENCE.findall(TEXT):
        assert language in ("python", "sh")
        # Without the blank line doctest would take the fence for expected output.
        assert language == "sh" or (block.startswith(">>>") and block.endswith("\n\n"))


def prose() -> str:
    """Return the page without its examples, link targets, sources and names that hold numbers."""
    text = FENCE.sub("", TEXT)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    sources = r"arXiv:[\d.]+|US \d[\d,]+|and \d+,\d{3},\d{3}|(?:ISCA|ISPASS) \d{4}|granted in 2020 and 2024"
    return re.sub(sources, "", text)


def numbers(text: str) -> list[str]:
    return re.findall(r"(?<![\w^.])\d+(?:,\d{3})*(?![\w^])", text)


def test_numbers_in_the_text_come_from_the_examples():
    shown = set()
    for example in parsed().examples:
        shown.update(n.replace(",", "") for n in numbers(example.source + " " + example.want))
    found = [n for n in numbers(prose()) if len(n) > 1]
    assert len(found) > 20
    assert {n.replace(",", "") for n in found} <= shown


def anchor(heading: str) -> str:
    """Return the anchor GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_links_lead_somewhere():
    anchors = {anchor(heading) for heading in re.findall(r"^#+ (.*)$", TEXT, flags=re.M)}
    targets = re.findall(r"\]\(([^)]+)\)", FENCE.sub("", TEXT))
    assert len(targets) > 15
    for target in targets:
        if target.startswith("#"):
            assert target[1:] in anchors, target
        else:
            assert (DOCS / target).exists(), target


def test_every_row_of_the_published_table_has_a_status_and_a_source():
    table = TEXT.split("| question | status | source | published | here |\n")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[1:]]
    assert len(rows) > 25
    for question, status, source, published, here in rows:
        assert question and here
        if status == "open":
            assert not source and not published
        else:
            kind = {"stated": "paper, ", "claimed": "US "}[status]
            assert source.startswith(kind) and published


def test_the_command_and_its_options_exist(capsys):
    ((command, options),) = re.findall(r"^systolic (\w+) (.*)$", TEXT, flags=re.M)
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for option in re.findall(r"--[a-z]+", options):
        assert option in text


@pytest.mark.slow
@pytest.mark.parametrize("picture", PICTURES)
def test_picture_is_what_its_script_draws(picture, tmp_path):
    for script in PICTURES.values():
        shutil.copy(DOCS / script, tmp_path)
    # -S: no site-packages, so that the scripts need Python alone.
    subprocess.run([sys.executable, "-S", "-E", PICTURES[picture]], cwd=tmp_path, check=True)
    assert (tmp_path / picture).read_bytes() == (DOCS / picture).read_bytes(), (
        f"run: python docs/{PICTURES[picture]}"
    )


def test_every_picture_is_drawn_by_a_script_and_shown():
    assert {path.name for path in DOCS.glob("*.svg")} == set(PICTURES)
    for picture in PICTURES:
        assert f"]({picture})" in (DOCS / SHOWN.get(picture, PAGE.name)).read_text(encoding="utf-8")


@pytest.fixture
def timeline(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield importlib.import_module("draw_timeline")
    for name in ("draw_timeline", "draw_array"):
        sys.modules.pop(name, None)


def test_timeline_shows_what_the_array_does(timeline):
    rows, cols, m = timeline.ROWS, timeline.COLS, timeline.M
    config = ArrayConfig(rows, cols)
    gemm = Gemm(m[0], len(m) * rows, cols)
    assert [(f.shift_cycle, f.swap_cycle) for f in folds(gemm, array=config)] == timeline.schedule()
    # No zeros, and no two rows of x alike, so that activations tell which row stands where.
    x = np.arange(1, gemm.m * gemm.k + 1, dtype=np.int8).reshape(gemm.m, gemm.k)
    w = np.full((gemm.k, gemm.n), 3, dtype=np.int8)
    trace = Trace()
    result = matmul(x, w, array=config, trace=trace)
    assert result.cycles == timeline.counted_cycles()
    beats = timeline.beats()
    for r, c in np.ndindex(rows, cols):
        here = [beat for beat in beats if beat.distance == r + c]
        shift = {beat.cycle for beat in here if beat.kind == "shift"}
        swap = {beat.cycle for beat in here if beat.kind == "stream" and beat.index == 0}
        assert set(np.flatnonzero(trace["shift"][:, r, c])) == shift
        assert set(np.flatnonzero(trace["swap"][:, r, c])) == swap
        expected = np.zeros(result.cycles, dtype=int)
        for beat in here:
            if beat.kind == "stream":
                expected[beat.cycle] = x[beat.index, beat.fold * rows + r]
        np.testing.assert_array_equal(trace["activation"][:, r, c], expected)


def test_timeline_shows_what_the_accumulators_take(timeline):
    rows, cols, m = timeline.ROWS, timeline.COLS, timeline.M
    ones = np.ones((m[0], len(m) * rows), dtype=np.int8), np.ones((len(m) * rows, cols), dtype=np.int8)
    taken = {
        (c, int(not p.first[c]), int(p.row[c]), p.cycle)
        for p in ports(*ones, array=ArrayConfig(rows, cols))
        for c in np.flatnonzero(p.write).tolist()
    }
    assert taken == set(map(tuple, timeline.writes()))


def examples_run(name: str) -> str:
    """Run a page's examples; return its text."""
    page = DOCS / f"{name}.md"
    text = page.read_text(encoding="utf-8")
    test = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    report: list[str] = []
    runner = doctest.DocTestRunner()
    runner.run(test, out=report.append)
    assert test.examples and not runner.failures, "\n" + "".join(report)
    return text


@pytest.mark.parametrize("name", ["compiler", "energy", "sweeps"])
def test_pages_of_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    examples_run(name)


@pytest.mark.parametrize(("name", "writer"), [("onnx", "write_differences"), ("programs", "write_instructions")])
def test_pages_with_a_written_part(name: str, writer: str):
    """Their examples run, and the lists in them are what their scripts write."""
    pytest.importorskip("onnx")
    text = examples_run(name)
    script = runpy.run_path(str(DOCS / f"{writer}.py"))
    assert script["section"]() in text, f"run: python docs/{writer}.py"


@pytest.mark.slow
def test_the_page_of_quantization():
    pytest.importorskip("onnxruntime.quantization")
    text = examples_run("quantize")
    script = runpy.run_path(str(DOCS / "write_quantize.py"))
    for section in ("command", "accuracies"):
        assert script[section]() in text, "run: python docs/write_quantize.py"


def test_the_page_of_operators():
    script = runpy.run_path(str(DOCS / "write_operators.py"))
    page = (DOCS / "operators.md").read_text(encoding="utf-8")
    assert script["page"]() == page, "run: python docs/write_operators.py"


@pytest.mark.slow
def test_the_page_of_the_tpu_v1():
    script = runpy.run_path(str(DOCS / "write_tpu_v1.py"))
    page = (DOCS / "tpu-v1.md").read_text(encoding="utf-8")
    assert script["page"]() == page, "run: python docs/write_tpu_v1.py"
    anchors = {anchor(heading) for heading in re.findall(r"^#+ (.*)$", page, flags=re.M)}
    targets = re.findall(r"\]\(([^)]+)\)", page)
    assert targets
    for target in targets:
        assert target[1:] in anchors if target.startswith("#") else (DOCS / target).exists(), target
    assert all(len(line) <= 118 for line in page.splitlines() if not line.startswith("|"))
