"""Files that are complete or absent: written under another name, then renamed; and plain files to read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


def folder_of(path: str | os.PathLike[str]) -> Path:
    """Return the folder that a file is to be written to; FileNotFoundError if there is none."""
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {target.parent} to write {target.name} to")
    return target.parent


def check_plain(path: str | os.PathLike[str], what: str) -> os.stat_result:
    """Return a file's status; ValueError, with what is read instead, if it is a folder, pipe or device.

    Opening a pipe waits for a writer, and a device may never end.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a plain file"
        raise ValueError(f"{os.fspath(path)} is {kind}; {what}")
    return status


@contextmanager
def replacing(path: str | os.PathLike[str], mode: str = "wb", **options: Any) -> Iterator[IO[Any]]:
    """Open a file that takes the place of `path` when the block ends well, and is gone if it does not.

    Parameters
    ----------
    path : path
        Its folder must exist.
    mode : {"wb", "w"}
    **options
        As for ``open``.
    """
    import tempfile

    target = Path(path)
    descriptor, temporary = tempfile.mkstemp(dir=folder_of(target), prefix=target.name, suffix=".tmp")
    try:
        with os.fdopen(descriptor, mode, **options) as file:
            yield file
        # mkstemp lets only the owner read; a new file has what the umask leaves.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
