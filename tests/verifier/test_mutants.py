"""The verifier can fail: bugs planted in what computes are found, located and shown again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.mutants import MUTANTS, ROOT, Mutant, copy_package, plant, plant_kernel, systolic
from systolic import ArrayConfig, Model, QuantParams, folds
from systolic.gemm import Gemm
from systolic.layers import Dense
from systolic.reference import oracle
from systolic.verifier.cases import Draw, draw_matmul

pytest.importorskip("Cython")
pytest.importorskip("setuptools")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "systolic" / "_core.pyx").exists(), reason="needs the sources"),
]

NAMES = {mutant.name: mutant for mutant in MUTANTS}
STUCK = MUTANTS[0]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package whose kernel holds all bugs, each asleep until it is asked for."""
    folder = copy_package(tmp_path_factory.mktemp("kernel"))
    plant_kernel(folder)
    return folder


@pytest.fixture(scope="module")
def runs(kernel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Any]]]:
    """What verify says about each mutant, two at a time: copy, exit status, report, errors."""

    def check(mutant: Mutant) -> tuple[Path, int, Any, str]:
        folder = kernel
        if not mutant.compiled:
            folder = copy_package(tmp_path_factory.mktemp("mutant"))
            plant(mutant, folder)
        return folder, *systolic(folder, "verify", "--cases", str(mutant.cases), "--seed", "0", mutant=mutant)

    pool = ThreadPoolExecutor(2)
    try:
        yield {mutant.name: pool.submit(check, mutant) for mutant in MUTANTS}
    finally:
        pool.shutdown(cancel_futures=True)


@pytest.mark.exhaustive
def test_without_a_bug_all_is_right(kernel: Path) -> None:
    status, report, errors = systolic(kernel, "verify", "--cases", "48", "--seed", "0")
    assert (status, report["passed"], report["mismatches"]) == (0, True, []), errors


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.exhaustive
def test_bug_is_caught_and_located(runs: dict[str, Future[Any]], name: str) -> None:
    mutant = NAMES[name]
    folder, status, report, errors = runs[name].result()
    assert status == 1 and errors == "", errors
    assert not report["passed"]
    found = report["mismatches"]
    stages = {mismatch["stage"] for mismatch in found}
    assert mutant.stages[0] in stages and stages <= set(mutant.stages), stages
    for mismatch in found:
        if mismatch["stage"] != "array":
            assert mismatch["pe"] is mismatch["cycle"] is mismatch["register"] is None
            continue
        row, col = mismatch["pe"]
        assert mutant.pe[0] in (None, row) and mutant.pe[1] in (None, col), mismatch
        assert not mutant.registers or mismatch["register"] in mutant.registers, mismatch
        assert mismatch["cycle"] >= 0 and mismatch["register_got"] != mismatch["register_expected"]
    # What the report says shows it again.
    last = found[-1]
    program, *arguments = shlex.split(last["reproduce"])
    assert program == "systolic"
    status, again, errors = systolic(folder, *arguments, mutant=mutant if mutant.compiled else None)
    assert status == 1 and last in again["mismatches"], errors


def test_place_in_a_product_of_many_folds(runs: dict[str, Future[Any]]) -> None:
    """The tensor's index, the fold, the PE and the cycle, against what the case itself says."""
    _, _, report, _ = runs[STUCK.name].result()
    checked = 0
    for mismatch in report["mismatches"]:
        if not mismatch["case"].startswith("matmul"):
            continue
        number = int(mismatch["reproduce"].rpartition(" ")[2])
        if number % 3 == 0:  # a product of any format
            continue
        x, w, config = draw_matmul(Draw(0, number))
        if config.dataflow != "weight_stationary":
            continue
        m, n = mismatch["index"]
        assert mismatch["expected"] == oracle.matmul(x, w)[m, n]
        check_place(mismatch, x, config, Gemm(*x.shape, w.shape[1]))
        checked += len(folds(Gemm(*x.shape, w.shape[1]), array=config)) > 1
    assert checked


def check_place(mismatch: dict[str, Any], x: np.ndarray, config: ArrayConfig, gemm: Gemm) -> None:
    """Assert that the psum of PE (2, 5) is off by the activation that a stuck bit of its weight meets."""
    all_folds = folds(gemm, array=config)
    m, n = mismatch["index"]
    fold = mismatch["fold"]
    assert fold in [f.to_dict() for f in all_folds]
    assert fold["m_start"] <= m < fold["m_stop"] and fold["n_start"] <= n < fold["n_stop"]
    assert (n - fold["n_start"], mismatch["pe"], mismatch["register"]) == (5, [2, 5], "psum")
    # No later than that sum stands at the bottom of its column.
    assert mismatch["cycle"] <= fold["swap_cycle"] + m - fold["m_start"] + config.rows - 1 + 5
    local = mismatch["cycle"] - 2 - 5
    (here,) = (f for f in all_folds if f.swap_cycle <= local < f.swap_cycle + f.m)
    activation = int(x[here.m_start + local - here.swap_cycle, here.k_start + 2])
    assert activation and mismatch["register_got"] - mismatch["register_expected"] in (
        activation,
        -activation,
    )


@pytest.mark.exhaustive
def test_place_late_in_a_long_model(kernel: Path, tmp_path: Path) -> None:
    """A layer of more cycles than are replayed from the first; nothing but zeros before the end."""
    m, k, n, config = 12_000, 20, 13, ArrayConfig(8, 8)
    rng = np.random.default_rng(0)
    x = np.zeros((m, k), np.int8)
    x[-500:] = rng.integers(1, 100, (500, k))
    q = QuantParams(0.5)
    layer = Dense(rng.integers(-99, 99, (k, n), dtype=np.int8), x=q, w=q, y=None)
    Model([layer], inputs={"x": ((None, k), "int8")}).save(tmp_path / "dense.zip")
    np.save(tmp_path / "x.npy", x)
    arguments = ["--input", str(tmp_path / "x.npy"), "--array", "8x8"]
    for command in ("run", "verify"):
        status, report, errors = systolic(
            kernel, command, str(tmp_path / "dense.zip"), *arguments, mutant=STUCK
        )
        assert status == 1, errors
        (mismatch,) = report["mismatches"]
        assert mismatch["stage"] == "array" and mismatch["index"] == [m - 500, 5]
        assert mismatch["cycle"] > 30_000
        check_place(mismatch, x, config, Gemm(m, k, n))
        # The column below: only rows 2, 10 and 18 of w meet the stuck PE.
        assert mismatch["fold"]["m_stop"] == m and mismatch["reproduce"].startswith(f"systolic {command} ")


def test_model_from_a_file(runs: dict[str, Future[Any]]) -> None:
    """The bundled network: the layer is named, the exit status is 1."""
    folder, _, _, _ = runs["the zero points change places"].result()
    status, report, errors = systolic(folder, "run", "--mode", "wavefront")
    assert status == 1, errors
    assert {mismatch["stage"] for mismatch in report["mismatches"]} >= {"finish"}
    assert report["verdict"]["numpy"] == {"layers": 14, "passed": False}
    assert "layer 'stem_quant' (QLinearConv)" in [mismatch["case"] for mismatch in report["mismatches"]]
