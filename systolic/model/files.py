"""What a saved ``Model`` is made of: entries of a zip, and fields as JSON."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from systolic.quant import QuantParams

if TYPE_CHECKING:
    import zipfile

FORMAT = "systolic.Model"
VERSION = 2


def damaged() -> tuple[type[Exception], ...]:
    """Return what reading a zip, its JSON, its arrays and the layers they make can raise."""
    import json
    import zipfile
    import zlib

    return (
        zipfile.BadZipFile,
        zlib.error,
        OSError,
        RuntimeError,
        KeyError,
        TypeError,
        AttributeError,
        EOFError,
        MemoryError,
        OverflowError,
        UnicodeDecodeError,
        json.JSONDecodeError,
    )


def entry(name: str) -> zipfile.ZipInfo:
    """Return a compressed entry of zip's earliest date."""
    import zipfile

    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def encode(value: Any, arrays: list[np.ndarray]) -> Any:
    """Return a field as JSON has it; arrays go to `arrays`, by number."""
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"array": f"{len(arrays) - 1}.npy"}
    if isinstance(value, QuantParams):
        return {"quant": value.to_dict()}
    if isinstance(value, tuple):
        return [encode(item, arrays) for item in value]
    return value


def decode(value: Any, archive: zipfile.ZipFile) -> Any:
    """Return the field that :func:`encode` wrote."""
    if isinstance(value, dict) and set(value) == {"array"}:
        return np.lib.format.read_array(io.BytesIO(archive.read(value["array"])), allow_pickle=False)
    if isinstance(value, dict) and set(value) == {"quant"}:
        return QuantParams.from_dict(value["quant"])
    if isinstance(value, list):
        return tuple(decode(item, archive) for item in value)
    return value
