"""JSON Schemas of documents, from examples of them and the docstrings of the classes that they describe."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

Schema = dict[str, Any]

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def meanings(kind: type) -> dict[str, str]:
    """Return the meanings of a class's parameters, attributes and properties, from its docstrings."""
    found: dict[str, str] = {}
    for cls in reversed(kind.__mro__[:-1]):
        for name, value in vars(cls).items():
            if not name.startswith("_") and isinstance(value, property | cached_property):
                found[name] = plain((inspect.getdoc(value) or "").partition("\n\n")[0])
        for section in re.split(r"^(?=\w+\n-+$)", inspect.cleandoc(cls.__doc__ or ""), flags=re.M):
            title, _, body = section.partition("\n")
            if title in ("Parameters", "Attributes"):
                # Entries without a text share that of the next one.
                for heads, text in re.findall(r"((?:^\w.*\n)+)((?:[ ]+.*\n?|\n)+)", body + "\n", flags=re.M):
                    listed = (head.partition(" : ")[0] for head in heads.splitlines())
                    found |= dict.fromkeys(", ".join(listed).split(", "), plain(text))
    return found


def plain(text: str) -> str:
    """Return the text of a docstring without roles and line ends."""
    return " ".join(re.sub(r":\w+:`~?([^`]*)`", r"`\1`", text).replace("``", "`").split())


@dataclass(frozen=True)
class Record:
    """A class whose `to_dict` occurs inside several documents, and examples of it."""

    kind: type
    examples: tuple[Mapping[str, Any], ...]

    @property
    def required(self) -> set[str]:
        return set.intersection(*(set(example) for example in self.examples))

    @property
    def known(self) -> set[str]:
        return set.union(*(set(example) for example in self.examples))


@dataclass
class Inference:
    """What examples of one document have in common.

    Parameters
    ----------
    records : dict of str to Record
        Definitions, by name.
    kinds : dict of str to type
        The class that describes an object, by its path: ``""`` is the document, ``layers[]`` an item.
    maps : set of str
        Paths, or their last names, of objects whose names are data, such as those of tensors.
    described : dict of str to str
        Meanings by path, of fields that no class describes.
    opaque : set of str
        Last names of objects that are not described.
    """

    records: Mapping[str, Record]
    kinds: Mapping[str, type] = field(default_factory=dict)
    maps: frozenset[str] = frozenset()
    described: Mapping[str, str] = field(default_factory=dict)
    opaque: frozenset[str] = frozenset()
    used: set[str] = field(default_factory=set)

    def document(self, title: str, examples: Iterable[Any]) -> Schema:
        """Return the schema of a document."""
        body = self.schema(list(examples), "")
        done: dict[str, Schema] = {}
        while missing := sorted(self.used - set(done)):
            for name in missing:
                record = self.records[name]
                inside = Inference(self.records, {"": record.kind}, self.maps, used=self.used)
                done[name] = inside._object(list(record.examples), "")
        head = {"$schema": DRAFT, "title": title}
        return {**head, **body, **({"$defs": dict(sorted(done.items()))} if done else {})}

    def schema(self, values: list[Any], path: str) -> Schema:
        """Return what values at a path have in common."""
        kinds: list[Schema] = []
        dicts = [value for value in values if isinstance(value, Mapping)]
        lists = [value for value in values if isinstance(value, list | tuple)]
        if dicts:
            kinds.append(self._map_or_object(dicts, path))
        if lists:
            items = [item for value in lists for item in value]
            kinds.append({"type": "array", **({"items": self.schema(items, f"{path}[]")} if items else {})})
        plain = {type(value) for value in values} - {dict, list, tuple} - {type(value) for value in dicts}
        names = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
        found = [name for kind, name in names.items() if kind in plain]
        if "number" in found and "integer" in found:
            found.remove("integer")
        if kinds and not found and len(kinds) == 1:
            return kinds[0]
        if found == ["null"] and not kinds:
            return {}  # of what else it may be the examples say nothing
        simple = {"type": found[0] if len(found) == 1 else found} if found else None
        if simple and len(kinds) == 1 and isinstance(kinds[0].get("type"), str):
            return {**kinds[0], "type": [kinds[0]["type"], *found]}
        every = [*kinds, *([simple] if simple else [])]
        return every[0] if len(every) == 1 else {"anyOf": every} if every else {}

    def _map_or_object(self, values: list[Mapping[str, Any]], path: str) -> Schema:
        if path.rpartition(".")[2] in self.opaque:
            return {"type": "object"}
        if path in self.maps or path.rpartition(".")[2] in self.maps:
            inner = [item for value in values for item in value.values()]
            any_value = self.schema(inner, f"{path}.*") if inner else True
            return {"type": "object", "additionalProperties": any_value}
        names = set().union(*values)
        for name, record in self.records.items():
            if names <= record.known and record.required <= set.intersection(*map(set, values)):
                self.used.add(name)
                return {"$ref": f"#/$defs/{name}"}
        return self._object(values, path)

    def _object(self, values: list[Mapping[str, Any]], path: str) -> Schema:
        texts = meanings(self.kinds[path]) if path in self.kinds else {}
        properties: dict[str, Schema] = {}
        for name in dict.fromkeys(name for value in values for name in value):
            place = f"{path}.{name}".removeprefix(".")
            inner = self.schema([value[name] for value in values if name in value], place)
            known = self.described.get(place) or texts.get(name)
            text = known or self.described.get(f"*.{name}", "")
            properties[name] = {"description": text, **inner} if text else inner
        required = [name for name in properties if all(name in value for value in values)]
        return {"type": "object", "properties": properties, **({"required": required} if required else {})}


def rows(schema: Schema, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield path, type and meaning of each field, depth first; a definition is named, not entered."""
    for name, inner in schema.get("properties", {}).items():
        place = f"{path}{name}"
        yield place, kind_of(inner), inner.get("description", "")
        yield from below(inner, place)


def below(schema: Schema, place: str) -> Iterator[tuple[str, str, str]]:
    """Yield the fields inside one."""
    for part in schema.get("anyOf", [schema]):
        if "items" in part:
            yield from below(part["items"], f"{place}[]")
        elif isinstance(part.get("additionalProperties"), dict):
            yield from below(part["additionalProperties"], f"{place}.*")
        else:
            yield from rows(part, f"{place}.")


def kind_of(schema: Schema) -> str:
    """Return the type of a field as text."""
    if "anyOf" in schema:
        return " or ".join(kind_of(part) for part in schema["anyOf"])
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2]
    if "enum" in schema:
        return f"one of {', '.join(schema['enum'])}"
    types = schema.get("type", "any")
    names = [types] if isinstance(types, str) else list(types)
    if "array" in names:
        inner = kind_of(schema["items"]) if "items" in schema else "any"
        names[names.index("array")] = f"array of {inner}"
    if isinstance(schema.get("additionalProperties"), dict):
        names[names.index("object")] = f"map to {kind_of(schema['additionalProperties'])}"
    return " or ".join(names)
