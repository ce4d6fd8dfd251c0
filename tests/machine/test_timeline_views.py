"""Timelines as stats, layers, lanes, occupancy, trace files and pictures: they tell what the times tell."""

from __future__ import annotations

import json
import math
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.programs import Case, programs, rows_written
from support.strategies import examples, raises
from support.timelines import machine_of, naive_fifo, naive_rows
from systolic import ArrayConfig, MachineConfig, MemoryConfig, Stats, isa
from systolic._show.table import percent
from systolic.isa import Program, Section
from systolic.machine import Timeline, read_trace, time_program
from systolic.machine.lanes import UNITS
from systolic.machine.spans import CAUSES, LIMITS
from systolic.reference import machine as reference

MEMORY = MemoryConfig(
    weight_bytes=2**33, weight_bytes_per_second=48 * 700_000_000, unified_buffer_rows=98_304,
    host_rows=2**20, host_bytes_per_second=22 * 700_000_000,
)  # fmt: skip
MACHINE = MachineConfig(ArrayConfig(256, 256), clock_mhz=700, memory=MEMORY)

TEXT = """read_weights w#0, 2
read_host u#0, 16
matmul a#0, u#0, 16
activate u#16, a#0, 16
matmul a#16, u#16, 16
activate u#32, a#16, 16
write_host u#32, 16"""
SECTIONS = [Section("first", "Dense", 0, 4, macs=16 * 200 * 100, weight_bytes=20_000), Section("second", "Dense", 4, 7)]
PROGRAM = Program(TEXT, sections=SECTIONS)
TIMELINE = time_program(PROGRAM, MACHINE)


def timeline_of(case: Case, sections: list[Section] | None = None) -> Timeline:
    program = Program(case.instructions, case.program.functions, sections=sections or ())
    return time_program(program, machine_of(case.machine))


@examples(6)
@given(programs())
def test_spans_follow_each_other_and_name_each_cycle_once(case: Case) -> None:
    timeline = timeline_of(case)
    spans = timeline.spans
    assert ([0, *spans.end.tolist()])[:-1] == spans.start.tolist()
    assert (spans.end > spans.start).all()
    assert (int(spans.end[-1]) if len(spans.end) else 0) == timeline.cycles
    # Streams are where the multiplies run, and nowhere else.
    active = spans.cause == CAUSES.index("active")
    multiplies = timeline.multiplies[spans.multiply[active]]
    assert multiplies.tolist() == timeline.multiplies.tolist()
    assert spans.start[active].tolist() == timeline.start[multiplies].tolist()
    assert spans.end[active].tolist() == timeline.end[multiplies].tolist()
    theirs = reference.time_program(case.instructions, **case.machine, rows_written=rows_written)
    assert timeline.causes == theirs.causes


@examples(6)
@given(programs())
def test_stats_add_up(case: Case) -> None:
    timeline = timeline_of(case)
    stats, array = timeline.stats, timeline.machine.array
    assert stats.cycles == timeline.cycles
    assert (
        stats.active_cycles + stats.weight_stall_cycles + stats.weight_shift_cycles + stats.non_matrix_cycles
        == stats.cycles
    )
    assert (
        stats.raw_stall_cycles
        + stats.input_stall_cycles
        + stats.accumulator_stall_cycles
        + stats.other_stall_cycles
        == stats.non_matrix_cycles
    )
    for cause, count in timeline.causes.items():
        assert getattr(stats, f"{cause}_cycles") == count
    assert stats.pe_cycles == array.rows * array.cols * stats.cycles
    multiplies = [item for item in case.instructions if isinstance(item, isa.MatrixMultiply | isa.Convolve)]
    rows = sum(item.rows for item in multiplies)
    assert stats.folds == sum(item.new_weights for item in multiplies)
    # Without a weight image tiles count whole.
    assert stats.macs == rows * array.rows * array.cols
    assert stats.weight_bytes == stats.folds * array.rows * array.cols
    assert stats.activation_bytes == rows * array.rows
    read = sum(item.rows for item in case.instructions if isinstance(item, isa.Activate))
    assert stats.output_bytes == 4 * read * array.cols
    assert stats.unused_macs == stats.active_cycles * array.rows * array.cols - stats.macs


@examples(6)
@given(programs(), st.lists(st.integers(0, 25), max_size=4))
def test_layers_share_the_cycles_by_when_they_complete(case: Case, cuts: list[int]) -> None:
    stops = sorted(min(cut, len(case.instructions)) for cut in cuts)
    firsts = [0, *stops[:-1]]
    sections = [Section(str(i), "x", a, b) for i, (a, b) in enumerate(zip(firsts, stops, strict=bool(stops)))] if stops else []
    timeline = timeline_of(case, sections)
    layers = timeline.layers()
    assert len(layers) == max(len(sections), 1)
    assert sum((layer.stats for layer in layers), Stats()) == timeline.stats
    # Cycle by cycle: the layer during which everything before it has completed.
    cause_of = np.empty(timeline.cycles, object)
    for start, end, code in zip(*(v.tolist() for v in timeline.spans[:3]), strict=True):
        cause_of[start:end] = CAUSES[code]
    edge = 0
    for number, layer in enumerate(layers):
        stop = len(case.instructions) if number == len(layers) - 1 else stops[number]
        complete = max([edge, *timeline.complete[:stop].tolist()])
        there = cause_of[edge:complete].tolist()
        assert layer.causes == {cause: there.count(cause) for cause in CAUSES}
        assert layer.stats.cycles == complete - edge
        if there:
            assert layer.causes[next(c for c in CAUSES if LIMITS[c] == layer.limit)] == max(layer.causes.values())
        else:
            assert layer.limit == "-"
        edge = complete


def test_sections_of_one_layer_are_joined() -> None:
    """As where a batch is cut: each part runs all layers."""
    text = "\n".join([TEXT] * 2)
    parts = [Section(s.name, s.kind, s.first + at, s.stop + at, s.macs, s.weight_bytes) for at in (0, 7) for s in SECTIONS]
    alone = [Section(f"{s.name} {i}", s.kind, s.first, s.stop, s.macs, s.weight_bytes) for i, s in enumerate(parts)]
    joined = time_program(Program(text, sections=parts), MACHINE).layers()
    apart = time_program(Program(text, sections=alone), MACHINE).layers()
    assert [(layer.name, layer.sections) for layer in joined] == [("first", 2), ("second", 2)]
    assert len(apart) == 4
    assert [layer.stats for layer in joined] == [apart[0].stats + apart[2].stats, apart[1].stats + apart[3].stats]
    assert joined[0].stats.macs == 2 * 16 * 200 * 100


def test_a_layer_ends_in_the_middle_of_the_next_ones_stream() -> None:
    text = "read_weights w#0, 1\nmatmul a#0, u#0, 16\nmatmul a#100, u#100, 2000, same_weights"
    sections = [Section("a", "Dense", 0, 2), Section("b", "Dense", 2, 3)]
    a, b = time_program(Program(text, sections=sections), MACHINE).layers()
    # The first sums need 511 cycles more, in which the array streams rows of b.
    assert a.causes["active"] == 16 + 511 and b.causes["active"] == 2000 - 511
    assert b.causes["other_stall"] == 511 and b.stats.cycles == 2000


def test_counts_come_from_sections_and_else_from_the_tiles() -> None:
    first, second = TIMELINE.layers()
    assert (first.stats.macs, first.stats.weight_bytes) == (16 * 200 * 100, 20_000)
    assert (second.stats.macs, second.stats.weight_bytes) == (16 * 256 * 256, 256 * 256)
    weights = np.zeros((2, 256, 256), np.int8)
    weights[0, :200, :100] = 1
    weights[1, 9, 3] = weights[1, 4, 6] = -1  # 10 rows and 7 columns
    layers = time_program(Program(TEXT, weights=weights, sections=SECTIONS), MACHINE).layers()
    assert [layer.stats.macs for layer in layers] == [16 * 200 * 100, 16 * 10 * 7]
    assert [layer.stats.weight_bytes for layer in layers] == [20_000, 70]
    whole = time_program(Program(TEXT, weights=weights), MACHINE)
    (program,) = whole.layers()
    assert (program.name, program.stats.macs) == ("program", 16 * (200 * 100 + 70))
    assert program.stats == whole.stats and program.stats.folds == 2
    assert program.stats.activation_bytes == 32 * 256 and program.stats.output_bytes == 4 * 32 * 256
    empty = time_program(Program(TEXT, weights=np.zeros((2, 256, 256), np.int8)), MACHINE)
    assert empty.stats.macs == empty.stats.weight_bytes == 0


def test_multiplies_of_one_tile_count_it_once() -> None:
    weights = np.ones((3, 4, 4), np.int8)
    weights[1, 2:] = 0
    text = "read_weights w#1, 2\nmatmul a#0, u#0, 5\nmatmul a#5, u#0, 6, same_weights\nmatmul a#0, u#0, 7"
    machine = MachineConfig(ArrayConfig(4, 4), memory=MEMORY)
    stats = time_program(Program(text, weights=weights), machine).stats
    assert stats.macs == 11 * 2 * 4 + 7 * 4 * 4 and stats.weight_bytes == 8 + 16 and stats.folds == 2


def test_layers_are_shown() -> None:
    table = TIMELINE.layers_table()
    rows = table.to_dicts()
    assert [row["node"] for row in rows] == ["first", "second"]
    assert sum(row["cycles"] for row in rows) == TIMELINE.cycles
    assert rows[0]["limit"] == "weight memory"
    text = str(table)
    assert "total" in text and "weight shift" in text
    empty = time_program(Program(()), MACHINE)
    assert empty.layers()[0].limit == "-" and empty.stats == Stats() and "total" in str(empty.layers_table())


@examples(6)
@given(programs())
def test_lanes_do_one_thing_at_a_time(case: Case) -> None:
    timeline = timeline_of(case)
    assert tuple(lane.unit for lane in timeline.units) == UNITS
    seen = []
    for lane in timeline.units:
        events = list(zip(lane.start.tolist(), lane.end.tolist(), strict=True))
        assert all(a <= b for a, b in events)
        assert all(before[1] <= after[0] for before, after in pairwise(events))
        if lane.unit not in ("weight fetch", "weight shift"):
            seen += lane.instruction.tolist()
            assert lane.start.tolist() == timeline.start[lane.instruction].tolist()
            assert lane.complete.tolist() == timeline.complete[lane.instruction].tolist()
    alone = (isa.ReadWeights, isa.SetConfiguration, isa.Sync, isa.Nop, isa.Halt)
    assert sorted(seen) == [i for i, item in enumerate(case.instructions) if not isinstance(item, alone)]
    fetch, shift = (next(lane for lane in timeline.units if lane.unit == f"weight {of}") for of in ("fetch", "shift"))
    theirs = reference.time_program(case.instructions, **case.machine, rows_written=rows_written)
    used = len(theirs.fetches)
    assert list(zip(fetch.start.tolist(), fetch.complete.tolist(), strict=True))[:used] == theirs.fetches
    assert all(isinstance(case.instructions[number], isa.ReadWeights) for number in fetch.instruction)
    transfer = math.ceil(case.machine["tile_bytes"] / case.machine["weight_bytes_per_cycle"])
    assert (fetch.end - fetch.start == transfer).all()
    assert shift.start.tolist() == [cycle for cycle in theirs.shift_start if cycle is not None]
    assert (shift.end - shift.start == case.machine["rows"]).all()
    assert len(timeline.lanes().rows) == sum(len(lane.start) for lane in timeline.units)


def test_lanes_are_shown() -> None:
    rows = TIMELINE.lanes().to_dicts()
    assert rows[0] == {
        "unit": "host in", "instruction": 1, "text": "read_host u#0, h#0, 16", "start_cycle": 1,
        "end_cycle": 188, "complete_cycle": 188,
    }  # fmt: skip
    fetches = [row for row in rows if row["unit"] == "weight fetch"]
    assert [(row["instruction"], row["start_cycle"], row["end_cycle"]) for row in fetches] == [(0, 0, 1366), (0, 1366, 2732)]


@examples(6)
@given(programs())
def test_occupancy_equals_the_slow_derivation(case: Case) -> None:
    timeline = timeline_of(case)
    found = timeline.occupancy()
    assert list(found) == ["ub", "acc", "fifo"]
    expected = {name: naive_rows(timeline, name) for name in ("ub", "acc")}
    expected["fifo"] = naive_fifo(timeline)
    for name, curve in found.items():
        at = np.searchsorted(curve.cycle, np.arange(timeline.cycles), side="right") - 1
        assert curve.used[at].tolist() == expected[name]
        assert curve.cycle[0] == 0 and (np.diff(curve.cycle) > 0).all() and (np.diff(curve.used) != 0).all()
        assert curve.limit is not None and curve.peak <= curve.limit
        assert curve.mean == pytest.approx(sum(expected[name]) / timeline.cycles if timeline.cycles else 0)


def test_occupancy_of_a_program() -> None:
    found = TIMELINE.occupancy()
    assert (found["ub"].peak, found["acc"].peak, found["fifo"].peak) == (16, 16, 2)
    assert (found["ub"].limit, found["acc"].limit, found["fifo"].limit) == (98_304, 4096, 4)
    # Each 16 rows are read for the last time before the next 16 are written.
    assert found["ub"].table().to_dicts()[:2] == [{"cycle": 0, "used_rows": 0}, {"cycle": 1, "used_rows": 16}]
    assert "at most 16 rows" in found["ub"]._repr_html_()


@examples(4)
@given(programs())
def test_traces_are_read_back(tmp_path_factory: Any, case: Case) -> None:
    timeline = timeline_of(case)
    path = tmp_path_factory.mktemp("trace") / "trace.json"
    timeline.save_trace(path)
    trace = read_trace(path)
    assert trace.cycles == timeline.cycles and trace.causes == timeline.causes
    for lane in timeline.units:
        events = trace.lanes.get(lane.unit, [])
        assert sorted((start, end) for _, start, end in events) == sorted(
            zip(lane.start.tolist(), lane.end.tolist(), strict=True)
        )
    for curve in timeline.occupancy().values():
        assert trace.counters[curve.memory] == list(zip(curve.cycle.tolist(), curve.used.tolist(), strict=True))


def _event(content: dict, kind: str) -> dict:
    return next(event for event in content["traceEvents"] if event["ph"] == kind)


def _longer(content: dict) -> None:
    lane = [event for event in content["traceEvents"] if event.get("cat") == "weight fetch"]
    lane[0]["dur"] += 1


def _twice(content: dict) -> None:
    last = [event for event in content["traceEvents"] if event.get("cat") == "cause"][-1]
    content["traceEvents"].append({**last, "ts": last["ts"] + last["dur"]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: _event(c, "X").pop("dur"), "event 4 (X) lacks dur"),
        (lambda c: _event(c, "C").pop("ts"), "lacks ts"),
        (lambda c: _event(c, "X").update(ts=-1), "event 4: ts must be a non-negative integer, not -1"),
        (lambda c: _event(c, "X").update(ts=1.5), "ts must be a non-negative integer, not 1.5"),
        (lambda c: _event(c, "X").update(ph="Q"), "event 4 must have a phase ph of M, X, C, not 'Q'"),
        (lambda c: _event(c, "X").update(tid=99), "the lane of process 1 and thread 99 has no thread_name"),
        (_longer, "lane 'weight fetch': 'read_weights w#0, 2' starts at 1366, while 'read_weights w#0, 2' lasts from 0 to 1367"),
        (_twice, "its events last"),
        (lambda c: c["otherData"]["causes"].update(active=0), "but it states"),
        (lambda c: c["otherData"].update(cycles=0), "and 0 cycles"),
        (lambda c: c.pop("otherData"), 'it must state cycles and causes in "otherData"'),
        (lambda c: c.pop("traceEvents"), 'it must hold a list "traceEvents"'),
    ],
)  # fmt: skip
def test_wrong_traces_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "trace.json"
    TIMELINE.save_trace(path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="trace.json is no trace of a timeline: ") as raised:
        read_trace(path)
    assert message in str(raised.value)


def test_traces_that_are_no_json_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text("{")
    with pytest.raises(ValueError, match="trace.json is no JSON: "):
        read_trace(path)
    with pytest.raises(FileNotFoundError):
        read_trace(tmp_path / "none.json")
    with pytest.raises(FileNotFoundError):
        TIMELINE.save_trace(tmp_path / "none" / "trace.json")


def test_pictures_have_a_lane_per_unit_and_a_panel_per_memory() -> None:
    pytest.importorskip("matplotlib")
    figure = TIMELINE.plot()
    units, *memories = figure.axes
    names = [label.get_text() for label in units.get_yticklabels()]
    assert names == ["host in", "host out", "weight fetch", "weight shift", "vector", "array"]
    assert [axes.get_ylabel().replace("\n", " ") for axes in memories] == ["unified buffer", "accumulators", "weight FIFO"]
    legend = [text.get_text() for text in units.get_legend().get_texts()]
    assert legend == [
        f"{cause.replace('_', ' ')} {percent(count / TIMELINE.cycles)}" for cause, count in TIMELINE.causes.items() if count
    ]
    assert units.get_xlim() == (0, TIMELINE.cycles)
    # A part: only what runs there, and shares of it.
    part = TIMELINE.plot(first=0, last=188).axes[0]
    assert [label.get_text() for label in part.get_yticklabels()] == ["host in", "weight fetch", "array"]
    assert [text.get_text() for text in part.get_legend().get_texts()] == ["input stall 100.0%"]


def test_pictures_refuse_what_cannot_be_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    with raises(ValueError, "there are no cycles to draw from 5 to 5; the program has 3,718"):
        TIMELINE.plot(first=5, last=5)
    with raises(ValueError, "there are no cycles to draw from 0 to 0; the program has 0"):
        time_program(Program(()), MACHINE).plot()
    with raises(TypeError, "first must be an integer, not str 'a'"):
        TIMELINE.plot(first="a")  # type: ignore[arg-type]
    with raises(TypeError, "last must be an integer, not float 1.5"):
        TIMELINE.plot(last=1.5)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with raises(ImportError, 'drawing needs matplotlib: pip install "systolic[plot]"'):
        TIMELINE.plot()


def test_cycles_of_layers_as_stacked_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    (ax,) = TIMELINE.plot_layers().axes
    layers = TIMELINE.layers()
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == [layer.name for layer in layers]
    ends = dict.fromkeys(range(len(layers)), 0)
    for bar in ax.patches:
        place = round(bar.get_y() + bar.get_height() / 2)
        assert bar.get_x() == ends[place]
        ends[place] += bar.get_width()
    assert list(ends.values()) == [layer.stats.cycles for layer in layers]
    shown = {text.get_text().rsplit(" ", 1)[0] for text in ax.get_legend().get_texts()}
    assert shown == {cause.replace("_", " ") for cause, count in TIMELINE.causes.items() if count}
    (first,) = TIMELINE.plot_layers(top=1).axes
    longest = max(layers, key=lambda layer: layer.stats.cycles)
    assert [label.get_text() for label in first.get_yticklabels()] == [longest.name[:31] + "..." if len(longest.name) > 34 else longest.name]
    with raises(ValueError, "top must be a positive integer, not 0"):
        TIMELINE.plot_layers(top=0)
    (nothing,) = time_program(Program(()), MACHINE).plot_layers().axes
    assert not any(bar.get_width() for bar in nothing.patches)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with raises(ImportError, 'drawing needs matplotlib: pip install "systolic[plot]"'):
        TIMELINE.plot_layers()
