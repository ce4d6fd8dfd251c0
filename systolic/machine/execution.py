"""``Execution``: the result of running one layer."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from systolic.config import ArrayConfig
from systolic.gemm import Gemm
from systolic.stats import Stats
from systolic.tiling import estimate_gemm


class Execution(NamedTuple):
    """The result of running one layer.

    Attributes
    ----------
    output : ndarray
        Output of the epilogue.
    stats : Stats
        Its cost; in cycle mode the cycles are those counted.
    array_seconds : float
        How long the emulation of the array took, without the epilogue.
    config : ArrayConfig
        The array with the operands' types.
    toggles : dict of str to int, or None
        Bits that each register changed, if a probe counted them.
    zero_macs : int or None
        Useful MACs with an operand that is zero, if toggles were counted.
    """

    output: np.ndarray
    stats: Stats
    array_seconds: float
    config: ArrayConfig
    toggles: dict[str, int] | None = None
    zero_macs: int | None = None


@lru_cache(maxsize=4096)
def planned(gemm: Gemm, config: ArrayConfig, x: np.dtype, w: np.dtype) -> tuple[ArrayConfig, Stats]:
    """Return the configuration with the operands' types, and the estimate of a product; in one look-up."""
    typed = config.for_operands(x, w)
    return typed, estimate_gemm(gemm, typed)
