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

icarus.need_icarus()

README = (icarus.EXAMPLE / "README.md").read_text(encoding="utf-8")
RNG = np.random.default_rng(8)


@pytest.fixture
def cocotb() -> None:
    icarus.need("cocotb", 'pip install "systolic[rtl]"')


@pytest.fixture
def wrong_design(tmp_path_factory) -> Path:
    """The twin with one line of pe.sv changed."""
    (mutant,) = (mutant for mutant in MUTANTS if mutant.name == "swap one beat late")
    assert mutant.file == "pe.sv"
    folder = tmp_path_factory.mktemp("wrong") / "design"
    mutant.plant(folder)
    return folder


def test_scoreboard(cocotb, tmp_path):
    done = icarus.run_example("scoreboard", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "TESTS=1 PASS=1 FAIL=0" in done.stdout
    (compared,) = re.findall(r"(\d+) register values compared", done.stdout)
    config = ArrayConfig(4, 3)
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


def test_vectors_of_its_own(tmp_path):
    done = icarus.run_example("vectors", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-2:] == ["138 psums compared", "PASS"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("x_dtype", ["int8", "uint8"])
@pytest.mark.parametrize("w_dtype", ["int8", "uint8"])
@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (1, 4), (5, 2)])
def test_vectors_of_the_command(tmp_path, capsys, x_dtype, w_dtype, rows, cols):
    for name, shape, dtype in (("x", (4, 7), x_dtype), ("w", (7, 3), w_dtype)):
        info = np.iinfo(dtype)
        np.save(tmp_path / f"{name}.npy", RNG.integers(info.min, info.max, shape, dtype=dtype, endpoint=True))
    files = [str(tmp_path / name) for name in ("x.npy", "w.npy")]
    sizes = ["--rows", str(rows), "--cols", str(cols)]
    assert cli.main(["vectors", *files, "--out", str(tmp_path / "some vectors"), *sizes]) == 0
    capsys.readouterr()
    done = icarus.run_example("vectors", "some vectors", "--vcd", "rtl.vcd", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = len((tmp_path / "some vectors" / "bottom_psum.mem").read_text().split())
    assert done.stdout.splitlines()[-2:] == [f"{lines * cols} psums compared", "PASS"]
    assert (tmp_path / "rtl.vcd").read_text().startswith("$date")


def test_vectors_see_a_bug(tmp_path, wrong_design):
    done = icarus.run_example("vectors", "--design", wrong_design, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("column 0 after the edge of cycle 7: psum 0, expected ")
    end = lines.index("FAIL")
    assert "\n".join([lines[0], "...", *lines[end - 1 : end + 1]]) in README
    assert "PASS" not in done.stdout


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
    for arguments, message in [
        (("scoreboard", "--design", "nowhere"), "there is no "),
        (("vectors", "nowhere"), f"there is no {Path('nowhere', 'manifest.json')}"),
        (("scoreboard", "--vcd", "a.vcd"), "FOLDER and --vcd go with vectors"),
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
    assert twin.lint("replay", [str(icarus.EXAMPLE / "replay.sv"), "pe.sv", "systolic_array.sv"]) == ""


def test_readme_names_what_is_there():
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert (icarus.EXAMPLE / link).exists(), link
    files = {path.name for path in icarus.EXAMPLE.iterdir() if path.is_file()} - {"README.md"}
    assert files == {"run.py", "testbench.py", "replay.sv"}
    assert all(f"({name})" in README for name in files)
    for line in re.findall(r"^python examples/rtl/run.py (\w+)", README, flags=re.M):
        assert line in ("scoreboard", "vectors")
