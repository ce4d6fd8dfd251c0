"""Run native code in a helper process, so that a crash, a hang or a large allocation ends only that process.

The onnx package's native code ends the process on some damaged files, and never returns on others.
:func:`call` runs a function in a child that it starts on first use, keeps for later calls, and replaces
when it has ended. The child limits itself with the kernel's timers and RLIMIT_AS, so that it also ends
when this process is gone. Windows has neither: there a timer of this process ends it.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import functools
import importlib
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from systolic._memory import address_space, available_bytes

if TYPE_CHECKING:
    import subprocess

# A busy machine is slow: the limit is on processor time; wall time may be this many times as long.
_CLOCK = 5

# An interpreter that takes longer to import this package has another problem.
_START_SECONDS = 60

# What the child writes when it is ready, after whatever its start-up printed.
_READY = b"\x00systolic is ready\n"

# -P: import nothing from the current folder, such as a pickle.py. The first message is sys.path.
_BOOT = """
import os, pickle, sys
size = int.from_bytes(os.read(0, 8), "little")
data = b""
while len(data) < size:
    data += os.read(0, size - len(data))
sys.path[:] = pickle.loads(data)
from systolic import _isolated
_isolated.serve()
"""

_Outcome = tuple[str, Any]


class NotEnoughMemory(ValueError):
    """A call needs more memory than the helper process may take."""


def call(
    function: Callable[..., Any], *args: Any, seconds: float, what: str, modules: Sequence[str] = ()
) -> Any:
    """Return ``function(*args)``, computed in the helper process.

    If no process can be started, and within the child itself, the function runs here.

    Parameters
    ----------
    function : function
        A module's function: the child imports it by name.
    *args
        Anything that can be pickled; the result must be, too.
    seconds : float
        Limit on the child's processor time, which begins when the child is ready.
    what : str
        What is done and for which operator or file; errors begin with it.
    modules : sequence of str
        Modules that the function will import; importing them does not count as its time.

    Raises
    ------
    ValueError
        If the child dies, does not finish in time, or needs more memory than is available.
    Exception
        What the function raises: exceptions of Python and of this package unchanged, others as ValueError.
    """
    if _child.inside:
        return function(*args)
    request = pickle.dumps((function, args, seconds, tuple(modules)), protocol=5)
    outcome = _child.ask(request, seconds, what)
    if outcome is None:
        outcome = _outcome(function, args)
    kind, value = outcome
    if kind == "result":
        return value
    if kind == "memory":
        there = "there is" if value is None else f"half of what is available, {value:,} bytes"
        raise NotEnoughMemory(f"{what} needs more memory than {there}")
    if isinstance(value, BaseException):
        raise value
    raise ValueError(value)


class _Child:
    """The helper process of this process."""

    def __init__(self) -> None:
        self.inside = False
        self.lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None
        # An interpreter that failed to start once is not tried again.
        self.broken = False

    def forget(self) -> None:
        """Drop a child that belongs to the process from which this one was forked."""
        # Another thread may have held it.
        self.lock = threading.Lock()
        process, self.process = self.process, None
        if process is not None:
            _close(process)  # else the child would not see its parent end
            process.returncode = 0  # not ours to wait for

    def ask(self, request: bytes, seconds: float, what: str) -> _Outcome | None:
        """Return the child's answer to a request; None if there can be no child."""
        with self.lock:
            try:
                # A child that ended since the last call (out of memory, a user's kill) is replaced.
                process = self._begin(request) or self._begin(request)
                return None if process is None else self._answer(process, seconds, what)
            except BaseException:
                # After an interrupt a late answer would be read as the next request's.
                self.stop()
                raise

    def stop(self) -> int | None:
        """End the child, if there is one; return its exit status."""
        process, self.process = self.process, None
        if process is None:
            return None
        process.kill()
        _close(process)
        return process.wait()

    def _begin(self, request: bytes) -> subprocess.Popen[bytes] | None:
        """Return a child that has begun with a request."""
        process = self.process or self._start()
        if process is None:
            return None
        try:
            _send(process.stdin, request)
            _receive(process.stdout)
        except (OSError, EOFError):
            self.stop()
            return None
        return process

    def _answer(self, process: subprocess.Popen[bytes], seconds: float, what: str) -> _Outcome:
        timer = None if _TIMERS else _killer(process, seconds)
        try:
            outcome: _Outcome = pickle.loads(_receive(process.stdout))
        except Exception:
            # It ended, or native code corrupted its answer.
            status = self.stop()
            late = timer is not None and not timer.is_alive()
            if late or (status is not None and -status in _TIMERS):
                raise ValueError(f"{what} did not finish within {seconds:g} s") from None
            raise ValueError(f"{what} crashed: its process ended {_ending(status)}") from None
        finally:
            if timer is not None:
                timer.cancel()
        if outcome[0] == "memory":
            self.stop()  # it would keep the memory that it took
        return outcome

    def _start(self) -> subprocess.Popen[bytes] | None:
        """Return a child that is ready; None if there can be none."""
        import subprocess  # seldom needed, and slow to import

        # sys.executable of an application that embeds Python is the application.
        if self.broken or not sys.executable or getattr(sys, "frozen", False):
            return None

        options: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            options = {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
        try:
            process = self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", _BOOT],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # A process forked from this one would flush a buffer again.
                bufsize=0,
                # Windows does not delete a folder that is a process's current one.
                cwd=os.path.abspath(os.sep),
                **options,
            )
        except OSError:
            return None
        timer = _killer(process, _START_SECONDS)
        try:
            _send(process.stdin, pickle.dumps([os.path.abspath(path) for path in sys.path]))
            seen = b""
            while not seen.endswith(_READY):
                part = process.stdout.read(1024) if process.stdout else b""
                if not part:
                    raise EOFError
                seen += part
        except (OSError, EOFError):
            self.stop()
            self.broken = True
            return None
        finally:
            timer.cancel()
        return process


def _killer(process: subprocess.Popen[bytes], seconds: float) -> threading.Timer:
    """Return a timer that has begun and ends a process."""
    timer = threading.Timer(seconds, process.kill)
    timer.daemon = True
    timer.start()
    return timer


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _send(pipe: IO[bytes] | None, data: bytes) -> None:
    """Write a message: its size, then its bytes."""
    assert pipe is not None
    left = memoryview(len(data).to_bytes(8, "little") + data)
    while left:
        left = left[pipe.write(left) :]


def _receive(pipe: IO[bytes] | None) -> bytes:
    """Read a message; EOFError if the other end is closed."""
    assert pipe is not None
    return bytes(_read(pipe, int.from_bytes(_read(pipe, 8), "little")))


def _read(pipe: IO[bytes], size: int) -> bytearray:
    data = bytearray()
    while len(data) < size:
        part = pipe.read(min(size - len(data), 1 << 20))
        if not part:
            raise EOFError
        data += part
    return data


# The signals of the child's own timers, where the system has them.
_TIMERS: tuple[int, ...] = () if sys.platform == "win32" else (signal.SIGPROF, signal.SIGALRM)

_child = _Child()
atexit.register(_child.stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_child.forget)


def _ending(status: int | None) -> str:
    if status is not None and status < 0:
        with contextlib.suppress(ValueError):
            return f"by {signal.Signals(-status).name}"
    return f"with exit status {status}"


def _outcome(
    function: Callable[..., Any], args: tuple[Any, ...], allowance: int | None = None
) -> _Outcome:
    """Return the outcome of a call for the other process; `allowance` is the bytes it may take."""
    try:
        return "result", function(*args)
    except MemoryError:
        return "memory", allowance
    except Exception as error:
        known = vars(builtins).get(type(error).__name__) is type(error)
        if known or type(error).__module__.partition(".")[0] == __package__:
            # A traceback keeps every local of every frame alive.
            return "error", error.with_traceback(None)
        return "error", f"{type(error).__name__}: {error}"


# In the child


def serve() -> None:
    """Answer requests from standard input until it ends."""
    # Keep native code that prints or reads away from the pipes.
    requests, answers = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    _child.inside = True
    _settle()
    answers.write(_READY)
    while True:
        try:
            request = _receive(requests)
        except EOFError:
            return
        outcome = _outcome(_prepared, (request,))
        _send(answers, b"")
        if outcome[0] == "result":
            function, args, seconds = outcome[1]
            with _limited(seconds) as allowance:
                outcome = _outcome(function, args, allowance)
        _send(answers, _pickled(outcome))


def _prepared(request: bytes) -> tuple[Callable[..., Any], tuple[Any, ...], float]:
    """Return the call of a request, after importing the modules it needs."""
    function, args, seconds, modules = pickle.loads(request)
    for module in modules:
        with contextlib.suppress(ImportError):  # the function reports it itself
            importlib.import_module(module)
    return function, args, seconds


def _settle() -> None:
    """Configure the child: ignore SIGINT, write no core dump, be the first process killed for memory."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "win32":
        return
    import resource

    for number in _TIMERS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _TIMERS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with contextlib.suppress(OSError):  # only Linux has it
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[int | None]:
    """Limit time and memory of the block; yield the bytes that it may allocate."""
    if sys.platform == "win32":
        yield None
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    there, held = _allowance(), address_space()
    if there is not None and held is not None:
        most = held + there if soft == resource.RLIM_INFINITY else min(held + there, soft)
        with contextlib.suppress(ValueError, OSError):  # macOS refuses what is below the space in use
            resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    signal.setitimer(signal.ITIMER_REAL, seconds * _CLOCK)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield there
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _allowance() -> int | None:
    """Return how many more bytes a call may take: half of the available ones, since others need some too."""
    return _allowance_at(int(time.monotonic()))


@functools.lru_cache(maxsize=1)
def _allowance_at(second: int) -> int | None:
    # Cached for a second: asking takes longer than a small call.
    there = available_bytes()
    return None if there is None else there // 2


def _pickled(outcome: _Outcome) -> bytes:
    """Return an outcome as bytes that the parent can read."""
    try:
        data = pickle.dumps(outcome, protocol=5)
        if outcome[0] == "error":
            pickle.loads(data)  # not every exception can be unpickled: its arguments may differ from its args
    except Exception as error:
        text = f"{type(error).__name__}: {error}" if outcome[0] == "result" else str(outcome[1])
        return pickle.dumps(("error", text))
    return data
