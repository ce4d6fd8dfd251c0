"""Rows of sweeps equal single estimates; they resume, merge, and survive what kills a process."""

from __future__ import annotations

import copy
import csv
import itertools
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import systolic
from support.strategies import array_configs, examples, raises, sizes
from systolic import ArrayConfig, Gemm, MachineConfig, MemoryConfig, Model, Node, Stats, estimate, sweep
from systolic.dataflows import DATAFLOWS
from systolic.energy import TABLES, total_pj
from systolic.layers import MatMulInteger
from systolic.sweeps import Grid, Sweep, SweepRow, Workload, WorkloadLayer, evaluation, files, read_sweep
from systolic.sweeps.evaluation import ideal_stats
from systolic.sweeps.results import _front
from systolic.sweeps.workloads import _model_id

MEMORY = MemoryConfig(
    weight_bytes=2**20, weight_bytes_per_second=10**9, unified_buffer_rows=4096, host_rows=8192,
    host_bytes_per_second=10**9,
)  # fmt: skip
MACHINE = MachineConfig(ArrayConfig(16, 16), memory=MEMORY)
DIGITS = systolic.load_example().model
BLOCK = Workload("block", [("qkv", Gemm(20, 64, 64), 3), ("scores", Gemm(20, 16, 20, groups=4)), Gemm(20, 64, 64)])
GRID = Grid(ArrayConfig(), side=[8, 16, 64], clock_mhz=[700, 940])


def by_estimate(work: Model | Workload, machine: MachineConfig, batch: int = 1) -> Stats:
    """The costs of a model as single estimates give them."""
    if isinstance(work, Model):
        return estimate(work, machine=machine, batch=batch)
    each = (
        estimate(replace(layer.gemm, m=layer.gemm.m * batch), machine=machine.array)
        for layer in work.layers
        for _ in range(layer.count)
    )
    return sum(each, Stats())


# Rows


def test_rows_are_those_of_single_estimates_in_order() -> None:
    found = sweep({"digits": DIGITS, "block": BLOCK}, GRID, batch=[1, 5])
    wanted = itertools.product(("digits", "block"), (1, 5), GRID)
    works = {"digits": DIGITS, "block": BLOCK}
    assert len(found) == 24
    for row, (name, batch, machine) in zip(found, wanted, strict=True):
        assert (row.model, row.batch, row.machine, row.mapping) == (name, batch, machine, None)
        assert row.stats == by_estimate(works[name], machine, batch) and row.error is None
        assert row.seconds == machine.seconds(row.stats.cycles)


@pytest.mark.slow
def test_rows_of_programs_are_those_of_compiled_models() -> None:
    grid = Grid(MACHINE, side=[8, 32], weight_bytes_per_second=[10**9, 10**10])
    found = sweep(DIGITS, grid, batch=[1, 3], mapping=["taps", "im2col", None])
    assert len({row.stats.cycles for row in found}) > 8
    for row in found:
        program = systolic.compile(DIGITS, machine=row.machine, batch=row.batch, mapping=row.mapping)
        assert row.stats == estimate(program, machine=row.machine)


def test_machines_that_cannot_run_a_model_have_rows_that_say_why() -> None:
    grid = Grid(MACHINE, unified_buffer_rows=[1, 4096])
    small, large = sweep(DIGITS, grid)
    assert large.error is None and small.stats is None and small.seconds is None
    with pytest.raises(ValueError) as failed:
        systolic.compile(DIGITS, machine=small.machine)
    assert small.error == str(failed.value) and "rows" in small.error
    found = Sweep([small, large])
    assert list(found.errors) == [small] and list(found.pareto("pes", "seconds")) == [large]
    assert "1 error" in repr(found) and small.error[:20] in str(found)


@pytest.mark.slow
@examples(150)
@given(
    st.lists(st.tuples(sizes(50, least=0), sizes(50, least=0), sizes(50, least=0), st.integers(1, 4), st.integers(1, 5)), min_size=1, max_size=4),
    st.lists(array_configs(), min_size=1, max_size=4),
)
def test_many_ideal_machines_at_once(layers: list[tuple[int, ...]], arrays: list[ArrayConfig]) -> None:
    products = [(Gemm(m, k, n, groups=groups), count) for m, k, n, groups, count in layers]
    alone = [
        sum((estimate(gemm, machine=array) for gemm, count in products for _ in range(count)), Stats())
        for array in arrays
    ]
    assert ideal_stats(products, arrays) == alone


@pytest.mark.parametrize(
    "products",
    [
        [(Gemm(2**40, 5, 7), 1)],
        [(Gemm(2**39, 2**20, 2**20), 1)],  # one count beyond int64
        [(Gemm(2**30, 2**15, 2**15), 3), (Gemm(2**30, 2**15, 2**15), 1)],  # the sum alone
        [(Gemm(5, 5, 5), 2**61)],
        [(Gemm(2**30, 2**16, 2**16), 1)] * 3,
    ],
)
def test_counts_beyond_int64(products: list[tuple[Gemm, int]]) -> None:
    for array in (ArrayConfig(4, 4), ArrayConfig(64, 8, accumulator_rows=None)):
        (found,) = ideal_stats(products, [array])
        assert found.cycles == sum(count * estimate(gemm, machine=array).cycles for gemm, count in products)
        assert found.macs == sum(count * gemm.macs for gemm, count in products)


def test_the_closed_form_of_many_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Stats:
        raise AssertionError("one by one")

    monkeypatch.setattr(evaluation, "estimate_gemm", refuse)
    grid = Grid(ArrayConfig(), side=range(1, 20), accumulator_rows=[None, 4, 4096], dataflow=list(DATAFLOWS))
    assert len(sweep(BLOCK, grid)) == 19 * 3 * len(DATAFLOWS)


# Rows as records


def test_rows_add_up() -> None:
    a, b, c = sweep([Gemm(9, 8, 7), Gemm(3, 3, 3), BLOCK], ArrayConfig(4, 4), batch=2)
    total = sum([a, b, c])
    assert total == a + (b + c) and total.stats == a.stats + b.stats + c.stats
    assert total.id == (c + a + b).id != (a + b).id
    assert total.model == "9 x 8 x 7 + 3 x 3 x 3 + block"
    (other,) = sweep(Gemm(9, 8, 7), ArrayConfig(8, 8), batch=2)
    with pytest.raises(ValueError, match="rows add up on one configuration; here machine is "):
        a + other
    with raises(ValueError, "rows add up on one configuration; here version is 0.0.1 and " + systolic.__version__):
        replace(a, version="0.0.1") + b
    failed = replace(a, stats=None, error="too small")
    assert (failed + b).error == "too small" and (failed + b).stats is None
    with pytest.raises(TypeError):
        a + 1


def test_identifiers_tell_configurations_models_and_versions_apart() -> None:
    (row,) = sweep({"a": Gemm(9, 8, 7)}, MachineConfig(ArrayConfig(4, 4)))
    variants = [
        replace(row, machine=MachineConfig(ArrayConfig(4, 4), clock_mhz=701)),
        replace(row, machine=MachineConfig(ArrayConfig(4, 4, double_buffered=False))),
        replace(row, machine=replace(MACHINE, array=ArrayConfig(4, 4))),
        replace(row, batch=2),
        replace(row, mapping="taps"),
        replace(row, version="0.0.1"),
        *sweep({"b": Gemm(9, 8, 7)}, ArrayConfig(4, 4)),
        *sweep({"a": Gemm(9, 7, 8)}, ArrayConfig(4, 4)),
        *sweep({"a": Gemm(9, 8, 7, groups=2)}, ArrayConfig(4, 4)),
        *sweep({"a": Workload("x", [("1", Gemm(9, 8, 7))])}, ArrayConfig(4, 4)),
        *sweep({"a": Workload("x", [("1", Gemm(9, 8, 7), 2)])}, ArrayConfig(4, 4)),
    ]
    assert len({each.id for each in (row, *variants)}) == 1 + len(variants)
    assert replace(row, machine=MachineConfig(ArrayConfig(4, 4), clock_mhz=700.0)).id == row.id
    assert pickle.loads(pickle.dumps(row)) == row and len(row.id) == 64


def test_the_identifier_is_stated_once_more() -> None:
    """From the documentation: SHA-256 of canonical JSON."""
    import hashlib

    (row,) = sweep(DIGITS, MACHINE, batch=2, mapping="taps")
    described = {
        "batch": 2, "mapping": "taps", "model": row.model_id, "version": systolic.__version__,
        "machine": MACHINE.to_dict(),
    }  # fmt: skip
    text = json.dumps(described, sort_keys=True, separators=(",", ":"))
    assert row.id == hashlib.sha256(text.encode()).hexdigest()


def test_a_models_identifier_is_of_everything_it_holds(tmp_path: Path) -> None:
    def of(model: Model) -> str:
        return sweep({"m": model}, ArrayConfig(8, 8))[0].model_id

    q = systolic.QuantParams(0.5)
    w = np.arange(12, dtype=np.int8).reshape(4, 3)

    def model(w: np.ndarray, name: str = "x", q: Any = q) -> Model:
        return Model([systolic.layers.Dense(w, x=q, w=q, y=q)], inputs={name: ((None, 4), "int8")}, name="m")

    first = of(model(w))
    others = [model(w + np.int8(1)), model(w[:, :2]), model(w, "z"), model(w, q=systolic.QuantParams(0.25)), model(w.T.reshape(4, 3))]
    assert len({first, *map(of, others)}) == 6 and of(model(w.copy())) == first
    DIGITS.save(tmp_path / "digits.zip")
    assert sweep(tmp_path / "digits.zip", GRID) == sweep(DIGITS, GRID)


def test_rows_hold_stats_or_an_error() -> None:
    for values in ({}, {"stats": Stats(), "error": "x"}):
        with raises(ValueError, "a row holds either stats or an error"):
            SweepRow(model="a", model_id="b", machine=MACHINE, **values)


# Resume and merge


def test_resume_computes_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "rows.csv"
    whole = sweep([DIGITS, BLOCK], GRID, batch=[1, 2])
    first = sweep([DIGITS], GRID, out=out)
    computed: list[int] = []
    monkeypatch.setattr(
        "systolic.sweeps.running.ideal_task",
        lambda products, arrays: computed.append(len(arrays)) or evaluation.ideal_task(products, arrays),
    )
    assert sweep([DIGITS, BLOCK], GRID, batch=[1, 2], out=out) == whole
    assert sum(computed) == len(whole) - len(first)
    before = out.read_bytes()
    assert sweep([BLOCK, DIGITS], GRID, batch=[2, 1], out=out) == sweep([BLOCK, DIGITS], GRID, batch=[2, 1])
    assert out.read_bytes() == before
    assert set(Sweep.read(out)) == set(whole)


def test_two_runs_merge(tmp_path: Path) -> None:
    left, right = sweep(BLOCK, GRID[:4], batch=[1, 2]), sweep([DIGITS, BLOCK], GRID[2:])
    both = left + right
    assert len(both) == 8 + 8 - 2 and set(both) == {*left, *right} and both == left + both
    changed = Sweep([replace(left[0], stats=Stats(cycles=1))])
    with pytest.raises(ValueError, match="^two rows of one configuration differ: <SweepRow block: "):
        left + changed
    both.save(tmp_path / "both.csv")
    assert Sweep.read(tmp_path / "both.csv") == both


def test_files_hold_what_was_computed_programs_and_errors_too(tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    odd = {'d,"é\n': DIGITS}
    grid = Grid(MACHINE, unified_buffer_rows=[1, 4096], weight_bytes_per_second=["100/3", 10**9])
    found = sweep(odd, grid, mapping=["taps", None], out=out)
    assert len(found.errors) == 4 and found[0].model == 'd,"é\\n'
    assert Sweep.read(out) == found
    assert out.read_text(encoding="utf-8").count("\n") == 1 + len(found)
    assert sweep(odd, grid, mapping=["taps", None], out=out) == found


@pytest.mark.slow
def test_every_cut_file_resumes(tmp_path: Path) -> None:
    """Whatever part of the file a killed process left: a prefix of what was written."""
    out = tmp_path / "rows.csv"
    whole = sweep(BLOCK, GRID, out=out)
    data = out.read_bytes()
    ends = [i + 1 for i, byte in enumerate(data) if byte == 10]
    edges = [0, 1, *ends, *(end - 1 for end in ends), *(end + 1 for end in ends[:-1])]
    for cut in [*edges, *random.Random(0).sample(range(len(data)), 40)]:
        out.write_bytes(data[:cut])
        complete = max(sum(end <= cut for end in ends) - 1, 0)
        with_head = any(end <= cut for end in ends)
        if with_head:
            assert len(Sweep.read(out)) == complete
        assert sweep(BLOCK, GRID, out=out) == whole
        assert out.read_bytes() == data


KILLED = """
import sys, time
import systolic
from systolic.sweeps import Grid, running
from systolic import ArrayConfig, Gemm
machines = Grid(ArrayConfig(), rows=range(1, 65), cols=range(1, 65))
slow = running.ideal_task
def task(products, arrays):
    time.sleep(0.02)
    return slow(products, arrays)
running.ideal_task, running._MOST_MACHINES = task, 16
print("begins", flush=True)
systolic.sweep(Gemm(100, 100, 100), machines, out=sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_killed_process_loses_no_row_that_was_written(tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    seen = 0
    root = str(Path(systolic.__file__).parents[1])
    for wait in (0.1, 0.3, 0.2):
        worker = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(out)], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": root}
        )
        assert worker.stdout is not None and worker.stdout.readline() == b"begins\n"
        deadline = time.monotonic() + 30
        while (not out.exists() or out.read_bytes().count(b"\n") <= seen + 16) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(wait)
        written = out.read_bytes().count(b"\n")
        worker.send_signal(signal.SIGKILL)
        assert worker.wait() == -signal.SIGKILL
        worker.stdout.close()
        rows = Sweep.read(out)
        assert seen < written - 1 <= len(rows) < 4096
        seen = len(rows)
    with open(out, "ab") as file:
        file.write(b"half a li")
    grid = Grid(ArrayConfig(), rows=range(1, 65), cols=range(1, 65))
    assert sweep(Gemm(100, 100, 100), grid, out=out) == sweep(Gemm(100, 100, 100), grid)
    assert len(Sweep.read(out)) == 4096


def test_files_that_are_none_of_a_sweep_are_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    for content in ("a,b\n1,2\n", "a", "id,model,batch,rows\n", "id,model\0"):
        out.write_text(content)
        with pytest.raises(ValueError, match=r"is no file of a sweep by systolic .* nothing was written$"):
            sweep(BLOCK, GRID, out=out)
        assert out.read_text() == content
    out.write_bytes(b"\xff\xfe\n")
    with pytest.raises(ValueError, match="is no file of text"):
        sweep(BLOCK, GRID, out=out)


def test_files_of_another_version_or_damaged_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    found = sweep(BLOCK, GRID)
    Sweep([replace(found[0], version="0.0.1"), *found[1:]]).save(out)
    data = out.read_bytes()
    with pytest.raises(ValueError, match=r"rows.csv holds rows of systolic 0.0.1, and this is .*; name another file$"):
        sweep(BLOCK, GRID, out=out)
    assert out.read_bytes() == data and Sweep.read(out)[0].version == "0.0.1"
    found.save(out)
    lines = out.read_text().split("\n")
    mutants = [
        lines[2].replace('_mhz"":940', '_mhz"":941'), lines[2].replace('""rows"":8', '""rows"":9'), lines[2][:-9], "", lines[2].replace(found[1].id, ""),
        lines[2].replace(str(found[1].stats.cycles), "x", 1), lines[2].replace(str(found[1].stats.cycles), "-1", 1), lines[2].replace('"{', '"['),
        lines[2].replace(",block,", ",clock,").replace(found[1].model_id, found[0].id),
    ]  # fmt: skip
    for mutant in mutants:
        assert mutant != lines[2]
        out.write_text("\n".join([*lines[:2], mutant, *lines[3:]]))
        with pytest.raises(ValueError, match=r"rows.csv, line 3 is damaged \(.+\); delete the line"):
            sweep(BLOCK, GRID, out=out)


def test_files_that_contradict_the_sweep_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "rows.csv"
    whole = sweep(BLOCK, GRID, out=out)
    head, *lines = out.read_text().splitlines(keepends=True)
    out.write_text("".join([head, *lines, lines[0]]))  # merged from two files
    assert sweep(BLOCK, GRID, out=out) == whole
    # Nothing is computed before a contradiction is found.
    monkeypatch.setattr("systolic.sweeps.running.ideal_task", None)

    def changed(**columns: str) -> str:
        cells = dict(zip(files.COLUMNS, next(csv.reader([lines[-1]])), strict=True))
        assert all(cells[name] != value for name, value in columns.items())
        return files._line((cells | columns).values())

    for name, value in (("rows", "3"), ("cols", ""), ("clock_mhz", "7"), ("seconds", "0"), ("utilization", "1"), ("pe_cycles", "5"), ("macs", "5")):
        out.write_text("".join([head, *lines[1:-1], changed(**{name: value})]))
        with pytest.raises(ValueError, match=rf"line {len(lines)} is damaged \(its .* is .*, but follows from its other values: "):
            sweep(BLOCK, GRID, out=out)
    out.write_text("".join([head, *lines[1:], changed(weight_bytes="5")]))
    message = f"{out} holds two rows with the id {whole[-1].id} and other values; delete both lines, and the sweep computes the row again, or name another file"
    with raises(ValueError, message):
        sweep(BLOCK, GRID, out=out)
    out.write_text("".join([head, *lines[1:-1], changed(model="other")]))
    message = f"{out} holds a row of '{whole[0].model}' under the name 'other'; delete its line, and the sweep computes it again, or name another file"
    with raises(ValueError, message):
        sweep(BLOCK, GRID, out=out)


@pytest.mark.skipif(os.name != "posix", reason="locks")
def test_a_file_belongs_to_one_sweep(tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    with_file = files.RowFile(out)
    with raises(ValueError, f"{out} is in use by another sweep; wait for it, or name another file"):
        sweep(BLOCK, GRID, out=out)
    with_file.close()
    assert len(sweep(BLOCK, GRID, out=out)) == 6


# Executors


class Plain:
    """The least that an executor is: what it returns has a result."""

    def submit(self, function: Any, /, *arguments: Any) -> Any:
        class Later:
            def result(self) -> Any:
                return function(*arguments)

        return Later()


MIXED = [*Grid(ArrayConfig(), side=range(1, 400), clock_mhz=[1, 2]), ArrayConfig(7, 9)]


@pytest.mark.parametrize("make", [Plain, lambda: ThreadPoolExecutor(3)])
def test_executors_return_the_serial_rows(make: Any, tmp_path: Path) -> None:
    executor = make()
    found = sweep([BLOCK, DIGITS], MIXED, executor=executor, out=tmp_path / "a.csv")
    assert found == sweep([BLOCK, DIGITS], MIXED) and set(Sweep.read(tmp_path / "a.csv")) == set(found)
    programs = [MACHINE, replace(MACHINE, clock_mhz=100), MachineConfig(ArrayConfig(8, 8))]
    assert sweep(DIGITS, programs, batch=[1, 2], executor=executor) == sweep(DIGITS, programs, batch=[1, 2])


@pytest.mark.slow
@pytest.mark.exhaustive
def test_processes_return_the_serial_rows(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        assert sweep([BLOCK, DIGITS], MIXED, executor=executor) == sweep([BLOCK, DIGITS], MIXED)
        grid = Grid(MACHINE, side=[8, 16], unified_buffer_rows=[1, 4096])
        found = sweep(DIGITS, grid, mapping=["taps", "im2col"], executor=executor, out=tmp_path / "a.csv")
        assert found == sweep(DIGITS, grid, mapping=["taps", "im2col"])


def die_after_a_while(*_: Any) -> None:
    time.sleep(0.5)
    os._exit(1)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_worker_that_dies_loses_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "rows.csv"
    calls = itertools.count()

    class Deadly:
        """Hands the sixth task to a worker that dies in the middle."""

        def __init__(self, pool: ProcessPoolExecutor) -> None:
            self.pool = pool

        def submit(self, function: Any, /, *arguments: Any) -> Future[Any]:
            deadly = next(calls) == 5
            return self.pool.submit(die_after_a_while if deadly else function, *arguments)

    monkeypatch.setattr("systolic.sweeps.running._MOST_SPLIT", 16)
    told = r"^a worker of the executor failed after [\d,]+ of 799 rows \(BrokenProcessPool: .*\); they are in .*rows.csv: run again"
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool, pytest.raises(RuntimeError, match=told) as failed:
        sweep(BLOCK, MIXED, executor=Deadly(pool), out=out)
    count = int(str(failed.value).split(" of 799")[0].rpartition(" ")[2].replace(",", ""))
    assert 0 < count == len(Sweep.read(out)) < 799
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        assert sweep(BLOCK, MIXED, executor=pool, out=out) == sweep(BLOCK, MIXED)


def test_what_others_finished_is_kept_when_one_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("systolic.sweeps.running._MOST_SPLIT", 16)

    class Third:
        """All are done at once; the third has failed."""

        def __init__(self) -> None:
            self.calls = 0

        def submit(self, function: Any, /, *arguments: Any) -> Future[Any]:
            future: Future[Any] = Future()
            self.calls += 1
            if self.calls == 3:
                future.set_exception(OSError("gone"))
            else:
                future.set_result(function(*arguments))
            return future

    with pytest.raises(RuntimeError, match=r"failed after 783 of 799 rows \(OSError: gone\); they are in"):
        sweep(BLOCK, MIXED, executor=Third(), out=tmp_path / "rows.csv")
    assert len(Sweep.read(tmp_path / "rows.csv")) == 783
    with raises(RuntimeError, "a worker of the executor failed after 783 of 799 rows (OSError: gone); pass out= to keep them"):
        sweep(BLOCK, MIXED, executor=Third())


def test_an_interrupted_sweep_cancels_and_resumes(tmp_path: Path) -> None:
    out, cancelled = tmp_path / "rows.csv", []

    class Never:
        def submit(self, function: Any, /, *arguments: Any) -> Future[Any]:
            future: Future[Any] = Future()
            cancelled.append(future)
            if len(cancelled) == 1:
                future.set_result(function(*arguments))
            return future

    def stop(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(BLOCK, MIXED, executor=Never(), out=out, progress=stop)
    assert all(future.cancelled() for future in cancelled[1:]) and len(cancelled) == 4
    assert len(Sweep.read(out)) == 256
    assert sweep(BLOCK, MIXED, out=out) == sweep(BLOCK, MIXED)


# Before work starts


def test_grids_that_explode_are_refused_before_work(tmp_path: Path) -> None:
    grid = Grid(ArrayConfig(), rows=range(1, 1_001), cols=range(1, 1_001), clock_mhz=range(1, 1_001))
    assert grid.total == 10**9 and repr(grid).startswith("<Grid of 1,000,000,000 machines: 1,000 rows x")
    assert grid[10**9 - 1] == grid[-1] == MachineConfig(ArrayConfig(1_000, 1_000), clock_mhz=1_000)
    with raises(
        ValueError,
        "the sweep has 4,000,000,000 rows (2 models x 2 batch sizes x 1,000,000,000 machines x 1 mapping), "
        "more than limit=1,000,000; pass limit=4000000000 to compute them",
    ):
        sweep([BLOCK, DIGITS], grid, batch=[1, 2], out=tmp_path / "rows.csv")
    assert not (tmp_path / "rows.csv").exists()
    assert len(sweep(BLOCK, GRID, limit=6)) == 6
    with pytest.raises(ValueError, match="the sweep has 6 rows"):
        sweep(BLOCK, GRID, limit=5)


def test_progress_counts_rows() -> None:
    seen: list[tuple[int, int]] = []
    sweep([BLOCK, DIGITS], GRID, progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, 12) and seen[-1] == (12, 12) and seen == sorted(seen)


Q = systolic.QuantParams(0.5)
FLOAT = Model([systolic.layers.FloatMatMul(np.ones((4, 4), np.float32))], inputs={"x": ((None, 4), "float32")})


@pytest.mark.parametrize(
    ("models", "machines", "options", "message"),
    [
        (5, GRID, {}, "a model of a sweep must be a Model, a Workload, a Gemm, or a path of an .onnx, .zip, .csv, .yaml or .json file, not int 5"),
        ([], GRID, {}, "models must hold at least one model"),
        ([BLOCK, BLOCK], GRID, {}, "two models are named 'block'"),
        ([[Gemm(1, 1, 1)]], GRID, {}, "products with names are a Workload, or a mapping from names"),
        ({"a": []}, GRID, {}, "workload 'a' has no layers"),
        ({"a": [Gemm(1, 1, 1), 5]}, GRID, {}, "a layer of workload 'a' must be a Gemm, (name, Gemm) or (name, Gemm, count), not int 5"),
        ({"a": [("x", Gemm(1, 1, 1), 0)]}, GRID, {}, "count of layer 'x' must be a positive integer, not 0"),
        ({5: BLOCK}, GRID, {}, "a model's name must be text, not int 5"),
        ("nowhere.onnx", GRID, {}, "nowhere.onnx"),
        (FLOAT, GRID, {}, "model 'model' cannot be swept: no MAC runs on the array"),
        (BLOCK, [], {}, "machines must hold at least one machine"),
        (BLOCK, "tpu", {}, "a machine of a sweep must be a MachineConfig or an ArrayConfig, not str"),
        (BLOCK, GRID, {"mapping": "taps"}, "is a list of products, which have no kernel: mapping 'taps' is of convolutions"),
        (DIGITS, MACHINE, {"mapping": "tap"}, "mapping must be one of "),
        (BLOCK, GRID, {"batch": 0}, "batch must be a positive integer, not 0"),
        (BLOCK, GRID, {"batch": []}, "batch must hold at least one value"),
        (BLOCK, GRID, {"limit": 0}, "limit must be a positive integer, not 0"),
        (BLOCK, GRID, {"executor": 5}, "executor must have submit, as concurrent.futures has it, not int 5"),
        (BLOCK, GRID, {"out": "rows.txt"}, "out must be the name of a .csv or .parquet file, not 'rows.txt'"),
        (BLOCK, GRID, {"out": "no/where/rows.csv"}, "there is no folder"),
        (BLOCK, GRID, {"progress": 5}, "progress must be True, False, None or a function"),
    ],
)  # fmt: skip
def test_wrong_arguments(models: Any, machines: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError, OSError)) as failed:
        sweep(models, machines, **options)
    assert message in str(failed.value)


def test_sizes_that_are_unknown_name_the_model() -> None:
    dense = systolic.layers.Dense(np.ones((4, 3), np.int8), x=Q, w=Q, y=Q)
    model = Model([dense], inputs={"x": ((None, None, 4), "int8")}, name="m")
    with pytest.raises(ValueError, match=r"^model 'm': input 'x' has the shape \(\?, \?, 4\)"):
        sweep(model, GRID)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"row": [1]}, "a machine has no field 'row'; did you mean 'rows'?"),
        ({"clock": [1]}, "a machine has no field 'clock'; did you mean 'clock_mhz'?"),
        ({"xyzzy": [1]}, "a machine has no field 'xyzzy'; known are side, format, rows, "),
        ({"rows": []}, "axis 'rows' of the grid has no values"),
        ({"rows": [1, 0]}, "axis 'rows' of the grid: rows must be a positive integer, not 0"),
        ({"clock_mhz": ["fast"]}, "axis 'clock_mhz' of the grid: clock_mhz must be a number"),
        ({"fifo_tiles": [4]}, "axis 'fifo_tiles' of the grid is a field of the memories, and base has none"),
        ({"side": [4], "cols": [4]}, "the grid has axes 'side' and 'cols': side is rows and cols"),
    ],
)
def test_wrong_axes(axes: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as failed:
        Grid(ArrayConfig(), **axes)
    assert str(failed.value).startswith(message)


def test_grids_are_sequences_of_every_combination() -> None:
    grid = Grid(MACHINE, rows=np.array([4, 8]), width_factors=[[1, 2, 4], (1, 1, 1)], clock_mhz=[1, 1, 2])
    wanted = [
        replace(MACHINE, array=replace(MACHINE.array, rows=rows), memory=replace(MEMORY, width_factors=factors), clock_mhz=clock)
        for rows in (4, 8)
        for factors in ((1, 2, 4), (1, 1, 1))
        for clock in (1, 2)
    ]  # fmt: skip
    assert list(grid) == wanted == [grid[i] for i in range(8)] and len(grid) == 8 and grid[2:4] == tuple(wanted[2:4])
    ideal = Grid(MachineConfig(ArrayConfig(), clock_mhz=5), side=np.int64([4, 8]), accumulator_rows=[None, 9], dataflow="input_stationary")
    assert list(ideal) == [
        MachineConfig(ArrayConfig(side, side, accumulator_rows=rows, dataflow="input_stationary"), clock_mhz=5)
        for side in (4, 8)
        for rows in (None, 9)
    ]  # fmt: skip
    assert {type(machine.array.rows) for machine in ideal} == {int}
    assert Grid(MACHINE, width_factors=(1, 2, 4))[0].memory.width_factors == (1, 2, 4)
    assert list(Grid(ArrayConfig(4, 4))) == [MachineConfig(ArrayConfig(4, 4))]
    with pytest.raises(IndexError):
        grid[8]


def test_workloads_are_values() -> None:
    assert Workload("block", BLOCK.layers) == BLOCK and Workload("a", {"x": Gemm(1, 2, 3)}).layers == (WorkloadLayer("x", Gemm(1, 2, 3)),)
    assert BLOCK.macs == 4 * 20 * 64 * 64 + 4 * 20 * 16 * 20
    assert repr(BLOCK) == "<Workload 'block': 3 layers, 353,280 MACs>"


# Results


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12) | st.lists(st.tuples(*[st.integers(0, 3)] * 3), max_size=12))
def test_fronts(points: list[tuple[int, ...]]) -> None:
    def beaten(i: int) -> bool:
        return any(other != points[i] and all(a <= b for a, b in zip(other, points[i], strict=True)) for other in points)

    assert sorted(_front(points)) == [i for i in range(len(points)) if not beaten(i)]
    assert [points[i] for i in _front(points)] == sorted(points[i] for i in _front(points))


def test_pareto_is_within_a_model_and_batch() -> None:
    found = sweep([BLOCK, DIGITS], GRID, batch=[1, 2])
    front = found.pareto("pes", "seconds")
    assert {(row.model, row.batch) for row in front} == {(name, batch) for name in ("block", "digits") for batch in (1, 2)}
    assert {row.machine.clock_mhz for row in front} == {940}
    best = found.pareto("-utilization")
    assert len(best) == 8  # four, each at two clocks
    for row in best:
        assert row.stats.utilization == max(r.stats.utilization for r in found if (r.model, r.batch) == (row.model, row.batch))
    with raises(ValueError, "rows have no number 'cycle'; did you mean 'cycles'?"):
        found.pareto("cycle", "pes")
    with pytest.raises(ValueError, match="^rows have no number 'energy_pj'; "):
        sweep(BLOCK, GRID, energy=None).pareto("cycles", "energy")
    with pytest.raises(ValueError, match="^pareto needs the names of costs"):
        found.pareto()


def test_frames_have_a_column_for_everything() -> None:
    pandas = pytest.importorskip("pandas")
    found = sweep(DIGITS, Grid(MACHINE, unified_buffer_rows=[1, 4096]))
    frame = found.to_frame()
    assert isinstance(frame, pandas.DataFrame) and len(frame) == 2
    assert frame["memory_unified_buffer_rows"].tolist() == [1, 4096] and frame["id"].tolist() == [row.id for row in found]
    assert frame["cycles"].isna().tolist() == [True, False] and frame["cycles"][1] == found[1].stats.cycles
    ideal = (found + sweep(DIGITS, GRID)).to_frame()
    assert ideal["memory_fifo_tiles"].isna().tolist() == [False] * 2 + [True] * 6


def test_tables_show_what_differs() -> None:
    text = str(sweep(DIGITS, GRID).table(2))
    assert "clock_mhz" not in text and "4 slower rows are left out" in text and "double_buffered" not in text
    sized = sweep(DIGITS, Grid(MACHINE, weight_bytes=[2**20, 2**21])).table()
    assert [column.key for column in sized.columns][:2] == ["model", "memory_weight_bytes"]
    lines = str(sized).split("\n")
    assert lines[1].startswith("model   memory weight bytes") and lines[4].split()[1] == "2,097,152"
    head = [column.name for column in sweep(DIGITS, GRID).table().columns]
    assert head == ["model", "rows", "cols", "MHz", "cycles", "time", "utilization"]
    assert sweep(DIGITS, GRID)._repr_html_().startswith("<table")


def test_plots_mark_the_front() -> None:
    pytest.importorskip("matplotlib")
    found = sweep([BLOCK, DIGITS], GRID)
    front = found.pareto("pes", "seconds")
    (ax,) = found.plot().axes
    assert [line.get_label() for line in ax.lines] == ["block", "digits"]
    drawn = [tuple(point) for line in ax.lines for point in line.get_xydata().tolist()]
    assert drawn == [(row.to_dict()["pes"], row.seconds) for row in front]
    scattered = sum(len(each.get_offsets()) for each in ax.collections)
    assert scattered == len(found) - len(front)
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_xscale()) == ("PEs", "time", "log")
    (batched,) = sweep(BLOCK, GRID, batch=[1, 2]).plot("cycles", "-utilization").axes
    assert [line.get_label() for line in batched.lines] == ["block, batch 1", "block, batch 2"]
    assert Sweep([]).plot().axes


def test_products_in_other_layouts() -> None:
    work = Workload("layouts", [Gemm(20, 36, 8, taps=9), (Gemm(20, 9, 2, groups=16, pack=4).text, Gemm(20, 9, 2, groups=16, pack=4), 3)])
    machines = [*Grid(ArrayConfig(), side=[8, 32], dataflow=list(DATAFLOWS))]
    assert [row.stats for row in sweep(work, machines)] == [by_estimate(work, machine) for machine in machines]
    with pytest.raises(ValueError, match="is laid out as 'taps', which is of the array alone"):
        sweep(work, MACHINE)


@pytest.mark.parametrize(
    "axes",
    [
        {"format": ["int4", "int8", "int16", "bfloat16", ("uint8", "int8")]},
        {"activation_dtype": ["int8", "int16"], "weight_dtype": ["uint8", "int8"], "psum_bits": [24, 32]},
        {"activation_dtype": "bfloat16", "weight_dtype": ["bfloat16"]},
        {"format": "float8_e4m3fn", "dataflow": list(DATAFLOWS), "side": [8, 16]},
    ],
)  # fmt: skip
def test_formats_are_axes(axes: dict[str, Any]) -> None:
    grid = Grid(ArrayConfig(16, 16), **axes)
    listed = [MachineConfig(ArrayConfig.from_dict(machine.array.to_dict())) for machine in grid]
    assert list(grid) == listed and len(set(listed)) == grid.total
    assert [row.stats for row in sweep(BLOCK, grid)] == [by_estimate(BLOCK, machine) for machine in listed]


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"format": ["int8"], "weight_dtype": "int8"}, "the grid has axes 'format' and 'weight_dtype': format is the type of both operands"),
        ({"format": [("int8",)]}, "axis 'format' of the grid: a format is a type, or a pair of them for activations and weights, not ('int8',)"),
        ({"activation_dtype": ["int8", "bfloat16"], "weight_dtype": ["int8", "bfloat16"]}, "cannot be multiplied with weights of "),
        ({"format": ["int8", "in8"]}, "axis 'format' of the grid: activation_dtype must be "),
    ],
)  # fmt: skip
def test_formats_that_no_array_has(axes: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        Grid(ArrayConfig(), **axes)
    assert message in str(caught.value)


def test_heatmaps() -> None:
    pytest.importorskip("matplotlib")
    grid = Grid(ArrayConfig(), rows=[16, 8], cols=[4, 32, 2], clock_mhz=[700, 940])
    found = sweep([BLOCK, Gemm(3, 3, 3)], grid)
    one = found.where(model="block", clock_mhz=940)
    assert len(one) == 6
    ax, bar = one.heatmap().axes
    values = {(row.machine.array.rows, row.machine.array.cols): row.stats.utilization for row in one}
    assert ax.images[0].get_array().tolist() == [[values[r, c] for c in (2, 4, 32)] for r in (8, 16)]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["2", "4", "32"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["8", "16"]
    assert (ax.get_xlabel(), ax.get_ylabel(), bar.get_ylabel()) == ("cols", "rows", "utilization")
    assert {text.get_text() for text in ax.texts} == {f"{100 * value:.1f}%" for value in values.values()}
    ax, bar = one[:4].heatmap("cycles", x="rows", y="cols").axes
    assert ax.images[0].get_array().mask.sum() == 2 and bar.get_ylabel() == "cycles"
    message = "two rows are the cell of cols=4 and rows=16: they differ in clock_mhz; choose some with where(clock_mhz=...)"
    with raises(ValueError, message):
        found.where(model="block").heatmap()
    with raises(ValueError, "two rows are the cell of cols=4 and rows=16: they differ in model; choose some with where(model=...)"):
        found.where(clock_mhz=700).heatmap()
    with raises(ValueError, "rows have no field 'clock'; did you mean 'clock_mhz'?"):
        found.where(clock=700)
    with pytest.raises(ValueError, match="rows have no number 'cycle'; did you mean 'cycles'"):
        one.heatmap("cycle")
    with raises(ValueError, "there are no rows with costs to draw"):
        Sweep(()).heatmap()
    assert one.pareto("time", "pes") == one.pareto("seconds", "pes")


def test_plots_need_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with raises(ImportError, 'drawing needs matplotlib: pip install "systolic[plot]"'):
        sweep(BLOCK, GRID).plot()


# Energy


def test_energy_of_rows() -> None:
    model, grid = DIGITS, Grid(ArrayConfig(), side=[8, 16, 64])
    found = sweep(model, grid)
    for row in found:
        assert row.energy_pj == row.to_dict()["energy_pj"] == total_pj(row.stats, row.machine, TABLES["45nm"])
        assert row.energy_pj == pytest.approx(systolic.summary(model, machine=row.machine).energy.total_pj)
    assert sum(found.rows[:1]).energy_pj == found[0].energy_pj
    for front in (found.pareto("cycles", "energy"), found.pareto("cycles", "energy_pj")):
        points = [(row.stats.cycles, row.energy_pj) for row in front]
        assert points == sorted(points) and min(row.energy_pj for row in found) == points[-1][1]
    modern = sweep(model, grid, energy="7nm")
    assert modern == found and modern[0].energy_pj < found[0].energy_pj
    assert found.using("7nm")[1].energy_pj == modern[1].energy_pj
    assert {row.energy_pj for row in sweep(model, grid, energy=None)} == {None}
    with raises(ValueError, "energy must be a table's name, a .json or .yaml file of one, or None, not '9nm'; did you mean '7nm'?"):
        sweep(model, grid, energy="9nm")


def test_energy_of_programs() -> None:
    (row,) = sweep(DIGITS, MACHINE)
    run = systolic.run(DIGITS, systolic.load_example().images[:1], machine=MACHINE, mode="wavefront")
    assert row.stats == run.stats and row.energy_pj == pytest.approx(run.energy.total_pj)


def test_a_file_names_an_energy_table(tmp_path: Path) -> None:
    layers = [{"name": "fc", "m": 4, "k": 32, "n": 32}]
    described = {"models": [{"name": "fc", "layers": layers}], "energy": "mine.json"}
    (tmp_path / "mine.json").write_text(json.dumps({"name": "mine", "based_on": "45nm", "leakage_pj_per_pe_cycle": 0}))
    (tmp_path / "sweep.json").write_text(json.dumps(described))
    (row,) = sweep(**read_sweep(tmp_path / "sweep.json"))
    assert row.energies.name == "mine" and row.energies["leakage_pj_per_pe_cycle"] == 0
    (tmp_path / "sweep.json").write_text(json.dumps({**described, "energy": "8nm"}))
    with raises(ValueError, f"{tmp_path / 'sweep.json'}: energy must be a table's name, a .json or .yaml file of one, or None, not '8nm'; did you mean '7nm'?"):
        read_sweep(tmp_path / "sweep.json")


def test_a_model_is_identified_by_what_it_holds_now() -> None:
    """Its identifier is kept, but not beyond a change of nodes, constants or what can be written to."""
    model = Model(
        [Node(MatMulInteger(), ("x", "w"), "y")],
        inputs={"x": ((None, 4), "int8")},
        constants={"w": np.arange(8, dtype=np.int8).reshape(4, 2)},
    )
    first = _model_id(model)
    assert _model_id(model) == first == _model_id(copy.deepcopy(model))
    model.constants["w"].flags.writeable = True
    model.constants["w"][0, 0] = 99
    second = _model_id(model)
    assert second != first
    model.constants["w"] = np.zeros((4, 2), np.int8)
    assert _model_id(model) not in (first, second)
    model.constants["v"] = model.constants.pop("w")
    model.nodes = (Node(MatMulInteger(), ("x", "v"), "y"),)
    assert len({first, second, _model_id(model)}) == 3
