"""How many threads the package may use, and sharing work among them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from threading import Event, Lock
from typing import TYPE_CHECKING

from systolic import _check

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

_threads: int | None = None
_pool: ThreadPoolExecutor | None = None
_pool_size = 0
_pool_lock = Lock()


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


def share(tasks: Iterable[Callable[[], object]], workers: int) -> None:
    """Run tasks in this thread and at most ``workers - 1`` others, each taking the next one.

    The others come from one pool for the whole process. While other callers keep it busy, this
    thread does the tasks by itself: however many threads of a user call at once, the package adds
    no more than the pool's. After a fork the child makes a pool of its own.

    Parameters
    ----------
    tasks : iterable of callable
        Taken one after another; what they return is dropped. After one raises, no other begins,
        and its error is raised here.
    workers : int
    """
    remaining, lock, failed = iter(tasks), Lock(), Event()

    def work() -> None:
        while not failed.is_set():
            with lock:
                task = next(remaining, None)
            if task is None:
                return
            try:
                task()
            except BaseException:
                failed.set()
                raise

    if workers == 1:
        work()
        return
    others = _submit(work, workers - 1)
    try:
        work()
    except BaseException:
        failed.set()
        raise
    finally:
        # Those that have not begun have nothing left to do.
        begun = [other for other in others if not other.cancel()]
        errors = [other.exception() for other in begun]
    for error in errors:
        if error is not None:
            raise error


def _submit(work: Callable[[], None], count: int) -> list[Future[None]]:
    """Give work `count` times to the process's pool, which grows to as many threads."""
    from concurrent.futures import ThreadPoolExecutor

    global _pool, _pool_size
    with _pool_lock:
        if _pool is None or _pool_size < count:
            # A smaller pool finishes what it was given, then its threads end.
            if _pool is not None:
                _pool.shutdown(wait=False)
            _pool_size = max(count, thread_count() - 1)
            _pool = ThreadPoolExecutor(_pool_size, thread_name_prefix="systolic")
        return [_pool.submit(work) for _ in range(count)]


def _forget_pool() -> None:
    # A forked child has the pool but not its threads; and perhaps the lock, held.
    global _pool, _pool_lock
    _pool, _pool_lock = None, Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
