"""docs/shell.md: its lines are commands, its files are read, its tables name every option there is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from systolic import ArrayConfig
from systolic.cli.parser import build_parser

PAGE = (Path(__file__).parents[2] / "docs" / "shell.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, flags=re.S | re.M)
PARSER = build_parser()


def test_the_lines_are_commands() -> None:
    lines = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
    lines = [line.partition(" > ")[0] for line in lines if line.startswith("systolic ")]
    assert len(lines) >= 8
    for line in lines:
        PARSER.parse_args(shlex.split(line)[1:])


def test_the_files_are_read(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    options, machine = [block for kind, block in BLOCKS if kind == "yaml"]
    (tmp_path / "options.yaml").write_text(options)
    (tmp_path / "machine.yaml").write_text(machine)
    found = PARSER.parse_args(["run", "m.onnx", "--config", str(tmp_path / "options.yaml")])
    assert found.array == [[ArrayConfig(128, 128)]] and found.mode == "wavefront" and found.single_buffered
    assert found.shape == [("image", (1, 3, 224, 224)), ("tokens", (1, 128))] and found.report == "costs.html"
    (made,) = PARSER.parse_args(["run", "--machine", str(tmp_path / "machine.yaml")]).machine
    assert made.array == ArrayConfig(128, accumulator_rows=2048) and made.clock_mhz == 940
    assert made.memory.weight_bytes == 2**33 and made.memory.host_bytes_per_second == 14 * 2**30


def test_the_files_that_are_written() -> None:
    table = PAGE.split("## Files that commands write\n\n")[1].split("\n\n")[0]
    listed = {
        (re.findall("`(.*?)`", row)[0], option)
        for row in table.splitlines()[2:] for option in re.findall("`(--.*?)`", row)
    }  # fmt: skip
    written = {
        (name, action.option_strings[-1])
        for name, command in PARSER.commands.items() for action in command._actions
        if getattr(action, "writes", None)
    }  # fmt: skip
    assert listed == written


def test_every_option_exists() -> None:
    known = {option for command in PARSER.commands.values() for option in command._option_string_actions}
    text = "".join(re.findall(r"`[^`\n]*`", PAGE)) + "".join(block for kind, block in BLOCKS if kind == "sh")
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))
    assert len(named) > 20 and named <= known
