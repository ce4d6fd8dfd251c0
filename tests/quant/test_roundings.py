"""Every named rounding against its formula in Python's integers and fractions, around every tie."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from support import litert_models
from systolic.quant import (
    ROUNDINGS,
    QuantParams,
    as_multiplier,
    blocks,
    fixed_point,
    multiplier,
    requantize,
)
from systolic.reference.oracle._numbers import normalized, rounded_code

LIMITS = {"int8": (-128, 127), "uint8": (0, 255)}
EXTREMES = [
    -(2**31),
    -(2**31) + 1,
    -(2**30),
    -(2**24) - 1,
    -1,
    0,
    1,
    2**24 + 1,
    2**30 - 1,
    2**31 - 2,
    2**31 - 1,
]


def raises(error: type[Exception], message: str):
    return pytest.raises(error, match=f"^{re.escape(message)}$")


# Python's integers and fractions, no numpy, no floating point. The integer roundings are the reference's.


def f32(value: Fraction) -> Fraction:
    """Round to binary32, ties to even; without its upper bound, beyond which all codes saturate anyway."""
    if value == 0:
        return value
    size = abs(value)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent -= Fraction(2) ** exponent > size  # 2^exponent <= size < 2^(exponent + 1)
    step = Fraction(2) ** max(exponent - 23, -149)
    return round(value / step) * step  # round() takes ties of a Fraction to even


def half_even(acc: int, m: Fraction, zero_point: int, low: int, high: int) -> int:
    v = f32(f32(Fraction(acc)) * f32(m))
    return round(min(max(v, Fraction(low - zero_point)), Fraction(high - zero_point))) + zero_point


def gemmini(acc: int, m: Fraction, zero_point: int, low: int, high: int) -> int:
    v = round(f32(f32(Fraction(acc)) * f32(m)))
    v = min(max(v, -(2**31)), 2**31 - 1)
    return min(max(v + zero_point, low), high)


TWINS: dict[str, Callable[..., int]] = {
    "half_even": half_even,
    **{name: partial(rounded_code, name) for name in ("tflite", "tflite_single", "shift")},
    "gemmini": gemmini,
}
POWERS = [2.0**-31, 2.0**-20, 2.0**-9, 0.25, 0.5, 1.0, 4.0, 2.0**30]
ANY = [
    0.0, 2.0**-40, 2.0**-32, 2.0**-31, 1.3 * 2.0**-25, 2.0**-20, 1e-3, 0.1, 0.25, 1 / 3, 0.5, 0.75,
    1 - 2.0**-24, 1 - 2.0**-33, 1.0, 1.5, 3.0, 1e6,
]  # fmt: skip


def sums_around(m: Fraction, zero_point: int, low: int, high: int) -> list[int]:
    """Return the int32 sums at and next to the tie between any two codes, and the extremes.

    In a float32 rounding the tie is as wide as the sums' last bit: its edges count as well.
    """
    sums = set(EXTREMES)
    if m:
        for code in range(low - zero_point - 2, high - zero_point + 3):
            tie = math.floor((code + Fraction(1, 2)) / m)
            width = 1 << max(abs(tie).bit_length() - 24, 0)
            for centre in {tie - width // 2, tie, tie + width // 2}:
                sums |= {centre - 1, centre, centre + 1, centre + 2}
    return sorted(acc for acc in sums if -(2**31) <= acc < 2**31)


def test_every_rounding_has_a_twin():
    assert list(TWINS) == list(ROUNDINGS)


@pytest.mark.slow
@pytest.mark.parametrize(("zero_point", "dtype"), [(0, "int8"), (-128, "int8"), (3, "uint8")])
@pytest.mark.parametrize(
    ("rounding", "m"), [(name, m) for name in TWINS for m in (POWERS if name == "shift" else ANY)]
)
@pytest.mark.exhaustive
def test_around_every_tie(rounding, m, zero_point, dtype):
    low, high = LIMITS[dtype]
    sums = sums_around(Fraction(m), zero_point, low, high)
    expected = [TWINS[rounding](acc, Fraction(m), zero_point, low, high) for acc in sums]
    result = requantize(np.array(sums, np.int32), m, zero_point, dtype=dtype, rounding=rounding)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("m", "acc", "expected"),
    [
        (0.5, range(-5, 6), {
            "half_even": [-2, -2, -2, -1, 0, 0, 0, 1, 2, 2, 2],
            "gemmini": [-2, -2, -2, -1, 0, 0, 0, 1, 2, 2, 2],
            "tflite": [-2, -2, -1, -1, 0, 0, 1, 1, 2, 2, 3],
            "tflite_single": [-2, -2, -1, -1, 0, 0, 1, 1, 2, 2, 3],
            "shift": [-2, -2, -1, -1, 0, 0, 1, 1, 2, 2, 3],
        }),
        (0.25, [-10, -6, -5, -2, -1, 1, 2, 5, 6, 9, 10], {
            "half_even": [-2, -2, -1, 0, 0, 0, 0, 1, 2, 2, 2],
            "gemmini": [-2, -2, -1, 0, 0, 0, 0, 1, 2, 2, 2],
            "tflite": [-3, -2, -1, -1, 0, 1, 1, 2, 2, 3, 3],
            "tflite_single": [-2, -1, -1, 0, 0, 0, 1, 1, 2, 2, 3],
            "shift": [-2, -1, -1, 0, 0, 0, 1, 1, 2, 2, 3],
        }),
        # Float32 makes a tie of what lies below it; 31 bits of the multiplier do not.
        (float.fromhex("0x1.f207c8p-9"), [10922], {"half_even": [42], "gemmini": [42], "tflite_single": [41]}),
        (2.0**-26, [33554433], {"half_even": [0], "gemmini": [0], "tflite_single": [1], "shift": [1]}),
    ],
)  # fmt: skip
def test_values(m, acc, expected):
    for rounding, codes in expected.items():
        result = requantize(np.array(acc, np.int32), m, 0, dtype="int8", rounding=rounding)
        assert result.tolist() == codes, rounding


@pytest.mark.slow
@given(
    m=st.floats(2.0**-36, 2.0**29, exclude_max=True),
    sums=st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=30),
    zero_point=st.integers(-128, 127),
)
@example(m=float(np.nextafter(1.0, 0)), sums=EXTREMES, zero_point=127)
@example(m=float(np.nextafter(2.0**30, 0)) / 2, sums=EXTREMES, zero_point=-128)
def test_any_multiplier(m, sums, zero_point):
    acc = np.array(sums, np.int32)
    for rounding, twin in TWINS.items():
        exact = 2.0 ** (math.frexp(m)[1] if m > 2.0**-32 else -31) if rounding == "shift" else m
        expected = [twin(value, Fraction(exact), zero_point, -128, 127) for value in sums]
        assert requantize(acc, exact, zero_point, dtype="int8", rounding=rounding).tolist() == expected, (
            rounding
        )


@pytest.mark.parametrize("rounding", TWINS)
@pytest.mark.parametrize(("axis", "shape"), [(0, (4, 3, 2)), (1, (5, 4, 7)), (-1, (2, 6, 4)), (-1, (0, 4))])
def test_per_channel(rounding, axis, shape):
    m = [2.0**-9, 0.5, 4.0, 2.0**-20] if rounding == "shift" else [0.0031, 0.5, 2.7, 2.0**-20]
    rng = np.random.default_rng(5)
    acc = rng.integers(-1000, 1000, shape, dtype=np.int32) * np.int32(1001)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK", 7)  # cut within channels and between them
        result = requantize(acc, m, 3, dtype="int8", rounding=rounding, axis=axis)
        strided = requantize(np.asfortranarray(acc), m, 3, dtype="int8", rounding=rounding, axis=axis)
    each = [
        requantize(np.take(acc, [c], axis), value, 3, dtype="int8", rounding=rounding)
        for c, value in enumerate(m)
    ]
    np.testing.assert_array_equal(result, np.concatenate(each, axis))
    np.testing.assert_array_equal(strided, result)


def test_integer_roundings_take_doubles():
    # Float32 takes 0.5 + 2^-30 for a half and sees a tie; 31 bits of the multiplier do not.
    m = 0.5 + 2.0**-30
    assert as_multiplier(m) == 0.5 != as_multiplier(m, "tflite")
    q, exponent = fixed_point(m)
    assert (int(q), int(exponent)) == (2**30 + 2, 0)
    acc = np.int32([-1, 1])
    for rounding, expected in {"half_even": [0, 0], "tflite": [-1, 1], "tflite_single": [-1, 1]}.items():
        assert requantize(acc, m, 0, dtype="int8", rounding=rounding).tolist() == expected


# The multiplier as integers


@given(st.floats(0, 2.0**30 - 1))
@example(0.0)
@example(1 - 2.0**-33)
@example(float(np.nextafter(2.0**-32, 0)))
@example(2.0**-32 * (1 - 2.0**-33))
@example(1.9 * 2.0**-33)
@example(2.0**29)
def test_fixed_point(m):
    q, exponent = fixed_point(m)
    assert (int(q), int(exponent)) == normalized(Fraction(m))
    assert q == 0 or 2**30 <= q < 2**31
    assert (
        abs(Fraction(int(q)) * Fraction(2) ** (int(exponent) - 31) - Fraction(m)) <= Fraction(m) / 2**31
        or m < 2.0**-32
    )


def test_fixed_point_keeps_shapes():
    q, exponent = fixed_point(np.array([[0.5, 0.25]]))
    assert (q.shape, exponent.shape, q.dtype, exponent.dtype) == ((1, 2), (1, 2), np.int64, np.int64)
    assert fixed_point(0.5)[0].shape == ()


def test_multiplier_is_a_double_for_integers():
    x, w, y = QuantParams(0.02), QuantParams([0.12902696, 0.5], axis=0), QuantParams(0.05)
    exact = [Fraction(x.scale) * Fraction(s) / Fraction(y.scale) for s in w.scale]
    for rounding in ("tflite", "tflite_single"):
        m = multiplier(x, w, y, rounding)
        assert m.dtype == np.float64
        # The product of two float32 numbers is exact, the quotient is rounded once.
        assert m.tolist() == [float(value) for value in exact]
    single = multiplier(x, w, y)
    assert single.dtype == multiplier(x, w, y, "gemmini").dtype == np.float32
    assert single[0] != np.float32(float(exact[0]))
    assert multiplier(QuantParams(0.5), QuantParams(0.25), QuantParams(4.0), "shift") == 2.0**-5


# Gemmini


@pytest.mark.parametrize("zero_point", [0, -128, 127])
def test_gemmini_and_half_even_clamp_in_another_order(zero_point):
    # Their clamps have whole numbers as bounds, so whether they come before or after rounding is one.
    for m in [*ANY, 3e38]:
        sums = np.array(sums_around(Fraction(m), zero_point, -128, 127), np.int32)
        codes = requantize(sums, m, zero_point, dtype="int8", rounding="gemmini")
        np.testing.assert_array_equal(codes, requantize(sums, m, zero_point, dtype="int8"))


def test_gemmini_without_a_zero_point_takes_other_ties():
    # The hardware has no zero point; in the bias, 3 / 0.5, it comes before rounding.
    acc = np.arange(-5, 6, dtype=np.int32)
    in_bias = requantize(acc + np.int32(6), 0.5, 0, dtype="int8", rounding="gemmini")
    assert in_bias.tolist() == [0, 1, 2, 2, 2, 3, 4, 4, 4, 5, 6]
    after = requantize(acc, 0.5, 3, dtype="int8", rounding="gemmini")
    assert after.tolist() == [1, 1, 1, 2, 3, 3, 3, 4, 5, 5, 5]


# What LiteRT made of it, stored: every system compares with it, without the package.


@pytest.fixture(scope="module")
def table():
    return litert_models.stored()


def from_table(rows, rounding: str) -> list[int]:
    """Return our codes for the table's rows, one call per set of scales and zero point."""
    result: list[int] = []
    for (*scales, zero_point), group in itertools.groupby(rows, lambda row: list(row.values())[:4]):
        m = multiplier(*map(QuantParams, scales), rounding)
        acc = np.array([row["acc"] for row in group], np.int32)
        result += requantize(acc, m, zero_point, dtype="int8", rounding=rounding).tolist()
    return result


def exact_multiplier(row) -> Fraction:
    """Return the row's multiplier as TFLite has it: a quotient in double precision."""
    product = float(row["x_scale"]) * float(row["w_scale"])
    return Fraction(product / float(row["y_scale"]))


def test_table_holds_ties_and_overflows(table):
    assert len(table) > 1000
    assert {row["y_zero_point"] for row in table} == {0, 7, -128}
    assert {2**31 - 1, -(2**31)} <= {row["acc"] for row in table}
    differing = sum(row["conv_reference"] != row["conv_default"] for row in table)
    assert differing > 100


def test_tflite_is_litert_reference_convolution(table):
    assert from_table(table, "tflite") == [row["conv_reference"] for row in table]


@pytest.mark.parametrize("kernel", ["conv_default", "dense_default"])
def test_half_even_is_litert_default(table, kernel):
    # At -2^31 and below XNNPACK's conversion to int32 ends, and a negative zero point wraps; MLAS clamps first.
    ends = [row["acc"] * exact_multiplier(row) < 64 - 2**31 and row["y_zero_point"] < 0 for row in table]
    ours = from_table(table, "half_even")
    for row, code, end in zip(table, ours, ends, strict=True):
        assert code == (-128 if end else row[kernel])
    assert 0 < sum(ends) < 20


def test_tflite_single_is_litert_reference_dense_but_for_negative_ties(table):
    # LiteRT 2.3 rounds the same product once too, but takes ties away from zero.
    checked = ties = 0
    for row, ours in zip(table, from_table(table, "tflite_single"), strict=True):
        q, e = normalized(exact_multiplier(row))
        product, t = row["acc"] * q, 31 - e
        if abs(product >> t) + 128 >= 2**31 or e > 0:
            continue  # beyond int32 either wraps in its own way
        tie = product < 0 and product % 2**t == 2 ** (t - 1)
        low, high = -128, 127
        v = (product + (1 << (t - 1)) >> t) - tie
        assert row["dense_reference"] == min(max(v + row["y_zero_point"], low), high)
        if not tie:
            assert row["dense_reference"] == ours
        checked, ties = checked + 1, ties + (tie and row["dense_reference"] != ours)
    assert checked > 1000 and ties > 20


# What is refused


@pytest.mark.parametrize(
    ("rounding", "scale", "message"),
    [
        ("tflite", -0.5, "scale must be finite in float64 and not negative, not -0.5"),
        ("tflite_single", [0.5, np.nan], "scale must be finite in float64 and not negative, not nan"),
        ("shift", np.inf, "scale must be finite in float64 and not negative, not inf"),
        ("gemmini", 1e39, "scale must be finite in float32 and not negative, not inf"),
        ("gemmini", -1.0, "scale must be finite in float32 and not negative, not -1.0"),
        *(
            (name, [1.0, 2.0**30], "scale must be below 2**30 for a fixed-point multiplier, not 1073741824.0; check the scales")
            for name in ("tflite", "tflite_single")
        ),
        # Below 2^30, but its 31 bits round up to it.
        ("tflite", 2.0**30 - 2.0**-23, "scale must be below 2**30 for a fixed-point multiplier, not 1073741823.9999999; check the scales"),
        *(
            ("shift", scale, "scale must be a power of two from 2**-31 to 2**30 for rounding 'shift', "
             f"not {float(scale)}; choose scales that make it one, or another rounding")
            for scale in (0.0, 0.3, 0.75, 2.0**-32, 2.0**31, 5e-324)
        ),
        ("shift", [0.5, 3.0], "scale must be a power of two from 2**-31 to 2**30 for rounding 'shift', "
         "not 3.0; choose scales that make it one, or another rounding"),
        ("floor", 0.5, "rounding must be one of 'half_even', 'tflite', 'tflite_single', 'shift', 'gemmini', not 'floor'"),
        (None, 0.5, "rounding must be one of 'half_even', 'tflite', 'tflite_single', 'shift', 'gemmini', not None"),
    ],
)  # fmt: skip
def test_multipliers_refused(rounding, scale, message):
    with raises(ValueError, message):
        requantize(np.zeros((0, np.size(scale)), np.int32), scale, 0, dtype="int8", rounding=rounding)
    with raises(ValueError, message):
        as_multiplier(scale, rounding)


@pytest.mark.parametrize("rounding", TWINS)
@pytest.mark.parametrize("dtype", ["int64", "int16", "uint32", "float32"])
def test_sums_must_be_int32(rounding, dtype):
    with raises(TypeError, f"acc must hold int32, not {dtype}; sums wrap to int32 before they are scaled"):
        requantize(np.zeros(3, dtype), 0.5, 0, dtype="int8", rounding=rounding)


def test_multiplier_refuses_by_rounding():
    one = QuantParams(1.0)
    message = (
        "scale must be a power of two from 2**-31 to 2**30 for rounding 'shift', not 3.0; "
        "choose scales that make it one, or another rounding"
    )
    with raises(ValueError, message):
        multiplier(one, QuantParams(3.0), one, "shift")
    with raises(ValueError, "scale must be finite and not negative, not nan"):
        fixed_point([0.5, np.nan])
    with raises(TypeError, "scale must hold float64, not <U1"):
        as_multiplier("1", "tflite")
    with raises(ValueError, "scale must be a number or have one axis (C,), not (1, 1)"):
        as_multiplier([[0.5]], "shift")
