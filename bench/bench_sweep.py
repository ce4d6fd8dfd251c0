"""Sweeps of ideal machines: pairs of a layer and a configuration per second, on one thread.

Beside them stands ``estimate`` of one ``Gemm`` on one array in Python's integers, called in a loop.
"""

from __future__ import annotations

import numpy as np
import pytest

from systolic import ArrayConfig, Gemm, estimate, sweep
from systolic.sweeps import Grid, Workload
from systolic.sweeps.evaluation import ideal_stats

UNIT = "pairs/s"
LAYERS = 54  # as many as a ResNet-50 has


def workload():
    """Return different products: equal ones would be costed once."""
    sizes = np.random.default_rng(0).integers(1, 4096, (LAYERS, 3)).tolist()
    return Workload("random", [Gemm(*size) for size in sizes])


def one_by_one(grid):
    """Return what is stood beside: each pair by a call."""
    gemms, arrays = [layer.gemm for layer in workload().layers], [machine.array for machine in grid[:20]]

    def work():
        estimate_each = [[estimate(gemm, machine=array) for gemm in gemms] for array in arrays]
        return [sum(each[1:], each[0]) for each in estimate_each]

    assert work() == [row.stats for row in sweep(workload(), arrays)]
    return "estimate(Gemm), one by one", work, LAYERS * len(arrays)


@pytest.fixture(scope="module")
def grid():
    return Grid(ArrayConfig(), rows=range(8, 520, 8), cols=range(8, 520, 8))


def test_counts(measure, grid):
    """The closed form alone: all counts, added over the layers."""
    products = [(layer.gemm, 1) for layer in workload().layers]
    arrays = [machine.array for machine in grid[:1024]]

    def work():
        return ideal_stats(products, arrays)

    measure("54 layers x 1,024 arrays, counts", work, LAYERS * len(arrays), UNIT, one_by_one(grid))


def test_rows(measure, grid):
    """A whole sweep: machines made, costed, and kept as rows."""

    def work():
        return sweep(workload(), grid)

    measure("54 layers x 4,096 machines, rows", work, LAYERS * len(grid), UNIT, one_by_one(grid))


def test_rows_in_a_file(measure, grid, tmp_path):
    """A whole sweep whose rows are written as they are computed."""
    out = tmp_path / "rows.csv"

    def work():
        out.unlink(missing_ok=True)
        return sweep(workload(), grid, out=out)

    measure("54 layers x 4,096 machines, rows in a file", work, LAYERS * len(grid), UNIT, one_by_one(grid))
