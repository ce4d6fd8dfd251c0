"""Beside the array: im2col, requantization, the shortcut add, on each instruction set, one thread.

A layer of ResNet-50's first stage each: 64 channels of 56 x 56. What stands beside is numpy.
"""

from __future__ import annotations

import numpy as np
import pytest

from systolic import QuantParams, _gemm, _host, _kernels
from systolic.layers import Conv2d, QLinearAdd

CHANNELS, SIZE = 64, 56
UNIT = "elements/s"
PARAMS = [QuantParams(scale, zero, "uint8") for scale, zero in ((0.05, 3), (0.04, 100), (0.07, 8))]


@pytest.fixture(params=_kernels.instruction_sets[::-1])
def isa(request):
    _kernels._use(request.param)
    yield request.param
    _kernels._use()


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (1, CHANNELS, SIZE, SIZE), dtype=np.uint8)


def test_im2col(measure, isa, image):
    """All patches of a 3 x 3 convolution, in the layout that wavefront mode multiplies."""
    columns = np.empty((CHANNELS * 9, SIZE * SIZE), dtype=np.uint8)

    def work():
        _gemm.im2col_transposed(image, columns, (3, 3), (1, 1), (1, 1), (1, 1), (SIZE, SIZE), 0, 0, 0)

    def by_numpy():
        padded = np.pad(image, ((0, 0), (0, 0), (1, 1), (1, 1)))
        patches = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
        return patches.transpose(1, 4, 5, 0, 2, 3).reshape(columns.shape)

    work()
    assert (columns == by_numpy()).all()
    measure(f"im2col, {isa}", work, columns.size, UNIT, ("numpy", by_numpy, columns.size))


def test_requantize(measure, isa):
    """Sums to codes, a scale and a constant per channel."""
    rng = np.random.default_rng(0)
    acc = rng.integers(-(2**20), 2**20, (1, CHANNELS, SIZE * SIZE), dtype=np.int32)
    codes = np.empty(acc.shape, dtype=np.uint8)
    scale = (rng.random(CHANNELS) * 1e-4).astype(np.float32)
    constant = rng.integers(-1000, 1000, CHANNELS, dtype=np.int32)

    def work():
        _host.requantize(acc, codes, scale, 100, constant=constant)

    def by_numpy():
        scaled = (acc + constant[:, None]).astype(np.float32) * scale[:, None]
        return np.clip(np.rint(scaled) + 100, 0, 255).astype(np.uint8)

    work()
    assert (codes == by_numpy()).all()
    measure(f"requantize, {isa}", work, acc.size, UNIT, ("numpy", by_numpy, acc.size))


def test_add(measure, isa, image):
    a, b, y = PARAMS
    layer = QLinearAdd(a=a, b=b, y=y)

    def by_numpy():
        real = sum(
            np.float32(p.scales) * (image.astype(np.float32) - np.float32(p.zero_points)) for p in (a, b)
        )
        return np.clip(np.rint(real / np.float32(y.scales)) + y.zero_points, 0, 255).astype(np.uint8)

    beside = ("numpy", by_numpy, image.size)
    measure(f"add, {isa}", lambda: layer.apply(image, image), image.size, UNIT, beside)


def test_finish_of_a_convolution(measure, isa, image):
    """A whole 1 x 1 convolution as a layer: product, correction, requantization."""
    import systolic

    one = QuantParams(1.0, 0, "uint8")
    weight = np.random.default_rng(1).integers(-128, 128, (CHANNELS, CHANNELS, 1, 1), dtype=np.int8)
    layer = Conv2d(weight, x=one, w=QuantParams(1e-3), y=one)
    model = systolic.Model([layer], inputs={"x": ((1, CHANNELS, SIZE, SIZE), "uint8")})

    def work():
        systolic.run(model, image, machine=systolic.ArrayConfig(256, 256), mode="wavefront", threads=1)

    measure(f"1 x 1 convolution, wavefront, {isa}", work, CHANNELS * image.size, "MAC/s")
