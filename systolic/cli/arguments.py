"""Options that several commands share."""

from __future__ import annotations

import argparse

from systolic import engine, presets
from systolic.cli import options as parse
from systolic.cli.options import array_sizes, clock, count, machine_file, shape_of
from systolic.cli.parsing import mark
from systolic.dataflows import DATAFLOWS
from systolic.layers.float_products import COMPUTE
from systolic.tiling.mappings import MAPPINGS


def machine(
    sub: argparse.ArgumentParser, *, array: bool = True, flow: bool = True, every: bool = False,
    timed: bool = False, several: bool = False,
) -> None:  # fmt: skip
    """Add the options that say which machine is meant.

    Parameters
    ----------
    array : bool
        Whether an array without memories does.
    flow : bool
        Whether fields of the array may be changed.
    every : bool
        Whether ``--dataflow all`` is taken.
    timed : bool
        Whether the clock matters.
    several : bool
        Whether the command costs several machines side by side.
    """
    group = sub.add_mutually_exclusive_group()
    more = "; may be repeated" if several else ""
    if array:
        group.add_argument(
            "--array", type=array_sizes, action="append", metavar="ROWSxCOLS",
            help=f"size of the array, such as 128x128{more}",
        )  # fmt: skip
    mark(
        group.add_argument(
            "--machine", type=machine_file, action="append", metavar="FILE",
            help="a machine in a file of YAML, JSON or TOML, with the fields of "
            f"MachineConfig (docs/shell.md){more}",
        ),
        reads=True,
    )  # fmt: skip
    group.add_argument(
        "--preset", choices=presets.names(), action="append", help=f"a named machine (default: tpu-v1){more}"
    )
    if array and flow:
        dataflow(sub, every)
    if timed:
        sub.add_argument("--clock", type=clock, metavar="MHZ", help="the clock (default: the machine's)")
    if flow:
        sub.add_argument(
            "--single-buffered", action="store_true",
            help="an array that loads no weights, or drains no sums, while it computes",
        )  # fmt: skip
        sub.add_argument(
            "--accumulators", type=count(2), metavar="ROWS",
            help="rows of accumulators, in two halves: a fold streams at most half as many rows",
        )  # fmt: skip


def dataflow(sub: argparse.ArgumentParser, every: bool = False) -> None:
    """Add ``--dataflow``."""
    sub.add_argument(
        "--dataflow", type=parse.dataflow, choices=(*DATAFLOWS, "all") if every else tuple(DATAFLOWS),
        help="the operand that stays in the PEs, on a machine without memories (default: the weights); "
        "ws, os or is for short"
        + every * "; all: compare them",
    )  # fmt: skip


def sides(sub: argparse.ArgumentParser, more: str = "") -> None:
    """Add ``--rows`` and ``--cols``."""
    for name, what in (("rows", "rows"), ("cols", "columns")):
        sub.add_argument(
            f"--{name}", type=count(1), metavar=name[0].upper(), help=f"{what} of the array{more}"
        )


def window(sub: argparse.ArgumentParser) -> None:
    """Add the options of a convolution of two arrays."""
    for name in ("stride", "dilation"):
        sub.add_argument(
            f"--{name}", type=parse.numbers(1, 2), metavar="H[,W]", help="of a convolution (default: 1)"
        )
    sub.add_argument(
        "--padding", type=parse.padding, metavar="P",
        help="of a convolution: 1, HEIGHT,WIDTH, TOP,BOTTOM,LEFT,RIGHT, same, same_lower or valid "
        "(default: 0)",
    )  # fmt: skip
    sub.add_argument("--groups", type=count(1), help="groups of a convolution (default: 1)")
    sub.add_argument("--layout", choices=("NCHW", "NHWC"), help="of the images (default: NCHW)")
    sub.add_argument("--x-zero-point", type=int, metavar="Z", help="value of padded pixels (default: 0)")


def running(sub: argparse.ArgumentParser, mode: str | None = "cycle") -> None:
    """Add the options about how something runs."""
    sub.add_argument(
        "--mode", choices=engine.MODES, default=mode,
        help="cycle: every register on every cycle (default); wavefront: the same results, faster",
    )  # fmt: skip
    sub.add_argument("--threads", type=count(1), help="threads to use (default: all cores)")


def qdq(sub: argparse.ArgumentParser) -> None:
    """Add the options about how an ONNX file is read."""
    sub.add_argument(
        "--qdq", choices=("integer", "float"), default="integer",
        help="how to run operators between DequantizeLinear and QuantizeLinear of an .onnx file "
        "(default: integer)",
    )  # fmt: skip
    sub.add_argument(
        "--compute", choices=COMPUTE, metavar="FORMAT",
        help="run Conv, Gemm and MatMul of float32 of an .onnx file on the array in this format: "
        f"{', '.join(COMPUTE)} (default: on the host, in float32)",
    )  # fmt: skip


def mapped(sub: argparse.ArgumentParser) -> None:
    """Add ``--mapping``."""
    sub.add_argument(
        "--mapping", choices=MAPPINGS,
        help="how convolutions run: by patches (default), tap by tap, several groups in a tile, or "
        "in the fewest cycles",
    )  # fmt: skip


def sizes(sub: argparse.ArgumentParser, batch: int | None, what: str) -> None:
    """Add ``--batch`` and ``--shape``."""
    default = 2 if batch is None else batch
    sub.add_argument(
        "--batch", type=count(0), default=batch,
        help=f"size of an unknown first axis{what} (default: {default})",
    )  # fmt: skip
    sub.add_argument(
        "--shape", type=shape_of, action="append", default=[], metavar="NAME=1,3,224,224",
        help=f"the whole shape of an input with other unknown sizes{what}; may be repeated",
    )  # fmt: skip
