"""The file of a saved ``Model``: a zip of ``model.json`` and ``.npy`` arrays."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import IO, Any, TypeVar

import numpy as np

from systolic import _archive, _renamed, layers
from systolic.layers import Layer
from systolic.model.node import Node
from systolic.model.spec import TensorSpec
from systolic.quant import QuantParams

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

    _archive.write(path, "model.json", content, arrays)


def read(file: IO[bytes], name: str, make: Callable[..., _M]) -> _M:
    """Return `make` called with the arguments of the ``Model`` that a file holds; see ``Model.load``."""
    try:
        with _Reader(file, name, "Model.save") as reader:
            content = reader.content("model.json", FORMAT)
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
    return _renamed.layer_of(LAYERS, name, **values) if version < VERSION else LAYERS[name](**values)


def _encoded(value: Any, arrays: list[np.ndarray]) -> Any:
    """Return a field as JSON has it; arrays go to `arrays`, by number."""
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"array": _archive.array_name(len(arrays) - 1)}
    if isinstance(value, QuantParams):
        return {"quant": value.to_dict()}
    if isinstance(value, tuple):
        return [_encoded(item, arrays) for item in value]
    return value


def encode_layer(layer: Layer) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Return a layer as a dict that JSON can hold, and its arrays.

    Examples
    --------
    >>> from systolic.layers import Relu
    >>> encode_layer(Relu(3))
    ({'layer': 'Relu', 'fields': {'zero_point': 3}}, [])
    """
    arrays: list[np.ndarray] = []
    values = {
        f.name: _encoded(getattr(layer, f.name), arrays)
        for f in fields(layer)  # type: ignore[arg-type]
    }
    return {"layer": type(layer).__name__, "fields": values}, arrays


def decode_layer(description: Mapping[str, Any], arrays: Sequence[np.ndarray]) -> Layer:
    """Return the layer that :func:`encode_layer` described.

    Examples
    --------
    >>> from systolic.layers import Relu
    >>> decode_layer(*encode_layer(Relu(3)))
    Relu(zero_point=3)
    """
    if description["layer"] not in LAYERS:
        raise ValueError(
            f"there is no layer {description['layer']!r} in systolic.layers; run the model itself"
        )
    held = {_archive.array_name(number): array for number, array in enumerate(arrays)}
    values = {name: _decoded(value, held.__getitem__) for name, value in description["fields"].items()}
    return LAYERS[description["layer"]](**values)


def _decoded(value: Any, array: Callable[[str], np.ndarray]) -> Any:
    """Return the field that :func:`_encoded` wrote; `array` returns an array by its name."""
    if isinstance(value, dict) and set(value) == {"array"}:
        return array(value["array"])
    if isinstance(value, dict) and set(value) == {"quant"}:
        return QuantParams.from_dict(value["quant"])
    if isinstance(value, list | tuple):
        return tuple(_decoded(item, array) for item in value)
    return value


class _Reader(_archive.Reader):
    """Reads the fields of a file's layers."""

    def decode(self, value: Any) -> Any:
        """Return the field that :func:`_encoded` wrote."""
        return _decoded(value, self.array)
