"""Waveforms of signals over cycles, in matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from systolic._show.draw import new_figure

_LINE = "#1f5f8b"
_BUSY = "#dcebf5"
_HIGH = "#1f5f8b"


def plot_waves(signals: Sequence[tuple[str, np.ndarray]], *, cycles: np.ndarray, limit: int = 40) -> Any:
    """Draw a waveform: bits as levels, numbers as boxes with their value.

    Parameters
    ----------
    signals : sequence of (str, ndarray)
        Names and values, one per cycle.
    cycles : ndarray of int
        The cycles, increasing; a gap is drawn as a gap.
    limit : int
        Raise ValueError for more signals.

    Returns
    -------
    matplotlib.figure.Figure
    """
    if len(signals) > limit:
        raise ValueError(
            f"{len(signals)} signals are too many to draw, the limit is {limit}: record fewer PEs or "
            "registers, or pass a larger limit"
        )
    count = len(cycles)
    width = min(max(6.0, 0.55 * count + 2.5), 40.0)
    figure, axes = new_figure(width, 0.36 * len(signals) + 1.1)
    for line, (_, values) in enumerate(signals):
        base = len(signals) - 1 - line
        numbers = np.asarray(values)
        if numbers.dtype.kind not in "iub":
            numbers = numbers.astype(float)
        for start, stop in _runs(numbers, cycles):
            left, right = int(cycles[start]), int(cycles[stop - 1]) + 1
            value = numbers[start].item()
            if numbers.dtype == bool:
                _draw_bit(axes, base, left, right, bool(value))
            else:
                _draw_number(axes, base, left, right, value)
    axes.set_yticks(
        range(len(signals)), [name for name, _ in reversed(signals)], fontfamily="monospace", fontsize=8
    )
    axes.set_xticks(np.arange(cycles[0], cycles[-1] + 2, max(1, count // 20)))
    axes.set_xlim(cycles[0], cycles[-1] + 1)
    axes.set_ylim(-0.6, len(signals) - 0.3)
    axes.set_xlabel("value after the edge of cycle")
    axes.grid(axis="x", color="0.88", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    figure.set_layout_engine("constrained")
    return figure


def _runs(values: np.ndarray, cycles: np.ndarray) -> list[tuple[int, int]]:
    """Return (start, stop) of each run of equal values on consecutive cycles."""
    change = (values[1:] != values[:-1]) | (np.diff(cycles) != 1)
    edges = [0, *(np.flatnonzero(change) + 1).tolist(), len(values)]
    return list(pairwise(edges))


def _draw_bit(axes: Any, base: int, left: int, right: int, high: bool) -> None:
    level = base + 0.3 if high else base - 0.3
    axes.plot(
        [left, right], [level, level], color=_HIGH if high else "0.6", linewidth=1.4, solid_capstyle="butt"
    )
    if high:
        axes.fill_between([left, right], base - 0.3, base + 0.3, color=_BUSY, linewidth=0)
        axes.plot([left, left], [base - 0.3, base + 0.3], color=_HIGH, linewidth=1.0)
        axes.plot([right, right], [base - 0.3, base + 0.3], color=_HIGH, linewidth=1.0)


def _draw_number(axes: Any, base: int, left: int, right: int, value: float) -> None:
    if value == 0:
        axes.plot([left, right], [base, base], color="0.7", linewidth=1.0)
        return
    slant = 0.12
    x = [left, left + slant, right - slant, right, right - slant, left + slant, left]
    y = [base, base + 0.3, base + 0.3, base, base - 0.3, base - 0.3, base]
    axes.fill(x, y, facecolor=_BUSY, edgecolor=_LINE, linewidth=0.9)
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    size = 7.5 if len(text) <= 3 + 5 * (right - left - 1) else 5.5
    axes.text((left + right) / 2, base, text, ha="center", va="center", fontsize=size, color="0.15")
