"""One oracle per operator in plain numpy: the second derivation of everything the package computes.

``ORACLES`` maps the name of a layer's class to a function of the layer, of which only fields are read, and
of the arrays that it reads. Nothing of the package is used here, so that an agreement means something. The
ways are chosen to differ from those of the layers and of the array: each file says how. Functions that no
standard rounds (exp, float sums) are computed in double precision or wider, and compared within a tolerance.

In the formulas ``f32`` rounds to IEEE binary32, ``rne`` to the nearest integer with ties to even,
``sat`` clamps to the output type; ``s`` is a scale (float32), ``z`` a zero point, q a stored
code whose real value is ``(q - z) * s``. Integer sums wrap modulo 2^32 everywhere.

Operator semantics: the ONNX operator specifications. Order and precision of the roundings, which
ONNX leaves open: ONNX Runtime's CPU provider (``onnxruntime/core/mlas/lib`` and
``onnxruntime/contrib_ops/cpu/quantization``), as released in 1.32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import numpy as np

from systolic.reference.numbers import tile_length
from systolic.reference.oracle import (
    contrib,
    convolutions,
    dequantized,
    elementwise,
    normalizations,
    pools,
    products,
    quantized,
    recurrent,
    rounded,
    shapes,
)
from systolic.reference.oracle.products import matmul as matmul

ORACLES: dict[str, Callable[..., Any]] = {
    "ArgMax": normalizations.arg_max,
    "ArrayConv": rounded.array_conv,
    "ArrayMatMul": rounded.array_matmul,
    "AveragePool": pools.average_pool,
    "BatchNormalization": normalizations.batch_normalization,
    "Binary": elementwise.binary,
    "Cast": elementwise.cast,
    "Clip": elementwise.clip,
    "Concat": shapes.concat,
    "ConvInteger": convolutions.conv_integer,
    "DequantizeLinear": quantized.dequantize_linear,
    "DequantizedConv": dequantized.dequantized_conv,
    "DequantizedMatMul": dequantized.dequantized_matmul,
    "DynamicQuantize": quantized.dynamic_quantize,
    "DynamicQuantizeLSTM": recurrent.dynamic_quantize_lstm,
    "Expand": shapes.expand,
    "Fill": shapes.fill,
    "Flatten": shapes.flatten,
    "FloatConv": convolutions.float_conv,
    "FloatConvTranspose": convolutions.conv_transpose,
    "FloatMatMul": products.float_matmul,
    "Gather": shapes.gather,
    "GlobalAveragePool": pools.global_average_pool,
    "Identity": shapes.identity,
    "LayerNormalization": normalizations.layer_normalization,
    "MatMulInteger": products.matmul_integer,
    "MatMulIntegerToFloat": products.matmul_integer_to_float,
    "MatMulNBits": products.matmul_nbits,
    "MaxPool": pools.max_pool,
    "Op": contrib.op,
    "Pad": shapes.pad,
    "QAttention": contrib.q_attention,
    "QLinearAdd": quantized.add,
    "QLinearAveragePool": pools.qlinear_average_pool,
    "QLinearConcat": quantized.qlinear_concat,
    "QLinearConv": convolutions.qlinear_conv,
    "QLinearGlobalAveragePool": pools.qlinear_global_average_pool,
    "QLinearLeakyRelu": quantized.leaky_relu,
    "QLinearMatMul": products.qlinear_matmul,
    "QLinearMul": quantized.mul,
    "QLinearSigmoid": quantized.sigmoid,
    "QLinearSoftmax": quantized.softmax,
    "QLinearWhere": quantized.qlinear_where,
    "QuantizeLinear": quantized.quantize_linear,
    "Reduce": normalizations.reduce,
    "Relu": elementwise.relu,
    "Reshape": shapes.reshape,
    "Resize": shapes.resize,
    "ShapeOf": shapes.shape_of,
    "Slice": shapes.slices,
    "Softmax": normalizations.softmax,
    "Split": shapes.split,
    "Squeeze": shapes.squeeze,
    "Transpose": shapes.transpose,
    "Unary": elementwise.unary,
    "Unsqueeze": shapes.unsqueeze,
    "Where": elementwise.where,
}
"""Oracles by the name of the layer's class: each takes the layer and the arrays that it reads."""

ROUNDED: frozenset[str] = frozenset(
    {
        "AveragePool", "FloatConv", "FloatConvTranspose", "FloatMatMul", "MatMulNBits",
        "GlobalAveragePool", "LayerNormalization", "Softmax",
        "ReduceMean", "ReduceProd", "ReduceSum", "Pow", *elementwise.REAL_FUNCTIONS,
        "Attention", "BiasGelu", "EmbedLayerNormalization", "QAttention", "SkipLayerNormalization",
    }
)  # fmt: skip
"""Operators whose float results no standard fixes in every bit."""

IN_ORDER = frozenset({"ArrayConv", "ArrayMatMul"})
"""Operators whose float sums depend on the array's order of additions: their oracles take its `tile`."""

OF_ANY_WIDTH = frozenset({"DequantizedConv", "DequantizedMatMul"})
"""Operators whose sums may have more than 32 bits: their oracles take whether the array's are `wide`."""

_TOLERANCES = {"float16": 2.0**-9, "float32": 1e-5, "float64": 1e-9}


def has_oracle(layer: Any) -> bool:
    """Whether there is a second derivation of a layer's output."""
    return type(layer).__name__ in ORACLES


def expected_output(layer: Any, inputs: Sequence[np.ndarray], array: Any = None) -> Any:
    """Return the output of a layer on these inputs, a tuple if it has several: see ``tolerance_of``.

    `array` has the fields dataflow, rows and psum_bits, on which some outputs depend. None is an array with
    rows for all of k, and sums of 32 bits.
    """
    name = type(layer).__name__
    given: dict[str, Any] = {}
    if name in IN_ORDER and array is not None:
        given["tile"] = tile_length(array)
    if name in OF_ANY_WIDTH and array is not None:
        given["wide"] = array.psum_bits == 64
    with np.errstate(all="ignore"):  # infinity and NaN are results like any other
        return ORACLES[name](layer, *inputs, **given)


def tolerance_of(layer: Any, dtype: np.dtype) -> float:
    """Return by how much a layer's output may differ from the oracle's, as part of its largest value.

    0, every bit, for integers and for floats that IEEE 754 or a runtime's published kernel fixes; for other
    floats the possible difference of two orders of summation, or of two approximations such as of exp.
    """
    operator = getattr(layer, "operation", type(layer).__name__)
    return _TOLERANCES.get(dtype.name, 0.0) if operator in ROUNDED else 0.0


def summation_bound(layer: Any, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """Return by how much another order of summation may change a product of float32 tensors.

    However k products and what is added to them are summed, each of at most k + 4 roundings is 2^-24 of a
    partial sum, which the sum of magnitudes bounds; where terms cancel this is far more than the result.
    """
    bare = SimpleNamespace(**{f.name: getattr(layer, f.name) for f in fields(layer)})
    kind = type(layer).__name__
    if kind == "MatMulNBits":
        weights = products.nbits_weights(layer, *inputs[1:])
        inputs, kind = [inputs[0], weights, *(inputs[-1:] if layer.bias else ())], "FloatMatMul"
        bare = SimpleNamespace(alpha=1.0, beta=1.0)
    elif getattr(layer, "weight", None) is not None:
        inputs = [inputs[0], layer.weight, *([] if layer.bias is None else [layer.bias])]
    x, w = inputs[:2]
    k = math.prod(w.shape[1:]) if hasattr(layer, "groups") else products.operands(layer, x, w)[0].shape[-1]
    slope = max([1.0, *map(abs, getattr(layer, "activation_params", ()))])
    if kind == "FloatMatMul":
        bare.alpha, bare.beta = abs(bare.alpha), abs(bare.beta)
    bare.weight, bare.activation, bare.activation_params = None, None, ()
    with np.errstate(all="ignore"):
        magnitudes = ORACLES[kind](bare, *(np.abs(a).astype(np.float64) for a in inputs))
    return np.asarray((k + 4) * 2.0**-24 * slope * magnitudes)
