"""``Report``: rows as a table, JSON, CSV, a pandas frame or an HTML page."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from systolic._files import check_target, path_text, write_file
from systolic._show.columns import bytes_text as bytes_text
from systolic._show.columns import columns
from systolic._show.columns import sizes_text as sizes_text
from systolic._show.page import Page
from systolic._show.table import Table
from systolic._text import printable
from systolic._version import __version__

SUFFIXES = (".html", ".csv", ".json")
"""What :meth:`Report.save` writes."""


class Report(ABC):
    """Rows, one per node, with totals; subclasses define them and the page.

    Attributes
    ----------
    rows : list of dict
        A dict per node with the same keys in each; numbers in the unit their key names, None where
        there is none, such as the cycles of a host layer or the bytes of an unknown shape.
    totals : dict
    """

    @property
    @abstractmethod
    def rows(self) -> list[dict[str, Any]]:
        """A dict per node, with the same keys in each."""

    @property
    @abstractmethod
    def totals(self) -> dict[str, Any]:
        """Sums over all nodes."""

    @abstractmethod
    def table(self) -> Table:
        """Return the most important columns, for reading."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return machine, totals and rows as JSON can hold them."""

    @abstractmethod
    def _page(self) -> Page:
        """Return the parts of the HTML page."""

    def _chart(
        self, title: str, series: dict[str, str], show: Callable[[float], str], top: float | None = None
    ) -> str:
        """Return a column chart of the rows; `series` maps names to keys of the rows."""
        from systolic._show.charts import Series, columns_chart

        rows = self.rows
        stacked = [Series(name, [row[key] or 0 for row in rows]) for name, key in series.items()]
        return columns_chart(title, [row["node"] for row in rows], stacked, show, top)

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return :meth:`to_dict` as JSON text; write it to a file if a path is given."""
        import json

        return _written(path, json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n")

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return the rows as CSV with a header; write it to a file if a path is given.

        A cell is empty where there is no value; lines end in a single line feed. Text that a spreadsheet
        would run as a formula (it begins with ``=``, ``+``, ``-`` or ``@``) gets a ``'`` in front, and
        control characters are written as escapes.
        """
        import csv
        import io

        rows = self.rows
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
        return _written(path, text.getvalue())

    def to_frame(self) -> Any:
        """Return the rows as a pandas DataFrame; ImportError if pandas is not installed."""
        rows = self.rows
        return Table(list(rows[0]) if rows else [], [tuple(row.values()) for row in rows]).to_frame()

    def html(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return one self-contained HTML page with plots; write it to a file if a path is given.

        Its head says where the numbers come from; its tables sort by a click on a heading. The page loads
        nothing, from the network or elsewhere.
        """
        return _written(path, self._page().html())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file of the format named by its suffix: ``.html``, ``.csv`` or ``.json``.

        Raises
        ------
        ValueError
            If the suffix is none of these.
        FileNotFoundError
            If the folder is missing.
        """
        suffix = check_path(path)
        {".html": self.html, ".csv": self.to_csv, ".json": self.to_json}[suffix](path)

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table().html()


def check_path(path: str | os.PathLike[str]) -> str:
    """Return the suffix of a file that :meth:`Report.save` can write; raise if it cannot."""
    suffix = Path(path_text(path)).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"a report's file must end in {', '.join(SUFFIXES)}, not {os.fspath(path)!r}")
    check_target(path)
    return suffix


def keyed_table(
    names: Sequence[str], rows: Sequence[Mapping[str, Any]], totals: Mapping[str, Any], title: str
) -> Table:
    """Return a table of rows that are dicts, and of their totals, with the columns of these names."""
    body = [[row.get(name) for name in names] for row in rows]
    return Table(columns(*names), body, title=title, footer=[totals.get(name) for name in names])


def values_of(source: Any, *names: str) -> dict[str, Any]:
    """Return attributes by name; None for each if `source` is None."""
    return {name: None if source is None else getattr(source, name) for name in names}


def origin(
    *, model: str, input: str, machine: str, time: datetime | None, verdict: Sequence[str], mode: str = ""
) -> list[tuple[str, str]]:
    """Return names and texts of the head of a page: where its numbers come from."""
    return [
        ("model", model),
        ("input", input),
        ("machine", machine),
        *([("mode", mode)] if mode else []),
        ("time", "-" if time is None else f"{time:%Y-%m-%d %H:%M:%S %Z}".strip()),
        ("version", f"systolic {__version__}"),
        *(("" if number else "verdict", line) for number, line in enumerate(verdict)),
    ]


# First characters of a formula, full-width forms included.
_FORMULA = tuple("=+-@＝＋－＠")


def _cell(value: Any) -> Any:
    """Return a value for a CSV file; escape text that a spreadsheet would run as a formula."""
    if not isinstance(value, str):
        return value
    text = printable(value)  # csv does not quote a lone carriage return, which ends the row for a reader
    return f"'{text}" if text.startswith(_FORMULA) else text


def _written(path: str | os.PathLike[str] | None, text: str) -> str:
    if path is not None:
        write_file(path, lambda file: file.write(text), "w", encoding="utf-8", newline="")
    return text
