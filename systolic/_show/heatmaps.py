"""A table of numbers as colored cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from systolic._show.draw import _INK, _MUTED, new_figure

_MOST_TEXTS = 16
"""Cells along an axis up to which each has its number."""

_CELL = 0.42  # inches

_WIDE = 30
"""Times the smallest number from which on colors are logarithmic."""


def plot_heatmap(
    values: Sequence[Sequence[float | None]],
    *,
    x: tuple[str, Sequence[str]],
    y: tuple[str, Sequence[str]],
    value: tuple[str, Callable[[float], str]],
    title: str,
) -> Any:
    """Draw cells of equal size whose color is a number, on a logarithmic scale if the largest is far above.

    Parameters
    ----------
    values : sequence of sequence of float or None, (y, x)
        None leaves a cell empty.
    x, y : (str, sequence of str)
        Label of an axis, and one text for each column or row; the first row is the lowest.
    value : (str, callable)
        What the numbers are, and a function from a number to text.
    title : str

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    import math

    rows, columns = len(y[1]), len(x[1])
    width = min(max(columns * _CELL * 1.3, 3.6), 8.0) + 2.4
    figure, ax = new_figure(width, min(max(rows * _CELL, 2.4), 7.0) + 1.3)
    from matplotlib.ticker import FuncFormatter

    numbers = [[math.nan if each is None else each for each in row] for row in values]
    known = [each for row in values for each in row if each is not None]
    is_wide = min(known, default=0) > 0 and max(known, default=0) > _WIDE * min(known)
    image = ax.imshow(
        numbers, origin="lower", aspect="auto", cmap="viridis", interpolation="nearest",
        norm="log" if is_wide else "linear",
    )  # fmt: skip
    for axis, (_, texts) in ((ax.xaxis, x), (ax.yaxis, y)):
        step = -(-len(texts) // _MOST_TEXTS)
        axis.set_ticks(list(range(0, len(texts), step)), texts[::step])
    if max(rows, columns) <= _MOST_TEXTS:
        for row, line in enumerate(values):
            for column, each in enumerate(line):
                if each is not None:
                    dark = image.norm(each) < 0.6
                    ax.text(
                        column, row, value[1](each), ha="center", va="center", size=7,
                        color="white" if dark else _INK,
                    )  # fmt: skip
    bar = figure.colorbar(image, ax=ax, format=FuncFormatter(lambda number, _: value[1](float(number))))
    bar.set_label(value[0], size=9, color=_MUTED)
    bar.ax.tick_params(labelsize=8, colors=_INK, length=0)
    bar.outline.set_visible(False)
    ax.set_title(title, loc="left", size=11, weight="bold", color=_INK)
    ax.set_xlabel(x[0], size=9, color=_MUTED)
    ax.set_ylabel(y[0], size=9, color=_MUTED)
    ax.tick_params(which="both", labelsize=8, colors=_INK, length=0)
    ax.spines[:].set_visible(False)
    figure.set_layout_engine("tight")
    return figure
