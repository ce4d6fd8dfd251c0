"""Small networks like those that people ship: equal to ONNX Runtime, or off by one rounding and said so."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import systolic
from support import onnx_models as om
from support.oracle_cases import exact_u8s8
from support.real_networks import NETWORKS
from systolic.cli import main

pytest.importorskip("onnxruntime")

SENTENCE = re.compile(
    r"[\d,]+ nodes? equal; at node '.+' \(.+\), [\d,]+ of [\d,]+ values differ by .+ because of a float "
    r"rounding before it; outputs therefore differ by at most "
)

# Networks without a product of quantized values.
FLOAT = ("BERT", "If and Loop")


NAMES = [
    pytest.param(name, marks=pytest.mark.skipif(not exact_u8s8(), reason="its uint8 x int8 saturates here"))
    if name == "dynamic LSTM"
    else name
    for name in NETWORKS
]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_equal_to_onnxruntime_or_one_rounding(tmp_path: Path, name: str) -> None:
    model, feeds = NETWORKS[name]()
    path = om.save(model, tmp_path)
    report = systolic.verify(path, feeds, against="onnxruntime", mode="wavefront", node_by_node=True)
    assert report.passed, str(report)
    assert report.cases, "nothing was checked"
    if report.rounding is not None:
        assert SENTENCE.search(str(report)) or not report.rounding.node
    run = systolic.run(systolic.load_onnx(path), feeds, machine=systolic.ArrayConfig(256, 256), mode="wavefront")
    on_array = name not in FLOAT
    assert bool(run.stats.macs) == on_array
    assert str(report).startswith("no MAC runs on the array") != on_array
    delegated = {layer.layer for layer in run.layers if layer.layer in ("LSTM", "GRU", "NonMaxSuppression")}
    for kind in delegated:
        assert re.search(rf"delegated to ONNX Runtime, not checked: .*{kind}", str(report))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_in_the_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """`run`, `summary` and `verify` on the file, with its own inputs and with random ones."""
    model, feeds = NETWORKS[name]()
    path = om.save(model, tmp_path)
    np.savez(tmp_path / "x.npz", **feeds)
    given = ["--input", str(tmp_path / "x.npz")]
    shapes = [f"--shape={n}={','.join(map(str, x.shape))}" for n, x in feeds.items()]
    fast = ["--mode", "wavefront", "--quiet"]
    for arguments in (
        ["run", str(path), *given, *fast],
        ["run", str(path), *shapes, *fast],
        ["verify", str(path), *given, *fast],
        ["summary", str(path), *shapes],
    ):
        assert main(arguments) == 0, capsys.readouterr()
        out = capsys.readouterr().out
        if arguments[0] == "summary" and name == "BERT":
            assert out.startswith("costed as if quantized to int8: its products are of floats\n")
        else:
            assert out.startswith("no MAC runs on the array: ") == (name in FLOAT)
        if arguments[0] == "run":
            assert ("note         cannot compile node" in out) == name.startswith("YOLO, NMS")
