"""Reads an ONNX file into a ``Graph`` of our own records."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from systolic._files import check_plain, path_text
from systolic.frontend.check import captured, check_model, domain_of, label
from systolic.frontend.external import read_external
from systolic.frontend.functions import inline
from systolic.frontend.operators import Graph, Operator, Sizes, UnsupportedOperator
from systolic.model import DTYPES, TensorSpec

# What protobuf can hold in one message.
_MOST_BYTES = 2**31 - 1


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
        opsets={domain_of(entry): entry.version for entry in model.opset_import},
        declared={value.name: _hint(value) for value in (*source.value_info, *source.output)},
    )
    graph.operators += [_operator(node, graph) for node in source.node]
    return graph


def _load(path: str | os.PathLike[str]) -> Any:
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise ImportError('load_onnx needs the onnx package: pip install "systolic[onnx]"') from error
    name = path_text(path)
    model = onnx.ModelProto()
    try:
        # onnx.load guesses a text format from some suffixes; the content decides here.
        model.ParseFromString(_content(name))
        if not model.graph.node and not model.graph.output:
            raise DecodeError("it holds no graph")
    except DecodeError as error:
        raise ValueError(f"{name} is not an ONNX model, or is truncated: {error}") from error
    try:
        model = inline(model)
        check_model(model)
        read_external(model, os.path.dirname(name))
        check_standard(model)
    except UnsupportedOperator as error:
        raise UnsupportedOperator(f"{name}: {error}") from error
    except (onnx.checker.ValidationError, ValueError) as error:
        text = " ".join(str(error).split())
        raise ValueError(f"{name} is not a valid ONNX model: {text}") from error
    return model


def check_standard(model: Any) -> None:
    """Let the onnx package check a model, except that outputs need not declare a shape.

    Exporters leave it out where they cannot tell even the rank, and nothing here depends on it.
    """
    import onnx

    bare = [
        output.type.tensor_type
        for output in model.graph.output
        if output.type.WhichOneof("value") == "tensor_type" and not output.type.tensor_type.HasField("shape")
    ]
    for tensor in bare:
        tensor.shape.SetInParent()
    onnx.checker.check_model(model)
    for tensor in bare:
        tensor.ClearField("shape")


def _content(name: str) -> bytes:
    status = check_plain(name, "load_onnx reads one .onnx file")
    if status.st_size > _MOST_BYTES:
        raise ValueError(
            f"{name} has {status.st_size:,} bytes, and an ONNX file has at most {_MOST_BYTES:,}; larger "
            "models keep their weights in external data files"
        )
    with open(name, "rb") as file:
        return file.read()


def _operator(node: Any, graph: Graph) -> Operator:
    from onnx import helper

    try:
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    except ValueError as error:
        raise ValueError(f"node {label(node)!r} ({node.op_type}): {error}") from error
    return Operator(
        label=label(node),
        op_type=node.op_type,
        inputs=tuple(node.input),
        outputs=tuple(node.output),
        attributes=attributes,
        graph=graph,
        domain=domain_of(node),
        captured=captured(node),
        proto=node,
    )


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
        return TensorSpec(sizes, dtype, _symbols(value))
    except ValueError as error:
        raise ValueError(f"input {value.name!r}: {error}") from error


def _symbols(value: Any) -> tuple[str | None, ...]:
    """Return the names of symbolic sizes; what is no name ("?", "-1") says nothing."""
    names = [d.dim_param for d in value.type.tensor_type.shape.dim]
    return tuple(name if name.isidentifier() and name != "None" else None for name in names)


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


def _hint(value: Any) -> tuple[str | None, Sizes | None]:
    """Return what :func:`_declared` does, sizes that cannot be as unknown."""
    dtype, sizes = _declared(value)
    return dtype, sizes and tuple(None if size is None or size < 0 else size for size in sizes)
