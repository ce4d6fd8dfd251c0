"""What a file's model must satisfy before anything is read from it, said in words about the file.

The onnx package's checker comes after: it knows every operator's attributes, but its messages seldom
say which tensor is wrong, and it takes some models that mean nothing. Nothing here allocates more than
the file holds.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator
from typing import Any

from systolic._check import shape as shape_text
from systolic.frontend.operators import UnsupportedOperator, circle
from systolic.layers.host.subgraphs import held, subgraphs

STANDARD = ("", "ai.onnx")
"""Domains that mean the standard operator set."""

_OLDEST_OPSET = 10

_NOTHING = "neither an input, an initializer, nor written by a node"

# Attributes that are counts of pixels; beyond this, offsets in memory overflow.
_PIXELS = ("dilations", "kernel_shape", "output_padding", "output_shape", "pads", "strides")
_MOST_PIXELS = 2**31 - 1

# Bits of what is packed; other elements have numpy's size.
_PACKED = {"UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "UINT2": 2, "INT2": 2}


def check_model(model: Any) -> None:
    """Raise ValueError, or UnsupportedOperator, if a ModelProto cannot be read as a graph of nodes."""
    _check_opsets(model)
    if model.graph.sparse_initializer:
        name = model.graph.sparse_initializer[0].values.name
        raise UnsupportedOperator(f"the sparse initializer {name!r} is not supported; store it densely")
    _check_names(model.graph)
    for holder, tensor in tensors(model.graph):
        _check_tensor(holder, tensor)
    _check_types(model)
    _check_gaps(model.graph, {domain_of(entry): entry.version for entry in model.opset_import})


def domain_of(proto: Any) -> str:
    """Return the domain of a node, function or opset entry; "" for the standard one."""
    return "" if proto.domain in STANDARD else proto.domain


def label(node: Any) -> str:
    """Return what a node is called in messages."""
    return node.name or next(filter(None, node.output), node.op_type)


def where(node: Any) -> str:
    """Return how messages begin that are about a node."""
    return f"node {label(node)!r} ({node.op_type})"


def tensors(graph: Any) -> Iterator[tuple[str, Any]]:
    """Yield every tensor that a graph stores, with words for where; those of subgraphs too."""
    for tensor in graph.initializer:
        yield f"initializer {tensor.name!r}", tensor
    for node in graph.node:
        for attribute in node.attribute:
            for tensor in held(attribute):
                yield f"attribute {attribute.name} of node {label(node)!r}", tensor
        for inner in subgraphs(node):
            yield from tensors(inner)


def captured(node: Any) -> tuple[str, ...]:
    """Return the tensors that a node's subgraphs use but do not hold."""
    found: dict[str, None] = {}
    for graph in subgraphs(node):
        own = {value.name for value in (*graph.input, *graph.initializer)}
        own |= {tensor.values.name for tensor in graph.sparse_initializer}
        for inner in graph.node:
            used = (*inner.input, *captured(inner))
            found |= {name: None for name in used if name and name not in own}
            own |= set(inner.output)
        found |= {value.name: None for value in graph.output if value.name not in own}
    return tuple(found)


def stored_bytes(holder: str, tensor: Any) -> int | None:
    """Return how many bytes a tensor's sizes and type ask for; None for text."""
    from onnx import TensorProto, helper

    sizes = tuple(tensor.dims)
    if any(size < 0 for size in sizes):
        raise ValueError(f"{holder} has the shape {shape_text(sizes)}; sizes must not be negative")
    try:
        kind = TensorProto.DataType.Name(tensor.data_type)
        width = _PACKED.get(kind) or helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize * 8
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{holder} holds elements of the unknown type {tensor.data_type}") from None
    return None if kind == "STRING" else -(-math.prod(sizes) * width // 8)


def _check_opsets(model: Any) -> None:
    from onnx import __version__, defs

    versions: dict[str, int] = {}
    for entry in model.opset_import:
        domain = domain_of(entry)
        if versions.setdefault(domain, entry.version) != entry.version:
            raise ValueError(f"it imports the operator set {domain!r} in two versions")
        if entry.version < 1:
            raise ValueError(f"the operator set {domain!r} has no version {entry.version}")
    newest = defs.onnx_opset_version()
    standard = versions.get("", newest)
    if standard > newest:
        raise UnsupportedOperator(
            f"it is of operator set {standard}, and onnx {__version__} knows up to {newest}; "
            "install a newer onnx package, or convert the model (onnx.version_converter)"
        )
    if standard < _OLDEST_OPSET:
        raise UnsupportedOperator(
            f"it is of operator set {standard}; supported are {_OLDEST_OPSET} to {newest}: "
            "convert the model (onnx.version_converter)"
        )


def _check_names(graph: Any) -> None:
    for what, names in (
        ("initializer", [tensor.name for tensor in graph.initializer]),
        ("input", [value.name for value in graph.input]),
        ("output", [value.name for value in graph.output]),
    ):
        if "" in names:
            raise ValueError(f"an {what} has no name")
        twice = _first_twice(names)
        if twice is not None:
            raise ValueError(f"it has two {what}s {twice!r}")
    given = {value.name for value in (*graph.input, *graph.initializer)}
    writers: dict[str, Any] = {}
    for node in graph.node:
        twice = _first_twice([attribute.name for attribute in node.attribute])
        if twice is not None:
            raise ValueError(f"{where(node)} has two attributes {twice!r}")
        for attribute in node.attribute:
            if attribute.name in _PIXELS and any(abs(size) > _MOST_PIXELS for size in attribute.ints):
                raise ValueError(
                    f"{where(node)}: {attribute.name} must hold sizes up to "
                    f"{_MOST_PIXELS:,}, not {max(attribute.ints, key=abs):,}"
                )
        for tensor in filter(None, node.output):
            if tensor in given or tensor in writers:
                other = "is an input or an initializer"
                if tensor in writers:
                    other = f"node {label(writers[tensor])!r} writes as well"
                raise ValueError(f"{where(node)} writes {tensor!r}, which {other}")
            writers[tensor] = node
    _check_order(graph, given, writers)
    for value in graph.output:
        if value.name not in given and value.name not in writers:
            raise ValueError(f"output {value.name!r} is {_NOTHING}")


def _first_twice(names: list[str]) -> str | None:
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]


def sort_nodes(graph: Any) -> None:
    """Sort the nodes of a graph and its subgraphs topologically.

    Sorted nodes stay as they are; among those that could be next, the first comes first.
    Tensors that nothing writes are ignored here. Nodes of a cycle, and their readers, come last.
    """
    for node in graph.node:
        for inner in subgraphs(node):
            sort_nodes(inner)
    nodes = list(graph.node)
    writers = {tensor: place for place, node in enumerate(nodes) for tensor in node.output if tensor}
    waits = [0] * len(nodes)
    readers: dict[int, list[int]] = {}
    unsorted = False
    for place, node in enumerate(nodes):
        before = {writers[tensor] for tensor in (*node.input, *captured(node)) if tensor in writers}
        waits[place] = len(before)
        unsorted = unsorted or max(before, default=-1) >= place
        for writer in before:
            readers.setdefault(writer, []).append(place)
    if not unsorted:
        return
    ready = [place for place, count in enumerate(waits) if not count]
    order = []
    while ready:
        place = heapq.heappop(ready)
        order.append(place)
        for reader in readers.get(place, ()):
            waits[reader] -= 1
            if not waits[reader]:
                heapq.heappush(ready, reader)
    order += [place for place, count in enumerate(waits) if count]
    # Copy first: clearing the list clears its messages.
    kept = [type(node).FromString(node.SerializeToString()) for node in map(nodes.__getitem__, order)]
    del graph.node[:]
    graph.node.extend(kept)


def _formal(node: Any, place: int, version: int) -> Any:
    """Return what an operator's schema says of an input; None if it has none, or there is no schema."""
    from onnx import defs

    try:
        inputs = defs.get_schema(node.op_type, version, domain_of(node)).inputs
    except defs.SchemaError:
        return None
    return inputs[min(place, len(inputs) - 1)] if inputs else None


def _check_gaps(graph: Any, versions: dict[str, int]) -> None:
    """Raise if a node leaves out an input that its operator must have: native code reads it all the same."""
    from onnx import defs

    for node in graph.node:
        for inner in subgraphs(node):
            _check_gaps(inner, versions)
        for place, name in enumerate(node.input):
            kind = None if name else _formal(node, place, versions.get(domain_of(node), 1))
            if kind is not None and kind.option != defs.OpSchema.FormalParameterOption.Optional:
                raise ValueError(f"{where(node)}: input {place} ({kind.name}) is missing")


def _check_order(graph: Any, given: set[str], writers: dict[str, Any]) -> None:
    """Raise if a node reads a tensor that nothing writes, or if there is a cycle."""
    known = set(given)
    for node in graph.node:
        for tensor in filter(None, (*node.input, *captured(node))):
            if tensor in known:
                continue
            if tensor not in writers:
                raise ValueError(f"{where(node)} reads {tensor!r}, which is {_NOTHING}")
            # Nodes are sorted, except in cycles.
            raise ValueError(f"the graph has a cycle: {' -> '.join(map(repr, _circle(node, writers)))}")
        known |= set(node.output)


def _circle(start: Any, writers: dict[str, Any]) -> list[str]:
    """Return the labels of nodes that write for each other, from one round to itself; [] if none does."""
    nodes = {id(node): node for node in (start, *writers.values())}

    def before(place: int) -> Iterator[int]:
        names = dict.fromkeys((*nodes[place].input, *captured(nodes[place])))
        return iter([id(writers[name]) for name in names if name in writers])

    # The path goes against the data; messages go with it.
    found = [label(nodes[place]) for place in circle([id(start)], before)]
    return [*found[:1], *reversed(found)]


def renamed(node: Any, inputs: Iterable[str], outputs: Iterable[str]) -> Any:
    """Return a copy of a NodeProto that reads and writes other tensors."""
    made = type(node)()
    made.CopyFrom(node)
    del made.input[:], made.output[:]
    made.input.extend(inputs)
    made.output.extend(outputs)
    return made


def _check_tensor(holder: str, tensor: Any) -> None:
    from onnx import TensorProto

    needed = stored_bytes(holder, tensor)
    if tensor.data_location == TensorProto.EXTERNAL or not tensor.HasField("raw_data"):
        return
    if needed is not None and len(tensor.raw_data) != needed:
        raise ValueError(
            f"{holder} has the shape {shape_text(tuple(tensor.dims))}, {needed} bytes, but holds "
            f"{len(tensor.raw_data)}"
        )


def _check_types(model: Any) -> None:
    """Raise if a node of the standard set reads an initializer of a type that it does not take."""
    from onnx import TensorProto

    graph = model.graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    version = next((entry.version for entry in model.opset_import if not domain_of(entry)), 1)
    for node in graph.node:
        if domain_of(node):
            continue
        for index, name in enumerate(node.input):
            formal = _formal(node, index, version) if name in kinds else None
            if formal is None:
                continue
            held = TensorProto.DataType.Name(kinds[name]).lower()
            # The format's types are called FLOAT and DOUBLE, those of schemas tensor(float).
            if f"tensor({held})" not in formal.types:
                raise ValueError(
                    f"{where(node)} takes no {held} for its input {index} ({formal.name}), which is {name!r}"
                )
