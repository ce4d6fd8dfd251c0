"""``Probe``: observe or change an array's registers between two clock edges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from systolic import _check
from systolic.config import ArrayConfig


@dataclass(frozen=True, kw_only=True)
class Change:
    """New values that a probe wants at a stop.

    Parameters
    ----------
    registers : mapping of str to array_like of int, (rows, cols)
        New values of some of the array's registers; the others keep theirs.
    probe : mapping of str to object
        New values of some of the probe's own attributes.

    Notes
    -----
    Both take effect together with the edge. After an interrupt (Ctrl-C) either all of them have
    or none, so that a probe that counts this way never counts an edge twice.

    Examples
    --------
    >>> from systolic import ArrayConfig, Change, Probe, SystolicArray
    >>> class AddOne(Probe):
    ...     def at_stop(self, cycle, registers):
    ...         return Change(registers={"psum": registers.psum + 1})
    >>> SystolicArray(ArrayConfig(1, 2), probe=AddOne()).run(1).registers.psum
    array([[1, 1]], dtype=int32)
    """

    registers: Mapping[str, Any] = field(default_factory=dict)
    probe: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for f in fields(self):
            given = getattr(self, f.name)
            if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
                raise TypeError(f"Change: {f.name} must map names to values, not {_check.kind(given)}")


class Probe:
    """Looks at the registers of an array between edges, or changes them; a base class.

    Override :meth:`at_stop`, and :meth:`next_stop` if not every edge matters: between stops the
    array runs at full speed. Give probes to ``SystolicArray(config, probe=...)``, ``matmul``,
    ``conv2d`` or ``run``: one, or a sequence of them, called in that order. ``Trace`` is one.

    Attributes
    ----------
    layer : str or None
        For ``run``: the node whose product is probed; None: the first on the array, or, if toggles are
        counted, every one.
    counts_toggles : bool
        Whether the array counts the bits that its registers change, in compiled code, for :meth:`toggled`.

    Notes
    -----
    Cycles are counted in edges done, as by ``SystolicArray.cycle``: a stop at cycle t + 1 shows the
    registers after the edge of cycle t. An exception from at_stop ends the run after that edge, which
    the array and the other probes complete. A probe belongs to one array at a time: :meth:`attach`
    starts it over.

    Examples
    --------
    Count the bits that flip in the psum registers; :class:`systolic.energy.Toggles` does it faster:

    >>> import numpy as np
    >>> from systolic import ArrayConfig, Change, Probe, matmul
    >>> class Toggles(Probe):
    ...     def attach(self, config):
    ...         self.flips, self.before = 0, np.zeros((config.rows, config.cols), np.int32)
    ...
    ...     def at_stop(self, cycle, registers):
    ...         flips = np.unpackbits((registers.psum ^ self.before).view(np.uint8)).sum()
    ...         return Change(probe={"flips": self.flips + int(flips), "before": registers.psum})
    >>> toggles = Toggles()
    >>> _ = matmul(np.int8([[1, 2]]), np.int8([[3], [4]]), array=ArrayConfig(2, 2), probe=toggles)
    >>> toggles.flips
    10

    Flip a bit of one register at one cycle:

    >>> class Fault(Probe):
    ...     def next_stop(self, now, stop):
    ...         return 3 if now < 3 else None
    ...
    ...     def at_stop(self, cycle, registers):
    ...         psum = registers.psum.copy()
    ...         psum[0, 0] ^= 1 << 10
    ...         return Change(registers={"psum": psum})
    >>> matmul(np.int8([[1, 2]]), np.int8([[3], [4]]), array=ArrayConfig(2, 2), probe=Fault()).acc
    array([[1035]], dtype=int32)
    """

    layer: str | None = None
    counts_toggles: bool = False

    def attach(self, config: ArrayConfig) -> None:
        """Get ready for an array of this configuration, after reset; raise if it does not fit."""

    def reserve(self, start: int, stop: int) -> None:
        """Get ready for the edges of cycles start .. stop - 1; raise to refuse them before they run."""

    def next_stop(self, now: int, stop: int) -> int | None:
        """Return the first cycle after `now` at which to be called; None if there is none up to `stop`."""
        return now + 1

    def at_stop(self, cycle: int, registers: Any) -> Change | None:
        """Look at the array at a cycle that :meth:`next_stop` named.

        Parameters
        ----------
        cycle : int
            Edges done.
        registers : Registers
            A mapping of read-only arrays, (rows, cols), also by attribute; they may be kept.

        Returns
        -------
        Change or None
            Registers or attributes to change, if any.
        """
        raise NotImplementedError(f"{type(self).__name__} must override at_stop(cycle, registers)")

    def toggled(self, cycle: int, toggles: Mapping[str, int]) -> Change | None:
        """Take the toggles of the last edges; called if `counts_toggles` is True.

        Parameters
        ----------
        cycle : int
            Edges done; the toggles are those since the last call.
        toggles : mapping of str to int
            For each register, how many bits changed in all PEs: those in which values before and after an
            edge differ. What probes change between edges does not count.

        Returns
        -------
        Change or None
            Attributes of the probe to change, if any.
        """
        return None

    def rewound(self, cycle: int) -> Change | None:
        """Return changes of the probe as the array is reset or restored to `cycle`."""
        return None


def next_stops(probes: tuple[Probe, ...], now: int, stop: int) -> tuple[int, list[Probe]]:
    """Return up to which cycle an array may run at once, and the probes to call there."""
    first, wanted = stop, list[Probe]()
    for probe in probes:
        at = probe.next_stop(now, stop)
        if at is None:
            continue
        at = _check.integer(at, f"what {type(probe).__name__}.next_stop returns")
        if at <= now:
            call = f"{type(probe).__name__}.next_stop({now}, {stop})"
            raise ValueError(f"{call} must return a cycle after {now}, or None, not {at}")
        if at < first:
            first, wanted = at, []
        if at == first:
            wanted.append(probe)
    return first, wanted


def as_probes(value: Any) -> tuple[Probe, ...]:
    """Return a ``probe=`` argument, one probe or several, as a tuple."""
    if value is None:
        return ()
    probes = (value,) if isinstance(value, Probe | type) else value
    if not isinstance(probes, Iterable):
        raise TypeError(_NO_PROBE.format(_check.kind(value)))
    probes = tuple(probes)
    for probe in probes:
        if isinstance(probe, type) and issubclass(probe, Probe):
            raise TypeError(f"probe must be a Probe, not its class: pass {probe.__name__}()")
        if not isinstance(probe, Probe):
            raise TypeError(_NO_PROBE.format(_check.kind(probe)))
    if len(set(map(id, probes))) < len(probes):
        raise ValueError("probe must name each probe once")
    return probes


_NO_PROBE = (
    "probe must be a Probe or several of them, not {}; derive a class from systolic.Probe and "
    "override at_stop(cycle, registers)"
)


def changed(
    change: Any, probe: Probe, registers: dict[str, np.ndarray], method: str = "at_stop"
) -> list[tuple[Any, str, Any]]:
    """Put a probe's new values into `registers`; return its attributes to assign: object, name, value."""
    if change is None:
        return []
    who = f"{type(probe).__name__}.{method}"
    if not isinstance(change, Change):
        raise TypeError(f"{who} must return a Change or None, not {_check.kind(change)}")
    for name in change.probe:
        # They are assigned together with the edge, and none may fail then.
        if hasattr(getattr(type(probe), name, None), "__set__"):
            raise ValueError(f"{who}: {name!r} is no plain attribute of the probe; change one that is")
    new = {}
    for name, given in change.registers.items():
        old = registers[_check.choice(name, f"{who}: register", tuple(registers))]
        values = _check.integers(given, f"{who}: {name}", old.dtype.name)
        if values.shape != old.shape:
            raise ValueError(
                f"{who}: {name} must be {_check.shape(old.shape)}, not {_check.shape(values.shape)}"
            )
        new[name] = np.array(values, order="C")
        new[name].flags.writeable = False
    registers.update(new)
    return [(probe, name, value) for name, value in change.probe.items()]
