"""``quantize_model``: quantize a float model, with tensor ranges from calibration data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from systolic import _check, layers
from systolic.layers import FloatConv, FloatMatMul, HostLayer, Layer
from systolic.model import Model, Node
from systolic.quant import QuantParams, quantize

METHODS = ("minmax", "percentile")

# Samples that are run at once.
_PIECE = 16

# Which layers keep their input's codes; the others have a range of their own.
_KEEP = ("Flatten", "Identity", "MaxPool", "Relu", "Reshape")
_OWN = ("Add", "AveragePool", "FloatConv", "FloatMatMul", "GlobalAveragePool")

Ranges = dict[str, tuple[float, float]]


def quantize_model(
    model: Model | Iterable[Node | Layer],
    calibration: np.ndarray | Mapping[str, np.ndarray],
    *,
    method: str = "minmax",
    percentile: float = 99.99,
    per_channel: bool = True,
    activations: str = "int8",
) -> Model:
    """Return a float model with 8-bit weights and activations.

    Parameters
    ----------
    model : Model, or iterable of Node or Layer
        Of :class:`FloatMatMul` and :class:`FloatConv` with a weight, ``AveragePool``, ``GlobalAveragePool``,
        :class:`MaxPool`, ``Binary("Add")``, :class:`Relu`, :class:`Flatten`, :class:`Reshape` and
        :class:`Identity`, on float32. Bare layers read one after the other, the first the input "x".
    calibration : ndarray or mapping of str to ndarray of float, (samples, ...)
        What the model is given in use, by the input's name if it has several.
    method : {"minmax", "percentile"}
        How a tensor's range follows from its values on that data: from the smallest to the largest, or
        without the same share of outliers on each side, which saturate then.
    percentile : float
        For ``"percentile"``: how many percent of the values lie below the range's upper end, and above
        its lower one; over 50, at most 100.
    per_channel : bool
        Whether weights have a scale for each output channel, or one.
    activations : {"int8", "uint8"}
        Type of the tensors between the layers. Weights are int8.

    Returns
    -------
    Model
        Of the same inputs and outputs, in float32: it quantizes the one and dequantizes the other. Layers
        keep their names, and so do tensors between.

    Raises
    ------
    TypeError
        If a layer is none of these, or the data is no float array.
    ValueError
        If an argument is none of the above, or the data does not fit the inputs, is empty or not
        finite.

    Notes
    -----
    An activation's range takes in 0, so that 0 has a code: ``scale = (high - low) / 255``, zero point
    ``rne(qmin - low / scale)``. Weights are symmetric, ``scale = max |w| / 127``, or more where a
    bias, in int32 units of ``x.scale * w.scale``, would not fit beside the products. A Relu behind
    a layer of one reader costs nothing: the range then begins at 0, and saturation does it. A last
    :class:`FloatMatMul` without an activation is not requantized: its sums are scaled to float32.

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
    _check.choice(method, "method", METHODS)
    _check.choice(activations, "activations", _check.OPERAND_DTYPES)
    percentile = _check.positive_real(percentile, "percentile")
    if not 50 < percentile <= 100:
        raise ValueError(f"percentile must be over 50 and at most 100, not {percentile}")
    per_channel = _check.flag(per_channel, "per_channel")
    if not isinstance(model, Model):
        if isinstance(calibration, Mapping):
            raise TypeError("calibration must be an array where the model is bare layers, not a mapping")
        shape = _reals(calibration, "calibration").shape
        model = Model(model, inputs={"x": ((None, *shape[1:]), "float32")})
    _check_model(model)
    ranges = _ranges(model, _feeds(model, calibration), 100.0 if method == "minmax" else percentile)
    return _Quantizer(model, ranges, activations, per_channel).model()


def _check_model(model: Model) -> None:
    for node in model.nodes:
        layer: Any = node.layer
        held = getattr(layer, "weight", ()) is not None and getattr(layer, "shape", ()) is not None
        known = held and layer.kind in (*_KEEP, *_OWN) and getattr(layer, "y", None) is None
        if isinstance(layer, FloatMatMul):  # nothing but a fully connected layer
            known = known and layer == FloatMatMul(layer.weight, layer.bias, activation=layer.activation)
        if isinstance(layer, FloatConv):
            known = known and layer.activation in (None, "Relu")
        if not known:
            raise TypeError(
                f"node {node.name!r} is a {layer.kind}; quantize_model takes the float layers "
                f"{', '.join(sorted((*_KEEP, *_OWN)))}"
            )
    for name, spec in model.inputs.items():
        if spec.dtype != "float32":
            raise TypeError(f"input {name!r} must be float32, not {spec.dtype}")


def _reals(values: Any, name: str) -> np.ndarray:
    array = _check.as_array(values, name)
    if array.dtype.kind != "f":
        raise TypeError(f"{name} must hold floats, not {array.dtype}; convert with .astype(np.float32)")
    with np.errstate(over="ignore"):
        array = np.asarray(array, np.float32)
    if array.ndim < 1 or not array.size:
        raise ValueError(
            f"{name} must hold samples along axis 0, not be of shape {_check.shape(array.shape)}"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite in float32; it holds NaN, infinity or too large a number")
    return array


def _feeds(model: Model, calibration: Any) -> dict[str, np.ndarray]:
    if not isinstance(calibration, Mapping):
        if len(model.inputs) > 1:
            names = ", ".join(map(repr, model.inputs))
            raise ValueError(f"calibration must be a mapping by input name for the inputs {names}")
        calibration = {next(iter(model.inputs)): calibration}
    if set(calibration) != set(model.inputs):
        raise ValueError(
            f"calibration must hold data for {', '.join(map(repr, model.inputs))}, "
            f"not {', '.join(map(repr, calibration)) or 'nothing'}"
        )
    return {name: _reals(calibration[name], f"calibration[{name!r}]") for name in model.inputs}


# Ranges


def _pieces(model: Model, feeds: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """Yield the data in pieces that the inputs take."""
    fixed = {spec.shape[0] for spec in model.inputs.values() if spec.shape and spec.shape[0] is not None}
    samples = {len(array) for array in feeds.values()}
    size = min(fixed) if fixed else _PIECE
    if len(fixed) > 1 or len(samples) > 1 or size < 1 or (fixed and max(samples) % size):
        raise ValueError(
            f"calibration must hold equally many samples for each input, a multiple of the batch "
            f"{'/'.join(map(str, sorted(fixed))) or 1}, not {'/'.join(map(str, sorted(samples)))}"
        )
    for start in range(0, max(samples), size):
        piece = {name: array[start : start + size] for name, array in feeds.items()}
        for name, array in piece.items():
            model.inputs[name].check(name, array)
        yield piece


def _ranges(model: Model, feeds: dict[str, np.ndarray], percentile: float) -> Ranges:
    """Return low and high of each float tensor."""
    pieces = list(_pieces(model, feeds))
    counts: dict[str, int] = {}
    for piece in pieces:
        for name, (shape, _) in model.infer_shapes({n: a.shape for n, a in piece.items()}).items():
            counts[name] = counts.get(name, 0) + math.prod(shape or ())
    # The place of both ends in the sorted values, and as many of the outermost ones as that takes.
    places = {name: (count - 1) * (1 - percentile / 100) for name, count in counts.items()}
    lows: dict[str, np.ndarray] = {}
    highs: dict[str, np.ndarray] = {}
    for piece in pieces:
        for name, array in _run(model, piece):
            if not np.isfinite(array).all():
                raise ValueError(f"tensor {name!r} is not finite on the calibration data; check the weights")
            keep = int(places[name]) + 2
            values = array.reshape(-1)
            lows[name] = _smallest(np.concatenate([lows.get(name, values[:0]), values]), keep)
            highs[name] = -_smallest(np.concatenate([-highs.get(name, values[:0]), -values]), keep)
    return {
        name: (_at(lows[name], places[name]), -_at(-highs[name], places[name]))
        for name in lows
        if len(lows[name])
    }


def _run(model: Model, piece: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every float tensor of a run."""
    values = {**model.constants, **piece}
    yield from piece.items()
    for node in model.nodes:
        layer = node.layer
        assert isinstance(layer, HostLayer)
        written = node.named(layer.apply(*(values[name] for name in node.inputs)))
        values |= written
        yield from written.items()


def _smallest(values: np.ndarray, count: int) -> np.ndarray:
    """Return the `count` smallest values, sorted."""
    if len(values) > count:
        values = np.partition(values, count - 1)[:count]
    return np.sort(values)


def _at(ordered: np.ndarray, place: float) -> float:
    """Return the value at a place between two of the sorted values, linearly."""
    before = min(int(place), len(ordered) - 1)
    after = min(before + 1, len(ordered) - 1)
    low, high = float(ordered[before]), float(ordered[after])
    return low + (high - low) * (place - before)


# Parameters and layers


def _activation_params(low: float, high: float, dtype: str) -> QuantParams:
    low, high = min(low, 0.0), max(high, 0.0)
    bounds = np.iinfo(dtype)
    scale = np.float32((high - low) / 255)
    if scale < np.finfo(np.float32).tiny:
        scale = np.float32(1)
    zero = int(np.clip(np.rint(bounds.min - low / float(scale)), bounds.min, bounds.max))
    return QuantParams(float(scale), zero, dtype)


def _quantized_weights(
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
    w = QuantParams(rounded, 0, axis=axis) if per_channel else QuantParams(float(rounded))
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


class _Quantizer:
    """Builds the quantized model node by node."""

    def __init__(self, model: Model, ranges: Ranges, dtype: str, per_channel: bool) -> None:
        self.source, self.ranges, self.dtype, self.per_channel = model, ranges, dtype, per_channel
        self.params: dict[str, QuantParams] = {}
        self.codes: dict[str, str] = {}
        self.constants: dict[str, np.ndarray] = {}
        self.nodes: list[Node] = []
        self.real: set[str] = set()
        self.readers: dict[str, list[Node]] = {}
        for node in model.nodes:
            for name in node.inputs:
                self.readers.setdefault(name, []).append(node)
        self.names = {*model.inputs, *model.constants, *(t for node in model.nodes for t in node.outputs)}

    def model(self) -> Model:
        """Return the quantized model."""
        skipped: set[int] = set()
        for node in self.source.nodes:
            if id(node) in skipped:
                continue
            output, name = node.output, node.name
            follower = self._relu_behind(node)
            if follower is not None:
                skipped.add(id(follower))
                output = follower.output
            self._add(node, output, name)
        outputs = []
        for name in self.source.outputs:
            if name in self.source.constants:
                self.constants[name] = self.source.constants[name]
            elif name not in self.real and name not in self.source.inputs and name not in outputs:
                codes = self._read(name)
                self.nodes.append(
                    Node(layers.DequantizeLinear(self.params[name]), (codes,), name, f"{name}.dequantize")
                )
            outputs.append(name)
        return Model(
            self.nodes,
            inputs=self.source.inputs,
            outputs=outputs,
            constants=self.constants,
            name=self.source.name,
        )

    def _relu_behind(self, node: Node) -> Node | None:
        """Return the Relu that saturation can do: the one reader of a layer with a range of its own."""
        readers = self.readers.get(node.output, [])
        if node.layer.kind not in _OWN or len(readers) != 1 or node.output in self.source.outputs:
            return None
        return readers[0] if isinstance(readers[0].layer, layers.Relu) else None

    def _name(self, wanted: str) -> str:
        while wanted in self.names:
            wanted += "_"
        self.names.add(wanted)
        return wanted

    def _read(self, tensor: str) -> str:
        """Return the name of a tensor's codes; inputs and constants get theirs where they are first read."""
        if tensor in self.codes:
            return self.codes[tensor]
        low, high = self.ranges.get(tensor, (0.0, 0.0))
        if tensor in self.source.constants:
            array = self.source.constants[tensor]
            low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
        params = self.params[tensor] = _activation_params(low, high, self.dtype)
        name = self.codes[tensor] = self._name(f"{tensor}.codes")
        if tensor in self.source.constants:
            self.constants[name] = quantize(self.source.constants[tensor], params)
        else:
            self.nodes.append(Node(layers.QuantizeLinear(params), (tensor,), name, f"{tensor}.quantize"))
        return name

    def _write(self, tensor: str, params: QuantParams) -> str:
        """Return the name of the codes to be written: the tensor's own, unless that is a float output."""
        self.params[tensor] = params
        name = self._name(f"{tensor}.codes") if tensor in self.source.outputs else tensor
        self.codes[tensor] = name
        return name

    def _add(self, node: Node, output: str, name: str) -> None:
        layer: Any = node.layer
        read = tuple(map(self._read, node.inputs))
        given = [self.params[tensor] for tensor in node.inputs]
        x, kind = given[0], layer.kind
        if kind in _KEEP:
            kept = layers.Relu(int(x.zero_points)) if kind == "Relu" else layer
            self.nodes.append(Node(kept, read, self._write(output, x), name))
            return
        last = kind == "FloatMatMul" and layer.activation is None and output == node.output
        if last and output in self.source.outputs and output not in self.readers:
            self.real.add(output)
            self.nodes.append(Node(self._product(layer, x, None), read, output, name))
            return
        y = _activation_params(*self.ranges.get(output, (0.0, 0.0)), self.dtype)
        new: Layer
        if kind == "Add":
            new = layers.QLinearAdd(given[0], given[1], y)
        elif kind == "GlobalAveragePool":
            new = layers.QLinearGlobalAveragePool(x, y)
        elif kind == "AveragePool":
            new = _average(node, x, y)
        else:
            new = self._product(layer, x, y)
        self.nodes.append(Node(new, read, self._write(output, y), name))

    def _product(self, layer: FloatMatMul | FloatConv, x: QuantParams, y: QuantParams | None) -> Layer:
        axis = 1 if isinstance(layer, FloatMatMul) else 0
        codes, w, bias = _quantized_weights(layer, x, axis, self.per_channel)
        if isinstance(layer, FloatMatMul):
            return layers.Dense(codes, x=x, w=w, y=y, bias=bias)
        options: Any = {name: getattr(layer, name) for name in ("stride", "padding", "dilation")}
        options |= {"x": x, "w": w, "y": y, "bias": bias}
        return layers.QLinearConv(codes, groups=layer.groups, **options)


def _average(node: Node, x: QuantParams, y: QuantParams) -> Layer:
    layer: Any = node.layer
    if len(layer.kernel) > 3 or set(layer.dilation) != {1}:
        raise ValueError(
            f"node {node.name!r}: an AveragePool is quantized over 1 to 3 axes and without dilation"
        )
    given = {
        name: getattr(layer, name) for name in ("stride", "padding", "ceil_mode", "count_include_pad")
    }
    return layers.QLinearAveragePool(layer.kernel, x, y, **given)
