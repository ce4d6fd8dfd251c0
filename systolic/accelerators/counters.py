"""``Counters``: what the TPU paper's table 3 says about an application, from a program's timeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from systolic import isa, presets
from systolic.accelerators.programs import program_of, unified_buffer_rows
from systolic.accelerators.stand_ins import StandIn
from systolic.config import MachineConfig
from systolic.machine.timeline import row_bytes, time_program

MATRIX = ("active", "weight_stall", "weight_shift")
"""Causes of cycles that make up the matrix unit's time; the others are non-matrix."""


@dataclass(frozen=True)
class Counters:
    """Cycles of one batch by cause, and what they were spent for.

    Parameters
    ----------
    name : str
    machine : MachineConfig
    batch : int
    macs : int
        Useful MACs.
    cycles : int
    causes : dict of str to int
        Cycles by `systolic.machine.timeline.CAUSES`.
    unified_buffer_bytes : int
        Up to the highest row that is used.
    """

    name: str
    machine: MachineConfig
    batch: int
    macs: int
    cycles: int
    causes: dict[str, int]
    unified_buffer_bytes: int

    @property
    def seconds(self) -> float:
        """Time of one batch."""
        return self.machine.seconds(self.cycles)

    @property
    def matrix_cycles(self) -> int:
        """Cycles in which the array is active or waits for weights."""
        return sum(self.causes[cause] for cause in MATRIX)

    @property
    def matrix_seconds(self) -> float:
        """Time in which the array is active or waits for weights."""
        return self.machine.seconds(self.matrix_cycles)

    @property
    def useful_share_of_active(self) -> float:
        """Useful MACs over those that the active cycles had room for."""
        return self._useful / self.causes["active"]

    @property
    def _useful(self) -> float:
        """Useful MACs in cycles of the whole array."""
        return self.macs / (self.machine.array.rows * self.machine.array.cols)

    def row(self, key: str) -> float:
        """Return a row of the paper's table 3 by its key in `tpu_v1.TABLE_3`, in its unit."""
        if key == "tera_ops":
            return 2 * self.macs / self.seconds / 1e12
        return 100 * self._cycles_of(key) / self.cycles

    def scaled(self, key: str, non_matrix: float) -> float | None:
        """Return a row as a share of the matrix unit's time, times one minus a non-matrix share in percent.

        None for the rows that non-matrix time is made of.
        """
        matrix = 1 - non_matrix / 100
        if key == "tera_ops":
            peak = 2 * self.machine.array.rows * self.machine.array.cols * self.machine.clock_mhz / 1e6
            return peak * matrix * self._useful / self.matrix_cycles
        if key in (*MATRIX, "useful", "unused"):
            return 100 * matrix * self._cycles_of(key) / self.matrix_cycles
        return None

    def _cycles_of(self, key: str) -> float:
        if key == "useful":
            return self._useful
        if key == "unused":
            return self.causes["active"] - self._useful
        if key == "non_matrix":
            return self.cycles - self.matrix_cycles
        return self.causes[key]

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as a dict that JSON can hold."""
        return {
            "batch": self.batch,
            "macs": self.macs,
            "cycles": self.cycles,
            "seconds": self.seconds,
            "causes": self.causes,
            "unified_buffer_bytes": self.unified_buffer_bytes,
        }


def count(
    stand_in: StandIn, machine: MachineConfig | None = None, program: isa.Program | None = None
) -> Counters:
    """Return the counters of a stand-in.

    Parameters
    ----------
    stand_in : StandIn
    machine : MachineConfig, optional
        With memories; the preset by default.
    program : Program, optional
        What the machine runs; by default, what ``systolic.accelerators.programs.program_of`` makes.

    Examples
    --------
    >>> from systolic.accelerators import stand_in
    >>> from systolic.accelerators.counters import count
    >>> lstm = count(stand_in("LSTM1"))
    >>> lstm.batch, round(lstm.useful_share_of_active, 3)
    (96, 0.61)
    """
    machine = machine or presets.TPU_V1
    assert machine.memory is not None
    program = program or program_of(stand_in, machine)
    timeline = time_program(program, machine)
    used = unified_buffer_rows(program) * row_bytes(machine, machine.memory)
    return Counters(
        stand_in.name, machine, stand_in.batch, stand_in.macs, timeline.cycles, timeline.causes, used
    )
