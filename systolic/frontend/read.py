"""Reads an ONNX file into a ``Graph`` of our own records."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from systolic.frontend.operators import Graph, Operator, Sizes
from systolic.model import DTYPES, TensorSpec

# Domains that mean the standard operator set.
_STANDARD = ("", "ai.onnx")


def read(path: str | os.PathLike[str]) -> Graph:
    """Return the graph of an ONNX file, with nothing interpreted; errors as for ``load_onnx``."""
    model = _load(path)
    source = model.graph
    constants = {tensor.name: _array(tensor) for tensor in source.initializer}
    graph = Graph(
        name=source.name or Path(path).stem,
        operators=[],
        inputs={value.name: _spec(value) for value in source.input if value.name not in constants},
        outputs=tuple(value.name for value in source.output),
        constants=constants,
        opsets={_domain(entry): entry.version for entry in model.opset_import},
        declared={value.name: _declared(value) for value in (*source.value_info, *source.output)},
    )
    graph.operators += [_operator(node, graph) for node in source.node]
    return graph


def _load(path: str | os.PathLike[str]) -> Any:
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise ImportError('load_onnx needs the onnx package: pip install "systolic[onnx]"') from error
    name = os.fspath(path)
    try:
        # onnx.load guesses a text format from some suffixes; the content decides here.
        model = onnx.load(name, format="protobuf")
        if not model.graph.node and not model.graph.output:
            raise DecodeError("it holds no graph")
        onnx.checker.check_model(model)
    except DecodeError as error:
        raise ValueError(f"{name} is not an ONNX model, or is truncated: {error}") from error
    except IsADirectoryError as error:
        raise ValueError(f"{name} is a folder; load_onnx reads one .onnx file") from error
    except (onnx.checker.ValidationError, ValueError) as error:
        raise ValueError(f"{name} is not a valid ONNX model: {error}") from error
    return model


def _domain(proto: Any) -> str:
    return "" if proto.domain in _STANDARD else proto.domain


def _operator(node: Any, graph: Graph) -> Operator:
    from onnx import helper

    label = node.name or next(filter(None, node.output), node.op_type)
    try:
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    except ValueError as error:
        raise ValueError(f"node {label!r} ({node.op_type}): {error}") from error
    return Operator(
        label=label,
        op_type=node.op_type,
        inputs=tuple(node.input),
        outputs=tuple(node.output),
        attributes=attributes,
        graph=graph,
        domain=_domain(node),
        captured=_captured(node),
        proto=node,
    )


def _captured(node: Any) -> tuple[str, ...]:
    """Return the tensors that a node's subgraphs use but do not hold."""
    found: dict[str, None] = {}
    for attribute in node.attribute:
        for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            own = {value.name for value in (*graph.input, *graph.initializer)}
            own |= {tensor.values.name for tensor in graph.sparse_initializer}
            for inner in graph.node:
                used = (*inner.input, *_captured(inner))
                found |= {name: None for name in used if name and name not in own}
                own |= set(inner.output)
            found |= {value.name: None for value in graph.output if value.name not in own}
    return tuple(found)


def _array(tensor: Any) -> np.ndarray:
    from onnx import numpy_helper

    try:
        return numpy_helper.to_array(tensor)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"initializer {tensor.name!r} cannot be read: {error}") from error


def _spec(value: Any) -> TensorSpec:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise ValueError(f"input {value.name!r} is not a tensor but a {kind or 'value without a type'}")
    dtype, sizes = _declared(value)
    if dtype not in DTYPES:
        held = dtype or f"type {value.type.tensor_type.elem_type}"
        raise ValueError(f"input {value.name!r} holds {held}; supported are {', '.join(DTYPES)}")
    if sizes is None:
        raise ValueError(f"input {value.name!r} has no shape; declare one, symbolic sizes are allowed")
    try:
        return TensorSpec(sizes, dtype)
    except ValueError as error:
        raise ValueError(f"input {value.name!r}: {error}") from error


def _declared(value: Any) -> tuple[str | None, Sizes | None]:
    """Return the type and the shape that a file states for a tensor, None where it does not."""
    from onnx import helper

    if value.type.WhichOneof("value") != "tensor_type":
        return None, None
    tensor = value.type.tensor_type
    try:
        dtype: str | None = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
    except (KeyError, TypeError):
        dtype = None
    if not tensor.HasField("shape"):
        return dtype, None
    return dtype, tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)
