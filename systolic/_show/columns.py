"""The columns of all tables, frames and CSV files: one record for each name.

A table takes its columns from here: frames, dicts and CSV files have the names, which end in their unit;
text and HTML have the titles. `sizes_text` is the one way to write a shape, ``1x3x224x224``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from systolic._show.table import Column, percent, seconds, si


def sizes_text(shape: Sequence[int | None] | None) -> str:
    """Return a shape in one word: ``1x16x8x8``, ``?`` for unknown sizes; ``scalar`` for one without axes."""
    if shape is None:
        return "?"
    return "x".join("?" if size is None else str(size) for size in shape) or "scalar"


def bytes_text(count: float | None) -> str:
    """Return a number of bytes with an SI prefix; ``-`` for None."""
    return si(count, "B")


def joules(pj: float | None) -> str:
    """Return an energy in pJ with a fitting unit; None as ``-``."""
    return si(None if pj is None else pj * 1e-12, "J")


def rate(value: float | None) -> str:
    """Return operations per second with an SI prefix; ``-`` for None."""
    return si(value, "ops/s")


@dataclass(frozen=True)
class Quantity:
    """What a column holds.

    Attributes
    ----------
    name : str
        In frames, dicts and CSV files; with its unit at the end. Of a family, ``*`` stands for a name.
    title : str
        Heading in text and HTML; ``*`` stands for the same name, with spaces.
    unit : str
        Of the number in frames; "" of text, and of a number without one.
    meaning : str
    format : str or callable, optional
        How text and HTML show it, see :class:`Column`.
    align : {"<", ">"}, optional
        See :class:`Column`.
    """

    name: str
    title: str
    unit: str
    meaning: str
    format: str | Callable[[Any], str] | None = None
    align: str | None = None


SECTIONS: dict[str, tuple[Quantity, ...]] = {
    "Layers and tensors": (
        Quantity("number", "#", "", "Number of the row, counted from 0"),
        Quantity("node", "node", "", "Name of the node, of a workload's layer or of a product"),
        Quantity("layer", "layer", "", "Kind of layer, such as QLinearConv"),
        Quantity("nodes", "nodes", "", "How many nodes there are of this kind"),
        Quantity("on", "on", "", 'Where it runs: "array", "vector", "host", or "none" if it moves no data'),
        Quantity("inputs", "inputs", "", "Names of the tensors that it reads"),
        Quantity("tensor", "tensor", "", "Name of a tensor"),
        Quantity("shape", "shape", "", "Shape of the tensor, or of the node's output: 1x3x224x224"),
        Quantity("reads", "reads", "", "Shapes of the tensors that it reads, without constants"),
        Quantity("writes", "writes", "", "Shapes of the tensors that it writes"),
        Quantity("dtype", "dtype", "", "Type of the tensor, or of the node's output"),
        Quantity("parameters", "parameters", "", "Elements of weights, bias and other constants"),
        Quantity("parameter_bytes", "parameter bytes", "bytes", "Bytes of the same", bytes_text),
        Quantity("read_bytes", "read", "bytes", "Tensors read, without constants", bytes_text, ">"),
        Quantity("written_bytes", "written", "bytes", "Tensors written", bytes_text, ">"),
        Quantity("becomes", "becomes", "", "What quantization makes of the node"),
        Quantity("why", "why", "", "Why a node stays float"),
    ),
    "Products": (
        Quantity("product", "product", "", "Product on the array, m x k x n, and how many follow"),
        Quantity("m", "m", "", "Rows of x"),
        Quantity("k", "k", "", "Columns of x, rows of w"),
        Quantity("n", "n", "", "Columns of w"),
        Quantity("groups", "groups", "", "Products of these sizes side by side"),
        Quantity("mapping", "mapping", "", "How a convolution is laid out; empty for im2col"),
        Quantity("macs", "MACs", "", "Multiply-accumulates on the array", None, ">"),
        Quantity("host_macs", "host MACs", "", "Multiply-accumulates elsewhere", None, ">"),
        Quantity("off_array", "not on the array", "", "Why they are not on the array"),
        Quantity("zero_macs", "zero MACs", "", "MACs with an operand that is zero"),
        Quantity("toggles", "toggles", "", "Bits that registers changed"),
        Quantity("largest_difference", "largest difference", "", "From float32, at most", ".2g", ">"),
        Quantity("mean_difference", "mean difference", "", "From float32, on average", ".2g", ">"),
    ),
    "Cycles and time": (
        Quantity("cycles", "cycles", "cycles", "Cycles of the machine", None, ">"),
        Quantity("array_cycles", "array cycles", "cycles", "Of the products alone, without memories"),
        Quantity("*_cycles", "* cycles", "cycles", "Of one cause, dataflow or pass"),
        Quantity("*_share", "*", "", "Part of the row's cycles or energy", percent, ">"),
        Quantity("share", "share", "", "Part of all cycles", percent),
        Quantity("seconds", "time", "s", "Cycles at the machine's clock", seconds),
        Quantity("utilization", "utilization", "", "Useful MACs over those there was room for", percent, ">"),
        Quantity("limit", "limited by", "", "What limits the layer"),
        Quantity("wall_seconds", "wall", "s", "Time of the emulation", seconds),
        Quantity("array_wall_seconds", "array wall", "s", "Time to emulate the array", seconds),
        Quantity("host_wall_seconds", "host wall", "s", "Time of the host layers", seconds),
        Quantity("wall_share", "share of wall", "", "Part of the emulation's time", percent),
        Quantity("pe_cycles", "PE-cycles", "", "rows * cols * cycles"),
    ),
    "Bytes and energy": (
        Quantity("weight_bytes", "weights in", "bytes", "Weights into the array, each time", bytes_text),
        Quantity("activation_bytes", "activations in", "bytes", "Activations into it, likewise", bytes_text),
        Quantity("output_bytes", "sums out", "bytes", "Sums out of the accumulators", bytes_text),
        Quantity("west_bytes", "west", "bytes", "Through the array's west edge, without padding"),
        Quantity("north_bytes", "north", "bytes", "Through its north edge"),
        Quantity("south_bytes", "south", "bytes", "Sums through its south edge"),
        Quantity("port_bytes", "bytes", "bytes", "Through all three edges"),
        Quantity("accumulator_bytes", "accumulators", "bytes", "Written and read"),
        Quantity("unified_buffer_bytes", "unified buffer", "bytes", "Written and read"),
        Quantity("weight_fifo_bytes", "weight FIFO", "bytes", "Written and read"),
        Quantity("weight_memory_bytes", "weight memory", "bytes", "Read"),
        Quantity("host_bytes", "host link", "bytes", "Moved between host and unified buffer"),
        Quantity("partial_sums", "partial sums", "", "Sums from the array into the accumulators"),
        Quantity("vector_operations", "vector operations", "", "Elements that the vector unit reads"),
        Quantity("energy_pj", "energy", "pJ", "Energy", joules, ">"),
        Quantity("*_pj", "*", "pJ", "Energy of one component", joules, ">"),
        Quantity("counted", "counted", "", "What was counted"),
        Quantity("count", "count", "", "How often, in words", None, ">"),
        Quantity("entry", "name", "", "Name of a number of an energy table"),
        Quantity("value_pj", "value", "pJ", "Its value"),
        Quantity("energy_of", "energy of", "", "The operation or access"),
        Quantity("source", "source", "", "Where the value comes from"),
    ),
    "Folds, registers and programs": (
        Quantity("fold", "fold", "", "Number of the fold"),
        Quantity("folds", "folds", "", "Tiles loaded into the array"),
        Quantity("group", "group", "", "Which of the groups"),
        *(Quantity(f"{axis}_range", axis, "", f"Its part of {axis}, start:stop") for axis in "nmk"),
        *(Quantity(f"{axis}_{end}", f"{axis} {end}", "", f"Its part of {axis}, {end}")
          for axis in "nmk" for end in ("start", "stop")),
        Quantity("zeros", "zeros", "", "Elements of the tile that are zeros between groups"),
        Quantity("mapping_efficiency", "mapping efficiency", "", "PEs in use over all PEs", percent),
        Quantity("cycle", "cycle", "cycles", "A cycle: of registers, the one of the edge before"),
        Quantity("*_cycle", "*", "cycles", "When this begins or ends, counted from the first cycle"),
        Quantity("row", "row", "", "Row of a PE"),
        Quantity("col", "col", "", "Column of a PE"),
        Quantity("instruction", "instruction", "", "Number of the instruction"),
        Quantity("text", "text", "", "The instruction in the assembler's words"),
        Quantity("function", "function", "", "What the host computes"),
        Quantity("code_bytes", "bytes", "bytes", "Length of the instruction"),
        Quantity("unit", "unit", "", "Unit of the machine"),
        Quantity("used_rows", "rows", "", "Rows of a memory in use"),
        Quantity("used_tiles", "tiles", "", "Tiles in the weight FIFO"),
    ),
    "Machines, sweeps, rooflines": (
        Quantity("model", "model", "", "Name of the model or workload"),
        Quantity("model_id", "model id", "", "Digest of the model"),
        Quantity("id", "id", "", "Digest of the whole configuration"),
        Quantity("batch", "batch", "", "Size of the first axis"),
        Quantity("rows", "rows", "", "Rows of the array"),
        Quantity("cols", "cols", "", "Columns of the array"),
        Quantity("pes", "PEs", "", "rows * cols"),
        Quantity("dataflow", "dataflow", "", "Dataflow of the array"),
        Quantity("fastest", "fastest", "", "Dataflow of the fewest cycles"),
        Quantity("activation_dtype", "activation dtype", "", "Type of x"),
        Quantity("weight_dtype", "weight dtype", "", "Type of w"),
        Quantity("double_buffered", "double buffered", "", "Whether tiles load while others are used"),
        Quantity("accumulator_rows", "accumulator rows", "", "Rows of the accumulators"),
        Quantity("psum_bits", "psum bits", "bits", "Width of sums"),
        Quantity("overflow", "overflow", "", "What sums do beyond their width"),
        Quantity("clock_mhz", "MHz", "MHz", "Clock of the machine", "g"),
        Quantity("array", "array", "", "Array, as --array names it"),
        Quantity("machine", "machine", "", "Machine, as --machine names it"),
        Quantity("preset", "preset", "", "Name of a preset"),
        Quantity("memory_*", "memory *", "", "A field of `MemoryConfig`, in its unit"),
        Quantity("note", "note", "", "What the costs rest on"),
        Quantity("error", "error", "", "Why the machine cannot run the model"),
        Quantity("version", "version", "", "Version of the package"),
        Quantity("macs_per_weight_byte", "MACs per weight byte", "", "Operational intensity", ",.1f"),
        Quantity("ops_per_second", "attained", "ops/s", "Operations per second; 1 MAC is 2", rate),
        Quantity("roof_ops_per_second", "roof", "ops/s", "What intensity and machine allow", rate),
        Quantity("roof_share", "of the roof", "", "Part of the roof that is attained", percent),
        Quantity("bound", "bound by", "", "What the roof is at this intensity"),
        Quantity("parameter", "parameter", "", "A parameter of the machine"),
        Quantity("value", "value", "", "Its value", None, ">"),
        Quantity("doubled", "doubled", "", "Twice that", None, ">"),
        Quantity("change", "change", "", "Change of the time", percent),
    ),
    "Verdicts and comparisons": (
        Quantity("checked", "checked", "", "Kind of what was checked"),
        Quantity("cases", "cases", "", "How many were checked"),
        Quantity("mismatches", "mismatches", "", "How many differ"),
        Quantity("verdict", "verdict", "", "How the two sides compare"),
        Quantity("differing", "differing", "", "How many elements differ"),
        Quantity("largest", "largest", "", "The largest difference"),
        Quantity("relative", "of largest value", "", "The same over the largest value", ".2g", ">"),
        Quantity("ulp", "ulp", "", "The same in units in the last place"),
        Quantity("figure", "figure", "", "A published figure"),
        Quantity("figure_unit", "unit", "", "Its unit"),
        Quantity("published", "published", "", "The published number", None, ">"),
        Quantity("ours", "ours", "", "That of this package", None, ">"),
        Quantity("difference", "difference", "", "Ours less the published one", None, ">"),
        Quantity("within", "within", "", "The difference that is accepted", None, ">"),
        Quantity("measured", "measured", "", "What was measured"),
        Quantity("rate", "rate", "", "Its rate"),
        Quantity("beside", "beside", "", "What it is compared with"),
        Quantity("other_rate", "its rate", "", "The rate of that"),
        Quantity("ratio", "ratio", "", "Rate over rate", ".2f"),
    ),
}  # fmt: skip
"""All columns by subject; a name with ``*`` is a family of columns."""

QUANTITIES = {each.name: each for section in SECTIONS.values() for each in section}

_FAMILIES = [each for each in QUANTITIES.values() if "*" in each.name]


def quantity(name: str) -> Quantity:
    """Return what a column of this name holds, also of a family.

    Raises
    ------
    KeyError
        If there is no such column.

    Examples
    --------
    >>> from systolic._show.columns import quantity
    >>> quantity("seconds").title, quantity("weight_stall_cycles").title
    ('time', 'weight stall cycles')
    """
    if name in QUANTITIES and "*" not in name:
        return QUANTITIES[name]
    for each in [] if "*" in name else _FAMILIES:
        before, after = each.name.split("*")
        if name.startswith(before) and name.endswith(after) and len(name) > len(before) + len(after):
            stem = name[len(before) : len(name) - len(after)].replace("_", " ")
            return Quantity(
                name, each.title.replace("*", stem), each.unit, each.meaning, each.format, each.align
            )
    raise KeyError(f"no column {name!r}: give it a record in systolic/_show/columns.py")


def column(name: str) -> Column:
    """Return the column of a name for a :class:`Table`."""
    found = quantity(name)
    return Column(found.title, found.align, found.format, key=name)


def columns(*names: str) -> list[Column]:
    """Return the columns of several names."""
    return [column(name) for name in names]
