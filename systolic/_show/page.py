"""A self-contained HTML page of totals, charts and tables, without scripts or external resources."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from systolic._show.table import Column, Table
from systolic._version import __version__

# Colors that differ in lightness too, on white and on black.
_STYLE = """
:root { color-scheme: light dark; --s0: #2f6db3; --s1: #e08a2c; --s2: #5aa469; --s3: #9a9fa8; }
@media (prefers-color-scheme: dark) { :root { --s0: #6ea8e6; --s1: #f0a95a; --s2: #7cc38c; --s3: #7d838d; } }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; margin: 0 0 .6em; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15em 1.2em; margin: 0 0 1.6em; }
dt { opacity: .7; } dd { margin: 0; overflow-wrap: anywhere; }
svg { width: 100%; height: auto; display: block; margin: 0 0 1.4em; font-size: 12px; }
svg text { fill: currentColor; } svg .head { font-size: 15px; font-weight: 600; }
svg .end { text-anchor: end; } svg .mid { text-anchor: middle; }
svg .grid { stroke: currentColor; stroke-opacity: .18; } svg .hit { fill: transparent; }
svg g:hover .hit { fill: currentColor; fill-opacity: .08; }
svg .s0 { fill: var(--s0); } svg .s1 { fill: var(--s1); } svg .s2 { fill: var(--s2); }
svg .s3 { fill: var(--s3); }
.wide { overflow-x: auto; font-size: 13px; margin: 0 0 1.6em; }
footer { opacity: .6; font-size: 13px; }
""".strip()


def page(title: str, pairs: Iterable[tuple[str, str]], charts: Sequence[str], tables: Sequence[Table]) -> str:
    """Return a whole HTML document.

    Parameters
    ----------
    title : str
    pairs : iterable of (str, str)
        Names and values of the totals.
    charts : sequence of str
        SVG texts from ``columns_chart``.
    tables : sequence of Table
    """
    show = Column("").show  # on one line, without control characters
    listed = "\n".join(f"<dt>{escape(show(key))}</dt><dd>{escape(show(value))}</dd>" for key, value in pairs)
    title = show(title)
    shown = "\n".join(f'<div class="wide">{table.html()}</div>' for table in tables)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{_STYLE}
</style>
</head>
<body>
<h1>{escape(title)}</h1>
<dl>
{listed}
</dl>
{"".join(f"{chart}{chr(10)}" for chart in charts)}{shown}
<footer>systolic {escape(__version__)}. Columns are ordered as the last table; hover for values.</footer>
</body>
</html>
"""
