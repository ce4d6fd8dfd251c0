"""The page of Value Change Dumps: what a trace of each dataflow writes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from _reference.markdown import page, table
from systolic import ArrayConfig, matmul
from systolic.dataflows import DATAFLOWS
from systolic.trace.vcd import PERIOD


def _dump(dataflow: str) -> str:
    """Return the file of a product of 1 x 1 and 1 x 2 on an array of two PEs."""
    config = ArrayConfig(1, 2, dataflow=dataflow)
    result = matmul(np.int8([[3]]), np.int8([[5, -7]]), array=config, trace=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "product.vcd"
        result.trace.to_vcd(path)
        return path.read_text(encoding="ascii")


def _variables(dump: str) -> list[tuple[str, ...]]:
    """Return scope, name, type and bits of each variable, without those of further PEs."""
    scopes: list[str] = []
    found = []
    for line in dump.partition("$enddefinitions")[0].splitlines():
        words = line.split()
        if words[:1] == ["$scope"]:
            scopes.append(words[2])
        elif words[:1] == ["$upscope"]:
            scopes.pop()
        elif words[:1] == ["$var"] and "pe[1]" not in scopes:
            scope = ".".join(scopes).replace("row[0]", "row[r]").replace("pe[0]", "pe[c]")
            found.append((scope, words[4], words[1], words[2]))
    return found


def text() -> str:
    """Return the page."""
    parts = [
        "# Value Change Dumps",
        "`Trace.to_vcd` writes the registers that a trace recorded as a VCD file (IEEE Std 1364-2005, "
        'section 18), for GTKWave, Surfer, and RTL simulators. It needs `pip install "systolic[trace]"`. '
        "[For your own RTL](../microarchitecture.md#for-your-own-rtl) has an example.",
        "## Times",
        f"The unit is a nanosecond, and a clock takes {PERIOD} of them. `clk` rises in the middle of a "
        f"cycle, at `{PERIOD} t + {PERIOD // 2}`: that is the edge of cycle t. Registers change there to the "
        "values that they hold after that edge, and `cycle` to t. Before the first recorded edge all of them "
        "are `x`; in cycles that a trace skips nothing changes.",
        "## Values",
        "Integers are in two's complement, floats in their encoding. A variable has the bits of its type: 8 "
        "for operands of 8 bits, 32 for int32 sums, 1 for control.",
        "## Hierarchy",
        "`r` and `c` count rows and columns of PEs from 0. Only the registers and PEs that the trace "
        "recorded are there. The tables are those of the default format, 8-bit operands and 32-bit sums. "
        "*moves* says where a value goes at the next edge; it is empty if the value stays in the PE.",
    ]
    head = ("scope", "variable", "type", "bits", "moves")
    dumps = {name: _dump(name) for name in DATAFLOWS}
    for name, dataflow in DATAFLOWS.items():
        moves = {register.name: register.moves or "" for register in dataflow.registers}
        rows = [
            (f"`{scope}`", f"`{variable}`", kind, bits, moves.get(variable, ""))
            for scope, variable, kind, bits in _variables(dumps[name])
        ]
        parts += [f"### {name.replace('_', ' ').capitalize()}", table(head, rows)]
    first = next(iter(DATAFLOWS))
    parts += [
        "## A whole file",
        "`systolic.matmul([[3]], [[5, -7]])` on an array of 1 x 2, of int8, with `trace=True`:",
        f"```text\n{dumps[first].strip()}\n```",
    ]
    return page(*parts)
