"""Operators on codes beside the array, and those between codes and real numbers."""

from __future__ import annotations

from systolic import layers
from systolic.frontend.operators._operator import Converted, Converter, Operator


def _quantize_linear(op: Operator) -> Converted:
    op.only("axis", "saturate", "output_dtype", "block_size")
    if op.attribute("block_size", 0):
        raise op.refuse("blocked quantization is not supported")
    if op.attribute("output_dtype", 0) and not op.has(2):
        raise op.refuse("output_dtype without a zero point is not supported")
    return layers.Quantize(op.params(1, 2, axis=op.attribute("axis", 1))), op.inputs[:1]


def _dequantize_linear(op: Operator) -> Converted:
    op.only("axis", "block_size", "output_dtype")
    if op.attribute("block_size", 0):
        raise op.refuse("blocked quantization is not supported")
    # Without a zero point the input says which type the codes are of.
    dtype = op.dtypes.get(op.inputs[0], "uint8") if op.inputs else "uint8"
    return layers.Dequantize(op.params(1, 2, axis=op.attribute("axis", 1), dtype=dtype)), op.inputs[:1]


def _qlinear_add(op: Operator) -> Converted:
    op.only()
    layer = layers.Add(op.params(1, 2), op.params(4, 5), op.params(6, 7))
    return layer, (op.inputs[0], op.inputs[3])


def _qlinear_global_average_pool(op: Operator) -> Converted:
    op.only("channels_last")
    layout = "NHWC" if op.attribute("channels_last", 0) else "NCHW"
    return layers.GlobalAveragePool2d(op.params(1, 2), op.params(3, 4), layout=layout), op.inputs[:1]


def _qlinear_average_pool(op: Operator) -> Converted:
    op.only("auto_pad", "ceil_mode", "channels_last", "count_include_pad", "kernel_shape", "pads", "strides")
    kernel = op.kernel()
    options = op.window()
    del options["dilation"]
    layer = layers.AveragePool2d(
        kernel,
        op.params(1, 2),
        op.params(3, 4),
        count_include_pad=bool(op.attribute("count_include_pad", 0)),
        ceil_mode=bool(op.attribute("ceil_mode", 0)),
        layout="NHWC" if op.attribute("channels_last", 0) else "NCHW",
        **options,
    )
    return layer, op.inputs[:1]


QUANTIZED: dict[tuple[str, str], Converter] = {
    ("", "DequantizeLinear"): _dequantize_linear,
    ("", "QuantizeLinear"): _quantize_linear,
    ("com.microsoft", "QLinearAdd"): _qlinear_add,
    ("com.microsoft", "QLinearAveragePool"): _qlinear_average_pool,
    ("com.microsoft", "QLinearGlobalAveragePool"): _qlinear_global_average_pool,
}
"""Converters by (domain, operator)."""
