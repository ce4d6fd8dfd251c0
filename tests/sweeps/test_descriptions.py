"""Sweeps as files: what the fields mean, the command, and every mistake by its place."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import systolic
from support.strategies import raises
from systolic import ArrayConfig, Gemm, MachineConfig, MemoryConfig, cli, presets, sweep
from systolic.sweeps import Grid, Sweep, Workload, description, read_sweep
from systolic.workloads.files import LAYER_FIELDS

YAML = """
models:
  - net.csv
  - {name: products, file: net.csv, form: gemm}
  - name: block
    layers:
      - {name: qkv, m: 128, k: 768, n: 768, count: 3}
      - {m: 8, k: 16, n: 24, groups: 2}
machine:
  preset: tpu-v1
  memory: null
  accumulator_rows: 2048
  clock_mhz: 940
grid:
  side: {from: 8, to: 64, times: 2}
  double_buffered: [true, false]
batch: {from: 1, to: 5, step: 2}
"""
MEMORY = {
    "weight_bytes": 2**20, "weight_bytes_per_second": "1e9", "unified_buffer_rows": 4096, "host_rows": 8192,
    "host_bytes_per_second": 10**9,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.csv").write_text("Layer, M, N, K,\nfc, 10, 20, 30,\n")
    systolic.load_example().model.save(tmp_path / "digits.zip")
    return tmp_path


def written(folder: Path, content: Any, name: str = "sweep.json") -> Path:
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder / name


def test_a_file_is_the_arguments_of_sweep(folder: Path) -> None:
    pytest.importorskip("yaml")
    found = sweep(**read_sweep(written(folder, YAML, "sweep.yaml")))
    base = MachineConfig(ArrayConfig(accumulator_rows=2048), clock_mhz=940)
    fc, block = [("fc", Gemm(10, 30, 20))], [("qkv", Gemm(128, 768, 768), 3), ("8 x 16 x 24 x 2", Gemm(8, 16, 24, groups=2))]
    wanted = sweep(
        {"net": Workload("net", fc), "products": Workload("a", fc), "block": Workload("block", block)},
        Grid(base, side=[8, 16, 32, 64], double_buffered=[True, False]),
        batch=[1, 3, 5],
    )
    assert found == wanted and len(found) == 3 * 8 * 3


def test_json_and_yaml_say_the_same(folder: Path) -> None:
    yaml = pytest.importorskip("yaml")
    read = [read_sweep(written(folder, content, name)) for content, name in ((YAML, "a.yml"), (yaml.safe_load(YAML), "a.json"))]
    assert sweep(**read[0]) == sweep(**read[1])


def test_machines_with_memories(folder: Path) -> None:
    content = {
        "models": "digits.zip",
        "machine": {"rows": 16, "cols": 16, "memory": MEMORY},
        "grid": {"weight_bytes_per_second": [10**9, "100/3"]},
        "mapping": ["taps", None],
    }
    found = sweep(**read_sweep(written(folder, content)))
    machine = MachineConfig(ArrayConfig(16, 16), memory=MemoryConfig.from_dict(MEMORY))
    grid = Grid(machine, weight_bytes_per_second=[10**9, "100/3"])
    assert found == sweep({"digits": systolic.load_example().model}, grid, mapping=["taps", None])


def test_the_default_machine_is_ideal(folder: Path) -> None:
    read = read_sweep(written(folder, {"models": "net.csv"}))
    assert list(read["machines"]) == [MachineConfig()] and read["batch"] == 1 and read["mapping"] is None
    preset = read_sweep(written(folder, {"models": "net.csv", "machine": {"preset": "tpu-v1"}}))["machines"]
    assert list(preset) == [presets.TPU_V1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "a sweep must be fields with values, not list []"),
        ({}, "a sweep needs models, a list of files or of products"),
        ({"model": 1}, "a sweep has no field 'model'; did you mean 'models'?"),
        ({"xyzzy": 1}, "a sweep has no field 'xyzzy'; known are models, machine, grid, batch, mapping"),
        ({"models": [5]}, "models[0]: a model must be fields with values, not int 5"),
        ({"models": [{"fil": "net.csv"}]}, "models[0]: a model has no field 'fil'; did you mean 'file'?"),
        ({"models": [{"name": "a"}]}, "models[0]: a model has either a file or layers"),
        ({"models": [{"layers": []}]}, "models[0]: a model of layers needs a name"),
        ({"models": [{"name": "a", "layers": []}]}, "workload 'a' has no layers"),
        ({"models": [{"file": 5}]}, "models[0]: file must be the name of a file, not int 5"),
        ({"models": [{"file": "net.csv", "form": "mnk"}]}, "models[0]: form must be one of 'conv', 'gemm', not 'mnk'"),
        ({"models": ["net.csv", "net.csv"]}, "models[1]: two models are named 'net'; give one a name"),
        ({"models": [{"name": "a", "layers": [{"m": 1, "K": 2, "n": 3}]}]}, "layers[0]: a layer has no field 'K'; "),
        ({"models": [{"name": "a", "layers": [{"m": 1}]}]}, "layers[0]: a layer needs m, k and n; k, n missing"),
        ({"models": [{"name": "a", "layers": [{"m": 1, "k": -2, "n": 3}]}]}, "layers[0]: k must be a non-negative integer, not -2"),
        ({"models": [{"name": "a", "layers": [{"m": 1, "k": 2, "n": 3, "count": 0}]}]}, "layers[0]: count must be a positive integer, not 0"),
        ({"models": "net.csv", "machine": {"clock": 700}}, "machine: a machine has no field 'clock'; did you mean 'clock_mhz'?"),
        ({"models": "net.csv", "machine": {"clock_mhz": "700 MHz"}}, "machine: clock_mhz must be a number, not str '700 MHz'"),
        ({"models": "net.csv", "machine": {"preset": "tpu"}}, "machine: preset must be one of 'tpu-v1'"),
        ({"models": "net.csv", "machine": {"rows": 0}}, "machine: rows must be a positive integer, not 0"),
        ({"models": "net.csv", "machine": {"memory": {"weight_byte": 1}}}, "machine: memory: a memory has no field 'weight_byte'; did you mean 'weight_bytes'?"),
        ({"models": "net.csv", "machine": {"memory": {"weight_bytes": 1}}}, "machine: memory: missing 4 required keyword-only arguments: 'weight_bytes_per_second', "),
        ({"models": "net.csv", "machine": {"memory": MEMORY | {"weight_bytes_per_second": "34 GB/s"}}}, "weight_bytes_per_second must be a number, such as 34_000_000_000"),
        ({"models": "net.csv", "grid": {"row": [1]}}, "grid: a grid has no field 'row'; did you mean 'rows'?"),
        ({"models": "net.csv", "grid": {"rows": [0]}}, "axis 'rows' of the grid: rows must be a positive integer, not 0"),
        ({"models": "net.csv", "grid": {"fifo_tiles": [4]}}, "axis 'fifo_tiles' of the grid is a field of the memories, and base has none"),
        ({"models": "net.csv", "grid": {"rows": {"from": 1, "to": 5}}}, "grid: rows: a range has from, to, and either step or times"),
        ({"models": "net.csv", "grid": {"rows": {"from": 1, "to": 5, "stop": 1}}}, "grid: rows: a range has no field 'stop'; did you mean 'step'?"),
        ({"models": "net.csv", "grid": {"rows": {"from": 5, "to": 1, "step": 1}}}, "a range runs from a smaller number up, not from 5 to 1"),
        ({"models": "net.csv", "grid": {"rows": {"from": 0, "to": 8, "times": 2}}}, "a range runs from a smaller number up, not from 0 to 8"),
        ({"models": "net.csv", "grid": {"rows": {"from": 1, "to": 8, "times": 1}}}, "the step must be an integer of at least 2, not 1"),
        ({"models": "net.csv", "grid": {"rows": {"from": 1, "to": 2**60, "step": 1}}}, "the range has 1,152,921,504,606,846,976 values; use a larger step"),
        ({"models": "net.csv", "grid": {"rows": {"from": 1.5, "to": 2, "step": 1}}}, "grid: rows: from must be an integer, not float 1.5"),
        ('{"models": "net.csv", "models": "net.csv"}', "cannot be read: the field 'models' is there twice"),
        ("{", "cannot be read: "),
        ("[" * 100_000, "cannot be read: "),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_their_place(folder: Path, content: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as failed:
        read_sweep(written(folder, content))
    assert message in str(failed.value)
    assert "sweep.json" in str(failed.value) or "workload" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("models: net.csv\nmodels: net.csv\n", "the field 'models' is there twice"),
        ("models: &a net.csv\nbatch: *a\n", "line 2: aliases are not taken"),
        ("models: {? [a] : b}\n", "line 1: a field's name must be text"),
        ("models: [\n", "while parsing"),
        ("!!python/object/apply:os.system [ls]\n", "could not determine a constructor"),
        ("", "a sweep must be fields with values, not NoneType None"),
    ],
)  # fmt: skip
def test_mistakes_of_yaml(folder: Path, content: str, message: str) -> None:
    pytest.importorskip("yaml")
    with pytest.raises((TypeError, ValueError)) as failed:
        read_sweep(written(folder, content, "sweep.yaml"))
    assert message in str(failed.value) and "sweep.yaml" in str(failed.value)


def test_what_is_no_description(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with raises(ValueError, f"{folder / 'net.csv'}: a sweep is a .json, .yaml or .yml file"):
        read_sweep(folder / "net.csv")
    with pytest.raises(FileNotFoundError):
        read_sweep(folder / "nowhere.json")
    monkeypatch.setitem(sys.modules, "yaml", None)
    with raises(ImportError, 'a sweep in YAML needs PyYAML: pip install "systolic[sweep]"; one in JSON needs nothing'):
        read_sweep(written(folder, YAML, "sweep.yaml"))


def test_every_field_of_the_page_is_known() -> None:
    page = Path(__file__).parents[2] / "docs" / "sweeps.md"
    if not page.exists():
        pytest.skip("reads the sources")
    text = page.read_text(encoding="utf-8")
    for name in (*description.FIELDS, *description.MODEL_FIELDS, *LAYER_FIELDS, *description.RANGE_FIELDS, "preset"):
        assert f"`{name}`" in text, name


# The command

SMALL = {"models": "net.csv", "grid": {"side": [8, 16, 32]}}


def test_the_command_computes_and_resumes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = str(written(folder, SMALL)), str(folder / "rows.csv")
    assert cli.main(["sweep", file, "--out", out]) == 0
    printed = capsys.readouterr()
    assert "sweep of 3 rows: 100.0%" in printed.err and f"{out}: the rows" in printed.out
    assert "Sweep of 3 rows: 1 model, 3 machines" in printed.out
    assert Sweep.read(out) == sweep(**read_sweep(file))
    assert cli.main(["sweep", file, "--out", out, "--json", "--quiet"]) == 0
    printed = capsys.readouterr()
    values = json.loads(printed.out)
    assert printed.err == "" and values["schema"] == 1 and values["rows"] == Sweep.read(out).to_dicts()


def test_the_command_refuses_what_it_cannot_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(written(folder, SMALL))
    for arguments, message in (
        ([file, "--limit", "2"], "the sweep has 3 rows"),
        ([file, "--out", "rows.txt"], "out must be the name of a .csv or .parquet file, not 'rows.txt'"),
        ([str(folder / "nowhere.yaml")], "nowhere.yaml"),
        ([str(written(folder, {"model": 1}, "bad.json"))], "did you mean 'models'?"),
    ):
        assert cli.main(["sweep", *arguments]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.exhaustive
def test_the_command_with_two_processes(folder: Path) -> None:
    content = SMALL | {"models": ["digits.zip"], "machine": {"memory": MEMORY}, "grid": {"unified_buffer_rows": [1, 4096]}}
    file, out = str(written(folder, content)), folder / "rows.csv"
    done = subprocess.run(
        [sys.executable, "-m", "systolic", "sweep", file, "--out", str(out), "--workers", "2", "--quiet"],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(Path(systolic.__file__).parents[1])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert set(Sweep.read(out)) == set(sweep(**read_sweep(file)))
    assert "note: <SweepRow digits" in done.stderr


KILLED = """
import os, time
from systolic.cli.sweep_command import _processes
if __name__ == "__main__":
    with _processes(2) as executor:
        busy = executor.submit(time.sleep, 60)
        print(executor.submit(os.getpid).result(), *executor._processes, flush=True)
        time.sleep(60)
"""


def runs(process: int) -> bool:
    """Whether a process exists and has not ended; Linux only."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_processes_end_when_the_command_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    root = str(Path(systolic.__file__).parents[1])
    command = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": root}
    )
    assert command.stdout is not None
    idle, *workers = map(int, command.stdout.readline().split())
    try:
        assert len(workers) == 2 and idle in workers and all(map(runs, workers))
        command.kill()
        command.wait()
        deadline = time.monotonic() + 30
        while any(map(runs, workers)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not any(map(runs, workers))
    finally:
        command.stdout.close()
        for worker in filter(runs, workers):
            os.kill(worker, signal.SIGKILL)
