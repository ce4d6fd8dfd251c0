"""Operators whose products run on the array."""

from __future__ import annotations

import numpy as np

from systolic import layers
from systolic._check import shape as shape_text
from systolic.frontend.operators._operator import Converted, Converter, Operator
from systolic.quant import QuantParams


def _qlinear_conv(op: Operator) -> Converted:
    op.only("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
    weight = op.constant(3, "weight")
    given = op.kernel(weight.shape[2:])
    if given != weight.shape[2:]:
        raise ValueError(f"kernel_shape {given} but a weight {shape_text(weight.shape)}")
    groups = op.attribute("group", 1)
    options = {
        "x": op.params(1, 2),
        "w": op.params(4, 5, axis=0),
        "y": op.params(6, 7),
        "bias": op.constant(8, "bias") if op.has(8) else None,
        **op.window(),
    }
    if groups > 1 and weight.shape[1] == 1 and weight.shape[0] % groups == 0:
        return layers.DepthwiseConv2d(weight, multiplier=weight.shape[0] // groups, **options), op.inputs[:1]
    return layers.Conv2d(weight, groups=groups, **options), op.inputs[:1]


def _qlinear_matmul(op: Operator) -> Converted:
    op.only()
    weight = op.constant(3, "second matrix")
    if weight.ndim != 2:
        raise op.refuse(f"a second operand of shape {shape_text(weight.shape)}; supported is a matrix (K, N)")
    w = op.params(4, 5, axis=1)
    return layers.Dense(weight, x=op.params(1, 2), w=w, y=op.params(6, 7)), op.inputs[:1]


def _qgemm(op: Operator) -> Converted:
    op.only("alpha", "transA", "transB")
    if op.attribute("transA", 0):
        raise op.refuse("transA is not supported")
    weight = op.constant(3, "weight")
    if weight.ndim != 2:
        raise ValueError(f"the weight must have 2 axes, not the shape {shape_text(weight.shape)}")
    if op.attribute("transB", 0):
        weight = weight.T
    x = op.params(1, 2)
    # ONNX Runtime scales by f32(alpha * a_scale) first, which is as if the input had that scale.
    alpha = np.float32(op.attribute("alpha", 1.0))
    if alpha != 1:
        x = QuantParams(float(alpha * x.scales), x.zero_point, x.dtype)
    bias = None
    if op.has(6):
        bias = op.constant(6, "bias")
        if bias.ndim > 2 or (bias.ndim == 2 and bias.shape[0] != 1):
            raise op.refuse(f"a bias of shape {shape_text(bias.shape)}; supported is one value per column")
        bias = np.broadcast_to(bias.reshape(-1), weight.shape[1])
    if op.has(7) != op.has(8):
        raise op.refuse("y's scale and zero point must both be given (codes) or both be left out (float32)")
    y = op.params(7, 8) if op.has(7) else None
    return layers.Dense(weight, x=x, w=op.params(4, 5, axis=1), y=y, bias=bias), op.inputs[:1]


ARRAY: dict[tuple[str, str], Converter] = {
    ("", "QLinearConv"): _qlinear_conv,
    ("", "QLinearMatMul"): _qlinear_matmul,
    ("com.microsoft", "QGemm"): _qgemm,
}
"""Converters by (domain, operator)."""
