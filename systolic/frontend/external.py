"""External data of ONNX files: check where it lies and how much is read."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np

from systolic._memory import require
from systolic.frontend.check import stored_bytes, tensors
from systolic.model import DTYPES

# Two tensors may be one region (tied weights); more of it would let a small file fill the memory.
_SHARED = 2


# Where the data of tensors would be that a file leaves out.
_NOWHERE = "(missing)"

_DATA = ("raw_data", "float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")


def set_apart(model: Any) -> None:
    """Let initializers without data, which some programs strip, be external data that is missing."""
    from onnx import TensorProto

    for tensor in model.graph.initializer:
        held = any(len(getattr(tensor, name)) for name in _DATA)
        if not held and tensor.data_location != TensorProto.EXTERNAL and tensor.dims and all(tensor.dims):
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=_NOWHERE)


def read_external(
    model: Any, folder: str | os.PathLike[str], missing: list[str] | None = None
) -> dict[str, np.ndarray]:
    """Return the initializers of a ModelProto that are in other files; load other tensors' data in place.

    They are not put into the ModelProto, since they may exceed what a message can hold, except for types that
    numpy lacks. Sizes and types are checked already; nothing outside the model's folder is opened.

    With a list `missing`, initializers of which the file is not there are zeros, and their names are added.

    Raises
    ------
    ValueError
        If a location is absolute, leaves the folder (``..`` or a symbolic link) or is no plain file
        or none at all; if an offset or a length does not fit the file or the tensor; or if the
        tensors ask for far more than the files hold.
    MemoryError
        If they are larger than the available memory.
    """
    from onnx import TensorProto, external_data_helper, helper

    found = [(holder, t) for holder, t in tensors(model.graph) if t.data_location == TensorProto.EXTERNAL]
    initializers = {id(tensor) for tensor in model.graph.initializer}
    arrays = {}
    if missing is not None:
        arrays = _zeros([t for _, t in found if id(t) in initializers], Path(folder))
        missing += arrays
        found = [(holder, t) for holder, t in found if id(t) not in initializers or t.name not in arrays]
    sizes: dict[Path, int] = {}
    places = [_checked(holder, tensor, Path(folder), sizes) for holder, tensor in found]
    total = sum(place.length for place in places)
    if total > _SHARED * sum(sizes.values()):
        raise ValueError(
            f"its tensors read {total:,} bytes from external files that have {sum(sizes.values()):,}; "
            f"at most {_SHARED} tensors may share data"
        )
    require(total, "its external data")
    for (holder, tensor), place in zip(found, places, strict=True):
        try:
            dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
            if id(tensor) in initializers and dtype.name in DTYPES:
                arrays[tensor.name] = place.read(dtype, tuple(tensor.dims))
                continue
            external_data_helper.load_external_data_for_tensor(tensor, os.fspath(folder) or ".")
        except Exception as error:  # the package's checks, in one of several classes
            raise ValueError(f"{holder}: its external data cannot be read: {error}") from error
        # Whether older versions of the package do this depends on the caller.
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]
    return arrays


def _zeros(found: list[Any], folder: Path) -> dict[str, np.ndarray]:
    """Return zeros, which take no memory, for tensors of which the file is missing."""
    from onnx import helper

    arrays = {}
    for tensor in found:
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        if location and "\0" not in location and not os.path.lexists(folder / location):
            dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
            if dtype.name in DTYPES:
                arrays[tensor.name] = np.broadcast_to(np.zeros((), dtype), tuple(tensor.dims))
    return arrays


class _Place(NamedTuple):
    """Location of a tensor's bytes."""

    path: Path
    offset: int
    length: int

    def read(self, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        count = self.length // dtype.itemsize
        array = np.fromfile(self.path, dtype.newbyteorder("<"), count, offset=self.offset)
        return array.reshape(shape).astype(dtype, copy=False)


def _checked(holder: str, tensor: Any, folder: Path, sizes: dict[Path, int]) -> _Place:
    """Return the location of a tensor's bytes; record the file's size in `sizes`."""
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
    return _Place(path, offset or 0, length)


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
        # A long name, a folder that cannot be read; before Python 3.13 a loop of links is a RuntimeError.
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
