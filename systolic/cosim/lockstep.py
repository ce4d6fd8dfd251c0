"""The emulator edge by edge beside RTL whose registers come at other times than its own."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import numpy as np

from systolic import _check
from systolic.array import Registers, State, SystolicArray
from systolic.config import ArrayConfig
from systolic.cosim.report import ScoreboardError
from systolic.cosim.signals import SignalMap
from systolic.formats import as_numbers, differ


class Values(NamedTuple):
    """What the RTL held in a register of all PEs after its last edge.

    Attributes
    ----------
    name : str
    got : ndarray of int64 or float64, (rows, cols)
    known : ndarray of bool, (rows, cols)
        False where the simulator has X or Z.
    valid : ndarray of bool, (rows, cols), or None
        Where the register is valid; None: everywhere.
    edge : int
        Number of the RTL's edge; filled in when it waits for the emulator.
    """

    name: str
    got: np.ndarray
    known: np.ndarray
    valid: np.ndarray | None = None
    edge: int = -1


def unequal(values: Values, expected: np.ndarray, due: np.ndarray, cycle: int) -> ScoreboardError | None:
    """Return the error of values that differ where they are due, the most upstream one named."""
    wrong = np.argwhere(due & (~values.known | differ(values.got, expected)))
    if not len(wrong):
        return None
    row, col = min(wrong.tolist(), key=sum)
    got = values.got[row, col].item() if values.known[row, col] else "X"
    return ScoreboardError(values.name, row, col, cycle, got, expected[row, col].item(), len(wrong))


class Lockstep:
    """An emulated array that is driven as the RTL is, and values of the RTL that wait for it.

    The register of PE (r, c) that the emulator holds after edge e is the RTL's after edge
    ``e + latency + r * (hop[0] - 1) + c * (hop[1] - 1)``; its ports have their values ``lane * (hop - 1)``
    edges later. With hops of 2 the emulator is behind the RTL, with hops of 0 values of the RTL wait.

    Parameters
    ----------
    array : SystolicArray
        At the start.
    map : SignalMap
    """

    def __init__(self, array: SystolicArray, map: SignalMap) -> None:
        self.array, self.map = array, map
        self.config: ArrayConfig = array.config
        self.edges = 0
        """Edges of the RTL."""
        self._start: State = array.state()
        rows, cols = self.config.rows, self.config.cols
        # The last lane of a port is driven so many edges after the emulator's.
        self._lag = max(0, (rows - 1) * (map.hop[0] - 1), (cols - 1) * (map.hop[1] - 1))
        r, c = np.indices((rows, cols))
        self._later = r * (map.hop[0] - 1) + c * (map.hop[1] - 1)
        # Registers after the emulator's edges _oldest, _oldest + 1, ...; -1 is the start.
        self._history: deque[Registers] = deque([array.registers])
        self._oldest = -1
        self._driven: deque[dict[str, np.ndarray]] = deque()
        self._first_driven = 0
        self._waiting: list[Values] = []
        self._held: dict[str, np.ndarray] = {}
        self._reach = max(0, *map.latencies) + max(0, int(self._later.max()))

    @property
    def waits(self) -> bool:
        """Whether values of the RTL wait for beats of the emulator."""
        return bool(self._waiting)

    def edge(self, ports: dict[str, Any]) -> int:
        """Do one edge of the RTL with its port values; return how many values were compared."""
        self._driven.append(self._checked(ports))
        self.edges += 1
        while self.edges - self._lag > self._done + 1:
            self._step()
        return self.compare([])

    def finish(self) -> int:
        """Clock the emulator with idle ports until nothing waits; return how many values were compared."""
        compared = 0
        while self._waiting:
            self._step()
            compared += self.compare([])
        return compared

    def compare(self, values: list[Values]) -> int:
        """Compare values of the RTL's last edge, and those before that the emulator has come to.

        Returns
        -------
        int
            How many values were compared.

        Raises
        ------
        ScoreboardError
            If one differs. Others that were ready are dropped.
        """
        waiting = self._waiting + [each._replace(edge=self.edges - 1) for each in values]
        ready: list[tuple[Values, np.ndarray]] = []
        later: list[tuple[Values, np.ndarray]] = []
        for each in waiting:
            at = each.edge - self._latency(each.name) - self._later
            (ready if at.max() <= self._done and not later else later).append((each, at))
        self._waiting = [each for each, _ in later]
        compared = 0
        for each, at in ready:
            expected = self._expected(each.name, at)
            due = np.ones(expected.shape, bool) if each.valid is None else each.valid
            if each.valid is not None and self.keeps(each.name):
                start = as_numbers(self._start.registers[each.name])
                expected = np.where(due, expected, self._held.get(each.name, start))
                self._held[each.name] = expected
                due = np.ones(expected.shape, bool)
            error = unequal(each, expected, due, self._start.cycle + each.edge)
            if error is not None:
                raise error
            compared += int(np.count_nonzero(due))
        self._forget()
        return compared

    def keeps(self, name: str) -> bool:
        """Whether the RTL's register keeps its value while it is not valid."""
        return self.map.held_psums and self.config.dataflow_record.register_of("sum").name == name

    @property
    def _done(self) -> int:
        return self._oldest + len(self._history) - 1

    def _latency(self, name: str) -> int:
        latency = self.map.signal(name).latency if name in self.map.signals else self.map.latency
        return latency or 0

    def _expected(self, name: str, at: np.ndarray) -> np.ndarray:
        """Return a register with each PE as after another edge."""
        at = np.maximum(at, -1)
        first, last = int(at.min()), int(at.max())
        kept = [self._history[edge - self._oldest][name] for edge in range(first, last + 1)]
        r, c = np.indices(at.shape)
        return as_numbers(np.stack(kept))[at - first, r, c]

    def _forget(self) -> None:
        """Drop what no later comparison asks for."""
        oldest = self._waiting[0].edge if self._waiting else self.edges - 1
        while self._oldest < min(oldest - self._reach, self._done):
            self._history.popleft()
            self._oldest += 1
        while self._first_driven < self._done - self.config.rows - self.config.cols and self._driven:
            self._driven.popleft()
            self._first_driven += 1

    def _checked(self, ports: dict[str, Any]) -> dict[str, np.ndarray]:
        config, found = self.config, {}
        feeds = {port.name: port for port in config.dataflow_record.ports}
        for name, value in ports.items():
            if name not in feeds:
                raise TypeError(f"edge() has no port {name!r}; the ports are {', '.join(feeds)}")
            size = config.rows if feeds[name].side == "west" else config.cols
            limits = config.register_limits.get(feeds[name].feeds)
            values = _check.numbers(value, name, config.port_dtypes[name], limits)
            if values.ndim > 1 or (values.ndim == 1 and values.shape != (size,)):
                raise ValueError(
                    f"{name} must be a scalar or have shape ({size},), not {_check.shape(values.shape)}"
                )
            found[name] = np.array(np.broadcast_to(values, (size,)))
        return found

    def _step(self) -> None:
        """Clock the emulator, with each lane of its ports from the edge at which the RTL had that value."""
        edge, given = self._done + 1, {}
        for port in self.config.dataflow_record.ports:
            size = self.config.rows if port.side == "west" else self.config.cols
            hop = self.map.hop[port.side == "north"]
            values = np.zeros(size, self.config.port_dtypes[port.name])
            for lane in range(size):
                at = edge + lane * (hop - 1) - self._first_driven
                if 0 <= at < len(self._driven) and port.name in self._driven[at]:
                    values[lane] = self._driven[at][port.name][lane]
            given[port.name] = values
        self.array.step(**given)
        self._history.append(self.array.registers)
