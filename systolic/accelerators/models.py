"""Stand-ins as models, with weights that layers of the same sizes share."""

from __future__ import annotations

from functools import cache

import numpy as np

from systolic import _check
from systolic.accelerators.stand_ins import StandIn, Step
from systolic.layers import (
    Flatten,
    Layer,
    MaxPool,
    QLinearConv,
    QLinearGlobalAveragePool,
    QLinearMatMul,
    QLinearMul,
    QLinearSigmoid,
)
from systolic.model import Model, Node
from systolic.quant import QuantParams

# Codes from the zero point up: a negative sum becomes 0, as Relu makes it.
_ACTIVATIONS = QuantParams(0.05, -128)
_WEIGHTS = QuantParams(0.01)


def model_of(stand_in: StandIn, *, seed: int = 0) -> Model:
    """Return a stand-in as a model with random weights.

    Parameters
    ----------
    stand_in : StandIn
    seed : int
        Of the weights.

    Returns
    -------
    Model
        Of int8. Its input ``x`` is (batch, channels) or (batch, channels, height, width). A node's name
        begins with its layer of table 1.

    Notes
    -----
    Layers of the same sizes are one object with one array of weights, so that 100 million weights take a few
    megabytes: times do not depend on values. A vector layer is a sigmoid of one tensor, or a product of
    several.

    Examples
    --------
    >>> from systolic.accelerators import stand_in
    >>> from systolic.accelerators.models import model_of
    >>> model_of(stand_in("MLP0"))
    <Model 'MLP0': 5 layers, x (?, 2000) int8 -> t5>
    """
    rng = np.random.default_rng(_check.integer(seed, "seed", minimum=0))

    @cache
    def product(inputs: int, outputs: int, kernel: int) -> Layer:
        if kernel == 1:
            weight = rng.integers(-127, 128, (inputs, outputs), dtype=np.int8)
            return QLinearMatMul(weight, x=_ACTIVATIONS, w=_WEIGHTS, y=_ACTIVATIONS)
        weight = rng.integers(-127, 128, (outputs, inputs, kernel, kernel), dtype=np.int8)
        return QLinearConv(weight, x=_ACTIVATIONS, w=_WEIGHTS, y=_ACTIVATIONS, padding=kernel // 2)

    nodes: list[Node] = []
    for number, step in enumerate(stand_in.steps, 1):
        reads = ["x" if tensor == 0 else f"t{tensor}" for tensor in step.reads]
        layers = [product(step.inputs, step.outputs, step.kernel)] if step.weights else _vector_layers(step)
        for place, layer in enumerate(layers, 1):
            last = place == len(layers)
            takes = layer.inputs or 1
            written = f"t{number}" if last else f"t{number}.{place}"
            nodes.append(Node(layer, reads[:takes], written, name=f"{step.layer}: {written}"))
            reads = [written, *reads[takes:]]
    first = stand_in.steps[0]
    image = first.image if first.kind == "conv" else ()
    return Model(nodes, inputs={"x": ((None, first.inputs, *image), "int8")}, name=stand_in.name)


def _vector_layers(step: Step) -> list[Layer]:
    """Return what a vector or pooling layer computes."""
    q = _ACTIVATIONS
    if step.kind == "vector":
        return [QLinearMul(q, q, q)] * (len(step.reads) - 1) or [QLinearSigmoid(q, q)]
    if step.result == (1, 1):
        return [QLinearGlobalAveragePool(q, q), Flatten()]
    return [MaxPool((step.kernel, step.kernel), stride=1, padding=step.kernel // 2)]
