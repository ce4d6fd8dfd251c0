"""Maps of signals: values that round-trip, and clear errors of bad maps, names, widths and X."""

from __future__ import annotations

import copy
import json
import pickle
import types

import numpy as np
import pytest

from support import toy_rtl
from support.strategies import raises
from support.toy_rtl import Toy
from systolic import ArrayConfig, Scoreboard, ScoreboardError, SystolicArray, Trace, matmul
from systolic.cosim import Signal, SignalMap, read_vcd

CONFIG = ArrayConfig(2, 3)
X, W = np.int8([[1, 2], [3, 4], [-5, 6]]), np.int8([[7, -8, 9], [10, 11, -12]])
MAP = SignalMap(signals={"psum": Signal("p{r}_{c}", valid="v{r}", width=16), "weight": "w"}, hop=(1, 2), latency=3)


def test_maps_are_values() -> None:
    assert SignalMap.from_dict(json.loads(json.dumps(MAP.to_dict()))) == MAP == eval(repr(MAP))
    assert hash(MAP) == hash(copy.deepcopy(MAP)) and pickle.loads(pickle.dumps(MAP)) == MAP
    assert SignalMap() != MAP and repr(SignalMap()) == "SignalMap(signals={})"
    assert repr(MAP) == (
        "SignalMap(signals={'psum': Signal('p{r}_{c}', valid='v{r}', width=16), 'weight': 'w'}, latency=3, hop=(1, 2))"
    )
    assert MAP.signal("psum").latency == 3 and MAP.cycle("psum", beat=5, row=1, col=2) == 5 + 3 + 1 + 4
    with pytest.raises(AttributeError):
        MAP.latency = 4  # type: ignore[misc]


def test_bad_maps() -> None:
    def board(**fields: object) -> None:
        Scoreboard(CONFIG, map=SignalMap(**fields))  # type: ignore[arg-type]

    with raises(ValueError, "the map names 'psums', which a weight_stationary array does not have; did you mean 'psum'?"):
        board(signals={"psums": "p"})
    with raises(ValueError, "name 'p_{row}' has a field {row}; its fields are {r} and {c}"):
        board(signals={"psum": "p_{row}"})
    with pytest.raises(ValueError, match=r"^name 'p_\{r' is no format string of \{r\} and \{c\}: "):
        board(signals={"psum": "p_{r"})
    with raises(ValueError, "west_swap is one for each row, but the map names it 's_{c}', with a field {c}"):
        board(signals={"west_swap": "s_{c}"})
    with raises(TypeError, "hop must be (cycles down, cycles right), such as (1, 1), not int 1"):
        board(hop=1)
    with raises(ValueError, "hop must be a non-negative integer, not -1"):
        board(hop=(1, -1))
    with raises(ValueError, "width must be an integer of at most 64, not 65"):
        board(signals={"psum": Signal("p", width=65)})
    with pytest.raises(TypeError, match="^signals must be a dict from the names of registers to those of signals"):
        board(signals="psum")
    with raises(TypeError, "signals must map names to text or Signal, not str 'psum' to int 3"):
        board(signals={"psum": 3})
    with raises(ValueError, "name must name a signal, but is empty"):
        board(signals={"psum": ""})
    with raises(TypeError, "latency must be an integer, not str 'one'"):
        board(latency="one")
    with raises(TypeError, "map must be a systolic.cosim.SignalMap, not dict {}"):
        Scoreboard(CONFIG, map={})  # type: ignore[arg-type]
    with raises(ValueError, "SignalMap has no field 'hops'; did you mean 'hop'?"):
        SignalMap.from_dict({"hops": [1, 1]})
    with raises(ValueError, "the map names no signals; try signals={\"psum\": \"pe_{r}_{c}.psum\"}"):
        Scoreboard(CONFIG, map=SignalMap()).check(X, W, {})
    with raises(ValueError, "weight_pass have no value for each (m, r, c): compare them edge by edge, by compare() or sample()"):
        Scoreboard(CONFIG, map=SignalMap(signals={"weight_pass": "p"})).check(X, W, {"p": []})
    both = SignalMap(signals={"weight_pass": "p", "psum": "q"})
    assert Scoreboard(CONFIG, map=both).check(X, W, {"q": recorded()["psum"]}).compared == 18


def recorded() -> dict[str, np.ndarray]:
    trace = Trace()
    matmul(X, W, array=CONFIG, trace=trace)
    return {name: trace[name] for name in trace.registers}


def bits(value: int, width: int) -> str:
    return format(value % (1 << width), f"0{width}b")


def packed(grid: np.ndarray, width: int) -> int:
    return sum(int(value) % (1 << width) << width * i for i, value in enumerate(grid.ravel()))


@pytest.mark.parametrize("form", ["by cycle", "by signal", "texts", "rows", "columns", "one word", "high first", "cocotb"])
def test_every_form_of_samples(form: str) -> None:
    """One psum in many forms; each is compared, and a changed one is seen."""
    psum = recorded()["psum"]

    def given(psum: np.ndarray) -> tuple[Signal, object]:
        per_pe = {f"pe[{r}][{c}].psum": psum[:, r, c] for r, c in np.ndindex(2, 3)}
        name = "pe[{r}][{c}].psum"
        if form == "by cycle":
            return Signal(name), [{n: v[t].item() for n, v in per_pe.items()} for t in range(len(psum))]
        if form == "by signal":
            return Signal(name), per_pe
        if form == "texts":
            return Signal(name), {n: [bits(int(v), 32) for v in values] for n, values in per_pe.items()}
        if form == "rows":
            return Signal("row{r}"), {f"row{r}": [packed(g[r], 32) for g in psum] for r in range(2)}
        if form == "columns":
            return Signal("col{c}"), ({f"col{c}": packed(g[:, c], 32) for c in range(3)} for g in psum)
        if form == "one word":
            return Signal("psums", width=20), {"psums": [bits(packed(g, 20), 120) for g in psum]}
        if form == "high first":
            return Signal("psums", first="high"), {"psums": [packed(g.ravel()[::-1], 32) for g in psum]}
        array = pytest.importorskip("cocotb.types").LogicArray
        handle = lambda v: types.SimpleNamespace(value=array(bits(int(v), 32)))  # noqa: E731
        return Signal(name), [{n: handle(v[t]) for n, v in per_pe.items()} for t in range(len(psum))]

    signal, samples = given(psum)
    board = Scoreboard(CONFIG, map=SignalMap(signals={"psum": signal}))
    assert board.check(X, W, samples).compared == 18
    wrong = psum.copy()
    wrong[5, 1, 1] -= 40
    report = board.diagnose(X, W, given(wrong)[1])
    assert report.first is not None and report.first[:6] == ("psum", 1, 1, 1, 1, 1) and report.wrong == 1


def test_bad_samples() -> None:
    board = Scoreboard(CONFIG, map=SignalMap(signals={"psum": "pe_{r}_{c}.psum"}))
    good = {f"pe_{r}_{c}.psum": recorded()["psum"][:, r, c].tolist() for r, c in np.ndindex(2, 3)}
    missing = {name: values for name, values in good.items() if name != "pe_1_2.psum"}
    with raises(ValueError, "the samples have no signal 'pe_1_2.psum'; did you mean 'pe_1_1.psum'?"):
        board.check(X, W, missing)
    cycles = [{name: values[t] for name, values in good.items()} for t in range(8)]
    del cycles[3]["pe_0_0.psum"]
    with raises(ValueError, "sample 3 has no signal 'pe_0_0.psum'; did you mean 'pe_1_0.psum'?"):
        board.check(X, W, cycles)
    with raises(TypeError, "sample 0 must be a dict of values by signal, not int 1"):
        board.check(X, W, [1])
    with pytest.raises(TypeError, match="^samples must be a dict of the values of each signal"):
        board.check(X, W, 3)
    with raises(ValueError, "all signals must have one number of samples, but 'pe_0_0.psum' has 7 and 'pe_0_1.psum' 8"):
        board.check(X, W, good | {"pe_0_0.psum": good["pe_0_0.psum"][:7]})
    with raises(ValueError, "there are 7 samples, but the map has values of psum in samples 2 to 7; record 1 more"):
        board.check(X, W, {name: values[:7] for name, values in good.items()})
    with raises(
        ValueError,
        "there are 8 samples, but the map has values of psum in samples -1 to 4; start says which sample is that of cycle 0",
    ):
        board.check(X, W, good, start=-3)
    wide = list(good["pe_0_1.psum"])
    wide[4] = 1 << 40
    with raises(
        ValueError,
        "psum, signal 'pe_0_1.psum', sample 4 holds 1099511627776, which 32 bits do not; the width of its Signal "
        "says how wide a value is",
    ):
        board.check(X, W, good | {"pe_0_1.psum": wide})
    with raises(
        ValueError,
        "psum, signal 'pe_0_1.psum', sample 0 is 16 bits wide, expected 32; the width of its Signal says how wide a value is",
    ):
        board.check(X, W, good | {"pe_0_1.psum": ["0" * 16] * 8})
    with pytest.raises(ValueError, match="must be a text of bits"):
        board.check(X, W, good | {"pe_0_1.psum": ["2" * 32] * 8})
    with raises(TypeError, "psum, signal 'pe_0_1.psum' must hold integers, not float64"):
        board.check(X, W, good | {"pe_0_1.psum": np.zeros(8)})
    with pytest.raises(TypeError, match="must be a number, a text of bits or 1 number, not NoneType None"):
        board.check(X, W, good | {"pe_0_1.psum": [None] * 8})
    with pytest.raises(TypeError, match="without a map, samples are a dict of registers"):
        Scoreboard(CONFIG).check(X, W, [good])


def test_x_and_z_count_where_values_are_due() -> None:
    """X before the first beat is no error; where a value is due it is a wrong one."""
    values = {f"p{r}{c}": [bits(int(v), 32) for v in recorded()["psum"][:, r, c]] for r, c in np.ndindex(2, 3)}
    board = Scoreboard(CONFIG, map=SignalMap(signals={"psum": "p{r}{c}"}))
    values["p00"][0] = "x" * 32
    assert board.check(X, W, values)
    values["p10"][4] = "0" * 28 + "Z1X0"
    with pytest.raises(ScoreboardError, match=r"^psum of PE \(1, 0\) for m 1, n 0, k 1, in sample 4, is X in the RTL, expected 61"):
        board.check(X, W, values)
    # In lockstep, too.
    board = Scoreboard(CONFIG, map=SignalMap(signals={"swap": "s{r}"}))
    board.edge(swap=[1, 0])
    with raises(ScoreboardError, "swap of PE (1, 1) after the edge of cycle 0 is X in the RTL, expected False".replace("False", "0")):
        board.sample({"s0": "001", "s1": "0X0"})


def test_valid_signals_say_when() -> None:
    """The i-th valid cycle is the i-th value, in an array that stalls as it likes."""
    psum = recorded()["psum"]
    # Each edge is followed by as many cycles of rubbish as its number modulo 3.
    seen: dict[str, list] = {"psum": [], "valid": []}
    due = np.zeros((8, 2, 3), bool)
    for r, c in np.ndindex(2, 3):
        due[2 + r + c : 5 + r + c, r, c] = True
    for t in range(8):
        seen["psum"] += [psum[t], *([psum[t] + 99] * (t % 3))]
        seen["valid"] += [due[t], *([np.zeros((2, 3), bool)] * (t % 3))]
    samples = {name: np.array(values) for name, values in seen.items()}
    board = Scoreboard(CONFIG, map=SignalMap(signals={"psum": Signal("psum", valid="valid")}))
    assert board.check(X, W, samples).compared == 18
    samples["valid"][-1, 1, 2] ^= True
    with raises(
        ValueError, "the valid signal 'valid' is 1 in 4 samples, but psum of PE (1, 2) has 3 values in this product"
    ):
        board.check(X, W, samples)


def test_held_psums_must_hold() -> None:
    config = ArrayConfig(2, 2, accumulator_rows=4)
    x, w = np.int8([[1, 2], [3, 4], [5, 6]]), np.int8([[7, 8], [9, 10]])
    seen, _ = toy_rtl.run(config, x, w, Toy(held=True))
    for fields in ({}, {"valid": "valid"}):
        map = SignalMap(signals={"psum": Signal("psum", **fields)}, held_psums=True)
        assert Scoreboard(config, map=map).check(x, w, seen)
    # With more rows than a chunk has rows of x there are idle beats between folds.
    tall = ArrayConfig(3, 2, accumulator_rows=4)
    x, w = np.int8([[1, 2, 3], [3, 4, 5], [5, 6, 7]]), np.int8([[7, 8], [9, 10], [1, -1]])
    seen, _ = toy_rtl.run(tall, x, w, Toy(held=True))
    moving, _ = toy_rtl.run(tall, x, w, Toy())
    map = SignalMap(signals={"psum": "psum"}, held_psums=True)
    assert Scoreboard(tall, map=map).check(x, w, seen)
    assert Scoreboard(tall, map=SignalMap(signals={"psum": "psum"})).check(x, w, seen)
    report = Scoreboard(tall, map=map).diagnose(x, w, moving)
    assert report.first is not None and report.first.got == 0 and report.first[:4] == ("psum", 0, 0, 1)


def test_reads_vcd(tmp_path) -> None:
    pytest.importorskip("vcd")
    trace = Trace()
    matmul(X, W, array=CONFIG, trace=trace)
    trace.to_vcd(tmp_path / "rtl.vcd")
    map = SignalMap(signals={n: f"array.row[{{r}}].pe[{{c}}].{n}" for n in ("psum", "weight", "activation", "swap")})
    board = Scoreboard(CONFIG, map=map)
    assert len(board.signals) == 24 and board.signals[0] == "array.row[0].pe[0].psum"
    samples = read_vcd(tmp_path / "rtl.vcd", clock="array.clk", signals=board.signals)
    assert board.check(X, W, samples)
    everything = read_vcd(tmp_path / "rtl.vcd", clock="array.clk")
    assert everything.keys() > samples.keys() and all(len(column) == 8 for column in everything.values())
    assert board.check(X, W, everything)
    falling = read_vcd(tmp_path / "rtl.vcd", clock="array.clk", edge="falling")
    assert falling["array.cycle"] == everything["array.cycle"]
    with raises(ValueError, "the dump has no signal 'array.clock'; did you mean 'array.clk'?"):
        read_vcd(tmp_path / "rtl.vcd", clock="array.clock")
    with raises(TypeError, "signals must be named by text, not int 3"):
        read_vcd(tmp_path / "rtl.vcd", clock="array.clk", signals=[3])
    with pytest.raises(OSError):
        read_vcd(tmp_path / "none.vcd", clock="clk")
    text = "$var wire 1 ! clk $end\n$var wire 4 \" a [3:0] $end\n$enddefinitions $end\n"
    (tmp_path / "x.vcd").write_text(text + "#0\n0!\nbx \"\n#1\n1!\nb1 \"\n#2\n0!\n#3\n1!\nbz1 \"\n#4\n0!\n#5\n1!\n")
    assert read_vcd(tmp_path / "x.vcd", clock="clk", signals="a") == {"a": ["0001", "zzz1", "zzz1"]}


def test_signals_of_no_map() -> None:
    assert Scoreboard(CONFIG).signals == ()
    with pytest.raises(ValueError, match="by the names of a map"):
        Scoreboard(CONFIG).sample({"psum": 0})
    assert SystolicArray(CONFIG).cycle == 0


DUMP = """$timescale 1ns $end
$scope module top $end
$var wire 1 ! clk $end
$var wire 4 " a [3:0] $end
$var real 64 # r $end
$var wire 1 $ b [1] $end
$var wire 1 % b [0] $end
$upscope $end
$enddefinitions $end
#0
0!
b0011 "
r1.5 #
#5
1!
b101 "
"""


def test_damaged_and_odd_dumps(tmp_path) -> None:
    path = tmp_path / "rtl.vcd"

    def read(text: str | bytes, clock: str = "top.clk", **options) -> dict[str, list[str]]:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_vcd(path, clock=clock, **options)

    # Real numbers and bits dumped one by one have no one text of bits.
    assert read(DUMP) == {"top.clk": ["1"], "top.a": ["0101"]}
    for name, why in ("top.r", "it is a real number"), ("top.b", "there are several of this name"):
        with raises(ValueError, f"the signal '{name}' of the dump cannot be read: {why}"):
            read(DUMP, signals=[name])
    with raises(ValueError, "the clock 'top.a' has 4 bits; name a signal of one"):
        read(DUMP, "top.a")
    for text in ("", "no dump\n", b"\x1f\x8b\x08\x00", DUMP.replace("$upscope", "$upscope $end $upscope")):
        with pytest.raises(ValueError, match="rtl.vcd is no complete VCD file: "):
            read(text)
    for end in range(0, DUMP.index("$enddefinitions $end"), 5):
        with pytest.raises(ValueError, match="rtl.vcd is no complete VCD file: "):
            read(DUMP[:end])
