"""Float products in ONNX Runtime: the bits of the whole model there, and ours where it is not asked."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import systolic
from support import onnx_models as om
from support.onnx_models import F
from systolic import load_onnx
from systolic.frontend import from_onnx
from systolic.layers import FloatConv, FloatMatMul
from systolic.layers.host import session
from systolic.verifier.check import ModelCheck

pytest.importorskip("onnxruntime")

SEEDS = 60


def whole_outputs(path: Path, feeds: Any, *, threads: int = 1, level: str = "ENABLE_ALL") -> list[np.ndarray]:
    """ONNX Runtime's outputs of a file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{level}")
    for key in ("qdqisint8allowed", "disable_double_qdq_remover", "qdq_matmulnbits_accuracy_level"):
        options.add_session_config_entry(f"session.{key}", "1")
    made = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return made.run(None, feeds)


def in_a_graph(op: str, arguments: list[np.ndarray], constant: tuple[int, ...], **attributes: Any) -> om.Case:
    """A product between two operators; of any size but for kernels."""
    names = [f"i{i}" for i in range(len(arguments))]
    free = [i for i in range(len(arguments)) if i not in constant]
    nodes = [om.node("Neg", [f"x{i}"], names[i]) for i in free]
    nodes += [om.node(op, names, "p", name="product", **attributes), om.node("Neg", ["p"], "y")]
    inputs: dict[str, Any] = {
        f"x{i}": ("float32", arguments[i].shape if op == "Conv" and i else [f"d{i}{a}" for a in range(arguments[i].ndim)])
        for i in free
    }
    graph = om.model(nodes, inputs, ["y"], {names[i]: arguments[i] for i in constant}, opset=17)
    return om.typed(graph), {f"x{i}": arguments[i] for i in free}


def a_product(rng: np.random.Generator) -> tuple[str, list[np.ndarray], dict[str, Any]]:
    """A MatMul of matrices or stacks of them, a Gemm or a Conv of 1 to 3 axes."""

    def real(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(F)

    def one(*values: Any) -> Any:
        return values[rng.integers(len(values))]

    kind = one("matrices", "stack", "stacks", "vector", "Gemm", "Gemm", "Conv", "Conv")
    m, k, n = one(1, 1, 2, 7, 33), one(1, 3, 64, 129, 300, 512), one(1, 2, 17, 64, 300)
    if kind == "Gemm":
        turn = [bool(rng.integers(2)) for _ in range(2)]
        a, b = (real(*(s[::-1] if t else s)) for s, t in zip(((m, k), (k, n)), turn, strict=True))
        c = [real(*one((n,), (m, n), (1, n), (m, 1), (1,), ()))] if rng.integers(4) else []
        attributes = {"alpha": one(1.0, 0.5), "beta": one(1.0, 0.0, 2.0)}
        return "Gemm", [a, b, *c], {**attributes, "transA": int(turn[0]), "transB": int(turn[1])}
    if kind != "Conv":
        shapes = {"matrices": ((m, k), (k, n)), "stack": ((3, m, k), (k, n)), "vector": ((k,), (k, n))}
        return "MatMul", [real(*s) for s in shapes.get(kind, ((2, 3, m, k), (3, k, n)))], {}
    rank, groups, size = one(1, 2, 2, 2, 3), one(1, 1, 2, 4), one(1, 3, 5)
    icg, ocg, step, dilation = one(1, 3, 8, 16), one(1, 2, 8, 16), one(1, 2, 6), one(1, 1, 2)
    image = [12 - 6 * (rank == 3) + int(rng.integers(3)) + dilation * (size - 1) for _ in range(rank)]
    x, w = real(one(1, 2), icg * groups, *image), real(ocg * groups, icg, *[size] * rank)
    pads = one({"auto_pad": one("SAME_UPPER", "SAME_LOWER", "VALID")}, {"pads": [size // 2] * 2 * rank})
    attributes = {"group": groups, "strides": [step] * rank, "dilations": [dilation] * rank, **pads}
    return "Conv", [x, w, *([real(ocg * groups)] if rng.integers(2) else [])], attributes


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEEDS))
def test_products_have_the_bits_of_the_whole_model(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    op, arguments, attributes = a_product(rng)
    count = len(arguments)
    some = [(), (1,), tuple(range(1, count))] + ([(0,)] if op != "Conv" else [])
    constant = some[rng.integers(len(some))]
    graph, feeds = in_a_graph(op, arguments, constant, **attributes)
    path = om.save(graph, tmp_path)
    model = load_onnx(path)
    (node,) = (node for node in model.nodes if isinstance(node.layer, FloatMatMul | FloatConv))
    assert node.layer.runtime_constants == constant and node.layer.delegate == "ONNX Runtime"
    got = [systolic.run(model, feeds).outputs["y"] for _ in range(2)]
    close = systolic.run(load_onnx(path, float_products="exact"), feeds).outputs["y"]
    np.testing.assert_allclose(got[0], close, rtol=0, atol=1e-5 * max(1, np.abs(close).max()))
    if attributes.get("auto_pad", "VALID") != "VALID" and 2 in attributes["dilations"]:
        return  # ONNX Runtime refuses that
    for y in got:
        np.testing.assert_array_equal(y, whole_outputs(path, feeds)[0], strict=True)
    if 1 in constant and arguments[0].ndim < 5:  # packed: no sum depends on the number of threads
        np.testing.assert_array_equal(got[0], whole_outputs(path, feeds, threads=4)[0], strict=True)


X = np.random.default_rng(0).normal(size=(3, 700)).astype(F)
CODES = np.random.default_rng(1).integers(-9, 9, (700, 50)).astype(np.int8)


@pytest.mark.parametrize("budget", [1 << 26, 0])
def test_weights_computed_from_constants(budget: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folded at load, or computed in each run; for ONNX Runtime they are constant in any case."""
    monkeypatch.setattr(from_onnx, "_ROOM", budget)
    monkeypatch.setattr(from_onnx, "_GROWTH", 0)
    nodes = [om.node("Cast", ["c"], "f", to=1), om.node("Mul", ["f", "s"], "w"), om.node("MatMul", ["x", "w"], "y")]
    graph = om.model(nodes, {"x": ("float32", (3, 700))}, ["y"], {"c": CODES, "s": F(0.1)}, opset=17)
    path = om.save(om.typed(graph), tmp_path)
    model = load_onnx(path)
    assert len(model.nodes) == (1 if budget else 3) and model.nodes[-1].layer == FloatMatMul(runtime_constants=(1,))
    for _ in range(2):
        y = systolic.run(model, {"x": X}).outputs["y"]
        np.testing.assert_array_equal(y, whole_outputs(path, {"x": X})[0])
    assert ("_kept" in vars(model.nodes[-1].layer)) is bool(budget)
    # Without optimizations nothing is computed before a run.
    written = load_onnx(path, qdq="float")
    assert written.nodes[-1].layer == FloatMatMul(runtime_constants=())
    y = systolic.run(written, {"x": X}).outputs["y"]
    np.testing.assert_array_equal(y, whole_outputs(path, {"x": X}, level="DISABLE_ALL")[0])


def test_dequantized_weights_are_not_constant(tmp_path: Path) -> None:
    nodes = [om.node("DequantizeLinear", ["c", "s"], "w"), om.node("MatMul", ["x", "w"], "y")]
    graph = om.model(nodes, {"x": ("float32", (3, 700))}, ["y"], {"c": CODES, "s": F(0.1)}, opset=17)
    path = om.save(om.typed(graph), tmp_path)
    for qdq in ("integer", "float"):
        model = load_onnx(path, qdq=qdq)
        assert model.nodes[-1].layer == FloatMatMul(runtime_constants=())
    y = systolic.run(model, {"x": X}).outputs["y"]
    np.testing.assert_array_equal(y, whole_outputs(path, {"x": X}, level="DISABLE_ALL")[0])


def test_products_of_constants(tmp_path: Path) -> None:
    """ONNX Runtime packs nothing where it computes constants."""
    w = CODES.astype(F) / F(7)
    nodes = [om.node("MatMul", ["a", "w"], "p"), om.node("Add", ["x", "p"], "y")]
    graph = om.model(nodes, {"x": ("float32", (3, 50))}, ["y"], {"a": X, "w": w}, opset=17)
    path = om.save(om.typed(graph), tmp_path)
    model, zeros = load_onnx(path), np.zeros((3, 50), F)
    assert [node.layer.kind for node in model.nodes] == ["Add"]
    np.testing.assert_array_equal(systolic.run(model, {"x": zeros}).outputs["y"], whole_outputs(path, {"x": zeros})[0])


def test_without_onnxruntime_products_are_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, feeds = om.single("MatMul", [X, CODES.astype(F) / F(7)], opset=17)
    path = om.save(om.typed(graph), tmp_path)
    model, exact = load_onnx(path), load_onnx(path, float_products="exact")
    delegated = systolic.run(model, feeds).outputs["y"]
    want = systolic.run(exact, feeds).outputs["y"]
    assert exact.nodes[0].layer == FloatMatMul() and exact.nodes[0].layer.delegate is None
    assert not np.array_equal(delegated, want)
    model.save(tmp_path / "model.systolic")
    for missing in ("_onnxruntime", "_onnx"):
        with monkeypatch.context() as patch:
            patch.setattr(session, missing, lambda: None)
            loaded = systolic.Model.load(tmp_path / "model.systolic")
            assert loaded == model and loaded.nodes[0].layer.delegate is None
            np.testing.assert_array_equal(systolic.run(loaded, feeds).outputs["y"], want)
    np.testing.assert_array_equal(systolic.run(loaded, feeds).outputs["y"], delegated)


def test_files_of_ours_say_which_products_are_delegated(tmp_path: Path) -> None:
    w = np.random.default_rng(2).normal(size=(700, 300)).astype(F)
    kinds = [FloatMatMul(), FloatMatMul(runtime_constants=()), FloatMatMul(runtime_constants=(1,))]
    nodes = [systolic.Node(layer, ("x", "w"), f"y{i}") for i, layer in enumerate(kinds)]
    outputs = [node.output for node in nodes]
    model = systolic.Model(nodes, inputs={"x": ((3, 700), "float32")}, outputs=outputs, constants={"w": w})
    path = tmp_path / "model.onnx"
    systolic.save_onnx(model, path)
    assert load_onnx(path) == model
    got, again = systolic.run(model, X).outputs, systolic.run(load_onnx(path), X).outputs
    assert all(np.array_equal(got[name], again[name]) for name in outputs)
    assert len({value.tobytes() for value in got.values()}) == 3
    exact = load_onnx(path, float_products="exact")
    assert {node.layer.runtime_constants for node in exact.nodes} == {None}


def test_other_values_of_constants() -> None:
    """A session is kept for arrays that cannot change, and for those very arrays alone."""
    layer = FloatMatMul(runtime_constants=(1,))
    first, second = (np.random.default_rng(i).normal(size=(700, 50)).astype(F) for i in range(2))
    first.flags.writeable = False
    a, b = layer.apply(X, first), layer.apply(X, second)
    np.testing.assert_array_equal(layer.apply(X, first), a)
    np.testing.assert_allclose(a, X @ first, rtol=0, atol=1e-3)
    np.testing.assert_allclose(b, X @ second, rtol=0, atol=1e-3)
    second *= 2
    np.testing.assert_array_equal(layer.apply(X, second), 2 * b)
    assert layer.evaluate_constants(X, first).shape == a.shape
    np.testing.assert_array_equal(layer.apply(X, first), a)
    for other in (copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other == layer and "_kept" not in vars(other)
        np.testing.assert_array_equal(other.apply(X, first), a)


def test_one_layer_of_many_shapes() -> None:
    """A session is made for an operator with its padding, and takes any sizes."""
    w = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(F)
    w.flags.writeable = False
    layer = FloatConv(stride=2, padding="same", runtime_constants=(1,))
    for side in (8, 9, 8, 13, 20):
        x = np.random.default_rng(side).normal(size=(1, 3, side, side)).astype(F)
        want = FloatConv(stride=2, padding="same").apply(x, w)
        np.testing.assert_allclose(layer.apply(x, w), want, rtol=0, atol=1e-5)
    a, b = np.ones((2, 3, 4), F), np.ones((4, 5), F)
    layer = FloatMatMul(runtime_constants=())
    assert [layer.apply(x, b).shape for x in (a, a[0], a[0, 0])] == [(2, 3, 5), (3, 5), (5,)]


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32"])
def test_other_types_are_exact(dtype: str) -> None:
    a, b = (np.arange(6).reshape(s).astype(dtype) for s in ((2, 3), (3, 2)))
    layer = FloatMatMul(runtime_constants=(1,))
    np.testing.assert_array_equal(layer.apply(a, b), FloatMatMul().apply(a, b), strict=True)


def test_orders_of_bytes_and_memory() -> None:
    w = CODES.astype(F) / F(7)
    want = FloatMatMul(runtime_constants=(1,)).apply(X, w)
    for x, y in ((X.astype(">f4"), w), (np.asfortranarray(X), w), (X, w.astype(">f4")), (X, np.asfortranarray(w))):
        np.testing.assert_array_equal(FloatMatMul(runtime_constants=(1,)).apply(x, y), want, strict=True)
    empty = FloatMatMul(runtime_constants=(1,)).apply(X[:0], w)
    assert empty.shape == (0, 50) and empty.dtype == F


@pytest.mark.parametrize(
    ("value", "error"), [("1", TypeError), (1, TypeError), ((4,), ValueError), ((-1,), ValueError), ((0.5,), TypeError)]
)
def test_numbers_of_inputs_are_checked(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="runtime_constants"):
        FloatMatMul(runtime_constants=value)
    with pytest.raises(error, match="runtime_constants"):
        FloatConv(runtime_constants=value)


def test_which_products_is_a_choice_of_two(tmp_path: Path) -> None:
    path = om.save(om.typed(om.single("MatMul", [X, CODES.astype(F)])[0]), tmp_path)
    with pytest.raises(ValueError, match="float_products must be one of 'runtime', 'exact', not"):
        load_onnx(path, float_products="ours")


def test_verdicts(tmp_path: Path) -> None:
    """The exact product checks a delegated one within a tolerance; ONNX Runtime does not check itself."""
    w = CODES.astype(F) / F(7)
    nodes = [om.node("MatMul", ["x", "w"], "p", name="product"), om.node("Relu", ["p"], "y")]
    path = om.save(om.typed(om.model(nodes, {"x": ("float32", (3, 700))}, ["y"], {"w": w}, opset=17)), tmp_path)
    report = systolic.verify(path, X, mode="wavefront", node_by_node=True)
    assert report.passed and not report.not_checked and 0 < report.within < 1e-6
    report = systolic.verify(path, X, mode="wavefront", against="onnxruntime", node_by_node=True)
    assert report.passed
    assert [(node.node, node.verdict) for node in report.nodes[:1]] == [("product", "delegated, not checked")]
    # Where terms cancel, no part of the result bounds the difference, but the magnitudes of the terms do.
    x = np.tile(F([1e8, 1, -1e8, 3]), (3, 175))
    report = systolic.verify(path, x, mode="wavefront")
    assert report.passed and not report.not_checked


@pytest.mark.parametrize("layer", [FloatMatMul(alpha=-2.0, runtime_constants=(1,)), FloatConv(runtime_constants=())])
def test_a_wrong_delegated_product_is_found(layer: Any) -> None:
    shape = (3, 700) if isinstance(layer, FloatMatMul) else (1, 2, 20)
    x = np.tile(F([1e4, 1, -1e4, 3]), shape[-1] // 4 * shape[-2]).reshape(shape)
    w = np.random.default_rng(0).normal(size=(700, 3) if x.ndim == 2 else (2, 2, 5)).astype(F)
    y = layer.apply(x, w)
    node = systolic.Node(layer, ("x", "w"), "y", "y")
    for wrong, found in ((y, 0), (y.copy(), 1)):
        if found:
            wrong[0, 1] += 6400
        check = ModelCheck(systolic.presets.TPU_V1, "wavefront")
        check(node, [x, w], wrong)
        assert len(check.mismatches) == found and not check.not_checked
