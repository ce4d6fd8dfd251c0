"""Writes a ``Model`` as an ONNX file, which ``load_onnx`` reads back."""

from __future__ import annotations

import itertools
import os
from typing import Any

import numpy as np

from systolic._files import write_file
from systolic._text import printable_errors
from systolic.frontend.check import check_model, label, renamed
from systolic.frontend.from_onnx import model_of
from systolic.frontend.notes import Notes, guarded, write_notes
from systolic.frontend.operators import UnsupportedOperator, fresh
from systolic.frontend.read import MOST_BYTES, check_standard, graph_of
from systolic.frontend.to_onnx.writer import Writer, tensor
from systolic.layers import OnnxNode
from systolic.layers.dequantized import DequantizedConv, DequantizedProduct
from systolic.layers.float_products import RoundedProduct
from systolic.layers.host.delegated import FloatProduct
from systolic.layers.host.subgraphs import inner_names, subgraphs
from systolic.layers.table import record_of
from systolic.model import Model, Node

# As old as the usual operators allow, so that many runtimes read it; a layer may need another.
OPSET, IR_VERSION = 17, 8


@printable_errors
def save_onnx(model: Model, path: str | os.PathLike[str]) -> None:
    """Write a model as an ONNX file: codes in the QOperator form, the rest as standard operators.

    ``load_onnx`` of the file gives the model back, with either `qdq`; ONNX Runtime, with any level of
    optimization, gives the same outputs, bit for bit where ``load_onnx`` promises it. One model
    always makes the same file.

    Parameters
    ----------
    model : Model
    path : path
        Written under another name and renamed: complete or absent. Needs
        ``pip install "systolic[onnx]"``.

    Raises
    ------
    UnsupportedOperator
        If a layer, or a use of one, has no form in ONNX, or none that ``load_onnx`` reads as that layer.
        The message names the node and says why. ONNX has no rounding but "half_even".
    FileNotFoundError
        If there is no such folder.
    ImportError
        If the onnx package is missing.

    Notes
    -----
    Operators are of ONNX operator set 17 or, where a layer's meaning needs it, of the nearest one that
    has it; and, where the standard has none on codes, of ONNX Runtime's com.microsoft: QGemm and all
    QLinear operators but QLinearConv and QLinearMatMul, and QLinearConv of images NHWC.

    The file's metadata holds, under "systolic", what a graph cannot: which initializers are the model's
    constants, so that no others come back as constants and nothing is computed from them at load; names
    that several nodes share, since they must differ in a file; outputs that are not used; the formats of
    products of float32 on the array, which other programs compute in float32. It is valid for
    the nodes that it was written for: if another program changed them, ``load_onnx`` reads the file like
    any other.

    A Max of a single tensor after a DequantizeLinear changes nothing, and is no layer of the model. It
    keeps ONNX Runtime from fusing a float operator into an integer one.

    Where two equivalent layers are one operator, the more specific one comes back: parameters per channel
    hold a zero point for each channel, those of a single channel are per tensor; a
    ``Binary("Add")`` is an ``Add`` if that takes the types. Numbers that operators keep as float32 are
    rounded to it, bounds of a ``Clip`` have the tensor's type; a window's integer for all axes comes back
    as one per axis. Models from ``load_onnx`` have this form already.

    An output whose rank depends on runtime values has no shape in the file. onnx.checker asks for one;
    nothing else needs it.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import numpy as np
    >>> import systolic
    >>> from systolic import Model, QuantParams
    >>> from systolic.layers import Dense
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
    model.check_values()
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise ImportError('save_onnx needs the onnx package: pip install "systolic[onnx]"') from error
    _check_names(model)
    proto = _proto(model)
    size = proto.ByteSize()
    if size > MOST_BYTES:
        raise ValueError(
            f"the model takes {size:,} bytes, and an ONNX file has at most {MOST_BYTES:,}; use Model.save"
        )
    _check_reload(model, proto)
    write_file(path, lambda file: file.write(proto.SerializeToString()))


def _proto(model: Model) -> Any:
    from onnx import helper

    writer = _written(model)
    for name, array in model.constants.items():
        writer.tensors.append(tensor(name, array))
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
    infos = [_value(name, *writer.output(name)) for name in between]
    infos = [info for info in infos if info.type.tensor_type.HasField("shape")]
    graph = helper.make_graph(
        writer.nodes, model.name or "model", inputs, outputs, writer.tensors, value_info=infos
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in writer.opsets.items()]
    version = max(IR_VERSION, helper.find_min_ir_version_for(opsets, True))
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=version, producer_name="systolic")
    _infer_outputs(proto)
    nodes = guarded(proto.graph.node, model.outputs, writer.names)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    names = _name_nodes(proto.graph.node)
    runtime = {
        node.output: list(node.layer.runtime_constants)
        for node in model.nodes
        if isinstance(node.layer, FloatProduct) and node.layer.runtime_constants is not None
    }
    compute = {
        node.output: node.layer.compute for node in model.nodes if isinstance(node.layer, RoundedProduct)
    }
    joined = {
        node.output: node.layer.w_bits for node in model.nodes if isinstance(node.layer, DequantizedProduct)
    }
    unnamed = not model.name
    notes = Notes(tuple(model.constants), names, tuple(writer.unused), unnamed, runtime, compute, joined)
    write_notes(proto, notes)
    return proto


def _infer_outputs(proto: Any) -> None:
    """Declare the shapes of outputs that depend on runtime values as far as onnx infers them."""
    import onnx

    bare = [value.name for value in proto.graph.output if not value.type.tensor_type.HasField("shape")]
    if not bare:
        return
    inferred = {value.name: value for value in onnx.shape_inference.infer_shapes(proto).graph.output}
    for value in proto.graph.output:
        if value.name in bare:
            value.CopyFrom(inferred[value.name])


def _name_nodes(nodes: Any) -> dict[str, str]:
    """Make node names unique, as ONNX Runtime expects; return the original names by the new ones."""
    taken = {node.name for node in nodes}
    seen, renamed = {""}, {}
    for node in nodes:
        if node.name in seen:
            name = fresh(label(node), taken)
            renamed[name] = node.name
            node.name = name
        seen.add(node.name)
    return renamed


def _check_reload(model: Model, proto: Any) -> None:
    """Raise if load_onnx would read neither the model nor one that makes the same file."""
    import onnx

    try:
        check_model(proto)
        check_standard(proto)
        loaded = model_of(graph_of(proto, "model"), "the file")
    except (TypeError, ValueError, onnx.checker.ValidationError) as error:
        raise UnsupportedOperator(f"load_onnx would not read the file: {error}; use Model.save") from error
    if loaded == model:
        return
    again = _proto(loaded)
    if again == proto:
        return
    pairs = [(a, b) for a, b in zip(model.nodes, loaded.nodes, strict=False) if a != b]
    if not pairs:
        raise UnsupportedOperator(
            f"load_onnx would read the inputs as {loaded.inputs}, not {model.inputs}; use Model.save"
        )
    # Layers that differ only in spelling have the same node in both files.
    nodes = {node.output: written for node, written in zip(loaded.nodes, _written(loaded).nodes, strict=True)}
    for node, written in zip(model.nodes, _written(model).nodes, strict=True):
        other = next((b for a, b in pairs if a is node), None)
        if other is not None and written != nodes.get(node.output):
            raise Writer.refuse(node, f"load_onnx would read it as {other.layer}; use Model.save")
    raise Writer.refuse(pairs[0][0], f"load_onnx would read it as {pairs[0][1].layer}; use Model.save")


def _check_names(model: Model) -> None:
    """Raise if a name cannot be stored: a file holds UTF-8."""
    names = [(f"node {node.name!r}", name) for node in model.nodes for name in (node.name, *node.outputs)]
    names += [("the model", name) for name in (model.name, *model.inputs, *model.constants)]
    names += [("the model", symbol or "") for spec in model.inputs.values() for symbol in spec.symbols]
    for where, name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise UnsupportedOperator(
                f"{where}: the name {name!r} holds a lone surrogate, which no file can; rename it"
            ) from None


def _written(model: Model) -> Writer:
    """Return the nodes, in an operator set that all of them have."""
    opsets = _noted(model)
    fixed = "" in opsets
    opsets.setdefault("", OPSET)
    while True:
        writer = Writer(model, opsets)
        for node in model.nodes:
            _write(writer, node)
        least, most = writer.least, writer.most
        here = opsets[""]
        if least[0] <= here <= most[0]:
            return writer
        # A second time round, or a node evaluated in an operator set of its own, there is no choice.
        asking = least[1] if here < least[0] else most[1]
        if fixed and asking is not None:
            other = f"of operator set {least[0]}" if here < least[0] else f"older than {most[0] + 1}"
            raise writer.refuse(
                asking, f"its operator is {other}, and other layers are of {here}; use Model.save"
            )
        opsets, fixed = {**opsets, "": least[0] if here < least[0] else most[0]}, True


def _noted(model: Model) -> dict[str, int]:
    """Return the operator sets that layers name."""
    found: dict[str, int] = {}
    for node in model.nodes:
        for domain, version in getattr(node.layer, "opsets", ()):
            if found.setdefault(domain, version) != version:
                raise Writer.refuse(
                    node,
                    f"it is of operator set {version} of {domain or 'ai.onnx'}, another node of "
                    f"{found[domain]}, and a file has one; use Model.save",
                )
    return found


def _write(writer: Writer, node: Node) -> None:
    layer: Any = node.layer
    if isinstance(layer, OnnxNode):
        _write_onnx_node(writer, node, layer)
        return
    if isinstance(layer, RoundedProduct):  # the notes have its format
        layer = layer.float32
    if isinstance(layer, DequantizedProduct):
        _write_dequantized(writer, node, layer)
        return
    record = record_of(layer)
    if record is None:
        raise writer.refuse(node, "it has no form in ONNX that load_onnx reads; use Model.save")
    # Resize has a rounding of its own.
    rounding = getattr(layer, "rounding", "half_even") if record.name != "Resize" else "half_even"
    if rounding != "half_even":
        raise writer.refuse(node, f"ONNX rounds half_even, not {rounding!r}; use Model.save")
    record.write_node(writer, node, layer)


def _write_dequantized(out: Writer, node: Node, layer: Any) -> None:
    """Write a product of codes as DequantizeLinear of both and a product of float32; the notes join them."""
    is_conv = isinstance(layer, DequantizedConv)
    shape = out.shape(node.inputs[3])
    if shape is None:
        raise out.refuse(node, "the shape of its weights depends on runtime values; use Model.save")
    channels = 0 if is_conv or layer.transpose_b else len(shape) - 1
    names = [
        out.dequantized(node, name, node.inputs[place : place + 3], axis)
        for name, place, axis in (("x", 0, None), ("w", 3, channels))
    ]
    read = (*names, *node.inputs[6:])
    if is_conv:
        out.node(node, "Conv", read, group=layer.groups, kernel_shape=shape[2:], **out.window(node))
        return
    given: dict[str, Any] = {
        "alpha": layer.alpha, "beta": layer.beta, "transA": layer.transpose_a, "transB": layer.transpose_b,
    }  # fmt: skip
    if not node.inputs[6:] and given == {"alpha": 1, "beta": 1, "transA": False, "transB": False}:
        out.node(node, "MatMul", read)
    else:
        out.expect_matrices(node, "with a bias or options it is a Gemm", node.inputs[0], node.inputs[3])
        out.node(node, "Gemm", read, **given)


def _write_onnx_node(out: Writer, node: Node, layer: OnnxNode) -> None:
    """Write the node that the layer holds, under the model's names."""
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
    proto = renamed(proto, inputs, outputs)
    if (proto.name or next(filter(None, outputs))) != node.name:
        proto.name = node.name
    out.nodes.append(proto)


def _value(name: str, dtype: str, shape: list[int | str | None] | None) -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
