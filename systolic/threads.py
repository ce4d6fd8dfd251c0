"""How many threads the package may use, and sharing work among them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from threading import Condition, Event, Lock
from typing import TYPE_CHECKING

from systolic import _check

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

_threads: int | None = None
_pool: ThreadPoolExecutor | None = None
_pool_size = 0
_pool_lock = Lock()

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
    if _threads is not None:
        return _threads
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), _MOST_THREADS)
    return min(os.cpu_count() or 1, _MOST_THREADS)


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
    remaining, lock, failed = iter(tasks), Condition(), Event()
    helping = 0
    errors: list[BaseException] = []

    def work() -> None:
        while not failed.is_set():
            with lock:
                task = next(remaining, None)
            if task is None:
                return
            task()

    def help_out() -> None:
        nonlocal helping
        with lock:
            helping += 1
        try:
            work()
        except BaseException as error:
            failed.set()
            errors.append(error)
        finally:
            with lock:
                helping -= 1
                lock.notify()

    try:
        if workers > 1:
            _submit(help_out, workers - 1)
        work()
    except BaseException:
        failed.set()
        raise
    finally:
        # Those that begin later find nothing left to do.
        with lock:
            while helping:
                lock.wait()
    if errors:
        raise errors[0]


def _submit(work: Callable[[], None], count: int) -> None:
    """Give work `count` times to the process's pool, which grows to as many threads.

    Fewer times, or not at all, where no thread can be started: at a limit of the operating system, or once
    the main thread has ended, after which Python's pools take nothing while other threads may run on.
    """
    global _pool, _pool_size
    with _pool_lock:
        try:
            from concurrent.futures import ThreadPoolExecutor

            if _pool is None or _pool_size < count:
                # A smaller pool finishes what it was given, then its threads end.
                if _pool is not None:
                    _pool.shutdown(wait=False)
                _pool_size = max(count, thread_count() - 1)
                _pool = ThreadPoolExecutor(_pool_size, thread_name_prefix="systolic")
            for _ in range(count):
                _pool.submit(work)
        except RuntimeError:
            # It keeps what it took before it raised, and threads it has still run that; the next call
            # makes another, so that nothing piles up in one without threads.
            _pool = None


def _forget_pool() -> None:
    # A forked child has the pool but not its threads; and perhaps the lock, held.
    global _pool, _pool_lock
    _pool, _pool_lock = None, Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
