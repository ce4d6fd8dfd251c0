"""The independent executor of programs leaves the bytes that the model's program leaves on the machine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import systolic
from support.compiled import machine
from support.strategies import codes
from systolic import MachineConfig, Model, Node, Program, QuantParams
from systolic.engine.host_calls import host_calls
from systolic.engine.networks import run_layer
from systolic.layers import (
    Conv2d,
    Dense,
    Flatten,
    MaxPool,
    QLinearAdd,
    QLinearGlobalAveragePool,
    QLinearSigmoid,
)
from systolic.machine.timeline import row_bytes
from systolic.reference import program_data

Q, Y = QuantParams(0.5, 3), QuantParams(1.0, -2)


def model(seed: int) -> Model:
    """A small network with a shortcut, pools, a table and results of 4 bytes."""
    rng = np.random.default_rng(seed)

    def conv(ic: int, oc: int, kernel: int, **options: Any) -> Any:
        w = QuantParams(rng.uniform(0.01, 0.1, oc), np.zeros(oc, int), axis=0)
        weight = codes(rng, (oc, ic, kernel, kernel), "int8")
        return Conv2d(weight, x=Q, w=w, y=Q, bias=rng.integers(-99, 99, oc).astype(np.int32), **options)

    dense = Dense(codes(rng, (5, 7), "int8"), x=Y, w=QuantParams(0.1), y=None)
    return Model(
        [
            Node(conv(3, 5, 3, padding=1), ("x",), "a"),
            Node(conv(5, 5, 3, padding=1), ("a",), "b"),
            Node(QLinearAdd(Q, Q, Y), ("a", "b"), "c"),
            Node(MaxPool((2, 2), stride=2, padding=1), ("c",), "d"),
            Node(QLinearSigmoid(Y, Y), ("d",), "e"),
            Node(QLinearGlobalAveragePool(Y, Y), ("e",), "f"),
            Node(Flatten(), ("f",), "g"),
            Node(dense, ("g",), "y"),
        ],
        inputs={"x": ((2, 3, 4, 4), "int8")},
        outputs=["y", "c"],
    )


def by_reference(program: Program, on: MachineConfig, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs of a program in Python integers and byte arrays."""
    memory = on.memory
    assert memory is not None and program.weights is not None
    size = row_bytes(on, memory)
    host = np.zeros((memory.host_rows, size), np.uint8)
    for name, tensor in program.inputs.items():
        rows = tensor.pack(feeds[name], size)
        host[tensor.first : tensor.first + len(rows)] = rows
    calls = host_calls(program, size, lambda layer, read: run_layer(layer, read, on.array, "wavefront")[0])

    def called(call: Any) -> Any:
        def compute(rows: list[list[bytes]]) -> list[list[bytes]]:
            arrays = [np.frombuffer(b"".join(each), np.uint8).reshape(-1, size) for each in rows]
            return [[row.tobytes() for row in each] for each in call(arrays)]

        return compute

    left = program_data.run_program(
        program.instructions, program.functions, [tile.tobytes() for tile in program.weights],
        [row.tobytes() for row in host], rows=on.array.rows, cols=on.array.cols, row_bytes=size,
        ub_rows=memory.unified_buffer_rows, acc_rows=on.array.accumulator_rows or 4096, host_rows=memory.host_rows,
        calls={number: called(call) for number, call in calls.items()},
    )  # fmt: skip
    rows = np.array([list(row) for row in left.host], np.uint8)
    return {n: t.unpack(rows[t.first : t.first + t.rows(size)]) for n, t in program.outputs.items()}


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"mapping": "taps"}, {"mapping": "im2col"}], ids=str)
@pytest.mark.parametrize(
    "on",
    [
        machine(4, 4, 800, host_rows=1024),
        machine(3, 5, 1200, host_rows=1024, accumulator_rows=10),
        machine(8, 8, 112, host_rows=1024),
    ],
    ids=["square", "wide", "small buffer"],
)
def test_outputs_equal_those_of_the_reference(on: MachineConfig, options: dict[str, Any]) -> None:
    network = model(1)
    feeds = {"x": codes(np.random.default_rng(2), (2, 3, 4, 4), "int8")}
    program = systolic.compile(network, machine=on, **options)
    ours = systolic.run(program, feeds, machine=on, mode="cycle").outputs
    theirs = by_reference(program, on, feeds)
    wanted = systolic.run(network, feeds, machine=on.array).outputs
    for name in ("y", "c"):
        np.testing.assert_array_equal(theirs[name], wanted[name], err_msg=name)
        np.testing.assert_array_equal(ours[name], wanted[name], err_msg=name)
