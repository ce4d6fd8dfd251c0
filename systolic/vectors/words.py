"""Numbers as lines of hexadecimal words, as ``$readmemh`` reads them."""

from __future__ import annotations

import numpy as np

from systolic.formats import bits


def digits(bits_of_element: int, elements: int) -> int:
    """Return how many hexadecimal digits a word of so many elements takes."""
    return -(-bits_of_element * elements // 4)


def lines(values: np.ndarray) -> bytes:
    """Return one word for each row of a matrix, each with a line end; element 0 is in the lowest bits.

    Integers are in two's complement, floats in their encoding, bools take a bit.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.vectors.words import lines
    >>> lines(np.int8([[1, -1], [16, 2]])), lines(np.array([[True, False, True]]))
    (b'ff01\\n0210\\n', b'5\\n')
    """
    count, elements = values.shape
    if values.dtype.kind == "b":
        raw = np.packbits(values, axis=1, bitorder="little")
    else:
        little = values.astype(values.dtype.newbyteorder("<"), order="C", copy=False)
        raw = little.view(np.uint8).reshape(count, -1)
    text = np.frombuffer(raw[:, ::-1].tobytes().hex().encode("ascii"), np.uint8).reshape(count, -1)
    width = digits(bits(values.dtype), elements)
    out = np.full((count, width + 1), ord("\n"), np.uint8)
    out[:, :width] = text[:, text.shape[1] - width :]
    return out.tobytes()
