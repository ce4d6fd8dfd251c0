"""``Execution``: the result of running one layer."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from systolic.stats import Stats


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
    """

    output: np.ndarray
    stats: Stats
    array_seconds: float
