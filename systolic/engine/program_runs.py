"""Programs on a machine with memories: compiled models, run and counted."""

from __future__ import annotations

import operator
import threading
import warnings
import weakref
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from systolic import _check
from systolic.compiler import NoProgram, RuntimeShape, compile
from systolic.compiler.operations import BY_HOST, BY_ROWS
from systolic.config import MachineConfig
from systolic.engine.host_calls import HostCallable, RunLayer, host_calls
from systolic.engine.layer_run import LayerRun
from systolic.engine.results import Run
from systolic.gemm import Progress
from systolic.isa import Program
from systolic.layers import ArrayLayer, Layer
from systolic.layers.base import Shape
from systolic.machine import run_program
from systolic.machine.layer_times import LayerTime
from systolic.machine.timeline import row_bytes
from systolic.model import Model
from systolic.model.inference import Tensor, array_of, products_of
from systolic.model.mappings import MappingArgument
from systolic.model.node import parameters
from systolic.model.placement import placements
from systolic.stats import Stats
from systolic.tiling import estimate_gemm

_KEPT = 4
"""Compiled models that are kept."""


@dataclass(frozen=True, eq=False)
class _Compiled:
    """A program and what it was compiled from; of another model or other parts of it, it is not taken."""

    model: weakref.ref[Model]
    parts: tuple[Any, ...]
    program: Program

    def made_of(self, parts: tuple[Any, ...]) -> bool:
        """Whether a model still has these very parts."""
        return len(self.parts) == len(parts) and all(map(operator.is_, self.parts, parts))


_compiled: OrderedDict[tuple[Any, ...], _Compiled] = OrderedDict()
_lock = threading.Lock()


def compiled(
    model: Model, shapes: Mapping[str, Shape], machine: MachineConfig, mapping: MappingArgument = None
) -> Program | None:
    """Return a model's program for inputs of these shapes; the last few are kept.

    None if a shape depends on runtime values, or a product has operands of other types than programs take;
    with a warning if some layer uses the array.
    """
    names = tuple(sorted(mapping.items())) if isinstance(mapping, Mapping) else mapping
    key = id(model), tuple(sorted(shapes.items())), machine, names
    parts = (model.nodes, model.outputs, *model.constants.values(), *model.inputs.values())
    with _lock:
        found = _compiled.get(key)
        if found is not None and found.model() is model and found.made_of(parts):
            _compiled.move_to_end(key)
            return found.program
    try:
        program = compile(model, machine=machine, mapping=mapping, shapes=shapes)
    except NoProgram as error:
        warn_of(error, model, stacklevel=5)
        return None
    with _lock:
        _compiled[key] = _Compiled(weakref.ref(model), parts, program)
        while len(_compiled) > _KEPT:
            _compiled.popitem(last=False)
    return program


class LayerByLayerWarning(UserWarning):
    """A model runs layer by layer on a machine with memories, as it cannot be compiled."""


class RuntimeShapeWarning(LayerByLayerWarning):
    """It cannot be compiled, as a shape depends on runtime values."""


def warn_of(error: NoProgram, model: Model, stacklevel: int) -> None:
    """Warn that a model is no program, and that its layers run one by one, if some use the array."""
    if not any(isinstance(node.layer, ArrayLayer) for node in model.nodes):
        return
    warnings.warn(
        f"{error}. Its layers now use the array alone, one after the other: operands are always on time, and "
        "there is no timeline; machine=machine.array, or --ideal in the shell, says so without this warning.",
        RuntimeShapeWarning if isinstance(error, RuntimeShape) else LayerByLayerWarning,
        stacklevel=stacklevel,
    )


def run_compiled(
    program: Program,
    inputs: Any,
    machine: MachineConfig,
    mode: str,
    workers: int,
    report: Progress | None,
    run: RunLayer,
    model: tuple[Model, Mapping[str, Tensor]] | None = None,
) -> Run:
    """Run a program, and return what each of its layers cost.

    Parameters
    ----------
    program : Program
    inputs : ndarray or mapping of str to ndarray
    machine : MachineConfig
    mode : {"cycle", "wavefront"}
    workers : int
        Threads.
    report : callable, optional
    run : callable
        Runs a layer on the host.
    model : (Model, mapping), optional
        That the program was compiled from, with shape and type of each tensor.
    """
    _check.choice(mode, "mode", ("cycle", "wavefront"))
    if machine.memory is None:
        raise ValueError(
            "a program needs a machine with memories: MachineConfig(..., memory=MemoryConfig(...))"
        )
    if not isinstance(inputs, Mapping):
        names = ", ".join(map(repr, program.inputs))
        if len(program.inputs) != 1:
            raise ValueError(
                f"the program has {len(program.inputs)} inputs ({names}); pass a mapping from names to arrays"
            )
        inputs = {next(iter(program.inputs)): inputs}
    layers_of = {} if model is None else _layers_by_name(model[0])
    calls = _calls(program, row_bytes(machine, machine.memory), run, layers_of)
    done = run_program(
        program, machine, inputs, mode=mode, threads=workers, report=report, calls=calls
    )  # fmt: skip
    layers = done.timeline.layers() if len(program) else ()
    rows = _rows(program, layers) if model is None else _rows_of(layers, machine, *model)
    return Run(done.outputs, rows, machine, mode, None, done.timeline)


_hosted: OrderedDict[int, tuple[weakref.ref[Program], int, dict[int, HostCallable]]] = OrderedDict()


def _layers_by_name(model: Model) -> dict[str, Layer]:
    """Return a model's layers by the names of their nodes, where a name has one."""
    names = Counter(node.name for node in model.nodes)
    return {node.name: node.layer for node in model.nodes if names[node.name] == 1}


def _calls(
    program: Program, size: int, run: RunLayer, layers: Mapping[str, Layer]
) -> Mapping[int, HostCallable]:
    """Return a program's host functions.

    Their layers are those of the model, if it is known: they may be of a user's class, and keep what they
    computed of constants. Otherwise they are decoded once.
    """
    with _lock:
        found = _hosted.get(id(program))
    if found is None or found[0]() is not program or found[1] != size:
        found = weakref.ref(program), size, host_calls(program, size, run)
        with _lock:
            _hosted[id(program)] = found
            while len(_hosted) > _KEPT:
                _hosted.popitem(last=False)
    return {n: call.with_run(run, layers.get(call.function.name)) for n, call in found[2].items()}


def _rows(program: Program, layers: Sequence[LayerTime]) -> tuple[LayerRun, ...]:
    """Return a row for each section."""
    return tuple(
        LayerRun(layer.name, layer.kind, (), "", None, layer.stats, 0.0, limit=layer.limit)
        for layer in layers
    )


def _rows_of(
    layers: Sequence[LayerTime], machine: MachineConfig, model: Model, known: Mapping[str, Tensor]
) -> tuple[LayerRun, ...]:
    """Return a row for each node, and one for each other section: what was spilled."""
    sections: dict[tuple[str, str], list[LayerTime]] = {}
    for layer in layers:
        sections.setdefault((layer.name, layer.kind), []).append(layer)
    rows = []
    hosted = []
    for node in model.nodes:
        kinds = [f"{node.layer.kind} {cut}".rstrip() for cut in ("", BY_ROWS, BY_HOST)]
        kind = next((kind for kind in kinds if (node.name, kind) in sections), node.layer.kind)
        own = sections.pop((node.name, kind), [])
        gemms = products_of(node, known) or ()
        shape, dtype = known[node.output]
        assert shape is not None
        rows.append(
            LayerRun(
                node.name, kind, shape, dtype, gemms[0] if gemms else None, _total(own), 0.0,
                *parameters(node, model.constants),
                sum(_bytes(known[name]) for name in {*node.inputs} - model.constants.keys()),
                sum(_bytes(known[name]) for name in filter(None, node.outputs)),
                products=len(gemms),
                array_cycles=sum(estimate_gemm(gemm, machine.array).cycles for gemm in gemms),
                limit=_limit(own),
                array=array_of(node, known, machine.array) if gemms else None,
            )
        )  # fmt: skip
        if not rows[-1].stats.macs and any(gemm.macs for gemm in gemms):
            hosted.append(node.name)
    places = placements(model.nodes, known, hosted)
    rows = [replace(row, off_array=place) for row, place in zip(rows, places, strict=True)]
    for (name, kind), own in sections.items():
        rows.append(LayerRun(name, kind, (), "", None, _total(own), 0.0, limit=_limit(own)))
    return tuple(rows)


def _total(layers: Sequence[LayerTime]) -> Stats:
    return sum((layer.stats for layer in layers), Stats())


def _limit(layers: Sequence[LayerTime]) -> str:
    """Return what limits a layer's sections together."""
    return LayerTime("", "", _total(layers)).limit


def _bytes(tensor: Tensor) -> int:
    shape, dtype = tensor
    return 0 if shape is None else int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
