"""Write the generated pages of docs/reference: python docs/write_reference.py"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from _reference import api, columns, command_line, presets, schemas, vcd

FOLDER = Path(__file__).with_name("reference")

PAGES: dict[str, Callable[[], str]] = {
    "columns.md": columns.text,
    "command-line.md": command_line.text,
    "presets.md": presets.text,
    "vcd.md": vcd.text,
    "api/index.md": api.index,
    **{f"api/{module}.md": partial(api.module_page, module) for module in api.MODULES},
}


DOCUMENTS = """
    machine run run-program report summary verify compile quantize product product-dataflows view
    vectors validate sweep bench info model program trace energy sweep-file workload-file
"""


def _schema(name: str) -> str:
    return next(document.text for document in schemas.documents() if document.name == name)


# Made from examples, which takes seconds.
SCHEMAS: dict[str, Callable[[], str]] = {
    "json.md": schemas.text,
    **{f"schemas/{name}.schema.json": partial(_schema, name) for name in DOCUMENTS.split()},
}


def stale() -> Iterator[str]:
    """Yield the pages whose text is not what this script writes."""
    for name, text in (PAGES | SCHEMAS).items():
        path = FOLDER / name
        if not path.exists() or path.read_text(encoding="utf-8") != text():
            yield name


if __name__ == "__main__":
    for written in list(stale()):
        (FOLDER / written).write_text((PAGES | SCHEMAS)[written](), encoding="utf-8")
        print(f"wrote docs/reference/{written}")
