"""What the tests draw: sizes with edges first, operands with extremes, array configurations."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st

from systolic import ArrayConfig
from systolic.dataflows import DATAFLOWS

DTYPES = ("int8", "uint8")
SIGN_MIXES = tuple((a, w) for a in DTYPES for w in DTYPES)
LANES = 16  # columns that the kernel clocks at once
ROW_GROUP = 8  # rows
BLOCK = 256  # cycles
FACTOR = 30 if os.environ.get("SYSTOLIC_HYPOTHESIS") == "long" else 1

seeds = st.integers(0, 2**32 - 1)
dtypes = st.sampled_from(DTYPES)
sign_mixes = st.sampled_from(SIGN_MIXES)


def examples(count: int) -> settings:
    """So many examples, and thirty times as many in the long profile."""
    return settings(max_examples=count * FACTOR)


def raises(error: type[BaseException], message: str) -> AbstractContextManager:
    """Expect an error of exactly this message."""
    return pytest.raises(error, match=f"^{re.escape(message)}$")


def sizes(
    limit: int, edges: Sequence[int] = (1, 2, 15, 16, 17, 31, 32, 33), least: int = 1
) -> st.SearchStrategy[int]:
    """Sizes up to `limit`: those about multiples of the kernel's lanes first, then any."""
    return st.sampled_from([e for e in edges if least <= e <= limit] or [limit]) | st.integers(least, limit)


def around(size: int, limit: int, least: int = 1) -> st.SearchStrategy[int]:
    """Sizes about multiples of `size`, then any up to `limit`."""
    near = [size * i + d for i in range(limit // size + 1) for d in (-1, 0, 1)]
    return sizes(limit, [1, *near], least)


def limits(dtype: str) -> tuple[int, int]:
    """Smallest and largest code of a type."""
    return (-128, 127) if dtype == "int8" else (0, 255)


def codes(rng: np.random.Generator, shape: int | tuple[int, ...], dtype: str) -> np.ndarray:
    """Random codes, a third of them at the ends of the range."""
    low, high = limits(dtype)
    data = rng.integers(low, high + 1, shape)
    return np.where(rng.random(shape) < 1 / 3, rng.choice([low, high], shape), data).astype(dtype)


def sums(rng: np.random.Generator, shape: int | tuple[int, ...]) -> np.ndarray:
    """Random int32 values, a third of them within a product of where they wrap."""
    data = rng.integers(-(2**31), 2**31, shape)
    near = rng.choice([-(2**31), 2**31 - 1], shape) - rng.integers(-255, 256, shape) * rng.integers(
        0, 256, shape
    )
    return wrap32(np.where(rng.random(shape) < 1 / 3, near, data))


def wrap32(values: np.ndarray) -> np.ndarray:
    """Integers modulo 2^32 as int32, derived by arithmetic on int64."""
    return ((np.asarray(values, dtype=np.int64) + 2**31) % 2**32 - 2**31).astype(np.int32)


def product(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The exact product modulo 2^32."""
    return wrap32(x.astype(np.int64) @ w.astype(np.int64))


@st.composite
def array_configs(
    draw: st.DrawFn, max_rows: int = 9, max_cols: int = 20, dataflows: Sequence[str] = tuple(DATAFLOWS)
) -> ArrayConfig:
    """Small arrays, any dataflow, both buffer modes, few, odd and unlimited accumulators, any operand types."""
    return ArrayConfig(
        draw(sizes(max_rows)),
        draw(sizes(max_cols)),
        activation_dtype=draw(dtypes),
        weight_dtype=draw(dtypes),
        double_buffered=draw(st.booleans()),
        accumulator_rows=draw(st.sampled_from([None, 2, 3, 4, 7, 16, 4096])),
        dataflow=draw(st.sampled_from(dataflows)),
    )


@st.composite
def problems(draw: st.DrawFn, max_tiles: int = 3, max_m: int = 20) -> tuple[ArrayConfig, int, int, int]:
    """An array and a product (m, k, n) of a few folds, sizes about multiples of the array's."""
    array = draw(array_configs())
    chunk = array.chunk_rows or max_m
    return (
        array,
        draw(around(min(chunk, max_m), max_m)),
        draw(around(array.rows, max_tiles * array.rows)),
        draw(around(array.cols, max_tiles * array.cols)),
    )
