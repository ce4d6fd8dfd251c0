"""Sweeps over mappings: every row is what ``estimate`` says."""

from __future__ import annotations

from pathlib import Path

import pytest

import systolic
from support.strategies import raises
from systolic import ArrayConfig, Gemm, MachineConfig, MemoryConfig, estimate, sweep
from systolic.dataflows import DATAFLOWS
from systolic.sweeps import Grid, Sweep, Workload, evaluation
from systolic.tiling.mappings import MAPPINGS

DIGITS = systolic.load_example().model
DEPTHWISE = Workload("depthwise", [("a", Gemm(49, 9, 1, groups=96), 2), ("b", Gemm(49, 9, 2, groups=35)), Gemm(5, 6, 7)])
ALL = [None, *MAPPINGS]


def test_ideal_machines(tmp_path: Path) -> None:
    grid = Grid(
        ArrayConfig(), side=[4, 9, 32], accumulator_rows=[None, 8], double_buffered=[True, False],
        dataflow=list(DATAFLOWS),
    )  # fmt: skip
    found = sweep(DIGITS, grid, batch=[1, 2], mapping=ALL, out=tmp_path / "rows.csv")
    assert len(found) == 2 * len(grid) * len(ALL)
    for row in found:
        assert row.stats == estimate(DIGITS, machine=row.machine, batch=row.batch, mapping=row.mapping)
    assert Sweep.read(tmp_path / "rows.csv") == found
    assert len({row.id for row in found}) == len(found)


def test_products(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = Grid(ArrayConfig(), rows=[1, 16, 256], cols=[1, 8, 256], dataflow=list(DATAFLOWS))
    alone = {
        (row.machine, row.mapping): estimate(DEPTHWISE, machine=row.machine, mapping=row.mapping)
        for row in sweep(DEPTHWISE, grid, mapping=["pack", "best", None, "im2col"])
    }

    def refuse(*_: object) -> None:
        raise AssertionError("one by one")

    monkeypatch.setattr(evaluation, "estimate_gemm", refuse)
    for row in sweep(DEPTHWISE, grid, mapping=["pack", "best", None, "im2col"]):
        assert row.stats == alone[row.machine, row.mapping]
    with raises(
        ValueError,
        "model 'depthwise' is a list of products, which have no kernel: mapping 'taps' is of convolutions; use "
        "'pack' or 'best' for products with groups",
    ):
        sweep(DEPTHWISE, grid, mapping="taps")


def test_sums_that_depend_on_their_order_keep_it() -> None:
    found = sweep(DIGITS, [ArrayConfig(8, 8, overflow="saturate"), ArrayConfig(8, 8)], mapping=ALL)
    errors = [row.error for row in found]
    assert [bool(error) for error in errors] == [False, False, True, True, False, *[False] * 5]
    assert errors[2] is not None and errors[2].startswith("mapping 'taps' changes the order of additions")
    assert found[4].stats == found[0].stats != found[9].stats


def test_machines_with_memories() -> None:
    memory = MemoryConfig(
        weight_bytes=2**20, weight_bytes_per_second=10**9, unified_buffer_rows=4096, host_rows=8192,
        host_bytes_per_second=10**9,
    )  # fmt: skip
    machine = MachineConfig(ArrayConfig(16, 16), memory=memory)
    found = {row.mapping: row.stats.cycles for row in sweep(DIGITS, machine, mapping=ALL)}
    for mapping, cycles in found.items():
        assert cycles == estimate(DIGITS, machine=machine, mapping=mapping).cycles
    assert found["best"] == min(found[name] for name in (None, "taps", "im2col")) < max(found.values())
