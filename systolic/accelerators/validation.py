"""``validate_tpu_v1``: the tables of the TPU paper beside those of stand-ins on the preset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from systolic import isa, presets
from systolic._show.columns import columns
from systolic._show.table import Column, Table
from systolic.accelerators import studies
from systolic.accelerators.counters import Counters, count
from systolic.accelerators.stand_ins import StandIn, stand_in
from systolic.accelerators.tpu_v1 import (
    APPLICATIONS,
    CITATION,
    EXAMPLE_600,
    EXAMPLE_600_TILES,
    PEAK_TERA_OPS,
    RIDGE_POINT,
    TABLE_1,
    TABLE_3,
)
from systolic.config import ArrayConfig, MachineConfig, MemoryConfig
from systolic.machine.timeline import time_program


@dataclass(frozen=True)
class Check:
    """A published figure that ours must meet.

    Parameters
    ----------
    name, unit : str
    published, ours : float
    within : float
        The largest difference: in the figure's unit, or in percent of the published figure.
    in_percent : bool
    """

    name: str
    unit: str
    published: float
    ours: float
    within: float
    in_percent: bool = False

    @property
    def difference(self) -> float:
        """Ours minus the published figure, in the unit of `within`."""
        off = self.ours - self.published
        return 100 * off / self.published if self.in_percent else off

    @property
    def passed(self) -> bool:
        """Whether the difference is small enough."""
        return abs(self.difference) <= self.within

    def to_dict(self) -> dict[str, Any]:
        """Return figures and verdict as a dict that JSON can hold."""
        return {
            "name": self.name,
            "unit": self.unit,
            "published": self.published,
            "ours": self.ours,
            "difference": self.difference,
            "within": self.within,
            "in_percent": self.in_percent,
            "passed": self.passed,
        }


@dataclass(frozen=True)
class Validation:
    """What :func:`validate_tpu_v1` found.

    Parameters
    ----------
    machine : MachineConfig
    checks : tuple of Check
        Figures with a tolerance.
    stand_ins : dict of str to StandIn
    counters : dict of str to Counters
        By application.
    tables : dict of str to Table
        Published figures beside ours, by the table's key.
    """

    machine: MachineConfig
    checks: tuple[Check, ...]
    stand_ins: dict[str, StandIn]
    counters: dict[str, Counters]
    tables: dict[str, Table]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if not check.passed)

    def check_table(self) -> Table:
        """Return a row per check."""
        rows = [
            (c.name, c.unit, c.published, c.ours, c.difference, _limit(c), "ok" if c.passed else "MISSED")
            for c in self.checks
        ]
        figure = studies.figure
        formats = {"published": figure, "ours": figure, "difference": lambda v: f"{v:+.3g}" if v else "0"}
        names = ("figure", "figure_unit", "published", "ours", "difference", "within", "verdict")
        heads = [replace(each, format=formats.get(each.key)) for each in columns(*names)]
        return Table(heads, rows, title="Wanted figures")

    def to_dict(self) -> dict[str, Any]:
        """Return everything as a dict that JSON can hold."""
        return {
            "passed": self.passed,
            "citation": CITATION,
            "machine": self.machine.to_dict(),
            "checks": [check.to_dict() for check in self.checks],
            "stand_ins": {name: each.to_dict() for name, each in self.stand_ins.items()},
            "counters": {name: counters.to_dict() for name, counters in self.counters.items()},
            "tables": {
                key: {"title": table.title, "rows": table.to_dicts()} for key, table in self.tables.items()
            },
        }

    def text(self) -> str:
        """Return all tables as text, the checks last."""
        verdict = "every wanted figure is met"
        if not self.passed:
            verdict = f"missed: {'; '.join(check.name for check in self.failures)}"
        return "\n\n".join([*map(str, self.tables.values()), str(self.check_table()), verdict])

    def _repr_html_(self) -> str:
        return "".join(table.html() for table in (self.check_table(), *self.tables.values()))

    def __repr__(self) -> str:
        met = len(self.checks) - len(self.failures)
        return f"<Validation: {met} of {len(self.checks)} wanted figures met, {len(self.tables)} tables>"


def _limit(check: Check) -> str:
    if not check.within:
        return "exact"
    return f"{check.within:g}%" if check.in_percent else f"{check.within:g}"


def validate_tpu_v1() -> Validation:
    """Return the tables of the TPU paper beside those of stand-ins on the preset.

    Returns
    -------
    Validation

    Notes
    -----
    Shares of table 3 are given twice: of all cycles, and scaled. A scaled share is one of the cycles in which
    the array is active or waits for weights, times one minus the published share of non-matrix time. It
    leaves open what the paper does not describe: how the hosts and the programs kept the array waiting.

    Examples
    --------
    >>> from systolic.accelerators import validate_tpu_v1
    >>> validate_tpu_v1()
    <Validation: 19 of 19 wanted figures met, 17 tables>
    """
    machine = presets.TPU_V1
    applications = {name: stand_in(name) for name in APPLICATIONS}
    counters = {name: count(each, machine) for name, each in applications.items()}
    tables = {
        "stand_ins": stand_in_table(applications),
        **{f"table_3_{name}": table_3(counters[name]) for name in APPLICATIONS},
        "non_matrix": studies.non_matrix(counters),
        "rates": studies.rates(counters),
        "cycles_per_tile": studies.cycles_per_tile(counters),
        "example_600": studies.example_600(machine),
        "batch": studies.batches(machine),
        "throughput": studies.throughput(counters),
        "unified_buffer": studies.unified_buffer(counters),
        "what_if": studies.what_if(machine),
        "exercise_7_2": studies.exercise_7_2(),
        "open": studies.open_choices(machine),
    }
    return Validation(machine, tuple(_checks(machine, counters)), applications, counters, tables)


def stand_in_table(applications: Mapping[str, StandIn]) -> Table:
    """Return the stand-ins beside table 1."""
    rows = []
    for name, each in applications.items():
        layers = "/".join(str(each.layers(kind)) for kind in ("fc", "conv", "vector", "pool"))
        published = "/".join(f"{TABLE_1[kind][name]:g}" for kind in ("fc", "conv", "vector", "pool"))
        weights, reuse = TABLE_1["weights"][name], TABLE_1["macs_per_weight_byte"][name]
        rows.append(
            (name, published, layers, weights, each.weights / 1e6, reuse, each.macs_per_weight_byte,
             int(TABLE_1["batch"][name]), each.batch)
        )  # fmt: skip
    columns = (
        "application", "layers published", "layers here", Column("weights published", ">", "g"),
        Column("weights here", ">", ".2f"), Column("MACs/byte published", ">", "g"),
        Column("MACs/byte here", ">", ".0f"), "batch published", "batch here",
    )  # fmt: skip
    footer = "\n".join(f"{name}: {each.reasoning}" for name, each in applications.items())
    title = "Stand-ins from table 1: FC/Conv/Vector/Pool layers, million weights"
    return Table(columns, rows, title=title, footer=footer)


def table_3(counters: Counters) -> Table:
    """Return an application's column of table 3 beside ours."""
    name, rows = counters.name, []
    for key, published in TABLE_3.items():
        ours, scaled = counters.row(key), counters.scaled(key, TABLE_3["non_matrix"][name])
        rows.append(
            (published.name, published[name], ours, ours - published[name], scaled,
             None if scaled is None else scaled - published[name])
        )  # fmt: skip
    columns = (
        "row", Column("published", ">", ".1f"), Column("ours", ">", ".1f"), Column("difference", ">", "+.1f"),
        Column("scaled", ">", ".1f"), Column("scaled difference", ">", "+.1f"),
    )  # fmt: skip
    return Table(columns, rows, title=f"Table 3: {name}, % of cycles")


def _checks(machine: MachineConfig, counters: Mapping[str, Counters]) -> list[Check]:
    array, memory = machine.array, machine.memory
    assert memory is not None
    macs_per_second = array.rows * array.cols * machine.clock_mhz * 1_000_000
    found = [
        Check("peak", "TeraOps/s", PEAK_TERA_OPS["8 bit"], 2 * macs_per_second / 1e12, 0.005),
        Check(
            "ridge point", "MACs/byte", RIDGE_POINT["DDR3"],
            float(macs_per_second / memory.weight_bytes_per_second), 2, in_percent=True,
        ),
    ]  # fmt: skip
    for name in ("MLP0", "MLP1"):
        for key, points in (("weight_shift", 1), ("weight_stall", 3), ("active", 3)):
            scaled = counters[name].scaled(key, TABLE_3["non_matrix"][name])
            assert scaled is not None
            row = TABLE_3[key]
            found.append(
                Check(f"{name}: {row.name.lower()}, scaled", "% of cycles", row[name], scaled, points)
            )
    found.append(
        Check(
            "LSTM1: useful of active MACs", "", studies.SHARE_600, counters["LSTM1"].useful_share_of_active,
            0.0005,
        )
    )  # fmt: skip
    for size in (256, 512):
        of_size = studies.square_array(machine, size)
        program, ours = studies.program_600(of_size)
        key = str(size)
        tiles = sum(isinstance(item, isa.MatrixMultiply) for item in program)
        found += [
            Check(f"600 x 600 on {size} x {size}: tiles", "tiles", EXAMPLE_600_TILES[key], tiles, 0),
            Check(
                f"600 x 600 on {size} x {size}: tiles from memory", "us", EXAMPLE_600[key],
                studies.closed_form_600(of_size), 5, in_percent=True,
            ),
            Check(
                f"600 x 600 on {size} x {size}: program", "us", EXAMPLE_600[key], ours, 5, in_percent=True
            ),
        ]  # fmt: skip
    found.append(
        Check("exercise 7.2: weights from memory", "us", 651.0, studies.exercise_weights_us(), 0.05)
    )
    found += [
        Check(
            f"Mini-TPU: {name}", "cycles", cycles,
            time_program(isa.Program(isa.assemble(text), functions), _MINI).cycles, 0,
        )
        for name, (text, functions, cycles) in _MINI_PROGRAMS.items()
    ]  # fmt: skip
    return found


# Another open simulator, Mini-TPU, prints these counts: 48 bytes of weights in a cycle, 22 of the host's.
_MINI = MachineConfig(
    ArrayConfig(256, 256),
    clock_mhz=700,
    memory=MemoryConfig(
        weight_bytes=2**33, weight_bytes_per_second=48 * 700_000_000, unified_buffer_rows=98_304,
        host_rows=2**20, host_bytes_per_second=22 * 700_000_000,
    ),
)  # fmt: skip

_READ = "read_weights w#0, {}\nread_host u#0, {}\n"
_PASS = "matmul a#0, u#{}, 16\nactivate u#{}, a#0, 16\n"
_MINI_PROGRAMS: dict[str, tuple[str, tuple[isa.Function, ...], int]] = {
    "one product": (_READ.format(1, 16) + _PASS.format(0, 16) + "write_host u#16, 16", (), 2352),
    "three products": (
        _READ.format(3, 16) + "".join(_PASS.format(16 * i, 16 * i + 16) for i in range(3))
        + "write_host u#48, 16",
        (),
        5084,
    ),
    "pooled": (
        _READ.format(1, 36) + "matmul a#0, u#0, 36\nactivate u#36, a#0, 36, f#1\nwrite_host u#36, 9",
        (isa.Function(), isa.Function("largest of 4", pool=4)),
        2310,
    ),
}  # fmt: skip
