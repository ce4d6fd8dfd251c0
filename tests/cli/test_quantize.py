"""``systolic quantize``: the file that it writes, what it prints, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import systolic
from systolic import Model, cli, quantize_model
from systolic.calibrate import plan_quantization
from systolic.layers import FloatMatMul, Relu, Softmax, Unary

pytest.importorskip("onnx")

Capture = pytest.CaptureFixture[str]
RNG = np.random.default_rng(0)
DATA = RNG.normal(size=(50, 6)).astype(np.float32)


def weights(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


LAYERS = [
    FloatMatMul(weights(6, 5), weights(5)), Relu(), Unary("Tanh"), FloatMatMul(weights(5, 4), weights(4)), Softmax(),
]  # fmt: skip
FLOATS = Model(LAYERS, inputs={"x": ((None, 6), "float32")}, name="small")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    FLOATS.save("float.zip")
    np.save("x.npy", DATA)
    return tmp_path


def run(capsys: Capture, *arguments: str) -> str:
    """Quantize the small model and return what the command printed."""
    data = () if "--calibration" in arguments else ("--calibration", "x.npy")
    given = ("quantize", "float.zip", *data, *arguments)
    assert cli.main(given) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def refused(capsys: Capture, *arguments: str) -> str:
    assert cli.main(("quantize", *arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "Traceback" not in captured.err
    return captured.err.strip()


def test_the_file_is_the_model(here: Path, capsys: Capture) -> None:
    found = plan_quantization(FLOATS, DATA)
    text = run(capsys, "--out", "int8.onnx")
    assert text == (
        f"{found.table()}\n\n2 of 2 products are int8\n"
        "wrote int8.onnx; 'systolic run int8.onnx' runs and checks it\n"
    )
    assert systolic.load_onnx("int8.onnx") == found.model
    np.savez("x.npz", x=DATA)
    assert run(capsys, "--calibration", "x.npz", "--out", "int8.zip", "--quiet") == (
        "2 of 2 products are int8\n2 nodes stay float32:\n  't2' (Tanh): there is no int8 operator of Tanh\n"
        "  't4' (Softmax): no product reads its probabilities, which are more exact in float32\n"
        "wrote int8.zip; 'systolic run int8.zip' runs and checks it\n"
    )
    assert Model.load("int8.zip") == found.model
    assert cli.main(("run", "int8.onnx", "--input", "x.npy", "--mode", "wavefront", "--quiet")) == 0


def test_options(here: Path, capsys: Capture) -> None:
    arguments = ["--method", "percentile", "--percentile", "90", "--per-tensor", "--activations", "uint8", "--out", "int8.zip"]
    values = json.loads(run(capsys, *arguments, "--json"))
    with pytest.warns(systolic.calibrate.FloatNodesWarning):
        expected = quantize_model(
            FLOATS, DATA, method="percentile", percentile=90, per_channel=False, activations="uint8"
        )
    assert Model.load("int8.zip") == expected
    assert values == {
        "schema": 1, "model": "float.zip", "out": "int8.zip", **plan_quantization(FLOATS, DATA).to_dict(),
    }  # fmt: skip
    assert [node["becomes"] for node in values["nodes"]] == [
        "QLinearMatMul", "part of 't0'", None, "QLinearMatMul", None,
    ]  # fmt: skip


def test_what_it_refuses(here: Path, capsys: Capture) -> None:
    def message(data: np.ndarray, *more: str) -> str:
        np.save("bad.npy", data)
        return refused(capsys, "float.zip", "--calibration", "bad.npy", "--out", "int8.zip", *more)

    start = "systolic quantize: "
    assert message(DATA[:, :5]) == (
        f"{start}calibration: input 'x' must have shape (?, 6) (? is any batch), not (50, 5)"
    )
    assert message(DATA.astype(int)) == (
        f"{start}calibration must hold floats, not int64; convert with .astype(np.float32), scaled as in use"
    )
    holed = DATA.copy()
    holed[3, 2] = np.nan
    assert message(holed) == (
        f"{start}calibration must be finite in float32, but 1 of 300 values are NaN, infinity or too large, the first at "
        "(3, 2); leave such samples out"
    )
    assert message(DATA, "--percentile", "99") == (
        f"{start}--percentile would have no effect: ranges reach the largest value; it goes with --method percentile"
    )
    assert message(DATA, "--method", "percentile", "--percentile", "40") == (
        f"{start}percentile must be over 50 and at most 100, not 40.0"
    )
    assert not Path("int8.zip").exists()
    for out, reason in (
        ("int8.txt", "--out: int8.txt must end in .onnx, or in .zip, which Model.save writes, not '.txt'"),
        ("./float.zip", "--out ./float.zip is also the file of FLOAT.onnx; name another file"),
        ("no/int8.onnx", "--out: there is no folder no to write int8.onnx to"),
    ):
        assert refused(capsys, "float.zip", "--calibration", "x.npy", "--out", out) == f"{start}{reason}"
    np.savez("other.npz", y=DATA)
    assert refused(capsys, "float.zip", "--calibration", "other.npz", "--out", "int8.zip") == (
        f"{start}calibration must hold data for 'x', not 'y'"
    )
    run(capsys, "--out", "int8.zip")
    assert refused(capsys, "int8.zip", "--calibration", "x.npy", "--out", "again.zip").startswith(
        f"{start}model 'small' is quantized already: node 'x.quantize' is a QuantizeLinear. quantize_model takes the float "
    )
