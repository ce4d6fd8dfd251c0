"""Cycles of layers as stacked bars, a part for each cause."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from systolic._show.draw import _FAINT, _INK, _MUTED, _STREAM, new_figure
from systolic._show.table import percent
from systolic._show.timelines import CAUSE_COLORS

_BAR = 0.2  # inches
_LONGEST = 34  # characters of a name


def plot_layers(
    layers: Sequence[tuple[str, Mapping[str, int]]], *, top: int | None = None, title: str
) -> Any:
    """Draw a bar per layer, as long as its cycles, the first layer on top.

    Parameters
    ----------
    layers : sequence of (name, mapping of str to int)
        Cycles by cause; a single cause "cycles" has no legend.
    top : int, optional
        Only so many layers: those with the most cycles, in their order.
    title : str

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    totals = [sum(found.values()) for _, found in layers]
    cycles, by_cause = sum(totals), Counter[str]()
    for _, found in layers:
        by_cause.update(found)
    if top is not None:
        kept = sorted(sorted(range(len(layers)), key=lambda place: -totals[place])[:top])
        if len(kept) < len(layers):
            title += f"; the {len(kept)} longest of {len(layers)} layers"
        layers = [layers[place] for place in kept]
    figure, ax = new_figure(8.6, max(_BAR * len(layers), 1.2) + 1.5)
    from matplotlib.ticker import FuncFormatter

    height = figure.get_figheight()
    ax.set_position((0.3, 0.55 / height, 0.62, 1 - 1.5 / height))
    causes = [cause for cause, count in by_cause.items() if count]
    places = range(len(layers))
    left = [0] * len(layers)
    for cause in causes:
        widths = [found.get(cause, 0) for _, found in layers]
        share = f" {percent(by_cause[cause] / cycles)}" if cycles else ""
        ax.barh(
            places, widths, left=left, height=0.72, color=CAUSE_COLORS.get(cause, _STREAM), linewidth=0,
            label=f"{cause.replace('_', ' ')}{share}", zorder=3,
        )  # fmt: skip
        left = [before + width for before, width in zip(left, widths, strict=True)]
    for place, end in zip(places, left, strict=True):
        if cycles and end:
            ax.annotate(
                percent(end / cycles), (end, place), xytext=(4, -0.5), textcoords="offset points",
                va="center", size=7, color=_MUTED,
            )  # fmt: skip
    names = [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 3]}..." for name, _ in layers]
    ax.set_yticks(list(places), names)
    ax.set_ylim(len(layers) - 0.4, -0.6)
    ax.set_xlim(0, max([*left, 1]) * 1.1)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    figure.text(0.3, 1 - 0.3 / height, title, size=11, weight="bold", color=_INK)
    ax.set_xlabel("cycles", size=9, color=_MUTED)
    ax.tick_params(which="both", labelsize=8, colors=_INK, length=0)
    ax.grid(axis="x", color=_FAINT, linewidth=0.6, zorder=0)
    ax.spines[:].set_visible(False)
    if len(causes) > 1:
        ax.legend(
            loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=4, frameon=False, fontsize=8, handlelength=1,
            columnspacing=1.2,
        )  # fmt: skip
    return figure
