"""What cannot be compiled or run says why, and what to do."""

from __future__ import annotations

import numpy as np
import pytest

import systolic
from support.compiled import machine
from support.strategies import raises
from systolic import ArrayConfig, MachineConfig, Model, Node, QuantParams, Trace
from systolic.isa import Function, Program
from systolic.layers import Conv2d, Dense, Reshape

Q = QuantParams(0.5)
DENSE = Dense(np.ones((20, 12), np.int8), x=Q, w=Q, y=Q)
MODEL = Model([DENSE], inputs={"x": ((None, 20), "int8")})
X = {"x": np.ones((2, 20), np.int8)}


def test_a_machine_without_memories() -> None:
    needs = "a program needs a machine with memories: MachineConfig(..., memory=MemoryConfig(...))"
    for given in (ArrayConfig(4, 4), MachineConfig(ArrayConfig(4, 4))):
        with raises(ValueError, needs):
            systolic.compile(MODEL, machine=given)
        with raises(ValueError, needs):
            systolic.run(systolic.compile(MODEL, machine=machine()), X, machine=given)
    with raises(TypeError, "machine must be a MachineConfig with memories, not int 4"):
        systolic.compile(MODEL, machine=4)


def test_what_is_no_model() -> None:
    message = "model must be a Model, not NoneType None; load_onnx and Model.load read one from a file"
    with raises(TypeError, message):
        systolic.compile(None, machine=machine())


def test_options() -> None:
    with raises(ValueError, "mapping must be one of 'taps', 'im2col', not 'rows'"):
        systolic.compile(MODEL, machine=machine(), mapping="rows")
    with raises(ValueError, "reuse must be a positive integer, not 0"):
        systolic.compile(MODEL, machine=machine(), reuse=0)
    with pytest.raises(ValueError, match="sizes beyond the batch must be given"):
        model = Model([systolic.layers.Identity()], inputs={"x": ((None, None), "int8")})
        systolic.compile(model, machine=machine())


def test_rows_that_are_too_short() -> None:
    with raises(
        ValueError,
        "programs of models need rows of at least 8 bytes, those of the larger side of the array, not row_bytes=7",
    ):
        systolic.compile(MODEL, machine=machine(row_bytes=7))


def test_a_unified_buffer_that_cannot_hold_one_layer() -> None:
    # Three blocks of 8 columns and two of 8 outputs, of one row each.
    systolic.compile(MODEL, machine=machine(ub=5), batch=3)
    with raises(
        ValueError,
        "layer 't0' (QLinearMatMul) needs 5 rows of the unified buffer at once ('x' 3, 't0' 2), and there are 4; "
        "use a machine with a larger unified buffer, or smaller inputs",
    ):
        systolic.compile(MODEL, machine=machine(ub=4), batch=3)


def test_memories_that_are_too_small() -> None:
    with raises(
        ValueError,
        "the model has 6 weight tiles, and the weight memory holds 5; use a machine with a larger weight memory",
    ):
        systolic.compile(MODEL, machine=machine(weight_bytes=5 * 64 + 63))
    with raises(
        ValueError,
        "the model's tensors take 9 rows of host memory, and there are 8; use a machine with more host_rows, or a "
        "smaller batch",
    ):
        systolic.compile(MODEL, machine=machine(host_rows=8), batch=3)


def test_shapes_that_depend_on_values() -> None:
    model = Model(
        [Node(Reshape(), ("x", "shape"), "y", "bend")],
        inputs={"x": ((4,), "float32"), "shape": ((2,), "int64")},
    )
    message = (
        "cannot compile node 'bend' (Reshape): the shape of its output 'y' depends on runtime values; run the model on "
        "a machine without memories, or replace the node by one of fixed shape"
    )
    with raises(ValueError, message):
        systolic.compile(model, machine=machine())
    feeds = {"x": np.zeros(4, np.float32), "shape": np.array([2, 2])}
    with raises(ValueError, message):
        systolic.run(model, feeds, machine=machine())
    assert systolic.run(model, feeds, machine=machine().array).outputs["y"].shape == (2, 2)


def test_inputs_of_programs() -> None:
    program = systolic.compile(MODEL, machine=machine(), batch=2)
    with raises(ValueError, "input 'x' must be int8 (2, 20), not int8 (3, 20)"):
        systolic.run(program, np.ones((3, 20), np.int8), machine=machine())
    with raises(ValueError, "the program takes the inputs 'x', not 'y'"):
        systolic.run(program, {"y": X["x"]}, machine=machine())
    with raises(ValueError, "the program has 0 inputs (); pass a mapping from names to arrays"):
        systolic.run(Program("halt"), X["x"], machine=machine())
    with raises(ValueError, "a program has no layers to trace, probe or observe; run its Model"):
        systolic.run(program, X, machine=machine(), trace=Trace())
    with raises(ValueError, "mode must be one of 'cycle', 'wavefront', not 'fast'"):
        systolic.run(program, X, machine=machine(), mode="fast")


def test_host_functions_of_others() -> None:
    program = Program("host_call f#1, reads (), writes (h#0:1)", [Function(), Function("mine", kind="host")])
    with raises(
        ValueError,
        "the function 'mine' of kind 'host' must have a call, layer, epilogue, patches, copy, not None; pass calls= to "
        "machine.run_program for functions of your own",
    ):
        systolic.run(program, {}, machine=machine())


def test_errors_of_host_layers_name_them() -> None:
    """As those of a model that runs layer by layer."""
    layer = systolic.layers.Gather(axis=0)
    model = Model(
        [Node(layer, ("x", "places"), "y", "take")], inputs={"x": ((4,), "float32"), "places": ((2,), "int64")}
    )
    feeds = {"x": np.zeros(4, np.float32), "places": np.array([0, 9])}
    found = []
    for on in (machine(), machine().array):
        with pytest.raises(ValueError, match=r"^node 'take' \(Gather\): ") as raised:
            systolic.run(model, feeds, machine=on)
        found.append(str(raised.value))
    assert found[0] == found[1]


def test_a_convolution_of_images_that_do_not_fit() -> None:
    layer = Conv2d(np.ones((8, 8, 3, 3), np.int8), x=Q, w=Q, y=Q, padding=1)
    model = Model([layer], inputs={"x": ((None, 8, 6, 6), "int8")})
    with pytest.raises(ValueError, match=r"layer 't0' \(QLinearConv\) needs 100 rows .*\('x' 64, 't0' 36\)"):
        systolic.compile(model, machine=machine(ub=99), batch=4)
    program = systolic.compile(model, machine=machine(ub=100), batch=4)
    assert max(s.first + s.rows for s in program.symbols.values() if s.memory == "ub") == 100


