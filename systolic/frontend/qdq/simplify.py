"""Simplify a graph before its groups are replaced.

No rewrite changes a number, except `quantize_constants`, and `join_matmul_add` where a sum is rounded once
instead of twice.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from systolic.frontend.operators import Graph, Operator, Sizes
from systolic.frontend.qdq.editing import Codes, Editor
from systolic.frontend.qdq.spread import moves
from systolic.frontend.read import declared
from systolic.layers.host.evaluator import inferred

_CONSTANTS = {
    "value_float": "float32", "value_floats": "float32", "value_int": "int64", "value_ints": "int64",
}  # fmt: skip

_CODES = {"int8": (-128, 127), "uint8": (0, 255)}

_RANDOM = (
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli",
)  # fmt: skip

_DATA_LIMIT = 64
"""Constants of no more numbers are given with their values: they may be shapes."""

# Processor time for the whole graph: some hundred times the usual need.
_SECONDS, _SECONDS_PER_NODE = 1.0, 1e-3


def evaluate_constants(edit: Editor) -> None:
    """Turn Constant operators, and Identity and Transpose of a constant, into constants."""
    from onnx import numpy_helper

    for op in list(edit.graph.operators):
        if op.domain != "" or len(op.outputs) != 1 or edit.is_output(op.outputs[0]):
            continue
        value = edit.constant(op, 0) if op.op_type in ("Identity", "Transpose") else None
        if value is not None and op.op_type == "Transpose":
            value = _transposed(value, op)
        if op.op_type == "Constant":
            for name, given in op.attributes.items():
                if name == "value":
                    value = numpy_helper.to_array(given)
                elif name in _CONSTANTS:
                    value = np.asarray(given, dtype=_CONSTANTS[name])
        if value is not None:
            edit.graph.constants[op.outputs[0]] = value
            edit.remove(op)


def _transposed(value: np.ndarray, op: Operator) -> np.ndarray | None:
    order = [int(axis) for axis in op.attribute("perm", range(value.ndim)[::-1])]
    fits = sorted(order) == list(range(value.ndim))
    return np.ascontiguousarray(value.transpose(order)) if fits else None


def drop_identities(edit: Editor) -> None:
    """Remove what returns its input: Identity, and Dropout outside training."""
    for op in list(edit.graph.operators):
        if op.domain != "" or op.op_type not in ("Identity", "Dropout") or not op.has(0):
            continue
        if any(edit.reads(extra) or edit.is_output(extra) for extra in op.outputs[1:]):
            continue
        if op.op_type == "Dropout" and op.has(2):
            training = edit.constant(op, 2)
            if training is None or training.any():
                continue
        if not edit.is_output(op.outputs[0]) and edit.redirect(op.outputs[0], op.inputs[0]):
            edit.remove(op)


def merge_equals(edit: Editor) -> None:
    """Let one operator stand for those that compute the same: exporters write a Q for each reader."""
    first: dict[Any, Operator] = {}
    for outputs in [op.outputs for op in edit.graph.operators]:
        # By its output, since operators before it may have changed what it reads.
        op = next((edit.writers[tensor] for tensor in outputs if tensor), None)
        if op is None or op.op_type in _RANDOM or edit.is_dq(op):
            continue
        if any(edit.is_dq(edit.writer(op, place)) for place in range(len(op.inputs))):
            continue  # ONNX Runtime gives every reader a DQ of its own
        if any(hasattr(value, "node") for value in op.attributes.values()):
            continue  # it holds a subgraph
        key = (
            op.key,
            tuple(_same_constant(edit, tensor) for tensor in op.inputs),
            tuple(bool(tensor) for tensor in op.outputs),
            repr(sorted(op.attributes.items())),
        )
        kept = first.setdefault(key, op)
        if kept is op or any(edit.is_output(tensor) for tensor in (*op.outputs, *kept.outputs)):
            continue
        if all(edit.redirect(old, new) for old, new in zip(op.outputs, kept.outputs, strict=True) if old):
            edit.remove(op)


def _same_constant(edit: Editor, tensor: str) -> Any:
    # ONNX Runtime takes equal numbers of these types for one, others by name (constant_sharing.cc).
    value = edit.graph.constants.get(tensor)
    if value is not None and value.size == 1 and value.dtype.name in ("float32", "int32", "int64"):
        return value.dtype.name, value.shape, value.tobytes()
    return tensor


def join_matmul_add(edit: Editor) -> None:
    """Fuse MatMul and Add into one Gemm, where shapes allow it (``matmul_add_fusion.cc``)."""
    pairs = []
    codes: dict[str, bool] = {}
    for op in edit.graph.operators:
        if (
            op.key == ("", "MatMul")
            and _is_codes(edit, op.inputs[0], codes)
            and (op.inputs[1] in edit.graph.constants or _is_codes(edit, op.inputs[1], codes))
        ):
            reader = edit.only_reader(op.outputs[0])
            if reader is not None and reader.op.key == ("", "Add") and reader.op.opset >= 7:
                pairs.append((op, reader))
    if not pairs:
        return
    shapes = _shapes(edit.graph)
    for matmul, (add, place) in pairs:
        addend = add.inputs[1 - place]
        a, b, c = (shapes.get(name) for name in (*matmul.inputs, addend))
        if a is None or b is None or c is None or not _fits_gemm(a, b, c):
            continue
        inputs, outputs = (*matmul.inputs, addend), add.outputs
        attributes = {"alpha": 1.0, "beta": 1.0}
        if len(a) == 2:
            edit.replace(add, edit.make("Gemm", inputs, outputs, add, attributes))
        else:
            rows, product = edit.name(f"{inputs[0]}.rows"), edit.name(f"{outputs[0]}.rows")
            sizes = [size for size in a if size is not None]
            m, k = math.prod(sizes[:-1]), sizes[-1]
            before = edit.add_constant(f"{rows}.shape", np.array([m, k], np.int64))
            after = edit.add_constant(f"{product}.shape", np.array([*sizes[:-1], b[1]], np.int64))
            edit.replace(
                add,
                edit.make("Reshape", (inputs[0], before), (rows,), matmul),
                edit.make("Gemm", (rows, *inputs[1:]), (product,), add, attributes),
                edit.make("Reshape", (product, after), outputs, add),
            )
        edit.remove(matmul)


def _shapes(graph: Graph) -> dict[str, Sizes]:
    """Return the shapes that follow from inputs, constants and the operators that the file holds.

    Operators without a proto, which a rewrite made, are passed over.
    """
    import onnx
    from onnx import helper, numpy_helper

    def value(name: str, dtype: np.dtype, sizes: Sizes) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), sizes)

    inputs = [value(name, np.dtype(spec.dtype), spec.shape) for name, spec in graph.inputs.items()]
    inputs += [value(name, array.dtype, array.shape) for name, array in graph.constants.items()]
    small = [
        numpy_helper.from_array(array, name)
        for name, array in graph.constants.items()
        if array.size <= _DATA_LIMIT
    ]
    nodes = [op.proto for op in graph.operators if op.proto is not None]
    outputs = [onnx.ValueInfoProto(name=name) for name in graph.outputs]
    model = helper.make_model(
        helper.make_graph(nodes, "shapes", inputs, outputs, small),
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in graph.opsets.items()],
    )
    seconds = _SECONDS + _SECONDS_PER_NODE * len(nodes)
    try:
        known_graph = inferred(model, seconds, "onnx's shape inference", strict=False).graph
    except ValueError:
        return {}  # conversion finds what is wrong, and says where
    values = (*known_graph.value_info, *known_graph.output, *known_graph.input)
    found = {known.name: declared(known)[1] for known in values}
    return {name: sizes for name, sizes in found.items() if sizes is not None}


def _is_codes(edit: Editor, tensor: str, known: dict[str, bool]) -> bool:
    """Whether a tensor comes from a DQ through operators that only move elements; `known` caches results."""
    path = [tensor]
    while tensor not in known:
        op = edit.writers.get(tensor)
        if op is None or not moves(op):
            known[tensor] = edit.is_dq(op)
        else:
            tensor = op.inputs[0]
            path.append(tensor)
    known |= dict.fromkeys(path, known[tensor])
    return known[tensor]


def _fits_gemm(a: Sizes, b: Sizes, c: Sizes) -> bool:
    if len(b) != 2 or not a or (len(a) != 2 and (None in a or None in b)):
        return False
    n = b[1]
    if len(c) == 1:
        return n is not None and c[0] == n
    if len(a) != 2 or len(c) != 2:
        return False
    if c[0] == 1 and c[1] == n is not None:
        return True
    return a[0] is not None and c[0] == a[0] and (c[1] == 1 or (n is not None and c[1] == n))


def quantize_constants(edit: Editor) -> None:
    """Quantize float weights and biases of Conv, ConvTranspose and Gemm between a DQ and a Q.

    Weights as int8 with one scale, ``scale = f32((max - min) / 255)``, zero among them; biases as
    int32, ``rne(f32(bias / f32(x_scale * w_scale)))`` (``weight_bias_quantization.cc``).
    """
    for op in list(edit.graph.operators):
        if (
            op.domain != ""
            or op.op_type not in ("Conv", "ConvTranspose", "Gemm")
            or not _leads_to_q(edit, op)
        ):
            continue
        x = edit.writer(op, 0)
        x_codes = edit.codes(x) if x is not None and edit.is_dq(x) else None
        if x_codes is None or x_codes.scale.size != 1:
            continue
        bias = edit.constant(op, 2)
        if op.has(2) and (bias is None or bias.ndim != 1 or bias.dtype != np.float32):
            continue
        w, computed = edit.writer(op, 1), False
        if w is not None and edit.is_dq(w):
            codes = edit.codes(w)
            if codes is None or bias is None or not _scales_channels(edit, op, w, codes, bias.size):
                continue
            scale = codes.scale
            # ONNX Runtime declares the product of both scales to have w's shape. If it has x's shape, it is
            # not evaluated, and no convolution is replaced whose bias has a computed scale.
            computed = op.op_type != "Gemm" and x_codes.scale.ndim > scale.ndim
        else:
            weight = edit.constant(op, 1)
            if weight is None or weight.dtype != np.float32 or not np.isfinite(weight).all():
                continue
            op, scale = _quantize_weight(edit, op, weight)
        if bias is not None:
            with np.errstate(all="ignore"):
                steps = (x_codes.scale.reshape(()) * scale).astype(np.float32)
            _quantize_bias(edit, op, bias, steps, computed=computed)


def _leads_to_q(edit: Editor, op: Operator) -> bool:
    while True:
        readers = {reader.op for reader in edit.reads(op.outputs[0])}
        if len(readers) != 1:
            return False
        (op,) = readers
        if edit.is_q(op):
            return True
        if op.key not in _CLIPS:
            return False


def _scales_channels(edit: Editor, op: Operator, w: Operator, codes: Codes, channels: int) -> bool:
    if codes.scale.size == 1:
        return True
    weight = edit.graph.constants.get(w.inputs[0])
    if weight is not None and not weight.ndim:
        return False
    axis = codes.axis if weight is None else codes.axis % weight.ndim
    expected = 0
    if op.op_type == "Gemm":
        expected = 0 if op.attribute("transB", 0) else 1
    return codes.scale.size == channels and axis == expected


def _quantize_weight(edit: Editor, op: Operator, weight: np.ndarray) -> tuple[Operator, np.ndarray]:
    """Return the operator that reads the weight's DQ, and its scale."""
    low = np.float32(min(weight.min(initial=0), 0))
    high = np.float32(max(weight.max(initial=0), 0))
    # The range of finite weights may be infinite, or too small for a scale.
    with np.errstate(all="ignore"):
        scale = np.float32(np.float32(high - low) / np.float32(255))
    if low == high or not 0 < scale < np.inf:
        scale = np.float32(1)
    with np.errstate(all="ignore"):
        zero = np.int8(np.rint(np.clip(np.float32(-128) - np.float32(low / scale), -128, 127)))
        steps = np.clip(np.rint(weight / scale) + np.float32(zero), -128, 127)
    stem = op.inputs[1]
    inputs = (
        edit.add_constant(f"{stem}.codes", steps.astype(np.int8)),
        edit.add_constant(f"{stem}.scale", scale),
        edit.add_constant(f"{stem}.zero", zero),
    )
    made = edit.make("DequantizeLinear", inputs, (edit.name(f"{stem}.back"),), op)
    return _put_in_front(edit, op, 1, made), np.asarray(scale)


def _quantize_bias(
    edit: Editor, op: Operator, bias: np.ndarray, scale: np.ndarray, *, computed: bool
) -> None:
    with np.errstate(all="ignore"):
        steps = np.rint(bias / scale)
        # What does not fit becomes the smallest integer, as on x86.
        fits = np.abs(steps) < 2**31
        codes = np.where(fits, np.where(fits, steps, 0).astype(np.int64), -(2**31)).astype(np.int32)
        numbers = codes.astype(np.float32) * scale
    stem = op.inputs[2]
    if op.op_type != "Gemm" and not np.isfinite(scale).all():
        # Our DequantizeLinear takes no such scale; its results are infinite or NaN.
        inputs = (*op.inputs[:2], edit.add_constant(f"{stem}.back", numbers))
        edit.replace(op, edit.changed(op, inputs, op.outputs))
        return
    name = edit.add_constant(f"{stem}.scale", scale)
    if computed:
        made = edit.make("Identity", (name,), (edit.name(f"{name}.computed"),), op)
        edit.insert(op, made, after=False)
        (name,) = made.outputs
    inputs = (edit.add_constant(f"{stem}.codes", codes), name)
    attributes = {"axis": 0} if scale.ndim else {}
    made = edit.make("DequantizeLinear", inputs, (edit.name(f"{stem}.back"),), op, attributes)
    _put_in_front(edit, op, 2, made)


def _put_in_front(edit: Editor, op: Operator, place: int, made: Operator) -> Operator:
    edit.insert(op, made, after=False)
    changed = edit.changed(
        op, [made.outputs[0] if at == place else tensor for at, tensor in enumerate(op.inputs)], op.outputs
    )
    edit.replace(op, changed)
    return changed


_CLIPS = (("", "Relu"), ("", "Clip"))

_FUSES = {"Conv": ("Relu", "Clip"), "Gemm": ("Relu",)}
"""Float operators and the activations that ONNX Runtime fuses into their kernels."""


def join_clips(edit: Editor) -> None:
    """Merge a Relu and a following Clip of constant float32 bounds into one Clip."""
    for relu in reversed(list(edit.graph.operators)):
        reader = edit.only_reader(relu.outputs[0]) if relu.key == ("", "Relu") else None
        clip = reader.op if reader is not None and reader.place == 0 else None
        bounds = clip_bounds(edit, clip) if clip is not None and clip.key == ("", "Clip") else None
        if clip is None or bounds is None:
            continue
        low, high = np.maximum(bounds[0], np.float32(0)), bounds[1]
        inputs, attributes = relu.inputs[:1], {}
        types = {edit.graph.constants[tensor].dtype.name for tensor in clip.inputs[1:] if tensor}
        if clip.opset < 11:
            attributes = {"min": float(low), "max": float(high)}
        elif types == {"float32"}:
            names = (f"{inputs[0]}.min", f"{inputs[0]}.max")
            inputs += tuple(map(edit.add_constant, names, (low, high)))
        else:
            continue
        edit.remove(relu)
        edit.replace(clip, edit.make("Clip", inputs, clip.outputs, clip, attributes))


def drop_implied_clips(edit: Editor) -> None:
    """Remove a Relu or Clip whose only reader is a Q that saturates no later.

    Of several after a Conv or Gemm only the last goes: ONNX Runtime fuses the first with the operator.
    """
    fused = set()
    for op in reversed(list(edit.graph.operators)):
        if op.key not in _CLIPS or not _is_implied(edit, op):
            continue
        first, source = op, edit.writer(op, 0)
        while source is not None and source.key in _CLIPS:
            first, source = source, edit.writer(source, 0)
        if source is not None and source.domain == "" and first.op_type in _FUSES.get(source.op_type, ()):
            if source.outputs[0] in fused:
                continue
            fused.add(source.outputs[0])
        if edit.redirect(op.outputs[0], op.inputs[0]):
            edit.remove(op)


def _is_implied(edit: Editor, op: Operator) -> bool:
    reader = edit.only_reader(op.outputs[0])
    codes = edit.codes(reader.op) if reader is not None and edit.is_q(reader.op) else None
    if codes is None or codes.zero is None or not codes.scalar or codes.dtype not in _CODES:
        return False
    lowest, highest = _CODES[codes.dtype]
    if op.op_type == "Relu":
        return int(codes.zero.item()) == lowest
    bounds = clip_bounds(edit, op)
    if bounds is None or codes.vector:
        return False
    scale, zero = np.float32(codes.scale), int(codes.zero.item())
    epsilon = np.finfo(np.float32).eps
    with np.errstate(all="ignore"):
        low, high = (np.float32(scale * np.float32(code - zero)) for code in (lowest, highest))
    return bool(bounds[0] - low <= epsilon and high - bounds[1] <= epsilon)


def clip_bounds(edit: Editor, op: Operator) -> tuple[np.float32, np.float32] | None:
    """Return a Clip's bounds in float32, None if they are computed."""
    most = np.finfo(np.float32).max
    if op.opset < 11:
        return np.float32(op.attribute("min", -most)), np.float32(op.attribute("max", most))
    bounds = []
    for place, absent in ((1, -most), (2, most)):
        value = edit.constant(op, place) if op.has(place) else np.float32(absent)
        if value is None or np.size(value) != 1:
            return None
        bounds.append(np.float32(np.asarray(value).item()))
    return bounds[0], bounds[1]
