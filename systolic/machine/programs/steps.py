"""A program as steps on memories: every instruction that moves or computes data, checked and resolved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from systolic import _check
from systolic.config import MachineConfig
from systolic.isa import (
    Activate,
    Convolve,
    Function,
    HostCall,
    HostTensor,
    Instruction,
    MatrixMultiply,
    Program,
    ReadHost,
    ReadWeights,
    SetConfiguration,
    Vector,
    WriteHost,
    pattern_rows,
    row_ranges,
)
from systolic.isa.text import line_of
from systolic.machine.programs.functions import Bytes, OnSums, on_rows
from systolic.machine.programs.memories import Memories, Place
from systolic.machine.timeline import row_bytes

HostFunction = Callable[[list[np.ndarray]], Sequence[np.ndarray]]
"""Called with the rows of each range that a ``HostCall`` reads, uint8 (rows, row_bytes); returns those that
it writes."""


@dataclass(frozen=True, eq=False)
class Multiply:
    """A ``MatrixMultiply`` or a ``Convolve``.

    Attributes
    ----------
    number : int
        Of the instruction.
    rows : Place
        In the unified buffer.
    acc, count : int
        Rows of the accumulators.
    accumulate : bool
    new_weights : bool
    order : int
        Which of the tiles that ReadWeights have asked for it uses, counted from 0 over the program.
    activation, weight : dtype
    """

    number: int
    rows: Place
    acc: int
    count: int
    accumulate: bool
    new_weights: bool
    order: int
    activation: np.dtype
    weight: np.dtype


@dataclass(frozen=True, eq=False)
class Fetch:
    """A ``ReadWeights``: tiles `tile` to ``tile + count - 1`` join the FIFO."""

    number: int
    tile: int
    count: int


@dataclass(frozen=True, eq=False)
class Work:
    """Any other instruction: what is read becomes results, which are written later or at once."""

    number: int

    def read(self, memories: Memories) -> Any:
        """Return the results, from what the memories hold now."""
        raise NotImplementedError

    def write(self, memories: Memories, results: Any) -> None:
        """Put results into their rows."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Copy(Work):
    """A ``ReadHost`` or a ``WriteHost``."""

    source: str
    first: int
    target: str
    to: int
    rows: int

    def read(self, memories: Memories) -> np.ndarray:
        return memories.of(self.source)[self.first : self.first + self.rows].copy()

    def write(self, memories: Memories, results: np.ndarray) -> None:
        memories.of(self.target)[self.to : self.to + self.rows] = results


@dataclass(frozen=True, eq=False)
class Activation(Work):
    """An ``Activate``."""

    acc: int
    rows: int
    function: OnSums
    target: Place

    def read(self, memories: Memories) -> np.ndarray:
        return self.function(memories.acc[self.acc : self.acc + self.rows])

    def write(self, memories: Memories, results: np.ndarray) -> None:
        self.target.scatter(memories.ub, results)


@dataclass(frozen=True, eq=False)
class VectorWork(Work):
    """A ``Vector``."""

    inputs: tuple[int, ...]
    rows: int
    function: Bytes
    target: Place

    def read(self, memories: Memories) -> np.ndarray:
        found = self.function([memories.ub[first : first + self.rows] for first in self.inputs])
        return found.copy() if np.may_share_memory(found, memories.ub) else found

    def write(self, memories: Memories, results: np.ndarray) -> None:
        self.target.scatter(memories.ub, results)


@dataclass(frozen=True, eq=False)
class Call(Work):
    """A ``HostCall``."""

    item: HostCall
    text: str
    call: HostFunction

    def read(self, memories: Memories) -> list[np.ndarray]:
        given = [memories.host[first : first + rows].copy() for first, rows in self.item.reads]
        results = self.call(given)
        wanted = [(rows, memories.host.shape[1]) for _, rows in self.item.writes]
        if not _check.is_listed(results) or not all(isinstance(each, np.ndarray) for each in results):
            raise TypeError(
                f"{self.text}: the host function must return a list of arrays, not {_check.kind(results)}"
            )
        if [each.shape for each in results] != wanted or any(each.dtype != np.uint8 for each in results):
            came = ", ".join(f"{each.dtype} {_check.shape(each.shape)}" for each in results) or "none"
            raise ValueError(
                f"{self.text}: the host function must return arrays of uint8 "
                f"{', '.join(map(_check.shape, wanted)) or '(none)'}, not {came}"
            )
        return [each.copy() for each in results]

    def write(self, memories: Memories, results: list[np.ndarray]) -> None:
        for (first, rows), values in zip(self.item.writes, results, strict=True):
            memories.host[first : first + rows] = values


class Steps:
    """A program's steps on a machine.

    Parameters
    ----------
    program : Program
        Whose addresses and tiles :func:`~systolic.machine.time_program` has checked.
    machine : MachineConfig
    calls : mapping of int to callable
        What host functions do, by their number in the table.

    Attributes
    ----------
    steps : list of Multiply, Fetch and Work
        In program order.
    rows : dict of str to int
        How many rows of each memory are touched: up to the highest.

    Raises
    ------
    ValueError
        If an instruction cannot be computed: the message names it.
    """

    def __init__(self, program: Program, machine: MachineConfig, calls: Mapping[int, HostFunction]) -> None:
        assert machine.memory is not None
        self.program, self.machine, self._calls = program, machine, calls
        self.row_bytes = row_bytes(machine, machine.memory)
        self.rows = {"ub": 0, "acc": 0, "host": 0}
        self.steps: list[Multiply | Fetch | Work] = []
        array = machine.array
        self._types = np.dtype(array.activation_dtype), np.dtype(array.weight_dtype)
        self._taken = 0
        self._on_sums: dict[int, OnSums] = {}
        self._check_weights()
        for number, item in enumerate(program):
            try:
                step = self._step(number, item)
            except (TypeError, ValueError) as error:
                raise type(error)(f"{_named(number, item)}: {error}") from None
            if step is not None:
                self.steps.append(step)
            written = None
            if isinstance(item, Activate | Vector):
                written = program.function_of(item).rows_written(item.rows)
            for memory, _, first, rows, _ in row_ranges(item, written):
                self.rows[memory] = max(self.rows[memory], first + rows)
        for what, tensors in (("input", program.inputs), ("output", program.outputs)):
            for name, tensor in tensors.items():
                self._check_tensor(f"{what} {name!r}", tensor, machine.memory.host_rows)
                self.rows["host"] = max(self.rows["host"], tensor.first + tensor.rows(self.row_bytes))

    def _check_weights(self) -> None:
        weights, array = self.program.weights, self.machine.array
        if weights is not None and weights.shape[1:] != (array.rows, array.cols):
            raise ValueError(
                f"the weight tiles of the program are {_check.shape(weights.shape[1:])}, but the machine's "
                f"array is {array.rows} x {array.cols}; compile the program for this machine"
            )

    def _check_tensor(self, name: str, tensor: HostTensor, limit: int) -> None:
        if tensor.width is not None and tensor.width > self.row_bytes:
            raise ValueError(
                f"{name} lies in blocks of {tensor.width} channels, but the machine's rows have "
                f"{self.row_bytes} bytes; compile the program for this machine"
            )
        stop = tensor.first + tensor.rows(self.row_bytes)
        if stop > limit:
            raise ValueError(
                f"{name} takes the rows {tensor.first} to {stop - 1}, beyond host memory, which has "
                f"{limit:,} rows"
            )

    def _step(self, number: int, item: Instruction) -> Multiply | Fetch | Work | None:
        match item:
            case ReadHost():
                return Copy(number, "host", item.host, "ub", item.ub, item.rows)
            case WriteHost():
                return Copy(number, "ub", item.ub, "host", item.host, item.rows)
            case ReadWeights():
                self._check_tiles(item)
                return Fetch(number, item.tile, item.count)
            case MatrixMultiply() | Convolve():
                return self._multiply(number, item)
            case Activate():
                if item.function not in self._on_sums:
                    self._on_sums[item.function] = OnSums(
                        self.program.function_of(item), self.machine.array.cols, self.row_bytes
                    )
                on_sums = self._on_sums[item.function]
                target = self._target(item, on_sums.rows_written(item.rows))
                return Activation(number, item.acc, item.rows, on_sums, target)
            case Vector():
                function, written = on_rows(
                    self.program.function_of(item), len(item.inputs), item.rows, self.row_bytes
                )
                return VectorWork(number, item.inputs, item.rows, function, self._target(item, written))
            case HostCall():
                return Call(number, item, _named(number, item), self._call(item))
            case SetConfiguration():
                for name, given in (("activations", item.activation), ("weights", item.weight)):
                    if given.endswith("16"):
                        raise ValueError(
                            f"{name} of {given} are timed, but not computed; use int8 or uint8, or only "
                            "time the program: time_program"
                        )
                self._types = np.dtype(item.activation), np.dtype(item.weight)
        return None

    def _check_tiles(self, item: ReadWeights) -> None:
        weights = self.program.weights
        if weights is None:
            raise ValueError("the program has no weight image; pass weights=, (tiles, rows, cols)")
        if item.tile + item.count > len(weights):
            raise ValueError(
                f"tile {item.tile} to {item.tile + item.count - 1} is beyond the weight image, which has "
                f"{len(weights):,} tiles"
            )

    def _multiply(self, number: int, item: MatrixMultiply | Convolve) -> Multiply:
        if self.machine.array.rows > self.row_bytes:
            raise ValueError(
                f"it reads {self.machine.array.rows} activations from each row of the unified buffer, which "
                f"has {self.row_bytes} bytes; give the machine row_bytes={self.machine.array.rows} or more"
            )
        self._taken += item.new_weights
        place = Place(item.ub, item.rows, item.pattern if isinstance(item, Convolve) else None)
        order = self._taken - 1
        return Multiply(
            number, place, item.acc, item.rows, item.accumulate, item.new_weights, order, *self._types
        )

    def _target(self, item: Activate | Vector, written: int) -> Place:
        """Return the rows that an instruction writes, which is to write so many."""
        function = self.program.function_of(item)
        if function.outputs is not None and function.outputs != written:
            raise ValueError(
                f"the function {function.name!r} gives {written} rows, but has outputs={function.outputs}"
            )
        placed = function.rows_written(item.rows) if item.pattern is None else pattern_rows(item.pattern)
        if placed != written:
            what = "rows_written says" if item.pattern is None else "its pattern has"
            raise ValueError(f"the function {function.name!r} gives {written} rows, but {what} {placed}")
        return Place(item.ub, written, item.pattern)

    def _call(self, item: HostCall) -> HostFunction:
        function: Function = self.program.function_of(item)
        if function.kind != "host":
            raise ValueError(
                f"host_call computes functions of kind 'host', but {function.name!r} is of kind "
                f"{function.kind!r}"
            )
        if item.function not in self._calls:
            raise ValueError(
                f"nothing computes the host function {function.name!r}; pass calls={{{item.function}: ...}}"
            )
        return self._calls[item.function]


def _named(number: int, item: Instruction) -> str:
    return f"instruction {number}, {line_of(item)!r}"
