"""A fused multiply-add of float32, which numpy lacks."""

from __future__ import annotations

import numpy as np


def fma(a: np.ndarray, b: np.ndarray, c: np.ndarray | np.float32) -> np.ndarray:
    """Return f32(a * b + c), rounded once; a and b float32 or integers of at most 24 bits, c float32.

    The product is exact in float64 (24 + 24 bits). The sum may not be: it is rounded to odd, which a
    second rounding to float32 cannot spoil (Boldo and Melquiond, "Emulation of FMA and correctly
    rounded sums: proved algorithms using rounding to odd", IEEE Trans. Computers 57(4), 2008).
    """
    product = np.asarray(a.astype(np.float64) * b.astype(np.float64))
    addend = c.astype(np.float64)
    total = np.asarray(product + addend)
    # What the sum lost (Knuth's TwoSum).
    back = total - product
    lost = (product - (total - back)) + (addend - back)
    bits = total.view(np.int64)
    # Where the total is infinite or NaN, `lost` is NaN.
    even = (lost != 0) & (lost == lost) & (bits & 1 == 0)
    # One step towards what was lost makes the last bit odd; bits grow with the magnitude.
    step = np.where((lost > 0) == (total > 0), 1, -1)
    return (bits + even * step).view(np.float64).astype(np.float32)
