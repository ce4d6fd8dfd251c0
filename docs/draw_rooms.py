"""Draw docs/architecture/rooms.svg from the import contract in pyproject.toml: python docs/draw_rooms.py"""

from __future__ import annotations

import tomllib
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[1]
PICTURE = Path(__file__).parent / "architecture" / "rooms.svg"

# Fill of a subject's boxes. Text in them is dark, text beside them gray: readable on white and on black.
COLORS = {
    "workload": "#8ec5ee",
    "hardware": "#8fd6a8",
    "where they meet, and results": "#f7c46c",
    "proof": "#e6a5cf",
    "base": "#c9d1d9",
}
SUBJECTS = {
    "workload": "calibrate example frontend gemm layers lowered model quant training workloads",
    "hardware": "accelerators array compiler config dataflows energy formats isa machine presets "
    "threads tiling",
    "where they meet, and results": "__main__ analysis cli engine info stats sweeps trace viewer",
    "proof": "benchmark cosim reference rtl vectors verifier",
}
GRAY = "#7d8a97"
LEFT, HEIGHT, GAP = 120, 26, 8
CHARACTER = 8.0  # of 13 px sans-serif, at most about


def lines() -> list[list[str]]:
    """Return the rooms of each line of the contract, top to bottom; compiled modules are in parentheses."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = project["tool"]["importlinter"]["contracts"][0]
    return [[room.strip() for room in line.split("|")] for line in contract["layers"]]


def subject(room: str) -> str:
    """Return the subject of a room; those with an underscore in front are the base."""
    named = [subject for subject, rooms in SUBJECTS.items() if room in rooms.split()]
    return named[0] if named else "base"


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" {more}>{escape(text)}</text>'


def _box(x: float, y: float, width: float, fill: str, dashed: bool) -> str:
    dashes = ' stroke-dasharray="3 2"' if dashed else ""
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{HEIGHT}" rx="4" fill="{fill}" '
        f'stroke="{GRAY}"{dashes}/>'
    )


def picture() -> str:
    """Return the drawing."""
    parts = []
    y, widest = 44.0, 0.0
    for number, rooms in enumerate(lines(), 1):
        parts.append(_text(LEFT - 14, y + 17, str(number), f'text-anchor="end" fill="{GRAY}"'))
        x = float(LEFT)
        for room in rooms:
            name = room.strip("()")
            width = round(len(name) * CHARACTER + 20)
            parts.append(_box(x, y, width, COLORS[subject(name)], room != name))
            parts.append(_text(x + width / 2, y + 17, name, 'text-anchor="middle" fill="#14202b"'))
            x += width + GAP
        widest = max(widest, x)
        y += HEIGHT + GAP
    top, bottom = 44, y - GAP
    parts.append(
        f'<path d="M40 {top}V{bottom - 6:g}" stroke="{GRAY}" stroke-width="2"/>'
        f'<path d="M34 {bottom - 8:g}h12l-6 8z" fill="{GRAY}"/>'
    )
    middle = (top + bottom) / 2
    turned = f'fill="{GRAY}" text-anchor="middle" transform="translate(28 {middle:g}) rotate(-90)"'
    parts.append(_text(0, 0, "imports go down", turned))
    x = float(LEFT)
    for name, fill in COLORS.items():
        parts.append(f'<rect x="{x:g}" y="12" width="14" height="14" rx="3" fill="{fill}" stroke="{GRAY}"/>')
        parts.append(_text(x + 20, 24, name, f'fill="{GRAY}"'))
        x += len(name) * CHARACTER + 44
    parts.append(_text(x, 24, "dashed: compiled", f'fill="{GRAY}"'))
    x += 130
    width, height = round(max(widest, x)), round(bottom + 8)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="system-ui, sans-serif" font-size="13">'
    )
    return "\n".join([head, *parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(picture(), encoding="utf-8")
