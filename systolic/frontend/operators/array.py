"""Converters of operators that run on the array, and of DynamicQuantizeLinear, which prepares operands."""

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
    if op.computed(*range(1, 9)):
        return _qlinear_conv_of_tensors(op, last)
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
        "bias": op.value(8),
        **conv_window(op, rank),
    }
    read = op.inputs[:1]
    kinds: tuple[type[Any], ...] = (layers.Conv1d, layers.Conv2d, layers.Conv3d)
    kind = kinds[rank - 1]
    options["layout"] = tuple(kind.layouts)[last]
    if rank == 2 and groups > 1 and weight.shape[1] == 1 and weight.shape[0] % groups == 0:
        return layers.DepthwiseConv2d(weight, multiplier=weight.shape[0] // groups, **options), read
    return kind(weight, groups=groups, **options), read


def _qlinear_conv_of_tensors(op: Operator, last: bool) -> Converted:
    """Return the convolution of weights or parameters computed at run time."""
    read = (*op.required(8), *((op.inputs[8],) if op.has(8) else ()))
    rank = conv_rank(op, 3)
    layer = layers.QLinearConv(groups=op.attribute("group", 1), **conv_window(op, rank))
    if not last:
        return layer, read
    first, y = op.fresh(".x"), op.fresh(".y")
    axes = range(1, rank + 1)
    return [
        Node(layers.Transpose((0, rank + 1, *axes)), read[:1], first, f"{op.label}.first"),
        Node(layer, (first, *read[1:]), y, op.label),
        Node(layers.Transpose((0, *(axis + 1 for axis in axes), 1)), (y,), op.outputs[0], f"{op.label}.last"),
    ]


def _conv_integer(op: Operator) -> Converted:
    op.only("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
    rank = conv_rank(op, 1)
    return layers.ConvInteger(groups=op.attribute("group", 1), **conv_window(op, rank)), op.operands(2, 3)


def conv_rank(op: Operator, index: int) -> int:
    """Return the number of spatial axes, of weights that are the input `index` and may be computed."""
    weight = op.shape(index)
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
    return rank


def _expect_kernel(op: Operator, weight: tuple[int, ...]) -> None:
    given = op.integers("kernel_shape", weight[2:])
    if given != weight[2:]:
        raise ValueError(f"kernel_shape {given} but a weight {shape_text(weight)}")


def conv_window(op: Operator, rank: int) -> dict[str, Any]:
    """Return stride, padding and dilation of a window, with one stride and dilation for each of its axes."""
    window = op.window(rank)
    for name, values in (("strides", window["stride"]), ("dilations", window["dilation"])):
        if len(values) != rank:
            raise ValueError(f"{name} must hold {rank} numbers, one per spatial axis, not {list(values)}")
    return window


def _qlinear_matmul(op: Operator) -> Converted:
    op.only()
    if not op.has(3):
        raise ValueError("input 3, the second matrix, is missing")
    if op.computed(1, 2, 4, 5, 6, 7) or (op.has(4) and op.constants[op.inputs[4]].ndim > 2):
        return layers.QLinearMatMul(), op.required(8)
    x, y = op.params(1, 2), op.params(6, 7)
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
    alpha = np.float32(op.attribute("alpha", 1.0))
    if not alpha > 0:
        raise op.refuse(f"alpha {alpha}; supported are numbers above 0")
    if op.computed(1, 2, 4, 5, 7, 8):
        return _qgemm_of_tensors(op, float(alpha))
    x = op.params(1, 2)
    if alpha != 1:
        # ONNX Runtime scales by f32(alpha * a_scale) first, which is as if the input had that scale.
        x = QuantParams(float(alpha * x.scales), x.zero_point, x.dtype)
    w = op.params(4, 5, axis=1)
    if op.has(7) != op.has(8):
        raise op.refuse("y's scale and zero point must both be given (codes) or both be left out (float32)")
    y = op.params(7, 8) if op.has(7) else None
    for index, what in ((0, "first matrix"), (3, "weight")):
        if not op.has(index):
            raise ValueError(f"input {index}, the {what}, is missing")
    weight = op.constants.get(op.inputs[3])
    bias = op.value(6)
    if weight is not None and weight.ndim != 2:
        raise ValueError(f"the weight must have 2 axes, not the shape {shape_text(weight.shape)}")
    transposed = bool(op.attribute("transB", 0))
    if weight is not None and not op.attribute("transA", 0) and (not op.has(6) or _per_column(bias)):
        weight = weight.T if transposed else weight
        if bias is not None:
            bias = np.broadcast_to(bias.reshape(-1), weight.shape[1])
        return layers.Dense(weight, x=x, w=w, y=y, bias=bias), op.inputs[:1]
    _expect_matrices(op)
    layer = layers.MatMul(x, w, y, transpose_x=bool(op.attribute("transA", 0)), transpose_w=transposed)
    return layer, (op.inputs[0], op.inputs[3], *((op.inputs[6],) if op.has(6) else ()))


def _qgemm_of_tensors(op: Operator, alpha: float) -> Converted:
    """Return the product by parameters computed at run time."""
    read = op.required(6)
    if op.has(7) != op.has(8):
        raise op.refuse("y's scale and zero point must both be given (codes) or both be left out (float32)")
    _expect_matrices(op)
    layer = layers.QLinearMatMul(
        transpose_x=bool(op.attribute("transA", 0)),
        transpose_w=bool(op.attribute("transB", 0)),
        alpha=alpha,
    )
    return layer, (*read, *(op.inputs[i] for i in (7, 8, 6) if op.has(i)))


def _expect_matrices(op: Operator) -> None:
    for index in (0, 3):
        sizes = op.shape(index)
        if sizes is None or len(sizes) != 2:
            raise op.refuse(f"input {op.inputs[index]!r} must be known to be a matrix")


def _per_column(bias: np.ndarray | None) -> bool:
    """Whether a bias is constant and the same in each row."""
    return bias is not None and (bias.ndim < 2 or (bias.ndim == 2 and bias.shape[0] == 1))


def _matmul_integer(op: Operator) -> Converted:
    op.only()
    return layers.MatMulInteger(), op.operands(2, 3)


def _matmul_integer_to_float(op: Operator) -> Converted:
    op.only()
    read = (*op.required(4), op.zero_point(4, 0), op.zero_point(5, 1))
    return layers.MatMulIntegerToFloat(), (*read, *((op.inputs[6],) if op.has(6) else ()))


def _dynamic_quantize_matmul(op: Operator) -> Converted:
    op.only()
    x, w, w_scale = op.required(3)
    codes, scale, zero_point = (op.fresh(f".{name}") for name in ("codes", "scale", "zero_point"))
    read = (codes, w, scale, w_scale, zero_point, op.zero_point(3, 1))
    return [
        Node(layers.DynamicQuantize(), (x,), (codes, scale, zero_point), f"{op.label}.quantize"),
        Node(
            layers.MatMulIntegerToFloat(),
            (*read, *((op.inputs[4],) if op.has(4) else ())),
            op.outputs[0],
            op.label,
        ),
    ]


ARRAY: dict[tuple[str, str], Converter] = {
    ("", "ConvInteger"): _conv_integer,
    ("", "MatMulInteger"): _matmul_integer,
    ("", "QLinearConv"): _qlinear_conv,
    ("", "QLinearMatMul"): _qlinear_matmul,
    ("com.microsoft", "DynamicQuantizeMatMul"): _dynamic_quantize_matmul,
    ("com.microsoft", "MatMulIntegerToFloat"): _matmul_integer_to_float,
    ("com.microsoft", "QGemm"): _qgemm,
    ("com.microsoft", "QLinearConv"): _qlinear_conv,
}
"""Converters by (domain, operator)."""
