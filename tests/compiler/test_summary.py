"""Counts from a summary of the layers equal those of the program, instruction by instruction, in every field."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from support.compiled import bordered, conv, flat, integers, machine, residual
from support.planted import planted
from support.random_models import random_model
from support.strategies import examples, seeds
from systolic import MachineConfig, Model, Node, QuantParams, Stats
from systolic.compiler import Programs, RuntimeShape, allocation, program, summary
from systolic.layers import Conv2d, MaxPool, QLinearAdd, QLinearConcat, QLinearSigmoid, Relu
from systolic.machine import time_program

CHOICES: dict[str, list[Any]] = {
    "rows": [4, 8, 12, 33], "cols": [6, 8, 17, 40], "ub": [50, 100, 200, 400, 2**16], "clock_mhz": [300, 700, 933.3],
    "accumulator_rows": [2, 3, 16, 50, 4096, None], "double_buffered": [True, False],
    "activation_dtype": ["int8", "uint8"], "weight_dtype": ["int8", "uint8"],
    "weight_bytes": [600, 2**22], "weight_bytes_per_second": [10**7, 10**9, 10**12], "weight_latency_cycles": [0, 90],
    "fifo_tiles": [1, 2, 4, 2**70], "row_bytes": [None, 8, 20, 64], "lanes": [None, 3],
    "activation_latency_cycles": [0, 40], "host_rows": [30, 2**16], "host_bytes_per_second": [10**8, 10**10],
    "host_latency_cycles": [0, 5], "issue_cycles": [1, 7], "width_factors": [(1, 1, 1), (3, 4, 5)],
}  # fmt: skip
"""Values of every field of a machine, so close that all of them matter."""


@st.composite
def machines(draw: st.DrawFn) -> list[MachineConfig]:
    """Machines that differ in any fields."""
    return [
        machine_of({name: draw(st.sampled_from(values)) for name, values in CHOICES.items()})
        for _ in range(draw(st.integers(1, 4)))
    ]


def machine_of(values: dict[str, Any]) -> MachineConfig:
    own = dict(values)
    clock = own.pop("clock_mhz")
    return replace(machine(**own), clock_mhz=clock)


def network(seed: int) -> Model:
    """Convolutions of any geometry, one after the other, between element-wise layers, pools and joins."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(8)
    if kind == 0:
        return residual(rng, int(rng.integers(2, 20)), int(rng.integers(1, 4)))
    if kind == 1:
        return bordered(rng)
    if kind == 2:
        return flat(rng, str(rng.choice(["NCHW", "NHWC"])))
    if kind == 3:
        return integers(rng)
    q = QuantParams(0.5, 3, "uint8")
    channels, nodes, names = int(rng.integers(1, 9)), list[Node](), ["x"]
    size, first = int(rng.integers(5, 12)), channels
    widths = {"x": channels}
    for number in range(int(rng.integers(1, 6))):
        x, y = str(rng.choice(names)), f"t{number}"
        what = rng.integers(6)
        same = [name for name in names if widths[name] == widths[x] and name != x]
        if what == 0 and same:
            nodes.append(Node(QLinearAdd(q, q, q), (x, str(rng.choice(same))), y))
            widths[y] = widths[x]
        elif what == 1:
            others = [str(name) for name in rng.choice(names, int(rng.integers(1, 4)))]
            nodes.append(Node(QLinearConcat((q,) * len(others), q, axis=1), tuple(others), y))
            widths[y] = sum(widths[name] for name in others)
        elif what == 2:
            nodes.append(Node(QLinearSigmoid(q, q), (x,), y))
            widths[y] = widths[x]
        else:
            groups = int(rng.choice([g for g in (1, 1, 2, 3, widths[x]) if widths[x] % g == 0]))
            oc = groups * int(rng.integers(1, 14))
            kernel = int(rng.choice([1, 3]))
            dilation = int(rng.integers(1, 3)) if kernel == 3 else 1
            w = QuantParams(rng.uniform(0.01, 0.1, oc), np.zeros(oc, int), axis=0)
            weight = rng.integers(-9, 9, (oc, widths[x] // groups, kernel, kernel)).astype(np.int8)
            around = dilation * (kernel // 2)
            layer = Conv2d(weight, x=q, w=w, y=q, groups=groups, dilation=dilation, padding=around)
            nodes.append(Node(layer, (x,), y))
            widths[y] = oc
        names.append(y)
    x = names[-1]
    last = conv(rng, widths[x], int(rng.integers(1, 20)), (2, 3), "uint8", stride=int(rng.integers(1, 3)), padding=1)
    nodes += [Node(last, (x,), "last"), Node(MaxPool((2, 2), stride=2, padding=1), ("last",), "y")]
    return Model(nodes, inputs={"x": ((None, first, size, size), "uint8")})


def timed(programs: Programs, on: MachineConfig) -> Stats | str:
    """The counts of a program, instruction by instruction, or why there is none."""
    try:
        return time_program(programs.of(on), on).stats
    except RuntimeShape:
        assume(False)
        raise
    except ValueError as error:
        return str(error)


def compare(programs: Programs, alone: Programs, on: MachineConfig) -> bool:
    """Compare counts, or errors; return whether the summary gave them."""
    wanted = timed(alone, on)
    if isinstance(wanted, str):
        with pytest.raises(ValueError) as caught:
            programs.stats(on)
        assert str(caught.value) == wanted
        return False
    assert on.memory is not None
    assert programs.stats(on) == wanted
    if programs._alternatives:
        return True
    layout = programs._layout(on, on.memory)
    assert layout is not None and layout.stats(on, on.memory) == wanted
    return True


BASE: dict[str, Any] = {"rows": 8, "cols": 8, "ub": 4096, "accumulator_rows": 24, "clock_mhz": 700}


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=pytest.mark.slow if name in ("ub", "accumulator_rows") else ()) for name in CHOICES
])  # fmt: skip
def test_each_field_of_a_machine(name: str) -> None:
    """One network on machines that differ in one field."""
    model = residual(np.random.default_rng(3), 12)
    programs, alone = Programs(model, batch=2), Programs(model, batch=2)
    taken = [compare(programs, alone, machine_of(BASE | {name: value})) for value in CHOICES[name]]
    assert any(taken)


options = st.fixed_dictionaries({
    "batch": st.integers(1, 3), "mapping": st.sampled_from([None, None, "taps", "im2col", "best"]),
    "reuse": st.sampled_from([False, False, True, 7]),
})  # fmt: skip


@pytest.mark.slow
@examples(60)
@given(seeds, machines(), options)
def test_networks_on_any_machines(seed: int, some: list[MachineConfig], how: dict[str, Any]) -> None:
    model = network(seed)
    programs, alone = Programs(model, **how), Programs(model, **how)
    for on in (*some, *some[::-1]):
        compare(programs, alone, on)


@pytest.mark.slow
@examples(30)
@given(seeds, machines())
def test_models_of_every_kind_of_layer(seed: int, some: list[MachineConfig]) -> None:
    model, _ = random_model(seed)
    try:
        model.input_shapes(2)
    except ValueError:
        assume(False)
    programs, alone = Programs(model, batch=2), Programs(model, batch=2)
    for on in some:
        compare(programs, alone, on)


def test_layers_are_lowered_once_for_arrays_of_all_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    programs = Programs(residual(np.random.default_rng(3)))
    planned: list[Any] = []
    plan = Programs._planned
    monkeypatch.setattr(Programs, "_planned", lambda *args: planned.append(args) or plan(*args))
    for rows, cols, ub in ((9, 9, 4096), (64, 9, 4096), (9, 33, 2048), (200, 200, 4096)):
        programs.stats(machine(rows, cols, ub))
    assert len(planned) == 1
    programs.stats(machine(8, 9))  # its images have enough channels: the first convolution is by taps
    assert len(planned) == 2
    programs.stats(machine(9, 9, 200))  # not all tensors fit at once
    assert len(planned) == 3
    for rows in (9, 8, 30):
        programs.stats(machine(rows, 9))
    assert len(planned) == 3


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weight_bytes": 600}, "weight tiles, and the weight memory holds"),
        ({"host_rows": 30}, "rows of host memory, and there are 30"),
        ({"row_bytes": 7}, "programs of models need rows of at least 8 bytes"),
        ({"ub": 1}, "rows of the unified buffer at once"),
        ({"weight_bytes_per_second": "1/1000000000"}, "could take more than 2"),
    ],
)
def test_where_there_is_no_program_the_error_is_that_of_compiling(changed: dict[str, Any], message: str) -> None:
    programs = Programs(residual(np.random.default_rng(3)))
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            programs.stats(machine(**changed))
    assert programs.stats(machine()).cycles > 0


def test_what_is_kept_has_a_bound() -> None:
    programs = Programs(residual(np.random.default_rng(3)))
    for rows in range(8, 60):
        programs.stats(machine(rows, accumulator_rows=rows))
    assert sum(map(len, programs._layouts.values())) == 32


MUTANTS = {
    "borders are not written": ("        pieces = border_pieces(storage)", "        pieces = border_pieces(storage)[1:]"),
    "a border is written where it is kept": ("if not border_kept(op):", "if True:"),
    "types are those of the array": ('self._put("operands", operands_code(*op.operands))', "pass"),
    "results begin in the border": ("corner = top * op.y.storage.stored[1] + left if", "corner = 0 if"),
    "layers share their weights": ("self._products.setdefault(op, len(self._products))", "0"),
    "pools see the output": ("math.prod(image_of(op.inputs[0])[0]), math.prod(out)", "math.prod(image_of(op.output)[0]), math.prod(out)"),
    "words take one row": ("np.array([1, 1, sizes.parts])", "np.array([1, 1, 1])"),
    "blocks are those of the columns": ("np.array([1, sizes.width, sizes.cols])", "np.array([1, sizes.cols, sizes.cols])"),
    "host memory is not shared": ("first[numbers], height = plan(", "first[numbers], height = (lambda spans: ([int(s.rows) * 0 + 100 * i for i, s in enumerate(spans)], 0))("),
    "weights come a tile later": ("min(memory.fifo_tiles, multiplies) + 2", "min(memory.fifo_tiles, multiplies) + 1"),
    "the FIFO has one place more": ("min(memory.fifo_tiles, multiplies + 1)", "min(memory.fifo_tiles, multiplies) + 1"),
    "latencies change places": (
        "memory.host_latency_cycles, memory.activation_latency_cycles, memory.issue",
        "memory.activation_latency_cycles, memory.host_latency_cycles, memory.issue",
    ),
    "a dispatch takes a cycle": ("memory.issue_cycles, passes,", "1, passes,"),
    "the vector unit takes a cycle a row": ("memory.issue_cycles, passes,", "memory.issue_cycles, 1,"),
    "rows take one cycle": ("memory.width_factors[0], load", "1, load"),
    "all arrays are double buffered": ("array.double_buffered, memory", "True, memory"),
    "transfers are of the same length": ("np.array(cycles, np.int64)[self._where]", "np.array(cycles, np.int64)[0 * self._where]"),
    "nothing waits for rows": ("return np.searchsorted(edges, ranges),", "return 0 * np.searchsorted(edges, ranges),"),
    "sums are written once": ("(streamed + counts[\"added\"] + drained)", "(streamed + drained)"),
    "the vector unit writes nothing": ("(moved + combined + counts[\"written\"])", "(moved + combined)"),
    "tiles are read twice": ("weight_memory_bytes=folds * tile", "weight_memory_bytes=2 * folds * tile"),
    "layers of other arrays run alike": None,
}  # fmt: skip


def bordered_codes(rng: np.random.Generator) -> Model:
    """Two images with borders, of which one is a function of the other: its border need not be written."""
    q = QuantParams(0.5, 3)

    def layer(ic: int, size: int) -> Conv2d:
        weight = rng.integers(-9, 9, (9, ic, size, size)).astype(np.int8)
        return Conv2d(weight, x=q, w=QuantParams(0.1), y=q, padding=size // 2)

    return Model(
        [
            Node(layer(4, 1), ("x",), "a"),
            Node(Relu(3), ("a",), "b"),
            Node(layer(9, 3), ("a",), "y"),
            Node(layer(9, 3), ("b",), "z"),
        ],
        inputs={"x": ((None, 4, 9, 9), "int8")},
        outputs=["y", "z"],
    )


def differ() -> None:
    """A few networks on machines that no two fields of which are alike."""
    rng = np.random.default_rng(11)
    models = [residual(rng, 12), bordered(rng), bordered_codes(rng), flat(rng, "NCHW"), integers(rng), *map(network, (4, 5, 21))]
    some = [
        machine(8, 8, accumulator_rows=24, lanes=3, host_latency_cycles=5, activation_latency_cycles=40,
                issue_cycles=7, width_factors=(3, 4, 5), fifo_tiles=1, host_bytes_per_second=10**7),
        machine(4, 17, accumulator_rows=50, double_buffered=False, fifo_tiles=2, weight_latency_cycles=9,
                weight_bytes_per_second=10**7, activation_dtype="uint8"),
        machine(33, 6, 400, host_bytes_per_second=10**7, weight_dtype="uint8"),
        machine(33, 9, activation_dtype="uint8", weight_dtype="uint8", issue_cycles=500),
    ]  # fmt: skip
    for model in models:
        programs, alone = program.Programs(model, batch=2), program.Programs(model, batch=2)
        for on in some:
            compare(programs, alone, on)


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name: str) -> None:
    change = MUTANTS[name]
    module, (old, new) = (summary, change) if change else (program, ("if sizes.rows in known.array_rows:", "if True:"))
    with planted(module, old, new), pytest.raises((AssertionError, ValueError, IndexError)):
        differ()


def test_without_mutants_all_agree() -> None:
    differ()


@examples(40)
@given(st.data())
def test_first_fit_takes_the_lowest_rows_that_are_free(data: st.DataObject) -> None:
    """Beside a map of rows and steps."""
    step = st.integers(0, 8)
    spans = data.draw(st.lists(st.tuples(st.integers(0, 5), step, step).map(
        lambda each: allocation.Lifetime(each[0], min(each[1:]), max(each[1:]))
    ), max_size=10))  # fmt: skip
    order = data.draw(st.permutations(range(len(spans))))
    taken = np.zeros((64, 9), bool)
    wanted = [0] * len(spans)
    for number in order:
        rows, start, stop = spans[number]
        wanted[number] = next(
            at for at in range(64) if not taken[at : at + rows, start : stop + 1].any() or not rows
        )
        taken[wanted[number] : wanted[number] + rows, start : stop + 1] = True
    assert allocation._first_fit(spans, order) == wanted
