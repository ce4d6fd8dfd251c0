"""Random scenarios for the array: what to put on its ports, and what the emulator says then happens.

Three kinds, in turn: ports driven by hand with any values at all; a product, cut into folds, as
``systolic.ports`` feeds it; folds that arrive with gaps. All ports that take sums may be driven in each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from systolic import PortValues
from systolic import ports as product_ports
from systolic.array import SystolicArray
from systolic.array.queues import Queues, queued_fold
from systolic.array.skew import Ports, port_window
from systolic.array.workspace import Workspace
from systolic.config import ArrayConfig
from systolic.dataflows import DATAFLOWS
from systolic.gemm import Gemm
from systolic.tiling import schedule

# All registers of all dataflows.
REGISTERS = {register.name for dataflow in DATAFLOWS.values() for register in dataflow.registers}

# The fold controller's registers and outputs, in the order in which the monitor writes them.
CONTROLLER = {"weight_stationary": (
    "cycle", "cycles", "next_valid", "shift_beat", "next_m", "next_k", "next_n", "next_x_address",
    "next_w_address", "next_half", "next_first", "stream_left", "stream_row", "stream_k", "stream_n",
    "stream_x_address", "stream_half", "stream_first", "drain_left",
    "shift", "swap", "x_read", "x_address", "w_read", "w_address",
), "output_stationary": (
    "cycle", "cycles", "open", "left", "beat", "open_m", "open_n", "open_x_address", "open_w_address",
    "open_half", "drain_left", "out_m", "out_n", "out_half", "rest_left",
    "swap", "drain", "read", "x_address", "w_address", "write", "write_row",
)}  # fmt: skip


def sums_port(config: ArrayConfig) -> str:
    """Return the port through which sums come in."""
    dataflow = config.dataflow_record
    (name,) = (port.name for port in dataflow.ports if port.feeds == dataflow.leaves)
    return name


@dataclass
class QueuedFold:
    """A fold as the RTL's controller is told of it, and when the emulator says its beats are due.

    Output stationary, `shift` is when it begins and `swap` when it ends.
    """

    x: np.ndarray
    w: np.ndarray
    half: int
    first: bool
    arrives: int
    shift: int
    swap: int
    x_address: int = 0
    w_address: int = 0

    @property
    def m(self) -> int:
        """Rows of x."""
        return len(self.x)

    @property
    def k(self) -> int:
        """Rows of the array in use."""
        return len(self.w)

    @property
    def n(self) -> int:
        """Columns of the array in use."""
        return self.w.shape[1]


@dataclass
class Trace:
    """Signals by name, their first axis the cycle.

    Registers, accumulators and the controller's registers stand as they are before the edge of
    that cycle and, in one row more, after the last one.
    """

    signals: dict[str, np.ndarray]


@dataclass
class Scenario:
    """What stands on the ports on each of `edges` cycles from reset, and what comes of it."""

    name: str
    seed: int
    config: ArrayConfig
    ports: Ports
    by_hand: np.ndarray
    folds: list[QueuedFold] = field(default_factory=list)
    cycles: int = 0

    @property
    def edges(self) -> int:
        """Clock edges after the reset."""
        return len(self.by_hand)

    @property
    def arrives(self) -> np.ndarray:
        """Whether a fold's descriptor arrives, (edges,)."""
        arrives = np.zeros(self.edges, dtype=bool)
        arrives[[fold.arrives for fold in self.folds]] = True
        assert arrives.sum() == len(self.folds)
        return arrives


@dataclass(frozen=True)
class Mismatch:
    """The first signal in which RTL and emulator differ."""

    signal: str
    place: tuple[int, ...]
    cycle: int
    rtl: int
    emulator: int
    scenario: str
    seed: int

    def __str__(self) -> str:
        place = ", ".join(map(str, self.place))
        if self.signal in REGISTERS:
            where = f"{self.signal} of PE ({place})"
        elif place:
            where = f"{self.signal} [{place}]"
        else:
            where = self.signal
        return (
            f"{where} at cycle {self.cycle}: RTL {self.rtl}, emulator {self.emulator} "
            f"(seed {self.seed}, {self.scenario})"
        )


def scenarios(config: ArrayConfig, clocks: int, seed: int) -> Iterator[Scenario]:
    """Yield scenarios until together they have at least `clocks` edges; each has its own seed."""
    kinds = (by_hand, product, folds_with_gaps)
    total = 0
    while total < clocks:
        scenario = kinds[seed % 3](config, seed)
        total += scenario.edges
        seed += 1
        yield scenario


def stacked(streamed: list[PortValues]) -> Ports:
    """Return the ports of successive cycles as arrays."""
    return {name: np.array([values.ports[name] for values in streamed]) for name in streamed[0].ports}


# Values


def _operands(rng: np.random.Generator, size: tuple[int, ...], dtype: str) -> np.ndarray:
    info = np.iinfo(dtype)
    style = rng.integers(4)
    if style == 0:  # the largest products of each sign
        return rng.choice([info.min, info.max], size).astype(dtype)
    if style == 1:
        return np.full(size, rng.choice([info.min, info.max]), dtype=dtype)
    if style == 2:
        return rng.choice([info.min, info.max, 0, 1, -1 if info.min else 128], size).astype(dtype)
    return rng.integers(info.min, info.max, size, dtype=dtype, endpoint=True)


def _psums(rng: np.random.Generator, size: tuple[int, ...], *, may_be_zero: bool = True) -> np.ndarray:
    style = rng.integers(0 if may_be_zero else 1, 4)
    if style == 0:
        return np.zeros(size, dtype=np.int32)
    if style == 1:
        return rng.integers(-(2**31), 2**31, size, dtype=np.int32)
    # Near the ends, on both sides: one product makes them wrap.
    near = rng.integers(-(2**14), 2**14, size) + 2**31
    return near.astype(np.uint32).view(np.int32)


def _flags(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    return rng.random(size) < rng.choice([0, 0.03, 0.2, 0.5, 0.9, 1])


# Kinds


def by_hand(config: ArrayConfig, seed: int) -> Scenario:
    """Any values on all ports: broken shifts, swaps in the middle, both on one edge."""
    rng = np.random.default_rng(seed)
    edges = 150 + 4 * config.rows
    sizes = {"west": (edges, config.rows), "north": (edges, config.cols)}
    pieces = []
    for _ in range(4):  # styles change on the way
        piece = {}
        for port in config.dataflow_record.ports:
            dtype, size = config.port_dtypes[port.name], sizes[port.side]
            draw = _flags if dtype.kind == "b" else _psums if dtype == np.int32 else None
            piece[port.name] = _operands(rng, size, dtype.name) if draw is None else draw(rng, size)
        pieces.append(piece)
    which = np.repeat(rng.permutation(4), -(-edges // 4))[:edges]
    values = {name: np.choose(which[:, None], [piece[name] for piece in pieces]) for name in pieces[0]}
    return Scenario("ports by hand", seed, config, values, np.ones(edges, dtype=bool))


def of_product(config: ArrayConfig, x: np.ndarray, w: np.ndarray, seed: int = 0) -> Scenario:
    """x @ w cut into folds, ports as ``systolic.ports`` has them."""
    (m, k), n = x.shape, w.shape[1]
    folds = []
    plan = schedule(Gemm(m, k, n), config)
    for i, fold in enumerate(plan.folds):
        part = x[fold.m_start : fold.m_stop, fold.k_start : fold.k_stop]
        tile = w[fold.k_start : fold.k_stop, fold.n_start : fold.n_stop]
        times = fold.shift_cycle, fold.swap_cycle
        folds.append(QueuedFold(part, tile, plan.half(i), fold.k_start == 0, i, *times))
    values = stacked(list(product_ports(x, w, array=config)))
    idle = np.zeros(len(values["swap"]), dtype=bool)
    return Scenario(f"({m}, {k}) x ({k}, {n})", seed, config, values, idle, folds, plan.cycles)


def product(config: ArrayConfig, seed: int) -> Scenario:
    """x @ w cut into folds, ports as ``systolic.ports`` has them, sometimes with psums from the north."""
    rng = np.random.default_rng(seed)
    rows, cols = config.rows, config.cols
    held = config.dataflow_record.held
    chunk = rows if held else config.chunk_rows
    assert chunk is not None
    m = int(rng.choice([1, max(rows - 1, 1), rows, rows + 1, chunk, chunk + 1, 2 * chunk + 1]))
    k = int(rng.integers(1, 3 * rows + 1))
    n = int(rng.integers(1, 2 * cols + 1))
    x = _operands(rng, (m, k), config.activation_dtype)
    w = _operands(rng, (k, n), config.weight_dtype)
    pairs = -(-m // chunk) * (1 if held else -(-k // rows))
    scenario = of_product(config, x, w, seed)
    assert len(scenario.folds) == pairs * -(-n // cols)
    streamed = list(product_ports(x, w, array=config))
    if rng.integers(2):
        north = sums_port(config)
        scenario.ports[north] = _psums(rng, scenario.ports[north].shape, may_be_zero=False)
    # systolic.ports must say of the accumulators what the rule in design section 2 says.
    writes = accumulator_writes(scenario)
    for key in ("write", "half", "row", "first"):
        said = np.array([getattr(v, key) for v in streamed])
        np.testing.assert_array_equal(said, writes[key][: len(said)], err_msg=f"systolic.ports: {key}")
    return scenario


def folds_with_gaps(config: ArrayConfig, seed: int) -> Scenario:
    """Folds whose descriptors come late or early, after some cycles of ports driven by hand."""
    rng = np.random.default_rng(seed)
    rows, cols, dataflow = config.rows, config.cols, config.dataflow_record
    chunk = rows if dataflow.held else config.chunk_rows
    assert chunk is not None
    before = int(rng.choice([0, 0, 1, 2 * rows + 3]))
    array = SystolicArray(config).run(before)
    arrives = before
    folds = []
    for _ in range(int(rng.integers(2, 7))):
        array.run(arrives - array.cycle)
        m = int(rng.choice([1, max(rows - 1, 1), rows, rows + 1, int(rng.integers(1, chunk + 1))]))
        k, n = int(rng.integers(1, rows + 1)), int(rng.integers(1, cols + 1))
        if dataflow.held:
            m = min(m, rows)
            k = int(rng.choice([1, rows, rows + 1, int(rng.integers(1, 3 * rows + 1))]))
        x = _operands(rng, (m, k), config.activation_dtype)
        w = _operands(rng, (k, n), config.weight_dtype)
        shift, swap = array.queue_fold(*dataflow.operands(x, w), lambda row, psums: None)
        folds.append(QueuedFold(x, w, int(rng.integers(2)), bool(rng.integers(2)), arrives, shift, swap))
        stay = k if dataflow.held else m
        arrives += 1 + int(rng.choice([0, 0, 1, rows, rows + stay, 3 * (rows + cols) + stay]))
    cycles = array.run().cycle
    queues = Queues.empty(cols, np.int32)
    queued_folds = [
        queued_fold(config, *dataflow.operands(fold.x, fold.w), fold.shift, fold.swap) for fold in folds
    ]
    tiles, streams = zip(*queued_folds, strict=True)
    edges = cycles + 1 + int(rng.integers(3))
    queued = port_window(Queues(queues.below, tiles, streams), config, 0, edges, Workspace())
    psum = _psums(rng, (edges, cols))
    first = np.arange(edges) < before
    values = {
        name: np.where(first[:, None], np.resize(hand, (edges, hand.shape[1])), queued[name])
        for name, hand in by_hand(config, seed).ports.items()
    }
    values[sums_port(config)] = psum
    return Scenario("folds with gaps", seed, config, values, first, folds, cycles)


# What comes of it


def accumulator_writes(scenario: Scenario) -> dict[str, np.ndarray]:
    """Return write, half, row and first, (edges, cols).

    The sum (m, n) of a fold swapped at s is written on the edge of cycle s + m + rows + n; output
    stationary, on that of cycle s + (rows - 1 - m) + rows + n.
    """
    config, edges = scenario.config, scenario.edges
    writes = {key: np.zeros((edges, config.cols), dtype=int) for key in ("write", "half", "row", "first")}
    for fold in scenario.folds:
        m = np.arange(fold.m)
        for n in range(fold.n):
            line = config.rows - 1 - m if config.dataflow_record.held else m
            at = fold.swap + line + config.rows + n
            writes["write"][at, n], writes["row"][at, n] = 1, m
            writes["half"][at, n] = fold.half
            writes["first"][at, n] = fold.first or config.dataflow_record.held
    return writes


def emulate(scenario: Scenario, accumulators: np.ndarray) -> Trace:
    """Return what the emulator says happens.

    Parameters
    ----------
    scenario : Scenario
    accumulators : ndarray of int32, (cols, accumulator rows)
        What stands there at the start; left as at the end.
    """
    config, edges, values = scenario.config, scenario.edges, scenario.ports
    array = SystolicArray(config)
    signals: dict[str, np.ndarray] = {}
    for name, register in array.registers.items():
        signals[name] = np.zeros((edges + 1, *register.shape), dtype=register.dtype)
    for t in range(edges):
        array.clock(threads=1, **{name: port[t : t + 1] for name, port in values.items()})
        state = array.state()
        for name in array.registers:
            signals[name][t + 1] = getattr(state, name)
    # The same in one go must end the same.
    whole = SystolicArray(config)
    whole.clock(threads=1, **values)
    for name, register in whole.registers.items():
        np.testing.assert_array_equal(
            register, signals[name][edges], err_msg=f"{name} after {edges} edges at once"
        )

    for port in config.dataflow_record.ports:
        signals[f"{port.side} {port.name}"] = values[port.name]
    writes = accumulator_writes(scenario)
    for key, what in writes.items():
        signals[f"accumulator {key}"] = what
    sums = np.empty((edges + 1, *accumulators.shape), dtype=np.int32)
    bottom = signals[config.dataflow_record.leaves][:, -1]
    half_rows = accumulators.shape[1] // 2
    for t in range(edges):
        sums[t] = accumulators
        cols = np.nonzero(writes["write"][t])[0]
        if len(cols):
            row = writes["half"][t, cols] * half_rows + writes["row"][t, cols]
            old = np.where(writes["first"][t, cols], np.int32(0), accumulators[cols, row])
            accumulators[cols, row] = bottom[t, cols] + old  # int32 arrays wrap
    sums[edges] = accumulators
    signals["accumulator"] = sums
    controller = _output_controller if config.dataflow_record.held else _controller
    for name, expected in controller(scenario).items():
        signals[f"controller {name}"] = expected
    return Trace(signals)


def _controller(scenario: Scenario) -> dict[str, np.ndarray]:
    # What fold_controller.sv must hold and say, from the times at which the emulator has the beats.
    config, edges = scenario.config, scenario.edges
    rows = config.rows
    after = np.arange(edges + 1)
    says = {name: np.zeros(edges + 1, dtype=np.int64) for name in CONTROLLER[config.dataflow]}
    says["cycle"] = after
    drain = rows + config.cols - 2
    for fold in scenario.folds:
        shift, swap, m = fold.shift, fold.swap, fold.m
        says["next_valid"][shift + 1 : swap + 1] = 1
        says["shift_beat"][shift + 1 :] = np.minimum(after[shift + 1 :] - shift, rows)
        says["stream_left"][swap + 1 :] = np.maximum(m - (after[swap + 1 :] - swap), 0)
        says["stream_row"][swap + 1 :] = np.minimum(after[swap + 1 :] - swap, m)
        said = says["drain_left"]
        said[swap + m :] = np.maximum(drain - (after[swap + m :] - swap - m), 0)
        if m == 1:
            said[swap + 1 :] = np.maximum(drain - (after[swap + 1 :] - swap - 1), 0)
        for side, start in (("next", shift), ("stream", swap)):
            for key in ("m", "k", "n", "x_address", "w_address", "half", "first"):
                if f"{side}_{key}" in says:
                    says[f"{side}_{key}"][start + 1 :] = getattr(fold, key)
        last = swap + np.arange(m) + rows + config.cols - 1
        for edge in last[last < edges]:
            says["cycles"][edge + 1 :] = edge
        says["shift"][shift : shift + rows] = 1
        says["swap"][swap] = 1
        says["x_read"][swap : swap + m] = 1
        says["x_address"][swap : swap + m] = fold.x_address + np.arange(m)
        says["w_read"][shift + rows - fold.k : shift + rows] = 1
        says["w_address"][shift + rows - fold.k : shift + rows] = fold.w_address + np.arange(fold.k)[::-1]
    return says


def _output_controller(scenario: Scenario) -> dict[str, np.ndarray]:
    # What output_controller.sv must hold and say, from the times at which the emulator has the beats.
    config, edges = scenario.config, scenario.edges
    rows = config.rows
    after = np.arange(edges + 1)
    says = {name: np.zeros(edges + 1, dtype=np.int64) for name in CONTROLLER[config.dataflow]}
    says["cycle"] = after
    for fold in scenario.folds:
        begins, ends, k = fold.shift, fold.swap, fold.k
        says["open"][begins + 1 : ends + 1] = 1
        says["left"][begins + 1 :] = np.maximum(k - (after[begins + 1 :] - begins), 0)
        says["beat"][begins + 1 :] = np.minimum(after[begins + 1 :] - begins, k)
        for key in ("m", "n", "x_address", "w_address", "half"):
            says[f"open_{key}"][begins + 1 :] = getattr(fold, key)
        for key in ("m", "n", "half"):
            says[f"out_{key}"][ends + 1 :] = getattr(fold, key)
        for name, beats in (("drain_left", rows - 1), ("rest_left", 2 * rows + config.cols - 3)):
            says[name][ends + 1 :] = np.maximum(beats - (after[ends + 1 :] - ends - 1), 0)
        says["swap"][[begins, ends]] = 1
        says["drain"][ends + 1 : ends + rows] = 1
        says["read"][begins : begins + k] = 1
        for name in ("x_address", "w_address"):
            says[name][begins : begins + k] = getattr(fold, name) + np.arange(k)
        says["write"][ends + rows - fold.m : ends + rows] = 1
        says["write_row"][ends + rows - fold.m : ends + rows] = np.arange(fold.m)[::-1]
        last = ends + rows - 1 - np.arange(fold.m) + rows + config.cols - 1
        for edge in sorted(last[last < edges]):
            says["cycles"][edge + 1 :] = edge
    return says


# What makes a signal count: where this one is 0, nobody reads it.
_READ_WHEN = {
    "accumulator half": ("accumulator write",),
    "accumulator row": ("accumulator write",),
    "accumulator first": ("accumulator write",),
    "controller x_address": ("controller x_read", "controller read"),
    "controller w_address": ("controller w_read", "controller read"),
    "controller write_row": ("controller write",),
}


def compare(scenario: Scenario, rtl: Trace, emulator: Trace) -> Mismatch | None:
    """Return the first difference in time, or None: every signal, every place, every clock."""
    assert rtl.signals.keys() == emulator.signals.keys(), rtl.signals.keys() ^ emulator.signals.keys()
    first: Mismatch | None = None
    for name, expected in emulator.signals.items():
        # Ports and commands have no value after the last edge.
        actual = rtl.signals[name][: len(expected)]
        assert actual.shape == expected.shape, (name, actual.shape, expected.shape)
        differs = actual != expected
        if name in _READ_WHEN:
            (when,) = (signal for signal in _READ_WHEN[name] if signal in emulator.signals)
            differs &= emulator.signals[when][: len(expected)] != 0
        if not differs.any():
            continue
        cycle = int(np.argmax(differs.reshape(len(differs), -1).any(axis=1)))
        if first is None or cycle < first.cycle:
            place = tuple(int(i) for i in np.argwhere(differs[cycle])[0]) if differs.ndim > 1 else ()
            at = (cycle, *place)
            first = Mismatch(
                name, place, cycle, int(actual[at]), int(expected[at]), scenario.name, scenario.seed
            )
    return first
