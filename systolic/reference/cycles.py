"""The cycles that a product must take, by the dataflow of its array."""

from __future__ import annotations

from typing import Any, NamedTuple

from systolic.reference.output_stationary import OutputStationaryArray
from systolic.reference.pe import ReferenceArray

_ARRAYS: dict[str, Any] = {
    "weight_stationary": ReferenceArray,
    "output_stationary": OutputStationaryArray,
    "input_stationary": ReferenceArray,
}


class Layout(NamedTuple):
    """How a product is laid out.

    Attributes
    ----------
    parts : int
        Of k, each cut by itself.
    pack : int
        Groups that share tiles.
    """

    parts: int = 1
    pack: int = 1


def expected_cycles(gemm: Any, array: Any, layout: Layout = Layout()) -> int:  # noqa: B008
    """Return the cycles of a product of sizes m, k, n and groups on an array, fold by fold."""
    sizes = gemm.m, gemm.k * layout.pack, gemm.n * layout.pack
    if array.dataflow == "input_stationary":  # x stays and w streams
        sizes = sizes[::-1]
    groups = gemm.groups // layout.pack
    cycles: int = _ARRAYS[array.dataflow].expected_cycles(*sizes, groups, array, layout.parts)
    return cycles
