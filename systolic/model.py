"""``Model``: layers in order with named tensors; saved as a zip of arrays and JSON."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from systolic import _check, layers
from systolic._files import replacing
from systolic._show.table import Table
from systolic.layers import Layer
from systolic.layers.base import same_values
from systolic.quant import QuantParams

if TYPE_CHECKING:
    import zipfile

LAYERS: dict[str, type[Layer]] = {
    name: cls
    for name, cls in vars(layers).items()
    if isinstance(cls, type) and issubclass(cls, Layer) and cls.__module__ != "systolic.layers.base"
}
"""Every kind of layer a model can hold, by its name."""

FORMAT = "systolic.Model"
VERSION = 1


@dataclass(frozen=True)
class TensorSpec:
    """Shape and type of a model's input.

    Parameters
    ----------
    shape : tuple of int or None
        The first size may be None: any batch.
    dtype : str
        "float32", "int8", "uint8" or "int32".

    Examples
    --------
    >>> from systolic import TensorSpec
    >>> TensorSpec((None, 1, 8, 8), "float32").shape
    (None, 1, 8, 8)
    """

    shape: tuple[int | None, ...]
    dtype: str

    def __post_init__(self) -> None:
        if not isinstance(self.shape, Sequence) or isinstance(self.shape, str):
            raise TypeError(
                f"an input's shape must be a tuple such as (None, 4), not {_check.kind(self.shape)}"
            )
        shape = tuple(self.shape)
        checked = [
            None
            if size is None and axis == 0
            else _check.integer(size, f"size {axis} of the input", minimum=0)
            for axis, size in enumerate(shape)
        ]
        object.__setattr__(self, "shape", tuple(checked))
        _check.choice(self.dtype, "dtype", ("float32", "int8", "uint8", "int32"))

    def check(self, name: str, value: np.ndarray) -> None:
        """Raise if an array does not fit: another type TypeError, another shape ValueError."""
        if value.dtype.newbyteorder("=") != np.dtype(self.dtype):
            raise TypeError(
                f"input {name!r} must hold {self.dtype}, not {value.dtype}; "
                f"convert with .astype({self.dtype!r})"
            )
        fits = len(value.shape) == len(self.shape) and all(
            want is None or have == want for have, want in zip(value.shape, self.shape, strict=True)
        )
        if not fits:
            batch = " (? is any batch)" if None in self.shape else ""
            raise ValueError(
                f"input {name!r} must have shape {_check.shape(self.shape)}{batch}, "
                f"not {_check.shape(value.shape)}"
            )


@dataclass(frozen=True)
class Node:
    """One layer of a model with the names of the tensors it reads and writes.

    Parameters
    ----------
    layer : Layer
    inputs : tuple of str
    output : str
    name : str
        Shown in tables and errors; by default the output's name.

    Examples
    --------
    >>> from systolic import Node, Relu
    >>> Node(Relu(), ("x",), "y").name
    'y'
    """

    layer: Layer
    inputs: tuple[str, ...]
    output: str
    name: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.layer, Layer):
            raise TypeError(f"a node holds a Layer, not {type(self.layer).__name__}")
        inputs = (self.inputs,) if isinstance(self.inputs, str) else tuple(self.inputs)
        object.__setattr__(self, "inputs", inputs)
        if len(self.inputs) != self.layer.inputs:
            raise ValueError(
                f"{type(self.layer).__name__} reads {self.layer.inputs} tensors, but {self.output!r} names "
                f"{len(self.inputs)}: {', '.join(self.inputs) or 'none'}"
            )
        if not self.name:
            object.__setattr__(self, "name", self.output)


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
        self.name = name
        self.inputs = {name: _spec(name, spec) for name, spec in inputs.items()}
        self.constants = {n: np.array(a, order="C") for n, a in (constants or {}).items()}
        for array in self.constants.values():
            array.flags.writeable = False
        self.nodes: tuple[Node, ...] = ()
        known = {*self.inputs, *self.constants}
        if len(known) < len(self.inputs) + len(self.constants):
            raise ValueError("inputs and constants must have different names")
        last = next(iter(self.inputs))
        for number, item in enumerate(nodes):
            node = item if isinstance(item, Node) else Node(item, (last,), f"t{number}")
            for tensor in node.inputs:
                if tensor not in known:
                    raise ValueError(f"{node.name!r} reads {tensor!r}, which nothing before it writes")
            if node.output in known:
                raise ValueError(f"{node.name!r} writes {node.output!r}, which is there already")
            known.add(node.output)
            last = node.output
            self.nodes += (node,)
        if outputs is None or isinstance(outputs, str):
            outputs = (last if outputs is None else outputs,)
        self.outputs = tuple(outputs)
        for tensor in self.outputs:
            if tensor not in known:
                raise ValueError(f"output {tensor!r} is not a tensor of the model")

    def trace(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return shape and type of every tensor for inputs of these shapes, without data.

        Raises
        ------
        TypeError, ValueError
            If a layer does not take what reaches it; the message names the node.
        """
        missing = [name for name in self.inputs if name not in shapes]
        if missing:
            raise ValueError(f"shapes must hold one for each input; {', '.join(map(repr, missing))} missing")
        known = {name: (tuple(shapes[name]), spec.dtype) for name, spec in self.inputs.items()}
        known |= {name: (array.shape, array.dtype.name) for name, array in self.constants.items()}
        for node in self.nodes:
            read = [known[tensor] for tensor in node.inputs]
            try:
                dtype = node.layer.output_dtype(*(d for _, d in read))
                shape = node.layer.output_shape(*(s for s, _ in read))
            except (TypeError, ValueError) as error:
                raise type(error)(f"node {node.name!r}: {error}") from error
            known[node.output] = (shape, dtype)
        return known

    def input_shapes(self, batch: int = 1) -> dict[str, tuple[int, ...]]:
        """Return the inputs' shapes with `batch` where a model takes any."""
        return {
            name: tuple(batch if size is None else size for size in spec.shape)
            for name, spec in self.inputs.items()
        }

    # Saving and loading

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a file: a zip of ``model.json`` and ``.npy`` arrays.

        The file is complete or absent: it is written under another name and renamed.
        """
        import json
        import zipfile

        arrays: list[np.ndarray] = []
        content = {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "inputs": {n: {"shape": list(s.shape), "dtype": s.dtype} for n, s in self.inputs.items()},
            "outputs": list(self.outputs),
            "constants": {n: _encode(a, arrays) for n, a in self.constants.items()},
            "nodes": [
                {
                    "layer": type(node.layer).__name__,
                    "name": node.name,
                    "inputs": list(node.inputs),
                    "output": node.output,
                    "fields": {
                        f.name: _encode(getattr(node.layer, f.name), arrays)
                        for f in fields(node.layer)  # type: ignore[arg-type]
                    },
                }
                for node in self.nodes
            ],
        }
        with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            # Entries carry zip's earliest date, so that equal models make equal files.
            archive.writestr(_entry("model.json"), json.dumps(content, indent=1))
            for number, array in enumerate(arrays):
                data = io.BytesIO()
                np.lib.format.write_array(data, array, allow_pickle=False)
                archive.writestr(_entry(f"{number}.npy"), data.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Model:
        """Read a model that :meth:`save` wrote.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is not a systolic model, is damaged, or is of a later version.
        """
        # Not to be opened is the caller's matter, an OSError; what follows is the file's.
        with open(os.fspath(path), "rb") as file:
            return cls._read(file, os.fspath(path))

    @classmethod
    def _read(cls, file: Any, name: str) -> Model:
        import json
        import zipfile

        try:
            with zipfile.ZipFile(file) as archive:
                content = json.loads(archive.read("model.json"))
                if content["format"] != FORMAT:
                    raise KeyError("format")
                if content["version"] > VERSION:
                    raise ValueError(
                        f"{name} is of version {content['version']}; this systolic reads up to "
                        f"{VERSION}: install a newer one"
                    )

                def decode(value: Any) -> Any:
                    return _decode(value, archive)

                return cls(
                    [
                        Node(
                            LAYERS[node["layer"]](**{n: decode(v) for n, v in node["fields"].items()}),
                            tuple(node["inputs"]),
                            node["output"],
                            node["name"],
                        )
                        for node in content["nodes"]
                    ],
                    inputs={
                        n: TensorSpec(tuple(s["shape"]), s["dtype"]) for n, s in content["inputs"].items()
                    },
                    outputs=content["outputs"],
                    constants={n: decode(v) for n, v in content["constants"].items()},
                    name=content["name"],
                )
        except _damaged() as error:
            raise ValueError(
                f"{name} is not a systolic model, or is damaged "
                f"({type(error).__name__}: {error}); Model.save writes such files, load_onnx reads ONNX"
            ) from error

    # Looking at it

    def table(self, batch: int = 1) -> Table:
        """Return a row per node: layer, tensors, output shape and type, product sizes."""
        shapes = self.trace(self.input_shapes(batch))
        rows = []
        for node in self.nodes:
            shape, dtype = shapes[node.output]
            gemm = None
            if isinstance(node.layer, layers.ArrayLayer):
                gemm = repr(node.layer.products(*(shapes[t][0] for t in node.inputs)))
            rows.append(
                (
                    node.name,
                    type(node.layer).__name__,
                    ", ".join(node.inputs),
                    _check.shape(shape),
                    dtype,
                    gemm,
                )
            )
        return Table(["node", "layer", "reads", "shape", "dtype", "product"], rows, title=repr(self)[1:-1])

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
        return f"<Model {self.name!r}: {len(self.nodes)} layers, {inputs} -> {', '.join(self.outputs)}>"

    def _repr_html_(self) -> str:
        return self.table().html()


def _spec(name: str, spec: Any) -> TensorSpec:
    if isinstance(spec, TensorSpec):
        return spec
    if not isinstance(spec, Sequence) or len(spec) != 2 or isinstance(spec, str):
        raise TypeError(f"input {name!r} must be a TensorSpec or (shape, dtype), not {_check.kind(spec)}")
    return TensorSpec(*spec)


def _damaged() -> tuple[type[Exception], ...]:
    """Return what reading a zip, its JSON, its arrays and the layers they make can raise."""
    import json
    import zipfile
    import zlib

    return (
        zipfile.BadZipFile,
        zlib.error,
        OSError,
        RuntimeError,
        KeyError,
        TypeError,
        AttributeError,
        EOFError,
        MemoryError,
        OverflowError,
        UnicodeDecodeError,
        json.JSONDecodeError,
    )


def _entry(name: str) -> zipfile.ZipInfo:
    import zipfile

    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def _encode(value: Any, arrays: list[np.ndarray]) -> Any:
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"array": f"{len(arrays) - 1}.npy"}
    if isinstance(value, QuantParams):
        return {"quant": value.to_dict()}
    if isinstance(value, tuple):
        return [_encode(item, arrays) for item in value]
    return value


def _decode(value: Any, archive: zipfile.ZipFile) -> Any:
    if isinstance(value, dict) and set(value) == {"array"}:
        return np.lib.format.read_array(io.BytesIO(archive.read(value["array"])), allow_pickle=False)
    if isinstance(value, dict) and set(value) == {"quant"}:
        return QuantParams.from_dict(value["quant"])
    if isinstance(value, list):
        return tuple(_decode(item, archive) for item in value)
    return value
