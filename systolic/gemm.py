"""``Gemm``: one product (M, K) x (K, N), the currency between workload and hardware."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from systolic import _check, _gemm


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

    @property
    def work(self) -> int:
        """What :meth:`compute` has to do, as so many MACs of a large product."""
        ...

    def compute(self, threads: int) -> None:
        """Compute all sums as plain products, for wavefront mode, where only sums count.

        K may run in any order; the sums wrap, so no bit depends on it.
        """
        ...

    def pieces(self, parts: int) -> Iterator[Piece]:
        """Return the same in about so many parts: for progress and Ctrl-C."""
        ...


class Piece(NamedTuple):
    """Part of what :meth:`Product.compute` does."""

    size: int
    """How many sums."""
    compute: Callable[[int], None]
    """Computes them, in so many threads."""


def cut(size: int, parts: int, step: int) -> Iterator[slice]:
    """Cut 0..size into at most `parts` slices of about equal size, each but the last a multiple of `step`."""
    length = -(-size // (parts * step)) * step or step
    for start in range(0, size, length):
        yield slice(start, min(start + length, size))


def operand_name(values: np.ndarray) -> str:
    """Return "int8" or "uint8"; dtype.name takes microseconds."""
    return "int8" if values.dtype.char == "b" else "uint8"


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

    __slots__ = ("acc", "activation_dtype", "gemm", "w", "weight_dtype", "x")

    def __init__(self, x: np.ndarray, w: np.ndarray) -> None:
        (m, k), n = x.shape, w.shape[1]
        self.x, self.w, self.gemm = x, w, Gemm(m, k, n)
        self.activation_dtype, self.weight_dtype = operand_name(x), operand_name(w)
        # Every sum is stored, unless there is nothing to add.
        self.acc = (np.empty if k else np.zeros)((m, n), dtype=np.int32)

    def rows(self, group: int, m_start: int, m_stop: int, k_start: int, k_stop: int) -> np.ndarray:
        """Return x[m_start:m_stop, k_start:k_stop]."""
        return self.x[m_start:m_stop, k_start:k_stop]

    def tile(self, group: int, k_start: int, k_stop: int, n_start: int, n_stop: int) -> np.ndarray:
        """Return w[k_start:k_stop, n_start:n_stop]."""
        return self.w[k_start:k_stop, n_start:n_stop]

    @property
    def work(self) -> int:
        """The MACs."""
        return self.gemm.macs

    def compute(self, threads: int) -> None:
        """Compute all sums."""
        _gemm.multiply(np.ascontiguousarray(self.x), np.ascontiguousarray(self.w), self.acc, threads=threads)

    def pieces(self, parts: int) -> Iterator[Piece]:
        """Return products of all rows with some columns, or of some rows with all columns."""
        return _stacked_pieces(self.x[None], self.w[None], self.acc[None], parts)

    def row_sums(self) -> np.ndarray:
        """Return the sum of each row of x, (M, 1) int32."""
        return self.x.sum(axis=1, keepdims=True, dtype=np.int32)

    def store(self, group: int, m_start: int, n_start: int, sums: np.ndarray) -> None:
        """Put finished sums into acc."""
        m, n = sums.shape
        self.acc[m_start : m_start + m, n_start : n_start + n] = sums


class BatchedProduct:
    """A Product of stacks of matrices, as :func:`numpy.matmul` broadcasts them.

    One product where w has one matrix: the rows of all x in a stack follow each other. Else a
    group for each pair of matrices, though some may be the same one.

    Parameters
    ----------
    x : ndarray of int8 or uint8, (..., M, K)
    w : ndarray of int8 or uint8, (..., K, N)

    Attributes
    ----------
    gemm : Gemm
    acc : ndarray of int32, (..., M, N)
        Where the sums go.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.gemm import BatchedProduct
    >>> x = np.zeros((8, 4, 3), dtype=np.int8)
    >>> BatchedProduct(x, np.zeros((3, 5), dtype=np.int8)).gemm
    Gemm(32, 3, 5)
    >>> BatchedProduct(x, np.zeros((8, 3, 5), dtype=np.int8)).gemm
    Gemm(4, 3, 5, groups=8)
    """

    def __init__(self, x: np.ndarray, w: np.ndarray) -> None:
        self.gemm = batched_gemm(x.shape, w.shape)
        self.activation_dtype, self.weight_dtype = x.dtype.name, w.dtype.name
        batch = np.broadcast_shapes(x.shape[:-2], w.shape[:-2])
        self.acc = np.zeros((*batch, x.shape[-2], w.shape[-1]), dtype=np.int32)
        self._given = x, w
        m, k, n = self.gemm.m, self.gemm.k, self.gemm.n
        if self.gemm.groups == 1 and m:
            self._batch: tuple[int, ...] = (1,)
            self._x, self._w = x.reshape(1, m, k), w.reshape(1, k, n)
            self._sums = self.acc.reshape(1, m, n)
        else:
            self._batch = batch
            self._x = np.broadcast_to(x, (*batch, *x.shape[-2:]))
            self._w = np.broadcast_to(w, (*batch, *w.shape[-2:]))
            self._sums = self.acc

    def rows(self, group: int, m_start: int, m_stop: int, k_start: int, k_stop: int) -> np.ndarray:
        """Return x[m_start:m_stop, k_start:k_stop] of a group."""
        return self._x[np.unravel_index(group, self._batch)][m_start:m_stop, k_start:k_stop]

    def tile(self, group: int, k_start: int, k_stop: int, n_start: int, n_stop: int) -> np.ndarray:
        """Return w[k_start:k_stop, n_start:n_stop] of a group."""
        return self._w[np.unravel_index(group, self._batch)][k_start:k_stop, n_start:n_stop]

    def store(self, group: int, m_start: int, n_start: int, sums: np.ndarray) -> None:
        """Put finished sums into `acc`."""
        m, n = sums.shape
        target = self._sums[np.unravel_index(group, self._batch)]
        target[m_start : m_start + m, n_start : n_start + n] = sums

    @property
    def work(self) -> int:
        """The MACs."""
        return self.gemm.macs

    def compute(self, threads: int) -> None:
        """Compute all sums."""
        for piece in self.pieces(1):
            piece.compute(threads)

    def pieces(self, parts: int) -> Iterator[Piece]:
        """Return products of some of the groups, or of parts of the only one."""
        x, w = (values.reshape(-1, *values.shape[-2:]) for values in (self._x, self._w))
        return _stacked_pieces(x, w, self._sums.reshape(-1, *self._sums.shape[-2:]), parts)

    def row_sums(self) -> np.ndarray:
        """Return the sum of each row of x, (..., M, 1) int32."""
        return self._given[0].sum(axis=-1, keepdims=True, dtype=np.int32)

    def column_sums(self) -> np.ndarray:
        """Return the sum of each column of w, (..., 1, N) int32."""
        return self._given[1].sum(axis=-2, keepdims=True, dtype=np.int32)


def _stacked_pieces(x: np.ndarray, w: np.ndarray, acc: np.ndarray, parts: int) -> Iterator[Piece]:
    """Cut products of stacked matrices (groups, M, K) and (groups, K, N) into parts."""
    (groups, m, _), n = x.shape, w.shape[2]
    x, w = np.ascontiguousarray(x), np.ascontiguousarray(w)
    whole = slice(None)
    inside = -(-parts // groups)
    if n >= m:
        within = [(whole, columns) for columns in cut(n, inside, 64)]
    else:
        within = [(rows, whole) for rows in cut(m, inside, 48)]
    places = [(some, *part) for some in cut(groups, parts, 1) for part in within]
    for group, rows, columns in places:
        left, right, sums = x[group, rows], w[group, :, columns], acc[group, rows, columns]

        def compute(threads: int, operands: tuple[np.ndarray, ...] = (left, right, sums)) -> None:
            _gemm.multiply(*operands, threads=threads)

        yield Piece(sums.size, compute)


def batched_gemm(x: Sequence[int], w: Sequence[int]) -> Gemm:
    """Return the sizes of a :class:`BatchedProduct` of operands of these shapes."""
    count = math.prod(np.broadcast_shapes(tuple(x[:-2]), tuple(w[:-2])))
    m, k, n = x[-2], x[-1], w[-1]
    if count == 0 or math.prod(w[:-2]) == 1:
        return Gemm(count * m, k, n)
    return Gemm(m, k, n, groups=count)


Progress = Callable[[int, int], None]
"""Called as progress(done, total) with cycles (or rows) as work goes on."""
