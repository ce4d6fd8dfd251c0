"""Differences of two tensors: the first, how many, how large."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from systolic._check import shape as shape_text

FLOAT_TOLERANCE = 1e-5
"""By how much a float tensor may differ, as part of its largest finite value, to count as equal.

About a hundred roundings of float32 (2^-24 = 6e-8): what another order of summation, another
polynomial for exp or erf, or a fused multiply-add does; far less than one code of 8 bits (4e-3).
"""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Between two tensors that are not equal in every bit.

    Attributes
    ----------
    count, size : int
        How many elements differ, of how many.
    index : tuple of int
        Of the first of them.
    got, expected : int or float
        That element.
    max_abs : int or float
        The largest difference: codes of an integer tensor; NaN where only one is NaN.
    max_ulp : int or None
        For floats of one type: how many floats lie between, at most; None where one is NaN.
    relative : float or None
        For floats: `max_abs` over the largest finite magnitude of what was expected.
    """

    count: int
    size: int
    index: tuple[int, ...]
    got: int | float
    expected: int | float
    max_abs: int | float
    max_ulp: int | None = None
    relative: float | None = None

    def within(self, tolerance: float) -> bool:
        """Whether these are floats that differ by no more than a part of the largest value."""
        return self.relative is not None and self.relative <= tolerance

    def __str__(self) -> str:
        elements = f"{self.count:,} of {self.size:,} elements"
        if self.relative is None:
            return f"by up to {self.max_abs:,} in {elements}"
        ulp = "" if self.max_ulp is None else f" and {self.max_ulp:,} ulp"
        return f"by up to {self.max_abs:.3g}, {self.relative:.2g} of the largest value{ulp}, in {elements}"


def mismatch_of_kind(got: np.ndarray, expected: np.ndarray) -> str:
    """Return in words how types or shapes differ; empty if they do not."""
    if got.shape == expected.shape and got.dtype == expected.dtype:
        return ""
    return f"got {got.dtype} {shape_text(got.shape)}, expected {expected.dtype} {shape_text(expected.shape)}"


def first_difference(got: np.ndarray, expected: np.ndarray) -> dict[str, Any] | None:
    """Return index, values and count as a Mismatch takes them; None where all is equal."""
    note = mismatch_of_kind(got, expected)
    if note:
        return {"note": note}
    different = _different(got, expected)
    count = int(np.count_nonzero(different))
    if not count:
        return None
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(different)), got.shape))
    return {"index": index, "got": got[index].item(), "expected": expected[index].item(), "count": count}


def difference(got: np.ndarray, expected: np.ndarray) -> Difference | None:
    """Return how two tensors of one type and shape differ; None if they do not, NaN being equal to NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.verifier.difference import difference
    >>> print(difference(np.int8([1, -128]), np.int8([1, 127])))
    by up to 255 in 1 of 2 elements
    """
    first = first_difference(got, expected)
    if first is None:
        return None
    where = _different(got, expected)
    a, b = got[where], expected[where]
    if got.dtype.kind != "f":
        return Difference(**first, size=got.size, max_abs=_widest(a, b))
    with np.errstate(invalid="ignore", over="ignore"):
        gap = float(np.abs(a.astype(np.float64) - b).max())  # NaN wins
    finite = np.abs(expected[np.isfinite(expected)].astype(np.float64))
    largest = float(finite.max(initial=0.0))
    relative = gap / largest if largest else float("inf")
    # NaN and infinity where the other has none are beyond any tolerance.
    return Difference(
        **first, size=got.size, max_abs=gap, max_ulp=_ulps(a, b),
        relative=relative if np.isfinite(relative) else float("inf"),
    )  # fmt: skip


def _different(got: np.ndarray, expected: np.ndarray) -> np.ndarray:
    different = np.asarray(got != expected)
    if got.dtype.kind == "f":
        different &= ~(np.isnan(got) & np.isnan(expected))
    return different


def _widest(a: np.ndarray, b: np.ndarray) -> int:
    """Return the largest difference of integers or bools, exact for 64 bits too."""
    # Modulo 2^64 the difference of the greater and the lesser is right whatever the sign.
    gaps = np.maximum(a, b).astype(np.uint64) - np.minimum(a, b).astype(np.uint64)
    return int(gaps.max())


def _ulps(a: np.ndarray, b: np.ndarray) -> int | None:
    """Return the largest count of steps from float to float; None if one is NaN."""
    if np.isnan(a).any() or np.isnan(b).any():
        return None
    return _widest(_ordered(a), _ordered(b))


def _ordered(x: np.ndarray) -> np.ndarray:
    """Return integers in the order of floats, neighbours one apart, both zeros 0."""
    bits = np.ascontiguousarray(x).view(f"i{x.dtype.itemsize}")
    # Negative floats count up in magnitude: turned round, they count down from zero.
    return np.where(bits < 0, np.iinfo(bits.dtype).min - bits, bits)
