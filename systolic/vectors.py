"""Golden vectors for RTL: port values and results as ``$readmemh`` files, with a manifest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from systolic import _check
from systolic._files import path_text, write_folder
from systolic._version import __version__
from systolic.array import SystolicArray
from systolic.config import ArrayConfig, as_array_config
from systolic.engine import matmul
from systolic.formats import Format, as_bits, bits
from systolic.machine import ports

SCHEMA = 1

_CONVENTION = """\
Line t of a port file holds that port's values of cycle t, counted from 0: those that this clock edge
consumes. Ports are already skewed: row r's west port runs r cycles late, column c's north port c
cycles late. Line t of bottom_{leaves}.mem is the {leaves} of the bottom row after the edge of cycle t.
A line is one hexadecimal word for $readmemh: element i (row r, or column c) is in bits
[i*bits + bits - 1 : i*bits], integers in two's complement, floats in their encoding. The
accumulator files say what the edge of cycle t writes: where accumulator_write is 1, the {leaves} that was
at the bottom before the edge goes to row accumulator_row of half accumulator_half, replacing the sum
there if accumulator_first is 1, else added to it: {sums}. There is one line more than cycles
counted: the last write follows the last counted edge. acc.mem holds the product, a line per row of x. All
registers are 0 before cycle 0.
"""

_HELD = """\
Sums stay in the PEs until their fold ends, and leave with the last row first; each half takes one fold's.
"""

_EXCHANGED = """\
x stays in the PEs and w streams: accumulator_row counts columns of the product.
"""


def write_vectors(
    x: Any, w: Any, out: str | os.PathLike[str], *, array: ArrayConfig | None = None
) -> dict[str, Any]:
    """Write the values that a product x @ w puts on every port of the array, and its results.

    Parameters
    ----------
    x : array_like of int8 or uint8, (M, K)
    w : array_like of int8 or uint8, (K, N)
    out : path
        A folder to make; it is complete or absent.
    array : ArrayConfig, optional
        Sizes; default 256 x 256.

    Returns
    -------
    dict
        The manifest, as ``manifest.json`` holds it: sizes, cycles, and for each file its words'
        width, elements and meaning.

    Raises
    ------
    TypeError, ValueError
        As :func:`systolic.matmul`; or if the product is empty.
    FileExistsError
        If `out` exists.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from pathlib import Path
    >>> from systolic import ArrayConfig, write_vectors
    >>> out = Path(tempfile.mkdtemp()) / "vectors"
    >>> x, w = np.int8([[1, 2], [3, 4], [-5, 6]]), np.int8([[7, -8, 9], [10, 11, -12]])
    >>> write_vectors(x, w, out, array=ArrayConfig(2, 3))["cycles"]
    8
    >>> print((out / "north_weight.mem").read_text().splitlines()[0])
    00000a
    """
    config = ArrayConfig() if array is None else as_array_config(array)
    iterator = ports(x, w, array=config)
    x, w = np.asarray(x), np.asarray(w)
    if 0 in (*x.shape, *w.shape):
        raise ValueError(
            f"x {_check.shape(x.shape)} and w {_check.shape(w.shape)} make an empty product, "
            "which takes no cycle"
        )
    target = Path(path_text(out))
    if target.exists():
        raise FileExistsError(f"{target} exists; name a folder that does not")
    config = config.for_operands(x.dtype, w.dtype)
    dataflow, sums = config.dataflow_record, bits(np.dtype(config.format.sum))
    # field of PortValues -> file, bits per element
    fields = {
        port.name: (f"{port.side}_{port.name}", bits(config.port_dtypes[port.name]))
        for port in dataflow.ports
    } | {
        "write": ("accumulator_write", 1),
        "half": ("accumulator_half", 1),
        "row": ("accumulator_row", 32),
        "first": ("accumulator_first", 1),
    }
    lines: dict[str, list[str]] = {file: [] for file, _ in fields.values()}
    cycles = list(iterator)
    for values in cycles:
        for name, (file, width) in fields.items():
            lines[file].append(_word(getattr(values, name), width))
    driven: dict[str, Any] = {
        port.name: np.stack([values.ports[port.name] for values in cycles]) for port in dataflow.ports
    }
    bottom = SystolicArray(config).clock(**driven)
    lines[f"bottom_{dataflow.leaves}"] = [_word(row, sums) for row in bottom]
    result = matmul(x, w, array=config, mode="wavefront")
    lines["acc"] = [_word(row, sums) for row in result.acc]
    widths = dict(fields.values()) | {f"bottom_{dataflow.leaves}": sums, "acc": sums}
    manifest = {
        "schema": SCHEMA,
        "systolic": __version__,
        "array": config.to_dict(),
        "gemm": {"m": x.shape[0], "k": x.shape[1], "n": w.shape[1]},
        "cycles": result.cycles,
        "lines": result.cycles + 1,
        "folds": [fold.to_dict() for fold in result.folds],
        "files": {
            f"{file}.mem": {
                "lines": len(lines[file]),
                "bits": width,
                "elements": len(lines[file][0]) * 4 // width if width > 1 else _elements(file, config),
            }
            for file, width in widths.items()
        },
        "convention": _CONVENTION.format(leaves=dataflow.leaves, sums=_sums(config.format))
        + _HELD * dataflow.held
        + _EXCHANGED * dataflow.exchanged,
    }
    import json

    def write(folder: Path) -> None:
        for file, words in lines.items():
            (folder / f"{file}.mem").write_text("\n".join(words) + "\n", encoding="ascii", newline="\n")
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="ascii")

    write_folder(target, write)
    return manifest


def _sums(numbers: Format) -> str:
    if numbers.is_float:
        return "float32, rounded to nearest, ties to even"
    if numbers.saturates:
        return f"saturated to {numbers.psum_bits} bits"
    return f"modulo 2^{numbers.psum_bits}"


def _elements(file: str, config: ArrayConfig) -> int:
    return config.rows if file.startswith("west") else config.cols


def _word(values: np.ndarray, bits: int) -> str:
    """Return numbers as one hexadecimal word, the first in its lowest bits."""
    word = 0
    for value in reversed(as_bits(values).tolist()):
        word = word << bits | value & ((1 << bits) - 1)
    return f"{word:0{-(-bits * len(values) // 4)}x}"
