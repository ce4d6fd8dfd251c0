"""Operators without a layer of their own, computed by ONNX Runtime or by onnx's reference evaluator."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np

from systolic import _check, _isolated
from systolic._text import printable
from systolic.layers.base import HostLayer, Shape, UnknownShape
from systolic.layers.host import compared, session
from systolic.layers.host._loop import loop_operator
from systolic.layers.host.session import ONNX_RUNTIME
from systolic.layers.host.subgraphs import held, inner_nodes, subgraphs

Call = Callable[[dict[str, np.ndarray], bool], list[Any]]
"""Maps the inputs of a node, by name, and whether this is known to be quick, to its outputs."""

Inferred = dict[str, tuple[str | None, tuple[int | None, ...] | None]]
"""Type and shape by a tensor's name, None for what is unknown."""

ONNX = "onnx"
"""What `delegate` says of a layer that onnx's reference evaluator computes."""

STANDARD = ("", "ai.onnx", "ai.onnx.ml")
"""Domains whose operators the onnx package knows."""

WITH_SUBGRAPHS = ("If", "Loop", "Scan")
"""Operators that run other nodes: which, and how often, depends on values."""

# Nodes whose evaluators are kept; each holds the node's constants.
_KEPT = 128

# The oldest IR version with everything used here, so that old releases read it, too.
_IR_VERSION = 8

# Shape inference needs the values of sizes and axes, not those of weights.
_SHAPING_BYTES = 1 << 16

# Processor time for the shapes of a node: a fraction of a millisecond, and more where it holds much.
_SECONDS, _BYTES_PER_SECOND = 1.0, 1 << 24

# Modules that the helper process imports before its time begins.
_FOREIGN = ("onnx.reference", "onnxruntime")

# So long may Ctrl-C wait.
_QUICK_SECONDS = 0.05

# A run has no limit: Ctrl-C ends it.
_ANY_SECONDS = 1e6

# Inputs of more bytes are not sent to the helper process.
_APART_BYTES = 1 << 28

# Limits on evaluating a node on constants: a file may ask for any number of steps.
_CONSTANTS_SECONDS = 1.5
_CONSTANTS_BYTES_PER_SECOND = 1 << 22


def _operator(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{name} must be a name, not {_check.kind(value)}")
    return value


def _node(value: Any, name: str) -> np.ndarray:
    node = np.array(_check.as_array(value, name))
    if node.dtype != np.uint8 or node.ndim != 1:
        raise TypeError(f"{name} must be bytes as uint8, not {node.dtype} {_check.shape(node.shape)}")
    node.flags.writeable = False
    return node


def _opsets(value: Any, name: str) -> tuple[tuple[str, int], ...]:
    if not _check.is_listed(value) or not all(_check.is_listed(item) and len(item) == 2 for item in value):
        raise TypeError(f"{name} must be pairs (domain, version), not {_check.kind(value)}")
    return tuple((str(domain), _check.integer(version, name)) for domain, version in value)


@dataclass(frozen=True, eq=False, repr=False)
class OnnxNode(HostLayer):
    """One node of an ONNX graph, with its subgraphs, for operators without a layer of their own.

    ONNX Runtime computes it where it is installed and has the operator. Otherwise onnx's reference
    evaluator does, but only uses that were compared with ONNX Runtime (or, for operators that it lacks,
    with the test data of the ONNX standard); others are refused. `delegate` says which one computes it.

    Parameters
    ----------
    operator : str
        Its operator; tables show it as the layer's kind.
    node : ndarray of uint8
        The node (a NodeProto) as bytes.
    reads : sequence of str
        The tensors it is given, by the names they have in the node: its inputs, then what its
        subgraphs use of the graph around it.
    read_dtypes, write_dtypes : sequence of str
        Types of those, and of the node's outputs in use.
    opsets : sequence of (str, int)
        Domains and versions of the operator sets in use; "" is the standard one.

    Notes
    -----
    Running it needs ``pip install "systolic[onnx]"``. ONNX Runtime uses one thread. The first run on inputs
    of new shapes happens in a helper process, since some kernels crash on attributes that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from onnx import helper
    >>> from systolic.layers import OnnxNode
    >>> proto = helper.make_node("CumSum", ["x", "axis"], ["y"])
    >>> node = np.frombuffer(proto.SerializeToString(), np.uint8)
    >>> sums = OnnxNode("CumSum", node, ("x", "axis"), ("float32", "int64"), ("float32",), (("", 21),))
    >>> sums.kind, sums.apply(np.float32([1, 2, 3]), np.array(0))
    ('CumSum', (array([1., 3., 6.], dtype=float32),))
    """

    inputs: ClassVar[None] = None
    outputs: ClassVar[None] = None

    operator: str = field(metadata={"check": _operator})
    node: np.ndarray = field(metadata={"check": _node})
    reads: Sequence[str]
    read_dtypes: Sequence[str]
    write_dtypes: Sequence[str]
    opsets: Sequence[tuple[str, int]] = field(metadata={"check": _opsets})

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.reads) != len(self.read_dtypes) or not self.reads:
            raise ValueError(
                "reads and read_dtypes must name equally many, at least 1, not "
                f"{self.reads} and {self.read_dtypes}"
            )
        if not self.write_dtypes:
            raise ValueError("write_dtypes must hold at least one type, of the node's first output in use")

    @property
    def kind(self) -> str:
        """The operator, in printable text."""
        return printable(self.operator)

    @property
    def delegate(self) -> str:
        """Who computes it: "ONNX Runtime", also if it is missing but required, or "onnx", its evaluator."""
        return self._delegate

    @cached_property
    def _delegate(self) -> str:
        try:
            # Making a session may crash where nobody has checked the node: in a file of Model.save.
            who: str = _isolated.call(
                delegate, self.node.tobytes(), self.reads, self.read_dtypes, self.opsets, None,
                seconds=_ANY_SECONDS, what=self.kind, modules=_FOREIGN,
            )  # fmt: skip
        except (ImportError, ValueError):
            return ONNX_RUNTIME
        return who

    @cached_property
    def held(self) -> tuple[int, int]:
        """Elements and bytes of the tensors that the node and its subgraphs hold, without the node itself."""
        try:
            tensors = [tensor for tensor in _tensors(parse(self.node.tobytes())) if tensor.data_type]
            sizes = [math.prod(tensor.dims) for tensor in tensors]
            return sum(sizes), sum(size * _itemsize(t) for size, t in zip(sizes, tensors, strict=True))
        except (ImportError, KeyError, TypeError, ValueError):
            return 0, 0  # what is damaged cannot run either

    @property
    def may_loop(self) -> bool:
        """Whether the node has subgraphs, whose work does not follow from sizes."""
        return self.operator in WITH_SUBGRAPHS

    def output_shape(self, *shapes: Shape) -> tuple[Shape, ...]:
        """Return the shapes that onnx infers; UnknownShape if it cannot."""
        return self.output_shape_from([None] * len(shapes), *shapes)

    def output_shape_from(self, values: Sequence[np.ndarray | None], *shapes: Shape) -> tuple[Shape, ...]:
        """Return the shapes that onnx infers where some values are known."""
        self._expect(shapes)
        dims = dict(zip(self.reads, shapes, strict=True))
        known = {n: v for n, v in zip(self.reads, values, strict=True) if v is not None}
        types = dict(zip(self.reads, self.read_dtypes, strict=True))
        found = infer(parse(self.node.tobytes()), types, dims, known, dict(self.opsets))
        if len(found) != len(self.write_dtypes):
            raise ValueError(
                f"write_dtypes must name a type for each output of the node ({self.kind}) in use, "
                f"{', '.join(map(repr, found)) or 'none'}, not {self.write_dtypes}"
            )
        result = []
        for _, shape in found.values():
            if shape is None or None in shape:
                raise UnknownShape
            result.append(tuple(size for size in shape if size is not None))
        return tuple(result)

    def output_dtype(self, *dtypes: str) -> tuple[str, ...]:
        """Return `write_dtypes`, for inputs of `read_dtypes`."""
        self._expect(dtypes)
        names = tuple(np.dtype(dtype).name for dtype in dtypes)
        if names != self.read_dtypes:
            raise TypeError(f"{self.kind} takes {' and '.join(self.read_dtypes)}, not {' and '.join(names)}")
        return tuple(self.write_dtypes)

    def apply(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """Run the node in ONNX Runtime or the evaluator; return one array per output in use."""
        self.output_dtype(*(x.dtype.name for x in inputs))
        shapes = tuple(x.shape for x in inputs)
        quick = self._tried.get(shapes)
        if quick is not None and not self._divides:
            return self._runner(inputs, self.write_dtypes, quick)
        started = time.perf_counter()
        arrays = self._apart(*inputs)
        # How long a loop takes depends on values as well.
        self._tried[shapes] = not self.may_loop and time.perf_counter() - started < _QUICK_SECONDS
        return arrays

    def _direct(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        return self._runner(inputs, self.write_dtypes)

    def _apart(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """Compute the outputs in the helper process: some kernels crash on attributes that do not fit."""
        _onnx()
        if sum(x.nbytes for x in inputs) > _APART_BYTES:
            return self._direct(*inputs)
        try:
            arrays = _isolated.call(
                self._direct, *inputs, seconds=_ANY_SECONDS, what=self.kind, modules=_FOREIGN
            )
        except _isolated.NotEnoughMemory:
            return self._direct(*inputs)  # which may take all there is
        return tuple(arrays)

    @cached_property
    def _tried(self) -> dict[tuple[Shape, ...], bool]:
        """Shapes of inputs on which the node has run in the helper process, and whether that was quick."""
        return {}

    @cached_property
    def _divides(self) -> bool:
        """Whether a subgraph divides: integers by 0, or the smallest by -1, end ONNX Runtime's process."""
        if not self.may_loop:
            return False
        return any(inner.op_type in ("Div", "Mod") for inner in inner_nodes(parse(self.node.tobytes())))

    @cached_property
    def _runner(self) -> Runner:
        return runner(self.node.tobytes(), self.reads, self.read_dtypes, self.opsets)

    def evaluate_constants(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return what :meth:`apply` does; ValueError if it takes too long or too much memory."""
        size = sum(array.nbytes for array in inputs)
        arrays = _isolated.call(
            self._direct,
            *inputs,
            seconds=_CONSTANTS_SECONDS + size / _CONSTANTS_BYTES_PER_SECOND,
            what=f"{self.kind}, on constants,",
            modules=_FOREIGN,
        )
        return tuple(arrays)

    def _expect(self, values: Sequence[Any]) -> None:
        if len(values) != len(self.reads):
            raise TypeError(f"{self.kind} takes {len(self.reads)} inputs, not {len(values)}")


def parse(data: bytes) -> Any:
    """Return a NodeProto from its bytes; ImportError without onnx, ValueError if it is none."""
    onnx = _onnx()
    from google.protobuf.message import DecodeError

    try:
        node = onnx.NodeProto.FromString(data)
    except DecodeError as error:
        raise ValueError(f"the bytes are no node of an ONNX model: {error}") from error
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(node)):
        # The evaluator would open whatever path they name.
        raise ValueError(
            f"node {node.name!r} ({node.op_type}) holds a tensor in an external file; load it first"
        )
    return node


def infer(
    node: Any,
    dtypes: Mapping[str, str],
    shapes: Mapping[str, Sequence[int | None] | None],
    values: Mapping[str, np.ndarray],
    opsets: Mapping[str, int],
) -> Inferred:
    """Return type and shape of each of a node's outputs in use, as far as they can be inferred.

    onnx infers them for standard operators, ONNX Runtime for others. A dtype is None if the output is no
    tensor or numpy lacks its type; ValueError if the inputs do not fit.
    """
    onnx = _onnx()
    graph = _model(node, tuple(dtypes), opsets, dtypes, shapes)
    graph.graph.initializer.extend(
        onnx.numpy_helper.from_array(value, name) for name, value in small(values).items()
    )
    seconds = _SECONDS + node.ByteSize() / _BYTES_PER_SECOND
    if node.domain not in STANDARD:
        found: Inferred = _isolated.call(
            _described, graph.SerializeToString(), node.op_type,
            seconds=seconds, what="ONNX Runtime's shape inference", modules=("onnxruntime",),
        )  # fmt: skip
        return found
    try:
        done = inferred(graph, seconds, "onnx's shape inference", strict=True)
    except ValueError as error:
        if node.op_type in WITH_SUBGRAPHS and any(shape is not None for shape in shapes.values()):
            # A branch that is not taken need not fit: then the shape depends on runtime values.
            return infer(node, dtypes, {}, {}, opsets)
        raise ValueError(f"{node.op_type} does not take what reaches it: {error}") from error
    found = {}
    for value in done.graph.output:
        tensor = value.type.tensor_type
        dtype = None
        if value.type.WhichOneof("value") == "tensor_type" and tensor.elem_type:
            dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
        sizes = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
        found[value.name] = dtype, tuple(sizes) if tensor.HasField("shape") else None
    return found


def small(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the tensors that may be sizes or axes: shape inference needs no other values."""
    return {name: value for name, value in values.items() if value.nbytes <= _SHAPING_BYTES}


def prepare(
    data: bytes,
    dtypes: Mapping[str, str],
    shapes: Mapping[str, Sequence[int | None] | None],
    values: Mapping[str, np.ndarray],
    opsets: Sequence[tuple[str, int]],
) -> Inferred:
    """Return what :func:`infer` does; Refused if neither ONNX Runtime nor the evaluator can run the node."""
    found = infer(parse(data), dtypes, shapes, values, dict(opsets))
    try:
        runner(data, tuple(dtypes), tuple(dtypes.values()), opsets, shapes)
    except ValueError as error:
        raise compared.Refused(str(error)) from error
    return found


def alone(data: bytes, opsets: Sequence[tuple[str, int]]) -> np.ndarray:
    """Return the output of a node without inputs; ValueError if it is no tensor or takes too long."""
    value: np.ndarray = _isolated.call(
        _alone, data, opsets, seconds=_CONSTANTS_SECONDS, what="it", modules=_FOREIGN
    )
    return value


def _alone(data: bytes, opsets: Sequence[tuple[str, int]]) -> np.ndarray:
    (value,) = runner(data, (), (), opsets).call({}, False)
    if not isinstance(value, np.ndarray):
        raise ValueError("it gives no tensor; sequences, optionals and maps are not supported")
    return value


def inferred(model: Any, seconds: float, what: str, *, strict: bool) -> Any:
    """Return a ModelProto with the shapes that onnx infers; ValueError if its parts do not fit.

    Attributes out of range may crash onnx's native code or make it run forever. It runs in a helper
    process, for at most `seconds`.
    """
    data = _isolated.call(
        _inferred,
        model.SerializeToString(),
        strict,
        seconds=seconds,
        what=what,
        modules=("onnx.shape_inference",),
    )
    return type(model).FromString(data)


def _inferred(data: bytes, strict: bool) -> bytes:
    from onnx import shape_inference

    try:
        done = shape_inference.infer_shapes(data, strict_mode=strict, data_prop=True)
    except shape_inference.InferenceError as error:
        # A built-in exception reaches the parent unchanged.
        raise ValueError(" ".join(str(error).split())) from error
    return bytes(done.SerializeToString())


def _described(data: bytes, operator: str) -> Inferred:
    return session.describe(session.create(data, operator))


class Runner(NamedTuple):
    """Computes one node: who does, `ONNX_RUNTIME` or `ONNX`, and how."""

    operator: str
    reads: Sequence[str]
    delegate: str
    call: Call

    def __call__(
        self, inputs: Sequence[np.ndarray], dtypes: Sequence[str], quick: bool = False
    ) -> tuple[np.ndarray, ...]:
        """Return the outputs in use, of these types; `quick` if that is known to take a moment only.

        ValueError if the node does not take these values.
        """
        who = self.delegate if self.delegate == ONNX_RUNTIME else "onnx's reference evaluator"
        with session.naming(self.operator, who, but=(compared.Refused,)):
            results = self.call(dict(zip(self.reads, inputs, strict=True)), quick)
        arrays = []
        for result, dtype in zip(results, dtypes, strict=True):
            if not isinstance(result, np.ndarray | np.generic):
                raise TypeError(f"{self.operator} gave a {type(result).__name__} instead of a tensor")
            # The evaluator does not always return the standard's types. Copy as well, since it may
            # return an input itself.
            arrays.append(np.array(result, dtype=dtype))
        return tuple(arrays)


def runner(
    data: bytes,
    reads: Sequence[str],
    dtypes: Sequence[str],
    opsets: Sequence[tuple[str, int]],
    shapes: Mapping[str, Sequence[int | None] | None] | None = None,
) -> Runner:
    """Return what computes a node: ONNX Runtime, or the evaluator for compared uses that ONNX Runtime lacks.

    Correctness of the evaluator may depend on shapes; without them, every call is checked. ValueError, which
    says why, if neither can.
    """
    node, versions = parse(data), dict(opsets)
    types = dict(zip(reads, dtypes, strict=True))
    outputs = [name for name in node.output if name]
    try:
        model = _model(node, reads, versions, types)
        made = session.create(model.SerializeToString(), node.op_type)

        def call(feeds: dict[str, np.ndarray], quick: bool) -> list[Any]:
            return session.run(made, feeds, outputs, quick=quick)

        return Runner(node.op_type, reads, ONNX_RUNTIME, call)
    except session.NoKernel as error:
        lacking = str(error)

    def allow(sizes: Mapping[str, Sequence[int | None] | None]) -> None:
        why = compared.refusal(node, versions, types, sizes)
        if why is not None:
            raise compared.Refused(f"{lacking}, and {why}")

    if shapes is not None:
        allow(shapes)
    run = evaluator(data, tuple(reads), tuple(dtypes), tuple(opsets))

    def evaluated(feeds: dict[str, np.ndarray], quick: bool) -> list[Any]:
        allow({name: array.shape for name, array in feeds.items()})
        with np.errstate(all="ignore"):
            return list(run.run(None, feeds))

    return Runner(node.op_type, reads, ONNX, evaluated)


def delegate(
    data: bytes,
    reads: Sequence[str],
    dtypes: Sequence[str],
    opsets: Sequence[tuple[str, int]],
    shapes: Mapping[str, Sequence[int | None] | None] | None,
) -> str:
    """Return who computes a node; errors as for :func:`runner`."""
    return runner(data, reads, dtypes, opsets, shapes).delegate


@functools.lru_cache(maxsize=_KEPT)
def evaluator(
    data: bytes, reads: Sequence[str], dtypes: Sequence[str], opsets: Sequence[tuple[str, int]]
) -> Any:
    """Return a ReferenceEvaluator of one node, all arguments tuples; ValueError if onnx cannot make one."""
    node = parse(data)
    from onnx.reference import ReferenceEvaluator

    # Types, because what some operators are written out as depends on them.
    types = dict(zip(reads, dtypes, strict=True))
    try:
        return ReferenceEvaluator(_model(node, reads, dict(opsets), types), new_ops=[loop_operator()])
    except Exception as error:
        # A dozen kinds, some its own, for operators without an implementation.
        raise ValueError(f"onnx cannot evaluate {node.op_type}: {type(error).__name__}: {error}") from error


def _model(
    node: Any,
    reads: Sequence[str],
    opsets: Mapping[str, int],
    dtypes: Mapping[str, str] | None = None,
    shapes: Mapping[str, Sequence[int | None] | None] | None = None,
) -> Any:
    onnx = _onnx()
    unread = [name for name in node.input if name and name not in reads]
    if unread:
        # onnx's native code aborts the process if an input has neither type nor value.
        raise ValueError(
            f"reads must name all inputs of the node ({node.op_type}); {', '.join(map(repr, unread))} missing"
        )
    inputs = []
    for name in reads:
        value = onnx.ValueInfoProto(name=name)
        if dtypes is not None:
            kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtypes[name]))
            shape = None if shapes is None else shapes.get(name)
            value = onnx.helper.make_tensor_value_info(name, kind, None if shape is None else list(shape))
        inputs.append(value)
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    return onnx.helper.make_model(
        onnx.helper.make_graph([node], "node", inputs, outputs),
        opset_imports=imports,
        ir_version=_IR_VERSION,
    )


def _tensors(node: Any) -> Iterator[Any]:
    """Yield the tensors that a node and its subgraphs hold."""
    for attribute in node.attribute:
        yield from held(attribute)
    for graph in subgraphs(node):
        yield from graph.initializer
        yield from (part for s in graph.sparse_initializer for part in (s.values, s.indices))
        for inner in graph.node:
            yield from _tensors(inner)


def _itemsize(tensor: Any) -> int:
    from onnx import helper

    return int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise ImportError(
            "an operator without a layer of its own needs the onnx package: "
            'pip install "systolic[onnx]"'
        ) from error
    return onnx
