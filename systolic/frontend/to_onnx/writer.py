"""``Writer``: collects the nodes and initializers of an ONNX graph in a suitable operator set."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import numpy as np

from systolic.frontend.operators import UnsupportedOperator, fresh
from systolic.layers import DequantizeLinear
from systolic.layers.base import Shape
from systolic.layers.host.evaluator import parse
from systolic.layers.host.subgraphs import inner_names
from systolic.model import Model, Node
from systolic.quant import QuantParams

_NEWEST = 1 << 16
# Operators whose last outputs may be omitted without changing the layer.
_OPTIONAL = ("LayerNormalization",)
_AUTO_PAD = {"same": "SAME_UPPER", "same_lower": "SAME_LOWER", "valid": "VALID"}
_TYPES = {"float32": "float", "float64": "double"}


class Writer:
    """Nodes and initializers as they come, and what is known of the model's tensors.

    Attributes
    ----------
    nodes, tensors : list
        NodeProtos and TensorProtos.
    opsets : dict of str to int
        Version of each domain's operator set; that of the standard one, "", is a proposal.
    least, most : (int, Node or None)
        The versions of the standard operator set that have all nodes, and which node asks for it.
    model_names : frozenset of str
        The model's tensors.
    names : set of str
        Names in use: those, tensors of the nodes' subgraphs, and tensors stored so far.
    unused : list of str
        Outputs that the model omits and the file names.
    """

    def __init__(self, model: Model, opsets: dict[str, int]) -> None:
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []
        self.opsets = dict(opsets)
        self.least: tuple[int, Node | None] = (1, None)
        self.most: tuple[int, Node | None] = (_NEWEST, None)
        self.unused: list[str] = []
        self.model_names = frozenset(
            (*model.inputs, *model.constants, *(name for node in model.nodes for name in node.outputs))
        )
        self.names = set(self.model_names)
        for node in model.nodes:
            layer: Any = node.layer
            if getattr(layer, "may_loop", False):
                self.names |= inner_names(parse(layer.node.tobytes()))
        # What differs between two sizes for what is open is open too.
        self._known = _inferred(model)
        self._dtypes = {name: dtype for name, (_, dtype) in self._known[0].items()}

    @property
    def opset(self) -> int:
        """Version of the standard operator set."""
        return self.opsets[""]

    def shape(self, tensor: str) -> Shape | None:
        """Return a tensor's shape for one size of unknown axes; None if it depends on values."""
        return self._known[0][tensor][0]

    def dtype(self, tensor: str) -> str:
        """Return a tensor's type, an initializer's too."""
        return self._dtypes[tensor]

    def output(self, tensor: str) -> tuple[str, list[int | str | None] | None]:
        """Return type and sizes of an output as a file declares them, None for an unknown number."""
        few, many = (known[tensor][0] for known in self._known)
        if few is None or many is None or len(few) != len(many):
            return self.dtype(tensor), None
        return self.dtype(tensor), [a if a == b else None for a, b in zip(few, many, strict=True)]

    def constant(self, node: Node, what: str, value: Any) -> str:
        """Store an initializer, and return its name."""
        name = fresh(f"{node.output}.{what}", self.names)
        array = np.asarray(value)
        self._dtypes[name] = array.dtype.name
        self.tensors.append(tensor(name, array))
        return name

    def params(self, node: Node, what: str, params: QuantParams | None) -> tuple[str, ...]:
        """Store scale and zero point, and return their names."""
        if params is None:
            return "", ""
        scales, zeros = params.scales, params.zero_points
        if scales.size == 1:
            # Per channel with a single channel is per tensor.
            scales, zeros = scales.reshape(()), zeros.reshape(())
        return (
            self.constant(node, f"{what}_scale", scales),
            self.constant(node, f"{what}_zero_point", zeros),
        )

    def codes(self, node: Node, fields: tuple[str, ...]) -> tuple[str, ...]:
        """Return a node's inputs, each with the parameters of its field behind it, and those of the last.

        Inputs before those of codes have none.
        """
        params = [self.params(node, field, getattr(node.layer, field)) for field in fields]
        plain = len(node.inputs) + 1 - len(fields)
        pairs = zip(node.inputs[plain:], params, strict=False)
        return (*node.inputs[:plain], *(name for x, held in pairs for name in (x, *held)), *params[-1])

    def dequantized(self, node: Node, what: str, codes: tuple[str, ...], axis: int | None) -> str:
        """Write a DequantizeLinear of a node's codes, and return the name of the numbers."""
        name = fresh(f"{node.output}.{what}", self.names)
        self._dtypes[name] = "float32"
        made = Node(DequantizeLinear(), codes, name, f"{node.name}.{what}")
        self.node(made, "DequantizeLinear", codes, axis=axis)
        return name

    def rank(self, node: Node) -> int:
        """Return the number of spatial axes of a node's first input."""
        shape = self.shape(node.inputs[0])
        if shape is None:
            raise self.refuse(node, "the rank of its input depends on runtime values; use Model.save")
        return len(shape) - 2

    def window(self, node: Node) -> dict[str, Any]:
        """Return the attributes of a layer's window, one number per axis; dilations of 1 are the default."""
        layer: Any = node.layer
        ends: Any = layer.padding
        rank = len(layer.stride) if isinstance(layer.stride, tuple) else self.rank(node)
        stride, dilation = (
            value if isinstance(value, tuple) else (value,) * rank
            for value in (layer.stride, getattr(layer, "dilation", 1))
        )
        found: dict[str, Any] = {"strides": stride, "dilations": dilation if set(dilation) - {1} else None}
        if isinstance(ends, str):
            return {**found, "auto_pad": _AUTO_PAD[ends], "pads": None}
        pairs = ends if isinstance(ends, tuple) else ((ends, ends),) * rank
        return {**found, "pads": [pair[end] for end in (0, 1) for pair in pairs], "auto_pad": None}

    def expect_matrices(self, node: Node, why: str, *tensors: str) -> None:
        """Raise if one of the tensors is not known to be a matrix."""
        for name in tensors:
            shape = self.shape(name)
            if shape is None or len(shape) != 2:
                what = "an unknown shape" if shape is None else f"{len(shape)} axes"
                raise self.refuse(node, f"{why}, which takes matrices, and {name!r} has {what}")

    def node(
        self, node: Node, op: str, inputs: Iterable[str], domain: str = "", /, **attributes: Any
    ) -> None:
        """Write a node; None as an attribute is left out, flags are numbers, tuples lists, arrays tensors."""
        from onnx import helper

        read = list(inputs)
        while read and not read[-1]:
            read.pop()
        given = {name: plain(name, value) for name, value in attributes.items() if value is not None}
        outputs = list(node.outputs)
        while op in _OPTIONAL and not outputs[-1]:
            outputs.pop()
        outputs = [name or self._unused(node, place) for place, name in enumerate(outputs)]
        if domain:
            self.opsets.setdefault(domain, 1)
        else:
            self.since(node, self._first(node, op, read, set(given)))
        self.nodes.append(helper.make_node(op, read, outputs, node.name, domain=domain, **given))

    def _unused(self, node: Node, place: int) -> str:
        """Name an output that the model omits: few operators may lack one."""
        name = fresh(f"{node.output}.unused{place}", self.names)
        self.unused.append(name)
        return name

    def since(self, node: Node, version: int) -> None:
        """Note that a node means what it does from a version of the standard operator set on."""
        if version > self.least[0]:
            self.least = version, node

    def until(self, node: Node, version: int) -> None:
        """Note that a node means what it does up to a version of the standard operator set."""
        if version < self.most[0]:
            self.most = version, node

    def _first(self, node: Node, op: str, inputs: list[str], attributes: set[str]) -> int:
        """Return the first version, from the proposed one on, with these attributes and types of inputs."""
        types = [
            f"tensor({_TYPES.get(self.dtype(name), self.dtype(name))})" if name else "" for name in inputs
        ]
        versions = _schemas()[op]
        older = [schema for schema in versions if schema.since_version <= self.opset][-1:]
        for schema in (*older, *(schema for schema in versions if schema.since_version > self.opset)):
            formal = [schema.inputs[min(i, len(schema.inputs) - 1)].types for i in range(len(types))]
            if len(types) > schema.max_input or schema.deprecated or attributes - set(schema.attributes):
                continue
            if all(not type_ or type_ in taken for type_, taken in zip(types, formal, strict=True)):
                return schema.since_version
        raise self.refuse(
            node,
            f"ONNX's {op} ({', '.join(sorted(attributes))}) takes no {', '.join(filter(None, types))} "
            "as far as the installed onnx package knows; use Model.save",
        )

    @staticmethod
    def refuse(node: Node, why: str) -> UnsupportedOperator:
        """Return the error that a node cannot be written."""
        return UnsupportedOperator(f"node {node.name!r} ({type(node.layer).__name__}): {why}")


@functools.cache
def _schemas() -> dict[str, list[Any]]:
    """Return the versions of each standard operator, oldest first."""
    from onnx import defs

    found: dict[str, list[Any]] = {}
    for schema in sorted(defs.get_all_schemas_with_history(), key=lambda schema: schema.since_version):
        if not schema.domain:
            found.setdefault(schema.name, []).append(schema)
    return found


def tensor(name: str, array: np.ndarray) -> Any:
    """Return an array as a TensorProto."""
    from onnx import numpy_helper

    native = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    return numpy_helper.from_array(native.reshape(array.shape), name)


def plain(name: str, value: Any) -> Any:
    """Return a field as an attribute's value."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, np.ndarray):
        return tensor(name, value)
    return list(value) if isinstance(value, tuple) else value


def _inferred(model: Model) -> list[dict[str, tuple[Shape | None, str]]]:
    """Infer shapes and dtypes for two sizes of unknown axes; twice the same if only one fits."""
    batch_only = not any(None in spec.shape[1:] for spec in model.inputs.values())
    found: list[dict[str, tuple[Shape | None, str]]] = []
    # load_onnx tries a batch of 1; other sizes may have to be larger, to hold a window.
    for size in (1, 2) if batch_only else (2, 3, *range(4, 65), 1):
        shapes = {n: tuple(size if s is None else s for s in spec.shape) for n, spec in model.inputs.items()}
        try:
            found.append(model.infer_shapes(shapes))
        except ValueError as error:
            if batch_only and not found:
                raise UnsupportedOperator(f"a batch of 1 does not fit: {error}; say the batch") from error
        if len(found) == 2:
            return found
    if not found:
        raise UnsupportedOperator("no size from 1 to 64 fits the open ones; say more of the inputs' shapes")
    return found * 2
