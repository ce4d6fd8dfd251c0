"""The cycles that a product must take, by the dataflow of its array."""

from __future__ import annotations

from typing import Any

from systolic.reference.output_stationary import OutputStationaryArray
from systolic.reference.pe import ReferenceArray

_ARRAYS: dict[str, Any] = {
    "weight_stationary": ReferenceArray,
    "output_stationary": OutputStationaryArray,
    "input_stationary": ReferenceArray,
}


def expected_cycles(gemm: Any, array: Any) -> int:
    """Return the cycles of a product of sizes m, k, n and groups on an array, fold by fold."""
    sizes = gemm.m, gemm.k, gemm.n
    if array.dataflow == "input_stationary":  # x stays and w streams
        sizes = sizes[::-1]
    cycles: int = _ARRAYS[array.dataflow].expected_cycles(*sizes, gemm.groups, array)
    return cycles
