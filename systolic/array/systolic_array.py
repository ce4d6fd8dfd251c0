"""The array as its users hold it: queue tiles and rows, or drive the ports by hand, and clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import starmap
from typing import Any, NamedTuple

import numpy as np

from systolic import _check, _core, _hints
from systolic._show.progress import shown
from systolic.array.schedule import Ports, port_window, skewed
from systolic.array.state import (
    QueuedStream,
    QueuedTile,
    Queues,
    Registers,
    Rows,
    Sink,
    State,
    no_psums,
)
from systolic.array.workspace import workspace
from systolic.config import REGISTERS, ArrayConfig, as_array_config
from systolic.gemm import operand_name
from systolic.threads import thread_count
from systolic.trace.recording import Edges, Trace, as_trace

# Work between two looks at Ctrl-C and at the progress bar: some tens of milliseconds. What is
# kept of a chunk's port values and psums grows with its cycles and with the array's edges.
_CHUNK_PE_CYCLES = 1 << 28
_CHUNK_CYCLES = 1 << 14
_CHUNK_PORT_CYCLES = 1 << 26


class Difference(NamedTuple):
    """A register that differs between two states: its value here and in the other."""

    register: str
    row: int
    col: int
    here: int
    other: int


class SystolicArray:
    """A weight-stationary systolic array, emulated register by register and cycle by cycle.

    Parameters
    ----------
    config : ArrayConfig
        Size and operand types; default 256 x 256, int8.
    trace : bool or Trace, optional
        Records registers as the array is clocked; True records all of them.

    Notes
    -----
    At every clock edge, everywhere at once, from the values before it: activations and control
    bits move right, psums and passed weights move down; a PE multiplies the arriving activation
    with its weight (the shadow weight if a swap arrives) and adds the arriving psum. The first
    page of ``systolic/_core.pyx`` states the five rules. Row r's west port runs r cycles late,
    column c's north port c cycles late; :meth:`shift`, :meth:`swap`, :meth:`stream` and
    :meth:`fold` do that, :meth:`step` takes port values as they are.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import ArrayConfig, SystolicArray
    >>> x = np.array([[1, 2], [3, 4], [-5, 6]], dtype=np.int8)
    >>> w = np.array([[7, -8, 9], [10, 11, -12]], dtype=np.int8)
    >>> array = SystolicArray(ArrayConfig(rows=2, cols=3))
    >>> array.fold(w, x).run().cycle
    8
    >>> array.outputs[0]
    array([[  27,   14,  -15],
           [  61,   20,  -21],
           [  25,  106, -117]], dtype=int32)
    """

    def __init__(self, config: ArrayConfig | None = None, *, trace: bool | Trace | None = None) -> None:
        self._config = ArrayConfig() if config is None else as_array_config(config, "config")
        self._state = State.idle(self._config)
        self._trace = as_trace(trace)
        if self._trace is not None:
            self._trace.attach(self._config)

    # What stands

    @property
    def config(self) -> ArrayConfig:
        """The array's configuration."""
        return self._config

    @property
    def cycle(self) -> int:
        """Clock edges done since reset."""
        return self._state.cycle

    @property
    def registers(self) -> Registers:
        """The registers' values now, (rows, cols) each; later steps do not change them."""
        return self._state.registers

    @property
    def outputs(self) -> list[np.ndarray]:
        """The psums of each finished stream, (m, cols) int32, read-only, in the order queued."""
        return list(self._queues.outputs)

    @property
    def trace(self) -> Trace | None:
        """What is recorded, or None."""
        return self._trace

    @property
    def _queues(self) -> Queues:
        queues = self._state.queues
        assert queues is not None  # State.idle and State.checked fill it in
        return queues

    def state(self) -> State:
        """Return all that determines the future: registers, cycle, queues. It can be pickled."""
        return self._state

    def restore(self, state: State) -> SystolicArray:
        """Continue from `state`.

        Raises
        ------
        TypeError, ValueError
            If a register has the wrong type or is not (rows, cols); the array is unchanged.
        """
        if not isinstance(state, State):
            raise TypeError(f"restore takes a State, as state() returns it, not {type(state).__name__}")
        state = state.checked(self._config)
        self._commit(state, None if self._trace is None else self._trace.without(state.cycle))
        return self

    def reset(self) -> SystolicArray:
        """Set registers and cycle to 0 and forget what is queued, the outputs and the trace."""
        self._commit(State.idle(self._config), None if self._trace is None else self._trace.without(0))
        return self

    # Queueing

    def shift(self, w: Any) -> SystolicArray:
        """Queue a weight tile to be shifted into the shadow registers; `rows` beats.

        Parameters
        ----------
        w : array_like of the weight type, (k, n)
            At most (rows, cols); PEs beyond it get zero weights.

        Raises
        ------
        TypeError, ValueError
            If w has another type, is empty or is larger than the array; or if a swap still
            waits for its row: stream that first.
        """
        self._state = replace(self._state, queues=self._shifted(self._queues, self._tile(w)))
        return self

    def swap(self) -> SystolicArray:
        """Queue a swap: the next streamed row multiplies with the tile shifted in last.

        Raises
        ------
        ValueError
            If no tile was shifted in since the last swap.
        """
        self._state = replace(self._state, queues=self._swapped(self._queues))
        return self

    def stream(self, x: Any) -> SystolicArray:
        """Queue rows of x, one per cycle.

        Parameters
        ----------
        x : array_like of the activation type, (m, k)
            m at least 1, k at most `rows`; rows of the array beyond k get zeros.

        Raises
        ------
        TypeError, ValueError
            If x has another type, no row, or more columns than the array has rows.
        """
        self._state = replace(self._state, queues=self._streamed(self._queues, self._moving(x)))
        return self

    def fold(self, w: Any, x: Any) -> SystolicArray:
        """Queue a whole fold: shift the tile w in, swap, stream the rows of x.

        Parameters
        ----------
        w : array_like of the weight type, (k, n)
        x : array_like of the activation type, (m, k)

        Raises
        ------
        TypeError, ValueError
            As :meth:`shift` and :meth:`stream`, and if x and w differ in k; nothing is queued.
        """
        tile, rows = self._tile(w), self._moving(x)
        if tile.shape[0] != rows.shape[1]:
            raise ValueError(
                f"x and w must share k, but x is {_check.shape(rows.shape)} "
                f"and w is {_check.shape(tile.shape)}{_hints.other_product(rows.shape, tile.shape)}"
            )
        queues = self._swapped(self._shifted(self._queues, tile))
        self._state = replace(self._state, queues=self._streamed(queues, rows))
        return self

    def _queue_fold(self, w: np.ndarray, x: Rows, sink: Sink) -> tuple[int, int]:
        # For the machine: operands are checked, x may be lowered as it is read, and psums go to
        # `sink`. Returns when the shift and the swap are due.
        queues = self._swapped(self._shifted(self._queues, w))
        self._state = replace(self._state, queues=self._streamed(queues, x, sink))
        return self._queues.tiles[-1].start, self._queues.swap_at

    def _tile(self, w: Any) -> np.ndarray:
        tile = _check.operand(w, "w", ndim=2, axes="(k, n)")
        self._check_type(tile, "w", self._config.weight_dtype, "weight_dtype")
        rows, cols = self._config.rows, self._config.cols
        if tile.shape[0] > rows or tile.shape[1] > cols:
            raise ValueError(
                f"w is {_check.shape(tile.shape)}, larger than the array's {rows} x {cols}; "
                "systolic.matmul cuts a larger product into folds"
            )
        if 0 in tile.shape:
            raise ValueError(f"w must hold at least one weight, but is {_check.shape(tile.shape)}")
        return tile.copy()

    def _moving(self, x: Any) -> np.ndarray:
        moving = _check.operand(x, "x", ndim=2, axes="(m, k)")
        self._check_type(moving, "x", self._config.activation_dtype, "activation_dtype")
        if moving.shape[1] > self._config.rows:
            raise ValueError(
                f"x is {_check.shape(moving.shape)}: k is larger than the array's {self._config.rows} rows; "
                "systolic.matmul cuts a larger product into folds"
            )
        if moving.shape[0] == 0:
            raise ValueError(f"x must have at least one row, but is {_check.shape(moving.shape)}")
        return moving.copy()

    @staticmethod
    def _check_type(values: np.ndarray, name: str, dtype: str, field: str) -> None:
        if operand_name(values) != dtype:
            raise TypeError(
                f"{name} must hold {dtype}, as the array's config says, not {values.dtype}; "
                f"make the array with ArrayConfig({field}={values.dtype.name!r})"
            )

    def _shifted(self, queues: Queues, tile: np.ndarray) -> Queues:
        if queues.swap_waiting:
            raise ValueError("a swap waits for its first row of x: call stream(x) before the next shift(w)")
        start = max(self.cycle, queues.swap_at, queues.shift_stop)
        if not self._config.double_buffered:
            start = max(start, self._drained_at(queues))
        queued = QueuedTile(start, tile)
        return replace(
            queues, tiles=(*queues.tiles, queued), shift_stop=start + self._config.rows, loaded=True
        )

    @staticmethod
    def _swapped(queues: Queues) -> Queues:
        if not queues.loaded:
            raise ValueError("no weights were shifted in since the last swap: call shift(w) first")
        return replace(queues, swap_waiting=True, loaded=False)

    def _streamed(self, queues: Queues, x: Rows, sink: Sink | None = None) -> Queues:
        start = max(self.cycle, queues.stream_stop)
        if queues.swap_waiting:
            start = max(start, queues.shift_stop)
            queues = replace(queues, swap_at=start, swap_waiting=False)
            queued = QueuedStream(start, x, True, sink=sink)
        else:
            queued = QueuedStream(start, x, False, sink=sink)
        return replace(queues, streams=(*queues.streams, queued), stream_stop=queued.stop)

    def _drained_at(self, queues: Queues) -> int:
        # The cycle at which the last queued beat has left the last PE.
        beats = [tile.start + self._config.rows for tile in queues.tiles]
        beats += [stream.stop for stream in queues.streams]
        if not beats:
            return self.cycle
        return max(self.cycle, max(beats) + self._config.rows + self._config.cols - 2)

    # Clocking

    def step(
        self, *, activation: Any = 0, shift: Any = 0, swap: Any = 0, weight: Any = 0, psum: Any = 0
    ) -> SystolicArray:
        """Do one clock edge with these values on the ports, as they are: already skewed.

        Parameters
        ----------
        activation : array_like of int, (rows,) or scalar
            West ports, within the activation type.
        shift, swap : array_like of bool or 0/1, (rows,) or scalar
            West control ports.
        weight : array_like of int, (cols,) or scalar
            North weight ports, within the weight type.
        psum : array_like of int, (cols,) or scalar
            North psum ports, int32.

        Raises
        ------
        TypeError, ValueError
            If a value does not fit its port; or if queued values still have to pass the ports:
            run() first.
        """
        rows, cols = self._config.rows, self._config.cols
        ports = Ports(
            self._port(activation, "activation", rows, self._config.activation_dtype),
            self._port(shift, "shift", rows, "bool"),
            self._port(swap, "swap", rows, "bool"),
            self._port(weight, "weight", cols, self._config.weight_dtype),
            self._port(psum, "psum", cols, "int32"),
        )
        due = [tile.start + rows + max(rows, cols) - 1 for tile in self._queues.tiles]
        due += [stream.stop + rows - 1 for stream in self._queues.streams]
        if due and max(due) > self.cycle:
            raise ValueError(
                f"step() drives the ports by hand, but queued values stand on them until cycle {max(due)}; "
                "call run() first, or reset()"
            )
        if self._trace is not None:
            self._trace.reserve(self.cycle, self.cycle + 1)
        self._clock(1, 1, ports)
        return self

    @staticmethod
    def _port(value: Any, name: str, length: int, dtype: str) -> np.ndarray:
        values = _check.integers(value, name, dtype)
        if values.ndim > 1 or (values.ndim == 1 and values.shape != (length,)):
            raise ValueError(
                f"{name} must be a scalar or have shape ({length},), not {_check.shape(values.shape)}"
            )
        return np.broadcast_to(values, (1, length))

    def run(
        self,
        cycles: int | None = None,
        *,
        until: int | Callable[[SystolicArray], bool] | None = None,
        threads: int | None = None,
        progress: bool | Callable[[int, int], None] | None = None,
    ) -> SystolicArray:
        """Clock the array.

        Parameters
        ----------
        cycles : int, optional
            How many edges; None: until all that is queued has drained.
        until : int or callable, optional
            Instead of `cycles`: run up to this cycle; or edge by edge until ``until(array)`` is
            true, at most until all has drained.
        threads : int, optional
            Threads to use; None: see :func:`systolic.set_threads`. Results do not depend on it.
        progress : bool or callable, optional
            True shows a bar; a callable gets (cycles done, cycles in all).

        Notes
        -----
        An interrupt (Ctrl-C) leaves the array between two edges: it can be run on.
        """
        if cycles is not None and until is not None:
            raise ValueError("run takes either cycles or until, not both")
        condition = until if callable(until) else None
        if cycles is not None:
            count = _check.integer(cycles, "cycles", minimum=0)
        elif until is not None and condition is None:
            count = _check.integer(until, "until", minimum=0) - self.cycle
            if count < 0:
                raise ValueError(
                    f"until must be cycle {self.cycle} or later, not {until}; reset() goes back to 0"
                )
        else:
            count = self._drained_at(self._queues) - self.cycle
        if self._trace is not None:
            self._trace.reserve(self.cycle, self.cycle + count)
        workers = thread_count(threads)
        rows, cols = self._config.rows, self._config.cols
        most = min(_CHUNK_CYCLES, _CHUNK_PE_CYCLES // (rows * cols), _CHUNK_PORT_CYCLES // (rows + cols))
        chunk = max(1, most) if condition is None else 1
        done = 0
        with shown(progress, "cycles") as report:
            while done < count and not (condition is not None and condition(self)):
                done += self._clock(min(chunk, count - done), workers)
                if report is not None:
                    report(done, count)
        return self

    def _clock(self, cycles: int, workers: int, ports: Ports | None = None) -> int:
        # Clock at most so many cycles, and fewer up to an edge that the trace wants; return how many.
        record = False
        if self._trace is not None:
            stop, record = self._trace.next_stop(self.cycle, self.cycle + cycles)
            cycles = stop - self.cycle
            ports = None if ports is None else Ports(*(values[:cycles] for values in ports))
        state = self._advanced(cycles, workers, ports)
        edges = None
        if record and self._trace is not None:
            edges = self._trace.recorded(state.cycle - 1, state.registers)
        self._commit(state, edges)
        return cycles

    def _commit(self, state: State, edges: Edges | None) -> None:
        # Interrupts come between bytecodes. A single one makes both assignments, so that state and trace are
        # either both old or both new.
        assignments: list[tuple[Any, str, Any]] = [(self, "_state", state)]
        if edges is not None:
            assignments.append((self._trace, "_edges", edges))
        tuple(starmap(setattr, assignments))

    def _advanced(self, cycles: int, workers: int, ports: Ports | None) -> State:
        # Work on copies; _commit assigns them.
        config, old, queues = self._config, self._state, self._queues
        cols = config.cols
        with workspace() as memory:
            if ports is None:
                ports = port_window(queues, config, old.cycle, cycles, memory)
            arrays: dict[str, Any] = {name: getattr(old, name).copy() for name in REGISTERS}
            # A psum leaves column c's bottom PE c cycles late: written through a skewed view, what
            # belongs to one row of x stands in one row of `below`. Outputs are views of it.
            keep = any(stream.sink is None for stream in queues.streams)
            shape = (cycles + cols - 1, cols)
            below = np.empty(shape, np.int32) if keep else memory.empty("below", shape, np.int32)
            _copy(below[: cols - 1], queues.below)
            below[max(cycles, cols - 1) :] = 0  # what is not yet due
            _clock_columns(arrays, ports, skewed(below, cycles, cols), workers)
            first = old.cycle - (config.rows - 1) - (cols - 1)
            queues = self._collected(queues, first, below[:cycles], old.cycle + cycles)
            # Nobody asks for psums of no stream.
            kept = no_psums(cols)
            if queues.streams:
                kept = np.empty((cols - 1, cols), np.int32)
                _copy(kept, below[cycles:])
            queues = replace(queues, below=kept)
        for values in arrays.values():
            values.flags.writeable = False
        return State(**arrays, cycle=old.cycle + cycles, queues=queues)

    def _collected(self, queues: Queues, first: int, psums: np.ndarray, now: int) -> Queues:
        # `psums` holds what the rows of local times first.. left in all columns.
        streams: list[QueuedStream] = []
        outputs = queues.outputs
        last = first + len(psums)
        for stream in queues.streams:
            start, stop = max(stream.start, first), min(stream.stop, last)
            if start < stop:
                rows = psums[start - first : stop - first]
                if stream.sink is not None:
                    stream.sink(start - stream.start, rows)
                else:
                    # A view keeps all of a chunk's psums; a few rows are better off without them.
                    kept = rows if 2 * len(rows) > len(psums) + self._config.cols else rows.copy()
                    stream = replace(stream, done=(*stream.done, kept))
            if stream.stop <= last:
                if stream.sink is None:
                    output = stream.done[0] if len(stream.done) == 1 else np.concatenate(stream.done)
                    output.flags.writeable = False
                    outputs = (*outputs, output)
            else:
                streams.append(stream)
        # A tile is kept until its last beat has left the last PE.
        horizon = 2 * self._config.rows + self._config.cols - 2
        tiles = tuple(tile for tile in queues.tiles if tile.start + horizon > now)
        return replace(queues, tiles=tiles, streams=tuple(streams), outputs=outputs)

    # Looking at it

    def diff(self, other: State | SystolicArray) -> list[Difference]:
        """Return where the registers differ from another state's or array's; empty if they agree.

        Raises
        ------
        TypeError, ValueError
            If `other` is neither, or of another size.

        Examples
        --------
        >>> from systolic import ArrayConfig, SystolicArray
        >>> array = SystolicArray(ArrayConfig(2, 2))
        >>> before = array.state()
        >>> array.step(activation=[5, 0]).diff(before)
        [Difference(register='activation', row=0, col=0, here=5, other=0)]
        """
        state = other.state() if isinstance(other, SystolicArray) else other
        if not isinstance(state, State):
            raise TypeError(f"diff takes a State or a SystolicArray, not {type(other).__name__}")
        found = []
        theirs = state.checked(self._config).registers
        for name, here in self.registers.items():
            for row, col in np.argwhere(here != theirs[name]).tolist():
                found.append(Difference(name, row, col, int(here[row, col]), int(theirs[name][row, col])))
        return found

    def plot(self, **options: Any) -> Any:
        """Draw the registers of a small array at its current cycle; returns a matplotlib Figure.

        Needs ``pip install "systolic[plot]"``. Options are those of
        ``systolic._show.draw.plot_registers``.
        """
        from systolic._show.draw import plot_registers

        return plot_registers(self.registers, cycle=self.cycle, **options)

    def _summary(self) -> list[tuple[str, str]]:
        config, queues = self._config, self._queues
        waiting = len(queues.streams)
        return [
            ("size", f"{config.rows} x {config.cols} PEs"),
            ("operands", f"{config.activation_dtype} activations, {config.weight_dtype} weights"),
            ("cycle", f"{self.cycle:,}"),
            ("streams", f"{waiting} under way, {len(queues.outputs)} finished"),
            ("drained at", f"cycle {self._drained_at(queues):,}"),
        ]

    def __repr__(self) -> str:
        queues = self._queues
        return (
            f"<SystolicArray {self._config.rows} x {self._config.cols}, cycle {self.cycle}, "
            f"{len(queues.streams)} streams under way, {len(queues.outputs)} finished>"
        )

    def _repr_html_(self) -> str:
        from systolic._show.table import card

        return card("SystolicArray", self._summary())


def _copy(target: np.ndarray, source: np.ndarray) -> None:
    """Copy a matrix in parts: it takes gigabytes below a wide array, and Ctrl-C waits for one part only."""
    rows = max(1, _COPIED // max(source.shape[1], 1))
    for first in range(0, len(source), rows):
        target[first : first + rows] = source[first : first + rows]


# Elements copied between two checks for Ctrl-C.
_COPIED = 1 << 23


def _clock_columns(arrays: dict[str, np.ndarray], ports: Ports, bottom: np.ndarray, workers: int) -> None:
    """Clock the registers in `arrays`, in place, threads sharing the columns."""
    weight, next_weight, weight_pass, activation, shift, swap = (_bytes(arrays[name]) for name in _BYTES)
    west_activation, west_shift, west_swap = map(_bytes, (ports.activation, ports.shift, ports.swap))
    _core.run(
        weight, next_weight, weight_pass, activation, arrays["psum"], shift, swap,
        west_activation, west_shift, west_swap, _bytes(ports.weight), ports.psum, bottom,
        activation_signed=arrays["activation"].dtype.char == "b",
        weight_signed=arrays["weight"].dtype.char == "b",
        threads=workers if len(west_activation) * weight.size >= _WORTH_A_THREAD else 1,
    )  # fmt: skip


# Registers that the kernel sees as bytes.
_BYTES = ("weight", "next_weight", "weight_pass", "activation", "shift", "swap")

# Below this many PE-cycles, other threads cost more than they save.
_WORTH_A_THREAD = 1 << 21


def _bytes(values: np.ndarray) -> np.ndarray:
    return values.view(np.uint8)
