"""Converters of convolutions on the array."""

from __future__ import annotations

from typing import Any

from systolic import layers
from systolic._check import shape as shape_text
from systolic.frontend.operators._operator import Converted, Converter, Operator
from systolic.model import Node


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


ARRAY: dict[tuple[str, str], Converter] = {
    ("", "ConvInteger"): _conv_integer,
    ("", "QLinearConv"): _qlinear_conv,
    ("com.microsoft", "QLinearConv"): _qlinear_conv,
}
"""Converters by (domain, operator)."""
