"""Rounding of float32 to codes where a conversion to int32 comes before the saturation."""

from __future__ import annotations

import numpy as np

from systolic.quant import QuantParams


def round_codes(values: np.ndarray, y: QuantParams) -> np.ndarray:
    """Return float32 numbers rounded to whole ones within y's type.

    NaN and values of 2^31 or more give the smallest code, as on x86, where the conversion returns the
    smallest int32 for them.
    """
    with np.errstate(invalid="ignore"):
        fits = values < np.float32(2**31)
        return np.clip(np.where(fits, np.rint(values), np.float32(y.qmin)), y.qmin, y.qmax)
