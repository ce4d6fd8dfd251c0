"""Random inputs that a model accepts: indices within range, masks of 0 and 1, sizes that fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from systolic import _check, layers
from systolic._memory import require_array
from systolic.layers.base import Shape
from systolic.model import Model, Node
from systolic.model.inference import bind_shapes

Known = Mapping[str, tuple[Shape | None, str]]

# Bound of wide integers with no known use: products of them do not overflow.
_SMALL = 100


@dataclass(frozen=True)
class Use:
    """Constraint on an input's values: a fixed list, a set to draw from, or a range.

    Attributes
    ----------
    values : tuple of int
        All of them, in order.
    choices : tuple of (int or float)
        Values to draw from; empty where `low` and `high` bound them.
    low, high : int
        The least and the largest.
    """

    choices: tuple[float, ...] = ()
    low: int = 0
    high: int = 0
    values: tuple[int, ...] = ()


def check_batch(model: Model, batch: int, shapes: Mapping[str, Sequence[int]] | None = None) -> None:
    """Raise ValueError if the size of the first axis of a model's inputs does not depend on `batch`."""
    sizes = [bind_shapes(model.inputs, each, shapes) for each in (batch, batch + 1)]
    if sizes[0] == sizes[1]:
        known = ", ".join(f"{name} {_check.shape(spec.shape)}" for name, spec in model.inputs.items())
        raise ValueError(f"batch={batch} would have no effect: no first axis is unknown: {known}")


def random_inputs(
    model: Model, seed: int, batch: int = 2, shapes: Mapping[str, Sequence[int]] | None = None
) -> dict[str, np.ndarray]:
    """Return inputs drawn from a seed: all codes, standard normal numbers, or what their readers take.

    An input that leads, through casts and changes of shape, to the indices of a Gather or to the sizes
    of a Reshape holds valid indices or sizes; an integer input that becomes a float or a condition, or is
    called a mask, holds 0 and 1. `batch` is the size of the first axis where the model takes any; `shapes`
    are whole shapes by name, where other sizes are symbolic. ValueError if a size is unknown.
    """
    rng = np.random.default_rng(seed)
    bound: dict[str, Shape] = {}
    for name, shape in bind_shapes(model.inputs, batch, shapes).items():
        if shape is None:
            has = _check.shape(model.inputs[name].shape)
            raise ValueError(
                f"input {name!r} has the shape {has}; sizes beyond the batch must be given: by an input "
                f"array, as shapes={{{name!r}: (...)}}, or in the shell by --shape {name}=..."
            )
        bound[name] = shape
    known = model.infer_shapes(bound)
    readers: dict[str, list[tuple[Node, int]]] = {}
    for node in model.nodes:
        for place, tensor in enumerate(node.inputs):
            readers.setdefault(tensor, []).append((node, place))
    inputs = {}
    for name, shape in bound.items():
        dtype = np.dtype(model.inputs[name].dtype)
        # Numbers are drawn in 64 bits, whatever they become.
        require_array(shape, "float64", f"input {name!r}, of random numbers,")
        uses = _uses(model, name, readers, known)
        inputs[name] = _drawn(rng, name, shape, dtype, uses)
    return inputs


def _drawn(
    rng: np.random.Generator, name: str, shape: Shape, dtype: np.dtype, uses: Sequence[Use]
) -> np.ndarray:
    if dtype.kind == "b":
        return rng.integers(2, size=shape).astype(dtype)
    for use in uses:
        if use.values and len(use.values) == np.prod(shape, dtype=np.int64):
            return np.array(use.values).astype(dtype).reshape(shape)
    # Ranges before choices: a token that is also compared with the padding's number is still an index.
    ranges = [use for use in uses if not use.choices and not use.values]
    if ranges:
        # All readers at once: the tightest range, the least number if none is left.
        low, high = max(use.low for use in ranges), min(use.high for use in ranges)
        return rng.integers(low, max(low, high), shape, endpoint=True).astype(dtype)
    choices = [use.choices for use in uses if use.choices]
    if choices and choices[0] == (0, 1):
        return _mask(rng, shape).astype(dtype)
    if choices:
        return np.asarray(rng.choice(np.array(choices[0]), shape)).astype(dtype)
    if "mask" in name.lower() and dtype.name not in ("int8", "uint8", "int16", "uint16"):
        return _mask(rng, shape).astype(dtype)
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    limits = np.iinfo(dtype)
    if dtype.itemsize > 2:
        return rng.integers(max(limits.min, -_SMALL), _SMALL, shape, endpoint=True).astype(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


def _mask(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Return zeros and ones; the first along the last axis are ones, so that no row is masked as a whole."""
    values = rng.integers(2, size=shape)
    if shape:
        values[..., : max(1, shape[-1] // 2)] = 1
    return np.asarray(values)


# From an input to the use of its values

_PASSING = (
    layers.Identity, layers.Flatten, layers.Transpose, layers.Squeeze, layers.Unsqueeze,
    layers.Clip, layers.Concat, layers.Split,
)  # fmt: skip
_PASSING_FIRST = (layers.Slice, layers.Gather, layers.Reshape, layers.Expand, layers.Pad)


def _uses(model: Model, name: str, readers: Mapping[str, list[tuple[Node, int]]], known: Known) -> list[Use]:
    """Return the constraints that readers of an input put on its values."""
    integer = np.dtype(model.inputs[name].dtype).kind in "iu"
    wide = np.dtype(model.inputs[name].dtype).itemsize > 2
    found: list[Use] = []
    seen, queue = {name}, [name]
    while queue:
        tensor = queue.pop()
        for node, place in readers.get(tensor, []):
            layer = node.layer
            use = _use(node, place, known, model)
            if use is not None:
                found.append(use)
                continue
            if isinstance(layer, layers.Cast):
                target = np.dtype(layer.dtype).kind
                if integer and wide and target in "fb":
                    found.append(Use((0, 1)))
                    continue
                passes = target in "iu"
            elif isinstance(layer, layers.Where):
                passes = place > 0
            else:
                passes = isinstance(layer, _PASSING) or (isinstance(layer, _PASSING_FIRST) and place == 0)
                passes = passes or layer.kind in ("Max", "Min", "Identity", "Tile")
            if passes:
                for written in filter(None, node.outputs):
                    if written not in seen:
                        seen.add(written)
                        queue.append(written)
    return found


def _use(node: Node, place: int, known: Known, model: Model) -> Use | None:
    """Return the constraint of a node on its input at a place, None if nothing is known."""
    layer = node.layer
    if isinstance(layer, layers.OnnxNode):
        return _onnx_use(node, place, known, model)
    names: Sequence[str] = getattr(layer, "names", ())
    if names and (rule := _NAMED.get((layer.kind, names[place]))) is not None:
        return rule(node, place, known)
    rule = _RULES.get(type(layer))
    if rule is not None and place > 0:
        return rule(node, place, known)
    if isinstance(layer, layers.Fill):
        return Use(low=1, high=4)
    if layer.kind == "Equal":
        # A model that compares its input with constants, such as a sampling rate, takes one of them.
        other = model.constants.get(node.inputs[1 - place])
        if other is not None and 0 < other.size <= 16 and other.dtype.kind in "iu":
            values = set(other.ravel().tolist())
            return Use((0, 1) if values <= {0, 1} else tuple(sorted(values)))
    return None


def _size(known: Known, tensor: str, axis: int) -> int:
    shape = known[tensor][0]
    return 1 if not shape else max(1, shape[axis])


def _indices(node: Node, place: int, known: Known) -> Use:
    return Use(high=_size(known, node.inputs[0], node.layer.axis) - 1)  # type: ignore[attr-defined]


def _slice_use(node: Node, place: int, known: Known) -> Use:
    shape = known[node.inputs[0]][0] or (1,)
    if place == 1:
        return Use((0,))
    if place == 2:
        return Use((max(1, min(shape)),))
    return Use(values=tuple(range(_count(node, place, known)))) if place == 3 else Use((1,))


def _count(node: Node, place: int, known: Known) -> int:
    """Return the length of a list that a node reads."""
    shape = known[node.inputs[place]][0]
    return shape[0] if shape else 1


def _reshape_use(node: Node, place: int, known: Known) -> Use:
    shape, count = known[node.inputs[0]][0], _count(node, place, known)
    if shape is not None and len(shape) == count:
        return Use(values=tuple(shape))
    return Use(values=(-1, *(1,) * (count - 1)))


def _resize_use(node: Node, place: int, known: Known) -> Use:
    layer: Any = node.layer
    shape = known[node.inputs[0]][0]
    if layer.by == "scales" or shape is None:
        return Use((1,))
    axes = range(len(shape)) if layer.axes is None else layer.axes
    return Use(values=tuple(shape[axis] for axis in axes))


def _mask_use(node: Node, place: int, known: Known) -> Use:
    """Masks of attention: where sequences end (and start), or 0 and 1."""
    layer: Any = node.layer
    shape, x = known[node.inputs[place]][0], known[node.inputs[0]][0]
    if shape is None or x is None or len(shape) > 1:
        return Use((0, 1))
    past = layer.names.index("past") if "past" in layer.names else None
    before = 0 if past is None else _size(known, node.inputs[past], 3)
    ends = (before + x[1],) * x[0]
    return Use(values=ends) if shape == x[:1] else Use(values=ends + (0,) * x[0])


def _row_of(table: str) -> Callable[[Node, int, Known], Use]:
    """Return the rule of indices into a table that the node reads under this name."""

    def rule(node: Node, place: int, known: Known) -> Use:
        layer: Any = node.layer
        return Use(high=_size(known, node.inputs[layer.names.index(table)], 0) - 1)

    return rule


_NAMED: dict[tuple[str, str], Callable[[Node, int, Known], Use]] = {
    ("Attention", "mask_index"): _mask_use,
    ("DynamicQuantizeLSTM", "sequence_lens"): lambda node, place, known: Use(
        low=1, high=_size(known, node.inputs[0], 0)
    ),
    ("EmbedLayerNormalization", "input_ids"): _row_of("word_embedding"),
    ("EmbedLayerNormalization", "mask"): lambda node, place, known: Use((0, 1)),
    ("EmbedLayerNormalization", "position_ids"): _row_of("position_embedding"),
    ("EmbedLayerNormalization", "segment_ids"): _row_of("segment_embedding"),
    ("QAttention", "mask_index"): _mask_use,
}
"""Rules by the layer's kind and the name of the input."""

_RULES: dict[type, Callable[[Node, int, Known], Use]] = {
    layers.Gather: _indices,
    layers.Slice: _slice_use,
    layers.Reshape: _reshape_use,
    layers.Expand: lambda node, place, known: Use((1,)),
    layers.Pad: lambda node, place, known: Use((0,)),
    layers.Resize: _resize_use,
}


def _onnx_use(node: Node, place: int, known: Known, model: Model) -> Use | None:
    """Return the constraint of a standard operator on one of its inputs."""
    from systolic.layers.host.evaluator import parse

    layer: Any = node.layer
    proto = parse(layer.node.tobytes())
    names = list(proto.input)
    if place >= len(layer.reads) or layer.reads[place] not in names:
        return None
    operator, at = layer.operator, names.index(layer.reads[place])
    integers = {attribute.name: attribute.i for attribute in proto.attribute}
    first = known[node.inputs[0]][0]
    if operator in ("GatherElements", "ScatterElements", "Scatter") and at == 1:
        return Use(high=_size(known, node.inputs[0], integers.get("axis", 0)) - 1)
    if operator in ("GatherND", "ScatterND") and at == 1:
        batch = integers.get("batch_dims", 0)
        indices = known[node.inputs[place]][0]
        depth = indices[-1] if indices else 1
        sizes = () if first is None else first[batch : batch + depth]
        return Use(high=max(0, min(sizes, default=1) - 1))
    if operator == "OneHot" and at == 0:
        classes = model.constants.get(node.inputs[1])
        return Use(high=1 if classes is None else max(0, int(classes.ravel()[0]) - 1))
    if operator in ("LSTM", "GRU", "RNN") and at == 4:
        layout = integers.get("layout", 0)
        return Use(low=1, high=1 if first is None else max(1, first[1 if layout else 0]))
    sizes_at = {
        ("OneHot", 1): Use(low=2, high=4),
        ("Tile", 1): Use((1,)),
        ("TopK", 1): Use((1,)),
        ("Range", 0): Use((0,)),
        ("Range", 1): Use(low=1, high=4),
        ("Range", 2): Use((1,)),
        ("Trilu", 1): Use(low=0, high=1),
        ("CumSum", 1): Use((0,)),
        ("NonMaxSuppression", 2): Use(low=1, high=8),
        ("ReverseSequence", 1): Use((1,)),
    }
    return sizes_at.get((operator, at))
