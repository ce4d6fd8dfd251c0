"""Quotients of polynomials in float32 that stand for functions in ONNX Runtime, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from systolic.layers.host._fma import fma

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
