"""Ranges of a float model's tensors on calibration data."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator

import numpy as np

from systolic.calibrate.data import Feeds
from systolic.layers import HostLayer
from systolic.model import Model
from systolic.model.node import named_error

Ranges = dict[str, tuple[float, float]]
"""Smallest and largest number of tensors."""


def tensor_ranges(model: Model, feeds: Feeds, tensors: Collection[str], percentile: float) -> Ranges:
    """Return low and high of some tensors; 100 percent are their smallest and largest values."""
    counts = dict.fromkeys(tensors, 0) if percentile == 100 else _counts(model, feeds, tensors)
    # The place of both ends in the sorted values, and as many of the outermost ones as that takes.
    places = {name: (count - 1) * (1 - percentile / 100) if count else 0.0 for name, count in counts.items()}
    lows: dict[str, np.ndarray] = {}
    highs: dict[str, np.ndarray] = {}
    for feed in feeds:
        for name, array in _run(model, feed):
            if name not in places:
                continue
            if not np.isfinite(array).all():
                raise ValueError(f"tensor {name!r} is not finite on the calibration data; check the weights")
            keep = math.ceil(places[name]) + 1
            values = array.reshape(-1)
            lows[name] = _smallest(lows.get(name, values[:0]), values, keep)
            highs[name] = _largest(highs.get(name, values[:0]), values, keep)
    return {
        name: (_at(lows[name], places[name]), _at(highs[name], places[name]))
        for name in lows
        if len(lows[name])
    }


def _counts(model: Model, feeds: Feeds, tensors: Collection[str]) -> dict[str, int]:
    """Return how many values of each tensor there are."""
    counts = dict.fromkeys(tensors, 0)
    for feed in feeds:
        known = model.infer_shapes({name: array.shape for name, array in feed.items()})
        sizes = {name: known[name][0] for name in tensors}
        if None in sizes.values():  # a shape that a run alone tells
            sizes |= {name: array.shape for name, array in _run(model, feed) if name in sizes}
        for name, shape in sizes.items():
            counts[name] += int(np.prod(shape or (), dtype=np.int64))
    return counts


def _run(model: Model, feed: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every tensor of a run; each is freed after its last reader."""
    values = {**model.constants, **feed}
    left = Counter(name for node in model.nodes for name in node.inputs)
    yield from feed.items()
    for node in model.nodes:
        layer = node.layer
        assert isinstance(layer, HostLayer)
        try:
            written = node.named(layer.apply(*(values[name] for name in node.inputs)))
        except Exception as error:
            named = named_error(error, node.name, layer.kind)
            if named is None:
                raise
            raise named from error
        for name in node.inputs:
            left[name] -= 1
            if not left[name]:
                del values[name]
        values |= {name: array for name, array in written.items() if left[name]}
        yield from written.items()


def _smallest(found: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Return the `count` smallest of all values, sorted; `found` are those of earlier ones."""
    if len(found) == count:  # few of the others are smaller
        values = values[values < found[-1]]
    if count == 1:
        values = values.min(keepdims=True) if values.size else values
    elif len(values) > count:
        values = np.partition(values, count - 1)[:count]
    return np.sort(np.concatenate([found, values]))[:count]


def _largest(found: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Return the `count` largest of all values, the largest first."""
    if len(found) == count:
        values = values[values > found[-1]]
    if count == 1:
        values = values.max(keepdims=True) if values.size else values
    elif len(values) > count:
        values = np.partition(values, len(values) - count)[-count:]
    return np.sort(np.concatenate([found, values]))[::-1][:count]


def _at(ordered: np.ndarray, place: float) -> float:
    """Return the value at a place between two of the ordered values, linearly."""
    before = min(int(place), len(ordered) - 1)
    after = min(before + 1, len(ordered) - 1)
    first, second = float(ordered[before]), float(ordered[after])
    return first + (second - first) * (place - before)
