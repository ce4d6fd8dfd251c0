"""Operators on floats and shapes beside the array: against ONNX Runtime, and where they must refuse."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import systolic
from support import onnx_models as om
from support.onnx_models import Case, F
from support.oracle_cases import fixed
from systolic import layers, load_onnx
from systolic.layers.base import UnknownShape
from systolic.layers.host import _functions
from systolic.layers.table import OPERATORS

# How far from ONNX Runtime where its bits are not fixed, relative to the larger of 1 and the value.
CLOSE = 2e-6

Maker = Callable[[np.random.Generator], Case]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def outputs(folder: Path, case: Case, *, typed: bool = True) -> tuple[systolic.Model, list[Any], list[Any]]:
    """The model of a case, our outputs and ONNX Runtime's."""
    graph, feeds = case
    path = om.save(om.typed(graph) if typed else graph, folder)
    model = load_onnx(path)
    run = systolic.run(model, feeds, mode="wavefront")
    return model, list(run.outputs.values()), om.onnxruntime_outputs(path, feeds)


def compare(folder: Path, case: Case, tolerance: float = 0.0) -> systolic.Model:
    """Assert that a case's outputs are ONNX Runtime's: bit for bit, NaN for NaN, or within a tolerance."""
    model, ours, theirs = outputs(folder, case)
    for a, b in zip(ours, theirs, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        if tolerance:
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
        else:
            np.testing.assert_array_equal(a, b)
    assert not any(isinstance(node.layer, layers.OnnxNode) for node in model.nodes)
    return model


def real(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.normal(size=shape) * 3).astype(F)


def whole(rng: np.random.Generator, dtype: str, *shape: int) -> np.ndarray:
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, size=shape, dtype=dtype, endpoint=True)


SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, 0.5, 1.5, 2.5, -2.5, np.inf, -np.inf, np.nan, 1e-42, 3e38], F)


def unary(op: str, **options: Any) -> Maker:
    return lambda rng: om.single(op, [np.concatenate([real(rng, 40), SPECIAL])], **options)


def both(op: str, a: Any, b: Any, **options: Any) -> Maker:
    return lambda rng: om.single(op, [np.asarray(a(rng)), np.asarray(b(rng))], (0, 1), **options)


def few(*shape: int) -> Callable[[np.random.Generator], np.ndarray]:
    return lambda rng: real(rng, *shape)


def ints(dtype: str, *shape: int) -> Callable[[np.random.Generator], np.ndarray]:
    return lambda rng: whole(rng, dtype, *shape)


def nonzero(dtype: str, *shape: int) -> Callable[[np.random.Generator], np.ndarray]:
    return lambda rng: np.where((x := whole(rng, dtype, *shape)) == 0, np.array(3, dtype), x)


def moved(
    op: str, *rest: Any, moving: tuple[int, ...] = (0,), shape: tuple[int, ...] = (3, 4, 5), **options: Any
) -> Maker:
    """x, and inputs that are constants, or computed where `moving` says so."""
    return lambda rng: om.single(op, [real(rng, *shape), *rest], moving, **options)


def i64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def f32(*values: float) -> np.ndarray:
    return np.array(values, F)


def normalized(*image: int, factor: float = 1, opset: int = om.OPSET, **attributes: Any) -> Maker:
    """BatchNormalization with statistics of its own; one channel without variance."""

    def make(rng: np.random.Generator) -> Case:
        statistics = [real(rng, 3), real(rng, 3), real(rng, 3) * F(factor), np.abs(real(rng, 3)) * f32(1, 0, 5)]
        x = real(rng, 2, 3, *image) * F(factor)
        return om.single("BatchNormalization", [x, *statistics], opset=opset, **attributes)

    return make


EXACT: dict[str, Maker] = {
    **{f"{op} on floats": unary(op) for op in ("Abs", "Ceil", "Floor", "Neg", "Reciprocal", "Round", "Sqrt", "Relu")},
    "Not": lambda r: om.single("Not", [real(r, 9) > 0]),
    "Neg int8": lambda r: om.single("Neg", [np.int8([-128, 0, 5])]),
    **{f"{op} on floats": both(op, few(2, 1, 5), few(3, 5)) for op in ("Add", "Sub", "Mul", "Div")},
    **{f"{op} float64": both(op, lambda r: real(r, 4).astype("f8"), lambda r: real(r, 4).astype("f8")) for op in ("Add", "Sub", "Mul", "Div")},
    **{
        f"{op} {dtype}": both(op, ints(dtype, 3, 4), nonzero(dtype, 4))
        for op in ("Add", "Sub", "Mul", "Div")
        for dtype in ("int32", "int64", "int8", "uint8")
    },
    **{f"{op} of special numbers": both(op, lambda r: SPECIAL, lambda r: SPECIAL[:, None]) for op in ("Add", "Mul", "Sub", "Div")},
    **{f"{op} floats": both(op, few(3, 4), lambda r: np.round(real(r, 4))) for op in ("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal")},
    **{f"{op} bools": both(op, lambda r: real(r, 8) > 0, lambda r: real(r, 8) > 0) for op in ("And", "Or", "Xor")},
    **{f"{op} of three": lambda r, op=op: om.single(op, [real(r, 2, 3), real(r, 3), real(r, 2, 1)], (0, 1, 2)) for op in ("Max", "Min")},
    "Max of one": lambda r: om.single("Max", [real(r, 2, 3)]),
    "Pow integers": both("Pow", lambda r: r.integers(-5, 6, 40), lambda r: r.integers(0, 9, 40)),
    "Pow squares": both("Pow", few(40), lambda r: F([2])),
    "Clip": lambda r: om.single("Clip", [real(r, 40), F(-1.5), F(2)]),
    "Clip, opset 10": lambda r: om.single("Clip", [real(r, 40)], opset=10, min=-1.5, max=2.0),
    "Clip from below": lambda r: om.single("Clip", [real(r, 40), F(-1)]),
    "Clip from above": lambda r: om.single("Clip", [real(r, 40), None, F(1)]),
    "Clip without bounds": lambda r: om.single("Clip", [real(r, 40)]),
    "Clip bounds computed": lambda r: om.single("Clip", [real(r, 40), F(-1), F(1)], (0, 1, 2)),
    "Clip one bound computed": lambda r: om.single("Clip", [real(r, 40), None, F(1)], (0, 2)),
    "Clip int8": lambda r: om.single("Clip", [whole(r, "int8", 40), np.int8(-3), np.int8(100)]),
    "Clip int64": lambda r: om.single("Clip", [whole(r, "int64", 40), np.int64(-3), np.int64(2**62)]),
    "Where": lambda r: om.single("Where", [real(r, 3, 1) > 0, real(r, 3, 4), real(r, 4)], (0, 1, 2)),
    "Where int8": lambda r: om.single("Where", [real(r, 4) > 0, whole(r, "uint8", 3, 4), np.uint8(7)], (0, 1)),
    **{
        f"Cast {a} to {b}": lambda r, a=a, b=b: om.single("Cast", [(real(r, 40) * 9 + (90 if "u" in (a[0], b[0]) else 0)).astype(a)], to=int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(b))))
        for a in ("float32", "float64", "int32", "int64", "uint8", "int8", "bool")
        for b in ("float32", "float16", "int32", "int64", "uint8", "int8", "bool")
        if a != b
    },
    "Relu float64": lambda r: om.single("Relu", [real(r, 9).astype("f8")]),
    "ArgMax": lambda r: om.single("ArgMax", [np.round(real(r, 3, 9, 2))], axis=1),
    "ArgMax last": lambda r: om.single("ArgMax", [np.round(real(r, 3, 9, 2))], axis=-2, keepdims=0, select_last_index=1),
    "ArgMax uint8": lambda r: om.single("ArgMax", [whole(r, "uint8", 3, 300)], axis=-1),
    "ReduceMax": lambda r: om.single("ReduceMax", [real(r, 3, 4, 5), i64(0, -1)], keepdims=0),
    "ReduceMin, opset 12": lambda r: om.single("ReduceMin", [real(r, 3, 4, 5)], opset=12, axes=[1]),
    "ReduceMax uint8": lambda r: om.single("ReduceMax", [whole(r, "uint8", 3, 4)], opset=13),
    "ReduceSum int32": lambda r: om.single("ReduceSum", [whole(r, "int16", 3, 40).astype(np.int32), i64(1)]),
    "ReduceSum noop": lambda r: om.single("ReduceSum", [real(r, 3, 4)], noop_with_empty_axes=1),
    "ReduceProd int64": lambda r: om.single("ReduceProd", [r.integers(-9, 9, (3, 4)), i64(1)]),
    "ReduceSum axes computed": lambda r: om.single("ReduceSum", [r.integers(-9, 9, (3, 4, 5)), i64(-1, 0)], (0, 1)),
    **{f"MaxPool {rank}-D": lambda r, rank=rank: om.single("MaxPool", [real(r, 2, 3, *(7, 6, 8)[:rank])], kernel_shape=(2, 3, 2)[:rank], strides=(2, 1, 3)[:rank], pads=[*(1, 2, 0)[:rank], *(0, 1, 1)[:rank]], dilations=(1, 2, 2)[:rank]) for rank in (1, 2, 3)},
    "MaxPool ceil": lambda r: om.single("MaxPool", [real(r, 1, 2, 10)], kernel_shape=[3], strides=[4], ceil_mode=1),
    "MaxPool same": lambda r: om.single("MaxPool", [real(r, 1, 2, 6, 5, 7)], kernel_shape=[2, 3, 2], strides=[2, 2, 3], auto_pad="SAME_LOWER"),
    "MaxPool int8 1-D": lambda r: om.single("MaxPool", [whole(r, "int8", 1, 2, 9)], kernel_shape=[4], pads=[3, 3]),
    "MaxPool float64": lambda r: om.single("MaxPool", [real(r, 1, 2, 6, 6).astype("f8")], kernel_shape=[2, 2]),
    **{f"MaxPool indices, order {order}": lambda r, order=order: indices(r, order) for order in (0, 1)},
    "Concat": lambda r: om.single("Concat", [real(r, 2, 3), real(r, 2, 1), real(r, 2, 4)], (0, 2), axis=-1),
    "Concat of one": lambda r: om.single("Concat", [whole(r, "uint8", 2, 3)], axis=0),
    **{f"Pad {mode}": moved("Pad", i64(1, 0, 2, 2, 0, 1), mode=mode) for mode in ("constant", "reflect", "edge", "wrap")},
    "Pad, opset 10": lambda r: om.single("Pad", [real(r, 3, 4)], opset=10, pads=[1, 2, 0, 1], value=2.5),
    "Pad value": moved("Pad", i64(1, 0, 2, 2, 0, 1), F(-7)),
    "Pad axes": moved("Pad", i64(1, 2), None, i64(-1)),
    "Pad computed": moved("Pad", i64(1, 0, 2, 2, 0, 1), F(3), moving=(0, 1, 2)),
    "Pad cuts": moved("Pad", i64(-1, 0, 2, 0, -2, -1)),
    "Pad int8": lambda r: om.single("Pad", [whole(r, "int8", 3, 4), i64(1, 1, 1, 1), np.int8(-5)]),
    "Flatten": moved("Flatten", axis=-1),
    "Reshape": moved("Reshape", i64(0, -1, 2, 2)),
    "Reshape computed": moved("Reshape", i64(5, 0, -1), moving=(0, 1)),
    "Reshape, zero allowed": lambda r: om.single("Reshape", [np.zeros((0, 3), F), i64(3, 0)], allowzero=1),
    "Transpose": moved("Transpose", perm=[2, 0, 1]),
    "Transpose reversed": moved("Transpose"),
    "Squeeze": moved("Squeeze", i64(0, -1), shape=(1, 3, 1, 1)),
    "Squeeze all": moved("Squeeze", shape=(1, 3, 1, 1)),
    "Squeeze, opset 11": moved("Squeeze", opset=11, axes=[2], shape=(1, 3, 1, 1)),
    "Squeeze computed": moved("Squeeze", i64(0), moving=(0, 1), shape=(1, 3, 1)),
    "Unsqueeze": moved("Unsqueeze", i64(0, -1)),
    "Unsqueeze, opset 11": moved("Unsqueeze", opset=11, axes=[1, 3]),
    "Unsqueeze computed": moved("Unsqueeze", i64(1), moving=(0, 1)),
    "Slice": moved("Slice", i64(1, -9), i64(3, 99), i64(0, -1), i64(1, 2)),
    "Slice backwards": moved("Slice", i64(99, -1), i64(-99, 0), i64(1, 2), i64(-1, -2)),
    "Slice of the first axes": moved("Slice", i64(1, 0), i64(2, -1)),
    "Slice steps without axes": moved("Slice", i64(0, 1), i64(3, 4), None, i64(2, 2)),
    "Slice computed": moved("Slice", i64(1), i64(-1), i64(1), i64(1), moving=(0, 1, 2, 3, 4)),
    "Slice int32": moved("Slice", np.int32([1]), np.int32([3])),
    "Slice, opset 10": moved("Slice", i64(1), i64(3), i64(2), opset=10),
    "Gather": moved("Gather", np.array([[0, -1], [2, 1]]), axis=1),
    "Gather by one": moved("Gather", np.array(2), axis=-1),
    "Gather computed int32": moved("Gather", np.int32([1, -3]), moving=(0, 1)),
    "Expand": moved("Expand", i64(2, 1, 3), shape=(4, 1)),
    "Expand computed": moved("Expand", i64(2, 4, 3), moving=(0, 1), shape=(4, 1)),
    "Split": lambda r: several("Split", [real(r, 3, 7), i64(2, 1, 4)], 3, axis=1),
    "Split in equals, opset 11": lambda r: several("Split", [real(r, 6, 2)], 3, opset=11),
    "Split by number": lambda r: several("Split", [real(r, 7, 2)], 3, num_outputs=3),
    "Shape": moved("Shape", start=1),
    "Shape end": moved("Shape", start=-2, end=-1),
    "ConstantOfShape": lambda r: om.single("ConstantOfShape", [i64(2, 3)], value=onnx.numpy_helper.from_array(np.int8([7]))),
    "ConstantOfShape of nothing": lambda r: om.single("ConstantOfShape", [i64()]),
    "Identity": moved("Identity"),
    "Constant numbers": lambda r: constants(r),
    **{
        f"Resize {coordinates} {rounding}": moved("Resize", None, f32(1, 2.3, 0.6), mode="nearest", coordinate_transformation_mode=coordinates, nearest_mode=rounding)
        for coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
        for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    },
    "Resize by sizes": moved("Resize", None, None, i64(3, 9, 2), mode="nearest"),
    "Resize computed": moved("Resize", None, None, i64(3, 8, 10), mode="nearest", moving=(0, 3)),
    "Resize axes": moved("Resize", None, f32(2), mode="nearest", axes=[1]),
    "Resize not larger": moved("Resize", None, None, i64(7, 9), mode="nearest", axes=[1, 2], keep_aspect_ratio_policy="not_larger"),
    "Resize not smaller": moved("Resize", None, None, i64(7, 9), mode="nearest", axes=[1, 2], keep_aspect_ratio_policy="not_smaller"),
    "Resize uint8": lambda r: om.single("Resize", [whole(r, "uint8", 1, 2, 3, 3), None, f32(1, 1, 2, 2)], mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
    "Resize, opset 10": moved("Resize", f32(1, 2, 3), opset=10, mode="nearest"),
    "Resize down, opset 10": moved("Resize", f32(1, 0.5, 0.6), opset=10, mode="nearest"),
    "BatchNormalization": normalized(4, 5),
    **{f"BatchNormalization, opset {opset}": normalized(7, opset=opset, epsilon=0.1) for opset in (10, 12, 13, 14)},
    "BatchNormalization of a matrix": normalized(),
    "BatchNormalization of large numbers": normalized(3, 4, factor=1e4),
    "Resize axes from the end, not larger": moved("Resize", None, None, i64(7, 9), mode="nearest", axes=[1, -1], keep_aspect_ratio_policy="not_larger"),
    "Resize to the same sizes": moved("Resize", None, f32(1.2, 1.1, 1.15), mode="nearest"),
    "Resize just below a half": moved("Resize", None, None, i64(3, 4, 8), mode="nearest", nearest_mode="round_prefer_ceil", coordinate_transformation_mode="asymmetric", keep_aspect_ratio_policy="not_smaller", axes=[0, 1, 2]),
    **{f"Clip infinity {bounds}": lambda r, bounds=bounds: om.single("Clip", [f32(np.inf, -np.inf, np.nan, 3e38), *bounds], [i for i, b in enumerate((0, *bounds)) if b is not None]) for bounds in ((), (F(1),), (None, F(1)))},
    "Clip infinity, opset 10": lambda r: om.single("Clip", [f32(np.inf, -np.inf)], opset=10, min=0.0),
    "Squeeze no axes": lambda r: om.single("Squeeze", [real(r, 1, 3, 1), i64()]),
    "Squeeze no axes computed": lambda r: om.single("Squeeze", [real(r, 1, 3, 1), i64()], (0, 1)),
    **{f"ArgMax beside NaN, last {last}": lambda r, last=last: om.single("ArgMax", [f32(np.nan, 5, 1, 2, np.nan, 2, np.nan, np.nan, np.nan, -np.inf, np.nan, -np.inf).reshape(4, 3)], axis=1, select_last_index=last) for last in (0, 1)},
    **{f"{op} {dtype} beyond the type": lambda r, op=op, dtype=dtype: om.single(op, [np.array([[np.iinfo(dtype).max, 2, 1], [np.iinfo(dtype).min, 3, -1]], dtype), i64(1)], opset=18) for op in ("ReduceSum", "ReduceProd") for dtype in ("int32", "int64")},
    **{f"{op} {dtype} of nothing": lambda r, op=op, dtype=dtype: om.single(op, [np.zeros((2, 0, 3), dtype), i64(1)], opset=20) for op in ("ReduceMax", "ReduceMin", "ReduceSum", "ReduceProd") for dtype in ("float32", "int32")},
    "ReduceMean of nothing": lambda r: om.single("ReduceMean", [np.zeros((2, 0), F), i64(1)]),
    "Pow integers beyond the type": both("Pow", lambda r: np.int32([7, 11, -9, 2**31 - 1]), lambda r: np.int32([[2], [3], [9], [12]])),
    "Pow integers beyond the type, one by one": both("Pow", lambda r: np.int64([3, 3037000500, 2**62]), lambda r: np.int64([40, 2, 3])),
    "MatMul int32": both("MatMul", ints("int32", 3, 4), ints("int32", 4, 2)),
}  # fmt: skip


def indices(rng: np.random.Generator, order: int) -> Case:
    """MaxPool with its second output; ties among the numbers."""
    graph, feeds = om.single(
        "MaxPool",
        [np.round(real(rng, 2, 3, 6, 7))],
        kernel_shape=[3, 2],
        strides=[2, 2],
        pads=[1, 0, 1, 1],
        storage_order=order,
    )
    graph.graph.node[0].output.append("indices")
    graph.graph.output.append(om.value("indices", "int64", None))
    return graph, feeds


def several(
    op: str, arguments: list[np.ndarray], count: int, *, opset: int = om.OPSET, **attributes: Any
) -> Case:
    """A node with several outputs."""
    graph, feeds = om.single(op, arguments, opset=opset, **attributes)
    names = [f"y{i}" for i in range(count)]
    del graph.graph.node[0].output[:], graph.graph.output[:]
    graph.graph.node[0].output.extend(names)
    graph.graph.output.extend(om.value(name, "int8", ()) for name in names)
    return graph, feeds


def constants(rng: np.random.Generator) -> Case:
    """Constants by their other attributes."""
    nodes = [
        om.node("Constant", [], "a", value_float=1.5),
        om.node("Constant", [], "b", value_floats=[1.0, 2.0]),
        om.node("Constant", [], "c", value_int=3),
        om.node("Constant", [], "d", value_ints=[4, 5]),
        om.node("Add", ["x", "a"], "e"),
        om.node("Mul", ["e", "b"], "y"),
        om.node("Add", ["n", "c"], "f"),
        om.node("Mul", ["f", "d"], "z"),
    ]
    feeds = {"x": real(rng, 3, 2), "n": i64(1, 2)}
    return om.model(nodes, {"x": ("float32", (3, 2)), "n": ("int64", (2,))}, ["y", "z"]), feeds


NEAR: dict[str, Maker] = {
    **{op: unary(op) for op in ("Erf", "Sigmoid", "Tanh", "Gelu")},
    "Gelu tanh": lambda r: om.single("Gelu", [real(r, 99)], approximate="tanh"),
    "Exp": lambda r: om.single("Exp", [real(r, 99)]),
    "Log": lambda r: om.single("Log", [np.abs(real(r, 99))]),
    "Pow": both("Pow", lambda r: np.abs(real(r, 5, 9)), few(9)),
    "Pow of mixed types": both("Pow", few(40), lambda r: r.integers(-3, 4, 40).astype(np.int32)),
    "Softmax": lambda r: om.single("Softmax", [real(r, 3, 9, 4)], axis=1),
    "Softmax, opset 12": lambda r: om.single("Softmax", [real(r, 3, 9, 4)], opset=12),
    "Softmax of large numbers": lambda r: om.single("Softmax", [real(r, 3, 9) * 1000]),
    **{f"ReduceMean axes {axes}": lambda r, axes=axes: om.single("ReduceMean", [real(r, 3, 9, 4), i64(*axes)], keepdims=0) for axes in ((0,), (1, 2), (-1,))},
    "ReduceMean, opset 13": lambda r: om.single("ReduceMean", [real(r, 3, 9, 4)], opset=13, axes=[2]),
    "ReduceMean of all": lambda r: om.single("ReduceMean", [real(r, 3, 9)]),
    "ReduceSum, opset 11": lambda r: om.single("ReduceSum", [real(r, 3, 9)], opset=11, axes=[-1]),
    "ReduceProd": lambda r: om.single("ReduceProd", [real(r, 3, 4) / 3, i64(1)]),
    "LayerNormalization": lambda r: om.single("LayerNormalization", [real(r, 3, 9, 4), real(r, 4), real(r, 4)]),
    "LayerNormalization, axis 1": lambda r: om.single("LayerNormalization", [real(r, 3, 9, 4), real(r, 9, 4)], axis=1, epsilon=0.1),
    "MatMul": both("MatMul", few(3, 1, 4, 7), few(2, 7, 5)),
    "MatMul of vectors": both("MatMul", few(7), few(7)),
    "MatMul of a vector and a stack": both("MatMul", few(7), few(2, 7, 5)),
    "MatMul of a stack and a vector": both("MatMul", few(2, 5, 7), few(7)),
    "Gemm": lambda r: om.single("Gemm", [real(r, 4, 7), real(r, 7, 5), real(r, 5)], alpha=0.5, beta=2.0),
    "Gemm transposed": lambda r: om.single("Gemm", [real(r, 7, 4), real(r, 5, 7), real(r, 4, 1)], (0, 1, 2), transA=1, transB=1),
    "Gemm of infinity by 0": lambda r: om.single("Gemm", [real(r, 4, 7), real(r, 7, 5), np.full(5, np.inf, F)], beta=0.0),
    "Gemm without c": lambda r: om.single("Gemm", [real(r, 4, 7), real(r, 7, 5)], alpha=2.0),
    **{f"AveragePool {rank}-D": lambda r, rank=rank: om.single("AveragePool", [real(r, 2, 3, *(7, 6, 8)[:rank])], kernel_shape=(2, 3, 2)[:rank], strides=(2, 1, 3)[:rank], pads=[*(1, 2, 0)[:rank], *(0, 1, 1)[:rank]], count_include_pad=rank % 2) for rank in (1, 2, 3)},
    "Conv": lambda r: om.single("Conv", [real(r, 2, 4, 7, 6), real(r, 6, 2, 3, 2), real(r, 6)], (0, 1, 2), group=2, pads=[1, 0, 0, 1], strides=[2, 1]),
    "ConvTranspose": lambda r: om.single("ConvTranspose", [real(r, 2, 4, 5, 3), real(r, 4, 3, 3, 2), real(r, 6)], (0, 1, 2), group=2, pads=[1, 0, 0, 1], strides=[2, 1]),
    "AveragePool dilated": lambda r: om.single("AveragePool", [real(r, 1, 2, 9, 9)], kernel_shape=[2, 3], dilations=[3, 2], pads=[1, 1, 1, 1]),
    "AveragePool same": lambda r: om.single("AveragePool", [real(r, 1, 2, 6, 5)], kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_UPPER"),
    "AveragePool ceil": lambda r: om.single("AveragePool", [real(r, 1, 2, 7, 7)], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1, count_include_pad=1),
    "GlobalAveragePool": lambda r: om.single("GlobalAveragePool", [real(r, 2, 3, 7, 6)]),
    "GlobalAveragePool 1-D": lambda r: om.single("GlobalAveragePool", [real(r, 2, 3, 7)]),
}  # fmt: skip


@pytest.mark.parametrize("case", EXACT)
def test_equal_to_onnxruntime(folder: Path, case: str) -> None:
    compare(folder, EXACT[case](np.random.default_rng(0)))


@pytest.mark.slow
@pytest.mark.parametrize("case", NEAR)
def test_close_to_onnxruntime(folder: Path, case: str) -> None:
    compare(folder, NEAR[case](np.random.default_rng(0)), CLOSE)


def test_every_operator_of_the_tables_is_compared() -> None:
    rng = np.random.default_rng(0)
    compared = {(n.domain, n.op_type) for make in (EXACT | NEAR).values() for n in make(rng)[0].graph.node}
    on_codes = {"DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"}
    assert compared >= {
        key for key, record in OPERATORS.items()
        if not record.domain and record.runs_on == "host" and record.name not in on_codes
    }  # fmt: skip


# Many shapes and attributes


@pytest.mark.slow
@fixed
@given(st.data())
def test_slices(folder: Path, data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=3))
    axes = data.draw(st.lists(st.sampled_from(range(len(shape))), unique=True, min_size=1))
    near = st.integers(-8, 8) | st.sampled_from([-(2**31), 2**31 - 1, -(2**63), 2**63 - 1])
    starts, ends = ([data.draw(near) for _ in axes] for _ in range(2))
    steps = [data.draw(st.integers(-3, 3).filter(bool)) for _ in axes]
    x = np.arange(math.prod(shape), dtype=F).reshape(shape)
    case = om.single("Slice", [x, i64(*starts), i64(*ends), i64(*axes), i64(*steps)])
    _, (ours,), (theirs,) = outputs(folder, case)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
@fixed
@given(st.data())
def test_pads(folder: Path, data: st.DataObject) -> None:
    mode = data.draw(st.sampled_from(["constant", "edge", "reflect"]))
    shape = data.draw(st.lists(st.integers(2, 4), min_size=1, max_size=3))
    most = 1 if mode == "reflect" else 4
    pads = [data.draw(st.integers(0, most)) for _ in range(2 * len(shape))]
    x = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
    _, (ours,), (theirs,) = outputs(folder, om.single("Pad", [x, i64(*pads)], mode=mode))
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
@fixed
@given(st.data())
def test_resizes(folder: Path, data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    sizes = [data.draw(st.integers(1, 20)) for _ in shape]
    options = {
        "coordinate_transformation_mode": data.draw(
            st.sampled_from(["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"])
        ),
        "nearest_mode": data.draw(
            st.sampled_from(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
        ),
    }
    x = np.arange(math.prod(shape), dtype=F).reshape(shape)
    case = om.single("Resize", [x, None, None, i64(*sizes)], mode="nearest", **options)
    _, (ours,), (theirs,) = outputs(folder, case)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
@fixed
@given(st.data())
def test_max_pools(folder: Path, data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 3))

    def each(low: int, high: int) -> list[int]:
        return [data.draw(st.integers(low, high)) for _ in range(rank)]

    kernel, strides, dilations = each(1, 3), each(1, 3), each(1, 2)
    shape = [(k - 1) * d + extra for k, d, extra in zip(kernel, dilations, each(1, 5), strict=True)]
    pads = [data.draw(st.integers(0, k - 1)) for k in kernel * 2]
    x = np.random.default_rng(0).integers(-9, 9, (1, 2, *shape)).astype(F)
    case = om.single("MaxPool", [x], kernel_shape=kernel, strides=strides, dilations=dilations, pads=pads)
    _, (ours,), (theirs,) = outputs(folder, case)
    np.testing.assert_array_equal(ours, theirs)


# Shapes that only a run tells


def test_shapes_computed_from_shapes_are_known_without_data(folder: Path) -> None:
    """Shape, Gather, Concat, Reshape: what exporters write for x.view(x.size(0), -1)."""
    nodes = [
        om.node("Shape", ["x"], "sizes"),
        om.node("Gather", ["sizes", "first"], "batch", axis=0),
        om.node("Unsqueeze", ["batch", "front"], "batch 1"),
        om.node("Concat", ["batch 1", "rest"], "shape", axis=0),
        om.node("Reshape", ["x", "shape"], "flat"),
        om.node("Relu", ["flat"], "y"),
    ]
    values = {"first": np.array(0), "front": i64(0), "rest": i64(-1)}
    graph = om.model(nodes, {"x": ("float32", ("n", 2, 3))}, ["y"], values)
    model = load_onnx(om.save(graph, folder))
    assert model.infer_shapes({"x": (4, 2, 3)})["y"] == ((4, 6), "float32")
    x = np.arange(24, dtype=F).reshape(4, 2, 3)
    np.testing.assert_array_equal(systolic.run(model, x).outputs["y"], x.reshape(4, 6))


@pytest.mark.parametrize(
    ("layer", "shapes"),
    [
        (layers.Slice(), ((3,), (1,), (1,))),
        (layers.Expand(), ((3,), (1,))),
        (layers.Pad(), ((3,), (2,))),
        (layers.Resize(), ((3,), (1,))),
        (layers.Reshape(), ((3,), (1,))),
        (layers.Fill(np.int8([1])), ((1,),)),
        (layers.Squeeze(), ((1,), (1,))),
        (layers.Unsqueeze(), ((1,), (1,))),
        (layers.Reduce("ReduceSum"), ((1,), (1,))),
    ],
    ids=lambda value: type(value).__name__,
)
def test_shapes_that_values_decide_are_unknown(layer: Any, shapes: Any) -> None:
    with pytest.raises(UnknownShape):
        layer.output_shape(*shapes)
    with pytest.raises(UnknownShape):
        layer.output_shape_from([None] * len(shapes), *shapes)


# Numbers


def test_erf_is_exact_to_the_last_bits() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [rng.normal(size=4000) * 3, np.arange(-97, 98) / 16 + 1 / 32, rng.normal(size=400) * 1e-9]
    )
    expected = np.array([math.erf(value) for value in x])
    np.testing.assert_allclose(_functions.erf(x), expected, rtol=1e-15, atol=0)
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 7.0, -7.0, 5e-324])
    expected = np.array([0.0, -0.0, 1.0, -1.0, np.nan, 1.0, -1.0, math.erf(5e-324)])
    np.testing.assert_array_equal(_functions.erf(special), expected)
    assert np.signbit(_functions.erf(np.array([-0.0])))[0]


@pytest.mark.parametrize(
    ("operation", "function"),
    [
        ("Erf", math.erf),
        ("Tanh", math.tanh),
        ("Sigmoid", lambda x: 1 / (1 + math.exp(-x))),
        ("Exp", math.exp),
    ],
)
def test_functions_are_within_a_bit_of_the_truth(operation: str, function: Callable[[float], float]) -> None:
    x = (np.random.default_rng(1).normal(size=3000) * 5).astype(F)
    got = layers.Unary(operation).apply(x)
    true = np.array([function(float(value)) for value in x])
    assert (np.abs(got - true) <= 0.5001 * np.spacing(np.abs(true).astype(F))).all()


def test_integers_are_divided_towards_zero() -> None:
    a, b = np.int8([7, -7, 7, -7, -128, -128]), np.int8([2, 2, -2, -2, 3, -1])
    assert layers.Binary("Div").apply(a, b).tolist() == [3, -3, -3, 3, -42, -128]
    with pytest.raises(ValueError, match="divides an integer by 0"):
        layers.Binary("Div").apply(a, b * 0)


def test_powers_of_integers() -> None:
    power = layers.Binary("Pow")
    assert power.apply(np.int32([2, -1, -1, 1, 3]), np.int32([-1, -3, -2, -9, 2])).tolist() == [
        0,
        -1,
        1,
        1,
        9,
    ]
    assert power.apply(np.int8([2, 3]), np.int64([8, 4])).tolist() == [0, 81]
    assert power.apply(np.int32([4, 9]), F([0.5, 0.5])).tolist() == [2, 3]


def test_float16_is_rounded_once() -> None:
    x = np.float16([0.1, 1.7, -3.3])
    got = layers.Unary("Tanh").apply(x)
    assert got.dtype == np.float16
    np.testing.assert_array_equal(got, np.tanh(x.astype(np.float64)).astype(np.float16))


def test_maxima_beside_nan_and_infinity() -> None:
    x = F([[[np.nan, 1, -np.inf, -np.inf, 3, 2]]])
    assert str(layers.MaxPool((2,), stride=(2,)).apply(x)) == "[[[ nan -inf   3.]]]"
    largest, places = layers.MaxPool((2,), stride=(2,), padding=((1, 1),), indices="row").apply(x[..., 2:4])
    assert largest.tolist() == [[[-np.inf, -np.inf]]] and places.tolist() == [[[0, 1]]]


@pytest.mark.parametrize("x", [[np.nan, 1, 2, np.nan], [np.nan, np.nan, 1, 0], [-np.inf, np.nan, np.nan, 3]])
def test_places_of_maxima_beside_nan(folder: Path, x: list[float]) -> None:
    graph, feeds = om.single("MaxPool", [F([[x]])], kernel_shape=[2])
    graph.graph.node[0].output.append("places")
    graph.graph.output.append(om.value("places", "int64", None))
    model, ours, theirs = outputs(folder, (graph, feeds))
    assert systolic.verify(model, feeds, mode="wavefront").passed
    for found, expected in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_averages_of_a_constant_are_the_constant() -> None:
    x = np.full((1, 1, 5, 4), 0.1, F)
    layer = layers.AveragePool((3, 2), stride=(2, 3), padding=((2, 1), (1, 1)), ceil_mode=True)
    np.testing.assert_array_equal(
        layer.apply(x), np.full((1, 1, 4, 2), 0.1, F)[..., : layer.output_shape(x.shape)[2], :]
    )


def test_layer_normalization_gives_means_and_deviations() -> None:
    x = real(np.random.default_rng(0), 3, 4)
    y, mean, inverse = layers.LayerNormalization(epsilon=0.0).apply(x, np.ones(4, F))
    np.testing.assert_allclose(mean[:, 0], x.mean(axis=1, dtype=np.float64), rtol=1e-7)
    np.testing.assert_allclose(inverse[:, 0], 1 / x.std(axis=1, dtype=np.float64), rtol=1e-7)
    np.testing.assert_allclose(y, (x - mean) * inverse, rtol=1e-5, atol=1e-6)


def test_outputs_are_new_arrays() -> None:
    x = np.zeros((1, 2, 3, 3), F)
    for layer, *rest in (
        (layers.Transpose((0, 1, 2, 3)),), (layers.Clip(),), (layers.Cast("float32"),), (layers.Concat(0),),
        (layers.Squeeze((0,)),), (layers.Resize(), np.ones(4, F)), (layers.Pad(), np.zeros(8, np.int64)),
        (layers.Slice(), i64(0), i64(9)), (layers.Expand(), i64(1)), (layers.Reshape(), i64(-1)),
        (layers.MaxPool((1, 1)),), (layers.Unary("Abs"),), (layers.Gather(), i64(0)),
        (layers.Reduce("ReduceMax", (0,)),), (layers.GlobalAveragePool(),), (layers.Softmax(),),
    ):  # fmt: skip
        y = layer.apply(x, *rest)  # type: ignore[attr-defined]
        assert not np.shares_memory(x, y) and y.flags.writeable, layer


# What is refused

A, B = np.zeros((2, 3), F), np.zeros((4,), F)
REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "an operation nobody knows": (lambda: layers.Unary("Sine"), ValueError, "operation must be one of 'Abs'"),
    "shapes apart": (lambda: layers.Binary("Mul").apply(A, B), ValueError, r"Mul takes shapes .* \(2, 3\) and \(4,\)"),
    "types apart": (lambda: layers.Binary("Mul").output_dtype("int8", "uint8"), TypeError, "one type, not int8 and"),
    "a type too many": (lambda: layers.Unary("Sqrt").output_dtype("int8"), TypeError, "float16 for Sqrt|not int8"),
    "inputs too many": (lambda: layers.Unary("Sqrt").apply(A, A), TypeError, "one input, not 2"),
    "a bound of text": (lambda: layers.Clip("a"), TypeError, "low must be a number or None"),
    "a bound beyond the type": (lambda: layers.Clip(0, 300).output_dtype("int8"), ValueError, "-128..127, not 300"),
    "a broken bound": (lambda: layers.Clip(0.5).output_dtype("int8"), ValueError, "an integer"),
    "a cast to text": (lambda: layers.Cast("str"), ValueError, "dtype must be one of"),
    "a condition of numbers": (lambda: layers.Where().apply(A, A, A), TypeError, "bool"),
    "an axis too far": (lambda: layers.Softmax(2).output_shape((2, 3)), ValueError, r"-2..1 for an input of 2 axes"),
    "an axis twice": (lambda: layers.Squeeze((0, -1)).output_shape((1,)), ValueError, "each axis once"),
    "an axis not of 1": (lambda: layers.Squeeze((0,)).output_shape((2, 1)), ValueError, "axes of size 1"),
    "axes as a number": (lambda: layers.Squeeze(1), TypeError, "axes must be a sequence"),
    "no axes": (lambda: layers.Unsqueeze().output_shape((2,)), TypeError, "needs axes"),
    "a largest of nothing": (lambda: layers.ArgMax(0).output_shape((0, 2)), ValueError, "at least one number"),
    "a scale too long": (lambda: layers.LayerNormalization().output_shape((2, 3), (2,)), ValueError, "scale that broadcasts"),
    "a complex epsilon": (lambda: layers.BatchNormalization(np.complex64(1)), TypeError, "epsilon must be a number, not"),
    "a complex bound": (lambda: layers.Clip(np.complex64(1)), TypeError, "low must be a number or None"),
    "epsilon below 0": (lambda: layers.LayerNormalization(epsilon=-1), ValueError, "at least 0"),
    "matrices apart": (lambda: layers.FloatMatMul().apply(A, A), ValueError, r"\(2, 3\) and \(2, 3\)"),
    "a transposed vector": (lambda: layers.FloatMatMul(transpose_a=True).apply(B, A), ValueError, "transposes matrices"),
    "c too large": (lambda: layers.FloatMatMul().apply(A, A.T, np.zeros((3, 2), F)), ValueError, "a c that broadcasts"),
    "a window of none": (lambda: layers.MaxPool(()), ValueError, "at least one size"),
    "no window": (lambda: layers.MaxPool(None), TypeError, "kernel must be a sequence of integers, .* not None"),
    "padding that is no list": (lambda: layers.MaxPool((2,), padding=True), TypeError, "padding must be an integer, not True"),
    "padding of two axes": (lambda: layers.MaxPool((2,), padding=(1, 1)), ValueError, r"padding must be an int, 1 of them or of \(before, after\)"),
    "names that are none": (lambda: layers.OnnxNode("Abs", np.uint8([0]), None, ("int8",), ("int8",), ()), TypeError, "reads must be a sequence of str, not NoneType"),
    "opsets that are no pairs": (lambda: layers.OnnxNode("Abs", np.uint8([0]), ("x",), ("int8",), ("int8",), (21,)), TypeError, "opsets must be pairs"),
    "a ragged node": (lambda: layers.OnnxNode("Abs", [1, [2]], ("x",), ("int8",), ("int8",), ()), ValueError, "node must be an array with rows"),
    "a ragged value": (lambda: layers.Fill([1, [2]]), ValueError, "value must be an array with rows"),
    "no image": (lambda: layers.FloatConv(np.ones((1, 1, 2, 2), F)).output_shape(()), ValueError, r"takes images .* not \(\)"),
    "a window on a vector": (lambda: layers.MaxPool((2,)).apply(B), ValueError, r"\(batch, channels, ...\) of 3 axes"),
    "padding as large as the window": (lambda: layers.AveragePool((2,), padding=((2, 0),)), ValueError, "smaller than the kernel"),
    "a stride of 0": (lambda: layers.MaxPool((2,), stride=(0,)), ValueError, "positive"),
    "a perm with gaps": (lambda: layers.Transpose((0, 2)), ValueError, "each axis once"),
    "a perm of other rank": (lambda: layers.Transpose((1, 0)).output_shape((2,)), ValueError, "takes 2 axes"),
    "pieces that do not add up": (lambda: layers.Split((1, 1)).output_shape((3,)), ValueError, "2 elements along"),
    "shapes apart to join": (lambda: layers.Concat(0).output_shape((2, 3), (2, 4)), ValueError, "equal along the others"),
    "a step of 0": (lambda: layers.Slice().apply(B, i64(0), i64(1), i64(0), i64(0)), ValueError, "steps other than 0"),
    "starts without ends": (lambda: layers.Slice().apply(B, i64(0), i64()), ValueError, "one start, end"),
    "starts of floats": (lambda: layers.Slice().apply(B, F([0]), i64(1)), TypeError, "int64 or int32"),
    "an index too far": (lambda: layers.Gather().apply(B, i64(4)), ValueError, "-4..3 along axis 0, not 4"),
    "a tensor larger than memory": (lambda: layers.Fill(np.int8([0])).apply(i64(2**40, 2**40)), ValueError, "at most"),
    "a negative size": (lambda: layers.Fill(np.int8([0])).apply(i64(-1)), ValueError, "not be negative"),
    "two values": (lambda: layers.Fill(np.int8([0, 1])), ValueError, "one element, not 2"),
    "pads of another rank": (lambda: layers.Pad().apply(B, i64(1)), ValueError, "takes 2 pads"),
    "pads that cut too much": (lambda: layers.Pad().apply(B, i64(-3, -3)), ValueError, "more elements"),
    "a mirror of nothing": (lambda: layers.Pad("reflect").apply(B[:0], i64(1, 0)), ValueError, "more elements"),
    "a scale of 0": (lambda: layers.Resize().apply(B, F([0])), ValueError, "scales above 0"),
    "something of nothing": (lambda: layers.Resize("sizes").apply(B[:0], i64(2)), ValueError, "of nothing"),
    "scales of another rank": (lambda: layers.Resize().apply(B, F([1, 1])), ValueError, "takes 1 scales"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    call, error, words = REFUSED[case]
    with pytest.raises(error, match=words):
        call()


def test_large_products_by_a_vector_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from systolic.layers.host import matmul

    a, b, c = (np.arange(size, dtype=np.int64).reshape(shape) for size, shape in ((35, (5, 7)), (7, (7,)), (5, (5,))))
    want = layers.FloatMatMul().apply(a, b, c)
    monkeypatch.setattr(matmul, "_MACS", 1)
    np.testing.assert_array_equal(layers.FloatMatMul().apply(a, b, c), want, strict=True)
    np.testing.assert_array_equal(want, a @ b + c)
