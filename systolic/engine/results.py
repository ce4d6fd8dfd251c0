"""Results of a run: ``Run``, its rows, one per layer, and ``RunReport``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from systolic import _check
from systolic._hints import nearest
from systolic._show.report import Report, bytes_text, keyed_table, sizes_text, values_of
from systolic._show.table import Column, Table, percent, seconds, si
from systolic._text import printable
from systolic.config import ArrayConfig, MachineConfig
from systolic.energy import Activity, Energy, EnergyTable
from systolic.energy.accounts import joules
from systolic.engine.finite import output_lines
from systolic.gemm import Gemm, mapping_column, products_text, with_mappings
from systolic.isa import Activate, Convolve, HostCall, Instruction, MatrixMultiply, Program, Vector
from systolic.machine import Timeline
from systolic.model.placement import (
    MACS_BY_PLACE,
    OffArray,
    array_share,
    macs_text,
    off_array_columns,
    off_array_lines,
    share_lines,
)
from systolic.stats import CAUSES, Stats
from systolic.trace import Trace

# What a report adds up over the layers.
_SUMMED = (
    "parameters", "parameter_bytes", "read_bytes", "written_bytes",
    "wall_seconds", "array_wall_seconds", "host_wall_seconds",
)  # fmt: skip
_HELD = _SUMMED[:4]


@dataclass(frozen=True)
class LayerRun:
    """One layer of a run.

    Attributes
    ----------
    name, layer : str
        The node's name and the kind of layer; "by rows" or "by host" behind it if the layer does not fit
        into the unified buffer, see :func:`systolic.compile`.
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
    largest_difference, mean_difference : float or None
        Of a product of float32 in a narrower format: how far its output is from that of the same product in
        float32 on the same inputs, in ONNX Runtime if it is installed, else exact; None of other layers.
    array : ArrayConfig or None
        The array with the operand types of the layer; None is the machine's.
    toggles : dict of str to int, or None
        Bits that each register changed, if a :class:`~systolic.energy.Toggles` probe counted them.
    zero_macs : int or None
        MACs with an operand that is zero, counted together with them.
    off_array : OffArray or None
        Why the layer's MACs did not run on the array, and how many; None if it has none or they did.

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
    ('stem_quant', Gemm(64, 9, 16), 2235)
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
    largest_difference: float | None = field(default=None, compare=False)
    mean_difference: float | None = field(default=None, compare=False)
    array: ArrayConfig | None = None
    toggles: dict[str, int] | None = None
    zero_macs: int | None = None
    off_array: OffArray | None = None

    def activity(self, machine: MachineConfig) -> Activity:
        """Return what the machine did for the layer, for its energy."""
        return Activity(
            name=self.name, layer=self.layer, stats=self.stats, array=self.array or machine.array,
            toggles=self.toggles, zero_macs=self.zero_macs,
        )  # fmt: skip

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
            **({} if self.off_array is None else {"off_array": self.off_array.to_dict()}),
            **({"array_cycles": self.array_cycles, "limit": self.limit} if self.limit else {}),
            **_differences(self),
        }


_DIFFERENCES = {"largest_difference": "largest difference", "mean_difference": "mean difference"}


def _difference_columns(layers: Sequence[LayerRun]) -> dict[str, str | Column]:
    """Return the columns of differences from float32, if some layer has one."""
    if all(layer.largest_difference is None for layer in layers):
        return {}
    return {name: Column(head, ">", ".2g") for name, head in _DIFFERENCES.items()}


def _unknown_macs(layer: LayerRun) -> dict[str, str]:
    return {"host_macs": "?"} if layer.off_array is not None and layer.off_array.macs is None else {}


def _differences(layer: LayerRun) -> dict[str, Any]:
    """Return how far a layer's output is from float32, if it is known, as JSON can hold it."""
    if layer.largest_difference is None:
        return {}
    values = {name: getattr(layer, name) for name in _DIFFERENCES}
    return {name: value if math.isfinite(value) else str(value) for name, value in values.items()}


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
    energies : EnergyTable or None
        What :attr:`energy` is computed with.
    tensors : dict of str to ndarray
        The tensors that ``keep`` named, in the order they were written.

    Examples
    --------
    >>> import systolic
    >>> example = systolic.load_example()
    >>> systolic.run(example.model, example.images[:1], mode="wavefront")
    <Run logits (1, 10) float32: 54,781 cycles (78.3 µs at 700 MHz), utilization 0.014%>
    """

    outputs: dict[str, np.ndarray]
    layers: tuple[LayerRun, ...]
    machine: MachineConfig
    mode: str
    trace: Trace | None = None
    timeline: Timeline | None = None
    energies: EnergyTable | None = None
    tensors: dict[str, np.ndarray] = field(default_factory=dict)

    def __getitem__(self, name: str) -> np.ndarray:
        """Return an output, or a tensor that was kept, by its name.

        Raises
        ------
        KeyError
            If there is none; the message has the nearest name. ``run(..., keep=)`` keeps other tensors.

        Examples
        --------
        >>> import systolic
        >>> example = systolic.load_example()
        >>> run = systolic.run(example.model, example.images[:1], mode="wavefront")
        >>> run["logits"].argmax(), "logits" in run, list(run)
        (np.int64(7), True, ['logits'])
        """
        if name not in self:
            raise KeyError(f"the run has no tensor {name!r}; {nearest(name, list(self))}")
        return (self.outputs if name in self.outputs else self.tensors)[name]

    def __contains__(self, name: object) -> bool:
        return name in self.outputs or name in self.tensors

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the outputs, then of the other tensors that were kept."""
        return iter({**self.outputs, **self.tensors})

    @property
    def energy(self) -> Energy | None:
        """The energy by layer and by component; None if the run was asked for none.

        Registers of layers count by their toggles if a :class:`~systolic.energy.Toggles` probe counted them.
        Host layers, and the host as a whole, take no energy here.
        """
        if self.energies is None:
            return None
        return Energy([layer.activity(self.machine) for layer in self.layers], self.machine, self.energies)

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
        """Time on the machine at its clock, in seconds: of the array alone if the machine has no memories."""
        return self.machine.seconds(self.stats.cycles)

    @property
    def reasons(self) -> list[str]:
        """Why MACs did not run on the array, in a few lines; empty if all did."""
        return self.report().reasons

    @property
    def not_finite(self) -> list[str]:
        """Which outputs hold NaN or infinities, and how many, a line for each; empty if none does."""
        return output_lines(self.outputs)

    def plot_layers(self, *, top: int | None = None) -> Any:
        """Draw the cycles of each layer as bars, by cause on a machine with memories; a matplotlib Figure.

        Parameters
        ----------
        top : int, optional
            Only so many layers: those with the most cycles, in their order.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        if self.timeline is not None:
            return self.timeline.plot_layers(top=top)
        from systolic._show.causes import plot_layers

        if top is not None:
            top = _check.integer(top, "top", minimum=1)
        cycles = [(layer.name, {"cycles": layer.stats.cycles}) for layer in self.layers]
        return plot_layers(cycles, top=top, title=f"Cycles of the array, {self.stats.cycles:,} in all")

    def table(self) -> Table:
        """Return a row per layer: shape, folds, cycles, utilization, time and share of time.

        On a machine with memories also where the layer runs, what its products take on the array alone,
        and what limits it.
        """
        report = self.report()
        timed = self.timeline is not None
        columns: dict[str, str | Column] = {
            "node": "layer", "layer": "kind", "shape": "output", "product": "product",
            **mapping_column(report.rows), "folds": "folds",
            **({"on": "on", "array_cycles": "array cycles"} if timed else {}),
            "cycles": "machine cycles" if timed else "cycles",
            "utilization": Column("utilization", format=percent),
            "machine_seconds": Column("time", format=seconds), "share": Column("share", format=percent),
            **report._energy_column(),
            **({"limit": "limited by"} if timed else {}),
            **_difference_columns(self.layers), **off_array_columns(report._off),
        }  # fmt: skip
        rows = [
            {
                **row,
                "shape": _check.shape(layer.shape) if layer.dtype else None,
                **_unknown_macs(layer),
                "product": products_text(layer.gemm, layer.products),
            }
            for row, layer in zip(report.rows, self.layers, strict=True)
        ]
        if timed:  # a program without its model does not know them
            for name in ("shape", "product", "array_cycles"):
                if all(row[name] is None for row in rows):
                    del columns[name]
        return keyed_table(columns, rows, {**report.totals, "node": "total"}, report.title)

    def report(self) -> RunReport:
        """Return the cost of each layer as a table, JSON, CSV, a pandas frame or an HTML page.

        Examples
        --------
        >>> import systolic
        >>> example = systolic.load_example()
        >>> report = systolic.run(example.model, example.images[:1], mode="wavefront").report()
        >>> report.totals["cycles"], report.totals["macs"], report.totals["weight_bytes"]
        (54781, 502400, 31136)
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
            **({} if self.energy is None else {"energy_pj": self.energy.total_pj}),
            "layers": [layer.to_dict() for layer in self.layers],
            "outputs": {name: list(value.shape) for name, value in self.outputs.items()},
            "not_finite": self.not_finite,
            **({} if self.timeline is None else {"causes": dict(self.timeline.causes)}),
        }

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with a row per layer; times in seconds, energy in pJ."""
        return self.table().to_frame().rename(columns={"energy": "energy_pj"})

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
        For each node: ``m k n groups`` of its product, its ``mapping`` if some product has another than the
        default, ``folds``, ``cycles``, ``utilization``, ``macs``,
        ``machine_seconds`` at the machine's clock and their ``share`` of the run's; bytes across the
        array's edges, as :class:`~systolic.Stats` counts them: ``weight_bytes`` (a tile each time it is
        loaded), ``activation_bytes`` (a row each time it is streamed), ``output_bytes`` (int32
        accumulators); bytes in memory: ``parameters`` and ``parameter_bytes``, tensors' ``read_bytes``
        and ``written_bytes``; and the emulation's ``wall_seconds``: ``array_wall_seconds`` for the array
        (im2col included) and ``host_wall_seconds`` for the host (whole layers, requantization). Unless the
        run has no energy, ``energy_pj`` and that of each component, ``macs_pj`` for example. On a
        machine with memories also cycles by cause, the ``array_cycles`` of the products alone and the
        ``limit``; `on` is where the program runs the layer: "array", "vector", "host", or "none" if
        it moves no data; and no time of the emulation, which does not tell layers apart. Of a model whose
        products of float32 run in a narrower format (``load_onnx(..., compute=)``) also the
        ``largest_difference`` and the ``mean_difference`` of each from float32. ``host_macs`` did not run on
        the array, for the reason in ``off_array``.
    totals : dict
        Sums over all nodes, the numbers of ``array_nodes`` and ``host_nodes``, and the ``array_share`` of
        all MACs; None if there are none, or some are not known.

    Examples
    --------
    >>> import systolic
    >>> example = systolic.load_example()
    >>> report = systolic.run(example.model, example.images[:1], mode="wavefront").report()
    >>> report.totals["array_nodes"], report.totals["vector_nodes"], report.totals["host_nodes"]
    (8, 3, 2)
    >>> report.rows[1]["node"], report.rows[1]["on"], report.rows[1]["cycles"], report.rows[1]["macs"]
    ('stem_quant', 'array', 2235, 9216)
    >>> print(report.to_csv().splitlines()[2][:65])
    stem_quant,QLinearConv,array,1x16x8x8,int8,64,9,16,1,1,2235,6.291
    """

    def __init__(self, run: Run) -> None:
        if not isinstance(run, Run):
            raise TypeError(f"a report is about a Run, not {type(run).__name__}; systolic.run returns one")
        # Not the run itself: a report does not keep its outputs alive.
        self.layers = run.layers
        self.energy = run.energy
        self._units = None if run.timeline is None else units_of(run.timeline.program)
        self._rounded = bool(_difference_columns(run.layers))
        self._not_finite = run.not_finite
        self.machine, self.mode, self.stats, self.seconds = run.machine, run.mode, run.stats, run.seconds

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A dict per node, as the class describes."""
        parts = [{}] * len(self.layers) if self.energy is None else self.energy.layers_pj
        rows = [self._row(layer, each) for layer, each in zip(self.layers, parts, strict=True)]
        return with_mappings(rows, [layer.gemm for layer in self.layers])

    def _row(self, layer: LayerRun, parts: Mapping[str, float]) -> dict[str, Any]:
        gemm, cycles, on = layer.gemm, layer.stats.cycles, self._on(layer)
        stats = layer.stats if self._units is not None or gemm is not None else None
        share = cycles / self.stats.cycles if self.stats.cycles else 0.0
        by_program: dict[str, Any] = {}
        if self._units is not None:
            by_program = {
                "array_cycles": layer.array_cycles if on == "array" else None,
                "limit": layer.limit,
                **{name: count for name, count in layer.stats.to_dict().items() if name in CAUSES},
            }
        return {
            "node": layer.name,
            "layer": layer.layer,
            "on": on,
            "output": sizes_text(layer.shape) if layer.dtype else None,
            "dtype": layer.dtype or None,
            **values_of(gemm, "m", "k", "n", "groups"),
            **values_of(stats if on == "array" else None, "folds"),
            **values_of(stats, "cycles"),
            **values_of(stats if on == "array" else None, "utilization", "macs"),
            "host_macs": layer.off_array and layer.off_array.macs,
            "off_array": layer.off_array and layer.off_array.reason,
            "machine_seconds": None if stats is None else self.machine.seconds(cycles),
            "share": None if stats is None else share,
            **({"energy_pj": None if stats is None else sum(parts.values())} if parts else {}),
            **by_program,
            **values_of(stats if on == "array" else None, "weight_bytes", "activation_bytes", "output_bytes"),
            **values_of(layer, *(_SUMMED if self._units is None else _HELD)),
            **(dict.fromkeys(_DIFFERENCES) if self._rounded else {}),
            **_differences(layer),
            **{f"{name}_pj": None if stats is None else part for name, part in parts.items()},
        }

    def _on(self, layer: LayerRun) -> str:
        """Return where a layer runs."""
        if self._units is None:
            return "host" if layer.gemm is None else "array"
        return self._units.get((layer.name, layer.layer), "none")

    @property
    def totals(self) -> dict[str, Any]:
        """Sums over all nodes."""
        on = [self._on(layer) for layer in self.layers]
        stats = self.stats.to_dict()
        del stats["pe_cycles"]
        timed: dict[str, Any] = {}
        if self._units is not None:
            alone = [layer.array_cycles for layer in self.layers if layer.array_cycles is not None]
            timed = {"vector_nodes": on.count("vector"), "array_cycles": sum(alone) if alone else None}
        summed = _SUMMED if self._units is None else _HELD
        return {
            "array_nodes": on.count("array"),
            "host_nodes": on.count("host"),
            **timed,
            **stats,
            "utilization": self.stats.utilization,
            "host_macs": sum(node.macs or 0 for node in self._off),
            "array_share": array_share(self.stats.macs, self._off),
            "machine_seconds": self.seconds,
            **({} if self.energy is None else {"energy_pj": self.energy.total_pj}),
            **{name: sum(getattr(layer, name) for layer in self.layers) for name in summed},
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
            **mapping_column(self.rows), "folds": "folds", "cycles": "cycles",
            "utilization": Column("utilization", format=percent),
            "macs": "MACs", "machine_seconds": Column("time", format=seconds), **self._energy_column(),
            "weight_bytes": Column("weights in", format=bytes_text),
            "activation_bytes": Column("activations in", format=bytes_text),
            "parameter_bytes": Column("parameters", format=bytes_text),
        }  # fmt: skip
        if self._units is None:
            columns["array_wall_seconds"] = Column("array wall", format=seconds)
            columns["host_wall_seconds"] = Column("host wall", format=seconds)
        else:
            columns |= {"array_cycles": "array cycles", "limit": "limited by"}
        columns |= _difference_columns(self.layers) | off_array_columns(self._off)
        rows = [
            {
                **row,
                "#": number,
                "product": products_text(layer.gemm, layer.products),
                **_unknown_macs(layer),
                "parameter_bytes": layer.parameter_bytes or None,
                "array_wall_seconds": layer.gemm and layer.array_wall_seconds,
            }
            for number, (row, layer) in enumerate(zip(self.rows, self.layers, strict=True))
        ]
        return keyed_table(columns, rows, {**self.totals, "node": "total"}, self.title)

    @property
    def _off(self) -> list[OffArray]:
        return [layer.off_array for layer in self.layers if layer.off_array is not None]

    @property
    def reasons(self) -> list[str]:
        """Why MACs did not run on the array, in a few lines; empty if all did."""
        if self.stats.macs:
            return share_lines(self.stats.macs, self._off)
        return off_array_lines(self._off) if self._off else []

    def _energy_column(self) -> dict[str, Column]:
        return {} if self.energy is None else {"energy_pj": Column("energy", format=joules)}

    def by_layer(self) -> Table:
        """Return a row per kind of layer, the slowest to emulate first, or, of a program, to run."""
        kinds: dict[str, list[LayerRun]] = {}
        for layer in self.layers:
            kinds.setdefault(layer.layer, []).append(layer)
        if self._units is not None:
            every = self.stats.cycles
            found = [(kind, sum((layer.stats for layer in alike), Stats())) for kind, alike in kinds.items()]
            found.sort(key=lambda pair: -pair[1].cycles)
            timed = [
                (kind, len(kinds[kind]), stats.cycles, stats.macs, stats.cycles / every if every else 0.0)
                for kind, stats in found
            ]
            heads = ("layer", "nodes", "cycles", "MACs", Column("share of cycles", format=percent))
            return Table(heads, timed, title="By kind of layer")
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
        nodes = f"{total['array_nodes']} on the array, {total['host_nodes']} on the host"
        how = " (array cycles only)"
        if self._units is not None:
            nodes = f"{nodes}, {total['vector_nodes']} on the vector unit"
            alone = total["array_cycles"]
            how = "" if alone is None else f", {alone:,} cycles on the array alone"
        pairs = [
            ("machine", self.title),
            ("nodes", nodes),
            ("cycles", f"{total['cycles']:,}"),
            ("time on the machine", f"{seconds(self.seconds)}{how}"),
            ("MACs", macs_text(total)),
            *([("array", "; ".join(map(str.strip, self.reasons)))] if self.reasons else []),
            *([("not finite", "; ".join(self._not_finite))] if self._not_finite else []),
            ("utilization", percent(total["utilization"])),
            ("folds", f"{total['folds']:,}"),
            ("parameters", f"{total['parameters']:,} ({bytes_text(total['parameter_bytes'])})"),
            *([] if self.energy is None else [("energy", repr(self.energy)[8:-1])]),
            (
                "through the array",
                f"{bytes_text(total['weight_bytes'])} of weights, {bytes_text(total['activation_bytes'])} of "
                f"activations in, {bytes_text(total['output_bytes'])} of accumulators out",
            ),
        ]
        crossing = {
            "weights in": "weight_bytes",
            "activations in": "activation_bytes",
            "accumulators out": "output_bytes",
        }
        causes = {name.removesuffix("_cycles").replace("_", " "): name for name in CAUSES[:4]}
        charts = [
            self._chart(
                "Cycles", {"cycles": "cycles"} if self._units is None else causes, lambda v: si(v, "cycles")
            ),
            self._chart("MACs", MACS_BY_PLACE, lambda v: si(v, "MACs")),
            self._chart("Utilization", {"used": "utilization"}, percent, top=1.0),
            self._chart("Bytes through the array", crossing, bytes_text),
        ]
        if self.energy is not None:
            charts.append(self._chart("Energy", {"energy": "energy_pj"}, joules))
        if self._units is None:
            wall, array, host = (total[f"{part}wall_seconds"] for part in ("", "array_", "host_"))
            share = percent(host / wall if wall else 0.0)
            emulation = f"{seconds(wall)}: array {seconds(array)}, host {seconds(host)} ({share})"
            pairs.append(("emulation", emulation))
            wall_times = {"array": "array_wall_seconds", "host": "host_wall_seconds"}
            charts.append(self._chart("Wall time of the emulation", wall_times, seconds))
        tables = [self.by_layer(), self.table()]
        if self.energy is not None:
            tables += [self.energy.counts_table(), self.energy.table()]
        return "What the run cost", pairs, charts, tables

    def __repr__(self) -> str:
        total = self.totals
        return (
            f"<RunReport {total['array_nodes']} nodes on the array, {total['host_nodes']} on the host: "
            f"{total['cycles']:,} cycles, {total['macs']:,} MACs>"
        )


def units_of(program: Program) -> dict[tuple[str, str], str]:
    """Return the unit that a program runs each layer on, by name and kind: the array before the others."""
    order: dict[str, set[type[Instruction]]] = {
        "array": {MatrixMultiply, Convolve},
        "vector": {Vector, Activate},
        "host": {HostCall},
        "none": set(),
    }
    units = tuple(order)
    found: dict[tuple[str, str], str] = {}
    for section in program.sections:
        kinds = {type(item) for item in program.instructions[section.first : section.stop]}
        unit = next((unit for unit, own in order.items() if kinds & own), "none")
        layer = (section.name, section.kind)
        found[layer] = min(unit, found.get(layer, "none"), key=units.index)
    return found
