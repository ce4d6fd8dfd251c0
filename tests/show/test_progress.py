"""Progress: a library's bar on terminals and in notebooks, lines elsewhere."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import systolic
from systolic._show.progress import Bar, Lines, bar_class, make, shown

pty = pytest.importorskip("pty", reason="pseudo-terminals as POSIX has them")

ROOT = Path(systolic.__file__).parents[1]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A text stream that says that it is a terminal, of an encoding."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


# Lines


def test_log_has_a_line_each_quarter_and_each_five_seconds() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = Lines("resnet", stream, clock)
    for i in range(101):
        clock.now = 100 + i / 1000
        progress(i, 100)
    assert stream.getvalue().splitlines() == [
        "resnet: 25.0%, 25.0 ms, 75.0 ms left",
        "resnet: 50.0%, 50.0 ms, 50.0 ms left",
        "resnet: 75.0%, 75.0 ms, 25.0 ms left",
        "resnet: 100.0%, in 100 ms",
    ]
    stream, clock = io.StringIO(), Clock()
    progress = Lines("resnet", stream, clock)
    progress(0, 1000)
    clock.now = 106
    progress(0, 1000)
    for i in range(7, 13):
        clock.now = 100 + i
        progress(i, 1000)
    clock.now += 5
    progress(99_999, 100_000)
    assert stream.getvalue().splitlines() == [
        "resnet: 0.0%, 6.00 s",
        "resnet: 1.1%, 11.0 s, 16 min 29 s left",
        "resnet: 99.9%, 17.0 s, 170 µs left",
    ]


def test_lines_end_once_and_begin_anew() -> None:
    stream = io.StringIO()
    progress = Lines("x", stream)
    for done, total in ((0, 0), (0, 0), (5, 3), (1, 3), (3, 3)):
        progress(done, total)
    assert stream.getvalue().count("100.0%") == 2


def test_lines_without_any_standard_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Lines("x")(1, 1)
    captured = capsys.readouterr()
    assert captured.err.startswith("x: 100.0%, in ") and captured.out == ""
    monkeypatch.setattr(sys, "stderr", None)
    Lines("x")(1, 1)
    assert isinstance(make(True, "x"), Lines)


# The bar


@pytest.fixture
def terminal() -> Terminal:
    pytest.importorskip("tqdm")
    return Terminal()


def bar(stream: Terminal) -> Bar:
    made = bar_class(stream)
    assert made is not None
    return Bar("resnet", made, stream)


def test_a_bar_ends_once_and_begins_anew(terminal: Terminal) -> None:
    progress = bar(terminal)
    for done, total in ((0, 0), (0, 0), (0, 2), (1, 2), (2, 2), (2, 2), (9, 8), (1, 8), (8, 8)):
        progress(done, total)
    progress.close()
    text = terminal.getvalue()
    assert text.count("\n") == text.count("100%") == 3 and text.endswith("\n") and "resnet" in text


def test_a_total_that_grows(terminal: Terminal) -> None:
    progress = bar(terminal)
    progress(1, 2)
    progress(2, 400)
    progress(399, 400)
    assert "\n" not in terminal.getvalue()
    progress.close()
    assert re.search(r"100%.*400/400.*\n$", terminal.getvalue())


def test_after_an_error_the_line_is_empty(terminal: Terminal) -> None:
    progress = bar(terminal)
    progress(1, 2)
    progress.close(failed=True)
    progress.close(failed=True)
    *_, drawn, blank, last = terminal.getvalue().split("\r")
    assert "resnet: " in drawn and blank.strip() == last == "" and len(blank) >= len(drawn)


def test_a_bar_suits_its_encoding(terminal: Terminal) -> None:
    terminal.encoding = "cp1252"
    bar(terminal)(5, 10)
    terminal.getvalue().encode("ascii")


def test_what_users_pass(monkeypatch: pytest.MonkeyPatch, terminal: Terminal) -> None:
    assert make(None, "x") is None and make(False, "x") is None and make(print, "x") is print
    assert isinstance(make(True, "x"), Lines)
    monkeypatch.setattr(sys, "stderr", terminal)
    found = make(True, "x")
    assert isinstance(found, Bar) and found.label == "x"
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    assert isinstance(make(True, "x"), Lines)
    for bad in (1, "yes", 0.0):
        with pytest.raises(TypeError, match=r"^progress must be True, .* a function \(done, total\), not"):
            make(bad, "x")


def test_no_thread_is_left(terminal: Terminal) -> None:
    import threading

    before = threading.active_count()
    bar(terminal)(1, 2)
    assert threading.active_count() == before


# On a terminal


def screen(text: str) -> list[str]:
    """Return the lines that a terminal shows after a text."""
    lines = [""]
    for part in re.split(r"(\r\n|\r|\n)", re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", text)):
        if part == "\r":
            lines[-1] = f"\r{lines[-1].lstrip(chr(13))}"
        elif part in ("\n", "\r\n"):
            lines.append("")
        elif part:
            before = lines[-1]
            lines[-1] = part + before[len(part) + 1 :] if before.startswith("\r") else before + part
    return [line.lstrip("\r").rstrip() for line in lines]


def on_a_terminal(arguments: list[str], interrupt: float | None = None, **variables: str) -> tuple[int, list[str]]:
    """Run a command on a pseudo-terminal; return its status and what stands on the screen."""
    main, other = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100", **variables}
    process = subprocess.Popen(arguments, stdin=other, stdout=other, stderr=other, env=environment)
    os.close(other)
    parts, started, sent = [], time.monotonic(), False
    os.set_blocking(main, False)
    while time.monotonic() - started < 120:
        try:
            part = os.read(main, 1 << 16)
        except BlockingIOError:
            part = None
        except OSError:  # the other end is closed
            break
        if part == b"":
            break
        if part:
            parts.append(part)
        shows = b"%|" in b"".join(parts)
        if interrupt is not None and shows and not sent:
            time.sleep(interrupt)
            process.send_signal(signal.SIGINT)
            sent = True
        if part is None:
            time.sleep(0.02)
    os.close(main)
    return process.wait(timeout=60), screen(b"".join(parts).decode())


GEMM = [sys.executable, "-m", "systolic", "gemm", "500", "300", "300", "--array", "64x64"]


@pytest.mark.slow
def test_on_a_terminal() -> None:
    pytest.importorskip("tqdm")
    status, lines = on_a_terminal(GEMM)
    assert status == 0 and re.match(r"cycle mode: 100%\|█+\| .*/", lines[0]), lines
    assert lines[1] == "500 x 300 x 300" and "%|" not in "".join(lines[1:])


@pytest.mark.slow
def test_nothing_is_left_after_ctrl_c_and_errors() -> None:
    pytest.importorskip("tqdm")
    long = [*GEMM[:3], "gemm", "9000000", "64", "64", "--array", "64x64"]
    status, lines = on_a_terminal(long, interrupt=0.2)
    assert status == 130 and [line for line in lines if line] == ["interrupted"], lines
    code = """
from systolic._show.progress import shown
with shown(True, "work") as report:
    report(1, 2)
    raise ValueError("broken")
"""
    status, lines = on_a_terminal([sys.executable, "-c", code])
    assert status == 1 and lines[0].startswith("Traceback") and "%|" not in "".join(lines)


@pytest.mark.slow
def test_into_a_pipe_progress_is_lines() -> None:
    done = subprocess.run(GEMM, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60)
    assert done.returncode == 0 and "\r" not in done.stderr
    assert all(re.match(r"cycle mode: \d+\.\d%, ", line) for line in done.stderr.splitlines())
    assert done.stderr.splitlines()[-1].startswith("cycle mode: 100.0%, in ")


# In a notebook


def cell_outputs(code: str) -> list[Any]:
    """Return the outputs of a cell that a kernel ran."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    first = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    notebook.cells[0].source = first + notebook.cells[0].source
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    return notebook.cells[0].outputs


MULTIPLY = """
import warnings; warnings.simplefilter("error")
import numpy as np, systolic
x = np.ones((200, 64), np.int8)
_ = systolic.matmul(x, x.T, array=systolic.ArrayConfig(16, 16), progress=True)
"""


@pytest.mark.slow
def test_in_a_notebook() -> None:
    pytest.importorskip("tqdm")
    pytest.importorskip("ipywidgets")
    (output,) = cell_outputs(MULTIPLY)
    assert output["output_type"] == "display_data" and "cycle mode: " in output["data"]["text/plain"]
    assert "application/vnd.jupyter.widget-view+json" in output["data"]


@pytest.mark.slow
def test_in_a_notebook_without_widgets() -> None:
    pytest.importorskip("tqdm")
    (output,) = cell_outputs(f"import sys; sys.modules['ipywidgets'] = None\n{MULTIPLY}")
    assert output["output_type"] == "stream" and output["name"] == "stderr"
    assert all(re.match(r"cycle mode: \d+\.\d%, ", line) for line in output["text"].splitlines())


def test_shown_closes(monkeypatch: pytest.MonkeyPatch, terminal: Terminal) -> None:
    monkeypatch.setattr(sys, "stderr", terminal)
    with shown(True, "work") as report:
        assert report is not None
        report(1, 3)
    assert terminal.getvalue().endswith("\n") and "3.00/3.00" in terminal.getvalue()
    before = len(terminal.getvalue())
    with pytest.raises(KeyboardInterrupt), shown(True, "work") as report:
        assert report is not None
        report(1, 3)
        raise KeyboardInterrupt
    assert screen(terminal.getvalue()[before:]) == [""]
