"""The graphs within a node of an ONNX graph: branches of If, bodies of Loop and Scan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def subgraphs(node: Any) -> Iterator[Any]:
    """Yield the GraphProtos that a NodeProto's attributes hold."""
    for attribute in node.attribute:
        yield from attribute.graphs
        if attribute.HasField("g"):
            yield attribute.g


def held(attribute: Any) -> list[Any]:
    """Return the TensorProtos that an attribute holds, the parts of sparse ones among them."""
    found = [*attribute.tensors, *([attribute.t] if attribute.HasField("t") else [])]
    sparse = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
    for tensor in (*attribute.sparse_tensors, *sparse):
        found += [tensor.values, tensor.indices]
    return found


def inner_nodes(node: Any) -> Iterator[Any]:
    """Yield the nodes of a node's subgraphs, each before those of its own subgraphs."""
    for graph in subgraphs(node):
        for inner in graph.node:
            yield inner
            yield from inner_nodes(inner)


def own_names(graph: Any) -> set[str]:
    """Return the names of the tensors that a subgraph holds, without those of its nodes' subgraphs."""
    found = {value.name for value in (*graph.input, *graph.initializer)}
    found |= {tensor.values.name for tensor in graph.sparse_initializer}
    return found | {name for node in graph.node for name in node.output if name}


def inner_names(node: Any) -> set[str]:
    """Return the names of the tensors that a node's subgraphs hold, at any depth."""
    return {
        name
        for holder in (node, *inner_nodes(node))
        for graph in subgraphs(holder)
        for name in own_names(graph)
    }
