"""``Stats``: addition, ratios, round trips."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.strategies import examples
from systolic import Stats
from systolic.stats import _FIRST_ACCESS, COUNTS

IDEAL = ("cycles", "macs", "pe_cycles", "folds", "weight_bytes", "activation_bytes", "output_bytes")
CAUSES = (
    "active_cycles", "weight_stall_cycles", "weight_shift_cycles", "non_matrix_cycles", "raw_stall_cycles",
    "input_stall_cycles", "accumulator_stall_cycles", "other_stall_cycles",
)  # fmt: skip
ACCESSES = (
    "partial_sums", "accumulator_bytes", "unified_buffer_bytes", "weight_fifo_bytes", "weight_memory_bytes", "host_bytes",
    "vector_operations",
)  # fmt: skip
NAMES = IDEAL + CAUSES + ACCESSES
stats = st.builds(Stats, **{name: st.integers(0, 2**70) for name in NAMES})


def test_fields() -> None:
    assert tuple(f.name for f in fields(Stats)) == NAMES
    assert Stats().to_dict() == dict.fromkeys(NAMES, 0)


@pytest.mark.slow
@examples(60)
@given(st.lists(stats, max_size=5))
def test_stats_add_up_field_by_field(several: list[Stats]) -> None:
    total = sum(several, Stats())
    for name in NAMES:
        assert getattr(total, name) == sum(getattr(s, name) for s in several)
    if several:
        assert sum(several) == total


@pytest.mark.slow
@examples(40)
@given(stats)
def test_round_trips(one: Stats) -> None:
    assert Stats.from_dict(json.loads(json.dumps(one.to_dict()))) == one
    accesses = dict.fromkeys(COUNTS[_FIRST_ACCESS:], 0)  # which the repr leaves out
    assert eval(repr(one), {"Stats": Stats}) == replace(one, **accesses)
    assert pickle.loads(pickle.dumps(one)) == one == copy.deepcopy(one)
    assert hash(copy.deepcopy(one)) == hash(one)


def test_utilization() -> None:
    assert Stats().utilization == 0.0
    assert Stats(macs=3, pe_cycles=4).utilization == 0.75


def test_unused_macs_are_those_of_active_cycles() -> None:
    one = Stats(cycles=10, macs=30, pe_cycles=60, active_cycles=8)
    assert one.unused_macs == 8 * 6 - 30 and (one + one).unused_macs == 2 * one.unused_macs
    assert Stats().unused_macs == Stats(cycles=10, macs=30, pe_cycles=60).unused_macs == 0


def test_causes_are_shown_where_there_are_any() -> None:
    ideal, stalled = Stats(cycles=3), Stats(cycles=3, weight_stall_cycles=2, non_matrix_cycles=1)
    assert "stall" not in repr(ideal) + ideal._repr_html_() and "output_bytes=0" in repr(ideal)
    assert "weight_stall_cycles=2" in repr(stalled) and "raw_stall" not in repr(stalled)
    assert "weight stall cycles" in stalled._repr_html_() and "raw stall cycles" in stalled._repr_html_()


def test_only_stats_add_to_stats() -> None:
    for other in (1, "1", None, {}):
        with pytest.raises(TypeError, match="unsupported operand"):
            Stats() + other  # type: ignore[operator]
    with pytest.raises(TypeError, match="unsupported operand"):
        1 + Stats()  # type: ignore[operator]


def test_stats_are_frozen_and_keyword_only() -> None:
    with pytest.raises(FrozenInstanceError):
        Stats().cycles = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        Stats(1)  # type: ignore[misc]


def test_from_dict_rejects_unknown_fields() -> None:
    with pytest.raises(
        ValueError, match=r"^Stats has no field \['cycle'\]; its fields are \['accumulator_bytes', "
    ):
        Stats.from_dict({"cycle": 1})


def test_stats_are_integers() -> None:
    with pytest.raises(TypeError, match="cycles"):
        Stats(cycles=1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="folds"):
        Stats(folds=True)
    with pytest.raises(ValueError, match="raw_stall_cycles must be a non-negative integer"):
        Stats(raw_stall_cycles=-1)
    assert type(Stats(macs=np.int32(7)).macs) is int  # type: ignore[arg-type]
