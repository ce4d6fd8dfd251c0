"""Models and single layers on a small array, in both modes, each node against its oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import systolic
from support import onnx_models as om
from support.onnx_models import Case
from systolic import ArrayConfig, Model, load_onnx
from systolic.config import as_machine_config
from systolic.engine.products import MODES
from systolic.verifier.check import ModelCheck

ARRAY = ArrayConfig(4, 5, accumulator_rows=14)


def run(model: Model, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run in both modes on a small array: equal outputs, as the oracles say, for the cycles estimated."""
    runs = []
    for mode in MODES:
        check = ModelCheck(as_machine_config(ARRAY), mode)
        runs.append(systolic.run(model, feeds, machine=ARRAY, mode=mode, observe=check))
        assert not check.mismatches, str(check.mismatches[0])
    shapes = {name: array.shape for name, array in feeds.items()}
    estimate = systolic.estimate(model, machine=ARRAY, shapes=shapes)
    assert runs[0].stats == runs[1].stats == estimate
    for name, output in runs[0].outputs.items():
        np.testing.assert_array_equal(output, runs[1].outputs[name])
    return runs[0].outputs


def check(folder: Path, case: Case) -> Model:
    """Assert that a model gives what ONNX Runtime gives, and return it."""
    graph, feeds = case
    path = om.save(om.typed(graph), folder)
    expected = om.onnxruntime_outputs(path, feeds)
    model = load_onnx(path)
    for output, theirs in zip(run(model, feeds).values(), expected, strict=True):
        assert (output.dtype, output.shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_array_equal(output, theirs)
    return model


def run_one(layer: Any, *inputs: np.ndarray) -> list[np.ndarray]:
    """One layer on the array; cycle mode too where that does not take long."""
    names = [f"i{i}" for i in range(len(inputs))]
    outputs = "y" if layer.outputs == 1 else tuple(f"y{i}" for i in range(layer.outputs))
    specs = {name: (array.shape, array.dtype.name) for name, array in zip(names, inputs, strict=True)}
    model = Model([systolic.Node(layer, names, outputs)], inputs=specs, outputs=outputs)
    feeds = dict(zip(names, inputs, strict=True))
    if sum(array.size for array in inputs) > 10_000:
        return list(systolic.run(model, feeds, mode="wavefront").outputs.values())
    return list(run(model, feeds).values())
