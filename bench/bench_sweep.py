"""Sweeps on one thread: pairs of a layer and an ideal machine per second; whole networks with memories.

Beside ideal machines stands ``estimate`` of one ``Gemm`` on one array in Python's integers, called in a loop;
beside machines with memories ``compile`` and ``time_program`` for each of them. ``python bench_sweep.py``
prints the networks per second of CPU time, on a machine on which other programs run.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import resnet50

import systolic
from systolic import ArrayConfig, Gemm, estimate, sweep
from systolic.machine import time_program
from systolic.presets import TPU_V1
from systolic.sweeps import Grid, Workload, evaluation
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


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return systolic.load_onnx(resnet50.write(tmp_path_factory.mktemp("network"), 224)["int8"])


RATES = [4_000_000_000 * k for k in range(1, 21)]
GRIDS = {
    "200 bandwidths and latencies": {
        "weight_bytes_per_second": RATES, "weight_latency_cycles": range(0, 200, 20),
    },
    "200 clocks and host links": {"clock_mhz": range(400, 1400, 50), "host_bytes_per_second": RATES[:10]},
    "20 bandwidths, 64 x 64": {"side": [64], "weight_bytes_per_second": RATES},
    "32 unified buffers": {"unified_buffer_rows": range(36_000, 100_000, 2_000)},
    "16 FIFOs": {"fifo_tiles": range(1, 17)},
    "16 accumulators": {"accumulator_rows": range(1024, 8192, 448)},
    "16 arrays, 64 to 256": {"rows": range(64, 257, 64), "cols": range(64, 257, 64)},
    "16 arrays x 20 bandwidths": {
        "rows": range(64, 257, 64), "cols": range(64, 257, 64), "weight_bytes_per_second": RATES,
    },
    "15 square arrays, 32 to 256": {"side": range(32, 257, 16)},
    "32 unified buffers, some too small": {"unified_buffer_rows": range(12_000, 44_000, 1_000)},
}  # fmt: skip


def pairs(network, machines):
    """Return the sweep, the same machine by machine, and how many machines the second takes."""
    some = machines[:: max(len(machines) // 4, 1)]

    def work():
        vars(evaluation._kept).clear()
        return sweep(network, machines)

    def one_by_one():
        programs = [systolic.compile(network, machine=each, weights=False) for each in some]
        return [time_program(*pair).stats for pair in zip(programs, some, strict=True)]

    assert one_by_one() == [row.stats for row in work()][:: max(len(machines) // 4, 1)]
    return work, one_by_one, len(some)


@pytest.mark.parametrize("name", GRIDS)
def test_networks(measure, network, name):
    """ResNet-50 compiled and timed, from nothing: programs are kept within one sweep alone."""
    machines = Grid(TPU_V1, **GRIDS[name])
    work, one_by_one, some = pairs(network, machines)
    beside = "compile and time_program", one_by_one, some
    measure(f"ResNet-50, {name}", work, len(machines), "networks/s", beside, rounds=3)


def seconds_of(work):
    """Return the CPU time of one call."""
    started = time.process_time()
    work()
    return time.process_time() - started


def main():
    """Print networks per second of CPU time, and how often compiling each takes as long: medians of five."""
    with tempfile.TemporaryDirectory() as folder:
        network = systolic.load_onnx(resnet50.write(Path(folder), 224)["int8"])
    first = seconds_of(lambda: sweep(network, [TPU_V1]))
    print(f"{'first sweep, one machine':40} {first:.3f} s")
    for name, axes in GRIDS.items():
        machines = Grid(TPU_V1, **axes)
        work, one_by_one, some = pairs(network, machines)
        times = [(seconds_of(work), seconds_of(one_by_one)) for _ in range(5)]
        rates = median(len(machines) / own for own, _ in times)
        ratio = median(other / some / own * len(machines) for own, other in times)
        print(f"{name:40} {rates:7,.0f} networks/s {ratio:6.1f} x")


if __name__ == "__main__":
    main()
