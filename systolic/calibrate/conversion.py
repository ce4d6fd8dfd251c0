"""The int8 model of a float model: parameters from ranges, layers and their codes node by node."""

from __future__ import annotations

from typing import Any

import numpy as np

from systolic import layers
from systolic.calibrate.choice import MOVES, SEVERAL, Choice, operator_of
from systolic.calibrate.folding import Known, has_rows, rank_of
from systolic.calibrate.ranges import Ranges
from systolic.layers import FloatConv, FloatMatMul, Layer
from systolic.model import Model, Node
from systolic.quant import QuantParams, quantize


def ranged_tensors(model: Model, choice: Choice) -> set[str]:
    """Return the tensors whose ranges the int8 model needs."""
    found: set[str] = set()
    for node in filter(choice.quantized, model.nodes):
        follower = choice.fused.get(node.output)
        found.add(node.output if follower is None else follower.output)
        found |= set(node.inputs)
    return found - model.constants.keys() - choice.results


def activation_params(low: float, high: float, dtype: str) -> QuantParams:
    """Return scale and zero point for the numbers from low to high, and 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    bounds = np.iinfo(dtype)
    scale = np.float32((high - low) / 255)
    if scale < np.finfo(np.float32).tiny:
        scale = np.float32(1)
    zero = int(np.clip(np.rint(bounds.min - low / float(scale)), bounds.min, bounds.max))
    return QuantParams(float(scale), zero, dtype)


def quantized_weights(
    layer: Any, x: QuantParams, axis: int, per_channel: bool
) -> tuple[np.ndarray, QuantParams, np.ndarray | None]:
    """Return weight codes, their parameters and the bias in units of both scales."""
    weight = layer.weight.astype(np.float64)
    others = tuple(a for a in range(weight.ndim) if a != axis)
    scale = np.abs(weight).max(axis=others) / 127
    bias = None if layer.bias is None else layer.bias.astype(np.float64)
    if bias is not None:
        # What int32 has left beside the largest sum of products.
        products = weight.size // weight.shape[axis]
        room = max(2**31 - 1 - products * 255 * 127, 2**24)
        scale = np.maximum(scale, np.abs(bias) / (float(x.scale) * room))  # type: ignore[arg-type]
    tiny = float(np.finfo(np.float32).tiny)
    if not per_channel:
        scale = np.max(scale)
    rounded = np.where(scale < tiny, 1, scale).astype(np.float32)
    zeros = np.zeros(rounded.shape, np.int8)  # one each, as a file has them
    w = QuantParams(rounded, zeros, axis=axis) if per_channel else QuantParams(float(rounded))
    spread = [1] * weight.ndim
    spread[axis] = -1
    steps = rounded.astype(np.float64)
    codes = (
        np.rint(weight / (steps.reshape(spread) if per_channel else steps)).clip(-127, 127).astype(np.int8)
    )
    if bias is None:
        return codes, w, None
    units = np.rint(bias / (float(x.scale) * steps)).clip(-(2**31), 2**31 - 1)  # type: ignore[arg-type]
    return codes, w, units.astype(np.int32)


class Converter:
    """Builds the int8 model.

    A tensor has a float form, codes, or both: each is made when a node first reads it.

    Attributes
    ----------
    params : dict of str to QuantParams
        By tensor.
    became : dict of str to Layer
        The layer that took a node's place, by the output of that.
    """

    def __init__(
        self, model: Model, known: Known, choice: Choice, ranges: Ranges, dtype: str, per_channel: bool
    ) -> None:
        self.source, self.known, self.choice = model, known, choice
        self.ranges, self.dtype, self.per_channel = ranges, dtype, per_channel
        self.params: dict[str, QuantParams] = {}
        self.became: dict[str, Layer] = {}
        self.codes: dict[str, str] = {}
        self.floats = {name: name for name in model.inputs}
        self.constants: dict[str, np.ndarray] = {}
        self.nodes: list[Node] = []
        self.names = {*model.inputs, *model.constants, *(t for node in model.nodes for t in node.outputs)}

    def model(self) -> Model:
        """Return the int8 model."""
        skipped = {node.output for node in self.choice.fused.values()}
        for node in self.source.nodes:
            if node.output in skipped:
                continue
            if self.choice.quantized(node):
                self._add(node, self.choice.fused.get(node.output, node).output)
            else:
                self._keep(node)
        for name in self.source.outputs:
            self._float(name)
        return Model(
            self.nodes,
            inputs=self.source.inputs,
            outputs=self.source.outputs,
            constants=self.constants,
            name=self.source.name,
        )

    # Names

    def _name(self, wanted: str) -> str:
        while wanted in self.names:
            wanted += "_"
        self.names.add(wanted)
        return wanted

    def _constant(self, wanted: str, value: np.ndarray) -> str:
        name = self._name(wanted)
        self.constants[name] = value
        return name

    def _float(self, tensor: str) -> str:
        """Return the name of a tensor's numbers, as the float model has them."""
        if tensor in self.source.constants:
            self.constants[tensor] = self.source.constants[tensor]
            return tensor
        if tensor not in self.floats:
            codes = self.codes[tensor]
            name = self.floats[tensor] = tensor if codes != tensor else self._name(f"{tensor}.float")
            layer = layers.DequantizeLinear(self.params[tensor])
            self.nodes.append(Node(layer, (codes,), name, f"{tensor}.dequantize"))
        return self.floats[tensor]

    def _read(self, tensor: str) -> str:
        """Return the name of a tensor's codes."""
        if tensor in self.codes:
            return self.codes[tensor]
        constant = self.source.constants.get(tensor)
        low, high = self.ranges.get(tensor, (0.0, 0.0))
        if constant is not None:
            low, high = (float(constant.min()), float(constant.max())) if constant.size else (0.0, 0.0)
        params = self.params[tensor] = activation_params(low, high, self.dtype)
        if constant is not None:
            self.codes[tensor] = self._constant(f"{tensor}.codes", quantize(constant, params))
        else:
            name = self.codes[tensor] = self._name(f"{tensor}.codes")
            layer = layers.QuantizeLinear(params)
            self.nodes.append(Node(layer, (self.floats[tensor],), name, f"{tensor}.quantize"))
        return self.codes[tensor]

    def _write(self, tensor: str, params: QuantParams) -> str:
        """Return the name of the codes to be written: the tensor's own, unless that is a float output."""
        if tensor:
            self.params[tensor] = params
            self.codes[tensor] = self._name(f"{tensor}.codes") if tensor in self.source.outputs else tensor
        return self.codes.get(tensor, "")

    def _ranged(self, tensor: str) -> QuantParams:
        return activation_params(*self.ranges.get(tensor, (0.0, 0.0)), self.dtype)

    # Nodes

    def _put(self, node: Node, layer: Layer, read: tuple[str, ...], written: Any, name: str = "") -> None:
        self.nodes.append(Node(layer, read, written, name or node.name))
        if not name:
            self.became[node.output] = layer

    def _keep(self, node: Node) -> None:
        """Keep a node that computes with floats, or not with the data."""
        if isinstance(node.layer, layers.ShapeOf) and node.inputs[0] not in self.floats:
            read: tuple[str, ...] = (self.codes.get(node.inputs[0]) or self._float(node.inputs[0]),)
        else:
            read = tuple(map(self._float, node.inputs))
        self.nodes.append(Node(node.layer, read, node.outputs, node.name))
        self.floats |= {name: name for name in node.outputs}

    def _add(self, node: Node, output: str) -> None:
        """Add the int8 form of a node whose codes are those of a tensor, its own output or its Relu's."""
        layer: Any = node.layer
        kind = operator_of(layer)
        if isinstance(layer, FloatConv | FloatMatMul):
            self._add_product(node, output)
        elif kind in MOVES:
            self._add_move(node)
        elif kind in SEVERAL:
            read = tuple(map(self._read, node.inputs))
            given, y = tuple(self.params[name] for name in node.inputs), self._ranged(output)
            new: Layer
            if kind == "Concat":
                new = layers.QLinearConcat(given, y, axis=layer.axis)
            else:
                a, b = given
                new = layers.QLinearAdd(a, b, y) if kind == "Add" else layers.QLinearMul(a, b, y)
            self._put(node, new, read, self._write(output, y))
        else:
            self._add_single(node, kind, output)

    def _add_move(self, node: Node) -> None:
        layer: Any = node.layer
        codes, *others = (self._read(node.inputs[0]), *node.inputs[1:])
        x = self.params[node.inputs[0]]
        if isinstance(layer, layers.Relu):  # ONNX has none around a zero point
            layer = layers.Clip(int(x.zero_points))
        elif isinstance(layer, layers.Clip):
            ends = [None if end is None else quantize(np.float32(end), x) for end in (layer.low, layer.high)]
            layer = layers.Clip(*(None if end is None else int(end) for end in ends))
        elif isinstance(layer, layers.Pad):
            value = self.source.constants[others[1]] if len(others) > 1 else np.zeros((), np.float32)
            filler = self._constant(f"{node.output}.value", quantize(value.reshape(()), x))
            read = codes, self._float(others[0]), filler
            self._put(node, layer, read, self._write(node.output, x))
            return
        written = tuple(self._write(name, x) for name in node.outputs)
        self._put(node, layer, (codes, *map(self._float, others)), written)

    def _add_single(self, node: Node, kind: str, output: str) -> None:
        layer: Any = node.layer
        read, x, y = self._read(node.inputs[0]), self.params[node.inputs[0]], self._ranged(output)
        new: Layer
        if kind == "AveragePool":
            names = ("stride", "padding", "ceil_mode", "count_include_pad")
            given = {name: getattr(layer, name) for name in names}
            new = layers.QLinearAveragePool(layer.kernel, x, y, **given)
        elif kind == "Softmax":
            y = QuantParams(1 / 256, int(np.iinfo(self.dtype).min), self.dtype)
            new = layers.QLinearSoftmax(x, y, axis=layer.axis, flatten=layer.flatten)
        elif kind == "Sigmoid":
            new = layers.QLinearSigmoid(x, y)
        elif kind == "LeakyRelu":
            new = layers.QLinearLeakyRelu(x, y, alpha=leaky_slope(layer))
        else:
            new = layers.QLinearGlobalAveragePool(x, y)
            if kind == "ReduceMean" and not layer.keepdims:
                means = self._name(f"{output}.means")
                self._put(node, new, (read,), means)
                squeeze = layers.Squeeze(tuple(range(2, rank_of(self.known, node.inputs[0]) or 0)))
                self._put(node, squeeze, (means,), self._write(output, y), f"{node.name}.squeeze")
                return
        self._put(node, new, (read,), self._write(output, y))

    def _add_product(self, node: Node, output: str) -> None:
        layer: Any = node.layer
        if layer.weight is None:
            read = tuple(map(self._read, node.inputs))
            a, b = (self.params[name] for name in node.inputs)
            y = self._ranged(output)
            self._put(node, layers.QLinearMatMul(x=a, w=b, y=y), read, self._write(output, y))
            return
        name = self._read(node.inputs[0])
        x, result = self.params[node.inputs[0]], node.output in self.choice.results
        target = None if result else self._ranged(output)
        if target is None:
            written = output
            self.floats[output] = output
        else:
            written = self._write(output, target)
        axis = 1 if isinstance(layer, FloatMatMul) else 0
        codes, w, bias = quantized_weights(layer, x, axis, self.per_channel)
        if isinstance(layer, FloatConv):
            options: Any = {key: getattr(layer, key) for key in ("stride", "padding", "dilation", "groups")}
            new = layers.QLinearConv(codes, x=x, w=w, y=target, bias=bias, **options)
            self._put(node, new, (name,), written)
            return
        dense = layers.Dense(codes, x=x, w=w, y=target, bias=bias)
        dims = self.known[node.inputs[0]][0]
        plain = bias is None and target is not None
        if dims is None or len(dims) <= 2 or plain or not has_rows(self.known, node.inputs[0]):
            self._put(node, dense, (name,), written)
            return
        # A product with a bias, or of float32, is an operator of matrices.
        rows, products = self._name(f"{output}.rows"), self._name(f"{output}.products")
        wide = tuple(-1 if size is None else size for size in dims[:-1])
        self._put(node, layers.Reshape((-1, codes.shape[0])), (name,), rows, f"{node.name}.rows")
        self._put(node, dense, (rows,), products)
        self._put(node, layers.Reshape((*wide, codes.shape[1])), (products,), written, f"{node.name}.unfold")


def leaky_slope(layer: Any) -> float:
    """Return alpha of a LeakyRelu, which is an ``OnnxNode``."""
    import onnx

    proto = onnx.NodeProto.FromString(layer.node.tobytes())
    return next((float(item.f) for item in proto.attribute if item.name == "alpha"), 0.01)
