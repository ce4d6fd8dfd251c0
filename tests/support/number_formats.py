"""Operands of every number format, edges first, and what messages call the formats."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from systolic.formats import FORMATS, OPERANDS, Format, dtype_of, format_of, stored
from systolic.reference import Numbers

OPERAND_NAMES = "int8, uint8, int4, uint4, int16, uint16, bfloat16, float16, float8_e4m3fn or float8_e5m2"
QUOTED_NAMES = ", ".join(map(repr, OPERANDS)).replace(", 'float8_e5m2'", " or 'float8_e5m2'")
QUANTIZE = "quantize it first (systolic.quantize), or convert with .astype if the values fit"
ROUND = (
    "round it to a float format of the array, such as .astype(ml_dtypes.bfloat16), or quantize it "
    "(systolic.quantize)"
)

SUMS = ((32, "wrap"), (64, "wrap"), (16, "wrap"), (23, "wrap"), (16, "saturate"), (32, "saturate"), (64, "saturate"))
"""Sums of integers: bits, and what becomes of those that do not fit."""


def _every_format() -> list[Format]:
    return [
        format_of(a, w, *sums)
        for a, w in FORMATS
        for sums in (SUMS if OPERANDS[a].kind == "integer" else SUMS[:1])
    ]


EVERY_FORMAT = _every_format()
"""Every pair of operand types with every kind of sum."""


def name_of(numbers: Format) -> str:
    """Return a test's name of a format."""
    sums = "" if numbers.is_float else f"-{numbers.psum_bits}-{numbers.overflow}"
    return f"{numbers.activation}-{numbers.weight}{sums}"


def format_cases() -> list[Any]:
    """Return every format as a parameter of tests; those of unusual sums are slow, but for int8."""
    return [
        pytest.param(f, id=name_of(f), marks=() if few or f.activation == f.weight == "int8" else pytest.mark.slow)
        for f in EVERY_FORMAT
        for few in [(f.psum_bits, f.overflow) == SUMS[0]]
    ]


def fields(numbers: Format) -> dict[str, Any]:
    """Return the fields of an ArrayConfig of a format."""
    return {
        "activation_dtype": numbers.activation,
        "weight_dtype": numbers.weight,
        "psum_bits": numbers.psum_bits,
        "overflow": numbers.overflow,
    }


def reference_of(numbers: Format) -> Numbers:
    """Return the reference's arithmetic of a format."""
    return Numbers(numbers.is_float, numbers.psum_bits, numbers.saturates)


def type_of(name: str) -> np.dtype:
    """Return the type that users give operands, of 4 bits ml_dtypes' own."""
    return dtype_of(name)


def drawn_operand(rng: np.random.Generator, name: str, shape: tuple[int, ...], edges: float = 0.3) -> np.ndarray:
    """Return values of an operand type: some special ones, the rest of any kind."""
    operand, dtype = OPERANDS[name], type_of(name)
    if operand.kind == "integer":
        low, high = operand.limits
        values = rng.integers(low, high, shape, endpoint=True)
        special = np.array([low, high, 0, 1, high // 2])
    else:
        # Of all magnitudes: any bits, but NaN and infinities only as special values.
        values = rng.integers(0, 2**operand.bits, shape).astype(f"uint{operand.bits}").view(dtype)
        with np.errstate(invalid="ignore"):  # signaling NaN
            values = np.where(np.isfinite(values.astype(np.float64)), values, dtype.type(1))
        near = (rng.standard_normal(shape) * 2.0 ** rng.integers(-4, 5, shape)).astype(dtype)
        values = np.where(rng.random(shape) < 0.5, near, values)
        special = special_floats(name)
    chosen = special[rng.integers(0, len(special), shape)]
    return np.where(rng.random(shape) < edges, chosen, values).astype(dtype)


def special_floats(name: str) -> np.ndarray:
    """Return zeros, one, the largest and the smallest numbers, both signs, infinities and NaN of a type."""
    import ml_dtypes  # not in a base install

    dtype = type_of(name)
    info = ml_dtypes.finfo(dtype)
    positive = [0.0, 1.0, float(info.max), float(info.tiny), float(info.smallest_subnormal)]
    values = [*positive, *(-v for v in positive), np.nan]
    if name != "float8_e4m3fn":
        values += [np.inf, -np.inf]
    return np.array(values).astype(dtype)


def drawn_values(rng: np.random.Generator, numbers: Format, holds: str, shape: tuple[int, int]) -> np.ndarray:
    """Return values of a register or port: operands, sums or control bits."""
    if holds == "control":
        return rng.random(shape) < 0.4
    if holds != "sum":
        return stored(drawn_operand(rng, getattr(numbers, holds), shape))
    if numbers.is_float:
        with np.errstate(over="ignore"):
            values = (rng.standard_normal(shape) * 2.0 ** rng.integers(-150, 128, shape)).astype(np.float32)
        special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 3.4e38, -3.4e38, 1e-45, 1.0], np.float32)
        return np.where(rng.random(shape) < 0.3, special[rng.integers(0, len(special), shape)], values)
    low, high = numbers.sum_limits
    near = rng.choice(np.array([low, low + 1, 0, high - 1, high]), shape)
    return np.where(rng.random(shape) < 0.5, near, rng.integers(low, high, shape, endpoint=True)).astype(numbers.sum)


def finite_operand(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return operands without NaN and infinities, of moderate size if they are floats."""
    if OPERANDS[name].kind == "integer":
        return drawn_operand(rng, name, shape)
    return rng.standard_normal(shape).astype(type_of(name))


def formats() -> st.SearchStrategy[Format]:
    """Draw a format."""
    return st.sampled_from(EVERY_FORMAT)


def assert_same(got: np.ndarray, expected: np.ndarray) -> None:
    """Assert equal numbers: NaN equal to NaN, and -0 different from +0."""
    got, expected = (np.asarray(v).astype(np.float64 if v.dtype.kind not in "iub" else v.dtype) for v in (got, expected))
    np.testing.assert_array_equal(got, expected)
    if got.dtype.kind == "f":
        zero = expected == 0
        np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(expected[zero]))
