"""Networks of float32 in narrower formats: bits of the oracle in both modes, costs, differences from float32."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import systolic
from support.planted import planted
from support.strategies import raises
from systolic import ArrayConfig, Model, Node, engine
from systolic.dataflows import DATAFLOWS
from systolic.engine.networks import run_layer
from systolic.layers import ArrayConv, ArrayMatMul, Flatten, Relu
from systolic.layers.float_products import COMPUTE
from systolic.machine import cycle as accumulators
from systolic.machine import epilogue, in_order, operands
from systolic.reference import expected_output
from systolic.reference.oracle.rounded import nearest

F = np.float32
SMALL = ArrayConfig(7, 5)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(F)


def network(compute: str = "bfloat16") -> Model:
    """Two products with a Relu between."""
    nodes = [
        Node(ArrayConv(compute, padding=1, stride=2), ("x", "w", "b"), "conv"),
        Node(Relu(), "conv", "relu"),
        Node(Flatten(), "relu", "flat"),
        Node(ArrayMatMul(compute), ("flat", "m", "c"), "y"),
    ]
    constants = {"w": normal(4, 2, 3, 3, seed=1), "b": normal(4, seed=2), "m": normal(64, 10, seed=3), "c": normal(10, seed=4)}
    return Model(nodes, inputs={"x": ((None, 2, 8, 8), "float32")}, constants=constants)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_products_are_the_oracles(data: st.DataObject) -> None:
    """Any sizes, dataflow and format, values of all magnitudes, infinities and NaN."""
    draw = data.draw
    compute = draw(st.sampled_from(COMPUTE))
    array = ArrayConfig(draw(st.integers(1, 6)), draw(st.integers(1, 6)), dataflow=draw(st.sampled_from([*DATAFLOWS])))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    sizes = st.integers(1, 9)
    if draw(st.booleans()):
        m, k, n = draw(sizes), draw(sizes), draw(sizes)
        options: dict[str, Any] = {"transpose_a": draw(st.booleans()), "transpose_b": draw(st.booleans())}
        shapes = [(k, m) if options["transpose_a"] else (m, k), (n, k) if options["transpose_b"] else (k, n)]
        if draw(st.booleans()):
            options |= {"alpha": 0.3, "beta": draw(st.sampled_from([0.0, 1.0, 0.7]))}
            shapes.append(draw(st.sampled_from([(n,), (m, 1), (1, n), (m, n), ()])))
        layer: Any = ArrayMatMul(compute, **options)
    else:
        groups, rank = draw(st.integers(1, 2)), draw(st.integers(1, 3))
        kernel = [draw(st.integers(1, 2)) for _ in range(rank)]
        shapes = [(2, 2 * groups, *[draw(st.integers(2, 4)) for _ in range(rank)]), (2 * groups, 2, *kernel)]
        shapes += [(2 * groups,)] if draw(st.booleans()) else []
        layer = ArrayConv(compute, stride=draw(st.integers(1, 2)), padding=draw(st.integers(0, 1)), groups=groups)
    inputs = [(rng.normal(size=shape) * 2.0 ** rng.integers(-20, 20, shape)).astype(F) for shape in shapes]
    if draw(st.booleans()):
        for values in inputs:
            values[rng.random(values.shape) < 0.05] = draw(st.sampled_from([np.inf, -np.inf, np.nan, -0.0, 3e38, 1e-45]))
    expected = expected_output(layer, inputs, array)
    for mode in engine.MODES:
        work = run_layer(layer, inputs, array, mode)
        got, stats = work.output, work.stats
        assert got.dtype == expected.dtype and got.shape == expected.shape == layer.output_shape(*shapes)
        np.testing.assert_array_equal(got, expected)
        types = layer.operand_types(*["float32"] * len(inputs))
        assert stats == systolic.estimate(layer.products(*shapes), machine=array.with_types(*types))


def test_the_order_of_additions_matters() -> None:
    """2^24 + 1 + 1 rounds to 2^24 one by one, and to 2^24 + 2 where the ones meet first, in another tile."""
    x, w = F([[2.0**12, 1, 1, 0]]), F([[2.0**12], [1], [1], [0]])
    sums = {rows: run_layer(ArrayMatMul("bfloat16"), [x, w], ArrayConfig(rows, 2), "cycle")[0].item() for rows in (1, 2, 4)}
    assert sums == {1: 2.0**24, 2: 2.0**24, 4: 2.0**24}
    x, w = F([[2.0**12, 0, 1, 1]]), F([[2.0**12], [0], [1], [1]])
    sums = {rows: run_layer(ArrayMatMul("bfloat16"), [x, w], ArrayConfig(rows, 2), "cycle")[0].item() for rows in (1, 2, 4)}
    assert sums == {1: 2.0**24, 2: 2.0**24 + 2, 4: 2.0**24}


@pytest.mark.parametrize("compute", COMPUTE)
def test_the_oracles_rounding_is_that_of_ml_dtypes(compute: str) -> None:
    from systolic.formats import dtype_of

    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 1 << 16, dtype=np.uint64).astype(np.uint32).view(F)
    edges = [0, -0.0, np.inf, np.nan, 464, 465, 448, 65519, 65520, 61439, 61440, 61441, 2.0**-9, 2.0**-10, 3 * 2.0**-10]
    values = np.concatenate([bits, rng.normal(size=1 << 14).astype(F), F(edges), -F(edges)])
    with np.errstate(all="ignore"):
        expected = values.astype(dtype_of(compute)).astype(np.float64)
        got = nearest(values, compute)
    np.testing.assert_array_equal(got, expected)
    known = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(got[known]), np.signbit(expected[known]))


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_estimates_and_reports(dataflow: str) -> None:
    model, x, array = network(), normal(3, 2, 8, 8), ArrayConfig(7, 5, dataflow=dataflow)
    runs = [systolic.run(model, x, machine=array, mode=mode) for mode in engine.MODES]
    np.testing.assert_array_equal(runs[0].outputs["y"], runs[1].outputs["y"])
    assert runs[0].layers == runs[1].layers
    assert runs[0].stats == systolic.estimate(model, machine=array, batch=3)
    summary = systolic.summary(model, machine=array, batch=3)
    for row, layer in zip(summary.rows, runs[0].layers, strict=True):
        assert (row["weight_bytes"] or 0) == layer.stats.weight_bytes
    if dataflow == "weight_stationary":  # each weight once, in 2 bytes
        assert runs[0].stats.weight_bytes == 2 * (4 * 18 + 64 * 10)
    on_array = [layer for layer in runs[0].layers if layer.gemm is not None]
    points = systolic.analysis.roofline(model, array, batch=3).points
    assert [p.macs for p in points[:2]] == [layer.stats.macs for layer in on_array]
    assert [p.intensity for p in points[:2]] == [layer.stats.macs / layer.stats.weight_bytes for layer in on_array]


def test_a_run_says_how_far_it_is_from_float32() -> None:
    model, x = network(), normal(3, 2, 8, 8)
    seen: dict[str, tuple[list[np.ndarray], np.ndarray]] = {}
    run = systolic.run(
        model, x, machine=SMALL, mode="wavefront", observe=lambda node, read, out: seen.update({node.name: (read, out)})
    )
    rows = {row["node"]: row for row in run.report().rows}
    for name in ("conv", "y"):
        read, got = seen[name]
        layer: Any = next(node.layer for node in model.nodes if node.name == name)
        gap = np.abs(layer.float32._exact([*read], got.shape, "float64") - got)
        assert 1e-4 < rows[name]["mean_difference"] < rows[name]["largest_difference"] < 0.2
        assert rows[name]["largest_difference"] == pytest.approx(gap.max(), rel=1e-3)
        assert rows[name]["mean_difference"] == pytest.approx(gap.mean(), rel=1e-3)
    assert rows["relu"]["largest_difference"] is None
    assert "largest difference" in str(run.table()) and "mean difference" in str(run.report().table())
    assert json.loads(json.dumps(run.to_dict()))["layers"][0]["largest_difference"] == rows["conv"]["largest_difference"]


def test_what_is_beyond_a_format_is_infinitely_far() -> None:
    model = Model([Node(ArrayMatMul("float16"), ("x", "w"), "y")], inputs={"x": ((1, 1), "float32")}, constants={"w": F([[1]])})
    run = systolic.run(model, F([[70000]]), machine=SMALL)
    assert run.outputs["y"].item() == np.inf and run.layers[0].largest_difference == np.inf
    assert json.dumps(run.to_dict(), allow_nan=False).count('"inf"') == 2
    run = systolic.run(model, F([[np.inf]]), machine=SMALL)
    assert run.layers[0].largest_difference == 0


def test_machines_with_memories_run_it_layer_by_layer() -> None:
    model, x = network(), normal(1, 2, 8, 8)
    message = (
        "cannot compile node 'conv' \\(ArrayConv\\): its product is of bfloat16 x bfloat16, and programs take int8 and "
        "uint8; .*Its layers now use the array alone"
    )
    with pytest.warns(engine.LayerByLayerWarning, match=message) as warned:
        run = systolic.run(model, x, mode="wavefront")
    assert warned[0].filename == __file__ and run.timeline is None
    with pytest.warns(engine.LayerByLayerWarning, match=message) as warned:
        assert systolic.estimate(model) == run.stats
    assert warned[0].filename == __file__
    with pytest.raises(ValueError, match=message.partition("; ")[0]):
        systolic.compile(model)


def test_verify_checks_every_bit() -> None:
    model, x = network(), normal(2, 2, 8, 8)
    report = systolic.verify(model, x, machine=SMALL)
    assert report.passed and report.checked == {"layer": 4} and report.within == 0


BUGS: dict[str, tuple[Any, str, str, dict[str, str]]] = {
    "an epilogue without the bias": (
        epilogue, "        if e.float_bias is not None:\n            sums +=", "        if False:\n            sums +=",
        {"cycle": "finish", "wavefront": "finish"},
    ),
    "patches one column off": (
        operands, "_fill(x, matrix, x.kernel, x.before, first + k_start, m_start)",
        "_fill(x, matrix, x.kernel, x.before, first + max(k_start - 1, 0), m_start)",
        {"cycle": "im2col"},
    ),
    "tiles that overwrite each other": (
        accumulators, "first=first", "first=True", {"cycle": "accumulators"},
    ),
    "no tiles": (
        in_order, "sizes_of(gemm, config).k_step if numbers.ordered else gemm.k", "gemm.k",
        {"wavefront": "wavefront product"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BUGS)
def test_a_wrong_bit_is_found(name: str) -> None:
    module, old, new, stages = BUGS[name]
    model, x = network(), normal(2, 2, 8, 8)
    with planted(module, old, new):
        for mode, stage in stages.items():
            report = systolic.verify(model, x, machine=SMALL, mode=mode)
            assert [m.stage for m in report.mismatches][:1] == [stage], str(report)


def test_against_onnxruntime_is_information(tmp_path: Any) -> None:
    pytest.importorskip("onnxruntime")
    path = tmp_path / "m.onnx"
    systolic.save_onnx(network(), path)
    report = systolic.verify(path, normal(2, 2, 8, 8), against="onnxruntime", machine=SMALL, node_by_node=True)
    assert report.passed, str(report)
    assert {node.tensor: node.verdict for node in report.nodes}["y"] == "in bfloat16"
    assert any("output 'y' depends on products in bfloat16, not in float32: it is up to" in note for note in report.notes)


def test_a_probe_sees_the_registers() -> None:
    model, x = network(), normal(1, 2, 8, 8)
    run = systolic.run(model, x, machine=SMALL, trace=True)
    assert run.trace is not None and run.trace["weight"].dtype.name == "bfloat16"
    with raises(ValueError, "no layer 'z' runs on the array; those that do are conv, y"):
        systolic.run(model, x, machine=SMALL, trace=systolic.Trace(layer="z"))
