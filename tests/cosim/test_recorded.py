"""A recorded product: right arrays pass under their own map only, each usual mistake is named."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support import toy_rtl
from support.strategies import examples, raises, seeds
from support.toy_rtl import Toy
from systolic import ArrayConfig, Scoreboard, ScoreboardError, SystolicArray, Trace, matmul
from systolic.cosim import MISTAKES, Report, Signal, SignalMap
from systolic.cosim.local_time import Product, expected
from systolic.cosim.mistakes import where
from systolic.cosim.model import Change, Model
from systolic.dataflows import DATAFLOWS
from systolic.formats import FORMATS, differ

# The toy's mistakes, and what each is called.
SUMS = {
    "activations unsigned": "signed and unsigned mixed up",
    "weights unsigned": "signed and unsigned mixed up",
    "product extended with zeros": "missing sign extension",
    "product cut": "missing sign extension",
    "sum cut": "missing sign extension",
    "sum extended with zeros": "missing sign extension",
    "accumulators not cleared": "accumulators not cleared",
}
PORTS = {
    "rows reversed": "rows loaded in the wrong order",
    "tile transposed": "a transposed tile",
    "swap late": "swap late",
    "swap early": "swap early",
    "activations late by row": "one cycle of skew too many",
    "activations early by row": "one cycle of skew too few",
    "activations late from a row": "one cycle of skew too many",
    "activations early in a row": "one cycle of skew too few",
    "weights late from a column": "one cycle of skew too many",
    "weights early by column": "one cycle of skew too few",
}
INSIDE = {
    "activations late by column": "one cycle of skew too many",
    "swap taken from its register": "swap late",
    "multiplies with the weight register": "swap late",
}
CASES = [
    (dataflow, mistake, name)
    for dataflow in DATAFLOWS
    for mistake, name in (SUMS | PORTS | (INSIDE if dataflow != "output_stationary" else {})).items()
    # Input stationary is the weight-stationary hardware.
    if dataflow != "input_stationary" or mistake in ("rows reversed", "tile transposed", "weights unsigned")
]


def operands(seed: int, m: int, k: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(-128, 128, (m, k), np.int8), rng.integers(-128, 128, (k, n), np.int8)


def sums_of(config: ArrayConfig) -> str:
    return config.dataflow_record.register_of("sum").name


def names(report: Report) -> list[str]:
    return [finding.name for finding in report.findings]


def hops() -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(0, 2), st.integers(0, 2))


@given(
    st.sampled_from([*DATAFLOWS]), hops(), st.integers(0, 2), st.booleans(),
    st.tuples(*(st.integers(1, 4) for _ in range(2))), st.tuples(*(st.integers(1, 7) for _ in range(3))), seeds,
)  # fmt: skip
@examples(8)
def test_right_arrays_pass_under_their_own_map_only(dataflow, hop, latency, held, size, product, seed):
    """No skew, two cycles a hop, held psums, more latency: all are right if the map says so."""
    config = ArrayConfig(*size, dataflow=dataflow, accumulator_rows=8)
    x, w = operands(seed, *product)
    held = held and dataflow != "output_stationary"
    seen, outputs = toy_rtl.run(config, x, w, Toy(hop=hop, latency=latency, held=held))
    np.testing.assert_array_equal(outputs, x.astype(int) @ w)
    sums = sums_of(config)
    recorded = (sums, "activation", "weight", "swap", *(("out",) if dataflow == "output_stationary" else ("shift",)))
    board = Scoreboard(config, map=SignalMap(signals={n: n for n in recorded}, hop=hop, latency=latency, held_psums=held))
    report = board.check(x, w, seen, outputs=outputs)
    assert report and report.wrong == 0 and report.compared == board.compared > outputs.size
    if held:
        valid = SignalMap(signals={sums: Signal(sums, valid="valid")}, held_psums=True)
        assert Scoreboard(config, map=valid).check(x, w, seen)
    wrong = (hop[0], hop[1] + 1) if config.cols > 1 else (hop[0] + 1, hop[1])
    if config.rows * config.cols > 1 and config.cols > (config.rows > 1):
        seen = {name: np.concatenate([v, np.zeros((9, *v.shape[1:]), v.dtype)]) for name, v in seen.items()}
        other = Scoreboard(config, map=SignalMap(signals={sums: sums}, hop=wrong, latency=latency)).diagnose(x, w, seen)
        right = x.astype(int) @ w
        if other and np.count_nonzero(right) > 4:
            assert product[1] == 1 or min(product) == 1  # a column that is not used
        elif not other:
            assert names(other)[0] == "values at other times"


@pytest.mark.parametrize(("dataflow", "mistake", "name"), CASES)
def test_each_usual_mistake_is_named(dataflow: str, mistake: str, name: str) -> None:
    config = ArrayConfig(3, 3, dataflow=dataflow, accumulator_rows=8)
    x, w = operands(0, 7, 6, 5)
    seen, outputs = toy_rtl.run(config, x, w, Toy(mistake=mistake, lane=1))
    sums = sums_of(config)
    with pytest.raises(ScoreboardError) as caught:
        Scoreboard(config, map=SignalMap(signals={sums: sums})).check(x, w, seen, outputs=outputs)
    error, report = caught.value, caught.value.report
    assert report is not None and not report and names(report) == [name], str(report)
    assert str(error) == str(report) and name in str(error)
    assert pickle.loads(pickle.dumps(error)).report == report == copy.deepcopy(report)


@pytest.mark.parametrize("case", [case for case in CASES if case[1] in ("rows reversed", "swap late", "sum cut")])
def test_the_product_alone_tells_mistakes_too(case: tuple[str, str, str]) -> None:
    dataflow, mistake, name = case
    config, (x, w) = ArrayConfig(3, 3, dataflow=dataflow, accumulator_rows=8), operands(0, 5, 6, 4)
    _, outputs = toy_rtl.run(config, x, w, Toy(mistake=mistake))
    report = Scoreboard(config).diagnose(x, w, outputs=outputs)
    assert name in names(report), str(report)


@pytest.mark.slow
@given(
    st.sampled_from(CASES), hops(), st.integers(0, 1),
    st.tuples(*(st.integers(1, 4) for _ in range(2))), st.tuples(*(st.integers(1, 6) for _ in range(3))),
    st.integers(0, 3), seeds,
)  # fmt: skip
@examples(25)
def test_mistakes_of_any_size_are_named(case, hop, latency, size, product, lane, seed):
    """The mistake that was planted is among those named, whatever the array's hops are."""
    dataflow, mistake, name = case
    if mistake == "swap taken from its register" or mistake.startswith(("weights late", "weights early")):
        hop = (1, 1)
    config = ArrayConfig(*size, dataflow=dataflow, accumulator_rows=8)
    x, w = operands(seed, *product)
    toy = Toy(mistake=mistake, lane=lane % min(size), hop=hop, latency=latency)
    seen, outputs = toy_rtl.run(config, x, w, toy)
    sums = sums_of(config)
    signals = {sums: sums}
    if dataflow == "output_stationary":
        signals["out"] = "out"
    board = Scoreboard(config, map=SignalMap(signals=signals, hop=hop, latency=latency))
    report = board.diagnose(x, w, seen, outputs=outputs)
    if not report:
        assert name in names(report), str(report)


@pytest.mark.parametrize("mistake", ["activations late by row", "swap late", "weights unsigned"])
@pytest.mark.parametrize("stalls", [False, True])
def test_mistakes_of_arrays_that_stall_are_named(mistake: str, stalls: bool) -> None:
    """By valid signals: the clock stands still now and then, whatever the registers show meanwhile."""
    config, (x, w) = ArrayConfig(3, 2, accumulator_rows=8), operands(3, 6, 5, 3)
    seen, _ = toy_rtl.run(config, x, w, Toy(mistake=mistake))
    valid = seen["valid"].astype(bool)
    if stalls:
        repeated = np.repeat(np.arange(len(valid)), 1 + np.arange(len(valid)) % 3)
        again = np.concatenate([[False], repeated[1:] == repeated[:-1]])
        seen = {name: values[repeated] for name, values in seen.items()}
        valid = seen["valid"].astype(bool) & ~again[:, None, None]
    board = Scoreboard(config, map=SignalMap(signals={"psum": Signal("psum", valid="valid")}))
    report = board.diagnose(x, w, {"psum": seen["psum"], "valid": valid})
    assert PORTS.get(mistake, SUMS.get(mistake)) in names(report), str(report)


def test_the_most_upstream_pe_comes_first() -> None:
    """A wrong product in one PE is inherited by the sums below; the PE itself is named, with its (m, r, c)."""
    config, (x, w) = ArrayConfig(4, 3), operands(1, 6, 4, 3)
    trace = Trace()
    matmul(x, w, array=config, trace=trace)
    psum = trace["psum"].copy()
    for r in (1, 2, 3):  # row 2 of x stands in PE (1, 2) after the edge of cycle 4 + 2 + 1 + 2
        psum[4 + 2 + r + 2, r, 2] += 5
    psum[4 + 1 + 3, 3, 0] += 1
    report = Scoreboard(config).diagnose(x, w, {"psum": psum})
    first, second = report.upstream
    assert first[:7] == ("psum", 1, 2, 2, 2, 1, 9) and first.got == first.expected + 5
    assert second[:7] == ("psum", 3, 0, 1, 0, 3, 8) and report.wrong == 4
    assert str(report).splitlines() == [
        f"psum of PE (1, 2) for m 2, n 2, k 1, in sample 9, is {first.got} in the RTL, expected {first.expected}",
        "4 of 72 values differ; with right inputs also in (3, 0)",
        f"none of {report.tried:,} usual mistakes makes these numbers",
    ]


def test_operands_are_upstream_of_sums() -> None:
    config, (x, w) = ArrayConfig(2, 3), operands(2, 4, 2, 3)
    trace = Trace()
    matmul(x, w, array=config, trace=trace)
    seen = {name: trace[name].copy() for name in ("psum", "activation", "weight")}
    seen["activation"][5, 1, 1] += 1  # m = 5 - 2 - 1 - 1
    seen["activation"][6, 1, 2] += 1
    seen["psum"][5, 1, 1] += 7
    report = Scoreboard(config).diagnose(x, w, seen)
    assert report.first is not None and report.first[:7] == ("activation", 1, 1, 1, 1, 1, 5)
    assert len(report.upstream) == 1


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("pair", [
    ("uint8", "int8"), ("int4", "uint4"), ("int16", "int8"), ("bfloat16", "bfloat16"),
    ("float8_e4m3fn", "float8_e5m2"),
])  # fmt: skip
def test_the_model_without_a_mistake_is_the_emulator(dataflow: str, pair: tuple[str, str]) -> None:
    kinds = {"psum_bits": 18, "overflow": "saturate"} if FORMATS[pair].sum == "int32" else {}
    config = ArrayConfig(
        3, 2, activation_dtype=pair[0], weight_dtype=pair[1], dataflow=dataflow, accumulator_rows=8, **kinds
    )
    x, w = of_type(pair[0], (6, 5)), of_type(pair[1], (5, 3))
    product = Product.of(config, x, w)
    values = Model(product).values(Change())
    compared = [name for name in values if name in product.places and name != "accumulator"]
    right = expected(product, compared, None)
    result = matmul(x, w, array=config)
    np.testing.assert_array_equal(values["outputs"], result.acc.astype(values["outputs"].dtype))
    np.testing.assert_array_equal(right["outputs"], values["outputs"])
    np.testing.assert_array_equal(right["accumulator"], values["accumulator"])
    assert len(compared) >= 9
    for name in compared:
        assert not differ(values[name], right[name]).any(), name
    # Numbers of every type are compared.
    trace = Trace()
    matmul(x, w, array=config, trace=trace)
    sums = sums_of(config)
    assert Scoreboard(config).check(x, w, {sums: trace[sums]}, outputs=result.acc)
    other = result.acc.copy()
    other[1, 2] += 1
    report = Scoreboard(config).diagnose(x, w, outputs=other)
    assert report.first is not None and report.first[:6] == ("outputs", 1, 2, 1, 2, None)


def of_type(name: str, shape: tuple[int, int]) -> np.ndarray:
    rng = np.random.default_rng(3)
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    if "float" in name:
        return rng.uniform(-4, 4, shape).astype(dtype)
    info = ml_dtypes.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, endpoint=True).astype(dtype)


def test_other_formats_have_their_mistakes() -> None:
    config = ArrayConfig(2, 2, activation_dtype="bfloat16", weight_dtype="bfloat16")
    x, w = of_type("bfloat16", (4, 4)), of_type("bfloat16", (4, 2))
    flipped = np.concatenate([w[1::-1], w[:1:-1]])
    trace = Trace()
    matmul(x, flipped, array=config, trace=trace)
    report = Scoreboard(config).diagnose(x, w, {"psum": trace["psum"]})
    assert names(report) == ["rows loaded in the wrong order"]
    saturating = ArrayConfig(2, 2, psum_bits=16, overflow="saturate")
    x, w = np.full((2, 4), 127, np.int8), np.full((4, 2), 127, np.int8)
    wrapped = matmul(x, w, array=ArrayConfig(2, 2, psum_bits=16)).acc
    assert "saturated for wrapped, or wrapped for saturated" in names(Scoreboard(saturating).diagnose(x, w, outputs=wrapped))
    unsigned = ArrayConfig(2, 2, activation_dtype="uint8")
    x, w = np.uint8([[200, 3], [4, 255]]), np.int8([[5, -6], [7, 8]])
    report = Scoreboard(unsigned).diagnose(x, w, outputs=x.view(np.int8).astype(int) @ w)
    assert [*map(str, report.findings)] == ["signed and unsigned mixed up: activations signed for unsigned"]


def test_several_mistakes_that_are_one_are_all_named() -> None:
    """A symmetric tile of one row cannot tell which it was."""
    config, x, w = ArrayConfig(2, 2), np.int8([[1, 0], [0, 1]]), np.int8([[5, 7], [7, 9]])
    report = Scoreboard(config).diagnose(x, w, outputs=w[::-1])
    assert len(report.findings) > 1 and "rows loaded in the wrong order" in names(report)
    assert "several usual mistakes make these numbers; other operands may tell them apart:" in str(report)


def test_accumulators_and_ports_of_a_map() -> None:
    """The accumulator's writes, at its row below the array, and what the bench drove."""
    config, (x, w) = ArrayConfig(2, 3, accumulator_rows=6), operands(4, 4, 5, 4)
    board = Scoreboard(config, map=SignalMap(signals={"accumulator": "acc_{c}", "west_activation": "a", "north_weight": "w"}))
    from systolic import ports

    memory, writes, west, north = np.zeros((2, 3, 3), np.int64), [], [], []
    below = np.zeros(3, np.int64)
    array = Scoreboard(config)
    for on in ports(x, w, array=config):
        line = np.zeros(3, np.int64)
        for c in np.flatnonzero(on.write):
            at = on.half[c], on.row[c], c
            memory[at] = below[c] + (0 if on.first[c] else memory[at])
            line[c] = memory[at]
        array.edge(**on.ports)
        below = array.expected.psum[-1].astype(np.int64)
        writes.append(line)
        west.append(on.activation)
        north.append(on.weight)
    samples: dict[str, Any] = {f"acc_{c}": [int(line[c]) for line in writes] for c in range(3)}
    samples |= {"a": np.array(west), "w": np.array(north)}
    assert board.check(x, w, samples)
    samples["acc_1"][7] += 1
    samples["a"] = samples["a"].copy()
    samples["a"][3, 1] ^= 1
    report = board.diagnose(x, w, samples)
    assert report.first is not None and report.first.register == "west_activation" and report.wrong == 2
    assert str(report).startswith("west_activation of row 1 for m 0, n 0, k 1, in sample 3, is ")
    assert "accumulator below column 1 for " in str(report.upstream[1])


def test_state_is_where_the_product_starts() -> None:
    """Sums on their way at the start belong to the expected values."""
    config, (x, w) = ArrayConfig(3, 2), operands(5, 4, 3, 2)
    board = Scoreboard(config, state={"psum": np.full((3, 2), 1000)})
    assert board.expected.psum[2, 1] == 1000
    board.edge()
    board.compare(psum=[[0, 0], [1000, 1000], [1000, 1000]])
    board.reset()
    assert board.expected.psum.all()
    trace = Trace()
    matmul(x, w, array=config, trace=trace)
    assert board.check(x, w, {"psum": trace["psum"]})
    late = Scoreboard(config, state=board.array.state().replace(cycle=7))
    assert late.check(x, w, {"psum": trace["psum"]})
    late.edge()
    with pytest.raises(ScoreboardError, match="after the edge of cycle 7 is 5 in the RTL, expected 0"):
        late.compare(psum=[[5, 0], [1000, 1000], [1000, 1000]])


def test_the_table_is_complete() -> None:
    assert len({mistake.name for mistake in MISTAKES}) == len(MISTAKES)
    planted = {name for _, _, name in CASES}
    others = {
        "accumulators do not add", "sums taken at the wrong time", "lanes in the wrong order",
        "saturated for wrapped, or wrapped for saturated",
    }  # fmt: skip
    assert planted | others == {mistake.name for mistake in MISTAKES}


@pytest.mark.parametrize("name", ["accumulators do not add", "sums taken at the wrong time", "lanes in the wrong order"])
def test_mistakes_of_the_product(name: str) -> None:
    config, (x, w) = ArrayConfig(2, 2), operands(6, 3, 4, 4)
    parts = x[:, :2].astype(int) @ w[:2], x[:, 2:].astype(int) @ w[2:]
    swapped = w.reshape(4, 2, 2)[:, :, ::-1].reshape(4, 4)
    wrong = {
        "accumulators do not add": parts[1],
        "sums taken at the wrong time": None,
        "lanes in the wrong order": x.astype(int) @ swapped,
    }[name]
    if wrong is None:  # each one the next row's, the last one nothing, or the next fold's first
        product = Product.of(config, x, w)
        wrong = Model(product).values(Change(taken_late=1))["outputs"]
        assert wrong[:2].tolist() == (parts[0] + parts[1])[1:].tolist()
    assert names(Scoreboard(config).diagnose(x, w, outputs=wrong)) == [name]


def test_bad_products() -> None:
    board, (x, w) = Scoreboard(ArrayConfig(2, 2)), operands(7, 2, 2, 2)
    with raises(ValueError, "diagnose takes samples, outputs or both; there is nothing to compare"):
        board.check(x, w)
    with raises(TypeError, "x must hold int8, the array's activation_dtype, not uint8"):
        board.check(x.view(np.uint8), w, outputs=x)
    with raises(ValueError, "outputs must be (2, 2), as x @ w is, not (2, 1)"):
        board.check(x, w, outputs=[[1], [2]])
    with raises(TypeError, "outputs must hold integers, not float64"):
        board.check(x, w, outputs=np.ones((2, 2)))
    with raises(ValueError, "x (0, 2) and w (2, 2) make an empty product, which has no values to compare"):
        board.check(x[:0], w, outputs=x)
    with raises(ValueError, "state has no register 'psums' in a weight_stationary array; did you mean 'psum'?"):
        Scoreboard(board.config, state={"psums": x})
    with raises(ValueError, "state['psum'] must be (2, 2), not (2,)"):
        Scoreboard(board.config, state={"psum": x[0]})
    queued = SystolicArray(board.config).fold(x=x, w=w)
    message = "state has queued values on its ports until cycle 5; run the array up to then, or give its registers alone"
    with raises(ValueError, message):
        Scoreboard(board.config, state=queued.state())
    assert Scoreboard(board.config, state=queued.run().state()).expected == queued.registers
    with raises(TypeError, "state must be a State or a dict of registers, not int 3"):
        Scoreboard(board.config, state=3)


def test_the_report_says_that_unknown_values_explain_nothing() -> None:
    x, w = np.int8([[1, 2]]), np.int8([[3], [4]])
    board = Scoreboard(ArrayConfig(2, 1), map=SignalMap(signals={"psum": "p{r}"}))
    samples = [{"p0": "x" * 32, "p1": "x" * 32} for _ in board.ports(x, w)]
    assert str(board.diagnose(x, w, samples)).splitlines() == [
        "psum of PE (0, 0) for m 0, n 0, k 0, in sample 2, is X in the RTL, expected 3",
        "2 of 2 values differ",
        "no usual mistake was tried, as values are X or Z where they are due",
    ]
    with pytest.raises(TypeError, match="^without a map, samples are a dict of registers"):
        Scoreboard(ArrayConfig(2, 1)).diagnose(x, w, {})


def test_the_search_keeps_one_set_of_tiles_for_each_length() -> None:
    model = Model(Product.of(ArrayConfig(3, 3), np.ones((4, 3), np.int8), np.ones((3, 3), np.int8)))
    changes = [change for each in MISTAKES for _, change in each.ways(model.product, where(model.product, [0], [0]))]
    for change in changes:
        model.values(change)
        model.values(change, 5)
    assert len(changes) > 100 and len(model._tiles) == 2
