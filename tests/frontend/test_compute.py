"""``load_onnx(compute=...)``: products of float32 on the array in a narrower format, and such models' files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import systolic
from support import onnx_models as om
from support.onnx_models import F, node
from support.strategies import raises
from systolic import ArrayConfig, Model, Node, load_onnx, save_onnx
from systolic.layers import ArrayConv, ArrayMatMul, FloatConv, FloatMatMul, Relu

FORMATS = ("bfloat16", "float16", "float8_e4m3fn", "float8_e5m2")


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(F)


def network(folder: Path) -> Path:
    """A Conv with a bias, a Relu, a Gemm with factors, a MatMul."""
    constants = {"w": normal(4, 3, 3, 3), "b": normal(4), "g": normal(10, 144), "c": normal(10), "m": normal(10, 5)}
    nodes = [
        node("Conv", ["x", "w", "b"], "conv", kernel_shape=[3, 3]),
        node("Relu", ["conv"], "relu"),
        node("Flatten", ["relu"], "flat"),
        node("Gemm", ["flat", "g", "c"], "gemm", alpha=0.5, beta=2.0, transB=1),
        node("MatMul", ["gemm", "m"], "y"),
    ]
    graph = om.model(nodes, {"x": ("float32", ["n", 3, 8, 8])}, ["y"], constants, opset=17)
    return om.save(om.typed(graph), folder)


@pytest.mark.parametrize("compute", FORMATS)
def test_products_run_on_the_array(tmp_path: Path, compute: str) -> None:
    model = load_onnx(network(tmp_path), compute=compute)
    assert [node.layer for node in model.nodes if node.name in ("conv", "gemm", "y")] == [
        ArrayConv(compute, stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1)),
        ArrayMatMul(compute, transpose_b=True, alpha=0.5, beta=2.0),
        ArrayMatMul(compute),
    ]
    summary = systolic.summary(model, batch=2)
    assert summary.totals["macs"] == 2 * (36 * 27 * 4 + 144 * 10 + 10 * 5) and summary.off_array is None


def test_files_come_back(tmp_path: Path) -> None:
    model = load_onnx(network(tmp_path), compute="float16")
    save_onnx(model, tmp_path / "saved.onnx")
    assert load_onnx(tmp_path / "saved.onnx") == model
    other = load_onnx(tmp_path / "saved.onnx", compute="bfloat16")
    assert [n.layer.compute for n in other.nodes if hasattr(n.layer, "compute")] == ["bfloat16"] * 3
    model.save(tmp_path / "saved.zip")
    assert Model.load(tmp_path / "saved.zip") == model
    # Other programs run the file in float32.
    x = normal(2, 3, 8, 8, seed=1)
    (theirs,) = om.onnxruntime_outputs(tmp_path / "saved.onnx", {"x": x})
    (expected,) = om.onnxruntime_outputs(network(tmp_path), {"x": x})
    np.testing.assert_array_equal(theirs, expected)


def test_a_saved_model_that_holds_its_weights(tmp_path: Path) -> None:
    layer = FloatConv(normal(2, 3, 2, 2), normal(2), activation=None)
    save_onnx(Model([layer], inputs={"x": ((None, 3, 4, 4), "float32")}), tmp_path / "held.onnx")
    model = load_onnx(tmp_path / "held.onnx", compute="bfloat16")
    (conv,) = model.nodes
    assert isinstance(conv.layer, ArrayConv) and len(conv.inputs) == 3
    got = systolic.run(model, normal(1, 3, 4, 4), machine=ArrayConfig(8, 8)).outputs
    exact = layer.apply(normal(1, 3, 4, 4))
    np.testing.assert_allclose(next(iter(got.values())), exact, atol=0.05)


def test_notes_of_an_unknown_format_are_void(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    save_onnx(load_onnx(network(tmp_path), compute="bfloat16"), path)
    path.write_bytes(path.read_bytes().replace(b'"bfloat16"', b'"bfloat17"'))
    assert not any(isinstance(n.layer, ArrayConv | ArrayMatMul) for n in load_onnx(path).nodes)


def test_what_stays_on_the_host(tmp_path: Path) -> None:
    """Fused activations, other types, and products of constants, which are folded."""
    nodes = [
        node("com.microsoft.FusedGemm", ["x", "w"], "a", activation="Relu"),
        node("MatMul", ["w", "w"], "k"),
        node("Cast", ["x"], "wide", to=11),
        node("MatMul", ["wide", "d"], "e"),
        node("MatMul", ["a", "k"], "y"),
    ]
    constants = {"w": normal(3, 3), "d": np.eye(3)}
    graph = om.model(nodes, {"x": ("float32", [2, 3])}, ["y", "e"], constants, opset=17)
    model = load_onnx(om.save(om.typed(graph), tmp_path), compute="bfloat16")
    kinds = {n.name: n.layer.kind for n in model.nodes}
    assert kinds == {"a": "FloatMatMul", "wide": "Cast", "e": "FloatMatMul", "y": "ArrayMatMul"}


def test_quantized_products_stay_quantized(tmp_path: Path) -> None:
    constants = {
        "s": F(0.1), "z": np.uint8(3), "w": np.int8([[1, 2], [3, 4]]), "ws": F(0.5), "wz": np.int8(0), "f": normal(2, 3)
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], "q"),
        node("DequantizeLinear", ["q", "s", "z"], "d"),
        node("DequantizeLinear", ["w", "ws", "wz"], "wd"),
        node("MatMul", ["d", "wd"], "m"),
        node("QuantizeLinear", ["m", "s", "z"], "mq"),
        node("DequantizeLinear", ["mq", "s", "z"], "md"),
        node("MatMul", ["md", "f"], "y"),
    ]
    graph = om.model(nodes, {"x": ("float32", ["n", 2])}, ["y"], constants)
    model = load_onnx(om.save(om.typed(graph), tmp_path), compute="bfloat16")
    assert [n.layer.kind for n in model.nodes if "MatMul" in n.layer.kind] == ["QLinearMatMul", "ArrayMatMul"]


# Bad input


def test_errors_say_what_is_possible(tmp_path: Path) -> None:
    path = network(tmp_path)
    names = ", ".join(map(repr, FORMATS))
    with raises(ValueError, f"compute must be one of {names}, not 'int8'"):
        load_onnx(path, compute="int8")
    with raises(ValueError, f"compute must be one of {names}, not 16"):
        load_onnx(path, compute=16)  # type: ignore[arg-type]
    digits = Path(systolic.example.DATA) / "digits.onnx"
    with raises(
        ValueError,
        "compute='bfloat16' is for Conv, Gemm and MatMul of float32, and the model has none; on the array are "
        "QLinearConv, QLinearMatMul, of integers; leave compute out",
    ):
        load_onnx(digits, compute="bfloat16")
    with raises(ValueError, "compute says how an .onnx file is read; m.zip holds a model's layers"):
        systolic.verify("m.zip", compute="bfloat16")
    with raises(ValueError, "compute says how an .onnx file is read: pass its path instead of a Model"):
        systolic.verify(load_onnx(path), compute="bfloat16")


def test_without_ml_dtypes(tmp_path: Path) -> None:
    """In a process that has not imported it: numpy then knows its types."""
    code = (
        "import sys; sys.modules['ml_dtypes'] = None; import systolic\n"
        f"try: systolic.load_onnx({str(network(tmp_path))!r}, compute='bfloat16')\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (
        'arrays of bfloat16 need ml_dtypes: pip install "systolic[formats]", or pip install ml_dtypes'
    )


def test_layers_take_float32_alone() -> None:
    names = ", ".join(map(repr, FORMATS))
    with raises(ValueError, f"compute must be one of {names}, not 'float32'"):
        ArrayMatMul("float32")
    with raises(TypeError, "ArrayMatMul takes float32, and rounds it to bfloat16, not int8"):
        ArrayMatMul("bfloat16").output_dtype("float32", "int8")
    with raises(TypeError, "ArrayConv takes 2 to 3 inputs (x, w, bias), not 1"):
        ArrayConv("bfloat16").output_shape((1, 2, 3))
    with raises(ValueError, "ArrayConv: bias must have one value per output channel, (4,), not (3,)"):
        ArrayConv("bfloat16").output_shape((1, 2, 5), (4, 2, 3), (3,))
    mixed = Model([Node(ArrayMatMul("bfloat16"), ("x", "w"), "y", "product"), Relu()], inputs={"x": ((1, 2), "float32")}, constants={"w": normal(2, 2)})
    with raises(
        ValueError,
        "node 'product' (ArrayMatMul): psum_bits and overflow are for integers: sums of bfloat16 are float32, rounded each time",
    ):
        systolic.run(mixed, normal(1, 2), machine=ArrayConfig(4, 4, psum_bits=64))
    assert isinstance(ArrayMatMul("bfloat16").float32, FloatMatMul)
