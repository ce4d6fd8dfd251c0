"""Draw two folds in time: ``python docs/draw_timeline.py`` writes ``timeline.svg`` beside it.

A line per distance r + c from the first PE: what a PE at this distance does on each cycle. Times
follow from the recurrence in ``systolic/tiling/__init__.py``; ``tests/package/test_docs.py`` holds the
beats drawn here against the registers of the array.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from draw_array import ACTIVATION, CONTROL, EDGE, FONTS, INK, MUTED, PAPER, PSUM, TINT, WEIGHT, Drawing

ROWS, COLS = 3, 4
M = (5, 5)  # rows of x that the folds stream: the two k tiles of a 5 x 6 x 4 product
DRAIN = ROWS + COLS - 2

WIDTH, HEIGHT = 1260, 712
LEFT, TOP = 226, 166  # where cycle 0 begins, and the first line
BEAT, LINE = 52, 50  # a cycle and a line


class Beat(NamedTuple):
    """What a PE at `distance` from the first does on `cycle`: shift beat or row of x number `index`."""

    distance: int
    kind: str  # "shift" or "stream"
    fold: int
    index: int
    cycle: int


class Write(NamedTuple):
    """The sum of row m of x, written below column `col` on `cycle`."""

    col: int
    fold: int
    m: int
    cycle: int


def schedule() -> list[tuple[int, int]]:
    """Return each fold's (shift cycle, swap cycle) at the first PE."""
    times: list[tuple[int, int]] = []
    shift, free = 0, 0  # when the shadow registers and the stream are free
    for m in M:
        swap = max(shift + ROWS, free)
        times.append((shift, swap))
        shift, free = swap, swap + m
    return times


def beats() -> list[Beat]:
    """Return every beat of every line."""
    found = []
    for fold, ((shift, swap), m) in enumerate(zip(schedule(), M, strict=True)):
        for distance in range(DRAIN + 1):
            found += [Beat(distance, "shift", fold, i, shift + i + distance) for i in range(ROWS)]
            found += [Beat(distance, "stream", fold, i, swap + i + distance) for i in range(m)]
    return found


def writes() -> list[Write]:
    """Return every accumulator write, of all columns."""
    return [
        Write(c, fold, i, swap + i + ROWS + c)
        for fold, ((_, swap), m) in enumerate(zip(schedule(), M, strict=True))
        for c in range(COLS)
        for i in range(m)
    ]


def counted_cycles() -> int:
    """Return the cycles of the sequence."""
    return schedule()[-1][1] + M[-1] + DRAIN


def at(cycle: float) -> float:
    """Return where a cycle begins."""
    return LEFT + cycle * BEAT


def draw(d: Drawing) -> None:
    """Draw the whole picture."""
    cycles, lines = counted_cycles(), DRAIN + 1
    bottom = TOP + lines * LINE
    d.text(28, 40, "Two folds, double-buffered", size=22, anchor="start", bold=True)
    d.text(28, 63, f"{ROWS} × {COLS} PEs, {M[0]} rows of x in each fold", fill=MUTED, anchor="start")

    draw_grid(d, cycles, bottom)
    draw_terms(d)
    # A line per distance.
    for distance in range(lines):
        y = TOP + distance * LINE + LINE / 2
        name = f"r + c = {distance}"
        if distance == 0:
            name = "PE (0, 0):  " + name
        elif distance == DRAIN:
            name = f"PE ({ROWS - 1}, {COLS - 1}):  " + name
        d.text(LEFT - 14, y + 5, name, size=16, anchor="end")
    for beat in beats():
        x, y = at(beat.cycle) + BEAT / 2, TOP + beat.distance * LINE
        if beat.kind == "shift":
            d.chip(x, y + 13, f"s{prime(beat.fold)}|{beat.index}", WEIGHT, w=BEAT - 6, h=18)
        else:
            d.rect(
                x - BEAT / 2 + 1.5, y + 24, BEAT - 3, 22, fill=TINT[ACTIVATION],
                edge=CONTROL if beat.index == 0 else ACTIVATION, line=2.6 if beat.index == 0 else 1, radius=4,
            )  # fmt: skip
            d.text(x, y + 40, f"x{prime(beat.fold)}|{beat.index}", size=14, fill=ACTIVATION)

    draw_writes(d, bottom)
    draw_legend(d)


def prime(fold: int) -> str:
    """Return the mark of a fold's operands."""
    return "\N{PRIME}" * fold


def draw_grid(d: Drawing, cycles: int, bottom: float) -> None:
    """Draw the lines' background, the cycles' numbers and where counting ends."""
    low = bottom + 106
    for line in range(0, DRAIN + 1, 2):
        d.rect(at(0), TOP + line * LINE, (cycles + 1) * BEAT, LINE, fill=PAPER, radius=0)
    for cycle in range(cycles + 2):
        d.wire((at(cycle), TOP), (at(cycle), low), colour="#e3e7eb", head=False, line=1)
    for cycle in range(cycles + 1):
        d.text(at(cycle + 0.5), TOP - 9, str(cycle), size=15, fill=INK if cycle < cycles else EDGE)
    d.text(LEFT - 14, TOP - 9, "cycle", size=16, fill=MUTED, anchor="end")
    d.wire((at(cycles), TOP - 26), (at(cycles), low), colour=INK, head=False, line=1.6, dash="5 4")


def draw_terms(d: Drawing) -> None:
    """Draw the terms of the cycle formula, as brackets over the first line."""
    (_, first), (_, second) = schedule()
    terms = (
        (0, first, "fill: rows"),
        (first, second, "stream: max(m, rows)"),
        (second, second + M[1], "stream: m\N{PRIME}"),
        (second + M[1], counted_cycles(), "drain: rows + cols \N{MINUS SIGN} 2"),
    )
    for start, stop, name in terms:
        y = TOP - 36
        d.wire((at(start) + 3, y + 7), (at(start) + 3, y), (at(stop) - 3, y), (at(stop) - 3, y + 7),
               colour=MUTED, head=False, line=1.4)  # fmt: skip
        d.text((at(start) + at(stop)) / 2, y - 8, f"{name} = {stop - start}", size=16, fill=INK)
    x = at(counted_cycles()) - 3
    d.text(x, TOP - 76, f"{counted_cycles()} cycles are counted", size=16, anchor="end", bold=True)


def draw_writes(d: Drawing, bottom: float) -> None:
    """Draw what the accumulators take from the first and the last column."""
    for line, col in enumerate((0, COLS - 1)):
        y = bottom + 38 + line * 42
        name = "accumulators, column 0" if line == 0 else f"column {col}"
        d.text(LEFT - 14, y + 5, name, size=16, anchor="end", fill=PSUM)
        for write in writes():
            if write.col == col:
                x = at(write.cycle + 0.5)
                d.rect(x - BEAT / 2 + 1.5, y - 12, BEAT - 3, 24, fill=TINT[PSUM], edge=PSUM, line=1, radius=4)
                d.text(x, y + 5, f"{'+' if write.fold else ''}p{prime(write.fold)}|{write.m}{col}", size=14,
                       fill=PSUM)  # fmt: skip


def draw_legend(d: Drawing) -> None:
    """Say what the boxes are."""
    y = HEIGHT - 88
    d.rect(40, y - 9, 40, 18, fill=TINT[WEIGHT], edge=WEIGHT, line=1, radius=4)
    d.text(90, y + 5, "shift beat: the next tile moves one row down", size=16,
           anchor="start")  # fmt: skip
    d.rect(640, y - 11, 40, 22, fill=TINT[ACTIVATION], edge=ACTIVATION, line=1, radius=4)
    d.text(690, y + 5, "stream: a row of x is multiplied", size=16, anchor="start")
    y += 32
    d.rect(40, y - 10, 40, 20, fill=TINT[ACTIVATION], edge=CONTROL, line=2.6, radius=4)
    d.text(90, y + 5, "swap: the first row of x meets the new tile", size=16, anchor="start")
    d.rect(640, y - 11, 40, 22, fill=TINT[PSUM], edge=PSUM, line=1, radius=4)
    d.text(690, y + 5, "a psum is written, or added (+) to the sum of the k tile before", size=16,
           anchor="start")  # fmt: skip
    y += 36
    d.text(WIDTH / 2, y, "Every line is the line above, one cycle later. The last write follows the last "
           "counted cycle.", fill=MUTED)  # fmt: skip


def main() -> None:
    """Write ``timeline.svg`` beside this script."""
    d = Drawing()
    d.rect(0.5, 0.5, WIDTH - 1, HEIGHT - 1, fill="white", edge="#d5dae0", line=1, radius=16)
    draw(d)
    title = "Two folds in time: shift, swap, stream and drain on a 3 by 4 array"
    svg = "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
            f'height="{HEIGHT}" role="img" aria-label="{title}" font-family="{FONTS}">',
            f"<title>{title}</title>",
            *d.parts,
            "</svg>",
            "",
        ]
    )
    Path(__file__).with_name("timeline.svg").write_text(svg, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
