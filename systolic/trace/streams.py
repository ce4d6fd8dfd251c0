"""``Streams``: what passes the ports of an array, from which its registers follow; for the viewer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from systolic.config import ArrayConfig
from systolic.formats import as_numbers, differ
from systolic.trace.probe import Change, Probe
from systolic.viewer import Stay, View, describe_array, stays_of

Edge = tuple[int, Mapping[str, np.ndarray]]
"""A cycle, and the registers after its edge."""

Correction = tuple[str, int, Any]
"""A register, row * cols + col of a PE, and its new value."""


class Streams(Probe):
    """Records what passes the ports of an array, edge by edge, and the registers before the first edge.

    That takes little memory, and a view needs no more; but a view of it does not show what another probe
    changes inside the array. A :class:`~systolic.Trace` of every register has all of it.

    Parameters
    ----------
    cycles : (start, stop), optional
        Only the edges of cycles start .. stop - 1, counted from 0; default all, from reset.
    layer : str, optional
        For ``run``: the node whose product is recorded; default the first on the array.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import ArrayConfig, matmul
    >>> from systolic.trace import Streams
    >>> streams = Streams()
    >>> x, w = np.int8([[1, 2], [3, 4]]), np.int8([[5], [6]])
    >>> result = matmul(x, w, array=ArrayConfig(2, 1), probe=streams)
    >>> streams.ports["activation"].T
    array([[0, 0, 1, 3, 0],
           [0, 0, 0, 2, 4]], dtype=int8)
    >>> streams.view(folds=result.folds)
    <View of 2 x 1 systolic array: cycles 0 to 6>
    """

    def __init__(self, *, cycles: tuple[int, int] | None = None, layer: str | None = None) -> None:
        self.start, self.stop = cycles or (0, 1 << 62)
        self.layer = layer
        self.array: ArrayConfig | None = None
        self.registers: dict[str, np.ndarray] = {}
        self._lines: list[dict[str, np.ndarray]] = []

    def attach(self, config: ArrayConfig) -> None:
        """Forget everything recorded and get ready for an array of this configuration, after reset."""
        size = (config.rows, config.cols)
        self.array, self._lines = config, []
        self.registers = {name: np.zeros(size, dtype) for name, dtype in config.register_dtypes.items()}

    def next_stop(self, now: int, stop: int) -> int | None:
        """Return the cycle after the next edge to record."""
        if now < self.start:
            return self.start if self.start <= stop else None
        return now + 1 if now < self.stop else None

    def at_stop(self, cycle: int, registers: Mapping[str, np.ndarray]) -> Change | None:
        """Record what arrived at the edge just done."""
        if cycle <= self.start:
            self.registers = dict(registers)
        else:
            assert self.array is not None
            self._lines.append(arrived(self.array, registers))
        return None

    @property
    def ports(self) -> dict[str, np.ndarray]:
        """Port values, a line for each recorded edge: (edges, rows) of west ports, (edges, cols) of north."""
        return stacked(self._lines)

    def view(
        self, *, folds: Sequence[Any] | None = None, stays: Sequence[Stay] | None = None, title: str = "",
        notes: Sequence[str] = (),
    ) -> View:  # fmt: skip
        """Return the recorded edges, and one more, as a :class:`~systolic.viewer.View`.

        Parameters
        ----------
        folds : sequence of Fold, optional
            From which values get their names; without them, those between two swaps count as a fold.
        stays : sequence of Stay, optional
            The same as the page takes it.
        title : str
        notes : sequence of str

        Raises
        ------
        ValueError
            If nothing was recorded, or the page cannot show it.
        """
        if self.array is None or not self._lines:
            raise ValueError("nothing was recorded: pass these Streams as probe= to matmul, run or an array")
        return view_of(
            self.array, self.start, self.registers, self.ports,
            folds=folds, stays=stays, title=title, notes=notes,
        )  # fmt: skip


def view_of(
    config: ArrayConfig,
    cycle: int,
    registers: Mapping[str, np.ndarray],
    ports: Mapping[str, np.ndarray],
    *,
    folds: Sequence[Any] | None = None,
    stays: Sequence[Stay] | None = None,
    more: int = 1,
    **options: Any,
) -> View:
    """Return registers and the port values that follow, and `more` edges of idle ports, as a view."""
    cycles = len(next(iter(ports.values()), ())) + more
    if folds is not None:
        stays = stays_of(config, folds, cycle, cycle + cycles)
    elif stays is None:
        stays = stays_between(config, cycle, ports)
    described = describe_array(
        config, cycle=cycle, cycles=cycles, registers=registers, ports=ports, stays=stays, **options
    )
    return View(described)


def arrived(config: ArrayConfig, registers: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return values on the ports at an edge that explain the registers after it.

    They are those that were there but for those that no register took, which are zeros.
    """
    dataflow = config.dataflow_record
    ports = {}
    for port in dataflow.ports:
        values = registers[port.feeds]
        ports[port.name] = values[:, 0] if port.side == "west" else values[0]
    if dataflow.held:
        ports["out"] = np.where(registers["drain"][0] & ~registers["swap"][0], ports["out"], 0)
    else:
        ports["weight"] = np.where(registers["shift"][0], ports["weight"], ports["weight"].dtype.type(0))
        ports["psum"] = _above(config, registers)
    return {name: values.astype(config.port_dtypes[name]) for name, values in ports.items()}


def _above(config: ArrayConfig, registers: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return sums that arrived at the first row: what is there less the product."""
    numbers = config.format
    sums = registers["psum"][0]
    if numbers.is_float:  # nothing but zeros arrives in a product
        return np.zeros_like(sums)
    sums = as_numbers(sums) - as_numbers(registers["weight"][0]) * as_numbers(registers["activation"][0])
    if numbers.saturates:
        return np.clip(sums, *numbers.sum_limits).astype(numbers.sum)
    sums = sums.astype(numbers.sum)
    numbers.narrow(sums)
    return sums


def changes_of(
    config: ArrayConfig, edges: Sequence[Edge], ports: Mapping[str, np.ndarray]
) -> dict[int, list[Correction]]:
    """Return where recorded registers differ from what an edge makes of those before, by cycle.

    Parameters
    ----------
    config : ArrayConfig
    edges : sequence of Edge
        The first gives the registers at the beginning.
    ports : mapping of str to ndarray
        A line for each edge but the first.
    """
    dataflow, numbers = config.dataflow_record, config.format
    found: dict[int, list[Correction]] = {}
    bottom = np.empty((1, config.cols), numbers.sum)
    for i, ((_, before), (cycle, after)) in enumerate(pairwise(edges)):
        clocked = {name: np.array(values, order="C") for name, values in before.items()}
        line = {name: np.ascontiguousarray(values[i : i + 1]) for name, values in ports.items()}
        dataflow.kernels[numbers.kernel](clocked, line, bottom, 1, numbers)
        changes = [
            (name, int(place), _json(as_numbers(after[name]).flat[place].item()))
            for name, values in clocked.items()
            for place in np.flatnonzero(differ(as_numbers(values), as_numbers(after[name])))
        ]
        if changes:
            found[cycle] = changes
    return found


def _json(value: float) -> float | str:
    # The page makes a number of a text that names one.
    return value if np.isfinite(value) else str(value).replace("inf", "Infinity").replace("nan", "NaN")


def stays_between(config: ArrayConfig, cycle: int, ports: Mapping[str, np.ndarray]) -> list[Stay]:
    """Return a stay from each swap at PE (0, 0) to the next, or to the last activation that is not 0."""
    dataflow, rows, cols = config.dataflow_record, config.rows, config.cols
    swaps = np.flatnonzero(ports["swap"][:, 0]).tolist()
    # Row r is fed r cycles late.
    times, fed = np.nonzero(as_numbers(ports["activation"]))
    ends = [*swaps[1:], int((times - fed).max(initial=-1)) + 1]
    stays: list[Stay] = []
    for begin, end in zip(swaps, ends[-len(swaps) :] if swaps else [], strict=True):
        if dataflow.held and end <= begin:
            continue  # it only ends a fold
        start, lines = cycle + begin, max(end - begin, 1)
        m, k, n = (rows, lines, cols) if dataflow.held else (lines, rows, cols)
        if dataflow.exchanged:
            m, n = n, m
        leaves = start + lines if dataflow.held else start
        stays.append(Stay(None, start, lines, leaves, (0, m), (0, k), (0, n), output=len(stays)))
    return stays


def stacked(lines: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return port values of edges as one array for each port."""
    return {name: np.stack([line[name] for line in lines]) for name in lines[0]} if lines else {}


def trace_view(
    config: ArrayConfig, edges: Sequence[Edge], folds: Sequence[Any] | None, title: str
) -> View:
    """Return the recorded edges of a trace as a view."""
    first, last = edges[0][0], edges[-1][0]
    if [cycle for cycle, _ in edges] != list(range(first, last + 1)):
        raise ValueError(
            "the viewer shows edges that follow each other, but of those of cycles "
            f"{first} to {last} only {len(edges)} were recorded"
        )
    lines = stacked([arrived(config, registers) for _, registers in edges])
    stays = stays_between(config, first, lines) if folds is None else None
    # The registers before the first edge are not known: the page begins with those after it.
    ports = {name: values[1:] for name, values in lines.items()}
    return view_of(
        config, first + 1, edges[0][1], ports,
        folds=folds, stays=stays, more=0, changes=changes_of(config, edges, ports), title=title,
    )  # fmt: skip
