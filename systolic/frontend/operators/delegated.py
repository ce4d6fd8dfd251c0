"""Delegate operators without a converter to ONNX Runtime or onnx's reference evaluator."""

from __future__ import annotations

from typing import Any

import numpy as np

from systolic import _isolated
from systolic.frontend.operators._operator import Converted, Operator
from systolic.frontend.operators.attributes import check_attributes, check_inner, check_scan
from systolic.layers import OnnxNode
from systolic.layers.host import session
from systolic.layers.host.compared import Refused
from systolic.layers.host.evaluator import STANDARD, alone, prepare, small
from systolic.layers.host.subgraphs import inner_nodes
from systolic.model import DTYPES, Node

# Processor time to prepare a node: a session of a small one takes milliseconds, and copies what it holds.
_SECONDS, _SECONDS_PER_NODE, _BYTES_PER_SECOND = 1.0, 1e-2, 1 << 24


def evaluated(op: Operator) -> Converted:
    """Return a layer that runs a node in ONNX Runtime or onnx's reference evaluator."""
    if not known(op):
        raise op.refuse("this use of it is not supported")
    check_attributes(op)
    node = _plain(op)
    inner_ones = list(inner_nodes(node))
    for inner in inner_ones:
        if not _exists(inner.domain, inner.op_type, op.graph.opsets):
            raise op.refuse(
                f"its subgraph holds the operator {inner.domain or 'ai.onnx'}.{inner.op_type}, which neither "
                "the onnx package nor ONNX Runtime knows"
            )
        check_inner(inner, op.graph)
    for scan in (node, *inner_ones):
        if scan.op_type == "Scan":
            scanned = {a.name: a.i for a in scan.attribute}.get("num_scan_inputs", 0)
            body = next((len(a.g.input) for a in scan.attribute if a.name == "body"), 0)
            check_scan(len(scan.input), body, scanned)
    # Only operator sets in use: others do not affect what the node means.
    used = {"", node.domain, *(inner.domain for inner in inner_ones)}
    opsets = tuple(sorted((domain, version) for domain, version in op.graph.opsets.items() if domain in used))
    reads = tuple(dict.fromkeys(name for name in (*op.inputs, *op.captured) if name))
    data = node.SerializeToString()
    dtypes = {name: op.graph.narrow.get(name, op.dtypes[name]) for name in reads}
    _expect_types(op, dtypes, "its input")
    if not reads:
        return _constant(op, data, opsets)
    shapes = {name: op.graph.shapes.get(name) for name in reads}
    values = {name: op.graph.constants[name] for name in reads if name in op.graph.constants}
    try:
        # In the helper process: native code may crash on shapes, or on the first session.
        found = _isolated.call(
            prepare, data, dtypes, shapes, small(values), opsets,
            seconds=_SECONDS + _SECONDS_PER_NODE * len(inner_ones) + len(data) / _BYTES_PER_SECOND,
            what=f"preparing {op.op_type}", modules=("onnx", "onnxruntime"),
        )  # fmt: skip
    except Refused as error:
        raise op.refuse(str(error)) from error
    writes = {}
    for name, (dtype, _) in found.items():
        declared = op.graph.declared.get(name, (None, None))[0]
        if dtype is None and declared is None:
            raise op.refuse(
                f"its output {name!r} is no tensor, or one of a type that onnx cannot tell; sequences, "
                "optionals and maps are not supported"
            )
        writes[name] = dtype or declared or ""
    _expect_types(op, writes, "its output")
    bytes_ = np.frombuffer(data, np.uint8)
    layer = OnnxNode(op.op_type, bytes_, reads, tuple(dtypes.values()), tuple(writes.values()), opsets)
    return [Node(layer, reads, tuple(writes), op.label)]


def known(op: Operator) -> bool:
    """Whether an operator of the file is one that onnx or ONNX Runtime has."""
    return op.proto is not None and _exists(op.domain, op.op_type, op.graph.opsets)


def _exists(domain: str, op_type: str, opsets: dict[str, int]) -> bool:
    """Whether onnx has the operator in the model's version of its domain, or ONNX Runtime has it."""
    from onnx import defs

    domain = "" if domain == "ai.onnx" else domain
    try:
        return not defs.get_schema(op_type, opsets.get(domain, 1), domain).deprecated
    except defs.SchemaError:
        return (domain, op_type) in session.operators()


def _plain(op: Operator) -> Any:
    """Return a copy of a node whose domain is spelled as operator sets are, with its defaults written out.

    Only for operators that the standard writes out in others: inferring shapes in that forgets defaults.
    """
    from onnx import defs

    node = type(op.proto)()
    node.CopyFrom(op.proto)
    # An empty field and a missing one mean the same.
    if node.domain == "ai.onnx":
        node.ClearField("domain")
    # The model's node has the name, which another file may need to change.
    node.ClearField("name")
    if op.graph.noted or node.domain not in STANDARD:
        return node
    schema = defs.get_schema(node.op_type, op.graph.opsets.get(node.domain, 1), node.domain)
    if schema.has_function:
        given = {attribute.name for attribute in node.attribute}
        missing = [a.default_value for name, a in schema.attributes.items() if name not in given]
        node.attribute.extend(value for value in missing if value.name)
    return node


def _constant(op: Operator, data: bytes, opsets: tuple[tuple[str, int], ...]) -> np.ndarray:
    """Return what a node without inputs gives."""
    if op.op_type.startswith("Random") or len(op.outputs) != 1:
        raise op.refuse("it reads nothing, so that every run would have the same numbers; store them instead")
    try:
        value = alone(data, opsets)
    except ValueError as error:
        raise op.refuse(str(error)) from error
    _expect_types(op, {op.outputs[0]: value.dtype.name}, "its output")
    return value


def _expect_types(op: Operator, dtypes: dict[str, str], what: str) -> None:
    for name, dtype in dtypes.items():
        if dtype not in DTYPES:
            raise op.refuse(f"{what} {name!r} holds {dtype}; supported are {', '.join(DTYPES)}")
