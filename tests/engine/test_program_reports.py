"""What a run on a machine with memories costs: rows by layer whose cycles and causes add up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import systolic
from systolic import ArrayConfig, MachineConfig, MemoryConfig, Model, Node, QuantParams, Stats, estimate
from systolic.engine.run_report import units_of
from systolic.isa import Activate, HostCall, MatrixMultiply, Nop, Program, ReadWeights, Section
from systolic.layers import Conv2d, Dense, Flatten, MaxPool, Softmax

MEMORY = MemoryConfig(
    weight_bytes=2**20, weight_bytes_per_second=700_000_000, unified_buffer_rows=4096, host_rows=8192,
    host_bytes_per_second=350_000_000,
)  # fmt: skip
MACHINE = MachineConfig(ArrayConfig(8, 8, accumulator_rows=64), clock_mhz=700, memory=MEMORY)
Q = QuantParams(0.5)
CAUSES = ("active", "weight_stall", "weight_shift", "raw_stall", "input_stall", "accumulator_stall", "other_stall")


@pytest.fixture(scope="module")
def run() -> systolic.Run:
    rng = np.random.default_rng(0)
    conv = Conv2d(rng.integers(-9, 9, (3, 2, 3, 3), dtype=np.int8), x=Q, w=Q, y=QuantParams(4.0))
    dense = Dense(rng.integers(-9, 9, (12, 5), dtype=np.int8), x=Q, w=Q, y=None)
    nodes = [
        Node(conv, "x", "a", "conv"),
        Node(MaxPool((2, 2), stride=2), "a", "b", "pool"),
        Node(Flatten(1), "b", "c", "flat"),
        Node(dense, "c", "d", "fc"),
        Node(Softmax(), "d", "y", "soft"),
    ]
    model = Model(nodes, inputs={"x": ((None, 2, 6, 6), "int8")})
    return systolic.run(model, np.ones((2, 2, 6, 6), np.int8), machine=MACHINE, mode="wavefront")


def test_rows_say_where_layers_run_and_what_limits_them(run: systolic.Run) -> None:
    rows = {row["node"]: row for row in run.report().rows}
    assert {name: row["on"] for name, row in rows.items()} == {
        "conv": "array", "pool": "vector", "flat": "none", "fc": "array", "soft": "host",
    }  # fmt: skip
    for row, layer in zip(rows.values(), run.layers, strict=True):
        assert row["cycles"] == layer.stats.cycles == sum(row[f"{cause}_cycles"] for cause in CAUSES)
        assert row["limit"] == layer.limit
        assert row["seconds"] == pytest.approx(row["cycles"] / 700e6)
        assert "wall_seconds" not in row
    alone = {"conv": (32, 18, 3), "fc": (2, 12, 5)}
    for name, sizes in alone.items():
        assert rows[name]["array_cycles"] == estimate(systolic.Gemm(*sizes), machine=MACHINE).cycles
        assert rows[name]["macs"] == np.prod(sizes)
    assert rows["pool"]["array_cycles"] is None and rows["pool"]["macs"] is None
    assert rows["soft"]["macs"] is None and rows["soft"]["shape"] == "2x5"


def test_totals_add_up(run: systolic.Run) -> None:
    report = run.report()
    total = report.totals
    assert run.timeline is not None
    assert total["cycles"] == run.timeline.cycles == sum(row["cycles"] for row in report.rows)
    assert sum(row["share"] for row in report.rows) == pytest.approx(1)
    assert (total["array_nodes"], total["vector_nodes"], total["host_nodes"]) == (2, 1, 1)
    assert total["array_cycles"] == sum(row["array_cycles"] or 0 for row in report.rows)
    for cause in (*CAUSES, "non_matrix"):
        assert total[f"{cause}_cycles"] == sum(row[f"{cause}_cycles"] for row in report.rows)
    assert run.stats == run.timeline.stats == sum((layer.stats for layer in run.layers), Stats())
    assert run.to_dict()["causes"] == run.timeline.causes


def test_tables_and_pages(run: systolic.Run, tmp_path: Path) -> None:
    report = run.report()
    rows = run.table().to_dicts()
    assert [row["limit"] for row in rows] == [layer.limit for layer in run.layers]
    assert rows[0]["array_cycles"] < rows[0]["cycles"] == run.layers[0].stats.cycles
    assert "limited by" in str(report.table()) and "wall" not in str(report.table())
    assert [row["cycles"] for row in report.by_layer().to_dicts()] == sorted(
        (layer.stats.cycles for layer in run.layers), reverse=True
    )
    page = report.html()
    assert "weight stall" in page and 'class="s3"' in page and "1 on the vector unit" in page
    assert "Wall time" not in page and "on the array alone" in page
    assert json.loads(json.dumps(report.to_dict()))["nodes"] == report.rows
    report.save(tmp_path / "r.csv")
    assert (tmp_path / "r.csv").read_text().splitlines()[0].split(",") == list(report.rows[0])


def test_a_program_without_its_model(run: systolic.Run) -> None:
    assert run.program is not None
    alone = systolic.run(run.program, np.ones((2, 2, 6, 6), np.int8), machine=MACHINE, mode="wavefront")
    report = alone.report()
    assert {row["node"]: row["on"] for row in report.rows} == {
        "conv": "array", "pool": "vector", "fc": "array", "soft": "host",
    }  # fmt: skip
    assert report.totals["array_cycles"] is None and report.totals["cycles"] == run.stats.cycles
    assert report.totals["macs"] == run.stats.macs
    columns = [column.key for column in alone.table().columns]
    assert "cycles" in columns and not {"array_cycles", "shape", "product"} & set(columns)
    assert "on the array alone" not in report.html()
    np.testing.assert_array_equal(alone.outputs["y"], run.outputs["y"])


def test_units_of_layers_whose_batch_is_cut() -> None:
    code = [ReadWeights(0), MatrixMultiply(0, 0, 1), Activate(0, 0, 1), HostCall(0, (), ()), Nop()]
    names = [("a", 0, 2), ("a", 2, 3), ("b", 3, 4), ("c", 4, 5)]
    program = Program(code, sections=[Section(name, "x", first, stop) for name, first, stop in names])
    assert units_of(program) == {("a", "x"): "array", ("b", "x"): "host", ("c", "x"): "none"}
