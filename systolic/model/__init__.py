"""``Model``: layers in order with named tensors; saved as a zip of arrays and JSON."""

from __future__ import annotations

import io
import math
import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from systolic import _check, _hints, layers
from systolic._files import check_plain, path_text, write_zip
from systolic._show.table import Table
from systolic._text import printable, printable_errors
from systolic.layers import HostLayer, Layer
from systolic.layers.base import Shape, UnknownShape, same_values
from systolic.model import files

if TYPE_CHECKING:
    import zipfile

    from systolic.report import Summary

LAYERS: dict[str, type[Layer]] = {
    name: cls
    for name, cls in vars(layers).items()
    if isinstance(cls, type) and issubclass(cls, Layer) and cls.__module__ != "systolic.layers.base"
}
"""Every kind of layer a model can hold, by its name."""

DTYPES = (
    "float32", "float64", "float16", "bool",
    "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
)  # fmt: skip
"""Types that a model's tensors may have."""

# Up to so many elements a tensor's values are followed without data: sizes, axes, indices.
_FEW = 1024

# The largest size given to an input: products of several stay within what numpy can hold.
_MOST = 2**40


@dataclass(frozen=True)
class TensorSpec:
    """Shape and type of a model's input.

    Parameters
    ----------
    shape : tuple of int or None
        None is any size, bound at run time; in axis 0 the batch.
    dtype : str
        "float32", "float64", "float16", "bool", or "int8" to "uint64".
    symbols : tuple of str or None
        Names of sizes that are None in `shape`: those of one name must be equal in all inputs. Empty,
        or one per axis.

    Examples
    --------
    >>> from systolic import TensorSpec
    >>> TensorSpec((None, 1, 8, 8), "float32").shape
    (None, 1, 8, 8)
    """

    shape: tuple[int | None, ...]
    dtype: str
    symbols: tuple[str | None, ...] = ()

    def __post_init__(self) -> None:
        if not _check.is_listed(self.shape):
            raise TypeError(
                f"an input's shape must be a tuple such as (None, 4), not {_check.kind(self.shape)}"
            )
        shape = tuple(self.shape)
        checked = [
            None if size is None else _check.integer(size, f"size {axis} of the input", minimum=0)
            for axis, size in enumerate(shape)
        ]
        object.__setattr__(self, "shape", tuple(checked))
        _check.choice(self.dtype, "dtype", DTYPES)
        if not _check.is_listed(self.symbols):
            raise TypeError(f"symbols must be a tuple of names or None, not {_check.kind(self.symbols)}")
        for symbol in self.symbols:
            if symbol is not None and not isinstance(symbol, str):
                raise ValueError(f"symbols name sizes that are None, not {_check.kind(symbol)}")
        symbols = tuple(self.symbols) if any(self.symbols) else ()
        if symbols and len(symbols) != len(shape):
            raise ValueError(f"symbols must be empty or one per axis of {_check.shape(shape)}, not {symbols}")
        for size, symbol in zip(checked, symbols, strict=False):
            if symbol is not None and size is not None:
                raise ValueError(f"symbols name sizes that are None, not {_check.kind(symbol)} for {size}")
        object.__setattr__(self, "symbols", symbols)

    def check(self, name: str, value: np.ndarray) -> None:
        """Raise if an array does not fit: another type TypeError, another shape ValueError."""
        if value.dtype.newbyteorder("=") != np.dtype(self.dtype):
            raise TypeError(
                f"input {name!r} must hold {self.dtype}, not {value.dtype}; "
                f"convert with .astype({self.dtype!r})"
            )
        self.check_shape(name, value.shape)

    def check_shape(self, name: str, shape: Sequence[int]) -> None:
        """Raise ValueError if a shape does not fit."""
        fits = len(shape) == len(self.shape) and all(
            want is None or have == want for have, want in zip(shape, self.shape, strict=True)
        )
        if not fits:
            any_size = " (? is any size)" if None in self.shape[1:] else " (? is any batch)"
            raise ValueError(
                f"input {name!r} must have shape {_check.shape(self.shape)}"
                f"{any_size if None in self.shape else ''}, not {_check.shape(shape)}"
                f"{_hints.other_order(name if name.isidentifier() else 'x', shape, self.shape)}"
            )


@dataclass(frozen=True, init=False)
class Node:
    """One layer of a model with the names of the tensors it reads and writes.

    Parameters
    ----------
    layer : Layer
    inputs : tuple of str
    output : str or tuple of str
        A name for each of the layer's outputs; "" for one that is not used.
    name : str
        Shown in tables and errors; by default the output's name.

    Attributes
    ----------
    outputs : tuple of str
        All names, "" among them.

    Examples
    --------
    >>> from systolic import Node, Relu
    >>> Node(Relu(), ("x",), "y").name
    'y'
    """

    layer: Layer
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    name: str

    def __init__(
        self, layer: Layer, inputs: str | Sequence[str], output: str | Sequence[str], name: str = ""
    ) -> None:
        if not isinstance(layer, Layer):
            raise TypeError(f"a node holds a Layer, not {type(layer).__name__}")
        if not isinstance(name, str):
            raise TypeError(f"a node's name must be a str, not {_check.kind(name)}")
        object.__setattr__(self, "layer", layer)
        object.__setattr__(self, "inputs", _names(inputs, "inputs"))
        object.__setattr__(self, "outputs", _names(output, "output"))
        for verb, names, count in (
            ("writes", self.outputs, layer.outputs),
            ("reads", self.inputs, layer.inputs),
        ):
            if len(names) != count and (count is not None or not names):
                wanted = "at least 1" if count is None else count
                raise ValueError(
                    f"{type(layer).__name__} {verb} {wanted} tensors, but {name or self._label!r} names "
                    f"{len(names)}: {', '.join(names) or 'none'}"
                )
        if not any(self.outputs):
            raise ValueError(f"{type(layer).__name__} {name!r} names no output")
        object.__setattr__(self, "name", name or self._label)

    @property
    def _label(self) -> str:
        return next((name for name in self.outputs if name), "")

    @property
    def output(self) -> str:
        """The first output in use."""
        return self._label

    def named(self, results: Any) -> dict[str, Any]:
        """Return what the layer gives, one thing or a tuple, by the names of the outputs in use."""
        each = (results,) if self.layer.outputs == 1 else results
        return {name: result for name, result in zip(self.outputs, each, strict=True) if name}


class Model:
    """Quantized layers in the order they run, with named tensors between them.

    Parameters
    ----------
    nodes : iterable of Node or Layer
        A bare Layer reads the tensor written before it; the first reads the first input.
    inputs : mapping of str to TensorSpec or (shape, dtype)
        The tensors the model is given.
    outputs : sequence of str, optional
        The tensors it returns; by default the last one written.
    constants : mapping of str to ndarray, optional
        Tensors that come with the model.
    name : str
        For people.

    Raises
    ------
    TypeError, ValueError
        If a tensor is read before it is written, written twice or never, or a layer reads
        another number of tensors.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import Dense, Model, QuantParams, Relu
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
        self._traced: tuple[Any, tuple[Any, ...], dict[str, tuple[Shape | None, str]]] | None = None
        if not isinstance(name, str):
            raise TypeError(f"a model's name must be a str, not {_check.kind(name)}")
        self.name = name
        self.inputs = {name: _spec(name, spec) for name, spec in inputs.items()}
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
        self.outputs = (last,) if outputs is None else _names(outputs, "outputs")
        for tensor in self.outputs:
            if tensor not in known:
                raise ValueError(f"output {tensor!r} is not a tensor of the model")

    def trace(self, shapes: Mapping[str, Shape | None]) -> dict[str, tuple[Shape | None, str]]:
        """Return shape and type of every tensor for inputs of these shapes, without data.

        A shape is None where only a run can tell: an operator's output sizes may depend on values,
        and what reads it is unknown as well. Values that follow from shapes and constants alone
        are followed.

        Raises
        ------
        TypeError, ValueError
            If a layer does not accept its inputs; the message names the node and its operator.
        """
        # The same shapes as last time give the same, unless nodes or constants were put in place of others.
        key = (self.nodes, *self.constants.values(), *self.inputs.values())
        names = (*self.constants, *self.inputs)
        self._check_shapes(shapes, unknown=True)
        given = {name: shape if shape is None else tuple(shape) for name, shape in shapes.items()}
        if self._traced is not None:
            last, of, known = self._traced
            if last == (given, names) and all(map(operator.is_, of, key)):
                return dict(known)
        missing = [name for name in self.inputs if name not in shapes]
        if missing:
            raise ValueError(f"shapes must hold one for each input; {', '.join(map(repr, missing))} missing")
        known = {name: (given[name], spec.dtype) for name, spec in self.inputs.items()}
        known |= {name: (array.shape, array.dtype.name) for name, array in self.constants.items()}
        values = dict(self.constants)
        for node in self.nodes:
            try:
                known |= _infer(node, known, values)
            except (TypeError, ValueError) as error:
                names_kind = any(name in str(error) for name in (node.layer.kind, type(node.layer).__name__))
                suffix = "" if names_kind else f" ({node.layer.kind})"
                kind = TypeError if isinstance(error, TypeError) else ValueError
                raise kind(f"node {node.name!r}{suffix}: {error}") from error
            except MemoryError as error:
                raise MemoryError(f"node {node.name!r} ({node.layer.kind}): {error}") from error
        if not any(array.flags.writeable for array in self.constants.values()):
            self._traced = (given, names), key, dict(known)
        return known

    def check_symbols(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
        """Return the size of each symbol in the inputs' shapes; ValueError if one stands for two sizes."""
        self._check_shapes(shapes)
        found: dict[str, tuple[int, str]] = {}
        for name, shape in shapes.items():
            for axis, (symbol, size) in enumerate(zip(self.inputs[name].symbols, shape, strict=False)):
                here = f"input {name!r} axis {axis}"
                other, place = found.setdefault(symbol or here, (size, here))
                if other != size:
                    raise ValueError(
                        f"{place} and {here} must be of one size, {symbol!r}, not {other} and {size}"
                    )
        return {symbol: size for symbol, (size, _) in found.items()}

    def input_shapes(
        self, batch: int = 1, *, shapes: Mapping[str, Sequence[int]] | None = None
    ) -> dict[str, Shape]:
        """Return the inputs' shapes with their symbolic sizes bound.

        Parameters
        ----------
        batch : int
            Size of axis 0 where a model takes any.
        shapes : mapping of str to tuple of int, optional
            Whole shapes of inputs by name; needed for an input with other symbolic sizes.

        Raises
        ------
        ValueError
            If a size stays open, or a shape is of no input or does not fit it.
        """
        bound = {}
        for name, shape in self._bind(batch, shapes).items():
            if shape is None:
                raise ValueError(
                    f"input {name!r} has the shape {_check.shape(self.inputs[name].shape)}; sizes beyond the "
                    f"batch must be given, by an input array or as shapes={{{name!r}: (...)}}"
                )
            bound[name] = shape
        return bound

    def _check_shapes(self, shapes: Any, *, unknown: bool = False) -> None:
        """Raise if `shapes` does not map some of the inputs to tuples, or to None if they may be unknown."""
        if not isinstance(shapes, Mapping):
            raise TypeError(f"shapes must map inputs to shapes, {{'x': (1, 4)}}, not {_check.kind(shapes)}")
        others = [name for name in shapes if name not in self.inputs]
        if others:
            names = ", ".join(map(repr, self.inputs))
            raise ValueError(f"shapes are for the inputs {names}, not {', '.join(map(repr, others))}")
        for name, shape in shapes.items():
            if not (_check.is_listed(shape) or (unknown and shape is None)):
                raise TypeError(f"the shape of {name!r} must be a tuple of sizes, not {_check.kind(shape)}")

    def _bind(self, batch: int, shapes: Mapping[str, Sequence[int]] | None) -> dict[str, Shape | None]:
        """Return the inputs' shapes, None where sizes beyond the batch are unknown."""
        given = {} if shapes is None else shapes
        self._check_shapes(given)
        whole: dict[str, Shape] = {}
        for name, shape in given.items():
            what = f"a size of {name!r}"
            whole[name] = tuple(_check.integer(size, what, minimum=0, maximum=_MOST) for size in shape)
            self.inputs[name].check_shape(name, whole[name])
        known = self.check_symbols(whole)
        batch = _check.integer(batch, "batch", minimum=0, maximum=_MOST)
        for spec in self.inputs.values():
            # The batch, unless another input's shape says what it is.
            if spec.symbols and spec.symbols[0] is not None:
                known.setdefault(spec.symbols[0], batch)
        bound: dict[str, Shape | None] = {}
        for name, spec in self.inputs.items():
            if name in whole:
                bound[name] = whole[name]
                continue
            symbols = spec.symbols or (None,) * len(spec.shape)
            sizes = [
                known.get(symbol or "", batch if axis == 0 else None) if size is None else size
                for axis, (size, symbol) in enumerate(zip(spec.shape, symbols, strict=True))
            ]
            bound[name] = None if None in sizes else tuple(size for size in sizes if size is not None)
        return bound

    # Saving and loading

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a file: a zip of ``model.json`` and ``.npy`` arrays.

        The file is complete or absent: it is written under another name and renamed.
        """
        import json

        arrays: list[np.ndarray] = []
        content = {
            "format": files.FORMAT,
            "version": files.VERSION,
            "name": self.name,
            "inputs": {
                n: {"shape": list(s.shape), "dtype": s.dtype, "symbols": list(s.symbols)}
                for n, s in self.inputs.items()
            },
            "outputs": list(self.outputs),
            "constants": {n: files.encode(a, arrays) for n, a in self.constants.items()},
            "nodes": [
                {
                    "layer": type(node.layer).__name__,
                    "name": node.name,
                    "inputs": list(node.inputs),
                    "outputs": list(node.outputs),
                    "fields": {
                        f.name: files.encode(getattr(node.layer, f.name), arrays)
                        for f in fields(node.layer)  # type: ignore[arg-type]
                    },
                }
                for node in self.nodes
            ],
        }

        def write(archive: zipfile.ZipFile) -> None:
            # Entries carry zip's earliest date, so that equal models make equal files.
            archive.writestr(files.entry("model.json"), json.dumps(content, indent=1))
            for number, array in enumerate(arrays):
                data = io.BytesIO()
                np.lib.format.write_array(data, array, allow_pickle=False)
                archive.writestr(files.entry(f"{number}.npy"), data.getvalue())

        write_zip(path, write)

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
        # Not to be opened is the caller's matter, an OSError; what follows is the file's.
        name = path_text(path)
        check_plain(name, "Model.load reads what Model.save wrote")
        with open(name, "rb") as file:
            return cls._read(file, name)

    @classmethod
    def _read(cls, file: Any, name: str) -> Model:
        try:
            with files.Reader(file, name) as reader:
                content = reader.content()
                later = content["version"] > files.VERSION
                model = None if later else cls._decoded(content, reader)
        except MemoryError:
            raise
        except Exception as error:
            # Of many kinds, depending on what is damaged: zip, JSON, an array's header, a layer's fields.
            raise ValueError(
                f"{name} is not a systolic model, or is damaged "
                f"({type(error).__name__}: {error}); Model.save writes such files, load_onnx reads ONNX"
            ) from error
        if model is None:
            raise ValueError(
                f"{name} is of version {content['version']}; this systolic reads up to "
                f"{files.VERSION}: install a newer one"
            )
        return model

    @classmethod
    def _decoded(cls, content: Any, reader: files.Reader) -> Model:
        return cls(
            [
                Node(
                    LAYERS[node["layer"]](**{n: reader.decode(v) for n, v in node["fields"].items()}),
                    tuple(node["inputs"]),
                    # Version 1 had one output.
                    node["output"] if "output" in node else tuple(node["outputs"]),
                    node["name"],
                )
                for node in content["nodes"]
            ],
            inputs={
                n: TensorSpec(tuple(s["shape"]), s["dtype"], tuple(s.get("symbols", ())))
                for n, s in content["inputs"].items()
            },
            outputs=content["outputs"],
            constants={n: reader.decode(v) for n, v in content["constants"].items()},
            name=content["name"],
        )

    # Looking at it

    def table(self, batch: int = 1, *, shapes: Mapping[str, Sequence[int]] | None = None) -> Table:
        """Return a row per node: layer, tensors, output shape and type, product sizes.

        `batch` and `shapes` bind symbolic sizes as :meth:`input_shapes` does; what stays open is ?.
        """
        known = self.trace(self._bind(batch, shapes))
        rows = []
        for node in self.nodes:
            written = [known[tensor] for tensor in filter(None, node.outputs)]
            read = [known[tensor][0] for tensor in node.inputs]
            gemm = None
            if isinstance(node.layer, layers.ArrayLayer):
                sizes = [shape for shape in read if shape is not None]
                gemm = repr(node.layer.products(*sizes)) if len(sizes) == len(read) else "?"
            rows.append(
                (
                    node.name,
                    node.layer.kind,
                    ", ".join(node.inputs),
                    ", ".join("?" if shape is None else _check.shape(shape) for shape, _ in written),
                    ", ".join(dtype for _, dtype in written),
                    gemm,
                )
            )
        return Table(["node", "layer", "reads", "shape", "dtype", "product"], rows, title=repr(self)[1:-1])

    def summary(self, **options: Any) -> Summary:
        """Return what every node holds and would cost, without data: :func:`systolic.summary`."""
        from systolic.report import summary  # pages stand above; this is how a model shows itself

        return summary(self, **options)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Model):
            return NotImplemented
        return (
            (self.name, self.inputs, self.outputs, self.nodes)
            == (other.name, other.inputs, other.outputs, other.nodes)
            and self.constants.keys() == other.constants.keys()
            and all(same_values(array, other.constants[n]) for n, array in self.constants.items())
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        inputs = ", ".join(f"{n} {_check.shape(s.shape)} {s.dtype}" for n, s in self.inputs.items())
        flow = printable(f"{inputs} -> {', '.join(self.outputs)}")
        return f"<Model {self.name!r}: {len(self.nodes)} layers, {flow}>"

    def _repr_html_(self) -> str:
        return self.table().html()


def _names(names: Any, what: str) -> tuple[str, ...]:
    """Return one tensor's name or several as a tuple; TypeError for anything else."""
    several = (names,) if isinstance(names, str) or not isinstance(names, Iterable) else tuple(names)
    for name in several:
        if not isinstance(name, str):
            raise TypeError(f"{what} must be a tensor's name, or a tuple of names, not {_check.kind(name)}")
    return several


def _constant(name: str, value: Any) -> np.ndarray:
    try:
        return np.array(_check.as_array(value, f"constant {name!r}"), order="C")
    except ValueError as error:
        why = error.__cause__ or error
        raise ValueError(f"constant {name!r} must be an array, its rows of one length: {why}") from error


def _spec(name: str, spec: Any) -> TensorSpec:
    if isinstance(spec, TensorSpec):
        return spec
    if not _check.is_listed(spec) or len(spec) != 2:
        raise TypeError(f"input {name!r} must be a TensorSpec or (shape, dtype), not {_check.kind(spec)}")
    return TensorSpec(*spec)


def _infer(
    node: Node, known: Mapping[str, tuple[Shape | None, str]], values: dict[str, np.ndarray]
) -> dict[str, tuple[Shape | None, str]]:
    """Return shape and type of what a node writes; put those of its values that can be told into `values`."""
    layer = node.layer
    dtypes = node.named(layer.output_dtype(*(known[tensor][1] for tensor in node.inputs)))
    shapes = [shape for shape, _ in (known[tensor] for tensor in node.inputs) if shape is not None]
    unknown: dict[str, tuple[Shape | None, str]] = {name: (None, dtype) for name, dtype in dtypes.items()}
    if len(shapes) < len(node.inputs):
        return unknown
    read = [values.get(tensor) for tensor in node.inputs]
    try:
        sizes = node.named(layer.output_shape_from(read, *shapes))
    except UnknownShape:
        return unknown
    if isinstance(layer, HostLayer):
        there = [array for array in read if array is not None]
        elements = sum(array.size for array in there) + sum(math.prod(shape) for shape in sizes.values())
        if len(there) == len(read) and elements <= _FEW and not layer.may_loop:
            values |= node.named(layer.fold(*there))
        else:
            value = layer.value_of(*shapes)
            if value is not None:
                values[node.output] = value
    return {name: (tuple(sizes[name]), dtype) for name, dtype in dtypes.items()}
