"""Energies of layers as stacked bars, of plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from systolic._show.draw import _FAINT, _INK, _MUTED, new_figure
from systolic._show.table import si

# By component, in their order; neighbors differ in lightness too.
_COLORS = (
    "#1b4965", "#5fa8d3", "#bee9e8", "#ca6702", "#ee9b00", "#ffe1a8", "#7b2d26", "#d98880", "#6a994e",
    "#b8b8b8",
)  # fmt: skip


def plot_energy(
    bars: Sequence[tuple[str, Mapping[str, float]]], *, components: Sequence[str], title: str
) -> Any:
    """Draw a horizontal bar for each layer, stacked by component; the first layer on top.

    Parameters
    ----------
    bars : sequence of (name, energy of each component in pJ)
    components : sequence of str
        In the order of the stack; those that are 0 everywhere are left out.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    height = 1.5 + 0.3 * len(bars)
    figure, ax = new_figure(8.2, height)
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ax.set_position((0.2, 0.62 / height, 0.77, 1 - 1.3 / height))
    places = range(len(bars))
    starts = [0.0] * len(bars)
    for component, color in zip(components, _COLORS, strict=False):
        values = [parts[component] for _, parts in bars]
        if not any(values):
            continue
        ax.barh(
            places, values, left=starts, color=color, edgecolor="white", linewidth=0.4, height=0.74,
            label=component,
        )  # fmt: skip
        starts = [start + value for start, value in zip(starts, values, strict=True)]
    ax.set_yticks(list(places), [_short(name) for name, _ in bars])
    ax.set_ylim(len(bars) - 0.5, -0.5)
    ax.set_xlim(0, max(starts) * 1.02)
    ax.xaxis.set_major_locator(MaxNLocator(7))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: si(float(value) * 1e-12, "J")))
    ax.tick_params(labelsize=8, colors=_INK, length=0)
    ax.set_xlabel("energy", size=9, color=_MUTED)
    ax.grid(axis="x", color=_FAINT, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[:].set_visible(False)
    figure.text(0.012, 1 - 0.24 / height, title, size=11, weight="bold", color=_INK, ha="left", va="center")
    figure.legend(
        *ax.get_legend_handles_labels(), loc="upper left", bbox_to_anchor=(0.005, 1 - 0.3 / height), ncols=10,
        fontsize=7.5, frameon=False, handlelength=1, handletextpad=0.4, columnspacing=0.9, labelcolor=_INK,
    )  # fmt: skip
    return figure


def _short(name: str) -> str:
    return name if len(name) <= 22 else f"{name[:11]}…{name[-10:]}"
