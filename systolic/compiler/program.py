"""``compile``: a model as a program of a machine with memories."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from systolic import _check
from systolic.compiler.allocation import Limit
from systolic.compiler.emission import Choices, Emission
from systolic.compiler.lowering import Sizes
from systolic.compiler.operations import HostOperation
from systolic.compiler.orders import Costs, shares
from systolic.compiler.plans import (
    MOST_ADDRESSED,
    Plan,
    check_host,
    held_by_host,
    host_rows,
    lowered,
    symbols_of,
    view_of,
)
from systolic.compiler.schedule import Region, fit
from systolic.compiler.summary import Layout, Summary, check_weight_tiles, operands_code, tile_bytes
from systolic.config import ArrayConfig, MachineConfig, MemoryConfig, given_machine
from systolic.frontend import as_model, costed
from systolic.gemm import Gemm
from systolic.isa import HostTensor, Program
from systolic.layers import ArrayLayer
from systolic.layers.base import Shape
from systolic.machine import time_program
from systolic.machine.timeline import row_bytes, transfer_cycles
from systolic.model import Model
from systolic.model.mappings import MappingArgument, mappings_of
from systolic.presets import TPU_V1
from systolic.stats import Stats
from systolic.workloads import Workload


class NoProgram(ValueError):
    """A model cannot be compiled for any machine with memories; its layers run one by one."""


class RuntimeShape(NoProgram):
    """A model cannot be compiled, since the shape of a tensor depends on runtime values."""


class OtherOperands(NoProgram):
    """A model cannot be compiled, since a product has operands that programs do not take."""


def compile(
    model: Model | Workload | Mapping[str, Gemm] | Sequence[Gemm] | str | os.PathLike[str],
    *,
    machine: MachineConfig | None = None,
    array: ArrayConfig | None = None,
    batch: int = 1,
    mapping: MappingArgument = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    reuse: bool | int = False,
    weights: bool = True,
) -> Program:
    """Compile a model into a program of a machine with memories.

    Parameters
    ----------
    model : Model, Workload, Gemms in a list or by name, or path
        A path, and what has no values, as :func:`~systolic.estimate` takes it. Without values the program
        has no weights, and is timed and not run: products read their rows from the host and write the results
        there, a file of floats counts as if quantized. A Model of floats is computed by the host, unless
        `weights` is false: then it counts as if quantized too.
    machine : MachineConfig, optional
        With a :class:`MemoryConfig`; default the TPU v1 preset.
    array : ArrayConfig, optional
        Refused, as an array alone runs no programs.
    batch : int
        Size of the first axis where the model takes any.
    mapping : {"taps", "im2col", "pack", "best"} or mapping of str to them, optional
        How convolutions run, all of them or each by the name of its node. "taps": one tile for each tap of
        the kernel, its rows read from the image in the unified buffer. "im2col": as a product with patches
        that the host lays out. Several groups share tiles in both; "pack" is "im2col" for convolutions that
        have some. "best": the fastest of three programs, by taps, by im2col and by default. Default: taps,
        but im2col for images that come from the host and have fewer channels than a quarter of the array's
        rows.
    shapes : mapping of str to tuple of int, optional
        Whole shapes of the model's inputs by name, where other sizes are symbolic.
    reuse : bool or int
        Choose a batch for each layer: as many images as let each weight tile see so many rows, by default as
        many as hide its load (US patent 9,842,293: about 1,350 on the TPU v1). False: the whole batch.
    weights : bool
        Whether the program holds the weights; one that is only timed needs none.

    Returns
    -------
    Program
        Its sections name the layers, and what did not fit into the unified buffer: layers "by rows" and "by
        host", and tensors of kind "Spill".

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; if a shape depends on runtime values, naming the node; if a memory is too
        small, naming the layer, the rows that it needs and the rows that there are.

    Notes
    -----
    Products whose weights are constants run on the array; additions, maxima, means, activation functions and
    concatenations of codes on the vector unit; all else on the host, between transfers.

    Examples
    --------
    >>> import systolic
    >>> from systolic import ArrayConfig, MachineConfig, MemoryConfig
    >>> memory = MemoryConfig(
    ...     weight_bytes=2**20, weight_bytes_per_second=10**9, unified_buffer_rows=4096, host_rows=8192,
    ...     host_bytes_per_second=10**9,
    ... )
    >>> machine = MachineConfig(ArrayConfig(32, 32), memory=memory)
    >>> program = systolic.compile(systolic.load_example().model, machine=machine)
    >>> [(s.name, s.kind) for s in program.sections[:2]], list(program.outputs)
    ([('pixels_QuantizeLinear', 'QuantizeLinear'), ('stem_quant', 'QLinearConv')], ['logits'])
    """
    if machine is None or array is not None:
        machine = given_machine(machine, array, TPU_V1)
    memory = _memory(machine)
    given: Any = costed(model, floats=_check.flag(weights, "weights"))
    if isinstance(given, Workload):
        given, batch = as_model(given, batch), 1
    programs = Programs(given, batch=batch, mapping=mapping, shapes=shapes, reuse=reuse)
    return programs.made(machine, memory, weights=weights and not programs.model.note)


class _Known(NamedTuple):
    """A layout, and the rows of unified buffers for which it is the same."""

    least: int
    most: int
    layout: Layout


_MOST_KEPT = 32
"""Plans, programs, layouts, and plans for other sizes that are kept."""

_MOST_REFUSED = 1024


class Programs:
    """Programs of one model for many machines, without weights: what machines share is made once.

    A program depends on sizes and, where a product's rows are cut, on which order of its tiles is cheaper.
    Machines that agree on these run the same program, whatever their bandwidths, latencies and clocks.

    Parameters
    ----------
    model, batch, mapping, shapes, reuse
        As for :func:`compile`.

    Examples
    --------
    >>> from dataclasses import replace
    >>> import systolic
    >>> from systolic.compiler import Programs
    >>> from systolic.presets import TPU_V1
    >>> programs = Programs(systolic.load_example().model)
    >>> faster = replace(TPU_V1, memory=replace(TPU_V1.memory, host_bytes_per_second=10**12))
    >>> programs.of(faster) is programs.of(TPU_V1)
    True
    """

    def __init__(
        self,
        model: Model,
        *,
        batch: int = 1,
        mapping: MappingArgument = None,
        shapes: Mapping[str, Sequence[int]] | None = None,
        reuse: bool | int = False,
    ) -> None:
        if not isinstance(model, Model):
            raise TypeError(
                f"model must be a Model, not {_check.kind(model)}; load_onnx and Model.load read one from a "
                "file"
            )
        self.model, self.mapping = model, mappings_of(model.nodes, mapping)
        self.reuse = reuse if isinstance(reuse, bool) else _check.integer(reuse, "reuse", minimum=1)
        self._shapes = batch, shapes
        self._plans: dict[Any, list[Plan]] = {}
        self._made: dict[Any, list[tuple[Choices, Program]]] = {}
        self._refused: dict[Any, tuple[type[ValueError], str]] = {}
        self._of_layers: dict[Any, Any] = {}
        self._summaries: dict[int, list[Plan]] = {}
        self._layouts: dict[Any, list[_Known]] = {}
        self._alternatives: list[Programs] = []
        best = [output for output, name in self.mapping.items() if name == "best"]
        others = {output: name for output, name in self.mapping.items() if name != "best"}
        for names in ({}, *(dict.fromkeys(best, name) for name in ("taps", "im2col"))) if best else ():
            alternative = Programs(model, batch=batch, shapes=shapes, reuse=reuse)
            alternative.mapping = others | names
            self._alternatives.append(alternative)

    def of(self, machine: MachineConfig) -> Program:
        """Return the program of a machine, equal to ``compile(..., weights=False)``; errors as there."""
        memory = _memory(machine)
        if self._alternatives:
            return self._fastest(machine).of(machine)
        everything = _sizes(machine, memory)
        if everything in self._refused:
            kind, message = self._refused[everything]
            raise kind(message)
        try:
            plan = self._plan(machine, memory)
            costs, key = _costs(machine, memory), (plan, *everything[:-1])
            for choices, program in self._made.get(key, ()):
                if all(shares(*question, costs=costs) == answer for question, answer in choices.items()):
                    return program
            choices, program = self._emitted(machine, memory, plan, weights=False)
        except ValueError as error:
            if len(self._refused) >= _MOST_REFUSED:
                self._refused.clear()
            self._refused[everything] = type(error), str(error)
            raise
        _forget(self._made)
        self._made.setdefault(key, []).append((choices, program))
        return program

    def stats(self, machine: MachineConfig) -> Stats:
        """Return ``time_program(programs.of(machine), machine).stats``; errors as there.

        From a summary of the layers, whose instructions are not made; the rules are those of
        ``systolic.machine.timeline``. A model that does not fit, or whose program has more functions or
        cycles than can be counted, is compiled, which says so.

        Examples
        --------
        >>> import systolic
        >>> from systolic.compiler import Programs
        >>> from systolic.machine import time_program
        >>> from systolic.presets import TPU_V1
        >>> programs = Programs(systolic.load_example().model)
        >>> programs.stats(TPU_V1) == time_program(programs.of(TPU_V1), TPU_V1).stats
        True
        """
        memory = _memory(machine)
        if self._alternatives:
            return min((stats for stats, _ in self._of_alternatives(machine)), key=lambda each: each.cycles)
        stats = None
        if _sizes(machine, memory) not in self._refused:
            layout = self._layout(machine, memory)
            stats = None if layout is None else layout.stats(machine, memory)
        return time_program(self.of(machine), machine).stats if stats is None else stats

    def _layout(self, machine: MachineConfig, memory: MemoryConfig) -> Layout | None:
        """Return the layout of a machine; None if it has no program, or might have none."""
        array, size, half = machine.array, row_bytes(machine, memory), _half(machine)
        if size < max(array.rows, array.cols) or half < 1:
            return None
        seen, operands = self._seen(machine, memory), (array.activation_dtype, array.weight_dtype)
        limit = min(memory.unified_buffer_rows, MOST_ADDRESSED["ub"])
        key = array.rows, array.cols, size, half, operands, seen
        found = next((k.layout for k in self._layouts.get(key, ()) if k.least <= limit <= k.most), None)
        if found is None:
            sizes = Sizes(array.rows, array.cols, size)
            known = self._known_layout(machine, memory, sizes, limit, seen)
            if known is None:
                return None
            summary, addresses, least, most = known
            found = summary.layout(sizes, half, operands_code(*operands), addresses)
            _forget(self._layouts)
            self._layouts.setdefault(key, []).append(_Known(least, most, found))
        return found if found.host_rows <= min(memory.host_rows, MOST_ADDRESSED["host"]) else None

    def _known_layout(
        self, machine: MachineConfig, memory: MemoryConfig, sizes: Sizes, limit: int, seen: int
    ) -> tuple[Summary, list[int], int, int] | None:
        """Return a summary for a machine, addresses, and the unified buffers for which they are the same."""
        for known in self._summaries.get(seen, ()):
            if sizes.rows in known.array_rows:
                asked = Limit(limit)
                addresses, height = known.summary.addresses(sizes, asked)
                if asked.holds(height):
                    return known.summary, addresses, asked.least, asked.most
        try:
            plan = self._plan(machine, memory)
        except ValueError:
            return None
        if plan.array_rows:
            _forget(self._summaries)
            self._summaries.setdefault(seen, []).append(plan)
        return plan.summary, plan.addresses, plan.least, plan.most

    def made(self, machine: MachineConfig, memory: MemoryConfig, *, weights: bool) -> Program:
        """Return the program of a machine, which is not kept."""
        if self._alternatives:
            return self._fastest(machine).made(machine, memory, weights=weights)
        return self._emitted(machine, memory, self._plan(machine, memory), weights=weights)[1]

    def _fastest(self, machine: MachineConfig) -> Programs:
        """Return the alternative whose program takes the fewest cycles on a machine."""
        return min(self._of_alternatives(machine), key=lambda pair: pair[0].cycles)[1]

    def _of_alternatives(self, machine: MachineConfig) -> list[tuple[Stats, Programs]]:
        """Return the counts of each alternative that a machine can run; raise if it can run none."""
        found: list[tuple[Stats, Programs]] = []
        for alternative in self._alternatives:
            try:
                found.append((alternative.stats(machine), alternative))
            except ValueError:
                if not found and alternative is self._alternatives[-1]:
                    raise
        return found

    @cached_property
    def _known(self) -> dict[str, tuple[Shape, str]]:
        batch, shapes = self._shapes
        return _static(self.model, self.model.input_shapes(batch, shapes=shapes))

    def _seen(self, machine: MachineConfig, memory: MemoryConfig) -> int:
        """Return how many rows a tile should see."""
        return _tile_load(machine, memory) if self.reuse is True else int(self.reuse)

    def _plan(self, machine: MachineConfig, memory: MemoryConfig) -> Plan:
        array, size, seen = machine.array, row_bytes(machine, memory), self._seen(machine, memory)
        key = array.rows, array.cols, size, memory.host_rows, seen
        limit = min(memory.unified_buffer_rows, MOST_ADDRESSED["ub"])
        for known in self._plans.get(key, ()):
            if known.least <= limit <= known.most:
                return known
        made = self._planned(machine, memory, seen, Limit(limit))
        _forget(self._plans)
        self._plans.setdefault(key, []).append(made)
        return made

    def _planned(self, machine: MachineConfig, memory: MemoryConfig, seen: int, limit: Limit) -> Plan:
        model, array, size = self.model, machine.array, row_bytes(machine, memory)
        if size < max(array.rows, array.cols):
            raise ValueError(
                f"programs of models need rows of at least {max(array.rows, array.cols)} bytes, those of the "
                f"larger side of the array, not row_bytes={size}; row_bytes=None makes them as long as that"
            )
        for name in (*model.inputs, *model.outputs):
            # First, as those of the host's layers: the number of instructions grows with these sizes.
            shape, dtype = self._known[name]
            rows = -(-math.prod(shape) * np.dtype(dtype).itemsize // size)
            check_host(f"the tensor {name!r} takes at least", rows, memory.host_rows)
        sizes = Sizes(array.rows, array.cols, size)
        lowering, parts = lowered(model, self._known, sizes, self.mapping, seen, limit, self._of_layers)
        for each in lowering.operations:
            if isinstance(each, HostOperation):
                held = {view.storage for view in (*each.reads, *each.writes)}
                rows = sum(storage.rows(size) for storage in held)
                check_host(f"the tensors of layer {each.name!r} take", rows, memory.host_rows)
        views = {name: view_of(lowering, name) for name in (*model.inputs, *model.outputs)}
        kept = {views[name].storage for name in model.outputs}
        groups = [list(part.groups) for part in parts if isinstance(part, Region)]
        steps = fit(parts, kept, limit)
        spans = held_by_host(steps, views, model)
        host = host_rows(spans, size, min(memory.host_rows, MOST_ADDRESSED["host"]))
        is_cut = bool(lowering.cut) or groups != [part.groups for part in parts if isinstance(part, Region)]
        is_cut = is_cut or any(step.spilled for step in steps)
        alike = range(0) if is_cut else lowering.array_rows
        return Plan(steps, views, spans, host, limit.least, limit.most, alike)

    def _emitted(
        self, machine: MachineConfig, memory: MemoryConfig, plan: Plan, *, weights: bool
    ) -> tuple[Choices, Program]:
        """Return a program, and the choices that its instructions owe to the machine's costs."""
        size, model = row_bytes(machine, memory), self.model
        emission = Emission(machine, size, _costs(machine, memory), plan.host)
        emission.run(plan.steps)
        check_weight_tiles(emission.tile_count, machine, memory)
        instructions, sections = emission.with_weight_reads(memory.fifo_tiles + 2)
        image = emission.tiles() if weights else None

        def described(names: Sequence[str]) -> dict[str, HostTensor]:
            return {name: plan.views[name].described(plan.host[plan.views[name].storage]) for name in names}

        return emission.shares, Program(
            tuple(instructions), tuple(emission.functions), image, symbols_of(plan.steps, plan.host, size),
            inputs=described(tuple(model.inputs)), outputs=described(model.outputs), sections=tuple(sections),
        )  # fmt: skip


def _tile_load(machine: MachineConfig, memory: MemoryConfig) -> int:
    return transfer_cycles(tile_bytes(machine), memory.weight_bytes_per_second, machine)


def _sizes(machine: MachineConfig, memory: MemoryConfig) -> tuple[Any, ...]:
    """Return everything that a program depends on but costs; the unified buffer's rows last."""
    array = machine.array
    return (
        array.rows, array.cols, array.activation_dtype, array.weight_dtype, array.accumulator_rows,
        row_bytes(machine, memory), memory.host_rows, memory.weight_bytes, memory.fifo_tiles,
        memory.unified_buffer_rows,
    )  # fmt: skip


def _forget(kept: dict[Any, list[Any]]) -> None:
    """Make room for one more in lists."""
    while sum(map(len, kept.values())) >= _MOST_KEPT:
        del kept[next(iter(kept))]


def _half(machine: MachineConfig) -> int:
    """Return the rows of half the accumulators."""
    most = MOST_ADDRESSED["acc"]
    return min(machine.array.accumulator_rows or most, most) // 2


def _costs(machine: MachineConfig, memory: MemoryConfig) -> Costs:
    array = machine.array
    return Costs(
        rows=array.rows, cols=array.cols, double_buffered=array.double_buffered,
        half=_half(machine), load=_tile_load(machine, memory),
        latency=memory.weight_latency_cycles, fifo=memory.fifo_tiles,
        passes=-(-array.cols // (memory.lanes or array.cols)), after=memory.activation_latency_cycles,
    )  # fmt: skip


def _memory(machine: object) -> MemoryConfig:
    if isinstance(machine, ArrayConfig):
        machine = MachineConfig(machine)
    if not isinstance(machine, MachineConfig):
        raise TypeError(f"machine must be a MachineConfig with memories, not {_check.kind(machine)}")
    if machine.memory is None:
        raise ValueError(
            "a program needs a machine with memories: MachineConfig(..., memory=MemoryConfig(...))"
        )
    return machine.memory


def _static(model: Model, shapes: Mapping[str, Shape]) -> dict[str, tuple[Shape, str]]:
    """Return shape and type of each tensor; raise if one depends on runtime values."""
    found: dict[str, tuple[Shape, str]] = {}
    known = model.infer_shapes(shapes)
    for node in model.nodes:
        if isinstance(node.layer, ArrayLayer):
            types = node.layer.operand_types(*(known[name][1] for name in node.inputs))
            if not set(types) <= set(_check.OPERAND_DTYPES):
                raise OtherOperands(
                    f"cannot compile node {node.name!r} ({node.layer.kind}): its product is of "
                    f"{' x '.join(types)}, and programs take int8 and uint8; run the model on a machine "
                    "without memories"
                )
    for name, (shape, dtype) in known.items():
        if shape is None:
            writer = next(node for node in model.nodes if name in node.outputs)
            raise RuntimeShape(
                f"cannot compile node {writer.name!r} ({writer.layer.kind}): the shape of its output "
                f"{name!r} depends on runtime values; run the model on a machine without memories, or "
                "replace the node by one of fixed shape"
            )
        found[name] = shape, dtype
    return found
