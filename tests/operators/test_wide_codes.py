"""Quantized products of codes of 4 and 16 bits: on the array, with the numbers of ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import systolic
from support import onnx_models as om
from support.onnx_models import F, node
from support.strategies import raises
from systolic import ArrayConfig, Model, Node, engine, load_onnx, save_onnx
from systolic.dataflows import DATAFLOWS
from systolic.engine.networks import run_layer
from systolic.layers import DequantizedConv, DequantizedMatMul, FloatMatMul
from systolic.reference import expected_output
from systolic.verifier.runtime import runtime_outputs

LIMITS = {
    "int4": (-8, 7), "uint4": (0, 15), "int8": (-128, 127), "uint8": (0, 255),
    "int16": (-32768, 32767), "uint16": (0, 65535),
}  # fmt: skip
PAIRS = [(x, w) for x in LIMITS for w in ("int4", "uint4", "int8", "uint8") if "8" not in x + w or "16" in x or "4" in w]
PAIRS = [(x, w) for x, w in PAIRS if "4" not in x]


def codes(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    low, high = LIMITS[dtype]
    values = rng.integers(low, high, shape, endpoint=True)
    return values.astype(getattr(ml_dtypes, dtype)) if "4" in dtype else values.astype(dtype)


def group(
    op: str, x: str, w: str, *, seed: int = 0, per_channel: bool = False, bias: bool = False, q: bool = True,
    **attributes: Any,
) -> om.Case:  # fmt: skip
    """DequantizeLinear of x and w, a product with a bias of int32, QuantizeLinear; and what to feed it."""
    rng = np.random.default_rng(seed)
    shapes = {"MatMul": ((2, 3, 9), (9, 5)), "Gemm": ((3, 9), (9, 5)), "Conv": ((2, 4, 6, 5), (6, 2, 3, 2))}[op]
    if attributes.get("transB"):
        shapes = (shapes[0], shapes[1][::-1])
    if op == "Conv":
        attributes |= {"group": 2, "pads": [1, 0, 1, 1], "strides": [2, 1]}
    axis = 0 if op == "Conv" or attributes.get("transB") else 1
    channels = shapes[1][axis]
    scales = (rng.random(channels) / 50 + 0.01).astype(F) if per_channel else F(0.02)
    zeros = codes(rng, (channels,), w) if per_channel else codes(rng, (), w)
    constants = {
        "xs": F(0.001), "xz": np.array(rng.integers(*LIMITS[x]), x), "w": codes(rng, shapes[1], w), "ws": scales, "wz": zeros,
        "ys": F(0.05), "yz": np.uint16(32768), "b": rng.integers(-999, 999, channels).astype(np.int32),
        "bs": (F(0.001) * scales).astype(F),
    }  # fmt: skip
    nodes = [
        node("DequantizeLinear", ["x", "xs", "xz"], "xd", name="x dequantized"),
        node("DequantizeLinear", ["w", "ws", "wz"], "wd", axis=axis),
        *([node("DequantizeLinear", ["b", "bs"], "bd", axis=0)] if bias else []),
        node(op, ["xd", "wd", *(["bd"] if bias else [])], "m", name="product", **attributes),
        *([node("QuantizeLinear", ["m", "ys", "yz"], "y")] if q else []),
    ]
    used = {name for each in nodes for name in each.input}
    graph = om.model(nodes, {"x": (x, ["n", *shapes[0][1:]])}, ["y" if q else "m"], {k: v for k, v in constants.items() if k in used})
    return om.typed(graph), {"x": codes(rng, shapes[0], x)}


GROUPS = [(op, x, w, per_channel) for op in ("MatMul", "Gemm", "Conv") for x, w in PAIRS for per_channel in (False, True)]


@pytest.mark.slow
@pytest.mark.parametrize(("op", "x", "w", "per_channel"), GROUPS)
def test_groups_run_on_the_array(tmp_path: Path, op: str, x: str, w: str, per_channel: bool) -> None:
    case, feeds = group(op, x, w, per_channel=per_channel, bias=op != "MatMul")
    path = om.save(case, tmp_path)
    model = load_onnx(path)
    kind = "DequantizedConv" if op == "Conv" else "DequantizedMatMul"
    assert [n.layer.kind for n in model.nodes] == [kind, "QuantizeLinear"]
    theirs = runtime_outputs(path, feeds, "float")["y"]
    outputs = []
    for dataflow in DATAFLOWS:
        for bits in (32, 64):
            array = ArrayConfig(4, 3, dataflow=dataflow, psum_bits=bits)
            for mode in engine.MODES:
                run = systolic.run(model, feeds, machine=array, mode=mode)
                assert run.stats == systolic.estimate(model, machine=array, shapes={"x": feeds["x"].shape})
                assert run.stats.macs
                outputs.append(run.outputs["y"])
            assert systolic.verify(model, feeds, machine=array, mode="wavefront").passed
    for output in outputs:
        np.testing.assert_array_equal(output, theirs)
    assert systolic.verify(path, feeds, against="onnxruntime", machine=ArrayConfig(4, 3), mode="wavefront").passed


def test_weights_of_4_bits_are_counted_as_such(tmp_path: Path) -> None:
    """Beside codes of 8 bits; an array that takes codes of 16 takes weights of 8."""
    array = ArrayConfig(16, 16)
    for x, w, size in (("uint8", "int4", 45 // 2 + 1), ("int16", "int4", 45), ("int16", "int8", 45)):
        case, feeds = group("MatMul", x, w)
        model = load_onnx(om.save(case, tmp_path))
        run = systolic.run(model, feeds, machine=array, trace=True)
        assert run.stats.weight_bytes == size
        assert run.stats.activation_bytes == feeds["x"].nbytes
        assert run.layers[0].stats == systolic.estimate(model, machine=array, batch=2)
        assert run.trace is not None and run.trace["weight"].dtype == np.int8
        assert systolic.summary(model, machine=array, batch=2).rows[0]["weight_bytes"] == size


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_sums_are_exact(data: st.DataObject) -> None:
    """Any integers and sizes: equal to the oracle in both modes and all dataflows, and to Python's integers."""
    draw = data.draw
    x, w = draw(st.sampled_from(PAIRS))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    m, k, n = (draw(st.integers(1, 7)) for _ in range(3))
    held = w.replace("4", "8")
    inputs: list[Any] = [codes(rng, (m, k), x), F(0.5), codes(rng, (), x), codes(rng, (k, n), w).astype(held)]
    many = draw(st.booleans())
    inputs += [F([2.0] * n) if many else F(2), codes(rng, (n,) if many else (), w).astype(held)]
    layer = DequantizedMatMul(w_bits=4 if "4" in w else 8)
    array = ArrayConfig(
        draw(st.integers(1, 4)), draw(st.integers(1, 4)), dataflow=draw(st.sampled_from([*DATAFLOWS])),
        psum_bits=draw(st.sampled_from([32, 64])),
    )  # fmt: skip
    exact = (inputs[0].astype(np.int64) - int(inputs[2])) @ (inputs[3].astype(np.int64) - inputs[5])
    for mode in engine.MODES:
        got = run_layer(layer, inputs, array, mode)[0]
        np.testing.assert_array_equal(got, expected_output(layer, inputs, array))
        np.testing.assert_array_equal(got, exact.astype(np.float64).astype(F))
    most = layer.largest_sum([None, None, inputs[2], inputs[3], None, inputs[5]], 32)
    assert most is not None and np.abs(exact).max() <= most


def wide(k: int = 1024) -> tuple[Model, np.ndarray]:
    """A product whose sums exceed 32 bits."""
    constants = {"xs": F(1), "xz": np.uint16(0), "w": np.full((k, 2), 127, np.int8), "ws": F(1), "wz": np.int8(0)}
    read = ("x", "xs", "xz", "w", "ws", "wz")
    model = Model([Node(DequantizedMatMul(), read, "y", "dense")], inputs={"x": ((None, k), "uint16")}, constants=constants)
    return model, np.full((1, k), 65535, np.uint16)


@pytest.mark.parametrize("mode", engine.MODES)
def test_sums_beyond_32_bits(mode: str) -> None:
    model, x = wide()
    exact = 1024 * 127 * 65535
    run = systolic.run(model, x, machine=ArrayConfig(64, 4, psum_bits=64), mode=mode)
    assert run.outputs["y"].tolist() == [[float(F(exact))] * 2]
    message = (
        f"node 'dense' \\(DequantizedMatMul\\): its sums may reach {exact:,}, and psums of 32 bits hold less; if one does "
        "not fit, the result is wrong: run the model on an ArrayConfig\\(psum_bits=64\\)"
    )
    with pytest.warns(engine.WideSumsWarning, match=message) as warned:
        run = systolic.run(model, x, machine=ArrayConfig(64, 4), mode=mode)
    assert warned[0].filename == __file__
    assert run.outputs["y"].tolist() == [[float(F((exact + 2**31) % 2**32 - 2**31))] * 2]
    with pytest.warns(engine.WideSumsWarning):  # as the array computes it
        assert systolic.verify(model, x, machine=ArrayConfig(64, 4), mode=mode).passed


def test_only_what_may_not_fit_is_warned_of() -> None:
    fits, x = wide(258)  # 258 * 127 * 65535 < 2^31
    systolic.run(fits, x, machine=ArrayConfig(64, 4))
    model, x = wide(259)
    with pytest.warns(engine.WideSumsWarning):
        systolic.run(model, x, machine=ArrayConfig(64, 4))
    # A zero point in the middle halves the range, but not that of the sums before it is subtracted.
    centred = Model(model.nodes, inputs=model.inputs, constants={**model.constants, "xz": np.uint16(32768)})
    systolic.run(centred, x, machine=ArrayConfig(64, 4))
    with pytest.warns(engine.WideSumsWarning):
        systolic.run(centred, x, machine=ArrayConfig(64, 4, psum_bits=31))


def test_products_of_8_bits_are_modulo_2_to_32_in_wider_sums() -> None:
    """ONNX defines them so."""
    x, w = np.full((1, 40_000), 255, np.uint8), np.full((40_000, 1), 255, np.uint8)
    model = Model([Node(systolic.layers.MatMulInteger(), ("x", "w"), "y")], inputs={"x": (x.shape, "uint8")}, constants={"w": w})
    for mode in engine.MODES:
        got = systolic.run(model, x, machine=ArrayConfig(256, 1, psum_bits=64), mode=mode).outputs["y"]
        assert got.dtype == np.int32 and got.item() == (40_000 * 255 * 255 + 2**31) % 2**32 - 2**31
    example = systolic.load_example()
    wide_array = systolic.run(example.model, example.images[:2], machine=ArrayConfig(64, 64, psum_bits=64))
    usual = systolic.run(example.model, example.images[:2], machine=ArrayConfig(64, 64))
    np.testing.assert_array_equal(wide_array.outputs["logits"], usual.outputs["logits"])


# What is joined, and files


def kinds(path: Path) -> list[str]:
    return [n.layer.kind for n in load_onnx(path).nodes]


def test_what_stays_as_it_is(tmp_path: Path) -> None:
    def without(case: om.Case, change: Any) -> list[str]:
        graph = case[0]
        change(graph.graph)
        return kinds(om.save(graph, tmp_path))

    def wider(graph: Any) -> None:  # weights of 16 bits
        for name, array in (("w", np.ones((9, 5), np.int16)), ("wz", np.int16(0))):
            (old,) = (t for t in graph.initializer if t.name == name)
            old.CopyFrom(onnx.numpy_helper.from_array(np.asarray(array), name))

    def blocks(graph: Any) -> None:
        (old,) = (t for t in graph.initializer if t.name == "ws")
        old.CopyFrom(onnx.numpy_helper.from_array(np.ones((3, 5), F), "ws"))
        (zero,) = (t for t in graph.initializer if t.name == "wz")
        zero.CopyFrom(onnx.numpy_helper.from_array(np.zeros((3, 5), np.int8), "wz"))
        graph.node[1].attribute.append(onnx.helper.make_attribute("block_size", 3))
        graph.node[1].attribute[0].i = 0

    for change in (wider, blocks):
        assert "FloatMatMul" in without(group("MatMul", "int16", "int8"), change)
    case, _ = group("MatMul", "int8", "int8", q=False)
    assert kinds(om.save(case, tmp_path)) == ["MatMulIntegerToFloat"]
    rows, _ = group("MatMul", "int16", "int8")  # a scale for each row
    for name, array in (("ws", np.ones(9, F)), ("wz", np.zeros(9, np.int8))):
        (old,) = (t for t in rows.graph.initializer if t.name == name)
        old.CopyFrom(onnx.numpy_helper.from_array(array, name))
    rows.graph.node[1].attribute[0].i = 0
    assert "FloatMatMul" in kinds(om.save(rows, tmp_path))
    assert "FloatMatMul" in [n.layer.kind for n in load_onnx(om.save(group("MatMul", "int16", "int8")[0], tmp_path), "float").nodes]


@pytest.mark.parametrize("op", ["MatMul", "Gemm", "Conv"])
def test_files_come_back(tmp_path: Path, op: str) -> None:
    options = {"transB": 1, "alpha": 0.5, "beta": 2.0, "bias": True} if op == "Gemm" else {"bias": op == "Conv"}
    case, feeds = group(op, "uint16", "int4", per_channel=True, **options)  # type: ignore[arg-type]
    path = om.save(case, tmp_path)
    model = load_onnx(path)
    save_onnx(model, tmp_path / "saved.onnx")
    assert load_onnx(tmp_path / "saved.onnx") == model
    for level in ("integer", "float"):
        theirs = runtime_outputs(tmp_path / "saved.onnx", feeds, level)["y"]
        np.testing.assert_array_equal(theirs, runtime_outputs(path, feeds, "float")["y"])
    model.save(tmp_path / "saved.zip")
    assert Model.load(tmp_path / "saved.zip") == model


def test_errors() -> None:
    layer = DequantizedMatMul()
    with raises(TypeError, "DequantizedMatMul: x must hold int8 or uint8 or int16 or uint16, not float32"):
        layer.output_dtype("float32", "float32", "float32", "int8", "float32", "int8")
    with raises(TypeError, "DequantizedMatMul: x_zero_point must hold uint16, as its operand does, not int16"):
        layer.output_dtype("uint16", "float32", "int16", "int8", "float32", "int8")
    with raises(TypeError, "DequantizedMatMul: w must hold 8 bits, not int16"):
        layer.output_dtype("uint16", "float32", "uint16", "int16", "float32", "int16")
    with raises(TypeError, "DequantizedMatMul: w_scale must hold float32, not float16"):
        layer.output_dtype("uint16", "float32", "uint16", "int8", "float16", "int8")
    with raises(ValueError, "w_bits must be 4, 8 or 16, not 5"):
        DequantizedConv(w_bits=5)
    narrow = DequantizedMatMul(w_bits=4)
    with raises(ValueError, "DequantizedMatMul: w must be -8 to 7, but holds 8"):
        narrow.lower(np.int8([[1]]), F(1), np.int8(0), np.int8([[8]]), F(1), np.int8(0))
    with raises(ValueError, "DequantizedMatMul: w_scale must be one number or (5,), not (4,)"):
        layer.output_shape((3, 4), (), (), (4, 5), (4,), ())
    assert isinstance(FloatMatMul(), systolic.layers.HostLayer)
