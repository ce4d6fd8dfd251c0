"""Products of codes of 4 and 16 bits as real numbers: codes less their zero points, summed in float64.

Sums of such products are integers below 2^53, which float64 holds exactly in any order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from systolic.reference.oracle._numbers import F32, one, spread, wrap_int32
from systolic.reference.oracle._windows import windows
from systolic.reference.oracle.convolutions import correlate
from systolic.reference.oracle.products import _real, _shaped, operands


def _centred(codes: np.ndarray, zero: np.ndarray) -> np.ndarray:
    return codes.astype(np.float64) - zero


def _real_numbers(
    sums: np.ndarray, x_scale: np.ndarray, w_scale: np.ndarray, axis: int, wide: bool
) -> np.ndarray:
    """Return exact sums as real numbers, modulo 2^32 unless `wide`, rounded to float32 once."""
    sums = sums if wide else wrap_int32(sums.astype(np.int64)).astype(np.float64)
    factor = one(x_scale).astype(np.float64) * spread(w_scale, sums.shape, axis)
    return np.asarray(sums * factor, F32)


def dequantized_matmul(layer: Any, *inputs: np.ndarray, wide: bool = False) -> np.ndarray:
    """DequantizeLinear of x and w, and MatMul or Gemm: ``f32(sums * xs * ws * alpha) + f32(bias * beta)``."""
    x, xs, zx, w, ws, zw, *bias = inputs
    left, right = operands(layer, _centred(x, one(zx)), w)
    zeros = one(zw) if zw.size == 1 else zw
    sums = _shaped(_real, left, _centred(right, zeros))
    y = _real_numbers(sums, xs * np.float64(layer.alpha), ws, -1, wide)
    for each in bias if layer.beta else ():
        y = y + (each if layer.beta == 1 else each * F32(layer.beta))
    return y


def dequantized_conv(layer: Any, *inputs: np.ndarray, wide: bool = False) -> np.ndarray:
    """DequantizeLinear of x and w, and Conv: padding adds exactly 0."""
    x, xs, zx, w, ws, zw, *bias = inputs
    win = windows(layer, x.shape[2:], w.shape[2:])
    sums = correlate(_centred(x, one(zx)), _centred(w, spread(zw, w.shape, 0)), win, layer.groups)
    y = _real_numbers(sums, xs, ws, 1, wide)
    return y + spread(bias[0], y.shape, 1) if bias else y
