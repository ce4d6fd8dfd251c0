"""The check that a release workflow makes of a tag, and the workflow itself."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

import pytest
import yaml

import systolic

ROOT = Path(__file__).resolve().parents[2]
FILES = ("systolic/_version.py", "CHANGELOG.md", "CITATION.cff", "pyproject.toml", "README.md", "docs/index.md")
VERSION = systolic.__version__
LINKS = "\n".join(
    f'{name} = "https://example.org"' for name in ("Homepage", "Documentation", "Source", "Issues", "Changelog")
)

if not (ROOT / ".github").exists():
    pytest.skip("reads the repository", allow_module_level=True)
problems = runpy.run_path(str(ROOT / ".github/release.py"))["problems"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of what the check reads, ready for release."""
    for folder in ("systolic", "docs"):
        (tmp_path / folder).mkdir()
    for name in FILES:
        shutil.copy(ROOT / name, tmp_path / name)
    replace(tmp_path / "CHANGELOG.md", f"## {VERSION} - unreleased", f"## {VERSION} - 2027-01-31")
    replace(tmp_path / "pyproject.toml", "[project.urls]", f"[project.urls]\n{LINKS}")
    for name in ("README.md", "docs/index.md"):
        replace(tmp_path / name, "is not published yet", "is published")
    return tmp_path


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), "utf-8")


def test_a_ready_checkout_can_be_released(checkout: Path) -> None:
    assert problems(f"v{VERSION}", checkout) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("CHANGELOG.md", " - 2027-01-31", " - unreleased", "CHANGELOG.md has no line"),
        ("CITATION.cff", f"version: {VERSION}", "version: 9.9.9", "CITATION.cff has another version"),
        ("pyproject.toml", 'Source = "https://example.org"\n', "", "lacks Source: add"),
        ("README.md", "is published", "is not published yet", "README.md says"),
        ("docs/index.md", "is published", "is not published yet", "docs/index.md says"),
    ],
)
def test_each_omission_is_named(checkout: Path, name: str, old: str, new: str, message: str) -> None:
    replace(checkout / name, old, new)
    (found,) = problems(f"v{VERSION}", checkout)
    assert message in found


def test_the_tag_must_be_the_version(checkout: Path) -> None:
    assert problems("v9.9.9", checkout) == [
        f"the tag is v9.9.9, but systolic/_version.py says {VERSION}: tag v{VERSION}"
    ]


def test_only_a_tag_that_passed_everything_is_published() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/wheels.yml").read_text("utf-8"))["jobs"]
    publish = jobs.pop("publish")
    assert publish["if"] == "github.ref_type == 'tag'"
    assert sorted(publish["needs"]) == sorted(jobs)
    assert publish["permissions"] == {"id-token": "write"}
