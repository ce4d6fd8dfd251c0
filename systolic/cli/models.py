"""Commands about models: ``run``, ``verify``, ``summary``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from systolic import engine
from systolic._show.table import percent
from systolic._text import printable
from systolic.cli.files import check_output, load_input, print_json, save_outputs
from systolic.cli.options import machine_of
from systolic.example import DATA, load_example
from systolic.model import Model
from systolic.report.base import check_path
from systolic.verifier import Mismatch, ModelCheck, VerificationReport, verify
from systolic.verifier.check import compare_outputs, load_model, random_inputs, reproduce_line
from systolic.verifier.runtime import runtime_version


def run_command(options: argparse.Namespace) -> int:
    """Run a model and say what it cost."""
    machine = machine_of(options)
    x: Any
    labels = None
    notes: list[str] = []
    if options.model is None:
        if options.input is not None:
            raise ValueError(
                "--input goes with a MODEL; without one the bundled example runs on its own images"
            )
        example = load_example()
        model, x, labels = example.model, example.images, example.labels
    else:
        model = load_model(options.model, options.qdq)
        if options.input is not None:
            x = load_input(options.input)
        else:
            x = random_inputs(model, options.seed)
            notes.append(f"no --input: ran on random numbers, seed {options.seed}")
    if options.output is not None:
        check_output(options.output)
    if options.report is not None:
        check_path(options.report)
    check = ModelCheck(
        machine,
        options.mode,
        reproduce_line("run", options.model, options.input, machine, options.mode, options.seed, options.qdq),
    )
    run = engine.run(
        model, x, machine=machine, mode=options.mode, threads=options.threads, progress=not options.quiet,
        observe=None if options.no_check else check,
    )  # fmt: skip
    accuracy = None
    if labels is not None:
        (scores,) = run.outputs.values()
        accuracy = float((scores.argmax(axis=1) == labels).mean())
    verdicts: dict[str, Any] = {}
    mismatches = list(check.mismatches)
    notes += check.notes
    if not options.no_check:
        verdicts["numpy"] = {"layers": check.checked, "passed": not check.mismatches}
        runtime, wrong, why = _against_onnxruntime(options, model, x, run)
        verdicts["onnxruntime"] = runtime
        mismatches += wrong
        notes += why
    if options.output is not None:
        save_outputs(options.output, run.outputs)
    if options.report is not None:
        run.report().save(options.report)
    if options.json:
        print_json(
            {
                **run.to_dict(),
                "model": options.model or "digits",
                "accuracy": accuracy,
                "verdict": verdicts,
                "mismatches": [mismatch.to_dict() for mismatch in mismatches],
                "notes": notes,
            }
        )
    else:
        print(run.table())
        print()
        if accuracy is not None and labels is not None:
            print(f"accuracy     {percent(accuracy)} of {len(labels)} test images")
        _print_verdict(verdicts)
        for mismatch in mismatches:
            print(mismatch)
        for note in notes:
            print(f"note         {printable(note)}")
    return 1 if mismatches else 0


def _against_onnxruntime(
    options: argparse.Namespace, model: Model, x: Any, run: engine.Run
) -> tuple[dict[str, Any] | None, list[Mismatch], list[str]]:
    """Compare with ONNX Runtime where it is installed and the model came as ONNX."""
    path = DATA / "digits.onnx" if options.model is None else Path(options.model)
    if path.suffix.lower() != ".onnx":
        return None, [], []
    try:
        version = runtime_version()
    except ImportError:
        return None, [], [_NO_ONNXRUNTIME]
    try:
        check = compare_outputs(path, model, x, run, qdq=options.qdq)
    except ValueError as error:
        return None, [], [f"outputs were not compared: {error}"]
    verdict = {"version": version, "passed": not check.mismatches, "within": check.within}
    return verdict, check.mismatches, list(check.notes)


_NO_ONNXRUNTIME = (
    'ONNX Runtime is not installed, so outputs were not compared with its: pip install "systolic[onnx]"'
)


def _print_verdict(verdicts: dict[str, Any]) -> None:
    numpy, runtime = verdicts.get("numpy"), verdicts.get("onnxruntime")
    if numpy is not None:
        verdict = (
            "every layer's output equals numpy's, bit for bit" if numpy["passed"] else "FAILED against numpy"
        )
        print(f"numpy        {verdict} ({numpy['layers']} layers)")
    if runtime is not None:
        verdict = "outputs equal ONNX Runtime's, bit for bit"
        if not runtime["passed"]:
            verdict = "FAILED against ONNX Runtime"
        elif runtime["within"]:
            verdict = f"outputs equal ONNX Runtime's, floats within {runtime['within']:.2g}"
        print(f"onnxruntime  {verdict} (version {runtime['version']})")


def verify_command(options: argparse.Namespace) -> int:
    """Check random cases or a model."""
    if options.model is None and options.input is not None:
        raise ValueError("--input goes with a MODEL")
    if options.model is not None and options.case is not None:
        raise ValueError("--case names a random case: leave out MODEL to check it, or --case to check MODEL")
    report: VerificationReport = verify(
        options.model,
        None if options.input is None else load_input(options.input),
        cases=options.cases if options.case is None else [options.case],
        seed=options.seed,
        against=options.against,
        machine=None if options.array is None and options.preset is None else machine_of(options),
        mode=options.mode,
        threads=options.threads,
        progress=not options.quiet,
        node_by_node=options.node_by_node,
        qdq=options.qdq,
        tolerance=options.tolerance,
    )
    if options.json:
        print_json(report.to_dict())
    else:
        if report.nodes:
            print(report.nodes_table())
            print()
        print(report)
    return 0 if report.passed else 1


def summary_command(options: argparse.Namespace) -> int:
    """Print what a model holds and would cost."""
    if options.report is not None:
        check_path(options.report)
    shapes = dict(options.shape)
    found = load_model(options.model, options.qdq).summary(
        machine=machine_of(options), batch=options.batch, shapes=shapes or None
    )
    if options.report is not None:
        found.save(options.report)
    if options.json:
        print_json(found.to_dict())
    else:
        print(found)
    return 0
