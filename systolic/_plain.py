"""Files of JSON, YAML or TOML as plain data, where no name may be there twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SUFFIXES = (".json", ".yaml", ".yml")


def load(path: str, what: str, more: tuple[str, ...] = ()) -> Any:
    """Return what a file of JSON or YAML holds; `what` is what the file should be.

    `more` is ``(".toml",)`` where TOML is taken, too.
    """
    suffix = Path(path).suffix.lower()
    *first, last = (*SUFFIXES, *more)
    if suffix not in (*first, last):
        raise ValueError(f"{path}: {what} is a {', '.join(first)} or {last} file")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        if suffix == ".toml":
            import tomllib

            return tomllib.loads(text)
        if suffix != ".json":
            return _yaml(text, what)
        import json

        return json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _once(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return pairs as a dict; JSON and YAML would take the last of equal names."""
    found: dict[Any, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the field {name!r} is there twice")
        found[name] = value
    return found


def _yaml(text: str, what: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise ImportError(
            f'{what} in YAML needs PyYAML: pip install "systolic[sweep]"; one in JSON needs nothing'
        ) from error

    class Loader(yaml.SafeLoader):
        """Without aliases, which make a small file large, and without repeated names."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.events.AliasEvent):
                raise ValueError(f"line {self.peek_event().start_mark.line + 1}: aliases are not taken")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise ValueError(f"line {key.start_mark.line + 1}: a field's name must be text")
            _once([(key.value, None) for key, _ in node.value])
            return super().construct_mapping(node, deep=deep)

    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
