"""Rows in a CSV file: appended one line at a time, so that a killed process loses at most one.

A Parquet file is written at once: until then its new rows are in a CSV file beside it, the journal.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from systolic._files import check_plain, check_target, folder_of, path_text, write_file
from systolic._text import canonical, printable
from systolic._version import __version__
from systolic.config import MachineConfig
from systolic.stats import COUNTS, Stats
from systolic.sweeps import parquet
from systolic.sweeps.rows import SweepRow, identify

COLUMNS = (
    "id", "model", "batch", "mapping", "rows", "cols", "clock_mhz", "seconds", "utilization", *COUNTS,
    "note", "error", "version", "model_id", "machine",
)  # fmt: skip
"""Columns of a file. rows, cols, clock_mhz, seconds and utilization follow from the others."""

_TEXT = ("id", "model", "mapping", "note", "error", "version", "model_id", "machine")

_CLOCK = COLUMNS.index("clock_mhz")

SUFFIXES = (".csv", ".parquet")

JOURNAL = ".journal"
"""Ends the name of the CSV file that holds a Parquet file's new rows until all are there."""


def _line(values: Iterable[Any]) -> str:
    import csv

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def _text_of(rows: Iterable[SweepRow]) -> str:
    """Return the lines of rows; none holds a line feed inside."""
    import csv

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(map(_cells, rows))
    return text.getvalue()


def _cells(row: SweepRow) -> tuple[Any, ...]:
    """Return the values of a row's columns."""
    machine = canonical(row.machine.to_dict())
    array, stats = row.machine.array, row.stats
    counts = [None] * len(COUNTS) if stats is None else [getattr(stats, name) for name in COUNTS]
    return (
        identify(row.model_id, machine, row.batch, row.mapping, row.version), printable(row.model),
        row.batch, row.mapping, array.rows, array.cols, row.machine.clock_mhz, row.seconds,
        None if stats is None else stats.utilization, *counts,
        row.note, None if row.error is None else printable(row.error), row.version, row.model_id, machine,
    )  # fmt: skip


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
        mapping=values["mapping"] or None, note=values["note"] or None, version=values["version"],
        error=error,
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


def suffix_of(path: str | os.PathLike[str], name: str = "path") -> str:
    """Return which kind of file a name means; ValueError if none."""
    text = path_text(path)
    suffix = os.path.splitext(text)[1].lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{name} must be the name of a .csv or .parquet file, not {text!r}")
    if suffix == ".parquet":
        parquet.load()
    return suffix


def check_rows(path: str | os.PathLike[str]) -> None:
    """Raise OSError or ValueError if rows cannot be appended to a file; it may be there or not."""
    suffix_of(path, "out")
    for each in (path_text(path), path_text(path) + JOURNAL):
        if not os.path.lexists(each):
            check_target(each)
            continue
        check_plain(each, "rows go to a plain file")
        if not os.access(each, os.R_OK | os.W_OK):
            raise PermissionError(f"no permission to append to {each}")


def read_rows(path: str | os.PathLike[str]) -> list[SweepRow]:
    """Return the rows of a file, and of its journal; a last line that is not complete is left out."""
    text = path_text(path)
    if suffix_of(text) == ".parquet":
        journal = text + JOURNAL
        if not os.path.lexists(journal):
            return _parquet_rows(text)
        rows = _parquet_rows(text) if os.path.lexists(text) else []
        # A process that ended between writing the one and removing the other has its rows in both.
        return list({row.id: row for row in (*rows, *_csv_rows(journal))}.values())
    return _csv_rows(text)


def _csv_rows(path: str) -> list[SweepRow]:
    check_plain(path, "a sweep is a CSV file")
    with open(path, "rb") as file:
        data = file.read()
    return list(_parsed(path, data[: data.rfind(b"\n") + 1]))


def _parquet_rows(path: str) -> list[SweepRow]:
    names, lines = parquet.read_table(path)
    if tuple(names) != COLUMNS:
        raise _head_error(path, _line(names).strip())
    found = []
    for number, cells in enumerate(lines):
        try:
            # A machine's clock is an integer if it can be, a column holds floats.
            clock = float(cells[_CLOCK])
            cells[_CLOCK] = str(int(clock) if clock.is_integer() else clock)
            found.append(_row(cells))
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise ValueError(f"{path}, row {number} is damaged ({error}); name another file") from error
    return found


def write_rows(path: str | os.PathLike[str], rows: Iterable[SweepRow]) -> None:
    """Write a file of rows, completely or not at all."""
    if suffix_of(path) == ".parquet":
        parquet.write_table(path_text(path), COLUMNS, _TEXT, list(map(_cells, rows)))
        return
    text = _line(COLUMNS) + _text_of(rows)
    write_file(path, lambda file: file.write(text.encode()))


class RowFile:
    """A file that rows are appended to. It belongs to one process at a time.

    Parameters
    ----------
    path : path
        A .csv or .parquet file. One that exists is continued. Rows of a Parquet file go to a journal beside
        it, a CSV file. A last line that is not complete is cut off.

    Attributes
    ----------
    rows : list of SweepRow
        What the files held before.

    Raises
    ------
    ValueError
        If a file is of another kind, of another version of the package, damaged, or in use. It is left as it
        is.
    ImportError
        If it is a Parquet file and pyarrow is not installed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.whole = path_text(path)  # what is there in the end
        self.path = self.whole + JOURNAL if suffix_of(path, "out") == ".parquet" else self.whole
        self._appended: list[SweepRow] = []
        folder_of(self.path)
        for each in (self.whole, self.path):
            if os.path.lexists(each):
                check_plain(each, "rows go to a plain file")
        self._file = os.open(
            self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666
        )
        try:
            self._lock()
            self.rows = self._begin()
            if self.path != self.whole and os.path.lexists(self.whole):
                before = _parquet_rows(self.whole)
                self._check_versions(self.whole, before)
                self.rows = before + self.rows
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
        if not os.path.exists(self.path) or not os.path.samestat(os.stat(self.path), os.fstat(self._file)):
            raise ValueError(f"{self.path} was in use by another sweep, which has ended; run again")

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
        self._check_versions(self.path, rows)
        if complete < len(data):
            os.ftruncate(self._file, complete)
        return rows

    def _check_versions(self, path: str, rows: Iterable[SweepRow]) -> None:
        for row in rows:
            if row.version != __version__:
                raise ValueError(
                    f"{path} holds rows of systolic {row.version}, and this is {__version__}: costs may "
                    "differ, and the rows would not be found again; name another file"
                )

    def append(self, rows: Sequence[SweepRow]) -> None:
        """Write rows; they are with the operating system when this returns."""
        self._write(_text_of(rows).encode())
        if self.path != self.whole:
            self._appended += rows

    def finish(self) -> None:
        """Close the file; a journal's rows go to the Parquet file, and the journal is removed."""
        if self.path != self.whole:
            # A journal may hold rows that the file has already.
            rows = {row.id: row for row in (*self.rows, *self._appended)}
            write_rows(self.whole, rows.values())
            if os.name == "nt":
                self.close()  # an open file cannot be removed there
            os.unlink(self.path)
        self.close()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]

    def close(self) -> None:
        """Give the file free."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
