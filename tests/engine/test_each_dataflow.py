"""Products, layers, models and what is made of them on every dataflow."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

import systolic
from support.strategies import around, array_configs, codes, examples, product, seeds
from systolic import ArrayConfig, Gemm, MachineConfig, Scoreboard, SystolicArray, Trace, write_vectors
from systolic.dataflows import DATAFLOWS

OTHERS = [name for name in DATAFLOWS if name != "weight_stationary"]


@pytest.mark.slow
@examples(60)
@given(array_configs(max_cols=9), around(9, 30), around(9, 30), around(9, 30), seeds)
def test_products(array: ArrayConfig, m: int, k: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, w = codes(rng, (m, k), array.activation_dtype), codes(rng, (k, n), array.weight_dtype)
    estimated = systolic.estimate(Gemm(m, k, n), machine=array)
    for mode in ("cycle", "wavefront"):
        result = systolic.matmul(x, w, array=array, mode=mode)
        np.testing.assert_array_equal(result.acc, product(x, w))
        assert result.stats == estimated


@pytest.mark.slow
@pytest.mark.parametrize("dataflow", OTHERS)
@pytest.mark.parametrize("options", [{}, {"groups": 3, "stride": 2}, {"padding": "same", "layout": "NHWC"}])
def test_convolutions(dataflow: str, options: dict) -> None:
    rng = np.random.default_rng(0)
    x, w = codes(rng, (2, 6, 9, 7), "uint8"), codes(rng, (9, 6 // options.get("groups", 1), 3, 2), "int8")
    if "layout" in options:
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    array = ArrayConfig(5, 4, dataflow=dataflow, accumulator_rows=14)
    expected = systolic.conv2d(x, w, mode="wavefront", **options).acc
    for mode in ("cycle", "wavefront"):
        result = systolic.conv2d(x, w, array=array, mode=mode, **options)
        np.testing.assert_array_equal(result.acc, expected)
        assert result.stats == systolic.estimate(result.gemm, machine=array)


@pytest.mark.slow
@pytest.mark.parametrize("dataflow", OTHERS)
def test_the_example_network(dataflow: str) -> None:
    example = systolic.load_example()
    machine = MachineConfig(ArrayConfig(16, 20, dataflow=dataflow), clock_mhz=700)
    x = example.images[:2]
    expected = systolic.run(example.model, x, machine=ArrayConfig(16, 20), mode="wavefront")
    for mode in ("cycle", "wavefront"):
        run = systolic.run(example.model, x, machine=machine, mode=mode)
        for name, output in expected.outputs.items():
            np.testing.assert_array_equal(run.outputs[name], output)
        assert run.stats == systolic.estimate(example.model, machine=machine, batch=2)
    assert run.stats.cycles != expected.stats.cycles and run.stats.macs == expected.stats.macs
    assert systolic.verify(example.model, x, machine=machine).passed


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_vectors_and_scoreboards(dataflow: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    x, w = codes(rng, (7, 6), "int8"), codes(rng, (6, 5), "uint8")
    config = ArrayConfig(3, 2, dataflow=dataflow, accumulator_rows=8)
    manifest = write_vectors(x, w, tmp_path / "vectors", array=config)
    assert manifest["cycles"] == systolic.estimate(Gemm(7, 6, 5), machine=config).cycles
    assert ("the last row first" in manifest["convention"]) is (dataflow == "output_stationary")
    assert ("columns of the product" in manifest["convention"]) is (dataflow == "input_stationary")
    config = replace(config, weight_dtype="uint8")

    def lines(name: str, bits: int, count: int) -> np.ndarray:
        words = [int(line, 16) for line in (tmp_path / "vectors" / name).read_text().split()]
        raw = np.array([[word >> bits * i & (1 << bits) - 1 for i in range(count)] for word in words])
        return raw if bits == 1 else raw - ((raw >> bits - 1) << bits)

    # What the files hold, driven by hand into the array and, as they say, into two halves of memory.
    flow, board = config.dataflow_record, Scoreboard(config)
    sizes = {"west": 3, "north": 2}
    driven = {}
    for port in flow.ports:
        dtype = config.port_dtypes[port.name]
        values = lines(f"{port.side}_{port.name}.mem", systolic.formats.bits(dtype), sizes[port.side])
        driven[port.name] = values.astype(dtype)
    bottom = lines(f"bottom_{flow.leaves}.mem", 32, 2)
    np.testing.assert_array_equal(SystolicArray(config).clock(**driven), bottom)
    for t in range(len(bottom)):
        board.edge(**{name: values[t] for name, values in driven.items()})
    np.testing.assert_array_equal(board.expected[flow.leaves][-1], bottom[-1])
    acc = lines("acc.mem", 32, 5)
    np.testing.assert_array_equal(acc, product(x, w))


@pytest.mark.parametrize("dataflow", OTHERS)
def test_traces(dataflow: str, tmp_path: Path) -> None:
    pytest.importorskip("vcd")
    config = ArrayConfig(2, 3, dataflow=dataflow)
    trace = Trace()
    result = systolic.matmul(np.ones((2, 2), np.int8), np.ones((2, 3), np.int8), array=config, trace=trace)
    assert trace.registers == tuple(config.register_dtypes) and len(trace) == result.cycles
    trace.to_vcd(tmp_path / "trace.vcd")
    found = re.findall(r"\$var \w+ (\d+) \S+ (\w+) \$end", (tmp_path / "trace.vcd").read_text())
    widths = {name: systolic.formats.bits(dtype) for name, dtype in config.register_dtypes.items()}
    assert {name: int(width) for width, name in found} == {"clk": 1, "cycle": 64, **widths}


@pytest.mark.slow
@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_drawings(dataflow: str) -> None:
    pytest.importorskip("matplotlib")
    config = ArrayConfig(2, 3, dataflow=dataflow)
    result = systolic.matmul(np.ones((5, 4), np.int8), np.ones((4, 7), np.int8), array=config, trace=True)
    axes = result.plot().axes[0]
    texts = {text.get_text() for text in axes.get_legend().get_texts()}
    assert {
        "weight_stationary": {"shift weights in", "stream x"},
        "output_stationary": {"sums leave", "stream x and w"},
        "input_stationary": {"shift x in", "stream w"},
    }[dataflow] <= texts
    assert f"{result.cycles:,} cycles" in axes.get_title("left")
    names = {part.name for part in config.dataflow_record.registers if part.role != "control"}
    drawn = {text.get_gid() for text in SystolicArray(config).plot().axes[0].texts}
    assert names <= drawn
    assert "activation after the edge of each cycle" in result.trace.plot_wave(cycles=range(4)).get_suptitle()
