"""The sums of a product and its operands, derived again: what the array should have been fed.

Patches are looked up element by element from their definition, so that an error in im2col shows as a
difference here and not as an agreement of two wrong things.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from systolic.reference.numbers import Numbers
from systolic.reference.oracle import products, rounded
from systolic.reference.oracle._numbers import one, wrap_int32
from systolic.reference.oracle._windows import as_layer, channels_first, channels_last, windows
from systolic.reference.oracle.convolutions import exact_sums

Index = tuple[int, ...]


class Operands(NamedTuple):
    """Whole operands of a product, by index.

    Attributes
    ----------
    rows : callable
        ``rows(group, m, k)`` with index arrays: the elements of x.
    weights : callable
        ``weights(group, k, n)`` with index arrays: the elements of w.
    place : callable
        From the index of a sum in the result to its (group, m, n).
    """

    rows: Callable[[int, np.ndarray, np.ndarray], np.ndarray]
    weights: Callable[[int, np.ndarray, np.ndarray], np.ndarray]
    place: Callable[[Index], tuple[int, int, int]]


def expected_sums(
    layer: Any, inputs: Sequence[np.ndarray], tile: int | None = None
) -> tuple[np.ndarray, Operands]:
    """Return the exact sums of the codes of a layer's product, in the result's layout, and its operands.

    Of a product of floats they are rounded, in the order of an array with this `tile`.
    """
    if hasattr(layer, "compute"):
        return _rounded_sums(layer, inputs[0], inputs[1], tile)
    if hasattr(layer, "w_bits"):
        return _code_sums(layer, *inputs[:4])
    weight: Any = getattr(layer, "weight", None)
    held = weight is not None
    # Scale and zero point follow x where they are read.
    read = type(layer).__name__.startswith("QLinear") and getattr(layer, "x", None) is None
    w: Any = weight if held else inputs[3 if read else 1]
    if not hasattr(layer, "groups"):
        return matmul_sums(*_matrices(layer, inputs[0], w))
    zero = layer.x.zero_point if held else inputs[2] if len(inputs) > 2 else 0
    return conv_sums(layer, inputs[0], w, int(one(zero)))


def ordered_sums(x: np.ndarray, w: np.ndarray, numbers: Numbers, tile: int) -> tuple[np.ndarray, Operands]:
    """Return the sums of a product of matrices, added as :meth:`Numbers.product` does, and its operands."""

    def part(values: np.ndarray) -> Callable[..., np.ndarray]:
        return lambda group, rows, cols: values[np.ix_(rows, cols)]

    sums: np.ndarray = np.zeros((len(x), w.shape[1]), numbers.held)
    if len(w):
        with np.errstate(invalid="ignore"):  # signaling NaN
            sums = numbers.product(x.astype(numbers.held).tolist(), w.astype(numbers.held).tolist(), tile)
    return sums, Operands(part(x), part(w), lambda index: (0, index[0], index[1]))


def _code_sums(
    layer: Any, x: np.ndarray, scale: np.ndarray, zero: np.ndarray, w: np.ndarray
) -> tuple[np.ndarray, Operands]:
    """Return the sums of codes of 4 or 16 bits modulo 2^32, zero points not subtracted."""
    if hasattr(layer, "groups"):
        win, pad = windows(layer, x.shape[2:], w.shape[2:]), int(one(zero))
        return exact_sums(x, w, win, layer.groups, pad), _conv_operands(layer, x, w, pad)
    left, right = _matrices(layer, x, w)
    sums = wrap_int32((left.astype(np.float64) @ right.astype(np.float64)).astype(np.int64))
    return sums, _matmul_operands(left, right)


def _rounded_sums(
    layer: Any, x: np.ndarray, w: np.ndarray, tile: int | None
) -> tuple[np.ndarray, Operands]:
    left, right = (rounded.nearest(each, layer.compute) for each in (x, w))
    if hasattr(layer, "groups"):
        return rounded.conv_sums(layer, left, right, tile), _conv_operands(layer, left, right, 0)
    left, right = _matrices(layer, left, right)
    return rounded.in_order(left, right, tile), _matmul_operands(left, right)


def _matrices(layer: Any, x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the operands of a product, transposed as its layer says, vectors as a row and a column."""
    left, right = products.operands(layer, x, w)
    return np.atleast_2d(left), right[:, np.newaxis] if right.ndim == 1 else right


def matmul_sums(x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, Operands]:
    """Return the exact sums of a product of matrices, or of stacks of them, and its operands."""
    return products.matmul(x, w), _matmul_operands(x, w)


def _matmul_operands(x: np.ndarray, w: np.ndarray) -> Operands:
    batch = np.broadcast_shapes(x.shape[:-2], w.shape[:-2])
    m = x.shape[-2]
    all_x, all_w = (np.broadcast_to(a, (*batch, *a.shape[-2:])) for a in (x, w))
    # One matrix w: the rows of the stack follow each other in one group.
    alone = math.prod(w.shape[:-2]) == 1

    def rows(group: int, at: np.ndarray, k: np.ndarray) -> np.ndarray:
        flat = all_x.reshape(-1, x.shape[-1])
        return flat[(at if alone else group * m + at)[:, None], k[None, :]]

    def weights(group: int, k: np.ndarray, n: np.ndarray) -> np.ndarray:
        matrix = all_w[np.unravel_index(0 if alone else group, batch)]
        return np.asarray(matrix[k[:, None], n[None, :]])

    def place(index: Index) -> tuple[int, int, int]:
        matrix = int(np.ravel_multi_index(index[:-2], batch)) if batch else 0
        return (0, matrix * m + index[-2], index[-1]) if alone else (matrix, index[-2], index[-1])

    return Operands(rows, weights, place)


def conv_sums(layer: Any, x: np.ndarray, w: np.ndarray, zero: int) -> tuple[np.ndarray, Operands]:
    """Return the exact sums of a convolution whose padding holds the code `zero`, and its operands.

    `layer` has the fields stride, padding, dilation, groups and, perhaps, layout.
    """
    image = channels_first(layer, x)
    sums = exact_sums(image, w, windows(layer, image.shape[2:], w.shape[2:]), layer.groups, zero)
    return as_layer(layer, sums), _conv_operands(layer, x, w, zero)


def _conv_operands(layer: Any, x: np.ndarray, w: np.ndarray, zero: int) -> Operands:
    image = channels_first(layer, x)
    win = windows(layer, image.shape[2:], w.shape[2:])
    channels, sizes = len(w) // layer.groups, (len(x), *win.out)

    def rows(group: int, m: np.ndarray, k: np.ndarray) -> np.ndarray:
        batch, *outs = np.unravel_index(m[:, None], sizes)
        channel, *taps = np.unravel_index(k[None, :], w.shape[1:])
        axes = zip(outs, taps, win.stride, win.dilation, win.pads, strict=True)
        places = [out * step + tap * gap - before for out, tap, step, gap, (before, _) in axes]
        ends = [size - 1 for size in image.shape[2:]]
        inside = np.all([(p >= 0) & (p <= end) for p, end in zip(places, ends, strict=True)], axis=0)
        held = [np.clip(p, 0, end) for p, end in zip(places, ends, strict=True)]
        values = image[(batch, group * w.shape[1] + channel, *held)]
        return np.where(inside, values, np.asarray(zero, dtype=x.dtype))

    def weights(group: int, k: np.ndarray, n: np.ndarray) -> np.ndarray:
        return np.asarray(w[(group * channels + n[None, :], *np.unravel_index(k[:, None], w.shape[1:]))])

    def place(index: Index) -> tuple[int, int, int]:
        b, c, *outs = (index[0], index[-1], *index[1:-1]) if channels_last(layer) else index
        return c // channels, int(np.ravel_multi_index((b, *outs), sizes)), c % channels

    return Operands(rows, weights, place)
