"""ResNet-50 on a small image in both modes, beside ONNX Runtime; ``resnet50.py`` has the real one.

The network is that of 224 x 224 with all its layers and weights, so that most of its cycles are
weights being shifted in.
"""

from __future__ import annotations

import pytest

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

import resnet50  # noqa: E402  (needs both)

import systolic  # noqa: E402
from systolic.verifier.runtime import has_vnni  # noqa: E402

IMAGE = 32


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    paths = resnet50.write(tmp_path_factory.mktemp("resnet50"), IMAGE)
    return {name: resnet50.Network(path, IMAGE) for name, path in paths.items()}


@pytest.mark.parametrize("name", resnet50.TYPES)
def test_wavefront_mode(measure, networks, name):
    if name == "uint8" and not has_vnni():
        pytest.skip("ONNX Runtime's uint8 x int8 saturates on this processor: see resnet50.py")
    network = networks[name]
    network.check("wavefront")
    beside = (f"ONNX Runtime, {name}", network.onnxruntime(1), 1)
    measure(
        f"ResNet-50 on {IMAGE} x {IMAGE}, wavefront, {name}",
        network.ours("wavefront", 1),
        1,
        "runs/s",
        beside,
    )


def test_as_a_program(measure, networks):
    network = networks["int8"]
    work, layers = network.as_program("wavefront", 1), network.ours("wavefront", 1)
    for name, values in layers().outputs.items():
        assert (work().outputs[name] == values).all()
    name = f"ResNet-50 on {IMAGE} x {IMAGE} as a program, wavefront, int8"
    measure(name, work, 1, "runs/s", ("wavefront mode", layers, 1))


def test_compile(measure, networks):
    """All 54 products and their 25.5 million weights, from the loaded model to the program."""
    network = networks["int8"]

    def load():
        return systolic.load_onnx(network.path)

    def work():
        return systolic.compile(network.model, machine=resnet50.MACHINE)

    measure("compile ResNet-50 for the TPU v1", work, 1, "programs/s", ("load its ONNX file", load, 1))


def test_cycle_mode(measure, networks):
    network = networks["int8"]
    beside = ("ONNX Runtime, int8", network.onnxruntime(1), 1)
    work = network.ours("cycle", 2)
    measure(f"ResNet-50 on {IMAGE} x {IMAGE}, cycle, 2 threads", work, 1, "runs/s", beside, rounds=3)
