"""Sharing work where a thread is not to be had, or where a fork comes in between."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from functools import partial

import pytest

from systolic import threads
from systolic.threads import share


def printed(script: str) -> str:
    """What a script prints in a new interpreter."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    ).stdout


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

    with pytest.raises(ValueError, match=f"^{where}$"):
        share([task, task], 2)
    assert over.is_set()


def test_where_no_thread_can_be_started_this_one_does_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads, "_helpers", 0)
    monkeypatch.setattr(threading.Thread, "start", start)
    done: list[int] = []
    share((partial(done.append, i) for i in range(9)), 3)
    assert done == list(range(9))
    # What nobody will take is not kept.
    assert not threads._waiting


@pytest.mark.parametrize("before", [False, True])
def test_a_thread_that_outlives_the_main_thread_still_computes(before: bool) -> None:
    # From then on Python's pools refuse work.
    script = f"""
import threading
import numpy as np
import systolic

x = np.ones((300, 300), dtype=np.int8)

def late():
    threading.main_thread().join()
    print((systolic.matmul(x, x, mode="wavefront", threads=3).acc == 300).all())

if {before}:
    systolic.matmul(x, x, mode="wavefront", threads=3)
threading.Thread(target=late).start()
"""
    assert printed(script) == "True\n"


def test_work_does_not_pile_up_while_others_keep_the_threads() -> None:
    free, began = threading.Event(), threading.Barrier(3, timeout=60)

    def hold() -> None:
        began.wait()
        assert free.wait(60)

    holder = threading.Thread(target=share, args=([hold, hold], 2))
    holder.start()
    began.wait()
    try:
        for _ in range(50):
            done: list[int] = []
            share((partial(done.append, i) for i in range(3)), 2)
            assert done == [0, 1, 2] or threads._helpers > 1
            assert len(threads._waiting) <= threads._helpers
    finally:
        free.set()
        holder.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_first_use_may_be_interrupted_by_a_fork() -> None:
    # What is imported by then, by another thread, a child would hold half-imported for ever.
    script = """
import os, signal, sys, threading, time
import numpy as np
import systolic
from systolic.machine import control

control._WORTH_A_THREAD = sys.modules["systolic.array.systolic_array"]._WORTH_A_THREAD = 0
begun = threading.Event()

class Slow:
    def find_spec(self, name, path=None, target=None):
        begun.set()
        time.sleep(1)

def products():
    x = np.ones((300, 70), dtype=np.int8)
    for mode in ("cycle", "wavefront"):
        assert (systolic.matmul(x, x.T, array=systolic.ArrayConfig(32, 32), mode=mode, threads=3).acc == 70).all()

sys.meta_path.insert(0, Slow())
other = threading.Thread(target=products)
other.start()
begun.wait(1)
child = os.fork()
if child == 0:
    signal.alarm(20)
    products()
    os._exit(9)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
other.join()
"""
    assert printed(script) == "9\n"
