"""The documentation site is complete: pages, links between them, names. Building it is a stage of .ci/run."""

from __future__ import annotations

import fnmatch
import importlib
import re
import runpy
from pathlib import Path

import pytest

import systolic

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
