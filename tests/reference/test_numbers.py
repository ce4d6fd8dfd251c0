"""The reference's arithmetic: its numpy form equals the one in Python's numbers."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("ml_dtypes")

from support.number_formats import EVERY_FORMAT, finite_operand, name_of, reference_of
from systolic.formats import Format


@pytest.mark.parametrize("numbers", EVERY_FORMAT, ids=name_of)
def test_numpy_adds_in_the_same_order(numbers: Format) -> None:
    rng = np.random.default_rng(0)
    for m, k, n, tile in ((1, 1, 1, 1), (3, 9, 4, 4), (2, 20, 3, 20), (2, 7, 3, 3), (2, 0, 3, 4)):
        x, w = finite_operand(rng, numbers.activation, (m, k)), finite_operand(rng, numbers.weight, (k, n))
        reference = reference_of(numbers)
        held = reference.held
        expected = reference.product(x.astype(held).tolist(), w.astype(held).tolist(), tile)
        got = reference.matmul(x, w, tile)
        assert got.shape == (m, n)
        np.testing.assert_array_equal(got, expected.reshape(m, -1) if k else np.zeros((m, n)))
