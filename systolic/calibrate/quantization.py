"""``quantize_model``: an int8 model from a float model and calibration data."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from systolic import _check
from systolic._show.columns import columns
from systolic._show.table import Table
from systolic.calibrate.choice import MOVES, Choice, choose, is_product, operator_of
from systolic.calibrate.conversion import Converter, ranged_tensors
from systolic.calibrate.data import calibration_feeds, iterable
from systolic.calibrate.folding import Folded, fold, known_sizes
from systolic.calibrate.ranges import tensor_ranges
from systolic.layers import ArrayLayer, Layer
from systolic.layers.float_products import RoundedProduct
from systolic.model import Model, Node

METHODS = ("minmax", "percentile")
"""How ranges follow from calibration data: by the extremes, or without outliers."""

# Nodes that a message names.
_NAMED = 5


class FloatNodesWarning(UserWarning):
    """Nodes of a quantized model that compute in float32, with the reasons."""


@dataclass(frozen=True)
class NodeQuantization:
    """What became of a node of the float model.

    Attributes
    ----------
    node, layer : str
        Its name and kind.
    becomes : str or None
        Kind of the int8 layer, or the node whose scale, bias or range it is part of; None if it is float32.
    reason : str or None
        Why it is float32.
    product : bool
        Whether it multiplies matrices.

    Examples
    --------
    >>> from systolic.calibrate import NodeQuantization
    >>> NodeQuantization("tanh", "Tanh", None, "there is no int8 operator of Tanh").to_dict()["becomes"]
    """

    node: str
    layer: str
    becomes: str | None
    reason: str | None = None
    product: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return {
            "node": self.node,
            "layer": self.layer,
            "becomes": self.becomes,
            "reason": self.reason,
            "product": self.product,
        }


@dataclass(frozen=True)
class Quantization:
    """An int8 model, and what became of each node of the float model.

    Attributes
    ----------
    model : Model
    nodes : tuple of NodeQuantization
        Of those that compute with floats made of the model's inputs, in order.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.calibrate import plan_quantization
    >>> from systolic.layers import FloatMatMul, Unary
    >>> found = plan_quantization([FloatMatMul(np.eye(2)), Unary("Tanh")], np.float32([[1, 2]]))
    >>> [(node.node, node.becomes) for node in found.nodes]
    [('t0', 'QLinearMatMul'), ('t1', None)]
    """

    model: Model
    nodes: tuple[NodeQuantization, ...]

    @property
    def float_nodes(self) -> tuple[NodeQuantization, ...]:
        """Nodes that compute in float32."""
        return tuple(node for node in self.nodes if node.becomes is None)

    def table(self) -> Table:
        """Return a row per node: its layer, what it becomes, or why it stays float32."""
        rows = [(node.node, node.layer, node.becomes or "float32", node.reason) for node in self.nodes]
        return Table(columns("node", "layer", "becomes", "why"), rows, title=self.model.name)

    def to_dict(self) -> dict[str, Any]:
        """Return the nodes as JSON can hold them."""
        return {"nodes": [node.to_dict() for node in self.nodes]}

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def __str__(self) -> str:
        products = [node for node in self.nodes if node.product]
        done = sum(node.becomes is not None for node in products)
        lines = [f"{done} of {len(products)} products are int8"]
        return "\n".join([*lines, *_float_lines(self.float_nodes)])


def quantize_model(
    model: Model | Iterable[Node | Layer],
    calibration: np.ndarray | Mapping[str, np.ndarray] | Iterable[Any],
    *,
    method: str = "minmax",
    percentile: float | None = None,
    per_channel: bool = True,
    activations: str = "int8",
) -> Model:
    """Return a float model with 8-bit weights and activations.

    Parameters
    ----------
    model : Model, or iterable of Node or Layer
        Of float32, such as ``load_onnx`` returns. Bare layers read one after the other, the first the input
        "x".
    calibration : ndarray of float, (samples, ...), mapping of str to ndarray, or iterable of either
        What the model is given in use, by the input's name if it has several. An array is cut along axis 0;
        of an iterable each item is one batch. All of it is held in memory.
    method : {"minmax", "percentile"}
        How a tensor's range follows from its values on that data: from the smallest to the largest, or
        without the same share of outliers on each side, which saturate then.
    percentile : float, optional
        For ``method="percentile"`` alone, default 99.99: how many percent of the values lie below the range's
        upper end, and above its lower one; over 50, at most 100.
    per_channel : bool
        Whether weights have a scale for each output channel, or one.
    activations : {"int8", "uint8"}
        Type of the tensors between the layers. Weights are int8.

    Returns
    -------
    Model
        Of the same inputs and outputs, in float32: it quantizes the one and dequantizes the other. Layers
        keep their names, and so do tensors between. ``save_onnx`` writes it in the QOperator form.

    Raises
    ------
    TypeError
        If the data is not of the inputs' types.
    ValueError
        If the model is quantized already or has no product that can be; if an argument is none of the above,
        or the data does not fit the inputs, is empty or not finite.

    Warns
    -----
    FloatNodesWarning
        If nodes that compute stay float32, but for a Softmax at the end; names them, with the reasons.
        :func:`systolic.calibrate.plan_quantization` returns them for every node.

    Notes
    -----
    Products become int8: Conv, Gemm and MatMul with constant weights, and MatMul of two computed tensors. A
    BatchNormalization, or arithmetic with a constant per channel, behind a product that nothing else reads
    becomes part of its weights and bias, a Relu or Clip part of its range. What lies between products becomes
    int8 where it reads codes: Add, Mul, Concat, AveragePool, GlobalAveragePool, ReduceMean over all spatial
    axes, Sigmoid, LeakyRelu, a Softmax whose result a product reads, and whatever moves or compares numbers
    (MaxPool, Relu, Clip, Reshape, Transpose, Pad, ...). A product whose result no int8 node reads is not
    requantized: its sums are scaled to float32.

    An activation's range takes in 0, so that 0 has a code: ``scale = (high - low) / 255``, zero point
    ``rne(qmin - low / scale)``. Weights are symmetric, ``scale = max |w| / 127``, or more where a
    bias, in int32 units of ``x.scale * w.scale``, would not fit beside the products.

    The other way is ONNX Runtime's tool, on a float ONNX model::

        from onnxruntime.quantization import QuantFormat, quantize_static
        quantize_static("float.onnx", "quantized.onnx", reader, quant_format=QuantFormat.QOperator)
        model = systolic.load_onnx("quantized.onnx")

    Ranges and rounding as in B. Jacob et al., "Quantization and Training of Neural Networks for
    Efficient Integer-Arithmetic-Only Inference", CVPR 2018.

    Examples
    --------
    >>> import numpy as np
    >>> import systolic
    >>> from systolic.layers import FloatMatMul
    >>> rng = np.random.default_rng(0)
    >>> data = rng.normal(size=(100, 16))
    >>> net = [FloatMatMul(rng.normal(size=(16, 8)), activation="Relu"), FloatMatMul(rng.normal(size=(8, 4)))]
    >>> model = systolic.quantize_model(net, data)
    >>> model
    <Model 'model': 3 layers, x (?, 16) float32 -> t1>
    >>> [type(node.layer).__name__ for node in model.nodes]
    ['QuantizeLinear', 'QLinearMatMul', 'QLinearMatMul']
    """
    found = plan_quantization(
        model, calibration, method=method, percentile=percentile, per_channel=per_channel,
        activations=activations,
    )  # fmt: skip
    notable = [node for node in found.float_nodes if node.layer not in (*MOVES, "Softmax")]
    if notable:
        warnings.warn("\n".join(_float_lines(notable)), FloatNodesWarning, stacklevel=2)
    return found.model


def plan_quantization(
    model: Model | Iterable[Node | Layer],
    calibration: np.ndarray | Mapping[str, np.ndarray] | Iterable[Any],
    *,
    method: str = "minmax",
    percentile: float | None = None,
    per_channel: bool = True,
    activations: str = "int8",
) -> Quantization:
    """Return the int8 model of a float model, and what became of each node.

    Parameters, errors and arithmetic are those of :func:`systolic.quantize_model`, which returns the model
    alone.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.calibrate import plan_quantization
    >>> from systolic.layers import FloatMatMul, Relu, Softmax
    >>> found = plan_quantization([FloatMatMul(np.eye(2)), Relu(), Softmax()], np.float32([[1, 2]]))
    >>> print(found)
    1 of 1 products are int8
    1 node stays float32:
      't2' (Softmax): no product reads its probabilities, which are more exact in float32
    """
    _check.choice(method, "method", METHODS)
    _check.choice(activations, "activations", _check.OPERAND_DTYPES)
    share = _share(method, percentile)
    per_channel = _check.flag(per_channel, "per_channel")
    if not isinstance(model, Model):
        model, calibration = _of_layers(model, calibration)
    _check_floats(model)
    feeds = calibration_feeds(model, calibration)
    known = known_sizes(model, {name: array.shape for name, array in feeds[0].items()})
    folded = fold(model, known)
    choice = choose(folded.model, known)
    _check_products(folded.model, choice)
    ranges = tensor_ranges(model, feeds, ranged_tensors(folded.model, choice), share)
    converter = Converter(folded.model, known, choice, ranges, activations, per_channel)
    return Quantization(converter.model(), _described(model, folded, choice, converter.became))


def _of_layers(model: Any, calibration: Any) -> tuple[Model, Any]:
    """Return a model of bare layers, whose input has the shape of the data."""
    if isinstance(calibration, Mapping):
        raise TypeError("calibration must be an array where the model is bare layers, not a mapping")
    if not hasattr(calibration, "__array__") and not _check.is_listed(calibration):
        calibration = list(iterable(calibration))
    first = calibration
    if _check.is_listed(calibration) and calibration and hasattr(calibration[0], "__array__"):
        first = calibration[0]
    shape = _check.as_array(first, "calibration").shape
    return Model(model, inputs={"x": ((None, *shape[1:]), "float32")}), calibration


def _check_floats(model: Model) -> None:
    """Raise ValueError unless a model is one of floats, as it is in its file."""
    model.check_values()
    for node in model.nodes:
        layer, kind = node.layer, node.layer.kind
        if isinstance(layer, RoundedProduct):
            raise ValueError(
                f"node {node.name!r} computes in {layer.compute}; load the model without compute="
            )
        if isinstance(layer, ArrayLayer) or "Quantize" in kind or kind.startswith("QLinear"):
            raise ValueError(
                f"model {model.name!r} is quantized already: node {node.name!r} is a {kind}. quantize_model "
                "takes the float model that it was made from; run this one as it is"
            )


def _check_products(model: Model, choice: Choice) -> None:
    """Raise ValueError if no product becomes int8."""
    products = [node for node in model.nodes if is_product(node.layer) and node.output in choice.reasons]
    if any(map(choice.quantized, products)):
        return
    if not products:
        raise ValueError(
            f"model {model.name!r} has nothing to quantize: no Conv, Gemm or MatMul of its inputs"
        )
    lines = [f"{node.name!r} ({node.layer.kind}): {choice.reasons[node.output]}" for node in products]
    more = f"; and {len(lines) - _NAMED} more" if len(lines) > _NAMED else ""
    raise ValueError(
        f"model {model.name!r} has no product that can be quantized: {'; '.join(lines[:_NAMED])}{more}"
    )


def _described(
    model: Model, folded: Folded, choice: Choice, became: Mapping[str, Layer]
) -> tuple[NodeQuantization, ...]:
    """Return what became of each node that computes with the data."""
    behind = {choice.fused[n.output].output: n for n in folded.model.nodes if n.output in choice.fused}
    seen: set[int] = set()
    found = []
    for node in model.nodes:
        place = folded.places[node.output]
        now = folded.model.nodes[place]
        owner = now if place in seen else behind.get(now.output)
        seen.add(place)
        kind, product = operator_of(node.layer), is_product(node.layer)
        if owner is not None:
            found.append(NodeQuantization(node.name, kind, f"part of {owner.name!r}"))
        elif now.output in became:
            found.append(NodeQuantization(node.name, kind, became[now.output].kind, product=product))
        elif now.output in choice.reasons:
            reason = choice.reasons[now.output]
            found.append(NodeQuantization(node.name, kind, None, reason, product))
    return tuple(found)


def _float_lines(nodes: Any) -> list[str]:
    """Return lines that name nodes of float32 with the reasons."""
    if not nodes:
        return []
    lines = [f"{len(nodes)} node{' stays' if len(nodes) == 1 else 's stay'} float32:"]
    first = sorted(nodes, key=lambda node: node.reason.startswith("it reads"))  # causes before what follows
    lines += [f"  {node.node!r} ({node.layer}): {node.reason}" for node in first[:_NAMED]]
    if len(nodes) > _NAMED:
        lines.append(f"  and {len(nodes) - _NAMED} more")
    return lines


def _share(method: str, percentile: Any) -> float:
    """Return how many percent of the values lie below the upper end of a range."""
    if method == "minmax":
        if percentile is not None:
            raise ValueError(
                "percentile goes with method='percentile': with 'minmax' a range reaches the largest value"
            )
        return 100.0
    share = 99.99 if percentile is None else _check.positive_real(percentile, "percentile")
    if not 50 < share <= 100:
        raise ValueError(f"percentile must be over 50 and at most 100, not {share}")
    return share
