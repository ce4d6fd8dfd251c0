"""Programs: when 100,000 instructions run, and what a multiply costs beside its product, on one thread.

Beside the timing stands ``reference.machine.time_program``, which looks at every earlier instruction, on
1,000 instructions.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from systolic import ArrayConfig, MachineConfig, MemoryConfig, _gemm, isa
from systolic.machine import run_program, time_program
from systolic.reference import machine as reference

MEMORY = MemoryConfig(
    weight_bytes=2**33, weight_bytes_per_second=48 * 700_000_000, unified_buffer_rows=98_304,
    host_rows=2**20, host_bytes_per_second=22 * 700_000_000,
)  # fmt: skip
MACHINE = MachineConfig(ArrayConfig(256, 256), clock_mhz=700, memory=MEMORY)


def layers(count):
    """Return a program of about so many instructions: six a layer, rows taken in turn."""
    found = []
    for layer in range(count // 6):
        ub, acc, host = 16 * layer % 49_152, 16 * layer % 4_096, 16 * layer % 2**20
        found += [
            isa.ReadWeights(layer % 1_000),
            isa.ReadHost(host, ub, 16),
            isa.MatrixMultiply(ub, acc, 16),
            isa.Convolve(ub, acc, ((4, 4), (4, 1)), new_weights=False, accumulate=True),
            isa.Activate(acc, 49_152 + ub, 16),
            isa.WriteHost(49_152 + ub, host, 16),
        ]
    return isa.Program(found)


def one_by_one(count):
    """Return what is stood beside: the reference's timing of a program."""
    program = layers(count)
    values = {
        "rows": 256, "cols": 256, "double_buffered": True, "tile_bytes": 65_536, "row_bytes": 256,
        "weight_bytes_per_cycle": Fraction(48), "weight_latency": 0, "fifo_tiles": 4, "lanes": None,
        "activation_latency": 0, "host_bytes_per_cycle": Fraction(22), "host_latency": 0, "issue_cycles": 1,
        "width_factors": (1, 1, 1), "rows_written": lambda item: item.rows,
    }  # fmt: skip

    def work():
        return reference.time_program(program.instructions, **values)

    assert work().cycles == time_program(program, MACHINE).cycles
    return "reference, 1,000 instructions", work, len(program)


@pytest.mark.parametrize("kept", [False, True])
def test_timing(measure, kept):
    """The first time makes arrays of the program, which it keeps for other machines and runs."""
    program = layers(100_000)

    def work():
        if not kept:
            vars(program).pop("_arrays", None)
        time_program(program, MACHINE)

    name = f"time_program, 100,000 instructions, {'another machine' if kept else 'the first time'}"
    measure(name, work, len(program), "instructions/s", one_by_one(1_000))


@pytest.mark.parametrize("rows", [16, 256])
def test_multiplies(measure, rows):
    """A program of 200 multiplies in wavefront mode, beside the products alone."""
    rng = np.random.default_rng(rows)
    tiles = rng.integers(-128, 128, (200, 256, 256), dtype=np.int8)
    instructions = [isa.ReadWeights(0, 200)]
    instructions += [isa.MatrixMultiply(0, tile % 4 * rows, rows) for tile in range(200)]
    program = isa.Program(instructions, weights=tiles)
    x = rng.integers(-128, 128, (rows, 256), dtype=np.int8)
    acc = np.empty((rows, 256), np.int32)

    def products():
        for tile in tiles:
            _gemm.multiply(x, tile, acc)

    def work():
        run_program(program, MACHINE, mode="wavefront")

    macs = 200 * rows * 256 * 256
    beside = "the products alone", products, macs
    measure(f"200 multiplies of {rows} rows, wavefront", work, macs, "MAC/s", beside)
