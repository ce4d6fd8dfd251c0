"""Value Change Dumps: what GTKWave, Surfer and RTL simulators read and write."""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING, Any

from systolic._files import write_file

if TYPE_CHECKING:
    from systolic.trace.recording import Trace

# Time units per clock: the edge of cycle t stands in the middle of t's period.
PERIOD = 10

_BITS = {"psum": 32, "shift": 1, "swap": 1}


def write_vcd(trace: Trace, path: str | os.PathLike[str]) -> None:
    """Write a trace as a VCD file.

    Parameters
    ----------
    trace : Trace
        With at least one edge recorded.
    path : path
        The file is complete or absent: it is written under another name and renamed.

    Raises
    ------
    ValueError
        If nothing is recorded.
    ImportError
        If pyvcd is missing: ``pip install "systolic[trace]"``.
    OSError
        If the file cannot be written.

    Notes
    -----
    The hierarchy is ``array.row[r].pe[c].register``; numbers are written as their two's complement
    bits, 8 for operands and 32 for psums. One unit of time is a nanosecond, a clock takes 10:
    ``clk`` rises at ``10 t + 5``, the edge of cycle t, and registers change there to the values
    they hold after that edge. ``cycle`` is t. Before the first recorded edge signals are ``x``.
    VCD: IEEE Std 1364-2005, section 18.
    """
    try:
        from vcd import VCDWriter
    except ImportError as error:
        raise ImportError('Trace.to_vcd needs the pyvcd package: pip install "systolic[trace]"') from error
    signals = trace.signals()
    cycles = trace.cycles.tolist()

    def write(file: IO[str]) -> None:
        writer = VCDWriter(file, timescale="1 ns", date="", comment="systolic", check_values=False)
        clk = writer.register_var("array", "clk", "wire", size=1, init=0)
        number = writer.register_var("array", "cycle", "integer", size=64, init="x")
        variables: list[tuple[Any, int, list[int]]] = []
        for row, col, name, recorded in signals:
            bits = _BITS.get(name, 8)
            scope = ("array", f"row[{row}]", f"pe[{col}]")
            kind = "wire" if bits == 1 else "reg"
            variable = writer.register_var(scope, name, kind, size=bits, init="x")
            variables.append((variable, bits, recorded.astype("int64").tolist()))
        before: list[int | None] = [None] * len(variables)
        for edge, cycle in enumerate(cycles):
            rise = PERIOD * cycle + PERIOD // 2
            writer.change(clk, rise, 1)
            writer.change(number, rise, cycle)
            for i, (variable, bits, values) in enumerate(variables):
                value = values[edge]
                if value != before[i]:
                    writer.change(variable, rise, value & ((1 << bits) - 1))
                    before[i] = value
            writer.change(clk, PERIOD * (cycle + 1), 0)
        writer.close()

    write_file(path, write, "w", encoding="ascii", newline="\n")
