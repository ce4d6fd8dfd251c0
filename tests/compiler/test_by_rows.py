"""Layers that do not fit into the unified buffer run by rows, or by the host: the same bits, and nothing silent."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import systolic
from support.compiled import (
    bordered,
    check,
    conv,
    count,
    flat,
    integers,
    integers_inputs,
    loaded,
    machine,
    residual,
)
from support.random_models import random_model
from support.strategies import codes, dtypes, examples, seeds
from support.zoo import zoo, zoo_inputs
from systolic import Model, Node, Program, QuantParams, presets
from systolic.compiler import RuntimeShape
from systolic.layers import (
    Dense,
    MaxPool,
    QLinearAdd,
    QLinearConcat,
    QLinearConv,
    QLinearGlobalAveragePool,
    QLinearSigmoid,
)

Q = QuantParams(0.5, 3)
TOO_LARGE = "rows of the unified buffer at once"


def kinds(program: Program) -> list[tuple[str, str]]:
    """Names and kinds of the sections, each once, in the order in which they begin."""
    return list(dict.fromkeys((section.name, section.kind) for section in program.sections))


def used(program: Program) -> int:
    """How many rows of the unified buffer there must be."""
    return max(s.first + s.rows for s in program.symbols.values() if s.memory == "ub")


def work(program: Program) -> int:
    """Useful MACs of all sections."""
    return sum(section.macs or 0 for section in program.sections)


def test_a_convolution_by_rows() -> None:
    """Groups of patches, of which as many are there at once as fit, and the next layer has its border again."""
    rng = np.random.default_rng(0)
    model = Model(
        [conv(rng, 2, 8, (3, 3), "int8", padding=1), conv(rng, 8, 4, (3, 3), "int8", padding=1, stride=3)],
        inputs={"x": ((None, 2, 9, 9), "int8")},
    )
    x = {"x": codes(rng, (2, 2, 9, 9), "int8")}
    whole = check(model, x, machine())
    assert kinds(whole) == [("t0", "QLinearConv"), ("t1", "QLinearConv")]
    # 81 rows of 3 blocks of patches and one of results; then 11 x 11 rows with their border, and 9 of results.
    cut = check(model, x, machine(8, 8, 140))
    assert kinds(cut) == [("t0", "QLinearConv by rows"), ("t1", "Copy"), ("t1", "QLinearConv")]
    assert used(cut) <= 140 and work(cut) == work(whole) == 2 * (81 * 18 * 8 + 9 * 72 * 4)
    # Of 162 rows in halves, 21 are the largest part whose 4 blocks fit.
    sections = [section for section in cut.sections if section.name == "t0"]
    streamed = [item.rows for s in sections for item in cut[s.first : s.stop] if hasattr(item, "accumulate")]
    assert sum(streamed) == 3 * 162 and max(streamed) == 21
    both = check(model, x, machine(8, 8, 40))
    assert kinds(both) == [("t0", "QLinearConv by rows"), ("t1", "QLinearConv by rows")]
    run = systolic.run(both, x, machine=machine(8, 8, 40))
    assert [layer.layer for layer in run.layers] == ["QLinearConv by rows"] * 2


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("mapping", ["taps", "im2col", None])
def test_networks_in_buffers_of_any_size(mapping: str | None) -> None:
    """Additions, pools, a concatenation and products: from all in one piece to some rows at a time."""
    rng = np.random.default_rng(1)
    model = residual(rng)
    x = {"x": codes(rng, (2, 2, 6, 6), "int8")}
    found: set[tuple[str, str]] = set()
    for ub in (217, 110, 45, 15):
        modes = ("cycle",) if ub == 45 else ("wavefront",)
        program = check(model, x, machine(8, 8, ub), modes=modes, mapping=mapping)
        assert used(program) <= ub
        found |= {(name, kind) for name, kind in kinds(program) if " by " in kind}
    assert found >= {
        ("s0", "QLinearConv by rows"), ("b0", "QLinearConv by rows"), ("s1", "QLinearAdd by rows"),
        ("pooled", "MaxPool by host"),
    }  # fmt: skip
    # 12 channels under 9 taps: 14 blocks of a row of patches, and one of its results.
    with pytest.raises(ValueError, match=r"layer 'b0' \(QLinearConv\) needs 15 rows .*\('b0 patches' 14, 'b0' 1\), and .* 14;"):
        systolic.compile(model, machine=machine(8, 8, 14), batch=2, mapping=mapping)


def test_element_wise_layers_by_rows() -> None:
    """They share regions where no host is between them, and cut an image that was laid out with a border."""
    rng = np.random.default_rng(2)
    sums = QuantParams(1.0, -2)
    model = Model(
        [
            Node(QLinearSigmoid(Q, Q), ("x",), "a"),
            Node(QLinearAdd(Q, Q, sums), ("a", "x"), "b"),
            Node(QLinearConcat((Q, sums), Q, axis=1), ("a", "b"), "c"),
            Node(conv(rng, 10, 6, (2, 2), "int8", stride=4, padding=((1, 0), (0, 1))), ("c",), "y"),
            Node(QLinearGlobalAveragePool(Q, Q), ("b",), "mean"),
        ],
        inputs={"x": ((None, 5, 7, 8), "int8")},
        outputs=["y", "mean"],
    )
    x = {"x": codes(rng, (2, 5, 7, 8), "int8")}
    whole = check(model, x, machine())
    assert count(whole, "HostCall") == 0
    program = check(model, x, machine(8, 8, 60))
    assert kinds(program) == [
        ("a", "QLinearSigmoid by rows"), ("b", "QLinearAdd by rows"), ("c", "QLinearConcat by rows"),
        ("y", "QLinearConv by rows"), ("mean", "QLinearGlobalAveragePool"),
    ]  # fmt: skip
    assert count(program, "HostCall") == 1  # the patches
    tiny = check(model, x, machine(8, 8, 11))
    assert kinds(tiny) == [*kinds(program)[:-1], ("mean", "QLinearGlobalAveragePool by host")]


def test_a_border_that_came_first() -> None:
    """An addition by rows reads images that a convolution before it reads with a border: the host copies them."""
    rng = np.random.default_rng(3)
    model = Model(
        [
            Node(conv(rng, 4, 16, (3, 3), "int8", padding=3, stride=2), ("x",), "wide"),
            Node(QLinearAdd(Q, Q, Q), ("x", "z"), "y"),
        ],
        inputs={"x": ((None, 4, 8, 8), "int8"), "z": ((None, 4, 8, 8), "int8")},
        outputs=["wide", "y"],
    )
    feeds = {name: codes(rng, (2, 4, 8, 8), "int8") for name in ("x", "z")}
    assert kinds(check(model, feeds, machine(8, 8, 4096), mapping="taps"))[1:] == [("y", "QLinearAdd")]
    cut = check(model, feeds, machine(8, 8, 290), mapping="taps")
    assert kinds(cut) == [("wide", "QLinearConv"), ("y", "Copy"), ("y", "QLinearAdd by rows")]


@pytest.mark.slow
def test_additions_of_rows_and_of_images() -> None:
    """One addend was made by rows, the other one has a border: the host gives the first one the same border."""
    rng = np.random.default_rng(4)
    model = bordered(rng)
    feeds = {name: codes(rng, (2, 4, 6, 6), "int8") for name in ("x", "u", "z")}
    found = set()
    for ub in (45, 90, 150, 200, 250):
        found |= set(kinds(check(model, feeds, machine(8, 8, ub), modes=("wavefront",), mapping="taps")))
    assert found >= {
        ("rows", "QLinearConv by rows"), ("sum", "Copy"), ("sum", "QLinearAdd"), ("sum", "QLinearAdd by rows"),
    }  # fmt: skip


@pytest.mark.slow
def test_results_of_four_bytes() -> None:
    rng = np.random.default_rng(5)
    model, feeds = integers(rng), integers_inputs(rng)
    whole = [("y", "MatMulInteger"), ("z", "ConvInteger")]
    assert kinds(check(model, feeds, machine())) == whole
    assert kinds(check(model, feeds, machine(8, 8, 20))) == [whole[0], ("z", "ConvInteger by rows")]


@pytest.mark.slow
def test_the_zoo() -> None:
    for ub in (9, 20, 50):
        check(zoo(), zoo_inputs(3), machine(8, 8, ub), modes=("wavefront",) if ub == 50 else ("wavefront", "cycle"))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_flattened_images(layout: str) -> None:
    rng = np.random.default_rng(6)
    model = flat(rng, layout)
    shape = (3, *next(iter(model.inputs.values())).shape[1:])
    x = {"x": codes(rng, shape, "int8")}
    program = check(model, x, machine(8, 8, 48))
    assert ("y", "QLinearMatMul by rows") in kinds(program)
    with pytest.raises(ValueError, match=r"layer 'y' \(QLinearMatMul\) needs 31 rows .*\('c' 30, 'y' 1\)"):
        systolic.compile(model, machine=machine(8, 8, 30), batch=3)


def test_tokens() -> None:
    """A matrix for each of a batch of one: its rows are cut, and no host lays them out."""
    rng = np.random.default_rng(7)
    layer = Dense(codes(rng, (12, 20), "int8"), x=Q, w=QuantParams(0.1), y=Q)
    model = Model([layer, QLinearSigmoid(Q, Q)], inputs={"x": ((1, 50, 12), "int8")})
    x = {"x": codes(rng, (1, 50, 12), "int8")}
    program = check(model, x, machine(8, 8, 70))
    assert kinds(program) == [("t0", "QLinearMatMul by rows"), ("t1", "QLinearSigmoid by rows")]
    assert count(program, "HostCall") == 0
    # Both in one region, 7 rows at a time, of 2 blocks and twice 3.
    assert loaded(program) == 8 * 6 and used(program) == 7 * 6


def test_volumes() -> None:
    rng = np.random.default_rng(8)
    layer = QLinearConv(codes(rng, (5, 2, 2, 3, 2), "int8"), x=Q, w=QuantParams(0.1), y=Q, padding=1)
    model = Model([layer], inputs={"x": ((None, 2, 3, 4, 3), "int8")})
    x = {"x": codes(rng, (2, 2, 3, 4, 3), "int8")}
    program = check(model, x, machine(8, 8, 40))
    assert kinds(program) == [("t0", "QLinearConv by rows")]


def test_lines() -> None:
    rng = np.random.default_rng(12)
    layer = QLinearConv(codes(rng, (5, 9, 3), "int8"), x=Q, w=QuantParams(0.1), y=Q, padding=1, stride=2)
    model = Model([layer, QLinearSigmoid(Q, Q)], inputs={"x": ((None, 9, 31), "int8")})
    program = check(model, {"x": codes(rng, (2, 9, 31), "int8")}, machine(8, 8, 20))
    assert kinds(program) == [("t0", "QLinearConv by rows"), ("t1", "QLinearSigmoid by rows")]


def test_reuse_leaves_rows_as_they_are() -> None:
    rng = np.random.default_rng(9)
    model = Model([conv(rng, 8, 8, (3, 3), "int8", padding=1)], inputs={"x": ((None, 8, 6, 6), "int8")})
    x = {"x": codes(rng, (2, 8, 6, 6), "int8")}
    on = machine(8, 8, 80)
    assert check(model, x, on, reuse=1).instructions == check(model, x, on).instructions


@pytest.mark.slow
@pytest.mark.exhaustive
@examples(25)
@given(st.data(), seeds, dtypes)
def test_convolutions(data: st.DataObject, seed: int, dtype: str) -> None:
    """Of any geometry; an error if, and only if, a row of patches and one of results do not fit."""
    rng, draw = np.random.default_rng(seed), data.draw
    groups = draw(st.sampled_from([1, 1, 2, 3, 6]))
    ic, oc = draw(st.sampled_from([6, 12])), groups * draw(st.integers(1, 7))
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    last = draw(st.booleans())
    layout: dict[str, Any] = {"layout": "NHWC" if last else "NCHW"}
    size, batch = draw(st.tuples(st.integers(3, 9), st.integers(3, 9))), draw(st.integers(1, 3))
    layers = [
        conv(rng, 3, ic, (1, 1), dtype, **layout),
        conv(
            rng, ic, oc, kernel, dtype, groups=groups, stride=draw(st.sampled_from([1, 2, 3])),
            dilation=draw(st.sampled_from([1, 2])),
            padding=draw(st.sampled_from([0, 1, ((2, 0), (1, 3)), "same", "same_lower"])), **layout,
        ),
        conv(rng, oc, 5, (1, 1), dtype, **layout),
    ]  # fmt: skip
    shape = (batch, *size, 3) if last else (batch, 3, *size)
    model = Model(layers, inputs={"x": (shape, dtype)})
    try:
        model.infer_shapes({"x": shape})
    except ValueError:
        assume(False)  # the kernel is larger than the image
    rows, cols = draw(st.sampled_from([(8, 8), (4, 6), (6, 4), (2, 16)]))
    ub = draw(st.integers(8, 80))
    on = machine(rows, cols, ub, accumulator_rows=draw(st.sampled_from([2, 9, 64, 4096])))
    width = min(rows, cols)
    by_rows = [
        -(-channels // width) + -(-outputs // width)
        for channels, outputs in ((3, ic), (ic * kernel[0] * kernel[1], oc), (oc, 5))
    ]
    fits = max(by_rows) <= ub
    for mapping in ("taps", None):
        try:
            check(model, {"x": codes(rng, shape, dtype)}, on, mapping=mapping)
        except ValueError as error:
            assert TOO_LARGE in str(error) and not fits


@pytest.mark.slow
@examples(30)
@given(seeds, st.integers(6, 100), st.sampled_from([None, "taps", "im2col"]), st.booleans())
def test_random_models(seed: int, ub: int, mapping: str | None, reuse: bool) -> None:
    model, feeds = random_model(seed)
    on = machine(8, 8, ub)
    try:
        check(model, feeds, on, modes=("wavefront",), mapping=mapping, reuse=reuse)
    except RuntimeShape:
        assume(False)
    except ValueError as error:
        if TOO_LARGE in str(error):
            # Of a product of which one row does not fit; blocks of 8 channels, results over 4 rows of memory.
            found = re.search(r"\(((?:QLinear)?(?:Conv|MatMul)\w*)\) needs (\d+) rows", str(error))
            assert found and int(found[2]) > ub
            return
        with pytest.raises(ValueError):
            systolic.run(model, feeds, machine=on.array, mode="wavefront")


@pytest.mark.slow
def test_a_real_size() -> None:
    """A first convolution of 640 x 640 images on the TPU v1: 102,400 rows of results, and 98,304 in the buffer."""
    rng = np.random.default_rng(10)
    model = Model(
        [
            Node(conv(rng, 3, 32, (3, 3), "int8", padding=1, stride=2), ("x",), "stem"),
            Node(MaxPool((2, 2), stride=2), ("stem",), "pooled"),
            Node(conv(rng, 32, 8, (3, 3), "int8", padding=1, stride=4), ("pooled",), "y"),
        ],
        inputs={"x": ((None, 3, 640, 640), "int8")},
    )
    x = {"x": codes(rng, (1, 3, 640, 640), "int8")}
    program = check(model, x, presets.TPU_V1, modes=("wavefront",))
    assert kinds(program) == [("stem", "QLinearConv by rows"), ("pooled", "MaxPool by host"), ("y", "QLinearConv")]
    run = systolic.run(model, x, mode="wavefront", machine=presets.TPU_V1)
    assert [(layer.name, layer.layer) for layer in run.layers] == kinds(program)
    assert run.layers[0].limit == "host link" and run.layers[0].gemm == systolic.Gemm(102_400, 27, 32)
    assert [row["on"] for row in run.report().rows] == ["array", "host", "array"]


def test_what_fits_is_not_cut() -> None:
    """The least buffer that held a layer before holds it still, without a call of the host."""
    rng = np.random.default_rng(11)
    layer = conv(rng, 8, 8, (3, 3), "int8", padding=1)
    model = Model([layer], inputs={"x": ((None, 8, 6, 6), "int8")})
    x = {"x": codes(rng, (2, 8, 6, 6), "int8")}
    assert count(check(model, x, machine(8, 8, 100)), "HostCall") == 0
    assert count(check(model, x, machine(8, 8, 99)), "HostCall") == 1
