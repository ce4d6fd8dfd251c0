"""The manifest of a folder of vectors: ``manifest.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from systolic import _check
from systolic._version import __version__
from systolic.config import ArrayConfig
from systolic.formats import Format, bits
from systolic.lowered import Lowered, Patches
from systolic.tiling import Schedule

SCHEMA = 2
"""Version of what a manifest holds: ``docs/vectors.md`` lists its fields."""

_CONVENTION = """\
Line t of a port file holds that port's values of cycle t, counted from 0: those that this clock edge
consumes. Ports are already skewed: row r's west port runs r cycles late, column c's north port c
cycles late. Line t of bottom_{leaves}.mem is the {leaves} of the bottom row after the edge of cycle t.
A line is one hexadecimal word for $readmemh: element i (row r, or column c) is in bits
[i*bits + bits - 1 : i*bits], integers in two's complement, floats in their encoding. The
accumulator files say what the edge of cycle t writes: where accumulator_write is 1, the {leaves} that was
at the bottom before the edge goes to row accumulator_row of half accumulator_half, replacing the sum
there if accumulator_first is 1, else added to it: {sums}. There is one line more than cycles
counted: the last write follows the last counted edge. acc.mem holds the product, a line for each row of x
and an element for each channel. All registers are 0 before cycle 0.
"""

_HELD = """\
Sums stay in the PEs until their fold ends, and leave with the last row first; each half takes one fold's.
"""

_EXCHANGED = """\
x stays in the PEs and w streams: accumulator_row counts columns of the product.
"""

_IMAGES = """\
A row of x is a patch of an image, in the order of (batch, oh, ow). Channels are (group, column of the group's
w), groups outermost; groups run one after the other as one sequence of folds.
"""

_STACK = """\
The rows of x of all groups follow each other in acc.mem; groups run one after the other as one sequence of
folds.
"""


def described(
    lowered: Lowered, config: ArrayConfig, plan: Schedule, acc: tuple[int, ...], output: np.ndarray | None
) -> dict[str, Any]:
    """Return the manifest of a product without its files and epilogue.

    `acc` is the shape of the accumulators, `output` what the layer made of them, if it has an epilogue.
    """
    x, gemm, dataflow = lowered.x, lowered.gemm, config.dataflow_record
    axis = lowered.channel_axis % len(acc)
    convention = _CONVENTION.format(leaves=dataflow.leaves, sums=_sums(config.format))
    convention += _HELD * dataflow.held + _EXCHANGED * dataflow.exchanged
    manifest: dict[str, Any] = {
        "schema": SCHEMA,
        "systolic": __version__,
        "array": config.to_dict(),
        "gemm": gemm.to_dict(),
    }
    if isinstance(x, Patches):
        convention += _IMAGES
        manifest["convolution"] = {
            "images": list(x.images.shape),
            "kernel": list(x.kernel),
            "stride": list(x.stride),
            "dilation": list(x.dilation),
            "before": list(x.before),
            "out": list(x.out),
            "groups": x.groups,
            "pad_value": int(x.pad_value) if np.dtype(x.dtype).kind in "iu" else float(x.pad_value),
        }
    elif gemm.groups > 1:
        convention += _STACK
    manifest |= {
        "cycles": plan.cycles,
        "lines": plan.cycles + 1,
        "folds": [fold.to_dict() for fold in plan.folds],
        "accumulators": {
            "shape": list(acc),
            "line_axes": [i for i in range(len(acc)) if i != axis],
            "element_axis": axis,
        },
    }
    if output is not None:
        manifest["output"] = {
            "shape": list(output.shape),
            "dtype": _check.dtype_name(output.dtype),
            "planes": lowered.epilogue.planes,
        }
    return manifest | {"convention": convention}


def entry(holds: str, dtype: np.dtype, lines: int, elements: int) -> dict[str, Any]:
    """Return what the manifest says of a file."""
    return {
        "lines": lines,
        "bits": bits(dtype),
        "elements": elements,
        "type": _check.dtype_name(dtype),
        "holds": holds,
    }


def _sums(numbers: Format) -> str:
    if numbers.is_float:
        return "float32, rounded to nearest, ties to even"
    if numbers.saturates:
        return f"saturated to {numbers.psum_bits} bits"
    return f"modulo 2^{numbers.psum_bits}"


def save(manifest: dict[str, Any], folder: Path) -> None:
    """Write a manifest into its folder."""
    import json

    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="ascii")
