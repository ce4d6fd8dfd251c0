"""Rows in a CSV file: appended one line at a time, so that a killed process loses at most one."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

from systolic._files import check_plain, folder_of, path_text, write_file
from systolic._text import printable
from systolic._version import __version__
from systolic.config import MachineConfig
from systolic.stats import COUNTS, Stats
from systolic.sweeps.rows import SweepRow, canonical, identify

COLUMNS = (
    "id", "model", "batch", "mapping", "rows", "cols", "clock_mhz", "seconds", "utilization", *COUNTS,
    "error", "version", "model_id", "machine",
)  # fmt: skip
"""Columns of a file. rows, cols, clock_mhz, seconds and utilization follow from the others."""


def _line(values: Iterable[Any]) -> str:
    import csv

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def _text_of(rows: Iterable[SweepRow]) -> str:
    """Return the lines of rows; none holds a line feed inside."""
    import csv

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        machine = canonical(row.machine.to_dict())
        array, stats = row.machine.array, row.stats
        counts = [None] * len(COUNTS) if stats is None else [getattr(stats, name) for name in COUNTS]
        writer.writerow((
            identify(row.model_id, machine, row.batch, row.mapping, row.version), printable(row.model),
            row.batch, row.mapping, array.rows, array.cols, row.machine.clock_mhz, row.seconds,
            None if stats is None else stats.utilization, *counts,
            None if row.error is None else printable(row.error), row.version, row.model_id, machine,
        ))  # fmt: skip
    return text.getvalue()


@lru_cache(maxsize=1024)
def _machine(text: str) -> tuple[MachineConfig, str]:
    """Return the machine that JSON describes, and its canonical JSON."""
    import json

    machine = MachineConfig.from_dict(json.loads(text))
    return machine, canonical(machine.to_dict())


def _row(cells: list[str]) -> SweepRow:
    if len(cells) != len(COLUMNS):
        raise ValueError(f"it has {len(cells)} values, not {len(COLUMNS)}")
    values = dict(zip(COLUMNS, cells, strict=True))
    machine, text = _machine(values["machine"])
    error = values["error"] or None
    row = SweepRow(
        model=values["model"], model_id=values["model_id"], machine=machine, batch=int(values["batch"]),
        mapping=values["mapping"] or None, version=values["version"], error=error,
        stats=None if error is not None else Stats(**{name: int(values[name]) for name in COUNTS}),
    )  # fmt: skip
    if values["id"] != identify(row.model_id, text, row.batch, row.mapping, row.version):
        raise ValueError("its id is not that of its configuration")
    array, stats = machine.array, row.stats
    derived = {
        "rows": array.rows, "cols": array.cols, "clock_mhz": machine.clock_mhz, "seconds": row.seconds,
        "utilization": None if stats is None else stats.utilization,
        "pe_cycles": None if stats is None else array.rows * array.cols * stats.cycles,
    }  # fmt: skip
    for name, value in derived.items():
        if values[name] != ("" if value is None else str(value)):
            raise ValueError(f"its {name} is {values[name]!r}, but follows from its other values: {value}")
    return row


def _head_error(path: str, head: str) -> ValueError:
    return ValueError(
        f"{path} is no file of a sweep by systolic {__version__}: its first line is "
        f"{printable(head)[:60]!r}, not {_line(COLUMNS)[:60]!r}; name another file, nothing was written"
    )


def _parsed(path: str, data: bytes) -> Iterator[SweepRow]:
    """Yield the rows of complete lines, the head among them."""
    import csv

    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no file of text: {error}") from None
    if lines[0].rstrip("\r") != _line(COLUMNS).rstrip("\n"):
        raise _head_error(path, lines[0])
    for number, line in enumerate(lines[1:-1], start=2):
        try:
            (cells,) = csv.reader([line])
            yield _row(cells)
        except (ValueError, TypeError, KeyError, RecursionError, csv.Error) as error:
            raise ValueError(
                f"{path}, line {number} is damaged ({error}); delete the line, and the sweep computes it "
                "again"
            ) from error


def read_rows(path: str | os.PathLike[str]) -> list[SweepRow]:
    """Return the rows of a file; a last line that is not complete is left out."""
    text = path_text(path)
    check_plain(text, "a sweep is a CSV file")
    with open(text, "rb") as file:
        data = file.read()
    return list(_parsed(text, data[: data.rfind(b"\n") + 1]))


def write_rows(path: str | os.PathLike[str], rows: Iterable[SweepRow]) -> None:
    """Write a file of rows, completely or not at all."""
    text = _line(COLUMNS) + _text_of(rows)
    write_file(path, lambda file: file.write(text.encode()))


class RowFile:
    """A file that rows are appended to. It belongs to one process at a time.

    Parameters
    ----------
    path : path
        A .csv file. One that exists is continued: a last line that is not complete is cut off.

    Attributes
    ----------
    rows : list of SweepRow
        What the file held before.

    Raises
    ------
    ValueError
        If the file is of another kind, of another version of the package, damaged, or in use. It is left
        as it is.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path_text(path)
        if os.path.splitext(self.path)[1].lower() != ".csv":
            raise ValueError(f"out must be the name of a .csv file, not {self.path!r}")
        folder_of(self.path)
        if os.path.lexists(self.path):
            check_plain(self.path, "rows go to a .csv file")
        self._file = os.open(
            self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666
        )
        try:
            self._lock()
            self.rows = self._begin()
        except BaseException:
            self.close()
            raise

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # Windows
            return
        try:
            # Released when the process ends, in whichever way.
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(
                f"{self.path} is in use by another sweep; wait for it, or name another file"
            ) from error

    def _begin(self) -> list[SweepRow]:
        parts = []
        while part := os.read(self._file, 1 << 20):
            parts.append(part)
        data = b"".join(parts)
        complete = data.rfind(b"\n") + 1
        head = _line(COLUMNS).encode()
        if not complete:
            # Nothing yet, or the head itself was cut: nothing of anyone else's is overwritten.
            if not head.startswith(data):
                raise _head_error(self.path, data[:200].decode(errors="replace"))
            os.ftruncate(self._file, 0)
            self._write(head)
            return []
        rows = list(_parsed(self.path, data[:complete]))
        for row in rows:
            if row.version != __version__:
                raise ValueError(
                    f"{self.path} holds rows of systolic {row.version}, and this is {__version__}: costs may "
                    "differ, and the rows would not be found again; name another file"
                )
        if complete < len(data):
            os.ftruncate(self._file, complete)
        return rows

    def append(self, rows: Iterable[SweepRow]) -> None:
        """Write rows; they are with the operating system when this returns."""
        self._write(_text_of(rows).encode())

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]

    def close(self) -> None:
        """Give the file free."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
