"""The README's examples run, and its claims about commands and extras hold."""

import doctest
import re
import tomllib
from pathlib import Path

import pytest
import resnet50

import systolic
from systolic import cli
from systolic.machine import time_program

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_examples_run():
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    assert len(blocks) >= 3
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, "README.md", "README.md", 0)
    failures = []
    runner = doctest.DocTestRunner()
    runner.run(test, out=failures.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(failures)


@pytest.mark.parametrize("command", ["run", "verify", "gemm", "view", "bench", "info"])
def test_commands_and_their_options_exist(command, capsys):
    (line,) = re.findall(rf"^systolic {command}\b(.*)$", README, flags=re.M)
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for option in re.findall(r"--[a-z]+", line):
        assert option in text


def test_extras_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    (sentence,) = re.findall(r"Extras: (.*?)\. Supported", README, flags=re.S)
    for name in re.findall(r"`([a-z]+)` ?(?:\(|,|\.)", sentence):
        assert name in extras


def test_linked_files_exist():
    for target in [*re.findall(r"\]\(([^)]+)\)", README), "examples/worked_example.ipynb"]:
        assert (ROOT / target).exists(), target


def test_it_fits_a_few_screens():
    assert README.count("\n") < 150


@pytest.mark.slow
def test_the_network_in_the_pictures_has_the_cycles_of_the_text(tmp_path):
    # Of what docs/draw_readme.py draws.
    network = systolic.load_onnx(resnet50.write(tmp_path, 224)["int8"])
    machine = systolic.presets.TPU_V1
    stats = time_program(systolic.compile(network, machine=machine, weights=False), machine).stats
    share = round(100 * stats.weight_stall_cycles / stats.cycles)
    assert f"waits for weights in {share} percent of its {stats.cycles:,} cycles" in README
