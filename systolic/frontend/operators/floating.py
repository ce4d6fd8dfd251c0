"""Converters of operators on numbers of any type: arithmetic, activations, pools, sums, float products."""

from __future__ import annotations

import math

import numpy as np

from systolic import layers
from systolic.frontend.operators._operator import Converted, Converter, Operator
from systolic.frontend.operators.array import conv_rank, conv_window
from systolic.frontend.operators.delegated import evaluated
from systolic.layers.host.arithmetic import BINARY, FLOATS, INTEGERS, UNARY
from systolic.layers.host.normalize import REDUCE
from systolic.model import DTYPES, Node

# What the layers for codes take; other types have layers of their own.
_PLAIN_TYPES = ("float32", "int32", "int8", "uint8")


def _relu(op: Operator) -> Converted:
    op.only()
    if op.dtypes[op.inputs[0]] not in _PLAIN_TYPES:
        return layers.Clip(0.0 if op.dtypes[op.inputs[0]] in FLOATS else 0), op.inputs[:1]
    return layers.Relu(), op.inputs[:1]


def _unary(op: Operator) -> Converted:
    op.only()
    return layers.Unary(op.op_type), op.inputs[:1]


def _gelu(op: Operator) -> Converted:
    op.only("approximate")
    approximate = op.attribute("approximate", "none")
    if approximate not in ("none", "tanh"):
        raise op.refuse(f"approximate {approximate!r}; supported are 'none' and 'tanh'")
    return layers.Unary("GeluTanh" if approximate == "tanh" else "Gelu"), op.inputs[:1]


def _binary(op: Operator) -> Converted:
    op.only()
    if op.op_type == "Add" and {op.dtypes[name] for name in op.inputs[:2]} <= set(_PLAIN_TYPES):
        return layers.Add(), op.inputs[:2]
    return layers.Binary(op.op_type), op.inputs[:2]


def _many(op: Operator) -> Converted:
    """Max and Min of any number of tensors, two by two."""
    op.only()
    if len(op.inputs) == 1:
        return layers.Identity(), op.inputs
    nodes, last = [], op.inputs[0]
    for number, name in enumerate(op.inputs[1:], 1):
        output = op.outputs[0] if number == len(op.inputs) - 1 else op.fresh(f"/{number}")
        nodes.append(Node(layers.Binary(op.op_type), (last, name), output, op.label))
        last = output
    return nodes


def _clip(op: Operator) -> Converted:
    """Return the layer, or Max and Min if bounds are computed.

    An omitted bound is the type's largest or smallest number, so infinity becomes that, as in ONNX Runtime.
    """
    op.only("min", "max")
    given = [(1, "Max"), (2, "Min")]
    dtype = op.dtypes[op.inputs[0]]
    ends: list[float | None] = [None, None]
    if dtype in FLOATS:
        ends = [float(np.finfo(dtype).min), float(np.finfo(dtype).max)]
    if op.opset < 11 or not op.computed(1, 2):
        bounds = [op.attributes.get(name, end) for name, end in zip(("min", "max"), ends, strict=True)]
        for index, _ in given:
            if op.has(index):
                bounds[index - 1] = _number(op.constants[op.inputs[index]], ("min", "max")[index - 1])
        # An infinite bound has no effect.
        low, high = (None if bound == end else bound for bound, end in zip(bounds, _INFINITE, strict=True))
        return layers.Clip(low, high), op.inputs[:1]
    nodes, last = [], op.inputs[0]
    for index, operation in given:
        output = op.outputs[0] if index == 2 else op.fresh("/low")
        if op.has(index):
            nodes.append(Node(layers.Binary(operation), (last, op.inputs[index]), output, op.label))
        else:
            end = {"low": ends[0]} if index == 1 else {"high": ends[1]}
            nodes.append(Node(layers.Clip(**end), (last,), output, op.label))
        last = output
    return nodes


def _number(value: np.ndarray, name: str) -> int | float:
    if value.size != 1:
        raise ValueError(f"{name} must be one number, not {value.size}")
    return value.reshape(-1)[0].item()


def _cast(op: Operator) -> Converted:
    from onnx import helper

    op.only("to", "saturate", "round_mode")
    try:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(op.attribute("to", 0))).name
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"attribute to must name a type, not {op.attribute('to', 0)}") from None
    if dtype not in DTYPES:
        raise op.refuse(f"a cast to {dtype}; supported are {', '.join(DTYPES)}")
    return layers.Cast(dtype), op.inputs[:1]


def _softmax(op: Operator) -> Converted:
    op.only("axis")
    if op.opset < 13:
        return layers.Softmax(op.attribute("axis", 1), flatten=True), op.inputs[:1]
    return layers.Softmax(op.attribute("axis", -1)), op.inputs[:1]


def _reduce(op: Operator) -> Converted:
    op.only("axes", "keepdims", "noop_with_empty_axes")
    computed = op.computed(1)
    axes = None if computed else op.listed("axes", 1)
    if op.attribute("noop_with_empty_axes", 0):
        if computed:
            return evaluated(op)
        if not axes:
            return layers.Identity(), op.inputs[:1]
    if op.op_type == "ReduceMean" and op.dtypes[op.inputs[0]] not in FLOATS:
        return evaluated(op)
    if op.dtypes[op.inputs[0]] == "bool":
        return evaluated(op)
    layer = layers.Reduce(op.op_type, axes or None, keepdims=bool(op.attribute("keepdims", 1)))
    return layer, op.inputs[: 2 if computed else 1]


def _layer_normalization(op: Operator) -> Converted:
    op.only("axis", "epsilon", "stash_type")
    if op.attribute("stash_type", 1) != 1 or op.dtypes[op.inputs[0]] not in ("float32", "float16"):
        return evaluated(op)
    layer = layers.LayerNormalization(op.attribute("axis", -1), op.attribute("epsilon", 1e-5))
    return layer, op.given


def _batch_normalization(op: Operator) -> Converted:
    op.only("epsilon", "momentum", "spatial", "training_mode")
    # Before opset 14 a node with further outputs is in training mode.
    training = op.attribute("training_mode", 0) or any(op.outputs[1:])
    rank = op.shape(0)
    if training or {op.dtypes[name] for name in op.inputs} != {"float32"} or (rank and len(rank) < 2):
        return evaluated(op)
    return layers.BatchNormalization(op.attribute("epsilon", 1e-5)), op.inputs[:5]


def _runtime_constants(op: Operator) -> tuple[int, ...] | None:
    """Return the inputs that are constant for ONNX Runtime, None if it is not to compute the product."""
    graph, read = op.graph, op.given
    if graph.runtime is None or any(graph.dtypes[name] != "float32" for name in read):
        return None
    if graph.noted:
        numbers = graph.runtime.get(op.outputs[0])
        return None if numbers is None else tuple(numbers)
    return tuple(i for i, name in enumerate(read) if name in graph.initializers)


def _matmul(op: Operator) -> Converted:
    op.only()
    return layers.FloatMatMul(runtime_constants=_runtime_constants(op)), op.inputs[:2]


def _gemm(op: Operator) -> Converted:
    op.only("alpha", "beta", "transA", "transB")
    alpha, beta = op.attribute("alpha", 1.0), op.attribute("beta", 1.0)
    if (alpha, beta) != (1.0, 1.0) and op.dtypes[op.inputs[0]] in INTEGERS:
        return evaluated(op)
    layer = layers.FloatMatMul(
        transpose_a=bool(op.attribute("transA", 0)),
        transpose_b=bool(op.attribute("transB", 0)),
        alpha=alpha,
        beta=beta if op.has(2) else 1.0,
        runtime_constants=_runtime_constants(op),
    )
    return layer, op.given


def _conv(op: Operator) -> Converted:
    op.only("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
    rank = _float_rank(op)
    if rank is None:
        return evaluated(op)
    layer = layers.FloatConv(
        groups=op.attribute("group", 1), runtime_constants=_runtime_constants(op), **conv_window(op, rank)
    )
    return layer, op.given


def _conv_transpose(op: Operator) -> Converted:
    known = ("auto_pad", "dilations", "group", "kernel_shape", "output_padding", "output_shape", "pads")
    op.only(*known, "strides")
    rank = _float_rank(op)
    if rank is None:
        return evaluated(op)
    layer = layers.FloatConvTranspose(
        groups=op.attribute("group", 1),
        output_padding=op.integers("output_padding", (0,) * rank),
        output_size=op.integers("output_shape", ()) or None,
        **conv_window(op, rank),
    )
    return layer, op.given


def _float_rank(op: Operator) -> int | None:
    """Return a convolution's number of axes; None where it is not known or has no layer."""
    shapes = [shape for shape in (op.shape(1), op.shape(0)) if shape is not None]
    if not shapes or len(shapes[0]) not in (3, 4, 5) or op.dtypes[op.inputs[0]] not in FLOATS:
        return None
    if op.shape(1) is None and "kernel_shape" in op.attributes:
        return None
    return conv_rank(op, 1)


def _constant(op: Operator) -> Converted:
    from onnx import numpy_helper

    held = [name for name in op.attributes if name.startswith(("value", "sparse"))]
    if len(held) != 1:
        raise ValueError(f"a Constant must have one value, not {len(held)}")
    value = op.attributes[held[0]]
    if held[0] == "value":
        return numpy_helper.to_array(value)
    if held[0] in ("value_int", "value_ints"):
        return np.array(value, np.int64)
    if held[0] in ("value_float", "value_floats"):
        return np.array(value, np.float32)
    raise op.refuse(f"a Constant must hold a tensor or numbers, not {held[0]}")


def _fill(op: Operator) -> Converted:
    from onnx import numpy_helper

    op.only("value")
    value = np.zeros(1, np.float32)
    if "value" in op.attributes:
        value = numpy_helper.to_array(op.attributes["value"])
    if value.dtype.name not in DTYPES:
        raise op.refuse(f"a value of {value.dtype}; supported are {', '.join(DTYPES)}")
    if op.inputs[0] in op.constants and math.prod(op.constants[op.inputs[0]].tolist()) > _MOST_FILLED:
        raise op.refuse(f"a constant of the shape {op.constants[op.inputs[0]].tolist()}")
    return layers.Fill(value), op.inputs[:1]


_INFINITE = -math.inf, math.inf

# What a Fill of constant shape may make while a model is read.
_MOST_FILLED = 1 << 28

_MANY = ("Max", "Min")

FLOATING: dict[tuple[str, str], Converter] = {
    **{("", name): _unary for name in UNARY if name not in ("Gelu", "GeluTanh")},
    **{("", name): _binary for name in BINARY if name not in _MANY},
    **{("", name): _many for name in _MANY},
    **{("", name): _reduce for name in REDUCE},
    ("", "BatchNormalization"): _batch_normalization,
    ("", "Cast"): _cast,
    ("", "Clip"): _clip,
    ("", "Constant"): _constant,
    ("", "ConstantOfShape"): _fill,
    ("", "Conv"): _conv,
    ("", "ConvTranspose"): _conv_transpose,
    ("", "Gelu"): _gelu,
    ("", "Gemm"): _gemm,
    ("", "LayerNormalization"): _layer_normalization,
    ("", "MatMul"): _matmul,
    ("", "Relu"): _relu,
    ("", "Softmax"): _softmax,
}
"""Converters by (domain, operator)."""
