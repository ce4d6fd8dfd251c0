"""A product on an array in local time: the beats of every fold, and which values they make where.

PE (r, c) of the emulator works on beat tau in cycle tau + r + c. RTL may take other times, which a
:class:`~systolic.cosim.SignalMap` declares; its beats are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from systolic import _check
from systolic.array import State, SystolicArray
from systolic.config import ArrayConfig
from systolic.cosim.signals import Place, places
from systolic.formats import OPERANDS, Format, as_numbers, operand_name, stored
from systolic.gemm import Gemm
from systolic.tiling import Fold, schedule
from systolic.trace import Trace

# Recorded for one comparison.
_MOST_BYTES = 4 << 30


class Stay(NamedTuple):
    """A fold in local time.

    Attributes
    ----------
    fold : Fold
    tile : ndarray
        Enters from the north; see :meth:`systolic.dataflows.Dataflow.operands`.
    lines : ndarray
        Stream from the west, one each beat.
    begins, streams, leaves : int
        The beats of the first line of the tile, of the first line that streams, and of the swap from which
        sums leave.
    half : int
        Half of the accumulators.
    first : bool
        Whether its sums replace those in the accumulators.
    """

    fold: Fold
    tile: np.ndarray
    lines: np.ndarray
    begins: int
    streams: int
    leaves: int
    half: int
    first: bool


class Points(NamedTuple):
    """The values of a place that a product determines.

    Attributes
    ----------
    beats : ndarray of int, (beats,)
    stays : ndarray of int, (beats,)
        Number of the fold.
    steps : ndarray of int, (beats,)
        Of the line that streams or, of a tile on its way in, the row of the tile; of sums that leave, the
        number of the line below the array.
    mask : ndarray of bool, (beats, rows, cols)
        Where the place has such a value on a beat.
    """

    beats: np.ndarray
    stays: np.ndarray
    steps: np.ndarray
    mask: np.ndarray


class Index(NamedTuple):
    """Which element of a product a value belongs to; None where it belongs to all of an axis."""

    m: int | None
    n: int | None
    k: int | None


class Controls(NamedTuple):
    """The names of a dataflow's control bits: of the swap, and of what moves the chain down."""

    swap: str
    chain: str


def controls(config: ArrayConfig) -> Controls:
    """Return the names of an array's control bits."""
    flow, types = config.dataflow_record, config.port_dtypes
    tile, lines = np.zeros((1, 1)), np.zeros((1, 1))
    streams = [n for n, _, _ in flow.stream_beats(0, 1, lines, True, 1) if types[n].kind == "b"]
    shifts = [n for n, _, _ in flow.shift_beats(0, tile, 1) if types[n].kind == "b"]
    return Controls(streams[0], (shifts or streams[::-1])[0])


@dataclass(frozen=True, eq=False)
class Product:
    """A product on an array in local time.

    Parameters
    ----------
    config : ArrayConfig
    x, w : ndarray
        Of the array's types.
    stays : tuple of Stay
    rows_held : int
        Rows of sums in half of the accumulators.
    """

    config: ArrayConfig
    x: np.ndarray
    w: np.ndarray
    stays: tuple[Stay, ...]
    rows_held: int

    @classmethod
    def of(cls, config: ArrayConfig, x: Any, w: Any) -> Product:
        """Check the operands of a product on an array, and cut it into folds."""
        x, w = _check.matrices(x, w, tuple(OPERANDS))
        for name, operand, dtype in (("x", x, config.activation_dtype), ("w", w, config.weight_dtype)):
            if operand_name(operand) != dtype:
                kind = "activation" if name == "x" else "weight"
                raise TypeError(
                    f"{name} must hold {dtype}, the array's {kind}_dtype, not {operand_name(operand)}"
                )
        if 0 in (*x.shape, *w.shape):
            raise ValueError(
                f"x {_check.shape(x.shape)} and w {_check.shape(w.shape)} make an empty product, which has "
                "no values to compare"
            )
        x, w = stored(x), stored(w)
        plan = schedule(Gemm(x.shape[0], x.shape[1], w.shape[1]), config)
        flow = config.dataflow_record
        stays = []
        for number, fold in enumerate(plan.folds):
            part = x[fold.m_start : fold.m_stop, fold.k_start : fold.k_stop]
            tile, lines = flow.operands(part, w[fold.k_start : fold.k_stop, fold.n_start : fold.n_stop])
            streams = fold.shift_cycle if flow.held else fold.swap_cycle
            first = flow.held or fold.k_start == 0
            stays.append(
                Stay(fold, tile, lines, fold.shift_cycle, streams, fold.swap_cycle, plan.half(number), first)
            )
        held = config.rows if flow.held else max(len(stay.lines) for stay in stays)
        return cls(config, x, w, tuple(stays), held)

    def timed(self, streams: list[int]) -> Product:
        """Return the product with its folds' first lines on these beats, each tile as early as it can be."""
        if self.config.dataflow_record.held:
            return self
        stays, free = [], 0
        for stay, beat in zip(self.stays, streams, strict=True):
            begins = min(free, beat - self.config.rows)
            stays.append(stay._replace(begins=begins, streams=beat, leaves=beat))
            free = beat if self.config.double_buffered else beat + len(stay.lines)
        earliest = min(stay.begins for stay in stays)
        moved = [
            stay._replace(begins=stay.begins - earliest, streams=at, leaves=at)
            for stay, at in ((stay, stay.streams - earliest) for stay in stays)
        ]
        return Product(self.config, self.x, self.w, tuple(moved), self.rows_held)

    @cached_property
    def length(self) -> int:
        """Beats until all sums have left, and some more, on which nothing is due."""
        return self.last + self.config.rows + self.config.cols + 3

    @property
    def last(self) -> int:
        """The last beat on which sums are made or leave."""
        if self.config.dataflow_record.held:
            return max(stay.leaves for stay in self.stays) + self.config.rows - 1
        return max(stay.streams + len(stay.lines) for stay in self.stays) - 1

    @cached_property
    def places(self) -> dict[str, Place]:
        """What can be compared, by name."""
        return places(self.config)

    def local_ports(self, stays: tuple[Stay, ...] | None = None) -> dict[str, np.ndarray]:
        """Return the values of every port in local time, (beats, rows) or (beats, cols)."""
        config, flow = self.config, self.config.dataflow_record
        sizes = {"west": config.rows, "north": config.cols}
        types = config.port_dtypes
        ports = {p.name: np.zeros((self.length, sizes[p.side]), types[p.name]) for p in flow.ports}
        for stay in self.stays if stays is None else stays:
            beats = [*flow.shift_beats(stay.begins, stay.tile, config.rows)]
            beats += flow.stream_beats(stay.streams, stay.leaves, stay.lines, True, config.rows)
            for name, start, values in beats:
                if isinstance(values, int):
                    ports[name][start : start + values] = True
                else:
                    ports[name][start : start + len(values), : values.shape[1]] = values
        return ports

    def compared(self, name: str) -> bool:
        """Whether the product determines values of a place; not of registers that pass others on."""
        return self._role(self.places[name]) != "none"

    def points(self, name: str) -> Points:
        """Return which values of a place the product determines, if it is one that is :meth:`compared`."""
        place = self.places[name]
        found = [(i, *row) for i, stay in enumerate(self.stays) for row in self._due(stay, place)]
        stays, beats, steps, deep, wide = (np.array(column) for column in zip(*found, strict=True))
        r, c = np.array(place.rows)[:, None], np.array(place.cols)
        if place.kind == "accumulator" or (place.kind == "port" and place.name.startswith("north")):
            mask = np.broadcast_to(c < wide[:, None, None], (len(beats), 1, len(place.cols)))
        elif self._role(place) == "out":
            # A sum is one row lower on each beat.
            row = r - steps[:, None, None]
            mask = (row >= 0) & (row < deep[:, None, None]) & (c < wide[:, None, None])
        else:
            mask = (r < deep[:, None, None]) & (c < wide[:, None, None])
        return Points(beats, stays, steps, mask)

    def _role(self, place: Place) -> str:
        """Return which kind of value a place holds; see :meth:`_due`."""
        flow, config = self.config.dataflow_record, self.config
        if place.kind == "accumulator":
            return "accumulator"
        name = place.name
        if place.kind == "port":
            name = name.split("_", 1)[1]
        names = controls(config)
        if name == names.swap:
            return "line"
        if name == names.chain:
            return "none" if flow.held else "chain"
        if place.kind == "port":
            port = next(port for port in flow.ports if port.name == name)
            if port.side == "west":
                return "operand" if config.port_dtypes[name].kind != "b" else "none"
            if port.feeds == flow.leaves:
                return "none" if flow.held else "line"
            return "operand" if flow.held else "tile"
        role = next(register.role for register in flow.registers if register.name == name)
        return {
            "sum": "operand" if flow.held else "line", "west operand": "operand", "north operand": "operand",
            "shadow": "out" if flow.held else "complete", "pass": "none", "control": "none",
        }[role]  # fmt: skip

    def _due(self, stay: Stay, place: Place) -> Iterator[tuple[int, int, int, int]]:
        """Yield (beat, step, rows, columns) of a fold's values in a place."""
        rows, held = self.config.rows, self.config.dataflow_record.held
        role = self._role(place)
        deep, wide = stay.lines.shape[1], stay.tile.shape[1]
        if role in ("line", "operand"):
            for i in range(len(stay.lines)):
                yield stay.streams + i, i, rows if role == "line" else deep, wide
        elif role == "chain":
            for i in range(rows):
                yield stay.begins + i, i, rows, wide
        elif role == "tile":
            for i in range(len(stay.tile)):
                yield stay.begins + rows - 1 - i, i, rows, wide
        elif role == "complete":
            yield stay.begins + rows - 1, 0, len(stay.tile), wide
        elif role == "out":
            for i in range(rows):
                yield stay.leaves + i, i, deep, wide
        elif role == "accumulator":
            for i, line in enumerate(self.lines_below(stay)):
                if line is not None:
                    yield stay.leaves + i if held else stay.streams + i, i, rows, wide

    def lines_below(self, stay: Stay) -> list[int | None]:
        """Return which row of sums each line below the array is; None: no row of the product."""
        if not self.config.dataflow_record.held:
            return list(range(len(stay.lines)))
        rows, m = self.config.rows, stay.lines.shape[1]
        return [row if row < m else None for row in range(rows - 1, -1, -1)]

    def index(self, name: str, stay: int, step: int, row: int, col: int) -> Index:
        """Return which element of the product a value belongs to."""
        flow, fold = self.config.dataflow_record, self.stays[stay].fold
        role, deep = self._role(self.places[name]), self.stays[stay].lines.shape[1]
        if flow.held:
            if role in ("out", "accumulator"):
                row = self.config.rows - 1 - step if role == "accumulator" else row - step
                return Index(fold.m_start + row, fold.n_start + col, None)
            k = fold.k_start + step
            side = name.split("_", 1)[0] if self.places[name].kind == "port" else ""
            m, n = fold.m_start + row, fold.n_start + col
            return Index(None if side == "north" else m, None if side == "west" else n, k)
        line: int | None = None
        depth: int | None = None
        if role == "tile":
            depth = fold.k_start + step
        elif role == "complete":
            depth = fold.k_start + row
        elif role != "chain":
            line, depth = step, fold.k_start + row if row < deep else None
        if flow.exchanged:
            return Index(fold.m_start + col, None if line is None else fold.n_start + line, depth)
        return Index(None if line is None else fold.m_start + line, fold.n_start + col, depth)


def skewed(local: dict[str, np.ndarray], config: ArrayConfig, hop: tuple[int, int]) -> dict[str, np.ndarray]:
    """Return port values, cycle by cycle, of an array whose hops take so many cycles."""
    found = {}
    for port in config.dataflow_record.ports:
        values = local[port.name]
        found[port.name] = np.zeros_like(values)
        for i in range(values.shape[1]):
            late = i * hop[port.side == "north"]
            found[port.name][late:, i] = values[: len(values) - late, i]
    return found


def expected(product: Product, names: list[str], state: State | None) -> dict[str, np.ndarray]:
    """Return the emulator's values of places in local time, (beats, rows, cols) of int64 or float64."""
    config = product.config
    local = product.local_ports()
    idle = config.rows + config.cols
    padded = {name: np.concatenate([v, np.zeros((idle, v.shape[1]), v.dtype)]) for name, v in local.items()}
    below = config.dataflow_record.leaves
    wanted = {name for name in names if product.places[name].kind == "register"} | {below}
    trace = Trace(registers=sorted(wanted), max_bytes=_MOST_BYTES)
    array = SystolicArray(config, trace=trace)
    if state is not None:
        array.restore(state)
    driven: dict[str, Any] = skewed(padded, config, (1, 1))
    array.clock(**driven)
    found = {}
    tau = np.arange(product.length)[:, None, None]
    r, c = np.arange(config.rows)[:, None], np.arange(config.cols)
    for name in sorted(wanted):
        found[name] = as_numbers(trace[name][tau + r + c, r, c])
    for name in names:
        if product.places[name].kind == "port":
            side, port = name.split("_", 1)
            values = as_numbers(local[port])
            found[name] = values[:, :, None] if side == "west" else values[:, None, :]
    writes, sums = accumulated(product, found[below][:, -1])
    found |= {"accumulator": writes, "outputs": sums}
    return found


def accumulated(
    product: Product, bottom: np.ndarray, *, cleared: bool = True, adds: bool = True, late: int = 0,
    numbers: Format | None = None,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return what the accumulators write of the sums below the array, and the product that they end with.

    Parameters
    ----------
    product : Product
    bottom : ndarray, (beats, cols)
        Of the last row of PEs, in local time.
    cleared, adds : bool
        Whether the first k tile of an output replaces what is there, and whether the others add to it.
    late : int
        Beats after which a sum is taken.
    numbers : Format, optional
        Of the sums; None: the array's.

    Returns
    -------
    writes : ndarray, (beats, 1, cols)
    sums : ndarray, (M, N)
    """
    config = product.config
    numbers = config.format if numbers is None else numbers
    flow, held = config.dataflow_record, np.dtype(numbers.sum)
    memory = np.zeros((2, product.rows_held, config.cols), held)
    writes: np.ndarray = np.zeros((len(bottom), 1, config.cols), bottom.dtype)
    sums: np.ndarray = np.zeros((len(product.x), product.w.shape[1]), bottom.dtype)
    for stay in product.stays:
        start = stay.leaves if flow.held else stay.streams
        wide = stay.tile.shape[1]
        there = memory[stay.half]
        lines = [(i, row) for i, row in enumerate(product.lines_below(stay)) if row is not None]
        beats, rows = start + np.array([i for i, _ in lines]), np.array([row for _, row in lines])
        taken = beats + late
        inside = ((taken >= 0) & (taken < len(bottom)))[:, None]
        more = np.where(inside, bottom[np.clip(taken, 0, len(bottom) - 1)], 0).astype(held)
        if adds and not (stay.first and cleared):
            kept = there[rows]
            numbers.accumulate(kept, more)
            more = kept
        there[rows] = more
        writes[beats, 0, :wide] = as_numbers(more)[:, :wide]
        fold = stay.fold
        m = slice(fold.m_start, fold.m_stop)
        count = fold.n if flow.exchanged else fold.m
        sums[m, fold.n_start : fold.n_stop] = flow.oriented(as_numbers(there[:count, :wide]))
    return writes, sums
