"""The bundled digits network on 256 x 256, all cores: images and PE-cycles per second."""

from __future__ import annotations

from importlib.resources import as_file

import numpy as np
import pytest

import systolic
from systolic.benchmark import NumpyStepping
from systolic.example import DATA

EXAMPLE = systolic.load_example()
ARRAY = systolic.ArrayConfig(256, 256)


def test_cycle_mode(measure):
    """Every register of the network on 24 images, beside numpy stepping one product."""
    images = EXAMPLE.images[:24]

    def work():
        return systolic.run(EXAMPLE.model, images, machine=ARRAY)

    rng = np.random.default_rng(0)
    m = 512
    x, w = (rng.integers(-128, 128, (size, 256), dtype=np.int8) for size in (m, 256))
    beside = ("numpy stepping", NumpyStepping(x, w).run, m * 256 * 256)
    measure("digits, 24 images, cycle", work, work().stats.pe_cycles, "PE-cycles/s", beside, rounds=3)


@pytest.mark.parametrize("mode", ["cycle", "wavefront"])
def test_images(measure, mode):
    """Images per second, beside ONNX Runtime where it is installed."""
    images = EXAMPLE.images[: 24 if mode == "cycle" else 360]
    beside = _onnxruntime(images)

    def work():
        systolic.run(EXAMPLE.model, images, machine=ARRAY, mode=mode)

    measure(f"digits, {len(images)} images, {mode}", work, len(images), "images/s", beside, rounds=3)


def _onnxruntime(images):
    try:
        import onnxruntime
    except ImportError:
        return None
    with as_file(DATA / "digits.onnx") as path:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: images}
    return "ONNX Runtime", lambda: session.run(None, feed), len(images)
