"""Programs of stand-ins by a scheduler that shares nothing with the compiler: tiles, groups, one chain."""

from __future__ import annotations

import math
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
        self.limit = limit
        self.held: list[_Tensor] = []

    def place(self, tensor: _Tensor) -> None:
        first = 0
        for other in sorted(self.held, key=lambda each: each.first):
            if first + tensor.rows <= other.first:
                break
            first = other.first + other.rows
        assert first + tensor.rows <= self.limit
        tensor.first = first
        self.held.append(tensor)


def program_of(stand_in: StandIn, machine: MachineConfig) -> isa.Program:
    """Return a stand-in as a program for a machine, without weights.

    Notes
    -----
    Blocks of channels lie one after the other. Tiles of weights are used outputs outermost, then groups of
    images that fit half the accumulators, then taps, then blocks of inputs; halves of the accumulators
    alternate. Where two groups are all there is, and a tile takes longer to read than one of them to
    stream, each tile multiplies both before the next one. Borders of images are taken to be zeros that were
    written before.
    """
    assert machine.memory is not None
    array, batch = machine.array, stand_in.batch
    width = min(array.rows, array.cols)
    tensors = _tensors(stand_in, width)
    steps = stand_in.steps
    last_use = {tensors[read]: number for number, step in enumerate(steps) for read in step.reads}
    last_use[tensors[-1]] = len(steps)
    buffer = _Buffer(machine.memory.unified_buffer_rows)
    emit = _Emitter(machine, batch)
    buffer.place(tensors[0])
    for block in range(tensors[0].blocks):
        emit.out.append(isa.ReadHost(emit.host, tensors[0].block(block), tensors[0].block_rows))
        emit.host += tensors[0].block_rows
    sections: list[isa.Section] = []
    for (layer, kind), group in groupby(enumerate(steps), key=lambda each: (each[1].layer, each[1].kind)):
        first = len(emit.out) if sections else 0
        for number, step in group:
            reads, written = [tensors[tensor] for tensor in step.reads], tensors[number + 1]
            buffer.place(written)
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

