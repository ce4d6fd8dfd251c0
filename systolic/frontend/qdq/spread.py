"""Codes carried past operators that only move numbers, so that what stands behind them sees the codes.

A pair Q, DQ put behind a DQ and a Reshape changes no number, since the Reshape's numbers are the
codes' own; it lets the Reshape work on codes, and the operator behind it be replaced. Likewise a
pair put in front of a Reshape and a Q. ONNX Runtime: ``qdq_propagation.cc``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from systolic.frontend.operators import Operator
from systolic.frontend.qdq.editing import CAPTURED, Codes, Editor, Reader

_FIRST_OPSET = {"MaxPool": 12, "Reshape": 5, "Transpose": 1, "Squeeze": 1, "Unsqueeze": 1, "Slice": 1}


def moves(op: Operator | None) -> bool:
    """Whether codes are carried past an operator."""
    return op is not None and op.domain == "" and op.opset >= _FIRST_OPSET.get(op.op_type, 1000)


def transpose_constants(edit: Editor) -> None:
    """Turn Transpose of DQ of a constant into DQ of the constant transposed, with its axis moved."""
    for op in list(edit.graph.operators):
        dq = edit.writer(op, 0) if op.op_type == "Transpose" and op.domain == "" else None
        if dq is None or not edit.is_dq(dq):
            continue
        weight, codes = edit.constant(dq, 0), edit.codes(dq)
        if weight is None or codes is None:
            continue
        order = [int(axis) for axis in op.attribute("perm", range(weight.ndim)[::-1])]
        if sorted(order) != list(range(weight.ndim)):
            continue
        attributes = dict(dq.attributes)
        if codes.vector:
            if not -weight.ndim <= codes.axis < weight.ndim:
                continue
            attributes["axis"] = order.index(codes.axis % weight.ndim)
        moved = edit.add_constant(f"{dq.inputs[0]}.transposed", np.ascontiguousarray(weight.transpose(order)))
        made = edit.make("DequantizeLinear", (moved, *dq.inputs[1:]), op.outputs, op, attributes, dq.domain)
        edit.replace(op, made)


def spread_backward(edit: Editor) -> None:
    """Carry the codes of a Q to where the numbers that it quantizes came from."""
    for q in [op for op in edit.graph.operators if edit.is_q(op)]:
        codes = edit.codes(q)
        if codes is None or not codes.scalar:
            continue
        tensor = q.inputs[0]
        while (mover := edit.writers.get(tensor)) and moves(mover) and edit.only_reader(tensor):
            source = mover.inputs[0]
            writer = edit.writers.get(source)
            if edit.is_dq(writer) or source in edit.graph.constants:
                break
            if writer is not None and edit.only_reader(source) is None:
                break
            _insert_pair(edit, source, codes, q, [Reader(mover, 0)])
            tensor = source


def spread_forward(edit: Editor) -> None:
    """Carry the codes of a DQ past what moves its numbers, each of its readers by itself."""
    for dq in [op for op in edit.graph.operators if edit.is_dq(op)]:
        codes = edit.codes(dq)
        if codes is None or not codes.scalar or not codes.bits:
            continue
        behind = _moved(edit, dq.outputs[0])
        while behind:
            tensor = behind.pop()
            readers = [reader for reader in edit.reads(tensor) if not edit.is_q(reader.op)]
            if not readers or any(place == CAPTURED for _, place in readers):
                continue
            if edit.is_output(tensor):
                tensor = _free_output(edit, tensor)
                readers = [reader for reader in edit.reads(tensor) if not edit.is_q(reader.op)]
            for back in _insert_pair(edit, tensor, codes, dq, readers):
                behind += _moved(edit, back)


def _moved(edit: Editor, tensor: str) -> list[str]:
    """Return what the operators write that move a tensor's numbers."""
    return [op.outputs[0] for op, place in edit.reads(tensor) if place == 0 and moves(op)]


def _free_output(edit: Editor, tensor: str) -> str:
    """Let the graph's output be a copy of what an operator writes; return the name of that."""
    op = edit.writers[tensor]
    free = edit.name(f"{tensor}.moved")
    made = edit.changed(op, op.inputs, [free if name == tensor else name for name in op.outputs])
    edit.replace(op, made)
    edit.redirect(tensor, free)
    edit.insert(made, edit.make("Identity", (free,), (tensor,), op), after=True)
    return free


def _insert_pair(
    edit: Editor, tensor: str, codes: Codes, like: Operator, readers: Sequence[Reader]
) -> list[str]:
    """Quantize a tensor, and dequantize it for each of some readers; return what those then read."""
    from onnx.helper import np_dtype_to_tensor_dtype

    # Add no zero point where there is none: some rules require an explicit one.
    params = tuple(filter(None, like.inputs[1:3]))
    kind = np_dtype_to_tensor_dtype(np.dtype(codes.dtype))
    attributes = {} if codes.zero is not None else {"output_dtype": kind}
    between = edit.name(f"{tensor}.codes")
    made = [edit.make("QuantizeLinear", (tensor, *params), (between,), like, attributes)]
    for _ in readers:
        back = edit.name(f"{tensor}.back")
        made.append(edit.make("DequantizeLinear", (between, *params), (back,), like))
    first = min((reader.op for reader in readers), key=edit.graph.operators.index)
    edit.insert(first, *made, after=False)
    for reader, pair in zip(readers, made[1:], strict=True):
        # An operator that reads the tensor twice has been changed at the first place by now.
        op = edit.writers[next(filter(None, reader.op.outputs))]
        now = Reader(op, reader.place)
        edit.set_input(now, pair.outputs[0])
    return [pair.outputs[0] for pair in made[1:]]
