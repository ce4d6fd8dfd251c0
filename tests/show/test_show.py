"""Tables, cards, drawings and progress lines: what they say, and what they refuse."""

from __future__ import annotations

import dataclasses
import functools
import math
import pickle
import re
import sys

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from systolic._show import Column, Table, card, card_text, draw, folds, percent, seconds, si
from systolic.dataflows import WEIGHT_STATIONARY

# --- tables ---------------------------------------------------------------------------------


def layers() -> Table:
    return Table(
        ["layer", "cycles", Column("used", format=".1%"), Column("time", ">", seconds)],
        [("conv1", 1234567, 0.5, 0.00125), ("fc", np.int64(8), None, 2.0)],
        title="Network",
        footer=("total", 1234575, None, 2.00125),
    )


def test_text_is_aligned_with_rules():
    assert layers().text().splitlines() == [
        "Network",
        "layer     cycles   used     time",
        "────────────────────────────────",
        "conv1  1,234,567  50.0%  1.25 ms",
        "fc             8      -   2.00 s",
        "────────────────────────────────",
        "total  1,234,575          2.00 s",
    ]
    assert str(layers()) == layers().text()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"), (True, "yes"), (np.bool_(False), "no"), (0, "0"), (-1234567, "-1,234,567"),
        (np.uint64(2**63), "9,223,372,036,854,775,808"), (10**30, "1" + ",000" * 10), (0.0, "0"),
        (0.5, "0.5"), (np.float32(0.1), "0.1"), (3.14159, "3.142"), (999.96, "1,000"),
        (1234567.8, "1,235,000"), (1.5e-7, "1.5e-07"), (-2e20, "-2e+20"), (math.nan, "nan"),
        (-math.inf, "-inf"), ((1, 3, 8), "(1, 3, 8)"), ("1234", "1234"),
        ("two\nlines\tof", "two lines of"), ("\x1b[31mred", r"\x1b[31mred"),
    ],
)  # fmt: skip
def test_values_show_as(value, shown):
    assert Column("c").show(value) == shown


def test_formats_skip_none_and_text_and_only_columns_of_numbers_align_right():
    for how in (".2f", lambda v: f"{v:.2f}"):
        column = Column("c", format=how)
        assert [column.show(v) for v in (1, None, "total")] == ["1.00", "-", "total"]
    table = Table(["a", "b", "c", "d", "e"], [(1, "x", None, True, 1), (None, "y", None, False, "z")])
    assert table._aligns() == [">", "<", "<", "<", "<"]
    assert Table([Column("a", "<"), Column("b", ">")], [(1, "x")])._aligns() == ["<", ">"]


def test_notes_stand_below_and_wide_and_combining_characters_keep_in_line():
    lines = Table(["name", "n"], [("层一", 1), ("e\u0301t", 2)]).text().splitlines()
    assert lines[2:] == ["层一  1", "e\u0301t    2"]
    assert Table(["a"], [(1,)], footer="one\ntwo").text() == "a\n─\n1\n─\none\ntwo"
    assert Table(["a", "b"], []).text() == "a  b\n────"


@given(
    st.lists(st.tuples(st.text(max_size=12), st.none() | st.integers(), st.floats()), min_size=1, max_size=5)
)
@example([("层一", 1, 0.5), ("e\u0301te", -1, 2.0)])
def test_every_line_of_a_table_is_as_wide_as_its_columns(rows):
    from systolic._show.table import _width

    lines = Table([Column("name"), Column("n", ">"), Column("x", ">")], rows).text().splitlines()
    assert len(lines) == len(rows) + 2
    # The last column is right-aligned: nothing was stripped from any line.
    assert {_width(line) for line in lines} == {len(lines[1])}


def test_width_clips_the_middle_of_names_and_never_numbers():
    table = Table(["layer", "n"], [("/model/stage1/block2/conv1", 10**9), ("fc", 1)])
    assert table.text(width=30).splitlines() == [
        "layer                        n",
        "──────────────────────────────",
        "/model/…2/conv1  1,000,000,000",
        "fc                           1",
    ]
    assert table.text(width=5).splitlines()[2] == "/mod…nv1  1,000,000,000"
    assert table.text(width=200) == table.text()


@given(st.text(max_size=20), st.integers(1, 20))
@example("层层层", 2)
@example("abc", 1)
def test_clip_fits(text, room):
    from systolic._show.table import _clip, _width

    clipped = _clip(text, room)
    assert _width(clipped) <= room
    assert clipped == text if _width(text) <= room else "…" in clipped


def test_html_escapes_everything():
    bad = "<script>&\"'"
    table = Table([bad, Column("n", format=lambda v: "<b>")], [(bad, 1)], title=bad, footer=(bad, None))
    note = Table([bad], [], footer=bad).html()
    for page in (table.html(), table._repr_html_(), note, card(bad, {bad: bad})):
        assert "<script" not in page and "<b>" not in page
        assert "&lt;script&gt;&amp;&quot;&#x27;" in page
    assert table.html().count("&lt;script&gt;") == 4


def test_html_is_one_table_with_a_cell_for_each_value():
    page = layers().html()
    assert page.startswith("<table") and page.endswith("</table>")
    assert (page.count("<th "), page.count("<td "), page.count("<tr>")) == (4, 12, 4)
    assert re.findall(r'text-align:right[^>]*">([^<]*)</td>', page)[:3] == ["1,234,567", "50.0%", "1.25 ms"]
    # Colours that suit light and dark themes: none but inherited ones and greys with alpha.
    assert set(re.findall(r"(?<!-)color:([^;\"]+)", page)) == {"inherit"}
    assert "background" not in page


@pytest.mark.slow
def test_dicts_and_frames_hold_the_values_as_given_without_the_footer():
    assert layers().to_dicts() == [
        {"layer": "conv1", "cycles": 1234567, "used": 0.5, "time": 0.00125},
        {"layer": "fc", "cycles": 8, "used": None, "time": 2.0},
    ]
    pandas = pytest.importorskip("pandas")
    frame = Table(["a", "b", "c"], [(1, 2**62 + 1, "x"), (2, None, None)]).to_frame()
    assert list(frame.columns) == ["a", "b", "c"] and len(frame) == 2 and frame["a"].dtype == np.int64
    assert frame["b"].dtype == "Int64" and frame["b"][0] == 2**62 + 1 and frame["b"].isna()[1]
    assert frame["c"][0] == "x" and pandas.isna(frame["c"][1])
    empty = Table(["a", "b"], []).to_frame()
    assert list(empty.columns) == ["a", "b"] and empty.empty


def test_missing_packages_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "systolic\[pandas\]"'):
        layers().to_frame()
    for call in (
        lambda: plot_registers(registers(1, 1), cycle=0),
        lambda: draw.plot_wave([(0, np.zeros((1, 1)))]),
        lambda: folds.plot_timeline([("a", 0, 1, 1)], rows=1, cols=1),
    ):
        with pytest.raises(ImportError, match=r'pip install "systolic\[plot\]"'):
            call()


def test_tables_are_values():
    rows = [[1, 2]]
    table = Table(["a", Column("b")], rows)
    rows[0][0] = 5
    assert table.rows == ((1, 2),)
    assert table == Table([Column("a"), "b"], [(1, 2)]) != Table(["a", "b"], [(1, 3)])
    with pytest.raises(dataclasses.FrozenInstanceError):
        table.title = "x"


@pytest.mark.parametrize(
    ("make_it", "error", "message"),
    [
        (lambda: Table(["a", "b", "a"], []), ValueError, "columns must have different names; repeated: 'a'"),
        (lambda: Table(["a"], [(1,), (1, 2)]), ValueError, "row 1 must have 1 values, one per column, not 2"),
        (lambda: Table(["a"], [], footer=()), ValueError, "the footer must have 1 values, .* not 0"),
        (lambda: Column("a", "^"), ValueError, r"align must be '<', '>' or None, not '\^'"),
        (lambda: Column(3), TypeError, "a column's name must be text, not 3"),
        (lambda: Column("a", format=3), TypeError, "format must be a format specification, .* not 3"),
    ],
)
def test_tables_refuse(make_it, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        make_it()


# --- cards and quantities ---------------------------------------------------------------------


def test_cards_and_percent():
    pairs = {"rows": 256, "accumulator_rows": None, "double_buffered": True}
    assert card_text("ArrayConfig", pairs).splitlines() == [
        "ArrayConfig",
        "  rows              256",
        "  accumulator_rows  -",
        "  double_buffered   yes",
    ]
    page = card("ArrayConfig", pairs.items())
    assert re.findall(r">([^<>]+)<", page) == [
        "ArrayConfig", "rows", "256", "accumulator_rows", "-", "double_buffered", "yes",
    ]  # fmt: skip
    assert card_text("Empty", {}) == "Empty"
    assert [percent(x) for x in (0.0, 0.3125, 1.0, None)] == ["0.0%", "31.2%", "100.0%", "-"]


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (12.34e9, "PE-cycles/s", "12.3 G PE-cycles/s"), (215e9, "MAC/s", "215 GMAC/s"),
        (1_000, "B", "1.00 kB"), (999, "B", "999 B"), (0, "B", "0 B"),
        (999_499, "cycles", "999 k cycles"), (999_999, "cycles", "1.00 M cycles"),
        (0.5, "cycles", "500 m cycles"), (1.5, "ops", "1.50 ops"), (-2.5e-12, "J", "-2.50 pJ"),
        (3e-18, "J", "0.00300 fJ"), (10**20, "B", "100 EB"), (np.int64(5), "B", "5 B"),
        (math.inf, "B", "inf B"), (None, "B", "-"),
    ],
)  # fmt: skip
def test_si(value, unit, shown):
    assert si(value, unit) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0 s"), (1.25e-3, "1.25 ms"), (12.3e-6, "12.3 µs"), (8e-9, "8.00 ns"), (59.94, "59.9 s"),
        (59.96, "1 min 00 s"), (125.4, "2 min 05 s"), (3599.4, "59 min 59 s"), (3599.6, "1 h 00 min"),
        (100_000, "27 h 47 min"), (-90, "-1 min 30 s"), (None, "-"),
    ],
)  # fmt: skip
def test_seconds(value, shown):
    assert seconds(value) == shown


# --- drawings -------------------------------------------------------------------------------

plot_registers = functools.partial(draw.plot_registers, parts=WEIGHT_STATIONARY.registers)
SIGNED = ("weight", "next_weight", "weight_pass", "activation")


def registers(rows: int, cols: int, operand: int = 0, psum: int = 0, bits: bool = False) -> dict:
    made = {name: np.full((rows, cols), operand, np.int8) for name in SIGNED}
    made["psum"] = np.full((rows, cols), psum, np.int32)
    return made | {name: np.full((rows, cols), bits) for name in ("shift", "swap")}


def texts(figure) -> dict[str, list]:
    """Return the texts of each register, the legend's letter last, by the name drawn for."""
    found: dict[str, list] = {}
    for text in figure.axes[0].texts:
        found.setdefault(text.get_gid() or "", []).append(text)
    return found


def to_hex(colour) -> str:
    return "#" + "".join(f"{round(255 * c):02x}" for c in colour[:3])


def rendered(figure):
    """Return a renderer to measure texts with, after the layout is done."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas.get_renderer()


@pytest.fixture
def pyplot():
    """Matplotlib without a display; afterwards no figure is left open."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    yield plt
    assert plt.get_fignums() == []


@pytest.mark.slow
def test_registers_show_each_value_at_its_place(pyplot):
    values = registers(2, 3)
    values["weight"] = np.array([[7, -8, 0], [10, 0, 0]], np.int8)
    values["psum"] = np.array([[21, -8, 0], [27, 0, 0]], np.int32)
    figure = plot_registers(values, cycle=4)
    assert len(figure.axes) == 1
    found = texts(figure)
    assert [t.get_text() for t in found["weight"]] == ["7", "−8", "0", "10", "0", "0", "w"]
    assert [t.get_text() for t in found["psum"]] == ["21", "−8", "0", "27", "0", "0", "p"]
    assert {name: len(found[name]) for name in (*SIGNED, "psum")} == dict.fromkeys((*SIGNED, "psum"), 7)
    place = {t.get_text(): t.get_position() for t in found["weight"]}
    assert place["−8"][0] > place["7"][0] and place["−8"][1] == place["7"][1]
    assert place["10"][0] == place["7"][0] and place["10"][1] > place["7"][1]
    said = [t.get_text() for t in found[""]]
    assert said[:6] == ["after the edge of cycle 3", "row 0", "row 1", "col 0", "col 1", "col 2"]
    assert {"shift", "swap", "weight", "next_weight (shadow)"} <= set(said)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (4, 4), (8, 8)])
@pytest.mark.exhaustive
def test_texts_of_extreme_values_overlap_nothing_and_stay_inside(pyplot, shape):
    figure = plot_registers(registers(*shape, operand=-128, psum=-(2**31), bits=True), cycle=10**9)
    renderer = rendered(figure)
    boxes = [t.get_window_extent(renderer).extents for t in figure.axes[0].texts]
    for marks in figure.axes[0].collections:
        if hasattr(marks, "get_sizes"):  # not the lines of the arrows
            half = math.sqrt(marks.get_sizes()[0]) / 72 * figure.dpi / 2
            centres = figure.axes[0].transData.transform(marks.get_offsets())
            boxes += list(np.hstack([centres - half, centres + half]))
    x0, y0, x1, y1 = np.array(boxes).T
    assert len(boxes) > 9 * shape[0] * shape[1]
    # Each operand's text inside the box it belongs to: the PE's, or the activation's within it.
    frames = [p.get_window_extent().extents for p in figure.axes[0].patches]
    found = texts(figure)
    for i, (pe, pill) in enumerate(zip(frames[::2], frames[1::2], strict=True)):
        right_of_pill = (pill[2], *pe[1:])
        for name, frame in (("activation", pill), ("weight", right_of_pill), ("psum", pe)):
            inner = found[name][i].get_window_extent(renderer).extents
            assert (inner[:2] > frame[:2]).all() and (inner[2:] < frame[2:]).all(), name
    # Pixels that each two boxes share along the axis where they share less.
    wide = np.minimum.outer(x1, x1) - np.maximum.outer(x0, x0)
    high = np.minimum.outer(y1, y1) - np.maximum.outer(y0, y0)
    assert np.triu(np.minimum(wide, high), 1).max() < 0.5
    assert x0.min() >= 0 and y0.min() >= 0 and x1.max() <= figure.bbox.x1 and y1.max() <= figure.bbox.y1


@pytest.mark.slow
def test_marks_stand_where_shift_and_swap_are_set(pyplot):
    values = registers(3, 3)
    values["shift"][0, 2] = values["swap"][1, 0] = values["swap"][2, 0] = True
    ax = plot_registers(values, cycle=0).axes[0]
    places = {draw._SHIFT: [], draw._SWAP: []}
    for marks in ax.collections:
        colour = to_hex(marks.get_facecolor()[0]) if len(marks.get_facecolor()) else ""
        if colour in places:
            places[colour] += [tuple(np.floor(p).astype(int)) for p in marks.get_offsets() if p[0] < 3]
    assert places == {draw._SHIFT: [(2, 0)], draw._SWAP: [(0, 1), (0, 2)]}


def test_activation_colour_tells_sign_and_size(pyplot):
    values = registers(1, 3)
    values["activation"][0] = [-128, 0, 64]

    def pills(**how):
        patches = plot_registers(values, cycle=0, **how).axes[0].patches
        return [p.get_facecolor()[:3] for p in patches if p.get_width() == draw._PILL_WIDTH][:3]

    below, zero, above = pills()
    assert below[2] > below[0] + 0.3 and above[0] > above[2] + 0.1  # blue, red
    assert max(zero) - min(zero) < 0.02
    assert pills(limit=64)[2][1] < above[1]  # deeper
    with pytest.raises(ValueError, match="^limit must be above zero, or None .*, not 0$"):
        pills(limit=0)


def test_arrows_are_dark_where_something_moves(pyplot):
    values = registers(2, 2)
    values["activation"][1, 0] = 5
    values["psum"][0, 1] = -1
    ax = plot_registers(values, cycle=0).axes[0]
    lines = next(c for c in ax.collections if hasattr(c, "get_segments"))
    dark = [s.mean(axis=0) for s, c in zip(lines.get_segments(), lines.get_colors(), strict=True)
            if to_hex(c) == draw._INK]  # fmt: skip
    assert len(lines.get_segments()) == 8 and len(dark) == 2
    (right, down) = dark
    assert right == pytest.approx((1, 1.5), abs=0.1) and down == pytest.approx((1.5, 1), abs=0.1)


def test_windows_are_labelled_and_framed_by_the_whole_arrays_indices(pyplot):
    figure = plot_registers(registers(2, 2), cycle=0, origin=(254, 10), highlight=iter([(255, 10)]))
    said = [t.get_text() for t in texts(figure)[""]]
    assert said[1:5] == ["row 254", "row 255", "col 10", "col 11"]
    framed = [p for p in figure.axes[0].patches if to_hex(p.get_edgecolor()) == draw._MARK]
    assert [(int(p.get_x()), int(p.get_y())) for p in framed] == [(0, 1)]
    with pytest.raises(ValueError, match=r"rows 254\.\.255 and cols 10\.\.11, not \[\(0, 0\)\]$"):
        plot_registers(registers(2, 2), cycle=0, origin=(254, 10), highlight=iter([(0, 0)]))


def test_registers_draw_into_given_axes_up_to_sixteen(pyplot):
    figure, (left, right) = pyplot.subplots(1, 2)
    assert plot_registers(registers(2, 2), cycle=1, ax=right) is figure
    assert len(left.texts) == 0 and len(right.texts) > 0
    pyplot.close(figure)
    figure = plot_registers(registers(1, 16), cycle=0)
    assert len(texts(figure)["weight"]) == 17
    for shape in ((17, 1), (1, 17)):
        message = f"^plot_registers draws at most 16 x 16 PEs, not {shape[0]} x {shape[1]}; pass a window"
        with pytest.raises(ValueError, match=message):
            plot_registers(registers(*shape), cycle=0)


def test_registers_refuse_what_is_not_an_array():
    values = registers(2, 2)
    with pytest.raises(ValueError, match="psum, swap missing$"):
        plot_registers({k: v for k, v in values.items() if k not in ("psum", "swap")}, cycle=0)
    with pytest.raises(ValueError, match="^registers must all have one shape"):
        plot_registers(values | {"psum": np.zeros((2, 3))}, cycle=0)
    for shape in ((0, 2), (2,)):
        with pytest.raises(ValueError, match="^registers must all have one shape"):
            plot_registers({name: np.zeros(shape) for name in values}, cycle=0)


def test_wave_has_a_panel_for_each_cycle(pyplot):
    frames = [(t, np.eye(3, 4, k=t, dtype=np.int8) * -5) for t in range(4)]
    figure = draw.plot_wave(frames, register="psum")
    *panels, bar = figure.axes
    assert [ax.get_title() for ax in panels] == [f"cycle {t}" for t in range(4)]
    assert [len(ax.texts) for ax in panels] == [12] * 4
    assert [t.get_text() for t in panels[1].texts[:4]] == ["0", "−5", "0", "0"]
    assert figure.get_suptitle() == "psum after the edge of each cycle"
    # One scale for all, symmetric about zero.
    assert {ax.images[0].get_clim() for ax in panels} == {(-5.0, 5.0)}
    assert [t.get_text() for t in bar.get_yticklabels()] == ["−5", "0", "5"]
    chosen = draw.plot_wave(frames, cycles=[3, 1])
    assert [ax.get_title() for ax in chosen.axes[:-1]] == ["cycle 3", "cycle 1"]
    large = draw.plot_wave([(0, np.ones((64, 64), bool))])
    assert len(large.axes[0].texts) == 0 and large.axes[0].images[0].get_array().shape == (64, 64)


@pytest.mark.slow
def test_wave_numbers_fit_their_cells(pyplot):
    figure = draw.plot_wave([(0, np.full((8, 8), -(2**31), np.int32))])
    renderer = rendered(figure)
    ax = figure.axes[0]
    cell = ax.get_window_extent().width / 8
    widths = [t.get_window_extent(renderer).width for t in ax.texts]
    assert len(widths) == 64 and max(widths) < cell


def test_wave_refuses():
    one = np.zeros((2, 2))
    with pytest.raises(ValueError, match=r"^cycles must be among the frames', \[0, 1\], but \[7\] are not$"):
        draw.plot_wave([(0, one), (1, one)], cycles=[1, 7])
    for frames in ([], [(t, one) for t in range(33)]):
        with pytest.raises(ValueError, match=f"^plot_wave draws 1 to 32 frames, not {len(frames)}; choose"):
            draw.plot_wave(frames)
    for other in (np.zeros((2, 3)), np.zeros(4)):
        with pytest.raises(ValueError, match="^frames must all have one shape"):
            draw.plot_wave([(0, one), (1, other)])
    with pytest.raises(ValueError, match="^frames must all have one shape"):
        draw.plot_wave([(0, np.zeros((0, 2)))])


def test_timeline_has_three_bars_for_each_fold(pyplot):
    # rows = 2, cols = 3, m = 3 then 1: the second fold shifts while the first streams.
    figure = folds.plot_timeline([("a", 0, 2, 3), ("b", 2, 5, 1)], rows=2, cols=3)
    (ax,) = figure.axes
    bars = [(p.get_x(), p.get_width()) for p in ax.patches]
    assert bars == [(0, 2), (2, 3), (5, 3), (2, 2), (5, 1), (6, 3)]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b"]
    assert ax.get_title(loc="left") == "2 folds on 2 × 3 PEs, 9 cycles"
    said = [t.get_text() for t in ax.get_legend().get_texts()]
    assert said == ["shift weights in", "swap", "stream x", "drain"]
    assert ax.collections[0].get_offsets()[:, 0].tolist() == [2, 5]
    (one,) = folds.plot_timeline([("a", 0, 1, 1)], rows=1, cols=1).axes
    assert one.get_title(loc="left") == "1 fold on 1 × 1 PEs, 2 cycles"


def test_timeline_refuses():
    for count in (0, 65):
        with pytest.raises(ValueError, match=f"^plot_timeline draws 1 to 64 folds, not {count}; pass"):
            folds.plot_timeline([("a", 0, 2, 3)] * count, rows=2, cols=3)
    for fold, rows in ((("a", -1, 2, 3), 2), (("a", 0, 2, -3), 2), (("a", 0, 2, 3), 0)):
        with pytest.raises(ValueError, match="^cycles and m must be non-negative, rows and cols positive"):
            folds.plot_timeline([fold], rows=rows, cols=3)


@pytest.mark.slow
def test_figures_show_in_notebooks_and_pickle_and_are_not_kept_open(pyplot):
    figures = [
        plot_registers(registers(2, 2), cycle=0),
        draw.plot_wave([(0, np.zeros((2, 2)))]),
        folds.plot_timeline([("a", 0, 2, 3)], rows=2, cols=3),
    ]
    for figure in figures:
        for shown in (figure, pickle.loads(pickle.dumps(figure))):
            assert shown._repr_png_().startswith(b"\x89PNG")
        assert figure.get_facecolor() == (1, 1, 1, 1)


def test_long_tables_are_displayed_in_part() -> None:
    """In a notebook: html and text have all rows."""
    table = Table(("number", "name"), [(i, f"row {i}") for i in range(1000)], title="Many", footer=(None, "end"))
    shown = table._repr_html_()
    assert shown.count("<tr") == 1 + 200 + 1 + 200 + 1 and len(shown) < len(table.html()) / 2
    assert "Many; 600 of 1,000 rows are not displayed" in shown
    assert ">row 199<" in shown and ">row 200<" not in shown and ">row 799<" not in shown and ">row 800<" in shown
    assert shown.count("text-align:right") == 1 + 401 + 1 and ">end<" in shown  # numbers stay on the right
    few = Table(("number",), [(i,) for i in range(400)])
    assert few._repr_html_() == few.html()
    assert Table(("number",), [(i,) for i in range(401)])._repr_html_().count("<tr") == 402
