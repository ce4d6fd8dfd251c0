"""Sharing work among threads: what they do, what they raise, and where no thread can be had."""

from __future__ import annotations

import subprocess
import sys
import threading
from functools import partial

import pytest

from systolic import threads
from systolic.threads import share


@pytest.mark.parametrize("workers", [1, 2, 3, 9])
@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_each_task_runs_once_and_is_over_when_share_returns(count: int, workers: int) -> None:
    done: list[int] = []
    share((partial(done.append, i) for i in range(count)), workers)
    assert sorted(done) == list(range(count))


def test_two_workers_are_two_threads() -> None:
    # Each task waits for the other: one thread alone would wait for ever.
    both = threading.Barrier(2, timeout=60)
    names: list[str] = []

    def task() -> None:
        both.wait()
        names.append(threading.current_thread().name)

    share([task, task], 2)
    assert len(set(names)) == 2


@pytest.mark.parametrize("where", ["here", "there"])
def test_an_error_is_raised_here_after_the_others_are_over(where: str) -> None:
    here, raised, over = threading.current_thread(), threading.Event(), threading.Event()
    began = threading.Barrier(2, timeout=60)

    def task() -> None:
        began.wait()
        if (threading.current_thread() is here) == (where == "here"):
            raised.set()
            raise ValueError(where)
        assert raised.wait(60)
        over.set()

    def never() -> None:
        pytest.fail("begun after an error")

    with pytest.raises(ValueError, match=f"^{where}$"):
        share([task, task, *[never] * 9], 2)
    assert over.is_set()


def test_an_error_of_the_iterable_is_raised_here() -> None:
    def tasks():
        yield lambda: None
        raise ValueError("no more")

    for _ in range(20):
        with pytest.raises(ValueError, match="^no more$"):
            share(tasks(), 3)


def test_tasks_may_share() -> None:
    done: list[tuple[int, int]] = []

    def outer(i: int) -> None:
        share((partial(done.append, (i, j)) for j in range(5)), 3)

    share((partial(outer, i) for i in range(7)), 3)
    assert sorted(done) == [(i, j) for i in range(7) for j in range(5)]


def test_where_no_thread_can_be_started_this_one_does_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads, "_pool", None)
    monkeypatch.setattr(threads, "_pool_size", 0)
    monkeypatch.setattr(threading.Thread, "start", start)
    done: list[int] = []
    share((partial(done.append, i) for i in range(9)), 3)
    assert done == list(range(9))


_OUTLIVES = """
import threading
import numpy as np
import systolic

def late():
    threading.main_thread().join()
    x = np.ones((300, 300), dtype=np.int8)
    print((systolic.matmul(x, x, mode="wavefront", threads=3).acc == 300).all())

if {before}:
    x = np.ones((300, 300), dtype=np.int8)
    systolic.matmul(x, x, mode="wavefront", threads=3)
threading.Thread(target=late).start()
"""


@pytest.mark.parametrize("before", [False, True])
def test_a_thread_that_outlives_the_main_thread_still_computes(before: bool) -> None:
    # From then on Python's pools refuse work.
    script = _OUTLIVES.format(before=before)
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout == "True\n", result.stderr
    assert not result.stderr
