"""Quantize, dequantize, and host operators on codes.

The formulas are those of ONNX Runtime's kernels, with their order of rounding and zero point.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from systolic.reference.oracle._numbers import F32, fma, half_even, one, params, spread, to_codes, to_reals
from systolic.reference.oracle.elementwise import innermost_is_one
from systolic.reference.oracle.shapes import concat


def quantize_linear(layer: Any, x: np.ndarray, scale: Any = None, zero: Any = 0) -> np.ndarray:
    """ONNX QuantizeLinear, by the layer's parameters or those that it reads: ``sat(rne(f32(x / s)) + z)``."""
    if scale is None:
        return _quantized(x, *params(layer.y), layer.y.dtype, layer.y.axis)
    return _quantized(x, scale, zero, layer.dtype, layer.axis, layer.block_size)


def _quantized(
    x: np.ndarray, scale: Any, zero: Any, dtype: Any, axis: int | None, block: int = 0
) -> np.ndarray:
    axis = axis if x.ndim else None
    steps = x.astype(F32) / spread(scale, x.shape, axis, block).astype(F32)
    return half_even(steps, spread(zero, x.shape, axis, block).astype(np.int64), dtype)


def dequantize_linear(layer: Any, q: np.ndarray, scale: Any = None, zero: Any = 0) -> np.ndarray:
    """ONNX DequantizeLinear: ``f32(f32(q - z) * s)``, where ``q - z`` wraps to int32."""
    if scale is None:
        return _dequantized(q, *params(layer.x), layer.x.axis)
    real = _dequantized(q, scale, zero, layer.axis, layer.block_size)
    return real.astype(layer.dtype or scale.dtype)


def _dequantized(q: np.ndarray, scale: Any, zero: Any, axis: int | None, block: int = 0) -> np.ndarray:
    axis = axis if q.ndim else None
    steps = q.astype(np.int64) - spread(zero, q.shape, axis, block).astype(np.int64)
    steps = (steps + 2**31) % 2**32 - 2**31
    return np.asarray(steps.astype(F32) * spread(scale, q.shape, axis, block).astype(F32))


def dynamic_quantize(layer: Any, x: np.ndarray) -> tuple[np.ndarray, ...]:
    """ONNX DynamicQuantizeLinear: codes of uint8, their scale and zero point."""
    scale, zero = range_of(x)
    return half_even(x / scale, zero, np.uint8), np.asarray(scale, F32), np.asarray(zero, np.uint8)


def range_of(x: np.ndarray) -> tuple[Any, int]:
    """Return the scale and zero point of uint8 that fit the range of numbers, 0 among them."""
    numbers = x[~np.isnan(x)].tolist()
    low, high = F32(min([0, *numbers])), F32(max([0, *numbers]))
    scale = (high - low) / F32(255) if high != low else F32(1)
    start = -low / scale
    return scale, 255 if np.isnan(start) else round(min(max(float(start), 0.0), 255.0))


def add(layer: Any, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """com.microsoft QLinearAdd, as MlasQLinearAdd computes it on processors with AVX2.

    With ``ra = f32(sa / sy)``, ``rb = f32(sb / sy)`` and ``fma(a, b, c)`` rounding ``a*b + c`` once:
    ``c0 = f32(zy - fma(ra, za, f32(rb * zb)))``,
    ``y = sat(rne(fma(a, ra, fma(b, rb, c0))))``: the zero point is added before rounding.

    The two sides are not symmetric, and ONNX Runtime hands the one that is constant along the
    innermost run of elements to its kernel second: where `a` has extent 1 on the innermost axis on
    which not both have extent 1, or both hold a single element, `a` and `b` swap roles.
    """
    left, right = (a, *params(layer.a)), (b, *params(layer.b))
    sy, zy = params(layer.y)
    if innermost_is_one(a.shape, b.shape) in (True, None):
        left, right = right, left
    (p, sp, zp), (q, sq, zq) = left, right
    rp, rq = F32(sp / sy), F32(sq / sy)
    constant = F32(zy) - fma(rp, F32(zp), rq * F32(zq))
    # Tabulate all 256 x 256 pairs of codes, then look up: as exact, and faster for large tensors.
    inner = fma(_all_codes(q.dtype), rq, constant)
    outer = fma(_all_codes(p.dtype)[:, np.newaxis], rp, inner)
    table = half_even(outer, 0, layer.y.dtype, zero_first=True)
    return np.asarray(table[_code_index(p), _code_index(q)])


def _all_codes(dtype: Any) -> np.ndarray:
    limits = np.iinfo(dtype)
    return np.arange(limits.min, limits.max + 1).astype(F32)


def _code_index(codes: np.ndarray) -> np.ndarray:
    """Where each code stands in :func:`_all_codes`."""
    return codes.astype(np.intp) - int(np.iinfo(codes.dtype).min)


def mul(layer: Any, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """com.microsoft QLinearMul: the zero point is added before rounding."""
    (sa, za), (sb, zb), (sy, zy) = params(layer.a), params(layer.b), params(layer.y)
    product = (a.astype(np.int64) - za) * (b.astype(np.int64) - zb)
    return half_even(product.astype(F32) * F32(F32(sa * sb) / sy), zy, layer.y.dtype, zero_first=True)


def _requantized(q: np.ndarray, p: Any, y: Any) -> np.ndarray:
    return q if p == y else to_codes(to_reals(q, p), y)


def qlinear_concat(layer: Any, *inputs: np.ndarray) -> np.ndarray:
    """com.microsoft QLinearConcat."""
    return concat(layer, *(_requantized(q, p, layer.y) for q, p in zip(inputs, layer.x, strict=True)))


def qlinear_where(layer: Any, condition: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """com.microsoft QLinearWhere."""
    return np.where(condition, _requantized(a, layer.a, layer.y), _requantized(b, layer.b, layer.y))


def leaky_relu(layer: Any, q: np.ndarray) -> np.ndarray:
    """com.microsoft QLinearLeakyRelu."""
    real = to_reals(q, layer.x)
    return to_codes(np.where(real < 0, real * F32(layer.alpha), real), layer.y)


# MlasLogisticConstants, from the highest power on: numerator / x and denominator in powers of x^2.
_NUMERATOR = (4.37031012579801e-11, 1.15627324459942e-07, 6.08574864600143e-05, 8.51377133304701e-03,
              2.48287947061529e-01)  # fmt: skip
_DENOMINATOR = (6.10247389755681e-13, 5.76102136993427e-09, 6.29106785017040e-06, 1.70198817374094e-03,
                1.16817656904453e-01, 9.93151921023180e-01)  # fmt: skip


def sigmoid(layer: Any, x: np.ndarray) -> np.ndarray:
    """com.microsoft QLinearSigmoid, as MlasLogisticKernelFma3 computes it.

    With ``r = clip(f32(sx * (q - zx)), -18, 18)`` and polynomials p and d in r^2, by Horner's rule with
    fused multiply-adds: ``f32(f32(f32(r * p) / d) + 0.5)``, not below 0, quantized.
    """
    reals = to_reals(_all_codes(x.dtype), layer.x)
    return np.asarray(to_codes(logistic(reals), layer.y)[_code_index(x)])


def logistic(x: np.ndarray) -> np.ndarray:
    """Return the logistic function of float32 as :func:`sigmoid` says."""
    return np.asarray(np.maximum(quotient(x, 18, _NUMERATOR, _DENOMINATOR) + F32(0.5), F32(0)))


def quotient(x: np.ndarray, bound: int, above: Sequence[float], below: Sequence[float]) -> np.ndarray:
    """Return x, clipped, times a quotient of polynomials in x^2: Horner's rule with fused multiply-adds."""
    real = np.clip(x, F32(-bound), F32(bound))
    square, sums = real * real, []
    for first, *coefficients in (above, below):
        total = np.full_like(real, first)
        for coefficient in coefficients:
            total = fma(total, square, F32(coefficient))
        sums.append(total)
    return np.asarray(real * sums[0] / sums[1])


def softmax(layer: Any, q: np.ndarray) -> np.ndarray:
    """com.microsoft QLinearSoftmax, row by row."""
    if not q.size:
        return q.copy()
    axis = layer.axis % q.ndim
    rows = q.reshape(-1, math.prod(q.shape[axis:])) if layer.flatten else np.moveaxis(q, axis, -1)
    result = np.empty(rows.shape, layer.y.dtype)
    for place in np.ndindex(*rows.shape[:-1]):
        result[place] = _softmax_row(layer, rows[place].tolist())
    return result.reshape(q.shape) if layer.flatten else np.moveaxis(result, -1, axis)


def _softmax_row(layer: Any, row: list[int]) -> list[int]:
    """Return a row's codes by exact fractions; only exponentials and their sum are rounded."""
    (sx, _), (sy, zy), limits = params(layer.x), params(layer.y), np.iinfo(layer.y.dtype)
    scale, top = float(sx), max(row)
    shift = max(0.0, float(F32(math.log(float(np.finfo(F32).max / F32(len(row)))))) - 5) / scale
    terms = {code: F32(math.exp((code - top + shift) * scale)) for code in set(row)}
    total = F32(0)
    for code in row:
        total = total + terms[code]
    nearest = F32(1) / F32(sy)
    steps = Fraction(math.floor(nearest)) if np.isfinite(nearest) else 1 / Fraction(float(sy))
    # round() of a Fraction takes ties to even.
    codes = {
        code: round(Fraction(float(term)) * steps / Fraction(float(total))) + int(one(zy))
        for code, term in terms.items()
    }
    return [min(max(codes[code], int(limits.min)), int(limits.max)) for code in row]
