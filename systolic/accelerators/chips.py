"""Chips with several matrix units, their published peaks, and the documented cost model of a NeuronCore.

>>> from systolic.accelerators import CHIPS
>>> round(CHIPS["tpu-v3"].peak_tflops, 1), CHIPS["tpu-v3"].published_tflops
(123.2, 123.2)
"""

from __future__ import annotations

from dataclasses import dataclass

from systolic import _check, presets
from systolic.config import MachineConfig
from systolic.gemm import Gemm


@dataclass(frozen=True, kw_only=True)
class Chip:
    """A chip of equal matrix units.

    Parameters
    ----------
    name : str
    unit : MachineConfig
        One of its matrix units: a preset.
    units : int
        How many there are.
    published_tflops : float
        Peak of bfloat16 as published, in 10^12 operations per second; 1 MAC is 2 operations.
    source : str
        Where clock, units and peak are from.

    Examples
    --------
    >>> from systolic.accelerators import CHIPS
    >>> CHIPS["tpu-v2"].units, round(CHIPS["tpu-v2"].peak_tflops, 1)
    (2, 45.9)
    """

    name: str
    unit: MachineConfig
    units: int
    published_tflops: float
    source: str

    @property
    def peak_tflops(self) -> float:
        """Operations per second if every PE does a useful MAC on every cycle, in 10^12."""
        array = self.unit.array
        return 2 * array.rows * array.cols * self.unit.clock_mhz * self.units / 1e6


CHIPS = {
    chip.name: chip
    for chip in (
        Chip(name="tpu-v2", unit=presets.TPU_V2, units=2, published_tflops=45.9,
             source="Norrie et al., IEEE Micro 41(2), 2021"),
        Chip(name="tpu-v3", unit=presets.TPU_V3, units=4, published_tflops=123.2,
             source="Norrie et al., IEEE Micro 41(2), 2021"),
        Chip(name="tpu-v4i", unit=presets.TPU_V4I, units=4, published_tflops=137.6,
             source="Jouppi et al., ISCA 2021"),
        Chip(name="tpu-v4", unit=presets.TPU_V4, units=8, published_tflops=275.3,
             source="Jouppi et al., ISCA 2023"),
        Chip(name="neuroncore-v2", unit=presets.NEURONCORE_V2, units=1, published_tflops=92,
             source="AWS Neuron SDK documentation, NKI architecture guides"),
    )
}  # fmt: skip
"""Chips whose matrix units are presets, by name."""

# An instruction of the tensor engine moves at most so many rows, and takes at least so many cycles.
_MOST_ROWS, _LEAST_CYCLES = 512, 64


def neuroncore_cycles(gemm: Gemm) -> int:
    """Return the cycles of a bfloat16 product by the documented cost model of the NeuronCore-v2.

    Each instruction multiplies up to 512 moving rows with a stationary tile of up to 128 x 128, and takes
    max(rows, 64) cycles. Loading tiles, fill and drain are hidden.

    Parameters
    ----------
    gemm : Gemm
        x moves, w stays.

    Examples
    --------
    >>> from systolic import Gemm
    >>> from systolic.accelerators import neuroncore_cycles
    >>> neuroncore_cycles(Gemm(4096, 4096, 4096))
    4194304
    """
    if not isinstance(gemm, Gemm):
        raise TypeError(f"gemm must be a Gemm, not {_check.kind(gemm)}; try Gemm(m, k, n)")
    array = presets.NEURONCORE_V2.array
    tiles = gemm.groups * -(-gemm.k // array.rows) * -(-gemm.n // array.cols)
    whole, rest = divmod(gemm.m, _MOST_ROWS)
    return tiles * (whole * _MOST_ROWS + (max(rest, _LEAST_CYCLES) if rest else 0))
