"""Hypothesis profiles: a small fixed one by default, a long random one on demand. Instruction sets. Marks by folder."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from systolic import _kernels

# Failed assertions in support code, too, say what was compared.
pytest.register_assert_rewrite("support")

COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}

settings.register_profile("ci", derandomize=True, max_examples=40, **COMMON)
settings.register_profile("long", max_examples=2000, print_blob=True, **COMMON)
settings.load_profile(os.environ.get("SYSTOLIC_HYPOTHESIS", "ci"))

TESTS = Path(__file__).parent
# Helper processes import test modules by name. Last, so that an installed package is not hidden by the sources.
sys.path.append(str(TESTS.parent))
MARKS = {"frontend": "onnx", "operators": "onnx", "rtl": "rtl"}
# Imports all of the onnx package's own tests, which takes longer than any room's fast ones.
SLOW_TO_IMPORT = TESTS / "operators" / "test_backend_node.py"
HAS_ONNX = importlib.util.find_spec("onnx") is not None


def _mark(path: Path) -> str | None:
    return MARKS.get(path.relative_to(TESTS).parts[0]) if TESTS in path.parents else None


def pytest_report_header() -> list[str]:
    return [] if HAS_ONNX else ["without onnx: tests/frontend and tests/operators are left out"]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the files that import onnx where it is not installed, and one that is slow as a whole."""
    if not HAS_ONNX and _mark(collection_path) == "onnx":
        return True
    return True if collection_path == SLOW_TO_IMPORT and config.option.markexpr == "not slow" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if (mark := _mark(item.path)) is not None:
            item.add_marker(mark)
        if mark == "rtl":
            item.add_marker("slow")


def _used(request: pytest.FixtureRequest) -> Iterator[str]:
    _kernels._use(request.param)
    try:
        yield request.param
    finally:
        _kernels._use()


# Each instruction set that this machine has and this build knows, in turn; and of the array the plain reference too.
isa = pytest.fixture(params=_kernels.instruction_sets, scope="module")(_used)
array_kernel = pytest.fixture(params=("reference", *_kernels.instruction_sets), scope="module")(_used)
