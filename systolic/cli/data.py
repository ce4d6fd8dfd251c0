"""Input and output arrays of the commands, and JSON on standard output."""

from __future__ import annotations

import json
import zipfile
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import numpy as np

from systolic._files import check_plain, write_zip
from systolic.cli.options import check_sizes, shapes_of
from systolic.formats import OPERANDS, dtype_of
from systolic.model import Model
from systolic.verifier.inputs import random_inputs

SCHEMA = 1
"""Version of what ``--json`` prints."""


def load_input(path: str, option: str = "--input") -> Any:
    """Read the file of an option: an .npy array, or an .npz with an array per input."""
    check_plain(path, f"{option} takes an .npy or .npz file")
    with open(path, "rb") as file:
        try:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            with loaded:
                return {name: loaded[name] for name in loaded.files}
        except Exception as error:  # numpy, zipfile and zlib raise many kinds over a damaged file
            raise ValueError(
                f"{path} is not an .npy or .npz file of numbers, or is damaged; numpy.save writes one"
            ) from error


def model_input(model: Model, options: Namespace) -> Any:
    """Return a model's input: the file of --input, or random numbers of --seed, --batch and --shape."""
    if options.input is not None:
        return load_input(options.input)
    check_sizes(options, model)
    return random_inputs(model, options.seed, options.batch, shapes_of(options))


def save_outputs(path: str, outputs: Mapping[str, np.ndarray]) -> None:
    """Write --output, an .npz file, completely or not at all."""

    def write(archive: zipfile.ZipFile) -> None:
        # numpy.savez does not accept every name.
        for name, array in outputs.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)

    write_zip(path, write)


def random_operand(rng: np.random.Generator, shape: tuple[int, int], name: str) -> np.ndarray:
    """Return operands of a type: any integers, or floats about 0."""
    operand = OPERANDS[name]
    if operand.kind == "float":
        return rng.standard_normal(shape, dtype=np.float32).astype(operand.dtype)
    low, high = operand.limits
    values = rng.integers(low, high, shape, dtype=operand.storage, endpoint=True)
    return values.astype(dtype_of(name), copy=False)


def print_json(values: dict[str, Any]) -> None:
    """Print values as JSON, the schema version first."""
    print(json.dumps({"schema": SCHEMA, **values}, indent=2, allow_nan=False))
