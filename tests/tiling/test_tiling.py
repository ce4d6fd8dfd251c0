"""Folds and closed-form cycles against a naive evaluation of the clock convention and counted edges."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from support.naive_tiling import RESNET_50, naive_cycles, naive_folds, naive_stats
from support.strategies import around, array_configs, codes, examples, problems, raises
from systolic import ArrayConfig, Fold, Gemm, SystolicArray, estimate_cycles, estimate_many, folds
from systolic.dataflows import DATAFLOWS
from systolic.stats import Stats
from systolic.tiling import Folds, estimate_gemm


def counted_cycles(gemm: Gemm, config: ArrayConfig) -> int:
    """The edges that an array counts while it runs every fold."""
    array = SystolicArray(config)
    rng = np.random.default_rng(0)
    for fold in naive_folds(gemm, config):
        w = codes(
            rng, (fold["k_stop"] - fold["k_start"], fold["n_stop"] - fold["n_start"]), config.weight_dtype
        )
        x = codes(rng, (fold["m_stop"] - fold["m_start"], len(w)), config.activation_dtype)
        array.fold(x=x, w=w)
    return array.run().cycle


def closed_form(gemm: Gemm, array: ArrayConfig) -> int:
    return int(
        estimate_cycles(
            gemm.m,
            gemm.k,
            gemm.n,
            rows=array.rows,
            cols=array.cols,
            double_buffered=array.double_buffered,
            accumulator_rows=array.accumulator_rows,
            groups=gemm.groups,
            taps=gemm.taps,
            pack=gemm.pack,
            dataflow=array.dataflow,
        )
    )


@st.composite
def works(draw: st.DrawFn, dataflow: str | None = None) -> tuple[Gemm, ArrayConfig]:
    array, m, k, n = draw(problems())
    array = replace(array, dataflow=dataflow or array.dataflow)
    groups, taps = draw(st.sampled_from([1, 1, 2, 3, 6])), draw(st.sampled_from([1, 1, 2, 6]))
    pack = draw(st.sampled_from([each for each in (1, 2, 3, 6) if groups % each == 0]))
    return Gemm(m, k, n, groups=groups, taps=taps if k % taps == 0 else 1, pack=pack), array


# Folds


@examples(150)
@given(works())
@pytest.mark.slow
def test_folds_equal_the_naive_ones(work: tuple[Gemm, ArrayConfig]) -> None:
    gemm, array = work
    expected = naive_folds(gemm, array)
    result = folds(gemm, array=array)
    assert len(result) == len(expected)
    assert [fold.to_dict() for fold in result] == expected


@examples(40)
@given(works())
def test_folds_cover_every_mac_exactly_once(work: tuple[Gemm, ArrayConfig]) -> None:
    gemm, array = work
    macs, pack = 0, gemm.pack
    covered = np.zeros((gemm.groups // pack, gemm.m, gemm.k * pack, gemm.n * pack), dtype=np.int64)
    for f in folds(gemm, array=array):
        covered[f.group, f.m_start : f.m_stop, f.k_start : f.k_stop, f.n_start : f.n_stop] += 1
        chunk, any_size = array.chunk_rows or 2**60, 2**60
        m, k, n = {
            "weight_stationary": (chunk, array.rows, array.cols),
            "output_stationary": (array.rows, any_size, array.cols),
            "input_stationary": (array.cols, array.rows, chunk),
        }[array.dataflow]
        assert 1 <= f.m <= m and 1 <= f.k <= k and 1 <= f.n <= n
        assert f.macs == f.m * (f.k * f.n - f.zeros)
        macs += f.macs
    assert (covered == 1).all()
    assert macs == gemm.macs == estimate_gemm(gemm, array).macs


@pytest.mark.parametrize("sizes", [(0, 3, 3), (3, 0, 3), (3, 3, 0), (0, 0, 0)])
def test_empty_products_have_no_folds_and_take_no_cycles(sizes: tuple[int, int, int]) -> None:
    gemm, array = Gemm(*sizes), ArrayConfig(2, 2)
    assert len(folds(gemm, array=array)) == 0 and list(folds(gemm, array=array)) == []
    for double_buffered in (True, False):
        for rows in (None, 4):
            array = ArrayConfig(2, 2, double_buffered=double_buffered, accumulator_rows=rows)
            assert closed_form(gemm, array) == 0
            stats = estimate_gemm(gemm, array)
            outputs = sizes[0] * sizes[2]
            assert stats == Stats(output_bytes=4 * outputs, unified_buffer_bytes=outputs)


def test_folds_are_a_sequence() -> None:
    gemm, array = Gemm(10, 5, 7), ArrayConfig(2, 3, accumulator_rows=8)
    result = folds(gemm, array=array)
    every = [result[i] for i in range(len(result))]
    assert list(result) == every and len(every) == 3 * 3 * 3
    assert (
        result[-1] == every[-1]
        and result[2:7:2] == tuple(every[2:7:2])
        and result[::-1] == tuple(every[::-1])
    )
    assert every[3] in result
    with pytest.raises(IndexError, match="^fold 27 of 27$"):
        result[27]
    with pytest.raises(IndexError):
        result[-28]
    assert result == folds(gemm, array=array) != folds(gemm, array=ArrayConfig(2, 3))
    assert folds(gemm) == folds(gemm, array=ArrayConfig())


def test_folds_copy_and_show_themselves() -> None:
    result = folds(Gemm(10, 5, 7), array=ArrayConfig(2, 3))
    for same in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
        assert isinstance(same, Folds) and same == result and list(same) == list(result)
    fold = result[1]
    assert isinstance(fold, Fold) and pickle.loads(pickle.dumps(fold)) == fold == copy.deepcopy(fold)
    assert Fold(**json.loads(json.dumps(fold.to_dict()))) == fold
    assert repr(fold) == "Fold(n 0:3, m 0:10, k 2:4, shift 2, swap 12)"
    assert repr(folds(Gemm(1, 1, 1, groups=2), array=ArrayConfig(1, 1))[1]).startswith("Fold(group 1, n 0:1")
    assert repr(result) == f"Folds({result[0]!r}, {result[1]!r}, ... 6 more ..., {result[8]!r})"
    assert (
        repr(result[:0]) == "()" and repr(folds(Gemm(1, 2, 1), array=ArrayConfig(2, 2))).count("Fold(") == 1
    )
    text = str(result.table())
    assert "9 folds of Gemm(10, 5, 7)" in text and "0:10" in text
    assert "<table" in result._repr_html_()


def test_folds_as_a_frame() -> None:
    pytest.importorskip("pandas")
    result = folds(Gemm(10, 5, 7), array=ArrayConfig(2, 3))
    frame = result.to_frame()
    assert len(frame) == 9
    assert frame.to_dict("records") == [fold.to_dict() for fold in result]


def test_folds_take_a_machine_as_other_calls_do() -> None:
    from systolic import MachineConfig

    assert folds(Gemm(1, 2, 3), array=MachineConfig(ArrayConfig(2, 2))) == folds(
        Gemm(1, 2, 3), array=ArrayConfig(2, 2)
    )


# Cycles


@pytest.mark.slow
@examples(150)
@given(works())
def test_closed_form_equals_the_naive_sum(work: tuple[Gemm, ArrayConfig]) -> None:
    assert closed_form(*work) == naive_cycles(*work)


@pytest.mark.slow
@examples(60)
@given(works())
def test_closed_form_equals_counted_edges(work: tuple[Gemm, ArrayConfig]) -> None:
    assert counted_cycles(*work) == closed_form(*work)


@pytest.mark.slow
@examples(60)
@given(works())
def test_every_stat_equals_the_naive_count(work: tuple[Gemm, ArrayConfig]) -> None:
    assert estimate_gemm(*work) == naive_stats(*work)


@pytest.mark.slow
@examples(60)
@given(array_configs(), st.integers(1, 50), st.data())
@example(ArrayConfig(256, 256), 100, None)
def test_single_buffered_equals_scale_sim(array: ArrayConfig, m: int, data) -> None:
    # Samajdar et al., arXiv:1811.02883: (2 rows + cols + m - 2) ceil(k / rows) ceil(n / cols).
    rows, cols = array.rows, array.cols
    k = data.draw(around(rows, 4 * rows)) if data else 2048
    n = data.draw(around(cols, 4 * cols)) if data else 1000
    cycles = estimate_cycles(m, k, n, rows=rows, cols=cols, double_buffered=False, accumulator_rows=None)
    assert cycles == (2 * rows + cols + m - 2) * -(-k // rows) * -(-n // cols)


@pytest.mark.parametrize(
    ("double_buffered", "accumulator_rows", "total"), [(True, 4096, 227_450), (False, None, 452_056)]
)
def test_resnet_50_totals(double_buffered: bool, accumulator_rows: int | None, total: int) -> None:
    counts = np.array([count for count, _ in RESNET_50])
    m, k, n = np.array([sizes for _, sizes in RESNET_50]).T
    assert counts.sum() == 54
    assert (counts * m * k * n).sum() == 4_089_184_256
    cycles = estimate_cycles(
        m, k, n, rows=256, cols=256, double_buffered=double_buffered, accumulator_rows=accumulator_rows
    )
    assert (counts * cycles).sum() == total
    array = ArrayConfig(double_buffered=double_buffered, accumulator_rows=accumulator_rows)
    assert sum(count * estimate_gemm(Gemm(*sizes), array).cycles for count, sizes in RESNET_50) == total
    assert sum(count * naive_cycles(Gemm(*sizes), array) for count, sizes in RESNET_50) == total


@pytest.mark.parametrize(
    ("dataflow", "mapped"), [("weight_stationary", 2 * 3), ("output_stationary", 4 * 3), ("input_stationary", 2 * 4)]
)
def test_mapping_is_the_share_of_pes_that_hold_something(dataflow: str, mapped: int) -> None:
    result = folds(Gemm(4, 2, 3), array=ArrayConfig(4, 5, dataflow=dataflow))
    assert len(result) == 1
    assert result.to_frame().shape[0] == 1 and f"{mapped / 20:.1%}" in str(result.table())


@examples(40)
@given(works("output_stationary"))
def test_output_stationary_equals_scale_sim(work: tuple[Gemm, ArrayConfig]) -> None:
    # Samajdar et al., arXiv:1811.02883: (2 rows + cols + k - 2) ceil(m / rows) ceil(n / cols).
    gemm, array = work
    gemm = replace(gemm, pack=1)
    folds_each = gemm.groups * -(-gemm.m // array.rows) * -(-gemm.n // array.cols)
    one = 2 * array.rows + array.cols + gemm.k - 2
    assert closed_form(gemm, replace(array, double_buffered=False)) == folds_each * one
    # Back to back, a fold after the first costs only its stream, or its drain.
    stay = max(gemm.k, array.rows)
    assert closed_form(gemm, replace(array, double_buffered=True)) == one + (folds_each - 1) * stay
    assert estimate_gemm(Gemm(array.rows, gemm.k, array.cols), array).cycles == one


@examples(20)
@given(works("input_stationary"))
def test_input_stationary_is_the_transposed_product(work: tuple[Gemm, ArrayConfig]) -> None:
    gemm, array = work
    gemm = replace(gemm, pack=1)
    stats = estimate_gemm(gemm, array)
    other = estimate_gemm(
        replace(gemm, m=gemm.n, n=gemm.m), replace(array, dataflow="weight_stationary")
    )
    # The weights stream, the activations are shifted in; operands of both take a byte.
    assert stats == replace(
        other, weight_bytes=other.activation_bytes, activation_bytes=other.weight_bytes,
        weight_fifo_bytes=2 * other.activation_bytes,
        unified_buffer_bytes=other.weight_bytes + gemm.groups * gemm.m * gemm.n,
    )  # fmt: skip


# What the ideal machine does not have.
OF_PROGRAMS = ("weight_memory_bytes", "host_bytes", "vector_operations")

SIZES = ("m", "k", "n", "groups", "taps", "pack")


def vectors(works: list[tuple[Gemm, ArrayConfig]]) -> dict[str, Any]:
    """Many works, all of one dataflow, as the arguments of one call."""
    gemms, arrays = zip(*works, strict=True)
    return {name: [getattr(gemm, name) for gemm in gemms] for name in SIZES} | {
        name: [getattr(array, name) for array in arrays]
        for name in ("rows", "cols", "double_buffered", "accumulator_rows")
    } | {"dataflow": arrays[0].dataflow}


# 1 x 1 arrays, sizes of 0, two accumulators and unlimited ones, both buffer modes, groups.
EDGES = [
    (Gemm(m, k, n, groups=groups), ArrayConfig(*size, double_buffered=double, accumulator_rows=accumulators))
    for m, k, n, groups in [
        (1, 1, 1, 1),
        (0, 2, 3, 1),
        (2, 0, 3, 2),
        (2, 3, 0, 1),
        (5, 4, 7, 3),
        (4, 3, 1, 1),
    ]
    for size in [(1, 1), (1, 4), (3, 1), (4, 7)]
    for double in (True, False)
    for accumulators in (None, 2, 5)
]


@pytest.mark.slow
@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_estimates_of_many_edges_equal_the_naive_and_the_counted_ones(dataflow: str) -> None:
    edges = [(gemm, replace(array, dataflow=dataflow)) for gemm, array in EDGES]
    cycles = estimate_cycles(**vectors(edges))
    assert cycles.dtype == np.int64 and len(cycles) == len(edges) == 144
    assert cycles.tolist() == [naive_cycles(*work) for work in edges]
    assert cycles.tolist() == [counted_cycles(*work) for work in edges]


@pytest.mark.slow
@examples(40)
@given(st.sampled_from(list(DATAFLOWS)).flatmap(lambda name: st.lists(works(name), min_size=1, max_size=12)))
@example(EDGES)
def test_estimates_of_many_equal_each_one_s_stats(works: list[tuple[Gemm, ArrayConfig]]) -> None:
    result = estimate_many(**vectors(works))
    each = [naive_stats(*work) for work in works]
    counts = [name for name in Stats.__dataclass_fields__ if name == "cycles" or not name.endswith("_cycles")]
    counts = [name for name in counts if name not in OF_PROGRAMS]
    assert list(result) == [*counts[:2], "pe_cycles", *counts[2:], "utilization"]
    for name, values in result.items():
        assert values.dtype == (np.float64 if name == "utilization" else np.int64)
        assert values.tolist() == [getattr(stats, name) for stats in each]
    assert estimate_cycles(**vectors(works)).tolist() == result["cycles"].tolist()


def test_estimates_of_many_broadcast() -> None:
    result = estimate_many([[3], [0]], 5, 7, rows=[2, 4, 8], cols=3, accumulator_rows=[None, 2, 4])
    for name, values in result.items():
        assert values.shape == (2, 3) and values.flags.writeable and values.flags.c_contiguous
        for i, m in enumerate((3, 0)):
            for j, (rows, accumulators) in enumerate([(2, None), (4, 2), (8, 4)]):
                stats = naive_stats(Gemm(m, 5, 7), ArrayConfig(rows, 3, accumulator_rows=accumulators))
                assert values[i, j] == getattr(stats, name)
    assert {values.shape for values in estimate_many(3, 5, 7, rows=2, cols=3).values()} == {()}
    assert {values.shape for values in estimate_many([], 5, 7, rows=2, cols=3).values()} == {(0,)}


def test_estimates_broadcast() -> None:
    sizes = np.array([[1], [16], [17]])
    cycles = estimate_cycles(sizes, 5, [3, 8], rows=[[[4]], [[8]]], cols=4, accumulator_rows=6, groups=2)
    assert cycles.dtype == np.int64 and cycles.shape == (2, 3, 2)
    for i, rows in enumerate((4, 8)):
        for j, m in enumerate((1, 16, 17)):
            for p, n in enumerate((3, 8)):
                gemm, array = Gemm(m, 5, n, groups=2), ArrayConfig(rows, 4, accumulator_rows=6)
                assert cycles[i, j, p] == naive_cycles(gemm, array)
    scalar = estimate_cycles(np.int16(3), 2, 3, rows=2, cols=3)
    assert scalar.shape == () and scalar.dtype == np.int64 and scalar == 8
    assert estimate_cycles(np.zeros((0, 2), int), 2, 3, rows=2, cols=3).shape == (0, 2)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"taps": 3}, ValueError, "taps must divide k"),
        ({"pack": 2, "groups": [4, 3]}, ValueError, "pack must divide groups"),
        ({"k": 2**40, "pack": 2**40, "groups": 2**40}, ValueError, "k * pack must fit int64"),
        ({"m": -1}, ValueError, "m must be at least 0, not -1"),
        ({"n": [3, -2]}, ValueError, "n must be at least 0, not -2"),
        ({"rows": 0}, ValueError, "rows must be at least 1, not 0"),
        ({"cols": [4, 0]}, ValueError, "cols must be at least 1, not 0"),
        ({"groups": 0}, ValueError, "groups must be at least 1, not 0"),
        ({"k": 2.5}, TypeError, "k must hold integers, not float64"),
        ({"m": "3"}, TypeError, "m must hold integers, not <U1"),
        (
            {"m": [1, 2], "n": [1, 2, 3]},
            ValueError,
            "the arguments must broadcast together, but are m (2,), k (), n (3,), rows (), cols (), groups (), "
            "taps (), pack (), double_buffered (), accumulator_rows ()",
        ),
        (
            {"accumulator_rows": 1},
            ValueError,
            "accumulator_rows must be at least 2 (two halves, one filling while the "
            "other drains) or None for unlimited, not 1",
        ),
        (
            {"accumulator_rows": [None, 4, 0]},
            ValueError,
            "accumulator_rows must be at least 2 (two halves, one filling while the "
            "other drains) or None for unlimited, not 0",
        ),
        ({"accumulator_rows": 2.0}, TypeError, "accumulator_rows must hold integers, not float64"),
        ({"accumulator_rows": [None, 2.5]}, TypeError, "accumulator_rows must hold integers, not float64"),
        ({"accumulator_rows": 2**64}, ValueError, f"accumulator_rows must fit int64, but holds {2**64}"),
        ({"double_buffered": 1}, TypeError, "double_buffered must be True or False, not int 1"),
        (
            {"double_buffered": [True, 0]},
            TypeError,
            "double_buffered must be True or False, not list [True, 0]",
        ),
        ({"m": 2**63}, ValueError, f"m must fit int64 ({-(2**63)}..{2**63 - 1}), but holds {2**63}"),
    ],
)
def test_estimates_reject_arguments(options, error: type[Exception], message: str) -> None:
    arguments = {"m": 3, "k": 2, "n": 3, "rows": 2, "cols": 3} | options
    for function in (estimate_cycles, estimate_many):
        with raises(error, message):
            function(**arguments)


HUGE = 2**63 - 1


@pytest.mark.parametrize(
    ("sizes", "rows", "cols"),
    [
        ((HUGE, 1, 1), 1, 1),  # one cycle of shifting too many
        ((1, HUGE, 1), 1, 1),
        ((1, 2**32, 2**32), 1, 1),  # 2^64 tiles are 0 in int64
        ((2**21, 2**21, 2**22), 1, 1),
        ((1, 1, 1), HUGE, 1),
        ((1, 1, 1), 2**62, 1),  # 2 rows
        (([5, 2**40], 2**40, 1), 1, 1),
    ],
)
def test_cycles_beyond_int64_are_refused(sizes: tuple, rows: int, cols: int) -> None:
    message = (
        "these sizes take more cycles than int64 holds; estimate(Gemm(m, k, n)) counts in Python's integers"
    )
    for double_buffered in (True, False):
        with raises(ValueError, message):
            estimate_cycles(
                *sizes, rows=rows, cols=cols, double_buffered=double_buffered, accumulator_rows=None
            )


def test_cycles_up_to_int64_are_given() -> None:
    m = np.array([2**20, 2**61 + 12345, 2**63 - 2**17])
    expected = [1 + int(size) for size in m]  # one PE, one tile: a shift beat, then m rows
    assert estimate_cycles(m, 1, 1, rows=1, cols=1, accumulator_rows=None).tolist() == expected
    assert [int(estimate_cycles(size, 1, 1, rows=1, cols=1, accumulator_rows=None)) for size in m] == expected
    # Nothing runs, whatever the other sizes would come to.
    assert estimate_cycles(0, HUGE, HUGE, rows=HUGE, cols=HUGE, groups=HUGE) == 0
    assert estimate_cycles(0, HUGE, HUGE, rows=1, cols=1) == 0
    assert estimate_cycles(HUGE, 0, HUGE, rows=1, cols=1, accumulator_rows=2, double_buffered=False) == 0


@pytest.mark.slow
@examples(60)
@given(st.lists(st.integers(0, 2**30) | st.integers(1, 40), min_size=3, max_size=3), array_configs())
def test_large_estimates_equal_python_s_integers_or_are_refused(sizes: list[int], array: ArrayConfig) -> None:
    gemm = Gemm(*sizes)
    expected = estimate_gemm(gemm, array).cycles
    if expected < 2**63 - 2**17:
        assert closed_form(gemm, array) == expected
    else:
        with pytest.raises(ValueError, match="more cycles than int64 holds"):
            closed_form(gemm, array)


def test_counts_beyond_int64_are_refused_by_name() -> None:
    # 2^62 cycles fit, those of every PE do not.
    message = "these sizes take more pe_cycles than int64 holds; estimate(Gemm(m, k, n)) counts in Python's integers"
    with raises(ValueError, message):
        estimate_many(2**62, 1, 1, rows=2, cols=2, accumulator_rows=None)
    assert estimate_cycles(2**62, 1, 1, rows=2, cols=2, accumulator_rows=None) == 2**62 + 4


def test_huge_estimates_are_right() -> None:
    gemm, array = Gemm(10**7, 10**7, 10**7), ArrayConfig(1, 1, accumulator_rows=None)
    # One row, one column: a tile takes its m cycles; the first waits for one shift beat.
    assert estimate_gemm(gemm, array).cycles == 1 + 10**21
