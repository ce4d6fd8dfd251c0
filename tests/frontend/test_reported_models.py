"""Models that an earlier version got wrong: equal to ONNX Runtime, or refused in words that help."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import systolic
from support import onnx_models as om
from support import reported_models as reported
from support.onnx_models import F
from support.reported_models import REPORTED
from systolic.verifier.runtime import runtime_outputs

pytest.importorskip("onnxruntime")

# What some of them gave as numbers: so that these do not depend on ONNX Runtime alone.
VALUES = {
    "a Gemm with a bias of its own scale": [[70]],
    "a stride beyond the kernel": [[[20]]],
    "QLinearSoftmax of one": [[254], [254]],
    "QLinearSoftmax of scale 1/255": [[0, 64, 0, 0, 0, 64, 0, 0, 64, 64]],
    "LogSoftmax of a large spread": [[-150, -100, 0]],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REPORTED)
def test_equal_to_onnxruntime(tmp_path: Path, name: str) -> None:
    model, feeds = REPORTED[name]()
    path = om.save(om.typed(model), tmp_path)
    ours = systolic.run(systolic.load_onnx(path), feeds, mode="wavefront").outputs["y"]
    if name == "DynamicQuantizeLSTM":  # each sequence has its scale, as with a thread for each
        theirs = runtime_outputs(path, feeds, "integer")["y"]
    else:
        (theirs,) = om.onnxruntime_outputs(path, feeds)
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    if ours.dtype.kind != "f":
        np.testing.assert_array_equal(ours, theirs)
    elif name == "int8 weights in a float product":
        # ONNX Runtime's own float32 sums of 1,024 products are off by more than 1e-5 of single elements.
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max(), rtol=0)
    else:
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    if name in VALUES:
        np.testing.assert_array_equal(ours, VALUES[name])
    report = systolic.verify(path, feeds, against="onnxruntime", mode="wavefront")
    alone = all(isinstance(node.layer, systolic.layers.OnnxNode) for node in systolic.load_onnx(path).nodes)
    # What ONNX Runtime computed alone cannot have been checked.
    assert report.passed != alone, str(report)


@pytest.mark.slow
def test_float_products_are_the_true_sums() -> None:
    """Rounded once, where ONNX Runtime rounds after each of 1,024 additions."""
    model, feeds = reported.weight_only_int8()
    w, s = (onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer)
    weights = w.astype(F) * s
    true = feeds["x"].astype(np.float64) @ weights.astype(np.float64)
    layer = systolic.layers.FloatMatMul()
    np.testing.assert_array_equal(layer.apply(feeds["x"], weights), true.astype(F))


def test_activations_of_16_bits_run_on_the_array(tmp_path: Path) -> None:
    model, feeds = reported.activations_of_16_bits()
    path = om.save(om.typed(model), tmp_path)
    with pytest.warns(systolic.engine.LayerByLayerWarning, match="its product is of uint16 x int8"):
        run = systolic.run(systolic.load_onnx(path), feeds, mode="wavefront")
    assert run.stats.macs == 3 * 16 * 8
    theirs = runtime_outputs(path, feeds, "float")["y"]  # optimized, it approximates
    np.testing.assert_array_equal(run.outputs["y"], theirs)
    report = systolic.verify(path, feeds, mode="wavefront", against="onnxruntime", node_by_node=True)
    assert report.passed and [node.verdict for node in report.nodes] == ["equal", "float, within", "equal"]


def test_scales_of_another_axis_are_suggested(tmp_path: Path) -> None:
    path = om.save(reported.scales_of_another_axis()[0], tmp_path)
    with pytest.raises(ValueError, match="axis=0"):
        systolic.load_onnx(path)
