"""Sweeps: what models cost on thousands of machines.

>>> from systolic import ArrayConfig, Gemm, sweep
>>> from systolic.sweeps import Grid
>>> sweep(Gemm(128, 768, 768), Grid(ArrayConfig(), rows=range(8, 264, 8), cols=range(8, 264, 8)))
<Sweep of 1,024 rows: 1 model, 1,024 machines>
"""

from systolic.sweeps.description import read_sweep
from systolic.sweeps.executors import RayExecutor
from systolic.sweeps.grids import Grid
from systolic.sweeps.results import Sweep
from systolic.sweeps.rows import SweepRow
from systolic.sweeps.running import MOST_ROWS, Executor, sweep
from systolic.workloads import Workload, WorkloadLayer, read_topology

__all__ = [
    "MOST_ROWS",
    "Executor",
    "Grid",
    "RayExecutor",
    "Sweep",
    "SweepRow",
    "Workload",
    "WorkloadLayer",
    "read_sweep",
    "read_topology",
    "sweep",
]
