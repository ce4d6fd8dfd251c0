"""Inline the functions that a model defines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from systolic.frontend.check import domain_of, label
from systolic.layers.host.subgraphs import inner_nodes

# Limits on a graph with its functions written out, since functions that call functions multiply: an absolute
# number, and a multiple of the file's.
_NODES, _NODES_PER_NODE = 1 << 14, 64
_BYTES, _BYTES_PER_BYTE = 1 << 26, 16
_DEEPEST = 100


# Domain, name and overload.
_Key = tuple[str, str, str]


class _Size(NamedTuple):
    """Size of a list of nodes: number, bytes, and attributes taken from a call."""

    nodes: int = 0
    bytes: int = 0
    references: int = 0

    def plus(self, other: _Size) -> _Size:
        return _Size(self.nodes + other.nodes, self.bytes + other.bytes, self.references + other.references)


def inline(model: Any) -> Any:
    """Return a ModelProto without functions of its own; the same one if it has none.

    ValueError if a function calls itself, or calls written out are too deep, too many nodes or bytes.
    """
    if not model.functions:
        return model
    own = {_key(function, function.name): function for function in model.functions}
    written = [node for function in model.functions for node in function.node]
    nodes = sum(1 for _ in _with_inner([*model.graph.node, *written]))
    most = _Size(_NODES + _NODES_PER_NODE * nodes, _BYTES + _BYTES_PER_BYTE * model.ByteSize())
    size = _count(own, model.graph.node, {}, (), most)
    # An attribute of a call may be as large as any, and is copied to each place that refers to it.
    largest = max(
        (a.ByteSize() for node in _with_inner([*model.graph.node, *written]) for a in node.attribute),
        default=0,
    )
    if size.bytes + size.references * largest > most.bytes:
        raise _too_many("bytes", most.bytes)
    from onnx import inliner

    try:
        return inliner.inline_local_functions(model)
    except Exception as error:
        # Compiled code, which may raise anything on an invalid model.
        raise ValueError(f"its functions cannot be written out: {error}") from error


def _key(proto: Any, name: str) -> _Key:
    return domain_of(proto), name, proto.overload


def _count(
    own: dict[_Key, Any], nodes: Any, known: dict[_Key, _Size], path: tuple[_Key, ...], most: _Size
) -> _Size:
    """Return the size of these nodes with their calls written out."""
    # A node's bytes include those of its subgraphs.
    total = _Size(bytes=sum(node.ByteSize() for node in nodes))
    for node in _with_inner(nodes):
        key = _key(node, node.op_type)
        references = sum(1 for attribute in node.attribute if attribute.ref_attr_name)
        total = total.plus(_Size(nodes=1, references=references))
        if key in own:
            if key in path:
                name = label(node)
                raise ValueError(f"node {name!r} calls the function {node.op_type}, which calls itself")
            if len(path) == _DEEPEST:
                raise ValueError(f"its functions call each other more than {_DEEPEST} deep")
            if key not in known:
                known[key] = _count(own, own[key].node, known, (*path, key), most)
            total = total.plus(known[key])
        if total.nodes > most.nodes:
            raise _too_many("nodes", most.nodes)
        if total.bytes > most.bytes:
            raise _too_many("bytes", most.bytes)
    return total


def _too_many(what: str, most: int) -> ValueError:
    return ValueError(
        f"its functions written out are more than {most:,} {what}, the most for a file of this size; "
        "write them out before (onnx.inliner), or make them fewer"
    )


def _with_inner(nodes: Any) -> Iterator[Any]:
    """Yield nodes and those of their subgraphs."""
    for node in nodes:
        yield node
        yield from inner_nodes(node)
