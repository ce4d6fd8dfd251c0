"""Values that a simulator gives for signals, as numbers of the registers that they stand for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from systolic import _check, _hints
from systolic.cosim.signals import Place, Signal, groups
from systolic.formats import as_numbers

Columns = Mapping[str, Any]
"""The values of each signal, cycle by cycle."""

# Of VHDL and cocotb: weak values are values.
_WEAK = str.maketrans("LHlh", "0101")


class Recorded(NamedTuple):
    """What a place held after each sampled edge.

    Attributes
    ----------
    values : ndarray of int64 or float64, (samples, rows, cols)
    known : ndarray of bool, (samples, rows, cols)
        False where the simulator had X or Z: there the value is 0.
    """

    values: np.ndarray
    known: np.ndarray


def as_columns(samples: Any, names: Iterable[str]) -> Columns:
    """Return samples as the values of each signal, those of `names` of one length.

    Parameters
    ----------
    samples : mapping of str to sequence, or iterable of mapping
        By signal, the values of all cycles; or for each cycle the values by signal.
    names : iterable of str
        Signals that must be there.

    Raises
    ------
    TypeError, ValueError
        If samples are neither, or a signal is missing in one; the message says which, and the nearest name.
    """
    names = tuple(names)
    if isinstance(samples, Mapping):
        columns = {name: _found(samples, name, "the samples have") for name in names}
        for name, column in columns.items():
            if not (_check.is_listed(column, arrays=True) or isinstance(column, range)):
                raise TypeError(
                    f"the samples of signal {name!r} must be a list or an array, a value for each cycle, not "
                    f"{_check.kind(column)}"
                )
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            short, long = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
            raise ValueError(
                f"all signals must have one number of samples, but {short!r} has {lengths[short]} and "
                f"{long!r} {lengths[long]}"
            )
        return columns
    if isinstance(samples, str | bytes) or not isinstance(samples, Iterable):
        raise TypeError(
            "samples must be a dict of the values of each signal, or a dict of signals for each cycle, not "
            f"{_check.kind(samples)}"
        )
    found: dict[str, list[Any]] = {name: [] for name in names}
    for cycle, sample in enumerate(samples):
        if not isinstance(sample, Mapping):
            raise TypeError(f"sample {cycle} must be a dict of values by signal, not {_check.kind(sample)}")
        for name, column in found.items():
            column.append(_found(sample, name, f"sample {cycle} has"))
    return found


def _found(values: Mapping[str, Any], name: str, has: str) -> Any:
    try:
        return values[name]
    except KeyError:
        known = [str(each) for each in values]
        near = _hints.nearest(name, known) if known else "there are no signals"
        raise ValueError(f"{has} no signal {name!r}; {near}") from None


def names_of(pattern: str, place: Place) -> tuple[str, ...]:
    """Return the signals that a pattern names for a place."""
    return tuple(name for name, _ in groups(pattern, place))


def recorded(columns: Columns, signal: Signal, place: Place) -> Recorded:
    """Return what a place held, from the columns of its signals."""
    bits = place.bits if signal.width is None else signal.width
    return _gathered(columns, signal.name, place, bits, place.dtype, signal.first)


def valids(columns: Columns, signal: Signal, place: Place) -> Recorded:
    """Return the valid bits of a place, 0 or 1."""
    assert signal.valid is not None
    return _gathered(columns, signal.valid, place, 1, np.dtype(bool), signal.first)


def _gathered(
    columns: Columns, pattern: str, place: Place, bits: int, dtype: np.dtype, first: str
) -> Recorded:
    values, known = None, None
    for name, at in groups(pattern, place):
        what = f"{place.name}, signal {name!r}"
        numbers, there = _decoded(columns[name], len(at), bits, dtype, first, what)
        if values is None or known is None:
            size = (len(numbers), len(place.rows), len(place.cols))
            values, known = np.zeros(size, numbers.dtype), np.ones(size, bool)
        rows, cols = zip(*at, strict=True)
        values[:, rows, cols], known[:, rows, cols] = numbers, there
    assert values is not None and known is not None
    return Recorded(values, known)


def _decoded(
    column: Sequence[Any], count: int, bits: int, dtype: np.dtype, first: str, what: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return (samples, count) numbers and whether they are known, of one signal."""
    held = np.dtype(np.float64 if dtype.kind not in "iub" else np.int64)
    plain = column if isinstance(column, np.ndarray) else None
    if plain is None and count == 1 and all(type(value) is int for value in column):
        try:
            plain = np.array(column, np.int64)
        except OverflowError:
            plain = None
    if plain is not None and plain.dtype.kind in "iubfV" and plain.size == len(column) * count:
        numbers = _of_array(plain.reshape(len(column), count), bits, dtype, what)
        return numbers, np.ones(numbers.shape, bool)
    values, known = np.zeros((len(column), count), held), np.ones((len(column), count), bool)
    seen: dict[Any, tuple[np.ndarray, np.ndarray]] = {}  # simulators repeat values
    for cycle, value in enumerate(column):
        key = value if isinstance(value, str | int) else None
        if key is None or (type(key), key) not in seen:
            pair = _one(_plain(value), count, bits, dtype, first, f"{what}, sample {cycle}")
            if key is not None:
                seen[type(key), key] = pair
        else:
            pair = seen[type(key), key]
        values[cycle], known[cycle] = pair
    return values, known


def _plain(value: Any) -> Any:
    """Return the value of a simulator's object as a number, a text of bits or an array."""
    if isinstance(value, str | int | float | np.ndarray | np.generic | list | tuple):
        return value
    if hasattr(value, "is_resolvable") or type(value).__name__ in ("Logic", "Bit"):  # cocotb's
        return str(value)
    return _plain(value.value) if hasattr(value, "value") else value


def _one(
    value: Any, count: int, bits: int, dtype: np.dtype, first: str, what: str
) -> tuple[np.ndarray, np.ndarray]:
    known = np.ones(count, bool)
    if isinstance(value, str):
        words, known = _of_text(value, count, bits, what)
    elif isinstance(value, int | np.integer | np.bool_) and count > 1:
        word = int(value)
        if word < 0 or word >> bits * count:
            raise ValueError(f"{what} holds {word}, which is no packed vector of {count} x {bits} bits")
        words = [word >> bits * i & ((1 << bits) - 1) for i in range(count)]
    else:
        array = _check.as_array(value, what)
        if array.size != count or array.dtype.kind not in "iubfV":
            raise TypeError(
                f"{what} must be a number, a text of bits or {count} number{'s' * (count > 1)}, not "
                f"{_check.kind(value)}"
            )
        return _of_array(array.reshape(1, count), bits, dtype, what)[0], known
    if first == "high":
        words, known = words[::-1], known[::-1]
    return _encoded(np.array(words, np.uint64), bits, dtype), known


def _of_text(text: str, count: int, bits: int, what: str) -> tuple[list[int], np.ndarray]:
    """Return the words of a text of bits, the lowest first, and which of them have no X or Z."""
    text = text.replace("_", "").removeprefix("0b").translate(_WEAK)
    if len(text) != bits * count:
        of = f"{count} x {bits}" if count > 1 else str(bits)
        raise ValueError(
            f"{what} is {len(text)} bits wide, expected {of}; the width of its Signal says how wide a value "
            "is"
        )
    parts = [text[i : i + bits] for i in range(0, len(text), bits)][::-1]
    known = np.array([not part.strip("01") for part in parts])
    for part in parts:
        if part.strip("01xXzZuUwW-?"):
            raise ValueError(f"{what} must be a text of bits (0, 1, X, Z), not {text[:60]!r}")
    return [int(part, 2) if there else 0 for part, there in zip(parts, known, strict=True)], known


def _of_array(array: np.ndarray, bits: int, dtype: np.dtype, what: str) -> np.ndarray:
    """Return integers, which may be bits without a sign, or floats as numbers of a type."""
    if array.dtype.kind in "fV":
        if dtype.kind in "iub":
            raise TypeError(f"{what} must hold integers, not {array.dtype}")
        return as_numbers(array)
    if array.dtype == np.uint64 and bits == 64:
        return _encoded(array, bits, dtype)
    numbers = array.astype(np.int64)
    low, high = -(1 << bits - 1), (1 << bits) - 1
    wrong = (numbers < low) | (numbers > min(high, (1 << 63) - 1))
    if wrong.any():
        cycle = f", sample {int(np.argwhere(wrong)[0, 0])}" if len(array) > 1 else ""
        raise ValueError(
            f"{what}{cycle} holds {numbers[wrong][0]}, which {bits} bits do not; the width of its Signal "
            "says how wide a value is"
        )
    return _encoded(numbers.view(np.uint64), bits, dtype)


def _encoded(words: np.ndarray, bits: int, dtype: np.dtype) -> np.ndarray:
    """Return words of some bits as numbers: with the sign of the type, floats by their encoding."""
    spare = np.uint64(64 - bits)
    if dtype.kind == "i":
        return (words << spare).view(np.int64) >> spare.astype(np.int64)
    low = words << spare >> spare
    if dtype.kind in "ub":
        return low.view(np.int64)
    if bits != 8 * dtype.itemsize:
        raise ValueError(
            f"a value of {dtype} takes {8 * dtype.itemsize} bits, but its Signal's width is {bits}"
        )
    return as_numbers(low.astype(f"u{dtype.itemsize}").view(dtype))
