"""Alternatives side by side: cycles, bytes by part, and the cycles of each layer relative to the fewest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from systolic._show.draw import _DRAIN, _FAINT, _INK, _MARK, _MUTED, _SHIFT, _STREAM, _SWAP, new_figure
from systolic._show.table import percent, si

_COLORS, _MARKERS = (_STREAM, _SWAP, _SHIFT, _MARK, _DRAIN), "osD^v"
_TEXT = 8  # points
_NAMED = 60  # up to this many layers are labeled by name, more by number
_CLIP = 22  # characters of a layer's name


def plot_comparison(
    names: Sequence[str],
    cycles: Sequence[tuple[int, float]],
    parts: Mapping[str, Sequence[int]],
    layers: Sequence[tuple[str, Sequence[int]]],
    *,
    title: str,
) -> Any:
    """Draw a bar of cycles and a stacked bar of bytes per alternative; below, cycles by layer.

    Parameters
    ----------
    names : sequence of str
        Of up to five alternatives.
    cycles : sequence of (int, float)
        Cycles and utilization of each.
    parts : mapping of str to sequence of int
        Bytes of each, by part; up to three parts.
    layers : sequence of (name, sequence of int)
        Cycles of each layer on each alternative; drawn if there are several layers.
    title : str

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    several = len(layers) > 1
    height = 6.4 if several else 2.7
    figure, left = new_figure(8.6, height)

    def area(x: float, y: float, w: float, h: float) -> tuple[float, float, float, float]:
        """Return a place in inches from the left and from the top, as parts of the figure."""
        return x / 8.6, 1 - (y + h) / height, w / 8.6, h / height

    figure.text(0.15 / 8.6, 1 - 0.3 / height, title, size=11, weight="bold", color=_INK)
    left.set_position(area(1.45, 0.8, 2.85, 1.35))
    right = figure.add_axes(area(4.75, 0.8, 3.6, 1.35))
    places = range(len(names))
    left.barh(places, [count for count, _ in cycles], height=0.62, color=_COLORS[: len(names)], zorder=3)
    for place, (count, used) in enumerate(cycles):
        left.annotate(
            f"{count:,}\n{percent(used)} used", (count, place), xytext=(5, 0), textcoords="offset points",
            va="center", size=_TEXT, color=_INK, linespacing=1.2,
        )  # fmt: skip
    starts = [0] * len(names)
    for (part, counts), color in zip(parts.items(), (_MUTED, _FAINT, _INK), strict=False):
        right.barh(places, counts, left=starts, height=0.62, color=color, label=part, zorder=3)
        starts = [start + count for start, count in zip(starts, counts, strict=True)]
    for place, end in enumerate(starts):
        right.annotate(
            si(end, "B"), (end, place), xytext=(5, 0), textcoords="offset points", va="center", size=_TEXT,
            color=_INK,
        )  # fmt: skip
    ends = max(count for count, _ in cycles), max(starts)
    for ax, label, most in zip((left, right), ("cycles", "bytes at the ports"), ends, strict=True):
        ax.set(xlim=(0, max(most, 1) * 1.32), ylim=(len(names) - 0.5, -0.5))
        ax.set_title(label, loc="left", size=9, color=_MUTED)
        ax.set_xticks([])
        ax.set_yticks(places, names if ax is left else [""] * len(names))
        _plain(ax)
    right.legend(
        loc="upper right", bbox_to_anchor=(1, 1.22), ncols=len(parts), frameon=False, fontsize=_TEXT,
        handlelength=1, columnspacing=1.2, borderpad=0,
    )  # fmt: skip
    if several:
        _draw_layers(figure.add_axes(area(0.75, 2.8, 7.6, 2.3)), names, layers)
    return figure


def _draw_layers(ax: Any, names: Sequence[str], layers: Sequence[tuple[str, Sequence[int]]]) -> None:
    """Draw how many times the fewest cycles of a layer each alternative takes: a mark each."""
    from matplotlib.ticker import FuncFormatter

    worked = [(place, counts) for place, (_, counts) in enumerate(layers) if min(counts)]
    for number, name in enumerate(names):
        ax.plot(
            [place for place, _ in worked], [counts[number] / min(counts) for _, counts in worked],
            color=_COLORS[number], marker=_MARKERS[number], markersize=9 - 6 * number / len(names),
            markeredgecolor="white", markeredgewidth=0.5, linewidth=0, label=name, zorder=4 + number,
        )  # fmt: skip
    ax.set_title("cycles of each layer, relative to its fastest", loc="left", size=9, color=_MUTED)
    most = max((max(counts) / min(counts) for _, counts in worked), default=1.0)
    ax.set(xlim=(-0.6, len(layers) - 0.4), ylim=(1 - 0.08 * max(most - 1, 0.1), 1 + 1.1 * max(most - 1, 0.1)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.10g} ×"))
    _plain(ax)
    ax.grid(axis="y", color=_FAINT, linewidth=0.6, zorder=0)
    if len(layers) <= _NAMED:
        labels = [n if len(n) <= _CLIP else f"{n[: _CLIP // 2]}…{n[-_CLIP // 2 + 1 :]}" for n, _ in layers]
        size = 8 if len(layers) <= 30 else 5.5
        ax.set_xticks(range(len(layers)), labels, rotation=40, ha="right", rotation_mode="anchor", size=size)
    ax.legend(loc="upper right", bbox_to_anchor=(1, 1.14), ncols=len(names), frameon=False, fontsize=_TEXT,
              borderpad=0)  # fmt: skip


def _plain(ax: Any) -> None:
    ax.tick_params(which="both", labelsize=9, colors=_INK, length=0)
    ax.spines[:].set_visible(False)
