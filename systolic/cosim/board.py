"""``Scoreboard``: RTL beside the emulator, edge by edge or as a recorded product."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from systolic import _check, _hints
from systolic.array import Registers, State, SystolicArray
from systolic.config import ArrayConfig, as_array_config
from systolic.cosim.local_time import Product, skewed
from systolic.cosim.lockstep import Lockstep, Values, unequal
from systolic.cosim.recorded import diagnose
from systolic.cosim.report import Report, ScoreboardError
from systolic.cosim.samples import as_columns, names_of, recorded, valids
from systolic.cosim.signals import SignalMap, places
from systolic.cosim.unpacking import unpack
from systolic.formats import as_numbers


class Scoreboard:
    """Steps an emulated array with the ports an RTL array is driven with, and compares registers.

    It knows no simulator: call :meth:`edge` with the port values of each clock edge and
    :meth:`compare` with the values of the RTL's registers after it. ``examples/rtl`` does so under
    cocotb. Or record a whole product and give it to :meth:`check`, which also says which usual mistake
    makes the wrong numbers.

    Parameters
    ----------
    config : ArrayConfig
        Size and operand types.
    state : State or mapping of str to array_like, (rows, cols), optional
        Where the array starts: a state, or registers by name, the others 0. Default: all registers 0.
    map : SignalMap, optional
        Names and times of the RTL's signals. Default: those of the emulator.

    Raises
    ------
    TypeError, ValueError
        If `state` does not fit the array, or the map names what the array does not have.

    Examples
    --------
    >>> from systolic import ArrayConfig, Scoreboard
    >>> board = Scoreboard(ArrayConfig(rows=1, cols=2))
    >>> board.edge(activation=[3], shift=[1], weight=[5, 0])
    >>> board.compare(next_weight=[[5, 0]], activation=[[3, 0]])
    >>> try:
    ...     board.compare(activation=[[3, 1]])
    ... except AssertionError as error:
    ...     print(error)
    activation of PE (0, 1) after the edge of cycle 0 is 1 in the RTL, expected 0
    """

    def __init__(
        self,
        config: ArrayConfig,
        *,
        state: State | Mapping[str, Any] | None = None,
        map: SignalMap | None = None,
    ) -> None:
        self.config = as_array_config(config, "config")
        self._start = None if state is None else _as_state(state, self.config)
        if map is not None and not isinstance(map, SignalMap):
            raise TypeError(f"map must be a systolic.cosim.SignalMap, not {_check.kind(map)}")
        self.map = None if map is None else map.checked(self.config)
        self.array = SystolicArray(self.config)
        self.compared = 0
        """Register values compared so far."""
        self.reset()

    @property
    def expected(self) -> Registers:
        """The values that the registers must hold now; with a map, those of the emulator."""
        return self.array.registers

    @property
    def signals(self) -> tuple[str, ...]:
        """The RTL's signals that :meth:`sample` reads, and :meth:`check` of the same map."""
        if self.map is None:
            return ()
        known = places(self.config)
        found: dict[str, None] = {}
        for name in self.map.signals:
            signal = self.map.signal(name)
            for pattern in (signal.name, signal.valid):
                if pattern is not None:
                    found |= dict.fromkeys(names_of(pattern, known[name]))
        return tuple(found)

    # In lockstep

    def edge(self, **ports: Any) -> None:
        """Do one clock edge, with the port values that the RTL was driven with.

        Ports as for :meth:`SystolicArray.step`. With a map of other hops they are skewed as it says:
        :meth:`ports` gives those of a product.
        """
        if self._lockstep is None:
            self.array.step(**ports)
        else:
            self.compared += self._lockstep.edge(ports)

    def reset(self) -> None:
        """Go back to the start: all registers 0 and cycle 0, if no `state` was given."""
        self.array.reset()
        if self._start is not None:
            self.array.restore(self._start)
        self._lockstep = None if self.map is None else Lockstep(self.array, self.map)

    def compare(self, **registers: Any) -> None:
        """Compare the RTL's registers after the last edge.

        Parameters
        ----------
        **registers : array_like of int, (rows, cols), or int
            By the names of :attr:`expected`; an int is a packed vector, see :func:`systolic.cosim.unpack`.

        Raises
        ------
        ScoreboardError
            If a value differs; it names register, PE, cycle and both values.
        TypeError, ValueError
            If a register is unknown or its values have another shape.

        Notes
        -----
        With a map, values are those of its latencies and hops. Where the emulator is behind the RTL they are
        compared some edges later, the last ones by :meth:`finish`.
        """
        rows, cols = self.config.rows, self.config.cols
        found = []
        for name, values in registers.items():
            dtype = self.config.register_dtypes[_check.choice(name, "register", tuple(self.expected))]
            if isinstance(values, int):
                values = unpack(values, rows, cols, dtype=dtype)
            got = _check.numbers(values, name, dtype)
            if got.shape != (rows, cols):
                raise ValueError(
                    f"{name} must be {_check.shape((rows, cols))}, not {_check.shape(got.shape)}"
                )
            if self._lockstep is not None and self._lockstep.keeps(name):
                raise ValueError(
                    f"{name} keeps its value while it is not valid (held_psums): hand the valid signal over "
                    "with it, by sample()"
                )
            found.append(Values(name, as_numbers(got), np.ones(got.shape, bool)))
        self.compared += self._compare(found)

    def sample(self, signals: Mapping[str, Any]) -> None:
        """Compare the RTL's signals after the last edge, by the names that the map gives them.

        Parameters
        ----------
        signals : mapping of str to int, str or object
            Values of :attr:`signals`: integers, texts of bits, or cocotb's values and handles. Ports and
            accumulators of the map are not read.

        Raises
        ------
        ScoreboardError
            As :meth:`compare`; also if a value is X or Z.
        TypeError, ValueError
            If there is no map, a signal is missing, or a value is wider than its signal.

        Examples
        --------
        >>> from systolic import ArrayConfig, Scoreboard
        >>> from systolic.cosim import SignalMap
        >>> map = SignalMap(signals={"activation": "pe_{r}_{c}.a_q"})
        >>> board = Scoreboard(ArrayConfig(rows=1, cols=2), map=map)
        >>> board.edge(activation=[3])
        >>> board.sample({"pe_0_0.a_q": 3, "pe_0_1.a_q": "00000000"})
        """
        if self.map is None or self._lockstep is None:
            raise ValueError(
                "sample() takes signals by the names of a map: Scoreboard(config, map=SignalMap(...))"
            )
        known, found = places(self.config), []
        for name in self.map.signals:
            place, signal = known[name], self.map.signal(name)
            if place.kind != "register":
                continue
            patterns = [pattern for pattern in (signal.name, signal.valid) if pattern is not None]
            columns = as_columns([signals], [each for p in patterns for each in names_of(p, place)])
            values, there = recorded(columns, signal, place)
            valid = None
            if signal.valid is not None:
                bits, sure = valids(columns, signal, place)
                valid = (bits[0] == 1) & sure[0]
            elif self._lockstep.keeps(name):
                raise ValueError(
                    f"{name} keeps its value while it is not valid (held_psums), but the map has no valid "
                    "signal for it: valid="
                )
            found.append(Values(name, values[0], there[0], valid))
        self.compared += self._compare(found)

    def finish(self) -> None:
        """Compare what still waits for beats of the emulator; call it after the last edge.

        Raises
        ------
        ScoreboardError
            As :meth:`compare`.
        """
        if self._lockstep is not None:
            self.compared += self._lockstep.finish()

    def _compare(self, values: list[Values]) -> int:
        """Compare registers after the last edge; return how many values were compared."""
        if self._lockstep is not None:
            return self._lockstep.compare(values)
        for each in values:
            expected = as_numbers(self.expected[each.name])
            error = unequal(each, expected, np.ones(expected.shape, bool), self.array.cycle - 1)
            if error is not None:
                raise error
        return sum(each.got.size for each in values)

    # A whole product

    def ports(self, x: Any, w: Any) -> Iterator[dict[str, np.ndarray]]:
        """Return the port values of a product, cycle by cycle, with the map's skew.

        Parameters
        ----------
        x : array_like of the activation type, (M, K)
        w : array_like of the weight type, (K, N)

        Yields
        ------
        dict of str to ndarray
            By the names of the dataflow's ports, (rows,) from the west and (cols,) from the north. Enough
            cycles for all values of the map; with hops of one cycle and no latency those of
            :func:`systolic.ports`.

        Raises
        ------
        TypeError, ValueError
            If x or w has another type or does not fit; on the call.

        Examples
        --------
        >>> import numpy as np
        >>> from systolic import ArrayConfig, Scoreboard
        >>> from systolic.cosim import SignalMap
        >>> x, w = np.int8([[1, 2]]), np.int8([[3], [4]])
        >>> for hop in (1, 1), (2, 1):
        ...     board = Scoreboard(ArrayConfig(2, 1), map=SignalMap(hop=hop))
        ...     print([ports["activation"].tolist() for ports in board.ports(x, w)])
        [[0, 0], [0, 0], [1, 0], [0, 2], [0, 0]]
        [[0, 0], [0, 0], [1, 0], [0, 0], [0, 2], [0, 0], [0, 0]]
        """
        product = Product.of(self.config, x, w)
        return self._ports(product)

    def _ports(self, product: Product) -> Iterator[dict[str, np.ndarray]]:
        rows, cols = self.config.rows, self.config.cols
        hop = (1, 1) if self.map is None else self.map.hop
        latency = 0 if self.map is None else max(0, *self.map.latencies)
        cycles = product.last + 1 + rows * hop[0] + (cols - 1) * hop[1] + latency
        local = product.local_ports()
        short = max(cycles - product.length, 0)
        local = {n: np.concatenate([v, np.zeros((short, v.shape[1]), v.dtype)]) for n, v in local.items()}
        values = skewed(local, self.config, hop)
        for cycle in range(cycles):
            yield {name: port[cycle] for name, port in values.items()}

    def diagnose(self, x: Any, w: Any, samples: Any = None, *, start: int = 0, outputs: Any = None) -> Report:
        """Compare a recorded product, value by value in local time, and say which usual mistake was made.

        Parameters
        ----------
        x : array_like of the activation type, (M, K)
        w : array_like of the weight type, (K, N)
        samples : mapping of str to sequence, or iterable of mapping, optional
            What the map's signals held after each clock edge: for each signal the values of all cycles (as
            :func:`systolic.cosim.read_vcd` returns them), or for each cycle a dict of signals. Values are
            integers, texts of bits, arrays, or cocotb's. Without a map: registers by the emulator's names,
            (cycles, rows, cols). Values that no (m, r, c) has, while ports are idle, are not compared.
        start : int
            The sample that was taken after the edge of cycle 0, which brought the product's first beat.
        outputs : array_like, (M, N), optional
            The sums that the design returned.

        Returns
        -------
        Report
            Which values differ, the most upstream PE first, and which mistakes of
            :data:`systolic.cosim.MISTAKES` make exactly the recorded numbers.

        Raises
        ------
        TypeError, ValueError
            If operands do not fit the array, a signal is missing, its values are wider than its width,
            samples end too early, or a valid signal has not the product's number of values.

        Notes
        -----
        Expected values are the emulator's, clocked with the product's ports from `state`. Values are compared
        for each (m, r, c): PE (r, c) for row m of x, weight stationary; likewise of the other dataflows.
        Where a map has a valid signal, its i-th cycle of 1 is the i-th value of its PE, whenever that is;
        other values are at the times that the map says. Registers that pass tiles or sums on have no values
        of their own and are left out: compare them by :meth:`sample` or :meth:`compare`.

        Examples
        --------
        >>> import numpy as np
        >>> from systolic import ArrayConfig, Scoreboard, Trace, matmul
        >>> x, w = np.int8([[1, 2], [3, 4], [-5, 6]]), np.int8([[7, -8], [10, 11]])
        >>> config, trace = ArrayConfig(2, 2), Trace()
        >>> _ = matmul(x, w[::-1], array=config, trace=trace)             # stands for RTL that is wrong
        >>> print(Scoreboard(config).diagnose(x, w, {"psum": trace["psum"]}))
        psum of PE (0, 0) for m 0, n 0, k 0, in sample 2, is 10 in the RTL, expected 7
        12 of 12 values differ; with right inputs also in (0, 1)
        rows loaded in the wrong order: the tile enters first row first
        """
        return diagnose(self.config, self._start, self.map, x, w, samples, start, outputs)

    def check(self, x: Any, w: Any, samples: Any = None, *, start: int = 0, outputs: Any = None) -> Report:
        """Do :meth:`diagnose`, and raise if a value is wrong.

        Parameters
        ----------
        x, w, samples, start, outputs
            As :meth:`diagnose`.

        Returns
        -------
        Report
            How many values were compared.

        Raises
        ------
        ScoreboardError
            If a value differs: its text is that of the report, which it holds.
        TypeError, ValueError
            As :meth:`diagnose`.

        Examples
        --------
        >>> import numpy as np
        >>> from systolic import ArrayConfig, Scoreboard
        >>> x, w = np.int8([[1, 2], [3, 4]]), np.int8([[5, 6], [7, 8]])
        >>> print(Scoreboard(ArrayConfig(2, 2)).check(x, w, outputs=x.astype(int) @ w))
        all 4 values are right
        """
        report = self.diagnose(x, w, samples, start=start, outputs=outputs)
        if not report:
            raise ScoreboardError.of(report)
        self.compared += report.compared
        return report


def _as_state(state: Any, config: ArrayConfig) -> State:
    """Return a state of an array, or one with the registers given and all others 0."""
    if isinstance(state, State):
        state = state.checked(config)
        free = state.queues.ports_free_at(config, False)
        if free > state.cycle:
            raise ValueError(
                f"state has queued values on its ports until cycle {free}; run the array up to then, or give "
                "its registers alone"
            )
        return state
    if not isinstance(state, Mapping):
        raise TypeError(f"state must be a State or a dict of registers, not {_check.kind(state)}")
    known, size = config.register_dtypes, (config.rows, config.cols)
    found = {}
    for name, values in state.items():
        if name not in known:
            raise ValueError(
                f"state has no register {name!r} in a {config.dataflow} array; "
                f"{_hints.nearest(name, tuple(known))}"
            )
        limits = config.register_limits.get(name)
        found[name] = _check.numbers(values, f"state[{name!r}]", known[name], limits)
        if found[name].shape != size:
            raise ValueError(
                f"state[{name!r}] must be {_check.shape(size)}, not {_check.shape(found[name].shape)}"
            )
    return State.idle(config).replace(**found).checked(config)
