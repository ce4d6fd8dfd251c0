"""Which nodes of a float model become int8, and why the others do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from systolic import layers
from systolic.calibrate.folding import Known, has_rows, rank_of
from systolic.layers import FloatConv, FloatMatMul, Layer
from systolic.model import Model, Node

# Their output is made of numbers of the first input, so that it has the same codes.
MOVES = (
    "Clip", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Pad", "ReduceMax", "ReduceMin", "Relu",
    "Reshape", "Resize", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip

# ONNX Runtime's int8 operators beside products; of the first three every input is quantized.
SEVERAL = ("Add", "Concat", "Mul")
SINGLE = ("AveragePool", "GlobalAveragePool", "LeakyRelu", "ReduceMean", "Sigmoid", "Softmax")

_PRODUCTS = (
    "FloatConv", "FloatConvTranspose", "FloatMatMul", "FusedConv", "FusedGemm", "FusedMatMul", "GRU", "LSTM",
    "MatMulNBits", "RNN",
)  # fmt: skip

# Larger numbers stand for infinity, in masks.
_WIDEST = 1e30

_MOST_AXES = 3  # spatial ones, of a pool of codes
_PAD_VALUE = 2  # the place of a Pad's value among its inputs


@dataclass(frozen=True)
class Choice:
    """What becomes of each node.

    Attributes
    ----------
    reasons : dict of str to (str or None)
        By the output of each node that computes with the data: why it stays float, or None.
    results : frozenset of str
        Those of products that are written as float32, without a scale.
    fused : dict of str to Node
        The Relu or Clip behind a node, by that node's output, that the range of its codes computes.
    """

    reasons: dict[str, str | None]
    results: frozenset[str]
    fused: dict[str, Node]

    def quantized(self, node: Node) -> bool:
        """Whether a node becomes int8."""
        return self.reasons.get(node.output, "") is None


def is_product(layer: Layer) -> bool:
    """Whether a layer multiplies matrices."""
    return layer.kind in _PRODUCTS


def choose(model: Model, known: Known) -> Choice:
    """Choose the nodes that become int8.

    Products do, wherever they stand. What lies beside them does if it reads codes and has an int8 form, but
    for a Softmax whose result no product reads.
    """
    reached = _reached(model, known)
    inputs = frozenset(name for name in model.inputs if known[name][1] == "float32")
    coded = inputs & reached
    data = set(model.inputs)
    reasons: dict[str, str | None] = {}
    for node in model.nodes:
        if data.isdisjoint(node.inputs) or isinstance(node.layer, layers.ShapeOf):
            continue
        written = set(filter(None, node.outputs))
        data |= written
        if not any(known[name][1].startswith("float") for name in written.union(node.inputs)):
            continue
        reason = reasons[node.output] = _reason(node, model.constants, known, coded, inputs, reached)
        if reason is None:
            coded |= written
    fused = _fused(model, reasons)
    return Choice(reasons, _results(model, known, reasons, fused), fused)


def _reached(model: Model, known: Known) -> set[str]:
    """Return the tensors that products read, or that moves carry to one."""
    reached: set[str] = set()
    for node in reversed(model.nodes):
        if isinstance(node.layer, FloatConv | FloatMatMul) and _of_product(node, known) is None:
            reached |= set(node.inputs)
        elif node.layer.kind in MOVES and not reached.isdisjoint(node.outputs):
            reached.add(node.inputs[0])
    return reached


def _reason(
    node: Node,
    constants: Mapping[str, np.ndarray],
    known: Known,
    coded: Set[str],
    inputs: Set[str],
    reached: Set[str],
) -> str | None:
    layer: Any = node.layer
    kind = operator_of(layer)
    types = {known[name][1] for name in (*node.inputs, *filter(None, node.outputs))} & {"float16", "float64"}
    if types:
        return f"it computes in {min(types)}; int8 takes the place of float32"
    if isinstance(layer, FloatConv | FloatMatMul):
        return _of_product(node, known)
    if kind in MOVES:
        return _of_move(node, constants, known, coded)
    if kind == "BatchNormalization":
        return "it is behind no Conv, Gemm or MatMul that nothing else reads"
    if kind not in (*SEVERAL, *SINGLE):
        return f"there is no int8 operator of {kind.removeprefix('Float')}"
    read = node.inputs if kind in SEVERAL else node.inputs[:1]
    for name in read:
        if name in constants and not np.abs(constants[name]).max(initial=0) < _WIDEST:
            return f"it reads {name!r}, whose numbers are too large for a scale"
        if name not in coded and name not in constants and not (len(read) > 1 and name in inputs):
            return f"it reads {name!r}, which is float32"
    if coded.isdisjoint(read):
        return "it reads inputs of the model alone"
    return _of_kind(node, kind, known, reached)


def operator_of(layer: Any) -> str:
    """Return the name of a layer's operator."""
    return str(getattr(layer, "operator", layer.kind))


def _of_product(node: Node, known: Known) -> str | None:
    layer: Any = node.layer
    if known[node.inputs[0]][1] != "float32":
        return f"it computes in {known[node.inputs[0]][1]}; int8 takes the place of float32"
    if layer.activation not in (None, "Relu"):
        return f"it is fused with {layer.activation}; quantize the model that ONNX Runtime has not optimized"
    if layer.weight is not None:
        return None
    if isinstance(layer, FloatConv):
        return "its weights or bias are computed, or it adds a tensor; int8 weights are constants"
    plain = layer == FloatMatMul(runtime_constants=layer.runtime_constants) and len(node.inputs) == 2
    if plain and all((rank_of(known, name) or 0) > 1 for name in node.inputs):
        return None
    return "a product of two computed matrices is int8 without a transpose, factor, sum or vector alone"


def _of_move(
    node: Node, constants: Mapping[str, np.ndarray], known: Known, coded: Set[str]
) -> str | None:
    layer: Any = node.layer
    name = node.inputs[0]
    if name not in coded:
        return f"it reads {name!r}, which is float32"
    if getattr(layer, "indices", None) is not None:
        return "there is no int8 operator of MaxPool with indices"
    beyond = node.inputs[_PAD_VALUE:] if isinstance(layer, layers.Pad) else ()
    if len(beyond) > 1 or any(name not in constants for name in beyond):
        return "a Pad is int8 without an input for axes, and with a constant value"
    types = [known[read][1] for read in node.inputs]
    for place in (0, 2) if isinstance(layer, layers.Pad) and len(types) > _PAD_VALUE else (0,):
        types[place] = "int8"
    try:
        layer.output_dtype(*types)
    except (TypeError, ValueError):
        if not isinstance(layer, layers.Clip):  # its bounds become codes
            return f"there is no int8 operator of this {layer.kind}"
    return None


def _of_kind(node: Node, kind: str, known: Known, reached: Set[str]) -> str | None:
    layer: Any = node.layer
    rank = rank_of(known, node.inputs[0])
    if kind == "AveragePool" and (len(layer.kernel) > _MOST_AXES or set(layer.dilation) != {1}):
        return "an AveragePool is int8 over 1 to 3 axes and without dilation"
    if kind == "ReduceMean":
        axes = layer.axes
        if axes is None or rank is None or rank < 3 or {axis % rank for axis in axes} != {*range(2, rank)}:
            return "a ReduceMean is int8 over all axes behind the channels, as a GlobalAveragePool"
    if kind == "Softmax" and node.output not in reached:
        return "no product reads its probabilities, which are more exact in float32"
    return None


def _fused(model: Model, reasons: Mapping[str, str | None]) -> dict[str, Node]:
    """Return the Relu or Clip behind nodes whose scale follows from a range, if nothing else reads them."""
    readers: dict[str, list[Node]] = {}
    for node in model.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    found = {}
    for node in model.nodes:
        behind = readers.get(node.output, [])
        if reasons.get(node.output, "") is not None or operator_of(node.layer) in (*MOVES, "Softmax"):
            continue  # their scale does not follow from a range
        if len(behind) == 1 and node.output not in model.outputs and _holds_zero(behind[0].layer):
            found[node.output] = behind[0]
    return found


def _holds_zero(layer: Layer) -> bool:
    """Whether a layer clips to a range that takes in 0, as every range of codes does."""
    if isinstance(layer, layers.Clip):
        return (layer.low is None or layer.low <= 0) and (layer.high is None or layer.high >= 0)
    return isinstance(layer, layers.Relu)


def _results(
    model: Model, known: Known, reasons: Mapping[str, str | None], fused: Mapping[str, Node]
) -> frozenset[str]:
    """Return the outputs of held matrix products that no int8 node reads."""
    read = Counter(n for node in model.nodes if reasons.get(node.output, "") is None for n in node.inputs)
    return frozenset(
        node.output
        for node in model.nodes
        if isinstance(node.layer, FloatMatMul)
        and reasons.get(node.output, "") is None
        and node.layer.weight is not None
        and node.layer.activation is None
        and node.output not in fused
        and not read[node.output]
        and has_rows(known, node.inputs[0])
    )
