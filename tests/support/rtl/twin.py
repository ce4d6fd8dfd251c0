"""Builds the RTL under Verilator, feeds it scenarios from files, and reads what its monitor wrote."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from support.rtl.scenarios import CONTROLLER, Scenario, Trace, sums_port
from systolic.config import ArrayConfig
from systolic.rtl import DESIGN as FILES
from systolic.rtl import SOURCES

BENCHES = Path(__file__).resolve().parents[2] / "rtl"


class Model(NamedTuple):
    """The RTL of one dataflow.

    Attributes
    ----------
    design, bench : tuple of str
        Files; the last one of each has its top module, by its name.
    image : tuple of tuple of str
        The registers of a PE in the words that the monitor writes: the bytes of a word, lowest first, or
        one of 32 bits.
    """

    design: tuple[str, ...]
    bench: tuple[str, ...]
    image: tuple[tuple[str, ...], ...]


MODELS = {
    "weight_stationary": Model(
        FILES["weight_stationary"],
        ("monitor.sv", "bench.sv"),
        (("activation", "weight_pass", "next_weight", "weight"), ("psum",), ("swap", "shift")),
    ),
    "output_stationary": Model(
        FILES["output_stationary"],
        ("output_monitor.sv", "output_bench.sv"),
        (("activation", "weight"), ("acc",), ("out",), ("out_pass",), ("swap", "drain")),
    ),
}
DESIGN, BENCH, _ = MODELS["weight_stationary"]
INSTALL = "apt-get install verilator g++ make"
INSTALL_COCOTB = "apt-get install iverilog && pip install cocotb"

# Verilator's own run-time library: the same for every build, and most of a small one's time.
_LIBRARY = ("verilated.o", "verilated_timing.o", "verilated_threads.o")


def missing() -> str | None:
    """Return what keeps Verilator from running here, or None."""
    absent = [tool for tool in ("verilator", "g++", "make") if shutil.which(tool) is None]
    if absent:
        return f"no {', '.join(absent)}"
    version = _call(["verilator", "--version"], Path()).split()[1]
    if int(version.split(".")[0]) < 5:
        return f"verilator {version} is older than 5.0, which --binary needs"
    return None


def build(config: ArrayConfig, folder: Path, *, sources: Path = SOURCES, library: Path | None = None) -> Path:
    """Build the bench for one array.

    Parameters
    ----------
    config : ArrayConfig
        Every field becomes a parameter of the RTL.
    folder : Path
        Where to build; made.
    sources : Path
        Where the SystemVerilog files of the design stand.
    library : Path, optional
        The folder of an earlier build, whose run-time library is taken over.

    Returns
    -------
    Path
        The simulator.
    """
    folder.mkdir(parents=True)
    make = "OPT_FAST=-O0 OPT_SLOW=-O0 OPT_GLOBAL=-O1"
    if library is not None:
        for name in _LIBRARY:
            shutil.copy(library / name, folder)
            make += f" -o {name}"  # old as it is, it need not be made
    parameters = {
        "ROWS": config.rows,
        "COLS": config.cols,
        "ACTIVATION_SIGNED": _bit(config.activation_dtype == "int8"),
        "WEIGHT_SIGNED": _bit(config.weight_dtype == "int8"),
        "DOUBLE_BUFFERED": _bit(config.double_buffered),
    }
    if not config.dataflow_record.held:
        parameters["ACC_ROWS"] = config.accumulator_rows
    model = MODELS[config.dataflow]
    top = Path(model.bench[-1]).stem
    command = ["verilator", "--binary", "--top-module", top, "-Mdir", str(folder), "-o", "bench"]
    # Most of the time goes to the C++ compiler, not to the simulation: hence -O0. The library
    # formats the dump, and is worth more.
    command += ["-MAKEFLAGS", make, "-j", "1"]
    command += ["--x-assign", "fast", "--x-initial", "fast"]
    command += [f"-G{name}={value}" for name, value in parameters.items()]
    command += [str(sources / name) for name in model.design]
    command += [str(BENCHES / name) for name in model.bench]
    _call(command, folder)
    return folder / "bench"


def lint(top: str, files: Sequence[str], *options: str) -> str:
    """Return what ``verilator --lint-only -Wall`` says of these files: nothing, if all is well."""
    command = ["verilator", "--lint-only", "-Wall", "--timing", "--top-module", top, *options]
    command += [str(next(path for path in (SOURCES / name, BENCHES / name) if path.exists())) for name in files]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


def simulate(
    simulator: Path, config: ArrayConfig, scenarios: Iterable[Scenario], folder: Path
) -> Iterator[Trace]:
    """Run scenarios one after the other, each from reset; yield what the RTL did in each."""
    scenarios = list(scenarios)
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{name}.bin" for name in ("x", "w", "folds", "frames", "dump")}
    _write_memories(config, scenarios, files)
    frames = [_frames(config, scenario) for scenario in scenarios]
    # One more reset: the record of its edge holds what stands after the last one's last edge.
    frames.append(frames[0][:1])
    np.concatenate(frames).tofile(files["frames"])
    _call([str(simulator), *(f"+{name}={path}" for name, path in files.items())], folder)
    yield from _read(config, scenarios, files["dump"])
    for path in files.values():
        path.unlink()


def _frames(config: ArrayConfig, scenario: Scenario) -> np.ndarray:
    ports, edges = scenario.ports, scenario.edges
    flags = scenario.arrives.astype(np.uint8) << 1 | scenario.by_hand.astype(np.uint8) << 2
    # The bench takes them in the order of the record, the highest byte first.
    sums, *others = [ports[port.name] for port in reversed(config.dataflow_record.ports)]
    fields = [sums.astype("<i4").view(np.uint8)]
    hand = scenario.by_hand[:, None]
    # Where the controller drives the ports, what stands on these inputs must not matter.
    for values in others:
        raw = values.astype(np.uint8, copy=False) if values.dtype == bool else values.view(np.uint8)
        fields.append(np.where(hand, raw, ~raw))
    fields.append(flags[:, None])
    frames = np.concatenate(fields, axis=1)
    assert frames.shape == (edges, 1 + 3 * config.rows + 5 * config.cols)
    reset = np.zeros_like(frames[:1])
    reset[0, -1] = 1
    # The bench takes the most significant byte first.
    return np.concatenate([reset, frames])[:, ::-1]


def _write_memories(config: ArrayConfig, scenarios: list[Scenario], files: dict[str, Path]) -> None:
    folds = [fold for scenario in scenarios for fold in scenario.folds]
    # What stands in a word beyond the fold's k and n must not matter either: 0xa5.
    # Lines that stream, and tiles.
    fed = [config.dataflow_record.operands(fold.x, fold.w) for fold in folds]
    tile = max((len(w) for w, _ in fed), default=0)
    x = np.full((sum(len(lines) for _, lines in fed), config.rows), 0xA5, dtype=np.uint8)
    w = np.full((len(folds) * tile, config.cols), 0xA5, dtype=np.uint8)
    descriptors = np.zeros((len(folds), 6), dtype=">u2")
    x_address = 0
    for i, (fold, (rows, lines)) in enumerate(zip(folds, fed, strict=True)):
        fold.x_address, fold.w_address = x_address, i * tile
        x[x_address : x_address + len(lines), : lines.shape[1]] = lines.view(np.uint8)
        w[fold.w_address : fold.w_address + len(rows), : fold.n] = rows.view(np.uint8)
        x_address += len(lines)
        descriptors[i] = fold.m, fold.k, fold.n, fold.x_address, fold.w_address, fold.half << 1 | fold.first
    if max(len(x), len(w), len(folds)) > 65535:
        raise ValueError("too much for the bench's memories of 65536 words: fewer scenarios, please")
    x[:, ::-1].tofile(files["x"])
    w[:, ::-1].tofile(files["w"])
    descriptors.tofile(files["folds"])


def _read(config: ArrayConfig, scenarios: list[Scenario], path: Path) -> Iterator[Trace]:
    rows, cols, dataflow = config.rows, config.cols, config.dataflow_record
    acc_rows = 2 * rows if dataflow.held else config.accumulator_rows
    assert acc_rows is not None
    controller, words = CONTROLLER[config.dataflow], MODELS[config.dataflow].image
    sizes = [len(controller), cols, cols * acc_rows, rows, 2 * cols, len(words) * rows * cols]
    edges = sum(scenario.edges + 1 for scenario in scenarios) + 1
    dump: np.ndarray = np.memmap(path, dtype="<u4", mode="r")
    if dump.size != edges * sum(sizes):
        raise RuntimeError(f"the monitor wrote {dump.size} words, not {edges} records of {sum(sizes)}")
    dump = dump.reshape(edges, sum(sizes))
    first = 0
    for scenario in scenarios:
        # The record of the reset's edge holds what stood before it; then one per edge, and the
        # next reset's, where inputs and outputs are of no interest.
        records = np.asarray(dump[first + 1 : first + scenario.edges + 2])
        first += scenario.edges + 1
        state, command, sums, west, north, image = np.split(records, np.cumsum(sizes)[:-1], axis=1)
        signals: dict[str, np.ndarray] = {}
        pe = image.reshape(-1, rows, cols, len(words))
        for i, names in enumerate(words):
            for position, name in enumerate(names):
                dtype = config.register_dtypes[name]
                word = pe[..., i]
                signals[name] = word.view(dtype) if dtype.itemsize == 4 else _byte(word, position, dtype)
        signals["accumulator"] = sums.reshape(-1, cols, acc_rows).view(np.int32)
        for position, name in enumerate(("activation", "swap", "drain" if dataflow.held else "shift")):
            signals[f"west {name}"] = _byte(west, position, config.port_dtypes[name])
        signals["north weight"] = _byte(north[:, ::2], 0, config.weight_dtype)
        signals[f"north {sums_port(config)}"] = north[:, 1::2].view(np.int32)
        signals["accumulator write"] = (command >> 18 & 1).astype(bool)
        signals["accumulator half"] = command >> 17 & 1
        signals["accumulator first"] = command >> 16 & 1
        signals["accumulator row"] = command & 0xFFFF
        signals.update((f"controller {name}", state[:, i]) for i, name in enumerate(controller))
        yield Trace(signals)


def _byte(words: np.ndarray, position: int, dtype: Any) -> np.ndarray:
    return (words >> 8 * position).astype(np.uint8).view(dtype)


def _call(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def _bit(value: bool) -> str:
    return f"1'b{int(value)}"
