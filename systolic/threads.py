"""How many threads the package may use, and sharing work among them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable
from threading import Condition, Event, Thread

from systolic import _check

_threads: int | None = None
# Threads that help, and what waits for one. Not concurrent.futures: its import, which a package does not want
# when it is imported, cannot be had later without harm to a fork that comes in between; and its pools take
# nothing once the main thread has ended.
_helpers = 0
_waiting: deque[Callable[[], None]] = deque()
_wake = Condition()

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

    The others are threads of one pool for the whole process. While other callers keep it busy, this
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
    """Have work called by at most `count` threads of the process, which are started as they are needed.

    By fewer where no thread can be started (at a limit of the operating system, while the interpreter
    ends), and where as much work waits already as there are threads: the caller does it too.
    """
    global _helpers
    with _wake:
        try:
            while _helpers < count:
                # One that has nothing to do does not keep the program from ending.
                Thread(target=_help, name=f"systolic_{_helpers}", daemon=True).start()
                _helpers += 1
        except RuntimeError:
            pass
        count = min(count, _helpers - len(_waiting))
        if count > 0:
            _waiting.extend([work] * count)
            _wake.notify(count)


def _help() -> None:
    while True:
        with _wake:
            while not _waiting:
                _wake.wait()
            work = _waiting.popleft()
        work()
        del work  # and the operands it holds


def _forget_helpers() -> None:
    # A forked child has none of the threads; and perhaps the lock, held.
    global _waiting, _wake, _helpers
    _waiting, _wake, _helpers = deque(), Condition(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_helpers)
