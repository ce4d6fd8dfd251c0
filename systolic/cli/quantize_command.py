"""Command ``quantize``: a float model and calibration data to an int8 model."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from systolic import calibrate
from systolic.cli.data import check_output, load_input, print_json
from systolic.frontend import load_model, save_onnx

SUFFIXES = (".onnx", ".zip")


def quantize_command(options: argparse.Namespace) -> int:
    """Quantize a model, write it and print what became of each node."""
    suffix = Path(options.out).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(
            f"--out {options.out}: the suffix must be .onnx or .zip, which Model.save writes, not {suffix!r}"
        )
    check_output(options.out, "--out")
    if os.path.exists(options.out) and os.path.samefile(options.out, options.model):
        raise ValueError(f"--out {options.out} is the float model itself; name another file")
    if options.percentile is not None and options.method != "percentile":
        raise ValueError("--percentile goes with --method percentile")
    data = load_input(options.calibration, "--calibration")
    found = calibrate.plan_quantization(
        load_model(options.model),
        data,
        method=options.method,
        percentile=99.99 if options.percentile is None else options.percentile,
        per_channel=not options.per_tensor,
        activations=options.activations,
    )
    if suffix == ".onnx":
        save_onnx(found.model, options.out)
    else:
        found.model.save(options.out)
    if options.json:
        print_json({"model": options.model, "out": options.out, **found.to_dict()})
        return 0
    if options.quiet:
        print(found)
    else:
        print(found.table())
        print()
        print(str(found).splitlines()[0])
    print(f"wrote {options.out}; 'systolic run {options.out}' runs and checks it")
    return 0
