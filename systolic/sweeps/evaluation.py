"""What configurations cost: many ideal machines at once in closed form, one program at a time."""

from __future__ import annotations

from collections.abc import Sequence
from threading import local
from typing import Any

import numpy as np

from systolic.compiler import Programs
from systolic.config import ArrayConfig, MachineConfig
from systolic.formats import Format
from systolic.gemm import Gemm
from systolic.machine import time_program
from systolic.model import Model
from systolic.stats import COUNTS, Stats
from systolic.tiling import estimate_gemm, estimate_many

# Sums of counts beyond this are made in Python's integers; the margin is for rounding in float64.
_LARGEST = 2.0**62


def ideal_stats(
    products: Sequence[tuple[Gemm, int]], arrays: Sequence[ArrayConfig]
) -> list[Stats]:
    """Return the counts of products on each array, in closed form.

    Parameters
    ----------
    products : sequence of (Gemm, int)
        Sizes, and how often each runs.
    arrays : sequence of ArrayConfig

    Returns
    -------
    list of Stats
        Equal to the sum of ``estimate(gemm, machine=array)`` over all products.

    Examples
    --------
    >>> from systolic import ArrayConfig, Gemm
    >>> arrays = [ArrayConfig(256, 256), ArrayConfig(64, 64)]
    >>> [stats.cycles for stats in ideal_stats([(Gemm(1, 256, 256), 2)], arrays)]
    [1534, 2302]
    """
    vectors: dict[tuple[str, Format], list[int]] = {}
    for number, array in enumerate(arrays):
        vectors.setdefault((array.dataflow, array.format), []).append(number)
    found: list[Stats | None] = [None] * len(arrays)
    for alike, numbers in vectors.items():
        totals = _totals(products, [arrays[number] for number in numbers], *alike)
        if totals is not None:
            for number, stats in zip(numbers, totals, strict=True):
                found[number] = stats
    return [
        _sum(products, array) if stats is None else stats
        for array, stats in zip(arrays, found, strict=True)
    ]


def _sum(products: Sequence[tuple[Gemm, int]], array: ArrayConfig) -> Stats:
    """Return the total in Python's integers."""
    total = dict.fromkeys(COUNTS, 0)
    for gemm, count in products:
        for name, value in estimate_gemm(gemm, array).to_dict().items():
            total[name] += count * value
    return Stats(**total)


def _totals(
    products: Sequence[tuple[Gemm, int]], arrays: Sequence[ArrayConfig], dataflow: str, numbers: Format
) -> list[Stats] | None:
    """Return the totals on arrays of one dataflow and format, or None if some may not fit int64."""
    # Whichever of the two is cut into chunks.
    largest = max(max(gemm.m, gemm.n) for gemm, _ in products)
    if largest >= 2**40 or max(count for _, count in products) >= 2**40:
        return None

    def column(name: str) -> np.ndarray:
        return np.array([getattr(gemm, name) for gemm, _ in products], dtype=object)[:, None]

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


def program_stats(programs: Programs, machine: MachineConfig) -> Stats | str:
    """Return the counts of a model compiled for a machine, or why the machine cannot run it."""
    try:
        return time_program(programs.of(machine), machine).stats
    except ValueError as error:
        return str(error)


def ideal_task(products: Sequence[tuple[Gemm, int]], arrays: Sequence[ArrayConfig]) -> list[Stats | str]:
    """Return the results of a task of ideal machines; a function by name, for other processes."""
    return list(ideal_stats(products, arrays))


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
