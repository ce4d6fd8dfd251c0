"""Convolutions in every mapping: sums, cycles and registers against the reference, which lays them out itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import systolic
from support.naive_tiling import naive_folds, naive_stats
from support.strategies import array_configs, codes, examples, seeds
from systolic import ArrayConfig, Gemm
from systolic.dataflows import DATAFLOWS
from systolic.reference import conv_sums, expected_layout, laid_out
from systolic.tiling.mappings import MAPPINGS


@st.composite
def works(draw: st.DrawFn, most: int = 7) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Images, filters and options of conv2d."""
    rng = np.random.default_rng(draw(seeds))
    groups, icg, ocg = (draw(st.sampled_from(sizes)) for sizes in ((1, 2, 3, 4, 6), (1, 2, 3), (1, 2, 3)))
    kernel = draw(st.sampled_from([(1, 1), (2, 3), (3, 3), (1, 4)]))
    layout = draw(st.sampled_from(["NCHW", "NHWC"]))
    size = (draw(st.integers(4, most)), draw(st.integers(4, most)))
    shape = (2, groups * icg, *size) if layout == "NCHW" else (2, *size, groups * icg)
    types = draw(st.sampled_from(["int8", "uint8"])), draw(st.sampled_from(["int8", "uint8"]))
    return codes(rng, shape, types[0]), codes(rng, (groups * ocg, icg, *kernel), types[1]), {
        "groups": groups, "layout": layout, "x_zero_point": 3,
        "stride": draw(st.sampled_from([(1, 1), (2, 1)])), "dilation": draw(st.sampled_from([(1, 1), (1, 2)])),
        "padding": draw(st.sampled_from([((0, 0), (2, 2)), ((1, 2), (2, 3)), ((2, 0), (4, 3))])),
        "mapping": draw(st.sampled_from([name for name in MAPPINGS if name != "pack" or groups > 1])),
    }  # fmt: skip


def referenced(
    x: np.ndarray, w: np.ndarray, options: dict[str, Any], array: ArrayConfig, gemm: Gemm
) -> tuple[np.ndarray, Any, Gemm]:
    """Sums, operands and sizes as the reference lays them out."""
    fields = {name: value for name, value in options.items() if name not in ("mapping", "x_zero_point")}
    sums, operands = conv_sums(SimpleNamespace(**fields), x, w, options["x_zero_point"])
    taps = w.shape[2] * w.shape[3]
    plain = Gemm(gemm.m, w.shape[1] * taps, len(w) // options["groups"], groups=options["groups"])
    layout = expected_layout(plain, array, options["mapping"], taps)
    mapped = Gemm(plain.m, plain.k, plain.n, groups=plain.groups, taps=layout.parts, pack=layout.pack)
    return sums, laid_out(operands, plain, layout, taps), mapped


@pytest.mark.slow
@examples(150)
@given(works(), array_configs())
def test_sums_and_counts(work: tuple[np.ndarray, np.ndarray, dict], array: ArrayConfig) -> None:
    x, w, options = work
    for mode in ("cycle", "wavefront"):
        result = systolic.conv2d(x, w, array=array, mode=mode, **options)
        sums, _, gemm = referenced(x, w, options, array, result.gemm)
        np.testing.assert_array_equal(result.acc, sums)
        assert result.gemm == gemm
        assert result.stats == naive_stats(gemm, array) == systolic.estimate(gemm, machine=array)
        assert [fold.to_dict() for fold in result.folds] == naive_folds(gemm, array)


@pytest.mark.slow
@examples(30)
@given(works(most=5), array_configs(max_rows=6, max_cols=6))
def test_registers(work: tuple[np.ndarray, np.ndarray, dict], array: ArrayConfig) -> None:
    x, w, options = work
    few = systolic.conv2d(x, w, array=array, mode="wavefront", **options).stats
    assume(few.pe_cycles < 3_000)
    compare_registers(*work, array)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize(("mapping", "double_buffered"), [("taps", True), ("pack", False)])
def test_registers_of_a_depthwise_convolution(mapping: str, double_buffered: bool, dataflow: str) -> None:
    rng = np.random.default_rng(0)
    options = {
        "groups": 4, "layout": "NHWC", "x_zero_point": 5, "stride": (1, 1), "dilation": (1, 1),
        "padding": ((1, 1), (0, 0)), "mapping": mapping,
    }  # fmt: skip
    array = ArrayConfig(8, 4, accumulator_rows=8, dataflow=dataflow, double_buffered=double_buffered)
    x, w = codes(rng, (1, 3, 4, 4), "int8"), codes(rng, (4, 1, 2, 2), "int8")
    assert compare_registers(x, w, options, array).pack > 1


def compare_registers(x: np.ndarray, w: np.ndarray, options: dict[str, Any], array: ArrayConfig) -> Gemm:
    """Step the reference through the folds as it lays them out; every register at every edge is equal."""
    result = systolic.conv2d(x, w, array=array, trace=True, **options)
    array = array.for_operands(x.dtype, w.dtype)
    dataflow, (rows, cols) = array.dataflow_record, (array.rows, array.cols)
    _, operands, gemm = referenced(x, w, options, array, result.gemm)
    feed = []
    for fold in naive_folds(gemm, array):
        m, k, n = (np.arange(fold[f"{axis}_start"], fold[f"{axis}_stop"]) for axis in "mkn")
        own_x, own_w = operands.rows(fold["group"], m, k), operands.weights(fold["group"], k, n)
        if dataflow.exchanged:
            own_x, own_w = own_w.T, own_x.T
        feed.append((
            fold["shift_cycle"], fold["swap_cycle"], len(own_x), lambda pair=(own_x, own_w): pair
        ))  # fmt: skip
    reference, fed = dataflow.reference(rows, cols), dataflow.reference.feed(feed, rows, cols)
    stepped: dict[str, list[np.ndarray]] = {register.name: [] for register in dataflow.registers}
    for t in range(result.cycles):
        reference.step(**fed.at(t))
        for name, values in reference.registers().items():
            stepped[name].append(values)
    for name, values in stepped.items():
        np.testing.assert_array_equal(result.trace[name], values, err_msg=name)
    return result.gemm


def test_every_result_of_a_large_layer_is_that_of_the_default() -> None:
    """Wavefront mode has one product for all mappings, and each its cycles."""
    rng = np.random.default_rng(1)
    x, w = codes(rng, (1, 96, 14, 14), "uint8"), codes(rng, (96, 1, 3, 3), "int8")
    runs = {
        name: systolic.conv2d(x, w, groups=96, padding=1, mapping=name, mode="wavefront") for name in MAPPINGS
    }
    for result in runs.values():
        np.testing.assert_array_equal(result.acc, runs["im2col"].acc)
    assert {name: result.cycles for name, result in runs.items()} == {
        "im2col": 25_282, "taps": 3_010, "pack": 1_730, "best": 1_730,
    }  # fmt: skip
    assert {name: result.gemm.pack for name, result in runs.items()} == {
        "im2col": 1, "taps": 96, "pack": 24, "best": 24,
    }  # fmt: skip
