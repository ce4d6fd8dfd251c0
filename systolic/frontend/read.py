"""Read an ONNX file into a ``Graph``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from systolic._files import check_plain, path_text
from systolic.frontend.check import captured, check_model, domain_of, label, sort_nodes, tensors, where
from systolic.frontend.external import read_external, set_apart
from systolic.frontend.functions import inline
from systolic.frontend.notes import read_notes, restored
from systolic.frontend.operators import Graph, Operator, Sizes, UnsupportedOperator
from systolic.layers.host.subgraphs import inner_names
from systolic.model import DTYPES, TensorSpec

# What protobuf can hold in one message.
MOST_BYTES = 2**31 - 1


def read(path: str | os.PathLike[str], missing: list[str] | None = None) -> Graph:
    """Return the graph of an ONNX file, with nothing interpreted; errors as for ``load_onnx``.

    Initializers whose data is missing are zeros if there is a list for their names, and an error otherwise.
    """
    model, external = _load(path, missing)
    try:
        return graph_of(model, Path(path).stem, external)
    except UnsupportedOperator as error:
        raise UnsupportedOperator(f"{os.fspath(path)}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error


def graph_of(model: Any, name: str, external: Mapping[str, np.ndarray] = MappingProxyType({})) -> Graph:
    """Return the graph of a ModelProto that was checked.

    `name` is used if the graph has none, `external` holds the initializers whose data is in other files.
    """
    source, notes = model.graph, read_notes(model)
    constants = {
        tensor.name: external[tensor.name] if tensor.name in external else _array(tensor)
        for tensor in source.initializer
    }
    inputs = [value for value in source.input if value.name not in constants]
    nodes, parameters = source.node, constants
    if notes is not None:
        nodes = restored(nodes, [value.name for value in source.output], notes)
        parameters = {tensor: constants[tensor] for tensor in constants.keys() - set(notes.constants)}
    graph = Graph(
        name="" if notes is not None and notes.unnamed else source.name or name,
        operators=[],
        inputs={value.name: _spec(value, any_symbol=notes is not None) for value in inputs},
        outputs=tuple(value.name for value in source.output),
        constants=constants,
        parameters=parameters,
        noted=notes is not None,
        opsets={domain_of(entry): entry.version for entry in model.opset_import},
        declared={value.name: declared(value) for value in (*source.value_info, *source.output)},
        initializers=set(constants),
        runtime={} if notes is None else notes.runtime,
        computed_in={} if notes is None else notes.compute,
        joined={} if notes is None else notes.joined,
    )
    graph.operators += [_operator(node, graph) for node in nodes]
    graph.names |= {*constants, *graph.inputs, *graph.outputs, *graph.declared}
    for node in nodes:
        graph.names |= {*node.input, *node.output, *captured(node), *inner_names(node)}
    return graph


def _load(
    path: str | os.PathLike[str], missing: list[str] | None
) -> tuple[Any, dict[str, np.ndarray]]:
    """Return the model of a file, and its initializers that are in other files."""
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
        sort_nodes(model.graph)
        if missing is not None:
            set_apart(model)
        check_model(model)
        external = read_external(model, os.path.dirname(name), missing)
        check_standard(model)
    except UnsupportedOperator as error:
        raise UnsupportedOperator(f"{name}: {error}") from error
    except (onnx.checker.ValidationError, ValueError) as error:
        text = " ".join(str(error).split())
        raise ValueError(f"{name} is not a valid ONNX model: {text}") from error
    except MemoryError as error:
        raise MemoryError(f"{name}: {error}") from error
    return model, external


def check_standard(model: Any) -> None:
    """Let the onnx package check a model, except for rules that nothing here depends on.

    Outputs need not declare a shape: exporters omit it where not even the rank is known. Data in other
    files is not checked, since it may exceed what a message can hold. Initializers need not be inputs
    as well, as version 3 of the format requires.
    """
    import onnx

    bare = [
        value.type.tensor_type
        for value in (*model.graph.input, *model.graph.output)
        if value.type.WhichOneof("value") == "tensor_type" and not value.type.tensor_type.HasField("shape")
    ]
    outside = [t for _, t in tensors(model.graph) if t.data_location == onnx.TensorProto.EXTERNAL]
    kept = [type(tensor).FromString(tensor.SerializeToString()) for tensor in outside]
    version = model.ir_version
    for tensor_type in bare:
        tensor_type.shape.SetInParent()
    for tensor in outside:
        name, kind = tensor.name, tensor.data_type
        tensor.Clear()
        tensor.name, tensor.data_type, tensor.dims[:] = name, kind, [0]
    model.ir_version = 4 if version == 3 else version
    onnx.checker.check_model(model)
    model.ir_version = version
    for tensor_type in bare:
        tensor_type.ClearField("shape")
    for tensor, whole in zip(outside, kept, strict=True):
        tensor.CopyFrom(whole)


def _content(name: str) -> bytes:
    status = check_plain(name, "load_onnx reads one .onnx file")
    if status.st_size > MOST_BYTES:
        raise ValueError(
            f"{name} has {status.st_size:,} bytes, and an ONNX file has at most {MOST_BYTES:,}; larger "
            "models keep their weights in external data files"
        )
    with open(name, "rb") as file:
        return file.read()


def _operator(node: Any, graph: Graph) -> Operator:
    from onnx import helper

    try:
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    except ValueError as error:
        raise ValueError(f"{where(node)}: {error}") from error
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


def _spec(value: Any, *, any_symbol: bool) -> TensorSpec:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise ValueError(f"input {value.name!r} is not a tensor but a {kind or 'value without a type'}")
    dtype, sizes = declared(value)
    if dtype not in DTYPES:
        held = dtype or f"type {value.type.tensor_type.elem_type}"
        raise ValueError(f"input {value.name!r} holds {held}; supported are {', '.join(DTYPES)}")
    if sizes is None:
        raise ValueError(f"input {value.name!r} has no shape; declare one, symbolic sizes are allowed")
    try:
        return TensorSpec(sizes, dtype, _symbols(value, any_symbol))
    except ValueError as error:
        raise ValueError(f"input {value.name!r}: {error}") from error


def _symbols(value: Any, any_symbol: bool) -> tuple[str | None, ...]:
    """Return the names of symbolic sizes; None for text that is no name ("?", "-1"), unless any text is."""
    names = [d.dim_param for d in value.type.tensor_type.shape.dim]
    return tuple(
        name if name and (any_symbol or (name.isidentifier() and name != "None")) else None for name in names
    )


def declared(value: Any) -> tuple[str | None, Sizes | None]:
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
    # Some exporters write -1 for an unnamed size, and ONNX Runtime takes any negative one for it.
    known = (d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else None for d in tensor.shape.dim)
    return dtype, tuple(known)
