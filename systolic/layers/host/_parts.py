"""Process large arrays in parts: Python regains control between them, so that Ctrl-C ends a layer soon.

Temporaries stay as small as a part, too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np

# Elements of a part, where temporaries should stay in cache or computing takes long.
PART = 1 << 20

# The same where elements are only moved or read once.
MOVED = 1 << 23

Index = tuple[slice, ...]


def parts(shape: Sequence[int], whole: Collection[int] = (), *, moved: bool = False) -> Iterator[Index]:
    """Split a shape into parts of about PART or MOVED elements, leading axes first, never axes in `whole`."""
    most = MOVED if moved else PART
    steps = list(shape)
    for axis, length in enumerate(shape):
        total = math.prod(steps)
        if total <= most:
            break
        if axis not in whole:
            steps[axis] = max(1, length * most // total)
    # An empty axis is one part too.
    ranges = (range(0, max(length, 1), max(step, 1)) for length, step in zip(shape, steps, strict=True))
    for starts in itertools.product(*ranges):
        yield tuple(slice(start, start + step) for start, step in zip(starts, steps, strict=True))


def copied(x: np.ndarray, dtype: Any = None) -> np.ndarray:
    """Return a C-contiguous copy of x, in another dtype if given."""
    if x.size <= MOVED:
        return np.array(x, dtype, order="C")
    out = np.empty(x.shape, x.dtype if dtype is None else dtype)
    copy_to(out, x)
    return out


def copy_to(out: np.ndarray, x: np.ndarray) -> None:
    """Copy x, of out's shape, into `out`, converted to its dtype."""
    for part in parts(out.shape, moved=True):
        out[part] = x[part]


def elementwise(function: Callable[..., Any], dtype: Any, *inputs: np.ndarray) -> np.ndarray:
    """Return a function of the elements of arrays that broadcast together, as `dtype`."""
    shape = np.broadcast_shapes(*(x.shape for x in inputs))
    if math.prod(shape) <= PART:
        return np.asarray(function(*inputs)).astype(dtype, copy=False)
    out = np.empty(shape, dtype)
    for part in parts(shape):
        pieces = [x[_of(x.shape, part)] for x in inputs]
        if isinstance(function, np.ufunc):
            function(*pieces, out=out[part])
        else:
            out[part] = function(*pieces)
    return out


def _of(shape: Sequence[int], part: Index) -> Index:
    """Return the index into an array of `shape` for a part of what it broadcasts to."""
    last = part[len(part) - len(shape) :]
    return tuple(slice(None) if size == 1 else each for size, each in zip(shape, last, strict=True))


def taken(x: np.ndarray, indices: np.ndarray, axis: int) -> np.ndarray:
    """Return ``np.take(x, indices, axis)``, of indices within range and an axis counted from the front."""
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    if math.prod(shape) <= MOVED:
        return np.asarray(np.take(x, indices, axis=axis))
    out = np.empty(shape, x.dtype)
    behind = axis + indices.ndim
    for part in parts(shape, moved=True):
        source = x[(*part[:axis], slice(None), *part[behind:])]
        # "wrap" avoids a buffer that "raise" needs.
        np.take(source, indices[part[axis:behind]], axis=axis, out=out[part], mode="wrap")
    return out


def by_parts(
    function: Callable[[np.ndarray], np.ndarray],
    shape: Sequence[int],
    dtype: Any,
    x: np.ndarray,
    whole: Collection[int],
    *,
    moved: bool = False,
) -> np.ndarray:
    """Return a function of x, of this shape and type, that works along the axes in `whole`.

    The other axes are the same in x and in the result.
    """
    if x.size <= (MOVED if moved else PART):
        return np.asarray(function(x)).astype(dtype, copy=False)
    out = np.empty(shape, dtype)
    for part in parts(x.shape, whole, moved=moved):
        place = tuple(slice(None) if axis in whole else each for axis, each in enumerate(part))
        out[place] = function(x[part])
    return out
