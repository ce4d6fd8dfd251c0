"""Rows in Parquet files: equal to those in CSV, written at once, with a journal that survives what kills a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import systolic
from support.strategies import raises
from systolic import ArrayConfig, Gemm, MachineConfig, MemoryConfig, Stats, sweep
from systolic.sweeps import Grid, Sweep, SweepRow, Workload, evaluation, files

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

BLOCK = Workload("block", [("qkv", Gemm(20, 64, 64), 3), Gemm(20, 64, 64)])
GRID = Grid(ArrayConfig(), side=[8, 16, 64], clock_mhz=[700, 0.1, 10**17])


def journal_of(out: Path) -> Path:
    return out.with_name(out.name + ".journal")


def test_rows_and_types(tmp_path: Path) -> None:
    memory = MemoryConfig(
        weight_bytes=2**20, weight_bytes_per_second="100/3", unified_buffer_rows=1, host_rows=8192,
        host_bytes_per_second=10**9,
    )  # fmt: skip
    machines = [*GRID, MachineConfig(ArrayConfig(16, 16), memory=memory)]
    out = tmp_path / "rows.parquet"
    found = sweep({'d,"é\n': systolic.load_example().model}, machines, out=out)
    assert len(found.errors) == 1
    assert Sweep.read(out) == found and not journal_of(out).exists()
    table = parquet.read_table(out)
    assert table.column_names == list(files.COLUMNS)
    kinds = {name: str(table.schema.field(name).type) for name in ("id", "machine", "cycles", "rows", "seconds", "clock_mhz")}
    assert kinds == {"id": "string", "machine": "string", "cycles": "int64", "rows": "int64", "seconds": "double", "clock_mhz": "double"}
    assert table["cycles"].to_pylist() == [None if row.stats is None else row.stats.cycles for row in found]
    found.save(tmp_path / "rows.csv")
    assert Sweep.read(tmp_path / "rows.csv") == found
    Sweep(()).save(out)
    assert Sweep.read(out) == Sweep(())


def test_counts_of_any_size(tmp_path: Path) -> None:
    machine = MachineConfig()
    found = Sweep([SweepRow(model="m", model_id="0", machine=machine, stats=Stats(cycles=2**64, pe_cycles=2**80))])
    found.save(tmp_path / "rows.parquet")
    assert Sweep.read(tmp_path / "rows.parquet") == found
    out = tmp_path / "huge.parquet"
    with raises(ValueError, "cycles has more than 38 digits, which a .parquet file does not hold; write a .csv file"):
        sweep(Gemm(10**20, 10**20, 10**20), MachineConfig(), out=out)
    assert not out.exists() and len(Sweep.read(out)) == 1  # in the journal


def test_resume_computes_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After runs that ended by themselves, and after one that a worker's death ended in the middle."""
    out = tmp_path / "rows.parquet"
    whole = sweep([BLOCK, Gemm(3, 3, 3)], GRID)
    first = sweep(BLOCK, GRID, out=out)
    computed: list[int] = []

    def task(products: Any, arrays: Any) -> Any:
        computed.append(len(arrays))
        if len(computed) == 3:
            raise OSError("killed")
        return evaluation.ideal_task(products, arrays)

    monkeypatch.setattr("systolic.sweeps.running.ideal_task", task)
    monkeypatch.setattr("systolic.sweeps.running._MOST_MACHINES", 3)
    with pytest.raises(OSError, match="killed"):
        sweep([BLOCK, Gemm(3, 3, 3)], GRID, out=out)
    assert computed == [3, 3, 3] and journal_of(out).read_text().count("\n") == 1 + 6
    assert len(Sweep.read(out)) == len(first) + 6
    with open(journal_of(out), "ab") as file:
        file.write(b"half a li")
    assert len(Sweep.read(out)) == len(first) + 6
    assert sweep([BLOCK, Gemm(3, 3, 3)], GRID, out=out) == whole
    assert computed[3:] == [3] and Sweep.read(out) == whole and not journal_of(out).exists()


def test_a_journal_alone_and_one_whose_rows_are_in_the_file_already(tmp_path: Path) -> None:
    out = tmp_path / "rows.parquet"
    whole = sweep(BLOCK, GRID)
    for copies in ([], [whole], [whole[:4]]):
        out.unlink(missing_ok=True)
        for rows in copies:
            rows.save(out)
        whole[2:].save(tmp_path / "rows.csv")
        (tmp_path / "rows.csv").rename(journal_of(out))
        assert set(Sweep.read(out)) == {*whole[2:], *(copies[0] if copies else ())}
        assert sweep(BLOCK, GRID, out=out) == whole
        assert set(Sweep.read(out)) == set(whole) and not journal_of(out).exists()


def test_what_is_no_file_of_a_sweep_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "rows.parquet"
    out.write_bytes(b"PAR1 and more")
    with pytest.raises(ValueError, match=r"rows.parquet is no Parquet file: "):
        sweep(BLOCK, GRID, out=out)
    assert out.read_bytes() == b"PAR1 and more"
    parquet.write_table(pyarrow.table({"a": [1]}), out)
    with pytest.raises(ValueError, match=r"is no file of a sweep by systolic .*: its first line is 'a', not"):
        sweep(BLOCK, GRID, out=out)
    found = sweep(BLOCK, GRID)
    Sweep([replace(found[0], version="0.0.1"), *found[1:]]).save(out)
    with pytest.raises(ValueError, match=r"rows.parquet holds rows of systolic 0.0.1, and this is .*; name another file$"):
        sweep(BLOCK, GRID, out=out)
    table = parquet.read_table(found.save(out) or out)
    changed = table.set_column(table.column_names.index("batch"), "batch", pyarrow.array([2] * len(found)))
    parquet.write_table(changed, out)
    with pytest.raises(ValueError, match=r"rows.parquet, row 0 is damaged \(its id is not that of its configuration\)"):
        Sweep.read(out)
    with pytest.raises(FileNotFoundError):
        Sweep.read(tmp_path / "nowhere.parquet")


@pytest.mark.skipif(os.name != "posix", reason="locks")
def test_a_file_belongs_to_one_sweep(tmp_path: Path) -> None:
    out = tmp_path / "rows.parquet"
    with_file = files.RowFile(out)
    with raises(ValueError, f"{journal_of(out)} is in use by another sweep; wait for it, or name another file"):
        sweep(BLOCK, GRID, out=out)
    with_file.close()
    assert len(sweep(BLOCK, GRID, out=out)) == 9


def test_without_pyarrow_nothing_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr("systolic.sweeps.running.as_works", None)
    message = 'a .parquet file needs pyarrow: pip install "systolic[sweep]"; a .csv file needs nothing'
    with raises(ImportError, message):
        sweep(BLOCK, GRID, out=tmp_path / "rows.parquet")
    assert not list(tmp_path.iterdir())


KILLED = """
import sys, time
import systolic
from systolic.sweeps import Grid, running
from systolic import ArrayConfig, Gemm
slow = running.ideal_task
def task(products, arrays):
    time.sleep(0.02)
    return slow(products, arrays)
running.ideal_task, running._MOST_MACHINES = task, 16
print("begins", flush=True)
systolic.sweep(Gemm(100, 100, 100), Grid(ArrayConfig(), rows=range(1, 65), cols=range(1, 65)), out=sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_killed_process_loses_no_row_that_was_written(tmp_path: Path) -> None:
    out = tmp_path / "rows.parquet"
    environment = os.environ | {"PYTHONPATH": str(Path(systolic.__file__).parents[1])}
    worker = subprocess.Popen([sys.executable, "-c", KILLED, str(out)], stdout=subprocess.PIPE, env=environment)
    assert worker.stdout is not None and worker.stdout.readline() == b"begins\n"
    deadline = time.monotonic() + 30
    while (not journal_of(out).exists() or journal_of(out).read_bytes().count(b"\n") < 200) and time.monotonic() < deadline:
        time.sleep(0.01)
    worker.send_signal(signal.SIGKILL)
    assert worker.wait() == -signal.SIGKILL
    worker.stdout.close()
    assert not out.exists() and 199 <= len(Sweep.read(out)) < 4096
    grid = Grid(ArrayConfig(), rows=range(1, 65), cols=range(1, 65))
    assert sweep(Gemm(100, 100, 100), grid, out=out) == sweep(Gemm(100, 100, 100), grid)
    assert len(Sweep.read(out)) == 4096 and not journal_of(out).exists()
