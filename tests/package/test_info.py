"""What an installation says about itself."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import numpy as np
import pytest

import systolic
from systolic import _core, _kernels, info, presets


def test_values() -> None:
    values = info.info()
    assert json.loads(json.dumps(values)) == values
    assert values["systolic"] == systolic.__version__
    assert (values["python"], values["numpy"]) == (platform.python_version(), np.__version__)
    assert values["kernel"] == _kernels.instruction_set in _kernels.instruction_sets
    assert values["instruction_sets"] == list(_kernels.instruction_sets)
    assert set(values["environment"]) == {"SYSTOLIC_ISA"}
    assert values["kernel_lanes"] == _core.lanes
    assert values["presets"] == list(presets.names()) and values["threads"] >= 1
    assert values["cpu"]
    assert set(values["optional"]) == set(info.OPTIONAL) >= {"onnx", "onnxruntime", "matplotlib", "pandas"}


def test_absent_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(info, "OPTIONAL", ("no-such-package-of-ours",))
    assert info.info()["optional"] == {"no-such-package-of-ours": None}
    assert "no-such-package-of-ours absent" in info.text(info.info())


def test_threads_are_those_set() -> None:
    systolic.set_threads(3)
    try:
        assert info.info()["threads"] == 3
    finally:
        systolic.set_threads(None)


def test_show_config(capsys: pytest.CaptureFixture[str]) -> None:
    systolic.show_config()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"systolic {systolic.__version__}"
    shown = dict(line.split(maxsplit=1) for line in lines[1:])
    assert shown["kernel"] == f"{_kernels.instruction_set} in use, of {', '.join(_kernels.instruction_sets)}"
    assert shown["presets"] == ", ".join(systolic.presets.names()) and shown["python"]


def test_cpu_name_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def read_text(self: object) -> str:
        raise OSError

    monkeypatch.setattr(info.Path, "read_text", read_text)
    assert info.cpu_name() == (platform.processor() or platform.machine())


def test_the_variable_that_chose_the_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SYSTOLIC_ISA", raising=False)
    assert info.info()["environment"] == {"SYSTOLIC_ISA": None}
    assert "SYSTOLIC_ISA not set" in info.text(info.info())
    monkeypatch.setenv("SYSTOLIC_ISA", "baseline")
    assert info.info()["environment"] == {"SYSTOLIC_ISA": "baseline"}
    assert "SYSTOLIC_ISA=baseline" in info.text(info.info())


@pytest.mark.slow
@pytest.mark.parametrize("name", _kernels.instruction_sets)
def test_a_forced_instruction_set_is_the_one_in_use(name: str) -> None:
    command = [sys.executable, "-m", "systolic", "info"]
    done = subprocess.run(
        command, env=os.environ | {"SYSTOLIC_ISA": name}, capture_output=True, text=True, check=True
    )
    shown = dict(line.split(maxsplit=1) for line in done.stdout.splitlines()[1:])
    assert shown["kernel"].startswith(f"{name} in use, of ")
    assert shown["environment"] == f"SYSTOLIC_ISA={name}"
