"""``EnergyTable``: the energy of each operation and access, with a source beside each number."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from systolic import _check
from systolic._files import check_plain, path_text
from systolic._hints import nearest
from systolic._plain import load
from systolic._show.columns import columns
from systolic._show.table import Table
from systolic._text import printable_errors

ENTRIES = {
    "add_int8_pj": "an addition of two integers of 8 bits",
    "add_int16_pj": "of 16 bits",
    "add_int32_pj": "of 32 bits: of psums, and in the accumulators",
    "add_int64_pj": "of 64 bits",
    "add_bfloat16_pj": "an addition of two floats",
    "add_float16_pj": "an addition of two floats",
    "add_float32_pj": "an addition of two floats: of psums, and in the accumulators",
    "mul_int4_pj": "a multiplication of two integers of 4 bits; the wider operand counts",
    "mul_int8_pj": "of 8 bits",
    "mul_int16_pj": "of 16 bits",
    "mul_int32_pj": "of 32 bits",
    "mul_float8_pj": "a multiplication of two floats",
    "mul_bfloat16_pj": "a multiplication of two floats",
    "mul_float16_pj": "a multiplication of two floats",
    "mul_float32_pj": "a multiplication of two floats",
    "zero_mac_share": "energy of a MAC with a zero operand, as a part of that of another",
    "register_pj_per_bit": "a bit written to a register, if half of such bits change",
    "hop_pj_per_bit": "a bit moved to the next PE, if half of such bits change",
    "dram_pj_per_byte": "a byte read from the weight memory",
    "host_pj_per_byte": "a byte moved between host and unified buffer",
    "vector_operation_pj": "an element that the vector unit reads",
    "idle_pj_per_pe_cycle": "a PE in a cycle in which it has no MAC to do",
    "leakage_pj_per_pe_cycle": "a PE in any cycle: what the machine takes at rest, shared among its PEs",
}
"""What each entry of a table is the energy of, by name; the unit is in the name."""

_FIELDS = ("name", "based_on", *ENTRIES, "sram_pj_per_byte", "sources")


@dataclass(frozen=True, kw_only=True)
class EnergyTable:
    """Energies of operations and accesses, in picojoules.

    Parameters
    ----------
    name : str
    entries : mapping of str to float
        By the names of :data:`ENTRIES`. What is missing may not be needed.
    sram_pj_per_byte : mapping of int to float
        Energy of a byte read or written, by the bytes of the memory. Between two sizes the energy follows a
        power of the size; a memory larger than all of them consists of banks of the largest.
    sources : mapping of str to str
        Where the numbers are from, by their names.

    Raises
    ------
    TypeError, ValueError
        If a name is unknown, with the nearest known one, or has no unit; if a value is no number or negative.

    Examples
    --------
    >>> from systolic.energy import TABLES
    >>> table = TABLES["45nm"]
    >>> table["mul_int8_pj"], table["add_int32_pj"], table.sram(32 * 1024)
    (0.2, 0.1, 2.5)
    >>> table.replace(dram_pj_per_byte=40, name="45nm with HBM")["dram_pj_per_byte"]
    40.0
    """

    name: str
    entries: Mapping[str, float]
    sram_pj_per_byte: Mapping[int, float]
    sources: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise TypeError(f"an energy table's name must be text, not {_check.kind(self.name)}")
        for name in ("entries", "sram_pj_per_byte", "sources"):
            if not isinstance(getattr(self, name), Mapping):
                raise TypeError(f"{name} must be a mapping, not {_check.kind(getattr(self, name))}")
        entries = {_known(name): _energy(value, name) for name, value in self.entries.items()}
        if entries.get("zero_mac_share", 0) > 1:
            raise ValueError(f"zero_mac_share must be at most 1, not {entries['zero_mac_share']}")
        if not self.sram_pj_per_byte:
            raise ValueError("sram_pj_per_byte must hold at least one size in bytes and its energy")
        sram = {}
        for size, value in self.sram_pj_per_byte.items():
            # JSON has no other keys than text.
            number = int(size) if isinstance(size, str) and size.isdecimal() else size
            number = _check.integer(number, "sram_pj_per_byte: a size in bytes", minimum=1)
            sram[number] = _energy(value, f"sram_pj_per_byte: {number}", positive=True)
        for name, source in self.sources.items():
            if not isinstance(source, str):
                raise TypeError(f"sources: {name} must be text, not {_check.kind(source)}")
        object.__setattr__(self, "entries", entries)
        object.__setattr__(self, "sram_pj_per_byte", dict(sorted(sram.items())))
        object.__setattr__(self, "sources", dict(self.sources))

    def __hash__(self) -> int:
        return hash(self.name)

    def __getitem__(self, name: str) -> float:
        if name not in self.entries:
            raise ValueError(
                f"energy table {self.name!r} has no {_known(name)}, which this work needs: {ENTRIES[name]}; "
                f"table.replace({name}=...) adds it"
            )
        return self.entries[name]

    def sram(self, size: int) -> float:
        """Return the energy of a byte read from a memory of `size` bytes or written to it, in pJ."""
        sizes = list(self.sram_pj_per_byte)
        size = min(max(size, sizes[0]), sizes[-1])
        above = next(i for i, each in enumerate(sizes) if each >= size)
        high = self.sram_pj_per_byte[sizes[above]]
        if sizes[above] == size:
            return high
        low = self.sram_pj_per_byte[sizes[above - 1]]
        part = math.log(size / sizes[above - 1]) / math.log(sizes[above] / sizes[above - 1])
        return low * (high / low) ** part

    def mac(self, activation: str, weight: str, total: str) -> float:
        """Return the energy of a multiply-accumulate, in pJ, by the names of operand and sum types."""
        return self[f"mul_{_wider(activation, weight)}_pj"] + self[f"add_{total}_pj"]

    def replace(self, *, name: str | None = None, **values: Any) -> EnergyTable:
        """Return a table with other values, by their names; those of ``sram_pj_per_byte`` all together."""
        data = self.to_dict() | {"name": name or f"{self.name}, changed"} | values
        data["sources"] = _sources(self, values)
        return EnergyTable.from_dict(data)

    def to_dict(self) -> dict[str, Any]:
        """Return the table as a dict that JSON can hold, and :meth:`read` reads."""
        sram = {str(size): value for size, value in self.sram_pj_per_byte.items()}
        return {
            "name": self.name,
            **self.entries,
            "sram_pj_per_byte": sram,
            "sources": dict(self.sources),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EnergyTable:
        """Return the table that :meth:`to_dict` or a file describes; ``based_on`` names one to begin with."""
        if not isinstance(data, Mapping):
            raise TypeError(f"an energy table must be names with values, not {_check.kind(data)}")
        for name in data:
            if name not in _FIELDS:
                _known(name)
        given = dict(data)
        base = given.pop("based_on", None)
        if base is not None:
            base = TABLES[_check.choice(base, "based_on", tuple(TABLES))]
            changed = {"name": f"{base.name}, changed"} if given else {}
            given = base.to_dict() | changed | given | {"sources": _sources(base, given)}
        missing = [name for name in ("name", "sram_pj_per_byte") if name not in given]
        if missing:
            raise ValueError(
                f"an energy table needs {' and '.join(missing)}, or based_on: a table that has the rest"
            )
        entries = {name: given[name] for name in ENTRIES if name in given}
        return cls(
            name=given["name"],
            entries=entries,
            sram_pj_per_byte=given["sram_pj_per_byte"],
            sources=given.get("sources", {}),
        )

    @classmethod
    @printable_errors
    def read(cls, path: str | os.PathLike[str]) -> EnergyTable:
        """Read a table from a .json, .yaml or .yml file, as docs/energy.md describes it."""
        text = path_text(path)
        check_plain(text, "an energy table is a file of YAML or JSON")
        try:
            return cls.from_dict(load(text, "an energy table"))
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(str(error) if str(error).startswith(text) else f"{text}: {error}") from error

    def table(self) -> Table:
        """Return a row per number: its name, what it is the energy of, and its source."""
        rows = [
            (name, f"{value:.4g}", ENTRIES[name], self.sources.get(name, ""))
            for name, value in self.entries.items()
        ]
        rows += [
            (f"sram_pj_per_byte, {size:,} bytes", f"{value:.4g}", "a byte read or written",
             self.sources.get("sram_pj_per_byte", ""))
            for size, value in self.sram_pj_per_byte.items()
        ]  # fmt: skip
        heads = columns("entry", "value_pj", "energy_of", "source")
        return Table(heads, rows, title=f"Energy table {self.name}")

    def __repr__(self) -> str:
        return f"<EnergyTable {self.name}: {len(self.entries)} entries>"

    def _repr_html_(self) -> str:
        return self.table().html()


def _sources(base: EnergyTable, changed: Mapping[str, Any]) -> dict[str, str]:
    """Return the sources of a table that changes some values of another."""
    given = changed.get("sources", {})
    if not isinstance(given, Mapping):
        raise TypeError(f"sources must be a mapping, not {_check.kind(given)}")
    return {key: text for key, text in base.sources.items() if key not in changed} | dict(given)


def _known(name: Any) -> str:
    """Return the name of an entry; ValueError, with the name that is meant, if there is none."""
    if name in ENTRIES:
        return str(name)
    known = (*ENTRIES, "sram_pj_per_byte")
    with_unit = [entry for entry in known if entry.startswith(f"{name}_pj")]
    if with_unit:
        raise ValueError(f"an energy table has no {name!r}: the unit is missing; write {with_unit[0]}, in pJ")
    raise ValueError(f"an energy table has no {name!r}; {nearest(name, _FIELDS)}; energies are in pJ")


def _energy(value: Any, name: str, *, positive: bool = False) -> float:
    number = float(_check.real(value, name))
    if not math.isfinite(number) or number < 0 or (positive and number == 0):
        raise ValueError(f"{name} must be {'above zero' if positive else 'zero or more'}, not {value}")
    return number


def _wider(activation: str, weight: str) -> str:
    """Return the type whose multiplier takes both operands."""
    names = [name.removeprefix("u") for name in (activation, weight)]
    order = ("int4", "int8", "int16")
    if set(names) <= {*order}:
        return max(names, key=order.index)
    return "float8" if names[0].startswith("float8") else names[0]


_HOROWITZ = "Horowitz, ISSCC 2014"
_TPU = "Jouppi et al., ISCA 2021, table 2"
_OPEN = "open: no figure; 0 leaves it out"

_SHARED = {
    "zero_mac_share": 1,
    "hop_pj_per_bit": 0.025,
    "dram_pj_per_byte": 1300 / 8,
    "host_pj_per_byte": 1300 / 8,
    "idle_pj_per_pe_cycle": 0,
}
_SHARED_SOURCES = {
    "zero_mac_share": "1: nothing is gated, as in the array that is emulated",
    "register_pj_per_bit": "the 16-bit ifmap scratchpad of an Eyeriss takes 0.20 pJ an access in 65 nm "
    "(reference outputs of Accelergy's exercises): an upper bound, not scaled",
    "hop_pj_per_bit": "twice a register, as for Eyeriss (Chen et al., ISCA 2016, table IV)",
    "dram_pj_per_byte": f"{_TPU}: DDR, 64 bits",
    "host_pj_per_byte": f"an access to the host's DDR ({_TPU}); the link itself has no figure",
    "vector_operation_pj": "one multiplication and one addition of 32 bits, as a requantization takes",
    "idle_pj_per_pe_cycle": _OPEN,
}  # fmt: skip

_45 = {
    "add_int8_pj": 0.03, "add_int16_pj": 0.05, "add_int32_pj": 0.1, "add_float16_pj": 0.4,
    "add_float32_pj": 0.9, "mul_int8_pj": 0.2, "mul_int16_pj": 1.0, "mul_int32_pj": 3.1,
    "mul_float16_pj": 1.1, "mul_float32_pj": 3.7,
}  # fmt: skip
_7 = {
    "add_int8_pj": 0.007, "add_int32_pj": 0.03, "add_bfloat16_pj": 0.11, "add_float16_pj": 0.16,
    "add_float32_pj": 0.38, "mul_int8_pj": 0.07, "mul_int32_pj": 1.48, "mul_bfloat16_pj": 0.21,
    "mul_float16_pj": 0.34, "mul_float32_pj": 1.31,
}  # fmt: skip

TABLES = {
    "45nm": EnergyTable(
        name="45nm",
        entries=_45
        | _SHARED
        | {
            "add_int64_pj": 0.2, "mul_int4_pj": 0.2, "mul_float8_pj": 1.1, "mul_bfloat16_pj": 1.1,
            "add_bfloat16_pj": 0.4, "register_pj_per_bit": 0.0125, "vector_operation_pj": 3.2,
            "leakage_pj_per_pe_cycle": 0.61,
        },
        sram_pj_per_byte={8 * 2**10: 10 / 8, 32 * 2**10: 20 / 8, 2**20: 100 / 8},
        sources=dict.fromkeys((*_45, "sram_pj_per_byte"), f"{_HOROWITZ}; {_TPU}")
        | _SHARED_SOURCES
        | {
            "add_int64_pj": "twice that of 32 bits: an adder grows with its bits",
            "mul_int4_pj": "as 8 bits: no figure, an upper bound",
            "mul_float8_pj": "as float16: no figure, an upper bound",
            "mul_bfloat16_pj": "as float16: no figure, an upper bound",
            "add_bfloat16_pj": "as float16: no figure",
            "leakage_pj_per_pe_cycle": "28 W idle / (700 MHz * 65,536 PEs): the whole TPU v1, in 28 nm, "
            "memories and interfaces included (Jouppi et al., ISCA 2017, table 2)",
        },
    ),
    "7nm": EnergyTable(
        name="7nm",
        entries=_7
        | _SHARED
        | {
            "add_int16_pj": 0.015, "add_int64_pj": 0.06, "mul_int4_pj": 0.07, "mul_int16_pj": 0.32,
            "mul_float8_pj": 0.21, "register_pj_per_bit": 0.00375, "hop_pj_per_bit": 0.0075,
            "vector_operation_pj": 1.51, "leakage_pj_per_pe_cycle": 0.65,
        },
        sram_pj_per_byte={8 * 2**10: 7.5 / 8, 32 * 2**10: 8.5 / 8, 2**20: 14 / 8},
        sources=dict.fromkeys((*_7, "sram_pj_per_byte"), _TPU)
        | _SHARED_SOURCES
        | {
            "add_int16_pj": "half that of 32 bits: an adder grows with its bits",
            "add_int64_pj": "twice that of 32 bits",
            "mul_int4_pj": "as 8 bits: no figure, an upper bound",
            "mul_int16_pj": "geometric mean of 8 and 32 bits: no figure; in 45 nm it gives 0.79, not 1.0",
            "mul_float8_pj": "as bfloat16: no figure, an upper bound",
            "register_pj_per_bit": "the 45nm table's, scaled as an addition of 32 bits: 0.03 / 0.1",
            "leakage_pj_per_pe_cycle": "90 W idle / (1050 MHz * 131,072 PEs): the whole TPU v4, memories and "
            "interfaces included (Jouppi et al., ISCA 2023)",
        },
    ),
}  # fmt: skip
"""The tables that come with the package, by name."""

DEFAULT = "45nm"
"""The name of the table that is taken where none is named."""


def as_table(value: Any, name: str = "energy") -> EnergyTable | None:
    """Return an ``energy=`` argument as a table: a table, the name of one, the path of a file, or None.

    Examples
    --------
    >>> from systolic.energy import as_table
    >>> as_table("7nm")
    <EnergyTable 7nm: 23 entries>
    """
    if value is None or isinstance(value, EnergyTable):
        return value
    if isinstance(value, str) and value in TABLES:
        return TABLES[value]
    if isinstance(value, os.PathLike) or (isinstance(value, str) and value.lower().endswith(_SUFFIXES)):
        return EnergyTable.read(value)
    if isinstance(value, str):
        raise ValueError(
            f"{name} must be a table's name, a .json or .yaml file of one, or None, not {value!r}; "
            f"{nearest(value, tuple(TABLES))}"
        )
    raise TypeError(f"{name} must be an EnergyTable, a name or a path, or None, not {_check.kind(value)}")


_SUFFIXES = (".json", ".yaml", ".yml")
