"""Writers of layers on codes, and of those that quantize and dequantize."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from systolic.frontend.to_onnx.writer import MICROSOFT, Writer, operator, window
from systolic.model import Node
from systolic.quant import QuantParams

_CHANNELS_LAST = ("NHWC", "NWC", "NDHWC")


def _write_dense(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    shape = out.shape(node.inputs[0])
    read = (
        node.inputs[0], *out.params(node, "x", layer.x),
        out.constant(node, "weight", layer.weight), *out.params(node, "w", layer.w),
    )  # fmt: skip
    if layer.bias is None and layer.y is not None:
        out.node(node, "QLinearMatMul", (*read, *out.params(node, "y", layer.y)))
        return
    if shape is None or len(shape) != 2:
        raise out.refuse(
            node,
            "with a bias, or without y, it is a QGemm, which takes matrices (M, K), "
            f"not {'an unknown shape' if shape is None else f'{len(shape)} axes'}; "
            "put a Flatten or Reshape before it",
        )
    bias = "" if layer.bias is None else out.constant(node, "bias", layer.bias)
    out.node(node, "QGemm", (*read, bias, *out.params(node, "y", layer.y)), MICROSOFT)


def _write_conv(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    if layer.y is None:
        raise out.refuse(
            node, "ONNX has no convolution of codes to float32; give it y, and a Dequantize after it"
        )
    last = layer.layout in _CHANNELS_LAST
    read = (
        node.inputs[0], *out.params(node, "x", layer.x),
        out.constant(node, "weight", layer.weight), *out.params(node, "w", layer.w),
        *out.params(node, "y", layer.y),
        "" if layer.bias is None else out.constant(node, "bias", layer.bias),
    )  # fmt: skip
    out.node(
        node, "QLinearConv", read, MICROSOFT if last else "",
        channels_last=1 if last else None, group=layer.groups, kernel_shape=list(layer.weight.shape[2:]),
        **window(layer),
    )  # fmt: skip


def _write_add(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    a, b = node.inputs
    if layer.y is None:
        out.node(node, "Add", (a, b))
        return
    out.node(
        node, "QLinearAdd",
        (
            a, *out.params(node, "a", layer.a), b, *out.params(node, "b", layer.b),
            *out.params(node, "y", layer.y),
        ),
        MICROSOFT,
    )  # fmt: skip


def _write_average(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    out.node(
        node, "QLinearAveragePool",
        (node.inputs[0], *out.params(node, "x", layer.x), *out.params(node, "y", layer.y)), MICROSOFT,
        kernel_shape=list(layer.kernel), ceil_mode=int(layer.ceil_mode),
        count_include_pad=int(layer.count_include_pad), channels_last=int(layer.layout == "NHWC"),
        **window(layer),
    )  # fmt: skip


def _write_global_average(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    read = (node.inputs[0], *out.params(node, "x", layer.x), *out.params(node, "y", layer.y))
    out.node(node, "QLinearGlobalAveragePool", read, MICROSOFT, channels_last=int(layer.layout == "NHWC"))


def _write_quantize(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    out.node(node, "QuantizeLinear", (node.inputs[0], *out.params(node, "y", layer.y)), axis=_axis(layer.y))


def _write_dequantize(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    out.node(node, "DequantizeLinear", (node.inputs[0], *out.params(node, "x", layer.x)), axis=_axis(layer.x))


def _axis(params: QuantParams) -> int | None:
    return params.axis if params.scales.size > 1 else None


def _write_matmul(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    x, w, *bias = node.inputs
    read = (x, *out.params(node, "x", layer.x), w, *out.params(node, "w", layer.w))
    transposed = {"transA": layer.transpose_x or None, "transB": layer.transpose_w or None}
    if not bias and layer.y is not None and not any(transposed.values()):
        out.node(node, "QLinearMatMul", (*read, *out.params(node, "y", layer.y)))
        return
    _expect_matrices(out, node, x, w)
    bias = bias or [""]
    out.node(node, "QGemm", (*read, *bias, *out.params(node, "y", layer.y)), MICROSOFT, **transposed)


def _write_qlinear_matmul(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    options = {
        "alpha": layer.alpha if layer.alpha != 1 else None,
        "transA": layer.transpose_x or None,
        "transB": layer.transpose_w or None,
    }
    if len(node.inputs) == 8 and not any(options.values()):
        out.node(node, "QLinearMatMul", node.inputs)
        return
    _expect_matrices(out, node, node.inputs[0], node.inputs[3])
    # The layer reads the bias last, as what may be missing.
    read, last = node.inputs[:6], node.inputs[6:]
    y, bias = (last[:2], last[2:]) if len(last) > 1 else ((), last)
    out.node(node, "QGemm", (*read, *(bias or ("",)), *y), MICROSOFT, **options)


def _expect_matrices(out: Writer, node: Node, *tensors: str) -> None:
    for name in tensors:
        shape = out.shape(name)
        if shape is None or len(shape) != 2:
            what = "an unknown shape" if shape is None else f"{len(shape)} axes"
            raise out.refuse(
                node,
                "with a bias, a transposed operand, an alpha, or without y, it is a QGemm, which takes "
                f"matrices, and {name!r} has {what}",
            )


def _write_conv_of_tensors(op: str) -> Callable[[Writer, Node], None]:
    def write(out: Writer, node: Node) -> None:
        layer: Any = node.layer
        shape = out.shape(node.inputs[0])
        if shape is None:
            raise out.refuse(node, "the rank of its input depends on runtime values; use Model.save")
        out.node(node, op, node.inputs, group=layer.groups, **window(layer, len(shape) - 2))

    return write


def _write_quantize_linear(out: Writer, node: Node) -> None:
    from onnx import helper

    layer: Any = node.layer
    wanted = None
    if len(node.inputs) < 3 and layer.dtype != "uint8":
        wanted = helper.np_dtype_to_tensor_dtype(np.dtype(layer.dtype))
    block = layer.block_size or None
    out.node(node, "QuantizeLinear", node.inputs, axis=layer.axis, block_size=block, output_dtype=wanted)


def _write_dequantize_linear(out: Writer, node: Node) -> None:
    from onnx import helper

    layer: Any = node.layer
    wanted = None if layer.dtype is None else helper.np_dtype_to_tensor_dtype(np.dtype(layer.dtype))
    block = layer.block_size or None
    out.node(node, "DequantizeLinear", node.inputs, axis=layer.axis, block_size=block, output_dtype=wanted)


def _on_codes(op: str, *read: str, **fields: str) -> Callable[[Writer, Node], None]:
    """Return the writer of ONNX Runtime's operator whose inputs have the parameters of these fields."""

    def write(out: Writer, node: Node) -> None:
        layer: Any = node.layer
        # What stands before them has none.
        names = list(node.inputs[: len(node.inputs) - len(read)])
        for name, field in zip(node.inputs[len(names) :], read, strict=True):
            names += [name, *out.params(node, field, getattr(layer, field))]
        given = {attribute: getattr(layer, field) for attribute, field in fields.items()}
        out.node(node, op, (*names, *out.params(node, "y", layer.y)), MICROSOFT, **given)

    return write


def _write_qlinear_concat(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    names = [*out.params(node, "y", layer.y)]
    for number, (name, params) in enumerate(zip(node.inputs, layer.x, strict=True)):
        names += [name, *out.params(node, f"x{number}", params)]
    out.node(node, "QLinearConcat", names, MICROSOFT, axis=layer.axis)


def _write_qlinear_softmax(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    read = (node.inputs[0], *out.params(node, "x", layer.x), *out.params(node, "y", layer.y))
    # By this the operator knows whether the axes from its own on count as one.
    opset = 12 if layer.flatten else 13
    out.node(node, "QLinearSoftmax", read, MICROSOFT, axis=layer.axis, opset=opset)


def _write_qlinear_average(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    out.node(
        node, "QLinearAveragePool",
        (node.inputs[0], *out.params(node, "x", layer.x), *out.params(node, "y", layer.y)), MICROSOFT,
        kernel_shape=layer.kernel, ceil_mode=layer.ceil_mode, count_include_pad=layer.count_include_pad,
        channels_last=layer.channels_last, **window(layer),
    )  # fmt: skip


def _write_qlinear_global_average(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    shape = out.shape(node.inputs[0])
    if shape is not None and len(shape) == 4:
        # Of a tensor declared to be images it would come back as a GlobalAveragePool2d.
        out.undeclared.add(node.inputs[0])
    read = (node.inputs[0], *out.params(node, "x", layer.x), *out.params(node, "y", layer.y))
    out.node(node, "QLinearGlobalAveragePool", read, MICROSOFT, channels_last=layer.channels_last)


QUANTIZED: dict[str, Callable[[Writer, Node], None]] = {
    "Add": _write_add,
    "AveragePool2d": _write_average,
    "Conv1d": _write_conv,
    "Conv2d": _write_conv,
    "Conv3d": _write_conv,
    "ConvInteger": _write_conv_of_tensors("ConvInteger"),
    "Dense": _write_dense,
    "DepthwiseConv2d": _write_conv,
    "Dequantize": _write_dequantize,
    "DequantizeLinear": _write_dequantize_linear,
    "DynamicQuantize": operator("DynamicQuantizeLinear"),
    "GlobalAveragePool2d": _write_global_average,
    "MatMul": _write_matmul,
    "MatMulInteger": operator("MatMulInteger"),
    "MatMulIntegerToFloat": operator("MatMulIntegerToFloat", MICROSOFT),
    "QLinearAveragePool": _write_qlinear_average,
    "QLinearConcat": _write_qlinear_concat,
    "QLinearConv": _write_conv_of_tensors("QLinearConv"),
    "QLinearGlobalAveragePool": _write_qlinear_global_average,
    "QLinearLeakyRelu": _on_codes("QLinearLeakyRelu", "x", alpha="alpha"),
    "QLinearMatMul": _write_qlinear_matmul,
    "QLinearMul": _on_codes("QLinearMul", "a", "b"),
    "QLinearSigmoid": _on_codes("QLinearSigmoid", "x"),
    "QLinearSoftmax": _write_qlinear_softmax,
    "QLinearWhere": _on_codes("QLinearWhere", "a", "b"),
    "Quantize": _write_quantize,
    "QuantizeLinear": _write_quantize_linear,
}
"""Writers by the name of the layer's class."""
