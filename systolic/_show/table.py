"""``Table`` and ``card``: plain data as text, HTML or a pandas frame."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from systolic._text import printable

_GAP = "  "
_RULE = "─"
_NARROWEST = 8  # a clipped text column keeps at least this many characters

_MOST_DISPLAYED = 400  # rows in a notebook

# Translucent gray and inherited colors are legible on light and dark notebook themes.
_LINE = "1px solid rgba(128,128,128,.45)"
_TABLE_STYLE = "border-collapse:collapse;font-variant-numeric:tabular-nums;color:inherit;margin:.3em 0"
_CELL_STYLE = "padding:.2em .8em;text-align:{};color:inherit;white-space:nowrap"
_TITLE_STYLE = "caption-side:top;text-align:left;font-weight:600;color:inherit;padding:.2em .8em"
_NOTE_STYLE = "padding:.3em .8em;text-align:left;color:inherit;opacity:.75"


@dataclass(frozen=True)
class Column:
    """One column of a :class:`Table`.

    Parameters
    ----------
    name : str
        Heading.
    align : {"<", ">"}, optional
        Left or right; None aligns columns of numbers to the right, others to the left.
    format : str or callable, optional
        A format specification such as ``".1%"``, or a function from a value to text. It is
        not applied to None, shown as ``-``, nor to text, shown as it is.
    key : str
        Name in :meth:`Table.to_dicts` and frames; default the heading.
    """

    name: str
    align: str | None = None
    format: str | Callable[[Any], str] | None = None
    key: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"a column's name must be text, not {self.name!r}")
        if self.align not in (None, "<", ">"):
            raise ValueError(f"align must be '<', '>' or None, not {self.align!r}")
        if not (self.format is None or isinstance(self.format, str) or callable(self.format)):
            raise TypeError(f"format must be a format specification, a function or None, not {self.format!r}")
        object.__setattr__(self, "key", self.key or self.name)

    def show(self, value: Any) -> str:
        """Return one value of this column as text on one line."""
        if value is None or isinstance(value, str) or self.format is None:
            return _show(value)
        shown = format(value, self.format) if isinstance(self.format, str) else self.format(value)
        return _one_line(str(shown))


@dataclass(frozen=True)
class Table:
    """Plain rows under named columns, displayed in a terminal and in a notebook.

    Parameters
    ----------
    columns : sequence of str or Column
        Names must differ.
    rows : iterable of sequences
        One value per column; None where there is none.
    title : str, optional
        A line above.
    footer : str or sequence, optional
        Text for a note below; or a last row, such as totals, with one value per column. It is
        not part of :meth:`to_dicts` and :meth:`to_frame`.

    Raises
    ------
    ValueError
        If two columns share a name, or a row has another number of values than columns.

    Examples
    --------
    >>> from systolic._show import Column, Table
    >>> columns = ["layer", "cycles", Column("used", format=".1%")]
    >>> print(Table(columns, [("conv1", 12345, 0.5), ("fc", 678, None)]))
    layer  cycles   used
    ────────────────────
    conv1  12,345  50.0%
    fc        678      -
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[Any, ...], ...]
    title: str | None = None
    footer: str | tuple[Any, ...] | None = None

    def __init__(
        self,
        columns: Sequence[str | Column],
        rows: Iterable[Sequence[Any]],
        title: str | None = None,
        footer: str | Sequence[Any] | None = None,
    ) -> None:
        heads = tuple(c if isinstance(c, Column) else Column(c) for c in columns)
        for names in ([c.name for c in heads], [c.key for c in heads]):
            if len(set(names)) < len(names):
                twice = sorted({name for name in names if names.count(name) > 1})
                raise ValueError(
                    f"columns must have different names; repeated: {', '.join(map(repr, twice))}"
                )
        body = tuple(tuple(row) for row in rows)
        last = footer if footer is None or isinstance(footer, str) else tuple(footer)
        for where, row in [(f"row {i}", row) for i, row in enumerate(body)] + [("the footer", last)]:
            if isinstance(row, tuple) and len(row) != len(heads):
                raise ValueError(f"{where} must have {len(heads)} values, one per column, not {len(row)}")
        for name, value in (("columns", heads), ("rows", body), ("title", title), ("footer", last)):
            object.__setattr__(self, name, value)

    def _aligns(self) -> list[str]:
        """Return each column's "<" or ">"."""
        result = []
        for i, column in enumerate(self.columns):
            values = [row[i] for row in self.rows if row[i] is not None]
            numbers = bool(values) and all(_is_number(v) for v in values)
            result.append(column.align or (">" if numbers else "<"))
        return result

    def _cells(self, row: Sequence[Any]) -> list[str]:
        return [column.show(value) for column, value in zip(self.columns, row, strict=True)]

    def _last(self) -> list[str] | None:
        """Return the cells of a footer that is a row; None is an empty cell."""
        if not isinstance(self.footer, tuple):
            return None
        return ["" if v is None else c.show(v) for c, v in zip(self.columns, self.footer, strict=True)]

    def text(self, width: int | None = None) -> str:
        """Return the table as monospaced text.

        Parameters
        ----------
        width : int, optional
            Characters per line to aim at: text columns are clipped in the middle (names
            often differ at their ends), the widest first; numbers never are. So is the title.
        """
        head = [_one_line(c.name) for c in self.columns]
        body = [self._cells(row) for row in self.rows]
        last = self._last()
        aligns = self._aligns()
        grid = [head, *body] + ([last] if last else [])
        widths = [max(_width(row[i]) for row in grid) for i in range(len(head))]
        if width is not None:
            _narrow(widths, [align == "<" for align in aligns], width - len(_GAP) * (len(head) - 1))

        def line(cells: list[str]) -> str:
            padded = []
            for cell, room, align in zip(cells, widths, aligns, strict=True):
                cell = _clip(cell, room)
                blank = " " * (room - _width(cell))
                padded.append(blank + cell if align == ">" else cell + blank)
            return _GAP.join(padded).rstrip()

        rule = _RULE * (sum(widths) + len(_GAP) * (len(head) - 1))
        title = _one_line(self.title or "")
        lines = [title if width is None else _clip(title, width)] if title else []
        lines += [line(head), rule, *map(line, body)]
        if last:
            lines += [rule, line(last)]
        elif isinstance(self.footer, str):
            lines += [rule, *map(printable, self.footer.split("\n"))]
        return "\n".join(lines)

    def without(self, name: str) -> Table:
        """Return the table without the column of a key or heading."""
        kept = [i for i, column in enumerate(self.columns) if name not in (column.key, column.name)]
        footer = self.footer
        if isinstance(footer, tuple):
            footer = tuple(footer[i] for i in kept)
        rows = [[row[i] for i in kept] for row in self.rows]
        return Table([self.columns[i] for i in kept], rows, title=self.title, footer=footer)

    def html(self) -> str:
        """Return the table as one self-contained, escaped ``<table>``."""
        from html import escape

        sides = ["right" if align == ">" else "left" for align in self._aligns()]

        def line(cells: list[str], tag: str = "td", extra: str = "") -> str:
            made = (
                f'<{tag} style="{_CELL_STYLE.format(side)}{extra}">{escape(cell)}</{tag}>'
                for cell, side in zip(cells, sides, strict=True)
            )
            return f"<tr>{''.join(made)}</tr>"

        parts = [f'<table style="{_TABLE_STYLE}">']
        if self.title:
            parts.append(f'<caption style="{_TITLE_STYLE}">{escape(_one_line(self.title))}</caption>')
        names = [_one_line(c.name) for c in self.columns]
        heads = line(names, "th", f";font-weight:600;border-bottom:{_LINE}")
        parts.append(f"<thead>{heads}</thead>")
        parts.append(f"<tbody>{''.join(line(self._cells(row)) for row in self.rows)}</tbody>")
        last = self._last()
        if last:
            parts.append(f"<tfoot>{line(last, extra=f';font-weight:600;border-top:{_LINE}')}</tfoot>")
        elif isinstance(self.footer, str):
            note = "<br>".join(escape(printable(words)) for words in self.footer.split("\n"))
            cell = f'<td colspan="{len(self.columns)}" style="{_NOTE_STYLE};border-top:{_LINE}">{note}</td>'
            parts.append(f"<tfoot><tr>{cell}</tr></tfoot>")
        parts.append("</table>")
        return "".join(parts)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one dict per row, from a column's key to the value as given."""
        names = [c.key for c in self.columns]
        return [dict(zip(names, row, strict=True)) for row in self.rows]

    def to_frame(self) -> Any:
        """Return the rows as a pandas DataFrame, by the columns' keys; integers with gaps stay Int64.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError('to_frame needs pandas: pip install "systolic[pandas]"') from error
        columns = {}
        for i, column in enumerate(self.columns):
            values = [row[i] for row in self.rows]
            present = [v for v in values if v is not None]
            # pandas would turn integers beside None into floats, and lose digits beyond 2^53.
            fits = all(_is_integer(v) and -(2**63) <= v < 2**63 for v in present)
            gaps = fits and 0 < len(present) < len(values)
            columns[column.key] = pandas.Series(
                values, dtype="Int64" if gaps else None if values else object
            )
        return pandas.DataFrame(columns)

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        """Return :meth:`html`, of a long table its first and last rows: a page of all stops a browser."""
        left_out = len(self.rows) - _MOST_DISPLAYED
        if left_out <= 0:
            return self.html()
        first, last = self.rows[: _MOST_DISPLAYED // 2], self.rows[-(_MOST_DISPLAYED // 2) :]
        columns = [replace(c, align=align) for c, align in zip(self.columns, self._aligns(), strict=True)]
        title = f"{self.title or 'Table'}; {left_out:,} of {len(self.rows):,} rows are not displayed"
        return Table(columns, [*first, ["…"] * len(columns), *last], title=title, footer=self.footer).html()


def card(title: str, pairs: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> str:
    """Return a small HTML summary: a title above keys and values, for ``_repr_html_``."""
    from html import escape

    rows = "".join(
        f'<tr><td style="{_CELL_STYLE.format("left")};opacity:.75">{escape(_one_line(str(key)))}</td>'
        f'<td style="{_CELL_STYLE.format("left")};white-space:pre-line">{escape(_show(value))}</td></tr>'
        for key, value in _pairs(pairs)
    )
    head = escape(_one_line(title))
    caption = f'<caption style="{_TITLE_STYLE};border-bottom:{_LINE}">{head}</caption>'
    return f'<table style="{_TABLE_STYLE}">{caption}<tbody>{rows}</tbody></table>'


def card_text(title: str, pairs: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> str:
    """Return the summary of :func:`card` as text.

    Examples
    --------
    >>> from systolic._show import card_text
    >>> print(card_text("Stats", {"cycles": 1234, "utilization": "31.2%"}))
    Stats
      cycles       1,234
      utilization  31.2%
    """
    shown = [(_one_line(str(key)), _show(value)) for key, value in _pairs(pairs)]
    room = max((_width(key) for key, _ in shown), default=0)
    lines = [f"  {key}{' ' * (room - _width(key))}{_GAP}{value}" for key, value in shown]
    return "\n".join([_one_line(title), *lines])


def percent(x: float | None) -> str:
    """Return a ratio as per cent, ``0.312`` as ``31.2%`` and ``0.00034`` as ``0.034%``; None as ``-``."""
    if x is None:
        return "-"
    return f"{100 * x:.2g}%" if 0 < abs(x) < 0.00995 else f"{x:.1%}"


def si(value: float | None, unit: str) -> str:
    """Return a quantity with three digits and an SI prefix (powers of 1000); None as ``-``.

    The prefix joins a unit symbol of up to three letters (``GB``, ``GMAC/s``) and is separated
    from a word by a space. Integers below 1000 are shown whole.

    Examples
    --------
    >>> from systolic._show import si
    >>> si(12.34e9, "PE-cycles/s"), si(215e9, "MAC/s"), si(640, "B")
    ('12.3 G PE-cycles/s', '215 GMAC/s', '640 B')
    """
    if value is None:
        return "-"
    if not math.isfinite(value):
        return f"{value} {unit}"
    if value == 0 or (_is_integer(value) and abs(value) < 1000):
        return f"{value:.0f} {unit}"
    # Round to three digits before choosing the prefix: 999,999 is 1.00 M, not 1000 k.
    digits, exponent = f"{abs(value):.2e}".split("e")
    step = min(max(int(exponent) // 3, -5), 6)
    number = float(digits) * 10.0 ** (int(exponent) - 3 * step)
    decimals = max(0, 2 - (int(exponent) - 3 * step))
    prefix = "fpnµm kMGTPE"[step + 5].strip()
    word = sum(c.isalpha() for c in unit.split("/")[0]) > 3
    return f"{'-' * (value < 0)}{number:.{decimals}f} {prefix}{' ' if prefix and word else ''}{unit}"


def seconds(s: float | None) -> str:
    """Return a duration with a fitting unit; None as ``-``.

    Examples
    --------
    >>> from systolic._show import seconds
    >>> seconds(0.00125), seconds(59.2), seconds(125), seconds(7260)
    ('1.25 ms', '59.2 s', '2 min 05 s', '2 h 01 min')
    """
    if s is None or not math.isfinite(s) or abs(s) < 59.95:
        return si(s, "s")
    sign, whole = "-" * (s < 0), round(abs(s))
    if whole < 3600:
        return f"{sign}{whole // 60} min {whole % 60:02} s"
    minutes = round(abs(s) / 60)
    return f"{sign}{minutes // 60} h {minutes % 60:02} min"


def _pairs(pairs: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Iterable[tuple[str, Any]]:
    return pairs.items() if isinstance(pairs, Mapping) else pairs


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_integer(value) or isinstance(value, float | np.floating)


def _show(value: Any) -> str:
    """Return a value as text on one line: integers with thousands separators, floats with four digits."""
    if value is None:
        return "-"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if _is_integer(value):
        return f"{value:,}"
    if not _is_number(value):
        return _one_line(str(value))
    rounded = float(f"{value:.4g}")
    if not math.isfinite(rounded) or rounded == 0 or not 1e-4 <= abs(rounded) < 1e15:
        return f"{rounded:.4g}"
    return f"{rounded:,.0f}" if abs(rounded) >= 1000 else f"{rounded:.4g}"


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def _width(text: str) -> int:
    """Return the width of a text in terminal cells."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def _clip(text: str, room: int) -> str:
    """Return a text with its middle cut so that it takes at most `room` cells."""
    if _width(text) <= room:
        return text
    keep = room - 1
    while _width(short := text[: (keep + 1) // 2] + text[len(text) - keep // 2 :]) >= room:
        keep -= 1
    return short[: (keep + 1) // 2] + "…" + short[(keep + 1) // 2 :]


def _narrow(widths: list[int], may: list[bool], room: int) -> None:
    """Shrink, in place, the widest columns that may be clipped until all fit in `room`."""
    while sum(widths) > room:
        widest = max((w for w, ok in zip(widths, may, strict=True) if ok), default=0)
        if widest <= _NARROWEST:
            return
        index = next(i for i, w in enumerate(widths) if may[i] and w == widest)
        widths[index] -= 1
