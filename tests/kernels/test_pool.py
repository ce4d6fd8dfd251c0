"""The thread pool: its protocol in C, also under ThreadSanitizer; and where no thread starts, or a fork comes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def printed(script: str) -> str:
    """What a script prints in a new interpreter."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    ).stdout


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a limit that threads meet")
def test_where_no_thread_can_be_started_this_one_does_all() -> None:
    script = """
import resource
import numpy as np
from systolic import _threads

rows = np.zeros(2 + 2 * 9, np.int64)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (2 << 20), resource.RLIM_INFINITY))  # less than a thread's stack
_threads._try(rows, 9, 3, True)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(_threads._helpers(), rows[2::2].tolist(), rows[3::2].tolist())
_threads._try(rows, 9, 3, True)
print(_threads._helpers(), rows[2::2].tolist())
"""
    assert printed(script) == f"0 {[1] * 9} {[0] * 9}\n2 {[2] * 9}\n"


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_first_use_may_be_interrupted_by_a_fork() -> None:
    # What is imported by then, by another thread, a child would hold half-imported for ever.
    script = """
import os, signal, sys, threading, time
import numpy as np
import systolic
from systolic.machine import wavefront

wavefront._WORTH_A_THREAD = sys.modules["systolic.array.systolic_array"]._WORTH_A_THREAD = 0
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


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="reads the sources")
@pytest.mark.skipif(sys.platform == "win32" or not shutil.which("cc"), reason="needs a compiler and POSIX threads")
@pytest.mark.parametrize("options", [["-O2"], ["-O1", "-g", "-fsanitize=thread"]], ids=["plain", "sanitized"])
def test_protocol(tmp_path: Path, options: list[str]) -> None:
    kernels, program = ROOT / "systolic" / "kernels", tmp_path / "check"
    sources = [str(ROOT / "tests" / "support" / "pool_check.c"), str(kernels / "pool.c")]
    needed = bool(os.environ.get("SYSTOLIC_REQUIRE_TSAN"))
    command = ["cc", *options, "-I", str(kernels), *sources, "-pthread", "-o", str(program)]
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode and len(options) > 1 and not needed:
        pytest.skip("the compiler has no ThreadSanitizer")
    assert built.returncode == 0, built.stderr

    def run(*before: str) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
        return subprocess.run([*before, program], env=environment, capture_output=True, text=True, timeout=120)

    done = run()
    if "unexpected memory mapping" in done.stderr and shutil.which("setarch"):
        # Too many random bits in addresses for this ThreadSanitizer.
        done = run("setarch", "-R")
        if "Operation not permitted" in done.stderr and not needed:
            pytest.skip("ThreadSanitizer cannot run here")
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stdout + done.stderr
