"""Additions of each number format, in Python integers and exact fractions; shared with nothing they check."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Numbers:
    """How an array adds a product to a sum.

    Parameters
    ----------
    floats : bool
        Whether sums are float32, rounded once to nearest, ties to even; else they are integers.
    psum_bits : int
        Of an integer sum.
    saturate : bool
        Whether an integer sum that does not fit takes the nearest value that does; else it wraps.

    Examples
    --------
    >>> from systolic.reference.numbers import Numbers
    >>> Numbers(psum_bits=16).add(32_767, 1, 1), Numbers(psum_bits=16, saturate=True).add(32_767, 1, 1)
    (-32768, 32767)
    >>> Numbers(floats=True).add(2.0**24, 1.0, 1.0), Numbers(floats=True).add(2.0**24, 1.5, 1.0)
    (16777216.0, 16777218.0)
    """

    floats: bool = False
    psum_bits: int = 32
    saturate: bool = False

    @property
    def held(self) -> type:
        """The numpy type that holds all values exactly."""
        return np.float64 if self.floats else np.int64

    def number(self, value: Any) -> Any:
        """Return a value as a Python number."""
        return float(value) if self.floats else int(value)

    def add(self, total: Any, a: Any, w: Any) -> Any:
        """Return total + a * w: computed exactly, then wrapped, saturated or rounded once."""
        if self.floats:
            return _fused(total, a, w)
        return self.fit(total + a * w)

    def accumulate(self, total: Any, more: Any) -> Any:
        """Return total + more, as the accumulators add the sums of two k tiles."""
        return self.add(total, more, 1)

    def fit(self, total: int) -> int:
        """Return an integer wrapped or saturated to `psum_bits`."""
        half = 2 ** (self.psum_bits - 1)
        if self.saturate:
            return min(max(total, -half), half - 1)
        return (total + half) % (2 * half) - half

    def product(self, x: Sequence[Sequence[Any]], w: Sequence[Sequence[Any]], tile: int) -> np.ndarray:
        """Return x @ w, added along k in order: within tiles of so many rows of w from 0, then tile by tile.

        Parameters
        ----------
        x : array_like, (m, k)
        w : array_like, (k, n)
        tile : int

        Returns
        -------
        ndarray of int64 or float64, (m, n)
        """
        k = len(w)
        columns = [[self.number(line[c]) for line in w] for c in range(len(w[0]) if k else 0)]
        rows = [[self.number(value) for value in row] for row in x]
        sums: np.ndarray = np.zeros((len(rows), len(columns)), self.held)
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                for start in range(0, k, tile):
                    part = self.number(0)
                    for a, b in zip(row[start : start + tile], column[start : start + tile], strict=True):
                        part = self.add(part, a, b)
                    sums[i, j] = self.accumulate(sums[i, j].item(), part) if start else part
        return sums

    def matmul(self, x: np.ndarray, w: np.ndarray, tile: int) -> np.ndarray:
        """Return :meth:`product` by numpy, if float32 holds all products of floats exactly.

        Examples
        --------
        >>> import numpy as np
        >>> from systolic.reference.numbers import Numbers
        >>> x, w = np.int8([[100, 100, 100, 100, -100]]), np.int8([[100]] * 5)
        >>> Numbers(psum_bits=16, saturate=True).matmul(x, w, tile=5)
        array([[22767]])
        """
        held = np.float32 if self.floats else np.int64
        x, w = x.astype(held), w.astype(held)
        if not self.floats and not self.saturate:
            return self._fit(x @ w)  # int64 wraps
        sums = np.zeros((len(x), w.shape[1]), held)
        for start in range(0, len(w), tile):
            part = np.zeros_like(sums)
            for k in range(start, min(start + tile, len(w))):
                part = self._fit(part + x[:, k : k + 1] * w[k])
            sums = self._fit(sums + part)
        return sums

    def _fit(self, sums: np.ndarray) -> np.ndarray:
        if self.floats:
            return sums
        if self.saturate:
            half = 2 ** (self.psum_bits - 1)
            return np.clip(sums, -half, half - 1)
        return sums << 64 - self.psum_bits >> 64 - self.psum_bits


INT32 = Numbers()
"""int32 sums that wrap modulo 2^32."""


def _fused(total: float, a: float, w: float) -> float:
    if not (math.isfinite(total) and math.isfinite(a) and math.isfinite(w)):
        return total + a * w  # only infinities and NaN: rounding does not matter
    return float32(Fraction(total) + Fraction(a) * Fraction(w))


def float32(value: Fraction) -> float:
    """Return the float32 number nearest to a fraction, ties to even; an infinity beyond the range.

    Examples
    --------
    >>> from fractions import Fraction
    >>> from systolic.reference.numbers import float32
    >>> float32(Fraction(2) ** 128 - 1), float32(Fraction(1, 3)) == float(np.float32(1 / 3))
    (inf, True)
    """
    if value == 0:
        return 0.0
    size = abs(value)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    if Fraction(2) ** exponent > size:
        exponent -= 1
    # A multiple of the last place: 23 bits behind the first one, and nothing finer than the least subnormal.
    unit = Fraction(2) ** max(exponent - 23, -149)
    rounded = round(size / unit) * unit
    result = float(rounded) if rounded < Fraction(2) ** 128 else math.inf
    return math.copysign(result, value) if result else 0.0


def tile_length(array: Any) -> int | None:
    """Return how many products an array adds along k before a sum goes to the accumulators; None for all."""
    return None if array.dataflow == "output_stationary" else int(array.rows)
