"""Threads: the same results from any number, in any surroundings; errors come out; nothing hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import systolic
from support.strategies import codes, product
from systolic import ArrayConfig, _gemm, _host, _threads, threads
from systolic.machine import wavefront

ARRAY = ArrayConfig(64, 64)
LIMIT = 60  # seconds after which something hangs


@pytest.fixture(autouse=True)
def products_worth_sharing() -> Iterator[None]:
    """Let small products, too, be shared among threads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["systolic.array.systolic_array"], "_WORTH_A_THREAD", 0)
        patch.setattr(wavefront, "_WORTH_A_THREAD", 0)
        yield


@pytest.fixture(autouse=True)
def no_hanging() -> Iterator[None]:
    """Let a test that hangs end in an error instead, where there are signals."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def alarm(*_: object) -> None:
        raise TimeoutError(f"a test has not ended within {LIMIT} s")

    before = signal.signal(signal.SIGALRM, alarm)
    signal.alarm(LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def operands() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x, w = codes(rng, (150, 130), "int8"), codes(rng, (130, 200), "uint8")
    return x, w, product(x, w)


def script(body: str, *options: str) -> str:
    """Run a program of its own on this package; return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(Path(systolic.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(body)],
        env=environment, capture_output=True, text=True, timeout=LIMIT,
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout


# Calls


@pytest.mark.parametrize("mode", ["cycle", "wavefront"])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 100])
def test_any_number_gives_the_same(operands, mode: str, count: int) -> None:
    x, w, expected = operands
    result = systolic.matmul(x, w, array=ARRAY, mode=mode, threads=count)
    np.testing.assert_array_equal(result.acc, expected)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_registers_are_the_same(count: int) -> None:
    rng = np.random.default_rng(1)
    x, w = codes(rng, (300, 64), "int8"), codes(rng, (64, 64), "int8")
    one = systolic.SystolicArray(ARRAY).fold(x=x, w=w).run(250, threads=1)
    other = systolic.SystolicArray(ARRAY).fold(x=x, w=w).run(250, threads=count)
    assert not other.diff(one)
    assert not other.run(threads=count).diff(one.run(threads=1))
    np.testing.assert_array_equal(other.outputs[0], product(x, w))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["cycle", "wavefront"])
def test_many_threads_call_at_once(operands, mode: str) -> None:
    """Each with operands and an array of its own; the process gets no more helpers than one caller wants."""
    x, w, expected = operands
    wrong: list[object] = []

    def work(number: int) -> None:
        try:
            own = x + np.int8(number)
            for _ in range(4):
                result = systolic.matmul(own, w, array=ARRAY, mode=mode, threads=3)
                if not np.array_equal(result.acc, product(own, w)):
                    wrong.append(number)
        except BaseException as error:
            wrong.append(error)

    callers = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(LIMIT)
    assert not wrong and not any(caller.is_alive() for caller in callers)
    assert _threads._helpers() <= 99  # whatever other tests asked for
    np.testing.assert_array_equal(systolic.matmul(x, w, array=ARRAY, mode=mode).acc, expected)


@pytest.mark.parametrize("count", [None, 1, 3])
def test_within_a_pool_of_the_user(operands, count: int | None) -> None:
    x, w, expected = operands
    jobs = [("cycle", count), ("wavefront", count)] * 6
    with ThreadPoolExecutor(4) as pool:
        results = list(
            pool.map(lambda job: systolic.matmul(x, w, array=ARRAY, mode=job[0], threads=job[1]).acc, jobs)
        )
    assert all(np.array_equal(result, expected) for result in results)


def test_array_run_by_many_threads() -> None:
    rng = np.random.default_rng(2)
    x, w = codes(rng, (400, 64), "int8"), codes(rng, (64, 64), "int8")

    def work(_: int) -> np.ndarray:
        array = systolic.SystolicArray(ARRAY).fold(x=x, w=w)
        for _ in range(6):
            array = array.run(100, threads=2)
        return array.outputs[0]

    with ThreadPoolExecutor(6) as pool:
        for output in pool.map(work, range(12)):
            np.testing.assert_array_equal(output, product(x, w))


def test_set_threads(operands) -> None:
    x, w, expected = operands
    seen: set[int] = set()

    def counting(*operands, threads):
        seen.add(threads)
        multiply(*operands, threads=threads)

    multiply = _gemm.multiply
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_gemm, "multiply", counting)
        try:
            for count in (1, 2, 5):
                systolic.set_threads(count)
                assert threads.thread_count() == count and threads.thread_count(3) == 3
                result = systolic.matmul(x, w, array=ARRAY, mode="wavefront")
                np.testing.assert_array_equal(result.acc, expected)
                assert seen == {count}
                seen.clear()
        finally:
            systolic.set_threads(None)
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    assert threads.thread_count() == len(allowed)


def test_operators_beside_the_array_use_as_many_as_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    one, shape, seen = systolic.QuantParams(1.0), (1, 2, 8, 8), []
    add = _host.add
    monkeypatch.setattr(_host, "add", lambda *given, threads: (seen.append(threads), add(*given, threads=threads)))
    node = systolic.Node(systolic.layers.QLinearAdd(one, one, one), ("x", "x"), "y")
    model = systolic.Model([node], inputs={"x": (shape, "int8")})
    for count in (1, 3, None):
        systolic.run(model, np.ones(shape, np.int8), machine=systolic.ArrayConfig(8, 8), threads=count)
    assert seen == [1, 3, threads.thread_count()]


@pytest.mark.parametrize("count", [0, -1, 1.5, "2", True])
def test_numbers_of_threads_are_checked(operands, count) -> None:
    x, w, _ = operands
    for call in (systolic.set_threads, threads.thread_count, lambda n: systolic.matmul(x, w, threads=n)):
        with pytest.raises((ValueError, TypeError), match="^threads must be "):
            call(count)
    assert threads._threads is None


# Sharing


def shared(count: int, workers: int, turns: int = 0, is_long: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Share tasks that count themselves; return how often each was done, and by which worker."""
    rows = np.zeros(2 + 2 * count, dtype=np.int64)
    rows[0] = turns
    _threads._try(rows, count, workers, is_long)
    return rows[2::2], rows[3::2]


@pytest.mark.parametrize("is_long", [True, False])
@pytest.mark.parametrize("workers", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 2, 50, 3000])
def test_each_task_is_done_once(workers: int, count: int, is_long: bool) -> None:
    for turns in (0, 20):
        done, by = shared(count, workers, turns, is_long)
        assert (done == 1).all() and ((by >= 0) & (by < workers)).all()


def test_many_short_jobs_one_after_another() -> None:
    # Helpers come late to jobs that are over, or leave when the next begins.
    rng = np.random.default_rng(0)
    for count, workers in zip(
        rng.integers(1, 9, 20_000).tolist(), rng.integers(1, 5, 20_000).tolist(), strict=True
    ):
        done, by = shared(count, workers, 0, count % 2 == 0)
        assert (done == 1).all() and by.max() < workers


def test_tasks_do_run_beside_each_other() -> None:
    for _ in range(20):
        _, by = shared(40, 2, 20_000)  # of about a millisecond each
        if set(by) == {0, 1}:
            return
    raise AssertionError("the helper has done nothing in 20 jobs")


def test_a_sleeping_helper_is_woken_for_long_jobs() -> None:
    shared(4, 2)
    for _ in range(20):
        time.sleep(0.01)  # it looks for work for less than a millisecond
        _, by = shared(40, 2, 20_000)
        if set(by) == {0, 1}:
            return
    raise AssertionError("the helper has not woken in 20 jobs")


def test_helpers_sleep_when_there_is_nothing_to_do() -> None:
    shared(40, 3, 1000)
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.25


@pytest.mark.slow
def test_helpers_are_as_many_as_asked_and_stay() -> None:
    printed = script(
        """
        import numpy as np
        from systolic import _threads
        def share(workers):
            _threads._try(np.zeros(2 + 2 * 50, np.int64), 50, workers, True)
            return _threads._helpers()
        print(_threads._helpers(), share(1), share(3), share(2), share(3), share(6))
        """
    )
    assert printed == "0 0 2 2 2 5\n"


@pytest.mark.slow
def test_no_more_helpers_than_there_are_tasks() -> None:
    printed = script(
        """
        import numpy as np
        import systolic
        from systolic import _gemm, _host, _threads
        x, w = np.ones((30, 40), np.int8), np.ones((40, 8), np.int8)  # columns of one panel
        _gemm.multiply(x, w, np.empty((30, 8), np.int32), threads=64)
        array = systolic.SystolicArray(systolic.ArrayConfig(40, 33)).fold(x=x, w=np.ones((40, 33), np.int8))
        from systolic.array import systolic_array
        systolic_array._WORTH_A_THREAD = 0
        array.run(threads=64)
        image = np.ones((1, 2, 9, 9), np.int8)
        _host.max_pool(image, np.empty((1, 2, 8, 8), np.int8), (2, 2), (1, 1), (1, 1), (0, 0), threads=64)
        systolic.conv2d(image, np.ones((3, 2, 2, 2), np.int8), mode="wavefront", threads=64)
        print(_threads._helpers())
        """
    )
    assert int(printed) <= 3


def test_many_callers_at_once() -> None:
    """One has the helpers, the others work alone."""
    wrong: list[object] = []

    def call(number: int) -> None:
        for turn in range(300):
            done, _ = shared((number * 7 + turn) % 30, 3, turn % 5, turn % 2 == 0)
            if not (done == 1).all():
                wrong.append((number, turn))

    callers = [threading.Thread(target=call, args=(i,), daemon=True) for i in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(LIMIT)
    assert not wrong and not any(caller.is_alive() for caller in callers)


@pytest.mark.parametrize("mode", ["cycle", "wavefront"])
def test_an_error_from_a_callback_comes_out(operands, mode: str) -> None:
    x, w, _ = operands

    def progress(done: int, total: int) -> None:
        raise LookupError("stop here")

    with pytest.raises(LookupError, match="^stop here$"):
        systolic.matmul(x, w, array=ARRAY, mode=mode, threads=2, progress=progress)


# Processes


FORKED = """
    import multiprocessing, sys
    import numpy as np
    import systolic
    from systolic.machine import wavefront
    wavefront._WORTH_A_THREAD = sys.modules["systolic.array.systolic_array"]._WORTH_A_THREAD = 0
    x, w = np.full((150, 130), -3, np.int8), np.full((130, 200), 5, np.int8)
    def work(number):
        sums = [systolic.matmul(x, w, array=systolic.ArrayConfig(64, 64), mode=mode, threads=3).acc
                for mode in ("cycle", "wavefront")]
        return all((acc == -15 * 130).all() for acc in sums)
    if __name__ == "__main__":
        before = work(0)
        with multiprocessing.get_context(METHOD).Pool(2) as pool:
            inside = pool.map_async(work, range(4)).get(timeout=50)
        print(before, inside, work(0))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_after_fork() -> None:
    # Python 3.12 and newer warn of a fork where there are threads.
    assert script(FORKED.replace("METHOD", "'fork'"), "-W", "ignore") == f"True {[True] * 4} True\n"


@pytest.mark.slow
def test_spawned(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(FORKED.replace("METHOD", "'spawn'")), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(Path(systolic.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, str(program)], env=environment, capture_output=True, text=True, timeout=LIMIT
    )
    assert done.stdout == f"True {[True] * 4} True\n", done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork_while_others_compute() -> None:
    """The helpers may be taken, by a thread that the child has not."""
    printed = script(
        """
        import os, threading
        import numpy as np
        from systolic import _threads
        stop = threading.Event()
        def share(count, turns=0):
            rows = np.zeros(2 + 2 * count, np.int64)
            rows[0] = turns
            _threads._try(rows, count, 3, True)
            return (rows[2::2] == 1).all()
        def busy():
            while not stop.is_set():
                share(20, 100)
        others = [threading.Thread(target=busy) for _ in range(3)]
        for other in others:
            other.start()
        right = 0
        for _ in range(20):
            child = os.fork()
            if child == 0:
                before = _threads._helpers()
                os._exit(0 if share(20) and share(300, 10) and (before, _threads._helpers()) == (0, 2) else 1)
            right += os.waitpid(child, 0)[1] == 0
        stop.set()
        for other in others:
            other.join()
        print(right)
        """,
        "-W",
        "ignore",
    )
    assert printed == "20\n"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["threading.Thread(target=late).start()", "atexit.register(late)"])
def test_calls_while_the_program_ends(how: str) -> None:
    """A user's thread may outlive the main one; then no more threads can be started."""
    printed = script(
        f"""
        import atexit, sys, threading, time
        import numpy as np
        import systolic
        from systolic.machine import wavefront
        wavefront._WORTH_A_THREAD = sys.modules["systolic.array.systolic_array"]._WORTH_A_THREAD = 0
        x, w = np.full((150, 130), -3, np.int8), np.full((130, 200), 5, np.int8)
        def late():
            time.sleep(0.5)
            for mode in ("cycle", "wavefront"):
                acc = systolic.matmul(x, w, array=systolic.ArrayConfig(64, 64), mode=mode, threads=3).acc
                print((acc == -15 * 130).all())
        {how}
        """
    )
    assert printed == "True\nTrue\n"
