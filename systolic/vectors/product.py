"""The files of one product: lines for each cycle, and results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from systolic._show.table import si
from systolic.array import SystolicArray
from systolic.config import ArrayConfig
from systolic.engine.products import with_mapping
from systolic.formats import bits
from systolic.gemm import Progress
from systolic.lowered import RAW, Lowered, Patches
from systolic.machine import run_wavefront
from systolic.machine.port_values import PortValues, port_windows
from systolic.tiling import schedule
from systolic.tiling.mappings import check_mapping
from systolic.vectors.manifest import described, entry
from systolic.vectors.manifest import save as save_manifest
from systolic.vectors.requantizer import requantizer
from systolic.vectors.words import digits, lines


def mapped(lowered: Lowered, mapping: str | None, config: ArrayConfig, why: str) -> Lowered:
    """Return lowered work in the layout that a mapping chooses; ValueError if it is no convolution."""
    if mapping is None:
        return lowered
    if not isinstance(lowered.x, Patches):
        raise ValueError(f"mapping= is of a convolution, and {why}; leave it out")
    check_mapping(mapping, lowered.gemm.groups)
    return with_mapping(lowered, mapping, config)


def check_size(works: list[Lowered], config: ArrayConfig, target: Path) -> None:
    """Raise if a product is empty, or if the files of products do not fit the disk."""
    size = 0
    for lowered in works:
        if not lowered.gemm.macs:
            raise ValueError(f"{lowered.gemm!r} is an empty product, which takes no cycle: nothing to write")
        typed = config.for_operands(lowered.x.dtype, lowered.w.dtype)
        count = schedule(lowered.gemm, typed).cycles + 1
        words = sum(digits(width, elements) + 1 for _, width, elements in _port_files(typed).values())
        channels = lowered.gemm.n * (lowered.gemm.groups if isinstance(lowered.x, Patches) else 1)
        sums = bits(np.dtype(typed.format.sum))
        size += count * words + lowered.gemm.sums // channels * (digits(sums, channels) + 1)
    import shutil

    free = shutil.disk_usage(target.parent).free
    if size > free:
        raise OSError(
            f"the vectors take {si(size, 'B')}, but {target.parent} has {si(free, 'B')} free; "
            "write them to another disk, or those of fewer rows of x"
        )


def _port_files(config: ArrayConfig) -> dict[str, tuple[str, int, int]]:
    """Return, by file of a line per cycle, the field of PortValues, bits of an element and elements."""
    dataflow, cols = config.dataflow_record, config.cols
    files = {
        f"{port.side}_{port.name}": (
            port.name, bits(config.port_dtypes[port.name]), config.rows if port.side == "west" else cols,
        )
        for port in dataflow.ports
    }  # fmt: skip
    files |= {
        "accumulator_write": ("write", 1, cols),
        "accumulator_half": ("half", 1, cols),
        "accumulator_row": ("row", 32, cols),
        "accumulator_first": ("first", 1, cols),
        f"bottom_{dataflow.leaves}": ("", bits(np.dtype(config.format.sum)), cols),
    }
    return files


_HOLDS = {
    "accumulator_write": "whether the accumulators below a column take the sum at its bottom",
    "accumulator_half": "the half that takes it",
    "accumulator_row": "the row of the half that takes it",
    "accumulator_first": "whether it replaces the sum there; else it is added",
    "acc": "accumulators in the end: a line per row of x, an element per channel",
    "y": "the layer's output, in the order of acc.mem",
    "table": "the output code for each code, by its byte",
}


def write_product(
    folder: Path, lowered: Lowered, config: ArrayConfig, report: Progress | None = None, **more: Any
) -> dict[str, Any]:
    """Write the files of one product and its manifest, with `more` entries, into a folder; return that."""
    config = config.for_operands(lowered.x.dtype, lowered.w.dtype)
    plan = schedule(lowered.gemm, config)
    files = _write_ports(folder, lowered, config, plan.cycles, report)
    acc = run_wavefront(lowered._replace(epilogue=RAW), config).output
    axis = lowered.channel_axis

    def save(name: str, values: np.ndarray, holds: str) -> None:
        (folder / f"{name}.mem").write_bytes(lines(values))
        files[f"{name}.mem"] = entry(holds, values.dtype, *values.shape)

    def by_channel(values: np.ndarray) -> np.ndarray:
        return np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis])

    save("acc", by_channel(acc), _HOLDS["acc"])
    manifest, output = {}, None
    if lowered.epilogue is not RAW:
        e, output = lowered.epilogue, run_wavefront(lowered, config).output
        y = run_wavefront(lowered._replace(epilogue=e._replace(shape=None, planes=1)), config).output
        save("y", by_channel(y), _HOLDS["y"])
        epilogue, parameters = requantizer(lowered, acc)
        for name, (values, per) in parameters.items():
            save(name, values, f"{name} of the epilogue, per {per}")
        if e.table is not None:
            save("table", e.table[:, np.newaxis], _HOLDS["table"])
        epilogue["parameters"] = {
            name: {"file": f"{name}.mem", "per": per} for name, (_, per) in parameters.items()
        }
        manifest["epilogue"] = epilogue
    found = described(lowered, config, plan, acc.shape, output)
    convention = found.pop("convention")
    manifest = {**found, **manifest, **more, "files": files, "convention": convention}
    save_manifest(manifest, folder)
    return manifest


def _write_ports(
    folder: Path, lowered: Lowered, config: ArrayConfig, cycles: int, report: Progress | None
) -> dict[str, dict[str, Any]]:
    """Write the files that have a line for each cycle; return their entries of the manifest."""
    columns, array = _port_files(config), SystolicArray(config)
    entries = {}
    with ExitStack() as stack:
        opened = {name: stack.enter_context(open(folder / f"{name}.mem", "wb")) for name in columns}
        for values in port_windows(lowered, config):
            driven: dict[str, Any] = dict(values.ports)
            bottom = array.clock(**driven)
            for name, column in _columns(values, bottom, columns):
                opened[name].write(lines(column))
                entries[f"{name}.mem"] = entry(
                    _HOLDS.get(name) or _port_holds(name), column.dtype, cycles + 1, column.shape[1]
                )
            if report is not None:
                report(min(values.cycle + len(bottom), cycles), cycles)
    return entries


def _columns(
    values: PortValues, bottom: np.ndarray, files: dict[str, tuple[str, int, int]]
) -> Iterator[tuple[str, np.ndarray]]:
    for name, (field, width, _) in files.items():
        column = bottom if name.startswith("bottom_") else getattr(values, field)
        yield name, column.astype(bool) if width == 1 else column


def _port_holds(name: str) -> str:
    side, _, what = name.partition("_")
    if side == "bottom":
        return f"{what} of the bottom row after the edge of the cycle"
    return f"{what} on the {side} port of each {'row' if side == 'west' else 'column'}"
