"""A program as a summary of its layers, from which it is timed without making its instructions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from systolic import _summary
from systolic.compiler.allocation import Lifetime, Limit, plan
from systolic.compiler.emission import border_kept, border_pieces, product_axes, tap_offsets
from systolic.compiler.lowering import Sizes
from systolic.compiler.operations import HostOperation, Product, VectorOperation
from systolic.compiler.products import Axis, collapsed
from systolic.compiler.schedule import Instance, Step, lifetimes
from systolic.compiler.tensors import CODES, Storage, image_of
from systolic.config import MachineConfig, MemoryConfig
from systolic.machine.layer_times import time_stats
from systolic.machine.spans import CAUSES
from systolic.machine.timeline import row_bytes, transfer_cycles
from systolic.stats import Stats

_FORMS = ("plain", "blocks", "words")
_MOST_CYCLES = 2**62
_MOST = {"functions": 2**16 - 1, "inputs": 255, "tiles": 2**32 - 1}
"""What fields of instructions hold."""


class Summary:
    """The steps of a program without the sizes of a machine.

    Of one plan it holds for its machine. If nothing was cut, and no layer was mapped otherwise, the same
    steps are those of machines of all other sizes into whose memories all tensors fit.

    Parameters
    ----------
    steps : sequence of Step
    held : mapping of Storage to (int, int)
        The first and the last step at which host memory holds each tensor.

    Attributes
    ----------
    instances : tuple of Instance
        Those that addresses are for, in their order.
    macs : int
        Useful multiply-accumulates.
    """

    def __init__(self, steps: Sequence[Step], held: Mapping[Storage, tuple[int, int]]) -> None:
        self.macs = 0
        self._numbers: dict[Storage, int] = {}
        self._products: dict[Product, int] = {}
        spans = lifetimes(steps)
        self.instances, self._spans = tuple(spans), list(spans.values())
        self._of = {instance: number for number, instance in enumerate(spans)}
        self._values: list[int] = []
        for step in steps:
            self._add(step)
        self._host = [(self._number(storage), *span) for storage, span in held.items()]
        self._steps = np.array(self._values, np.int64)
        tensors = list(self._numbers)
        self._form = np.array([_FORMS.index(storage.form) for storage in tensors], np.int64)
        of_machine = [storage.form != "plain" for storage in tensors]
        self._channels = np.array(
            [s.channels if known else 1 for s, known in zip(tensors, of_machine, strict=True)], np.int64
        )
        self._pixels = np.array(
            [s.block_rows // s.parts if known else 0 for s, known in zip(tensors, of_machine, strict=True)],
            np.int64,
        )
        self._bytes = [math.prod(s.shape) * np.dtype(s.dtype).itemsize for s in tensors]
        self._instances = [
            np.array(column, np.int64)
            for column in zip(
                *((self._numbers[i.storage], i.start, i.stop, i.units) for i in spans), strict=True
            )
        ] or [np.zeros(0, np.int64)] * 4

    def _number(self, storage: Storage) -> int:
        return self._numbers.setdefault(storage, len(self._numbers))

    def _instance(self, instance: Instance) -> int:
        self._number(instance.storage)
        return self._of[instance]

    def _put(self, kind: str, *values: int) -> None:
        self._values += (_summary.KINDS[kind], *values)

    def _add(self, step: Step) -> None:
        """Describe a step, in the order in which :class:`Emission` makes its instructions."""
        operation = step.operation
        if step.kind in ("load", "store"):
            ((_, instance),) = (step.writes if step.kind == "load" else step.reads).items()
            self._put(step.kind, self._instance(instance), step.start, step.stop, step.units)
        elif isinstance(operation, HostOperation):
            listed: list[int] = []
            for views in (operation.reads, operation.writes):
                listed += (len(views), *(self._number(view.storage) for view in views))
            self._put("host", *listed)
        elif isinstance(operation, Product):
            self._product(step, operation)
        else:
            self._vector(step, operation)

    def _product(self, step: Step, op: Product) -> None:
        x, y = step.reads[op.x.storage], step.writes[op.y.storage]
        self._put("operands", operands_code(*op.operands))
        self._border(step, y)
        self.macs += op.macs * (step.stop - step.start) // step.units
        axes = collapsed(product_axes(op, op.x.leading * (step.stop - step.start) // step.units))
        top, left, *_ = op.y.storage.sides
        corner = top * op.y.storage.stored[1] + left if any(op.y.storage.sides) else 0
        w = op.weights
        self._put(
            "product", self._instance(x), self._instance(y), step.start, step.units, corner,
            self._products.setdefault(op, len(self._products)), w.groups, w.channels, w.n, w.taps,
            len(axes), *(number for axis in axes for number in axis), *tap_offsets(op),
        )  # fmt: skip

    def _vector(self, step: Step, op: VectorOperation) -> None:
        y, span = step.writes[op.output.storage], (step.start, step.stop, step.units)
        inputs = [step.reads[view.storage] for view in op.inputs]
        if op.window is None:
            kind = "concat" if op.form == "concat" else "rows"
            self._put(kind, self._instance(y), *span, len(inputs), *map(self._instance, inputs))
            if not border_kept(op):
                self._border(step, y)
            return
        self._border(step, y)
        images = op.inputs[0].leading * (step.stop - step.start) // step.units
        (height, width), (top, left, *_) = image_of(op.output)
        out = op.window.out
        self._put(
            "pool", self._instance(inputs[0]), self._instance(y), *span, images,
            math.prod(image_of(op.inputs[0])[0]), math.prod(out), height * width,
            (out[0] - 1) * width + out[1], top * width + left,
        )  # fmt: skip

    def _border(self, step: Step, instance: Instance) -> None:
        storage = instance.storage
        pieces = border_pieces(storage)
        if not pieces:
            return
        images = storage.others[0] * (step.stop - step.start) // step.units
        listed = [
            number for first, axes in pieces
            for number in (first, math.prod(axis.size for axis in axes), _span(axes))
        ]  # fmt: skip
        image = math.prod(storage.stored)
        self._put(
            "border", self._instance(instance), step.start, step.units, images, image, len(pieces), *listed
        )

    def tensors(self, sizes: Sizes) -> tuple[np.ndarray, ...]:
        """Return of each tensor blocks, rows of a block, channels of a block, channels, rows of a result."""
        width = np.array([1, sizes.width, sizes.cols])[self._form]
        parts = np.array([1, 1, sizes.parts])[self._form]
        return -(-self._channels // width), self._pixels * parts, width, self._channels, parts

    def addresses(self, sizes: Sizes, limit: Limit) -> tuple[list[int], int]:
        """Return the first row of each instance in a unified buffer of so many rows, and the rows taken."""
        blocks, block_rows, *_ = self.tensors(sizes)
        storage, start, stop, units = self._instances
        rows = blocks[storage] * (stop - start) * (block_rows[storage] // units)
        spans = zip(rows.tolist(), self._spans, strict=True)
        return plan([Lifetime(count, start, stop) for count, (_, start, stop) in spans], limit)

    def layout(
        self, sizes: Sizes, half: int, operands: int, addresses: Sequence[int]
    ) -> Layout:
        """Return the program of a machine, to be timed; instances have these addresses."""
        blocks, block_rows, *others = self.tensors(sizes)
        plain = [-(-size // sizes.row_bytes) for size in self._bytes]
        rows = np.where(self._form == 0, plain, blocks * block_rows)
        first = np.zeros(len(rows), np.int64)
        numbers = [number for number, *_ in self._host]
        first[numbers], height = plan([Lifetime(int(rows[number]), *span) for number, *span in self._host])
        expanded = _summary.expand(
            self._steps, (blocks, block_rows, *others, first, rows),
            (*self._instances, np.array(addresses, np.int64)), half, operands, len(self._products),
        )  # fmt: skip
        return Layout(self.macs, height, *expanded)


class Layout:
    """A summary on arrays and memories of given sizes, whatever their speeds.

    Parameters
    ----------
    macs : int
    host_rows : int
        Rows of host memory that it takes.
    work, ub, host, moved, counts
        As :func:`_summary.expand` returns them.
    """

    def __init__(
        self, macs: int, host_rows: int, work: np.ndarray, ub: np.ndarray, host: np.ndarray,
        moved: np.ndarray, counts: dict[str, int],
    ) -> None:  # fmt: skip
        self.macs, self.host_rows, self.counts, self._work = macs, host_rows, counts, work
        self._ub, self._host = _segments(ub), _segments(host)
        self._moved, self._where = np.unique(moved, return_inverse=True)

    def stats(self, machine: MachineConfig, memory: MemoryConfig) -> Stats | None:
        """Return what ``time_program(program, machine).stats`` is; None if it is to be asked.

        That is where it has more functions, inputs or tiles than instructions can number, or might take more
        cycles than are counted.

        Raises
        ------
        ValueError
            If the weight memory is too small.
        """
        array, counts, size = machine.array, self.counts, row_bytes(machine, memory)
        numbers = array.format
        tile = tile_bytes(machine)
        if any(counts[name] > most for name, most in _MOST.items()):
            return None
        check_weight_tiles(counts["tiles"], machine, memory)
        rate = memory.host_bytes_per_second
        cycles = [transfer_cycles(rows * size, rate, machine) for rows in self._moved.tolist()]
        load = transfer_cycles(tile, memory.weight_bytes_per_second, machine)
        passes = -(-array.cols // (memory.lanes or array.cols))
        longest = max(counts["longest"] * max(*memory.width_factors, passes), *cycles, 0)
        longest += memory.issue_cycles + memory.host_latency_cycles + memory.activation_latency_cycles
        multiplies = counts["multiplies"]
        bound = (counts["instructions"] + multiplies) * (longest + 3 * (array.rows + array.cols))
        if bound + multiplies * (load + memory.weight_latency_cycles) > _MOST_CYCLES:
            return None
        total, *by_cause, folds, weight_bytes = _summary.times(
            self._work, *self._ub, *self._host, np.array(cycles, np.int64)[self._where], counts, array.rows,
            array.cols, array.double_buffered, memory.width_factors[0], load, memory.weight_latency_cycles,
            min(memory.fifo_tiles, multiplies + 1), min(memory.fifo_tiles, multiplies) + 2,
            memory.host_latency_cycles, memory.activation_latency_cycles, memory.issue_cycles, passes,
        )  # fmt: skip
        streamed, drained = counts["streamed"], counts["drained"]
        moved, combined = counts["moved"], counts["combined"]
        return time_stats(total, dict(zip(CAUSES, by_cause, strict=True)), array) + Stats(
            macs=self.macs,
            folds=folds,
            weight_bytes=weight_bytes,
            activation_bytes=streamed * array.rows * numbers.activation_bytes,
            output_bytes=drained * array.cols * numbers.sum_bytes,
            partial_sums=streamed * array.cols,
            accumulator_bytes=(streamed + counts["added"] + drained) * array.cols * numbers.sum_bytes,
            unified_buffer_bytes=streamed * array.rows * numbers.activation_bytes
            + (moved + combined + counts["written"]) * size,
            # Each tile that is asked for is used: it goes into the FIFO, and from there into the array.
            weight_fifo_bytes=2 * folds * tile,
            weight_memory_bytes=folds * tile,
            host_bytes=moved * size,
            vector_operations=(drained + combined) * array.cols,
        )


def tile_bytes(machine: MachineConfig) -> int:
    """Return the bytes of a weight tile."""
    return machine.array.rows * machine.array.cols * machine.array.format.weight_bytes


def check_weight_tiles(count: int, machine: MachineConfig, memory: MemoryConfig) -> None:
    """Raise if the weight memory does not hold so many tiles."""
    if count > (most := memory.weight_bytes // tile_bytes(machine)):
        raise ValueError(
            f"the model has {count:,} weight tiles, and the weight memory holds {most:,}; "
            "use a machine with a larger weight memory"
        )


def operands_code(activation: str, weight: str) -> int:
    """Return the number of a product's types."""
    return 2 * CODES.index(activation) + CODES.index(weight)


def _span(axes: Sequence[Axis]) -> int:
    """Return the rows up to the last one."""
    return 1 + sum((axis.size - 1) * axis.write for axis in axes)


def _segments(ranges: np.ndarray) -> tuple[np.ndarray, int]:
    """Return ranges of rows in segments: the memory is cut wherever one begins or ends; and how many."""
    edges = np.unique(ranges)
    return np.searchsorted(edges, ranges), len(edges)
