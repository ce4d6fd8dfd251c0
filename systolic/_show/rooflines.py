"""A roofline of plain numbers: a roof, and points under it."""

from __future__ import annotations

from collections.abc import Sequence
from math import log10
from typing import Any

from systolic._show.draw import _FAINT, _INK, _MARK, _MUTED, _STREAM, new_figure
from systolic._show.table import si

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
        Labeled where there is room; points that lie on each other have one label.
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
    stars = [] if total is None or len(points) < 2 else [total]
    area = (low, high, bottom, peak * 2)
    corner = (ridge or high, peak)  # the words above the roof are on both sides
    for name, x, y, across, up in _labels(points, stars, corner, area, (7.6 * 0.84 * 72, 5.0 * 0.77 * 72)):
        ax.annotate(
            name, (x, y), xytext=(across, up), textcoords="offset points", ha="center", va="center",
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


def _labels(
    points: Sequence[tuple[str, float, float]],
    stars: Sequence[tuple[float, float]],
    corner: tuple[float, float],
    area: tuple[float, float, float, float],
    size: tuple[float, float],
) -> list[tuple[str, float, float, float, float]]:
    """Return the labels that have room: name, point, and offset of the text's middle in printer's points.

    Points that lie on each other have one label. `corner` is the ridge, `area` are the ends of the axes,
    `size` their lengths.
    """
    left, right, bottom, top = map(log10, area)

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            (log10(x) - left) / (right - left) * size[0],
            (log10(y) - bottom) / (top - bottom) * size[1],
        )

    groups: dict[tuple[int, int], list[tuple[str, float, float]]] = {}
    for point in points:
        x, y = place(*point[1:])
        groups.setdefault((round(x / 5), round(y / 5)), []).append(point)
    marks = [place(x, y) for _, x, y in points] + [place(*star) for star in stars]
    taken = [(x - 4, x + 4, y - 4, y + 4) for x, y in marks]
    # The word behind the star.
    taken += [(x + 6, x + 34, y - 7, y + 5) for x, y in marks[len(points) :]]
    x, y = place(*corner)
    taken += [(x - 100, x, y, y + 16), (size[0] - 60, size[0], y, y + 16)]
    labels: list[tuple[str, float, float, float, float]] = []
    for (name, x, y), *others in groups.values():
        text = f"{name}, {len(others)} more" if others else name
        half = 0.31 * _TEXT * len(text)
        for across, up in ((0, -10), (0, 10), (half + 7, 0), (-half - 7, 0)):
            at = place(x, y)
            box = (at[0] + across - half, at[0] + across + half, at[1] + up - 5, at[1] + up + 5)
            inside = box[0] >= 0 and box[1] <= size[0] and box[2] >= 0 and box[3] <= size[1]
            if inside and not any(
                box[0] < b and a < box[1] and box[2] < d and c < box[3] for a, b, c, d in taken
            ):
                taken.append(box)
                labels.append((text, x, y, across, up))
                break
    return labels
