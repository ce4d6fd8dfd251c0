"""``Model``: layers in order with named tensors."""

from __future__ import annotations

import operator
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from systolic import _check
from systolic._files import check_plain, path_text
from systolic._hints import nearest
from systolic._show.columns import columns, sizes_text
from systolic._show.table import Table
from systolic._text import printable, printable_errors
from systolic.config import ArrayConfig, MachineConfig, as_machine_config
from systolic.energy import DEFAULT, EnergyTable, as_table
from systolic.gemm import products_text
from systolic.layers import Layer
from systolic.layers.base import Shape
from systolic.model import archive, inference
from systolic.model.inference import Tensor, products_of
from systolic.model.mappings import MappingArgument, laid_out_on, mappings_of
from systolic.model.node import Node, as_names
from systolic.model.spec import DTYPES, TensorSpec, as_spec
from systolic.model.summaries import Summary, summarize
from systolic.presets import TPU_V1


class Model:
    """Quantized layers in the order they run, with named tensors between them.

    Parameters
    ----------
    nodes : iterable of Node or Layer
        A bare Layer reads the previous output; the first reads the first input.
    inputs : mapping of str to TensorSpec or (shape, dtype)
        The tensors the model is given.
    outputs : sequence of str, optional
        The tensors it returns; by default the last one written.
    constants : mapping of str to ndarray, optional
        Tensors stored in the model.
    name : str
        Display name.

    Attributes
    ----------
    note : str
        Why only costs can be asked of the model, as of ``load_onnx(..., costs_only=True)``; "" if it runs.

    Raises
    ------
    TypeError, ValueError
        If a tensor is read before it is written, written twice or never, or a layer reads
        another number of tensors.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import Model, QuantParams
    >>> from systolic.layers import Dense, Relu
    >>> q = QuantParams(0.5)
    >>> dense = Dense(np.eye(4, dtype=np.int8), x=q, w=q, y=q)
    >>> Model([dense, Relu()], inputs={"x": ((None, 4), "int8")})
    <Model 'model': 2 layers, x (?, 4) int8 -> t1>
    """

    def __init__(
        self,
        nodes: Iterable[Node | Layer],
        *,
        inputs: Mapping[str, TensorSpec | tuple[tuple[int | None, ...], str]],
        outputs: Iterable[str] | None = None,
        constants: Mapping[str, np.ndarray] | None = None,
        name: str = "model",
    ) -> None:
        if not isinstance(inputs, Mapping) or not inputs:
            raise ValueError('inputs must name at least one tensor, such as {"x": ((None, 4), "int8")}')
        if isinstance(nodes, str) or not isinstance(nodes, Iterable):
            raise TypeError(f"nodes must be layers or Nodes in a list, not {_check.kind(nodes)}")
        if constants is not None and not isinstance(constants, Mapping):
            raise TypeError(f"constants must be arrays by name, in a dict, not {_check.kind(constants)}")
        for tensor in (*inputs, *(constants or {})):
            if not isinstance(tensor, str):
                raise TypeError(f"a tensor's name must be a str, not {_check.kind(tensor)}")
        self._inferred: tuple[Any, tuple[Any, ...], dict[str, Tensor]] | None = None
        if not isinstance(name, str):
            raise TypeError(f"a model's name must be a str, not {_check.kind(name)}")
        self.name = name
        self.note = ""
        self.inputs = {name: as_spec(name, spec) for name, spec in inputs.items()}
        self.constants = {n: _constant(n, a) for n, a in (constants or {}).items()}
        for constant, array in self.constants.items():
            if array.dtype.name not in DTYPES:
                raise TypeError(
                    f"constant {constant!r} must hold one of {', '.join(DTYPES)}, not {array.dtype}"
                )
            array.flags.writeable = False
        listed: list[Node] = []
        known = {*self.inputs, *self.constants}
        if len(known) < len(self.inputs) + len(self.constants):
            raise ValueError("inputs and constants must have different names")
        last = next(iter(self.inputs))
        for number, item in enumerate(nodes):
            node = item if isinstance(item, Node) else Node(item, (last,), f"t{number}")
            for tensor in node.inputs:
                if tensor not in known:
                    raise ValueError(f"{node.name!r} reads {tensor!r}, which nothing before it writes")
            for tensor in filter(None, node.outputs):
                if tensor in known:
                    raise ValueError(f"{node.name!r} writes {tensor!r}, which is there already")
                known.add(tensor)
            last = node.output
            listed.append(node)
        self.nodes = tuple(listed)
        self.outputs = (last,) if outputs is None else as_names(outputs, "outputs")
        for tensor in self.outputs:
            if tensor not in known:
                raise ValueError(f"output {tensor!r} is not a tensor of the model")

    def __getitem__(self, name: str) -> Node:
        """Return a node by its name.

        Raises
        ------
        KeyError
            If no node has the name, with the nearest one that a node has, or if several have it.

        Examples
        --------
        >>> import systolic
        >>> model = systolic.load_example().model
        >>> model["stem_quant"].layer.kind, "stem_quant" in model, len(list(model))
        ('QLinearConv', True, 14)
        """
        found = [node for node in self.nodes if node.name == name]
        if not found:
            known = [node.name for node in self.nodes]
            raise KeyError(f"model {self.name!r} has no node {name!r}; {nearest(name, known)}")
        if len(found) > 1:
            raise KeyError(f"model {self.name!r} has {len(found)} nodes {name!r}; take them from .nodes")
        return found[0]

    def __contains__(self, item: object) -> bool:
        """Whether the model has a node, or one of this name."""
        return any(item in (node, node.name) for node in self.nodes)

    def __iter__(self) -> Iterator[Node]:
        """Iterate over the nodes in the order they run."""
        return iter(self.nodes)

    def check_values(self) -> None:
        """Raise ValueError if only costs can be asked of the model."""
        if self.note:
            raise ValueError(
                f"model {self.name!r} has no values to run with: it was {self.note}; estimate, summary and "
                "sweeps take it"
            )

    def infer_shapes(self, shapes: Mapping[str, Shape | None]) -> dict[str, Tensor]:
        """Infer shape and dtype of every tensor from the inputs' shapes, without data.

        A shape is None if it depends on runtime values, or on a tensor whose shape does. Values that
        follow from shapes and constants are computed.

        Raises
        ------
        TypeError, ValueError
            If a layer does not accept its inputs; the message names the node and its operator.
        """
        # Equal shapes give an equal result, unless nodes or constants were replaced since.
        key = (self.nodes, *self.constants.values(), *self.inputs.values())
        names = (*self.constants, *self.inputs)
        inference.check_shapes(self.inputs, shapes, unknown=True)
        given = {name: shape if shape is None else tuple(shape) for name, shape in shapes.items()}
        if self._inferred is not None:
            last, of, known = self._inferred
            if last == (given, names) and all(map(operator.is_, of, key)):
                return dict(known)
        known = inference.infer_shapes(self.nodes, self.inputs, self.constants, given)
        if not any(array.flags.writeable for array in self.constants.values()):
            self._inferred = (given, names), key, dict(known)
        return known

    def trace(self, shapes: Mapping[str, Shape | None]) -> dict[str, Tensor]:
        """Return :meth:`infer_shapes`, its new name."""
        warnings.warn(
            "Model.trace is now Model.infer_shapes; the old name goes after one release",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.infer_shapes(shapes)

    def check_symbols(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
        """Return the size of each symbol in the inputs' shapes; ValueError if one stands for two sizes."""
        return inference.check_symbols(self.inputs, shapes)

    def input_shapes(
        self, batch: int = 1, *, shapes: Mapping[str, Sequence[int]] | None = None
    ) -> dict[str, Shape]:
        """Return the inputs' shapes with their symbolic sizes bound.

        Parameters
        ----------
        batch : int
            Size of axis 0 of inputs that accept any.
        shapes : mapping of str to tuple of int, optional
            Whole shapes of inputs by name; needed for an input with other symbolic sizes.

        Raises
        ------
        ValueError
            If a size is unknown, or a shape does not belong to an input or does not fit it.
        """
        bound = {}
        for name, shape in inference.bind_shapes(self.inputs, batch, shapes).items():
            if shape is None:
                raise ValueError(
                    f"input {name!r} has the shape {_check.shape(self.inputs[name].shape)}; sizes beyond the "
                    f"batch must be given, by an input array or as shapes={{{name!r}: (...)}}"
                )
            bound[name] = shape
        return bound

    # Saving and loading

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a file: a zip of ``model.json`` and ``.npy`` arrays.

        The file is complete or absent: it is written under another name and renamed.
        """
        self.check_values()
        archive.write(path, self.name, self.nodes, self.inputs, self.outputs, self.constants)

    @classmethod
    @printable_errors
    def load(cls, path: str | os.PathLike[str]) -> Model:
        """Read a model that :meth:`save` wrote.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is not a systolic model, is damaged, or is of a later version.
        MemoryError
            If its arrays need more memory than is available.
        """
        # A file that cannot be opened is an OSError; whatever follows is an error in the file.
        name = path_text(path)
        check_plain(name, "Model.load reads what Model.save wrote")
        with open(name, "rb") as file:
            return archive.read(file, name, cls)

    # Looking at it

    def table(self, batch: int = 1, *, shapes: Mapping[str, Sequence[int]] | None = None) -> Table:
        """Return a row per node: layer, tensors, output shape and dtype, product sizes.

        `batch` and `shapes` bind symbolic sizes as :meth:`input_shapes` does; unknown sizes are ``?``.
        """
        known = self.infer_shapes(inference.bind_shapes(self.inputs, batch, shapes))
        rows = []
        for node in self.nodes:
            written = [known[tensor] for tensor in filter(None, node.outputs)]
            gemms = products_of(node, known)
            rows.append(
                (
                    node.name,
                    node.layer.kind,
                    ", ".join(node.inputs),
                    ", ".join(sizes_text(shape) for shape, _ in written),
                    ", ".join(dtype for _, dtype in written),
                    "?" if gemms is None else products_text(gemms[0] if gemms else None, len(gemms)),
                )
            )
        names = ("node", "layer", "inputs", "shape", "dtype", "product")
        title = f"{self.name}: {len(self.nodes)} layers, {self._flow(sizes_text)}"
        return Table(columns(*names), rows, title=title)

    def summary(
        self,
        *,
        machine: MachineConfig | ArrayConfig = TPU_V1,
        batch: int = 1,
        shapes: Mapping[str, Sequence[int]] | None = None,
        mapping: MappingArgument = None,
        energy: EnergyTable | str | None = DEFAULT,
    ) -> Summary:
        """Return shapes, MACs, estimated cycles and bytes of every node: :func:`systolic.summary`."""
        known = self.infer_shapes(inference.bind_shapes(self.inputs, batch, shapes))
        title = f"{self.name}: {self._flow(sizes_text)}"
        machine = as_machine_config(machine)
        of = laid_out_on(machine.array, mappings_of(self.nodes, mapping))
        table = as_table(energy)
        return summarize(title, self.nodes, known, self.constants, machine, self.note, of, table)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Model):
            return NotImplemented
        return (
            (self.name, self.inputs, self.outputs, self.nodes)
            == (other.name, other.inputs, other.outputs, other.nodes)
            and self.constants.keys() == other.constants.keys()
            and all(_check.same_values(array, other.constants[n]) for n, array in self.constants.items())
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Model {self.name!r}: {len(self.nodes)} layers, {printable(self._flow())}>"

    def _flow(self, shown: Callable[[tuple[int | None, ...]], str] = _check.shape) -> str:
        inputs = ", ".join(f"{n} {shown(s.shape)} {s.dtype}" for n, s in self.inputs.items())
        return f"{inputs} -> {', '.join(self.outputs)}"

    def _repr_html_(self) -> str:
        return self.table().html()


def _constant(name: str, value: Any) -> np.ndarray:
    try:
        return np.array(_check.as_array(value, f"constant {name!r}"), order="C")
    except ValueError as error:
        why = error.__cause__ or error
        raise ValueError(f"constant {name!r} must be an array, its rows of one length: {why}") from error
