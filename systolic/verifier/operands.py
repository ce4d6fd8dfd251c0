"""The operands of a product, derived anew: what the array should have been fed.

Patches are looked up pixel by pixel from their definition, so that an error in im2col shows as a
difference here and not as an agreement of two wrong things.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Index = tuple[int, ...]


@dataclass(frozen=True)
class Operands:
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


def conv_operands(
    x: np.ndarray,
    w: np.ndarray,
    *,
    out: tuple[int, int],
    stride: tuple[int, int],
    pads: tuple[tuple[int, int], tuple[int, int]],
    dilation: tuple[int, int],
    groups: int,
    layout: str,
    pad_value: int,
) -> Operands:
    """Return the operands of a convolution of x (batch, channels, height, width) in its layout."""
    image = x if layout == "NCHW" else x.transpose(0, 3, 1, 2)
    _, _, height, width = image.shape
    oc, icg, kh, kw = w.shape
    oh, ow = out

    def rows(group: int, m: np.ndarray, k: np.ndarray) -> np.ndarray:
        batch, pixel = np.divmod(m[:, None], oh * ow)
        line, column = np.divmod(pixel, ow)
        channel, tap = np.divmod(k[None, :], kh * kw)
        i, j = np.divmod(tap, kw)
        y = line * stride[0] + i * dilation[0] - pads[0][0]
        z = column * stride[1] + j * dilation[1] - pads[1][0]
        inside = (y >= 0) & (y < height) & (z >= 0) & (z < width)
        values = image[batch, group * icg + channel, np.clip(y, 0, height - 1), np.clip(z, 0, width - 1)]
        return np.where(inside, values, np.asarray(pad_value, dtype=x.dtype))

    def weights(group: int, k: np.ndarray, n: np.ndarray) -> np.ndarray:
        channel, tap = np.divmod(k[:, None], kh * kw)
        return w[group * (oc // groups) + n[None, :], channel, tap // kw, tap % kw]

    def place(index: Index) -> tuple[int, int, int]:
        b, c, y, z = index if layout == "NCHW" else (index[0], index[3], index[1], index[2])
        return c // (oc // groups), (b * oh + y) * ow + z, c % (oc // groups)

    return Operands(rows, weights, place)
