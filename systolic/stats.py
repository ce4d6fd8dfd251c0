"""``Stats``: counts of a run, addable integers with the unit in the name."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from systolic import _check
from systolic._show.table import card, percent


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Counts of one product, one layer or a whole run. They add up with ``+`` and ``sum``.

    Parameters
    ----------
    cycles : int
        Clock edges from reset to the last psum; of a program, until its last instruction completes.
    macs : int
        Useful multiply-accumulates, M * K * N; 1 MAC is 2 operations.
    pe_cycles : int
        rows * cols * cycles: the MACs the array had room for.
    folds : int
        Tiles of weights loaded; of whatever else stays in the PEs, if that is not the weights.
    weight_bytes : int
        Weights that enter the array, each time they do, without the zeros that pad a short tile.
    activation_bytes : int
        Activations that enter the array, each time they do, without padding.
    output_bytes : int
        int32 sums drained from the accumulators, 4 bytes each, once per output.
    active_cycles, weight_stall_cycles, weight_shift_cycles, non_matrix_cycles : int
        Cycles of a program by what the array did: it streamed rows, waited for a weight tile, for its
        shift, or for anything else. They add up to `cycles`, and all are 0 on the ideal machine, where
        operands are always on time.
    raw_stall_cycles, input_stall_cycles, accumulator_stall_cycles, other_stall_cycles : int
        What `non_matrix_cycles` consist of: waits for rows that the vector unit writes, for rows from the
        host, for accumulators that are still being read, and for dispatch, drain and the program's end.
    partial_sums : int
        Sums that leave the array into the accumulators: of each output one for every k tile.
    accumulator_bytes, unified_buffer_bytes, weight_fifo_bytes : int
        Bytes written to these memories and read from them. On the ideal machine operands come from the
        unified buffer and the FIFO as they enter the array, and outputs go to the unified buffer as
        activations.
    weight_memory_bytes, host_bytes : int
        Bytes read from the weight memory, and moved between host and unified buffer; 0 on the ideal machine,
        which has neither.
    vector_operations : int
        Elements that the vector unit reads; 0 on the ideal machine, which has none.

    Examples
    --------
    >>> from systolic import Stats
    >>> total = Stats(cycles=8, macs=18, pe_cycles=48) + Stats(cycles=8, macs=12, pe_cycles=48)
    >>> total.cycles, total.macs, total.utilization
    (16, 30, 0.3125)
    """

    cycles: int = 0
    macs: int = 0
    pe_cycles: int = 0
    folds: int = 0
    weight_bytes: int = 0
    activation_bytes: int = 0
    output_bytes: int = 0
    active_cycles: int = 0
    weight_stall_cycles: int = 0
    weight_shift_cycles: int = 0
    non_matrix_cycles: int = 0
    raw_stall_cycles: int = 0
    input_stall_cycles: int = 0
    accumulator_stall_cycles: int = 0
    other_stall_cycles: int = 0
    partial_sums: int = 0
    accumulator_bytes: int = 0
    unified_buffer_bytes: int = 0
    weight_fifo_bytes: int = 0
    weight_memory_bytes: int = 0
    host_bytes: int = 0
    vector_operations: int = 0

    def __post_init__(self) -> None:
        # Small products take microseconds: only what is no plain count is looked at again.
        for name, value in self.__dict__.items():
            if type(value) is not int or value < 0:
                object.__setattr__(self, name, _check.integer(value, name, minimum=0))

    def __add__(self, other: Stats) -> Stats:
        if not isinstance(other, Stats):
            return NotImplemented
        total = Stats.__new__(Stats)
        theirs = other.__dict__
        total.__dict__.update({name: value + theirs[name] for name, value in self.__dict__.items()})
        return total

    def __radd__(self, other: object) -> Stats:
        # sum() starts from the integer 0.
        return self if other == 0 else NotImplemented

    @property
    def utilization(self) -> float:
        """Useful MACs over the MACs the array had room for; 0 where nothing ran."""
        return self.macs / self.pe_cycles if self.pe_cycles else 0.0

    @property
    def unused_macs(self) -> int:
        """MACs that the active cycles had room for and that were not useful; 0 on the ideal machine.

        Of counts from one array: those of arrays of several sizes have no common room.
        """
        room = self.active_cycles * self.pe_cycles // self.cycles if self.cycles else 0
        return max(room - self.macs, 0)

    def __repr__(self) -> str:
        # The causes are 0 on the ideal machine. Accesses are in to_dict.
        values = list(self.to_dict().items())[:_FIRST_ACCESS]
        shown = [f"{n}={v}" for i, (n, v) in enumerate(values) if v or i < _FIRST_CAUSE]
        return f"Stats({', '.join(shown)})"

    def _repr_html_(self) -> str:
        values = list(self.to_dict().items())
        if not self.active_cycles and not self.non_matrix_cycles:
            values = values[:_FIRST_CAUSE] + values[_FIRST_ACCESS:]
        pairs = [(name.replace("_", " "), f"{value:,}") for name, value in values]
        return card("Stats", [*pairs, ("utilization", percent(self.utilization))])

    def to_dict(self) -> dict[str, int]:
        """Return the counts as a dict that JSON can hold."""
        return {name: getattr(self, name) for name in COUNTS}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Stats:
        """Return the Stats that :meth:`to_dict` described."""
        if not isinstance(data, dict):
            raise TypeError(f"Stats.from_dict takes a dict, not {type(data).__name__}")
        known = {f.name for f in fields(cls)}
        if set(data) - known:
            raise ValueError(
                f"Stats has no field {sorted(set(data) - known)}; its fields are {sorted(known)}"
            )
        return cls(**data)


COUNTS = tuple(f.name for f in fields(Stats))
"""The names of all counts, in their order."""

_FIRST_CAUSE = COUNTS.index("active_cycles")
_FIRST_ACCESS = COUNTS.index("partial_sums")

CAUSES = COUNTS[_FIRST_CAUSE:_FIRST_ACCESS]
"""The names of the cycles by cause: the first four add up to the cycles, the others to the fourth."""
