"""Mappings of convolutions, of models and of single layers: costs, reports and refusals."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import systolic
from support.strategies import codes, raises
from systolic import ArrayConfig, Gemm, Model, Node, QuantParams
from systolic.engine.networks import run_layer
from systolic.layers import ArrayConv, Conv2d, ConvInteger, Dense, DepthwiseConv2d, DequantizedConv, Flatten
from systolic.tiling.mappings import MAPPINGS

EXAMPLE = systolic.load_example()
ARRAY = ArrayConfig(16, 16)
ONE = QuantParams(1.0)


@pytest.mark.parametrize("dataflow", ["weight_stationary", "output_stationary", "input_stationary"])
@pytest.mark.parametrize("mapping", MAPPINGS)
def test_the_example_network(mapping: str, dataflow: str) -> None:
    array = ArrayConfig(32, 32, dataflow=dataflow)
    x = EXAMPLE.images[:1]
    expected = systolic.run(EXAMPLE.model, x, machine=array, mode="wavefront")
    for mode in ("cycle", "wavefront"):
        run = systolic.run(EXAMPLE.model, x, machine=array, mode=mode, mapping=mapping)
        for name, output in expected.outputs.items():
            np.testing.assert_array_equal(run.outputs[name], output)
        assert run.stats == systolic.estimate(EXAMPLE.model, machine=array, mapping=mapping)
    found = systolic.summary(EXAMPLE.model, machine=array, mapping=mapping)
    assert found.totals["cycles"] == run.stats.cycles and found.totals["macs"] == run.stats.macs
    assert [node.gemm for node in found.nodes] == [layer.gemm for layer in run.layers]
    if mapping in ("pack", "best"):
        assert run.stats.cycles < expected.stats.cycles


def test_layers_have_mappings_of_their_own() -> None:
    names = {"depthwise_quant": "pack", "down_quant": "taps"}
    run = systolic.run(EXAMPLE.model, EXAMPLE.images[:1], machine=ARRAY, mode="wavefront", mapping=names)
    each = {layer.name: layer.gemm.mapping for layer in run.layers if layer.gemm}
    assert {name: value for name, value in each.items() if value != "im2col"} == names
    assert run.stats == systolic.estimate(EXAMPLE.model, machine=ARRAY, mapping=names)
    one = {name: systolic.estimate(EXAMPLE.model, machine=ARRAY, mapping=name).cycles for name in MAPPINGS}
    assert one["pack"] == one["best"] < one["im2col"] < one["taps"]
    assert one["im2col"] == systolic.estimate(EXAMPLE.model, machine=ARRAY).cycles


def test_reports_name_mappings_that_are_not_the_default() -> None:
    plain = systolic.run(EXAMPLE.model, EXAMPLE.images[:1], machine=ARRAY, mode="wavefront")
    mapped = systolic.run(
        EXAMPLE.model, EXAMPLE.images[:1], machine=ARRAY, mode="wavefront", mapping="pack"
    )
    summaries = (
        systolic.summary(EXAMPLE.model, machine=ARRAY),
        systolic.summary(EXAMPLE.model, machine=ARRAY, mapping="pack"),
    )
    for before, after in ((plain.report(), mapped.report()), summaries):
        assert all("mapping" not in row for row in before.rows) and "mapping" not in str(before.table())
        found = {row["node"]: row["mapping"] for row in after.rows}
        assert found.pop("depthwise_quant") == "pack" and set(found.values()) == {None}
        assert "mapping" in str(after.table()) and " pack " in str(after.table())
        keys = list(after.rows[0])
        assert keys[keys.index("groups") + 1] == "mapping"
    assert "mapping" in str(mapped.table()) and "mapping" not in str(plain.table())
    layer = json.loads(json.dumps(mapped.to_dict()))["layers"][2]
    assert layer["gemm"] == {"m": 64, "k": 9, "n": 1, "groups": 16, "pack": 16}
    assert Gemm(**layer["gemm"]) == mapped.layers[2].gemm


def test_lines_images_and_volumes() -> None:
    """Planes of a volume are channels: taps are those of the last two axes."""
    rng = np.random.default_rng(0)
    for size, kernel, taps in [((9,), (3,), 3), ((5, 6), (2, 3), 6), ((4, 5, 3), (2, 2, 3), 6)]:
        layer = ConvInteger(padding=1, groups=2)
        x, w = codes(rng, (2, 4, *size), "int8"), codes(rng, (6, 2, *kernel), "int8")
        inputs = {"x": (x.shape, "int8"), "w": (w.shape, "int8")}
        model = Model([Node(layer, ("x", "w"), "t0")], inputs=inputs)
        feeds = {"x": x, "w": w}
        expected = systolic.run(model, feeds, machine=ARRAY, mode="wavefront").outputs["t0"]
        for mapping in MAPPINGS:
            for mode in ("cycle", "wavefront"):
                run = systolic.run(model, feeds, machine=ARRAY, mapping=mapping, mode=mode)
                np.testing.assert_array_equal(run.outputs["t0"], expected)
                assert run.stats == systolic.estimate(model, machine=ARRAY, mapping=mapping)
            assert mapping != "taps" or run.layers[0].gemm.taps == taps


@pytest.mark.parametrize(("x_type", "w_bits"), [("uint16", 8), ("int16", 16), ("uint8", 4)])
def test_codes_of_other_widths(x_type: str, w_bits: int) -> None:
    rng = np.random.default_rng(0)
    layer = DequantizedConv(w_bits=w_bits, groups=3, padding=1, stride=(1, 2))
    w_type = "int16" if w_bits == 16 else "int8"
    x = rng.integers(0, 200, (1, 6, 5, 6)).astype(x_type)
    w = rng.integers(-8, 8, (6, 2, 2, 3)).astype(w_type)
    one = np.float32(1)
    inputs = [x, one, np.array(3, x_type), w, one, np.array(1, w_type)]
    array = ArrayConfig(16, 7, psum_bits=64)
    expected, *_ = run_layer(layer, inputs, array, "wavefront")
    for mapping in MAPPINGS:
        for mode in ("cycle", "wavefront"):
            output, gemms, stats, *_ = run_layer(layer, inputs, array, mode, mapping=mapping)
            np.testing.assert_array_equal(output, expected)
            assert stats.cycles == systolic.estimate(gemms[0], machine=array).cycles


def test_progress_and_checks_know_mappings() -> None:
    seen: list[tuple[int, int]] = []
    run = systolic.run(
        EXAMPLE.model, EXAMPLE.images[:1], machine=ARRAY, mapping="best",
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert seen[-1] == (run.stats.cycles, run.stats.cycles) and {total for _, total in seen} == {run.stats.cycles}


def test_gemms_with_groups_are_packed() -> None:
    gemm = Gemm(64, 9, 1, groups=16)
    packed = Gemm(64, 9, 1, groups=16, pack=16)
    for mapping in ("pack", "best"):
        assert systolic.estimate(gemm, machine=ARRAY, mapping=mapping) == systolic.estimate(packed, machine=ARRAY)
    assert systolic.estimate(gemm, machine=ARRAY, mapping="im2col") == systolic.estimate(gemm, machine=ARRAY)


DEPTHWISE = DepthwiseConv2d(np.ones((8, 1, 3, 3), np.int8), x=ONE, w=ONE, y=ONE)
NET = Model(
    [
        Conv2d(np.ones((8, 3, 3, 3), np.int8), x=ONE, w=ONE, y=ONE), DEPTHWISE, Flatten(),
        Dense(np.ones((8, 2), np.int8), x=ONE, w=ONE, y=ONE),
    ],
    inputs={"x": ((1, 3, 5, 5), "int8")},
)  # fmt: skip
X = np.ones((1, 3, 5, 5), np.int8)
ONE_GROUP = (
    "mapping 'pack' puts several groups of a grouped or depthwise convolution into one tile, and here there is "
    "one group; use 'im2col', 'taps' or 'best'"
)


@pytest.mark.parametrize(
    ("mapping", "error", "message"),
    [
        ("tap", ValueError, "mapping must be one of 'im2col', 'taps', 'pack', 'best', not 'tap'"),
        (3, ValueError, "mapping must be one of 'im2col', 'taps', 'pack', 'best', not 3"),
        ({"t0": "tap"}, ValueError, "node 't0': mapping must be one of 'im2col', 'taps', 'pack', 'best', not 'tap'"),
        ({"t0": "pack"}, ValueError, f"node 't0': {ONE_GROUP}"),
        ({"t3": "taps"}, ValueError, "mapping names the node 't3', but QLinearMatMul is no convolution on the array; convolutions: t0, t1"),
        ({"t2": "taps"}, ValueError, "mapping names the node 't2', but Flatten is no convolution on the array; convolutions: t0, t1"),
        ({"t11": "taps"}, ValueError, "mapping names a node 't11' that the model does not have; did you mean 't1'?"),
        ({"stem": "taps"}, ValueError, "mapping names a node 'stem' that the model does not have; convolutions: t0, t1"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_anything_runs(
    mapping: Any, error: type[Exception], message: str
) -> None:
    for call in (
        lambda: systolic.run(NET, X, machine=ARRAY, mapping=mapping),
        lambda: systolic.estimate(NET, machine=ARRAY, mapping=mapping),
        lambda: systolic.summary(NET, machine=ARRAY, mapping=mapping),
    ):
        with raises(error, message):
            call()


@pytest.mark.parametrize("mapping", ["taps", "pack"])
def test_sums_of_floats_keep_their_order(mapping: str) -> None:
    pytest.importorskip("ml_dtypes")
    inputs = {"x": ((1, 4, 6, 6), "float32"), "w": ((4, 2, 3, 3), "float32")}
    model = Model([Node(ArrayConv(compute="bfloat16", groups=2), ("x", "w"), "y")], inputs=inputs)
    feeds = {name: np.ones(shape, np.float32) for name, (shape, _) in inputs.items()}
    message = (
        f"node 'y': mapping {mapping!r} changes the order of additions, and with it the bits of sums of bfloat16 "
        "and bfloat16; use 'im2col', or integers whose sums wrap"
    )
    for call in (
        lambda name: systolic.run(model, feeds, machine=ARRAY, mapping=name).stats,
        lambda name: systolic.estimate(model, machine=ARRAY, mapping=name),
        lambda name: sum(node.stats for node in systolic.summary(model, machine=ARRAY, mapping=name).nodes),
    ):
        with raises(ValueError, message):
            call(mapping)
        assert call("best") == call("im2col") == call(None)


def test_what_does_not_fit_a_product_is_refused() -> None:
    w = np.ones((8, 3, 3, 3), np.int8)
    with raises(ValueError, ONE_GROUP):
        systolic.conv2d(X, w, mapping="pack")
    with raises(ValueError, "mapping must be one of 'im2col', 'taps', 'pack', 'best', not 'im2row'"):
        systolic.conv2d(X, w, mapping="im2row")
    with raises(ValueError, ONE_GROUP):
        systolic.estimate(Gemm(1, 2, 3), mapping="pack")
    with raises(
        ValueError,
        "mapping 'taps' is of a convolution's kernel, which a Gemm does not have; pass a Model, or Gemm(..., "
        "taps=9) for a kernel of 9 taps",
    ):
        systolic.estimate(Gemm(1, 18, 3), mapping="taps")
    for sizes, message in [
        ({"taps": 4}, "taps must divide k, but taps=4 and k=18"),
        ({"groups": 4, "pack": 3}, "pack must divide groups, but pack=3 and groups=4"),
        ({"taps": 0}, "taps must be a positive integer, not 0"),
    ]:
        with raises(ValueError, message):
            Gemm(1, 18, 3, **sizes)
