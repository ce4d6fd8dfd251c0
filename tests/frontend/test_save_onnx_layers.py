"""Every kind of layer written as ONNX: comes back equal, with the same outputs, or is refused for a reason."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import systolic
from support import onnx_models as om
from support.layer_examples import EXAMPLES, P, Q
from support.strategies import raises
from systolic import (
    Model,
    Node,
    QuantParams,
    UnsupportedOperator,
    layers,
    load_onnx,
    save_onnx,
)
from systolic.frontend.to_onnx import OPSET
from systolic.layers import Layer
from systolic.layers.host.matmul import HELD
from systolic.layers.table import OPERATORS
from systolic.presets import TPU_V1

F32 = "float32"
Spec = tuple[tuple[int, ...], str]
ONE_SCALE: Spec = ((), F32)

# What each example reads: shape and type of each input, and the operator set that it needs.
READS: dict[str, tuple[list[Spec], int]] = {
    "FloatConv": ([((1, 6, 5, 6), F32), ((3, 2, 2, 2), F32), ((3,), F32)], OPSET),
    "ArrayConv": ([((1, 6, 5, 6), F32), ((3, 2, 2, 2), F32), ((3,), F32)], OPSET),
    "ArrayMatMul": ([((4, 2), F32), ((3, 4), F32), ((3,), F32)], OPSET),
    "DequantizedConv": (
        [
            ((1, 6, 5, 6), "uint16"), ONE_SCALE, ((), "uint16"), ((3, 2, 2, 2), "int8"), ((3,), F32),
            ((3,), "int8"), ((3,), F32),
        ],
        21,
    ),
    "DequantizedMatMul": (
        [((4, 2), "int16"), ONE_SCALE, ((), "int16"), ((3, 4), "int8"), ((3,), F32), ((3,), "int8"), ((3,), F32)],
        21,
    ),
    "FloatConvTranspose": ([((1, 4, 2, 2), F32), ((4, 3, 2, 2), F32)], OPSET),
    "QLinearMul": ([((2, 3), "int8"), ((3,), "int8")], OPSET),
    "QLinearConcat": ([((2, 3), "int8"), ((2, 1), "int8")], OPSET),
    "QLinearWhere": ([((2, 1), "bool"), ((2, 3), "int8"), ((3,), "int8")], OPSET),
    "QLinearSigmoid": ([((2, 3), "int8")], OPSET),
    "QLinearLeakyRelu": ([((2, 3), "int8")], OPSET),
    "QLinearSoftmax": ([((2, 3, 2), "int8")], OPSET),
    "QLinearAveragePool": ([((1, 5, 6, 7, 2), "int8")], OPSET),
    "QLinearGlobalAveragePool": ([((2, 3, 4), "int8")], OPSET),
    "QuantizeLinear": ([((6, 2), F32), ((2, 2), F32), ((2, 2), "uint16")], 21),
    "DequantizeLinear": ([((8, 2), "int16"), ((2, 2), F32), ((2, 2), "int16")], 23),
    "Unary": ([((2, 3), F32)], OPSET),
    "Binary": ([((2, 3), F32), ((3,), F32)], OPSET),
    "Clip": ([((2, 3), F32)], OPSET),
    "Op": ([((2, 3), F32), ((3,), F32)], OPSET),
    "Where": ([((2, 1), "bool"), ((2, 3), "int16"), ((3,), "int16")], OPSET),
    "Cast": ([((2, 3), "int64")], OPSET),
    "Reduce": ([((2, 3, 4), F32)], OPSET),
    "ArgMax": ([((2, 3, 4), F32)], OPSET),
    "Softmax": ([((2, 3, 4), F32)], 12),
    "BatchNormalization": ([((2, 3, 4), F32), *[((3,), F32)] * 4], OPSET),
    "LayerNormalization": ([((2, 3), F32), ((3,), F32), ((3,), F32)], OPSET),
    "FloatMatMul": ([((4, 2), F32), ((3, 4), F32), ((3,), F32)], OPSET),
    "MatMulNBits": (
        [((3, 20), F32), ((5, 2, 8), "uint8"), ((10,), F32), ((5, 1), "uint8"), ((5,), F32)], OPSET,
    ),
    "MaxPool": ([((1, 2, 5, 6, 7), "int8")], OPSET),
    "AveragePool": ([((1, 2, 9), F32)], 19),
    "GlobalAveragePool": ([((1, 2, 9), F32)], OPSET),
    "Transpose": ([((2, 3), "uint8")], OPSET),
    "Squeeze": ([((1, 3), "int16")], OPSET),
    "Unsqueeze": ([((2, 3), "int16")], OPSET),
    "Concat": ([((2, 3), "int16"), ((2, 1), "int16"), ((2, 2), "int16")], OPSET),
    "Split": ([((2, 3), "int16")], OPSET),
    "Slice": ([((4, 3), F32), ((1,), "int64"), ((1,), "int64"), ((1,), "int64")], OPSET),
    "Gather": ([((2, 3), F32), ((2, 2), "int64")], OPSET),
    "Expand": ([((2, 1), F32), ((2,), "int64")], OPSET),
    "Reshape": ([((2, 3), F32), ((2,), "int64")], OPSET),
    "ShapeOf": ([((2, 3, 4), F32)], OPSET),
    "Fill": ([((2,), "int64")], OPSET),
    "Pad": ([((2, 3), F32), ((4,), "int64")], OPSET),
    "Resize": ([((2, 3), F32), ((1,), "int64")], 18),
    "OnnxNode": ([((2, 3), F32), ((), "int64")], 21),
    "ConvInteger": ([((1, 6, 5, 6), "int8"), ((3, 2, 2, 2), "int8"), ((), "int8"), ((3,), "int8")], OPSET),
    "DynamicQuantize": ([((2, 3), F32)], OPSET),
    "DynamicQuantizeLSTM": (
        [
            ((4, 1, 3), F32), ((1, 3, 8), "int8"), ((1, 2, 8), "int8"), ((1, 16), F32),
            ((1,), F32), ((1,), "int8"), ((1, 8), F32), ((1,), "int8"),
        ],
        OPSET,
    ),
    "MatMulInteger": ([((2, 3), "int8"), ((3, 2), "int8")], OPSET),
    "MatMulIntegerToFloat": (
        [((2, 3), "int8"), ((3, 2), "int8"), ONE_SCALE, ONE_SCALE, ((), "int8"), ((), "int8")],
        OPSET,
    ),
    "QLinearConv": (
        [
            ((1, 6, 5, 6), "int8"), ONE_SCALE, ((), "int8"), ((3, 2, 2, 2), "int8"), ((3,), F32),
            ((3,), "int8"), ONE_SCALE, ((), "int8"), ((3,), "int32"),
        ],
        OPSET,
    ),
    "QAttention": (
        [((2, 3, 4), "uint8"), ((4, 6), "int8"), ((6,), F32), ONE_SCALE, ((6,), F32)],
        OPSET,
    ),
    "QLinearMatMul": (
        [
            ((4, 2), "int8"), ONE_SCALE, ((), "int8"), ((3, 4), "int8"), ONE_SCALE, ((), "int8"),
            ONE_SCALE, ((), "int8"), ((3,), "int32"),
        ],
        OPSET,
    ),
}  # fmt: skip

_SUMS = onnx.helper.make_node("CumSum", ["x", "axis"], ["y0"], domain="")
SUMS = layers.OnnxNode(
    "CumSum", np.frombuffer(_SUMS.SerializeToString(), np.uint8), ("x", "axis"), (F32, "int64"), (F32,), (("", 21),)
)  # fmt: skip

NO_FORM = "ONNX has no convolution of codes to float32"


def of_one(layer: Layer, reads: list[Spec]) -> Model:
    names = getattr(layer, "reads", None) or tuple(f"x{i}" for i in range(len(reads)))
    count = {"Split": 2}.get(type(layer).__name__, layer.outputs or 1)
    outputs = tuple(f"y{i}" for i in range(count))
    return Model([Node(layer, names, outputs)], inputs=dict(zip(names, reads, strict=True)), outputs=outputs)


def drawn(name: str, spec: Spec, place: int) -> np.ndarray:
    rng = np.random.default_rng(place)
    shape, dtype = spec
    if dtype == "int64":
        # Operands that say where or how many, and all of them fit.
        fixed = {"Slice": [[0], [0], [2], [0]], "Expand": [0, [2, 3]], "Reshape": [0, [3, 2]],
                 "Fill": [[2, 3]], "Pad": [0, [1, 0, 0, 2]], "Resize": [0, [6]]}  # fmt: skip
        if name in fixed:
            return np.array(fixed[name][place], np.int64)
        return rng.integers(0, 2, shape).astype(dtype)
    if dtype == F32:
        return (rng.random(shape) + 0.5).astype(F32)
    high = 8 if name.startswith("Dequantized") and place == 3 else 90  # weights of 4 bits
    return rng.integers(0, 2 if dtype == "bool" else high, shape).astype(dtype)


def spelled(layer: Layer) -> Layer:
    """The layer as operators spell it: numbers as float32, and one for each of two spatial axes."""
    given = {f.name: getattr(layer, f.name) for f in dataclasses.fields(layer)}  # type: ignore[arg-type]
    changed: dict[str, Any] = {}
    for name, value in given.items():
        if name in ("stride", "dilation") and isinstance(value, int):
            changed[name] = (value, value)
        elif isinstance(value, float) or name == "low":
            changed[name] = value if value == 1e-5 else float(np.float32(value))
    return dataclasses.replace(layer, **changed)  # type: ignore[type-var]


def check(model: Model, folder: Path, feeds: dict[str, np.ndarray], opset: int) -> Model:
    path = folder / "m.onnx"
    save_onnx(model, path)
    assert {entry.domain: entry.version for entry in onnx.load(path).opset_import}[""] == opset
    loaded = load_onnx(path)
    # The array alone: not every product can be part of a program.
    ours = systolic.run(model, feeds, machine=TPU_V1.array, mode="wavefront").outputs
    theirs = systolic.run(loaded, feeds, machine=TPU_V1.array, mode="wavefront").outputs
    assert list(ours) == list(theirs)
    for name, array in ours.items():
        assert array.dtype == theirs[name].dtype
        np.testing.assert_array_equal(theirs[name], array)
    return loaded


@pytest.mark.parametrize("layer", EXAMPLES, ids=lambda layer: type(layer).__name__)
def test_every_example_comes_back_or_is_refused(tmp_path: Path, layer: Any) -> None:
    name = type(layer).__name__
    held = getattr(layer, "weight", None) is not None
    rounding = getattr(layer, "rounding", "half_even") if name != "Resize" else "half_even"
    no_form = name == "QLinearConv" and held and layer.y is None
    left_out = HELD if name == "FloatMatMul" and held else ""
    if left_out or rounding != "half_even" or no_form:
        why = left_out or (NO_FORM if no_form else f"ONNX rounds half_even, not {rounding!r}")
        dims = layer.weight.shape if name == "QLinearConv" else (2, 2)
        if name == "QLinearConv":
            image = (9,) * (len(dims) - 2)
            ic = dims[1] * layer.groups
            dims = (1, *image, ic) if layer.channels_last else (1, ic, *image)
        if name == "QLinearMatMul" and layer.weight is not None:
            dims = (2, 1)
        spec: Spec = (dims, F32 if left_out else "int8")
        model = of_one(layer, [spec] * (2 if name == "QLinearMatMul" and layer.weight is None else 1))
        with pytest.raises(UnsupportedOperator) as refused:
            save_onnx(model, tmp_path / "m.onnx")
        assert f"({name}): {why}" in str(refused.value)
        assert not list(tmp_path.iterdir())
        return
    reads, opset = READS[name]
    if name == "FloatConv" and held:
        reads = [((2, 2, 7, 8), F32)]
    # That example's bytes are of no node.
    model = of_one(SUMS if name == "OnnxNode" else spelled(layer), reads)
    feeds = {
        n: drawn(name, spec, place) for place, (n, spec) in enumerate(zip(model.inputs, reads, strict=True))
    }
    loaded = check(model, tmp_path, feeds, opset)
    (node,) = loaded.nodes
    assert node.layer == model.nodes[0].layer
    assert (node.inputs, node.outputs) == (model.nodes[0].inputs, model.nodes[0].outputs)


# Those that sum no floats, take no function of a library's own, and that ONNX Runtime has for these types.
EXACT = (
    "QLinearMul", "QLinearConcat", "QLinearWhere", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax",
    "QLinearAveragePool", "QLinearGlobalAveragePool", "QuantizeLinear", "DequantizeLinear", "Clip", "Cast", "ArgMax",
    "Transpose", "Squeeze", "Unsqueeze", "Concat", "Split", "Slice", "Gather", "Expand", "Reshape",
    "ShapeOf", "Fill", "Pad", "Resize", "OnnxNode", "DynamicQuantize", "MatMulInteger",
)  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_onnxruntime_gives_the_same(tmp_path: Path, name: str) -> None:
    (layer,) = (layer for layer in EXAMPLES if type(layer).__name__ == name)
    reads, _ = READS[name]
    model = of_one(SUMS if name == "OnnxNode" else spelled(layer), reads)
    feeds = {
        n: drawn(name, spec, place) for place, (n, spec) in enumerate(zip(model.inputs, reads, strict=True))
    }
    save_onnx(model, tmp_path / "m.onnx")
    ours = systolic.run(model, feeds, mode="wavefront").outputs.values()
    for array, theirs in zip(ours, om.onnxruntime_outputs(tmp_path / "m.onnx", feeds), strict=True):
        assert array.dtype == theirs.dtype
        np.testing.assert_array_equal(array, theirs)


def test_every_layer_is_written_or_says_why() -> None:
    kinds = {
        name
        for name, kind in vars(layers).items()
        if isinstance(kind, type) and dataclasses.is_dataclass(kind) and issubclass(kind, Layer)
    }
    written = {"OnnxNode", *(record.layer.__name__ for record in OPERATORS.values() if record.layer)}
    # Written as products of float32, with a note.
    noted = {"ArrayConv", "ArrayMatMul", "DequantizedConv", "DequantizedMatMul"}
    assert kinds == written | noted


MORE: dict[str, tuple[Layer, list[Spec], int]] = {
    "Gelu": (layers.Unary("Gelu"), [((2, 3), F32)], 20),
    "tanh Gelu": (layers.Unary("GeluTanh"), [((2, 3), F32)], 20),
    **{op: (layers.Binary(op), [((2, 3), F32), ((3,), F32)], OPSET) for op in ("Sub", "Div", "Mul", "Max", "Less")},
    **{op: (layers.Unary(op), [((2, 3), F32)], OPSET) for op in ("Erf", "Sqrt", "Round", "Sigmoid")},
    "largest": (layers.Reduce("ReduceMax", (1,)), [((2, 3), F32)], OPSET),
    "sum over all": (layers.Reduce("ReduceSum", None), [((2, 3), F32)], OPSET),
    "Softmax of an axis": (layers.Softmax(0), [((2, 3), F32)], OPSET),
    "MatMul": (layers.FloatMatMul(), [((2, 2, 3), F32), ((3, 4), F32)], OPSET),
    "FusedMatMul": (
        layers.FloatMatMul(transpose_b=True, alpha=0.5, runtime_constants=(1,)), [((2, 2, 3), F32), ((2, 4, 3), F32)], OPSET,
    ),
    "FusedGemm": (
        layers.FloatMatMul(activation="Relu", beta=0.5), [((2, 3), F32), ((3, 4), F32), ((4,), F32)], OPSET,
    ),
    "weights of 8 bits": (
        layers.MatMulNBits(20, 5, bits=8, block_size=16), [((3, 20), F32), ((5, 2, 16), "uint8"), ((5, 2), F32)], OPSET,
    ),
    "codes without a zero point": (layers.QuantizeLinear(dtype="int16"), [((2, 3), F32), ((3,), F32)], 21),
    "plain product of codes": (
        layers.QLinearMatMul(), [*READS["QLinearMatMul"][0][:3], ((2, 4), "int8"), *READS["QLinearMatMul"][0][4:8]], OPSET,
    ),
    "transposed product": (
        layers.QLinearMatMul(x=P, w=Q, y=None, transpose_x=True), [((3, 2), "int8"), ((3, 4), "int8"), ((4,), "int32")], OPSET,
    ),
    "one clipped end": (layers.Clip(high=3), [((2, 3), "int8")], OPSET),
    "simple Resize": (layers.Resize(coordinates="asymmetric", rounding="simple"), [((2, 3), F32), ((2,), F32)], 10),
    "wrapped Pad": (layers.Pad("wrap"), [((2, 3), F32), ((4,), "int64")], 19),
    "axes of a Squeeze": (layers.Squeeze(), [((1, 3), F32)], OPSET),
    "small integers' sum": (layers.Binary("Add"), [((3,), "int16"), ((3,), "int16")], OPSET),
    "places of maxima": (layers.MaxPool((3,), padding=((1, 2),), indices="column"), [((1, 2, 7), F32)], OPSET),
    "average of images": (layers.QLinearAveragePool((2,), P, Q), [((1, 2, 5), "int8")], OPSET),
}  # fmt: skip


@pytest.mark.parametrize("case", MORE)
def test_other_uses(tmp_path: Path, case: str) -> None:
    layer, reads, opset = MORE[case]
    model = of_one(layer, reads)
    names = zip(model.inputs, reads, strict=True)
    feeds = {n: drawn(type(layer).__name__, spec, place) for place, (n, spec) in enumerate(names)}
    assert check(model, tmp_path, feeds, opset).nodes[0].layer == layer


def test_layers_of_two_operator_sets(tmp_path: Path) -> None:
    nodes = [Node(layers.Softmax(1, flatten=True), ("x",), "t"), Node(layers.Unary("Gelu"), ("t",), "y")]
    with raises(
        UnsupportedOperator,
        "node 't' (Softmax): its operator is older than 13, and other layers are of 20; use Model.save",
    ):
        save_onnx(Model(nodes, inputs={"x": ((2, 3), F32)}), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_a_type_that_no_operator_set_takes(tmp_path: Path) -> None:
    model = Model(
        [Node(layers.Binary("Pow"), ("a", "b"), "y")], inputs={"a": ((2,), "uint8"), "b": ((2,), "uint8")}
    )
    with pytest.raises(
        UnsupportedOperator, match=r"^node .* \(Binary\): ONNX's Pow \(\) takes no tensor\(uint8\)"
    ):
        save_onnx(model, tmp_path / "m.onnx")


def test_an_evaluated_node_by_other_names(tmp_path: Path) -> None:
    nodes = [
        Node(SUMS, ("numbers", "along"), "sums", "running sums"),
        Node(layers.QuantizeLinear(QuantParams(0.5)), ("sums",), "y"),
    ]
    model = Model(nodes, inputs={"numbers": ((None, 3), F32), "along": ((), "int64")})
    feeds = {"numbers": np.float32([[1, 2, 3]]), "along": np.array(1)}
    loaded = check(model, tmp_path, feeds, 21)
    assert loaded.nodes[0].name == "running sums"
    # Now they are named as in the file, which comes back as it is.
    save_onnx(loaded, tmp_path / "again.onnx")
    assert load_onnx(tmp_path / "again.onnx") == loaded


def test_an_evaluated_node_beside_microsofts(tmp_path: Path) -> None:
    """The domain of the other node is no part of what the evaluated one means."""
    nodes = [Node(SUMS, ("x", "axis"), "y0"), Node(layers.QuantizeLinear(P), ("y0",), "q"),
             Node(layers.QLinearSigmoid(P, Q), ("q",), "y")]  # fmt: skip
    model = Model(nodes, inputs={"x": ((2, 3), F32), "axis": ((), "int64")})
    save_onnx(model, tmp_path / "m.onnx")
    assert load_onnx(tmp_path / "m.onnx") == model


def test_an_output_of_unknown_shape(tmp_path: Path) -> None:
    model = Model(
        [Node(layers.Slice(), ("s", "from", "to"), "t"), Node(layers.Reshape(), ("x", "t"), "y")],
        inputs={"s": ((3,), "int64"), "from": ((1,), "int64"), "to": ((1,), "int64"), "x": ((2, 3), F32)},
    )
    feeds = {
        "s": np.array([3, 2, 1]),
        "from": np.array([0]),
        "to": np.array([2]),
        "x": np.ones((2, 3), np.float32),
    }
    path = tmp_path / "m.onnx"
    save_onnx(model, path)
    assert load_onnx(path) == model
    assert systolic.run(load_onnx(path), feeds, mode="wavefront").outputs["y"].shape == (3, 2)
