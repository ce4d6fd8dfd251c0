"""Operators computed beside the array: element-wise, pooling, shapes, quantization."""

from systolic.layers.host.activation import Relu
from systolic.layers.host.add import Add
from systolic.layers.host.dynamic import DynamicQuantize
from systolic.layers.host.pool import AveragePool2d, GlobalAveragePool2d, MaxPool2d
from systolic.layers.host.quantize import Dequantize, Quantize
from systolic.layers.host.shape import Flatten, Identity, Reshape

__all__ = [
    "Add",
    "AveragePool2d",
    "Dequantize",
    "DynamicQuantize",
    "Flatten",
    "GlobalAveragePool2d",
    "Identity",
    "MaxPool2d",
    "Quantize",
    "Relu",
    "Reshape",
]
