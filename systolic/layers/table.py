"""``OPERATORS``: the records of all ONNX operators that have a layer."""

from __future__ import annotations

from systolic.layers import attention, conv, matmul, qlinear_conv, qlinear_matmul, recurrent
from systolic.layers.base import Layer
from systolic.layers.host import (
    arithmetic,
    convolve,
    normalize,
    pieces,
    pool,
    qlinear,
    qlinear_table,
    quantize,
    resample,
    shaping,
    transformer,
)
from systolic.layers.host import matmul as host_matmul
from systolic.layers.record import OperatorRecord

_FAMILIES = (
    conv, qlinear_conv, matmul, qlinear_matmul, host_matmul, recurrent, attention, arithmetic, convolve,
    normalize, pieces, pool, qlinear, qlinear_table, quantize, resample, shaping, transformer,
)  # fmt: skip

OPERATORS: dict[tuple[str, str], OperatorRecord] = {
    record.key: record for family in _FAMILIES for record in family.OPERATORS
}
"""Records by (domain, name)."""


def record_of(layer: Layer) -> OperatorRecord | None:
    """Return the record by which a layer is written and described; None if it has no form in ONNX."""
    found = [record for record in OPERATORS.values() if type(layer) is record.layer]
    return next((record for record in found if record.name == layer.kind), found[0] if found else None)
