"""Compiled models beside the models they were compiled from, and their times beside the reference's."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

import systolic
from support.strategies import codes
from systolic import ArrayConfig, MachineConfig, MemoryConfig, Model, Node, Program, QuantParams
from systolic.layers import (
    Conv2d,
    ConvInteger,
    Dense,
    Flatten,
    MatMulInteger,
    MaxPool,
    QLinearAdd,
    QLinearConcat,
    QLinearSigmoid,
)
from systolic.machine import Timeline, time_program
from systolic.machine.timeline import row_bytes
from systolic.reference import machine as reference

_MOST_TIMED = 300
"""Instructions that the reference, whose time grows with their square, is asked to time."""


def machine(rows: int = 8, cols: int = 8, ub: int = 4096, **options: Any) -> MachineConfig:
    """A small machine with so many rows of unified buffer; `options` of its array and its memories."""
    names = ("double_buffered", "accumulator_rows", "activation_dtype", "weight_dtype")
    array = {name: options.pop(name) for name in names if name in options}
    memory = {
        "weight_bytes": 2**22, "weight_bytes_per_second": 10**9, "host_rows": 2**16,
        "host_bytes_per_second": 10**9, **options,
    }  # fmt: skip
    return MachineConfig(
        ArrayConfig(rows, cols, **array), memory=MemoryConfig(unified_buffer_rows=ub, **memory)
    )


def check(
    model: Model,
    feeds: Mapping[str, np.ndarray],
    on: MachineConfig,
    *,
    modes: tuple[str, ...] = ("wavefront", "cycle"),
    **options: Any,
) -> Program:
    """Compile a model; its program must give the model's bits in each mode, at the reference's times."""
    shapes = {name: value.shape for name, value in feeds.items()}
    program = systolic.compile(model, machine=on, shapes=shapes, **options)
    wanted = systolic.run(model, feeds, machine=on.array, mode="wavefront").outputs
    timeline = time_program(program, on)
    for mode in modes:
        run = systolic.run(program, feeds, machine=on, mode=mode)
        assert run.outputs.keys() == wanted.keys()
        for name, value in wanted.items():
            np.testing.assert_array_equal(run.outputs[name], value, err_msg=f"{name}, {mode} mode")
            assert run.outputs[name].dtype == value.dtype
        assert run.stats == timeline.stats == sum((each.stats for each in run.layers), systolic.Stats())
    if len(program) <= _MOST_TIMED:
        check_times(timeline, program, on)
    return program


def check_times(timeline: Timeline, program: Program, on: MachineConfig) -> None:
    """Compare a program's times with those that the reference derives on its own."""
    array, memory = on.array, on.memory
    assert memory is not None
    clock = Fraction(on.clock_mhz) * 10**6
    theirs = reference.time_program(
        program.instructions, rows=array.rows, cols=array.cols, double_buffered=array.double_buffered,
        tile_bytes=array.rows * array.cols, row_bytes=row_bytes(on, memory),
        weight_bytes_per_cycle=Fraction(memory.weight_bytes_per_second) / clock,
        weight_latency=memory.weight_latency_cycles, fifo_tiles=memory.fifo_tiles, lanes=memory.lanes,
        activation_latency=memory.activation_latency_cycles,
        host_bytes_per_cycle=Fraction(memory.host_bytes_per_second) / clock,
        host_latency=memory.host_latency_cycles, issue_cycles=memory.issue_cycles,
        width_factors=memory.width_factors,
        rows_written=lambda item: program.function_of(item).rows_written(item.rows),
    )  # fmt: skip
    assert timeline.start.tolist() == theirs.start
    assert timeline.complete.tolist() == theirs.complete
    assert (timeline.cycles, timeline.causes) == (theirs.cycles, theirs.causes)


def count(program: Program, kind: str) -> int:
    """How many instructions of a kind there are, or, for "Spill", sections."""
    if kind == "Spill":
        return sum(section.kind == kind for section in program.sections)
    return sum(type(item).__name__ == kind for item in program)


def loaded(program: Program) -> int:
    """How many tiles are loaded into the array."""
    return sum(getattr(item, "new_weights", False) for item in program)


def conv(rng: np.random.Generator, ic: int, oc: int, kernel: tuple[int, int], dtype: str, **options: Any) -> Any:
    """A convolution with random weights, zero points and scales for each channel."""
    params = [QuantParams(0.5, int(rng.integers(0, 9)), dtype) for _ in range(2)]
    w = QuantParams(rng.uniform(0.01, 0.1, oc), np.zeros(oc, int), axis=0)
    weight = codes(rng, (oc, ic // options.get("groups", 1), *kernel), "int8")
    bias = rng.integers(-99, 99, oc).astype(np.int32)
    return Conv2d(weight, x=params[0], w=w, y=params[1], bias=bias, **options)


def residual(rng: np.random.Generator, channels: int = 6, blocks: int = 2) -> Model:
    """Convolutions with shortcuts around them, a pool, a concatenation and a product."""
    q, sums = QuantParams(0.5, 3), QuantParams(1.0, -2)
    nodes = [Node(conv(rng, 2, channels, (3, 3), "int8", padding=1), ("x",), "s0")]
    for block in range(blocks):
        first = conv(rng, channels, 2 * channels, (3, 3), "int8", padding=1)
        second = conv(rng, 2 * channels, channels, (3, 3), "int8", padding=1)
        nodes += [
            Node(first, (f"s{block}",), f"a{block}"),
            Node(second, (f"a{block}",), f"b{block}"),
            Node(QLinearAdd(q, q, sums), (f"b{block}", f"s{block}"), f"s{block + 1}"),
        ]
    nodes += [
        Node(MaxPool((2, 2), stride=2), (f"s{blocks}",), "pooled"),
        Node(QLinearSigmoid(sums, QuantParams(1 / 256, -128)), ("pooled",), "gate"),
        Node(QLinearConcat((sums, QuantParams(1 / 256, -128)), q, axis=1), ("pooled", "gate"), "both"),
        Node(conv(rng, 2 * channels, 4, (1, 1), "int8"), ("both",), "y"),
    ]
    return Model(nodes, inputs={"x": ((None, 2, 6, 6), "int8")})


def bordered(rng: np.random.Generator) -> Model:
    """Additions of images that convolutions read with a border, before them and behind them."""
    q = QuantParams(0.5, 3)
    return Model(
        [
            Node(conv(rng, 4, 4, (1, 1), "int8"), ("x",), "a"),
            Node(conv(rng, 4, 1, (3, 3), "int8", padding=1, stride=3), ("a",), "small"),
            Node(conv(rng, 4, 4, (9, 9), "int8", padding=4), ("u",), "rows"),
            Node(QLinearAdd(q, q, q), ("a", "rows"), "sum"),
            Node(QLinearAdd(q, q, q), ("a", "z"), "y"),
        ],
        inputs=dict.fromkeys(("x", "u", "z"), ((None, 4, 6, 6), "int8")),
        outputs=["small", "sum", "y"],
    )


def integers(rng: np.random.Generator) -> Model:
    """A product and a convolution whose zero points only the host knows."""
    return Model(
        [
            Node(MatMulInteger(), ("a", "w", "zero"), "y"),
            Node(ConvInteger(padding=1), ("x", "kernel", "zero"), "z"),
        ],
        inputs={"a": ((None, 20), "uint8"), "x": ((None, 3, 6, 5), "uint8"), "zero": ((), "uint8")},
        constants={"w": codes(rng, (20, 12), "int8"), "kernel": codes(rng, (10, 3, 3, 3), "int8")},
        outputs=["y", "z"],
    )


def integers_inputs(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """What :func:`integers` takes."""
    return {
        "a": codes(rng, (30, 20), "uint8"), "x": codes(rng, (2, 3, 6, 5), "uint8"), "zero": np.array(9, np.uint8),
    }  # fmt: skip


def flat(rng: np.random.Generator, layout: str, *, outputs: tuple[str, ...] = ("y",)) -> Model:
    """A convolution, a table of codes, and a product with the flattened images."""
    q = QuantParams(0.5, 3)
    shape = (None, 4, 5, 3) if layout == "NCHW" else (None, 5, 3, 4)
    dense = Dense(codes(rng, (10 * 6 * 4, 7), "int8"), x=q, w=QuantParams(0.1), y=QuantParams(30.0, -5))
    return Model(
        [
            Node(conv(rng, 4, 10, (2, 2), "int8", padding=1, layout=layout), ("x",), "a"),
            Node(QLinearSigmoid(q, q), ("a",), "b"),
            Node(Flatten(), ("b",), "c"),
            Node(dense, ("c",), "y"),
        ],
        inputs={"x": (shape, "int8")},
        outputs=outputs,
    )
