"""Parts of pages in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

WRITTEN = "<!-- docs/write_reference.py writes this page -->"


def page(*parts: str) -> str:
    """Return a page of parts between which lines are empty; below its heading is said who writes it."""
    return "\n\n".join((parts[0], WRITTEN, *parts[1:])) + "\n"


def cell(text: str) -> str:
    """Return text that may stand in a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ("---",) * len(head), *rows))
