"""How fast this machine emulates, as ratios: each measured beside what it is compared with."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from systolic import _check, _core, engine
from systolic._show.table import Column, Table, si
from systolic.array import SystolicArray
from systolic.array.schedule import Ports
from systolic.config import ArrayConfig
from systolic.info import cpu_name


class NumpyStepping:
    """The yardstick of cycle mode: psums of a rows x cols array stepped by preallocated numpy.

    Each cycle slides the activations, multiplies and adds; weights stand still and nothing is
    shifted or swapped, so it does less than the kernel does.
    """

    def __init__(self, x: np.ndarray, w: np.ndarray) -> None:
        rows, cols = w.shape
        self.west = x.astype(np.int16)
        self.w16 = w.astype(np.int16)
        self.a16 = np.zeros((rows, cols), dtype=np.int16)
        self.t16 = np.zeros((rows, cols), dtype=np.int16)
        self.p = np.zeros((rows, cols), dtype=np.int32)
        self.q = np.zeros((rows, cols), dtype=np.int32)

    def run(self) -> None:
        """Step through all rows of x, fed without skew."""
        a16, w16, t16, p, q = self.a16, self.w16, self.t16, self.p, self.q
        for west in self.west:
            a16[:, 1:] = a16[:, :-1]
            a16[:, 0] = west
            np.multiply(a16, w16, out=t16)
            np.add(p[:-1], t16[1:], out=q[1:])
            q[0] = t16[0]
            p, q = q, p
        self.p, self.q = p, q


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


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def compare(
    name: str, work: Callable[[], object], amount: float,
    baseline: str, base_work: Callable[[], object], base_amount: float,
    unit: str, rounds: int,
) -> Measurement:  # fmt: skip
    """Time two things in turn, `rounds` times after one warm-up, and return rates and their ratio.

    Parameters
    ----------
    amount, base_amount : float
        How many units one call does.
    """
    work(), base_work()
    rates, base_rates = [], []
    for _ in range(rounds):
        rates.append(amount / _timed(work))
        base_rates.append(base_amount / _timed(base_work))
    ratio = median(a / b for a, b in zip(rates, base_rates, strict=True))
    return Measurement(name, baseline, unit, median(rates), median(base_rates), ratio)


def bench(
    *, rows: int = 256, cols: int = 256, m: int = 2048, rounds: int = 7, threads: int = 1
) -> list[Measurement]:
    """Measure cycle mode beside numpy stepping, and both modes of matmul beside numpy's matmul.

    Parameters
    ----------
    rows, cols : int
        Size of the array.
    m : int
        Rows of x.
    rounds : int
        Pairs of runs; medians are returned.
    threads : int
        Threads of systolic; numpy's own are not limited.
    """
    for name, value in (("rows", rows), ("cols", cols), ("m", m), ("rounds", rounds), ("threads", threads)):
        _check.integer(value, name, minimum=1)
    rng = np.random.default_rng(0)
    x = rng.integers(-128, 128, (m, rows), dtype=np.int8)
    w = rng.integers(-128, 128, (rows, cols), dtype=np.int8)
    config = ArrayConfig(rows, cols, accumulator_rows=None)
    cycles = SystolicArray(config).fold(w, x).run().cycle
    stepping = NumpyStepping(x, w)
    pe_cycles, base = rows * cols * cycles, (stepping.run, rows * cols * m)
    random = _random_control(config, 256, rng)
    shape = f"{rows} x {cols}"

    def fold() -> None:
        SystolicArray(config).fold(w, x).run(threads=threads)

    def single() -> np.ndarray:
        return x.astype(np.float64) @ w.astype(np.float64)

    macs = m * rows * cols
    unit, beside = "PE-cycles/s", "numpy stepping"
    fold_name = f"one fold, m = {m}, {shape}, cycle mode"
    random_name, random_cycles = f"random control bits, {shape}", rows * cols * 256
    measured = [
        compare(fold_name, fold, pe_cycles, beside, *base, unit, rounds),
        compare(random_name, random, random_cycles, beside, *base, unit, rounds),
    ]
    for mode in ("cycle", "wavefront"):

        def product(mode: str = mode) -> None:
            engine.matmul(x, w, array=config, mode=mode, threads=threads)

        name = f"matmul {m} x {rows} x {cols}, {mode} mode"
        measured.append(compare(name, product, macs, "numpy float64 matmul", single, macs, "MAC/s", rounds))
    return measured


def _random_control(config: ArrayConfig, cycles: int, rng: np.random.Generator) -> Callable[[], None]:
    west, north = (cycles, config.rows), (cycles, config.cols)
    ports = Ports(
        rng.integers(-128, 128, west, dtype=np.int8),
        rng.random(west) < 0.5,
        rng.random(west) < 0.5,
        rng.integers(-128, 128, north, dtype=np.int8),
        np.zeros(north, dtype=np.int32),
    )
    array = SystolicArray(config)

    def clock() -> None:
        array._clock(cycles, 1, ports)

    return clock


def table(measured: list[Measurement]) -> Table:
    """Return the measurements as a table titled with the machine's name."""

    def rate(m: Measurement) -> str:
        return si(m.rate, m.unit)

    rows = [(m.name, rate(m), m.baseline, si(m.baseline_rate, m.unit), m.ratio) for m in measured]
    title = f"{cpu_name()}, kernel {_core.instruction_set}"
    columns: list[str | Column] = ["measured", "rate", "beside", "its rate", Column("ratio", format=".2f")]
    return Table(
        columns, rows, title=title, footer="medians of runs in turn; ratio is the median pair by pair"
    )
