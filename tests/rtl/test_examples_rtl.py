"""``examples/rtl`` runs from any folder, passes on the twin, and fails on a design with a bug."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from support.rtl import icarus, twin
from support.rtl.mutants import MUTANTS
from systolic import ArrayConfig, cli, ports, write_vectors
from systolic.dataflows import DATAFLOWS

icarus.need_icarus()

README = (icarus.EXAMPLE / "README.md").read_text(encoding="utf-8")
RNG = np.random.default_rng(8)


@pytest.fixture
def cocotb() -> None:
    icarus.need("cocotb", 'pip install "systolic[rtl]"')


def planted(name: str, folder: Path) -> Path:
    """Make a copy of the RTL with a bug."""
    (mutant,) = (mutant for mutant in MUTANTS if mutant.name == name)
    mutant.plant(folder)
    return folder


@pytest.fixture
def wrong_design(tmp_path_factory) -> Path:
    """The twin with one line of pe.sv changed."""
    return planted("swap one beat late", tmp_path_factory.mktemp("wrong") / "design")


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_scoreboard(cocotb, tmp_path, dataflow):
    done = icarus.run_example("scoreboard", "--dataflow", dataflow, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "TESTS=1 PASS=1 FAIL=0" in done.stdout
    (compared,) = re.findall(r"(\d+) register values compared", done.stdout)
    config = ArrayConfig(4, 3, dataflow=dataflow)
    edges = sum(1 for _ in ports(np.zeros((9, 6), np.uint8), np.zeros((6, 5), np.int8), array=config))
    assert int(compared) == 7 * config.rows * config.cols * edges
    assert list(tmp_path.iterdir()) == []


def test_scoreboard_names_a_bug(cocotb, tmp_path, wrong_design):
    done = icarus.run_example("scoreboard", "--design", wrong_design, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "TESTS=1 PASS=0 FAIL=1" in done.stdout
    (said,) = re.findall(r"ScoreboardError: .*", done.stdout)
    assert said.startswith("ScoreboardError: weight of PE (0, 0) after the edge of cycle 4 is 0 in the RTL, ")
    assert f"\n{said}\n" in README
    # Of the whole product, the usual mistake.
    lines = [line.strip() for line in done.stdout.splitlines()]
    first = next(i for i, line in enumerate(lines) if line.startswith("weight of PE (0, 0) for m 0, n 0, k 0, "))
    assert lines[first + 2] == "swap late: by one beat"
    assert f"\n{lines[first]}\n...\n{lines[first + 2]}\n...\n" in README


def test_scoreboard_names_a_bug_of_an_output_stationary_array(cocotb, tmp_path):
    design = planted("output: swap one beat late", tmp_path / "design")
    done = icarus.run_example("scoreboard", "--dataflow", "output_stationary", "--design", design, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "TESTS=1 PASS=0 FAIL=1" in done.stdout
    (said,) = re.findall(r"ScoreboardError: .*", done.stdout)
    # The first swap finds zeros; the one that ends the first fold comes with the seventh operand.
    assert re.match(r"ScoreboardError: (acc|out) of PE \(0, 0\) after the edge of cycle \d is ", said), said


@pytest.mark.parametrize(("dataflow", "compared"), [*zip(DATAFLOWS, (138, 138, 120), strict=True)])
def test_vectors_of_its_own(tmp_path, dataflow, compared):
    done = icarus.run_example("vectors", "--dataflow", dataflow, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-2:] == [f"{compared} sums compared", "PASS"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("x_dtype", ["int8", "uint8"])
@pytest.mark.parametrize("w_dtype", ["int8", "uint8"])
@pytest.mark.parametrize(
    ("dataflow", "rows", "cols"),
    [
        *(("weight_stationary", *size) for size in ((1, 1), (1, 4), (5, 2))),
        *(("output_stationary", *size) for size in ((1, 4), (5, 2))),
        ("input_stationary", 5, 2),
    ],
)
def test_vectors_of_the_command(tmp_path, capsys, x_dtype, w_dtype, dataflow, rows, cols):
    for name, shape, dtype in (("x", (4, 7), x_dtype), ("w", (7, 3), w_dtype)):
        info = np.iinfo(dtype)
        np.save(tmp_path / f"{name}.npy", RNG.integers(info.min, info.max, shape, dtype=dtype, endpoint=True))
    files = [str(tmp_path / name) for name in ("x.npy", "w.npy")]
    sizes = ["--rows", str(rows), "--cols", str(cols), "--dataflow", dataflow]
    assert cli.main(["vectors", *files, "--out", str(tmp_path / "some vectors"), *sizes]) == 0
    capsys.readouterr()
    done = icarus.run_example("vectors", "some vectors", "--vcd", "rtl.vcd", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (bottom,) = (tmp_path / "some vectors").glob("bottom_*.mem")
    lines = len(bottom.read_text().split())
    assert done.stdout.splitlines()[-2:] == [f"{lines * cols} sums compared", "PASS"]
    assert (tmp_path / "rtl.vcd").read_text().startswith("$date")


def test_vectors_see_a_bug(tmp_path, wrong_design):
    done = icarus.run_example("vectors", "--design", wrong_design, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("column 0 after the edge of cycle 7: psum 0, expected ")
    end = lines.index("FAIL")
    assert "\n".join([lines[0], "...", *lines[end - 1 : end + 1]]) in README
    assert "PASS" not in done.stdout


def test_vectors_see_a_bug_of_an_output_stationary_array(tmp_path):
    design = planted("output: swap one beat late", tmp_path / "design")
    done = icarus.run_example("vectors", "--dataflow", "output_stationary", "--design", design, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.match(r"column 0 after the edge of cycle \d+: out -?\d+, expected ", done.stdout)
    assert "\nFAIL\n" in done.stdout and "PASS" not in done.stdout


FILES = ("west_activation", "west_shift", "west_swap", "north_weight", "north_psum", "bottom_psum")


@pytest.mark.parametrize(
    ("file", "how"),
    [
        *((f"{name}.mem", "cut") for name in FILES),
        ("*.mem", "missing"),
        *((f"{name}.mem", "one bit") for name in ("west_shift", "north_weight", "north_psum", "bottom_psum")),
    ],
)
def test_spoiled_vectors_do_not_pass(tmp_path, file, how):
    write_vectors(np.int8([[1], [3]]), np.int8([[7]]), tmp_path / "vectors", array=ArrayConfig(1, 1))
    for path in (tmp_path / "vectors").glob(file):
        words = path.read_text().split()
        if how == "missing":
            path.unlink()
        elif how == "cut":
            path.write_text("\n".join(words[:1]) + "\n")
        else:
            words[0] = words[0][:-1] + f"{int(words[0][-1], 16) ^ 1:x}"
            path.write_text("\n".join(words) + "\n")
    done = icarus.run_example("vectors", "vectors", cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "\nFAIL\n" in done.stdout and "PASS" not in done.stdout
    lost = re.search(r"^line (\d) of the vectors is missing or no number$", done.stdout, flags=re.M)
    assert (lost and lost[1]) == {"missing": "0", "cut": "1", "one bit": None}[how]


def test_what_cannot_run_is_no_verdict(tmp_path, cocotb):
    (tmp_path / "bad").mkdir()
    for name in ("pe.sv", "systolic_array.sv"):
        shutil.copy(twin.SOURCES / name, tmp_path / "bad")
    (tmp_path / "bad" / "pe.sv").write_text("module pe(;\n")
    held = ArrayConfig(1, 1, dataflow="output_stationary")
    write_vectors(np.int8([[1]]), np.int8([[7]]), tmp_path / "held", array=held)
    write_vectors(np.int16([[1]]), np.int8([[7]]), tmp_path / "wide", array=ArrayConfig(1, 1))
    for arguments, message in [
        (("scoreboard", "--design", "nowhere"), "there is no "),
        (("vectors", "nowhere"), f"there is no {Path('nowhere', 'manifest.json')}"),
        (("scoreboard", "--vcd", "a.vcd"), "FOLDER and --vcd go with vectors"),
        (("vectors", "--dataflow", "output_stationary", "--design", "bad"), "there is no "),
        (("vectors", "held", "--dataflow", "weight_stationary"), "the vectors are output_stationary; leave out"),
        (("vectors", "wide"), "the RTL multiplies int8 and uint8, but the vectors are int16 x int8"),
        (("vectors", "--design", "bad"), "syntax error"),
        (("scoreboard", "--design", "bad"), "syntax error"),
    ]:
        done = icarus.run_example(*arguments, cwd=tmp_path)
        assert done.returncode == 2, arguments
        assert message in done.stderr, done.stderr
        assert "PASS" not in done.stdout and "FAIL" not in done.stdout


def test_replay_is_lint_clean():
    if (reason := twin.missing()) is not None:
        if icarus.REQUIRED:
            raise RuntimeError(f"SYSTOLIC_REQUIRE_RTL=1, but {reason}: {twin.INSTALL}")
        pytest.skip(f"{reason}; to lint the RTL: {twin.INSTALL}")
    replay = "replay.sv"
    assert twin.lint("replay", [replay, "pe.sv", "systolic_array.sv"]) == ""
    held = [replay, "output_pe.sv", "output_array.sv"]
    assert twin.lint("replay", held, "+define+OUTPUT_STATIONARY") == ""


def test_readme_names_what_is_there():
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert (icarus.EXAMPLE / link).exists(), link
    files = {path.name for path in icarus.EXAMPLE.iterdir() if path.is_file()} - {"README.md"}
    assert files == {"run.py", "testbench.py"}
    assert all(f"({name})" in README for name in files)
    for line in re.findall(r"^python examples/rtl/run.py (\w+)", README, flags=re.M):
        assert line in ("scoreboard", "vectors")
