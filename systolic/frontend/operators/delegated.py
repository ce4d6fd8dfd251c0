"""Delegate operators without a converter to ONNX Runtime or onnx's reference evaluator."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from systolic import _isolated
from systolic.frontend.operators._operator import Converted, Graph, Operator, circle
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


# Attributes: the onnx package's checker has checked names and types; this checks values, against the ranks of
# inputs, where bad ones would crash ONNX Runtime or onnx, or never end.

# Operators whose `axis`, or `axes`, is an axis of their first input.
_AXIS = (
    "ArgMax", "ArgMin", "Compress", "Concat", "Gather", "GatherElements", "Hardmax", "LayerNormalization",
    "LogSoftmax", "LpNormalization", "RMSNormalization", "Scatter", "ScatterElements", "Softmax", "Split",
    "SplitToSequence", "TopK", "Unique",
)  # fmt: skip
_AXES = (
    "MeanVarianceNormalization", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax",
    "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Squeeze",
)  # fmt: skip

# Bounds: above them an attribute asks for endless work, below them it has no meaning.
_BOUNDS = {
    ("RoiAlign", "sampling_ratio"): (0, 1 << 10),
    ("ReverseSequence", "batch_axis"): (0, 1),
    ("ReverseSequence", "time_axis"): (0, 1),
    ("TfIdfVectorizer", "max_skip_count"): (0, 1 << 20),
}


def check_attributes(op: Operator) -> None:
    """Raise ValueError if an attribute is out of range, or does not fit the known input shapes."""
    name = op.op_type
    rank = _rank(op, 0)
    if rank is not None and not op.domain:
        for known, attribute in ((_AXIS, "axis"), (_AXES, "axes")):
            given = op.attributes.get(attribute, ()) if name in known else ()
            for axis in given if isinstance(given, Sequence) else (given,):
                # A scalar has no axis, but runtimes take 0 and -1 for it.
                _within(attribute, axis, -max(rank, 1), max(rank, 1) - 1, f" for an input of rank {rank}")
    for (of, attribute), (least, most) in _BOUNDS.items():
        if of == name and attribute in op.attributes:
            _within(attribute, op.attributes[attribute], least, most)
    check = _CHECKS.get(op.key)
    if check is not None:
        check(op)


def check_inner(node: Any, graph: Graph) -> None:
    """Check the attributes of a node in a subgraph; shapes of its inputs are unknown."""
    from onnx import helper

    name = node.name or next(filter(None, node.output), node.op_type)
    try:
        given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        domain = "" if node.domain == "ai.onnx" else node.domain
        names = tuple(node.input), tuple(node.output)
        check_attributes(Operator(name, node.op_type, *names, given, replace(graph, shapes={}), domain))
    except ValueError as error:
        raise ValueError(f"its subgraph's node {name!r} ({node.op_type}): {error}") from error


def check_scan(inputs: int, body_inputs: int, scanned: int) -> None:
    """Raise ValueError if the inputs of a Scan and its body differ, or if it scans none or too many."""
    _within("num_scan_inputs", scanned, 1, inputs, f" for {inputs} inputs")
    if inputs != body_inputs:
        raise ValueError(f"its body must have an input for each of its {inputs}, not {body_inputs}")


def _within(name: str, value: int, least: int, most: int, where: str = "") -> None:
    if not least <= value <= most:
        raise ValueError(f"{name} must be in {least}..{most}{where}, not {value}")


def _rank(op: Operator, index: int) -> int | None:
    # Declared shapes are not trusted.
    shape = op.graph.shapes.get(op.inputs[index]) if op.has(index) else None
    return None if shape is None else len(shape)


def _normal(op: Operator) -> None:
    # Other scales abort the process in ONNX Runtime.
    scale = op.attributes.get("scale", 1.0)
    if not scale > 0:
        raise ValueError(f"scale must be above zero, not {scale}")


def _uniform(op: Operator) -> None:
    low, high = op.attributes.get("low", 0.0), op.attributes.get("high", 1.0)
    if not low <= high:
        raise ValueError(f"high must not be below low, which are {high} and {low}")


def _gather_nd(op: Operator) -> None:
    ranks = [_rank(op, 0), _rank(op, 1)]
    known = [rank for rank in ranks if rank is not None]
    if known:
        said = " and ".join("?" if rank is None else str(rank) for rank in ranks)
        _within(
            "batch_dims",
            op.attributes.get("batch_dims", 0),
            0,
            min(known) - 1,
            f" for inputs of ranks {said}",
        )


def _einsum(op: Operator) -> None:
    given = str(op.attribute("equation", ""))
    equation = given.replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if not all(re.fullmatch(r"[A-Za-z]*(\.\.\.[A-Za-z]*)?", term) for term in (*terms, right)):
        raise ValueError(f"equation must be letters, ... and commas, such as 'ij,jk->ik', not {given!r}")
    if len(terms) != len(op.inputs):
        raise ValueError(f"equation {given!r} is of {len(terms)} inputs, but there are {len(op.inputs)}")
    for place, term in enumerate(terms):
        rank, letters = _rank(op, place), term.replace("...", "")
        if rank is not None and (rank < len(letters) if "..." in term else rank != len(letters)):
            raise ValueError(f"equation {given!r} does not fit input {place}, which has rank {rank}")
    out = right.replace("...", "")
    strange = sorted(set(out) - set(left))
    if arrow and (strange or len(set(out)) < len(out)):
        raise ValueError(f"equation {given!r} must use letters of its inputs in its output, each once")


def _trees(op: Operator) -> None:
    """Raise if the node ids of a forest do not form trees; ids are per tree."""
    nodes = _columns(
        op, "nodes_treeids", "nodes_nodeids", "nodes_modes", "nodes_truenodeids", "nodes_falsenodeids"
    )
    below = {
        (tree, node): [] if mode in (b"LEAF", "LEAF") else [(tree, true), (tree, false)]
        for tree, node, mode, true, false in nodes
    }
    _acyclic(below)


def _ensemble(op: Operator) -> None:
    """Raise if the node ids of a forest do not form trees; ids count through all trees."""
    nodes = _columns(op, "nodes_truenodeids", "nodes_trueleafs", "nodes_falsenodeids", "nodes_falseleafs")
    below = {
        node: [child for child, leaf in ((true, true_leaf), (false, false_leaf)) if not leaf]
        for node, (true, true_leaf, false, false_leaf) in enumerate(nodes)
    }
    _acyclic(below)


def _columns(op: Operator, *names: str) -> Iterator[tuple[Any, ...]]:
    """Return the rows of a table whose columns are attributes; ValueError if their lengths differ."""
    lists = [op.attributes.get(name, []) for name in names]
    if len({len(values) for values in lists}) > 1:
        raise ValueError(
            f"{', '.join(names)} must have one length, not {', '.join(str(len(v)) for v in lists)}"
        )
    return zip(*lists, strict=True)


def _acyclic(below: dict[Any, list[Any]]) -> None:
    """Raise if a node leads back to itself, or to a missing one: evaluation would never end."""

    def children(node: Any) -> Iterator[Any]:
        for child in below[node]:
            if child not in below:
                raise ValueError(
                    f"its tree's node {_number(node)} leads to node {_number(child)}, which is not there"
                )
            yield child

    found = circle(below, children)
    if found:
        first, last = _number(found[0]), _number(found[-1])
        raise ValueError(f"its tree's node {last} leads back to node {first}: a cycle")


def _number(node: object) -> str:
    return f"{node[1]} of tree {node[0]}" if isinstance(node, tuple) else str(node)


_ML = "ai.onnx.ml"
_CHECKS: dict[tuple[str, str], Callable[[Operator], None]] = {
    ("", "Einsum"): _einsum,
    ("", "GatherND"): _gather_nd,
    ("", "RandomNormal"): _normal,
    ("", "RandomNormalLike"): _normal,
    ("", "RandomUniform"): _uniform,
    ("", "RandomUniformLike"): _uniform,
    (_ML, "TreeEnsemble"): _ensemble,
    (_ML, "TreeEnsembleClassifier"): _trees,
    (_ML, "TreeEnsembleRegressor"): _trees,
}
