"""Sweeps on real clusters of two workers, where their packages are installed: Dask, Ray and MPI."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import systolic
from support.strategies import raises
from systolic.sweeps import RayExecutor

SCRIPT = Path(__file__).parents[1] / "support" / "sweep_cluster.py"


def ran(command: list[str]) -> str:
    """Run a program that checks itself; return what it printed."""
    environment = os.environ | {"PYTHONPATH": str(Path(systolic.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_dask_with_a_worker_killed(tmp_path: Path) -> None:
    if importlib.util.find_spec("distributed") is None:
        pytest.skip("needs distributed")
    assert ran([sys.executable, str(SCRIPT), "dask", str(tmp_path / "rows.csv")]) == "dask: equal, with a worker killed\n"


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_ray_with_a_worker_killed(tmp_path: Path) -> None:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs ray")
    printed = ran([sys.executable, str(SCRIPT), "ray", str(tmp_path / "rows.csv")])
    # Ray says before that a worker died.
    assert printed.splitlines()[-1] == "ray: equal, with a worker killed"


def test_ray_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with raises(ImportError, 'RayExecutor needs Ray: pip install "systolic[ray]"'):
        RayExecutor()


@pytest.mark.slow
@pytest.mark.exhaustive
def test_mpi(tmp_path: Path) -> None:
    beside = shutil.which("mpiexec", path=str(Path(sys.executable).parent))
    mpiexec = beside or shutil.which("mpiexec")
    if importlib.util.find_spec("mpi4py") is None or mpiexec is None:
        pytest.skip("needs mpi4py and mpiexec")
    arguments = ["-n", "3", sys.executable, "-m", "mpi4py.futures", str(SCRIPT), "mpi", str(tmp_path / "rows.csv")]
    assert ran([mpiexec, *arguments]) == "mpi: equal, 2 workers\n"
