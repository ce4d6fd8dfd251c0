"""``RunReport``: what a run cost, node by node, on the array and beside it."""

from __future__ import annotations

from typing import Any

from systolic._show.table import Column, Table, percent, seconds, si
from systolic.engine import LayerRun, Run
from systolic.report.base import Report, product_text, sizes_text
from systolic.stats import Stats


class RunReport(Report):
    """What each layer of a run cost; ``Run.report`` makes it.

    Parameters
    ----------
    run : Run

    Attributes
    ----------
    rows : list of dict
        For each node: ``m k n groups`` of its product, ``folds``, ``cycles``, ``utilization``, ``macs``,
        ``machine_seconds`` at the machine's clock and their ``share`` of the run's; what crossed the
        array's edges, as :class:`~systolic.Stats` counts it: ``weight_bytes`` (a tile each time it is
        loaded), ``activation_bytes`` (a row each time it is streamed), ``output_bytes`` (int32 sums);
        what stands in memory: ``parameters`` and ``parameter_bytes``, tensors' ``read_bytes`` and
        ``written_bytes``; and the emulation's ``wall_seconds``: ``array_wall_seconds`` clocking the array
        (im2col included) and ``host_wall_seconds`` beside it (whole layers, requantization).
    totals : dict
        Their sums; ``array_nodes`` and ``host_nodes`` say how many nodes ran where.

    Examples
    --------
    >>> import systolic
    >>> example = systolic.load_example()
    >>> report = systolic.run(example.model, example.images[:1], mode="wavefront").report()
    >>> report.totals["array_nodes"], report.totals["host_nodes"]
    (8, 6)
    >>> report.rows[1]["node"], report.rows[1]["on"], report.rows[1]["cycles"], report.rows[1]["macs"]
    ('stem_quant', 'array', 830, 9216)
    >>> print(report.to_csv().splitlines()[2][:60])
    stem_quant,Conv2d,array,1x16x8x8,int8,64,9,16,1,1,830,0.0001
    """

    def __init__(self, run: Run) -> None:
        if not isinstance(run, Run):
            raise TypeError(f"a report is about a Run, not {type(run).__name__}; systolic.run returns one")
        # Of the run only what it cost: a report does not keep its outputs alive.
        self.layers = run.layers
        self.machine, self.mode, self.stats, self.seconds = run.machine, run.mode, run.stats, run.seconds

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A dict per node, as the class describes."""
        return [self._row(layer) for layer in self.layers]

    def _row(self, layer: LayerRun) -> dict[str, Any]:
        gemm, stats = layer.gemm, layer.stats
        on_array = gemm is not None

        def counted(value: Any) -> Any:
            return value if on_array else None

        return {
            "node": layer.name,
            "layer": layer.layer,
            "on": "array" if on_array else "host",
            "output": sizes_text(layer.shape),
            "dtype": layer.dtype,
            **{name: None if gemm is None else getattr(gemm, name) for name in ("m", "k", "n", "groups")},
            "folds": counted(stats.folds),
            "cycles": counted(stats.cycles),
            "utilization": counted(stats.utilization),
            "macs": counted(stats.macs),
            "machine_seconds": counted(self.machine.seconds(stats.cycles)),
            "share": counted(stats.cycles / self.stats.cycles if self.stats.cycles else 0.0),
            "weight_bytes": counted(stats.weight_bytes),
            "activation_bytes": counted(stats.activation_bytes),
            "output_bytes": counted(stats.output_bytes),
            "parameters": layer.parameters,
            "parameter_bytes": layer.parameter_bytes,
            "read_bytes": layer.read_bytes,
            "written_bytes": layer.written_bytes,
            "wall_seconds": layer.wall_seconds,
            "array_wall_seconds": layer.array_wall_seconds,
            "host_wall_seconds": layer.host_wall_seconds,
        }

    @property
    def totals(self) -> dict[str, Any]:
        """The sums over all nodes."""
        on_array = sum(layer.gemm is not None for layer in self.layers)
        stats = self.stats.to_dict()
        del stats["pe_cycles"]
        summed = (
            "parameters", "parameter_bytes", "read_bytes", "written_bytes",
            "wall_seconds", "array_wall_seconds", "host_wall_seconds",
        )  # fmt: skip
        return {
            "array_nodes": on_array,
            "host_nodes": len(self.layers) - on_array,
            **stats,
            "utilization": self.stats.utilization,
            "machine_seconds": self.seconds,
            **{name: sum(getattr(layer, name) for layer in self.layers) for name in summed},
        }

    def table(self) -> Table:
        """Return a row per node, for reading: all columns are in :meth:`to_frame` and :meth:`to_csv`."""
        total = self.totals
        columns: list[str | Column] = ["#", "node", "layer", "on", "output", "product", "folds", "cycles"]
        columns += [Column("utilization", format=percent), "MACs", Column("time", format=seconds)]
        columns += [Column(name, format=_bytes) for name in ("weights in", "activations in", "parameters")]
        columns += [Column("array wall", format=seconds), Column("host wall", format=seconds)]
        rows = [
            (
                number, row["node"], row["layer"], row["on"], row["output"],
                None if layer.gemm is None else product_text(layer.gemm),
                row["folds"], row["cycles"], row["utilization"], row["macs"], row["machine_seconds"],
                row["weight_bytes"], row["activation_bytes"], row["parameter_bytes"] or None,
                row["array_wall_seconds"] if layer.gemm is not None else None, row["host_wall_seconds"],
            )
            for number, (row, layer) in enumerate(zip(self.rows, self.layers, strict=True))
        ]  # fmt: skip
        footer = (
            None, "total", None, None, None, None, total["folds"], total["cycles"], total["utilization"],
            total["macs"], total["machine_seconds"], total["weight_bytes"], total["activation_bytes"],
            total["parameter_bytes"], total["array_wall_seconds"], total["host_wall_seconds"],
        )  # fmt: skip
        return Table(columns, rows, title=self._title(), footer=footer)

    def by_layer(self) -> Table:
        """Return a row per kind of layer, the costliest of the emulation first."""
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

    def _title(self) -> str:
        array = self.machine.array
        return f"{array.rows} x {array.cols} array at {self.machine.clock_mhz:g} MHz, {self.mode} mode"

    def _page(self) -> str:
        from systolic.report.charts import Series, columns_chart
        from systolic.report.page import page

        total = self.totals
        pairs = [
            ("machine", self._title()),
            ("nodes", f"{total['array_nodes']} on the array, {total['host_nodes']} beside it"),
            ("cycles", f"{total['cycles']:,}"),
            ("time on the machine", f"{seconds(self.seconds)} (array cycles only)"),
            ("MACs", f"{total['macs']:,}"),
            ("utilization", percent(total["utilization"])),
            ("folds", f"{total['folds']:,}"),
            ("parameters", f"{total['parameters']:,} ({_bytes(total['parameter_bytes'])})"),
            (
                "through the array",
                f"{_bytes(total['weight_bytes'])} of weights, {_bytes(total['activation_bytes'])} of "
                f"activations in, {_bytes(total['output_bytes'])} of sums out",
            ),
            ("emulation", self._emulation()),
        ]
        names = [layer.name for layer in self.layers]

        def column(key: str) -> list[float]:
            return [row[key] or 0 for row in self.rows]

        charts = [
            columns_chart("Cycles", names, [Series("cycles", column("cycles"))], lambda v: si(v, "cycles")),
            columns_chart("Utilization", names, [Series("used", column("utilization"))], percent, top=1.0),
            columns_chart(
                "Bytes through the array",
                names,
                [
                    Series("weights in", column("weight_bytes")),
                    Series("activations in", column("activation_bytes")),
                    Series("sums out", column("output_bytes")),
                ],
                _bytes,
            ),
            columns_chart(
                "Wall time of the emulation",
                names,
                [
                    Series("array", column("array_wall_seconds")),
                    Series("beside it", column("host_wall_seconds")),
                ],
                seconds,
            ),
        ]  # fmt: skip
        return page("What the run cost", pairs, charts, [self.by_layer(), self.table()])

    def _emulation(self) -> str:
        total = self.totals
        wall, array, host = (total[f"{part}wall_seconds"] for part in ("", "array_", "host_"))
        share = host / wall if wall else 0.0
        return f"{seconds(wall)}: array {seconds(array)}, beside it {seconds(host)} ({percent(share)})"

    def __repr__(self) -> str:
        total = self.totals
        return (
            f"<RunReport {total['array_nodes']} nodes on the array, {total['host_nodes']} beside it: "
            f"{total['cycles']:,} cycles, {total['macs']:,} MACs>"
        )


def _bytes(count: float | None) -> str:
    return si(count, "B")
