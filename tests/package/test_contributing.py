"""CONTRIBUTING, SECURITY and the issue forms name files, tests and commands that exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTRIBUTING, SECURITY = ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"
FORMS = ROOT / ".github" / "ISSUE_TEMPLATE"
if not CONTRIBUTING.exists():
    pytest.skip("reads the sources", allow_module_level=True)


def paths(page: Path) -> set[str]:
    """Return what stands in backticks and is a path; commands, patterns and suffixes are none."""
    return {text for text in quoted(page) if re.fullmatch(r"\w[\w.]*(/[\w.]+)*(/|\.(py|pyx|h|js|md))", text)}


def quoted(page: Path) -> list[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    return re.findall(r"`([^`\n]+)`", text)


@pytest.mark.parametrize("page", [CONTRIBUTING, SECURITY], ids=lambda page: page.name)
def test_every_path_exists(page: Path) -> None:
    found = paths(page)
    assert len(found) > (60 if page is CONTRIBUTING else 1)
    # A name alone is a neighbor of a file that is named with its folder.
    folders = {ROOT, ROOT / "systolic"} | {ROOT / base / Path(path).parent for path in found for base in ("", "systolic")}
    missing = [path for path in sorted(found) if not any((folder / path).exists() for folder in folders)]
    assert not missing


def test_every_table_exists() -> None:
    """Names in capitals, such as ORACLES, are assigned in some module."""
    named = {text for text in quoted(CONTRIBUTING) if re.fullmatch(r"_?[A-Z][A-Z_]+", text)}
    assert len(named) > 8
    sources = "\n".join(
        path.read_text(encoding="utf-8") for base in ("systolic", "tests") for path in (ROOT / base).rglob("*.py")
    )
    assert not [name for name in sorted(named) if not re.search(rf"^{name}\b.*=", sources, flags=re.M)]


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [CONTRIBUTING, SECURITY], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        file, _, anchor = target.partition("#")
        assert (ROOT / file).exists(), target
        assert not anchor or anchor in anchors(ROOT / file), target


def test_links_to_recipes_lead_to_one() -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        for anchor in re.findall(r"CONTRIBUTING\.md#([\w-]+)", page.read_text(encoding="utf-8")):
            assert anchor in anchors(CONTRIBUTING), f"{page.name}: {anchor}"


def test_markers_and_extras_exist() -> None:
    text = CONTRIBUTING.read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    markers = {line.partition(":")[0] for line in project["tool"]["pytest"]["ini_options"]["markers"]}
    asked = {word for options in re.findall(r'-m "?((?:not |and |\w+ ?)+)"?[`\n]', text) for word in options.split()}
    assert asked - {"not", "and"} and asked - {"not", "and"} <= markers
    for extras in re.findall(r'"\.\[([a-z,]+)\]"', text):
        assert set(extras.split(",")) <= set(project["project"]["optional-dependencies"])


@pytest.mark.parametrize("name", ["bug", "wrong-value", "feature"])
def test_issue_forms(name: str) -> None:
    yaml = pytest.importorskip("yaml")
    form = yaml.safe_load((FORMS / f"{name}.yml").read_text(encoding="utf-8"))
    assert set(form) == {"name", "description", "labels", "body"}
    ids = [field["id"] for field in form["body"] if field["type"] != "markdown"]
    assert len(ids) == len(set(ids)) > 1
    for field in form["body"]:
        assert field["type"] in ("markdown", "textarea", "dropdown", "checkboxes")
        assert set(field) <= {"type", "id", "attributes", "validations"}
        assert "value" in field["attributes"] if field["type"] == "markdown" else "label" in field["attributes"]
        assert field["type"] not in ("dropdown", "checkboxes") or field["attributes"]["options"]
