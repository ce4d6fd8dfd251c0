"""Operators on numbers of any kind: arithmetic, activations, pools, constants."""

from __future__ import annotations

from systolic import layers
from systolic.frontend.operators._operator import Converted, Converter, Operator


def _max_pool(op: Operator) -> Converted:
    op.only("auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "storage_order", "strides")
    if len(op.outputs) > 1 and op.outputs[1]:
        raise op.refuse("the output of indices is not supported")
    layer = layers.MaxPool2d(op.kernel(), ceil_mode=bool(op.attribute("ceil_mode", 0)), **op.window())
    return layer, op.inputs[:1]


def _relu(op: Operator) -> Converted:
    return layers.Relu(), op.inputs[:1]


def _add(op: Operator) -> Converted:
    return layers.Add(), op.inputs[:2]


def _constant(op: Operator) -> Converted:
    from onnx import numpy_helper

    if "value" not in op.attributes:
        raise op.refuse("a Constant must hold a tensor (attribute value)")
    return numpy_helper.to_array(op.attributes["value"])


FLOATING: dict[tuple[str, str], Converter] = {
    ("", "Add"): _add,
    ("", "Constant"): _constant,
    ("", "MaxPool"): _max_pool,
    ("", "Relu"): _relu,
}
"""Converters by (domain, operator)."""
