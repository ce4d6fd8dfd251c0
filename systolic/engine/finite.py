"""Numbers that are not finite: NaN and infinities in the float inputs and outputs of a run."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from systolic._text import printable
from systolic.layers import DynamicQuantize, QuantizeLinear
from systolic.model import Node

# Readers of an input that a warning names.
_NAMED = 3


class NotFiniteWarning(UserWarning):
    """An input holds NaN, or infinities that are quantized."""


def counts(values: np.ndarray) -> tuple[int, int]:
    """Return how many values are NaN, and how many infinite; (0, 0) of integers."""
    # Extension types such as bfloat16 are of kind V.
    if values.dtype.kind not in "fcV" or np.isfinite(values).all():
        return 0, 0
    return int(np.isnan(values).sum()), int(np.isinf(values).sum())


def output_lines(outputs: Mapping[str, np.ndarray]) -> list[str]:
    """Return a line for each output that holds NaN or infinities.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.engine.finite import output_lines
    >>> output_lines({"y": np.float32([1, np.nan, np.inf]), "z": np.int8([1])})
    ["output 'y' holds 1 NaN and 1 infinity among 3 values"]
    """
    return [_line("output", name, values) for name, values in outputs.items() if any(counts(values))]


def input_lines(inputs: Mapping[str, np.ndarray], nodes: Sequence[Node] | None) -> list[str]:
    """Return a line for each input that holds NaN, or infinities that a node quantizes.

    Parameters
    ----------
    inputs : mapping of str to ndarray
    nodes : sequence of Node, optional
        Of the model: the lines then say what the nodes that read an input make of it. Infinities that no
        node quantizes, as in a mask, are left out. None of a program, whose layers are not known.
    """
    lines = []
    for name, values in inputs.items():
        nans, infinities = counts(values)
        if not nans and not infinities:
            continue
        readers = [] if nodes is None else [node for node in nodes if name in node.inputs]
        if nans or nodes is None or any(_becomes(node) for node in readers):
            made = [_made_of(node, nans, infinities) for node in readers[:_NAMED]]
            if len(readers) > _NAMED:
                made.append(f"{len(readers) - _NAMED:,} more nodes read it")
            lines.append("; ".join([_line("input", name, values), *made]))
    return lines


def warn_of_inputs(inputs: Mapping[str, np.ndarray], nodes: Sequence[Node] | None, stacklevel: int) -> None:
    """Warn once of all inputs that hold NaN, or infinities that a node quantizes."""
    lines = input_lines(inputs, nodes)
    if lines:
        warnings.warn(". ".join(lines), NotFiniteWarning, stacklevel=stacklevel)


def _line(what: str, name: str, values: np.ndarray) -> str:
    nans, infinities = counts(values)
    found = [f"{nans:,} NaN"] if nans else []
    found += [f"{infinities:,} infinit{'y' if infinities == 1 else 'ies'}"] if infinities else []
    return f"{what} {printable(name)!r} holds {' and '.join(found)} among {values.size:,} values"


def _becomes(node: Node) -> tuple[str, str] | None:
    """Return what a node that quantizes makes of NaN and of infinities."""
    if isinstance(node.layer, DynamicQuantize):
        return (
            "leaves NaN out of the range and makes the code 0 of it, as ONNX Runtime does",
            "takes an infinite range",
        )
    if isinstance(node.layer, QuantizeLinear):
        return (
            "makes the smallest code of NaN, as ONNX Runtime does (ONNX leaves it undefined)",
            "saturates infinities",
        )
    return None


def _made_of(node: Node, nans: int, infinities: int) -> str:
    who = f"node {printable(node.name)!r} ({node.layer.kind})"
    becomes = _becomes(node)
    if becomes is None:
        return f"{who} reads it as it is"
    told = [text for text, count in zip(becomes, (nans, infinities), strict=True) if count]
    return f"{who} {' and '.join(told)}"
