"""``TensorSpec``: shape and dtype of a model's input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from systolic import _check, _hints

DTYPES = (
    "float32", "float64", "float16", "bool",
    "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
)  # fmt: skip
"""Dtypes that a model's tensors may have."""


@dataclass(frozen=True)
class TensorSpec:
    """Shape and type of a model's input.

    Parameters
    ----------
    shape : tuple of int or None
        None is any size, bound at run time; axis 0 is the batch.
    dtype : str
        "float32", "float64", "float16", "bool", or "int8" to "uint64".
    symbols : tuple of str or None
        Names of sizes that are None in `shape`: sizes with the same name must be equal in all inputs.
        Empty, or one per axis.

    Examples
    --------
    >>> from systolic import TensorSpec
    >>> TensorSpec((None, 1, 8, 8), "float32").shape
    (None, 1, 8, 8)
    """

    shape: tuple[int | None, ...]
    dtype: str
    symbols: tuple[str | None, ...] = ()

    def __post_init__(self) -> None:
        if not _check.is_listed(self.shape):
            raise TypeError(
                f"an input's shape must be a tuple such as (None, 4), not {_check.kind(self.shape)}"
            )
        shape = tuple(self.shape)
        checked = [
            None if size is None else _check.integer(size, f"size {axis} of the input", minimum=0)
            for axis, size in enumerate(shape)
        ]
        object.__setattr__(self, "shape", tuple(checked))
        _check.choice(self.dtype, "dtype", DTYPES)
        if not _check.is_listed(self.symbols):
            raise TypeError(f"symbols must be a tuple of names or None, not {_check.kind(self.symbols)}")
        for symbol in self.symbols:
            if symbol is not None and not isinstance(symbol, str):
                raise ValueError(f"symbols name sizes that are None, not {_check.kind(symbol)}")
        symbols = tuple(self.symbols) if any(self.symbols) else ()
        if symbols and len(symbols) != len(shape):
            raise ValueError(f"symbols must be empty or one per axis of {_check.shape(shape)}, not {symbols}")
        for size, symbol in zip(checked, symbols, strict=False):
            if symbol is not None and size is not None:
                raise ValueError(f"symbols name sizes that are None, not {_check.kind(symbol)} for {size}")
        object.__setattr__(self, "symbols", symbols)

    def check(self, name: str, value: np.ndarray) -> None:
        """Raise TypeError if an array has another dtype, ValueError if another shape."""
        if value.dtype.newbyteorder("=") != np.dtype(self.dtype):
            raise TypeError(
                f"input {name!r} must hold {self.dtype}, not {value.dtype}; "
                f"convert with .astype({self.dtype!r})"
            )
        self.check_shape(name, value.shape)

    def check_shape(self, name: str, shape: Sequence[int]) -> None:
        """Raise ValueError if a shape does not fit."""
        fits = len(shape) == len(self.shape) and all(
            want is None or have == want for have, want in zip(shape, self.shape, strict=True)
        )
        if not fits:
            any_size = " (? is any size)" if None in self.shape[1:] else " (? is any batch)"
            raise ValueError(
                f"input {name!r} must have shape {_check.shape(self.shape)}"
                f"{any_size if None in self.shape else ''}, not {_check.shape(shape)}"
                f"{_hints.other_order(name if name.isidentifier() else 'x', shape, self.shape)}"
            )


def as_spec(name: str, spec: Any) -> TensorSpec:
    """Return a TensorSpec, or the (shape, dtype) of one, as a TensorSpec."""
    if isinstance(spec, TensorSpec):
        return spec
    if not _check.is_listed(spec) or len(spec) != 2:
        raise TypeError(f"input {name!r} must be a TensorSpec or (shape, dtype), not {_check.kind(spec)}")
    return TensorSpec(*spec)
