"""Functions of two codes, by compiled loops or by a table over all pairs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from systolic.layers.base import Shape
from systolic.layers.host.qlinear_table import all_codes
from systolic.quant import QuantParams
from systolic.threads import thread_count

# From this many elements on, a table over all pairs of codes (65536) is cheaper.
_TABLE_FROM = 1 << 16


def of_pairs(
    compiled: Callable[..., None],
    function: Callable[[np.ndarray, np.ndarray], np.ndarray],
    params: tuple[QuantParams, QuantParams, QuantParams],
    a: np.ndarray,
    b: np.ndarray,
    shape: Shape,
) -> np.ndarray:
    """Return a function of two tensors of one 8-bit type, which broadcast to a shape, in that type.

    `compiled`, of ``_host``, takes what lies alike, with the parameters of a, b and the output. `function` is
    the same in numpy: it takes two arrays that broadcast together and gives codes of the type.
    """
    out = np.empty(shape, a.dtype)
    if a.shape == b.shape and a.flags.c_contiguous and b.flags.c_contiguous:
        scales, zero_points = [float(p.scales) for p in params], [int(p.zero_points) for p in params]
        compiled(a, b, out, scales, zero_points, threads=thread_count())
        return out
    if out.size < _TABLE_FROM:
        out[...] = function(a, b)
        return out
    # Every pair of codes, as bytes: row A, column B.
    codes = all_codes(out.dtype.name)
    table = function(codes[:, None], codes).reshape(-1)
    pairs = np.empty(out.shape, np.uint16)
    np.left_shift(a.view(np.uint8), 8, out=pairs, dtype=np.uint16)
    np.bitwise_or(pairs, b.view(np.uint8), out=pairs)
    # Piece by piece, for take() widens its indices to 8 bytes; "wrap" spares it a checked copy, and no
    # index is out of range.
    flat_pairs, flat_out = pairs.reshape(-1), out.reshape(-1)
    for start in range(0, out.size, _TABLE_FROM):
        piece = slice(start, start + _TABLE_FROM)
        np.take(table, flat_pairs[piece], out=flat_out[piece], mode="wrap")
    return out
