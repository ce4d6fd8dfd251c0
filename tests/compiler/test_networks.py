"""The networks of examples/networks.py as programs: the bits of ONNX Runtime, and of the model in both modes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import systolic
from support.compiled import count, machine
from support.oracle_cases import exact_u8s8
from systolic import MachineConfig, presets

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

pytestmark = [pytest.mark.onnx, pytest.mark.slow]

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "networks.py"
TPU = presets.TPU_V1
SMALL = machine(16, 16, 30_000, weight_bytes=2**26, host_rows=2**20)


@pytest.fixture(scope="module")
def networks() -> ModuleType:
    if not SCRIPT.exists():
        pytest.skip("needs the sources")
    spec = importlib.util.spec_from_file_location("networks", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


EXACT = {"activations": "int8"}
"""ONNX Runtime's kernel of uint8 saturates without VNNI, the one of int8 never does."""
CASES = [
    ("residual", EXACT),
    ("residual", EXACT | {"form": "qdq"}),
    ("residual", {}),
    ("separable", EXACT),
    ("separable", {"form": "qdq"}),
    pytest.param("resnet50", EXACT, marks=pytest.mark.exhaustive),
    pytest.param("resnet50", {}, marks=pytest.mark.exhaustive),
    pytest.param("mobilenet_v2", EXACT, marks=pytest.mark.exhaustive),
    pytest.param("mobilenet_v2", {}, marks=pytest.mark.exhaustive),
]


def of_runtime(proto: Any, output: str, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """ONNX Runtime's output, all optimizations on."""
    settings = runtime.SessionOptions()
    settings.add_session_config_entry("session.qdqisint8allowed", "1")
    session = runtime.InferenceSession(proto.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return session.run([output], feeds)[0]


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("on", [TPU, SMALL], ids=["256 x 256", "16 x 16"])
def test_networks_of_images(
    networks: ModuleType, tmp_path: Path, name: str, options: dict[str, Any], on: MachineConfig
) -> None:
    proto = networks.build(name, image=32, **options)
    (tmp_path / "net.onnx").write_bytes(proto.SerializeToString())
    model = systolic.load_onnx(str(tmp_path / "net.onnx"))
    feeds = networks.sample(proto, 2)
    run = systolic.run(model, feeds, machine=on, mode="wavefront")
    wanted = systolic.run(model, feeds, machine=on.array, mode="wavefront").outputs
    (output,) = wanted
    np.testing.assert_array_equal(run.outputs[output], wanted[output])
    if options.get("activations") == "int8" or exact_u8s8():
        np.testing.assert_array_equal(run.outputs[output], of_runtime(proto, output, feeds))
    # All but quantization and its inverse, and the patches of three channels, runs on the machine.
    assert count(run.program, "HostCall") <= 3


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["residual", "separable"])
def test_networks_of_images_by_the_clock(networks: ModuleType, tmp_path: Path, name: str) -> None:
    proto = networks.build(name, image=16, **EXACT)
    (tmp_path / "net.onnx").write_bytes(proto.SerializeToString())
    model = systolic.load_onnx(str(tmp_path / "net.onnx"))
    feeds = networks.sample(proto, 1)
    runs = [systolic.run(model, feeds, machine=TPU, mode=mode) for mode in ("cycle", "wavefront")]
    (output,) = runs[0].outputs
    np.testing.assert_array_equal(runs[0].outputs[output], runs[1].outputs[output])
    assert runs[0].stats == runs[1].stats


def test_the_transformer(networks: ModuleType, tmp_path: Path) -> None:
    """Its products of weights run on the array, those of two tensors and all floats on the host."""
    proto = networks.build("transformer")
    (tmp_path / "net.onnx").write_bytes(proto.SerializeToString())
    model = systolic.load_onnx(str(tmp_path / "net.onnx"))
    feeds = networks.sample(proto, 2)
    run = systolic.run(model, feeds, machine=TPU, mode="wavefront")
    wanted = systolic.run(model, feeds, machine=TPU.array, mode="wavefront")
    np.testing.assert_array_equal(run.outputs["states"], wanted.outputs["states"])
    if exact_u8s8():  # its softmax and layer norms are float, summed in another order
        np.testing.assert_allclose(run.outputs["states"], of_runtime(proto, "states", feeds), rtol=0, atol=1e-5)
    on_array = {layer.name for layer in run.layers if layer.stats.macs}
    assert len(on_array) >= 8
    assert 0 < run.stats.macs < wanted.stats.macs
