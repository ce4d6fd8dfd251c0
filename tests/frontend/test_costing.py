"""Costs without weights: floats as if quantized cost what ONNX Runtime's quantizer makes of them costs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import systolic
from support.compiled import machine
from systolic import ArrayConfig, Gemm, Stats, cli, estimate, summary, sweep
from systolic.frontend import as_model, costed
from systolic.machine import time_program
from systolic.sweeps import Sweep
from systolic.workloads import Workload, read_workload

FLOATS = "costed as if quantized to int8: its products are of floats"
LIST = "costed as if quantized: a list of products"
ON = [ArrayConfig(8, 8), ArrayConfig(16, 4), machine(8, 8), machine(16, 16, accumulator_rows=32)]


class Network:
    """Nodes of a network of floats, with random weights."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []
        self.rng = np.random.default_rng(0)

    def held(self, *shape: int) -> str:
        return self.value(self.rng.normal(size=shape).astype(np.float32))

    def value(self, array: Any) -> str:
        name = f"c{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def __call__(self, kind: str, *inputs: str, **attributes: Any) -> str:
        output = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], f"{kind}{len(self.nodes)}", **attributes))
        return output

    def model(self, shape: tuple[Any, ...], output: str) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes, "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)], self.tensors,
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return onnx.shape_inference.infer_shapes(model)


def residual() -> onnx.ModelProto:
    net = Network()
    x = net("Relu", net("Conv", "x", net.held(16, 3, 3, 3), net.held(16), pads=[1, 1, 1, 1]))
    x = net("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    y = net("Conv", x, net.held(16, 16, 3, 3), net.held(16), pads=[1, 1, 1, 1])
    y = net("Clip", y, net.value(np.float32(0)), net.value(np.float32(6)))
    x = net("Relu", net("Add", x, y))
    x = net("Conv", x, net.held(16, 1, 3, 3), net.held(16), group=16, strides=[2, 2])
    x = net("Flatten", net("GlobalAveragePool", x))
    return net.model(("n", 3, 12, 12), net("Gemm", x, net.held(10, 16), net.held(10), transB=1))


def normalized() -> onnx.ModelProto:
    """Two convolutions with batch normalizations, which a quantizer's preprocessing folds."""
    net = Network()
    x = "x"
    for channels in (4, 8):
        x = net("Conv", x, net.held(8, channels, 3, 3))
        x = net("BatchNormalization", x, net.held(8), net.held(8), net.held(8), net.value(np.ones(8, np.float32)))
        x = net("Relu", x)
    return net.model(("n", 4, 9, 9), x)


def branches() -> onnx.ModelProto:
    net = Network()
    x = net("Conv", "x", net.held(8, 4, 1, 1), net.held(8))
    a = net("Sigmoid", net("Conv", x, net.held(8, 8, 3, 3), net.held(8), pads=[1, 1, 1, 1]))
    b = net("AveragePool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    x = net("Concat", net("Mul", a, x), b, axis=1)
    x = net("Reshape", net("Transpose", x, perm=[0, 2, 3, 1]), net.value(np.array([-1, 16], np.int64)))
    return net.model((1, 4, 6, 6), net("MatMul", x, net.held(16, 12)))


def attention() -> onnx.ModelProto:
    """Products of two computed tensors, and a normalization that stays in floats."""
    net = Network()
    x = net("LayerNormalization", "x", net.held(16), net.held(16))
    q, k, v = (net("Add", net("MatMul", x, net.held(16, 16)), net.held(16)) for _ in range(3))
    heads = [net("Transpose", net("Reshape", each, net.value(np.array([1, 6, 2, 8], np.int64))), perm=[0, 2, 1, 3]) for each in (q, v)]
    k = net("Transpose", net("Reshape", k, net.value(np.array([1, 6, 2, 8], np.int64))), perm=[0, 2, 3, 1])
    scores = net("Softmax", net("Mul", net("MatMul", heads[0], k), net.value(np.float32(0.3))), axis=-1)
    y = net("Transpose", net("MatMul", scores, heads[1]), perm=[0, 2, 1, 3])
    y = net("Reshape", y, net.value(np.array([1, 6, 16], np.int64)))
    return net.model((1, 6, 16), net("Add", "x", net("MatMul", y, net.held(16, 16))))


def dense() -> onnx.ModelProto:
    net = Network()
    x = net("Relu", net("Gemm", "x", net.held(20, 30), net.held(30)))
    x = net("Softmax", net("MatMul", x, net.held(30, 7)), axis=-1)
    return net.model(("n", 20), x)


NETWORKS: dict[str, Callable[[], onnx.ModelProto]] = {"residual": residual, "normalized": normalized, "branches": branches, "attention": attention, "dense": dense}


def written(tmp_path: Path, model: onnx.ModelProto, name: str = "net.onnx") -> Path:
    path = tmp_path / name
    path.write_bytes(model.SerializeToString())
    return path


def quantized(path: Path) -> Path:
    """What ONNX Runtime's tool makes of a model of floats: QDQ, int8."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    from onnxruntime.quantization.preprocess import quant_pre_process

    shape = [d.dim_value or 1 for d in onnx.load(path).graph.input[0].type.tensor_type.shape.dim]
    feeds = iter([{"x": np.random.default_rng(1).normal(size=shape).astype(np.float32)}])

    class Reader(quantization.CalibrationDataReader):
        def get_next(self) -> Any:
            return next(feeds, None)

    before, after = path.with_suffix(".prepared.onnx"), path.with_suffix(".quantized.onnx")
    quant_pre_process(str(path), str(before), skip_symbolic_shape=True)
    kinds = {"activation_type": quantization.QuantType.QInt8, "weight_type": quantization.QuantType.QInt8}
    quantization.quantize_static(str(before), str(after), Reader(), quant_format=quantization.QuantFormat.QDQ, **kinds)
    return after


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_floats_cost_what_the_quantized_network_costs(name: str, tmp_path: Path) -> None:
    path = written(tmp_path, NETWORKS[name]())
    wanted = systolic.load_onnx(quantized(path))
    # The tool joins a MatMul and an Add behind it by two Reshapes first, which memories see.
    for on in ON[:2] if name == "attention" else ON:
        found = estimate(path, machine=on)
        assert found == estimate(wanted, machine=on) and found.macs
    assert summary(path).totals["macs"] == summary(wanted).totals["macs"]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_float_model_and_its_file_cost_the_same(name: str, tmp_path: Path) -> None:
    path = written(tmp_path, NETWORKS[name]())
    model = systolic.load_onnx(path)
    for on in ON:
        assert estimate(model, machine=on) == estimate(path, machine=on)
    found = summary(model)
    assert found.note == FLOATS and found.off_array is None and str(found).startswith(f"{FLOATS}\n")
    assert found.to_dict()["note"] == FLOATS and FLOATS in found.html()
    on = machine(8, 8)
    for work in (model, path):
        program = systolic.compile(work, machine=on, weights=False)
        assert time_program(program, on).stats == estimate(model, machine=on) and program.weights is None


def test_a_model_of_floats_still_runs_as_one(tmp_path: Path) -> None:
    """What is as if quantized has no values, and says so."""
    path = written(tmp_path, dense())
    model = systolic.load_onnx(path)
    x = np.ones((2, 20), np.float32)
    assert systolic.run(model, x, machine=machine(8, 8)).stats.macs == 0
    only = systolic.load_onnx(path, costs_only=True)
    message = f"has no values to run with: it was {FLOATS}; estimate, summary and sweeps take it"
    for use in (lambda: systolic.run(only, x), lambda: only.save(tmp_path / "a.zip"), lambda: systolic.save_onnx(only, tmp_path / "a.onnx")):
        with pytest.raises(ValueError, match=message):
            use()
    with pytest.raises(TypeError, match="costs_only must be"):
        systolic.load_onnx(path, costs_only=1)  # type: ignore[arg-type]


def test_what_needs_no_pretending_is_read_as_always(tmp_path: Path) -> None:
    example = systolic.load_example().model
    path = tmp_path / "digits.onnx"
    systolic.save_onnx(example, path)
    only = systolic.load_onnx(path, costs_only=True)
    assert only == example and only.note == "" and summary(path).note == "" and costed(example) is example
    assert summary(path).to_dict()["note"] is None


@pytest.mark.parametrize("how", ["external", "stripped"])
def test_without_the_data_of_weights(how: str, tmp_path: Path) -> None:
    whole = written(tmp_path, residual())
    model = onnx.load(whole)
    large = [tensor for tensor in model.graph.initializer if tensor.name and int(np.prod(tensor.dims)) > 100]
    if how == "external":
        onnx.save(model, tmp_path / "bare.onnx", save_as_external_data=True, location="weights.bin", size_threshold=400)
        (tmp_path / "weights.bin").unlink()
    else:
        for tensor in large:
            tensor.ClearField("raw_data")
        written(tmp_path, model, "bare.onnx")
    bare = tmp_path / "bare.onnx"
    with pytest.raises(ValueError, match="is not a valid ONNX model"):
        systolic.load_onnx(bare)
    for on in ON:
        assert estimate(bare, machine=on) == estimate(whole, machine=on)
    assert summary(bare).note == f"{FLOATS}; costed without the data of {len(large)} tensors, which is missing"
    (row,) = sweep(bare, ArrayConfig(8, 8))
    assert row.stats == estimate(whole, machine=ArrayConfig(8, 8)) and row.note == summary(bare).note


def test_a_quantized_model_without_the_data_of_weights(tmp_path: Path) -> None:
    example = systolic.load_example().model
    systolic.save_onnx(example, tmp_path / "digits.onnx")
    model = onnx.load(tmp_path / "digits.onnx")
    onnx.save(model, tmp_path / "bare.onnx", save_as_external_data=True, location="weights.bin", size_threshold=500)
    (tmp_path / "weights.bin").unlink()
    for on in ON:
        assert estimate(tmp_path / "bare.onnx", machine=on) == estimate(example, machine=on)
    assert summary(tmp_path / "bare.onnx").note.startswith("costed without the data of ")


def test_lists_of_products() -> None:
    gemms = [Gemm(20, 64, 64), Gemm(20, 16, 20, groups=4)]
    on = ArrayConfig(16, 8)
    each = [estimate(gemm, machine=on) for gemm in gemms]
    assert estimate(gemms, machine=on) == sum(each, Stats()) == estimate({"a": gemms[0], "b": gemms[1]}, machine=on)
    block = Workload("block", [("a", gemms[0], 3), ("b", gemms[1])])
    assert estimate(block, machine=on) == sum([*each, each[0], each[0]], Stats())
    assert estimate(block, machine=on, batch=5) == estimate([Gemm(100, 64, 64)] * 3 + [Gemm(100, 16, 20, groups=4)], machine=on)
    found = summary(block, machine=on, batch=2)
    assert found.note == LIST and [row["node"] for row in found.rows] == ["a", "a (2)", "a (3)", "b"]
    assert found.totals["cycles"] == estimate(block, machine=on, batch=2).cycles
    assert found.totals["macs"] == 2 * block.macs


@pytest.mark.parametrize("on", ON[2:])
def test_lists_of_products_on_machines_with_memories(on: Any) -> None:
    block = Workload("block", [("a", Gemm(20, 64, 30), 2), ("b", Gemm(20, 16, 20, groups=4))])
    program = systolic.compile(block, machine=on, batch=3)
    assert program.weights is None and list(program.outputs) == ["a", "a (2)", "b"]
    stats = estimate(block, machine=on, batch=3)
    assert time_program(program, on).stats == stats and stats.macs == 3 * block.macs
    (row,) = sweep(block, on, batch=3)
    assert row.stats == stats and row.note == LIST
    with pytest.raises(ValueError, match="no weight image"):
        systolic.run(program, {name: np.zeros(spec.shape, np.int8) for name, spec in program.inputs.items()}, machine=on)


def test_equal_products_share_their_zeros() -> None:
    fc, heads = Gemm(4, 64, 48), Gemm(4, 6, 5, groups=3)
    model = as_model(Workload("blocks", [("fc", fc, 3), ("wide", Gemm(9, 64, 48)), ("heads", heads, 2), ("tall", Gemm(4, 48, 64))]))
    assert len(model.nodes) == 7 and len({id(node.layer) for node in model.nodes}) == 3


def test_names_of_layers_are_told_apart() -> None:
    block = Workload("block", [("a", Gemm(2, 3, 4), 2), ("a (2)", Gemm(2, 3, 4)), ("a", Gemm(1, 1, 1))])
    assert [row["node"] for row in summary(block).rows] == ["a", "a (2)", "a (2) #2", "a #2"]


def test_files_of_products(tmp_path: Path) -> None:
    gemms = [("fc1", Gemm(1, 64, 32), 2), ("fc2", Gemm(1, 32, 10), 1)]
    layers = [{"name": name, **{k: v for k, v in gemm.to_dict().items() if k in "mkn"}, "count": count} for name, gemm, count in gemms]
    (tmp_path / "net.json").write_text(json.dumps({"layers": layers}))
    (tmp_path / "net.csv").write_text("Layer, M, N, K, Count\nfc1, 1, 32, 64, 2\nfc2, 1, 10, 32\n".replace(", Count", ""))
    pytest.importorskip("yaml")
    (tmp_path / "net.yaml").write_text("name: net\nlayers:\n  - {name: fc1, m: 1, k: 64, n: 32, count: 2}\n  - {name: fc2, m: 1, k: 32, n: 10}\n")
    for suffix in ("json", "csv", "yaml"):
        assert read_workload(tmp_path / f"net.{suffix}") == Workload("net", gemms)
        assert estimate(tmp_path / f"net.{suffix}") == estimate(Workload("net", gemms))
        assert summary(tmp_path / f"net.{suffix}").note == LIST
    for text, message in (
        ({"layer": []}, "a workload has no field 'layer'; did you mean 'layers'?"),
        ({"name": "a"}, "a workload needs layers"),
        ({"layers": [{"m": 1, "k": 2, "N": 3}]}, r"layers\[0\]: a layer has no field 'N'; did you mean 'n'"),
        ({"layers": [{"m": 1, "k": 2}]}, r"layers\[0\]: a layer needs m, k and n; n missing"),
        ({"layers": []}, "has no layers"),
    ):
        (tmp_path / "bad.json").write_text(json.dumps(text))
        with pytest.raises((ValueError, TypeError), match=message):
            estimate(tmp_path / "bad.json")


def test_floats_that_no_quantizer_takes_are_zeros_with_a_reason(tmp_path: Path) -> None:
    net = Network()
    y = net("MatMul", net("Cast", "x", to=TensorProto.DOUBLE), net.value(np.ones((4, 3))))
    path = written(tmp_path, net.model((2, 4), net("Cast", y, to=TensorProto.FLOAT)))
    found = summary(path)
    assert found.totals["macs"] == 0 and found.note == "" and "float64" in " ".join(found.reasons)
    with pytest.raises(ValueError, match="cannot be swept: no MAC runs on the array"):
        sweep(path, ArrayConfig(8, 8))


def test_rows_say_how_they_were_costed(tmp_path: Path) -> None:
    path = written(tmp_path, dense())
    out = tmp_path / "rows.csv"
    found = sweep([path, systolic.load_example().model], [ArrayConfig(8, 8), machine(8, 8)], out=out)
    assert [row.note for row in found] == [FLOATS, FLOATS, None, None]
    assert Sweep.read(out) == found and found.to_dicts()[0]["note"] == FLOATS
    assert (found[0] + found[2]).note == FLOATS
    assert str(found).splitlines()[-1] == f"{FLOATS} (net)" and FLOATS not in str(found[2:])


def test_the_command_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, dense())
    assert cli.main(["summary", str(path)]) == 0
    assert capsys.readouterr().out.startswith(f"{FLOATS}\n")
    (tmp_path / "net.csv").write_text("Layer, M, N, K,\nfc, 1, 1000, 2048,\n")
    assert cli.main(["summary", str(tmp_path / "net.csv"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["note"] == LIST


def test_every_zero_has_its_reason() -> None:
    found = summary([Gemm(4, 4, 4), Gemm(0, 4, 4)])
    assert found.rows[1]["macs"] == 0
    assert found.reasons == ["node '0 x 4 x 4' (QLinearMatMul) has 0 MACs: its product is empty"]
    assert found.reasons[0] in str(found) and found.to_dict()["reasons"] == found.reasons and "product is empty" in found.html()
    nothing = summary([Gemm(0, 4, 4)])
    assert nothing.totals["macs"] == 0 and nothing.reasons and nothing.reasons[0] in str(nothing)
