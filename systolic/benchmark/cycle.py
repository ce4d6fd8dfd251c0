"""Cycle mode against numpy stepping: PE-cycles per second."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from systolic import _check, _kernels, engine
from systolic.array import SystolicArray
from systolic.array.skew import port_window, skewed
from systolic.array.workspace import Workspace
from systolic.benchmark.timing import Measurement, Section, Work, compare, instruction_sets, using
from systolic.config import ArrayConfig

UNIT = "PE-cycles/s"
STEPPING = "numpy stepping"


class NumpyStepping:
    """The yardstick of cycle mode: psums of a rows x cols array stepped by preallocated numpy.

    Each cycle slides the activations, multiplies and adds; weights stand still and nothing is
    shifted or swapped, so it does less than the kernel does.
    """

    def __init__(self, x: np.ndarray, w: np.ndarray) -> None:
        rows, cols = w.shape
        self.west = x.astype(np.int16)
        self.w16 = w.astype(np.int16)
        self.a16 = np.zeros((rows, cols), dtype=np.int16)
        self.t16 = np.zeros((rows, cols), dtype=np.int16)
        self.p = np.zeros((rows, cols), dtype=np.int32)
        self.q = np.zeros((rows, cols), dtype=np.int32)

    def run(self) -> None:
        """Step through all rows of x, fed without skew."""
        a16, w16, t16, p, q = self.a16, self.w16, self.t16, self.p, self.q
        for west in self.west:
            a16[:, 1:] = a16[:, :-1]
            a16[:, 0] = west
            np.multiply(a16, w16, out=t16)
            np.add(p[:-1], t16[1:], out=q[1:])
            q[0] = t16[0]
            p, q = q, p
        self.p, self.q = p, q


class Fold:
    """One fold of m rows of x on an array of its size: what cycle mode and the yardstick do of it."""

    def __init__(self, rows: int, cols: int, m: int) -> None:
        rng = np.random.default_rng(0)
        self.config = ArrayConfig(rows, cols, accumulator_rows=None)
        self.x = rng.integers(-128, 128, (m, rows), dtype=np.int8)
        self.w = rng.integers(-128, 128, (rows, cols), dtype=np.int8)
        self.name = f"m = {m}, {rows} x {cols}"
        self.cycles = SystolicArray(self.config).fold(self.w, self.x).run().cycle
        self.pe_cycles = rows * cols * self.cycles
        self.stepping = (STEPPING, NumpyStepping(self.x, self.w).run, rows * cols * m)

    def run(self, threads: int) -> Work:
        """Return what runs the fold from reset to its last psum."""
        return lambda: SystolicArray(self.config).fold(self.w, self.x).run(threads=threads)

    def kernel(self, threads: int) -> Callable[[], np.ndarray]:
        """Return what clocks the fold's cycles with its values on the ports: the kernel alone.

        It returns what left the bottom PEs, as rows of x; registers go on from where they are.
        """
        rows, cols = self.config.rows, self.config.cols
        state = SystolicArray(self.config).fold(self.w, self.x).state()
        assert state.queues is not None  # an array fills it in
        ports = port_window(state.queues, self.config, 0, self.cycles, Workspace())
        arrays = {name: values.copy() for name, values in state.registers.items()}
        clock = self.config.dataflow_record.kernels[self.config.format.kernel]
        below = np.zeros((self.cycles + cols - 1, cols), dtype=np.int32)
        # The first row of x is swapped in at local time `rows` and leaves rows - 1 cycles later.
        first = cols - 1 + 2 * rows - 1

        def work() -> np.ndarray:
            clock(arrays, ports, skewed(below, self.cycles, cols), threads)
            return below[first : first + len(self.x)]

        return work


def random_control(config: ArrayConfig, cycles: int) -> Work:
    """Return what clocks an array with random values on every port, half of all control bits set."""
    rng = np.random.default_rng(0)
    sizes = {"west": config.rows, "north": config.cols}
    ports = {}
    for port in config.dataflow_record.ports:
        dtype, size = config.port_dtypes[port.name], (cycles, sizes[port.side])
        ports[port.name] = rng.random(size) < 0.5 if dtype.kind == "b" else rng.integers(
            np.iinfo(dtype).min, np.iinfo(dtype).max, size, dtype=dtype, endpoint=True
        )  # fmt: skip
    array = SystolicArray(config)
    return lambda: array.clock(threads=1, **ports)


def add_int32(rows: int, cols: int) -> tuple[str, Work, int]:
    """Return numpy.add of int32 over the array, the last step of the yardstick: name, work, elements."""
    p, q = np.ones((2, rows, cols), dtype=np.int32)

    def work() -> None:
        for _ in range(200):
            np.add(p, q, out=q)

    return "numpy.add of int32, elements", work, 200 * p.size


def bench(
    *, rows: int = 256, cols: int = 256, m: int = 2048, rounds: int = 7, threads: int = 1
) -> list[Measurement]:
    """Measure cycle mode beside numpy stepping, and both modes of matmul beside numpy's matmul.

    Parameters
    ----------
    rows, cols : int
        Size of the array.
    m : int
        Rows of x.
    rounds : int
        Pairs of runs; medians are returned.
    threads : int
        Threads of systolic; numpy's own are not limited.
    """
    for name, value in (("rows", rows), ("cols", cols), ("m", m), ("rounds", rounds), ("threads", threads)):
        _check.integer(value, name, minimum=1)
    fold = Fold(rows, cols, m)
    x, w, config = fold.x, fold.w, fold.config
    measured = [
        compare(
            f"one fold, {fold.name}, cycle mode", fold.run(threads), fold.pe_cycles,
            *fold.stepping, UNIT, rounds,
        ),
        _random(fold, rounds),
    ]  # fmt: skip
    macs = m * rows * cols

    def by_numpy() -> np.ndarray:
        return x.astype(np.float64) @ w.astype(np.float64)

    for mode in ("cycle", "wavefront"):

        def product(mode: str = mode) -> None:
            engine.matmul(x, w, array=config, mode=mode, threads=threads)

        name, beside = f"matmul {m} x {rows} x {cols}, {mode} mode", "numpy float64 matmul"
        measured.append(compare(name, product, macs, beside, by_numpy, macs, "MAC/s", rounds))
    return measured


def _random(fold: Fold, rounds: int) -> Measurement:
    rows, cols, cycles = fold.config.rows, fold.config.cols, 256
    name = f"random control bits, {cycles} cycles, {rows} x {cols}"
    work = random_control(fold.config, cycles)
    return compare(name, work, rows * cols * cycles, *fold.stepping, UNIT, rounds)


def cycle_section(rounds: int, every: bool, *, size: int = 256, m: int = 2048) -> Section:
    """Measure one fold, and random control bits, on each instruction set beside numpy stepping."""
    fold = Fold(size, size, m)
    measured = [compare(*fold.stepping, *add_int32(size, size), UNIT, rounds)]
    for name in instruction_sets(every):
        with using(name):
            for row in (
                compare(f"one fold, {fold.name}", fold.run(1), fold.pe_cycles, *fold.stepping, UNIT, rounds),
                _random(fold, rounds),
            ):
                measured.append(Measurement(**row.to_dict() | {"name": f"{row.name}, {name}"}))
    note = (
        "numpy stepping slides activations, multiplies and adds; nothing is shifted or swapped. "
        f"{_kernels.instruction_set} is in use."
    )
    return Section("Cycle mode, one thread", tuple(measured), (note,))
