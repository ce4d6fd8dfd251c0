"""The bundled network: its files, its accuracy, its bits."""

from __future__ import annotations

import importlib.util
import pickle
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import systolic
from systolic import ArrayConfig, Model, load_example
from systolic.example import DATA

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_two_formats_hold_one_model() -> None:
    pytest.importorskip("onnx")
    model = systolic.load_onnx(str(DATA / "digits.onnx"))
    assert model == load_example().model == Model.load(str(DATA / "digits.zip"))
    assert model.name == "digits" and list(model.inputs) == ["pixels"] and model.outputs == ("logits",)
    pixels = model.inputs["pixels"]
    assert (pixels.shape, pixels.dtype) == ((None, 1, 8, 8), "float32")


def test_equality_sees_a_difference() -> None:
    model = load_example().model
    other = pickle.loads(pickle.dumps(model))
    assert other == model
    last = model.nodes[-1]
    changed = systolic.Node(
        systolic.layers.DequantizeLinear(systolic.QuantParams(0.125)), last.inputs, last.output, last.name
    )
    assert model != Model(
        [*model.nodes[:-1], changed], inputs=model.inputs, outputs=model.outputs, name=model.name
    )


def test_size() -> None:
    files = [path for path in Path(str(DATA)).iterdir() if path.is_file()]
    assert {path.name for path in files} >= {"digits.onnx", "digits.zip", "digits_test.npz"}
    assert sum(path.stat().st_size for path in files) < 200_000


def test_images_and_labels() -> None:
    _, images, labels = load_example()
    assert (images.dtype, images.shape) == (np.float32, (360, 1, 8, 8))
    assert (labels.dtype, labels.shape) == (np.uint8, (360,))
    assert images.min() == 0 and images.max() == 16 and (images == np.rint(images)).all()
    # Stratified: each digit a tenth, within one or two.
    counts = np.bincount(labels)
    assert len(counts) == 10 and counts.min() >= 34 and counts.max() <= 38
    assert len({image.tobytes() for image in images}) == 360


def test_accuracy() -> None:
    model, images, labels = load_example()
    logits = systolic.run(model, images, mode="wavefront").outputs["logits"]
    assert (logits.dtype, logits.shape) == (np.float32, (360, 10))
    assert (logits.argmax(axis=1) == labels).mean() >= 0.975


def test_logits_are_onnxruntimes() -> None:
    runtime = pytest.importorskip("onnxruntime")
    model, images, _ = load_example()
    logits = systolic.run(model, images, mode="wavefront").outputs["logits"]
    session = runtime.InferenceSession(str(DATA / "digits.onnx"), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"pixels": images})
    np.testing.assert_array_equal(logits, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    "machine", (systolic.presets.TPU_V1, ArrayConfig(16, 20, accumulator_rows=64, double_buffered=False))
)
def test_cycle_by_cycle(machine: systolic.MachineConfig | ArrayConfig) -> None:
    model, images, _ = load_example()
    runs = [systolic.run(model, images[:3], machine=machine, mode=mode) for mode in ("cycle", "wavefront")]
    np.testing.assert_array_equal(runs[0].outputs["logits"], runs[1].outputs["logits"])
    assert runs[0].stats == runs[1].stats == systolic.estimate(model, machine=machine, batch=3)
    assert systolic.verify(model, images[:3], machine=machine).passed


def test_batches_do_not_change_results() -> None:
    model, images, _ = load_example()
    whole = systolic.run(model, images[:6], mode="wavefront").outputs["logits"]
    for i in range(6):
        one = systolic.run(model, images[i : i + 1], mode="wavefront").outputs["logits"]
        np.testing.assert_array_equal(one[0], whole[i])


@pytest.fixture
def script() -> ModuleType:
    pytest.importorskip("onnx")
    path = EXAMPLES / "train_digits.py"
    if not path.exists():
        pytest.skip("needs the sources")
    spec = importlib.util.spec_from_file_location("train_digits", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_test_images_were_not_trained_on(script: ModuleType) -> None:
    pytest.importorskip("sklearn")
    train_images, test_images, train_labels, test_labels = script.split_digits()
    _, images, labels = load_example()
    np.testing.assert_array_equal(images, test_images.astype(np.float32))
    np.testing.assert_array_equal(labels, test_labels)
    assert len(train_images) == len(train_labels) == 1797 - 360
    trained = {image.tobytes() for image in train_images}
    assert not any(image.tobytes() in trained for image in images.astype(np.uint8))


def test_script_writes_the_stored_file(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "digits.onnx").write_bytes((DATA / "digits.onnx").read_bytes())
    script.save_native(tmp_path)
    assert Model.load(tmp_path / "digits.zip") == load_example().model
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits.onnx", "digits.zip"]
