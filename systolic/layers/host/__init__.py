"""Operators computed beside the array: element-wise, pooling, shapes, quantization."""

from systolic.layers.host.activation import Relu
from systolic.layers.host.add import Add
from systolic.layers.host.dynamic import DynamicQuantize
from systolic.layers.host.pool import AveragePool2d, GlobalAveragePool2d, MaxPool2d
from systolic.layers.host.qlinear import QLinearConcat, QLinearMul, QLinearWhere
from systolic.layers.host.qlinear_pool import QLinearAveragePool, QLinearGlobalAveragePool
from systolic.layers.host.qlinear_softmax import QLinearSoftmax
from systolic.layers.host.qlinear_table import QLinearLeakyRelu, QLinearSigmoid
from systolic.layers.host.quantize import Dequantize, DequantizeLinear, Quantize, QuantizeLinear
from systolic.layers.host.shape import Flatten, Identity, Reshape

__all__ = [
    "Add",
    "AveragePool2d",
    "Dequantize",
    "DequantizeLinear",
    "DynamicQuantize",
    "Flatten",
    "GlobalAveragePool2d",
    "Identity",
    "MaxPool2d",
    "QLinearAveragePool",
    "QLinearConcat",
    "QLinearGlobalAveragePool",
    "QLinearLeakyRelu",
    "QLinearMul",
    "QLinearSigmoid",
    "QLinearSoftmax",
    "QLinearWhere",
    "Quantize",
    "QuantizeLinear",
    "Relu",
    "Reshape",
]
