"""Writers of layers on numbers of any type, and of those that move elements without changing them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from systolic.frontend.to_onnx.writer import Writer, tensor
from systolic.layers.host.arithmetic import FLOATS
from systolic.layers.host.subgraphs import inner_names, subgraphs
from systolic.model import Node


def _write_relu(out: Writer, node: Node, layer: Any) -> None:
    dtype = out.dtype(node.inputs[0])
    if layer.zero_point or dtype == "uint8":
        raise out.refuse(
            node,
            f"ONNX's Relu is of int8, int32 or float32 around 0, not of {dtype} around {layer.zero_point}; "
            "let the layer before it saturate there, by a zero point of y at the smallest code",
        )
    out.node(node, "Relu", node.inputs)


def _write_unary(out: Writer, node: Node, layer: Any) -> None:
    if layer.operation in ("Gelu", "GeluTanh"):
        approximate = "tanh" if layer.operation == "GeluTanh" else "none"
        out.node(node, "Gelu", node.inputs, approximate=approximate)
    else:
        out.node(node, layer.operation, node.inputs)


def _write_binary(out: Writer, node: Node, layer: Any) -> None:
    out.node(node, layer.operation, node.inputs)


def _write_clip(out: Writer, node: Node, layer: Any) -> None:
    dtype = out.dtype(node.inputs[0])
    low, high = layer.low, layer.high
    if dtype in FLOATS:
        # ONNX Runtime takes the type's largest number for an omitted bound.
        low, high = -np.inf if low is None else low, np.inf if high is None else high
    if out.opset < 11:
        out.node(node, "Clip", node.inputs, min=low, max=high)
        return
    bounds = [
        "" if value is None else out.constant(node, name, np.array(value, dtype))
        for name, value in (("min", low), ("max", high))
    ]
    out.node(node, "Clip", (*node.inputs, *bounds))


def _write_cast(out: Writer, node: Node, layer: Any) -> None:
    from onnx import helper

    out.node(node, "Cast", node.inputs, to=helper.np_dtype_to_tensor_dtype(np.dtype(layer.dtype)))


def _write_reduce(out: Writer, node: Node, layer: Any) -> None:
    _write_axes(
        out, node, layer.operation, 13 if layer.operation == "ReduceSum" else 18, keepdims=layer.keepdims
    )


def _write_squeeze(out: Writer, node: Node, layer: Any) -> None:
    _write_axes(out, node, layer.kind, 13)


def _write_axes(out: Writer, node: Node, op: str, since: int, **attributes: Any) -> None:
    """Write an operator over axes, which the layer holds or reads."""
    axes = node.layer.axes  # type: ignore[attr-defined]
    if axes == ():
        raise out.refuse(node, f"ONNX's {op} without axes is over all; put an Identity in its place")
    if len(node.inputs) > 1:
        out.since(node, since)
    _write_listed(out, node, op, since, "axes", axes, **attributes)


def _write_listed(
    out: Writer, node: Node, op: str, since: int, name: str, values: Any, **attributes: Any
) -> None:
    """Write an operator with a list that was an attribute, and is an input since some operator set."""
    read = node.inputs
    if values is not None and out.opset >= since:
        read = (*read, out.constant(node, name, np.array(values, np.int64)))
    else:
        attributes[name] = values
    out.node(node, op, read, **attributes)


def _write_split(out: Writer, node: Node, layer: Any) -> None:
    _write_listed(out, node, "Split", 13, "split", layer.sizes, axis=layer.axis)


def _write_softmax(out: Writer, node: Node, layer: Any) -> None:
    if layer.flatten:
        out.until(node, 12)
    else:
        out.since(node, 13)
    out.node(node, "Softmax", node.inputs, axis=layer.axis)


def _write_matmul(out: Writer, node: Node, layer: Any) -> None:
    options = {
        "alpha": layer.alpha if layer.alpha != 1 else None,
        "beta": layer.beta if layer.beta != 1 else None,
        "transA": layer.transpose_a or None,
        "transB": layer.transpose_b or None,
    }
    if len(node.inputs) == 2 and all(value is None for value in options.values()):
        out.node(node, "MatMul", node.inputs)
        return
    out.expect_matrices(
        node, "with a third tensor, a transposed operand, alpha or beta it is a Gemm", *node.inputs[:2]
    )
    out.node(node, "Gemm", node.inputs, **options)


def _write_conv(out: Writer, node: Node, layer: Any) -> None:
    out.node(node, "Conv", node.inputs, group=layer.groups, **out.window(node))


def _write_conv_transpose(out: Writer, node: Node, layer: Any) -> None:
    rank = out.rank(node)
    more = layer.output_padding
    out.node(
        node, "ConvTranspose", node.inputs,
        group=layer.groups, output_padding=more if isinstance(more, tuple) else (more,) * rank,
        output_shape=layer.output_size, **out.window(node),
    )  # fmt: skip


def _write_fill(out: Writer, node: Node, layer: Any) -> None:
    out.node(node, "ConstantOfShape", node.inputs, value=tensor("value", layer.value))


def _write_slice(out: Writer, node: Node, layer: Any) -> None:
    out.since(node, 10)
    out.node(node, "Slice", node.inputs)


def _write_pad(out: Writer, node: Node, layer: Any) -> None:
    out.since(node, 19 if layer.mode == "wrap" else 11)
    out.node(node, "Pad", node.inputs, mode=layer.mode)


def _write_resize(out: Writer, node: Node, layer: Any) -> None:
    x, by = node.inputs
    if layer.rounding == "simple":
        if layer.coordinates != "asymmetric" or layer.by != "scales" or layer.axes is not None:
            raise out.refuse(node, "rounding 'simple' is that of operator set 10, asymmetric and by scales")
        out.until(node, 10)
        out.node(node, "Resize", (x, by), mode="nearest")
        return
    out.since(node, 19 if layer.coordinates == "half_pixel_symmetric" else 11)
    policy = layer.policy if layer.policy != "stretch" else None
    # Until 13 the region of interest may not be left out.
    region = "" if out.opset >= 13 else out.constant(node, "roi", np.zeros(0, np.float32))
    read: tuple[str, ...] = (x, region, by)
    if layer.by == "sizes":
        scales = "" if out.opset >= 13 else out.constant(node, "scales", np.zeros(0, np.float32))
        read = (x, region, scales, by)
    out.node(
        node, "Resize", read,
        mode="nearest", coordinate_transformation_mode=layer.coordinates, nearest_mode=layer.rounding,
        axes=layer.axes, keep_aspect_ratio_policy=policy,
    )  # fmt: skip


def _write_onnx_node(out: Writer, node: Node, layer: Any) -> None:
    import onnx

    proto = onnx.NodeProto.FromString(layer.node.tobytes())
    names = dict(zip(layer.reads, node.inputs, strict=True))
    if any(subgraphs(proto)) and any(k != v for k, v in names.items()):
        raise out.refuse(
            node, f"its subgraphs know its inputs as {', '.join(layer.reads)}; name them so in the model"
        )
    twice = sorted(inner_names(proto) & out.model_names)
    if twice:
        raise out.refuse(
            node, f"its subgraphs have a tensor {twice[0]!r} of their own, and so has the model; rename that"
        )
    used = iter(node.outputs)
    inputs = [names.get(name, name) for name in proto.input]
    outputs = [next(used) if name else "" for name in proto.output]
    del proto.input[:], proto.output[:]
    proto.input.extend(inputs)
    proto.output.extend(outputs)
    if (proto.name or next(filter(None, outputs))) != node.name:
        proto.name = node.name
    out.nodes.append(proto)


FLOATING: dict[str, Callable[[Writer, Node, Any], None]] = {
    "Binary": _write_binary,
    "Cast": _write_cast,
    "Clip": _write_clip,
    "Fill": _write_fill,
    "FloatConv": _write_conv,
    "FloatConvTranspose": _write_conv_transpose,
    "FloatMatMul": _write_matmul,
    "OnnxNode": _write_onnx_node,
    "Pad": _write_pad,
    "Reduce": _write_reduce,
    "Relu": _write_relu,
    "Resize": _write_resize,
    "Slice": _write_slice,
    "Softmax": _write_softmax,
    "Split": _write_split,
    "Squeeze": _write_squeeze,
    "Unary": _write_unary,
    "Unsqueeze": _write_squeeze,
}
"""Writers by the name of the layer's class."""
