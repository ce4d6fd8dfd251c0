"""Convolutions over any number of axes: a sum over kernel offsets of products over channels, no im2col."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from systolic.reference.oracle._numbers import one, params, scaled, spread, wrap_int32
from systolic.reference.oracle._windows import (
    Windows,
    as_layer,
    channels_first,
    per_axis,
    taps,
    windows,
)
from systolic.reference.oracle.products import FLOAT32_EXACT, centred, reach


def correlate(
    x: np.ndarray, w: np.ndarray, win: Windows, groups: int, value: int = 0, real: Any = np.float64
) -> np.ndarray:
    """Return the convolution of x (batch, ic, ...) with w (oc, ic // groups, ...), `value` around x."""
    batch, (oc, icg), pixels = len(x), w.shape[:2], math.prod(win.out)
    # Kernel offsets outermost, in memory too: numpy hands only contiguous matrices to BLAS.
    filters = np.moveaxis(w.reshape(groups, oc // groups, *w.shape[1:]), (0, 1, 2), (-3, -2, -1))
    filters = filters.astype(real, order="C")
    y = np.zeros((batch, groups, oc // groups, pixels), real)
    for offsets, seen in taps(x.astype(real), win, value):
        y += filters[offsets] @ seen.reshape(batch, groups, icg, pixels)
    return y.reshape(batch, oc, *win.out)


def exact_sums(x: np.ndarray, w: np.ndarray, win: Windows, groups: int, value: int = 0) -> np.ndarray:
    """Return the convolution of small integers modulo 2^32."""
    most = max(reach(x), abs(value)) * reach(w) * math.prod(w.shape[1:])
    real = np.float32 if most <= FLOAT32_EXACT else np.float64
    return wrap_int32(correlate(x, w, win, groups, value, real).astype(np.int64))


def conv_integer(layer: Any, x: np.ndarray, w: np.ndarray, zx: Any = 0, zw: Any = 0) -> np.ndarray:
    """ONNX ConvInteger: the convolution of ``x - zx`` with ``w - zw``; padding adds exactly 0."""
    win = windows(layer, x.shape[2:], w.shape[2:])
    return exact_sums(centred(x, one(zx)), centred(w, spread(zw, w.shape, 0)), win, layer.groups)


def qlinear_conv(layer: Any, x: np.ndarray, *inputs: np.ndarray) -> np.ndarray:
    """ONNX QLinearConv, its weights and parameters held or read."""
    y: tuple[Any, ...] | None
    if layer.weight is not None:
        w, bias = layer.weight, layer.bias
        (sx, zx), (sw, zw) = params(layer.x), params(layer.w)
        y = None if layer.y is None else (*params(layer.y), layer.y.dtype)
    else:
        sx, zx, w, sw, zw, sy, zy, *rest = inputs
        sx, y, bias = one(sx), (one(sy), one(zy), zy.dtype), rest[0] if rest else None
    acc = conv_integer(layer, channels_first(layer, x), w, zx, zw)
    return as_layer(layer, scaled(acc, sx, sw, y, bias=bias, axis=1, rounding=layer.rounding))


def float_conv(layer: Any, x: np.ndarray, *inputs: np.ndarray) -> np.ndarray:
    """ONNX Conv and com.microsoft FusedConv, the weights held or read."""
    w, *rest = inputs if layer.weight is None else (layer.weight, layer.bias)
    y = correlate(x, w, windows(layer, x.shape[2:], w.shape[2:]), layer.groups)
    added = rest.pop() if layer.adds else None
    if rest and rest[0] is not None:
        y = y + spread(rest[0].astype(np.float64), y.shape, 1)
    if added is not None:
        y = y + added
    return _activated(y, layer.activation, *layer.activation_params).astype(x.dtype)


def _activated(y: np.ndarray, name: str | None, a: float = 0.0, b: float = 0.0) -> np.ndarray:
    """Return an activation of ONNX Runtime's FusedConv, with its parameters."""
    if name is None:
        return y
    if name in ("Relu", "LeakyRelu"):
        return np.maximum(y, 0) + a * np.minimum(y, 0) if a else np.maximum(y, 0)
    if name == "Clip":
        return np.minimum(np.maximum(y, a), b)
    if name == "Tanh":
        return np.tanh(y)
    if name == "Sigmoid":
        return (1 + np.tanh(y / 2)) / 2
    if name == "HardSwish":
        return y * np.minimum(np.maximum(y + 3, 0), 6) / 6
    return np.minimum(np.maximum(a * y + b, 0), 1)  # HardSigmoid


def conv_transpose(layer: Any, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """ONNX ConvTranspose: element i adds to the places ``i * stride + k * dilation - before``."""
    rank, batch, groups, ocg = x.ndim - 2, len(x), layer.groups, w.shape[1]
    stride, dilation = per_axis(layer.stride, rank), per_axis(layer.dilation, rank)
    ends = [_ends(layer, axis, x.shape[2 + axis], w.shape[2 + axis]) for axis in range(rank)]
    out = [stop - start for start, stop in ends]
    y = np.zeros((batch, groups, ocg, *out), np.float64)
    rows = x.astype(np.float64).reshape(batch, groups, x.shape[1] // groups, math.prod(x.shape[2:]))
    weight = w.astype(np.float64).reshape(groups, x.shape[1] // groups, *w.shape[1:])
    for offsets in np.ndindex(*w.shape[2:]):
        kernel = np.moveaxis(weight[(..., *offsets)], 1, 2)  # (groups, oc // groups, ic // groups)
        each = (kernel @ rows).reshape(batch, groups, ocg, *x.shape[2:])
        # For one offset, elements of x map to different places of y.
        axes = zip(x.shape[2:], stride, offsets, dilation, ends, strict=True)
        places = [np.arange(size) * step + k * gap - start for size, step, k, gap, (start, _) in axes]
        there = [np.flatnonzero((p >= 0) & (p < size)) for p, size in zip(places, out, strict=True)]
        target = np.ix_(*(p[t] for p, t in zip(places, there, strict=True)))
        y[(slice(None),) * 3 + target] += each[(slice(None),) * 3 + np.ix_(*there)]
    y = y.reshape(batch, groups * ocg, *out)
    return (y if bias is None else y + spread(bias.astype(np.float64), y.shape, 1)).astype(x.dtype)


def _ends(layer: Any, axis: int, size: int, kernel: int) -> tuple[int, int]:
    """Return which part of what the kernels reach along an axis is the output: from where to where."""
    rank = axis + 1  # of the axes up to this one
    steps = layer.stride, layer.dilation, layer.output_padding
    stride, gap, more = (per_axis(value, rank)[axis] for value in steps)
    whole = stride * (size - 1) + more + (kernel - 1) * gap + 1
    if layer.output_size is not None:
        out = layer.output_size[axis]
    elif layer.padding in ("same", "same_lower"):
        out = min(whole, size * stride)
    elif layer.padding == "valid":
        out = whole
    else:
        pads = per_axis(layer.padding, rank)[axis]
        before, after = (pads, pads) if isinstance(pads, int) else pads
        return before, whole - after
    # Of an odd number of elements to cut off the last goes at the end for "same", else at the beginning.
    cut = max(whole - out, 0)
    before = cut // 2 if layer.padding == "same" else cut - cut // 2
    return before, before + out
