"""Statistics along axes, in double precision or wider, rounded once to the result's type.

A result is correct if it is within a stated tolerance of these, since ONNX fixes neither the order of sums
nor the approximation of functions such as exp.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from systolic.reference.oracle._numbers import F32, Wide, widened


def reduce(layer: Any, x: np.ndarray, given: np.ndarray | None = None) -> np.ndarray:
    """ONNX ReduceMax, ReduceMean, ReduceMin, ReduceProd or ReduceSum, over axes it has or reads, or all.

    Integers saturate, as in ONNX Runtime. For an empty set the maximum is the type's smallest number, the
    minimum its largest, and the mean 0.
    """
    operation = layer.operation
    axes = layer.axes if given is None else given.ravel().tolist() or None
    axes = [axis % max(x.ndim, 1) for axis in (range(x.ndim) if axes is None else axes)]
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    count = math.prod(x.shape[axis] for axis in axes)
    rows = np.moveaxis(x, kept, range(len(kept))).reshape([x.shape[axis] for axis in kept] + [count])
    floats = x.dtype.kind == "f"
    least, greatest = (-np.inf, np.inf) if floats else (np.iinfo(x.dtype).min, np.iinfo(x.dtype).max)
    y: Any
    if operation in ("ReduceMax", "ReduceMin"):
        if not count:
            y = np.full(rows.shape[:-1], least if operation == "ReduceMax" else greatest)
        else:
            y = np.sort(rows, axis=-1)[..., -1 if operation == "ReduceMax" else 0]
        if floats:
            y = np.where(np.isnan(rows).any(axis=-1), np.asarray(np.nan, x.dtype), y)
    else:
        wide = widened(rows) if floats else rows.astype(np.float64)
        y = wide.prod(axis=-1) if operation == "ReduceProd" else wide.sum(axis=-1)
        if operation == "ReduceMean":
            y = y / max(count, 1)
        if not floats:
            # Values beyond the type become its ends, NaN the smallest; 2^63 is beyond int64.
            low, high = ~(y > float(least)), y >= float(greatest)
            whole = np.where(low | high, 0, y).astype(x.dtype)
            y = np.where(high, greatest, np.where(low, least, whole))
    y = np.asarray(y).astype(x.dtype)
    left = [(i, 1 if i in axes else size) for i, size in enumerate(x.shape)]
    return y.reshape([size for i, size in left if layer.keepdims or i not in axes])


def arg_max(layer: Any, x: np.ndarray) -> np.ndarray:
    """ONNX ArgMax as in ONNX Runtime: NaN is not larger than any number, and none than a leading NaN."""
    axis = layer.axis % x.ndim
    x = np.moveaxis(x, axis, -1)
    found = np.zeros(x.shape[:-1], np.int64)
    best = x[..., 0]
    for place in range(1, x.shape[-1]):
        here = x[..., place]
        better = here >= best if layer.last else here > best
        best, found = np.where(better, here, best), np.where(better, place, found)
    return np.expand_dims(found, axis) if layer.keepdims else found


def softmax(layer: Any, x: np.ndarray) -> np.ndarray:
    """ONNX Softmax: ``exp(x) / sum(exp(x))``."""
    if not x.size:
        return x.copy()
    axis = layer.axis % max(x.ndim, 1)
    wide = widened(x.reshape(*x.shape[:axis], -1) if layer.flatten else x)
    power = np.exp(wide - wide.max(axis=axis, keepdims=True))
    return (power / power.sum(axis=axis, keepdims=True)).astype(x.dtype).reshape(x.shape)


def layer_normalization(layer: Any, x: np.ndarray, scale: np.ndarray, *bias: np.ndarray) -> Any:
    """ONNX LayerNormalization: ``(x - mean) / sqrt(var + epsilon) * scale + bias``, and its statistics."""
    axes = tuple(range(layer.axis % x.ndim, x.ndim))
    wide = widened(x)
    mean, var = wide.mean(axis=axes, keepdims=True), wide.var(axis=axes, keepdims=True)
    inverse = 1 / np.sqrt(var + Wide(layer.epsilon))
    y = sum(bias, (wide - mean) * inverse * scale)
    return y.astype(x.dtype), mean.astype(F32), inverse.astype(F32)


def batch_normalization(
    layer: Any, x: np.ndarray, scale: np.ndarray, bias: np.ndarray, mean: np.ndarray, var: np.ndarray
) -> np.ndarray:
    """ONNX BatchNormalization: ``x * s + (bias - mean * s)`` with ``s = scale * (1 / sqrt(var + epsilon))``.

    Every operation is rounded to float32, by way of float64: it has more than twice the digits, so that
    rounding again changes nothing (Figueroa, 1995).
    """

    def rounded(value: Any) -> Any:
        return np.asarray(value, np.float64).astype(F32).astype(np.float64)

    y = np.empty_like(x)
    for channel in range(x.shape[1]):
        gain, offset, center, square = (np.float64(a[channel]) for a in (scale, bias, mean, var))
        root = rounded(np.sqrt(rounded(square + rounded(layer.epsilon))))
        factor = rounded(gain * rounded(1 / root))
        shift = rounded(offset - rounded(center * factor))
        y[:, channel] = rounded(rounded(x[:, channel].astype(np.float64) * factor) + shift)
    return y
