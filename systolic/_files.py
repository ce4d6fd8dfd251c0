"""Files and folders that are complete or absent, written under another name, then renamed; and plain files.

The writers are functions that call the user's, not context managers: an interrupt between a context manager's
``__enter__`` or ``__exit__`` and its caller would leave the temporary file behind.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zipfile import ZipFile


def path_text(path: str | os.PathLike[str]) -> str:
    """Return a path as text. TypeError if it is no path, ValueError if no file can have it."""
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(text, str):
        raise TypeError(f"path must be a str or a pathlib.Path, not {type(path).__name__} {path!r:.60}")
    try:
        valid = b"\0" not in os.fsencode(text)
    except UnicodeError:
        valid = False
    if not valid or not text:
        raise ValueError(f"path must be the name of a file, not {text!r}")
    return text


def folder_of(path: str | os.PathLike[str]) -> Path:
    """Return the folder that a file is to be written to; FileNotFoundError if there is none."""
    target = Path(path_text(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {target.parent} to write {target.name} to")
    return target.parent


def check_plain(path: str | os.PathLike[str], what: str) -> os.stat_result:
    """Return a file's status; ValueError, with a hint on what to pass, if it is a folder, pipe or device.

    Opening a pipe waits for a writer, and a device may never end.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(_not_plain(path, stat.S_ISDIR(status.st_mode), what))
    return status


def _not_plain(path: str | os.PathLike[str], folder: bool, what: str) -> str:
    return f"{os.fspath(path)} is {'a folder' if folder else 'not a plain file'}; {what}"


def check_target(path: str | os.PathLike[str]) -> None:
    """Raise OSError or ValueError if :func:`write_file` cannot write a file; for use before long work."""
    target = path_text(path)
    if os.path.isdir(target):
        raise IsADirectoryError(_not_plain(path, True, "name a file in it"))
    if os.path.lexists(target) and not os.path.isfile(target):
        raise ValueError(_not_plain(path, False, "name a file"))
    if os.path.basename(target) in ("", os.curdir, os.pardir):
        raise ValueError(f"path must be the name of a file, not {target!r}")
    _check_place(target)


def check_folder(path: str | os.PathLike[str]) -> None:
    """Raise OSError or ValueError if :func:`write_folder` cannot make a folder, which is not there yet."""
    # A slash at the end of a folder's name is usual.
    target = path_text(path).rstrip(os.sep)
    if os.path.lexists(target or os.sep):
        raise FileExistsError(f"{os.fspath(path)} exists; name a folder that does not")
    _check_place(target)


def _check_place(target: str) -> None:
    """Raise OSError unless a new file or folder can be made under a name."""
    folder = folder_of(target)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"no permission to write {os.path.basename(target)} to the folder {folder}")
    with contextlib.suppress(FileNotFoundError):
        os.lstat(target)  # raises if the name is too long


def write_file(
    path: str | os.PathLike[str], write: Callable[[IO[Any]], Any], mode: str = "wb", **options: Any
) -> None:
    """Let `write` fill a file that then replaces `path`; if it fails, nothing is left behind.

    Parameters
    ----------
    path : path
        Its folder must exist. The file gets the permissions of any new one. A pipe or device is refused:
        a file would take its place.
    write : callable
        Gets the open file.
    mode : {"wb", "w"}
    **options
        As for ``open``.
    """

    def make(temporary: str) -> None:
        with open(temporary, mode.replace("w", "x"), **options) as file:
            write(file)

    check_target(path)
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
            # Closing a zip in the middle of an entry is a ValueError. Without its file it does not try
            # to, here or when it is freed.
            if archive is not None:
                archive.fp = None

    write_file(path, fill)


def write_folder(path: str | os.PathLike[str], write: Callable[[Path], Any]) -> None:
    """Let `write` fill a folder that is then renamed to `path`; if it fails, nothing is left behind."""
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
    target = path_text(path)
    # The name is unique and known before the file exists. Not by tempfile, whose files only their owner
    # may read.
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
        # Again: an interrupt may have stopped the first attempt.
        _discard(temporary, remove)
        raise


def _discard(temporary: str, remove: Callable[[str], None]) -> None:
    with contextlib.suppress(OSError):  # not made yet, or renamed already
        remove(temporary)
