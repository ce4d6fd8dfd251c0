"""Argument checks with one message style: what was expected, what came, what to do.

Every public call checks its arguments here before anything is computed. A wrong *kind* of
thing is a ``TypeError``, a wrong *value* of the right kind a ``ValueError``.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np

from systolic import _hints

OPERAND_DTYPES = ("int8", "uint8")

_OPERAND_HINT = "quantize it first (systolic.quantize), or convert with .astype if the values fit"
_FLOAT_HINT = (
    "round it to a float format of the array, such as .astype(ml_dtypes.bfloat16), or quantize it "
    "(systolic.quantize)"
)


def integer(value: Any, name: str, *, minimum: int | None = None, maximum: int | None = None) -> int:
    """Return `value` as an ``int`` within the bounds; bools and floats are refused."""
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    try:
        result = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {kind(value)}") from None
    if minimum is not None and result < minimum:
        least = {0: "a non-negative integer", 1: "a positive integer"}
        raise ValueError(
            f"{name} must be {least.get(minimum, f'an integer of at least {minimum}')}, not {result}"
        )
    if maximum is not None and result > maximum:
        raise ValueError(f"{name} must be an integer of at most {maximum}, not {result}")
    return result


def flag(value: Any, name: str) -> bool:
    """Return `value` as a ``bool``; only true booleans are taken."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, not {kind(value)}")
    return bool(value)


def choice(value: Any, name: str, options: Sequence[str]) -> str:
    """Return `value` if it is one of `options`."""
    if not isinstance(value, str) or value not in options:
        expected = ", ".join(repr(option) for option in options)
        raise ValueError(f"{name} must be one of {expected}, not {value!r}")
    return value


def positive_real(value: Any, name: str) -> float:
    """Return `value` as a finite ``float`` above zero."""
    try:
        result = real(value, name)
    except ValueError:  # an integer beyond any float
        result = np.inf
    if not np.isfinite(result) or result <= 0:
        raise ValueError(f"{name} must be finite and above zero, not {value!r}")
    return result


def is_real(value: Any) -> bool:
    """Return whether a value is an integer or a float, Python's or numpy's, and no bool."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def real(value: Any, name: str) -> float:
    """Return `value` as a ``float``, which may be infinite or NaN."""
    if not is_real(value):
        raise TypeError(f"{name} must be a number, not {kind(value)}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} must be a number that a float holds, not {kind(value)}") from None


def dtype_or_none(value: Any) -> np.dtype | None:
    """Return the dtype that a text, type or dtype names; None for anything else."""
    try:
        return np.dtype(value) if isinstance(value, str | type | np.dtype) else None
    except (TypeError, ValueError, SyntaxError):  # numpy evaluates some texts
        return None


def operand_dtype(value: Any, name: str, known: Sequence[str] = OPERAND_DTYPES) -> str:
    """Return the name of an operand type, one of `known`."""
    if isinstance(value, str) and value in known:
        return value
    dtype = dtype_or_none(value)
    expected = alternatives(map(repr, known))
    if dtype is None:
        raise TypeError(f"{name} must be {expected}, not {value!r}")
    if dtype.name not in known:
        raise ValueError(f"{name} must be {expected}, not {dtype.name!r}")
    return dtype.name


def alternatives(names: Iterable[str]) -> str:
    """Return names as a text: "a, b or c"."""
    *rest, last = names
    return f"{', '.join(rest)} or {last}" if rest else last


@cache
def dtype_name(dtype: np.dtype) -> str:
    """Return ``dtype.name``, which numpy takes microseconds to make."""
    return dtype.name


def is_listed(value: Any, *, arrays: bool = False) -> bool:
    """Whether a value is a sequence, or an array if `arrays`, but not text, bytes or a masked array."""
    if isinstance(value, tuple | list):
        return True
    if arrays and isinstance(value, np.ndarray):
        return not _is_masked(value)
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | memoryview)


def _is_masked(array: Any) -> bool:
    # Nobody has a masked array before numpy.ma is imported; to name it here would import it, in whichever
    # thread comes first, and a fork meanwhile leaves the child with half a module.
    masked = getattr(sys.modules.get("numpy.ma"), "MaskedArray", None)
    return masked is not None and isinstance(array, masked)


def _holds_masked(array: Any, depth: int = 0) -> bool:
    # numpy refuses lists deeper than 64.
    if isinstance(array, list | tuple) and depth < 64:
        return any(_holds_masked(item, depth + 1) for item in array)
    return _is_masked(array)


def as_array(array: Any, name: str) -> np.ndarray:
    """Return `array` as an ndarray; ragged lists, masked arrays and bytes are refused."""
    if isinstance(array, bytes | bytearray | memoryview):
        raise TypeError(
            f"{name} must be an array, not {type(array).__name__}; numpy.frombuffer makes one of bytes"
        )
    if "numpy.ma" in sys.modules and _holds_masked(array):
        raise TypeError(f"{name} must be a plain array, but is a masked one; fill it: {name}.filled(0)")
    try:
        return np.asarray(array)
    except ValueError as error:
        raise ValueError(f"{name} must be an array with rows of one length ({error})") from error


def operand(
    array: Any, name: str, *, ndim: int | None = None, axes: str = "", known: Sequence[str] = OPERAND_DTYPES
) -> np.ndarray:
    """Return `array` as an ndarray of a `known` type and of `ndim` axes, without copying where possible.

    Any layout is taken: non-contiguous, read-only. `axes` names the axes in messages,
    such as ``"(M, K)"``.
    """
    if type(array) is np.ndarray and array.dtype.char in "bB" and array.ndim == ndim:
        return array  # the usual case
    result = as_array(array, name)
    if result.dtype.char not in "bB" and dtype_name(result.dtype) not in known:
        expected = alternatives(known)
        if result.dtype.kind in "OUS":
            raise TypeError(f"{name} must be an array of {expected}, not {kind(array)}")
        hint = _FLOAT_HINT if result.dtype.kind == "f" and "bfloat16" in known else _OPERAND_HINT
        raise TypeError(f"{name} must hold {expected}, not {result.dtype}; {hint}")
    if not result.dtype.isnative:
        result = result.astype(result.dtype.newbyteorder("="))
    if ndim is not None and result.ndim != ndim:
        of = f" {axes}" if axes else ""
        raise ValueError(f"{name} must have {ndim} axes{of}, not {result.ndim} {shape(result.shape)}")
    return result


def matrices(x: Any, w: Any, known: Sequence[str] = OPERAND_DTYPES) -> tuple[np.ndarray, np.ndarray]:
    """Return the operands of a product, x (M, K) and w (K, N), as :func:`operand` does."""
    usual = type(x) is type(w) is np.ndarray and x.ndim == w.ndim == 2
    if not (usual and x.dtype.char in "bB" and w.dtype.char in "bB"):
        x = operand(x, "x", ndim=2, axes="(M, K)", known=known)
        w = operand(w, "w", ndim=2, axes="(K, N)", known=known)
    if x.shape[1] != w.shape[0]:
        raise ValueError(
            f"x and w must share K, but x is {shape(x.shape)} and w is {shape(w.shape)}"
            f"{_hints.other_product(x.shape, w.shape)}"
        )
    return x, w


def numbers(array: Any, name: str, dtype: np.dtype, limits: tuple[int, int] | None = None) -> np.ndarray:
    """Return `array` as an ndarray of a type that holds all of it exactly; see :func:`integers`."""
    if dtype.kind in "iub":
        return integers(array, name, dtype.name, limits)
    result = as_array(array, name)
    if result.dtype == dtype:
        return result
    if result.dtype.kind not in "iubfV" or result.dtype.names is not None:
        raise TypeError(f"{name} must hold {dtype.name}, not {result.dtype}")
    with np.errstate(all="ignore"):
        converted = result.astype(dtype)
        wide, exact = converted.astype(np.float64), result.astype(np.float64)
    wrong = (wide != exact) & ~(np.isnan(wide) & np.isnan(exact))
    if wrong.any():
        raise ValueError(
            f"{name} must be exact in {dtype.name}, but holds {exact[wrong].flat[0]}; round it with .astype"
        )
    return converted


def integers(array: Any, name: str, dtype: str, limits: tuple[int, int] | None = None) -> np.ndarray:
    """Return `array` as an ndarray of `dtype` if it holds integers (or bools) that fit in it, or in `limits`.

    Python integers, other integer types and other byte orders are converted; a value out of
    range is an error, never wrapped.
    """
    target = np.dtype(dtype)
    result = as_array(array, name)
    if result.dtype == target and limits is None:
        return result
    if not result.size and result.dtype.kind == "f":
        return result.astype(target)  # an empty list is no list of floats
    low, high = limits or ((0, 1) if target.kind == "b" else (np.iinfo(target).min, np.iinfo(target).max))
    if result.dtype.kind == "O" and all(isinstance(value, int) for value in result.flat):
        if all(low <= value <= high for value in result.flat):
            return result.astype(target)
        fit = f"be {low} to {high}" if limits else f"fit {target.name}"
        raise ValueError(f"{name} must {fit}, but holds {max(result.flat, key=abs)}")
    if result.dtype.kind not in "iub":
        raise TypeError(f"{name} must hold integers, not {result.dtype}")
    if result.size and (int(result.min()) < low or int(result.max()) > high):
        worst = int(result.min()) if int(result.min()) < low else int(result.max())
        fit = f"be {low} to {high}" if limits else f"fit {target.name} ({low}..{high})"
        raise ValueError(f"{name} must {fit}, but holds {worst}")
    return result.astype(target)


def shape(sizes: Sequence[int | None]) -> str:
    """Return a shape as people write it: ``(2, 3)``."""
    return (
        "("
        + ", ".join("?" if size is None else str(size) for size in sizes)
        + ("," if len(sizes) == 1 else "")
        + ")"
    )


def kind(value: Any) -> str:
    """Return a value's type and text, shortened, for a message."""
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def same_values(a: Any, b: Any) -> bool:
    """Whether two fields of values are equal: arrays by type and values, NaN equal to NaN."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return (
            isinstance(a, np.ndarray)
            and isinstance(b, np.ndarray)
            and a.dtype == b.dtype
            and np.array_equal(a, b, equal_nan=a.dtype.kind in "fV")  # ml_dtypes' types are of kind V
        )
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(same_values, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same_values(a[key], b[key]) for key in a)
    return type(a) is type(b) and bool(a == b or (a != a and b != b))
