"""``ArrayConfig`` and ``MachineConfig``: values, round trips, errors."""

from __future__ import annotations

import copy
import json
import pickle
import re
from dataclasses import FrozenInstanceError, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.number_formats import QUOTED_NAMES
from support.strategies import array_configs, examples, raises
from systolic import ArrayConfig, MachineConfig, MemoryConfig, presets
from systolic.config import as_array_config, as_machine_config


def test_defaults() -> None:
    assert ArrayConfig().to_dict() == {
        "rows": 256,
        "cols": 256,
        "activation_dtype": "int8",
        "weight_dtype": "int8",
        "double_buffered": True,
        "accumulator_rows": 4096,
        "dataflow": "weight_stationary",
        "psum_bits": 32,
        "overflow": "wrap",
    }
    assert MachineConfig() == MachineConfig(ArrayConfig(), clock_mhz=700)


def test_one_size_makes_a_square() -> None:
    assert ArrayConfig(4) == ArrayConfig(rows=4) == ArrayConfig(4, None) == ArrayConfig(4, 4)
    assert replace(ArrayConfig(4), rows=7) == ArrayConfig(7, 4)


@pytest.mark.slow
@examples(60)
@given(array_configs(), st.sampled_from([1, 700, 0.5, 1.05e3]))
def test_round_trips(array: ArrayConfig, clock: float) -> None:
    machine = MachineConfig(array, clock_mhz=clock)
    for value in (array, machine):
        kind = type(value)
        assert kind.from_dict(json.loads(json.dumps(value.to_dict()))) == value
        assert eval(repr(value), {"ArrayConfig": ArrayConfig, "MachineConfig": MachineConfig}) == value
        assert pickle.loads(pickle.dumps(value)) == value == copy.deepcopy(value)
        assert hash(copy.deepcopy(value)) == hash(value)
    assert replace(array, rows=7).rows == 7


def test_numpy_values_become_plain_ones() -> None:
    array = ArrayConfig(np.int64(4), np.uint8(5), activation_dtype=np.uint8, weight_dtype=np.dtype("int8"))
    assert array == ArrayConfig(4, 5, activation_dtype="uint8")
    assert json.loads(json.dumps(array.to_dict()))["activation_dtype"] == "uint8"


def test_numpy_clock_becomes_a_plain_one() -> None:
    assert json.loads(json.dumps(MachineConfig(clock_mhz=np.int64(700)).to_dict()))["clock_mhz"] == 700


def test_chunk_rows() -> None:
    rows = [ArrayConfig(accumulator_rows=r).chunk_rows for r in (None, 2, 3, 4096)]
    assert rows == [None, 1, 1, 2048]


def test_configs_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        ArrayConfig().rows = 3  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        MachineConfig().clock_mhz = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        ArrayConfig(2, 3, "int8")  # type: ignore[misc]


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"rows": 0}, ValueError, "rows must be a positive integer, not 0"),
        ({"cols": -3}, ValueError, "cols must be a positive integer, not -3"),
        ({"rows": 65537}, ValueError, "rows must be an integer of at most 16384, not 65537"),
        ({"cols": 2.0}, TypeError, "cols must be an integer, not float 2.0"),
        ({"rows": True}, TypeError, "rows must be an integer, not True"),
        (
            {"activation_dtype": "int32"},
            ValueError,
            f"activation_dtype must be {QUOTED_NAMES}, not 'int32'",
        ),
        ({"weight_dtype": "byte8"}, TypeError, f"weight_dtype must be {QUOTED_NAMES}, not 'byte8'"),
        ({"double_buffered": 1}, TypeError, "double_buffered must be True or False, not int 1"),
        (
            {"accumulator_rows": 1},
            ValueError,
            "accumulator_rows must be at least 2 (two halves, one filling while the "
            "other drains) or None for unlimited, not 1",
        ),
        ({"accumulator_rows": "all"}, TypeError, "accumulator_rows must be an integer, not str 'all'"),
    ],
)
def test_array_config_rejects(fields, error: type[Exception], message: str) -> None:
    with raises(error, message):
        ArrayConfig(**fields)
    with raises(error, message):
        ArrayConfig.from_dict(ArrayConfig().to_dict() | fields)


def test_from_dict_rejects_unknown_fields() -> None:
    with raises(ValueError, "ArrayConfig has no field 'colums'; did you mean 'cols'?"):
        ArrayConfig.from_dict({"colums": 4, "row": 3})
    with raises(ValueError, "MachineConfig has no field 'xyzzy'; its fields are array, clock_mhz, memory"):
        MachineConfig.from_dict({"xyzzy": 3})
    message = "MemoryConfig needs the fields 'unified_buffer_rows', 'host_rows', 'host_bytes_per_second'"
    with raises(ValueError, message):
        MemoryConfig.from_dict({"weight_bytes": 1, "weight_bytes_per_second": 1})
    with raises(TypeError, "ArrayConfig.from_dict takes a dict, not list"):
        ArrayConfig.from_dict([])  # type: ignore[arg-type]
    with raises(TypeError, "ArrayConfig.from_dict takes a dict, not int"):
        MachineConfig.from_dict({"array": 3})


def test_machine_config_rejects() -> None:
    with raises(TypeError, "array must be an ArrayConfig, not tuple"):
        MachineConfig((2, 3))  # type: ignore[arg-type]
    with raises(ValueError, "clock_mhz must be finite and above zero, not 0"):
        MachineConfig(clock_mhz=0)
    with raises(TypeError, "clock_mhz must be a number, not str 'fast'"):
        MachineConfig(clock_mhz="fast")  # type: ignore[arg-type]


def test_seconds() -> None:
    assert MachineConfig(clock_mhz=500).seconds(1_000_000) == 0.002
    for cycles in (np.complex64(1), True, "1"):
        with pytest.raises(TypeError, match="^cycles must be a number, not "):
            MachineConfig().seconds(cycles)  # type: ignore[arg-type]


def test_as_configs() -> None:
    array, machine = ArrayConfig(2, 3), MachineConfig(ArrayConfig(2, 3), clock_mhz=1)
    assert as_array_config(array) is array and as_array_config(machine) == array
    assert as_machine_config(machine) is machine and as_machine_config(array) == MachineConfig(array)
    assert as_array_config(presets.TPU_V1) == ArrayConfig()


MEMORY = MemoryConfig(
    weight_bytes=2**33, weight_bytes_per_second=34_000_000_000, unified_buffer_rows=98_304, host_rows=2**20,
    host_bytes_per_second=Fraction(14 * 2**30, 3), width_factors=[1, 2, 4],
)  # fmt: skip


def test_memories_are_values() -> None:
    machine = MachineConfig(ArrayConfig(4, 4), clock_mhz=700, memory=MEMORY)
    data = json.loads(json.dumps(machine.to_dict()))
    assert MachineConfig.from_dict(data) == machine == pickle.loads(pickle.dumps(machine))
    assert data["memory"]["host_bytes_per_second"] == f"{14 * 2**30}/3"
    assert MEMORY.width_factors == (1, 2, 4) and hash(MEMORY) == hash(MemoryConfig.from_dict(MEMORY.to_dict()))
    assert "memory" not in MachineConfig().to_dict()
    assert "weight_bytes_per_second" in machine._repr_html_() and "34" in MEMORY._repr_html_()


@pytest.mark.parametrize(
    ("value", "stored"),
    [(5, 5), ("34e9", 34_000_000_000), (0.5, Fraction(1, 2)), ("1/3", Fraction(1, 3)), (Fraction(6, 3), 2)],
)
def test_bandwidths_are_exact(value: Any, stored: int | Fraction) -> None:
    memory = replace(MEMORY, weight_bytes_per_second=value)
    assert memory.weight_bytes_per_second == stored and type(memory.weight_bytes_per_second) is type(stored)
    assert MemoryConfig.from_dict(json.loads(json.dumps(memory.to_dict()))) == memory


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("weight_bytes_per_second", 0, ValueError, "weight_bytes_per_second must be above zero, not 0"),
        ("host_bytes_per_second", float("nan"), TypeError, "host_bytes_per_second must be a number, such as"),
        ("host_bytes_per_second", None, TypeError, "host_bytes_per_second must be a number, such as"),
        ("fifo_tiles", 0, ValueError, "fifo_tiles must be a positive integer, not 0"),
        ("weight_latency_cycles", -1, ValueError, "weight_latency_cycles must be a non-negative integer, not -1"),
        ("host_rows", 1.5, TypeError, "host_rows must be an integer, not float 1.5"),
        ("host_rows", None, TypeError, "host_rows must be an integer, not None"),
        ("width_factors", (1, 2), TypeError, "width_factors must hold three integers, not tuple (1, 2)"),
        ("lanes", 0, ValueError, "lanes must be a positive integer, not 0"),
        ("row_bytes", 2**20 + 1, ValueError, "row_bytes must be an integer of at most 1048576, not 1048577"),
    ],
)
def test_wrong_memories(name: str, value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        replace(MEMORY, **{name: value})


def test_a_machine_takes_memories_alone() -> None:
    with raises(TypeError, "memory must be a MemoryConfig or None, not dict"):
        MachineConfig(memory=MEMORY.to_dict())  # type: ignore[arg-type]
