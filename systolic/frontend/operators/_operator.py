"""``Graph`` and ``Operator``: an ONNX graph as records, the input of converters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from systolic._check import shape as shape_text
from systolic.layers import Layer
from systolic.model import Node, TensorSpec
from systolic.quant import QuantParams


class UnsupportedOperator(ValueError):
    """A model needs an operator, or a use of one, that is not supported.

    Examples
    --------
    >>> import systolic
    >>> try:
    ...     raise systolic.UnsupportedOperator("node 'up' is a Resize")
    ... except ValueError as error:
    ...     print(error)
    node 'up' is a Resize
    """


NARROW = {"int4": "int8", "uint4": "uint8"}
"""Integers of 4 bits, which numpy lacks, and the types that hold their values here."""

Sizes = tuple[int | None, ...]
"""A shape as far as it is known."""


@dataclass
class Graph:
    """An ONNX graph read into records: rewrites change it, then it is converted.

    Attributes
    ----------
    name : str
    operators : list of Operator
        In an order in which each reads what stands before it.
    inputs : dict of str to TensorSpec
    outputs : tuple of str
    constants : dict of str to ndarray
        Initializers; and what operators on constants alone gave, as conversion comes to them.
    parameters : dict of str to ndarray
        The constants that layers may hold: `constants` itself, unless the file notes which of them are
        tensors of the model.
    noted : bool
        Whether the file has notes of ``save_onnx``: then nothing is rewritten, evaluated or omitted.
    opsets : dict of str to int
        Version of each domain's operator set; "" is the standard one.
    declared : dict of str to (str or None, tuple or None)
        Type and shape as the file states them for tensors between: hints, which nothing proved.
    dtypes : dict of str to str
        Types of the constants and inputs, and of the tensors written by operators converted so far.
    shapes : dict of str to tuple of int or None
        Their shapes as far as known; None is a size bound at run time. A tensor of unknown rank is absent.
    names : set of str
        Names that no new tensor may have: all of the file, those within subgraphs too, and those made since.
    optimized : bool
        Whether ONNX Runtime optimizes the graph that results are compared with.
    initializers : set of str
        Tensors that are constant for ONNX Runtime then: initializers, and what it computes from them first.
    narrow : dict of str to str
        Types of the constants whose elements had 4 bits in the file, and have 8 here.
    runtime : dict of str to list of int, or None
        `runtime_constants` of the layers that a noted file says to have some, by their output. None: where
        products of floats are computed exactly.
    compute : str or None
        The format of the array that products of float32 run in; None: on the host.
    computed_in : dict of str to str
        The formats of single products, by their output.
    joined : dict of str to int
        The bits of the weights of products that a saved file has as DequantizeLinear and a product of floats,
        by their output.
    """

    name: str
    operators: list[Operator]
    inputs: dict[str, TensorSpec]
    outputs: tuple[str, ...]
    constants: dict[str, np.ndarray]
    parameters: dict[str, np.ndarray]
    noted: bool = False
    opsets: dict[str, int] = field(default_factory=dict)
    declared: dict[str, tuple[str | None, Sizes | None]] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, Sizes] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    optimized: bool = True
    initializers: set[str] = field(default_factory=set)
    narrow: dict[str, str] = field(default_factory=dict)
    runtime: dict[str, list[int]] | None = field(default_factory=dict)
    compute: str | None = None
    computed_in: dict[str, str] = field(default_factory=dict)
    joined: dict[str, int] = field(default_factory=dict)

    def fresh(self, stem: str) -> str:
        """Return a name that no tensor has, and take it."""
        return fresh(stem, self.names, ".")

    def put(self, tensor: str, array: np.ndarray) -> None:
        """Make a tensor a constant; one of 4-bit integers is of int8 or uint8, with the same values."""
        if array.dtype.name in NARROW:
            self.narrow[tensor] = array.dtype.name
            array = array.astype(NARROW[array.dtype.name])
        self.constants[tensor], self.dtypes[tensor] = array, array.dtype.name
        self.shapes[tensor] = array.shape


@dataclass(frozen=True, eq=False)
class Operator:
    """One node of a graph, with what converters ask of it.

    Attributes
    ----------
    label, op_type : str
    inputs, outputs : tuple of str
        Tensor names; "" for an absent optional one.
    attributes : dict
        Values as ``onnx.helper.get_attribute_value`` gives them.
    graph : Graph
    domain : str
        "" is the standard operator set.
    captured : tuple of str
        Tensors of the graph that the node's subgraphs use.
    proto : NodeProto or None
        The file's node; None for an operator that a rewrite made.
    """

    label: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    graph: Graph = field(repr=False)
    domain: str = ""
    captured: tuple[str, ...] = ()
    proto: Any = field(default=None, repr=False)

    @property
    def key(self) -> tuple[str, str]:
        """(domain, operator), as tables of converters have it."""
        return self.domain, self.op_type

    @property
    def opset(self) -> int:
        """Version of the operator set that the node's domain is of."""
        return self.graph.opsets.get(self.domain, 1)

    @property
    def constants(self) -> dict[str, np.ndarray]:
        """The graph's constant tensors that a layer may hold."""
        return self.graph.parameters

    @property
    def dtypes(self) -> dict[str, str]:
        """Types of the tensors written so far."""
        return self.graph.dtypes

    def shape(self, index: int) -> Sizes | None:
        """Return an input's shape as far as known, None if not even its rank is.

        What follows from the inputs goes before what the file declares.
        """
        if not self.has(index):
            return None
        name = self.inputs[index]
        known = self.graph.shapes.get(name)
        return self.graph.declared.get(name, (None, None))[1] if known is None else known

    def refuse(self, what: str) -> UnsupportedOperator:
        """Return the error that this use of the operator is not supported."""
        return UnsupportedOperator(f"node {self.label!r} ({self.op_type}): {what}")

    def has(self, index: int) -> bool:
        """Whether an optional input is given."""
        return index < len(self.inputs) and self.inputs[index] != ""

    def required(self, count: int) -> tuple[str, ...]:
        """Return the first inputs; ValueError if one is absent."""
        for index in range(count):
            if not self.has(index):
                raise ValueError(f"input {index} is missing")
        return self.inputs[:count]

    def zero_point(self, index: int, operand: int) -> str:
        """Return the name of a zero point, of a new constant 0 of its operand's type if it is absent."""
        if self.has(index):
            return self.inputs[index]
        return self.add_constant(f".zero{operand}", np.zeros((), dtype=self.dtypes[self.inputs[operand]]))

    def operands(self, x_zero_point: int, w_zero_point: int) -> tuple[str, ...]:
        """Return both operands and the zero points that are given, a zero standing for an absent first."""
        read = self.required(2)
        if self.has(w_zero_point):
            return (*read, self.zero_point(x_zero_point, 0), self.inputs[w_zero_point])
        return (*read, self.inputs[x_zero_point]) if self.has(x_zero_point) else read

    @property
    def given(self) -> tuple[str, ...]:
        """The inputs that are not left out."""
        return tuple(filter(None, self.inputs))

    def computed(self, *indices: int) -> bool:
        """Whether one of these inputs is given and not a constant."""
        return any(self.has(index) and self.inputs[index] not in self.constants for index in indices)

    def value(self, index: int) -> np.ndarray | None:
        """Return an input's value; None if it is absent or computed."""
        return self.constants.get(self.inputs[index]) if self.has(index) else None

    def runtime_constants(self, *more: str) -> tuple[int, ...] | None:
        """Return the inputs that are constant for ONNX Runtime, None if it is not to compute a product.

        It computes those of float32 and `more` types.
        """
        graph, read = self.graph, self.given
        if graph.runtime is None or any(graph.dtypes[name] not in ("float32", *more) for name in read):
            return None
        if graph.noted:
            numbers = graph.runtime.get(self.outputs[0])
            return None if numbers is None else tuple(numbers)
        return tuple(i for i, name in enumerate(read) if name in graph.initializers)

    @property
    def compute(self) -> str | None:
        """The format in which a product of float32 runs on the array; None if it runs on the host."""
        return self.graph.computed_in.get(self.outputs[0], self.graph.compute)

    def listed(self, name: str, index: int = -1) -> tuple[int, ...] | None:
        """Return a list of integers that an attribute or, in later operator sets, a constant input holds."""
        if index >= 0 and self.has(index):
            return tuple(int(item) for item in self.constants[self.inputs[index]].reshape(-1))
        return self.integers(name, ()) if name in self.attributes else None

    def constant(self, index: int, what: str) -> np.ndarray:
        """Return an input that must be constant."""
        if not self.has(index):
            raise ValueError(f"input {index}, the {what}, is missing")
        name = self.inputs[index]
        if name not in self.constants:
            raise self.refuse(f"the {what} must be a constant (an initializer), but {name!r} is computed")
        return self.constants[name]

    def node(
        self, layer: Layer, inputs: Sequence[str], output: str | Sequence[str], suffix: str = ""
    ) -> Node:
        """Return one of several nodes that the operator becomes, under its name with a suffix."""
        return Node(layer, inputs, output, self.label + suffix)

    def fresh(self, suffix: str) -> str:
        """Return a name that no tensor has: the first output's with a suffix, and a number if needed."""
        return self.graph.fresh(f"{self.outputs[0]}{suffix}")

    def add_constant(self, suffix: str, array: np.ndarray) -> str:
        """Add a constant under a name of :meth:`fresh`, and return that."""
        name = self.fresh(suffix)
        self.graph.put(name, array)
        return name

    def params(
        self, scale: int, zero_point: int, *, axis: int | None = None, dtype: str = "uint8"
    ) -> QuantParams:
        """Return quantization parameters from a scale and an optional zero-point input.

        `axis` is the channels' axis where there is one scale per channel; `dtype` the type where
        no zero point gives it.
        """
        scales = self.constant(scale, "scale")
        zeros = self.constant(zero_point, "zero point") if self.has(zero_point) else np.zeros((), dtype=dtype)
        if scales.size == 1 and zeros.size == 1:
            return QuantParams(float(scales.ravel()[0]), int(zeros.ravel()[0]), zeros.dtype.name)
        if axis is None or scales.ndim > 1 or zeros.ndim > 1:
            raise self.refuse(f"a scale of shape {shape_text(scales.shape)} where one number is expected")
        counts = {scales.size, zeros.size} - {1}
        if len(counts) > 1 or 0 in counts:
            raise ValueError(
                f"scale and zero point must hold one number per channel, not {scales.size} and {zeros.size}"
            )
        each_scale = np.broadcast_to(scales.ravel(), counts.pop())
        return QuantParams(
            each_scale, np.broadcast_to(zeros.ravel(), each_scale.size), zeros.dtype.name, axis=axis
        )

    def integers(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """Return an attribute that must be a list of integers."""
        value = self.attributes.get(name, default)
        if not isinstance(value, list | tuple) or not all(isinstance(item, int) for item in value):
            raise ValueError(f"attribute {name} must be a list of integers, not {value!r}")
        return tuple(value)

    def attribute(self, name: str, default: Any) -> Any:
        """Return an attribute, text as str."""
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def only(self, *known: str) -> None:
        """Refuse attributes that the converter would ignore."""
        unknown = sorted(set(self.attributes) - set(known))
        if unknown:
            raise self.refuse(f"attribute {', '.join(unknown)} is not supported")

    def window(self, rank: int) -> dict[str, Any]:
        """Return stride, padding and dilation of a window over `rank` axes, as layers take them."""
        auto = self.attribute("auto_pad", "NOTSET")
        names = {"SAME_UPPER": "same", "SAME_LOWER": "same_lower", "VALID": "valid"}
        pads = self.integers("pads", (0,) * 2 * rank)
        if auto not in ("NOTSET", "", *names):
            raise self.refuse(f"auto_pad {auto!r}")
        if len(pads) != 2 * rank or min(pads, default=0) < 0:
            raise self.refuse(
                f"pads {list(pads)}; supported are {2 * rank}, none negative, first those before each axis"
            )
        steps = {name: self.integers(name, (1,) * rank) for name in ("strides", "dilations")}
        for name, values in steps.items():
            if len(values) != rank:
                raise ValueError(f"{name} must hold {rank} numbers, one per spatial axis, not {list(values)}")
        return {
            "stride": steps["strides"],
            "padding": names.get(auto, tuple(zip(pads[:rank], pads[rank:], strict=True))),
            "dilation": steps["dilations"],
        }


Converted = tuple[Layer, tuple[str, ...]] | np.ndarray | list[Node]
"""A layer, with one output or several, and what it reads; or a constant; or nodes that write the
operator's outputs, with tensors between them named by :meth:`Operator.fresh`."""

Converter = Callable[[Operator], Converted]


def fresh(stem: str, taken: set[str], separator: str = "") -> str:
    """Return a name that is not taken, the stem or that with a number, and take it."""
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}{separator}{number}"
    taken.add(name)
    return name


def circle(roots: Iterable[Any], below: Callable[[Any], Iterator[Any]]) -> list[Any]:
    """Return what leads, one to the next and the last to the first, in a circle; [] if nothing does.

    A depth-first search with a stack of our own, for graphs and the trees of a damaged file are deep.
    """
    done: set[Any] = set()
    for root in roots:
        path = {} if root in done else {root: below(root)}
        while path:
            last = next(reversed(path))
            child = next(path[last], None)
            if child is None:
                del path[last]
                done.add(last)
            elif child in path:
                return list(path)[list(path).index(child) :]
            elif child not in done:
                path[child] = below(child)
    return []
