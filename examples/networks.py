"""Write quantized ONNX networks of exact structure, their weights random, to run and to time.

- ``residual``: nine convolutions on 32 x 32 images, shortcut adds, two of them projected;
- ``separable``: depthwise and pointwise convolutions on 32 x 32 images;
- ``resnet50``: ResNet-50 v1.5, which strides in the 3 x 3 (He et al., arXiv:1512.03385; v1.5 as in
  MLPerf and torchvision), 1000 classes, 54 products;
- ``mobilenet_v2``: width 1.0 (Sandler et al., arXiv:1801.04381, table 2), 1000 classes;
- ``transformer``: two encoder blocks as in BERT (Devlin et al., arXiv:1810.04805), 16 x 64, 4 heads.

Weights are int8, symmetric, one scale per output channel; biases int32; activations uint8 or int8
with one scale and zero point per tensor. Two forms hold the same numbers: ``qoperator`` (QLinearConv
and its kin; in the transformer DynamicQuantizeLinear and MatMulInteger, which is what ONNX Runtime's
dynamic quantization writes) and ``qdq`` (float operators between DequantizeLinear and QuantizeLinear).

The image networks are calibrated as they grow, in their own integers, by a few made-up images: each
channel is centred and given its spread, as batch normalization folded into a convolution would, and
each tensor's range is that of its values. All sums are of integers and exact in any order, so that
equal arguments give equal bytes. It needs ``pip install onnx`` and seconds::

    python examples/networks.py resnet50 resnet50.onnx --activations int8 --form qdq
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 17, 8  # for every ONNX Runtime since 1.15
ACTIVATIONS, FORMS = ("uint8", "int8"), ("qoperator", "qdq")
CODES = 255  # steps between the ends of an 8-bit range


class Graph:
    """Nodes and constants as they are collected."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def node(self, op: str, inputs: Sequence[str], output: str, *more: str, **attributes: Any) -> str:
        """Add a node, "com.microsoft.QGemm" with its domain; return its (first) output."""
        domain, _, op = op.rpartition(".")
        self.nodes.append(
            helper.make_node(op, inputs, [output, *more], name=output, domain=domain, **attributes)
        )
        return output

    def constant(self, name: str, value: Any) -> str:
        """Add an initializer, or find the one there is; return its name."""
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def parameters(self, name: str, scale: Any, zero: Any) -> tuple[str, str]:
        """Add a scale and a zero point; return their names."""
        scale = self.constant(f"{name}_scale", np.asarray(scale, dtype=np.float32))
        return scale, self.constant(f"{name}_zero_point", zero)

    def model(self, name: str, x: tuple[str, Sequence[Any]], y: tuple[str, Sequence[Any]]) -> onnx.ModelProto:
        """Return the model of one float32 input and one float32 output, each a name and a shape."""
        ends = [[helper.make_tensor_value_info(end[0], TensorProto.FLOAT, end[1])] for end in (x, y)]
        graph = helper.make_graph(self.nodes, name, *ends, list(self.constants.values()))
        opsets = [helper.make_opsetid("", OPSET)]
        if any(node.domain for node in self.nodes):
            opsets.append(helper.make_opsetid("com.microsoft", 1))
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        onnx.checker.check_model(model)
        return model


# Networks of images


class Tensor(NamedTuple):
    """A quantized tensor: its names, its parameters, its codes on the calibration images."""

    name: str
    parameters: tuple[str, str]  # names of scale and zero point
    scale: np.float32
    zero: int
    codes: np.ndarray  # 8-bit, (images, channels, ...)

    @property
    def inputs(self) -> tuple[str, str, str]:
        """What a QLinear operator reads of it."""
        return self.name, *self.parameters

    @property
    def centred(self) -> np.ndarray:
        """The codes less the zero point: integers as float64, whose sums are exact below 2^53."""
        return self.codes.astype(np.float64) - self.zero


class ImageNetwork(Graph):
    """A network of images, calibrated as it grows; every layer returns its output."""

    def __init__(self, activations: str, form: str, seed: int) -> None:
        super().__init__()
        self.activations, self.form = np.dtype(activations), form
        self.rng = np.random.default_rng(seed)
        self.dequantized: dict[str, str] = {}

    def start(self, image: int) -> Tensor:
        """Quantize the input: pixels 0..1 have the codes of a bitmap."""
        count = min(16, max(4, 4 * (224 // image) ** 2))  # small images leave few places per channel
        lowest = np.iinfo(self.activations).min
        parameters = self.parameters("image", 1 / CODES, self.activations.type(lowest))
        name = self.node("QuantizeLinear", ["image", *parameters], "image_quantized")
        codes = (made_up_images(self.rng, count, image) + lowest).astype(self.activations)
        return Tensor(name, parameters, np.float32(1 / CODES), int(lowest), codes)

    def conv(
        self, x: Tensor, name: str, oc: int, kernel: int, stride: int = 1, *,
        activation: str = "relu", depthwise: bool = False,
    ) -> Tensor:  # fmt: skip
        """Convolve, padded by half the kernel; `activation` is "relu", "relu6" or ""."""
        groups = x.codes.shape[1] if depthwise else 1
        pad = kernel // 2
        weight = self.weights((oc, x.codes.shape[1] // groups, kernel, kernel), axis=0)
        sums = convolve(np.pad(x.centred, [(0, 0)] * 2 + [(pad, pad)] * 2), weight, stride)
        gain = 1.5 if activation == "relu6" else 1  # so that 6 cuts some
        w_scale, bias, real = self.normalize(x, sums, gain)
        y = self.settle(name, real.transpose(0, 3, 1, 2), activation)
        return self.operator(
            "QLinearConv", "Conv", [x], y, (weight, w_scale, bias, 0), group=groups,
            kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4,
        )  # fmt: skip

    def add(self, a: Tensor, b: Tensor, name: str, *, activation: str = "relu") -> Tensor:
        """Add two tensors."""
        real = a.centred * np.float64(a.scale) + b.centred * np.float64(b.scale)
        return self.operator("com.microsoft.QLinearAdd", "Add", [a, b], self.settle(name, real, activation))

    def max_pool(self, x: Tensor, name: str, kernel: int, stride: int) -> Tensor:
        """Take maxima, padded by half the kernel; scale and zero point stay."""
        pad = kernel // 2
        lowest = np.iinfo(self.activations).min
        padded = np.pad(x.codes, [(0, 0)] * 2 + [(pad, pad)] * 2, constant_values=lowest)
        y = x._replace(name=name, codes=windows(padded, kernel, stride).max(axis=(4, 5)))
        return self.same("MaxPool", x, y, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4)

    def classify(self, x: Tensor, classes: int) -> str:
        """Average over the image and multiply by a matrix; return the float32 logits' name."""
        real = x.centred.mean(axis=(2, 3), keepdims=True) * np.float64(x.scale)
        y = self.settle("average", real, "")
        x = self.operator("com.microsoft.QLinearGlobalAveragePool", "GlobalAveragePool", [x], y)
        x = self.same("Flatten", x, x._replace(name="flat", codes=x.codes[:, :, 0, 0]))
        weight = self.weights((x.codes.shape[1], classes), axis=1)
        w_scale, bias, real = self.normalize(x, x.centred @ weight.astype(np.float64))
        # One place per image is little to know a range by: twice what was seen.
        y = self.settle("scores", 2 * real, "")
        y = self.operator("com.microsoft.QGemm", "Gemm", [x], y, (weight, w_scale, bias, 1))
        return self.node("DequantizeLinear", y.inputs, "logits")

    def normalize(
        self, x: Tensor, sums: np.ndarray, gain: float = 1
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Choose scales and biases that centre and spread sums (..., oc); return also the real results."""
        oc, axes = sums.shape[-1], tuple(range(sums.ndim - 1))
        centre = np.rint(sums.mean(axis=axes))
        # The mean deviation, unlike the standard deviation, is exact to sum; of a normal variable it
        # is sqrt(2 / pi) of that. The floor keeps a channel that hardly moves from being blown up.
        spread = np.sqrt(np.pi / 2) * np.abs(sums - centre).mean(axis=axes)
        gains = gain * self.rng.uniform(0.5, 1.5, oc)
        scales = (gains / (x.scale * np.maximum(spread, spread.mean() / 8))).astype(np.float32)
        steps = np.float64(x.scale) * scales
        bias = np.rint(gains * self.rng.uniform(-0.5, 0.5, oc) / steps) - centre
        return scales, bias, (sums + bias) * steps

    def weights(self, shape: tuple[int, ...], axis: int) -> np.ndarray:
        """Return normal weights as int8 codes that reach 127 in each channel along `axis`."""
        weight = self.rng.standard_normal(shape, dtype=np.float32)
        others = tuple(i for i in range(len(shape)) if i != axis)
        weight *= np.float32(127) / np.abs(weight).max(axis=others, keepdims=True)
        return np.rint(weight, out=weight).astype(np.int8)

    def settle(self, name: str, real: np.ndarray, activation: str) -> Tensor:
        """Choose scale and zero point for these real values; an activation is the range it leaves."""
        limits = np.iinfo(self.activations)
        low = 0.0 if activation else min(real.min(), 0.0)
        high = 6.0 if activation == "relu6" else max(real.max(), 0.0)
        scale = np.float32((high - low) / CODES)
        zero = int(np.rint(limits.min - low / scale))
        codes = np.clip(np.rint(real / np.float64(scale)) + zero, limits.min, limits.max)
        parameters = self.parameters(name, scale, self.activations.type(zero))
        return Tensor(name, parameters, scale, zero, codes.astype(self.activations))

    def operator(
        self, qlinear: str, plain: str, xs: Sequence[Tensor], y: Tensor,
        weight: tuple[np.ndarray, np.ndarray, np.ndarray, int] | None = None, **attributes: Any,
    ) -> Tensor:  # fmt: skip
        """Add one operator in the form asked for.

        `weight` holds codes, scales, bias, and the axis of the scales.
        """
        w: tuple[str, ...] = ()
        bias: tuple[str, ...] = ()
        if weight is not None:
            codes, scales, sums, axis = weight
            w_parameters = self.parameters(f"{y.name}_weight", scales, np.zeros(len(scales), np.int8))
            w = (self.constant(f"{y.name}_weight", codes), *w_parameters)
            bias = (self.constant(f"{y.name}_bias", sums.astype(np.int32)),)
        if self.form == "qoperator":
            reads = [*(name for x in xs for name in x.inputs), *w]
            reads += [*y.parameters, *bias] if qlinear == "QLinearConv" else [*bias, *y.parameters]
            self.node(qlinear, reads, y.name, **attributes)
            return y
        reads = [self.dequantize(x) for x in xs]
        if weight is not None:
            reads.append(self.node("DequantizeLinear", w, f"{w[0]}_dequantized", axis=axis))
            steps = self.constant(f"{bias[0]}_scale", xs[0].scale * scales)
            reads.append(self.node("DequantizeLinear", [*bias, steps], f"{bias[0]}_dequantized", axis=0))
        self.node(plain, reads, f"{y.name}_float", **attributes)
        self.node("QuantizeLinear", [f"{y.name}_float", *y.parameters], y.name)
        return y

    def same(self, op: str, x: Tensor, y: Tensor, **attributes: Any) -> Tensor:
        """Add an operator that hands codes on; `y` has the parameters of `x`."""
        if self.form == "qoperator":
            self.node(op, [x.name], y.name, **attributes)
            return y
        return self.operator("", op, [x], y, **attributes)

    def dequantize(self, x: Tensor) -> str:
        """Return the float twin of a tensor, one for all who read it."""
        if x.name not in self.dequantized:
            twin = f"{x.name}_dequantized"
            self.dequantized[x.name] = self.node("DequantizeLinear", x.inputs, twin)
        return self.dequantized[x.name]


def windows(x: np.ndarray, kernel: int, stride: int) -> np.ndarray:
    """Return a view (images, channels, oh, ow, kernel, kernel) of padded images."""
    return sliding_window_view(x, (kernel, kernel), axis=(2, 3))[:, :, ::stride, ::stride]


def convolve(x: np.ndarray, weight: np.ndarray, stride: int) -> np.ndarray:
    """Return the sums (images, oh, ow, oc), float64, of padded images; oc groups if weights have depth 1."""
    oc, depth, kernel, _ = weight.shape
    patches, w = windows(x, kernel, stride), weight.astype(np.float64)
    if depth == 1:
        return np.einsum("bchwij,cij->bhwc", patches, w[:, 0])
    patches = patches.transpose(0, 2, 3, 1, 4, 5)
    sums = patches.reshape(-1, w[0].size) @ w.reshape(oc, -1).T
    return sums.reshape(*patches.shape[:3], oc)


def made_up_images(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    """Return images of 8 x 8 coloured squares under noise, codes 0..255, (count, 3, size, size)."""
    squares = rng.integers(0, 256, (count, 3, 8, 8))
    place = np.arange(size) * 8 // size
    noise = rng.integers(0, 256, (count, 3, size, size))
    return (3 * squares[:, :, place[:, None], place] + noise) // 4


def residual(net: ImageNetwork, image: int) -> int:
    """Add a small residual network; return its number of classes."""
    x = net.conv(net.start(image), "stem", 16, 3)
    for stage, channels in enumerate((16, 32, 64)):
        y = net.conv(x, f"block{stage}_conv0", channels, 3, 2 if stage else 1)
        y = net.conv(y, f"block{stage}_conv1", channels, 3, activation="")
        if stage:
            x = net.conv(x, f"block{stage}_projection", channels, 1, 2, activation="")
        x = net.add(y, x, f"block{stage}")
    net.classify(x, 10)
    return 10


def separable(net: ImageNetwork, image: int) -> int:
    """Add a small depthwise-separable network; return its number of classes."""
    x = net.conv(net.start(image), "stem", 16, 3)
    for i, (channels, stride) in enumerate([(32, 1), (64, 2), (64, 1), (128, 2)]):
        x = net.conv(x, f"block{i}_depthwise", x.codes.shape[1], 3, stride, depthwise=True)
        x = net.conv(x, f"block{i}_pointwise", channels, 1)
    net.classify(x, 10)
    return 10


def resnet50(net: ImageNetwork, image: int) -> int:
    """Add ResNet-50 v1.5; return its number of classes."""
    x = net.conv(net.start(image), "stem", 64, 7, 2)
    x = net.max_pool(x, "pool", 3, 2)
    for stage, (blocks, width) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)]):
        for block in range(blocks):
            name = f"stage{stage}_block{block}"
            stride = 2 if stage and not block else 1
            y = net.conv(x, f"{name}_reduce", width, 1)
            y = net.conv(y, f"{name}_conv", width, 3, stride)
            y = net.conv(y, f"{name}_expand", 4 * width, 1, activation="")
            if not block:
                x = net.conv(x, f"{name}_projection", 4 * width, 1, stride, activation="")
            x = net.add(y, x, name)
    net.classify(x, 1000)
    return 1000


# Table 2 of the paper: expansion, channels, repetitions, stride of the first.
INVERTED_RESIDUALS = [
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
]  # fmt: skip


def mobilenet_v2(net: ImageNetwork, image: int) -> int:
    """Add MobileNetV2 of width 1.0; return its number of classes."""
    x = net.conv(net.start(image), "stem", 32, 3, 2, activation="relu6")
    for stage, (expansion, channels, blocks, first) in enumerate(INVERTED_RESIDUALS):
        for block in range(blocks):
            name, ic = f"stage{stage}_block{block}", x.codes.shape[1]
            y = x
            if expansion > 1:
                y = net.conv(x, f"{name}_expand", expansion * ic, 1, activation="relu6")
            y = net.conv(
                y, f"{name}_depthwise", expansion * ic, 3, 1 if block else first,
                activation="relu6", depthwise=True,
            )  # fmt: skip
            y = net.conv(y, f"{name}_project", channels, 1, activation="")
            x = net.add(y, x, name, activation="") if block else y
    net.classify(net.conv(x, "head", 1280, 1, activation="relu6"), 1000)
    return 1000


IMAGE_NETWORKS: dict[str, tuple[Callable[[ImageNetwork, int], int], int]] = {
    "residual": (residual, 32),
    "separable": (separable, 32),
    "resnet50": (resnet50, 224),
    "mobilenet_v2": (mobilenet_v2, 224),
}
"""What adds a network's layers, and its size of image."""

NETWORKS = (*IMAGE_NETWORKS, "transformer")


# The transformer

BLOCKS, SEQUENCE, WIDTH, HEADS, MLP = 2, 16, 64, 4, 128


class Encoder(Graph):
    """Encoder blocks: the products in integers, the rest in float32.

    Without `ranges` every operand is quantized by its own range as it comes; with them, lowest and
    highest value by tensor, operands and products are quantized by these.
    """

    def __init__(self, activations: str, seed: int, ranges: dict[str, tuple[float, float]] | None) -> None:
        super().__init__()
        self.activations, self.ranges = np.dtype(activations), ranges
        self.rng = np.random.default_rng(seed)
        self.quantized: dict[str, tuple[str, str, str]] = {}

    def forward(self) -> str:
        """Add all blocks; return the output's name."""
        x = "embeddings"
        for block in range(BLOCKS):
            x = self.residual(x, self.attention(x, f"block{block}_attention"), f"block{block}_between")
            hidden = self.gelu(self.dense(x, f"block{block}_up", WIDTH, MLP), f"block{block}_gelu")
            y = self.dense(hidden, f"block{block}_down", MLP, WIDTH)
            x = self.residual(x, y, "states" if block == BLOCKS - 1 else f"block{block}")
        return x

    def attention(self, x: str, name: str) -> str:
        """Add attention of all heads (Vaswani et al., arXiv:1706.03762, equation 1)."""
        split = self.constant("split_heads", np.array([0, 0, HEADS, WIDTH // HEADS]))
        parts = []
        for part, axes in (("query", (0, 2, 1, 3)), ("key", (0, 2, 3, 1)), ("value", (0, 2, 1, 3))):
            y = self.dense(x, f"{name}_{part}", WIDTH, WIDTH)
            y = self.node("Reshape", [y, split], f"{name}_{part}_split")
            parts.append(self.node("Transpose", [y], f"{name}_{part}_heads", perm=axes))
        query, key, value = parts
        factor = self.constant("head_factor", np.float32((WIDTH // HEADS) ** -0.5))
        y = self.node("Mul", [self.product(query, key, f"{name}_scores"), factor], f"{name}_scaled")
        y = self.node("Softmax", [y], f"{name}_weights", axis=-1)
        y = self.product(y, value, f"{name}_mixed")
        y = self.node("Transpose", [y], f"{name}_places", perm=(0, 2, 1, 3))
        y = self.node("Reshape", [y, self.constant("join_heads", np.array([0, 0, WIDTH]))], f"{name}_joined")
        return self.dense(y, f"{name}_output", WIDTH, WIDTH)

    def dense(self, x: str, name: str, k: int, n: int) -> str:
        """Multiply by a matrix (k, n) and add a bias."""
        weight = self.rng.standard_normal((k, n)) / np.sqrt(k)
        scale = (np.abs(weight).max(axis=0) / 127).astype(np.float32)
        codes = np.rint(weight / scale).astype(np.int8)
        parameters = self.parameters(f"{name}_weight", scale, np.zeros(n, np.int8))
        self.quantized[f"{name}_weight"] = (self.constant(f"{name}_weight", codes), *parameters)
        bias = self.constant(f"{name}_bias", (self.rng.standard_normal(n) / 8).astype(np.float32))
        return self.node("Add", [self.product(x, f"{name}_weight", f"{name}_product"), bias], name)

    def product(self, a: str, b: str, name: str) -> str:
        """Multiply two tensors in integers; return the float32 product's name."""
        if self.ranges is not None:
            twins = [self.dequantize(self.quantize(operand)) for operand in (a, b)]
            self.node("MatMul", twins, name)
            return self.dequantize(self.quantize(name))
        (a, a_scale, a_zero), (b, b_scale, b_zero) = self.quantize(a), self.quantize(b)
        sums = self.node("MatMulInteger", [a, b, a_zero, b_zero], f"{name}_integer")
        scale = self.node("Mul", [a_scale, b_scale], f"{name}_step")
        sums = self.node("Cast", [sums], f"{name}_cast", to=TensorProto.FLOAT)
        return self.node("Mul", [sums, scale], name)

    def quantize(self, x: str) -> tuple[str, str, str]:
        """Return names of codes, scale and zero point, one triple for all who read a tensor."""
        if x in self.quantized:
            return self.quantized[x]
        names = f"{x}_quantized", f"{x}_scale", f"{x}_zero_point"
        if self.ranges is None:
            self.node("DynamicQuantizeLinear", [x], *names)
        else:
            low, high = self.ranges[x]
            # Eight bits of a scale are enough, and hide what another machine's exp rounds otherwise.
            fraction, exponent = np.frexp((high - low) / CODES)
            scale = np.ldexp(np.ceil(fraction * 256) / 256, exponent)
            zero = self.activations.type(np.rint(np.iinfo(self.activations).min - low / scale))
            self.node("QuantizeLinear", [x, *self.parameters(x, scale, zero)], names[0])
        self.quantized[x] = names
        return names

    def dequantize(self, triple: tuple[str, str, str]) -> str:
        """Return the float twin of a quantized tensor, one for all who read it."""
        twin = f"{triple[0]}_dequantized"
        if not any(twin in node.output for node in self.nodes):
            # Axis 1, that of a weight's columns, is the default; an activation has one scale.
            self.node("DequantizeLinear", triple, twin)
        return twin

    def gelu(self, x: str, name: str) -> str:
        """Add x (1 + erf(x / sqrt 2)) / 2 (Hendrycks and Gimpel, arXiv:1606.08415)."""
        root, one, half = (
            self.constant(n, np.float32(v)) for n, v in [("root", 2**0.5), ("one", 1), ("half", 0.5)]
        )
        y = self.node("Erf", [self.node("Div", [x, root], f"{name}_argument")], f"{name}_erf")
        y = self.node("Mul", [x, self.node("Add", [y, one], f"{name}_sum")], f"{name}_twice")
        return self.node("Mul", [y, half], name)

    def residual(self, x: str, y: str, name: str) -> str:
        """Add a shortcut and normalize."""
        gain, shift = ((self.rng.standard_normal(WIDTH) / 8 + mean).astype(np.float32) for mean in (1, 0))
        total = self.node("Add", [x, y], f"{name}_sum")
        constants = self.constant(f"{name}_gain", gain), self.constant(f"{name}_shift", shift)
        return self.node("LayerNormalization", [total, *constants], name, axis=-1)


def transformer(activations: str, form: str, seed: int, batch: int | str) -> onnx.ModelProto:
    """Return the encoder as a model; ranges in its QDQ form are those that its other form runs through."""
    shape = [batch, SEQUENCE, WIDTH]

    def write(ranges: dict[str, tuple[float, float]] | None) -> onnx.ModelProto:
        encoder = Encoder(activations, seed, ranges)
        return encoder.model("transformer", ("embeddings", shape), (encoder.forward(), shape))

    model = write(None)
    if form == "qoperator":
        return model
    from onnx.reference import ReferenceEvaluator

    names = [name for node in model.graph.node for name in node.output]
    names = [name for name in names if name != model.graph.output[0].name]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    feeds = sample(model, 8, seed)
    results = ReferenceEvaluator(model).run(None, feeds)
    values = feeds | dict(zip((y.name for y in model.graph.output), results, strict=True))
    return write({name: (min(v.min(), 0.0), max(v.max(), 0.0)) for name, v in values.items()})


# For users


def build(
    name: str,
    *,
    activations: str = "uint8",
    form: str = "qoperator",
    seed: int = 0,
    batch: int | None = None,
    image: int | None = None,
) -> onnx.ModelProto:
    """Return a quantized network with random weights.

    Parameters
    ----------
    name : {"residual", "separable", "resnet50", "mobilenet_v2", "transformer"}
    activations : {"uint8", "int8"}
        Type of the activations; weights are int8. DynamicQuantizeLinear, in the transformer's
        "qoperator" form, knows uint8 alone.
    form : {"qoperator", "qdq"}
    seed : int
        Equal seeds give equal weights, in both forms and for any batch.
    batch : int, optional
        A fixed batch; by default the batch is symbolic.
    image : int, optional
        Height and width of the images; 224 by default, 32 for the small networks.

    Returns
    -------
    onnx.ModelProto
        One float32 input, images (batch, 3, image, image) of pixels 0..1 or embeddings
        (batch, 16, 64); one float32 output, logits (batch, classes) or states (batch, 16, 64).

    Raises
    ------
    ValueError
        If an argument is none of these.

    Examples
    --------
    >>> model = build("residual", activations="int8")
    >>> sorted({node.op_type for node in model.graph.node if node.domain})
    ['QGemm', 'QLinearAdd', 'QLinearGlobalAveragePool']
    """
    choices = {"name": (name, NETWORKS), "activations": (activations, ACTIVATIONS), "form": (form, FORMS)}
    for what, (value, known) in choices.items():
        if value not in known:
            raise ValueError(f"{what} must be one of {', '.join(known)}, not {value!r}")
    for what, size, least in (("batch", batch, 1), ("image", image, 8)):
        if size is not None and size < least:
            raise ValueError(f"{what} must be at least {least}, not {size}")
    rows: int | str = "batch" if batch is None else batch
    if name == "transformer":
        if image is not None:
            raise ValueError("the transformer has no image: leave image out")
        if (form, activations) == ("qoperator", "int8"):
            raise ValueError("DynamicQuantizeLinear writes uint8: take activations='uint8' or form='qdq'")
        return transformer(activations, form, seed, rows)
    layers, usual = IMAGE_NETWORKS[name]
    size = usual if image is None else image
    net = ImageNetwork(activations, form, seed)
    classes = layers(net, size)
    return net.model(name, ("image", [rows, 3, size, size]), ("logits", [rows, classes]))


def sample(model: onnx.ModelProto, batch: int = 1, seed: int = 1) -> dict[str, np.ndarray]:
    """Return something to feed a network that :func:`build` made.

    Parameters
    ----------
    model : onnx.ModelProto
    batch : int
        Number of images or sequences.
    seed : int

    Returns
    -------
    dict of str to ndarray of float32
        Made-up images of pixels 0..1, or standard normal embeddings, by the input's name.
    """
    (x,) = model.graph.input
    sizes = [dim.dim_value for dim in x.type.tensor_type.shape.dim][1:]
    rng = np.random.default_rng(seed)
    if len(sizes) == 2:
        return {x.name: rng.standard_normal((batch, *sizes), dtype=np.float32)}
    return {x.name: (made_up_images(rng, batch, sizes[-1]) / CODES).astype(np.float32)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, write the network, say what it is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("out", type=Path, help="the ONNX file to write")
    parser.add_argument("--activations", choices=ACTIVATIONS, default="uint8", help="default: %(default)s")
    parser.add_argument("--form", choices=FORMS, default="qoperator", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--batch", type=lambda text: None if text == "symbolic" else int(text), metavar="symbolic|N",
        help="number of images or sequences (symbolic)",
    )  # fmt: skip
    parser.add_argument("--image", type=int, help="height and width (224, or 32 for the small networks)")
    args = parser.parse_args(arguments)
    options = {key: value for key, value in vars(args).items() if key not in ("network", "out")}
    try:
        model = build(args.network, **options)
    except ValueError as error:
        parser.error(str(error))
    onnx.save(model, args.out)
    megabytes = args.out.stat().st_size / 1e6
    print(f"{args.out}: {args.network}, {len(model.graph.node)} nodes, {megabytes:.1f} MB")


if __name__ == "__main__":
    main()
