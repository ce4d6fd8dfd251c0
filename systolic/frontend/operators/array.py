"""Operators whose products run on the array, and the one that prepares their operands."""

from __future__ import annotations

from typing import Any

import numpy as np

from systolic import layers
from systolic._check import shape as shape_text
from systolic.frontend.operators._operator import Converted, Converter, Operator
from systolic.model import Node
from systolic.quant import QuantParams


def _qlinear_conv(op: Operator) -> Converted:
    known = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
    op.only(*known, *(("channels_last",) if op.domain else ()))
    last = bool(op.attribute("channels_last", 0))
    weight = op.constant(3, "weight")
    rank = weight.ndim - 2
    if rank not in (1, 2, 3):
        raise op.refuse(f"a weight of shape {shape_text(weight.shape)}; supported are 1 to 3 spatial axes")
    _expect_kernel(op, weight.shape)
    groups = op.attribute("group", 1)
    options: dict[str, Any] = {
        "x": op.params(1, 2),
        "w": op.params(4, 5, axis=0),
        "y": op.params(6, 7),
        "bias": op.constant(8, "bias") if op.has(8) else None,
        **_window(op, rank),
    }
    read = op.inputs[:1]
    if rank == 1:
        return layers.Conv1d(weight, groups=groups, layout="NWC" if last else "NCW", **options), read
    if rank == 3:
        return layers.Conv3d(weight, groups=groups, layout="NDHWC" if last else "NCDHW", **options), read
    options["layout"] = "NHWC" if last else "NCHW"
    if groups > 1 and weight.shape[1] == 1 and weight.shape[0] % groups == 0:
        return layers.DepthwiseConv2d(weight, multiplier=weight.shape[0] // groups, **options), read
    return layers.Conv2d(weight, groups=groups, **options), read


def _conv_integer(op: Operator) -> Converted:
    op.only("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
    weight = op.shape(1)
    shape = weight if weight is not None else op.shape(0)
    if shape is None:
        raise op.refuse("the number of spatial axes of its inputs must be known")
    if weight is not None and None not in weight:
        _expect_kernel(op, tuple(size for size in weight if size is not None))
    elif "kernel_shape" in op.attributes:
        raise op.refuse("kernel_shape beside weights whose shape is not known")
    rank = len(shape) - 2
    if rank not in (1, 2, 3):
        raise op.refuse(f"operands of {rank + 2} axes; supported are 1 to 3 spatial axes")
    return layers.ConvInteger(groups=op.attribute("group", 1), **_window(op, rank)), _given(op, 2, 3)


def _expect_kernel(op: Operator, weight: tuple[int, ...]) -> None:
    given = op.integers("kernel_shape", weight[2:])
    if given != weight[2:]:
        raise ValueError(f"kernel_shape {given} but a weight {shape_text(weight)}")


def _window(op: Operator, rank: int) -> dict[str, Any]:
    """Return stride, padding and dilation of a window over `rank` axes."""
    auto = op.attribute("auto_pad", "NOTSET")
    names = {"SAME_UPPER": "same", "SAME_LOWER": "same_lower", "VALID": "valid"}
    pads = op.integers("pads", (0,) * 2 * rank)
    strides, dilations = op.integers("strides", (1,) * rank), op.integers("dilations", (1,) * rank)
    if auto not in ("NOTSET", "", *names):
        raise op.refuse(f"auto_pad {auto!r}")
    if len(pads) != 2 * rank or min(pads) < 0:
        raise op.refuse(
            f"pads {list(pads)}; supported are {2 * rank}, none negative, first those before each axis"
        )
    for name, values in (("strides", strides), ("dilations", dilations)):
        if len(values) != rank:
            raise ValueError(f"{name} must hold {rank} numbers, one per spatial axis, not {list(values)}")
    explicit = tuple(zip(pads[:rank], pads[rank:], strict=True))
    return {"stride": strides, "padding": names.get(auto, explicit), "dilation": dilations}


def _qlinear_matmul(op: Operator) -> Converted:
    op.only()
    x, y = op.params(1, 2), op.params(6, 7)
    if not op.has(3):
        raise ValueError("input 3, the second matrix, is missing")
    shape = op.shape(3)
    w = _column_params(op, 4, 5, None if shape is None else len(shape))
    weight = op.constants.get(op.inputs[3])
    if weight is not None and weight.ndim == 2:
        return layers.Dense(weight, x=x, w=w, y=y), op.inputs[:1]
    return layers.MatMul(x, w, y), (op.inputs[0], op.inputs[3])


def _column_params(op: Operator, scale: int, zero_point: int, axes: int | None) -> QuantParams:
    """Return quantization parameters per tensor or per column of a matrix, (N,) or (1, N)."""
    scales = op.constant(scale, "scale")
    zeros = op.constant(zero_point, "zero point") if op.has(zero_point) else np.zeros(1, dtype=np.uint8)
    if axes != 2 or scales.ndim != 2 or scales.shape[0] != 1 or scales.size == 1:
        return op.params(scale, zero_point, axis=1)
    size = (scales.shape[1],)
    return QuantParams(scales[0], np.broadcast_to(zeros.reshape(-1), size), zeros.dtype.name, axis=1)


def _qgemm(op: Operator) -> Converted:
    op.only("alpha", "transA", "transB")
    x = op.params(1, 2)
    # ONNX Runtime scales by f32(alpha * a_scale) first, which is as if the input had that scale.
    alpha = np.float32(op.attribute("alpha", 1.0))
    if alpha != 1:
        if not alpha > 0:
            raise op.refuse(f"alpha {alpha}; supported are numbers above 0")
        x = QuantParams(float(alpha * x.scales), x.zero_point, x.dtype)
    w = op.params(4, 5, axis=1)
    if op.has(7) != op.has(8):
        raise op.refuse("y's scale and zero point must both be given (codes) or both be left out (float32)")
    y = op.params(7, 8) if op.has(7) else None
    for index, what in ((0, "first matrix"), (3, "weight")):
        if not op.has(index):
            raise ValueError(f"input {index}, the {what}, is missing")
    weight = op.constants.get(op.inputs[3])
    bias = op.constants.get(op.inputs[6]) if op.has(6) else None
    if weight is not None and weight.ndim != 2:
        raise ValueError(f"the weight must have 2 axes, not the shape {shape_text(weight.shape)}")
    transposed = bool(op.attribute("transB", 0))
    if weight is not None and not op.attribute("transA", 0) and (not op.has(6) or _per_column(bias)):
        weight = weight.T if transposed else weight
        if bias is not None:
            bias = np.broadcast_to(bias.reshape(-1), weight.shape[1])
        return layers.Dense(weight, x=x, w=w, y=y, bias=bias), op.inputs[:1]
    for index in (0, 3):
        sizes = op.shape(index)
        if sizes is None or len(sizes) != 2:
            raise op.refuse(f"input {op.inputs[index]!r} must be known to be a matrix")
    layer = layers.MatMul(x, w, y, transpose_x=bool(op.attribute("transA", 0)), transpose_w=transposed)
    return layer, (op.inputs[0], op.inputs[3], *((op.inputs[6],) if op.has(6) else ()))


def _per_column(bias: np.ndarray | None) -> bool:
    """Whether a bias is constant and the same in each row."""
    return bias is not None and (bias.ndim < 2 or (bias.ndim == 2 and bias.shape[0] == 1))


def _matmul_integer(op: Operator) -> Converted:
    op.only()
    return layers.MatMulInteger(), _given(op, 2, 3)


def _matmul_integer_to_float(op: Operator) -> Converted:
    op.only()
    read = (*_required(op, 4), _zero_point(op, 4, 0), _zero_point(op, 5, 1))
    return layers.MatMulIntegerToFloat(), (*read, *((op.inputs[6],) if op.has(6) else ()))


def _dynamic_quantize_matmul(op: Operator) -> Converted:
    op.only()
    x, w, w_scale = _required(op, 3)
    codes, scale, zero_point = (f"{op.outputs[0]}.{name}" for name in ("codes", "scale", "zero_point"))
    read = (codes, w, scale, w_scale, zero_point, _zero_point(op, 3, 1))
    return [
        Node(layers.DynamicQuantize(), (x,), (codes, scale, zero_point), f"{op.label}.quantize"),
        Node(
            layers.MatMulIntegerToFloat(),
            (*read, *((op.inputs[4],) if op.has(4) else ())),
            op.outputs[0],
            op.label,
        ),
    ]


def _dynamic_quantize_linear(op: Operator) -> Converted:
    op.only()
    return layers.DynamicQuantize(), op.inputs[:1]


def _required(op: Operator, count: int) -> tuple[str, ...]:
    for index in range(count):
        if not op.has(index):
            raise ValueError(f"input {index} is missing")
    return op.inputs[:count]


def _given(op: Operator, x_zero_point: int, w_zero_point: int) -> tuple[str, ...]:
    """Return the operands and the zero points that are given, a zero standing for an absent first."""
    read = _required(op, 2)
    if op.has(w_zero_point):
        return (*read, _zero_point(op, x_zero_point, 0), op.inputs[w_zero_point])
    return (*read, op.inputs[x_zero_point]) if op.has(x_zero_point) else read


def _zero_point(op: Operator, index: int, operand: int) -> str:
    """Return the name of a zero point, of a new constant 0 of its operand's type if it is absent."""
    if op.has(index):
        return op.inputs[index]
    name = f"{op.outputs[0]}.zero{operand}"
    zero = np.zeros((), dtype=op.dtypes[op.inputs[operand]])
    op.graph.constants[name], op.graph.dtypes[name], op.graph.shapes[name] = zero, zero.dtype.name, ()
    return name


ARRAY: dict[tuple[str, str], Converter] = {
    ("", "ConvInteger"): _conv_integer,
    ("", "DynamicQuantizeLinear"): _dynamic_quantize_linear,
    ("", "MatMulInteger"): _matmul_integer,
    ("", "QLinearConv"): _qlinear_conv,
    ("", "QLinearMatMul"): _qlinear_matmul,
    ("com.microsoft", "DynamicQuantizeMatMul"): _dynamic_quantize_matmul,
    ("com.microsoft", "MatMulIntegerToFloat"): _matmul_integer_to_float,
    ("com.microsoft", "QGemm"): _qgemm,
    ("com.microsoft", "QLinearConv"): _qlinear_conv,
}
"""Converters by (domain, operator)."""
