"""Writes a ``Model`` as an ONNX file in the QOperator form, which ``load_onnx`` reads back."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from systolic._files import replacing
from systolic.frontend.operators import UnsupportedOperator
from systolic.layers.base import Shape
from systolic.model import Model, Node
from systolic.quant import QuantParams

# As old as the operators written here allow, so that many runtimes read it.
OPSET, IR_VERSION = 17, 8
_MICROSOFT = "com.microsoft"
_MOST_BYTES = 2**31 - 1

_AUTO_PAD = {"same": "SAME_UPPER", "same_lower": "SAME_LOWER", "valid": "VALID"}
_CHANNELS_LAST = ("NHWC", "NWC", "NDHWC")


def save_onnx(model: Model, path: str | os.PathLike[str]) -> None:
    """Write a model as an ONNX file, in the QOperator form.

    ``load_onnx`` of the file gives the model back; ONNX Runtime gives the same outputs, bit for bit.

    Parameters
    ----------
    model : Model
    path : path
        Written under another name and renamed: complete or absent. Needs
        ``pip install "systolic[onnx]"``.

    Raises
    ------
    UnsupportedOperator
        If a layer, or a use of one, has no form in ONNX: names the node and says why. So has a
        layer whose rounding is not "half_even", ONNX's.
    FileNotFoundError
        If there is no such folder.
    ImportError
        If the onnx package is missing.

    Notes
    -----
    Operators are of ONNX operator set 17 and, where the standard has none on codes, of ONNX Runtime's
    com.microsoft: QGemm, QLinearAdd, QLinearAveragePool, QLinearGlobalAveragePool, and QLinearConv
    of images NHWC.

    Two spellings of one thing come back as the other: parameters per channel hold a zero point for
    each, those of a single channel are per tensor; a convolution with a group for each input
    channel is a ``DepthwiseConv2d``, and one of a single group a ``Conv2d``.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import numpy as np
    >>> import systolic
    >>> from systolic import Dense, Model, QuantParams
    >>> q = QuantParams(0.5)
    >>> model = Model([Dense(np.eye(4, dtype=np.int8), x=q, w=q, y=q)], inputs={"x": ((None, 4), "int8")})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "model.onnx"
    ...     systolic.save_onnx(model, path)
    ...     systolic.load_onnx(path) == model
    True
    """
    if not isinstance(model, Model):
        raise TypeError(f"save_onnx writes a Model, not {type(model).__name__}")
    try:
        import onnx
    except ImportError as error:
        raise ImportError('save_onnx needs the onnx package: pip install "systolic[onnx]"') from error
    proto = _proto(model)
    size = proto.ByteSize()
    if size > _MOST_BYTES:
        raise ValueError(
            f"the model takes {size:,} bytes, and an ONNX file has at most {_MOST_BYTES:,}; use Model.save"
        )
    onnx.checker.check_model(proto)
    with replacing(path) as file:
        file.write(proto.SerializeToString())


def _proto(model: Model) -> Any:
    from onnx import helper

    writer = Writer(model)
    for node in model.nodes:
        write = WRITERS.get(type(node.layer).__name__)
        if write is None:
            raise writer.refuse(node, "it has no form in ONNX that load_onnx reads; use Model.save")
        rounding = getattr(node.layer, "rounding", "half_even")
        if rounding != "half_even":
            raise writer.refuse(node, f"ONNX rounds half_even, not {rounding!r}; use Model.save")
        write(writer, node)
    for name, array in model.constants.items():
        writer.tensors.append(_tensor(name, array))
    inputs = [
        _value(
            name,
            spec.dtype,
            [s if s is not None else symbol for s, symbol in itertools.zip_longest(spec.shape, spec.symbols)],
        )
        for name, spec in model.inputs.items()
    ]
    outputs = [_value(name, *writer.output(name)) for name in model.outputs]
    # What lies between is declared too where it is known: some operators are read by the number of axes.
    between = [name for node in model.nodes for name in node.outputs if name and name not in model.outputs]
    infos = [_value(name, *writer.output(name)) for name in between if writer.shape(name) is not None]
    graph = helper.make_graph(
        writer.nodes, model.name or "model", inputs, outputs, writer.tensors, value_info=infos
    )
    domains = ["", *sorted({node.domain for node in writer.nodes} - {""})]
    opsets = [helper.make_opsetid(domain, 1 if domain else OPSET) for domain in domains]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="systolic")


def _value(name: str, dtype: str, shape: list[int | str | None]) -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)


def _tensor(name: str, array: np.ndarray) -> Any:
    from onnx import numpy_helper

    return numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)


class Writer:
    """Nodes and initializers as they come, and what is known of the model's tensors.

    Attributes
    ----------
    nodes, tensors : list
        NodeProtos and TensorProtos.
    """

    def __init__(self, model: Model) -> None:
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []
        self._names = {*model.inputs, *model.constants, *(t for node in model.nodes for t in node.outputs)}
        # What differs between two sizes for what is open is open too.
        self._traces = _traces(model)

    def shape(self, tensor: str) -> Shape | None:
        """Return a tensor's shape for some size of what is open, None if only a run can tell."""
        return self._traces[0][tensor][0]

    def dtype(self, tensor: str) -> str:
        """Return a tensor's type."""
        return self._traces[0][tensor][1]

    def output(self, tensor: str) -> tuple[str, list[int | str | None]]:
        """Return type and sizes of an output as a file declares them."""
        few, many = (trace[tensor][0] for trace in self._traces)
        if few is None or many is None or len(few) != len(many):
            raise UnsupportedOperator(
                f"only a run can tell how many axes output {tensor!r} has; use Model.save"
            )
        return self.dtype(tensor), [a if a == b else None for a, b in zip(few, many, strict=True)]

    def constant(self, node: Node, what: str, value: Any) -> str:
        """Store an initializer, and return its name."""
        name = stem = f"{node.output}.{what}"
        count = 1
        while name in self._names:
            count += 1
            name = f"{stem}{count}"
        self._names.add(name)
        self.tensors.append(_tensor(name, np.asarray(value)))
        return name

    def params(self, node: Node, what: str, params: QuantParams | None) -> tuple[str, ...]:
        """Store scale and zero point, and return their names."""
        if params is None:
            return "", ""
        return (
            self.constant(node, f"{what}_scale", params.scales),
            self.constant(node, f"{what}_zero_point", params.zero_points),
        )

    def node(self, node: Node, op: str, inputs: tuple[str, ...], domain: str = "", **attributes: Any) -> None:
        """Write a node; attributes that are None are left out."""
        from onnx import helper

        while inputs and not inputs[-1]:
            inputs = inputs[:-1]
        given = {name: value for name, value in attributes.items() if value is not None}
        outputs = list(node.outputs)
        self.nodes.append(helper.make_node(op, list(inputs), outputs, node.name, domain=domain, **given))

    def refuse(self, node: Node, why: str) -> UnsupportedOperator:
        """Return the error that a node cannot be written."""
        return UnsupportedOperator(f"node {node.name!r} ({type(node.layer).__name__}): {why}")


def _traces(model: Model) -> list[dict[str, tuple[Shape | None, str]]]:
    """Return shapes and types for two sizes in place of every open one; the same twice if one alone fits."""
    batch_only = not any(None in spec.shape[1:] for spec in model.inputs.values())
    found: list[dict[str, tuple[Shape | None, str]]] = []
    # load_onnx tries a batch of 1; other sizes may have to be larger, as kernels are.
    for size in (1, 2) if batch_only else (2, 3, *range(4, 65), 1):
        shapes = {n: tuple(size if s is None else s for s in spec.shape) for n, spec in model.inputs.items()}
        try:
            found.append(model.trace(shapes))
        except ValueError as error:
            if batch_only and not found:
                raise UnsupportedOperator(f"a batch of 1 does not fit: {error}; say the batch") from error
        if len(found) == 2:
            return found
    if not found:
        raise UnsupportedOperator("no size from 1 to 64 fits the open ones; say more of the inputs' shapes")
    return found * 2


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
