"""Commands about programs: ``compile``, and ``run`` of what it wrote."""

from __future__ import annotations

import argparse
import warnings
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from systolic import engine
from systolic._show.report import bytes_text
from systolic._show.table import Table, card_text, percent, seconds
from systolic.analysis import explain
from systolic.cli.data import load_input, print_json, save_outputs
from systolic.cli.options import check_sizes, machine_of, shapes_of
from systolic.config import MachineConfig, machine_text
from systolic.frontend import load_model
from systolic.isa import HostCall, Program
from systolic.machine import Timeline, time_program


def compile_command(options: argparse.Namespace) -> int:
    """Compile a model into a program and print what it takes."""
    machine = machine_of(options)
    model = load_model(options.model, options.qdq, options.compute)
    check_sizes(options, model)
    program = engine.compile(
        model, machine=machine, batch=options.batch, mapping=options.mapping, shapes=shapes_of(options),
        reuse=options.reuse,
    )  # fmt: skip
    timeline = time_program(program, machine)
    if options.output is not None:
        program.save(options.output)
    if options.trace is not None:
        timeline.save_trace(options.trace)
    explained = explain(program, machine) if options.explain else None
    if options.json:
        described = {"model": options.model, "output": options.output, **described_program(program, timeline)}
        print_json(described if explained is None else {**described, "explain": explained.to_dict()})
    else:
        print(card_text(options.model, program_pairs(program, timeline)))
        print()
        print(layers_table(timeline))
        if explained is not None:
            print(f"\n{explained.table()}")
        for path, what in ((options.output, "the program"), (options.trace, "the trace")):
            if path is not None:
                print(f"{path}: {what}")
    return 0


def run_program_command(options: argparse.Namespace, machine: MachineConfig) -> int:
    """Run a program and print the cost."""
    program = Program.load(options.model)
    notes = ["outputs were not checked: a program says nothing about its model; run the model for that"]
    if options.input is None:
        x = random_tensors(program, options.seed)
        notes.append(f"no --input: ran on random numbers, seed {options.seed}")
    else:
        x = load_input(options.input)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", engine.NotFiniteWarning)
        run = engine.run(
            program, x, machine=machine, mode=options.mode, threads=options.threads,
            progress=not options.quiet,
        )  # fmt: skip
    notes += [*(str(warning.message) for warning in caught), *run.not_finite]
    if options.output is not None:
        save_outputs(options.output, run.outputs)
    if options.report is not None:
        source = options.input or f"random numbers, seed {options.seed}"
        why = "not checked: a program says nothing about its model"
        run.report(options.report, source=source, verdict=why)
    if options.json:
        print_json({**run.to_dict(), "model": options.model, "notes": notes})
    else:
        print(run.table())
        print()
        for note in notes:
            print(f"note         {note}")
    return 0


def random_tensors(program: Program, seed: int) -> dict[str, np.ndarray]:
    """Return random numbers for a program's inputs."""
    rng = np.random.default_rng(seed)

    def drawn(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        if dtype.kind == "f":
            return rng.uniform(-1, 1, shape).astype(dtype)
        if dtype.kind == "b":
            return rng.integers(0, 2, shape).astype(dtype)
        least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
        return rng.integers(least, most, shape, dtype, endpoint=True)

    return {name: drawn(tensor.shape, np.dtype(tensor.dtype)) for name, tensor in program.inputs.items()}


def same_outputs(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> bool:
    """Whether outputs are equal, bit for bit but for NaNs, of which any equals any."""
    return ours.keys() == theirs.keys() and all(
        value.dtype == theirs[name].dtype
        and value.shape == theirs[name].shape
        and np.array_equal(value, theirs[name], equal_nan=value.dtype.kind in "fc")
        for name, value in ours.items()
    )


def layers_table(timeline: Timeline) -> Table:
    """Return the table of a program's layers without the causes that take no cycles."""
    table = timeline.layers_table()
    for cause, count in timeline.causes.items():
        table = table if count else table.without(cause.replace("_", " "))
    return table


def host_calls(program: Program) -> Counter[str]:
    """Return what the host computes, and how often."""
    return Counter(program.function_of(item).name for item in program if isinstance(item, HostCall))


def program_pairs(program: Program, timeline: Timeline) -> list[tuple[str, Any]]:
    """Return what a program holds and takes, as names and text."""
    machine, stats = timeline.machine, timeline.stats
    kinds = Counter(type(item).mnemonic for item in program)
    calls = host_calls(program)
    tiles = 0 if program.weights is None else len(program.weights)
    size = 0 if program.weights is None else program.weights.nbytes
    used = [
        f"{memory.memory} {memory.peak:,}" + ("" if memory.limit is None else f" of {memory.limit:,}")
        for memory in timeline.occupancy().values()
    ]
    listed = ", ".join(f"{name} x {count}" if count > 1 else name for name, count in calls.items())
    counted = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    return [
        ("machine", machine_text(machine)),
        ("instructions", f"{len(program):,}: {counted}"),
        ("code", bytes_text(len(program.encode()))),
        ("weights", f"{tiles:,} tiles, {bytes_text(size)}"),
        ("host calls", f"{calls.total():,}{f': {listed}' if listed else ''}"),
        ("at most", ", ".join(used)),
        ("cycles", f"{stats.cycles:,} ({seconds(machine.seconds(stats.cycles))})"),
        ("utilization", percent(stats.utilization)),
    ]


def described_program(program: Program, timeline: Timeline) -> dict[str, Any]:
    """Return what a program holds and takes, as JSON can hold it."""
    stats = timeline.stats
    return {
        "machine": timeline.machine.to_dict(),
        "instructions": len(program),
        "by_kind": dict(Counter(type(item).__name__ for item in program)),
        "code_bytes": len(program.encode()),
        "tiles": 0 if program.weights is None else len(program.weights),
        "host_calls": dict(host_calls(program)),
        "inputs": {name: list(tensor.shape) for name, tensor in program.inputs.items()},
        "outputs": {name: list(tensor.shape) for name, tensor in program.outputs.items()},
        "peak": {name: memory.peak for name, memory in timeline.occupancy().items()},
        "stats": stats.to_dict(),
        "utilization": stats.utilization,
        "seconds": timeline.machine.seconds(stats.cycles),
        "layers": [
            {"name": layer.name, "kind": layer.kind, "limit": layer.limit, "stats": layer.stats.to_dict()}
            for layer in timeline.layers()
        ],
    }
