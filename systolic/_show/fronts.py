"""Points of several groups in a plane, with a front of each marked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from systolic._show.draw import _DRAIN, _FAINT, _INK, _MARK, _MUTED, _SHIFT, _STREAM, _SWAP, new_figure

Point = tuple[float, float]
Axis = tuple[str, Callable[[float], str]]

_WIDE = 20
"""Times the smallest number from which on an axis is logarithmic: it then has two ticks at least."""

_COLORS, _MARKERS = (_STREAM, _SWAP, _SHIFT, _MARK, _MUTED, _DRAIN), "osD^vP"


def plot_fronts(
    groups: Sequence[tuple[str, Sequence[Point], Sequence[Point]]], *, x: Axis, y: Axis, title: str
) -> Any:
    """Draw points, and a line through those of each group's front.

    Parameters
    ----------
    groups : sequence of (name, points, points of the front in their order)
    x, y : (str, callable)
        Label of an axis, and a function from a number to text. An axis is logarithmic if all values are
        above zero and far apart.
    title : str

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    figure, ax = new_figure(7.6, 5.0)
    from matplotlib.ticker import FuncFormatter, NullFormatter

    ax.set_position((0.12, 0.13, 0.84, 0.77))
    for number, (name, points, front) in enumerate(groups):
        color = _COLORS[number % len(_COLORS)]
        marker = _MARKERS[number // len(_COLORS) % len(_MARKERS)]
        on = set(front)
        others = [point for point in points if point not in on]
        ax.scatter(
            [p[0] for p in others], [p[1] for p in others], s=14, color=color, alpha=0.35, linewidth=0,
            marker=marker, zorder=3,
        )  # fmt: skip
        ax.plot(
            [p[0] for p in front], [p[1] for p in front], color=color, linewidth=1.4, marker=marker,
            markersize=6, markeredgecolor="white", markeredgewidth=0.8, label=name, zorder=5,
        )  # fmt: skip
    values = [point for _, points, _ in groups for point in points]
    both = (ax.xaxis, ax.set_xscale, x), (ax.yaxis, ax.set_yscale, y)
    for number, (axis, scale, (_, text)) in enumerate(both):
        numbers = [point[number] for point in values]
        if numbers and 0 < _WIDE * min(numbers) <= max(numbers):
            scale("log")
            axis.set_minor_formatter(NullFormatter())
        axis.set_major_formatter(FuncFormatter(lambda value, _, text=text: text(float(value))))
    ax.set_title(title, loc="left", size=11, weight="bold", color=_INK)
    ax.set_xlabel(x[0], size=9, color=_MUTED)
    ax.set_ylabel(y[0], size=9, color=_MUTED)
    ax.tick_params(which="both", labelsize=9, colors=_INK, length=0)
    ax.grid(which="major", color=_FAINT, linewidth=0.6, zorder=0)
    ax.spines[:].set_visible(False)
    if groups:
        ax.legend(title="Pareto front", frameon=False, fontsize=8, title_fontsize=8)
    return figure

