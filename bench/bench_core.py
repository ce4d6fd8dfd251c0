"""Cycle mode, one thread, on each instruction set: PE-cycles per second beside numpy stepping.

A PE-cycle is one PE's registers computed for one clock edge: rows * cols * cycles in all. The
yardstick moves activations, multiplies and adds with preallocated numpy arrays; its weights never
move and it has no control bits, so it does less.
"""

from __future__ import annotations

import numpy as np
import pytest

from systolic import ArrayConfig, SystolicArray, _kernels
from systolic.benchmark import NumpyStepping, OutputStepping
from systolic.benchmark.sections import add_int32, float_fold, random_control
from systolic.benchmark.timing import using
from systolic.energy import Toggles
from systolic.formats import dtype_of

UNIT = "PE-cycles/s"


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(params=_kernels.instruction_sets[::-1])
def isa(request):
    with using(request.param):
        yield request.param


def codes(rng, *shape):
    return rng.integers(-128, 128, shape, dtype=np.int8)


def stepping(rng, size):
    """Return the yardstick: 512 rows of x through a size x size array."""
    m = 512
    numpy = NumpyStepping(codes(rng, m, size), codes(rng, size, size))
    return "numpy stepping", numpy.run, size * size * m


@pytest.mark.parametrize(("k", "folds"), [(2048, 1), (2048, 4), (256, 8), (64, 8)])
@pytest.mark.parametrize("threads", [1, 2])
def test_output_stationary(measure, rng, isa, k, folds, threads):
    """Folds of k on 256 x 256: up to k = 256 sums drain on every cycle."""
    size = 256
    config = ArrayConfig(size, size, dataflow="output_stationary")
    work_list = [(codes(rng, k, size), codes(rng, size, k)) for _ in range(folds)]

    def work():
        array = SystolicArray(config)
        for w, x in work_list:
            array.fold(x=x, w=w)
        return array.run(threads=threads)

    numpy = OutputStepping(codes(rng, size, 512), codes(rng, 512, size))
    beside = "numpy stepping", numpy.run, size * size * 512
    name = f"output stationary, k = {k}{f', {folds} folds' * (folds > 1)}, {size} x {size}, {isa}"
    name += ", 2 threads" * (threads == 2)
    measure(name, work, size * size * work().cycle, UNIT, beside)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e4m3fn"])
@pytest.mark.parametrize("dataflow", ["weight_stationary", "output_stationary"])
@pytest.mark.parametrize("threads", [1, 2])
def test_floats(measure, isa, dtype, dataflow, threads):
    """One long fold of floats on 256 x 256, beside numpy stepping of float32."""
    if isa == "baseline":
        pytest.skip("calls a function for each addition")
    (name, work, amount), beside = float_fold(256, 256, 2048, dataflow, dtype_of(dtype), threads)
    name = f"{name}, {dtype}, {isa}" + ", 2 threads" * (threads == 2)
    measure(name, work, amount, UNIT, beside)


@pytest.mark.parametrize("size", [64, 128, 512])
def test_quiet_fold(measure, rng, size):
    """One long fold: after its shift, weights and control bits stand still."""
    quiet_fold(measure, rng, size, _kernels.instruction_set)


def test_quiet_fold_on_each_instruction_set(measure, rng, isa):
    quiet_fold(measure, rng, 256, isa)


def quiet_fold(measure, rng, size, isa):
    m = 8 * size
    config = ArrayConfig(size, size, accumulator_rows=None)
    x, w = codes(rng, m, size), codes(rng, size, size)
    cycles = SystolicArray(config).fold(x=x, w=w).run(threads=1).cycle

    def work():
        SystolicArray(config).fold(x=x, w=w).run(threads=1)

    name = f"one fold, m = {m}, {size} x {size}, {isa}"
    measure(name, work, size * size * cycles, UNIT, stepping(rng, size))


def test_continuous_reload(measure, rng, isa):
    """Folds of 64 rows on 256 x 256: a tile is shifted in on every cycle."""
    size, m, folds = 256, 64, 8
    config = ArrayConfig(size, size)
    work_list = [(codes(rng, size, size), codes(rng, m, size)) for _ in range(folds)]

    def work():
        array = SystolicArray(config)
        for w, x in work_list:
            array.fold(x=x, w=w)
        return array.run(threads=1)

    cycles = work().cycle
    name = f"{folds} folds, m = {m}, {size} x {size}, reloading all the time, {isa}"
    measure(name, work, size * size * cycles, UNIT, stepping(rng, size))


def test_random_control(measure, rng, isa):
    """Random values on every port, shift and swap on half of all beats: no structure to use."""
    size, cycles = 256, 512
    work = random_control(ArrayConfig(size, size), cycles)
    measure(f"random ports, {size} x {size}, {isa}", work, size * size * cycles, UNIT, stepping(rng, size))


def test_numpy_add(measure):
    """For scale: the last step of the yardstick."""
    name, work, elements = add_int32(256, 256)
    measure(f"{name}, 256 x 256", work, elements, "elements/s")


FOLDS = [("weight_stationary", 2048, 1), ("weight_stationary", 256, 8), ("output_stationary", 2048, 1),
         ("output_stationary", 256, 8)]  # fmt: skip


@pytest.mark.parametrize(("dataflow", "length", "folds"), FOLDS)
def test_toggles(measure, rng, isa, dataflow, length, folds):
    """Folds while the bits are counted that registers change, beside the same folds without."""
    size = 256
    config = ArrayConfig(size, size, dataflow=dataflow, accumulator_rows=None)
    held = config.dataflow_record.held
    shapes = ((length, size), (size, length)) if held else ((size, size), (length, size))
    work_list = [tuple(codes(rng, *shape) for shape in shapes) for _ in range(folds)]

    def work(probe=None):
        array = SystolicArray(config, probe=probe)
        for w, x in work_list:
            array.fold(x=x, w=w)
        return array.run(threads=1)

    amount = size * size * work().cycle
    name = f"{dataflow.replace('_', ' ')}, {folds} x {length}, {size} x {size}, counting toggles, {isa}"
    measure(name, lambda: work(Toggles()), amount, UNIT, ("not counting", work, amount), 15)
