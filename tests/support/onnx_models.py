"""Small ONNX models made node by node, and ONNX Runtime's results on them."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from support.oracle_cases import cpu_flags, draw_codes, draw_scales, exact_u8s8

OPSET, IR_VERSION = 21, 10

Shape = Sequence[int | str]
Case = tuple[Any, dict[str, np.ndarray]]
"""A model and what to feed it."""

F = np.float32


def node(
    op: str,
    inputs: Sequence[str],
    outputs: Sequence[str] | str,
    *,
    domain: str = "",
    name: str = "",
    **attributes: Any,
) -> Any:
    """One node; an op as "com.microsoft.QLinearAdd" carries its domain."""
    if "." in op:
        domain, _, op = op.rpartition(".")
    outputs = [outputs] if isinstance(outputs, str) else list(outputs)
    return onnx.helper.make_node(op, list(inputs), outputs, name=name, domain=domain, **attributes)


def value(name: str, dtype: str, shape: Shape | None) -> Any:
    """A graph input."""
    return onnx.helper.make_tensor_value_info(
        name, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape
    )


def model(
    nodes: Sequence[Any],
    inputs: Mapping[str, tuple[str, Shape | None]],
    outputs: Sequence[str],
    constants: Mapping[str, Any] | None = None,
    *,
    opset: int = OPSET,
    name: str = "test",
) -> Any:
    """A model of these nodes; its outputs are called int8 scalars until :func:`typed` is asked."""
    graph = onnx.helper.make_graph(
        list(nodes),
        name,
        [value(name, dtype, shape) for name, (dtype, shape) in inputs.items()],
        [value(output, "int8", ()) for output in outputs],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()],
    )
    domains = ["", *sorted({n.domain for n in nodes if n.domain not in ("", "ai.onnx")})]
    opsets = [onnx.helper.make_opsetid(domain, 1 if domain else opset) for domain in domains]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def single(
    op: str, arguments: Sequence[Any], moving: Sequence[int] = (0,), *, opset: int = OPSET, **attributes: Any
) -> tuple[Any, dict[str, np.ndarray]]:
    """A model of one node, and what to feed it.

    Arguments at the places in `moving` are graph inputs, the others initializers; None is left out.
    """
    names = ["" if argument is None else f"i{index}" for index, argument in enumerate(arguments)]
    while names and not names[-1]:
        names.pop()
    arrays = {name: np.asarray(arguments[index]) for index, name in enumerate(names) if name}
    feeds = {names[index]: arrays.pop(names[index]) for index in moving}
    inputs = {name: (array.dtype.name, array.shape) for name, array in feeds.items()}
    return model(
        [node(op, names, "y", name="the_node", **attributes)], inputs, ["y"], arrays, opset=opset
    ), feeds


def typed(model: Any) -> Any:
    """Give the outputs the types and shapes that ONNX Runtime infers."""
    outputs = [onnx.ValueInfoProto(name=output.name) for output in model.graph.output]
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    session = _session(model.SerializeToString())
    del model.graph.output[:]
    for output in session.get_outputs():
        kind = {"float": "float32"}.get(output.type[7:-1], output.type[7:-1])  # tensor(int8)
        model.graph.output.append(value(output.name, kind, output.shape))
    return model


def save(model: Any, folder: Path, name: str = "model.onnx") -> Path:
    """Write a model to a file."""
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def onnxruntime_outputs(path: Path, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """ONNX Runtime's outputs on the CPU, in the order of the graph."""
    return _session(str(path)).run(None, dict(feeds))


def _session(model: str | bytes) -> Any:
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


# Models of one node, with operands drawn


def codes(rng: np.randGenerator, shape: tuple[int, ...], dtype: str = "int8", *, bits: int = 8) -> np.ndarray:
    return draw_codes(rng, dtype, shape, bits=bits)


def zero(rng: np.randGenerator, dtype: str) -> np.ndarray:
    limits = np.iinfo(dtype)
    return np.asarray(rng.integers(limits.min, limits.max, endpoint=True), dtype=dtype)


def weight_bits(x: str, w: str) -> int:
    return 7 if x != w and not exact_u8s8() else 8


def matmul(
    rng: np.randGenerator, x: str, w: str, *, per_column: bool, leading: tuple[int, ...] = (5,)
) -> Case:
    b = codes(rng, (37, 9), w, bits=weight_bits(x, w))
    scale, zeros = (
        (draw_scales(rng, F(0.02), 9), codes(rng, (9,), w)) if per_column else (F(0.02), zero(rng, w))
    )
    arguments = [codes(rng, (*leading, 37), x), F(0.03), zero(rng, x), b, scale, zeros, F(0.75), zero(rng, x)]
    return single("QLinearMatMul", arguments)


def gemm(
    rng: np.randGenerator, x: str, w: str, *, transposed: bool = False, per_column: bool = False,
    bias: tuple[int, ...] | None = (9,), real: bool = False, alpha: float = 1.0,
) -> Case:  # fmt: skip
    b = codes(rng, (9, 37) if transposed else (37, 9), w, bits=weight_bits(x, w))
    scale, zeros = (
        (draw_scales(rng, F(0.02), 9), np.full(9, zero(rng, w))) if per_column else (F(0.02), zero(rng, w))
    )
    c = None if bias is None else rng.integers(-3000, 3000, bias, dtype=np.int32)
    output = (None, None) if real else (F(0.75), zero(rng, x))
    arguments = [codes(rng, (5, 37), x), F(0.03), zero(rng, x), b, scale, zeros, c, *output]
    return single("com.microsoft.QGemm", arguments, transB=int(transposed), alpha=alpha)


def conv(
    rng: np.randGenerator, x: str = "int8", w: str = "int8", *, ic: int = 4, oc: int = 6, kernel: tuple[int, int] = (3, 3),
    bias: bool = True, per_channel: bool = False, zeros: bool = True, image: tuple[int, int] = (7, 9), **attributes: Any,
) -> Case:  # fmt: skip
    groups = attributes.get("group", 1)
    scale: Any = draw_scales(rng, F(0.02), oc) if per_channel else F(0.02)
    zero_point: Any = codes(rng, (oc,), w) if per_channel else zero(rng, w)
    arguments = [
        codes(rng, (2, ic, *image), x), F(0.03), zero(rng, x),
        codes(rng, (oc, ic // groups, *kernel), w, bits=weight_bits(x, w)), scale,
        zero_point if zeros else np.zeros_like(zero_point), F(0.75), zero(rng, x),
        rng.integers(-3000, 3000, oc, dtype=np.int32) if bias else None,
    ]  # fmt: skip
    return single("QLinearConv", arguments, **attributes)


def quantize(rng: np.randGenerator, dtype: str, *, axis: int | None = None, bare: bool = False) -> Case:
    x = (rng.integers(-300, 300, (2, 5, 3)) * 0.25 + rng.choice([0, 0.1], (2, 5, 3))).astype(F)
    x.flat[:6] = [np.inf, -np.inf, np.nan, 1e30, -1e30, -0.0]
    if bare:
        return single("QuantizeLinear", [x, F(0.5)])
    if axis is None:
        return single("QuantizeLinear", [x, F(0.5), zero(rng, dtype)])
    count = x.shape[axis]
    return single(
        "QuantizeLinear", [x, draw_scales(rng, F(0.5), count), codes(rng, (count,), dtype)], axis=axis
    )


def dequantize(rng: np.randGenerator, dtype: str, *, axis: int | None = None, bare: bool = False) -> Case:
    x = (
        rng.integers(-(2**31), 2**31, (2, 5, 3), dtype=np.int32)
        if dtype == "int32"
        else codes(rng, (2, 5, 3), dtype)
    )
    if bare:
        return single("DequantizeLinear", [x, F(0.1)])
    if axis is None:
        return single("DequantizeLinear", [x, F(0.1), zero(rng, dtype)])
    count = x.shape[axis]
    return single(
        "DequantizeLinear", [x, draw_scales(rng, F(0.1), count), codes(rng, (count,), dtype)], axis=axis
    )


def add_codes(
    rng: np.randGenerator, dtype: str, a: tuple[int, ...], b: tuple[int, ...], *, constant: bool = False
) -> Case:
    if platform.machine().lower() not in ("x86_64", "amd64") or "avx2" not in cpu_flags():
        pytest.skip("ONNX Runtime adds in another order, or in fixed point, without AVX2")
    arguments = [
        codes(rng, a, dtype),
        F(0.011),
        zero(rng, dtype),
        codes(rng, b, dtype),
        F(0.04),
        zero(rng, dtype),
    ]
    moving = (0,) if constant else (0, 3)
    return single("com.microsoft.QLinearAdd", [*arguments, F(0.068), zero(rng, dtype)], moving)


def average(rng: np.randGenerator, dtype: str, **attributes: Any) -> Case:
    shape = (2, 9, 7, 3) if attributes.get("channels_last") else (2, 3, 9, 7)
    arguments = [codes(rng, shape, dtype), F(0.196), zero(rng, dtype), F(0.156), zero(rng, dtype)]
    return single("com.microsoft.QLinearAveragePool", arguments, **attributes)


def global_average(rng: np.randGenerator, dtype: str, channels_last: int = 0) -> Case:
    arguments = [codes(rng, (2, 3, 5, 7), dtype), F(0.166), zero(rng, dtype), F(0.14), zero(rng, dtype)]
    return single("com.microsoft.QLinearGlobalAveragePool", arguments, channels_last=channels_last)


def max_pool(rng: np.randGenerator, dtype: str, **attributes: Any) -> Case:
    x = codes(rng, (2, 3, 9, 7))
    return single("MaxPool", [x.astype(F) / 4 if dtype == "float32" else x.view(dtype)], **attributes)


def plain(op: str, *arrays: np.ndarray, **attributes: Any) -> Case:
    return single(op, list(arrays), range(len(arrays)), **attributes)


def reshape(rng: np.randGenerator, sizes: list[int], **attributes: Any) -> Case:
    return single("Reshape", [codes(rng, (4, 6, 2)), np.int64(sizes)], **attributes)


def constants(rng: np.randGenerator) -> Case:
    """A Constant node; what follows from constants alone; names for names."""
    shape = onnx.numpy_helper.from_array(np.int64([0, 2, 3]))
    nodes = [
        node("Constant", [], "shape", value=shape),
        node("Identity", ["shape"], "same shape"),
        node("Reshape", ["x", "same shape"], "reshaped"),
        node("QuantizeLinear", ["real", "scale", "zero"], "codes"),
        node("Flatten", ["codes"], "flat"),
        node("Reshape", ["flat", "same"], "constant"),
        node("Identity", ["reshaped"], "again"),
        node("Add", ["again", "constant"], "y"),
    ]
    values = {
        "real": rng.normal(size=(2, 3)).astype(F),
        "scale": F(0.02),
        "zero": np.int8(3),
        "same": np.int64([2, 3]),
    }
    x = codes(rng, (4, 6))
    return model(nodes, {"x": ("int8", (4, 6))}, ["y"], values), {"x": x}
