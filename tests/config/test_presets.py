"""Presets: real machines by name, each number as its source has it."""

from __future__ import annotations

import pickle

import pytest

from support.strategies import raises
from systolic import ArrayConfig, MachineConfig, presets
from systolic.isa import Program
from systolic.machine.timeline import row_bytes, time_program, transfer_cycles


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_is_a_machine_that_round_trips(name: str) -> None:
    machine = presets.get(name)
    assert isinstance(machine, MachineConfig)
    assert MachineConfig.from_dict(machine.to_dict()) == machine == pickle.loads(pickle.dumps(machine))


def test_names() -> None:
    names = presets.names()
    assert "tpu-v1" in names and len(set(names)) == len(names)


def test_tpu_v1() -> None:
    # Jouppi et al., ISCA 2017: 65,536 MACs at 700 MHz, 92 TOPS at 8 bits; 4 MiB of accumulators.
    tpu = presets.TPU_V1
    assert presets.get("tpu-v1") is tpu
    assert tpu.array == ArrayConfig(256, 256, double_buffered=True, accumulator_rows=4096)
    assert tpu.clock_mhz == 700
    assert 2 * tpu.array.rows * tpu.array.cols * tpu.clock_mhz * 1e6 == pytest.approx(92e12, rel=0.005)
    assert tpu.array.accumulator_rows * tpu.array.cols * 4 == 4 * 2**20


def test_memories_of_tpu_v1() -> None:
    # Jouppi et al., ISCA 2017, section 2, table 2 and figure 1.
    memory, machine = presets.TPU_V1.memory, presets.TPU_V1
    assert memory.unified_buffer_rows * row_bytes(machine, memory) == 24 * 2**20
    tile = machine.array.rows * machine.array.cols
    assert tile == 64 * 2**10 and memory.fifo_tiles * tile == 256 * 2**10
    # 65,536 bytes at 34 GB/s and 700 MHz: 1349.27 cycles; a row through a link of 14 GiB/s: 11.92.
    assert transfer_cycles(tile, memory.weight_bytes_per_second, machine) == 1350
    assert transfer_cycles(256, memory.host_bytes_per_second, machine) == 12
    assert memory.width_factors == (1, 2, 4)


def test_a_bound_by_weights_is_the_bandwidth() -> None:
    machine = presets.TPU_V1
    tiles = 50
    program = Program(f"read_weights w#0, {tiles}\n" + "matmul a#0, u#0, 200\n" * tiles)
    timeline = time_program(program, machine)
    swaps = timeline.swap
    assert {int(step) for step in swaps[1:] - swaps[:-1]} == {1350}
    assert timeline.causes["weight_shift"] == 256 * tiles


@pytest.mark.parametrize("name", ["tpu", "TPU-V1", "", None])
def test_get_rejects(name) -> None:
    known = ", ".join(map(repr, presets.names()))
    with raises(ValueError, f"preset must be one of {known}, not {name!r}"):
        presets.get(name)
