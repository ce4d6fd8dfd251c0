"""What a run or a model costs, in every form it is shown; and that a run keeps no tensor too long."""

from __future__ import annotations

import csv
import html.parser
import io
import json
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import systolic
from systolic import ArrayConfig, Gemm, Model, Node, QuantParams, Stats, estimate, summary
from systolic._show.charts import Series, columns_chart
from systolic.engine import RunReport
from systolic.layers import Binary, Conv2d, Dense, Flatten, HostLayer, QLinearConv, Relu
from systolic.layers.base import UnknownShape
from systolic.model import Summary

SMALL = ArrayConfig(8, 8)
Q = QuantParams(0.5)


@dataclass(frozen=True, eq=False, repr=False)
class Positive(HostLayer):
    """The positive elements, as many as there are."""

    def output_shape(self, *shapes: Any) -> Any:
        raise UnknownShape

    def output_dtype(self, *dtypes: str) -> str:
        return dtypes[0]

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        return inputs[0][inputs[0] > 0]


def small_model(name: str = "conv") -> Model:
    rng = np.random.default_rng(0)
    bias = np.arange(3, dtype=np.int32)
    conv = Conv2d(rng.integers(-9, 9, (3, 2, 3, 3), dtype=np.int8), x=Q, w=Q, y=QuantParams(4.0), bias=bias)
    dense = Dense(rng.integers(-9, 9, (48, 5), dtype=np.int8), x=Q, w=Q, y=Q)
    nodes = [
        Node(conv, "x", "a", name),
        Node(Binary("Add"), ("a", "a"), "b", "twice"),
        Node(Binary("Add"), ("b", "c"), "d", "plus"),
        Node(Flatten(1), "d", "e", "flat"),
        Node(dense, "e", "y", "fc"),
    ]
    constants = {"c": np.ones((3, 4, 4), np.int8)}
    return Model(nodes, inputs={"x": ((None, 2, 6, 6), "int8")}, constants=constants, name="small")


@pytest.fixture(scope="module")
def run() -> systolic.Run:
    return systolic.run(small_model(), np.ones((2, 2, 6, 6), np.int8), machine=SMALL, mode="wavefront")


# Counts


def test_rows_by_hand(run: systolic.Run) -> None:
    rows = {row["node"]: row for row in run.report().rows}
    conv, twice, plus, flat, fc = rows.values()
    assert (conv["on"], conv["m"], conv["k"], conv["n"], conv["groups"]) == ("array", 32, 18, 3, 1)
    assert conv["macs"] == 32 * 18 * 3 and conv["folds"] == 3  # k tiles of 8, 8, 2
    assert (conv["weight_bytes"], conv["activation_bytes"], conv["output_bytes"]) == (18 * 3, 32 * 18, 4 * 96)
    assert (conv["parameters"], conv["parameter_bytes"]) == (54 + 3, 54 + 12)
    assert (conv["read_bytes"], conv["written_bytes"]) == (2 * 72, 2 * 48)
    assert (conv["shape"], conv["dtype"], conv["layer"]) == ("2x3x4x4", "int8", "QLinearConv")
    assert conv["cycles"] == estimate(Gemm(32, 18, 3), machine=SMALL).cycles
    assert conv["utilization"] == conv["macs"] / (64 * conv["cycles"])
    # A tensor read twice is one tensor; a constant is a parameter and no tensor between layers.
    assert twice["on"] == "host" and (twice["read_bytes"], twice["written_bytes"]) == (96, 96)
    assert (plus["read_bytes"], plus["parameters"], plus["parameter_bytes"]) == (96, 48, 48)
    for name in ("m", "folds", "cycles", "utilization", "macs", "seconds", "share", "weight_bytes"):
        assert flat[name] is None and twice[name] is None
    assert (fc["parameters"], fc["written_bytes"], fc["folds"]) == (240, 10, 6)
    assert conv["share"] + fc["share"] == pytest.approx(1)
    assert conv["seconds"] == conv["cycles"] / 700e6


def test_totals_are_the_sums(run: systolic.Run) -> None:
    report = run.report()
    rows, totals = report.rows, report.totals
    for name in rows[0]:
        if name.endswith("_bytes") or name in ("cycles", "macs", "folds", "parameters"):
            assert totals[name] == sum(row[name] or 0 for row in rows), name
        elif name.endswith("_seconds"):
            assert totals[name] == pytest.approx(sum(row[name] or 0 for row in rows)), name
    assert totals["utilization"] == run.stats.utilization
    assert (totals["array_nodes"], totals["host_nodes"]) == (2, 3)


def test_wall_seconds_split(run: systolic.Run) -> None:
    for row in run.report().rows:
        assert row["host_wall_seconds"] > 0
        assert row["wall_seconds"] == row["array_wall_seconds"] + row["host_wall_seconds"]
        assert (row["array_wall_seconds"] > 0) == (row["on"] == "array")


def test_a_report_keeps_no_output_alive() -> None:
    x = np.ones((2, 2, 6, 6), np.int8)
    run = systolic.run(small_model(), x, machine=SMALL, mode="wavefront")
    output, report = weakref.ref(run.outputs["y"]), run.report()
    del run
    assert output() is None and report.totals["cycles"] > 0


def test_report_takes_a_run_only() -> None:
    with pytest.raises(TypeError, match=r"a report is about a Run, not dict; systolic\.run returns one"):
        RunReport({})  # type: ignore[arg-type]


# Summaries


@pytest.mark.parametrize("batch", (0, 1, 2, 5))
def test_summary_equals_a_run(batch: int) -> None:
    model = small_model()
    found = summary(model, machine=SMALL, batch=batch)
    x = np.ones((batch, 2, 6, 6), np.int8)
    report = systolic.run(model, x, machine=SMALL, mode="wavefront").report()
    shared = set(found.rows[0]) & set(report.rows[0]) - {"dtype"}
    assert len(shared) > 14
    for ours, theirs in zip(found.rows, report.rows, strict=True):
        assert {name: ours[name] for name in shared} == {name: theirs[name] for name in shared}
        assert ours["writes"] == theirs["shape"]
    for name in ("cycles", "macs", "parameters", "read_bytes", "written_bytes", "utilization"):
        assert found.totals[name] == report.totals[name]
    assert found.totals["complete"] is True
    assert found == model.summary(machine=SMALL, batch=batch)


def test_summary_without_data_computes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QLinearConv, "lower", lambda *arguments: pytest.fail("lowered"))
    assert small_model().summary(batch=10**9).totals["macs"] == 10**9 * (16 * 18 * 3 + 240)


def test_unknown_shapes_are_shown_as_such() -> None:
    dense = Dense(np.ones((4, 5), np.int8), x=Q, w=Q, y=Q)
    nodes = [
        Node(Positive(), "x", "some"),
        Node(Relu(), "some", "more"),
        Node(dense, "z", "known"),
        Node(Dense(np.ones((6, 2), np.int8), x=Q, w=Q, y=Q), "open", "unknown"),
    ]
    inputs: Any = {"x": ((9,), "int8"), "z": ((None, 4), "int8"), "open": ((None, None, 6), "int8")}
    model = Model(nodes, inputs=inputs, outputs=["more", "known", "unknown"])
    found = summary(model, machine=SMALL, batch=3)
    positive, relu, known, unknown = found.rows
    assert (positive["reads"], positive["writes"], positive["read_bytes"]) == ("9", "?", 9)
    assert (relu["reads"], relu["writes"], relu["written_bytes"]) == ("?", "?", None)
    assert (known["macs"], known["writes"]) == (3 * 4 * 5, "3x5")
    assert unknown["on"] == "array" and unknown["macs"] is unknown["cycles"] is unknown["m"] is None
    assert unknown["parameters"] == 12
    assert found.totals["macs"] == 60 and found.totals["complete"] is False
    text = str(found)
    assert "total of what is known" in text and text.splitlines()[-3].count("?") >= 5
    assert "at least" in repr(found) and "at least 60" in found.html()
    bound = summary(model, machine=SMALL, batch=3, shapes={"open": (2, 7, 6)})
    assert bound.rows[3]["macs"] == 2 * 7 * 6 * 2 and bound.totals["complete"] is False


def test_bad_arguments_of_a_summary() -> None:
    with pytest.raises(TypeError, match="model must be a Model, not int; load_onnx"):
        summary(3)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        summary("nowhere.onnx")
    with pytest.raises(ValueError, match="batch must be a non-negative integer, not -1"):
        small_model().summary(batch=-1)
    with pytest.raises(TypeError, match="machine must be a MachineConfig or an ArrayConfig, not int"):
        small_model().summary(machine=3)
    with pytest.raises(ValueError, match=r"must have shape \(\?, 2, 6, 6\)"):
        small_model().summary(shapes={"x": (1, 2, 6)})


# Forms


def reports() -> list[RunReport | Summary]:
    x = np.ones((2, 2, 6, 6), np.int8)
    model = small_model("<b>&amp;\n\x1b[31m\"'é")
    return [systolic.run(model, x, machine=SMALL, mode="wavefront").report(), model.summary(machine=SMALL)]


@pytest.fixture(scope="module", params=(0, 1), ids=("run", "summary"))
def report(request: pytest.FixtureRequest) -> RunReport | Summary:
    return reports()[request.param]


def test_json(report: RunReport | Summary, tmp_path: Path) -> None:
    text = report.to_json(tmp_path / "r.json")
    assert (tmp_path / "r.json").read_text(encoding="utf-8") == text

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    values = json.loads(text, parse_constant=refuse)
    assert values == report.to_dict() and values["nodes"] == report.rows and values["totals"] == report.totals
    assert systolic.MachineConfig.from_dict(values["machine"]).array == SMALL


def test_csv(report: RunReport | Summary, tmp_path: Path) -> None:
    text = report.to_csv(tmp_path / "r.csv")
    assert (tmp_path / "r.csv").read_bytes() == text.encode()
    read = list(csv.DictReader(io.StringIO(text, newline="")))
    expected = [{k: "" if v is None else str(v) for k, v in row.items()} for row in report.rows]
    assert expected[0].pop("node") == "<b>&amp;\n\x1b[31m\"'é"
    assert read[0].pop("node") == r"<b>&amp;\n\x1b[31m" + "\"'é"
    assert read == expected


@pytest.mark.slow
def test_frame(report: RunReport | Summary) -> None:
    pytest.importorskip("pandas")
    frame = report.to_frame()
    assert list(frame.columns) == list(report.rows[0]) and len(frame) == 5
    assert frame["cycles"].dtype == "Int64" and frame["cycles"].sum() == report.totals["cycles"]
    assert frame["cycles"].isna().tolist() == [False, True, True, True, False]


def test_table(report: RunReport | Summary) -> None:
    text = str(report.table())
    assert (
        text == str(report)
        and f"{report.totals['cycles']:,}" in text
        and "32 x 18 x 3" in text.replace("16 x", "32 x")
    )
    assert "\x1b" not in text and report._repr_html_().startswith("<table")
    assert f"{report.totals['macs']:,} MACs" in repr(report)


class Page(html.parser.HTMLParser):
    """What a page holds: its tags in order, none left open, and what they refer to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href", "srcset")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_page(report: RunReport | Summary, tmp_path: Path) -> None:
    text = report.html(tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text(encoding="utf-8") == text and text.startswith("<!DOCTYPE html>")
    page = Page(text)
    assert page.tags.count("svg") >= 3 and page.tags.count("table") >= 1 and page.tags.count("html") == 1
    # It stands alone; its one script is the one that the policy names.
    assert not page.addresses and page.tags.count("script") == 1 and "link" not in page.tags
    assert "http:" not in text and "https:" not in text and "url(" not in text and "@import" not in text
    # Names come from files: they are text, whatever they hold.
    assert "b" not in page.tags and "\x1b" not in text
    assert any("<b>&amp; \\x1b[31m\"'é" in words for words in page.words)
    assert f"{report.totals['macs']:,}" in " ".join(page.words)


def test_the_head_of_a_page_says_where_the_numbers_come_from(run: systolic.Run, tmp_path: Path) -> None:
    report = run.report(source="x.npy", verdict=["onnxruntime: equal", "numpy: equal"])
    words = " ".join(word.strip() for word in Page(report.html()).words)
    assert run.time is not None and run.model == "small" and run.inputs == {"x": ((2, 2, 6, 6), "int8")}
    for said in (
        "model  small", "input  x.npy: x 2x2x6x6 int8", "machine  8 x 8 array at 700 MHz; activation_dtype int8",
        "dataflow weight_stationary", f"time  {run.time:%Y-%m-%d %H:%M:%S}", f"systolic {systolic.__version__}",
        "verdict  onnxruntime: equal    numpy: equal",
    ):  # fmt: skip
        assert " ".join(said.split()) in " ".join(words.split()), said
    plain = run.report(tmp_path / "r.html", model="other.onnx").html()
    assert (tmp_path / "r.html").read_text(encoding="utf-8") == plain
    assert "<dd>other.onnx</dd>" in plain and "not checked: systolic.verify compares" in plain
    onnx = tmp_path / "m.npz"
    small_model().save(onnx)
    again = systolic.run(onnx, np.ones((2, 2, 6, 6), np.int8), machine=systolic.presets.TPU_V1, mode="wavefront")
    assert again.model == "m.npz" and "preset tpu-v1: 256 x 256 array at 700 MHz; " in again.report().html()
    assert "host_rows 4,194,304" in again.report().html()
    with pytest.raises(ValueError, match="a report's file must end in"):
        run.report(tmp_path / "r.txt")
    estimated = small_model().summary().html()
    assert "costs are estimated in closed form" in estimated and "shapes alone: nothing runs" in estimated


def test_save(report: RunReport | Summary, tmp_path: Path) -> None:
    for suffix, text in ((".json", report.to_json()), (".CSV", report.to_csv()), (".html", report.html())):
        report.save(tmp_path / f"r{suffix}")
        assert (tmp_path / f"r{suffix}").read_bytes() == text.encode()
    with pytest.raises(
        ValueError, match=r"a report's file must end in \.html, \.csv, \.json, not '.*r\.txt'"
    ):
        report.save(tmp_path / "r.txt")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        report.save(tmp_path / "nowhere" / "r.csv")


def test_nothing_ran() -> None:
    model = Model([], inputs={"x": ((2,), "int8")}, outputs=["x"])
    report = systolic.run(model, np.zeros(2, np.int8), machine=SMALL).report()
    for empty in (report, model.summary()):
        assert empty.rows == [] and empty.totals["cycles"] == 0 and empty.to_csv() == "\n"
        Page(empty.html())
        assert json.loads(empty.to_json())["nodes"] == []
    pytest.importorskip("pandas")
    assert len(report.to_frame()) == 0


# Charts


def heights(svg: str, kind: str) -> list[float]:
    return [float(part.split('height="')[1].split('"')[0]) for part in svg.split(f'class="{kind}"')[1:]]


def test_columns_are_as_high_as_their_values() -> None:
    svg = columns_chart("t", list("abc"), [Series("s", [1, 0, 4]), Series("r", [2, 0, 1])], str)
    # The first of each is the legend's square; there is none for 0.
    _, one, four = heights(svg, "s0")
    _, two, _ = heights(svg, "s1")
    assert (four, two) == (pytest.approx(4 * one, abs=0.02), pytest.approx(2 * one, abs=0.02))
    # The highest stack, 5, fills the axis.
    assert heights(svg, "hit") == [pytest.approx(5 * one, abs=0.05)] * 3


def test_columns_stand_on_each_other() -> None:
    svg = columns_chart("t", ["a"], [Series("s", [1]), Series("r", [3])], str)
    lower, upper = (
        {name: float(text.split(f' {name}="')[1].split('"')[0]) for name in ("y", "height")}
        for text in (svg.split(f'class="{kind}"')[-1] for kind in ("s0", "s1"))
    )
    assert upper["y"] + upper["height"] == pytest.approx(lower["y"], abs=0.02)


@pytest.mark.parametrize("values", ([0.0, 0.0], [1e-9, 3e-7], [1, 10**15], [0.3, 0.1]))
def test_axes_hold_any_values(values: list[float]) -> None:
    svg = columns_chart("t", ["a", "b"], [Series("s", values)], lambda v: f"{v:.3g}")
    assert 3 <= svg.count('class="grid"') <= 8 or not any(values)
    assert all(height <= 210.01 for height in heights(svg, "s0"))


def test_many_columns_have_numbers() -> None:
    names = [f"node{i}" for i in range(300)]
    svg = columns_chart("t", names, [Series("s", list(range(300)))], str)
    assert "rotate(" not in svg and svg.count('class="mid"') <= 26 and "299 node299: s 299" in svg


@pytest.mark.parametrize("length", [1, 16, 48])
def test_names_are_whole_and_inside(length: int) -> None:
    names = [f"{number:0{length}}"[-length:] for number in range(3)]
    svg = columns_chart("t", names, [Series("s", [1, 2, 3])], str)
    width, height = (float(part) for part in svg.split('viewBox="0 0 ')[1].split('"')[0].split())
    for name, place in zip(names, svg.split("translate(")[1:], strict=True):
        x, y = (float(part) for part in place.split(")")[0].split())
        # A character of 12 pixels is at most 0.56 em wide on average: slanted, 4.8 to the left and down.
        assert f">{name}</text>" in place and x - 4.8 * length > 0 and y + 4.8 * length < height and x < width
    longer = columns_chart("t", ["x" * 49], [Series("s", [1])], str)
    assert "rotate(" not in longer and "number of the node" in longer and f"0 {'x' * 49}: s 1" in longer


# Memory: a tensor goes with its last reader


@dataclass(frozen=True, eq=False, repr=False)
class Copy(HostLayer):
    """A copy, of the sum if there are several inputs."""

    inputs = None

    def output_shape(self, *shapes: Any) -> Any:
        return shapes[0]

    def output_dtype(self, *dtypes: str) -> str:
        return dtypes[0]

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        alive.append({name for name, tensor in tensors.items() if tensor() is not None})
        return np.sum(inputs, axis=0, dtype=inputs[0].dtype)


tensors: dict[str, weakref.ref[np.ndarray]] = {}
alive: list[set[str]] = []


def run_watched(model: Model) -> systolic.Run:
    tensors.clear()
    alive.clear()

    def watch(node: Node, inputs: list[np.ndarray], output: np.ndarray) -> None:
        tensors[node.output] = weakref.ref(output)

    return systolic.run(model, np.ones(4, np.int8), observe=watch)


def test_tensors_are_freed_when_their_last_reader_is_done() -> None:
    """Each set is what stood in memory while a node computed: what it reads or a later one does."""
    nodes = [
        Node(Copy(), "x", "a"),
        Node(Copy(), "a", "b"),
        Node(Copy(), "b", "nobody reads this"),
        Node(Copy(), ("b", "b"), "c"),
        Node(Copy(), ("a", "c"), "d"),
        Node(Copy(), "d", "e"),
        Node(Copy(), "e", "f"),
    ]
    model = Model(nodes, inputs={"x": ((4,), "int8")}, outputs=["d", "f"])
    run = run_watched(model)
    assert alive == [set(), {"a"}, {"a", "b"}, {"a", "b"}, {"a", "c"}, {"d"}, {"d", "e"}]
    assert {name for name, tensor in tensors.items() if tensor() is not None} == {"d", "f"}
    assert run.outputs["f"].tolist() == [3, 3, 3, 3]


def test_a_chain_needs_two_tensors_at_a_time() -> None:
    chain = [Node(Copy(), "x", "t0"), *(Node(Copy(), f"t{i}", f"t{i + 1}") for i in range(30))]
    run_watched(Model(chain, inputs={"x": ((4,), "int8")}))
    assert [len(there) for there in alive] == [0, *[1] * 30]


def test_what_the_array_reads_is_freed_too() -> None:
    dense = Dense(np.eye(4, dtype=np.int8), x=Q, w=Q, y=Q)
    nodes = [Node(Copy(), "x", "a"), Node(dense, "a", "b"), Node(Copy(), "b", "c"), Node(Copy(), "c", "d")]
    model = Model(nodes, inputs={"x": ((2, 4), "int8")})
    tensors.clear()
    alive.clear()

    def watch(node: Node, inputs: list[np.ndarray], output: np.ndarray) -> None:
        tensors[node.output] = weakref.ref(output)

    systolic.run(model, np.ones((2, 4), np.int8), machine=SMALL, mode="wavefront", observe=watch)
    assert alive == [set(), {"b"}, {"c"}]


def test_layer_runs_without_costs_are_equal_whatever_they_took() -> None:
    one = systolic.LayerRun("a", "Relu", (2,), "int8", None, Stats(), 1.0)
    other = systolic.LayerRun("a", "Relu", (2,), "int8", None, Stats(), 2.0, array_wall_seconds=1.0)
    assert one == other and one.host_wall_seconds == other.host_wall_seconds == 1.0
