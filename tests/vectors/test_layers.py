"""Vectors of convolutions, layers and requantizers: the files alone give the tensors of a run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import systolic
from support.strategies import codes
from support.vector_files import read, replay, requantized, tensor
from systolic import ArrayConfig, Model, QuantParams, cli, conv2d, write_vectors
from systolic.dataflows import DATAFLOWS
from systolic.engine.layer_inputs import layer_inputs
from systolic.layers import Conv2d, Dense, DynamicQuantizeLSTM, MatMulInteger, QLinearConv, Relu
from systolic.lowered import Epilogue, Lowered, lower_matmul
from systolic.machine import run_wavefront
from systolic.vectors import write_layer_vectors
from systolic.vectors.product import write_product

RNG = np.random.default_rng(11)
EXAMPLE = systolic.load_example()
ARRAY = ArrayConfig(8, 8)
GEOMETRY = dict(
    stride=(2, 1), padding=((1, 0), (0, 2)), dilation=(1, 2), groups=2, x_zero_point=9
)  # fmt: skip
IMAGES, FILTERS = codes(RNG, (2, 4, 5, 6), "uint8"), codes(RNG, (6, 2, 3, 2), "int8")


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("mapping", [None, "taps", "pack"])
def test_convolutions_replay(tmp_path: Path, dataflow: str, mapping: str | None) -> None:
    array = ArrayConfig(5, 4, dataflow=dataflow, accumulator_rows=14)
    manifest = write_vectors(IMAGES, FILTERS, tmp_path / "v", array=array, mapping=mapping, **GEOMETRY)
    expected = conv2d(IMAGES, FILTERS, array=array, mode="wavefront", mapping=mapping, **GEOMETRY)
    acc = read(tmp_path / "v", manifest, "acc")
    np.testing.assert_array_equal(tensor(acc, manifest), expected.acc)
    np.testing.assert_array_equal(replay(tmp_path / "v", manifest), acc)
    assert manifest["cycles"] == expected.cycles and manifest["gemm"] == expected.gemm.to_dict()
    assert manifest["convolution"] == {
        "images": [2, 4, 5, 6], "kernel": [3, 2], "stride": [2, 1], "dilation": [1, 2], "before": [1, 0],
        "out": list(expected.acc.shape[2:]), "groups": 2, "pad_value": 9,
    }  # fmt: skip
    assert "output" not in manifest and "epilogue" not in manifest


def test_channels_last(tmp_path: Path) -> None:
    last = np.ascontiguousarray(IMAGES.transpose(0, 2, 3, 1))
    manifest = write_vectors(last, FILTERS, tmp_path / "v", array=ARRAY, groups=2, layout="NHWC")
    found = tensor(read(tmp_path / "v", manifest, "acc"), manifest)
    np.testing.assert_array_equal(found, conv2d(last, FILTERS, groups=2, layout="NHWC", mode="wavefront").acc)


@pytest.mark.parametrize("layer", ["stem_quant", "depthwise_quant", "logits_quant"])
@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_a_layer_of_a_model(tmp_path: Path, layer: str, dataflow: str) -> None:
    array = ArrayConfig(8, 8, dataflow=dataflow)
    out, x = tmp_path / "v", EXAMPLE.images[:1]
    manifest = write_layer_vectors(EXAMPLE.model, layer, x, out, array=array)
    assert manifest == json.loads((out / "manifest.json").read_text())
    name = EXAMPLE.model[layer].output
    expected = systolic.run(EXAMPLE.model, x, machine=array, mode="wavefront", keep=name)[name]
    y = read(out, manifest, "y")
    found = tensor(y, manifest).reshape(manifest["output"]["shape"])
    assert (found.dtype, manifest["output"]["dtype"]) == (expected.dtype, expected.dtype.name)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(requantized(out, manifest), y)
    np.testing.assert_array_equal(replay(out, manifest), read(out, manifest, "acc"))
    assert manifest["layer"] == {
        "operator": EXAMPLE.model[layer].layer.kind, "name": layer, "output": name
    }  # fmt: skip
    assert manifest["epilogue"]["parameters"]["bias"] == {"file": "bias.mem", "per": "channel"}


ROUNDINGS = ("half_even", "tflite", "tflite_single", "gemmini")


@pytest.mark.parametrize("rounding", [*ROUNDINGS, "shift"])
@pytest.mark.parametrize("channels", ["one scale", "a scale per channel"])
def test_requantizer(tmp_path: Path, rounding: str, channels: str) -> None:
    x, w = codes(RNG, (1, 2, 5, 5), "uint8"), codes(RNG, (4, 2, 3, 3), "int8")
    scales = 2.0 ** -np.arange(3, 7) if rounding == "shift" else np.array([0.011, 0.25, 0.003, 0.5])
    weights = QuantParams(scales, axis=0) if channels != "one scale" else QuantParams(float(scales[0]))
    layer = Conv2d(
        w, bias=RNG.integers(-999, 999, 4).astype(np.int32), x=QuantParams(0.5, 7, dtype="uint8"), w=weights,
        y=QuantParams(4.0, -3), padding=1, rounding=rounding,
    )  # fmt: skip
    out = tmp_path / "v"
    manifest = write_vectors(x, layer, out, array=ARRAY)
    model = Model([layer], inputs={"x": ((1, 2, 5, 5), "uint8")})
    expected = systolic.run(model, x, machine=ARRAY, mode="wavefront")["t0"]
    y = read(out, manifest, "y")
    np.testing.assert_array_equal(tensor(y, manifest), expected)
    np.testing.assert_array_equal(requantized(out, manifest), y)
    epilogue = manifest["epilogue"]
    assert (epilogue["rounding"], epilogue["zero_point"], epilogue["dtype"]) == (rounding, -3, "int8")
    assert len(set(np.ravel(y))) > 4, "the codes say nothing"


def epilogues() -> dict[str, tuple[Epilogue, str, str]]:
    """Return epilogues with terms of every shape, and the types of operands."""
    rng, f = np.random.default_rng(3), np.float32
    column, row = rng.integers(-99, 99, (6, 1)).astype(np.int32), rng.integers(-9, 9, (1, 5)).astype(np.int32)
    each = rng.integers(-10**6, 10**6, (6, 5)).astype(np.int32)
    scale = rng.uniform(1e-3, 1e-1, 5).astype(f)
    table = rng.integers(0, 255, 256).astype(np.uint8)
    return {
        "sums": (Epilogue(x_zero=column, w_zero=row), "uint8", "int8"),
        "every element": (Epilogue(constant=each, w_zero=row[0], scale=scale, dtype="uint8"), "int8", "int8"),
        "clamp and table": (
            Epilogue(constant=each, scale=scale, dtype="uint8", zero_point=9, clamp=(20, 200), table=table),
            "int8", "uint8",
        ),
        "real": (
            Epilogue(x_zero=column, scale=scale, late_scale=f(0.3), float_bias=scale * f(7), dtype="float32"),
            "uint8", "int8",
        ),
        "64 bits": (Epilogue(w_zero=row, scale=scale.astype(np.float64), dtype="float32"), "int16", "int16"),
        "floats": (Epilogue(scale=f(0.25).reshape(()), float_bias=scale, dtype="float32"), "float16", "float16"),
        "nan": (Epilogue(scale=f(np.inf).reshape(()), dtype="int8"), "int8", "int8"),
    }  # fmt: skip


@pytest.mark.parametrize("kind", epilogues())
def test_epilogues(tmp_path: Path, kind: str) -> None:
    epilogue, x_dtype, w_dtype = epilogues()[kind]
    if x_dtype == "float16":
        x, w = (RNG.standard_normal(size).astype(np.float16) for size in ((6, 7), (7, 5)))
    else:
        x, w = codes(RNG, (6, 7), x_dtype), codes(RNG, (7, 5), w_dtype)
    if kind == "nan":
        x[0] = 0
    config = ArrayConfig(3, 4, psum_bits=64 if kind == "64 bits" else 32)
    lowered = lower_matmul(x, w, epilogue)
    manifest = write_product(tmp_path, lowered, config)
    y = read(tmp_path, manifest, "y")
    np.testing.assert_array_equal(y, run_wavefront(lowered, config).output)
    np.testing.assert_array_equal(requantized(tmp_path, manifest), y)
    np.testing.assert_array_equal(replay(tmp_path, manifest), read(tmp_path, manifest, "acc"))


def test_stacks_of_matrices(tmp_path: Path) -> None:
    x, w = codes(RNG, (2, 3, 4, 5), "int8"), codes(RNG, (3, 5, 2), "int8")
    scale = RNG.uniform(0.001, 0.1, (3, 1, 2)).astype(np.float32)
    lowered: Lowered = lower_matmul(x, w, Epilogue(scale=scale, dtype="int8", zero_point=-5))
    manifest = write_product(tmp_path, lowered, ArrayConfig(3, 3, accumulator_rows=6))
    y = read(tmp_path, manifest, "y")
    np.testing.assert_array_equal(tensor(y, manifest), run_wavefront(lowered, ARRAY).output)
    np.testing.assert_array_equal(requantized(tmp_path, manifest), y)
    np.testing.assert_array_equal(replay(tmp_path, manifest), read(tmp_path, manifest, "acc"))
    assert manifest["gemm"]["groups"] == 6 and manifest["epilogue"]["parameters"]["scale"]["per"] == "element"


def test_zero_points_of_images(tmp_path: Path) -> None:
    layer = QLinearConv(groups=2, padding=1)
    x, w = codes(RNG, (1, 4, 4, 5), "uint8"), codes(RNG, (6, 2, 3, 2), "uint8")
    one = np.float32(0.01), np.uint8(131)
    w_zero = RNG.integers(0, 256, 6).astype(np.uint8)
    inputs = [x, *one, w, np.full(6, 0.5, np.float32), w_zero, np.float32(2), np.uint8(4)]
    inputs = [np.asarray(value) for value in inputs]
    manifest = write_vectors(inputs, layer, tmp_path / "v", array=ARRAY)
    y = read(tmp_path / "v", manifest, "y")
    np.testing.assert_array_equal(tensor(y, manifest), run_wavefront(layer.lower(*inputs), ARRAY).output)
    np.testing.assert_array_equal(requantized(tmp_path / "v", manifest), y)
    assert manifest["epilogue"]["parameters"]["row_sum"]["per"] == "row and group"


def test_a_folder_for_each_product(tmp_path: Path) -> None:
    layer = DynamicQuantizeLSTM(2)
    x = RNG.standard_normal((2, 1, 3)).astype(np.float32)
    w, r = codes(RNG, (1, 3, 8), "int8"), codes(RNG, (1, 2, 8), "int8")
    scale, zero = np.full(1, 0.02, np.float32), np.zeros(1, np.int8)
    inputs = [x, w, r, scale, zero, scale, zero]
    manifest = write_vectors(inputs, layer, tmp_path / "v", array=ARRAY)
    assert manifest == json.loads((tmp_path / "v" / "manifest.json").read_text())
    count = len(layer.products(*(value.shape for value in inputs)))
    assert manifest["products"] == [f"product_{i:03}" for i in range(count)] and count > 2
    assert {path.name for path in (tmp_path / "v").iterdir()} == {*manifest["products"], "manifest.json"}
    for i, name in enumerate(manifest["products"]):
        folder = tmp_path / "v" / name
        each = json.loads((folder / "manifest.json").read_text())
        assert each["layer"] == {"operator": "DynamicQuantizeLSTM", "product": i}
        np.testing.assert_array_equal(requantized(folder, each), read(folder, each, "y"))


def raises(error: type[Exception], part: str) -> Any:
    return pytest.raises(error, match=re.escape(part))


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, w, out = codes(RNG, (3, 4), "int8"), codes(RNG, (4, 2), "int8"), tmp_path / "v"
    one = QuantParams(1.0)
    dense = Dense(w, x=one, w=one, y=one)
    with raises(ValueError, "stride= is of a convolution of two arrays, and x (3, 4) and w (4, 2) are matrices; leave it out"):
        write_vectors(x, w, out, stride=2)
    with raises(ValueError, "mapping= is of a convolution, and x and w are matrices; leave it out"):
        write_vectors(x, w, out, mapping="best")
    with raises(ValueError, "mapping= is of a convolution, and QLinearMatMul is none; leave it out"):
        write_vectors(x, dense, out, mapping="best")
    with raises(ValueError, "padding= is of a convolution of two arrays, and the layer has its own; leave it out"):
        write_vectors(x, dense, out, padding=1)
    with raises(ValueError, "x and w must be matrices (M, K) and (K, N), or images"):
        write_vectors(x[None], w, out)
    with raises(ValueError, "no layer 'stem_quan' runs on the array; did you mean 'stem_quant'?"):
        write_layer_vectors(EXAMPLE.model, "stem_quan", EXAMPLE.images[:1], out)
    with raises(ValueError, "no layer of the model runs on the array"):
        layer_inputs(Model([Relu()], inputs={"x": ((1, 2), "int8")}), "a", np.int8([[1, 2]]), array=ARRAY)
    with raises(ValueError, "is an empty product"):
        write_vectors([x[:0], w], MatMulInteger(), out)
    monkeypatch.setattr("shutil.disk_usage", lambda _: _Disk)
    with raises(OSError, "has 10 B free; write them to another disk, or those of fewer rows of x"):
        write_vectors(x, w, out, array=ARRAY)
    assert list(tmp_path.iterdir()) == []


class _Disk:
    free = 10


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", IMAGES)
    np.save("w.npy", FILTERS)
    EXAMPLE.model.save("digits.zip")
    sizes = ["--array", "5x4", "--dataflow", "os"]
    geometry = ["--stride", "2,1", "--padding", "1,0,0,2", "--dilation", "1,2", "--groups", "2", "--x-zero-point", "9"]
    assert cli.main(["vectors", "x.npy", "w.npy", "--out", "conv", *sizes, *geometry]) == 0
    api = write_vectors(
        IMAGES, FILTERS, "api", array=ArrayConfig(5, 4, dataflow="output_stationary"), **GEOMETRY
    )  # fmt: skip
    assert json.loads(Path("conv/manifest.json").read_text()) == api
    assert Path("conv/bottom_out.mem").read_bytes() == Path("api/bottom_out.mem").read_bytes()
    layer = ["vectors", "digits.zip", "--layer", "stem_quant", "--array", "8x8"]
    np.save("image.npy", EXAMPLE.images[:1])
    capsys.readouterr()
    assert cli.main([*layer, "--input", "image.npy", "--out", "layer", "--json", "--quiet"]) == 0
    printed = json.loads(capsys.readouterr().out)["manifest"]
    assert printed == write_layer_vectors(
        EXAMPLE.model, "stem_quant", EXAMPLE.images[:1], "layer2", array=ARRAY
    )  # fmt: skip
    assert Path("layer/y.mem").read_bytes() == Path("layer2/y.mem").read_bytes()
    assert cli.main([*layer, "--seed", "3", "--batch", "2", "--out", "random"]) == 0
    assert json.loads(Path("random/manifest.json").read_text())["output"]["shape"][0] == 2
    for words, message in (
        (["x.npy"], "x.npy is one array; name the weights, too: X.npy W.npy"),
        (["x.npy", "w.npy", "w.npy"], "vectors takes X.npy W.npy, or a MODEL, not x.npy w.npy w.npy"),
        (["x.npy", "w.npy", "--layer", "a"], "--layer would have no effect: it is of a model's layer, and there"),
        (["digits.zip"], "--layer NAME says which layer of digits.zip is written; on the array run stem_quant, "),
        (["digits.zip", "--layer", "stem_quant", "--stride", "2"], "it is of a convolution of two arrays"),
        (["digits.zip", "--layer", "stem_quant", "--input", "image.npy", "--batch", "2"], "it is of the random input"),
        (["x.npy", "w.npy", "--array", "2x2", "--rows", "3"], "--rows would have no effect: --array gives both sizes"),
    ):
        assert cli.main(["vectors", *words, "--out", "no"]) == 2
        assert message in capsys.readouterr().err
    assert not Path("no").exists()
