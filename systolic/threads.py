"""The number of threads to use; ``_threads`` shares work among them."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import ParamSpec, TypeVar

from systolic import _check

_threads: int | None = None
_here: ContextVar[int | None] = ContextVar("threads", default=None)

_P = ParamSpec("_P")
_T = TypeVar("_T")

# Beyond any use; it keeps a slip from starting threads until the system refuses.
_MOST_THREADS = 1024


def set_threads(threads: int | None) -> None:
    """Set how many threads calls use by default; None: the cores the process may use.

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
    here = _here.get()
    if here is not None:
        return here
    if _threads is not None:
        return _threads
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), _MOST_THREADS)
    return min(os.cpu_count() or 1, _MOST_THREADS)


def with_threads(threads: int, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call a function with a default number of threads for calls without `threads=`.

    A run does so for each host operator. The count is set in a copy of the context, which is dropped after
    the call: nothing needs to be restored, so no interrupt can prevent it.
    """
    context = copy_context()
    context.run(_here.set, threads)
    return context.run(call, *args, **kwargs)
