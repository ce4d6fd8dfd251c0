"""Reports of a verification: the first difference of each failed case."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from systolic._show.columns import columns, sizes_text
from systolic._show.table import Table, card, seconds
from systolic._text import moment, printable
from systolic.model.placement import OffArray, off_array_lines
from systolic.tiling import Fold
from systolic.verifier.difference import Difference


class VerificationError(AssertionError):
    """A verification failed; ``.report`` holds what was found.

    Examples
    --------
    >>> from systolic import VerificationError
    >>> from systolic.verifier import VerificationReport
    >>> VerificationError(VerificationReport((), {"matmul": 1})).report.cases
    1
    """

    def __init__(self, report: VerificationReport) -> None:
        super().__init__(str(report))
        self.report = report

    def __reduce__(self) -> tuple[type, tuple[VerificationReport]]:
        return type(self), (self.report,)


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it, which has no NaN and no infinity."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


class _Record:
    """Base of what a report holds."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Mismatch(_Record):
    """The first difference of one case from what defines the result.

    Parameters
    ----------
    case : str
        What was checked: sizes, types, options.
    stage : str
        Where it went wrong: "array" with PE and cycle, or the stage outside the array:
        "im2col", "weights", "accumulators", "wavefront product", "store", "finish", "host",
        "cycles", "shape", "node", "output"; "error" where something was raised.
    index : tuple of int, optional
        Of the first wrong element of the tensor.
    got, expected : int or float, optional
        That element.
    count : int
        How many elements differ.
    fold : Fold, optional
        The fold in whose sums it is.
    register, pe, cycle : str, (int, int), int, optional
        The first register that differs, its (row, col), and after which edge, counted from 0.
    register_got, register_expected : int, optional
        Its values.
    note : str
        What else is to say.
    reproduce : str
        A shell command that shows it again.

    Examples
    --------
    >>> from systolic.verifier import Mismatch
    >>> print(Mismatch(case="matmul (1, 2) x (2, 1)", stage="cycles", got=6, expected=5))
    matmul (1, 2) x (2, 1): cycles
      it is 6, expected 5
    """

    case: str
    stage: str
    index: tuple[int, ...] | None = None
    got: int | float | None = None
    expected: int | float | None = None
    count: int = 1
    fold: Fold | None = None
    register: str | None = None
    pe: tuple[int, int] | None = None
    cycle: int | None = None
    register_got: float | None = None
    register_expected: float | None = None
    note: str = ""
    reproduce: str = ""

    def __str__(self) -> str:
        lines = [f"{self.case}: {self.stage}"]
        if self.index is None and self.expected is not None:
            lines.append(f"  it is {self.got}, expected {self.expected}")
        if self.note:
            lines.append(f"  {self.note}")
        if self.index is not None:
            more = f" ({self.count:,} elements differ)" if self.count > 1 else ""
            lines.append(f"  element {list(self.index)} is {self.got}, expected {self.expected}{more}")
        if self.fold is not None:
            lines.append(f"  in {self.fold}")
        if self.pe is not None:
            when = "" if self.cycle is None else f" {moment(self.cycle + 1)}"
            lines.append(
                f"  first register that differs: {self.register} of PE {self.pe}{when}: "
                f"{self.register_got}, expected {self.register_expected}"
            )
        if self.reproduce:
            lines.append(f"  reproduce: {self.reproduce}")
        return "\n".join(map(printable, lines))


@dataclass(frozen=True)
class NotChecked(_Record):
    """A node whose output was not compared with anything, and why.

    Attributes
    ----------
    node, layer : str
        The node's name and kind.
    reason : str
    delegate : str or None
        Who computed it, if not this package: "ONNX Runtime" or "onnx".

    Examples
    --------
    >>> from systolic.verifier import NotChecked
    >>> print(NotChecked("n", "LSTM", "computed by ONNX Runtime", "ONNX Runtime"))
    not checked: node 'n' (LSTM): computed by ONNX Runtime
    """

    node: str
    layer: str
    reason: str
    delegate: str | None = None

    def __str__(self) -> str:
        return f"not checked: node {self.node!r} ({self.layer}): {self.reason}"


def not_checked_text(nodes: Sequence[NotChecked]) -> str:
    """Return a short text of what was not checked, by kind; empty if everything was."""
    parts = []
    for delegate in dict.fromkeys(node.delegate for node in nodes):
        kinds = Counter(node.layer for node in nodes if node.delegate == delegate)
        listed = [f"{kind} x {count}" if count > 1 else kind for kind, count in kinds.items()]
        if len(listed) > _KINDS:
            listed = [*listed[:_KINDS], f"{len(listed) - _KINDS} more kinds"]
        how = "not checked" if delegate is None else f"delegated to {delegate}, not checked"
        parts.append(f"{how}: {', '.join(listed)}")
    return "; ".join(parts)


# How many kinds of layer a verdict names.
_KINDS = 6


@dataclass(frozen=True)
class Rounding(_Record):
    """Outputs that differ although no node does on equal inputs, because a float rounding propagates.

    ONNX does not fix the last bit of floats, so that two results may lie on either side of a quantizer's
    tie. Every node was then checked on ONNX Runtime's own values.

    Attributes
    ----------
    nodes_equal, nodes_within : int
        Nodes equal in every bit on equal inputs; those whose floats are within the tolerance.
    node, layer, tensor : str
        The first node whose integers differ in the run, because its float input was rounded differently;
        empty if no integer differs and float roundings alone add up.
    count, size : int
        How many of its elements differ, of how many.
    max_abs : int
        The largest difference.
    outputs : dict of str to (int or float)
        The largest difference of each of the model's outputs that differs; infinite if shapes differ.

    Examples
    --------
    >>> from systolic.verifier import Rounding
    >>> text = str(Rounding(7, 2, "q", "QuantizeLinear", "codes", 1, 64, 1, {"y": 0.25}))
    >>> for part in text.split(" because "):
    ...     print(part)
    7 nodes equal; at node 'q' (QuantizeLinear), 1 of 64 values differ by one
    of a float rounding before it; outputs therefore differ by at most 0.25
    """

    nodes_equal: int
    nodes_within: int
    node: str
    layer: str
    tensor: str
    count: int
    size: int
    max_abs: int
    outputs: dict[str, int | float]

    def __str__(self) -> str:
        most = max(self.outputs.values(), default=0)
        by_what = "in shape" if math.isinf(most) else f"by at most {most:.3g}"
        then = f"outputs therefore differ {by_what}"
        if not self.node:
            return (
                f"{_count(self.nodes_equal, 'node')} equal, floats of {_count(self.nodes_within, 'node')} "
                f"within the tolerance on equal inputs; these roundings add up, {then}"
            )
        by = "one" if self.max_abs == 1 else f"up to {self.max_abs:,}"
        return (
            f"{_count(self.nodes_equal, 'node')} equal; at node {self.node!r} ({self.layer}), "
            f"{self.count:,} of {self.size:,} values differ by {by} because "
            f"of a float rounding before it; {then}"
        )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class NodeVerdict(_Record):
    """How one tensor of a model compares with the other side's, from ``verify(node_by_node=True)``.

    Attributes
    ----------
    node, layer, tensor : str
        The node's name and kind, and the name of the tensor it wrote.
    dtype, shape : str, tuple of int
    verdict : str
        "equal" in every bit; "float, within" the tolerance; "differs". If the node's inputs
        differ already, it is applied to the other side's: "equal on equal inputs", or "rounding" for the
        first node whose integers differ because a float before it does. "delegated, not checked" if ONNX
        Runtime computed it here, too; "in bfloat16", and so on, for products of float32 in that format,
        whose difference from float32 is no mismatch; "not compared" if the other side has no tensor of this
        name, because it fuses the node with others or has no such operator, or if the check failed.
    difference : Difference or None
        Where first, in how many elements, by how much; for "equal on equal inputs" and "rounding" of the
        run's own tensor.
    note : str

    Examples
    --------
    >>> import systolic
    >>> example = systolic.load_example()
    >>> report = systolic.verify(example.model, example.images[:1], mode="wavefront", node_by_node=True)
    >>> report.nodes[1].node, report.nodes[1].verdict
    ('stem_quant', 'equal')
    """

    node: str
    layer: str
    tensor: str
    dtype: str
    shape: tuple[int, ...]
    verdict: str = field(kw_only=True)
    difference: Difference | None = field(default=None, kw_only=True)
    note: str = field(default="", kw_only=True)


@dataclass(frozen=True)
class VerificationReport(_Record):
    """What was checked and what differed.

    Attributes
    ----------
    mismatches : tuple of Mismatch
        Empty if every bit and every cycle agreed.
    checked : dict of str to int
        How many cases (or layers) of each kind were checked.
    against : str
        What defined the results: "reference" or "onnxruntime".
    seed : int
    notes : tuple of str
        What a reader should know, such as a check that could not be made.
    nodes : tuple of NodeVerdict
        Every tensor of the model, if it was checked node by node.
    within : float
        The largest difference of a float tensor that was accepted, as part of its largest value; 0 if
        every bit agreed.
    not_checked : tuple of NotChecked
        Nodes whose output was not compared with anything: delegated to others, without a second derivation,
        or their check failed.
    rounding : Rounding or None
        Why outputs differ from ONNX Runtime's although no node does.
    off_array : tuple of OffArray
        Nodes that multiply and do not run on the array, if no MAC ran there.
    wall_seconds : float

    Examples
    --------
    >>> import systolic
    >>> report = systolic.verify(cases=8)
    >>> report.passed, report.checked["matmul"]
    (True, 2)
    """

    mismatches: tuple[Mismatch, ...]
    checked: dict[str, int]
    against: str = "reference"
    seed: int = 0
    notes: tuple[str, ...] = ()
    nodes: tuple[NodeVerdict, ...] = ()
    within: float = 0.0
    not_checked: tuple[NotChecked, ...] = ()
    rounding: Rounding | None = None
    off_array: tuple[OffArray, ...] | None = None
    wall_seconds: float = field(default=0.0, compare=False)

    @property
    def passed(self) -> bool:
        """Whether something was compared and nothing differed, except by a propagated float rounding."""
        return not self.mismatches and self.cases > 0

    @property
    def cases(self) -> int:
        """How many cases were checked."""
        return sum(self.checked.values())

    def table(self) -> Table:
        """Return a row per kind of case."""
        failed = {kind: sum(m.case.split()[0] == kind for m in self.mismatches) for kind in self.checked}
        rows = [(kind, count, failed[kind]) for kind, count in self.checked.items()]
        return Table(columns("checked", "cases", "mismatches"), rows, footer=self._verdict())

    def nodes_table(self) -> Table:
        """Return a row per tensor that was compared node by node."""
        names = ["number", "node", "layer", "tensor", "shape", "dtype", "verdict"]
        names += ["differing", "largest", "relative", "ulp"]
        rows: list[tuple[Any, ...]] = []
        for number, node in enumerate(self.nodes):
            shape, found = sizes_text(node.shape), node.difference
            head = (number, node.node, node.layer, node.tensor, shape, node.dtype, node.verdict)
            largest: tuple[Any, ...] = (None,) * 4
            if found is not None:
                largest = found.count, found.max_abs, found.relative, found.max_ulp
            rows.append((*head, *largest))
        counts = {v.verdict: sum(node.verdict == v.verdict for node in self.nodes) for v in self.nodes}
        footer = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        return Table(columns(*names), rows, title=f"Tensors against {self.against}", footer=footer)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON can hold it."""
        order = dict.fromkeys(("passed", "against", "seed", "cases", "checked", "mismatches"))
        return {**order, **super().to_dict(), "passed": self.passed, "cases": self.cases}

    def _verdict(self) -> str:
        skipped = not_checked_text(self.not_checked)
        return self._outcome() + (f"; {skipped}" if skipped else "")

    def _outcome(self) -> str:
        unit = "case" if "registers" in self.checked else "layer or output"
        if self.cases != 1:
            unit = "cases" if "registers" in self.checked else "layers and outputs"
        what = f"{self.cases:,} {unit} against {self.against} in {seconds(self.wall_seconds)}"
        if self.mismatches:
            return f"FAILED: {len(self.mismatches)} mismatches in {what}"
        if not self.passed:
            return f"nothing was checked: {what}"
        if self.rounding is not None:
            return f"passed, not equal: {what}; {self.rounding}"
        if self.within:
            return (
                f"passed: {what}; integers and cycles equal, floats within {self.within:.2g} of their "
                "largest value"
            )
        return f"passed: {what}, every bit and every cycle equal"

    def __str__(self) -> str:
        first = [] if self.off_array is None else off_array_lines(self.off_array)
        notes = [f"note: {printable(note)}" for note in self.notes]
        head = map(printable, [*first, self._verdict()])
        return "\n".join([*head, *map(str, self.mismatches[:10]), *notes])

    def __repr__(self) -> str:
        return f"<VerificationReport {self._verdict()}>"

    def _repr_html_(self) -> str:
        pairs = [("verdict", self._verdict())]
        if self.off_array is not None:
            pairs += [("array", "\n".join(off_array_lines(self.off_array)))]
        if self.rounding is not None:
            pairs += [("rounding", str(self.rounding))]
        pairs += [(kind, f"{count:,}") for kind, count in self.checked.items()]
        pairs += [(f"mismatch {i}", str(mismatch)) for i, mismatch in enumerate(self.mismatches[:10])]
        return card("Verification", pairs)
