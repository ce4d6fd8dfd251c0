"""Write the table of instructions into docs/programs.md: python docs/write_instructions.py"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from pathlib import Path

from systolic.isa import INSTRUCTIONS, Instruction

PAGE = Path(__file__).with_name("programs.md")
BEGIN = "<!-- begin instructions: docs/write_instructions.py writes this -->"
END = "<!-- end instructions -->"
COLUMNS = ("opcode", "mnemonic", "class", "bytes behind the first 3", "flags, from bit 0", "does")

KINDS = {"rows": "1 + {} each", "ranges": "1 + {} each"}


def _row(kind: type[Instruction]) -> str:
    widths = [f"{f.name} {KINDS.get(f.kind, '{}').format(f.size)}" for f in kind.layout]
    does = inspect.getdoc(kind).splitlines()[0]
    names = f"`{kind.mnemonic}`", f"`{kind.__name__}`"
    return _line((str(kind.opcode), *names, ", ".join(widths), ", ".join(kind.flags), does))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def section() -> str:
    """Return the table as Markdown, between its two marks."""
    head = _line(COLUMNS), "|---" * len(COLUMNS) + "|"
    return "\n".join([BEGIN, "", *head, *map(_row, INSTRUCTIONS), "", END])


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: section(), text, flags=re.S), encoding="utf-8")
