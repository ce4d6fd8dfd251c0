"""Expected outputs of float layers, computed from their fields; output shapes are the layer's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from systolic import layers
from systolic.layers import Layer
from systolic.reference import oracle
from systolic.verifier.expected_products import per_axis, window_pads

Sizes = tuple[int, ...]


def _normal(axes: Any, rank: int) -> Sizes:
    return tuple(int(axis) % rank for axis in axes)


# Windows


def _before(pads: Any) -> Sizes:
    return tuple(pair[0] for pair in pads)


def _max_pool(layer: layers.MaxPool, x: np.ndarray) -> np.ndarray:
    kernel = tuple(layer.kernel)
    stride, dilation, pads = window_pads(layer, x.shape[2:], kernel, pool=True)
    out = layers.MaxPool.output_shape(layer, x.shape)[2:]
    return oracle.max_windows(x, out, kernel, stride, dilation, _before(pads))[0]


def _max_pool_indices(layer: layers.MaxPoolIndices, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    kernel, image = tuple(layer.kernel), x.shape[2:]
    stride, dilation, pads = window_pads(layer, image, kernel, pool=True)
    out = layer.output_shape(x.shape)[0][2:]
    # NaN counts as none: it is larger than no number, and only a first one stays.
    numbers = np.where(x != x, np.asarray(-np.inf, x.dtype), x) if x.dtype.kind == "f" else x
    best, where = oracle.max_windows(numbers, out, kernel, stride, dilation, _before(pads))
    if layer.order == "column":
        where = np.ravel_multi_index(np.unravel_index(where, image), image, order="F")
    planes = np.arange(math.prod(x.shape[:2])).reshape(*x.shape[:2], *[1] * len(image))
    return best, where + planes * math.prod(image)


def _average_pool(layer: layers.AveragePool, x: np.ndarray) -> np.ndarray:
    kernel = tuple(layer.kernel)
    stride, dilation, pads = window_pads(layer, x.shape[2:], kernel, pool=True)
    out = layer.output_shape(x.shape)[2:]
    return oracle.average_windows(x, out, kernel, stride, dilation, pads, layer.count_include_pad)


def max_pool_2d(layer: layers.MaxPool2d, x: np.ndarray) -> np.ndarray:
    """Return the largest numbers of any type, of images in the layer's layout."""
    images = x if layer.layout == "NCHW" else np.moveaxis(x, -1, 1)
    kernel: Any = layer.kernel
    stride, dilation, pads = window_pads(layer, images.shape[2:], kernel, pool=True)
    shape = layer.output_shape(x.shape)
    out = shape[2:] if layer.layout == "NCHW" else shape[1:3]
    best, _ = oracle.max_windows(images, out, kernel, stride, dilation, _before(pads))
    return best if layer.layout == "NCHW" else np.moveaxis(best, 1, -1)


def _conv(layer: layers.FloatConv, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None) -> Any:
    stride, dilation, pads = window_pads(layer, x.shape[2:], w.shape[2:])
    out = layer.output_shape(x.shape, w.shape)[2:]
    y = oracle.conv(x, w, bias, out, stride, dilation, _before(pads), layer.groups)
    return y.astype(x.dtype)


def _conv_2d(layer: layers.FloatConv2d, x: np.ndarray) -> np.ndarray:
    stride, dilation, pads = window_pads(layer, x.shape[2:], layer.weight.shape[2:])
    out = layer.output_shape(x.shape)[2:]
    y = oracle.conv(x, layer.weight, layer.bias, out, stride, dilation, _before(pads), layer.groups)
    return oracle.relu(y.astype(x.dtype)) if layer.relu else y.astype(x.dtype)


def _conv_transpose(
    layer: layers.FloatConvTranspose, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None
) -> np.ndarray:
    rank = x.ndim - 2
    stride, dilation = per_axis(layer.stride, rank), per_axis(layer.dilation, rank)
    more = per_axis(layer.output_padding, rank)
    out = layer.output_shape(x.shape, w.shape)[2:]
    before = []
    for axis in range(rank):
        whole = stride[axis] * (x.shape[2 + axis] - 1) + more[axis] + (w.shape[2 + axis] - 1) * dilation[axis]
        cut = max(whole + 1 - out[axis], 0)
        if layer.output_size is None and not isinstance(layer.padding, str):
            pad = per_axis(layer.padding, rank)[axis]
            before.append(pad if isinstance(pad, int) else pad[0])
        else:
            before.append(cut // 2 if layer.padding == "same" else cut - cut // 2)
    y = oracle.conv_transpose(x, w, bias, out, stride, dilation, tuple(before), layer.groups)
    return y.astype(x.dtype)


# Products


def _matmul(
    layer: layers.FloatMatMul, a: np.ndarray, b: np.ndarray, c: np.ndarray | None = None
) -> np.ndarray:
    left = np.moveaxis(a, -1, -2) if layer.transpose_a else a
    right = np.moveaxis(b, -1, -2) if layer.transpose_b else b
    y = oracle.matmul_real(left, right)
    with np.errstate(all="ignore"):
        if a.dtype.kind == "f":
            y = y * layer.alpha
            if c is not None and layer.beta:  # a beta of 0 leaves c out, its infinities too
                y = y + layer.beta * c.astype(np.float64)
        elif c is not None:
            y = y + c.astype(np.int64)
        return np.asarray(y).astype(a.dtype)


def _dense(layer: layers.FloatDense, x: np.ndarray) -> np.ndarray:
    y = oracle.matmul_real(x, layer.weight)
    y = y if layer.bias is None else y + layer.bias
    y = y.astype(np.float32)
    return oracle.relu(y) if layer.relu else y


# Functions of numbers


def _clip(layer: layers.Clip, x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        for bound, within in ((layer.low, np.greater_equal), (layer.high, np.less_equal)):
            if bound is not None:
                limit = np.array(bound).astype(x.dtype)
                x = np.where(within(x, limit) | (x != x), x, limit)
    return x


def _where(layer: Layer, condition: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    shape = np.broadcast_shapes(condition.shape, a.shape, b.shape)
    y = oracle.expand(b, shape).copy()
    chosen = oracle.expand(condition, shape)
    y[chosen] = oracle.expand(a, shape)[chosen]
    return y


def _cast(layer: layers.Cast, x: np.ndarray) -> np.ndarray:
    target = np.dtype(layer.dtype)
    with np.errstate(all="ignore"):
        if target.kind == "b":
            return np.asarray(x != 0)
        if target.kind in "iu" and x.dtype.kind == "f":
            return np.trunc(x).astype(target)  # out of range: as the processor does, which nothing fixes
        if target.kind in "iu" and x.dtype.kind in "iu":
            bits = x.astype(np.uint64) & np.uint64(2 ** (8 * target.itemsize) - 1)
            return bits.astype(f"u{target.itemsize}").view(target)
        return x.astype(target)


def _reduce(layer: layers.Reduce, x: np.ndarray, *given: np.ndarray) -> np.ndarray:
    axes: Any = layer.axes
    if given:
        axes = given[0].ravel().tolist() or None
    axes = range(x.ndim) if axes is None else axes
    return oracle.reduce(layer.operation, x, _normal(axes, max(x.ndim, 1)), layer.keepdims)


def _softmax(layer: layers.Softmax, x: np.ndarray) -> np.ndarray:
    axis = layer.axis % max(x.ndim, 1)
    if not layer.flatten:
        return oracle.softmax(x, axis)
    return oracle.softmax(x.reshape(math.prod(x.shape[:axis]), -1), 1).reshape(x.shape)


def _layer_normalization(
    layer: layers.LayerNormalization, x: np.ndarray, scale: np.ndarray, bias: np.ndarray | None = None
) -> Any:
    axes = tuple(range(layer.axis % x.ndim, x.ndim))
    return oracle.layer_normalization(x, scale, bias, axes, layer.epsilon)


# Pieces


def _same_elements(layer: Any, *inputs: np.ndarray) -> np.ndarray:
    x = inputs[0]
    shape = layer.output_shape_from(inputs, *(array.shape for array in inputs))
    return np.array(x.flat, dtype=x.dtype).reshape(shape)


def _split(layer: layers.Split, x: np.ndarray) -> tuple[np.ndarray, ...]:
    axis, start, parts = layer.axis % x.ndim, 0, []
    for size in layer.sizes:
        places = [range(n) for n in x.shape]
        places[axis] = range(start, start + size)
        parts.append(oracle.look_up(x, places))
        start += size
    return tuple(parts)


def _slice(layer: Layer, x: np.ndarray, *lists: np.ndarray) -> np.ndarray:
    starts, ends, *rest = (values.ravel().tolist() for values in lists)
    axes = _normal(rest[0] if rest else range(len(starts)), x.ndim)
    steps = rest[1] if len(rest) > 1 else [1] * len(starts)
    places: list[Any] = [range(size) for size in x.shape]
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        size = x.shape[axis]
        everything = end in (2**31 - 1, 2**63 - 1)
        start, end = (place + size if place < 0 else place for place in (start, end))
        if step > 0:
            places[axis] = range(min(max(start, 0), size), min(max(end, 0), size), step)
        else:
            end = -1 if everything else max(end, -1)
            places[axis] = range(min(max(start, 0), size - 1), min(end, size - 1), step)
    return oracle.look_up(x, places)


def _fill(layer: layers.Fill, shape: np.ndarray) -> np.ndarray:
    return np.repeat(layer.value, math.prod(shape.ravel().tolist())).reshape(shape.ravel().tolist())


def _pad(
    layer: layers.Pad, x: np.ndarray, pads: np.ndarray,
    value: np.ndarray | None = None, axes: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    which = _normal(range(x.ndim) if axes is None else axes.ravel().tolist(), max(x.ndim, 1))
    counts = pads.ravel().tolist()
    margins = [(0, 0)] * x.ndim
    for place, axis in enumerate(which):
        margins[axis] = counts[place], counts[place + len(which)]
    fill = 0 if value is None or not value.size else value.ravel()[0]
    return oracle.pad(x, margins, layer.mode, fill)


def _resize(layer: layers.Resize, x: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    target = wanted
    named = list(range(x.ndim) if layer.axes is None else layer.axes)
    if layer.policy != "stretch":  # which passes over axes that count from the end, as in ONNX Runtime
        target = target[[axis >= 0 for axis in named]]
        named = [axis for axis in named if axis >= 0]
    axes = _normal(named, max(x.ndim, 1))
    out = layer.output_shape_from((x, wanted), x.shape, wanted.shape)
    if out == x.shape:
        return x.copy()  # whatever the scales
    if layer.by == "scales":
        scales = [np.float32(scale) for scale in target]
    else:
        scales = [
            np.float32(size) / np.float32(x.shape[a] or 1) for a, size in zip(axes, target, strict=True)
        ]
        if layer.policy != "stretch" and scales:
            scales = [min(scales) if layer.policy == "not_larger" else max(scales)] * len(scales)
    places: list[Any] = [range(size) for size in x.shape]
    for axis, scale in zip(axes, scales, strict=True):
        places[axis] = oracle.nearest(x.shape[axis], out[axis], scale, layer.coordinates, layer.rounding)
    return oracle.look_up(x, places)


HOST: dict[type[Layer], Callable[..., Any]] = {
    layers.ArgMax: lambda layer, x: oracle.arg_max(x, layer.axis % x.ndim, layer.keepdims, layer.last),
    layers.AveragePool: _average_pool,
    layers.BatchNormalization: lambda layer, x, scale, bias, mean, variance: oracle.batch_normalization(
        x, scale, bias, mean, variance, layer.epsilon
    ),
    layers.Binary: lambda layer, a, b: oracle.binary(layer.operation, a, b),
    layers.Cast: _cast,
    layers.Clip: _clip,
    layers.Concat: lambda layer, *parts: oracle.concat(parts, layer.axis),
    layers.Expand: lambda layer, x, shape: oracle.expand(x, shape.ravel().tolist()),
    layers.Fill: _fill,
    layers.FloatConv: _conv,
    layers.FloatConv2d: _conv_2d,
    layers.FloatConvTranspose: _conv_transpose,
    layers.FloatDense: _dense,
    layers.FloatMatMul: _matmul,
    layers.Gather: lambda layer, x, indices: oracle.gather(x, indices, layer.axis),
    layers.GlobalAveragePool: lambda layer, x: oracle.reduce("ReduceMean", x, tuple(range(2, x.ndim)), True),
    layers.LayerNormalization: _layer_normalization,
    layers.MaxPool: _max_pool,
    layers.MaxPoolIndices: _max_pool_indices,
    layers.Pad: _pad,
    layers.Reduce: _reduce,
    layers.Resize: _resize,
    layers.ShapeOf: lambda layer, x: np.array(list(x.shape)[layer.start : layer.end], np.int64),
    layers.Slice: _slice,
    layers.Softmax: _softmax,
    layers.Split: _split,
    layers.Squeeze: _same_elements,
    layers.Transpose: lambda layer, x: oracle.transpose(
        x, range(x.ndim)[::-1] if layer.perm is None else layer.perm
    ),
    layers.Unary: lambda layer, x: oracle.function(layer.operation, x),
    layers.Unsqueeze: _same_elements,
    layers.Where: _where,
}
"""Outputs by the class of layer."""

ROUNDED: frozenset[str] = frozenset(
    {
        "AveragePool", "FloatConv", "FloatConv2d", "FloatConvTranspose", "FloatDense", "FloatMatMul",
        "GlobalAveragePool", "LayerNormalization", "Softmax",
        "ReduceMean", "ReduceProd", "ReduceSum", "Pow",
        "BiasGelu", "Erf", "Exp", "Gelu", "GeluTanh", "Log", "Sigmoid", "Tanh",
    }
)  # fmt: skip
"""Kinds of layer whose float results no standard fixes in every bit."""
