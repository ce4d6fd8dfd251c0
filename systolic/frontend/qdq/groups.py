"""Which groups of DQ, operator and Q become one integer operator, and which operator that is.

The conditions are ONNX Runtime's (``selectors_actions/qdq_selectors.cc``, its bias rule by trial).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from systolic.frontend.operators import Operator
from systolic.frontend.qdq.editing import Codes, Editor
from systolic.frontend.qdq.simplify import clip_bounds
from systolic.layers.dequantized import DOMAIN as DEQUANTIZED
from systolic.layers.record import MICROSOFT

_LIMITS = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767), "uint16": (0, 65535)}

_BIAS_TOLERANCE = 1e-2, 1e-6
"""A Conv's bias may have a scale off x_scale * w_scale by this share of it and this much."""


@dataclass(frozen=True)
class _Ends:
    """What stands around an operator: its DQs by place, and the Q behind it.

    `q` is None if no Q reads the output.
    """

    op: Operator
    dqs: tuple[Operator, ...]
    x: tuple[Codes, ...]
    q: Operator | None
    y: Codes | None
    between: tuple[Operator, ...]
    """A Relu or Clip that the Q implies."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the integer operator writes."""
        return self.op.outputs if self.q is None else self.q.outputs

    def read(self, edit: Editor, count: int) -> list[str]:
        """Return the names of codes, scale and zero point of the first DQs."""
        pairs = zip(self.dqs[:count], self.x, strict=False)
        return [name for dq, codes in pairs for name in (dq.inputs[0], *_params(edit, dq, codes))]

    def written(self, edit: Editor) -> tuple[str, ...]:
        """Return the names of the Q's scale and zero point; none without a Q."""
        return () if self.q is None or self.y is None else _params(edit, self.q, self.y)

    def multiplies(self, count: int) -> bool:
        """Whether this is a product in integers of x and w, with `count` inputs at most, written as x is."""
        if not 2 <= len(self.dqs) <= count:
            return False
        x, w, *_ = self.x
        known = x.bits == w.bits == 8 and (x.dtype, w.dtype) != ("int8", "uint8") and x.scalar
        return known and (self.y is None or (self.y.dtype == x.dtype and self.y.scalar))


Rule = Callable[[Editor, _Ends], Operator | None]


def replace_groups(edit: Editor) -> None:
    """Replace every group that a rule takes."""
    for op in list(edit.graph.operators):
        rule = RULES.get(op.op_type) if op.domain == "" else None
        if rule is None:
            continue
        if op.op_type == "Split":
            _move_split(edit, op)
            continue
        ends = _ends(edit, op)
        made = rule(edit, ends) if ends is not None else None
        if ends is None or made is None:
            continue
        edit.remove(*ends.between, *([] if ends.q is None else [ends.q]))
        edit.replace(op, made)


def _ends(edit: Editor, op: Operator) -> _Ends | None:
    """Return what stands around an operator; None if no rule can take it."""
    written = [tensor for tensor in op.outputs if tensor]
    writers = [edit.writer(op, place) for place in range(len(op.inputs))]
    dqs = tuple(writer for writer in writers if writer is not None and edit.is_dq(writer))
    x = [edit.codes(dq) for dq in dqs]
    if not dqs or None in x or len(written) != 1:
        return None
    known = tuple(codes for codes in x if codes is not None)
    between: tuple[Operator, ...] = ()
    behind = edit.reads(written[0])
    clip = behind[0].op if len(behind) == 1 else None
    if clip is not None and clip.key in (("", "Relu"), ("", "Clip")) and edit.only_reader(clip.outputs[0]):
        q = edit.reads(clip.outputs[0])[0].op
        if not edit.is_q(q) or not _implies(edit, q, clip) or edit.is_output(written[0]):
            return None
        between, behind = (clip,), edit.reads(clip.outputs[0])
    qs = [reader.op for reader in behind if edit.is_q(reader.op)]
    if not qs:
        return _Ends(op, dqs, known, None, None, ())
    y = edit.codes(qs[0])
    if len(behind) != 1 or edit.is_output(written[0]) or y is None:
        return None
    return _Ends(op, dqs, known, qs[0], y, between)


def _implies(edit: Editor, q: Operator, clip: Operator) -> bool:
    """Whether a Q saturates no later than a Relu or Clip in front of it."""
    codes = edit.codes(q)
    if codes is None or codes.vector:
        return False
    if codes.dtype not in _LIMITS:
        return False
    lowest, highest = _LIMITS[codes.dtype]
    zero = 0 if codes.zero is None else int(codes.zero.item())
    if clip.op_type == "Relu":
        return zero == lowest
    bounds = clip_bounds(edit, clip)
    if bounds is None:
        return False
    with np.errstate(all="ignore"):
        low, high = (np.rint(bound / np.float32(codes.scale)) + zero for bound in bounds)
    return bool(low <= lowest and high >= highest)


# Rules


def _whole(ends: _Ends) -> bool:
    """Whether every input is a DQ's."""
    return len(ends.dqs) == sum(bool(tensor) for tensor in ends.op.inputs)


def _conv(edit: Editor, ends: _Ends) -> Operator | None:
    if ends.q is None or not _whole(ends) or not ends.multiplies(3):
        return None
    x, w = ends.x[:2]
    weight = edit.constant(ends.dqs[1], 0)
    if not w.scalar and w.axis != 0 and (weight is None or w.axis != -weight.ndim):
        return None
    inputs = [*ends.read(edit, 2), *ends.written(edit)]
    if len(ends.dqs) == 3:
        bias = ends.x[2]
        if bias.dtype != "int32" or not _fits_bias(x, w, bias):
            return None
        inputs.append(ends.dqs[2].inputs[0])
    return edit.make("QLinearConv", inputs, ends.outputs, ends.op, ends.op.attributes)


def _fits_bias(x: Codes, w: Codes, bias: Codes) -> bool:
    if bias.zero is not None and bias.zero.any():
        return False
    scale = bias.scale.reshape(-1)
    if 1 not in (w.scale.size, scale.size) and w.scale.size != scale.size:
        return False
    relative, absolute = _BIAS_TOLERANCE
    # Scales that are none, which no operator takes, are refused where they are used.
    with np.errstate(all="ignore"):
        product = x.scale.reshape(()) * w.scale.reshape(-1)
        return bool(np.all(np.abs(scale - product) <= absolute + relative * np.abs(product)))


def _matmul(edit: Editor, ends: _Ends) -> Operator | None:
    if not ends.multiplies(2) or not _per_column(edit, ends.dqs[1], ends.x[1], 1):
        return None
    inputs = ends.read(edit, 2)
    if ends.q is None:
        inputs = [*inputs[::3], *inputs[1::3], *inputs[2::3]]
        return edit.make("MatMulIntegerToFloat", inputs, ends.outputs, ends.op, {}, MICROSOFT)
    return edit.make("QLinearMatMul", (*inputs, *ends.written(edit)), ends.outputs, ends.op)


def _gemm(edit: Editor, ends: _Ends) -> Operator | None:
    op = ends.op
    if not _whole(ends) or not ends.multiplies(3):
        return None
    x, w = ends.x[:2]
    if x.zero is None or w.zero is None or w.zero.shape != w.scale.shape:
        return None
    transposed = bool(op.attribute("transB", 0))
    if not _per_column(edit, ends.dqs[1], w, 0 if transposed else 1):
        return None
    inputs, bias = ends.read(edit, 2), ""
    if len(ends.dqs) == 3:
        if ends.x[2].dtype != "int32":
            return None
        if op.attribute("alpha", 1.0) != 1 or op.attribute("beta", 1.0) != 1:
            return None
        bias = ends.dqs[2].inputs[0]
    if op.attribute("transA", 0):
        rows = edit.name(f"{inputs[0]}.transposed")
        edit.insert(op, edit.make("Transpose", inputs[:1], (rows,), op, {"perm": [1, 0]}), after=False)
        inputs[0] = rows
    attributes: dict[str, Any] = {"alpha": op.attribute("alpha", 1.0), "transB": int(transposed)}
    inputs += [bias] if bias or ends.q is not None else []
    inputs += ends.written(edit)
    return edit.make("QGemm", inputs, ends.outputs, op, attributes, MICROSOFT)


def _per_column(edit: Editor, dq: Operator, w: Codes, columns: int) -> bool:
    """Whether there is one scale, or one for each column of a matrix."""
    if w.scalar:
        return True
    weight = edit.constant(dq, 0)
    rank = 2 if weight is None else weight.ndim
    return rank == 2 and w.axis % rank == columns


def _binary(edit: Editor, ends: _Ends) -> Operator | None:
    if ends.y is None or len(ends.dqs) != 2 or not _one_type(ends):
        return None
    if any(codes.vector for codes in (*ends.x, ends.y)):
        return None
    inputs = [*ends.read(edit, 2), *ends.written(edit)]
    return edit.make(f"QLinear{ends.op.op_type}", inputs, ends.outputs, ends.op, {}, MICROSOFT)


def _unary(edit: Editor, ends: _Ends) -> Operator | None:
    if ends.q is None or len(ends.dqs) != 1 or not _one_type(ends):
        return None
    attributes = dict(ends.op.attributes)
    if ends.op.op_type == "AveragePool" and any(step != 1 for step in attributes.pop("dilations", ())):
        return None  # QLinearAveragePool has none
    if ends.op.op_type == "Softmax":
        attributes["opset"] = max(since for since in (1, 11, 13) if since <= ends.op.opset)
    inputs = [*ends.read(edit, 1), *ends.written(edit)]
    return edit.make(f"QLinear{ends.op.op_type}", inputs, ends.outputs, ends.op, attributes, MICROSOFT)


def _concat(edit: Editor, ends: _Ends) -> Operator | None:
    if ends.q is None or not _whole(ends) or not _one_type(ends):
        return None
    inputs = [*ends.written(edit), *ends.read(edit, len(ends.dqs))]
    return edit.make("QLinearConcat", inputs, ends.outputs, ends.op, ends.op.attributes, MICROSOFT)


def _one_type(ends: _Ends) -> bool:
    codes = [*ends.x, *([] if ends.y is None else [ends.y])]
    return all(item.scalar and item.dtype == codes[0].dtype for item in codes) and codes[0].bits == 8


def _move(edit: Editor, ends: _Ends) -> Operator | None:
    op = ends.op
    if ends.q is None or ends.y is None or len(ends.dqs) != 1 or edit.writer(op, 0) is not ends.dqs[0]:
        return None
    (x,) = ends.x
    if ends.between or not x.same(ends.y) or not x.bits:
        return None
    if op.op_type in _ORDERED and (x.bits != 8 or op.opset < _ORDERED[op.op_type] or not x.scale.item() > 0):
        return None
    if op.op_type == "Resize" and (x.bits != 8 or op.attribute("mode", "nearest") != "nearest"):
        return None
    return edit.changed(op, (ends.dqs[0].inputs[0], *op.inputs[1:]), ends.q.outputs)


_ORDERED = {"MaxPool": 12, "ReduceMax": 12, "ReduceMin": 12}
"""What compares codes, with the version of the operator set that lets it."""


def _move_split(edit: Editor, op: Operator) -> None:
    dq = edit.writer(op, 0)
    codes = edit.codes(dq) if dq is not None and edit.is_dq(dq) else None
    readers = [edit.only_reader(tensor) for tensor in op.outputs]
    if dq is None or codes is None:
        return
    qs = [reader.op for reader in readers if reader is not None and edit.is_q(reader.op)]
    parts = [edit.codes(q) for q in qs]
    if len(qs) != len(op.outputs) or not all(part is not None and codes.same(part) for part in parts):
        return
    edit.remove(*qs)
    edit.replace(
        op, edit.changed(op, (dq.inputs[0], *op.inputs[1:]), [tensor for q in qs for tensor in q.outputs])
    )


def _argmax(edit: Editor, ends: _Ends) -> Operator | None:
    if len(ends.dqs) != 1 or not ends.x[0].scalar or ends.x[0].zero is None or ends.x[0].bits != 8:
        return None
    if ends.q is not None or not ends.x[0].scale.item() > 0:
        return None
    return edit.changed(ends.op, (ends.dqs[0].inputs[0],), ends.op.outputs)


def _params(edit: Editor, op: Operator, codes: Codes) -> tuple[str, str]:
    if op.has(2):
        return op.inputs[1], op.inputs[2]
    return op.inputs[1], edit.add_constant(f"{op.inputs[1]}.zero", np.zeros((), codes.dtype))


RULES: dict[str, Rule] = {
    "Conv": _conv,
    "MatMul": _matmul,
    "Gemm": _gemm,
    **dict.fromkeys(("Add", "Mul"), _binary),
    **dict.fromkeys(("AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid", "Softmax"), _unary),
    "Concat": _concat,
    "ArgMax": _argmax,
    **dict.fromkeys(
        (
            "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "MaxPool", "ReduceMax",
            "ReduceMin", "Reshape", "Resize", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile",
            "Transpose", "Unsqueeze",
        ),
        _move,
    ),
}  # fmt: skip
"""How a float operator of the standard domain is replaced; a rule returns None where it is not."""


def cancel_pairs(edit: Editor) -> None:
    """Remove DQ, Q with equal parameters: the codes come out as they went in."""
    for q in [op for op in edit.graph.operators if edit.is_q(op)]:
        dq = edit.writer(q, 0)
        if dq is None or not edit.is_dq(dq):
            continue
        before, after = edit.codes(dq), edit.codes(q)
        if before is None or after is None or not before.same(after) or not before.bits:
            continue
        if edit.is_output(q.outputs[0]):
            edit.replace(q, edit.make("Identity", dq.inputs[:1], q.outputs, q))
        elif edit.redirect(q.outputs[0], dq.inputs[0]):
            edit.remove(q)


# Groups that ONNX Runtime computes in float32: their products run on the array as well, their sums exact.

_WIDE_X = ("int8", "uint8", "int16", "uint16")
_WEIGHTS = {"int4": 4, "uint4": 4, "int8": 8, "uint8": 8}


def join_dequantized(edit: Editor, noted: Mapping[str, int] | None = None) -> None:
    """Join the DQs of codes of 4 and 16 bits with the product of floats that reads them.

    `noted` are the bits of the weights by the output of the products to join; None: of all that can be.
    """
    for op in list(edit.graph.operators):
        if op.domain != "" or op.op_type not in ("Conv", "Gemm", "MatMul") or not op.outputs:
            continue
        if noted is not None and op.outputs[0] not in noted:
            continue
        dqs = [edit.writer(op, place) for place in (0, 1)]
        if not all(dq is not None and edit.is_dq(dq) and not dq.attribute("output_dtype", 0) for dq in dqs):
            continue
        x, w = (dq for dq in dqs if dq is not None)
        bits = _joined_bits(edit, op, x, w) if noted is None else noted[op.outputs[0]]
        if not bits:
            continue
        attributes = {**op.attributes, "w_bits": bits}
        read = (*_codes_read(edit, x), *_codes_read(edit, w), *op.inputs[2:])
        edit.replace(op, edit.make(op.op_type, read, op.outputs, op, attributes, DEQUANTIZED))
        for dq in dict.fromkeys((x, w)):
            if not edit.reads(dq.outputs[0]) and not edit.is_output(dq.outputs[0]):
                edit.remove(dq)


def _codes_read(edit: Editor, dq: Operator) -> tuple[str, ...]:
    """Return the names of a DQ's codes, scale and zero point."""
    codes = None if dq.has(2) else edit.codes(dq)
    return dq.inputs[:3] if codes is None else (dq.inputs[0], *_params(edit, dq, codes))


def _is_scale(scale: np.ndarray) -> bool:
    return bool((scale > 0).all() and np.isfinite(scale).all())


def _joined_bits(edit: Editor, op: Operator, x_dq: Operator, w_dq: Operator) -> int:
    """Return the bits of the weights, if the product is one that the array takes; else 0."""
    x, w, weight = edit.codes(x_dq), edit.codes(w_dq), edit.constant(w_dq, 0)
    if x is None or w is None or weight is None or not x.scalar or x.dtype not in _WIDE_X:
        return 0
    bits = _WEIGHTS.get(weight.dtype.name, 0)
    if (x.bits, bits) == (8, 8) or not all(_is_scale(codes.scale) for codes in (x, w)):
        return 0
    if not w.scalar:
        channels = 0 if op.op_type == "Conv" or op.attribute("transB", 0) else 1
        if (op.op_type != "Conv" and weight.ndim != 2) or w.axis % max(weight.ndim, 1) != channels:
            return 0
    return bits
