"""``Gemm``: sizes of a matrix product (M, K) x (K, N)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from systolic import _check


@dataclass(frozen=True)
class Gemm:
    """The sizes of a matrix product (m, k) x (k, n), or of `groups` equal ones in sequence.

    Parameters
    ----------
    m, k, n : int
        Rows of x, contraction length, columns of w; 0 is allowed.
    groups : int
        Products of this size that run as one sequence of folds: the groups of a grouped
        convolution.

    Examples
    --------
    >>> from systolic import Gemm
    >>> Gemm(128, 768, 768).macs
    75497472
    """

    m: int
    k: int
    n: int
    groups: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        m, k, n, groups = self.m, self.k, self.n, self.groups
        # Written out, since small products take microseconds.
        if type(m) is type(k) is type(n) is type(groups) is int and m >= 0 and k >= 0 and n >= 0 < groups:
            return
        for name, minimum in (("m", 0), ("k", 0), ("n", 0), ("groups", 1)):
            object.__setattr__(self, name, _check.integer(getattr(self, name), name, minimum=minimum))

    @property
    def macs(self) -> int:
        """Multiply-accumulates: groups * m * k * n."""
        return self.groups * self.m * self.k * self.n

    @property
    def sums(self) -> int:
        """Outputs: groups * m * n."""
        return self.groups * self.m * self.n

    def to_dict(self) -> dict[str, Any]:
        """Return the sizes as a dict that JSON can hold."""
        return asdict(self)

    def __repr__(self) -> str:
        groups = f", groups={self.groups}" if self.groups != 1 else ""
        return f"Gemm({self.m}, {self.k}, {self.n}{groups})"

    @property
    def text(self) -> str:
        """The sizes for a table: ``64 x 9 x 16``, then the number of groups if there are several."""
        groups = f" x {self.groups}" if self.groups > 1 else ""
        return f"{self.m} x {self.k} x {self.n}{groups}"


def products_text(first: Gemm | None, count: int) -> str | None:
    """Return a layer's products for a table: the first, and how many follow.

    Examples
    --------
    >>> from systolic.gemm import Gemm, products_text
    >>> products_text(Gemm(10, 3, 16), 6)
    '10 x 3 x 16, 5 more'
    """
    if first is None:
        return None
    return f"{first.text}, {count - 1:,} more" if count > 1 else first.text


Progress = Callable[[int, int], None]
"""Called as progress(done, total) with cycles (or rows) as work goes on."""
