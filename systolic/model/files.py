"""What a saved ``Model`` is made of: entries of a zip, and fields as JSON."""

from __future__ import annotations

import io
import math
import os
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from systolic._memory import require
from systolic.quant import QuantParams

if TYPE_CHECKING:
    import zipfile

FORMAT = "systolic.Model"
VERSION = 2


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


class Reader:
    """Reads what :func:`entry` and :func:`encode` wrote; no more bytes than the file's size allows for.

    Its methods raise what zip, JSON and numpy raise on damaged files, of many kinds.
    """

    def __init__(self, file: IO[bytes], name: str) -> None:
        import zipfile

        self._archive = zipfile.ZipFile(file)
        self._used: set[str] = set()
        entries = self._archive.infolist()
        kinds = {entry.compress_type for entry in entries} - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
        if kinds:
            raise ValueError(f"it is compressed by method {kinds.pop()}, which Model.save does not use")
        # Entries may overlap, and then hold far more data than the file.
        size = file.seek(0, os.SEEK_END)
        if sum(entry.compress_size for entry in entries) > size:
            raise ValueError(f"its entries overlap: they are longer than its {size:,} bytes")
        require(sum(entry.file_size for entry in entries), f"{name}: what it holds")

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()

    def content(self) -> Any:
        """Return the content of ``model.json``."""
        import json

        content = json.loads(self._read("model.json"))
        if content["format"] != FORMAT:
            raise KeyError("format")
        return content

    def decode(self, value: Any) -> Any:
        """Return the field that :func:`encode` wrote."""
        if isinstance(value, dict) and set(value) == {"array"}:
            return self._array(value["array"])
        if isinstance(value, dict) and set(value) == {"quant"}:
            return QuantParams.from_dict(value["quant"])
        if isinstance(value, list):
            return tuple(self.decode(item) for item in value)
        return value

    def _read(self, name: str) -> bytes:
        # An entry may be used once: a small file could otherwise expand without bound.
        if name in self._used:
            raise ValueError(f"its entry {name!r} is used twice")
        self._used.add(name)
        return self._archive.read(name)

    def _array(self, name: str) -> np.ndarray:
        data = io.BytesIO(self._read(name))
        version = np.lib.format.read_magic(data)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = header[version](data)
        needed, held = math.prod(shape) * dtype.itemsize, len(data.getbuffer()) - data.tell()
        if needed != held or min(shape, default=0) < 0:
            raise ValueError(f"its array {name!r} is of shape {shape}, {needed:,} bytes, but holds {held:,}")
        data.seek(0)
        return np.lib.format.read_array(data, allow_pickle=False)
