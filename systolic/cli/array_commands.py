"""Commands about machines and this installation: ``gemm``, ``vectors``, ``validate``, ``bench``, ``info``."""

from __future__ import annotations

import argparse

import numpy as np

from systolic import benchmark, engine, presets
from systolic._show.progress import shown
from systolic._show.table import card_text, percent, seconds, si
from systolic.accelerators import validate_tpu_v1
from systolic.cli.data import load_input, print_json
from systolic.cli.options import machine_of
from systolic.config import ArrayConfig
from systolic.gemm import Gemm
from systolic.info import info, text
from systolic.reference import oracle
from systolic.vectors import write_vectors

VALIDATIONS = {"tpu-v1": validate_tpu_v1}
"""What ``systolic validate`` can compare, by preset."""


def gemm_command(options: argparse.Namespace) -> int:
    """Multiply random matrices and print the cost."""
    machine = machine_of(options)
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
        print_json(
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
            ("dataflow", machine.array.dataflow.replace("_", " ")),
            ("cycles", f"{stats.cycles:,}"),
            ("time", seconds(time_seconds)),
            ("folds", f"{stats.folds:,}"),
            ("MACs", f"{stats.macs:,}"),
            ("utilization", percent(stats.utilization)),
            ("rate", si(stats.macs / time_seconds, "MAC/s") if time_seconds else "-"),
            ("weights in", f"{stats.weight_bytes:,} bytes, each time they enter the array"),
            ("activations in", f"{stats.activation_bytes:,} bytes, each time they enter the array"),
            ("accumulators out", f"{stats.output_bytes:,} bytes"),
            ("verdict", "estimated in closed form, nothing run" if passed is None else verdict),
        ]
        print(card_text(f"{gemm.m} x {gemm.k} x {gemm.n}", pairs))
    return 1 if passed is False else 0


def vectors_command(options: argparse.Namespace) -> int:
    """Write the port values of a product for RTL."""
    x, w = load_input(options.x), load_input(options.w)
    for path, values in ((options.x, x), (options.w, w)):
        if not isinstance(values, np.ndarray):
            raise ValueError(f"{path} holds several arrays; vectors takes two .npy files of one matrix each")
    default = presets.TPU_V1.array
    array = ArrayConfig(
        options.rows or default.rows,
        options.cols or default.cols,
        dataflow=options.dataflow or default.dataflow,
    )
    manifest = write_vectors(x, w, options.out, array=array)
    if options.json:
        # The manifest has a schema number of its own, for the files.
        print_json({"out": options.out, "manifest": manifest})
    else:
        files = ", ".join(manifest["files"])
        print(f"{options.out}: {manifest['lines']:,} lines for {manifest['cycles']:,} cycles in {files}")
        print("manifest.json states the convention")
    return 0


def validate_command(options: argparse.Namespace) -> int:
    """Compare a preset with what was published about the machine."""
    validation = VALIDATIONS[options.machine]()
    if options.json:
        print_json({"preset": options.machine, **validation.to_dict()})
    else:
        print(validation.text())
    return 0 if validation.passed else 1


def bench_command(options: argparse.Namespace) -> int:
    """Benchmark the emulator."""
    of_one_array = any(value is not None for value in (options.array, options.preset, options.m))
    if of_one_array and (options.extent != "usual" or options.markdown):
        raise ValueError("--array, --preset and --m choose other rows; leave out --quick, --full, --markdown")
    threads = options.threads or 1
    heading = benchmark.title()
    if of_one_array:
        array = machine_of(options).array
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
        print_json({"info": info(), "title": heading, "measurements": measured, "notes": notes})
    elif options.markdown:
        print("\n".join([f"{heading}.\n", *map(benchmark.markdown, sections)]))
    elif of_one_array:
        print(benchmark.table(sections[0].measurements, heading))
    else:
        tables = [benchmark.table(s.measurements, s.title, "\n".join(s.notes)) for s in sections]
        print("\n\n".join([heading, *map(str, tables)]))
    return 0


def info_command(options: argparse.Namespace) -> int:
    """Print versions, kernels, threads and presets."""
    if options.json:
        print_json(info())
    else:
        print(text(info()))
    return 0
