"""``Gemm`` and ``DenseProduct``: the currency between workload and hardware."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from strategies import codes, raises

from systolic import Gemm
from systolic.gemm import DenseProduct


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


def test_dense_product() -> None:
    rng = np.random.default_rng(0)
    x, w = codes(rng, (5, 300), "uint8"), codes(rng, (300, 4), "int8")
    product = DenseProduct(x, w)
    assert product.gemm == Gemm(5, 300, 4)
    assert (product.activation_dtype, product.weight_dtype) == ("uint8", "int8")
    assert product.acc.shape == (5, 4) and product.acc.dtype == np.int32
    np.testing.assert_array_equal(product.rows(0, 1, 4, 2, 9), x[1:4, 2:9])
    np.testing.assert_array_equal(product.tile(0, 2, 9, 1, 3), w[2:9, 1:3])
    np.testing.assert_array_equal(product.row_sums(), x.astype(np.int64).sum(axis=1)[:, np.newaxis])
    product.acc[:] = 0
    product.store(0, 3, 1, np.full((2, 2), -9, np.int32))
    expected = np.zeros((5, 4))
    expected[3:, 1:3] = -9
    np.testing.assert_array_equal(product.acc, expected)
