"""``Gemm``: the currency between workload and hardware."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from support.strategies import raises
from systolic import Gemm


def test_gemm() -> None:
    gemm = Gemm(2, np.int64(3), 5)
    assert (gemm.m, gemm.k, gemm.n, gemm.groups) == (2, 3, 5, 1)
    assert gemm.macs == 30 and Gemm(2, 3, 5, groups=4).macs == 120
    assert Gemm(0, 3, 5).macs == Gemm(2, 0, 5).macs == Gemm(2, 3, 0).macs == 0
    assert repr(gemm) == "Gemm(2, 3, 5)" and repr(Gemm(2, 3, 5, groups=4)) == "Gemm(2, 3, 5, groups=4)"
    for one in (gemm, Gemm(2, 3, 5, groups=4)):
        assert eval(repr(one), {"Gemm": Gemm}) == one == pickle.loads(pickle.dumps(one)) == copy.deepcopy(one)
        assert Gemm(**json.loads(json.dumps(one.to_dict()))) == one
    with pytest.raises(FrozenInstanceError):
        gemm.m = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("sizes", "groups", "error", "message"),
    [
        ((-1, 1, 1), 1, ValueError, "m must be a non-negative integer, not -1"),
        ((1, -1, 1), 1, ValueError, "k must be a non-negative integer, not -1"),
        ((1, 1, -1), 1, ValueError, "n must be a non-negative integer, not -1"),
        ((1, 1, 1), 0, ValueError, "groups must be a positive integer, not 0"),
        ((1.0, 1, 1), 1, TypeError, "m must be an integer, not float 1.0"),
    ],
)
def test_gemm_rejects(sizes, groups: int, error: type[Exception], message: str) -> None:
    with raises(error, message):
        Gemm(*sizes, groups=groups)
