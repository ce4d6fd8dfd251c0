"""Runs ``examples/rtl/run.py`` as a user does; skips where Icarus Verilog or cocotb is missing.

If the environment variable SYSTOLIC_REQUIRE_RTL is set to 1, their absence is an error.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import systolic

REQUIRED = os.environ.get("SYSTOLIC_REQUIRE_RTL") == "1"
EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "rtl"


def need_icarus() -> None:
    """Skip the whole module without Icarus Verilog."""
    absent = [tool for tool in ("iverilog", "vvp") if shutil.which(tool) is None]
    if absent:
        _skip(f"no {', '.join(absent)}", "apt-get install iverilog", allow_module_level=True)


def need(package: str, install: str, **options: bool) -> None:
    """Skip without a Python package."""
    if importlib.util.find_spec(package) is None:
        _skip(f"no {package}", install, **options)


def _skip(reason: str, install: str, **options: bool) -> None:
    if REQUIRED:
        raise RuntimeError(f"SYSTOLIC_REQUIRE_RTL=1, but {reason}: {install}")
    pytest.skip(f"{reason}; to simulate the RTL: {install}", **options)


def run_example(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run ``run.py`` in another folder, on the package that is under test."""
    environment = {**os.environ, "PYTHONPATH": str(Path(systolic.__file__).parents[1])}
    # cocotb's runner behaves otherwise inside pytest.
    environment.pop("PYTEST_CURRENT_TEST", None)
    return subprocess.run(
        [sys.executable, str(EXAMPLE / "run.py"), *map(str, arguments)],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
