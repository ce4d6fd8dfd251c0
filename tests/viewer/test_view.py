"""Views as Python makes them: what they hold, what they refuse, how they are shown and saved."""

from __future__ import annotations

import builtins
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import systolic
from systolic import (
    ArrayConfig,
    Change,
    Gemm,
    MachineConfig,
    Probe,
    SystolicArray,
    Trace,
    conv2d,
    folds,
    matmul,
)
from systolic.isa import Program
from systolic.trace import Streams
from systolic.viewer import View, stays_of
from systolic.viewer import view as views
from systolic.viewer.page import source

X, W = np.int8([[1, 2], [3, 4], [-5, 6]]), np.int8([[7, -8, 9], [10, 11, -12]])


def folded(**options: Any) -> SystolicArray:
    return SystolicArray(ArrayConfig(2, 3, **options)).fold(w=W, x=X)


def test_the_array_stays_as_it_was() -> None:
    class Fails(Probe):
        def at_stop(self, cycle: int, registers: Any) -> Change:
            raise AssertionError("called")

    array = SystolicArray(ArrayConfig(2, 3), probe=Fails()).fold(w=W, x=X)
    before = array.state()
    assert array.view().description["cycles"] == 9
    assert array.state() == before


def test_sums_of_a_machine_around_the_array_are_not_taken_twice() -> None:
    taken: list[int] = []
    array = SystolicArray(ArrayConfig(2, 3))
    array.queue_fold(W, X, lambda row, sums: taken.append(row))
    array.view()
    assert taken == []
    array.run()
    assert taken


def test_cycles_of_a_view() -> None:
    array = folded()
    assert array.view(3).description["cycles"] == 4
    later = array.run(4).view().description
    assert (later["first_cycle"], later["cycles"], set(later["initial"])) == (
        4, 5, {"weight", "next_weight", "weight_pass", "activation", "psum", "shift", "swap"},
    )  # fmt: skip
    idle = array.run().view().description
    assert (idle["first_cycle"], idle["cycles"]) == (8, 0) and "call view() before run()" in idle["notes"][0]
    with pytest.raises(ValueError, match="cycles must be a non-negative integer, not -1"):
        array.view(-1)
    with pytest.raises(ValueError, match=r"view shows at most 65,536 cycles, not 70000|not 70,000"):
        array.view(70_000)


def test_folds_that_are_queued_have_the_times_of_a_schedule() -> None:
    x, w = np.ones((5, 4), np.int8), np.ones((4, 3), np.int8)
    for flow in ("weight_stationary", "input_stationary", "output_stationary"):
        config = ArrayConfig(2, 3, dataflow=flow)
        plan = folds(Gemm(5, 4, 3), array=config)
        array = SystolicArray(config)
        for f in plan:
            array.fold(x=x[f.m_start : f.m_stop, f.k_start : f.k_stop], w=w[f.k_start : f.k_stop, f.n_start : f.n_stop])
        found = [fold[:4] for fold in array.view().description["folds"]]
        assert found == [stay.to_list()[:4] for stay in stays_of(config, plan, 0, 100)] and len(found) > 1


def test_groups_have_outputs_of_their_own() -> None:
    images, kernels = np.ones((1, 4, 3, 3), np.int8), np.ones((4, 1, 2, 2), np.int8)
    streams = Streams(cycles=(12, 99))
    result = conv2d(images, kernels, groups=4, array=ArrayConfig(2, 2), probe=streams)
    described = streams.view(folds=result.folds).description
    assert {fold[-3] for fold in described["folds"]} == {0, 1, 2, 3}
    assert len(described["outputs"]) == 4 and described["outputs"][0] == [0, 0] != described["outputs"][3]


def test_a_page_is_one_file_that_loads_nothing(tmp_path: Path) -> None:
    view = folded().view(title='<b> & "quotes"')
    path = tmp_path / "view.html"
    view.save(path)
    text = path.read_text(encoding="utf-8")
    assert text == view.html() and "default-src 'none'" in text
    assert not re.search(r"""(src|href)\s*=|@import|url\(|fetch\(|XMLHttp|import\s*\(|https?://""", text)
    data = re.search(r'<script type="application/json" id="description">(.*?)</script>', text)
    assert data and json.loads(data[1]) == view.description
    assert "<title>&lt;b&gt; &amp; &quot;quotes&quot;</title>" in text
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        view.save(tmp_path / "none" / "view.html")


def test_larger_pages_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert views.MOST_BYTES == 5_000_000
    x, w = np.ones((4000, 64), np.int8), np.ones((64, 1), np.int8)
    array = SystolicArray(ArrayConfig(64, 1)).fold(x=x, w=w)
    size = len(array.view().html())
    monkeypatch.setattr(views, "MOST_BYTES", 400_000)
    with pytest.raises(ValueError, match=r"the page would have 0\.4 MB, more than the 0\.4 MB .* show fewer cycles"):
        array.view()
    assert size > 400_000 > 1.5 * len(array.view(1500).html())


def test_sums_of_64_bits_are_refused() -> None:
    with pytest.raises(ValueError, match="the viewer adds sums of 16 to 32 bits, or float32, but this array has"):
        folded(psum_bits=64).view()


def test_a_view_shows_itself_with_anywidget_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    view = folded().view()
    really = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "anywidget":
            raise ImportError(name)
        return really(name, *arguments, **options)

    from systolic.viewer.widget import widget_class

    widget_class.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(builtins, "__import__", without)
        shown = view._repr_mimebundle_()
        assert shown["text/html"].startswith('<iframe srcdoc="&lt;!doctype html&gt;')
        with pytest.raises(ImportError, match=r'pip install "systolic\[notebook\]"'):
            view.widget()
    pytest.importorskip("anywidget")
    widget = view.widget()
    assert widget._esm == source() and widget.description == view.description and widget.cycle == 0
    bundle = view._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in (bundle[0] if isinstance(bundle, tuple) else bundle)


def test_a_trace_must_have_recorded_everything() -> None:
    with pytest.raises(ValueError, match="nothing is recorded yet"):
        Trace().view()
    for options in ({"registers": "psum"}, {"pes": [(0, 0)]}):
        result = matmul(X, W, array=ArrayConfig(2, 3), trace=Trace(**options))
        assert result.trace is not None
        with pytest.raises(ValueError, match="record them all, leave registers and pes out"):
            result.trace.view()
    trace = Trace(cycles=(2, 5))
    array = SystolicArray(ArrayConfig(2, 3), trace=trace).fold(w=W, x=X)
    state = array.state()
    array.run()
    described = trace.view().description
    assert (described["first_cycle"], described["cycles"]) == (3, 2)
    array.restore(state.replace(cycle=20, queues=None)).run(3)
    assert trace.view().description == described
    with pytest.raises(ValueError, match="nothing was recorded"):
        Streams().view()


def test_a_trace_of_edges_with_a_gap_is_refused() -> None:
    trace = Trace()
    array = SystolicArray(ArrayConfig(1, 1), trace=trace)
    array.run(2)
    array.restore(array.state().replace(cycle=5)).run(1)
    with pytest.raises(ValueError, match="of those of cycles 0 to 5 only 3 were recorded"):
        trace.view()


def test_names_of_a_trace_come_from_folds_or_from_swaps() -> None:
    rng = np.random.default_rng(0)
    for flow, shapes in (("weight_stationary", ((5, 4), (4, 3))), ("output_stationary", ((2, 5), (5, 6)))):
        x, w = (rng.integers(1, 9, shape, dtype=np.int8) for shape in shapes)
        result = matmul(x, w, array=ArrayConfig(2, 3, dataflow=flow), trace=True)
        assert result.trace is not None
        given = result.trace.view(folds=result.folds).description["folds"]
        found = result.trace.view().description["folds"]
        # When streams begin and how long they are, and when sums leave.
        assert [fold[1:4] for fold in found] == [fold[1:4] for fold in given] and len(given) == 2


@pytest.mark.parametrize("flow", ["weight_stationary", "output_stationary", "input_stationary"])
def test_what_are_no_folds_of_the_array_is_refused(flow: str) -> None:
    larger = matmul(X, W, array=ArrayConfig(3, 3, dataflow=flow), trace=True)
    result = matmul(X, W, array=ArrayConfig(1, 2, dataflow=flow), trace=True)
    assert result.trace is not None
    assert result.trace.view(folds=result.folds).description["folds"]
    with pytest.raises(ValueError, match="^folds are of another array: .* PEs, and here are 1 x 2; pass the folds of "):
        result.trace.view(folds=larger.folds)
    with pytest.raises(TypeError, match="^folds must be Folds, such as result.folds, not int 3$"):
        result.trace.view(folds=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="^folds must hold Folds, as result.folds does, not int 1$"):
        result.trace.view(folds=[1])


def test_a_window_that_begins_late_has_no_output_of_which_a_part_is_missing() -> None:
    x, w = np.ones((4, 6), np.int8), np.ones((6, 3), np.int8)
    streams = Streams(cycles=(9, 30))
    result = matmul(x, w, array=ArrayConfig(2, 3, accumulator_rows=4), probe=streams)
    view = streams.view(folds=result.folds)
    outputs = [fold[-2] for fold in view.description["folds"]]
    assert outputs == [-1, -1, -1, 0, 0, 0]
    assert view.description["first_cycle"] == 9


def test_a_timeline_is_a_view() -> None:
    machine = systolic.presets.TPU_V1
    assert isinstance(machine, MachineConfig)
    timeline = systolic.machine.time_program(Program("read_host u#0, 8"), machine)  # type: ignore[attr-defined]
    view = timeline.view(title="One")
    assert isinstance(view, View) and view.description["cycles"] == timeline.cycles
    assert view.description["lanes"][0]["unit"] == "host in"
