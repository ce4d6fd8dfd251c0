"""Column charts as SVG text: one column per node, stacked by series."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

from systolic._show.table import Column

_WIDTH, _HEIGHT = 960, 210
_LEFT, _RIGHT, _TOP = 90, 8, 34
_NAMED = 40  # up to this many columns are labeled by name, more by number
_LONGEST = 48  # characters of a name up to which columns are labeled by name
_SLANT = 4.8  # how far a character of a slanted label reaches, to the left and down


class Series(NamedTuple):
    """One series of a chart: a name for the legend and a non-negative value per column."""

    name: str
    values: Sequence[float]


def columns_chart(
    title: str,
    names: Sequence[str],
    series: Sequence[Series],
    show: Callable[[float], str],
    top: float | None = None,
) -> str:
    """Return an ``<svg>`` with a column per name, the series stacked.

    Parameters
    ----------
    title : str
    names : sequence of str
        Column names: labels if there are few columns, and tooltips.
    series : sequence of Series
        Up to four; the page colors them by the classes s0 to s3.
    show : callable
        Formats a value with its unit.
    top : float, optional
        End of the axis; default the highest column.
    """
    count = len(names)
    highest = max((sum(s.values[i] for s in series) for i in range(count)), default=0.0)
    end, step = _axis(highest if top is None else top)
    # As in tables: no control characters, no line breaks.
    labels = [Column("node").show(name) for name in names]
    longest = max(map(len, labels), default=0)
    named = count <= _NAMED and longest <= _LONGEST
    # Slanted labels end below their column: the first needs room on the left.
    left = max(_LEFT, _SLANT * longest - 0.5 * (_WIDTH - _LEFT - _RIGHT) / max(count, 1)) if named else _LEFT
    room = _WIDTH - left - _RIGHT
    pitch = room / max(count, 1)
    below = 26 + _SLANT * longest if named else 40
    base = _TOP + _HEIGHT
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {base + below:.0f}" role="img" aria-label="{escape(title)}">',
        f'<text class="head" x="0" y="16">{escape(title)}</text>',
    ]
    if len(series) > 1:
        parts += _legend([s.name for s in series])
    for tick in range(round(end / step) + 1):
        y = base - _HEIGHT * tick * step / end
        parts.append(f'<line class="grid" x1="{left:.1f}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        text = escape(show(tick * step))
        parts.append(f'<text class="end" x="{left - 6:.1f}" y="{y + 4:.1f}">{text}</text>')
    wide = pitch * (0.8 if pitch > 3 else 1)
    for i, label in enumerate(labels):
        x = left + i * pitch
        tooltip = ", ".join(f"{s.name} {show(s.values[i])}" for s in series)
        parts.append(f"<g><title>{escape(f'{i} {label}: {tooltip}')}</title>")
        # Transparent and full height, so that the tooltip of a small column can be reached.
        parts.append(_rect("hit", x, _TOP, pitch, _HEIGHT))
        y = float(base)
        for number, s in enumerate(series):
            height = _HEIGHT * s.values[i] / end
            if height > 0:
                y -= height
                parts.append(_rect(f"s{number}", x + (pitch - wide) / 2, y, wide, height))
        parts.append("</g>")
        x += pitch / 2
        if named:
            turned = f"translate({x + 4:.1f} {base + 12}) rotate(-45)"
            parts.append(f'<text class="end" transform="{turned}">{escape(label)}</text>')
        elif i % _every(count) == 0:
            parts.append(f'<text class="mid" x="{x:.1f}" y="{base + 15}">{i}</text>')
    if not named and count:
        parts.append(f'<text class="mid" x="{left + room / 2:.0f}" y="{base + 32}">number of the node</text>')
    return "\n".join([*parts, "</svg>"])


def _rect(kind: str, x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="{kind}" x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}"/>'


def _legend(names: list[str]) -> list[str]:
    parts, x = [], float(_WIDTH - _RIGHT)
    for number, name in reversed(list(enumerate(names))):
        x -= 7.0 * len(name) + 26
        parts.append(f'<rect class="s{number}" x="{x:.0f}" y="6" width="11" height="11"/>')
        parts.append(f'<text x="{x + 16:.0f}" y="16">{escape(name)}</text>')
    return parts


def _axis(highest: float) -> tuple[float, float]:
    """Return end and tick step of an axis from 0; the step is 1, 2 or 5 times a power of ten."""
    if not highest > 0:
        return 1.0, 1.0
    power = 10.0 ** math.floor(math.log10(highest / 4))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * 5 >= highest)
    return step * math.ceil(highest / step - 1e-9), step


def _every(count: int) -> int:
    """Return the step between numbered columns, so that about twenty are numbered."""
    step = 1
    while count / step > 25:
        step = {1: 2, 2: 5, 5: 10}.get(step, step * 2)
    return step
