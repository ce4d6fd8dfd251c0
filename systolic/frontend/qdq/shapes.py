"""Infer the shapes of a graph before it is converted, by the onnx package."""

from __future__ import annotations

import numpy as np

from systolic.frontend.operators import Graph, Sizes
from systolic.frontend.read import declared
from systolic.layers.host.evaluator import inferred

_DATA_LIMIT = 64
"""Constants of no more numbers are given with their values: they may be shapes."""

# Processor time for the whole graph: some hundred times the usual need.
_SECONDS, _SECONDS_PER_NODE = 1.0, 1e-3


def infer_shapes(graph: Graph) -> dict[str, Sizes]:
    """Return the shapes that follow from inputs, constants and the operators that the file holds.

    Operators without a proto, which a rewrite made, are passed over.
    """
    import onnx
    from onnx import helper, numpy_helper

    def value(name: str, dtype: np.dtype, sizes: Sizes) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), sizes)

    inputs = [value(name, np.dtype(spec.dtype), spec.shape) for name, spec in graph.inputs.items()]
    inputs += [value(name, array.dtype, array.shape) for name, array in graph.constants.items()]
    small = [
        numpy_helper.from_array(array, name)
        for name, array in graph.constants.items()
        if array.size <= _DATA_LIMIT
    ]
    nodes = [op.proto for op in graph.operators if op.proto is not None]
    outputs = [onnx.ValueInfoProto(name=name) for name in graph.outputs]
    model = helper.make_model(
        helper.make_graph(nodes, "shapes", inputs, outputs, small),
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in graph.opsets.items()],
    )
    seconds = _SECONDS + _SECONDS_PER_NODE * len(nodes)
    try:
        known_graph = inferred(model, seconds, "onnx's shape inference", strict=False).graph
    except ValueError:
        return {}  # conversion finds what is wrong, and says where
    values = (*known_graph.value_info, *known_graph.output, *known_graph.input)
    found = {known.name: declared(known)[1] for known in values}
    return {name: sizes for name, sizes in found.items() if sizes is not None}
