"""``Timeline``: when each instruction of a program runs on a machine with memories, and what it waits for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from systolic import _timeline
from systolic._show.table import Table, percent
from systolic.config import MachineConfig, MemoryConfig
from systolic.isa import (
    Convolve,
    Instruction,
    MatrixMultiply,
    Program,
    ReadHost,
    ReadWeights,
    SetConfiguration,
    Vector,
    WriteHost,
    row_ranges,
)
from systolic.isa.instructions import Activate
from systolic.isa.text import line_of

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

_MEMORIES = ("ub", "acc", "host")
_NAMES = {"ub": "the unified buffer", "acc": "the accumulators", "host": "host memory"}


@dataclass(frozen=True, eq=False, repr=False)
class Timeline:
    """Times of a program's instructions, in cycles of the array's clock.

    Attributes
    ----------
    program : Program
    machine : MachineConfig
    cycles : int
        The last completion.
    dispatch, start, end, complete : ndarray of int64, (instructions,)
        `end` is when an instruction leaves its unit: a transfer, stream or vector operation is over.
    multiplies : ndarray of int64, (number of multiplies,)
        The numbers of the instructions that multiply; the next attributes have one element for each.
    shift_start, swap : ndarray of int64
        -1 for a multiply without new weights, which has no shift.
    fetch_start, fetch_arrival : ndarray of int64, (tiles,)
        Of each tile in the order of the program; -1 if it is never fetched, since no multiply makes room.
    causes : dict of str to int
        Cycles by what the array did or waited for: the keys are `CAUSES`, the sum is `cycles`.

    Notes
    -----
    Five units work in parallel, each in program order: host in, host out, weight fetch, matrix, vector. A
    read waits until earlier writers of its rows have completed; a write waits for those and until earlier
    readers have read. Multiplies order their accumulators by themselves. The memories, units and latencies
    are those of :class:`~systolic.MemoryConfig`.
    """

    program: Program
    machine: MachineConfig
    cycles: int
    dispatch: np.ndarray
    start: np.ndarray
    end: np.ndarray
    complete: np.ndarray
    multiplies: np.ndarray
    shift_start: np.ndarray
    swap: np.ndarray
    fetch_start: np.ndarray
    fetch_arrival: np.ndarray
    causes: dict[str, int]

    def table(self) -> Table:
        """Return a row per instruction: its text and times."""
        rows = [
            (number, line_of(instruction), *(int(times[number]) for times in self._times))
            for number, instruction in enumerate(self.program)
        ]
        columns = ("instruction", "text", "dispatch", "start", "end", "complete")
        return Table(columns, rows, title=repr(self)[1:-1])

    @property
    def _times(self) -> tuple[np.ndarray, ...]:
        return self.dispatch, self.start, self.end, self.complete

    def to_frame(self) -> Any:
        """Return :meth:`table` as a pandas frame; needs ``pip install "systolic[pandas]"``."""
        return self.table().to_frame()

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def __repr__(self) -> str:
        active = percent(self.causes["active"] / self.cycles) if self.cycles else "0.0%"
        plural = "" if len(self.program) == 1 else "s"
        return (
            f"<Timeline: {len(self.program):,} instruction{plural}, {self.cycles:,} cycles, {active} active>"
        )


def time_program(program: Program, machine: MachineConfig) -> Timeline:
    """Return when each instruction runs, without computing any data.

    Parameters
    ----------
    program : Program
    machine : MachineConfig
        With a :class:`~systolic.MemoryConfig`.

    Raises
    ------
    ValueError
        If the machine has no memories, an address lies beyond one, or a multiply has no tile: the message
        names the instruction, the address and the limit.

    Examples
    --------
    >>> from systolic import ArrayConfig, MachineConfig, MemoryConfig
    >>> from systolic.isa import Program
    >>> from systolic.machine.timeline import time_program
    >>> memory = MemoryConfig(
    ...     weight_bytes=2**33, weight_bytes_per_second=48 * 700_000_000, unified_buffer_rows=98_304,
    ...     host_rows=2**20, host_bytes_per_second=22 * 700_000_000,
    ... )
    >>> machine = MachineConfig(ArrayConfig(256, 256), clock_mhz=700, memory=memory)
    >>> program = Program('''
    ...     read_weights w#0, 1
    ...     read_host u#0, 16
    ...     matmul a#0, u#0, 16
    ...     activate u#16, a#0, 16
    ...     write_host u#16, 16
    ... ''')
    >>> time_program(program, machine)
    <Timeline: 5 instructions, 2,352 cycles, 0.68% active>
    """
    memory = _memory_of(machine)
    array = machine.array
    work = _Work(program, machine, memory)
    count, tiles = len(program), len(work.dispatchers)
    times = np.zeros((4, count), np.int64)
    numbers = np.zeros((7, work.multiplies), np.int64)
    fetches = np.full((3, tiles), -1, np.int64)
    low, high, most = work.segments()
    tile_bytes = array.rows * array.cols * array.format.weight_bytes
    cycles = _timeline.run(
        work.opcode, work.busy, work.new_weights, work.dispatchers, work.first_range,
        work.memory, work.is_write, low, high, np.zeros((3, 3, max(most, 1)), np.int64),
        array.rows, array.cols, array.double_buffered,
        transfer_cycles(tile_bytes, memory.weight_bytes_per_second, machine), memory.weight_latency_cycles,
        memory.fifo_tiles, memory.host_latency_cycles, memory.activation_latency_cycles, memory.issue_cycles,
        times, numbers, fetches,
    )  # fmt: skip
    multiplies = np.flatnonzero((work.opcode == MatrixMultiply.opcode) | (work.opcode == Convolve.opcode))
    causes = _causes(numbers, work.busy[multiplies], cycles)
    dispatch, start, end, complete = times
    return Timeline(
        program, machine, cycles, dispatch, start, end, complete, multiplies, numbers[4], numbers[5],
        fetches[0], fetches[1], causes,
    )  # fmt: skip


def _memory_of(machine: Any) -> MemoryConfig:
    if not isinstance(machine, MachineConfig):
        raise TypeError(f"machine must be a MachineConfig with memories, not {type(machine).__name__}")
    if machine.memory is None:
        raise ValueError(
            "a program needs a machine with memories: MachineConfig(..., memory=MemoryConfig(...))"
        )
    return machine.memory


def transfer_cycles(size: int, bytes_per_second: int | Fraction, machine: MachineConfig) -> int:
    """Return the cycles of a transfer of `size` bytes: the ceiling of the exact quotient."""
    return math.ceil(size * Fraction(machine.clock_mhz) * 1_000_000 / bytes_per_second)


def row_bytes(machine: MachineConfig, memory: MemoryConfig) -> int:
    """Return the bytes of a row of the unified buffer."""
    element = machine.array.format.activation_bytes
    return memory.row_bytes or max(machine.array.rows, machine.array.cols) * element


class _Work:
    """A program as arrays, its addresses and tiles checked."""

    def __init__(self, program: Program, machine: MachineConfig, memory: MemoryConfig) -> None:
        self.program, array = program, machine.array
        count = len(program)
        self.opcode = np.fromiter((item.opcode for item in program), np.uint8, count)
        self.busy = np.zeros(count, np.int64)
        self.new_weights = np.zeros(count, np.uint8)
        self.multiplies = 0
        transfers: dict[int, int] = {}
        size, lanes = row_bytes(machine, memory), memory.lanes or array.cols
        passes, factor = -(-array.cols // lanes), memory.width_factors[0]
        tile_bytes = array.rows * array.cols * array.format.weight_bytes
        limits = {
            "ub": memory.unified_buffer_rows,
            "host": memory.host_rows,
            "acc": array.accumulator_rows or 2**62,
            "weights": memory.weight_bytes // tile_bytes,
        }
        dispatchers: list[int] = []
        used = 0
        ranges: list[tuple[int, bool, int, int]] = []
        first_range = [0]
        for number, item in enumerate(program):
            match item:
                case ReadHost() | WriteHost():
                    if item.rows not in transfers:
                        transfers[item.rows] = transfer_cycles(
                            item.rows * size, memory.host_bytes_per_second, machine
                        )
                    self.busy[number] = transfers[item.rows]
                case MatrixMultiply() | Convolve():
                    self.multiplies += 1
                    self.busy[number] = item.rows * factor
                    self.new_weights[number] = item.new_weights
                    used += item.new_weights
                    self._check_tile(number, item, used, len(dispatchers))
                case Activate() | Vector():
                    self.busy[number] = item.rows * passes
                case ReadWeights():
                    self._check_address(
                        number, "tile", item.tile, item.count, "weight memory", limits["weights"]
                    )
                    dispatchers += [number] * item.count
                case SetConfiguration():
                    wide = item.activation.endswith("16") + item.weight.endswith("16")
                    factor = memory.width_factors[wide]
            written = None
            if isinstance(item, Activate | Vector):
                written = program.function_of(item).rows_written(item.rows)
            for of, is_write, first, rows, name in row_ranges(item, written):
                self._check_address(number, name, first, rows, _NAMES[of], limits[of])
                ranges.append((_MEMORIES.index(of), is_write, first, first + rows))
            first_range.append(len(ranges))
        self.dispatchers = np.array(dispatchers, np.int64)
        self.first_range = np.array(first_range, np.int64)
        table = np.array(ranges, np.int64).reshape(-1, 4)
        self.memory, self.is_write = table[:, 0].astype(np.uint8), table[:, 1].astype(np.uint8)
        self._low, self._high = table[:, 2], table[:, 3]

    def _error(self, number: int, what: str) -> ValueError:
        return ValueError(f"instruction {number}, {line_of(self.program[number])!r}: {what}")

    def _check_address(self, number: int, name: str, first: int, rows: int, memory: str, limit: int) -> None:
        if first < 0 or first + rows > limit:
            unit = "tiles" if name == "tile" else "rows"
            raise self._error(
                number, f"{name} {first} to {first + rows - 1} is beyond {memory}, which has {limit:,} {unit}"
            )

    def _check_tile(self, number: int, item: Instruction, used: int, asked: int) -> None:
        if used > asked:
            raise self._error(
                number,
                f"it needs weight tile {used}, but the ReadWeights before it load {asked}; put one before it",
            )
        if not used:
            raise self._error(number, "no multiply before it has loaded weights; leave out same_weights")

    def segments(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Return the first segment of each range and the one behind its last, and the most of a memory."""
        low, high = np.zeros_like(self._low), np.zeros_like(self._high)
        most = 0
        for memory in range(len(_MEMORIES)):
            here = self.memory == memory
            edges = np.unique(np.concatenate((self._low[here], self._high[here])))
            low[here], high[here] = (
                np.searchsorted(edges, self._low[here]),
                np.searchsorted(edges, self._high[here]),
            )
            most = max(most, len(edges))
        return low, high, most


def _causes(numbers: np.ndarray, streams: np.ndarray, cycles: int) -> dict[str, int]:
    """Return the cycles by cause: between two streams, one cause after the other."""
    before, operands, accumulators, other, shift_start, swap, by_vector = numbers
    found = {"active": int(streams.sum())}
    cursor = before
    spent: dict[str, np.ndarray] = {}
    ends = {
        "operands": operands,
        "accumulator_stall": accumulators,
        "other_stall": other,
        "weight_stall": shift_start,
    }
    for cause, end in {**ends, "weight_shift": swap}.items():
        spent[cause] = np.maximum(end - cursor, 0)
        cursor = np.maximum(cursor, end)
    found["raw_stall"] = int(spent["operands"][by_vector != 0].sum())
    found["input_stall"] = int(spent["operands"].sum()) - found["raw_stall"]
    last = int(swap[-1] + streams[-1]) if len(swap) else 0
    for cause in ("accumulator_stall", "weight_stall", "weight_shift"):
        found[cause] = int(spent[cause].sum())
    found["other_stall"] = int(spent["other_stall"].sum()) + cycles - last
    return {cause: found[cause] for cause in CAUSES}
