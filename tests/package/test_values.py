"""Every value type pickles, deep-copies, compares and shows itself; configs and stats round-trip through JSON."""

import copy
import json
import pickle

import numpy as np
import pytest

import systolic
from systolic import ArrayConfig, MachineConfig, Stats, SystolicArray
from systolic.analysis import explain, roofline
from systolic.benchmark import Measurement
from systolic.cosim import Signal, SignalMap
from systolic.isa import Program
from systolic.machine import time_program
from systolic.verifier import Mismatch

X, W = np.int8([[1, 2], [3, 4], [-5, 6]]), np.int8([[7, -8, 9], [10, 11, -12]])
CONFIG = ArrayConfig(2, 3)
EXAMPLE = systolic.load_example()
RUN = systolic.run(EXAMPLE.model, EXAMPLE.images[:1], mode="wavefront")
RESULT = systolic.matmul(X, W, array=CONFIG, trace=True)
MOVING = SystolicArray(CONFIG, trace=True).fold(x=X, w=W).run(4)
PROGRAM = Program("read_weights w#0, 1\nread_host u#0, 3\nmatmul a#0, u#0, 3\nactivate u#3, a#0, 3")
MACHINE = MachineConfig(CONFIG, memory=systolic.presets.TPU_V1.memory)
TIMELINE = time_program(PROGRAM, MACHINE)
VALUES = [
    CONFIG,
    MachineConfig(CONFIG, clock_mhz=940),
    systolic.Gemm(1, 2, 3, groups=4),
    RESULT,
    RESULT.folds,
    RESULT.folds[0],
    RESULT.stats,
    RESULT.trace,
    RUN,
    RUN.layers[1],
    EXAMPLE,
    EXAMPLE.model,
    EXAMPLE.model.nodes[1],
    EXAMPLE.model.nodes[1].layer,
    EXAMPLE.model.inputs["pixels"],
    systolic.QuantParams([0.5, 0.25], [1, 2], "uint8", axis=0),
    MOVING,
    MOVING.state(),
    MOVING.registers,
    MOVING.diff(SystolicArray(CONFIG))[0],
    next(systolic.ports(X, W, array=CONFIG)),
    systolic.verify(cases=4),
    Mismatch(case="matmul", stage="array", index=(1, 2), fold=RESULT.folds[0], pe=(0, 1), cycle=3),
    systolic.ScoreboardError("psum", 0, 1, 2, 3, 4, 5),
    systolic.VerificationError(systolic.verify(cases=1)),
    SignalMap(signals={"psum": Signal("p", width=8)}),
    systolic.Scoreboard(CONFIG).diagnose(X, W, outputs=X.astype(int) @ W + 1),
    Measurement("a", "b", "MAC/s", 2.0, 1.0, 2.0),
    PROGRAM,
    TIMELINE,
    TIMELINE.layers()[0],
    TIMELINE.occupancy()["ub"],
    roofline(PROGRAM, MACHINE),
    explain(PROGRAM, MACHINE),
]


def plain(value):
    """Return what a value holds, as text that differs where values differ."""
    if isinstance(value, SystolicArray):
        return plain(value.run().outputs), value.cycle
    if isinstance(value, systolic.Result | systolic.Run):
        arrays = [value.acc] if isinstance(value, systolic.Result) else list(value.outputs.values())
        return json.dumps(value.to_dict()), plain(arrays)
    if isinstance(value, systolic.Trace):
        return value.to_text()
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.tolist()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return repr(value)


@pytest.mark.parametrize("value", VALUES, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("twin", [copy.deepcopy, copy.copy, lambda v: pickle.loads(pickle.dumps(v))])
def test_copies_and_pickles(value, twin):
    other = twin(value)
    assert type(other) is type(value)
    assert plain(other) == plain(copy.deepcopy(value))


def test_results_of_programs_compare() -> None:
    """By values, those that hold arrays too."""
    other = time_program(Program("read_weights w#0, 1\nread_host u#0, 3\nmatmul a#0, u#0, 2"), MACHINE)
    for of in (lambda t: t, lambda t: t.occupancy()["acc"], lambda t: explain(t.program, MACHINE), lambda t: roofline(t.program, MACHINE)):
        value = of(TIMELINE)
        assert value == copy.deepcopy(value) == pickle.loads(pickle.dumps(value)) == of(time_program(PROGRAM, MACHINE))
        assert value != of(other) and value != 1 and not bool(value == of(other))


@pytest.mark.parametrize("value", VALUES, ids=lambda v: type(v).__name__)
def test_has_a_repr_of_its_own(value):
    assert " object at 0x" not in repr(value)


@pytest.mark.parametrize(
    "value",
    [CONFIG, VALUES[1], RESULT, RESULT.folds, RESULT.stats, RUN, EXAMPLE.model, MOVING, MOVING.registers,
     VALUES[21], RESULT.trace, *VALUES[-6:-4], *VALUES[-3:]],
    ids=lambda v: type(v).__name__,
)  # fmt: skip
def test_shows_itself_in_a_notebook(value):
    html = value._repr_html_()
    assert html.startswith("<table") and html.count("<tr") >= 2


@pytest.mark.parametrize(
    "value", [CONFIG, VALUES[1], Stats(cycles=3, macs=5), VALUES[15]], ids=lambda v: type(v).__name__
)
def test_round_trips_through_json(value):
    assert type(value).from_dict(json.loads(json.dumps(value.to_dict()))) == value
