"""``Workload``: products with names and counts; and everything else that a sweep takes as a model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from systolic import _check
from systolic._files import path_text
from systolic._text import printable
from systolic.engine.costs import known_products
from systolic.frontend import load_onnx
from systolic.gemm import Gemm
from systolic.model import Model
from systolic.model.archive import encode_layer
from systolic.model.placement import off_array, off_array_lines
from systolic.sweeps.rows import canonical, digest
from systolic.sweeps.topologies import read_topology


@dataclass(frozen=True)
class WorkloadLayer:
    """A product of a :class:`Workload`: its name, its sizes, and how often it runs."""

    name: str
    gemm: Gemm
    count: int = 1


@dataclass(frozen=True)
class Workload:
    """Products with names and counts, that run one after the other: a network without its layers' data.

    Parameters
    ----------
    name : str
    layers : sequence of WorkloadLayer, (name, Gemm), (name, Gemm, count) or Gemm; or mapping of str to Gemm

    Raises
    ------
    TypeError, ValueError
        If there are no layers, or one is of another form.

    Examples
    --------
    >>> from systolic import Gemm
    >>> from systolic.sweeps import Workload
    >>> block = Workload("block", [("qkv", Gemm(128, 768, 768), 3), ("out", Gemm(128, 768, 768))])
    >>> block.layers[0]
    WorkloadLayer(name='qkv', gemm=Gemm(128, 768, 768), count=3)
    >>> block.macs
    301989888
    """

    name: str
    layers: tuple[WorkloadLayer, ...]

    def __init__(self, name: str, layers: Any) -> None:
        if isinstance(layers, Mapping):
            layers = list(layers.items())
        if not _check.is_listed(layers):
            raise TypeError(f"layers must be a list of Gemms with names, not {_check.kind(layers)}")
        object.__setattr__(self, "name", as_name(name, "name"))
        object.__setattr__(self, "layers", tuple(_layer(layer, self.name) for layer in layers))
        if not self.layers:
            raise ValueError(f"workload {self.name!r} has no layers; a sweep needs at least one")

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all layers."""
        return sum(layer.gemm.macs * layer.count for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Return name and layers as JSON can hold them."""
        layers = [{"name": each.name, **each.gemm.to_dict(), "count": each.count} for each in self.layers]
        return {"name": self.name, "layers": layers}

    @property
    def id(self) -> str:
        """SHA-256 of name and layers."""
        return digest(canonical(self.to_dict()))

    def __repr__(self) -> str:
        count = len(self.layers)
        return f"<Workload {self.name!r}: {count} layer{'' if count == 1 else 's'}, {self.macs:,} MACs>"


def as_name(value: Any, what: str) -> str:
    """Return a name as text that fits one line of a file."""
    if not isinstance(value, str) or not value:
        raise TypeError(f"{what} must be text, not {_check.kind(value)}")
    return printable(value)


def _layer(value: Any, workload: str) -> WorkloadLayer:
    if isinstance(value, WorkloadLayer):
        value = value.name, value.gemm, value.count
    if isinstance(value, Gemm):
        return WorkloadLayer(value.text, value)
    if not _check.is_listed(value) or not 2 <= len(value) <= 3 or not isinstance(value[1], Gemm):
        raise TypeError(
            f"a layer of workload {workload!r} must be a Gemm, (name, Gemm) or (name, Gemm, count), not "
            f"{_check.kind(value)}"
        )
    name = as_name(value[0], f"a layer's name in workload {workload!r}")
    count = 1 if len(value) == 2 else value[2]
    return WorkloadLayer(name, value[1], _check.integer(count, f"count of layer {name!r}", minimum=1))


@dataclass(frozen=True, eq=False)
class Work:
    """A model of a sweep: a Model or a Workload, with the name and identifier of its rows."""

    name: str
    id: str
    model: Model | Workload

    def products(self, batch: int) -> tuple[tuple[Gemm, int], ...]:
        """Return the different products and how often each runs; ValueError if nothing runs on the array."""
        if isinstance(self.model, Workload):
            found: Iterable[tuple[Gemm, int]] = (
                (replace(each.gemm, m=each.gemm.m * batch), each.count) for each in self.model.layers
            )
        else:
            try:
                gemms = known_products(self.model, batch)
            except (TypeError, ValueError) as error:
                kind = TypeError if isinstance(error, TypeError) else ValueError
                raise kind(f"model {self.name!r}: {error}") from error
            if not any(gemm.macs for gemm in gemms):
                known = self.model.infer_shapes(self.model.input_shapes(batch))
                lines = off_array_lines(off_array(self.model.nodes, known))
                raise ValueError(f"model {self.name!r} cannot be swept: {' '.join(map(str.strip, lines))}")
            found = ((gemm, 1) for gemm in gemms)
        counts: dict[Gemm, int] = {}
        for gemm, count in found:
            counts[gemm] = counts.get(gemm, 0) + count
        return tuple(counts.items())


def as_works(models: Any) -> tuple[Work, ...]:
    """Return the models of a sweep; raise if one is of another form, or two share a name."""
    if isinstance(models, Mapping):
        works = [_work(value, as_name(name, "a model's name")) for name, value in models.items()]
    elif _check.is_listed(models):
        works = [_work(value, None) for value in models]
    else:
        works = [_work(models, None)]
    if not works:
        raise ValueError("models must hold at least one model")
    names = [work.name for work in works]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"two models are named {name!r}; rows tell models by name: pass a mapping, "
                "{'a': first, 'b': second}"
            )
    return tuple(works)


def _work(value: Any, name: str | None) -> Work:
    if isinstance(value, str | os.PathLike):
        name = as_name(Path(path_text(value)).stem, "a model's name") if name is None else name
        value = read_model(value)
    if isinstance(value, Gemm):
        value = Workload(name or value.text, [value])
    if name is not None and _check.is_listed(value):
        value = Workload(name, value)
    if name is not None and isinstance(value, Mapping):
        value = Workload(name, value)
    if isinstance(value, Workload):
        value = value if name is None else Workload(name, value.layers)
        return Work(value.name, value.id, value)
    if isinstance(value, Model):
        name = as_name(value.name or "model", "a model's name") if name is None else name
        return Work(name, digest(canonical([name, _model_id(value)])), value)
    named = "" if name is not None else "; products with names are a Workload, or a mapping from names"
    raise TypeError(
        "a model of a sweep must be a Model, a Workload, a Gemm, or a path of an .onnx, .zip or .csv file, "
        f"not {_check.kind(value)}{named}"
    )


def read_model(path: str | os.PathLike[str]) -> Model | Workload:
    """Read a model by its file's suffix: .onnx, .csv as SCALE-Sim's topologies, others by Model.load."""
    text = path_text(path)
    suffix = Path(text).suffix.lower()
    if suffix == ".csv":
        return Workload(Path(text).stem, read_topology(text))
    return load_onnx(text) if suffix == ".onnx" else Model.load(text)


def _model_id(model: Model) -> str:
    """Return the SHA-256 of everything that a model holds but its name."""
    import hashlib

    found = hashlib.sha256()

    def add(values: Any, arrays: Iterable[Any] = ()) -> None:
        found.update(canonical(values).encode() + b"\n")
        for array in arrays:
            found.update(canonical([array.dtype.str, list(array.shape)]).encode() + b"\n")
            found.update(array.tobytes())

    inputs = {n: [list(s.shape), s.dtype, list(s.symbols)] for n, s in model.inputs.items()}
    add([inputs, list(model.outputs)])
    for name, array in model.constants.items():
        add(name, [array])
    for node in model.nodes:
        described, arrays = encode_layer(node.layer)
        add([node.name, list(node.inputs), list(node.outputs), described], arrays)
    return found.hexdigest()
