"""Drawings of plain arrays: the registers of a small array, one register as a wave.

Every function returns a new ``matplotlib.figure.Figure`` made without pyplot, so that nothing
needs a display and no list of open figures grows. Signed values are coloured on a diverging map
that colour-blind readers can tell apart (ColorBrewer's RdBu: blue below zero, red above), marks
from the palette of Okabe and Ito (2008), and every mark has a shape of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from io import BytesIO
from typing import Any

import numpy as np

from systolic._text import moment

_LARGEST = 16  # rows or cols of plot_registers
_MOST_PANELS = 32

_INK, _MUTED, _FAINT, _PAPER = "#1b1f24", "#6b737c", "#c9ced4", "#f6f7f9"
_EDGE = "#9aa3ad"
_SHIFT, _SWAP, _MARK = "#009e73", "#e69f00", "#cc79a7"
_STREAM, _DRAIN = "#0072b2", "#a9d0ea"

# Control bits: marker, its size, its colour.
_MARKS = (("v", 0.12, _SHIFT), ("D", 0.09, _SWAP))

# One PE fills a box inside a cell of side 1; the rest of the cell is for the arrows.
_BOX = 0.8
_GAP = 1 - _BOX
_PILL_WIDTH, _PILL_HEIGHT = 0.35, 0.21

# Width of a character of a number in units of its font size: a digit of DejaVu Sans is 0.64, a minus 0.84.
_EM = 0.69


def plot_registers(
    registers: Mapping[str, Any],
    *,
    parts: Sequence[Any],
    cycle: int,
    ax: Any = None,
    highlight: Iterable[tuple[int, int]] | None = None,
    limit: float | None = None,
    origin: tuple[int, int] = (0, 0),
) -> Any:
    """Draw every register of a small array: one box per PE, arrows where values move.

    Parameters
    ----------
    registers : mapping of str to ndarray, (rows, cols)
        At most 16 x 16.
    parts : sequence of Register
        The registers as :mod:`systolic.dataflows` describes them: each is drawn by its role.
    cycle : int
        Edges done, for the title.
    ax : matplotlib Axes, optional
        Where to draw; None makes a figure.
    highlight : iterable of (row, col), optional
        PEs to frame, counted like the labels (from `origin`).
    limit : float, optional
        Activation shown in full colour; None takes the largest magnitude present. Fix it to
        compare cycles.
    origin : (int, int)
        Row and column of the first PE, where `registers` is a window of a larger array.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If a register is missing, the shapes differ, the array is too large or empty, `limit` is
        not positive or `highlight` lies outside.
    ImportError
        If matplotlib is not installed.
    """
    values, rows, cols = _checked(registers, [part.name for part in parts])
    slots = _slots(parts)
    if limit is not None and not limit > 0:
        raise ValueError(f"limit must be above zero, or None for the largest activation, not {limit!r}")
    framed = _framed(highlight, rows, cols, origin)
    _matplotlib()
    width, height = cols + 2.6, max(rows + 0.1, 2.2) + 0.65
    if ax is None:
        pitch = 1.2 if max(rows, cols) <= 8 else 1.0
        figure, ax = new_figure(width * pitch, height * pitch)
        ax.set_position((0, 0, 1, 1))
    else:
        figure = ax.figure
    ax.set(xlim=(-0.55, width - 0.55), ylim=(height - 0.6, -0.6), aspect="equal")
    ax.axis("off")
    # Text is sized in points; the cell's side in points depends on the axes.
    box = ax.get_window_extent()
    point = min(box.width / width, box.height / height) * 72 / figure.dpi

    title = moment(cycle)
    size = min(0.17, (width - 0.65) / (_EM * len(title))) * point
    ax.text(_GAP / 2, -0.42, title, ha="left", va="center", weight="bold", size=size, color=_INK)
    label = {"ha": "center", "va": "center", "size": 0.1 * point, "color": _MUTED}
    for r in range(rows):
        ax.text(-0.28, r + 0.5, f"row {r + origin[0]}", rotation=90, **label)
    for c in range(cols):
        ax.text(c + 0.5, -0.12, f"col {c + origin[1]}", **label)

    moving = values[slots["west operand"]]
    full = _largest(moving) if limit is None else float(limit)
    # One size for all PEs, such that the longest number fits.
    room = {
        "sum": (0.12, (_BOX - 0.12) / _EM),
        "north operand": (0.155, (_BOX - _PILL_WIDTH - 0.06) / (1.1 * _EM)),
        "west operand": (0.115, (_PILL_WIDTH - 0.04) / _EM),
        "shadow": (0.095, (_BOX - 0.46) / _EM),
    }
    sizes = {
        role: min(most, wide / _longest(values[slots[role]])) * point
        for role, (most, wide) in room.items()
        if role in slots
    }
    colours = _colours()
    marks = _marks(parts)
    for r, c in np.ndindex(rows, cols):
        here: dict[str, Any] = {name: _number(value[r, c]) for name, value in values.items()}
        here |= {name: bool(values[name][r, c]) for name in marks}
        colour = colours(0.5 + 0.5 * float(np.clip(moving[r, c] / full, -1, 1)))
        _draw_pe(ax, c + 0.5, r + 0.5, point, here, colour, sizes, slots, marks, framed=(r, c) in framed)
    _draw_arrows(ax, values, parts, point)
    _draw_key(ax, cols + 0.65, point, parts, slots)
    return figure


def plot_wave(
    frames: Iterable[tuple[int, Any]], *, register: str = "register", cycles: Iterable[int] | None = None
) -> Any:
    """Draw one register at successive cycles side by side: data moves through as a diagonal wave.

    Parameters
    ----------
    frames : iterable of (int, ndarray)
        Cycle and the register's values then, all of one shape (rows, cols).
    register : str
        Its name, for the title.
    cycles : iterable of int, optional
        Which cycles to draw, at most 32; None draws every frame.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If there is nothing to draw, a cycle is missing, the shapes differ, or there are too many.
    ImportError
        If matplotlib is not installed.
    """
    chosen = [(int(cycle), np.asarray(value)) for cycle, value in frames]
    if cycles is not None:
        known = dict(chosen)
        wanted = [int(cycle) for cycle in cycles]
        missing = [cycle for cycle in wanted if cycle not in known]
        if missing:
            raise ValueError(f"cycles must be among the frames', {sorted(known)}, but {missing} are not")
        chosen = [(cycle, known[cycle]) for cycle in wanted]
    if not 1 <= len(chosen) <= _MOST_PANELS:
        raise ValueError(
            f"plot_wave draws 1 to {_MOST_PANELS} frames, not {len(chosen)}; choose with cycles="
        )
    shapes = sorted({value.shape for _, value in chosen})
    if len(shapes) > 1 or len(shapes[0]) != 2 or 0 in shapes[0]:
        raise ValueError(f"frames must all have one shape (rows, cols), not {', '.join(map(str, shapes))}")
    _matplotlib()
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    rows, cols = shapes[0]
    count = len(chosen)
    across = min(count, 8 if rows > cols else 6)
    down = -(-count // across)
    full = max(_largest(value) for _, value in chosen)
    norm, colours = Normalize(-full, full), _colours()
    longest = max(_longest(value) for _, value in chosen)

    # Panels of equal scale, laid out in inches so that numbers in them keep their size.
    cell = min(0.42, 2.2 / max(rows, cols))
    if longest > 4:
        cell = min(0.62, 3.0 / max(rows, cols))
    cell = max(cell, 1.0 / max(rows, cols))
    panel_width, panel_height = cell * cols, cell * rows
    left, right, top, bottom, between = 0.35, 0.95, 0.75, 0.25, 0.45
    # The colour bar and the title need room even beside one tiny panel.
    width = max(left + across * panel_width + (across - 1) * 0.25 + right, 3.0)
    height = max(top + down * panel_height + (down - 1) * between + bottom, 2.0)
    figure, first = new_figure(width, height)
    first.remove()
    figure.suptitle(
        f"{register} after the edge of each cycle", x=left / width, y=1 - 0.22 / height, ha="left",
        va="center", size=11, weight="bold", color=_INK,
    )  # fmt: skip
    for i, (cycle, value) in enumerate(chosen):
        x = left + i % across * (panel_width + 0.25)
        y = height - top - panel_height - i // across * (panel_height + between)
        ax = figure.add_axes((x / width, y / height, panel_width / width, panel_height / height))
        ax.imshow(value.astype(float), cmap=colours, norm=norm, interpolation="nearest", aspect="auto")
        ax.set_title(f"cycle {cycle:,}", size=8.5, color=_INK, pad=4)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_color(_FAINT)
        if cell >= 0.24:  # else too small for numbers: colour alone
            _write_cells(ax, value, min(8.5, cell * 72 * 0.86 / (_EM * longest)), colours, norm)
    bar_height = min(height - top - bottom, 2.2)
    bar = figure.add_axes(
        (1 - (right - 0.2) / width, (height - top - bar_height) / height, 0.12 / width, bar_height / height)
    )
    made = figure.colorbar(ScalarMappable(norm, colours), cax=bar)
    made.outline.set_edgecolor(_FAINT)  # type: ignore[operator]
    made.set_ticks([-full, 0, full], labels=[_number(-full), "0", _number(full)])
    bar.tick_params(labelsize=8, color=_FAINT, labelcolor=_INK)
    return figure


def _write_cells(ax: Any, values: np.ndarray, size: float, colours: Any, norm: Any) -> None:
    """Write the numbers into the cells of an image, and draw lines between them."""
    rows, cols = values.shape
    ax.set_xticks(np.arange(cols - 1) + 0.5, minor=True)
    ax.set_yticks(np.arange(rows - 1) + 0.5, minor=True)
    ax.grid(which="minor", color=_FAINT, linewidth=0.5)
    ax.tick_params(which="minor", length=0)
    for (r, c), v in np.ndenumerate(values):
        ink = _MUTED if v == 0 else _ink_on(colours(norm(float(v))))
        ax.text(c, r, _number(v), ha="center", va="center", size=size, color=ink)


def _matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError('drawing needs matplotlib: pip install "systolic[plot]"') from error


def new_figure(width: float, height: float) -> tuple[Any, Any]:
    """Return a Figure of that many inches, unknown to pyplot, and its Axes."""
    _matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white")
    # Notebooks show figures through a hook that only pyplot installs; this one brings its own.
    figure._repr_png_ = partial(_png, figure)  # type: ignore[attr-defined]
    return figure, figure.add_subplot()


def _png(figure: Any) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _slots(parts: Sequence[Any]) -> dict[str, str]:
    """Return the register drawn in each place of a PE, by role."""
    return {part.role: part.name for part in parts if part.role != "control"}


def _marks(parts: Sequence[Any]) -> list[str]:
    """Return the control bits in the order of their marks: a swap is the second, whatever the first is."""
    return sorted((part.name for part in parts if part.role == "control"), key=lambda name: name == "swap")


def _checked(
    registers: Mapping[str, Any], names: Sequence[str], most: int = _LARGEST
) -> tuple[dict[str, np.ndarray], int, int]:
    missing = [name for name in names if name not in registers]
    if missing:
        raise ValueError(f"registers must hold {', '.join(names)}; {', '.join(missing)} missing")
    values = {name: np.asarray(registers[name]) for name in names}
    shapes = {name: value.shape for name, value in values.items()}
    shape = shapes[names[0]]
    if len(shape) != 2 or 0 in shape or len(set(shapes.values())) > 1:
        raise ValueError(f"registers must all have one shape (rows, cols), not {shapes}")
    rows, cols = shape
    if max(shape) > most:
        raise ValueError(
            f"plot_registers draws at most {most} x {most} PEs, not {rows} x {cols}; pass a window, "
            f"such as {{name: value[:8, :8] for name, value in registers.items()}}"
        )
    return values, rows, cols


def _framed(
    highlight: Iterable[tuple[int, int]] | None, rows: int, cols: int, origin: tuple[int, int]
) -> set[tuple[int, int]]:
    named = [(int(r), int(c)) for r, c in highlight or ()]
    framed = {(r - origin[0], c - origin[1]) for r, c in named}
    if any(not (0 <= r < rows and 0 <= c < cols) for r, c in framed):
        raise ValueError(
            f"highlight must name PEs drawn, rows {origin[0]}..{origin[0] + rows - 1} and "
            f"cols {origin[1]}..{origin[1] + cols - 1}, not {named}"
        )
    return framed


@cache
def _colours() -> Any:
    """Return RdBu reversed, without its darkest ends, on which black and white text read equally badly."""
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("signed", colormaps["RdBu_r"](np.linspace(0.1, 0.9, 65)), N=257)


def _ink_on(colour: Sequence[float]) -> str:
    """Return the text colour that reads on a background."""
    red, green, blue = colour[:3]
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.55 else _INK


def _largest(values: np.ndarray) -> float:
    # The end of a color scale; infinities and NaN lie beyond it.
    sizes = np.abs(values.astype(float))
    return max(1.0, float(sizes[np.isfinite(sizes)].max(initial=0)))


def _number(value: Any) -> str:
    number: Any = int(value) if isinstance(value, int | np.integer | np.bool_) else float(value)
    short = isinstance(number, float) and not (number.is_integer() and abs(number) < 1e6)
    text = f"{number:.3g}" if short else str(int(number))
    return text.replace("-", "−")


def _longest(value: np.ndarray) -> int:
    return max(len(_number(v)) for v in value.flat)


def _draw_pe(
    ax: Any, x: float, y: float, point: float, here: Mapping[str, Any], colour: Any,
    sizes: Mapping[str, float], slots: Mapping[str, str], marks: Sequence[str], *, framed: bool = False,
) -> None:  # fmt: skip
    """Draw one PE around (x, y): control and shadow operand above, operands in the middle, the sum below.

    `here` holds its registers as text (control bits, `marks`, as truth values), `colour` is that of the
    west operand, `sizes` are those of text by role, `slots` names the register of each role, `point` is
    the length of a cell, in points.
    """
    from matplotlib.patches import FancyBboxPatch

    def box(left: float, top: float, width: float, height: float, **how: Any) -> None:
        style = "round,pad=0,rounding_size=0.06"
        ax.add_patch(FancyBboxPatch((left, top), width, height, boxstyle=style, **how))

    def write(at: float, height: float, role: str, size: float, **how: Any) -> None:
        if role in slots:
            how = {"ha": "center", "va": "center_baseline", "color": _INK, "zorder": 4, **how}
            ax.text(at, height, here[slots[role]], size=size, gid=slots[role], **how)

    left, control, middle = x - _BOX / 2, y - 0.265, y - 0.02
    edge, line = (_MARK, 0.035) if framed else (_EDGE, 0.012)
    box(left, y - _BOX / 2, _BOX, _BOX, facecolor=_PAPER, edgecolor=edge, linewidth=line * point, zorder=2)
    for i, name in enumerate(marks):
        if here[name]:
            marker, size, ink = _MARKS[i % len(_MARKS)]
            ax.scatter(
                left + 0.1 + 0.15 * i, control, marker=marker, s=(size * point) ** 2, color=ink,
                linewidth=0, zorder=4,
            )  # fmt: skip
    write(x + _BOX / 2 - 0.06, control, "shadow", sizes.get("shadow", 0.0), ha="right", color=_MUTED)
    box(left, middle - _PILL_HEIGHT / 2, _PILL_WIDTH, _PILL_HEIGHT,
        facecolor=colour, edgecolor=_EDGE, linewidth=0.008 * point, zorder=3)  # fmt: skip
    write(left + _PILL_WIDTH / 2, middle, "west operand", sizes["west operand"], color=_ink_on(colour))
    write(left + (_PILL_WIDTH + _BOX) / 2, middle, "north operand", sizes["north operand"], weight="bold")
    ax.plot(
        [left + 0.06, left + _BOX - 0.06], [y + 0.135] * 2, color=_FAINT, linewidth=0.01 * point, zorder=3
    )
    write(x, y + 0.25, "sum", sizes["sum"])
    write(x + 0.08, y + 0.5, "pass", 0.085 * point, ha="left", color=_MUTED)


def _draw_arrows(ax: Any, values: Mapping[str, np.ndarray], parts: Sequence[Any], point: float) -> None:
    """Draw what moves on the next edge, operands to the right and sums down; dark where not zero."""
    from matplotlib.collections import LineCollection

    right = [values[part.name] for part in parts if part.role == "west operand" and part.moves == "right"]
    sinking = [part for part in parts if part.role in ("sum", "north operand") and part.moves == "down"]
    down = [values[part.name] for part in sinking]
    rows, cols = values[parts[0].name].shape
    end, length = _GAP / 2 - 0.06, _GAP - 0.09
    places = list(np.ndindex(rows, cols))
    # The first arrow of a row comes from outside.
    heads = [(c + end, r + 0.48, ">", c > 0 and any(value[r, c - 1] for value in right)) for r, c in places]
    heads += [(c + 0.5, r + 1 + end, "v", any(value[r, c] for value in down)) for r, c in places]
    lines = [[(x - length * (kind == ">"), y - length * (kind == "v")), (x, y)] for x, y, kind, _ in heads]
    colours = [_INK if moves else _FAINT for *_, moves in heads]
    ax.add_collection(
        LineCollection(lines, colors=colours, linewidths=0.016 * point, zorder=1), autolim=False
    )
    for marker in ">v":
        chosen = [(x, y, ink) for (x, y, kind, _), ink in zip(heads, colours, strict=True) if kind == marker]
        xs, ys, inks = zip(*chosen, strict=True)
        ax.scatter(xs, ys, marker=marker, s=(0.065 * point) ** 2, c=inks, linewidth=0, zorder=1)


def _draw_key(ax: Any, x: float, point: float, parts: Sequence[Any], slots: Mapping[str, str]) -> None:
    """Draw the legend: a PE of letters around (x, 0.5), and below it what they stand for."""
    marks = _marks(parts)
    order = ("west operand", "north operand", "shadow", "pass", "sum", "control")
    letters = {name: _LETTERS[role] for role, name in slots.items()}
    sizes = dict.fromkeys(slots, 0.13 * point) | {"shadow": 0.095 * point}
    here = {**letters, **dict.fromkeys(marks, True)}
    _draw_pe(ax, x, 0.5, point, here, _colours()(0.75), sizes, slots, marks)
    left = x - _BOX / 2 + 0.06
    for i, part in enumerate(sorted(parts, key=lambda part: order.index(part.role))):
        y = 1.2 + 0.15 * i
        text = part.name
        if part.name in marks:
            marker, size, colour = _MARKS[marks.index(part.name) % len(_MARKS)]
            ax.scatter(left, y, marker=marker, s=(0.8 * size * point) ** 2, color=colour, linewidth=0)
        else:
            weight = "bold" if part.role == "north operand" else "normal"
            ax.text(left, y, letters[part.name], ha="center", va="center_baseline", size=0.1 * point,
                    color=_INK, weight=weight)  # fmt: skip
            waits = " (finished)" if part.holds == "sum" else " (shadow)"
            text += f", moves {part.moves}" if part.moves else waits if part.role == "shadow" else ""
        ax.text(left + 0.15, y, text, ha="left", va="center_baseline", size=0.095 * point, color=_MUTED)


# A PE of letters, by role.
_LETTERS = {"west operand": "a", "north operand": "w", "shadow": "n", "pass": "d", "sum": "p"}
