"""``SweepRow``: what one model costs in one configuration, with an identifier of both."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from systolic import _check
from systolic._text import canonical, digest, printable
from systolic._version import __version__
from systolic.config import MachineConfig
from systolic.energy import DEFAULT, TABLES, EnergyTable, total_pj
from systolic.stats import COUNTS, Stats


def identify(model_id: str, machine: str, batch: int, mapping: str | None, version: str) -> str:
    """Return the identifier of a row; `machine` is the canonical JSON of the machine."""
    # Canonical JSON of all five; the machine's is at hand.
    first, last = {"batch": batch}, {"mapping": mapping, "model": model_id, "version": version}
    return digest(f'{canonical(first)[:-1]},"machine":{machine},{canonical(last)[1:]}')


@dataclass(frozen=True, kw_only=True)
class SweepRow:
    """What one model costs in one configuration. Rows of one configuration add up with ``+`` and ``sum``.

    Parameters
    ----------
    model : str
        Name of the model.
    model_id : str
        SHA-256 of name and content; several, joined by ``+``, in a sum of rows.
    machine : MachineConfig
    batch : int
        Size of the first axis of the model's inputs; of a list of products, a factor of their rows.
    mapping : str or None
        How convolutions were mapped, as ``compile`` takes it; None is its default.
    note : str or None
        What the costs rest on, if not on a model as it runs: that it was costed as if quantized, for example.
    version : str
        Version of the package that computed the row.
    stats : Stats or None
        None if the configuration cannot run the model.
    error : str or None
        Why it cannot.
    energies : EnergyTable or None
        What :attr:`energy_pj` is computed with; not a part of the identifier, nor of files.

    Examples
    --------
    >>> from systolic import ArrayConfig, Gemm, sweep
    >>> fc1, fc2 = sweep([Gemm(1, 64, 64), Gemm(1, 64, 10)], ArrayConfig(64, 64))
    >>> both = fc1 + fc2
    >>> both.model, both.stats.cycles == fc1.stats.cycles + fc2.stats.cycles
    ('1 x 64 x 64 + 1 x 64 x 10', True)
    >>> len(both.id)
    64
    """

    model: str
    model_id: str
    machine: MachineConfig
    batch: int = 1
    mapping: str | None = None
    note: str | None = None
    version: str = __version__
    stats: Stats | None = None
    error: str | None = None
    energies: EnergyTable | None = field(default=TABLES[DEFAULT], compare=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.machine, MachineConfig):
            raise TypeError(f"machine must be a MachineConfig, not {_check.kind(self.machine)}")
        if (self.stats is None) == (self.error is None):
            raise ValueError("a row holds either stats or an error")

    @property
    def id(self) -> str:
        """SHA-256 of machine, batch, mapping, model and package version: equal for equal work."""
        machine = canonical(self.machine.to_dict())
        return identify(self.model_id, machine, self.batch, self.mapping, self.version)

    @property
    def seconds(self) -> float | None:
        """Time of the cycles at the machine's clock."""
        return None if self.stats is None else self.machine.seconds(self.stats.cycles)

    @property
    def energy_pj(self) -> float | None:
        """Energy of the counts on the machine by :attr:`energies`, in pJ; None without stats or table."""
        if self.stats is None or self.energies is None:
            return None
        return total_pj(self.stats, self.machine, self.energies)

    def __add__(self, other: SweepRow) -> SweepRow:
        if not isinstance(other, SweepRow):
            return NotImplemented
        for name in ("machine", "batch", "mapping", "version"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise ValueError(f"rows add up on one configuration; here {name} is {mine} and {theirs}")
        error = self.error or other.error
        stats = None
        if self.stats is not None and other.stats is not None:
            stats = self.stats + other.stats
        return SweepRow(
            model=f"{self.model} + {other.model}",
            # Sorted parts, not a digest of digests: sums do not depend on the order of addition.
            model_id="+".join(sorted(f"{self.model_id}+{other.model_id}".split("+"))),
            machine=self.machine, batch=self.batch, mapping=self.mapping, version=self.version,
            note="; ".join(dict.fromkeys(filter(None, (self.note, other.note)))) or None, stats=stats,
            error=error, energies=self.energies,
        )  # fmt: skip

    def __radd__(self, other: object) -> SweepRow:
        # sum() starts from the integer 0.
        return self if other == 0 else NotImplemented

    def to_dict(self) -> dict[str, Any]:
        """Return the row as one flat dict that JSON can hold: configuration, counts, time.

        The fields of the memories have ``memory_`` before their names: ``weight_bytes`` is a count.
        """
        machine = self.machine.to_dict()
        memory = {f"memory_{name}": value for name, value in machine.get("memory", {}).items()}
        counts = dict.fromkeys(COUNTS) if self.stats is None else self.stats.to_dict()
        array = self.machine.array
        return {
            "model": self.model,
            "batch": self.batch,
            "mapping": self.mapping,
            **machine["array"],
            "clock_mhz": self.machine.clock_mhz,
            **memory,
            "pes": array.rows * array.cols,
            **counts,
            "utilization": None if self.stats is None else self.stats.utilization,
            "seconds": self.seconds,
            "energy_pj": self.energy_pj,
            "note": self.note,
            "error": self.error,
            "version": self.version,
            "model_id": self.model_id,
            "id": self.id,
        }

    def __repr__(self) -> str:
        array = self.machine.array
        found = f"{self.stats.cycles:,} cycles" if self.stats is not None else self.error
        mapping = "" if self.mapping is None else f", {self.mapping}"
        return printable(
            f"<SweepRow {self.model}: batch {self.batch}{mapping}, {array.rows} x {array.cols} at "
            f"{self.machine.clock_mhz:g} MHz: {found}>"
        )
