"""Forward and backward passes on the array: equal to derivatives in numpy, and bit for bit to the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import systolic
from support.planted import planted
from support.strategies import raises
from systolic import ArrayConfig, Model, Node, engine, training
from systolic.dataflows import DATAFLOWS
from systolic.layers import ArrayConv, ArrayMatMul, Flatten, Relu
from systolic.layers.float_products import COMPUTE
from systolic.training import passes

F = np.float32
SMALL = ArrayConfig(5, 4)


def small(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Small integers, whose sums are exact in every format and order."""
    return rng.integers(-3, 4, shape).astype(F)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(F)


def derived(
    x: np.ndarray, w: np.ndarray, dy: np.ndarray | None, stride: Any, pads: Any, dilation: Any, groups: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    """Return y, a gradient of it, and those of x and w: element by element of the kernel, in float64."""
    (oc, icg, kh, kw), (ih, iw) = w.shape, x.shape[2:]
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), *pads))
    oh, ow = (
        (size - gap * (k - 1) - 1) // step + 1
        for size, gap, k, step in zip(padded.shape[2:], dilation, (kh, kw), stride, strict=True)
    )
    y, dx, dw = np.zeros((len(x), oc, oh, ow)), np.zeros(padded.shape), np.zeros(w.shape)
    dy = small(rng, *y.shape) if dy is None else dy
    for o, c, i, j in np.ndindex(*w.shape):
        rows = slice(i * dilation[0], i * dilation[0] + stride[0] * (oh - 1) + 1, stride[0])
        cols = slice(j * dilation[1], j * dilation[1] + stride[1] * (ow - 1) + 1, stride[1])
        seen = (slice(None), o // (oc // groups) * icg + c, rows, cols)
        y[:, o] += padded[seen] * w[o, c, i, j]
        dx[seen] += dy[:, o] * w[o, c, i, j]
        dw[o, c, i, j] = (padded[seen] * dy[:, o]).sum()
    (top, _), (left, _) = pads
    return y, dy, dx[:, :, top : top + ih, left : left + iw], dw


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_convolutions(data: st.DataObject) -> None:
    """Any geometry, groups, dataflow and format; padding beyond the kernel, pixels that no window reads."""
    draw = data.draw
    few, pair = st.integers(1, 3), st.tuples(st.integers(1, 3), st.integers(1, 3))
    groups, kernel, stride = draw(st.integers(1, 2)), draw(pair), draw(pair)
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    pads = draw(st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 2))
    least = [gap * (k - 1) + 1 - sum(p) for gap, k, p in zip(dilation, kernel, pads, strict=True)]
    image = [max(n, 1) + draw(st.integers(0, 4)) for n in least]
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    x = small(rng, draw(few), draw(few) * groups, *image)
    w = small(rng, draw(few) * groups, x.shape[1] // groups, *kernel)
    y, dy, dx, dw = derived(x, w, None, stride, pads, dilation, groups, rng)
    array = ArrayConfig(draw(st.integers(1, 5)), draw(st.integers(1, 5)), dataflow=draw(st.sampled_from([*DATAFLOWS])))
    how: dict[str, Any] = {
        "stride": stride, "padding": pads, "dilation": dilation, "groups": groups, "array": array,
        "compute": draw(st.sampled_from(COMPUTE)), "mode": draw(st.sampled_from(engine.MODES)),
    }  # fmt: skip
    for got, wanted in (
        (training.conv2d(x, w, **how), y),
        (training.conv2d_backward_data(dy, w, (image[0], image[1]), **how), dx),
        (training.conv2d_backward_weight(x, dy, kernel, **how), dw),
    ):
        assert got.value.dtype == F
        np.testing.assert_array_equal(got.value, wanted)
        np.testing.assert_array_equal(got.value, got.expected())
        assert got.stats == systolic.estimate(got.gemm, machine=got.array)


@settings(max_examples=30, deadline=None)
@given(m=st.integers(1, 7), k=st.integers(1, 7), n=st.integers(1, 7), compute=st.sampled_from(COMPUTE), mode=st.sampled_from(engine.MODES))
def test_dense_layers(m: int, k: int, n: int, compute: str, mode: str) -> None:
    x, w, dy, bias = normal(m, k), normal(k, n, seed=1), normal(m, n, seed=2), normal(n, seed=3)
    how: Any = {"compute": compute, "mode": mode, "array": SMALL}
    step = training.dense(x, w, bias, **how), training.dense_backward_data(dy, w, **how), training.dense_backward_weight(x, dy, **how)
    rough = {"bfloat16": 0.01, "float16": 0.002, "float8_e4m3fn": 0.1, "float8_e5m2": 0.2}[compute]
    for got, wanted in zip(step, (x @ w + bias, dy @ w.T, x.T @ dy), strict=True):
        np.testing.assert_array_equal(got.value, got.expected())
        np.testing.assert_allclose(got.value, wanted, atol=rough * 8)
    assert [p.gemm for p in step] == [systolic.Gemm(m, k, n), systolic.Gemm(m, n, k), systolic.Gemm(k, m, n)]


def test_both_kinds_of_float8() -> None:
    """Gradients with the wider exponent, as is usual."""
    x, w, dy = normal(6, 5), normal(5, 4, seed=1), normal(6, 4, seed=2) * F(1e4)
    how: Any = {"compute": "float8_e4m3fn", "gradients": "float8_e5m2", "array": SMALL}
    data, weight = training.dense_backward_data(dy, w, **how), training.dense_backward_weight(x, dy, **how)
    assert repr(data).startswith("<Pass 6 x 4 x 5 in float8_e5m2 x float8_e4m3fn: ")
    assert "6 x 4 x 5" in data._repr_html_() and "<table" in data._repr_html_()
    assert (weight.array.activation_dtype, weight.array.weight_dtype) == ("float8_e4m3fn", "float8_e5m2")
    for done in (data, weight):
        assert np.isfinite(done.value).all()
        np.testing.assert_array_equal(done.value, done.expected())
    narrow = training.dense_backward_data(dy, w, compute="float8_e4m3fn", array=SMALL)
    assert np.isnan(narrow.value).any()  # 1e4 is beyond it


@pytest.mark.parametrize("groups", [1, 2])
def test_gradients_are_those_of_torch(groups: int) -> None:
    torch = pytest.importorskip("torch")
    x, w = normal(2, 4, 7, 6), normal(6, 4 // groups, 3, 2, seed=1)
    how: Any = {"stride": (2, 1), "dilation": (1, 2), "groups": groups}
    tx, tw = (torch.tensor(each, requires_grad=True) for each in (x, w))
    y = torch.nn.functional.conv2d(tx, tw, padding=(1, 2), **how)
    dy = normal(*y.shape, seed=2)
    y.backward(torch.tensor(dy))
    options: Any = {**how, "padding": (1, 2), "array": ArrayConfig(16, 16), "compute": "float16"}
    for got, wanted in (
        (training.conv2d(x, w, **options), y.detach()),
        (training.conv2d_backward_data(dy, w, (7, 6), **options), tx.grad),
        (training.conv2d_backward_weight(x, dy, (3, 2), **options), tw.grad),
    ):
        np.testing.assert_allclose(got.value, wanted.numpy(), atol=0.05)


def test_a_wrong_gradient_is_seen() -> None:
    """Without the rotation of kernels, the reference agrees with the array, and the derivative does not."""
    rng = np.random.default_rng(0)
    x, w = small(rng, 1, 1, 5, 5), small(rng, 2, 1, 3, 3)
    _, dy, dx, _ = derived(x, w, None, (1, 1), ((0, 0), (0, 0)), (1, 1), 1, rng)
    with planted(passes, "per_group[..., ::-1, ::-1]", "per_group"):
        got = passes.conv2d_backward_data(dy, w, (5, 5), array=SMALL)
    assert not np.array_equal(got.value, dx) and np.array_equal(got.value, got.expected())


# Costs


def network() -> Model:
    nodes = [
        Node(ArrayConv("bfloat16", padding=1, stride=2, groups=2), ("x", "w"), "conv"),
        Node(Relu(), "conv", "relu"),
        Node(Flatten(), "relu", "flat"),
        Node(ArrayMatMul("bfloat16"), ("flat", "m"), "y"),
    ]
    constants = {"w": normal(4, 1, 3, 3), "m": normal(64, 10)}
    return Model(nodes, inputs={"x": ((None, 2, 8, 8), "float32")}, constants=constants)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_costs_are_those_of_the_passes(dataflow: str) -> None:
    array = ArrayConfig(7, 5, dataflow=dataflow)
    found = training.costs(network(), machine=array, batch=3)
    conv: Any = {"padding": 1, "stride": 2, "groups": 2, "array": array, "mode": "wavefront"}
    x, w, m = normal(3, 2, 8, 8), normal(4, 1, 3, 3), normal(64, 10)
    y, dy = training.conv2d(x, w, **conv), normal(3, 10)
    done = [
        {"forward": y, "backward_weight": training.conv2d_backward_weight(x, y.value, (3, 3), **conv)},
        {
            "forward": training.dense(y.value.reshape(3, -1), m, array=array),
            "backward_data": training.dense_backward_data(dy, m, array=array),
            "backward_weight": training.dense_backward_weight(y.value.reshape(3, -1), dy, array=array),
        },
    ]
    for layer, ran in zip(found.layers, done, strict=True):
        assert layer.gemms == {name: each.gemm for name, each in ran.items()}
        assert layer.stats == {name: each.stats for name, each in ran.items()}
    assert found.stats == sum(found.totals.values(), systolic.Stats())
    assert found._repr_html_().startswith("<table") and "backward weight cycles" in found._repr_html_()
    assert "backward weight cycles" in str(found) and "total" in str(found)


def test_the_gradient_of_a_convolutions_input_is_costed_behind_a_layer() -> None:
    first = network().nodes[0]
    again = Node(ArrayConv("bfloat16", padding=1), ("conv", "v"), "more")
    model = Model([first, again], inputs=network().inputs, constants={"w": normal(4, 1, 3, 3), "v": normal(6, 4, 3, 3)})
    layer = training.costs(model, machine=SMALL, batch=2).layers[1]
    conv: Any = {"padding": 1, "array": SMALL, "mode": "wavefront"}
    data = training.conv2d_backward_data(normal(2, 6, 4, 4), normal(6, 4, 3, 3), (4, 4), **conv)
    assert layer.gemms["backward_data"] == data.gemm and layer.stats["backward_data"] == data.stats


def test_products_of_what_is_computed_need_the_gradients_of_both() -> None:
    """As in attention; of an input of the model neither."""
    nodes = [
        Node(ArrayMatMul("bfloat16"), ("x", "w"), "q"),
        Node(ArrayMatMul("bfloat16", transpose_b=True), ("q", "q"), "scores"),
        Node(ArrayMatMul("bfloat16"), ("scores", "x"), "y"),
    ]
    model = Model(nodes, inputs={"x": ((5, 4), "float32")}, constants={"w": normal(4, 4)})
    found = [[*layer.gemms] for layer in training.costs(model, machine=SMALL).layers]
    assert found == [["forward", "backward_weight"], [*training.PASSES], ["forward", "backward_data"]]


# Bad input


def test_errors() -> None:
    x, w = normal(2, 3), normal(3, 4)
    formats = ", ".join(map(repr, COMPUTE))
    with raises(ValueError, f"compute must be one of {formats}, not 'int8'"):
        training.dense(x, w, compute="int8")
    with raises(ValueError, f"gradients must be one of {formats}, not 'x'"):
        training.dense_backward_data(normal(2, 4), w, gradients="x")
    with raises(ValueError, "x (2, 3) and w (4, 3) must share K"):
        training.dense(x, w.T)
    with raises(ValueError, "x must be (M, K), not (2,)"):
        training.dense(x[:, 0], w)
    with raises(ValueError, "dy (2, 3) and w (3, 4) must share N"):
        training.dense_backward_data(x, w)
    with raises(ValueError, "x (2, 3) and dy (3, 4) must share M"):
        training.dense_backward_weight(x, w)
    with raises(ValueError, "bias must be (4,), one for each output, not (3,)"):
        training.dense(x, w, normal(3))
    with raises(TypeError, "x must hold numbers, not <U1"):
        training.dense([["a"]], w)
    with raises(ValueError, "mode must be one of 'cycle', 'wavefront', not 'fast'"):
        training.dense(x, w, mode="fast")
    with raises(ValueError, "dy must have the shape of the layer's output, (2, 4, 4, 4), not (2, 4, 3, 3)"):
        training.conv2d_backward_data(normal(2, 4, 3, 3), normal(4, 3, 3, 3), (6, 6))
    with raises(ValueError, "dy must have the shape of the layer's output, (2, 4, 4, 4), not (2, 4, 3, 3)"):
        training.conv2d_backward_weight(normal(2, 3, 6, 6), normal(2, 4, 3, 3), (3, 3))
    with raises(ValueError, "groups must divide the channels of x (2, 3, 6, 6) and of dy (2, 4, 4, 4), not 2"):
        training.conv2d_backward_weight(normal(2, 3, 6, 6), normal(2, 4, 4, 4), (3, 3), groups=2)
    with raises(ValueError, "activations of float16 cannot be multiplied with weights of bfloat16: with float16 go weights of float16"):
        training.dense_backward_data(normal(2, 4), w, gradients="float16")
    with raises(
        ValueError,
        "the model has no product in a float format of the array to train; read it with load_onnx(path, compute=\"bfloat16\")",
    ):
        training.costs(systolic.load_example().model)
    with raises(TypeError, "model must be a Model, not str 'x.onnx'; load_onnx(path, compute=...) reads one"):
        training.costs("x.onnx")
