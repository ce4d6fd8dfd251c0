"""Operators that move elements: each output element is looked up by its place in the input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Sizes = tuple[int, ...]


def look_up(x: Any, places: Sequence[Any]) -> np.ndarray:
    """Return ``y[i, j, ...] = x[places[0][i], places[1][j], ...]``: a list of places for each axis."""
    x = np.asarray(x)
    return np.asarray(x[np.ix_(*(np.asarray(place, dtype=np.intp) for place in places))])


def concat(parts: Sequence[Any], axis: int) -> np.ndarray:
    """Concatenate tensors along an axis."""
    first = np.asarray(parts[0])
    axis %= first.ndim
    sizes = [np.shape(part)[axis] for part in parts]
    y = np.empty((*first.shape[:axis], sum(sizes), *first.shape[axis + 1 :]), first.dtype)
    start = 0
    for part, size in zip(parts, sizes, strict=True):
        y[(slice(None),) * axis + (slice(start, start + size),)] = part
        start += size
    return y


def transpose(x: Any, perm: Sequence[int]) -> np.ndarray:
    """Reorder the axes: ``y.shape[i] = x.shape[perm[i]]``, by the elements' places in memory."""
    x = np.ascontiguousarray(x)
    steps = [int(np.prod(x.shape[axis + 1 :], dtype=np.int64)) for axis in perm]
    flat = np.zeros((1,) * len(perm), np.int64)
    for place, (axis, step) in enumerate(zip(perm, steps, strict=True)):
        along = [1] * len(perm)
        along[place] = -1
        flat = flat + (np.arange(x.shape[axis]) * step).reshape(along)
    return np.asarray(x.reshape(-1)[flat])


def gather(x: Any, indices: Any, axis: int) -> np.ndarray:
    """Return elements of an axis by number; negative ones count from the end."""
    x, indices = np.asarray(x), np.asarray(indices)
    axis %= x.ndim
    y = np.empty((*x.shape[:axis], indices.size, *x.shape[axis + 1 :]), x.dtype)
    before: Any = (slice(None),) * axis
    for place, index in enumerate(indices.ravel().tolist()):
        y[(*before, place)] = x[(*before, index)]
    return y.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def expand(x: Any, shape: Sequence[int]) -> np.ndarray:
    """Repeat x to the shape that it and `shape` broadcast to."""
    x = np.asarray(x)
    rank = max(x.ndim, len(shape))
    x = x.reshape((1,) * (rank - x.ndim) + x.shape)
    wanted = (1,) * (rank - len(shape)) + tuple(shape)
    places = [
        np.zeros(want, np.intp) if have == 1 else np.arange(have)
        for have, want in zip(x.shape, wanted, strict=True)
    ]
    return look_up(x, places)


def pad(x: Any, margins: Sequence[tuple[int, int]], mode: str, value: Any = 0) -> np.ndarray:
    """Surround a tensor: by a value, its mirror image ("reflect"), its border ("edge") or itself ("wrap").

    Negative margins remove elements, before any are added.
    """
    x = np.asarray(x)
    x = look_up(
        x,
        [
            range(max(-low, 0), size - max(-high, 0))
            for size, (low, high) in zip(x.shape, margins, strict=True)
        ],
    )
    places = []
    inside = np.ones((1,) * x.ndim, bool)
    for axis, (size, (low, high)) in enumerate(zip(x.shape, margins, strict=True)):
        place = np.arange(-max(low, 0), size + max(high, 0))
        along = [1] * x.ndim
        along[axis] = -1
        inside = inside & ((place >= 0) & (place < size)).reshape(along)
        if mode == "reflect" and size > 1:
            place = place % (2 * size - 2)
            place = np.where(place < size, place, 2 * size - 2 - place)
        elif mode == "wrap" and size:
            place = place % size
        else:
            place = np.clip(place, 0, max(size - 1, 0))
        places.append(place)
    if mode == "constant" and 0 in x.shape:
        return np.full([len(place) for place in places], value, x.dtype)
    y = look_up(x, places)
    return np.where(inside, y, np.asarray(value, x.dtype)) if mode == "constant" else y


def nearest(size: int, out: int, scale: Any, coordinates: str, rounding: str) -> list[int]:
    """Return which of `size` elements each of `out` copies, for ONNX Resize with ``mode="nearest"``.

    Computed one by one in float32, as in ONNX Runtime.
    """
    f = np.float32
    scale, found = f(scale), []
    for i in range(out):
        if coordinates == "asymmetric":
            x = f(i) / scale
        elif coordinates == "align_corners":
            x = f(i) * f(size - 1) / f(out - 1) if out > 1 else f(0)
        elif coordinates == "pytorch_half_pixel" and out == 1:
            x = f(0)
        else:
            x = (f(i) + f(0.5)) / scale - f(0.5)
            if coordinates == "half_pixel_symmetric":
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
        }[rounding]
        found.append(int(min(max(down + up, 0), size - 1)))
    return found
