"""Floats as if quantized: QuantizeLinear and DequantizeLinear as a quantizer puts them, with made-up scales.

Only what such a graph costs means anything. Weights become zeros, which takes no data of theirs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from systolic.frontend.operators import Graph, Operator
from systolic.frontend.qdq import simplify
from systolic.frontend.qdq.editing import CAPTURED, Editor, Reader
from systolic.frontend.qdq.groups import RULES

AS_IF = "costed as if quantized to int8: its products are of floats"
"""Note of a model that was read so."""

_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_CLIPS = ("Clip", "Relu")
_NORMALIZED = ("Conv", "ConvTranspose", "Gemm")

# Of these the codes of the output are those of the input.
_MOVES = (
    "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "MaxPool", "ReduceMax", "ReduceMin",
    "Reshape", "Resize", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
)  # fmt: skip
_WRAPPED = (*(name for name in RULES if name != "ArgMax"), "ConvTranspose")

# What is no float, whatever it reads.
_OTHERS = (
    "And", "ArgMax", "ArgMin", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual",
    "NonZero", "Not", "Or", "Shape", "Size", "Xor",
)  # fmt: skip

_FLOAT = 1  # TensorProto.FLOAT
_SCALE = np.float32(1 / 16)

_WIDEST = 1e30
"""Bounds farther apart than this are none."""

Params = tuple[np.float32, int]
"""Scale and zero point of codes of int8."""


def has_float_products(graph: Graph) -> bool:
    """Whether a graph multiplies matrices of floats, and nothing in it is quantized."""
    types = {op.op_type for op in graph.operators}
    coded = any("Quantize" in name or name.startswith(("QLinear", "QGemm", "QAtt")) for name in types)
    return not graph.noted and not coded and not types.isdisjoint(_PRODUCTS)


def quantize_as_if(graph: Graph) -> bool:
    """Put Q and DQ around the operators of a graph that a quantizer takes; say if one is a product."""
    edit = Editor(graph)
    simplify.evaluate_constants(edit)
    simplify.drop_identities(edit)
    _fold_norms(edit)
    simplify.join_clips(edit)
    floats = _floats(edit)
    wrapped = [op for op in edit.graph.operators if _is_wrapped(edit, op, floats)]
    behind = {op.outputs[0] for op in wrapped}
    moving = floats - graph.constants.keys()
    read = {tensor for op in wrapped for tensor in op.inputs if tensor in moving}
    tensors = [*graph.inputs, *(tensor for op in edit.graph.operators for tensor in op.outputs)]
    for tensor in tensors:
        writer = edit.writers.get(tensor)
        if writer is not None and writer.key == ("", "Split") and tensor in floats:
            behind.add(tensor)
        clip = writer is not None and writer.op_type in _CLIPS and writer.inputs[0] in behind
        if tensor not in floats or not (tensor in read or tensor in behind or clip):
            continue
        reader = edit.only_reader(tensor)
        if reader is not None and reader.op.key in {("", name) for name in _CLIPS} and tensor in behind:
            continue  # the range of the codes does it
        _quantize(edit, tensor, _params(edit, writer))
    for op in list(edit.graph.operators):
        if op.domain == "" and op.op_type in _WRAPPED:
            _quantize_constants(edit, op)
    edit.finish()
    return any(op.op_type in _PRODUCTS for op in wrapped)


def _is_wrapped(edit: Editor, op: Operator, floats: set[str]) -> bool:
    if op.domain != "" or op.op_type not in _WRAPPED or not op.has(0):
        return False
    constants = edit.graph.constants
    sides = op.inputs[:2] if op.op_type in (*_PRODUCTS, "Add", "Mul") else op.inputs[:1]
    if op.op_type == "Concat":
        sides = op.inputs
    return all(tensor in floats for tensor in sides) and any(tensor not in constants for tensor in sides)


def _floats(edit: Editor) -> set[str]:
    """Return the tensors of float32, as far as that follows from the file or from what writes them."""
    graph = edit.graph
    found = {name for name, array in graph.constants.items() if array.dtype == np.float32}
    found |= {name for name, spec in graph.inputs.items() if spec.dtype == "float32"}
    for op in graph.operators:
        for tensor in filter(None, op.outputs):
            stated = graph.declared.get(tensor, (None, None))[0]
            if stated is not None:
                is_float = stated == "float32"
            elif op.op_type in ("Cast", "ConstantOfShape"):
                is_float = op.attribute("to", 0) == _FLOAT
            else:
                first = op.inputs[1:2] if op.op_type == "Where" else op.inputs[:1]
                is_float = op.op_type not in _OTHERS and all(name in found for name in first) and bool(first)
            if is_float:
                found.add(tensor)
    return found


def _fold_norms(edit: Editor) -> None:
    """Leave out a BatchNormalization that a quantizer folds into the weights of the product before it."""
    for op in list(edit.graph.operators):
        if op.key != ("", "BatchNormalization") or any(op.outputs[1:]):
            continue
        product = edit.writer(op, 0)
        if product is None or product.domain != "" or product.op_type not in _NORMALIZED:
            continue
        if edit.only_reader(op.inputs[0]) is None:
            continue
        edit.remove(op)
        inputs = product.inputs
        if len(inputs) < 3 or not inputs[2]:
            # Folding makes a bias: of as many channels as the norm has.
            count = op.constants[op.inputs[1]].size if op.inputs[1] in op.constants else None
            if count is not None:
                bias = edit.add_constant(f"{op.outputs[0]}.bias", np.zeros(count, np.float32))
                inputs = (*inputs[:2], bias)
        edit.replace(product, edit.changed(product, inputs, op.outputs))


def _params(edit: Editor, writer: Operator | None) -> Params:
    """Return the codes of what an operator writes: of its bounds, of its input if it moves that, or any."""
    if writer is None:
        return _SCALE, 0
    if writer.key == ("", "Relu"):
        return _SCALE, -128
    if writer.key == ("", "Clip"):
        bounds = simplify.clip_bounds(edit, writer)
        low, high = (0.0, 0.0) if bounds is None else map(float, bounds)
        if low <= 0 < high and high - low < _WIDEST:
            scale = np.float32((high - low) / 255)
            return scale, int(np.clip(np.rint(-128 - low / scale), -128, 127))
    if writer.domain == "" and writer.op_type in _MOVES:
        dq = edit.writer(writer, 0)
        if dq is not None and edit.is_dq(dq):
            held = edit.graph.constants
            return np.float32(held[dq.inputs[1]]), int(held[dq.inputs[2]])
    return _SCALE, 0


def _quantize(edit: Editor, tensor: str, params: Params) -> None:
    """Put a pair of Q and DQ for each reader behind a tensor."""
    readers = edit.reads(tensor)
    if any(reader.place == CAPTURED for reader in readers):
        return
    source = tensor
    if edit.is_output(tensor):
        writer = edit.writers.get(tensor)
        if writer is None:
            return
        source = edit.name(f"{tensor}.float")
        outputs = [source if name == tensor else name for name in writer.outputs]
        edit.replace(writer, edit.changed(writer, writer.inputs, outputs))
    like = edit.writers.get(source) or next((reader.op for reader in readers), None)
    if like is None:
        return
    scale = edit.add_constant(f"{tensor}.scale", np.float32(params[0]))
    zero = edit.add_constant(f"{tensor}.zero", np.int8(params[1]))
    codes = edit.name(f"{tensor}.codes")
    made = [edit.make("QuantizeLinear", (source, scale, zero), (codes,), like)]
    backs = [edit.name(f"{tensor}.back") for _ in readers]
    targets = [*backs, tensor] if source != tensor else backs
    made += [edit.make("DequantizeLinear", (codes, scale, zero), (name,), like) for name in targets]
    if source in edit.writers:
        edit.insert(edit.writers[source], *made, after=True)
    else:
        edit.insert(next(iter(edit.graph.operators)), *made, after=False)
    for reader, back in zip(readers, backs, strict=True):
        # An operator that reads the tensor twice has been changed at the first place by now.
        op = edit.writers[next(filter(None, reader.op.outputs))]
        edit.set_input(Reader(op, reader.place), back)


def _quantize_constants(edit: Editor, op: Operator) -> None:
    """Let an operator that reads codes read zeros of int8 instead of constants of float32, but its bias."""
    dqs = [place for place in range(len(op.inputs)) if edit.is_dq(edit.writer(op, place))]
    places: Any = range(len(op.inputs)) if op.op_type in ("Concat", "Add", "Mul") else (0, 1)
    if not dqs or op.op_type not in (*_PRODUCTS, "Concat", "Add", "Mul"):
        return
    for place in places:
        value = edit.constant(op, place)
        if value is None or value.dtype != np.float32:
            continue
        stem = op.inputs[place]
        inputs = (
            edit.add_constant(f"{stem}.codes", np.broadcast_to(np.int8(0), value.shape)),
            edit.add_constant(f"{stem}.scale", _SCALE),
            edit.add_constant(f"{stem}.zero", np.int8(0)),
        )
        back = edit.name(f"{stem}.back")
        edit.insert(op, edit.make("DequantizeLinear", inputs, (back,), op), after=False)
        now = edit.writers[next(filter(None, op.outputs))]
        op = edit.set_input(Reader(now, place), back)
