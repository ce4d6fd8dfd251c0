"""The shell's ``systolic``: parses, calls, prints.

Exit status: 0 when all is right, 1 when a check fails, 2 for bad usage or unreadable or unsupported
input, 130 on Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from systolic import benchmark, engine, presets
from systolic._files import replacing
from systolic._show.progress import shown
from systolic._show.table import card_text, percent, seconds, si
from systolic._version import __version__
from systolic.config import ArrayConfig, MachineConfig
from systolic.example import DATA, load_example
from systolic.gemm import Gemm
from systolic.info import info, text
from systolic.model import Model
from systolic.reference import oracle
from systolic.vectors import write_vectors
from systolic.verifier import Mismatch, ModelCheck, VerificationReport, verify
from systolic.verifier.check import AGAINST, compare_outputs, load_model, random_inputs, reproduce_line

SCHEMA = 1
"""Version of what ``--json`` prints."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        # Rules and dashes must not stop a pipe that cannot encode them.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        parser = _parser()
        options = parser.parse_args(arguments)
        if options.command is None:
            parser.print_help(sys.stderr)
            return 2
    except SystemExit:  # --help, --version and bad usage
        with contextlib.suppress(BrokenPipeError):
            _written(sys.stdout)
        raise
    try:
        status = options.call(options)
        # What stands in the buffer is written here, where an error can be handled.
        _written(sys.stdout)
        return status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read our output has gone
        return 0
    except (ValueError, TypeError, OSError, ImportError, MemoryError) as error:
        print(f"systolic {options.command}: {error}", file=sys.stderr)
        return 2


def _written(stream: Any) -> None:
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        # Keep Python from trying again, and complaining, at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise


# Commands


def _run(options: argparse.Namespace) -> int:
    machine = _machine(options)
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
        model = load_model(options.model)
        if options.input is not None:
            x = _load_input(options.input)
        else:
            x = random_inputs(model, options.seed)
            notes.append(f"no --input: ran on random numbers, seed {options.seed}")
    if options.output is not None:
        _check_output(options.output)
    check = ModelCheck(
        machine,
        options.mode,
        reproduce_line("run", options.model, options.input, machine, options.mode, options.seed),
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
    if not options.no_check:
        verdicts["numpy"] = {"layers": check.checked, "passed": not check.mismatches}
        runtime, wrong, why = _against_onnxruntime(options.model, model, x, run)
        verdicts["onnxruntime"] = runtime
        mismatches += wrong
        notes += why
    if options.output is not None:
        _save_outputs(options.output, run.outputs)
    if options.json:
        _print_json(
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
            print(f"note         {note}")
    return 1 if mismatches else 0


def _against_onnxruntime(
    path: str | None, model: Model, x: Any, run: engine.Run
) -> tuple[dict[str, Any] | None, list[Mismatch], list[str]]:
    """Compare with ONNX Runtime where it is installed and the model came as ONNX."""
    if path is not None and Path(path).suffix.lower() != ".onnx":
        return None, [], []
    try:
        import onnxruntime
    except ImportError:
        return None, [], [_NO_ONNXRUNTIME]
    try:
        wrong, notes = compare_outputs(DATA / "digits.onnx" if path is None else path, model, x, run)
    except ValueError as error:
        return None, [], [f"outputs were not compared: {error}"]
    return {"version": onnxruntime.__version__, "passed": not wrong}, wrong, list(notes)


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
        verdict = (
            "outputs equal ONNX Runtime's, bit for bit"
            if runtime["passed"]
            else "FAILED against ONNX Runtime"
        )
        print(f"onnxruntime  {verdict} (version {runtime['version']})")


def _verify(options: argparse.Namespace) -> int:
    if options.model is None and options.input is not None:
        raise ValueError("--input goes with a MODEL")
    report: VerificationReport = verify(
        options.model,
        None if options.input is None else _load_input(options.input),
        cases=options.cases if options.case is None else [options.case],
        seed=options.seed,
        against=options.against,
        machine=None if options.array is None and options.preset is None else _machine(options),
        mode=options.mode,
        threads=options.threads,
        progress=not options.quiet,
    )
    if options.json:
        _print_json(report.to_dict())
    else:
        print(report)
    return 0 if report.passed else 1


def _gemm(options: argparse.Namespace) -> int:
    machine = _machine(options)
    gemm = Gemm(options.m, options.k, options.n)
    stats = engine.estimate(gemm, machine=machine)
    passed = None
    if not options.estimate:
        rng = np.random.default_rng(options.seed)
        try:
            x = rng.integers(-128, 128, (gemm.m, gemm.k), dtype=np.int8)
            w = rng.integers(-128, 128, (gemm.k, gemm.n), dtype=np.int8)
        except (MemoryError, ValueError) as error:
            raise MemoryError(
                f"the operands do not fit this machine ({error}); --estimate needs none"
            ) from error
        result = engine.matmul(
            x, w, array=machine.array, mode=options.mode, threads=options.threads, progress=not options.quiet
        )
        passed = bool(np.array_equal(result.acc, oracle.matmul(x, w))) and result.stats == stats
        stats = result.stats
    time_seconds = machine.seconds(stats.cycles)
    if options.json:
        _print_json(
            {
                "gemm": gemm.to_dict(),
                "machine": machine.to_dict(),
                "mode": "estimate" if options.estimate else options.mode,
                "stats": stats.to_dict(),
                "utilization": stats.utilization,
                "machine_seconds": time_seconds,
                "passed": passed,
            }
        )
    else:
        verdict = "sums equal numpy's, cycles the closed form" if passed else "FAILED: sums or cycles differ"
        pairs = [
            ("array", f"{machine.array.rows} x {machine.array.cols} at {machine.clock_mhz:g} MHz"),
            ("cycles", f"{stats.cycles:,}"),
            ("time", seconds(time_seconds)),
            ("folds", f"{stats.folds:,}"),
            ("MACs", f"{stats.macs:,}"),
            ("utilization", percent(stats.utilization)),
            ("rate", si(stats.macs / time_seconds, "MAC/s") if time_seconds else "-"),
            ("weights in", f"{stats.weight_bytes:,} bytes, a tile each time it is loaded"),
            ("activations in", f"{stats.activation_bytes:,} bytes, a row each time it is streamed"),
            ("sums out", f"{stats.output_bytes:,} bytes"),
            ("verdict", "estimated in closed form, nothing run" if passed is None else verdict),
        ]
        print(card_text(f"{gemm.m} x {gemm.k} x {gemm.n}", pairs))
    return 1 if passed is False else 0


def _vectors(options: argparse.Namespace) -> int:
    x, w = _load_input(options.x), _load_input(options.w)
    for path, values in ((options.x, x), (options.w, w)):
        if not isinstance(values, np.ndarray):
            raise ValueError(f"{path} holds several arrays; vectors takes two .npy files of one matrix each")
    default = presets.TPU_V1.array
    array = ArrayConfig(options.rows or default.rows, options.cols or default.cols)
    manifest = write_vectors(x, w, options.out, array=array)
    if options.json:
        # The manifest has its own schema number, which is the files'.
        _print_json({"out": options.out, "manifest": manifest})
    else:
        files = ", ".join(manifest["files"])
        print(f"{options.out}: {manifest['lines']:,} lines for {manifest['cycles']:,} cycles in {files}")
        print("manifest.json states the convention")
    return 0


def _bench(options: argparse.Namespace) -> int:
    of_one_array = any(value is not None for value in (options.array, options.preset, options.m))
    if of_one_array and (options.extent != "usual" or options.markdown):
        raise ValueError("--array, --preset and --m choose other rows; leave out --quick, --full, --markdown")
    threads = options.threads or 1
    heading = benchmark.title()
    if of_one_array:
        array = _machine(options).array
        rows = benchmark.bench(
            rows=array.rows, cols=array.cols, m=options.m or 2048, rounds=options.rounds, threads=threads
        )
        sections = [benchmark.Section("", tuple(rows))]
    else:
        with shown(not options.quiet, "bench") as report:
            sections = benchmark.suite(
                rounds=options.rounds, threads=threads, extent=options.extent, report=report
            )
    if options.json:
        measured = [{"section": s.title, **m.to_dict()} for s in sections for m in s.measurements]
        notes = {s.title: list(s.notes) for s in sections if s.notes}
        _print_json({"info": info(), "title": heading, "measurements": measured, "notes": notes})
    elif options.markdown:
        print("\n".join([f"{heading}.\n", *map(benchmark.markdown, sections)]))
    elif of_one_array:
        print(benchmark.table(sections[0].measurements, heading))
    else:
        tables = [benchmark.table(s.measurements, s.title, "\n".join(s.notes)) for s in sections]
        print("\n\n".join([heading, *map(str, tables)]))
    return 0


def _info(options: argparse.Namespace) -> int:
    if options.json:
        _print_json(info())
    else:
        print(text(info()))
    return 0


# Arguments


def _machine(options: argparse.Namespace) -> MachineConfig:
    preset = presets.get(options.preset or "tpu-v1")
    if options.array is None:
        return preset
    return MachineConfig(options.array, clock_mhz=preset.clock_mhz)


def _array_size(value: str) -> ArrayConfig:
    rows, times, cols = value.lower().partition("x")
    try:
        if not times:
            raise ValueError
        size = int(rows), int(cols)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be ROWSxCOLS, such as 256x256, not {value!r}") from None
    try:
        return ArrayConfig(*size)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _count(minimum: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be an integer, not {value!r}") from None
        if number < minimum:
            raise argparse.ArgumentTypeError(f"must be at least {minimum}, not {number}")
        return number

    return parse


def _load_input(path: str) -> Any:
    """Read --input: an .npy array, or an .npz with an array per input."""
    with open(path, "rb") as file:
        try:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            with loaded:
                return {name: loaded[name] for name in loaded.files}
        except Exception as error:  # numpy, zipfile and zlib raise many kinds over a damaged file
            raise ValueError(
                f"{path} is not an .npy or .npz file of numbers, or is damaged; numpy.save writes one"
            ) from error


def _check_output(path: str) -> None:
    # Before anything runs, not after it.
    target = Path(path)
    if target.is_dir():
        raise ValueError(f"--output {path} is a folder; name a file in it, such as {target / 'y.npz'}")
    if not target.parent.is_dir():
        raise ValueError(f"--output {path}: there is no folder {target.parent}")


def _save_outputs(path: str, outputs: Mapping[str, np.ndarray]) -> None:
    """Write --output, an .npz, under another name first: it is complete or absent."""
    # As numpy.savez does, which cannot take every name.
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in outputs.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def _print_json(values: dict[str, Any]) -> None:
    print(json.dumps({"schema": SCHEMA, **values}, indent=2, allow_nan=False))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="systolic",
        description="A cycle-exact, bit-exact emulator of a TPU's weight-stationary systolic array.",
        epilog="Exit status: 0 all right, 1 a check failed, 2 bad usage or input, 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"systolic {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    def command(name: str, call: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(call=call)
        sub.add_argument("--json", action="store_true", help="print JSON for programs")
        return sub

    def machine(sub: argparse.ArgumentParser) -> None:
        group = sub.add_mutually_exclusive_group()
        group.add_argument(
            "--array", type=_array_size, metavar="ROWSxCOLS", help="size of the array, such as 128x128"
        )
        group.add_argument("--preset", choices=presets.names(), help="a named machine (default: tpu-v1)")

    def running(sub: argparse.ArgumentParser, mode: str | None = "cycle") -> None:
        sub.add_argument(
            "--mode", choices=engine.MODES, default=mode,
            help="cycle: every register on every cycle (default); wavefront: the same results, faster",
        )  # fmt: skip
        sub.add_argument("--threads", type=_count(1), help="threads to use (default: all cores)")
        sub.add_argument("--quiet", action="store_true", help="show no progress")

    sub = command(
        "run", _run, "Run a quantized model on the array; without MODEL, the bundled digits network."
    )
    sub.add_argument(
        "model", nargs="?", metavar="MODEL", help="an .onnx file, or a .zip that Model.save wrote"
    )
    sub.add_argument("--input", metavar="X.npy", help="the input; .npz for several (default: random)")
    sub.add_argument("--output", metavar="Y.npz", help="write the outputs to this file")
    sub.add_argument("--seed", type=_count(0), default=0, help="of the random input (default: 0)")
    sub.add_argument("--no-check", action="store_true", help="do not compare with numpy and ONNX Runtime")
    machine(sub)
    running(sub)

    sub = command(
        "verify", _verify, "Check random cases, or a model layer by layer, bit for bit and cycle for cycle."
    )
    sub.add_argument("model", nargs="?", metavar="MODEL", help="check this model instead of random cases")
    sub.add_argument("--input", metavar="X.npy", help="the model's input (default: random)")
    sub.add_argument("--cases", type=_count(1), default=200, help="how many random cases (default: 200)")
    sub.add_argument("--case", type=_count(0), metavar="N", help="only the case of this number")
    sub.add_argument("--seed", type=_count(0), default=0, help="of the random cases (default: 0)")
    sub.add_argument("--against", choices=AGAINST, default="reference", help="what defines the results")
    machine(sub)
    running(sub, None)

    sub = command(
        "gemm", _gemm, "Multiply random (M, K) x (K, N) int8 matrices on the array and say what it costs."
    )
    for name in ("m", "k", "n"):
        sub.add_argument(name, type=_count(0), metavar=name.upper())
    sub.add_argument("--estimate", action="store_true", help="closed form only: run nothing")
    sub.add_argument("--seed", type=_count(0), default=0, help="of the operands (default: 0)")
    machine(sub)
    running(sub)

    sub = command(
        "vectors", _vectors, "Write port values and results of a product as $readmemh files for RTL."
    )
    sub.add_argument("x", metavar="X.npy", help="activations (M, K), int8 or uint8")
    sub.add_argument("w", metavar="W.npy", help="weights (K, N), int8 or uint8")
    sub.add_argument("--out", required=True, metavar="DIR", help="a folder to make")
    sub.add_argument("--rows", type=_count(1), help="rows of the array (default: 256)")
    sub.add_argument("--cols", type=_count(1), help="columns of the array (default: 256)")

    sub = command("bench", _bench, "Measure the emulator beside numpy, torch and ONNX Runtime, as ratios.")
    sub.add_argument("--rounds", type=_count(1), default=7, help="pairs of runs (default: 7)")
    sub.add_argument(
        "--threads", type=_count(1), help="of wavefront mode and what stands beside it (default: 1)"
    )
    extent = sub.add_mutually_exclusive_group()
    for name, what in (("quick", "fewer rows, seconds"), ("full", "more rows, minutes")):
        extent.add_argument(
            f"--{name}", dest="extent", action="store_const", const=name, default="usual", help=what
        )
    sub.add_argument("--markdown", action="store_true", help="print Markdown tables")
    sub.add_argument("--quiet", action="store_true", help="show no progress")
    sub.add_argument("--m", type=_count(1), help="rows of x for --array (default: 2048)")
    machine(sub)  # another array than 256 x 256: its rows alone

    command("info", _info, "Show versions, the kernel's instruction set, threads and presets.")
    return parser
