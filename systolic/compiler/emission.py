"""From steps to instructions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from systolic.compiler.operations import HostOperation, Product, VectorOperation
from systolic.compiler.orders import Costs, shares
from systolic.compiler.products import Axis, Chunk, chunks, collapsed
from systolic.compiler.schedule import Instance, Step
from systolic.compiler.tensors import Storage, View, image_of
from systolic.config import MachineConfig
from systolic.isa import (
    Activate,
    Convolve,
    Function,
    HostCall,
    Instruction,
    MatrixMultiply,
    ReadHost,
    ReadWeights,
    Section,
    SetConfiguration,
    Vector,
    WriteHost,
)  # fmt: skip
from systolic.isa import Window as PoolWindow
from systolic.isa.instructions import unchecked
from systolic.model.archive import encode_layer

Choices = dict[tuple[tuple[int, ...], int, int], int]
"""Arguments of :func:`~systolic.compiler.orders.shares` without the costs, and what it answered."""


class Emission:
    """Collects the instructions, functions and tiles of a program.

    Parameters
    ----------
    machine : MachineConfig
    row_bytes : int
    costs : Costs
    host : dict of Storage to int
        The first row of each tensor in host memory.

    Attributes
    ----------
    shares : Choices
        All that the instructions owe to `costs`, but for its ``half``.
    """

    def __init__(
        self, machine: MachineConfig, row_bytes: int, costs: Costs, host: dict[Storage, int]
    ) -> None:
        self.array, self.row_bytes, self.costs, self.host = machine.array, row_bytes, costs, host
        self.instructions: list[Instruction] = []
        self.functions: list[Function] = [Function()]
        self.sections: list[Section] = []
        self.taken: list[tuple[int, int]] = []  # of each multiply with new weights: its place and its tile
        self.first_tiles: dict[Product, int] = {}  # in weight memory
        self.tile_count = 0
        self.shares: Choices = {}
        self._numbers: dict[Any, int] = {}
        self._operands = (self.array.activation_dtype, self.array.weight_dtype)
        self._half = 0
        self._names = ("", "")
        self._first = self._macs = self._weight_bytes = 0

    # Steps and sections

    def run(self, steps: Sequence[Step]) -> None:
        """Emit all steps."""
        for step in steps:
            self._section(step)
            match step.kind:
                case "load" | "store":
                    self._transfer(step)
                case "host":
                    self._host_call(step.operation)
                case _ if isinstance(step.operation, Product):
                    self._product(step, step.operation)
                case _ if isinstance(step.operation, VectorOperation):
                    self._vector(step, step.operation)
        self._close()

    def _section(self, step: Step) -> None:
        """Open a section for a step, unless it belongs to the one that is open."""
        name, kind = step.operation.name, f"{step.operation.kind} {step.operation.cut}".rstrip()
        if step.spilled:
            name, kind = next(iter((*step.reads, *step.writes))).name, "Spill"
        if (name, kind) != self._names:
            self._close()
            self._names, self._first = (name, kind), len(self.instructions)

    def _close(self) -> None:
        """Close the section that is open."""
        last = len(self.instructions)
        if last > self._first:
            self.sections.append(Section(*self._names, self._first, last, self._macs, self._weight_bytes))
        self._macs = self._weight_bytes = 0

    def _transfer(self, step: Step) -> None:
        """Move units of a tensor between the host and the unified buffer.

        Large tensors move in pieces, so that products begin with the first rows and results leave as they
        come: a piece has at most the rows of a chunk, of one block.
        """
        load = step.kind == "load"
        ((storage, instance),) = (step.writes if load else step.reads).items()
        total, most = storage.block_rows, self.costs.half
        rows, first = _rows(step, instance), total // step.units * step.start
        blocks = storage.blocks
        if rows == total == instance.block_rows and rows * blocks <= most:
            rows, blocks = rows * blocks, 1
        pieces = [(low, min(most, rows - low)) for low in range(0, rows, most)]
        order = [(block, piece) for piece in pieces for block in range(blocks)]
        for block, (low, count) in order if load else sorted(order):
            ub = instance.address + block * instance.block_rows + _offset(step, instance) + low
            host = self.host[storage] + block * total + first + low
            self.instructions.append(ReadHost(host, ub, count) if load else WriteHost(ub, host, count))

    # Functions

    def _function(self, function: Function) -> int:
        """Return the number of a function, in the table once."""
        attributes = repr(sorted(function.attributes.items()))
        arrays = tuple((name, a.dtype.str, a.shape, a.tobytes()) for name, a in function.arrays.items())
        key = function.kind, function.parts, function.outputs, attributes, arrays
        if key not in self._numbers:
            self._numbers[key] = len(self.functions)
            self.functions.append(function)
        return self._numbers[key]

    def _host_call(self, operation: Any) -> None:
        assert isinstance(operation, HostOperation)
        arrays: dict[str, np.ndarray] = {}
        sources: list[dict[str, Any]] = []
        reads, writes = [], []

        def held(array: np.ndarray) -> dict[str, Any]:
            arrays[name := f"array{len(arrays)}"] = array
            return {"array": name}

        for source in operation.sources:
            if isinstance(source, View):
                first = self.host[source.storage]
                is_words = source.storage.form == "words"
                sources.append(source.words(first) if is_words else source.described(first).to_dict())
                if rows := source.storage.rows(self.row_bytes):
                    reads.append((first, rows))
            elif isinstance(source, np.ndarray):
                sources.append(held(source))
            else:
                sources.append({"zeros": list(source.shape), "dtype": source.dtype})
        outputs: list[dict[str, Any] | None] = []
        for output in operation.outputs:
            if output is None:
                outputs.append(None)
                continue
            first = self.host[output.storage]
            outputs.append(output.described(first).to_dict())
            if rows := output.storage.rows(self.row_bytes):
                writes.append((first, rows))
        attributes: dict[str, Any] = {
            "call": operation.call, "kind": operation.kind, "inputs": sources, "outputs": outputs,
            **operation.options,
        }  # fmt: skip
        if operation.layer is not None:
            description, found = encode_layer(operation.layer)
            attributes["layer"] = description
            arrays |= {f"layer{number}": array for number, array in enumerate(found)}
        self.functions.append(
            Function(operation.name, kind="host", attributes=attributes, arrays=arrays)
        )
        self.instructions.append(HostCall(len(self.functions) - 1, tuple(reads), tuple(writes)))

    # The array

    def _product(self, step: Step, op: Product) -> None:
        if op not in self.first_tiles:
            self.first_tiles[op] = self.tile_count
            self.tile_count += sum(len(op.weights.tiles(block)) for block in range(op.weights.blocks))
        if op.operands != self._operands:
            self._operands = op.operands
            self.instructions.append(SetConfiguration(*op.operands))
        x, y = step.reads[op.x.storage], step.writes[op.y.storage]
        self._border(step, y)
        images = op.x.leading * (step.stop - step.start) // step.units
        pieces = chunks(collapsed(product_axes(op, images)), self.costs.half)
        self._macs += op.macs * (step.stop - step.start) // step.units
        first_tile = self.first_tiles[op]
        starts = tap_offsets(op)
        x_first, y_first = x.address + _offset(step, x), y.address + _offset(step, y)
        if any(op.y.storage.sides):
            top, left, _, _ = op.y.storage.sides
            y_first += top * op.y.storage.stored[1] + left
        x_rows, y_rows = x.block_rows, y.block_rows
        for block, function in enumerate(op.functions):
            tiles = op.weights.tiles(block)
            sources = [x_first + source * x_rows + starts[tap] for tap, source in tiles]
            number = self._function(function)
            target = y_first + block * y_rows
            share = self._share(tuple(piece.rows for piece in pieces), len(tiles), len(op.functions))
            together = [pieces[i : i + share] for i in range(0, len(pieces), share)]
            self._weight_bytes += len(together) * op.weights.block_bytes(block)
            for some in together:
                self._folds(some, sources, first_tile)
                for place, piece in enumerate(some):
                    at = target + piece.write * op.y.storage.parts
                    acc = (self._half + place) % 2 * self.costs.half
                    self.instructions.append(Activate(acc, at, piece.rows, number, piece.writes))
                self._half = (self._half + len(some)) % 2
            first_tile += len(tiles)

    def _share(self, rows: tuple[int, ...], tiles: int, blocks: int) -> int:
        """Return how many chunks see a tile during one stay of it, and remember the choice."""
        question = rows, tiles, blocks
        if question not in self.shares:
            self.shares[question] = shares(rows, tiles, blocks, self.costs)
        return self.shares[question]

    def _folds(self, some: list[Chunk], sources: list[int], first_tile: int) -> None:
        instructions, half = self.instructions, self.costs.half
        multiplies: list[MatrixMultiply | Convolve] = []
        for place, piece in enumerate(some):
            acc, axes = (self._half + place) % 2 * half, piece.axes
            if len(axes) == 1 and axes[0].read == 1:
                multiplies.append(MatrixMultiply(sources[0] + piece.read, acc, axes[0].size, not place))
            else:
                multiplies.append(Convolve(sources[0] + piece.read, acc, piece.reads, not place))
        for k, source in enumerate(sources):
            self.taken.append((len(instructions), first_tile + k))
            if not k:
                instructions += multiplies
                continue
            for multiply, piece in zip(multiplies, some, strict=True):
                instructions.append(unchecked(multiply, ub=source + piece.read, accumulate=True))

    # The vector unit

    def _border(self, step: Step, instance: Instance) -> None:
        """Fill the border that a convolution reads, by constant tables."""
        storage = instance.storage
        pieces = border_pieces(storage)
        if not pieces:
            return
        image = math.prod(storage.stored)
        images = storage.others[0] * (step.stop - step.start) // step.units
        first, blocks = instance.address + _offset(step, instance), storage.blocks
        if images * image == instance.block_rows:
            images, blocks = images * blocks, 1
        number = self._function(self._constant(storage))
        for block in range(blocks):
            here = first + block * instance.block_rows
            for start, axes in pieces:
                count = images * math.prod(axis.size for axis in axes)
                pattern = Chunk(0, 0, collapsed((Axis(images, image, image), *axes))).writes
                self.instructions.append(Vector((here,), here + start, count, number, pattern))

    def _constant(self, storage: Storage) -> Function:
        """Return a function that gives the code of a border in each channel."""
        assert storage.fill is not None
        code = np.array(storage.fill, storage.dtype).view(np.uint8)
        return self._lanes("border", [np.full(256, code)], [(0, lane) for lane in range(storage.width)])

    def _lanes(self, name: str, tables: list[np.ndarray], lanes: list[tuple[int, int]]) -> Function:
        source = np.full(self.row_bytes, -1, np.int16)
        lane = np.zeros(self.row_bytes, np.int32)
        for place, (number, channel) in enumerate(lanes):
            source[place], lane[place] = number, channel
        arrays: dict[str, np.ndarray] = {"source": source, "lane": lane, "tables": np.stack(tables)}
        return Function(name, kind="lanes", arrays=arrays)

    def _vector(self, step: Step, op: VectorOperation) -> None:
        y = step.writes[op.output.storage]
        inputs = [step.reads[view.storage] for view in op.inputs]
        if op.window is not None:
            self._pool(step, op, inputs[0], y)
            return
        if op.form == "concat":
            self._concat(step, op, inputs, y)
        else:
            width = op.output.storage.width
            if op.form == "pair":
                arrays = {"table": op.tables[0]}
                function = Function(op.name, kind="pair", arrays=arrays, attributes=op.attributes)
            else:
                function = self._lanes(op.name, list(op.tables), [(0, lane) for lane in range(width)])
            self._by_blocks(step, inputs, y, self._function(function))
        if not border_kept(op):
            self._border(step, y)

    def _by_blocks(self, step: Step, inputs: list[Instance], y: Instance, number: int) -> None:
        """Apply a function to all rows of a step, of all blocks at once if they follow each other."""
        rows, blocks = _rows(step, y), y.storage.blocks
        if all(rows == instance.block_rows for instance in (*inputs, y)):
            rows, blocks = rows * blocks, 1
        for block in range(blocks):
            firsts = tuple(
                each.address + block * each.block_rows + _offset(step, each) for each in inputs
            )
            target = y.address + block * y.block_rows + _offset(step, y)
            self.instructions.append(Vector(firsts, target, rows, number))

    def _concat(self, step: Step, op: VectorOperation, inputs: list[Instance], y: Instance) -> None:
        channels = [
            (number, channel)
            for number, instance in enumerate(inputs)
            for channel in range(instance.storage.channels)
        ]
        width = y.storage.width
        for block in range(y.storage.blocks):
            needed: dict[tuple[int, int], int] = {}
            lanes = []
            for number, channel in channels[block * width : (block + 1) * width]:
                source, lane = divmod(channel, inputs[number].storage.width)
                lanes.append((needed.setdefault((number, source), len(needed)), lane))
            tables = [op.tables[number] for number, _ in needed]
            function = self._function(self._lanes(op.name, tables, lanes))
            firsts = tuple(
                inputs[number].address
                + source * inputs[number].block_rows
                + _offset(step, inputs[number])
                for number, source in needed
            )
            target = y.address + block * y.block_rows + _offset(step, y)
            self.instructions.append(Vector(firsts, target, _rows(step, y), function))

    def _pool(self, step: Step, op: VectorOperation, x: Instance, y: Instance) -> None:
        assert op.window is not None
        self._border(step, y)
        stored, sides = image_of(op.inputs[0])
        images = op.inputs[0].leading * (step.stop - step.start) // step.units
        blocks = x.storage.blocks
        if _rows(step, x) == x.block_rows and _rows(step, y) == y.block_rows:
            images, blocks = images * blocks, 1
        out = op.window.out
        window = PoolWindow(
            batch=images, stored=stored, corner=(sides[0], sides[1]), size=op.window.size,
            kernel=op.window.kernel, stride=op.window.stride, dilation=op.window.dilation,
            before=op.window.before, out=out,
        )  # fmt: skip
        arrays: dict[str, np.ndarray] = {"table": op.tables[0]} if op.tables else {}
        values = {n: list(v) if isinstance(v, tuple) else v for n, v in asdict(window).items()}
        outputs = images * math.prod(out)
        function = Function(
            op.name, kind=op.form, outputs=outputs, arrays=arrays,
            attributes={**values, "dtype": op.inputs[0].dtype},
        )  # fmt: skip
        number = self._function(function)
        (height, width), y_sides = image_of(op.output)
        axes = (
            Axis(images, height * width, height * width), Axis(out[0], width, width), Axis(out[1], 1, 1)
        )
        chunk = Chunk(0, 0, collapsed(axes))
        corner = y_sides[0] * width + y_sides[1]
        for block in range(blocks):
            first = x.address + block * x.block_rows + _offset(step, x)
            target = y.address + block * y.block_rows + _offset(step, y) + corner
            rows = images * math.prod(stored)
            self.instructions.append(Vector((first,), target, rows, number, chunk.writes))

    # Weights

    def tiles(self) -> np.ndarray | None:
        """Return the weight image, (tiles, rows, cols); bytes, if the products' types differ."""
        if not self.first_tiles:
            return None
        types = {product.operands[1] for product in self.first_tiles}
        dtype = types.pop() if len(types) == 1 else "uint8"
        image = np.zeros((self.tile_count, self.array.rows, self.array.cols), dtype)
        for product, number in self.first_tiles.items():
            own = image.view(product.operands[1])
            for block in range(product.weights.blocks):
                for tap, source in product.weights.tiles(block):
                    product.weights.fill(own[number], block, tap, source)
                    number += 1
        return image

    def with_weight_reads(self, ahead: int) -> tuple[list[Instruction], list[Section]]:
        """Return instructions and sections with the ReadWeights that the multiplies need.

        Tiles that follow each other in memory are asked for at once, `ahead` tiles before the first of them
        is needed: asking early costs nothing, since a ReadWeights does not wait for room in the FIFO.
        """
        at: dict[int, list[ReadWeights]] = {}
        taken = self.taken
        start = 0
        for number in range(1, len(taken) + 1):
            if number < len(taken) and taken[number][1] == taken[number - 1][1] + 1:
                continue
            place = taken[start - ahead][0] if start >= ahead else 0
            at.setdefault(place, []).append(ReadWeights(taken[start][1], number - start))
            start = number
        merged: list[Instruction] = []
        moved = np.zeros(len(self.instructions) + 1, np.int64)
        for number, instruction in enumerate(self.instructions):
            moved[number] = len(merged)
            merged += at.get(number, ())
            merged.append(instruction)
        moved[len(self.instructions)] = len(merged)
        sections = [
            Section(s.name, s.kind, int(moved[s.first]), int(moved[s.stop]), s.macs, s.weight_bytes)
            for s in self.sections
        ]
        return merged, sections


def _offset(step: Step, instance: Instance) -> int:
    """Return how far the step's first unit lies from the instance's first row of each block."""
    return instance.storage.block_rows // step.units * step.start - instance.start * instance.unit_rows


def _rows(step: Step, instance: Instance) -> int:
    """Return the rows of one block that a step covers."""
    return instance.storage.block_rows // step.units * (step.stop - step.start)


def border_pieces(storage: Storage) -> list[tuple[int, tuple[Axis, ...]]]:
    """Return the parts of an image's border: the first row of each in an image, and the axes of its rows.

    There are none if no convolution reads the border.
    """
    if storage.fill is None or not any(storage.sides):
        return []
    top, left, bottom, right = storage.sides
    (height, width), line = storage.image, storage.stored[1]
    before, behind = top * line + left, bottom * line + right
    pieces = (
        (0, (Axis(before, 1, 1),)),
        (before + width, (Axis(height - 1, line, line), Axis(left + right, 1, 1))),
        (math.prod(storage.stored) - behind, (Axis(behind, 1, 1),)),
    )
    return [(first, axes) for first, axes in pieces if math.prod(axis.size for axis in axes)]


def border_kept(op: VectorOperation) -> bool:
    """Whether a function of the inputs' borders gives the output's."""
    fills = [view.storage.fill for view in op.inputs]
    output = op.output.storage
    if output.fill is None or not any(output.sides):
        return True
    if None in fills or op.form == "concat":
        return False
    types = [view.dtype for view in op.inputs]
    codes = [int(np.array(f, t).view(np.uint8)) for f, t in zip(fills, types, strict=True)]
    index = codes[0] if op.form == "table" else 256 * codes[0] + codes[1]
    return int(op.tables[0][index]) == int(np.array(output.fill, output.dtype).view(np.uint8))


def tap_offsets(op: Product) -> list[int]:
    """Return the row of the first pixel that each tap sees, counted from the image's first row."""
    if op.is_matrix:
        return [0]
    stored, sides = image_of(op.x)
    columns = op.window.kernel[1]
    return [op.window.offset(divmod(tap, columns), stored, sides) for tap in range(op.weights.taps)]


def product_axes(op: Product, images: int) -> tuple[Axis, ...]:
    """Return the rows that a product reads and writes for so many images, from the first pixels on."""
    y = op.y.storage
    if op.is_matrix:
        rows = math.prod(op.x.storage.others) // op.x.leading * images
        if not any(y.sides):
            return (Axis(rows, 1, 1),)
        (height, width), line = y.image, y.stored[1]
        image = math.prod(y.stored)
        count = rows // (height * width)
        return Axis(count, height * width, image), Axis(height, width, line), Axis(width, 1, 1)
    (height, width), _ = image_of(op.x)
    (down, right), (oh, ow) = op.window.stride, op.window.out
    line, image = ow, oh * ow
    if any(y.sides):
        line, image = y.stored[1], math.prod(y.stored)
    return (
        Axis(images, height * width, image), Axis(oh, down * width, line), Axis(ow, right, 1),
    )  # fmt: skip
