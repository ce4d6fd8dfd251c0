"""Any other operator of the ONNX standard, by the onnx package's own reference evaluator."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from systolic import _check
from systolic._text import printable
from systolic.layers.base import HostLayer, Shape, UnknownShape
from systolic.layers.host._loop import loop_operator

# Nodes whose evaluators are kept; each holds the node's constants.
_KEPT = 128


@dataclass(frozen=True, eq=False, repr=False)
class OnnxNode(HostLayer):
    """One node of an ONNX graph, its subgraphs among it, evaluated by the onnx package.

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
    As slow and as exact as ``onnx.reference``. Running it needs ``pip install "systolic[onnx]"``.

    Examples
    --------
    >>> import numpy as np
    >>> from onnx import helper
    >>> from systolic import OnnxNode
    >>> proto = helper.make_node("CumSum", ["x", "axis"], ["y"])
    >>> node = np.frombuffer(proto.SerializeToString(), np.uint8)
    >>> sums = OnnxNode("CumSum", node, ("x", "axis"), ("float32", "int64"), ("float32",), (("", 21),))
    >>> sums.kind, sums.apply(np.float32([1, 2, 3]), np.array(0))
    ('CumSum', (array([1., 3., 6.], dtype=float32),))
    """

    inputs: ClassVar[None] = None
    outputs: ClassVar[None] = None

    operator: str
    node: np.ndarray
    reads: Sequence[str]
    read_dtypes: Sequence[str]
    write_dtypes: Sequence[str]
    opsets: Sequence[tuple[str, int]]

    def __post_init__(self) -> None:
        if not isinstance(self.operator, str) or not self.operator:
            raise TypeError(f"operator must be a name, not {_check.kind(self.operator)}")
        node = np.array(_check.as_array(self.node, "node"))
        if node.dtype != np.uint8 or node.ndim != 1:
            raise TypeError(f"node must be bytes as uint8, not {node.dtype} {_check.shape(node.shape)}")
        node.flags.writeable = False
        object.__setattr__(self, "node", node)
        for name in ("reads", "read_dtypes", "write_dtypes"):
            value = getattr(self, name)
            listed = _check.is_listed(value)
            if not listed or not all(isinstance(item, str) for item in value):
                raise TypeError(f"{name} must be a sequence of str, not {_check.kind(value)}")
            object.__setattr__(self, name, tuple(value))
        if len(self.reads) != len(self.read_dtypes) or not self.reads:
            raise ValueError(
                "reads and read_dtypes must name equally many, at least 1, not "
                f"{self.reads} and {self.read_dtypes}"
            )
        if not self.write_dtypes:
            raise ValueError("write_dtypes must hold at least one type, of the node's first output in use")
        if not _check.is_listed(self.opsets) or not all(
            _check.is_listed(item) and len(item) == 2 for item in self.opsets
        ):
            raise TypeError(f"opsets must be pairs (domain, version), not {_check.kind(self.opsets)}")
        opsets = tuple((str(domain), _check.integer(version, "opsets")) for domain, version in self.opsets)
        object.__setattr__(self, "opsets", opsets)

    @property
    def kind(self) -> str:
        """The operator, in printable text."""
        return printable(self.operator)

    @property
    def may_loop(self) -> bool:
        """Whether the node has subgraphs, whose work no size tells."""
        return self.operator in ("If", "Loop", "Scan")

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
        result = []
        for _, shape in found.values():
            if shape is None or None in shape:
                raise UnknownShape
            result.append(tuple(size for size in shape if size is not None))
        return tuple(result)

    def output_dtype(self, *dtypes: str) -> tuple[str, ...]:
        """Return the types noted for the outputs, for inputs of the types noted for them."""
        self._expect(dtypes)
        names = tuple(np.dtype(dtype).name for dtype in dtypes)
        if names != self.read_dtypes:
            raise TypeError(f"{self.kind} takes {' and '.join(self.read_dtypes)}, not {' and '.join(names)}")
        return tuple(self.write_dtypes)

    def apply(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return what the reference evaluator gives, one array per output in use."""
        self.output_dtype(*(x.dtype.name for x in inputs))
        run = evaluator(self.node.tobytes(), self.reads, self.read_dtypes, self.opsets)
        try:
            with np.errstate(all="ignore"):
                results = run.run(None, dict(zip(self.reads, inputs, strict=True)))
        except Exception as error:
            # Whatever foreign code raises, on data that it does not take.
            raise ValueError(
                f"{self.kind}, by onnx's reference evaluator: {type(error).__name__}: {error}"
            ) from error
        arrays = []
        for result, dtype in zip(results, self.write_dtypes, strict=True):
            if not isinstance(result, np.ndarray | np.generic):
                raise TypeError(f"{self.kind} gave a {type(result).__name__} instead of a tensor")
            # The evaluator is loose about types in places; the standard is not. A copy, for it may
            # hand back what it was given.
            arrays.append(np.array(result, dtype=dtype))
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
) -> dict[str, tuple[str | None, tuple[int | None, ...] | None]]:
    """Return type and shape of each of a node's outputs in use, as far as onnx can infer them.

    A type is None where it is none of a tensor that numpy knows; ValueError if what the node reads
    does not fit.
    """
    onnx = _onnx()
    from onnx import shape_inference

    graph = _model(node, tuple(dtypes), opsets, dtypes, shapes)
    graph.graph.initializer.extend(onnx.numpy_helper.from_array(v, n) for n, v in values.items())
    try:
        done = shape_inference.infer_shapes(graph, strict_mode=True, data_prop=True)
    except shape_inference.InferenceError as error:
        text = " ".join(str(error).split())
        raise ValueError(f"{node.op_type} does not take what reaches it: {text}") from error
    found: dict[str, tuple[str | None, tuple[int | None, ...] | None]] = {}
    for value in done.graph.output:
        tensor = value.type.tensor_type
        dtype = None
        if value.type.WhichOneof("value") == "tensor_type" and tensor.elem_type:
            dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
        sizes = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
        found[value.name] = dtype, tuple(sizes) if tensor.HasField("shape") else None
    return found


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
        onnx.helper.make_graph([node], "node", inputs, outputs), opset_imports=imports
    )


def _tensors(node: Any) -> Iterator[Any]:
    """Yield the tensors that a node and its subgraphs hold."""
    for attribute in node.attribute:
        yield from (attribute.t, *attribute.tensors)
        yield from (
            part
            for s in (attribute.sparse_tensor, *attribute.sparse_tensors)
            for part in (s.values, s.indices)
        )
        for graph in (attribute.g, *attribute.graphs):
            yield from graph.initializer
            yield from (part for s in graph.sparse_initializer for part in (s.values, s.indices))
            for inner in graph.node:
                yield from _tensors(inner)


def _onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise ImportError(
            "a node that runs by onnx's reference evaluator needs the onnx package: "
            'pip install "systolic[onnx]"'
        ) from error
    return onnx
