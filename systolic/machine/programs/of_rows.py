"""Functions of a ``Vector``: from rows of bytes to rows of bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from systolic import _check, _host
from systolic.isa import Function, Window
from systolic.lowered import taps
from systolic.machine.programs.functions import array_of, no_more, wrong_kind
from systolic.machine.programs.of_sums import pooled
from systolic.quant import EIGHT_BITS

KINDS = ("identity", "lanes", "pair", "max_pool", "sum_pool")

Bytes = Callable[[Sequence[np.ndarray]], np.ndarray]
"""Called with rows of each input, uint8 (rows, row_bytes), that it must not change; returns rows."""


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
    if kind not in KINDS:
        raise ValueError(wrong_kind(function, "vector", KINDS))
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
    table = array_of(function, "table", (65536,), np.uint8)
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
    no_more(function, given)
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
    source = array_of(function, "source", (row_bytes,), np.int16)
    lane = array_of(function, "lane", (row_bytes,), np.int32)
    tables = array_of(function, "tables", (inputs, 256), np.uint8)
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
