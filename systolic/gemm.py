"""``Gemm``: one product (M, K) x (K, N), the currency between workload and hardware."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

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
        sizes = (self.m, self.k, self.n, self.groups)
        if all(type(size) is int for size in sizes) and min(sizes) >= 0 < self.groups:
            return
        for name, minimum in (("m", 0), ("k", 0), ("n", 0), ("groups", 1)):
            object.__setattr__(self, name, _check.integer(getattr(self, name), name, minimum=minimum))

    @property
    def macs(self) -> int:
        """Multiply-accumulates: groups * m * k * n."""
        return self.groups * self.m * self.k * self.n

    def to_dict(self) -> dict[str, Any]:
        """Return the sizes as a dict that JSON can hold."""
        return asdict(self)

    def __repr__(self) -> str:
        groups = f", groups={self.groups}" if self.groups != 1 else ""
        return f"Gemm({self.m}, {self.k}, {self.n}{groups})"


class Product(Protocol):
    """A lowered layer: a Gemm with its operands, read in pieces, and a place for its sums.

    The machine reads pieces of the operands and stores pieces of the sums; it never sees
    whole matrices, so an im2col matrix need not exist at once.
    """

    @property
    def gemm(self) -> Gemm:
        """The sizes."""
        ...

    @property
    def acc(self) -> np.ndarray:
        """Where :meth:`store` puts the sums: int32, in the layer's layout; every one is stored."""
        ...

    @property
    def activation_dtype(self) -> str:
        """Type of x, "int8" or "uint8"."""
        ...

    @property
    def weight_dtype(self) -> str:
        """Type of w, "int8" or "uint8"."""
        ...

    def rows(self, group: int, m_start: int, m_stop: int, k_start: int, k_stop: int) -> np.ndarray:
        """Return x[m_start:m_stop, k_start:k_stop] of a group."""
        ...

    def tile(self, group: int, k_start: int, k_stop: int, n_start: int, n_stop: int) -> np.ndarray:
        """Return w[k_start:k_stop, n_start:n_stop] of a group."""
        ...

    def store(self, group: int, m_start: int, n_start: int, sums: np.ndarray) -> None:
        """Put finished int32 sums at acc[m_start:, n_start:] of a group."""
        ...

    def pieces(self, parts: int) -> Iterator[Piece]:
        """Return the same sums as plain products, at least `parts` of them where sizes allow."""
        ...


class Piece(NamedTuple):
    """Part of a product for wavefront mode, where only sums count: ``acc[...] = left() @ right()``.

    K may run in any order, the same in both; the sums wrap, so no bit depends on it. Matrices are
    made when they are asked for, by the thread that multiplies them.
    """

    left: Callable[[], np.ndarray]
    """Returns (groups, p, K) codes, contiguous along K."""
    right: Callable[[], np.ndarray]
    """Returns (groups, K, q) codes, contiguous along q."""
    acc: np.ndarray
    """A view of the product's sums, (groups, p, q) int32, contiguous along q."""
    swapped: bool = False
    """Whether weights stand on the left: ``w.T @ x.T``."""


def cut(size: int, parts: int, step: int) -> Iterator[slice]:
    """Cut 0..size into at most `parts` slices of about equal size, each but the last a multiple of `step`."""
    length = -(-size // (parts * step)) * step or step
    for start in range(0, size, length):
        yield slice(start, min(start + length, size))


@dataclass(frozen=True)
class DenseProduct:
    """A Product over two plain matrices.

    Parameters
    ----------
    x : ndarray of int8 or uint8, (M, K)
    w : ndarray of int8 or uint8, (K, N)

    Attributes
    ----------
    gemm : Gemm
        The sizes.
    activation_dtype, weight_dtype : str
        Types of x and of w.
    acc : ndarray of int32, (M, N)
        Where the sums go.
    """

    x: np.ndarray
    w: np.ndarray
    gemm: Gemm = field(init=False)
    activation_dtype: str = field(init=False)
    weight_dtype: str = field(init=False)
    acc: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        (m, k), n = self.x.shape, self.w.shape[1]
        # Every sum is stored, unless there is nothing to add.
        acc = (np.empty if k else np.zeros)((m, n), dtype=np.int32)
        types = {"b": "int8", "B": "uint8"}
        self.__dict__.update(
            gemm=Gemm(m, k, n),
            activation_dtype=types[self.x.dtype.char],
            weight_dtype=types[self.w.dtype.char],
            acc=acc,
        )

    def rows(self, group: int, m_start: int, m_stop: int, k_start: int, k_stop: int) -> np.ndarray:
        """Return x[m_start:m_stop, k_start:k_stop]."""
        return self.x[m_start:m_stop, k_start:k_stop]

    def tile(self, group: int, k_start: int, k_stop: int, n_start: int, n_stop: int) -> np.ndarray:
        """Return w[k_start:k_stop, n_start:n_stop]."""
        return self.w[k_start:k_stop, n_start:n_stop]

    def pieces(self, parts: int) -> Iterator[Piece]:
        """Return products of all rows with some columns, or of some rows with all columns."""
        x, w = np.ascontiguousarray(self.x)[None], np.ascontiguousarray(self.w)[None]
        acc = self.acc[None]
        if parts == 1:
            yield Piece(lambda: x, lambda: w, acc)
        elif w.shape[2] >= x.shape[1]:
            for columns in cut(w.shape[2], parts, 64):
                part = w[:, :, columns]
                yield Piece(lambda: x, lambda part=part: part, acc[:, :, columns])  # type: ignore[misc]
        else:
            for rows in cut(x.shape[1], parts, 48):
                part = x[:, rows]
                yield Piece(lambda part=part: part, lambda: w, acc[:, rows])  # type: ignore[misc]

    def row_sums(self) -> np.ndarray:
        """Return the sum of each row of x, (M, 1) int32."""
        return self.x.sum(axis=1, keepdims=True, dtype=np.int32)

    def store(self, group: int, m_start: int, n_start: int, sums: np.ndarray) -> None:
        """Put finished sums into acc."""
        m, n = sums.shape
        self.acc[m_start : m_start + m, n_start : n_start + n] = sums


Progress = Callable[[int, int], None]
"""Called as progress(done, total) with cycles (or rows) as work goes on."""
