"""Cycles in closed form: estimates per second, an (m, k, n, array) each, on one thread.

Beside them stands ``estimate`` of one ``Gemm`` on one array in Python's integers, called in a loop.
"""

from __future__ import annotations

import numpy as np
import pytest

from systolic import ArrayConfig, Gemm, estimate, estimate_cycles, estimate_many

UNIT = "estimates/s"


def drawn(count):
    """Return the arguments of `count` estimates: layers' sizes, arrays of 8 to 512 square and oblong."""
    rng = np.random.default_rng(count)
    sizes = {name: rng.integers(1, 4096, count) for name in ("m", "k", "n")}
    return sizes | {
        "rows": 2 ** rng.integers(3, 10, count),
        "cols": 2 ** rng.integers(3, 10, count),
        "double_buffered": rng.random(count) < 0.5,
        "accumulator_rows": 2 ** rng.integers(6, 13, count),
        "groups": rng.integers(1, 5, count),
    }


def one_by_one(count):
    """Return what is stood beside: `count` products made before, each estimated by a call."""
    works = [
        (
            Gemm(int(m), int(k), int(n), groups=int(groups)),
            ArrayConfig(
                int(rows), int(cols), double_buffered=bool(double), accumulator_rows=int(accumulators)
            ),
        )
        for m, k, n, rows, cols, double, accumulators, groups in zip(*drawn(count).values(), strict=True)
    ]

    def work():
        return [estimate(gemm, machine=array).cycles for gemm, array in works]

    assert work() == estimate_cycles(**drawn(count)).tolist()
    return "estimate(Gemm), one by one", work, count


@pytest.mark.parametrize("count", [1_000, 100_000, 1_000_000])
def test_cycles(measure, count):
    """Everything varies: products, arrays, buffers, accumulators."""
    arguments = drawn(count)

    def work():
        return estimate_cycles(**arguments)

    measure(f"estimate_cycles, {count:,} at once", work, count, UNIT, one_by_one(1_000))


def test_cycles_of_a_grid(measure):
    """A sweep: 54 products on 64 x 64 array sizes, broadcast."""
    m, k, n = (size[:, None, None] for size in np.random.default_rng(0).integers(1, 4096, (3, 54)))
    side = np.arange(8, 520, 8)

    def work():
        return estimate_cycles(m, k, n, rows=side[:, None], cols=side)

    measure("estimate_cycles, 54 x 64 x 64 grid", work, work().size, UNIT, one_by_one(1_000))


def test_every_count(measure):
    """All fields of Stats."""
    arguments = drawn(100_000)

    def work():
        return estimate_many(**arguments)

    measure("estimate_many, 100,000 at once", work, 100_000, UNIT, one_by_one(1_000))


def test_cycles_one_at_a_time(measure):
    """A call for each estimate: what numpy costs for a single number."""
    arguments = {name: values.tolist() for name, values in drawn(1_000).items()}
    calls = [dict(zip(arguments, values, strict=True)) for values in zip(*arguments.values(), strict=True)]

    def work():
        return [estimate_cycles(**call) for call in calls]

    measure("estimate_cycles, one at a time", work, 1_000, UNIT, one_by_one(1_000))
