"""Writes a ``Model`` as an ONNX file, which ``load_onnx`` reads back."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from systolic._files import write_file
from systolic._text import printable_errors
from systolic.frontend.read import check_standard
from systolic.frontend.to_onnx.codes import CODES
from systolic.frontend.to_onnx.numbers import NUMBERS
from systolic.frontend.to_onnx.writer import Writer, tensor
from systolic.model import Model, Node

# As old as the usual operators allow, so that many runtimes read it; a layer may need another.
OPSET, IR_VERSION = 17, 8
_MOST_BYTES = 2**31 - 1

WRITERS: dict[str, Callable[[Writer, Node], None]] = {**CODES, **NUMBERS}
"""Writers by the name of the layer's class."""

LEFT_OUT: dict[str, str] = {
    "FloatConv2d": "it holds its weights, a ReLU too: write FloatConv, which reads them, and Relu",
    "FloatDense": "it holds its weights, a ReLU too: write FloatMatMul, which reads them, Add and Relu",
}
"""Layers that have no form in ONNX that load_onnx reads as the same layer, and what to write instead."""


@printable_errors
def save_onnx(model: Model, path: str | os.PathLike[str]) -> None:
    """Write a model as an ONNX file: codes in the QOperator form, the rest as standard operators.

    ``load_onnx`` of the file gives the model back; ONNX Runtime gives the same outputs, bit for bit,
    where ``load_onnx`` promises it.

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
    Operators are of ONNX operator set 17 or, where a layer's meaning needs it, of the nearest one that
    has it; and, where the standard has none on codes, of ONNX Runtime's com.microsoft: QGemm and all
    QLinear operators but QLinearConv and QLinearMatMul, and QLinearConv of images NHWC.

    Where two layers are one operator, the one for less comes back: parameters per channel hold a zero
    point for each, those of a single channel are per tensor; a convolution with a group for each input
    channel is a ``DepthwiseConv2d``, and one of a single group a ``Conv2d``; what reads constants that
    another layer holds, such as a shape, a weight or a scale, is that layer, and what reads constants
    alone is a constant. Numbers that operators keep as float32 are rounded to it; a window's integer
    that holds for all axes comes back as one for each.

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
        import onnx  # noqa: F401
    except ImportError as error:
        raise ImportError('save_onnx needs the onnx package: pip install "systolic[onnx]"') from error
    proto = _proto(model)
    size = proto.ByteSize()
    if size > _MOST_BYTES:
        raise ValueError(
            f"the model takes {size:,} bytes, and an ONNX file has at most {_MOST_BYTES:,}; use Model.save"
        )
    check_standard(proto)
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
    infos = [_value(name, *writer.output(name)) for name in between if name not in writer.undeclared]
    infos = [info for info in infos if info.type.tensor_type.HasField("shape")]
    graph = helper.make_graph(
        writer.nodes, model.name or "model", inputs, outputs, writer.tensors, value_info=infos
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in writer.opsets.items()]
    version = max(IR_VERSION, helper.find_min_ir_version_for(opsets, True))
    return helper.make_model(graph, opset_imports=opsets, ir_version=version, producer_name="systolic")


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
    kind = type(node.layer).__name__
    write = WRITERS.get(kind)
    if write is None:
        why = LEFT_OUT.get(kind, "it has no form in ONNX that load_onnx reads; use Model.save")
        raise writer.refuse(node, why)
    # Resize has a rounding of its own.
    rounding = getattr(node.layer, "rounding", "half_even") if kind != "Resize" else "half_even"
    if rounding != "half_even":
        raise writer.refuse(node, f"ONNX rounds half_even, not {rounding!r}; use Model.save")
    write(writer, node)


def _value(name: str, dtype: str, shape: list[int | str | None] | None) -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
