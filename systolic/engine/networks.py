"""``run``: whole models on a machine."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np

from systolic import _check
from systolic._hints import nearest
from systolic._memory import SMALL_BYTES, require
from systolic._show.progress import shown
from systolic._text import printable, printable_errors
from systolic.config import ArrayConfig, MachineConfig, given_machine
from systolic.energy import DEFAULT, EnergyTable, as_table
from systolic.engine.costs import products, total_stats
from systolic.engine.finite import warn_of_inputs
from systolic.engine.layer_run import LayerRun
from systolic.engine.products import ProgressArgument, execute, probes_for, with_mapping
from systolic.engine.program_runs import compiled, run_compiled
from systolic.engine.results import Run
from systolic.frontend import load_runnable
from systolic.gemm import Gemm, Progress
from systolic.isa import Program
from systolic.layers import ArrayLayer, HostLayer, Layer, OnnxNode
from systolic.layers.base import UnknownShape
from systolic.layers.dequantized import DequantizedProduct
from systolic.layers.float_products import RoundedProduct
from systolic.lowered import Lowered
from systolic.model import Model, Node
from systolic.model.inference import Tensor
from systolic.model.mappings import MappingArgument, laid_out_on, mappings_of
from systolic.model.node import named_error, parameters
from systolic.model.placement import placements
from systolic.presets import TPU_V1
from systolic.stats import Stats
from systolic.threads import thread_count, with_threads
from systolic.trace import Probe, Trace
from systolic.trace.recording import trace_among

Output = np.ndarray | tuple[np.ndarray, ...]
"""Output of a layer: an array, or a tuple of arrays if it has several outputs."""

Observer = Callable[[Node, list[np.ndarray], Any], None]
"""Called after each layer with its node, its inputs and its :data:`Output`."""


@printable_errors
def run(
    model: Model | Program | str | os.PathLike[str],
    x: np.ndarray | Mapping[str, np.ndarray],
    *,
    machine: MachineConfig | ArrayConfig | None = None,
    array: ArrayConfig | None = None,
    mode: str = "cycle",
    mapping: MappingArgument = None,
    threads: int | None = None,
    progress: ProgressArgument = None,
    trace: bool | Trace | None = None,
    probe: Probe | Iterable[Probe] | None = None,
    observe: Observer | None = None,
    keep: bool | str | Iterable[str] = False,
    energy: EnergyTable | str | None = DEFAULT,
) -> Run:
    """Run a quantized model: dense and convolutional layers on the array, the rest on the host.

    Parameters
    ----------
    model : Model, Program, or path
        A path is an .onnx file, or what ``Model.save`` or ``Program.save`` wrote. A model is compiled for a
        machine with memories, see :func:`compile`, and runs as a program; the last few programs are kept.
        With a trace, a probe, `observe` or `keep` it runs layer by layer on the machine's array alone, where
        operands are always on time; with a warning also if a shape depends on runtime values.
    x : ndarray or mapping of str to ndarray
        The input, or one for each of the model's inputs by name. NaN in it, and infinities that a node
        quantizes, are reported by a :class:`~systolic.engine.NotFiniteWarning`.
    machine : MachineConfig or ArrayConfig, optional
        Machine to run on; default the TPU v1 preset.
    array : ArrayConfig, optional
        Instead of `machine`: an array without memories.
    mapping : {"im2col", "taps", "pack", "best"} or mapping of str to them, optional
        How convolutions run, as for :func:`conv2d`: one name, where "pack" holds for grouped convolutions,
        or a name for each of some nodes. On a machine with memories, as for :func:`compile`.
    mode, threads, progress, trace, probe
        As for :func:`matmul`; a trace or probe belongs to one layer: the one it names, or the first on
        the array. A :class:`~systolic.energy.Toggles` probe that names none counts all layers.
    observe : callable, optional
        Called as ``observe(node, inputs, output)`` after each layer; `output` is a tuple if the layer
        has several, and ``node.named(output)`` maps their names to them.
    keep : bool or names of tensors
        Intermediate tensors that ``Run.tensors`` holds afterwards; True: whatever a node writes.
    energy : EnergyTable or str, optional
        For ``Run.energy``: a table, the name of one ("45nm", "7nm"), or a file, see :mod:`systolic.energy`.
        None leaves energy out.

    Returns
    -------
    Run
        ``.outputs`` by name, ``.stats`` in total, ``.layers`` one by one. Every product starts on an
        idle array, unless a program runs: ``.timeline`` has its times, ``.program`` its instructions.

    Raises
    ------
    TypeError, ValueError
        If an input is missing, unknown or of the wrong dtype or shape, or no node writes a tensor of `keep`,
        before anything runs. If a layer does not accept a shape that depends on runtime values, when the
        layer is reached. Errors of a layer name its node and operator.
    MemoryError
        If a layer's output is larger than the available memory; the message names its node. Raised
        before anything runs, or, if the shape depends on runtime values, before the layer runs. If the
        tensors of `keep` together are larger, before anything runs.
    RuntimeError
        If a layer fails in another way.

    Examples
    --------
    >>> import systolic
    >>> example = systolic.load_example()
    >>> run = systolic.run(example.model, example.images[:1], mode="wavefront")
    >>> run.outputs["logits"].argmax(), example.labels[0]
    (np.int64(7), np.uint8(7))

    An intermediate tensor:

    >>> run = systolic.run(example.model, example.images[:1], mode="wavefront", keep="stem_quantized")
    >>> run["stem_quantized"].shape, list(run.tensors)
    ((1, 16, 8, 8), ['stem_quantized'])
    """
    machine = given_machine(machine, array, TPU_V1)
    name = ""
    if isinstance(model, str | os.PathLike):
        name = os.path.basename(os.fspath(model))
        model = load_runnable(model)
    if not isinstance(model, Model | Program):
        raise TypeError(f"model must be a Model, a Program or the path of one, not {_check.kind(model)}")
    if observe is not None and not callable(observe):
        raise TypeError(
            f"observe must be a function of (node, inputs, output), or None, not {_check.kind(observe)}"
        )
    if isinstance(model, Model):
        model.check_values()
    energies = as_table(energy)
    probes = probes_for(trace, probe, mode)
    workers = thread_count(threads)
    if isinstance(model, Program):
        if probes or observe is not None or keep is not False:
            raise ValueError("a program has no layers to trace, probe, observe or keep; run its Model")
        if mapping is not None:
            raise ValueError("the mappings of a program were chosen when it was compiled; run its Model")
        ran = _run_program(model, x, machine, mode, workers, progress, energies)
        inputs = {each: (tensor.shape, tensor.dtype) for each, tensor in model.inputs.items()}
        return replace(ran, model=name, inputs=inputs)
    laid = mappings_of(model.nodes, mapping)
    probed = _probed_layers(model, probes)
    wanted = _kept_names(model, keep)
    tensors = _inputs(model, x)
    known = model.infer_shapes({each: value.shape for each, value in tensors.items()})
    read_from: Any = {"model": name or model.name, "inputs": {each: known[each] for each in model.inputs}}
    warn_of_inputs(tensors, model.nodes, 4)
    for node in model.nodes:
        _require_room(node, {name: known[name] for name in node.outputs if name})
    _require_room_for_kept({name: known[name] for name in wanted})
    if machine.memory is not None and not probes and observe is None and not wanted:
        program = compiled(
            model, {name: value.shape for name, value in tensors.items()}, machine, mapping
        )  # fmt: skip
        if program is not None:
            ran = _run_program(program, tensors, machine, mode, workers, progress, energies, (model, known))
            return replace(ran, **read_from)
    of = laid_out_on(machine.array, laid)
    if laid:
        products(model, known, of)  # raises if a mapping does not fit the array
    _warn_of_sums(model, machine.array)
    tensors |= model.constants
    readers = _count_readers(model)
    done = total = 0
    expected: dict[str, tuple[Gemm, ...] | None] = {}
    rows: list[LayerRun] = []
    kept: dict[str, np.ndarray] = {}
    raised: list[BaseException] = []
    with shown(progress, "cycles") as shows:
        report = None if shows is None else _recording_errors(shows, raised)
        if report is not None:
            # A product whose size depends on runtime values adds to the total once it has run.
            expected = products(model, known, of)
            total = total_stats(model, known, machine.array, of).cycles
        for node in model.nodes:
            started = time.perf_counter()
            read = [tensors[tensor] for tensor in node.inputs]
            part = _layer_progress(report, done, total, mode)
            try:
                if known[node.output][0] is None:
                    _require_room(node, _runtime_outputs(node, read))
                work = run_layer(
                    node.layer, read, machine.array, mode, workers, part, probed.get(node.output, ()),
                    laid.get(node.output),
                )  # fmt: skip
            except Exception as error:
                named = None if error in raised else named_error(error, node.name, node.layer.kind)
                if named is None:
                    raise
                raise named from error
            wall = time.perf_counter() - started
            output, gemms, stats = work.output, work.gemms, work.stats
            done += stats.cycles
            if report is not None and gemms:
                total += stats.cycles if expected[node.output] is None else 0
                report(done, total)
            if observe is not None:
                observe(node, read, output)
            written = node.named(output)
            kind, first = node.layer.kind, written[node.output]
            moved = {tensor: array.nbytes for tensor, array in zip(node.inputs, read, strict=True)}
            rows.append(
                LayerRun(
                    node.name,
                    kind,
                    first.shape,
                    _check.dtype_name(first.dtype),
                    gemms[0] if gemms else None,
                    stats,
                    wall,
                    *parameters(node, model.constants),
                    sum(size for tensor, size in moved.items() if tensor not in model.constants),
                    sum(array.nbytes for array in written.values()),
                    work.array_seconds,
                    len(gemms),
                    array=work.config,
                    toggles=work.toggles,
                    zero_macs=work.zero_macs,
                )
            )
            if isinstance(node.layer, RoundedProduct):
                rows[-1] = replace(rows[-1], **_from_float32(node.layer, read, first))
            tensors |= {name: array for name, array in written.items() if readers.get(name)}
            kept |= {name: array for name, array in written.items() if name in wanted}
            # Nothing may outlive its last reader: neither in the dict nor under a name of this loop.
            del first, written, output, read, work
            for tensor in node.inputs:
                readers[tensor] -= 1
                if not readers[tensor]:
                    del tensors[tensor]
    outputs = {name: tensors[name] for name in model.outputs}
    sizes = {node.output: (row.shape, row.dtype) for node, row in zip(model.nodes, rows, strict=True)}
    places = placements(model.nodes, {**known, **sizes})
    rows = [
        row if place is None else replace(row, off_array=place)
        for row, place in zip(rows, places, strict=True)
    ]
    return Run(
        outputs, tuple(rows), machine, mode, trace_among(probes), None, energies, kept,
        time=datetime.now().astimezone(), **read_from,
    )  # fmt: skip


def _run_program(
    program: Program, x: Any, machine: MachineConfig, mode: str, workers: int, progress: ProgressArgument,
    energies: EnergyTable | None, model: tuple[Model, Mapping[str, Tensor]] | None = None,
) -> Run:  # fmt: skip
    def layer_on_host(layer: Layer, read: list[np.ndarray]) -> Output:
        return run_layer(layer, read, machine.array, "wavefront", workers)[0]

    with shown(progress, "cycles") as report:
        run = run_compiled(program, x, machine, mode, workers, report, layer_on_host, model)
    if model is None:  # else `run` has warned
        read = x if isinstance(x, Mapping) else {next(iter(program.inputs)): x}
        warn_of_inputs({name: np.asarray(value) for name, value in read.items()}, None, 5)
    return replace(run, energies=energies, time=datetime.now().astimezone())


class WideSumsWarning(UserWarning):
    """Sums of a product may not fit the array's psums."""


def _warn_of_sums(model: Model, array: ArrayConfig) -> None:
    """Warn of products whose sums may exceed the psums: 8-bit operands do so as ONNX defines, modulo 2^32."""
    for node in model.nodes:
        if not isinstance(node.layer, DequantizedProduct):
            continue
        read = [model.constants.get(name) for name in node.inputs]
        most = node.layer.largest_sum(read, array.psum_bits)
        if most is not None and most >= 2 ** (array.psum_bits - 1):
            warnings.warn(
                f"node {node.name!r} ({node.layer.kind}): its sums may reach {most:,}, and psums of "
                f"{array.psum_bits} bits hold less; if one does not fit, the result is wrong: run the model "
                "on an ArrayConfig(psum_bits=64)",
                WideSumsWarning,
                stacklevel=4,
            )


def _require_room(node: Node, outputs: Mapping[str, Tensor]) -> None:
    """Raise MemoryError if a node's outputs, which are held at once, exceed the available memory."""
    room = 0
    for shape, dtype in outputs.values():
        if shape is not None:
            # Accumulators are int32, whatever the output's type.
            size = np.dtype(dtype).itemsize if isinstance(node.layer, HostLayer) else 4
            room += math.prod(shape) * size
    if room > SMALL_BYTES:
        each = " and ".join(f"{_check.shape(s)} {dtype}" for s, dtype in outputs.values() if s is not None)
        require(room, f"node {node.name!r} ({node.layer.kind}): the output {each}")


def _require_room_for_kept(tensors: Mapping[str, Tensor]) -> None:
    """Raise MemoryError if tensors of known shapes, which are held at once, exceed the available memory."""
    room = sum(math.prod(shape) * np.dtype(t).itemsize for shape, t in tensors.values() if shape is not None)
    require(room, f"keeping {len(tensors):,} tensors")


def _runtime_outputs(node: Node, read: Sequence[np.ndarray]) -> dict[str, Tensor]:
    """Return shapes and dtypes of a node's outputs, if the values of its inputs determine them."""
    if isinstance(node.layer, OnnxNode):
        return {}  # onnx would have to infer them, which takes longer than most nodes do
    try:
        shapes = node.named(node.layer.output_shape_from(read, *(array.shape for array in read)))
    except UnknownShape:
        return {}
    dtypes = node.named(node.layer.output_dtype(*(array.dtype.name for array in read)))
    return {name: (shape, dtypes[name]) for name, shape in shapes.items()}


# What a host layer costs the array; making a new one takes longer than some of them do.
_NO_STATS = Stats()


class LayerWork(NamedTuple):
    """The output of a layer, its products and what they cost; the last fields as of an Execution."""

    output: Output
    gemms: tuple[Gemm, ...]
    stats: Stats
    array_seconds: float
    config: ArrayConfig | None = None
    toggles: dict[str, int] | None = None
    zero_macs: int | None = None


def run_layer(
    layer: Layer,
    inputs: Sequence[np.ndarray],
    config: ArrayConfig,
    mode: str,
    workers: int = 1,
    report: Progress | None = None,
    probes: Sequence[Probe] = (),
    mapping: str | None = None,
) -> LayerWork:
    """Return a layer's output, its products and what they cost, and the seconds on the array.

    Of a layer with several products, probes see the first; those that count toggles see all. A mapping is of
    a convolution.
    """
    if isinstance(layer, HostLayer):
        return LayerWork(with_threads(workers, layer.apply, *inputs), (), _NO_STATS, 0.0)
    assert isinstance(layer, ArrayLayer)
    if type(layer).steps is ArrayLayer.steps:  # one product: a generator would cost microseconds
        lowered = _expect_lowered(layer.lower(*inputs))
        if mapping is not None:
            lowered = with_mapping(lowered, mapping, config)
        done = execute(lowered, config, mode, workers, report, probes)
        return LayerWork(done.output, (lowered.gemm,), *done[1:])
    steps = layer.steps(*inputs)
    gemms: list[Gemm] = []
    stats, seconds, output = _NO_STATS, 0.0, None
    typed, toggles, zeros = None, Counter[str](), 0
    counting = [probe for probe in probes if probe.counts_toggles]
    while True:
        try:
            lowered = _expect_lowered(steps.send(output))
        except StopIteration as end:
            counted = (dict(toggles), zeros) if toggles else (None, None)
            return LayerWork(end.value, tuple(gemms), stats, seconds, typed, *counted)
        done = execute(
            lowered, config, mode, workers, _later(report, stats.cycles), counting if gemms else probes
        )
        typed = done.config
        if done.toggles is not None and done.zero_macs is not None:
            toggles.update(done.toggles)
            zeros += done.zero_macs
        gemms.append(lowered.gemm)
        stats = stats + done.stats if gemms[1:] else done.stats
        seconds, output = seconds + done.array_seconds, done.output


def _from_float32(
    layer: RoundedProduct, read: Sequence[np.ndarray], output: np.ndarray
) -> dict[str, Any]:
    """Return how far a product in a narrower format is from float32."""
    exact = layer.float32.apply(*read)
    with np.errstate(all="ignore"):
        gap = np.abs(exact - output)
    if not gap.size:
        return {"largest_difference": 0.0, "mean_difference": 0.0}
    if not np.isfinite(gap.max()):
        gap[(exact == output) | (np.isnan(exact) & np.isnan(output))] = 0
        gap[np.isnan(gap)] = np.inf
    largest, mean = gap.max(), gap.mean(dtype=np.float64)
    return {"largest_difference": float(largest), "mean_difference": float(mean)}


def _expect_lowered(value: Any) -> Lowered:
    if not isinstance(value, Lowered):
        raise TypeError(f"lower must return a systolic.lowered.Lowered, not {_check.kind(value)}")
    return value


def _later(report: Progress | None, cycles: int) -> Progress | None:
    """Report the progress of a product that starts after so many cycles of its layer."""
    if report is None or not cycles:
        return report
    return lambda done, total: report(cycles + done, cycles + total)


def _probed_layers(model: Model, probes: Sequence[Probe]) -> dict[str, tuple[Probe, ...]]:
    """Return the probes of each node that has some, by its output."""
    nodes = [node for node in model.nodes if isinstance(node.layer, ArrayLayer)]
    found: dict[str, tuple[Probe, ...]] = {}
    for probe in probes:
        wanted = [node for node in nodes if probe.layer in (None, node.name)]
        if not wanted:
            if not nodes:
                raise ValueError("no layer of the model runs on the array: nothing can be traced or probed")
            names = ", ".join(printable(node.name) for node in nodes)
            raise ValueError(f"no layer {probe.layer!r} runs on the array; those that do are {names}")
        for node in wanted if probe.counts_toggles else wanted[:1]:
            found[node.output] = (*found.get(node.output, ()), probe)
    return found


def _kept_names(model: Model, keep: Any) -> set[str]:
    """Return which tensors a run is to keep."""
    known = dict.fromkeys(name for node in model.nodes for name in node.outputs if name)
    if isinstance(keep, bool):
        return {*known} if keep else set()
    if isinstance(keep, Mapping) or not isinstance(keep, Iterable):
        raise TypeError(f"keep must be names of tensors, True or False, not {_check.kind(keep)}")
    names = [keep] if isinstance(keep, str) else list(keep)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"keep must be names of tensors, not {_check.kind(name)}")
        if name not in known:
            raise ValueError(f"no node writes a tensor {name!r} to keep; {nearest(name, list(known))}")
    return {*names}


def _inputs(model: Model, x: np.ndarray | Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = ", ".join(map(repr, model.inputs))
    if not isinstance(x, Mapping):
        if len(model.inputs) != 1:
            raise ValueError(
                f"the model has {len(model.inputs)} inputs ({names}); pass a mapping from names to arrays"
            )
        x = {next(iter(model.inputs)): x}
    if set(x) != set(model.inputs):
        raise ValueError(f"the model's inputs are {names}, not {', '.join(map(repr, x)) or 'none'}")
    arrays = {name: _check.as_array(value, f"input {name!r}") for name, value in x.items()}
    for name, spec in model.inputs.items():
        spec.check(name, arrays[name])
    model.check_symbols({name: array.shape for name, array in arrays.items()})
    return {name: arrays[name].astype(spec.dtype, copy=False) for name, spec in model.inputs.items()}


def _count_readers(model: Model) -> dict[str, int]:
    """Return how often each tensor is read, model outputs once more: it is freed after its last reader."""
    readers: dict[str, int] = {}
    for node in model.nodes:
        for tensor in node.inputs:
            readers[tensor] = readers.get(tensor, 0) + 1
    for name in (*model.outputs, *model.constants):
        readers[name] = readers.get(name, 0) + 1
    return readers


def _recording_errors(report: Progress, raised: list[BaseException]) -> Progress:
    """Record what a progress function raises: it is the caller's error, not a layer's."""

    def call(done: int, total: int) -> None:
        try:
            report(done, total)
        except BaseException as error:
            raised.append(error)
            raise

    return call


def _layer_progress(report: Progress | None, done: int, total: int, mode: str) -> Progress | None:
    """Report one layer's cycles as part of the whole run's."""
    if report is None or mode != "cycle":
        return None
    return lambda part, whole: report(done + part, max(total, done + whole))
