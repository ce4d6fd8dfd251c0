"""Converters of products of floats."""

from __future__ import annotations

from systolic import layers
from systolic.frontend.operators._operator import Converted, Converter, Operator
from systolic.frontend.operators.delegated import evaluated
from systolic.layers.conv import conv_rank, read_window
from systolic.layers.host.arithmetic import FLOATS


def _conv(op: Operator) -> Converted:
    op.only("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
    rank = _float_rank(op)
    if rank is None:
        return evaluated(op)
    layer = layers.FloatConv(runtime_constants=op.runtime_constants(), **read_window(op, 1))
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
}
"""Converters by (domain, operator)."""
