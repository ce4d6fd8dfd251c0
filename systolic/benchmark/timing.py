"""Interleaved timing of two functions, and tables of the results."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from systolic import _kernels
from systolic._show.columns import columns
from systolic._show.table import Table, si
from systolic.info import cpu_name
from systolic.threads import thread_count

Work = Callable[[], object]

# Where a round takes a millisecond, one interruption spoils it: so many times the rounds asked for.
SHORT_ROUNDS = 7

FOOTER = "rates: medians of runs in turn; ratio: median pair by pair, above 1 is faster"


@dataclass(frozen=True)
class Measurement:
    """One thing measured beside another, run by run in turn.

    Attributes
    ----------
    name, baseline : str
        What ran, and what it is compared with.
    unit : str
        Of the rates.
    rate, baseline_rate : float
        Medians, per second.
    ratio : float
        Median of rate / baseline_rate, pair by pair.
    """

    name: str
    baseline: str
    unit: str
    rate: float
    baseline_rate: float
    ratio: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return dict(vars(self))


@dataclass(frozen=True)
class Section:
    """Measurements that belong together.

    Attributes
    ----------
    title : str
    measurements : tuple of Measurement
    notes : tuple of str
        Sentences that go below them.
    """

    title: str
    measurements: tuple[Measurement, ...]
    notes: tuple[str, ...] = field(default=())


def _timed(work: Work, calls: int) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - started) / calls


def compare(
    name: str, work: Work, amount: float,
    baseline: str, base_work: Work, base_amount: float,
    unit: str, rounds: int, *, least_seconds: float = 0.0, settle: bool = False,
) -> Measurement:  # fmt: skip
    """Time two things in turn, `rounds` times after one warm-up, and return rates and their ratio.

    Parameters
    ----------
    amount, base_amount : float
        How many units one call does.
    least_seconds : float
        What takes less is called so often in a round that it takes about as long: a single call
        of microseconds would time the clock.
    settle : bool
        Before each is timed it is called once more: threads of the other, which look for work for some
        milliseconds before they sleep, are not to be on its cores.
    """
    calls = [_calls(work, least_seconds), _calls(base_work, least_seconds)]
    rates, base_rates = [], []
    for _ in range(rounds):
        if settle:
            work()
        rates.append(amount / _timed(work, calls[0]))
        if settle:
            base_work()
        base_rates.append(base_amount / _timed(base_work, calls[1]))
    ratio = median(a / b for a, b in zip(rates, base_rates, strict=True))
    return Measurement(name, baseline, unit, median(rates), median(base_rates), ratio)


def added_seconds(work: Work, base_work: Work, rounds: int, *, calls: int = 20) -> float:
    """Return how much longer a call of one takes than of another: median pair by pair, of `calls` each."""
    work(), base_work()
    return median(_timed(work, calls) - _timed(base_work, calls) for _ in range(rounds))


def _calls(work: Work, least_seconds: float) -> int:
    """Warm up, and return how many calls take `least_seconds`."""
    work()
    if not least_seconds:
        return 1
    calls = 1
    while (seconds := _timed(work, calls) * calls) < least_seconds / 2:
        calls *= 4
    return max(1, math.ceil(least_seconds / seconds * calls))


@contextmanager
def using(instruction_set: str) -> Iterator[None]:
    """Let the array and the products run on another instruction set for a while."""
    _kernels._use(instruction_set)
    try:
        yield
    finally:
        _kernels._use()


def instruction_sets(every: bool) -> tuple[str, ...]:
    """Return the one in use, and after it the others, best first, if `every` is wanted."""
    used = _kernels.instruction_set
    others = reversed([name for name in _kernels.instruction_sets if name != used])
    return (used, *others) if every else (used,)


def title() -> str:
    """Return the machine's name, its instruction sets and how busy it is."""
    used = _kernels.instruction_set
    others = ", ".join(name for name in instruction_sets(True) if name != used)
    text = f"{cpu_name()}, {thread_count()} cores; {used} in use" + (f" (also {others})" if others else "")
    if hasattr(os, "getloadavg"):
        # What ratios forgive and rates do not.
        text += f"; load average {os.getloadavg()[0]:.2f}"
    return text


def _cells(m: Measurement) -> tuple[str, str, str, str, float]:
    return m.name, si(m.rate, m.unit), m.baseline, si(m.baseline_rate, m.unit), m.ratio


def table(measured: Sequence[Measurement], heading: str | None = None, footer: str = FOOTER) -> Table:
    """Return measurements as a table, by default titled with the machine's name."""
    heads = columns("measured", "rate", "beside", "other_rate", "ratio")
    return Table(heads, map(_cells, measured), title=heading or title(), footer=footer)


def markdown(section: Section) -> str:
    """Return a section as a heading, a table and its notes in Markdown."""
    lines = [f"### {section.title}", ""]
    if section.measurements:
        lines += ["| measured | rate | beside | its rate | ratio |", "|---|---|---|---|---|"]
    for *cells, ratio in map(_cells, section.measurements):
        lines.append(f"| {' | '.join(cells)} | {ratio:.2f} |")
    lines += ["", *(f"- {note}" for note in section.notes)]
    return "\n".join(lines).strip() + "\n"
