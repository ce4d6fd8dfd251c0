"""The registers of an array of any size: its PEs if they are few, else heat maps; or a window of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from systolic._show.draw import (
    _EM,
    _FAINT,
    _INK,
    _LARGEST,
    _MARK,
    _MUTED,
    _SWAP,
    _checked,
    _colours,
    _framed,
    _largest,
    _longest,
    _number,
    _write_cells,
    new_figure,
    plot_registers,
)
from systolic._text import moment

_MOST = 256  # rows or columns of a heat map
_BAR = 0.13  # inches, a color bar's width
_NO_NUMBER = "#7a828b"  # cells of NaN and of infinities


def plot_array(
    registers: Mapping[str, Any],
    *,
    parts: Sequence[Any],
    cycle: int,
    register: str | None = None,
    rows: slice | range | None = None,
    cols: slice | range | None = None,
    highlight: Iterable[tuple[int, int]] | None = None,
    limit: float | None = None,
    ax: Any = None,
) -> Any:
    """Draw an array, or a window of it: see ``SystolicArray.plot``, which passes all of these.

    Parameters
    ----------
    registers : mapping of str to ndarray, (rows, cols)
    parts : sequence of Register
        As for :func:`plot_registers`.
    cycle : int
        Edges done, for the title.
    register, rows, cols, highlight, limit, ax
        See ``SystolicArray.plot``.

    Returns
    -------
    matplotlib.figure.Figure
    """
    names = [part.name for part in parts]
    if register is not None and register not in (*names, "all"):
        raise ValueError(f"register must be one of {', '.join(names)}, or 'all', not {register!r}")
    size = np.shape(registers[names[0]])
    shown = _window(rows, "rows", size[0]), _window(cols, "cols", size[1])
    top, left = (chosen.start for chosen in shown)
    values = {name: registers[name][top : shown[0].stop, left : shown[1].stop] for name in names}
    height, width = map(len, shown)
    if register is None and max(height, width) <= _LARGEST:
        return plot_registers(
            values, parts=parts, cycle=cycle, ax=ax, highlight=highlight, limit=limit, origin=(top, left)
        )
    if max(height, width) > _MOST:
        raise ValueError(
            f"plot draws at most {_MOST} x {_MOST} PEs, not {height} x {width}; choose a window, such as "
            f"rows=slice(0, {_MOST}), cols=slice(0, {_MOST})"
        )
    if register is None:
        register = next(part.name for part in parts if part.role == "sum")
    chosen = names if register == "all" else [register]
    return plot_heat(
        {name: values[name] for name in chosen},
        cycle=cycle, origin=(top, left), highlight=highlight, limit=limit, ax=ax,
    )  # fmt: skip


def plot_heat(
    registers: Mapping[str, Any],
    *,
    cycle: int,
    origin: tuple[int, int] = (0, 0),
    highlight: Iterable[tuple[int, int]] | None = None,
    limit: float | None = None,
    ax: Any = None,
) -> Any:
    """Draw registers as heat maps, each with its color scale; up to 16 x 16 with the numbers.

    Parameters
    ----------
    registers : mapping of str to ndarray, (rows, cols)
        One fills the figure; several are small multiples.
    cycle : int
        Edges done, for the title.
    origin : (int, int)
        Row and column of the first PE.
    highlight : iterable of (row, col), optional
        PEs to frame, counted from the array's first.
    limit : float, optional
        Magnitude shown in full color; None takes the largest present in each register.
    ax : matplotlib Axes, optional
        Where to draw a single register; None makes a figure.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If `limit` is not positive, `highlight` lies outside, or `ax` is given for several registers.
    ImportError
        If matplotlib is not installed.
    """
    values, rows, cols = _checked(registers, list(registers), most=_MOST)
    if limit is not None and not limit > 0:
        raise ValueError(f"limit must be above zero, or None for the largest value, not {limit!r}")
    if ax is not None and len(values) > 1:
        raise ValueError("ax takes one register: choose it by name, or leave ax out")
    framed = _framed(highlight, rows, cols, origin)
    if ax is not None:
        (name,) = values
        draw_heat(ax, values[name], origin, limit, framed, size=7)
        _title(ax, f"{name} {moment(cycle)}")
        return ax.figure
    # All in inches, so that cells stay square and nothing overlaps.
    several = len(values) > 1
    longest = 2.4 if several else min(max(4.2, 0.02 * max(rows, cols)), 5.4)
    cell = min(longest / max(rows, cols), 0.8)
    wide, high = max(cell * cols, 0.5), max(cell * rows, 0.9)
    left, right, top, bottom, between = 0.6, 0.9, 0.85 if several else 0.6, 0.6, 0.72
    across = min(len(values), max(1, int(12 // (wide + left + right))))
    down = -(-len(values) // across)
    title = moment(cycle) if several else f"{next(iter(values))} {moment(cycle)}"
    width = max(across * (left + wide + right), 0.115 * len(title) + 0.3)
    height = top + down * high + (down - 1) * between + bottom
    figure, first = new_figure(width, height)
    first.remove()
    figure.text(
        0.2 / width, 1 - 0.26 / height, title, ha="left", va="center", size=11, weight="bold", color=_INK
    )
    for number, (name, value) in enumerate(values.items()):
        x = left + number % across * (left + wide + right)
        y = height - top - high - number // across * (high + between)
        panel = figure.add_axes((x / width, y / height, wide / width, high / height))
        bar = figure.add_axes(((x + wide + 0.12) / width, y / height, _BAR / width, high / height))
        room = 72 * 0.86 * wide / cols / (_EM * _longest(value)) if max(rows, cols) <= _LARGEST else 0
        draw_heat(panel, value, origin, limit, framed, bar=bar, size=min(8.5, room))
        if several:
            _title(panel, name)
    return figure


def draw_heat(
    ax: Any,
    values: np.ndarray,
    origin: tuple[int, int] = (0, 0),
    limit: float | None = None,
    framed: Iterable[tuple[int, int]] = (),
    *,
    bar: Any = None,
    size: float = 0,
) -> Any:
    """Draw one register on axes, with its color scale on the axes `bar` or beside it; return the image.

    Numbers of `size` points go into the cells of at most 16 x 16, unless `size` is below 4.
    """
    from matplotlib.colors import ListedColormap, Normalize
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    rows, cols = values.shape
    shown = values.astype(float)
    if is_bits := values.dtype == bool:
        colours, norm = ListedColormap([_FAINT, _SWAP]), Normalize(0, 1)
    else:
        full = _largest(values) if limit is None else float(limit)
        colours, norm = _colours().with_extremes(bad=_NO_NUMBER), Normalize(-full, full)
    image = ax.imshow(
        shown, cmap=colours, norm=norm, interpolation="nearest", aspect="auto" if bar else "equal"
    )
    if size >= 4 and max(rows, cols) <= _LARGEST:
        _write_cells(ax, values, size, colours, norm)
    # As many labels as have room.
    box = ax.get_window_extent().transformed(ax.figure.dpi_scale_trans.inverted())
    axes = (ax.yaxis, origin[0], "row", box.height / 0.3), (ax.xaxis, origin[1], "col", box.width / 0.4)
    for axis, start, label, most in axes:
        axis.set_major_locator(MaxNLocator(min(max(int(most), 1), 8), integer=True, min_n_ticks=1))
        axis.set_major_formatter(FuncFormatter(lambda at, _, start=start: f"{at + start:.0f}"))
        axis.set_label_text(label, size=8.5, color=_MUTED)
    ax.set(xlim=(-0.5, cols - 0.5), ylim=(rows - 0.5, -0.5))
    ax.tick_params(labelsize=8, colors=_INK, length=2)
    ax.spines[:].set_color(_FAINT)
    for r, c in framed:
        ax.add_patch(Rectangle((c - 0.5, r - 0.5), 1, 1, fill=False, edgecolor=_MARK, linewidth=1.6))
    scale = ax.figure.colorbar(image, **({"ax": ax} if bar is None else {"cax": bar}))
    scale.outline.set_edgecolor(_FAINT)
    if is_bits:
        scale.set_ticks([0.25, 0.75], labels=["0", "1"])
    else:
        scale.set_ticks([-full, 0, full], labels=[_number(-full), "0", _number(full)])
    scale.ax.tick_params(labelsize=8, color=_FAINT, labelcolor=_INK, length=2)
    if not np.isfinite(shown).all():
        scale.ax.set_xlabel("gray: NaN\nor infinite", size=7, color=_MUTED)
    return image


def _title(ax: Any, text: str) -> None:
    ax.set_title(text, loc="left", size=10, weight="bold", color=_INK)


def _window(chosen: slice | range | None, name: str, size: int) -> range:
    """Return which rows or columns to draw."""
    if chosen is None:
        return range(size)
    if not isinstance(chosen, slice | range):
        raise TypeError(
            f"{name} must be a slice or a range, such as slice(0, 8), not {type(chosen).__name__}"
        )
    try:
        found = chosen if isinstance(chosen, range) else range(size)[chosen]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a slice of integers, not {chosen}") from error
    if len(found) == 0 or found.step != 1 or found.start < 0 or found.stop > size:
        raise ValueError(
            f"{name} must be a window of the {size} {name} of the array in steps of 1, and hold at least "
            f"one, not {chosen}"
        )
    return found
