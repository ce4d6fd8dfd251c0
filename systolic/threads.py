"""How many threads the package may use; ``_pool`` shares work among them."""

from __future__ import annotations

import os
from threading import local

from systolic import _check

_threads: int | None = None
_here = local()  # .threads: use_here()

# Beyond any use; it keeps a slip from starting threads until the system refuses.
_MOST_THREADS = 1024


def set_threads(threads: int | None) -> None:
    """Set how many threads calls use that are not told; None: the cores the process may use.

    Raises
    ------
    TypeError, ValueError
        If `threads` is not an integer from 1 to 1024.

    Examples
    --------
    >>> import systolic
    >>> systolic.set_threads(1)
    >>> systolic.set_threads(None)
    """
    global _threads
    _threads = None if threads is None else thread_count(threads)


def thread_count(threads: int | None = None) -> int:
    """Return how many threads a call with this `threads` argument uses."""
    if threads is not None:
        return _check.integer(threads, "threads", minimum=1, maximum=_MOST_THREADS)
    here: int | None = getattr(_here, "threads", None)
    if here is not None:
        return here
    if _threads is not None:
        return _threads
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), _MOST_THREADS)
    return min(os.cpu_count() or 1, _MOST_THREADS)


def use_here(threads: int | None) -> int | None:
    """Let calls from this thread that are not told use so many threads; return how many it was before.

    A run does so for each operator beside the array, and takes it back.
    """
    before: int | None = getattr(_here, "threads", None)
    _here.threads = threads
    return before
