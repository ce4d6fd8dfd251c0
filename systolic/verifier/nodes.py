"""Node by node: which tensor of a model differs first, by how much, and whether its node is at fault."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from systolic.config import ArrayConfig
from systolic.engine.networks import run_layer
from systolic.model import Node
from systolic.verifier.difference import difference, mismatch_of_kind
from systolic.verifier.mismatch import Mismatch, NodeVerdict

Expected = Callable[[Node, list[np.ndarray]], Mapping[str, np.ndarray]]
"""From a node and what it read to what it should have written, by name; without what nobody knows."""


class NodeCheck:
    """Compares every tensor of a run as it is written: pass it to ``run`` as `observe`.

    Parameters
    ----------
    expected : callable
        What a node should have written.
    config : ArrayConfig
        Of the array, to run a node again on other inputs.
    tolerance : float
        See ``verify``.
    theirs : mapping of str to ndarray, optional
        The other side's tensors by name, constants and inputs among them, where it computed all of
        them itself. Without it, `expected` is of the inputs that our node had.

    Attributes
    ----------
    verdicts : list of NodeVerdict
        One for each tensor, in the order they were written.
    first : Mismatch or None
        The first that differs.
    within : float
        The largest relative difference of a float tensor that was accepted.
    """

    def __init__(
        self,
        expected: Expected,
        config: ArrayConfig,
        tolerance: float,
        theirs: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.expected, self.config, self.tolerance, self.theirs = expected, config, tolerance, theirs
        self.verdicts: list[NodeVerdict] = []
        self.first: Mismatch | None = None
        self.within = 0.0

    def __call__(self, node: Node, inputs: list[np.ndarray], output: Any) -> None:
        """Compare what a node wrote."""
        expected = self.expected(node, inputs)
        for tensor, got in node.named(output).items():
            self.verdicts.append(self._verdict(node, inputs, tensor, got, expected.get(tensor)))

    def _verdict(
        self, node: Node, inputs: list[np.ndarray], tensor: str, got: np.ndarray, want: np.ndarray | None
    ) -> NodeVerdict:
        about = (node.name, node.layer.kind, tensor, got.dtype.name, got.shape)
        if want is None:
            return NodeVerdict(*about, verdict="not compared")
        note = mismatch_of_kind(got, want)
        found = None if note else difference(got, want)
        if not note and found is None:
            return NodeVerdict(*about, verdict="equal")
        if found is not None and found.within(self.tolerance):
            self.within = max(self.within, found.relative or 0.0)
            return NodeVerdict(*about, verdict="float, within", difference=found)
        if self.first is None:
            cause = self._cause(node, inputs, tensor, want)
            case = f"node {node.name!r} ({node.layer.kind}), tensor {tensor!r}"
            if found is None:
                self.first = Mismatch(case=case, stage="shape", note=note)
            else:
                told = f"the first that differs, {found}{cause and f'; {cause}'}"
                self.first = Mismatch(
                    case=case, stage="node", index=found.index, got=found.got, expected=found.expected,
                    count=found.count, note=told,
                )  # fmt: skip
        return NodeVerdict(*about, verdict="differs", difference=found, note=note)

    def _cause(self, node: Node, inputs: list[np.ndarray], tensor: str, want: np.ndarray) -> str:
        """Say whether the node itself differs or what reached it already did."""
        if self.theirs is None:
            return ""
        read = [self.theirs.get(name) for name in node.inputs]
        known = [array for array in read if array is not None]
        if len(known) < len(read):
            return "what it reads was not all compared"
        if all(_equal(ours, array) for ours, array in zip(inputs, known, strict=True)):
            return "what it reads is equal"
        again = node.named(apply(node, known, self.config))[tensor]
        if _equal(again, want):
            return "on the other side's inputs it is equal: the float tensors before it are the cause"
        return "on the other side's inputs it differs too"


def apply(node: Node, inputs: list[np.ndarray], config: ArrayConfig) -> Any:
    """Return what a node gives for these inputs, its products by wavefronts."""
    return run_layer(node.layer, inputs, config, "wavefront")[0]


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return not mismatch_of_kind(a, b) and difference(a, b) is None
