"""Wavefront mode of other number formats than 8-bit integers, one thread, on each instruction set.

Floats are compared with torch's float32 product of the same numbers, or numpy's where torch is absent;
integers with numpy's product of their own type, which has no BLAS.
"""

from __future__ import annotations

import numpy as np
import pytest

import systolic
from systolic import ArrayConfig, _kernels
from systolic.benchmark import sections
from systolic.benchmark.timing import using

UNIT = "MAC/s"


def floats(torch, x, w):
    """Return what :func:`systolic.benchmark.sections.by_float32` does, and its amount."""
    return *sections.by_float32(torch, x, w), x.shape[0] * x.shape[1] * w.shape[1]


@pytest.mark.parametrize("isa", _kernels.instruction_sets[::-1])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e4m3fn"])
def test_floats(measure, isa, dtype):
    size = 256 if isa == "baseline" else 1024
    x, w = sections.float_operands(size, size, size, dtype)
    with using(isa), sections.torch_with(1) as torch:
        work = sections.wavefront(x, w, 1)
        measure(f"{size} x {size} x {size}, {dtype}, {isa}", work, size**3, UNIT, floats(torch, x, w))


@pytest.mark.parametrize("rows", [8, 32, 128, 1024])
def test_rows_of_the_array(measure, rows):
    """A k tile has as many rows as the array: each adds to the accumulators."""
    size = 1024
    x, w = sections.float_operands(size, size, size, "bfloat16")
    array = ArrayConfig(rows, 128)

    def work():
        return systolic.matmul(x, w, array=array, mode="wavefront", threads=1)

    with sections.torch_with(1) as torch:
        name = f"{size} x {size} x {size}, bfloat16, {rows} rows"
        measure(name, work, size**3, UNIT, floats(torch, x, w))


@pytest.mark.parametrize("overflow", ["wrap", "saturate"])
@pytest.mark.parametrize("bits", [32, 64])
def test_integers(measure, bits, overflow):
    size = 512
    rng = np.random.default_rng(0)
    x, w = rng.integers(-(2**15), 2**15, (2, size, size), dtype=np.int16)
    array = ArrayConfig(256, 256, psum_bits=bits, overflow=overflow)
    wide = np.dtype(f"int{bits}")

    def work():
        return systolic.matmul(x, w, array=array, mode="wavefront", threads=1)

    beside = f"numpy {wide}", lambda: x.astype(wide) @ w.astype(wide), size**3
    name = f"{size} x {size} x {size}, int16, {bits} bits, {overflow}"
    measure(name, work, size**3, UNIT, beside, rounds=3)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e5m2", "int16"])
def test_convolutions(measure, dtype, layout):
    """A 3 x 3 convolution of ResNet-50's first stage, beside that of int8."""
    rng = np.random.default_rng(0)
    x, w = rng.integers(-9, 9, (1, 64, 56, 56)), rng.integers(-9, 9, (64, 64, 3, 3))
    if layout == "NHWC":
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))

    def work(name):
        images, filters = (values.astype(systolic.formats.dtype_of(name)) for values in (x, w))
        return lambda: systolic.conv2d(images, filters, padding=1, layout=layout, mode="wavefront", threads=1)

    ours, macs = work(dtype), work(dtype)().stats.macs
    name = f"conv2d 3 x 3, 64 x 56 x 56, {layout}, {dtype}"
    measure(name, ours, macs, UNIT, ("int8", work("int8"), macs))
