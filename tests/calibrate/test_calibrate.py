"""Float models to quantized ones: parameters from data, errors below bounds that are derived."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import systolic
from support.strategies import examples, raises, seeds
from systolic import Model, Node, quantize_model, run
from systolic.calibrate import FloatNodesWarning
from systolic.layers import Binary, FloatConv, FloatMatMul, MaxPool, QLinearConv, QLinearMatMul, Relu
from systolic.layers.host.pool import AveragePool, GlobalAveragePool

F = np.float32
Rng = np.random.Generator


def real(rng: Rng, *shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(F)


def residual(rng: Rng, *, relu: bool = True) -> Model:
    """A network with a branch: two convolutions, an addition, a pool, two dense layers."""
    nodes = [
        Node(FloatConv(real(rng, 4, 2, 3, 3), real(rng, 4), activation="Relu" if relu else None, padding=1), ("image",), "a"),
        Node(FloatConv(real(rng, 4, 1, 3, 3), padding="same", groups=4), ("a",), "b"),
        Node(Binary("Add"), ("b", "a"), "c"),
        Node(Relu(), ("c",), "d"),
        Node(MaxPool((2, 2), stride=2), ("d",), "e"),
        Node(systolic.layers.Flatten(), ("e",), "f"),
        Node(FloatMatMul(real(rng, 36, 5), real(rng, 5), activation="Relu"), ("f",), "g"),
        Node(FloatMatMul(real(rng, 5, 3), real(rng, 3)), ("g",), "logits"),
    ]
    return Model(nodes, inputs={"image": ((None, 2, 6, 6), "float32")}, name="residual")


# The layers that it starts from


@examples(40)
@given(seeds, st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.booleans())
def test_float_convolution_is_the_sum(seed: int, groups: int, stride: int, dilation: int, relu: bool) -> None:
    rng = np.random.default_rng(seed)
    pads = ((1, 0), (2, 1))
    weight, bias, x = real(rng, 2 * groups, 3, 2, 3), real(rng, 2 * groups), real(rng, 2, 3 * groups, 7, 8)
    layer = FloatConv(
        weight, bias, activation="Relu" if relu else None, stride=stride, padding=pads, dilation=dilation, groups=groups
    )
    padded = np.pad(x, ((0, 0), (0, 0), *pads)).astype(float)
    y = layer.apply(x)
    expected = np.zeros(y.shape)
    for b, o, i, j in np.ndindex(*y.shape):
        group = slice(o // 2 * 3, o // 2 * 3 + 3)
        top, left = i * stride, j * stride
        window = padded[
            b, group, top : top + dilation + 1 : dilation, left : left + 2 * dilation + 1 : dilation
        ]
        expected[b, o, i, j] = (window * weight[o]).sum() + bias[o]
    np.testing.assert_allclose(y, np.maximum(expected, 0) if relu else expected, rtol=1e-6, atol=1e-6)
    assert y.dtype == F and layer.output_shape(x.shape) == y.shape


def test_float_dense_is_the_sum() -> None:
    rng = np.random.default_rng(0)
    weight, bias, x = real(rng, 5, 3), real(rng, 3), real(rng, 2, 4, 5)
    y = FloatMatMul(weight, bias).apply(x)
    np.testing.assert_allclose(y, np.einsum("abk,kn->abn", x.astype(float), weight) + bias, rtol=1e-6)
    np.testing.assert_array_equal(FloatMatMul(weight, bias, activation="Relu").apply(x), np.maximum(y, 0))
    assert y.dtype == F and FloatMatMul(weight).output_shape((0, 5)) == (0, 3)


def test_float_models_run_and_are_saved(tmp_path: Path) -> None:
    model = residual(np.random.default_rng(0))
    x = real(np.random.default_rng(1), 2, 2, 6, 6)
    result = run(model, x)
    assert result.outputs["logits"].shape == (2, 3) and result.stats.macs == 0
    model.save(tmp_path / "m.zip")
    assert Model.load(tmp_path / "m.zip") == model


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: FloatMatMul(np.ones(3)), ValueError, "FloatMatMul: weight must be (K, N), none of them 0, not (3,)"),
        (lambda: FloatMatMul(np.ones((3, 0))), ValueError, "FloatMatMul: weight must be (K, N), none of them 0, not (3, 0)"),
        (lambda: FloatMatMul(np.ones((3, 2), int)), TypeError, "FloatMatMul: weight must hold floats, not int64"),
        (
            lambda: FloatMatMul(np.full((3, 2), 1e300)), ValueError,
            "FloatMatMul: weight must be finite in float32; it holds NaN, infinity or too large a number",
        ),
        (
            lambda: FloatMatMul(np.ones((3, 2)), np.ones(3)), ValueError,
            "FloatMatMul: bias must have one value per output channel, (2,), not (3,)",
        ),
        (lambda: FloatMatMul(np.ones((3, 2)), activation="Tanh"), ValueError, "activation must be one of 'Relu', not 'Tanh'"),
        (
            lambda: FloatMatMul(np.ones((3, 2))).output_shape((4, 2)), ValueError,
            "FloatMatMul takes inputs (..., 3), as its weight has 3 rows, not (4, 2); w.T fits",
        ),
        (
            lambda: FloatMatMul(np.ones((3, 2))).apply(np.ones((4, 3))), TypeError,
            "FloatMatMul takes float32, not float64",
        ),
        (
            lambda: FloatConv(np.ones((3, 1, 1, 1)), groups=2), ValueError,
            "FloatConv: weight has 3 output channels, which 2 groups do not divide",
        ),
        (
            lambda: FloatConv(np.ones((3, 1, 1, 1))).output_shape((2, 3)), ValueError,
            "FloatConv takes images (batch, ic, ih, iw), not (2, 3)",
        ),
    ],
)  # fmt: skip
def test_bad_float_layers(make: Any, error: type[Exception], message: str) -> None:
    with raises(error, message):
        make()


# Errors


def error_bound(model: Model, floats: Model, x: np.ndarray) -> dict[str, np.ndarray]:
    """How far each tensor of the quantized model can be from the float one's, element by element.

    Real numbers: with e the error of a layer's input, which the float model has as a, and W quantized as
    W + d, |d| <= w.scale / 2, its sums are off by at most ``e |W| + (|a| + e) |d|``, the bias by half
    a unit x.scale * w.scale. Rounding to y adds y.scale / 2. The codes' range reaches low and high but
    for y.scale / 2 (the zero point is rounded, too), and saturation moves nothing further from what
    lies between: another half. Maxima, relu and changes of shape add nothing. Every float32 rounding on the
    way is of a number below its largest neighbour, 2^-22 of the tensor's reach in all.
    """
    values = {**floats.constants, "image": x}
    errors: dict[str, np.ndarray] = {}
    layers = {node.name: node.layer for node in model.nodes}
    input_params = layers["image.quantize"].y
    errors["image"] = np.full(x.shape, float(input_params.scale))
    for node in floats.nodes:
        layer: Any = node.layer
        inputs = [values[name] for name in node.inputs]
        e = errors[node.inputs[0]]
        out = layer.apply(*inputs).astype(float)
        values[node.output] = out.astype(F)
        quantized: Any = layers.get(node.name)
        if isinstance(layer, FloatMatMul | FloatConv):
            a = np.abs(inputs[0]).astype(float)
            half = quantized.w.scales.astype(float) / 2
            spread = (-1, 1, 1, 1) if isinstance(layer, FloatConv) else (1, -1)
            each = np.broadcast_to(half.reshape(spread if half.ndim else ()), layer.weight.shape)
            total = _sums(layer, e, np.abs(layer.weight)) + _sums(layer, a + e, each)
            unit = quantized.x.scale * half
            total += unit.reshape(-1, 1, 1) if half.ndim and isinstance(layer, FloatConv) else unit
        elif isinstance(layer, Binary):
            total = e + errors[node.inputs[1]]
        else:
            # Of a pool the largest error of the window; the others move errors with their elements.
            errors[node.output] = layer.apply(e.astype(F)).astype(float)
            continue
        y = quantized.y
        errors[node.output] = total + (0 if y is None else float(y.scale)) + np.abs(out).max() * 2.0**-22
    return errors


def _sums(layer: Any, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    if isinstance(layer, FloatMatMul):
        return x @ weight.astype(float)
    twin = FloatConv(
        weight.astype(F),
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        groups=layer.groups,
    )
    return twin.apply(x.astype(F)).astype(float)


@examples(20)
@given(seeds, st.booleans(), st.sampled_from(["int8", "uint8"]), st.booleans())
@pytest.mark.slow
def test_errors_stay_below_what_rounding_can_do(seed: int, per_channel: bool, dtype: str, relu: bool) -> None:
    rng = np.random.default_rng(seed)
    floats, x = residual(rng, relu=relu), real(rng, 20, 2, 6, 6)
    model = quantize_model(floats, x, per_channel=per_channel, activations=dtype)
    expected, found = run(floats, x).outputs["logits"], run(model, x, mode="wavefront").outputs["logits"]
    bound = error_bound(model, floats, x)["logits"] * (1 + 1e-5)
    assert (np.abs(found - expected) <= bound).all()
    # The bound tells something: 8 bits leave an error, yet the output is no noise.
    assert 0 < np.abs(found - expected).max() < np.abs(expected).max()


def test_weights_on_the_grid_are_exact() -> None:
    """With numbers that the codes hold exactly there is no error at all."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-127, 128, (6, 4)).astype(F)
    weight[0] = 127
    x = rng.integers(-128, 128, (50, 6)).astype(F)
    x[0, 0], x[0, 1] = -128, 127
    model = quantize_model([FloatMatMul(weight, np.float32([5, -6, 7, 0]))], x)
    np.testing.assert_array_equal(run(model, x, mode="wavefront").outputs["t0"], x @ weight + [5, -6, 7, 0])


# Parameters


def params_of(data: np.ndarray, **options: Any) -> systolic.QuantParams:
    product = FloatMatMul(np.eye(data.shape[1], dtype=F))
    return quantize_model([product], data, **options).nodes[0].layer.y  # type: ignore[attr-defined]


def test_minmax_takes_in_zero() -> None:
    for low, high, expected in (
        (-1.0, 2.0, (3 / 255, -128 + 85)),
        (1.0, 2.0, (2 / 255, -128)),
        (-3.0, -1.0, (3 / 255, 127)),
        (0.0, 0.0, (1.0, -128)),
    ):
        data = np.float32([[low], [high], [(low + high) / 2]])
        found = params_of(data)
        assert (found.scale, found.zero_point) == (float(F(expected[0])), expected[1])
        unsigned = params_of(data, activations="uint8")
        assert (unsigned.scale, unsigned.zero_point) == (found.scale, expected[1] + 128)


@examples(40)
@given(seeds, st.integers(1, 60), st.integers(1, 3), st.floats(50.1, 100))
def test_percentile_is_numpys_whatever_the_pieces(
    seed: int, samples: int, width: int, percentile: float
) -> None:
    data = real(np.random.default_rng(seed), samples, width) - F(0.3)
    low, high = np.percentile(data.astype(float), [100 - percentile, percentile])
    scale = (max(high, 0) - min(low, 0)) / 255
    found = params_of(data, method="percentile", percentile=percentile)
    np.testing.assert_allclose(found.scale, scale if scale else 1.0, rtol=1e-6)


def test_outliers_saturate_by_percentile() -> None:
    data = np.linspace(-1, 1, 20001, dtype=F).reshape(-1, 1)
    data[7] = 1000
    assert params_of(data).scale > 3.9
    assert params_of(data, method="percentile").scale < 2 / 255 + 1e-6


def test_per_channel_and_per_tensor_weights() -> None:
    weight = np.float32([[1, 10], [-2, 0.5]])
    each: Any = quantize_model([FloatMatMul(weight)], np.ones((1, 2), F)).nodes[-1].layer
    one: Any = quantize_model([FloatMatMul(weight)], np.ones((1, 2), F), per_channel=False).nodes[-1].layer
    np.testing.assert_array_equal(each.w.scales, np.float32([2 / 127, 10 / 127]))
    assert each.weight.tolist() == [[64, 127], [-127, 6]]  # 63.5 is a tie: to even
    assert one.w.scale == float(F(10 / 127)) and one.weight.tolist() == [[13, 127], [-25, 6]]


def test_channels_of_no_weight_and_of_large_bias() -> None:
    bias = np.float32([3.25, 1e6, 0, -1e-30])
    weight = np.zeros((2, 4), F)
    weight[:, 1] = 1e-6
    x = np.float32([[1, 2], [-1, 0.5]])
    for per_channel in (True, False):
        model = quantize_model([FloatMatMul(weight, bias)], x, per_channel=per_channel)
        found = run(model, x).outputs["t0"]
        largest = 1e6 if not per_channel else np.abs(bias)
        assert (np.abs(found - bias) <= 2.0**-22 * largest + 1e-36).all()


def test_relu_costs_no_layer() -> None:
    rng = np.random.default_rng(0)
    model = quantize_model(residual(rng), real(rng, 8, 2, 6, 6))
    kinds = [type(node.layer).__name__ for node in model.nodes]
    assert kinds == ["QuantizeLinear", "QLinearConv", "QLinearConv", "QLinearAdd", "MaxPool", "Flatten", "QLinearMatMul", "QLinearMatMul"]
    layer: Any = model.nodes[1].layer
    assert layer.y.zero_point == -128
    # Where the sum before it is wanted too, the Relu stays.
    source = residual(rng)
    both = Model(source.nodes, inputs=source.inputs, outputs=["c", "logits"])
    kinds = [type(node.layer).__name__ for node in quantize_model(both, real(rng, 8, 2, 6, 6)).nodes]
    assert kinds.count("Clip") == 1 and kinds[-1] == "DequantizeLinear"


def test_inputs_outputs_and_names_stay() -> None:
    rng = np.random.default_rng(0)
    nodes = [
        Node(FloatMatMul(real(rng, 3, 3)), ("left",), "l", "first"),
        Node(Binary("Add"), ("l", "right"), "sum"),
        Node(Binary("Add"), ("sum", "c"), "shifted"),
    ]
    floats = Model(
        nodes, inputs={"left": ((4, 3), "float32"), "right": ((4, 3), "float32")},
        outputs=["shifted", "l", "c", "right"], constants={"c": np.float32([1, 2, -3])}, name="pair",
    )  # fmt: skip
    feeds = {"left": real(rng, 8, 3), "right": real(rng, 8, 3)}
    model = quantize_model(floats, feeds)
    assert (model.name, model.inputs, model.outputs) == (floats.name, floats.inputs, floats.outputs)
    assert {"first", "sum", "shifted"} <= {node.name for node in model.nodes}
    half = {name: array[:4] for name, array in feeds.items()}
    ours, theirs = run(model, half).outputs, run(floats, half).outputs
    for name, array in theirs.items():
        assert np.abs(ours[name] - array).max() <= 0.1
    np.testing.assert_array_equal(ours["c"], theirs["c"])
    np.testing.assert_array_equal(ours["right"], theirs["right"])


def test_pools_of_means() -> None:
    rng = np.random.default_rng(0)
    x = real(rng, 6, 2, 8, 8)
    means = AveragePool((3, 2), stride=(2, 2), padding=((1, 0), (0, 1)), count_include_pad=True)
    floats = [FloatConv(real(rng, 3, 2, 1, 1)), means, GlobalAveragePool(), systolic.layers.Flatten()]
    model = quantize_model(floats, x, activations="uint8")
    assert [type(node.layer).__name__ for node in model.nodes[1:]] == [
        "QLinearConv", "QLinearAveragePool", "QLinearGlobalAveragePool", "Flatten", "DequantizeLinear",
    ]  # fmt: skip
    (ours,) = run(model, x, mode="wavefront").outputs.values()
    (theirs,) = run(Model(floats, inputs={"x": ((None, 2, 8, 8), "float32")}), x).outputs.values()
    # A mean has the error of its terms at most; each layer rounds by half a step, its range by another half.
    layers: Any = [node.layer for node in model.nodes]
    weight = floats[0].weight.astype(float)  # type: ignore[attr-defined]
    half = layers[1].w.scales.max() / 2
    first = layers[0].y.scale * (np.abs(weight).sum(axis=1).max() + 2 * half) + 2 * half * np.abs(x).max()
    assert np.abs(ours - theirs).max() <= first + sum(float(layer.y.scale) for layer in layers[1:4])
    floats[1] = AveragePool((2, 2), dilation=2)
    with pytest.warns(FloatNodesWarning, match="an AveragePool is int8 over 1 to 3 axes and without dilation"):
        model = quantize_model(floats, x)
    assert [type(node.layer).__name__ for node in model.nodes] == [
        "QuantizeLinear", "QLinearConv", "DequantizeLinear", "AveragePool", "GlobalAveragePool", "Flatten",
    ]  # fmt: skip


X = np.ones((4, 3), F)
NET = [FloatMatMul(np.ones((3, 2), F))]
BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda: quantize_model(NET, X, method="kl"), ValueError, "method must be one of 'minmax', 'percentile', not 'kl'"),
    (lambda: quantize_model(NET, X, activations="int16"), ValueError, "activations must be one of 'int8', 'uint8', not 'int16'"),
    (lambda: quantize_model(NET, X, method="percentile", percentile=50), ValueError, "percentile must be over 50 and at most 100, not 50.0"),
    (lambda: quantize_model(NET, X, percentile=99.9), ValueError, "percentile goes with method='percentile': with 'minmax' a range reaches the largest value"),
    (
        lambda: quantize_model(NET, X.astype(int)), TypeError,
        "calibration must hold floats, not int64; convert with .astype(np.float32), scaled as in use",
    ),
    (lambda: quantize_model(NET, X[:0]), ValueError, "calibration must hold samples along axis 0, not be of shape (0, 3)"),
    (
        lambda: quantize_model(NET, X * np.nan), ValueError,
        "calibration must be finite in float32, but 12 of 12 values are NaN, infinity or too large, the first at (0, 0); "
        "leave such samples out",
    ),
    (
        lambda: quantize_model(NET, None), TypeError,
        "calibration must be an array, arrays by input name, or an iterable of batches of either, not NoneType None",
    ),
    (lambda: quantize_model(NET, {"x": X}), TypeError, "calibration must be an array where the model is bare layers, not a mapping"),
    (lambda: quantize_model(NET, X[:, :2]), ValueError, "node 't0': FloatMatMul takes inputs (..., 3), as its weight has 3 rows, not (4, 2); w.T fits"),
    (
        lambda: quantize_model(Model(NET, inputs={"x": ((3, 3), "float32")}), X), ValueError,
        "calibration must hold equally many samples for each input, a multiple of the batch 3, not 4; other data goes in "
        "batches, as a list of arrays or mappings",
    ),
    (
        lambda: quantize_model(Model(NET, inputs={"x": ((None, 3), "float32")}), {"y": X}), ValueError,
        "calibration must hold data for 'x', not 'y'",
    ),
    (
        lambda: quantize_model(Model([systolic.layers.Identity()], inputs={"x": ((None, 3), "int8")}), X), TypeError,
        "calibration must hold int8, not float32; convert with .astype(np.int8)",
    ),
    (
        lambda: quantize_model(Model(NET, inputs={"x": ((None, 3), "float32")}), [X, X[:, :2]]), ValueError,
        "calibration batch 1: input 'x' must have shape (?, 3) (? is any batch), not (4, 2)",
    ),
    (
        lambda: quantize_model(Model(NET, inputs={"x": ((None, 3), "float32")}), iter([(X, 1)])), TypeError,
        "calibration batch 0 must be an array or arrays by input name, not a tuple of 2; of a loader that yields pairs, pass (x for x, _ in loader)",
    ),
    (
        lambda: quantize_model(Model(NET, inputs={"x": ((None, 3), "float32")}), iter(())), ValueError,
        "calibration must hold at least one batch; a generator is empty after its first use",
    ),
    (
        lambda: quantize_model(Model(NET, inputs={"x": ((None, 3), "float32")}), "x.npy"), TypeError,
        "calibration must be an array, arrays by input name, or an iterable of batches of either, not str 'x.npy'",
    ),
    (
        lambda: quantize_model([Relu()], X), ValueError,
        "model 'model' has nothing to quantize: no Conv, Gemm or MatMul of its inputs",
    ),
    (
        lambda: quantize_model([FloatMatMul(np.full((3, 2), 3e38, F), activation="Relu")], X), ValueError,
        "tensor 't0' is not finite on the calibration data; check the weights",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=range(len(BAD)))
def test_bad_arguments(call: Any, error: type[Exception], message: str) -> None:
    with raises(error, message):
        call()


def test_quantized_models_are_refused() -> None:
    q = systolic.QuantParams(1.0)
    coded = Node(systolic.layers.QuantizeLinear(q), ("x",), "y", "coded")
    with raises(
        ValueError,
        "model 'model' is quantized already: node 'coded' is a QuantizeLinear. quantize_model takes the float model that it "
        "was made from; run this one as it is",
    ):
        quantize_model([coded], X)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (FloatMatMul(alpha=0.5), "a product of two computed matrices is int8 without a transpose, factor, sum or vector alone"),
        (FloatConv(), "its weights or bias are computed, or it adds a tensor; int8 weights are constants"),
    ],
    ids=["a factor", "read filters"],
)  # fmt: skip
def test_products_without_an_int8_form_are_named(layer: Any, reason: str) -> None:
    shape = (4, 3, 3)
    node = Node(layer, ("x", "w"), "y", "other")
    model = Model([node], inputs={"x": (shape, "float32"), "w": (shape, "float32")})
    data = np.ones(shape, F)
    with raises(
        ValueError, f"model 'model' has no product that can be quantized: 'other' ({layer.kind}): {reason}"
    ):
        quantize_model(model, {"x": data, "w": data})


# Against ONNX Runtime


def test_saved_as_onnx_it_is_onnxruntimes_too(tmp_path: Path) -> None:
    om = pytest.importorskip("support.onnx_models")
    rng = np.random.default_rng(0)
    x = real(rng, 8, 2, 6, 6)
    model = quantize_model(residual(rng), x)
    systolic.save_onnx(model, tmp_path / "m.onnx")
    (theirs,) = om.onnxruntime_outputs(tmp_path / "m.onnx", {"image": x})
    np.testing.assert_array_equal(run(model, x, mode="wavefront").outputs["logits"], theirs)


@pytest.mark.slow
@pytest.mark.parametrize("form", ("QOperator", "QDQ"))
@pytest.mark.parametrize("per_channel", (False, True))
def test_quantized_by_onnxruntimes_tool(tmp_path: Path, form: str, per_channel: bool) -> None:
    """The other way: the same float network as ONNX, quantized by ONNX Runtime, read by load_onnx."""
    om = pytest.importorskip("support.onnx_models")
    tool = pytest.importorskip("onnxruntime.quantization")
    from support.qdq_models import session

    rng = np.random.default_rng(0)
    source = residual(rng)
    weights: dict[str, np.ndarray] = {}
    for node in source.nodes:
        if isinstance(node.layer, FloatConv | FloatMatMul):
            weights[f"{node.name}.w"] = node.layer.weight
            bias = node.layer.bias
            weights[f"{node.name}.b"] = np.zeros(4, F) if bias is None else bias
    nodes = [
        om.node("Conv", ["image", "a.w", "a.b"], "a0", pads=[1] * 4),
        om.node("Relu", ["a0"], "a"),
        om.node("Conv", ["a", "b.w", "b.b"], "b", pads=[1] * 4, group=4),
        om.node("Add", ["b", "a"], "c"),
        om.node("Relu", ["c"], "d"),
        om.node("MaxPool", ["d"], "e", kernel_shape=[2, 2], strides=[2, 2]),
        om.node("Flatten", ["e"], "f"),
        om.node("Gemm", ["f", "g.w", "g.b"], "g0"),
        om.node("Relu", ["g0"], "g"),
        om.node("Gemm", ["g", "logits.w", "logits.b"], "logits"),
    ]
    graph = om.model(nodes, {"image": ("float32", ("batch", 2, 6, 6))}, ["logits"], weights, opset=17)
    path, target = om.save(om.typed(graph), tmp_path, "float.onnx"), tmp_path / "quantized.onnx"
    x = real(rng, 32, 2, 6, 6)

    class Reader(tool.CalibrationDataReader):
        batches = iter([{"image": x}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    tool.quantize_static(
        path, target, Reader(), quant_format=tool.QuantFormat[form], per_channel=per_channel,
        activation_type=tool.QuantType.QInt8, weight_type=tool.QuantType.QInt8,
    )  # fmt: skip
    model = systolic.load_onnx(target)
    (theirs,) = session(target).run(None, {"image": x})
    ours = run(model, x, mode="wavefront").outputs["logits"]
    np.testing.assert_array_equal(ours, theirs)
    # Both ways come near the float network, and so near each other.
    floats = run(source, x).outputs["logits"]
    mine = run(quantize_model(source, x, per_channel=per_channel), x, mode="wavefront").outputs["logits"]
    spread = np.abs(floats).max()
    assert np.abs(ours - floats).mean() < spread / 20 and np.abs(mine - floats).mean() < spread / 20
    assert {type(node.layer) for node in model.nodes} >= {QLinearConv, QLinearMatMul}
