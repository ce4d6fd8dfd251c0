"""``OperatorRecord``: everything the package knows of one ONNX operator.

Each family of layers ends with the records of its operators, and ``layers.table`` puts them together.
``load_onnx``, ``save_onnx``, the tests and ``docs/operators.md`` loop over that table.

A reader gets a node of a graph (``frontend.operators.Operator``) and returns the layer with the tensors that
it reads; or a constant; or several nodes, made by ``op.node``; or `DELEGATE`. A writer gets the ``Writer`` of
a file, the model's node and its layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, fields
from functools import partial
from typing import Any, Final

import numpy as np

from systolic.layers.base import ArrayLayer, Layer, OptionalInputs

REQUIRED: Final[Any] = object()
"""The default of an attribute that has none."""

DELEGATE: Final[Any] = object()
"""What a reader returns where ONNX Runtime or onnx's evaluator is to compute a node."""

MICROSOFT = "com.microsoft"

# Fields of layers with a window: their attributes are read and written together.
_WINDOW = {
    "auto_pad": "padding", "dilations": "dilation", "kernel_shape": "kernel", "pads": "padding",
    "strides": "stride",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class OperatorRecord:
    """One ONNX operator.

    Attributes
    ----------
    layer : type or None
        What it is read as, None if it is a constant; its methods are the shape rule, type rule and kernel. A
        layer is written by the first record that names it, or by the one with the name of its ``kind``.
    help : str
        One line: what it computes.
    name, domain : str
        By default the layer's class and "", the standard operator set.
    inputs : tuple of str
        In the operator's order; "name?" may be absent, "name..." is any number.
    attributes : mapping of str to object
        Defaults. A bool is a flag, stored as a number; None is an attribute that is absent.
    since : int
        The first version of the operator set that has the operator, or that is supported.
    history : mapping of int to str
        What later versions changed.
    became_inputs : mapping of str to (int, int)
        Attributes, lists of integers, that are an input since a version: (version, place). A list that is
        computed is the layer's input then, and its field None; so is an empty one, if they are among
        `attributes` with the default None.
    fields : mapping of str to str
        Fields of the layer that are not named as their attribute; those of a window need none.
    fixed : mapping of str to object
        Fields of the layer that the operator decides.
    ignored : tuple of str
        Attributes that may be given and do not matter.
    delegated : function, optional
        ``delegated(op)`` says whether ONNX Runtime or onnx's evaluator is to compute a node.
    terse : tuple of str
        Attributes that are not written where they have their default.
    params : tuple of str
        Fields with the scale and zero point of each input, which follow it, and last of the output; by
        default those that are always a QuantParams.
    read, write : function, optional
        ``read(op)`` and ``write(out, node, layer)`` of operators whose attributes are not just fields; they
        may call :meth:`read_fields` and :meth:`write_fields`.
    kernel, shape, dtype : function, optional
        Of an operator that is an :class:`~systolic.layers.Op`.
    """

    layer: type[Layer] | None
    help: str
    _: KW_ONLY
    name: str = ""
    domain: str = ""
    inputs: tuple[str, ...] = ("x",)
    outputs: tuple[str, ...] = ("y",)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    since: int = 1
    history: Mapping[int, str] = field(default_factory=dict)
    became_inputs: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    delegated: Callable[[Any], bool] | None = None
    terse: tuple[str, ...] = ()
    params: tuple[str, ...] = ()
    read: Callable[[Any], Any] | None = None
    write: Callable[[Any, Any, Any], None] | None = None
    kernel: Callable[..., Any] | None = None
    shape: Callable[..., Any] | None = None
    dtype: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        if self.layer is None:
            return
        if not self.name:
            object.__setattr__(self, "name", self.layer.__name__)
        if not self.params:
            held = (f.name for f in fields(self.layer) if f.type == "QuantParams")  # type: ignore[arg-type]
            object.__setattr__(self, "params", tuple(held))

    @property
    def key(self) -> tuple[str, str]:
        """(domain, name)."""
        return self.domain, self.name

    @property
    def runs_on(self) -> str:
        """Where the operator runs: "array" or "host"."""
        return "array" if self.layer is not None and issubclass(self.layer, ArrayLayer) else "host"

    def field_of(self, attribute: str) -> str:
        """Return the field that an attribute is."""
        return self.fields.get(attribute) or _WINDOW.get(attribute, attribute)

    def read_node(self, op: Any) -> Any:
        """Return the layer of a graph's node and what it reads."""
        return self.read_fields(op) if self.read is None else self.read(op)

    def read_fields(self, op: Any) -> Any:
        """Return the layer whose fields are a node's attributes, and what it reads."""
        op.only(*self.attributes, *self.became_inputs, *self.ignored)
        if self.delegated is not None and self.delegated(op):
            return DELEGATE
        make: Any = self.layer
        given = self.given(op)
        if not self.params:
            return make(**given), self._read_inputs(op)
        # Inputs before those of codes have no parameters.
        last = len(self.inputs) - 2
        first = last - 3 * (len(self.params) - 1)
        dtype = op.dtypes.get(op.inputs[first], "uint8")
        for name, place in zip(self.params, (*range(first + 1, last, 3), last), strict=True):
            given[name] = op.params(place, place + 1, dtype=dtype)
        return make(**given), (*op.inputs[:first], *op.inputs[first:last:3])

    def given(self, op: Any) -> dict[str, Any]:
        """Return the layer's fields that a node's attributes are."""
        found = dict(self.fixed)
        for name, default in {**dict.fromkeys(self.became_inputs, ()), **self.attributes}.items():
            place = self.became_inputs[name][1] if name in self.became_inputs else None
            if place is not None and op.has(place):
                value = None if op.computed(place) else op.listed(name, place)
            elif default is REQUIRED and name not in op.attributes:
                raise ValueError(f"attribute {name} is missing")
            else:
                value = op.attribute(name, default)
            if isinstance(value, list):
                value = op.integers(name, ())
            if value == () and name in self.became_inputs and default is None:
                value = None  # an empty list means the same as none
            found[self.field_of(name)] = bool(value) if isinstance(default, bool) else value
        if "pads" in self.attributes:
            window = op.window(len(found["kernel"]))
            found |= {name: window[name] for name in ("stride", "padding", "dilation") if name in found}
        return found

    def _read_inputs(self, op: Any) -> tuple[str, ...]:
        for _, place in self.became_inputs.values():  # a constant list is a field
            return op.inputs[: place + 1] if op.computed(place) else op.inputs[:place]
        return op.given

    def optional(self, op: Any) -> list[str]:
        """Return the names of the inputs that may be absent and are given."""
        return [name[:-1] for i, name in enumerate(self.inputs) if name[-1] == "?" and op.has(i)]

    def write_node(self, out: Any, node: Any, layer: Any) -> None:
        """Write a layer as a node of the operator."""
        (self.write or self.write_fields)(out, node, layer)

    def write_fields(self, out: Any, node: Any, layer: Any, **more: Any) -> None:
        """Write a layer as a node with its fields as attributes; `more` replaces some."""
        out.since(node, 1 if self.domain else self.since)
        read = out.codes(node, self.params) if self.params else node.inputs
        if isinstance(layer, OptionalInputs):
            names = iter(read)
            read = [next(names) if name.rstrip("?") in layer.names else "" for name in self.inputs]
        given: dict[str, Any] = {}
        for name, default in {**dict.fromkeys(self.became_inputs, ()), **self.attributes}.items():
            value = getattr(layer, self.field_of(name), None)
            since, place = self.became_inputs.get(name, (0, 0))
            if since and value == () and name == "axes":
                raise out.refuse(
                    node, f"ONNX's {self.name} without {name} is over all; put an Identity in its place"
                )
            if since and len(node.inputs) > place:
                out.since(node, since)
            elif since and value is not None and out.opset >= since:
                read = (*read, out.constant(node, name, np.array(value, np.int64)))
            elif name not in self.terse or value != default:
                given[name] = value
        if "pads" in given:
            given |= out.window(node)
        given |= more
        out.node(node, self.name, read, self.domain, **given)


contrib = partial(OperatorRecord, domain=MICROSOFT)
"""Return the record of an operator of com.microsoft."""
