"""A program as steps on memories: every instruction that moves or computes data, checked and resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
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
from systolic.machine.programs.memories import HostFunction, Memories, Place
from systolic.machine.programs.of_rows import Bytes, on_rows
from systolic.machine.programs.of_sums import Codes, OnSums, pooled
from systolic.machine.timeline import row_bytes


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
class Task:
    """Any other instruction: what is read becomes results, which are written later or at once."""

    number: int

    def read(self, memories: Memories) -> Any:
        """Return the results, from what the memories hold now."""
        raise NotImplementedError

    def write(self, memories: Memories, results: Any) -> None:
        """Put results into their rows."""
        raise NotImplementedError

    def run(self, memories: Memories) -> None:
        """Read and write at once."""
        self.write(memories, self.read(memories))


@dataclass(frozen=True, eq=False)
class Copy(Task):
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

    def run(self, memories: Memories) -> None:
        source = memories.of(self.source)[self.first : self.first + self.rows]
        memories.of(self.target)[self.to : self.to + self.rows] = source


@dataclass(frozen=True, eq=False)
class Activation(Task):
    """An ``Activate``."""

    acc: int
    rows: int
    function: OnSums
    target: Place
    codes: Codes | None = None
    """Instead of the function, where only some columns of the sums can differ from zero."""

    def within(self, columns: int) -> Activation:
        """Return the same work on sums that are zero from a column on."""
        if self.function.itemsize > 1 or not columns or not self.target.distinct:
            return self
        return replace(self, codes=self.function.codes(columns))

    def run(self, memories: Memories) -> None:
        codes = self.codes
        if codes is None:
            return super().run(memories)
        columns = codes.columns
        sums = memories.acc[self.acc : self.acc + self.rows, :columns]
        rows = self.target.view(memories.ub)
        if self.function.pool == 1 and self.target.is_matrix:
            codes.compute(sums, rows[:, :columns])
        else:
            found = np.empty(sums.shape, np.uint8)
            codes.compute(sums, found)
            found = pooled(found.view(self.function.dtype), self.function.pool).view(np.uint8)
            rows[..., :columns] = found.reshape(*rows.shape[:-1], columns)
        rows[..., columns:] = codes.behind
        return None

    def read(self, memories: Memories) -> np.ndarray:
        return self.function(memories.acc[self.acc : self.acc + self.rows])

    def write(self, memories: Memories, results: np.ndarray) -> None:
        self.target.scatter(memories.ub, results)


@dataclass(frozen=True, eq=False)
class VectorTask(Task):
    """A ``Vector``."""

    inputs: tuple[int, ...]
    rows: int
    function: Bytes
    target: Place

    def run(self, memories: Memories) -> None:
        # Results that are a view of the rows read are written as if they were copied first.
        inputs = [memories.ub[first : first + self.rows] for first in self.inputs]
        self.target.scatter(memories.ub, self.function(inputs))

    def read(self, memories: Memories) -> np.ndarray:
        found = self.function([memories.ub[first : first + self.rows] for first in self.inputs])
        return found.copy() if np.may_share_memory(found, memories.ub) else found

    def write(self, memories: Memories, results: np.ndarray) -> None:
        self.target.scatter(memories.ub, results)


@dataclass(frozen=True, eq=False)
class Call(Task):
    """A ``HostCall``."""

    item: HostCall
    text: str
    name: str

    def read(self, memories: Memories) -> list[np.ndarray]:
        given = [memories.host[first : first + rows].copy() for first, rows in self.item.reads]
        results = memories.calls[self.item.function](given)
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


Step = Multiply | Fetch | Task


class Steps:
    """A program's steps on a machine.

    Parameters
    ----------
    program : Program
        Whose addresses and tiles :func:`~systolic.machine.time_program` has checked.
    machine : MachineConfig

    Attributes
    ----------
    steps : list of Multiply, Fetch and Task
        In program order.
    rows : dict of str to int
        How many rows of each memory are touched: up to the highest.

    Raises
    ------
    ValueError
        If an instruction cannot be computed: the message names it.
    """

    def __init__(self, program: Program, machine: MachineConfig) -> None:
        assert machine.memory is not None
        self.program, self.machine = program, machine
        self.row_bytes = row_bytes(machine, machine.memory)
        self.rows = {"ub": 0, "acc": 0, "host": 0}
        self.steps: list[Step] = []
        array = machine.array
        self._types = np.dtype(array.activation_dtype), np.dtype(array.weight_dtype)
        self._taken = 0
        self._on_sums: dict[int, OnSums] = {}
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

    def _step(self, number: int, item: Instruction) -> Step | None:
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
                return VectorTask(number, item.inputs, item.rows, function, self._target(item, written))
            case HostCall():
                return self._call(number, item)
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
                f"{len(weights):,} tile{'' if len(weights) == 1 else 's'}"
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

    def _call(self, number: int, item: HostCall) -> Call:
        function: Function = self.program.function_of(item)
        if function.kind != "host":
            raise ValueError(
                f"host_call computes functions of kind 'host', but {function.name!r} is of kind "
                f"{function.kind!r}"
            )
        return Call(number, item, _named(number, item), function.name)


def check_calls(steps: Steps, calls: Mapping[int, HostFunction]) -> None:
    """Raise ValueError, naming the instruction, if a host function is not among the `calls`."""
    for step in steps.steps:
        if isinstance(step, Call) and step.item.function not in calls:
            raise ValueError(
                f"{step.text}: nothing computes the host function {step.name!r}; pass "
                f"calls={{{step.item.function}: ...}}"
            )


def _named(number: int, item: Instruction) -> str:
    return f"instruction {number}, {line_of(item)!r}"
