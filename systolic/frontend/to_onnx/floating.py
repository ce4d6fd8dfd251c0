"""Writers of layers on numbers of any type, and of those that move elements without changing them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from systolic.frontend.to_onnx.writer import Writer
from systolic.layers.host.subgraphs import inner_names, subgraphs
from systolic.model import Node


def _write_onnx_node(out: Writer, node: Node, layer: Any) -> None:
    import onnx

    proto = onnx.NodeProto.FromString(layer.node.tobytes())
    names = dict(zip(layer.reads, node.inputs, strict=True))
    if any(subgraphs(proto)) and any(k != v for k, v in names.items()):
        raise out.refuse(
            node, f"its subgraphs know its inputs as {', '.join(layer.reads)}; name them so in the model"
        )
    twice = sorted(inner_names(proto) & out.model_names)
    if twice:
        raise out.refuse(
            node, f"its subgraphs have a tensor {twice[0]!r} of their own, and so has the model; rename that"
        )
    used = iter(node.outputs)
    inputs = [names.get(name, name) for name in proto.input]
    outputs = [next(used) if name else "" for name in proto.output]
    del proto.input[:], proto.output[:]
    proto.input.extend(inputs)
    proto.output.extend(outputs)
    if (proto.name or next(filter(None, outputs))) != node.name:
        proto.name = node.name
    out.nodes.append(proto)


FLOATING: dict[str, Callable[[Writer, Node, Any], None]] = {
    "OnnxNode": _write_onnx_node,
}
"""Writers by the name of the layer's class."""
