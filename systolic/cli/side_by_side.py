"""A table with a row per machine, where --array, --machine or --preset is given several times."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from systolic._show.columns import columns
from systolic._show.table import Table
from systolic.cli.options import machine_names
from systolic.config import MachineConfig
from systolic.stats import Stats


def machines_table(
    options: argparse.Namespace,
    costs: Sequence[tuple[MachineConfig, Stats | None]],
    title: str,
    verdicts: Sequence[str] | None = None,
) -> Table:
    """Return what work costs on each machine that the options name.

    Parameters
    ----------
    options : Namespace
    costs : sequence of (MachineConfig, Stats or None)
        In the order of the options; None if a size is unknown.
    title : str
    verdicts : sequence of str, optional
        What the checks of each found.
    """
    kind, given = machine_names(options)
    more = () if verdicts is None else ("verdict",)
    names = (kind, "rows", "cols", "clock_mhz", "cycles", "seconds", "utilization", "folds", *more)
    rows = [
        (
            name, machine.array.rows, machine.array.cols, machine.clock_mhz,
            *(
                (None,) * 4
                if stats is None
                else (stats.cycles, machine.seconds(stats.cycles), stats.utilization, stats.folds)
            ),
        )
        for name, (machine, stats) in zip(given, costs, strict=True)
    ]  # fmt: skip
    if verdicts is not None:
        rows = [(*row, verdict) for row, verdict in zip(rows, verdicts, strict=True)]
    return Table(columns(*names), rows, title=title)
