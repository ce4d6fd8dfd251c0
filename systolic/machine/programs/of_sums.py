"""Functions of an ``Activate``: from rows of sums to rows of bytes."""

from __future__ import annotations

from typing import Any

import numpy as np

from systolic import _check, _host
from systolic.gemm import Gemm
from systolic.isa import Function
from systolic.lowered import Epilogue, Lowered
from systolic.machine.epilogue import apply_epilogue
from systolic.machine.programs.functions import array_of, no_more, wrong_kind
from systolic.quant import EIGHT_BITS, ROUNDINGS

KINDS = ("identity", "epilogue")

_ITEM = {"int8": 1, "uint8": 1, "int32": 4, "float32": 4}


class OnSums:
    """A function of an ``Activate``.

    Parameters
    ----------
    function : Function
    cols, row_bytes : int
        Of the machine.

    Attributes
    ----------
    dtype : str
        Of the results.

    Raises
    ------
    ValueError
        If it is none, or does not fit the machine.
    """

    def __init__(self, function: Function, cols: int, row_bytes: int) -> None:
        if function.kind not in KINDS:
            raise ValueError(wrong_kind(function, "activate", KINDS))
        self.pool, self.row_bytes = function.pool, row_bytes
        self.dtype = "int8"
        self.epilogue: Epilogue | None = None
        if function.kind == "epilogue":
            self.epilogue = _epilogue(function, cols)
            self.dtype = self.epilogue.dtype
        self.width = cols * _ITEM[self.dtype]
        self.parts = -(-self.width // row_bytes)
        if function.parts != self.parts:
            raise ValueError(
                f"{cols} results of {self.dtype} take {self.width} bytes, which are {self.parts} rows of "
                f"{row_bytes}, but the function {function.name!r} has parts={function.parts}"
            )
        if self.pool > 1 and self.dtype == "float32":
            raise ValueError(
                f"the function {function.name!r} pools float32; pool={self.pool} needs integer results"
            )
        self.itemsize = _ITEM[self.dtype]
        self._codes: dict[int, Codes] = {}
        # Also refuses multipliers that the rounding cannot hold.
        self._of_zeros = self.compute(np.zeros((1, cols), np.int32))[0]

    def rows_written(self, rows: int) -> int:
        """Return how many rows are written if `rows` are read."""
        return -(-rows // self.pool) * self.parts

    def codes(self, columns: int) -> Codes:
        """Return how codes are made of sums that are zero from a column on."""
        if columns not in self._codes:
            behind = np.zeros(self.row_bytes - columns, np.uint8)
            rest = self._of_zeros[columns:].view(np.uint8)
            behind[: len(rest)] = rest
            self._codes[columns] = Codes(columns, self.epilogue, behind)
        return self._codes[columns]

    def compute(self, sums: np.ndarray) -> np.ndarray:
        """Return one result per sum, (rows, cols) of `dtype`."""
        if self.epilogue is None:
            return np.clip(sums, -128, 127).astype(np.int8)
        e = self.epilogue
        if e.scale is None or e.rounding != "half_even":
            sums = sums.copy()
        lowered = Lowered(Gemm(len(sums), 1, sums.shape[1]), sums, sums, e)
        return apply_epilogue(lowered, sums)

    def __call__(self, sums: np.ndarray) -> np.ndarray:
        """Return the rows to write, uint8 (rows, row_bytes or fewer): what is behind them is 0."""
        results = pooled(self.compute(sums), self.pool)
        if results.dtype.itemsize > 1:
            results = np.ascontiguousarray(results, results.dtype.newbyteorder("<"))
        rows = results.view(np.uint8)
        if self.parts == 1:
            return rows
        whole = np.zeros((len(rows), self.parts * self.row_bytes), np.uint8)
        whole[:, : self.width] = rows
        return whole.reshape(-1, self.row_bytes)


class Codes:
    """A function of sums that gives codes, on the first columns of rows whose other sums are zero.

    Attributes
    ----------
    columns : int
    behind : ndarray of uint8
        The bytes of the row behind these columns.
    """

    def __init__(self, columns: int, epilogue: Epilogue | None, behind: np.ndarray) -> None:
        self.columns, self.behind, self._epilogue = columns, behind, epilogue
        self._fast: dict[str, Any] | None = None
        if epilogue is not None:
            arrays = ("constant", "scale", "late_scale", "float_bias")
            values = {name: getattr(epilogue, name) for name in arrays}
            cut = {name: array[:columns] for name, array in values.items() if array is not None}
            self._epilogue = e = epilogue._replace(**cut)
            if e.rounding == "half_even" and e.scale is not None:
                self._fast = {"scale": e.scale.astype(np.float32), "constant": e.constant}

    def compute(self, sums: np.ndarray, out: np.ndarray) -> None:
        """Put the codes of sums, (rows, columns), into bytes of that shape."""
        e = self._epilogue
        if e is None:
            out.view(np.int8)[...] = np.clip(sums, -128, 127)
        elif self._fast is None:
            lowered = Lowered(Gemm(len(sums), 1, self.columns), sums, sums, e)
            out[...] = apply_epilogue(lowered, sums.copy()).view(np.uint8)
        else:
            codes = out.view(e.dtype)
            _host.requantize(
                sums, codes, self._fast["scale"], e.zero_point, constant=self._fast["constant"]
            )
            if e.clamp is not None:
                np.clip(codes, *e.clamp, out=codes)
            if e.table is not None:
                codes[...] = e.table[out]


def pooled(values: np.ndarray, pool: int) -> np.ndarray:
    """Return the largest of every `pool` rows; of fewer at the end."""
    if pool == 1:
        return values
    return np.asarray(np.maximum.reduceat(values, np.arange(0, len(values), pool), axis=0))


def _epilogue(function: Function, cols: int) -> Epilogue:
    """Return the epilogue that a function describes."""
    name, given = function.name, dict(function.attributes)
    dtype = _check.choice(given.pop("dtype", "int8"), f"dtype of the function {name!r}", tuple(_ITEM))
    rounding = _check.choice(
        given.pop("rounding", "half_even"), f"rounding of the function {name!r}", tuple(ROUNDINGS)
    )
    zero_point = _check.integer(given.pop("zero_point", 0), f"zero_point of the function {name!r}")
    clamp = given.pop("clamp", None)
    no_more(function, given)
    types: dict[str, Any] = {
        "constant": np.int32,
        "late_scale": np.float32,
        "float_bias": np.float32,
    }
    arrays: dict[str, Any] = {}
    for key in function.arrays:
        if key == "table":
            arrays[key] = array_of(function, key, (256,), np.uint8, np.int8)
        elif key == "scale":
            arrays[key] = array_of(function, key, (cols,), np.float32, np.float64)
        elif key in types:
            arrays[key] = array_of(function, key, (cols,), types[key])
        else:
            raise ValueError(f"the function {name!r} has an array {key!r}, which means nothing")
    codes = dtype in EIGHT_BITS
    if ("scale" in arrays) == (dtype == "int32"):
        raise ValueError(f"the function {name!r} gives {dtype}: only int32 has no scale, and has none")
    if not codes and ("table" in arrays or clamp is not None):
        raise ValueError(f"the function {name!r} has a table or a clamp, but gives {dtype}, no codes")
    if dtype != "float32" and arrays.keys() & {"late_scale", "float_bias"}:
        raise ValueError(f"the function {name!r} has late_scale or float_bias, but gives {dtype}")
    if codes:
        low, high = (-128, 127) if dtype == "int8" else (0, 255)
        if not low <= zero_point <= high:
            raise ValueError(
                f"zero_point of the function {name!r} must be a code of {dtype}, not {zero_point}"
            )
        if "table" in arrays:
            arrays["table"] = arrays["table"].view(dtype)
        if clamp is not None:
            if not _check.is_listed(clamp) or len(clamp) != 2:
                raise TypeError(f"clamp of the function {name!r} must be two codes, not {_check.kind(clamp)}")
            clamp = tuple(
                _check.integer(code, f"clamp of the function {name!r}", minimum=low, maximum=high)
                for code in clamp
            )
    return Epilogue(dtype=dtype, zero_point=zero_point, rounding=rounding, clamp=clamp, **arrays)
