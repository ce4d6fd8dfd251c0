"""``Summary``: what a model holds and would cost, without data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from systolic import presets
from systolic._show.page import Page
from systolic._show.report import Report, bytes_text, keyed_table, origin, sizes_text, values_of
from systolic._show.table import Table, percent, seconds, si
from systolic._text import printable
from systolic.config import ArrayConfig, MachineConfig, machine_text
from systolic.energy import Activity, Energy, EnergyTable
from systolic.gemm import Gemm, mapping_column, products_text, with_mappings
from systolic.layers import ArrayLayer
from systolic.model.inference import Tensor, array_of, products_of, stats_of
from systolic.model.node import Node, parameters
from systolic.model.placement import (
    MACS_BY_PLACE,
    OffArray,
    array_share,
    macs_text,
    off_array,
    off_array_columns,
    off_array_lines,
    placements,
    share_lines,
)
from systolic.stats import Stats


def summarize(
    title: str,
    nodes: Sequence[Node],
    known: Mapping[str, Tensor],
    constants: Mapping[str, np.ndarray],
    machine: MachineConfig,
    note: str = "",
    of: Callable[..., tuple[Gemm, ...] | None] = products_of,
    energies: EnergyTable | None = None,
) -> Summary:
    """Return the Summary of nodes whose tensors have `known` shapes and dtypes.

    `of` returns the products of a node, as `products_of` does.
    """
    rows = tuple(
        _node_summary(node, known, constants, machine.array, of, place)
        for node, place in zip(nodes, placements(nodes, known), strict=True)
    )
    # Nodes with an unknown product may still run on the array.
    on_array = any(row.on == "array" and (row.stats is None or row.stats.macs) for row in rows)
    off = None if on_array else off_array(nodes, known)
    return Summary(title, rows, machine, off, note, energies)


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
        The product, the first if there are several; None for a host layer, and if a shape is unknown.
    stats : Stats or None
        What all products cost.
    parameters, parameter_bytes : int
        Elements and bytes of the weights, bias and other arrays that the node holds or reads.
    products : int
        How many products it runs on the array, as far as known.
    array : ArrayConfig or None
        The array with the operand types of the node; None for a host layer, and if a shape is unknown.
    off_array : OffArray or None
        Why its MACs do not run on the array, and how many; None if it has none or they do.
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
    products: int = 0
    array: ArrayConfig | None = None
    off_array: OffArray | None = None


def _node_summary(
    node: Node, known: Mapping[str, Tensor], constants: Mapping[str, np.ndarray], array: ArrayConfig,
    of: Callable[..., tuple[Gemm, ...] | None], place: OffArray | None,
) -> NodeSummary:  # fmt: skip
    gemms = of(node, known) or ()
    stats = stats_of(node, known, array, of) or ()
    return NodeSummary(
        node.name,
        node.layer.kind,
        "array" if isinstance(node.layer, ArrayLayer) else "host",
        tuple(known[tensor] for tensor in dict.fromkeys(node.inputs) if tensor not in constants),
        tuple(known[tensor] for tensor in filter(None, node.outputs)),
        gemms[0] if gemms else None,
        sum(stats, Stats()) if stats else None,
        *parameters(node, constants),
        len(gemms),
        array_of(node, known, array) if gemms else None,
        place,
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
    note : str
        What the costs rest on, if not on the model as it runs: that it is costed as if quantized, say.
    energies : EnergyTable or None
        What :attr:`energy` is computed with.
    time : datetime
        When it was made, with its time zone.
    rows : list of dict
        For each node where it runs, shapes and types, ``m k n groups``, ``mapping`` if some product has
        another than the default, ``macs``, ``folds``, ``cycles``, ``utilization``, ``host_macs`` that do not
        run on the array and why (``off_array``), ``energy_pj``, ``parameters`` and their bytes, and bytes of
        the tensors it reads and writes.
    totals : dict
        Sums of what is known; ``complete`` says whether that is everything. ``array_share`` is the share of
        all MACs that run on the array; None if there are none, or some are not known.

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
    note: str = ""
    energies: EnergyTable | None = None
    time: datetime = field(default_factory=lambda: datetime.now().astimezone(), compare=False)

    @property
    def energy(self) -> Energy | None:
        """The energy of the nodes on the array, by node and by component; None if it was not asked for."""
        if self.energies is None:
            return None
        array = self.machine.array
        activities = [
            Activity(name=node.name, layer=node.layer, stats=node.stats, array=node.array or array)
            for node in self.nodes
            if node.stats is not None
        ]
        return Energy(activities, self.machine, self.energies)

    @property
    def stats(self) -> Stats:
        """The sum of what the nodes cost, as far as their sizes are known."""
        return sum((node.stats for node in self.nodes if node.stats is not None), Stats())

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A dict per node, as the class describes."""
        energy = self.energy
        costs = iter(() if energy is None else (sum(parts.values()) for parts in energy.layers_pj))
        rows = [
            _row(node, {} if energy is None else {"energy_pj": None if node.stats is None else next(costs)})
            for node in self.nodes
        ]
        return with_mappings(rows, [node.gemm for node in self.nodes])

    @property
    def totals(self) -> dict[str, Any]:
        """Sums of what is known."""
        rows = self.rows
        stats = self.stats
        summed = ("parameters", "parameter_bytes", "read_bytes", "written_bytes")
        return {
            "array_nodes": sum(node.on == "array" for node in self.nodes),
            "host_nodes": sum(node.on == "host" for node in self.nodes),
            **values_of(stats, "macs", "folds", "cycles", "utilization"),
            "host_macs": sum(node.macs or 0 for node in self._off),
            "array_share": array_share(stats.macs, self._off),
            "seconds": self.machine.seconds(stats.cycles),
            **({} if self.energy is None else {"energy_pj": self.energy.total_pj}),
            **{name: sum(row[name] or 0 for row in rows) for name in summed},
            "complete": all(node.stats is not None for node in self.nodes if node.on == "array")
            and all(row["read_bytes"] is not None and row["written_bytes"] is not None for row in rows),
        }

    @property
    def _off(self) -> list[OffArray]:
        return [node.off_array for node in self.nodes if node.off_array is not None]

    @property
    def reasons(self) -> list[str]:
        """Why MACs do not run on the array, in a few lines, and which nodes on it have none."""
        if self.off_array is not None:
            return off_array_lines(self.off_array)
        macs = sum(node.stats.macs for node in self.nodes if node.stats is not None)
        return (share_lines(macs, self._off) if macs else []) + [
            f"node {printable(node.name)!r} ({node.layer}) has 0 MACs: its product is empty"
            for node in self.nodes
            if node.on == "array" and node.stats is not None and not node.stats.macs
        ]

    def table(self, top: int | None = None) -> Table:
        """Return a row per node: ``?`` where a value depends on runtime data.

        Parameters
        ----------
        top : int, optional
            Limit on rows: those with the most cycles first, then the others in the model's order.
        """
        names = [
            "number", "node", "layer", "on", "reads", "writes", "dtype", "product",
            *mapping_column(self.rows), "macs", *off_array_columns(self._off), "cycles", "utilization",
            *(() if self.energies is None else ("energy_pj",)), "parameters", "parameter_bytes",
            "written_bytes",
        ]  # fmt: skip
        rows = []
        for number, (node, row) in enumerate(zip(self.nodes, self.rows, strict=True)):
            row |= {"number": number, "product": products_text(node.gemm, node.products)}
            unknown = ["written_bytes"]
            if node.on == "array":
                unknown += ["product", "macs", "cycles", "utilization", "energy_pj"]
            if node.off_array is not None:
                unknown.append("host_macs")
            row |= {name: "?" for name in unknown if row.get(name) is None}
            row |= {name: row[name] or None for name in ("parameters", "parameter_bytes")}
            rows.append(row)
        if top is not None:
            # Nodes on the array first, those with the most cycles first.
            spent = [-(node.stats or Stats()).cycles for node in self.nodes]
            rows = sorted(rows, key=lambda row: (row["on"] != "array", spent[row["number"]]))[:top]
        total = self.totals
        least = "total" if total["complete"] else "total of what is known"
        title = f"{self.title}, on a {machine_text(self.machine)}"
        return keyed_table(names, rows, {**total, "node": least}, title)

    def to_dict(self) -> dict[str, Any]:
        """Return machine, totals and rows as JSON can hold them."""
        return {
            "model": self.title,
            "machine": self.machine.to_dict(),
            "totals": self.totals,
            "note": self.note or None,
            "reasons": self.reasons,
            "off_array": None if self.off_array is None else [node.to_dict() for node in self.off_array],
            "nodes": self.rows,
        }

    def _page(self) -> Page:
        total = self.totals
        at_least = "" if total["complete"] else "at least "
        head = origin(
            model=self.title,
            input="shapes alone: nothing runs",
            machine=presets.described(self.machine),
            time=self.time,
            verdict=["not checked: costs are estimated in closed form"],
        )
        pairs = [
            ("nodes", f"{total['array_nodes']} on the array, {total['host_nodes']} on the host"),
            ("MACs", at_least + macs_text(total)),
            ("cycles, estimated", f"{at_least}{total['cycles']:,} ({seconds(total['seconds'])})"),
            ("utilization", percent(total["utilization"])),
            *([] if self.energy is None else [("energy, estimated", at_least + repr(self.energy)[8:-1])]),
            ("parameters", f"{total['parameters']:,} ({bytes_text(total['parameter_bytes'])})"),
        ]
        if self.reasons:
            pairs.insert(1, ("array", "; ".join(map(str.strip, self.reasons))))
        if self.note:
            pairs.insert(1, ("note", self.note))
        charts = [
            self._chart("MACs", MACS_BY_PLACE, lambda v: si(v, "MACs")),
            self._chart("Estimated cycles", {"cycles": "cycles"}, lambda v: si(v, "cycles")),
            self._chart("Bytes of parameters", {"parameter_bytes": "parameter_bytes"}, bytes_text),
        ]
        return Page("What the model holds and would cost", head, pairs, charts, [self.table()])

    def __str__(self) -> str:
        return "\n".join([*filter(None, [self.note]), *self.reasons, str(self.table())])

    def __repr__(self) -> str:
        total = self.totals
        at_least = "" if total["complete"] else "at least "
        return (
            f"<Summary {printable(self.title)}: {at_least}{total['macs']:,} MACs, "
            f"{total['cycles']:,} cycles, {total['parameters']:,} parameters>"
        )


def _row(node: NodeSummary, energy: Mapping[str, Any]) -> dict[str, Any]:
    counts = ("macs", "folds", "cycles", "utilization", "weight_bytes", "activation_bytes", "output_bytes")
    return {
        "node": node.name,
        "layer": node.layer,
        "on": node.on,
        "reads": ", ".join(sizes_text(shape) for shape, _ in node.reads),
        "writes": ", ".join(sizes_text(shape) for shape, _ in node.writes),
        "dtype": ", ".join(dtype for _, dtype in node.writes),
        **values_of(node.gemm, "m", "k", "n", "groups"),
        **values_of(node.stats, *counts),
        "host_macs": node.off_array and node.off_array.macs,
        "off_array": node.off_array and node.off_array.reason,
        **energy,
        "parameters": node.parameters,
        "parameter_bytes": node.parameter_bytes,
        "read_bytes": _tensor_bytes(node.reads),
        "written_bytes": _tensor_bytes(node.writes),
    }


def _tensor_bytes(tensors: tuple[Tensor, ...]) -> int | None:
    sizes = [math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in tensors if shape is not None]
    return sum(sizes) if len(sizes) == len(tensors) else None
