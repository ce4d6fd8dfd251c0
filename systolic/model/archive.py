"""The file of a saved ``Model``: a zip of ``model.json`` and ``.npy`` arrays."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import IO, TYPE_CHECKING, Any, TypeVar

import numpy as np

from systolic import _renamed, layers
from systolic._files import write_zip
from systolic._memory import require
from systolic.layers import Layer
from systolic.model.node import Node
from systolic.model.spec import TensorSpec
from systolic.quant import QuantParams

if TYPE_CHECKING:
    import zipfile

_M = TypeVar("_M")

FORMAT = "systolic.Model"
VERSION = 3  # 1: one output a node. 2: the layers' names of then.


LAYERS: dict[str, type[Layer]] = {
    name: cls
    for name, cls in vars(layers).items()
    if isinstance(cls, type) and issubclass(cls, Layer) and cls.__module__ != "systolic.layers.base"
}
"""Every kind of layer a model can hold, by its name."""


def write(
    path: str | os.PathLike[str],
    name: str,
    nodes: Iterable[Node],
    inputs: Mapping[str, TensorSpec],
    outputs: Iterable[str],
    constants: Mapping[str, np.ndarray],
) -> None:
    """Write a model's parts to a file, completely or not at all."""
    import json

    arrays: list[np.ndarray] = []
    content = {
        "format": FORMAT,
        "version": VERSION,
        "name": name,
        "inputs": {
            n: {"shape": list(s.shape), "dtype": s.dtype, "symbols": list(s.symbols)}
            for n, s in inputs.items()
        },
        "outputs": list(outputs),
        "constants": {n: _encoded(a, arrays) for n, a in constants.items()},
        "nodes": [
            {
                "layer": type(node.layer).__name__,
                "name": node.name,
                "inputs": list(node.inputs),
                "outputs": list(node.outputs),
                "fields": {
                    f.name: _encoded(getattr(node.layer, f.name), arrays)
                    for f in fields(node.layer)  # type: ignore[arg-type]
                },
            }
            for node in nodes
        ],
    }

    def write_entries(archive: zipfile.ZipFile) -> None:
        archive.writestr(_entry("model.json"), json.dumps(content, indent=1))
        for number, array in enumerate(arrays):
            data = io.BytesIO()
            np.lib.format.write_array(data, array, allow_pickle=False)
            archive.writestr(_entry(f"{number}.npy"), data.getvalue())

    write_zip(path, write_entries)


def read(file: IO[bytes], name: str, make: Callable[..., _M]) -> _M:
    """Return `make` called with the arguments of the ``Model`` that a file holds; see ``Model.load``."""
    try:
        with _Reader(file, name) as reader:
            content = reader.content()
            if content["version"] <= VERSION:
                return make(**_arguments(content, reader))
    except MemoryError:
        raise
    except Exception as error:
        # Of many kinds, depending on what is damaged: zip, JSON, an array's header, a layer's fields.
        raise ValueError(
            f"{name} is not a systolic model, or is damaged "
            f"({type(error).__name__}: {error}); Model.save writes such files, load_onnx reads ONNX"
        ) from error
    raise ValueError(
        f"{name} is of version {content['version']}; this systolic reads up to {VERSION}: install a newer one"
    )


def _arguments(content: Any, reader: _Reader) -> dict[str, Any]:
    return {
        "nodes": [
            Node(
                _layer(
                    node["layer"],
                    {n: reader.decode(v) for n, v in node["fields"].items()},
                    content["version"],
                ),
                tuple(node["inputs"]),
                # Version 1 had one output.
                node["output"] if "output" in node else tuple(node["outputs"]),
                node["name"],
            )
            for node in content["nodes"]
        ],
        "inputs": {
            n: TensorSpec(tuple(s["shape"]), s["dtype"], tuple(s.get("symbols", ())))
            for n, s in content["inputs"].items()
        },
        "outputs": content["outputs"],
        "constants": {n: reader.decode(v) for n, v in content["constants"].items()},
        "name": content["name"],
    }


def _layer(name: str, values: dict[str, Any], version: int) -> Layer:
    """Return a layer of a file of this version, which may have the name and fields of then."""
    # Only there: a later class may have an earlier one's name.
    new, convert = _renamed.LAYERS.get(name, (name, None)) if version < VERSION else (name, None)
    return LAYERS[new](**(values if convert is None else convert(**values)))


def _entry(name: str) -> zipfile.ZipInfo:
    """Return a compressed entry of zip's earliest date: equal models make equal files."""
    import zipfile

    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def _encoded(value: Any, arrays: list[np.ndarray]) -> Any:
    """Return a field as JSON has it; arrays go to `arrays`, by number."""
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"array": f"{len(arrays) - 1}.npy"}
    if isinstance(value, QuantParams):
        return {"quant": value.to_dict()}
    if isinstance(value, tuple):
        return [_encoded(item, arrays) for item in value]
    return value


class _Reader:
    """Reads the entries of a file, never more bytes than the file's size allows for."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        import zipfile

        self._archive = zipfile.ZipFile(file)
        self._used: set[str] = set()
        entries = self._archive.infolist()
        kinds = {entry.compress_type for entry in entries} - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
        if kinds:
            raise ValueError(f"it is compressed by method {kinds.pop()}, which Model.save does not use")
        # Entries may overlap, and then hold far more data than the file.
        size = file.seek(0, os.SEEK_END)
        if sum(entry.compress_size for entry in entries) > size:
            raise ValueError(f"its entries overlap: they are longer than its {size:,} bytes")
        require(sum(entry.file_size for entry in entries), f"{name}: what it holds")

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()

    def content(self) -> Any:
        """Return the content of ``model.json``."""
        import json

        content = json.loads(self._read("model.json"))
        if content["format"] != FORMAT:
            raise KeyError("format")
        return content

    def decode(self, value: Any) -> Any:
        """Return the field that :func:`_encoded` wrote."""
        if isinstance(value, dict) and set(value) == {"array"}:
            return self._array(value["array"])
        if isinstance(value, dict) and set(value) == {"quant"}:
            return QuantParams.from_dict(value["quant"])
        if isinstance(value, list):
            return tuple(self.decode(item) for item in value)
        return value

    def _read(self, name: str) -> bytes:
        # An entry may be used once: a small file could otherwise expand without bound.
        if name in self._used:
            raise ValueError(f"its entry {name!r} is used twice")
        self._used.add(name)
        return self._archive.read(name)

    def _array(self, name: str) -> np.ndarray:
        data = io.BytesIO(self._read(name))
        version = np.lib.format.read_magic(data)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = header[version](data)
        needed, held = math.prod(shape) * dtype.itemsize, len(data.getbuffer()) - data.tell()
        if needed != held or min(shape, default=0) < 0:
            raise ValueError(f"its array {name!r} is of shape {shape}, {needed:,} bytes, but holds {held:,}")
        data.seek(0)
        return np.lib.format.read_array(data, allow_pickle=False)
