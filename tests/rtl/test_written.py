"""What `systolic rtl` writes: its bench passes under both simulators and on Yosys' gates, and sees bugs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from support.rtl import icarus, twin
from support.rtl.mutants import MUTANTS
from systolic import ArrayConfig, cli, write_vectors
from systolic.dataflows import DATAFLOWS
from systolic.rtl import DESIGN, write_rtl

icarus.need_icarus()

CONFIGS = [
    ArrayConfig(2, 3, accumulator_rows=8),
    ArrayConfig(3, 2, dataflow="output_stationary", activation_dtype="uint8"),
    ArrayConfig(1, 2, dataflow="input_stationary", weight_dtype="uint8", accumulator_rows=5, double_buffered=False),
]


def need(*tools: str) -> None:
    absent = [tool for tool in tools if shutil.which(tool) is None]
    if absent:
        if icarus.REQUIRED:
            raise RuntimeError(f"SYSTOLIC_REQUIRE_RTL=1, but there is no {', '.join(absent)}")
        pytest.skip(f"no {', '.join(absent)}; to run what systolic rtl writes: apt-get install {' '.join(absent)}")


def make(folder: Path, *targets: str, status: int = 0) -> str:
    # A make around the tests must not pass its flags on.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        ["make", *targets], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(params=CONFIGS, ids=[config.dataflow for config in CONFIGS])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, ArrayConfig]:
    need("make")
    write_rtl(request.param, tmp_path / "rtl")
    return tmp_path / "rtl", request.param


def test_bench_passes(written: tuple[Path, ArrayConfig], tmp_path: Path) -> None:
    folder, config = written
    assert re.search(r"\d+ sums compared, \d+ cycles, \d+ folds\nPASS\n", make(folder, "icarus", "VCD=a.vcd"))
    assert (folder / "a.vcd").read_text().startswith("$date")
    rng = np.random.default_rng(1)
    x = rng.integers(0, 100, (3, 4)).astype(config.activation_dtype)
    w = rng.integers(0, 100, (4, 5)).astype(config.weight_dtype)
    write_vectors(x, w, tmp_path / "other vectors", array=config)
    assert "PASS" in make(folder, "replay", "VECTORS=../other vectors")
    assert "name a folder of vectors" in make(folder, "replay", "VECTORS=no", status=2)


def test_lint(written: tuple[Path, ArrayConfig]) -> None:
    need("verilator")
    assert "%" not in make(written[0], "lint")


def test_gates(written: tuple[Path, ArrayConfig]) -> None:
    """Yosys synthesizes the design without latches, and its gates pass the bench."""
    need("yosys")
    if written[1].dataflow_record.exchanged:
        return  # the files are those of the weight-stationary array
    assert "PASS" in make(written[0], "gates")
    netlist = (written[0] / "build" / "netlist.v").read_text()
    assert "always @(posedge clk" in netlist and "always_latch" not in netlist


def test_latches_are_refused(tmp_path: Path) -> None:
    need("make", "yosys")
    write_rtl(ArrayConfig(1, 1, accumulator_rows=2), tmp_path / "rtl")
    path = tmp_path / "rtl" / "design" / "pe.sv"
    text = path.read_text().replace(
        "    logic [7:0] next_weight;\n",
        "    logic [7:0] next_weight;\n    logic [31:0] kept;\n    always @* if (arriving_swap) kept = psum;\n",
    )
    path.write_text(text.replace("psum       <= arriving_psum +", "psum       <= kept + arriving_psum +"))
    assert "Assertion failed: selection is not empty" in make(tmp_path / "rtl", "yosys", status=2)


def test_default_target_runs_verilator_too(tmp_path: Path) -> None:
    if (reason := twin.missing()) is not None:
        if icarus.REQUIRED:
            raise RuntimeError(f"SYSTOLIC_REQUIRE_RTL=1, but {reason}")
        pytest.skip(reason)
    write_rtl(CONFIGS[0], tmp_path / "rtl")
    assert make(tmp_path / "rtl").count("\nPASS\n") == 2


@pytest.mark.parametrize(
    "name",
    [
        "swap one beat late", "one half only", "the first k tile adds too", "cycles count one too few",
        "activation unsigned for signed", "output: swap one beat late", "output: one drain beat too few",
    ],
)  # fmt: skip
def test_bench_sees_a_bug(tmp_path: Path, name: str) -> None:
    need("make")
    mutant = next(mutant for mutant in MUTANTS if mutant.name == name)
    folder = tmp_path / "rtl"
    write_rtl(mutant.config, folder)
    path = folder / "design" / mutant.file
    text = path.read_text()
    assert text.count(mutant.old) == 1
    path.write_text(text.replace(mutant.old, mutant.new))
    said = make(folder, "icarus", status=2)
    assert re.search(r"\d+ differences in \d+ sums\nFAIL", said) and "PASS" not in said


@pytest.mark.parametrize("name", ["x", "folds", "sums", "written"])
def test_spoiled_files_do_not_pass(tmp_path: Path, name: str) -> None:
    need("make")
    write_rtl(CONFIGS[0], tmp_path / "rtl")
    (tmp_path / "rtl" / "product" / f"{name}.mem").unlink()
    assert "FAIL" in make(tmp_path / "rtl", "icarus", status=2)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], dataflow: str) -> None:
    monkeypatch.chdir(tmp_path)
    short = {"weight_stationary": "ws", "output_stationary": "os", "input_stationary": "is"}[dataflow]
    words = ["rtl", "--rows", "2", "--cols", "3", "--dataflow", short, "--weight-dtype", "uint8", "--out", "model"]
    assert cli.main(words) == 0
    assert "2 x 3 PEs" in capsys.readouterr().out
    config = ArrayConfig(2, 3, dataflow=dataflow, weight_dtype="uint8", accumulator_rows=32)
    write_rtl(config, "again")
    inside = [path.relative_to("model") for path in Path("model").rglob("*") if path.is_file()]
    assert {path.name for path in Path("model/design").iterdir()} == {*DESIGN[dataflow], "systolic_top.sv"}
    for path in inside:
        ours, theirs = Path("model", path).read_text(), Path("again", path).read_text()
        assert "@" not in ours or path.suffix == ".sv" or path.name == "Makefile", f"{path}: not filled in"
        assert ours == theirs or path.name in ("README.md", "manifest.json"), path
    readme = Path("model/README.md").read_text()
    for name in re.findall(r"^\| `([\w/.]+)` \|", readme, flags=re.M):
        assert Path("model", name).exists() or name in ("bottom_sums", "fold_half", "fold_first") or "." in name
    # The README's command writes the same again.
    (line,) = re.findall(r"`systolic (rtl [^`]*) --out model`", readme)
    assert cli.main([*line.split(), "--out", "third"]) == 0
    for path in inside:
        if path.name != "README.md":
            assert Path("third", path).read_bytes() == Path("model", path).read_bytes()


def test_refusals(tmp_path: Path) -> None:
    for fields, message in (
        (dict(rows=257, cols=1), "at most 256 x 256 PEs, not 257 x 1"),
        (dict(rows=2, activation_dtype="int16"), "multiplies int8 or uint8 and adds modulo 2"),
        (dict(rows=2, psum_bits=24), "sums of 24 bits that wrap"),
        (dict(rows=2, overflow="saturate"), "saturate"),
        (dict(rows=2, activation_dtype="bfloat16", weight_dtype="bfloat16"), "bfloat16 x bfloat16"),
        (dict(rows=2, accumulator_rows=None), "must be 2 to 65,536 in the RTL model, not unlimited"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            write_rtl(ArrayConfig(**fields), tmp_path / "rtl")
    (tmp_path / "there").mkdir()
    with pytest.raises(FileExistsError, match="there exists; name a folder that does not"):
        write_rtl(CONFIGS[0], tmp_path / "there")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        write_rtl(CONFIGS[0], tmp_path / "no" / "rtl")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
