"""ONNX Runtime on the same file: its outputs, its tensors between, and how far to believe them."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from systolic import _check, _isolated
from systolic.frontend.check import stored_bytes
from systolic.layers import ArrayLayer, DynamicQuantizeLSTM
from systolic.layers.host import session
from systolic.model import Model

# External data up to this many bytes is copied into the model, which can have 2 GiB. Beyond that ONNX Runtime
# must find them by itself, which versions before 1.21 cannot.
_EMBEDDED_BYTES = 2**30

# A check takes as long as it takes: Ctrl-C ends it.
_ANY_SECONDS = 1e6

Feeds = Mapping[str, np.ndarray]

# How far ONNX Runtime optimises for each meaning of a QDQ graph.
_LEVELS = {"integer": "ENABLE_ALL", "float": "DISABLE_ALL"}


def feeds_for(model: Model, x: np.ndarray | Feeds) -> dict[str, np.ndarray]:
    """Return a model's inputs by name, in the byte order that ONNX Runtime takes."""
    feeds = dict(x) if isinstance(x, Mapping) else {next(iter(model.inputs)): x}
    return {name: np.asarray(value).astype(model.inputs[name].dtype) for name, value in feeds.items()}


def runtime_outputs(
    path: str | os.PathLike[str], feeds: Feeds, qdq: str = "integer"
) -> dict[str, np.ndarray]:
    """Return ONNX Runtime's outputs by name.

    What `qdq` means is said in ``load_onnx``: "integer" is ONNX Runtime with all its optimisations,
    "float" without any. ImportError if it is missing, ValueError if it does not run the file.
    """
    return _apart(_outputs, path, feeds, qdq)


def _outputs(path: str, feeds: Feeds, qdq: str) -> dict[str, np.ndarray]:
    return _run(_session(path, level=_LEVELS[qdq]), feeds)


def runtime_tensors(
    path: str | os.PathLike[str], feeds: Feeds, names: Iterable[str], qdq: str = "integer"
) -> dict[str, np.ndarray]:
    """Return those of the named tensors that ONNX Runtime computes, with the graph's outputs.

    To ask ONNX Runtime for a tensor inside a group that it would fuse keeps it from fusing, and
    changes what the group means. So it first writes down its own graph, optimised up to the fusions of
    quantized operators (level "extended"; what comes after changes layouts, not values), and that
    graph, in which fused groups are single nodes, runs as it stands. What has no name in it is not
    returned. With ``qdq="float"`` nothing is fused, and every tensor is there. Errors are those of
    :func:`runtime_outputs`.
    """
    return _apart(_tensors, path, feeds, tuple(names), qdq)


def _tensors(path: str, feeds: Feeds, names: Iterable[str], qdq: str) -> dict[str, np.ndarray]:
    import tempfile

    import onnx

    with tempfile.TemporaryDirectory() as folder:
        optimised = os.path.join(folder, "optimised.onnx")
        level = "ENABLE_EXTENDED" if qdq == "integer" else "DISABLE_ALL"
        _session(path, level=level, write=optimised)
        graph = onnx.load(optimised, load_external_data=False)
        there = {tensor for node in graph.graph.node for tensor in node.output if tensor}
        shown = {output.name for output in graph.graph.output}
        # Without a type: the session infers it.
        graph.graph.output.extend(
            onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names) if name in there - shown
        )
        # Its external data stays next to the given file.
        source = os.path.dirname(os.path.abspath(path))
        if _external_bytes(graph.graph) < _EMBEDDED_BYTES:
            onnx.load_external_data_for_model(graph, source)
        return _run(_session(graph.SerializeToString(), level="DISABLE_ALL", data=source), feeds)


def doubts(model: Model) -> tuple[str, ...]:
    """Return a warning if ONNX Runtime's own products of this model may be wrong on this CPU.

    Without VNNI its kernels for uint8 x int8 on x86-64 add two products in saturating int16.
    """
    if has_vnni():
        return ()
    known = model.infer_shapes(dict.fromkeys(model.inputs))
    for node in model.nodes:
        if not isinstance(node.layer, ArrayLayer):
            continue
        # Either operand may be a tensor or an array that the layer holds, x before w.
        read = [known[tensor][1] for tensor in node.inputs]
        held = getattr(node.layer, "weight", None)
        types = [dtype for dtype in read if dtype in _check.OPERAND_DTYPES]
        types += [held.dtype.name] if isinstance(held, np.ndarray) else []
        if isinstance(node.layer, DynamicQuantizeLSTM):
            types = ["uint8", *types]  # what it makes of its input
        if types[:2] == ["uint8", "int8"]:
            return (
                "this CPU has no VNNI: ONNX Runtime's own uint8 x int8 products saturate in int16 here, "
                f"so a mismatch may be its error (node {node.name!r} and others like it)",
            )
    return ()


def has_vnni() -> bool:
    """Whether the CPU multiplies uint8 by int8 without saturating, as far as it can be asked."""
    # Other processors than x86 never saturate; where this one cannot be asked, no doubt is cast on it.
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    try:
        return "vnni" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return True


def runtime_version() -> str:
    """Return ONNX Runtime's version; ImportError, which names the extra, if it is missing."""
    return str(_onnxruntime().__version__)


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError('against="onnxruntime" needs it: pip install "systolic[onnx]"') from error
    return onnxruntime


def _apart(
    function: Callable[..., dict[str, np.ndarray]], path: str | os.PathLike[str], feeds: Feeds, *more: Any
) -> dict[str, np.ndarray]:
    """Run a file in the helper process: ONNX Runtime crashes on some files that this package computes."""
    version = runtime_version()
    arguments = os.path.abspath(path), dict(feeds), *more
    try:
        try:
            found: dict[str, np.ndarray] = _isolated.call(
                function, *arguments, seconds=_ANY_SECONDS, what="it", modules=("onnxruntime",)
            )
        except _isolated.NotEnoughMemory:
            found = function(*arguments)  # with all the memory there is
    except Exception as error:
        # What ONNX Runtime raises has no common class.
        raise ValueError(f"ONNX Runtime {version} cannot run {os.fspath(path)}: {error}") from error
    return found


def _external_bytes(graph: Any) -> int:
    """Return how much a graph's initializers keep in other files."""
    from onnx import TensorProto

    # By shape and type: a file need not say the length.
    outside = (tensor for tensor in graph.initializer if tensor.data_location == TensorProto.EXTERNAL)
    return sum(stored_bytes(f"initializer {tensor.name!r}", tensor) or 0 for tensor in outside)


def _session(
    model: str | bytes, *, level: str = "ENABLE_ALL", write: str | None = None, data: str | None = None
) -> Any:
    """Return a session of a file, or of a model's bytes whose external data is in the folder `data`."""
    runtime = _onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, f"ORT_{level}")
    # Without this, int8 activations between QuantizeLinear and DequantizeLinear are not fused on x86.
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    # Two rewritings that change results beyond the fused operator: frontend/qdq follows neither.
    options.add_session_config_entry("session.disable_double_qdq_remover", "1")
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    content = model if isinstance(model, bytes) else Path(model).read_bytes()
    if session.SPLITS in content:
        options.intra_op_num_threads = session.SHARES
        # Without it, constant int8 weights meet uint8 in sums that saturate if there is no VNNI; with it,
        # ONNX Runtime 1.32 does not run a QLinearConv of int8 there.
        precise = b"QLinearConv" not in content
        options.add_session_config_entry("session.x64quantprecision", str(int(precise)))
    if write is not None:
        options.optimized_model_filepath = write
    if data is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", data)
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _run(session: Any, feeds: Feeds) -> dict[str, np.ndarray]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))
