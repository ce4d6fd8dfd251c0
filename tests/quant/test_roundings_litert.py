"""The named roundings against LiteRT itself, where it is installed; tests/data holds what it said."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from support import litert_models
from systolic.quant import QuantParams, multiplier, requantize

pytest.importorskip("ai_edge_litert.interpreter")

ROUNDING = {"conv_reference": "tflite", "conv_default": "half_even", "dense_default": "half_even"}
SEEDS = range(6)


def scales(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return float32 scales, some of which make exact ties; XNNPACK takes multipliers below 256."""
    odd = 2.0 ** rng.uniform(-6, 1, count)
    even = rng.choice([1.0, 1.5], count) * 2.0 ** rng.integers(-5, 0, count)
    return np.where(rng.random(count) < 0.5, odd, even).astype(np.float32)


def sums_near_ties(rng: np.random.Generator, m: np.ndarray) -> list[int]:
    """Return one int32 sum per multiplier, at or next to a tie."""
    result = []
    for value in m:
        tie = (Fraction(int(rng.integers(-140, 140))) + Fraction(1, 2)) / Fraction(float(value))
        result.append(int(np.clip(int(tie) + int(rng.integers(-1, 3)), -(2**31), 2**31 - 1)))
    return result


def test_stored_table_is_what_litert_says():
    stored = [tuple(str(value) for value in row.values()) for row in litert_models.stored()]
    assert stored == [tuple(str(value) for value in row) for row in litert_models.rows()]


@pytest.mark.parametrize("kernel", ["conv_reference", "conv_default"])
@pytest.mark.parametrize("seed", SEEDS)
def test_convolution_per_channel(kernel, seed):
    rng = np.random.default_rng(seed)
    x_scale, y_scale = scales(rng, 2)
    w = QuantParams(scales(rng, 500), axis=0)
    m = multiplier(QuantParams(x_scale), w, QuantParams(y_scale), ROUNDING[kernel])
    sums = sums_near_ties(rng, m)
    zero_point = int(rng.integers(-128, 128))
    expected = litert_models.run(kernel, sums, x_scale, w.scales, y_scale, zero_point)
    ours = requantize(np.int32(sums), m, zero_point, dtype="int8", rounding=ROUNDING[kernel])
    np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_dense(seed):
    rng = np.random.default_rng(seed)
    x, w, y = (QuantParams(scale) for scale in scales(rng, 3))
    m = multiplier(x, w, y)
    sums = sums_near_ties(rng, np.repeat(m, 500))
    zero_point = int(rng.integers(-128, 128))
    expected = litert_models.run("dense_default", sums, x.scale, w.scale, y.scale, zero_point)
    np.testing.assert_array_equal(requantize(np.int32(sums), m, zero_point, dtype="int8"), expected)


def test_the_kernels_differ_where_the_roundings_do():
    # So that the comparisons above can fail.
    weights = np.full(3, 0.25, np.float32)
    codes = {
        kernel: litert_models.run(kernel, [1, 5, 9], 1.0, weights, 1.0, 0).tolist()
        for kernel in ROUNDING
        if kernel.startswith("conv")
    }
    assert codes == {"conv_reference": [1, 2, 3], "conv_default": [0, 1, 2]}
