"""Node and a headless Chromium for tests of pages: found on this machine, or a reason to skip.

If the environment variable SYSTOLIC_REQUIRE_BROWSER is set to 1, their absence is an error.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from systolic.viewer.page import source

REQUIRED = os.environ.get("SYSTOLIC_REQUIRE_BROWSER") == "1"

_INSTALL = "pip install playwright; apt-get install chromium, or set SYSTOLIC_CHROMIUM to another Chromium"


def _playwright() -> Path | None:
    found = importlib.util.find_spec("playwright")
    return Path(found.origin).parent if found and found.origin else None


def node() -> str:
    """Return the path of node: the system's, or the one that playwright brings; skip without."""
    bundled = _playwright() and _playwright() / "driver" / "node"
    path = shutil.which("node") or (str(bundled) if bundled and bundled.exists() else None)
    return path or _missing("no node")


def chromium() -> str:
    """Return the path of Chromium; skip without it or without playwright, which drives it."""
    if _playwright() is None:
        return _missing("no playwright")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("SYSTOLIC_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    return path or _missing("no Chromium")


@contextmanager
def launched() -> Iterator[Any]:
    """Yield a headless Chromium; skip without it or without playwright."""
    path = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Without a sandbox, which root cannot have.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def _missing(reason: str) -> Any:
    if REQUIRED:
        raise RuntimeError(f"SYSTOLIC_REQUIRE_BROWSER=1, but there is {reason}: {_INSTALL}")
    pytest.skip(f"{reason}: {_INSTALL}")


_CLOCK = """
import fs from "fs";
const results = [];
for (const { description, cycles, journeys } of JSON.parse(fs.readFileSync(0))) {
  const model = new ArrayModel(description);
  const seen = cycles.map((cycle) => {
    model.seek(cycle);
    // JSON has no NaN, and no -0.
    const text = (values) => Array.from(values, (v) => (Object.is(v, -0) ? "-0" : String(v)));
    return Object.fromEntries(Object.entries(model.registers).map(([name, values]) => [name, text(values)]));
  });
  const walks = journeys.map(([cycle, register, row, col]) => {
    model.seek(cycle);
    const value = model.valueIn(register, row, col);
    return value ? model.journey(value) : [];
  });
  model.seek(model.last);
  results.push({ seen, walks, outputs: model.outputs.map((values) => Array.from(values, String)) });
}
console.log(JSON.stringify(results));
"""


def clocked(cases: list[dict[str, Any]], folder: Path, replaced: tuple[str, str] = ("", "")) -> list[Any]:
    """Return what the page's JavaScript makes of descriptions: registers at cycles, journeys, outputs.

    `replaced` is a text of the source and another one, to plant a bug.
    """
    old, new = replaced
    assert old in source()
    program = folder / "clock.mjs"
    program.write_text(source().replace(old, new) + _CLOCK if old else source() + _CLOCK, encoding="utf-8")
    done = subprocess.run(
        [node(), str(program)], input=json.dumps(cases), capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def same(texts: list[str], values: np.ndarray) -> bool:
    """Whether numbers that JavaScript wrote are these; NaN equals NaN."""
    flat = values.ravel()
    if flat.dtype.kind in "iub":
        return [int(text) for text in texts] == flat.astype(np.int64).tolist()
    found = np.array([float(text) for text in texts])
    return bool(np.array_equal(found, flat.astype(np.float64), equal_nan=True))


@contextmanager
def opened(
    browser: Any, html: str, folder: Path, *, dark: bool = False, size: tuple[int, int] = (1100, 760)
) -> Iterator[tuple[Any, list[str]]]:
    """Open a page from a file; yields the page and what it complained of: errors, and requests for anything."""
    path = folder / "page.html"
    path.write_text(html, encoding="utf-8")
    context = browser.new_context(
        color_scheme="dark" if dark else "light", viewport={"width": size[0], "height": size[1]}, device_scale_factor=1
    )
    page = context.new_page()
    faults: list[str] = []
    page.on("console", lambda message: faults.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.on("request", lambda request: faults.append(request.url) if request.url != path.as_uri() else None)
    page.goto(path.as_uri())
    try:
        yield page, faults
    finally:
        context.close()
