"""``unpack``: a packed vector of bits, as a simulator gives it, as registers."""

from __future__ import annotations

from typing import Any

import numpy as np

from systolic import _check
from systolic.formats import bits as bits_of

# Largest number of rows or columns of an array that is simulated as RTL.
_MOST = 1 << 14


def unpack(word: int, rows: int, cols: int, *, dtype: Any) -> np.ndarray:
    """Return a packed vector's elements, (rows, cols): PE (r, c) in the bits from (r * cols + c) * width on.

    Parameters
    ----------
    word : int
        Not negative, as a simulator gives a vector of bits.
    dtype : dtype
        Type of the elements: 1 bit wide for bool, else its own width.

    Examples
    --------
    >>> from systolic.cosim import unpack
    >>> unpack(0x04_03_FF_01, 2, 2, dtype="int8")
    array([[ 1, -1],
           [ 3,  4]], dtype=int8)
    """
    kind = _check.dtype_or_none(dtype)
    if kind is None or kind.hasobject or kind.names is not None:
        raise TypeError(f"dtype must be a type of numbers or bool, not {_check.kind(dtype)}")
    rows = _check.integer(rows, "rows", minimum=1, maximum=_MOST)
    cols = _check.integer(cols, "cols", minimum=1, maximum=_MOST)
    bits = bits_of(kind)
    word = _check.integer(word, "word", minimum=0)
    if word >> (bits * rows * cols):
        raise ValueError(f"word is wider than {rows} x {cols} elements of {bits} bits")
    if bits == 1:
        text = format(word, f"0{rows * cols}b")[::-1]
        return np.array([bit == "1" for bit in text]).reshape(rows, cols)
    data = word.to_bytes(rows * cols * kind.itemsize, "little")
    return np.frombuffer(data, dtype=kind.newbyteorder("<")).astype(kind).reshape(rows, cols)
