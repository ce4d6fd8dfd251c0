"""A sweep of programs on a cluster, run as a program: equal to the serial rows, in the file too.

``python sweep_cluster.py dask ROWS.csv`` kills a worker in the middle, so does ``ray``; ``mpiexec -n 3 python -m mpi4py.futures
sweep_cluster.py mpi ROWS.csv`` has two workers.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import systolic
from systolic import ArrayConfig, MachineConfig, MemoryConfig, sweep
from systolic.sweeps import Grid, Sweep

MEMORY = MemoryConfig(
    weight_bytes=2**20, weight_bytes_per_second=10**9, unified_buffer_rows=4096, host_rows=8192,
    host_bytes_per_second=10**9,
)  # fmt: skip
GRID = Grid(
    MachineConfig(ArrayConfig(), memory=MEMORY),
    side=[8, 16, 32], clock_mhz=[700, 940], unified_buffer_rows=[1, 4096], fifo_tiles=[2, 4, 8],
)  # fmt: skip


def check(executor: Any, out: str, progress: Any = None) -> None:
    """Compare a sweep by an executor with the serial one."""
    model = systolic.load_example().model
    found, serial = sweep(model, GRID, executor=executor, out=out, progress=progress), sweep(model, GRID)
    assert found == serial and len(found) == 36 and len(found.errors) == 18
    assert set(Sweep.read(out)) == set(serial)


def by_dask(out: str) -> None:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        workers = set(client.run(os.getpid).values())
        assert len(workers) == 2
        calls = []

        def kill_one(done: int, total: int) -> None:
            calls.append(done)
            if len(calls) == 6:
                os.kill(min(workers), signal.SIGKILL)

        check(client, out, kill_one)
        assert len(calls) > 6
        client.wait_for_workers(2, timeout=30)
        assert set(client.run(os.getpid).values()) != workers
    print("dask: equal, with a worker killed")


def by_ray(out: str) -> None:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    from systolic.sweeps import RayExecutor

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        executor = RayExecutor()
        # Both at once, so that there are two.
        pids = [executor.submit(slow_pid) for _ in range(2)]
        workers = {pid.result() for pid in pids}
        assert len(workers) == 2
        calls = []

        def kill_one(done: int, total: int) -> None:
            calls.append(done)
            if len(calls) == 6:
                os.kill(min(workers), signal.SIGKILL)

        check(executor, out, kill_one)
        assert len(calls) > 6
        assert min(workers) not in {executor.submit(slow_pid).result() for _ in range(4)}
    finally:
        ray.shutdown()
    print("ray: equal, with a worker killed")


def slow_pid() -> int:
    time.sleep(0.5)
    return os.getpid()


def by_mpi(out: str) -> None:
    from mpi4py.futures import MPIPoolExecutor

    with MPIPoolExecutor() as executor:
        check(executor, out)
        print(f"mpi: equal, {executor.num_workers} workers")


if __name__ == "__main__":
    {"dask": by_dask, "ray": by_ray, "mpi": by_mpi}[sys.argv[1]](sys.argv[2])
