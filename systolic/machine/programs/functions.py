"""The entries of a program's table of functions, checked against a machine and computed on rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from systolic import _check, _host
from systolic.gemm import Gemm
from systolic.isa import Function, Window
from systolic.lowered import Epilogue, Lowered, taps
from systolic.machine.epilogue import apply_epilogue
from systolic.quant import EIGHT_BITS, ROUNDINGS

OF_ACTIVATE = ("identity", "epilogue")
OF_VECTOR = ("identity", "lanes", "pair", "max_pool", "sum_pool")

Sums = Callable[[np.ndarray], np.ndarray]
"""Called with sums, int32 (rows, cols), that it must not change; returns results, (rows, cols)."""
Bytes = Callable[[Sequence[np.ndarray]], np.ndarray]
"""Called with rows of each input, uint8 (rows, row_bytes), that it must not change; returns rows."""

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
        if function.kind not in OF_ACTIVATE:
            raise ValueError(_wrong_kind(function, "activate", OF_ACTIVATE))
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


def _wrong_kind(function: Function, mnemonic: str, known: Sequence[str]) -> str:
    kinds = ", ".join(map(repr, known[:-1])) + " or " + repr(known[-1]) if len(known) > 1 else repr(known[0])
    return (
        f"{mnemonic} computes functions of kind {kinds}, but {function.name!r} is of kind {function.kind!r}"
    )


def _epilogue(function: Function, cols: int) -> Epilogue:
    """Return the epilogue that a function describes."""
    name, given = function.name, dict(function.attributes)
    dtype = _check.choice(given.pop("dtype", "int8"), f"dtype of the function {name!r}", tuple(_ITEM))
    rounding = _check.choice(
        given.pop("rounding", "half_even"), f"rounding of the function {name!r}", tuple(ROUNDINGS)
    )
    zero_point = _check.integer(given.pop("zero_point", 0), f"zero_point of the function {name!r}")
    clamp = given.pop("clamp", None)
    if given:
        raise ValueError(f"the function {name!r} has the attributes {', '.join(given)}, which mean nothing")
    types: dict[str, Any] = {
        "constant": np.int32,
        "late_scale": np.float32,
        "float_bias": np.float32,
    }
    arrays: dict[str, Any] = {}
    for key in function.arrays:
        if key == "table":
            arrays[key] = _array(function, key, (256,), np.uint8, np.int8)
        elif key == "scale":
            arrays[key] = _array(function, key, (cols,), np.float32, np.float64)
        elif key in types:
            arrays[key] = _array(function, key, (cols,), types[key])
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


def _array(function: Function, key: str, shape: tuple[int, ...], *dtypes: Any) -> np.ndarray:
    values = function.arrays.get(key)
    if values is None:
        raise ValueError(f"the function {function.name!r} of kind {function.kind!r} lacks its array {key!r}")
    if values.shape != shape or values.dtype not in [np.dtype(dtype) for dtype in dtypes]:
        names = " or ".join(np.dtype(dtype).name for dtype in dtypes)
        raise ValueError(
            f"the array {key!r} of the function {function.name!r} must be {names} {_check.shape(shape)}, not "
            f"{values.dtype} {_check.shape(values.shape)}"
        )
    return values


def on_rows(function: Function, inputs: int, rows: int, row_bytes: int) -> tuple[Bytes, int]:
    """Return what a ``Vector`` computes with a function, and the rows that it writes.

    Parameters
    ----------
    function : Function
    inputs, rows : int
        How many tensors are read, and rows of each.
    row_bytes : int
        Of the machine.

    Raises
    ------
    ValueError
        If it is none of a ``Vector``, or does not fit.
    """
    kind, name = function.kind, function.name
    if kind not in OF_VECTOR:
        raise ValueError(_wrong_kind(function, "vector", OF_VECTOR))
    if function.parts > 1 or (function.pool > 1 and kind != "identity"):
        raise ValueError(f"a vector function of kind {kind!r} has no pool and no parts, but {name!r} has")
    wanted = {"pair": 2, "lanes": len(function.arrays.get("tables", ()))}.get(kind, 1)
    if inputs != wanted and kind != "identity":
        raise ValueError(f"the function {name!r} takes {wanted} inputs, not {inputs}")
    if kind == "identity":
        pool = function.pool
        if pool == 1:
            return lambda given: given[0], rows
        return lambda given: pooled(given[0].view(np.int8), pool).view(np.uint8), -(-rows // pool)
    if kind == "pair":
        return _pairs(function), rows
    if kind == "lanes":
        return _lanes(function, inputs, row_bytes), rows
    return _pool(function, rows)


def _pairs(function: Function) -> Bytes:
    table = _array(function, "table", (65536,), np.uint8)
    kernel = _kernel_of(function)
    if kernel is not None:
        codes = np.arange(256, dtype=np.uint8)
        if np.array_equal(kernel([np.repeat(codes, 256), np.tile(codes, 256)]), table):
            return kernel

    def look_up(given: Sequence[np.ndarray]) -> np.ndarray:
        pairs = given[0].astype(np.uint16)
        pairs <<= 8
        pairs |= given[1]
        return table.take(pairs)

    return look_up


def _kernel_of(function: Function) -> Bytes | None:
    """Return the operator that a table of pairs says it is; it takes a fifth of the time of looking up."""
    if not function.attributes:
        return None
    given = dict(function.attributes)
    name = function.name
    known = ("add", "mul")
    operator = _check.choice(given.pop("operator", None), f"operator of the function {name!r}", known)
    dtype = _check.choice(given.pop("dtype", None), f"dtype of the function {name!r}", EIGHT_BITS)
    scales, zero_points = given.pop("scales", None), given.pop("zero_points", None)
    for key, values in (("scales", scales), ("zero_points", zero_points)):
        if not _check.is_listed(values) or len(values) != 3:
            raise ValueError(
                f"{key} of the function {name!r} must be three numbers, of both inputs and the output, "
                f"not {_check.kind(values)}"
            )
    if given:
        raise ValueError(f"the function {name!r} has the attributes {', '.join(given)}, which mean nothing")
    low, high = (-128, 127) if dtype == "int8" else (0, 255)
    scales = tuple(_check.positive_real(scale, f"scales of the function {name!r}") for scale in scales)
    zeros = tuple(
        _check.integer(zero, f"zero_points of the function {name!r}", minimum=low, maximum=high)
        for zero in zero_points
    )
    kernel = _host.add if operator == "add" else _host.mul

    def compute(inputs: Sequence[np.ndarray]) -> np.ndarray:
        out = np.empty(inputs[0].shape, np.uint8)
        a, b, target = (np.ascontiguousarray(each).view(dtype) for each in (*inputs, out))
        kernel(a, b, target, scales, zeros)
        return out

    return compute


def _lanes(function: Function, inputs: int, row_bytes: int) -> Bytes:
    source = _array(function, "source", (row_bytes,), np.int16)
    lane = _array(function, "lane", (row_bytes,), np.int32)
    tables = _array(function, "tables", (inputs, 256), np.uint8)
    if source.min() < -1 or source.max() >= inputs:
        raise ValueError(f"sources of the function {function.name!r} must be -1 to {inputs - 1}")
    if lane[source >= 0].size and not 0 <= lane[source >= 0].min() <= lane[source >= 0].max() < row_bytes:
        raise ValueError(f"lanes of the function {function.name!r} must be 0 to {row_bytes - 1}")
    parts = []
    for number in range(inputs):
        to = np.flatnonzero(source == number)
        if len(to):
            parts.append((number, _as_slice(to), _as_slice(lane[to]), _Table(tables[number])))

    if all(table.is_constant for *_, table in parts):  # such as a border's zero point
        row = np.zeros(row_bytes, np.uint8)
        for _, to, _, table in parts:
            row[to] = table.codes[0]
        return lambda given: np.broadcast_to(row, given[0].shape)

    def compute(given: Sequence[np.ndarray]) -> np.ndarray:
        out = np.zeros((len(given[0]), row_bytes), np.uint8)
        for number, to, taken, table in parts:
            table.put(out, to, given[number], taken)
        return out

    return compute


class _Table:
    """A table of codes; one that is constant or changes nothing is not looked up."""

    def __init__(self, table: np.ndarray) -> None:
        self.codes = table
        self.is_constant = bool((table == table[0]).all())
        self._is_identity = bool((table == np.arange(256)).all())

    def put(self, out: np.ndarray, to: Any, given: np.ndarray, taken: Any) -> None:
        """Put the codes of some lanes into others."""
        if self.is_constant:
            out[:, to] = self.codes[0]
        elif self._is_identity:
            out[:, to] = given[:, taken]
        else:
            out[:, to] = self.codes.take(given[:, taken])


def _as_slice(places: np.ndarray) -> Any:
    """Return places that follow each other as a slice, which numpy copies faster."""
    first = int(places[0])
    if np.array_equal(places, np.arange(first, first + len(places))):
        return slice(first, first + len(places))
    return places


def _pool(function: Function, rows: int) -> tuple[Bytes, int]:
    """Return the pooling of windows, and how many there are."""
    given = dict(function.attributes)
    name = function.name
    dtype = _check.choice(given.pop("dtype", None), f"dtype of the function {name!r}", EIGHT_BITS)
    try:
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in given.items()}
        window = Window(**values)
    except TypeError as error:
        raise ValueError(f"the function {name!r} does not describe windows: {error}") from None
    _check_window(window, name)
    taps = window_taps(window)
    out = window.batch * math.prod(window.out)
    held = window.batch * math.prod(window.stored)
    if rows != held:
        raise ValueError(f"the function {name!r} reads images of {held} rows in all, not {rows}")
    if function.outputs is not None and function.outputs != out:
        raise ValueError(f"the function {name!r} gives {out} rows, but has outputs={function.outputs}")
    low = -128 if dtype == "int8" else 0
    if function.kind == "max_pool":

        def largest(inputs: Sequence[np.ndarray]) -> np.ndarray:
            images = _images(inputs[0].view(dtype), window)
            found = np.full((window.batch, *window.out, images.shape[-1]), low, dtype)
            for to, of in taps:
                np.maximum(found[to], images[of], out=found[to])
            return found.reshape(out, -1).view(np.uint8)

        return largest, out

    counts = np.zeros((1, *window.out, 1), np.int64)
    for to, _ in taps:
        counts[to] += 1
    most = int(counts.max())
    table = function.arrays.get("table")
    if table is None or table.ndim != 2 or table.dtype != np.uint8:
        raise ValueError(f"the function {name!r} of kind 'sum_pool' needs a table of uint8 (taps + 1, sums)")
    if table.shape[0] <= most or table.shape[1] <= 255 * most:
        raise ValueError(
            f"the table of the function {name!r} must have at least {most + 1} x {255 * most + 1} entries "
            f"for windows of {most}, not {_check.shape(table.shape)}"
        )
    flat, across = table.reshape(-1), table.shape[1]

    def summed(inputs: Sequence[np.ndarray]) -> np.ndarray:
        images = _images(inputs[0].view(dtype), window)
        sums = np.zeros((window.batch, *window.out, images.shape[-1]), np.int64)
        for to, of in taps:
            sums[to] += images[of]
        sums += counts * (across - low)
        return flat[sums].reshape(out, -1)

    return summed, out


def _check_window(window: Window, name: str) -> None:
    pairs = {key: value for key, value in vars(window).items() if key != "batch"}
    _check.integer(window.batch, f"batch of the function {name!r}", minimum=1)
    for key, value in pairs.items():
        if not _check.is_listed(value) or len(value) != 2:
            raise ValueError(f"{key} of the function {name!r} must be two integers, not {_check.kind(value)}")
        least = {"corner": 0, "before": None}.get(key, 1)
        for each in value:
            _check.integer(each, f"{key} of the function {name!r}", minimum=least)
    for stored, corner, size in zip(window.stored, window.corner, window.size, strict=True):
        if corner + size > stored:
            raise ValueError(
                f"images of {window.size} at {window.corner} of the function {name!r} do not fit into "
                f"{window.stored}"
            )


def _images(rows: np.ndarray, window: Window) -> np.ndarray:
    """Return the images without their borders, (batch, height, width, lanes)."""
    (top, left), (height, width) = window.corner, window.size
    stored = rows.reshape(window.batch, *window.stored, -1)
    return stored[:, top : top + height, left : left + width]


def window_taps(window: Window) -> list[tuple[Any, Any]]:
    """Return, for each tap, the results that see it inside the image, and its pixels."""
    w = window
    along = zip(w.size, w.kernel, w.stride, w.dilation, w.before, w.out, strict=True)
    down, across = (taps(*axis) for axis in along)
    whole = slice(None)
    return [
        ((whole, to_row, to_col), (whole, from_row, from_col))
        for to_row, from_row in down.values()
        for to_col, from_col in across.values()
    ]
