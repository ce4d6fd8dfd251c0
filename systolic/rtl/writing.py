"""``write_rtl``: the RTL model for one array, with a test bench, as a folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from systolic import _check
from systolic._files import check_folder, path_text, write_folder
from systolic._version import __version__
from systolic.config import ArrayConfig, MachineConfig, as_array_config
from systolic.rtl.product import Memories, memories, random_product
from systolic.rtl.sources import DESIGN, SOURCES, source
from systolic.vectors import write_vectors
from systolic.vectors.words import lines

MOST_SIZE = 256
"""Rows and columns of an array at most."""

MOST_ACCUMULATOR_ROWS = 1 << 16


def write_rtl(
    array: ArrayConfig | MachineConfig, out: str | os.PathLike[str], *, seed: int = 0, command: str = ""
) -> dict[str, Any]:
    """Write the RTL model of an array in SystemVerilog, with a test bench, a Makefile and a README.

    Parameters
    ----------
    array : ArrayConfig or MachineConfig
        Sizes, dataflow and operand types: int8 or uint8, with sums of 32 bits that wrap.
    out : path
        A folder to make; it is complete or absent.
    seed : int
        Of the random product that the test bench runs.
    command : str
        How the folder was written, for its README; default a call of this function.

    Returns
    -------
    dict
        ``gemm``, ``cycles`` and ``folds`` of the test bench's product, and ``files``, the names of all.

    Raises
    ------
    TypeError
        If `array` is no configuration.
    ValueError
        If the model has no such operand types or sizes.
    FileExistsError
        If `out` exists.
    FileNotFoundError, PermissionError
        If `out` cannot be made where it is to be.

    Notes
    -----
    The design lints without a warning under ``verilator --lint-only -Wall``, and Yosys synthesizes it
    without latches.

    Examples
    --------
    >>> import tempfile
    >>> from systolic import ArrayConfig
    >>> from systolic.rtl import write_rtl
    >>> written = write_rtl(ArrayConfig(2, 3, accumulator_rows=8), tempfile.mkdtemp() + "/rtl")
    >>> written["gemm"], written["cycles"], len(written["folds"])
    ({'m': 6, 'k': 5, 'n': 4, 'groups': 1}, 41, 12)
    >>> [name for name in written["files"] if name.startswith("bench")]
    ['bench/replay.sv', 'bench/systolic_tb.sv']
    """
    config = as_array_config(array)
    _check_fits(config)
    seed = _check.integer(seed, "seed", minimum=0)
    check_folder(out)
    x, w = random_product(config, seed)
    memory = memories(x, w, config)
    command = command or f"systolic.rtl.write_rtl({config!r}, {Path(path_text(out)).name!r}, seed={seed})"
    written: dict[str, Any] = {}

    def write(folder: Path) -> None:
        (folder / "product").mkdir()
        for name, values in memory._asdict().items():
            (folder / "product" / f"{name}.mem").write_bytes(lines(values))
        manifest = write_vectors(x, w, folder / "vectors", array=config)
        for name, text in _texts(config, memory, manifest, seed, command).items():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="ascii", newline="\n")
        written.update({name: manifest[name] for name in ("gemm", "cycles", "folds")})
        written["files"] = sorted(
            path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
        )

    write_folder(out, write)
    return written


def _check_fits(config: ArrayConfig) -> None:
    """Raise ValueError unless the RTL model can be this array."""
    if not config.format.is_plain:
        raise ValueError(
            "the RTL model multiplies int8 or uint8 and adds modulo 2^32 (psum_bits=32, overflow='wrap'), "
            f"but the array has {config.format.text}"
        )
    for name in ("rows", "cols"):
        if getattr(config, name) > MOST_SIZE:
            raise ValueError(
                f"the RTL model has at most {MOST_SIZE} x {MOST_SIZE} PEs, not {config.rows} x {config.cols}"
            )
    height = config.accumulator_rows
    if not config.dataflow_record.held and (height is None or height > MOST_ACCUMULATOR_ROWS):
        raise ValueError(
            f"accumulator_rows must be 2 to {MOST_ACCUMULATOR_ROWS:,} in the RTL model, "
            f"not {'unlimited' if height is None else f'{height:,}'}"
        )


def _texts(
    config: ArrayConfig, memory: Memories, manifest: Mapping[str, Any], seed: int, command: str
) -> dict[str, str]:
    """Return the text files by their names in the folder."""
    dataflow, held = config.dataflow_record, config.dataflow_record.held
    signs = {
        f"{name.upper()}_SIGNED": f"1'b{int(config.port_dtypes[name] == np.dtype('int8'))}"
        for name in ("activation", "weight")
    }
    sizes: dict[str, Any] = {"ROWS": config.rows, "COLS": config.cols}
    unit: dict[str, Any] = {**sizes, **signs, "DOUBLE_BUFFERED": f"1'b{int(config.double_buffered)}"}
    height = len(memory.sums)
    if held:
        top = source("output_top.sv", **unit).replace("output_top", "systolic_top")
    else:
        top = source("systolic_top.sv", **unit, ACC_ROWS=height)
    bench = source(
        "systolic_tb.sv", **sizes, ACC_ROWS=height, X_WORDS=len(memory.x), W_WORDS=len(memory.w),
        FOLDS=len(memory.folds), CYCLES=manifest["cycles"],
    ).replace("bottom_psum", f"bottom_{dataflow.leaves}")  # fmt: skip
    files = {f"design/{name}": source(name) for name in DESIGN[config.dataflow]}
    files["design/systolic_top.sv"] = top
    files["bench/systolic_tb.sv"] = bench
    files["bench/replay.sv"] = source("replay.sv", **sizes, **signs)
    design = [name for name in files if name.startswith("design/")]
    array = design[1::-1]
    design.reverse()  # the top comes first
    files["Makefile"] = _filled(
        "Makefile", DESIGN=" ".join(design), ARRAY=" ".join(array),
        DEFINE="-DOUTPUT_STATIONARY" if held else "",
    )  # fmt: skip
    files["README.md"] = _filled(
        "README.md", **_described(config, memory, manifest, files), COMMAND=command, SEED=seed,
    )  # fmt: skip
    return files


def _filled(name: str, **values: Any) -> str:
    """Return a file's text with values for ``@NAME@``."""
    text = (SOURCES / name).read_text(encoding="ascii")
    for key, value in values.items():
        text = text.replace(f"@{key}@", str(value))
    return text


_WORDS = {
    # Word of x, word of w, sizes of a fold, what fold_first means, what the memories hold.
    "weight_stationary": (
        "a row of x, as much of it as the rows of a weight tile",
        "a row of a weight tile",
        "Rows of x, at least 1; rows and columns of the array in use.",
        "The fold's sums replace those in the accumulators; else they are added: 1 for the first tile of k.",
        "Weights stay in the PEs: x_data streams, a row of x on each cycle, and w_data fills the next tile.",
    ),
    "output_stationary": (
        "a column of x, as much of it as the rows of a tile of sums",
        "a row of w, as much of it as the columns of a tile of sums",
        "Rows of the array in use; operands of each PE, at least 1; columns in use.",
        "Not used: sums stay in the PEs until they are whole.",
        "Sums stay in the PEs: a column of x and a row of w enter on each cycle.",
    ),
    "input_stationary": (
        "a column of w, as much of it as the rows of a tile of activations",
        "a column of a tile of activations, which is a part of x transposed",
        "Columns of w, at least 1; rows and columns of the array in use.",
        "The fold's sums replace those in the accumulators; else they are added: 1 for the first tile of k.",
        "Activations stay in the PEs, and x and w have changed places: x_data carries w, and w_data carries "
        "x transposed, of which a column is a row of x. A row of sums is a column of the product.",
    ),
}


def _described(
    config: ArrayConfig, memory: Memories, manifest: Mapping[str, Any], files: Mapping[str, str]
) -> dict[str, Any]:
    """Return the values for the README."""
    x_word, w_word, sizes, first, holds = _WORDS[config.dataflow]
    buffered = {
        (False, True): "the next weights shifted in while the current ones are used",
        (False, False): "weights shifted in while nothing is computed",
        (True, True): "sums drained while the next fold computes",
        (True, False): "sums drained while nothing is computed",
    }[config.dataflow_record.held, config.double_buffered]
    gemm, height = manifest["gemm"], len(memory.sums)
    return {
        "ROWS": config.rows, "COLS": config.cols, "DATAFLOW": config.dataflow.replace("_", " "),
        "TYPES": f"{config.activation_dtype} activations and {config.weight_dtype} weights",
        "BUFFERED": buffered, "VERSION": __version__,
        "FILES": "\n".join(
            f"| `{name}` | {_first_sentence(text)} |"
            for name, text in files.items()
            if name.startswith("design/")
        ),
        "SIZES": sizes, "FIRST": first, "X_WORD": x_word, "W_WORD": w_word, "OPERANDS": holds,
        "X_BITS": 8 * config.rows, "W_BITS": 8 * config.cols, "SUM_BITS": 32 * config.cols,
        "HALF": height // 2, "ACC_ROWS": height, "X_WORDS": len(memory.x), "W_WORDS": len(memory.w),
        "FOLDS": len(memory.folds), "CYCLES": f"{manifest['cycles']:,}",
        "M": gemm["m"], "K": gemm["k"], "N": gemm["n"],
    }  # fmt: skip


def _first_sentence(text: str) -> str:
    """Return the first sentence of the comment that a file begins with."""
    words = []
    for line in text.splitlines():
        if not line.startswith("//"):
            break
        words.append(line.removeprefix("//").strip())
    sentence, _, _ = " ".join(words).partition(". ")
    return sentence.rstrip(".") + "."
