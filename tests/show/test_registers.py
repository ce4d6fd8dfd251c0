"""Pictures of arrays of any size and of windows; registers as a grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from systolic import ArrayConfig, SystolicArray, Trace
from systolic._text import moment

W = np.arange(20 * 20, dtype=np.int64).reshape(20, 20).astype(np.int8)


def large(cycles: int = 40, side: int = 20, **config: Any) -> SystolicArray:
    array = SystolicArray(ArrayConfig(side, side, **config))
    return array.fold(x=W[:, :side], w=W[:side, :side]).run(cycles)


@pytest.fixture
def drawn():
    pytest.importorskip("matplotlib")


def title(figure: Any) -> str:
    return figure.texts[0].get_text() if figure.texts else figure.axes[0].texts[0].get_text()


@pytest.mark.usefixtures("drawn")
def test_beyond_16_x_16_the_sums_are_a_heat_map_with_a_color_bar() -> None:
    array = large()
    figure = array.plot()
    panel, bar = figure.axes
    assert title(figure) == "psum after the edge of cycle 39"
    assert np.array_equal(panel.images[0].get_array(), array.registers.psum)
    most = np.abs(array.registers.psum).max()
    assert panel.images[0].get_clim() == (-most, most)
    assert [t.get_text() for t in bar.get_yticklabels()] == [f"−{most}", "0", f"{most}"]
    assert len(panel.texts) == 0 and (panel.get_xlabel(), panel.get_ylabel()) == ("col", "row")
    assert array.plot(limit=7).axes[0].images[0].get_clim() == (-7, 7)
    assert title(large(dataflow="output_stationary").plot()).startswith("acc after")


@pytest.mark.usefixtures("drawn")
@pytest.mark.slow
def test_all_registers_are_small_multiples() -> None:
    array = large()
    figure = array.plot(register="all")
    assert title(figure) == "after the edge of cycle 39"
    panels = figure.axes[::2]
    assert [panel.get_title(loc="left") for panel in panels] == list(array.registers)
    for panel, values in zip(panels, array.registers.values(), strict=True):
        assert np.array_equal(panel.images[0].get_array(), values)
    # A scale of its own for each; bits are two colors.
    assert panels[0].images[0].get_clim() != panels[4].images[0].get_clim()
    assert [t.get_text() for t in figure.axes[-1].get_yticklabels()] == ["0", "1"]
    boxes = [ax.get_position() for ax in panels]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(box.x0 > 0 and box.x1 < 1 and box.y0 > 0 and box.y1 < 1 for box in boxes)


@pytest.mark.usefixtures("drawn")
def test_the_largest_and_beyond() -> None:
    array = SystolicArray()
    assert array.plot().axes[0].images[0].get_array().shape == (256, 256)
    assert title(array.plot()) == "psum before the first edge"
    wide = SystolicArray(ArrayConfig(2, 257))
    with pytest.raises(ValueError, match=r"at most 256 x 256 PEs, not 2 x 257; choose a window, such as rows="):
        wide.plot()
    assert wide.plot(cols=range(1, 257)).axes[0].images[0].get_array().shape == (2, 256)


@pytest.mark.usefixtures("drawn")
def test_a_small_window_is_drawn_as_pes_with_the_arrays_numbers() -> None:
    array = large()
    figure = array.plot(rows=slice(2, 4), cols=range(5, 8), highlight=[(3, 7)])
    texts = figure.axes[0].texts
    assert [t.get_text() for t in texts][:6] == [
        "after the edge of cycle 39", "row 2", "row 3", "col 5", "col 6", "col 7",
    ]  # fmt: skip
    sums = [t.get_text().replace("−", "-") for t in texts if t.get_gid() == "psum"][:-1]
    assert sums == [str(v) for v in array.registers.psum[2:4, 5:8].ravel()]
    with pytest.raises(ValueError, match=r"highlight must name PEs drawn, rows 2\.\.3 and cols 5\.\.7"):
        array.plot(rows=slice(2, 4), cols=range(5, 8), highlight=[(0, 0)])
    heat = array.plot(register="psum", rows=slice(-2, None), cols=slice(0, 2), highlight=[(19, 1)])
    panel = heat.axes[0]
    assert np.array_equal(panel.images[0].get_array(), array.registers.psum[18:, :2])
    assert [t.get_text().replace("−", "-") for t in panel.texts] == [
        str(v) for v in array.registers.psum[18:, :2].ravel()
    ]
    heat.draw_without_rendering()
    assert {"18", "19"} <= {t.get_text() for t in panel.get_yticklabels()}
    assert [patch.get_xy() for patch in panel.patches] == [(0.5, 0.5)]


@pytest.mark.usefixtures("drawn")
def test_a_window_or_register_that_is_not_there_is_refused() -> None:
    array = large(0)
    for how in ({"rows": slice(5, 5)}, {"cols": range(0, 21)}, {"rows": slice(0, 8, 2)}, {"cols": range(-1, 3)}):
        with pytest.raises(ValueError, match=r"^(rows|cols) must be a window of the 20 (rows|cols) of the array"):
            array.plot(**how)
    with pytest.raises(TypeError, match=r"^rows must be a slice or a range, such as slice\(0, 8\), not int"):
        array.plot(rows=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="^rows must be a slice of integers"):
        array.plot(rows=slice("a"))
    with pytest.raises(ValueError, match="^register must be one of weight, .*, or 'all', not 'acc'"):
        array.plot(register="acc")
    with pytest.raises(ValueError, match="^limit must be above zero"):
        array.plot(limit=0)
    with pytest.raises(ValueError, match="^ax takes one register"):
        array.plot(register="all", ax=object())


@pytest.mark.usefixtures("drawn")
def test_a_heat_map_draws_into_given_axes_and_marks_nan() -> None:
    from matplotlib.figure import Figure

    array = SystolicArray(ArrayConfig(2, 2, activation_dtype="bfloat16", weight_dtype="bfloat16"))
    array.step(activation=[np.nan, 1.5])
    figure = Figure()
    ax = figure.add_subplot()
    assert array.plot(register="activation", ax=ax) is figure
    assert ax.get_title(loc="left") == "activation after the edge of cycle 0"
    assert ax.images[0].get_clim() == (-1.5, 1.5)
    assert "NaN" in figure.axes[1].get_xlabel()
    array.plot(register="activation").draw_without_rendering()


def test_one_function_says_when() -> None:
    assert (moment(0), moment(1), moment(1001)) == (
        "before the first edge", "after the edge of cycle 0", "after the edge of cycle 1,000",
    )  # fmt: skip
    array = SystolicArray(ArrayConfig(1, 1), trace=Trace())
    assert moment(0) in repr(array) and moment(0) in array._repr_html_()
    array.run(3)
    # The last cycle that the trace names is the one whose edge was the last.
    assert array.trace is not None and moment(int(array.trace.cycles[-1]) + 1) in repr(array)


def test_registers_print_as_a_grid_of_pes() -> None:
    array = SystolicArray(ArrayConfig(2, 2)).fold(x=np.int8([[1, 2]]), w=np.int8([[7, -8], [10, 11]])).run(3)
    assert repr(array.registers) == "\n".join([
        "                   col 0  col 1",
        "row 0 weight           7      0",
        "      next_weight      7     -8",
        "      weight_pass     10     11",
        "      activation       1      0",
        "      psum             7      0",
        "      shift            0      1",
        "      swap             1      0",
        "row 1 weight           0      0",
        "      next_weight     10      0",
        "      weight_pass      0      0",
        "      activation       0      0",
        "      psum             0      0",
        "      shift            1      1",
        "      swap             0      0",
    ])  # fmt: skip
    html = array.registers._repr_html_()
    assert html.count("<tr>") == 1 + 2 * 7 and html.count('rowspan="7"') == 2
    assert html.count(">-8</td>") == 1 and html.count("<th ") == 4
    assert "background" not in html


def test_the_grid_of_a_large_array_shows_its_ends() -> None:
    registers = large().registers
    lines = repr(registers).splitlines()
    assert len(lines) == 1 + 8 * 7 + 1 and lines[0].split()[-2:] == ["col", "19"]
    assert lines[29] == "…" and lines[30].startswith("row 16 weight") and "…" in lines[1]
    found = [int(v) for v in lines[5].split()[1:] if v != "…"]
    assert found == [*registers.psum[0, :4], *registers.psum[0, -4:]]
    assert "20 x 20 PEs; the middle is left out" in registers._repr_html_()
    floats = SystolicArray(ArrayConfig(1, 1, activation_dtype="float16", weight_dtype="float16"))
    assert "0.1001" not in repr(floats.step(activation=0.5).registers)
    assert "0.5" in repr(floats.registers)
