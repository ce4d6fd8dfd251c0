"""Chips of several matrix units: their peaks to the printed digit, and the NeuronCore's cost model."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from support.strategies import raises
from systolic import Gemm, estimate, matmul, presets
from systolic.accelerators import CHIPS, Chip, neuroncore_cycles


@pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda chip: chip.name)
def test_peaks_to_the_printed_digit(chip: Chip) -> None:
    digits = len(str(chip.published_tflops).partition(".")[2])
    assert round(chip.peak_tflops, digits) == chip.published_tflops
    assert presets.get(chip.name) is chip.unit and chip.source


def test_clocks_and_units() -> None:
    """Norrie et al. 2021; Jouppi et al. 2021, 2023; AWS Neuron SDK documentation."""
    found = {chip.name: (chip.units, chip.unit.clock_mhz) for chip in CHIPS.values()}
    assert found == {
        "tpu-v2": (2, 700), "tpu-v3": (4, 940), "tpu-v4i": (4, 1050), "tpu-v4": (8, 1050),
        "neuroncore-v2": (1, 2800),
    }  # fmt: skip
    assert all((c.unit.array.rows, c.unit.array.cols) == (128, 128) for c in CHIPS.values())


def test_a_row_a_cycle() -> None:
    """A later TPU multiplies 8 x 128 by 128 x 128 every 8 cycles: a row a cycle once weights are in."""
    sizes = [estimate(Gemm(m, 128, 128), machine=presets.TPU_V3).cycles for m in (128, 136)]
    assert sizes[1] - sizes[0] == 8


def test_products_on_a_preset_are_of_bfloat16() -> None:
    x = np.ones((3, 5), ml_dtypes.bfloat16)
    assert matmul(x, x.T, array=presets.TPU_V4).acc.tolist() == [[5.0] * 3] * 3
    assert presets.TPU_V4.array.format.text == "bfloat16 x bfloat16, float32 sums"


def test_neuroncore() -> None:
    assert neuroncore_cycles(Gemm(4096, 4096, 4096)) == 4_194_304
    assert neuroncore_cycles(Gemm(1, 1, 1)) == 64
    assert neuroncore_cycles(Gemm(513, 129, 1, groups=3)) == 3 * 2 * (512 + 64)
    assert neuroncore_cycles(Gemm(0, 4, 4)) == neuroncore_cycles(Gemm(4, 0, 4)) == 0
    # The array adds its fill and drain, once.
    ours = estimate(Gemm(4096, 4096, 4096), machine=presets.NEURONCORE_V2).cycles
    assert ours == 4_194_304 + 128 + 2 * 128 - 2
    with raises(TypeError, "gemm must be a Gemm, not int 3; try Gemm(m, k, n)"):
        neuroncore_cycles(3)
