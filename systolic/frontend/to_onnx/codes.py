# One writer per kind of layer


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
    out.node(node, "QGemm", (*read, bias, *out.params(node, "y", layer.y)), _MICROSOFT)


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
        node, "QLinearConv", read, _MICROSOFT if last else "",
        channels_last=1 if last else None, group=layer.groups, kernel_shape=list(layer.weight.shape[2:]),
        **_window(layer),
    )  # fmt: skip


def _window(layer: Any) -> dict[str, Any]:
    """Return a window's attributes."""
    found: dict[str, Any] = {"strides": list(layer.stride)}
    if getattr(layer, "dilation", None) is not None:
        found["dilations"] = list(layer.dilation)
    if isinstance(layer.padding, str):
        found["auto_pad"] = _AUTO_PAD[layer.padding]
    else:
        found["pads"] = [before for before, _ in layer.padding] + [after for _, after in layer.padding]
    return found


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
        _MICROSOFT,
    )  # fmt: skip


def _write_average(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    out.node(
        node, "QLinearAveragePool",
        (node.inputs[0], *out.params(node, "x", layer.x), *out.params(node, "y", layer.y)), _MICROSOFT,
        kernel_shape=list(layer.kernel), ceil_mode=int(layer.ceil_mode),
        count_include_pad=int(layer.count_include_pad), channels_last=int(layer.layout == "NHWC"),
        **_window(layer),
    )  # fmt: skip


def _write_global_average(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    read = (node.inputs[0], *out.params(node, "x", layer.x), *out.params(node, "y", layer.y))
    out.node(node, "QLinearGlobalAveragePool", read, _MICROSOFT, channels_last=int(layer.layout == "NHWC"))


def _write_max_pool(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    if layer.layout != "NCHW":
        raise out.refuse(node, "ONNX's MaxPool takes images NCHW, not NHWC")
    out.node(
        node, "MaxPool", node.inputs,
        kernel_shape=list(layer.kernel), ceil_mode=int(layer.ceil_mode), **_window(layer),
    )  # fmt: skip


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


def _write_quantize(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    out.node(node, "QuantizeLinear", (node.inputs[0], *out.params(node, "y", layer.y)), axis=layer.y.axis)


def _write_dequantize(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    out.node(node, "DequantizeLinear", (node.inputs[0], *out.params(node, "x", layer.x)), axis=layer.x.axis)


def _write_reshape(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    sizes = out.constant(node, "shape", np.array(layer.shape, np.int64))
    out.node(node, "Reshape", (node.inputs[0], sizes), allowzero=1 if layer.allowzero else None)


def _write_flatten(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    out.node(node, "Flatten", node.inputs, axis=layer.axis)


def _write_identity(out: Writer, node: Node) -> None:
    out.node(node, "Identity", node.inputs)


def _write_matmul(out: Writer, node: Node) -> None:
    layer: Any = node.layer
    if len(node.inputs) != 2 or layer.y is None or layer.transpose_x or layer.transpose_w:
        raise out.refuse(node, "QLinearMatMul has no bias, no transposed operand and gives codes")
    x, w = node.inputs
    read = (x, *out.params(node, "x", layer.x), w, *out.params(node, "w", layer.w))
    out.node(node, "QLinearMatMul", (*read, *out.params(node, "y", layer.y)))


def _as_is(op: str, domain: str = "") -> Callable[[Writer, Node], None]:
    """Return the writer of a layer that reads what the operator reads, and has no fields."""
    return lambda out, node: out.node(node, op, node.inputs, domain)


WRITERS: dict[str, Callable[[Writer, Node], None]] = {
    "Add": _write_add,
    "AveragePool2d": _write_average,
    "Conv1d": _write_conv,
    "Conv2d": _write_conv,
    "Conv3d": _write_conv,
    "Dense": _write_dense,
    "DepthwiseConv2d": _write_conv,
    "Dequantize": _write_dequantize,
    "DynamicQuantize": _as_is("DynamicQuantizeLinear"),
    "Flatten": _write_flatten,
    "GlobalAveragePool2d": _write_global_average,
    "Identity": _write_identity,
    "MatMul": _write_matmul,
    "MatMulInteger": _as_is("MatMulInteger"),
    "MatMulIntegerToFloat": _as_is("MatMulIntegerToFloat", _MICROSOFT),
    "MaxPool2d": _write_max_pool,
    "Quantize": _write_quantize,
    "Relu": _write_relu,
    "Reshape": _write_reshape,
}
"""Writers by the name of the layer's class."""
