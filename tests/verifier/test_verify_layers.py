"""Every kind of layer, on every type it takes, against its oracle: through the check of a run."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from support.layer_examples import EXAMPLES, P, Q
from support.toy_layers import Halves
from support.zoo import zoo
from systolic import Model, Node, layers, reference, run
from systolic.layers import Layer
from systolic.layers.host.arithmetic import BINARY, UNARY
from systolic.layers.host.delegated import FloatProduct
from systolic.layers.host.normalize import REDUCE
from systolic.layers.host.op import RECORDS
from systolic.layers.host.resample import COORDINATES, PAD_MODES, POLICIES, ROUNDINGS
from systolic.model import DTYPES, LAYERS
from systolic.presets import TPU_V1
from systolic.quant import QuantParams
from systolic.reference.oracle import ORACLES
from systolic.reference.oracle.contrib import OPS
from systolic.verifier import ModelCheck

F = np.float32


def numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Draw numbers of any type: around 0, with ties and halves, the extremes of 8 bits among them."""
    if dtype == "bool":
        return rng.integers(2, size=shape).astype(bool)
    if dtype.startswith("float"):
        return (rng.integers(-40, 40, shape) / 4 + rng.normal(size=shape)).astype(dtype)
    low = max(np.iinfo(dtype).min, -128)
    return rng.integers(low, low + 255, shape, endpoint=True).astype(dtype)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


X = "x"
"""Stands for the type that is varied."""

# By the kind of layer: shapes with types, or arrays, of what it reads.
READS: dict[type[Layer], list[Any]] = {
    layers.ArgMax: [((2, 3, 4), X)],
    layers.AveragePool: [((2, 3, 9), X)],
    layers.Binary: [((2, 3, 4), X), ((3, 1), X)],
    layers.Cast: [((3, 4), X)],
    layers.Clip: [((3, 4), X)],
    layers.Concat: [((2, 3), X), ((2, 1), X), ((2, 4), X)],
    layers.ConvInteger: [((2, 3, 6, 7), X), ((6, 1, 2, 3), "int8"), np.array(3, "int8"), np.array(-2, "int8")],
    layers.DequantizeLinear: [((8, 3), X), F([[0.5, 1, 2], [0.25, 3, 1]])],
    layers.DynamicQuantize: [((3, 4), X)],
    layers.DynamicQuantizeLSTM: [
        ((4, 3, 3), X), ((1, 3, 8), "int8"), ((1, 2, 8), "int8"), ((1, 16), X),
        F([0.01]), np.array([0], "int8"), F([[0.01] * 8]), np.array([0], "int8"),
    ],
    layers.Expand: [((3, 1), X), ints(2, 1, 4)],
    layers.Fill: [ints(2, 3)],
    layers.Flatten: [((2, 3, 4), X)],
    layers.FloatConv: [((2, 6, 7, 8), X), ((3, 2, 2, 3), X), ((3,), X)],
    layers.ArrayConv: [((2, 6, 7, 8), X), ((3, 2, 2, 3), X), ((3,), X)],
    layers.ArrayMatMul: [((4, 3), X), ((5, 4), X), ((5,), X)],
    layers.DequantizedConv: [
        ((2, 6, 7, 8), X), F(0.5), ((), X), ((3, 2, 2, 3), "int8"), F([0.25, 1, 0.1]), np.array([1, -2, 0], "int8"), ((3,), "float32"),
    ],
    layers.DequantizedMatMul: [
        ((4, 3), X), F(0.5), ((), X), ((5, 4), "int8"), F([0.25, 1, 0.1, 3, 2]), np.array(1, "int8"), ((5,), "float32"),
    ],
    layers.FloatConvTranspose: [((2, 4, 2, 2), X), ((4, 3, 2, 3), X), ((6,), X)],
    layers.MatMulNBits: [((3, 20), X), ((5, 2, 8), "uint8"), ((10,), X), ((5, 1), "uint8"), ((5,), X)],
    layers.FloatMatMul: [((4, 3), X), ((5, 4), X), ((5,), X)],
    layers.Gather: [((3, 4), X), np.array([[0, -1], [3, 1]])],
    layers.GlobalAveragePool: [((2, 3, 4, 5), X)],
    layers.Identity: [((2, 3), X)],
    layers.BatchNormalization: [((2, 3, 4), X), *[((3,), X)] * 4],
    layers.LayerNormalization: [((2, 3, 4), X), ((3, 4), X), ((4,), X)],
    layers.MatMulInteger: [((3, 4), X), ((4, 5), "int8")],
    layers.MatMulIntegerToFloat: [
        ((3, 4), X), ((4, 5), "int8"), F(0.5), F(0.25), ((), X), np.array(1, "int8"),
    ],
    layers.Pad: [((3, 4), X), ints(2, -1, 1, 3)],
    layers.QLinearConcat: [((2, 3), X), ((2, 4), X)],
    layers.QLinearConv: [
        ((2, 6, 7, 3), X), F(0.5), ((), X), ((6, 1, 2, 3), "int8"), F(0.25), np.array(1, "int8"),
        F(2), ((), X),
    ],
    layers.QLinearGlobalAveragePool: [((2, 4, 5, 3), X)],
    layers.QLinearLeakyRelu: [((30, 40), X)],
    layers.QAttention: [((2, 3, 4), "uint8"), ((4, 6), "int8"), ((6,), X), F(0.01), F([0.02] * 6)],
    layers.QLinearMatMul: [
        ((4, 3), X), F(0.5), ((), X), ((5, 4), "int8"), F(0.25), np.array(1, "int8"), F(2),
        ((), X),
    ],
    layers.QLinearAdd: [((2, 3, 4), X), ((3, 1), X)],
    layers.QLinearMul: [((3, 4), X), ((4,), X)],
    layers.QLinearSigmoid: [((30, 40), X)],
    layers.QLinearSoftmax: [((3, 4), X)],
    layers.QLinearWhere: [((3, 4), "bool"), ((3, 4), X), ((4,), X)],
    layers.QuantizeLinear: [((6, 5), X), F([[1, 2, 3, 4, 5], [2, 2, 1, 1, 1]]), ((2, 5), "uint16")],
    layers.Reduce: [((2, 3, 4), X)],
    layers.Relu: [((3, 4), X)],
    layers.Reshape: [((2, 3, 4), X), ints(4, -1)],
    layers.Resize: [((3, 4), X), ints(7)],
    layers.ShapeOf: [((2, 3, 4), X)],
    layers.Slice: [((5, 6), X), ints(-1, 1), ints(-9, 2**63 - 1), ints(0, 1), ints(-2, 3)],
    layers.Softmax: [((2, 3, 4), X)],
    layers.Split: [((2, 3), X)],
    layers.Squeeze: [((1, 3), X)],
    layers.Transpose: [((3, 4), X)],
    layers.Unary: [((30, 40), X)],
    layers.Unsqueeze: [((3, 4), X)],
    layers.Op: [((2, 3), X), ((3,), X)],
    layers.Where: [((3, 1), "bool"), ((3, 4), X), ((4,), X)],
}  # fmt: skip


def more() -> Iterator[tuple[Layer, list[Any] | None]]:
    """Yield layers with other fields, and what they read if it is not as above."""
    for operation in UNARY:
        yield layers.Unary(operation), None
    for operation in BINARY:
        yield layers.Binary(operation), None
    for operation, axes, keep in itertools.product(REDUCE, (None, (1,), (0, 2)), (True, False)):
        yield layers.Reduce(operation, axes, keepdims=keep), None
        if axes is not None:
            yield layers.Reduce(operation, keepdims=keep), [((2, 3, 4), X), ints(*axes)]
    for mode in PAD_MODES:
        yield layers.Pad(mode), None
        yield layers.Pad(mode), [((3, 4), X), ints(1, 2), ((), X), ints(-1)]
    for coordinates, rounding in itertools.product(COORDINATES, ROUNDINGS):
        how: Any = {"coordinates": coordinates, "rounding": rounding}
        yield layers.Resize("scales", **how), [((3, 4), X), F([2.5, 0.6])]
        for policy, sizes in itertools.product(POLICIES, ((7, 2), (2, 9))):
            yield layers.Resize("sizes", policy=policy, **how), [((3, 4), X), ints(*sizes)]
    for keepdims, last in itertools.product((True, False), repeat=2):
        yield layers.ArgMax(-2, keepdims=keepdims, last=last), None
    for operation in REDUCE:
        yield layers.Reduce(operation, (1,)), [((2, 0, 4), X)]
    for padding in ("same", "same_lower"):
        yield layers.MaxPool((1,), stride=(4,), padding=padding), [((2, 3, 8), X)]
        yield layers.AveragePool((2,), stride=(5,), padding=padding, count_include_pad=True), [((2, 3, 8), X)]
        yield layers.AveragePool((1,), stride=(4,), padding=padding), [((2, 3, 8), X)]
        yield layers.FloatConv(stride=4, padding=padding), [((2, 3, 8), X), ((4, 3, 1), X)]
    yield layers.Resize("sizes", axes=(1, -2), policy="not_larger"), [((3, 4), X), ints(7, 9)]
    for bits, packed in ((4, 1), (8, 2)):
        nbits = layers.MatMulNBits(20, 5, bits=bits, block_size=16)
        reads: list[Any] = [((2, 3, 20), X), ((5, 2, 2 * bits), "uint8"), ((5, 2), X)]
        yield nbits, reads
        yield nbits, [*reads, ((5, packed), "uint8")]
        yield nbits, [*reads, ((5, 2), "float32")]
        yield dataclasses.replace(nbits, bias=True), [*reads, ((5,), X)]
    yield layers.FloatMatMul(np.ones((4, 5)), transpose_a=True, alpha=0.5, runtime_constants=(1,)), [((4, 3), X)]
    yield layers.FloatMatMul(activation="Relu", runtime_constants=()), [((3, 4), X), ((4, 5), X)]
    yield layers.FloatMatMul(transpose_b=True, alpha=0.5, runtime_constants=()), [((2, 3, 4), X), ((2, 5, 4), X)]
    numbers = (F(0.1), np.array(77, "uint16"))
    yield layers.DequantizedMatMul(beta=0.0), [((3, 4), "uint16"), *numbers, ((4, 5), "uint8"), F(0.25), np.array(9, "uint8"), ((5,), "float32")]
    yield layers.DequantizedMatMul(), [((2, 3, 4), "uint16"), *numbers, ((2, 4, 5), "int8"), F(0.25), np.array(0, "int8")]
    yield layers.DequantizedMatMul(w_bits=16), [((4,), "uint16"), *numbers, ((4, 5), "int16"), F(0.25), np.array(-3, "int16")]
    yield layers.DequantizedConv(padding=1), [((1, 2, 3, 4, 5), "uint16"), *numbers, ((2, 2, 3, 2, 1), "int8"), F(1), np.array(1, "int8")]
    yield layers.ArrayMatMul("float16", beta=0.0), [((3, 4), X), ((4, 5), X), ((5,), X)]
    yield layers.ArrayMatMul("float8_e4m3fn"), [((2, 3, 4), X), ((2, 4, 5), X)]
    yield layers.ArrayMatMul("bfloat16"), [((2, 3, 4), X), ((4,), X)]
    yield layers.ArrayConv("bfloat16", padding=1), [((1, 2, 3, 4, 5), X), ((2, 2, 3, 2, 1), X), ((2,), X)]
    yield layers.ArrayConv("float16", stride=2, padding="same"), [((2, 3, 8), X), ((4, 3, 3), X)]
    yield layers.FloatMatMul(beta=0.0), [((3, 4), X), ((4, 5), X), ((5,), X)]
    yield layers.Binary("Pow"), [((3, 4), X), np.array(3)]
    yield layers.Softmax(-2), None
    yield layers.Transpose(), [((2, 3, 4), X)]
    yield layers.Slice(), [((5, 6), X), ints(1), ints(4)]
    yield layers.Gather(0), [((3, 4), X), np.array(-1)]
    yield layers.Gather(0), [((3,), X), np.array(1)]
    yield layers.Transpose(), [((), X)]
    yield layers.Expand(), [((), X), ints(2, 3)]
    yield layers.Reduce("ReduceSum"), [((), X)]
    yield layers.Squeeze(), [((1, 1), X)]
    yield layers.Unsqueeze((0,)), [((), X)]
    yield layers.Concat(0), [((0, 2), X), ((3, 2), X)]
    yield layers.Slice(), [((4,), X), ints(3), ints(1)]
    yield layers.Pad(), [((0, 2), X), ints(1, 0, 1, 0)]
    yield layers.Where(), [((), "bool"), ((3,), X), ((), X)]
    yield layers.FloatMatMul(), [((3, 2, 4), X), ((4, 5), X)]
    yield layers.FloatMatMul(), [((4,), X), ((2, 4, 5), X)]
    yield layers.FloatMatMul(), [((2, 3, 4), X), ((4,), X)]
    yield layers.LayerNormalization(), [((2, 3, 4), X), ((4,), X)]
    yield layers.Reshape((0, 3), allowzero=True), [((2, 0, 5), X)]
    yield layers.Reshape((0, -1)), [((0, 3, 2), X)]
    yield layers.Flatten(1), [((0, 3, 2), X)]
    yield layers.Flatten(2), [((2, 3, 0), X)]
    for padding in ("same", "same_lower", "valid"):
        yield layers.MaxPool((3,), stride=(2,), padding=padding), [((2, 3, 8), X)]
        yield layers.MaxPool((3, 3), stride=2, padding=padding, channels_last=True), [((2, 8, 9, 3), X)]
        yield layers.AveragePool((3, 2), stride=(2, 1), padding=padding), [((2, 3, 8, 5), X)]
        yield layers.FloatConv(stride=2, padding=padding), [((2, 3, 8), X), ((4, 3, 3), X)]
        for size in (None, (9,)):
            yield (
                layers.FloatConvTranspose(stride=2, padding=padding, output_size=size),
                [((2, 3, 4), X), ((3, 2, 4), X)],
            )
    yield layers.MaxPool((3,), padding=((2, 1),), dilation=(2,), ceil_mode=True), [((2, 3, 8), X)]
    for order in ("row", "column"):
        yield layers.MaxPool((2, 2), padding=((1, 0), (0, 1)), indices=order), [((2, 3, 4, 5), X)]
    yield layers.MaxPool((3,), padding=((1, 2),), indices="column"), [((2, 3, 9), X)]
    yield layers.AveragePool((2,), padding=((1, 1),), stride=(2,), ceil_mode=True), [((2, 3, 8), X)]
    yield layers.FloatConvTranspose(padding=((1, 0),), stride=2, output_padding=1), [
        ((2, 3, 4), X), ((3, 2, 4), X),
    ]  # fmt: skip
    yield layers.FloatConv(padding=1), [((1, 2, 3, 4, 5), X), ((2, 2, 3, 2, 1), X), ((2,), X)]
    yield from more_of_transformers()
    for dtype in DTYPES:
        yield layers.Cast(dtype), None
    for y in (QuantParams(0.5, 3), QuantParams(0.25, 200, "uint8")):
        yield layers.QuantizeLinear(y), None


def more_of_transformers() -> Iterator[tuple[Layer, list[Any] | None]]:
    """Yield recurrent layers, attention and what is fused around it, all their inputs given."""
    two = {
        "direction": "bidirectional",
        "activations": ["Tanh", "Elu", "Relu", "Affine", "Softplus", "ScaledTanh"],
    }
    lengths, zeros = np.int32([4, 0, 2]), np.zeros((2, 8), "uint8")
    lstm = [
        ((4, 3, 3), X), ((2, 3, 8), "uint8"), ((2, 2, 8), "uint8"), ((2, 16), X), lengths, ((2, 3, 2), X),
        ((2, 3, 2), X), ((2, 6), X), F([0.01, 0.02]), np.uint8([3, 4]), F([[0.01] * 8] * 2), zeros + 200,
    ]  # fmt: skip
    given = ("b", "sequence_lens", "initial_h", "initial_c", "p")
    yield (
        layers.DynamicQuantizeLSTM(
            2, given=given, input_forget=True, activation_alpha=[0.5, 2], clip=3.0, **two
        ),
        lstm,
    )
    past, ends = ((2, 2, 2, 1, 2), X), np.int32([2, 3])
    yield (
        layers.QAttention(2, unidirectional=True, given=("mask_index", "x_zero_point", "w_zero_point", "past")),
        [
            ((2, 3, 5), "uint8"), ((5, 12), "int8"), ((12,), X), F(0.01), F([0.01] * 12), ends,
            np.uint8(7), np.int8([3] * 12), past,
        ],
    )  # fmt: skip
    heads = {"num_heads": 2, "mask_filter_value": -5.0}
    weights = [((2, 3, 5), X), ((5, 12), X), ((12,), X)]
    yield layers.Op("Attention", {**heads, "unidirectional": 1}), [*weights, np.ones((2, 4), "int32"), past]
    yield (
        layers.Op("Attention", {**heads, "qkv_hidden_sizes": (2, 2, 8)}, (3, 4)),
        [*weights, ((1, 2, 3, 3), X)],
    )
    ids, table, row = np.int32([[0, 2], [1, 1]]), ((3, 4), X), ((4,), X)
    yield (
        layers.Op("EmbedLayerNormalization"), [ids, ids, table, table, table, row, row, 2 - ids, ids[:1]]
    )  # fmt: skip
    yield layers.Op("EmbedLayerNormalization", (), (1, 4)), [ids, table, table, row, row]
    yield layers.Op("SkipLayerNormalization", {"epsilon": 0.5}), [((2, 3, 4), X), ((3, 4), X), row, row, row]


def reads_of(layer: Layer) -> list[Any]:
    if isinstance(layer, layers.QLinearConv) and layer.weight is not None:
        channels, image = layer.weight.shape[1] * layer.groups, (9, 8, 7)[: layer.weight.ndim - 2]
        return [((2, *image, channels) if layer.channels_last else (2, channels, *image), X)]
    for kind, field, shape in (
        (layers.Reshape, "shape", (2, 2, 4)), (layers.FloatMatMul, "weight", (3, 2)), (layers.DequantizeLinear, "x", (4, 3)),
        (layers.QuantizeLinear, "y", (30, 40)),
    ):  # fmt: skip
        if isinstance(layer, kind) and getattr(layer, field) is not None:
            return [(shape, X)]
    if isinstance(layer, layers.QLinearMatMul) and layer.weight is not None:
        return [((3, layer.weight.shape[0]), X)]
    if isinstance(layer, layers.QLinearMatMul) and layer.x is not None:
        return [((2, 4, 3), X), ((5, 4), "int8")]
    if isinstance(layer, layers.FloatConv) and layer.weight is not None:
        return [((2, layer.weight.shape[1] * layer.groups, 7, 8), X)]
    if isinstance(layer, layers.MaxPool | layers.QLinearAveragePool):
        image = (5, 6, 7)[: len(layer.kernel)]
        return [((2, *image, 3) if layer.channels_last else (2, 3, *image), X)]
    reads = READS[type(layer)]
    if getattr(layer, "w_bits", 8) == 4:
        w = numbers(np.random.default_rng(0), reads[3][0], "int8") // 16
        return [*reads[:3], w, *reads[4:]]
    return reads


def drawn(reads: list[Any], dtype: str) -> list[np.ndarray]:
    rng = np.random.default_rng(len(reads))
    arrays = []
    for read in reads:
        if isinstance(read, tuple):
            shape, of = read
            arrays.append(numbers(rng, shape, dtype if of == X else of))
        else:
            arrays.append(read)
    return arrays


CASES = [(layer, None) for layer in [*(node.layer for node in zoo().nodes), *EXAMPLES]] + list(more())


def taken(layer: Layer, reads: list[Any] | None) -> Iterator[list[np.ndarray]]:
    """Yield what a layer reads, for each type that it takes."""
    for dtype in DTYPES:
        try:
            arrays = drawn(reads_of(layer) if reads is None else reads, dtype)
            if layer.kind in ("Div", "Pow"):  # what integers and negative numbers have
                arrays[1] = np.abs(arrays[1]).astype(dtype) % 5 + np.array(1, dtype)
            layer.output_dtype(*(array.dtype.name for array in arrays))
        except (TypeError, ValueError):
            continue
        yield arrays


@pytest.mark.slow
@pytest.mark.parametrize(("layer", "reads"), CASES, ids=lambda value: repr(value)[:90])
def test_every_layer_and_type_has_an_oracle(layer: Layer, reads: list[Any] | None) -> None:
    if isinstance(layer, layers.OnnxNode):
        assert layer.delegate is not None and not reference.has_oracle(layer)
        return
    assert layer.delegate is None or isinstance(layer, FloatProduct)
    types = 0
    for arrays in taken(layer, reads):
        names = tuple(f"x{i}" for i in range(len(arrays)))
        outputs: Any = "y"
        if layer.outputs != 1:
            shapes = layer.output_shape(*(array.shape for array in arrays))
            outputs = tuple(f"y{i}" for i in range(len(shapes)))
        specs: Any = {
            name: (array.shape, array.dtype.name) for name, array in zip(names, arrays, strict=True)
        }
        check = ModelCheck(TPU_V1, "wavefront")
        run(
            Model([Node(layer, names, outputs)], inputs=specs),
            dict(zip(names, arrays, strict=True)),
            mode="wavefront",
            observe=check,
        )
        assert not check.mismatches and not check.notes and check.checked == 1, (arrays[0].dtype, check.notes)
        # A sum in double precision, rounded once, is as good as equal.
        assert check.within < 1e-6 or arrays[0].dtype == np.float16
        types += 1
    assert types


def fields_alone(value: Any) -> Any:
    """Return a layer, or the parameters in its fields, without its class: no method, no property."""
    if isinstance(value, tuple):
        return tuple(map(fields_alone, value))
    if not dataclasses.is_dataclass(value):
        return value
    held = {f.name: fields_alone(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return SimpleNamespace(**held)


@pytest.mark.slow
@pytest.mark.parametrize(("layer", "reads"), CASES, ids=lambda value: repr(value)[:90])
def test_oracles_read_nothing_but_fields(layer: Layer, reads: list[Any] | None) -> None:
    if isinstance(layer, layers.OnnxNode):
        return
    for arrays in taken(layer, reads):
        with np.errstate(all="ignore"):
            bare = ORACLES[type(layer).__name__](fields_alone(layer), *arrays)
        outputs = reference.expected_output(layer, arrays)
        for one, other in zip(
            *([y] if isinstance(y, np.ndarray) else y for y in (bare, outputs)), strict=True
        ):
            np.testing.assert_array_equal(one, other)


def test_every_kind_is_among_them() -> None:
    kinds = {type(layer).__name__ for layer, _ in CASES}
    # An evaluator computes OnnxNode.
    assert kinds == set(LAYERS) == {*ORACLES, "OnnxNode"}
    operations = {layer.operation for layer, _ in CASES if isinstance(layer, layers.Op)}
    assert operations == set(RECORDS) == set(OPS)


def changed(array: np.ndarray) -> np.ndarray:
    """Return an array with one element that is wrong by the least that counts."""
    array = array.copy()
    flat = array.reshape(-1)
    if not flat.size:
        return array
    if array.dtype.kind == "b":
        flat[-1] = not flat[-1]
    elif array.dtype.kind == "f":
        largest = np.abs(flat[np.isfinite(flat)]).max(initial=1)
        flat[-1] = flat[-1] + largest / 16 if np.isfinite(flat[-1]) else 0
    else:
        flat[-1] ^= 1
    return array


@pytest.mark.slow
@pytest.mark.parametrize(
    "layer",
    [layer for layer, _ in CASES if not isinstance(layer, layers.OnnxNode)],
    ids=lambda v: repr(v)[:60],
)
def test_no_oracle_passes_a_wrong_element(layer: Layer) -> None:
    reads = next(reads for other, reads in CASES if other is layer)
    arrays = next(taken(layer, reads))
    check = ModelCheck(TPU_V1, "wavefront")
    names = tuple(f"x{i}" for i in range(len(arrays)))
    result: Any = reference.expected_output(layer, arrays)
    if layer.outputs == 1 and not result.size:
        return  # nothing to be wrong
    wrong = changed(result) if layer.outputs == 1 else tuple(map(changed, result))
    outputs: Any = "y" if layer.outputs == 1 else tuple(f"y{i}" for i in range(len(result)))
    check(Node(layer, names, outputs), arrays, wrong)
    assert len(check.mismatches) == 1 and not check.notes


@pytest.mark.parametrize("shapes", [((4,), (4, 3)), ((2, 3, 4), (4,)), ((4,), (4,)), ((2, 3, 4), (4, 5))])
def test_wrong_sums_of_floats_are_located(shapes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Operands that are not rounded as they should be, of vectors too."""
    layer, arrays = layers.ArrayMatMul("float16"), [np.ones(shape, F) for shape in shapes]
    monkeypatch.setattr(layers.ArrayMatMul, "_rounded", lambda _, values: (values * 2).astype(np.float16))
    check = ModelCheck(TPU_V1, "wavefront")
    check(Node(layer, ("a", "b"), "y"), arrays, np.full(layer.output_shape(*shapes), 16, F))
    (found,) = check.mismatches
    assert (found.stage, found.got, found.expected) == ("im2col", 16, 4)


def test_the_special_numbers() -> None:
    """NaN and infinity where a run has them are equal; where it has not, they differ."""
    x = F([[np.nan, 1, np.inf, -np.inf, 0.0, 5]])
    for layer in (
        layers.Unary("Abs"), layers.Unary("Sigmoid"), layers.Reduce("ReduceMax", (1,)), layers.Clip(-1, 2),
        layers.Softmax(), layers.Relu(), layers.Cast("float16"), layers.Unary("Exp"),
    ):  # fmt: skip
        check = ModelCheck(TPU_V1, "wavefront")
        check(Node(layer, "x", "y"), [x], layer.apply(x))  # type: ignore[attr-defined]
        assert not check.mismatches and not check.notes and check.checked == 1
        check(Node(layer, "x", "y"), [x], np.nan_to_num(layer.apply(x)) + 1)  # type: ignore[attr-defined]
        assert len(check.mismatches) == 1


def test_sums_of_infinities() -> None:
    a, b = F([np.inf, -np.inf, 3e38]), F([-np.inf, -np.inf, 3e38])
    for layer in (layers.Binary("Add"), layers.Binary("Mul"), layers.Binary("Max")):
        check = ModelCheck(TPU_V1, "wavefront")
        check(Node(layer, ("a", "b"), "y"), [a, b], layer.apply(a, b))
        assert not check.mismatches and not check.notes and check.checked == 1


def test_a_kind_without_an_oracle_is_named() -> None:
    check = ModelCheck(TPU_V1, "wavefront")
    check(Node(Halves(), "x", ("a", "b"), "n"), [F([1, 2])], Halves().apply(F([1, 2])))
    assert check.notes == ("nothing to check layers of these kinds against: Halves",)


def test_codes_of_a_sigmoid_near_ties() -> None:
    for scale in (0.01, 0.03, 0.0625, 0.3, 2.0):
        layer = layers.QLinearSigmoid(QuantParams(scale, 5), QuantParams(1 / 256, -128))
        q = np.arange(-128, 128).astype(np.int8)
        np.testing.assert_array_equal(layer.apply(q), reference.expected_output(layer, [q]))
    assert P != Q
