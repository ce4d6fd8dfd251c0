"""Random graphs of one operator each against ONNX Runtime, and the list of what is meant to differ."""

from __future__ import annotations

import os
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import systolic
from support import onnx_models as om
from support import random_operators as ro
from support.onnx_models import F
from systolic import load_onnx
from systolic.frontend.operators import OPERATORS
from systolic.layers import OnnxNode
from systolic.presets import TPU_V1
from systolic.verifier import ModelCheck

runtime = pytest.importorskip("onnxruntime")

DIFFERENCES = runpy.run_path(str(Path(__file__).parents[2] / "docs/write_differences.py"))["DIFFERENCES"]
COUNT = int(os.environ.get("SYSTOLIC_FUZZ", "2000"))
SEED = int(os.environ.get("SYSTOLIC_FUZZ_SEED", "0"))


@pytest.fixture(scope="module", autouse=True)
def newest() -> None:
    """Draw opsets up to the newest that ONNX Runtime loads."""
    for opset in range(onnx.defs.onnx_opset_version(), 10, -1):
        try:
            runtime_outputs(om.model([om.node("Relu", ["x"], "y")], {"x": ("float32", (1,))}, ["y"], opset=opset), {"x": np.zeros(1, F)})  # fmt: skip
        except runtime.capi.onnxruntime_pybind11_state.Fail:
            continue
        ro.NEWEST = opset
        return


def runtime_outputs(graph: Any, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """ONNX Runtime's outputs; gives the graph's outputs the types that it infers."""
    for output in graph.graph.output:
        output.ClearField("type")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    session = runtime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    for output, found in zip(graph.graph.output, session.get_outputs(), strict=True):
        kind = {"float": "float32", "double": "float64"}.get(found.type[7:-1], found.type[7:-1])
        output.CopyFrom(om.value(output.name, kind, None))
    return session.run(None, feeds)


def our_outputs(graph: Any, feeds: dict[str, np.ndarray], folder: Path) -> list[np.ndarray] | None:
    """Our outputs, each layer's equal to its oracle's; None where a node is left to an evaluator."""
    model = load_onnx(om.save(graph, folder))
    if any(isinstance(node.layer, OnnxNode) for node in model.nodes):
        return None
    oracles = ModelCheck(TPU_V1, "wavefront")
    run = systolic.run(model, feeds, mode="wavefront", observe=oracles)
    assert not oracles.mismatches and not oracles.not_checked, (oracles.mismatches, oracles.not_checked)
    return list(run.outputs.values())


def difference(case: ro.Single, ours: np.ndarray, theirs: np.ndarray) -> str | None:
    """What differs: type, shape, an integer, a float beyond the tolerance, where NaN and infinity are."""
    if (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):
        return f"{ours.dtype} {ours.shape} instead of {theirs.dtype} {theirs.shape}"
    same = ours == theirs
    if ours.dtype.kind == "f":
        a, b = ours.astype(np.float64), theirs.astype(np.float64)
        with np.errstate(all="ignore"):
            same |= np.isnan(a) & np.isnan(b)
            # Infinities are equal above or not at all.
            same |= np.abs(a - b) <= case.near * np.maximum(max(1.0, case.scale), np.where(np.isinf(b), 0, np.abs(b)))  # fmt: skip
    bad = ~np.asarray(same)
    return f"{ours[bad][:4]} instead of {theirs[bad][:4]}, {bad.sum()} of {bad.size}" if bad.any() else None


def check(case: ro.Single, folder: Path) -> str:
    """Compare one graph: "equal", "refused" by ONNX Runtime, "left" to an evaluator, or what is wrong."""
    graph, feeds = case.model()
    try:
        theirs = runtime_outputs(graph, feeds)
    except Exception as error:
        # A dozen kinds without a common one below Exception.
        assert type(error).__module__.startswith("onnxruntime"), error
        return "refused"
    try:
        ours = our_outputs(graph, feeds, folder)
    except ValueError as error:
        if "more than the padded image's" in str(error):
            return "equal"  # DIFFERENCES: a pool's kernel larger than the padded image
        return f"refused by us: {error}"
    if ours is None:
        return "left"
    assert len(ours) == len(theirs)
    return next(filter(None, (difference(case, *pair) for pair in zip(ours, theirs, strict=True))), "equal")


# Drawn in test_transformer.py, test_recurrent.py and test_few_bits.py.
ELSEWHERE = {
    ("com.microsoft", name)
    for name in (
        "Attention", "BiasGelu", "DynamicQuantizeLSTM", "EmbedLayerNormalization", "FusedConv", "FusedGemm",
        "FusedMatMul", "MatMulNBits", "QAttention", "SkipLayerNormalization",
    )
}  # fmt: skip


def test_every_operator_with_a_layer_is_drawn() -> None:
    # A Constant holds its value; nothing is computed.
    assert set(ro.MAKERS) == set(OPERATORS) - ELSEWHERE - {("", "Constant")}


@pytest.mark.slow
@pytest.mark.parametrize("key", ro.MAKERS, ids=lambda key: ".".join(filter(None, key)))
def test_equals_onnxruntime(key: tuple[str, str], tmp_path: Path) -> None:
    found: dict[str, int] = {}
    count = -(-COUNT // len(ro.MAKERS))
    for number in range(count):
        case = ro.draw(key, np.random.default_rng([SEED, number, *map(ord, "".join(key))]))
        result = check(case, tmp_path)
        found[result] = found.get(result, 0) + 1
        shapes = [None if a is None else (np.asarray(a).dtype.name, np.shape(a)) for a in case.arguments]
        assert result in ("equal", "refused", "left"), (
            f"graph {number} of SYSTOLIC_FUZZ_SEED={SEED}: {result}; opset {case.opset}, {case.attributes}, "
            f"{shapes}, constants {case.constants}"
        )
    # ONNX Runtime has not all types of an operator; enough of what is drawn is compared.
    assert found.get("equal", 0) >= count * 0.1, found


# What is meant to differ: for each row a graph, our value, and whether ONNX Runtime's is another here. Where it
# depends on the processor, or on which instruction set it chooses, only ours is asserted.

NAN, INF = np.nan, np.inf


def one(op: str, *arguments: Any, **attributes: Any) -> tuple[Any, dict[str, np.ndarray]]:
    return om.single(op, [np.asarray(a) for a in arguments], tuple(range(len(arguments))), **attributes)


SHOWN: dict[str, tuple[Any, Any, bool]] = {
    "approximations": (one("Sigmoid", F([-80])), F([1.8048513e-35]), True),
    "sums of floats": (one("ReduceSum", F([1e8, *[1] * 8, -1e8]), keepdims=0), F(8), False),
    "products of floats": (
        om.single("MatMul", [np.float64([[1e16, 1, -1e16]]), np.float64([[1], [1], [1]])]), np.float64([[0]]), False,
    ),
    "Gelu with approximate='tanh' of float64": (
        one("Gelu", np.float64([1]), approximate="tanh"), np.float64([0.8411919906082768]), True,
    ),
    "NaN in ReduceMax and ReduceMin": (one("ReduceMax", F([NAN, *range(64)]), keepdims=0), F(NAN), False),
    "NaN in MaxPool": (one("MaxPool", F([[[NAN, 1, 2]]]), kernel_shape=[3]), F([[[NAN]]]), False),
    "minus infinity in MaxPool": (one("MaxPool", F([[[-INF]]]), kernel_shape=[1]), F([[[-INF]]]), False),
    "means of infinity in LayerNormalization": (None, None, False),
    "a bound of NaN in Clip": (om.single("Clip", [F([1]), F(NAN)]), F([NAN]), True),
    "int64 beyond 2^53 in ReduceSum and ReduceProd": (
        one("ReduceSum", np.int64([2**62, 2**62, -(2**62)]), keepdims=0), np.int64(2**62), False,
    ),
    "halves in Resize by half_pixel_symmetric": (
        om.single(
            "Resize", [F([10, 20]), None, F([2 / 3])], coordinate_transformation_mode="half_pixel_symmetric",
            nearest_mode="round_prefer_ceil",
        ), F([10]), False,
    ),
    "a pool's kernel larger than the padded image": (
        one("MaxPool", F([[[1]]]), kernel_shape=[2]), "more than the padded image's 1", True,
    ),
    "auto_pad SAME in MaxPool of float32 with strides beyond the kernel": (
        one("MaxPool", F([[[1, 2, 3, 4]]]), kernel_shape=[1], strides=[4], auto_pad="SAME_UPPER"), F([[[2]]]), True,
    ),
    "integers divided by 0": (one("Div", np.int32([1]), np.int32([0])), "divides an integer by 0", None),
}  # fmt: skip


def test_the_list_of_differences_is_shown() -> None:
    assert set(SHOWN) == set(DIFFERENCES)


@pytest.mark.parametrize("name", SHOWN)
def test_differences(name: str, tmp_path: Path) -> None:
    case, expected, differs = SHOWN[name]
    if case is None:
        layer = systolic.layers.LayerNormalization()
        y, mean, _ = layer.apply(F([[1, INF]]), F([1, 1]))
        assert np.isnan(y).all() and mean == INF
        return
    graph, feeds = case
    theirs = None
    if differs is not None:  # else it would end this process
        try:
            (theirs,) = runtime_outputs(graph, feeds)
        except runtime.capi.onnxruntime_pybind11_state.RuntimeException as error:
            theirs = str(error)
    else:
        graph.graph.output[0].CopyFrom(om.value("y", "int32", None))
    if isinstance(theirs, str):
        graph.graph.output[0].CopyFrom(om.value("y", "float32", None))
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            our_outputs(graph, feeds, tmp_path)
        return
    outputs = our_outputs(graph, feeds, tmp_path)
    assert outputs is not None
    np.testing.assert_array_equal(outputs[0], expected, strict=True)
    if differs:
        assert isinstance(theirs, str) or not np.array_equal(outputs[0], theirs, equal_nan=True)
