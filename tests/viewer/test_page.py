"""The page in a headless Chromium: buttons, keys, pictures, and that it asks the network for nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import systolic
from support.browser import launched, opened
from systolic import ArrayConfig, SystolicArray, presets
from systolic.isa import Program
from systolic.machine import time_program
from systolic.viewer import View
from systolic.viewer.page import source, style

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
X, W = np.int8([[1, 2], [3, 4], [-5, 6]]), np.int8([[7, -8, 9], [10, 11, -12]])


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as found:
        yield found


def worked_example(dataflow: str = "weight_stationary") -> View:
    array = SystolicArray(ArrayConfig(2, 3, dataflow=dataflow))
    return array.fold(w=W, x=X if dataflow != "output_stationary" else X[:2]).view(title="Worked example")


def cycle_of(page: Any) -> int:
    return int(page.locator(".systolic-viewer").get_attribute("data-cycle"))


def pe(page: Any, row: int, col: int, down: float = 0.5, across: float = 0.5) -> tuple[float, float]:
    """Return a place in the picture of a PE of the worked example, on the screen."""
    box = page.locator("canvas").bounding_box()
    side, left, top = 118, 24 + 5 * max(30, min(42, box["width"] / 26)), 34 + 5 * 17
    # As wide as it is drawn at this size of the window: array.js, drawBoxes.
    token = (box["width"] - 16 - 24 - 3 * side) / 5
    left = 24 + 5 * token
    return box["x"] + left + (col + across) * side, box["y"] + top + (row + down) * 92


def test_buttons_keys_and_slider_move_in_time(browser: Any, tmp_path: Path) -> None:
    with opened(browser, worked_example().html(), tmp_path) as (page, faults):
        assert cycle_of(page) == 0
        page.get_by_label("Step forward").click()
        page.keyboard.press(".")
        assert cycle_of(page) == 2
        page.get_by_label("Step back").click()
        page.keyboard.press(",")
        page.keyboard.press(",")
        assert cycle_of(page) == 0
        page.get_by_label("Cycle", exact=True).fill("5")
        assert cycle_of(page) == 5
        page.keyboard.press("ArrowRight")  # of the slider
        assert cycle_of(page) == 6
        page.keyboard.press("End")
        page.locator("body").click(position={"x": 2, "y": 2})
        page.keyboard.press("Home")
        assert cycle_of(page) == 0
        page.get_by_label("Cycles per second").select_option("60")
        page.keyboard.press("Space")
        page.wait_for_selector('.systolic-viewer[data-cycle="9"]')
        assert "Play" in page.locator(".play").inner_text()  # it stops at the end
        table = page.get_by_label("Outputs").locator("table")
        assert [row.split()[2:] for row in table.inner_text().replace("−", "-").splitlines()[1:]] == [
            ["27", "14", "-15"], ["61", "20", "-21"], ["25", "106", "-117"],
        ]  # fmt: skip
    assert faults == []


def test_a_pointer_tells_the_product_and_a_click_follows_a_value(browser: Any, tmp_path: Path) -> None:
    with opened(browser, worked_example().html(), tmp_path) as (page, faults):
        page.get_by_label("Cycle", exact=True).fill("5")
        page.mouse.move(*pe(page, 1, 0))
        assert page.locator(".tip").inner_text() == (
            "PE (1, 0): x[1, 1] × w[1, 0] = 4 × 10 = 40. Sum so far 61: 2 of 2 products of y[1, 0]."
        )
        page.mouse.click(*pe(page, 1, 0))
        followed = page.get_by_label("Followed value")
        assert "the sum of y[1, 0]" in followed.inner_text()
        assert "In PE (0, 0) after the edge of cycle 3, to PE (1, 0) after the edge of cycle 4" in followed.inner_text()
        page.get_by_text("Where it begins").click()
        assert cycle_of(page) == 4 and "Now in psum of PE (0, 0)" in followed.inner_text()
        page.mouse.click(*pe(page, 0, 0, down=0.2, across=0.4))
        assert "x[1, 0]" in followed.inner_text() and "to PE (0, 2) after the edge of cycle 5" in followed.inner_text()
        page.mouse.click(*pe(page, 0, 0, down=0.2, across=0.6))
        assert "w[0, 0]" in followed.inner_text()
        page.locator("canvas").press("Escape")
        assert followed.is_hidden()
    assert faults == []


def test_values_on_their_way_are_named_and_followed(browser: Any, tmp_path: Path) -> None:
    with opened(browser, worked_example().html(), tmp_path) as (page, faults):
        page.get_by_label("Cycle", exact=True).fill("1")
        x, y = pe(page, 0, 1)
        tip, followed = page.locator(".tip"), page.get_by_label("Followed value")
        page.mouse.move(x, y - 46 - 12 - 8)
        assert tip.inner_text() == "w[1, 1] = 11 enters the array with the next edge."
        page.mouse.click(x, y - 46 - 12 - 8)
        assert "w[1, 1]" in followed.inner_text() and "Not yet in the array" in followed.inner_text()
        x, y = pe(page, 0, 0)
        page.mouse.move(x - 59 - 14 - 40, y)
        assert tip.inner_text() == "x[0, 0] = 1 enters the array 2 edges from now."
        page.get_by_label("Cycle", exact=True).fill("5")
        page.mouse.move(*pe(page, 1, 0, down=1 + 38 / 92))
        assert tip.inner_text() == "27 left the array 1 edge ago: a sum of y[0, 0]."
    assert faults == []


@pytest.mark.parametrize("dataflow", ["output_stationary", "input_stationary"])
def test_other_dataflows(browser: Any, tmp_path: Path, dataflow: str) -> None:
    with opened(browser, worked_example(dataflow).html(), tmp_path) as (page, faults):
        page.get_by_label("Cycle", exact=True).fill("3")
        page.locator("canvas").focus()
        page.keyboard.press("ArrowRight")
        words = page.get_by_label("Chosen processing element").inner_text()
        expected = {
            "output_stationary": "x[0, 1] × w[1, 1] = 2 × 11 = 22. Sum so far 14: 2 of 2 products of y[0, 1].",
            "input_stationary": "belongs to no product",
        }
        assert "PE (0, 1)" in words and expected[dataflow] in words
        page.keyboard.press("Enter")
        assert page.get_by_label("Followed value").is_visible()
    assert faults == []


def test_everything_has_a_name_and_says_what_changes(browser: Any, tmp_path: Path) -> None:
    with opened(browser, worked_example().html(), tmp_path) as (page, faults):
        nameless = page.evaluate(
            """() => [...document.querySelectorAll("button, select, input, canvas, [tabindex]")]
            .filter((e) => !(e.getAttribute("aria-label") || e.innerText || "").trim()).map((e) => e.outerHTML)"""
        )
        assert nameless == []
        page.keyboard.press(".")
        status = page.get_by_role("status")
        when = "after the edge of cycle 0 (the last is 8)"
        assert status.inner_text().startswith("After the edge of cycle 0. PE 0, 0:")
        assert page.get_by_label("Cycle", exact=True).get_attribute("aria-valuetext") == when
        assert page.locator(".time").inner_text() == when
        # Everything that can be clicked can be reached by Tab.
        page.locator("body").click(position={"x": 2, "y": 2})
        reached = set()
        for _ in range(30):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.outerHTML.slice(0, 70)"))
        wanted = page.evaluate(
            """() => [...document.querySelectorAll("button, select, input, canvas")]
            .filter((e) => !e.disabled && e.offsetParent).map((e) => e.outerHTML.slice(0, 70))"""
        )
        assert set(wanted) <= reached
    assert faults == []


# Of the whole page, and of the picture in it. Another font makes 0.022 and 0.007, another cycle 0.012 of the picture.
MOST_DIFFERENT, MOST_DIFFERENT_PICTURE = 0.03, 0.01
PICTURE = (slice(115, 520), slice(0, 620))


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean difference of two pictures, from 0 to 1, each made of squares of 4 x 4 pixels."""
    small = [v[: v.shape[0] // 4 * 4, : v.shape[1] // 4 * 4, :3].astype(float) for v in (a, b)]
    means = [v.reshape(v.shape[0] // 4, 4, v.shape[1] // 4, 4, 3).mean((1, 3)) for v in small]
    return float(np.abs(means[0] - means[1]).mean())


def stored_and_shown(browser: Any, tmp_path: Path, dark: bool, cycle: str) -> tuple[np.ndarray, np.ndarray]:
    image = pytest.importorskip("matplotlib.image")
    name = f"page-{'dark' if dark else 'light'}.png"
    with opened(browser, worked_example().html(), tmp_path, dark=dark) as (page, faults):
        page.get_by_label("Cycle", exact=True).fill(cycle)
        page.mouse.click(*pe(page, 0, 1))
        page.screenshot(path=str(tmp_path / name))
        assert faults == []
    return image.imread(HERE / name), image.imread(tmp_path / name)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_looks_as_stored(browser: Any, tmp_path: Path, dark: bool) -> None:
    stored, shown = stored_and_shown(browser, tmp_path, dark, "5")
    assert shown.shape == stored.shape
    assert difference(stored, shown) < MOST_DIFFERENT
    assert difference(stored[PICTURE], shown[PICTURE]) < MOST_DIFFERENT_PICTURE
    _, other = stored_and_shown(browser, tmp_path, dark, "6")
    assert difference(stored[PICTURE], other[PICTURE]) > MOST_DIFFERENT_PICTURE


def test_a_large_array_is_a_heat_map_at_30_frames_a_second(browser: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, w = (rng.integers(-128, 128, shape, dtype=np.int8) for shape in ((489, 256), (256, 256)))
    view = SystolicArray(ArrayConfig(256, 256)).fold(x=x, w=w).view()
    html = view.html()
    assert view.description["cycles"] > 1000 and len(html) < 2_000_000
    with opened(browser, html, tmp_path) as (page, faults):
        assert page.get_by_label("What to draw").input_value() == "psum"
        # Each step is taken and drawn; how fast the screen could take them is not measured.
        times = page.evaluate(
            """async () => {
            const slider = document.querySelector("input");
            const times = [];
            for (let cycle = 400; cycle < 440; cycle++) {
                const start = performance.now();
                slider.value = cycle;
                slider.dispatchEvent(new Event("input"));
                times.push(performance.now() - start);
                await new Promise(requestAnimationFrame);
            }
            return times.slice(1);
            }"""
        )
        assert np.median(times) < 1000 / 30
        page.get_by_label("Step back").click()
        assert cycle_of(page) == 438
        page.get_by_label("What to draw").select_option("activation")
    assert faults == []


def test_a_timeline_shows_what_runs_when(browser: Any, tmp_path: Path) -> None:
    program = Program("""
        read_weights w#0, 1
        read_host u#0, 16
        matmul a#0, u#0, 16
        activate u#16, a#0, 16
        write_host u#16, 16
    """)
    timeline = time_program(program, presets.TPU_V1)
    with opened(browser, timeline.view().html(), tmp_path, dark=True) as (page, faults):
        swap = int(timeline.swap[0])
        page.get_by_label("Cycle", exact=True).fill(str(swap))
        now = page.get_by_label("This cycle").inner_text()
        assert "The array: active." in now and "matrix matmul a#0, u#0, 16" in now
        counts = page.get_by_label("Cycles by cause").inner_text()
        assert f"weight stall\t{timeline.causes['weight_stall']:,}" in counts
        page.locator("canvas").focus()
        for _ in range(5):
            page.keyboard.press("ArrowDown")
        assert f"matrix, cycles {swap:,} to {swap + 16:,}" in page.get_by_label("Chosen event").inner_text()
        for key in "++-0":
            page.keyboard.press(key)
        assert cycle_of(page) == swap
    assert faults == []


def test_names_cannot_become_code(browser: Any, tmp_path: Path) -> None:
    array = SystolicArray(ArrayConfig(1, 1)).fold(x=np.int8([[1]]), w=np.int8([[1]]))
    title = "</script><script>document.title = 'broken'</script>"
    with opened(browser, array.view(title=title).html(), tmp_path) as (page, faults):
        assert page.title() == title and page.locator("h1").inner_text() == title
    assert faults == []


WIDGET = """<!doctype html><meta charset="utf-8"><style>{style}</style><div id="cell"></div>
<script type="module">
{source}
const values = {{ description: {data}, cycle: 3 }};
const listeners = new Set();
const model = {{
  get: (name) => values[name],
  set(name, value) {{ values[name] = value; for (const listen of listeners) listen(); }},
  save_changes() {{ window.saved = values.cycle; }},
  on: (name, listen) => listeners.add(listen),
  off: (name, listen) => listeners.delete(listen),
}};
window.model = model;
window.close_widget = render({{ model, el: document.getElementById("cell") }});
</script>"""


def test_the_widget_keeps_its_cycle_and_the_notebooks_alike(browser: Any, tmp_path: Path) -> None:
    html = WIDGET.format(style=style(), source=source(), data=worked_example()._data)
    with opened(browser, html, tmp_path) as (page, faults):
        assert cycle_of(page) == 3
        page.evaluate("model.set('cycle', 6)")
        assert cycle_of(page) == 6
        page.get_by_label("Step forward").click()
        assert page.evaluate("[window.saved, model.get('cycle')]") == [7, 7]
        page.keyboard.press(".")  # while a button in it has the focus
        assert cycle_of(page) == 8
        page.evaluate("close_widget()")
        page.evaluate("model.set('cycle', 1)")
        assert cycle_of(page) == 8
    assert faults == []


def test_a_model_compiled_to_a_program_fits_a_page(browser: Any, tmp_path: Path) -> None:
    example = systolic.load_example()
    run = systolic.run(example.model, example.images[:2], mode="wavefront")
    with opened(browser, run.timeline.view().html(), tmp_path, size=(480, 900)) as (page, faults):
        page.keyboard.press("End")
        assert cycle_of(page) == run.stats.cycles
        assert page.evaluate("document.documentElement.scrollWidth") <= 480
    assert faults == []
