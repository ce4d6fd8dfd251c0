"""Whole products on 256 x 256: useful MACs per second of both modes, beside numpy, on all cores.

numpy's int32 product is exact but has no BLAS; its float64 product has, and is exact below 2^53:
that is how the oracle computes. Both are timed with the conversion from int8. torch's int8 product,
where torch is importable, stands beside wavefront mode on one thread, on each instruction set.
"""

from __future__ import annotations

import numpy as np
import pytest

import systolic
from systolic import ArrayConfig, _kernels
from systolic.benchmark import sections
from systolic.benchmark.timing import using
from systolic.lowered import lower_matmul
from systolic.machine import run_cycles

UNIT = "MAC/s"
ARRAY = ArrayConfig(256, 256)


def codes(*shape):
    return np.random.default_rng(sum(shape)).integers(-128, 128, shape, dtype=np.int8)


def numpy_matmul(x, w, dtype):
    def work():
        return (x.astype(dtype) @ w.astype(dtype)).astype(np.int32)

    return f"numpy {np.dtype(dtype).name}", work, x.shape[0] * x.shape[1] * w.shape[1]


@pytest.mark.parametrize("mode", ["cycle", "wavefront"])
@pytest.mark.parametrize(("m", "k", "n"), [(64, 1024, 1024), (1024, 1024, 1024)])
def test_matmul(measure, m, k, n, mode):
    x, w = codes(m, k), codes(k, n)

    def work():
        return systolic.matmul(x, w, array=ARRAY, mode=mode)

    beside = numpy_matmul(x, w, np.float64)
    assert (work().acc == beside[1]()).all()
    measure(f"matmul {m} x {k} x {n}, {mode}", work, m * k * n, UNIT, beside, rounds=5)


@pytest.mark.parametrize("mode", ["cycle", "wavefront"])
def test_matmul_beside_int32(measure, mode):
    m, k, n = 256, 512, 512
    x, w = codes(m, k), codes(k, n)

    def work():
        systolic.matmul(x, w, array=ARRAY, mode=mode)

    measure(f"matmul {m} x {k} x {n}, {mode}", work, m * k * n, UNIT, numpy_matmul(x, w, np.int32), rounds=5)


@pytest.mark.parametrize("size", [8, 32, 64])
def test_one_small_fold(measure, size):
    """Cycle mode's short path for a single small fold, beside the queues of SystolicArray."""
    lowered, array = lower_matmul(codes(size, size), codes(size, size)), ArrayConfig(size, size)

    def short():
        return run_cycles(lowered, array)

    def queued():  # who watches the accumulators gets the other path
        return run_cycles(lowered, array, drained=lambda *sums: None)

    done = short()
    assert (done.output == queued().output).all()
    cycles = size * size * done.stats.cycles
    measure(f"one fold of {size} x {size} x {size}", often(short), 100 * cycles, "PE-cycles/s",
            ("queued", often(queued), 100 * cycles))  # fmt: skip


@pytest.mark.parametrize("mode", ["cycle", "wavefront"])
def test_conv2d(measure, mode):
    """A 3 x 3 convolution of ResNet-50's first stage, beside im2col and float64 in numpy."""
    x, w = codes(1, 64, 56, 56), codes(64, 64, 3, 3)

    def work():
        return systolic.conv2d(x, w, padding=1, array=ARRAY, mode=mode)

    def by_numpy():
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        patches = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
        rows = patches.transpose(0, 2, 3, 1, 4, 5).reshape(56 * 56, 64 * 9).astype(np.float64)
        sums = rows @ w.reshape(64, 64 * 9).T.astype(np.float64)
        return sums.T.reshape(1, 64, 56, 56).astype(np.int32)

    result = work()
    assert (result.acc == by_numpy()).all()
    macs = result.stats.macs
    measure(
        f"conv2d 3 x 3, 64 x 56 x 56, {mode}", work, macs, UNIT, ("numpy float64", by_numpy, macs), rounds=5
    )


@pytest.mark.parametrize("isa", _kernels.instruction_sets[::-1])
@pytest.mark.parametrize(("x_type", "w_type"), sections.SIGNS)
def test_signs(measure, isa, x_type, w_type):
    """All four pairs of types on one thread."""
    m = k = n = 512
    operands = sections.operands(m, k, n, x_type, w_type)
    with using(isa), sections.torch_with(1) as torch:
        name = f"wavefront {m} x {k} x {n}, {x_type} x {w_type}, {isa}"
        measure(name, sections.wavefront(*operands, 1), m * k * n, UNIT, by_peer(torch, m, k, n))


@pytest.mark.parametrize(("m", "k", "n"), sections.THIN)
def test_thin(measure, m, k, n):
    """The kernel alone, many calls at a time: w is packed in each."""
    work = sections.kernel(*sections.operands(m, k, n))
    with sections.torch_with(1) as torch:
        name, beside, macs = by_peer(torch, m, k, n)
        measure(f"kernel {m} x {k} x {n}", often(work), 100 * macs, UNIT, (name, often(beside), 100 * macs))


def by_peer(torch, m, k, n):
    """Return torch's int8 product, or numpy's float64 one where torch is absent."""
    operands = sections.operands(m, k, n)
    return *sections.by_torch(torch, *operands), m * k * n


def often(work):
    def repeated():
        for _ in range(100):
            work()

    return repeated
