"""Shape inference: input shapes with symbolic sizes bound, then shape and dtype of every tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from systolic import _check
from systolic.config import ArrayConfig
from systolic.gemm import Gemm
from systolic.layers import ArrayLayer, HostLayer
from systolic.layers.base import Shape, UnknownShape
from systolic.model.node import Node
from systolic.model.spec import TensorSpec
from systolic.stats import Stats
from systolic.tiling import estimate_gemm

Tensor = tuple[Shape | None, str]
"""Shape and dtype; the shape is None if it depends on runtime values."""

Inputs = Mapping[str, TensorSpec]

# Values of at most this many elements are computed without data: sizes, axes, indices.
_FEW = 1024

# The largest size given to an input: products of several stay within what numpy can hold.
_MOST = 2**40


def infer_shapes(
    nodes: Iterable[Node],
    inputs: Inputs,
    constants: Mapping[str, np.ndarray],
    shapes: Mapping[str, Shape | None],
) -> dict[str, Tensor]:
    """Return shape and dtype of every tensor: see ``Model.infer_shapes``."""
    missing = [name for name in inputs if name not in shapes]
    if missing:
        raise ValueError(f"shapes must hold one for each input; {', '.join(map(repr, missing))} missing")
    known: dict[str, Tensor] = {name: (shapes[name], spec.dtype) for name, spec in inputs.items()}
    known |= {name: (array.shape, array.dtype.name) for name, array in constants.items()}
    values = dict(constants)
    for node in nodes:
        try:
            known |= _outputs(node, known, values)
        except (TypeError, ValueError) as error:
            names_kind = any(name in str(error) for name in (node.layer.kind, type(node.layer).__name__))
            suffix = "" if names_kind else f" ({node.layer.kind})"
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"node {node.name!r}{suffix}: {error}") from error
        except MemoryError as error:
            raise MemoryError(f"node {node.name!r} ({node.layer.kind}): {error}") from error
    return known


def _outputs(node: Node, known: Mapping[str, Tensor], values: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Return shape and dtype of a node's outputs; add statically known values to `values`."""
    layer = node.layer
    dtypes = node.named(layer.output_dtype(*(known[tensor][1] for tensor in node.inputs)))
    shapes = [shape for shape, _ in (known[tensor] for tensor in node.inputs) if shape is not None]
    unknown: dict[str, Tensor] = {name: (None, dtype) for name, dtype in dtypes.items()}
    if len(shapes) < len(node.inputs):
        return unknown
    read = [values.get(tensor) for tensor in node.inputs]
    try:
        sizes = node.named(layer.output_shape_from(read, *shapes))
    except UnknownShape:
        return unknown
    if isinstance(layer, HostLayer):
        there = [array for array in read if array is not None]
        elements = sum(array.size for array in there) + sum(math.prod(shape) for shape in sizes.values())
        if len(there) == len(read) and elements <= _FEW and not layer.may_loop:
            values |= node.named(layer.evaluate_constants(*there))
        else:
            value = layer.value_of(*shapes)
            if value is not None:
                values[node.output] = value
    return {name: (tuple(sizes[name]), dtype) for name, dtype in dtypes.items()}


def products_of(node: Node, known: Mapping[str, Tensor]) -> tuple[Gemm, ...] | None:
    """Return the products of a node, none of a host layer; None if an input's shape is unknown."""
    if not isinstance(node.layer, ArrayLayer):
        return ()
    shapes = [shape for shape in (known[tensor][0] for tensor in node.inputs) if shape is not None]
    if len(shapes) < len(node.inputs):
        return None
    found = node.layer.products(*shapes)
    return (found,) if isinstance(found, Gemm) else found


def stats_of(
    node: Node,
    known: Mapping[str, Tensor],
    array: ArrayConfig,
    of: Callable[..., tuple[Gemm, ...] | None] = products_of,
) -> tuple[Stats, ...] | None:
    """Return what each product of a node costs on an array; None if an input's shape is unknown.

    `of` returns the products.
    """
    gemms = of(node, known)
    if not gemms:
        return gemms  # type: ignore[return-value]
    typed = array_of(node, known, array)
    return tuple(estimate_gemm(gemm, typed) for gemm in gemms)


def array_of(node: Node, known: Mapping[str, Tensor], array: ArrayConfig) -> ArrayConfig:
    """Return an array's configuration with the operand types of a node on it."""
    assert isinstance(node.layer, ArrayLayer)
    return array.with_types(*node.layer.operand_types(*(known[tensor][1] for tensor in node.inputs)))


def check_shapes(inputs: Inputs, shapes: Any, *, unknown: bool = False) -> None:
    """Raise if `shapes` does not map some of the inputs to tuples, or to None if they may be unknown."""
    if not isinstance(shapes, Mapping):
        raise TypeError(f"shapes must map inputs to shapes, {{'x': (1, 4)}}, not {_check.kind(shapes)}")
    others = [name for name in shapes if name not in inputs]
    if others:
        names = ", ".join(map(repr, inputs))
        raise ValueError(f"shapes are for the inputs {names}, not {', '.join(map(repr, others))}")
    for name, shape in shapes.items():
        if not (_check.is_listed(shape) or (unknown and shape is None)):
            raise TypeError(f"the shape of {name!r} must be a tuple of sizes, not {_check.kind(shape)}")


def check_symbols(inputs: Inputs, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Return the size of each symbol in the inputs' shapes: see ``Model.check_symbols``."""
    check_shapes(inputs, shapes)
    found: dict[str, tuple[int, str]] = {}
    for name, shape in shapes.items():
        for axis, (symbol, size) in enumerate(zip(inputs[name].symbols, shape, strict=False)):
            here = f"input {name!r} axis {axis}"
            other, place = found.setdefault(symbol or here, (size, here))
            if other != size:
                raise ValueError(
                    f"{place} and {here} must be of one size, {symbol!r}, not {other} and {size}"
                )
    return {symbol: size for symbol, (size, _) in found.items()}


def bind_shapes(
    inputs: Inputs, batch: int, shapes: Mapping[str, Sequence[int]] | None
) -> dict[str, Shape | None]:
    """Return the inputs' shapes; None if a size other than the batch is unknown."""
    given = {} if shapes is None else shapes
    check_shapes(inputs, given)
    whole: dict[str, Shape] = {}
    for name, shape in given.items():
        what = f"a size of {name!r}"
        whole[name] = tuple(_check.integer(size, what, minimum=0, maximum=_MOST) for size in shape)
        inputs[name].check_shape(name, whole[name])
    known = check_symbols(inputs, whole)
    batch = _check.integer(batch, "batch", minimum=0, maximum=_MOST)
    for spec in inputs.values():
        # The batch, unless another input's shape determines it.
        if spec.symbols and spec.symbols[0] is not None:
            known.setdefault(spec.symbols[0], batch)
    bound: dict[str, Shape | None] = {}
    for name, spec in inputs.items():
        if name in whole:
            bound[name] = whole[name]
            continue
        symbols = spec.symbols or (None,) * len(spec.shape)
        sizes = [
            known.get(symbol or "", batch if axis == 0 else None) if size is None else size
            for axis, (size, symbol) in enumerate(zip(spec.shape, symbols, strict=True))
        ]
        bound[name] = None if None in sizes else tuple(size for size in sizes if size is not None)
    return bound
