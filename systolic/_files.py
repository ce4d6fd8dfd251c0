"""Files and folders that are complete or absent: written under another name, then renamed.

The writers are functions that call the user's, not context managers: an interrupt between a context manager's
``__enter__`` or ``__exit__`` and its caller would leave the temporary file behind.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zipfile import ZipFile


def folder_of(path: str | os.PathLike[str]) -> Path:
    """Return the folder that a file is to be written to; FileNotFoundError if there is none."""
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {target.parent} to write {target.name} to")
    return target.parent


def write_file(
    path: str | os.PathLike[str], write: Callable[[IO[Any]], Any], mode: str = "wb", **options: Any
) -> None:
    """Let `write` fill a file that then takes the place of `path`; if it fails, nothing is left.

    Parameters
    ----------
    path : path
        Its folder must exist. The file gets the permissions of any new one.
    write : callable
        Gets the open file.
    mode : {"wb", "w"}
    **options
        As for ``open``.
    """

    def make(temporary: str) -> None:
        with open(temporary, mode.replace("w", "x"), **options) as file:
            write(file)

    _write(path, make, os.replace, os.unlink)


def write_zip(path: str | os.PathLike[str], write: Callable[[ZipFile], Any]) -> None:
    """Let `write` fill a zip, as :func:`write_file` does a file."""
    import zipfile

    def fill(file: IO[bytes]) -> None:
        archive = None
        try:
            archive = zipfile.ZipFile(file, "w")
            write(archive)
            archive.close()
        finally:
            # Closing a zip amid an entry is a ValueError: without its file it does not try to, here or
            # when it is freed.
            if archive is not None:
                archive.fp = None

    write_file(path, fill)


def write_folder(path: str | os.PathLike[str], write: Callable[[Path], Any]) -> None:
    """Let `write` fill a folder that is then named `path`; if it fails, nothing is left."""
    import shutil

    def make(temporary: str) -> None:
        os.mkdir(temporary)
        write(Path(temporary))

    _write(path, make, os.rename, shutil.rmtree)


def _write(
    path: str | os.PathLike[str],
    make: Callable[[str], None],
    rename: Callable[[str, str], None],
    remove: Callable[[str], None],
) -> None:
    target = os.fspath(path)
    # The name is known before the file is there, and nobody else has it. os.urandom serves the purpose
    # without tempfile, which makes files that only their owner may read.
    name = f"{os.path.basename(target)[:40]}.{os.urandom(8).hex()}.tmp"
    temporary = os.path.join(folder_of(target), name)
    try:
        try:
            make(temporary)
            rename(temporary, target)
        except BaseException:
            _discard(temporary, remove)
            raise
    except BaseException:
        # Once more: an interrupt may have ended the first.
        _discard(temporary, remove)
        raise


def _discard(temporary: str, remove: Callable[[str], None]) -> None:
    with contextlib.suppress(OSError):  # it has not been made, or has its name already
        remove(temporary)
