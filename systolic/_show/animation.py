"""Animations of plain arrays: the registers of an array, cycle by cycle, as a GIF or an MP4."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from systolic._files import folder_of, path_text
from systolic._show.draw import _LARGEST, _largest, new_figure, plot_registers
from systolic._show.registers import draw_heat
from systolic._text import moment

_MOST_FRAMES = 1001
_SUFFIXES = {".gif": "pillow", ".mp4": "ffmpeg"}

Frames = Callable[[], Iterable[tuple[int, Mapping[str, np.ndarray]]]]
"""Cycles and their registers, from the first on each time that it is called."""


def write_animation(
    path: str | os.PathLike[str], frames: Frames, count: int, *, parts: Sequence[Any], register: str | None,
    frames_per_second: float,
) -> None:  # fmt: skip
    """Write one image for each cycle.

    Parameters
    ----------
    path : path
        Ends in .gif or .mp4.
    frames : callable
        See :data:`Frames`.
    count : int
        How many there are.
    parts : sequence of Register
        As for :func:`plot_registers`.
    register : str, optional
        Draw this one as a heat map; None: all registers of a small array, the sums of a larger one.
    frames_per_second : float

    Raises
    ------
    ValueError
        If an argument is wrong, or ffmpeg is missing for an MP4.
    ImportError
        If matplotlib is missing.
    """
    target = Path(path_text(path))
    writer_name = _SUFFIXES.get(target.suffix.lower())
    if writer_name is None:
        raise ValueError(f"an animation is a .gif or an .mp4, not {target.name!r}")
    if count > _MOST_FRAMES:
        raise ValueError(
            f"an animation shows at most {_MOST_FRAMES - 1:,} cycles, not {count - 1:,}; pass fewer"
        )
    if not (isinstance(frames_per_second, int | float) and 0 < frames_per_second <= 50):
        raise ValueError(f"frames_per_second must be above 0 and at most 50, not {frames_per_second!r}")
    names = [part.name for part in parts]
    if register is not None and register not in names:
        raise ValueError(f"register must be one of {', '.join(names)}, not {register!r}")
    folder_of(target)
    new_figure(1, 1)  # or say that matplotlib is missing
    from matplotlib.animation import writers

    if not writers.is_available(writer_name):
        raise ValueError(f"{target.suffix} needs {writer_name}, which is not installed; a .gif does not")
    _, first = next(iter(frames()))
    if register is None and max(first[names[0]].shape) > _LARGEST:
        register = next(part.name for part in parts if part.role == "sum")
    drawn = register or next(part.name for part in parts if part.role == "west operand")
    # One scale for all.
    full = max(_largest(registers[drawn]) for _, registers in frames())
    figure, draw = _boxes(first, parts, full) if register is None else _heat(first[register], register, full)
    writer = writers[writer_name](fps=frames_per_second)  # type: ignore[arg-type]
    temporary = target.with_name(f"{target.stem[:40]}.{os.urandom(8).hex()}{target.suffix}")
    try:
        with writer.saving(figure, os.fspath(temporary), 100):
            for cycle, registers in frames():
                draw(cycle, registers)
                writer.grab_frame()
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


Draw = Callable[[int, Mapping[str, np.ndarray]], None]
"""Draws the registers of a cycle in place of those before."""


def _boxes(first: Mapping[str, np.ndarray], parts: Sequence[Any], full: float) -> tuple[Any, Draw]:
    """Return a figure for all registers, and what draws them."""
    figure = plot_registers(first, parts=parts, cycle=0, limit=full)
    ax = figure.axes[0]

    def draw(cycle: int, registers: Mapping[str, np.ndarray]) -> None:
        ax.clear()
        plot_registers(registers, parts=parts, cycle=cycle, limit=full, ax=ax)

    return figure, draw


def _heat(first: np.ndarray, register: str, full: float) -> tuple[Any, Draw]:
    """Return a figure for one register, and what draws it."""
    rows, cols = first.shape
    side = 4 / max(rows, cols)
    figure, ax = new_figure(max(cols * side + 1.9, 4.6), rows * side + 1.1)
    image = draw_heat(ax, first, limit=full)
    # The layout of the longest title stays.
    ax.set_title(f"{register} {moment(_MOST_FRAMES)}", loc="left", size=11, weight="bold")
    figure.set_layout_engine("tight")
    figure.draw_without_rendering()
    figure.set_layout_engine("none")

    def draw(cycle: int, registers: Mapping[str, np.ndarray]) -> None:
        image.set_data(registers[register].astype(float))
        ax.set_title(f"{register} {moment(cycle)}", loc="left", size=11, weight="bold")

    return figure, draw
