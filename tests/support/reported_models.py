"""Small models on which an earlier version gave a wrong answer, refused what ONNX Runtime runs, or hid the node.

Each function of ``REPORTED`` returns a model and what to feed it; one per mechanism.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from support import onnx_models as om
from support.onnx_models import F, node
from support.oracle_cases import exact_u8s8

Case = tuple[Any, dict[str, np.ndarray]]

U8, I8 = np.uint8, np.int8


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(F)


def integers(low: int, high: int, shape: tuple[int, ...], dtype: Any = I8) -> np.ndarray:
    return np.random.default_rng(1).integers(low, high, shape).astype(dtype)


def built(
    nodes: list[Any], feeds: dict[str, np.ndarray], constants: dict[str, Any] | None = None,
    *, opset: int = 17, shapes: dict[str, tuple[Any, ...]] | None = None,
) -> Case:  # fmt: skip
    """A model whose output is y, with the shapes of the feeds unless others are declared."""
    shapes = shapes or {}
    inputs = {name: (x.dtype.name, shapes.get(name, x.shape)) for name, x in feeds.items()}
    stored = [v for v in (constants or {}).values() if isinstance(v, onnx.TensorProto)]
    arrays = {n: np.asarray(v) for n, v in (constants or {}).items() if not isinstance(v, onnx.TensorProto)}
    model = om.model(nodes, inputs, ["y"], arrays, opset=opset)
    model.graph.initializer.extend(stored)
    return model, feeds


def float_max_pool() -> Case:
    return built([node("MaxPool", ["x"], "y", kernel_shape=[2, 2])], {"x": normal(2, 1, 4, 4)}, shapes={"x": ("n", 1, 4, 4)})


def batch_normalization_12() -> Case:
    constants = {"s": np.ones(3, F), "b": np.zeros(3, F), "m": np.zeros(3, F), "v": np.ones(3, F)}
    return built([node("BatchNormalization", ["x", *constants], "y")], {"x": normal(2, 3, 4) + F(5)}, constants, opset=12)


def lrn() -> Case:
    return built([node("LRN", ["x"], "y", size=3, alpha=1.0)], {"x": normal(1, 4, 2, 2) * F(3)})


def global_max_pool_1d() -> Case:
    return built([node("GlobalMaxPool", ["x"], "y")], {"x": normal(2, 3, 9)})


def log_softmax_11() -> Case:
    return built([node("LogSoftmax", ["x"], "y")], {"x": normal(2, 3, 4)}, opset=11)


def log_softmax_spread() -> Case:
    return built([node("LogSoftmax", ["x"], "y")], {"x": F([[0, 50, 150]])})


def lstm_sequence_lengths() -> Case:
    constants = {"W": normal(1, 16, 3), "R": normal(1, 16, 4), "B": normal(1, 32), "L": np.int32([5, 2])}
    return built([node("LSTM", ["x", *constants], "y", hidden_size=4)], {"x": normal(5, 2, 3)}, constants)


def rnn_relu() -> Case:
    constants = {"W": normal(1, 4, 3), "R": normal(1, 4, 4)}
    made = node("RNN", ["x", *constants], "y", hidden_size=4, activations=["Relu"])
    return built([made], {"x": normal(5, 2, 3)}, constants)


def dynamic_quantize_lstm() -> Case:
    most = 99 if exact_u8s8() else 63
    constants = {
        "W": integers(-most, most, (1, 3, 16)), "R": integers(-most, most, (1, 4, 16)), "B": normal(1, 32),
        "ws": F([0.01]), "wz": I8([0]), "rs": F([0.01]), "rz": I8([0]),
    }  # fmt: skip
    reads = ["x", "W", "R", "B", "", "", "", "", "ws", "wz", "rs", "rz"]
    return built([node("com.microsoft.DynamicQuantizeLSTM", reads, "y", hidden_size=4)], {"x": normal(5, 2, 3)}, constants)


def mask_of_scale_1e36() -> Case:
    constants = {
        "sa": F(1), "za": U8(0), "b": U8([0]), "sb": F(1.3344406e36), "zb": U8(255), "sy": F(1), "zy": U8(0),
    }  # fmt: skip
    made = node("com.microsoft.QLinearMul", ["a", *constants], "y")
    return built([made], {"a": U8([[0, 1, 0, 255]])}, constants, shapes={"a": ("n", 4)})


def qlinear_softmax(codes: Any, scale: float) -> Case:
    constants = {"xs": F(scale), "z": U8(0), "ys": F(1 / 255)}
    made = node("com.microsoft.QLinearSoftmax", ["x", "xs", "z", "ys", "z"], "y", opset=13, axis=-1)
    return built([made], {"x": U8(codes)}, constants)


def nodes_out_of_order() -> Case:
    return built([node("Relu", ["c"], "y"), node("Neg", ["x"], "c")], {"x": normal(2, 3)}, shapes={"x": ("n", 3)})


def size_minus_one() -> Case:
    return built([node("Relu", ["x"], "y")], {"x": normal(2, 3)}, shapes={"x": (-1, 3)})


def initializer_of_ir_3() -> Case:
    model, feeds = built([node("Add", ["x", "w"], "y")], {"x": normal(2, 3)}, {"w": normal(3)})
    model.ir_version = 3
    return model, feeds


def weight_only_int8() -> Case:
    constants = {"w": integers(-9, 9, (1024, 17000)), "s": F(0.1)}
    nodes = [node("Cast", ["w"], "wf", to=1), node("Mul", ["wf", "s"], "wd"), node("MatMul", ["x", "wd"], "y")]
    return built(nodes, {"x": normal(1, 1024)}, constants)


def int4_in_blocks() -> Case:
    codes = helper.make_tensor("w", onnx.TensorProto.INT4, [8, 3], integers(-8, 8, (24,)).tolist())
    nodes = [node("DequantizeLinear", ["w", "s"], "wf", axis=0, block_size=4), node("MatMul", ["x", "wf"], "y")]
    return built(nodes, {"x": normal(2, 8)}, {"w": codes, "s": np.abs(normal(2, 3))}, opset=21)


def matmul_of_4_bits() -> Case:
    constants = {"w": integers(0, 255, (4, 1, 16), U8), "s": np.abs(normal(4))}
    made = node("com.microsoft.MatMulNBits", ["x", "w", "s"], "y", K=32, N=4, bits=4, block_size=32)
    return built([made], {"x": normal(2, 32)}, constants)


def if_with_a_branch_that_does_not_fit() -> Case:
    def branch(name: str, axis: int) -> Any:
        axes = numpy_helper.from_array(np.int64([axis]), f"axes {name}")
        made = node("Squeeze", ["x", axes.name], f"out {name}")
        return helper.make_graph([made], name, [], [om.value(f"out {name}", "float32", None)], [axes])

    made = node("If", ["c"], "y", then_branch=branch("then", 0), else_branch=branch("else", 1))
    return built([made], {"x": normal(1, 3), "c": np.array(True)}, shapes={"x": ("a", "b")})


def activations_of_16_bits() -> Case:
    constants = {
        "xs": F(0.001), "xz": np.uint16(32768), "w": integers(-127, 128, (16, 8)), "ws": F(0.01), "wz": I8(0),
        "ys": F(0.001), "yz": np.uint16(32768),
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", ["x", "xs", "xz"], "q"), node("DequantizeLinear", ["q", "xs", "xz"], "d"),
        node("DequantizeLinear", ["w", "ws", "wz"], "wd"), node("MatMul", ["d", "wd"], "m"),
        node("QuantizeLinear", ["m", "ys", "yz"], "y"),
    ]  # fmt: skip
    return built(nodes, {"x": normal(3, 16)}, constants, opset=21)


def scales_of_another_axis() -> Case:
    constants = {"x": np.ones((525, 3), I8), "s": np.ones(525, F), "z": np.zeros(525, I8)}
    return built([node("DequantizeLinear", ["x", "s", "z"], "y")], {"i": F([1])}, constants, opset=13)


def gemm_bias_of_its_own_scale() -> Case:
    constants = {
        "sx": F(0.1), "w": I8([[1], [1]]), "sw": F(0.02), "z8": I8(0), "i": np.int32([30000]), "si": F(0.0007),
        "sy": F(0.3), "zu": U8(0),
    }  # fmt: skip
    nodes = [
        node("DequantizeLinear", ["x", "sx"], "a"), node("DequantizeLinear", ["w", "sw", "z8"], "b"),
        node("DequantizeLinear", ["i", "si"], "c"), node("Gemm", ["a", "b", "c"], "g"),
        node("QuantizeLinear", ["g", "sy", "zu"], "y"),
    ]  # fmt: skip
    return built(nodes, {"x": U8([[0, 0]])}, constants)


def convolution_with_a_stride_beyond_its_kernel() -> Case:
    constants = {"s": F(1), "z": U8(0), "w": U8([[[1]]])}
    reads = ["x", "s", "z", "w", "s", "z", "s", "z"]
    made = node("QLinearConv", reads, "y", auto_pad="SAME_UPPER", strides=[4], kernel_shape=[1])
    return built([made], {"x": U8([[[10, 20, 30, 40]]])}, constants)


REPORTED: dict[str, Callable[[], Case]] = {
    "float MaxPool": float_max_pool,
    "BatchNormalization of operator set 12": batch_normalization_12,
    "LRN": lrn,
    "GlobalMaxPool along one axis": global_max_pool_1d,
    "LogSoftmax of operator set 11": log_softmax_11,
    "LogSoftmax of a large spread": log_softmax_spread,
    "LSTM with sequence lengths": lstm_sequence_lengths,
    "RNN of Relu": rnn_relu,
    "DynamicQuantizeLSTM": dynamic_quantize_lstm,
    "a mask's scale of 1e36": mask_of_scale_1e36,
    "QLinearSoftmax of one": lambda: qlinear_softmax([[3], [200]], 0.3),
    "QLinearSoftmax of scale 1/255": lambda: qlinear_softmax([[0, 255, 0, 0, 0, 255, 0, 0, 255, 255]], 0.5),
    "nodes out of order": nodes_out_of_order,
    "a size of -1": size_minus_one,
    "an initializer of IR 3": initializer_of_ir_3,
    "int8 weights in a float product": weight_only_int8,
    "a product of 4-bit weights": matmul_of_4_bits,
    "int4 weights in blocks": int4_in_blocks,
    "an If with a branch that does not fit": if_with_a_branch_that_does_not_fit,
    "a Gemm with a bias of its own scale": gemm_bias_of_its_own_scale,
    "a stride beyond the kernel": convolution_with_a_stride_beyond_its_kernel,
}
