"""``Summary``: what a model holds and would cost, without data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from systolic._show.report import Report, bytes_text, sizes_text
from systolic._show.table import Column, Table, percent, seconds, si
from systolic._text import printable
from systolic.config import ArrayConfig, MachineConfig
from systolic.gemm import Gemm
from systolic.layers import ArrayLayer
from systolic.layers.base import Shape
from systolic.model.inference import Tensor, product_of
from systolic.model.node import Node, parameters
from systolic.model.placement import OffArray, off_array, off_array_lines
from systolic.stats import Stats
from systolic.tiling import estimate_gemm


def summarize(
    title: str,
    nodes: Sequence[Node],
    known: Mapping[str, Tensor],
    constants: Mapping[str, np.ndarray],
    machine: MachineConfig,
) -> Summary:
    """Return the Summary of nodes whose tensors have `known` shapes and dtypes."""
    rows = tuple(_node_summary(node, known, constants, machine.array) for node in nodes)
    # Nodes with an unknown product may still run on the array.
    on_array = any(row.on == "array" and (row.stats is None or row.stats.macs) for row in rows)
    return Summary(title, rows, machine, None if on_array else off_array(nodes, known))


@dataclass(frozen=True)
class NodeSummary:
    """One node of a :class:`Summary`.

    Attributes
    ----------
    name, layer : str
    on : {"array", "host"}
    reads, writes : tuple of (shape or None, dtype)
        Tensors between layers; constants are parameters.
    gemm : Gemm or None
        The product; None for a host layer, and if a shape is unknown.
    stats : Stats or None
        What the product costs.
    parameters, parameter_bytes : int
        Elements and bytes of the weights, bias and other arrays that the node holds or reads.
    """

    name: str
    layer: str
    on: str
    reads: tuple[Tensor, ...]
    writes: tuple[Tensor, ...]
    gemm: Gemm | None
    stats: Stats | None
    parameters: int
    parameter_bytes: int


def _node_summary(
    node: Node, known: Mapping[str, Tensor], constants: Mapping[str, np.ndarray], array: ArrayConfig
) -> NodeSummary:
    gemm = product_of(node, known)
    return NodeSummary(
        node.name,
        node.layer.kind,
        "array" if isinstance(node.layer, ArrayLayer) else "host",
        tuple(known[tensor] for tensor in dict.fromkeys(node.inputs) if tensor not in constants),
        tuple(known[tensor] for tensor in filter(None, node.outputs)),
        gemm,
        None if gemm is None else estimate_gemm(gemm, array),
        *parameters(node, constants),
    )


@dataclass(frozen=True, repr=False)
class Summary(Report):
    """What a model holds and would cost: the result of :func:`systolic.summary`.

    Attributes
    ----------
    title : str
        The model's name, inputs and outputs.
    nodes : tuple of NodeSummary
    machine : MachineConfig
    off_array : tuple of OffArray or None
        Nodes that multiply and do not run on the array, if no MAC runs there; otherwise None.
    rows : list of dict
        For each node where it runs, shapes and types, ``m k n groups``, ``macs``, ``folds``, ``cycles``,
        ``utilization``, ``parameters`` and their bytes, and bytes of the tensors it reads and writes.
    totals : dict
        Sums of what is known; ``complete`` says whether that is everything.

    Examples
    --------
    >>> import systolic
    >>> found = systolic.summary(systolic.load_example().model, machine=systolic.ArrayConfig(16, 16))
    >>> found.totals["macs"], found.totals["cycles"], found.totals["parameters"], found.totals["complete"]
    (502400, 3477, 31370, True)
    """

    title: str
    nodes: tuple[NodeSummary, ...]
    machine: MachineConfig
    off_array: tuple[OffArray, ...] | None = None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A dict per node, as the class describes."""
        return [_row(node) for node in self.nodes]

    @property
    def totals(self) -> dict[str, Any]:
        """Sums of what is known."""
        rows = self.rows
        stats = sum((node.stats for node in self.nodes if node.stats is not None), Stats())
        summed = ("parameters", "parameter_bytes", "read_bytes", "written_bytes")
        return {
            "array_nodes": sum(node.on == "array" for node in self.nodes),
            "host_nodes": sum(node.on == "host" for node in self.nodes),
            "macs": stats.macs,
            "folds": stats.folds,
            "cycles": stats.cycles,
            "utilization": stats.utilization,
            "machine_seconds": self.machine.seconds(stats.cycles),
            **{name: sum(row[name] or 0 for row in rows) for name in summed},
            "complete": all(node.stats is not None for node in self.nodes if node.on == "array")
            and all(row["read_bytes"] is not None and row["written_bytes"] is not None for row in rows),
        }

    def table(self, top: int | None = None) -> Table:
        """Return a row per node: ``?`` where a value depends on runtime data.

        Parameters
        ----------
        top : int, optional
            Limit on rows: those with the most cycles first, then the others in the model's order.
        """
        columns: list[str | Column] = ["#", "node", "layer", "on", "reads", "writes", "dtype", "product"]
        columns += [Column(name, ">") for name in ("MACs", "cycles")]
        columns += [Column("utilization", ">", percent)]
        columns += [
            "parameters",
            Column("parameter bytes", format=bytes_text),
            Column("written", ">", bytes_text),
        ]
        rows = []
        for number, (node, row) in enumerate(zip(self.nodes, self.rows, strict=True)):
            absent = "?" if node.on == "array" else None
            costs: tuple[Any, ...] = (absent,) * 4
            if node.gemm is not None and node.stats is not None:
                costs = (node.gemm.text, node.stats.macs, node.stats.cycles, node.stats.utilization)
            rows.append(
                (
                    number, node.name, node.layer, node.on, row["reads"], row["writes"], row["dtype"], *costs,
                    node.parameters or None, node.parameter_bytes or None,
                    "?" if row["written_bytes"] is None else row["written_bytes"],
                )
            )  # fmt: skip
        total = self.totals
        least = "total" if total["complete"] else "total of what is known"
        if top is not None:
            order = sorted(range(len(rows)), key=lambda i: _rank(self.nodes[i]))
            rows = [rows[i] for i in order[:top]]
        footer = (
            None, least, None, None, None, None, None, None, total["macs"], total["cycles"],
            total["utilization"], total["parameters"], total["parameter_bytes"], total["written_bytes"],
        )  # fmt: skip
        array = self.machine.array
        title = f"{self.title}, on a {array.rows} x {array.cols} array at {self.machine.clock_mhz:g} MHz"
        return Table(columns, rows, title=title, footer=footer)

    def to_dict(self) -> dict[str, Any]:
        """Return machine, totals and rows as JSON can hold them."""
        return {
            "model": self.title,
            "machine": self.machine.to_dict(),
            "totals": self.totals,
            "off_array": None if self.off_array is None else [node.to_dict() for node in self.off_array],
            "nodes": self.rows,
        }

    def _page(self) -> str:
        from systolic._show.charts import Series, columns_chart
        from systolic._show.page import page

        total, array = self.totals, self.machine.array
        at_least = "" if total["complete"] else "at least "
        pairs = [
            ("model", self.title),
            ("machine", f"{array.rows} x {array.cols} array at {self.machine.clock_mhz:g} MHz"),
            ("nodes", f"{total['array_nodes']} on the array, {total['host_nodes']} on the host"),
            *(
                []
                if self.off_array is None
                else [("array", "; ".join(map(str.strip, off_array_lines(self.off_array))))]
            ),
            ("MACs", f"{at_least}{total['macs']:,}"),
            ("cycles, estimated", f"{at_least}{total['cycles']:,} ({seconds(total['machine_seconds'])})"),
            ("utilization", percent(total["utilization"])),
            ("parameters", f"{total['parameters']:,} ({bytes_text(total['parameter_bytes'])})"),
        ]
        names, rows = [node.name for node in self.nodes], self.rows
        charts = [
            columns_chart(title, names, [Series(key, [row[key] or 0 for row in rows])], show)
            for title, key, show in (
                ("MACs", "macs", lambda v: si(v, "MACs")),
                ("Estimated cycles", "cycles", lambda v: si(v, "cycles")),
                ("Bytes of parameters", "parameter_bytes", bytes_text),
            )
        ]
        return page("What the model holds and would cost", pairs, charts, [self.table()])

    def __str__(self) -> str:
        first = [] if self.off_array is None else off_array_lines(self.off_array)
        return "\n".join([*first, str(self.table())])

    def __repr__(self) -> str:
        total = self.totals
        at_least = "" if total["complete"] else "at least "
        return (
            f"<Summary {printable(self.title)}: {at_least}{total['macs']:,} MACs, "
            f"{total['cycles']:,} cycles, {total['parameters']:,} parameters>"
        )


def _row(node: NodeSummary) -> dict[str, Any]:
    stats = node.stats
    sizes = ("m", "k", "n", "groups")
    counts = ("macs", "folds", "cycles", "utilization", "weight_bytes", "activation_bytes", "output_bytes")
    return {
        "node": node.name,
        "layer": node.layer,
        "on": node.on,
        "reads": ", ".join(_sizes(shape) for shape, _ in node.reads),
        "writes": ", ".join(_sizes(shape) for shape, _ in node.writes),
        "dtype": ", ".join(dtype for _, dtype in node.writes),
        **{name: None if node.gemm is None else getattr(node.gemm, name) for name in sizes},
        **{name: None if stats is None else getattr(stats, name) for name in counts},
        "parameters": node.parameters,
        "parameter_bytes": node.parameter_bytes,
        "read_bytes": _tensor_bytes(node.reads),
        "written_bytes": _tensor_bytes(node.writes),
    }


def _rank(node: NodeSummary) -> tuple[bool, int]:
    """Return the sort key of a node: on the array first, then by cycles, largest first."""
    return node.on != "array", 0 if node.stats is None else -node.stats.cycles


def _tensor_bytes(tensors: tuple[Tensor, ...]) -> int | None:
    sizes = [math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in tensors if shape is not None]
    return sum(sizes) if len(sizes) == len(tensors) else None


def _sizes(shape: Shape | None) -> str:
    return "?" if shape is None else sizes_text(shape)
