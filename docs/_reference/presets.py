"""The page of machines that have names, from their values and the comments beside them."""

from __future__ import annotations

import ast
import dataclasses
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

from _reference.markdown import cell, page, table
from systolic import presets
from systolic.config import ArrayConfig, MemoryConfig

SOURCE = Path(presets.__file__).read_text(encoding="utf-8")


def _docs() -> dict[str, str]:
    """Return the first line of the text below each constant."""
    found = {}
    body = ast.parse(SOURCE).body
    for before, after in pairwise(body):
        if isinstance(before, ast.Assign) and isinstance(after, ast.Expr):
            text = ast.literal_eval(after.value)
            first = text.strip().partition("\n")[0]
            found[ast.unparse(before.targets[0])] = re.sub(r":\w+:`", "`", first)
    return found


def _sources(name: str) -> dict[str, str]:
    """Return the comment above or behind each field of a constant."""
    found: dict[str, str] = {}
    above: list[str] = []
    for line in SOURCE.partition(f"\n{name} = ")[2].partition("\n)\n")[0].splitlines():
        code, _, comment = line.strip().partition("#")
        field = re.match(r"(\w+)=", code)
        if not code:
            above.append(comment.strip())
        elif field:
            found[field[1]] = " ".join([*above, comment.strip()]).strip()
            above = []
    return found


def _value(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "unlimited"}[value]
    return f"{value:,}" if isinstance(value, int) else f"{value}"


def text() -> str:
    """Return the page."""
    docs = _docs()
    machines = {name: presets.get(name) for name in presets.names()}
    constants: dict[str, str] = {}
    for name, machine in machines.items():
        constants[name] = next(key for key, value in vars(presets).items() if value is machine)

    def rows(kind: type, part: str) -> list[tuple[str, ...]]:
        parts = [getattr(machine, part) for machine in machines.values()]
        names = [field.name for field in dataclasses.fields(kind)]
        return [(f"`{name}`", *(_value(getattr(p, name)) for p in parts if p)) for name in names]

    clocks = tuple(_value(machine.clock_mhz) for machine in machines.values())
    timed = [name for name, machine in machines.items() if machine.memory]
    parts = [
        "# Presets",
        "Machines that have names: each is a `MachineConfig`, for `machine=` in Python and `--preset` in the "
        "shell. `dataclasses.replace` makes another machine of one.",
        table(
            ("name", "constant", "is"),
            [(f"`{n}`", f"`systolic.presets.{c}`", cell(docs[c])) for n, c in constants.items()],
        ),
        "## Arrays and clocks",
        "Fields of `ArrayConfig`, and the clock.",
        table(
            ("field", *(f"`{name}`" for name in machines)),
            [*rows(ArrayConfig, "array"), ("`clock_mhz`", *clocks)],
        ),
        "## Memories",
        "Fields of `MemoryConfig`. The other presets have no memories: their arrays are fed at once, so that "
        "their cycles are a lower bound.",
        table(("field", *(f"`{name}`" for name in timed)), rows(MemoryConfig, "memory")),
    ]
    for name in timed:
        sources = _sources(constants[name])
        parts += [
            f"## Sources: {name}",
            "Sections, tables and figures are those of Jouppi et al., ISCA 2017. Where a value is open, the "
            "paper does not state it; [The TPU v1 beside its paper](../tpu-v1.md) shows how much each of "
            "these matters.",
            table(("field", "source"), [(f"`{field}`", cell(why)) for field, why in sources.items() if why]),
        ]
    return page(*parts)
