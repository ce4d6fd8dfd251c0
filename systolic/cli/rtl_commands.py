"""Commands for RTL: ``vectors`` and ``rtl``."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import replace
from typing import Any

import numpy as np

from systolic.cli.data import load_input, model_input, print_json
from systolic.cli.options import given_machines, machine_of
from systolic.config import ArrayConfig
from systolic.frontend import load_model
from systolic.layers import ArrayLayer
from systolic.rtl import write_rtl
from systolic.vectors import write_layer_vectors, write_vectors

# Rows of accumulators of an RTL model, if the user names none: Yosys makes flip-flops of them.
ACCUMULATOR_ROWS = 32


def vectors_command(options: argparse.Namespace) -> int:
    """Write the port values and results of a product, a convolution or a model's layer for RTL."""
    array = array_of(options)
    work = options.work
    if len(work) > 2:
        raise ValueError(f"vectors takes X.npy W.npy, or a MODEL, not {' '.join(work)}")
    if len(work) == 2:
        manifest = _of_arrays(work[0], work[1], array, options)
    else:
        manifest = _of_layer(work[0], array, options)
    if options.json:
        # The manifest has a schema number of its own, for the files.
        print_json({"out": options.out, "manifest": manifest})
    elif "products" in manifest:
        print(f"{options.out}: {len(manifest['products']):,} products, a folder for each")
    else:
        files = ", ".join(manifest["files"])
        print(f"{options.out}: {manifest['lines']:,} lines for {manifest['cycles']:,} cycles in {files}")
        print("manifest.json states the convention")
    return 0


def _of_arrays(x: str, w: str, array: ArrayConfig, options: argparse.Namespace) -> dict[str, Any]:
    values = [load_input(path, name) for path, name in ((x, "X"), (w, "W"))]
    for path, one in zip((x, w), values, strict=True):
        if not isinstance(one, np.ndarray):
            raise ValueError(f"{path} holds several arrays; vectors takes two .npy files of one array each")
    given: dict[str, Any] = {
        name: value
        for name in ("stride", "padding", "dilation", "groups", "layout", "x_zero_point")
        if (value := getattr(options, name)) is not None
    }
    return write_vectors(
        values[0], values[1], options.out, array=array, mapping=options.mapping,
        progress=not options.quiet, **given,
    )  # fmt: skip


def _of_layer(path: str, array: ArrayConfig, options: argparse.Namespace) -> dict[str, Any]:
    if path.endswith(".npy"):
        raise ValueError(f"{path} is one array; name the weights, too: X.npy W.npy")
    model = load_model(path, options.qdq, options.compute)
    if options.layer is None:
        names = ", ".join(node.name for node in model.nodes if isinstance(node.layer, ArrayLayer))
        raise ValueError(f"--layer NAME says which layer of {path} is written; on the array run {names}")
    return write_layer_vectors(
        model, options.layer, model_input(model, options), options.out, array=array,
        mapping=options.mapping, progress=not options.quiet,
    )  # fmt: skip


def rtl_command(options: argparse.Namespace) -> int:
    """Write the RTL model of an array."""
    if not given_machines(options) and None in (options.rows, options.cols):
        raise ValueError("name the size of the array: --rows R --cols C, or --array ROWSxCOLS")
    array = array_of(options).with_types(options.activation_dtype, options.weight_dtype)
    if options.accumulators is None and not {"preset", "machine"} & options.given.keys():
        array = replace(array, accumulator_rows=ACCUMULATOR_ROWS)
    words = [f"--rows {array.rows} --cols {array.cols}", f"--dataflow {array.dataflow}"]
    words += [f"--activation-dtype {array.activation_dtype}", f"--weight-dtype {array.weight_dtype}"]
    if not array.dataflow_record.held:
        words.append(f"--accumulators {array.accumulator_rows}")
    words += ["--single-buffered"] * (not array.double_buffered) + [f"--seed {options.seed}"]
    command = f"systolic rtl {' '.join(words)} --out {shlex.quote(options.out)}"
    written = write_rtl(array, options.out, seed=options.seed, command=command)
    if options.json:
        print_json({"out": options.out, "array": array.to_dict(), **written})
    else:
        print(
            f"{options.out}: {array.rows} x {array.cols} PEs, {array.dataflow.replace('_', ' ')}, "
            f"{len(written['files'])} files; README.md says more"
        )
        print(f"simulate it: make -C {shlex.quote(options.out)}")
    return 0


def array_of(options: argparse.Namespace) -> ArrayConfig:
    """Return the array that the options name; --rows and --cols are the older way to give its size."""
    array = machine_of(options).array
    sizes = {name: size for name in ("rows", "cols") if (size := getattr(options, name)) is not None}
    return replace(array, **sizes)
