"""Reads a quantized ONNX graph as a ``Model``: read, rewrite, convert.

``read`` turns the file into a ``Graph`` of our own records, ``qdq`` changes that, and the records of
``layers.table`` make layers of it. A graph is refused as a whole, before anything is converted, if it has an
operator that is not supported.
"""

from __future__ import annotations

import math
import os

import numpy as np

from systolic import _check
from systolic._memory import available_bytes
from systolic._text import printable_errors
from systolic.formats import dtype_of
from systolic.frontend.operators import (
    OPERATORS,
    Converter,
    Graph,
    Operator,
    UnsupportedOperator,
    find,
)
from systolic.frontend.operators.delegated import evaluated
from systolic.frontend.qdq import join_noted, to_integers
from systolic.frontend.qdq.as_if import AS_IF, has_float_products, quantize_as_if
from systolic.frontend.read import read
from systolic.layers import ArrayLayer, HostLayer, Layer
from systolic.layers.base import UnknownShape
from systolic.layers.float_products import COMPUTE, RoundedProduct, on_array
from systolic.layers.host.subgraphs import subgraphs
from systolic.layers.record import DELEGATE
from systolic.model import Model, Node, TensorSpec

__all__ = ["UnsupportedOperator", "load_onnx"]

# What operators on constants may make while loading: so many bytes, and so many times the initializers'.
_ROOM = 2**26
_GROWTH = 4


@printable_errors
def load_onnx(
    path: str | os.PathLike[str],
    qdq: str = "integer",
    *,
    float_products: str = "runtime",
    compute: str | None = None,
    costs_only: bool = False,
) -> Model:
    """Read a quantized ONNX model.

    Parameters
    ----------
    path : path
        A ``.onnx`` file. Needs ``pip install "systolic[onnx]"``.
    qdq : {"integer", "float"}
        What float operators between DequantizeLinear and QuantizeLinear mean. "integer": one integer
        operator for each group that ONNX Runtime replaces by one, with its arithmetic; the products
        run on the array. "float": compute operators as written, in float32, on the host. A file of
        ``save_onnx`` says itself which holds.
    float_products : {"runtime", "exact"}
        Who computes Conv, Gemm and MatMul of float32, which run on the host. "runtime": ONNX Runtime where
        it is installed, with the bits of a deployed model, which depend on the processor. "exact": this
        package, in float64 and rounded once, with the same bits on every machine.
    compute : {"bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"}, optional
        Run Conv, Gemm and MatMul of float32 on the array instead, with operands rounded to this format
        (:class:`~systolic.layers.ArrayMatMul`, :class:`~systolic.layers.ArrayConv`). Needs
        ``pip install "systolic[formats]"``. None: on the host, or as a file of ``save_onnx`` says.
    costs_only : bool
        Read a model that is only costed, and refuses to run. Where the data of its weights is missing, they
        are zeros. A model of floats is read as if it had been quantized to int8, with made-up scales, as ONNX
        Runtime's tool does it in the QDQ form; batch normalizations are folded first. Its ``note`` says so.
        One that needs none of this is read as always.

    Returns
    -------
    Model
        Initializers become layers' weights and parameters, also those that the file lists among its
        inputs: other values cannot be fed. Sizes of an input may be symbolic; the model then takes any.

    Raises
    ------
    UnsupportedOperator
        If a node's operator, or a use of it, is not supported: names the node, the operator and
        what is supported, before anything runs.
    ValueError
        If the file is not an ONNX model or is damaged, or a node does not take what reaches it, or
        `qdq` or `float_products` is neither; if `compute` is no format, or the model has no product for it.
    MemoryError
        If it needs more memory than is available.
    FileNotFoundError
        If there is no such file.
    ImportError
        If the onnx package is missing, or ml_dtypes with `compute`.

    Notes
    -----
    Supported are the operators that ONNX Runtime's quantizer writes, in its QOperator and its QDQ form
    (``docs/operators.md`` lists them); they have ONNX Runtime's arithmetic. Any other
    operator of the ONNX standard or of com.microsoft, and those with subgraphs (If, Loop, Scan), runs
    on the host in ONNX Runtime, node by node (:class:`~systolic.layers.OnnxNode`). If ONNX Runtime is
    missing or lacks the operator, onnx's reference evaluator computes it, but only uses that were compared
    with ONNX Runtime; the rest is refused. Functions of the model are written out. Not supported are
    sequences, optionals, text, sparse tensors, and types that numpy lacks (bfloat16, float8);
    int4 and uint4 in constants alone.

    With ``qdq="integer"`` a model equals ONNX Runtime 1.32 on its CPU provider in every bit, with all
    optimizations and these session options, if all its groups are replaced (``systolic/frontend/qdq``):

    - ``session.qdqisint8allowed=1``: else int8 groups become uint8 ones, or stay in float;
    - ``session.disable_double_qdq_remover=1``: else Q, DQ, Q, DQ are merged into one pair;
    - ``session.qdq_matmulnbits_accuracy_level=1``: else floats that meet quantized weights are quantized too.

    With ``qdq="float"`` it equals ONNX Runtime with optimizations disabled in every bit. Neither holds
    after float operators that sum, since ONNX Runtime sums in an order of its own, or that no standard
    rounds (Sigmoid, Softmax): those agree within a few roundings of float32, and codes quantized from them
    may differ by one. With "integer" this concerns operators that are not replaced, such as a Conv, MatMul
    or AveragePool whose output two quantizers or other operators read.

    A Conv, Gemm or MatMul of float32 that ONNX Runtime computes here, on one thread, has the bits that it
    has in the whole model, unless it is fused with operators behind it there. With "float" this holds for
    Gemm and MatMul: without optimizations, ONNX Runtime convolves in another order. Constant weights are
    packed when a node first runs, and held twice from then on. Weights computed from others that are too
    large to be kept are computed and packed in every run.

    With `compute`, everything but the products stays in float32 on the host. So do products of constants
    alone, and ONNX Runtime's FusedConv and FusedGemm with an activation or a second sum.

    Examples
    --------
    >>> import systolic
    >>> from systolic.example import DATA
    >>> systolic.load_onnx(DATA / "digits.onnx")
    <Model 'digits': 14 layers, pixels (?, 1, 8, 8) float32 -> logits>
    """
    _check.choice(qdq, "qdq", ("integer", "float"))
    _check.choice(float_products, "float_products", ("runtime", "exact"))
    if compute is not None:
        dtype_of(_check.choice(compute, "compute", COMPUTE))  # before the file is read
    _check.flag(costs_only, "costs_only")
    missing: list[str] | None = [] if costs_only else None
    graph = read(path, missing)
    graph.optimized = qdq == "integer"
    if compute is not None:
        graph.compute, graph.computed_in = compute, {}
    if float_products == "exact":
        graph.runtime = None
    notes = []
    is_float = costs_only and graph.optimized and compute is None and has_float_products(graph)
    if is_float and quantize_as_if(graph):
        notes.append(AS_IF)
    if missing:
        plural = "" if len(missing) == 1 else "s"
        notes.append(f"costed without the data of {len(missing):,} tensor{plural}, which is missing")
    if graph.optimized and not graph.noted:
        to_integers(graph)
    model = model_of(graph, os.fspath(path))
    model.note = "; ".join(notes)
    if compute is not None:
        _expect_rounded(model, compute)
    return model


def _expect_rounded(model: Model, compute: str) -> None:
    """Raise ValueError if no product of a model runs in the format that was asked for."""
    if any(isinstance(node.layer, RoundedProduct) for node in model.nodes):
        return
    kinds = list(dict.fromkeys(n.layer.kind for n in model.nodes if isinstance(n.layer, ArrayLayer)))
    others = f"; on the array are {', '.join(kinds)}, of integers" if kinds else ""
    raise ValueError(
        f"compute={compute!r} is for Conv, Gemm and MatMul of float32, and the model has none{others}; "
        "leave compute out"
    )


def model_of(graph: Graph, path: str) -> Model:
    """Convert a graph; `path` is for messages, errors as for :func:`load_onnx`."""
    join_noted(graph)
    converters = [find(operator) for operator in graph.operators]
    unknown = [op for op, converter in zip(graph.operators, converters, strict=True) if converter is None]
    if unknown:
        raise UnsupportedOperator(_refusal(graph, unknown, path))
    try:
        return _convert(graph, [converter for converter in converters if converter is not None])
    except (TypeError, ValueError, MemoryError) as error:
        # numpy's own kinds take other arguments.
        kinds = (UnsupportedOperator, MemoryError, TypeError, ValueError)
        raise next(kind for kind in kinds if isinstance(error, kind))(f"{path}: {error}") from error


def _refusal(graph: Graph, unknown: list[Operator], path: str) -> str:
    found = [f"node {op.label!r} is a {op.domain + '.' if op.domain else ''}{op.op_type}" for op in unknown]
    shown = "; ".join(found[:5]) + (f"; and {len(found) - 5} more" if len(found) > 5 else "")
    domains = sorted({op.domain for op in unknown})
    about = []
    for domain in domains:
        known = ", ".join(sorted(name for of, name in OPERATORS if of == domain))
        version = graph.opsets.get(domain)
        if not domain:
            about.append(f"the standard operator set {version} has none of that name")
        elif known:
            about.append(f"of {domain}, supported are {known}")
        else:
            about.append(f"nothing is known of the domain {domain}")
    return (
        f"{path}: {shown}. Here {'; '.join(about)}. Export the model without it, write it out in standard "
        "operators, or make it a function of the model (onnx.helper.make_function)"
    )


def _batched(spec: TensorSpec) -> bool:
    """Whether an input's sizes are known but for a batch; the open length of a vector may be anything."""
    return None not in (spec.shape[1:] if len(spec.shape) > 1 else spec.shape)


def _convert(graph: Graph, converters: list[Converter]) -> Model:
    for tensor, array in graph.constants.items():
        graph.put(tensor, array)
    for tensor, spec in graph.inputs.items():
        graph.dtypes[tensor], graph.shapes[tensor] = spec.dtype, spec.shape
    nodes: list[Node] = []
    size = sum(array.nbytes for array in graph.constants.values())
    budget = None if graph.noted else _Budget(_ROOM + _GROWTH * size)
    for operator, converter in zip(graph.operators, converters, strict=True):
        nodes += _convert_operator(operator, converter, budget)
    kept = graph.constants.keys() - graph.parameters.keys() if graph.noted else set(graph.outputs)
    kept |= {tensor for node in nodes for tensor in node.inputs}
    model = Model(
        nodes,
        inputs=graph.inputs,
        outputs=graph.outputs,
        constants={tensor: array for tensor, array in graph.constants.items() if tensor in kept},
        name=graph.name,
    )
    # Where no size but the batch is open, what does not fit together is found out now.
    if all(_batched(spec) for spec in graph.inputs.values()):
        model.infer_shapes(model.input_shapes())
    return model


class _Budget:
    """Bytes left for computed constants while loading: a file of a few bytes may ask for any number."""

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self, size: int) -> bool:
        """Take `size` bytes; False if fewer are left."""
        if size > self.left:
            return False
        self.left -= size
        return True


def _convert_operator(operator: Operator, convert: Converter, budget: _Budget | None) -> list[Node]:
    """Return an operator's nodes; within the budget, those that read only constants become constants.

    Errors name the node.
    """
    try:
        if not any(operator.outputs):
            raise ValueError("it has no output")
        converted = convert(operator)
        if converted is DELEGATE:
            converted = evaluated(operator)
        if _folds(operator):
            operator.graph.initializers.update(operator.outputs)
        if isinstance(converted, np.ndarray):
            operator.graph.put(operator.outputs[0], converted)
            return []
        if isinstance(converted, tuple):
            layer, tensors = converted
            converted = [Node(layer, tensors, _outputs(layer, operator), operator.label)]
        # A subgraph may run for ever.
        if operator.proto is not None and any(subgraphs(operator.proto)):
            budget = None
        converted = [_placed(operator, node) for node in converted]
        return [node for node in converted if not _becomes_constant(operator.graph, node, budget)]
    except (UnsupportedOperator, ImportError):
        raise
    except Exception as error:
        # A damaged file may raise anything: each operator fails in its own way.
        kinds = (kind for kind in (TypeError, MemoryError) if isinstance(error, kind))
        kind = next(kinds, ValueError)
        text = str(error) if isinstance(error, (kind, LookupError)) else f"{type(error).__name__}: {error}"
        raise kind(f"node {operator.label!r} ({operator.op_type}): {text}") from error


def _placed(operator: Operator, node: Node) -> Node:
    """Return a node, or the product of float32 that it is on the array, if it is to run there."""
    graph = operator.graph
    if operator.compute is None or any(graph.dtypes[tensor] != "float32" for tensor in node.inputs):
        return node
    if not graph.noted and graph.constants.keys() >= set(node.inputs):
        return node
    layer = on_array(node.layer, operator.compute)
    return node if layer is None else Node(layer, node.inputs, node.outputs, node.name)


def _folds(operator: Operator) -> bool:
    """Whether ONNX Runtime makes constants of an operator's outputs before it runs the graph."""
    if operator.op_type == "Constant":
        return True
    read = filter(None, (*operator.inputs, *operator.captured))
    # It keeps DequantizeLinear, to find groups of operators to quantize.
    foldable = operator.graph.optimized and operator.op_type != "DequantizeLinear"
    return foldable and operator.graph.initializers.issuperset(read)


def _outputs(layer: Layer, operator: Operator) -> tuple[str, ...]:
    """Return a name for each of the layer's outputs, "" for those that the graph leaves out."""
    names = operator.outputs
    if layer.outputs is None:
        return names
    beyond = [name for name in names[layer.outputs :] if name]
    if beyond:
        raise operator.refuse(f"the output {beyond[0]!r} is not supported")
    return (*names, *[""] * layer.outputs)[: layer.outputs]


def _becomes_constant(graph: Graph, node: Node, budget: _Budget | None) -> bool:
    """Evaluate a node that reads only constants, if its outputs fit the budget; return whether it was.

    Record dtypes and shapes of its outputs in the graph either way.
    """
    layer = node.layer
    dtypes = node.named(layer.output_dtype(*(graph.dtypes[tensor] for tensor in node.inputs)))
    graph.dtypes |= dtypes
    values = [graph.constants.get(tensor) for tensor in node.inputs]
    shapes = []
    for sizes in (graph.shapes.get(tensor) for tensor in node.inputs):
        if sizes is None or None in sizes:
            return False
        shapes.append(tuple(size for size in sizes if size is not None))
    try:
        found = node.named(layer.output_shape_from(values, *shapes))
    except UnknownShape:
        return False
    known = [value for value in values if value is not None]
    graph.shapes |= found
    if isinstance(layer, HostLayer) and len(known) == len(values) and budget is not None:
        size = sum(math.prod(found[name]) * np.dtype(dtypes[name]).itemsize for name in found)
        if not budget.take(size):
            there = available_bytes()
            if there is not None and size > there:
                raise ValueError(
                    f"it makes {size:,} bytes of constants alone, and {there:,} are available; give what it "
                    "reads as an input"
                )
            # Keep the small constants, such as int8 weights; each run computes the large ones from them.
            return False
        for tensor, array in node.named(layer.evaluate_constants(*known)).items():
            graph.put(tensor, array)
        return True
    return False
