"""``RunReport``: the cost of each layer of a run, as a table, a file or a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from systolic import presets
from systolic._show.columns import columns
from systolic._show.page import Page
from systolic._show.report import Report, bytes_text, keyed_table, origin, sizes_text, values_of
from systolic._show.table import Table, percent, seconds, si
from systolic.config import machine_text
from systolic.energy.accounts import joules
from systolic.engine.layer_run import (
    DIFFERENCES,
    HELD,
    SUMMED,
    LayerRun,
    difference_columns,
    differences,
    unknown_macs,
)
from systolic.gemm import mapping_column, products_text, with_mappings
from systolic.isa import Activate, Convolve, HostCall, Instruction, MatrixMultiply, Program, Vector
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

NOT_CHECKED = "not checked: systolic.verify compares a model's outputs with ONNX Runtime's or with numpy's"


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
        ``seconds`` at the machine's clock and their ``share`` of the run's; bytes across the
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

    def __init__(
        self, run: Any, *, model: str = "", source: str = "", verdict: str | Sequence[str] = ()
    ) -> None:
        if not isinstance(getattr(run, "layers", None), tuple):
            raise TypeError(f"a report is about a Run, not {type(run).__name__}; systolic.run returns one")
        # Not the run itself: a report does not keep its outputs alive.
        self.layers = run.layers
        self.energy = run.energy
        self._units = None if run.timeline is None else units_of(run.timeline.program)
        self._rounded = bool(difference_columns(run.layers))
        self._not_finite = run.not_finite
        self.model, self.source, self.time = model or run.model, source, run.time
        self.verdict = ([verdict] if isinstance(verdict, str) else list(verdict)) or [NOT_CHECKED]
        self._inputs = dict(run.inputs)
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
            "shape": sizes_text(layer.shape) if layer.dtype else None,
            "dtype": layer.dtype or None,
            **values_of(gemm, "m", "k", "n", "groups"),
            **values_of(stats if on == "array" else None, "folds"),
            **values_of(stats, "cycles"),
            **values_of(stats if on == "array" else None, "utilization", "macs"),
            "host_macs": layer.off_array and layer.off_array.macs,
            "off_array": layer.off_array and layer.off_array.reason,
            "seconds": None if stats is None else self.machine.seconds(cycles),
            "share": None if stats is None else share,
            **({"energy_pj": None if stats is None else sum(parts.values())} if parts else {}),
            **by_program,
            **values_of(stats if on == "array" else None, "weight_bytes", "activation_bytes", "output_bytes"),
            **values_of(layer, *(SUMMED if self._units is None else HELD)),
            **(dict.fromkeys(DIFFERENCES) if self._rounded else {}),
            **differences(layer),
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
        summed = SUMMED if self._units is None else HELD
        return {
            "array_nodes": on.count("array"),
            "host_nodes": on.count("host"),
            **timed,
            **stats,
            "utilization": self.stats.utilization,
            "host_macs": sum(node.macs or 0 for node in self._off),
            "array_share": array_share(self.stats.macs, self._off),
            "seconds": self.seconds,
            **({} if self.energy is None else {"energy_pj": self.energy.total_pj}),
            **{name: sum(getattr(layer, name) for layer in self.layers) for name in summed},
        }

    @property
    def title(self) -> str:
        """The machine and the mode."""
        return f"{machine_text(self.machine)}, {self.mode} mode"

    def table(self) -> Table:
        """Return a row per node with the main columns; :meth:`to_frame` and :meth:`to_csv` have all."""
        more = ("array_wall_seconds", "host_wall_seconds")
        names = [
            "number", "node", "layer", "on", "shape", "product", *mapping_column(self.rows), "folds",
            "cycles", "utilization", "macs", "seconds", *self._energy_column(), "weight_bytes",
            "activation_bytes", "parameter_bytes",
            *(more if self._units is None else ("array_cycles", "limit")),
            *difference_columns(self.layers), *off_array_columns(self._off),
        ]  # fmt: skip
        rows = [
            {
                **row,
                "number": number,
                "product": products_text(layer.gemm, layer.products),
                **unknown_macs(layer),
                "parameter_bytes": layer.parameter_bytes or None,
                "array_wall_seconds": layer.gemm and layer.array_wall_seconds,
            }
            for number, (row, layer) in enumerate(zip(self.rows, self.layers, strict=True))
        ]
        return keyed_table(names, rows, {**self.totals, "node": "total"}, self.title)

    @property
    def _off(self) -> list[OffArray]:
        return [layer.off_array for layer in self.layers if layer.off_array is not None]

    @property
    def reasons(self) -> list[str]:
        """Why MACs did not run on the array, in a few lines; empty if all did."""
        if self.stats.macs:
            return share_lines(self.stats.macs, self._off)
        return off_array_lines(self._off) if self._off else []

    def _energy_column(self) -> tuple[str, ...]:
        return () if self.energy is None else ("energy_pj",)

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
            heads = columns("layer", "nodes", "cycles", "macs", "share")
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
        names = ("layer", "nodes", "cycles", "macs", "array_wall_seconds", "host_wall_seconds", "wall_share")
        return Table(columns(*names), rows, title="By kind of layer")

    def to_dict(self) -> dict[str, Any]:
        """Return machine, mode, totals and rows as JSON can hold them."""
        return {
            "machine": self.machine.to_dict(),
            "mode": self.mode,
            "totals": self.totals,
            "nodes": self.rows,
        }

    def _head(self) -> list[tuple[str, str]]:
        read = ", ".join(f"{name} {sizes_text(s)} {dtype}" for name, (s, dtype) in self._inputs.items())
        source = self.source or "arrays"
        return origin(
            model=self.model or "without a name",
            input=f"{source}: {read}" if read else source,
            machine=presets.described(self.machine),
            mode=self.mode,
            time=self.time,
            verdict=self.verdict,
        )

    def _page(self) -> Page:
        total = self.totals
        nodes = f"{total['array_nodes']} on the array, {total['host_nodes']} on the host"
        how = " (array cycles only)"
        if self._units is not None:
            nodes = f"{nodes}, {total['vector_nodes']} on the vector unit"
            alone = total["array_cycles"]
            how = "" if alone is None else f", {alone:,} cycles on the array alone"
        pairs = [
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
        return Page("What the run cost", self._head(), pairs, charts, tables)

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
