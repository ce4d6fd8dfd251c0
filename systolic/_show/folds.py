"""Folds in time as bars, of plain numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from systolic._show.draw import _DRAIN, _FAINT, _INK, _MUTED, _SHIFT, _STREAM, _SWAP, _matplotlib, new_figure

_MOST_FOLDS = 64


def plot_timeline(
    folds: Iterable[tuple[str, int, int, int]],
    *,
    rows: int,
    cols: int,
    held: bool = False,
    names: tuple[str, str] = ("weights", "x"),
) -> Any:
    """Draw folds in time: weights shifting in, rows streaming, the drain; overlap is double buffering.

    Times are local to PE (0, 0): a fold shifts for `rows` cycles, streams one row of x per
    cycle from its swap on, and its last psum leaves the last PE rows + cols - 2 cycles after the
    last row went in. Where sums are held, it streams from the beginning, and `rows` sums of each column
    leave from its swap on.

    Parameters
    ----------
    folds : iterable of (label, shift_cycle, swap_cycle, m)
        1 to 64 folds, cycles counted from 0; `m` is how many lines stream.
    rows, cols : int
        Size of the array.
    held : bool
        Whether sums stay in the PEs until a fold ends.
    names : (str, str)
        What is shifted in and what streams, for the legend.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If there are no folds or too many, or a time or size is negative.
    ImportError
        If matplotlib is not installed.
    """
    bars = [(str(label), int(shift), int(swap), int(m)) for label, shift, swap, m in folds]
    if not 1 <= len(bars) <= _MOST_FOLDS:
        raise ValueError(f"plot_timeline draws 1 to {_MOST_FOLDS} folds, not {len(bars)}; pass a slice")
    if rows < 1 or cols < 1 or any(min(bar[1:]) < 0 for bar in bars):
        raise ValueError(
            f"cycles and m must be non-negative, rows and cols positive, not {bars} on {rows} x {cols}"
        )
    _matplotlib()
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    drain = rows + cols - 2
    total = max(swap + (rows if held else m) + drain for _, _, swap, m in bars)
    height = 1.25 + 0.36 * len(bars)
    name_width = min(max(len(label) for label, *_ in bars), 28) * 0.085
    width = 8.2 + name_width
    figure, ax = new_figure(width, height)
    left = 0.3 + name_width
    ax.set_position((left / width, 0.52 / height, (width - left - 0.35) / width, (height - 1.12) / height))

    for i, (_, shift, swap, m) in enumerate(bars):
        # The bar of the shift, or of sums that leave, is in the lower half: it belongs to shadow registers.
        begins, stream, ends = (swap, shift, swap + rows) if held else (shift, swap, swap + m)
        ax.barh(i + 0.19, rows, left=begins, height=0.3, color=_SHIFT, zorder=3)
        ax.barh(i - 0.13, m, left=stream, height=0.3, color=_STREAM, zorder=3)
        ax.barh(i + 0.19 if held else i - 0.13, drain, left=ends, height=0.3, color=_DRAIN, zorder=3)
    ax.scatter(
        [swap for _, _, swap, _ in bars], np.arange(len(bars)) - 0.13,
        marker="D", s=26, color=_SWAP, edgecolor="white", linewidth=0.8, zorder=4, clip_on=False,
    )  # fmt: skip
    ax.axvline(total, color=_MUTED, linewidth=1, linestyle=(0, (3, 3)), zorder=2)
    ax.set(xlim=(0, total * 1.005), ylim=(len(bars) - 0.45, -0.55))
    ax.set_yticks(range(len(bars)), [_short(label, 28) for label, *_ in bars])
    ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax.set_xlabel("cycle (local time of the first PE)", size=9, color=_MUTED)
    ax.tick_params(labelsize=9, colors=_INK, length=0)
    ax.grid(axis="x", color=_FAINT, linewidth=0.6, zorder=0)
    ax.spines[:].set_visible(False)
    ax.set_title(
        f"{len(bars)} fold{'s' * (len(bars) > 1)} on {rows} × {cols} PEs, {total:,} cycles",
        loc="left", size=11, weight="bold", color=_INK, pad=24,
    )  # fmt: skip
    handles = [
        Patch(color=_SHIFT, label="sums leave" if held else f"shift {names[0]} in"),
        Line2D([], [], color=_SWAP, marker="D", markeredgecolor="white", linestyle="", label="swap"),
        Patch(color=_STREAM, label=f"stream {names[1]}"),
        Patch(color=_DRAIN, label="drain"),
    ]
    ax.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, fontsize=9,
        borderaxespad=0.15, borderpad=0, handlelength=1.3, columnspacing=1.6, labelcolor=_INK,
    )  # fmt: skip
    return figure


def _short(text: str, room: int) -> str:
    return text if len(text) <= room else text[: room // 2] + "…" + text[len(text) - room // 2 + 1 :]
