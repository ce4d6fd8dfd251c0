"""Host operators: element-wise, pooling, shapes, quantization."""

from systolic.layers.host.arithmetic import Binary, Cast, Clip, Relu, Unary, Where
from systolic.layers.host.convolve import FloatConv, FloatConvTranspose
from systolic.layers.host.dynamic import DynamicQuantize
from systolic.layers.host.evaluator import OnnxNode
from systolic.layers.host.matmul import FloatMatMul, MatMulNBits
from systolic.layers.host.normalize import ArgMax, BatchNormalization, LayerNormalization, Reduce, Softmax
from systolic.layers.host.op import Op
from systolic.layers.host.pieces import Concat, Expand, Gather, Slice, Split
from systolic.layers.host.pool import AveragePool, GlobalAveragePool, MaxPool
from systolic.layers.host.qlinear import QLinearAdd, QLinearConcat, QLinearMul, QLinearWhere
from systolic.layers.host.qlinear_pool import QLinearAveragePool, QLinearGlobalAveragePool
from systolic.layers.host.qlinear_softmax import QLinearSoftmax
from systolic.layers.host.qlinear_table import QLinearLeakyRelu, QLinearSigmoid
from systolic.layers.host.quantize import DequantizeLinear, QuantizeLinear
from systolic.layers.host.resample import Pad, Resize
from systolic.layers.host.reshape import Flatten, Identity, Reshape
from systolic.layers.host.shaping import Fill, ShapeOf, Squeeze, Transpose, Unsqueeze

__all__ = [
    "ArgMax",
    "AveragePool",
    "BatchNormalization",
    "Binary",
    "Cast",
    "Clip",
    "Concat",
    "DequantizeLinear",
    "DynamicQuantize",
    "Expand",
    "Fill",
    "Flatten",
    "FloatConv",
    "FloatConvTranspose",
    "FloatMatMul",
    "Gather",
    "GlobalAveragePool",
    "Identity",
    "LayerNormalization",
    "MatMulNBits",
    "MaxPool",
    "OnnxNode",
    "Op",
    "Pad",
    "QLinearAdd",
    "QLinearAveragePool",
    "QLinearConcat",
    "QLinearGlobalAveragePool",
    "QLinearLeakyRelu",
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
