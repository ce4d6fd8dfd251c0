"""Workloads as files: SCALE-Sim's topologies in CSV, products in YAML or JSON."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from systolic import _check
from systolic._files import check_plain, path_text
from systolic._hints import nearest
from systolic._plain import load as load
from systolic._text import printable_errors
from systolic.gemm import Gemm
from systolic.workloads.topologies import read_topology
from systolic.workloads.workload import Workload

SUFFIXES = (".csv", ".json", ".yaml", ".yml")
FIELDS = ("name", "layers")
LAYER_FIELDS = ("name", "m", "k", "n", "groups", "count")


@printable_errors
def read_workload(path: str | os.PathLike[str]) -> Workload:
    """Read products with names and counts from a file.

    Parameters
    ----------
    path : path
        A .csv topology of SCALE-Sim (:func:`read_topology`), or a .yaml, .yml or .json file with ``layers``,
        a list of fields ``m``, ``k``, ``n`` and, if wanted, ``name``, ``groups`` and ``count``, and with a
        ``name``, unless it is that of the file.

    Returns
    -------
    Workload

    Raises
    ------
    ImportError
        If it is YAML and PyYAML is not installed.
    ValueError, TypeError
        If a field is unknown, with the nearest known name, is missing, or has a wrong value.

    Examples
    --------
    >>> import json, pathlib, tempfile
    >>> from systolic.workloads import read_workload
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "block.json"
    >>> layers = [{"name": "qkv", "m": 128, "k": 768, "n": 768, "count": 3}, {"m": 128, "k": 768, "n": 768}]
    >>> _ = file.write_text(json.dumps({"layers": layers}))
    >>> read_workload(file)
    <Workload 'block': 2 layers, 301,989,888 MACs>
    """
    text = path_text(path)
    check_plain(text, "a workload is a file of CSV, YAML or JSON")
    stem = Path(text).stem
    if Path(text).suffix.lower() == ".csv":
        return Workload(stem, read_topology(text))
    found = fields_of(text, load(text, "a workload"), FIELDS, "a workload")
    if "layers" not in found:
        raise ValueError(f"{text}: a workload needs layers, a list of products")
    layers = [layer_of(f"{text}: layers[{i}]", each) for i, each in enumerate(listed(found["layers"]))]
    try:
        return Workload(found.get("name", stem), layers)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{text}: {error}") from error


def fields_of(where: str, value: Any, known: tuple[str, ...], what: str) -> dict[str, Any]:
    """Return a mapping whose names are all known."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{where}: {what} must be fields with values, not {_check.kind(value)}")
    for name in value:
        if name not in known:
            raise ValueError(f"{where}: {what} has no field {name!r}; {nearest(name, known)}")
    return dict(value)


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def layer_of(where: str, value: Any) -> tuple[str, Gemm, int]:
    """Return a layer from its fields."""
    given = fields_of(where, value, LAYER_FIELDS, "a layer")
    missing = [name for name in ("m", "k", "n") if name not in given]
    if missing:
        raise ValueError(f"{where}: a layer needs m, k and n; {', '.join(missing)} missing")
    name, count = given.pop("name", None), given.pop("count", 1)
    try:
        gemm = Gemm(given["m"], given["k"], given["n"], groups=given.get("groups", 1))
        return name or gemm.text, gemm, _check.integer(count, "count", minimum=1)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{where}: {error}") from error
