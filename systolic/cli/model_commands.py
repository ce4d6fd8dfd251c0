"""Commands about models: ``run``, ``verify``, ``summary``."""

from __future__ import annotations

import argparse
import shutil
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from systolic import engine
from systolic._show.table import Table, percent
from systolic._text import printable
from systolic.cli.data import load_input, print_json, save_outputs
from systolic.cli.options import check_sizes, machine_of, machines_of, names_machine, shapes_of
from systolic.cli.parsing import command_again
from systolic.cli.program_commands import run_program_command, same_outputs
from systolic.cli.side_by_side import machines_table
from systolic.config import MachineConfig
from systolic.example import DATA, load_example
from systolic.frontend import is_program, load_model, read_model
from systolic.model import Model, Summary
from systolic.model.mappings import mappings_of
from systolic.model.placement import OffArray, off_array, off_array_lines
from systolic.verifier import Mismatch, ModelCheck, VerificationReport, verify
from systolic.verifier.check import compare_outputs
from systolic.verifier.inputs import random_inputs
from systolic.verifier.mismatch import not_checked_text
from systolic.verifier.runtime import runtime_version


@dataclass(frozen=True)
class _Checked:
    """A run of a model on one machine, and what its checks found."""

    run: engine.Run
    check: ModelCheck
    verdicts: dict[str, Any]
    mismatches: list[Mismatch]
    notes: list[str]
    off: Sequence[OffArray] | None
    accuracy: float | None
    tensors: dict[str, np.ndarray]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.mismatches and self.verdicts.get("program", {"passed": True})["passed"]

    @property
    def reasons(self) -> Sequence[str]:
        """Lines about what does not run on the array."""
        return self.run.reasons if self.off is None else off_array_lines(self.off)

    def to_dict(self) -> dict[str, Any]:
        """Return the run and the verdicts as JSON can hold them."""
        totals = self.run.report().totals
        return {
            **self.run.to_dict(),
            "accuracy": self.accuracy,
            "verdict": self.verdicts,
            "not_checked": [node.to_dict() for node in self.check.not_checked],
            "off_array": None if self.off is None else [node.to_dict() for node in self.off],
            "reasons": list(self.reasons),
            **{name: totals[name] for name in ("host_macs", "array_share")},
            "mismatches": [mismatch.to_dict() for mismatch in self.mismatches],
            "notes": self.notes,
        }


def run_command(options: argparse.Namespace) -> int:
    """Run a model or a program and print the cost."""
    machines = machines_of(options)
    if options.ideal:
        machines = [replace(machine, memory=None) for machine in machines]
    if options.model is not None and is_program(options.model):
        return run_program_command(options, machine_of(options, "a program"))
    x: Any
    labels = None
    notes: list[str] = []
    if options.model is None:
        example = load_example()
        model, x, labels = example.model, example.images, example.labels
    else:
        model = load_model(options.model, options.qdq, options.compute)
        if options.input is not None:
            x = load_input(options.input)
        else:
            check_sizes(options, model)
            batch = 2 if options.batch is None else options.batch
            x = random_inputs(model, options.seed, batch, shapes_of(options))
            notes.append(f"no --input: ran on random numbers, seed {options.seed}")
    found = [_checked(options, machine, model, x, labels, notes) for machine in machines]
    if len(found) > 1:
        return _show_runs(options, found)
    (of,) = found
    if options.output is not None:
        save_outputs(options.output, {**of.tensors, **of.run.outputs})
    if options.report is not None:
        of.run.report(
            options.report, model=options.model or "digits, the bundled example", source=_source(options),
            verdict=[f"{name}: {text}" for name, text in _verdict_lines(of.verdicts, of.check)]
            + [str(mismatch) for mismatch in of.mismatches] or ["not checked: --no-check"],
        )  # fmt: skip
    if options.json:
        print_json({**of.to_dict(), "model": options.model or "digits"})
    else:
        for line in of.reasons:
            print(line)
        print(of.run.table())
        print()
        if of.accuracy is not None and labels is not None:
            print(f"accuracy     {percent(of.accuracy)} of {len(labels)} test images")
        for name, text in _verdict_lines(of.verdicts, of.check):
            print(f"{name:<12} {text}")
        for mismatch in of.mismatches:
            print(mismatch)
        for note in of.notes:
            print(f"note         {printable(note)}")
    return 0 if of.passed else 1


def _checked(
    options: argparse.Namespace, machine: MachineConfig, model: Model, x: Any, labels: Any, notes: list[str]
) -> _Checked:
    """Run a model on one machine and check it as the options say."""
    check = ModelCheck(
        machine, options.mode, command_again(options), mappings_of(model.nodes, options.mapping)
    )  # fmt: skip
    verdicts: dict[str, Any] = {}
    notes = [*notes]
    how: dict[str, Any] = {
        "mapping": options.mapping, "threads": options.threads, "progress": not options.quiet,
    }  # fmt: skip
    with warnings.catch_warnings(record=True) as caught:
        for kind in (engine.LayerByLayerWarning, engine.NotFiniteWarning, engine.WideSumsWarning):
            warnings.simplefilter("always", kind)
        observe = check if machine.memory is None and not options.no_check else None
        alone = machine.memory is None
        keep = alone and options.output_all
        run = engine.run(model, x, machine=machine, mode=options.mode, observe=observe, keep=keep, **how)
        tensors = run.tensors
        notes += [str(warning.message) for warning in caught]
        if not alone and (options.output_all or not options.no_check):
            # Layer by layer, as a program has no layers to look at.
            observe = None if options.no_check else check
            layers = engine.run(
                model, x, machine=machine, mode="wavefront", observe=observe, keep=options.output_all, **how
            )
            tensors = layers.tensors
            if run.timeline is not None and not options.no_check:
                verdicts["program"] = {"passed": same_outputs(run.outputs, layers.outputs)}
    notes += run.not_finite
    accuracy = None
    if labels is not None:
        (scores,) = run.outputs.values()
        accuracy = float((scores.argmax(axis=1) == labels).mean())
    mismatches = list(check.mismatches)
    notes += check.notes
    if not options.no_check:
        passed = not check.mismatches if check.proof or check.mismatches else None
        verdicts["numpy"] = {"layers": check.proof, "passed": passed}
        runtime, wrong, why = _against_onnxruntime(options, machine, model, x, run)
        verdicts["onnxruntime"] = runtime
        mismatches += wrong
        notes += why
    off = None
    if not run.stats.macs:
        hosted = [row.name for row in run.layers if row.products] if run.timeline is not None else []
        inputs = x if isinstance(x, dict) else {next(iter(model.inputs)): x}
        known = model.infer_shapes({name: array.shape for name, array in inputs.items()})
        off = off_array(model.nodes, known, hosted)
    return _Checked(run, check, verdicts, mismatches, notes, off, accuracy, tensors)


def _show_runs(options: argparse.Namespace, found: Sequence[_Checked]) -> int:
    """Print runs on several machines side by side."""
    passed = all(of.passed for of in found)
    if options.json:
        runs = [of.to_dict() for of in found]
        print_json({"model": options.model or "digits", "passed": passed, "runs": runs})
        return 0 if passed else 1
    names = {"numpy": "numpy's", "program": "those of its layers", "onnxruntime": "ONNX Runtime's"}

    def verdict(of: _Checked) -> str:
        results = {name: each["passed"] for name, each in of.verdicts.items() if each is not None}
        wrong = [names[name] for name, result in results.items() if result is False]
        right = [names[name] for name, result in results.items() if result]
        if wrong or not of.passed:
            return f"FAILED: outputs differ from {' and '.join(wrong) or 'the expected ones'}"
        return f"outputs equal {' and '.join(right)}" if right else "not checked"

    for line in _once(line for of in found for line in of.reasons):
        print(line)
    costs = [(of.run.machine, of.run.stats) for of in found]
    title = f"{printable(options.model or 'digits')} in {options.mode} mode"
    print(machines_table(options, costs, title, [verdict(of) for of in found]))
    for mismatch in (mismatch for of in found for mismatch in of.mismatches):
        print(mismatch)
    for note in _once(note for of in found for note in of.notes):
        print(f"note         {printable(note)}")
    return 0 if passed else 1


def _source(options: argparse.Namespace) -> str:
    """Return where the input comes from."""
    if options.model is None:
        return "its test images"
    return options.input or f"random numbers, seed {options.seed}"


def _against_onnxruntime(
    options: argparse.Namespace, machine: MachineConfig, model: Model, x: Any, run: engine.Run
) -> tuple[dict[str, Any] | None, list[Mismatch], list[str]]:
    """Compare with ONNX Runtime if it is installed and the model is an ONNX file."""
    path = DATA / "digits.onnx" if options.model is None else Path(options.model)
    if path.suffix.lower() != ".onnx":
        return None, [], []
    try:
        version = runtime_version()
    except ImportError:
        return None, [], [_NO_ONNXRUNTIME]
    try:
        check = compare_outputs(path, model, x, run, machine, qdq=options.qdq)
    except Exception as error:  # a failed comparison must not hide the result of the run
        return None, [], [f"outputs were not compared: {_error_text(error)}"]
    wrong, rounding = check.mismatches, check.rounding
    delegated = [name for name in model.outputs if name not in check.compared and name not in check.rounded]
    verdict = {
        "version": version,
        "passed": not wrong if check.compared or wrong else None,
        "within": check.within,
        "rounding": None if rounding is None else rounding.to_dict(),
        "delegated": delegated,
        "in_formats": check.rounded,
    }
    if rounding is not None:
        # A sentence for display; programs read the fields.
        verdict["says"] = str(rounding)
    return verdict, wrong, list(check.notes)


def _error_text(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


_NO_ONNXRUNTIME = (
    'ONNX Runtime is not installed, so outputs were not compared with its: pip install "systolic[onnx]"'
)


def _verdict_lines(verdicts: dict[str, Any], check: ModelCheck) -> list[tuple[str, str]]:
    """Return what the outputs were compared with, and the result, of each comparison."""
    lines: list[tuple[str, str]] = []
    numpy, runtime = verdicts.get("numpy"), verdicts.get("onnxruntime")
    if numpy is not None:
        layers = f"{numpy['layers']} layer{'' if numpy['layers'] == 1 else 's'}"
        if numpy["passed"] is None:
            verdict = "nothing was checked"
        elif not numpy["passed"]:
            verdict = "FAILED against numpy"
        elif check.within:
            verdict = f"every layer's output equals numpy's, floats within {check.within:.2g}"
        else:
            verdict = "every layer's output equals numpy's, bit for bit"
        skipped = not_checked_text(check.not_checked)
        lines.append(("numpy", f"{verdict} ({layers}){f'; {skipped}' if skipped else ''}"))
    if "program" in verdicts:
        passed = verdicts["program"]["passed"]
        verdict = "outputs equal those of its layers one by one, bit for bit"
        failed = "FAILED: outputs differ from those of its layers"
        lines.append(("program", verdict if passed else failed))
    if runtime is not None:
        verdict = "outputs equal ONNX Runtime's, bit for bit"
        if runtime["passed"] is None and runtime["in_formats"]:
            formats = ", ".join(dict.fromkeys(runtime["in_formats"].values()))
            verdict = f"outputs depend on products in {formats}: not compared bit for bit with its float32"
        elif runtime["passed"] is None:
            verdict = "nothing was checked: no output has elements that this package computed"
        elif not runtime["passed"]:
            verdict = "FAILED against ONNX Runtime"
        elif runtime["rounding"]:
            verdict = runtime["says"]
        elif runtime["within"]:
            verdict = f"outputs equal ONNX Runtime's, floats within {runtime['within']:.2g}"
        if runtime["passed"] and runtime["delegated"]:
            verdict += f", but for those delegated to it, not checked: {', '.join(runtime['delegated'])}"
        if runtime["passed"] and runtime["in_formats"]:
            verdict += f", but for those in narrower formats: {', '.join(runtime['in_formats'])}"
        lines.append(("onnxruntime", f"{verdict} (version {runtime['version']})"))
    return lines


def verify_command(options: argparse.Namespace) -> int:
    """Check random cases or a model."""
    report: VerificationReport = verify(
        options.model,
        None if options.input is None else load_input(options.input),
        cases=options.cases if options.case is None else [options.case],
        seed=options.seed,
        against=options.against,
        machine=machine_of(options) if names_machine(options) else None,
        mode=options.mode,
        threads=options.threads,
        progress=not options.quiet,
        node_by_node=options.node_by_node,
        qdq=options.qdq,
        compute=options.compute,
        tolerance=options.tolerance,
        batch=options.batch,
        shapes=shapes_of(options),
        reproduce=command_again(options),
    )
    if options.json:
        print_json(report.to_dict())
    else:
        lines = str(report).splitlines()
        first = [] if report.off_array is None else off_array_lines(report.off_array)
        for line in first:
            print(line)
        if report.nodes:
            print(report.nodes_table())
            print()
        print("\n".join(lines[len(first) :]))
    return 0 if report.passed else 1


def summary_command(options: argparse.Namespace) -> int:
    """Print shapes and estimated cost of a model."""
    # A file of floats that is to be read in another way is meant to stay one.
    as_it_is = options.qdq == "float" or options.compute is not None
    model = load_model(options.model, options.qdq, options.compute) if as_it_is else read_model(options.model)
    if isinstance(model, Model):
        check_sizes(options, model)
    of = [
        engine.summary(
            model, machine=machine, batch=options.batch, shapes=shapes_of(options), mapping=options.mapping
        )
        for machine in machines_of(options)
    ]
    if len(of) > 1:
        return _show_summaries(options, of)
    (found,) = of
    if options.report is not None:
        found.save(options.report)
    if options.json:
        print_json(found.to_dict())
    else:
        for line in (*filter(None, [found.note]), *found.reasons):
            print(line)
        terminal = shutil.get_terminal_size() if sys.stdout.isatty() else None
        print(_fitted(found, options.top, options.all, terminal))
    return 0


def _show_summaries(options: argparse.Namespace, found: Sequence[Summary]) -> int:
    """Print what a model would cost on several machines side by side."""
    if options.json:
        print_json({"model": options.model, "summaries": [of.to_dict() for of in found]})
        return 0
    for line in _once(line for of in found for line in (*filter(None, [of.note]), *of.reasons)):
        print(line)
    costs = [(of.machine, of.stats if of.totals["complete"] else None) for of in found]
    print(machines_table(options, costs, f"{printable(options.model)}, estimated"))
    return 0


def _once(lines: Iterable[str]) -> list[str]:
    """Return lines without those that are there already."""
    return list(dict.fromkeys(lines))


# Columns to drop in a narrow terminal, in this order.
_DISPENSABLE = (
    "not on the array", "parameters", "written", "dtype", "#", "utilization", "reads", "parameter bytes",
    "on", "writes", "product",
)  # fmt: skip

# Length of a clipped name.
_NAME = 20

# Terminal lines that are not rows of a table: heads, rules, totals, the prompt.
_FRAME = 8


def _fitted(found: Summary, top: int | None, everything: bool, terminal: Any) -> str:
    """Return a summary's table, cut to the terminal's size if there is a terminal."""
    if everything or (top is None and terminal is None):
        return str(found.table())
    rows = top if top is not None else max(terminal.lines - _FRAME, _FRAME)
    table = found.table(top=rows)
    hidden = len(found.nodes) - len(table.rows)
    more = (
        f"\n{hidden:,} of {len(found.nodes):,} nodes are not shown: --all shows every one" if hidden else ""
    )
    if terminal is None:
        return f"{table}{more}"

    def fits(table: Table) -> bool:
        # Names may be clipped while they stay distinct; numbers and sizes are not.
        rest = table.without("node").without("layer")
        names = sum(min(_NAME, max(len(row[i]) for row in table.rows)) + 2 for i in _places(table))
        return max(map(len, rest.text().splitlines()[1:])) + names <= terminal.columns

    for name in _DISPENSABLE:
        if not table.rows or fits(table):
            break
        table = table.without(name)
    return table.text(terminal.columns) + more


def _places(table: Table) -> list[int]:
    """Return the indices of the columns that hold names."""
    return [i for i, column in enumerate(table.columns) if column.name in ("node", "layer")]
