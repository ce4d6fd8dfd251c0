"""The notebook in ``examples/``: kept clean, and every cell runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import systolic

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "examples" / "worked_example.ipynb"

# In a process of its own: what Jupyter warns of and leaves open there cannot fail other tests.
RUNNER = """
import sys
import nbformat
from nbclient import NotebookClient

source, target, folder = sys.argv[1:]
notebook = nbformat.read(source, as_version=4)
nbformat.validate(notebook)
where = {"metadata": {"path": folder}}
NotebookClient(notebook, timeout=300, startup_timeout=120, kernel_name="python3", resources=where).execute()
nbformat.write(notebook, target)
"""

needs_jupyter = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("nbclient", "nbformat", "ipykernel", "matplotlib")),
    reason="nbclient, ipykernel or matplotlib is not installed",
)


def load() -> dict[str, Any]:
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def execute(notebook: dict[str, Any], tmp_path: Path) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Run a notebook in an empty folder, in this Python, out of reach of the user's Jupyter settings."""
    source, target, folder = tmp_path / "in.ipynb", tmp_path / "out.ipynb", tmp_path / "work"
    folder.mkdir()
    source.write_text(json.dumps(notebook), encoding="utf-8")
    own = {
        name: str(tmp_path / name.lower())
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")
    }
    # The kernel starts elsewhere and must find the package that is under test.
    package = str(Path(systolic.__file__).parents[1])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, **own, "PYTHONPATH": path, "JUPYTER_PATH": ""}
    # A backend chosen for scripts would keep figures out of the notebook; warnings of other packages
    # are theirs to mend.
    environment.pop("MPLBACKEND", None)
    environment.pop("PYTHONWARNINGS", None)
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, str(source), str(target), str(folder)],
        env=environment, capture_output=True, encoding="utf-8", errors="replace", timeout=600, check=False,
    )  # fmt: skip
    return done, target


def test_is_kept_without_outputs():
    notebook = load()
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert len(code_cells(notebook)) > 20
    for cell in code_cells(notebook):
        assert (cell["outputs"], cell["execution_count"]) == ([], None), f"clear the outputs of {cell['id']}"
    ids = Counter(cell["id"] for cell in notebook["cells"])
    assert ids.most_common(1)[0][1] == 1
    assert all(re.fullmatch(r"[a-zA-Z0-9-_]{1,64}", name) for name in ids)


def test_links_lead_somewhere():
    notebook = load()
    text = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    headings = {heading.replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 8
    for link in links:
        if link.startswith("#"):
            assert link[1:] in headings
        else:
            assert (NOTEBOOK.parent / link).exists(), link


@pytest.mark.slow
@needs_jupyter
@pytest.mark.exhaustive
def test_every_cell_runs(tmp_path):
    done, target = execute(load(), tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    cells = code_cells(json.loads(target.read_text(encoding="utf-8")))
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not ["".join(o["text"]) for o in outputs if o.get("name") == "stderr"]

    kinds = Counter(kind for output in outputs for kind in output.get("data", {}))
    assert kinds["image/png"] >= 12
    assert kinds["text/html"] >= 8
    printed = "".join("".join(o["text"]) for o in outputs if o["output_type"] == "stream")
    for line in (
        "drained at cycle 8",
        "cycle 7: bottom psums [   0    0 -117]",
        "double-buffered 70 cycles, otherwise 136",
        "outputs hit: [(3, 2, -4096)]",
        "59 of 60 right",
    ):
        assert line in printed


@pytest.mark.slow
@needs_jupyter
@pytest.mark.exhaustive
def test_a_wrong_number_is_noticed(tmp_path):
    # The first cells with the columns of w reversed: PE (0, 0) no longer multiplies with 7.
    notebook = load()
    last = next(i for i, cell in enumerate(notebook["cells"]) if cell["id"] == "one-check")
    notebook["cells"] = notebook["cells"][: last + 1]
    (fold,) = (cell for cell in code_cells(notebook) if "array.fold(x=x, w=w)\n" in cell["source"])
    fold["source"] = [line.replace("w=w)", "w=w[:, ::-1])") for line in fold["source"]]
    done, target = execute(notebook, tmp_path)
    assert done.returncode == 1
    assert not target.exists()
    assert "AssertionError" in done.stderr
    assert "psum[0, 0] == 7" in done.stderr
