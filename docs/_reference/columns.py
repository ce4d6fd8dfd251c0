"""The page of columns: their records, and the names in each table, frame and file."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

import systolic
from _reference.markdown import cell, page, table
from systolic import ArrayConfig, Gemm, MachineConfig, Trace, energy, presets, training
from systolic._show.columns import SECTIONS
from systolic.analysis import explain, roofline
from systolic.layers import ArrayMatMul
from systolic.sweeps import Grid


@cache
def tables() -> dict[str, Any]:
    """Return a table of each kind by how it is made; of a frame or file without a table, a list of names."""
    example, array = systolic.load_example(), ArrayConfig(16, 16)
    ideal = systolic.run(example.model, example.images[:1], machine=array, mode="wavefront")
    run = systolic.run(example.model, example.images[:1], machine=presets.TPU_V1, mode="wavefront")
    timeline, program = run.timeline, run.program
    summary = systolic.summary(example.model, machine=array)
    grid = Grid(MachineConfig(array), side=[8, 16])
    sweep = systolic.sweep({"fc": Gemm(4, 5, 6)}, grid)
    timed = systolic.sweep(example.model, Grid(presets.TPU_V1, weight_bytes=[2**30, 2**31]))
    compared = systolic.compare(Gemm(4, 5, 6), machine=array)
    weights = {"w": np.ones((8, 3), np.float32)}
    nodes = [systolic.Node(ArrayMatMul("bfloat16"), ("x", "w"), "y")]
    network = systolic.Model(nodes, inputs={"x": ((None, 8), "float32")}, constants=weights)
    trace = Trace(registers="psum")
    product = systolic.matmul(np.int8([[1]]), np.int8([[2]]), array=ArrayConfig(1, 1), trace=trace)
    grouped = systolic.folds(Gemm(4, 5, 6, groups=2), array=array)
    checked = systolic.verify(
        example.model, example.images[:1], machine=array, mode="wavefront", node_by_node=True
    )
    return {
        "Run.table() without memories": ideal.table(),
        "Run.table() of a program": run.table(),
        "Run.report().table() without memories": ideal.report().table(),
        "Run.report().table() of a program": run.report().table(),
        "Run.report().rows, to_csv(), without memories": list(ideal.report().rows[0]),
        "Run.report().rows, to_csv(), of a program": list(run.report().rows[0]),
        "Run.report().by_layer() without memories": ideal.report().by_layer(),
        "Run.report().by_layer() of a program": run.report().by_layer(),
        "summary().table()": summary.table(),
        "summary().rows, to_csv()": list(summary.rows[0]),
        "Model.table()": network.table(),
        "Result.folds.table()": grouped.table(),
        "Result.folds.to_frame()": [*product.folds[0].to_dict()],
        "Trace.to_frame()": ["cycle", "row", "col"],
        "Program.table()": program.table(),
        "Timeline.table()": timeline.table(),
        "Timeline.lanes()": timeline.lanes(),
        "Timeline.layers_table()": timeline.layers_table(),
        'Timeline.occupancy()["ub"].table()': timeline.occupancy()["ub"].table(),
        'Timeline.occupancy()["fifo"].table()': timeline.occupancy()["fifo"].table(),
        "Run.energy.table()": run.energy.table(),
        "Run.energy.to_frame()": list(run.energy.rows()[0]),
        "Run.energy.counts_table()": run.energy.counts_table(),
        "EnergyTable.table()": energy.TABLES[energy.DEFAULT].table(),
        "compare().table()": compared.table(),
        "compare().layer_table()": compared.layer_table(),
        "compare().to_frame()": compared.frame_table(),
        "sweep().table()": sweep.table(),
        "sweep().to_frame(), .csv, .parquet": list(sweep.to_dicts()[0]),
        "sweep() of machines with memories": list(timed.to_dicts()[0]),
        "roofline().table()": roofline(program, presets.TPU_V1).table(),
        "explain().table()": explain(program, presets.TPU_V1).table(),
        "training.costs().table()": training.costs(network, machine=array).table(),
        "verify().table()": checked.table(),
        "verify().nodes_table()": checked.nodes_table(),
    }


def names(shown: Any) -> list[str]:
    """Return the names of a table's columns."""
    return shown if isinstance(shown, list) else [column.key for column in shown.columns]


def text() -> str:
    """Return the page."""
    parts = [
        "# Columns of tables, frames and files",
        "Every table takes its columns from one list. Frames (`to_frame()`), dicts and CSV files have the "
        "names, which end in their unit; text, HTML and notebooks show the headings, and numbers with a "
        "fitting unit. `*` stands for the name of a cause, component, dataflow, pass or field.",
        "Shapes are written `1x3x224x224`, with `?` for a size that is not known and `scalar` without axes; "
        "products `m x k x n`; arrays `256 x 256`. Registers in `Trace.to_frame()` have the names of the "
        "dataflow's.",
    ]
    for title, section in SECTIONS.items():
        rows = [
            (f"`{each.name}`", cell(each.title), each.unit or "", cell(each.meaning)) for each in section
        ]
        parts += [f"## {title}", table(("name", "heading", "unit", "holds"), rows)]
    listed = {made: ", ".join(f"`{name}`" for name in names(shown)) for made, shown in tables().items()}
    rows = [(f"`{made}`", held) for made, held in listed.items()]
    parts += [
        "## Which table has which",
        "Some columns are there only if they hold something, such as `mapping` or `host_macs`. The tables of "
        "[accelerators](../tpu-v1.md) keep the headings of the paper.",
        table(("table", "columns"), rows),
    ]
    return page(*parts)
