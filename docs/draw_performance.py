"""Measure how fast the emulator is here; fill docs/performance.md and the README, draw the pictures.

    python docs/draw_performance.py                     # all of it, minutes, on a quiet machine
    python docs/draw_performance.py growth              # some: bench, resnet50, growth
    python docs/draw_performance.py --python VENV/bin/python    # measure where torch is installed
    python docs/draw_performance.py --draw              # from docs/performance/measured.json alone

What was measured is kept in docs/performance/measured.json; text between the markers of the two
pages comes from there. It needs matplotlib and ``pip install "systolic[onnx]"``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT / "bench"))

import resnet50  # noqa: E402  (stands in bench/)

from systolic import ArrayConfig, SystolicArray  # noqa: E402
from systolic._show.table import seconds, si  # noqa: E402
from systolic.benchmark import Measurement, Section, markdown, sections, title  # noqa: E402

PAGE, README = HERE / "performance.md", ROOT / "README.md"
MEASURED = HERE / "performance" / "measured.json"
PARTS = ("bench", "resnet50", "growth")
COMMANDS = {
    "bench": ["-m", "systolic", "bench", "--full"],
    "resnet50": ["bench/resnet50.py"],
    "growth": ["docs/draw_performance.py", "growth"],
}

SIZES = (8, 16, 32, 64, 128, 256, 512)
STREAMS = (16, 64, 256, 1024, 4096)
EDGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
SQUARES = (64, 128, 256, 512, 1024, 2048)
COPIES = (1 << 18, 1 << 26)


# Measuring


def run(python: str, part: str, more: list[str]) -> dict[str, Any]:
    """Return the JSON that a part's command prints, run by an interpreter that may have torch."""
    # One thread beside one thread: numpy's BLAS would take all.
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [python, *COMMANDS[part], *more, "--json"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment | {"PYTHONPATH": path}, check=True, stdout=subprocess.PIPE
    )
    return json.loads(done.stdout)


def growth(rounds: int) -> dict[str, Any]:
    """Measure rates along each size, all in turn in every round.

    Returns a list of (x, rate) for each curve: PE-cycles/s, MAC/s, bytes/s; medians, roofs the best.
    """
    works: dict[tuple[str, int], tuple[Callable[[], object], float]] = {}
    rng = np.random.default_rng(0)

    def fold(curve: str, x: int, size: int, m: int, threads: int) -> None:
        config = ArrayConfig(size, size, accumulator_rows=None)
        rows, w = (rng.integers(-128, 128, (length, size), dtype=np.int8) for length in (m, size))
        amount = size * size * SystolicArray(config).fold(x=rows, w=w).run().cycle
        works[curve, x] = (lambda: SystolicArray(config).fold(x=rows, w=w).run(threads=threads), amount)

    def product(curve: str, x: int, m: int, k: int, n: int, threads: int = 1) -> None:
        works[curve, x] = sections.wavefront(*sections.operands(m, k, n), threads), m * k * n

    for threads in (1, 2):
        for size in SIZES:
            fold(f"array, {threads} threads", size, size, 2048, threads)
        for size in SQUARES:
            product(f"M = K = N, {threads} threads", size, size, size, size, threads)
    for m in STREAMS:
        fold("m", m, 256, m, 1)
    for edge in EDGES:
        product("M", edge, edge, 1024, 1024)
        product("K", edge, 1024, edge, 1024)
        product("N", edge, 1024, 1024, edge)
    for size in COPIES:
        source, target = np.ones((2, size), dtype=np.uint8)
        # Read and written.
        works["copy", size] = (lambda target=target, source=source: np.copyto(target, source), 2 * size)
    _, work, macs = sections.peak()
    works["peak", 0] = work, macs
    calls = {key: _calls(work) for key, (work, _) in works.items()}
    rates: dict[tuple[str, int], list[float]] = {key: [] for key in works}
    for _ in range(rounds):
        for key, (work, amount) in works.items():
            started = time.perf_counter()
            for _ in range(calls[key]):
                work()
            rates[key].append(calls[key] * amount / (time.perf_counter() - started))
    curves: dict[str, Any] = {"title": title()}
    for (curve, x), values in rates.items():
        # A roof is the best that was seen.
        best = max if curve in ("copy", "peak") else median
        curves.setdefault(curve, []).append((x, best(values)))
    return curves


def _calls(work: Callable[[], object], least_seconds: float = 5e-3) -> int:
    work()
    started = time.perf_counter()
    work()
    return max(1, int(least_seconds / (time.perf_counter() - started)))


# Drawing


def style(axes: Any, heading: str, x: str, y: str) -> None:
    axes.set_title(heading, loc="left", fontsize=9)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.minorticks_off()
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(y, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(color="0.9", linewidth=0.6)
    if axes.get_yscale() == "linear":
        axes.set_ylim(bottom=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, frameon=False)


def line(axes: Any, curve: list[tuple[float, float]], label: str | None = None, **options: Any) -> None:
    x, rates = zip(*curve, strict=True)
    axes.plot(x, np.array(rates) / 1e9, "o-", markersize=3, linewidth=1.2, label=label, **options)


def draw_growth(curves: dict[str, Any]) -> Any:
    """Draw rates over the array's size, m, M, K, N and threads."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.4), layout="constrained")
    (a, b, c), (d, e, f) = figure.subplots(2, 3)
    for threads in (1, 2):
        line(a, curves[f"array, {threads} threads"], f"{threads} thread{'s' * (threads > 1)}")
        line(d, curves[f"M = K = N, {threads} threads"], f"{threads} thread{'s' * (threads > 1)}")
    line(b, curves["m"])
    for curve in "KN":
        line(f, curves[curve], f"{curve}, the others 1024")
    line(e, curves["M"])
    wide = max(rate for _, rate in curves["peak"])
    for axes in (d, e, f):
        axes.axhline(wide / 1e9, color="0.6", linestyle="--", linewidth=0.8)
    style(a, "cycle mode, one fold of m = 2048", "rows = cols", "G PE-cycles/s")
    style(b, "cycle mode, one fold on 256 x 256", "m", "G PE-cycles/s")
    # A product's PE-cycles against its useful MACs: what the array itself makes of m.
    sizes = np.array([m for m, _ in curves["m"]])
    c.plot(sizes, 100 * sizes / (sizes + 3 * 256 - 2), "o-", markersize=3, linewidth=1.2, color="C2")
    style(c, "utilization of that fold (exact)", "m", "%")
    style(d, "wavefront mode; dashes: the kernel in cache", "M = K = N", "GMAC/s")
    style(e, "wavefront mode, K = N = 1024", "M", "GMAC/s")
    style(f, "wavefront mode", "K or N", "GMAC/s")
    return figure


def draw_roofline(curves: dict[str, Any]) -> Any:
    """Draw wavefront mode under the dot-product peak and memory, cycle mode under its multiplies."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    a, b = figure.subplots(1, 2)
    peak = curves["peak"][0][1]
    intensity = np.logspace(-1, 3, 200)
    for (size, rate), shade in zip(curves["copy"], ("0.7", "0.3"), strict=True):
        roof = np.minimum(peak, rate * intensity) / 1e9
        label = f"numpy.copyto of {si(size, 'B')}: {si(rate, 'B/s')}"
        a.plot(intensity, roof, color=shade, linewidth=1, label=label)
    points: list[tuple[str, Callable[[int], tuple[int, int, int]]]] = [
        ("M = K = N, 1 threads", lambda s: (s, s, s)),
        ("M", lambda s: (s, 1024, 1024)),
        ("K", lambda s: (1024, s, 1024)),
        ("N", lambda s: (1024, 1024, s)),
    ]
    for color, (curve, sizes) in enumerate(points):
        shapes = [sizes(x) for x, _ in curves[curve]]
        per_byte = [m * k * n / (m * k + k * n + 4 * m * n) for m, k, n in shapes]
        rates = [rate / 1e9 for _, rate in curves[curve]]
        label = "M = K = N" if "=" in curve else f"{curve}, the others 1024"
        a.plot(per_byte, rates, "o", markersize=3, color=f"C{color}", label=label)
    a.set_yscale("log")
    style(a, "wavefront mode, one thread", "MACs per byte of operands and sums", "GMAC/s")
    a.set_ylim(0.5, 2 * peak / 1e9)
    line(b, curves["array, 1 threads"], "one fold of m = 2048")
    b.axhline(peak / 4e9, color="0.3", linewidth=1, label="a quarter of the kernel in cache")
    style(b, "cycle mode, one thread", "rows = cols", "G PE-cycles/s")
    return figure


def save(figure: Any, name: str) -> None:
    """Write an SVG: text as text, nothing that changes from run to run."""
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "path.simplify": True}):
        figure.savefig(MEASURED.parent / f"{name}.svg", metadata={"Date": None})


# Writing


def bench_text(values: dict[str, Any]) -> str:
    sections: dict[str, list[Measurement]] = {}
    for row in values["measurements"]:
        measured = dict(row)
        sections.setdefault(measured.pop("section"), []).append(Measurement(**measured))
    texts = [
        markdown(Section(name, tuple(rows), tuple(values["notes"].get(name, ()))))
        for name, rows in sections.items()
    ]
    info = values["info"]
    versions = (
        f"Python {info['python']}, numpy {info['numpy']}, ONNX Runtime {info['optional']['onnxruntime']}"
    )
    return "\n".join([f"{values['title']}. {versions}.", "", *texts]).strip()


def resnet50_text(values: dict[str, Any]) -> str:
    tables = [resnet50.markdown(table) for table in resnet50.tables(values)]
    return "\n\n".join([f"{values['title']}.", *tables])


def growth_text(values: dict[str, Any]) -> str:
    peak = values["peak"][0][1]
    copies = ", ".join(f"{si(size, 'B')} at {si(rate, 'B/s')}" for size, rate in values["copy"])
    best = max(rate for _, rate in values["array, 1 threads"])
    return (
        f"{values['title']}.\n\n- The kernel in cache ({' x '.join(map(str, sections.PEAK_BLOCK))}): "
        f"{si(peak, 'MAC/s')}.\n- `numpy.copyto`, bytes read and written, by the size of each array: "
        f"{copies}.\n- Both are the best of all rounds, everything else on this page is a median.\n"
        f"- Cycle mode at its best size: {si(best, 'PE-cycles/s')}, {best / (peak / 4):.0%} of a "
        "quarter of the kernel in cache."
    )


def readme_text(values: dict[str, Any]) -> str:
    """Return the README's few rows."""
    used = values["bench"]["info"]["kernel"]
    size = "2048 x 2048 x 2048, int8 x int8"
    cells = ["| measured | rate or time | beside | ratio |", "|---|---|---|---|"]
    wanted = [
        (f"one fold, m = 2048, 256 x 256, {used}", "cycle mode, ", ""),
        (f"random control bits, 256 cycles, 256 x 256, {used}", "cycle mode, ", ""),
        (size, "wavefront mode, ", "torch"),
        ("1024 x 1024 x 1024, int8 x int8", "wavefront mode, ", "ONNX Runtime"),
    ]
    for name, mode, beside in wanted:
        for row in values["bench"]["measurements"]:
            if row["name"] == name and row["baseline"].startswith(beside):
                what = name.removesuffix(f", {used}")
                rate = si(row["rate"], row["unit"])
                cells.append(f"| {mode}{what} | {rate} | {row['baseline']} | {row['ratio']:.2f} |")
                break
    for row in values["resnet50"]["measurements"]:
        if "wavefront" in row["name"] and "one thread" not in row["name"]:
            continue
        name, time_taken = f"ResNet-50, {row['name']}", seconds(1 / row["rate"])
        cells.append(f"| {name} | {time_taken} | {row['baseline']} | {row['ratio']:.2f} |")
    return f"{values['bench']['title'].split(';')[0]}, {used}:\n\n" + "\n".join(cells)


def fill(page: Path, part: str, text: str) -> None:
    """Put text between a page's markers."""
    begin, end = f"<!-- begin {part}: docs/draw_performance.py writes this -->", f"<!-- end {part} -->"
    old = page.read_text(encoding="utf-8")
    new, count = re.subn(
        rf"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n\n{text}\n\n{end}", old, flags=re.S
    )
    if count != 1:
        sys.exit(f"{page}: there must be one line {begin} and below it {end}")
    page.write_text(new, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that measures")
    parser.add_argument("--rounds", default="7", help="pairs of runs (default: 7)")
    parser.add_argument("--out", help="keep the ONNX files of resnet50 in this folder")
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    parser.add_argument("--json", action="store_true", help="measure growth and print it, write nothing")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"parts are {', '.join(PARTS)}, not {', '.join(sorted(unknown))}")
    if options.json:
        print(json.dumps(growth(int(options.rounds))))
        return
    measured = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    for part in () if options.draw else options.parts or PARTS:
        more = ["--rounds", options.rounds]
        if part == "resnet50" and options.out:
            more += ["--out", options.out]
        measured[part] = run(options.python, part, more)
        # Which system it was is of no use here.
        measured[part].get("info", {}).pop("platform", None)
        # What was measured before an interrupt stays.
        MEASURED.parent.mkdir(exist_ok=True)
        MEASURED.write_text(json.dumps(measured, indent=1) + "\n")
    writers = {"bench": bench_text, "resnet50": resnet50_text, "growth": growth_text}
    for part, text in writers.items():
        if part in measured:
            fill(PAGE, part, text(measured[part]))
    if {"bench", "resnet50"} <= set(measured):
        fill(README, "rates", readme_text(measured))
    if "growth" in measured:
        save(draw_growth(measured["growth"]), "growth")
        save(draw_roofline(measured["growth"]), "roofline")


if __name__ == "__main__":
    main()
