"""``Run``: the outputs of a model and what the run cost."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from systolic import _check
from systolic._hints import nearest
from systolic._show.report import keyed_table
from systolic._show.table import Table, percent, seconds
from systolic._text import printable
from systolic.config import MachineConfig
from systolic.energy import Energy, EnergyTable
from systolic.engine.finite import output_lines
from systolic.engine.layer_run import LayerRun, difference_columns, unknown_macs
from systolic.engine.run_report import RunReport
from systolic.gemm import mapping_column, products_text
from systolic.isa import Program
from systolic.machine import Timeline
from systolic.machine.layer_times import plot_layer_cycles
from systolic.model.placement import off_array_columns
from systolic.stats import Stats
from systolic.trace import Trace


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
    model : str
        The model's file, or its name; "" if it has none.
    inputs : dict of str to (tuple of int, str)
        Shapes and dtypes of the inputs.
    time : datetime or None
        When the run ended, with its time zone.

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
    model: str = ""
    inputs: Mapping[str, tuple[tuple[int, ...], str]] = field(default_factory=dict)
    time: datetime | None = None

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
        cycles = [(layer.name, {"cycles": layer.stats.cycles}) for layer in self.layers]
        return plot_layer_cycles(cycles, top, f"Cycles of the array, {self.stats.cycles:,} in all")

    def table(self) -> Table:
        """Return a row per layer: shape, folds, cycles, utilization, time and share of time.

        On a machine with memories also where the layer runs, what its products take on the array alone,
        and what limits it.
        """
        report = self.report()
        timed = self.timeline is not None
        names = [
            "node", "layer", "shape", "product", *mapping_column(report.rows), "folds",
            *(("on", "array_cycles") if timed else ()), "cycles", "utilization", "seconds", "share",
            *report._energy_column(), *(("limit",) if timed else ()), *difference_columns(self.layers),
            *off_array_columns(report._off),
        ]  # fmt: skip
        rows = [
            {
                **row,
                **unknown_macs(layer),
                "product": products_text(layer.gemm, layer.products),
            }
            for row, layer in zip(report.rows, self.layers, strict=True)
        ]
        if timed:  # a program without its model does not know them
            for name in ("shape", "product", "array_cycles"):
                if all(row[name] is None for row in rows):
                    names.remove(name)
        return keyed_table(names, rows, {**report.totals, "node": "total"}, report.title)

    def report(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        model: str = "",
        source: str = "",
        verdict: str | Sequence[str] = (),
    ) -> RunReport:
        """Return the cost of each layer as a table, JSON, CSV, a pandas frame or an HTML page.

        Parameters
        ----------
        path : path, optional
            Also write it to this file: ``.html``, ``.csv`` or ``.json``.
        model, source : str
            For the page's head: another name of the model than the run's; where the input comes from, such
            as a file or "random numbers, seed 0".
        verdict : str or sequence of str
            For the page's head: what the outputs were compared with, and the result. Default: that nothing
            was compared.

        Raises
        ------
        ValueError
            If the suffix of `path` is another.

        Examples
        --------
        >>> import systolic
        >>> example = systolic.load_example()
        >>> report = systolic.run(example.model, example.images[:1], mode="wavefront").report()
        >>> report.totals["cycles"], report.totals["macs"], report.totals["weight_bytes"]
        (54781, 502400, 31136)
        """
        report = RunReport(self, model=model, source=source, verdict=verdict)
        if path is not None:
            report.save(path)
        return report

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the values, as JSON can hold it."""
        return {
            "machine": self.machine.to_dict(),
            "mode": self.mode,
            "stats": self.stats.to_dict(),
            "utilization": self.stats.utilization,
            "seconds": self.seconds,
            **({} if self.energy is None else {"energy_pj": self.energy.total_pj}),
            "layers": [layer.to_dict() for layer in self.layers],
            "outputs": {name: list(value.shape) for name, value in self.outputs.items()},
            "not_finite": self.not_finite,
            **({} if self.timeline is None else {"causes": dict(self.timeline.causes)}),
        }

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with a row per layer; times in seconds, energy in pJ."""
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
