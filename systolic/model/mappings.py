"""Mappings of a model's convolutions, and its products as they are laid out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from systolic import _check, _hints
from systolic.config import ArrayConfig
from systolic.gemm import Gemm
from systolic.layers.conv import ArrayConvolution
from systolic.model.inference import Tensor, array_of, products_of
from systolic.model.node import Node
from systolic.tiling.mappings import MAPPINGS, check_mapping, laid_out

MappingArgument = str | Mapping[str, str] | None
"""A mapping for all convolutions, or one for each of some, by the names of their nodes."""


def mappings_of(nodes: Sequence[Node], mapping: Any) -> dict[str, str]:
    """Return the mapping of each convolution that has one, by its output.

    A name holds for every convolution, "pack" for those with several groups.

    Raises
    ------
    TypeError, ValueError
        If there is no such mapping, node or convolution, or "pack" is asked for where there is one group.
    """
    if mapping is None:
        return {}
    layers = {node.output: node.layer for node in nodes if isinstance(node.layer, ArrayConvolution)}
    if not isinstance(mapping, Mapping):
        name = _check.choice(mapping, "mapping", MAPPINGS)
        return {output: name for output, layer in layers.items() if name != "pack" or layer.groups > 1}
    found = {}
    convolutions = list(dict.fromkeys(node.name for node in nodes if node.output in layers))
    for name, value in mapping.items():
        named = [node for node in nodes if node.name == name]
        if not named:
            known = _hints.nearest(name, convolutions, "convolutions:")
            raise ValueError(f"mapping names a node {name!r} that the model does not have; {known}")
        for node in named:
            if node.output not in layers:
                raise ValueError(
                    f"mapping names the node {name!r}, but {node.layer.kind} is no convolution on the array; "
                    f"convolutions: {', '.join(convolutions) or 'none'}"
                )
            layer = layers[node.output]
            found[node.output] = check_mapping(value, layer.groups, f"node {name!r}: ")
    return found


def laid_out_on(array: ArrayConfig, names: Mapping[str, str]) -> Callable[..., tuple[Gemm, ...] | None]:
    """Return :func:`products_of` in the layouts that mappings choose on an array.

    `names` has those of convolutions by output, as :func:`mappings_of` returns them.
    """

    def products(node: Node, known: Mapping[str, Tensor]) -> tuple[Gemm, ...] | None:
        gemms = products_of(node, known)
        if gemms and node.output in names:
            taps, typed = kernel_taps(node, known), array_of(node, known, array)
            try:
                return tuple(laid_out(gemm, taps, names[node.output], typed) for gemm in gemms)
            except ValueError as error:
                raise ValueError(f"node {node.name!r}: {error}") from None
        return gemms

    return products


def kernel_taps(node: Node, known: Mapping[str, Tensor]) -> int:
    """Return the taps of a convolution's kernel; the shapes of its inputs must be known."""
    assert isinstance(node.layer, ArrayConvolution)
    shapes = [known[tensor][0] for tensor in node.inputs]
    return node.layer.kernel_taps(*(shape for shape in shapes if shape is not None))
