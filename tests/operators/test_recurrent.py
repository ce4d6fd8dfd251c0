"""DynamicQuantizeLSTM: integer products for each time step, with ONNX Runtime's bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import systolic
from support import onnx_models as om
from systolic import ArrayConfig, Gemm, Model, Node
from systolic.layers import DynamicQuantizeLSTM
from systolic.layers.recurrent import DIRECTIONS

ARRAY = systolic.ArrayConfig(256, 256)
F = np.float32
# Activations whose every bit is known; the others use exp.
EXACT = ("Sigmoid", "Tanh", "Relu", "Affine", "LeakyRelu", "ThresholdedRelu", "HardSigmoid", "Softsign")
ROUNDED = ("ScaledTanh", "Elu", "Softplus")
OPTIONAL = ("b", "sequence_lens", "initial_h", "initial_c", "p")
NAMES = ("x", "w", "r", *OPTIONAL, "w_scale", "w_zero_point", "r_scale", "r_zero_point")


def drawn(seed: int, activations: tuple[str, ...] = EXACT) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What an LSTM reads, by name, and its attributes."""
    rng = np.random.default_rng(seed)
    direction = DIRECTIONS[seed % 3]
    count = 2 if direction == "bidirectional" else 1
    time, batch, size = (int(n) for n in rng.integers(1, 7, 3))
    hidden = int(rng.choice([1, 3, 4, 17, 40]))
    # Constant int8 weights become uint8 there, so that no product saturates without VNNI.
    dtype = str(rng.choice(["int8", "uint8"]))
    limits = np.iinfo(dtype)

    def codes(*shape: int) -> np.ndarray:
        return rng.integers(limits.min, limits.max, shape, endpoint=True).astype(dtype)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(F)

    found = {
        "x": normal(time, batch, size) * F(rng.choice([0.1, 1, 5])),
        "w": codes(count, size, 4 * hidden), "r": codes(count, hidden, 4 * hidden),
        "b": normal(count, 8 * hidden), "sequence_lens": rng.integers(0, time + 1, batch).astype(np.int32),
        "initial_h": normal(count, batch, hidden), "initial_c": normal(count, batch, hidden),
        "p": normal(count, 3 * hidden),
    }  # fmt: skip
    for name in "wr":
        channels = (count, 4 * hidden) if rng.random() < 0.4 else (count,)
        zeros = np.broadcast_to(codes(1), channels) if len(channels) > 1 else codes(*channels)
        found[f"{name}_scale"] = rng.uniform(0.001, 0.02, channels).astype(F)
        found[f"{name}_zero_point"] = zeros * np.array(len(channels) == 1 or dtype == "uint8", dtype)
    attributes: dict[str, Any] = {"hidden_size": hidden, "direction": direction}
    if rng.random() < 0.5 or activations is not EXACT:
        attributes["activations"] = [str(name) for name in rng.choice(activations, 3 * count)]
        for name in ("activation_alpha", "activation_beta"):
            if rng.random() < 0.7:
                attributes[name] = rng.random(rng.integers(1, 5)).astype(F).tolist()
    if rng.random() < 0.4:
        attributes["clip"] = float(F(rng.uniform(0.1, 1)))
    if rng.random() < 0.3:
        attributes["input_forget"] = 1
    return {name: found[name] for name in NAMES if name not in OPTIONAL or rng.random() < 0.5}, attributes


def lstm(
    found: dict[str, np.ndarray], attributes: dict[str, Any], moving: tuple[str, ...] = ("x",)
) -> om.Case:
    """A model of the operator, its weights constants."""
    names = [name if name in found else "" for name in NAMES]
    outputs = ["y", "y_h", "y_c"]
    proto = om.node("com.microsoft.DynamicQuantizeLSTM", names, outputs, name="lstm", **attributes)
    inputs = {name: (found[name].dtype.name, found[name].shape) for name in moving}
    constants = {name: value for name, value in found.items() if name not in moving}
    return om.model([proto], inputs, outputs, constants), {name: found[name] for name in moving}


def theirs(path: Path, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """ONNX Runtime's outputs, with a thread for each sequence and without int16 that saturates."""
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 8, 4
    options.add_session_config_entry("session.x64quantprecision", "1")
    return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, feeds)


@pytest.mark.parametrize("seed", range(24))
@pytest.mark.slow
def test_equals_onnxruntime(seed: int, tmp_path: Path) -> None:
    graph, feeds = lstm(*drawn(seed))
    path = om.save(om.typed(graph), tmp_path)
    model = systolic.load_onnx(path)
    run = systolic.run(model, feeds, machine=ARRAY, mode="wavefront")
    for output, expected in zip(run.outputs.values(), theirs(path, feeds), strict=True):
        np.testing.assert_array_equal(output, expected)
    shapes = {name: value.shape for name, value in feeds.items()}
    assert systolic.estimate(model, machine=ARRAY, shapes=shapes) == run.stats
    (layer,), (node,) = run.layers, model.nodes
    time, directions = feeds["x"].shape[0], 2 if node.layer.direction == "bidirectional" else 1
    assert layer.products == directions * (1 + time) and layer.stats.macs > 0


@pytest.mark.parametrize("seed", range(12))
def test_other_activations_are_near(seed: int, tmp_path: Path) -> None:
    found, attributes = drawn(seed, ("Sigmoid", *ROUNDED))
    found["x"] = found["x"][:1]  # a rounding may change a code, and that the steps that follow
    if "sequence_lens" in found:
        found["sequence_lens"] = np.ones_like(found["sequence_lens"])
    graph, feeds = lstm(found, attributes)
    path = om.save(om.typed(graph), tmp_path)
    run = systolic.run(systolic.load_onnx(path), feeds, mode="wavefront")
    for output, expected in zip(run.outputs.values(), theirs(path, feeds), strict=True):
        np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)


def test_computed_parameters_equal_constants(tmp_path: Path) -> None:
    found, attributes = drawn(5)
    results = []
    for moving in (("x",), tuple(found)):
        graph, feeds = lstm(found, attributes, moving)
        model = systolic.load_onnx(om.save(om.typed(graph), tmp_path))
        results.append(systolic.run(model, feeds, mode="wavefront").outputs)
    for name in results[0]:
        np.testing.assert_array_equal(results[0][name], results[1][name])


@pytest.mark.parametrize("seed", range(6))
def test_modes_agree_and_the_model_comes_back(seed: int, tmp_path: Path) -> None:
    graph, feeds = lstm(*drawn(seed))
    model = systolic.load_onnx(om.save(om.typed(graph), tmp_path))
    array = ArrayConfig(5, 7)
    runs = [systolic.run(model, feeds, machine=array, mode=mode) for mode in ("wavefront", "cycle")]
    for name, output in runs[0].outputs.items():
        np.testing.assert_array_equal(output, runs[1].outputs[name])
    assert runs[0].stats == runs[1].stats
    systolic.save_onnx(model, tmp_path / "again.onnx")
    assert systolic.load_onnx(tmp_path / "again.onnx") == model
    model.save(tmp_path / "m")
    assert Model.load(tmp_path / "m") == model


@pytest.mark.parametrize("outputs", (["y"], ["", "h"], ["", "", "c"], ["y", "", "c"]))
def test_outputs_may_be_left_out(outputs: list[str], tmp_path: Path) -> None:
    found, attributes = drawn(0)
    graph, feeds = lstm(found, attributes)
    whole = systolic.run(systolic.load_onnx(om.save(om.typed(graph), tmp_path)), feeds, mode="wavefront")
    del graph.graph.node[0].output[:], graph.graph.output[:]
    graph.graph.node[0].output.extend(outputs)
    graph.graph.output.extend(om.value(name, "float32", None) for name in outputs if name)
    run = systolic.run(systolic.load_onnx(om.save(graph, tmp_path)), feeds, mode="wavefront")
    for place, name in enumerate(outputs):
        if name:
            np.testing.assert_array_equal(run.outputs[name], list(whole.outputs.values())[place])


def test_sequences_of_wide_layers_share_a_scale(tmp_path: Path) -> None:
    """ONNX Runtime then splits the batch among no threads; elsewhere a batch equals its sequences alone."""
    rng = np.random.default_rng(0)
    for hidden, shared in ((256, False), (257, True)):
        layer = DynamicQuantizeLSTM(hidden)
        weights = [rng.integers(-128, 128, (1, k, 4 * hidden)).astype(np.int8) for k in (2, hidden)]
        constants = [*weights, F([0.01]), np.int8([0]), F([0.01]), np.int8([0])]
        x = rng.normal(size=(3, 4, 2)).astype(F)
        # The input's scale is that of all sequences: make it the same for each alone.
        x[0, :, 0], x[0, :, 1] = 4, -4
        names = ("w", "r", "ws", "wz", "rs", "rz")
        model = Model(
            [Node(layer, ("x", *names), ("y", "", ""))],
            inputs={"x": ((None, None, 2), "float32")},
            constants=dict(zip(names, constants, strict=True)),
        )
        together = systolic.run(model, x, mode="wavefront").outputs["y"]
        alone = [systolic.run(model, x[:, i : i + 1], mode="wavefront").outputs["y"] for i in range(4)]
        assert np.array_equal(together, np.concatenate(alone, axis=2)) is not shared


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": F([[1]])}, r"x must be \(time, batch, input\), not \(1, 1\)"),
        ({"w": np.zeros((1, 2, 12), np.int8)}, r"w must be \(1, 3, 12\), not \(1, 2, 12\)"),
        ({"w_scale": F([1, 2])}, r"w_scale must be \(1,\) or \(1, 12\), not \(2,\)"),
        ({"sequence_lens": np.int32([1, 6])}, r"sequence_lens must hold 0 to 5, not \[1, 6\]"),
        (
            {"r_zero_point": np.ones((1, 12), np.int8)},
            "r_zero_point must hold the same number for all columns",
        ),
    ],
)
def test_what_does_not_fit_is_refused(changed: dict[str, np.ndarray], message: str) -> None:
    reads: dict[str, np.ndarray] = {
        "x": np.zeros((5, 2, 3), F), "w": np.zeros((1, 3, 12), np.int8), "r": np.zeros((1, 3, 12), np.int8),
        "sequence_lens": np.int32([5, 2]), "w_scale": F([1]), "w_zero_point": np.int8([0]), "r_scale": F([1]),
        "r_zero_point": np.int8([0]), **changed,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        list(DynamicQuantizeLSTM(3, given=("sequence_lens",)).steps(*reads.values()))


def test_fields_that_do_not_fit_are_refused() -> None:
    for fields, message in (
        ({"direction": "both"}, "direction must be"),
        ({"activations": ["Tanh"]}, "activations must name 3 for direction 'forward', not 1"),
        ({"activations": ["Tanh", "Tanh", "Sine"]}, "not 'Sine'"),
        ({"clip": 0.0}, "clip must be above 0"),
        ({"given": ["p", "b"]}, "in this order"),
    ):
        with pytest.raises(ValueError, match=message):
            DynamicQuantizeLSTM(3, **fields)
    two = DynamicQuantizeLSTM(1, direction="bidirectional")
    with pytest.raises(ValueError, match="w_zero_point must be .2, 4. like w_scale"):
        two.output_shape((5, 2, 3), (2, 3, 4), (2, 1, 4), (2, 4), (2,), (2,), (2,))
    assert two.products((5, 2, 3), (2, 3, 4), (2, 1, 4), (2,), (2,), (2,), (2,))[6] == Gemm(10, 3, 4)


@pytest.mark.parametrize(("branch", "seed"), ((True, 3), (True, 9), (False, 3)))
def test_in_a_subgraph(branch: bool, seed: int, tmp_path: Path) -> None:
    """The branch of an If is ONNX Runtime's as a whole; each sequence has a scale of its own there, too."""
    found, attributes = drawn(seed)
    found["w"], found["r"] = found["w"] // 2, found["r"] // 2  # no sum saturates without VNNI
    graph, feeds = lstm(found, attributes)
    then = graph.graph
    other = onnx.GraphProto(
        name="other",
        node=[om.node("Identity", ["x" if n == "y" else "zero"], f"other_{n}") for n in ("y", "y_h", "y_c")],
        output=[om.value(f"other_{n}", "float32", None) for n in ("y", "y_h", "y_c")],
    )
    path = om.save(om.typed(graph), tmp_path)
    wanted = theirs(path, feeds)
    inner = onnx.GraphProto(name="then", node=then.node, output=then.output)
    outputs = ["a", "b", "c"]
    choice = om.node("If", ["which"], outputs, name="choice", then_branch=inner, else_branch=other)
    constants = {name: value for name, value in found.items() if name != "x"} | {"zero": F(0)}
    inputs: dict[str, Any] = {"x": ("float32", found["x"].shape), "which": ("bool", ())}
    whole = om.model([choice], inputs, outputs, constants)
    whole.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    run = systolic.run(
        systolic.load_onnx(om.save(om.typed(whole), tmp_path)), {"x": found["x"], "which": np.array(branch)},
        mode="wavefront",
    )  # fmt: skip
    expected = wanted if branch else [found["x"], F(0), F(0)]
    for output, want in zip(run.outputs.values(), expected, strict=True):
        np.testing.assert_allclose(output, want, rtol=1e-5, atol=1e-6)


def test_verify_compares_every_step(tmp_path: Path) -> None:
    """With ONNX Runtime too, whatever this machine's number of threads and instruction set."""
    pytest.importorskip("onnxruntime")
    graph, feeds = lstm(*drawn(15))
    assert feeds["x"].shape[1] > 2
    path = om.save(om.typed(graph), tmp_path)
    for against in ("reference", "onnxruntime"):
        report = systolic.verify(path, feeds, against=against, node_by_node=True, tolerance=0.0)
        assert report.passed and not report.not_checked, report
        assert {node.verdict for node in report.nodes} == {"equal"}


def test_drawn_inputs_fit(tmp_path: Path) -> None:
    found, attributes = drawn(3)
    found["sequence_lens"] = np.full(found["x"].shape[1], 2, np.int32)
    found = {name: found[name] for name in NAMES if name in found}
    graph, _ = lstm(found, attributes, ("x", "sequence_lens"))
    assert systolic.verify(om.save(om.typed(graph), tmp_path)).passed


@pytest.mark.parametrize("per_channel", (False, True))
@pytest.mark.parametrize("dtype", ("QInt8", "QUInt8"))
def test_what_quantize_dynamic_writes(dtype: str, per_channel: bool, tmp_path: Path) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")
    rng = np.random.default_rng(0)
    shapes = {"w": (2, 32, 6), "r": (2, 32, 8), "b": (2, 64), "m": (8, 5)}
    constants = {name: rng.normal(size=shape).astype(F) for name, shape in shapes.items()}
    nodes = [
        om.node("LSTM", ["x", "w", "r", "b"], ["y", "h"], hidden_size=8, direction="bidirectional"),
        om.node("MatMul", ["h", "m"], "z"),
    ]
    graph = om.typed(om.model(nodes, {"x": ("float32", ("t", 1, 6))}, ["z"], constants, opset=17))
    path = tmp_path / "quantized.onnx"
    kind = getattr(quantization.QuantType, dtype)
    quantization.quantize_dynamic(om.save(graph, tmp_path), path, per_channel=per_channel, weight_type=kind)
    x = rng.normal(size=(7, 1, 6)).astype(F)
    run = systolic.run(systolic.load_onnx(path), x, mode="wavefront")
    assert [layer.products for layer in run.layers if layer.products] == [16, 1]
    np.testing.assert_array_equal(run.outputs["z"], theirs(path, {"x": x})[0])
