"""Converters of quantized host operators."""

from __future__ import annotations

from systolic import layers
from systolic.frontend.operators._operator import Converted, Converter, Operator
from systolic.quant import QuantParams


def _several(op: Operator, *places: int) -> list[QuantParams]:
    """Return quantization parameters whose scales are at these places, each with a zero point behind it."""
    dtype = op.dtypes.get(op.inputs[0], "uint8")
    return [op.params(place, place + 1, dtype=dtype) for place in places]


def _qlinear_concat(op: Operator) -> Converted:
    op.only("axis")
    if len(op.inputs) < 5 or len(op.inputs) % 3 != 2 or "axis" not in op.attributes:
        raise ValueError("it takes y's scale and zero point, three inputs for each tensor, and an axis")
    places = range(2, len(op.inputs), 3)
    params = tuple(op.params(place + 1, place + 2) for place in places)
    layer = layers.QLinearConcat(params, op.params(0, 1), axis=op.attribute("axis", 0))
    return layer, tuple(op.inputs[place] for place in places)


def _qlinear_where(op: Operator) -> Converted:
    op.only()
    layer = layers.QLinearWhere(op.params(2, 3), op.params(5, 6), op.params(7, 8))
    return layer, (op.inputs[0], op.inputs[1], op.inputs[4])


def _qlinear_softmax(op: Operator) -> Converted:
    op.only("axis", "opset")
    if "opset" not in op.attributes:
        raise ValueError("attribute opset is missing")
    flatten = op.attribute("opset", 0) < 13
    # The axis defaults to -1 for every opset: the operator's schema says so before the kernel can.
    layer = layers.QLinearSoftmax(*_several(op, 1, 3), axis=op.attribute("axis", -1), flatten=flatten)
    return layer, op.inputs[:1]


QUANTIZED: dict[tuple[str, str], Converter] = {
    ("com.microsoft", "QLinearConcat"): _qlinear_concat,
    ("com.microsoft", "QLinearSoftmax"): _qlinear_softmax,
    ("com.microsoft", "QLinearWhere"): _qlinear_where,
}
"""Converters by (domain, operator)."""
