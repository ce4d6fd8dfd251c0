"""What each unit of the machine does when, and how full its memories are, from a program and its times."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from systolic import _check
from systolic._show.columns import columns
from systolic._show.table import Table
from systolic.isa import Activate, HostCall, MatrixMultiply, Program, ReadHost, Vector, WriteHost, row_ranges
from systolic.isa.instructions import Convolve

UNITS = ("host in", "host out", "host call", "weight fetch", "weight shift", "matrix", "vector")
"""The units of the machine. A weight shift is the matrix unit's, while it may still stream."""

_BY_OPCODE = {
    ReadHost.opcode: "host in",
    WriteHost.opcode: "host out",
    HostCall.opcode: "host call",
    MatrixMultiply.opcode: "matrix",
    Convolve.opcode: "matrix",
    Activate.opcode: "vector",
    Vector.opcode: "vector",
}


class Lane(NamedTuple):
    """What one unit does, in the order of time: nothing overlaps.

    Attributes
    ----------
    unit : str
    instruction : ndarray of int64, (events,)
        The number of the instruction: of a fetch the ReadWeights, of a shift the multiply.
    start, end : ndarray of int64, (events,)
        The unit is busy from `start` until before `end`; a host call takes no cycles.
    complete : ndarray of int64, (events,)
        When the result is there.
    """

    unit: str
    instruction: np.ndarray
    start: np.ndarray
    end: np.ndarray
    complete: np.ndarray


def unit_lanes(
    program: Program, times: np.ndarray, fetches: Lane, shifts: tuple[np.ndarray, np.ndarray], rows: int
) -> tuple[Lane, ...]:
    """Return a lane per unit.

    Parameters
    ----------
    program : Program
    times : ndarray of int64, (3, instructions)
        Start, end and completion of each.
    fetches : Lane
        Of the weight memory.
    shifts : (ndarray, ndarray) of int64, (multiplies with new weights,)
        Their instructions and when each begins to shift.
    rows : int
        Of the array: the cycles of a shift.
    """
    units = np.array([_BY_OPCODE.get(item.opcode, "") for item in program], object)
    number, start = shifts
    found = {"weight fetch": fetches, "weight shift": Lane("", number, start, start + rows, start + rows)}
    lanes = []
    for unit in UNITS:
        here = np.flatnonzero(units == unit)
        here = here[np.argsort(times[0, here], kind="stable")]  # host calls do not wait for each other
        lane = found.get(unit) or Lane(unit, here, *times[:, here])
        lanes.append(lane._replace(unit=unit))
    return tuple(lanes)


@dataclass(frozen=True, eq=False)
class Occupancy:
    """How much of a memory is in use over time.

    Attributes
    ----------
    memory, unit : str
        ``unit`` is "rows" or "tiles".
    cycle : ndarray of int64, (steps,)
        When the number changes; the first is 0.
    used : ndarray of int64, (steps,)
        The number in use from that cycle on.
    limit : int or None
        How many there are.
    cycles : int
        Of the whole program.
    """

    memory: str
    unit: str
    cycle: np.ndarray
    used: np.ndarray
    limit: int | None
    cycles: int

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Occupancy):
            return NotImplemented
        return all(_check.same_values(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))

    __hash__ = None  # type: ignore[assignment]

    @property
    def peak(self) -> int:
        """The most that are in use at once."""
        return int(self.used.max())

    @property
    def mean(self) -> float:
        """How many are in use on the average over the whole program."""
        if not self.cycles:
            return 0.0
        lengths = np.diff(np.append(np.minimum(self.cycle, self.cycles), self.cycles))
        return float(self.used @ lengths) / self.cycles

    def table(self) -> Table:
        """Return a row per step."""
        rows = zip(self.cycle.tolist(), self.used.tolist(), strict=True)
        title = f"{self.memory}: at most {self.peak:,} {self.unit}"
        return Table(columns("cycle", f"used_{self.unit}"), rows, title=title)

    def to_frame(self) -> Any:
        """Return :meth:`table` as a pandas frame; needs ``pip install "systolic[pandas]"``."""
        return self.table().to_frame()

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def steps(
    memory: str, unit: str, first: Any, last: Any, size: Any, limit: int | None, cycles: int
) -> Occupancy:
    """Return the occupancy by values of so many rows, each in use from `first` until before `last`."""
    first, last = np.asarray(first, np.int64), np.asarray(last, np.int64)
    size = np.broadcast_to(np.asarray(size, np.int64), first.shape)
    kept = last > first
    at = np.concatenate(([0], first[kept], last[kept]))
    change = np.concatenate(([0], size[kept], -size[kept]))
    cycle, place = np.unique(at, return_inverse=True)
    total = np.zeros(len(cycle), np.int64)
    np.add.at(total, place, change)
    used = np.cumsum(total)
    changed = np.append(True, used[1:] != used[:-1])
    return Occupancy(memory, unit, cycle[changed], used[changed], limit, cycles)


class _Values:
    """The values that rows of one memory hold over time.

    The rows are cut into segments at every address at which some range begins or ends, so that a range is a
    few segments, however many rows it has.
    """

    def __init__(self, ranges: list[tuple[int, int]]) -> None:
        self._edges = np.unique(np.array(ranges, np.int64))
        count = max(len(self._edges) - 1, 0)
        self._sizes = np.diff(self._edges)
        self._since = np.full(count, -1, np.int64)  # -1: no value
        self._until = np.zeros(count, np.int64)
        self._found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def segments(self, ranges: list[tuple[int, int]]) -> list[slice]:
        """Return the segments of each range."""
        return [slice(*pair) for pair in np.searchsorted(self._edges, ranges).tolist()]

    def read(self, here: slice, until: int) -> None:
        np.maximum(self._until[here], until, out=self._until[here])

    def write(self, here: slice, since: int, until: int, keep: bool) -> None:
        if keep:  # the sums that are there are added to
            self._since[here] = np.where(self._since[here] < 0, since, self._since[here])
            np.maximum(self._until[here], until, out=self._until[here])
        else:
            self._close(here, since)
            self._since[here], self._until[here] = since, until

    def _close(self, here: slice, at: int | None) -> None:
        since, until = self._since[here], self._until[here]
        ends = until if at is None else np.minimum(until, at)
        held = since >= 0
        self._found.append((since[held], ends[held], self._sizes[here][held]))

    def closed(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return since when, until when and how many rows each value was held."""
        self._close(slice(None), None)
        since, until, sizes = (np.concatenate(parts) for parts in zip(*self._found, strict=True))
        return since, until, sizes


def row_occupancies(
    program: Program,
    times: np.ndarray,
    rows: int,
    limits: dict[str, int | None],
    cycles: int,
) -> dict[str, Occupancy]:
    """Return the occupancy of the unified buffer and of the accumulators, see ``Timeline.occupancy``."""
    names = {"ub": "unified buffer", "acc": "accumulators"}
    start, end, complete = times.tolist()
    found = {}
    for memory, name in names.items():
        touched: list[tuple[int, bool]] = []
        ranges: list[tuple[int, int]] = []
        for number, item in enumerate(program):
            written = None
            if isinstance(item, Activate | Vector):
                written = program.function_of(item).rows_written(item.rows)
            for of, is_write, first, count, _ in row_ranges(item, written):
                if of == memory:
                    touched.append((number, is_write))
                    ranges.append((first, first + count))
        values = _Values(ranges)
        # The first sum of a multiply arrives `rows` cycles after its swap.
        delay = rows if memory == "acc" else 0
        for (number, is_write), here in zip(touched, values.segments(ranges), strict=True):
            if is_write:
                keep = getattr(program[number], "accumulate", False)
                values.write(here, start[number] + delay, complete[number], keep)
            else:
                values.read(here, end[number])
        found[memory] = steps(name, "rows", *values.closed(), limits[memory], cycles)
    return found
