"""Operators that move numbers and change none."""

from __future__ import annotations

from systolic import layers
from systolic.frontend.operators._operator import Converted, Converter, Operator


def _flatten(op: Operator) -> Converted:
    return layers.Flatten(op.attribute("axis", 1)), op.inputs[:1]


def _reshape(op: Operator) -> Converted:
    op.only("allowzero")
    sizes = tuple(int(size) for size in op.constant(1, "shape"))
    if op.attribute("allowzero", 0) and 0 in sizes:
        raise op.refuse("allowzero with a size of 0 is not supported")
    return layers.Reshape(sizes), op.inputs[:1]


def _identity(op: Operator) -> Converted:
    return layers.Identity(), op.inputs[:1]


SHAPE: dict[tuple[str, str], Converter] = {
    ("", "Flatten"): _flatten,
    ("", "Identity"): _identity,
    ("", "Reshape"): _reshape,
}
"""Converters by (domain, operator)."""
