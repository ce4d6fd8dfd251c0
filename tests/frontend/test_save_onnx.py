"""Models written as ONNX: read back equal, valid, and of the same outputs in ONNX Runtime."""

from __future__ import annotations

import contextlib
import dataclasses
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
from support.strategies import codes, examples, raises, seeds
from support.zoo import zoo, zoo_inputs
from systolic import Model, Node, QuantParams, UnsupportedOperator, load_onnx, save_onnx

F = np.float32


# What the format holds of a model


def spread(params: QuantParams | None) -> QuantParams | None:
    """Parameters as ONNX spells them: a zero point per channel, none per channel where there is one."""
    if params is None or not params.per_channel:
        return params
    if params.scales.size == 1:
        return QuantParams(float(params.scales[0]), int(params.zero_points[0]), params.dtype)
    return QuantParams(params.scales, params.zero_points, params.dtype, axis=params.axis)


def canonical(model: Model) -> Model:
    """The model with its parameters as ONNX spells them."""
    nodes = []
    for node in model.nodes:
        layer: Any = node.layer
        values = {f.name: getattr(layer, f.name) for f in dataclasses.fields(layer)}
        values = {n: spread(v) if isinstance(v, QuantParams) else v for n, v in values.items()}
        nodes.append(Node(type(layer)(**values), node.inputs, node.outputs, node.name))
    return Model(
        nodes, inputs=model.inputs, outputs=model.outputs, constants=model.constants, name=model.name
    )


def check(model: Model, folder: Path, feeds: dict[str, np.ndarray], *, runtime: bool = True) -> None:
    """Assert that a model comes back equal, and that ONNX Runtime agrees with it."""
    path = folder / "saved.onnx"
    save_onnx(model, path)
    assert [entry.name for entry in folder.iterdir()] == ["saved.onnx"]
    # onnx's shape inference counts a last window in the padding, which nobody computes; and has no other domain.
    inferred = not any(
        written.domain or getattr(node.layer, "ceil_mode", False)
        for written, node in zip(onnx.load(path).graph.node, model.nodes, strict=True)
    )
    onnx.checker.check_model(str(path), full_check=inferred)
    assert load_onnx(path) == canonical(model)
    ours = systolic.run(model, feeds, mode="wavefront").outputs
    again = systolic.run(load_onnx(path), feeds, mode="wavefront").outputs
    for name, array in ours.items():
        np.testing.assert_array_equal(again[name], array)
    if runtime:
        for (name, array), theirs in zip(ours.items(), om.onnxruntime_outputs(path, feeds), strict=True):
            assert array.dtype == theirs.dtype
            np.testing.assert_array_equal(array, theirs, err_msg=name)


# One layer of each kind


Drawn = tuple[Any, tuple[int, ...], str]
"""A layer, and shape and type of what it reads."""


@st.composite
def params(draw: st.DrawFn, dtype: str, channels: int = 0, axis: int = 0) -> QuantParams:
    scale = st.floats(2**-9, 2**-5, width=32)
    zero = st.integers(*((-128, 127) if dtype == "int8" else (0, 255)))
    if not channels:
        return QuantParams(draw(scale), draw(zero), dtype)
    zeros = draw(zero | st.lists(zero, min_size=channels, max_size=channels))
    return QuantParams(draw(st.lists(scale, min_size=channels, max_size=channels)), zeros, dtype, axis=axis)


PAIRS = st.sampled_from([("int8", "int8"), ("uint8", "uint8")])
OUTPUT = st.floats(0.25, 1.0, width=32)


def weights(draw: st.DrawFn, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return codes(np.random.default_rng(draw(seeds)), shape, dtype)


def bias(draw: st.DrawFn, count: int) -> np.ndarray | None:
    if not draw(st.booleans()):
        return None
    return np.random.default_rng(draw(seeds)).integers(-5000, 5000, count, dtype=np.int32)


@st.composite
def denses(draw: st.DrawFn) -> Drawn:
    x, w = draw(PAIRS)
    k, n = draw(st.integers(1, 20)), draw(st.integers(1, 9))
    y = QuantParams(draw(OUTPUT), 3, x) if draw(st.booleans()) else None
    layer = systolic.layers.Dense(
        weights(draw, (k, n), w),
        x=draw(params(x)),
        w=draw(params(w) | params(w, n, 1)),
        y=y,
        bias=bias(draw, n),
    )
    leading = (3,) if layer.bias is not None or y is None else draw(st.sampled_from([(), (3,), (2, 3)]))
    return layer, (*leading, k), x


@st.composite
def convolutions(draw: st.DrawFn) -> Drawn:
    x, w = draw(PAIRS)
    groups, icg, ocg = (draw(st.integers(1, 3)) for _ in range(3))
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    pads = st.tuples(st.integers(0, 2), st.integers(0, 2))
    oc = groups * ocg
    depthwise = icg == 1 and draw(st.booleans())
    options: dict[str, Any] = {"multiplier": ocg} if depthwise else {"groups": groups}
    kind = systolic.layers.DepthwiseConv2d if depthwise else systolic.layers.Conv2d
    auto = draw(st.sampled_from(["", "", "same", "same_lower", "valid"]))
    layer = kind(
        weights(draw, (oc, icg, *kernel), w), x=draw(params(x)), w=draw(params(w) | params(w, oc)),
        y=QuantParams(draw(OUTPUT), 3, x), bias=bias(draw, oc), stride=draw(st.integers(1, 3)),
        padding=auto or draw(st.tuples(pads, pads)),
        # ONNX Runtime takes SAME with dilations for another padding.
        dilation=1 if auto else draw(st.integers(1, 2)), **options,
    )  # fmt: skip
    return layer, (2, groups * icg, 7, 6), x


@st.composite
def pools(draw: st.DrawFn) -> Drawn:
    dtype = draw(st.sampled_from(["int8", "uint8"]))
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    pads = tuple((draw(st.integers(0, k - 1)), draw(st.integers(0, k - 1))) for k in kernel)
    options: dict[str, Any] = {
        "stride": draw(st.integers(1, 2)), "padding": draw(st.sampled_from([pads, "same", "same_lower", "valid"])),
    }  # fmt: skip
    shape = (2, 3, 7, 6)
    kind = draw(st.integers(0, 2))
    if kind == 0:
        layer: Any = systolic.layers.MaxPool(kernel, ceil_mode=draw(st.booleans()), **options)
    else:
        x, y = draw(params(dtype)), draw(params(dtype))
        last = draw(st.booleans())
        layer = systolic.layers.QLinearGlobalAveragePool(x, y, channels_last=last)
        if kind == 2:
            layer = systolic.layers.QLinearAveragePool(
                kernel, x, y, count_include_pad=draw(st.booleans()), channels_last=last, **options
            )
    return layer, shape, dtype


@st.composite
def others(draw: st.DrawFn) -> Drawn:
    dtype = draw(st.sampled_from(["int8", "uint8"]))
    shape = (2, 3, 4)
    axis = draw(st.integers(-3, 2))
    of = draw(params(dtype) | params(dtype, shape[axis], axis))
    return draw(
        st.sampled_from([
            (systolic.layers.QuantizeLinear(of), shape, "float32"),
            (systolic.layers.DequantizeLinear(of), shape, dtype),
            (systolic.layers.Relu(), shape, "float32"),
            (systolic.layers.Relu(), shape, "int8"),
            (systolic.layers.Flatten(axis), shape, dtype),
            (systolic.layers.Identity(), shape, dtype),
            (systolic.layers.Reshape(draw(st.sampled_from([(0, -1), (-1,), (4, 3, 2), (0, 0, 2, 2)]))), shape, dtype),
        ])
    )  # fmt: skip


@pytest.mark.slow
@examples(150)
@given(denses() | convolutions() | pools() | others(), st.booleans(), seeds)
def test_every_layer(tmp_path_factory: pytest.TempPathFactory, drawn: Drawn, open_: bool, seed: int) -> None:
    layer, shape, dtype = drawn
    declared: tuple[int | None, ...] = shape
    if open_ and shape:
        with contextlib.suppress(ValueError):  # of a batch of its own
            layer.output_shape((1, *shape[1:]))
            declared = (None, *shape[1:])
    model = Model([Node(layer, ("x",), "y", "the layer")], inputs={"x": (declared, dtype)}, name="one")
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape).astype(F) if dtype == "float32" else codes(rng, shape, dtype)
    check(model, tmp_path_factory.mktemp("one"), {"x": x})


@pytest.mark.parametrize("rank", (1, 3))
@pytest.mark.parametrize("padding", ("same", "explicit"))
def test_other_ranks(tmp_path: Path, rank: int, padding: str) -> None:
    rng = np.random.default_rng(rank)
    q = QuantParams(0.03, 5)
    each = QuantParams([0.01, 0.02, 0.03, 0.04], axis=0)
    layer = systolic.layers.QLinearConv(
        codes(rng, (4, 1, *(3, 2, 2)[:rank]), "int8"), x=q, w=each, y=QuantParams(0.5, -3), bias=np.int32([1, -2, 3, 4]),
        stride=(2, 1, 2)[:rank], padding=padding if padding == "same" else ((1, 0), (0, 1), (1, 1))[:rank], groups=2,
    )  # fmt: skip
    x = codes(rng, (2, 2, *(6, 5, 4)[:rank]), "int8")
    model = Model([Node(layer, ("x",), "y")], inputs={"x": ((None, *x.shape[1:]), "int8")})
    check(model, tmp_path, {"x": x})


def test_products_of_two_tensors(tmp_path: Path) -> None:
    """All of what reads its second operand at run time."""
    rng = np.random.default_rng(0)
    a, b = codes(rng, (2, 3, 4), "uint8"), codes(rng, (2, 4, 5), "uint8")
    q = QuantParams(0.03, 120, "uint8")
    nodes = [
        Node(systolic.layers.QLinearMatMul(x=q, w=q, y=QuantParams(0.5, 3, "uint8")), ("a", "b"), "p"),
        Node(systolic.layers.MatMulInteger(), ("a", "b", "za", "zb"), "i"),
        Node(systolic.layers.DynamicQuantize(), ("r",), ("codes", "scale", "zero")),
        Node(systolic.layers.MatMulIntegerToFloat(), ("codes", "b", "scale", "sb", "zero", "zb"), "f"),
    ]
    model = Model(
        nodes,
        inputs={"a": (a.shape, "uint8"), "b": (b.shape, "uint8"), "r": (a.shape, "float32")},
        outputs=["p", "i", "f", "codes", "scale", "zero"],
        constants={"za": np.uint8(7), "zb": np.uint8(9), "sb": F(0.25)},
    )
    check(model, tmp_path, {"a": a, "b": b, "r": real(rng, a.shape)})


def real(rng: Any, shape: tuple[int, ...]) -> np.ndarray:
    return rng.normal(size=shape).astype(F)


# Whole models


def whole() -> Model:
    """Several inputs, outputs that others read, a constant, names with blanks and a used-up one."""
    rng = np.random.default_rng(0)
    u8, wide = QuantParams(0.25, 100, "uint8"), QuantParams(2.0, 7, "uint8")
    nodes = [
        Node(systolic.layers.QuantizeLinear(u8), ("image",), "image codes"),
        Node(
            systolic.layers.Conv2d(
                codes(rng, (4, 1, 3, 3), "uint8"), x=u8, w=QuantParams([0.1, 0.2, 0.3, 0.4], 3, "uint8", axis=0),
                y=wide, stride=2, bias=np.int32([1, -2, 3, 2**20]),
            ),
            ("image codes",), "convolved", "first",
        ),
        Node(systolic.layers.QLinearAdd(wide, u8, wide), ("convolved", "offset"), "sum"),
        Node(systolic.layers.Flatten(), ("sum",), "flat"),
        Node(
            systolic.layers.Dense(codes(rng, (48, 5), "uint8"), x=wide, w=QuantParams(0.01, 120, "uint8"), y=None),
            ("flat",), "logits",
        ),
        Node(systolic.layers.Binary("Add"), ("logits", "second"), "shifted"),
    ]  # fmt: skip
    return Model(
        nodes,
        inputs={"image": ((None, 1, 9, 8), "float32"), "second": ((5,), "float32")},
        outputs=["shifted", "sum", "logits"],
        constants={"offset": codes(rng, (4, 1, 1), "uint8"), "logits.weight": np.int8([1])},
        name="whole, Ж",
    )


def test_a_whole_model(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    model = whole()
    feeds = {"image": rng.normal(size=(3, 1, 9, 8)).astype(F) * 20, "second": rng.normal(size=5).astype(F)}
    check(model, tmp_path_of(tmp_path, "whole"), feeds)
    save_onnx(model, tmp_path / "m.onnx")
    graph = onnx.load(tmp_path / "m.onnx").graph
    names = [tensor.name for tensor in graph.initializer]
    assert len(set(names)) == len(names) and "logits.weight2" in names
    assert [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.output] == [
        [0, 5], [0, 4, 4, 3], [0, 5],
    ]  # fmt: skip


def tmp_path_of(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def test_the_example(tmp_path: Path) -> None:
    model, images, _ = systolic.load_example()
    check(model, tmp_path, {"pixels": images[:5]})


@pytest.mark.parametrize("outputs", (["x"], ["c"], ["y", "x", "c"]))
def test_outputs_that_no_layer_writes(tmp_path: Path, outputs: list[str]) -> None:
    c = np.int8([[1, 2]])
    model = Model(
        [Node(systolic.layers.Relu(), ("x",), "y")],
        inputs={"x": ((None, 2), "int8")},
        outputs=outputs,
        constants={"c": c},
    )
    save_onnx(model, tmp_path / "m.onnx")
    loaded = load_onnx(tmp_path / "m.onnx")
    assert loaded.outputs == model.outputs
    x = np.int8([[-1, 1]])
    for name, array in systolic.run(model, x).outputs.items():
        np.testing.assert_array_equal(systolic.run(loaded, x).outputs[name], array)


def test_symbols_stay(tmp_path: Path) -> None:
    spec = systolic.TensorSpec((None, None, None, 3), "int8", symbols=("batch", None, "n", None))
    model = Model([systolic.layers.Identity()], inputs={"x": spec})
    save_onnx(model, tmp_path / "m.onnx")
    assert load_onnx(tmp_path / "m.onnx") == model


@pytest.mark.parametrize("dtype", systolic.model.DTYPES)
def test_every_type_of_tensor(tmp_path: Path, dtype: str) -> None:
    c = np.array([[0, 1, 1]], dtype)
    model = Model(
        [Node(systolic.layers.Identity(), ("x",), "y"), Node(systolic.layers.Identity(), ("c",), "z")],
        inputs={"x": ((None, None, 3), dtype)}, outputs=["y", "z"], constants={"c": c},
    )  # fmt: skip
    save_onnx(model, tmp_path / "m.onnx")
    loaded = load_onnx(tmp_path / "m.onnx")
    assert loaded.inputs == model.inputs
    outputs = systolic.run(loaded, np.zeros((2, 1, 3), dtype)).outputs
    assert outputs["y"].dtype == outputs["z"].dtype == dtype and outputs["z"].tolist() == c.tolist()


# What has no form in ONNX


ONE, U8 = QuantParams(1.0), QuantParams(1.0, 3, "uint8")
EYE = np.eye(4, dtype=np.int8)
IMAGE = ((2, 4, 5, 5), "int8")
REFUSED: dict[str, tuple[Callable[[], Any], Any, str]] = {
    "bias on three axes": (
        lambda: systolic.layers.Dense(EYE, x=ONE, w=ONE, y=ONE, bias=np.zeros(4, np.int32)),
        ((2, 3, 4), "int8"),
        "node 'y' (QLinearMatMul): with a bias, or without y, it is a QGemm, which takes matrices (M, K), not 3 axes; "
        "put a Flatten or Reshape before it",
    ),
    "float32 from a convolution": (
        lambda: systolic.layers.Conv2d(EYE.reshape(4, 4, 1, 1), x=ONE, w=ONE, y=None),
        IMAGE,
        "node 'y' (QLinearConv): ONNX has no convolution of codes to float32; give it y, and a DequantizeLinear after it",
    ),
    "transposed stack": (
        lambda: systolic.layers.QLinearMatMul(x=ONE, w=ONE, y=ONE, transpose_w=True),
        ((2, 4, 4), "int8"),
        "node 'y' (QLinearMatMul): with a bias, a transposed operand, an alpha, or without y, it is a QGemm, which takes "
        "matrices, and 'x' has 3 axes",
    ),
    "MaxPool NHWC": (
        lambda: systolic.layers.MaxPool((2, 2), channels_last=True),
        IMAGE,
        "node 'y' (MaxPool): ONNX's MaxPool takes channels second, not last",
    ),
    "Relu around a zero point": (
        lambda: systolic.layers.Relu(3),
        IMAGE,
        "node 'y' (Relu): ONNX's Relu is of int8, int32 or float32 around 0, not of int8 around 3; let the layer "
        "before it saturate there, by a zero point of y at the smallest code",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_written(tmp_path: Path, case: str) -> None:
    make, spec, message = REFUSED[case]
    with raises(UnsupportedOperator, message):
        layer = make()
        reads = ("x",) if layer.inputs else ("x", "x")
        save_onnx(Model([Node(layer, reads, "y")], inputs={"x": spec}), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_another_rounding(tmp_path: Path) -> None:
    for kind in (systolic.layers.Dense, systolic.layers.Conv2d):
        weight = EYE if kind is systolic.layers.Dense else EYE.reshape(4, 4, 1, 1)
        layer = kind(weight, x=ONE, w=ONE, y=ONE, rounding="tflite")  # type: ignore[call-arg]
        spec = ((2, 4), "int8") if kind is systolic.layers.Dense else IMAGE
        with raises(
            UnsupportedOperator,
            f"node 'y' ({type(layer).__name__}): ONNX rounds half_even, not 'tflite'; use Model.save",
        ):
            save_onnx(Model([Node(layer, ("x",), "y")], inputs={"x": spec}), tmp_path / "m.onnx")


def test_layers_of_the_users_own(tmp_path: Path) -> None:
    class Mine(systolic.layers.Identity):
        pass

    with raises(
        UnsupportedOperator,
        "node 'y' (Mine): it has no form in ONNX that load_onnx reads; use Model.save",
    ):
        save_onnx(Model([Node(Mine(), ("x",), "y")], inputs={"x": IMAGE}), tmp_path / "m.onnx")


def test_the_zoo_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOperator, match=r"^node 't3' \(Relu\): "):
        save_onnx(zoo(), tmp_path / "m.onnx")
    assert zoo_inputs() and not list(tmp_path.iterdir())


def test_open_sizes_that_fit_some(tmp_path: Path) -> None:
    model = Model([systolic.layers.Reshape((5, 5))], inputs={"x": ((None, 6), "int8")})
    with pytest.raises(
        UnsupportedOperator, match=r"^a batch of 1 does not fit: node 't0': Reshape .*; say the batch$"
    ):
        save_onnx(model, tmp_path / "m.onnx")
    # A batch of one alone; an image no smaller than the kernel.
    for layer, shape in (
        (systolic.layers.Reshape((3, 2)), (None, 6)),
        (systolic.layers.MaxPool((20, 20), stride=20), (None, 3, None, None)),
    ):
        model = Model([layer], inputs={"x": (shape, "int8")})
        save_onnx(model, tmp_path / "m.onnx")
        assert load_onnx(tmp_path / "m.onnx") == model
    model = Model([systolic.layers.MaxPool((70, 70))], inputs={"x": ((None, 3, None, None), "int8")})
    with raises(
        UnsupportedOperator, "no size from 1 to 64 fits the open ones; say more of the inputs' shapes"
    ):
        save_onnx(model, tmp_path / "n.onnx")


def test_no_folder_and_no_model(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere to write m\.onnx to"):
        save_onnx(whole(), tmp_path / "nowhere" / "m.onnx")
    with raises(TypeError, "save_onnx writes a Model, not str"):
        save_onnx("model", tmp_path / "m.onnx")  # type: ignore[arg-type]


def test_a_file_that_is_there_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.onnx"
    path.write_text("before")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_onnx(whole(), path)
    assert path.read_text() == "before" and [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_needs_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(
        ImportError, match=r'save_onnx needs the onnx package: pip install "systolic\[onnx\]"'
    ):
        save_onnx(whole(), tmp_path / "m.onnx")
