"""Pools over any number of axes, as loops over kernel offsets."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from systolic.reference.oracle._numbers import F32, half_even, params, to_reals, widened, wrap_int32
from systolic.reference.oracle._windows import as_layer, channels_first, taps, windows


def _lowest(dtype: np.dtype) -> Any:
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min


def max_pool(layer: Any, x: np.ndarray) -> Any:
    """ONNX MaxPool: NaN propagates; padding is smaller than every number."""
    if layer.indices is not None:
        return _max_pool_indices(layer, x)
    images = channels_first(layer, x)
    win = windows(layer, images.shape[2:], layer.kernel, pool=True)
    best = np.full((*images.shape[:2], *win.out), _lowest(x.dtype), x.dtype)
    for _, seen in taps(images, win, _lowest(x.dtype)):
        best = np.where((seen > best) | (seen != seen), seen, best)
    return as_layer(layer, best)


def _max_pool_indices(layer: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ONNX MaxPool with its second output: the first number stays unless one is larger, which NaN is not."""
    image, low = x.shape[2:], _lowest(x.dtype)
    win = windows(layer, image, layer.kernel, pool=True)
    best = np.full((*x.shape[:2], *win.out), low, x.dtype)
    where = np.full(best.shape, -1)
    places = np.arange(math.prod(image)).reshape(1, 1, *image)
    if layer.indices == "column":
        places = places.reshape(1, 1, *image[::-1]).T.reshape(1, 1, *image)
    for (_, seen), (_, place) in zip(taps(x, win, low), taps(places, win, -1), strict=True):
        better = (place >= 0) & ((where < 0) | (seen > best))
        best, where = np.where(better, seen, best), np.where(better, place, where)
    planes = np.arange(math.prod(x.shape[:2])).reshape(*x.shape[:2], *[1] * len(image))
    return best, where + planes * math.prod(image)


def average_pool(layer: Any, x: np.ndarray) -> np.ndarray:
    """ONNX AveragePool on floats; what lies beyond the padding never counts."""
    win = windows(layer, x.shape[2:], layer.kernel, pool=True)
    # Negative padding crops: elements cut off at the end are in no window.
    kept = [size + min(after, 0) for size, (_, after) in zip(x.shape[2:], win.pads, strict=True)]
    within: list[Any] = [..., *map(slice, kept)]
    x = x[tuple(within)]
    total = sum(seen for _, seen in taps(x.astype(np.float64), win, 0))
    if layer.count_include_pad:
        kept = [size + before + max(after, 0) for size, (before, after) in zip(kept, win.pads, strict=True)]
        win = win._replace(pads=((0, 0),) * len(kept))
    return np.asarray(total / _counts(win, kept)).astype(x.dtype)


def _counts(win: Any, sizes: Any) -> Any:
    """Return how many elements of an image each window holds."""
    return sum(seen for _, seen in taps(np.ones((1, 1, *sizes), F32), win, 0))


def global_average_pool(layer: Any, x: np.ndarray) -> np.ndarray:
    """ONNX GlobalAveragePool on floats."""
    return widened(x).mean(axis=tuple(range(2, x.ndim)), keepdims=True).astype(x.dtype)


def qlinear_global_average_pool(layer: Any, x: np.ndarray) -> np.ndarray:
    """com.microsoft QLinearGlobalAveragePool: ``sat(rne(f32(f32(sum(q) - n*zx) * m)) + zy)``.

    For n elements ``m = f32(sx / f32(sy * n))``; the zero point is added after rounding.
    """
    images = channels_first(layer, x)
    (sx, zx), (sy, zy) = params(layer.x), params(layer.y)
    axes = tuple(range(2, x.ndim))
    acc = wrap_int32((images.astype(np.int64) - zx).sum(axis=axes, keepdims=True))
    multiplier = sx / (sy * F32(math.prod(images.shape[2:])))
    return as_layer(layer, half_even(acc.astype(F32) * multiplier, zy, layer.y.dtype))


def qlinear_average_pool(layer: Any, x: np.ndarray) -> np.ndarray:
    """com.microsoft QLinearAveragePool: ``sat(rne(f32(f32(f32(v / count) / sy) + zy)))``, zero point first.

    v is the float32 sum, in the window's order, of ``f32(sx * (q - zx))``. With `count_include_pad` the count
    is the kernel's size, also for a last window that `ceil_mode` lets reach beyond the padding. A kernel
    equal to the whole unpadded image is QLinearGlobalAveragePool.
    """
    images = channels_first(layer, x)
    sizes = images.shape[2:]
    win = windows(layer, sizes, layer.kernel, pool=True)
    if win.kernel == sizes and not np.any(win.pads):
        return qlinear_global_average_pool(layer, x)
    total = np.zeros((*images.shape[:2], *win.out), F32)
    for _, seen in taps(to_reals(images, layer.x), win, 0):
        total = total + seen
    count = F32(math.prod(win.kernel)) if layer.count_include_pad else _counts(win, sizes)
    scale, zero = params(layer.y)
    return as_layer(layer, half_even(total / count / scale, zero, layer.y.dtype, zero_first=True))
