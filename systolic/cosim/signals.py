"""``SignalMap``: names, widths and times of an RTL array's signals, by the emulator's registers and ports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from string import Formatter
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from systolic import _check, _hints
from systolic.config import ArrayConfig
from systolic.formats import Format

ACCUMULATOR = "accumulator"
"""The name of the memory below the array in a map."""

# Later than any sample.
MOST_CYCLES = 1 << 40

_MOST_BITS = 64


class Place(NamedTuple):
    """Registers or ports that have one name: where they are, and their numbers.

    Attributes
    ----------
    name : str
    kind : {"register", "port", "accumulator"}
    rows, cols : tuple of int
        Their rows and columns in the array; ports are at the PE that they feed, accumulators one row below
        the last.
    dtype : dtype
        Of a value in the emulator.
    bits : int
        Of a value in hardware.
    """

    name: str
    kind: str
    rows: tuple[int, ...]
    cols: tuple[int, ...]
    dtype: np.dtype
    bits: int


def places(config: ArrayConfig) -> dict[str, Place]:
    """Return all that a map can name, by name: registers, ports as ``side_name``, and ``accumulator``.

    Examples
    --------
    >>> from systolic import ArrayConfig
    >>> from systolic.cosim.signals import places
    >>> list(places(ArrayConfig(2, 2)))[6:]
    ['swap', 'west_activation', 'west_shift', 'west_swap', 'north_weight', 'north_psum', 'accumulator']
    """
    rows, cols = tuple(range(config.rows)), tuple(range(config.cols))
    flow, numbers = config.dataflow_record, config.format
    dtypes = config.register_dtypes
    widths = {register.name: _bits(numbers, register.holds) for register in flow.registers}
    found = [Place(name, "register", rows, cols, dtypes[name], bits) for name, bits in widths.items()]
    for port in flow.ports:
        at_rows, at_cols = (rows, (0,)) if port.side == "west" else ((0,), cols)
        name = f"{port.side}_{port.name}"
        found.append(Place(name, "port", at_rows, at_cols, dtypes[port.feeds], widths[port.feeds]))
    below = (config.rows,)
    found.append(Place(ACCUMULATOR, "accumulator", below, cols, np.dtype(numbers.sum), numbers.psum_bits))
    return {place.name: place for place in found}


def _bits(numbers: Format, holds: str) -> int:
    return {
        "activation": numbers.activation_bits, "weight": numbers.weight_bits, "sum": numbers.psum_bits,
        "control": 1,
    }[holds]  # fmt: skip


@dataclass(frozen=True)
class Signal:
    """An RTL signal, or a pattern for several, that holds a register of all PEs.

    Parameters
    ----------
    name : str
        A format string of the PE's row ``{r}`` and column ``{c}``, such as ``"pe_{r}_{c}.psum_q"``. Where a
        field is left out, the signal is a packed vector: of a row, of a column, or of all PEs row by row.
    valid : str, optional
        Likewise, a signal of one bit for each PE that is 1 in the cycles in which the register is valid.
    latency : int, optional
        Cycles after the emulator's register, such as pipeline registers take; may be negative. None: the
        map's.
    width : int, optional
        Bits of one value, 1 to 64; None: as many as the emulator's number format has.
    first : {"low", "high"}
        Where the first value of a packed vector is: in its lowest or in its highest bits.

    Examples
    --------
    >>> from systolic.cosim import Signal
    >>> Signal("pe_{r}_{c}.psum_q", latency=1).of(2, 0)
    'pe_2_0.psum_q'
    """

    name: str
    valid: str | None = field(default=None, kw_only=True)
    latency: int | None = field(default=None, kw_only=True)
    width: int | None = field(default=None, kw_only=True)
    first: str = field(default="low", kw_only=True)

    def __post_init__(self) -> None:
        _pattern(self.name, "name")
        if self.valid is not None:
            _pattern(self.valid, "valid")
        if self.latency is not None:
            object.__setattr__(self, "latency", _latency(self.latency))
        if self.width is not None:
            width = _check.integer(self.width, "width", minimum=1, maximum=_MOST_BITS)
            object.__setattr__(self, "width", width)
        _check.choice(self.first, "first", ("low", "high"))

    def of(self, row: int, col: int) -> str:
        """Return the name of the signal that holds the value of PE (row, col)."""
        return self.name.format(r=row, c=col)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict that JSON can hold."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def __repr__(self) -> str:
        shown = [f"{f.name}={getattr(self, f.name)!r}" for f in fields(self)[1:] if _differs(self, f)]
        return f"Signal({', '.join([repr(self.name), *shown])})"


@dataclass(frozen=True, kw_only=True)
class SignalMap:
    """How an RTL array's signals stand for the emulator's registers and ports.

    A register of PE (r, c) that works on beat tau (see *Local time* in ``docs/microarchitecture.md``) is
    read after the edge of cycle ``tau + latency + r * hop[0] + c * hop[1]``. The emulator's own array has
    latency 0 and hops of one cycle.

    Parameters
    ----------
    signals : mapping of str to str or Signal
        By the names of the dataflow's registers; of its ports with their side, such as ``west_activation``;
        and ``accumulator``: the sum that a column's accumulator memory has just written. A str is the
        :class:`Signal` of that name. What the design does not have is left out.
    valid : str, optional
        The valid signal of all registers that have none of their own.
    latency : int
        Cycles that all values come later than in the emulator.
    hop : (int, int)
        Cycles from a PE to the one below and to the one on its right: (1, 1); 0 where all work on the same
        beat in one cycle (an adder tree, broadcast activations); 2 with a pipeline register on the way.
    held_psums : bool
        Whether the register of the sums keeps its value in cycles in which it is not valid.

    Raises
    ------
    TypeError, ValueError
        If a field has the wrong kind or value. Whether an array has the registers named is checked by
        :class:`~systolic.Scoreboard`.

    Examples
    --------
    >>> from systolic.cosim import SignalMap
    >>> map = SignalMap(signals={"psum": "pe_{r}_{c}.psum_q"}, hop=(1, 0), latency=1)
    >>> map
    SignalMap(signals={'psum': 'pe_{r}_{c}.psum_q'}, latency=1, hop=(1, 0))
    >>> map.cycle("psum", beat=4, row=2, col=3)
    7
    >>> SignalMap.from_dict(map.to_dict()) == map
    True
    """

    signals: Mapping[str, str | Signal] = field(default_factory=dict)
    valid: str | None = None
    latency: int = 0
    hop: tuple[int, int] = (1, 1)
    held_psums: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.signals, Mapping):
            raise TypeError(
                "signals must be a dict from the names of registers to those of signals, such as "
                f'{{"psum": "pe_{{r}}_{{c}}.psum"}}, not {_check.kind(self.signals)}'
            )
        found = {}
        for name, signal in self.signals.items():
            if not isinstance(name, str) or not isinstance(signal, str | Signal):
                raise TypeError(
                    f"signals must map names to text or Signal, not {_check.kind(name)} to "
                    f"{_check.kind(signal)}"
                )
            found[name] = signal if isinstance(signal, Signal) else Signal(signal)
        if self.valid is not None:
            _pattern(self.valid, "valid")
        hop = self.hop
        if not _check.is_listed(hop) or len(hop) != 2:
            raise TypeError(
                f"hop must be (cycles down, cycles right), such as (1, 1), not {_check.kind(hop)}"
            )
        put = object.__setattr__
        put(self, "signals", MappingProxyType(found))
        put(self, "latency", _latency(self.latency))
        put(self, "hop", tuple(_check.integer(each, "hop", minimum=0, maximum=_MOST_BITS) for each in hop))
        put(self, "held_psums", _check.flag(self.held_psums, "held_psums"))

    def signal(self, name: str) -> Signal:
        """Return the signal of a register or port of the map, with the map's valid signal and latency."""
        try:
            signal = self.signals[name]
        except KeyError:
            known = tuple(self.signals)
            raise KeyError(f"the map has no {name!r}; {_hints.nearest(name, known)}") from None
        assert isinstance(signal, Signal)
        latency = self.latency if signal.latency is None else signal.latency
        return Signal(
            signal.name,
            valid=self.valid if signal.valid is None else signal.valid,
            latency=latency,
            width=signal.width,
            first=signal.first,
        )

    @property
    def latencies(self) -> tuple[int, ...]:
        """The map's latency, and that of each signal."""
        return self.latency, *(self.signal(name).latency or 0 for name in self.signals)

    def delay(self, name: str, row: Any, col: Any) -> Any:
        """Return how many cycles after its beat a register of PE (row, col) is read; integers or arrays."""
        return self.signal(name).latency + row * self.hop[0] + col * self.hop[1]

    def cycle(self, name: str, *, beat: int, row: int, col: int) -> int:
        """Return the cycle after whose edge a register of PE (row, col) holds its value of a beat."""
        return int(self.delay(name, row, col)) + beat

    def checked(self, config: ArrayConfig) -> SignalMap:
        """Return the map if an array has all that it names, or raise ValueError."""
        known = places(config)
        for name in self.signals:
            if name not in known:
                raise ValueError(
                    f"the map names {name!r}, which a {config.dataflow_record.name} array does not have; "
                    f"{_hints.nearest(name, tuple(known))}"
                )
            pattern, axes = self.signal(name).name, _axes(known[name])
            if extra := _fields(pattern) - axes:
                raise ValueError(
                    f"{name} is one for each {'row' if 'r' in axes else 'column'}, but the map names it "
                    f"{pattern!r}, with a field {{{extra.pop()}}}"
                )
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict that JSON can hold."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        short = {name: self._short(name) for name in self.signals}
        values["signals"] = {n: s if isinstance(s, str) else s.to_dict() for n, s in short.items()}
        values["hop"] = list(self.hop)
        return values

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SignalMap:
        """Return the map that :meth:`to_dict` described."""
        values = _known(cls, data)
        signals = values.get("signals", {})
        if isinstance(signals, dict):
            values["signals"] = {
                name: Signal(**_known(Signal, signal)) if isinstance(signal, dict) else signal
                for name, signal in signals.items()
            }
        return cls(**values)

    def _short(self, name: str) -> str | Signal:
        signal = self.signals[name]
        assert isinstance(signal, Signal)
        return signal.name if signal == Signal(signal.name) else signal

    def __hash__(self) -> int:
        return hash((tuple(self.signals.items()), self.valid, self.latency, self.hop, self.held_psums))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).from_dict, (self.to_dict(),)

    def __repr__(self) -> str:
        shown = [f"signals={ {name: self._short(name) for name in self.signals}!r}"]
        shown += [f"{f.name}={getattr(self, f.name)!r}" for f in fields(self)[1:] if _differs(self, f)]
        return f"SignalMap({', '.join(shown)})"


def groups(pattern: str, place: Place) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """Yield each signal that a pattern names for a place, and which of its (row, column) it packs, in order.

    Rows and columns are counted from those of the place.
    """
    found: dict[str, list[tuple[int, int]]] = {}
    for i, row in enumerate(place.rows):
        for j, col in enumerate(place.cols):
            found.setdefault(pattern.format(r=row, c=col), []).append((i, j))
    yield from found.items()


def _axes(place: Place) -> set[str]:
    return {
        "register": {"r", "c"},
        "accumulator": {"c"},
        "port": {"r"} if place.name.startswith("west") else {"c"},
    }[place.kind]


def _fields(pattern: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(pattern) if name is not None}


def _pattern(text: Any, name: str) -> None:
    """Raise unless `text` is a format string of r and c."""
    if not isinstance(text, str):
        raise TypeError(f'{name} must be a text such as "pe_{{r}}_{{c}}.psum", not {_check.kind(text)}')
    if not text:
        raise ValueError(f"{name} must name a signal, but is empty")
    try:
        unknown = sorted(_fields(text) - {"r", "c"})
        text.format(**dict.fromkeys(unknown, 0), r=0, c=0)
    except (ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
        raise ValueError(f"{name} {text!r} is no format string of {{r}} and {{c}}: {error}") from None
    if unknown:
        raise ValueError(f"{name} {text!r} has a field {{{unknown[0]}}}; its fields are {{r}} and {{c}}")


def _latency(value: Any) -> int:
    return _check.integer(value, "latency", minimum=-MOST_CYCLES, maximum=MOST_CYCLES)


def _differs(value: Any, f: Any) -> bool:
    return getattr(value, f.name) != f.default


def _known(cls: type, data: Any) -> dict[str, Any]:
    """Return `data` as keyword arguments of a dataclass, refusing unknown fields."""
    if not isinstance(data, dict):
        raise TypeError(f"{cls.__name__}.from_dict takes a dict, not {type(data).__name__}")
    known = [f.name for f in fields(cls)]
    for name in data:
        if name not in known:
            raise ValueError(f"{cls.__name__} has no field {name!r}; {_hints.nearest(name, known)}")
    return dict(data)
