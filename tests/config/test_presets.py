"""Presets: real machines by name, each number as its source has it."""

from __future__ import annotations

import pickle

import pytest

from support.strategies import raises
from systolic import ArrayConfig, MachineConfig, presets


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


@pytest.mark.parametrize("name", ["tpu", "TPU-V1", "", None])
def test_get_rejects(name) -> None:
    known = ", ".join(map(repr, presets.names()))
    with raises(ValueError, f"preset must be one of {known}, not {name!r}"):
        presets.get(name)
