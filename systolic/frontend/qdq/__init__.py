"""Graphs with QuantizeLinear and DequantizeLinear around float operators, made integer.

A QDQ graph says DequantizeLinear (DQ), float operator, QuantizeLinear (Q). ONNX Runtime's optimizer
replaces such groups by one integer operator each, whose arithmetic differs from the float one near
ties; :func:`to_integers` replaces those it replaces, on its conditions, and no others. What remains
is computed in float as it is written. The conditions are those of ONNX Runtime 1.32 with all
optimizations and ``session.qdqisint8allowed=1``, found by what it makes of small graphs, and in
``onnxruntime/core/optimizer/qdq_transformer``.

Some are worth knowing:

- a group's operator feeds one Q and nothing else, or a Relu or Clip whose bounds that Q implies;
- a Conv's bias has the scale x_scale * w_scale within 1 %, else nothing is replaced. A Gemm's bias is
  used as it is, whatever its scale and zero point;
- a Gemm is replaced only where x and w have zero points, an Add or Mul only where no scale and no zero
  point is a vector of one element;
- float weights and biases of a Conv or Gemm that reads a DQ and leads to a Q are quantized too;
- MatMul and Add are taken for one Gemm where shapes allow;
- scales and zero points are constants.

Left as written, though ONNX Runtime changes them:

- Q, DQ, Q, DQ with two scales, which it merges into one pair (``session.disable_double_qdq_remover=1``
  stops it);
- MatMul of floats and a DQ of constant weights, for which it quantizes the floats too
  (``session.qdq_matmulnbits_accuracy_level=1`` stops it);
- scales per row where it expects them per column, which it takes for the latter or fails on;
- Where between DQs and a Q, whose codes are the same either way;
- a Transpose in front of a Relu, which its transpose optimizer sometimes moves behind it, so that the
  operator in front of both is followed directly by its Q (one in some thousand random networks);
- groups within the subgraphs of If and Loop.

Conv, Gemm and MatMul of codes of which one side has 4 or 16 bits stay in float in ONNX Runtime. Their
products run on the array as well, where the weights are constants of 4 or 8 bits, with one scale or one for
each output channel: sums of integers are exact, scaled to float32 and rounded once
(:class:`~systolic.layers.DequantizedMatMul`), and what follows reads those.

Operators that stay in float sum in float64 and round once. ONNX Runtime sums in float32, an AveragePool
column by column, row by row, or in vectors of channels, depending on operator set, channels and processor.
So close to a tie the quantizer after a Conv, MatMul or AveragePool that is not replaced gives another code.

Replaced, though ONNX Runtime leaves them in float: groups whose scales or weights are listed among the
inputs of a file of IR version 4 or later, where a caller may feed others.
"""

from __future__ import annotations

from systolic.frontend.operators import Graph
from systolic.frontend.qdq import groups, simplify, spread
from systolic.frontend.qdq.editing import Editor


def join_noted(graph: Graph) -> None:
    """Join the products of codes of 4 and 16 bits that the notes of a saved file name."""
    if graph.joined:
        edit = Editor(graph)
        groups.join_dequantized(edit, graph.joined)
        edit.finish()


def to_integers(graph: Graph) -> None:
    """Replace the groups of DequantizeLinear, operator, QuantizeLinear of a graph by integer operators."""
    if not any(op.op_type in ("QuantizeLinear", "DequantizeLinear") for op in graph.operators):
        return
    edit = Editor(graph)
    simplify.evaluate_constants(edit)
    simplify.drop_identities(edit)
    simplify.merge_equals(edit)
    simplify.join_clips(edit)
    simplify.join_matmul_add(edit)
    spread.transpose_constants(edit)
    spread.spread_backward(edit)
    spread.spread_forward(edit)
    simplify.quantize_constants(edit)
    simplify.drop_implied_clips(edit)
    groups.replace_groups(edit)
    groups.cancel_pairs(edit)
    edit.drop_unread()
    groups.join_dequantized(edit)
    edit.finish()
