"""Exact results in plain numpy: the second derivation of everything the package computes.

Arrays and scalars in, arrays out; nothing of the package is used here, so that an agreement
means something. The ways are chosen to differ from those of the layers and of the array:

- products are blocked floating-point ones, each block short enough to be exact, rather than
  integer loops;
- a convolution is a sum over kernel offsets of products over channels: no im2col;
- zero points are subtracted from the codes first, rather than corrected for in the sums;
- a fused multiply-add is rounded once by looking at the exact error of the double sum;
- operators that move elements look each of them up by its place; functions that no standard rounds (exp,
  float sums) are computed in double precision or wider, and compared within a tolerance.

In the formulas ``f32`` rounds to IEEE binary32, ``rne`` to the nearest integer with ties to even,
``sat`` clamps to the output type; ``s`` is a scale (float32), ``z`` a zero point, q a stored
code whose real value is ``(q - z) * s``. Integer sums wrap modulo 2^32 everywhere.

Operator semantics: the ONNX operator specifications. Order and precision of the roundings, which
ONNX leaves open: ONNX Runtime's CPU provider (``onnxruntime/core/mlas/lib`` and
``onnxruntime/contrib_ops/cpu/quantization``), as released in 1.32.
"""

from systolic.reference.oracle._elementwise import qlinear_add, qlinear_sigmoid, relu
from systolic.reference.oracle._pieces import concat, expand, gather, look_up, nearest, pad, transpose
from systolic.reference.oracle._pools import max_pool, qlinear_average_pool, qlinear_global_average_pool
from systolic.reference.oracle._products import conv2d, conv_integer, matmul, matmul_integer, wrap_int32
from systolic.reference.oracle._reals import (
    arg_max,
    average_windows,
    batch_normalization,
    binary,
    conv,
    conv_transpose,
    function,
    layer_normalization,
    matmul_real,
    max_windows,
    reduce,
    softmax,
)
from systolic.reference.oracle._scaled import (
    dequantize_linear,
    qlinear_conv,
    qlinear_matmul,
    quantize_linear,
    requantize,
)
from systolic.reference.oracle._windows import auto_pads

__all__ = [
    "arg_max",
    "auto_pads",
    "average_windows",
    "batch_normalization",
    "binary",
    "concat",
    "conv",
    "conv2d",
    "conv_integer",
    "conv_transpose",
    "dequantize_linear",
    "expand",
    "function",
    "gather",
    "layer_normalization",
    "look_up",
    "matmul",
    "matmul_integer",
    "matmul_real",
    "max_pool",
    "max_windows",
    "nearest",
    "pad",
    "qlinear_add",
    "qlinear_average_pool",
    "qlinear_conv",
    "qlinear_global_average_pool",
    "qlinear_matmul",
    "qlinear_sigmoid",
    "quantize_linear",
    "reduce",
    "relu",
    "requantize",
    "softmax",
    "transpose",
    "wrap_int32",
]
