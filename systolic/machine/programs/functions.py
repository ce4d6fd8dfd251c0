"""What the entries of a program's table of functions have in common: their arrays, attributes and kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from systolic import _check
from systolic.isa import Function


def wrong_kind(function: Function, mnemonic: str, known: Sequence[str]) -> str:
    """Say that an instruction does not compute functions of this one's kind."""
    kinds = ", ".join(map(repr, known[:-1])) + " or " + repr(known[-1]) if len(known) > 1 else repr(known[0])
    return (
        f"{mnemonic} computes functions of kind {kinds}, but {function.name!r} is of kind {function.kind!r}"
    )


def array_of(function: Function, key: str, shape: tuple[int, ...], *dtypes: Any) -> np.ndarray:
    """Return an array of a function, which must have this shape and one of these types."""
    values = function.arrays.get(key)
    if values is None:
        raise ValueError(f"the function {function.name!r} of kind {function.kind!r} lacks its array {key!r}")
    if values.shape != shape or values.dtype not in [np.dtype(dtype) for dtype in dtypes]:
        names = " or ".join(np.dtype(dtype).name for dtype in dtypes)
        raise ValueError(
            f"the array {key!r} of the function {function.name!r} must be {names} {_check.shape(shape)}, not "
            f"{values.dtype} {_check.shape(values.shape)}"
        )
    return values


def no_more(function: Function, attributes: Mapping[str, Any]) -> None:
    """Raise ValueError if attributes are left that nothing uses."""
    if attributes:
        names = ", ".join(attributes)
        raise ValueError(f"the function {function.name!r} has the attributes {names}, which mean nothing")
