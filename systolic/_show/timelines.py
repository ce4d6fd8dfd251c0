"""Drawings of plain spans of time: units of a machine over its cycles, and how full its memories are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from systolic._show.draw import _FAINT, _INK, _MUTED, _SHIFT, _STREAM, new_figure
from systolic._show.table import percent

_BUSY = "#7fa8c9"

# From the palette of Okabe and Ito (2008); what is left over is grey.
CAUSE_COLORS = {
    "active": _STREAM,
    "weight_stall": "#d55e00",
    "weight_shift": _SHIFT,
    "raw_stall": "#cc79a7",
    "input_stall": "#e69f00",
    "accumulator_stall": "#f0e442",
    "other_stall": _FAINT,
}

_LANE, _CURVE = 0.34, 0.62  # heights in inches

Bars = tuple[np.ndarray, np.ndarray]


def plot_units(
    bars: Mapping[str, Bars],
    causes: Mapping[str, Bars],
    curves: Mapping[str, tuple[np.ndarray, np.ndarray, int | None, str]],
    *,
    cycles: int,
    first: int = 0,
    last: int | None = None,
    title: str = "",
) -> Any:
    """Draw a lane per unit, the array's cycles by cause, and a curve per memory.

    Parameters
    ----------
    bars : mapping of str to (ndarray, ndarray)
        Starts and ends, by unit; units that do nothing are left out.
    causes : mapping of str to (ndarray, ndarray)
        The same of the array, by cause.
    curves : mapping of str to (cycles, used, limit, unit)
        Steps of each memory.
    cycles : int
        The end of the program.
    first, last : int
        The part to draw; the whole program if `last` is None.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If there are no cycles to draw.
    ImportError
        If matplotlib is not installed.
    """
    last = cycles if last is None else last
    if not 0 <= first < last:
        raise ValueError(f"there are no cycles to draw from {first} to {last}; the program has {cycles:,}")
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    lanes = {unit: _inside(*times, first, last) for unit, times in bars.items()}
    lanes = {unit: times for unit, times in lanes.items() if len(times[0])}
    names = [*lanes, "array"]
    width, head, foot, gap, left = 9.6, 0.8, 0.5, 0.16, 1.45
    top = _LANE * len(names)
    height = head + top + (gap + _CURVE) * len(curves) + foot
    figure, ax = new_figure(width, height)

    def place(bottom: float, tall: float) -> tuple[float, float, float, float]:
        return left / width, bottom / height, (width - left - 0.75) / width, tall / height

    ax.set_position(place(height - head - top, top))
    shortest = (last - first) / 1500  # a bar that is visible
    for y, unit in enumerate(lanes):
        start, end = lanes[unit]
        spans = np.stack((start, np.maximum(end - start, shortest)), axis=1)
        ax.broken_barh(spans, (y - 0.32, 0.64), color=_BUSY, linewidth=0, zorder=3)
    shown = {}
    for cause, times in causes.items():
        start, end = _inside(*times, first, last)
        if len(start):
            shown[cause] = int((end - start).sum())
            spans = np.stack((start, end - start), axis=1)
            ax.broken_barh(
                spans, (len(lanes) - 0.32, 0.64), color=CAUSE_COLORS.get(cause, _MUTED), linewidth=0, zorder=3
            )
    ax.set(xlim=(first, last), ylim=(len(names) - 0.45, -0.55))
    ax.set_yticks(range(len(names)), names)
    ax.set_title(title, loc="left", size=11, weight="bold", color=_INK, pad=28)
    shares = {cause: f"{cause.replace('_', ' ')} {percent(n / (last - first))}" for cause, n in shown.items()}
    handles = [Patch(color=CAUSE_COLORS.get(cause, _MUTED), label=label) for cause, label in shares.items()]
    ax.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(handles) or 1, frameon=False,
        fontsize=7.5, borderaxespad=0.2, borderpad=0, handlelength=1.0, handletextpad=0.4, columnspacing=1.0,
        labelcolor=_INK,
    )  # fmt: skip
    panels = [ax]
    for number, (memory, (at, used, limit, unit)) in enumerate(curves.items()):
        bottom = height - head - top - (gap + _CURVE) * (number + 1)
        panel = figure.add_axes(place(bottom, _CURVE), sharex=ax)
        steps, values = np.append(at, max(cycles, last)), np.append(used, used[-1])
        panel.fill_between(steps, values, step="post", color=_BUSY, alpha=0.6, linewidth=0, zorder=3)
        peak = max(int(used.max()), 1)
        panel.set(xlim=(first, last), ylim=(0, peak * 1.15))
        panel.set_yticks([0, peak], ["0", f"{peak:,}"])
        of = "" if limit is None else f"\nof {limit:,}"
        panel.text(
            1.008, 0.5, f"{unit}{of}", transform=panel.transAxes, size=8, color=_MUTED, va="center"
        )
        panel.set_ylabel(memory.replace(" ", "\n"), rotation=0, ha="right", va="center", size=9, color=_INK)
        panel.yaxis.set_label_coords(-0.055, 0.5)
        panels.append(panel)
    for panel in panels:
        panel.tick_params(labelsize=8 if panel is not ax else 9, colors=_INK, length=0, labelbottom=False)
        panel.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        panel.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        panel.grid(axis="x", color=_FAINT, linewidth=0.6, zorder=0)
        panel.spines[:].set_visible(False)
    panels[-1].tick_params(labelbottom=True, labelsize=9)
    panels[-1].set_xlabel("cycle", size=9, color=_MUTED)
    return figure


def _inside(start: np.ndarray, end: np.ndarray, first: int, last: int) -> Bars:
    """Return the bars that are seen between two cycles, cut to what is seen."""
    seen = (start < last) & (end >= first) & ((end > first) | (start == end))
    return np.maximum(start[seen], first), np.minimum(end[seen], last)
