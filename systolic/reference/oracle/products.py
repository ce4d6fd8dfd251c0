"""Matrix products: exact sums modulo 2^32, and what each layer makes of them.

Products are blocked floating-point ones, each block short enough to be exact, rather than integer loops.
Zero points are subtracted from the codes first, rather than corrected for in the sums.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from systolic.reference.oracle._numbers import F32, one, params, scaled
from systolic.reference.oracle.elementwise import rectified

# A float32 holds every integer up to 2^24: a sum whose terms' magnitudes add up to no more is
# exact in any order, with or without fused multiply-adds. The same is true of 2^53 in float64.
FLOAT32_EXACT = 1 << 24


def matmul(x: Any, w: Any) -> np.ndarray:
    """Return the exact product of int8 or uint8 operands as int32, modulo 2^32, shaped as by numpy.matmul."""
    for name, operand in (("x", x), ("w", w)):
        if operand.dtype not in (np.dtype(np.int8), np.dtype(np.uint8)):
            raise TypeError(f"{name} must hold int8 or uint8, not {operand.dtype}")
    return _shaped(_blocks, x, w)


def centred(codes: np.ndarray, zero_point: Any) -> np.ndarray:
    """Return codes less their zero point, which takes nine bits and a sign."""
    return codes.astype(np.int16) - np.asarray(zero_point).astype(np.int16)


def reach(values: np.ndarray) -> int:
    """Return the largest magnitude in an integer array, 0 if it is empty."""
    return max(abs(int(values.min())), abs(int(values.max()))) if values.size else 0


def _blocks(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return a product of small integers modulo 2^32, by float32 blocks of k that are exact."""
    block = max(FLOAT32_EXACT // max(reach(x) * reach(w), 1), 1)
    batch = np.broadcast_shapes(x.shape[:-2], w.shape[:-2])
    acc = np.zeros((*batch, x.shape[-2], w.shape[-1]), dtype=np.int32)
    for start in range(0, x.shape[-1], block):
        stop = start + block
        part = x[..., start:stop].astype(F32) @ w[..., start:stop, :].astype(F32)
        acc += part.astype(np.int32)  # numpy's int32 addition wraps
    return acc


def _shaped(multiply: Callable[..., np.ndarray], x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Multiply stacks of matrices, as numpy.matmul: a vector is a row on the left, a column on the right."""
    y = multiply(x[np.newaxis] if x.ndim == 1 else x, w[:, np.newaxis] if w.ndim == 1 else w)
    return np.squeeze(y, (*((-2,) if x.ndim == 1 else ()), *((-1,) if w.ndim == 1 else ())))


def _accumulators(x: np.ndarray, w: np.ndarray, zx: Any = 0, zw: Any = 0) -> np.ndarray:
    """Return the sums of ``(x - zx) * (w - zw)``; zx is (M,) or (..., M, 1), zw (N,) or (..., 1, N)."""
    zx, zw = (one(zero) if np.size(zero) == 1 else np.asarray(zero) for zero in (zx, zw))
    rows = zx[:, np.newaxis] if zx.ndim == 1 else zx
    return _shaped(_blocks, centred(x, rows), centred(w, zw))


def operands(layer: Any, x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return x and w, transposed where the layer's fields say so."""
    turned = [any(getattr(layer, f"transpose_{name}", False) for name in names) for names in ("xa", "wb")]
    left, right = (np.moveaxis(m, -1, -2) if turn else m for m, turn in zip((x, w), turned, strict=True))
    return left, right


def matmul_integer(layer: Any, x: np.ndarray, w: np.ndarray, zx: Any = 0, zw: Any = 0) -> np.ndarray:
    """ONNX MatMulInteger."""
    return _accumulators(x, w, zx, zw)


def matmul_integer_to_float(layer: Any, *inputs: np.ndarray) -> np.ndarray:
    """com.microsoft MatMulIntegerToFloat: ``f32(f32(acc) * f32(xs * ws)) + bias``.

    Where ``IsBQuantParamSupported`` (matmul_integer_base.h) says no, scales are multiplied one by one.
    """
    x, w, x_scale, w_scale, zx, zw, *bias = inputs
    acc = _accumulators(x, w, zx, zw).astype(F32)
    whole = (*w.shape[:-2], 1, w.shape[-1]) if w.ndim > 1 else None
    at_once = w_scale.shape in ((), (1,), whole) or (w.ndim == 2 and w_scale.ndim == 1)
    each = one(w_scale) if w_scale.ndim < 2 and w_scale.size == 1 else w_scale
    if x.ndim == 1 and each.ndim > 1:
        each = each[..., 0, :]
    first = F32(one(x_scale))
    real = acc * (first * each) if at_once else acc * first * each
    return np.asarray(real + (bias[0] if w.ndim > 1 else bias[0][0]) if bias else real)


def qlinear_matmul(layer: Any, *inputs: np.ndarray) -> np.ndarray:
    """ONNX QLinearMatMul, and com.microsoft QGemm: a bias comes last, and no y gives float32.

    What the layer holds, its parameters or its weights too, it does not read.
    """
    if layer.x is not None:
        held: Any = (None,) if layer.weight is None else (layer.weight, layer.bias)
        x, w, bias = (*inputs, *held)[:3]
        (sx, zx), (sw, zw) = params(layer.x), params(layer.w)
        y = None if layer.y is None else (*params(layer.y), layer.y.dtype)
        acc = _accumulators(*operands(layer, x, w), zx, zw)
        return scaled(acc, sx, sw, y, bias=bias, rounding=layer.rounding)
    x, xs, zx, w, ws, zw, *rest = inputs
    bias = rest.pop() if len(rest) % 2 else None
    y = (one(rest[0]), one(rest[1]), rest[1].dtype) if rest else None
    factor = F32(layer.alpha) * F32(one(xs))
    if x.ndim == 1 and ws.ndim > 1:
        ws = ws[..., 0, :]
    return scaled(_accumulators(*operands(layer, x, w), zx, zw), factor, ws, y, bias=bias)


def _real(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return a product in float64, or of integers modulo 2^64: (w^T x^T)^T, another order than x @ w."""
    wide = np.float64 if x.dtype.kind == "f" else np.int64
    turned = np.swapaxes(w.astype(wide), -1, -2) @ np.swapaxes(x.astype(wide), -1, -2)
    return np.swapaxes(turned, -1, -2)


def float_matmul(layer: Any, a: np.ndarray, *rest: np.ndarray) -> np.ndarray:
    """ONNX MatMul, and Gemm: ``alpha * a @ b + beta * c``; a beta of 0 leaves c out, its infinities too."""
    b, c = (*(rest if layer.weight is None else (layer.weight, layer.bias)), None)[:2]
    y = _shaped(_real, *operands(layer, a, b))
    if a.dtype.kind == "f":
        y = y * layer.alpha
        if c is not None and layer.beta:
            y = y + layer.beta * c.astype(np.float64)
    elif c is not None:
        y = y + c.astype(np.int64)
    y = np.asarray(y).astype(a.dtype)
    return y if layer.activation is None else rectified(y)


def matmul_nbits(layer: Any, x: np.ndarray, *rest: np.ndarray) -> np.ndarray:
    """com.microsoft MatMulNBits: a product with the weights that its blocks stand for, and a bias."""
    y = _shaped(_real, x, nbits_weights(layer, *rest))
    return (y + rest[-1] if layer.bias else y).astype(F32)


def nbits_weights(layer: Any, w: np.ndarray, scales: np.ndarray, *rest: np.ndarray) -> np.ndarray:
    """Return the weights (K, N) of a MatMulNBits, looked up one by one: ``f32(f32(q - z) * s)``."""
    row, column = np.indices((layer.k, layer.n), sparse=True)
    block, each = row // layer.block_size, 8 // layer.bits

    def of_column(values: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Return one of the numbers of each column; integers are packed, the first in the low bits."""
        if values.dtype == F32:
            return values.reshape(layer.n, -1)[column, place]
        packed = values.reshape(layer.n, -1)[column, place // each].astype(np.int64)
        return packed // 2 ** (place % each * layer.bits) % 2**layer.bits

    zero: Any = np.full((), 2 ** (layer.bits - 1))
    for given in rest[: len(rest) - layer.bias]:
        zero = of_column(given, block)
    return (of_column(w, row).astype(F32) - zero.astype(F32)) * of_column(scales, block)
