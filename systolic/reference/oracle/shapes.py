"""Operators that move elements: each output element is looked up by its place in the input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from systolic.reference.oracle._numbers import F32

Sizes = tuple[int, ...]


def _integers(values: np.ndarray) -> list[int]:
    return values.ravel().tolist()


def _look_up(x: np.ndarray, places: Sequence[Any]) -> np.ndarray:
    """Return ``y[i, j, ...] = x[places[0][i], places[1][j], ...]``: a list of places for each axis."""
    return np.asarray(x[np.ix_(*(np.asarray(place, dtype=np.intp) for place in places))])


def _normal(axes: Any, rank: int) -> Sizes:
    return tuple(int(axis) % max(rank, 1) for axis in axes)


# The same elements in another shape


def _reshaped(x: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    return np.array(x.flat, dtype=x.dtype).reshape(sizes)


def identity(layer: Any, x: np.ndarray) -> np.ndarray:
    """ONNX Identity."""
    return x.copy()


def flatten(layer: Any, x: np.ndarray) -> np.ndarray:
    """ONNX Flatten."""
    axis = layer.axis + x.ndim if layer.axis < 0 else layer.axis
    return _reshaped(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


def reshape(layer: Any, x: np.ndarray, shape: np.ndarray | None = None) -> np.ndarray:
    """ONNX Reshape, to the layer's shape or to one that it reads: 0 copies a size, -1 takes the rest."""
    wanted = list(layer.shape) if shape is None else _integers(shape)
    copied = [] if layer.allowzero else [i for i, size in enumerate(wanted) if size == 0]
    sizes = [x.shape[i] if i in copied else size for i, size in enumerate(wanted)]
    if -1 in sizes:
        # Without the sizes that are copied, which may be 0.
        known = [size for i, size in enumerate(wanted) if i not in copied and size != -1]
        rest = [size for i, size in enumerate(x.shape) if i not in copied]
        sizes[sizes.index(-1)] = math.prod(rest) // math.prod(known)
    return _reshaped(x, sizes)


def squeeze(layer: Any, x: np.ndarray, given: np.ndarray | None = None) -> np.ndarray:
    """ONNX Squeeze: of the axes it has or reads, or of all of size 1."""
    axes = layer.axes if given is None else _integers(given) or None
    gone = [i for i, size in enumerate(x.shape) if size == 1] if axes is None else _normal(axes, x.ndim)
    return _reshaped(x, [size for i, size in enumerate(x.shape) if i not in gone])


def unsqueeze(layer: Any, x: np.ndarray, given: np.ndarray | None = None) -> np.ndarray:
    """ONNX Unsqueeze: negative axes count from the end of the output."""
    axes = layer.axes if given is None else _integers(given)
    sizes = list(x.shape)
    for axis in sorted(_normal(axes, x.ndim + len(axes))):
        sizes.insert(axis, 1)
    return _reshaped(x, sizes)


# Shapes as values


def shape_of(layer: Any, x: np.ndarray) -> np.ndarray:
    """ONNX Shape."""
    return np.array(list(x.shape)[layer.start : layer.end], np.int64)


def fill(layer: Any, shape: np.ndarray) -> np.ndarray:
    """ONNX ConstantOfShape."""
    return np.repeat(layer.value, math.prod(_integers(shape))).reshape(_integers(shape))


# Places


def concat(layer: Any, *parts: np.ndarray) -> np.ndarray:
    """ONNX Concat."""
    axis = layer.axis % parts[0].ndim
    ends = np.cumsum([part.shape[axis] for part in parts]).tolist()
    sizes = list(parts[0].shape)
    sizes[axis] = ends[-1]
    y = np.empty(sizes, parts[0].dtype)
    for part, end in zip(parts, ends, strict=True):
        y[(slice(None),) * axis + (slice(end - part.shape[axis], end),)] = part
    return y


def transpose(layer: Any, x: np.ndarray) -> np.ndarray:
    """ONNX Transpose: ``y.shape[i] = x.shape[perm[i]]``, by the elements' places in memory."""
    perm = range(x.ndim)[::-1] if layer.perm is None else layer.perm
    flat = np.zeros((1,) * len(perm), np.int64)
    for place, axis in enumerate(perm):
        along = [1] * len(perm)
        along[place] = -1
        flat = flat + (np.arange(x.shape[axis]) * math.prod(x.shape[axis + 1 :])).reshape(along)
    return np.asarray(np.ascontiguousarray(x).reshape(-1)[flat])


def gather(layer: Any, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """ONNX Gather; negative indices count from the end."""
    axis = layer.axis % x.ndim
    y = np.empty((*x.shape[:axis], indices.size, *x.shape[axis + 1 :]), x.dtype)
    before: Any = (slice(None),) * axis
    for place, index in enumerate(_integers(indices)):
        y[(*before, place)] = x[(*before, index)]
    return y.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def expand(layer: Any, x: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """ONNX Expand."""
    return expanded(x, _integers(shape))


def expanded(x: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Repeat x to the shape that it and `shape` broadcast to."""
    rank = max(x.ndim, len(shape))
    x = x.reshape((1,) * (rank - x.ndim) + x.shape)
    sizes = zip(x.shape, (1,) * (rank - len(shape)) + tuple(shape), strict=True)
    return _look_up(x, [np.zeros(want, np.intp) if have == 1 else np.arange(have) for have, want in sizes])


def split(layer: Any, x: np.ndarray) -> tuple[np.ndarray, ...]:
    """ONNX Split."""
    axis, start, parts = layer.axis % x.ndim, 0, []
    for size in layer.sizes:
        places = [range(n) for n in x.shape]
        places[axis] = range(start, start + size)
        parts.append(_look_up(x, places))
        start += size
    return tuple(parts)


def slices(layer: Any, x: np.ndarray, *lists: np.ndarray) -> np.ndarray:
    """ONNX Slice; going back, ONNX Runtime takes an end of 2^31 - 1 or 2^63 - 1 for all that is left."""
    starts, ends, *rest = map(_integers, lists)
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
    return _look_up(x, places)


def pad(layer: Any, x: np.ndarray, pads: np.ndarray, *more: np.ndarray) -> np.ndarray:
    """ONNX Pad: a value, the mirror image ("reflect"), the border ("edge") or the tensor again ("wrap").

    Negative counts remove elements, before any are added.
    """
    which = _normal(_integers(more[1]) if len(more) > 1 else range(x.ndim), x.ndim)
    counts, margins = _integers(pads), [(0, 0)] * x.ndim
    for number, axis in enumerate(which):
        margins[axis] = counts[number], counts[number + len(which)]
    ends = zip(x.shape, margins, strict=True)
    x = _look_up(x, [range(max(-low, 0), size - max(-high, 0)) for size, (low, high) in ends])
    places = []
    inside = np.ones((1,) * x.ndim, bool)
    for axis, (size, (low, high)) in enumerate(zip(x.shape, margins, strict=True)):
        place: Any = np.arange(-max(low, 0), size + max(high, 0))
        along = [1] * x.ndim
        along[axis] = -1
        inside = inside & ((place >= 0) & (place < size)).reshape(along)
        if layer.mode == "reflect" and size > 1:
            place = place % (2 * size - 2)
            place = np.where(place < size, place, 2 * size - 2 - place)
        elif layer.mode == "wrap" and size:
            place = place % size
        places.append(np.clip(place, 0, max(size - 1, 0)))
    value = np.asarray(more[0].ravel()[0] if more and more[0].size else 0, x.dtype)
    if layer.mode == "constant" and 0 in x.shape:
        return np.full([len(place) for place in places], value)
    y = _look_up(x, places)
    return np.where(inside, y, value) if layer.mode == "constant" else y


def resize(layer: Any, x: np.ndarray, target: np.ndarray) -> np.ndarray:
    """ONNX Resize with ``mode="nearest"``, by scales or sizes."""
    axes = list(range(x.ndim) if layer.axes is None else layer.axes)
    out = list(x.shape)
    if layer.by == "scales":
        scales = [F32(scale) for scale in target]
        exact = [Fraction(float(scale)) * x.shape[axis] for axis, scale in zip(axes, scales, strict=True)]
        sizes = list(map(math.floor, exact))
    else:
        if layer.policy != "stretch":  # which passes over axes that count from the end, as in ONNX Runtime
            target = target[[axis >= 0 for axis in axes]]
            axes = [axis for axis in axes if axis >= 0]
        sizes = target.tolist()
        scales = [F32(size) / F32(x.shape[axis] or 1) for axis, size in zip(axes, sizes, strict=True)]
        if layer.policy != "stretch" and scales:
            common = min(scales) if layer.policy == "not_larger" else max(scales)
            scales = [common] * len(scales)
            sizes = [math.floor(float(common * F32(x.shape[axis])) + 0.5) for axis in axes]
    for axis, size in zip(axes, sizes, strict=True):
        out[axis] = size
    if tuple(out) == x.shape:
        return x.copy()  # whatever the scales
    places: list[Any] = [range(size) for size in x.shape]
    for axis, scale in zip(axes, scales, strict=True):
        places[axis] = [_nearest(layer, i, x.shape[axis], out[axis], scale) for i in range(out[axis])]
    return _look_up(x, places)


def _nearest(layer: Any, i: int, size: int, out: int, scale: Any) -> int:
    """Return which of `size` elements the i-th of `out` copies, in float32 as in ONNX Runtime."""
    f = F32
    if layer.coordinates == "asymmetric":
        x = f(i) / scale
    elif layer.coordinates == "align_corners":
        x = f(i) * f(size - 1) / f(out - 1) if out > 1 else f(0)
    elif layer.coordinates == "pytorch_half_pixel" and out == 1:
        x = f(0)
    else:
        x = (f(i) + f(0.5)) / scale - f(0.5)
        if layer.coordinates == "half_pixel_symmetric":
            middle = f(size) / f(2) * (f(1) - f(out) / (scale * f(size)))
            # From here on in double, rounded once.
            x = f(float(middle) + (i + 0.5) / float(scale) - 0.5)
    down = float(np.floor(x))
    rest = float(x) - down
    up = {
        "floor": False,
        "ceil": rest > 0,
        "simple": scale < 1 and rest > 0,
        "round_prefer_floor": rest > 0.5,
        "round_prefer_ceil": rest >= 0.5,
    }[layer.rounding]
    return int(min(max(down + up, 0), size - 1))
