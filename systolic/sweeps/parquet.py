"""Rows as a Parquet file, which is written at once: what is appended goes to a journal beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from systolic._files import check_plain, write_file

NUMBERS = ("clock_mhz", "seconds", "utilization")
"""Columns of floats."""

_MOST = 2**63 - 1
_DIGITS = 38  # of a decimal of 128 bits


def load() -> tuple[Any, Any]:
    """Return pyarrow and pyarrow.parquet."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            'a .parquet file needs pyarrow: pip install "systolic[sweep]"; a .csv file needs nothing'
        ) from error
    return pyarrow, pyarrow.parquet


def read_table(path: str) -> tuple[list[str], Iterator[list[str]]]:
    """Return the names of a file's columns, and its rows as text; ValueError if it is no Parquet file."""
    pyarrow, parquet = load()
    check_plain(path, "rows are in a .parquet file")
    try:
        with parquet.ParquetFile(path) as file:
            table = file.read()
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is no Parquet file: {str(error)[:200]}") from None
    columns = [map(_text, column.to_pylist()) for column in table.columns]
    return table.column_names, map(list, zip(*columns, strict=True))


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def write_table(path: str, names: Sequence[str], text: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write rows completely or not at all; columns that are not in `text` hold numbers, or None."""
    pyarrow, parquet = load()
    columns = list(zip(*rows, strict=True)) or [()] * len(names)

    def array(name: str, values: Sequence[Any]) -> Any:
        if name in text:
            return pyarrow.array(values, pyarrow.string())
        if name in NUMBERS or any(isinstance(value, float) for value in values):
            floats = [None if value is None else float(value) for value in values]
            return pyarrow.array(floats, pyarrow.float64())
        most = max((value for value in values if value is not None), default=0)
        if most >= 10**_DIGITS:
            raise ValueError(
                f"{name} has more than {_DIGITS} digits, which a .parquet file does not hold; "
                "write a .csv file"
            )
        return pyarrow.array(values, pyarrow.int64() if most <= _MOST else pyarrow.decimal128(_DIGITS, 0))

    arrays = [array(name, values) for name, values in zip(names, columns, strict=True)]
    table = pyarrow.table(arrays, names=list(names))
    write_file(path, lambda file: parquet.write_table(table, file))
