"""Write docs/operators.md from the table of operators: python docs/write_operators.py"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from systolic.layers.record import REQUIRED, OperatorRecord
from systolic.layers.table import OPERATORS
from systolic.reference.oracle import ORACLES
from systolic.reference.oracle.contrib import OPS

PAGE = Path(__file__).with_name("operators.md")

HEAD = """\
# Operators

Every ONNX operator that `load_onnx` reads as a layer of this package and `save_onnx` writes: what it
computes, where it runs, and the layer in `systolic.layers` that has it. `docs/write_operators.py` writes
this page from the records at the end of each file in `systolic/layers`.

`run` and `verify` compare each of them with a second derivation, in the file of
`systolic/reference/oracle` that the table names. Any other operator of the standard or of com.microsoft
runs in ONNX Runtime where that is installed: see [onnx.md](onnx.md).

A name with `?` is an optional input or output, one with `...` any number of tensors. *Since* is the
first version of the operator set that is supported; *history* says what later versions changed.
"""

COLUMNS = (
    "operator", "computes", "runs on", "layer", "oracle", "inputs", "outputs", "attributes", "since",
    "history",
)  # fmt: skip


def _value(value: Any) -> str:
    if value is REQUIRED:
        return ""
    if isinstance(value, bool):
        return f"={int(value)}"
    return "" if value is None else f"={value!r}"


def _oracle(record: OperatorRecord) -> str:
    if record.name in OPS:
        return OPS[record.name].__module__.rpartition(".")[2]
    return "" if record.layer is None else ORACLES[record.layer.__name__].__module__.rpartition(".")[2]


def _row(record: OperatorRecord) -> str:
    attributes = [name + _value(default) for name, default in record.attributes.items()]
    attributes += [name for name in record.became_inputs if name not in record.attributes]
    moved = {since: f"{name} is an input" for name, (since, _) in record.became_inputs.items()}
    changes = sorted({**record.history, **moved}.items())
    return _line(
        (
            f"**{record.name}**",
            record.help,
            record.runs_on,
            "" if record.layer is None else f"`{record.layer.__name__}`",
            _oracle(record),
            ", ".join(record.inputs),
            ", ".join(record.outputs),
            ", ".join(attributes),
            str(record.since),
            "; ".join(f"{version}: {change}" for version, change in changes),
        )
    )


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def page() -> str:
    """Return the page as Markdown."""
    parts = [HEAD]
    for domain in sorted({record.domain for record in OPERATORS.values()}):
        records = sorted((r for r in OPERATORS.values() if r.domain == domain), key=lambda r: r.name)
        parts += [f"## {domain or 'ai.onnx, the standard'}: {len(records)} operators\n"]
        parts += ["\n".join([_line(COLUMNS), "|---" * len(COLUMNS) + "|", *map(_row, records)]) + "\n"]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
