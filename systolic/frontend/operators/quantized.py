"""Converters of quantized host operators, and of those that quantize and dequantize."""

from __future__ import annotations

import numpy as np

from systolic import layers
from systolic.frontend.operators._operator import Converted, Converter, Operator
from systolic.layers.host.quantize import CODES
from systolic.model import Node
from systolic.quant import QuantParams

# From this operator set on, QuantizeLinear divides in the scale's type unless `precision` says otherwise.
_PRECISION = 23

# TensorProto.DataType
_FLOAT, _FLOAT16 = 1, 10
_CODES = {3: "int8", 2: "uint8", 5: "int16", 4: "uint16"}


def _quantize_linear(op: Operator) -> Converted:
    op.only("axis", "block_size", "output_dtype", "precision", "saturate")
    wanted = op.attribute("output_dtype", 0)
    if wanted and wanted not in _CODES:
        raise op.refuse(f"output_dtype {wanted}; supported are {', '.join(_CODES.values())}")
    precision = op.attribute("precision", 0)
    if precision not in (0, _FLOAT, _FLOAT16):
        raise op.refuse(f"precision {precision}; supported are float32 and float16")
    given = op.dtypes.get(op.inputs[2]) if op.has(2) else None
    if wanted and given not in (None, _CODES[wanted]):
        raise ValueError(f"output_dtype {_CODES[wanted]}, but a zero point of {given}")
    dtype = given or _CODES.get(wanted, "uint8")
    if dtype not in CODES[:-1]:
        raise op.refuse(f"codes of {dtype}; supported are {', '.join(CODES[:-1])}")
    axis, block_size = op.attribute("axis", 1), op.attribute("block_size", 0)
    if not precision and op.opset >= _PRECISION and op.has(1) and op.dtypes.get(op.inputs[1]) == "float16":
        precision = _FLOAT16
    if precision == _FLOAT16:
        return _quantize_in_float16(op, layers.QuantizeLinear(dtype, axis=axis, block_size=block_size))
    if dtype in ("int8", "uint8") and _fixed(op, block_size):
        return layers.Quantize(op.params(1, 2, axis=axis, dtype=dtype)), op.inputs[:1]
    return layers.QuantizeLinear(dtype, axis=axis, block_size=block_size), _tensors(op)


def _quantize_in_float16(op: Operator, layer: layers.QuantizeLinear) -> list[Node]:
    """Divide in float16, then quantize the quotients with a scale of 1."""
    x, scale, *zero = _tensors(op)
    shape, scales = op.shape(0), op.shape(1)
    if scales is None or (scales not in ((), (1,)) and scale not in op.constants):
        raise op.refuse("several scales in float16 that are computed; give them as a constant")
    length = shape[layer.axis] if layer.block_size and shape is not None else None
    if layer.block_size and length is None:
        raise op.refuse(f"blocks in float16 of an axis {layer.axis} of any size; give the input's sizes")
    halves, quotient, steps = (op.fresh(f".{what}") for what in ("float16", "quotient", "steps"))
    nodes = [Node(layers.Cast("float16"), (x,), halves, op.label)]
    if scale in op.constants:
        value = op.constants[scale].astype(np.float16)
        if length is not None:
            value = value.repeat(layer.block_size, axis=layer.axis).take(np.arange(length), axis=layer.axis)
        elif scales not in ((), (1,)) and shape is not None:
            value = value.reshape(-1, *[1] * (len(shape) - 1 - layer.axis % len(shape)))
        else:
            value = value.reshape(())
        divisor = op.add_constant(".divisor", value)
    else:
        divisor = op.fresh(".divisor")
        nodes.append(Node(layers.Cast("float16"), (scale,), divisor, op.label))
    one = op.add_constant(".one", np.ones(tuple(size or 1 for size in scales), np.float32))
    return [
        *nodes,
        Node(layers.Binary("Div"), (halves, divisor), quotient, op.label),
        Node(layers.Cast("float32"), (quotient,), steps, op.label),
        Node(layer, (steps, one, *zero), op.outputs[0], op.label),
    ]


def _dequantize_linear(op: Operator) -> Converted:
    op.only("axis", "block_size", "output_dtype")
    wanted = op.attribute("output_dtype", 0)
    if wanted not in (0, _FLOAT, _FLOAT16):
        raise op.refuse(f"output_dtype {wanted}; supported are float32 and float16")
    # Without a zero point the input says which type the codes are of.
    dtype = op.dtypes.get(op.inputs[0], "uint8") if op.inputs else "uint8"
    if dtype not in CODES:
        raise op.refuse(f"codes of {dtype}; supported are {', '.join(CODES)}")
    axis, block_size = op.attribute("axis", 1), op.attribute("block_size", 0)
    # An int32 zero point other than 0 is in no QuantParams.
    zeros = op.value(2)
    plain = dtype in ("int8", "uint8") or (dtype == "int32" and (zeros is None or not zeros.any()))
    if plain and wanted in (0, _FLOAT) and _fixed(op, block_size):
        return layers.Dequantize(op.params(1, 2, axis=axis, dtype=dtype)), op.inputs[:1]
    to = {0: None, _FLOAT: "float32", _FLOAT16: "float16"}[wanted]
    return layers.DequantizeLinear(axis=axis, block_size=block_size, dtype=to), _tensors(op)


def _fixed(op: Operator, block_size: int) -> bool:
    """Whether a QuantParams can hold the scale and zero point: float32 constants, without blocks."""
    scale = op.value(1)
    return not block_size and not op.computed(1, 2) and (scale is None or scale.dtype == np.float32)


def _tensors(op: Operator) -> tuple[str, ...]:
    if not op.has(1):
        raise ValueError("input 1, the scale, is missing")
    scale = op.constants.get(op.inputs[1])
    if scale is not None and not (np.isfinite(scale) & (scale > 0)).all():
        raise ValueError("scales must be finite and above zero")
    return tuple(filter(None, op.inputs[:3]))


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
    ("", "DequantizeLinear"): _dequantize_linear,
    ("", "QuantizeLinear"): _quantize_linear,
    ("com.microsoft", "DequantizeLinear"): _dequantize_linear,
    ("com.microsoft", "QLinearAveragePool"): _qlinear_average_pool,
    ("com.microsoft", "QLinearConcat"): _qlinear_concat,
    ("com.microsoft", "QLinearGlobalAveragePool"): _qlinear_global_average_pool,
    ("com.microsoft", "QLinearSoftmax"): _qlinear_softmax,
    ("com.microsoft", "QLinearWhere"): _qlinear_where,
    ("com.microsoft", "QuantizeLinear"): _quantize_linear,
}
"""Converters by (domain, operator)."""
