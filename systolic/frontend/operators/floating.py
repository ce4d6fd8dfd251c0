"""Converters of products of floats."""

from __future__ import annotations

from systolic import layers
from systolic.frontend.operators._operator import Converted, Converter, Operator
from systolic.frontend.operators.delegated import evaluated
from systolic.layers.conv import conv_rank, read_window
from systolic.layers.host.arithmetic import FLOATS, INTEGERS


def _runtime_constants(op: Operator) -> tuple[int, ...] | None:
    """Return the inputs that are constant for ONNX Runtime, None if it is not to compute the product."""
    graph, read = op.graph, op.given
    if graph.runtime is None or any(graph.dtypes[name] != "float32" for name in read):
        return None
    if graph.noted:
        numbers = graph.runtime.get(op.outputs[0])
        return None if numbers is None else tuple(numbers)
    return tuple(i for i, name in enumerate(read) if name in graph.initializers)


def _matmul(op: Operator) -> Converted:
    op.only()
    return layers.FloatMatMul(runtime_constants=_runtime_constants(op)), op.inputs[:2]


def _gemm(op: Operator) -> Converted:
    op.only("alpha", "beta", "transA", "transB")
    alpha, beta = op.attribute("alpha", 1.0), op.attribute("beta", 1.0)
    if (alpha, beta) != (1.0, 1.0) and op.dtypes[op.inputs[0]] in INTEGERS:
        return evaluated(op)
    layer = layers.FloatMatMul(
        transpose_a=bool(op.attribute("transA", 0)),
        transpose_b=bool(op.attribute("transB", 0)),
        alpha=alpha,
        beta=beta if op.has(2) else 1.0,
        runtime_constants=_runtime_constants(op),
    )
    return layer, op.given


def _conv(op: Operator) -> Converted:
    op.only("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
    rank = _float_rank(op)
    if rank is None:
        return evaluated(op)
    layer = layers.FloatConv(runtime_constants=_runtime_constants(op), **read_window(op, 1))
    return layer, op.given


def _conv_transpose(op: Operator) -> Converted:
    known = ("auto_pad", "dilations", "group", "kernel_shape", "output_padding", "output_shape", "pads")
    op.only(*known, "strides")
    rank = _float_rank(op)
    if rank is None:
        return evaluated(op)
    layer = layers.FloatConvTranspose(
        output_padding=op.integers("output_padding", (0,) * rank),
        output_size=op.integers("output_shape", ()) or None,
        **read_window(op, 1),
    )
    return layer, op.given


def _float_rank(op: Operator) -> int | None:
    """Return a convolution's number of axes; None where it is not known or has no layer."""
    shapes = [shape for shape in (op.shape(1), op.shape(0)) if shape is not None]
    if not shapes or len(shapes[0]) not in (3, 4, 5) or op.dtypes[op.inputs[0]] not in FLOATS:
        return None
    if op.shape(1) is None and "kernel_shape" in op.attributes:
        return None
    return conv_rank(op, 1)


FLOATING: dict[tuple[str, str], Converter] = {
    ("", "Conv"): _conv,
    ("", "ConvTranspose"): _conv_transpose,
    ("", "Gemm"): _gemm,
    ("", "MatMul"): _matmul,
}
"""Converters by (domain, operator)."""
