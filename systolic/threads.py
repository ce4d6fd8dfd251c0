"""How many threads the package may use."""

from __future__ import annotations

import os

from systolic import _check

_threads: int | None = None


def set_threads(threads: int | None) -> None:
    """Set how many threads calls use that are not told; None: the cores the process may use.

    Examples
    --------
    >>> import systolic
    >>> systolic.set_threads(1)
    >>> systolic.set_threads(None)
    """
    global _threads
    _threads = None if threads is None else _check.integer(threads, "threads", minimum=1)


def thread_count(threads: int | None = None) -> int:
    """Return how many threads a call with this `threads` argument uses."""
    if threads is not None:
        return _check.integer(threads, "threads", minimum=1)
    if _threads is not None:
        return _threads
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
