"""Expected outputs of quantized host layers, computed from their fields."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from systolic import layers
from systolic.layers import Layer
from systolic.quant import QuantParams
from systolic.reference import oracle
from systolic.verifier.expected_products import _scales, window_pads

_F = np.float32


def _reals(q: np.ndarray, params: QuantParams) -> np.ndarray:
    return oracle.dequantize_linear(q, params.scales, params.zero_points)


def _codes(x: np.ndarray, params: QuantParams) -> np.ndarray:
    return oracle.quantize_linear(x, params.scales, params.zero_points, params.dtype)


def _brought(q: np.ndarray, params: QuantParams, y: QuantParams) -> np.ndarray:
    with np.errstate(all="ignore"):
        return q if params == y else _codes(_reals(q, params), y)


def _spread(layer: Any, shape: tuple[int, ...], values: np.ndarray) -> np.ndarray:
    """Return scales or zero points, one per element of a tensor of this shape."""
    index: Any = np.indices(shape, sparse=True)
    axis = layer.axis % len(shape) if shape else 0
    if layer.block_size:
        index = tuple(i // layer.block_size if a == axis else i for a, i in enumerate(index))
        return np.asarray(values[index])
    if values.size == 1 and values.ndim < 2:
        return np.full(shape, values.reshape(()))
    return np.broadcast_to(values[index[axis]], shape)


def _quantize_linear(
    layer: layers.QuantizeLinear, x: np.ndarray, scale: np.ndarray, *zero: np.ndarray
) -> Any:
    limits = np.iinfo(layer.dtype)
    zeros = _spread(layer, x.shape, zero[0]).astype(np.int64) if zero else np.int64(0)
    with np.errstate(all="ignore"):
        steps = np.rint(x.astype(_F) / _spread(layer, x.shape, scale).astype(_F)).astype(np.float64)
        codes = np.clip(steps + zeros, limits.min, limits.max)
    return np.where(np.isnan(codes), limits.min, codes).astype(layer.dtype)


def _dequantize_linear(
    layer: layers.DequantizeLinear, q: np.ndarray, scale: np.ndarray, *zero: np.ndarray
) -> Any:
    steps = q.astype(np.int64) - (_spread(layer, q.shape, zero[0]).astype(np.int64) if zero else 0)
    steps = (steps + 2**31) % 2**32 - 2**31
    with np.errstate(all="ignore"):
        product = steps.astype(_F) * _spread(layer, q.shape, scale).astype(_F)
        return np.asarray(product).astype(layer.dtype or scale.dtype)


def _mul(layer: layers.QLinearMul, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    y = layer.y
    product = (a.astype(np.int64) - int(layer.a.zero_points)) * (
        b.astype(np.int64) - int(layer.b.zero_points)
    )
    with np.errstate(all="ignore"):
        m = _F(_F(layer.a.scales * layer.b.scales) / y.scales)
        real = product.astype(_F) * m + y.zero_points.astype(_F)
    return _converted(real, y)


def _converted(real: np.ndarray, y: QuantParams) -> np.ndarray:
    """Return codes by way of int32; values beyond int32 become its smallest number."""
    held = np.isfinite(real) & (np.abs(real) < _F(2**31))
    return np.where(held, np.clip(np.rint(real), y.qmin, y.qmax), y.qmin).astype(y.dtype)


def _concat(layer: layers.QLinearConcat, *inputs: np.ndarray) -> np.ndarray:
    parts = [_brought(q, params, layer.y) for q, params in zip(inputs, layer.x, strict=True)]
    return np.concatenate(parts, axis=layer.axis)


def _where(layer: layers.QLinearWhere, condition: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(condition, _brought(a, layer.a, layer.y), _brought(b, layer.b, layer.y))


def _leaky_relu(layer: layers.QLinearLeakyRelu, q: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        real = _reals(q, layer.x)
        return _codes(np.where(real < 0, real * _F(layer.alpha), real), layer.y)


def _softmax(layer: layers.QLinearSoftmax, q: np.ndarray) -> np.ndarray:
    if not q.size:
        return q.copy()
    axis = layer.axis % q.ndim
    rows = q.reshape(-1, math.prod(q.shape[axis:])) if layer.flatten else np.moveaxis(q, axis, -1)
    result = np.empty(rows.shape, layer.y.dtype)
    for place in np.ndindex(*rows.shape[:-1]):
        result[place] = _softmax_row(layer, rows[place].tolist())
    return result.reshape(q.shape) if layer.flatten else np.moveaxis(result, -1, axis)


def _softmax_row(layer: layers.QLinearSoftmax, row: list[int]) -> list[int]:
    """Return a row's codes by exact fractions; only exponentials and their sum are rounded."""
    y, scale, top = layer.y, float(layer.x.scales), max(row)
    shift = max(0.0, float(_F(math.log(float(np.finfo(_F).max / _F(len(row)))))) - 5) / scale
    terms = {code: _F(math.exp((code - top + shift) * scale)) for code in set(row)}
    total = _F(0)
    for code in row:
        total = total + terms[code]
    with np.errstate(over="ignore"):
        nearest = _F(1) / y.scales
    steps = Fraction(math.floor(nearest)) if np.isfinite(nearest) else 1 / Fraction(float(y.scales))
    # round() of a Fraction takes ties to even.
    codes = {
        code: round(Fraction(float(term)) * steps / Fraction(float(total))) + int(y.zero_points)
        for code, term in terms.items()
    }
    return [min(max(codes[code], y.qmin), y.qmax) for code in row]


def _global_pool(layer: layers.QLinearGlobalAveragePool, x: np.ndarray) -> np.ndarray:
    moved = np.moveaxis(x, -1, 1) if layer.channels_last else x
    flat = moved.reshape(*moved.shape[:2], -1, 1)
    means = oracle.qlinear_global_average_pool(flat, *_scales(layer.x), *_scales(layer.y), "NCHW").reshape(
        *moved.shape[:2], *[1] * (x.ndim - 2)
    )
    return np.moveaxis(means, 1, -1) if layer.channels_last else means


def _average_pool(layer: layers.QLinearAveragePool, x: np.ndarray) -> np.ndarray:
    moved = np.moveaxis(x, -1, 1) if layer.channels_last else x
    sizes, kernel = moved.shape[2:], tuple(layer.kernel)
    stride, _, pads = window_pads(layer, sizes, kernel, pool=True)
    starts = [-before for before, _ in pads]
    shape = layer.output_shape(x.shape)
    outputs = shape[1:-1] if layer.channels_last else shape[2:]
    if sizes == kernel and not any(starts) and set(outputs) == {1} and _unpadded(layer):
        return _global_pool(
            layers.QLinearGlobalAveragePool(layer.x, layer.y, channels_last=layer.channels_last), x
        )
    real = _reals(moved, layer.x)
    out = np.empty((*moved.shape[:2], *outputs), x.dtype)
    for place in np.ndindex(*outputs):
        low = [p * step + start for p, step, start in zip(place, stride, starts, strict=True)]
        spans = [range(max(a, 0), min(a + k, size)) for a, k, size in zip(low, kernel, sizes, strict=True)]
        total = np.zeros(moved.shape[:2], _F)
        count = math.prod(kernel if layer.count_include_pad else map(len, spans))
        element: Any
        with np.errstate(all="ignore"):
            for element in itertools.product(*spans):
                total = total + real[(slice(None), slice(None), *element)]
            value = total / _F(count) / layer.y.scales + layer.y.zero_points.astype(_F)
        out[(slice(None), slice(None), *place)] = _converted(value, layer.y)
    return np.moveaxis(out, 1, -1) if layer.channels_last else out


def _unpadded(layer: layers.QLinearAveragePool) -> bool:
    return isinstance(layer.padding, str) or not any(map(sum, layer.padding or ()))


QUANTIZED: dict[type[Layer], Callable[..., Any]] = {
    layers.DequantizeLinear: _dequantize_linear,
    layers.QLinearAveragePool: _average_pool,
    layers.QLinearConcat: _concat,
    layers.QLinearGlobalAveragePool: _global_pool,
    layers.QLinearLeakyRelu: _leaky_relu,
    layers.QLinearMul: _mul,
    layers.QLinearSigmoid: lambda layer, q: oracle.qlinear_sigmoid(q, *_scales(layer.x), *_scales(layer.y)),
    layers.QLinearSoftmax: _softmax,
    layers.QLinearWhere: _where,
    layers.QuantizeLinear: _quantize_linear,
}
"""Expectations by the class of layer."""
