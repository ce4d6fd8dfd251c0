"""``systolic view``: a product, a model's layer or a program as a page to look at."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace

import numpy as np

from systolic import engine
from systolic._show.progress import shown
from systolic.cli.data import model_input, print_json, random_operand
from systolic.cli.options import check_sizes, given_machines, machine_of, shapes_of
from systolic.config import ArrayConfig, MachineConfig
from systolic.engine.layer_inputs import layer_inputs
from systolic.engine.networks import run_layer
from systolic.frontend import is_program, load_model
from systolic.gemm import Gemm
from systolic.isa import Program
from systolic.layers import ArrayLayer
from systolic.machine import time_program
from systolic.model import Model
from systolic.threads import thread_count
from systolic.tiling import folds
from systolic.trace import Streams
from systolic.viewer import View
from systolic.viewer.view import MOST_BYTES

# Without sizes: small enough to read every register.
_EXAMPLE, _SIDE = (12, 8, 8), 8


def view_command(options: argparse.Namespace) -> int:
    """Write a page that shows a product on the array, or a program's timeline."""
    view = _view(options)
    view.save(options.output)
    size = os.path.getsize(options.output)
    if options.json:
        d = view.description
        print_json(
            {
                "output": options.output, "bytes": size, "kind": d["kind"], "title": d["title"],
                "first_cycle": d["first_cycle"], "cycles": d["cycles"],
            }
        )  # fmt: skip
    else:
        print(f"{options.output}: {view.description['title']}, {size:,} bytes; open it in a browser")
    return 0


def _view(options: argparse.Namespace) -> View:
    work = options.work or [str(size) for size in _EXAMPLE]
    if len(work) == 3 and all(size.isdecimal() for size in work):
        return _of_product(Gemm(*map(int, work)), options)
    if len(work) != 1:
        raise ValueError(f"view takes a MODEL, or the sizes M K N of a product, not {' '.join(work)}")
    [path] = work
    machine = machine_of(options)
    if is_program(path):
        return _of_program(Program.load(path), machine, path)
    model = load_model(path, options.qdq, options.compute)
    if options.layer is not None:
        return _of_layer(model, machine.array, path, options)
    if machine.memory is None:
        names = ", ".join(node.name for node in model.nodes if isinstance(node.layer, ArrayLayer))
        raise ValueError(
            "a model is shown as a program, on a machine with memories; --layer NAME shows a layer on the "
            f"array: {names}"
        )
    check_sizes(options, model)
    program = engine.compile(model, machine=machine, batch=options.batch, shapes=shapes_of(options))
    return _of_program(program, machine, path)


def _of_program(program: Program, machine: MachineConfig, path: str) -> View:
    return time_program(program, machine).view(title=os.path.basename(path))


def _of_product(gemm: Gemm, options: argparse.Namespace) -> View:
    array = machine_of(options).array
    if not given_machines(options):
        array = replace(array, rows=_SIDE, cols=_SIDE)
    if not gemm.macs:
        raise ValueError(f"{gemm.m} x {gemm.k} x {gemm.n} takes no cycle: there is nothing to see")
    rng = np.random.default_rng(options.seed)
    x = random_operand(rng, (gemm.m, gemm.k), array.format.activation)
    w = random_operand(rng, (gemm.k, gemm.n), array.format.weight)
    streams = _streams(array, options)
    engine.matmul(x, w, array=array, probe=streams, progress=not options.quiet)
    return _shown(streams, gemm, f"{gemm.m} x {gemm.k} x {gemm.n} on {array.rows} x {array.cols}")


def _of_layer(model: Model, array: ArrayConfig, path: str, options: argparse.Namespace) -> View:
    streams = _streams(array, options)
    node, inputs = layer_inputs(model, options.layer, model_input(model, options), array=array)
    with shown(not options.quiet, "cycles") as report:
        work = run_layer(node.layer, inputs, array, "cycle", thread_count(None), report, (streams,))
    return _shown(streams, work.gemms[0], f"{options.layer} of {os.path.basename(path)}")


def _streams(array: ArrayConfig, options: argparse.Namespace) -> Streams:
    """Return what records the cycles that are asked for, or as many as fit a page."""
    line = sum(
        array.port_dtypes[port.name].itemsize * (array.rows if port.side == "west" else array.cols)
        for port in array.dataflow_record.ports
        if port.name in ("activation", "weight")
    )
    # Base64 makes 4 bytes of 3.
    start, stop = options.cycles or (0, max(1, MOST_BYTES * 7 // 10 * 3 // 4 // line))
    return Streams(cycles=(start, stop), layer=options.layer)


def _shown(streams: Streams, gemm: Gemm, title: str) -> View:
    assert streams.array is not None
    total = engine.estimate(gemm, machine=streams.array).cycles
    if streams.start >= total:
        raise ValueError(f"--cycles begins at {streams.start:,}, but the product takes {total:,} cycles")
    notes = []
    if streams.start or streams.stop < total:
        last = min(streams.stop, total)
        notes = [f"Cycles {streams.start:,} to {last:,} of {total:,}; --cycles START:STOP shows others."]
    return streams.view(folds=folds(gemm, array=streams.array), title=title, notes=notes)
