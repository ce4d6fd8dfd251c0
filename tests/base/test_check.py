"""Argument checks: what passes, and the message of what does not."""

from __future__ import annotations

import numpy as np
import pytest

import systolic
from support.strategies import raises
from systolic import _check
from systolic.cosim import unpack


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3), np.array(3)])
def test_integer_takes_every_kind_of_integer(value) -> None:
    result = _check.integer(value, "n", minimum=3, maximum=3)
    assert result == 3 and type(result) is int


@pytest.mark.parametrize(
    ("value", "bounds", "error", "message"),
    [
        (3.0, {}, TypeError, "n must be an integer, not float 3.0"),
        ("3", {}, TypeError, "n must be an integer, not str '3'"),
        (None, {}, TypeError, "n must be an integer, not NoneType None"),
        (True, {}, TypeError, "n must be an integer, not True"),
        (np.True_, {}, TypeError, f"n must be an integer, not {np.True_!r}"),
        ([1] * 50, {}, TypeError, f"n must be an integer, not list {repr([1] * 50)[:57]}..."),
        (-1, {"minimum": 0}, ValueError, "n must be a non-negative integer, not -1"),
        (0, {"minimum": 1}, ValueError, "n must be a positive integer, not 0"),
        (1, {"minimum": 2}, ValueError, "n must be an integer of at least 2, not 1"),
        (9, {"maximum": 8}, ValueError, "n must be an integer of at most 8, not 9"),
    ],
)
def test_integer_rejects(value, bounds, error: type[Exception], message: str) -> None:
    with raises(error, message):
        _check.integer(value, "n", **bounds)


def test_flag() -> None:
    assert _check.flag(True, "f") is True and _check.flag(np.False_, "f") is False
    for value, kind in ((1, "int 1"), ("yes", "str 'yes'"), (None, "NoneType None")):
        with raises(TypeError, f"f must be True or False, not {kind}"):
            _check.flag(value, "f")


def test_choice() -> None:
    assert _check.choice("a", "c", ("a", "b")) == "a"
    for value in ("c", 1, None, ["a"]):
        with raises(ValueError, f"c must be one of 'a', 'b', not {value!r}"):
            _check.choice(value, "c", ("a", "b"))


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.int16(2)])
def test_positive_real_takes_numbers(value) -> None:
    result = _check.positive_real(value, "r")
    assert result == 2.0 and type(result) is float


@pytest.mark.parametrize("value", [0, -1.5, float("inf"), float("nan")])
def test_positive_real_rejects_values(value: float) -> None:
    with raises(ValueError, f"r must be finite and above zero, not {value!r}"):
        _check.positive_real(value, "r")


@pytest.mark.parametrize("value", ["2", None, True, 2j, np.complex64(1)])
def test_positive_real_rejects_kinds(value) -> None:
    with pytest.raises(TypeError, match="^r must be a number, not "):
        _check.positive_real(value, "r")


@pytest.mark.parametrize(
    ("value", "name"), [("int8", "int8"), (np.uint8, "uint8"), (np.dtype("int8"), "int8"), ("b", "int8")]
)
def test_operand_dtype(value, name: str) -> None:
    assert _check.operand_dtype(value, "d") == name


def test_operand_dtype_rejects() -> None:
    with raises(ValueError, "d must be 'int8' or 'uint8', not 'int16'"):
        _check.operand_dtype("int16", "d")
    with raises(TypeError, "d must be 'int8' or 'uint8', not 'octet'"):
        _check.operand_dtype("octet", "d")


@pytest.mark.parametrize("text", ["i4,(", ",", "\ud800", "octet", 3, None, [("a", "i4")]])
def test_what_is_no_dtype(text) -> None:
    assert _check.dtype_or_none(text) is None
    with pytest.raises(TypeError, match="^d must be 'int8' or 'uint8', not "):
        _check.operand_dtype(text, "d")
    with pytest.raises(TypeError, match="^dtype must be "):
        unpack(0, 1, 1, dtype=text)
    with pytest.raises(TypeError, match="^dtype must be one of "):
        systolic.QuantParams(1.0, dtype=text)
    with pytest.raises(TypeError, match="^Relu takes types, such as 'int8', not "):
        systolic.layers.Relu().output_dtype(text)


def test_operand_copies_nothing() -> None:
    array = np.zeros((4, 6), np.int8)[::2, ::3]
    assert _check.operand(array, "x", ndim=2) is array


def test_integers_converts_only_what_fits() -> None:
    assert _check.integers([1, -128, 127], "v", "int8").dtype == np.int8
    assert _check.integers(np.array([1, 255], ">i4"), "v", "uint8").tolist() == [1, 255]
    assert _check.integers([True, False], "v", "int32").tolist() == [1, 0]
    assert _check.integers([0, 1], "v", "bool").dtype == bool
    array = np.arange(3, dtype=np.int8)
    assert _check.integers(array, "v", "int8") is array
    assert _check.integers(np.zeros(0, np.int64), "v", "int8").size == 0
    for value, dtype, message in (
        ([1, 128], "int8", "v must fit int8 (-128..127), but holds 128"),
        ([-1, 300], "uint8", "v must fit uint8 (0..255), but holds -1"),
        (2, "bool", "v must fit bool (0..1), but holds 2"),
        (np.uint64(2**63), "int64", f"v must fit int64 ({-(2**63)}..{2**63 - 1}), but holds {2**63}"),
    ):
        with raises(ValueError, message):
            _check.integers(value, "v", dtype)
    with raises(TypeError, "v must hold integers, not float64"):
        _check.integers([1.0], "v", "int8")


def test_shape() -> None:
    assert [_check.shape(s) for s in ((), (3,), (2, 3), (None, 4))] == ["()", "(3,)", "(2, 3)", "(?, 4)"]
