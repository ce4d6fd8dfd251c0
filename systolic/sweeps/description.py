"""A sweep as a file of YAML or JSON."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from systolic import _check, presets
from systolic._files import check_plain, path_text
from systolic._text import printable_errors
from systolic.config import ArrayConfig, MachineConfig, MemoryConfig
from systolic.energy import DEFAULT, EnergyTable, as_table
from systolic.frontend import read_model
from systolic.sweeps.grids import ARRAY_FIELDS, AXES, MEMORY_FIELDS, Grid
from systolic.workloads import Workload, read_topology
from systolic.workloads.files import fields_of, layer_of, listed, load
from systolic.workloads.topologies import FORMS

FIELDS = ("models", "machine", "grid", "batch", "mapping", "energy")
MODEL_FIELDS = ("name", "file", "form", "layers")
MACHINE_FIELDS = ("preset", *ARRAY_FIELDS, "clock_mhz", "memory")
RANGE_FIELDS = ("from", "to", "step", "times")

_MOST_VALUES = 1_000_000


@printable_errors
def read_sweep(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a sweep from a file: the arguments of :func:`systolic.sweep`.

    Parameters
    ----------
    path : path
        A .json, .yaml or .yml file, as docs/sweeps.md describes it. Names of files in it are relative to
        its folder.

    Returns
    -------
    dict
        ``models``, ``machines``, ``batch``, ``mapping`` and ``energy``.

    Raises
    ------
    ImportError
        If it is YAML and PyYAML is not installed.
    ValueError, TypeError
        If a field is unknown, with the nearest known name, is missing, or has a wrong value.

    Examples
    --------
    >>> import json, pathlib, tempfile
    >>> import systolic
    >>> from systolic.sweeps import read_sweep
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "sweep.json"
    >>> described = {
    ...     "models": [{"name": "fc", "layers": [{"name": "fc", "m": 1, "k": 2048, "n": 1000}]}],
    ...     "grid": {"side": [64, 128]},
    ... }
    >>> _ = file.write_text(json.dumps(described))
    >>> systolic.sweep(**read_sweep(file))
    <Sweep of 2 rows: 1 model, 2 machines>
    """
    text = path_text(path)
    check_plain(text, "a sweep is a file of YAML or JSON")
    found = fields_of(text, load(text, "a sweep"), FIELDS, "a sweep")
    if "models" not in found:
        raise ValueError(f"{text}: a sweep needs models, a list of files or of products")
    folder = Path(text).parent
    models: dict[str, Any] = {}
    for number, model in enumerate(listed(found["models"])):
        name, value = _model(f"{text}: models[{number}]", model, folder)
        if name in models:
            raise ValueError(f"{text}: models[{number}]: two models are named {name!r}; give one a name")
        models[name] = value
    base = _machine(f"{text}: machine", found.get("machine", {}))
    axes = {
        name: _values(f"{text}: grid: {name}", values)
        for name, values in fields_of(f"{text}: grid", found.get("grid", {}), AXES, "a grid").items()
    }
    try:
        machines = Grid(base, **axes)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{text}: {error}") from error
    return {
        "models": models,
        "machines": machines,
        "batch": _values(f"{text}: batch", found.get("batch", 1)),
        "mapping": _values(f"{text}: mapping", found.get("mapping")),
        "energy": _energy(f"{text}: energy", found.get("energy", DEFAULT), folder),
    }


def _energy(where: str, value: Any, folder: Path) -> EnergyTable | None:
    """Return a table by its name or its file."""
    is_file = isinstance(value, str) and Path(value).suffix
    return as_table(folder / value if is_file else value, where)


def _model(where: str, value: Any, folder: Path) -> tuple[str, Any]:
    """Return a model's name, and the model."""
    if isinstance(value, str):
        value = {"file": value}
    given = fields_of(where, value, MODEL_FIELDS, "a model")
    if ("file" in given) == ("layers" in given):
        raise ValueError(f"{where}: a model has either a file or layers")
    name = given.get("name")
    if "layers" in given:
        if name is None:
            raise ValueError(f"{where}: a model of layers needs a name")
        layers = [layer_of(f"{where}: layers[{i}]", each) for i, each in enumerate(listed(given["layers"]))]
        return name, Workload(name, layers)
    if not isinstance(given["file"], str):
        raise TypeError(f"{where}: file must be the name of a file, not {_check.kind(given['file'])}")
    file = folder / given["file"]
    name = file.stem if name is None else name
    if "form" in given:
        _check.choice(given["form"], f"{where}: form", FORMS)
        return name, Workload(file.stem, read_topology(file, given["form"]))
    return name, read_model(file)


def _machine(where: str, value: Any) -> MachineConfig:
    """Return the machine that others of the grid differ from; default: ideal, 256 x 256 at 700 MHz."""
    given = fields_of(where, value, MACHINE_FIELDS, "a machine")
    try:
        base = presets.get(given["preset"]) if "preset" in given else MachineConfig()
        array = base.array.to_dict() | {name: given[name] for name in ARRAY_FIELDS if name in given}
        memory = base.memory
        if "memory" in given:
            memory = None
            if given["memory"] is not None:
                fields = fields_of(f"{where}: memory", given["memory"], MEMORY_FIELDS, "a memory")
                memory = MemoryConfig(**fields)
        clock = given.get("clock_mhz", base.clock_mhz)
        return MachineConfig(ArrayConfig.from_dict(array), clock_mhz=clock, memory=memory)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        message = str(error).replace("MemoryConfig.__init__()", "memory:")
        raise kind(message if message.startswith(where) else f"{where}: {message}") from error


def _values(where: str, value: Any) -> Any:
    """Return a value, a list of them, or the list that a range stands for."""
    if not isinstance(value, Mapping):
        return value
    given = fields_of(where, value, RANGE_FIELDS, "a range")
    if not {"from", "to"} <= given.keys() or ("step" in given) == ("times" in given):
        raise ValueError(f"{where}: a range has from, to, and either step or times")
    numbers = {name: _check.integer(number, f"{where}: {name}") for name, number in given.items()}
    first, last = numbers["from"], numbers["to"]
    least = 1 if "step" in numbers else 2
    by = _check.integer(numbers["step" if least == 1 else "times"], f"{where}: the step", minimum=least)
    if first > last or (least == 2 and first < 1):
        raise ValueError(f"{where}: a range runs from a smaller number up, not from {first} to {last}")
    if least == 1:
        if (last - first) // by >= _MOST_VALUES:
            raise ValueError(f"{where}: the range has {(last - first) // by + 1:,} values; use a larger step")
        return list(range(first, last + 1, by))
    found = [first]
    while found[-1] * by <= last:
        found.append(found[-1] * by)
    return found
