"""How plain data is shown: text and HTML tables, drawings of arrays, progress lines.

Nothing here knows what the numbers mean: callers hand over names, numbers and ndarrays.
matplotlib and pandas are imported only by the functions that need them, and so are ``draw`` and
``waves``: importing the package stays quick.
"""

from systolic._show.progress import Progress
from systolic._show.table import Column, Table, card, card_text, percent, seconds, si

__all__ = [
    "Column",
    "Progress",
    "Table",
    "card",
    "card_text",
    "percent",
    "seconds",
    "si",
]
