"""Overheads of calls (8 x 8 x 8, estimates, the import), and the suite of ``systolic bench``."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from systolic import _check, _core, engine, tiling
from systolic.benchmark.cycle import cycle_section
from systolic.benchmark.throughput import operands, thin_section, threads_section, wavefront_section
from systolic.benchmark.timing import SHORT_ROUNDS, Measurement, Section, Work, added_seconds, compare
from systolic.config import ArrayConfig
from systolic.gemm import Gemm, Progress
from systolic.machine.port_values import ports

EXTENTS = ("quick", "usual", "full")


def suite(
    *, rounds: int = 7, threads: int = 1, extent: str = "usual", report: Progress | None = None
) -> list[Section]:
    """Measure everything that the documentation states, section by section.

    Parameters
    ----------
    rounds : int
        Pairs of runs of each row; medians are returned.
    threads : int
        Of whole products in wavefront mode and what they are compared with.
    extent : {"quick", "usual", "full"}
        Quick leaves out products of 2048, the other instruction sets and two threads; full gives
        the largest product to ONNX Runtime too, which takes a second a time.
    report : callable, optional
        Called as report(done, total) with sections.

    Returns
    -------
    list of Section
    """
    _check.integer(rounds, "rounds", minimum=1)
    _check.integer(threads, "threads", minimum=1)
    _check.choice(extent, "extent", EXTENTS)
    every = extent != "quick"
    steps: list[Callable[[], Section]] = [
        partial(cycle_section, rounds, every),
        partial(
            wavefront_section, rounds, threads, every=every,
            sizes=(1024, 2048) if every else (1024,), slow=2048 if extent == "full" else 1024,
        ),
        partial(thin_section, rounds),
        partial(calls_section, rounds),
    ]  # fmt: skip
    if every:
        steps.insert(2, partial(threads_section, rounds))
    sections = []
    for done, step in enumerate(steps):
        if report is not None:
            report(done, len(steps))
        sections.append(step())
    if report is not None:
        report(len(steps), len(steps))
    return sections


def calls_section(rounds: int, *, estimates: int = 100_000) -> Section:
    """Measure what calls cost: an 8 x 8 x 8 product, estimates, the import."""
    size, config = 8, ArrayConfig(8, 8)
    x, w = operands(size, size, size)
    wide = x.astype(np.int32), w.astype(np.int32)
    name = f"matmul {size} x {size} x {size} on {size} x {size}"
    direct = ("_core.run on prepared buffers", direct_run(x, w, config), 1)
    by_numpy = (f"numpy.matmul int32, {size} x {size}", partial(np.matmul, *wide), 1)

    def call(mode: str) -> Work:
        return lambda: engine.matmul(x, w, array=config, mode=mode)

    def row(mode: str, beside: tuple[str, Work, float]) -> Measurement:
        return compare(
            f"{name}, {mode}", call(mode), 1, *beside, "calls/s", SHORT_ROUNDS * rounds, least_seconds=1e-3
        )

    over_core, over_numpy = row("cycle", direct), row("cycle", by_numpy)
    measured = [over_core, over_numpy, row("wavefront", by_numpy), _estimates(rounds, estimates)]
    microseconds = 1e6 * added_seconds(call("cycle"), direct[1], SHORT_ROUNDS * rounds)
    own, numpy_alone = _import_seconds(rounds)
    notes = (
        f"matmul {size} x {size} x {size} takes {microseconds:.1f} µs more than _core.run "
        "on the same cycles with prepared buffers",
        f"python -c 'import systolic' takes {own:.3f} s, python -c 'import numpy' {numpy_alone:.3f} s",
    )
    return Section("Calls", tuple(measured), notes)


def direct_run(x: np.ndarray, w: np.ndarray, config: ArrayConfig) -> Callable[[], np.ndarray]:
    """Return a function that clocks a product of one fold through the kernel, all buffers made before.

    It returns what left the bottom PEs after each edge, (cycles, cols) int32. Registers are not
    reset between calls: a second one clocks on from where the first ended.
    """
    size = config.rows, config.cols
    # The last one is of the write that follows the last counted edge.
    values = list(ports(x, w, array=config))[:-1]

    def raw(array: np.ndarray) -> np.ndarray:
        return array.view(np.uint8) if array.itemsize == 1 else array

    registers = [raw(np.zeros(size, dtype)) for dtype in config.register_dtypes.values()]
    driven = [raw(np.ascontiguousarray([each.ports[name] for each in values])) for name in config.port_dtypes]
    bottom = np.empty((len(values), config.cols), dtype=np.int32)
    arguments: list[Any] = [*registers, *driven, bottom]
    x_signed, w_signed = x.dtype == np.int8, w.dtype == np.int8

    def work() -> np.ndarray:
        _core.run(*arguments, activation_signed=x_signed, weight_signed=w_signed)
        return bottom

    return work


def _estimates(rounds: int, count: int) -> Measurement:
    rng = np.random.default_rng(0)
    m, k, n = rng.integers(1, 4096, (3, count))
    rows, cols = 2 ** rng.integers(3, 10, (2, count))
    few = min(count, 500)
    each = [
        (Gemm(*sizes), ArrayConfig(*size))
        for sizes, size in zip(
            np.stack([m, k, n])[:, :few].T.tolist(), np.stack([rows, cols])[:, :few].T.tolist(), strict=True
        )
    ]

    def at_once() -> np.ndarray:
        return tiling.estimate_cycles(m, k, n, rows=rows, cols=cols)

    def one_by_one() -> list[int]:
        return [engine.estimate(gemm, machine=array).cycles for gemm, array in each]

    name = f"estimate_cycles, {count:,} at once"
    return compare(name, at_once, count, "estimate, one by one", one_by_one, few, "estimates/s", rounds)


def _import_seconds(rounds: int) -> tuple[float, float]:
    """Return medians of the seconds that an interpreter takes to import systolic, and numpy alone.

    With bytecode at hand, as an installed package has it.
    """
    import subprocess
    import tempfile

    times: tuple[list[float], list[float]] = ([], [])
    with tempfile.TemporaryDirectory() as folder:
        variables = {**os.environ, "PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": ""}
        for number in range(rounds + 1):
            for name, taken in zip(("systolic", "numpy"), times, strict=True):
                started = time.perf_counter()
                # Elsewhere: this folder may be a checkout whose sources are not built.
                command = [sys.executable, "-c", f"import {name}"]
                subprocess.run(command, check=True, env=variables, cwd=folder)
                if number:  # the first one writes it
                    taken.append(time.perf_counter() - started)
    return median(times[0]), median(times[1])
