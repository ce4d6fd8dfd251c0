"""``SystolicArray``: queue tiles and rows or drive the ports by hand; clock, save and restore it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from itertools import starmap
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from systolic import _check, _hints
from systolic._show.progress import shown
from systolic._text import moment
from systolic.array.advance import Assignment, advanced
from systolic.array.arguments import (
    ANY_SIZE,
    in_old_order,
    largest_fold,
    port_lines,
    port_values,
    require_moving_sums,
    rows_of,
    tile_of,
    type_of,
)
from systolic.array.queues import Queues, Rows, Sink
from systolic.array.skew import Ports, idle_ports
from systolic.array.state import Registers, State
from systolic.config import ArrayConfig, as_array_config
from systolic.formats import as_numbers, differ
from systolic.threads import thread_count
from systolic.trace.probe import Change, Probe, changed, next_stops
from systolic.trace.recording import Trace, probes_of, trace_among

if TYPE_CHECKING:
    from systolic.viewer import View

# Work between two checks for Ctrl-C and for progress: some tens of milliseconds. The memory for
# a burst's port values and psums grows with its cycles and with the array's edges.
_BURST_PE_CYCLES = 1 << 28
_BURST_CYCLES = 1 << 14
_BURST_PORT_CYCLES = 1 << 26

# Below this many PE-cycles, other threads cost more than they save.
_WORTH_A_THREAD = 1 << 21


class Difference(NamedTuple):
    """A register that differs between two states: its value here and in the other."""

    register: str
    row: int
    col: int
    here: int | float
    other: int | float


class SystolicArray:
    """A systolic array, emulated register by register and cycle by cycle.

    Parameters
    ----------
    config : ArrayConfig
        Size, dataflow and operand types; default 256 x 256, weight stationary, int8.
    trace : bool or Trace, optional
        Records registers as the array is clocked; True records all of them.
    probe : Probe or sequence of Probe, optional
        Look at the registers between edges or change them, in this order; a `trace` comes last.

    Notes
    -----
    At every clock edge, everywhere at once, from the values before it: activations and control
    bits move right. Weight stationary, psums and passed weights move down; a PE multiplies the arriving
    activation with its weight (the shadow weight if a swap arrives) and adds the arriving psum. Output
    stationary, weights and finished sums move down; a PE adds the product of what arrives to its sum. The
    rules are ``config.dataflow_record.rules``. Row r's west port runs r cycles late, column c's north port
    c cycles late; :meth:`fold` and, weight stationary, :meth:`shift`, :meth:`swap` and :meth:`stream` do
    that, :meth:`step` and :meth:`clock` take port values as they are.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import ArrayConfig, SystolicArray
    >>> x = np.array([[1, 2], [3, 4], [-5, 6]], dtype=np.int8)
    >>> w = np.array([[7, -8, 9], [10, 11, -12]], dtype=np.int8)
    >>> array = SystolicArray(ArrayConfig(rows=2, cols=3))
    >>> array.fold(x=x, w=w).run().cycle
    8
    >>> array.outputs[0]
    array([[  27,   14,  -15],
           [  61,   20,  -21],
           [  25,  106, -117]], dtype=int32)
    """

    def __init__(
        self,
        config: ArrayConfig | None = None,
        *,
        trace: bool | Trace | None = None,
        probe: Probe | Iterable[Probe] | None = None,
    ) -> None:
        self._config = ArrayConfig() if config is None else as_array_config(config, "config")
        self._state = State.idle(self._config)
        self._probes = probes_of(trace, probe)
        for each in self._probes:
            each.attach(self._config)

    # Its values now

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
        """The sums of each finished stream or fold, (m, cols) int32, read-only, in the order queued.

        Input stationary, they are transposed: (n, cols).
        """
        return list(self._queues.outputs)

    @property
    def trace(self) -> Trace | None:
        """The trace among its probes, the last one if there are several; None if there is none."""
        return trace_among(self._probes)

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
        self._rewind(state.checked(self._config))
        return self

    def reset(self) -> SystolicArray:
        """Set registers and cycle to 0; drop everything queued, the outputs and the trace."""
        self._rewind(State.idle(self._config))
        return self

    def _rewind(self, state: State) -> None:
        assignments: list[Assignment] = []
        for probe in self._probes:
            change = probe.rewound(state.cycle)
            if isinstance(change, Change) and change.registers:
                raise ValueError(f"{type(probe).__name__}.rewound may change the probe, but no registers")
            assignments += changed(change, probe, {}, "rewound")
        self._commit(state, assignments)

    # Queueing

    def shift(self, w: Any, *, not_before: int = 0) -> SystolicArray:
        """Queue a weight tile to be shifted into the shadow registers; `rows` beats.

        Parameters
        ----------
        w : array_like of the weight type, (k, n)
            At most (rows, cols); PEs beyond it get zero weights. Input stationary, x transposed, (k, m).
        not_before : int
            The first beat comes no earlier than this cycle (in local time: that of PE (0, 0)).

        Raises
        ------
        TypeError, ValueError
            If w has another type, is empty or is larger than the array; if `not_before` is no cycle; if
            a swap still waits for its row: stream that first; or if the array is output stationary.
        """
        require_moving_sums(self._config, "shift")
        config = self._config
        n = "m" if config.dataflow_record.exchanged else "n"
        tile = tile_of(w, type_of(config, "north operand"), {"k": config.rows, n: config.cols})
        first = _check.integer(not_before, "not_before", minimum=0)
        return self._enqueue(self._queues.shifted(config, self.cycle, tile, first))

    def swap(self, *, not_before: int = 0) -> SystolicArray:
        """Queue a swap: the next streamed row multiplies with the tile shifted in last.

        Parameters
        ----------
        not_before : int
            The swap, and with it that row, comes no earlier than this cycle.

        Raises
        ------
        TypeError, ValueError
            If no tile was shifted in since the last swap, `not_before` is no cycle, or the array is output
            stationary.
        """
        require_moving_sums(self._config, "swap")
        first = _check.integer(not_before, "not_before", minimum=0)
        return self._enqueue(self._queues.swapped(first))

    def stream(self, x: Any, *, not_before: int = 0) -> SystolicArray:
        """Queue rows of x, one per cycle.

        Parameters
        ----------
        x : array_like of the activation type, (m, k)
            m at least 1, k at most `rows`; rows of the array beyond k get zeros. Input stationary, w
            transposed, (n, k).
        not_before : int
            The first row comes no earlier than this cycle.

        Raises
        ------
        TypeError, ValueError
            If x has another type, no row, or more columns than the array has rows; if `not_before`
            is no cycle; or if the array is output stationary.
        """
        require_moving_sums(self._config, "stream")
        m = "n" if self._config.dataflow_record.exchanged else "m"
        most = {m: ANY_SIZE, "k": self._config.rows}
        rows = rows_of(x, type_of(self._config, "west operand"), most)
        first = _check.integer(not_before, "not_before", minimum=0)
        return self._enqueue(self._queues.streamed(self.cycle, rows, first))

    def fold(
        self, *old_order: Any, x: Any = None, w: Any = None, not_before: tuple[int, int] = (0, 0)
    ) -> SystolicArray:
        """Queue a whole fold.

        Weight stationary: shift the tile w in, swap, stream the rows of x. Output stationary: swap, stream
        the columns of x and the rows of w, swap again and drain the sums. Input stationary: shift the
        transpose of x in, swap, stream the columns of w; sums come out transposed, (n, m).

        Parameters
        ----------
        x : array_like of the activation type, (m, k)
            Output stationary, m at most `rows`; input stationary, at most (cols, rows).
        w : array_like of the weight type, (k, n)
            Weight stationary, at most (rows, cols); output stationary, n at most `cols`.
        *old_order
            Deprecated: w, then x, without their names.
        not_before : (int, int)
            Weight stationary, the shift and the swap come no earlier than these cycles. Output stationary,
            neither do the swap with the first operands and the swap that ends the fold.

        Raises
        ------
        TypeError, ValueError
            If x or w has another type, is empty or does not fit the array, if they differ in k, or if
            `not_before` is no pair of cycles; nothing is queued.

        Examples
        --------
        A fold that waits five cycles for its weights and two more for its activations:

        >>> import numpy as np
        >>> from systolic import ArrayConfig, SystolicArray
        >>> x, w = np.int8([[1, 2], [3, 4]]), np.int8([[5], [6]])
        >>> SystolicArray(ArrayConfig(2, 1)).fold(x=x, w=w).run().cycle
        5
        >>> SystolicArray(ArrayConfig(2, 1)).fold(x=x, w=w, not_before=(5, 5 + 2 + 2)).run().cycle
        12
        """
        if old_order:
            x, w = in_old_order(old_order, x, w)
        if x is None or w is None:
            raise TypeError("fold takes both x and w: write fold(x=x, w=w)")
        config = self._config
        m, k, n = largest_fold(config)
        tile = tile_of(w, (config.weight_dtype, "weight_dtype"), {"k": k, "n": n})
        rows = rows_of(x, (config.activation_dtype, "activation_dtype"), {"m": m, "k": k})
        if tile.shape[0] != rows.shape[1]:
            raise ValueError(
                f"x and w must share k, but x is {_check.shape(rows.shape)} "
                f"and w is {_check.shape(tile.shape)}{_hints.other_product(rows.shape, tile.shape)}"
            )
        north, lines = config.dataflow_record.operands(rows, tile)
        if not isinstance(not_before, tuple) or len(not_before) != 2:
            raise TypeError(f"not_before must be the cycles (shift, swap), not {_check.kind(not_before)}")
        names = ("not_before: shift", "not_before: swap")
        times = [_check.integer(t, name, minimum=0) for t, name in zip(not_before, names, strict=True)]
        return self._enqueue(self._queues.folded(config, self.cycle, north, lines, None, *times))

    def queue_fold(
        self, w: np.ndarray, x: Rows, sink: Sink, *, not_before: tuple[int, int] = (0, 0)
    ) -> tuple[int, int]:
        """Queue a fold for a machine around the array, which has checked everything.

        Parameters
        ----------
        w : ndarray of the weight type, (k, n)
            Not copied.
        x : Rows, (m, k), or (k, m) if output stationary
            Read some lines at a time as they stream.
        sink : callable
            Called as ``sink(row, sums)`` as rows of sums leave, instead of keeping them in `outputs`.
        not_before : (int, int)
            As for :meth:`fold`.

        Returns
        -------
        shift_cycle, swap_cycle : int
            When the first weights arrive and the swap from which sums leave comes, as of a
            :class:`~systolic.Fold`.
        """
        self._enqueue(self._queues.folded(self._config, self.cycle, w, x, sink, *not_before))
        return self._queues.tiles[-1].start, self._queues.swap_at

    def queue_stream(self, x: Rows, sink: Sink, *, not_before: int = 0) -> int:
        """Queue rows without a tile, likewise: they multiply with the weights that are there.

        Parameters
        ----------
        x : Rows, (m, k)
        sink : callable
            As for :meth:`queue_fold`.
        not_before : int

        Returns
        -------
        int
            The cycle of the first row.
        """
        self._enqueue(self._queues.streamed(self.cycle, x, not_before, sink))
        return self._queues.streams[-1].start

    def _enqueue(self, queues: Queues) -> SystolicArray:
        self._state = self._state.with_queues(queues)
        return self

    # Clocking

    def step(self, **ports: Any) -> SystolicArray:
        """Do one clock edge with these values on the ports, as they are: already skewed.

        Parameters
        ----------
        **ports : array_like of int
            By the names of the dataflow's ports; a port that is left out carries 0. West ports take a
            scalar or (rows,), north ports a scalar or (cols,), within the port's type. Weight
            stationary: west `activation`, and `shift` and `swap` (0 or 1); north `weight` and `psum`. Output
            stationary: west `activation`, and `swap` and `drain` (0 or 1); north `weight` and `out`.

        Raises
        ------
        TypeError, ValueError
            If a port is unknown or a value does not fit its port; or if queued values still have to pass
            the ports: run() first.
        """
        given = port_values(self._config, ports)
        self._drive(given, 1, 1, "step")
        return self

    def clock(self, *, threads: int | None = None, **ports: Any) -> np.ndarray:
        """Do many clock edges with these values on the ports, as they are: already skewed.

        The same as one :meth:`step` per line, at the speed of :meth:`run`.

        Parameters
        ----------
        threads : int, optional
            Threads to use; None: see :func:`systolic.set_threads`. Results do not depend on it.
        **ports : array_like of int
            By the names of the dataflow's ports, see :meth:`step`: (cycles, rows) of a west port,
            (cycles, cols) of a north port. A port that is left out carries 0.

        Returns
        -------
        ndarray of the sums' type, (cycles, cols)
            Line t holds what the bottom row puts out after that edge: ``psum[rows - 1]``, or
            ``out[rows - 1]`` if output stationary.

        Raises
        ------
        TypeError, ValueError
            As :meth:`step`; and if no port is given, or the ports differ in their number of cycles.

        Notes
        -----
        An interrupt (Ctrl-C) or an error of a probe leaves the array between two edges: `cycle` tells how
        many were done; their psums are not returned.

        Examples
        --------
        >>> import numpy as np
        >>> from systolic import ArrayConfig, SystolicArray
        >>> array = SystolicArray(ArrayConfig(2, 1))
        >>> shift = np.array([[1, 0], [1, 1], [0, 1]])
        >>> _ = array.clock(shift=shift, weight=[[6], [5], [0]])
        >>> array.clock(activation=[[1, 0], [3, 2], [0, 4]], swap=[[1, 0], [0, 1], [0, 0]])
        array([[ 0],
               [17],
               [39]], dtype=int32)
        """
        given, cycles = port_lines(self._config, ports)
        return self._drive(given, cycles, thread_count(threads), "clock")

    def _drive(self, given: Ports, cycles: int, workers: int, caller: str) -> np.ndarray:
        dataflow = self._config.dataflow_record
        psums = [p.name for p in dataflow.ports if p.feeds == dataflow.leaves and p.name in given]
        free = self._queues.ports_free_at(self._config, any(given[name].any() for name in psums))
        if free > self.cycle:
            raise ValueError(
                f"{caller}() drives the ports by hand, but queued values stand on them until cycle {free}; "
                "call run() first, or reset()"
            )
        for probe in self._probes:
            probe.reserve(self.cycle, self.cycle + cycles)
        ports = idle_ports(self._config, cycles) | given
        bottom = np.empty((cycles, self._config.cols), self._config.format.sum)
        done = 0
        while done < cycles:
            done += self._clock(min(self._burst(), cycles - done), workers, ports, done, bottom)
        return bottom

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
            True shows a bar, as for :func:`~systolic.matmul`; a callable gets (cycles done, cycles in all).

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
            count = self._queues.drained_at(self._config, self.cycle) - self.cycle
        for probe in self._probes:
            probe.reserve(self.cycle, self.cycle + count)
        workers = thread_count(threads)
        burst = self._burst() if condition is None else 1
        done = 0
        with shown(progress, "cycles") as report:
            while done < count and not (condition is not None and condition(self)):
                done += self._clock(min(burst, count - done), workers)
                if report is not None:
                    report(done, count)
        return self

    def _burst(self) -> int:
        # Cycles clocked at once.
        rows, cols = self._config.rows, self._config.cols
        most = min(_BURST_CYCLES, _BURST_PE_CYCLES // (rows * cols), _BURST_PORT_CYCLES // (rows + cols))
        return max(1, most)

    def _clock(
        self,
        cycles: int,
        workers: int,
        ports: Ports | None = None,
        line: int = 0,
        bottom: np.ndarray | None = None,
    ) -> int:
        # Clock at most so many cycles, and fewer up to the next stop of a probe; return how many. With
        # `ports`, use their values from `line` on and put leaving psums into those lines of `bottom`.
        wanted: list[Probe] = []
        if self._probes:
            stop, wanted = next_stops(self._probes, self.cycle, self.cycle + cycles)
            cycles = stop - self.cycle
        if ports is not None:
            ports = {name: values[line : line + cycles] for name, values in ports.items()}
        threads = workers if cycles * self._config.rows * self._config.cols >= _WORTH_A_THREAD else 1
        leaving = None if bottom is None else bottom[line : line + cycles]
        state, assignments, error = advanced(
            self._config, self._state, cycles, threads, ports, leaving, wanted,
            [probe for probe in self._probes if probe.counts_toggles],
        )  # fmt: skip
        self._commit(state, assignments)
        if error is not None:
            raise error
        return cycles

    def _commit(self, state: State, assignments: list[Assignment]) -> None:
        # Interrupts come between bytecodes. A single one makes all assignments, so that state and probes are
        # either all old or all new.
        tuple(starmap(setattr, [(self, "_state", state), *assignments]))

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
            mine, other_values = as_numbers(here), as_numbers(theirs[name])
            for row, col in np.argwhere(differ(mine, other_values)).tolist():
                values = mine[row, col].item(), other_values[row, col].item()
                found.append(Difference(name, row, col, *values))
        return found

    def plot(
        self,
        *,
        register: str | None = None,
        rows: slice | range | None = None,
        cols: slice | range | None = None,
        highlight: Iterable[tuple[int, int]] | None = None,
        limit: float | None = None,
        ax: Any = None,
    ) -> Any:
        """Draw the registers as they are now: up to 16 x 16 PEs as boxes, more as a heat map.

        Needs ``pip install "systolic[plot]"``.

        Parameters
        ----------
        register : str, optional
            Draw this register as a heat map, of any size up to 256 x 256; "all" draws one of each register.
            Default: every register of each PE, or, of more than 16 rows or columns, the sums.
        rows, cols : slice or range, optional
            A window of the array, such as ``rows=slice(0, 8)``; default all.
        highlight : iterable of (row, col), optional
            PEs to frame.
        limit : float, optional
            Activation, or value of a heat map, in full color; None takes the largest magnitude present. Fix
            it to compare cycles.
        ax : matplotlib Axes, optional
            Where to draw; None makes a figure.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        TypeError, ValueError
            If there is no such register; if `rows` or `cols` is no window of the array, `highlight` lies
            outside of it, or more than 256 rows or columns are to be drawn.
        ImportError
            If matplotlib is not installed.

        Examples
        --------
        >>> import numpy as np
        >>> from systolic import ArrayConfig, SystolicArray
        >>> w = np.ones((32, 32), np.int8)
        >>> array = SystolicArray(ArrayConfig(32, 32)).fold(x=w[:4], w=w).run(40)
        >>> array.plot().texts[0].get_text()
        'psum after the edge of cycle 39'
        >>> array.plot(rows=slice(0, 4), cols=slice(28, 32)).axes[0].texts[0].get_text()
        'after the edge of cycle 39'
        """
        from systolic._show.registers import plot_array

        return plot_array(
            self.registers, parts=self._config.dataflow_record.registers, cycle=self.cycle, register=register,
            rows=rows, cols=cols, highlight=highlight, limit=limit, ax=ax,
        )  # fmt: skip

    def view(self, cycles: int | None = None, *, title: str = "") -> View:
        """Return what is queued, from now on, as an interactive page or notebook widget.

        The array itself stays at its cycle, and its probes are not called.

        Parameters
        ----------
        cycles : int, optional
            How many edges; None: until all that is queued has left the array.
        title : str

        Returns
        -------
        View
            Shows itself in a notebook; ``.save(path)`` writes one HTML file that needs nothing else.

        Raises
        ------
        ValueError
            If the page would be too large, or sums have 64 bits.

        Examples
        --------
        >>> import numpy as np
        >>> from systolic import ArrayConfig, SystolicArray
        >>> array = SystolicArray(ArrayConfig(2, 3))
        >>> array.fold(w=np.int8([[7, -8, 9], [10, 11, -12]]), x=np.int8([[1, 2], [3, 4]])).view()
        <View of 2 x 3 systolic array: cycles 0 to 8>
        """
        from systolic.array.viewing import view_of_queues

        count = None if cycles is None else _check.integer(cycles, "cycles", minimum=0)
        return view_of_queues(self._config, self._state, count, title)

    def animate(
        self, path: str | os.PathLike[str], cycles: int | None = None, *, register: str | None = None,
        frames_per_second: float = 2.0,
    ) -> None:  # fmt: skip
        """Write what is queued, from now on, as an animation: a GIF, or an MP4 if ffmpeg is installed.

        The array itself stays at its cycle, and its probes are not called. Needs
        ``pip install "systolic[plot]"``.

        Parameters
        ----------
        path : path
            Ends in .gif or .mp4.
        cycles : int, optional
            How many edges; None: until all that is queued has left the array.
        register : str, optional
            Draw this register as a heat map; None: all registers of an array of at most 16 x 16, the sums of
            a larger one.
        frames_per_second : float

        Raises
        ------
        ValueError
            If the suffix is unknown, there are more than 1,000 cycles, or no ffmpeg for an MP4.

        Examples
        --------
        >>> import numpy as np, tempfile
        >>> from pathlib import Path
        >>> from systolic import ArrayConfig, SystolicArray
        >>> array = SystolicArray(ArrayConfig(1, 1)).fold(w=np.int8([[2]]), x=np.int8([[3]]))
        >>> path = Path(tempfile.mkdtemp()) / "array.gif"
        >>> array.animate(path)
        >>> path.read_bytes()[:6]
        b'GIF89a'
        """
        from systolic.array.viewing import animate_queues

        count = None if cycles is None else _check.integer(cycles, "cycles", minimum=0)
        animate_queues(self._config, self._state, count, path, register, frames_per_second)

    def _summary(self) -> list[tuple[str, str]]:
        config, queues = self._config, self._queues
        waiting = len(queues.streams)
        return [
            ("size", f"{config.rows} x {config.cols} PEs, {config.dataflow.replace('_', ' ')}"),
            ("operands", f"{config.activation_dtype} activations, {config.weight_dtype} weights"),
            ("cycle", f"{self.cycle:,}: {moment(self.cycle)}"),
            ("streams", f"{waiting} in flight, {len(queues.outputs)} finished"),
            ("drained at", f"cycle {queues.drained_at(self._config, self.cycle):,}"),
        ]

    def __repr__(self) -> str:
        flying, done = len(self._queues.streams), len(self._queues.outputs)
        return (
            f"<SystolicArray {self._config.rows} x {self._config.cols} {moment(self.cycle)}: "
            f"{flying} stream{'s' * (flying != 1)} in flight, {done} finished>"
        )

    def _repr_html_(self) -> str:
        from systolic._show.table import card

        return card("SystolicArray", self._summary())
