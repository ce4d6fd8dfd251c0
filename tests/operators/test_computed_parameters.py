"""QLinear products whose parameters are computed at run time: edges, against ONNX Runtime and formulas.

Random cases of them stand in test_array_operators.py.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import systolic
from support import onnx_models as om
from support.array_runs import check, run_one
from support.onnx_models import F, single
from systolic import QuantParams, load_onnx
from systolic.layers import Conv2d, Dense, QLinearConv, QLinearMatMul
from systolic.presets import TPU_V1
from systolic.verifier import ModelCheck


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


RNG = np.random.default_rng(5)
X, W = RNG.integers(0, 256, (2, 3, 4), dtype=np.uint8), RNG.integers(0, 256, (2, 4, 5), dtype=np.uint8)
IMAGE, KERNEL = X[:, :, None], RNG.integers(0, 256, (5, 3, 1, 2), dtype=np.uint8)
ZERO = np.uint8(3)
EIGHT = range(8)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="others order NaN in their own way")
@pytest.mark.parametrize("which", (1, 4, 6))
@pytest.mark.parametrize("scale", (0.0, -0.5, np.inf, np.nan, 1e-40, 3e38))
def test_scales_may_be_anything(folder: Path, scale: float, which: int) -> None:
    pytest.importorskip("onnxruntime")
    for op, x, w in (("QLinearMatMul", X, W), ("QLinearConv", IMAGE, KERNEL)):
        arguments: list[Any] = [x, F(0.1), ZERO, w, F(0.1), ZERO, F(3), ZERO]
        arguments[which] = F(scale)
        graph, feeds = single(op, arguments, EIGHT)
        path = om.save(om.typed(graph), folder)
        (theirs,) = om.onnxruntime_outputs(path, feeds)
        oracles = ModelCheck(TPU_V1, "wavefront")
        run = systolic.run(load_onnx(path), feeds, mode="wavefront", observe=oracles)
        (codes,) = run.outputs.values()
        np.testing.assert_array_equal(codes, theirs)
        assert not oracles.mismatches and not oracles.not_checked


@pytest.mark.parametrize("which", [(1,), (4,), (6,), (1, 4, 6)])
def test_half_precision_scales(folder: Path, which: tuple[int, ...]) -> None:
    """ONNX Runtime takes float16 for all scales of a QLinearMatMul, or for none."""
    arguments: list[Any] = [X, F(0.1), ZERO, W, F([[[0.1, 0.3, 0.2, 0.7, 0.01]]] * 2), ZERO, F(30), ZERO]
    arguments[5] = np.full((2, 1, 5), 3, np.uint8)
    half = [a.astype(np.float16) if i in which else a for i, a in enumerate(map(np.asarray, arguments))]
    single_ = [a.astype(F) if i in which else a for i, a in enumerate(half)]
    if len(which) == 3:
        pytest.importorskip("onnxruntime")
        check(folder, single("QLinearMatMul", half, EIGHT))
    (a,), (b,) = run_one(QLinearMatMul(), *half), run_one(QLinearMatMul(), *single_)
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("y", [QuantParams(3.0, 7), None])
def test_equals_the_layers_of_constant_parameters(y: QuantParams | None) -> None:
    x, w = (
        QuantParams(0.1, 3, "uint8"),
        QuantParams([0.1, 0.3, 0.2, 0.7, 0.01], [1, 2, 3, 4, 5], "uint8", axis=1),
    )
    bias = np.arange(-2000, 3000, 1000, dtype=np.int32)
    given = (
        X,
        F(0.1),
        ZERO,
        W[0],
        w.scales,
        w.zero_points,
        *(() if y is None else (y.scales, y.zero_points)),
    )
    (expected,) = run_one(Dense(W[0], x=x, w=w, y=y, bias=bias), X)
    (found,) = run_one(QLinearMatMul(), *given, bias)
    np.testing.assert_array_equal(found, expected)
    (exchanged,) = run_one(
        QLinearMatMul(transpose_x=True, transpose_w=True),
        *(np.ascontiguousarray(a.swapaxes(-1, -2)) if i in (0, 3) else a for i, a in enumerate(given)), bias,
    )  # fmt: skip
    np.testing.assert_array_equal(exchanged, expected)
    if y is not None:
        each = QuantParams(w.scale, w.zero_point, "uint8", axis=0)
        (expected,) = run_one(
            Conv2d(KERNEL, x=x, w=each, y=y, bias=bias, stride=2, padding=((1, 0), (0, 1))), IMAGE
        )
        layer = QLinearConv(stride=2, padding=((1, 0), (0, 1)))
        (found,) = run_one(layer, IMAGE, *given[1:3], KERNEL, *given[4:], bias)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("x", "w", "shape"), [(X[0, 0], W, (2, 5)), (X, W[0, :, 0], (2, 3)), (X[0, 0], W[0, :, 0], ())]
)
def test_vectors(x: np.ndarray, w: np.ndarray, shape: tuple[int, ...]) -> None:
    one, zero, y = QuantParams(0.1, 3, "uint8"), np.uint8(3), QuantParams(30.0, 3, "uint8")
    bias = np.full(shape, 77, np.int32)
    (found,) = run_one(QLinearMatMul(), x, F(0.1), zero, w, F(0.1), zero, F(30), zero, bias)
    (expected,) = run_one(QLinearMatMul(x=one, w=one, y=y), x, w, bias)
    assert found.shape == shape
    np.testing.assert_array_equal(found, expected)


def test_a_vector_by_a_scale_per_column() -> None:
    scales, zeros = F([[[0.1, 0.3, 0.2, 0.7, 0.01]]] * 2), np.full((2, 1, 5), 3, np.uint8)
    parameters = (scales, zeros, F(30), ZERO)
    (found,) = run_one(QLinearMatMul(), X[0, 0], F(0.1), ZERO, W, *parameters)
    (rows,) = run_one(QLinearMatMul(), X[:1, :1], F(0.1), ZERO, W, *parameters)
    np.testing.assert_array_equal(found, rows[:, 0])


def test_codes_of_another_type() -> None:
    """The output is of y_zero_point's type, whatever x is of."""
    arguments = (X, F(0.1), ZERO, W, F(0.1), ZERO, F(30), np.int8(-5))
    (found,) = run_one(QLinearMatMul(), *arguments)
    acc = (X.astype(int) - 3) @ (W.astype(int) - 3)
    v = acc.astype(F) * (F(0.1) * F(0.1) / F(30))
    np.testing.assert_array_equal(found, np.clip(np.rint(v) - 5, -128, 127).astype(np.int8))


def test_computed_scales_reach_the_array(folder: Path) -> None:
    """Scales of DynamicQuantizeLinear: the whole graph without a constant scale but y's."""
    pytest.importorskip("onnxruntime")
    nodes = [
        om.node("DynamicQuantizeLinear", ["a"], ["aq", "as", "az"]),
        om.node("DynamicQuantizeLinear", ["b"], ["bq", "bs", "bz"]),
        om.node("QLinearMatMul", ["aq", "as", "az", "bq", "bs", "bz", "ys", "yz"], "y"),
    ]
    inputs = {"a": ("float32", ("n", 3, 4)), "b": ("float32", ("n", 4, 5))}
    feeds = {name: RNG.normal(size=(2, *shape[1:])).astype(F) for name, (_, shape) in inputs.items()}
    graph = om.model(nodes, inputs, ["y"], {"ys": F(0.05), "yz": np.uint8(100)})
    model = check(folder, (graph, feeds))
    assert [node.layer.kind for node in model.nodes] == [
        "DynamicQuantize",
        "DynamicQuantize",
        "QLinearMatMul",
    ]


GIVEN: list[Any] = [
    ((2, 3, 4), "uint8"),
    ((), "float32"),
    ((), "uint8"),
    ((4, 5), "uint8"),
    ((5,), "float32"),
]
GIVEN += [((5,), "uint8"), ((1,), "float32"), ((1,), "uint8"), ((5,), "int32")]
IMAGES: list[Any] = [((1, 3, 8, 8), "uint8"), *GIVEN[1:3], ((5, 3, 2, 2), "uint8"), *GIVEN[4:]]


@pytest.mark.parametrize(
    ("kind", "at", "value", "error", "message"),
    [
        (QLinearMatMul, 0, ((2, 3, 4), "int32"), TypeError, "QLinearMatMul: x must hold int8 or uint8, not int32"),
        (QLinearMatMul, 1, ((), "float64"), TypeError, "QLinearMatMul: x_scale must hold float32 or float16, not float64"),
        (QLinearMatMul, 1, ((3,), "float32"), ValueError, "QLinearMatMul: x_scale must be one number, not (3,)"),
        (QLinearMatMul, 2, ((3,), "uint8"), ValueError, "QLinearMatMul: x_zero_point must be one number, not (3,)"),
        (QLinearMatMul, 2, ((), "int8"), TypeError, "QLinearMatMul: x_zero_point must hold uint8, as its operand does, not int8"),
        (
            QLinearMatMul, 4, ((4,), "float32"), ValueError,
            "QLinearMatMul: w_scale must be one number, or one per column of an operand (4, 5) "
            "((N,) or (..., 1, N)), not (4,)",
        ),
        (QLinearMatMul, 6, ((5,), "float32"), ValueError, "QLinearMatMul: y_scale must be one number, not (5,)"),
        (QLinearMatMul, 7, ((), "int32"), TypeError, "QLinearMatMul: y_zero_point must hold int8 or uint8, not int32"),
        (QLinearMatMul, 8, ((4,), "int32"), ValueError, "QLinearMatMul: a bias (4,) does not broadcast to the output (2, 3, 5)"),
        (QLinearMatMul, 8, ((5,), "int64"), TypeError, "QLinearMatMul: bias must hold int32, not int64"),
        (QLinearConv, 0, ((1, 4, 8, 8), "uint8"), ValueError, None),
        (QLinearConv, 1, ((3,), "float32"), ValueError, "QLinearConv: x_scale must be one number, not (3,)"),
        (QLinearConv, 4, ((3,), "float32"), ValueError, "QLinearConv: w_scale must be one number or (5,), not (3,)"),
        (QLinearConv, 5, ((3,), "uint8"), ValueError, "QLinearConv: w_zero_point must be one number or (5,), not (3,)"),
        (QLinearConv, 6, ((2,), "float32"), ValueError, "QLinearConv: y_scale must be one number, not (2,)"),
        (QLinearConv, 7, ((), "float32"), TypeError, "QLinearConv: y_zero_point must hold int8 or uint8, not float32"),
        (QLinearConv, 8, ((1,), "int32"), ValueError, "QLinearConv: bias must be (5,), not (1,)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(
    kind: Any, at: int, value: Any, error: Any, message: str | None
) -> None:
    given = list(GIVEN if kind is QLinearMatMul else IMAGES)
    kind().output_shape(*(shape for shape, _ in given))
    kind().output_dtype(*(dtype for _, dtype in given))
    given[at] = value
    with pytest.raises(error) as caught:
        kind().output_shape(*(shape for shape, _ in given))
        kind().output_dtype(*(dtype for _, dtype in given))
    assert message is None or str(caught.value) == message
    with pytest.raises(error):
        kind().lower(*(np.zeros(shape, dtype) for shape, dtype in given))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: QLinearMatMul(alpha="1"), TypeError, "alpha must be a number, not str '1'"),
        (lambda: QLinearMatMul(transpose_x=2), TypeError, None),
        (lambda: QLinearConv(groups=0), ValueError, None),
        (lambda: QLinearMatMul().output_shape((2, 3)), TypeError, None),
        (
            lambda: QLinearMatMul(transpose_x=True).output_shape((3,), (), (), (3, 2), (), ()), ValueError,
            "QLinearMatMul: x must have 2 axes or more to be transposed, not (3,)",
        ),
    ],
)  # fmt: skip
def test_layers_refuse(call: Any, error: Any, message: str | None) -> None:
    with pytest.raises(error) as caught:
        call()
    assert message is None or str(caught.value) == message
