"""Command ``quantize``: a float model and calibration data to an int8 model."""

from __future__ import annotations

import argparse

from systolic import calibrate
from systolic.cli.data import load_input, print_json
from systolic.frontend import load_model, save_onnx


def quantize_command(options: argparse.Namespace) -> int:
    """Quantize a model, write it and print what became of each node."""
    data = load_input(options.calibration, "--calibration")
    found = calibrate.plan_quantization(
        load_model(options.model),
        data,
        method=options.method,
        percentile=options.percentile,
        per_channel=not options.per_tensor,
        activations=options.activations,
    )
    if options.out.lower().endswith(".onnx"):
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
