"""The argument parser of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from systolic._show.report import SUFFIXES
from systolic._version import __version__
from systolic.calibrate import METHODS
from systolic.cli import arguments
from systolic.cli.arguments import machine, mapped, qdq, running, sides, sizes
from systolic.cli.array_commands import (
    VALIDATIONS,
    bench_command,
    gemm_command,
    info_command,
    validate_command,
)
from systolic.cli.completion_command import SHELLS, completion_command
from systolic.cli.model_commands import run_command, summary_command, verify_command
from systolic.cli.options import count, fraction, window
from systolic.cli.parsing import Parser
from systolic.cli.program_commands import compile_command
from systolic.cli.quantize_command import quantize_command
from systolic.cli.rtl_commands import ACCUMULATOR_ROWS, rtl_command, vectors_command
from systolic.cli.sweep_command import sweep_command
from systolic.cli.targets import file, folder, quantized, report, rows
from systolic.cli.view_command import view_command
from systolic.sweeps import MOST_ROWS
from systolic.tiling.mappings import MAPPINGS
from systolic.verifier.check import AGAINST
from systolic.verifier.difference import FLOAT_TOLERANCE

# A line for the help of each command.
EXAMPLES = {
    "run": "systolic run model.onnx --array 128x128 --report costs.html",
    "verify": "systolic verify model.onnx --against onnxruntime --node-by-node",
    "summary": "systolic summary model.onnx --preset tpu-v1 --shape image=1,3,224,224",
    "quantize": "systolic quantize float.onnx --calibration samples.npy --out int8.onnx",
    "compile": "systolic compile model.onnx --batch 8 --explain --trace timeline.json",
    "gemm": "systolic gemm 1024 768 768 --array 128x128 --mode wavefront",
    "view": "systolic view 12 8 8 --array 8x8 --output product.html",
    "vectors": "systolic vectors x.npy w.npy --out vectors --array 8x8",
    "rtl": "systolic rtl --rows 4 --cols 4 --out rtl",
    "validate": "systolic validate tpu-v1",
    "sweep": "systolic sweep sweep.yaml --out rows.csv",
    "bench": "systolic bench --quick",
    "info": "systolic info --json",
    "completion": "systolic completion bash",
}


def build_parser() -> Parser:
    """Return the parser of all commands; each sets `call` to the function that runs it."""
    parser = Parser(
        prog="systolic",
        description="A cycle-exact, bit-exact emulator of a TPU's systolic array.",
        epilog="Exit status: 0 all right, 1 a check failed, 2 bad usage or input, 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"systolic {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    def command(
        name: str, call: Callable[[argparse.Namespace], int], text: str, quiet: str = "show no progress"
    ) -> Parser:
        sub = commands.add_parser(name, help=text, description=text, epilog=f"example: {EXAMPLES[name]}")
        sub.set_defaults(call=call, parser=sub)
        sub.add_argument(
            "--config", metavar="FILE", reads=True,
            help="options in a file of YAML, JSON or TOML (docs/shell.md); those given here win",
        )  # fmt: skip
        sub.add_argument("--json", action="store_true", help="print JSON for programs")
        sub.add_argument("--quiet", action="store_true", help=quiet)
        return sub

    sub = command(
        "run", run_command, "Run a quantized model on the array; without MODEL, the bundled digits network."
    )
    sub.add_argument(
        "model", nargs="?", metavar="MODEL", reads=True,
        help="an .onnx file, or a .zip that Model.save, Program.save or systolic compile wrote",
    )  # fmt: skip
    sub.add_argument(
        "--input", metavar="X.npy", reads=True, help="the input; .npz for several (default: random)"
    )
    sub.add_argument(
        "--output", metavar="Y.npz", writes=file, help="write the outputs to this file"
    )
    sub.add_argument(
        "--output-all", action="store_true", help="write every tensor between the layers to --output too"
    )
    sub.add_argument("--seed", type=count(0), default=0, help="seed of the random input (default: 0)")
    sizes(sub, None, " of the random input")
    sub.add_argument(
        "--report", metavar="FILE", writes=report,
        help=f"write the cost of each node; suffix {', '.join(SUFFIXES)}",
    )
    qdq(sub)
    sub.add_argument("--no-check", action="store_true", help="do not compare with numpy and ONNX Runtime")
    mapped(sub)
    sub.add_argument(
        "--ideal", action="store_true",
        help="the machine's array alone, layer by layer, with operands always on time",
    )  # fmt: skip
    machine(sub, timed=True, several=True)
    running(sub)

    sub = command(
        "verify",
        verify_command,
        "Check random cases, or a model layer by layer, bit for bit and cycle for cycle.",
    )
    sub.add_argument(
        "model", nargs="?", metavar="MODEL", reads=True, help="check this model instead of random cases"
    )
    sub.add_argument(
        "--input", metavar="X.npy", reads=True, help="the model's input (default: random)"
    )
    sizes(sub, None, " of the random input")
    qdq(sub)
    sub.add_argument("--cases", type=count(1), default=200, help="number of random cases (default: 200)")
    sub.add_argument("--case", type=count(0), metavar="N", help="only this case")
    sub.add_argument("--seed", type=count(0), default=0,
        help="seed of the random cases, or of the random input of MODEL (default: 0)")
    sub.add_argument("--against", choices=AGAINST, default="reference", help="the source of expected results")
    sub.add_argument(
        "--node-by-node", action="store_true",
        help="compare every tensor of MODEL and name the first node that differs",
    )  # fmt: skip
    sub.add_argument(
        "--tolerance", type=fraction, metavar="X",
        help="tolerance for float tensors against onnxruntime, relative to the largest value "
        f"(default: {FLOAT_TOLERANCE:g}; 0: bit for bit)",
    )  # fmt: skip
    machine(sub)
    running(sub, None)

    sub = command(
        "summary",
        summary_command,
        "Show shapes, MACs, estimated cycles and parameters of a model, without running it.",
    )
    sub.add_argument(
        "model", metavar="MODEL", reads=True,
        help="an .onnx file, of floats or without its weights too, a .zip that Model.save wrote, a .csv "
        "topology of SCALE-Sim, or products in .yaml or .json (docs/sweeps.md)",
    )  # fmt: skip
    qdq(sub)
    sizes(sub, 1, "")
    shown = sub.add_mutually_exclusive_group()
    shown.add_argument(
        "--top", type=count(1), metavar="N", help="show the N nodes with the most cycles (default: what fits)"
    )
    shown.add_argument("--all", action="store_true", help="show every node and column, in the model's order")
    sub.add_argument(
        "--report", metavar="FILE", writes=report, help=f"write the summary; suffix {', '.join(SUFFIXES)}"
    )
    mapped(sub)
    machine(sub, timed=True, several=True)

    sub = command(
        "quantize",
        quantize_command,
        "Make an int8 model of a float model, with ranges from calibration data (docs/quantize.md).",
        "show no table of nodes",
    )
    sub.add_argument(
        "model", metavar="FLOAT.onnx", reads=True, help="a float model, or a .zip that Model.save wrote"
    )
    sub.add_argument(
        "--calibration", required=True, metavar="X.npy", reads=True,
        help="samples along axis 0, as the model is given in use; .npz for several inputs",
    )  # fmt: skip
    sub.add_argument(
        "--out", required=True, metavar="INT8.onnx", writes=quantized,
        help="the file to write; .zip for Model.load",
    )  # fmt: skip
    sub.add_argument(
        "--method", choices=METHODS, default="minmax",
        help="ranges from the smallest to the largest value (default), or without outliers",
    )  # fmt: skip
    sub.add_argument(
        "--percentile", type=float, metavar="P",
        help="percent of the values below a range's upper end, and above its lower one (default: 99.99)",
    )  # fmt: skip
    sub.add_argument(
        "--per-tensor", action="store_true", help="one scale for a product's weights, not one per channel"
    )
    sub.add_argument(
        "--activations", choices=("int8", "uint8"), default="int8",
        help="type of the tensors between layers (default: int8)",
    )  # fmt: skip

    sub = command(
        "compile",
        compile_command,
        "Compile a model into a program of a machine with memories, and show what limits each layer.",
    )
    sub.add_argument(
        "model", metavar="MODEL", reads=True, help="an .onnx file, or a .zip that Model.save wrote"
    )
    sub.add_argument(
        "-o", "--output", metavar="FILE.zip", writes=file, help="write the program, for Program.load and run"
    )
    qdq(sub)
    sizes(sub, 1, "")
    sub.add_argument(
        "--mapping", choices=MAPPINGS,
        help="convolutions tap by tap from images in the unified buffer, or as products with patches that "
        "the host lays out (default: im2col for images of few channels, else taps)",
    )  # fmt: skip
    sub.add_argument(
        "--reuse", type=count(1), nargs="?", const=True, default=False, metavar="ROWS",
        help="cut the batch so that each weight tile sees about so many rows (default: as hide its load)",
    )  # fmt: skip
    sub.add_argument("--explain", action="store_true", help="show what doubling each parameter would change")
    sub.add_argument(
        "--trace", metavar="FILE.json", writes=file, help="write the timeline, for ui.perfetto.dev"
    )
    machine(sub, array=False, timed=True)

    sub = command(
        "gemm",
        gemm_command,
        "Multiply random matrices, (M, K) x (K, N), on the array and show the cost.",
    )
    for name in ("m", "k", "n"):
        sub.add_argument(name, type=count(0), metavar=name.upper())
    sub.add_argument("--estimate", action="store_true", help="closed form only, without running")
    sub.add_argument("--seed", type=count(0), help="seed of the operands (default: 0)")
    machine(sub, every=True, timed=True, several=True)
    running(sub, None)

    sub = command(
        "view",
        view_command,
        "Write a page that shows a product cycle by cycle on the array, or a model as a program's timeline.",
    )
    sub.add_argument(
        "work", nargs="*", metavar="MODEL | M K N", reads=True,
        help="a model, with --layer; a model or program, for its timeline; or sizes of a product of random "
        "numbers (default: 12 8 8 on an array of 8x8)",
    )  # fmt: skip
    sub.add_argument("--layer", metavar="NAME", help="the node of MODEL whose product is shown")
    sub.add_argument(
        "--input", metavar="X.npy", reads=True,
        help="the model's input; .npz for several (default: random)",
    )  # fmt: skip
    sub.add_argument("--seed", type=count(0), default=0, help="seed of random numbers (default: 0)")
    sub.add_argument(
        "--cycles", type=window, metavar="START:STOP",
        help="cycles of the product (default: from 0 as many as fit a page)",
    )  # fmt: skip
    sub.add_argument(
        "-o", "--output", metavar="FILE.html", default="systolic-view.html", writes=file,
        help="the page to write (default: systolic-view.html)",
    )  # fmt: skip
    qdq(sub)
    sizes(sub, 1, "")
    machine(sub)

    sub = command(
        "vectors",
        vectors_command,
        "Write port values and results of a product, a convolution or a layer as $readmemh files for RTL.",
    )
    sub.add_argument(
        "work", nargs="+", metavar="X.npy W.npy | MODEL", reads=True,
        help="activations and weights: matrices (M, K) and (K, N), or images (batch, ic, ih, iw) and filters "
        "(oc, ic // groups, kh, kw); or a model, with --layer",
    )  # fmt: skip
    sub.add_argument("--out", required=True, metavar="DIR", writes=folder, help="folder to create")
    arguments.window(sub)
    sub.add_argument("--layer", metavar="NAME", help="the node of MODEL that is written, with its output")
    sub.add_argument(
        "--input", metavar="X.npy", reads=True, help="the model's input; .npz for several (default: random)"
    )
    sub.add_argument("--seed", type=count(0), default=0, help="seed of the random input (default: 0)")
    qdq(sub)
    sizes(sub, 1, " of the random input")
    mapped(sub)
    machine(sub)
    sides(sub, ", as --array")

    sub = command(
        "rtl",
        rtl_command,
        "Write the RTL model of an array in SystemVerilog, with a test bench and a README; "
        f"{ACCUMULATOR_ROWS} rows of accumulators unless --accumulators says else.",
    )
    sub.add_argument("--out", required=True, metavar="DIR", writes=folder, help="folder to create")
    sides(sub)
    for name in ("activation", "weight"):
        sub.add_argument(
            f"--{name}-dtype", choices=("int8", "uint8"), default="int8",
            help=f"type of the {name}s (default: int8)",
        )  # fmt: skip
    sub.add_argument("--seed", type=count(0), default=0, help="seed of the bench's product (default: 0)")
    machine(sub)

    sub = command(
        "validate",
        validate_command,
        "Compare a preset with the published tables of the machine; status 1 if a wanted figure is missed.",
    )
    known = ", ".join(VALIDATIONS)
    sub.add_argument("machine", choices=tuple(VALIDATIONS), metavar="PRESET", help=f"one of {known}")

    sub = command(
        "sweep",
        sweep_command,
        "Cost models on a grid of machines, as a file of YAML or JSON describes them.",
    )
    sub.add_argument(
        "file", metavar="FILE", reads=True, help="a .yaml or .json file; docs/sweeps.md has the fields"
    )
    sub.add_argument(
        "--out", metavar="ROWS.csv", writes=rows,
        help="append each row as it is computed; rows that are there are kept. A .parquet file is written "
        "in the end",
    )  # fmt: skip
    sub.add_argument("--workers", type=count(1), default=1, help="processes to use (default: 1)")
    sub.add_argument(
        "--limit", type=count(1), default=MOST_ROWS,
        help=f"the most rows to compute (default: {MOST_ROWS:,})",
    )  # fmt: skip

    sub = command(
        "bench",
        bench_command,
        "Compare the speed of the emulator with numpy, torch and ONNX Runtime, as ratios.",
    )
    sub.add_argument("--rounds", type=count(1), default=7, help="pairs of runs (default: 7)")
    sub.add_argument(
        "--threads", type=count(1), help="threads of wavefront mode and host layers (default: 1)"
    )
    extent = sub.add_mutually_exclusive_group()
    for name, what in (("quick", "fewer rows, seconds"), ("full", "more rows, minutes")):
        extent.add_argument(
            f"--{name}", dest="extent", action="store_const", const=name, default="usual", help=what
        )
    sub.add_argument("--markdown", action="store_true", help="print Markdown tables")
    sub.add_argument("--m", type=count(1), help="rows of x for --array (default: 2048)")
    # With another array than 256 x 256, only the rows for that array are measured.
    machine(sub, flow=False)

    command("info", info_command, "Show versions, the kernel's instruction set, threads and presets.")

    sub = command(
        "completion", completion_command,
        "Print a script that completes commands, options and file names in a shell (docs/shell.md).",
    )  # fmt: skip
    sub.add_argument("shell", choices=SHELLS, metavar="SHELL", help=f"one of {', '.join(SHELLS)}")
    sub.set_defaults(whole=parser)
    return parser
