"""Functions that a model brings itself, written out where they are called."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from systolic.frontend.check import domain_of, label

# Nodes that calls may come to; functions that call functions multiply.
_MOST_NODES = 1 << 20
_DEEPEST = 100


def inline(model: Any) -> Any:
    """Return a ModelProto without functions of its own; the same one if it has none.

    Raises
    ------
    ValueError
        If a function calls itself, or calls written out are too deep or too many nodes.
    """
    if not model.functions:
        return model
    own = {(domain_of(function), function.name): function for function in model.functions}
    _count(own, model.graph.node, {}, ())
    from onnx import inliner

    try:
        return inliner.inline_local_functions(model)
    except Exception as error:
        # Compiled code, which raises what it likes on what is no model.
        raise ValueError(f"its functions cannot be written out: {error}") from error


def _count(
    own: dict[tuple[str, str], Any], nodes: Any, known: dict[tuple[str, str], int], path: tuple[Any, ...]
) -> int:
    """Return how many nodes these are with the calls among them written out."""
    total = 0
    for node in _with_inner(nodes):
        key = domain_of(node), node.op_type
        total += 1
        if key in own:
            if key in path:
                name = label(node)
                raise ValueError(f"node {name!r} calls the function {node.op_type}, which calls itself")
            if len(path) == _DEEPEST:
                raise ValueError(f"its functions call each other more than {_DEEPEST} deep")
            if key not in known:
                known[key] = _count(own, own[key].node, known, (*path, key))
            total += known[key]
        if total > _MOST_NODES:
            raise ValueError(f"its functions written out are more than {_MOST_NODES:,} nodes")
    return total


def _with_inner(nodes: Any) -> Iterator[Any]:
    """Yield nodes and those of their subgraphs."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _with_inner(graph.node)
