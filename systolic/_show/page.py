"""A self-contained HTML page of totals, charts and tables, without external resources."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from systolic._show.table import Column, Table, _is_number
from systolic._version import __version__

# Colors that differ in lightness too, on white and on black.
_STYLE = """
:root { color-scheme: light dark; --s0: #2f6db3; --s1: #e08a2c; --s2: #5aa469; --s3: #9a9fa8;
  --line: rgba(128,128,128,.45); --shade: rgba(128,128,128,.12); }
@media (prefers-color-scheme: dark) { :root { --s0: #6ea8e6; --s1: #f0a95a; --s2: #7cc38c; --s3: #7d838d; } }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1800px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; margin: 0 0 .6em; }
dl { display: grid; grid-template-columns: minmax(min-content, max-content) 1fr; gap: .15em 1.2em;
  margin: 0 0 1.2em; }
dl.head { padding: .7em .9em; background: var(--shade); border-radius: 6px; }
dt { opacity: .75; } dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
figure { margin: 0 0 1.4em; overflow-x: auto; }
svg { width: 100%; min-width: 720px; max-width: 1200px; height: auto; display: block; font-size: 12px; }
svg text { fill: currentColor; } svg .head { font-size: 15px; font-weight: 600; }
svg .end { text-anchor: end; } svg .mid { text-anchor: middle; }
svg .grid { stroke: currentColor; stroke-opacity: .18; } svg .hit { fill: transparent; }
svg g:hover .hit { fill: currentColor; fill-opacity: .08; }
svg .s0 { fill: var(--s0); } svg .s1 { fill: var(--s1); } svg .s2 { fill: var(--s2); }
svg .s3 { fill: var(--s3); }
.wide { overflow-x: auto; font-size: 13px; margin: 0 0 1.6em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .2em .6em; }
th, td { padding: .2em .6em; text-align: left; vertical-align: top; overflow-wrap: anywhere; }
th { font-weight: 600; vertical-align: bottom; border-bottom: 1px solid var(--line); }
th.n, td.n { text-align: right; white-space: nowrap; }
tbody tr:hover { background: var(--shade); }
tfoot td { font-weight: 600; border-top: 1px solid var(--line); } tfoot td.note { font-weight: 400; }
th button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer;
  text-align: inherit; white-space: nowrap; }
th button:hover, th button:focus-visible { text-decoration: underline; }
th button::after { content: "\\2195"; opacity: .35; padding-left: .25em; }
th[aria-sort=ascending] button::after { content: "\\2191"; opacity: 1; }
th[aria-sort=descending] button::after { content: "\\2193"; opacity: 1; }
footer { opacity: .7; font-size: 13px; }
@page { size: A4 landscape; margin: 10mm; }
@media print {
  :root { color-scheme: light; }
  body { font-size: 10px; margin: 0; padding: 0; max-width: none; }
  figure, .wide { overflow: visible; } svg { min-width: 0; font-size: 12px; }
  .wide { font-size: 7px; } th, td { padding: .15em .35em; min-width: 0 !important; }
  th button { white-space: normal; } th button::after { content: none; }
  figure, tr { break-inside: avoid; } thead { display: table-header-group; }
  tfoot { display: table-row-group; }
}
""".strip()

# A click sorts by that column: numbers from the largest, text from A; a second click turns it around, a third
# restores the order of the page. Cells without a value stay last.
_SCRIPT = """
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const number = head.classList.contains("n");
    const orders = number ? ["descending", "ascending", "none"] : ["ascending", "descending", "none"];
    const order = orders[(orders.indexOf(head.ariaSort) + 1) % 3];
    for (const other of heads) other.ariaSort = "none";
    head.ariaSort = order;
    const sign = order === "ascending" ? 1 : -1;
    const values = new Map(rows.map((row) => {
      const cell = row.cells[column], given = cell.dataset.value;
      return [row, given === "" ? null : given === undefined ? cell.textContent : Number(given)];
    }));
    const compare = (a, b) => typeof a === "string" || typeof b === "string"
      ? String(a).localeCompare(String(b), "en", { numeric: true }) : a - b;
    const sorted = order === "none" ? rows : [...rows].sort((p, q) => {
      const a = values.get(p), b = values.get(q);
      return a === null || b === null ? (a === null) - (b === null) : sign * compare(a, b);
    });
    body.append(...sorted);
  }));
}
""".strip()

_WIDEST = 28
"""Characters beyond which a cell of text wraps."""


class Page(NamedTuple):
    """The parts of a page.

    Attributes
    ----------
    title : str
    head : sequence of (str, str)
        Where the numbers come from: model, input, machine, time, version, verdict. A line without a name
        continues the one before.
    pairs : sequence of (str, str)
        Names and values of the totals.
    charts : sequence of str
        SVG texts from ``columns_chart``.
    tables : sequence of Table
    """

    title: str
    head: Sequence[tuple[str, str]]
    pairs: Sequence[tuple[str, str]]
    charts: Sequence[str]
    tables: Sequence[Table]

    def html(self) -> str:
        """Return a whole HTML document."""
        title = _line(self.title)
        charts = "".join(f"<figure>{chart}</figure>\n" for chart in self.charts)
        tables = "\n".join(map(_scrolling, self.tables))
        import base64
        import hashlib

        script = f"\n{_SCRIPT}\n"
        key = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{key}'"
        return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{_escaped(title)}</title>
<style>
{_STYLE}
</style>
</head>
<body>
<h1>{_escaped(title)}</h1>
{_listed(self.head, ' class="head"')}
{_listed(self.pairs)}
{charts}{tables}
<footer>systolic {_escaped(__version__)}. A heading sorts its table.</footer>
<script>{script}</script>
</body>
</html>
"""


def _escaped(text: str) -> str:
    from html import escape  # takes some of the time of importing the package

    return escape(text)


def _line(text: str) -> str:
    """Return a text on one line, without control characters."""
    return Column("").show(text)


def _listed(pairs: Iterable[tuple[str, str]], attribute: str = "") -> str:
    lines = "\n".join(f"<dt>{_escaped(_line(k))}</dt><dd>{_escaped(_line(v))}</dd>" for k, v in pairs)
    return f"<dl{attribute}>\n{lines}\n</dl>"


def _scrolling(table: Table) -> str:
    """Return a table in a box that scrolls, by keys too."""
    label = _escaped(_line(table.title or "Table"))
    return f'<div class="wide" role="region" tabindex="0" aria-label="{label}">{_table(table)}</div>'


def _table(table: Table) -> str:
    """Return a table whose headings are buttons, and whose cells hold the number that they show."""
    kinds = [' class="n"' if align == ">" else "" for align in table._aligns()]
    body = [table._cells(row) for row in table.rows]
    last = table._last()
    parts = ["<table>"]
    if table.title:
        parts.append(f"<caption>{_escaped(_line(table.title))}</caption>")
    heads = []
    for place, (column, kind) in enumerate(zip(table.columns, kinds, strict=True)):
        longest = max((len(cells[place]) for cells in (*body, *([last] if last else []))), default=0)
        room = "" if kind else f' style="min-width:{min(longest, _WIDEST)}ch"'
        name = _escaped(_line(column.name))
        button = f'<button type="button">{name}</button>'
        heads.append(f'<th scope="col"{kind}{room} aria-sort="none">{button}</th>')
    parts.append(f"<thead><tr>{''.join(heads)}</tr></thead><tbody>")
    for row, cells in zip(table.rows, body, strict=True):
        made = []
        for value, cell, kind in zip(row, cells, kinds, strict=True):
            missing = value is None or (kind and isinstance(value, str))
            given = f' data-value="{"" if missing else value}"' if missing or _is_number(value) else ""
            made.append(f"<td{kind}{given}>{_escaped(cell)}</td>")
        parts.append(f"<tr>{''.join(made)}</tr>")
    parts.append("</tbody>")
    if last:
        cells_of = "".join(f"<td{kind}>{_escaped(cell)}</td>" for cell, kind in zip(last, kinds, strict=True))
        parts.append(f"<tfoot><tr>{cells_of}</tr></tfoot>")
    elif isinstance(table.footer, str):
        note = "<br>".join(_escaped(_line(words)) for words in table.footer.split("\n"))
        parts.append(f'<tfoot><tr><td class="note" colspan="{len(kinds)}">{note}</td></tr></tfoot>')
    return "".join([*parts, "</table>"])
