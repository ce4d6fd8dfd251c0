"""Layers for the tests that every kind must pass: test_model.py saves, loads and copies each of them.

A new kind of layer is added here, with fields unlike their defaults, unless the model of zoo.py has it.
"""

from __future__ import annotations

import numpy as np

from systolic import layers
from systolic.layers import Layer
from systolic.quant import QuantParams

P, Q = QuantParams(0.5, 3), QuantParams(0.25, -7)

EXAMPLES: list[Layer] = [
    layers.FloatMatMul(np.float32([[1.5, -2], [0, 3]]), np.float32([1, 2]), activation="Relu"),
    layers.FloatConv(
        np.ones((4, 1, 2, 3), np.float32),
        np.ones(4, np.float32),
        activation="Clip",
        activation_params=(-1.0, 6.0),
        stride=(2, 1),
        padding="same",
        dilation=(1, 2),
        groups=2,
    ),
    layers.ArrayMatMul("bfloat16", transpose_a=True, transpose_b=True, alpha=0.5, beta=2.0),
    layers.ArrayConv("float8_e5m2", stride=(1, 2), padding=((1, 0), (0, 2)), dilation=2, groups=3),
    layers.DequantizedMatMul(w_bits=4, transpose_a=True, transpose_b=True, alpha=0.5, beta=2.0),
    layers.DequantizedConv(w_bits=4, stride=(1, 2), padding=((1, 0), (0, 2)), dilation=2, groups=3),
    layers.FloatConv(stride=(1, 2), padding=((1, 0), (0, 2)), dilation=2, groups=3),
    layers.FloatConvTranspose(
        stride=3, padding="same", dilation=(1, 2), groups=2, output_padding=(2, 1), output_size=(5, 6)
    ),
    layers.QLinearMul(P, Q, P),
    layers.QLinearConcat((P, Q), P, axis=-1),
    layers.QLinearWhere(P, Q, P),
    layers.QLinearSigmoid(P, Q),
    layers.QLinearLeakyRelu(P, Q, alpha=0.3),
    layers.QLinearSoftmax(P, Q, axis=1, flatten=True),
    layers.QLinearAveragePool(
        (2, 3, 4),
        P,
        Q,
        stride=(1, 2, 3),
        padding=((1, 0), (0, 2), (3, 0)),
        count_include_pad=True,
        ceil_mode=True,
        channels_last=True,
    ),
    layers.QLinearGlobalAveragePool(P, Q, channels_last=True),
    layers.QuantizeLinear(dtype="uint16", axis=-2, block_size=3),
    layers.DequantizeLinear(axis=0, block_size=4, dtype="float16"),
    layers.Op("BiasGelu"),
    layers.QAttention(2, unidirectional=True, scale=0.5),
    layers.DynamicQuantizeLSTM(2, direction="reverse", clip=2.0, given=("b",)),
    layers.Unary("Tanh"),
    layers.Binary("Pow"),
    layers.Clip(-1, 2.5),
    layers.Where(),
    layers.Cast("float16"),
    layers.Reduce("ReduceSum", (0, -1), keepdims=False),
    layers.ArgMax(2, keepdims=False, last=True),
    layers.Softmax(1, flatten=True),
    layers.LayerNormalization(1, 0.5),
    layers.BatchNormalization(0.5),
    layers.MatMulNBits(20, 5, bits=4, block_size=16, bias=True, runtime_constants=(1, 2)),
    layers.FloatMatMul(transpose_a=True, transpose_b=True, alpha=0.5, beta=2.0, runtime_constants=(1, 2)),
    layers.MaxPool((2, 3, 4), stride=(2, 1, 1), padding="same", dilation=(1, 2, 1), ceil_mode=True),
    layers.AveragePool(
        (2,), stride=(3,), padding=((1, 0),), dilation=(2,), ceil_mode=True, count_include_pad=True
    ),
    layers.GlobalAveragePool(),
    layers.Transpose((1, 0)),
    layers.Squeeze((0,)),
    layers.Unsqueeze((0, -1)),
    layers.Concat(-1),
    layers.Split((2, 1), 1),
    layers.Slice(),
    layers.Gather(-1),
    layers.Expand(),
    layers.Reshape(allowzero=True),
    layers.ShapeOf(1, -1),
    layers.Fill(np.int8([7])),
    layers.Pad("edge"),
    layers.Resize("sizes", coordinates="asymmetric", rounding="ceil", axes=(1,), policy="not_larger"),
    layers.OnnxNode(
        "CumSum", np.arange(9, dtype=np.uint8), ("x", "axis"), ("float32", "int64"), ("float32",), (("", 21),)
    ),
    layers.QLinearConv(
        np.int8([[[1, -2, 3]], [[4, 5, -6]]]),
        x=P,
        w=Q,
        y=P,
        bias=np.int32([7, -8]),
        stride=2,
        padding=((1, 0),),
        dilation=3,
        groups=2,
        channels_last=True,
        rounding="tflite",
    ),
    layers.QLinearConv(
        np.arange(16, dtype=np.int8).reshape(2, 1, 2, 2, 2),
        x=P,
        w=Q,
        y=None,
        bias=np.int32([7, -8]),
        stride=(1, 2, 3),
        padding="same_lower",
        dilation=(2, 1, 1),
        groups=2,
        channels_last=True,
    ),
    layers.ConvInteger(stride=(1, 2), padding=((1, 0), (0, 2)), dilation=2, groups=3),
    layers.DynamicQuantize(),
    layers.QLinearMatMul(x=P, w=Q, y=QuantParams(0.25), rounding="shift", transpose_x=True, transpose_w=True),
    layers.MatMulInteger(),
    layers.MatMulIntegerToFloat(),
    layers.QLinearConv(stride=(1, 2), padding=((1, 0), (0, 2)), dilation=2, groups=3, channels_last=True),
    layers.QLinearMatMul(transpose_x=True, transpose_w=True, alpha=0.5),
    layers.Dense(np.int8([[1, 2]]), x=P, w=Q, y=P, rounding="tflite_single"),
    layers.Conv2d(np.int8([[[[1, 2]]]]), x=P, w=Q, y=P, rounding="gemmini"),
]
