"""Draw three dataflows side by side: ``python docs/draw_dataflows.py`` writes ``dataflows.svg`` beside it.

The same product on 3 x 3 PEs: which operand stays in PE (r, c), what enters on the left and above, and what
leaves below, each with its index in x (m, k), w (k, n) or y (m, n).
"""

from __future__ import annotations

from pathlib import Path

from draw_array import ACTIVATION, EDGE, INK, MUTED, PAPER, PSUM, TINT, WEIGHT, Drawing

SIDE = 3
WIDTH, HEIGHT = 1260, 600
PE, PITCH = 56, 76
TOP = 212  # of PE (0, 0)
PANEL = WIDTH // 3
COLOURS = {"x": ACTIVATION, "w": WEIGHT, "y": PSUM}


def panel(
    d: Drawing, number: int, name: str, held: str, west: str, north: str, south: str, lines: str
) -> None:
    """Draw one dataflow: texts such as "wkn" are an operand and which of r, c, t its two indices are."""
    left = number * PANEL + 190
    right, bottom = left + (SIDE - 1) * PITCH + PE, TOP + (SIDE - 1) * PITCH + PE
    d.text(number * PANEL + 28, 40, name, size=21, anchor="start", bold=True)
    for i, line in enumerate(lines.split("\n")):
        d.text(number * PANEL + 28, 66 + 21 * i, line, size=16, fill=MUTED, anchor="start")

    def label(what: str, **at: int) -> str:
        return f"{what[0]}|{at[what[1]]}{at[what[2]]}"

    for r in range(SIDE):
        y = TOP + r * PITCH + PE / 2
        for t in range(SIDE):
            d.chip(left - 38 - (t + r) * 29, y, label(west, r=r, t=t), COLOURS[west[0]], w=28)
        d.wire((left - 20, y), (left - 1, y), colour=COLOURS[west[0]])
    for c in range(SIDE):
        x = left + c * PITCH + PE / 2
        if north:
            for t in range(SIDE):
                d.chip(x, TOP - 30 - (t + c) * 17, label(north, c=c, t=t), COLOURS[north[0]], w=28, h=16)
            d.wire((x, TOP - 19), (x, TOP - 1), colour=COLOURS[north[0]])
        for t in range(SIDE):
            # The sums of an output-stationary array leave last row first.
            first = SIDE - 1 - t if held[0] == "y" else t
            y = bottom + 34 + (2 * SIDE - 2 - first - c) * 18
            d.chip(x, y, label(south, c=c, t=t), PSUM, w=28, h=17)
        d.wire((x, bottom), (x, bottom + 22), colour=PSUM)
    for r in range(SIDE):
        for c in range(SIDE):
            x, y = left + c * PITCH, TOP + r * PITCH
            colour = COLOURS[held[0]]
            d.rect(x, y, PE, PE, fill=PAPER, edge=EDGE, line=1.4, radius=8)
            d.rect(x + 8, y + 11, 40, 34, fill=TINT[colour], edge=colour, line=1.6, radius=4)
            d.text(x + PE / 2, y + 33, label(held, r=r, c=c), size=17, fill=INK, bold=True)
            if c < SIDE - 1:
                d.wire((x + PE, y + PE / 2), (x + PITCH - 1, y + PE / 2), colour=COLOURS[west[0]])
            if r < SIDE - 1:
                down = COLOURS[north[0]] if north else PSUM
                d.wire((x + PE / 2, y + PE), (x + PE / 2, y + PITCH - 1), colour=down)
    if number:
        d.wire((number * PANEL, 28), (number * PANEL, HEIGHT - 56), colour="#e3e7eb", head=False, line=1)
    assert right < (number + 1) * PANEL


def main() -> None:
    """Write ``dataflows.svg`` beside this script."""
    d = Drawing()
    d.rect(0.5, 0.5, WIDTH - 1, HEIGHT - 1, fill="white", edge="#d5dae0", line=1, radius=16)
    panel(d, 0, "Weight stationary", "wrc", "xtr", "", "ytc",
          "rows take k, columns take n\nrows of x stream, psums move down")  # fmt: skip
    panel(d, 1, "Output stationary", "yrc", "xrt", "wtc", "ytc",
          "rows take m, columns take n\nk streams, finished sums move down")  # fmt: skip
    panel(d, 2, "Input stationary", "xcr", "wrt", "", "yct",
          "rows take k, columns take m\ncolumns of w stream, psums move down")  # fmt: skip
    d.text(
        WIDTH / 2, HEIGHT - 22, fill=MUTED,
        text="x is (m, k), w is (k, n), y = x · w is (m, n). What enters first stands nearest to the array; "
        "what leaves first stands lowest.",
    )  # fmt: skip
    svg = d.svg("Three dataflows: which operand stays in the PEs, and which move", WIDTH, HEIGHT)
    Path(__file__).with_name("dataflows.svg").write_text(svg, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
