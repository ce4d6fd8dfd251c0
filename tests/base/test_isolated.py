"""Functions in a helper process: what it does to the function must not be done to this process."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from systolic import UnsupportedOperator, _isolated
from systolic.layers.base import UnknownShape

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, where the limits hold")


def call(function, *args, seconds=20.0, what="the test", **options):
    return _isolated.call(function, *args, seconds=seconds, what=what, **options)


def child() -> int:
    call(int)
    process = _isolated._child.process
    assert process is not None
    return process.pid


def gone(pid: int) -> bool:
    for _ in range(200):
        try:
            with open(f"/proc/{pid}/stat") as file:
                # A zombie whose parent is not this process is its parent's matter.
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


# What runs there


class OwnError(Exception):
    pass


class TwoArguments(ValueError):
    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def fail(kind, *args):
    raise kind(*args)


def own_error(kind=OwnError):
    raise kind("of the test")


def two_arguments():
    raise TwoArguments(1, 2)


def double(array):
    return array * 2


def pid():
    return os.getpid()


def segfault():
    ctypes.string_at(1)


def leave():
    os._exit(3)


def spin():
    while True:
        pass


def sleep():
    time.sleep(1000)


def noise():
    print("to standard output", flush=True)
    os.write(1, b"and\x00more\n" * 1000)
    os.write(2, b"error\n" * 1000)
    return os.read(0, 10)


def closure():
    return lambda: 0


def limits():
    import resource

    return (
        resource.getrlimit(resource.RLIMIT_CORE)[0],
        signal.getsignal(signal.SIGINT),
        os.getsid(0) == os.getpid(),
    )


def nested():
    return call(pid), os.getpid()


def flags():
    return sys.flags.safe_path, sys.path, os.getcwd()


@pytest.mark.slow
def test_results_come_back_from_another_process_that_stays():
    first = call(pid)
    assert first == call(pid) != os.getpid()
    for array in (np.arange(6).reshape(2, 3), np.zeros((0, 3), np.int8), np.zeros(5_000_000, np.uint8)):
        result = call(double, array)
        np.testing.assert_array_equal(result, array * 2)
        assert result.dtype == array.dtype and result.flags.writeable


@pytest.mark.parametrize(
    "kind",
    [
        ValueError, TypeError, NotImplementedError, ImportError, IndexError, OverflowError, KeyError,
        ZeroDivisionError, RuntimeError, UnknownShape, UnsupportedOperator, RecursionError, AttributeError,
    ],
)  # fmt: skip
def test_exceptions_come_back_as_they_are(kind):
    with pytest.raises(kind) as caught:
        call(fail, kind, "a text")
    assert type(caught.value) is kind and caught.value.args == ("a text",)


@pytest.mark.parametrize("function", [own_error, two_arguments])
def test_exceptions_of_others_come_back_as_value_errors_that_name_them(function):
    with pytest.raises(ValueError, match="(OwnError: of the test|TwoArguments: 1 and 2)") as caught:
        call(function)
    assert type(caught.value) is ValueError


def test_what_cannot_be_pickled_is_an_error_and_the_child_goes_on():
    before = child()
    with pytest.raises(ValueError, match="pickle"):
        call(closure)
    with pytest.raises(Exception, match="pickle"):
        call(lambda: 0)
    assert child() == before


@pytest.mark.slow
@POSIX
@pytest.mark.parametrize(
    ("function", "ending"),
    [
        (os.abort, "by SIGABRT"),
        (segfault, "by SIGSEGV"),
        (leave, "with exit status 3"),
    ],
)
@pytest.mark.exhaustive
def test_a_crash_is_an_error_that_says_how_it_ended(function, ending):
    before = child()
    with pytest.raises(ValueError, match=f"^node 'a' crashed: its process ended {ending}$"):
        call(function, what="node 'a'")
    assert child() != before, "the next call has a new one"
    assert not _zombies()


@pytest.mark.slow
@pytest.mark.parametrize("function", [spin, sleep])
@pytest.mark.exhaustive
def test_a_hang_ends(function):
    child()
    started = time.monotonic()
    with pytest.raises(ValueError, match=r"^node 'a' did not finish within 0.2 s$"):
        call(function, seconds=0.2, what="node 'a'")
    assert time.monotonic() - started < 15
    assert call(pid) != os.getpid()


@pytest.mark.slow
def test_the_time_of_a_call_is_its_own():
    for _ in range(5):
        call(time.sleep, 0.05, seconds=0.2)
    # Neither does the time between calls count.
    time.sleep(0.5)
    assert call(len, "abc", seconds=0.05) == 3


@pytest.mark.slow
@LINUX
def test_memory_is_bounded():
    with pytest.raises(
        ValueError, match=r"^node 'a' needs more memory than half of what is available, [\d,]+ bytes$"
    ):
        call(fail, MemoryError, what="node 'a'")
    before = child()
    with pytest.raises(ValueError, match="needs more memory|ended by SIGKILL"):
        call(bytearray, 1 << 50, what="node 'a'")
    assert child() != before, "one that has grown is not kept"


@pytest.mark.slow
@LINUX
def test_the_limit_on_memory_is_half_of_what_is_available():
    # In a process of its own, for it takes what is given.
    script = (
        "from systolic import _isolated as i\n"
        "i._allowance = lambda: 1 << 28\n"
        "with i._limited(10):\n"
        "    bytearray(1 << 27)\n"
        "    try:\n        bytearray(1 << 29)\n    except MemoryError:\n        pass\n"
        "    else:\n        raise SystemExit('no limit')\n"
        "bytearray(1 << 29)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env=_environment())


@pytest.mark.slow
@LINUX
@pytest.mark.parametrize("allowed", [1 << 28, 1 << 40])
def test_a_soft_limit_on_memory_stays(allowed):
    script = (
        "import resource\n"
        "from systolic import _isolated as i, _memory\n"
        "def limits(): return resource.getrlimit(resource.RLIMIT_AS)\n"
        "hard = limits()[1]\n"
        "soft = _memory.address_space() + (1 << 29)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (soft, hard))\n"
        f"i._allowance = lambda: {allowed}\n"
        "with i._limited(10):\n"
        f"    assert limits()[0] == soft if {allowed} > soft else limits()[0] < soft\n"
        "    assert limits()[1] == hard\n"
        "assert limits() == (soft, hard)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env=_environment())


@pytest.mark.slow
@POSIX
def test_an_interrupt_ends_the_call_at_once():
    before = child()

    def interrupt(*_):
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            call(sleep)
        assert time.monotonic() - started < 5
    finally:
        signal.signal(signal.SIGALRM, old)
    assert gone(before)
    assert call(double, 4) == 8, "not the answer to what was interrupted"


@POSIX
def test_an_interrupt_of_the_terminal_is_not_the_childs():
    assert call(limits) == (0, signal.SIG_IGN, True)


def test_noise_of_native_code_is_not_taken_for_an_answer(capfd):
    assert call(noise) == b""
    assert call(double, 2) == 4
    assert capfd.readouterr() == ("", "")


def test_threads_take_turns():
    found = []

    def work(number):
        for i in range(50):
            found.append((number, i, call(double, number * 1000 + i)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 300 and all(result == 2 * (number * 1000 + i) for number, i, result in found)


@LINUX
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.slow
def test_a_forked_process_has_a_child_of_its_own():
    before = child()
    theirs = [pipe.fileno() for pipe in (_isolated._child.process.stdin, _isolated._child.process.stdout)]
    read, write = os.pipe()
    forked = os.fork()
    if not forked:
        with contextlib.suppress(BaseException):
            there = sum(os.path.exists(f"/proc/self/fd/{number}") for number in theirs)
            os.write(write, f"{call(pid)} {call(double, 21)} {there}".encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        own, result, there = map(int, file.read().split())
    os.waitpid(forked, 0)
    assert own != before and result == 42
    assert not there, "a copy of the pipe would keep the child from seeing its parent end"
    assert gone(own), "it ends with the process that started it"
    assert call(pid) == before, "and this one's is left alone"


@pytest.mark.slow
@LINUX
@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.exhaustive
def test_a_child_ends_with_its_parent(busy):
    then = "i.call(time.sleep, 1000, seconds=0.2, what='')" if busy else "time.sleep(1000)"
    script = (
        "import os, time; from systolic import _isolated as i\n"
        f"print(i.call(os.getpid, seconds=9, what=''), flush=True)\n{then}\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=_environment())
    with parent:
        pid = int(parent.stdout.readline())
        parent.kill()
    assert gone(pid)


@pytest.mark.slow
def test_a_script_ends_without_a_word_and_leaves_nothing():
    script = "import os; from systolic import _isolated as i; print(i.call(os.getpid, seconds=9, what=''))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, env=_environment()
    )
    assert done.returncode == 0 and done.stderr == ""
    if sys.platform == "linux":
        assert not os.path.exists(f"/proc/{int(done.stdout)}")


@pytest.mark.slow
@LINUX
def test_a_child_that_was_killed_has_a_successor():
    before = child()
    os.kill(before, signal.SIGKILL)
    assert call(pid) not in (before, os.getpid())
    assert not _zombies()


def test_within_a_child_there_is_no_other():
    inner, outer = call(nested)
    assert inner == outer != os.getpid()


@pytest.mark.slow
def test_the_child_imports_what_this_process_would(tmp_path, monkeypatch):
    (tmp_path / "pickle.py").write_text("raise SystemExit")
    (tmp_path / "systolic.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_isolated, "_child", fresh := _isolated._Child())
    try:
        safe, path, folder = call(flags)
        assert fresh.process is not None and safe and folder == os.path.abspath(os.sep)
        assert path == [os.path.abspath(entry) for entry in sys.path]
    finally:
        fresh.stop()


@pytest.mark.parametrize("executable", [None, "", "/no/such/file", os.__file__, "true", "echo"])
def test_without_an_interpreter_functions_run_here(executable, monkeypatch):
    monkeypatch.setattr(sys, "executable", (executable and shutil.which(executable)) or executable)
    monkeypatch.setattr(_isolated, "_child", _isolated._Child())
    for _ in range(2):
        assert call(pid) == os.getpid()
    with pytest.raises(ValueError, match="OwnError: of the test"):
        call(own_error)
    with pytest.raises(ValueError, match="^the test needs more memory than there is$"):
        call(fail, MemoryError)
    with pytest.raises(KeyboardInterrupt):
        call(fail, KeyboardInterrupt)


def test_a_frozen_application_does_not_start_itself(monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(_isolated, "_child", _isolated._Child())
    assert call(pid) == os.getpid()


@pytest.mark.slow
def test_modules_are_imported_before_the_clock_starts(tmp_path, monkeypatch):
    (tmp_path / "slow_to_import.py").write_text(
        "import time\nend = time.monotonic() + 1\nwhile time.monotonic() < end: pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(_isolated, "_child", fresh := _isolated._Child())
    try:
        assert call(len, "abc", seconds=0.3, modules=("slow_to_import", "not_there_at_all")) == 3
    finally:
        fresh.stop()


def _environment():
    root = os.path.dirname(os.path.dirname(_isolated.__file__))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}


def _zombies() -> list[str]:
    if sys.platform != "linux":
        return []
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as file:
            state, parent = file.read().rpartition(")")[2].split()[:2]
            if state == "Z" and int(parent) == os.getpid():
                found.append(name)
    return found
