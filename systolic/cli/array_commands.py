"""Commands about machines and this installation: ``gemm``, ``validate``, ``bench``, ``info``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from systolic import benchmark, engine
from systolic._show.progress import shown
from systolic._show.table import card_text, percent, seconds, si
from systolic.accelerators import validate_tpu_v1
from systolic.cli.data import print_json, random_operand
from systolic.cli.options import machine_of, machines_of
from systolic.cli.rules import names_rows
from systolic.cli.side_by_side import machines_table
from systolic.config import ArrayConfig, MachineConfig
from systolic.engine import Result
from systolic.gemm import Gemm
from systolic.info import info, text
from systolic.reference import oracle
from systolic.stats import Stats
from systolic.tiling import sizes_of
from systolic.verifier.locate import arithmetic

VALIDATIONS = {"tpu-v1": validate_tpu_v1}
"""What ``systolic validate`` can compare, by preset."""


def gemm_command(options: argparse.Namespace) -> int:
    """Multiply random matrices and print the cost."""
    gemm = Gemm(options.m, options.k, options.n)
    options.mode = options.mode or "cycle"
    if options.dataflow == "all":
        return _on_all_dataflows(gemm, options)
    machines = machines_of(options)
    found = [_cost(gemm, machine, options) for machine in machines]
    verdicts = [passed for _, passed in found]
    if len(machines) > 1:
        _show_costs(gemm, machines, found, options)
    elif options.json:
        print_json({**_described(gemm, options), **_cost_dict(machines[0], *found[0])})
    else:
        print(_cost_card(gemm, machines[0], *found[0]))
    return 1 if False in verdicts else 0


def _cost(gemm: Gemm, machine: MachineConfig, options: argparse.Namespace) -> tuple[Stats, bool | None]:
    """Return what a product takes on a machine, and whether the run was right; None without one."""
    stats = engine.estimate(gemm, machine=machine)
    if options.estimate:
        return stats, None
    result, right = _multiplied(gemm, machine.array, options)
    return result.stats, right and result.stats == stats


def _described(gemm: Gemm, options: argparse.Namespace) -> dict[str, Any]:
    return {"gemm": gemm.to_dict(), "mode": "estimate" if options.estimate else options.mode}


def _cost_dict(machine: MachineConfig, stats: Stats, passed: bool | None) -> dict[str, Any]:
    return {
        "machine": machine.to_dict(),
        "stats": stats.to_dict(),
        "utilization": stats.utilization,
        "seconds": machine.seconds(stats.cycles),
        "passed": passed,
    }


def _cost_card(gemm: Gemm, machine: MachineConfig, stats: Stats, passed: bool | None) -> str:
    time_seconds = machine.seconds(stats.cycles)
    pairs = [
        ("array", f"{machine.array.rows} x {machine.array.cols} at {machine.clock_mhz:g} MHz"),
        ("dataflow", machine.array.dataflow.replace("_", " ")),
        ("numbers", machine.array.format.text),
        ("cycles", f"{stats.cycles:,}"),
        ("time", seconds(time_seconds)),
        ("folds", f"{stats.folds:,}"),
        ("MACs", f"{stats.macs:,}"),
        ("utilization", percent(stats.utilization)),
        ("rate", si(stats.macs / time_seconds, "MAC/s") if time_seconds else "-"),
        ("weights in", f"{stats.weight_bytes:,} bytes, each time they enter the array"),
        ("activations in", f"{stats.activation_bytes:,} bytes, each time they enter the array"),
        ("accumulators out", f"{stats.output_bytes:,} bytes"),
        ("verdict", _verdict(passed)),
    ]
    return card_text(f"{gemm.m} x {gemm.k} x {gemm.n}", pairs)


def _show_costs(
    gemm: Gemm, machines: Sequence[MachineConfig], found: Sequence[tuple[Stats, bool | None]],
    options: argparse.Namespace,
) -> None:  # fmt: skip
    """Print what a product takes on several machines, a row for each."""
    if options.json:
        listed = [_cost_dict(machine, *cost) for machine, cost in zip(machines, found, strict=True)]
        passed = None if options.estimate else all(passed for _, passed in found)
        print_json({**_described(gemm, options), "passed": passed, "machines": listed})
        return
    costs = [(machine, stats) for machine, (stats, _) in zip(machines, found, strict=True)]
    verdicts = [_verdict(passed) for _, passed in found]
    print(machines_table(options, costs, f"{gemm.m} x {gemm.k} x {gemm.n}", verdicts))


def _on_all_dataflows(gemm: Gemm, options: argparse.Namespace) -> int:
    """Multiply random matrices on each dataflow and print the costs side by side."""
    machine = machine_of(options, "--dataflow all")
    found = engine.compare(gemm, machine=machine)
    passed = None
    if not options.estimate:
        passed = True
        for name, cost in found.items():
            result, right = _multiplied(gemm, replace(machine.array, dataflow=name), options)
            passed = passed and right and result.stats == cost.stats
    if options.json:
        mode = "estimate" if options.estimate else options.mode
        print_json({"gemm": gemm.to_dict(), "mode": mode, **found.to_dict(), "passed": passed})
    else:
        print(found)
        print(f"verdict: {_verdict(passed)}")
    return 1 if passed is False else 0


def _multiplied(gemm: Gemm, array: ArrayConfig, options: argparse.Namespace) -> tuple[Result, bool]:
    """Multiply random matrices; return the result, and whether its sums are numpy's."""
    rng, numbers = np.random.default_rng(options.seed or 0), array.format
    try:
        x = random_operand(rng, (gemm.m, gemm.k), numbers.activation)
        w = random_operand(rng, (gemm.k, gemm.n), numbers.weight)
    except (MemoryError, ValueError) as error:
        raise MemoryError(f"the operands do not fit this machine ({error}); --estimate needs none") from error
    result = engine.matmul(
        x, w, array=array, mode=options.mode, threads=options.threads, progress=not options.quiet
    )
    if numbers.is_plain:
        expected = oracle.matmul(x, w)
    else:
        expected = arithmetic(array).matmul(x, w, sizes_of(gemm, array).k_step)
    return result, bool(np.array_equal(result.acc, expected))


def _verdict(passed: bool | None) -> str:
    if passed is None:
        return "estimated in closed form, nothing run"
    return "sums equal numpy's, cycles the closed form" if passed else "FAILED: sums or cycles differ"


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
    of_one_array = names_rows(options)
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
