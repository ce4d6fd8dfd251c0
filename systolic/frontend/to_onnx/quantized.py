"""Writers of layers on codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from systolic.frontend.to_onnx.writer import MICROSOFT, Writer
from systolic.layers.table import record_of
from systolic.model import Node

_CHANNELS_LAST = ("NHWC", "NWC", "NDHWC")


def _write_conv(out: Writer, node: Node, layer: Any) -> None:
    if layer.y is None:
        raise out.refuse(
            node, "ONNX has no convolution of codes to float32; give it y, and a DequantizeLinear after it"
        )
    last = layer.layout in _CHANNELS_LAST
    read = (
        node.inputs[0], *out.params(node, "x", layer.x),
        out.constant(node, "weight", layer.weight), *out.params(node, "w", layer.w),
        *out.params(node, "y", layer.y),
        "" if layer.bias is None else out.constant(node, "bias", layer.bias),
    )  # fmt: skip
    out.node(
        node, "QLinearConv", read, MICROSOFT if last else "",
        channels_last=1 if last else None, group=layer.groups, kernel_shape=list(layer.weight.shape[2:]),
        **out.window(node),
    )  # fmt: skip


def _write_add(out: Writer, node: Node, layer: Any) -> None:
    if layer.y is None:
        out.node(node, "Add", node.inputs)
        return
    record = record_of(layer)
    assert record is not None
    record.write_node(out, node, layer)




def _write_conv_of_tensors(out: Writer, node: Node, layer: Any) -> None:
    out.node(node, layer.kind, node.inputs, group=layer.groups, **out.window(node))


def _write_qlinear_concat(out: Writer, node: Node, layer: Any) -> None:
    names = [*out.params(node, "y", layer.y)]
    for number, (name, params) in enumerate(zip(node.inputs, layer.x, strict=True)):
        names += [name, *out.params(node, f"x{number}", params)]
    out.node(node, "QLinearConcat", names, MICROSOFT, axis=layer.axis)


def _write_qlinear_softmax(out: Writer, node: Node, layer: Any) -> None:
    read = out.codes(node, ("x", "y"))
    # By this the operator knows whether the axes from its own on count as one.
    opset = 12 if layer.flatten else 13
    out.node(node, "QLinearSoftmax", read, MICROSOFT, axis=layer.axis, opset=opset)


QUANTIZED: dict[str, Callable[[Writer, Node, Any], None]] = {
    "Add": _write_add,
    "Conv1d": _write_conv,
    "Conv2d": _write_conv,
    "Conv3d": _write_conv,
    "ConvInteger": _write_conv_of_tensors,
    "DepthwiseConv2d": _write_conv,
    "QLinearConcat": _write_qlinear_concat,
    "QLinearConv": _write_conv_of_tensors,
    "QLinearSoftmax": _write_qlinear_softmax,
}
"""Writers by the name of the layer's class."""
