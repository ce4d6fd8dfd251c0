"""What torch's exporters write (``tests/data/torch/export.py``), quantized, and beside ONNX Runtime's tool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import systolic
from support import onnx_models as om
from support.oracle_cases import exact_u8s8
from support.strategies import raises
from systolic import Model, run, verify
from systolic.calibrate import FloatNodesWarning, Quantization, plan_quantization

pytestmark = pytest.mark.onnx

SATURATES = pytest.mark.skipif(not exact_u8s8(), reason="ONNX Runtime's own uint8 x int8 saturates on this CPU")

FILES = Path(__file__).parents[1] / "data" / "torch"
EXPORTERS = ("legacy", "dynamo")

# Layers that stay float32, by file. Before its probabilities, cnn is int8 throughout.
FLOAT = {
    "cnn": ["Softmax"],
    "mlp": [],
    "encoder": ["LayerNormalization", "Add", "LayerNormalization", "ReduceMean"],
    "mixed": ["Tanh", "HardSwish", "FloatConvTranspose"],
}


def data(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return calibration data and other data of a model."""
    if name in ("cnn", "mlp"):
        with np.load(FILES / "calibration.npz") as file:
            return file["images"] / np.float32(16), systolic.load_example().images / np.float32(16)
    rng = np.random.default_rng(0)
    shape = (5, 16) if name == "encoder" else (2, 7, 7)
    return tuple(rng.normal(size=(count, *shape)).astype(np.float32) for count in (40, 10))  # type: ignore[return-value]


def load(name: str, exporter: str) -> Model:
    return systolic.load_onnx(FILES / f"{name}_{exporter}.onnx")


def quantized(name: str, exporter: str, **options: Any) -> Quantization:
    return plan_quantization(load(name, exporter), data(name)[0], **options)


def before_softmax(model: Model) -> Model:
    """Return a model without its last node if that is a Softmax, whose bits no standard fixes."""
    last = model.nodes[-1]
    if last.layer.kind != "Softmax":
        return model
    return Model(
        model.nodes[:-1], inputs=model.inputs, outputs=last.inputs, constants=model.constants, name=model.name
    )


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", FLOAT)
def test_every_product_is_int8(name: str, exporter: str) -> None:
    found = quantized(name, exporter)
    kinds = [node.layer for node in found.float_nodes]
    # The older exporter computes attention's factor at run time.
    factors = ["Mul", "Mul"] if (name, exporter) == ("encoder", "legacy") else []
    assert kinds == [*factors, *FLOAT[name]]
    products = [node for node in found.nodes if node.product]
    assert all(node.becomes is not None for node in products if node.layer != "FloatConvTranspose")
    assert not any(node.layer.kind in ("FloatConv", "FloatMatMul") for node in found.model.nodes)


@pytest.mark.parametrize("activations", ("int8", pytest.param("uint8", marks=[pytest.mark.slow, SATURATES])))
@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", FLOAT)
def test_onnxruntime_has_the_same_bits(name: str, exporter: str, activations: str, tmp_path: Path) -> None:
    model = before_softmax(quantized(name, exporter, activations=activations).model)
    x = data(name)[1][:10]
    systolic.save_onnx(model, tmp_path / "int8.onnx")
    theirs = om.onnxruntime_outputs(tmp_path / "int8.onnx", {"x": x})
    ours = run(model, x, mode="wavefront").outputs
    for tensor, array in zip(ours.values(), theirs, strict=True):
        if name in ("encoder", "mixed"):  # behind float operators
            np.testing.assert_allclose(tensor, array, rtol=0, atol=1e-5 * np.abs(array).max())
        else:
            np.testing.assert_array_equal(tensor, array)
    assert systolic.load_onnx(tmp_path / "int8.onnx").infer_shapes({"x": x.shape}).keys() >= {*ours}


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", FLOAT)
def test_it_is_near_the_float_model(name: str, exporter: str) -> None:
    x = data(name)[1][:10]
    exact, mine = (
        run(before_softmax(each), x, mode="wavefront").outputs.values()
        for each in (load(name, exporter), quantized(name, exporter).model)
    )
    for a, b in zip(exact, mine, strict=True):
        assert np.sqrt(np.mean((a - b) ** 2)) <= 0.03 * np.sqrt(np.mean(a**2))


@pytest.mark.parametrize("name", ("cnn", "mlp"))
def test_the_verdict_is_exact(name: str, tmp_path: Path) -> None:
    found = quantized(name, "dynamo").model
    systolic.save_onnx(found, tmp_path / "int8.onnx")
    x = data(name)[1][:3]
    assert verify(tmp_path / "int8.onnx", x).passed
    report = verify(tmp_path / "int8.onnx", x, against="onnxruntime")
    assert report.passed
    again = systolic.load_onnx(tmp_path / "int8.onnx")
    assert again == found


# Against quantize_static


def static(path: Path, name: str, per_channel: bool, method: str) -> Model:
    """Return a model that ONNX Runtime's tool quantized with the same data."""
    onnx = pytest.importorskip("onnx")
    tool = pytest.importorskip("onnxruntime.quantization")
    source = FILES / f"{name}_dynamo.onnx"

    class Reader(tool.CalibrationDataReader):
        batches = iter([{"x": data(name)[0]}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    tool.quantize_static(
        source, path, Reader(), quant_format=tool.QuantFormat.QOperator,
        per_channel=per_channel, activation_type=tool.QuantType.QInt8, weight_type=tool.QuantType.QInt8,
        calibrate_method=tool.CalibrationMethod[method],
        nodes_to_exclude=[node.name for node in onnx.load(source).graph.node if node.op_type == "Softmax"],
    )  # fmt: skip
    return systolic.load_onnx(path)


def logits(model: Model, x: np.ndarray) -> np.ndarray:
    (found,) = run(before_softmax(model), x, mode="wavefront").outputs.values()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("method", ("minmax", "percentile"))
@pytest.mark.parametrize("per_channel", (True, False))
@pytest.mark.parametrize("name", ("cnn", "mlp"))
def test_as_accurate_as_onnxruntimes_tool(
    name: str, per_channel: bool, method: str, tmp_path: Path
) -> None:
    x, labels = data(name)[1], systolic.load_example().labels
    floats = load(name, "dynamo")
    theirs = static(tmp_path / "static.onnx", name, per_channel, {"minmax": "MinMax"}.get(method, "Percentile"))
    ours = quantized(name, "dynamo", per_channel=per_channel, method=method).model
    exact, mine, other = (logits(model, x) for model in (floats, ours, theirs))

    def accuracy(values: np.ndarray) -> float:
        return float(np.mean(values.argmax(axis=1) == labels))

    assert accuracy(exact) > 0.96
    assert accuracy(mine) >= accuracy(other) - 0.005
    assert abs(accuracy(mine) - accuracy(exact)) <= 0.005
    # 360 images tell little: the logits are as near the float model's.
    error, reach = (float(np.sqrt(np.mean((found - exact) ** 2))) for found in (mine, other))
    assert error <= 1.25 * reach


def test_quantize_model_warns_of_what_stays_float() -> None:
    model = load("mixed", "dynamo")
    with pytest.warns(FloatNodesWarning, match=r"^3 nodes stay float32:\n  'node_tanh' \(Tanh\): there is no int8 op"):
        systolic.quantize_model(model, data("mixed")[0])
    systolic.quantize_model(load("cnn", "dynamo"), data("cnn")[0][:4])  # a Softmax at the end is expected


def test_batches_are_as_good_as_an_array() -> None:
    model, x = load("mlp", "dynamo"), data("mlp")[0]
    whole = systolic.quantize_model(model, x)
    assert systolic.quantize_model(model, (x[i : i + 30] for i in range(0, 200, 30))) == whole
    assert systolic.quantize_model(model, [{"x": x[:100]}, {"x": x[100:]}]) == whole
    share = {"method": "percentile", "percentile": 99.0}
    several = systolic.quantize_model(model, iter(np.array_split(x, 7)), **share)
    assert several == systolic.quantize_model(model, {"x": x}, **share) != whole


def test_other_readings_of_a_file_are_refused() -> None:
    x = data("mlp")[0][:4]
    pytest.importorskip("ml_dtypes")
    rounded = systolic.load_onnx(FILES / "mlp_dynamo.onnx", compute="bfloat16")
    with raises(ValueError, "node 'node_Gemm_16' computes in bfloat16; load the model without compute="):
        systolic.quantize_model(rounded, x)
    costed = systolic.load_onnx(FILES / "mlp_dynamo.onnx", costs_only=True)
    with pytest.raises(ValueError, match="has no values to run with: it was costed as if quantized to int8"):
        systolic.quantize_model(costed, x)
    static = systolic.quantize_model(load("mlp", "dynamo"), x)
    with pytest.raises(ValueError, match="^model 'main_graph' is quantized already: node 'x.quantize' is a Quan"):
        systolic.quantize_model(static, x)
