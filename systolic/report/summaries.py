"""``Summary``: what a model holds and would cost, without data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from systolic import _check
from systolic._show.table import Column, Table, percent, seconds, si
from systolic._text import printable
from systolic.config import ArrayConfig, MachineConfig, as_machine_config
from systolic.engine.networks import parameters
from systolic.engine.placement import OffArray, off_array, off_array_lines
from systolic.gemm import Gemm
from systolic.layers import ArrayLayer
from systolic.layers.base import Shape
from systolic.model import Model, Node
from systolic.presets import TPU_V1
from systolic.report.base import Report, product_text, sizes_text
from systolic.stats import Stats
from systolic.tiling import estimate_gemm

Tensor = tuple[Shape | None, str]
"""Shape, None if only a run can tell, and type."""


def summary(
    model: Model,
    *,
    machine: MachineConfig | ArrayConfig = TPU_V1,
    batch: int = 1,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> Summary:
    """Return shapes, MACs, estimated cycles, parameters and bytes of every node, without data.

    Parameters
    ----------
    model : Model
    machine : MachineConfig or ArrayConfig
        What it would run on; default the TPU v1 preset.
    batch : int
        Size of the first axis where the model takes any.
    shapes : mapping of str to tuple of int, optional
        Whole shapes of inputs by name, where other sizes are symbolic.

    Returns
    -------
    Summary
        Cycles equal those of a run. What only a run can tell, or hangs on a size that stays open,
        is None there and ``?`` in the table, and is not in the totals.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or a layer does not take what reaches it.

    See Also
    --------
    estimate : The total alone.

    Examples
    --------
    >>> import numpy as np
    >>> import systolic
    >>> from systolic import Dense, Model, QuantParams, Relu
    >>> q = QuantParams(0.5)
    >>> dense = Dense(np.ones((4, 3), np.int8), x=q, w=q, y=q)
    >>> model = Model([dense, Relu()], inputs={"x": ((None, 4), "int8")})
    >>> found = systolic.summary(model, batch=8)
    >>> [(row["node"], row["on"], row["reads"], row["writes"], row["macs"]) for row in found.rows]
    [('t0', 'array', '8x4', '8x3', 96), ('t1', 'host', '8x3', '8x3', None)]
    """
    if not isinstance(model, Model):
        raise TypeError(
            f"model must be a Model, not {type(model).__name__}; "
            "load_onnx and Model.load read one from a file"
        )
    machine = as_machine_config(machine)
    bound = model._bind(batch, shapes)
    known = model.trace(bound)
    inputs = ", ".join(f"{n} {_check.shape(s.shape)} {s.dtype}" for n, s in model.inputs.items())
    nodes = tuple(_node(node, known, model.constants, machine.array) for node in model.nodes)
    # Nodes with an unknown product may still run on the array.
    here = any(node.on == "array" and (node.stats is None or node.stats.macs) for node in nodes)
    beside = None if here else off_array(model, known)
    return Summary(f"{model.name}: {inputs} -> {', '.join(model.outputs)}", nodes, machine, beside)


@dataclass(frozen=True)
class NodeSummary:
    """One node of a :class:`Summary`.

    Attributes
    ----------
    name, layer : str
    on : {"array", "host"}
    reads, writes : tuple of (shape or None, dtype)
        Of the tensors between layers; constants are parameters.
    gemm : Gemm or None
        The product; None beside the array, and where a shape is unknown.
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


def _node(
    node: Node, known: Mapping[str, Tensor], constants: Mapping[str, np.ndarray], array: ArrayConfig
) -> NodeSummary:
    gemm = None
    if isinstance(node.layer, ArrayLayer):
        sizes = [shape for shape in (known[tensor][0] for tensor in node.inputs) if shape is not None]
        gemm = node.layer.products(*sizes) if len(sizes) == len(node.inputs) else None
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
    """What a model holds and would cost; :func:`summary` makes it.

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
        columns += ["parameters", Column("parameter bytes", format=_bytes), Column("written", ">", _bytes)]
        rows = []
        for number, (node, row) in enumerate(zip(self.nodes, self.rows, strict=True)):
            absent = "?" if node.on == "array" else None
            costs: tuple[Any, ...] = (absent,) * 4
            if node.gemm is not None and node.stats is not None:
                costs = (product_text(node.gemm), node.stats.macs, node.stats.cycles, node.stats.utilization)
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
        from systolic.report.charts import Series, columns_chart
        from systolic.report.page import page

        total, array = self.totals, self.machine.array
        at_least = "" if total["complete"] else "at least "
        pairs = [
            ("model", self.title),
            ("machine", f"{array.rows} x {array.cols} array at {self.machine.clock_mhz:g} MHz"),
            ("nodes", f"{total['array_nodes']} on the array, {total['host_nodes']} beside it"),
            *(
                []
                if self.off_array is None
                else [("array", "; ".join(map(str.strip, off_array_lines(self.off_array))))]
            ),
            ("MACs", f"{at_least}{total['macs']:,}"),
            ("cycles, estimated", f"{at_least}{total['cycles']:,} ({seconds(total['machine_seconds'])})"),
            ("utilization", percent(total["utilization"])),
            ("parameters", f"{total['parameters']:,} ({_bytes(total['parameter_bytes'])})"),
        ]
        names, rows = [node.name for node in self.nodes], self.rows
        charts = [
            columns_chart(title, names, [Series(key, [row[key] or 0 for row in rows])], show)
            for title, key, show in (
                ("MACs", "macs", lambda v: si(v, "MACs")),
                ("Estimated cycles", "cycles", lambda v: si(v, "cycles")),
                ("Bytes of parameters", "parameter_bytes", _bytes),
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


def _bytes(count: float | None) -> str:
    return si(count, "B")
