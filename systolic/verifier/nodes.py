"""Node by node: find the tensor that differs first, by how much, and whether its node is at fault."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from systolic.config import ArrayConfig
from systolic.engine.networks import run_layer
from systolic.layers.float_products import RoundedProduct
from systolic.layers.host.session import ONNX_RUNTIME
from systolic.model import Node
from systolic.reference import tolerance_of
from systolic.verifier.difference import Difference, difference, mismatch_of_kind
from systolic.verifier.mismatch import Mismatch, NodeVerdict, NotChecked, Rounding

Expected = Callable[[Node, list[np.ndarray]], Mapping[str, np.ndarray]]
"""Maps a node and its inputs to its expected outputs by name; tensors that are not known are absent."""

_EQUAL = ("equal", "equal on equal inputs")


class NodeCheck:
    """Compares every tensor of a run as it is written: pass it to ``run`` as `observe`.

    With `theirs`, each node is judged on the other side's values of its inputs: after a tensor of the run
    differs, later nodes are applied to those. If the other side has no such tensor (within a fused group),
    our node's output for their values takes its place.

    Parameters
    ----------
    expected : callable
        What a node should have written.
    config : ArrayConfig
        Of the array, to run a node again on other inputs.
    tolerance : float
        See ``verify``; for tensors against `theirs`.
    theirs : mapping of str to ndarray, optional
        The other side's tensors by name, constants and inputs among them, where it computed all of
        them itself. Without it, `expected` is of the inputs that our node had.

    Attributes
    ----------
    verdicts : list of NodeVerdict
        One for each tensor, in the order they were written.
    first : Mismatch or None
        The first node that differs on equal inputs.
    within : float
        The largest relative difference of a float tensor that was accepted.
    not_checked : list of NotChecked
        Nodes whose check raised an error.
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
        self.not_checked: list[NotChecked] = []
        # Tensors that the other side does not have, computed from its values; and those that may differ
        # from its own, because floats before them may.
        self._flow: dict[str, np.ndarray] = {}
        self._soft: set[str] = set()
        # Those that depend on products of float32 in a narrower format, and that format.
        self._narrow: dict[str, str] = {}
        self._by_node: list[list[NodeVerdict]] = []
        self._rounded: tuple[NodeVerdict, Difference] | None = None

    def __call__(self, node: Node, inputs: list[np.ndarray], output: Any) -> None:
        """Compare what a node wrote."""
        written = node.named(output)
        try:
            if self.theirs is None:
                expected = self.expected(node, inputs)
                verdicts = [
                    self._judge(node, tensor, got, expected.get(tensor)) for tensor, got in written.items()
                ]
            else:
                verdicts = self._follow(node, inputs, written, self.theirs)
        except Exception as error:  # a fault of the check must not hide what the run gave
            reason = f"the check failed: {type(error).__name__}: {error}"
            self.not_checked.append(NotChecked(node.name, node.layer.kind, reason))
            self._flow |= written
            self._soft |= set(written)
            verdicts = [
                _verdict(node, tensor, got, "not compared", note=reason) for tensor, got in written.items()
            ]
        self.verdicts += verdicts
        self._by_node.append(verdicts)

    @property
    def rounded(self) -> bool:
        """Whether integers of the run differ because a float before them does."""
        return self._rounded is not None

    def explanation(self, outputs: Mapping[str, int | float]) -> Rounding | None:
        """Return why outputs differ, by how much each, if no node is at fault; None otherwise."""
        if self.theirs is None or self.first is not None or self.not_checked:
            return None
        rounded = None if self._rounded is None else self._rounded[0]
        # By node: names may occur twice.
        compared = [
            [verdict.verdict for verdict in verdicts]
            for verdicts in self._by_node
            if rounded not in verdicts and any(v.verdict in (*_EQUAL, "float, within") for v in verdicts)
        ]
        within = sum("float, within" in kinds for kinds in compared)
        if rounded is None and not within:
            return None
        equal = len(compared) - within
        if self._rounded is None:
            return Rounding(equal, within, "", "", "", 0, 0, 0, dict(outputs))
        at, by = self._rounded
        return Rounding(
            equal, within, at.node, at.layer, at.tensor, by.count, by.size, int(by.max_abs), dict(outputs)
        )

    def _follow(
        self,
        node: Node,
        inputs: list[np.ndarray],
        written: Mapping[str, np.ndarray],
        theirs: Mapping[str, np.ndarray],
    ) -> list[NodeVerdict]:
        """Judge a node on the other side's values of its inputs."""
        read = [theirs[name] if name in theirs else self._flow[name] for name in node.inputs]
        same = all(_equal(ours, other) for ours, other in zip(inputs, read, strict=True))
        soft = any(name in self._soft for name in node.inputs)
        narrow = next((self._narrow[name] for name in node.inputs if name in self._narrow), None)
        if isinstance(node.layer, RoundedProduct):
            narrow = node.layer.compute
        results = written if same else node.named(apply(node, read, self.config))
        verdicts = []
        for tensor, got in written.items():
            want = theirs.get(tensor)
            if want is None:
                self._flow[tensor] = results[tensor]
                if narrow is not None:
                    self._narrow[tensor] = narrow
                # An integer operator on equal integers has one result; a float may be rounded differently.
                if soft or got.dtype.kind == "f":
                    self._soft.add(tensor)
            if node.layer.delegate == ONNX_RUNTIME:
                verdicts.append(_verdict(node, tensor, got, "delegated, not checked"))
                continue
            if narrow is not None and want is not None:
                found = None if mismatch_of_kind(got, want) else difference(results[tensor], want)
                verdicts.append(_verdict(node, tensor, got, f"in {narrow}", difference=found))
                continue
            cause = self._cause(node, same)
            verdict = self._judge(node, tensor, results[tensor], want, soft=soft, cause=cause)
            if verdict.verdict == "equal" and not same and want is not None:
                verdict = self._carried(node, tensor, got, want)
            elif verdict.verdict == "rounding" and self._rounded is None and verdict.difference is not None:
                self._rounded = verdict, verdict.difference
            verdicts.append(verdict)
        return verdicts

    def _carried(self, node: Node, tensor: str, got: np.ndarray, want: np.ndarray) -> NodeVerdict:
        """Return the verdict on a node that is right on their inputs but had other inputs in the run."""
        note = mismatch_of_kind(got, want)
        found = None if note else difference(got, want)
        if found is None and not note:
            return _verdict(node, tensor, got, "equal")
        if found is None or found.relative is not None or self._rounded is not None:
            return _verdict(node, tensor, got, "equal on equal inputs", difference=found, note=note)
        verdict = _verdict(node, tensor, got, "rounding", difference=found)
        self._rounded = verdict, found
        return verdict

    def _judge(
        self,
        node: Node,
        tensor: str,
        got: np.ndarray,
        want: np.ndarray | None,
        *,
        soft: bool = False,
        cause: str = "",
    ) -> NodeVerdict:
        """Compare one tensor; `soft` if its inputs may be rounded differently."""
        if want is None:
            return _verdict(node, tensor, got, "not compared")
        note = mismatch_of_kind(got, want)
        found = None if note else difference(got, want)
        if not note and found is None:
            return _verdict(node, tensor, got, "equal")
        tolerance = tolerance_of(node.layer, got.dtype) if self.theirs is None else self.tolerance
        if found is not None and found.within(tolerance):
            self.within = max(self.within, found.relative or 0.0)
            return _verdict(node, tensor, got, "float, within", difference=found)
        if found is not None and soft and found.relative is None and found.max_abs <= 1:
            return _verdict(node, tensor, got, "rounding", difference=found)
        if self.first is None:
            case = f"node {node.name!r} ({node.layer.kind}), tensor {tensor!r}"
            if found is None:
                self.first = Mismatch(case=case, stage="shape", note=note)
            else:
                found_note = f"the first that differs, {found}{cause and f'; {cause}'}"
                self.first = Mismatch(
                    case=case, stage="node", index=found.index, got=found.got, expected=found.expected,
                    count=found.count, note=found_note,
                )  # fmt: skip
        return _verdict(node, tensor, got, "differs", difference=found, note=note)

    def _cause(self, node: Node, same: bool) -> str:
        """Describe the inputs of a node that differs."""
        assert self.theirs is not None
        if any(name not in self.theirs for name in node.inputs):
            return "what it reads was not all compared"
        return "what it reads is equal" if same else "on the other side's inputs it differs too"


def _verdict(
    node: Node,
    tensor: str,
    got: np.ndarray,
    verdict: str,
    *,
    difference: Difference | None = None,
    note: str = "",
) -> NodeVerdict:
    about = (node.name, node.layer.kind, tensor, got.dtype.name, got.shape)
    return NodeVerdict(*about, verdict=verdict, difference=difference, note=note)


def apply(node: Node, inputs: list[np.ndarray], config: ArrayConfig) -> Any:
    """Return what a node gives for these inputs, its products by wavefronts."""
    return run_layer(node.layer, inputs, config, "wavefront")[0]


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return not mismatch_of_kind(a, b) and difference(a, b) is None
