"""``verify``: random cases, or a model layer by layer, against what defines the results."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from systolic import _check, engine, layers
from systolic._check import shape as shape_text
from systolic._show.progress import shown
from systolic.array import SystolicArray
from systolic.array.schedule import Ports
from systolic.array.state import State
from systolic.config import REGISTERS, ArrayConfig, MachineConfig, as_machine_config
from systolic.frontend import load_onnx
from systolic.gemm import DenseProduct, Gemm, Product, Progress
from systolic.layers import ArrayLayer, HostLayer, lower_conv2d
from systolic.machine.control import MODES, run_product
from systolic.model import Model, Node
from systolic.presets import TPU_V1
from systolic.reference import ReferenceArray, oracle
from systolic.verifier.cases import Draw, draw_conv2d, draw_layer, draw_matmul
from systolic.verifier.expected import (
    UNCHECKED,
    expected_cycles,
    expected_output,
    expected_sums,
    explicit_pads,
)
from systolic.verifier.locate import CAUSES, locate
from systolic.verifier.mismatch import Mismatch, VerificationError, VerificationReport
from systolic.verifier.operands import Operands, conv_operands, dense_operands

AGAINST = ("reference", "numpy", "onnxruntime")


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
        The model's input; random if absent.
    cases : int or iterable of int
        How many random cases; or their numbers, to run some again.
    seed : int
        Of the random cases.
    against : {"reference", "numpy", "onnxruntime"}
        "reference" (also called "numpy"): the slow twins in ``systolic.reference``. "onnxruntime"
        also compares a model's outputs with ONNX Runtime's and needs the ``.onnx`` path.
    raises : bool
        Raise VerificationError on a mismatch instead of returning a failed report.
    machine, mode, threads
        What the model runs on: default the TPU v1 preset in cycle mode. Random cases draw their
        own arrays and are checked in every mode, so these go with a model only.
    progress : bool or callable, optional

    Returns
    -------
    VerificationReport
        ``.passed``, and ``.mismatches`` with tensor index, fold, PE and cycle of each.

    Raises
    ------
    VerificationError
        With `raises`, if anything differs.
    TypeError, ValueError
        If an argument does not fit.

    Examples
    --------
    >>> import systolic
    >>> systolic.verify(cases=20).passed
    True
    """
    _check.choice(against, "against", AGAINST)
    against = "reference" if against == "numpy" else against
    seed = _check.integer(seed, "seed", minimum=0)
    numbers = (
        range(_check.integer(cases, "cases", minimum=1)) if not isinstance(cases, Iterable) else list(cases)
    )
    started = time.perf_counter()
    if model is None and x is not None:
        raise ValueError("x is the input of a model: pass the model too")
    if model is None:
        _refuse(machine=machine, mode=mode, threads=threads)
    machine = TPU_V1 if machine is None else as_machine_config(machine)
    if model is None and against == "onnxruntime":
        raise ValueError("against='onnxruntime' checks a model: pass the path of an .onnx file")
    with shown(progress, "cases" if model is None else "cycles") as report:
        if model is None:
            found = _verify_cases(numbers, seed, report)
        else:
            found = _verify_model(model, x, against, machine, mode or "cycle", threads, seed, report)
    found = replace(found, wall_seconds=time.perf_counter() - started)
    if raises and not found.passed:
        raise VerificationError(found)
    return found


def _refuse(**given: Any) -> None:
    """Raise if an option that goes with a model is given without one."""
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise ValueError(
            f"{' and '.join(names)} say what a model runs on; without a model, random cases draw their own "
            "arrays and are checked in every mode"
        )


# Random cases


def _verify_cases(numbers: Iterable[int], seed: int, report: Progress | None) -> VerificationReport:
    numbers = [_check.integer(number, "case", minimum=0) for number in numbers]
    if not numbers:
        raise ValueError("cases must hold the number of at least one case, or be how many to draw")
    mismatches: list[Mismatch] = []
    checked = dict.fromkeys(_KINDS, 0)
    for done, number in enumerate(numbers):
        kind = list(_KINDS)[number % len(_KINDS)]
        try:
            found = _KINDS[kind](Draw(seed, number))
        except Exception as error:  # what is checked may do anything
            found = [
                Mismatch(case=f"{kind} case {number}", stage="error", note=f"{type(error).__name__}: {error}")
            ]
        line = f"systolic verify --seed {seed} --case {number}"
        mismatches += [replace(mismatch, reproduce=line) for mismatch in found]
        checked[kind] += 1
        if report is not None:
            report(done + 1, len(numbers))
    return VerificationReport(tuple(mismatches), checked, seed=seed)


def _registers(draw: Draw) -> list[Mismatch]:
    """From any state, under any ports, many cycles in one call: every register."""
    config = draw.config()
    rows, cols = config.rows, config.cols
    size, cycles = (rows, cols), draw.one_of(1, 2, 3, 5, draw.size(30), draw.size(30))
    low, high = -(2**31), 2**31 - 1
    state = State(
        weight=draw.codes(size, config.weight_dtype),
        next_weight=draw.codes(size, config.weight_dtype),
        weight_pass=draw.codes(size, config.weight_dtype),
        activation=draw.codes(size, config.activation_dtype),
        psum=draw.rng.integers(low, high, size, dtype=np.int32, endpoint=True),
        shift=draw.bits(size),
        swap=draw.bits(size),
    )
    psum = draw.one_of(
        np.zeros((cycles, cols), np.int32), draw.rng.integers(high - 20_000, high, (cycles, cols), np.int32)
    )
    ports = Ports(
        draw.codes((cycles, rows), config.activation_dtype),
        draw.bits((cycles, rows)),
        draw.bits((cycles, rows)),
        draw.codes((cycles, cols), config.weight_dtype),
        psum,
    )
    reference = ReferenceArray(rows, cols, {name: getattr(state, name).tolist() for name in REGISTERS})
    for t in range(cycles):
        names = ("activation", "shift", "swap", "weight", "psum")
        reference.step(**{name: values[t].tolist() for name, values in zip(names, ports, strict=True)})
        # Each prefix in one call: the first cycle at which a register differs is the error's.
        array = SystolicArray(config).restore(state)
        array._clock(t + 1, 1, Ports(*(values[: t + 1] for values in ports)))
        different = {
            name: np.argwhere(array.registers[name].astype(np.int64) != expected)
            for name, expected in reference.registers().items()
        }
        first = (
            min((tuple(d[0]), CAUSES.index(name)) for name, d in different.items() if len(d))
            if any(len(d) for d in different.values())
            else None
        )
        if first is not None:
            (row, col), name = first[0], CAUSES[first[1]]
            return [
                Mismatch(
                    case=f"registers {config!r}, {cycles} cycles",
                    stage="array",
                    register=name,
                    pe=(int(row), int(col)),
                    cycle=t,
                    register_got=int(array.registers[name][row, col]),
                    register_expected=int(reference.registers()[name][row, col]),
                    count=sum(map(len, different.values())),
                )
            ]
    return []


def _matmul(draw: Draw) -> list[Mismatch]:
    x, w, config = draw_matmul(draw)
    case = f"matmul {shape_text(x.shape)} {x.dtype} x {shape_text(w.shape)} {w.dtype} on {config!r}"
    expected = oracle.matmul(x, w)
    found: list[Mismatch] = []
    for mode in MODES:
        result = engine.matmul(x, w, array=config, mode=mode)
        product = DenseProduct(x, w)
        found += _compare_cycles(f"{case}, {mode}", result.cycles, product.gemm, config) or _compare_product(
            f"{case}, {mode}", product, dense_operands(x, w), result.acc, expected, config, mode
        )
    return found


def _conv2d(draw: Draw) -> list[Mismatch]:
    x, w, options, config = draw_conv2d(draw)
    case = (
        f"conv2d {shape_text(x.shape)} {x.dtype}, w {shape_text(w.shape)} {w.dtype}, {options} on {config!r}"
    )

    layout = options["layout"]
    image = x.shape[2:] if layout == "NCHW" else x.shape[1:3]
    geometry: dict[str, Any] = {key: options[key] for key in ("stride", "dilation", "groups", "layout")}
    geometry["pad_value"] = options["x_zero_point"]
    product_options = {**geometry, "padding": options["padding"]}
    geometry["pads"] = explicit_pads(
        options["padding"], image, w.shape[2:], options["stride"], options["dilation"]
    )
    expected = oracle.conv2d(x, w, **geometry)
    out: Any = expected.shape[2:] if layout == "NCHW" else expected.shape[1:3]
    operands = conv_operands(x, w, out=out, **geometry)
    found: list[Mismatch] = []
    for mode in MODES:
        result = engine.conv2d(x, w, array=config, mode=mode, **options)
        product = lower_conv2d(x, w, **product_options)
        found += _compare_cycles(f"{case}, {mode}", result.cycles, product.gemm, config) or _compare_product(
            f"{case}, {mode}", product, operands, result.acc, expected, config, mode
        )
    return found


def _layer(draw: Draw) -> list[Mismatch]:
    layer, inputs, config = draw_layer(draw)
    found: list[Mismatch] = []
    for mode in MODES if isinstance(layer, ArrayLayer) else MODES[:1]:
        read = ", ".join(f"{shape_text(i.shape)} {i.dtype}" for i in inputs)
        case = f"layer {layer!r} of {read} on {config!r}, {mode}"
        if isinstance(layer, ArrayLayer):
            product = layer.lower(*inputs)
            run_product(product, config, mode=mode, workers=1)
            output: Any = layer.finish(product, *inputs)
        else:
            assert isinstance(layer, HostLayer)
            output = layer.apply(*inputs)
        names = "y" if layer.outputs == 1 else tuple(f"y{i}" for i in range(len(output)))
        node = Node(layer, ("x",) * len(inputs), names)
        mismatch = _compare_layer(case, node, inputs, output, config, mode)
        if mismatch is not None:
            found.append(mismatch)
    return found


_KINDS: dict[str, Callable[[Draw], list[Mismatch]]] = {
    "registers": _registers,
    "matmul": _matmul,
    "conv2d": _conv2d,
    "layer": _layer,
}


# Comparing


def _compare_product(
    case: str,
    product: Product,
    operands: Operands,
    got: np.ndarray,
    expected: np.ndarray,
    config: ArrayConfig,
    mode: str,
) -> list[Mismatch]:
    wrong = _first_difference(got, expected)
    if wrong is None:
        return []
    if "note" in wrong:
        return [Mismatch(case=case, stage="shape", **wrong)]
    where = locate(product, operands, wrong["index"], config, mode)
    return [Mismatch(case=case, **wrong, **where)]


def _compare_cycles(case: str, cycles: int, gemm: Gemm, config: ArrayConfig) -> list[Mismatch]:
    expected = expected_cycles(gemm, config)
    if cycles == expected:
        return []
    return [Mismatch(case=case, stage="cycles", got=cycles, expected=expected)]


def _compare_layer(
    case: str, node: Node, inputs: list[np.ndarray], output: Any, config: ArrayConfig, mode: str
) -> Mismatch | None:
    expected = node.named(expected_output(node.layer, inputs))
    for name, got in node.named(output).items():
        wrong = _first_difference(got, expected[name])
        if wrong is None:
            continue
        if len(expected) > 1:
            case = f"{case}, output {name!r}"
        if "note" in wrong:
            return Mismatch(case=case, stage="shape", **wrong)
        if not isinstance(node.layer, ArrayLayer):
            return Mismatch(case=case, stage="host", **wrong)
        # Are the sums wrong, or what is made of them?
        sums, operands = expected_sums(node.layer, inputs)
        product = node.layer.lower(*inputs)
        run_product(product, config, mode=mode, workers=1)
        wrong_sum = _first_difference(product.acc, sums)
        if wrong_sum is None:
            return Mismatch(case=case, stage="finish", **wrong)
        return Mismatch(case=case, **wrong_sum, **locate(product, operands, wrong_sum["index"], config, mode))
    return None


def _first_difference(got: np.ndarray, expected: np.ndarray) -> dict[str, Any] | None:
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return {
            "note": f"got {got.dtype} {shape_text(got.shape)}, "
            f"expected {expected.dtype} {shape_text(expected.shape)}"
        }
    different = got != expected
    if got.dtype.kind == "f":  # NaN equals NaN here
        different &= ~(np.isnan(got) & np.isnan(expected))
    count = int(np.count_nonzero(different))
    if not count:
        return None
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(different)), got.shape))
    return {"index": index, "got": got[index].item(), "expected": expected[index].item(), "count": count}


# Models


class ModelCheck:
    """Checks each layer of a run as it ends: pass it to ``run`` as `observe`.

    Attributes
    ----------
    mismatches : list of Mismatch
    checked : int
        Layers checked.
    unchecked : list of str
        Kinds of layer met that have no second derivation to be checked against.
    """

    def __init__(self, machine: MachineConfig, mode: str, reproduce: str = "") -> None:
        self.machine, self.mode, self.reproduce = machine, mode, reproduce
        self.mismatches: list[Mismatch] = []
        self.checked = 0
        self.unchecked: list[str] = []

    def __call__(self, node: Node, inputs: list[np.ndarray], output: Any) -> None:
        """Compare one layer's output, or outputs, with the oracle's."""
        if type(node.layer) in UNCHECKED:
            if type(node.layer).__name__ not in self.unchecked:
                self.unchecked.append(type(node.layer).__name__)
            return
        case = f"layer {node.name!r} ({type(node.layer).__name__})"
        mismatch = _compare_layer(case, node, inputs, output, self.machine.array, self.mode)
        if mismatch is not None:
            self.mismatches.append(replace(mismatch, reproduce=self.reproduce))
        self.checked += 1

    @property
    def notes(self) -> tuple[str, ...]:
        """What was not checked, for people."""
        if not self.unchecked:
            return ()
        return (f"nothing to check layers of these kinds against: {', '.join(self.unchecked)}",)


def _verify_model(
    model: Model | str | os.PathLike[str],
    x: Any,
    against: str,
    machine: MachineConfig,
    mode: str,
    threads: int | None,
    seed: int,
    report: Progress | None,
) -> VerificationReport:
    path = None
    if not isinstance(model, Model):
        path = Path(model)
        if against == "onnxruntime" and path.suffix.lower() != ".onnx":
            raise ValueError(f"against='onnxruntime' needs an .onnx file, not {path}")
        model = load_model(path)
    elif against == "onnxruntime":
        raise ValueError("against='onnxruntime' needs the .onnx file: pass its path instead of a Model")
    drawn = x is None
    if x is None:
        x = random_inputs(model, seed)
    line = ""
    if path is not None:
        given = None if drawn else "X.npy"
        line = reproduce_line("verify", os.fspath(path), given, machine, mode, seed)
        line += f" --against {against}" if against != "reference" else ""
    check = ModelCheck(machine, mode, line)
    run = engine.run(model, x, machine=machine, mode=mode, threads=threads, progress=report, observe=check)
    mismatches, checked = check.mismatches, {"layer": check.checked}
    notes: tuple[str, ...] = ()
    if against == "onnxruntime":
        assert path is not None
        wrong, notes = compare_outputs(path, model, x, run)
        checked["output"] = len(run.outputs)
        mismatches += [replace(mismatch, reproduce=line) for mismatch in wrong]
    notes += check.notes
    return VerificationReport(tuple(mismatches), checked, against, seed, notes)


def reproduce_line(
    command: str, path: str | None, given: str | None, machine: MachineConfig, mode: str, seed: int
) -> str:
    """Return the shell command that checks a model again: given is the input's file, None if it is drawn."""
    import shlex

    words = ["systolic", command] + ([] if path is None else [shlex.quote(path)])
    if given is not None:
        words += ["--input", shlex.quote(given)]
    elif path is not None:
        words += ["--seed", str(seed)]
    return " ".join([*words, "--array", f"{machine.array.rows}x{machine.array.cols}", "--mode", mode])


def load_model(path: str | os.PathLike[str]) -> Model:
    """Read a model by its file's suffix: ``.onnx`` by load_onnx, others by Model.load."""
    if Path(path).suffix.lower() == ".onnx":
        return load_onnx(path)
    return Model.load(path)


def random_inputs(model: Model, seed: int, batch: int = 2) -> dict[str, np.ndarray]:
    """Return inputs drawn from a seed: all codes, or standard normal numbers.

    Raises
    ------
    ValueError
        If an input has symbolic sizes beyond the batch.
    """
    rng = np.random.default_rng(seed)
    inputs = {}
    for name, shape in model.input_shapes(batch).items():
        dtype = np.dtype(model.inputs[name].dtype)
        if dtype.kind == "f":
            inputs[name] = rng.standard_normal(shape).astype(dtype)
        elif dtype.kind == "b":
            inputs[name] = rng.integers(2, size=shape).astype(dtype)
        else:
            limits = np.iinfo(dtype)
            inputs[name] = rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
    return inputs


def compare_outputs(
    path: str | os.PathLike[str], model: Model, x: np.ndarray | Mapping[str, np.ndarray], run: engine.Run
) -> tuple[list[Mismatch], tuple[str, ...]]:
    """Compare a run's outputs with ONNX Runtime's on the same file.

    Returns
    -------
    mismatches : list of Mismatch
        One for each output that differs.
    notes : tuple of str
        On how far ONNX Runtime can be believed on this CPU.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError('against="onnxruntime" needs it: pip install "systolic[onnx]"') from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    feeds = dict(x) if isinstance(x, Mapping) else {next(iter(model.inputs)): x}
    feeds = {name: np.asarray(value).astype(model.inputs[name].dtype) for name, value in feeds.items()}
    try:
        session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
        results = session.run([output.name for output in session.get_outputs()], feeds)
    except Exception as error:  # its errors have no common class
        raise ValueError(
            f"ONNX Runtime {onnxruntime.__version__} cannot run {os.fspath(path)}: {error}"
        ) from error
    mismatches = []
    for name, expected in zip(model.outputs, results, strict=True):
        wrong = _first_difference(run.outputs[name], expected)
        if wrong is not None:
            mismatches.append(Mismatch(case=f"output {name!r}", stage="output", **wrong))
    notes: tuple[str, ...] = ()
    mixed = any(
        (node.layer.x.dtype, node.layer.w.dtype) == ("uint8", "int8")
        for node in model.nodes
        if isinstance(node.layer, layers.Conv2d | layers.Dense)
    )
    if mixed and not _has_vnni():
        notes = (
            "this CPU has no VNNI: ONNX Runtime's own uint8 x int8 products saturate in int16 here, "
            "so a mismatch may be its error",
        )
    return mismatches, notes


def _has_vnni() -> bool:
    # Where the CPU cannot be asked, no doubt is cast on it.
    try:
        return "vnni" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return True
