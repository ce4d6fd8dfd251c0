"""Quantized layers: each lowers to a product with an epilogue, or runs on the host."""

from typing import TYPE_CHECKING

from systolic._renamed import find as _find
from systolic.layers.attention import QAttention
from systolic.layers.base import ArrayLayer, HostLayer, Layer
from systolic.layers.conv import Conv1d, Conv2d, Conv3d, DepthwiseConv2d
from systolic.layers.conv_integer import ConvInteger
from systolic.layers.host import (
    ArgMax,
    AveragePool,
    BatchNormalization,
    Binary,
    Cast,
    Clip,
    Concat,
    DequantizeLinear,
    DynamicQuantize,
    Expand,
    Fill,
    Flatten,
    FloatConv,
    FloatConv2d,
    FloatConvTranspose,
    FloatDense,
    FloatMatMul,
    Gather,
    GlobalAveragePool,
    Identity,
    LayerNormalization,
    MaxPool,
    OnnxNode,
    Op,
    Pad,
    QLinearAdd,
    QLinearAveragePool,
    QLinearConcat,
    QLinearGlobalAveragePool,
    QLinearLeakyRelu,
    QLinearMul,
    QLinearSigmoid,
    QLinearSoftmax,
    QLinearWhere,
    QuantizeLinear,
    Reduce,
    Relu,
    Reshape,
    Resize,
    ShapeOf,
    Slice,
    Softmax,
    Split,
    Squeeze,
    Transpose,
    Unary,
    Unsqueeze,
    Where,
)
from systolic.layers.matmul import Dense, MatMulInteger, MatMulIntegerToFloat, QLinearMatMul
from systolic.layers.qlinear import QLinearConv
from systolic.layers.recurrent import DynamicQuantizeLSTM

__all__ = [
    "ArgMax",
    "ArrayLayer",
    "AveragePool",
    "BatchNormalization",
    "Binary",
    "Cast",
    "Clip",
    "Concat",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvInteger",
    "Dense",
    "DepthwiseConv2d",
    "DequantizeLinear",
    "DynamicQuantize",
    "DynamicQuantizeLSTM",
    "Expand",
    "Fill",
    "Flatten",
    "FloatConv",
    "FloatConv2d",
    "FloatConvTranspose",
    "FloatDense",
    "FloatMatMul",
    "Gather",
    "GlobalAveragePool",
    "HostLayer",
    "Identity",
    "Layer",
    "LayerNormalization",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "MaxPool",
    "OnnxNode",
    "Op",
    "Pad",
    "QAttention",
    "QLinearAdd",
    "QLinearAveragePool",
    "QLinearConcat",
    "QLinearConv",
    "QLinearGlobalAveragePool",
    "QLinearLeakyRelu",
    "QLinearMatMul",
    "QLinearMul",
    "QLinearSigmoid",
    "QLinearSoftmax",
    "QLinearWhere",
    "QuantizeLinear",
    "Reduce",
    "Relu",
    "Reshape",
    "Resize",
    "ShapeOf",
    "Slice",
    "Softmax",
    "Split",
    "Squeeze",
    "Transpose",
    "Unary",
    "Unsqueeze",
    "Where",
]


def __dir__() -> list[str]:
    return __all__


if not TYPE_CHECKING:  # to type checkers an old or misspelled name is an error

    def __getattr__(name: str) -> object:
        return _find(__name__, name)
