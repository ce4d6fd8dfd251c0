"""Progress: tqdm's bar on terminals and in notebooks, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from systolic._show.table import percent, seconds

_LOG_SECONDS = 5.0
_LOG_SHARE = 0.25


class Lines:
    """Progress as lines of a log, called as ``progress(done, total)``.

    A line appears for each quarter of the work, or after five seconds without one. A call with a smaller
    `done` than the previous one starts again. `clock` returns seconds.
    """

    def __init__(
        self, label: str, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.label = label
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._begin()

    def _begin(self) -> None:
        self._start = self._written = self._clock()
        self._done = 0
        self._share = 0.0  # of the work, when last written

    def __call__(self, done: int, total: int) -> None:
        """Report that `done` of `total` is done, in any unit."""
        if done < self._done:
            self._begin()
        self._done = done
        share = min(done / total, 1.0) if total > 0 else 1.0
        now = self._clock()
        later = now - self._written >= _LOG_SECONDS
        if self._share < 1 and (later or share // _LOG_SHARE > self._share // _LOG_SHARE):
            self._written, self._share = now, share
            self._write(share, now - self._start)

    def _write(self, share: float, elapsed: float) -> None:
        left = f", {seconds(elapsed * (1 - share) / share)} left" if share > 0 else ""
        times = f"in {seconds(elapsed)}" if share == 1 else f"{seconds(elapsed)}{left}"
        if self._stream is not None:  # as under pythonw, where there is no standard error
            done = percent(share if share == 1 else min(share, 0.999))  # never 100% before the end
            self._stream.write(f"{self.label}: {done}, {times}\n")
            self._stream.flush()


class Bar:
    """Progress as a bar of tqdm's class `made`, called as ``progress(done, total)``.

    The bar stays where it is once the work is done. After an error nothing is left of it on a terminal.
    """

    def __init__(self, label: str, made: type, stream: TextIO) -> None:
        self.label = label
        self._made, self._stream = made, stream
        self._bar: Any = None
        self._done = 0

    def __call__(self, done: int, total: int) -> None:
        """Report that `done` of `total` is done, in any unit."""
        done, total = (min(done, total), total) if total > 0 else (1, 1)
        if done < self._done:
            self.close()
            self._done = 0
        if self._bar is None:
            if self._done:  # the end is reported again
                return
            # Drawn at most ten times a second, whatever the amounts are.
            self._bar = self._made(
                total=total, desc=self.label, file=self._stream, unit="", unit_scale=True, miniters=1,
                **_size(self._stream),
            )  # fmt: skip
        if self._bar.total != total:
            self._bar.total = total
            if hasattr(self._bar, "container"):  # of a notebook
                self._bar.container.children[1].max = total
        self._bar.update(done - self._bar.n)
        self._done = done
        if done == total:
            self.close()

    def close(self, failed: bool = False) -> None:
        """End an unfinished bar: erase it after an error, fill it otherwise."""
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.leave = not failed
            bar.update(0 if failed else bar.total - bar.n)
            bar.close()


def _size(stream: TextIO) -> dict[str, Any]:
    """Return tqdm's options about the size of a terminal; it draws nothing on one that says it has none."""
    try:
        has_none = os.get_terminal_size(stream.fileno()).columns == 0
    except (OSError, ValueError):  # no terminal, or none of this process
        has_none = False
    return {"ncols": 80, "nrows": 24} if has_none else {"dynamic_ncols": True}


def bar_class(stream: TextIO | None) -> type | None:
    """Return the class of tqdm's bar for a stream: a terminal's or a notebook's; None for plain lines."""
    terminal = stream is not None and stream.isatty()
    if not terminal and "ipykernel" not in sys.modules:
        return None
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a notebook is without ipywidgets
            from tqdm.auto import tqdm
    except ImportError:
        return None
    notebook = getattr(sys.modules.get("tqdm.notebook"), "tqdm_notebook", None)
    if not terminal and (notebook is None or not issubclass(tqdm, notebook)):
        return None
    # Without tqdm's thread that redraws bars which are not updated.
    return type("_Bar", (tqdm,), {"monitor_interval": 0})


def make(progress: Any, label: str) -> Callable[[int, int], None] | None:
    """Return a user's ``progress=`` argument as a function ``(done, total)``, or None.

    Parameters
    ----------
    progress : None, bool or callable
        None and False show nothing, True makes a :class:`Bar` or :class:`Lines`, a function is used as it is.
    label : str
        Name of the work.

    Raises
    ------
    TypeError
        If it is anything else.
    """
    if progress is None or progress is False:
        return None
    if progress is True:
        made = bar_class(sys.stderr)
        return Lines(label) if made is None else Bar(label, made, sys.stderr)
    if callable(progress):
        return progress
    raise TypeError(
        "progress must be True, False, None or a function (done, total), "
        f"not {type(progress).__name__} {progress!r}"
    )


@contextmanager
def shown(progress: Any, label: str) -> Iterator[Callable[[int, int], None] | None]:
    """Yield the function of :func:`make`; end its bar when the block ends."""
    report = make(progress, label)
    failed = True
    try:
        yield report
        failed = False
    finally:
        if isinstance(report, Bar):
            report.close(failed)
