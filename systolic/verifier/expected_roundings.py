"""Requantization by integers: what the roundings other than ONNX Runtime's should give.

Python's integers, one distinct sum after another: no step can overflow or round unseen. The
formulas and their sources stand in ``systolic/quant/roundings.py``.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, cast

import numpy as np

from systolic.quant import QuantParams
from systolic.reference import oracle


def rounded(layer: Any, acc: np.ndarray, bias: np.ndarray | None, axis: int) -> np.ndarray:
    """Return the codes of int32 sums by the layer's rounding.

    Parameters
    ----------
    layer : Layer
        With x, w, y and rounding.
    acc : ndarray of int32
        Zero points are corrected already.
    bias : ndarray of int32 or None
        Per channel, or broadcasting to `acc` where it has several axes.
    axis : int
        The channels' axis.
    """
    spread = [1] * acc.ndim
    spread[axis] = -1
    if bias is not None:
        added = bias.reshape(spread) if bias.ndim == 1 else bias
        acc = oracle.wrap_int32(acc.astype(np.int64) + added)
    x, w, y = (cast(QuantParams, params) for params in (layer.x, layer.w, layer.y))
    if layer.rounding == "gemmini":
        # float32 as in half_even; its clamp comes after rounding, between whole numbers all the same.
        scale = x.scales * w.scales / y.scales
        return oracle.requantize(
            acc, scale.reshape(spread) if scale.ndim else scale, y.zero_point, np.dtype(y.dtype)
        )
    rounding = {"tflite": _tflite, "tflite_single": _tflite_single, "shift": _shift}[layer.rounding]
    # In double precision: the product of two float32 is exact, the quotient is rounded once.
    scales = [float(x.scales) * float(scale) / float(y.scales) for scale in w.scales.reshape(-1)]
    out = np.empty(acc.shape, dtype=y.dtype)
    channels = np.moveaxis(acc, axis, 0)
    for channel, target in zip(channels, np.moveaxis(out, axis, 0), strict=True):
        scale = scales.pop(0) if len(scales) > 1 else scales[0]
        sums, where = np.unique(channel, return_inverse=True)
        codes = [rounding(int(value), Fraction(scale)) + int(y.zero_points) for value in sums]
        if layer.rounding != "shift":
            codes = [_i32(code) for code in codes]
        target[...] = np.clip(np.array(codes, dtype=np.int64), y.qmin, y.qmax)[where].reshape(channel.shape)
    return out


def _i32(value: int) -> int:
    return (value + 2**31) % 2**32 - 2**31


def _normalized(m: Fraction) -> tuple[int, int]:
    """Return q and e with m = q * 2^(e - 31), q of 31 bits; 0, 0 for what is below 2^-32."""
    if m == 0:
        return 0, 0
    e = 0
    while m >= 1:
        m, e = m / 2, e + 1
    while m < Fraction(1, 2):
        m, e = m * 2, e - 1
    q = math.floor(m * 2**31 + Fraction(1, 2))
    if q == 2**31:
        q, e = q // 2, e + 1
    return (q, e) if e >= -31 else (0, 0)


def _tflite(acc: int, m: Fraction) -> int:
    q, e = _normalized(m)
    product = _i32(acc << max(e, 0)) * q
    high = math.trunc(Fraction(product + (2**30 if product >= 0 else 1 - 2**30), 2**31))
    exact = Fraction(high, 2 ** max(-e, 0))
    return math.floor(abs(exact) + Fraction(1, 2)) * (1 if exact >= 0 else -1)  # ties away from zero


def _tflite_single(acc: int, m: Fraction) -> int:
    q, e = _normalized(m)
    return _i32(math.floor(Fraction(acc * q, 2 ** (31 - e)) + Fraction(1, 2)))


def _shift(acc: int, m: Fraction) -> int:
    return math.floor(acc * m + Fraction(1, 2))
