"""What cannot be compiled or run says why, and what to do."""

from __future__ import annotations

import re
from functools import partial

import numpy as np
import pytest

import systolic
from support.compiled import machine
from support.strategies import raises
from support.toy_layers import Halves
from systolic import ArrayConfig, MachineConfig, Model, Node, QuantParams, Trace
from systolic.engine import RuntimeShapeWarning
from systolic.engine.host_calls import host_calls
from systolic.isa import Function, Program
from systolic.layers import Conv2d, Dense, Reshape
from systolic.machine.timeline import row_bytes

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
    with raises(ValueError, "mapping must be one of 'im2col', 'taps', 'pack', 'best', not 'rows'"):
        systolic.compile(MODEL, machine=machine(), mapping="rows")
    with raises(ValueError, "reuse must be a positive integer, not 0"):
        systolic.compile(MODEL, machine=machine(), reuse=0)
    with pytest.raises(ValueError, match="sizes beyond the batch must be given"):
        model = Model([systolic.layers.Identity()], inputs={"x": ((None, None), "int8")})
        systolic.compile(model, machine=machine())


def test_rows_that_are_too_short() -> None:
    with raises(
        ValueError,
        "programs of models need rows of at least 8 bytes, those of the larger side of the array, not row_bytes=7; "
        "row_bytes=None makes them as long as that",
    ):
        systolic.compile(MODEL, machine=machine(row_bytes=7))


def test_a_unified_buffer_that_cannot_hold_one_layer() -> None:
    # Three blocks of 8 columns and two of 8 outputs, of one row each.
    systolic.compile(MODEL, machine=machine(ub=5), batch=3)
    with raises(
        ValueError,
        "layer 't0' (QLinearMatMul) needs 5 rows of the unified buffer at once ('x' 3, 't0' 2), and there are 4; "
        "use a machine with a larger unified buffer, smaller inputs, or the array alone: machine.array",
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
        "the model's tensors take 8 rows of host memory, and there are 7; use a machine with more host_rows, "
        "a smaller batch, or the array alone (machine=machine.array, or --ideal in the shell)",
    ):
        two = Model([Node(DENSE, "x", "y"), Node(DENSE, "x", "z")], inputs=MODEL.inputs, outputs=["y", "z"])
        systolic.compile(two, machine=machine(host_rows=7), batch=2)
    # At once, though cutting the batch would take long: by the tensors of one layer of the host.
    model = Model([Node(Reshape((0, -1)), "x", "y", "flat")], inputs={"x": ((None, 2, 8), "float32")})
    with raises(
        ValueError,
        "the tensors of layer 'flat' take 1,600,000 rows of host memory, and there are 1,500,000; use a machine with "
        "more host_rows, a smaller batch, or the array alone (machine=machine.array, or --ideal in the shell)",
    ):
        systolic.compile(model, machine=machine(host_rows=1_500_000), batch=10**5)
    for batch in (4, 2**40):  # at once, whatever the size
        with raises(
            ValueError,
            f"the tensor 'x' takes at least {20 * batch // 8:,} rows of host memory, and there are 8; use a machine with more "
            "host_rows, a smaller batch, or the array alone (machine=machine.array, or --ideal in the shell)",
        ):
            systolic.compile(MODEL, machine=machine(host_rows=8), batch=batch)


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
    run = systolic.run(model, feeds, machine=machine())  # no product: the array costs nothing either way
    assert run.outputs["y"].shape == (2, 2) and run.timeline is None
    product = Dense(np.ones((4, 3), np.int8), x=Q, w=Q, y=Q)
    sized = Model(
        [Node(product, "z", "p"), *model.nodes], inputs={**model.inputs, "z": ((1, 4), "int8")}, outputs=["y", "p"]
    )
    warning = re.escape(message) + ".*Its layers now use the array alone"
    feeds["z"] = np.ones((1, 4), np.int8)
    with pytest.warns(RuntimeShapeWarning, match=warning) as warned:
        run = systolic.run(sized, feeds, machine=machine())
    assert warned[0].filename == __file__
    alone = systolic.run(sized, feeds, machine=machine().array)
    assert run.outputs["y"].shape == (2, 2) and run.stats == alone.stats
    with pytest.warns(RuntimeShapeWarning, match=warning) as warned:
        assert systolic.estimate(sized, machine=machine()) == alone.stats
    assert warned[0].filename == __file__


def test_each_run_computes_host_layers_its_own_way() -> None:
    model = Model([Node(Reshape((0, -1)), "x", "y", "flat")], inputs={"x": ((2, 3, 4), "float32")})
    program = systolic.compile(model, machine=machine())
    ran: list[str] = []

    def run(name: str, layer: object, given: list[np.ndarray]) -> np.ndarray:
        ran.append(name)
        return model.nodes[0].layer.apply(*given)

    (number,) = (n for n, function in enumerate(program.functions) if function.kind == "host")
    size = row_bytes(machine(), machine().memory)
    first = host_calls(program, size, partial(run, "first"))[number]
    second = first.with_run(partial(run, "second"))
    x = np.arange(24, dtype=np.float32).view(np.uint8).reshape(-1, size)
    for call in (second, first, second):
        (rows,) = call([x])
        assert np.array_equal(rows.reshape(-1), x.reshape(-1))
    assert ran == ["second", "first", "second"]
    for wrong in (np.zeros((2, 12)), np.zeros((12, 2), np.float32), np.zeros((0, 12), np.float32)):
        message = (
            f"node 'flat' (Reshape): an output is {wrong.dtype} {wrong.shape}, but the program was made for float32 "
            "(2, 12); run the model on the array alone, machine=machine.array, if other sizes are meant"
        )
        with raises(ValueError, message):
            first.with_run(lambda layer, given, wrong=wrong: wrong)([x])


def test_layers_of_a_users_class() -> None:
    model = Model([Node(Halves(), "x", ("left", "right"))], inputs={"x": ((2, 4), "int8")}, outputs=["left", "right"])
    x = np.int8([[1, 2, 3, 4], [5, 6, 7, 8]])
    for _ in range(2):
        outputs = systolic.run(model, x, machine=machine()).outputs
        assert np.array_equal(outputs["left"], x[:, :2]) and np.array_equal(outputs["right"], x[:, 2:])
    program = systolic.compile(model, machine=machine())
    with raises(ValueError, "node 'left' (Halves): there is no layer 'Halves' in systolic.layers; run the model itself"):
        systolic.run(program, x, machine=machine())


def test_inputs_of_programs() -> None:
    program = systolic.compile(MODEL, machine=machine(), batch=2)
    with raises(ValueError, "input 'x' must be int8 (2, 20), not int8 (3, 20)"):
        systolic.run(program, np.ones((3, 20), np.int8), machine=machine())
    with raises(ValueError, "the program takes the inputs 'x', not 'y'"):
        systolic.run(program, {"y": X["x"]}, machine=machine())
    with raises(ValueError, "the program has 0 inputs (); pass a mapping from names to arrays"):
        systolic.run(Program("halt"), X["x"], machine=machine())
    with raises(ValueError, "a program has no layers to trace, probe, observe or keep; run its Model"):
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


def test_host_functions_of_edited_files() -> None:
    """Each error names the function, whatever is missing or wrong in what a file says."""
    model = Model([Node(Reshape((0, -1)), "x", "y", "flat")], inputs={"x": ((2, 3, 4), "float32")})
    program = systolic.compile(model, machine=machine())
    x = np.zeros((2, 3, 4), np.float32)
    systolic.run(program, x, machine=machine())
    (number,) = (n for n, function in enumerate(program.functions) if function.kind == "host")
    function = program.functions[number]
    (place,) = function.attributes["inputs"]
    says = "the function 'flat' of kind 'host' does not say where its inputs and outputs lie "
    node = "node 'flat' (Reshape): "
    for changes, error, message in (
        ({"call": []}, ValueError, "the function 'flat' of kind 'host' must have a call, "),
        ({"inputs": None}, ValueError, says),
        ({"inputs": [None]}, ValueError, says),
        ({"inputs": [{"array": "none"}]}, ValueError, says),
        ({"inputs": [{**place, "first": -1}]}, ValueError, says + "(ValueError: first must be a non-negative integer, not -1)"),
        ({"outputs": [{"shape": [2]}]}, ValueError, says),
        ({"outputs": [{}]}, ValueError, says),
        ({"inputs": [{**place, "shape": [2, 3, 5]}]}, ValueError, node),
        ({"inputs": [place, place]}, RuntimeError, node + "StopIteration: "),
        ({"outputs": []}, ValueError, node),
        ({"layer": 3}, TypeError, node),
        ({"layer": {}}, RuntimeError, node + "KeyError: "),
    ):
        attributes = {**function.attributes, **changes}
        functions = list(program.functions)
        functions[number] = Function("flat", kind="host", attributes=attributes, arrays=function.arrays)
        edited = Program(program.instructions, functions, inputs=program.inputs, outputs=program.outputs)
        with pytest.raises(error, match="^" + re.escape(message)):
            systolic.run(edited, x, machine=machine())


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


def test_a_convolution_of_which_not_even_one_row_fits() -> None:
    layer = Conv2d(np.ones((8, 8, 3, 3), np.int8), x=Q, w=Q, y=Q, padding=1)
    model = Model([layer], inputs={"x": ((None, 8, 6, 6), "int8")})
    with raises(
        ValueError,
        "layer 't0' (QLinearConv) needs 10 rows of the unified buffer at once ('t0 patches' 9, 't0' 1), and there are 9; "
        "use a machine with a larger unified buffer, smaller inputs, or the array alone: machine.array",
    ):
        systolic.compile(model, machine=machine(ub=9), batch=4)
    for ub in (10, 100):
        program = systolic.compile(model, machine=machine(ub=ub), batch=4)
        assert max(s.first + s.rows for s in program.symbols.values() if s.memory == "ub") == ub
