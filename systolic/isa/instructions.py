"""The instructions of a machine as frozen values, and the table that encodes them.

Addresses and counts are in rows of the unified buffer (UB), of the accumulators and of host memory, and in
weight tiles. A multiply takes 12 bytes with the field widths of the TPU paper (Jouppi et al., ISCA 2017,
section 2): opcode and flags 3, UB address 3, accumulator address 2, length 4. The paper gives no other
encoding; the rest of the table is ours. Each instruction begins with the same 3 bytes: opcode, flags, and a
byte that is 0. Its fields follow, little-endian.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple, TypeVar

from systolic import _check

Pattern = tuple[tuple[int, int], ...]
"""Rows ``address + sum(i_j * stride_j)`` in C order: (count, stride) of each axis, at most 4."""

Range = tuple[int, int]
"""The first row and the number of rows."""

MOST_AXES = 4
OPERANDS = ("int8", "uint8", "int16", "uint16")


class Field(NamedTuple):
    """A field as it is encoded.

    Attributes
    ----------
    name : str
    size : int
        Bytes; of one entry, if it is a list.
    kind : str
        "row", "tile", "count", "function", "operand"; "pattern", a number in the program's table of patterns;
        "rows" and "ranges", lists behind a byte with their length.
    memory : str
        What a row is one of: "ub", "acc" or "host".
    """

    name: str
    size: int
    kind: str
    memory: str = ""


_UB = Field("ub", 3, "row", "ub")
_ACC, _HOST, _ROWS = Field("acc", 2, "row", "acc"), Field("host", 4, "row", "host"), Field("rows", 4, "count")
_FUNCTION, _PATTERN = Field("function", 2, "function"), Field("pattern", 4, "pattern")


class Instruction:
    """Base of the instructions: frozen values that compare, print and go through ``to_dict``."""

    opcode: ClassVar[int]
    mnemonic: ClassVar[str]
    layout: ClassVar[tuple[Field, ...]] = ()
    flags: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for field in self.layout:
            name = f"{type(self).__name__}: {field.name}"
            object.__setattr__(self, field.name, _CHECKS[field.kind](getattr(self, field.name), name, field))
        for flag in self.flags:
            object.__setattr__(self, flag, _check.flag(getattr(self, flag), f"{type(self).__name__}: {flag}"))

    def to_dict(self) -> dict[str, Any]:
        """Return the instruction's name and fields as a dict that JSON can hold."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return {"instruction": type(self).__name__, **values}


_Kind = TypeVar("_Kind", bound=Instruction)


def unchecked(instruction: _Kind, **values: Any) -> _Kind:
    """Return a copy with other values of some fields, which are known to be right: checking them takes long.

    Examples
    --------
    >>> from systolic.isa import MatrixMultiply
    >>> unchecked(MatrixMultiply(0, 0, 16), ub=16)
    MatrixMultiply(ub=16, acc=0, rows=16, new_weights=True, accumulate=False)
    """
    made = object.__new__(type(instruction))
    made.__dict__.update(instruction.__dict__)
    made.__dict__.update(values)
    return made


def _number(value: Any, name: str, field: Field) -> int:
    least = 1 if field.kind == "count" else 0
    return _check.integer(value, name, minimum=least, maximum=256**field.size - 1)


def _listed(value: Any, name: str, what: str) -> tuple[Any, ...]:
    if not _check.is_listed(value) or len(value) > 255:
        raise TypeError(f"{name} must be a list of at most 255 {what}, not {_check.kind(value)}")
    return tuple(value)


def _rows(value: Any, name: str, field: Field) -> tuple[int, ...]:
    most = 256**field.size - 1
    rows = _listed(value, name, "rows")
    if not rows:
        raise ValueError(f"{name} must hold at least one row")
    return tuple(_check.integer(row, name, minimum=0, maximum=most) for row in rows)


def _pair(value: Any, name: str, what: str) -> tuple[Any, Any]:
    if not _check.is_listed(value) or len(value) != 2:
        raise TypeError(f"{name} must hold pairs ({what}), not {_check.kind(value)}")
    return value[0], value[1]


def _ranges(value: Any, name: str, field: Field) -> tuple[Range, ...]:
    found, most = [], 256 ** (field.size // 2) - 1
    for each in _listed(value, name, "pairs (first row, rows)"):
        first, rows = _pair(each, name, "first row, rows")
        found.append(
            (
                _check.integer(first, f"{name}: a first row", minimum=0, maximum=most),
                _check.integer(rows, f"{name}: rows", minimum=1, maximum=most),
            )
        )
    return tuple(found)


def _pattern(value: Any, name: str, field: Field) -> Pattern | None:
    if value is None:
        return None
    if not _check.is_listed(value) or not 1 <= len(value) <= MOST_AXES:
        raise TypeError(f"{name} must hold 1 to {MOST_AXES} pairs (count, stride), not {_check.kind(value)}")
    found = []
    for each in value:
        count, stride = _pair(each, name, "count, stride")
        found.append(
            (
                _check.integer(count, f"{name}: a count", minimum=1, maximum=2**32 - 1),
                _check.integer(stride, f"{name}: a stride", minimum=-(2**31), maximum=2**31 - 1),
            )
        )
    return tuple(found)


_CHECKS = {
    "row": _number,
    "tile": _number,
    "count": _number,
    "function": _number,
    "operand": lambda value, name, field: _check.choice(value, name, OPERANDS),
    "rows": _rows,
    "ranges": _ranges,
    "pattern": _pattern,
}


def pattern_rows(pattern: Pattern) -> int:
    """Return how many rows a pattern has."""
    return math.prod(count for count, _ in pattern)


def pattern_range(address: int, pattern: Pattern) -> Range:
    """Return the first row of a pattern at an address, and the number of rows up to its last one."""
    steps = [(count - 1) * stride for count, stride in pattern]
    low, high = sum(min(step, 0) for step in steps), sum(max(step, 0) for step in steps)
    return address + low, high - low + 1


@dataclass(frozen=True)
class ReadHost(Instruction):
    """Copy rows from host memory to the unified buffer."""

    host: int
    ub: int
    rows: int

    opcode, mnemonic, layout = 1, "read_host", (_HOST, _UB, _ROWS)


@dataclass(frozen=True)
class WriteHost(Instruction):
    """Copy rows from the unified buffer to host memory."""

    ub: int
    host: int
    rows: int

    opcode, mnemonic, layout = 2, "write_host", (_UB, _HOST, _ROWS)


@dataclass(frozen=True)
class ReadWeights(Instruction):
    """Ask for weight tiles; it completes at once, and the tiles arrive in the FIFO one after the other."""

    tile: int
    count: int = 1

    opcode, mnemonic = 3, "read_weights"
    layout = (Field("tile", 4, "tile"), Field("count", 4, "count"))


@dataclass(frozen=True)
class MatrixMultiply(Instruction):
    """Stream rows of the unified buffer through the array, and their sums into the accumulators.

    Parameters
    ----------
    ub, acc, rows : int
    new_weights : bool
        Whether the next tile of the FIFO is swapped in with the first row.
    accumulate : bool
        Whether the sums are added to the accumulators' rows or replace them.
    """

    ub: int
    acc: int
    rows: int
    new_weights: bool = True
    accumulate: bool = False

    opcode, mnemonic, layout = 4, "matmul", (_UB, _ACC, _ROWS)
    flags = ("new_weights", "accumulate")


@dataclass(frozen=True)
class Convolve(Instruction):
    """Multiply as MatrixMultiply does, the rows taken from the unified buffer by a pattern."""

    ub: int
    acc: int
    pattern: Pattern
    new_weights: bool = True
    accumulate: bool = False

    opcode, mnemonic, layout = 5, "convolve", (_UB, _ACC, _PATTERN)
    flags = ("new_weights", "accumulate")

    @property
    def rows(self) -> int:
        """How many rows it streams."""
        return pattern_rows(self.pattern)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pattern is None:
            raise TypeError("Convolve: pattern must hold 1 to 4 pairs (count, stride), not None")


@dataclass(frozen=True)
class Activate(Instruction):
    """Apply a function to rows of the accumulators, and write the result to the unified buffer.

    Parameters
    ----------
    acc, ub, rows : int
        `rows` is how many are read; a pooling function writes fewer.
    function : int
        A number in the program's table of functions; 0 is the identity.
    pattern : sequence of (count, stride), optional
        Where the rows are written, from `ub` on; one after the other if None.
    """

    acc: int
    ub: int
    rows: int
    function: int = 0
    pattern: Pattern | None = None

    opcode, mnemonic, layout = 6, "activate", (_ACC, _UB, _ROWS, _FUNCTION, _PATTERN)


@dataclass(frozen=True)
class Vector(Instruction):
    """Apply a function to rows of one or more tensors in the unified buffer, and write the result there.

    `inputs` are the first rows; of each, `rows` are read.
    """

    inputs: tuple[int, ...]
    ub: int
    rows: int
    function: int
    pattern: Pattern | None = None

    opcode, mnemonic = 7, "vector"
    layout = (Field("inputs", 3, "rows", "ub"), _UB, _ROWS, _FUNCTION, _PATTERN)


@dataclass(frozen=True)
class HostCall(Instruction):
    """Have the host compute a function of rows of its memory; it takes no cycles, and is counted."""

    function: int
    reads: tuple[Range, ...]
    writes: tuple[Range, ...]

    opcode, mnemonic = 8, "host_call"
    layout = (_FUNCTION, Field("reads", 8, "ranges", "host"), Field("writes", 8, "ranges", "host"))


@dataclass(frozen=True)
class SetConfiguration(Instruction):
    """Set the operand types of the multiplies that follow."""

    activation: str = "int8"
    weight: str = "int8"

    opcode, mnemonic = 9, "set_configuration"
    layout = (Field("activation", 1, "operand"), Field("weight", 1, "operand"))


@dataclass(frozen=True)
class Sync(Instruction):
    """Wait until everything before has completed."""

    opcode, mnemonic = 10, "sync"


@dataclass(frozen=True)
class Nop(Instruction):
    """Do nothing."""

    opcode, mnemonic = 11, "nop"


@dataclass(frozen=True)
class Halt(Instruction):
    """End the program; nothing may follow."""

    opcode, mnemonic = 12, "halt"


INSTRUCTIONS: tuple[type[Instruction], ...] = (
    ReadHost, WriteHost, ReadWeights, MatrixMultiply, Convolve, Activate, Vector, HostCall, SetConfiguration,
    Sync, Nop, Halt,
)  # fmt: skip
"""Every instruction, by opcode."""

BY_OPCODE = {kind.opcode: kind for kind in INSTRUCTIONS}
BY_MNEMONIC = {kind.mnemonic: kind for kind in INSTRUCTIONS}


class Patterns:
    """The patterns of a program in the order of their first use."""

    def __init__(self, patterns: tuple[Pattern, ...] = ()) -> None:
        self.table = list(patterns)
        self._numbers = {pattern: number for number, pattern in enumerate(self.table)}

    def number(self, pattern: Pattern | None) -> int:
        """Return what encodes a pattern: its place in the table from 1 on, 0 for none."""
        if pattern is None:
            return 0
        if pattern not in self._numbers:
            self._numbers[pattern] = len(self.table)
            self.table.append(pattern)
        return self._numbers[pattern] + 1


def encode(instruction: Instruction, patterns: Patterns) -> bytes:
    """Return an instruction's bytes; a pattern is added to the table if it is not there.

    Examples
    --------
    >>> from systolic.isa import MatrixMultiply, Patterns, encode
    >>> encode(MatrixMultiply(ub=0x10203, acc=0x405, rows=7), Patterns()).hex(" ")
    '04 01 00 03 02 01 05 04 07 00 00 00'
    """
    flags = sum(getattr(instruction, name) << bit for bit, name in enumerate(instruction.flags))
    parts = [bytes((instruction.opcode, flags, 0))]
    for field in instruction.layout:
        value = getattr(instruction, field.name)
        if field.kind == "rows":
            parts += [bytes((len(value),)), *(row.to_bytes(field.size, "little") for row in value)]
        elif field.kind == "ranges":
            half = field.size // 2
            numbers = (number for pair in value for number in pair)
            parts += [bytes((len(value),)), *(number.to_bytes(half, "little") for number in numbers)]
        else:
            if field.kind == "pattern":
                value = patterns.number(value)
            elif field.kind == "operand":
                value = OPERANDS.index(value)
            parts.append(value.to_bytes(field.size, "little"))
    return b"".join(parts)


def decode(code: bytes, patterns: tuple[Pattern, ...] = ()) -> tuple[Instruction, ...]:
    """Return the instructions that bytes encode.

    Raises
    ------
    TypeError
        If `code` is not bytes.
    ValueError
        For an unknown opcode, a flag or value that is out of range, or bytes that end too early: the message
        names the instruction's number and the byte at which it begins.

    Examples
    --------
    >>> from systolic.isa import decode
    >>> decode(bytes.fromhex("04 03 00 03 02 01 05 04 07 00 00 00"))
    (MatrixMultiply(ub=66051, acc=1029, rows=7, new_weights=True, accumulate=True),)
    """
    if not isinstance(code, bytes | bytearray | memoryview):
        raise TypeError(f"code must be bytes, not {_check.kind(code)}; assemble takes text")
    code = bytes(code)
    found: list[Instruction] = []
    place = 0
    while place < len(code):
        start = place
        try:
            instruction, place = _decode_one(code, place, patterns)
        except (TypeError, ValueError) as error:
            raise ValueError(f"instruction {len(found)}, at byte {start}: {error}") from None
        found.append(instruction)
    return tuple(found)


def _decode_one(code: bytes, place: int, patterns: tuple[Pattern, ...]) -> tuple[Instruction, int]:
    kind = BY_OPCODE.get(code[place])
    if kind is None:
        raise ValueError(f"unknown opcode {code[place]}; there are {min(BY_OPCODE)} to {max(BY_OPCODE)}")

    def take(size: int) -> int:
        nonlocal place
        if place + size > len(code):
            raise ValueError(f"{kind.__name__} ends after {len(code)} bytes, in the middle")
        place += size
        return int.from_bytes(code[place - size : place], "little")

    _, flags, reserved = take(1), take(1), take(1)
    if flags >> len(kind.flags) or reserved:
        raise ValueError(f"{kind.__name__} has the flags {flags:#x} and {reserved:#x}, which mean nothing")
    values: dict[str, Any] = {name: bool(flags >> bit & 1) for bit, name in enumerate(kind.flags)}
    for field in kind.layout:
        values[field.name] = _decoded(field, take, patterns)
    return kind(**values), place


def _decoded(field: Field, take: Any, patterns: tuple[Pattern, ...]) -> Any:
    if field.kind == "rows":
        return tuple(take(field.size) for _ in range(take(1)))
    if field.kind == "ranges":
        half = field.size // 2
        return tuple((take(half), take(half)) for _ in range(take(1)))
    value = take(field.size)
    if field.kind == "operand":
        if value >= len(OPERANDS):
            raise ValueError(f"{field.name} {value} is no operand type; there are 0 to {len(OPERANDS) - 1}")
        return OPERANDS[value]
    if field.kind == "pattern":
        if value > len(patterns):
            raise ValueError(f"pattern {value} of a table of {len(patterns)}")
        return patterns[value - 1] if value else None
    return value


def row_ranges(
    instruction: Instruction, written: int | None = None
) -> Iterator[tuple[str, bool, int, int, str]]:
    """Yield (memory, whether it is written, first row, rows, field) of what an instruction touches.

    `written` is the number of rows that an Activate or a Vector writes; all it reads if None.
    """
    item: Any = instruction
    match item:
        case ReadHost():
            yield "host", False, item.host, item.rows, "host"
            yield "ub", True, item.ub, item.rows, "ub"
        case WriteHost():
            yield "ub", False, item.ub, item.rows, "ub"
            yield "host", True, item.host, item.rows, "host"
        case MatrixMultiply():
            yield "ub", False, item.ub, item.rows, "ub"
            yield "acc", True, item.acc, item.rows, "acc"
        case Convolve():
            yield ("ub", False, *pattern_range(item.ub, item.pattern), "ub")
            yield "acc", True, item.acc, item.rows, "acc"
        case Activate() | Vector():
            rows = item.rows if written is None else written
            if isinstance(item, Activate):
                yield "acc", False, item.acc, item.rows, "acc"
            else:
                for first in item.inputs:
                    yield "ub", False, first, item.rows, "inputs"
            target = (item.ub, rows) if item.pattern is None else pattern_range(item.ub, item.pattern)
            yield ("ub", True, *target, "ub")
        case HostCall():
            for first, rows in item.reads:
                yield "host", False, first, rows, "reads"
            for first, rows in item.writes:
                yield "host", True, first, rows, "writes"
