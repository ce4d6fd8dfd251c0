"""``Report``: where recorded RTL is wrong, and which usual mistake makes its numbers; ``ScoreboardError``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from systolic._text import moment

Number = int | float | str
"""A value of a register; a text where a simulator has X or Z."""


class WrongValue(NamedTuple):
    """A value that differs from the emulator's.

    Attributes
    ----------
    register : str
        Or a port, ``"accumulator"``, or ``"outputs"``.
    row, col : int
        The PE; of outputs the row of x and the column of w.
    m, n, k : int or None
        The row of x, the column of w, and the element of both, that it belongs to.
    sample : int or None
        Number of the sample that holds it.
    got, expected : int, float or str
        The RTL's value, "X" if the simulator has none, and the emulator's.
    """

    register: str
    row: int
    col: int
    m: int | None
    n: int | None
    k: int | None
    sample: int | None
    got: Number
    expected: Number

    def __str__(self) -> str:
        axes = {"m": self.m, "n": self.n, "k": self.k}
        index = ", ".join(f"{axis} {at}" for axis, at in axes.items() if at is not None)
        values = f"is {self.got} in the RTL, expected {self.expected}"
        if self.register == "outputs":
            return f"output ({self.row}, {self.col}) {values}"
        at = f"of PE ({self.row}, {self.col})"
        if self.register == "accumulator":
            at = f"below column {self.col}"
        elif self.register.startswith("west_"):
            at = f"of row {self.row}"
        elif self.register.startswith("north_"):
            at = f"of column {self.col}"
        return f"{self.register} {at} for {index}, in sample {self.sample}, {values}"


class Finding(NamedTuple):
    """A usual mistake that makes all recorded numbers.

    Attributes
    ----------
    name : str
        One of :data:`systolic.cosim.MISTAKES`, or "values at other times".
    detail : str
        Which way of making it.
    """

    name: str
    detail: str

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}"


@dataclass(frozen=True, kw_only=True)
class Report:
    """What :meth:`systolic.Scoreboard.diagnose` finds; true if all values are right.

    Parameters
    ----------
    compared, wrong : int
        Values compared, and how many of them differ.
    upstream : tuple of WrongValue
        For each PE whose recorded inputs are right the first value that is wrong, the most upstream one
        first: least ``row + col``, then earliest. At most 16.
    findings : tuple of Finding
        The usual mistakes that make all recorded numbers, right and wrong ones; with several, these
        operands cannot tell them apart.
    tried : int
        Ways of making a usual mistake that were tried; none if a value is X or Z where it is due.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import ArrayConfig, Scoreboard
    >>> x, w = np.int8([[1, -2], [3, 4]]), np.int8([[5, 6], [7, 8]])
    >>> wrong = x.view(np.uint8).astype(int) @ w
    >>> print(Scoreboard(ArrayConfig(2, 2)).diagnose(x, w, outputs=wrong))
    output (0, 0) is 1783 in the RTL, expected -9
    2 of 4 values differ
    signed and unsigned mixed up: activations unsigned for signed
    """

    compared: int
    wrong: int = 0
    upstream: tuple[WrongValue, ...] = ()
    findings: tuple[Finding, ...] = ()
    tried: int = 0

    @property
    def first(self) -> WrongValue | None:
        """The most upstream wrong value; None if all are right."""
        return self.upstream[0] if self.upstream else None

    def __bool__(self) -> bool:
        return not self.wrong

    def __str__(self) -> str:
        if not self.wrong:
            return f"all {self.compared:,} values are right"
        assert self.first is not None
        lines = [str(self.first), f"{self.wrong:,} of {self.compared:,} values differ"]
        if len(self.upstream) > 1:
            others = ", ".join(f"({each.row}, {each.col})" for each in self.upstream[1:])
            lines[1] += f"; with right inputs also in {others}"
        if not self.findings and not self.tried:
            lines.append("no usual mistake was tried, as values are X or Z where they are due")
        elif not self.findings:
            lines.append(f"none of {self.tried:,} usual mistakes makes these numbers")
        elif len(self.findings) > 1:
            lines.append("several usual mistakes make these numbers; other operands may tell them apart:")
        lines += map(str, self.findings)
        return "\n".join(lines)


class ScoreboardError(AssertionError):
    """RTL and emulator disagree in a register.

    Attributes
    ----------
    register : str
    row, col, cycle : int
        The PE, and after which edge, counted from 0; of a recorded product, which sample.
    got, expected : int or float
        The RTL's value and the emulator's; "X" where the RTL has none.
    report : Report or None
        Of a recorded product, all that was found.

    Examples
    --------
    >>> from systolic import ScoreboardError
    >>> print(ScoreboardError("psum", 1, 2, 40, got=7, expected=8, count=1))
    psum of PE (1, 2) after the edge of cycle 40 is 7 in the RTL, expected 8
    """

    def __init__(
        self, register: str, row: int, col: int, cycle: int | None, got: Number, expected: Number, count: int,
        report: Report | None = None,
    ) -> None:  # fmt: skip
        more = f" ({count} PEs differ in it)" if count > 1 else ""
        super().__init__(
            f"{register} of PE ({row}, {col}) {moment((cycle or 0) + 1)} is {got} in the RTL, "
            f"expected {expected}{more}"
            if report is None
            else str(report)
        )
        self.register, self.row, self.col, self.cycle = register, row, col, cycle
        self.got, self.expected, self.count, self.report = got, expected, count, report

    @classmethod
    def of(cls, report: Report) -> ScoreboardError:
        """Return the error of a report with wrong values."""
        first = report.first
        assert first is not None
        where = first.register, first.row, first.col, first.sample
        return cls(*where, first.got, first.expected, report.wrong, report)

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        where = self.register, self.row, self.col, self.cycle
        return type(self), (*where, self.got, self.expected, self.count, self.report)
