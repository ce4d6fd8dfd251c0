"""Errors suggest what fits once axes are permuted, and nothing where nothing does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import systolic
from systolic import ArrayConfig, Model, QuantParams, SystolicArray, conv2d, matmul, quantize, run
from systolic._hints import nearest, other_axis, other_images, other_order, other_product
from systolic.layers import (
    Conv2d,
    Dense,
    FloatConv,
    FloatMatMul,
    MatMulInteger,
    QLinearConv,
    QLinearMatMul,
    Relu,
)

Q = QuantParams(0.5)


def ones(*shape: int, dtype: type = np.int8) -> np.ndarray:
    return np.ones(shape, dtype)


def given_input(shape: tuple[int | None, ...], value: np.ndarray) -> None:
    run(Model([Relu()], inputs={"x": (shape, "float32")}), value, mode="wavefront")


SCALES = QuantParams([0.5] * 5, axis=1)
F = np.float32

# What is called, and how the error ends.
CASES: dict[str, tuple[Callable[[], Any], str]] = {
    "quantize": (lambda: quantize(ones(5, 3, dtype=F), SCALES), "not 3 (5, 3); they fit axis=0"),
    "quantize nowhere": (lambda: quantize(ones(4, 3, dtype=F), SCALES), "one per scale, not 3 (4, 3)"),
    "dequantize": (lambda: systolic.dequantize(ones(5, 3, 5), SCALES), "; they fit axis=0 or axis=2"),
    "QuantizeLinear": (lambda: systolic.layers.QuantizeLinear(SCALES).output_shape((5, 3)), "not (5, 3); they fit axis=0"),
    "DequantizeLinear": (
        lambda: systolic.layers.DequantizeLinear(axis=1).output_shape((5, 3), (5,)),
        "; they fit axis=0",
    ),
    "matmul w": (lambda: matmul(ones(2, 5), ones(3, 5)), "and w is (3, 5); w.T fits"),
    "matmul x": (lambda: matmul(ones(5, 2), ones(5, 3)), "and w is (5, 3); x.T fits"),
    "matmul never": (lambda: matmul(ones(2, 5), ones(3, 4)), "and w is (3, 4)"),
    "fold": (lambda: SystolicArray(ArrayConfig(8, 8)).fold(x=ones(2, 5), w=ones(3, 5)), "; w.T fits"),
    "QLinearMatMul": (lambda: Dense(ones(3, 5), x=Q, w=Q, y=Q).output_shape((1, 5)), "not (1, 5); w.T fits"),
    "FloatMatMul that holds a weight": (lambda: FloatMatMul(ones(3, 5, dtype=F)).output_shape((1, 5)), "; w.T fits"),
    "QLinearMatMul of tensors": (lambda: QLinearMatMul(x=Q, w=Q, y=Q).output_shape((2, 5), (3, 5)), "; w.T fits"),
    "MatMulInteger": (lambda: MatMulInteger().output_shape((2, 5), (3, 5)), "; w.T fits"),
    "FloatMatMul": (lambda: FloatMatMul().output_shape((2, 5), (3, 5)), "(3, 5); b.T fits"),
    "conv2d NHWC": (
        lambda: conv2d(ones(1, 8, 6, 3), ones(4, 3, 2, 2)),
        "; x.transpose(0, 3, 1, 2) fits, if x is channels last (NHWC)",
    ),
    "conv2d NCHW": (
        lambda: conv2d(ones(1, 3, 8, 6), ones(4, 3, 2, 2), layout="NHWC"),
        "; x.transpose(0, 2, 3, 1) fits, if x is channels first (NCHW)",
    ),
    "conv2d w HWIO": (
        lambda: conv2d(ones(1, 3, 8, 6), ones(2, 2, 3, 4)),
        "; w.transpose(3, 2, 0, 1) fits, if w is in another layout",
    ),
    "conv2d w OHWI": (
        lambda: conv2d(ones(1, 3, 8, 6), ones(4, 2, 2, 3)),
        "; w.transpose(0, 3, 1, 2) fits, if w is in another layout",
    ),
    "conv2d w IOHW": (
        lambda: conv2d(ones(1, 3, 8, 6), ones(3, 4, 2, 2)),
        "; w.transpose(1, 0, 2, 3) fits, if w is in another layout",
    ),
    "conv2d never": (lambda: conv2d(ones(1, 3, 8, 6), ones(4, 5, 2, 2)), "w is (oc, ic // groups, kh, kw)"),
    "Conv2d": (
        lambda: Conv2d(ones(4, 3, 2, 2), x=Q, w=Q, y=Q).output_shape((1, 8, 6, 3)),
        "if x is channels last (NHWC)",
    ),
    "lines": (
        lambda: QLinearConv(ones(4, 3, 2), x=Q, w=Q, y=Q).output_shape((1, 8, 3)),
        "; x.transpose(0, 2, 1) fits, if x is channels last",
    ),
    "FloatConv": (
        lambda: FloatConv().output_shape((1, 8, 6, 3), (4, 3, 2, 2)),
        "if x is channels last (NHWC)",
    ),
    "input NHWC": (
        lambda: given_input((None, 3, 8, 6), ones(1, 8, 6, 3, dtype=F)),
        "not (1, 8, 6, 3); x.transpose(0, 3, 1, 2) fits, if x is channels last (NHWC)",
    ),
    "input NCHW": (
        lambda: given_input((None, 8, 6, 3), ones(2, 3, 8, 6, dtype=F)),
        "; x.transpose(0, 2, 3, 1) fits, if x is channels first (NCHW)",
    ),
    "input transposed": (lambda: given_input((None, 3), ones(3, 7, dtype=F)), "not (3, 7); x.T fits"),
    "input without batch": (
        lambda: given_input((None, 3, 8, 6), ones(3, 8, 6, dtype=F)),
        "; x[None] fits, a batch of one",
    ),
    "input never": (lambda: given_input((None, 3, 8, 6), ones(1, 4, 8, 6, dtype=F)), "not (1, 4, 8, 6)"),
    "input float64": (
        lambda: given_input((None, 3), ones(1, 3, dtype=np.float64)),
        "must hold float32, not float64; convert with .astype('float32')",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_suggestions(name: str) -> None:
    call, end = CASES[name]
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    assert str(caught.value).endswith(end), str(caught.value)


def test_scales_of_a_model_that_fit_another_axis(tmp_path: Any) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    constants = {"x": ones(525, 3), "s": ones(525, dtype=F), "z": np.zeros(525, np.int8)}
    node = helper.make_node("DequantizeLinear", ["x", "s", "z"], ["y"])
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("i", 1, [1])], [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert onnx is not None
    with pytest.raises(ValueError, match=r"525 channels along axis 1, .*; they fit axis=0$"):
        systolic.load_onnx(tmp_path / "m.onnx")


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(1, 4), st.data())
def test_what_is_suggested_fits(shape: list[int], count: int, data: st.DataObject) -> None:
    x, rank = np.zeros(shape), len(shape)
    hint = other_axis(shape, count)
    assert (count in shape) == bool(hint)
    wanted = data.draw(st.lists(st.none() | st.integers(1, 4), min_size=rank, max_size=rank + 1))
    hint = other_order("x", shape, wanted)
    if hint:
        fitting = eval(hint[2:].split(" fits")[0], {"x": x})
        assert [w for w in zip(fitting.shape, wanted, strict=True) if w[1] is not None and w[0] != w[1]] == []


@given(
    st.lists(st.integers(1, 4), min_size=4, max_size=4),
    st.lists(st.integers(1, 4), min_size=4, max_size=4),
    st.sampled_from(["NCHW", "NHWC"]),
)
def test_what_is_suggested_for_convolutions_fits(x: list[int], w: list[int], layout: str) -> None:
    hint = other_images(x, w, 1, layout)
    if hint:
        names = {"x": np.zeros(x), "w": np.zeros(w)}
        target = hint[2]
        names[target] = eval(hint[2:].split(" fits")[0], names)
        assert names["x"].shape[1 if layout == "NCHW" else 3] == names["w"].shape[1]


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_what_is_suggested_for_products_fits(m: int, k: int, kw: int, n: int) -> None:
    hint = other_product((m, k), (kw, n))
    names = {"x": np.zeros((m, k)), "w": np.zeros((kw, n))}
    assert ("w.T" in hint) == (k == n) and bool(hint) == (k == n or m == kw)
    if hint:
        names[hint[2]] = names[hint[2]].T
        assert names["x"].shape[1] == names["w"].shape[0]


def test_the_nearest_name() -> None:
    assert nearest("conv_1", ["Conv1", "Gemm"]) == "did you mean 'Conv1'?"
    assert nearest("xyz", ["Conv1", "Gemm"]) == "known are Conv1, Gemm"
    names = [f"node{n}" for n in range(23)]
    assert nearest("xyz", names) == f"known are {', '.join(names[:20])} and 3 more"
