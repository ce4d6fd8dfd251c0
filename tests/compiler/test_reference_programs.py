"""Compiled programs, byte by byte: the memories of both modes are those of the reference's executor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import systolic
from support.compiled import machine
from support.random_models import random_model
from support.strategies import examples, seeds
from support.zoo import zoo, zoo_inputs
from systolic import MachineConfig, Model
from systolic.engine.host_calls import host_calls
from systolic.engine.networks import run_layer
from systolic.isa import Convolve, MatrixMultiply, Program
from systolic.machine import run_program
from systolic.machine.timeline import row_bytes
from systolic.reference import program_data as reference

MACHINES = {
    "square": machine(8, 8, 1024),
    "wide": machine(4, 6, 1500, accumulator_rows=64),
    "single-buffered": machine(6, 4, 1024, double_buffered=False, fifo_tiles=1, accumulator_rows=37),
    "long rows, uint8 at first": machine(8, 8, 1024, row_bytes=20, activation_dtype="uint8"),
    "few rows": machine(8, 8, 20),
}
_MOST_MACS = 300_000
"""More take the reference's Python too long."""


def compare(model: Model, feeds: dict[str, Any], on: MachineConfig, **options: Any) -> bool:
    """Assert that both modes leave the reference's bytes; False if the program is too long for it."""
    shapes = {name: value.shape for name, value in feeds.items()}
    program = systolic.compile(model, machine=on, shapes=shapes, **options)
    array, memory = on.array, on.memory
    assert memory is not None
    streamed = sum(item.rows for item in program if isinstance(item, MatrixMultiply | Convolve))
    if streamed * array.rows * array.cols > _MOST_MACS:
        return False
    size = row_bytes(on, memory)
    calls = host_calls(program, size, lambda layer, read: run_layer(layer, read, array, "wavefront", 1)[0])
    images = reference_images(program, feeds, on, calls, size)
    for mode in ("wavefront", "cycle"):
        run = run_program(program, on, feeds, mode=mode, calls=calls)
        for name, rows in (("ub", images.ub), ("host", images.host), ("acc", images.acc)):
            found = getattr(run, name)
            wanted = np.array([list(row) for row in rows[: len(found)]], found.dtype).reshape(found.shape)
            np.testing.assert_array_equal(found, wanted, err_msg=f"{name}, {mode} mode")
    return True


def reference_images(
    program: Program, feeds: dict[str, Any], on: MachineConfig, calls: dict[int, Any], size: int
) -> reference.Images:
    """What the reference leaves in the memories, which it has as far as the machine's run touches them."""
    touched = run_program(program, on, feeds, mode="wavefront", calls=calls)
    host = np.zeros_like(touched.host)
    for name, tensor in program.inputs.items():
        rows = tensor.pack(feeds[name], size)
        host[tensor.first : tensor.first + len(rows)] = rows

    def call(number: int) -> Any:
        def rows_of(given: list[list[bytes]]) -> list[list[bytes]]:
            arrays = [np.frombuffer(b"".join(rows), np.uint8).reshape(-1, size).copy() for rows in given]
            return [[row.tobytes() for row in rows] for rows in calls[number](arrays)]

        return rows_of

    weights = [] if program.weights is None else program.weights
    return reference.run_program(
        program.instructions, program.functions, [tile.tobytes() for tile in weights],
        [row.tobytes() for row in host], rows=on.array.rows, cols=on.array.cols, row_bytes=size,
        ub_rows=len(touched.ub), acc_rows=len(touched.acc), host_rows=len(host),
        activation=on.array.activation_dtype, weight=on.array.weight_dtype,
        calls={number: call(number) for number in calls},
    )  # fmt: skip


@pytest.mark.parametrize("name", MACHINES)
def test_the_zoo(name: str) -> None:
    assert compare(zoo(), zoo_inputs(2), MACHINES[name])


@pytest.mark.slow
@pytest.mark.exhaustive
@examples(15)
@given(seeds, st.sampled_from(sorted(MACHINES)), st.sampled_from([None, "taps", "im2col"]))
def test_random_models(seed: int, name: str, mapping: str | None) -> None:
    model, feeds = random_model(seed)
    try:
        compare(model, feeds, MACHINES[name], mapping=mapping)
    except ValueError as error:
        # Of some nodes shapes depend on runtime values, and some models do not run at all.
        if "cannot compile node" not in str(error):
            with pytest.raises(ValueError):
                systolic.run(model, feeds, machine=MACHINES[name].array, mode="wavefront")
