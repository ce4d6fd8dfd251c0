"""``Stats``: addition, ratios, round trips."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import FrozenInstanceError, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.strategies import examples
from systolic import Stats

NAMES = ("cycles", "macs", "pe_cycles", "folds", "weight_bytes", "activation_bytes", "output_bytes")
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
    assert eval(repr(one), {"Stats": Stats}) == one
    assert pickle.loads(pickle.dumps(one)) == one == copy.deepcopy(one)
    assert hash(copy.deepcopy(one)) == hash(one)


def test_utilization() -> None:
    assert Stats().utilization == 0.0
    assert Stats(macs=3, pe_cycles=4).utilization == 0.75


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
        ValueError, match=r"^Stats has no field \['cycle'\]; its fields are \['activation_bytes', "
    ):
        Stats.from_dict({"cycle": 1})


def test_stats_are_integers() -> None:
    with pytest.raises(TypeError, match="cycles"):
        Stats(cycles=1.5)  # type: ignore[arg-type]
