"""Programs of stand-ins, to be timed: without weights."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from itertools import pairwise

from systolic import compiler, isa
from systolic.accelerators.models import model_of
from systolic.accelerators.stand_ins import StandIn
from systolic.config import MachineConfig


@lru_cache(maxsize=64)
def program_of(stand_in: StandIn, machine: MachineConfig) -> isa.Program:
    """Compile a stand-in for a machine, without weights.

    Parameters
    ----------
    stand_in : StandIn
    machine : MachineConfig
        With memories.

    Raises
    ------
    ValueError
        If the machine has no memories, or they are too small.

    Examples
    --------
    >>> from systolic import isa
    >>> from systolic.accelerators import stand_in
    >>> from systolic.accelerators.programs import program_of
    >>> from systolic import presets
    >>> program = program_of(stand_in("MLP0"), presets.TPU_V1)
    >>> sum(isinstance(item, isa.MatrixMultiply) for item in program)
    320
    """
    return compiler.compile(model_of(stand_in), machine=machine, batch=stand_in.batch, weights=False)


def layer_of(section: isa.Section) -> str:
    """Return the layer of table 1 that a program's section belongs to.

    Examples
    --------
    >>> from systolic import isa
    >>> from systolic.accelerators.programs import layer_of
    >>> layer_of(isa.Section("fc 1: t2", "QLinearMatMul", 0, 3))
    'fc 1'
    """
    return section.name.partition(":")[0]


def with_operands(program: isa.Program, activation: str, weight: str) -> isa.Program:
    """Return a program whose multiplies take operands of other types: only its times are meant.

    Multiplies take longer by the machine's `width_factors`. Weight tiles are read as before, in the bytes of
    the array's own type: wider weights cost no bandwidth here.

    Examples
    --------
    >>> from systolic import isa
    >>> from systolic.accelerators.programs import with_operands
    >>> with_operands(isa.Program("nop"), "int16", "int8").instructions
    (SetConfiguration(activation='int16', weight='int8'), Nop())
    """
    return _spread(program, {0: isa.SetConfiguration(activation, weight)})


def with_syncs(program: isa.Program) -> isa.Program:
    """Return a program in which each layer of table 1 but the first begins with a Sync.

    Examples
    --------
    >>> from systolic import isa
    >>> from systolic.accelerators.programs import with_syncs
    >>> layers = [isa.Section("fc 1", "QLinearMatMul", 0, 1), isa.Section("fc 2", "QLinearMatMul", 1, 2)]
    >>> with_syncs(isa.Program("nop \\n nop", sections=layers)).instructions
    (Nop(), Sync(), Nop())
    """
    pairs = pairwise(program.sections)
    firsts = [after.first for before, after in pairs if layer_of(before) != layer_of(after)]
    return _spread(program, dict.fromkeys(firsts, isa.Sync()))


def _spread(program: isa.Program, before: dict[int, isa.Instruction]) -> isa.Program:
    """Return a program with instructions before others; sections keep what they have."""
    instructions: list[isa.Instruction] = []
    place = []
    for number, instruction in enumerate(program):
        place.append(len(instructions))
        if number in before:
            instructions.append(before[number])
        instructions.append(instruction)
    place.append(len(instructions))
    sections = [replace(s, first=place[s.first], stop=place[s.stop]) for s in program.sections]
    return replace(program, instructions=tuple(instructions), sections=tuple(sections))


def unified_buffer_rows(program: isa.Program) -> int:
    """Return how many rows of the unified buffer a program uses: up to the highest one.

    Examples
    --------
    >>> from systolic import isa
    >>> from systolic.accelerators.programs import unified_buffer_rows
    >>> unified_buffer_rows(isa.Program("read_host u#100, 16"))
    116
    """
    most = 0
    for instruction in program:
        written = None
        if isinstance(instruction, isa.Activate | isa.Vector):
            written = program.function_of(instruction).rows_written(instruction.rows)
        for memory, _, first, rows, _ in isa.row_ranges(instruction, written):
            if memory == "ub":
                most = max(most, first + rows)
    return most
