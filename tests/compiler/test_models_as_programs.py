"""Programs give the bits of the models that they were compiled from, in both modes, on machines of all kinds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import systolic
from support.compiled import check, conv, count, flat, loaded, machine, residual
from support.random_models import random_model
from support.strategies import codes, dtypes, examples, raises, seeds
from support.toy_layers import Halves
from support.zoo import zoo, zoo_inputs
from systolic import Model, Node, Program, QuantParams
from systolic.compiler import emission
from systolic.layers import Concat, Dense, Reshape, ShapeOf

ONE = QuantParams(1.0)

MACHINES = {
    "square": machine(16, 16),
    "wide": machine(4, 6, 1500, accumulator_rows=64),
    "tall": machine(6, 4, 1500, accumulator_rows=37),
    "single-buffered": machine(8, 8, 1024, double_buffered=False, fifo_tiles=1, issue_cycles=7),
    "slow": machine(8, 8, 1024, weight_latency_cycles=30, host_latency_cycles=9, activation_latency_cycles=5, lanes=3),
    "unlimited accumulators": machine(8, 8, 1024, accumulator_rows=None),
    "long rows": machine(8, 8, 1024, row_bytes=20),
    "uint8 at first": machine(8, 8, 1024, activation_dtype="uint8", weight_dtype="uint8"),
}


SLOW = [pytest.param(name, marks=pytest.mark.exhaustive) if name in ("wide", "tall") else name for name in MACHINES]


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_the_example(name: str) -> None:
    example = systolic.load_example()
    on = MACHINES[name]
    program = check(example.model, {"pixels": example.images[:2]}, on)
    # Quantize, dequantize, and patches of one channel if those are few.
    assert count(program, "HostCall") == 2 + (on.array.rows > 4)


@pytest.mark.parametrize("name", MACHINES)
def test_the_zoo(name: str) -> None:
    check(zoo(), zoo_inputs(3), MACHINES[name])


@pytest.mark.slow
@examples(25)
@given(seeds, st.sampled_from(sorted(MACHINES)), st.sampled_from([None, "taps", "im2col"]), st.booleans())
def test_random_models(seed: int, name: str, mapping: str | None, reuse: bool) -> None:
    model, feeds = random_model(seed)
    try:
        check(model, feeds, MACHINES[name], mapping=mapping, reuse=reuse)
    except ValueError as error:
        # Some shapes depend on runtime values, and some models do not run at all.
        assume("cannot compile node" not in str(error))
        with pytest.raises(ValueError):
            systolic.run(model, feeds, machine=MACHINES[name].array, mode="wavefront")


@pytest.mark.slow
@examples(15)
@given(st.data(), seeds, dtypes)
def test_convolutions(data: st.DataObject, seed: int, dtype: str) -> None:
    """Of any geometry, by taps and by patches, with borders that other layers write and read."""
    rng, draw = np.random.default_rng(seed), data.draw
    groups = draw(st.sampled_from([1, 1, 2, 3, 6]))
    ic = draw(st.sampled_from([6, 12]))
    oc = groups * draw(st.integers(1, 7))
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    size = draw(st.tuples(st.integers(3, 7), st.integers(3, 7)))
    last = draw(st.booleans())
    layers = [
        conv(rng, 3, ic, (1, 1), dtype, layout="NHWC" if last else "NCHW"),
        conv(
            rng, ic, oc, kernel, dtype, groups=groups, stride=draw(st.sampled_from([1, 2, 3])),
            dilation=draw(st.sampled_from([1, 2])),
            padding=draw(st.sampled_from([0, 1, ((2, 0), (1, 3)), "same", "same_lower"])),
            layout="NHWC" if last else "NCHW",
        ),
    ]  # fmt: skip
    batch = draw(st.integers(1, 3))
    shape = (batch, *size, 3) if last else (batch, 3, *size)
    model = Model(layers, inputs={"x": (shape, dtype)})
    try:
        model.infer_shapes({"x": shape})
    except ValueError:
        assume(False)  # the kernel is larger than the image
    rows, cols = draw(st.sampled_from([(8, 8), (4, 6), (6, 4), (2, 16)]))
    on = machine(rows, cols, draw(st.sampled_from([8192, 600])), accumulator_rows=draw(st.sampled_from([2, 9, 64, 4096])))
    for mapping in ("taps", "im2col", None):
        try:
            check(model, {"x": codes(rng, shape, dtype)}, on, mapping=mapping)
        except ValueError as error:
            assume("rows of the unified buffer at once" not in str(error))
            raise


def loads_of(program: Program, name: str) -> int:
    """How many tiles a layer loads into the array."""
    sections = [section for section in program.sections if section.name == name]
    return sum(getattr(item, "new_weights", False) for s in sections for item in program[s.first : s.stop])


def test_what_does_not_fit_is_cut_along_the_batch() -> None:
    rng = np.random.default_rng(1)
    model = residual(rng)
    x = {"x": codes(rng, (5, 2, 6, 6), "int8")}
    whole = check(model, x, machine(8, 8, 4096))
    cut = check(model, x, machine(8, 8, 512))
    assert not count(whole, "Spill") and not count(cut, "Spill")
    loads = {name: loads_of(cut, name) / loads_of(whole, name) for name in ("s0", "a0", "b0", "a1", "b1", "y")}
    # Weights are loaded once for each group of images: of one for early layers, of more for later, smaller ones.
    assert loads["s0"] == 5 > loads["y"] >= 1
    assert list(loads.values()) == sorted(loads.values(), reverse=True)


def test_what_cannot_be_cut_is_spilled() -> None:
    rng = np.random.default_rng(2)
    model = residual(rng)
    x = {"x": codes(rng, (1, 2, 6, 6), "int8")}
    most = check(model, x, machine(8, 8, 4096))
    needed = max(s.first + s.rows for s in most.symbols.values() if s.memory == "ub")
    spilled = check(model, x, machine(8, 8, needed - 1))
    assert count(most, "Spill") == 0 < count(spilled, "Spill")
    assert loaded(most) == loaded(spilled)
    names = {section.name for section in spilled.sections if section.kind == "Spill"}
    assert names <= {name.removesuffix(" (host)") for name in spilled.symbols}


def test_batches_by_the_reuse_of_weights() -> None:
    """Early layers of many rows take fewer images at once than later ones of few."""
    rng = np.random.default_rng(3)
    model = Model(
        [
            conv(rng, 8, 8, (1, 1), "int8"),
            conv(rng, 8, 8, (1, 1), "int8", stride=2),
            conv(rng, 8, 8, (1, 1), "int8", stride=2),
        ],
        inputs={"x": ((None, 8, 8, 8), "int8")},
    )
    x = {"x": codes(rng, (8, 8, 8, 8), "int8")}
    program = check(model, x, machine(8, 8), reuse=64, mapping="taps")
    # 64, 16 and 4 rows of an image: groups of 1, 4 and (16 are wanted) all 8 images.
    assert loaded(program) == 8 + 2 + 1
    assert loaded(check(model, x, machine(8, 8), reuse=1, mapping="taps")) == 3 * 8
    assert loaded(check(model, x, machine(8, 8), mapping="taps")) == 3
    # A tile of 64 bytes takes 45 cycles at 1 GB/s and 700 MHz.
    by_rule = check(model, x, machine(8, 8), reuse=True, mapping="taps")
    assert loaded(by_rule) == loaded(check(model, x, machine(8, 8), reuse=45, mapping="taps")) == 8 + 3 + 1


def test_the_cheaper_order_of_tiles() -> None:
    """Two chunks share a tile where weights are slow; they do not where a tile is loaded in no time."""
    rng = np.random.default_rng(4)
    layer = Dense(codes(rng, (16, 16), "int8"), x=QuantParams(1.0), w=QuantParams(0.1), y=QuantParams(1.0))
    model = Model([layer], inputs={"x": ((None, 16), "int8")})
    x = {"x": codes(rng, (64, 16), "int8")}
    slow = machine(8, 8, accumulator_rows=32, weight_bytes_per_second=10**8)
    fast = machine(8, 8, accumulator_rows=32, weight_bytes_per_second=10**12)
    assert loaded(check(model, x, slow)) == 4 * 2
    assert loaded(check(model, x, fast)) == 4 * 4
    assert loaded(check(model, x, machine(8, 8, accumulator_rows=128))) == 4


@pytest.mark.slow
@examples(40)
@given(st.data(), seeds)
def test_no_other_order_is_much_cheaper(data: st.DataObject, seed: int) -> None:
    """Programs of both orders, timed: the chosen one takes at most 5 percent more cycles than the other."""
    draw = data.draw
    side = draw(st.sampled_from([4, 8, 16]))
    k, n = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    accumulators = draw(st.sampled_from([8, 16, 32, 64, 128]))
    batch = draw(st.integers(accumulators // 2 + 1, 4 * accumulators))
    on = machine(
        side, side, 2**16, accumulator_rows=accumulators, host_bytes_per_second=10**13,
        weight_bytes_per_second=int(10 ** draw(st.floats(7.5, 10.5))), fifo_tiles=draw(st.sampled_from([1, 2, 4])),
        lanes=draw(st.sampled_from([None, side // 2])), double_buffered=draw(st.booleans()),
    )  # fmt: skip
    layer = Dense(np.zeros((side * k, side * n), np.int8), x=ONE, w=ONE, y=ONE)
    model = Model([layer], inputs={"x": ((None, side * k), "int8")})
    found = {}
    for share in (None, 1, 2):
        with pytest.MonkeyPatch.context() as patch:
            if share is not None:
                patch.setattr(emission, "shares", lambda *_, share=share: share)
            found[share] = systolic.estimate(model, machine=on, batch=batch).cycles
    assert found[None] <= 1.05 * min(found[1], found[2])


def test_what_is_not_known_runs_on_the_host() -> None:
    """Two tensors multiplied, and each such layer is named once."""
    q = QuantParams(0.5)
    model = Model(
        [Node(systolic.layers.QLinearMatMul(x=q, w=q, y=q), ("a", "b"), "y", "product")],
        inputs={"a": ((None, 4), "int8"), "b": ((4, 3), "int8")},
    )
    rng = np.random.default_rng(5)
    program = check(model, {"a": codes(rng, (2, 4), "int8"), "b": codes(rng, (4, 3), "int8")}, machine())
    assert [(s.name, s.kind, s.stop - s.first) for s in program.sections] == [("product", "QLinearMatMul", 1)]
    assert count(program, "HostCall") == 1 == len(program)


def test_groups_skip_tiles_without_weights() -> None:
    """A depthwise convolution of 16 channels is a diagonal: two blocks of 8, nine taps, no others."""
    rng = np.random.default_rng(6)
    model = Model([conv(rng, 16, 16, (3, 3), "int8", groups=16)], inputs={"x": ((1, 16, 5, 5), "int8")})
    program = check(model, {"x": codes(rng, (1, 16, 5, 5), "int8")}, machine(), mapping="taps")
    assert len(program.weights) == loaded(program) == 2 * 9
    assert program.sections[0].macs == 16 * 9 * 9 and program.sections[0].weight_bytes == 16 * 9


def test_without_weights() -> None:
    """What a program is timed by stays: instructions, functions, sections and where tensors lie."""
    example = systolic.load_example()
    whole = systolic.compile(example.model, machine=MACHINES["square"], batch=2)
    bare = systolic.compile(example.model, machine=MACHINES["square"], batch=2, weights=False)
    assert whole.weights is not None and bare.weights is None
    assert replace(whole, weights=None) == bare
    assert systolic.estimate(bare, machine=MACHINES["square"]) == systolic.estimate(whole, machine=MACHINES["square"])
    with raises(TypeError, "weights must be True or False, not int 1"):
        systolic.compile(example.model, machine=MACHINES["square"], weights=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("on", [machine(8, 8), machine(4, 6), machine(8, 8, 130)], ids=["square", "wide", "few rows"])
def test_products_of_flattened_images(layout: str, on: Any) -> None:
    """They read each pixel by a tap; who else wants the images as rows gets them from the host."""
    rng = np.random.default_rng(7)
    model = flat(rng, layout)
    shape = (3, *next(iter(model.inputs.values())).shape[1:])
    x = {"x": codes(rng, shape, "int8")}
    program = check(model, x, on)
    assert count(program, "HostCall") == 0
    width = min(on.array.rows, on.array.cols)
    folds = 6 * 4 * -(-10 // width) * -(-7 // width)
    assert sum(s.stop - s.first for s in program.sections if s.name == "y") > folds
    both = check(flat(np.random.default_rng(7), layout, outputs=("a", "b", "c", "y")), x, on)
    assert count(both, "HostCall") == 1


def test_images_flattened_by_a_shape_that_is_read() -> None:
    """As exporters write ``view(x.size(0), -1)``: the host lays out the rows, and reads the shape, too."""
    rng = np.random.default_rng(0)
    nodes = [
        Node(conv(rng, 3, 4, (3, 3), "int8"), "x", "a"),
        Node(ShapeOf(end=1), "a", "batch"),
        Node(Concat(0), ("batch", "rest"), "shape"),
        Node(Reshape(), ("a", "shape"), "rows"),
    ]
    model = Model(nodes, inputs={"x": ((None, 3, 6, 5), "int8")}, constants={"rest": np.array([-1])})
    check(model, {"x": codes(rng, (2, 3, 6, 5), "int8")}, MACHINES["square"])


def test_programs_are_the_same_each_time() -> None:
    """Wherever the tensors of a call of the host lie among the objects of this process."""
    nodes = [Node(Halves(), f"x{n}", (f"left{n}", f"right{n}")) for n in range(6)]
    names = [name for node in nodes for name in node.outputs]
    model = Model(nodes, inputs={f"x{n}": ((n + 1, 4), "int8") for n in range(6)}, outputs=names)
    programs = [systolic.compile(model, machine=machine()) for _ in range(8)]
    assert all(program == programs[0] for program in programs)
    assert len({tuple(program.symbols.items()) for program in programs}) == 1
