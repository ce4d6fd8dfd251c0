"""Products of float32 in a narrower format: operands rounded, products added one by one along k.

A product of two narrow floats and its sum with a float32 number are exact in float64, or so near a float32
number that the second rounding gives what one rounding would: float64 has more than twice the digits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from systolic.reference.oracle._numbers import F32, spread
from systolic.reference.oracle._windows import taps, windows
from systolic.reference.oracle.products import _shaped, operands

# Digits of the significand, the exponent of the smallest normal number, and the largest number.
_FORMATS = {
    "bfloat16": (8, -126, (2 - 2.0**-7) * 2.0**127),
    "float16": (11, -14, 65504.0),
    "float8_e4m3fn": (4, -6, 448.0),
    "float8_e5m2": (3, -14, 57344.0),
}

# Sums that are added to at once: they stay in cache.
_SUMS = 1 << 15


def nearest(values: np.ndarray, name: str) -> np.ndarray:
    """Return values rounded to a format, to nearest with ties to even, as float64.

    What is too large becomes infinity, or NaN if the format has none.

    Examples
    --------
    >>> nearest(np.float32([257, 259, 3.4e38]), "bfloat16"), nearest(np.float32([464, 465]), "float8_e4m3fn")
    (array([256., 260.,  inf]), array([448.,  nan]))
    """
    digits, least, largest = _FORMATS[name]
    real = values.astype(np.float64)
    _, exponent = np.frexp(real)
    last = np.ldexp(1.0, np.maximum(exponent - 1, least) - (digits - 1))  # the last digit's unit
    rounded = np.rint(real / last) * last
    beyond = np.nan if name == "float8_e4m3fn" else np.inf
    return np.where(np.abs(rounded) > largest, np.copysign(beyond, real), rounded)


def in_order(x: np.ndarray, w: np.ndarray, tile: int | None) -> np.ndarray:
    """Return x @ w as float32, of (..., M, K) and (..., K, N), added along k in order.

    Within each `tile` of k from +0, then tile by tile; None is a single tile.
    """
    k, n = w.shape[-2:]
    batch = np.broadcast_shapes(x.shape[:-2], w.shape[:-2])
    x, w = (np.broadcast_to(each, (*batch, *each.shape[-2:])) for each in (x, w))
    y = np.zeros((*batch, x.shape[-2], n), F32)
    rows = max(_SUMS // max(n, 1), 1)
    for place in np.ndindex(*batch):
        for start in range(0, x.shape[-2], rows):
            columns = np.ascontiguousarray(x[place][start : start + rows].T)
            total = y[place][start : start + rows]
            for first in range(0, k, tile or max(k, 1)):
                part = np.zeros(total.shape, F32)
                for i in range(first, min(first + (tile or k), k)):
                    part = (columns[i][:, np.newaxis] * w[place][i] + part).astype(F32)
                total[...] = (total + part if first else part) + F32(0)  # a sum that is zero is +0
    return y


def matmul_sums(layer: Any, a: np.ndarray, b: np.ndarray, tile: int | None) -> np.ndarray:
    """Return the sums of a product of rounded matrices, or of stacks of them, shaped as by numpy.matmul."""
    x, w = operands(layer, a, b)
    return _shaped(lambda left, right: in_order(left, right, tile), x, w)


def conv_sums(layer: Any, x: np.ndarray, w: np.ndarray, tile: int | None) -> np.ndarray:
    """Return the sums of a convolution of rounded operands, float64.

    K runs over (ic // groups, kernel), first index outermost.
    """
    win = windows(layer, x.shape[2:], w.shape[2:])
    oc, icg = w.shape[:2]
    k, pixels = icg * math.prod(win.kernel), math.prod(win.out)
    filters = w.reshape(layer.groups, oc // layer.groups, k)
    y = np.zeros((len(x), layer.groups, oc // layer.groups, pixels), F32)
    for number, image in enumerate(x):
        seen = [each[0].reshape(-1, pixels) for _, each in taps(image[np.newaxis], win, 0.0)]
        patches = np.stack(seen, axis=1).reshape(layer.groups, k, pixels)
        sums = in_order(patches.swapaxes(1, 2), filters.swapaxes(1, 2), tile)
        y[number] = sums.swapaxes(1, 2)
    return y.reshape(len(x), oc, *win.out)


def array_matmul(
    layer: Any, a: np.ndarray, b: np.ndarray, *c: np.ndarray, tile: int | None = None
) -> np.ndarray:
    """ONNX MatMul, and Gemm: ``f32(sums * alpha) + f32(c * beta)``."""
    y = matmul_sums(layer, nearest(a, layer.compute), nearest(b, layer.compute), tile)
    if layer.alpha != 1:
        y = y * F32(layer.alpha)
    for bias in c if layer.beta else ():
        y = y + (bias if layer.beta == 1 else bias * F32(layer.beta))
    return np.asarray(y)


def array_conv(
    layer: Any, x: np.ndarray, w: np.ndarray, *bias: np.ndarray, tile: int | None = None
) -> np.ndarray:
    """ONNX Conv."""
    y = conv_sums(layer, nearest(x, layer.compute), nearest(w, layer.compute), tile)
    return y + spread(bias[0], y.shape, 1) if bias else y
