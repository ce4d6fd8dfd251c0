"""Cycle mode, one thread: PE-cycles per second beside numpy stepping.

A PE-cycle is one PE's registers computed for one clock edge: rows * cols * cycles in all. The
yardstick moves activations, multiplies and adds with preallocated numpy arrays; its weights never
move and it has no control bits, so it does less.
"""

from __future__ import annotations

import numpy as np
import pytest

from systolic import ArrayConfig, SystolicArray
from systolic.array.schedule import Ports
from systolic.benchmark import NumpyStepping

UNIT = "PE-cycles/s"


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def codes(rng, *shape):
    return rng.integers(-128, 128, shape, dtype=np.int8)


def stepping(rng, size):
    """Return the yardstick: 512 rows of x through a size x size array."""
    m = 512
    numpy = NumpyStepping(codes(rng, m, size), codes(rng, size, size))
    return "numpy stepping", numpy.run, size * size * m


@pytest.mark.parametrize("size", [64, 128, 256, 512])
def test_quiet_fold(measure, rng, size):
    """One long fold: after its shift, weights and control bits stand still."""
    m = 8 * size
    config = ArrayConfig(size, size, accumulator_rows=None)
    x, w = codes(rng, m, size), codes(rng, size, size)
    cycles = SystolicArray(config).fold(w, x).run(threads=1).cycle

    def work():
        SystolicArray(config).fold(w, x).run(threads=1)

    measure(f"one fold, m = {m}, {size} x {size}", work, size * size * cycles, UNIT, stepping(rng, size))


def test_continuous_reload(measure, rng):
    """Folds of 64 rows on 256 x 256: a tile is shifted in on every cycle."""
    size, m, folds = 256, 64, 8
    config = ArrayConfig(size, size)
    work_list = [(codes(rng, size, size), codes(rng, m, size)) for _ in range(folds)]

    def work():
        array = SystolicArray(config)
        for w, x in work_list:
            array.fold(w, x)
        return array.run(threads=1)

    cycles = work().cycle
    name = f"{folds} folds, m = {m}, {size} x {size}, reloading all the time"
    measure(name, work, size * size * cycles, UNIT, stepping(rng, size))


def test_random_control(measure, rng):
    """Random values on every port, shift and swap on half of all beats: no structure to use."""
    size, cycles = 256, 512
    west, north = (cycles, size), (cycles, size)
    ports = Ports(
        codes(rng, *west),
        rng.random(west) < 0.5,
        rng.random(west) < 0.5,
        codes(rng, *north),
        rng.integers(-(2**31), 2**31, north, dtype=np.int32),
    )
    array = SystolicArray(ArrayConfig(size, size))

    def work():
        # step() would measure Python's calls: hand over all cycles at once, as run() does.
        array._clock(cycles, 1, ports)

    measure(f"random ports, {size} x {size}", work, size * size * cycles, UNIT, stepping(rng, size))


def test_numpy_add(measure, rng):
    """For scale: adding int32 arrays of 256 x 256, the last step of the yardstick."""
    p, t = (rng.integers(-1000, 1000, (256, 256), dtype=np.int32) for _ in range(2))
    q = np.empty_like(p)

    def work():
        for _ in range(200):
            np.add(p, t, out=q)

    measure("numpy.add of int32, 256 x 256", work, 200 * p.size, "elements/s")
