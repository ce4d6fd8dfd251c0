"""Functions that numpy lacks, or computes with processor-dependent bits."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

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


# Of float32, with ONNX Runtime's bits


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


# Coefficients of x's odd powers above, of its even ones below, from the highest on.
_LOGISTIC_ABOVE = (
    4.37031012579801e-11, 1.15627324459942e-07, 6.08574864600143e-05, 8.51377133304701e-03,
    2.48287947061529e-01,
)  # fmt: skip
_LOGISTIC_BELOW = (
    6.10247389755681e-13, 5.76102136993427e-09, 6.29106785017040e-06, 1.70198817374094e-03,
    1.16817656904453e-01, 9.93151921023180e-01,
)  # fmt: skip
_TANH_ABOVE = (
    -2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08,
    1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03,
)  # fmt: skip
_TANH_BELOW = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)


def logistic(x: np.ndarray) -> np.ndarray:
    """Return the logistic function of float32 with ONNX Runtime's bits: see :class:`QLinearSigmoid`."""
    ratio = quotient(x, 18, _LOGISTIC_ABOVE, _LOGISTIC_BELOW)
    return np.maximum(ratio + np.float32(0.5), np.float32(0))


def tanh(x: np.ndarray) -> np.ndarray:
    """Return the hyperbolic tangent of float32 with ONNX Runtime's bits on x86 with FMA3.

    Coefficients and order of operations: ``MlasTanhConstants`` in onnxruntime/core/mlas/lib/tanh.cpp (after
    Eigen) and ``MlasTanhKernelFma3`` in x86_64/TanhKernelFma3.S.
    """
    return quotient(x, 9, _TANH_ABOVE, _TANH_BELOW)


def quotient(x: np.ndarray, bound: float, above: Sequence[float], below: Sequence[float]) -> np.ndarray:
    """Return ``x * above(x^2) / below(x^2)``, x within the bound, by Horner's rule with fused steps."""
    with np.errstate(under="ignore"):
        x = np.clip(x, np.float32(-bound), np.float32(bound))
        square, sums = x * x, []
        for series in (above, below):
            total = np.full_like(x, series[0])
            for coefficient in series[1:]:
                total = fma(total, square, np.float32(coefficient))
            sums.append(total)
        return np.asarray(x * sums[0] / sums[1])
