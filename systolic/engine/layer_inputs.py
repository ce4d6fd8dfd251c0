"""``layer_inputs``: what a layer of a model reads."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from systolic._hints import nearest
from systolic.config import ArrayConfig
from systolic.engine.networks import run
from systolic.layers import ArrayLayer
from systolic.model import Model, Node


def layer_inputs(
    model: Model, name: str, x: np.ndarray | Mapping[str, np.ndarray], *, array: ArrayConfig
) -> tuple[Node, list[np.ndarray]]:
    """Compute what a layer on the array reads: the model runs up to that layer, in wavefront mode.

    Parameters
    ----------
    model : Model
    name : str
        Of a node that runs on the array; the first of several of this name.
    x : ndarray or mapping of str to ndarray
        The model's input or inputs.
    array : ArrayConfig

    Returns
    -------
    node : Node
    inputs : list of ndarray
        What ``node.layer.lower`` or ``.steps`` takes.

    Raises
    ------
    TypeError, ValueError
        As :func:`systolic.run`; if no such layer runs on the array.

    Examples
    --------
    >>> import systolic
    >>> from systolic.engine.layer_inputs import layer_inputs
    >>> example = systolic.load_example()
    >>> array = systolic.ArrayConfig(8, 8)
    >>> node, inputs = layer_inputs(example.model, "stem_quant", example.images[:2], array=array)
    >>> node.layer.kind, inputs[0].shape, inputs[0].dtype
    ('QLinearConv', (2, 1, 8, 8), dtype('int8'))
    """
    places: dict[str, int] = {}
    for number, each in enumerate(model.nodes):
        if isinstance(each.layer, ArrayLayer):
            places.setdefault(each.name, number)
    if not places:
        raise ValueError("no layer of the model runs on the array")
    if name not in places:
        known = nearest(name, list(places), "those that do are")
        raise ValueError(f"no layer {name!r} runs on the array; {known}")
    at = places[name]
    node = model.nodes[at]
    needed = Model(
        model.nodes[: at + 1], inputs=model.inputs, outputs=[node.output], constants=model.constants,
        name=model.name,
    )  # fmt: skip
    found: list[np.ndarray] = []

    def observe(reached: Node, inputs: list[np.ndarray], output: object) -> None:
        if reached is node:
            found.extend(inputs)

    run(needed, x, array=array, mode="wavefront", observe=observe)
    return node, found
