"""Number formats as records: types of operands, products and sums, and their kernel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Format:
    """The numbers of one pair of operand types.

    Parameters
    ----------
    activation, weight : str
        Types of the operands, as numpy names them.
    product : str
        A type that holds every product of two operands exactly.
    sum : str
        Type of psums and accumulators. Integer sums wrap.
    ordered : bool
        Whether the order of additions changes a sum. If so, every mode adds as the array does: within a
        fold row 0 first, from +0; then the accumulators add the k tiles in order.
    kernel : str
        The kernel that computes it: a key of :attr:`systolic.dataflows.Dataflow.kernels`.

    Examples
    --------
    >>> from systolic.formats import FORMATS
    >>> FORMATS["uint8", "int8"].product, FORMATS["uint8", "int8"].sum_bytes
    ('int16', 4)
    """

    activation: str
    weight: str
    product: str
    sum: str
    ordered: bool
    kernel: str

    @property
    def activation_bytes(self) -> int:
        """Bytes of an activation."""
        return np.dtype(self.activation).itemsize

    @property
    def weight_bytes(self) -> int:
        """Bytes of a weight."""
        return np.dtype(self.weight).itemsize

    @property
    def sum_bytes(self) -> int:
        """Bytes of a psum or an accumulator."""
        return np.dtype(self.sum).itemsize


def _bytes(activation: str, weight: str) -> Format:
    signed = "int8" in (activation, weight)
    return Format(
        activation=activation, weight=weight, product="int16" if signed else "uint16", sum="int32",
        ordered=False, kernel="8-bit integers",
    )  # fmt: skip


FORMATS = {(a, w): _bytes(a, w) for a in ("int8", "uint8") for w in ("int8", "uint8")}
"""Every format, by the names of its operand types (activation, weight)."""

ACTIVATIONS, WEIGHTS = (tuple(dict.fromkeys(names)) for names in zip(*FORMATS, strict=True))
"""The operand types there are, on each side."""


_NAMES = {np.dtype(name).char: name for name in (*ACTIVATIONS, *WEIGHTS)}


def operand_name(values: Any) -> str:
    """Return the name of an operand's type; faster than ``dtype.name``, which takes microseconds."""
    return _NAMES[values.dtype.char]


@cache
def bits(dtype: np.dtype) -> int:
    """Return how many bits a value of this type takes in hardware: 1 for a bool."""
    return 1 if dtype.kind == "b" else 8 * dtype.itemsize
