"""How a benchmark measures itself, and the table at the end.

A benchmark asks for the fixture `measure` and says what one call does and in which unit. What it
is compared with runs in turn with it (``systolic.benchmark.compare``), so that a machine that
slows down for a while slows both. The rates go into pytest-benchmark's ``extra_info``, and so into
``--benchmark-json``, and into one table at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import numpy as np
import pytest

from systolic import _kernels
from systolic import benchmark as bench
from systolic._show.table import Column, Table, si
from systolic.info import cpu_name, info
from systolic.threads import thread_count

Work = Callable[[], object]
_MEASURED = pytest.StashKey[list[tuple[str, str, float, bench.Measurement | None]]]()


@pytest.fixture
def measure(benchmark, request):
    """Return ``measure(name, work, amount, unit, beside=(name, work, amount), rounds=7)``.

    `amount` is how many units one call of `work` does; `beside`, if given, is what it is compared
    with, and its ratio above 1 means faster than that. With ``--benchmark-disable`` everything runs
    once, untimed.
    """

    def run(
        name: str, work: Work, amount: float, unit: str, beside: tuple[str, Work, float] | None = None,
        rounds: int = 7,
    ) -> None:  # fmt: skip
        if benchmark.disabled:
            benchmark(work)
            if beside is not None:
                beside[1]()
            return
        compared = None
        if beside is not None:
            compared = bench.compare(name, work, amount, *beside, unit, rounds)
        benchmark.pedantic(work, rounds=rounds, warmup_rounds=1 if beside is None else 0)
        rate = compared.rate if compared else amount / median(benchmark.stats.stats.data)
        benchmark.extra_info |= {"unit": unit, "rate": rate}
        if compared is not None:
            benchmark.extra_info |= {
                "baseline": compared.baseline,
                "baseline_rate": compared.baseline_rate,
                "ratio": compared.ratio,
            }
        request.config.stash.setdefault(_MEASURED, []).append((name, unit, rate, compared))

    return run


def pytest_benchmark_update_machine_info(config, machine_info):
    """Say in the JSON which kernel and which numpy ran."""
    machine_info["systolic"] = info()


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter, config):
    measured = config.stash.get(_MEASURED, [])
    if not measured:
        return
    rows = [
        (name, si(rate, unit), c.baseline if c else None, si(c.baseline_rate, unit) if c else None,
         c.ratio if c else None)
        for name, unit, rate, c in measured
    ]  # fmt: skip
    columns: list[str | Column] = ["measured", "rate", "beside", "its rate", Column("ratio", format=".2f")]
    table = Table(
        columns, rows,
        title=f"{cpu_name()}, {thread_count()} cores; {_kernels.instruction_set}, numpy {np.__version__}",
        footer="rates: medians of runs in turn; ratio: median pair by pair, above 1 is faster",
    )  # fmt: skip
    terminalreporter.section("rates")
    terminalreporter.write_line(table.text())
