"""Products of floats with the constants they read, and with the per-channel arithmetic behind them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from systolic import layers
from systolic.layers import FloatConv, FloatMatMul, Layer
from systolic.model import Model, Node

Dims = tuple[int | None, ...]
Known = Mapping[str, tuple[Dims | None, str]]
"""Sizes and type of each tensor; None for a size that varies with the inputs', or for sizes of any number."""


def known_sizes(model: Model, shapes: Mapping[str, tuple[int, ...]]) -> Known:
    """Return sizes and types of a model's tensors, from inputs of these shapes and from larger ones."""
    found: Any = model.infer_shapes(shapes)
    larger = {
        name: tuple(size + (want is None) for size, want in zip(shapes[name], spec.shape, strict=True))
        for name, spec in model.inputs.items()
    }
    try:
        others: Any = model.infer_shapes(larger)
    except (TypeError, ValueError):
        others = {name: (None, dtype) for name, (_, dtype) in found.items()}
    known: dict[str, tuple[Dims | None, str]] = {}
    for name, (shape, dtype) in found.items():
        other = others[name][0]
        if shape is None:
            known[name] = None, dtype
        elif other is None or len(other) != len(shape):
            known[name] = (None,) * len(shape), dtype
        else:
            known[name] = tuple(a if a == b else None for a, b in zip(shape, other, strict=True)), dtype
    return known


def rank_of(known: Known, tensor: str) -> int | None:
    """Return how many axes a tensor has, None if that depends on runtime values."""
    dims = known[tensor][0]
    return None if dims is None else len(dims)


def has_rows(known: Known, tensor: str) -> bool:
    """Whether a tensor is a matrix, or can be reshaped to one and back by sizes that are known."""
    dims = known[tensor][0]
    return dims is not None and (len(dims) == 2 or (len(dims) > 2 and dims[:-1].count(None) < 2))


@dataclass(frozen=True)
class Folded:
    """A model whose products hold their weights, and which nodes are part of which product.

    Attributes
    ----------
    model : Model
    places : dict of str to int
        By the output of a node as it was: the number of the node that it is, or is part of.
    """

    model: Model
    places: dict[str, int]


def fold(model: Model, known: Known) -> Folded:
    """Return a model with weights in its products.

    Gemm and MatMul with a constant on the right, and Conv, become layers that hold their weights. A
    BatchNormalization, or an Add, Sub, Mul or Div of one constant per channel, behind such a product that
    nothing else reads changes its weights and bias instead.
    """
    readers = Counter(name for node in model.nodes for name in node.inputs)
    readers.update(model.outputs)
    nodes: list[Node] = []
    places: dict[str, int] = {}
    for node in model.nodes:
        affine = _affine(node, model.constants, known)
        place = None if affine is None else places.get(affine[0])
        if affine is not None and place is not None and readers[affine[0]] == 1:
            source, scale, shift, axis = affine
            product = nodes[place]
            if _takes(product.layer, axis, source, known):
                layer = _changed(product, scale, shift)
                nodes[place] = Node(layer, product.inputs, node.output, product.name)
                places[node.output] = place
                continue
        held = _held(node, model.constants, known)
        places[node.output] = len(nodes)
        nodes.append(node if held is None else Node(held, node.inputs[:1], node.outputs, node.name))
    folded = Model(
        nodes, inputs=model.inputs, outputs=model.outputs, constants=model.constants, name=model.name
    )
    return Folded(folded, places)


def _held(node: Node, constants: Mapping[str, np.ndarray], known: Known) -> Any:
    """Return a product that reads constants as one that holds them; None if it is none."""
    layer: Any = node.layer
    if not isinstance(layer, FloatConv | FloatMatMul) or layer.weight is not None:
        return None
    read = [constants.get(name) for name in node.inputs[1:]]
    if any(value is None or value.dtype != np.float32 for value in read):
        return None
    weight, bias = read[0], read[1] if len(read) > 1 else None
    try:
        if isinstance(layer, FloatConv):
            return None if layer.adds else replace(layer, weight=weight, bias=bias)
        return None if weight is None else _held_matrix(layer, weight, bias, rank_of(known, node.inputs[0]))
    except ValueError as error:
        raise ValueError(f"node {node.name!r}: {error}") from error


def _held_matrix(
    layer: FloatMatMul, weight: np.ndarray, bias: np.ndarray | None, rank: int | None
) -> FloatMatMul | None:
    if weight.ndim != 2 or layer.transpose_a or rank in (None, 0, 1):
        return None
    weight = (weight.T if layer.transpose_b else weight) * np.float64(layer.alpha)
    row = None
    if bias is not None and layer.beta:
        if bias.size not in (1, weight.shape[1]) or bias.size != (bias.shape or (1,))[-1]:
            return None
        row = np.broadcast_to(bias.reshape(-1) * np.float64(layer.beta), weight.shape[1])
    return FloatMatMul(weight, row, activation=layer.activation)


Affine = tuple[str, np.ndarray, np.ndarray, int | None]
"""A tensor, what it is multiplied by, what is added, and the axis that both run along, if to a tensor."""


def _affine(node: Node, constants: Mapping[str, np.ndarray], known: Known) -> Affine | None:
    """Return what a node does, if it scales and shifts a tensor by constants per channel."""
    layer: Any = node.layer
    if isinstance(layer, layers.BatchNormalization):
        if not constants.keys() >= set(node.inputs[1:]):
            return None
        scale, shift, mean, variance = (constants[name].astype(np.float64) for name in node.inputs[1:])
        scale = scale / np.sqrt(variance + layer.epsilon)
        return node.inputs[0], scale, shift - mean * scale, 1
    if not isinstance(layer, layers.Binary) or layer.operation not in ("Add", "Div", "Mul", "Sub"):
        return None
    places = [place for place, name in enumerate(node.inputs) if name in constants]
    if len(places) != 1:
        return None
    (place,) = places
    source, constant = node.inputs[1 - place], constants[node.inputs[place]]
    dims = known[source][0]
    if constant.dtype != np.float32 or dims is None or constant.ndim > len(dims):
        return None
    sizes = (1,) * (len(dims) - constant.ndim) + constant.shape
    axes = [axis for axis, size in enumerate(sizes) if size != 1]
    if len(axes) > 1 or any(dims[axis] != sizes[axis] for axis in axes):
        return None
    values = constant.reshape(-1).astype(np.float64)
    one, zero = np.ones_like(values), np.zeros_like(values)
    if layer.operation == "Div" and (place == 0 or not values.all()):
        return None
    scale, shift = {
        "Add": (one, values), "Mul": (values, zero), "Div": (one / np.where(values, values, 1), zero),
        "Sub": (one, -values) if place else (-one, values),
    }[layer.operation]  # fmt: skip
    return source, scale, shift, axes[0] if axes else None


def _takes(layer: Any, axis: int | None, source: str, known: Known) -> bool:
    """Whether a layer is a product that can do what is done along an axis of its output."""
    if not isinstance(layer, FloatConv | FloatMatMul) or layer.weight is None or layer.activation:
        return False
    if isinstance(layer, FloatConv):
        return axis in (1, None)
    rank = rank_of(known, source)
    return has_rows(known, source) and rank is not None and axis in (rank - 1, None)


def _changed(product: Node, scale: np.ndarray, shift: np.ndarray) -> Layer:
    """Return a product whose output is scaled and shifted per channel."""
    layer: Any = product.layer
    axis = 0 if isinstance(layer, FloatConv) else 1
    weight = layer.weight.astype(np.float64)
    spread = [1] * weight.ndim
    spread[axis] = -1
    bias = shift if layer.bias is None else layer.bias * scale + shift
    bias = np.broadcast_to(bias, weight.shape[axis])
    try:
        return replace(layer, weight=weight * scale.reshape(spread), bias=bias)  # type: ignore[no-any-return]
    except ValueError as error:
        raise ValueError(f"node {product.name!r} with what is folded into it: {error}") from error
