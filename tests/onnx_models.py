"""Small ONNX models made node by node, and ONNX Runtime's results on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

OPSET, IR_VERSION = 21, 10

Shape = Sequence[int | str]


def node(op: str, inputs: Sequence[str], outputs: Sequence[str] | str, *, domain: str = "", name: str = "", **attributes: Any) -> Any:
    """One node; an op as "com.microsoft.QLinearAdd" carries its domain."""
    if "." in op:
        domain, _, op = op.rpartition(".")
    outputs = [outputs] if isinstance(outputs, str) else list(outputs)
    return onnx.helper.make_node(op, list(inputs), outputs, name=name, domain=domain, **attributes)


def value(name: str, dtype: str, shape: Shape | None) -> Any:
    """A graph input."""
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)


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
    return model([node(op, names, "y", name="the_node", **attributes)], inputs, ["y"], arrays, opset=opset), feeds


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
