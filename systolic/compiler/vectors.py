"""What the vector unit computes: layers whose arithmetic a table holds, and pools."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from systolic.compiler.operations import Source
from systolic.compiler.products import Window
from systolic.compiler.tensors import CODES, View
from systolic.layers import (
    Clip,
    Concat,
    Layer,
    MaxPool,
    QLinearAdd,
    QLinearAveragePool,
    QLinearConcat,
    QLinearGlobalAveragePool,
    QLinearLeakyRelu,
    QLinearMul,
    QLinearSigmoid,
    Relu,
)  # fmt: skip
from systolic.layers.base import Shape

_TABLES = (Clip, QLinearLeakyRelu, QLinearSigmoid, Relu)

MOST_SUMS_BYTES = 1 << 24
"""The largest table of means."""


class Recognized(NamedTuple):
    """How the vector unit computes a layer: the fields of a VectorOperation.

    `axis` is where the channels must be, None for anywhere.
    """

    form: str
    tables: tuple[np.ndarray, ...] = ()
    window: Window | None = None
    axis: int | None = None
    attributes: dict[str, Any] | None = None


def recognized(layer: Layer, sources: Sequence[Source], shape: Shape) -> Recognized | None:
    """Return how the vector unit computes a layer; None if the host must."""
    views = [source for source in sources if isinstance(source, View)]
    if isinstance(layer, QLinearAdd | QLinearMul):
        return _pair(layer, sources, views)
    if len(views) != len(sources):
        return None
    if isinstance(layer, _TABLES) and len(views) == 1:
        return Recognized("table", (_bytes(layer.apply(_codes(views[0].dtype))),))
    if isinstance(layer, Concat | QLinearConcat):
        return _concat(layer, views)
    if isinstance(layer, MaxPool | QLinearAveragePool | QLinearGlobalAveragePool):
        return _pool(layer, views[0].shape, views[0].dtype, shape)
    return None


def _codes(dtype: str) -> np.ndarray:
    """Return all codes of a type, in the order of their bytes."""
    return np.arange(256, dtype=np.uint8).view(dtype)


def _bytes(codes: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(codes).view(np.uint8)


def _pair(
    layer: QLinearAdd | QLinearMul, sources: Sequence[Source], views: Sequence[View]
) -> Recognized | None:
    """Return a table of all pairs of codes, or of one tensor's codes beside a constant number.

    The layers look at shapes to decide which operand is first: one element beside one is left to the host.
    """
    codes = _codes(layer.y.dtype)
    if views[0].elements == 1:
        return None
    if len(views) == 2:
        if views[0].shape != views[1].shape:
            return None
        table = layer.apply(np.repeat(codes, 256), np.tile(codes, 256))
        params = layer.a, layer.b, layer.y
        attributes = {
            "operator": "add" if isinstance(layer, QLinearAdd) else "mul",
            "dtype": layer.y.dtype,
            "scales": [each.scale for each in params],
            "zero_points": [each.zero_point for each in params],
        }
        return Recognized("pair", (_bytes(table),), attributes=attributes)
    constant = next(source for source in sources if isinstance(source, np.ndarray))
    if constant.size != 1 or constant.ndim > len(views[0].shape):
        return None
    operands = [codes if isinstance(source, View) else constant.reshape(-1) for source in sources]
    return Recognized("table", (_bytes(layer.apply(*operands)),))


def _concat(layer: Concat | QLinearConcat, views: Sequence[View]) -> Recognized | None:
    rank = len(views[0].shape)
    axis = layer.axis % rank
    if axis not in (1, rank - 1) or rank == 1 or len(views) > 64:
        return None
    if isinstance(layer, QLinearConcat):
        tables = [
            QLinearConcat((params,), layer.y, axis=0).apply(_codes(layer.y.dtype)) for params in layer.x
        ]
    else:
        tables = [_codes(view.dtype) for view in views]
    return Recognized("concat", tuple(map(_bytes, tables)), axis=-1 if axis == rank - 1 else 1)


def _pool(
    layer: MaxPool | QLinearAveragePool | QLinearGlobalAveragePool, shape: Shape, dtype: str, out: Shape
) -> Recognized | None:
    last = layer.channels_last
    spatial = shape[1:-1] if last else shape[2:]
    if dtype not in CODES or len(spatial) not in (1, 2):
        return None
    axis = -1 if last else 1
    size = _pair_of(spatial, 1)
    if isinstance(layer, MaxPool):
        if layer.indices is not None:
            return None
        win = layer._window(shape)
        window = Window(
            _pair_of(win.kernel, 1), _pair_of(win.stride, 1), _pair_of(win.dilation, 1),
            _pair_of(win.before, 0), _pair_of(win.out, 1), size,
        )  # fmt: skip
        return Recognized("max_pool", (), window, axis)
    if isinstance(layer, QLinearAveragePool):
        win = layer._window(shape)
        if win.image != win.kernel or any(map(any, win.pads)):
            return None  # its float32 sums depend on their order
    taps = math.prod(spatial)
    if (taps + 1) * (255 * taps + 1) > MOST_SUMS_BYTES:
        return None
    window = Window(size, (1, 1), (1, 1), (0, 0), (1, 1), size)
    return Recognized("sum_pool", (_means(layer, spatial, dtype),), window, axis)


def _pair_of(sizes: Sequence[int], missing: int) -> tuple[int, int]:
    return (missing, sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])


def _means(
    layer: QLinearAveragePool | QLinearGlobalAveragePool, spatial: Shape, dtype: str
) -> np.ndarray:
    """Return the code for each sum of so many codes, less the lowest one, as the layer computes it."""
    taps = math.prod(spatial)
    sums = np.arange(255 * taps + 1)
    each, more = np.divmod(sums, taps)
    codes = each[:, np.newaxis] + (np.arange(taps) < more[:, np.newaxis])
    low = np.iinfo(dtype).min
    images = (codes + low).astype(dtype).reshape(len(sums), 1, *spatial)
    if layer.channels_last:
        images = np.moveaxis(images, 1, -1)
    table = np.zeros((taps + 1, len(sums)), np.uint8)
    table[taps] = _bytes(layer.apply(np.ascontiguousarray(images)).reshape(-1))
    return table
