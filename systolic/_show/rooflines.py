"""A roofline of plain numbers: a roof, and points under it."""

from __future__ import annotations

from collections.abc import Sequence
from math import log10
from typing import Any

from systolic._show.draw import _FAINT, _INK, _MARK, _MUTED, _STREAM, new_figure
from systolic._show.table import si

_MOST_NAMES = 16
_TEXT = 8  # points


def plot_roofline(
    points: Sequence[tuple[str, float, float]],
    total: tuple[float, float] | None,
    *,
    peak: float,
    ridge: float | None,
    title: str,
) -> Any:
    """Draw a roofline with logarithmic axes.

    Parameters
    ----------
    points : sequence of (name, intensity, operations per second)
        Up to 16 are labeled; points that lie on each other have one label.
    total : (float, float) or None
        All of them together.
    peak : float
        Operations per second of the flat part.
    ridge : float or None
        Intensity where it begins; None if it is all flat.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    figure, ax = new_figure(7.6, 5.0)
    from matplotlib.ticker import FuncFormatter

    ax.set_position((0.12, 0.13, 0.84, 0.77))
    xs = [x for _, x, _ in points] + ([] if ridge is None else [ridge])
    low, high = min(xs, default=1.0) / 3, max(xs, default=1000.0) * 3
    if ridge is None:
        roof = ([low, high], [peak, peak])
    else:
        roof = ([low, ridge, high], [peak * low / ridge, peak, peak])
        ax.axvline(ridge, color=_MUTED, linewidth=1, linestyle=(0, (3, 3)), zorder=2)
        ax.annotate(
            f"ridge point {ridge:,.0f}", (ridge, peak), xytext=(-6, 5), textcoords="offset points",
            ha="right", size=_TEXT, color=_MUTED,
        )  # fmt: skip
    ax.plot(*roof, color=_INK, linewidth=1.8, zorder=3)
    ax.annotate(
        si(peak, "ops/s"), (high, peak), xytext=(-2, 5), textcoords="offset points", ha="right", size=_TEXT,
        color=_INK,
    )  # fmt: skip
    ax.scatter(
        [x for _, x, _ in points], [y for *_, y in points], s=34, color=_STREAM, edgecolor="white",
        linewidth=0.8, zorder=5,
    )  # fmt: skip
    if total is not None and len(points) > 1:
        ax.scatter(*total, s=120, marker="*", color=_MARK, edgecolor="white", linewidth=0.8, zorder=6)
        ax.annotate(
            "total", total, xytext=(8, -3), textcoords="offset points", size=_TEXT, color=_MARK, weight="bold"
        )
    ax.set_xscale("log")
    ax.set_yscale("log")
    ys = [y for *_, y in points]
    bottom = min([*ys, *([] if ridge is None else [peak * low / ridge])], default=peak / 100) / 2
    ax.set(xlim=(low, high), ylim=(bottom, peak * 2))
    labels = _labels(points)
    for (name, x, y), above in zip(labels, _sides(labels), strict=True):
        ax.annotate(
            name, (x, y), xytext=(0, 6 if above else -13), textcoords="offset points", ha="center",
            size=_TEXT, color=_INK, zorder=6,
        )  # fmt: skip
    ax.set_title(title, loc="left", size=11, weight="bold", color=_INK)
    ax.set_xlabel("operational intensity: MACs per weight byte", size=9, color=_MUTED)
    ax.set_ylabel("operations per second", size=9, color=_MUTED)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: si(float(value), "").strip()))
    ax.minorticks_off()
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    ax.tick_params(which="both", labelsize=9, colors=_INK, length=0)
    ax.grid(which="major", color=_FAINT, linewidth=0.6, zorder=0)
    ax.spines[:].set_visible(False)
    return figure


def _labels(points: Sequence[tuple[str, float, float]]) -> list[tuple[str, float, float]]:
    """Return points to label: those that lie on each other together, and only so many."""
    groups: dict[tuple[float, float], list[tuple[str, float, float]]] = {}
    for point in points:
        place = (round(20 * log10(point[1])), round(20 * log10(point[2])))
        groups.setdefault(place, []).append(point)
    labels = []
    for (name, x, y), *others in groups.values():
        labels.append((f"{name}, {len(others)} more" if others else name, x, y))
    return labels[:_MOST_NAMES]


def _sides(points: Sequence[tuple[str, float, float]]) -> list[bool]:
    """Return whether a name stands above its point: in turn where several are close to each other."""
    order = sorted(range(len(points)), key=lambda i: points[i][1])
    sides = [False] * len(points)
    for place, i in enumerate(order):
        sides[i] = place % 2 == 1
    return sides
