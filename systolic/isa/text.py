"""Programs as text: one instruction a line, in the mnemonics of Hennessy and Patterson.

``u#``, ``a#``, ``h#`` are rows of the unified buffer, the accumulators and host memory, ``w#`` weight tiles,
``f#`` functions (Hennessy and Patterson, "Computer Architecture", 6th edition, exercise 7.3). What their
programs leave out has a default: host rows count up from 0, the function is 0, weights are new.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import MISSING, fields
from typing import Any

from systolic.isa.instructions import (
    BY_MNEMONIC,
    Activate,
    Convolve,
    HostCall,
    Instruction,
    MatrixMultiply,
    ReadHost,
    ReadWeights,
    SetConfiguration,
    Vector,
    WriteHost,
)

_SIGNS = {"u": "ub", "a": "acc", "h": "host", "w": "tile", "f": "function"}
_NUMBER = r"(?:0x[0-9a-fA-F]+|\d+)"
_PATTERN = rf"{_NUMBER}\*-?{_NUMBER}(?:\+{_NUMBER}\*-?{_NUMBER})*"
_OPERAND = re.compile(
    rf"(?P<sign>[a-z])#(?P<row>{_NUMBER})|(?P<pattern>{_PATTERN})|(?P<number>{_NUMBER})"
    r"|(?P<list>reads|writes|inputs)\s*\((?P<items>[^()]*)\)|(?P<x>\w+)\s+x\s+(?P<w>\w+)|(?P<word>\w+)"
)
_ITEM = re.compile(rf"(?P<sign>[a-z])#(?P<row>{_NUMBER})(?::(?P<rows>{_NUMBER}))?")


def assemble(text: str) -> tuple[Instruction, ...]:
    """Return the instructions of a text.

    Parameters
    ----------
    text : str
        One instruction a line; ``;`` and ``//`` begin a comment. Operands are separated by commas and known
        by their form, so that their order does not matter.

    Raises
    ------
    ValueError
        For a mnemonic or operand that does not exist, is missing, there twice or out of range: with line and
        column, and the line with a mark below.

    Notes
    -----
    The operands of each mnemonic, those in brackets optional::

        read_host u#0, [h#0,] 16            write_host u#0, [h#0,] 16           read_weights w#0, [1]
        matmul a#0, u#0, 16 [, same_weights] [, accumulate]
        convolve a#0, u#0, 3*30+3*1 [, same_weights] [, accumulate]             rows u + 30 i + j
        activate u#0, a#0, 16 [, f#1] [, 4*30+4*1]                              written to u + 30 i + j
        vector u#0, inputs (u#16 u#32), 16, f#2 [, 4*30+4*1]
        host_call f#3, reads (h#0:16 h#64:8), writes (h#32:4)
        set_configuration int8 x uint8      sync        nop        halt

    Examples
    --------
    >>> from systolic import isa
    >>> isa.assemble("read_weights w#0, 1 \\n activate u#0, a#16, 2048  ; 2048 rows")
    (ReadWeights(tile=0, count=1), Activate(acc=16, ub=0, rows=2048, function=0, pattern=None))
    """
    if not isinstance(text, str):
        raise TypeError(f"assemble takes text, not {type(text).__name__}")
    found: list[Instruction] = []
    host = 0
    for number, line in enumerate(text.splitlines(), 1):
        code = re.split(r";|//", line, maxsplit=1)[0]
        if not code.strip():
            continue
        instruction = _Line(number, line, code).instruction(host)
        if isinstance(instruction, ReadHost | WriteHost):
            host = instruction.host + instruction.rows
        found.append(instruction)
    return tuple(found)


_WORDS = {"same_weights": {"new_weights": False}, "accumulate": {"accumulate": True}}


class _Line:
    def __init__(self, number: int, line: str, code: str) -> None:
        self.number, self.line, self.code = number, line, code

    def error(self, column: int, what: str) -> ValueError:
        """Return an error at a column, counted from 0."""
        return ValueError(
            f"line {self.number}, column {column + 1}: {what}\n  {self.line.rstrip()}\n  {' ' * column}^"
        )

    def instruction(self, host: int) -> Instruction:
        """Return the line's instruction; `host` is the host row where none is given."""
        start = len(self.code) - len(self.code.lstrip())
        mnemonic, _, rest = self.code[start:].partition(" ")
        mnemonic = mnemonic.rstrip()
        kind = BY_MNEMONIC.get(mnemonic.lower())
        if kind is None:
            raise self.error(start, f"unknown mnemonic {mnemonic!r}; there are {', '.join(BY_MNEMONIC)}")
        values: dict[str, Any] = {}
        place = start + len(mnemonic)
        for part in _split(rest.rstrip()) if rest.strip() else ():
            place += 1
            column = place + len(part) - len(part.lstrip())
            for name, value in self._operand(kind, part.strip(), column).items():
                if name in values:
                    raise self.error(column, f"{mnemonic} has its {name} twice")
                values[name] = value
            place += len(part)
        if kind in (ReadHost, WriteHost):
            values.setdefault("host", host)
        lacking = [f.name for f in fields(kind) if f.default is MISSING and f.name not in values]  # type: ignore[arg-type]
        if lacking:
            raise self.error(start, f"{mnemonic} lacks {' and '.join(map(_spelled, lacking))}")
        try:
            return kind(**values)
        except (TypeError, ValueError) as error:
            raise self.error(start, str(error)) from None

    def _operand(self, kind: type[Instruction], part: str, column: int) -> dict[str, Any]:
        match = _OPERAND.fullmatch(part)
        known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
        found = {} if match is None else self._values(kind, match, column)
        if found and set(found) <= known:
            return found
        wanted = ", ".join(map(_spelled, (f.name for f in fields(kind)))) or "no operands"  # type: ignore[arg-type]
        raise self.error(column, f"{kind.mnemonic} takes {wanted}, not {part!r}")

    def _values(self, kind: type[Instruction], match: re.Match[str], column: int) -> dict[str, Any]:
        """Return the fields that an operand is, of whatever instruction."""
        if match["sign"]:
            return {_SIGNS.get(match["sign"], ""): int(match["row"], 0)}
        if match["pattern"]:
            pairs = (axis.split("*") for axis in match["pattern"].split("+"))
            return {"pattern": tuple((int(count, 0), int(stride, 0)) for count, stride in pairs)}
        if match["number"]:
            return {"count" if kind is ReadWeights else "rows": int(match["number"], 0)}
        if match["list"]:
            name = match["list"]
            return {name: self._items(name, match["items"], column + match.start("items"))}
        if match["x"]:
            return {"activation": match["x"], "weight": match["w"]}
        return _WORDS.get(match["word"], {})

    def _items(self, name: str, text: str, column: int) -> tuple[Any, ...]:
        found: list[Any] = []
        for item in re.finditer(r"\S+", text):
            match = _ITEM.fullmatch(item[0])
            sign, ranged = ("u", False) if name == "inputs" else ("h", True)
            if match is None or match["sign"] != sign or bool(match["rows"]) != ranged:
                wanted = "h#first:rows" if ranged else "u#row"
                raise self.error(column + item.start(), f"{name} holds {wanted}, not {item[0]!r}")
            row = int(match["row"], 0)
            found.append((row, int(match["rows"], 0)) if ranged else row)
        return tuple(found)


def _split(text: str) -> list[str]:
    """Split at commas that are not in parentheses."""
    return re.split(r",(?![^()]*\))", text)


def _spelled(name: str) -> str:
    signs = {field: f"{sign}#" for sign, field in _SIGNS.items()}
    return {
        "rows": "a number of rows", "count": "a number of tiles", "pattern": "a pattern count*stride+...",
        "inputs": "inputs (u#...)", "reads": "reads (h#...)", "writes": "writes (h#...)",
        "new_weights": "same_weights", "activation": "int8 x int8", "weight": "both operand types",
    }.get(name, signs.get(name, name))  # fmt: skip


def disassemble(instructions: Iterable[Instruction]) -> str:
    """Return instructions as text that :func:`assemble` reads back.

    Parameters
    ----------
    instructions : iterable of Instruction
        Such as a :class:`Program`.

    Examples
    --------
    >>> from systolic import isa
    >>> print(isa.disassemble([isa.MatrixMultiply(0, 8, 16, accumulate=True), isa.Halt()]))
    matmul a#8, u#0, 16, accumulate
    halt
    """
    return "\n".join(line_of(instruction) for instruction in instructions)


def line_of(instruction: Instruction) -> str:
    """Return one instruction as text."""
    item: Any = instruction
    operands: list[str]
    match item:
        case ReadHost() | WriteHost():
            operands = [f"u#{item.ub}", f"h#{item.host}", str(item.rows)]
        case ReadWeights():
            operands = [f"w#{item.tile}", str(item.count)]
        case MatrixMultiply() | Convolve():
            rows = str(item.rows) if isinstance(item, MatrixMultiply) else _pattern(item.pattern)
            operands = [f"a#{item.acc}", f"u#{item.ub}", rows]
            operands += ["same_weights"] * (not item.new_weights) + ["accumulate"] * item.accumulate
        case Activate():
            operands = [f"u#{item.ub}", f"a#{item.acc}", str(item.rows)]
            operands += [f"f#{item.function}"] * (item.function > 0)
        case Vector():
            inputs = " ".join(f"u#{row}" for row in item.inputs)
            operands = [f"u#{item.ub}", f"inputs ({inputs})", str(item.rows), f"f#{item.function}"]
        case HostCall():
            operands = [f"f#{item.function}"]
            for name in ("reads", "writes"):
                ranges = " ".join(f"h#{first}:{rows}" for first, rows in getattr(item, name))
                operands.append(f"{name} ({ranges})")
        case SetConfiguration():
            operands = [f"{item.activation} x {item.weight}"]
        case _:
            operands = []
    if isinstance(item, Activate | Vector) and item.pattern is not None:
        operands.append(_pattern(item.pattern))
    return f"{item.mnemonic} {', '.join(operands)}".rstrip()


def _pattern(pattern: Any) -> str:
    return "+".join(f"{count}*{stride}" for count, stride in pattern)
