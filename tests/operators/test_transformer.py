"""Attention, QAttention and the fused operators around them, as ONNX Runtime computes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import systolic
from support import onnx_models as om
from systolic import Model
from systolic.layers import Op, QAttention

ARRAY = systolic.ArrayConfig(256, 256)
F = np.float32
Rng = np.random.Generator
Drawn = tuple[list[Any], dict[str, Any], int]
"""Inputs of an operator, None where one is absent; its attributes; how many outputs are named."""


def normal(rng: Rng, *shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(F)


def chance(rng: Rng, part: float = 0.5) -> bool:
    return bool(rng.random() < part)


def ones_and_zeros(rng: Rng, *shape: int) -> np.ndarray:
    return rng.integers(0, 2, shape).astype(np.int32)


def sizes(rng: Rng) -> tuple[int, int, int, int, int]:
    heads, head, batch, length, size = (int(n) for n in rng.integers(1, 6, 5))
    return heads, head, batch, length, size


def masks(rng: Rng, batch: int, length: int, total: int) -> list[Any]:
    ends = rng.integers(1, total + 1, batch).astype(np.int32)
    return [
        None, ends, np.concatenate([ends, rng.integers(0, 2, batch).astype(np.int32)]),
        ones_and_zeros(rng, batch, total), np.ones((batch, 1), np.int32), np.ones((1, 1), np.int32),
        ones_and_zeros(rng, batch, length, total),
    ]  # fmt: skip


def common(rng: Rng, heads: int) -> dict[str, Any]:
    found: dict[str, Any] = {"num_heads": heads}
    if chance(rng, 0.4):
        found["unidirectional"] = 1
    if chance(rng, 0.3):
        found["mask_filter_value"] = float(F(-rng.uniform(1, 50)))
    if chance(rng, 0.3):
        found["scale"] = float(F(rng.uniform(0.1, 1)))
    return found


def attention(rng: Rng) -> Drawn:
    heads, head, batch, length, size = sizes(rng)
    width = heads * head
    past = normal(rng, 2, batch, heads, int(rng.integers(4)), head) if chance(rng) else None
    value = width if past is not None or chance(rng) else heads * int(rng.integers(1, 6))
    attributes = common(rng, heads)
    if value != width:
        attributes["qkv_hidden_sizes"] = [width, width, value]
    total = length + (0 if past is None else past.shape[3])
    added = normal(rng, int(rng.choice([1, batch])), int(rng.choice([1, heads])), length, total)
    mask = masks(rng, batch, length, total)[rng.integers(7)]
    columns = 2 * width + value
    inputs = [
        normal(rng, batch, length, size), normal(rng, size, columns),
        normal(rng, columns) if chance(rng, 0.8) else None, mask, past,
        added if past is None and chance(rng) else None,
    ]  # fmt: skip
    return inputs, attributes, 2 if past is not None or (value == width and chance(rng)) else 1


def q_attention(rng: Rng) -> Drawn:
    heads, head, batch, length, size = sizes(rng)
    columns = 3 * heads * head
    dtype = str(rng.choice(["int8", "uint8"]))
    limits = np.iinfo(dtype)
    past = normal(rng, 2, batch, heads, int(rng.integers(4)), head) if chance(rng) else None
    total = length + (0 if past is None else past.shape[3])
    channels = (columns,) if chance(rng) else ()
    zeros = rng.integers(limits.min, limits.max, channels if chance(rng) else (), endpoint=True).astype(dtype)
    inputs = [
        rng.integers(0, 256, (batch, length, size)).astype(np.uint8),
        rng.integers(limits.min, limits.max, (size, columns), endpoint=True).astype(dtype),
        normal(rng, columns), F(0.02), rng.uniform(0.001, 0.02, channels).astype(F),
        masks(rng, batch, length, total)[rng.integers(7)],
        np.uint8(rng.integers(256)) if chance(rng, 0.7) else None, zeros if chance(rng, 0.7) else None, past,
    ]  # fmt: skip
    return inputs, common(rng, heads), 2 if past is not None or chance(rng) else 1


def skip_layer_normalization(rng: Rng) -> Drawn:
    batch, length, size = (int(n) for n in rng.integers(1, 6, 3))
    dtype = np.float16 if chance(rng, 0.2) else F
    x, skip = normal(rng, batch, length, size + 1), normal(rng, batch, length, size + 1)
    skip = [skip, skip[:1], skip[0]][rng.integers(3)]
    if chance(rng, 0.2):
        x, skip = x[0], skip.reshape(-1, length, size + 1)[0]
    rows = [normal(rng, size + 1), *(normal(rng, size + 1) if chance(rng) else None for _ in range(2))]
    attributes = {"epsilon": 1e-3} if chance(rng) else {}
    inputs = [None if value is None else value.astype(dtype) for value in (x, skip, *rows)]
    return inputs, attributes, 4 if dtype is F and chance(rng) else 1


def embed_layer_normalization(rng: Rng) -> Drawn:
    batch, length, size = (int(n) for n in rng.integers(1, 6, 3))
    ids, segments = (rng.integers(0, n, (batch, length)).astype(np.int32) for n in (7, 2))
    with_segments = chance(rng, 0.7)
    places = rng.integers(0, 9, (int(rng.choice([1, batch])), length)).astype(np.int32)
    inputs = [
        ids, segments if with_segments else None, normal(rng, 7, size + 1), normal(rng, 9, size + 1),
        normal(rng, 2, size + 1) if with_segments else None, normal(rng, size + 1), normal(rng, size + 1),
        ones_and_zeros(rng, batch, length) * 2 - 1 if chance(rng) else None, places if chance(rng) else None,
    ]  # fmt: skip
    return inputs, {"epsilon": 1e-3} if chance(rng) else {}, 3 if chance(rng) else 2


def bias_gelu(rng: Rng) -> Drawn:
    shape = tuple(int(n) for n in rng.integers(1, 5, rng.integers(1, 4)))
    return [normal(rng, *shape), normal(rng, shape[-1])], {}, 1


OPERATORS = {
    "Attention": attention,
    "BiasGelu": bias_gelu,
    "EmbedLayerNormalization": embed_layer_normalization,
    "QAttention": q_attention,
    "SkipLayerNormalization": skip_layer_normalization,
}


def case(name: str, seed: int, moving: tuple[int, ...] = (0,)) -> om.Case:
    inputs, attributes, count = OPERATORS[name](np.random.default_rng(seed))
    graph, feeds = om.single(f"com.microsoft.{name}", inputs, moving, **attributes)
    outputs = [f"y{place}" for place in range(count)]
    del graph.graph.node[0].output[:], graph.graph.output[:]
    graph.graph.node[0].output.extend(outputs)
    graph.graph.output.extend(om.value(output, "float32", None) for output in outputs)
    return om.typed(graph), feeds


def theirs(path: Path, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """ONNX Runtime's outputs, without int16 that saturates where there is no VNNI."""
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.x64quantprecision", "1")
    return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, feeds)


def assert_near(output: np.ndarray, expected: np.ndarray) -> None:
    assert (output.dtype, output.shape) == (expected.dtype, expected.shape)
    if output.dtype.kind != "f":
        np.testing.assert_array_equal(output, expected)
        return
    few = 2e-3 if output.dtype == np.float16 else 2e-5
    np.testing.assert_allclose(output, expected, rtol=few, atol=few * float(np.abs(expected).max(initial=0)))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.slow
def test_equals_onnxruntime(name: str, seed: int, tmp_path: Path) -> None:
    graph, feeds = case(name, seed)
    path = om.save(graph, tmp_path)
    model = systolic.load_onnx(path)
    run = systolic.run(model, feeds, machine=ARRAY, mode="wavefront")
    expected = theirs(path, feeds)
    for output, want in zip(run.outputs.values(), expected, strict=True):
        assert_near(output, want)
    if name == "QAttention" and len(expected) > 1:  # keys and values: of integers, every bit
        np.testing.assert_array_equal(run.outputs["y1"], expected[1])
    (layer,) = run.layers
    assert (layer.layer, bool(layer.stats.macs)) == (name, name == "QAttention")
    assert systolic.estimate(model, machine=ARRAY, shapes={k: v.shape for k, v in feeds.items()}) == run.stats


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", OPERATORS)
def test_the_model_comes_back(name: str, seed: int, tmp_path: Path) -> None:
    graph, feeds = case(name, seed)
    model = systolic.load_onnx(om.save(graph, tmp_path))
    systolic.save_onnx(model, tmp_path / "again.onnx")
    again = systolic.load_onnx(tmp_path / "again.onnx")
    assert again == model
    for output, want in zip(
        theirs(tmp_path / "again.onnx", feeds), theirs(tmp_path / "model.onnx", feeds), strict=True
    ):
        np.testing.assert_array_equal(output, want)
    model.save(tmp_path / "m")
    assert Model.load(tmp_path / "m") == model


@pytest.mark.parametrize("name", OPERATORS)
def test_in_a_subgraph(name: str, tmp_path: Path) -> None:
    """The branch of an If is ONNX Runtime's as a whole."""
    graph, feeds = case(name, 2)
    path = om.save(graph, tmp_path)
    expected = systolic.run(systolic.load_onnx(path), feeds, mode="wavefront").outputs
    (node,), names = graph.graph.node, [output.name for output in graph.graph.output]
    then = onnx.GraphProto(name="then", node=[node], output=graph.graph.output)
    zeros = {n: onnx.numpy_helper.from_array(np.zeros(1, value.dtype)) for n, value in expected.items()}
    other = onnx.GraphProto(
        name="else",
        node=[om.node("ConstantOfShape", ["none"], f"other {n}", value=zeros[n]) for n in names],
        output=[om.value(f"other {n}", expected[n].dtype.name, None) for n in names],
    )
    choice = om.node("If", ["which"], names, name="choice", then_branch=then, else_branch=other)
    del graph.graph.node[:]
    graph.graph.node.append(choice)
    graph.graph.input.append(om.value("which", "bool", ()))
    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(0, np.int64), "none"))
    model = systolic.load_onnx(om.save(graph, tmp_path))
    for which in (True, False):
        run = systolic.run(model, {**feeds, "which": np.array(which)}, mode="wavefront")
        for output, want in zip(run.outputs.values(), expected.values(), strict=True):
            assert_near(output, want if which else np.zeros((), want.dtype))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"past_present_share_buffer": 1}, "past_present_share_buffer is not supported"),
        ({"num_heads": 5}, "24 columns of weights are no query, key and value of 5 heads"),
        ({"mask_index": (3,)}, r"mask_index must be \(2,\) or \(4,\) or \(2, 5\)"),
        ({"past": (2, 2, 4, 3, 1)}, r"past must be \(2, 2, 4, length, 2\), not \(2, 2, 4, 3, 1\)"),
        ({"attention_bias": (2, 3, 5, 5)}, r"attention_bias must be \(2, 4, 5, 5\)"),
    ],
)
def test_attention_that_does_not_fit_is_refused(changed: dict[str, Any], message: str) -> None:
    names = ("mask_index", "past", "attention_bias")
    given = {name: changed.pop(name) for name in names if name in changed}
    absent = [place for place, name in enumerate(names, 3) if name not in given]
    layer = Op("Attention", {"num_heads": 4, **changed}, absent)
    with pytest.raises(ValueError, match=message):
        layer.output_shape((2, 5, 6), (6, 24), (24,), *given.values())


def test_indices_beyond_a_table_are_refused() -> None:
    table, row = np.zeros((3, 2), F), np.zeros(2, F)
    layer = Op("EmbedLayerNormalization", (), (1, 4))
    with pytest.raises(ValueError, match=r"takes indices in 0..2"):
        layer.apply(np.int32([[0, 3]]), table, table, row, row)


def test_fields_of_attention_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="attribute num_heads is missing"):
        Op("Attention")
    with pytest.raises(ValueError, match="in this order"):
        QAttention(2, given=("past", "mask_index"))
    with pytest.raises(TypeError, match="x must hold uint8, not int8"):
        QAttention(2).output_dtype("int8", "int8", "float32", "float32", "float32")


def test_why_attention_is_off_the_array(tmp_path: Path) -> None:
    model = systolic.load_onnx(om.save(case("Attention", 0)[0], tmp_path))
    (node,) = systolic.summary(model).off_array
    assert (node.layer, node.reason) == ("Attention", "its operands are float32: quantize the model first (docs/quantize.md)")
