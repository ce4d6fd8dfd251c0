"""Addresses for rows that are in use for a time: a greedy plan, and a check of any plan."""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from systolic import _summary


class Limit:
    """Rows of a memory, and between which other numbers all questions about it have the same answers.

    Examples
    --------
    >>> limit = Limit(100)
    >>> limit.holds(40), limit.holds(70), limit.holds(130)
    (True, True, False)
    >>> limit.least, limit.most
    (70, 129)
    """

    def __init__(self, rows: int) -> None:
        self.rows, self.least, self.most = rows, 0, sys.maxsize

    def holds(self, rows: int) -> bool:
        """Whether the memory has so many rows."""
        if rows <= self.rows:
            self.least = max(self.least, rows)
            return True
        self.most = min(self.most, rows - 1)
        return False


class Lifetime(NamedTuple):
    """Rows that are in use from step `start` to step `stop`, both included."""

    rows: int
    start: int
    stop: int


def greedy_by_size(lifetimes: Sequence[Lifetime]) -> list[int]:
    """Return an address for each: the largest first, each at the lowest one that is free all its time.

    See Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", arXiv:2001.03288.

    Examples
    --------
    >>> greedy_by_size([Lifetime(4, 0, 1), Lifetime(8, 1, 2), Lifetime(4, 2, 3)])
    [8, 0, 8]
    """
    order = sorted(range(len(lifetimes)), key=lambda i: (-lifetimes[i].rows, lifetimes[i].start, i))
    return _first_fit(lifetimes, order)


def in_order(lifetimes: Sequence[Lifetime]) -> list[int]:
    """Return an address for each: in the order of their start, each at the lowest one that is free."""
    order = sorted(range(len(lifetimes)), key=lambda i: (lifetimes[i].start, -lifetimes[i].rows, i))
    return _first_fit(lifetimes, order)


def _first_fit(lifetimes: Sequence[Lifetime], order: Sequence[int]) -> list[int]:
    rows, starts, stops = np.array(lifetimes, np.int64).reshape(-1, 3).T.copy()
    return _summary.first_fit(rows, starts, stops, np.array(order, np.int64))


def plan(lifetimes: Sequence[Lifetime], limit: Limit | None = None) -> tuple[list[int], int]:
    """Return addresses, and the rows that they take: the best of two greedy plans, and of some near them.

    Other orders are tried until no more rows are taken than are in use at once: of few lifetimes always, of
    many if they would take more than a limit.

    Examples
    --------
    >>> plan([Lifetime(4, 0, 1), Lifetime(8, 1, 2), Lifetime(4, 2, 3)])
    ([8, 0, 8], 12)
    """
    best: list[int] = []
    height = 0
    least = most_in_use(lifetimes)[1]
    makers: list[Callable[[Sequence[Lifetime]], list[int]]] = [greedy_by_size, in_order, *_SHUFFLED]
    for number, make in enumerate(makers):
        if (number and height == least) or (number > 1 and _is_enough(len(lifetimes), height, limit)):
            break
        found = make(lifetimes)
        needed = max((at + each.rows for at, each in zip(found, lifetimes, strict=True)), default=0)
        if not number or needed < height:
            best, height = found, needed
    check_plan(lifetimes, best, height)
    return best, height


def _is_enough(count: int, height: int, limit: Limit | None) -> bool:
    """Whether no plan of fewer rows is looked for."""
    return count > FEW and (limit is None or limit.holds(height))


def _shuffled(lifetimes: Sequence[Lifetime], seed: int) -> list[int]:
    """Return an address for each: in the order of sizes changed at random, by up to a half."""
    changed = np.random.default_rng(seed).uniform(0.5, 1, len(lifetimes)) * [each.rows for each in lifetimes]
    return _first_fit(lifetimes, np.argsort(-changed, kind="stable").tolist())


FEW = 200
"""Lifetimes whose plan does not depend on a limit, as other orders are tried in any case."""

_SHUFFLED = tuple(partial(_shuffled, seed=seed) for seed in range(30))


def most_in_use(lifetimes: Sequence[Lifetime]) -> tuple[int, int]:
    """Return the first step at which the most rows are in use, and how many.

    Examples
    --------
    >>> most_in_use([Lifetime(4, 0, 1), Lifetime(8, 1, 2), Lifetime(4, 2, 3)])
    (1, 12)
    """
    if not lifetimes:
        return 0, 0
    low = min(each.start for each in lifetimes)
    change = np.zeros(max(each.stop for each in lifetimes) - low + 2, np.int64)
    for rows, start, stop in lifetimes:
        change[start - low] += rows
        change[stop - low + 1] -= rows
    used = np.cumsum(change)
    step = int(np.argmax(used))
    return step + low, int(used[step])


def check_plan(lifetimes: Sequence[Lifetime], addresses: Sequence[int], limit: int) -> None:
    """Raise AssertionError if two that are in use at once share a row, or one lies beyond the limit.

    Derived by sweeping over time with the set of rows in use, not by comparing pairs as the plans do.

    Examples
    --------
    >>> check_plan([Lifetime(4, 0, 1), Lifetime(4, 1, 2)], [0, 3], 8)
    Traceback (most recent call last):
    AssertionError: step 1: rows 3 to 3 are in use by allocations 0 and 1
    """
    if len(lifetimes) != len(addresses):
        raise AssertionError(f"{len(lifetimes)} allocations, but {len(addresses)} addresses")
    events: list[tuple[int, int, int]] = []
    for number, ((rows, start, stop), first) in enumerate(zip(lifetimes, addresses, strict=True)):
        if first < 0 or first + rows > limit:
            raise AssertionError(
                f"allocation {number}, rows {first} to {first + rows - 1}, is beyond a limit of {limit} rows"
            )
        events += [(start, 1, number), (stop + 1, 0, number)]
    owner: dict[int, tuple[int, int]] = {}  # first row of what is in use: (row behind it, number)
    firsts: list[int] = []
    for step, begins, number in sorted(events):
        first, rows = addresses[number], lifetimes[number].rows
        if not rows:
            continue
        place = bisect_left(firsts, first)
        if not begins:
            del owner[first]
            firsts.pop(place)
            continue
        for neighbor in firsts[max(place - 1, 0) : place + 1]:
            behind, other = owner[neighbor]
            if neighbor < first + rows and first < behind:
                raise AssertionError(
                    f"step {step}: rows {max(first, neighbor)} to {min(first + rows, behind) - 1} are in use "
                    f"by allocations {min(other, number)} and {max(other, number)}"
                )
        firsts.insert(place, first)
        owner[first] = first + rows, number
