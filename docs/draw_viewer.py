"""Draw the viewer, for the README: ``python docs/draw_viewer.py`` writes ``viewer.png`` beside it.

Needs a Chromium and ``pip install "systolic[browser]"``. Machines differ in fonts, and so do the pictures.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np

from systolic import ArrayConfig, SystolicArray

CYCLE = 9


def main() -> None:
    """Write ``viewer.png`` beside this script."""
    from playwright.sync_api import sync_playwright

    rng = np.random.default_rng(3)
    array = SystolicArray(ArrayConfig(4, 4))
    for m in (6, 4):
        w, x = (rng.integers(-9, 10, shape, dtype=np.int8) for shape in ((4, 4), (m, 4)))
        array.fold(w=w, x=x)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("there is no chromium and no google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1120, "height": 700})
        page.set_content(array.view(title="Two folds on 4 x 4 PEs").html())
        page.get_by_label("Cycle", exact=True).fill(str(CYCLE))
        canvas = page.locator("canvas")
        for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
            canvas.press(key)
        canvas.press("Enter")
        page.locator("body").click(position={"x": 2, "y": 2})
        page.screenshot(path=str(Path(__file__).with_name("viewer.png")))
        browser.close()


if __name__ == "__main__":
    main()
