"""Calibration data: arrays, mappings or batches of them, as the feeds of runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from systolic import _check
from systolic.model import Model

# Samples that are run at once.
_PIECE = 16

Feeds = list[dict[str, np.ndarray]]


def calibration_feeds(model: Model, calibration: Any) -> Feeds:
    """Return calibration data as feeds of one run each.

    Arrays are cut along axis 0 into pieces that the inputs take; batches of an iterable stay as they are.
    """
    if _is_batch(calibration) or (_check.is_listed(calibration) and not any(map(_is_batch, calibration))):
        return _pieces(model, _named(model, calibration, "calibration"))
    feeds = []
    for number, batch in enumerate(iterable(calibration)):
        what = f"calibration batch {number}"
        if not _is_batch(batch):
            listed = _check.is_listed(batch)
            given = f"a {type(batch).__name__} of {len(batch)}" if listed else _check.kind(batch)
            hint = "; of a loader that yields pairs, pass (x for x, _ in loader)" * listed
            raise TypeError(f"{what} must be an array or arrays by input name, not {given}{hint}")
        feeds.append(_named(model, batch, what))
        _check_feed(model, feeds[-1], what)
    if not feeds:
        raise ValueError("calibration must hold at least one batch; a generator is empty after its first use")
    return feeds


def iterable(calibration: Any) -> Iterable[Any]:
    """Return calibration data that are no batch as what they must be then, an iterable of batches."""
    if not isinstance(calibration, Iterable) or isinstance(calibration, str | bytes):
        raise TypeError(
            "calibration must be an array, arrays by input name, or an iterable of batches of either, not "
            f"{_check.kind(calibration)}"
        )
    return calibration


def _is_batch(value: Any) -> bool:
    return isinstance(value, Mapping) or hasattr(value, "__array__")


def _named(model: Model, data: Any, what: str) -> dict[str, np.ndarray]:
    """Return an array for each input of the model, in the input's type."""
    if not isinstance(data, Mapping):
        if len(model.inputs) > 1:
            names = ", ".join(map(repr, model.inputs))
            raise ValueError(f"{what} must be a mapping by input name for the inputs {names}")
        return {name: _values(data, what, spec.dtype) for name, spec in model.inputs.items()}
    if set(data) != set(model.inputs):
        raise ValueError(
            f"{what} must hold data for {', '.join(map(repr, model.inputs))}, "
            f"not {', '.join(map(repr, data)) or 'nothing'}"
        )
    return {n: _values(data[n], f"{what}[{n!r}]", spec.dtype) for n, spec in model.inputs.items()}


def _values(values: Any, what: str, dtype: str) -> np.ndarray:
    array = _check.as_array(values, what)
    if np.dtype(dtype).kind != "f":
        if array.dtype != dtype:
            raise TypeError(f"{what} must hold {dtype}, not {array.dtype}; convert with .astype(np.{dtype})")
        return array
    if array.dtype.kind != "f":
        raise TypeError(
            f"{what} must hold floats, not {array.dtype}; convert with .astype(np.float32), scaled as in use"
        )
    if not array.size:
        shape = _check.shape(array.shape)
        raise ValueError(f"{what} must hold samples along axis 0, not be of shape {shape}")
    with np.errstate(over="ignore"):
        array = np.asarray(array, dtype)
    wrong = ~np.isfinite(array)
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"{what} must be finite in {dtype}, but {int(wrong.sum()):,} of {array.size:,} values are NaN, "
            f"infinity or too large, the first at {_check.shape(place)}; leave such samples out"
        )
    return array


def _pieces(model: Model, feeds: dict[str, np.ndarray]) -> Feeds:
    """Return the data in pieces that the inputs take."""
    fixed = {spec.shape[0] for spec in model.inputs.values() if spec.shape and spec.shape[0] is not None}
    samples = {len(array) if array.ndim else 0 for array in feeds.values()}
    size = min(fixed) if fixed else _PIECE
    if len(fixed) > 1 or len(samples) > 1 or size < 1 or 0 in samples or (fixed and max(samples) % size):
        raise ValueError(
            f"calibration must hold equally many samples for each input, a multiple of the batch "
            f"{'/'.join(map(str, sorted(fixed))) or 1}, not {'/'.join(map(str, sorted(samples)))}; other "
            "data goes in batches, as a list of arrays or mappings"
        )
    starts = range(0, max(samples), size)
    pieces = [{name: array[at : at + size] for name, array in feeds.items()} for at in starts]
    _check_feed(model, pieces[0] if fixed else feeds, "calibration")
    return pieces


def _check_feed(model: Model, feed: dict[str, np.ndarray], what: str) -> None:
    for name, array in feed.items():
        try:
            model.inputs[name].check(name, array)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{what}: {error}") from error
