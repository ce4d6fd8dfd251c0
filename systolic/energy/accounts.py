"""``Energy``: what layers did, and what that costs by a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from systolic._show.columns import columns
from systolic._show.columns import joules as joules
from systolic._show.report import bytes_text
from systolic._show.table import Table, percent
from systolic.config import ArrayConfig, MachineConfig, as_machine_config
from systolic.dataflows import register_bits
from systolic.energy.tables import EnergyTable, as_table
from systolic.stats import Stats

COMPONENTS = (
    "macs", "registers", "hops", "accumulators", "unified_buffer", "weight_fifo", "weight_memory",
    "host_link", "vector_unit", "idle",
)  # fmt: skip
"""Parts of a machine, by which energy is split. Idle is what PEs take per cycle, whatever they do."""

_ASSUMED = 0.5
"""Part of the bits written that change, as of random data: energies per bit are for this part."""


@dataclass(frozen=True, kw_only=True)
class Activity:
    """What an array and its machine did for one layer.

    Attributes
    ----------
    name, layer : str
        The node's name and the kind of layer.
    stats : Stats
        Its counts.
    array : ArrayConfig
        The array with the operand types of the layer.
    toggles : mapping of str to int, or None
        Bits that each register changed, if they were counted: see :class:`Toggles`.
    zero_macs : int or None
        Useful MACs with an operand that is zero, if they were counted.

    Examples
    --------
    >>> from systolic import ArrayConfig, Gemm, estimate
    >>> from systolic.energy import Activity
    >>> array, fc = ArrayConfig(2, 3), Gemm(3, 2, 3)
    >>> activity = Activity(name="fc", layer="Gemm", stats=estimate(fc, machine=array), array=array)
    >>> activity.gated_pe_cycles, activity.register_writes["psum"]
    (30, 18)
    """

    name: str
    layer: str
    stats: Stats
    array: ArrayConfig
    toggles: Mapping[str, int] | None = None
    zero_macs: int | None = None

    @property
    def gated_pe_cycles(self) -> int:
        """PE-cycles without a useful MAC: a chip that gates could stop the PE's clock in them."""
        return self.stats.pe_cycles - self.stats.macs

    @property
    def register_writes(self) -> dict[str, int]:
        """How often a PE writes something into each register that a later result needs, by name.

        Operands count where both are real, sums on all their way through the array, weights on each beat of
        the shift. Zeros that idle PEs take over are not counted: they are in `gated_pe_cycles`.
        """
        s = self.stats
        array = self.array
        return array.dataflow_record.writes(s.macs, s.folds, s.partial_sums, array.rows, array.cols)

    @property
    def written_bits(self) -> dict[str, int]:
        """The same in bits."""
        bits = register_bits(self.array.dataflow_record, self.array.format)
        return {name: count * bits[name] for name, count in self.register_writes.items()}

    @property
    def hop_bits(self) -> dict[str, int]:
        """Bits that move from one PE to the next, or from a port into the first one, by register."""
        return {name: bits for name, bits in self.written_bits.items() if name in self._moving}

    @property
    def _moving(self) -> set[str]:
        registers = self.array.dataflow_record.registers
        # What moves down the shift chain of weights is read by the next row's shadow register.
        return {register.name for register in registers if register.moves is not None}

    def components_pj(self, table: EnergyTable, machine: MachineConfig) -> dict[str, float]:
        """Return the energy of each of :data:`COMPONENTS`, in pJ."""
        s, numbers = self.stats, self.array.format
        total = "float32" if numbers.is_float else "int64" if numbers.psum_bits > 32 else "int32"
        sizes = _memory_bytes(machine)
        found = dict.fromkeys(COMPONENTS, 0.0)
        if s.macs:
            paid = s.macs - (1 - table["zero_mac_share"]) * (self.zero_macs or 0)
            found["macs"] = paid * table.mac(numbers.activation, numbers.weight, total)
        written, moved = float(sum(self.written_bits.values())), float(sum(self.hop_bits.values()))
        if self.toggles is not None:
            changed = self.toggles
            written = sum(changed.values()) / _ASSUMED
            moved = sum(bits for name, bits in changed.items() if name in self._moving) / _ASSUMED
        found["registers"] = written * table["register_pj_per_bit"]
        found["hops"] = moved * table["hop_pj_per_bit"]
        found["accumulators"] = s.accumulator_bytes * table.sram(sizes["accumulators"])
        if s.partial_sums:
            found["accumulators"] += s.partial_sums * table[f"add_{total}_pj"]
        found["unified_buffer"] = s.unified_buffer_bytes * table.sram(sizes["unified_buffer"])
        found["weight_fifo"] = s.weight_fifo_bytes * table.sram(sizes["weight_fifo"])
        if s.weight_memory_bytes:
            found["weight_memory"] = s.weight_memory_bytes * table["dram_pj_per_byte"]
        if s.host_bytes:
            found["host_link"] = s.host_bytes * table["host_pj_per_byte"]
        if s.vector_operations:
            found["vector_unit"] = s.vector_operations * table["vector_operation_pj"]
        found["idle"] = (
            self.gated_pe_cycles * table["idle_pj_per_pe_cycle"]
            + s.pe_cycles * table["leakage_pj_per_pe_cycle"]
        )
        return found


def _memory_bytes(machine: MachineConfig) -> dict[str, int]:
    """Return the sizes of the SRAMs; of those that the ideal machine has not, as much as any table knows."""
    array, memory = machine.array, machine.memory
    numbers, unknown = array.format, 1 << 62
    accumulators = unknown
    if array.accumulator_rows is not None:
        accumulators = array.accumulator_rows * array.cols * numbers.sum_bytes
    tile = array.rows * array.cols * numbers.weight_bytes
    if memory is None:
        return {"accumulators": accumulators, "unified_buffer": unknown, "weight_fifo": tile}
    row = memory.row_bytes or max(array.rows, array.cols) * numbers.activation_bytes
    return {
        "accumulators": accumulators,
        "unified_buffer": memory.unified_buffer_rows * row,
        "weight_fifo": memory.fifo_tiles * tile,
    }


def total_pj(
    stats: Stats,
    machine: MachineConfig | ArrayConfig,
    table: EnergyTable,
    array: ArrayConfig | None = None,
) -> float:
    """Return the energy of counts on a machine, in pJ.

    Parameters
    ----------
    stats : Stats
    machine : MachineConfig or ArrayConfig
    table : EnergyTable
    array : ArrayConfig, optional
        The array with other operand types than the machine's.

    Examples
    --------
    >>> from systolic import Gemm, estimate, presets
    >>> from systolic.energy import TABLES, total_pj
    >>> machine = presets.TPU_V1
    >>> round(total_pj(estimate(Gemm(256, 256, 256), machine=machine), machine, TABLES["45nm"]))
    87463699
    """
    machine = as_machine_config(machine)
    activity = Activity(name="", layer="", stats=stats, array=array or machine.array)
    return sum(activity.components_pj(table, machine).values())


@dataclass(frozen=True, repr=False)
class Energy:
    """The energy of a run or of an estimate, by layer and by component.

    Parameters
    ----------
    activities : sequence of Activity
        One for each layer.
    machine : MachineConfig
    energies : EnergyTable

    Notes
    -----
    Counts are exact; energies are figures of the literature for single operations. See docs/energy.md for
    what the product of both tells, and what it does not.

    Examples
    --------
    >>> import systolic
    >>> example, array = systolic.load_example(), systolic.ArrayConfig(16, 16)
    >>> run = systolic.run(example.model, example.images[:1], mode="wavefront", machine=array)
    >>> run.energy
    <Energy 45nm: 4.07 µJ, 8.1 pJ per MAC, most for accumulators (41.8%)>
    >>> run.energy.using("7nm").total_pj < run.energy.total_pj
    True
    """

    activities: Sequence[Activity]
    machine: MachineConfig
    energies: EnergyTable

    def __post_init__(self) -> None:
        object.__setattr__(self, "activities", tuple(self.activities))

    @cached_property
    def layers_pj(self) -> tuple[dict[str, float], ...]:
        """The energy of each component, in pJ, for each layer."""
        return tuple(each.components_pj(self.energies, self.machine) for each in self.activities)

    @property
    def components_pj(self) -> dict[str, float]:
        """The energy of each component, in pJ, of all layers."""
        return {name: sum(layer[name] for layer in self.layers_pj) for name in COMPONENTS}

    @property
    def total_pj(self) -> float:
        """All energy, in pJ."""
        return sum(self.components_pj.values())

    @property
    def stats(self) -> Stats:
        """The counts of all layers."""
        return sum((each.stats for each in self.activities), Stats())

    @property
    def counts(self) -> dict[str, Any]:
        """What was counted, of all layers: integers, by operation or memory.

        ``macs`` are by number format, ``written_bits``, ``hop_bits`` and ``toggles`` by register. ``toggles``
        and ``zero_macs`` depend on data and are None unless each layer's were counted.
        """
        stats = self.stats
        macs: dict[str, int] = {}
        for each in self.activities:
            if each.stats.macs:
                text = each.array.format.text
                macs[text] = macs.get(text, 0) + each.stats.macs
        working = [each for each in self.activities if each.stats.macs]
        return {
            "macs": macs,
            "zero_macs": _total([each.zero_macs for each in working]),
            "pe_cycles": stats.pe_cycles,
            "gated_pe_cycles": stats.pe_cycles - stats.macs,
            "written_bits": _by_name([each.written_bits for each in self.activities]),
            "hop_bits": _by_name([each.hop_bits for each in self.activities]),
            "toggles": _by_name([each.toggles for each in working]),
            **{name: getattr(stats, name) for name in _ACCESSES},
        }

    def using(self, energies: EnergyTable | str) -> Energy:
        """Return the energy of the same counts by another table."""
        table = as_table(energies, "energies")
        if table is None:
            raise TypeError("energies must be a table, its name, or a file")
        return replace(self, energies=table)

    def rows(self) -> list[dict[str, Any]]:
        """Return a dict per layer: names, ``energy_pj``, and each component with ``_pj`` behind its name."""
        return [
            {
                "node": each.name,
                "layer": each.layer,
                "energy_pj": sum(parts.values()),
                **{f"{name}_pj": value for name, value in parts.items()},
                "zero_macs": each.zero_macs,
                "toggles": None if each.toggles is None else sum(each.toggles.values()),
            }
            for each, parts in zip(self.activities, self.layers_pj, strict=True)
        ]

    def table(self) -> Table:
        """Return a row per layer with its energy and the share of each component."""
        names = [name for name in COMPONENTS if self.components_pj[name]]
        heads = columns("node", "layer", "energy_pj", *(f"{name}_share" for name in names))
        rows = []
        for each, parts in zip(self.activities, self.layers_pj, strict=True):
            own = sum(parts.values())
            rows.append((each.name, each.layer, own, *(parts[name] / own if own else None for name in names)))
        every, total = self.components_pj, self.total_pj
        footer = ("total", None, total, *(every[name] / total if total else None for name in names))
        return Table(heads, rows, title=f"Energy by table {self.energies.name}", footer=footer)

    def counts_table(self) -> Table:
        """Return what was counted, with the energy of each component."""
        counts, parts = self.counts, self.components_pj

        def bits(name: str) -> str:
            found = counts[name]
            return "not counted" if found is None else f"{sum(found.values()):,} bits"

        zero = counts["zero_macs"]
        rows = [
            *((f"MACs, {text}", f"{count:,}", None) for text, count in counts["macs"].items()),
            ("MACs with a zero operand", "not counted" if zero is None else f"{zero:,}", None),
            ("all MACs", f"{sum(counts['macs'].values()):,}", parts["macs"]),
            ("register writes", bits("written_bits"), None),
            ("register toggles", bits("toggles"), None),
            ("registers", None, parts["registers"]),
            ("hops between PEs", bits("hop_bits"), parts["hops"]),
            ("accumulators", bytes_text(counts["accumulator_bytes"]), parts["accumulators"]),
            ("unified buffer", bytes_text(counts["unified_buffer_bytes"]), parts["unified_buffer"]),
            ("weight FIFO", bytes_text(counts["weight_fifo_bytes"]), parts["weight_fifo"]),
            ("weight memory", self._bytes_of(counts["weight_memory_bytes"]), parts["weight_memory"]),
            ("host link", self._bytes_of(counts["host_bytes"]), parts["host_link"]),
            ("vector unit", self._vector(counts["vector_operations"]), parts["vector_unit"]),
            ("PE-cycles without a MAC", f"{counts['gated_pe_cycles']:,}", None),
            ("all PE-cycles: idle and leakage", f"{counts['pe_cycles']:,}", parts["idle"]),
            ("total", None, self.total_pj),
        ]
        heads = columns("counted", "count", "energy_pj")
        return Table(heads, rows, title=f"Counts and energy by table {self.energies.name}")

    def _bytes_of(self, count: int) -> str:
        return _NO_MEMORY if self.machine.memory is None else bytes_text(count)

    def _vector(self, count: int) -> str:
        return _NO_MEMORY if self.machine.memory is None else f"{count:,} elements"

    def to_dict(self) -> dict[str, Any]:
        """Return table, totals, counts and layers as JSON can hold them."""
        return {
            "table": self.energies.to_dict(),
            "energy_pj": self.total_pj,
            "components_pj": self.components_pj,
            "counts": self.counts,
            "layers": self.rows(),
        }

    def to_frame(self) -> Any:
        """Return :meth:`rows` as a pandas frame; needs ``pip install "systolic[pandas]"``."""
        rows = self.rows()
        return Table(list(rows[0]) if rows else [], [tuple(row.values()) for row in rows]).to_frame()

    def plot(self) -> Any:
        """Draw each layer's energy as a bar, stacked by component; returns a matplotlib Figure.

        Raises
        ------
        ValueError
            If nothing took energy.
        ImportError
            If matplotlib is not installed.
        """
        from systolic._show.energies import plot_energy

        bars = [
            (each.name, {_NAMES[name]: part for name, part in parts.items()})
            for each, parts in zip(self.activities, self.layers_pj, strict=True)
            if any(parts.values())
        ]
        if not bars:
            raise ValueError("there is nothing to draw: no layer took any energy on the machine")
        array = self.machine.array
        title = f"Energy on {array.rows} x {array.cols}, {self.energies.name}: {joules(self.total_pj)}"
        return plot_energy(bars, components=list(_NAMES.values()), title=title)

    def __repr__(self) -> str:
        parts, total, macs = self.components_pj, self.total_pj, self.stats.macs
        if not total:
            return f"<Energy {self.energies.name}: 0 J>"
        most = max(parts, key=parts.__getitem__)
        each = f", {total / macs:,.3g} pJ per MAC" if macs else ""
        return (
            f"<Energy {self.energies.name}: {joules(total)}{each}, most for {_NAMES[most]} "
            f"({percent(parts[most] / total)})>"
        )

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table().html()


_NAMES = {name: name.replace("_", " ") for name in COMPONENTS} | {
    "macs": "MACs", "weight_fifo": "weight FIFO",
}  # fmt: skip
_NO_MEMORY = "none: ideal machine"
_ACCESSES = (
    "accumulator_bytes", "unified_buffer_bytes", "weight_fifo_bytes", "weight_memory_bytes", "host_bytes",
    "vector_operations",
)  # fmt: skip


def _total(values: Sequence[int | None]) -> int | None:
    return None if any(value is None for value in values) else sum(value or 0 for value in values)


def _by_name(counts: Sequence[Mapping[str, int] | None]) -> dict[str, int] | None:
    if not counts or any(each is None for each in counts):
        return None
    total: dict[str, int] = {}
    for each in counts:
        for name, count in (each or {}).items():
            total[name] = total.get(name, 0) + count
    return total
