"""Quantized layers: each lowers to products and finishes their sums, or runs beside the array."""

from systolic.layers.base import ArrayLayer as ArrayLayer
from systolic.layers.base import HostLayer as HostLayer
from systolic.layers.base import Layer as Layer
from systolic.layers.conv import Conv2d as Conv2d
from systolic.layers.conv import DepthwiseConv2d as DepthwiseConv2d
from systolic.layers.conv import lower_conv2d as lower_conv2d
from systolic.layers.conv_integer import ConvInteger as ConvInteger
from systolic.layers.conv_ranks import Conv1d as Conv1d
from systolic.layers.conv_ranks import Conv3d as Conv3d
from systolic.layers.dense import Dense as Dense
from systolic.layers.host import Add as Add
from systolic.layers.host import AveragePool2d as AveragePool2d
from systolic.layers.host import Dequantize as Dequantize
from systolic.layers.host import DynamicQuantize as DynamicQuantize
from systolic.layers.host import Flatten as Flatten
from systolic.layers.host import GlobalAveragePool2d as GlobalAveragePool2d
from systolic.layers.host import Identity as Identity
from systolic.layers.host import MaxPool2d as MaxPool2d
from systolic.layers.host import Quantize as Quantize
from systolic.layers.host import Relu as Relu
from systolic.layers.host import Reshape as Reshape
from systolic.layers.matmul import MatMul as MatMul
from systolic.layers.matmul import MatMulInteger as MatMulInteger
from systolic.layers.matmul import MatMulIntegerToFloat as MatMulIntegerToFloat
