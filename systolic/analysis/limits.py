"""``explain``: which limit binds a program, and what doubling each parameter of the machine changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from systolic import _check
from systolic._show.columns import columns
from systolic._show.table import Table, percent, seconds
from systolic.config import MachineConfig
from systolic.isa import Program
from systolic.machine import Timeline, time_program
from systolic.machine.spans import LIMITS

_DOUBLED = (
    "weight_bytes_per_second", "weight_latency_cycles", "fifo_tiles", "host_bytes_per_second",
    "host_latency_cycles", "lanes", "activation_latency_cycles", "issue_cycles", "width_factors",
)  # fmt: skip


@dataclass(frozen=True)
class Effect:
    """What doubling one parameter does.

    Attributes
    ----------
    parameter : str
        A field of :class:`~systolic.MachineConfig` or :class:`~systolic.MemoryConfig`.
    value, doubled : int, float, Fraction or tuple of int
    cycles : int
        Of the program with the doubled value.
    change : float
        Of the time in seconds, as a fraction of the time before: -0.25 for a quarter less.
    """

    parameter: str
    value: Any
    doubled: Any
    cycles: int
    change: float


@dataclass(frozen=True, repr=False)
class Explanation:
    """What a program's time consists of, and what it depends on: the result of :func:`explain`.

    Attributes
    ----------
    timeline : Timeline
        Of the machine as it is.
    effects : tuple of Effect
        The parameter that saves most first.
    """

    timeline: Timeline
    effects: tuple[Effect, ...]

    @property
    def limit(self) -> str:
        """What most cycles of the array go to: ``"-"`` for a program without cycles."""
        causes = self.timeline.causes
        cause = max(causes, key=causes.__getitem__)
        return LIMITS[cause] if causes[cause] else "-"

    def table(self) -> Table:
        """Return a row per parameter: its value, twice that, and the time with it."""
        machine = self.timeline.machine
        heads = columns("parameter", "value", "doubled", "cycles", "seconds", "change")
        rows = [
            (effect.parameter, _text(effect.value), _text(effect.doubled), effect.cycles,
             _time(machine, effect), effect.change)
            for effect in self.effects
        ]  # fmt: skip
        causes = {cause: count for cause, count in self.timeline.causes.items() if count}
        cycles = self.timeline.cycles
        shares = ", ".join(f"{cause.replace('_', ' ')} {percent(n / cycles)}" for cause, n in causes.items())
        title = f"{cycles:,} cycles ({seconds(machine.seconds(cycles))}), limited by: {self.limit}"
        left_out = "Sizes of array and memories are left out: a program is made for them."
        footer = f"Now: {shares or 'no cycles'}.\n{left_out}"
        return Table(heads, rows, title=title, footer=footer)

    def to_frame(self) -> Any:
        """Return :meth:`table` as a pandas frame; needs ``pip install "systolic[pandas]"``."""
        return self.table().to_frame()

    def to_dict(self) -> dict[str, Any]:
        """Return machine, cycles by cause and effects as JSON can hold them."""
        timeline = self.timeline
        return {
            "machine": timeline.machine.to_dict(),
            "cycles": timeline.cycles,
            "causes": dict(timeline.causes),
            "limit": self.limit,
            "effects": [
                {"parameter": e.parameter, "value": _plain(e.value), "doubled": _plain(e.doubled),
                 "cycles": e.cycles, "change": e.change}
                for e in self.effects
            ],
        }  # fmt: skip

    def __repr__(self) -> str:
        best = self.effects[0]
        saved = f"; twice the {best.parameter} saves {percent(-best.change)}" if best.change < 0 else ""
        return f"<Explanation: {self.timeline.cycles:,} cycles, limited by: {self.limit}{saved}>"

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table().html()


def explain(program: Program, machine: MachineConfig) -> Explanation:
    """Say which limit binds a program, and how its time changes if each parameter of the machine doubles.

    Parameters
    ----------
    program : Program
    machine : MachineConfig
        With a :class:`~systolic.MemoryConfig`.

    Returns
    -------
    Explanation
        Every change is a finite difference: the program is timed again on the changed machine. Bandwidths
        are in bytes per second, so that twice the clock halves the bytes of a cycle.

    Raises
    ------
    ValueError
        If the machine has no memories, or the program does not fit it.

    Notes
    -----
    The sizes of array, accumulators, buffers and rows do not belong here: a program is made for them, and
    another size needs another program.

    Examples
    --------
    >>> from systolic import presets
    >>> from systolic.analysis import explain
    >>> from systolic.isa import Program
    >>> machine = presets.TPU_V1
    >>> program = Program("read_weights w#0, 2 \\n matmul a#0, u#0, 100 \\n matmul a#0, u#0, 100, accumulate")
    >>> found = explain(program, machine)
    >>> found
    <Explanation: 3,567 cycles, limited by: weight memory; twice the weight_bytes_per_second saves 37.8%>
    >>> [effect.parameter for effect in found.effects if effect.change]
    ['weight_bytes_per_second', 'clock_mhz', 'width_factors']
    """
    if not isinstance(program, Program):
        raise TypeError(f"program must be a Program, not {_check.kind(program)}; systolic.compile makes one")
    timeline = time_program(program, machine)
    now = machine.seconds(timeline.cycles)
    effects = []
    for name, value, doubled, changed in _variants(machine):
        cycles = time_program(program, changed).cycles
        change = changed.seconds(cycles) / now - 1 if now else 0.0
        effects.append(Effect(name, value, doubled, cycles, change))
    effects.sort(key=lambda effect: effect.change)
    return Explanation(timeline, tuple(effects))


def _variants(machine: MachineConfig) -> Iterator[tuple[str, Any, Any, MachineConfig]]:
    """Yield each parameter's name, its value, twice that, and the machine with it."""
    memory, clock = machine.memory, machine.clock_mhz
    assert memory is not None
    yield "clock_mhz", clock, 2 * clock, replace(machine, clock_mhz=2 * clock)
    for name in _DOUBLED:
        value: Any = getattr(memory, name)
        if name == "lanes" and value is None:
            value = machine.array.cols
        doubled = tuple(2 * each for each in value) if isinstance(value, tuple) else 2 * value
        changes: dict[str, Any] = {name: doubled}
        yield name, value, doubled, replace(machine, memory=replace(memory, **changes))


def _time(machine: MachineConfig, effect: Effect) -> float:
    faster = 2 if effect.parameter == "clock_mhz" else 1
    return machine.seconds(effect.cycles) / faster


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return value if isinstance(value, int | float) else str(value)
