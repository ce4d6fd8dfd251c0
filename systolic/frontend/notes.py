"""Notes in the metadata of a saved file: the parts of a model that its graph cannot hold.

With them ``load_onnx`` gives the model of ``save_onnx`` back. A graph does not say which initializers are
tensors of the model and which are parameters of a layer, that float operators between DequantizeLinear and
QuantizeLinear stay float, or that two nodes have one name. The notes are one entry of the file's metadata.
They include a digest of the nodes they were made for; changing a node makes them void.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from systolic.frontend.check import captured, renamed
from systolic.frontend.operators import fresh
from systolic.layers.float_products import COMPUTE

_KEY = "systolic"

GUARD = "Max"
"""Identity-like operator that keeps ONNX Runtime from fusing across it: Max of one tensor.

It changes no value, and ONNX Runtime neither removes it nor looks past it.
"""

MOVES = ("MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
"""Operators that ONNX Runtime moves a QuantizeLinear across."""


@dataclass(frozen=True)
class Notes:
    """The parts of a model that a file's graph cannot hold.

    Parameters
    ----------
    constants : tuple of str
        Initializers that are tensors of the model; all others are layers' parameters.
    names : dict of str to str
        From names in the file to the model's, where they differ; "" for a node without a name.
    unused : tuple of str
        Outputs that the model omits and their operators require.
    unnamed : bool
        Whether the model has no name.
    runtime : dict of str to list of int
        `runtime_constants` by the output of the layers that have some.
    compute : dict of str to str
        Formats of products of float32 on the array, by their output.
    joined : dict of str to int
        Bits of the weights of products of codes that the file has as DequantizeLinear and a product of
        float32, by their output.
    """

    constants: tuple[str, ...] = ()
    names: dict[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    unnamed: bool = False
    runtime: dict[str, list[int]] = field(default_factory=dict)
    compute: dict[str, str] = field(default_factory=dict)
    joined: dict[str, int] = field(default_factory=dict)


def write_notes(model: Any, notes: Notes) -> None:
    """Put notes into a ModelProto, valid for its present nodes."""
    import json  # a model may be read that has no notes

    content = {**dataclasses.asdict(notes), "digest": _digest(model.graph)}
    model.metadata_props.add(key=_KEY, value=json.dumps(content, sort_keys=True))


def read_notes(model: Any) -> Notes | None:
    """Return a ModelProto's notes; None if it has none, or its nodes are not those they were made for."""
    import json

    texts = [entry.value for entry in model.metadata_props if entry.key == _KEY]
    if len(texts) != 1:
        return None
    try:
        content = json.loads(texts[0])
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or content.pop("digest", None) != _digest(model.graph):
        return None
    constants, unused, names = (content.get(key) for key in ("constants", "unused", "names"))
    if not isinstance(constants, list) or not isinstance(unused, list) or not isinstance(names, dict):
        return None
    if not all(map(_is_name, (*constants, *unused, *names.values()))):
        return None
    runtime = content.get("runtime", {})  # older files have none
    if not isinstance(runtime, dict) or not all(
        isinstance(numbers, list) and all(type(number) is int and 0 <= number <= 2 for number in numbers)
        for numbers in runtime.values()
    ):
        return None
    compute, joined = content.get("compute", {}), content.get("joined", {})
    if not isinstance(compute, dict) or not all(name in COMPUTE for name in compute.values()):
        return None
    if not isinstance(joined, dict) or not all(type(bits) is int for bits in joined.values()):
        return None
    unnamed = content.get("unnamed") is True
    return Notes(tuple(constants), names, tuple(unused), unnamed, runtime, compute, joined)


def _is_name(value: Any) -> bool:
    """Whether a value is text that a file can hold; a lone surrogate, as JSON's \\ud800, is not."""
    return isinstance(value, str) and value.encode(errors="ignore").decode() == value


def guarded(nodes: Sequence[Any], outputs: Sequence[str], taken: set[str]) -> list[Any]:
    """Return nodes with guards between them.

    A guard follows each DequantizeLinear that a node reads, so that ONNX Runtime does not fuse float
    operators. Another precedes a QuantizeLinear that reads an output of the graph through operators that
    move elements, such as Transpose: ONNX Runtime 1.32 would return the output quantized too. `outputs` are
    the graph's; new names are added to those `taken`.
    """
    from onnx import helper

    writers = {tensor: node for node in nodes for tensor in node.output}
    read = {tensor for node in nodes for tensor in (*node.input, *captured(node))}
    result = []
    for node in nodes:
        if node.op_type == "DequantizeLinear" and node.output[0] in read:
            (tensor,) = node.output
            inner = fresh(f"{tensor}.numbers", taken)
            first = renamed(node, node.input, [inner])
            result += [first, helper.make_node(GUARD, [inner], [tensor], f"{tensor}.guard")]
        elif node.op_type == "QuantizeLinear" and _moves_output(node.input[0], writers, set(outputs)):
            inner = fresh(f"{node.input[0]}.numbers", taken)
            last = renamed(node, [inner, *node.input[1:]], node.output)
            result += [helper.make_node(GUARD, node.input[:1], [inner], f"{inner}.guard"), last]
        else:
            result.append(node)
    return result


def _moves_output(tensor: str, writers: dict[str, Any], outputs: set[str]) -> bool:
    while tensor in writers and writers[tensor].op_type in MOVES:
        tensor = writers[tensor].input[0]
        if tensor in outputs:
            return True
    return False


def restored(nodes: Sequence[Any], outputs: Sequence[str], notes: Notes) -> list[Any]:
    """Return a graph's nodes with their own names, without guards and unused outputs."""
    unused = set(notes.unused)
    readers = Counter(outputs)
    for node in nodes:
        readers.update((*node.input, *captured(node)))
    behind: dict[str, str] = {}
    result: list[Any] = []
    for place, node in enumerate(nodes):
        if node.op_type == GUARD and len(node.input) == len(node.output) == 1:
            before, after = result[-1:], nodes[place + 1 : place + 2]
            if readers[node.input[0]] == 1 and before and _is(before[0], "Dequantize", "output", node.input):
                before[0].output[0] = node.output[0]
                continue
            if readers[node.output[0]] == 1 and after and _is(after[0], "Quantize", "input", node.output):
                behind[node.output[0]] = node.input[0]
                continue
        inputs = [behind.get(tensor, tensor) for tensor in node.input]
        written = ["" if tensor in unused and not readers[tensor] else tensor for tensor in node.output]
        own = renamed(node, inputs, written)
        own.name = notes.names.get(node.name, node.name)
        if not own.name:
            own.ClearField("name")
        result.append(own)
    return result


def _is(node: Any, stem: str, side: str, tensors: Sequence[str]) -> bool:
    """Whether a node is a QuantizeLinear or DequantizeLinear that reads or writes a tensor first."""
    return bool(node.op_type == f"{stem}Linear" and list(getattr(node, side))[:1] == list(tensors))


def _digest(graph: Any) -> str:
    import hashlib

    digest = hashlib.sha256()
    for value in (*graph.input, *graph.output):
        digest.update(repr(value.name).encode(errors="backslashreplace"))
    for node in graph.node:
        data = node.SerializeToString(deterministic=True)
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return digest.hexdigest()
