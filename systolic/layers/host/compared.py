"""What onnx's reference evaluator may compute: only what has been compared with ONNX Runtime."""

from __future__ import annotations

from typing import Any

# Operators that it computes wrong, and how.
_WRONG = {
    "GlobalMaxPool": "it reduces four axes only",
    "GRU": "it ignores sequence lengths, clips and activations",
    "LRN": "it sums over other channels than the standard says",
    "LSTM": "it ignores sequence lengths, clips and activations",
    "RNN": "it knows few activations",
}


def refusal(node: Any, opset: int) -> str | None:
    """Return why the evaluator must not compute a node (a NodeProto); None if it may."""
    return _WRONG.get(node.op_type)
