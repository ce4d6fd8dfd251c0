"""Small files and layers on which native code of the onnx package crashes or never returns: errors here."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

import onnx_models as om  # noqa: E402
from onnx import helper  # noqa: E402

import systolic  # noqa: E402
from systolic import OnnxNode, load_onnx  # noqa: E402

F = np.float32


def i64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def ends(folder: Path, model: Any, words: str) -> None:
    """Assert that loading ends soon, in an error that says so."""
    path = om.save(model, folder)
    # The helper process starts with the first call of the session.
    started = time.monotonic()
    with pytest.raises(ValueError, match=words):
        load_onnx(path)
    assert time.monotonic() - started < 20


X = np.ones((2, 3), F)


def hostile(op: str, arguments: list[Any], moving: tuple[int, ...] = (0,), **attributes: Any) -> Any:
    return om.single(op, arguments, moving, **attributes)[0]


NATIVE = {
    "GatherND batch_dims": lambda: hostile("GatherND", [X, i64(0).reshape(1, 1)], batch_dims=-7),
    "Einsum equation": lambda: hostile("Einsum", [X], equation="i-"),
    "LayerNormalization axis": lambda: om.model(
        [om.node("LayerNormalization", ["x", "s"], ["y", "mean"], name="the_node", axis=-9)],
        {"x": ("float32", (2, 3))}, ["y", "mean"], {"s": np.ones(3, F)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NATIVE)
def test_attributes_that_crash_or_hang_shape_inference(tmp_path: Path, case: str) -> None:
    op = case.split()[0]
    ends(tmp_path, NATIVE[case](), rf"node 'the_node' \({op}\): {op}")


def node(proto: Any) -> np.ndarray:
    return np.frombuffer(proto.SerializeToString(), np.uint8)


def test_a_layer_whose_tensors_do_not_fit_its_node() -> None:
    eye = node(helper.make_node("EyeLike", ["x"], ["y"], dtype=1))
    layer = OnnxNode("EyeLike", eye, ("z",), ("float32",), ("float32",), (("", 21),))
    for use in (lambda: layer.output_shape((1, 2)), lambda: layer.apply(X)):
        with pytest.raises(
            ValueError, match=r"reads must name all inputs of the node \(EyeLike\); 'x' missing"
        ):
            use()
    top = node(helper.make_node("TopK", ["x", "k"], ["values", "at"]))
    layer = OnnxNode("TopK", top, ("x", "k"), ("float32", "int64"), ("float32",), (("", 21),))
    with pytest.raises(ValueError, match="a type for each output of the node .TopK. in use, 'values', 'at', not"):
        layer.output_shape((2, 3), (1,))


def test_damage_that_one_process_does_not_survive_is_no_matter_to_the_next_file(tmp_path: Path) -> None:
    ends(tmp_path, NATIVE["GatherND batch_dims"](), "GatherND")
    model = load_onnx(om.save(hostile("CumSum", [X, np.array(1)]), tmp_path))
    assert systolic.run(model, X).outputs["y"].tolist() == np.cumsum(X, 1).tolist()
