"""Convolutions of real numbers beside the array: against ONNX Runtime and a sum element by element."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings

import systolic
from support import onnx_models as om
from support.onnx_models import Case, F, node, single
from support.oracle_cases import fixed, seeds
from systolic import load_onnx
from systolic.layers import (
    FloatConv,
    FloatConvTranspose,
    OnnxNode,
)
from systolic.layers.host import convolve

few = settings(fixed, max_examples=60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def check(folder: Path, case: Case, kind: type) -> None:
    """Assert that one node runs by a layer of ours, within the rounding of ONNX Runtime's sums."""
    graph, feeds = case
    path = om.save(om.typed(graph), folder)
    (theirs,) = om.onnxruntime_outputs(path, feeds)
    model = load_onnx(path)
    assert [type(n.layer) for n in model.nodes] == [kind]
    (found,) = systolic.run(model, feeds).outputs.values()
    assert (found.dtype, found.shape) == (theirs.dtype, theirs.shape)
    tolerance = 1e-5 if theirs.dtype == F else 5e-2
    np.testing.assert_allclose(found, theirs, rtol=tolerance, atol=tolerance)


def geometry(rng: np.random.Generator) -> tuple[int, int, dict[str, Any], np.ndarray]:
    """Axes, groups, attributes, and the kernel."""
    rank, groups = int(rng.integers(1, 4)), int(rng.choice([1, 1, 2, 3]))
    kernel, strides, dilations = (rng.integers(1, high, rank) for high in (4, 4, 3))
    attributes: dict[str, Any] = {"group": groups, "strides": strides.tolist()}
    auto = str(rng.choice(["", "", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if auto:
        attributes["auto_pad"] = auto
    if not auto.startswith("SAME"):  # ONNX Runtime takes no dilation there
        attributes["dilations"] = dilations.tolist()
    if rng.random() < 0.5:
        attributes["kernel_shape"] = kernel.tolist()
    return rank, groups, attributes, kernel


def tensors(rng: np.random.Generator, x: Any, w: Any, oc: int) -> tuple[list[Any], list[int]]:
    dtype = rng.choice([F, F, np.float16])
    arguments = [rng.normal(size=shape).astype(dtype) for shape in (x, w, (oc,))][: rng.integers(2, 4)]
    return arguments, [i for i in range(len(arguments)) if i == 0 or rng.random() < 0.3]


@pytest.mark.slow
@few
@given(seed=seeds)
def test_conv(folder: Path, seed: int) -> None:
    pytest.importorskip("onnxruntime")
    rng = np.random.default_rng(seed)
    rank, groups, attributes, kernel = geometry(rng)
    extent = (kernel - 1) * np.array(attributes.get("dilations", [1] * rank)) + 1
    if attributes.get("auto_pad", "NOTSET") == "NOTSET":
        attributes["pads"] = rng.integers(0, 4, 2 * rank).tolist()
    sizes = extent + rng.integers(0, 5, rank)
    icg, ocg = rng.integers(1, 4, 2).tolist()
    x, w = (int(rng.integers(0, 3)), icg * groups, *sizes.tolist()), (ocg * groups, icg, *kernel.tolist())
    arguments, fed = tensors(rng, x, w, ocg * groups)
    check(folder, single("Conv", arguments, fed, **attributes), FloatConv)


ACTIVATION_PARAMS: dict[str | None, int] = {
    None: 0, "Relu": 0, "Tanh": 0, "Sigmoid": 0, "LeakyRelu": 1, "Clip": 2, "HardSigmoid": 2,
}  # fmt: skip


def fused(seed: int) -> Case:
    """A com.microsoft FusedConv with drawn attributes, with a bias or without, with a tensor to add or without."""
    rng = np.random.default_rng(seed)
    rank, groups, attributes, kernel = geometry(rng)
    extent = (kernel - 1) * np.array(attributes.get("dilations", [1] * rank)) + 1
    if attributes.get("auto_pad", "NOTSET") == "NOTSET":
        attributes["pads"] = rng.integers(0, 4, 2 * rank).tolist()
    icg, ocg = rng.integers(1, 4, 2).tolist()
    oc = ocg * groups
    x = rng.normal(size=(2, icg * groups, *(extent + rng.integers(0, 5, rank)))).astype(F)
    w = rng.normal(size=(oc, icg, *kernel)).astype(F)
    arguments: list[Any] = [x, w, rng.normal(size=oc).astype(F) if rng.random() < 0.5 else None]
    name = list(ACTIVATION_PARAMS)[rng.integers(len(ACTIVATION_PARAMS))]
    if name is not None:
        attributes["activation"] = name
        params = np.sort(rng.normal(size=ACTIVATION_PARAMS[name])).tolist()
        if params:
            attributes["activation_params"] = params
    if rng.random() < 0.5:
        plain = {key: value for key, value in attributes.items() if not key.startswith("activation")}
        graph, feeds = single("Conv", arguments[:2], **plain)
        session = om._session(om.typed(graph).SerializeToString())
        arguments.append(rng.normal(size=session.run(None, feeds)[0].shape).astype(F))
    moving = [i for i, argument in enumerate(arguments) if argument is not None and (i == 0 or rng.random() < 0.5)]
    return single("com.microsoft.FusedConv", arguments, moving, **attributes)


@few
@given(seed=seeds)
@pytest.mark.slow
def test_fused_conv(folder: Path, seed: int) -> None:
    pytest.importorskip("onnxruntime")
    graph, feeds = fused(seed)
    check(folder, (graph, feeds), FloatConv)
    # By its definition too, where ONNX Runtime does not compute it.
    path = om.save(graph, folder)
    (theirs,) = om.onnxruntime_outputs(path, feeds)
    (node,) = load_onnx(path).nodes
    layer = dataclasses.replace(node.layer, runtime_constants=None)  # type: ignore[type-var]
    values = {**feeds, **{t.name: onnx.numpy_helper.to_array(t) for t in graph.graph.initializer}}
    found = layer.apply(*(values[name] for name in node.inputs))  # type: ignore[attr-defined]
    np.testing.assert_allclose(found, theirs, rtol=1e-5, atol=1e-5)


@settings(few, max_examples=10)
@given(seed=seeds)
@pytest.mark.slow
def test_fused_conv_in_a_branch(folder: Path, seed: int) -> None:
    pytest.importorskip("onnxruntime")
    graph, feeds = fused(seed)
    (expected,) = om.onnxruntime_outputs(om.save(om.typed(graph), folder), feeds)
    (inner,) = graph.graph.node
    then = onnx.GraphProto(name="then", node=[inner], output=graph.graph.output)
    other = onnx.GraphProto(name="else", node=[node("Neg", ["i0"], "n")], output=[om.value("n", "float32", None)])
    del graph.graph.node[:]
    graph.graph.node.append(node("If", ["which"], "y", name="choice", then_branch=then, else_branch=other))
    graph.graph.input.append(om.value("which", "bool", ()))
    model = load_onnx(om.save(graph, folder))
    for which, want in ((True, expected), (False, -feeds["i0"])):
        (found,) = systolic.run(model, {**feeds, "which": np.array(which)}, mode="wavefront").outputs.values()
        np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_fused_conv_is_written_and_read_back(tmp_path: Path, seed: int) -> None:
    model = load_onnx(om.save(fused(seed)[0], tmp_path))
    systolic.save_onnx(model, tmp_path / "saved.onnx")
    assert load_onnx(tmp_path / "saved.onnx") == model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FloatConv(activation="Elu"), "activation must be one of"),
        (lambda: FloatConv(activation="Clip"), "activation 'Clip' takes 2 activation_params, not 0"),
        (lambda: FloatConv(bias=np.ones(1)), "no bias without a weight"),
        (lambda: FloatConv(np.ones((1, 1, 1)), adds=True), "reads x alone: adds must be False"),
        (
            lambda: FloatConv(adds=True).output_shape((1, 1, 4), (1, 1, 2), (1, 1, 4)),
            "adds a tensor of the output's shape [(]1, 1, 3[)], not [(]1, 1, 4[)]",
        ),
    ],
)
def test_float_conv_refuses(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.slow
@few
@given(seed=seeds)
def test_conv_transpose(folder: Path, seed: int) -> None:
    pytest.importorskip("onnxruntime")
    rng = np.random.default_rng(seed)
    rank, groups, attributes, kernel = geometry(rng)
    sizes, strides = rng.integers(1, 5, rank), np.array(attributes["strides"])
    more = rng.integers(0, strides) if rng.random() < 0.5 else np.zeros(rank, int)
    if more.any():
        attributes["output_padding"] = more.tolist()
    extent = (kernel - 1) * np.array(attributes.get("dilations", [1] * rank)) + 1
    whole = (sizes - 1) * strides + more + extent
    how = rng.integers(3)
    if how == 0 and not more.any():
        attributes["output_shape"] = [
            int(rng.integers(max(1, n - 3), n + s)) for n, s in zip(whole, strides, strict=True)
        ]
    elif how == 1 and attributes.get("auto_pad", "NOTSET") == "NOTSET":
        before = rng.integers(0, np.minimum(3, whole))
        attributes["pads"] = [
            *before.tolist(),
            *np.minimum(rng.integers(0, 3, rank), whole - before - 1).tolist(),
        ]
    icg, ocg = rng.integers(1, 4, 2).tolist()
    x, w = (int(rng.integers(0, 3)), icg * groups, *sizes.tolist()), (icg * groups, ocg, *kernel.tolist())
    arguments, fed = tensors(rng, x, w, ocg * groups)
    check(folder, single("ConvTranspose", arguments, fed, **attributes), FloatConvTranspose)


def test_patches_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    x, w = rng.normal(size=(2, 4, 9, 7)), rng.normal(size=(6, 2, 3, 2))
    layer = FloatConv(stride=(2, 1), padding=((1, 0), (0, 2)), groups=2)
    whole = layer.apply(x, w)
    for limit in (1, 100, 500):
        monkeypatch.setattr(convolve, "_PATCHES", limit)
        np.testing.assert_allclose(layer.apply(x, w), whole, rtol=1e-12)


def test_float64_element_by_element() -> None:
    """Both, and that one is the other's transpose, from the definition."""
    rng = np.random.default_rng(2)
    x, w, bias = rng.normal(size=(1, 2, 5, 6)), rng.normal(size=(4, 1, 2, 3)), rng.normal(size=4)
    y = FloatConv(stride=(2, 1), padding=((1, 0), (0, 2)), dilation=(1, 2), groups=2).apply(x, w, bias)
    expected = np.zeros_like(y)
    for o, i, j in np.ndindex(y.shape[1:]):
        total = bias[o]
        for a, b in itertools.product(range(2), range(3)):
            row, col = 2 * i + a - 1, j + 2 * b
            if 0 <= row < 5 and 0 <= col < 6:
                total += x[0, o // 2, row, col] * w[o, 0, a, b]
        expected[0, o, i, j] = total
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    assert y.dtype == np.float64
    # <conv(x), v> = <x, transpose(v)>, as they are linear and have no bias.
    conv = FloatConv(stride=2, padding=1, dilation=(1, 2), groups=2)
    v = rng.normal(size=conv.output_shape(x.shape, w.shape))
    back = FloatConvTranspose(stride=2, padding=1, dilation=(1, 2), groups=2, output_padding=(1, 1))
    u = back.apply(v, w)
    assert u.shape == x.shape
    np.testing.assert_allclose(np.vdot(conv.apply(x, w), v), np.vdot(x, u), rtol=1e-12)


def test_rounded_once() -> None:
    """1 + 2^-24 + 2^-24 is lost in float32 sums, and kept here."""
    x, w = F([[[1, 2**-24, 2**-24]]]), np.ones((1, 1, 3), F)
    assert FloatConv().apply(x, w).item() == F(1 + 2**-23)
    assert FloatConvTranspose(padding=2).apply(x, w).item() == F(1 + 2**-23)


def test_what_qdq_leaves_in_float(folder: Path) -> None:
    """A transposed convolution between Q and DQ stays float; none of its nodes is evaluated by onnx."""
    pytest.importorskip("onnxruntime")
    rng = np.random.default_rng(3)
    scale = {
        "s": F(0.1),
        "z": np.uint8(7),
        "w": rng.integers(-64, 64, (2, 3, 2, 2), dtype=np.int8),
        "ws": F(0.05),
    }
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], "q"), node("DequantizeLinear", ["q", "s", "z"], "d"),
        node("DequantizeLinear", ["w", "ws"], "dw"),
        node("ConvTranspose", ["d", "dw"], "t", strides=[2, 2]), node("QuantizeLinear", ["t", "s", "z"], "u"),
    ]  # fmt: skip
    graph = om.model(nodes, {"x": ("float32", (1, 2, 4, 4))}, ["u"], scale)
    path = om.save(om.typed(graph), folder)
    feeds = {"x": rng.normal(size=(1, 2, 4, 4)).astype(F)}
    model = load_onnx(path)
    assert any(isinstance(n.layer, FloatConvTranspose) for n in model.nodes)
    assert not any(isinstance(n.layer, OnnxNode) for n in model.nodes)
    (found,), (theirs,) = systolic.run(model, feeds).outputs.values(), om.onnxruntime_outputs(path, feeds)
    assert np.abs(found.astype(int) - theirs).max() <= 1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: FloatConv().output_shape((2, 3), (4, 3)), ValueError, "FloatConv takes x with 3 to 5 axes (batch, ic, ...), not (2, 3)"),
        (lambda: FloatConv().output_shape((1, 2, 5), (1, 2, 3, 3)), ValueError, "FloatConv takes w (oc, ic // groups, ...) with 3 axes as x has, not (1, 2, 3, 3)"),
        (lambda: FloatConv().output_shape((1, 2, 5), (4, 2, 3), (1,)), ValueError, "FloatConv: bias must have one value per output channel, (4,), not (1,)"),
        (lambda: FloatConv().output_dtype("float32", "float16"), TypeError, None),
        (lambda: FloatConv().output_dtype("int8", "int8"), TypeError, None),
        (lambda: FloatConv().output_shape((1, 2, 2), (4, 2, 3)), ValueError, None),
        (lambda: FloatConv(stride=0), ValueError, None),
        (lambda: FloatConv().apply(np.ones((1, 1, 3), F)), TypeError, None),
        (lambda: FloatConvTranspose().output_shape((1, 2, 5), (3, 2, 3)), ValueError, "FloatConvTranspose takes w (ic, oc // groups, ...) whose ic is x's, a multiple of 1 groups, not (3, 2, 3) beside x (1, 2, 5)"),
        (lambda: FloatConvTranspose().output_shape((1, 2, 0), (2, 2, 3)), ValueError, None),
        (lambda: FloatConvTranspose(padding=3).output_shape((1, 2, 2), (2, 2, 3)), ValueError, None),
        (lambda: FloatConvTranspose(stride=2, output_padding=2).output_shape((1, 2, 2), (2, 2, 3)), ValueError, "output_padding must be less than the stride 2 or the dilation 1, not 2"),
        (lambda: FloatConvTranspose(output_padding=-1), ValueError, None),
        (lambda: FloatConvTranspose(output_size=(9,)).output_shape((1, 2, 2), (2, 2, 3)), ValueError, "output_size must be less than 5 along axis 2, where kernels reach 4 elements in steps of 1, not 9"),
        (lambda: FloatConvTranspose(output_size=(4, 4)).output_shape((1, 2, 2), (2, 2, 3)), ValueError, "output_size must hold 1 numbers, one per axis, not (4, 4)"),
        (lambda: FloatConvTranspose(stride=1 << 40).output_shape((1, 2, 2), (2, 2, 3)), ValueError, None),
    ],
)  # fmt: skip
def test_layers_refuse(call: Any, error: Any, message: str | None) -> None:
    with pytest.raises(error) as caught:
        call()
    assert message is None or str(caught.value) == message
