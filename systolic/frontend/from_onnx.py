"""Reads a quantized ONNX graph as a ``Model``.

``operators.OPERATORS`` is a table of converters, one per operator; a graph is refused as a whole,
before anything is converted, if it has an operator that the table lacks.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from systolic._check import shape as shape_text
from systolic.frontend.operators import OPERATORS, Converter, Operator, UnsupportedOperator
from systolic.layers import HostLayer
from systolic.model import Model, Node, TensorSpec

__all__ = ["UnsupportedOperator", "load_onnx"]

# Domains that mean the standard operator set.
_STANDARD = ("", "ai.onnx")


def load_onnx(path: str | os.PathLike[str]) -> Model:
    """Read a quantized ONNX model.

    Parameters
    ----------
    path : path
        A ``.onnx`` file. Needs ``pip install "systolic[onnx]"``.

    Returns
    -------
    Model
        Initializers become layers' weights and parameters. The batch, axis 0 of an input, may be
        symbolic; the model then takes any.

    Raises
    ------
    UnsupportedOperator
        If a node's operator, or a use of it, is not supported: names the node, the operator and
        what is supported, before anything runs.
    ValueError
        If the file is not an ONNX model, is damaged, or has dynamic sizes beyond the batch.
    FileNotFoundError
        If there is no such file.
    ImportError
        If the onnx package is missing.

    Notes
    -----
    Supported are the operators that ONNX Runtime's quantizer writes in its QOperator form
    (``systolic.frontend.operators.OPERATORS`` lists them); they have ONNX Runtime's arithmetic.

    Examples
    --------
    >>> import systolic
    >>> from systolic.example import DATA
    >>> systolic.load_onnx(DATA / "digits.onnx")
    <Model 'digits': 14 layers, pixels (?, 1, 8, 8) float32 -> logits>
    """
    graph = _read(path)
    if any(_key(node) not in OPERATORS for node in graph.node):
        raise UnsupportedOperator(_refusal(graph, os.fspath(path)))
    return _convert(graph, Path(path).stem)


def _read(path: str | os.PathLike[str]) -> Any:
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
    return model.graph


def _key(node: Any) -> tuple[str, str]:
    return ("" if node.domain in _STANDARD else node.domain, node.op_type)


def _label(node: Any) -> str:
    return node.name or (node.output[0] if node.output else node.op_type)


def _refusal(graph: Any, path: str) -> str:
    found = [
        f"node {_label(node)!r} is a {node.domain + '.' if node.domain else ''}{node.op_type}"
        for node in graph.node
        if _key(node) not in OPERATORS
    ]
    shown = "; ".join(found[:5]) + (f"; and {len(found) - 5} more" if len(found) > 5 else "")
    known = ", ".join(sorted(name for _, name in OPERATORS))
    hint = ""
    if any(node.op_type in ("Conv", "MatMul", "Gemm") for node in graph.node):
        hint = (
            " It holds float operators: quantize it first, for example with onnxruntime.quantization."
            "quantize_static(..., quant_format=QuantFormat.QOperator)."
        )
    return f"{path}: {shown}. Supported are: {known}.{hint}"


def _convert(graph: Any, name: str) -> Model:
    constants = {tensor.name: _array(tensor) for tensor in graph.initializer}
    inputs = {value.name: _spec(value) for value in graph.input if value.name not in constants}
    dtypes = {tensor: array.dtype.name for tensor, array in constants.items()}
    dtypes |= {tensor: spec.dtype for tensor, spec in inputs.items()}
    nodes: list[Node] = []
    for node in graph.node:
        operator = Operator(
            label=_label(node),
            op_type=node.op_type,
            inputs=tuple(node.input),
            outputs=tuple(node.output),
            attributes=_attributes(node),
            constants=constants,
            dtypes=dtypes,
        )
        converted = _convert_node(OPERATORS[_key(node)], operator)
        if isinstance(converted, Node):
            nodes.append(converted)
            dtypes[converted.output] = converted.layer.output_dtype(*(dtypes[t] for t in converted.inputs))
        else:
            constants[operator.outputs[0]] = converted
            dtypes[operator.outputs[0]] = converted.dtype.name
    outputs = tuple(value.name for value in graph.output)
    read = {tensor for node in nodes for tensor in node.inputs} | set(outputs)
    model = Model(
        nodes,
        inputs=inputs,
        outputs=outputs,
        constants={tensor: array for tensor, array in constants.items() if tensor in read},
        name=graph.name or name,
    )
    model.trace(model.input_shapes())
    return model


def _convert_node(convert: Converter, operator: Operator) -> Node | np.ndarray:
    """Return a node's layer, or its value if it reads constants alone; errors name the node."""
    try:
        if not operator.outputs or not operator.outputs[0]:
            raise ValueError("it has no output")
        converted = convert(operator)
        if isinstance(converted, np.ndarray):
            return converted
        layer, tensors = converted
        node = Node(layer, tensors, operator.outputs[0], operator.label)
        layer.output_dtype(*(operator.dtypes[tensor] for tensor in tensors))
        if isinstance(layer, HostLayer) and all(tensor in operator.constants for tensor in tensors):
            return layer.apply(*(operator.constants[tensor] for tensor in tensors))
        return node
    except UnsupportedOperator:
        raise
    except (TypeError, ValueError, KeyError, IndexError, OverflowError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"node {operator.label!r} ({operator.op_type}): {error}") from error


def _array(tensor: Any) -> np.ndarray:
    from onnx import numpy_helper

    try:
        return numpy_helper.to_array(tensor)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"initializer {tensor.name!r} cannot be read: {error}") from error


def _spec(value: Any) -> TensorSpec:
    from onnx import helper

    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise ValueError(f"input {value.name!r} is not a tensor but a {kind or 'value without a type'}")
    tensor = value.type.tensor_type
    try:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
    except (KeyError, TypeError):
        dtype = f"type {tensor.elem_type}"
    if dtype not in ("float32", "int8", "uint8", "int32"):
        raise ValueError(f"input {value.name!r} holds {dtype}; supported are float32, int8, uint8 and int32")
    sizes: list[int | None] = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    if None in sizes[1:]:
        raise ValueError(
            f"input {value.name!r} has the dynamic shape {shape_text(sizes)}; only the batch, axis 0, may be "
            "symbolic: fix the others, for example with onnxruntime.tools.make_dynamic_shape_fixed"
        )
    return TensorSpec(tuple(sizes), dtype)


def _attributes(node: Any) -> dict[str, Any]:
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
