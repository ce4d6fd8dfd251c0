"""One set of column names and one way to write shapes in all tables, frames and files."""

from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path

import pytest

import systolic
from systolic._show.columns import QUANTITIES, column, quantity, sizes_text
from systolic._show.table import Table

DOCS = Path(__file__).parents[2] / "docs"
PAGE = runpy.run_path(str(DOCS / "write_reference.py"))["columns"]

SHAPE = re.compile(r"((\?|\d+)(x(\?|\d+))*|scalar)(, ((\?|\d+)(x(\?|\d+))*|scalar))*")


@pytest.fixture(scope="module")
def tables() -> dict[str, Table | list[str]]:
    return PAGE.tables()


def test_every_column_of_every_table_and_frame_is_in_the_list(tables: dict[str, Table | list[str]]) -> None:
    for made, table in tables.items():
        for name in PAGE.names(table):
            assert re.fullmatch("[a-z][a-z0-9_]*", name), (made, name)
            quantity(name)  # or a KeyError
        if isinstance(table, Table):
            for each in table.columns:
                assert (each.name, each.format) == (quantity(each.key).title, quantity(each.key).format), made


def test_every_record_is_used_somewhere(tables: dict[str, Table | list[str]]) -> None:
    used = {name for table in tables.values() for name in PAGE.names(table)}
    patterns = {re.compile(name.replace("*", ".+")): name for name in QUANTITIES if "*" in name}
    used |= {name for pattern, name in patterns.items() if any(pattern.fullmatch(each) for each in used)}
    # Where something is odd: a mapping, MACs elsewhere, float32 in another format, a failed configuration.
    rare = {"mapping", "host_macs", "off_array", "largest_difference", "mean_difference", "error"}
    # Of float models, of published figures, of benchmarks.
    rare |= {"becomes", "why", "figure", "figure_unit", "published", "ours", "difference", "within"}
    rare |= {"array", "machine", "preset"}  # of several in the shell
    rare |= {"measured", "rate", "beside", "other_rate", "ratio"}
    assert set(QUANTITIES) - used <= rare


def test_shapes_are_written_in_one_way(tables: dict[str, Table | list[str]]) -> None:
    seen = 0
    for table in tables.values():
        if isinstance(table, Table):
            for row in table.to_dicts():
                for name in {"shape", "reads", "writes"} & row.keys():
                    assert row[name] is None or SHAPE.fullmatch(row[name]), row[name]
                    seen += 1
    assert seen > 50
    assert [sizes_text(shape) for shape in ((), (3,), (1, None, 8), None)] == ["scalar", "3", "1x?x8", "?"]
    example = systolic.load_example().model
    assert "pixels ?x1x8x8 float32" in str(example.summary().table())


def test_frames_have_the_names_and_text_the_headings(tables: dict[str, Table | list[str]]) -> None:
    pytest.importorskip("pandas")
    table = tables["Run.table() of a program"]
    assert isinstance(table, Table)
    frame = table.to_frame()
    assert list(frame.columns) == [each.key for each in table.columns]
    assert {"node", "layer", "array_cycles", "seconds", "energy_pj", "limit"} <= set(frame.columns)
    head = str(table).splitlines()[1]
    assert "limited by" in head and "array cycles" in head and "energy_pj" not in head


def test_units_end_the_names() -> None:
    ends = {"bytes": "_bytes", "pJ": "_pj", "MHz": "_mhz", "ops/s": "_per_second", "bits": "_bits"}
    for each in QUANTITIES.values():
        if each.unit in ends:
            assert each.name.endswith(ends[each.unit]), each.name
        elif each.unit in ("cycles", "s"):
            assert re.search("cycles?$" if each.unit == "cycles" else "seconds$", each.name), each.name


def test_tables_take_their_columns_from_the_list() -> None:
    source = Path(systolic.__file__).parent
    for path in sorted(source.rglob("*.py")):
        name = path.relative_to(source).as_posix()
        if name.startswith(("_show/", "accelerators/")):  # the latter keep the paper's headings
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            assert called != "Column", f"{name}:{node.lineno}"
            if called == "Table":
                first = node.args[0]
                assert not isinstance(first, ast.List | ast.Tuple) or path.name == "recording.py", f"{name}:{node.lineno}"


def test_a_name_that_is_not_in_the_list_is_an_error() -> None:
    for name in ("no_such", "_cycles", "*_pj"):
        with pytest.raises(KeyError, match="give it a record"):
            column(name)
