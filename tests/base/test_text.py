"""Names from model files cannot command a terminal, hide in a message or run in a spreadsheet."""

from __future__ import annotations

import csv
import io
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import systolic
from systolic import ArrayConfig, Model, Node, QuantParams, Trace, cli
from systolic._show import Table, card, card_text
from systolic._text import printable, printable_errors
from systolic.layers import Dense
from systolic.verifier import Mismatch, VerificationReport

# Escape, bell, newline, C1 control, bidi override, zero-width space, line separator, tag, byte order mark.
HOSTILE = "a\x1b[31m\x07\n\x9b2J\u202eb\u200b\u2028\U000e0041\ufeff"
SAFE = r"a\x1b[31m\x07\n\x9b2J\u202eb\u200b\u2028\U000e0041\ufeff"


def safe(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n")) and "[31m" in text


@given(st.text())
@example(HOSTILE)
@example("\ud800")
@pytest.mark.slow
@pytest.mark.exhaustive
def test_text_is_printable(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert eval(f'"{shown}"') == text if not set(text) & set('"\\') else True
    assert printable(shown) == shown


def test_what_a_name_becomes() -> None:
    assert printable(HOSTILE) == SAFE and printable("größe = 数 ☃") == "größe = 数 ☃"


def test_errors_and_their_causes() -> None:
    @printable_errors
    def fail() -> None:
        try:
            raise OSError(HOSTILE)
        except OSError as error:
            raise ValueError(f"node {HOSTILE}") from error

    with pytest.raises(ValueError) as caught:
        fail()
    assert str(caught.value) == f"node {SAFE}" and str(caught.value.__cause__) == SAFE
    assert "\x1b" not in "".join(traceback.format_exception(caught.value))


Q = QuantParams(0.5)


def model(name: str) -> Model:
    layer = Dense(np.eye(4, dtype=np.int8), x=Q, w=Q, y=Q)
    return Model([Node(layer, "x" + name, "y" + name, name)], inputs={"x" + name: ((None, 4), "int8")}, name=name)


def onnx_file(path: Path, **changes: Any) -> Path:
    onnx = pytest.importorskip("onnx")
    node = dict(op_type="Relu", inputs=["x"], outputs=["y"], name="n", domain="", attribute=None) | changes
    attributes = {} if node["attribute"] is None else {node.pop("attribute"): 1}
    node.pop("attribute", None)
    info = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, 4]) for n in ("x", "y")]
    made = onnx.helper.make_node(node.pop("op_type"), node.pop("inputs"), node.pop("outputs"), **node, **attributes)
    opsets = [onnx.helper.make_opsetid("", 13)]
    if made.domain:
        opsets.append(onnx.helper.make_opsetid(made.domain, 1))
    graph = onnx.helper.make_graph([made], HOSTILE, info[:1], info[1:])
    path.write_bytes(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"op_type": HOSTILE},
        {"op_type": "Gemm", "name": HOSTILE},
        {"domain": HOSTILE, "op_type": HOSTILE},
        {"domain": "com.microsoft", "op_type": HOSTILE, "name": HOSTILE},
        {"attribute": HOSTILE},
        {"inputs": [HOSTILE]},
        {"op_type": "Cast", "name": HOSTILE},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_errors_of_load_onnx(changes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = onnx_file(tmp_path / "m.onnx", **changes)
    with pytest.raises(ValueError) as caught:
        systolic.load_onnx(path)
    assert str(caught.value).isprintable() and "[31m" in str(caught.value)
    assert "\x1b" not in "".join(traceback.format_exception(caught.value))
    assert cli.main(["summary", str(path)]) == 2
    assert safe(capsys.readouterr().err)


def test_what_shows_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile, array = model(HOSTILE), ArrayConfig(4, 4)
    run = systolic.run(hostile, np.ones((1, 4), np.int8), machine=array)
    summary = hostile.summary()
    shown = [str(hostile.table()), repr(hostile), repr(hostile.nodes), repr(run), str(run.table())]
    shown += [str(run.report()), str(summary), repr(summary), repr(run.layers), summary.to_csv()]
    shown += [summary.to_json(), run.report().html(), hostile.table().html(), summary.html()]
    assert [text for text in shown if not safe(text)] == []
    hostile.save(tmp_path / "m")
    for command in ("run", "verify", "summary"):
        assert cli.main([command, str(tmp_path / "m")]) == 0
        out, err = capsys.readouterr()
        assert all(line.isprintable() for line in out.split("\n"))
        assert all(line.replace("\r", "").isprintable() for line in err.split("\n"))


def test_errors_of_running(tmp_path: Path) -> None:
    hostile, x = model(HOSTILE), np.ones((1, 4), np.int8)
    for call in (
        lambda: systolic.run(hostile, {}),
        lambda: systolic.run(hostile, {HOSTILE: x}),
        lambda: systolic.run(hostile, x[:, :3]),
        lambda: systolic.run(hostile, x.astype(np.int32)),
        lambda: systolic.run(hostile, x, machine=ArrayConfig(4, 4), trace=Trace(layer=f"{HOSTILE}?")),
        lambda: systolic.estimate(hostile, shapes={HOSTILE: (1, 4)}),
        lambda: Model([Node(hostile.nodes[0].layer, HOSTILE, "y", "n")], inputs=hostile.inputs),
    ):
        with pytest.raises((TypeError, ValueError)) as caught:
            call()
        assert str(caught.value).isprintable() and "[31m" in str(caught.value)


def test_reports_of_mismatches() -> None:
    mismatch = Mismatch(case=HOSTILE, stage="node", got=1, expected=2, note=HOSTILE)
    report = VerificationReport((mismatch,), {HOSTILE: 1}, notes=(HOSTILE,))
    shown = [str(mismatch), str(report), repr(mismatch), str(report.table()), report._repr_html_()]
    assert [text for text in shown if not safe(text)] == []


def test_tables_and_cards() -> None:
    table = Table([HOSTILE], [(HOSTILE,)], title=HOSTILE, footer=HOSTILE.replace("\n", ""))
    shown = [str(table), table.html(), card(HOSTILE, {HOSTILE: HOSTILE}), card_text(HOSTILE, {HOSTILE: HOSTILE})]
    assert [text for text in shown if not safe(text)] == []
    # A footer may have lines of its own.
    assert str(Table(["a"], [], footer="one\ntwo")).splitlines()[-2:] == ["one", "two"]


@given(st.text(max_size=5).map(lambda t: f"n{t}") | st.tuples(st.sampled_from("=+-@\t\r＝＠"), st.text()).map("".join))
@example("=cmd|' /C calc'!A0")
@example("-3")
@example("\t=1")
def test_no_cell_of_a_csv_is_a_formula(name: str) -> None:
    text = model(name or "n").summary().to_csv()
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert not any(cell.startswith(tuple("=+-@\t\r＝＋－＠")) for cell in row.values())
    assert row["macs"].isdigit()
    assert row["node"] in (printable(name), f"'{printable(name)}")


def test_negative_numbers_of_a_csv_stay_numbers() -> None:
    from systolic._show.report import _cell

    assert [_cell(v) for v in (-3, -0.5, None, "a=b", "=b")] == [-3, -0.5, None, "a=b", "'=b"]
