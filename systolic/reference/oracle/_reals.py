"""Operators on real numbers, in double precision or wider, rounded once to the result's type.

Windows, products and statistics in plain numpy. A result is correct if it is within a stated tolerance
of these, since ONNX fixes neither the order of sums nor the approximation of functions such as exp.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

Sizes = tuple[int, ...]
Wide = np.longdouble

# Above this number of elements use double precision, which is twenty times as fast.
_MANY = 1 << 16


def widened(x: np.ndarray) -> np.ndarray:
    """Return numbers as long double, or as float64 if they are many or the platform has nothing wider."""
    return x.astype(Wide if x.size <= _MANY else np.float64)


def window_taps(
    x: np.ndarray, out: Sizes, kernel: Sizes, stride: Sizes, dilation: Sizes, before: Sizes
) -> Iterator[tuple[Sizes, np.ndarray, np.ndarray]]:
    """Yield, for each offset in the kernel, its value at each output element, and whether it is inside x.

    x is (batch, channels, ...). Element o of an axis sees place ``o * stride + offset * dilation - before``;
    outside x the value is that of the nearest element.
    """
    for offsets in itertools.product(*map(range, kernel)):
        places, inside = [], np.ones((1,) * len(out), bool)
        for axis, offset in enumerate(offsets):
            place = np.arange(out[axis]) * stride[axis] + offset * dilation[axis] - before[axis]
            along = [1] * len(out)
            along[axis] = -1
            inside = inside & ((place >= 0) & (place < x.shape[2 + axis])).reshape(along)
            places.append(np.clip(place, 0, x.shape[2 + axis] - 1))
        index: Any = (slice(None), slice(None), *np.ix_(*places))
        yield offsets, x[index], inside


def max_windows(
    x: Any, out: Sizes, kernel: Sizes, stride: Sizes, dilation: Sizes, before: Sizes
) -> tuple[np.ndarray, np.ndarray]:
    """Return the maximum of each window, and the C-order place of its first occurrence in the image.

    If a window holds a NaN, its maximum is NaN and the place has no meaning.
    """
    x = np.asarray(x)
    flat = np.arange(math.prod(x.shape[2:])).reshape(1, 1, *x.shape[2:])
    best = np.zeros((*x.shape[:2], *out), x.dtype)
    where = np.full(best.shape, -1)
    nan = np.zeros(best.shape, bool)
    geometry = (out, kernel, stride, dilation, before)
    taps = zip(window_taps(x, *geometry), window_taps(flat, *geometry), strict=True)
    for (_, value, inside), (_, place, _) in taps:
        better = inside & ((where < 0) | (value > best))
        best, where = np.where(better, value, best), np.where(better, place, where)
        if x.dtype.kind == "f":
            nan |= inside & np.isnan(value)
    if x.dtype.kind == "f":
        # A window may consist of padding alone.
        best = np.where(where < 0, np.asarray(-np.inf, x.dtype), best)
        best = np.where(nan, np.asarray(np.nan, x.dtype), best)
    else:
        best = np.where(where < 0, np.iinfo(x.dtype).min, best).astype(x.dtype)
    return best, where


def average_windows(
    x: Any,
    out: Sizes,
    kernel: Sizes,
    stride: Sizes,
    dilation: Sizes,
    pads: Sequence[tuple[int, int]],
    count_include_pad: bool,
) -> np.ndarray:
    """Return the mean of each window; elements beyond the padding never count."""
    # Negative padding crops: elements cut off at the end are in no window.
    kept = [slice(0, size + min(pad[1], 0)) for size, pad in zip(np.shape(x)[2:], pads, strict=True)]
    x = np.asarray(x)[(slice(None), slice(None), *kept)]
    pads = [(pad[0], max(pad[1], 0)) for pad in pads]
    before = tuple(pad[0] for pad in pads)
    total = np.zeros((*x.shape[:2], *out), np.float64)
    count = np.zeros(out, np.float64)
    padded = np.empty((1, 1, *(size + sum(pad) for size, pad in zip(x.shape[2:], pads, strict=True))))
    geometry = (out, kernel, stride, dilation)
    taps = zip(
        window_taps(x, *geometry, before),
        window_taps(padded, *geometry, (0,) * len(out)),
        strict=True,
    )
    with np.errstate(all="ignore"):
        for (_, value, inside), (_, _, with_pads) in taps:
            total += np.where(inside, value, 0)
            count += with_pads if count_include_pad else inside
        return (total / count).astype(x.dtype)


def conv(
    x: Any,
    w: Any,
    bias: Any,
    out: Sizes,
    stride: Sizes,
    dilation: Sizes,
    before: Sizes,
    groups: int,
) -> np.ndarray:
    """Return a convolution over any number of axes, kernel offset by kernel offset."""
    x, w = np.asarray(x), np.asarray(w)
    batch, ic = x.shape[:2]
    oc = w.shape[0]
    weight = w.astype(np.float64).reshape(groups, oc // groups, *w.shape[1:])
    y = np.zeros((batch, groups, oc // groups, math.prod(out)), np.float64)
    with np.errstate(all="ignore"):
        for offsets, value, inside in window_taps(x, out, w.shape[2:], stride, dilation, before):
            seen = np.where(inside, value, 0).astype(np.float64)
            seen = seen.reshape(batch, groups, ic // groups, math.prod(out))
            y += weight[(slice(None), slice(None), slice(None), *offsets)] @ seen
        y = y.reshape(batch, oc, *out)
        if bias is not None:
            y += np.asarray(bias, np.float64).reshape(-1, *[1] * len(out))
    return y


def conv_transpose(
    x: Any,
    w: Any,
    bias: Any,
    out: Sizes,
    stride: Sizes,
    dilation: Sizes,
    before: Sizes,
    groups: int,
) -> np.ndarray:
    """Return a transposed convolution: element i adds to places ``i * stride + k * dilation - before``."""
    x, w = np.asarray(x).astype(np.float64), np.asarray(w).astype(np.float64)
    batch, ic = x.shape[:2]
    ocg = w.shape[1]
    y = np.zeros((batch, groups, ocg, *out), np.float64)
    rows = x.reshape(batch, groups, ic // groups, math.prod(x.shape[2:]))
    weight = w.reshape(groups, ic // groups, *w.shape[1:])
    with np.errstate(all="ignore"):
        for offsets in np.ndindex(*w.shape[2:]):
            kernel = np.moveaxis(weight[(..., *offsets)], 1, 2)  # (groups, oc // groups, ic // groups)
            each = (kernel @ rows).reshape(batch, groups, ocg, *x.shape[2:])
            # For one offset, elements of x map to different places of y.
            places = [
                np.arange(size) * s + k * d - b
                for size, s, k, d, b in zip(x.shape[2:], stride, offsets, dilation, before, strict=True)
            ]
            there = [np.flatnonzero((p >= 0) & (p < size)) for p, size in zip(places, out, strict=True)]
            target = np.ix_(*(p[t] for p, t in zip(places, there, strict=True)))
            y[(slice(None),) * 3 + target] += each[(slice(None),) * 3 + np.ix_(*there)]
        y = y.reshape(batch, groups * ocg, *out)
        if bias is not None:
            y += np.asarray(bias, np.float64).reshape(-1, *[1] * len(out))
    return y


def matmul_real(a: Any, b: Any) -> np.ndarray:
    """Return a product of stacks of matrices, in float64; integers wrap modulo 2^64."""
    a, b = np.asarray(a), np.asarray(b)
    left = a[np.newaxis] if a.ndim == 1 else a
    right = b[:, np.newaxis] if b.ndim == 1 else b
    if a.dtype.kind == "f":
        left, right = left.astype(np.float64), right.astype(np.float64)
    else:
        left, right = left.astype(np.int64), right.astype(np.int64)
    with np.errstate(all="ignore"):
        # (b^T a^T)^T: another order of operations than a @ b.
        product = np.swapaxes(np.swapaxes(right, -1, -2) @ np.swapaxes(left, -1, -2), -1, -2)
    if b.ndim == 1:
        product = product[..., 0]
    if a.ndim == 1:
        product = product[..., 0] if b.ndim == 1 else product[..., 0, :]
    return np.asarray(product)


def softmax(x: Any, axis: int) -> np.ndarray:
    """Return ``exp(x) / sum(exp(x))`` along an axis."""
    x = np.asarray(x)
    if not x.size:
        return x.copy()
    wide = widened(x)
    with np.errstate(all="ignore"):
        power = np.exp(wide - wide.max(axis=axis, keepdims=True))
        return (power / power.sum(axis=axis, keepdims=True)).astype(x.dtype)


def layer_normalization(
    x: Any, scale: Any, bias: Any, axes: Sizes, epsilon: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ``(x - mean) / sqrt(var + epsilon) * scale + bias``, means and ``1 / sqrt(var + epsilon)``."""
    x = np.asarray(x)
    wide = widened(x)
    with np.errstate(all="ignore"):
        mean, var = wide.mean(axis=axes, keepdims=True), wide.var(axis=axes, keepdims=True)
        inverse = 1 / np.sqrt(var + Wide(epsilon))
        y = (wide - mean) * inverse * np.asarray(scale)
        if bias is not None:
            y = y + np.asarray(bias)
        return y.astype(x.dtype), mean.astype(np.float32), inverse.astype(np.float32)


def batch_normalization(x: Any, scale: Any, bias: Any, mean: Any, var: Any, epsilon: float) -> np.ndarray:
    """Return ``x * s + (bias - mean * s)`` with ``s = scale * (1 / sqrt(var + epsilon))`` per channel.

    Every operation is rounded to float32, by way of float64: it has more than twice the digits, so that
    rounding again changes nothing (Figueroa, 1995).
    """
    y = np.empty_like(x)
    for channel in range(x.shape[1]):

        def rounded(value: Any) -> Any:
            return np.asarray(value, np.float64).astype(np.float32).astype(np.float64)

        with np.errstate(all="ignore"):
            gain, offset, center, spread = (np.float64(a[channel]) for a in (scale, bias, mean, var))
            root = rounded(np.sqrt(rounded(spread + rounded(epsilon))))
            factor = rounded(gain * rounded(1 / root))
            shift = rounded(offset - rounded(center * factor))
            y[:, channel] = rounded(rounded(x[:, channel].astype(np.float64) * factor) + shift)
    return y


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _erf(x: Any) -> np.ndarray:
    values = [math.erf(value) for value in x.astype(np.float64).ravel().tolist()]
    return np.array(values, np.float64).reshape(x.shape)


def _gelu(x: Any) -> Any:
    return x / 2 * (1 + _erf(x / np.sqrt(Wide(2))))


def _gelu_tanh(x: Any) -> Any:
    return x / 2 * (1 + np.tanh(np.sqrt(Wide(2) / Wide(math.pi)) * (x + Wide(0.044715) * x**3)))


def _floor(x: Any) -> Any:
    whole = np.trunc(x)
    return whole - (whole > x)


REAL_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "Erf": _erf,
    "Exp": np.exp,
    "Gelu": _gelu,
    "GeluTanh": _gelu_tanh,
    "Log": np.log,
    "Sigmoid": _sigmoid,
    "Tanh": np.tanh,
}
"""Functions of one real number that no standard rounds, by their ONNX names."""

EXACT_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "Abs": lambda x: np.where(x < 0, 0 - x, x),
    "Ceil": lambda x: -_floor(-x),
    "Floor": _floor,
    "Neg": lambda x: 0 - x,
    "Not": lambda x: x == 0,
    "Reciprocal": lambda x: x.dtype.type(1) / x,
    "Round": np.round,
    "Sqrt": lambda x: x if not x.size else np.sqrt(x.astype(np.float64)),
}
"""Functions of one number whose every bit is fixed, by their ONNX names."""


def function(operation: str, x: Any) -> np.ndarray:
    """Return one of the functions above of every number, rounded to x's type."""
    x = np.asarray(x)
    with np.errstate(all="ignore"):
        if operation in REAL_FUNCTIONS:
            return np.asarray(REAL_FUNCTIONS[operation](widened(x))).astype(x.dtype)
        return np.asarray(EXACT_FUNCTIONS[operation](x)).astype(x.dtype)


def _with_nan(chosen: Any, a: Any, b: Any) -> Any:
    return np.where(a != a, a, np.where(b != b, b, chosen))


_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "And": lambda a, b: a & b,
    "Or": lambda a, b: a | b,
    "Xor": lambda a, b: a ^ b,
    "Equal": lambda a, b: a == b,
    "Greater": lambda a, b: a > b,
    "GreaterOrEqual": lambda a, b: a >= b,
    "Less": lambda a, b: a < b,
    "LessOrEqual": lambda a, b: a <= b,
    "Max": lambda a, b: _with_nan(np.where(a > b, a, b), a, b),
    "Min": lambda a, b: _with_nan(np.where(a < b, a, b), a, b),
}


def _spread(exponent: tuple[int, ...], base: tuple[int, ...]) -> bool:
    """Whether `exponent` is broadcast along the innermost axis that is not 1 in both."""
    axes = max(len(exponent), len(base))
    sizes = zip((1,) * (axes - len(exponent)) + exponent, (1,) * (axes - len(base)) + base, strict=True)
    inner = [pair for pair in sizes if pair != (1, 1)]
    return bool(inner) and inner[-1][0] == 1


def binary(operation: str, a: Any, b: Any) -> np.ndarray:
    """Return a function of two numbers by its ONNX name, in the first one's type; bool for comparisons.

    Integers wrap, and are divided towards 0. Of floats only Pow is not rounded as IEEE 754 says.
    """
    a, b = np.asarray(a), np.asarray(b)
    dtype = a.dtype
    with np.errstate(all="ignore"):
        if operation == "Pow":
            if dtype.kind == "f":
                return np.power(widened(a), widened(b)).astype(dtype)
            # In float64, also for integers, as in ONNX Runtime; except squares and cubes by one exponent.
            power = np.power(a.astype(np.float64), b.astype(np.float64)).astype(dtype)
            if _spread(b.shape, a.shape):
                power = np.where(b == 2, a * a, power)
                power = np.where(b == 3, a * a * a, power)
            return np.asarray(power)
        if operation == "Div":
            if dtype.kind == "f":
                return np.asarray(_wide(a) / _wide(b)).astype(dtype)
            wide = np.uint64 if dtype.kind == "u" else np.int64
            a, b = a.astype(wide), b.astype(wide)
            return np.asarray((a - np.fmod(a, b)) // b).astype(dtype)
        result = np.asarray(_ARITHMETIC[operation](_wide(a), _wide(b)))
        return result if result.dtype == bool else result.astype(dtype)


def _wide(x: np.ndarray) -> np.ndarray:
    """Return numbers in a type in which one operation is exact or harmlessly rounded twice."""
    if x.dtype.kind == "f":
        return x.astype(np.float64)
    return x if x.dtype.kind == "b" or x.dtype.itemsize == 8 else x.astype(np.int64)


def reduce(operation: str, x: Any, axes: Sizes, keepdims: bool) -> np.ndarray:
    """Reduce over axes: ONNX ReduceMax, ReduceMean, ReduceMin, ReduceProd or ReduceSum.

    Integers saturate, as in ONNX Runtime. For an empty set the maximum is the type's smallest number, the
    minimum its largest, and the mean 0.
    """
    x = np.asarray(x)
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    count = math.prod(x.shape[axis] for axis in axes)
    rows = np.moveaxis(x, kept, range(len(kept))).reshape([x.shape[axis] for axis in kept] + [count])
    floats = x.dtype.kind == "f"
    least, greatest = (-np.inf, np.inf) if floats else (np.iinfo(x.dtype).min, np.iinfo(x.dtype).max)
    y: Any
    with np.errstate(all="ignore"):
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
    return y.reshape([1 if i in axes else n for i, n in enumerate(x.shape) if keepdims or i not in axes])


def arg_max(x: Any, axis: int, keepdims: bool, last: bool) -> np.ndarray:
    """Return the index of the largest number along an axis.

    As in ONNX Runtime, NaN is not larger than any number, and no number is larger than a leading NaN.
    """
    x = np.moveaxis(np.asarray(x), axis, -1)
    found = np.zeros(x.shape[:-1], np.int64)
    best = x[..., 0]
    for place in range(1, x.shape[-1]):
        here = x[..., place]
        better = here >= best if last else here > best
        best, found = np.where(better, here, best), np.where(better, place, found)
    return np.expand_dims(found, axis) if keepdims else found
