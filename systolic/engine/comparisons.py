"""``compare``: what a product or a model costs on every dataflow of an array, side by side."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields, replace
from typing import Any

from systolic import _check
from systolic._show.columns import columns
from systolic._show.table import Table
from systolic.config import ArrayConfig, MachineConfig, given_machine
from systolic.dataflows import DATAFLOWS
from systolic.engine.costs import products_by_node
from systolic.frontend import costed
from systolic.gemm import Gemm
from systolic.isa import Program
from systolic.model import Model
from systolic.presets import TPU_V1
from systolic.stats import Stats
from systolic.tiling import PortBytes, estimate_gemm, port_bytes
from systolic.workloads import Workload

Work = Gemm | Model | Workload | Mapping[str, Gemm] | Sequence[Gemm] | str | os.PathLike[str]


@dataclass(frozen=True, kw_only=True)
class DataflowCost:
    """What work costs on one dataflow.

    Parameters
    ----------
    dataflow : str
    stats : Stats
        As :func:`systolic.estimate` gives them.
    ports : PortBytes
        Bytes that enter the array from the `west` and from the `north`, and that leave it to the `south`.
    """

    dataflow: str
    stats: Stats
    ports: PortBytes

    @property
    def cycles(self) -> int:
        """Clock edges from reset to the last sum; of several products, of one after the other."""
        return self.stats.cycles

    @property
    def utilization(self) -> float:
        """Useful MACs over the MACs the array had room for."""
        return self.stats.utilization

    def to_dict(self) -> dict[str, Any]:
        """Return utilization, bytes at the ports and counts as JSON can hold them."""
        return {
            "dataflow": self.dataflow,
            "utilization": self.utilization,
            "port_bytes": asdict(self.ports),
            "stats": self.stats.to_dict(),
        }


@dataclass(frozen=True, repr=False)
class Comparison(Mapping[str, DataflowCost]):
    """Costs on each dataflow, by its name: the result of :func:`compare`.

    Attributes
    ----------
    name : str
        Of the model; of products, their sizes or how many they are.
    machine : MachineConfig
        The array, of whatever dataflow, and its clock.
    layers : tuple of (str, dict of str to DataflowCost)
        Name and costs of each product, or of each layer of a model that uses the array.
    """

    name: str
    machine: MachineConfig
    layers: tuple[tuple[str, dict[str, DataflowCost]], ...]

    def __getitem__(self, dataflow: str) -> DataflowCost:
        """Return the cost of all layers on a dataflow."""
        if dataflow not in DATAFLOWS:
            raise KeyError(f"no dataflow {dataflow!r}; the dataflows are {', '.join(DATAFLOWS)}")
        of_layers = [costs[dataflow] for _, costs in self.layers]
        return DataflowCost(
            dataflow=dataflow,
            stats=sum((cost.stats for cost in of_layers), Stats()),
            ports=sum((cost.ports for cost in of_layers), PortBytes()),
        )

    def __iter__(self) -> Iterator[str]:
        return iter(DATAFLOWS)

    def __len__(self) -> int:
        return len(DATAFLOWS)

    @property
    def fastest(self) -> str:
        """The dataflow of the fewest cycles; the first, if several have them."""
        return _fastest(self)

    @property
    def mixed_cycles(self) -> int:
        """Cycles if each layer could run on the dataflow that is fastest for it."""
        return sum(costs[_fastest(costs)].cycles for _, costs in self.layers)

    def table(self) -> Table:
        """Return a row per dataflow: cycles, time, utilization, and bytes at the ports."""
        heads = columns(
            "dataflow", "cycles", "seconds", "utilization", "west_bytes", "north_bytes", "south_bytes",
            "port_bytes",
        )  # fmt: skip
        rows = [
            (_spaced(name), cost.cycles, self.machine.seconds(cost.cycles), cost.utilization,
             *astuple(cost.ports), cost.ports.total)
            for name, cost in self.items()
        ]  # fmt: skip
        return Table(heads, rows, title=self._title, footer=_NOTE)

    def layer_table(self) -> Table:
        """Return a row per layer: its cycles on each dataflow, and the fastest."""
        rows = [
            (name, *(costs[dataflow].cycles for dataflow in self), _spaced(_fastest(costs)))
            for name, costs in self.layers
        ]
        total = ("total", *(cost.cycles for cost in self.values()), _spaced(self.fastest))
        return Table(
            columns("node", *(f"{name}_cycles" for name in self), "fastest"), rows, title=self._title,
            footer=total if len(rows) > 1 else None,
        )  # fmt: skip

    def to_frame(self) -> Any:
        """Return :meth:`frame_table` as a pandas frame; needs ``pip install "systolic[pandas]"``."""
        return self.frame_table().to_frame()

    def frame_table(self) -> Table:
        """Return a row per layer and dataflow."""
        names = (
            "node", "dataflow", "cycles", "seconds", "utilization", "folds", "macs", "west_bytes",
            "north_bytes", "south_bytes",
        )  # fmt: skip
        rows = [
            (name, dataflow, cost.cycles, self.machine.seconds(cost.cycles), cost.utilization,
             cost.stats.folds, cost.stats.macs, *astuple(cost.ports))
            for name, costs in self.layers
            for dataflow, cost in costs.items()
        ]  # fmt: skip
        return Table(columns(*names), rows)

    def to_dict(self) -> dict[str, Any]:
        """Return machine, totals and layers as JSON can hold them."""
        return {
            "name": self.name,
            "machine": self.machine.to_dict(),
            "fastest": self.fastest,
            "mixed_cycles": self.mixed_cycles,
            "dataflows": [cost.to_dict() for cost in self.values()],
            "layers": [
                {"name": name, "dataflows": [cost.to_dict() for cost in costs.values()]}
                for name, costs in self.layers
            ],
        }

    def plot(self) -> Any:
        """Draw cycles and bytes of each dataflow, and the cycles of each layer; returns a matplotlib Figure.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        from systolic._show.comparisons import plot_comparison

        costs = list(self.values())
        return plot_comparison(
            [_spaced(name) for name in self],
            [(cost.cycles, cost.utilization) for cost in costs],
            {side.name: [getattr(cost.ports, side.name) for cost in costs] for side in fields(PortBytes)},
            [(name, [costs[dataflow].cycles for dataflow in self]) for name, costs in self.layers],
            title=self._title,
        )

    @property
    def _title(self) -> str:
        array = self.machine.array
        return f"{self.name} on {array.rows} x {array.cols} PEs at {self.machine.clock_mhz:g} MHz"

    def __repr__(self) -> str:
        cycles = ", ".join(f"{_spaced(name)} {cost.cycles:,}" for name, cost in self.items())
        return f"<Comparison of {self._title}: {cycles} cycles>"

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table().html()


_NOTE = (
    "west, north, south: bytes at the array's edges, each time, without padding.\n"
    "Activations enter from the west, weights from the north; input stationary, exchanged.\n"
    "Sums leave to the south, one for each k tile unless they stay in the PEs."
)


def compare(
    work: Work,
    *,
    machine: MachineConfig | ArrayConfig | None = None,
    array: ArrayConfig | None = None,
    batch: int = 1,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> Comparison:
    """Return what a product or a model costs on each dataflow of an array, without data.

    Parameters
    ----------
    work : Gemm, Model, Workload, Gemms in a sequence or by name, or path
        As for :func:`estimate`, without programs. Products run one after the other.
    machine : MachineConfig or ArrayConfig, optional
        Its array, with each dataflow in turn, and its clock; its memories are left out. Bytes are those of
        the array's operand types. Default the TPU v1 preset.
    array : ArrayConfig, optional
        Instead of `machine`.
    batch : int
        Size of the first axis where a model takes any; of products, a factor of their rows.
    shapes : mapping of str to tuple of int, optional
        Whole shapes of a model's inputs by name; needed where other sizes are symbolic.

    Returns
    -------
    Comparison
        A mapping from the names of the dataflows to their costs, with ``table()``, ``layer_table()``,
        ``to_frame()``, ``to_dict()`` and ``plot()``. Counts are exact: a run on such an array takes the same
        cycles, and moves the same bytes through the ports.

    Raises
    ------
    TypeError, ValueError
        If `work` is of another kind, or the size of a model's product depends on runtime values: the
        message names the node.

    Examples
    --------
    >>> import systolic
    >>> from systolic import ArrayConfig, Gemm
    >>> found = systolic.compare(Gemm(100, 512, 64), machine=ArrayConfig(64, 64))
    >>> {name: cost.cycles for name, cost in found.items()}
    {'weight_stationary': 990, 'output_stationary': 1214, 'input_stationary': 1214}
    >>> found.fastest, found["output_stationary"].ports
    ('weight_stationary', PortBytes(west=51200, north=65536, south=25600))
    """
    machine = replace(given_machine(machine, array, TPU_V1), memory=None)
    arrays = {name: replace(machine.array, dataflow=name) for name in DATAFLOWS}
    name, layers = _layers(work, batch, shapes)
    costs = (
        (layer, {name: _cost(gemms, array) for name, array in arrays.items()}) for layer, gemms in layers
    )
    return Comparison(name, machine, tuple(costs))


def _cost(gemms: Sequence[Gemm], array: ArrayConfig) -> DataflowCost:
    return DataflowCost(
        dataflow=array.dataflow,
        stats=sum((estimate_gemm(gemm, array) for gemm in gemms), Stats()),
        ports=sum((port_bytes(gemm, array) for gemm in gemms), PortBytes()),
    )


def _layers(
    work: Any, batch: int, shapes: Mapping[str, Sequence[int]] | None
) -> tuple[str, list[tuple[str, tuple[Gemm, ...]]]]:
    """Return the name of the work, and names and products of its layers."""
    if isinstance(work, Gemm):
        work = [work]
    named = isinstance(work, Model | Workload | str | os.PathLike)
    work = costed(work)
    if isinstance(work, Model):
        return work.name, [(node.name, gemms) for node, gemms in products_by_node(work, batch, shapes)]
    if isinstance(work, Program):
        raise TypeError("a program is weight stationary; compare takes the Model that it was compiled from")
    if not isinstance(work, Workload):
        raise TypeError(
            "compare takes a Gemm, several in a list or by name, a Workload, a Model or the path of one, "
            f"not {_check.kind(work)}"
        )
    if shapes is not None:
        raise ValueError("shapes are of a model's inputs; products have their sizes: leave shapes out")
    found = zip(work.layers, work.products(batch), strict=True)
    layers = [(layer.name, (gemm,) * count) for layer, (gemm, count) in found]
    several = f"{len(layers):,} products" if layers[1:] else layers[0][0]
    return work.name if named else several, layers


def _fastest(costs: Mapping[str, DataflowCost]) -> str:
    return min(costs, key=lambda name: costs[name].cycles)


def _spaced(name: str) -> str:
    return name.replace("_", " ")
