"""Rooflines: peak and ridge point in closed form, and points that tell what estimates and timelines tell."""

from __future__ import annotations

import json
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import systolic
from support.strategies import examples, raises
from support.toy_layers import Nonzero
from systolic import ArrayConfig, Gemm, MachineConfig, estimate, presets
from systolic.analysis import roofline
from systolic.isa import Program, Section
from systolic.machine import time_program
from systolic.workloads import Workload

TPU = presets.TPU_V1

# Batch and sizes of a layer with the MACs per weight byte that the paper states.
LAYERS = {"MLP0": Gemm(200, 2048, 2048), "LSTM1": Gemm(96, 600, 600), "CNN0": Gemm(1444, 2048, 256)}


def test_peak_and_ridge_point_of_the_tpu() -> None:
    """Table 2 of the paper: 92 TOPS; section 4: the ridge point is far to the right, at 1350."""
    found = roofline(LAYERS, TPU)
    assert found.peak_ops_per_second == 2 * 256 * 256 * 700e6 == 91.7504e12
    assert found.ridge == pytest.approx(256 * 256 * 700e6 / 34e9, rel=1e-12)
    assert round(found.ridge) == 1349


def test_points_of_layers_that_memory_limits_lie_on_the_slope() -> None:
    mlp, lstm, cnn = roofline(LAYERS, TPU).points
    assert (mlp.name, mlp.intensity, mlp.bound) == ("MLP0", 200, "memory")
    # 64 tiles of 65,536 bytes at 34 GB/s; only the ceiling of each transfer is lost.
    assert mlp.cycles == 64 * -(-65536 * 700 // 34_000)
    assert mlp.ops_per_second == pytest.approx(2 * 200 * 34e9, rel=1e-3)
    assert mlp.attained == pytest.approx(1, abs=1e-3)
    # 600 x 600 fills 9 tiles of 256 x 256 to 61 percent.
    assert lstm.intensity == 96 and lstm.attained == pytest.approx(360_000 / (9 * 65_536), abs=1e-3)
    assert cnn.intensity == 1444 and cnn.bound == "array" and cnn.roof == 91.7504e12
    assert cnn.cycles == estimate(LAYERS["CNN0"], machine=TPU).cycles


gemms = st.builds(Gemm, *[st.integers(1, 300)] * 3, groups=st.integers(1, 3))


@examples(20)
@given(gemms, st.integers(1, 40), st.integers(1, 40), st.fractions(Fraction(1, 100), 500), st.booleans())
def test_no_estimate_lies_above_the_roof(gemm: Gemm, rows: int, cols: int, rate: Fraction, ideal: bool) -> None:
    memory = systolic.MemoryConfig(
        weight_bytes=2**30, weight_bytes_per_second=rate * 1_000_000, unified_buffer_rows=1, host_rows=1,
        host_bytes_per_second=1,
    )  # fmt: skip
    machine = MachineConfig(ArrayConfig(rows, cols), clock_mhz=1, memory=None if ideal else memory)
    found = roofline([gemm], machine)
    (point,) = found.points
    stats = estimate(gemm, machine=machine)
    assert (point.macs, point.weight_bytes) == (gemm.macs, stats.weight_bytes)
    assert point.cycles >= stats.cycles
    assert found.total is not None and (found.total.macs, found.total.cycles) == (point.macs, point.cycles)
    roof = 2 * rows * cols * 1e6
    assert found.peak_ops_per_second == roof
    if ideal:
        assert found.ridge is None and point.bound == "array" and point.cycles == stats.cycles
    else:
        roof = min(roof, 2 * gemm.macs / stats.weight_bytes * float(rate) * 1e6)
    assert point.roof == pytest.approx(roof, rel=1e-9) and point.ops_per_second <= roof * (1 + 1e-9)


def test_models_have_a_point_per_layer_on_the_array() -> None:
    example = systolic.load_example()
    found = roofline(example.model, TPU, batch=4)
    summary = systolic.summary(example.model, machine=TPU, batch=4)
    nodes = [node for node in summary.nodes if node.stats is not None]
    assert [point.name for point in found.points] == [node.name for node in nodes]
    assert [point.macs for point in found.points] == [node.stats.macs for node in nodes]
    assert found.total is not None and found.total.macs == systolic.estimate(example.model, machine=TPU.array, batch=4).macs
    ideal = roofline(example.model, presets.TPU_V1.array, batch=4)
    assert ideal.total is not None and ideal.total.cycles == systolic.estimate(example.model, machine=TPU.array, batch=4).cycles
    assert "no weight memory" in repr(ideal)


TEXT = """read_weights w#0, 2
read_host u#0, 16
matmul a#0, u#0, 16
activate u#16, a#0, 16
vector u#32, inputs (u#16), 16, f#0
matmul a#16, u#16, 16
write_host u#32, 16"""


def test_sections_of_programs_are_timed() -> None:
    sections = [
        Section("first", "Dense", 0, 4, macs=16 * 60_000, weight_bytes=60_000),
        Section("pool", "MaxPool", 4, 5),
        Section("second", "Dense", 5, 7, macs=16 * 65_536, weight_bytes=65_536),
    ]
    program = Program(TEXT, sections=sections)
    found = roofline(program, TPU)
    timeline = time_program(program, TPU)
    assert [point.name for point in found.points] == ["first", "second"] and found.timed
    times = [layer.stats.cycles for layer in timeline.layers()]
    assert [point.cycles for point in found.points] == [times[0], times[2]]
    assert found.points[0].intensity == 16
    assert found.total is not None and found.total.cycles == timeline.cycles
    assert found.total.macs == 16 * (60_000 + 65_536)
    # Without sections the program is one layer, whose tiles count whole.
    (point,) = roofline(Program(TEXT), TPU).points
    assert (point.name, point.macs, point.cycles) == ("program", 32 * 65_536, timeline.cycles)


def test_rooflines_are_shown() -> None:
    found = roofline(LAYERS, TPU)
    assert repr(found) == "<Roofline of 3 layers: peak 91.8 Tops/s, ridge point 1,349 MACs per weight byte>"
    rows = found.table().to_dicts()
    assert rows[0]["macs_per_weight_byte"] == 200 and "13.6 Tops/s" in str(found)
    assert "<table" in found._repr_html_() and "LSTM1" in found._repr_html_()
    values = json.loads(json.dumps(found.to_dict()))
    assert [point["name"] for point in values["points"]] == ["MLP0", "LSTM1", "CNN0", "total"]
    assert values["ridge"] == found.ridge
    nothing = roofline(Gemm(0, 3, 3), TPU)
    assert nothing.points == () and nothing.total is None and "0 layers" in str(nothing)
    assert "points" in nothing.to_dict()


def test_pictures_show_roof_and_points() -> None:
    pytest.importorskip("matplotlib")
    found = roofline({**LAYERS, "MLP0 again": LAYERS["MLP0"]}, TPU)
    (ax,) = found.plot().axes
    assert ax.get_xscale() == ax.get_yscale() == "log"
    roof = next(line for line in ax.get_lines() if len(line.get_xdata()) == 3)
    assert roof.get_xdata()[1] == found.ridge and roof.get_ydata()[1:].tolist() == [91.7504e12] * 2
    # The slope is one of intensity: operations per second are 2 * MACs per byte * bytes per second.
    assert roof.get_ydata()[0] == pytest.approx(2 * roof.get_xdata()[0] * 34e9, rel=1e-9)
    shown = ax.collections[0].get_offsets().tolist()
    assert shown == [[p.intensity, p.ops_per_second] for p in found.points]
    texts = {text.get_text() for text in ax.texts}
    assert {"MLP0, 1 more", "LSTM1", "CNN0", "total", "ridge point 1,349", "91.8 Tops/s"} <= texts
    assert "estimated" in ax.get_title(loc="left")
    (flat,) = roofline(LAYERS, TPU.array).plot().axes
    assert not any("ridge" in text.get_text() for text in flat.texts)
    (empty,) = roofline([], TPU).plot().axes
    assert empty.collections[0].get_offsets().tolist() == []


def test_pictures_need_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    found = roofline(LAYERS, TPU)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with raises(ImportError, 'drawing needs matplotlib: pip install "systolic[plot]"'):
        found.plot()


@pytest.mark.parametrize(
    ("work", "machine", "message"),
    [
        (5, TPU, "roofline takes a Program, a Model, a Gemm, several Gemms, a Run or Stats, not int 5"),
        ([Gemm(1, 1, 1), 5], TPU, "roofline takes Gemms, as Gemm(m, k, n), not int 5"),
        (Gemm(1, 1, 1), None, "machine must be a MachineConfig or an ArrayConfig, not NoneType"),
    ],
)
def test_wrong_arguments(work: Any, machine: Any, message: str) -> None:
    with raises(TypeError, message):
        roofline(work, machine)


def test_programs_need_memories() -> None:
    with raises(
        ValueError, "a program needs a machine with memories: MachineConfig(..., memory=MemoryConfig(...))"
    ):
        roofline(Program("nop"), TPU.array)


def test_sizes_that_only_a_run_knows() -> None:
    q = systolic.QuantParams(0.5)
    dense = systolic.layers.Dense(np.ones((4, 3), np.int8), x=q, w=q, y=q)
    model = systolic.Model([Nonzero(), dense], inputs={"x": ((None, 4), "int8")})
    with pytest.raises(ValueError, match=r"^cannot estimate node '\w+' without data: the size of its product depends on"):
        roofline(model, TPU, batch=3)


def test_layers_that_keep_the_weights_count_in_the_total() -> None:
    program = Program(
        "read_weights w#0, 1\nread_host u#0, 16\nmatmul a#0, u#0, 16\nmatmul a#16, u#0, 16, same_weights",
        sections=[Section("first", "Dense", 0, 3), Section("second", "Dense", 3, 4)],
    )
    found = roofline(program, presets.TPU_V1)
    (first,), total = found.points, found.total
    assert total is not None and total.macs == 2 * first.macs and total.weight_bytes == first.weight_bytes == 256 * 256


def test_every_result_has_a_roofline() -> None:
    example = systolic.load_example()
    run = systolic.run(example.model, example.images[:1], machine=TPU, mode="wavefront")
    program, timeline = run.program, run.timeline
    of_run, of_timeline = roofline(run), roofline(timeline)
    assert of_run == of_timeline == roofline(program, TPU) == roofline(run, TPU) and of_run.timed
    (point,) = roofline(run.stats, TPU).points
    assert (point.name, point.macs, point.cycles, point.intensity) == ("total", run.stats.macs, run.stats.cycles, of_run.total.intensity)
    alone = systolic.run(example.model, example.images[:1], machine=TPU.array, mode="wavefront")
    flat = roofline(alone)
    assert flat.ridge is None and [p.name for p in flat.points] == [each.name for each in alone.layers if each.stats.macs]
    assert flat.total.cycles == alone.stats.cycles
    with pytest.raises(ValueError, match="Run .* has a machine, which is another one; leave machine out"):
        roofline(run, TPU.array)
    with pytest.raises(TypeError, match="machine must be a MachineConfig or an ArrayConfig, not NoneType"):
        roofline(Gemm(1, 1, 1))


def test_workloads_and_files(tmp_path: Path) -> None:
    block = Workload("block", [("a", Gemm(200, 2048, 2048), 3), ("b", Gemm(7, 64, 64))])
    found = roofline(block, TPU)
    (one,) = roofline(Gemm(200, 2048, 2048), TPU).points
    assert [p.name for p in found.points] == ["a", "b"]
    assert (found.points[0].cycles, found.points[0].macs) == (3 * one.cycles, 3 * one.macs)
    (tmp_path / "block.csv").write_text("Layer, M, N, K,\na, 200, 2048, 2048, 3,\nb, 7, 64, 64,\n")
    assert roofline(tmp_path / "block.csv", TPU) == found
