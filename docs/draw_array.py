"""Draw how the array works, for the README: ``python docs/draw_array.py`` writes ``array.svg`` beside it.

Left, a 3 x 4 array with the skewed activations and weights on their way in; right, one PE with its
seven registers. The drawing follows the five rules on the first page of ``systolic/_core.pyx``.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

ROWS, COLS, M = 3, 4, 3

# Okabe and Ito's palette, as in the plots: colour-blind readers can tell these apart.
ACTIVATION, WEIGHT, PSUM, CONTROL = "#0072b2", "#00805d", "#c2500a", "#9a6a00"
TINT = {ACTIVATION: "#e3f0f9", WEIGHT: "#dff3ec", PSUM: "#fbe9dd", CONTROL: "#fdf1d6"}
INK, MUTED, EDGE, PAPER = "#1b1f24", "#59626c", "#9aa3ad", "#f6f7f9"

FONTS = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif"

WIDTH, HEIGHT = 1260, 740
PE, PITCH = 70, 96  # side of a PE and distance between PEs
LEFT, TOP = 236, 246  # corner of PE (0, 0)


class Drawing:
    """SVG elements in the order they are painted."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def rect(self, x: float, y: float, w: float, h: float, *, fill: str, edge: str = "none",
             line: float = 1.2, radius: float = 5, dash: str = "") -> None:  # fmt: skip
        extra = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="{radius:g}" fill="{fill}" '
            f'stroke="{edge}" stroke-width="{line:g}"{extra}/>'
        )

    def text(self, x: float, y: float, text: str, *, size: float = 17, fill: str = INK,
             anchor: str = "middle", bold: bool = False) -> None:  # fmt: skip
        """Write text with its baseline at y; ``a|12`` sets 12 as a subscript."""
        word, _, low = text.partition("|")
        content = escape(word)
        if low:
            content += f'<tspan font-size="{0.72 * size:.3g}" dy="{0.22 * size:.3g}">{escape(low)}</tspan>'
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" fill="{fill}" '
            f'text-anchor="{anchor}"{weight}>{content}</text>'
        )

    def wire(self, *points: tuple[float, float], colour: str, head: bool = True, line: float = 1.8,
             dash: str = "") -> None:  # fmt: skip
        path = "M" + " L".join(f"{x:g} {y:g}" for x, y in points)
        extra = f' marker-end="url(#{colour[1:]})"' if head else ""
        extra += f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(
            f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{line:g}" '
            f'stroke-linejoin="round"{extra}/>'
        )

    def dot(self, x: float, y: float, colour: str) -> None:
        self.parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="3.4" fill="{colour}"/>')

    def chip(self, x: float, y: float, text: str, colour: str, w: float = 30, h: float = 22) -> None:
        """Draw one value on its way, around (x, y)."""
        self.rect(x - w / 2, y - h / 2, w, h, fill=TINT[colour], edge=colour, line=1, radius=4)
        self.text(x, y + 4.5, text, size=14, fill=colour)

    def register(self, x: float, y: float, name: str, colour: str, w: float = 112, h: float = 36) -> None:
        """Draw a register around (x, y), with the triangle of its clock."""
        left, low = x - w / 2, y + h / 2
        self.rect(left, y - h / 2, w, h, fill=TINT[colour], edge=colour, line=1.6, radius=4)
        self.parts.append(
            f'<path d="M{left + 6:g} {low:g} l4.5 -6.5 l4.5 6.5" '
            f'fill="none" stroke="{colour}" stroke-width="1.3"/>'
        )
        self.text(x, y + 5, name, size=16, fill=INK)

    def svg(self, title: str, width: int, height: int) -> str:
        heads = "".join(
            f'<marker id="{colour[1:]}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="9" '
            f'markerHeight="9" markerUnits="userSpaceOnUse" orient="auto">'
            f'<path d="M0 0.8 L10 5 L0 9.2 z" fill="{colour}"/></marker>'
            for colour in (*TINT, MUTED)
        )
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
                f'height="{height}" role="img" aria-label="{title}" '
                f'font-family="{FONTS}">',
                f"<title>{title}</title>",
                f"<defs>{heads}</defs>",
                *self.parts,
                "</svg>",
                "",
            ]
        )


def draw_array(d: Drawing) -> None:
    """Draw the array with what is about to enter it and what leaves it."""
    right, bottom = LEFT + (COLS - 1) * PITCH + PE, TOP + (ROWS - 1) * PITCH + PE
    middle = (LEFT + right) / 2
    d.text(28, 40, "The array", size=22, anchor="start", bold=True)
    d.text(28, 63, "weights stay, activations move right, psums move down", fill=MUTED, anchor="start")

    # Weights: the tile enters bottom row first, column c one cycle later per column.
    for c in range(COLS):
        x = LEFT + c * PITCH + PE / 2
        for k in range(ROWS):
            d.chip(x, TOP - 33 - (ROWS - 1 - k + c) * 24, f"w\N{PRIME}|{k}{c}", WEIGHT, w=36)
        if c:
            d.wire((x, TOP - 22 - c * 24), (x, TOP - 22), colour=EDGE, head=False, line=1.2, dash="3 4")
        d.wire((x, TOP - 21), (x, TOP - 1), colour=WEIGHT)
    d.text(LEFT - 2, TOP - 112, "the next tile w\N{PRIME}:", size=16, fill=WEIGHT, anchor="end")
    d.text(LEFT - 2, TOP - 93, "column c runs c cycles late", size=16, fill=WEIGHT, anchor="end")

    # Activations: row r runs r cycles late.
    step = 33
    for r in range(ROWS):
        y = TOP + r * PITCH + PE / 2
        for m in range(M):
            d.chip(LEFT - 44 - (m + r) * step, y, f"x|{m}{r}", ACTIVATION)
        if r:
            d.wire(
                (LEFT - 28 - r * step + 2, y), (LEFT - 28, y), colour=EDGE, head=False, line=1.2, dash="3 4"
            )
        d.wire((LEFT - 27, y), (LEFT - 1, y), colour=ACTIVATION)
    y = TOP + (ROWS - 1) * PITCH + PE + 2
    d.text(LEFT - 28, y + 16, "activations x:", size=16, fill=ACTIVATION, anchor="end")
    d.text(LEFT - 28, y + 35, "row r runs r cycles late", size=16, fill=ACTIVATION, anchor="end")

    for r in range(ROWS):
        for c in range(COLS):
            x, y = LEFT + c * PITCH, TOP + r * PITCH
            framed = (r, c) == (1, COLS - 1)
            d.rect(
                x, y, PE, PE, fill=PAPER, edge=INK if framed else EDGE, line=2.2 if framed else 1.4, radius=8
            )
            # next_weight waits behind weight.
            d.rect(x + 28, y + 6, 36, 24, fill="white", edge=WEIGHT, line=1, radius=4, dash="3 2.5")
            d.text(x + 46, y + 21, f"w\N{PRIME}|{r}{c}", size=13, fill=WEIGHT)
            d.rect(x + 7, y + 28, 44, 35, fill=TINT[WEIGHT], edge=WEIGHT, line=1.6, radius=4)
            d.text(x + 29, y + 50, f"w|{r}{c}", size=17, fill=INK, bold=True)
            if c < COLS - 1:
                d.wire((x + PE, y + PE / 2), (x + PITCH - 1, y + PE / 2), colour=ACTIVATION)
            if r < ROWS - 1:
                d.wire((x + PE / 2 - 9, y + PE), (x + PE / 2 - 9, y + PITCH - 1), colour=WEIGHT)
                d.wire((x + PE / 2 + 9, y + PE), (x + PE / 2 + 9, y + PITCH - 1), colour=PSUM)

    # Psums leave at the bottom, column c one cycle later per column.
    acc = bottom + 112
    for c in range(COLS):
        x = LEFT + c * PITCH + PE / 2
        d.wire((x, bottom), (x, acc - 1), colour=PSUM)
        d.chip(x, bottom + 87 - 21 * c, f"y|0{c}", PSUM)
    d.rect(LEFT - 12, acc, right - LEFT + 24, 62, fill=TINT[PSUM], edge=PSUM, line=1.6, radius=8)
    d.text(middle, acc + 26, "Accumulators, int32", size=18, bold=True)
    d.text(middle, acc + 48, "sum psums over the k tiles:  y = x · w", size=16, fill=MUTED)


def draw_pe(d: Drawing) -> None:
    """Draw one PE, enlarged: what arrives, what it computes, what it holds after the edge."""
    left, top, right, bottom = 744, 150, 1188, 624
    zoom_x, zoom_y = LEFT + (COLS - 1) * PITCH + PE, TOP + PITCH
    d.parts.append(
        f'<path d="M{zoom_x + 1} {zoom_y + 5} L{left} {top + 8} L{left} {bottom - 8} '
        f'L{zoom_x + 1} {zoom_y + PE - 5} z" fill="#eef0f3"/>'
    )
    d.text(left - 2, 40, "One PE", size=22, anchor="start", bold=True)
    d.text(left - 2, 63, "seven registers, one multiplier, one adder", fill=MUTED, anchor="start")
    d.rect(left, top, right - left, bottom - top, fill=PAPER, edge=INK, line=2.2, radius=14)

    shift_y, swap_y, activation_y, product_y = top + 40, top + 88, top + 300, top + 365
    weight_x, mux_x, used_x, psum_x, out_x = left + 98, left + 188, left + 262, left + 326, right - 56
    next_y, weight_y, last_y = top + 152, top + 226, bottom - 48

    # Control: shift lets the two shadow registers move, swap chooses the weight in use.
    for y, name in ((shift_y, "shift"), (swap_y, "swap")):
        d.wire((left - 76, y), (out_x - 33, y), colour=CONTROL)
        d.wire((out_x + 32, y), (right + 46, y), colour=CONTROL)
        d.register(out_x, y, name, CONTROL, w=64)
        d.text(left - 10, y - 7, name, size=16, fill=CONTROL, anchor="end")
    enable = left + 24
    d.dot(enable, shift_y, CONTROL)
    d.wire((enable, shift_y), (enable, last_y), (weight_x - 57, last_y), colour=CONTROL, line=1.3, dash="5 3")
    d.dot(enable, next_y, CONTROL)
    d.wire((enable, next_y), (weight_x - 57, next_y), colour=CONTROL, line=1.3, dash="5 3")
    d.dot(mux_x + 11, swap_y, CONTROL)
    d.wire((mux_x + 11, swap_y), (mux_x + 11, next_y - 18), colour=CONTROL, line=1.3, dash="5 3")

    # The weights' shift chain, downwards.
    d.wire((weight_x, top - 40), (weight_x, next_y - 18), colour=WEIGHT)
    d.wire((weight_x, next_y + 17), (weight_x, last_y - 18), colour=WEIGHT)
    d.wire((weight_x, last_y + 17), (weight_x, bottom + 40), colour=WEIGHT)
    # The weight in use: the shadow if a swap arrives, else the one that stays.
    mux_low, mux_high = next_y - 16, next_y + 50
    d.wire((weight_x + 56, next_y), (mux_x - 1, next_y), colour=WEIGHT)
    d.parts.append(
        f'<path d="M{mux_x} {mux_low - 8} L{mux_x + 22} {mux_low + 8} L{mux_x + 22} {mux_high - 8} '
        f'L{mux_x} {mux_high + 8} z" fill="white" stroke="{WEIGHT}" stroke-width="1.6" '
        'stroke-linejoin="round"/>'
    )
    used_y = (mux_low + mux_high) / 2
    d.text(mux_x + 10, next_y + 5, "1", size=13, fill=MUTED)
    d.text(mux_x + 10, next_y + 39, "0", size=13, fill=MUTED)
    d.wire((mux_x + 22, used_y), (used_x, used_y), (used_x, product_y - 18), colour=WEIGHT)
    d.text(used_x - 4, used_y - 9, "used", size=16, fill=WEIGHT)
    d.dot(used_x, weight_y + 14, WEIGHT)
    d.wire((used_x, weight_y + 14), (mux_x + 53, weight_y + 14), colour=WEIGHT)
    d.wire((mux_x - 31, weight_y + 14), (mux_x - 44, weight_y + 14), (mux_x - 44, next_y + 34),
           (mux_x - 1, next_y + 34), colour=WEIGHT)  # fmt: skip
    d.register(weight_x, next_y, "next_weight", WEIGHT)
    d.register(weight_x, last_y, "weight_pass", WEIGHT)
    d.register(mux_x + 11, weight_y + 14, "weight", WEIGHT, w=82)

    # Activation to the right, psum down; they meet in the multiplier and the adder.
    d.wire((left - 76, activation_y), (out_x - 48, activation_y), colour=ACTIVATION)
    d.wire((out_x + 47, activation_y), (right + 46, activation_y), colour=ACTIVATION)
    tap = mux_x
    d.dot(tap, activation_y, ACTIVATION)
    d.wire((tap, activation_y), (tap, product_y), (used_x - 18, product_y), colour=ACTIVATION)
    d.wire((psum_x, top - 40), (psum_x, product_y - 18), colour=PSUM)
    d.wire((used_x + 17, product_y), (psum_x - 18, product_y), colour=PSUM)
    d.wire((psum_x, product_y + 17), (psum_x, last_y - 18), colour=PSUM)
    d.wire((psum_x, last_y + 17), (psum_x, bottom + 40), colour=PSUM)
    for x, sign in ((used_x, "×"), (psum_x, "+")):
        d.parts.append(
            f'<circle cx="{x}" cy="{product_y}" r="17" fill="white" stroke="{INK}" stroke-width="1.8"/>'
        )
        d.text(x, product_y + 7.5, sign, size=23)
    d.register(out_x, activation_y, "activation", ACTIVATION, w=94)
    d.register(psum_x, last_y, "psum", PSUM, w=82)

    d.text(left - 10, activation_y - 7, "activation", size=16, fill=ACTIVATION, anchor="end")
    d.text(weight_x, top - 47, "weight", size=16, fill=WEIGHT)
    d.text(psum_x, top - 47, "psum", size=16, fill=PSUM)


def main() -> None:
    """Write ``array.svg`` beside this script."""
    d = Drawing()
    d.rect(0.5, 0.5, WIDTH - 1, HEIGHT - 1, fill="white", edge="#d5dae0", line=1, radius=16)
    draw_array(d)
    draw_pe(d)
    d.text(
        WIDTH / 2, HEIGHT - 20, "At cycle t, PE (r, c) does what PE (0, 0) did at cycle t \N{MINUS SIGN} r "
        "\N{MINUS SIGN} c: data and control travel as one wave.", fill=MUTED,
    )  # fmt: skip
    svg = d.svg("A weight-stationary systolic array, and one of its processing elements", WIDTH, HEIGHT)
    Path(__file__).with_name("array.svg").write_text(svg, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
