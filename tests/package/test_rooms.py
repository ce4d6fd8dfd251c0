"""Tests stand in the folder of a room, and share code by way of tests/support alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
ROOMS = {path.name.partition(".")[0].strip("_") for path in (TESTS.parent / "systolic").iterdir()}
# What spans rooms, or is no part of the package; docs/architecture.md says what each holds.
OTHERS = {"base", "examples", "operators", "package", "rtl"}
FILES = sorted(path.relative_to(TESTS) for path in TESTS.rglob("*.py"))

OF_TESTS = re.compile(r"^\s*(from +(\.|tests\b|conftest\b|test_)|(from .*)?import .*\b(tests|conftest|test_\w+)\b)", re.M)


def test_no_file_imports_a_test() -> None:
    assert not [str(file) for file in FILES if OF_TESTS.search((TESTS / file).read_text(encoding="utf-8"))]


@pytest.mark.parametrize(
    "line", ["import test_model", "from tests.model import test_model", "from .test_model import zoo", "from . import zoo"]
)
def test_these_would_be_found(line: str) -> None:
    assert OF_TESTS.search(f'"""A file."""\nimport os\n    {line}\n')


def test_every_test_file_stands_in_a_room() -> None:
    places = [file.parts for file in FILES if file.name.startswith("test_")]
    assert all(len(place) == 2 for place in places), places
    assert {room for room, _ in places} <= ROOMS | OTHERS
