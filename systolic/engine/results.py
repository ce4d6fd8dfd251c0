"""Results of a run: ``Run``, its rows, one per layer, and ``RunReport``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from systolic import _check
from systolic._show.report import Report, bytes_text, keyed_table, sizes_text, values_of
from systolic._show.table import Column, Table, percent, seconds, si
from systolic._text import printable
from systolic.config import MachineConfig
from systolic.gemm import Gemm, products_text
from systolic.isa import Program
from systolic.machine import Timeline
from systolic.stats import Stats
from systolic.trace import Trace

# What a report adds up over the layers.
_SUMMED = (
    "parameters", "parameter_bytes", "read_bytes", "written_bytes",
    "wall_seconds", "array_wall_seconds", "host_wall_seconds",
)  # fmt: skip


@dataclass(frozen=True)
class LayerRun:
    """One layer of a run.

    Attributes
    ----------
    name, layer : str
        The node's name and the kind of layer.
    shape, dtype : tuple of int, str
        Of the output, the first in use if there are several.
    gemm : Gemm or None
        The product that ran on the array, the first if there were several; None for a host layer.
    stats : Stats
        Of all its products; zeros for a host layer.
    wall_seconds : float
        Time to emulate the layer.
    parameters, parameter_bytes : int
        Elements and bytes of the arrays that the layer holds (weights, bias) and of the constants it
        reads; scales and zero points are not counted.
    read_bytes, written_bytes : int
        Bytes of the tensors between layers that it read and wrote, each counted once.
    array_wall_seconds : float
        The part of `wall_seconds` that emulates the array; the rest is work on the host.
    products : int
        How many products ran on the array.
    array_cycles : int or None
        What the products take on an ideal machine; None of a machine without memories, where `stats` says
        it, and of a program whose model is not known.
    limit : str
        What limits the layer on a machine with memories, such as "weight memory"; "-" if it costs no cycles.

    Notes
    -----
    On a machine with memories layers overlap: `stats` has the cycles by which a layer completes later than
    all before it, and `wall_seconds` is 0, since nothing tells whose work it was.

    Examples
    --------
    >>> import systolic
    >>> example = systolic.load_example()
    >>> layer = systolic.run(example.model, example.images[:1], mode="wavefront").layers[1]
    >>> layer.name, layer.gemm, layer.stats.cycles
    ('stem_quant', Gemm(64, 9, 16), 830)
    """

    name: str
    layer: str
    shape: tuple[int, ...]
    dtype: str
    gemm: Gemm | None
    stats: Stats
    wall_seconds: float = field(compare=False)
    parameters: int = 0
    parameter_bytes: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    array_wall_seconds: float = field(default=0.0, compare=False)
    products: int = 0
    array_cycles: int | None = None
    limit: str = ""

    @property
    def host_wall_seconds(self) -> float:
        """Time spent on the host: a host layer, or lowering and the epilogue of an array layer."""
        return self.wall_seconds - self.array_wall_seconds

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return {
            "name": self.name,
            "layer": self.layer,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "gemm": None if self.gemm is None else self.gemm.to_dict(),
            "products": self.products,
            "stats": self.stats.to_dict(),
            "utilization": self.stats.utilization,
            **values_of(self, *_SUMMED[:-1]),
            **({"array_cycles": self.array_cycles, "limit": self.limit} if self.limit else {}),
        }


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """Outputs of a model and what the run cost.

    Attributes
    ----------
    outputs : dict of str to ndarray
        The model's outputs.
    layers : tuple of LayerRun
        A row per layer, in the order they ran.
    machine : MachineConfig
    mode : str
    trace : Trace or None
        What was recorded.
    timeline : Timeline or None
        On a machine with memories: when each instruction of the program ran.

    Examples
    --------
    >>> import systolic
    >>> example = systolic.load_example()
    >>> systolic.run(example.model, example.images[:1], mode="wavefront")
    <Run logits (1, 10) float32: 10,981 cycles (15.7 µs at 700 MHz), utilization 0.07%>
    """

    outputs: dict[str, np.ndarray]
    layers: tuple[LayerRun, ...]
    machine: MachineConfig
    mode: str
    trace: Trace | None = None
    timeline: Timeline | None = None

    @property
    def program(self) -> Program | None:
        """The program that ran, on a machine with memories."""
        return None if self.timeline is None else self.timeline.program

    @property
    def stats(self) -> Stats:
        """Totals of all layers."""
        return sum((layer.stats for layer in self.layers), Stats())

    @property
    def seconds(self) -> float:
        """Time on the machine at its clock, array cycles only, in seconds."""
        return self.machine.seconds(self.stats.cycles)

    def table(self) -> Table:
        """Return a row per layer: shape, folds, cycles, utilization, time and share of time."""
        report = self.report()
        columns: dict[str, str | Column] = {
            "node": "layer", "layer": "kind", "shape": "output", "product": "product", "folds": "folds",
            "cycles": "cycles", "utilization": Column("utilization", format=percent),
            "machine_seconds": Column("time", format=seconds), "share": Column("share", format=percent),
        }  # fmt: skip
        rows = [
            {
                **row,
                "shape": _check.shape(layer.shape),
                "product": products_text(layer.gemm, layer.products),
            }
            for row, layer in zip(report.rows, self.layers, strict=True)
        ]
        return keyed_table(columns, rows, {**report.totals, "node": "total"}, report.title)

    def report(self) -> RunReport:
        """Return the cost of each layer as a table, JSON, CSV, a pandas frame or an HTML page.

        Examples
        --------
        >>> import systolic
        >>> example = systolic.load_example()
        >>> report = systolic.run(example.model, example.images[:1], mode="wavefront").report()
        >>> report.totals["cycles"], report.totals["macs"], report.totals["weight_bytes"]
        (10981, 502400, 31136)
        """
        return RunReport(self)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the values, as JSON can hold it."""
        return {
            "machine": self.machine.to_dict(),
            "mode": self.mode,
            "stats": self.stats.to_dict(),
            "utilization": self.stats.utilization,
            "machine_seconds": self.seconds,
            "layers": [layer.to_dict() for layer in self.layers],
            "outputs": {name: list(value.shape) for name, value in self.outputs.items()},
        }

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with a row per layer."""
        return self.table().to_frame()

    def __repr__(self) -> str:
        outputs = [f"{printable(n)} {_check.shape(v.shape)} {v.dtype}" for n, v in self.outputs.items()]
        stats = self.stats
        return (
            f"<Run {', '.join(outputs)}: {stats.cycles:,} cycles "
            f"({seconds(self.seconds)} at {self.machine.clock_mhz:g} MHz), "
            f"utilization {percent(stats.utilization)}>"
        )

    def _repr_html_(self) -> str:
        return self.table().html()


class RunReport(Report):
    """Cost of each layer of a run: the result of ``Run.report``.

    Parameters
    ----------
    run : Run

    Attributes
    ----------
    rows : list of dict
        For each node: ``m k n groups`` of its product, ``folds``, ``cycles``, ``utilization``, ``macs``,
        ``machine_seconds`` at the machine's clock and their ``share`` of the run's; bytes across the
        array's edges, as :class:`~systolic.Stats` counts them: ``weight_bytes`` (a tile each time it is
        loaded), ``activation_bytes`` (a row each time it is streamed), ``output_bytes`` (int32
        accumulators); bytes in memory: ``parameters`` and ``parameter_bytes``, tensors' ``read_bytes``
        and ``written_bytes``; and the emulation's ``wall_seconds``: ``array_wall_seconds`` for the array
        (im2col included) and ``host_wall_seconds`` for the host (whole layers, requantization).
    totals : dict
        Sums over all nodes, and the numbers of ``array_nodes`` and ``host_nodes``.

    Examples
    --------
    >>> import systolic
    >>> example = systolic.load_example()
    >>> report = systolic.run(example.model, example.images[:1], mode="wavefront").report()
    >>> report.totals["array_nodes"], report.totals["host_nodes"]
    (8, 6)
    >>> report.rows[1]["node"], report.rows[1]["on"], report.rows[1]["cycles"], report.rows[1]["macs"]
    ('stem_quant', 'array', 830, 9216)
    >>> print(report.to_csv().splitlines()[2][:65])
    stem_quant,QLinearConv,array,1x16x8x8,int8,64,9,16,1,1,830,0.0001
    """

    def __init__(self, run: Run) -> None:
        if not isinstance(run, Run):
            raise TypeError(f"a report is about a Run, not {type(run).__name__}; systolic.run returns one")
        # Not the run itself: a report does not keep its outputs alive.
        self.layers = run.layers
        self.machine, self.mode, self.stats, self.seconds = run.machine, run.mode, run.stats, run.seconds

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A dict per node, as the class describes."""
        return [self._row(layer) for layer in self.layers]

    def _row(self, layer: LayerRun) -> dict[str, Any]:
        gemm, cycles = layer.gemm, layer.stats.cycles
        stats = None if gemm is None else layer.stats
        share = cycles / self.stats.cycles if self.stats.cycles else 0.0
        return {
            "node": layer.name,
            "layer": layer.layer,
            "on": "host" if gemm is None else "array",
            "output": sizes_text(layer.shape),
            "dtype": layer.dtype,
            **values_of(gemm, "m", "k", "n", "groups"),
            **values_of(stats, "folds", "cycles", "utilization", "macs"),
            "machine_seconds": None if gemm is None else self.machine.seconds(cycles),
            "share": None if gemm is None else share,
            **values_of(stats, "weight_bytes", "activation_bytes", "output_bytes"),
            **values_of(layer, *_SUMMED),
        }

    @property
    def totals(self) -> dict[str, Any]:
        """Sums over all nodes."""
        on_array = sum(layer.gemm is not None for layer in self.layers)
        stats = self.stats.to_dict()
        del stats["pe_cycles"]
        return {
            "array_nodes": on_array,
            "host_nodes": len(self.layers) - on_array,
            **stats,
            "utilization": self.stats.utilization,
            "machine_seconds": self.seconds,
            **{name: sum(getattr(layer, name) for layer in self.layers) for name in _SUMMED},
        }

    @property
    def title(self) -> str:
        """The machine and the mode."""
        array = self.machine.array
        return f"{array.rows} x {array.cols} array at {self.machine.clock_mhz:g} MHz, {self.mode} mode"

    def table(self) -> Table:
        """Return a row per node with the main columns; :meth:`to_frame` and :meth:`to_csv` have all."""
        columns: dict[str, str | Column] = {
            "#": "#", "node": "node", "layer": "layer", "on": "on", "output": "output", "product": "product",
            "folds": "folds", "cycles": "cycles", "utilization": Column("utilization", format=percent),
            "macs": "MACs", "machine_seconds": Column("time", format=seconds),
            "weight_bytes": Column("weights in", format=bytes_text),
            "activation_bytes": Column("activations in", format=bytes_text),
            "parameter_bytes": Column("parameters", format=bytes_text),
            "array_wall_seconds": Column("array wall", format=seconds),
            "host_wall_seconds": Column("host wall", format=seconds),
        }  # fmt: skip
        rows = [
            {
                **row,
                "#": number,
                "product": products_text(layer.gemm, layer.products),
                "parameter_bytes": layer.parameter_bytes or None,
                "array_wall_seconds": layer.gemm and layer.array_wall_seconds,
            }
            for number, (row, layer) in enumerate(zip(self.rows, self.layers, strict=True))
        ]
        return keyed_table(columns, rows, {**self.totals, "node": "total"}, self.title)

    def by_layer(self) -> Table:
        """Return a row per kind of layer, the slowest to emulate first."""
        kinds: dict[str, list[LayerRun]] = {}
        for layer in self.layers:
            kinds.setdefault(layer.layer, []).append(layer)
        wall = sum(layer.wall_seconds for layer in self.layers)
        rows = []
        for kind, alike in kinds.items():
            stats = sum((layer.stats for layer in alike), Stats())
            on_array = sum(layer.array_wall_seconds for layer in alike)
            both = sum(layer.wall_seconds for layer in alike)
            share = both / wall if wall else 0.0
            rows.append((kind, len(alike), stats.cycles, stats.macs, on_array, both - on_array, share))
        rows.sort(key=lambda row: -row[-1])
        columns: list[str | Column] = ["layer", "nodes", "cycles", "MACs"]
        columns += [Column("array wall", format=seconds)]
        columns += [Column("host wall", format=seconds), Column("share of wall", format=percent)]
        return Table(columns, rows, title="By kind of layer")

    def to_dict(self) -> dict[str, Any]:
        """Return machine, mode, totals and rows as JSON can hold them."""
        return {
            "machine": self.machine.to_dict(),
            "mode": self.mode,
            "totals": self.totals,
            "nodes": self.rows,
        }

    def _page(self) -> tuple[str, list[tuple[str, str]], list[str], list[Table]]:
        total = self.totals
        wall, array, host = (total[f"{part}wall_seconds"] for part in ("", "array_", "host_"))
        share = percent(host / wall if wall else 0.0)
        pairs = [
            ("machine", self.title),
            ("nodes", f"{total['array_nodes']} on the array, {total['host_nodes']} on the host"),
            ("cycles", f"{total['cycles']:,}"),
            ("time on the machine", f"{seconds(self.seconds)} (array cycles only)"),
            ("MACs", f"{total['macs']:,}"),
            ("utilization", percent(total["utilization"])),
            ("folds", f"{total['folds']:,}"),
            ("parameters", f"{total['parameters']:,} ({bytes_text(total['parameter_bytes'])})"),
            (
                "through the array",
                f"{bytes_text(total['weight_bytes'])} of weights, {bytes_text(total['activation_bytes'])} of "
                f"activations in, {bytes_text(total['output_bytes'])} of accumulators out",
            ),
            ("emulation", f"{seconds(wall)}: array {seconds(array)}, host {seconds(host)} ({share})"),
        ]
        crossing = {
            "weights in": "weight_bytes",
            "activations in": "activation_bytes",
            "accumulators out": "output_bytes",
        }
        wall_times = {"array": "array_wall_seconds", "host": "host_wall_seconds"}
        charts = [
            self._chart("Cycles", {"cycles": "cycles"}, lambda v: si(v, "cycles")),
            self._chart("Utilization", {"used": "utilization"}, percent, top=1.0),
            self._chart("Bytes through the array", crossing, bytes_text),
            self._chart("Wall time of the emulation", wall_times, seconds),
        ]
        return "What the run cost", pairs, charts, [self.by_layer(), self.table()]

    def __repr__(self) -> str:
        total = self.totals
        return (
            f"<RunReport {total['array_nodes']} nodes on the array, {total['host_nodes']} on the host: "
            f"{total['cycles']:,} cycles, {total['macs']:,} MACs>"
        )
