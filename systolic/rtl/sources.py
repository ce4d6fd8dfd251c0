"""The SystemVerilog files of the RTL model."""

from __future__ import annotations

import re
from pathlib import Path

SOURCES = Path(__file__).resolve().parent / "verilog"
"""The folder of the files."""

_SHARED = ("delay.sv", "skew.sv", "accumulators.sv")
_WEIGHT = ("pe.sv", "systolic_array.sv", *_SHARED, "fold_controller.sv", "matrix_unit.sv")

DESIGN = {
    "weight_stationary": _WEIGHT,
    "output_stationary": (
        "output_pe.sv", "output_array.sv", *_SHARED, "output_controller.sv", "output_unit.sv",
    ),
    "input_stationary": _WEIGHT,
}  # fmt: skip
"""Files by dataflow: the array alone is the second one, with the first; the last one is the whole unit."""


def source(name: str, **parameters: int | str) -> str:
    """Return the text of a file with other defaults of its module's parameters, which must be there.

    Examples
    --------
    >>> from systolic.rtl.sources import source
    >>> print([line for line in source("delay.sv", WIDTH=3).splitlines() if "WIDTH " in line][0])
        parameter int WIDTH = 3,
    """
    text = (SOURCES / name).read_text(encoding="ascii")
    for parameter, value in parameters.items():
        pattern = rf"(parameter \w+ {parameter}\s*= )[^,\n]+"
        text, count = re.subn(pattern, rf"\g<1>{value}", text, count=1)
        if count != 1:
            raise ValueError(f"{name} has no parameter {parameter}")
    return text
