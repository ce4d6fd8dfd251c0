"""What configurations cost: many ideal machines at once in closed form, one program at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import local
from typing import Any

import numpy as np

from systolic.compiler import Programs
from systolic.config import ArrayConfig, MachineConfig
from systolic.formats import Format
from systolic.gemm import Gemm
from systolic.model import Model
from systolic.stats import COUNTS, Stats
from systolic.sweeps.workloads import Products
from systolic.tiling import estimate_gemm, estimate_many
from systolic.tiling.mappings import cheapest, wrong_order

# Sums of counts beyond this are made in Python's integers; the margin is for rounding in float64.
_LARGEST = 2.0**62


def ideal_stats(
    products: Sequence[tuple[Gemm | tuple[Gemm, ...], int]], arrays: Sequence[ArrayConfig]
) -> list[Stats]:
    """Return the counts of products on each array, in closed form.

    Parameters
    ----------
    products : sequence of (Gemm or tuple of Gemm, int)
        Sizes, or layouts of a product of which the cheapest is taken, and how often each runs.
    arrays : sequence of ArrayConfig

    Returns
    -------
    list of Stats
        Equal to the sum of ``estimate(gemm, machine=array)`` over all products, in their cheapest layouts.

    Examples
    --------
    >>> from systolic import ArrayConfig, Gemm
    >>> arrays = [ArrayConfig(256, 256), ArrayConfig(64, 64)]
    >>> [stats.cycles for stats in ideal_stats([(Gemm(1, 256, 256), 2)], arrays)]
    [1534, 2302]
    """
    several = [(each if isinstance(each, tuple) else (each,), count) for each, count in products]
    vectors: dict[tuple[str, Format], list[int]] = {}
    for number, array in enumerate(arrays):
        vectors.setdefault((array.dataflow, array.format), []).append(number)
    found: list[Stats | None] = [None] * len(arrays)
    for alike, numbers in vectors.items():
        totals = _totals(several, [arrays[number] for number in numbers], *alike)
        if totals is not None:
            for number, stats in zip(numbers, totals, strict=True):
                found[number] = stats
    return [
        _sum(several, array) if stats is None else stats
        for array, stats in zip(arrays, found, strict=True)
    ]


def _sum(products: Products, array: ArrayConfig) -> Stats:
    """Return the total in Python's integers."""
    total = dict.fromkeys(COUNTS, 0)
    for layouts, count in products:
        for name, value in estimate_gemm(cheapest(layouts, array), array).to_dict().items():
            total[name] += count * value
    return Stats(**total)


def _totals(
    products: Products, arrays: Sequence[ArrayConfig], dataflow: str, numbers: Format
) -> list[Stats] | None:
    """Return the totals on arrays of one dataflow and format, or None if some may not fit int64."""
    # Whichever of the two is cut into chunks.
    gemms = [gemm for layouts, _ in products for gemm in layouts]
    largest = max(max(gemm.m, gemm.n * gemm.pack) for gemm in gemms)
    if largest >= 2**40 or max(count for _, count in products) >= 2**40:
        return None

    def column(name: str) -> np.ndarray:
        return np.array([getattr(gemm, name) for gemm in gemms], dtype=object)[:, None]

    # Accumulators for all rows of the longest product are as good as unlimited ones, which None among
    # integers would also say, slowly.
    unlimited = 2 * max(largest, 1)
    try:
        many = estimate_many(
            *(column(name).astype(np.int64) for name in "mkn"),
            **{name: column(name).astype(np.int64) for name in ("groups", "taps", "pack")},
            rows=np.array([array.rows for array in arrays]),
            cols=np.array([array.cols for array in arrays]),
            double_buffered=np.array([array.double_buffered for array in arrays]),
            accumulator_rows=np.array(
                [min(array.accumulator_rows or unlimited, unlimited) for array in arrays]
            ),
            dataflow=dataflow,
            numbers=numbers,
        )
    except (ValueError, OverflowError):
        return None
    counts = np.array([count for _, count in products])
    if len(gemms) > len(products):
        many = _cheapest_of(many, [len(layouts) for layouts, _ in products])
    columns = {}
    for name, values in many.items():
        if name == "utilization":
            continue
        if values.shape[0] * float(counts.max()) * float(values.max(initial=0)) > _LARGEST:
            return None
        columns[name] = (counts @ values).tolist()
    return [
        Stats(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)
    ]


def _cheapest_of(many: dict[str, np.ndarray], layouts: Sequence[int]) -> dict[str, np.ndarray]:
    """Return the counts of the cheapest of so many layouts of each product, on each array."""
    stops = np.cumsum(layouts)
    cycles = many["cycles"]
    chosen = np.stack([
        start + cycles[start:stop].argmin(axis=0) for start, stop in zip(stops - layouts, stops, strict=True)
    ])  # fmt: skip
    return {name: values[chosen, np.arange(values.shape[1])] for name, values in many.items()}


def program_stats(programs: Programs, machine: MachineConfig) -> Stats | str:
    """Return the counts of a model compiled for a machine, or why the machine cannot run it."""
    try:
        return programs.stats(machine)
    except ValueError as error:
        return str(error)


def ideal_task(
    products: Mapping[str | None, Products], arrays: Sequence[tuple[ArrayConfig, str | None]]
) -> list[Stats | str]:
    """Return the results of a task of ideal machines; a function by name, for other processes.

    Products are by mapping; a mapping goes with each array.
    """
    found: list[Stats | str] = [""] * len(arrays)
    for mapping, sizes in products.items():
        alike: tuple[list[int], list[int]] = [], []
        for number, (array, name) in enumerate(arrays):
            if name == mapping:
                alike[array.format.ordered].append(number)
        plain = [(several[:1], count) for several, count in sizes]
        for numbers, own in zip(alike, (sizes, plain), strict=True):
            stats = ideal_stats(own, [arrays[number][0] for number in numbers])
            for number, each in zip(numbers, stats, strict=True):
                found[number] = wrong_order(mapping, arrays[number][0]) or each
    return found


_kept = local()  # of each thread: programs of the last models
_MOST_KEPT = 4


def program_task(
    work: str, model: Model, batch: int, configurations: Sequence[tuple[MachineConfig, str | None]]
) -> list[Stats | str]:
    """Return the results of a task of programs of one model; a function by name, for other processes.

    `work` identifies the model, whose programs are kept from task to task. A configuration is a machine and a
    mapping.
    """
    return [
        program_stats(_programs_of(work, model, batch, mapping), machine)
        for machine, mapping in configurations
    ]


def _programs_of(work: str, model: Model, batch: int, mapping: str | None) -> Programs:
    kept: dict[Any, Programs] = vars(_kept)
    key = f"{work} {batch} {mapping}"
    if key not in kept:
        while len(kept) >= _MOST_KEPT:
            del kept[next(iter(kept))]
        kept[key] = Programs(model, batch=batch, mapping=mapping)
    return kept[key]
