"""Tensors that an ONNX file keeps in other files: where those may lie, and how much is read of them."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from systolic.frontend.check import stored_bytes, tensors

# Two tensors may be one region (tied weights); more of it would let a small file fill the memory.
_SHARED = 2


def read_external(model: Any, folder: str | os.PathLike[str]) -> None:
    """Put the data that a ModelProto keeps in other files into its tensors.

    Parameters
    ----------
    model : ModelProto
        Sizes and types of its tensors are checked already.
    folder : path
        The folder of the model's file; nothing outside it is opened.

    Raises
    ------
    ValueError
        If a location is absolute, leaves the folder (``..`` or a symbolic link) or is no plain file
        or none at all; if an offset or a length does not fit the file or the tensor; or if the
        tensors ask for far more than the files hold.
    """
    from onnx import TensorProto, external_data_helper

    found = [(holder, t) for holder, t in tensors(model.graph) if t.data_location == TensorProto.EXTERNAL]
    sizes: dict[Path, int] = {}
    total = 0
    for holder, tensor in found:
        total += _checked(holder, tensor, Path(folder), sizes)
    if total > _SHARED * sum(sizes.values()):
        raise ValueError(
            f"its tensors read {total:,} bytes from external files that have {sum(sizes.values()):,}; "
            f"at most {_SHARED} tensors may share data"
        )
    for holder, tensor in found:
        try:
            external_data_helper.load_external_data_for_tensor(tensor, os.fspath(folder) or ".")
        except Exception as error:  # the package's checks, in one of several classes
            raise ValueError(f"{holder}: its external data cannot be read: {error}") from error
        # Whether older versions of the package do this depends on the caller.
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]


def _checked(holder: str, tensor: Any, folder: Path, sizes: dict[Path, int]) -> int:
    """Return how many bytes a tensor takes from its file, whose size is put into `sizes`."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if len(entries) < len(tensor.external_data):
        raise ValueError(f"{holder}: its external data has a key twice")
    unknown = sorted(set(entries) - {"location", "offset", "length", "checksum"})
    if unknown:
        raise ValueError(f"{holder}: its external data has the unknown key {unknown[0]!r}")
    path = _inside(holder, entries.get("location", ""), folder)
    size = sizes.setdefault(path, path.stat().st_size)
    needed = stored_bytes(holder, tensor)
    if needed is None:
        raise ValueError(f"{holder} holds text, which cannot be external data")
    offset, length = (_number(holder, entries, key) for key in ("offset", "length"))
    if length is None:
        # onnx then reads to the end of the file; the tensor must be what that gives.
        length = max(size - (offset or 0), 0)
    if length != needed:
        raise ValueError(f"{holder} takes {needed} bytes, but its external data has {length}")
    if (offset or 0) + length > size:
        raise ValueError(
            f"{holder} reads {length} bytes at {offset or 0} of {path.name}, which has {size}; "
            "the file is truncated, or another one"
        )
    return length


def _inside(holder: str, location: str, folder: Path) -> Path:
    """Return the file that a location means; ValueError if it is not in the folder."""
    posix, windows = PurePosixPath(location), PureWindowsPath(location)
    if not location or "\0" in location:
        raise ValueError(f"{holder} is external data without a location")
    if posix.is_absolute() or windows.drive or windows.root or ".." in (*posix.parts, *windows.parts):
        raise ValueError(
            f"{holder} is external data at {_shown(location)}; a location must be a path inside the model's "
            "folder"
        )
    where = f"{holder} is external data at {_shown(location)}"
    try:
        real = (folder / location).resolve()
        inside, there = real.is_relative_to(folder.resolve()), real.exists()
    except (OSError, RuntimeError) as error:
        # Too long a name, a folder not to be read; before Python 3.13 links in a circle are a RuntimeError.
        why = error.strerror if isinstance(error, OSError) else "its symbolic links form a circle"
        raise ValueError(f"{where}, which cannot be opened: {why}") from error
    if not inside:
        raise ValueError(f"{where}, a symbolic link out of the model's folder; copy the file there")
    if not there:
        raise ValueError(f"{where}, which is not there; keep it by the model")
    if not real.is_file():
        raise ValueError(f"{where}, which is no plain file")
    return real


def _shown(location: str) -> str:
    return repr(location if len(location) <= 200 else f"{location[:200]}...")


def _number(holder: str, entries: dict[str, str], key: str) -> int | None:
    text = entries.get(key)
    if text is None:
        return None
    # int() would take signs, blanks and underscores too, and any number of digits.
    if not re.fullmatch("[0-9]{1,19}", text):
        raise ValueError(f"{holder}: the {key} of its external data must be a number, not {text[:40]!r}")
    return int(text)
