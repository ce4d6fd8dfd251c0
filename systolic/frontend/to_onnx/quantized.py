"""Writers of layers on codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from systolic.frontend.to_onnx.writer import MICROSOFT, Writer
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


def _write_conv_of_tensors(out: Writer, node: Node, layer: Any) -> None:
    out.node(node, layer.kind, node.inputs, group=layer.groups, **out.window(node))


QUANTIZED: dict[str, Callable[[Writer, Node, Any], None]] = {
    "Conv1d": _write_conv,
    "Conv2d": _write_conv,
    "Conv3d": _write_conv,
    "ConvInteger": _write_conv_of_tensors,
    "DepthwiseConv2d": _write_conv,
    "QLinearConv": _write_conv_of_tensors,
}
"""Writers by the name of the layer's class."""
