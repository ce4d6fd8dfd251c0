"""Write Value Change Dumps, for GTKWave, Surfer and RTL simulators."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import IO, Any, NamedTuple

import numpy as np

from systolic._files import write_file
from systolic.formats import as_bits

# Time units per clock: the edge of cycle t is in the middle of t's period.
PERIOD = 10


class Signal(NamedTuple):
    """A register of one PE over the recorded edges."""

    row: int
    col: int
    register: str
    bits: int
    values: np.ndarray


def write_vcd(signals: Sequence[Signal], cycles: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Write signals over the cycles of the recorded edges as a VCD file, which is complete or absent.

    Raises
    ------
    ImportError
        If pyvcd is missing: ``pip install "systolic[trace]"``.
    OSError
        If the file cannot be written.

    Notes
    -----
    The hierarchy is ``array.row[r].pe[c].register``; integers are written as their two's complement
    bits, 8 for 8-bit operands and 32 for psums, floats as their encoding. One unit of time is a nanosecond,
    a clock takes 10: ``clk`` rises at ``10 t + 5``, the edge of cycle t, and registers change there to the
    values they hold after that edge. ``cycle`` is t. Before the first recorded edge signals are ``x``.
    VCD: IEEE Std 1364-2005, section 18.
    """
    try:
        from vcd import VCDWriter
    except ImportError as error:
        raise ImportError('Trace.to_vcd needs the pyvcd package: pip install "systolic[trace]"') from error

    def write(file: IO[str]) -> None:
        writer = VCDWriter(file, timescale="1 ns", date="", comment="systolic", check_values=False)
        clk = writer.register_var("array", "clk", "wire", size=1, init=0)
        number = writer.register_var("array", "cycle", "integer", size=64, init="x")
        variables: list[tuple[Any, int, list[int]]] = []
        for signal in signals:
            scope = ("array", f"row[{signal.row}]", f"pe[{signal.col}]")
            kind = "wire" if signal.bits == 1 else "reg"
            variable = writer.register_var(scope, signal.register, kind, size=signal.bits, init="x")
            variables.append((variable, signal.bits, as_bits(signal.values).tolist()))
        before: list[int | None] = [None] * len(variables)
        for edge, cycle in enumerate(cycles.tolist()):
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
