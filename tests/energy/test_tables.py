"""Energy tables: the published figures, files, and errors that say what is meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.strategies import raises
from systolic.energy import COMPONENTS, DEFAULT, ENTRIES, TABLES, EnergyTable, as_table
from systolic.formats import FORMATS

# pJ: Horowitz, ISSCC 2014; Jouppi et al., ISCA 2021, table 2.
PUBLISHED = {
    "45nm": {"add_int8_pj": 0.03, "add_int16_pj": 0.05, "add_int32_pj": 0.1, "add_float16_pj": 0.4, "add_float32_pj": 0.9,
             "mul_int8_pj": 0.2, "mul_int16_pj": 1.0, "mul_int32_pj": 3.1, "mul_float16_pj": 1.1, "mul_float32_pj": 3.7},
    "7nm": {"add_int8_pj": 0.007, "add_int32_pj": 0.03, "add_bfloat16_pj": 0.11, "add_float16_pj": 0.16,
            "add_float32_pj": 0.38, "mul_int8_pj": 0.07, "mul_int32_pj": 1.48, "mul_bfloat16_pj": 0.21,
            "mul_float16_pj": 0.34, "mul_float32_pj": 1.31},
}  # fmt: skip
PER_64_BITS = {"45nm": {2**13: 10, 2**15: 20, 2**20: 100}, "7nm": {2**13: 7.5, 2**15: 8.5, 2**20: 14}}


@pytest.mark.parametrize("name", TABLES)
def test_published_figures(name: str) -> None:
    table = TABLES[name]
    assert table.name == name and {entry: table[entry] for entry in PUBLISHED[name]} == PUBLISHED[name]
    assert {size: 8 * value for size, value in table.sram_pj_per_byte.items()} == PER_64_BITS[name]
    assert 8 * table["dram_pj_per_byte"] == 1300


@pytest.mark.parametrize("name", TABLES)
def test_every_number_has_a_source_and_every_format_an_energy(name: str) -> None:
    table = TABLES[name]
    assert set(table.entries) <= set(ENTRIES) and {*table.entries, "sram_pj_per_byte"} == set(table.sources)
    for activation, weight in FORMATS:
        for total in ("int32", "int64", "float32"):
            assert table.mac(activation, weight, total) > 0
    assert table.mac("int8", "uint16", "int32") == table["mul_int16_pj"] + table["add_int32_pj"]
    assert table.mac("uint4", "uint4", "int32") == table["mul_int4_pj"] + table["add_int32_pj"]
    assert table.mac("float8_e5m2", "float8_e4m3fn", "float32") == table["mul_float8_pj"] + table["add_float32_pj"]
    assert "energy of" in str(table.table()) and "Horowitz" in str(TABLES["45nm"].table())


def test_the_page_lists_every_number_and_its_source() -> None:
    page = Path(__file__).parents[2] / "docs" / "energy.md"
    if not page.exists():
        pytest.skip("reads the sources")
    text, (old, new) = page.read_text(encoding="utf-8"), TABLES.values()
    for name in ENTRIES:
        source = new.sources[name] if new.sources[name] != old.sources[name] else "as 45 nm"
        row = f"| `{name}` | {old[name]:.6g} | {new[name]:.6g} | {old.sources[name]} | {source} |"
        assert row in text, row
    for size, value in old.sram_pj_per_byte.items():
        assert f"| `sram_pj_per_byte`, {size:,} bytes | {value:.6g} | {new.sram_pj_per_byte[size]:.6g} |" in text
    assert [f"`{name}`" in text for name in COMPONENTS] == [True] * len(COMPONENTS)


def test_sram_grows_with_size() -> None:
    table = TABLES["45nm"]
    assert (table.sram(1), table.sram(2**13), table.sram(2**14)) == (1.25, 1.25, pytest.approx(1.25 * 2**0.5))
    assert table.sram(2**40) == table.sram(2**20) == 12.5  # banks of the largest
    values = [table.sram(2**bits) for bits in range(10, 24)]
    assert values == sorted(values)


def test_round_trips(tmp_path: Path) -> None:
    for table in TABLES.values():
        assert EnergyTable.from_dict(json.loads(json.dumps(table.to_dict()))) == table
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"name": "mine", "based_on": "7nm", "dram_pj_per_byte": 40}))
    mine = as_table(path)
    assert mine == as_table(str(path)) and mine.name == "mine" and mine["dram_pj_per_byte"] == 40
    assert mine["mul_int8_pj"] == TABLES["7nm"]["mul_int8_pj"]
    assert "dram_pj_per_byte" not in mine.sources and "mul_int8_pj" in mine.sources
    yaml = pytest.importorskip("yaml")
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"name": "y", "sram_pj_per_byte": {8192: 1}, "sources": {"sram_pj_per_byte": "us"}}))
    table = as_table(path)
    assert table.sram(5) == 1 and table.sources == {"sram_pj_per_byte": "us"}
    with raises(ValueError, "energy table 'y' has no mul_int8_pj, which this work needs: of 8 bits; "
                "table.replace(mul_int8_pj=...) adds it"):  # fmt: skip
        table.mac("int8", "int8", "int32")


def test_replace() -> None:
    table = TABLES[DEFAULT].replace(dram_pj_per_byte=40, leakage_pj_per_pe_cycle=0)
    assert table.name == "45nm, changed" and table["dram_pj_per_byte"] == 40.0
    assert "dram_pj_per_byte" not in table.sources and "mul_int8_pj" in table.sources
    assert EnergyTable.from_dict({"based_on": "7nm", "dram_pj_per_byte": 40}).name == "7nm, changed"
    assert EnergyTable.from_dict({"based_on": "7nm"}) == TABLES["7nm"]
    with raises(TypeError, "sources must be a mapping, not int 3"):
        table.replace(sources=3)
    assert table.replace(name="x", sources={"dram_pj_per_byte": "a data sheet"}).sources["dram_pj_per_byte"] == "a data sheet"


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ({"mul_int8": 1}, ValueError, "an energy table has no 'mul_int8': the unit is missing; write mul_int8_pj, in pJ"),
        ({"dram": 1}, ValueError, "an energy table has no 'dram': the unit is missing; write dram_pj_per_byte, in pJ"),
        ({"sram": 1}, ValueError, "an energy table has no 'sram': the unit is missing; write sram_pj_per_byte, in pJ"),
        ({"mul_int9_pj": 1}, ValueError, "an energy table has no 'mul_int9_pj'; did you mean 'mul_int8_pj'?; energies are in pJ"),
        ({"mul_int8_nj": 1}, ValueError, "an energy table has no 'mul_int8_nj'; did you mean 'mul_int8_pj'?; energies are in pJ"),
        ({"mul_int8_pj": -1}, ValueError, "mul_int8_pj must be zero or more, not -1"),
        ({"mul_int8_pj": float("nan")}, ValueError, "mul_int8_pj must be zero or more, not nan"),
        ({"mul_int8_pj": "0.2 pJ"}, TypeError, "mul_int8_pj must be a number, not str '0.2 pJ'"),
        ({"sram_pj_per_byte": {}}, ValueError, "sram_pj_per_byte must hold at least one size in bytes and its energy"),
        ({"sram_pj_per_byte": {"8 KB": 1}}, TypeError, "sram_pj_per_byte: a size in bytes must be an integer, not str '8 KB'"),
        ({"sram_pj_per_byte": {8192: 0}}, ValueError, "sram_pj_per_byte: 8192 must be above zero, not 0"),
        ({"sram_pj_per_byte": 3}, TypeError, "sram_pj_per_byte must be a mapping, not int 3"),
        ({"name": 3}, TypeError, "an energy table's name must be text, not int 3"),
        ({"sources": {"mul_int8_pj": 3}}, TypeError, "sources: mul_int8_pj must be text, not int 3"),
        ({"sources": 3}, TypeError, "sources must be a mapping, not int 3"),
        ({"zero_mac_share": 1.5}, ValueError, "zero_mac_share must be at most 1, not 1.5"),
        ({"based_on": "28nm"}, ValueError, "based_on must be one of '45nm', '7nm', not '28nm'"),
    ],
)  # fmt: skip
def test_errors(data: dict[str, Any], error: type[Exception], message: str) -> None:
    base = {} if "based_on" in data else {"based_on": "45nm"}
    with raises(error, message):
        EnergyTable.from_dict({"name": "mine", **base, **data})


def test_errors_of_files_and_arguments(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text('{"name": "mine", "based_on": "45nm", "hop": 1}')
    with raises(ValueError, f"{path}: an energy table has no 'hop': the unit is missing; write hop_pj_per_bit, in pJ"):
        as_table(path)
    path.write_text('{"hop_pj_per_bit": 1}')
    with raises(ValueError, f"{path}: an energy table needs name and sram_pj_per_byte, or based_on: a table that has the rest"):
        as_table(path)
    path.write_text("[1]")
    with raises(TypeError, f"{path}: an energy table must be names with values, not list [1]"):
        as_table(path)
    with raises(ValueError, "energy must be a table's name, a .json or .yaml file of one, or None, not '45 nm'; did you mean '45nm'?"):
        as_table("45 nm")
    with raises(TypeError, "energy must be an EnergyTable, a name or a path, or None, not int 45"):
        as_table(45)
    with pytest.raises(FileNotFoundError):
        as_table("nothing.json")
    assert as_table(None) is None and as_table(TABLES["7nm"]) is TABLES["7nm"]
