"""What a training step of a model costs, without data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from systolic import _check
from systolic._show.columns import columns
from systolic._show.table import Table
from systolic.config import ArrayConfig, MachineConfig, as_machine_config
from systolic.gemm import Gemm
from systolic.layers.float_products import ArrayConv, RoundedProduct
from systolic.model import Model
from systolic.model.inference import array_of
from systolic.presets import TPU_V1
from systolic.stats import Stats
from systolic.tiling import estimate_gemm

PASSES = ("forward", "backward_data", "backward_weight")
"""The products of a layer in a training step."""


@dataclass(frozen=True)
class LayerStep:
    """What a training step of one layer costs.

    Attributes
    ----------
    name, layer : str
        The node's name and kind.
    gemms : dict of str to Gemm
        By pass, those that are needed: backward-data if a layer with weights comes before; backward-weight if
        the weights are constants of the model, or come from such a layer, as in attention.
    stats : dict of str to Stats
        What they cost.
    """

    name: str
    layer: str
    gemms: dict[str, Gemm]
    stats: dict[str, Stats]


@dataclass(frozen=True, repr=False)
class StepCosts:
    """What a training step of a model costs: the result of :func:`costs`.

    Attributes
    ----------
    layers : tuple of LayerStep
    machine : MachineConfig
    """

    layers: tuple[LayerStep, ...]
    machine: MachineConfig

    @property
    def totals(self) -> dict[str, Stats]:
        """Stats by pass."""
        return {
            name: sum((layer.stats[name] for layer in self.layers if name in layer.stats), Stats())
            for name in PASSES
        }

    @property
    def stats(self) -> Stats:
        """The total of all passes."""
        return sum(self.totals.values(), Stats())

    def table(self) -> Table:
        """Return a row per layer with the cycles of each pass."""
        heads = columns("node", "layer", *(f"{name}_cycles" for name in PASSES))
        rows: list[tuple[Any, ...]] = []
        for layer in self.layers:
            cycles = (layer.stats[name].cycles if name in layer.stats else None for name in PASSES)
            rows.append((layer.name, layer.layer, *cycles))
        total = ["total", None, *(stats.cycles for stats in self.totals.values())]
        return Table(heads, rows, title=f"A training step: {self.stats.cycles:,} cycles", footer=total)

    def __repr__(self) -> str:
        parts = ", ".join(f"{name.replace('_', '-')} {s.cycles:,}" for name, s in self.totals.items())
        return f"<StepCosts of {len(self.layers)} layers: {parts} cycles>"

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def __str__(self) -> str:
        return str(self.table())


def costs(
    model: Model,
    *,
    machine: MachineConfig | ArrayConfig = TPU_V1,
    batch: int = 1,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> StepCosts:
    """Return what a training step of a model costs on the array, in closed form, without data.

    Parameters
    ----------
    model : Model
        With products in a float format: ``load_onnx(path, compute="bfloat16")``.
    machine : MachineConfig or ArrayConfig
        Only the array counts.
    batch : int
        Size of the first axis where the model takes any.
    shapes : mapping of str to tuple of int, optional
        Whole shapes of inputs by name.

    Returns
    -------
    StepCosts

    Raises
    ------
    ValueError
        If the model has no such product, or the size of one depends on runtime values.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import ArrayConfig, Model, Node, training
    >>> from systolic.layers import ArrayMatMul
    >>> product = ArrayMatMul("bfloat16")
    >>> nodes = [Node(product, ("x", "v"), "h"), Node(product, ("h", "w"), "y")]
    >>> weights = {"v": np.ones((64, 32), np.float32), "w": np.ones((32, 10), np.float32)}
    >>> model = Model(nodes, inputs={"x": ((None, 64), "float32")}, constants=weights)
    >>> training.costs(model, machine=ArrayConfig(16, 16), batch=100)
    <StepCosts of 2 layers: forward 1,092, backward-data 246, backward-weight 1,212 cycles>
    """
    machine = as_machine_config(machine)
    if not isinstance(model, Model):
        what = _check.kind(model)
        raise TypeError(f"model must be a Model, not {what}; load_onnx(path, compute=...) reads one")
    known = model.infer_shapes(model.input_shapes(batch, shapes=shapes))
    trained: set[str] = set()  # tensors that depend on weights
    layers = []
    for node in model.nodes:
        learns = not trained.isdisjoint(node.inputs)
        if isinstance(node.layer, RoundedProduct):
            found = [known[name][0] for name in node.inputs]
            given = [shape for shape in found if shape is not None]
            if len(given) < len(found):
                raise ValueError(
                    f"cannot estimate node {node.name!r} without data: the size of its product depends on "
                    "runtime values, or on a size that shapes= can state"
                )
            gemms = dict(zip(PASSES, _gemms(node.layer, *given), strict=True))
            x, w = node.inputs[:2]
            weights = w in model.constants
            needed = True, x in trained, weights or w in trained
            gemms = {name: gemms[name] for name, need in zip(PASSES, needed, strict=True) if need}
            array = array_of(node, known, machine.array)
            stats = {name: estimate_gemm(gemm, array) for name, gemm in gemms.items()}
            layers.append(LayerStep(node.name, node.layer.kind, gemms, stats))
            learns = learns or weights
        if learns:
            trained |= set(filter(None, node.outputs))
    if not layers:
        raise ValueError(
            "the model has no product in a float format of the array to train; read it with "
            'load_onnx(path, compute="bfloat16")'
        )
    return StepCosts(tuple(layers), machine)


def _gemms(layer: RoundedProduct, *shapes: tuple[int, ...]) -> tuple[Gemm, Gemm, Gemm]:
    """Return the sizes of the three products of a layer."""
    forward: Any = layer.products(*shapes)
    m, k, n, groups = forward.m, forward.k, forward.n, forward.groups
    weight = Gemm(k, m, n, groups=groups)
    if not isinstance(layer, ArrayConv):
        return forward, Gemm(m, n, k, groups=groups), weight
    x, w = shapes[:2]
    pixels, taps = x[0] * math.prod(x[2:]), math.prod(w[2:])
    return forward, Gemm(pixels, n * taps, w[1], groups=groups), weight
