"""``Gemm``: sizes of a matrix product (M, K) x (K, N)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from systolic import _check


@dataclass(frozen=True)
class Gemm:
    """The sizes of a matrix product (m, k) x (k, n), or of `groups` equal ones in sequence, and its layout.

    Parameters
    ----------
    m, k, n : int
        Rows of x, contraction length, columns of w; 0 is allowed.
    groups : int
        Products of this size that run as one sequence of folds: the groups of a grouped
        convolution.
    taps : int
        Equal parts of k that are tiled one by one: the taps of a convolution's kernel in the mapping "taps".
    pack : int
        Successive groups that share tiles, each in rows and columns of its own, with zeros elsewhere; it
        divides `groups`.

    Examples
    --------
    >>> from systolic import ArrayConfig, Gemm, estimate
    >>> Gemm(128, 768, 768).macs
    75497472
    >>> depthwise = Gemm(196, 9, 1, groups=16)
    >>> packed = Gemm(196, 9, 1, groups=16, pack=16)
    >>> [estimate(gemm, machine=ArrayConfig(128, 128)).cycles for gemm in (depthwise, packed)]
    [3518, 774]
    """

    m: int
    k: int
    n: int
    groups: int = field(default=1, kw_only=True)
    taps: int = field(default=1, kw_only=True)
    pack: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        m, k, n, groups = self.m, self.k, self.n, self.groups
        # Written out, since small products take microseconds.
        if (
            type(m) is type(k) is type(n) is type(groups) is int
            and m >= 0 and k >= 0 and n >= 0 < groups
            and self.taps == self.pack == 1
        ):  # fmt: skip
            return
        for name, minimum in (("m", 0), ("k", 0), ("n", 0), ("groups", 1), ("taps", 1), ("pack", 1)):
            object.__setattr__(self, name, _check.integer(getattr(self, name), name, minimum=minimum))
        for part, whole in (("taps", "k"), ("pack", "groups")):
            if getattr(self, whole) % getattr(self, part):
                raise ValueError(
                    f"{part} must divide {whole}, but {part}={getattr(self, part)} and "
                    f"{whole}={getattr(self, whole)}"
                )

    @property
    def macs(self) -> int:
        """Multiply-accumulates: groups * m * k * n."""
        return self.groups * self.m * self.k * self.n

    @property
    def sums(self) -> int:
        """Outputs: groups * m * n."""
        return self.groups * self.m * self.n

    @property
    def mapping(self) -> str:
        """How a convolution is laid out that has this product: "im2col", "taps" or "pack"."""
        return "taps" if self.taps > 1 else "pack" if self.pack > 1 else "im2col"

    def to_dict(self) -> dict[str, Any]:
        """Return the sizes, and `taps` and `pack` unless they are 1, as a dict that JSON can hold."""
        return {name: size for name, size in asdict(self).items() if name not in _LAYOUT or size != 1}

    def __repr__(self) -> str:
        more = "".join(
            f", {name}={size}" for name in ("groups", *_LAYOUT) if (size := getattr(self, name)) != 1
        )
        return f"Gemm({self.m}, {self.k}, {self.n}{more})"

    @property
    def text(self) -> str:
        """The sizes for a table: ``64 x 9 x 16``, then the number of groups if there are several."""
        groups = f" x {self.groups}" if self.groups > 1 else ""
        return f"{self.m} x {self.k} x {self.n}{groups}"


_LAYOUT = ("taps", "pack")


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


def with_mappings(rows: Sequence[dict[str, Any]], gemms: Sequence[Gemm | None]) -> list[dict[str, Any]]:
    """Return rows about layers with the mapping of their products behind "groups", None being the default.

    Rows stay as they are if all mappings are the default.
    """
    names = [None if gemm is None or gemm.mapping == "im2col" else gemm.mapping for gemm in gemms]
    if not any(names):
        return list(rows)
    found = []
    for row, name in zip(rows, names, strict=True):
        items = list(row.items())
        place = list(row).index("groups") + 1
        found.append(dict([*items[:place], ("mapping", name), *items[place:]]))
    return found


def mapping_column(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the name of the column of :func:`with_mappings` for a table, if it is there."""
    return ("mapping",) if rows and "mapping" in rows[0] else ()


Progress = Callable[[int, int], None]
"""Called as progress(done, total) with cycles (or rows) as work goes on."""
