"""``Program``: instructions with their function table, weight image and symbol names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np

from systolic import _archive, _check
from systolic._files import check_plain, path_text
from systolic._show.columns import columns
from systolic._show.table import Table
from systolic.isa.functions import IDENTITY, Function
from systolic.isa.instructions import Halt, Instruction, Pattern, Patterns, decode, encode
from systolic.isa.tensors import HostTensor
from systolic.isa.text import assemble, disassemble, line_of

_FORMAT, _VERSION = "systolic.Program", 1


@dataclass(frozen=True)
class Symbol:
    """A name for rows of a memory.

    Parameters
    ----------
    memory : {"host", "ub", "acc", "weights"}
    first, rows : int
        Weight memory is counted in tiles.
    """

    memory: str
    first: int
    rows: int

    def __post_init__(self) -> None:
        _check.choice(self.memory, "memory", ("host", "ub", "acc", "weights"))
        for name in ("first", "rows"):
            object.__setattr__(self, name, _check.integer(getattr(self, name), name, minimum=0))


@dataclass(frozen=True)
class Section:
    """The instructions of one layer.

    Parameters
    ----------
    name, kind : str
        Of the layer.
    first, stop : int
        The first instruction, and the one behind the last.
    macs : int, optional
        Useful multiply-accumulates of its multiplies, padding and structural zeros left out. None if that is
        not known: then results take the tiles for what is not zero in them.
    weight_bytes : int, optional
        Bytes of its weights without padding, counted each time they are loaded.
    """

    name: str
    kind: str
    first: int
    stop: int
    macs: int | None = None
    weight_bytes: int | None = None

    def __post_init__(self) -> None:
        for name in ("macs", "weight_bytes"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _check.integer(getattr(self, name), name, minimum=0))
        for name in ("name", "kind"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"{name} must be a str, not {_check.kind(getattr(self, name))}")
        object.__setattr__(self, "first", _check.integer(self.first, "first", minimum=0))
        object.__setattr__(self, "stop", _check.integer(self.stop, "stop", minimum=self.first))


@dataclass(frozen=True, eq=False)
class Program:
    """A machine's program.

    Parameters
    ----------
    instructions : sequence of Instruction, or str
        Text is assembled, see :func:`assemble`.
    functions : sequence of Function
        The table that ``function=`` counts in; the first one, number 0, must be the identity and is added if
        the table is empty.
    weights : ndarray of int8 or uint8, (tiles, rows, cols), optional
        The weight memory's contents; a program that is only timed needs none.
    symbols : mapping of str to Symbol
        Names of rows, for listings.
    inputs, outputs : mapping of str to HostTensor
        Where in host memory the tensors lie that a run takes and returns.
    sections : sequence of Section
        Which instructions belong to which layer, in their order.

    Raises
    ------
    TypeError, ValueError
        If a field has the wrong kind, an instruction follows a Halt, or a function is not in the table: the
        message names the instruction.

    Examples
    --------
    >>> from systolic.isa import Program
    >>> program = Program("read_weights w#0, 1 \\n matmul a#0, u#0, 16 \\n halt")
    >>> program
    <Program: 3 instructions, 26 bytes>
    >>> Program.decode(program.encode()).instructions == program.instructions
    True
    """

    instructions: tuple[Instruction, ...]
    functions: tuple[Function, ...] = (IDENTITY,)
    weights: np.ndarray | None = None
    symbols: Mapping[str, Symbol] | None = None
    inputs: Mapping[str, HostTensor] = field(default_factory=dict, kw_only=True)
    outputs: Mapping[str, HostTensor] = field(default_factory=dict, kw_only=True)
    sections: tuple[Section, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        given: Any = self.instructions
        for name in ("instructions", "functions", "sections"):
            if not isinstance(getattr(self, name), Iterable):
                what = name.capitalize()[:-1]
                raise TypeError(f"{name} must hold {what}, not {_check.kind(getattr(self, name))}")
        instructions = assemble(given) if isinstance(given, str) else tuple(given)
        functions = tuple(self.functions) or (IDENTITY,)
        for function in functions:
            if not isinstance(function, Function):
                raise TypeError(f"functions must hold Function, not {_check.kind(function)}")
        if functions[0] != IDENTITY:
            raise ValueError(f"function 0 must be the identity, Function(), not {functions[0]}")
        for number, instruction in enumerate(instructions):
            if not isinstance(instruction, Instruction):
                raise TypeError(
                    f"instruction {number} must be an Instruction, not {_check.kind(instruction)}"
                )
            if number and isinstance(instructions[number - 1], Halt):
                raise ValueError(f"instruction {number}, {line_of(instruction)!r}, follows a halt")
            uses = getattr(instruction, "function", 0)
            if uses >= len(functions):
                raise ValueError(
                    f"instruction {number}, {line_of(instruction)!r}, uses function {uses}, but the "
                    f"table has {len(functions)}; pass functions="
                )
        weights = self.weights
        if weights is not None:
            weights = np.array(_check.operand(weights, "weights", ndim=3, axes="(tiles, rows, cols)"))
            weights.flags.writeable = False
        values = {
            "instructions": instructions,
            "functions": functions,
            "weights": weights,
            "symbols": _named({} if self.symbols is None else self.symbols, "symbols", Symbol),
            "inputs": _named(self.inputs, "inputs", HostTensor),
            "outputs": _named(self.outputs, "outputs", HostTensor),
            "sections": tuple(self.sections),
        }
        last = 0
        for section in self.sections:
            if not isinstance(section, Section):
                raise TypeError(f"sections must hold Section, not {_check.kind(section)}")
            if section.first < last or section.stop > len(instructions):
                raise ValueError(
                    f"section {section.name!r} holds instructions {section.first} to {section.stop - 1}, but "
                    f"sections follow each other among {len(instructions)} instructions"
                )
            last = section.stop
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __iter__(self) -> Iterator[Instruction]:
        return iter(self.instructions)

    def __len__(self) -> int:
        return len(self.instructions)

    def __getitem__(self, number: int) -> Instruction:
        return self.instructions[number]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Program):
            return NotImplemented
        return all(_check.same_values(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        tiles = "" if self.weights is None else f", {len(self.weights):,} weight tiles"
        plural = "" if len(self) == 1 else "s"
        return f"<Program: {len(self):,} instruction{plural}, {len(self.encode()):,} bytes{tiles}>"

    def __getstate__(self) -> dict[str, Any]:
        # Without what is kept beside the fields: the code, and what machines made of the program.
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def function_of(self, instruction: Instruction) -> Function:
        """Return the function that an instruction applies; the identity if it has none."""
        return self.functions[getattr(instruction, "function", 0)]

    @cached_property
    def _encoded(self) -> tuple[bytes, tuple[Pattern, ...]]:
        patterns = Patterns()
        code = b"".join(encode(instruction, patterns) for instruction in self.instructions)
        return code, tuple(patterns.table)

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        """The table of address patterns that the code counts in, from 1 on."""
        return self._encoded[1]

    def encode(self) -> bytes:
        """Return the instructions as bytes."""
        return self._encoded[0]

    @classmethod
    def decode(
        cls,
        code: bytes,
        *,
        patterns: Sequence[Pattern] = (),
        functions: Iterable[Function] = (),
        weights: np.ndarray | None = None,
        symbols: Mapping[str, Symbol] | None = None,
        **others: Any,
    ) -> Program:
        """Return the program that :meth:`encode` gave; see :func:`decode` for errors."""
        return cls(decode(code, tuple(patterns)), tuple(functions), weights, symbols, **others)

    def listing(self) -> str:
        """Return the program as text that :func:`assemble` reads back, with the symbols as comments."""
        names = [f"; {name}: {s.memory} {s.first}, {s.rows} rows" for name, s in (self.symbols or {}).items()]
        functions = [f"; f#{number}: {f.name}" for number, f in enumerate(self.functions) if number]
        return "\n".join((*names, *functions, disassemble(self.instructions)))

    def table(self) -> Table:
        """Return a row per instruction: its number, bytes, text and, if it has one, its function."""
        patterns = Patterns(self.patterns)
        rows = []
        for number, instruction in enumerate(self.instructions):
            name = self.function_of(instruction).name if hasattr(instruction, "function") else None
            rows.append((number, len(encode(instruction, patterns)), line_of(instruction), name))
        return Table(columns("instruction", "code_bytes", "text", "function"), rows, title=repr(self)[1:-1])

    def to_frame(self) -> Any:
        """Return :meth:`table` as a pandas frame; needs ``pip install "systolic[pandas]"``."""
        return self.table().to_frame()

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the program to a file, completely or not at all."""
        arrays = [np.frombuffer(self.encode(), np.uint8), *([] if self.weights is None else [self.weights])]
        functions = []
        for function in self.functions:
            numbers = {name: len(arrays) + number for number, name in enumerate(function.arrays)}
            arrays += function.arrays.values()
            functions.append({**function.to_dict(), "arrays": numbers})
        content = {
            "format": _FORMAT,
            "version": _VERSION,
            "patterns": self.patterns,
            "functions": functions,
            "symbols": {name: [s.memory, s.first, s.rows] for name, s in (self.symbols or {}).items()},
            "inputs": {name: tensor.to_dict() for name, tensor in self.inputs.items()},
            "outputs": {name: tensor.to_dict() for name, tensor in self.outputs.items()},
            "sections": [list(astuple(section)) for section in self.sections],
            "weights": self.weights is not None,
        }
        _archive.write(path, "program.json", content, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Program:
        """Return the program of a file.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is no program, damaged, or of a newer version.
        """
        check_plain(path_text(path), "Program.save writes the files that Program.load reads")
        with open(path, "rb") as file:
            try:
                with _archive.Reader(file, os.fspath(path), "Program.save") as reader:
                    content = reader.content("program.json", _FORMAT)
                    if content["version"] > _VERSION:
                        raise ValueError(f"it is of version {content['version']}: install a newer systolic")
                    patterns = [tuple(map(tuple, pattern)) for pattern in content["patterns"]]
                    functions = []
                    for entry in content["functions"]:
                        arrays = entry.pop("arrays").items()
                        held = {name: reader.array(_archive.array_name(n)) for name, n in arrays}
                        functions.append(Function(**entry, arrays=held))
                    return cls.decode(
                        reader.array(_archive.array_name(0)).tobytes(),
                        patterns=patterns,
                        functions=functions,
                        weights=reader.array(_archive.array_name(1)) if content["weights"] else None,
                        symbols={name: Symbol(*entry) for name, entry in content["symbols"].items()},
                        inputs={n: HostTensor.from_dict(t) for n, t in content["inputs"].items()},
                        outputs={n: HostTensor.from_dict(t) for n, t in content["outputs"].items()},
                        sections=[Section(*entry) for entry in content["sections"]],
                    )
            except MemoryError:
                raise
            except Exception as error:
                # Of many kinds, depending on what is damaged: zip, JSON, an array's header, the code.
                raise ValueError(
                    f"{os.fspath(path)} is not a systolic program, or is damaged "
                    f"({type(error).__name__}: {error}); Program.save writes such files"
                ) from error


def _named(given: Any, what: str, kind: type) -> dict[str, Any]:
    """Return a mapping of names to values of a kind."""
    if not isinstance(given, Mapping):
        raise TypeError(f"{what} must map names to {kind.__name__}, not {_check.kind(given)}")
    for name, value in given.items():
        if not isinstance(name, str) or not isinstance(value, kind):
            raise TypeError(f"{what} must map names to {kind.__name__}, not {name!r} to {_check.kind(value)}")
    return dict(given)
