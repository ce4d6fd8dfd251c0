"""The documentation site is complete: pages, links between them, names. Building it is a stage of .ci/run."""

from __future__ import annotations

import fnmatch
import importlib
import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest

import systolic
from systolic import cli

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
if not (DOCS / "conf.py").exists():
    pytest.skip("reads the sources of the site", allow_module_level=True)
SCRIPT = runpy.run_path(str(DOCS / "write_reference.py"))
PAGES = {
    path.relative_to(DOCS).with_suffix("").as_posix(): path.read_text(encoding="utf-8")
    for path in sorted(DOCS.rglob("*.md"))
    if "jupyter_execute" not in path.parts
}
FENCE = re.compile(r"^( *)(```+|:::+).*?^\1\2", flags=re.S | re.M)


def resolved(page: str, target: str) -> str:
    """Return a path that stands in a page as one from docs/."""
    path = (DOCS / page).parent / target
    return Path(*path.parts).resolve().relative_to(ROOT).as_posix().removeprefix("docs/")


def entries(page: str) -> set[str]:
    """Return the pages in the toctrees of a page."""
    found: set[str] = set()
    for tree in re.findall(r"^```\{toctree\}\n(.*?)^```", PAGES[page], flags=re.S | re.M):
        for line in tree.splitlines():
            if line and not line.startswith(":"):
                pattern = resolved(page, line)
                names = fnmatch.filter(PAGES, pattern) if ":glob:" in tree else [pattern]
                found |= {name for name in names if name.count("/") == pattern.count("/")}
    return found


def test_every_page_is_in_one_toctree() -> None:
    listed = [name for page in PAGES for name in entries(page)]
    assert sorted(listed) == sorted(set(PAGES) - {"index"})


def anchors(page: str) -> set[str]:
    """Return the anchors that GitHub and the site give a page's headings."""
    text = re.sub(r"^```.*?^```", "", PAGES[page], flags=re.S | re.M)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = re.sub(r"^```.*?^```", "", PAGES[page], flags=re.S | re.M)
    text = re.sub(r"`[^`\n]*`", "``", text)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (DOCS / page).parent / file if file else DOCS / f"{page}.md"
        assert path.exists(), f"{page}: {target}"
        if anchor and path.suffix == ".md" and path.resolve().is_relative_to(DOCS):
            other = path.resolve().relative_to(DOCS).with_suffix("").as_posix()
            assert anchor in anchors(other), f"{page}: {target}"


def test_links_of_cards_lead_to_pages() -> None:
    for page, text in PAGES.items():
        for target in re.findall(r"^:link: (.*)$\n:link-type: doc", text, flags=re.M):
            assert resolved(page, target) in PAGES, f"{page}: {target}"


@pytest.mark.parametrize("page", SCRIPT["PAGES"])
def test_written_pages_are_what_the_script_writes(page: str) -> None:
    if page == "vcd.md":
        pytest.importorskip("vcd")
    written = (DOCS / "reference" / page).read_text(encoding="utf-8")
    assert SCRIPT["PAGES"][page]() == written, "run: python docs/write_reference.py"


@pytest.mark.exhaustive
def test_schemas_are_what_the_script_writes() -> None:
    pytest.importorskip("onnxruntime")
    for page, text in SCRIPT["SCHEMAS"].items():
        written = (DOCS / "reference" / page).read_text(encoding="utf-8")
        assert text() == written, f"{page} is not current; run: python docs/write_reference.py"


def schema(name: str) -> dict:
    return json.loads((DOCS / "reference" / "schemas" / f"{name}.schema.json").read_text(encoding="utf-8"))


def printed(command: str, capsys: pytest.CaptureFixture[str]) -> dict:
    assert cli.main([*command.split(), "--json", "--quiet"]) in (0, 1)
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("product", "gemm 3 5 7 --array 2x3 --dataflow output_stationary --clock 0.25"),
        ("product-dataflows", "gemm 3 5 7 --array 2x3 --accumulators 8 --dataflow all"),
        ("run", "run model.zip --array 4x4 --mapping taps --clock 12.5 --mode wavefront --no-check"),
        ("summary", "summary model.zip --preset neuroncore-v2 --batch 3"),
        ("compile", "compile model.zip --batch 2 --reuse 1 --clock 1.5"),
        ("verify", "verify --cases 2 --seed 7"),
        ("vectors", "vectors x.npy x.npy --out out --rows 3 --cols 1 --dataflow input_stationary"),
        ("sweep", "sweep sweep.json"),
        ("info", "info"),
    ],
)
def test_what_is_printed_keeps_to_its_schema(
    name: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other commands than those that the schemas were made from."""
    jsonschema = pytest.importorskip("jsonschema")
    monkeypatch.chdir(tmp_path)
    weight, scale = np.ones((3, 2, 2, 2), np.int8), systolic.QuantParams(0.5)
    conv = systolic.layers.Conv2d(weight, x=scale, w=scale, y=scale, padding="same")
    model = systolic.Model([systolic.Node(conv, ("x",), ("y",))], inputs={"x": systolic.TensorSpec((None, 2, 4, 5), "int8")}, outputs=["y"])
    model.save("model.zip")
    np.save("x.npy", np.ones((2, 2), np.uint8))
    fields = {"models": ["model.zip"], "grid": {"side": [4], "accumulator_rows": [None, 8]}, "mapping": "best"}
    Path("sweep.json").write_text(json.dumps(fields), encoding="utf-8")
    document = printed(command, capsys)
    checked = document["manifest"] if name == "vectors" else document
    jsonschema.Draft202012Validator(schema(name)).validate(checked)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema(name)).validate({**checked, "schema": "1"})


def test_a_sweep_that_a_page_shows_keeps_to_the_schema() -> None:
    jsonschema, yaml = pytest.importorskip("jsonschema"), pytest.importorskip("yaml")
    texts = re.findall(r"^```yaml\n(.*?)^```", PAGES["sweeps"], flags=re.S | re.M)
    text = next(text for text in texts if "\ngrid:" in text)
    validator = jsonschema.Draft202012Validator(schema("sweep-file"))
    shown = yaml.safe_load(text)
    validator.validate(shown)
    machine = {"machine": systolic.presets.TPU_V1.array.to_dict(), "batch": 2}
    validator.validate({**shown, **machine})
    assert not validator.is_valid({**shown, "grid": {"sides": [8]}})
    assert not validator.is_valid({"grid": {"side": [8]}})


def listed_names() -> set[str]:
    """Return the names that the pages of the reference have entries for."""
    found: set[str] = set()
    for page, text in PAGES.items():
        if page.startswith("reference/api/"):
            for module, names in re.findall(r"^\.\. currentmodule:: (\S+)\n(.*?)^```", text, flags=re.S | re.M):
                entries = re.findall(r"^(?:   |\.\. py:data:: )(\w+)$", names, flags=re.M)
                found |= {f"{module}.{name}" for name in entries}
                found.add(module)
    return found


def home(name: str) -> str:
    """Return the entry of the reference that describes what a dotted name stands for."""
    value: object = systolic
    for part in name.split(".")[1:]:
        value = getattr(value, part)
    module = getattr(value, "__module__", None) or ""
    own = name.rpartition(".")[2]
    places = [listed for listed in listed_names() if listed.endswith(f".{own}")]
    return next((place for place in places if f"{module}.".startswith(f"{place.rpartition('.')[0]}.")), name)


def test_each_public_name_is_in_the_reference() -> None:
    listed = listed_names()
    for module in ("", *(f".{name}" for name in importlib.import_module("_reference.api").MODULES)):
        where = importlib.import_module(f"systolic{module}")
        for name in getattr(where, "__all__", ()):
            full = f"systolic{module}.{name}"
            assert {full, home(full)} & listed, f"{full}: not in docs/reference/api"


def test_each_name_in_the_text_is_in_the_reference() -> None:
    listed = listed_names()
    for page, text in PAGES.items():
        for name in re.findall(r"`(systolic(?:\.[a-zA-Z]\w*)+)(?:\(.*?\))?`", text):
            parts = name.split(".")
            known = [".".join(parts[:end]) for end in range(2, len(parts) + 1)]
            assert set(known) & listed or home(name) in listed, f"{page}: {name} is not in docs/reference/api"


def test_the_picture_of_the_rooms_is_that_of_the_contract() -> None:
    script = runpy.run_path(str(DOCS / "draw_rooms.py"))
    rooms = {room.strip("()") for line in script["lines"]() for room in line}
    named = {room for rooms in script["SUBJECTS"].values() for room in rooms.split()}
    assert named == {room for room in rooms if not room.startswith("_") or room == "__main__"}
    drawn = (DOCS / "architecture" / "rooms.svg").read_text(encoding="utf-8")
    assert script["picture"]() == drawn, "run: python docs/draw_rooms.py"


def test_each_name_that_a_page_imports_is_in_the_reference() -> None:
    listed = listed_names()
    shown_inside = {"systolic.layers.host.compared.refusal"}  # onnx.md shows where it says so
    for page, text in PAGES.items():
        for module, names in re.findall(r"from (systolic[\w.]*) import \(?([\w, ]+)", text):
            for name in re.findall(r"(\w+)(?: as \w+)?", names):
                full = f"{module}.{name}"
                assert full in listed | shown_inside or home(full) in listed, f"{page}: {full} is not in docs/reference/api"
