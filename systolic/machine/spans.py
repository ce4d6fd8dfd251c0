"""Which of a program's cycles the array spends on what: spans of one cause each, without a gap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

CAUSES = (
    "active",
    "weight_stall",
    "weight_shift",
    "raw_stall",
    "input_stall",
    "accumulator_stall",
    "other_stall",
)
"""What each cycle of the array is spent on; exactly one."""

LIMITS = {
    "active": "array",
    "weight_stall": "weight memory",
    "weight_shift": "weight shift",
    "raw_stall": "data dependence",
    "input_stall": "host link",
    "accumulator_stall": "accumulators",
    "other_stall": "dispatch and drain",
}
"""What limits the cycles of each cause."""

# In the order in which one follows the other before a stream; operands count as RAW or as input stall.
_ORDER = ("input_stall", "accumulator_stall", "other_stall", "weight_stall", "weight_shift", "active")


class Spans(NamedTuple):
    """Spans of cycles that follow each other from cycle 0 to the end of the program.

    Attributes
    ----------
    start, end : ndarray of int64, (spans,)
        `end` is the cycle behind the last; the next span starts there.
    cause : ndarray of uint8, (spans,)
        Index in `CAUSES`.
    multiply : ndarray of int64, (spans,)
        The multiply that streams or is waited for, counted among multiplies; -1 behind the last stream.
    """

    start: np.ndarray
    end: np.ndarray
    cause: np.ndarray
    multiply: np.ndarray

    def totals(self) -> dict[str, int]:
        """Return the cycles of each cause."""
        cycles = self.end - self.start
        return {cause: int(cycles[self.cause == code].sum()) for code, cause in enumerate(CAUSES)}

    def within(self, edges: Sequence[int]) -> list[dict[str, int]]:
        """Return the cycles of each cause between each two of some cycles that do not decrease."""
        at = np.asarray(edges, np.int64)
        place = np.searchsorted(self.end, at, side="right")  # the span that holds the cycle
        inside = np.minimum(place, max(len(self.end) - 1, 0))
        cycles = self.end - self.start
        columns = []
        for code in range(len(CAUSES)):
            here = self.cause == code
            before = np.concatenate(([0], np.cumsum(cycles * here)))[place]
            if len(self.end):
                part = np.where(place < len(self.end), at - self.start[inside], 0)
                before = before + part * here[inside]
            columns.append(np.diff(before))
        return [dict(zip(CAUSES, map(int, row), strict=True)) for row in zip(*columns, strict=True)]


def spans_of(numbers: np.ndarray, streams: np.ndarray, cycles: int) -> Spans:
    """Return the spans of a program's cycles.

    Parameters
    ----------
    numbers : ndarray of int64, (7, multiplies)
        Of each multiply the end of the stream before; until when operands, accumulators and dispatch are
        waited for; shift start; swap; whether the operands are the vector unit's.
    streams : ndarray of int64, (multiplies,)
        Cycles of each stream.
    cycles : int
        The last completion.
    """
    swap, by_vector = numbers[5], numbers[6]
    count = len(swap)
    edges = np.maximum.accumulate(np.vstack((numbers[:6], swap + streams)), axis=0).T
    causes = np.tile(np.array([CAUSES.index(cause) for cause in _ORDER], np.uint8), (count, 1))
    causes[by_vector != 0, 0] = CAUSES.index("raw_stall")
    multiply = np.repeat(np.arange(count), len(_ORDER))
    last = int(edges[-1, -1]) if count else 0
    # Behind the last stream.
    start = np.append(edges[:, :-1].ravel(), last)
    end = np.append(edges[:, 1:].ravel(), cycles)
    cause = np.append(causes.ravel(), np.uint8(CAUSES.index("other_stall")))
    multiply = np.append(multiply, -1)
    kept = end > start
    return Spans(start[kept], end[kept], cause[kept], multiply[kept])
