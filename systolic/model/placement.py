"""Placement: which nodes multiply matrices off the array, and why."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from systolic import layers
from systolic._show.table import percent
from systolic.layers import ArrayLayer
from systolic.layers.float_products import on_array
from systolic.layers.host.delegated import FloatProduct
from systolic.layers.host.subgraphs import inner_nodes
from systolic.model.inference import Tensor, products_of
from systolic.model.node import Node

_FLOAT = (
    layers.FloatConv, layers.FloatConvTranspose, layers.FloatMatMul, layers.MatMulNBits,
)  # fmt: skip

# Operators that multiply matrices, delegated or on the host.
_MULTIPLIES = (
    "Attention", "Bilinear", "Conv", "ConvInteger", "ConvTranspose", "DeformConv", "DynamicQuantizeLSTM",
    "DynamicQuantizeMatMul", "Einsum", "FusedConv", "FusedGemm", "FusedMatMul", "GRU", "Gemm", "LSTM",
    "MatMul", "MatMulInteger", "MatMulNBits", "MultiHeadAttention", "QAttention", "QGemm", "RNN",
)  # fmt: skip

# Maximum lines of the explanation.
_LINES = 4


@dataclass(frozen=True)
class OffArray:
    """A node that multiplies matrices, and why no MAC of it runs on the array.

    Attributes
    ----------
    node, layer : str
        The node's name and kind.
    reason : str
    macs : int or None
        How many MACs that are; None if it is not known.

    Examples
    --------
    >>> from systolic.model.placement import OffArray
    >>> OffArray("lstm", "LSTM", "computed by ONNX Runtime").to_dict()["reason"]
    'computed by ONNX Runtime'
    """

    node: str
    layer: str
    reason: str
    macs: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return {"node": self.node, "layer": self.layer, "reason": self.reason, "macs": self.macs}


def off_array(
    nodes: Sequence[Node], known: Mapping[str, Tensor], hosted: Collection[str] = ()
) -> tuple[OffArray, ...]:
    """Return the nodes that multiply matrices off the array, and why.

    Call it only for a model of which no MAC runs on the array: nodes on the array then count as empty
    products. `known` is the result of ``Model.infer_shapes``, `hosted` are the names of nodes with products
    that a program leaves to the host.
    """
    found = [
        OffArray(node.name, node.layer.kind, "its product is empty", 0)
        if place is None and isinstance(node.layer, ArrayLayer)
        else place
        for node, place in zip(nodes, placements(nodes, known, hosted), strict=True)
    ]
    return tuple(place for place in found if place is not None)


def placements(
    nodes: Sequence[Node], known: Mapping[str, Tensor], hosted: Collection[str] = ()
) -> list[OffArray | None]:
    """Return for each node why its MACs run off the array; None if it has none or they run on it.

    `known` and `hosted` are as for :func:`off_array`.
    """
    writers = {tensor: node for node in nodes for tensor in node.outputs}
    found: list[OffArray | None] = []
    for node in nodes:
        reason = _HOSTED if node.name in hosted else _reason(node, known, writers)
        found.append(
            None if reason is None else OffArray(node.name, node.layer.kind, reason, _macs(node, known))
        )
    return found


_BESIDE = "the array takes them beside constant weights of 4 or 8 bits"

_HOSTED = "on a machine with memories the host computes it (docs/compiler.md); --ideal runs it on the array"


def _reason(node: Node, known: Mapping[str, Tensor], writers: Mapping[str, Node]) -> str | None:
    layer = node.layer
    if isinstance(layer, ArrayLayer):
        return None
    floats = isinstance(layer, _FLOAT) or (isinstance(layer, layers.Op) and layer.kind in _MULTIPLIES)
    if not floats:
        return f"computed by {layer.delegate}" if layer.delegate is not None and _multiplies(layer) else None
    for tensor in node.inputs[:2]:
        codes = _codes_before(tensor, known, writers)
        if codes is not None and codes not in ("int8", "uint8"):
            return f"its operands are {codes} codes: {_BESIDE}"
    dtype = known[node.inputs[0]][1]
    may_load = dtype == "float32" and on_array(layer, "bfloat16") is not None
    other = ", or load it with compute='bfloat16'" if may_load else ""
    return f"its operands are {dtype}: quantize the model first (docs/quantize.md){other}"


def _macs(node: Node, known: Mapping[str, Tensor]) -> int | None:
    """Return the MACs of a node that multiplies matrices; None if they are not known."""
    layer = node.layer
    if isinstance(layer, ArrayLayer):
        gemms = products_of(node, known)
        return None if gemms is None else sum(gemm.macs for gemm in gemms)
    shapes = [shape for shape in (known[tensor][0] for tensor in node.inputs) if shape is not None]
    output = known[node.output][0]
    if len(shapes) < len(node.inputs) or output is None:
        return None
    if isinstance(layer, FloatProduct):
        return math.prod(output) * layer.terms(shapes)
    if len(shapes) < 2:
        return None
    if layer.kind in ("FloatConvTranspose", "ConvTranspose"):
        return math.prod(shapes[0]) * math.prod(shapes[1][1:])
    if layer.kind == "Conv":
        return math.prod(output) * math.prod(shapes[1][1:])
    return math.prod(output) * shapes[0][-1] if layer.kind == "MatMul" else None


def _multiplies(layer: Any) -> bool:
    """Whether a delegated operator, or one in its subgraphs, multiplies matrices."""
    if not layer.may_loop:
        return layer.kind in _MULTIPLIES
    from systolic.layers.host.evaluator import parse

    return any(inner.op_type in _MULTIPLIES for inner in inner_nodes(parse(layer.node.tobytes())))


def _codes_before(tensor: str, known: Mapping[str, Tensor], writers: Mapping[str, Node]) -> str | None:
    """Return the dtype of the quantized tensor that a float tensor was dequantized from, or None."""
    passing = (layers.Transpose, layers.Reshape, layers.Flatten, layers.Squeeze)
    while tensor in writers:
        node = writers[tensor]
        if isinstance(node.layer, layers.DequantizeLinear):
            return known[node.inputs[0]][1]
        if not isinstance(node.layer, passing):
            return None
        tensor = node.inputs[0]
    return None


def array_share(macs: int, off: Sequence[OffArray]) -> float | None:
    """Return the share of a model's MACs that run on the array; None if there are none, or some not known."""
    found = [node.macs for node in off]
    counted = macs + sum(filter(None, found))
    return macs / counted if counted and None not in found else None


def share_lines(macs: int, off: Sequence[OffArray]) -> list[str]:
    """Return a few lines that say what share of the MACs is off the array, and why; none if all run on it.

    `macs` is how many run on the array: some do.
    """
    if not off:
        return []
    counted = macs + sum(node.macs or 0 for node in off)
    bound = "at most " * any(node.macs is None for node in off)
    share = f"{bound}{percent(macs / counted)} of the MACs run on the array"
    head = f"warning: less than half: {share}" if 2 * macs < counted else share
    return off_array_lines(off, f"{head}; off it")


MACS_BY_PLACE = {"on the array": "macs", "on the host": "host_macs"}
"""Series of a chart of MACs, by key of the rows."""


def off_array_columns(off: Sequence[OffArray]) -> tuple[str, ...]:
    """Return the names of the columns of MACs off the array and of why they are, if there are some."""
    return ("host_macs", "off_array") if off else ()


def macs_text(totals: Mapping[str, Any]) -> str:
    """Return the MACs of totals in words: on the array and off it."""
    macs, host, share = totals["macs"], totals["host_macs"], totals["array_share"]
    off = f"{macs:,} on the array, {host:,} on the host"
    return f"{macs:,}" if not host else off if share is None else f"{off}: {percent(share)} on the array"


def off_array_lines(nodes: Sequence[OffArray], head: str = "no MAC runs on the array") -> list[str]:
    """Return a few lines that explain why no MAC, or not every one, runs on the array."""
    if not nodes:
        return ["no MAC runs on the array: no node multiplies matrices"]
    lines = []
    for reason in dict.fromkeys(node.reason for node in nodes):
        here = [node for node in nodes if node.reason == reason]
        kinds = ", ".join(
            f"{count} {kind}" for kind, count in Counter(node.layer for node in here).most_common(3)
        )
        more = "" if len({node.layer for node in here}) <= 3 else " and others"
        names = ", ".join(repr(node.node) for node in here[:2]) + (", ..." if len(here) > 2 else "")
        lines.append(f"{kinds}{more} ({names}): {reason}")
    if len(lines) > _LINES:
        more = f"and {len(lines) - _LINES + 1} more reasons (--json lists every node)"
        lines = [*lines[: _LINES - 1], more]
    return [f"{head}: {lines[0]}", *(f"  {line}" for line in lines[1:])]
