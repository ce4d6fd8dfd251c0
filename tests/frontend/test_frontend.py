"""ONNX files to models: every operator against ONNX Runtime, bit for bit; and what is refused, and how."""

from __future__ import annotations

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
from support.onnx_models import (
    Case,
    F,
    add_codes,
    average,
    codes,
    constants,
    conv,
    dequantize,
    gemm,
    global_average,
    matmul,
    max_pool,
    plain,
    quantize,
    reshape,
)
from support.oracle_cases import (
    PAIRS,
    convolutions,
    draw_scales,
    fixed,
    poolings,
    scales,
    zero_points,
)  # fmt: skip
from support.toy_layers import Halves
from systolic import UnsupportedOperator, load_onnx
from systolic.frontend import operators
from systolic.frontend.notes import Notes, write_notes
from systolic.frontend.operators import OPERATORS, Operator
from systolic.frontend.read import read


def check(folder: Path, case: Case) -> systolic.Model:
    """Assert that a model's outputs equal ONNX Runtime's, and return it."""
    graph, feeds = case
    path = om.save(om.typed(graph), folder)
    expected = om.onnxruntime_outputs(path, feeds)
    model = load_onnx(path)
    run = systolic.run(model, feeds, mode="wavefront")
    names = [output.name for output in graph.graph.output]
    assert list(run.outputs) == names
    for name, theirs in zip(names, expected, strict=True):
        ours = run.outputs[name]
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), name
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


# Every operator

Maker = Callable[[np.random.Generator], Case]
CASES: dict[str, Maker] = {
    **{
        f"QLinearMatMul {x} {w} {'per column' if each else 'per tensor'}": lambda r, x=x, w=w, each=each: (
            matmul(r, x, w, per_column=each)
        )
        for x, w in PAIRS
        for each in (False, True)
    },
    "QLinearMatMul of a vector": lambda r: matmul(r, "int8", "int8", per_column=True, leading=()),
    "QLinearMatMul of a batch": lambda r: matmul(r, "uint8", "uint8", per_column=False, leading=(2, 3)),
    "QLinearMatMul of nothing": lambda r: matmul(r, "uint8", "uint8", per_column=False, leading=(0,)),
    **{f"QGemm {x} {w}": lambda r, x=x, w=w: gemm(r, x, w) for x, w in PAIRS},
    "QGemm transposed": lambda r: gemm(r, "uint8", "uint8", transposed=True),
    "QGemm transposed, per column": lambda r: gemm(r, "int8", "int8", transposed=True, per_column=True),
    "QGemm alpha": lambda r: gemm(r, "int8", "int8", alpha=0.3),
    "QGemm without bias": lambda r: gemm(r, "int8", "int8", bias=None),
    "QGemm bias (1, N)": lambda r: gemm(r, "int8", "int8", bias=(1, 9)),
    "QGemm scalar bias": lambda r: gemm(r, "int8", "int8", bias=()),
    "QGemm to float": lambda r: gemm(r, "int8", "int8", real=True),
    "QGemm to float, all at once": lambda r: gemm(
        r, "uint8", "uint8", real=True, alpha=1.7, per_column=True, transposed=True
    ),
    **{f"QLinearConv {x} {w}": lambda r, x=x, w=w: conv(r, x, w) for x, w in PAIRS},
    "QLinearConv per channel": lambda r: conv(r, per_channel=True, zeros=False),
    "QLinearConv per channel with zero points": lambda r: conv(r, "uint8", "uint8", per_channel=True),
    "QLinearConv without bias": lambda r: conv(r, bias=False),
    "QLinearConv asymmetric pads": lambda r: conv(r, pads=[0, 2, 1, 3]),
    "QLinearConv stride": lambda r: conv(r, strides=[2, 3], pads=[1, 1, 1, 1]),
    "QLinearConv dilation": lambda r: conv(r, dilations=[2, 3], kernel_shape=[3, 3], pads=[1, 2, 0, 1]),
    "QLinearConv same upper": lambda r: conv(r, auto_pad="SAME_UPPER", strides=[2, 2], kernel=(4, 3)),
    "QLinearConv same lower": lambda r: conv(r, auto_pad="SAME_LOWER", strides=[2, 2], kernel=(4, 3)),
    "QLinearConv valid": lambda r: conv(r, auto_pad="VALID", kernel=(2, 5)),
    "QLinearConv notset": lambda r: conv(r, auto_pad="NOTSET", pads=[1, 0, 0, 1]),
    "QLinearConv groups": lambda r: conv(r, "uint8", "uint8", group=2, per_channel=True),
    "QLinearConv depthwise": lambda r: conv(
        r, ic=6, group=6, pads=[1, 1, 1, 1], per_channel=True, zeros=False
    ),
    "QLinearConv depthwise, multiplier": lambda r: conv(r, ic=3, oc=6, group=3, strides=[2, 1]),
    "QLinearConv one by one": lambda r: conv(r, kernel=(1, 1), strides=[2, 2]),
    **{
        f"QuantizeLinear {dtype} axis {axis}": lambda r, dtype=dtype, axis=axis: quantize(r, dtype, axis=axis)
        for dtype in ("int8", "uint8")
        for axis in (None, 0, 1, -1)
    },
    "QuantizeLinear without zero point": lambda r: quantize(r, "uint8", bare=True),
    **{
        f"DequantizeLinear {dtype} axis {axis}": lambda r, dtype=dtype, axis=axis: dequantize(
            r, dtype, axis=axis
        )
        for dtype in ("int8", "uint8")
        for axis in (None, 0, 1, -1)
    },
    **{
        f"DequantizeLinear {dtype} without zero point": lambda r, dtype=dtype: dequantize(r, dtype, bare=True)
        for dtype in ("int8", "uint8", "int32")
    },
    **{
        f"QLinearAdd {dtype}": lambda r, dtype=dtype: add_codes(r, dtype, (3, 40), (3, 40))
        for dtype in ("int8", "uint8")
    },
    "QLinearAdd broadcast": lambda r: add_codes(r, "int8", (2, 3, 1), (3, 40)),
    "QLinearAdd of a constant": lambda r: add_codes(r, "uint8", (2, 3, 40), (1,), constant=True),
    **{
        f"QLinearAveragePool {dtype}": lambda r, dtype=dtype: average(
            r, dtype, kernel_shape=[3, 2], strides=[2, 1]
        )
        for dtype in ("int8", "uint8")
    },
    "QLinearAveragePool pads": lambda r: average(
        r, "int8", kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 2, 1]
    ),
    "QLinearAveragePool counts pads": lambda r: average(
        r, "int8", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1
    ),
    "QLinearAveragePool ceil": lambda r: average(
        r, "uint8", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1
    ),
    "QLinearAveragePool same": lambda r: average(
        r, "uint8", kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER"
    ),
    "QLinearAveragePool NHWC": lambda r: average(
        r, "uint8", kernel_shape=[2, 2], strides=[2, 2], channels_last=1
    ),
    "QLinearAveragePool of all": lambda r: average(r, "int8", kernel_shape=[9, 7]),
    **{
        f"QLinearGlobalAveragePool {dtype}": lambda r, dtype=dtype: global_average(r, dtype)
        for dtype in ("int8", "uint8")
    },
    "QLinearGlobalAveragePool NHWC": lambda r: global_average(r, "int8", 1),
    **{
        f"MaxPool {dtype}": lambda r, dtype=dtype: max_pool(
            r, dtype, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 2, 1]
        )
        for dtype in ("int8", "uint8", "float32")
    },
    "MaxPool by default": lambda r: max_pool(r, "int8", kernel_shape=[2, 2]),
    "MaxPool ceil, dilation": lambda r: max_pool(
        r, "int8", kernel_shape=[2, 2], strides=[3, 2], dilations=[2, 1], ceil_mode=1
    ),
    "MaxPool same": lambda r: max_pool(r, "int8", kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_LOWER"),
    **{
        f"Relu {dtype}": lambda r, dtype=dtype: plain("Relu", codes(r, (4, 6)).astype(dtype))
        for dtype in ("int8", "float32")
    },
    "Add float32": lambda r: plain("Add", r.normal(size=(4, 6)).astype(F), r.normal(size=(6,)).astype(F)),
    "Add int32": lambda r: plain("Add", *r.integers(-(2**31), 2**31, (2, 4, 6), dtype=np.int32)),
    **{
        f"Flatten {axis}": lambda r, axis=axis: plain("Flatten", codes(r, (2, 3, 4)), axis=axis)
        for axis in (0, 1, 2, 3, -1)
    },
    "Reshape copy and infer": lambda r: reshape(r, [0, -1]),
    "Reshape sizes": lambda r: reshape(r, [2, 12, 2]),
    "Reshape allowzero": lambda r: reshape(r, [8, -1], allowzero=1),
    "Identity": lambda r: plain("Identity", codes(r, (2, 3))),
    "constants": constants,
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", (0, 1))
def test_operator(folder: Path, case: str, seed: int) -> None:
    check(folder, CASES[case](np.random.default_rng(seed)))


def test_operators_tested_here_are_of_the_table() -> None:
    """The rest of the table is tested where its layers are: test_host_operators, test_backend_node."""
    tested = set()
    for make in CASES.values():
        try:
            tested |= {(n.domain, n.op_type) for n in make(np.random.default_rng(0))[0].graph.node}
        except pytest.skip.Exception:
            tested.add(("com.microsoft", "QLinearAdd"))
    assert tested <= set(OPERATORS)


@pytest.mark.slow
@fixed
@given(convolutions(st.sampled_from(PAIRS)), scales, scales, scales, st.booleans(), st.data())
def test_convolutions(
    folder: Path, drawn: Any, sx: F, sw: F, sy: F, per_channel: bool, data: st.DataObject
) -> None:
    x, w, geometry = drawn.x, drawn.w, drawn.geometry
    zx, zy = (data.draw(zero_points(x.dtype.name)) for _ in range(2))
    zw: Any = data.draw(zero_points(w.dtype.name))
    if per_channel:
        sw, zw = draw_scales(drawn.rng, sw, len(w)), codes(drawn.rng, (len(w),), w.dtype.name)
    (top, bottom), (left, right) = geometry["padding"]
    bias = drawn.rng.integers(-5000, 5000, len(w), dtype=np.int32)
    check(
        folder,
        om.single(
            "QLinearConv", [x, sx, zx, w, sw, zw, sy, zy, bias], pads=[top, left, bottom, right],
            strides=geometry["stride"], dilations=geometry["dilation"], group=geometry["groups"],
        ),
    )  # fmt: skip


@pytest.mark.slow
@fixed
@given(poolings(st.integers(1, 2)))
def test_max_pools(folder: Path, drawn: Any) -> None:
    (top, bottom), (left, right) = drawn.geometry["padding"]
    check(
        folder,
        om.single(
            "MaxPool", [drawn.x], kernel_shape=drawn.geometry["kernel"], strides=drawn.geometry["stride"],
            dilations=drawn.dilation, pads=[top, left, bottom, right], ceil_mode=int(drawn.ceil_mode),
        ),
    )  # fmt: skip


# Whole graphs


def test_quantized_by_onnxruntime(folder: Path) -> None:
    """A float network, quantized to the QOperator form, both kinds of activations."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    rng = np.random.default_rng(3)

    def real(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(F) / F(3)

    nodes = [
        om.node("Conv", ["x", "w1", "b1"], "c1", name="first", pads=[1, 1, 1, 1], strides=[2, 2]),
        om.node("Relu", ["c1"], "r1"),
        om.node("Conv", ["r1", "w2"], "c2", name="second", pads=[1, 0, 1, 2], group=2),
        om.node("Conv", ["r1", "w3", "b1"], "c3", name="third"),
        om.node("Add", ["c2", "c3"], "a"),
        om.node("MaxPool", ["a"], "p", kernel_shape=[2, 2], strides=[2, 2]),
        om.node("GlobalAveragePool", ["p"], "g"),
        om.node("Flatten", ["g"], "f"),
        om.node("Gemm", ["f", "w4", "b4"], "y", transB=1),
        om.node("MatMul", ["y", "w5"], "z"),
    ]
    values = {"w1": real(8, 3, 3, 3), "b1": real(8), "w2": real(8, 4, 3, 3), "w3": real(8, 8, 1, 1)}
    values |= {"w4": real(6, 8), "b4": real(6), "w5": real(6, 4)}
    graph = om.typed(om.model(nodes, {"x": ("float32", ("batch", 3, 16, 16))}, ["z"], values, opset=17))
    source = om.save(graph, folder, "float.onnx")
    x = rng.normal(size=(16, 3, 16, 16)).astype(F)
    kinds = [(quantization.QuantType.QInt8, quantization.QuantType.QInt8)]
    kinds += [(quantization.QuantType.QUInt8, quantization.QuantType.QUInt8)]
    for activation, weight in kinds:
        target = folder / "quantized.onnx"

        class Reader(quantization.CalibrationDataReader):
            batches = iter([{"x": x}])

            def get_next(self) -> dict[str, np.ndarray] | None:
                return next(self.batches, None)

        quantization.quantize_static(
            source, target, Reader(), quant_format=quantization.QuantFormat.QOperator, activation_type=activation,
            weight_type=weight, per_channel=weight == quantization.QuantType.QInt8,
        )  # fmt: skip
        model = load_onnx(target)
        (expected,) = om.onnxruntime_outputs(target, {"x": x})
        (ours,) = systolic.run(model, x, mode="wavefront").outputs.values()
        np.testing.assert_array_equal(ours, expected)
        assert systolic.verify(
            target, x[:1], against="onnxruntime", machine=systolic.ArrayConfig(16, 16)
        ).passed
        kinds_found = {type(node.layer).__name__ for node in model.nodes}
        assert kinds_found >= {"QuantizeLinear", "QLinearConv", "MaxPool", "QLinearMatMul", "DequantizeLinear"}


def graph_case(nodes: list[Any], outputs: list[str], shape: tuple[Any, ...] = (2, 3), **values: Any) -> Case:
    x = codes(np.random.default_rng(0), tuple(2 if isinstance(size, str) else size for size in shape))
    return om.model(nodes, {"x": ("int8", shape)}, outputs, values), {"x": x}


def test_any_batch_where_it_is_symbolic(folder: Path) -> None:
    case = graph_case([om.node("Relu", ["x"], "y")], ["y"], ("batch", 3))
    model = check(folder, case)
    assert model.inputs["x"].shape == (None, 3)
    for batch in (0, 1, 5):
        assert systolic.run(model, np.zeros((batch, 3), np.int8)).outputs["y"].shape == (batch, 3)
    with pytest.raises(ValueError, match=r"input 'x' must have shape \(\?, 3\)"):
        systolic.run(model, np.zeros((5, 4), np.int8))


def test_fixed_batch_is_held_to(folder: Path) -> None:
    model = check(folder, graph_case([om.node("Relu", ["x"], "y")], ["y"]))
    with pytest.raises(ValueError, match=r"input 'x' must have shape \(2, 3\), not \(5, 3\)"):
        systolic.run(model, np.zeros((5, 3), np.int8))


def test_inputs_and_outputs_by_name(folder: Path) -> None:
    nodes = [
        om.node("Add", ["a", "b"], "sum"),
        om.node("Relu", ["a"], "positive"),
        om.node("Flatten", ["sum"], "flat"),
    ]
    graph = om.model(nodes, {"a": ("int8", (2, 3)), "b": ("int8", (3,))}, ["positive", "flat", "sum"])
    rng = np.random.default_rng(0)
    model = check(folder, (graph, {"b": codes(rng, (3,)), "a": codes(rng, (2, 3))}))
    assert list(model.inputs) == ["a", "b"]
    with pytest.raises(ValueError, match="2 inputs"):
        systolic.run(model, np.zeros((2, 3), np.int8))


def test_initializers_listed_as_inputs_are_constants(folder: Path) -> None:
    graph = om.model(
        [om.node("Add", ["x", "c"], "y")],
        {"x": ("int8", (2,)), "c": ("int8", (2,))},
        ["y"],
        {"c": np.int8([3, 4])},
    )
    model = load_onnx(om.save(graph, folder))
    assert list(model.inputs) == ["x"]
    np.testing.assert_array_equal(systolic.run(model, np.int8([1, 2])).outputs["y"], np.int8([4, 6]))


RELU = om.node("Relu", ["x"], "h")


@pytest.mark.parametrize(
    "case",
    (
        graph_case([RELU, om.node("Identity", ["h"], "y")], ["y"]),
        graph_case([RELU, om.node("Identity", ["h"], "y")], ["h", "y"]),
        graph_case([RELU, om.node("Identity", ["h"], "y"), om.node("Relu", ["y"], "z")], ["z", "y"]),
        graph_case([om.node("Identity", ["x"], "y")], ["y"]),
        graph_case([RELU, om.node("Identity", ["c"], "y")], ["h", "y"], c=np.int8([3])),
        graph_case([RELU], ["x", "h"]),
        graph_case([], ["x"]),
    ),
    ids=(
        "name for a tensor",
        "both names",
        "in between",
        "name for the input",
        "name for a constant",
        "the input",
        "no node",
    ),
)
def test_outputs_keep_their_names(folder: Path, case: Case) -> None:
    check(folder, case)


def test_name_is_the_graphs(folder: Path) -> None:
    assert load_onnx(om.save(graph_case([RELU], ["h"])[0], folder)).name == "test"


# Bad input


def refused(path: Path | str, error: type[Exception], *words: str) -> None:
    """Assert that a file is refused with an error of exactly this type whose message says all that."""
    with pytest.raises(error) as caught:
        load_onnx(path)
    assert type(caught.value) is error
    for word in words:
        assert word in str(caught.value), str(caught.value)


@pytest.mark.slow
def test_truncated_anywhere(folder: Path) -> None:
    whole = om.save(gemm(np.random.default_rng(0), "int8", "int8")[0], folder).read_bytes()
    path = folder / "truncated.onnx"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        refused(path, ValueError, "truncated.onnx")


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=20))
def test_damaged_anywhere(folder: Path, changes: list[tuple[int, int]]) -> None:
    data = bytearray(om.save(gemm(np.random.default_rng(0), "int8", "int8")[0], folder).read_bytes())
    for place, byte in changes:
        data[place % len(data)] = byte
    path = folder / "damaged.onnx"
    path.write_bytes(data)
    try:
        load_onnx(path)
    except (ValueError, TypeError) as error:
        assert str(error)


@pytest.mark.parametrize(
    "content",
    (
        b"",
        b"not a model, but a text\n",
        bytes(range(256)),
        b"PK\x03\x04 a zip",
        b"\x08\x08",
        np.random.default_rng(0).bytes(999),
    ),
    ids=("empty", "text", "bytes", "zip", "no graph", "random"),
)
def test_not_a_model(folder: Path, content: bytes) -> None:
    path = folder / "other.onnx"
    path.write_bytes(content)
    refused(path, ValueError, "other.onnx", "not an ONNX model")


def test_folder_and_missing_file(folder: Path) -> None:
    refused(folder, ValueError, str(folder), "folder")
    refused(folder / "missing.onnx", FileNotFoundError, "missing.onnx")
    with pytest.raises(TypeError):
        load_onnx(3)  # type: ignore[arg-type]


def test_external_data_missing(folder: Path) -> None:
    graph, _ = graph_case([om.node("Add", ["x", "c"], "y")], ["y"], c=np.int8([1, 2, 3]))
    tensor = graph.graph.initializer[0]
    tensor.raw_data, tensor.data_location = b"", onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "elsewhere.bin"
    refused(om.save(graph, folder), ValueError, "model.onnx", "elsewhere.bin")


def test_float_model(folder: Path) -> None:
    nodes = [
        om.node("Conv", ["x", "w"], "c", name="the convolution"),
        om.node("Relu", ["c"], "r"),
        om.node("Foo", ["r"], "y", domain="some.where"),
    ]
    graph = om.model(nodes, {"x": ("float32", (1, 1, 4, 4))}, ["y"], {"w": np.ones((1, 1, 3, 3), F)})
    words = ["'y' is a some.where.Foo", "nothing is known of the domain some.where", "make_function"]
    path = om.save(graph, folder)
    refused(path, UnsupportedOperator, *words)
    with pytest.raises(UnsupportedOperator) as caught:
        load_onnx(path)
    assert "convolution" not in str(caught.value)


def test_unknown_operator_names_few_of_many(folder: Path) -> None:
    nodes = [om.node("com.microsoft.Sine", ["x"], f"y{i}", name=f"sine {i}") for i in range(8)]
    graph = om.model(nodes, {"x": ("float32", (2,))}, ["y0"])
    refused(om.save(graph, folder), UnsupportedOperator, "sine 0", "sine 4", "3 more", "of com.microsoft, supported are ", "QGemm")
    with pytest.raises(UnsupportedOperator) as caught:
        load_onnx(om.save(graph, folder))
    assert "sine 5" not in str(caught.value)


def test_sizes_beyond_the_batch_may_be_symbolic(folder: Path) -> None:
    graph = om.model([RELU], {"x": ("int8", ("batch", 3, "height", "width"))}, ["h"])
    model = load_onnx(om.save(graph, folder))
    assert model.inputs["x"].shape == (None, 3, None, None)
    for shape in ((2, 3, 4, 5), (1, 3, 0, 1)):
        assert systolic.run(model, np.zeros(shape, np.int8)).outputs["h"].shape == shape
    with pytest.raises(ValueError, match=r"input 'x' must have shape \(\?, 3, \?, \?\)"):
        systolic.run(model, np.zeros((1, 2, 4, 5), np.int8))


@pytest.mark.parametrize("kind", (0, 77, 8, 14, 16), ids=("none", "77", "string", "complex64", "bfloat16"))
def test_input_types(folder: Path, kind: int) -> None:
    graph, _ = graph_case([RELU], ["h"])
    graph.graph.input[0].type.tensor_type.elem_type = kind
    refused(om.save(graph, folder), ValueError, "'x'", "float32")


@pytest.mark.parametrize("dtype", ("float16", "float64", "bool", "int16", "int64", "uint64"))
def test_any_type_may_pass_through(folder: Path, dtype: str) -> None:
    graph = om.model([om.node("Identity", ["x"], "y")], {"x": (dtype, (2,))}, ["y"])
    model = load_onnx(om.save(graph, folder))
    x = np.array([0, 1], dtype)
    assert systolic.run(model, x).outputs["y"].dtype == x.dtype
    assert systolic.verify(model, seed=1).passed


def test_input_without_a_shape(folder: Path) -> None:
    graph, _ = graph_case([RELU], ["h"])
    graph.graph.input[0].type.tensor_type.ClearField("shape")
    refused(om.save(graph, folder), ValueError, "shape")


def test_output_without_a_shape(folder: Path) -> None:
    # As exporters write it where they cannot tell the rank.
    graph, feeds = graph_case([RELU], ["h"])
    graph.graph.output[0].type.tensor_type.ClearField("shape")
    model = load_onnx(om.save(graph, folder))
    assert read(folder / "model.onnx").declared["h"] == ("int8", None)
    (y,) = systolic.run(model, feeds).outputs.values()
    np.testing.assert_array_equal(y, np.maximum(next(iter(feeds.values())), 0))


# The walls between reading, rewriting and converting


def test_read_gives_records(folder: Path) -> None:
    then = onnx.helper.make_graph(
        [om.node("Add", ["x", "c"], "inner"), om.node("Relu", ["inner"], "out")],
        "then", [], [om.value("out", "int8", (2, 3))],
    )  # fmt: skip
    otherwise = onnx.helper.make_graph(
        [om.node("Identity", ["x"], "same")], "else", [], [om.value("same", "int8", (2, 3))]
    )
    nodes = [
        om.node("Greater", ["a", "b"], "which"),
        om.node("If", ["which"], "y", name="choice", then_branch=then, else_branch=otherwise),
    ]
    inputs = {"a": ("float32", ()), "b": ("float32", ()), "x": ("int8", ("n", 3))}
    source = om.model(nodes, inputs, ["y"], {"c": np.int8([1])})
    source.graph.value_info.append(om.value("which", "bool", ("m", 1)))
    graph = read(om.save(source, folder))
    greater, choice = graph.operators
    assert (greater.key, greater.label, greater.opset) == (("", "Greater"), "which", om.OPSET)
    assert greater.inputs == ("a", "b") and greater.proto.op_type == "Greater"
    assert choice.label == "choice" and choice.captured == ("x", "c")
    assert graph.inputs["x"] == systolic.TensorSpec((None, 3), "int8", ("n", None)) and list(graph.constants) == ["c"]
    assert graph.declared["which"] == ("bool", (None, 1)) and choice.shape(0) == (None, 1)


SPLIT = om.node("Halves", ["x"], ["left", "right"], domain="toy", name="split")


def test_converters_of_several_outputs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPERATORS, ("toy", "Halves"), lambda op: (Halves(), op.inputs))
    x = np.int8([[1, 2, 3, 4], [5, 6, 7, 8]])
    relu = om.node("Relu", ["right"], "y")
    model = load_onnx(om.save(om.model([SPLIT, relu], {"x": ("int8", ("n", 4))}, ["y", "left"]), folder))
    outputs = systolic.run(model, x).outputs
    np.testing.assert_array_equal(outputs["y"], x[:, 2:])
    np.testing.assert_array_equal(outputs["left"], x[:, :2])
    for outs, kept in ((["left"], ("left", "")), (["", "right"], ("", "right"))):
        node = om.node("Halves", ["x"], outs, domain="toy")
        model = load_onnx(om.save(om.model([node], {"x": ("int8", (2, 4))}, [outs[-1]]), folder))
        assert model.nodes[0].outputs == kept
    node = om.node("Halves", ["x"], ["a", "b", "c"], domain="toy")
    path = om.save(om.model([node], {"x": ("int8", (2, 4))}, ["a"]), folder)
    refused(path, UnsupportedOperator, "the output 'c' is not supported")
    # Of constants alone it is done while loading.
    add = om.node("Add", ["z", "right"], "y")
    graph = om.model([SPLIT, add], {"z": ("int8", (2,))}, ["y", "left"], {"x": np.int8([1, 2, 3, 4])})
    model = load_onnx(om.save(graph, folder))
    assert [node.layer.kind for node in model.nodes] == ["Add"]
    assert systolic.run(model, np.int8([1, 1])).outputs["y"].tolist() == [4, 5]


def test_converters_of_several_nodes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(op: Operator) -> list[systolic.Node]:
        between = f"{op.outputs[0]}.relu"
        return [
            systolic.Node(systolic.layers.Relu(), op.inputs, between),
            systolic.Node(systolic.layers.Flatten(), (between,), op.outputs[0], op.label),
        ]

    monkeypatch.setitem(OPERATORS, ("toy", "Both"), convert)
    node = om.node("Both", ["x"], "y", domain="toy")
    model = load_onnx(om.save(graph_case([node], ["y"], (2, 3, 4))[0], folder))
    assert systolic.run(model, np.full((2, 3, 4), -1, np.int8)).outputs["y"].tolist() == [[0] * 12] * 2


def test_fallback_is_asked_for_what_the_table_lacks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def known(op: Operator) -> bool:
        asked.append(op.op_type)
        return op.op_type == "Foo"

    monkeypatch.setattr(operators, "known", known)
    monkeypatch.setattr(operators, "evaluated", lambda op: (systolic.layers.Identity(), op.inputs))
    nodes = [om.node("Foo", ["x"], "y", domain="some.where"), om.node("Relu", ["y"], "z")]
    model = load_onnx(om.save(graph_case(nodes, ["z"])[0], folder))
    assert [type(node.layer).__name__ for node in model.nodes] == ["Identity", "Relu"] and asked == ["Foo"]


def test_shapes_are_known_as_far_as_they_follow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def convert(op: Operator) -> Any:
        seen[op.inputs[0]] = (op.shape(0), op.dtypes[op.inputs[0]])
        return systolic.layers.Identity(), op.inputs

    monkeypatch.setitem(OPERATORS, ("", "Identity"), convert)
    nodes = [
        om.node("Flatten", ["a"], "fa"), om.node("Flatten", ["b"], "fb"), om.node("Flatten", ["b"], "stated"),
        *(om.node("Identity", [t], f"{t}.out") for t in ("fa", "fb", "b", "stated")),
    ]  # fmt: skip
    graph = om.model(nodes, {"a": ("int8", (2, 3, 4)), "b": ("uint8", ("n", 3, 4))}, ["fa.out"])
    graph.graph.value_info.append(om.value("stated", "uint8", ("n", 12)))
    load_onnx(om.save(graph, folder))
    assert seen == {
        "fa": ((2, 12), "int8"), "fb": (None, "uint8"), "b": ((None, 3, 4), "uint8"),
        "stated": ((None, 12), "uint8"),
    }  # fmt: skip


def test_initializer_of_no_known_type(folder: Path) -> None:
    graph, _ = graph_case([om.node("Add", ["x", "c"], "y")], ["y"], c=np.int8([1, 2, 3]))
    graph.graph.initializer[0].data_type = 77
    refused(om.save(graph, folder), ValueError, "c")


@pytest.mark.parametrize(
    "nodes, outputs",
    (
        ([om.node("Relu", ["b"], "a"), om.node("Relu", ["a"], "b")], ["b"]),
        ([om.node("Relu", ["x"], "y"), om.node("Flatten", ["x"], "y")], ["y"]),
        ([om.node("Relu", ["nothing"], "y")], ["y"]),
        ([om.node("Relu", ["x"], "y")], ["nothing"]),
        ([om.node("Relu", ["x"], "x")], ["x"]),
    ),
    ids=("cycle", "written twice", "read unwritten", "output unwritten", "input overwritten"),
)
def test_broken_graphs(folder: Path, nodes: list[Any], outputs: list[str]) -> None:
    refused(
        om.save(graph_case(nodes, outputs)[0], folder), ValueError, "model.onnx", "not a valid ONNX model"
    )


def changed(case: Case, argument: int, value: Any) -> Any:
    """A single node's model with another initializer."""
    graph = case[0].graph
    (index,) = (i for i, tensor in enumerate(graph.initializer) if tensor.name == f"i{argument}")
    del graph.initializer[index]
    graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), f"i{argument}"))
    return case[0]


def small(**attributes: Any) -> Case:
    return conv(np.random.default_rng(0), **attributes)


def cut(case: Case, argument: int) -> Any:
    """A single node's model without one of its inputs."""
    case[0].graph.node[0].input[argument] = ""
    return case[0]


def dynamic(case: Case, argument: int) -> Any:
    """A single node's model, one of whose initializers is a graph input."""
    graph = case[0].graph
    (tensor,) = (t for t in graph.initializer if t.name == f"i{argument}")
    graph.input.append(om.value(tensor.name, onnx.numpy_helper.to_array(tensor).dtype.name, tensor.dims))
    graph.initializer.remove(tensor)
    return case[0]


def pooled(**attributes: Any) -> Any:
    return average(np.random.default_rng(0), "int8", **{"kernel_shape": [2, 2], **attributes})[0]


def a_gemm(**attributes: Any) -> Case:
    return gemm(np.random.default_rng(0), "int8", "int8", **attributes)


BAD_NODES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "scale 0": (lambda: changed(small(), 1, F(0)), ValueError, "above zero"),
    "scale negative": (lambda: changed(small(), 4, F(-1)), ValueError, "above zero"),
    "scale NaN": (lambda: changed(small(), 6, F("nan")), ValueError, "finite"),
    "scale infinite": (lambda: changed(small(), 6, F("inf")), ValueError, "finite"),
    "scales of no number": (lambda: changed(small(), 4, np.zeros(0, F)), ValueError, "number per channel"),
    "scales of a matrix": (lambda: changed(small(), 4, np.ones((6, 1), F)), UnsupportedOperator, "(6, 1)"),
    "scales for other channels": (lambda: changed(small(), 4, np.ones(5, F)), ValueError, "5 scales for 6"),
    "scale per channel of x": (lambda: changed(small(), 1, np.ones(4, F)), UnsupportedOperator, "(4,)"),
    "zero point of another type": (lambda: changed(small(), 2, np.int16(3)), ValueError, "int16"),
    "zero point unlike x": (lambda: changed(small(), 2, np.uint8(3)), TypeError, "uint8"),
    "zero point unlike the weight": (lambda: changed(small(), 5, np.uint8(3)), TypeError, "uint8"),
    "scales and zero points": (
        lambda: changed(changed_case(small(), 4, np.ones(6, F)), 5, np.zeros(5, np.int8)),
        ValueError,
        "5",
    ),
    "bias of another length": (
        lambda: changed(small(), 8, np.zeros(5, np.int32)),
        ValueError,
        "(6,), not (5,)",
    ),
    "bias of floats": (lambda: changed(a_gemm(), 6, np.zeros(9, F)), TypeError, "float32"),
    "weight of floats": (lambda: changed(a_gemm(), 3, np.zeros((37, 9), F)), TypeError, "float32"),
    "weight of one axis": (lambda: changed(a_gemm(), 3, np.zeros(37, np.int8)), ValueError, "2 axes"),
    "channels": (lambda: changed(small(), 3, np.ones((6, 3, 3, 3), np.int8)), ValueError, "4 channels"),
    "groups": (lambda: small(group=4, oc=6)[0], ValueError, "6 output channels"),
    "groups 0": (lambda: attribute(small(), group=0), ValueError, "positive"),
    "kernel too large": (lambda: small(kernel=(8, 3))[0], ValueError, "spans 8 pixels of the height"),
    "kernel_shape": (lambda: small(kernel_shape=[2, 2])[0], ValueError, "(2, 2)"),
    "stride 0": (lambda: small(strides=[1, 0])[0], ValueError, "positive"),
    "one stride": (lambda: small(strides=[1])[0], ValueError, "2 numbers"),
    "dilation negative": (lambda: small(dilations=[1, -1])[0], ValueError, "positive"),
    "pads negative": (lambda: small(pads=[0, 0, -1, 0])[0], UnsupportedOperator, "none negative"),
    "two pads": (lambda: small(pads=[0, 0])[0], UnsupportedOperator, "supported are 4"),
    "auto_pad": (lambda: small(auto_pad="SAME")[0], UnsupportedOperator, "'SAME'"),
    "four dimensions": (
        lambda: changed_input(changed(small(), 3, np.ones((6, 4, 3, 3, 3, 3), np.int8)), (2, 4, 9, 9, 9, 9)),
        UnsupportedOperator,
        "1 to 3 spatial axes",
    ),
    "attribute": (lambda: attribute(a_gemm(), beta=2.0), UnsupportedOperator, "beta"),
    "transA": (lambda: attribute(a_gemm(), transA=1), ValueError, "do not fit"),
    "alpha 0": (lambda: a_gemm(alpha=0.0)[0], UnsupportedOperator, "alpha 0.0"),
    "alpha text": (lambda: attribute(a_gemm(), alpha="much"), (ValueError, TypeError), ""),
    "bias of other rows": (lambda: a_gemm(bias=(4, 9))[0], ValueError, "(4, 9)"),
    "scale without zero point": (lambda: cut(a_gemm(), 8), UnsupportedOperator, "zero point"),
    "zero point without scale": (lambda: cut(a_gemm(), 7), UnsupportedOperator, "scale"),
    "scale missing": (lambda: cut(a_gemm(), 1), ValueError, "input 1, the scale, is missing"),
    "weight missing": (lambda: cut(a_gemm(), 3), ValueError, "input 3, the weight, is missing"),
    "data missing": (lambda: cut(a_gemm(), 0), ValueError, ""),
    "window of one number": (lambda: pooled(strides=2), (ValueError, TypeError), "strides"),
    "window of reals": (lambda: pooled(kernel_shape=[2.0, 2.0]), (ValueError, TypeError), "kernel_shape"),
    "window of text": (lambda: pooled(pads="abcd"), (ValueError, TypeError), "pads"),
    "window missing": (
        lambda: attribute(pooled_case(), kernel_shape=None),
        UnsupportedOperator,
        "0 dimensions",
    ),
    "pads as large as the window": (lambda: pooled(pads=[2, 0, 0, 0]), ValueError, "smaller than the kernel"),
    "blocks": (
        lambda: attribute(quantize(np.random.default_rng(0), "int8"), block_size=2),
        ValueError,
        "takes a scale (2, 3, 3)",
    ),
    "shape that does not fit": (
        lambda: reshape(np.random.default_rng(0), [5, -1])[0],
        ValueError,
        "number of elements",
    ),
    "two operand types": (
        lambda: plain("Add", np.zeros(3, F), np.zeros(3, np.int32))[0],
        (ValueError, TypeError),
        "",
    ),
    "no output": (lambda: without_output(), ValueError, "output"),
}


def changed_case(case: Case, argument: int, value: Any) -> Case:
    return changed(case, argument, value), case[1]


def changed_input(graph: Any, shape: tuple[int, ...]) -> Any:
    graph.graph.input[0].CopyFrom(om.value("i0", "int8", shape))
    return graph


def attribute(case: Case, **attributes: Any) -> Any:
    """A single node's model with other attributes."""
    node = case[0].graph.node[0]
    for name, value in attributes.items():
        kept = [a for a in node.attribute if a.name != name]
        del node.attribute[:]
        node.attribute.extend(kept)
        if value is not None:
            node.attribute.append(onnx.helper.make_attribute(name, value))
    return case[0]


def pooled_case() -> Case:
    return pooled(), {}


def without_output() -> Any:
    graph, _ = a_gemm()
    graph.graph.node[0].output.pop()
    graph.graph.node.append(om.node("Relu", ["i0"], "y"))
    return graph


@pytest.mark.parametrize("case", BAD_NODES)
def test_bad_nodes_are_named(folder: Path, case: str) -> None:
    make, error, words = BAD_NODES[case]
    with pytest.raises(error) as caught:
        load_onnx(om.save(make(), folder))
    message = str(caught.value)
    assert isinstance(caught.value, UnsupportedOperator) == (error is UnsupportedOperator)
    assert words in message and ("the_node" in message or "not a valid ONNX model" in message), message


def test_needs_onnx(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = om.save(graph_case([RELU], ["h"])[0], folder)
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(ImportError, match=r'needs the onnx package: pip install "systolic\[onnx\]"'):
        load_onnx(path)


def _naming() -> dict[str, Case]:
    """Nodes that become several, or read more than the file has."""
    x, rng = np.float32([[1.5, -2, 3]]), np.random.default_rng(0)
    _image, _weight = rng.integers(0, 255, (1, 3, 3, 2), np.uint8), rng.integers(0, 255, (2, 2, 2, 2), np.uint8)
    _one, _zero = F(1), np.uint8(3)
    return {
        "clip": om.single("Clip", [x, F(-1), F(2)], (0, 1, 2)),
        "max": om.single("Max", [x, -x, x * x, x + 1], (0, 1, 2, 3)),
        "pad": om.single("Pad", [x], opset=10, pads=[0, 1, 0, 1]),
        "pad axes": om.single("Pad", [x, np.array([1, 1]), None, np.array([1])], (0, 1), opset=21),
        "slice": om.single("Slice", [x, np.array([0]), np.array([1]), None, np.array([1])], (0, 1)),
        "quantize": om.single(
            "QuantizeLinear", [x.astype(np.float16), np.float16(0.25), np.int8(1)], opset=23
        ),
        "quantize computed": om.single(
            "QuantizeLinear", [x.astype(np.float16), np.float16(0.25), np.int8(1)], (0, 1), opset=23
        ),
        "integers": om.single("MatMulInteger", [np.uint8([[7]]), np.int8([[5]]), None, np.int8(2)]),
        "dynamic": om.single(
            "com.microsoft.DynamicQuantizeMatMul", [x, np.int8([[1], [2], [3]]), F([0.5])]
        ),
    }  # fmt: skip


def _with_tensor(graph: Any, name: str, inner: bool) -> Any:
    """Return a model that also has a tensor of this name, 3, by which it multiplies an input to "extra"."""
    made = type(graph)()
    made.CopyFrom(graph)
    three = onnx.numpy_helper.from_array(F([3]), name)
    node = om.node("Mul", ["number", name], "extra", name="extra")
    if inner:
        graphs = [
            onnx.helper.make_graph(
                [om.node("Mul", ["number", name], out)], out, [], [om.value(out, "float32", None)], [three]
            )
            for out in ("then", "else")
        ]
        node = om.node("If", ["yes"], "extra", then_branch=graphs[0], else_branch=graphs[1])
        made.graph.input.append(om.value("yes", "bool", ()))
    else:
        made.graph.initializer.append(three)
    made.graph.node.append(node)
    made.graph.input.append(om.value("number", "float32", (1,)))
    made.graph.output.append(om.value("extra", "float32", (1,)))
    return made


@pytest.mark.slow
@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("case", _naming())
def test_names_made_are_not_of_the_file(case: str, inner: bool, tmp_path: Path) -> None:
    graph, feeds = _naming()[case]
    graph = om.typed(graph)
    model = load_onnx(om.save(graph, tmp_path))
    expected = systolic.run(model, feeds).outputs
    own = {*graph.graph.node[0].input, *graph.graph.node[0].output}
    there = {*model.constants, *(name for node in model.nodes for name in node.outputs)}
    made = sorted(there - own - {""})
    assert made, "this case is of nodes that need names"
    for name in made:
        other = load_onnx(om.save(_with_tensor(graph, name, inner), tmp_path))
        more = {"number": F([2]), **({"yes": np.array(True)} if inner else {})}
        got = systolic.run(other, {**feeds, **more}).outputs
        assert got["extra"].tolist() == [6], name
        for output, array in expected.items():
            np.testing.assert_array_equal(got[output], array, err_msg=name)
        if inner and graph.opset_import[0].version < 11:
            continue  # the subgraphs' operators are of one set, the Pad that is written of another
        path = tmp_path / "saved.onnx"
        systolic.save_onnx(other, path)
        assert load_onnx(path) == other


def test_constants_made_of_a_file_with_notes(tmp_path: Path) -> None:
    graph, feeds = _naming()["quantize"]
    graph = om.typed(graph)
    expected = systolic.run(load_onnx(om.save(graph, tmp_path)), feeds).outputs["y"]
    write_notes(graph, Notes(constants=("i1", "i2")))
    model = load_onnx(om.save(graph, tmp_path))
    np.testing.assert_array_equal(systolic.run(model, feeds).outputs["y"], expected)
