"""The benchmarks' arithmetic; no times are asserted."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from systolic import ArrayConfig, SystolicArray, benchmark
from systolic.reference import ReferenceArray


@pytest.mark.parametrize("rows, cols, m", ((1, 1, 1), (2, 3, 1), (3, 2, 4), (5, 7, 12)))
def test_numpy_stepping_steps_the_array(rows: int, cols: int, m: int) -> None:
    """It computes the psums that the array has, by its own ports' values as they are, weights standing still."""
    rng = np.random.default_rng(0)
    x = rng.integers(-128, 128, (m, rows), dtype=np.int8)
    w = rng.integers(-128, 128, (rows, cols), dtype=np.int8)
    stepping = benchmark.NumpyStepping(x, w)
    stepping.run()
    reference = ReferenceArray(rows, cols, {"weight": w.tolist()})
    state = SystolicArray(ArrayConfig(rows, cols)).state()
    array = SystolicArray(ArrayConfig(rows, cols)).restore(
        type(state)(**{**dict(state.registers), "weight": w})
    )
    for row in x:
        reference.step(activation=row.tolist())
        array.step(activation=row)
    for ours in (reference.registers(), array.registers):
        np.testing.assert_array_equal(stepping.p, ours["psum"])
        np.testing.assert_array_equal(stepping.a16, ours["activation"])
    # A second run goes on from there.
    stepping.run()
    for row in x:
        reference.step(activation=row.tolist())
    np.testing.assert_array_equal(stepping.p, reference.psum)


def test_compare_is_medians_of_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    # One warm-up each, then in turn: what each call takes, in seconds.
    took = iter([1.0, 2.0, 4.0, 4.0, 2.0, 8.0])
    now = [0.0]

    def clock() -> float:
        return now[0]

    def work(name: str) -> None:
        calls.append(name)
        if len(calls) > 2:
            now[0] += next(took)

    monkeypatch.setattr(benchmark.time, "perf_counter", clock)
    measured = benchmark.compare("a", lambda: work("a"), 12, "b", lambda: work("b"), 8, "u/s", 3)
    assert calls == ["a", "b"] * 4
    # a: 12, 3, 6 per second; b: 4, 2, 1; pair by pair 3, 1.5, 6.
    assert (measured.rate, measured.baseline_rate, measured.ratio) == (6.0, 2.0, 3.0)
    assert (measured.name, measured.baseline, measured.unit) == ("a", "b", "u/s")
    assert json.loads(json.dumps(measured.to_dict())) == {
        "name": "a", "baseline": "b", "unit": "u/s", "rate": 6.0, "baseline_rate": 2.0, "ratio": 3.0
    }  # fmt: skip


def test_bench_measures_what_it_says() -> None:
    measured = benchmark.bench(rows=4, cols=5, m=6, rounds=2)
    assert [m.unit for m in measured] == ["PE-cycles/s", "PE-cycles/s", "MAC/s", "MAC/s"]
    for m in measured:
        for value in (m.rate, m.baseline_rate, m.ratio):
            assert math.isfinite(value) and value > 0
    text = str(benchmark.table(measured))
    for m in measured:
        assert m.name in text and m.baseline in text
    assert "m = 6" in measured[0].name and "4 x 5" in measured[0].name and "6 x 4 x 5" in measured[2].name


def test_bench_counts_the_kernels_cycles(monkeypatch: pytest.MonkeyPatch) -> None:
    amounts = []

    def compare(name, work, amount, baseline, base_work, base_amount, unit, rounds):  # type: ignore[no-untyped-def]
        work(), base_work()
        amounts.append((amount, base_amount))
        return benchmark.Measurement(name, baseline, unit, 1.0, 1.0, 1.0)

    monkeypatch.setattr(benchmark, "compare", compare)
    benchmark.bench(rows=4, cols=5, m=6, rounds=2)
    fold = 2 * 4 + 5 + 6 - 2
    assert amounts[0] == (4 * 5 * fold, 4 * 5 * 6)
    assert amounts[2] == amounts[3] == (6 * 4 * 5, 6 * 4 * 5)


@pytest.mark.parametrize("name", ("rows", "cols", "m", "rounds", "threads"))
def test_bench_checks_sizes(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be a positive integer, not 0$"):
        benchmark.bench(**{name: 0})
    with pytest.raises(TypeError, match=f"^{name} must be an integer"):
        benchmark.bench(**{name: 2.5})
