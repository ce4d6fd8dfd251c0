"""ResNet-50 v1.5 as one QOperator file, run by this package and by ONNX Runtime, in turn.

    python bench/resnet50.py                      # writes the files to a temporary folder
    python bench/resnet50.py --out DIR --json     # keeps them there and uses them the next time

The structure is exact, the weights are random (``examples/networks.py``), batch 1, 224 x 224, on
256 x 256. Outputs must be equal in every bit before any time is printed. ONNX Runtime runs with
all graph optimizations and ``session.qdqisint8allowed`` = 1.

A note on its uint8 x int8: on processors without VNNI its kernel adds pairs of products in 16 bits,
which saturate (VPMADDUBSW), so that outputs can differ from the exact ones that this package
computes; the script then says that they differ and prints no time. Its int8 x int8 is exact, and
has no fast path on x86-64, which is why two types are shown.

Where the time goes: the compiled convolution tells what it spent on each of its stages, and a run what each
layer took.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import systolic
from systolic import _gemm, presets
from systolic._show.table import Column, Table, percent, seconds, si
from systolic.benchmark import Measurement, compare, title

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
TYPES = ("uint8", "int8")
MACHINE = presets.TPU_V1

# Of a convolution on the array, in the order in which the compiled function tells them.
STAGES = ("im2col", "product", "requantize")


def write(folder: Path, image: int, network: str = "resnet50") -> dict[str, Path]:
    """Write the network with uint8 and with int8 activations, unless it is there; return the paths."""
    paths = {name: folder / f"{network}_{name}_{image}.onnx" for name in TYPES}
    if all(path.exists() for path in paths.values()):
        return paths
    sys.path.insert(0, str(EXAMPLES))
    import networks

    for name, path in paths.items():
        model = networks.build(network, activations=name, batch=1, image=image)
        path.write_bytes(model.SerializeToString())
    return paths


class Network:
    """One file, loaded by both runtimes."""

    def __init__(self, path: Path, image: int) -> None:
        self.path = str(path)
        self.model = systolic.load_onnx(self.path)
        self.x = np.random.default_rng(0).random((1, 3, image, image), dtype=np.float32)

    def ours(self, mode: str, threads: int) -> Callable[[], systolic.Run]:
        return lambda: systolic.run(
            self.model, self.x, machine=MACHINE.array, mode=mode, threads=threads
        )  # fmt: skip

    def as_program(self, mode: str, threads: int) -> Callable[[], systolic.Run]:
        program = systolic.compile(self.model, machine=MACHINE)
        return lambda: systolic.run(program, self.x, machine=MACHINE, mode=mode, threads=threads)

    def onnxruntime(self, threads: int) -> Callable[[], np.ndarray]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.add_session_config_entry("session.qdqisint8allowed", "1")
        session = onnxruntime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])
        feed = {session.get_inputs()[0].name: self.x}
        return lambda: session.run(None, feed)[0]

    def check(self, mode: str) -> systolic.Run:
        """Return a run whose output equals ONNX Runtime's; exit where it does not."""
        run = self.ours(mode, 1)()
        ours, theirs = next(iter(run.outputs.values())), self.onnxruntime(1)()
        if not np.array_equal(ours, theirs):
            sys.exit(
                f"{self.path}, {mode} mode: {np.count_nonzero(ours != theirs)} of {ours.size} outputs differ "
                "from ONNX Runtime's, so no time is printed (uint8 without VNNI: see the top of this file)"
            )
        return run


def measure(
    networks: dict[str, Network], rounds: int, threads: list[int], cycle_threads: int
) -> list[Measurement]:
    """Time both modes beside ONNX Runtime, in turn."""
    measured = []
    for count in threads:
        for name, network in networks.items():
            what = f"{name} x int8, {_threads(count)}"
            beside = (f"ONNX Runtime {what}", network.onnxruntime(count), 1)
            ours = network.ours("wavefront", count)
            name = f"wavefront mode, {what}"
            measured.append(compare(name, ours, 1, *beside, "runs/s", rounds, settle=True))
    network = networks["int8"]
    beside = ("wavefront mode", network.ours("wavefront", 1), 1)
    ours = network.as_program("wavefront", 1)
    name = "as a program of the TPU v1, int8 x int8, one thread"
    measured.append(compare(name, ours, 1, *beside, "runs/s", rounds, settle=True))
    what, ours = f"cycle mode, int8 x int8, {_threads(cycle_threads)}", network.ours("cycle", cycle_threads)
    beside = ("ONNX Runtime int8 x int8, one thread", network.onnxruntime(1), 1)
    measured.append(compare(what, ours, 1, *beside, "runs/s", rounds, settle=True))
    return measured


@contextmanager
def timed() -> Iterator[np.ndarray]:
    """Let convolutions add up the nanoseconds of their stages; for one thread."""
    spent = np.zeros(len(STAGES), dtype=np.int64)
    convolve = _gemm.convolve
    _gemm.convolve = partial(convolve, spent=spent)
    try:
        yield spent
    finally:
        _gemm.convolve = convolve


def stages(network: Network, rounds: int) -> dict[str, float]:
    """Return medians of the seconds of each stage of wavefront mode, one thread.

    Convolutions are cut into their stages and the Python around them; other layers are stages by their
    kind, Python included.
    """
    run = network.ours("wavefront", 1)
    run()
    rows: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        with timed() as spent:
            started = time.perf_counter()
            layers = run().layers
            total = time.perf_counter() - started
        parts: dict[str, float] = {stage: 1e-9 * int(ns) for stage, ns in zip(STAGES, spent, strict=True)}
        convolutions = sum(layer.wall_seconds for layer in layers if layer.layer == "QLinearConv")
        parts["Python around convolutions"] = convolutions - sum(parts.values())
        for layer in layers:
            if layer.layer != "QLinearConv":
                parts[layer.layer] = parts.get(layer.layer, 0.0) + layer.wall_seconds
        parts |= {"between layers": total - sum(layer.wall_seconds for layer in layers), "total": total}
        for stage, value in parts.items():
            rows[stage].append(value)
    return {stage: median(values) for stage, values in rows.items()}


def kinds(network: Network, mode: str, threads: int) -> list[tuple[str, int, int, float, float]]:
    """Return (kind of layer, layers, cycles, seconds, PE-cycles/s) of one run, the longest first."""
    run = network.ours(mode, threads)()
    nodes = {node.name: node.layer for node in network.model.nodes}
    sums: dict[str, list[float]] = defaultdict(lambda: [0, 0, 0.0, 0])
    for layer in run.layers:
        kind = layer.layer
        if kind == "QLinearConv":
            kh, kw = nodes[layer.name].weight.shape[2:]
            kind = f"convolution {kh} x {kw}"
        for i, value in enumerate((1, layer.stats.cycles, layer.wall_seconds, layer.stats.pe_cycles)):
            sums[kind][i] += value
    rows = [
        (kind, int(count), int(cycles), took, work / took)
        for kind, (count, cycles, took, work) in sums.items()
    ]
    return sorted(rows, key=lambda row: -row[3])


def peak_memory(path: Path, image: int, mode: str, threads: int) -> float | None:
    """Return the most megabytes (10^6) that a process held which loads the file and runs it once."""
    command = [sys.executable, __file__, "--peak", str(path), "--mode", mode]
    command += ["--image", str(image), "--threads", str(threads)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def high_water() -> float | None:
    """Return the most megabytes that this process held; None where the system does not tell."""
    # Not ru_maxrss on Linux: there it keeps what the parent held when it forked.
    try:
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.split("VmHWM:")[1].split()[0]) / 1e6
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def tables(results: dict[str, Any]) -> list[Table]:
    """Return the results as tables."""
    times = [
        (m["name"], 1 / m["rate"], m["baseline"], 1 / m["baseline_rate"], 1 / m["ratio"])
        for m in results["measurements"]
    ]
    time_of, its_time = Column("time", format=seconds), Column("its time", format=seconds)
    ratio = Column("times as long", format=".2f")
    columns: list[str | Column] = ["measured", time_of, "beside", its_time, ratio]
    footer = "medians of runs in turn, each after an untimed one; the last is the median pair by pair"
    result = [Table(columns, times, title="Whole network", footer=footer)]
    if results["peak_megabytes"]:
        rows = [(name, f"{value:.0f} MB") for name, value in results["peak_megabytes"].items()]
        result.append(
            Table(["a process that loads int8 x int8 and runs it", Column("peak memory", align=">")], rows)
        )
    for name, taken in results["stages"].items():
        rows = sorted((row for row in taken.items() if row[0] != "total"), key=lambda row: -row[1])
        shares = [(stage, value, value / taken["total"]) for stage, value in rows]
        heads: list[str | Column] = ["stage", time_of, Column("share", format=percent)]
        total = ("total", taken["total"], 1.0)
        result.append(Table(heads, shares, title=f"Wavefront mode, {name} x int8, one thread", footer=total))
    rate = Column("PE-cycles/s", align=">", format=lambda value: si(value, "") if value else "-")
    result.append(
        Table(
            ["layers of a kind", "count", "cycles", time_of, rate], results["kinds"],
            title=f"Cycle mode, int8 x int8, {_threads(results['cycle_threads'])}",
        )
    )  # fmt: skip
    return result


def markdown(table: Table) -> str:
    """Return a table in Markdown."""
    rows = [table._cells(row) for row in table.rows]
    rows += [last] if (last := table._last()) else []
    lines = [f"### {table.title}\n"] if table.title else []
    lines += [f"| {' | '.join(c.name for c in table.columns)} |", "|" + "---|" * len(table.columns)]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, *([f"\n{table.footer}"] if isinstance(table.footer, str) else [])])


def _threads(count: int) -> str:
    return "one thread" if count == 1 else f"{count} threads"


def arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="pairs of runs (default: 7)")
    help_threads = "of wavefront mode and ONNX Runtime (default: 1 2)"
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help=help_threads)
    parser.add_argument("--cycle-threads", type=int, default=2, help="of cycle mode (default: 2)")
    parser.add_argument(
        "--network", default="resnet50", help="another of examples/networks.py's image networks"
    )
    parser.add_argument("--image", type=int, default=224, help="height and width (default: 224)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep the ONNX files in this folder")
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    parser.add_argument("--mode", default="wavefront", help=argparse.SUPPRESS)
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> None:
    options = arguments(given)
    if options.peak:
        Network(Path(options.peak), options.image).ours(options.mode, options.threads[0])()
        print(json.dumps(high_water()))
        return
    if missing := [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]:
        sys.exit(f'{" and ".join(missing)} not installed: pip install "systolic[onnx]"')
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        paths = write(folder, options.image, options.network)
        # First of all: nothing of this size has been held yet.
        peaks = {
            f"{mode} mode, {_threads(count)}": peak_memory(paths["int8"], options.image, mode, count)
            for mode, count in (("wavefront", max(options.threads)), ("cycle", options.cycle_threads))
        }
        networks = {name: Network(path, options.image) for name, path in paths.items()}
        runs = [network.check("wavefront") for network in networks.values()]
        runs.append(networks["int8"].check("cycle"))
        assert len({run.stats for run in runs}) == 1
        heading = title()
        results = {
            "title": heading,
            "network": {"resnet50": "ResNet-50 v1.5"}.get(options.network, options.network),
            "image": options.image,
            "cycles": runs[0].stats.cycles,
            "products": sum(layer.gemm is not None for layer in runs[0].layers),
            "cycle_threads": options.cycle_threads,
            "measurements": [
                m.to_dict() for m in measure(networks, options.rounds, options.threads, options.cycle_threads)
            ],
            "peak_megabytes": {name: value for name, value in peaks.items() if value is not None},
            "stages": {name: stages(network, options.rounds) for name, network in networks.items()},
            "kinds": kinds(networks["int8"], "cycle", options.cycle_threads),
        }
    if options.json:
        print(json.dumps(results, indent=2))
        return
    print(
        f"{heading}\n\n{results['network']}, batch 1, {options.image} x {options.image}: "
        f"{results['products']} products, {results['cycles']:,} cycles of 256 x 256; "
        "outputs equal ONNX Runtime's in every bit.\n"
    )
    print("\n\n".join(markdown(table) if options.markdown else str(table) for table in tables(results)))


if __name__ == "__main__":
    # torch's and numpy's pools have no part in this; ONNX Runtime has its own.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
