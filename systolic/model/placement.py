"""Placement: which nodes multiply matrices off the array, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from systolic import layers
from systolic.layers import ArrayLayer
from systolic.layers.float_products import on_array
from systolic.layers.host.subgraphs import inner_nodes
from systolic.model.inference import Tensor
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

    Examples
    --------
    >>> from systolic.model.placement import OffArray
    >>> OffArray("lstm", "LSTM", "computed by ONNX Runtime").to_dict()["reason"]
    'computed by ONNX Runtime'
    """

    node: str
    layer: str
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return {"node": self.node, "layer": self.layer, "reason": self.reason}


def off_array(
    nodes: Sequence[Node], known: Mapping[str, Tensor], hosted: Collection[str] = ()
) -> tuple[OffArray, ...]:
    """Return the nodes that multiply matrices off the array, and why.

    Call it only for a model of which no MAC runs on the array: nodes on the array then count as empty
    products. `known` is the result of ``Model.infer_shapes``, `hosted` are the names of nodes with products
    that a program leaves to the host.
    """
    writers = {tensor: node for node in nodes for tensor in node.outputs}
    found = []
    for node in nodes:
        reason = _HOSTED if node.name in hosted else _reason(node, known, writers)
        if reason is not None:
            found.append(OffArray(node.name, node.layer.kind, reason))
    return tuple(found)


_BESIDE = "the array takes them beside constant weights of 4 or 8 bits"

_HOSTED = "on a machine with memories the host computes it (docs/compiler.md); --ideal runs it on the array"


def _reason(node: Node, known: Mapping[str, Tensor], writers: Mapping[str, Node]) -> str | None:
    layer = node.layer
    if isinstance(layer, ArrayLayer):
        return "its product is empty"
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


def off_array_lines(nodes: Sequence[OffArray]) -> list[str]:
    """Return a few lines that explain why no MAC runs on the array."""
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
    return [f"no MAC runs on the array: {lines[0]}", *(f"  {line}" for line in lines[1:])]
