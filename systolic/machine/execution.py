"""What the machine returns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from systolic.stats import Stats


class Execution(NamedTuple):
    """One layer's work done.

    Attributes
    ----------
    output : ndarray
        What the epilogue made of the accumulators.
    stats : Stats
        What it cost; the cycles are those counted.
    array_seconds : float
        How long the emulation of the array took, without the epilogue.
    """

    output: np.ndarray
    stats: Stats
    array_seconds: float
