"""Saved values: a zip of one JSON entry and ``.npy`` arrays. Damaged and hostile files are refused."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any, Self

import numpy as np

from systolic._files import write_zip
from systolic._memory import require

if TYPE_CHECKING:
    import zipfile


def write(path: str | os.PathLike[str], name: str, content: Any, arrays: Sequence[np.ndarray]) -> None:
    """Write a file with an entry `name` of JSON, and arrays by their number; completely or not at all."""
    import json

    def write_entries(archive: zipfile.ZipFile) -> None:
        archive.writestr(_entry(name), json.dumps(content, indent=1))
        for number, array in enumerate(arrays):
            data = io.BytesIO()
            np.lib.format.write_array(data, array, allow_pickle=False)
            archive.writestr(_entry(array_name(number)), data.getvalue())

    write_zip(path, write_entries)


def array_name(number: int) -> str:
    """Return the entry of an array."""
    return f"{number}.npy"


def _entry(name: str) -> zipfile.ZipInfo:
    """Return a compressed entry of zip's earliest date: equal values make equal files."""
    import zipfile

    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


class Reader:
    """Reads the entries of a file, never more bytes than the file's size allows for."""

    def __init__(self, file: IO[bytes], name: str, writer: str) -> None:
        import zipfile

        self._archive = zipfile.ZipFile(file)
        self._used: set[str] = set()
        entries = self._archive.infolist()
        kinds = {entry.compress_type for entry in entries} - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
        if kinds:
            raise ValueError(f"it is compressed by method {kinds.pop()}, which {writer} does not use")
        # Entries may overlap, and then hold far more data than the file.
        size = file.seek(0, os.SEEK_END)
        if sum(entry.compress_size for entry in entries) > size:
            raise ValueError(f"its entries overlap: they are longer than its {size:,} bytes")
        require(sum(entry.file_size for entry in entries), f"{name}: what it holds")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()

    def content(self, name: str, form: str) -> Any:
        """Return the JSON of an entry, whose "format" must be `form`."""
        import json

        content = json.loads(self._read(name))
        if content["format"] != form:
            raise KeyError("format")
        return content

    def _read(self, name: str) -> bytes:
        # An entry may be used once: a small file could otherwise expand without bound.
        if name in self._used:
            raise ValueError(f"its entry {name!r} is used twice")
        self._used.add(name)
        return self._archive.read(name)

    def array(self, name: str) -> np.ndarray:
        """Return the array of an entry."""
        data = io.BytesIO(self._read(name))
        version = np.lib.format.read_magic(data)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = header[version](data)
        needed, held = math.prod(shape) * dtype.itemsize, len(data.getbuffer()) - data.tell()
        if needed != held or min(shape, default=0) < 0:
            raise ValueError(f"its array {name!r} is of shape {shape}, {needed:,} bytes, but holds {held:,}")
        data.seek(0)
        return np.lib.format.read_array(data, allow_pickle=False)
