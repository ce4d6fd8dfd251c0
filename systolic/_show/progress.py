"""``Progress``: a progress line on a terminal or in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from systolic._show.table import percent, seconds

_REDRAW_SECONDS = 0.1
_LOG_SECONDS = 5.0
_LOG_SHARE = 0.25
_BAR = 24


class Progress:
    """A progress line, called as ``progress(done, total)``.

    On a terminal the line is redrawn in place, at most ten times a second, and ended when
    `done` reaches `total`. Elsewhere (a log, a notebook) plain lines appear: one for each
    quarter of the work, or after five seconds without one. A call with a smaller `done` than
    the previous one starts again.

    Parameters
    ----------
    label : str
        Name of the work.
    stream : text stream, optional
        Where to write; None means standard error.
    clock : callable
        Returns seconds, monotonic.
    """

    def __init__(
        self,
        label: str = "running",
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.label = label
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._terminal = bool(self._stream is not None and self._stream.isatty())
        self._begin()

    def _begin(self) -> None:
        self._start = self._clock()
        self._done = 0
        self._share = 0.0  # of the work, when last written
        self._written: float | None = None  # the time of it
        self._length = 0  # of the line on the terminal
        self._finished = False

    def __call__(self, done: int, total: int) -> None:
        """Report that `done` of `total` is done, in any unit."""
        if done < self._done:
            self.close()
            self._begin()
        self._done = done
        if self._finished:
            return
        now = self._clock()
        share = min(done / total, 1.0) if total > 0 else 1.0
        self._finished = share == 1.0
        since = now - (self._start if self._written is None else self._written)
        if self._terminal:
            due = self._written is None or since >= _REDRAW_SECONDS
        else:
            due = since >= _LOG_SECONDS or share // _LOG_SHARE > self._share // _LOG_SHARE
        if due or self._finished:
            self._written, self._share = now, share
            self._write(share, now - self._start)

    def _write(self, share: float, elapsed: float) -> None:
        if self._finished:
            times = f"in {seconds(elapsed)}"
        elif share > 0:
            times = f"{seconds(elapsed)}, {seconds(elapsed * (1 - share) / share)} left"
        else:
            times = seconds(elapsed)
        # Never 100% before the end.
        done = percent(share if self._finished else min(share, 0.999))
        if not self._terminal:
            self._put(f"{self.label}: {done}, {times}\n")
            return
        import shutil

        line = f"{self.label} {self._bar(share)} {done:>6}  {times}"
        # A wrapped line cannot be redrawn in place.
        line = line[: max(shutil.get_terminal_size().columns - 1, 10)]
        self._put("\r" + line.ljust(self._length) + ("\n" if self._finished else ""))
        self._length = 0 if self._finished else len(line)

    def _bar(self, share: float) -> str:
        full, empty = "█", "░"
        try:
            (full + empty).encode(getattr(self._stream, "encoding", None) or "ascii")
        except (UnicodeEncodeError, LookupError):
            full, empty = "#", "."
        count = int(share * _BAR)
        return full * count + empty * (_BAR - count)

    def _put(self, text: str) -> None:
        if self._stream is not None:  # as under pythonw, where there is no standard error
            self._stream.write(text)
            self._stream.flush()

    def close(self) -> None:
        """End an unfinished line, as after an error, so that later output starts below it."""
        if self._length:
            self._put("\n")
            self._length = 0


def make(progress: Any, label: str) -> Callable[[int, int], None] | None:
    """Return a user's ``progress=`` argument as a function ``(done, total)``, or None.

    Parameters
    ----------
    progress : None, bool or callable
        None and False show nothing, True makes a :class:`Progress`, a function is used as it is.
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
        return Progress(label)
    if callable(progress):
        return progress
    raise TypeError(
        "progress must be True, False, None or a function (done, total), "
        f"not {type(progress).__name__} {progress!r}"
    )


@contextmanager
def shown(progress: Any, label: str) -> Iterator[Callable[[int, int], None] | None]:
    """Yield the function of :func:`make`; end its line when the block ends."""
    report = make(progress, label)
    try:
        yield report
    finally:
        if isinstance(report, Progress):
            report.close()
