"""Float models of any kind: what is folded changes nothing, and the int8 model is ONNX Runtime's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import systolic
from support.oracle_cases import exact_u8s8
from support.strategies import examples, raises, seeds
from systolic import Model, Node, run
from systolic.calibrate import plan_quantization
from systolic.calibrate.folding import fold, known_sizes
from systolic.layers import (
    AveragePool,
    BatchNormalization,
    Binary,
    Cast,
    Clip,
    Concat,
    Flatten,
    FloatConv,
    FloatMatMul,
    Gather,
    GlobalAveragePool,
    Identity,
    MaxPool,
    Pad,
    Reduce,
    Relu,
    Reshape,
    ShapeOf,
    Slice,
    Softmax,
    Split,
    Transpose,
    Unary,
)

F = np.float32
Rng = np.random.Generator


def real(rng: Rng, *shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(F)


class Maker:
    """Adds nodes to a float model, with constants that they read, as a file has them."""

    def __init__(self, rng: Rng, shape: tuple[int, ...]) -> None:
        self.rng = rng
        self.nodes: list[Node] = []
        self.constants: dict[str, np.ndarray] = {}
        self.inputs: Any = {"x": ((None, *shape[1:]), "float32")}
        self.shape = shape

    def __call__(self, layer: Any, *read: str | np.ndarray, outputs: int = 1) -> Any:
        names = []
        for value in read:
            if isinstance(value, np.ndarray):
                name = f"c{len(self.constants)}"
                self.constants[name] = value
                value = name
            names.append(value)
        written = tuple(f"t{len(self.nodes)}.{i}" for i in range(outputs))
        self.nodes.append(Node(layer, tuple(names), written))
        return written[0] if outputs == 1 else written

    def real(self, *shape: int) -> np.ndarray:
        return real(self.rng, *shape)

    def model(self, *outputs: str) -> Model:
        return Model(self.nodes, inputs=self.inputs, outputs=outputs, constants=self.constants, name="drawn")

    def size(self, tensor: str) -> tuple[int, ...]:
        return self.model(tensor).infer_shapes({"x": self.shape})[tensor][0]  # type: ignore[return-value]


# Folding


def conv(make: Maker, x: str, channels: int = 4, **options: Any) -> str:
    ic = make.size(x)[1] // options.get("groups", 1)
    return make(FloatConv(padding=1, **options), x, make.real(channels, ic, 3, 3), make.real(channels))


def norm(make: Maker, x: str) -> str:
    c = make.size(x)[1]
    variance = np.abs(make.real(c)) + F(0.1)
    return make(BatchNormalization(), x, make.real(c), make.real(c), make.real(c), variance)


def per_channel(make: Maker, x: str) -> np.ndarray:
    shape = make.size(x)
    values = make.real(shape[1], 1, 1) if len(shape) == 4 else make.real(1, shape[-1])
    return np.where(np.abs(values) < 0.1, F(1), values).astype(F)


FOLDED: dict[str, Any] = {
    "norm": norm,
    "add": lambda make, x: make(Binary("Add"), per_channel(make, x), x),
    "subtract": lambda make, x: make(Binary("Sub"), x, per_channel(make, x)),
    "subtracted": lambda make, x: make(Binary("Sub"), per_channel(make, x), x),
    "multiply": lambda make, x: make(Binary("Mul"), x, per_channel(make, x)),
    "divide": lambda make, x: make(Binary("Div"), x, per_channel(make, x)),
    "scalar": lambda make, x: make(Binary("Mul"), x, np.array(-0.5, F)),
}


@pytest.mark.parametrize("kind", FOLDED)
@pytest.mark.parametrize("product", ["conv", "bare conv", "gemm", "matmul", "stack"])
def test_folding_changes_nothing(product: str, kind: str) -> None:
    rng = np.random.default_rng(0)
    shape = (3, 4, 6, 5) if "conv" in product else (3, 2, 6) if product == "stack" else (3, 6)
    make = Maker(rng, shape)
    if product == "conv":
        y = conv(make, "x", 6)
    elif product == "bare conv":
        y = make(FloatConv(groups=2, stride=2), "x", make.real(6, 2, 2, 3))
    elif product == "gemm":
        gemm = FloatMatMul(transpose_b=True, alpha=0.5, beta=-2.0)
        y = make(gemm, "x", make.real(5, 6), make.real(1, 5))
    else:
        y = make(FloatMatMul(), "x", make.real(6, 5))
    model = make.model(FOLDED[kind](make, y))
    folded = fold(model, known_sizes(model, {"x": shape}))
    if (product, kind) == ("stack", "norm"):  # its channels are no columns
        assert len(folded.model.nodes) == 2
    else:
        (node,) = folded.model.nodes
        assert node.output == model.outputs[0] and set(folded.places.values()) == {0}
    x = real(rng, *shape)
    (expected,), (found,) = (run(each, x).outputs.values() for each in (model, folded.model))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


NOT_FOLDED: dict[str, Any] = {
    "read twice": lambda make, y: make(Binary("Add"), y, norm(make, y)),
    "an output": norm,
    "along columns": lambda make, y: make(Binary("Add"), y, make.real(4)),
    "of a batch": lambda make, y: make(Binary("Add"), y, make.real(2, 1, 1, 1)),
    "another tensor": lambda make, y: make(Binary("Add"), y, "x"),
    "by zero": lambda make, y: make(Binary("Div"), y, np.zeros((), F)),
    "constant first": lambda make, y: make(Binary("Div"), make.real(4, 1, 1), y),
    "behind a Relu": lambda make, y: norm(make, make(Relu(), y)),
}


@pytest.mark.parametrize("kind", NOT_FOLDED)
def test_what_is_not_folded(kind: str) -> None:
    make = Maker(np.random.default_rng(0), (2, 4, 6, 4))
    y = conv(make, "x")
    outputs = [NOT_FOLDED[kind](make, y), *([y] if kind == "an output" else [])]
    model = make.model(*outputs)
    folded = fold(model, known_sizes(model, {"x": make.shape}))
    assert len(folded.model.nodes) == len(model.nodes)


# Each operator between products


def leaky(make: Maker, y: str) -> str:
    om = pytest.importorskip("support.onnx_models")
    from systolic.layers.host.evaluator import OnnxNode

    proto = om.node("LeakyRelu", ["a"], ["b"], alpha=0.25)
    node = np.frombuffer(proto.SerializeToString(), np.uint8)
    types: Any = {"read_dtypes": ("float32",), "write_dtypes": ("float32",), "opsets": (("", 17),)}
    return make(OnnxNode("LeakyRelu", node, ("a",), **types), y)


BETWEEN: dict[str, Any] = {
    "Relu": lambda make, y: make(Relu(), y),
    "Relu that another reads beside": lambda make, y: make(Binary("Add"), y, make(Relu(), y)),
    "Clip": lambda make, y: make(Clip(-0.5, 1.5), y),
    "Clip without 0": lambda make, y: make(Clip(0.5, 1.5), y),
    "LeakyRelu": leaky,
    "Sigmoid": lambda make, y: make(Unary("Sigmoid"), y),
    "Softmax": lambda make, y: make(Softmax(1), y),
    "Add": lambda make, y: make(Binary("Add"), y, make(MaxPool((3, 3), padding=1), y)),
    "Mul by a constant": lambda make, y: make(Binary("Mul"), make(Relu(), y), make.real(4, 1, 1)),
    "Concat": lambda make, y: make(Concat(1), make(Clip(-0.5, 0.5), y), y),
    "Pad": lambda make, y: make(Pad(), y, np.array([0, 0, 1, 0, 0, 0, 0, 2]), np.array(0.75, F)),
    "Pad by 0": lambda make, y: make(Pad(), y, np.array([0, 0, 1, 0, 0, 0, 0, 2])),
    "MaxPool": lambda make, y: make(MaxPool((2, 2), stride=2), y),
    "AveragePool": lambda make, y: make(AveragePool((3, 2), stride=2, padding=((1, 1), (0, 1))), y),
    "AveragePool of padding": lambda make, y: make(AveragePool((3, 3), padding=1, count_include_pad=True), y),
    "GlobalAveragePool": lambda make, y: make(GlobalAveragePool(), y),
    "ReduceMean": lambda make, y: make(Reduce("ReduceMean", (3, -2), keepdims=False), y),
    "ReduceMax": lambda make, y: make(Reduce("ReduceMax", (3,)), y),
    "Transpose": lambda make, y: make(Transpose((0, 1, 3, 2)), y),
    "Split": lambda make, y: make(Split((1, 3), 1), y, outputs=2)[1],
    "Gather": lambda make, y: make(Gather(1), y, np.array([3, 0, 3])),
    "Flatten": lambda make, y: make(Flatten(), y),
    "product": lambda make, y: make(FloatMatMul(), make(Softmax(-1), y), make(Transpose((0, 1, 3, 2)), y)),
}


@pytest.mark.parametrize("activations", ("int8", "uint8"))
@pytest.mark.parametrize("kind", BETWEEN)
def test_operators_between_products(kind: str, activations: str) -> None:
    """They are int8, and as near the float model as their steps let them be."""
    rng = np.random.default_rng(0)
    make = Maker(rng, (8, 4, 6, 5))
    y = make(FloatConv(), "x", np.eye(4, dtype=F)[:, :, np.newaxis, np.newaxis])
    z = BETWEEN[kind](make, y)
    size = make.size(z)
    out = make(FloatMatMul(), z, np.eye(size[-1], dtype=F))
    x = rng.uniform(-1, 3, make.shape).astype(F)
    floats = make.model(out)
    found = plan_quantization(floats, x, activations=activations)
    assert not found.float_nodes
    (exact,), (mine,) = (run(each, x, mode="wavefront").outputs.values() for each in (floats, found.model))
    step = max(4.0, np.ptp(exact)) / 255
    assert np.abs(mine - exact).max() <= 3.5 * step
    for node in found.model.nodes:
        if node.layer.kind == "QLinearSoftmax":
            layer: Any = node.layer
            assert layer.y.scale == 1 / 256 and layer.y.zero_point == layer.y.qmin


BESIDE: dict[str, Any] = {
    "before the first product": (lambda make: conv(make, make(Binary("Mul"), "x", make.real(1))), ["Mul"]),
    "moved before it": (lambda make: conv(make, make(Transpose((0, 1, 3, 2)), "x")), []),
    "moved before Tanh": (lambda make: conv(make, make(Unary("Tanh"), make(Identity(), "x"))), ["Identity", "Tanh"]),
    "a mean of channels": (lambda make: make(Reduce("ReduceMean", (1,)), conv(make, "x")), ["ReduceMean"]),
    "a mask": (lambda make: make(Binary("Add"), conv(make, "x"), np.float32([[0], [0], [-3e38], [0], [0], [0]])), ["Add"]),
    "behind Tanh": (lambda make: make(Relu(), make(Unary("Tanh"), conv(make, "x"))), ["Tanh", "Relu"]),
    "a Softmax at the end": (lambda make: make(Flatten(), make(Softmax(1), conv(make, "x"))), ["Softmax", "Flatten"]),
    "means that are normed": (lambda make: norm(make, make(GlobalAveragePool(), conv(make, "x"))), ["BatchNormalization"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", BESIDE)
def test_what_stays_float(kind: str) -> None:
    make = Maker(np.random.default_rng(0), (8, 4, 6, 5))
    grown, expected = BESIDE[kind]
    model = make.model(grown(make))
    x = real(make.rng, *make.shape)
    found = plan_quantization(model, x)
    assert [node.layer for node in found.float_nodes] == expected
    assert all(node.reason for node in found.float_nodes)
    floats = run(model, x, mode="wavefront").outputs
    for name, mine in run(found.model, x, mode="wavefront").outputs.items():
        near = np.abs(floats[name]) < 1e30
        assert np.abs(mine - floats[name])[near].mean() <= 0.02 * np.abs(floats[name][near]).max()


def test_images_of_integers() -> None:
    """A cast in front of the first product is no obstacle, nor are data of integers."""
    make = Maker(np.random.default_rng(0), (8, 4, 6, 5))
    make.inputs = {"x": ((None, 4, 6, 5), "uint8")}
    model = make.model(conv(make, make(Cast("float32"), "x")))
    x = make.rng.integers(0, 256, make.shape, dtype=np.uint8)
    found = plan_quantization(model, x)
    assert [node.becomes for node in found.nodes] == [None, "QLinearConv"]
    with raises(TypeError, "calibration must hold uint8, not float32; convert with .astype(np.uint8)"):
        plan_quantization(model, x.astype(F))


def test_nodes_of_one_name() -> None:
    make = Maker(np.random.default_rng(0), (8, 4, 6, 5))
    y = norm(make, conv(make, "x"))
    make(Softmax(1), make(Relu(), y))
    make.nodes = [Node(node.layer, node.inputs, node.outputs, "same") for node in make.nodes]
    found = plan_quantization(make.model(make.nodes[-1].output), real(make.rng, *make.shape))
    assert [node.becomes for node in found.nodes] == ["QLinearConv", "part of 'same'", "part of 'same'", None]


# Models of all kinds


def grow(make: Maker, pool: list[str], kind: str) -> None:
    """Add one operator, or a few that belong together, behind a tensor."""
    rng = make.rng
    x = pool[int(rng.integers(max(len(pool) - 3, 0), len(pool)))]
    shape = make.size(x)
    image = len(shape) == 4
    c = shape[1]
    if kind == "conv" and image:
        groups = c if rng.random() < 0.3 else 1
        pool.append(conv(make, x, c if groups > 1 else int(rng.integers(1, 5)), groups=groups))
    elif kind == "norm" and image:
        pool.append(norm(make, x))
    elif kind == "dense":
        weight = make.real(shape[-1], int(rng.integers(2, 6)))
        y = make(FloatMatMul(), x, weight)
        pool.append(make(Binary("Add"), y, make.real(weight.shape[1])) if rng.random() < 0.5 else y)
    elif kind == "add":
        others = [name for name in pool if make.size(name) == shape]
        other = others[int(rng.integers(len(others)))]
        pool.append(make(Binary("Add" if rng.random() < 0.5 else "Mul"), x, other))
    elif kind == "constant":
        pool.append(make(Binary("Mul" if rng.random() < 0.5 else "Add"), x, make.real(1)))
    elif kind == "concat":
        others = [name for name in pool if make.size(name) == shape]
        pool.append(make(Concat(-1), x, others[int(rng.integers(len(others)))]))
    elif kind == "act":
        layers = [Relu(), Clip(-0.5, 0.75), Clip(0.25, 1.0), Unary("Sigmoid"), Unary("Tanh"), Identity()]
        pool.append(make(layers[int(rng.integers(len(layers)))], x))
    elif kind == "pool" and image and min(shape[2:]) > 2:
        pools = [
            MaxPool((2, 2), stride=2), AveragePool((2, 2), stride=(2, 1)),
            AveragePool((3, 3), padding=1, count_include_pad=True), MaxPool((3, 3), padding=1),
        ]  # fmt: skip
        pool.append(make(pools[int(rng.integers(len(pools)))], x))
    elif kind == "mean" and image:
        layers = [GlobalAveragePool(), Reduce("ReduceMean", (-1, 2)), Reduce("ReduceMean", (2, 3), keepdims=False)]
        pool.append(make(layers[int(rng.integers(len(layers)))], x))
    elif kind == "pad" and image:
        pads = np.array([0, 0, 1, 0, 0, 0, 0, 2])
        value = (np.array(0.5, F),) if rng.random() < 0.5 else ()
        pool.append(make(Pad("constant" if value or rng.random() < 0.5 else "edge"), x, pads, *value))
    elif kind == "move":
        pool.append(make(Transpose((0, *range(len(shape) - 1, 0, -1))), x))
    elif kind == "flatten" and image:
        pool.append(make(Flatten(), x))
    elif kind == "reshape" and image:  # as the older exporter writes view(x.size(0), -1)
        size = make(Slice(), make(ShapeOf(), x), np.array([0]), np.array([1]))
        pool.append(make(Reshape(), x, make(Concat(0), size, np.array([-1]))))
    elif kind == "split" and c % 2 == 0:
        pool += make(Split((c // 2, c // 2), 1), x, outputs=2)
    elif kind == "gather":
        pool.append(make(Gather(1), x, np.array([0, c - 1])))
    elif kind == "softmax":
        pool.append(make(Softmax(-1), x))
    elif kind == "largest":
        pool.append(make(Reduce("ReduceMax", (1,)), x))
    elif kind == "product" and len(shape) > 2:
        turned = make(Transpose((*range(len(shape) - 2), len(shape) - 1, len(shape) - 2)), x)
        pool.append(make(FloatMatMul(), x, turned))


KINDS = (
    "conv", "norm", "dense", "add", "constant", "concat", "act", "act", "pool", "mean", "pad", "move", "flatten",
    "reshape", "split", "gather", "softmax", "largest", "product",
)  # fmt: skip


def drawn_model(seed: int, kinds: list[str]) -> tuple[Model, np.ndarray]:
    rng = np.random.default_rng(seed)
    make = Maker(rng, (12, 4, 5, 6))
    pool = ["x"]
    pool.append(conv(make, "x"))
    for kind in kinds:
        grow(make, pool, kind)
    outputs = dict.fromkeys([pool[-1], pool[int(rng.integers(1, len(pool)))]])
    return make.model(*outputs), real(rng, *make.shape)


def check_drawn(seed: int, kinds: list[str], activations: str, path: Path) -> None:
    om = pytest.importorskip("support.onnx_models")
    floats, x = drawn_model(seed, kinds)
    found = plan_quantization(floats, x, activations=activations)
    model = found.model
    assert (model.inputs, model.outputs) == (floats.inputs, floats.outputs)
    named = {node.node for node in found.nodes}
    assert {node.name for node in floats.nodes if "." in node.output} >= named
    assert all((node.becomes is None) == (node.reason is not None) for node in found.nodes)
    tensors = [name for node in floats.nodes for name in node.outputs]
    every = Model(floats.nodes, inputs=floats.inputs, outputs=tensors, constants=floats.constants)
    reals = run(every, x, machine=systolic.ArrayConfig(16, 16), mode="wavefront").outputs
    reach = max(float(np.abs(array).max(initial=0)) for array in reals.values())
    ours = run(model, x, mode="wavefront").outputs
    systolic.save_onnx(model, path)
    theirs = om.onnxruntime_outputs(path, {"x": x})
    exact = not any(node.layer in ("Tanh", "Sigmoid", "Softmax", "ReduceMean") for node in found.float_nodes)
    for (name, mine), other in zip(ours.items(), theirs, strict=True):
        assert mine.shape == other.shape == reals[name].shape
        if exact and not found.float_nodes:
            np.testing.assert_array_equal(mine, other)
        else:
            # A code behind a float operator may differ by one, and what follows multiplies that.
            assert np.abs(mine - other).mean() <= 0.01 * reach
        assert np.abs(mine - reals[name]).mean() <= 0.1 * reach


# What ONNX Runtime computes without saturating sums of two products in 16 bits.
ACTIVATIONS = st.sampled_from(["int8", "uint8"] if exact_u8s8() else ["int8"])


@examples(25)
@given(seeds, st.lists(st.sampled_from(KINDS), min_size=1, max_size=7), ACTIVATIONS)
def test_drawn_models_are_onnxruntimes(
    tmp_path_factory: Any, seed: int, kinds: list[str], activations: str
) -> None:
    check_drawn(seed, kinds, activations, tmp_path_factory.mktemp("drawn") / "m.onnx")


@pytest.mark.slow
@examples(300)
@given(seeds, st.lists(st.sampled_from(KINDS), min_size=4, max_size=14), ACTIVATIONS)
def test_many_drawn_models_are_onnxruntimes(
    tmp_path_factory: Any, seed: int, kinds: list[str], activations: str
) -> None:
    check_drawn(seed, kinds, activations, tmp_path_factory.mktemp("drawn") / "m.onnx")
