"""Float functions that numpy lacks, or computes with processor-dependent bits."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

# erf's table: a point every 1/16 up to 6, beyond which erf is 1 in float64 (1 - erf(6) = 2e-17).
_STEP = 1 / 16
_LAST = 6.0
# Terms of the Taylor series about the nearest point: |h| <= 1/32, so the rest is below 1e-17.
_TERMS = 10


@functools.cache
def _erf_table() -> np.ndarray:
    """Return erf's Taylor coefficients about each point, (points, terms).

    ``erf'(x) = 2/sqrt(pi) exp(-x^2)``, whose derivatives are ``(-1)^n H_n(x) exp(-x^2)`` with Hermite
    polynomials ``H_{n+1} = 2x H_n - 2n H_{n-1}`` (DLMF 7.10.1, 18.9.1).
    """
    points = np.arange(round(_LAST / _STEP) + 1) * _STEP
    table = np.empty((points.size, _TERMS))
    table[:, 0] = [math.erf(point) for point in points]
    slope = 2 / math.sqrt(math.pi) * np.exp(-(points**2))
    hermite, before = np.ones_like(points), np.zeros_like(points)
    for term in range(1, _TERMS):
        table[:, term] = slope * hermite * (-1) ** (term - 1) / math.factorial(term)
        hermite, before = 2 * points * hermite - 2 * (term - 1) * before, hermite
    return table


def erf(x: np.ndarray) -> np.ndarray:
    """Return the error function of float64, to 1e-15; NaN stays NaN."""
    size = np.minimum(np.abs(x), _LAST)
    near = np.rint(size / _STEP)
    table = _erf_table()[np.where(np.isnan(near), 0, near).astype(np.intp)]
    h = size - near * _STEP
    total = table[..., _TERMS - 1]
    for term in range(_TERMS - 2, -1, -1):
        total = total * h + table[..., term]
    return np.copysign(np.minimum(total, 1.0), x)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Return ``1 / (1 + exp(-x))`` of float64, without overflow."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def gelu(x: np.ndarray) -> np.ndarray:
    """Return ``x/2 (1 + erf(x / sqrt(2)))`` of float64."""
    return 0.5 * x * (1.0 + erf(x / math.sqrt(2)))


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    """Return ``x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`` of float64."""
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def in_double(function: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
    """Return a function of float numbers computed in float64 and rounded once to the input's type."""
    with np.errstate(all="ignore"):
        return np.asarray(function(x.astype(np.float64))).astype(x.dtype)
