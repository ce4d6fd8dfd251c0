"""The report's page in a headless Chromium: sorting, keys, nothing clipped, light, dark and printed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import systolic
from support.browser import launched, opened
from systolic._show.page import Page
from systolic._show.table import Column, Table, si

pytestmark = pytest.mark.slow

LONG = "/model/" + "/".join(f"layers.{i}" for i in range(30))
ROWS = [
    ("conv2", 999_000, 3, LONG), ("conv10", 1_000_000, None, "b"), ("<b>", 5, 1, "a</script>"), ("conv1", 70, 2, "c"),
]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as found:
        yield found


def small_page() -> str:
    columns = ["node", Column("cycles", format=lambda v: si(v, "cycles")), "folds", "path"]
    table = Table(columns, ROWS, title="Layers", footer=("total", 1, 2, None))
    return Page("Costs", [("model", LONG * 4)], [("cycles", "3")], [], [table]).html()


def column(page: Any, number: int) -> list[str]:
    return page.locator(f"tbody tr td:nth-child({number})").all_inner_texts()


def test_a_click_or_a_key_on_a_heading_sorts(browser: Any, tmp_path: Path) -> None:
    with opened(browser, small_page(), tmp_path) as (page, faults):
        cycles, node, folds = (page.locator("th", has_text=name) for name in ("cycles", "node", "folds"))
        assert cycles.get_attribute("aria-sort") == "none"
        cycles.locator("button").click()
        # By the number, not by its text.
        assert column(page, 1) == ["conv10", "conv2", "conv1", "<b>"]
        assert column(page, 2)[0] == "1.00 M cycles" and cycles.get_attribute("aria-sort") == "descending"
        cycles.locator("button").focus()
        page.keyboard.press("Enter")
        assert column(page, 1) == ["<b>", "conv1", "conv2", "conv10"]
        assert cycles.get_attribute("aria-sort") == "ascending"
        page.keyboard.press("Space")
        assert column(page, 1) == ["conv2", "conv10", "<b>", "conv1"] and cycles.get_attribute("aria-sort") == "none"
        node.locator("button").click()
        assert column(page, 1) == ["<b>", "conv1", "conv2", "conv10"]
        assert node.get_attribute("aria-sort") == "ascending"
        for expected in (["3", "2", "1", "-"], ["1", "2", "3", "-"]):  # no value stays last
            folds.locator("button").click()
            assert column(page, 3) == expected and node.get_attribute("aria-sort") == "none"
        assert page.locator("tfoot td").first.inner_text() == "total"
    assert faults == []


CLIPPED = """() => [...document.querySelectorAll("body *")].filter((e) => {
  const scrolls = e.closest(".wide, figure");
  const room = scrolls ? scrolls.scrollWidth + scrolls.getBoundingClientRect().x - scrolls.scrollLeft : innerWidth;
  return e.getClientRects().length && e.getBoundingClientRect().right > room + 1;
}).map((e) => e.outerHTML.slice(0, 90))"""


@pytest.mark.parametrize("size", [(1400, 900), (420, 800)], ids=["wide", "narrow"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_is_clipped(browser: Any, tmp_path: Path, dark: bool, size: tuple[int, int]) -> None:
    example = systolic.load_example()
    run = systolic.run(example.model, example.images[:1], mode="wavefront")
    for html in (run.report().html(), small_page()):
        with opened(browser, html, tmp_path, dark=dark, size=size) as (page, faults):
            assert page.evaluate(CLIPPED) == []
            assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
            # Labels of charts stay inside their picture, and cells hold their text.
            assert page.evaluate(
                """() => [...document.querySelectorAll("svg text")].filter((t) => {
                const a = t.getBoundingClientRect(), b = t.ownerSVGElement.getBoundingClientRect();
                return a.left < b.left - 1 || a.right > b.right + 1 || a.bottom > b.bottom + 1;
                }).map((t) => t.textContent)"""
            ) == []
            assert page.evaluate(
                "[...document.querySelectorAll('td, th, dd')].every((e) => e.scrollWidth <= e.clientWidth + 1)"
            )
            shade, ink = page.evaluate(
                "[getComputedStyle(document.documentElement).colorScheme, getComputedStyle(document.body).color]"
            )
            assert shade == "light dark" and (ink == "rgb(255, 255, 255)") == dark
            assert page.locator(".wide").first.get_attribute("tabindex") == "0"
        assert faults == []


def test_it_prints_on_paper(browser: Any, tmp_path: Path) -> None:
    example = systolic.load_example()
    html = systolic.run(example.model, example.images[:1], mode="wavefront").report().html()
    with opened(browser, html, tmp_path, size=(1047, 700)) as (page, faults):  # A4 across, without margins
        page.emulate_media(media="print")
        assert page.evaluate("document.documentElement.scrollWidth") <= 1047
        assert page.evaluate("getComputedStyle(document.querySelector('.wide')).overflowX") == "visible"
        assert page.evaluate("getComputedStyle(document.querySelector('thead')).display") == "table-header-group"
    assert faults == []


def test_names_cannot_become_code(browser: Any, tmp_path: Path) -> None:
    name = "</script><script>document.title = 'broken'</script><img src=x onerror=document.title='broken'>"
    html = Page(name, [(name, name)], [(name, name)], [], [Table([name], [(name,)], title=name)]).html()
    with opened(browser, html, tmp_path) as (page, faults):
        assert page.title() == name and page.locator("td").inner_text() == name
    assert faults == []
