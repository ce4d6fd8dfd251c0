"""Registers as a grid of PEs: a block of lines for each row of PEs, a column for each PE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from systolic._show.table import _CELL_STYLE, _LINE, _NOTE_STYLE, _TABLE_STYLE, _TITLE_STYLE

_WHOLE = 16  # rows or columns up to which all are shown
_ENDS = 4  # of more, so many at each end
_SKIPPED = "…"


def grid_text(registers: Mapping[str, np.ndarray]) -> str:
    """Return registers, (rows, cols) each, as aligned text.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic._show.grids import grid_text
    >>> print(grid_text({"weight": np.int8([[7, -8]]), "swap": np.bool_([[1, 0]])}))
                  col 0  col 1
    row 0 weight      7     -8
          swap        1      0
    """
    heads, blocks = _grid(registers)
    lines = [["", "", *heads]]
    for label, block in blocks:
        for number, (name, cells) in enumerate(block):
            lines.append([label if number == 0 else "", name, *cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        " ".join(
            [first.ljust(widths[0]), second.ljust(widths[1])]
            + [f" {cell.rjust(width)}" for cell, width in zip(cells, widths[2:], strict=True)]
        ).rstrip()
        for first, second, *cells in lines
    )


def grid_html(title: str, registers: Mapping[str, np.ndarray]) -> str:
    """Return registers, (rows, cols) each, as one ``<table>``, framed by rows and columns of PEs."""
    from html import escape

    def cell(text: str, tag: str, side: str, extra: str = "", more: str = "") -> str:
        return f'<{tag}{more} style="{_CELL_STYLE.format(side)}{extra}">{escape(text)}</{tag}>'

    heads, blocks = _grid(registers)
    frame = f";border-left:{_LINE}"
    top = "".join(cell(head, "th", "right", frame, ' scope="col"') for head in heads)
    body = []
    for label, block in blocks:
        for number, (name, cells) in enumerate(block):
            above = f";border-top:{_LINE}" if number == 0 else ""
            rows = f' scope="rowgroup" rowspan="{len(block)}"'
            first = cell(label, "th", "left", f"{above};vertical-align:top", rows) if number == 0 else ""
            values = "".join(cell(text, "td", "right", above + frame) for text in cells)
            body.append(f"<tr>{first}{cell(name, 'td', 'left', f'{above};opacity:.75')}{values}</tr>")
    rows, cols = next(iter(registers.values())).shape
    note = ""
    if max(rows, cols) > _WHOLE:
        words = f"{rows} x {cols} PEs; the middle is left out"
        note = f'<tfoot><tr><td colspan="{len(heads) + 2}" style="{_NOTE_STYLE}">{words}</td></tr></tfoot>'
    return (
        f'<table style="{_TABLE_STYLE}"><caption style="{_TITLE_STYLE}">{escape(title)}</caption>'
        f"<thead><tr><td></td><td></td>{top}</tr></thead><tbody>{''.join(body)}</tbody>{note}</table>"
    )


def _grid(
    registers: Mapping[str, np.ndarray],
) -> tuple[list[str], list[tuple[str, list[tuple[str, list[str]]]]]]:
    """Return the columns' heads; and of each row its label and, for each register, its name and values."""
    rows, cols = next(iter(registers.values())).shape
    across = _shown(cols)
    heads = [_SKIPPED if c is None else f"col {c}" for c in across]
    blocks = []
    for r in _shown(rows):
        if r is None:
            blocks.append((_SKIPPED, [("", [""] * len(across))]))
            continue
        block = [
            (name, [_SKIPPED if c is None else _text(values[r, c]) for c in across])
            for name, values in registers.items()
        ]
        blocks.append((f"row {r}", block))
    return heads, blocks


def _shown(count: int) -> list[int | None]:
    """Return the numbers to show; None stands for those that are left out."""
    if count <= _WHOLE:
        return list(range(count))
    return [*range(_ENDS), None, *range(count - _ENDS, count)]


def _text(value: Any) -> str:
    return str(int(value)) if value.dtype.kind in "iub" else str(value)
