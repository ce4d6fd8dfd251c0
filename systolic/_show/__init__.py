"""Show plain data: text and HTML tables, reports and their pages, drawings of arrays, progress lines.

Nothing here depends on the meaning of the numbers: callers pass names, numbers and ndarrays.
matplotlib, pandas, ``draw`` and ``waves`` are imported by the functions that need them, which keeps
``import systolic`` fast.
"""

from systolic._show.table import Column, Table, card, card_text, percent, seconds, si

__all__ = [
    "Column",
    "Table",
    "card",
    "card_text",
    "percent",
    "seconds",
    "si",
]
