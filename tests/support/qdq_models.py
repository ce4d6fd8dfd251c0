"""QDQ graphs made tensor by tensor, and what ONNX Runtime makes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from support import onnx_models as om
from support.onnx_models import F, Shape
from systolic.frontend.qdq import to_integers
from systolic.frontend.read import read

Params = tuple[float, int, str]
"""Scale, zero point and type of codes."""

S8: Params = (0.05, 3, "int8")
U8: Params = (0.05, 131, "uint8")
W8: Params = (0.02, 0, "int8")


class Net:
    """Collects nodes; methods return the name of what they write."""

    def __init__(self, opset: int = om.OPSET) -> None:
        self.opset = opset
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.inputs: dict[str, tuple[str, Shape]] = {}
        self._count = 0

    def _name(self, stem: str) -> str:
        self._count += 1
        return f"{stem}{self._count}"

    def const(self, value: Any) -> str:
        name = self._name("c")
        self.constants[name] = np.asarray(value)
        return name

    def input(self, dtype: str, shape: Shape) -> str:
        name = self._name("x")
        self.inputs[name] = (dtype, shape)
        return name

    def op(self, op: str, *inputs: str, **attributes: Any) -> str:
        (output,) = self.ops(op, 1, *inputs, **attributes)
        return output

    def ops(self, op: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        names = [self._name("t") for _ in range(outputs)]
        self.nodes.append(om.node(op, inputs, names, name=self._name("n"), **attributes))
        return names

    def q(self, tensor: str, params: Params = S8) -> str:
        return self.op("QuantizeLinear", tensor, *self._params(params))

    def dq(self, tensor: str, params: Params = S8) -> str:
        return self.op("DequantizeLinear", tensor, *self._params(params))

    def _params(self, params: Params) -> tuple[str, str]:
        scale, zero, dtype = params
        return self.const(F(scale)), self.const(np.asarray(zero, dtype))

    def codes(self, shape: Shape, params: Params = S8) -> str:
        """A DQ of an input of codes."""
        return self.dq(self.input(params[2], shape), params)

    def weight(
        self, shape: tuple[int, ...], params: Params = W8, *, axis: int | None = None, seed: int = 0
    ) -> str:
        """A DQ of a constant of codes, per tensor or with a scale for each index of an axis."""
        rng = np.random.default_rng([seed, *shape])
        # 7 bits: exact in ONNX Runtime on every CPU.
        drawn = rng.integers(-64, 64, shape)
        values = self.const((drawn if params[2] == "int8" else drawn + 64).astype(params[2]))
        if axis is None:
            return self.dq(values, params)
        scales = F(params[0]) * rng.choice(F([0.5, 1, 1.25, 1.7]), shape[axis]).astype(F)
        zeros = np.full(shape[axis], params[1], params[2])
        return self.op("DequantizeLinear", values, self.const(scales), self.const(zeros), axis=axis)

    def bias(self, count: int, scale: Any, zero: int | None = None, **attributes: Any) -> str:
        """A DQ of int32."""
        values = self.const(np.random.default_rng(count).integers(-3000, 3000, count, dtype=np.int32))
        zeros = [] if zero is None else [self.const(np.int32(zero))]
        return self.op("DequantizeLinear", values, self.const(F(scale)), *zeros, **attributes)

    def reshape(self, tensor: str, *sizes: int) -> str:
        return self.op("Reshape", tensor, self.const(np.int64(sizes)))

    def model(self, *outputs: str) -> Any:
        """The model, with the outputs' types that ONNX Runtime finds."""
        model = om.model(self.nodes, self.inputs, outputs, self.constants, opset=self.opset)
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
        found = session(model.SerializeToString(), level="NONE").get_outputs()
        kinds = {"tensor(float)": "float32"}
        return self.untyped(*((o.name, kinds.get(o.type, o.type[7:-1]), o.shape) for o in found))

    def untyped(self, *outputs: tuple[str, str, Shape]) -> Any:
        """The model, with outputs' types stated: for where ONNX Runtime is not to be asked."""
        names = [name for name, _, _ in outputs]
        model = om.model(self.nodes, self.inputs, names, self.constants, opset=self.opset)
        del model.graph.output[:]
        model.graph.output.extend(om.value(*output) for output in outputs)
        return model


def session(model: Path | bytes, *, optimized: Path | None = None, level: str = "ALL") -> Any:
    """A session that computes s8 groups in integers, and neither merges Q, DQ, Q, DQ nor quantizes
    the floats that meet quantized weights."""
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = {
        "ALL": runtime.GraphOptimizationLevel.ORT_ENABLE_ALL,
        "EXTENDED": runtime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
        "NONE": runtime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    }[level]
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    options.add_session_config_entry("session.disable_double_qdq_remover", "1")
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    source = model if isinstance(model, bytes) else str(model)
    return runtime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def fused_types(path: Path) -> Counter[str]:
    """The operators that ONNX Runtime makes of a model, by type."""
    optimized = path.with_suffix(".fused.onnx")
    session(path, optimized=optimized, level="EXTENDED")  # what comes after is for layout alone
    return types(onnx.load(optimized).graph.node)


def types(nodes: Any) -> Counter[str]:
    """Operators by type, without those that fusions of floats and sharing make incomparable."""
    alias = {"FusedConv": "Conv", "FusedGemm": "Gemm", "MatMulNBits": "MatMul"}
    passed = ("QuantizeLinear", "DequantizeLinear", "Identity", "Relu", "Clip")
    return Counter(alias.get(node.op_type, node.op_type) for node in nodes if node.op_type not in passed)


def made_types(path: Path) -> Counter[str]:
    """The operators that we make of a model, by type."""
    graph = read(path)
    to_integers(graph)
    return types(graph.operators)


def integer(made: Counter[str]) -> Counter[str]:
    """The integer operators among these."""
    integer = ("QLinear", "QGemm", "MatMulInteger")
    return Counter({op: count for op, count in made.items() if op.startswith(integer)})


def random_feeds(model: Any, seed: int) -> Mapping[str, np.ndarray]:
    """Inputs over all codes, or normal numbers."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for entry in model.graph.input:
        tensor = entry.type.tensor_type
        shape = [d.dim_value or 2 for d in tensor.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        feeds[entry.name] = (
            rng.normal(size=shape).astype(F) if dtype == np.float32 else om.codes(rng, shape, dtype.name)
        )
    return feeds


# Groups, and what becomes of them: the operators' types after the rewriting

Case = tuple[Any, str]
"""A function that fills a Net and returns its outputs; the types that it becomes."""

LOWEST: Params = (0.1, -128, "int8")
Y: Params = (0.1, 3, "int8")
PRODUCT = float(F(F(S8[0]) * F(W8[0])))
IMAGE = (1, 3, 8, 8)
KERNEL = (4, 3, 3, 3)
FLOAT_CONV = "Conv DequantizeLinear DequantizeLinear QuantizeLinear"
FLOAT_CONV_BIAS = "Conv DequantizeLinear DequantizeLinear DequantizeLinear QuantizeLinear"


def _conv(
    n: Net, x: Params = S8, w: Params = W8, y: Params | None = Y, *, axis: int | None = None, behind: str = "",
    bias: str | None = None, clip: tuple[float, float] | None = None, **attributes: Any,
) -> list[str]:  # fmt: skip
    tensor = n.op(
        "Conv", n.codes(IMAGE, x), n.weight(KERNEL, w, axis=axis), *([bias] if bias else []), **attributes
    )
    if clip is not None:
        tensor = n.op("Clip", tensor, n.const(F(clip[0])), n.const(F(clip[1])))
    elif behind:
        tensor = n.op(behind, tensor)
    return [tensor if y is None else n.q(tensor, y)]


def _float_bias(n: Net, count: int = 4) -> str:
    return n.const(np.random.default_rng(count).normal(size=count).astype(F))


def _weight_codes(n: Net, shape: tuple[int, ...]) -> tuple[str, np.ndarray]:
    w = n.weight(shape, axis=0)
    node = n.nodes[-1]
    return w, n.constants[node.input[1]]


def _channel_bias(n: Net, factor: float = 1.0) -> list[str]:
    x = n.codes(IMAGE)
    w, scales = _weight_codes(n, KERNEL)
    bias = n.bias(4, F(S8[0]) * scales * F(factor), axis=0)
    return [n.q(n.op("Conv", x, w, bias), Y)]


def _dense(
    n: Net, op: str = "Gemm", y: Params | None = Y, *, x: Params = S8, w: Params = W8, axis: int | None = None,
    bias: str = "", behind: str = "", **attributes: Any,
) -> list[str]:  # fmt: skip
    shape = (4, 6) if attributes.get("transB") else (6, 4)
    rows = (6, 2) if attributes.get("transA") else (2, 6)
    inputs = [n.codes(rows, x), n.weight(shape, w, axis=axis), *([bias] if bias else [])]
    tensor = n.op(op, *inputs, **attributes)
    if behind:
        tensor = n.op(behind, tensor)
    return [tensor if y is None else n.q(tensor, y)]


def _matmul_add(n: Net, a: Shape, bias: tuple[int, ...], y: Params | None = Y, behind: str = "") -> list[str]:
    product = n.op("MatMul", n.codes(a), n.weight((6, 4)))
    tensor = n.op("Add", product, n.const(np.random.default_rng(1).normal(size=bias).astype(F)))
    if behind:
        tensor = n.op(behind, tensor)
    return [tensor if y is None else n.q(tensor, y)]


def _binary(
    n: Net, op: str, other: Params = U8, x: Params = U8, y: Params = U8, behind: str = ""
) -> list[str]:
    tensor = n.op(
        op, n.codes((2, 3, 4), x), n.codes((2, 3, 4), other), **({"axis": 1} if op == "Concat" else {})
    )
    return [n.q(n.op(behind, tensor) if behind else tensor, y)]


def _unary(n: Net, op: str, y: Params = S8, *more: Any, x: Params = S8, **attributes: Any) -> list[str]:
    return [n.q(n.op(op, n.codes(IMAGE, x), *(n.const(value) for value in more), **attributes), y)]


def _two_weights(n: Net, one: str, other: str) -> list[str]:
    return [n.op("MatMul", one, n.weight((6, 4))), n.op("MatMul", other, n.weight((4, 5), seed=1))]


def _fork(n: Net) -> list[str]:
    x = n.codes((6, 4))
    return _two_weights(n, n.op("Transpose", x, perm=[1, 0]), n.reshape(x, 6, 4))


def _conv_tensor(n: Net) -> str:
    return n.op("Conv", n.codes(IMAGE), n.weight(KERNEL))


def _both(n: Net, tensor: str, *tensors: str) -> list[str]:
    return [n.q(tensor, Y), *tensors]


def _two_q(n: Net, same: bool) -> list[str]:
    tensor = _conv_tensor(n)
    scale, zero = n.const(F(0.1)), n.const(np.int8(3))
    first = n.op("QuantizeLinear", tensor, scale, zero)
    second = n.op("QuantizeLinear", tensor, n.const(F(0.1)), zero if same else n.const(np.int8(4)))
    return [n.reshape(first, -1), n.op("Flatten", second)]


def _through(n: Net, op: str, *more: Any, y: Params = Y, behind: str = "", **attributes: Any) -> list[str]:
    tensor = _conv_tensor(n)
    if behind:
        tensor = n.op(behind, tensor)
    return [n.q(n.op(op, tensor, *(n.const(value) for value in more), **attributes), y)]


def _shared_dq(n: Net) -> list[str]:
    x = n.codes((2, 6))
    return [n.q(n.op("Gemm", x, n.weight((6, 4))), Y), n.op("MatMul", x, n.weight((6, 3))), x]


def _constant_scale(n: Net) -> list[str]:
    n.nodes.append(om.node("Constant", [], "scale", value=onnx.numpy_helper.from_array(F(0.05))))
    n.nodes.append(om.node("Identity", ["scale"], "same"))
    x = n.op("DequantizeLinear", n.input("int8", IMAGE), "same", n.const(np.int8(0)))
    return [n.q(n.op("GlobalAveragePool", x), Y)]


def _transposed_weight(n: Net) -> list[str]:
    weight = n.op("Transpose", n.weight((4, 6), axis=0), perm=[1, 0])
    return [n.q(n.op("MatMul", n.codes((2, 6)), weight), Y)]


def _split(n: Net, y: Params) -> list[str]:
    return [n.q(part, y) for part in n.ops("Split", 2, n.codes((4, 6)), num_outputs=2)]


def _bare(n: Net) -> list[str]:
    tensors = [n.op("DequantizeLinear", n.input("uint8", (2, 3)), n.const(F(s))) for s in (0.05, 0.03)]
    return [n.op("QuantizeLinear", n.op("Mul", *tensors), n.const(F(0.1)))]


CASES: dict[str, Case] = {
    # Convolutions
    "conv": (_conv, "QLinearConv"),
    "conv u8 s8": (lambda n: _conv(n, U8, W8, U8), "QLinearConv"),
    "conv u8 u8": (lambda n: _conv(n, U8, (0.02, 60, "uint8"), U8), "QLinearConv"),
    "conv s8 u8": (lambda n: _conv(n, S8, (0.02, 60, "uint8")), FLOAT_CONV),
    "conv s8 to u8": (lambda n: _conv(n, S8, W8, U8), FLOAT_CONV),
    "conv per channel": (lambda n: _conv(n, axis=0), "QLinearConv"),
    "conv with attributes": (lambda n: _conv(n, strides=[2, 1], pads=[1, 0, 2, 1], dilations=[1, 2]), "QLinearConv"),
    "conv without q": (lambda n: _conv(n, y=None), "Conv DequantizeLinear DequantizeLinear"),
    "conv bias": (lambda n: _conv(n, bias=n.bias(4, PRODUCT)), "QLinearConv"),
    "conv bias 1 % off": (lambda n: _conv(n, bias=n.bias(4, PRODUCT * 1.0099)), "QLinearConv"),
    "conv bias 2 % off": (lambda n: _conv(n, bias=n.bias(4, PRODUCT * 1.02)), FLOAT_CONV_BIAS),
    "conv bias 2 % less": (lambda n: _conv(n, bias=n.bias(4, PRODUCT * 0.98)), FLOAT_CONV_BIAS),
    "conv bias per channel": (_channel_bias, "QLinearConv"),
    "conv bias per channel, off": (lambda n: _channel_bias(n, 1.05), FLOAT_CONV_BIAS),
    "conv float bias": (lambda n: _conv(n, bias=_float_bias(n)), "QLinearConv"),
    "conv float bias, per channel": (lambda n: _conv(n, axis=0, bias=_float_bias(n)), "QLinearConv"),
    "conv float bias, relu": (lambda n: _conv(n, y=LOWEST, behind="Relu", bias=_float_bias(n)), "QLinearConv"),
    "conv float bias, without q": (
        lambda n: _conv(n, y=None, bias=_float_bias(n)),
        "Conv DequantizeLinear DequantizeLinear",
    ),
    "conv float weight and bias": (
        lambda n: [n.q(n.op("Conv", n.codes(IMAGE), n.const(F(np.sin(np.arange(108))).reshape(KERNEL)), _float_bias(n)), Y)],
        "QLinearConv",
    ),
    "conv relu": (lambda n: _conv(n, y=LOWEST, behind="Relu"), "QLinearConv"),
    "conv relu, not implied": (lambda n: _conv(n, behind="Relu"), f"{FLOAT_CONV} Relu"),
    "conv relu relu": (lambda n: [n.q(n.op("Relu", n.op("Relu", _conv_tensor(n))), LOWEST)], "QLinearConv"),
    "conv clip": (lambda n: _conv(n, clip=(-13.1, 12.4)), "QLinearConv"),
    "conv clip, implied after rounding": (lambda n: _conv(n, clip=(-13.1, 12.36)), "QLinearConv"),
    "conv clip too high": (lambda n: _conv(n, clip=(-13.0, 12.4)), f"{FLOAT_CONV} Clip"),
    "conv clip too low": (lambda n: _conv(n, clip=(-13.1, 12.3)), f"{FLOAT_CONV} Clip"),
    "conv identity": (lambda n: _conv(n, behind="Identity"), "QLinearConv"),
    "conv forks": (
        lambda n: (lambda t: _both(n, t, n.op("Neg", t)))(_conv_tensor(n)),
        f"{FLOAT_CONV} Neg",
    ),
    "conv is an output": (lambda n: (lambda t: _both(n, t, t))(_conv_tensor(n)), FLOAT_CONV),
    "conv, two equal q": (lambda n: _two_q(n, True), "Flatten QLinearConv Reshape"),
    "conv, two equal q, one an output": (
        lambda n: (lambda t, s, z: [n.op("QuantizeLinear", t, s, z), n.op("Flatten", n.op("QuantizeLinear", t, s, z))])(
            _conv_tensor(n), n.const(F(0.1)), n.const(np.int8(3))
        ),
        f"{FLOAT_CONV} Flatten QuantizeLinear",
    ),
    "conv, two other q": (lambda n: _two_q(n, False), f"{FLOAT_CONV} Flatten QuantizeLinear Reshape"),
    "conv float weight, without dq": (
        lambda n: [n.q(n.op("Conv", n.input("float32", IMAGE), n.weight(KERNEL)), Y)],
        "Conv DequantizeLinear QuantizeLinear",
    ),
    "conv transpose": (
        lambda n: [n.q(n.op("ConvTranspose", n.codes(IMAGE), n.weight((3, 4, 3, 3))), Y)],
        "ConvTranspose DequantizeLinear DequantizeLinear QuantizeLinear",
    ),
    "conv transpose, float bias": (
        lambda n: [n.q(n.op("ConvTranspose", n.codes(IMAGE), n.weight((3, 4, 3, 3)), _float_bias(n)), Y)],
        "ConvTranspose DequantizeLinear DequantizeLinear DequantizeLinear QuantizeLinear",
    ),
    # Products of matrices
    "gemm": (_dense, "QGemm"),
    "gemm to float": (lambda n: _dense(n, y=None), "QGemm"),
    "gemm bias": (lambda n: _dense(n, bias=n.bias(4, PRODUCT)), "QGemm"),
    "gemm bias of any scale": (lambda n: _dense(n, bias=n.bias(4, PRODUCT * 7)), "QGemm"),
    "gemm bias to float": (lambda n: _dense(n, y=None, bias=n.bias(4, PRODUCT)), "QGemm"),
    "gemm float bias": (lambda n: _dense(n, bias=_float_bias(n)), "QGemm"),
    "gemm float bias to float": (
        lambda n: _dense(n, y=None, bias=_float_bias(n)),
        "DequantizeLinear DequantizeLinear Gemm",
    ),
    "gemm bias of 8 bits": (
        lambda n: _dense(n, bias=n.weight((4,))),
        "DequantizeLinear DequantizeLinear DequantizeLinear Gemm QuantizeLinear",
    ),
    "gemm transposed": (lambda n: _dense(n, transB=1, axis=0, bias=_float_bias(n)), "QGemm"),
    "gemm alpha": (lambda n: _dense(n, alpha=0.5), "QGemm"),
    "gemm alpha with bias": (
        lambda n: _dense(n, alpha=0.5, bias=n.bias(4, PRODUCT)),
        "DequantizeLinear DequantizeLinear DequantizeLinear Gemm QuantizeLinear",
    ),
    "gemm beta with bias": (
        lambda n: _dense(n, beta=0.5, bias=n.bias(4, PRODUCT)),
        "DequantizeLinear DequantizeLinear DequantizeLinear Gemm QuantizeLinear",
    ),
    "gemm beta": (lambda n: _dense(n, beta=0.5), "QGemm"),
    "gemm relu": (lambda n: _dense(n, y=LOWEST, behind="Relu"), "QGemm"),
    "gemm relu neg": (
        lambda n: [n.op("Neg", *_dense(n, y=None, behind="Relu"))],
        "DequantizeLinear DequantizeLinear Gemm Neg Relu",
    ),
    "matmul": (lambda n: _dense(n, "MatMul"), "QLinearMatMul"),
    "matmul u8": (lambda n: _dense(n, "MatMul", U8, x=U8), "QLinearMatMul"),
    "matmul per column": (lambda n: _dense(n, "MatMul", axis=1), "QLinearMatMul"),
    "matmul to float": (lambda n: _dense(n, "MatMul", None, axis=1), "MatMulIntegerToFloat"),
    "matmul relu to float": (lambda n: _dense(n, "MatMul", None, behind="Relu"), "MatMulIntegerToFloat Relu"),
    "matmul of two inputs": (
        lambda n: [n.q(n.op("MatMul", n.codes((2, 3, 6)), n.codes((2, 6, 4))), Y)],
        "QLinearMatMul",
    ),
    "matmul float": (
        lambda n: [n.op("MatMul", n.codes((2, 6)), n.input("float32", (6, 4)))],
        "DequantizeLinear MatMul",
    ),
    "matmul, transposed weight": (_transposed_weight, "QLinearMatMul"),
    "matmul add": (lambda n: _matmul_add(n, (2, 6), (4,)), "QGemm"),
    "matmul add, batched": (lambda n: _matmul_add(n, (2, 3, 6), (4,)), "QGemm Reshape Reshape"),
    "matmul add, batched, relu": (
        lambda n: _matmul_add(n, (2, 3, 6), (4,), LOWEST, "Relu"),
        "DequantizeLinear DequantizeLinear Gemm QuantizeLinear Reshape Reshape",
    ),
    "matmul add, open batch": (
        lambda n: _matmul_add(n, ("n", 3, 6), (4,)),
        "Add MatMulIntegerToFloat QuantizeLinear",
    ),
    "matmul add to float": (
        lambda n: _matmul_add(n, (2, 6), (4,), None),
        "DequantizeLinear DequantizeLinear Gemm",
    ),
    "matmul add of one": (lambda n: _matmul_add(n, (2, 6), (1,)), "Add MatMulIntegerToFloat QuantizeLinear"),
    # Two tensors, one tensor
    "add": (lambda n: _binary(n, "Add"), "QLinearAdd"),
    "add s8": (lambda n: _binary(n, "Add", S8, S8, Y), "QLinearAdd"),
    "add relu": (lambda n: _binary(n, "Add", S8, S8, LOWEST, "Relu"), "QLinearAdd"),
    "add of two types": (lambda n: _binary(n, "Add", S8), "Add DequantizeLinear DequantizeLinear QuantizeLinear"),
    "add to another type": (
        lambda n: _binary(n, "Add", S8, S8, U8),
        "Add DequantizeLinear DequantizeLinear QuantizeLinear",
    ),
    "mul": (lambda n: _binary(n, "Mul"), "QLinearMul"),
    "sub": (lambda n: _binary(n, "Sub"), "DequantizeLinear DequantizeLinear QuantizeLinear Sub"),
    "concat": (lambda n: _binary(n, "Concat"), "QLinearConcat"),
    "concat of two types": (
        lambda n: _binary(n, "Concat", S8),
        "Concat DequantizeLinear DequantizeLinear QuantizeLinear",
    ),
    "mul without zero points": (_bare, "QLinearMul"),
    "global average pool": (lambda n: _unary(n, "GlobalAveragePool", Y), "QLinearGlobalAveragePool"),
    "average pool": (lambda n: _unary(n, "AveragePool", Y, kernel_shape=[2, 2]), "QLinearAveragePool"),
    "leaky relu": (lambda n: _unary(n, "LeakyRelu", Y, alpha=0.1), "QLinearLeakyRelu"),
    "sigmoid": (lambda n: _unary(n, "Sigmoid", Y), "QLinearSigmoid"),
    "softmax": (lambda n: _unary(n, "Softmax", Y), "QLinearSoftmax"),
    "hard sigmoid": (lambda n: _unary(n, "HardSigmoid", Y), "DequantizeLinear HardSigmoid QuantizeLinear"),
    "relu": (lambda n: _unary(n, "Relu", Y), "DequantizeLinear QuantizeLinear Relu"),
    "relu, implied": (lambda n: _unary(n, "Relu", LOWEST), "DequantizeLinear QuantizeLinear"),
    "constant scale": (_constant_scale, "QLinearGlobalAveragePool"),
    # Moves
    "max pool": (lambda n: _unary(n, "MaxPool", kernel_shape=[2, 2]), "MaxPool"),
    "max pool, rescaled": (
        lambda n: _unary(n, "MaxPool", Y, kernel_shape=[2, 2]),
        "DequantizeLinear MaxPool QuantizeLinear",
    ),
    "reshape": (lambda n: _unary(n, "Reshape", S8, np.int64([3, -1])), "Reshape"),
    "flatten": (lambda n: _unary(n, "Flatten"), "Flatten"),
    "transpose": (lambda n: _unary(n, "Transpose", perm=[0, 2, 3, 1]), "Transpose"),
    "transpose, rescaled": (lambda n: _unary(n, "Transpose", Y), "DequantizeLinear QuantizeLinear Transpose"),
    "transpose, another zero point": (
        lambda n: _unary(n, "Transpose", (0.05, 4, "int8")),
        "DequantizeLinear QuantizeLinear Transpose",
    ),
    "transpose, another type": (
        lambda n: _unary(n, "Transpose", (0.05, 3, "uint8")),
        "DequantizeLinear QuantizeLinear Transpose",
    ),
    "squeeze": (lambda n: _unary(n, "Squeeze", S8, np.int64([0])), "Squeeze"),
    "unsqueeze": (lambda n: _unary(n, "Unsqueeze", S8, np.int64([0])), "Unsqueeze"),
    "slice": (lambda n: _unary(n, "Slice", S8, np.int64([1]), np.int64([5]), np.int64([2])), "Slice"),
    "gather": (lambda n: _unary(n, "Gather", S8, np.int64([0, 2]), axis=1), "Gather"),
    "resize": (
        lambda n: _unary(n, "Resize", S8, np.zeros(0, F), F([1, 1, 2, 2]), mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric"),
        "Resize",
    ),
    "tile": (lambda n: _unary(n, "Tile", S8, np.int64([1, 1, 2, 1])), "Tile"),
    "expand": (lambda n: _unary(n, "Expand", S8, np.int64([2, 3, 8, 8])), "Expand"),
    "gather elements": (
        lambda n: _unary(n, "GatherElements", S8, np.arange(192).reshape(IMAGE) % 3, axis=1),
        "GatherElements",
    ),
    "depth to space": (lambda n: [n.q(n.op("DepthToSpace", n.codes((1, 4, 2, 3)), blocksize=2))], "DepthToSpace"),
    "space to depth": (lambda n: _unary(n, "SpaceToDepth", blocksize=2), "SpaceToDepth"),
    "reduce max": (lambda n: _unary(n, "ReduceMax", S8, np.int64([2, 3])), "ReduceMax"),
    "reduce min": (lambda n: _unary(n, "ReduceMin", S8, np.int64([1])), "ReduceMin"),
    "pad": (
        lambda n: _unary(n, "Pad", S8, np.int64([0, 0, 1, 1, 0, 0, 1, 1])),
        "DequantizeLinear Pad QuantizeLinear",
    ),
    "split": (lambda n: _split(n, S8), "Split"),
    "split, rescaled": (lambda n: _split(n, Y), "DequantizeLinear QuantizeLinear QuantizeLinear Split"),
    "argmax": (lambda n: [n.op("ArgMax", n.codes((2, 6)), axis=1)], "ArgMax"),
    "q of dq": (lambda n: [n.op("Flatten", n.q(n.codes(IMAGE)))], "Flatten"),
    "q of dq, rescaled": (
        lambda n: [n.op("Flatten", n.q(n.codes(IMAGE), Y))],
        "DequantizeLinear Flatten QuantizeLinear",
    ),
    "q of dq is an output": (lambda n: [n.q(n.codes(IMAGE))], "Identity"),
    # Codes carried past moves
    "conv, max pool": (lambda n: _through(n, "MaxPool", kernel_shape=[2, 2]), "MaxPool QLinearConv"),
    "conv, relu, max pool": (
        lambda n: _through(n, "MaxPool", y=LOWEST, behind="Relu", kernel_shape=[2, 2]),
        "MaxPool QLinearConv",
    ),
    "conv, transpose": (lambda n: _through(n, "Transpose", perm=[0, 2, 3, 1]), "QLinearConv Transpose"),
    "conv, flatten": (lambda n: _through(n, "Flatten"), f"{FLOAT_CONV} Flatten"),
    "dq, reshape, matmul": (
        lambda n: [n.op("MatMul", n.reshape(n.codes((2, 3, 4)), 4, 6), n.weight((6, 4)))],
        "MatMulIntegerToFloat Reshape",
    ),
    "dq, flatten, matmul": (
        lambda n: [n.op("MatMul", n.op("Flatten", n.codes((2, 3, 2))), n.weight((6, 4)))],
        "DequantizeLinear DequantizeLinear Flatten MatMul",
    ),
    "conv, max pool that forks": (
        lambda n: (lambda t: _both(n, t, n.op("Neg", t)))(n.op("MaxPool", _conv_tensor(n), kernel_shape=[2, 2])),
        f"{FLOAT_CONV} MaxPool Neg",
    ),
    "dq, reshape that is an output, matmul": (
        lambda n: (lambda t: [t, n.op("MatMul", t, n.weight((6, 4)))])(n.reshape(n.codes((2, 3, 4)), 4, 6)),
        "DequantizeLinear Identity MatMulIntegerToFloat Reshape",
    ),
    "dq forks": (_fork, "MatMulIntegerToFloat MatMulIntegerToFloat Reshape Transpose"),
    "dq read by many": (_shared_dq, "DequantizeLinear MatMulIntegerToFloat QGemm"),
}  # fmt: skip
