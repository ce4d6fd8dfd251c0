"""Small networks built like those that people ship: each returns a model and what to feed it.

They have the operators, shapes and number types of exported and quantized networks, with random weights,
and run in milliseconds. ``NETWORKS`` names them all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from support.onnx_models import F
from support.qdq_models import Net, Params

Network = tuple[Any, dict[str, np.ndarray]]
"""A ModelProto, and arrays by the names of its inputs."""

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL

HIDDEN_BY_MASK = -3.4028235e38
"""The smallest float32, which exporters add to scores that a mask hides."""


class Builder(Net):
    """Adds what networks are made of; weights come from one generator."""

    def __init__(self, opset: int, seed: int) -> None:
        super().__init__(opset)
        self.rng = np.random.default_rng(seed)
        self.feeds: dict[str, np.ndarray] = {}

    def feed(self, array: np.ndarray, *shape: int | str) -> str:
        """An input of this array, of its shape unless another is declared."""
        name = self.input(array.dtype.name, shape or array.shape)
        self.feeds[name] = array
        return name

    def normal(self, *shape: int, scale: float = 0.3) -> np.ndarray:
        return (self.rng.normal(size=shape) * scale).astype(F)

    def parameter(self, *shape: int, scale: float = 0.3) -> str:
        return self.const(self.normal(*shape, scale=scale))

    def ints(self, *values: int) -> str:
        return self.const(np.int64(values))

    def qdq(self, tensor: str, params: Params) -> str:
        """Numbers rounded to codes and back."""
        return self.dq(self.q(tensor, params), params)

    def quantized_weight(self, *shape: int, axis: int | None = None) -> str:
        """A DQ of int8 weights; per channel of an axis if one is given."""
        return self.weight(shape, axis=axis, seed=int(self.rng.integers(1 << 16)))

    def dynamic_product(self, x: str, k: int, n: int) -> str:
        """A linear layer as ``quantize_dynamic`` writes it."""
        codes, scale, zero = self.ops("DynamicQuantizeLinear", 3, x)
        w = self.const(self.rng.integers(-127, 128, (k, n)).astype(np.int8))
        product = self.op("MatMulInteger", codes, w, zero, self.const(np.int8(0)))
        scales = self.op("Mul", scale, self.const(F(0.01)))
        numbers = self.op("Mul", self.op("Cast", product, to=FLOAT), scales)
        return self.op("Add", numbers, self.parameter(n))

    def dense(self, x: str, k: int, n: int) -> str:
        return self.op("Add", self.op("MatMul", x, self.parameter(k, n)), self.parameter(n))

    def built(self, *outputs: str) -> Network:
        model = self.model(*outputs)
        onnx.checker.check_model(model)
        return model, self.feeds


def dynamic_lstm() -> Network:
    """A float LSTM between linear layers that ``quantize_dynamic`` made integer."""
    b = Builder(17, 1)
    steps, batch, features, hidden = 6, 2, 8, 12
    x = b.feed(b.normal(steps, batch, features, scale=1), "time", "batch", features)
    x = b.op("Relu", b.dynamic_product(x, features, hidden))
    size = b.op("Gather", b.op("Shape", x), b.ints(1), axis=0)
    sizes = b.op("Concat", b.ints(1), size, b.ints(hidden), axis=0)
    start = b.op("ConstantOfShape", sizes, value=numpy_helper.from_array(np.zeros(1, F)))
    states, last, _ = b.ops(
        "LSTM", 3, x, b.parameter(1, 4 * hidden, hidden), b.parameter(1, 4 * hidden, hidden),
        b.parameter(1, 8 * hidden), "", start, start, hidden_size=hidden,
    )  # fmt: skip
    logits = b.dynamic_product(b.op("Squeeze", states, b.ints(1)), hidden, 5)
    return b.built(b.op("Softmax", logits, axis=-1), last)


def _masked_attention(b: Builder, hidden: int, heads: int, wrap: Callable[[str], str], linear: Any) -> str:
    """Embeddings, and one head-split attention with a mask; `wrap` quantizes what layers give."""
    batch, length, words = 2, 6, 20
    ids = b.feed(b.rng.integers(0, words, (batch, length)), "batch", "length")
    mask = np.ones((batch, length), np.int64)
    mask[1, 4:] = 0
    shown = b.feed(mask, "batch", "length")
    wide = b.op("Cast", b.op("Unsqueeze", shown, b.ints(1, 2)), to=FLOAT)
    hide = wrap(b.op("Sub", b.const(F(1)), wide))
    hide = b.op("Mul", hide, b.const(F(HIDDEN_BY_MASK)))
    x = b.op("Gather", b.parameter(words, hidden, scale=1), ids, axis=0)
    x = wrap(_normalized(b, x, hidden))

    def split(tensor: str, order: list[int]) -> str:
        shaped = b.reshape(tensor, 0, 0, heads, hidden // heads)
        return b.op("Transpose", shaped, perm=order)

    queries, keys, values = (linear(x, hidden, hidden) for _ in range(3))
    scores = b.op("MatMul", wrap(split(queries, [0, 2, 1, 3])), wrap(split(keys, [0, 2, 3, 1])))
    scores = b.op("Div", scores, b.const(F(np.sqrt(hidden // heads))))
    weights = wrap(b.op("Softmax", b.op("Add", scores, hide), axis=-1))
    mixed = b.op("MatMul", weights, wrap(split(values, [0, 2, 1, 3])))
    joined = b.reshape(b.op("Transpose", mixed, perm=[0, 2, 1, 3]), 0, 0, hidden)
    attended = linear(wrap(joined), hidden, hidden)
    return wrap(_normalized(b, b.op("Add", attended, x), hidden))


def _normalized(b: Builder, x: str, hidden: int) -> str:
    scale = b.const(F(1) + b.normal(hidden, scale=0.1))
    return b.op("LayerNormalization", x, scale, b.parameter(hidden), axis=-1, epsilon=1e-12)


def _classified(b: Builder, x: str, hidden: int) -> str:
    first = b.op("Gather", x, b.const(np.int64(0)), axis=1)
    pooled = b.op("Tanh", b.op("Gemm", first, b.parameter(hidden, hidden), b.parameter(hidden), transB=1))
    return b.op("Gemm", pooled, b.parameter(3, hidden), b.parameter(3), transB=1)


def bert() -> Network:
    """A transformer block in float: mask, LayerNormalization, Gelu written out with Erf."""
    b, hidden = Builder(17, 2), 16
    x = _masked_attention(b, hidden, 4, lambda tensor: tensor, b.dense)
    wide = b.dense(x, hidden, 2 * hidden)
    erf = b.op("Erf", b.op("Div", wide, b.const(F(np.sqrt(2)))))
    gelu = b.op("Mul", b.op("Mul", wide, b.op("Add", erf, b.const(F(1)))), b.const(F(0.5)))
    x = _normalized(b, b.op("Add", b.dense(gelu, 2 * hidden, hidden), x), hidden)
    return b.built(_classified(b, x, hidden), x)


def quantized_bert() -> Network:
    """The block as ``quantize_static`` writes it, the mask's constant among what is quantized."""
    b, hidden = Builder(20, 3), 16
    activations: Params = (0.04, 128, "uint8")

    def wrap(tensor: str) -> str:
        return b.qdq(tensor, activations)

    def linear(x: str, k: int, n: int) -> str:
        product = wrap(b.op("MatMul", x, b.quantized_weight(k, n)))
        return wrap(b.op("Add", product, b.parameter(n)))

    x = _masked_attention(b, hidden, 4, wrap, linear)
    _quantize_mask(b)
    gelu = wrap(b.op("Gelu", linear(x, hidden, 2 * hidden)))
    x = wrap(_normalized(b, b.op("Add", linear(gelu, 2 * hidden, hidden), x), hidden))
    return b.built(_classified(b, x, hidden), x)


def _quantize_mask(b: Builder) -> None:
    """Let the Mul by the smallest float32 read codes and give codes, with scales near the largest number."""
    (constant,) = (name for name, value in b.constants.items() if np.size(value) == 1 and value.item() < -1e38)
    place = next(at for at, node in enumerate(b.nodes) if constant in node.input)
    params: Params = (float(F(-HIDDEN_BY_MASK / 255)), 255, "uint8")
    later = b.nodes[place + 1 :]
    multiply = b.nodes[place]
    del b.nodes[place:]
    b.constants[constant] = np.uint8(0)
    hidden = b.op("Mul", multiply.input[0], b.dq(constant, params))
    back = b.qdq(hidden, params)
    for node in later:
        for at, name in enumerate(node.input):
            node.input[at] = back if name == multiply.output[0] else name
    b.nodes += later


def yolo(inputs: int = 3) -> Network:
    """A detector's head: quantized convolutions, upsampling, boxes and NonMaxSuppression of 3 or 5 inputs."""
    b = Builder(13, 4)
    classes, size = 3, 8
    params: Params = (0.03, 120, "uint8")

    def conv(x: str, ic: int, oc: int, kernel: int, stride: int = 1) -> str:
        bias = b.parameter(oc)
        w = b.quantized_weight(oc, ic, kernel, kernel, axis=0)
        tensor = b.op(
            "Conv", x, w, bias, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[kernel // 2] * 4
        )
        return b.qdq(tensor, params)

    def silu(x: str) -> str:
        return b.qdq(b.op("Mul", x, b.qdq(b.op("Sigmoid", x), (1 / 256, 0, "uint8"))), params)

    x = b.qdq(b.feed(b.normal(1, 4, size, size, scale=1), "batch", 4, size, size), params)
    fine = silu(conv(x, 4, 8, 3))
    coarse = silu(conv(fine, 8, 8, 3, 2))
    up = b.op(
        "Resize", coarse, "", b.const(F([1, 1, 2, 2])), mode="nearest", nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    )  # fmt: skip
    joined = b.qdq(b.op("Concat", b.qdq(up, params), fine, axis=1), params)
    head = b.reshape(conv(joined, 16, 4 + classes, 1), 0, 4 + classes, -1)
    places, scores = b.ops("Split", 2, head, b.ints(4, classes), axis=1)
    scores = b.op("Sigmoid", scores)
    centers, extents = b.ops("Split", 2, b.op("Transpose", places, perm=[0, 2, 1]), b.ints(2, 2), axis=2)
    grid = np.stack(np.meshgrid(np.arange(size), np.arange(size)), -1).reshape(1, -1, 2).astype(F)
    centers = b.op("Add", centers, b.const(grid))
    extents = b.op("Mul", b.op("Exp", extents), b.const(F([2, 3])))
    # NonMaxSuppression takes y before x.
    boxes = b.op("Concat", centers, extents, axis=2)
    more = [b.ints(3), b.const(F([0.4])), b.const(F([0.5]))][: inputs - 2]
    found = b.op("NonMaxSuppression", boxes, scores, *more, center_point_box=1)
    picked = b.op("Gather", found, b.const(np.int64(2)), axis=1)
    chosen = b.op("Gather", boxes, picked, axis=1)
    return b.built(found, chosen, scores)


def crnn() -> Network:
    """A text recognizer: quantized convolutions, BatchNormalization, a bidirectional LSTM, LogSoftmax."""
    b = Builder(12, 5)
    params: Params = (0.05, 110, "uint8")
    hidden, letters = 6, 7
    x = b.qdq(b.feed(b.normal(1, 1, 8, 20, scale=1), "batch", 1, 8, "width"), params)
    for ic, oc in ((1, 6), (6, 8)):
        conv = b.op("Conv", x, b.quantized_weight(oc, ic, 3, 3), b.parameter(oc), pads=[1, 1, 1, 1])
        normal = b.op(
            "BatchNormalization", b.qdq(conv, params), b.const(F(1) + b.normal(oc, scale=0.1)), b.parameter(oc),
            b.parameter(oc), b.const(np.abs(b.normal(oc)) + F(0.5)), epsilon=1e-5,
        )  # fmt: skip
        pooled = b.op("MaxPool", b.op("Relu", normal), kernel_shape=[2, 2], strides=[2, 2])
        x = b.qdq(pooled, params)
    x = b.op("Squeeze", b.op("MaxPool", x, kernel_shape=[2, 1]), axes=[2])
    states, _, _ = b.ops(
        "LSTM", 3, b.op("Transpose", x, perm=[2, 0, 1]), b.parameter(2, 4 * hidden, 8),
        b.parameter(2, 4 * hidden, hidden), b.parameter(2, 8 * hidden), direction="bidirectional",
        hidden_size=hidden,
    )  # fmt: skip
    merged = b.reshape(b.op("Transpose", states, perm=[0, 2, 1, 3]), 0, 0, 2 * hidden)
    return b.built(b.op("LogSoftmax", b.dense(merged, 2 * hidden, letters), axis=2))


def control_flow() -> Network:
    """An If whose other branch does not take the input, as exporters write a squeeze, and a Loop."""
    b = Builder(16, 6)
    x = b.feed(b.normal(2, 3, 4, scale=1), "batch", "time", 4)
    size = b.op("Gather", b.op("Shape", x), b.const(np.int64(1)), axis=0)
    single = b.op("Equal", size, b.const(np.int64(1)))
    flat, summed, axes = b._name("t"), b._name("t"), b.ints(1)
    squeezed = helper.make_graph(
        [helper.make_node("Squeeze", [x, axes], [flat])], "squeeze", [],
        [helper.make_tensor_value_info(flat, FLOAT, None)],
    )  # fmt: skip
    along = b.ints(1)
    reduced = helper.make_graph(
        [helper.make_node("ReduceSum", [x, along], [summed], keepdims=0)], "sum", [],
        [helper.make_tensor_value_info(summed, FLOAT, None)],
    )  # fmt: skip
    rows = b.op("If", single, then_branch=squeezed, else_branch=reduced)
    state = b.reshape(rows, -1, 4)
    weight, step, go, carried, kept, new, still = b.parameter(4, 4), *(b._name("t") for _ in range(6))
    product, scale = b._name("t"), b._name("t")
    body = helper.make_graph(
        [
            helper.make_node("MatMul", [carried, weight], [product]),
            helper.make_node("Tanh", [product], [new]),
            helper.make_node("Cast", [step], [scale], to=FLOAT),
            helper.make_node("Mul", [new, scale], [kept]),
            helper.make_node("Identity", [go], [still]),
        ],
        "step",
        [
            helper.make_tensor_value_info(step, INT64, []),
            helper.make_tensor_value_info(go, BOOL, []),
            helper.make_tensor_value_info(carried, FLOAT, None),
        ],
        [
            helper.make_tensor_value_info(still, BOOL, []),
            helper.make_tensor_value_info(new, FLOAT, None),
            helper.make_tensor_value_info(kept, FLOAT, None),
        ],
    )
    last, every = b.ops("Loop", 2, size, b.const(np.bool_(True)), state, body=body)
    return b.built(b.dense(last, 4, 2), every)


def voice_activity() -> Network:
    """A detector of speech: a spectrum by convolution, 1-D convolutions, a GRU over sequences, pools."""
    b = Builder(17, 7)
    params: Params = (0.04, 130, "uint8")
    batch, samples, bins, hidden = 2, 64, 6, 5
    wave = b.feed(b.normal(batch, samples, scale=1), "batch", samples)
    lengths = b.feed(np.int32([16, 11]), "batch")
    padded = b.op("Pad", b.op("Unsqueeze", wave, b.ints(1)), b.ints(0, 0, 4, 0, 0, 4), mode="reflect")
    spectrum = b.op("Conv", padded, b.parameter(2 * bins, 1, 8), strides=[2])
    real, imaginary = (
        b.op("Slice", spectrum, b.ints(start), b.ints(stop), b.ints(1))
        for start, stop in ((0, bins), (bins, 2 * bins))
    )
    power = b.op("Add", b.op("Mul", real, real), b.op("Mul", imaginary, imaginary))
    x = b.qdq(b.op("Sqrt", power), params)
    w = b.quantized_weight(8, bins, 3, axis=0)
    x = b.qdq(b.op("Relu", b.op("Conv", x, w, b.parameter(8), pads=[1, 1])), (0.05, 0, "uint8"))
    depthwise = b.op("Conv", x, b.parameter(8, 1, 3), b.parameter(8), pads=[1, 1], group=8)
    pooled = b.op("LpPool", b.op("Relu", depthwise), kernel_shape=[2], strides=[2], p=2)
    loudest = b.op("Squeeze", b.op("GlobalMaxPool", pooled), b.ints(2))
    states, last = b.ops(
        "GRU", 2, b.op("Transpose", pooled, perm=[2, 0, 1]), b.parameter(1, 3 * hidden, 8),
        b.parameter(1, 3 * hidden, hidden), b.parameter(1, 6 * hidden), lengths, hidden_size=hidden,
        linear_before_reset=1,
    )  # fmt: skip
    both = b.op("Concat", b.op("Squeeze", last, b.ints(0)), loudest, axis=1)
    speech = b.op("Sigmoid", b.op("Gemm", both, b.parameter(hidden + 8, 1), b.parameter(1)))
    return b.built(speech, states)


NETWORKS: dict[str, Callable[[], Network]] = {
    "dynamic LSTM": dynamic_lstm,
    "BERT": bert,
    "quantized BERT": quantized_bert,
    "YOLO, NMS of 3 inputs": yolo,
    "YOLO, NMS of 5 inputs": lambda: yolo(5),
    "CRNN": crnn,
    "If and Loop": control_flow,
    "voice activity": voice_activity,
}
