"""Programs of stand-ins, to be timed: no weights, no data."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import groupby, pairwise, product

from systolic import isa
from systolic.accelerators.stand_ins import StandIn, Step
from systolic.config import MachineConfig
from systolic.machine.timeline import transfer_cycles


class _Tensor:
    """Where a tensor lies in the unified buffer: a block of rows for each `width` channels."""

    def __init__(self, channels: int, image: tuple[int, int], border: int, batch: int, width: int) -> None:
        self.border, self.image = border, image
        self.stored = image[0] + 2 * border, image[1] + 2 * border
        self.blocks = -(-channels // width)
        self.block_rows = batch * math.prod(self.stored)
        self.first = 0

    @property
    def rows(self) -> int:
        return self.blocks * self.block_rows

    def block(self, number: int) -> int:
        return self.first + number * self.block_rows

    def pixel(self, block: int, image: int, row: int, col: int) -> int:
        """Return the row of a pixel; -1 is the border above or to the left."""
        place = (image * self.stored[0] + row + self.border) * self.stored[1] + col + self.border
        return self.block(block) + place

    def pattern(self, images: int) -> isa.Pattern:
        """Return the steps through the pixels of so many images."""
        height, width = self.stored
        return (images, height * width), (self.image[0], width), (self.image[1], 1)


class _Buffer:
    """Rows of the unified buffer: the first gap that is large enough."""

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, list[_Tensor]()

    def place(self, tensor: _Tensor, name: str) -> None:
        first = 0
        for other in sorted(self.held, key=lambda each: each.first):
            if first + tensor.rows <= other.first:
                break
            first = other.first + other.rows
        if first + tensor.rows > self.limit:
            raise ValueError(
                f"{name} needs {tensor.rows:,} rows of the unified buffer from row {first:,} on, which has "
                f"{self.limit:,}; take a smaller batch"
            )
        tensor.first = first
        self.held.append(tensor)


def program_of(stand_in: StandIn, machine: MachineConfig) -> isa.Program:
    """Return a stand-in as a program for a machine, without weights.

    Parameters
    ----------
    stand_in : StandIn
    machine : MachineConfig
        With memories.

    Raises
    ------
    ValueError
        If the machine has no memories, or its unified buffer cannot hold the tensors of a layer.

    Notes
    -----
    Blocks of channels lie one after the other. Tiles of weights are used outputs outermost, then groups of
    images that fit half the accumulators, then taps, then blocks of inputs; halves of the accumulators
    alternate. Where two groups are all there is, and a tile takes longer to read than one of them to
    stream, each tile multiplies both before the next one. Borders of images are taken to be zeros that were
    written before.

    Examples
    --------
    >>> from systolic import isa, presets
    >>> from dataclasses import replace
    >>> from systolic.accelerators import stand_in
    >>> from systolic.accelerators.programs import program_of
    >>> machine = replace(presets.TPU_V1, memory=presets.TPU_V1_MEMORY)
    >>> program = program_of(stand_in("MLP0"), machine)
    >>> sum(isinstance(item, isa.MatrixMultiply) for item in program)
    320
    """
    if machine.memory is None:
        raise ValueError("a program needs a machine with memories; pass memory=presets.TPU_V1_MEMORY")
    array, batch = machine.array, stand_in.batch
    width = min(array.rows, array.cols)
    tensors = _tensors(stand_in, width)
    steps = stand_in.steps
    last_use = {tensors[read]: number for number, step in enumerate(steps) for read in step.reads}
    last_use[tensors[-1]] = len(steps)
    buffer = _Buffer(machine.memory.unified_buffer_rows)
    emit = _Emitter(machine, batch)
    buffer.place(tensors[0], "the input")
    for block in range(tensors[0].blocks):
        emit.out.append(isa.ReadHost(emit.host, tensors[0].block(block), tensors[0].block_rows))
        emit.host += tensors[0].block_rows
    sections: list[isa.Section] = []
    for (layer, kind), group in groupby(enumerate(steps), key=lambda each: (each[1].layer, each[1].kind)):
        first = len(emit.out) if sections else 0
        for number, step in group:
            reads, written = [tensors[tensor] for tensor in step.reads], tensors[number + 1]
            buffer.place(written, layer)
            if step.weights:
                emit.multiply(step, reads[0], written)
            else:
                emit.vector(reads, written)
            buffer.held = [tensor for tensor in buffer.held if last_use[tensor] > number]
        sections.append(isa.Section(layer, kind, first, len(emit.out)))
    last = tensors[-1]
    for block in range(last.blocks):
        emit.out.append(isa.WriteHost(last.block(block), emit.host, last.block_rows))
        emit.host += last.block_rows
    functions = isa.Function(), isa.Function("average", outputs=batch)
    return isa.Program(tuple(emit.out), functions, sections=tuple(sections))


def _tensors(stand_in: StandIn, width: int) -> list[_Tensor]:
    """Return the input and each result, with the border that their readers need."""
    border = [0] * (len(stand_in.steps) + 1)
    for step in stand_in.steps:
        for tensor in step.reads:
            border[tensor] = max(border[tensor], step.border)
    first = stand_in.steps[0]
    found = [_Tensor(first.inputs, first.image, border[0], stand_in.batch, width)]
    for step, edge in zip(stand_in.steps, border[1:], strict=True):
        found.append(_Tensor(step.outputs, step.result, edge, stand_in.batch, width))
    return found


class _Emitter:
    """Instructions so far, the next weight tile, the next host row, the half of the accumulators in turn."""

    def __init__(self, machine: MachineConfig, batch: int) -> None:
        array, memory = machine.array, machine.memory
        assert memory is not None
        self.out: list[isa.Instruction] = []
        self.tile = self.host = self.half = 0
        self.batch = batch
        self.half_rows = (array.accumulator_rows or 2**32) // 2
        self.tile_cycles = transfer_cycles(array.rows * array.cols, memory.weight_bytes_per_second, machine)

    def multiply(self, step: Step, read: _Tensor, written: _Tensor) -> None:
        """Emit a fully connected layer or a convolution."""
        most = self.half_rows // step.pixels
        if not most:
            raise ValueError(
                f"{step.layer} has images of {step.pixels:,} pixels, but half the accumulators hold "
                f"{self.half_rows:,} rows"
            )
        groups = -(-self.batch // most)
        edges = [i * self.batch // groups for i in range(groups + 1)]
        of_groups = [(first, stop - first) for first, stop in pairwise(edges)]
        tiles = list(product(range(step.kernel), range(step.kernel), range(read.blocks)))
        # Weights stay for all groups where reading a tile takes longer than streaming one of them.
        stay = groups == 2 and self.tile_cycles > edges[1] * step.pixels
        count = written.blocks * len(tiles) * (1 if stay else groups)
        self.out.append(isa.ReadWeights(self.tile, count))
        self.tile += count
        for block in range(written.blocks):
            for together in [of_groups] if stay else [[group] for group in of_groups]:
                halves = []
                for _ in together:
                    halves.append(self.half * self.half_rows)
                    self.half = 1 - self.half
                for number, tile in enumerate(tiles):
                    for place, (group, acc) in enumerate(zip(together, halves, strict=True)):
                        self._multiply(step, read, tile, group, acc, new=not place, add=number > 0)
                for (first, images), acc in zip(together, halves, strict=True):
                    pattern = written.pattern(images) if step.pixels > 1 else None
                    row = written.pixel(block, first, 0, 0)
                    self.out.append(isa.Activate(acc, row, images * step.pixels, pattern=pattern))

    def _multiply(
        self, step: Step, read: _Tensor, tile: tuple[int, int, int], group: tuple[int, int], acc: int,
        *, new: bool, add: bool,
    ) -> None:  # fmt: skip
        (y, x, of), (first, images) = tile, group
        row = read.pixel(of, first, y - step.border, x - step.border)
        if step.pixels == 1:
            self.out.append(isa.MatrixMultiply(row, acc, images, new, add))
        else:
            self.out.append(isa.Convolve(row, acc, read.pattern(images), new, add))

    def vector(self, reads: list[_Tensor], written: _Tensor) -> None:
        """Emit element-wise work or pooling: the vector unit reads each row once."""
        for block in range(written.blocks):
            inputs = tuple(read.block(block) for read in reads)
            rows = reads[0].block_rows
            function = int(written.block_rows < rows)
            self.out.append(isa.Vector(inputs, written.block(block), rows, function))


def with_operands(program: isa.Program, activation: str, weight: str) -> isa.Program:
    """Return a program whose multiplies take operands of other types: only its times are meant.

    Examples
    --------
    >>> from systolic import isa
    >>> from systolic.accelerators.programs import with_operands
    >>> with_operands(isa.Program("nop"), "int16", "int8").instructions
    (SetConfiguration(activation='int16', weight='int8'), Nop())
    """
    return _spread(program, {0: isa.SetConfiguration(activation, weight)})


def with_syncs(program: isa.Program) -> isa.Program:
    """Return a program in which each layer but the first begins with a Sync.

    Examples
    --------
    >>> from systolic import isa
    >>> from systolic.accelerators.programs import with_syncs
    >>> layers = [isa.Section("a", "fc", 0, 1), isa.Section("b", "fc", 1, 2)]
    >>> with_syncs(isa.Program("nop \\n nop", sections=layers)).instructions
    (Nop(), Sync(), Nop())
    """
    return _spread(program, {section.first: isa.Sync() for section in program.sections[1:]})


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
