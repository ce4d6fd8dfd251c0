"""Ctrl-C at any bytecode: nothing is half done, nothing stays changed, and the interrupt comes out as one."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import systolic
from support.interrupts import every_interrupt, interrupted
from systolic import ArrayConfig, Model, Scoreboard, SystolicArray, Trace, write_vectors
from systolic.cli.data import save_outputs
from systolic.layers import Relu
from systolic.threads import thread_count

# An interrupt between the opening of a file and its `with` leaves it to be closed when it is freed.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

X = np.array([[1, 2], [3, 4], [-5, 6]], dtype=np.int8)
W = np.array([[7, -8, 9], [10, 11, -12]], dtype=np.int8)
CONFIG = ArrayConfig(2, 3)
MODEL = Model([Relu()], inputs={"x": ((None, 4), "int8")})

TRACES: dict[str, Callable[[], Trace]] = {
    "everything": Trace,
    "a ring": lambda: Trace(last=2),
    "some PEs in a window": lambda: Trace(registers=("psum", "swap"), pes=[(1, 2), (0, 0)], cycles=(2, 6)),
}


def traced(trace: Trace) -> SystolicArray:
    return SystolicArray(CONFIG, trace=trace).fold(x=X, w=W)


def values(trace: Trace) -> dict[str, Any]:
    return {"cycles": trace.cycles.tolist()} | {n: trace[n].tolist() for n in trace.registers if len(trace)}


HISTORIES = {kind: [values(traced(make()).run(n).trace) for n in range(9)] for kind, make in TRACES.items()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", TRACES)
@pytest.mark.exhaustive
def test_a_cycle_is_recorded_whole_or_not_at_all(kind: str) -> None:
    array = traced(TRACES[kind]()).run(3)
    before = array.state()

    def run() -> None:
        array.run(1)

    def restore() -> None:
        array.restore(before).run(1)

    def check() -> None:
        assert values(array.trace) == HISTORIES[kind][array.cycle]

    cycles = set()
    for _ in every_interrupt(run, "/array/"):
        check()
        cycles.add(array.cycle)
        # Run on from where it stopped, and from the state before: what was half done leaves no mark.
        array.run(until=5)
        check()
        array = traced(TRACES[kind]()).run(3)
    assert cycles == {3, 4}
    for _ in every_interrupt(restore, "recording"):
        check()
        array = traced(TRACES[kind]()).run(3)
    for _ in every_interrupt(array.reset):
        check()
    assert array.cycle == 0 and len(array.trace) == 0


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_run_interrupted_all_the_time_records_what_one_run_does() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.integers(-128, 128, (60, 4), np.int8), rng.integers(-128, 128, (4, 5), np.int8)
    whole, pieces = (SystolicArray(ArrayConfig(4, 5), trace=True).fold(x=x, w=w) for _ in range(2))
    whole.run()
    interrupts = 0
    while interrupted(lambda: pieces.run(until=whole.cycle), int(rng.integers(8000))):
        interrupts += 1
        assert pieces.trace.cycles.tolist() == list(range(pieces.cycle))
    assert interrupts > 30 and values(pieces.trace) == values(whole.trace)
    np.testing.assert_array_equal(pieces.outputs[0], whole.outputs[0])


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="signals as POSIX has them")
def test_signals_leave_whole_cycles() -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    config = ArrayConfig(16, 16)
    w, x = np.ones((16, 16), np.int8), np.ones((400, 16), np.int8)
    whole, pieces = (SystolicArray(config, trace=Trace(registers=("psum", "swap"))).fold(x=x, w=w) for _ in range(2))
    whole.run()
    before = signal.signal(signal.SIGALRM, stop)
    gc.disable()  # an interrupt in a callback of the collector, such as hypothesis has one, is lost
    seconds = np.random.default_rng(0).uniform(1e-4, 4e-3, 1 << 12).tolist()
    try:
        while pieces.cycle < whole.cycle:
            try:
                signal.setitimer(signal.ITIMER_REAL, seconds.pop())
                pieces.run(until=whole.cycle)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                assert len(pieces.trace) == pieces.cycle
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.enable()
    assert values(pieces.trace) == values(whole.trace)


@pytest.mark.slow
def test_a_trace_given_to_another_array_belongs_to_it_or_to_the_first() -> None:
    for at in range(0, 20_000, 7):
        trace = Trace(registers="psum", pes=[(0, 1)])
        traced(trace).run(4)
        more = interrupted(lambda trace=trace: SystolicArray(ArrayConfig(4, 4), trace=trace), at, "systolic")
        assert (trace.array, len(trace)) in [(CONFIG, 4), (ArrayConfig(4, 4), 0)]
        if not more:
            return
    raise AssertionError("the call does not end")


@pytest.mark.slow
def test_queueing_is_done_or_not() -> None:
    array, rows = SystolicArray(CONFIG), SystolicArray(CONFIG).fold(x=X, w=W).state()
    idle = array.state()
    for _ in every_interrupt(lambda: array.fold(x=X, w=W), "systolic"):
        assert array.state() in (idle, rows)
        array.restore(idle)


def test_a_scoreboard_counts_a_comparison_once() -> None:
    board = Scoreboard(CONFIG)
    board.edge(activation=[3, 0])
    activation = board.expected.activation
    for _ in every_interrupt(lambda: board.compare(activation=activation, psum=0), "board.py"):
        assert board.compared in (0, 12)
        board.compared = 0


# Threads


@pytest.mark.slow
@pytest.mark.parametrize("within, step", [("networks.py", 1), ("threads.py", 1), ("host", 3)])
def test_set_threads_holds_after_an_interrupted_run(within: str, step: int) -> None:
    x = np.zeros((1, 4), np.int8)
    try:
        for _ in every_interrupt(lambda: systolic.run(MODEL, x, threads=3), within, step):
            systolic.set_threads(5)
            assert thread_count() == 5
            systolic.set_threads(7)
            assert thread_count() == 7
    finally:
        systolic.set_threads(None)


# Saving


def save_onnx(path: Path) -> None:
    pytest.importorskip("onnx")
    systolic.save_onnx(MODEL, path)


def save_vcd(path: Path) -> None:
    pytest.importorskip("vcd")
    traced(Trace(registers="psum")).run(2).trace.to_vcd(path)


WRITERS: dict[str, Callable[[Path], Any]] = {
    "Model.save": MODEL.save,
    "save_onnx": save_onnx,
    "Trace.to_vcd": save_vcd,
    "report": lambda path: MODEL.summary().to_csv(path),
    "--output": lambda path: save_outputs(os.fspath(path), {"y": X, "z": W}),
    "write_vectors": lambda path: write_vectors(X[:1], W, path, array=CONFIG),
}


@pytest.mark.slow
@pytest.mark.parametrize("within, step", [("_files.py", 1), ("zipfile", 5), ("", 2003)])
@pytest.mark.parametrize("name", WRITERS)
# zipfile.ZipFile.__del__ complains of an interrupt in __init__.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.exhaustive
def test_a_save_leaves_the_file_or_nothing(tmp_path: Path, name: str, within: str, step: int) -> None:
    write, there = WRITERS[name], tmp_path / "there"
    write(there)
    (tmp_path / "folder").mkdir()
    target = tmp_path / "folder" / "target"
    umask = os.umask(0o022)
    try:
        for _ in every_interrupt(lambda: write(target), within, step):
            left = os.listdir(target.parent)
            assert left in ([], ["target"])
            assert os.umask(0o022) == 0o022
            if left and there.is_file():
                assert len(target.read_bytes()) == len(there.read_bytes())
                target.unlink()
            elif left:
                assert sorted(os.listdir(target)) == sorted(os.listdir(there))
                target.rename(tmp_path / f"{len(os.listdir(tmp_path))}")
    finally:
        os.umask(umask)
    assert os.listdir(target.parent) == ["target"]


@pytest.mark.slow
def test_an_interrupt_while_an_error_is_cleaned_up(tmp_path: Path) -> None:
    from systolic._files import write_file

    def fail(file: Any) -> None:
        raise ValueError("disk full")

    def call() -> None:
        with pytest.raises(ValueError, match="^disk full$"):
            write_file(tmp_path / "target", fail)

    for _ in every_interrupt(call, "_files.py"):
        assert os.listdir(tmp_path) == []
