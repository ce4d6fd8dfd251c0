"""Ctrl-C at any bytecode: nothing is half done, nothing stays changed, and the interrupt comes out as one."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from interrupts import every_interrupt, interrupted

from systolic import ArrayConfig, Scoreboard, SystolicArray, Trace

X = np.array([[1, 2], [3, 4], [-5, 6]], dtype=np.int8)
W = np.array([[7, -8, 9], [10, 11, -12]], dtype=np.int8)
CONFIG = ArrayConfig(2, 3)

TRACES: dict[str, Callable[[], Trace]] = {
    "everything": Trace,
    "a ring": lambda: Trace(last=2),
    "some PEs in a window": lambda: Trace(registers=("psum", "swap"), pes=[(1, 2), (0, 0)], cycles=(2, 6)),
}


def traced(trace: Trace) -> SystolicArray:
    return SystolicArray(CONFIG, trace=trace).fold(W, X)


def values(trace: Trace) -> dict[str, Any]:
    return {"cycles": trace.cycles.tolist()} | {n: trace[n].tolist() for n in trace.registers if len(trace)}


HISTORIES = {kind: [values(traced(make()).run(n).trace) for n in range(9)] for kind, make in TRACES.items()}


@pytest.mark.parametrize("kind", TRACES)
def test_a_cycle_is_recorded_whole_or_not_at_all(kind: str) -> None:
    array = traced(TRACES[kind]()).run(3)
    before = array.state()

    def check() -> None:
        assert values(array.trace) == HISTORIES[kind][array.cycle]

    cycles = set()
    for _ in every_interrupt(lambda: array.run(2), "systolic_array", 2):
        check()
        cycles.add(array.cycle)
        # Run on from where it stopped, and from the state before: what was half done leaves no mark.
        array.run(until=6)
        check()
        array = traced(TRACES[kind]()).run(3)
    assert cycles == {3, 4, 5}
    for _ in every_interrupt(lambda: array.restore(before).run(1), "recording"):
        check()
        array = traced(TRACES[kind]()).run(3)
    for _ in every_interrupt(array.reset):
        check()
    assert array.cycle == 0 and len(array.trace) == 0


def test_a_run_interrupted_all_the_time_records_what_one_run_does() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.integers(-128, 128, (60, 4), np.int8), rng.integers(-128, 128, (4, 5), np.int8)
    whole, pieces = (SystolicArray(ArrayConfig(4, 5), trace=True).fold(w, x) for _ in range(2))
    whole.run()
    interrupts = 0
    while interrupted(lambda: pieces.run(until=whole.cycle), int(rng.integers(8000))):
        interrupts += 1
        assert pieces.trace.cycles.tolist() == list(range(pieces.cycle))
    assert interrupts > 30 and values(pieces.trace) == values(whole.trace)
    np.testing.assert_array_equal(pieces.outputs[0], whole.outputs[0])


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="signals as POSIX has them")
def test_signals_leave_whole_cycles() -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    config = ArrayConfig(16, 16)
    w, x = np.ones((16, 16), np.int8), np.ones((400, 16), np.int8)
    whole, pieces = (SystolicArray(config, trace=Trace(registers=("psum", "swap"))).fold(w, x) for _ in range(2))
    whole.run()
    before = signal.signal(signal.SIGALRM, stop)
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
    assert values(pieces.trace) == values(whole.trace)


def test_a_trace_given_to_another_array_belongs_to_it_or_to_the_first() -> None:
    for at in range(0, 20_000, 7):
        trace = Trace(registers="psum", pes=[(0, 1)])
        traced(trace).run(4)
        more = interrupted(lambda trace=trace: SystolicArray(ArrayConfig(4, 4), trace=trace), at, "systolic")
        assert (trace.array, len(trace)) in [(CONFIG, 4), (ArrayConfig(4, 4), 0)]
        if not more:
            return
    raise AssertionError("the call does not end")


def test_queueing_is_done_or_not() -> None:
    array, rows = SystolicArray(CONFIG), SystolicArray(CONFIG).fold(W, X).state()
    idle = array.state()
    for _ in every_interrupt(lambda: array.fold(W, X), "systolic"):
        assert array.state() in (idle, rows)
        array.restore(idle)


def test_a_scoreboard_counts_a_comparison_once() -> None:
    board = Scoreboard(CONFIG)
    board.edge(activation=[3, 0])
    activation = board.expected.activation
    for _ in every_interrupt(lambda: board.compare(activation=activation, psum=0)):
        assert board.compared in (0, 12)
        board.compared = 0
