"""``Stats``: counts of a run, addable integers with the unit in the name."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from systolic import _check
from systolic._show.table import card, percent


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Counts of one product, one layer or a whole run. They add up with ``+`` and ``sum``.

    Parameters
    ----------
    cycles : int
        Clock edges from reset to the last psum.
    macs : int
        Useful multiply-accumulates, M * K * N; 1 MAC is 2 operations.
    pe_cycles : int
        rows * cols * cycles: the MACs the array had room for.
    folds : int
        Weight tiles loaded.
    weight_bytes : int
        Weights shifted in, a tile counted each time it is loaded, without the zeros that
        pad a short tile.
    activation_bytes : int
        Rows of x streamed, each time they are, without padding to the array's rows.
    output_bytes : int
        int32 sums drained from the accumulators, 4 bytes each, once per output.

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

    def __post_init__(self) -> None:
        for f in fields(self):
            object.__setattr__(self, f.name, _check.integer(getattr(self, f.name), f.name, minimum=0))

    def __add__(self, other: Stats) -> Stats:
        if not isinstance(other, Stats):
            return NotImplemented
        return Stats(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    def __radd__(self, other: object) -> Stats:
        # sum() starts from the integer 0.
        return self if other == 0 else NotImplemented

    @property
    def utilization(self) -> float:
        """Useful MACs over the MACs the array had room for; 0 where nothing ran."""
        return self.macs / self.pe_cycles if self.pe_cycles else 0.0

    def _repr_html_(self) -> str:
        pairs = [(name.replace("_", " "), f"{value:,}") for name, value in self.to_dict().items()]
        return card("Stats", [*pairs, ("utilization", percent(self.utilization))])

    def to_dict(self) -> dict[str, int]:
        """Return the counts as a dict that JSON can hold."""
        return asdict(self)

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
