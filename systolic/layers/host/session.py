"""Run one node of an ONNX graph in ONNX Runtime.

One session per node: creating it takes about 0.4 ms, and calling it some 15 us more than the node's own
work. Joining neighboring nodes into one session would save these 15 us (bench/bench_node.py measures both).
"""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

ONNX_RUNTIME = "ONNX Runtime"
"""What `delegate` says of a layer that it computes."""

NO_MEMORY = ("std::bad_alloc", "Failed to allocate memory")
"""Messages of ONNX Runtime when memory runs out: it has no class of errors for that."""

SPLITS = b"DynamicQuantizeLSTM"
"""An operator whose results depend on the number of threads: each share of a batch has a scale of its own."""

SHARES = 32
"""Threads with which each of as many sequences has its own."""

# Messages for an operator that it does not have.
_MISSING = ("NOT_IMPLEMENTED", "is not a registered function/op", "No Op registered", "is under development")


class NoKernel(ValueError):
    """ONNX Runtime is not installed, or does not have the operator for these types and this version."""


@functools.cache
def operators() -> frozenset[tuple[str, str]]:
    """Return (domain, operator) of what ONNX Runtime declares beyond the standard operator sets."""
    if _onnxruntime() is None:
        return frozenset()
    from onnxruntime.capi import _pybind_state as state

    # Not part of its public interface: without it, only standard operators are known.
    schemas: list[Any] = getattr(state, "get_all_operator_schema", list)()
    return frozenset((s.domain, s.name) for s in schemas if s.domain == "com.microsoft")


def installed() -> bool:
    """Whether ONNX Runtime is, and onnx, which writes what it reads."""
    return _onnxruntime() is not None and _onnx() is not None


def create_node(
    operator: str,
    attributes: Mapping[str, Any],
    reads: Sequence[str],
    constants: Mapping[str, np.ndarray],
    kinds: Mapping[str, tuple[np.dtype, tuple[int, ...] | None]],
) -> Any:
    """Return a session of an operator, its domain before a dot, that writes "y", of float32.

    `reads` names its inputs, "" those left out; `kinds` are their types and shapes, None for any. `constants`
    are initializers: the session may read their memory at any time.
    """
    onnx, helper = _onnx(), _onnx().helper
    domain, _, name = operator.rpartition(".")
    types = {tensor: helper.np_dtype_to_tensor_dtype(dtype) for tensor, (dtype, _) in kinds.items()}
    # The data of initializers is given apart: a message has 2 GiB at most, and would be one more copy.
    initializers = [
        onnx.TensorProto(
            name=tensor, data_type=types[tensor], dims=value.shape, data_location=onnx.TensorProto.EXTERNAL,
            external_data=[onnx.StringStringEntryProto(key="location", value="memory")],
        )
        for tensor, value in constants.items()
    ]  # fmt: skip
    read = [name for name in reads if name and name not in constants]
    inputs = [helper.make_tensor_value_info(name, types[name], kinds[name][1]) for name in read]
    graph = helper.make_graph(
        [helper.make_node(name, reads, ["y"], domain=domain, **attributes)],
        "node",
        inputs,
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        initializers,
    )
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return create(model.SerializeToString(), operator, constants)


def create(model: bytes, what: str, constants: Mapping[str, np.ndarray] | None = None) -> Any:
    """Return a session of a model that holds one node, called `what` in errors.

    The number of threads is fixed: results then do not depend on the machine's cores. `constants` are the
    values of initializers that the model says are external. NoKernel if ONNX Runtime is missing or does not
    have the operator, ValueError if it does not accept the node.
    """
    runtime = _onnxruntime()
    if runtime is None:
        raise NoKernel("ONNX Runtime is not installed")
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = SHARES if SPLITS in model else 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    values = [runtime.OrtValue.ortvalue_from_numpy(value) for value in (constants or {}).values()]
    if constants:
        options.add_external_initializers(list(constants), values)
    try:
        # Evaluating constants takes unknown time, and a run may never need them.
        made = runtime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"], disabled_optimizers=["ConstantFolding"]
        )
    except Exception as error:
        # Its classes have no common base, and one cause may raise several of them.
        text = " ".join(str(error).split())
        kind = NoKernel if any(words in text for words in _MISSING) else ValueError
        raise kind(f"ONNX Runtime {runtime.__version__} does not take {what}: {text}") from error
    made.held = values  # as long as it may run: an interrupted call goes on without its caller
    return made


def describe(session: Any) -> dict[str, tuple[str | None, tuple[int | None, ...] | None]]:
    """Return type and shape of a session's outputs, as far as ONNX Runtime infers them."""
    found: dict[str, tuple[str | None, tuple[int | None, ...] | None]] = {}
    for output in session.get_outputs():
        kind = output.type.removeprefix("tensor(").removesuffix(")")
        dtype = {"float": "float32", "double": "float64"}.get(kind, kind)
        with contextlib.suppress(TypeError):
            sizes = tuple(size if isinstance(size, int) else None for size in output.shape)
            # A scalar and a tensor of unknown rank look alike.
            found[output.name] = np.dtype(dtype).name, sizes or None
        found.setdefault(output.name, (None, None))
    return found


def run(
    session: Any, feeds: Mapping[str, np.ndarray], names: Sequence[str], *, quick: bool = False
) -> list[Any]:
    """Return a session's outputs; an interrupt ends the wait for them.

    Python handles signals only between bytecodes of the main thread, and a call may take any time. So a
    call from the main thread runs in another one, which costs some 50 us, unless it is known to be `quick`.
    """
    options = _onnxruntime().RunOptions()
    options.log_severity_level = 4

    def call() -> list[Any]:
        return session.run(list(names), dict(feeds), options)

    if quick or threading.current_thread() is not threading.main_thread():
        return call()
    try:
        return _Caller.current().wait(call)
    except BaseException:
        # End the run before its next node; nothing waits for the rest.
        options.terminate = True
        raise


@contextlib.contextmanager
def naming(operator: str, who: str, *, but: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Name operator and library in errors: foreign code may raise anything on data that it does not accept.

    Errors of the kinds `but` stay as they are; others become ValueError or MemoryError.
    """
    try:
        yield
    except but:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        if isinstance(error, MemoryError) or any(words in text for words in NO_MEMORY):
            raise MemoryError(f"{operator}, by {who}, needs more memory than there is") from error
        raise ValueError(f"{operator}, by {who}: {type(error).__name__}: {text}") from error


class _Caller:
    """A thread that makes one call at a time; it is abandoned if the wait is interrupted."""

    _own: _Caller | None = None

    def __init__(self) -> None:
        self.process = os.getpid()
        self.calls: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self.results: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="systolic ONNX Runtime", daemon=True).start()

    @classmethod
    def current(cls) -> _Caller:
        """Return the idle caller of this process; threads do not survive a fork."""
        own, cls._own = cls._own, None
        return own if own is not None and own.process == os.getpid() else cls()

    def wait(self, call: Callable[[], Any]) -> Any:
        """Return what the call returns, or raise what it raises."""
        try:
            self.calls.put(call)
            result, error = self.results.get()
            _Caller._own = self
        except BaseException:
            # The result may still arrive: end the thread after this call, so that no other call gets it.
            self.calls.put(None)
            raise
        if error is not None:
            raise error
        return result

    def _work(self) -> None:
        while (call := self.calls.get()) is not None:
            result, error = None, None
            try:
                result = call()
            except BaseException as raised:
                error = raised
            self.results.put((result, error))
            # Free results and operands while the thread waits.
            del call, result, error


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        return None
    return onnxruntime


def _onnx() -> Any:
    try:
        import onnx
        import onnx.helper
    except ImportError:
        return None
    return onnx
