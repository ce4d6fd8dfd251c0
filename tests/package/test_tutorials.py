"""The tutorials in docs/tutorials run: their cells one after the other, without Sphinx or Jupyter."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

TUTORIALS = Path(__file__).resolve().parents[2] / "docs" / "tutorials"
PAGES = sorted(path for path in TUTORIALS.glob("*.md") if path.name != "index.md")

CELL = re.compile(r"^```\{code-cell\} ipython3\n(.*?)^```$", flags=re.S | re.M)
OPTIONS = re.compile(r"\A(?:---\n.*?^---\n|(?::[^\n]*\n)+)", flags=re.S | re.M)
EXTRAS = {"onnx": "onnxruntime", "pandas": "pandas", "plot": "matplotlib", "sweep": "pyarrow"}
"""What a tutorial may ask its reader to install with the package, and a module of it."""
PACKAGES = {"matplotlib", "numpy", "onnxruntime", "pandas", "systolic"}


def cells(page: Path) -> list[tuple[int, str]]:
    """Return the line on which each cell's code begins, and the code."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in CELL.finditer(text):
        options = OPTIONS.match(match.group(1))
        skipped = options.end() if options else 0
        begin = match.start(1) + skipped
        found.append((text.count("\n", 0, begin) + 1, match.group(1)[skipped:]))
    return found


def run(page: Path) -> dict[str, object]:
    """Execute the cells in one namespace, with the page's line numbers in errors; return it."""
    space: dict[str, object] = {"__name__": "tutorial"}
    for line, code in cells(page):
        exec(compile("\n" * (line - 1) + code, str(page), "exec"), space)
    return space


def extras(page: Path) -> list[str]:
    """Return the extras that a page asks for."""
    text = page.read_text(encoding="utf-8")
    if "`pip install systolic`" in text:
        return []
    (names,) = re.findall(r'pip install "systolic\[([a-z,]+)\]"', text)
    return names.split(",")


def prose(page: Path) -> str:
    return re.sub(r"^(```).*?^\1$", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)


def test_there_are_tutorials() -> None:
    names = {"first-array", "first-network", "first-rtl-check", "first-sweep", "tpu-v1-exercises"}
    assert {page.stem for page in PAGES} >= names


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_cell_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for extra in extras(page):
        pytest.importorskip(EXTRAS[extra])
    monkeypatch.chdir(tmp_path)  # some write files
    if "plot" not in extras(page):
        run(page)
        return
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    try:
        run(page)
    finally:
        plt.close("all")


def test_a_failing_cell_is_noticed_by_its_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n```{code-cell} ipython3\n:tags: [remove-cell]\n\nx = 1\nassert x == 2\n```\n")
    with pytest.raises(AssertionError) as failed:
        run(page)
    assert failed.traceback[-1].lineno == 6  # counted from 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_begins_with_its_aim_time_and_needs(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    front, body = text.removeprefix("---\n").split("---\n", 1)
    assert "format_name: myst" in front and "name: python3" in front
    title, first, *_ = re.split(r"\n\n+", body.strip())
    assert title.startswith("# ")
    assert first.startswith("In this tutorial you ")
    assert re.search(r"about \d+\s+minutes", first)
    assert "pip install" in first and set(extras(page)) <= set(EXTRAS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_imports_only_what_it_asks_for(page: Path) -> None:
    found = cells(page)
    assert len(found) > 8
    for _, code in found:
        for node in ast.walk(ast.parse(code)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                package = name.split(".")[0]
                assert package in PACKAGES or package in sys.stdlib_module_names, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_pages(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", prose(page))
    assert links
    for link in links:
        assert link.startswith("https://") or (page.parent / link).exists(), link
