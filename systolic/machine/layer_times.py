"""What each layer of a program costs: its sections' share of the time, by cause, and its counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from systolic import _check
from systolic._show.columns import columns
from systolic._show.table import Table
from systolic.config import ArrayConfig, MachineConfig
from systolic.isa import (
    Activate,
    Convolve,
    Instruction,
    MatrixMultiply,
    Program,
    ReadHost,
    ReadWeights,
    Section,
    Vector,
    WriteHost,
)
from systolic.machine.spans import LIMITS, Spans
from systolic.machine.work import Arrays, arrays_of, row_bytes
from systolic.stats import Stats


@dataclass(frozen=True)
class LayerTime:
    """Time and counts of one layer of a program.

    Attributes
    ----------
    name, kind : str
    stats : Stats
        Of all its sections.
    sections : int
        How many it has: more than one if its batch is cut.
    """

    name: str
    kind: str
    stats: Stats
    sections: int = 1

    @property
    def causes(self) -> dict[str, int]:
        """Cycles by cause, by the names of `CAUSES`."""
        return {cause: getattr(self.stats, f"{cause}_cycles") for cause in LIMITS}

    @property
    def limit(self) -> str:
        """What limits the layer: where most of its cycles go; ``"-"`` if it costs none."""
        causes = self.causes
        cause = max(causes, key=causes.__getitem__)
        return LIMITS[cause] if causes[cause] else "-"


def layer_times(
    program: Program,
    machine: MachineConfig,
    complete: np.ndarray,
    spans: Spans,
) -> tuple[LayerTime, ...]:
    """Return time and counts of each layer, see ``Timeline.layers``."""
    sections, stops = _sections(program)
    # When everything up to the end of each section has completed.
    edges = np.maximum.accumulate(np.concatenate(([0], complete)))[[0, *stops]]
    causes = spans.within(edges.tolist())
    found: dict[tuple[str, str], LayerTime] = {}
    for i, (section, counts) in enumerate(zip(sections, section_counts(program, machine), strict=True)):
        stats = counts + time_stats(int(edges[i + 1] - edges[i]), causes[i], machine.array)
        layer = (section.name, section.kind)
        if layer in found:
            before = found[layer]
            found[layer] = LayerTime(*layer, before.stats + stats, before.sections + 1)
        else:
            found[layer] = LayerTime(*layer, stats)
    return tuple(found.values())


def time_stats(cycles: int, causes: Mapping[str, int], array: ArrayConfig) -> Stats:
    """Return what of Stats depends on time: cycles, and those of each cause."""
    by_cause = {f"{cause}_cycles": count for cause, count in causes.items()}
    matrix = sum(causes[name] for name in ("active", "weight_stall", "weight_shift"))
    pe_cycles = array.rows * array.cols * cycles
    return Stats(cycles=cycles, pe_cycles=pe_cycles, non_matrix_cycles=cycles - matrix, **by_cause)


def total_counts(program: Program, machine: MachineConfig) -> Stats:
    """Return the sum of :func:`section_counts`, which the program keeps."""
    return _counts(program, machine)[1]


def section_counts(program: Program, machine: MachineConfig) -> tuple[Stats, ...]:
    """Return what of each section's Stats does not depend on time, which the program keeps."""
    return _counts(program, machine)[0]


def _counts(program: Program, machine: MachineConfig) -> tuple[tuple[Stats, ...], Stats]:
    kept: dict[Any, Any] = vars(program).setdefault("_counts", {})
    array, memory = machine.array, machine.memory
    assert memory is not None  # it has a timeline
    key = array.rows, array.cols, array.format, row_bytes(machine, memory), memory.fifo_tiles
    if key not in kept:
        sections = tuple(_section_counts(program, array, *key[-2:]))
        kept[key] = sections, sum(sections, Stats())
    found: tuple[tuple[Stats, ...], Stats] = kept[key]
    return found


def _sections(program: Program) -> tuple[tuple[Section, ...], list[int]]:
    """Return the sections, and where each ends: instructions behind the last belong to it."""
    sections = program.sections or (Section("program", "Program", 0, len(program)),)
    return sections, [*(section.stop for section in sections[:-1]), len(program)]


def _section_counts(
    program: Program, array: ArrayConfig, row_size: int, fifo_tiles: int
) -> Iterator[Stats]:
    sections, stops = _sections(program)
    arrays, opcode = arrays_of(program), arrays_of(program).opcode
    is_multiply = (opcode == MatrixMultiply.opcode) | (opcode == Convolve.opcode)
    multiplies = np.flatnonzero(is_multiply)
    rows = np.where(is_multiply, arrays.rows, 0)
    drained = np.where(opcode == Activate.opcode, arrays.rows, 0)
    streamed, new = arrays.rows[multiplies], arrays.new_weights[multiplies] != 0
    depth = width = np.zeros(len(multiplies), np.int64)
    if any(section.macs is None or section.weight_bytes is None for section in sections):
        depth, width = _extents(program, array.rows, array.cols, new)
    accesses = _accesses(arrays, array, row_size, fifo_tiles)
    for section, first, stop in zip(sections, [0, *stops[:-1]], stops, strict=True):
        low, high = np.searchsorted(multiplies, (first, stop))
        macs, weight_bytes = section.macs, section.weight_bytes
        here = slice(int(low), int(high))
        if macs is None:
            macs = int((streamed[here] * depth[here] * width[here]).sum())
        if weight_bytes is None:
            sizes = (depth[here] * width[here])[new[here]]
            weight_bytes = int(sizes.sum()) * array.format.weight_bytes
        yield Stats(
            macs=macs,
            folds=int(new[here].sum()),
            weight_bytes=weight_bytes,
            activation_bytes=int(rows[first:stop].sum()) * array.rows * array.format.activation_bytes,
            output_bytes=int(drained[first:stop].sum()) * array.cols * array.format.sum_bytes,
            partial_sums=int(streamed[here].sum()) * array.cols,
            **{name: int(counts[first:stop].sum()) for name, counts in accesses.items()},
        )


def _accesses(a: Arrays, array: ArrayConfig, row_size: int, fifo_tiles: int) -> dict[str, np.ndarray]:
    """Return what each instruction reads from memories and writes to them, by the names of Stats."""
    numbers, inputs = array.format, np.diff(a.first_range) - 1

    def rows_of(*kinds: type[Instruction]) -> np.ndarray:
        return np.where(np.isin(a.opcode, [kind.opcode for kind in kinds]), a.rows, 0)

    moved, multiplied = rows_of(ReadHost, WriteHost), rows_of(MatrixMultiply, Convolve)
    activated, combined = rows_of(Activate), rows_of(Vector) * inputs
    # The FIFO takes a tile once one that is so many before it has been shifted into the array.
    asked, first, count = a.tiles[:, 0], np.cumsum(a.tiles[:, 2]) - a.tiles[:, 2], a.tiles[:, 2]
    fetched, loaded = np.zeros(len(a.rows), np.int64), a.new_weights.astype(np.int64)
    fetched[asked] = np.clip(loaded.sum() + min(fifo_tiles, int(count.sum())) - first, 0, count)
    tile_bytes = array.rows * array.cols * numbers.weight_bytes
    return {
        "accumulator_bytes": (multiplied * (1 + a.accumulate) + activated) * array.cols * numbers.sum_bytes,
        "unified_buffer_bytes": multiplied * array.rows * numbers.activation_bytes
        + (moved + combined + a.written) * row_size,
        "weight_fifo_bytes": (fetched + loaded) * tile_bytes,
        "weight_memory_bytes": fetched * tile_bytes,
        "host_bytes": moved * row_size,
        "vector_operations": (activated + combined) * array.cols,
    }


def _extents(program: Program, rows: int, cols: int, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns in use of the tile of each multiply."""
    loads = [np.arange(i.tile, i.tile + i.count) for i in program if isinstance(i, ReadWeights)]
    tiles = np.concatenate(loads) if loads else np.zeros(0, np.int64)
    tile = tiles[np.cumsum(new) - 1] if len(new) else np.zeros(0, np.int64)
    if program.weights is None:
        return np.full(len(tile), rows), np.full(len(tile), cols)
    # The last row, and column, that is not zero.
    used, place = np.unique(tile, return_inverse=True)
    depth, width = np.zeros(len(used), np.int64), np.zeros(len(used), np.int64)
    for i, number in enumerate(used.tolist()):
        image = program.weights[number]
        for extent, lines in ((depth, image.any(axis=1)), (width, image.any(axis=0))):
            places = np.flatnonzero(lines)
            extent[i] = places[-1] + 1 if len(places) else 0
    return depth[place], width[place]


def layers_table(layers: tuple[LayerTime, ...], machine: MachineConfig) -> Table:
    """Return a row per layer, see ``Timeline.layers_table``."""
    total = sum((layer.stats for layer in layers), Stats())
    heads = columns(
        "node", "layer", "cycles", "seconds", "share", "limit", *(f"{cause}_share" for cause in LIMITS)
    )
    rows = []
    for layer in layers:
        cycles = layer.stats.cycles
        shares = [count / cycles if cycles else None for count in layer.causes.values()]
        rows.append((
            layer.name, layer.kind, cycles, machine.seconds(cycles),
            cycles / total.cycles if total.cycles else 0.0, layer.limit, *shares,
        ))  # fmt: skip
    every = LayerTime("total", "", total)
    shares = [count / total.cycles if total.cycles else None for count in every.causes.values()]
    footer = ("total", None, total.cycles, machine.seconds(total.cycles), None, every.limit, *shares)
    return Table(heads, rows, title="Layers of a program", footer=footer)


def plot_layer_cycles(layers: Sequence[tuple[str, Mapping[str, int]]], top: int | None, title: str) -> Any:
    """Draw a bar per layer of its cycles by cause; only the `top` with the most, if it is given."""
    from systolic._show.causes import plot_layers

    if top is not None:
        top = _check.integer(top, "top", minimum=1)
    return plot_layers(layers, top=top, title=title)
