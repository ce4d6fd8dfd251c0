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


def _qlinear_global_average_pool(op: Operator) -> Converted:
    op.only("channels_last")
    last = bool(op.attribute("channels_last", 0))
    params, shape = _several(op, 1, 3), op.shape(0)
    if shape is not None and len(shape) == 4:
        return layers.GlobalAveragePool2d(*params, layout="NHWC" if last else "NCHW"), op.inputs[:1]
    return layers.QLinearGlobalAveragePool(*params, channels_last=last), op.inputs[:1]


def _qlinear_average_pool(op: Operator) -> Converted:
    op.only("auto_pad", "ceil_mode", "channels_last", "count_include_pad", "kernel_shape", "pads", "strides")
    kernel = op.integers("kernel_shape", ())
    if not 1 <= len(kernel) <= 3:
        raise op.refuse(f"a window of {len(kernel)} dimensions; supported are 1 to 3")
    window = op.window(len(kernel))
    options = {
        "count_include_pad": bool(op.attribute("count_include_pad", 0)),
        "ceil_mode": bool(op.attribute("ceil_mode", 0)),
        "stride": window["stride"],
        "padding": window["padding"],
    }
    last = bool(op.attribute("channels_last", 0))
    if len(kernel) == 2:
        layout = "NHWC" if last else "NCHW"
        return layers.AveragePool2d(kernel, *_several(op, 1, 3), layout=layout, **options), op.inputs[:1]
    layer = layers.QLinearAveragePool(kernel, *_several(op, 1, 3), channels_last=last, **options)
    return layer, op.inputs[:1]


QUANTIZED: dict[tuple[str, str], Converter] = {
    ("com.microsoft", "QLinearAveragePool"): _qlinear_average_pool,
    ("com.microsoft", "QLinearConcat"): _qlinear_concat,
    ("com.microsoft", "QLinearGlobalAveragePool"): _qlinear_global_average_pool,
    ("com.microsoft", "QLinearSoftmax"): _qlinear_softmax,
    ("com.microsoft", "QLinearWhere"): _qlinear_where,
}
"""Converters by (domain, operator)."""
