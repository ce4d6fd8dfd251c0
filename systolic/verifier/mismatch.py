"""What a verification found: a report with the first difference of each failed case."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from systolic._check import shape as shape_text
from systolic._show.table import Column, Table, card, seconds
from systolic._text import printable
from systolic.tiling import Fold
from systolic.verifier.difference import Difference


class VerificationError(AssertionError):
    """A verification failed; ``.report`` holds what was found.

    Examples
    --------
    >>> from systolic import VerificationError, VerificationReport
    >>> VerificationError(VerificationReport((), {"matmul": 1})).report.cases
    1
    """

    def __init__(self, report: VerificationReport) -> None:
        super().__init__(str(report))
        self.report = report

    def __reduce__(self) -> tuple[type, tuple[VerificationReport]]:
        return type(self), (self.report,)


@dataclass(frozen=True, kw_only=True)
class Mismatch:
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
    >>> from systolic import Mismatch
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
    register_got: int | None = None
    register_expected: int | None = None
    note: str = ""
    reproduce: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        values["fold"] = None if self.fold is None else self.fold.to_dict()
        for name in ("index", "pe"):
            values[name] = None if values[name] is None else list(values[name])
        return {name: _finite(value) for name, value in values.items()}

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
            lines.append(
                f"  first register that differs: {self.register} of PE {self.pe} after the edge "
                f"of cycle {self.cycle}: {self.register_got}, expected {self.register_expected}"
            )
        if self.reproduce:
            lines.append(f"  reproduce: {self.reproduce}")
        return "\n".join(map(printable, lines))


@dataclass(frozen=True)
class NodeVerdict:
    """How one tensor of a model compares with the other side's, from ``verify(node_by_node=True)``.

    Attributes
    ----------
    node, layer, tensor : str
        The node's name and kind, and the name of the tensor it wrote.
    dtype, shape : str, tuple of int
    verdict : {"equal", "float, within", "differs", "not compared"}
        "equal" in every bit; "float, within" the tolerance; "not compared" where the other side has
        no tensor of this name, because it fuses the node with others or has no such operator.
    difference : Difference or None
        Where first, in how many elements, by how much.
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

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        values["shape"] = list(self.shape)
        if self.difference is not None:
            found = {f.name: getattr(self.difference, f.name) for f in fields(self.difference)}
            values["difference"] = {name: _finite(value) for name, value in found.items()}
            values["difference"]["index"] = list(self.difference.index)
        return values


def _finite(value: Any) -> Any:
    """Return a number as JSON can hold it, which has no NaN and no infinity."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class VerificationReport:
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
    wall_seconds: float = field(default=0.0, compare=False)

    @property
    def passed(self) -> bool:
        """Whether nothing differed."""
        return not self.mismatches

    @property
    def cases(self) -> int:
        """How many cases were checked."""
        return sum(self.checked.values())

    def table(self) -> Table:
        """Return a row per kind of case."""
        failed = {kind: sum(m.case.split()[0] == kind for m in self.mismatches) for kind in self.checked}
        rows = [(kind, count, failed[kind]) for kind, count in self.checked.items()]
        return Table(["checked", "cases", "mismatches"], rows, footer=self._verdict())

    def nodes_table(self) -> Table:
        """Return a row per tensor that was compared node by node."""
        columns: list[str | Column] = ["#", "node", "layer", "tensor", "shape", "dtype", "verdict"]
        columns += ["elements", "largest", Column("of largest value", ">", ".2g"), "ulp"]
        rows: list[tuple[Any, ...]] = []
        for number, node in enumerate(self.nodes):
            head = (
                number,
                node.node,
                node.layer,
                node.tensor,
                shape_text(node.shape),
                node.dtype,
                node.verdict,
            )
            found = node.difference
            if found is None:
                rows.append((*head, None, None, None, None))
            else:
                rows.append((*head, found.count, found.max_abs, found.relative, found.max_ulp))
        counts = {v.verdict: sum(node.verdict == v.verdict for node in self.nodes) for v in self.nodes}
        footer = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        return Table(columns, rows, title=f"Tensors against {self.against}", footer=footer)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON can hold it."""
        return {
            "passed": self.passed,
            "against": self.against,
            "seed": self.seed,
            "cases": self.cases,
            "checked": dict(self.checked),
            "mismatches": [mismatch.to_dict() for mismatch in self.mismatches],
            "notes": list(self.notes),
            "nodes": [node.to_dict() for node in self.nodes],
            "within": self.within,
            "wall_seconds": self.wall_seconds,
        }

    def _verdict(self) -> str:
        unit = "cases" if "registers" in self.checked else "layers and outputs"
        what = f"{self.cases:,} {unit} against {self.against} in {seconds(self.wall_seconds)}"
        if self.passed and self.within:
            return (
                f"passed: {what}; integers and cycles equal, floats within {self.within:.2g} of their "
                "largest value"
            )
        if self.passed:
            return f"passed: {what}, every bit and every cycle equal"
        return f"FAILED: {len(self.mismatches)} mismatches in {what}"

    def __str__(self) -> str:
        notes = [f"note: {printable(note)}" for note in self.notes]
        return "\n".join([self._verdict(), *map(str, self.mismatches[:10]), *notes])

    def __repr__(self) -> str:
        return f"<VerificationReport {self._verdict()}>"

    def _repr_html_(self) -> str:
        pairs = [("verdict", self._verdict())]
        pairs += [(kind, f"{count:,}") for kind, count in self.checked.items()]
        pairs += [(f"mismatch {i}", str(mismatch)) for i, mismatch in enumerate(self.mismatches[:10])]
        return card("Verification", pairs)
