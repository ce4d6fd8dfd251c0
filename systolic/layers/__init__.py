"""Quantized layers: each lowers to a product with an epilogue, or runs on the host."""

from typing import TYPE_CHECKING

from systolic._renamed import find as _find
from systolic.layers.attention import QAttention
from systolic.layers.base import ArrayLayer, HostLayer, Layer
from systolic.layers.conv import ConvInteger
from systolic.layers.dequantized import DequantizedConv, DequantizedMatMul
from systolic.layers.float_products import ArrayConv, ArrayMatMul
from systolic.layers.host.arithmetic import Binary, Cast, Clip, Relu, Unary, Where
from systolic.layers.host.convolve import FloatConv, FloatConvTranspose
from systolic.layers.host.evaluator import OnnxNode
from systolic.layers.host.matmul import FloatMatMul, MatMulNBits
from systolic.layers.host.normalize import ArgMax, BatchNormalization, LayerNormalization, Reduce, Softmax
from systolic.layers.host.op import Op
from systolic.layers.host.pieces import Concat, Expand, Gather, Slice, Split
from systolic.layers.host.pool import (
    AveragePool,
    GlobalAveragePool,
    MaxPool,
    QLinearAveragePool,
    QLinearGlobalAveragePool,
)
from systolic.layers.host.qlinear import QLinearAdd, QLinearConcat, QLinearMul, QLinearWhere
from systolic.layers.host.qlinear_table import QLinearLeakyRelu, QLinearSigmoid, QLinearSoftmax
from systolic.layers.host.quantize import DequantizeLinear, DynamicQuantize, QuantizeLinear
from systolic.layers.host.resample import Pad, Resize
from systolic.layers.host.shaping import (
    Fill,
    Flatten,
    Identity,
    Reshape,
    ShapeOf,
    Squeeze,
    Transpose,
    Unsqueeze,
)
from systolic.layers.matmul import MatMulInteger, MatMulIntegerToFloat
from systolic.layers.qlinear_conv import Conv2d, DepthwiseConv2d, QLinearConv
from systolic.layers.qlinear_matmul import Dense, QLinearMatMul
from systolic.layers.recurrent import DynamicQuantizeLSTM

__all__ = [
    "ArgMax", "ArrayConv", "ArrayLayer", "ArrayMatMul", "AveragePool", "BatchNormalization", "Binary", "Cast",
    "Clip", "Concat", "Conv2d", "ConvInteger", "Dense", "DepthwiseConv2d", "DequantizeLinear",
    "DequantizedConv", "DequantizedMatMul", "DynamicQuantize", "DynamicQuantizeLSTM", "Expand", "Fill",
    "Flatten", "FloatConv", "FloatConvTranspose", "FloatMatMul", "Gather", "GlobalAveragePool", "HostLayer",
    "Identity", "Layer", "LayerNormalization", "MatMulInteger", "MatMulIntegerToFloat", "MatMulNBits",
    "MaxPool", "OnnxNode", "Op", "Pad", "QAttention", "QLinearAdd", "QLinearAveragePool", "QLinearConcat",
    "QLinearConv", "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearMatMul", "QLinearMul",
    "QLinearSigmoid", "QLinearSoftmax", "QLinearWhere", "QuantizeLinear", "Reduce", "Relu", "Reshape",
    "Resize", "ShapeOf", "Slice", "Softmax", "Split", "Squeeze", "Transpose", "Unary", "Unsqueeze", "Where",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__


if not TYPE_CHECKING:  # to type checkers an old or misspelled name is an error

    def __getattr__(name: str) -> object:
        return _find(__name__, name)
