"""``Sweep``: the rows of a sweep, with frames, fronts and plots."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, overload

from systolic import _check
from systolic._hints import nearest
from systolic._show.columns import columns
from systolic._show.table import Table, percent, seconds
from systolic._text import printable
from systolic.energy import EnergyTable, as_table
from systolic.energy.accounts import joules
from systolic.sweeps.files import read_rows, write_rows
from systolic.sweeps.grids import ARRAY_FIELDS, MEMORY_FIELDS
from systolic.sweeps.rows import SweepRow


class Sweep(Sequence[SweepRow]):
    """The rows of a sweep, each configuration once. Sweeps merge with ``+``.

    Parameters
    ----------
    rows : iterable of SweepRow

    Raises
    ------
    ValueError
        If two rows of one configuration differ.

    Examples
    --------
    >>> from systolic import ArrayConfig, Gemm, sweep
    >>> from systolic.sweeps import Grid
    >>> found = sweep({"fc": Gemm(100, 512, 512)}, Grid(ArrayConfig(), side=[64, 128, 256, 512]))
    >>> found
    <Sweep of 4 rows: 1 model, 4 machines>
    >>> [(row.machine.array.rows, row.stats.cycles) for row in found.pareto("pes", "cycles")]
    [(64, 6590), (128, 2402), (256, 1634)]
    """

    def __init__(self, rows: Iterable[SweepRow]) -> None:
        found: dict[str, SweepRow] = {}
        for row in rows:
            if not isinstance(row, SweepRow):
                raise TypeError(f"a Sweep holds SweepRows, not {_check.kind(row)}")
            if found.setdefault(row.id, row) != row:
                raise ValueError(
                    f"two rows of one configuration differ: {found[row.id]!r} and {row!r}; one of them was "
                    "changed"
                )
        self.rows = tuple(found.values())

    @classmethod
    def _of(cls, rows: Iterable[SweepRow]) -> Sweep:
        """Return a sweep of rows that are known to differ, without their identifiers."""
        made = cls(())
        made.rows = tuple(rows)
        return made

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Sweep:
        """Read the rows of a file that ``sweep(out=...)`` or :meth:`save` wrote."""
        return cls(read_rows(path))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the rows to a .csv or .parquet file, completely or not at all."""
        write_rows(path, self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[SweepRow]:
        return iter(self.rows)

    @overload
    def __getitem__(self, index: int) -> SweepRow: ...
    @overload
    def __getitem__(self, index: slice) -> Sweep: ...
    def __getitem__(self, index: int | slice) -> SweepRow | Sweep:
        """Return a row by its number, or a Sweep by a slice."""
        return Sweep._of(self.rows[index]) if isinstance(index, slice) else self.rows[index]

    def __add__(self, other: Sweep) -> Sweep:
        return Sweep((*self.rows, *other.rows)) if isinstance(other, Sweep) else NotImplemented

    def __eq__(self, other: object) -> bool:
        return self.rows == other.rows if isinstance(other, Sweep) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.rows)

    @property
    def errors(self) -> Sweep:
        """The rows of configurations that cannot run their model."""
        return Sweep._of(row for row in self.rows if row.error is not None)

    def using(self, energy: EnergyTable | str | None) -> Sweep:
        """Return the rows with the energy of another table, its name or file; None leaves energy out."""
        table = as_table(energy)
        return Sweep._of(replace(row, energies=table) for row in self.rows)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the rows as flat dicts that JSON can hold."""
        return [row.to_dict() for row in self.rows]

    def to_frame(self) -> Any:
        """Return the rows as a pandas frame; needs ``pip install "systolic[pandas]"``."""
        dicts = self.to_dicts()
        names = list(dict.fromkeys(name for each in dicts for name in each))
        return Table(columns(*names), [[each.get(name) for name in names] for each in dicts]).to_frame()

    def table(self, top: int | None = None) -> Table:
        """Return a row per configuration: the fields that differ, cycles, time and utilization.

        Parameters
        ----------
        top : int, optional
            Only so many rows, the fastest first.
        """
        rows: Sequence[SweepRow] = self.rows
        if top is not None:
            least = _check.integer(top, "top", minimum=1)
            rows = sorted(rows, key=lambda row: (row.seconds is None, row.seconds))[:least]
        dicts = [row.to_dict() for row in rows]
        shown = ("model", *(name for name in _VARIED if len({_key(each.get(name)) for each in dicts}) > 1))
        names = [*shown, "cycles", "seconds", "utilization"]
        if any(row.error is not None for row in rows):
            names.append("error")
        left = len(self) - len(rows)
        below = [f"{left:,} slower rows are left out"] if left else []
        noted: dict[str, dict[str, None]] = {}
        for row in rows:
            if row.note is not None:
                noted.setdefault(row.note, {})[row.model] = None
        for note, models in noted.items():
            more = f" and {len(models) - 3:,} more" if len(models) > 3 else ""
            below.append(f"{note} ({', '.join([*models][:3])}{more})")
        return Table(
            columns(*names),
            [[each.get(name) for name in names] for each in dicts],
            title=repr(self)[1:-1],
            footer="\n".join(below) or None,
        )

    def pareto(self, *costs: str) -> Sweep:
        """Return the rows that no other row of the same model and batch beats, ordered by the first cost.

        Parameters
        ----------
        *costs : str
            Numbers of :meth:`SweepRow.to_dict` to keep low, such as ``"seconds"`` and ``"pes"``; with a minus
            before the name, ``"-utilization"``, to keep high. Rows without stats are left out.

        Returns
        -------
        Sweep
            A row is left out if another one is as low in every cost and lower in one.

        Raises
        ------
        ValueError
            If there is no such number, with the nearest name.
        """
        if not costs:
            raise ValueError('pareto needs the names of costs, such as pareto("seconds", "pes")')
        kept: list[SweepRow] = []
        groups: dict[Any, list[SweepRow]] = {}
        for row in self.rows:
            if row.stats is not None:
                groups.setdefault((row.model, row.model_id, row.batch), []).append(row)
        for rows in groups.values():
            points = list(zip(*(_values(rows, cost) for cost in costs), strict=True))
            kept += [rows[number] for number in _front(points)]
        return Sweep._of(kept)

    def plot(self, x: str = "pes", y: str = "seconds") -> Any:
        """Draw one number of the rows over another, the Pareto front of each model and batch marked.

        Parameters
        ----------
        x, y : str
            As for :meth:`pareto`; a minus says that more is better, and is no part of what is drawn.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        from systolic._show.fronts import plot_fronts

        front = self.pareto(x, y)
        names = [name.removeprefix("-") for name in (x, y)]
        several = len({row.batch for row in self.rows}) > 1
        groups: dict[str, list[list[tuple[float, float]]]] = {}
        for number, rows in enumerate((self.rows, front.rows)):
            there = [row for row in rows if row.stats is not None]
            points = zip(*(_values(there, name) for name in names), strict=True)
            for row, point in zip(there, points, strict=True):
                name = f"{row.model}, batch {row.batch}" if several else row.model
                groups.setdefault(name, [[], []])[number].append(point)
        drawn = [(name, points, marked) for name, (points, marked) in groups.items()]
        axes = [_axis(name) for name in names]
        return plot_fronts(drawn, x=axes[0], y=axes[1], title=repr(self)[1:-1])

    def where(self, **fields: Any) -> Sweep:
        """Return the rows in which fields of :meth:`SweepRow.to_dict` have these values.

        Raises
        ------
        ValueError
            If rows have no such field, with the nearest name.

        Examples
        --------
        >>> from systolic import ArrayConfig, Gemm, sweep
        >>> from systolic.sweeps import Grid
        >>> found = sweep([Gemm(1, 64, 64), Gemm(9, 64, 64)], Grid(ArrayConfig(), side=[8, 16]))
        >>> found.where(model="9 x 64 x 64", rows=16)
        <Sweep of 1 row: 1 model, 1 machine>
        """
        kept = []
        for row in self.rows:
            values = row.to_dict()
            for name in fields:
                if name not in values:
                    raise ValueError(f"rows have no field {printable(name)!r}; {nearest(name, [*values])}")
            if all(_key(values[name]) == _key(value) for name, value in fields.items()):
                kept.append(row)
        return Sweep._of(kept)

    def heatmap(self, value: str = "utilization", *, x: str = "cols", y: str = "rows") -> Any:
        """Draw a number of the rows as the color of cells over two fields.

        Parameters
        ----------
        value : str
            A number of :meth:`SweepRow.to_dict`.
        x, y : str
            Fields whose values are columns and rows of cells, in ascending order.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ValueError
            If there is no such field, or several rows are one cell: the message names what they differ in.
        ImportError
            If matplotlib is not installed.
        """
        from systolic._show.heatmaps import plot_heatmap

        there = [row for row in self.rows if row.stats is not None]
        if not there:
            raise ValueError("there are no rows with costs to draw")
        across, up, numbers = (_values(there, name) for name in (x, y, value))
        cells: dict[tuple[float, float], tuple[SweepRow, float]] = {}
        for row, *place, number in zip(there, across, up, numbers, strict=True):
            other = cells.setdefault((place[0], place[1]), (row, number))[0]
            if other is not row:
                mine, theirs = row.to_dict(), other.to_dict()
                names = [n for n in ("model", *_VARIED) if _key(mine.get(n)) != _key(theirs.get(n))]
                names = names or ["model_id"]
                raise ValueError(
                    f"two rows are the cell of {x}={place[0]:,} and {y}={place[1]:,}: they differ in "
                    f"{', '.join(names)}; choose some with where({names[0]}=...)"
                )
        columns, lines = sorted(set(across)), sorted(set(up))
        grid = [[cells[c, r][1] if (c, r) in cells else None for c in columns] for r in lines]
        names = list(dict.fromkeys(row.model for row in there))
        (x_label, x_text), (y_label, y_text), shown = _axis(x), _axis(y), _axis(value)
        return plot_heatmap(
            grid, x=(x_label, list(map(x_text, columns))), y=(y_label, list(map(y_text, lines))), value=shown,
            title=f"{shown[0]} of {', '.join(names)}",
        )  # fmt: skip

    def __repr__(self) -> str:
        models, machines = len({row.model for row in self.rows}), len({row.machine for row in self.rows})
        failed = sum(row.error is not None for row in self.rows)

        def counted(count: int, what: str) -> str:
            return f"{count:,} {what}{'' if count == 1 else 's'}"

        errors = f", {counted(failed, 'error')}" if failed else ""
        return (
            f"<Sweep of {counted(len(self), 'row')}: {counted(models, 'model')}, "
            f"{counted(machines, 'machine')}{errors}>"
        )

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table().html()


_VARIED = ("batch", "mapping", *ARRAY_FIELDS, "clock_mhz", *(f"memory_{name}" for name in MEMORY_FIELDS))


def _key(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


_SHORT = {"time": "seconds", "energy": "energy_pj"}
"""Names of numbers without their unit."""


def _values(rows: Sequence[SweepRow], cost: str) -> list[float]:
    """Return a number of each row, negated if its name has a minus."""
    if not isinstance(cost, str):
        raise TypeError(f"a cost must be the name of a number, such as 'seconds', not {_check.kind(cost)}")
    name, found = cost.removeprefix("-"), []
    name = _SHORT.get(name, name)
    for row in rows:
        values = row.to_dict()
        value: Any = values.get(name)
        if not _check.is_real(value):
            known = [key for key, each in values.items() if _check.is_real(each)]
            raise ValueError(f"rows have no number {printable(name)!r}; {nearest(name, known)}")
        found.append(-value if cost.startswith("-") else value)
    return found


def _front(points: Sequence[tuple[float, ...]]) -> list[int]:
    """Return the numbers of the points that none dominates, in order; of equal points all.

    Examples
    --------
    >>> _front([(1, 5), (2, 2), (3, 3), (2, 2), (4, 1)])
    [0, 1, 3, 4]
    """
    order = sorted(range(len(points)), key=points.__getitem__)
    front: list[int] = []
    if len(points) and len(points[0]) == 2:
        lowest: tuple[float, ...] | None = None
        for number in order:
            point = points[number]
            # In this order no later point is lower in the first cost.
            if lowest is None or point[1] < lowest[1] or point == lowest:
                front.append(number)
                lowest = point
        return front
    for number in order:
        point = points[number]
        # In this order only earlier points can dominate, and of these one on the front does.
        if not any(
            points[other] != point and all(a <= b for a, b in zip(points[other], point, strict=True))
            for other in front
        ):
            front.append(number)
    return front


def _axis(name: str) -> tuple[str, Callable[[float], str]]:
    """Return the label of an axis, and how its numbers are written."""
    if name in ("seconds", "time"):
        return "time", seconds
    if name in ("energy", "energy_pj"):
        return "energy", joules
    label = "PEs" if name == "pes" else name.replace("_", " ")
    return label, percent if name == "utilization" else "{:,.10g}".format
