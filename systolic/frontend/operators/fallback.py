"""What becomes of an operator that the table of converters lacks."""

from __future__ import annotations

from systolic.frontend.operators._operator import Converter, Operator


def fallback(operator: Operator) -> Converter | None:
    """Return a converter for an operator that the table lacks; None if nobody knows the operator."""
    return None
