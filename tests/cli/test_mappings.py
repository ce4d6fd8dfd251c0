"""--mapping of run, summary and compile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import systolic
from systolic import ArrayConfig, Model, QuantParams
from systolic.cli import main
from systolic.layers import DepthwiseConv2d, QLinearConv
from systolic.verifier import ModelCheck, compare

ONE = QuantParams(1.0)
NET = Model(
    [DepthwiseConv2d(np.ones((8, 1, 3, 3), np.int8), x=ONE, w=ONE, y=ONE)], inputs={"x": ((None, 8, 6, 6), "int8")}
)
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def model(tmp_path: Path) -> str:
    NET.save(tmp_path / "net.zip")
    return str(tmp_path / "net.zip")


def values(capsys: Capture, *arguments: str, status: int = 0) -> Any:
    assert main([*arguments, "--json"]) == status
    return json.loads(capsys.readouterr().out)


def test_run(model: str, capsys: Capture) -> None:
    arguments = ("run", model, "--array", "16x16", "--mode", "wavefront", "--quiet")
    plain = values(capsys, *arguments)
    mapped = values(capsys, *arguments, "--mapping", "pack")
    assert mapped["stats"] == systolic.estimate(NET, machine=ArrayConfig(16, 16), batch=2, mapping="pack").to_dict()
    assert mapped["stats"]["cycles"] < plain["stats"]["cycles"]
    assert mapped["layers"][0]["gemm"]["pack"] == 8 and mapped["verdict"]["numpy"]["passed"]
    for mapping in ("im2col", "taps", "pack", "best"):  # as a program
        found = values(capsys, "run", model, "--mode", "wavefront", "--quiet", "--mapping", mapping)
        assert found["verdict"]["numpy"]["passed"] and found["verdict"]["program"]["passed"]
    assert main([*arguments, "--mapping", "pack"]) == 0 and " pack " in capsys.readouterr().out


def test_an_error_is_found_in_the_mapping_that_ran(
    model: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def wrong(case: str, node: Any, *arguments: Any) -> Any:
        seen.append(arguments[-1])
        return compare.Mismatch(case=case, stage="array"), 0.0

    monkeypatch.setattr("systolic.verifier.check.compare_layer", wrong)
    found = values(
        capsys, "run", model, "--array", "16x16", "--mode", "wavefront", "--quiet", "--mapping", "taps", status=1
    )
    assert seen == ["taps"] and found["mismatches"][0]["reproduce"].endswith("--mode wavefront --mapping taps")
    assert ModelCheck(systolic.MachineConfig(), "cycle").mapping == {}


def test_summary(model: str, capsys: Capture) -> None:
    for mapping in ("taps", "best"):
        found = values(capsys, "summary", model, "--array", "16x16", "--mapping", mapping)
        assert found["totals"]["cycles"] == systolic.estimate(NET, machine=ArrayConfig(16, 16), mapping=mapping).cycles
    assert found["nodes"][0]["mapping"] == "pack"
    assert main(["summary", model, "--array", "16x16", "--mapping", "pack"]) == 0
    assert " pack " in capsys.readouterr().out


def test_compile(model: str, tmp_path: Path, capsys: Capture) -> None:
    for mapping in ("pack", "best"):
        found = values(capsys, "compile", model, "--mapping", mapping)
        assert found["stats"] == systolic.estimate(NET, mapping=mapping).to_dict()
    program = str(tmp_path / "p.zip")
    assert main(["compile", model, "-o", program]) == 0
    assert main(["run", program, "--mapping", "taps"]) == 2
    assert "--mapping would have no effect: it is of a model, and MODEL is a program: give it to systolic compile" in capsys.readouterr().err


def test_names_are_checked(model: str, capsys: Capture) -> None:
    conv = Model([QLinearConv(np.ones((1, 1, 3, 3), np.int8), x=ONE, w=ONE, y=ONE)], inputs={"x": ((1, 1, 6, 6), "int8")})
    assert systolic.estimate(conv, mapping="pack", machine=ArrayConfig(8, 8)) == systolic.estimate(conv, machine=ArrayConfig(8, 8))
    with pytest.raises(SystemExit):
        main(["summary", model, "--mapping", "tap"])
    assert "invalid choice: 'tap'" in capsys.readouterr().err
