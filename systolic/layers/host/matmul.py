"""Float matrix products on the host."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from systolic import _check, _hints
from systolic.layers.base import Shape
from systolic.layers.host._inputs import expect_dtype, take_some
from systolic.layers.host._parts import copied
from systolic.layers.host.delegated import FloatProduct

_TYPES = ("float32", "float64", "float16", "int32", "uint32", "int64", "uint64")


# MACs per BLAS call: less than a tenth of a second on one core, so that Ctrl-C takes effect soon.
_MACS = 1 << 30

# Smallest number of rows in a block: BLAS packs the whole right matrix for each block.
_ROWS = 128


@dataclass(frozen=True, eq=False, repr=False)
class FloatMatMul(FloatProduct):
    """Compute ``alpha a @ b + beta c`` on plain numbers, as :func:`numpy.matmul` broadcasts.

    Reads a, b and, optionally, c.

    Parameters
    ----------
    transpose_a, transpose_b : bool
        Whether the last two axes are swapped first.
    alpha, beta : float
    runtime_constants : tuple of int or None
        None: compute the product here. Otherwise ONNX Runtime computes float32 products where it is
        installed, and inputs of these numbers are constant: its sums depend on what is. It keeps a packed
        copy of those that are read-only, which must never change.

    Notes
    -----
    ONNX operators MatMul and Gemm. Products of float32 and float16 are computed in float64 and
    rounded once: within 1 unit in the last place of the true value; ONNX Runtime sums in float32, in
    an order that depends on the processor, and differs by up to about k / 2 units in the last place of
    the sum of magnitudes of k products. Integers wrap; their alpha and beta must be 1. A beta of 0
    ignores c, even its infinities.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import FloatMatMul
    >>> FloatMatMul(alpha=0.5).apply(np.float32([[1, 2]]), np.float32([[3], [4]]))
    array([[5.5]], dtype=float32)
    """

    transpose_a: bool = field(default=False, kw_only=True)
    transpose_b: bool = field(default=False, kw_only=True)
    alpha: float = field(default=1.0, kw_only=True)
    beta: float = field(default=1.0, kw_only=True)
    runtime_constants: tuple[int, ...] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("transpose_a", "transpose_b"):
            object.__setattr__(self, name, _check.flag(getattr(self, name), name))
        for name in ("alpha", "beta"):
            object.__setattr__(self, name, _check.real(getattr(self, name), name))

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the product's shape; ValueError if the matrices do not fit."""
        a, b, *rest = take_some(self, shapes, 2, 3)
        left, right = _swapped(a, self.transpose_a), _swapped(b, self.transpose_b)
        rows, cols = (left, right) if len(left) > 1 else ((1, *left), right)
        cols = cols if len(right) > 1 else (*right, 1)
        try:
            if not left or not right or rows[-1] != cols[-2]:
                raise ValueError
            stack = np.broadcast_shapes(rows[:-2], cols[:-2])
        except ValueError:
            raise ValueError(
                "FloatMatMul takes (..., M, K) and (..., K, N), not "
                f"{_check.shape(left)} and {_check.shape(right)}{_hints.other_product(left, right, 'ab')}"
            ) from None
        shape = (*stack, *rows[-2:-1][: len(left) - 1], *cols[-1:][: len(right) - 1])
        for c in rest:
            padded = (1,) * (len(shape) - len(c)) + tuple(c)
            if len(c) > len(shape) or any(b not in (1, a) for a, b in zip(shape, padded, strict=True)):
                raise ValueError(
                    f"FloatMatMul takes a c that broadcasts to the product {_check.shape(shape)}, "
                    f"not {_check.shape(c)}"
                )
        return shape

    def output_dtype(self, *dtypes: str) -> str:
        """Return the inputs' common type."""
        first, *rest = take_some(self, dtypes, 2, 3)
        name = expect_dtype(self, first, _TYPES)
        for dtype in rest:
            expect_dtype(self, dtype, (name,), ", the first input's type")
        if name not in ("float32", "float64", "float16") and (self.alpha, self.beta) != (1.0, 1.0):
            raise TypeError(f"FloatMatMul takes an alpha and a beta for floats alone, not for {name}")
        return name

    def _operator(self, inputs: Sequence[np.ndarray]) -> tuple[str, dict[str, Any]]:
        plain = not (self.transpose_a or self.transpose_b) and self.alpha == 1 and len(inputs) == 2
        if plain:
            return "MatMul", {}
        return "Gemm", {
            "transA": int(self.transpose_a), "transB": int(self.transpose_b),
            "alpha": self.alpha, "beta": self.beta,
        }  # fmt: skip

    def terms(self, shapes: Sequence[Shape]) -> int:
        """Return K."""
        return shapes[0][-2 if self.transpose_a else -1]

    def _exact(self, inputs: Sequence[np.ndarray], shape: Shape, dtype: str) -> np.ndarray:
        a, b, *rest = inputs
        a = np.swapaxes(a, -1, -2) if self.transpose_a else a
        b = np.swapaxes(b, -1, -2) if self.transpose_b else b
        with np.errstate(all="ignore"):
            result = _product(a, b).reshape(shape)
            if self.alpha != 1:
                result = result * self.alpha
            for c in rest if self.beta else ():
                result = result + (c if self.beta == 1 else c * np.float64(self.beta))
            return np.asarray(result).astype(dtype, copy=False)


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return ``np.matmul`` of floats as float64, of integers as they are; large ones in blocks."""
    floats = a.dtype.kind == "f"
    wide: Any = np.float64 if floats else a.dtype
    m, k = a.shape[-2:] if a.ndim > 1 else (1, a.shape[0])
    n = b.shape[-1] if b.ndim > 1 else 1
    stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    most = _MACS if floats else _MACS >> 5  # integers have no BLAS
    if math.prod(stack) * m * k * n <= most:
        return np.asarray(np.matmul(a.astype(wide, copy=False), b.astype(wide, copy=False)))
    left, right = a.reshape(*a.shape[:-2], m, k), b.reshape(*b.shape[:-2], k, n)
    left, right = np.broadcast_to(left, (*stack, m, k)), np.broadcast_to(right, (*stack, k, n))
    out = np.empty((*stack, m, n), wide)
    rows = max(1, min(m, most // max(k * n, 1)))
    if rows < _ROWS:
        rows = min(m, _ROWS)
    cols = max(1, min(n, most // max(rows * k, 1)))
    for place in np.ndindex(*stack):
        for col in range(0, n, cols):
            some = copied(right[place][:, col : col + cols], wide)
            for row in range(0, m, rows):
                block = left[place][row : row + rows].astype(wide, copy=False)
                np.matmul(block, some, out=out[place][row : row + rows, col : col + cols])
    return out


def _swapped(shape: Shape, swap: bool) -> Shape:
    shape = tuple(shape)
    if not swap:
        return shape
    if len(shape) < 2:
        raise ValueError(f"FloatMatMul transposes matrices, not {_check.shape(shape)}")
    return (*shape[:-2], shape[-1], shape[-2])
