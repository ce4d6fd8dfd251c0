"""``verify``: check random cases, or a model layer by layer."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from systolic import _check, engine, presets
from systolic._files import path_text
from systolic._show.progress import shown
from systolic._text import printable_errors
from systolic.config import ArrayConfig, MachineConfig, as_machine_config
from systolic.engine.finite import input_lines
from systolic.frontend import load_model
from systolic.gemm import Progress
from systolic.layers.float_products import RoundedProduct
from systolic.layers.host.session import ONNX_RUNTIME
from systolic.model import Model, Node
from systolic.model.placement import off_array
from systolic.presets import TPU_V1
from systolic.reference import expected_output, has_oracle
from systolic.verifier.compare import compare_layer
from systolic.verifier.difference import FLOAT_TOLERANCE, difference, first_difference
from systolic.verifier.drawn import verify_cases
from systolic.verifier.inputs import check_batch, random_inputs
from systolic.verifier.mismatch import (
    Mismatch,
    NodeVerdict,
    NotChecked,
    Rounding,
    VerificationError,
    VerificationReport,
)
from systolic.verifier.nodes import NodeCheck
from systolic.verifier.runtime import doubts, feeds_for, runtime_outputs, runtime_tensors, runtime_version

AGAINST = ("reference", "numpy", "onnxruntime")

UNFIXED = "ONNX fixes neither the order of float sums nor how functions such as exp and erf are approximated"
"""Why float tensors may differ."""


@printable_errors
def verify(
    model: Model | str | os.PathLike[str] | None = None,
    x: np.ndarray | Mapping[str, np.ndarray] | None = None,
    *,
    cases: int | Iterable[int] = 200,
    seed: int = 0,
    against: str = "reference",
    raises: bool = False,
    machine: MachineConfig | ArrayConfig | None = None,
    mode: str | None = None,
    threads: int | None = None,
    progress: bool | Progress | None = None,
    node_by_node: bool = False,
    tolerance: float | None = None,
    qdq: str = "integer",
    compute: str | None = None,
    batch: int | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    reproduce: str | None = None,
) -> VerificationReport:
    """Check that results equal, bit for bit and cycle for cycle, what defines them.

    Without a model, random cases are drawn, edges first: registers from any state under any port
    values against the PE-by-PE reference; ``matmul`` and ``conv2d`` in every mode, and every kind
    of layer, against exact numpy oracles; cycles against the closed form. With a model, each
    layer's output on `x` is checked, and the model's outputs.

    Parameters
    ----------
    model : Model or path, optional
        A path is read by ``load_onnx`` (``.onnx``) or ``Model.load``.
    x : ndarray or mapping, optional
        The model's input; if absent, random values that its readers accept, such as indices within range.
    cases : int or iterable of int
        How many random cases; or their numbers, to run some again.
    seed : int
        Of the random cases.
    against : {"reference", "numpy", "onnxruntime"}
        "reference" (also called "numpy"): the oracles in ``systolic.reference``. "onnxruntime"
        also compares a model's outputs with ONNX Runtime's and needs the ``.onnx`` path.
    raises : bool
        Raise VerificationError on a mismatch instead of returning a failed report.
    machine, mode, threads
        What the model runs on: default the TPU v1 preset in cycle mode. Random cases draw their
        own arrays and are checked in every mode, so these go with a model only.
    progress : bool or callable, optional
        As for :func:`systolic.matmul`.
    node_by_node : bool
        Also compare every tensor of a model and say which node differs first, by how much and in how
        many elements: ``.nodes`` and ``.nodes_table()``. Against "onnxruntime" these are the tensors
        of its own graph after fusing (QuantizeLinear and DequantizeLinear with what stands between
        become one quantized node): those within a fused group are "not compared". Every node is checked
        on ONNX Runtime's values of its inputs, so that one float rounding is not found again in every
        later node. If outputs differ from ONNX Runtime's, this is done in any case.
    tolerance : float, optional
        By how much a float tensor that ONNX Runtime computes may differ, as part of its largest finite
        value; default 1e-5. Such a tensor is reported as "float, within"; 0 asks for every bit.
        Integer tensors must be equal, and so must all tensors against "reference".
    qdq : {"integer", "float"}
        What the groups between DequantizeLinear and QuantizeLinear in an ``.onnx`` file mean, as for
        ``load_onnx``; ONNX Runtime is asked for the same meaning.
    compute : str, optional
        The format in which products of float32 in an ``.onnx`` file run on the array, as for ``load_onnx``.
        Against "onnxruntime" what depends on them is not compared; notes say how far it is from float32.
    batch : int, optional
        Size of the first axis of a random input, where the model accepts any; default 2.
    shapes : mapping of str to tuple of int, optional
        Whole shapes of random inputs by name, where other sizes are symbolic.
    reproduce : str, optional
        The shell command that checks the model again, for its mismatches. Default: one made of the arguments,
        if the model is a path; it names an `x` ``X.npy``.

    Returns
    -------
    VerificationReport
        ``.passed``, and ``.mismatches`` with tensor index, fold, PE and cycle of each. Integers that
        differ because a float before them is rounded differently, which ONNX permits, are no mismatch if no
        node differs on equal inputs: ``.rounding`` says where. A check that compared nothing does not
        pass; ``.not_checked`` names the nodes that were not compared.

    Raises
    ------
    VerificationError
        With `raises`, if anything differs.
    TypeError, ValueError
        If an argument does not fit, or ONNX Runtime does not run the file.
    ImportError
        If ONNX Runtime is asked for and missing.

    Examples
    --------
    >>> import systolic
    >>> systolic.verify(cases=20).passed
    True
    """
    _check.choice(against, "against", AGAINST)
    against = "reference" if against == "numpy" else against
    seed = _check.integer(seed, "seed", minimum=0)
    numbers: Sequence[int]
    if isinstance(cases, Iterable) and not isinstance(cases, str | bytes | bytearray | memoryview):
        numbers = [_check.integer(case, "case", minimum=0) for case in cases]
    else:
        numbers = range(_check.integer(cases, "cases", minimum=1))
    started = time.perf_counter()
    if model is None and x is not None:
        raise ValueError("x is the input of a model: pass the model too")
    node_by_node = _check.flag(node_by_node, "node_by_node")
    if model is None:
        nodes = node_by_node or None
        _refuse(
            machine=machine, mode=mode, threads=threads, node_by_node=nodes, tolerance=tolerance,
            batch=batch, shapes=shapes, compute=compute,
        )  # fmt: skip
    elif x is not None and (batch is not None or shapes is not None):
        raise ValueError("batch and shapes are of random inputs: leave them out where x is given")
    _check.choice(qdq, "qdq", ("integer", "float"))
    tolerance = FLOAT_TOLERANCE if tolerance is None else _tolerance(tolerance)
    machine = TPU_V1 if machine is None else as_machine_config(machine)
    if model is None and against == "onnxruntime":
        raise ValueError("against='onnxruntime' checks a model: pass the path of an .onnx file")
    with shown(progress, "cases" if model is None else "cycles") as report:
        if model is None:
            found = verify_cases(numbers, seed, report)
        else:
            mode = "cycle" if mode is None else mode
            options = _Options(
                machine, mode, threads, seed, against, node_by_node, tolerance, qdq, compute, batch, shapes,
                reproduce,
            )  # fmt: skip
            found = _verify_model(model, x, options, report)
    found = replace(found, wall_seconds=time.perf_counter() - started)
    if raises and not found.passed:
        raise VerificationError(found)
    return found


def _refuse(**given: Any) -> None:
    """Raise if an option that goes with a model is given without one."""
    names = [name for name, value in given.items() if value is not None]
    if names:
        verb = "says" if len(names) == 1 else "say"
        raise ValueError(
            f"{' and '.join(names)} {verb} how a model is run and checked; without a model, random cases "
            "draw their own arrays and are checked in every mode"
        )


def _tolerance(value: Any) -> float:
    if not _check.is_real(value) or not 0 <= value < 1:
        raise ValueError(f"tolerance must be a number from 0 (every bit) to below 1, not {value!r}")
    return float(value)


# Models


class ModelCheck:
    """Checks each layer of a run as it ends: pass it to ``run`` as `observe`.

    `mapping` has the mappings of convolutions by output. An error in a check does not stop the run: the node
    is then listed in `not_checked`.

    Attributes
    ----------
    mismatches : list of Mismatch
    checked, elements : int
        Layers checked, and the elements of their outputs.
    within : float
        The largest relative difference of a float output that was accepted: see ``tolerance_of``.
    not_checked : list of NotChecked
        Nodes delegated to others, without a second derivation, or whose check raised an error.
    expected : dict of str to ndarray
        Expected outputs of the last node; empty if there is no second derivation.
    """

    def __init__(
        self, machine: MachineConfig, mode: str, reproduce: str = "", mapping: Mapping[str, str] | None = None
    ) -> None:
        self.machine, self.mode, self.reproduce, self.mapping = machine, mode, reproduce, mapping or {}
        self.mismatches: list[Mismatch] = []
        self.checked = self.elements = 0
        self.within = 0.0
        self.not_checked: list[NotChecked] = []
        self.expected: dict[str, np.ndarray] = {}

    def __call__(self, node: Node, inputs: list[np.ndarray], output: Any) -> None:
        """Compare one layer's output, or outputs, with the oracle's."""
        self.expected = {}
        layer = node.layer
        if not has_oracle(layer):
            reason = "no second derivation" if layer.delegate is None else f"computed by {layer.delegate}"
            self.not_checked.append(NotChecked(node.name, layer.kind, reason, layer.delegate))
            return
        case = f"layer {node.name!r} ({layer.kind})"
        config = self.machine.array
        try:
            expected = node.named(expected_output(layer, inputs, config))
            mismatch, within = compare_layer(
                case, node, inputs, output, expected, config, self.mode, self.mapping.get(node.output)
            )
        except Exception as error:  # a fault of the check must not hide what the run gave
            reason = f"the check failed: {type(error).__name__}: {error}"
            self.not_checked.append(NotChecked(node.name, layer.kind, reason))
            return
        self.expected = expected
        self.within = max(self.within, within)
        if mismatch is not None:
            self.mismatches.append(replace(mismatch, reproduce=self.reproduce))
        self.checked += 1
        self.elements += sum(array.size for array in expected.values())

    @property
    def proof(self) -> int:
        """Layers checked; 0 if their outputs have no elements, which proves nothing."""
        return self.checked if self.elements else 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What was not checked, for people."""
        return notes_on(self.not_checked)


def notes_on(nodes: Sequence[NotChecked]) -> tuple[str, ...]:
    """Return notes, for people, on what was not checked."""
    kinds = list(dict.fromkeys(node.layer for node in nodes if node.reason == "no second derivation"))
    notes = [f"nothing to check layers of these kinds against: {', '.join(kinds)}"] if kinds else []
    failed = [str(node) for node in nodes if node.reason.startswith("the check failed")]
    more = [f"{len(failed) - _FAULTS} more checks failed"] if len(failed) > _FAULTS else []
    return (*notes, *failed[:_FAULTS], *more)


_DELEGATED = "delegated, not checked"

# How many failed checks the notes list one by one.
_FAULTS = 5


class _Options(NamedTuple):
    """How a model is run and checked."""

    machine: MachineConfig
    mode: str
    threads: int | None
    seed: int
    against: str
    node_by_node: bool
    tolerance: float
    qdq: str
    compute: str | None
    batch: int | None
    shapes: Mapping[str, Sequence[int]] | None
    reproduce: str | None


def _verify_model(
    model: Model | str | os.PathLike[str], x: Any, options: _Options, report: Progress | None
) -> VerificationReport:
    path = None
    machine, mode, against = options.machine, options.mode, options.against
    if not isinstance(model, Model):
        path = Path(path_text(model))
        if against == "onnxruntime" and path.suffix.lower() != ".onnx":
            raise ValueError(f"against='onnxruntime' needs an .onnx file, not {path}")
    elif against == "onnxruntime":
        raise ValueError("against='onnxruntime' needs the .onnx file: pass its path instead of a Model")
    if against == "onnxruntime":
        runtime_version()  # before anything runs, not after it
    if not isinstance(model, Model):
        model = load_model(model, options.qdq, options.compute)
    elif options.compute is not None:
        raise ValueError("compute says how an .onnx file is read: pass its path instead of a Model")
    drawn = x is None
    if x is None:
        if options.batch is not None:
            check_batch(model, options.batch, options.shapes)
        x = random_inputs(
            model, options.seed, _BATCH if options.batch is None else options.batch, options.shapes
        )
    line = options.reproduce or ""
    if path is not None and not line:
        line = reproduce_line(os.fspath(path), None if drawn else "X.npy", options)
    check = ModelCheck(machine, mode, line)
    nodes: NodeCheck | None = None
    if options.node_by_node and against == "onnxruntime":
        assert path is not None
        nodes = _runtime_check(path, model, x, machine, options.tolerance, options.qdq)
    elif options.node_by_node:
        # By the oracles, which `check` has just asked about this node.
        nodes = NodeCheck(lambda node, inputs: check.expected, machine.array, 0.0)

    def observe(node: Node, inputs: list[np.ndarray], output: Any) -> None:
        check(node, inputs, output)
        if nodes is not None:
            nodes(node, inputs, output)

    with warnings.catch_warnings():
        # The report has a line instead.
        warnings.simplefilter("ignore", engine.NotFiniteWarning)
        run = engine.run(
            model, x, machine=machine, mode=mode, threads=options.threads, progress=report, observe=observe
        )
    read = x if isinstance(x, Mapping) else {next(iter(model.inputs)): x}
    unusual = (*input_lines(read, model.nodes), *run.not_finite)
    mismatches, checked = check.mismatches, {"layer": check.proof}
    skipped = list(check.not_checked)
    doubted: tuple[str, ...] = ()
    rounding: Rounding | None = None
    within = check.within
    if against == "onnxruntime":
        assert path is not None
        found = compare_outputs(path, model, x, run, machine, options.tolerance, options.qdq, nodes)
        mismatches += [replace(mismatch, reproduce=line) for mismatch in found.mismatches]
        checked["output"] = len(found.compared)
        doubted, rounding, within = found.notes, found.rounding, max(within, found.within)
    verdicts: tuple[NodeVerdict, ...] = ()
    notes: tuple[str, ...] = (*doubted, *unusual, *check.notes)
    if nodes is not None:
        verdicts, within = tuple(nodes.verdicts), max(within, nodes.within)
        if against == "onnxruntime":
            # Nodes that onnx computed here were compared with ONNX Runtime.
            compared = {node.node for node in verdicts if node.verdict not in ("not compared", _DELEGATED)}
            skipped = [node for node in skipped if node.delegate == ONNX_RUNTIME or node.node not in compared]
        skipped += nodes.not_checked
        notes += notes_on(nodes.not_checked)
        absent = sum(node.verdict == "not compared" for node in verdicts)
        begins = next((node for node in verdicts if node.verdict == "float, within"), None)
        if begins is not None:
            notes += (
                f"the first float tensor that differs is {begins.tensor!r} of node {begins.node!r} "
                f"({begins.layer}), {begins.difference}: {UNFIXED}",
            )
        if absent and against == "onnxruntime":
            notes += (f"tensors not compared, as ONNX Runtime fuses their nodes with others: {absent}",)
    off = None
    if not run.stats.macs:
        off = off_array(model.nodes, model.infer_shapes(dict.fromkeys(model.inputs)))
    return VerificationReport(
        tuple(mismatches), checked, against, options.seed, notes, verdicts, within, tuple(skipped), rounding,
        off,
    )  # fmt: skip


def _runtime_check(
    path: str | os.PathLike[str], model: Model, x: Any, machine: MachineConfig, tolerance: float, qdq: str
) -> NodeCheck:
    """Return what compares every tensor with ONNX Runtime's."""
    written = [tensor for node in model.nodes for tensor in node.outputs if tensor]
    feeds = feeds_for(model, x)
    theirs = {**model.constants, **feeds, **runtime_tensors(path, feeds, written, qdq)}
    return NodeCheck(lambda node, inputs: theirs, machine.array, tolerance, theirs)


def reproduce_line(path: str, x_file: str | None, options: _Options) -> str:
    """Return the shell command that checks a model again; `x_file` is None if the input is random."""
    import shlex

    words = ["systolic", "verify", path]
    if x_file is not None:
        words += ["--input", x_file]
    else:
        words += ["--seed", str(options.seed)]
        words += [] if options.batch is None else ["--batch", str(options.batch)]
        for name, shape in (options.shapes or {}).items():
            words += ["--shape", f"{name}={','.join(map(str, shape))}"]
    machine, unnamed = _machine_words(options.machine)
    words += [*machine, "--mode", options.mode]
    words += ["--qdq", options.qdq] if options.qdq != "integer" else []
    words += ["--compute", options.compute] if options.compute is not None else []
    words += ["--against", options.against] if options.against != "reference" else []
    words += ["--node-by-node"] if options.node_by_node else []
    words += [] if options.tolerance == FLOAT_TOLERANCE else ["--tolerance", f"{options.tolerance:g}"]
    # No option names these; --machine FILE does.
    return shlex.join(words) + (f"  # and with {unnamed}" if unnamed else "")


def _machine_words(machine: MachineConfig) -> tuple[list[str], str]:
    """Return options that name a machine's array, and the fields that none of them names."""
    array = machine.array
    for name in presets.names():
        if presets.get(name).array == array:
            return ["--preset", name], ""
    words = ["--array", f"{array.rows}x{array.cols}"]
    named = ArrayConfig(array.rows, array.cols)
    if not array.double_buffered:
        words.append("--single-buffered")
        named = replace(named, double_buffered=False)
    if array.accumulator_rows not in (None, named.accumulator_rows) and not array.dataflow_record.held:
        words += ["--accumulators", str(array.accumulator_rows)]
        named = replace(named, accumulator_rows=array.accumulator_rows)
    if array.dataflow != named.dataflow:
        words += ["--dataflow", array.dataflow]
        named = replace(named, dataflow=array.dataflow)
    left = {name: value for name, value in array.to_dict().items() if value != named.to_dict()[name]}
    if array.dataflow_record.held:
        left.pop("accumulator_rows", None)  # not used
    return words, ", ".join(f"{name}={value!r}" for name, value in left.items())


# Batch of random inputs: more than one, so that a mistake about the batch shows.
_BATCH = 2


class OutputCheck(NamedTuple):
    """What :func:`compare_outputs` found."""

    mismatches: list[Mismatch]
    """The node at fault, if any, and one for each output that differs; empty if `rounding` explains them."""
    notes: tuple[str, ...]
    """On float outputs that do not agree in every bit, and how far ONNX Runtime can be believed here."""
    within: float
    """The largest relative difference of a float output that was accepted."""
    compared: tuple[str, ...]
    """Outputs that our own code computed, or whose inputs it computed."""
    rounding: Rounding | None
    """The float rounding that explains why outputs differ."""
    rounded: dict[str, str]
    """Outputs that depend on products of float32 in a narrower format, not compared, and that format."""


def compare_outputs(
    path: str | os.PathLike[str],
    model: Model,
    x: np.ndarray | Mapping[str, np.ndarray],
    run: engine.Run,
    machine: MachineConfig,
    tolerance: float = FLOAT_TOLERANCE,
    qdq: str = "integer",
    nodes: NodeCheck | None = None,
) -> OutputCheck:
    """Compare a run's outputs with ONNX Runtime's on the same file; if they differ, find the node at fault.

    `nodes` is what compared every tensor of the run, if something did; if nothing did and outputs differ, the
    model runs again in wavefront mode beside it. ImportError if ONNX Runtime is missing, ValueError if it
    does not run the file.
    """
    results = runtime_outputs(path, feeds_for(model, x), qdq)
    mismatches, notes, within = [], [], 0.0
    largest: dict[str, int | float] = {}
    rounded = _rounded(model)
    for name in model.outputs:
        wrong = first_difference(run.outputs[name], results[name])
        if name in rounded:
            far = _far(run.outputs[name], results[name])
            notes.append(f"output {name!r} depends on products in {rounded[name]}, not in float32{far}")
            continue
        if wrong is None:
            continue
        found = None if "note" in wrong else difference(run.outputs[name], results[name])
        # Shapes that depend on values may differ: then no number says by how much.
        largest[name] = float("inf") if found is None else found.max_abs
        if found is not None and found.within(tolerance):
            within = max(within, found.relative or 0.0)
            notes.append(
                f"output {name!r} is float, within the tolerance of {tolerance:g}: {found}; {UNFIXED} "
                "(verify --node-by-node names the first such node)"
            )
        else:
            mismatches.append(Mismatch(case=f"output {name!r}", stage="output", **wrong))
    rounding: Rounding | None = None
    why: tuple[str, ...] = ()
    if mismatches and nodes is None:
        failed = "nodes were not compared with ONNX Runtime's"
        try:
            followed = _runtime_check(path, model, x, machine, tolerance, qdq)
            again = engine.run(model, x, machine=machine, mode="wavefront", observe=followed).outputs
        except Exception as error:  # report that outputs differ even if following them fails
            why = (f"{failed}: {type(error).__name__}: {error}",)
        else:
            if any(first_difference(again[name], run.outputs[name]) is not None for name in run.outputs):
                why = (f"{failed}: a second run gave other outputs",)
            else:
                nodes = followed
    if nodes is not None:
        rounding = nodes.explanation(largest) if mismatches or nodes.rounded else None
        mismatches = [] if rounding else [*([nodes.first] if nodes.first else []), *mismatches]
    notes += [*doubts(model), *why]
    own = tuple(name for name in _own_outputs(model, run) if name not in rounded)
    narrow = {name: rounded[name] for name in model.outputs if name in rounded}
    return OutputCheck(mismatches, tuple(notes), within, own, rounding, narrow)


def _rounded(model: Model) -> dict[str, str]:
    """Return the tensors that depend on products of float32 in a narrower format, and that format."""
    found: dict[str, str] = {}
    for node in model.nodes:
        formats = [found[name] for name in node.inputs if name in found]
        if isinstance(node.layer, RoundedProduct):
            formats = [node.layer.compute]
        found |= {name: formats[0] for name in node.outputs if formats}
    return found


def _far(got: np.ndarray, exact: np.ndarray) -> str:
    """Return how far an output is from that of ONNX Runtime, in words."""
    if got.shape != exact.shape or got.dtype.kind not in "iuf" or not got.size:
        return ""
    with np.errstate(all="ignore"):
        gap = np.abs(got.astype(np.float64) - exact)
    return f": it is up to {gap.max():.2g} from ONNX Runtime's, {gap.mean():.2g} on average"


def _own_outputs(model: Model, run: engine.Run) -> tuple[str, ...]:
    """Return the outputs that are not ONNX Runtime's alone: its own results say nothing about us."""
    own: set[str] = set()
    for node in model.nodes:
        if node.layer.delegate != ONNX_RUNTIME or own.intersection(node.inputs):
            own |= set(node.outputs)
    # Those that are constants were computed here when the model was loaded.
    own |= set(model.constants)
    return tuple(name for name in model.outputs if name in own and run.outputs[name].size)
