"""``Trace``: registers recorded after chosen clock edges, in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from systolic import _check
from systolic._show.table import Table
from systolic.config import ArrayConfig
from systolic.dataflows import DATAFLOWS
from systolic.formats import as_numbers, bits
from systolic.trace.probe import Change, Probe, as_probes

if TYPE_CHECKING:
    from systolic.trace.vcd import Signal
    from systolic.viewer import View


class Edges(NamedTuple):
    """The recorded edges: ``kept[start:stop]``, each a cycle and the registers after its edge.

    An extended one shares `kept` with the previous one, and both stay valid: a single assignment records a
    whole cycle, and an interrupt before it leaves at most an entry after `stop`, which is never read.
    """

    kept: list[tuple[int, tuple[np.ndarray, ...]]]
    start: int = 0
    stop: int = 0

    def extended(self, cycle: int, values: tuple[np.ndarray, ...], last: int | None) -> Edges:
        """Return these edges and one more; only the `last` ones, if given."""
        kept, start, stop = self
        kept[stop:] = [(cycle, values)]
        if last is None:
            return Edges(kept, start, stop + 1)
        if start:
            kept[start - 1] = (-1, ())  # free the edge that left the ring
        first = max(start, stop + 1 - last)
        if first > last:
            return Edges(kept[first:], 0, stop + 1 - first)
        return Edges(kept, first, stop + 1)

    def before(self, cycle: int) -> Edges:
        """Return the edges before `cycle`."""
        kept = [edge for edge in self.whole() if edge[0] < cycle]
        return Edges(kept, 0, len(kept))

    def whole(self) -> list[tuple[int, tuple[np.ndarray, ...]]]:
        """Return the edges, oldest first."""
        return self.kept[self.start : self.stop]


class Trace(Probe):
    """Records registers of an array, edge by edge.

    Give one to ``SystolicArray(config, trace=...)``, ``matmul``, ``conv2d`` or ``run``; ``trace=True``
    there means ``Trace()``: every register of every PE.

    Parameters
    ----------
    registers : str or iterable of str, optional
        Which registers of the array's dataflow; default all.
    pes : iterable of (row, col), optional
        Which PEs; default all.
    cycles : (start, stop), optional
        Only the edges of cycles start .. stop - 1, counted from 0.
    last : int, optional
        Keep only the last so many edges: a ring.
    layer : str, optional
        For ``run``: the node whose product is recorded; default the first on the array.
    max_bytes : int
        Memory that the recorded values may take; default 256 MiB.

    Raises
    ------
    TypeError, ValueError
        If a register is unknown or chosen twice, a window is empty or reversed, or a number is
        not a positive integer; and, once the array is known, if a PE lies outside it.

    Notes
    -----
    Values are those after the edge of the cycle. Recording steps the array one edge at a time
    inside the window; outside it the array runs at full speed.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import ArrayConfig, SystolicArray, Trace
    >>> trace = Trace(registers="psum", pes=[(1, 0), (1, 1)])
    >>> array = SystolicArray(ArrayConfig(2, 2), trace=trace)
    >>> _ = array.fold(w=np.int8([[1, 2], [3, 4]]), x=np.int8([[1, 1]])).run()
    >>> print(trace.to_text())
    cycle 0 | psum 0 0
    cycle 1 | psum 0 0
    cycle 2 | psum 0 0
    cycle 3 | psum 4 0
    cycle 4 | psum 0 6
    """

    def __init__(
        self,
        *,
        registers: str | Iterable[str] | None = None,
        pes: Iterable[tuple[int, int]] | None = None,
        cycles: tuple[int, int] | None = None,
        last: int | None = None,
        layer: str | None = None,
        max_bytes: int = 256 << 20,
    ) -> None:
        self._chosen = None if registers is None else _names(registers)
        self.pes = None if pes is None else _pairs(pes)
        self.window = None if cycles is None else _window(cycles)
        self.last = None if last is None else _check.integer(last, "last", minimum=1)
        if layer is not None and not isinstance(layer, str):
            raise TypeError(f"layer must be a node's name, not {_check.kind(layer)}")
        self.layer = layer
        self.max_bytes = _check.integer(max_bytes, "max_bytes", minimum=1)
        self.array: ArrayConfig | None = None
        self._index: tuple[np.ndarray, np.ndarray] | None = None
        self._edges = Edges([])

    @property
    def registers(self) -> tuple[str, ...]:
        """The registers recorded: those chosen, or all of the array's."""
        if self._chosen is not None:
            return self._chosen
        return _KNOWN if self.array is None else tuple(self.array.register_dtypes)

    # A probe: called by the array

    def attach(self, config: ArrayConfig) -> None:
        """Forget everything recorded and get ready for an array of this configuration.

        Raises
        ------
        ValueError
            If the array has no such register or PE, or a ring or window does not fit `max_bytes`.
        """
        for name in self._chosen or ():
            _check.choice(name, "registers", tuple(config.register_dtypes))
        for row, col in self.pes or ():
            if row >= config.rows or col >= config.cols:
                raise ValueError(
                    f"PE ({row}, {col}) lies outside the array of {config.rows} x {config.cols}; rows and "
                    "cols count from 0"
                )
        edges = [n for n in (self.last, self.window and self.window[1] - self.window[0]) if n is not None]
        if edges:
            self._check_room(config, min(edges))
        index = None
        if self.pes is not None:
            index = np.array([row for row, _ in self.pes]), np.array([col for _, col in self.pes])
        # One call, so that after an interrupt there are the old array's edges or none.
        vars(self).update(array=config, _index=index, _edges=Edges([]))

    def reserve(self, start: int, stop: int) -> None:
        """Raise ValueError if recording cycles start .. stop - 1 would need too much memory."""
        first, last = self._span(start, stop)
        assert self.array is not None
        self._check_room(self.array, min(len(self) + last - first, self.last or 1 << 62))

    def next_stop(self, now: int, stop: int) -> int | None:
        """Return the cycle after the next edge to record."""
        first, last = self._span(now, stop)
        return first + 1 if first < last else None

    def at_stop(self, cycle: int, registers: Mapping[str, np.ndarray]) -> Change:
        """Record the values after the edge just done."""
        index = self._index
        # An array makes new registers at every edge: they need no copy.
        values = [registers[name] if index is None else registers[name][index] for name in self.registers]
        return Change(probe={"_edges": self._edges.extended(cycle - 1, tuple(values), self.last)})

    def rewound(self, cycle: int) -> Change:
        """Forget the edges of `cycle` and later: the array is reset or restored."""
        return Change(probe={"_edges": self._edges.before(cycle)})

    def _span(self, start: int, stop: int) -> tuple[int, int]:
        if self.window is None:
            return start, stop
        return max(start, self.window[0]), min(stop, self.window[1])

    def _check_room(self, array: ArrayConfig, edges: int) -> None:
        pes = array.rows * array.cols if self.pes is None else len(self.pes)
        names = tuple(array.register_dtypes) if self._chosen is None else self._chosen
        needed = edges * pes * sum(array.register_dtypes[name].itemsize for name in names)
        if needed > self.max_bytes:
            raise ValueError(
                f"tracing {edges:,} edges of the {array.rows} x {array.cols} array takes "
                f"{needed / 2**20:,.0f} MiB, more than max_bytes allows ({self.max_bytes / 2**20:,.0f} MiB); "
                "choose cycles=(start, stop), last=n, pes=[...] or registers=[...], or raise max_bytes"
            )

    # Reading

    @property
    def cycles(self) -> np.ndarray:
        """The cycles recorded, int64."""
        return np.array([cycle for cycle, _ in self._edges.whole()], dtype=np.int64)

    def __len__(self) -> int:
        return self._edges.stop - self._edges.start

    def __getitem__(self, register: str) -> np.ndarray:
        """Return a register's values: (edges, rows, cols), or (edges, PEs) if PEs were chosen."""
        if not isinstance(register, str) or register not in self.registers:
            raise KeyError(f"{register!r} was not recorded; recorded are {', '.join(self.registers)}")
        edges = self._edges.whole()
        if not edges:
            raise ValueError("nothing is recorded yet: run the array this trace was given to")
        which = self.registers.index(register)
        return np.stack([values[which] for _, values in edges])

    def __getstate__(self) -> dict[str, Any]:
        edges = self._edges.whole()
        return vars(self) | {"_edges": Edges(edges, 0, len(edges))}

    def places(self) -> list[tuple[int, int]]:
        """Return the (row, col) of the recorded PEs, in the order of the values."""
        if self.pes is not None:
            return list(self.pes)
        if self.array is None:
            return []
        return [(r, c) for r in range(self.array.rows) for c in range(self.array.cols)]

    def signals(self) -> list[Signal]:
        """Return every recorded register of every recorded PE, with its values over the edges."""
        from systolic.trace.vcd import Signal

        flat = {name: self[name].reshape(len(self), -1) for name in self.registers}
        return [
            Signal(row, col, name, bits(flat[name].dtype), flat[name][:, i])
            for i, (row, col) in enumerate(self.places())
            for name in self.registers
        ]

    def to_text(self) -> str:
        """Return one line per edge: each register's values, rows of the array apart by ``/``."""
        lines = []
        for cycle, registers in self._edges.whole():
            parts = []
            for name, values in zip(self.registers, registers, strict=True):
                values = as_numbers(values)
                rows = values if values.ndim == 2 else values[None, :]
                parts.append(f"{name} " + " / ".join(" ".join(map(str, row)) for row in rows))
            lines.append(f"cycle {cycle} | " + " | ".join(parts))
        return "\n".join(lines)

    def to_frame(self) -> Any:
        """Return a pandas DataFrame: a row per edge and PE, a column per register."""
        places = self.places()
        rows = []
        for cycle, registers in self._edges.whole():
            flat = [values.ravel() for values in registers]
            for i, (row, col) in enumerate(places):
                rows.append((cycle, row, col, *(values[i].item() for values in flat)))
        return Table(["cycle", "row", "col", *self.registers], rows).to_frame()

    def to_vcd(self, path: str | os.PathLike[str]) -> None:
        """Write the trace as a Value Change Dump, for GTKWave or Surfer.

        ``systolic.trace.vcd.write_vcd`` states hierarchy, bits and times. Needs
        ``pip install "systolic[trace]"``.
        """
        from systolic.trace.vcd import write_vcd

        write_vcd(self.signals(), self.cycles, path)

    def plot(self, *, limit: int = 40) -> Any:
        """Draw the recorded signals as waves over the cycles; returns a matplotlib Figure.

        Parameters
        ----------
        limit : int
            More signals than this are refused: record fewer PEs or registers.
        """
        from systolic._show.waves import plot_waves

        return plot_waves(
            [(f"pe[{s.row}][{s.col}].{s.register}", s.values) for s in self.signals()],
            cycles=self.cycles,
            limit=_check.integer(limit, "limit", minimum=1),
        )

    def plot_wave(self, register: str | None = None, *, cycles: Iterable[int] | None = None) -> Any:
        """Draw one register of the whole array at successive cycles; returns a matplotlib Figure.

        Parameters
        ----------
        register : str, optional
            Recorded in all PEs; default the operand that moves right: activation.
        cycles : iterable of int, optional
            Which of the recorded cycles; default all.
        """
        from systolic._show.draw import plot_wave

        if self.pes is not None:
            raise ValueError("plot_wave draws the whole array: record all PEs, leave pes out")
        if register is None:
            parts = () if self.array is None else self.array.dataflow_record.registers
            register = next((part.name for part in parts if part.role == "west operand"), self.registers[0])
        values = self[_check.choice(register, "register", self.registers)]
        frames = list(zip(self.cycles.tolist(), values, strict=True))
        if cycles is not None:
            if not isinstance(cycles, Iterable):
                raise TypeError(f"cycles must be numbers of cycles, not {_check.kind(cycles)}")
            cycles = [_check.integer(cycle, "cycles", minimum=0) for cycle in cycles]
        return plot_wave(frames, register=register, cycles=cycles)

    def view(self, *, folds: Sequence[Any] | None = None, title: str = "") -> View:
        """Return the recorded edges as an interactive page or notebook widget.

        Parameters
        ----------
        folds : sequence of Fold, optional
            From which values get their names, such as ``result.folds``; without them, what enters between
            two swaps counts as one fold.
        title : str

        Returns
        -------
        View

        Raises
        ------
        ValueError
            If nothing is recorded, or not every register of every PE on consecutive cycles; or if the page
            would be too large.

        Notes
        -----
        The page clocks the array from the first recorded registers on. What it would not get to, because
        another probe changed a register, is kept with it and marked.

        Examples
        --------
        >>> import numpy as np
        >>> from systolic import ArrayConfig, matmul
        >>> x, w = np.int8([[1, 2], [3, 4]]), np.int8([[5], [6]])
        >>> result = matmul(x, w, array=ArrayConfig(2, 1), trace=True)
        >>> result.trace.view(folds=result.folds)
        <View of 2 x 1 systolic array: cycles 1 to 5>
        """
        from systolic.trace.streams import trace_view

        if not self:
            raise ValueError("nothing is recorded yet: run the array this trace was given to")
        assert self.array is not None
        if self.pes is not None or set(self.registers) != set(self.array.register_dtypes):
            raise ValueError(
                "the viewer shows every register of every PE: record them all, leave registers and pes out"
            )
        edges = [
            (cycle, dict(zip(self.registers, values, strict=True))) for cycle, values in self._edges.whole()
        ]
        return trace_view(self.array, edges, folds, title)

    def __repr__(self) -> str:
        what = "all PEs" if self.pes is None else f"{len(self.pes)} PEs"
        edges = self._edges.whole()
        span = f", cycles {edges[0][0]}..{edges[-1][0]}" if edges else ""
        return f"<Trace of {', '.join(self.registers)} in {what}: {len(self)} edges{span}>"

    def _repr_html_(self) -> str:
        from systolic._show.table import card

        pairs = [
            ("registers", ", ".join(self.registers)),
            ("PEs", "all" if self.pes is None else ", ".join(map(str, self.pes[:8]))),
            ("edges", f"{len(self):,}"),
        ]
        if edges := self._edges.whole():
            pairs.append(("cycles", f"{edges[0][0]} .. {edges[-1][0]}"))
        return card("Trace", pairs)


def as_trace(value: Any) -> Trace | None:
    """Return a ``trace=`` argument as a Trace or None."""
    if value is None or value is False:
        return None
    if value is True:
        return Trace()
    if isinstance(value, Trace):
        return value
    raise TypeError(f"trace must be True or a Trace, not {_check.kind(value)}")


def probes_of(trace: Any, probe: Any) -> tuple[Probe, ...]:
    """Return ``trace=`` and ``probe=`` arguments as probes, the trace last."""
    recorder = as_trace(trace)
    return as_probes(probe) if recorder is None else as_probes((*as_probes(probe), recorder))


def trace_among(probes: Sequence[Probe]) -> Trace | None:
    """Return the trace among probes, the last one if there are several; None if there is none."""
    return next((probe for probe in reversed(probes) if isinstance(probe, Trace)), None)


# Registers that a trace may name before it is attached to an array.
_KNOWN = tuple(dict.fromkeys(register.name for flow in DATAFLOWS.values() for register in flow.registers))


def _names(registers: str | Iterable[str]) -> tuple[str, ...]:
    if not isinstance(registers, Iterable):
        raise TypeError(f"registers must be a name or names, not {_check.kind(registers)}")
    names = (registers,) if isinstance(registers, str) else tuple(registers)
    for name in names:
        _check.choice(name, "registers", _KNOWN)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"registers must name each register once, and at least one, not {list(names)}")
    return names


def _pairs(pes: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    if not isinstance(pes, Iterable):
        raise TypeError(f"pes must be pairs (row, col), not {_check.kind(pes)}")
    pairs = []
    for pe in pes:
        try:
            row, col = pe
        except (TypeError, ValueError):
            raise ValueError(f"pes must be pairs (row, col), but one is {pe!r}") from None
        pairs.append(
            (_check.integer(row, "a PE's row", minimum=0), _check.integer(col, "a PE's col", minimum=0))
        )
    if not pairs:
        raise ValueError("pes must hold at least one (row, col); leave it out to record all PEs")
    if len(set(pairs)) < len(pairs):
        raise ValueError("pes must name each PE once")
    return tuple(pairs)


def _window(cycles: Any) -> tuple[int, int]:
    try:
        if isinstance(cycles, bytes | bytearray | memoryview):
            raise TypeError
        start, stop = cycles
    except (TypeError, ValueError):
        raise ValueError(f"cycles must be (start, stop), not {cycles!r}") from None
    start = _check.integer(start, "cycles: start", minimum=0)
    stop = _check.integer(stop, "cycles: stop", minimum=0)
    if stop <= start:
        raise ValueError(f"cycles=({start}, {stop}) is an empty window; stop must be above start")
    return start, stop
