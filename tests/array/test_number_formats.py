"""Every register of every PE in every number format: the array against the reference, in Python numbers."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.number_formats import (
    assert_same,
    drawn_values,
    fields,
    format_cases,
    formats,
    reference_of,
    special_floats,
    type_of,
)  # fmt: skip
from support.strategies import examples, raises, seeds
from systolic import ArrayConfig, State, SystolicArray
from systolic.dataflows import DATAFLOWS
from systolic.formats import Format


def check_registers(rng: np.random.Generator, config: ArrayConfig, cycles: int) -> None:
    """From any state under any port values, every register equals the reference's."""
    dataflow, rows, cols = config.dataflow_record, config.rows, config.cols
    holds = {register.name: register.holds for register in dataflow.registers}
    state = State(**{name: drawn_values(rng, config.format, holds[name], (rows, cols)) for name in config.register_dtypes})
    ports = {
        port.name: drawn_values(rng, config.format, holds[port.feeds], (cycles, rows if port.side == "west" else cols))
        for port in dataflow.ports
    }
    array = SystolicArray(config).restore(state)
    leaving = array.clock(**ports)
    reference: Any = dataflow.reference(rows, cols, state.registers, reference_of(config.format))
    for t in range(cycles):
        reference.step(**{name: values[t] for name, values in ports.items()})
        assert_same(leaving[t], np.array(getattr(reference, dataflow.leaves)[-1], reference.numbers.held))
    for name, expected in reference.registers().items():
        assert array.registers[name].dtype == config.register_dtypes[name]
        assert_same(array.registers[name], expected)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("numbers", format_cases())
def test_registers_in_each_format(numbers: Format, dataflow: str) -> None:
    rng = np.random.default_rng(7)
    check_registers(rng, ArrayConfig(3, 2, dataflow=dataflow, **fields(numbers)), 7)


@pytest.mark.slow
@examples(150)
@given(formats(), st.sampled_from(list(DATAFLOWS)), st.integers(1, 5), st.integers(1, 20), st.integers(1, 24), seeds)
def test_registers_of_any_size(
    numbers: Format, dataflow: str, rows: int, cols: int, cycles: int, seed: int
) -> None:
    config = ArrayConfig(rows, cols, dataflow=dataflow, **fields(numbers))
    check_registers(np.random.default_rng(seed), config, cycles)


FLOAT8 = ("float8_e4m3fn", "float8_e5m2")


@pytest.mark.parametrize("activation", FLOAT8)
@pytest.mark.parametrize("weight", FLOAT8)
@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_all_pairs_of_float8_in_one_pe(activation: str, weight: str, dataflow: str) -> None:
    """Every product of two float8 values, added to +0 by one PE, is the exact product of the two."""
    config = ArrayConfig(1, 1, dataflow=dataflow, activation_dtype=activation, weight_dtype=weight)
    a, w = (np.ravel(values).astype(np.uint8) for values in np.indices((256, 256)))
    a, w = a.view(type_of(activation)), w.view(type_of(weight))
    always = np.ones((len(a) + 1, 1), bool)
    if dataflow == "output_stationary":  # each swap starts a sum, and the next swap ends it
        ports = {"activation": [*a, 0], "weight": [*w, 0], "swap": always}
    else:  # each weight is used on the cycle after its shift
        west, north = (w, a) if dataflow == "input_stationary" else (a, w)
        ports = {"activation": [0, *west], "weight": [*north, 0], "shift": always, "swap": always}
    types = config.port_dtypes
    given = {name: np.reshape(v, (-1, 1)).astype(types[name]) for name, v in ports.items()}
    with np.errstate(all="ignore"):
        expected = a.astype(np.float32) * w.astype(np.float32) + np.float32(0)
    assert_same(SystolicArray(config).clock(**given)[1:, 0], expected)


def test_sums_that_are_zero_are_positive() -> None:
    numbers = {"activation_dtype": "bfloat16", "weight_dtype": "bfloat16"}
    tiny = np.float32(-1e-30)  # its square underflows
    array = SystolicArray(ArrayConfig(1, 1, **numbers)).step(shift=1, weight=type_of("bfloat16").type(tiny))
    sums = array.clock(activation=np.full((3, 1), 1e-30, type_of("bfloat16")), swap=[[1], [0], [0]],
                       psum=np.float32([[0], [-0.0], [-1e-45]]))  # fmt: skip
    assert_same(sums[:, 0], np.float32([0, 0, -1e-45]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"activation_dtype": "bfloat16"},
         "activations of bfloat16 cannot be multiplied with weights of int8: with bfloat16 go weights of bfloat16"),
        ({"activation_dtype": "int16", "weight_dtype": "uint4"},
         "activations of int16 cannot be multiplied with weights of uint4: with int16 go weights of int8, uint8, "
         "int16, uint16"),
        ({"activation_dtype": "float16", "weight_dtype": "float16", "psum_bits": 24},
         "psum_bits and overflow are for integers: sums of float16 are float32, rounded each time"),
        ({"psum_bits": 40}, "psum_bits must be 16 to 32, or 64, not 40"),
        ({"overflow": "clip"}, "overflow must be one of 'wrap', 'saturate', not 'clip'"),
    ],
)  # fmt: skip
def test_formats_that_do_not_exist(fields: dict[str, Any], message: str) -> None:
    with raises(ValueError, message):
        ArrayConfig(2, 2, **fields)


def test_values_that_do_not_fit_their_register() -> None:
    four = SystolicArray(ArrayConfig(2, 2, weight_dtype="int4", psum_bits=18))
    with raises(ValueError, "w must be -8 to 7, but holds 8"):
        four.fold(x=np.int8([[1]]), w=np.int8([[8, 1]]))
    with raises(ValueError, "weight must be -8 to 7, but holds 9"):
        four.step(weight=9)
    with raises(ValueError, "psum must be -131072 to 131071, but holds 131072"):
        four.clock(psum=[[131072, 0]])
    with raises(ValueError, "register next_weight must be -8 to 7, but holds -9"):
        four.restore(four.state().replace(next_weight=np.full((2, 2), -9, np.int8)))
    assert four.state() == SystolicArray(four.config).state()
    half = SystolicArray(ArrayConfig(1, 1, activation_dtype="float16", weight_dtype="float16"))
    with raises(ValueError, "activation must be exact in float16, but holds 0.1; round it with .astype"):
        half.step(activation=0.1)
    with raises(TypeError, "activation must hold float16, not <U1"):
        half.step(activation="a")
    assert half.step(activation=0.5, psum=3).registers.activation[0, 0] == 0.5


def test_operands_of_another_format() -> None:
    array = SystolicArray(ArrayConfig(2, 2, activation_dtype="bfloat16", weight_dtype="bfloat16"))
    x = np.ones((1, 2), ml_dtypes.bfloat16)
    with raises(
        TypeError,
        "w must hold bfloat16, as the array's config says, not int8; make the array with "
        "ArrayConfig(weight_dtype='int8')",
    ):
        array.fold(x=x, w=np.ones((2, 2), np.int8))
    assert array.fold(x=x, w=np.ones((2, 2), ml_dtypes.bfloat16)).run().outputs[0].dtype == np.float32


def test_four_bits_in_lanes_of_eight() -> None:
    """int4 operands are given as ml_dtypes' int4, or as int8 that fits."""
    config = ArrayConfig(2, 2, activation_dtype="uint4", weight_dtype="int4")
    x, w = np.uint8([[15, 1]]), np.int8([[-8, 7], [1, 2]])
    folds = [
        SystolicArray(config).fold(x=x, w=w),
        SystolicArray(config).fold(x=x.astype(ml_dtypes.uint4), w=w.astype(ml_dtypes.int4)),
    ]
    for array in folds:
        assert array.run().outputs[0].tolist() == [[-119, 107]]
        assert array.registers.weight.dtype == np.int8


def test_special_floats_cover_both_signs() -> None:
    for name in ("bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"):
        values = special_floats(name).astype(np.float64)
        assert np.isnan(values).any() and np.signbit(values[values == 0]).any()
