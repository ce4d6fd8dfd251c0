"""A program as arrays for the compiled timing: what each instruction does, where, and for how long."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from operator import attrgetter
from typing import Any

import numpy as np

from systolic import _check
from systolic.config import MachineConfig, MemoryConfig
from systolic.isa import (
    Activate,
    Convolve,
    HostCall,
    Instruction,
    MatrixMultiply,
    Pattern,
    Program,
    ReadHost,
    ReadWeights,
    SetConfiguration,
    Vector,
    WriteHost,
    pattern_range,
    pattern_rows,
    row_ranges,
)
from systolic.isa.text import line_of

_UB, _ACC, _HOST = range(3)
_NAMES = {"ub": "the unified buffer", "acc": "the accumulators", "host": "host memory"}
_MEMORIES = tuple(_NAMES)
_MOST = 2**62
"""Of cycles and addresses, which are int64."""


def transfer_cycles(size: int, bytes_per_second: int | Fraction, machine: MachineConfig) -> int:
    """Return the cycles of a transfer of `size` bytes: the ceiling of the exact quotient."""
    return math.ceil(size * Fraction(machine.clock_mhz) * 1_000_000 / bytes_per_second)


def row_bytes(machine: MachineConfig, memory: MemoryConfig) -> int:
    """Return the bytes of a row of the unified buffer."""
    element = machine.array.format.activation_bytes
    return memory.row_bytes or max(machine.array.rows, machine.array.cols) * element


_Listed = dict[type[Instruction], tuple[np.ndarray, list[Any]]]


class Arrays:
    """What a program says without a machine.

    Attributes
    ----------
    opcode : ndarray of uint8, (instructions,)
    rows : ndarray of int64, (instructions,)
        Rows that a transfer moves, a multiply streams, or an ``Activate`` or ``Vector`` reads; else 0.
    new_weights, accumulate : ndarray of uint8, (instructions,)
        Of multiplies.
    written : ndarray of int64, (instructions,)
        Rows that an ``Activate`` or ``Vector`` writes; else 0.
    wide : ndarray of int64, (instructions,)
        Operands of 16 bits, 0 to 2, that are configured there.
    tiles : ndarray of int64, (ReadWeights, 3)
        Instruction, first tile and count.
    first_range : ndarray of int64, (instructions + 1,)
        Where the ranges of each instruction begin.
    memory, is_write : ndarray of uint8, (ranges,)
        0 unified buffer, 1 accumulators, 2 host.
    first, stop : ndarray of int64, (ranges,)
        Rows.
    low, high : ndarray of int64, (ranges,)
        Segments of each range: memories are cut wherever a range begins or ends.
    segments : int
        The most segments of a memory.
    """

    def __init__(self, program: Program) -> None:
        items = program.instructions
        count = len(items)
        self.opcode = np.fromiter(map(attrgetter("opcode"), items), np.uint8, count)
        self.rows = np.zeros(count, np.int64)
        self.written = np.zeros(count, np.int64)
        self.new_weights, self.accumulate = np.zeros((2, count), np.uint8)
        of: _Listed = {kind: self._numbered(items, kind.opcode) for kind in _LAYOUT}
        sizes = np.zeros(count + 1, np.int64)
        for kind in (ReadHost, WriteHost, MatrixMultiply, Convolve, Activate):
            sizes[of[kind][0] + 1] = 2
        for number, item in zip(*of[Vector], strict=True):
            sizes[number + 1] = len(item.inputs) + 1
        for number, item in zip(*of[HostCall], strict=True):
            sizes[number + 1] = len(item.reads) + len(item.writes)
        self.first_range = np.cumsum(sizes)
        self._ranges = np.zeros((int(self.first_range[-1]), 4), np.int64)
        self._spans: dict[Pattern, tuple[int, int, int]] = {}
        self._fill(program, of)
        self.memory, self.is_write = (self._ranges[:, place].astype(np.uint8) for place in (0, 1))
        self.first, self.stop = self._ranges[:, 2].copy(), self._ranges[:, 3].copy()
        del self._ranges, self._spans
        self.low, self.high, self.segments = self._cut()
        self.wide = self._configured(*of[SetConfiguration])
        self.tiles = np.column_stack((of[ReadWeights][0], _columns(of[ReadWeights][1], "tile", "count")))

    def _numbered(self, items: Sequence[Instruction], opcode: int) -> tuple[np.ndarray, list[Any]]:
        """Return the numbers of the instructions with an opcode, and these instructions."""
        numbers = np.flatnonzero(self.opcode == opcode)
        return numbers, [items[number] for number in numbers.tolist()]

    def _fill(self, program: Program, of: _Listed) -> None:
        for kind in (ReadHost, WriteHost):
            numbers, items = of[kind]
            host, ub, rows = _columns(items, "host", "ub", "rows").T
            self.rows[numbers] = rows
            self._put(numbers, 0, *((_HOST, 0, host) if kind is ReadHost else (_UB, 0, ub)), rows)
            self._put(numbers, 1, *((_UB, 1, ub) if kind is ReadHost else (_HOST, 1, host)), rows)

        numbers, items = of[MatrixMultiply]
        ub, acc, rows, new, adds = _columns(items, "ub", "acc", "rows", *MatrixMultiply.flags).T
        self.rows[numbers], self.new_weights[numbers], self.accumulate[numbers] = rows, new, adds
        self._put(numbers, 0, _UB, 0, ub, rows)
        self._put(numbers, 1, _ACC, 1, acc, rows)

        numbers, items = of[Convolve]
        ub, acc, new, adds = _columns(items, "ub", "acc", *Convolve.flags).T
        self.new_weights[numbers], self.accumulate[numbers] = new, adds
        low, span, rows = self._patterns(items, np.zeros((len(items), 3), np.int64)).T
        self.rows[numbers] = rows
        self._put(numbers, 0, _UB, 0, ub + low, span)
        self._put(numbers, 1, _ACC, 1, acc, rows)

        for of_vector_unit in (Activate, Vector):
            numbers, items = of[of_vector_unit]
            ub, rows, function = _columns(items, "ub", "rows", "function").T
            self.rows[numbers] = rows
            written = self.written[numbers] = _rows_written(program, rows, function)
            low, span, _ = self._patterns(items, np.column_stack((0 * ub, written, written))).T
            last = self.first_range[numbers + 1] - self.first_range[numbers] - 1
            self._put(numbers, last, _UB, 1, ub + low, span)
            if of_vector_unit is Activate:
                self._put(numbers, 0, _ACC, 0, _columns(items, "acc")[:, 0], rows)
                continue
            for number, item in zip(numbers.tolist(), items, strict=True):
                at = self.first_range[number]
                for place, first in enumerate(item.inputs):
                    self._ranges[at + place] = _UB, 0, first, first + item.rows

        for number, item in zip(*of[HostCall], strict=True):
            at = self.first_range[number]
            for is_write, ranges in ((0, item.reads), (1, item.writes)):
                for first, count in ranges:
                    self._ranges[at] = _HOST, is_write, first, first + count
                    at += 1

    def _put(
        self, numbers: np.ndarray, place: Any, memory: int, is_write: int, first: np.ndarray, rows: np.ndarray
    ) -> None:
        """Put one range of each of some instructions into its place among theirs."""
        at = self.first_range[numbers] + place
        self._ranges[at, 0], self._ranges[at, 1] = memory, is_write
        self._ranges[at, 2], self._ranges[at, 3] = first, first + rows

    def _patterns(self, items: Sequence[Any], found: np.ndarray) -> np.ndarray:
        """Return the lowest row, the span and the number of rows of patterns; `found` where there is none."""
        spans = self._spans
        for place, item in enumerate(items):
            pattern = item.pattern
            if pattern is not None:
                if pattern not in spans:
                    spans[pattern] = *pattern_range(0, pattern), pattern_rows(pattern)
                found[place] = spans[pattern]
        return found

    def _configured(self, numbers: np.ndarray, items: Sequence[Any]) -> np.ndarray:
        """Return how many operands have 16 bits at each instruction."""
        wide = [item.activation.endswith("16") + item.weight.endswith("16") for item in items]
        before = np.searchsorted(numbers, np.arange(len(self.opcode)), side="right")
        return np.array([0, *wide], np.int64)[before]

    def _cut(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Return the first segment of each range and the one behind its last, and the most of a memory."""
        low, high = np.zeros_like(self.first), np.zeros_like(self.stop)
        most = 0
        for memory in range(len(_MEMORIES)):
            here = self.memory == memory
            firsts, stops = self.first[here], self.stop[here]
            edges = np.unique(np.concatenate((firsts, stops)))
            low[here], high[here] = np.searchsorted(edges, firsts), np.searchsorted(edges, stops)
            most = max(most, len(edges))
        return low, high, most


_LAYOUT = (
    ReadHost, WriteHost, MatrixMultiply, Convolve, Activate, Vector, HostCall, ReadWeights, SetConfiguration,
)  # fmt: skip


def _columns(items: Sequence[Any], *names: str) -> np.ndarray:
    """Return fields of instructions, (instructions, fields)."""
    return np.array(list(map(attrgetter(*names), items)), np.int64).reshape(len(items), len(names))


def _rows_written(program: Program, rows: np.ndarray, function: np.ndarray) -> np.ndarray:
    """Return the rows that functions write without a pattern: Function.rows_written, for many at once."""
    table = [(f.pool, f.parts, f.outputs or 0) for f in program.functions]
    pool, parts, outputs = np.array(table, np.int64)[function].T
    return np.where(outputs > 0, outputs, -(-rows // pool) * parts)


def arrays_of(program: Program) -> Arrays:
    """Return a program as arrays, which it keeps."""
    kept = vars(program)
    if "_arrays" not in kept:
        kept["_arrays"] = Arrays(program)
    found: Arrays = kept["_arrays"]
    return found


class Work:
    """A program on a machine, its addresses and tiles checked.

    Attributes
    ----------
    arrays : Arrays
    busy : ndarray of int64, (instructions,)
        How long each instruction occupies its unit.
    dispatchers : ndarray of int64, (tiles,)
        The instruction that asks for each tile.
    multiplies : ndarray of int64, (multiplies,)
        Their numbers.
    tile_transfer : int
        Cycles that a weight tile takes from the weight memory.

    Raises
    ------
    ValueError
        As :func:`~systolic.machine.time_program`.
    """

    def __init__(self, program: Program, machine: MachineConfig, memory: MemoryConfig) -> None:
        array, weights = machine.array, program.weights
        if weights is not None and weights.shape[1:] != (array.rows, array.cols):
            raise ValueError(
                f"the weight tiles of the program are {_check.shape(weights.shape[1:])}, but the machine's "
                f"array is {array.rows} x {array.cols}; compile the program for this machine"
            )
        self.arrays = a = arrays_of(program)
        tile_bytes = array.rows * array.cols * array.format.weight_bytes
        limits = {
            "ub": memory.unified_buffer_rows,
            "acc": array.accumulator_rows or _MOST,
            "host": memory.host_rows,
            "weights": memory.weight_bytes // tile_bytes,
        }
        self._limits = {name: min(limit, _MOST) for name, limit in limits.items()}
        multiplies = (a.opcode == MatrixMultiply.opcode) | (a.opcode == Convolve.opcode)
        self.multiplies = np.flatnonzero(multiplies)
        self._check(program, multiplies)
        self.dispatchers = np.repeat(a.tiles[:, 0], a.tiles[:, 2])
        transfers = (a.opcode == ReadHost.opcode) | (a.opcode == WriteHost.opcode)
        vector = (a.opcode == Activate.opcode) | (a.opcode == Vector.opcode)
        self.busy = np.zeros(len(program), np.int64)
        sizes, where = np.unique(a.rows[transfers], return_inverse=True)
        size, rate = row_bytes(machine, memory), memory.host_bytes_per_second
        cycles = [transfer_cycles(rows * size, rate, machine) for rows in sizes.tolist()]
        self.tile_transfer = transfer_cycles(tile_bytes, memory.weight_bytes_per_second, machine)
        passes = -(-array.cols // (memory.lanes or array.cols))
        # No instruction takes longer than this behind all before it.
        longest = max((*cycles, int(a.rows.max(initial=0)) * max(*memory.width_factors, passes)))
        longest += memory.issue_cycles + memory.host_latency_cycles + memory.activation_latency_cycles
        fetches = len(self.dispatchers) * (self.tile_transfer + memory.weight_latency_cycles)
        if len(program) * (longest + 3 * (array.rows + array.cols)) + fetches > _MOST:
            raise ValueError(
                "the program could take more than 2**62 cycles on this machine, and no more are counted; "
                "give it higher bandwidths, lower latencies or a lower clock_mhz"
            )
        self.busy[transfers] = np.array(cycles, np.int64)[where]
        factors = np.array(memory.width_factors, np.int64)[a.wide]
        self.busy[multiplies] = (a.rows * factors)[multiplies]
        self.busy[vector] = a.rows[vector] * passes

    def _check(self, program: Program, multiplies: np.ndarray) -> None:
        """Raise ValueError for the first instruction that is wrong."""
        a = self.arrays
        most = np.array([self._limits[name] for name in _MEMORIES], np.int64)[a.memory]
        wrong = np.flatnonzero((a.first < 0) | (a.stop > most))
        numbers = np.searchsorted(a.first_range, wrong[:1], side="right") - 1
        _, first, count = a.tiles.T
        beyond = a.tiles[first + count > self._limits["weights"], 0][:1]
        asked = np.zeros(len(program), np.int64)
        asked[a.tiles[:, 0]] = count
        asked, used = np.cumsum(asked), np.cumsum(a.new_weights, dtype=np.int64)
        without = np.flatnonzero(multiplies & ((used > asked) | (used == 0)))[:1]
        bad = np.concatenate((numbers, beyond, without))
        if len(bad):
            number = int(bad.min())
            self._explain(program, number, int(used[number]), int(asked[number]))

    def _explain(self, program: Program, number: int, used: int, asked: int) -> None:
        """Raise the error of an instruction: its tile before its addresses."""
        item = program[number]
        if isinstance(item, MatrixMultiply | Convolve):
            if used > asked:
                what = f"it needs weight tile {used}, but the ReadWeights before it load {asked}"
                raise _error(number, item, f"{what}; put one before it")
            if not used:
                what = "no multiply before it has loaded weights; leave out same_weights"
                raise _error(number, item, what)
        if isinstance(item, ReadWeights):
            self._check_address(number, item, "tile", item.tile, item.count, "weights", "weight memory")
        written = None
        if isinstance(item, Activate | Vector):
            written = program.function_of(item).rows_written(item.rows)
        for of, _, first, rows, name in row_ranges(item, written):
            self._check_address(number, item, name, first, rows, of, _NAMES[of])

    def _check_address(
        self, number: int, item: Instruction, name: str, first: int, rows: int, of: str, memory: str
    ) -> None:
        limit = self._limits[of]
        if first < 0 or first + rows > limit:
            unit = "tiles" if name == "tile" else "rows"
            what = f"{name} {first} to {first + rows - 1} is beyond {memory}, which has {limit:,} {unit}"
            raise _error(number, item, what)


def _error(number: int, item: Instruction, what: str) -> ValueError:
    return ValueError(f"instruction {number}, {line_of(item)!r}: {what}")
