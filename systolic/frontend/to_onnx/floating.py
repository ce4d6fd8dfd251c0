"""Writers of layers on numbers of any type, and of those that move elements without changing them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from systolic.frontend.to_onnx.writer import Writer, operator, tensor, window
from systolic.layers.host.arithmetic import FLOATS
from systolic.layers.host.subgraphs import inner_names, subgraphs
from systolic.model import Node


def _write_relu(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    dtype = out.dtype(node.inputs[0])
    if layer.zero_point or dtype == "uint8":
        raise out.refuse(
            node,
            f"ONNX's Relu is of int8, int32 or float32 around 0, not of {dtype} around {layer.zero_point}; "
            "let the layer before it saturate there, by a zero point of y at the smallest code",
        )
    out.node(node, "Relu", node.inputs)


def _write_unary(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    if layer.operation in ("Gelu", "GeluTanh"):
        approximate = "tanh" if layer.operation == "GeluTanh" else "none"
        out.node(node, "Gelu", node.inputs, approximate=approximate)
    else:
        out.node(node, layer.operation, node.inputs)


def _write_binary(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    out.node(node, layer.operation, node.inputs)


def _write_clip(out: Writer, node: Node) -> None:
    layer: Any = node.layer
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


def _write_cast(out: Writer, node: Node) -> None:
    from onnx import helper

    layer: Any = node.layer
    out.node(node, "Cast", node.inputs, to=helper.np_dtype_to_tensor_dtype(np.dtype(layer.dtype)))


def _write_reduce(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    since = 13 if layer.operation == "ReduceSum" else 18
    if len(node.inputs) > 1:
        out.since(node, since)
    _with_axes(out, node, layer.operation, since, keepdims=layer.keepdims)


def _write_squeeze(op: str) -> Callable[[Writer, Node], None]:
    def write(out: Writer, node: Node) -> None:
        if len(node.inputs) > 1:
            out.since(node, 13)
        _with_axes(out, node, op, 13)

    return write


def _with_axes(out: Writer, node: Node, op: str, since: int, **attributes: Any) -> None:
    """Write an operator whose axes were an attribute, and are an input since some operator set."""
    axes = node.layer.axes  # type: ignore[attr-defined]
    if axes == ():
        raise out.refuse(node, f"ONNX's {op} without axes is over all; put an Identity in its place")
    if axes is None:
        out.node(node, op, node.inputs, **attributes)
    elif out.opset < since:
        out.node(node, op, node.inputs, axes=axes, **attributes)
    else:
        read = (*node.inputs, out.constant(node, "axes", np.array(axes, np.int64)))
        out.node(node, op, read, **attributes)


def _write_split(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    if out.opset < 13:
        out.node(node, "Split", node.inputs, axis=layer.axis, split=layer.sizes)
    else:
        sizes = out.constant(node, "split", np.array(layer.sizes, np.int64))
        out.node(node, "Split", (*node.inputs, sizes), axis=layer.axis)


def _write_softmax(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    if layer.flatten:
        out.until(node, 12)
    else:
        out.since(node, 13)
    out.node(node, "Softmax", node.inputs, axis=layer.axis)


def _epsilon(layer: Any) -> float | None:
    # A stored attribute is float32; the operator's default is not.
    return layer.epsilon if layer.epsilon != 1e-5 else None


def _write_layer_normalization(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    out.node(node, "LayerNormalization", node.inputs, axis=layer.axis, epsilon=_epsilon(layer))


def _write_batch_normalization(out: Writer, node: Node) -> None:
    out.node(node, "BatchNormalization", node.inputs, epsilon=_epsilon(node.layer))


def _write_matmul(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    options = {
        "alpha": layer.alpha if layer.alpha != 1 else None,
        "beta": layer.beta if layer.beta != 1 else None,
        "transA": layer.transpose_a or None,
        "transB": layer.transpose_b or None,
    }
    if len(node.inputs) == 2 and all(value is None for value in options.values()):
        out.node(node, "MatMul", node.inputs)
        return
    for name in node.inputs[:2]:
        shape = out.shape(name)
        if shape is None or len(shape) != 2:
            what = "an unknown shape" if shape is None else f"{len(shape)} axes"
            raise out.refuse(
                node,
                "with a third tensor, a transposed operand, alpha or beta it is a Gemm, which takes "
                f"matrices, and {name!r} has {what}",
            )
    out.node(node, "Gemm", node.inputs, **options)


def _write_conv(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    out.node(node, "Conv", node.inputs, group=layer.groups, **window(layer, _rank(out, node)))


def _write_conv_transpose(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    rank = _rank(out, node)
    more = layer.output_padding
    out.node(
        node, "ConvTranspose", node.inputs,
        group=layer.groups, output_padding=more if isinstance(more, tuple) else (more,) * rank,
        output_shape=layer.output_size, **window(layer, rank),
    )  # fmt: skip


def _rank(out: Writer, node: Node) -> int:
    """Return the number of spatial axes."""
    shape = out.shape(node.inputs[0])
    if shape is None:
        raise out.refuse(node, "the rank of its input depends on runtime values; use Model.save")
    return len(shape) - 2


def _write_max_pool(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    if getattr(layer, "layout", "NCHW") != "NCHW":
        raise out.refuse(node, "ONNX's MaxPool takes images NCHW, not NHWC")
    order = {"column": 1}.get(getattr(layer, "order", ""))
    out.node(
        node, "MaxPool", node.inputs,
        kernel_shape=layer.kernel, ceil_mode=layer.ceil_mode, storage_order=order, **window(layer),
    )  # fmt: skip


def _write_average_pool(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    given = window(layer)
    if set(layer.dilation) == {1}:
        del given["dilations"]
    out.node(
        node, "AveragePool", node.inputs,
        kernel_shape=layer.kernel, ceil_mode=layer.ceil_mode, count_include_pad=layer.count_include_pad,
        **given,
    )  # fmt: skip


def _write_reshape(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    sizes = out.constant(node, "shape", np.array(layer.shape, np.int64))
    out.node(node, "Reshape", (node.inputs[0], sizes), allowzero=layer.allowzero or None)


def _write_reshape_to(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    out.node(node, "Reshape", node.inputs, allowzero=layer.allowzero or None)


def _write_shape(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    out.node(node, "Shape", node.inputs, start=layer.start or None, end=layer.end)


def _write_fill(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    out.node(node, "ConstantOfShape", node.inputs, value=tensor("value", layer.value))


def _write_slice(out: Writer, node: Node) -> None:
    out.since(node, 10)
    out.node(node, "Slice", node.inputs)


def _write_pad(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    out.since(node, 19 if layer.mode == "wrap" else 11)
    out.node(node, "Pad", node.inputs, mode=layer.mode)


def _write_resize(out: Writer, node: Node) -> None:
    layer: Any = node.layer
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


def _write_onnx_node(out: Writer, node: Node) -> None:
    import onnx

    layer: Any = node.layer
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


FLOATING: dict[str, Callable[[Writer, Node], None]] = {
    "ArgMax": operator("ArgMax", axis="axis", keepdims="keepdims", select_last_index="last"),
    "AveragePool": _write_average_pool,
    "BatchNormalization": _write_batch_normalization,
    "Binary": _write_binary,
    "Cast": _write_cast,
    "Clip": _write_clip,
    "Concat": operator("Concat", axis="axis"),
    "Expand": operator("Expand"),
    "Fill": _write_fill,
    "Flatten": operator("Flatten", axis="axis"),
    "FloatConv": _write_conv,
    "FloatConvTranspose": _write_conv_transpose,
    "FloatMatMul": _write_matmul,
    "Gather": operator("Gather", axis="axis"),
    "GlobalAveragePool": operator("GlobalAveragePool"),
    "Identity": operator("Identity"),
    "LayerNormalization": _write_layer_normalization,
    "MaxPool": _write_max_pool,
    "MaxPool2d": _write_max_pool,
    "MaxPoolIndices": _write_max_pool,
    "OnnxNode": _write_onnx_node,
    "Pad": _write_pad,
    "Reduce": _write_reduce,
    "Relu": _write_relu,
    "Reshape": _write_reshape,
    "ReshapeTo": _write_reshape_to,
    "Resize": _write_resize,
    "ShapeOf": _write_shape,
    "Slice": _write_slice,
    "Softmax": _write_softmax,
    "Split": _write_split,
    "Squeeze": _write_squeeze("Squeeze"),
    "Transpose": operator("Transpose", perm="perm"),
    "Unary": _write_unary,
    "Unsqueeze": _write_squeeze("Unsqueeze"),
    "Where": operator("Where"),
}
"""Writers by the name of the layer's class."""
