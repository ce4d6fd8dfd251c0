"""Traces: what is recorded, in how much memory, and how it reads as text, frame, VCD and plot."""

import copy
import pickle

import numpy as np
import pytest

import systolic
from systolic import ArrayConfig, SystolicArray, Trace, matmul
from systolic.reference import ReferenceArray

REGISTERS = tuple(ArrayConfig().register_dtypes)

X = np.array([[1, 2], [3, 4], [-5, 6]], dtype=np.int8)
W = np.array([[7, -8, 9], [10, 11, -12]], dtype=np.int8)
CONFIG = ArrayConfig(2, 3)


def traced(trace, *, runs=(None,)):
    array = SystolicArray(CONFIG, trace=trace).fold(x=X, w=W)
    for cycles in runs:
        array.run(cycles)
    return array


def reference_history():
    """Every register after every edge of the worked example, stepped PE by PE."""
    array = ReferenceArray(2, 3)
    history = []
    for values in systolic.ports(X, W, array=CONFIG):
        names = ("activation", "shift", "swap", "weight", "psum")
        array.step(**{name: getattr(values, name).tolist() for name in names})
        history.append(array.registers())
    return history[:-1]  # the last write of the accumulators is no edge of the array


@pytest.mark.parametrize("runs", [(None,), (1,) * 8, (3, None), (0, 5, 3)])
def test_every_register_of_every_edge(runs):
    trace = Trace()
    array = traced(trace, runs=runs)
    assert array.trace is trace and len(trace) == 8 and trace.cycles.tolist() == list(range(8))
    for name in REGISTERS:
        assert trace[name].dtype == array.registers[name].dtype
        np.testing.assert_array_equal(trace[name], [after[name] for after in reference_history()])


def test_true_records_everything():
    array = traced(True)
    assert len(array.trace) == 8 and array.trace.registers == REGISTERS
    assert SystolicArray(CONFIG).trace is None and SystolicArray(CONFIG, trace=False).trace is None


def test_chosen_registers_pes_and_window():
    trace = Trace(registers=("psum", "swap"), pes=[(1, 2), (0, 0)], cycles=(2, 6))
    traced(trace)
    assert trace.cycles.tolist() == [2, 3, 4, 5] and trace.places() == [(1, 2), (0, 0)]
    history = reference_history()
    for name in ("psum", "swap"):
        expected = [[history[t][name][1, 2], history[t][name][0, 0]] for t in range(2, 6)]
        np.testing.assert_array_equal(trace[name], expected)
    with pytest.raises(KeyError, match="'weight' was not recorded; recorded are psum, swap"):
        trace["weight"]


def test_a_window_beyond_the_run_records_what_there_is():
    trace = Trace(cycles=(6, 100))
    traced(trace)
    assert trace.cycles.tolist() == [6, 7]


def test_a_ring_keeps_the_last_edges():
    trace = Trace(last=3, registers="psum")
    traced(trace)
    assert trace.cycles.tolist() == [5, 6, 7]
    np.testing.assert_array_equal(trace["psum"], [after["psum"] for after in reference_history()[5:]])


def test_steps_by_hand_are_recorded():
    trace = Trace(registers="activation")
    array = SystolicArray(CONFIG, trace=trace)
    array.step(activation=[5, -6]).step(activation=[7, 0])
    assert trace["activation"][:, :, 0].tolist() == [[5, -6], [7, 0]]


def test_reset_and_restore_forget_what_has_not_happened():
    trace = Trace(registers="psum")
    array = traced(trace, runs=(3,))
    state = array.state()
    array.run(3)
    array.restore(state)
    assert trace.cycles.tolist() == [0, 1, 2]
    array.run()
    assert trace.cycles.tolist() == list(range(8))
    np.testing.assert_array_equal(trace["psum"], [after["psum"] for after in reference_history()])
    array.reset()
    assert len(trace) == 0


@pytest.mark.parametrize("mode_of_run", ["matmul", "conv2d"])
def test_products_are_traced(mode_of_run):
    rng = np.random.default_rng(0)
    config = ArrayConfig(4, 3)
    trace = Trace(registers="psum", pes=[(3, 0), (3, 1), (3, 2)])
    if mode_of_run == "matmul":
        x, w = rng.integers(-128, 128, (5, 6), np.int8), rng.integers(-128, 128, (6, 4), np.int8)
        result = matmul(x, w, array=config, trace=trace)
    else:
        x, w = rng.integers(-128, 128, (1, 2, 5, 5), np.int8), rng.integers(-128, 128, (3, 2, 2, 2), np.int8)
        result = systolic.conv2d(x, w, array=config, trace=trace)
    assert result.trace is trace and len(trace) == result.cycles
    fold = result.folds[0]
    bottom = trace["psum"]
    for m in range(fold.m):
        for n in range(fold.n):
            edge = fold.swap_cycle + m + config.rows - 1 + n
            if mode_of_run == "matmul":
                assert bottom[edge, n] == x[m, :4].astype(int) @ w[:4, n].astype(int)
    assert bottom.any()


def test_a_traced_run_gives_the_same():
    rng = np.random.default_rng(1)
    x, w = rng.integers(-128, 128, (40, 9), np.int8), rng.integers(-128, 128, (9, 7), np.int8)
    config = ArrayConfig(4, 3, accumulator_rows=8)
    plain, with_trace = matmul(x, w, array=config), matmul(x, w, array=config, trace=Trace(cycles=(50, 60)))
    np.testing.assert_array_equal(plain.acc, with_trace.acc)
    assert plain.stats == with_trace.stats and len(with_trace.trace) == 10


def test_a_model_traces_the_layer_named():
    example = systolic.load_example()
    machine = ArrayConfig(16, 16)
    first = systolic.run(example.model, example.images[:1], machine=machine, trace=Trace(cycles=(0, 5)))
    assert len(first.trace) == 5 and first.trace["shift"][4, 0].tolist() == [True] * 5 + [False] * 11
    head = Trace(layer="logits_quant", registers="psum", pes=[(15, 9)])
    run = systolic.run(example.model, example.images[:2], machine=machine, trace=head)
    (row,) = [layer for layer in run.layers if layer.name == "logits_quant"]
    assert run.trace is head and len(head) == row.stats.cycles and head["psum"].any()
    with pytest.raises(
        ValueError, match=r"no layer 'nowhere' runs on the array; those that do are stem_quant, "
    ):
        systolic.run(example.model, example.images[:1], trace=Trace(layer="nowhere"))


@pytest.mark.slow
def test_memory_is_bounded_before_anything_runs():
    config = ArrayConfig(256, 256)
    array = SystolicArray(config, trace=Trace(max_bytes=10 << 20))
    array.fold(x=np.ones((2, 256), np.int8), w=np.ones((256, 256), np.int8))
    with pytest.raises(
        ValueError, match=r"^tracing 768 edges of the 256 x 256 array takes 480 MiB, more than "
    ):
        array.run()
    assert array.cycle == 0
    with pytest.raises(ValueError, match="choose cycles="):
        SystolicArray(config, trace=Trace(last=100, max_bytes=10 << 20))
    with pytest.raises(ValueError, match="choose cycles="):
        matmul(np.ones((300, 256), np.int8), np.ones((256, 256), np.int8), trace=True)
    array = SystolicArray(config, trace=Trace(last=4, max_bytes=10 << 20))
    array.fold(x=np.ones((2, 256), np.int8), w=np.ones((256, 256), np.int8)).run()
    assert len(array.trace) == 4


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"registers": "accumulator"}, ValueError, "registers must be one of 'weight', 'next_weight'"),
        ({"registers": ["psum", "psum"]}, ValueError, "registers must name each register once"),
        ({"registers": []}, ValueError, "at least one"),
        ({"pes": []}, ValueError, "pes must hold at least one"),
        ({"pes": [(0, 0), (0, 0)]}, ValueError, "pes must name each PE once"),
        ({"pes": [3]}, ValueError, r"pes must be pairs \(row, col\), but one is 3"),
        ({"pes": [(0, -1)]}, ValueError, "a PE's col must be a non-negative integer, not -1"),
        ({"pes": [(0.5, 1)]}, TypeError, "a PE's row must be an integer"),
        ({"cycles": (5, 5)}, ValueError, r"cycles=\(5, 5\) is an empty window; stop must be above start"),
        ({"cycles": (9, 2)}, ValueError, r"cycles=\(9, 2\) is an empty window"),
        ({"cycles": 7}, ValueError, r"cycles must be \(start, stop\), not 7"),
        ({"cycles": (-1, 2)}, ValueError, "cycles: start must be a non-negative integer"),
        ({"last": 0}, ValueError, "last must be a positive integer, not 0"),
        ({"layer": 3}, TypeError, "layer must be a node's name"),
        ({"max_bytes": 1.5}, TypeError, "max_bytes must be an integer"),
    ],
)
def test_bad_choices(arguments, error, message):
    with pytest.raises(error, match=message):
        Trace(**arguments)


def test_bad_uses():
    with pytest.raises(
        ValueError, match=r"^PE \(2, 0\) lies outside the array of 2 x 3; rows and cols count from 0$"
    ):
        SystolicArray(CONFIG, trace=Trace(pes=[(1, 1), (2, 0)]))
    with pytest.raises(TypeError, match="trace must be True or a Trace, not int 7"):
        SystolicArray(CONFIG, trace=7)
    with pytest.raises(
        ValueError, match="a trace needs mode='cycle': wavefront mode has no registers to record"
    ):
        matmul(X, W, array=CONFIG, mode="wavefront", trace=True)
    with pytest.raises(ValueError, match="nothing is recorded yet"):
        Trace()["psum"]


def test_text():
    trace = Trace(registers=("psum", "shift"))
    traced(trace)
    lines = trace.to_text().splitlines()
    assert len(lines) == 8
    assert lines[3] == "cycle 3 | psum 21 -8 0 / 27 0 0 | shift 0 0 1 / 0 1 1"


def test_frame():
    pytest.importorskip("pandas")
    trace = Trace(registers=("psum", "swap"), pes=[(1, 2), (0, 1)])
    traced(trace)
    frame = trace.to_frame()
    assert list(frame.columns) == ["cycle", "row", "col", "psum", "swap"] and len(frame) == 16
    row = frame[(frame.cycle == 7) & (frame.row == 1)].iloc[0]
    assert (row["col"], row["psum"]) == (2, -117)


def test_values_copy_and_pickle():
    trace = Trace(last=5)
    traced(trace)
    for other in (copy.deepcopy(trace), pickle.loads(pickle.dumps(trace))):
        assert other.to_text() == trace.to_text()
    assert repr(trace).startswith("<Trace of weight,") and "5 edges, cycles 3..7" in repr(trace)
    assert "<table" in trace._repr_html_()


def read_vcd(path):
    """Return {(scopes, name): [(time, value)]} of a VCD file, read by pyvcd's own parser."""
    reader = pytest.importorskip("vcd.reader")
    scopes, names, changes, now = [], {}, {}, 0
    with open(path, "rb") as file:
        for token in reader.tokenize(file):
            if token.kind is reader.TokenKind.SCOPE:
                scopes.append(token.scope.ident)
            elif token.kind is reader.TokenKind.UPSCOPE:
                scopes.pop()
            elif token.kind is reader.TokenKind.VAR:
                names[token.var.id_code] = (".".join(scopes), token.var.reference, token.var.size)
                changes[".".join([*scopes, token.var.reference])] = []
            elif token.kind is reader.TokenKind.CHANGE_TIME:
                now = token.time_change
            elif token.kind in (reader.TokenKind.CHANGE_SCALAR, reader.TokenKind.CHANGE_VECTOR):
                change = (
                    token.scalar_change
                    if token.kind is reader.TokenKind.CHANGE_SCALAR
                    else token.vector_change
                )
                scope, name, _ = names[change.id_code]
                changes[f"{scope}.{name}"].append((now, change.value))
    return changes


def test_vcd_reads_back_as_the_registers(tmp_path):
    pytest.importorskip("vcd")
    trace = Trace()
    array = traced(trace)
    trace.to_vcd(tmp_path / "t.vcd")
    assert [p.name for p in tmp_path.iterdir()] == ["t.vcd"]
    changes = read_vcd(tmp_path / "t.vcd")
    assert len(changes) == 2 + 7 * 6
    bits = {"psum": 32, "shift": 1, "swap": 1}
    for row in range(2):
        for col in range(3):
            for name in REGISTERS:
                signal = changes[f"array.row[{row}].pe[{col}].{name}"]
                for t in range(8):
                    # The value that stands after the edge of cycle t, at time 10 t + 5.
                    value = [v for time, v in signal if time <= 10 * t + 5][-1]
                    expected = int(trace[name][t, row, col]) % (1 << bits.get(name, 8))
                    assert int(value) == expected, (row, col, name, t)
    assert [time for time, value in changes["array.clk"] if value == "1"] == [10 * t + 5 for t in range(8)]
    assert array.cycle == 8


def test_vcd_is_the_same_each_time_and_whole_or_absent(tmp_path):
    pytest.importorskip("vcd")
    trace = Trace(registers="psum")
    with pytest.raises(ValueError, match="nothing is recorded yet"):
        Trace().to_vcd(tmp_path / "no.vcd")
    traced(trace)
    trace.to_vcd(tmp_path / "a.vcd")
    trace.to_vcd(tmp_path / "b.vcd")
    assert (tmp_path / "a.vcd").read_bytes() == (tmp_path / "b.vcd").read_bytes()
    with pytest.raises(OSError):
        trace.to_vcd(tmp_path / "nowhere" / "c.vcd")
    with pytest.raises(OSError):
        trace.to_vcd(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.vcd", "b.vcd"]


def test_plot():
    pytest.importorskip("matplotlib")
    trace = Trace(registers=("psum", "swap"), pes=[(0, 0), (1, 2)])
    traced(trace)
    (axes,) = trace.plot().axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "pe[1][2].swap", "pe[1][2].psum", "pe[0][0].swap", "pe[0][0].psum",
    ]  # fmt: skip
    assert {"7", "21", "-35", "-117"} <= {text.get_text() for text in axes.texts}
    with pytest.raises(ValueError, match="4 signals are too many to draw, the limit is 3"):
        trace.plot(limit=3)


def test_run_until():
    array = SystolicArray(CONFIG).fold(x=X, w=W)
    assert array.run(until=3).cycle == 3
    assert array.run(until=lambda a: a.registers.psum[1, 2] == -15).cycle == 6
    assert array.run(until=lambda a: False).cycle == 8  # never true: until drained
    assert array.run(until=8).cycle == 8
    with pytest.raises(ValueError, match=r"until must be cycle 8 or later, not 7"):
        array.run(until=7)
    with pytest.raises(ValueError, match="either cycles or until"):
        array.run(3, until=9)
    with pytest.raises(TypeError, match="until must be an integer"):
        array.run(until="drained")


def test_diff():
    array = SystolicArray(CONFIG).fold(x=X, w=W).run(4)
    other = SystolicArray(CONFIG).fold(x=X, w=W).run(4)
    assert array.diff(other) == [] and array.diff(other.state()) == []
    before = array.state()
    array.run(1)
    found = {(d.register, d.row, d.col): (d.here, d.other) for d in array.diff(before)}
    assert found["psum", 0, 0] == (-35, 21) and found["next_weight", 1, 2] == (-12, 0)
    assert ("weight", 0, 0) not in found
    with pytest.raises(TypeError, match="diff takes a State or a SystolicArray, not int"):
        array.diff(3)
    with pytest.raises(ValueError, match=r"register weight must be \(2, 3\)"):
        array.diff(SystolicArray(ArrayConfig(3, 3)))
