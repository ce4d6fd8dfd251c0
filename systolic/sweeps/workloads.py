"""Everything that a sweep takes as a model, with the names and identifiers of its rows."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from systolic import _check
from systolic._files import path_text
from systolic._text import canonical, digest
from systolic.engine.costs import known_products
from systolic.frontend import PRODUCTS, as_model, costed, read_model
from systolic.gemm import Gemm
from systolic.model import Model, Node
from systolic.model.archive import encode_layer
from systolic.model.inference import Tensor, products_of
from systolic.model.mappings import kernel_taps, mappings_of
from systolic.model.placement import off_array, off_array_lines
from systolic.tiling.mappings import layouts
from systolic.workloads import Workload
from systolic.workloads.workload import as_name

Products = Sequence[tuple[tuple[Gemm, ...], int]]
"""The layouts that a product may have, of which the cheapest is taken, and how often it runs."""


@dataclass(frozen=True, eq=False)
class Work:
    """A model of a sweep: a Model or a Workload, with the name and identifier of its rows."""

    name: str
    id: str
    model: Model | Workload

    @property
    def note(self) -> str:
        """What the costs rest on, if not on a model as it runs."""
        return PRODUCTS if isinstance(self.model, Workload) else self.model.note

    def program_of(self, batch: int) -> tuple[Model, int]:
        """Return the model that is compiled for a batch size, and what its batch then is."""
        if isinstance(self.model, Workload):
            return as_model(self.model, batch), 1
        return self.model, batch

    def products(self, batch: int, mapping: str | None = None) -> Products:
        """Return the different products and how often each runs; ValueError if nothing runs on the array.

        Of each product these are the layouts that the mapping chooses from.
        """
        if isinstance(self.model, Workload):
            if mapping == "taps":
                raise ValueError(
                    f"model {self.name!r} is a list of products, which have no kernel: mapping 'taps' is of "
                    "convolutions; use 'pack' or 'best' for products with groups"
                )
            laid = [
                (layouts(gemm, gemm.taps, mapping or "im2col"), count)
                for gemm, count in self.model.products(batch)
            ]
        else:
            try:
                gemms = known_products(self.model, batch, of=_layouts_of(self.model, mapping))
            except (TypeError, ValueError) as error:
                kind = TypeError if isinstance(error, TypeError) else ValueError
                raise kind(f"model {self.name!r}: {error}") from error
            if not any(several[0].macs for several in gemms):
                known = self.model.infer_shapes(self.model.input_shapes(batch))
                lines = off_array_lines(off_array(self.model.nodes, known))
                raise ValueError(f"model {self.name!r} cannot be swept: {' '.join(map(str.strip, lines))}")
            laid = [(several, 1) for several in gemms]
        counts: dict[tuple[Gemm, ...], int] = {}
        for several, count in laid:
            counts[several] = counts.get(several, 0) + count
        return tuple(counts.items())


def _layouts_of(model: Model, mapping: str | None) -> Callable[..., tuple[tuple[Gemm, ...], ...] | None]:
    names = mappings_of(model.nodes, mapping)

    def of(node: Node, known: Mapping[str, Tensor]) -> tuple[tuple[Gemm, ...], ...] | None:
        gemms = products_of(node, known)
        if not gemms or node.output not in names:
            return None if gemms is None else tuple((gemm,) for gemm in gemms)
        return tuple(layouts(gemm, kernel_taps(node, known), names[node.output]) for gemm in gemms)

    return of


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
        value = costed(value)
        name = as_name(value.name or "model", "a model's name") if name is None else name
        return Work(name, digest(canonical([name, _model_id(value)])), value)
    named = "" if name is not None else "; products with names are a Workload, or a mapping from names"
    raise TypeError(
        "a model of a sweep must be a Model, a Workload, a Gemm, or a path of an .onnx, .zip, .csv, .yaml or "
        f".json file, not {_check.kind(value)}{named}"
    )


def _model_id(model: Model) -> str:
    """Return the SHA-256 of everything that a model holds but its name; the model keeps it."""
    import hashlib

    # As long as it consists of the same objects, whose arrays nobody can write to.
    of = model.note, model.outputs, model.nodes, *model.constants.values(), *model.inputs.values()
    names = (*model.constants, *model.inputs)
    last: tuple[Any, ...] | None = vars(model).get("_content")
    same = last is not None and last[0] == names and all(map(operator.is_, last[1], of))
    if last is not None and same and not any(array.flags.writeable for array in model.constants.values()):
        return str(last[2])
    found = hashlib.sha256()
    read_only: list[bool] = []

    def add(values: Any, arrays: Iterable[Any] = ()) -> None:
        found.update(canonical(values).encode() + b"\n")
        for array in arrays:
            found.update(canonical([array.dtype.str, list(array.shape)]).encode() + b"\n")
            found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            read_only.append(not array.flags.writeable)

    inputs = {n: [list(s.shape), s.dtype, list(s.symbols)] for n, s in model.inputs.items()}
    add([inputs, list(model.outputs), *filter(None, [model.note])])
    for name, array in model.constants.items():
        add(name, [array])
    for node in model.nodes:
        described, arrays = encode_layer(node.layer)
        add([node.name, list(node.inputs), list(node.outputs), described], arrays)
    if all(read_only):
        vars(model)["_content"] = names, of, found.hexdigest()
    return found.hexdigest()
