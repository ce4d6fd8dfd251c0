"""Schemas of files that users write by hand, from the names of their fields."""

from __future__ import annotations

from typing import Any

from _reference.inference import DRAFT, Schema, meanings
from systolic import presets
from systolic.config import ArrayConfig, MachineConfig, MemoryConfig
from systolic.sweeps.description import FIELDS, MACHINE_FIELDS, MODEL_FIELDS, RANGE_FIELDS
from systolic.sweeps.grids import AXES, MEMORY_FIELDS
from systolic.workloads.files import LAYER_FIELDS
from systolic.workloads.topologies import FORMS

_TEXTS = {
    name: text for kind in (MemoryConfig, MachineConfig, ArrayConfig) for name, text in meanings(kind).items()
}
_COUNT: Schema = {"type": "integer", "minimum": 1}
_LIST = {"$ref": "#/$defs/values"}


def _object(properties: dict[str, Schema], required: tuple[str, ...] = ()) -> Schema:
    """Return an object of these fields and no others, as the readers of files take them."""
    needed = {"required": list(required)} if required else {}
    return {"type": "object", "properties": properties, **needed, "additionalProperties": False}


def _of(names: tuple[str, ...], schemas: dict[str, Schema]) -> dict[str, Schema]:
    """Return the schemas of fields in their order; KeyError if one is not described."""
    return {name: schemas[name] for name in names}


def _described(names: tuple[str, ...], **others: Schema) -> dict[str, Schema]:
    """Return fields of machines with their meanings."""
    texts = {name: {"description": _TEXTS[name]} if name in _TEXTS else {} for name in names}
    return {name: {**texts[name], **others.get(name, {})} for name in names}


def layers() -> Schema:
    """Return the schema of a list of products."""
    sizes = {name: {"type": "integer", "minimum": 0} for name in ("m", "k", "n")}
    fields = _of(LAYER_FIELDS, {"name": {"type": "string"}, **sizes, "groups": _COUNT, "count": _COUNT})
    return {"type": "array", "items": _object(fields, ("m", "k", "n"))}


def workload() -> Schema:
    """Return the schema of a file of products."""
    fields: dict[str, Schema] = {
        "name": {"description": "Name of the workload; default: that of the file.", "type": "string"},
        "layers": {"description": "Products: m, k and n, how many groups, and how often.", **layers()},
    }
    return {"$schema": DRAFT, "title": "Products: `read_workload`", **_object(fields, ("layers",))}


def sweep() -> Schema:
    """Return the schema of a file that describes a sweep."""
    model = _of(
        MODEL_FIELDS,
        {
            "name": {"description": "Name of its rows.", "type": "string"},
            "file": {"description": "A path, relative to this file's folder.", "type": "string"},
            "form": {"description": "What a topology without the usual head is.", "enum": list(FORMS)},
            "layers": {"description": "Instead of a file, a list of products.", **layers()},
        },
    )
    memory: Any = {"anyOf": [_object(_described(MEMORY_FIELDS)), {"type": "null"}]}
    preset: Any = {"description": "A machine to begin with.", "enum": list(presets.names())}
    fields = _of(
        FIELDS,
        {
            "models": {
                "description": "Models; one that is only text is a file.",
                "type": ["array", "string", "object"],
                "items": {"anyOf": [{"type": "string"}, _object(model)]},
            },
            "machine": {
                "description": "Every field that the grid leaves alone.",
                **_object(_described(MACHINE_FIELDS, preset=preset, memory=memory)),
            },
            "grid": {
                "description": "Values of the axes: fields of machine and memory, `side` for rows and cols "
                "alike, `format` for the types of operands and sums.",
                **_object(dict.fromkeys(AXES, _LIST)),
            },
            "batch": {"description": "Batch sizes.", **_LIST},
            "mapping": {"description": "Mappings of convolutions.", **_LIST},
            "energy": {
                "description": "A table of energies, its name or file; null leaves energy out.",
                "type": ["string", "null"],
            },
        },
    )
    numbers = {name: {"type": "integer"} for name in RANGE_FIELDS}
    values: Schema = {
        "description": "A value, a list of values, or a range with `from`, `to`, and `step` or `times`.",
        "anyOf": [
            {"type": ["number", "string", "boolean", "null"]},
            {"type": "array"},
            _object(numbers, ("from", "to")),
        ],
    }
    head = {"$schema": DRAFT, "title": "A sweep: `read_sweep`, `systolic sweep`"}
    return {**head, **_object(fields, ("models",)), "$defs": {"values": values}}
